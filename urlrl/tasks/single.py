"""One lane of an environment or a task, as a plain `gymnasium.Env`: for libraries that know nothing of lanes."""

from typing import Any

import gymnasium
import numpy as np

from urlrl.envs import ENVS, make_env
from urlrl.errors import UserError, unknown
from urlrl.tasks.catalogue import TASKS, find_task
from urlrl.tasks.task import make_task_env


class SingleEnv(gymnasium.Env):
    """A host vector environment of one lane, or a `TaskEnv` of one, with float32 observations and no lane axis.

    Actions are in [-1, 1]; a time limit truncates. After `reset(seed=s)` the episodes are those of the lane after its
    own `reset(seed=s)`; without any seed the first reset draws one.

    Raises:
        UserError: it has more than one lane.
    """

    metadata = {"render_modes": []}

    def __init__(self, env: Any):
        if env.num_envs != 1:
            raise UserError(f"'{env.env_spec.id}' has {env.num_envs} lanes: expected an environment of one.")
        self.env, self._seeded = env, False
        self.dt = env.env_spec.control_dt  # seconds, as Gymnasium's environments in MuJoCo name it
        space = env.single_observation_space
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, space.shape, np.float32)
        self.action_space = env.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; returns obs (obs,) and {}. There are no options."""
        super().reset(seed=seed)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**31))
        self._seeded = True
        obs, info = self.env.reset(seed=seed)
        return obs[0].astype(np.float32), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """action (act,) in [-1, 1]; returns obs (obs,), reward, terminated, truncated, {}."""
        obs, reward, terminated, truncated, info = self.env.step(np.asarray(action)[None])
        return obs[0].astype(np.float32), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def close(self) -> None:
        self.env.close()


def make_single(name: str) -> SingleEnv:
    """A task of `TASKS`, or else an environment by a name that `make_env` knows.

    Raises:
        UserError: there is none of this name.
    """
    if name in TASKS:
        return SingleEnv(make_task_env(find_task(name)))
    if name not in ENVS and ":" not in name:
        raise unknown("task or environment", name, [*TASKS, *ENVS], "urlrl tasks")
    return SingleEnv(make_env(name))
