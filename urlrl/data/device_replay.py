"""The replay on the device: the ring of `replay.py` as a pytree, added to and drawn from inside compiled programs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.data.replay import Fields, Rows, gather, sample_slots
from urlrl.types import BatchSpec, Transition


class DeviceReplay(NamedTuple):
    """A ring of `capacity` transitions, in the slots that a `Replay` has them in. It counts no further than its
    capacity, so no number of transitions is too many for an int32."""

    data: dict[str, jax.Array]  # (capacity, ...), by field
    next: jax.Array  # (), int32: the slot of the next transition
    filled: jax.Array  # (), int32: how many slots hold one

    @property
    def capacity(self) -> int:
        return self.data["obs"].shape[0]

    def add(self, rows: dict[str, jax.Array]) -> "DeviceReplay":
        """Append n <= capacity transitions, in order."""
        n = rows["obs"].shape[0]
        slots = (self.next + jnp.arange(n, dtype=jnp.int32)) % self.capacity
        data = {name: column.at[slots].set(rows[name], unique_indices=True) for name, column in self.data.items()}
        return DeviceReplay(data, (self.next + n) % self.capacity, jnp.minimum(self.filled + n, self.capacity))

    def sample(self, key: jax.Array, num_batches: int, spec: BatchSpec) -> Transition:
        """The batches that a `Replay` of the same rows draws by this key; zeros while there are no rows."""
        return gather(self.data, sample_slots(key, num_batches, spec.size, self.filled), spec)


def device_fields(fields: Fields) -> Fields:
    """These fields in types that the device computes in: physics, which is stored in float64, in float32."""
    f64, f32 = np.dtype(np.float64), np.dtype(np.float32)
    return {name: (shape, f32 if dtype == f64 else dtype) for name, (shape, dtype) in fields.items()}


def rings(
    capacity: int, fields: Fields, total: int, rows: Sequence[Rows | None], put: Callable[[np.ndarray], jax.Array]
) -> DeviceReplay:
    """Rings stacked over seeds, each of which has seen `total` transitions, of which its `rows` are the last, or none;
    slots that hold none are zeros. `put` brings an array (seeds, ...) to the device; one field at a time is held here.
    """
    data, count = {}, [0 if column is None else len(column["obs"]) for column in rows]
    for name, (shape, dtype) in device_fields(fields).items():
        stacked = np.zeros((len(rows), capacity, *shape), dtype)
        for lane, mine in enumerate(rows):
            if mine is not None:
                stacked[lane, np.arange(total - count[lane], total) % capacity] = mine[name]
        data[name] = put(stacked)
    full = np.full(len(rows), total % capacity, np.int32)
    return DeviceReplay(data, put(full), put(np.array(count, np.int32)))
