"""The host replay: a ring of transitions in main memory."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.data.draw import draw, gather
from urlrl.data.rows import UNSEEN, Fields, Rows, as_transitions
from urlrl.types import Array, BatchSpec, Transition


class Slots(NamedTuple):
    """The space of rows of rings side by side, one a part: slots (batches, parts, *more)."""

    width: Array | int  # environments of a part, interleaved: slot i + width holds what follows slot i
    filled: Any  # (), int32: how many slots of each part hold a transition
    left: Array | None  # (parts, size), int32: see `steps_left`; None where nobody asks for later rows

    def any_row(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.randint(key, shape, 0, self.filled, jnp.int32)

    def steps_left(self, slot: jax.Array) -> jax.Array:
        assert self.left is not None
        part = jnp.arange(slot.shape[1], dtype=jnp.int32)
        return jnp.asarray(self.left)[part.reshape(-1, *[1] * (slot.ndim - 2)), slot]

    def ahead(self, slot: jax.Array, steps: jax.Array) -> jax.Array:
        assert self.left is not None
        return (slot + steps * self.width) % self.left.shape[1]


draw_slots = partial(jax.jit, static_argnums=(1, 2))(draw)


@partial(jax.jit, static_argnums=1)
def steps_left(ended: jax.Array, width: int, next_slot: jax.Array, filled: jax.Array) -> jax.Array:
    """How many of its episode's transitions a ring holds after each one, int32 of the shape of `ended`.

    Args:
        ended: (parts, size), bool: the episode ended with this transition.
        width: environments of a part, interleaved: slot i + width holds what follows slot i.
        next_slot: the slot of the next transition, in each part.
        filled: how many slots of each part hold one; the others get numbers that mean nothing.
    """
    parts, size = ended.shape
    rows = size // width
    row = jnp.arange(rows, dtype=jnp.int32)
    oldest = jnp.where(filled == size, next_slot // width, 0)
    by_age = jnp.take(ended.reshape(parts, rows, width), (oldest + row) % rows, axis=1)
    age = row[None, :, None]
    last = by_age | (age == filled // width - 1)
    end = jax.lax.cummin(jnp.where(last, age, rows), axis=1, reverse=True)
    left = end - age
    return jnp.take(left, (row - oldest) % rows, axis=1).reshape(parts, size)


def by_batch(batch: Transition, size: int) -> Transition:
    """What was gathered by part, (batches, parts, size / parts, ...), as batches (batches, size, ...)."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0], size, *x.shape[3:]), batch)


class Replay:
    """A ring of `capacity` transitions. Each has a global index, counted from 0; its slot is index mod capacity.

    Environments are interleaved: with n of them, the `lanes`, transition i + n follows transition i unless that one
    ended its episode. Batches are drawn from `parts` of n / parts neighbouring lanes, as many rows from each.
    """

    def __init__(self, capacity: int, fields: Fields, lanes: int = 1, parts: int = 1):
        """`capacity` is a multiple of `lanes`, and `lanes` of `parts`."""
        self.capacity, self.lanes, self.parts = capacity, lanes, parts
        self.fields = fields
        self.total = 0  # transitions ever added; the next global index
        self.data = {name: np.empty((capacity, *shape), dtype) for name, (shape, dtype) in fields.items()}

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    def add(self, rows: Rows) -> None:
        """Append n <= capacity transitions, in order."""
        n = len(rows["obs"])
        start = self.total % self.capacity
        head = min(n, self.capacity - start)
        for name, column in self.data.items():
            column[start : start + head] = rows[name][:head]
            column[: n - head] = rows[name][head:]
        self.total += n

    def read(self, begin: int, end: int) -> Rows:
        """The transitions of global indices [begin, end), in order. They must still be in the ring."""
        if not self.total - len(self) <= begin <= end <= self.total:
            raise IndexError(f"[{begin}, {end}) is not in the ring [{self.total - len(self)}, {self.total})")
        slots = np.arange(begin, end) % self.capacity
        return {name: column[slots] for name, column in self.data.items()}

    def sample(self, key: jax.Array, num_batches: int, spec: BatchSpec) -> Transition:
        """`num_batches` batches, stacked: every field is (num_batches, spec.size, ...)."""
        width, filled = self.lanes // self.parts, np.int32(len(self) // self.parts)
        left = self._steps_left(width, filled) if spec.goals is not None or spec.futures else None
        shape = (num_batches, self.parts, spec.size // self.parts)
        drawn = jax.tree.map(np.asarray, draw_slots(key, shape, spec, Slots(width, filled, left)))
        return by_batch(gather(self, drawn, spec), spec.size)

    def transitions(self, slot: np.ndarray) -> Transition:
        """Those in slots (batches, parts, *more) of the parts."""
        return as_transitions({name: self._take(name, slot) for name in self.fields if name not in UNSEEN})

    def reached(self, slot: np.ndarray) -> np.ndarray:
        return self._take("next_obs", slot)

    def timed_out(self, slot: np.ndarray) -> np.ndarray:
        return self._take("truncated", slot)

    def _take(self, name: str, slot: np.ndarray) -> np.ndarray:
        width = self.lanes // self.parts
        first = (np.arange(self.parts) * width).reshape(-1, *[1] * (slot.ndim - 2))
        return self.data[name][slot // width * self.lanes + first + slot % width]

    def restore(self, total: int, rows: Rows) -> None:
        """Become the ring that had seen `total` transitions, of which `rows` are the last."""
        self.total = total - len(rows["obs"])
        self.add(rows)

    def cut(self) -> None:
        """Let no episode go on: what comes next does not follow from what is there."""
        last = np.arange(max(self.total - self.lanes, 0), self.total) % self.capacity
        self.data["truncated"][last] = ~self.data["terminated"][last]

    def _steps_left(self, width: int, filled: np.int32) -> jax.Array:
        ended = (self.data["terminated"] | self.data["truncated"]).reshape(-1, self.parts, width)
        by_part = ended.swapaxes(0, 1).reshape(self.parts, -1)
        return steps_left(by_part, width, np.int32(self.total % self.capacity // self.parts), filled)
