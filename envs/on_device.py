"""Any environment of the device as one of the host, for what is told and measured there."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.envs.base import HostVectorEnv
from urlrl.types import DeviceEnv, DeviceState


class DeviceHostEnv(HostVectorEnv):
    """`num_envs` copies of `env`, one compiled call for all of them. Starts are those of the device's loop, from keys
    that are folded with the seed, the lane and the number of its episode."""

    def __init__(self, env: DeviceEnv, num_envs: int):
        super().__init__(env.env_spec, num_envs)
        self.device_env = env
        shapes = jax.eval_shape(env.reset, jax.random.key(0))
        self.state = jax.tree.map(lambda leaf: jnp.zeros((num_envs, *leaf.shape), leaf.dtype), shapes)

    def position(self) -> np.ndarray:
        return np.array(self.state.position, np.float64)

    def physics(self) -> np.ndarray:
        return np.array(self.state.physics, np.float64)

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """The observation of a fresh reset moved to each of `position` (k, p): (k, obs)."""
        move = self.device_env.goal_obs
        if move is None:
            return super().goal_obs(position)
        numbers = -1 - np.arange(len(position))  # No lane has these.
        keys = lane_keys(bits(self.seed), bits(numbers), bits(np.zeros_like(numbers)))
        return np.array(jax.vmap(move)(keys, jnp.asarray(position, jnp.float32)))

    def _reset_lanes(self, mask: np.ndarray) -> None:
        self.state = _reset_some(self.device_env, self.state, mask, bits(self.seed), bits(self.episode))

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.state = _step_all(self.device_env, self.state, jnp.asarray(actions, jnp.float32))
        return np.array(self.state.reward), np.array(self.state.terminated)

    def _obs(self) -> np.ndarray:
        return np.array(self.state.obs)

    def _get_state(self) -> dict[str, np.ndarray]:
        leaves, _ = jax.tree.flatten_with_path(self.state)
        return {_name(path): np.array(leaf) for path, leaf in leaves}

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        self.state = jax.tree.map_with_path(lambda path, leaf: jnp.asarray(state[_name(path)]), self.state)


@partial(jax.jit, static_argnums=0)
def _step_all(env: DeviceEnv, state: DeviceState, actions: jax.Array) -> DeviceState:
    return jax.vmap(env.step)(state, actions)


@partial(jax.jit, static_argnums=0)
def _reset_some(
    env: DeviceEnv, state: DeviceState, mask: jax.Array, seed: jax.Array, episode: jax.Array
) -> DeviceState:
    """`state` (n, ...) with fresh episodes in the lanes of `mask` (n,)."""
    fresh = jax.vmap(env.reset)(lane_keys(seed, jnp.arange(len(mask), dtype=jnp.uint32), episode))
    return jax.tree.map(lambda new, old: jnp.where(mask.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh, state)


@jax.jit
def lane_keys(seed: jax.Array, lanes: jax.Array, episodes: jax.Array) -> jax.Array:
    """(n,) keys, as the device's loop has them."""
    fold = jax.random.fold_in
    return jax.vmap(lambda lane, episode: fold(fold(jax.random.key(seed), lane), episode))(lanes, episodes)


def bits(number: int | np.ndarray) -> np.ndarray:
    """As a key takes it, uint32, negative ones from the far end."""
    return np.asarray(np.asarray(number) & 0xFFFFFFFF, np.uint32)


def _name(path: tuple) -> str:
    return f"device/{jax.tree_util.keystr(path, simple=True, separator='/')}"
