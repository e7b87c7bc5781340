"""The tasks of URLB (https://arxiv.org/abs/2110.15191) and of the zero-shot benchmarks on ExORL's domains
(https://arxiv.org/abs/2201.13425): rewards computed from physics rows and actions alone.

Every reward is a product of ramps of where the body is and how it moves after the step, so stored states are scored
without a simulator (`urlrl.envs.kinematics`), as ExORL's relabelling does. The walker's stand, walk and run, the
quadruped's walk and run and the cheetah's run are the suite's own; flip, stand and jump are URLB's additions, the
cheetah's other tasks those of zero-shot benchmarks, all with the same dynamics. The Jaco tasks come in URLB's version
(`jaco_brick_*`, the target is a brick that can be pushed) and in ExORL's (`jaco_site_*`, a fixed point); their returns
are not comparable. The maze is our own (`urlrl.envs.point_mass`), and its rewards alone read the action.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, NamedTuple, Protocol

import mujoco
import numpy as np

from urlrl.envs.kinematics import Kinematics, by_rows
from urlrl.envs.point_mass import TARGETS
from urlrl.envs.tasks import URLB_TASKS, Task
from urlrl.errors import unknown


class Pose(Protocol):
    """n states of one model as rewards look at them: `urlrl.envs.kinematics.Pose`, or the device's."""

    def position(self, body: int) -> Any: ...  # (n, 3), m
    def orientation(self, body: int) -> Any: ...  # (n, 3, 3)
    def local_velocity(self, body: int) -> Any: ...  # (n, 3), m/s
    def com(self) -> Any: ...  # (n, 3), m
    def com_velocity(self) -> Any: ...  # (n, 3), m/s
    def angular_momentum(self) -> Any: ...  # (n, 3), kg m^2/s


def tolerance(
    x: Any,
    lower: float,
    upper: float,
    margin: float,
    value_at_margin: float = 0.1,
    kind: Literal["gaussian", "linear", "quadratic"] = "gaussian",
) -> Any:
    """dm_control's building block of rewards: 1 where lower <= x <= upper, less the further outside. Of arrays of NumPy
    or of JAX, as are the rewards that are made of it.

    With d the distance to the bounds in units of `margin` and v the `value_at_margin`, the value outside is v^(d^2)
    (gaussian), 1 - (1 - v) d (linear) or 1 - (1 - v) d^2 (quadratic), never below 0; with margin 0 it is 0.
    """
    xp = _library(x)
    outside = xp.maximum(xp.maximum(lower - x, x - upper), 0.0)
    if margin == 0:
        return xp.where(outside > 0, 0.0, 1.0)
    d = outside / margin
    if kind == "gaussian":
        return value_at_margin ** xp.square(d)
    return xp.maximum(0.0, 1 - (1 - value_at_margin) * (d if kind == "linear" else xp.square(d)))


def _library(x: Any) -> Any:
    """The functions for arrays like `x`: NumPy's, or JAX's where a reward is computed on the device."""
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else np


