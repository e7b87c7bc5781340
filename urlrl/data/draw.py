"""What an agent sees of stored rows: which transitions, and which goals and later states go with them.

It is said once, for a *space of rows*: the ring of the host, its twin on the device, and a dataset. A space draws any
of its rows, and knows how many rows of the same episode follow one and which they are. What is drawn are rows alone;
whoever holds the columns gathers by them.
"""

from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

from urlrl.types import Array, BatchSpec, Goals, Transition

Row: TypeAlias = Any  # (*B,), int32


class Space(Protocol):
    """Rows that hold one transition each, as pure functions of int32 arrays."""

    def any_row(self, key: jax.Array, shape: tuple[int, ...]) -> Row: ...  # uniform, with replacement
    def steps_left(self, row: Row) -> Row: ...  # how many transitions of its episode follow each of these
    def ahead(self, row: Row, steps: Row) -> Row: ...  # the transition so many steps later in the episode


class Drawn(NamedTuple):
    """Rows of transitions. A state is meant by the transition that reached it."""

    row: Array  # the batch
    goal: Array | None = None  # of the states that are goals; where goal_steps is 0 the goal is the batch's own obs
    goal_steps: Array | None = None  # see Transition
    future: Array | None = None  # (..., futures), of later states


def draw(key: jax.Array, shape: tuple[int, ...], spec: BatchSpec, space: Space) -> Drawn:
    """Transitions of this shape, uniform with replacement; goals and later states where `spec` asks for them."""
    drawn = Drawn(space.any_row(key, shape))
    if spec.goals is None and not spec.futures:
        return drawn
    left = space.steps_left(drawn.row)
    if spec.goals is not None:
        drawn = _draw_goals(key, drawn.row, left, spec.goals, space)
    if spec.futures:
        wide = jnp.broadcast_to(drawn.row[..., None], (*shape, spec.futures))
        future, _ = _later(jax.random.fold_in(key, 4), wide, left[..., None], spec.future_gamma, space)
        drawn = drawn._replace(future=future)
    return drawn


def _draw_goals(key: jax.Array, row: Row, left: Row, goals: Goals, space: Space) -> Drawn:
    later_key, kind_key, random_key = (jax.random.fold_in(key, i) for i in (1, 2, 3))
    later, steps = _later(later_key, row, left, goals.gamma, space)
    u = jax.random.uniform(kind_key, row.shape)
    is_random, is_current = u < goals.random, u >= 1 - goals.current
    anywhere = space.any_row(random_key, row.shape)
    # The state that `anywhere` reached is obs itself where the batch's transition comes next.
    is_own = (space.steps_left(anywhere) > 0) & (space.ahead(anywhere, jnp.ones_like(anywhere)) == row)
    return Drawn(
        row,
        jnp.where(is_random, anywhere, later),
        jnp.where(jnp.where(is_random, is_own, is_current), 0, jnp.where(is_random, -1, steps)),
    )


def _later(key: jax.Array, row: Row, left: Row, gamma: float, space: Space) -> tuple[Row, Row]:
    """The transitions that reached later states of the episodes, and how many steps these are away from obs:
    k ~ Geom(1 - gamma), at most the episode's last, which is `left` + 1 away."""
    steps = jnp.minimum(geometric(key, row.shape, gamma), left + 1)
    return space.ahead(row, steps - 1), steps


def geometric(key: jax.Array, shape: tuple[int, ...], gamma: float) -> jax.Array:
    """k >= 1 with P(k) = (1 - gamma) gamma^(k - 1); int32, at most 2^30."""
    if gamma == 0:
        return jnp.ones(shape, jnp.int32)
    if gamma == 1:
        return jnp.full(shape, 2**30, jnp.int32)
    u = jax.random.uniform(key, shape)  # in [0, 1)
    return jnp.clip(jnp.ceil(jnp.log1p(-u) / jnp.log(gamma)), 1, 2**30).astype(jnp.int32)


class Columns(Protocol):
    """What is stored, gathered by rows (*B,); arrays of NumPy and JAX alike."""

    def transitions(self, row: Any, /) -> Transition: ...  # with discount 0 at true terminations alone
    def reached(self, row: Any, /) -> Any: ...  # (*B, obs): next_obs
    def timed_out(self, row: Any, /) -> Any: ...  # (*B,), bool: the episode ended here, but not by itself


def gather(columns: Columns, drawn: Drawn, spec: BatchSpec) -> Transition:
    """The transitions that were drawn, with what `spec` asks for."""
    batch = columns.transitions(drawn.row)
    if spec.timeout_as_terminal:
        batch = batch._replace(discount=batch.discount * ~columns.timed_out(drawn.row))
    if drawn.goal is not None and drawn.goal_steps is not None:  # Both or none.
        where = drawn.row.__array_namespace__().where
        goal = where(drawn.goal_steps[..., None] == 0, batch.obs, columns.reached(drawn.goal))
        batch = batch._replace(goal=goal, goal_steps=drawn.goal_steps)
    return batch if drawn.future is None else batch._replace(future=columns.reached(drawn.future))
