"""What environments share whose state is qpos and qvel of a MuJoCo model."""

from dataclasses import replace

import mujoco
import numpy as np

from urlrl.envs.base import LaneByLaneEnv
from urlrl.envs.pool import MujocoPool
from urlrl.types import EnvSpec


class PoolEnv(LaneByLaneEnv):
    """`num_envs` copies of a model, of which all of qpos and qvel is seen."""

    def __init__(
        self, spec: EnvSpec, model: mujoco.MjModel, num_envs: int, episode_steps: int | None, threads: int | None
    ):
        super().__init__(spec if episode_steps is None else replace(spec, episode_steps=episode_steps), num_envs)
        self.model = model
        self.pool = MujocoPool(model, num_envs, threads)

    def position(self) -> np.ndarray:
        return self.pool.qpos[:, : len(self.env_spec.position)].copy()

    def physics(self) -> np.ndarray:
        return self._obs()

    def close(self, **kwargs) -> None:
        self.pool.close()

    def _obs(self) -> np.ndarray:
        return np.concatenate([self.pool.qpos, self.pool.qvel], axis=1)

    def _get_state(self) -> dict[str, np.ndarray]:
        return {"simulation": self.pool.get_state()}

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        self.pool.set_state(state["simulation"])
