"""`point`: a point that moves over a plane, for tests and docs. The world itself is three pure JAX functions."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.envs.base import LaneByLaneEnv
from urlrl.types import Array, DeviceEnv, DeviceState, EnvSpec

CONTROL_DT = 0.1  # seconds
SPEC = EnvSpec(
    id="point", obs_dim=2, action_dim=2, episode_steps=50, control_dt=CONTROL_DT, position=("x", "y"),
    goal_box=(3.0, 3.0), physics=(("xy", 2),), obs_is_physics=True, obs_mean=(0.0, 0.0), obs_std=(1.0, 1.0),
    exact_resume=True,
)  # fmt: skip


class State(NamedTuple):
    obs: jax.Array  # (2,): x, y in metres


def reset(key: jax.Array) -> State:
    """A start within 0.1 m of the origin, per axis."""
    return State(jax.random.uniform(key, (2,), minval=-0.1, maxval=0.1))


def step(state: State, action: jax.Array) -> State:
    """action (2,) in [-1, 1]: a velocity in m/s, held for 0.1 s."""
    return State(state.obs + CONTROL_DT * jnp.clip(action, -1, 1))


def forward_velocity(before: Array, after: Array) -> Array:
    """The reward, (*B,): velocity along x in m/s between positions (*B, 2) of two steps."""
    return (after[..., 0] - before[..., 0]) / CONTROL_DT


def _spec(episode_steps: int | None) -> EnvSpec:
    return SPEC if episode_steps is None else replace(SPEC, episode_steps=episode_steps)


def device_env(episode_steps: int | None = None) -> DeviceEnv:
    """`PointEnv` on the device: the same starts from the same keys, the same steps."""

    def seen(xy: jax.Array, reward: Array) -> DeviceState:
        return DeviceState(xy, xy, reward, jnp.zeros((), bool), xy, xy)

    def device_reset(key: jax.Array) -> DeviceState:
        return seen(reset(key).obs, jnp.zeros((), jnp.float32))

    def device_step(state: DeviceState, action: jax.Array) -> DeviceState:
        xy = step(State(state.sim), action).obs
        return seen(xy, forward_velocity(state.sim, xy))

    return DeviceEnv(_spec(episode_steps), device_reset, device_step)


_reset = jax.jit(lambda seed: reset(jax.random.fold_in(jax.random.fold_in(jax.random.key(seed[0]), seed[1]), seed[2])))
_step = jax.jit(jax.vmap(step))


class PointEnv(LaneByLaneEnv):
    """`num_envs` points. The external reward is the velocity along x, in m/s."""

    def __init__(self, num_envs: int, episode_steps: int | None = None):
        super().__init__(_spec(episode_steps), num_envs)
        self.xy = np.zeros((num_envs, 2), np.float32)

    def position(self) -> np.ndarray:
        return self.xy.copy()

    def physics(self) -> np.ndarray:
        return self.xy.astype(np.float64)

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        return np.array(position, np.float32)

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        self.xy[lane] = _reset(np.array(seed, np.uint32)).obs

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        before = self.xy
        self.xy = np.array(_step(State(jnp.asarray(before)), actions).obs)
        return np.asarray(forward_velocity(before, self.xy)), np.zeros(self.num_envs, bool)

    def _obs(self) -> np.ndarray:
        return self.xy.copy()

    def _get_state(self) -> dict[str, np.ndarray]:
        return {"xy": self.xy.copy()}

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        self.xy = np.array(state["xy"])
