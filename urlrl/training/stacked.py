"""Agents of several seeds as one, their leaves stacked."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def seed_axes(agent: Any) -> Any:
    """Where the seeds of an agent's leaves are stacked: axis 0, or None for those of its fields that are `shared`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: None if path[0].name in agent.shared else 0, agent)


def over_axes(function: Callable[..., Any], axes: Any, *trees: Any) -> Any:
    """`function(axis, *leaves)` of trees like the one that `axes` are of."""
    return jax.tree.map(function, axes, *trees, is_leaf=lambda x: x is None)


def stack_agents(axes: Any, agents: Sequence[Any]) -> Any:
    """Agents of several seeds, stacked along `axes`, on the host. Of what is equal the largest is taken: a seed that
    diverged begins at 0 again."""
    return over_axes(lambda axis, *seeds: np.max(seeds, axis=0) if axis is None else np.stack(seeds), axes, *agents)


def pick_agent(axes: Any, stacked: Any, seed: int) -> Any:
    """One of the stacked agents, on the host."""
    return jax.device_get(over_axes(lambda axis, x: x if axis is None else x[seed], axes, stacked))
