"""Tasks: data beside an environment. `TASKS` names them, `TaskEnv` lets a controller act on one.

A task shows an agent that was pretrained in one of `task.runs_on` the observations that it knows. Most tasks are a
reward of the state that was reached; METRA's goal tasks also draw something anew in each episode and show it.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from urlrl.envs import make_env, twin_of
from urlrl.envs.base import HostVectorEnv
from urlrl.envs.locomotion import HALF_CHEETAH_HURDLE
from urlrl.errors import UserError, unknown
from urlrl.loading import load_object
from urlrl.types import EnvSpec

Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # physics (*B, physics), action (*B, act) -> (*B,)


class Moment(NamedTuple):
    """One control step of n environments: where it led, and what led there."""

    before: np.ndarray  # (n, physics)
    action: np.ndarray  # (n, act), in [-1, 1]
    physics: np.ndarray  # (n, physics), reached
    context: np.ndarray  # (n, context): what the task drew for the episode
    clock: np.ndarray  # (n,): control steps since the reset, this one included


@dataclass(frozen=True)
class Task:
    """What every task says of itself; `reward` is all that most of them are.

    Rewards follow dm_control's convention: those of the state that was reached and of the action that led there.
    """

    name: str
    env: str  # the environment that the task is acted out in
    runs_on: tuple[str, ...]  # environments whose agents see the same observations
    reward: Reward | None = None
    expert: float | None = None  # published return that scores are divided by
    stand_still: float | None = None  # return of standing upright and doing nothing else, where that is known
    episode_steps: int | None = None  # None is the environment's own
    option_steps: int = 25  # control steps that a high-level controller holds a skill
    feature_names: tuple[str, ...] = ()  # what the task adds to the observation

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """What an episode is about, (context,)."""
        del rng
        return np.zeros(0)

    def features(self, physics: np.ndarray, context: np.ndarray, clock: np.ndarray) -> np.ndarray:
        """What a controller is shown beside the observation, (n, features)."""
        del context, clock
        return np.zeros((len(physics), 0))

    def goal(self, context: np.ndarray, clock: np.ndarray) -> np.ndarray | None:
        """The position to be at, (n, p), for a task that is about one."""
        del context, clock
        return None

    def goal_obs(self, env: Any) -> np.ndarray | None:
        """The observation (obs,) to reach, of a task whose goal is the same in every episode; `env` is acted out in."""
        del env
        return None

    def ceiling(self, starts: np.ndarray) -> tuple[float, str] | None:
        """A return that is hard to exceed, and whose it is, as a mean over episodes that start at these physics rows
        (n, physics); None where none is known."""
        del starts
        return None if self.expert is None else (self.expert, "published expert")

    def score(self, moment: Moment) -> np.ndarray:
        """The reward of one control step, (n,)."""
        assert self.reward is not None, self.name
        reward = np.asarray(self.reward(moment.physics, moment.action))
        if reward.shape != moment.clock.shape or reward.dtype.kind not in "biuf":
            raise UserError(
                f"Task '{self.name}' gave rewards of shape {reward.shape}, {reward.dtype}: expected numbers of shape "
                f"{moment.clock.shape}, one for each row of physics."
            )
        finite = np.isfinite(reward)
        if not finite.all():
            row = int(np.argmin(finite))
            raise UserError(
                f"Task '{self.name}' gave a non-finite reward in environment '{self.env}' (row {row}, step "
                f"{moment.clock[row]} of its episode): expected finite numbers."
            )
        return reward


@dataclass(frozen=True)
class GoalTask(Task):
    """+1 (or `pays`) per control step within `radius` of the goal, never before control step `first`.

    A goal is drawn from U[-half, half] per coordinate. With `goals` above 1 it moves on when its share of the episode
    is over. The reward is judged before a move, the features show the goal after it. As in CSF's code the chain of
    goals 2, 3, ..., each a draw away from the one before, starts from a draw of its own, not from goal 1; here it
    is drawn anew in each episode (there once per worker).
    """

    position: int = 1  # the first coordinates of a physics row are the position
    half: float = 7.5  # m
    radius: float = 3.0  # m
    goals: int = 1
    pays: float = 1.0
    first: int = 2

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        draws = rng.uniform(-self.half, self.half, (self.goals + 1, self.position))
        chain = draws[1] + np.cumsum(draws[2:], axis=0)
        return np.concatenate([draws[0], chain.ravel()])

    def goal(self, context: np.ndarray, clock: np.ndarray) -> np.ndarray:
        assert self.episode_steps is not None
        index = np.minimum(clock * self.goals // self.episode_steps, self.goals - 1)
        goals = context.reshape(len(context), self.goals, self.position)
        return goals[np.arange(len(context)), index]

    def features(self, physics: np.ndarray, context: np.ndarray, clock: np.ndarray) -> np.ndarray:
        return self.goal(context, clock)

    def score(self, moment: Moment) -> np.ndarray:
        goal = self.goal(moment.context, moment.clock - 1)
        inside = np.linalg.norm(moment.physics[:, : self.position] - goal, axis=1) <= self.radius
        return self.pays * (inside & (moment.clock >= self.first))


@dataclass(frozen=True)
class PlaceTask(Task):
    """A reward for being at a place that is the same in every episode."""

    goal_position: tuple[float, float] = (0.0, 0.0)  # x, y in metres

    def goal(self, context: np.ndarray, clock: np.ndarray) -> np.ndarray:
        return np.tile(self.goal_position, (len(clock), 1))

    def goal_obs(self, env: Any) -> np.ndarray:
        return env.goal_obs(np.array([self.goal_position]))[0].astype(np.float32)


HURDLES = np.array(HALF_CHEETAH_HURDLE.hurdles)  # x in m; those at x >= 0 count


@dataclass(frozen=True)
class HurdleTask(Task):
    """+1 for each hurdle with x >= 0 that the back foot passes, -1 for passing it back."""

    def features(self, physics: np.ndarray, context: np.ndarray, clock: np.ndarray) -> np.ndarray:
        """x of the next hurdle (15 m if there is none), and the distance to it."""
        foot = _back_foot(physics)[:, None]
        ahead = np.where(foot <= HURDLES, HURDLES, np.inf).min(axis=1)
        ahead = np.where(np.isfinite(ahead), ahead, 15.0)
        return np.stack([ahead, np.abs(ahead - foot[:, 0])], axis=1)

    def score(self, moment: Moment) -> np.ndarray:
        return (_hurdles_left(moment.before) - _hurdles_left(moment.physics)).astype(float)


def _hurdles_left(physics: np.ndarray) -> np.ndarray:
    return ((HURDLES >= 0) & (_back_foot(physics)[:, None] <= HURDLES)).sum(axis=1)


def _back_foot(physics: np.ndarray) -> np.ndarray:
    """x of the half cheetah's back foot, (n,): down the chain of its three hinges, which all turn about y."""
    x, angle = physics[:, 0], physics[:, 2]
    for (offset_x, offset_z), hinge in zip(_BACK_LEG, (3, 4, 5)):
        x = x + np.cos(angle) * offset_x + np.sin(angle) * offset_z
        angle = angle + physics[:, hinge]
    return x


