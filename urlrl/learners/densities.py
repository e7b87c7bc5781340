"""Densities that are fitted while an episode goes on: how surprising is the next observation, given those before it?

A density is a frozen description; what it has learned are its statistics theta, a tuple of float32 arrays of fixed
shapes. All functions are pure and of one x (dim,), so they are mapped over lanes, scanned and compiled.

    surprise of x:   -log_prob(theta, x)   with theta from before x, and only then   theta <- update(theta, x)

With n the number of observations so far:

    categorical      p = prod_g (count_g(x_g) + alpha) / (n + alpha V)           Dirichlet(alpha), V symbols per group g
    bernoulli        p = prod_i q_i^x_i (1 - q_i)^(1 - x_i),  q_i = (ones_i + 1/2) / (n + 1)           Beta(1/2, 1/2)
    gaussian         p = prod_i Student-t, the predictive of a Normal-Inverse-Gamma prior(0, 1, 1, 1)
    kernel           p = (n <mean phi, phi(x)> + N(x; 0, (1 + h^2) I)) / (n + 1),    <phi(x), phi(y)> ~ N(x; y, h^2 I)
    neighbours       log p = -log(1 + mean distance to the k nearest of the last observations); no density, but ordered
    floored          p = prod_g max(count_g(x_g) / n, 1e-3), which sums to more than 1: that of the code of AS

The first four are proper: at n = 0 they are their prior. The real ones expect observations of about unit variance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.errors import UserError
from urlrl.types import Array, EnvSpec

Kind = Literal["symbols", "reals"]


class Density(Protocol):
    """What all of them do."""

    takes: ClassVar[Kind]  # one-hot groups of 0 and 1 | any numbers

    def init(self) -> Any: ...  # theta of nothing seen
    def update(self, theta: Any, x: Array) -> Any: ...  # theta with x, of the same shapes
    def log_prob(self, theta: Any, x: Array) -> jax.Array: ...  # ()
    def stats(self, theta: Any) -> jax.Array: ...  # (k,), float32 of about unit size: theta as a network is shown it


class Counts(NamedTuple):
    """Of categorical, bernoulli and floored."""

    n: jax.Array  # (): observations
    ones: jax.Array  # (dim,): how many of them had a 1 here


def _no_counts(density: Any) -> Counts:
    return Counts(jnp.zeros((), jnp.float32), jnp.zeros(density.dim, jnp.float32))


def _count(density: Any, theta: Counts, x: Array) -> Counts:
    return Counts(theta.n + 1, theta.ones + x)


@dataclass(frozen=True)
class DirichletCategorical:
    dim: int  # numbers of an observation: one-hot groups, one after another
    symbols: int  # numbers of each group
    alpha: float = 0.1  # of the prior, per symbol
    takes: ClassVar[Kind] = "symbols"

    init, update = _no_counts, _count

    def log_prob(self, theta: Counts, x: Array) -> jax.Array:
        return jnp.sum(x * (jnp.log(theta.ones + self.alpha) - jnp.log(theta.n + self.alpha * self.symbols)))

    def stats(self, theta: Counts) -> jax.Array:
        """(dim + 1,): of each symbol 1 - log p / log p(unseen), which is 0 for one never seen and at most 1; and n."""
        most = jnp.log((theta.n + self.alpha * self.symbols) / self.alpha)
        return jnp.append(jnp.log(theta.ones / self.alpha + 1) / most, jnp.log1p(theta.n))


@dataclass(frozen=True)
class FlooredCategorical:
    dim: int
    symbols: int
    floor: float = 1e-3  # the least probability of a symbol
    takes: ClassVar[Kind] = "symbols"

    init, update = _no_counts, _count

    def log_prob(self, theta: Counts, x: Array) -> jax.Array:
        return jnp.sum(x * jnp.log(self._p(theta)))

    def stats(self, theta: Counts) -> jax.Array:
        """(dim,): the probabilities."""
        return self._p(theta)

    def _p(self, theta: Counts) -> jax.Array:
        seen = jnp.maximum(theta.ones / jnp.maximum(theta.n, 1), self.floor)
        return jnp.where(theta.n == 0, 1 / self.symbols, seen)


@dataclass(frozen=True)
class BetaBernoulli:
    dim: int
    prior: float = 0.5  # of zeros, and of ones
    takes: ClassVar[Kind] = "symbols"

    init, update = _no_counts, _count

    def log_prob(self, theta: Counts, x: Array) -> jax.Array:
        one, zero = jnp.log(theta.ones + self.prior), jnp.log(theta.n - theta.ones + self.prior)
        return jnp.sum(x * one + (1 - x) * zero - jnp.log(theta.n + 2 * self.prior))

    def stats(self, theta: Counts) -> jax.Array:
        """(dim + 1,): the probabilities of ones, in [-1, 1], and n."""
        q = (theta.ones + self.prior) / (theta.n + 2 * self.prior)
        return jnp.append(2 * q - 1, jnp.log1p(theta.n))


class Moments(NamedTuple):
    n: jax.Array  # ()
    mean: jax.Array  # (dim,)
    squares: jax.Array  # (dim,): the sum of squared distances from the mean


@dataclass(frozen=True)
class NormalInverseGamma:
    dim: int
    takes: ClassVar[Kind] = "reals"

    def init(self) -> Moments:
        zeros = jnp.zeros(self.dim, jnp.float32)
        return Moments(jnp.zeros((), jnp.float32), zeros, zeros)

    def update(self, theta: Moments, x: Array) -> Moments:
        """Welford's step."""
        n, away = theta.n + 1, x - theta.mean
        mean = theta.mean + away / n
        return Moments(n, mean, theta.squares + away * (x - mean))

    def log_prob(self, theta: Moments, x: Array) -> jax.Array:
        dof, location, square_scale = self._predictive(theta)
        lgamma, distance = jax.lax.lgamma, (x - location) ** 2 / square_scale
        constant = lgamma((dof + 1) / 2) - lgamma(dof / 2) - jnp.log(dof * jnp.pi) / 2
        return jnp.sum(constant - jnp.log(square_scale) / 2 - (dof + 1) / 2 * jnp.log1p(distance / dof))

    def stats(self, theta: Moments) -> jax.Array:
        """(2 dim + 1,): location and log scale, and n."""
        _, location, square_scale = self._predictive(theta)
        return jnp.concatenate([location, jnp.log(square_scale) / 2, jnp.log1p(theta.n)[None]])

    def _predictive(self, theta: Moments) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Degrees of freedom (), location (dim,) and squared scale (dim,) of the Student-t."""
        n, mean, squares = theta
        kappa, a = 1 + n, 1 + n / 2
        b = 1 + squares / 2 + n * mean**2 / (2 * kappa)
        return 2 * a, n * mean / kappa, b * (kappa + 1) / (a * kappa)


class Embedding(NamedTuple):
    n: jax.Array  # ()
    mean: jax.Array  # (num_features,): of phi


@dataclass(frozen=True)
class KernelMean:
    dim: int
    num_features: int = 256
    # in units of the median distance between two draws of N(0, I); below 1 it takes many more features
    bandwidth: float = 1.0
    takes: ClassVar[Kind] = "reals"

    def init(self) -> Embedding:
        return Embedding(jnp.zeros((), jnp.float32), jnp.zeros(self.num_features, jnp.float32))

    def update(self, theta: Embedding, x: Array) -> Embedding:
        n = theta.n + 1
        return Embedding(n, theta.mean + (self.phi(x) - theta.mean) / n)

    def log_prob(self, theta: Embedding, x: Array) -> jax.Array:
        near, wide = jnp.sum(theta.mean * self.phi(x)), 1 + self.h**2
        kernels = jnp.log(theta.n * near) - self.dim / 2 * jnp.log(2 * jnp.pi * self.h**2)
        prior = -jnp.sum(x**2) / (2 * wide) - self.dim / 2 * jnp.log(2 * jnp.pi * wide)
        return jnp.logaddexp(kernels, prior) - jnp.log(theta.n + 1)

    def stats(self, theta: Embedding) -> jax.Array:
        """(num_features + 1,): the mean, times the root of how many there are, and n."""
        return jnp.append(theta.mean * np.float32(np.sqrt(self.num_features)), jnp.log1p(theta.n))

    def phi(self, x: Array) -> jax.Array:
        """(num_features,), above 0: <phi(x), phi(y)> is exp(-|x - y|^2 / 2 h^2) on average over random directions w, as
        E[exp(w (x + y))] = exp(|x + y|^2 / 2). Choromanski et al., 2021, https://arxiv.org/abs/2009.14794."""
        x = x / self.h
        exponent = jnp.sum(_directions(self.num_features, self.dim) * x[None], axis=1) - jnp.sum(x**2)
        return jnp.exp(exponent) / np.float32(np.sqrt(self.num_features))

    @property
    def h(self) -> float:
        """The kernel's width: that of the median heuristic for unit variances, by Wilson and Hilferty's formula."""
        return self.bandwidth * float(np.sqrt(2 * self.dim * (1 - 2 / (9 * self.dim)) ** 3))


