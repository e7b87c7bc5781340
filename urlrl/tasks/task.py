"""Tasks: data beside an environment. `TaskEnv` lets a controller act on one.

A task shows an agent that was pretrained in one of `task.runs_on` the observations that it knows. Most tasks are a
reward of the state that was reached; METRA's goal tasks also draw something anew in each episode and show it.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from urlrl.envs import make_env, twin_of
from urlrl.envs.base import HostVectorEnv
from urlrl.envs.rewards import library
from urlrl.errors import UserError
from urlrl.types import EnvSpec

LARGEST = "the largest possible return"  # an upper bound of nobody's

Reward = Callable[[Any, Any], Any]  # physics (*B, physics), action (*B, act) -> (*B,)


class Moment(NamedTuple):
    """One control step of n environments: where it led, and what led there; arrays of NumPy, or of JAX."""

    before: Any  # (n, physics)
    action: Any  # (n, act), in [-1, 1]
    physics: Any  # (n, physics), reached
    context: Any  # (n, context): what the task drew for the episode
    clock: Any  # (n,): control steps since the reset, this one included


@dataclass(frozen=True)
class Task:
    """What every task says of itself; `reward` is all that most of them are.

    Rewards follow dm_control's convention: those of the state that was reached and of the action that led there.
    A task that can be learned on the device computes its reward and its inputs by `library`, of NumPy's arrays as of
    JAX's (or names an environment there that pays the reward itself), and draws by `rng.uniform` alone.
    """

    name: str
    env: str  # the environment that the task is acted out in
    runs_on: tuple[str, ...]  # environments whose agents see the same observations
    reward: Reward | None = None
    expert: float | None = None  # published return that scores are divided by
    largest: float | None = None  # the largest possible return, where that is known
    stand_still: float | None = None  # return of standing upright and doing nothing else, where that is known
    episode_steps: int | None = None  # None is the environment's own
    option_steps: int = 25  # control steps that a high-level controller holds a skill
    input_names: tuple[str, ...] = ()  # what the task adds to the observation
    # an environment of `make_device_env` that pays this reward itself; "": what `env` is there, and `score`
    device: str = ""

    def draw(self, rng: Any) -> Any:
        """What an episode is about, (context,); `rng` is a generator of NumPy's, or `urlrl.tasks.on_device.Draws`."""
        del rng
        return np.zeros(0)

    def inputs(self, physics: Any, context: Any, clock: Any) -> Any:
        """What a controller is shown beside the observation, (n, inputs)."""
        del context, clock
        return np.zeros((len(physics), 0))

    def goal(self, context: Any, clock: Any) -> Any:
        """The position to be at, (n, p), for a task that is about one; else None."""
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
        if self.expert is not None:
            return self.expert, "published expert"
        return None if self.largest is None else (self.largest, LARGEST)

    def score(self, moment: Moment) -> Any:
        """The reward of one control step, (n,)."""
        assert self.reward is not None, self.name
        return self.reward(moment.physics, moment.action)


def check_inputs(task: Task, inputs: Any, n: int) -> None:
    """Raises UserError: these are not the task's inputs in n environments, one by name."""
    expected = (n, len(task.input_names))
    if np.shape(inputs) != expected:
        names = ", ".join(task.input_names) or "none"
        raise UserError(
            f"Task '{task.name}' has inputs of shape {np.shape(inputs)}: expected {expected}, as its input_names are "
            f"{names}."
        )


def check_rewards(task: Task, reward: Any, moment: Moment) -> None:
    """Raises UserError: these are not one number for each row of a moment."""
    if reward.shape != moment.clock.shape or reward.dtype.kind not in "biuf":
        raise UserError(
            f"Task '{task.name}' gave rewards of shape {reward.shape}, {reward.dtype}: expected numbers of shape "
            f"{moment.clock.shape}, one for each row of physics."
        )


def rewards(task: Task, moment: Moment) -> np.ndarray:
    """`task.score`, (n,), looked at: what every reward on the host is.

    Raises:
        UserError: there is not one finite number for each row.
    """
    reward = np.asarray(task.score(moment))
    check_rewards(task, reward, moment)
    finite = np.isfinite(reward)
    if not finite.all():
        row = int(np.argmin(finite))
        raise UserError(
            f"Task '{task.name}' gave a non-finite reward in environment '{task.env}' (row {row}, step "
            f"{moment.clock[row]} of its episode): expected finite numbers."
        )
    return reward


