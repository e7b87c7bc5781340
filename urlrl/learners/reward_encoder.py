"""FRE's networks: what a reward function is told by, and what is made of it (https://arxiv.org/abs/2402.17135).

The encoder is a transformer without positions and without a mask, so the pairs (state, reward) have no order:

    token   [Dense(s) ; Embed(bin(r))],   bin(r) = floor((r / 2 + 1 / 2) 32), at most 31
    block   x + MHA(LN x), then x + MLP(LN x)
    out     LN, mean over tokens, a linear mean and a linear log standard deviation
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from urlrl.learners.nets import gelu_tanh, xavier_uniform
from urlrl.types import Array

BINS = 32


def reward_bin(reward: Array) -> jax.Array:
    """(*B,) rewards in [-1, 1] to (*B,) int32 in [0, 31]; others to the nearest."""
    return jnp.clip(jnp.floor((jnp.asarray(reward) / 2 + 0.5) * BINS), 0, BINS - 1).astype(jnp.int32)


class RewardEncoder(nn.Module):
    """States (*B, K, obs) and their rewards (*B, K) -> mean and log standard deviation of a latent, (*B, out) each."""

    out: int
    width: int = 128
    depth: int = 2
    heads: int = 2

    @nn.compact
    def __call__(self, states: Array, rewards: Array) -> tuple[jax.Array, jax.Array]:
        half = self.width // 2
        x = jnp.concatenate([nn.Dense(half)(states), nn.Embed(BINS, half)(reward_bin(rewards))], axis=-1)
        for _ in range(self.depth):
            attention = nn.MultiHeadDotProductAttention(self.heads, kernel_init=xavier_uniform)
            x = x + attention(nn.LayerNorm()(x))
            hidden = gelu_tanh(nn.Dense(2 * self.width, kernel_init=xavier_uniform)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width, kernel_init=xavier_uniform)(hidden)
        x = jnp.mean(nn.LayerNorm()(x), axis=-2)
        return nn.Dense(self.out)(x), nn.Dense(self.out)(x)


def kl(mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Of N(mean, exp(log_std)^2) from N(0, 1), (*B,): the mean over dimensions of (*B, d)."""
    return 0.5 * jnp.mean(mean**2 + jnp.exp(2 * log_std) - 1 - 2 * log_std, axis=-1)
