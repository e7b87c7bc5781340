"""Erratic policies in C MuJoCo and, from states on their ways, on the device."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from urlrl.envs.mjx_physics import Sim
from urlrl.types import DeviceEnv

LANES, DRIFT_STEPS = 100, 50


class Episodes(NamedTuple):
    """What C MuJoCo makes of 100 random and 100 oscillating policies from states on their ways, and the device's."""

    env: DeviceEnv
    start: Sim  # (2 LANES, ...) each
    actions: np.ndarray  # (DRIFT_STEPS, 2 LANES, act)
    c_obs: np.ndarray  # (DRIFT_STEPS, 2 LANES, obs): after each control step
    c_reward: np.ndarray  # (DRIFT_STEPS, 2 LANES)
    obs: np.ndarray
    reward: np.ndarray

    def error(self) -> np.ndarray:
        """Of the observations after one control step, (2 LANES, obs)."""
        return np.abs(self.obs[0] - self.c_obs[0])


def erratic(rng: np.random.Generator, steps: int, dim: int) -> np.ndarray:
    """(steps, 2 LANES, dim): uniform actions in the first half of the lanes, and sines in the other."""
    noise = rng.uniform(-1, 1, (steps, LANES, dim))
    phase, rate = rng.uniform(0, 2 * np.pi, (LANES, dim)), rng.uniform(0.1, 0.8, (LANES, 1))
    return np.concatenate([noise, np.sin(rate * np.arange(steps)[:, None, None] + phase)], axis=1)


def play(env: DeviceEnv, host: Any, simulations: Sequence[mujoco.MjData]) -> Episodes:
    """From step 0 to 99 of an episode, lane by lane, on to DRIFT_STEPS later. `host` has 2 LANES copies of the
    environment, which are these simulations."""
    actions = erratic(np.random.default_rng(0), 100 + DRIFT_STEPS, env.env_spec.action_dim)
    begins, rows = np.arange(2 * LANES) % LANES, np.arange(2 * LANES)
    host.reset(seed=0)
    starts, seen, rewards = {}, [], []
    for t, action in enumerate(actions):
        for lane in np.flatnonzero(begins == t):
            data = simulations[lane]
            starts[lane] = Sim(*(part.copy() for part in (data.qpos, data.qvel, data.act, data.qacc_warmstart)))
        obs, reward, *_ = host.step(action)
        seen.append(obs), rewards.append(reward)
    start = jax.tree.map(lambda *parts: np.stack(parts), *(starts[lane] for lane in rows))
    times = np.arange(DRIFT_STEPS)[:, None] + begins
    c_obs, c_reward, played = np.stack(seen)[times, rows], np.stack(rewards)[times, rows], actions[times, rows]
    return Episodes(env, start, played, c_obs, c_reward, *on_device(env, start, played, jnp.float32))


def on_device(env: DeviceEnv, start: Sim, actions: np.ndarray, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Observations (T, n, obs) and rewards (T, n) after each of `actions` (T, n, act)."""
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), len(start.qpos)))
    state = state._replace(sim=jax.tree.map(lambda part: jnp.asarray(part, dtype), start))
    one = jax.jit(jax.vmap(env.step))
    steps = [state := one(state, jnp.asarray(action, dtype)) for action in actions]
    return np.stack([step.obs for step in steps]), np.stack([step.reward for step in steps])