_BACK_LEG = (
    (-0.5, 0.0),
    (0.16, -0.25),
    (-0.28, -0.14),
)  # thigh, shin, foot: where each hangs (x, z), in m


class TaskEnv(VectorEnv):
    """`env` with the reward of `task`, and the task's features behind its observations; nothing else differs.

    Make it with `make_task_env`. What a task draws depends on (seed, lane, number of the episode) alone.
    """

    metadata = HostVectorEnv.metadata

    def __init__(self, env: Any, task: Task):
        spec: EnvSpec = env.env_spec
        width = len(task.feature_names)
        self.env, self.task, self.num_envs = env, task, env.num_envs
        self.env_spec = replace(
            spec, id=task.name, obs_dim=spec.obs_dim + width, obs_is_physics=spec.obs_is_physics and not width,
            obs_mean=None, obs_std=None,
        )  # fmt: skip
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self.env_spec.obs_dim,), np.float64)
        self.single_action_space = env.single_action_space
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, self.num_envs)
        self.action_space = env.action_space
        self.seed = 0
        self.episode = np.full(self.num_envs, -1, np.int64)
        self.clock = np.zeros(self.num_envs, np.int64)  # control steps since the lane's reset
        self.control_steps = 0  # taken in all, over all lanes
        self.moment: Moment  # the last step's
        self.context = np.stack([task.draw(np.random.default_rng(0))] * self.num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode in every lane, or in those of `options["reset_mask"]`; returns (n, obs) and {}. Clocks start
        at 0, or at `options["clock"]` (n,)."""
        if seed is not None:
            self.seed, self.episode[:] = seed, -1
        obs, info = self.env.reset(seed=seed, options=options)
        options = options or {}
        mask = options.get("reset_mask", np.ones(self.num_envs, bool))
        for lane in np.flatnonzero(mask):
            self.episode[lane] += 1
            rng = np.random.default_rng([self.seed, lane, self.episode[lane], zlib.crc32(self.task.name.encode())])
            self.context[lane] = self.task.draw(rng)
        self.clock[mask] = options.get("clock", np.zeros(self.num_envs, np.int64))[mask]
        return self._observe(obs), info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """actions (n, act) in [-1, 1]; returns obs (n, obs + features), reward, terminated, truncated (n,), {}."""
        before = self.physics()
        obs, _, terminated, truncated, info = self.env.step(actions)
        self.clock += 1
        self.control_steps += self.num_envs
        self.moment = Moment(before, np.clip(actions, -1.0, 1.0), self.physics(), self.context, self.clock)
        return self._observe(obs), self.task.score(self.moment), terminated, truncated, info

    def get_state(self) -> dict[str, Any]:
        """All that continues it; only where the environment below can be continued."""
        own = {"seed": np.int64(self.seed), "control_steps": np.int64(self.control_steps)}
        lanes = {name: getattr(self, name).copy() for name in ("episode", "clock", "context")}
        return {**own, **lanes, "env": self.env.get_state()}

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        """Go on from there; returns the observations, (n, obs)."""
        self.seed, self.control_steps = int(state["seed"]), int(state["control_steps"])
        self.episode, self.clock, self.context = (np.array(state[k]) for k in ("episode", "clock", "context"))
        return self._observe(self.env.set_state(state["env"]))

    def goal(self) -> np.ndarray | None:
        """(n, p): the positions to be at now; None for a task that is not about one."""
        return self.task.goal(self.context, self.clock)

    def position(self) -> np.ndarray:
        return self.env.position()

    def physics(self) -> np.ndarray:
        return self.env.physics()

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """The observation, without features, of a fresh reset moved to each of `position` (k, p)."""
        return self.env.goal_obs(position)

    def close(self, **kwargs) -> None:
        self.env.close()

    def _observe(self, obs: np.ndarray) -> np.ndarray:
        features = self.task.features(self.physics(), self.context, self.clock)
        return np.concatenate([obs, features], axis=1)


def make_task_env(task: Task, num_envs: int = 1, *, root_position: bool = False) -> TaskEnv:
    """`num_envs` copies of the task's environment with its reward; `root_position` as in `make_env`."""
    env = make_env(task.env, num_envs, episode_steps=task.episode_steps, root_position=root_position)
    return TaskEnv(env, task)


# Tasks by name: METRA's (as CSF's released code has them), URLB's and ExORL's, and one for first steps.
# Quadruped and humanoid: METRA steps these two frames per decision, so an episode of 200 decisions is 400 control steps
# here, an option of 25 is 50, and a control step pays one half: returns keep their scale, at most 199.
_LOCOMOTION = {
    "point_goal": GoalTask(
        "point_goal", "point", ("point",), episode_steps=50, option_steps=10, feature_names=("goal_x", "goal_y"),
        position=2, half=3.0, radius=0.5,
    ),
    "ant_multi_goal": GoalTask(
        "ant_multi_goal", "ant", ("ant",), episode_steps=200, feature_names=("goal_x", "goal_y"), position=2, goals=4,
    ),
    "half_cheetah_goal": GoalTask(
        "half_cheetah_goal", "half_cheetah", ("half_cheetah",), episode_steps=200, feature_names=("goal_x",),
        position=1, half=100.0,
    ),
    "half_cheetah_hurdle": HurdleTask(
        "half_cheetah_hurdle", "half_cheetah_hurdle", ("half_cheetah", "half_cheetah_hurdle"), episode_steps=200,
        feature_names=("hurdle_x", "hurdle_distance"),
    ),
    "quadruped_goal": GoalTask(
        "quadruped_goal", "dmc:quadruped_run", tuple(f"dmc:quadruped_{task}" for task in ("run", "walk")),
        episode_steps=400, option_steps=50, feature_names=("goal_x", "goal_y"), position=2, radius=1.5, pays=0.5,
        first=3,
    ),
    "humanoid_goal": GoalTask(
        "humanoid_goal", "dmc:humanoid_run", tuple(f"dmc:humanoid_{task}" for task in ("run", "walk", "stand")),
        episode_steps=400, option_steps=50, feature_names=("goal_x", "goal_y"), position=2, half=5.0, radius=1.5,
        pays=0.5, first=3,
    ),
}  # fmt: skip


def _maze(name: str) -> Task:
    from urlrl.envs.maze import maze_tasks  # It imports this file.

    return maze_tasks()[name]


def _fre(name: str) -> Task:
    from urlrl.envs.fre_tasks import fre_task  # It imports this file.

    return fre_task(name)


def _urlb(name: str) -> Task:
    from urlrl.envs.urlb import urlb_task  # Imports dm_control: the other tasks need not.

    return urlb_task(name)


_CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


def _each(start: str, ends: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{start}_{end}" for end in ends)


# The tasks of zero-shot benchmarks by domain: one agent per domain is asked for all of its tasks.
MAZES = tuple(
    f"{name}{mass}{cells}"
    for name in ("8x8", "rooms", "rings", "pinwheel", "medium", "large")
    for mass in ("", "_mass")
    for cells in ("", "_cells")
)
MAZE_TASKS = {name: tuple(f"maze_{name}_goal_{i}" for i in range(1, 6)) for name in MAZES}
ZERO_SHOT_TASKS: dict[str, tuple[str, ...]] = {
    "walker": _each("walker", ("stand", "walk", "run", "flip")),
    "cheetah": _each("cheetah", ("run", "run_backward", "walk", "walk_backward")),
    "quadruped": _each("quadruped", ("stand", "walk", "run", "jump")),
    "jaco": _each("jaco_site_reach", _CORNERS),  # ExORL's version: 42-d observations
    "point_mass_maze": _each("point_mass_maze_reach", _CORNERS),
}
# FRE's kinds of rewards: what is held out from the functions that it is pretrained on.
_NUMBERS = tuple(map(str, range(1, 6)))
_FRE_BOTH = (
    *_each("move", ("left", "right", "up", "down")), *_each("simplex", _NUMBERS),
    *_each("path", ("edges", "loop", "center")),
)  # fmt: skip
_FRE_MAZE = (*_each("reach", _NUMBERS), *_each("linear", _NUMBERS), *_FRE_BOTH)
_FRE_PLACES = _each("reach", ("bottom", "left", "top", "center", "right"))
FRE_TASKS = {
    **{f"maze-rings_mass{end}": _each(f"maze_rings_mass{end}", _FRE_MAZE) for end in ("", "_cells")},
    "antmaze-large": _each("antmaze_large", (*_FRE_PLACES, *_FRE_BOTH)),
    "walker": _each("walker", ("velocity_0.1", "walk", "velocity_4", "run", *_each("posture", _NUMBERS))),
    "cheetah": (*ZERO_SHOT_TASKS["cheetah"], *_each("cheetah_posture", _NUMBERS)),
}
URLB_TASKS = {
    "walker": ZERO_SHOT_TASKS["walker"],
    "quadruped": ZERO_SHOT_TASKS["quadruped"],
    "jaco": _each("jaco_brick_reach", _CORNERS),
}

TASKS: dict[str, Callable[[], Task]] = {
    **{name: partial(_LOCOMOTION.__getitem__, name) for name in _LOCOMOTION},
    **{name: partial(_fre, name) for names in FRE_TASKS.values() for name in names},
    **{
        name: partial(_urlb, name)
        for table in (URLB_TASKS, ZERO_SHOT_TASKS)
        for names in table.values()
        for name in names
    },
    **{name: partial(_maze, name) for names in MAZE_TASKS.values() for name in names},
}


def find_task(name: str) -> Task:
    """A task of `TASKS`, one of OGBench's by its package's id, or the `Task` that a user's `module:object` is.

    Raises:
        UserError: there is none of this name.
    """
    if name in TASKS:
        return TASKS[name]()
    if name.startswith("ogbench:"):
        from urlrl.envs.ogbench import ogbench_task  # It imports this file.

        return ogbench_task(name)
    if ":" not in name:
        raise unknown("task", name, TASKS, "urlrl tasks")
    task = load_object(name, "task")
    if not isinstance(task, Task):
        raise UserError(f"Task '{name}' is a {type(task).__name__}: expected a urlrl.envs.tasks.Task.")
    return task


def runs_on(task: Task, env_id: str) -> bool:
    """Whether an agent that knows this environment, or its twin, sees in the task what it knows."""
    return env_id in task.runs_on or twin_of(env_id) in task.runs_on


def check_runs_on(task: Task, env_id: str) -> None:
    """Refuse a task whose environment shows other observations than the one that an agent knows."""
    if not runs_on(task, env_id):
        raise UserError(
            f"Task '{task.name}' is for agents pretrained on {' or '.join(task.runs_on)}: this one knows '{env_id}'."
        )