@cache
def _directions(num: int, dim: int) -> np.ndarray:
    """(num, dim), standard normal, the same in every process."""
    return np.random.default_rng(0).standard_normal((num, dim)).astype(np.float32)


class Window(NamedTuple):
    n: jax.Array  # ()
    seen: jax.Array  # (window, dim): the last observations, the oldest one next to be replaced


@dataclass(frozen=True)
class Neighbours:
    dim: int
    window: int = 128  # observations that are remembered
    k: int = 12  # nearest ones
    landmarks: int = 16  # points whose distance to what was seen a network is shown
    takes: ClassVar[Kind] = "reals"

    def init(self) -> Window:
        return Window(jnp.zeros((), jnp.float32), jnp.zeros((self.window, self.dim), jnp.float32))

    def update(self, theta: Window, x: Array) -> Window:
        oldest = theta.n.astype(jnp.int32) % self.window
        return Window(theta.n + 1, theta.seen.at[oldest].set(x))

    def log_prob(self, theta: Window, x: Array) -> jax.Array:
        """Neighbours that are not there yet are as far away as one draw of N(0, I) from another."""
        distances = self._distances(theta, x)
        return -jnp.log1p(jnp.mean(-jax.lax.top_k(-distances, self.k)[0]))

    def stats(self, theta: Window) -> jax.Array:
        """(2 dim + landmarks + 1,): mean and standard deviation, distances from the landmarks, and n."""
        there = self._there(theta)[:, None]
        count = jnp.maximum(jnp.sum(there), 1)
        mean = jnp.sum(theta.seen * there, axis=0) / count
        var = jnp.sum((theta.seen - mean[None]) ** 2 * there, axis=0) / count
        nearest = jax.vmap(lambda point: jnp.min(self._distances(theta, point)))(_directions(self.landmarks, self.dim))
        return jnp.concatenate([mean, jnp.sqrt(var), nearest, jnp.log1p(theta.n)[None]])

    def _there(self, theta: Window) -> jax.Array:
        return jnp.arange(self.window) < theta.n

    def _distances(self, theta: Window, x: Array) -> jax.Array:
        """(window,)"""
        distances = jnp.sqrt(jnp.sum((theta.seen - x[None]) ** 2, axis=1))
        return jnp.where(self._there(theta), distances, np.float32(np.sqrt(2 * self.dim)))


