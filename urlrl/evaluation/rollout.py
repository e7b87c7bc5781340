"""Episodes of a policy, side by side."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

from urlrl.types import PlayEnv, Trajectory, Transition

# (obs (n, obs), key, t) -> action (n, act), z (n, d)
Policy: TypeAlias = Callable[[np.ndarray, jax.Array, np.int32], tuple[Any, Any]]


@jax.jit
def _follow(agent, obs, z, key, t, temperature):
    return agent.sample_actions(obs, z, jax.random.fold_in(key, t), temperature)


@jax.jit
def _pursue(agent, obs, tasks, key, t, temperature):
    z = jax.vmap(agent.aim)(tasks, obs)
    return agent.sample_actions(obs, z, jax.random.fold_in(key, t), temperature), z


@jax.jit
def _pursue_one(agent, obs, task, key, t, temperature):
    z = agent.aim(task, obs)
    return agent.sample_actions(obs, z, jax.random.fold_in(key, t), temperature), z


@jax.jit
def _uniform(like, key, t):
    return jax.random.uniform(jax.random.fold_in(key, t), like.shape, minval=-1.0, maxval=1.0)


def follow(agent: Any, z: jax.Array, temperature: float) -> Policy:
    """Each lane keeps its skill, z (n, d)."""
    return lambda obs, key, t: (_follow(agent, obs, z, key, t, np.float32(temperature)), z)


def pursue(agent: Any, tasks: Any, temperature: float) -> Policy:
    """Each lane pursues its task (a stacked pytree), re-aimed at every step."""
    return lambda obs, key, t: _pursue(agent, obs, tasks, key, t, np.float32(temperature))


def pursue_one(agent: Any, task: Any, temperature: float) -> Policy:
    """All lanes pursue one task, re-aimed at every step."""
    return lambda obs, key, t: _pursue_one(agent, obs, task, key, t, np.float32(temperature))


def uniform(action_dim: int) -> Policy:
    """The random policy: actions uniform in [-1, 1], no skill."""

    def act(obs: np.ndarray, key: jax.Array, t: np.int32):
        return _uniform(np.zeros((len(obs), action_dim), np.float32), key, t), np.zeros((len(obs), 0), np.float32)

    return act


def rollout(env: PlayEnv, policy: Policy, key: jax.Array, seed: int, num_steps: int) -> Trajectory:
    """One episode per lane from a fresh reset with `seed`, at most `num_steps` long. Rows after an end are masked."""
    n = env.num_envs
    obs, _ = env.reset(seed=seed)
    alive = np.ones(n, bool)
    records: list[tuple] = []
    position, physics = [env.position()], [env.physics()]
    for t in range(num_steps):
        action, z = policy(obs.astype(np.float32), key, np.int32(t))
        action, z = np.asarray(action), np.asarray(z)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        records.append((obs, action, reward, 1.0 - terminated, next_obs, z, alive))
        position.append(env.position())
        physics.append(env.physics())
        ended = terminated | truncated
        alive = alive & ~ended
        if not alive.any():
            break
        if ended.any():  # A lane that is done keeps stepping, masked, so that the others can go on.
            next_obs, _ = env.reset(options={"reset_mask": ended})
        obs = next_obs
    *columns, mask = (np.stack(column) for column in zip(*records))
    return Trajectory(
        steps=Transition(*columns),
        mask=mask,
        position=np.stack(position) if env.env_spec.position else None,
        physics=np.stack(physics) if env.env_spec.physics else None,
    )
