"""Gradient steps as all loops make them: one compiled call on stacked batches, and what it left."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.data.rows import as_transitions
from urlrl.errors import TrainingDiverged
from urlrl.training.loop import Outcome
from urlrl.types import BatchSpec, Transition


@partial(jax.jit, donate_argnums=0)
def learn(agent: Any, batches: Transition, key: jax.Array) -> tuple[Any, dict[str, jax.Array], jax.Array]:
    """Updates on stacked batches (updates, batch, ...); returns the agent, mean metrics, and whether all is finite."""

    def body(agent, inputs):
        batch, i = inputs
        return agent.update(
            batch, jax.random.fold_in(key, i)
        )  # As `split` has them, which checks of keys lose in vmap.

    agent, metrics = jax.lax.scan(body, agent, (batches, jnp.arange(batches.reward.shape[0], dtype=jnp.int32)))
    floats = [x for x in jax.tree.leaves(agent) if jnp.issubdtype(x.dtype, jnp.floating)]
    finite = jnp.stack([jnp.isfinite(x).all() for x in floats]).all()
    return agent, jax.tree.map(jnp.mean, metrics), finite


def finite_metrics(metrics: dict[str, jax.Array], finite: jax.Array, step: int) -> Outcome:
    """The metrics; or an error where one of them, or by `finite` a parameter, is not finite."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    bad = [name for name, value in values.items() if not np.isfinite(value)]
    if bad or not finite:
        what = f"metric '{bad[0]}' is {values[bad[0]]}" if bad else "a parameter of the agent is not finite"
        return TrainingDiverged(f"Training diverged at step {step}: {what}; expected finite numbers.")
    return values


def seed_metrics(metrics: dict[str, jax.Array], finite: jax.Array, step: int) -> list[Outcome]:
    """`finite_metrics` of each seed; `metrics` (seeds,) and `finite` (seeds,) are stacked."""
    return [
        finite_metrics({name: values[place] for name, values in metrics.items()}, whole, step)
        for place, whole in enumerate(finite)
    ]


def as_batch(rows: dict[str, Any], given: dict[str, Any] | None, spec: BatchSpec) -> Transition:
    """An epoch's rows, (steps, lanes, ...) each, as the one batch of an agent that learns from rollouts. What only
    `update` is `given`, and where episodes ended, are in `extra`. A leading axis counts batches, as `learn` has it."""
    batch = as_transitions(rows)
    ended = rows["terminated"] | rows["truncated"]
    batch = batch._replace(extra={**(batch.extra or {}), **(given or {}), "ended": ended})
    if spec.timeout_as_terminal:
        batch = batch._replace(discount=batch.discount * (1 - rows["truncated"].astype(np.float32)))
    return jax.tree.map(lambda x: x[None], batch)
