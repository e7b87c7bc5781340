"""What the loops share: how they are driven, and the compiled call that makes gradient steps on stacked batches."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.cells import count_cells
from urlrl.config import PretrainConfig
from urlrl.data.rows import as_transitions
from urlrl.errors import TrainingDiverged, UserError
from urlrl.types import BatchSpec, EnvSpec, Transition


class Memory(Protocol):
    """What a checkpoint holds of a run in progress."""

    @property
    def step(self) -> int: ...  # of the unit that the config's `steps` counts
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any], step: int, rows: Any) -> None: ...


class Lane(Memory, Protocol):
    """One of the runs of a loop."""

    config: Any  # of this run, with its own seed

    @property
    def agent(self) -> Any: ...


class Stopwatch:
    """Seconds spent by use: `with watch(use)` counts what runs inside, but for what an inner one counts."""

    def __init__(self, *uses: str):
        self.seconds = dict.fromkeys(uses, 0.0)
        self.uses = list[str]()  # those that are being counted for, the innermost last
        self.since = 0.0  # when its time began

    def __call__(self, use: str) -> "Stopwatch":
        self._count()
        self.uses.append(use)
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._count()
        self.uses.pop()

    def read(self) -> dict[str, float]:
        """The seconds since the last call."""
        spent, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return spent

    def _count(self) -> None:
        now = time.perf_counter()
        if self.uses:
            self.seconds[self.uses[-1]] += now - self.since
        self.since = now


class Timed(Protocol):
    """What says how fast it goes."""

    updates: int  # gradient steps of each run made by this process
    watch: Stopwatch

    @property
    def step(self) -> int: ...  # of each run


Outcome = dict[str, float] | UserError  # finite metrics of an epoch, or why there are none


class Loop(Timed, Protocol):
    """Runs in progress that advance together, or one: `epoch` advances them; each of `runs` is the memory of one."""

    @property
    def runs(self) -> Sequence[Lane]: ...
    def epoch(self) -> list[Outcome]: ...  # by run


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


def check_episodes(config: PretrainConfig, spec: EnvSpec) -> None:
    """Refuse a rhythm by which rollouts would cut episodes, for an agent that wants them whole."""
    if not config.agent.batch.whole_episodes:
        return
    if not spec.episode_steps or config.rollout_steps % spec.episode_steps or config.stagger_resets:
        limit = f"{spec.episode_steps} steps" if spec.episode_steps else "no time limit"
        raise UserError(
            f"rollout_steps is {config.rollout_steps} and stagger_resets {config.stagger_resets}, and episodes of "
            f"'{spec.id}' have {limit}: expected whole episodes, as agent '{config.agent_name}' learns from these."
        )


def as_batch(rows: dict[str, Any], given: dict[str, Any] | None, spec: BatchSpec) -> Transition:
    """An epoch's rows, (steps, lanes, ...) each, as the one batch of an agent that learns from rollouts. What only
    `update` is `given`, and where episodes ended, are in `extra`. A leading axis counts batches, as `learn` has it."""
    batch = as_transitions(rows)
    ended = rows["terminated"] | rows["truncated"]
    batch = batch._replace(extra={**(batch.extra or {}), **(given or {}), "ended": ended})
    if spec.timeout_as_terminal:
        batch = batch._replace(discount=batch.discount * (1 - rows["truncated"].astype(np.float32)))
    return jax.tree.map(lambda x: x[None], batch)


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


def rollout_coverage(positions: np.ndarray) -> dict[str, float]:
    """How many 1 m cells an epoch's positions (rows, p) are in; nothing where p is 0."""
    return {"rollout/coverage": float(count_cells(positions))} if positions.size else {}


def first_clock(config: PretrainConfig, spec: EnvSpec) -> np.ndarray:
    """(num_envs,), int64: the control step at which each environment's first episode begins. Where resets are
    staggered, evenly spread over an episode, so that the first ones are cut short one after another."""
    spread = spec.episode_steps if config.stagger_resets and spec.episode_steps else 0
    return np.arange(config.num_envs) * spread // config.num_envs
