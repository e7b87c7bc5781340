"""The host replay: a ring of transitions in main memory."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.types import Array, BatchSpec, EnvSpec, Transition

Fields = dict[str, tuple[tuple[int, ...], np.dtype]]  # name -> (shape of one row, dtype)
Rows = dict[str, np.ndarray]  # name -> (n, ...)


def transition_fields(spec: EnvSpec, z_dim: int) -> Fields:
    """What is stored of one environment step. `physics` is the simulator's state at obs, `next_physics` at next_obs;
    they are stored only where the observation does not hold them already."""
    f32, flag = np.dtype(np.float32), np.dtype(np.bool_)
    fields: Fields = {
        "obs": ((spec.obs_dim,), f32),
        "action": ((spec.action_dim,), f32),
        "reward": ((), f32),
        "terminated": ((), flag),
        "truncated": ((), flag),
        "next_obs": ((spec.obs_dim,), f32),
        "z": ((z_dim,), f32),
    }
    if spec.physics and not spec.obs_is_physics:
        f64 = np.dtype(np.float64)
        fields |= {"physics": ((spec.physics_dim,), f64), "next_physics": ((spec.physics_dim,), f64)}
    return fields


def relabelled(rows: Rows, reward: np.ndarray) -> Transition:
    """Stored rows as transitions that earned `reward` (n,)."""
    discount = 1 - rows["terminated"].astype(np.float32)
    kept = {name: rows[name] for name in ("obs", "action", "next_obs", "z")}
    return Transition(**kept, reward=reward.astype(np.float32), discount=discount)


@partial(jax.jit, static_argnums=(1, 2))
def sample_slots(key: jax.Array, num_batches: int, size: int, filled: jax.Array) -> jax.Array:
    """(num_batches, size) slots, uniform with replacement over the filled part of a ring. Pure: the host replay and
    one on the accelerator gather by the same numbers."""
    return jax.random.randint(key, (num_batches, size), 0, filled, jnp.int32)


def gather(data: Mapping[str, Array], slots: Array, spec: BatchSpec) -> Transition:
    """The transitions in these slots, (*B,) of them; NumPy's and JAX's arrays alike."""
    xp = slots.__array_namespace__()
    ended = data["terminated"][slots]
    if spec.timeout_as_terminal:
        ended = ended | data["truncated"][slots]
    rows: dict[str, Any] = {name: xp.take(data[name], slots, axis=0) for name in Transition._fields if name in data}
    return Transition(**rows, discount=1.0 - ended.astype(xp.float32))


class Replay:
    """A ring of `capacity` transitions. Each has a global index, counted from 0; its slot is index mod capacity.

    Environments are interleaved: with n environments, transition i + n follows transition i unless that one ended
    its episode.
    """

    def __init__(self, capacity: int, fields: Fields):
        self.capacity = capacity
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
        """`num_batches` uniform batches, stacked: every field is (num_batches, spec.size, ...)."""
        return gather(self.data, np.asarray(sample_slots(key, num_batches, spec.size, len(self))), spec)

    def restore(self, total: int, rows: Rows) -> None:
        """Become the ring that had seen `total` transitions, of which `rows` are the last."""
        self.total = total - len(rows["obs"])
        self.add(rows)
