"""A network with its optimiser as a pytree, and a positive number that is learned in the same way."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from urlrl.errors import UserError, check
from urlrl.types import Array, Transition

OF_THE_AGENT = ("width", "depth", "lr")  # what a learner's config takes from the agent's where its own is None
LOG_ZERO = -200.0  # a finite logarithm of which exp is 0 in float32


def filled(config: Any, within: Any = None) -> Any:
    """A learner's config with no None for `width`, `depth` and `lr`: they are those of the agent's config that it is
    `within`.

    Raises:
        UserError: one is None, and there is no other.
    """
    names = [field.name for field in dataclasses.fields(config) if field.name in OF_THE_AGENT]
    values = {name: getattr(within, name, None) for name in names if getattr(config, name) is None}
    if none := [name for name, value in values.items() if value is None]:
        raise UserError(
            f"{type(config).__name__}.{none[0]} is None: expected a number, as there is no agent to take it from."
        )
    return dataclasses.replace(config, **values)


def one_row(example: Transition) -> tuple[jax.Array, jax.Array]:
    """Zeros like obs and action, (1, ...) float32, to make networks with; `example` is one transition or a batch."""
    obs, action = (jnp.zeros((1, x.shape[-1]), jnp.float32) for x in (example.obs, example.action))
    return obs, action


def check_network(config: Any) -> None:
    """Refuse a config whose `width` or `lr` no network can have."""
    check("width", config.width, 1)
    check("lr", config.lr, 0, open_low=True)


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


def soft_update(target: Any, online: Any, tau: float) -> Any:
    """target <- (1 - tau) target + tau online, leaf by leaf."""
    return jax.tree.map(lambda t, o: (1 - tau) * t + tau * o, target, online)
