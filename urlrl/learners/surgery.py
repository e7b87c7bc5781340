"""Parameters of a network with other inputs, and networks as arrays that leave JAX."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from urlrl.learners.model import Model
from urlrl.learners.nets import TanhPolicy
from urlrl.types import Array, Layer


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
