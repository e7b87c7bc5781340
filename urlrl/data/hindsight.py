"""Later states of the same episode, drawn as goals: what datasets and replays share."""

from functools import partial

import jax
import jax.numpy as jnp

from urlrl.types import BatchSpec


def geometric(key: jax.Array, shape: tuple[int, ...], gamma: float) -> jax.Array:
    """k >= 1 with P(k) = (1 - gamma) gamma^(k - 1); int32, at most 2^30."""
    if gamma == 0:
        return jnp.ones(shape, jnp.int32)
    if gamma == 1:
        return jnp.full(shape, 2**30, jnp.int32)
    u = jax.random.uniform(key, shape)  # in [0, 1)
    return jnp.clip(jnp.ceil(jnp.log1p(-u) / jnp.log(gamma)), 1, 2**30).astype(jnp.int32)


def goal_kinds(key: jax.Array, shape: tuple[int, ...], spec: BatchSpec) -> tuple[jax.Array, jax.Array]:
    """Which goals are any state of the data, and which are the transition's own; the others lie ahead."""
    u = jax.random.uniform(key, shape)
    return u < spec.goal_random, u >= 1 - spec.goal_current


@partial(jax.jit, static_argnums=1)
def steps_left(ended: jax.Array, width: int, next_slot: jax.Array, filled: jax.Array) -> jax.Array:
    """How many of its episode's transitions a ring holds after each one, int32 of the shape of `ended`.

    Args:
        ended: (shards, size), bool: the episode ended with this transition.
        width: environments of a shard, interleaved: slot i + width holds what follows slot i.
        next_slot: the slot of the next transition, in each shard.
        filled: how many slots of each shard hold one; the others get numbers that mean nothing.
    """
    shards, size = ended.shape
    rows = size // width
    row = jnp.arange(rows, dtype=jnp.int32)
    oldest = jnp.where(filled == size, next_slot // width, 0)
    by_age = jnp.take(ended.reshape(shards, rows, width), (oldest + row) % rows, axis=1)
    age = row[None, :, None]
    last = by_age | (age == filled // width - 1)
    end = jax.lax.cummin(jnp.where(last, age, rows), axis=1, reverse=True)
    left = end - age
    return jnp.take(left, (row - oldest) % rows, axis=1).reshape(shards, size)
