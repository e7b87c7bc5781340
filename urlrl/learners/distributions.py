"""Distributions of actions: what policies return."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from urlrl.types import Array


class TanhNormal(NamedTuple):
    """a = tanh(u), u ~ N(mean, std^2), independently per dimension."""

    mean: jax.Array  # (*B, act), before the tanh
    log_std: jax.Array  # (*B, act)

    def mode(self) -> jax.Array:
        return jnp.tanh(self.mean)

    def sample(self, key: jax.Array, temperature: Array | float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature scales the standard deviation, 0 is the mode."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return jnp.tanh(self.mean + temperature * jnp.exp(self.log_std) * noise)

    def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Reparameterised action (*B, act) and its log density (*B,)."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        action = jnp.tanh(self.mean + jnp.exp(self.log_std) * noise)
        log_normal = -0.5 * noise**2 - self.log_std - 0.5 * jnp.log(2 * jnp.pi)
        # log |da/du| with the floor of the METRA code; 1e-6 biases the density by 5e-5 at |a| = 0.99.
        return action, jnp.sum(log_normal - jnp.log(1 - action**2 + 1e-6), axis=-1)

    def log_prob(self, action: Array) -> jax.Array:
        """(*B,): log density of actions that were sampled before; the tanh is undone up to 1e-6."""
        u = 0.5 * jnp.log((1 + 1e-6 + action) / (1 + 1e-6 - action))
        log_normal = -0.5 * ((u - self.mean) / jnp.exp(self.log_std)) ** 2 - self.log_std - 0.5 * jnp.log(2 * jnp.pi)
        return jnp.sum(log_normal - jnp.log(1 - action**2 + 1e-6), axis=-1)

    def entropy(self) -> jax.Array:
        """(*B,): of u, before the tanh; that of a has no closed form."""
        return jnp.sum(self.log_std + 0.5 * jnp.log(2 * jnp.pi * jnp.e), axis=-1)


class Gaussian(NamedTuple):
    """N(mean, std^2), independently per dimension; what acts is clipped to [-1, 1]."""

    mean: jax.Array  # (*B, act)
    log_std: jax.Array  # (*B, act)

    def mode(self) -> jax.Array:
        return jnp.clip(self.mean, -1, 1)

    def sample(self, key: jax.Array, temperature: Array | float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature scales the standard deviation, 0 is the mode."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return jnp.clip(self.mean + temperature * jnp.exp(self.log_std) * noise, -1, 1)

    def log_prob(self, action: Array) -> jax.Array:
        """(*B,), of the density that is not clipped."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * z**2 - self.log_std - 0.5 * jnp.log(2 * jnp.pi), axis=-1)


class NoisyTanh(NamedTuple):
    """a = tanh(mean) + noise, kept inside (-1, 1): a deterministic policy and what it explores with."""

    mean: jax.Array  # (*B, act), before the tanh
    std: Array | float  # of the noise
    clip: Array | float  # largest noise while learning

    def mode(self) -> jax.Array:
        return jnp.tanh(self.mean)

    def sample(self, key: jax.Array, temperature: Array | float = 1.0) -> jax.Array:
        """(*B, act) in (-1, 1); temperature scales the noise, 0 is the mode."""
        return inside(self.mode() + temperature * self.std * jax.random.normal(key, self.mean.shape))

    def smoothed(self, key: jax.Array) -> jax.Array:
        """(*B, act): with clipped noise, as targets and the policy's own loss see it."""
        noise = self.std * jax.random.normal(key, self.mean.shape)
        return inside(self.mode() + jnp.clip(noise, -self.clip, self.clip))


def inside(action: Array) -> jax.Array:
    """Clipped to [-1 + 1e-6, 1 - 1e-6], with a gradient of 1 everywhere."""
    return jnp.asarray(action) + jax.lax.stop_gradient(jnp.clip(action, -1 + 1e-6, 1 - 1e-6) - action)


class Categorical(NamedTuple):
    """One of n choices; actions are one-hot, (*B, n)."""

    logits: jax.Array  # (*B, n)

    def mode(self) -> jax.Array:
        return jax.nn.one_hot(jnp.argmax(self.logits, axis=-1), self.logits.shape[-1])

    def sample(self, key: jax.Array, temperature: Array | float = 1.0) -> jax.Array:
        """(*B, n); temperature scales the noise on the logits, 0 is the mode."""
        noise = temperature * jax.random.gumbel(key, self.logits.shape)
        return jax.nn.one_hot(jnp.argmax(self.logits + noise, axis=-1), self.logits.shape[-1])

    def log_prob(self, action: Array) -> jax.Array:
        return jnp.sum(jax.nn.log_softmax(self.logits) * action, axis=-1)

    def entropy(self) -> jax.Array:
        log_p = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
