"""The tasks of URLB (https://arxiv.org/abs/2110.15191) and of the zero-shot benchmarks on ExORL's domains
(https://arxiv.org/abs/2201.13425): rewards computed from physics rows and actions alone.

Every reward is a product of ramps of where the body is and how it moves after the step, so stored states are scored
without a simulator (`urlrl.tasks.kinematics`), as ExORL's relabelling does. The walker's stand, walk and run, the
quadruped's walk and run and the cheetah's run are the suite's own; flip, stand and jump are URLB's additions, the
cheetah's other tasks those of zero-shot benchmarks, all with the same dynamics. The Jaco tasks come in URLB's version
(`jaco_brick_*`, the target is a brick that can be pushed) and in ExORL's (`jaco_site_*`, a fixed point); their returns
are not comparable. The maze is our own (`urlrl.envs.point_mass`), and its rewards alone read the action.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import mujoco
import numpy as np

from urlrl.envs.point_mass import TARGETS
from urlrl.envs.rewards import Pose, cheetah_reward, quadruped_reward, reach_reward, tolerance, walker_reward
from urlrl.errors import unknown
from urlrl.tasks.kinematics import Kinematics, by_rows
from urlrl.tasks.task import Task


def maze_reward(position: np.ndarray, action: np.ndarray, target: tuple[float, float]) -> np.ndarray:
    """Of positions (*B, 2) in m and actions (*B, 2): 1 within 1.5 cm, 0.1 at 3 cm, less a fifth at full throttle.

    The distance is in 3-D, but mass and target are both 1 cm above the ground. The action is what led to the position,
    not what a simulator holds that was set to a stored state: that is 0, which would give every row the full factor.
    """
    near = tolerance(np.hypot(position[..., 0] - target[0], position[..., 1] - target[1]), 0, 0.015, 0.015)
    control = tolerance(np.asarray(action, np.float64), 0, 0, 1, 0, "quadratic").mean(axis=-1)
    return near * (4 + control) / 5


@cache
def suite_body(domain: str) -> tuple[Kinematics, int]:
    """Of a domain of the suite, with the number of its torso."""
    from urlrl.envs.dmc import silenced, suite

    with silenced("'settotalmass' is deprecated"):
        model: mujoco.MjModel = suite.load(domain, _SUITE[domain].hosts[0]).physics.model.ptr
    return Kinematics(model), model.body("torso").id


@cache
def _arm(name: str) -> tuple[Kinematics, tuple[int, np.ndarray], int | None, tuple[float, ...]]:
    """Of a Jaco environment: the body that holds the tool centre point and where in it; the brick's body; the
    target, where that is fixed."""
    from urlrl.envs.jaco import make_simulation

    simulation = make_simulation(name)
    model, tcp = simulation.model, simulation.tcp
    hand = int(model.site_bodyid[tcp]), model.site_pos[tcp].copy()
    return Kinematics(model), hand, simulation.brick, simulation.target


def _suite_reward(domain: str, move: str, physics: np.ndarray, action: np.ndarray) -> np.ndarray:
    kinematics, torso = suite_body(domain)
    return by_rows(lambda rows: _SUITE[domain].reward(move, kinematics(rows), torso), physics)


def _reach(name: str, physics: np.ndarray, action: np.ndarray) -> np.ndarray:
    kinematics, hand, brick, target = _arm(name)

    def reward(rows: np.ndarray) -> np.ndarray:
        pose = kinematics(rows)
        return reach_reward(pose.point(*hand), target if brick is None else pose.position(brick))

    return by_rows(reward, physics)


def _reach_in_maze(corner: str, physics: np.ndarray, action: np.ndarray) -> np.ndarray:
    return maze_reward(physics[..., :2], action, TARGETS[corner])


# Returns of the supervised agents that URLB divides by, as its first author posted them (issue 1 of its repository).
EXPERTS = {
    "walker_stand": 984.0, "walker_walk": 971.0, "walker_run": 796.0, "walker_flip": 799.0,
    "quadruped_stand": 920.0, "quadruped_walk": 866.0, "quadruped_run": 888.0, "quadruped_jump": 888.0,
    "jaco_brick_reach_top_left": 191.0, "jaco_brick_reach_top_right": 223.0,
    "jaco_brick_reach_bottom_left": 193.0, "jaco_brick_reach_bottom_right": 203.0,
}  # fmt: skip


class Floor(NamedTuple):
    """Return of a policy that knows nothing: mean over episodes, and its standard error where one was measured."""

    mean: float
    error: float | None = None


def _floors(zero: tuple, random: tuple, stand_still: float | None = None) -> dict[str, Floor]:
    still = {} if stand_still is None else {"stand_still": Floor(stand_still)}
    return {"zero": Floor(*zero), "random": Floor(*random), **still}


# Measured with dm_control 1.0.50 and MuJoCo 3.17.0: action 0 in every step, uniform random actions, and (by formula)
# standing upright without moving. Episodes: walker 50; quadruped 400 and 100; Jaco with the brick 20, with the site the
# same 200 for all four; cheetah 100; maze 400. Means hide two kinds of episodes: 24 % of the quadruped's happen to land
# on their feet and the others return next to nothing; a few of the site's start with the hand at the target, and of the
# maze's with the mass at that of the room they start in, which neither policy leaves.
FLOORS: dict[str, dict[str, Floor]] = {
    "walker_stand": _floors((135, 8), (134, 2), 1000),
    "walker_walk": _floors((23, 1), (32,), 167),
    "walker_run": _floors((23, 1), (24,), 167),
    "walker_flip": _floors((24, 1), (50,), 167),
    "walker_velocity_0.1": _floors((22, 1), (61, 1.4), 167),
    "walker_velocity_4": _floors((20, 1), (24, 0.3), 167),
    "quadruped_stand": _floors((246, 21), (327, 46), 1000),
    "quadruped_walk": _floors((123, 11), (162,), 500),
    "quadruped_run": _floors((123, 11), (163,), 500),
    "quadruped_jump": _floors((182, 15), (243,), 721),
    "jaco_brick_reach_top_left": _floors((0, 0), (6, 3)),
    "jaco_brick_reach_top_right": _floors((0, 0), (10, 3)),
    "jaco_brick_reach_bottom_left": _floors((0, 0), (5, 4)),
    "jaco_brick_reach_bottom_right": _floors((0, 0), (3, 1)),
    "jaco_site_reach_top_left": _floors((3.7, 1.5), (11.1, 1.8)),
    "jaco_site_reach_top_right": _floors((2.0, 1.3), (11.6, 1.9)),
    "jaco_site_reach_bottom_left": _floors((10.9, 2.9), (17.5, 2.9)),
    "jaco_site_reach_bottom_right": _floors((5.2, 1.8), (7.7, 1.5)),
    "cheetah_run": _floors((0.12, 0.01), (4.0, 0.1), 0),
    "cheetah_run_backward": _floors((0.07, 0.01), (19.8, 0.2), 0),
    "cheetah_walk": _floors((0.59, 0.03), (20.2, 0.6), 0),
    "cheetah_walk_backward": _floors((0.35, 0.02), (99.2, 1.1), 0),
    "point_mass_maze_reach_top_left": _floors((17.6, 5.8), (16.4, 3.3)),
    "point_mass_maze_reach_top_right": _floors((0, 0), (0, 0)),
    "point_mass_maze_reach_bottom_left": _floors((0, 0), (0, 0)),
    "point_mass_maze_reach_bottom_right": _floors((0, 0), (0, 0)),
}


class _Domain(NamedTuple):
    """Of the suite."""

    hosts: tuple[str, ...]  # the suite's tasks with its dynamics; the first acts the others out
    option_steps: int  # control steps that a controller holds a skill
    reward: Callable[[str, Pose, int], Any]


_SUITE = {
    "walker": _Domain(("walk", "stand", "run"), 25, walker_reward),
    # Options as METRA's goal task: a quarter as long as its episode of 400.
    "quadruped": _Domain(("run", "walk"), 50, quadruped_reward),
    "cheetah": _Domain(("run",), 25, cheetah_reward),
}


def _suite_task(domain: str, move: str) -> dict[str, Any]:
    envs = tuple(f"dmc:{domain}_{host}" for host in _SUITE[domain].hosts)
    reward = partial(_suite_reward, domain, move)
    return {
        "env": envs[0], "runs_on": envs, "reward": reward, "option_steps": _SUITE[domain].option_steps,
        "device": f"mjx:{domain}_{move}", "largest": 1000.0,  # of 1,000 steps, each pays at most 1
    }  # fmt: skip


def _jaco_task(kind: str, corner: str) -> dict[str, Any]:
    start = f"jaco_{kind}_reach_"
    envs = tuple(f"jaco:{kind}_{name.removeprefix(start)}" for name in FLOORS if name.startswith(start))
    return {"env": f"jaco:{kind}_{corner}", "runs_on": envs, "reward": partial(_reach, f"{kind}_{corner}")}


def _maze_task(corner: str) -> dict[str, Any]:
    return {"env": "point_mass_maze", "runs_on": ("point_mass_maze",), "reward": partial(_reach_in_maze, corner)}


_KINDS: dict[str, Callable[[str], dict[str, Any]]] = {  # what a task's name starts with -> of the rest, its fields
    **{f"{domain}_": partial(_suite_task, domain) for domain in _SUITE},
    **{f"jaco_{kind}_reach_": partial(_jaco_task, kind) for kind in ("brick", "site")},
    "point_mass_maze_reach_": _maze_task,
}


def urlb_task(name: str) -> Task:
    """A task of `urlrl.tasks.catalogue.URLB_TASKS` or `ZERO_SHOT_TASKS`.

    Its reward takes physics (*B, physics_dim) as the environment's `physics` returns them, and actions (*B, act) in
    [-1, 1]: any, but for the maze.

    Raises:
        UserError: no such task.
    """
    if name not in FLOORS:
        raise unknown("URLB task", name, FLOORS)
    start = next(start for start in _KINDS if name.startswith(start))
    still = FLOORS[name].get("stand_still")
    return Task(
        name,
        expert=EXPERTS.get(name),
        stand_still=still.mean if still else None,
        **_KINDS[start](name.removeprefix(start)),
    )
