"""Networks: MLPs and critics, convolutions, policies with their heads, and soft bins of what they see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from urlrl.learners.distributions import Categorical, Gaussian, TanhNormal
from urlrl.types import Array

LOG_STD_MIN, LOG_STD_MAX = float(np.log(1e-6)), 2.0
xavier_uniform = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
xavier_normal = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
tiny_uniform = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
orthogonal = nn.initializers.orthogonal()
orthogonal_relu, orthogonal_tanh = nn.initializers.orthogonal(2**0.5), nn.initializers.orthogonal(5 / 3)  # their gains
small_normal = nn.initializers.variance_scaling(0.01, "fan_avg", "normal")  # 0.1 of Xavier's standard deviation


@dataclass(frozen=True)
class SoftBins:
    """A network's inputs with some of them in soft bins: each coordinate x of the position is tanh((x - c) / width) of
    the bins' centres c. Their values come first, then the other inputs as they are. 0 bins change nothing."""

    position: tuple[int, ...] = ()  # indices of the inputs
    num: int = 0  # bins of each coordinate
    low: float = 0.0  # the first centre
    high: float = 0.0  # the last centre

    def __call__(self, x: Array) -> Array:
        if not self.num:
            return x
        centres = jnp.linspace(self.low, self.high, self.num)
        width = (self.high - self.low) / self.num
        bins = [jnp.tanh(jnp.subtract.outer(x[..., i], centres) / width) for i in self.position]
        rest = [i for i in range(x.shape[-1]) if i not in self.position]
        return jnp.concatenate([*bins, x[..., jnp.array(rest, int)]], axis=-1)

    def column(self, i: int) -> int:
        """Where input `i`, which comes after all of the position, is among the values."""
        return i + len(self.position) * (self.num - 1) if self.num else i


NO_BINS = SoftBins()


def _hidden(module: Any, x: Array, kernel_init: Callable) -> Array:
    """`depth` layers of `width` within a module's compact call, named Dense_0, Dense_1, ..."""
    x = getattr(module, "bins", NO_BINS)(x)
    for _ in range(module.depth):
        x = module.activation(nn.Dense(module.width, kernel_init=kernel_init)(x))
        if getattr(module, "norm", False):
            x = nn.LayerNorm()(x)
    return x


class MLP(nn.Module):
    """`depth` hidden layers of `width`, then a linear layer of `out` units; biases start at 0. With `norm`, each hidden
    layer is normalised after its activation."""

    out: int
    width: int
    depth: int = 2
    activation: Callable = nn.relu
    kernel_init: Callable = xavier_uniform
    norm: bool = False
    bins: SoftBins = NO_BINS  # what the first layer sees of x

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        x = _hidden(self, x, self.kernel_init)
        return nn.Dense(self.out, kernel_init=self.kernel_init)(x)


class GaussianNet(nn.Module):
    """A distribution over vectors: two MLPs, which share nothing, of its mean and of its log standard deviation."""

    out: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Gaussian:
        mean, log_std = MLP(self.out, self.width)(x), MLP(self.out, self.width)(x)
        return Gaussian(mean, jnp.clip(log_std, LOG_STD_MIN, -LOG_STD_MIN))


class Pair(nn.Module):
    """Two copies of a module that start apart: its output with a leading axis of 2."""

    module: nn.Module  # a template

    @nn.compact
    def __call__(self, *inputs: Array) -> jax.Array:
        return jnp.stack([self.module.clone(name=f"copy_{i}", parent=self)(*inputs) for i in range(2)])


def gelu_tanh(x: Array) -> jax.Array:
    """GELU by its tanh formula, one function for every network so that equal modules compare equal."""
    return nn.gelu(x, approximate=True)


class Critics(nn.Module):
    """`num` independent Q(x, action). Separate matrices: on CPUs faster than one vmapped or concatenated network."""

    width: int
    num: int = 2

    @nn.compact
    def __call__(self, x: Array, action: Array) -> jax.Array:
        """x (*B, in), action (*B, act) -> (num, *B)."""
        xa = jnp.concatenate([x, action], axis=-1)
        return jnp.stack([MLP(1, self.width, kernel_init=xavier_normal)(xa)[..., 0] for _ in range(self.num)])


