"""The replay on the device: the ring of `replay.py` as a pytree, added to and drawn from inside compiled programs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from urlrl.data.draw import draw, gather
from urlrl.data.replay import Slots, by_batch, steps_left
from urlrl.data.rows import UNSEEN, Fields, Rows, as_transitions
from urlrl.types import Array, BatchSpec, Transition


class DeviceReplay(struct.PyTreeNode):
    """The transitions of a `Replay`, part by part: part s has a ring of those of its environments, in order of time
    and then of environment. It counts no further than its capacity, so no number of transitions is too many for an
    int32."""

    data: Any  # field -> (parts, size, ...)
    next: Any  # (), int32: the slot of the next transition, in each part
    filled: Any  # (), int32: how many slots of each part hold one
    width: int = struct.field(pytree_node=False)  # environments of a part

    def add(self, rows: dict[str, jax.Array]) -> "DeviceReplay":
        """Append what all environments did in some steps, (steps, environments, ...)."""
        parts, size = self.data["obs"].shape[:2]
        n = len(rows["obs"]) * self.width
        slots = (self.next + jnp.arange(n, dtype=jnp.int32)) % size
        data = {
            name: column.at[:, slots].set(by_part(rows[name], parts), unique_indices=True)
            for name, column in self.data.items()
        }
        return self.replace(data=data, next=(self.next + n) % size, filled=jnp.minimum(self.filled + n, size))

    def sample(self, key: jax.Array, num_batches: int, spec: BatchSpec) -> Transition:
        """The batches that a `Replay` of the same rows draws by this key; zeros while there are no rows."""
        left = None
        if spec.goals is not None or spec.futures:
            ended = self.data["terminated"] | self.data["truncated"]
            left = steps_left(ended, self.width, self.next, self.filled)
        parts = self.data["obs"].shape[0]
        drawn = draw(key, (num_batches, parts, spec.size // parts), spec, Slots(self.width, self.filled, left))
        return by_batch(gather(self, drawn, spec), spec.size)

    def transitions(self, slot: jax.Array) -> Transition:
        """Those in slots (batches, parts, *more)."""
        return as_transitions({name: self._take(name, slot) for name in self.data if name not in UNSEEN})

    def reached(self, slot: jax.Array) -> jax.Array:
        return self._take("next_obs", slot)

    def timed_out(self, slot: jax.Array) -> jax.Array:
        return self._take("truncated", slot)

    def _take(self, name: str, slot: jax.Array) -> jax.Array:
        """Each part by its own slots alone: where parts lie on several devices, nothing moves between these."""
        return jax.vmap(lambda column, slots: column[slots], (0, 1), 1)(self.data[name], slot)


def by_part(rows: Array, parts: int) -> Array:
    """Steps of all environments, (steps, environments, ...), as parts have them: (parts, steps * width, ...)."""
    steps, lanes, *shape = rows.shape
    width = lanes // parts
    return rows.reshape(steps, parts, width, *shape).swapaxes(0, 1).reshape(parts, steps * width, *shape)


def in_order(rows: Array, width: int) -> Array:
    """The reverse of `by_part`, as a host's ring has it: (steps * environments, ...)."""
    parts, n, *shape = rows.shape
    return rows.reshape(parts, n // width, width, *shape).swapaxes(0, 1).reshape(parts * n, *shape)


def device_fields(fields: Fields) -> Fields:
    """These fields in types that the device computes in: physics, which is stored in float64, in float32."""
    f64, f32 = np.dtype(np.float64), np.dtype(np.float32)
    return {name: (shape, f32 if dtype == f64 else dtype) for name, (shape, dtype) in fields.items()}


def rings(
    capacity: int,
    fields: Fields,
    lanes: int,
    parts: int,
    total: int,
    rows: Sequence[Rows | None],
    put: Callable[[np.ndarray], jax.Array],
) -> DeviceReplay:
    """Rings stacked over seeds, each of which has seen `total` transitions, of which its `rows` are the last, or none;
    slots that hold none are zeros. `put` brings an array (seeds, ...) to the device; one field at a time is held here.
    """
    data, count = {}, [0 if column is None else len(column["obs"]) for column in rows]
    for name, (shape, dtype) in device_fields(fields).items():
        stacked = np.zeros((len(rows), capacity, *shape), dtype)
        for seed, mine in enumerate(rows):
            if mine is not None:
                stacked[seed, np.arange(total - count[seed], total) % capacity] = mine[name]
        steps = stacked.reshape(len(rows), capacity // lanes, lanes, *shape)
        data[name] = put(np.stack([by_part(ring, parts) for ring in steps]))
    following = np.full(len(rows), total % capacity // parts, np.int32)
    return DeviceReplay(data, following, np.array(count, np.int32) // np.int32(parts), lanes // parts)
