"""What every host environment shares: episode clocks, seeds of resets, and Gymnasium's vector interface."""

from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from urlrl.errors import UserError, not_finite
from urlrl.types import EnvSpec

FLOAT32_MAX = float(np.finfo(np.float32).max)


class HostVectorEnv(VectorEnv, ABC):
    """A Gymnasium vector environment with autoreset disabled, and the methods of `urlrl.types.HostEnv`.

    A subclass fills `_reset_lanes`, `_step`, `_obs` and says the rest in its `EnvSpec`. The randomness of a reset
    depends on (seed, lane, number of the episode) alone, so three small integers continue a run exactly.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}

    def __init__(self, env_spec: EnvSpec, num_envs: int):
        if num_envs < 1 or (env_spec.episode_steps is not None and env_spec.episode_steps < 1):
            raise UserError(
                f"Environment '{env_spec.id}' was asked for {num_envs} copies, episodes of {env_spec.episode_steps} "
                "steps: expected at least one of each."
            )
        self.env_spec = env_spec
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (env_spec.obs_dim,), np.float64)
        self._low = 0.0 if env_spec.action == "onehot" else -1.0
        self.single_action_space = gymnasium.spaces.Box(self._low, 1.0, (env_spec.action_dim,), np.float32)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._choice = np.arange(env_spec.action_dim) == env_spec.action_dim - 1  # a one-hot action, sorted
        self.seed = 0
        self.episode = np.full(num_envs, -1, np.int64)  # number of the episode that each lane is in
        self.clock = np.zeros(num_envs, np.int64)  # control steps since the lane's reset
        self.ended = np.ones(num_envs, bool)

    def place(self, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float] | None:
        """See `urlrl.types.HostEnv`: this one cannot."""
        del physics, action
        return None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode in every lane, or in those of `options["reset_mask"]`; returns (n, obs) and {}. Clocks start
        at 0, or at `options["clock"]` (n,), which cuts these episodes short."""
        if seed is not None:
            self.seed, self.episode[:] = seed, -1
        options = options or {}
        mask = options.get("reset_mask", np.ones(self.num_envs, bool))
        self.episode[mask] += 1
        self._reset_lanes(mask)
        self.clock[mask] = options.get("clock", np.zeros(self.num_envs, np.int64))[mask]
        self.ended[mask] = False
        return self._finite("observation", self._obs()), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """actions (n, act) in [-1, 1], or one-hot; returns obs (n, obs), reward, terminated, truncated (n,), {}."""
        if self.ended.any():
            raise RuntimeError(f"Lanes {np.flatnonzero(self.ended).tolist()} have ended: reset them before a step.")
        if np.shape(actions) != self.action_space.shape or not np.isfinite(actions).all():
            raise UserError(
                f"Environment '{self.env_spec.id}' got actions of shape {np.shape(actions)}, not all finite or not of "
                f"the right shape: expected finite numbers of shape {self.action_space.shape}."
            )
        if self.env_spec.action == "onehot" and (np.sort(actions, axis=1) != self._choice).any():
            raise UserError(f"Environment '{self.env_spec.id}' got an action that is not one-hot: expected one choice.")
        reward, terminated = self._step(np.clip(actions, self._low, 1.0))
        self.clock += 1
        truncated = self._truncated() & ~terminated
        self.ended = terminated | truncated
        obs = self._finite("observation", self._obs())
        return obs, self._finite("reward", reward), terminated, truncated, {}

    def position(self) -> np.ndarray:
        return np.zeros((self.num_envs, 0))

    def physics(self) -> np.ndarray:
        return np.zeros((self.num_envs, 0))

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        raise UserError(f"Environment '{self.env_spec.id}' has no goal positions: expected one with a goal box.")

    def get_state(self) -> dict[str, np.ndarray]:
        return {
            "seed": np.array(self.seed, np.int64),
            "episode": self.episode.copy(),
            "clock": self.clock.copy(),
            "ended": self.ended.copy(),
            **self._get_state(),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> np.ndarray:
        self.seed = int(state["seed"])
        self.episode, self.clock, self.ended = (np.array(state[k]) for k in ("episode", "clock", "ended"))
        self._set_state(state)
        return self._obs()

    def _finite(self, what: str, values: np.ndarray) -> np.ndarray:
        """`values` (n, ...), or a UserError that says which lane has some that are not finite as float32, as which
        they are kept."""
        if not all_finite(values):
            lane = int(np.argwhere(~_fits(values))[0, 0])
            raise UserError(not_finite(self.env_spec.id, what, lane, int(self.clock[lane])))
        return values

    def _truncated(self) -> np.ndarray:
        """Which lanes have reached the time limit, (n,), asked after each step."""
        limit = self.env_spec.episode_steps
        return self.clock >= limit if limit else np.zeros(self.num_envs, bool)

    @abstractmethod
    def _reset_lanes(self, mask: np.ndarray) -> None:
        """Put the lanes of `mask` (n,) into fresh states; `self.episode` has their numbers already."""

    @abstractmethod
    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Step every lane with actions in [-1, 1]; returns reward and terminated, (n,)."""

    @abstractmethod
    def _obs(self) -> np.ndarray:
        """The present observations, a fresh (n, obs) array."""

    def _get_state(self) -> dict[str, np.ndarray]:
        return {}

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        pass


class LaneByLaneEnv(HostVectorEnv):
    """One whose lanes are reset one by one: a subclass fills `_reset_lane` instead of `_reset_lanes`."""

    def _reset_lanes(self, mask: np.ndarray) -> None:
        for lane in np.flatnonzero(mask):
            self._reset_lane(int(lane), (self.seed, int(lane), int(self.episode[lane])))

    @abstractmethod
    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        """Put one lane into a fresh state that depends on the seed alone."""


def all_finite(values: np.ndarray | float) -> bool:
    """Whether all are finite as float32. The sum of squares settles nearly all cases; NaN and large numbers take the
    slow look."""
    return bool(np.vdot(values, values) <= FLOAT32_MAX or _fits(values).all())


def _fits(values: np.ndarray | float) -> Any:
    return np.abs(values) <= FLOAT32_MAX
