"""`<environment>+noise10`: an environment with distractors, more numbers behind its observation that nobody controls.

They are N(0, 1), independent, and drawn anew at every step, the reset included. With `_far` at the end of the name they
are so only where the x of the position is above FAR, seen in the observation or not, and 0 elsewhere. Starts, dynamics,
reward, position and physics are the environment's own, so coverage is measured without the distractors.

The noise of a lane depends on the seed, the lane, the number of its episode and the step alone. So a run continues bit
for bit without anything more being saved, and the twins `dmc:walker_walk+noise10` and `mjx:walker_walk+noise10` show
the same noise.
"""

import re
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import VectorEnv

from urlrl.envs.base import HostVectorEnv
from urlrl.envs.noise import Noise
from urlrl.envs.on_device import bits, lane_keys
from urlrl.errors import UserError, unknown
from urlrl.loading import module_of
from urlrl.types import Array, DeviceEnv, DeviceState, EnvSpec

FAR = 2.0  # m
_STREAM = 0x6E6F6973  # apart from whatever a reset draws from its key


class Distractors(NamedTuple):
    """What follows the plus in the name of an environment."""

    name: str
    num: int
    far: bool  # they are noise only where x is above FAR

    def spec(self, below: EnvSpec) -> EnvSpec:
        """What the environment says of itself with them.

        Raises:
            UserError: it cannot have them.
        """
        if below.symbols:
            raise UserError(
                f"Environment '{below.id}' cannot have distractors '+{self.name}', as it shows symbols: expected one "
                "whose observation is real numbers."
            )
        if self.far and below.position[:1] != ("x",):
            raise UserError(
                f"Environment '{below.id}' cannot have distractors '+{self.name}', as its position has no x: expected "
                f"'+noise{self.num}', which is noisy everywhere."
            )
        mean, std = (
            None if known is None else (*known, *[value] * self.num)
            for known, value in ((below.obs_mean, 0.0), (below.obs_std, 1.0))
        )
        return replace(
            below, id=f"{below.id}+{self.name}", obs_dim=below.obs_dim + self.num, obs_is_physics=False, obs_mean=mean,
            obs_std=std, twin=None if below.twin is None else f"{below.twin}+{self.name}",
        )  # fmt: skip

    def shown(self, noise: Array, position: Array) -> Array:
        """(*B, num) of noise (*B, num) where the environment is at position (*B, p)."""
        xp = noise.__array_namespace__()
        return xp.where(position[..., :1] > FAR, noise, 0.0) if self.far else noise


def parts(name: str) -> tuple[str, Distractors]:
    """The environment and the distractors of a name with a plus.

    Raises:
        UserError: there are no such distractors, or the environment is a user's own.
    """
    env, _, end = name.partition("+")
    if module_of(env) is not None:  # Files may name code only as `loading.check_names` knows it, without a plus.
        raise UserError(
            f"Environment '{env}' cannot have distractors '+{end}', as it is your own: expected one of ours."
        )
    found = re.fullmatch(r"noise([1-9]\d{0,2})(_far)?", end)
    if not found:
        raise unknown("environment", name, [f"{env}+noise10", f"{env}+noise10_far"])
    return env, Distractors(end, int(found[1]), found[2] is not None)


def distracted(env: DeviceEnv, distractors: Distractors) -> DeviceEnv:
    """An environment of the device with distractors."""

    def seen(below: DeviceState, noise: Noise) -> DeviceState:
        more = distractors.shown(noise.draw(distractors.num), below.position)
        return below._replace(sim=Distracted(below, noise), obs=jnp.concatenate([below.obs, more]))

    def reset(key: jax.Array) -> DeviceState:
        return seen(env.reset(key), _begin(key))

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        return seen(env.step(state.sim.below, action), state.sim.noise.later())

    def goal_obs(key: jax.Array, position: jax.Array) -> jax.Array:
        """With distractors that are 0, their mean."""
        assert env.goal_obs
        return jnp.concatenate([env.goal_obs(key, position), jnp.zeros(distractors.num, jnp.float32)])

    return DeviceEnv(distractors.spec(env.env_spec), reset, step, goal_obs if env.goal_obs else None)


class Distracted(NamedTuple):
    """All that the next step depends on."""

    below: DeviceState  # of the environment
    noise: Noise


class DistractedEnv(VectorEnv):
    """`env` of the host with distractors."""

    metadata = HostVectorEnv.metadata

    def __init__(self, env: Any, distractors: Distractors):
        self.env, self.distractors, self.num_envs = env, distractors, env.num_envs
        self.env_spec = distractors.spec(env.env_spec)
        self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self.env_spec.obs_dim,), np.float64)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, self.num_envs)
        self.single_action_space, self.action_space = env.single_action_space, env.action_space
        self.model = getattr(env, "model", None)  # what pictures are drawn of, where there is one

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        obs, info = self.env.reset(seed=seed, options=options)
        return self._observe(obs), info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        obs, *rest = self.env.step(actions)
        return self._observe(obs), *rest

    def position(self) -> np.ndarray:
        return self.env.position()

    def physics(self) -> np.ndarray:
        return self.env.physics()

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """With distractors that are 0, their mean."""
        obs = self.env.goal_obs(position)
        return np.concatenate([obs, np.zeros((len(obs), self.distractors.num), obs.dtype)], axis=1)

    def place(self, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float] | None:
        """The distractors are NaN, as they are no function of a state."""
        found = self.env.place(physics, action)
        return found and (np.append(found[0], np.full(self.distractors.num, np.nan)), found[1])

    def close(self, **kwargs) -> None:
        self.env.close()

    def get_state(self) -> dict[str, np.ndarray]:
        return self.env.get_state()

    def set_state(self, state: dict[str, np.ndarray]) -> np.ndarray:
        return self._observe(self.env.set_state(state))

    def _observe(self, obs: np.ndarray) -> np.ndarray:
        env = self.env
        noise = _draw(bits(env.seed), bits(env.episode), np.int32(env.clock), self.distractors.num)
        return np.concatenate([obs, self.distractors.shown(np.array(noise), env.position())], axis=1)


def _begin(key: jax.Array) -> Noise:
    """Of an episode whose reset has this key; the environment is given the same one, so it starts as without them."""
    return Noise.begin(jax.random.fold_in(key, _STREAM))


@partial(jax.jit, static_argnums=3)
def _draw(seed: jax.Array, episodes: jax.Array, clocks: jax.Array, num: int) -> jax.Array:
    """(n, num): what `distracted` draws in all lanes."""

    def one(key: jax.Array, clock: jax.Array) -> jax.Array:
        return _begin(key)._replace(clock=clock).draw(num)

    return jax.vmap(one)(lane_keys(seed, jnp.arange(len(episodes), dtype=jnp.uint32), episodes), clocks)