# name -> a density of observations of `dim` numbers; `symbols` is 0 for reals
DENSITIES: dict[str, Callable[[int, int], Density]] = {
    "categorical": DirichletCategorical,
    "bernoulli": lambda dim, symbols: BetaBernoulli(dim),
    "gaussian": lambda dim, symbols: NormalInverseGamma(dim),
    "kernel": lambda dim, symbols: KernelMean(dim),
    "neighbours": lambda dim, symbols: Neighbours(dim),
    "floored": FlooredCategorical,
}


def check_density(name: str, symbols: int, spec: EnvSpec) -> None:
    """Refuse a density, of groups of so many symbols, that does not fit the observations of an environment."""
    if DENSITIES[name](1, 1).takes == "reals":
        return
    if not spec.symbols:
        real = [other for other, make in DENSITIES.items() if make(1, 1).takes == "reals"]
        raise UserError(
            f"density is '{name}', which counts symbols, and observations of '{spec.id}' are real numbers: expected "
            f"one of {', '.join(real)}."
        )
    if symbols != spec.symbols:
        raise UserError(f"symbols is {symbols}: expected {spec.symbols}, as observations of '{spec.id}' have them.")


def check_image(image: tuple[int, int] | None, density: str, spec: EnvSpec) -> None:
    """Refuse images, of so many cells a side and symbols a cell, that are not an environment's observations, or whose
    density has no number for each of theirs."""
    if image is None:
        return
    if DENSITIES[density](1, 1).takes == "reals":
        raise UserError(
            f"ppo.image is {image}, and density is '{density}', which does not count symbols: expected None, or a "
            f"density whose statistics are an image too."
        )
    side, symbols = image
    if (side * side * symbols, symbols) != (spec.obs_dim, spec.symbols):
        raise UserError(
            f"ppo.image is {image}, {side * side} groups of {symbols} symbols: expected None, or a square of those "
            f"that observations of '{spec.id}' have, {spec.obs_dim // spec.symbols} of {spec.symbols}."
        )