def as_image(x: Array, image: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Of inputs (*B, in) that begin with images, each (side, side, channels): all of them as one, with the channels of
    the first, then those of the second, ...; and the inputs that are left."""
    side, channels = image
    num = x.shape[-1] // (side * side * channels)
    images, rest = jnp.split(jnp.asarray(x), [num * side * side * channels], axis=-1)
    images = images.reshape(*x.shape[:-1], num, side, side, channels)
    return jnp.moveaxis(images, -4, -2).reshape(*x.shape[:-1], side, side, num * channels), rest


def _windows(image: jax.Array, stride: int = 1) -> jax.Array:
    """(*B, h, w, channels) -> (*B, rows, columns, 4, channels): the cells of each window of 2 x 2."""
    height, width = (size - 1 for size in image.shape[-3:-1])
    corners = [image[..., i : i + height : stride, j : j + width : stride, :] for i in range(2) for j in range(2)]
    return jnp.stack(corners, axis=-2)


class ConvNet(nn.Module):
    """Three convolutions of 2 x 2 windows with a max-pool after the first, a hidden layer that sees what they found and
    the inputs that are no image, and a linear layer; that of adversarial surprise's code (arXiv 2107.07394).

    A convolution is a linear layer on windows here: on CPUs faster than XLA's own, and with seeds at once above all.
    """

    out: int
    width: int
    image: tuple[int, int]  # side, which is at least 7, and channels of the images that x begins with

    @nn.compact
    def __call__(self, x: Array) -> jax.Array:
        x, rest = as_image(x, self.image)
        x = jnp.max(_windows(self._convolved(x, 16), stride=2), axis=-2)
        x = self._convolved(self._convolved(x, 32), 64)
        x = jnp.concatenate([x.reshape(*rest.shape[:-1], -1), rest], axis=-1)
        x = nn.tanh(nn.Dense(self.width, kernel_init=orthogonal_tanh)(x))
        return nn.Dense(self.out, kernel_init=orthogonal)(x)

    def _convolved(self, image: jax.Array, channels: int) -> jax.Array:
        windows = _windows(image)
        return nn.relu(nn.Dense(channels, kernel_init=orthogonal_relu)(windows.reshape(*windows.shape[:-2], -1)))


class ConvPolicy(nn.Module):
    """Logits by convolutions."""

    action_dim: int
    width: int
    image: tuple[int, int]  # see ConvNet

    @nn.compact
    def __call__(self, x: Array) -> Categorical:
        return Categorical(ConvNet(self.action_dim, self.width, self.image)(x))


class CategoricalPolicy(nn.Module):
    """The trunk of `TanhPolicy` and one linear head of logits, started near uniform."""

    action_dim: int
    width: int
    depth: int = 2
    activation: Callable = nn.tanh

    @nn.compact
    def __call__(self, x: Array) -> Categorical:
        x = _hidden(self, x, xavier_uniform)
        return Categorical(nn.Dense(self.action_dim, kernel_init=small_normal)(x))


class TanhPolicy(nn.Module):
    """A shared trunk and two linear heads, started near mean 0 and standard deviation 1."""

    action_dim: int
    width: int
    depth: int = 2
    activation: Callable = nn.tanh

    @nn.compact
    def __call__(self, x: Array) -> TanhNormal:
        x = _hidden(self, x, xavier_uniform)
        mean = nn.Dense(self.action_dim, kernel_init=small_normal)(x)
        log_std = nn.Dense(self.action_dim, kernel_init=small_normal)(x)
        return TanhNormal(mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))


class GaussianPolicy(nn.Module):
    """A trunk, a linear mean that starts near 0, and a standard deviation that is the same in every state."""

    action_dim: int
    width: int
    depth: int = 3
    activation: Callable = nn.relu
    bins: SoftBins = NO_BINS  # what the first layer sees of x

    @nn.compact
    def __call__(self, x: Array) -> Gaussian:
        x = _hidden(self, x, xavier_uniform)
        mean = nn.Dense(self.action_dim, kernel_init=tiny_uniform)(x)
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        return Gaussian(mean, jnp.broadcast_to(jnp.clip(log_std, -5.0, 2.0), mean.shape))