def reach_reward(hand: np.ndarray, target: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """Of positions (*B, 3) in m: 1 within 5 cm, 0.1 at 10 cm."""
    return tolerance(np.linalg.norm(hand - np.asarray(target), axis=-1), 0, 0.05, 0.05)


def maze_reward(position: np.ndarray, action: np.ndarray, target: tuple[float, float]) -> np.ndarray:
    """Of positions (*B, 2) in m and actions (*B, 2): 1 within 1.5 cm, 0.1 at 3 cm, less a fifth at full throttle.

    The distance is in 3-D, but mass and target are both 1 cm above the ground. The action is what led to the position,
    not what a simulator holds that was set to a stored state: that is 0, which would give every row the full factor.
    """
    near = tolerance(np.hypot(position[..., 0] - target[0], position[..., 1] - target[1]), 0, 0.015, 0.015)
    control = tolerance(np.asarray(action, np.float64), 0, 0, 1, 0, "quadratic").mean(axis=-1)
    return near * (4 + control) / 5


def _ramp(x: Any, full: float) -> Any:
    """From 0 at x = 0 to 1 at `full`, which may be negative."""
    return _library(x).clip(x / full, 0, 1)


def _forward(speed: float) -> Callable[[Pose], Any]:
    """A factor that is 1 from `speed` m/s on."""
    return lambda pose: (5 * _ramp(pose.com_velocity()[:, 0], speed) + 1) / 6


_WALKER: dict[str, Callable[[Pose], Any]] = {  # factors of the reward beside the posture
    "stand": lambda pose: np.ones(1),
    "walk": _forward(1.0),
    "run": _forward(8.0),
    "velocity_0.1": _forward(0.1),  # these two are FRE's (https://arxiv.org/abs/2402.17135)
    "velocity_4": _forward(4.0),
    "flip": lambda pose: (5 * _ramp(pose.angular_momentum()[:, 1], 5.0) + 1) / 6,  # kg m^2/s, forward
}


def walker_reward(move: str, pose: Pose, torso: int) -> Any:
    """(n,): a posture, 3/4 height of the torso and 1/4 upright, times how well it moves."""
    standing = tolerance(pose.position(torso)[:, 2], 1.2, np.inf, 0.6)
    return (3 * standing + _upright(pose, torso)) / 4 * _WALKER[move](pose)


_QUADRUPED: dict[str, Callable[[Pose, int], Any]] = {
    "stand": lambda pose, torso: np.ones(1),
    "walk": lambda pose, torso: _ramp(0.5 + 0.5 * pose.local_velocity(torso)[:, 0] / 0.5, 1),  # m/s
    "run": lambda pose, torso: _ramp(0.5 + 0.5 * pose.local_velocity(torso)[:, 0] / 5.0, 1),
    "jump": lambda pose, torso: _ramp(0.5 + 0.5 * pose.com()[:, 2] / 1.0, 1),  # m
}


def quadruped_reward(move: str, pose: Pose, torso: int) -> Any:
    """(n,): upright, times how well it moves forward by its own frame, or how high it is."""
    return _upright(pose, torso) * _QUADRUPED[move](pose, torso)


_CHEETAH = {"run": 10.0, "run_backward": -10.0, "walk": 2.0, "walk_backward": -2.0}  # m/s from which the reward is 1


def cheetah_reward(move: str, pose: Pose, torso: int) -> Any:
    """(n,): how fast it moves, in any posture."""
    del torso
    return _ramp(pose.com_velocity()[:, 0], _CHEETAH[move])


def _upright(pose: Pose, torso: int) -> Any:
    return (1 + pose.orientation(torso)[:, 2, 2]) / 2


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
    return {"env": envs[0], "runs_on": envs, "reward": reward, "option_steps": _SUITE[domain].option_steps}


def _jaco_task(kind: str, corner: str) -> dict[str, Any]:
    envs = tuple(f"jaco:{kind}_{task.partition('_reach_')[2]}" for task in URLB_TASKS["jaco"])
    return {"env": f"jaco:{kind}_{corner}", "runs_on": envs, "reward": partial(_reach, f"{kind}_{corner}")}


def _maze_task(corner: str) -> dict[str, Any]:
    return {"env": "point_mass_maze", "runs_on": ("point_mass_maze",), "reward": partial(_reach_in_maze, corner)}


_KINDS: dict[str, Callable[[str], dict[str, Any]]] = {  # what a task's name starts with -> of the rest, its fields
    **{f"{domain}_": partial(_suite_task, domain) for domain in _SUITE},
    **{f"jaco_{kind}_reach_": partial(_jaco_task, kind) for kind in ("brick", "site")},
    "point_mass_maze_reach_": _maze_task,
}


def urlb_task(name: str) -> Task:
    """A task of `urlrl.envs.tasks.URLB_TASKS` or `ZERO_SHOT_TASKS`.

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