@dataclass(frozen=True)
class GoalTask(Task):
    """+1 (or `pays`) per control step within `radius` of the goal, never before control step `first`.

    A goal is drawn from U[-half, half] per coordinate. With `goals` above 1 it moves on when its share of the episode
    is over. The reward is judged before a move, the inputs show the goal after it. As in CSF's code the chain of
    goals 2, 3, ..., each a draw away from the one before, starts from a draw of its own, not from goal 1; here it
    is drawn anew in each episode (there once per worker).
    """

    position: int = 1  # the first coordinates of a physics row are the position
    half: float = 7.5  # m
    radius: float = 3.0  # m
    goals: int = 1
    pays: float = 1.0
    first: int = 2

    def draw(self, rng: Any) -> Any:
        draws = rng.uniform(-self.half, self.half, (self.goals + 1, self.position))
        xp = library(draws)
        chain = draws[1] + xp.cumsum(draws[2:], axis=0)
        return xp.concatenate([draws[0], chain.ravel()])

    def goal(self, context: Any, clock: Any) -> Any:
        assert self.episode_steps is not None
        index = library(clock).minimum(clock * self.goals // self.episode_steps, self.goals - 1)
        goals = context.reshape(len(context), self.goals, self.position)
        return goals[np.arange(len(context)), index]

    def inputs(self, physics: Any, context: Any, clock: Any) -> Any:
        return self.goal(context, clock)

    def ceiling(self, starts: np.ndarray) -> tuple[float, str]:
        del starts
        assert self.episode_steps is not None
        return self.pays * (self.episode_steps - self.first + 1), LARGEST

    def score(self, moment: Moment) -> Any:
        goal = self.goal(moment.context, moment.clock - 1)
        away = moment.physics[:, : self.position] - goal
        inside = library(away).linalg.norm(away, axis=1) <= self.radius
        return self.pays * (inside & (moment.clock >= self.first))


@dataclass(frozen=True)
class PlaceTask(Task):
    """A reward for being at a place that is the same in every episode."""

    goal_position: tuple[float, float] = (0.0, 0.0)  # x, y in metres

    def goal(self, context: np.ndarray, clock: np.ndarray) -> np.ndarray:
        return np.tile(self.goal_position, (len(clock), 1))

    def goal_obs(self, env: Any) -> np.ndarray:
        return env.goal_obs(np.array([self.goal_position]))[0].astype(np.float32)


def task_spec(task: Task, spec: EnvSpec) -> EnvSpec:
    """That of the task in an environment of this `spec`."""
    width = len(task.input_names)
    return replace(
        spec, id=task.name, obs_dim=spec.obs_dim + width, obs_is_physics=spec.obs_is_physics and not width,
        obs_mean=None, obs_std=None,
    )  # fmt: skip


class TaskEnv(VectorEnv):
    """`env` with the reward of `task`, and the task's inputs behind its observations; nothing else differs.

    Make it with `make_task_env`. What a task draws depends on (seed, lane, number of the episode) alone.
    """

    metadata = HostVectorEnv.metadata

    def __init__(self, env: Any, task: Task):
        self.env, self.task, self.num_envs = env, task, env.num_envs
        self.env_spec = task_spec(task, env.env_spec)
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
        """actions (n, act) in [-1, 1]; returns obs (n, obs + inputs), reward, terminated, truncated (n,), {}."""
        before = self.physics()
        obs, _, terminated, truncated, info = self.env.step(actions)
        self.clock += 1
        self.control_steps += self.num_envs
        self.moment = Moment(before, np.clip(actions, -1.0, 1.0), self.physics(), self.context, self.clock)
        return self._observe(obs), rewards(self.task, self.moment), terminated, truncated, info

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
        """The observation, without inputs, of a fresh reset moved to each of `position` (k, p)."""
        return self.env.goal_obs(position)

    def place(self, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float] | None:
        """None: what a task draws is no part of a state."""
        del physics, action
        return None

    def close(self, **kwargs) -> None:
        self.env.close()

    def _observe(self, obs: np.ndarray) -> np.ndarray:
        inputs = self.task.inputs(self.physics(), self.context, self.clock)
        check_inputs(self.task, inputs, self.num_envs)
        return np.concatenate([obs, inputs], axis=1)


def make_task_env(task: Task, num_envs: int = 1, *, root_position: bool = False) -> TaskEnv:
    """`num_envs` copies of the task's environment with its reward; `root_position` as in `make_env`."""
    env = make_env(task.env, num_envs, episode_steps=task.episode_steps, root_position=root_position)
    return TaskEnv(env, task)


def runs_on(task: Task, env_id: str) -> bool:
    """Whether an agent that knows this environment, or its twin, sees in the task what it knows."""
    return env_id in task.runs_on or twin_of(env_id) in task.runs_on


def check_runs_on(task: Task, env_id: str) -> None:
    """Refuse a task whose environment shows other observations than the one that an agent knows."""
    if not runs_on(task, env_id):
        raise UserError(
            f"Task '{task.name}' is for agents pretrained on {' or '.join(task.runs_on)}: this one knows '{env_id}'."
        )
