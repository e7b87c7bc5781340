"""Networks of the DDPG, FB and successor-feature papers: an embedding (layer norm, tanh) in front of each.

Kernels start orthogonal, biases at 0. Two copies of a head are separate matrices: on CPUs faster than stacked ones.
Layers are named in the order in which data meets them, so the first is `Dense_0`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from urlrl.learners.distributions import NoisyTanh
from urlrl.learners.nets import orthogonal
from urlrl.types import Array


def _dense(x: Array, width: int) -> jax.Array:
    return nn.Dense(width, kernel_init=orthogonal)(x)


def _embed(x: Array, width: int) -> jax.Array:
    """One layer, normalised and squashed: no scale of the input saturates what comes after."""
    return jnp.tanh(nn.LayerNorm(epsilon=1e-5)(_dense(x, width)))


def _hidden(x: Array, width: int) -> jax.Array:
    return nn.relu(_dense(x, width))


def of_length(x: jax.Array, length: float) -> jax.Array:
    """(*B, d) -> vectors of this length; the gradient is 0 where x has no direction."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return length * x * jax.lax.rsqrt(jnp.maximum(square, 1e-12))


class FeatureMap(nn.Module):
    """(*B, obs) -> (*B, out): embedding, hidden layer, linear; `normalise` scales the result to length sqrt(out)."""

    out: int
    width: int
    normalise: bool = True

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        x = _dense(_hidden(_embed(x, self.width), self.width), self.out)
        return of_length(x, self.out**0.5) if self.normalise else x


class ForwardMap(nn.Module):
    """F or psi: (*B, obs), (*B, act), (*B, d) -> (2, *B, out). Both share the embeddings of (s, a) and (s, z)."""

    out: int
    width: int

    @nn.compact
    def __call__(self, obs: Array, action: Array, z: Array) -> jax.Array:
        x = _two_embeddings([obs, action], [obs, z], self.width)
        return jnp.stack([_dense(_hidden(x, self.width), self.out) for _ in range(2)])


TWO_INPUTS = ("Dense_0", "Dense_2")  # first layers of `_two_embeddings`


class SkillPolicy(nn.Module):
    """The policy of FB and successor features: embeddings of s and of (s, z), one hidden layer. Without z, that of a
    skill that its weights know (`SkillActor.learner`)."""

    input_layers = TWO_INPUTS

    action_dim: int
    width: int
    std: float = 0.2
    clip: float = 0.3

    @nn.compact
    def __call__(self, obs: Array, z: Array | None = None) -> NoisyTanh:
        x = _two_embeddings([obs], [obs] if z is None else [obs, z], self.width)
        return NoisyTanh(_dense(_hidden(x, self.width), self.action_dim), self.std, self.clip)


def _two_embeddings(first: list[Array], second: list[Array], width: int) -> jax.Array:
    """Of two inputs, each an embedding and a hidden layer of half the width, side by side."""
    parts = [_hidden(_embed(jnp.concatenate(part, axis=-1), width), width // 2) for part in (first, second)]
    return jnp.concatenate(parts, axis=-1)


class DDPGPolicy(nn.Module):
    """DDPG's: embedding, hidden layer, mean."""

    input_layers = ("Dense_0",)

    action_dim: int
    width: int
    std: float = 0.2
    clip: float = 0.3

    @nn.compact
    def __call__(self, x: Array) -> NoisyTanh:
        x = _hidden(_embed(x, self.width), self.width)
        return NoisyTanh(_dense(x, self.action_dim), self.std, self.clip)


class DDPGCritics(nn.Module):
    """Two Q(x, action) on one embedding: (*B, in), (*B, act) -> (2, *B)."""

    input_layers = ("Dense_0",)

    width: int

    @nn.compact
    def __call__(self, x: Array, action: Array) -> jax.Array:
        h = _embed(jnp.concatenate([x, action], axis=-1), self.width)
        return jnp.stack([_dense(_hidden(h, self.width), 1)[..., 0] for _ in range(2)])
