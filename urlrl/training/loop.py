"""What the loops share: how they are driven, and the compiled call that makes gradient steps on stacked batches."""

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.cells import count_cells
from urlrl.config import PretrainConfig
from urlrl.errors import TrainingDiverged
from urlrl.types import EnvSpec, Transition


class Memory(Protocol):
    """What a checkpoint holds of a run in progress."""

    @property
    def step(self) -> int: ...  # of the unit that the config's `steps` counts
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any], step: int, rows: Any) -> None: ...


class Clocked(Protocol):
    """What says how fast it goes."""

    updates: int  # gradient steps made by this process

    @property
    def step(self) -> int: ...
    def timing(self) -> dict[str, float]: ...  # seconds spent by use since the last call


class Loop(Memory, Clocked, Protocol):
    """A run in progress: `epoch` advances it, `state` and `restore` are its whole memory."""

    agent: Any

    def epoch(self) -> dict[str, float]: ...  # metrics of finite values; raises TrainingDiverged


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


def finite_metrics(metrics: dict[str, jax.Array], finite: jax.Array, step: int) -> dict[str, float]:
    """Raises TrainingDiverged if a metric, or by `finite` a parameter, is not finite."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    bad = [name for name, value in values.items() if not np.isfinite(value)]
    if bad or not finite:
        what = f"metric '{bad[0]}' is {values[bad[0]]}" if bad else "a parameter of the agent is not finite"
        raise TrainingDiverged(f"Training diverged at step {step}: {what}; expected finite numbers.")
    return values


def seed_metrics(
    metrics: dict[str, jax.Array], finite: jax.Array, step: int
) -> list[dict[str, float] | TrainingDiverged]:
    """`finite_metrics` of each seed, or why there are none; `metrics` (seeds,) and `finite` (seeds,) are stacked."""
    outcomes: list[dict[str, float] | TrainingDiverged] = []
    for lane, whole in enumerate(finite):
        try:
            outcomes.append(finite_metrics({name: values[lane] for name, values in metrics.items()}, whole, step))
        except TrainingDiverged as error:
            outcomes.append(error)
    return outcomes


def rollout_coverage(positions: np.ndarray) -> dict[str, float]:
    """How many 1 m cells an epoch's positions (rows, p) are in; nothing where p is 0."""
    return {"rollout/coverage": float(count_cells(positions))} if positions.size else {}


def first_clock(config: PretrainConfig, spec: EnvSpec) -> np.ndarray:
    """(num_envs,), int64: the control step at which each environment's first episode begins. Where resets are
    staggered, evenly spread over an episode, so that the first ones are cut short one after another."""
    spread = spec.episode_steps if config.stagger_resets and spec.episode_steps else 0
    return np.arange(config.num_envs) * spread // config.num_envs


def example_transition(spec: EnvSpec, z_dim: int, n: int) -> Transition:
    """`n` transitions of zeros, which take no memory: the shapes of what flows."""
    f32 = partial(np.broadcast_to, np.float32(0))
    obs, action = f32((n, spec.obs_dim)), f32((n, spec.action_dim))
    return Transition(obs=obs, action=action, reward=f32(n), discount=f32(n), next_obs=obs, z=f32((n, z_dim)))
