"""Networks and their optimisers as pytrees: `Model`, `PositiveScalar`, MLPs and the tanh-normal policy head."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from urlrl.types import Array, Layer

LOG_STD_MIN, LOG_STD_MAX = float(np.log(1e-6)), 2.0
LOG_ZERO = -200.0  # a finite logarithm of which exp is 0 in float32
xavier_uniform = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
xavier_normal = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
tiny_uniform = nn.initializers.variance_scaling(0.01, "fan_avg", "uniform")
orthogonal = nn.initializers.orthogonal()
small_normal = nn.initializers.variance_scaling(0.01, "fan_avg", "normal")  # 0.1 of Xavier's standard deviation


@lru_cache
def adam(lr: float, clip: float | None = None, max_norm: float | None = None) -> optax.GradientTransformation:
    """Adam with the usual constants, on gradients whose entries are clipped to [-clip, clip] or whose norm is scaled
    down to `max_norm`, where these are given; cached, so that two agents of one config are one pytree type."""
    first = [*([optax.clip(clip)] if clip else []), *([optax.clip_by_global_norm(max_norm)] if max_norm else [])]
    return optax.chain(*first, optax.adam(lr)) if first else optax.adam(lr)


class Model(struct.PyTreeNode):
    """A network with its parameters and optimiser. Gradients reach the parameters only where `params=` is written."""

    params: Any
    opt_state: Any
    module: nn.Module = struct.field(pytree_node=False)
    tx: optax.GradientTransformation = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        module: nn.Module,
        lr: float,
        key: jax.Array,
        *inputs: Array,
        clip: float | None = None,
        max_norm: float | None = None,
    ) -> "Model":
        """Adam at rate `lr`; see `adam` for what is done to gradients first."""
        params = module.init(key, *inputs)["params"]
        tx = adam(lr, clip, max_norm)
        return cls(params=params, opt_state=tx.init(params), module=module, tx=tx)

    def __call__(self, *inputs: Array, params: Any = None) -> Any:
        params = jax.lax.stop_gradient(self.params) if params is None else params
        return self.module.apply({"params": params}, *inputs)

    def restart(self, params: Any) -> "Model":
        """The model at `params`, which may have other shapes, with its optimiser begun anew."""
        return self.replace(params=params, opt_state=self.tx.init(params))

    def minimise(self, loss_fn: Callable[[Any], tuple[jax.Array, Any]]) -> tuple["Model", jax.Array, Any]:
        """One Adam step on `loss_fn(params) -> (loss, aux)`; returns the stepped model, the loss and aux."""
        (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(self.params)
        return self.step(grads), loss, aux

    def step(self, grads: Any) -> "Model":
        """One Adam step along the gradients of `params`."""
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
        return self.replace(params=optax.apply_updates(self.params, updates), opt_state=opt_state)


def minimise_jointly(
    models: tuple[Model, ...], loss_fn: Callable[[tuple[Any, ...]], tuple[jax.Array, Any]]
) -> tuple[tuple[Model, ...], jax.Array, Any]:
    """One Adam step of several models on one `loss_fn(their params) -> (loss, aux)`; returns them, the loss and aux."""
    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(tuple(model.params for model in models))
    return tuple(model.step(grad) for model, grad in zip(models, grads)), loss, aux


class PositiveScalar(struct.PyTreeNode):
    """A positive number learned in log space: a dual variable, a temperature. One that starts at 0 stays there."""

    log_value: jax.Array
    opt_state: Any
    tx: optax.GradientTransformation = struct.field(pytree_node=False)

    @classmethod
    def create(cls, value: float, lr: float) -> "PositiveScalar":
        log_value, tx = jnp.maximum(jnp.log(jnp.float32(value)), LOG_ZERO), adam(lr)
        return cls(log_value=log_value, opt_state=tx.init(log_value), tx=tx)

    @property
    def value(self) -> jax.Array:
        return jnp.exp(self.log_value)

    def restart(self) -> "PositiveScalar":
        """The same value, with its optimiser begun anew."""
        return self.replace(opt_state=self.tx.init(self.log_value))

    def minimise(self, slope: jax.Array) -> "PositiveScalar":
        """One Adam step on the loss `log(value) * slope`."""
        updates, opt_state = self.tx.update(jax.lax.stop_gradient(slope), self.opt_state)
        return self.replace(log_value=self.log_value + updates, opt_state=opt_state)


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
        n, mean, var = rows.shape[0], jnp.mean(rows, axis=0), jnp.var(rows, axis=0)
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


def dense_layers(model: Model) -> tuple[Layer, ...]:
    """The layers of an `MLP`, or those that lead to the mode of a `TanhPolicy`, as arrays."""
    module, params = model.module, jax.tree.map(np.asarray, model.params)
    dense = [Layer(**params[f"Dense_{i}"], activation="linear") for i in range(module.depth + 1)]
    last: Any = "tanh" if isinstance(module, TanhPolicy) else "linear"
    hidden: Any = {nn.relu: "relu", nn.tanh: "tanh"}[module.activation]
    return tuple(layer._replace(activation=hidden) for layer in dense[:-1]) + (dense[-1]._replace(activation=last),)


def fold_input(params: Any, start: int, values: Array, layers: tuple[str, ...] = ("Dense_0",)) -> Any:
    """Parameters of a network with inputs [start, start + len(values)) held at `values` and gone, of all the `layers`
    that read the input."""
    end = start + values.shape[-1]
    for layer in layers:
        first = params[layer]
        kernel = jnp.concatenate([first["kernel"][:start], first["kernel"][end:]])
        params = {**params, layer: {"kernel": kernel, "bias": first["bias"] + values @ first["kernel"][start:end]}}
    return params


def insert_inputs(params: Any, start: int, num: int, layers: tuple[str, ...] = ("Dense_0",)) -> Any:
    """Parameters with `num` further inputs at `start`, of all the `layers` that read the input, that change nothing
    yet: their weights are 0."""
    for layer in layers:
        first = params[layer]
        zeros = jnp.zeros((num, first["kernel"].shape[1]), first["kernel"].dtype)
        kernel = jnp.concatenate([first["kernel"][:start], zeros, first["kernel"][start:]])
        params = {**params, layer: {**first, "kernel": kernel}}
    return params


def soft_update(target: Any, online: Any, tau: float) -> Any:
    """target <- (1 - tau) target + tau online, leaf by leaf."""
    return jax.tree.map(lambda t, o: (1 - tau) * t + tau * o, target, online)
