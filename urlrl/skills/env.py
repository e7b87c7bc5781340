"""Environments whose actions are skills: what a high-level controller sees."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

# observations (n, obs), skills (n, d) -> actions (n, act)
Act = Callable[[np.ndarray, np.ndarray], Any]


class SkillVectorEnv(VectorEnv):
    """`env`, a vector environment with autoreset disabled, whose action is the skill that acts for the next `k` steps.

    The skill's policy sees every step's observation (its first `obs_dim` entries: a task adds more), so it is feedback
    control and no replay of actions. The reward is the plain sum over the k steps. A lane whose episode ends earlier
    stops there; the others go on, and each lane is reset and given its next skill on its own.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}

    def __init__(self, env: Any, act: Act, z_dim: int, k: int, obs_dim: int):
        self.env, self.act, self.k, self.obs_dim = env, act, k, obs_dim
        self.num_envs = env.num_envs
        self.single_observation_space = env.single_observation_space
        self.observation_space = env.observation_space
        self.single_action_space = gymnasium.spaces.Box(-np.inf, np.inf, (z_dim,), np.float32)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, self.num_envs)
        self.control_steps = 0  # steps of `env` that counted, over all lanes
        self._obs: np.ndarray | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        obs, info = self.env.reset(seed=seed, options=options)
        self._obs = obs
        return obs, info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """actions (n, d): one skill per lane; returns what the last of its steps led to, and the summed reward."""
        assert self._obs is not None, "reset the environment first"
        obs, reached = self._obs, np.array(self._obs)
        reward, alive = np.zeros(self.num_envs), np.ones(self.num_envs, bool)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for i in range(self.k):
            action = np.asarray(self.act(obs[:, : self.obs_dim].astype(np.float32), actions))
            obs, step_reward, ends, stops, _ = self.env.step(action)
            reward[alive] += step_reward[alive]
            reached[alive] = obs[alive]
            self.control_steps += int(alive.sum())
            terminated |= ends & alive
            truncated |= stops & alive
            alive &= ~(ends | stops)
            if not alive.any():
                break
            if (ends | stops).any() and i + 1 < self.k:  # Steps on, uncounted, so that the others can.
                obs, _ = self.env.reset(options={"reset_mask": ends | stops})
        self._obs = reached
        return reached, reward, terminated, truncated, {}

    def close(self, **kwargs) -> None:
        self.env.close()
