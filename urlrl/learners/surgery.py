"""Parameters of a network with other inputs."""

from typing import Any

import jax.numpy as jnp

from urlrl.types import Array


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
