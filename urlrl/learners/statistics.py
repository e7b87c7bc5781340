"""Means and spreads: the frozen ones of observations, and running ones."""

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.types import Array


class Normalizer(struct.PyTreeNode):
    """Frozen observation statistics: (obs - mean) / (std + 1e-8)."""

    mean: jax.Array  # (obs,)
    std: jax.Array  # (obs,)

    @classmethod
    def identity(cls, dim: int) -> "Normalizer":
        return cls(mean=jnp.zeros(dim, jnp.float32), std=jnp.ones(dim, jnp.float32))

    def __call__(self, obs: Array) -> jax.Array:
        mean, std = jnp.broadcast_to(self.mean, obs.shape), jnp.broadcast_to(self.std, obs.shape)
        return (jnp.asarray(obs) - mean) / (std + 1e-8)


class RunningMoments(struct.PyTreeNode):
    """Mean and variance of all rows seen so far; they count for nothing (mean 0, variance 1) before the first."""

    mean: jax.Array  # (*S,)
    var: jax.Array  # (*S,)
    count: jax.Array  # (), rows

    @classmethod
    def create(cls, shape: tuple[int, ...]) -> "RunningMoments":
        return cls(mean=jnp.zeros(shape, jnp.float32), var=jnp.ones(shape, jnp.float32), count=jnp.float32(1e-4))

    def seen(self, rows: Array) -> "RunningMoments":
        """With rows (n, *S) too (Chan et al.'s parallel update)."""
        return self._with(rows.shape[0], jnp.mean(rows, axis=0), jnp.var(rows, axis=0))

    def seen_where(self, rows: Array, there: Array) -> "RunningMoments":
        """Of one number: with those of `rows` that are `there`, of the same shape, bool; there may be none."""
        n = jnp.sum(there)
        mean = jnp.sum(rows, where=there) / jnp.maximum(n, 1)
        return self._with(n, mean, jnp.sum((rows - mean) ** 2, where=there) / jnp.maximum(n, 1))

    def _with(self, n: int | jax.Array, mean: jax.Array, var: jax.Array) -> "RunningMoments":
        total, delta = self.count + n, mean - self.mean
        squares = self.var * self.count + var * n + delta**2 * self.count * n / total
        return self.replace(mean=self.mean + delta * n / total, var=squares / total, count=total)

    @property
    def std(self) -> jax.Array:
        return jnp.sqrt(self.var)

    def normalise(self, rows: Array) -> jax.Array:
        """(*B, *S) in units of the standard deviation."""
        mean, std = jnp.broadcast_to(self.mean, rows.shape), jnp.broadcast_to(self.std, rows.shape)
        return (jnp.asarray(rows) - mean) / (std + 1e-5)


def least_squares(features: Array, targets: Array) -> tuple[jax.Array, jax.Array]:
    """w (d, *k) and b (*k,) that minimise mean (features w + b - targets)^2; features (n, d), targets (n, *k).
    Directions in which the features do not vary get weight 0."""
    mean, offset = jnp.mean(features, axis=0), jnp.mean(targets, axis=0)
    w = jnp.linalg.pinv(features - mean[None], rtol=1e-5) @ (targets - offset[None])
    return w, offset - mean @ w
