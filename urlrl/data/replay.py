"""The host replay: a ring of transitions in main memory."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.acting import nothing_yet, planned
from urlrl.data.draw import draw, gather
from urlrl.errors import UserError
from urlrl.types import Array, BatchSpec, EnvSpec, Transition

Fields = dict[str, tuple[tuple[int, ...], np.dtype]]  # name -> (shape of one row, dtype)
Rows = dict[str, np.ndarray]  # name -> (n, ...)
F32, FLAG = np.dtype(np.float32), np.dtype(np.bool_)
STORABLE = (F32, FLAG, np.dtype(np.int32))  # what an agent may leave in the data
# The columns of a transition; what else there is the agent has left.
OWN = frozenset({"obs", "action", "reward", "terminated", "truncated", "next_obs", "physics", "next_physics"})

UNSEEN = ("truncated", "physics", "next_physics")  # columns that no `Transition` holds


def transition_fields(spec: EnvSpec, stored: Fields) -> Fields:
    """What is kept of one environment step, `stored` by the agent. `physics` is the simulator's state at obs,
    `next_physics` at next_obs; they are kept only where the observation does not hold them already."""
    fields: Fields = {
        "obs": ((spec.obs_dim,), F32),
        "action": ((spec.action_dim,), FLAG if spec.action == "onehot" else F32),
        "reward": ((), F32),
        "terminated": ((), FLAG),
        "truncated": ((), FLAG),
        "next_obs": ((spec.obs_dim,), F32),
    }
    if spec.physics and not spec.obs_is_physics:
        f64 = np.dtype(np.float64)
        fields |= {"physics": ((spec.physics_dim,), f64), "next_physics": ((spec.physics_dim,), f64)}
    return fields | stored


def stored_fields(agent: Any, example: Transition) -> Fields:
    """The columns that an agent leaves in the data, `Carry.stored`.

    Raises:
        UserError: one of them has a dtype that is not stored, or there is no "z".
    """
    stored = nothing_yet(agent, 1, planned(agent, example)).stored
    fields = {name: (leaf.shape[1:], np.dtype(leaf.dtype)) for name, leaf in stored.items()}
    name = type(agent).__name__
    if "z" not in fields:
        raise UserError(f"Agent {name} stores {', '.join(fields) or 'nothing'}: expected 'z', its skill, too.")
    for column, (_, dtype) in fields.items():
        if column in OWN:
            raise UserError(f"Agent {name} stores a column '{column}': expected a name that no transition has.")
        if dtype not in STORABLE:
            raise UserError(f"Agent {name} stores '{column}' as {dtype}: expected float32, bool or int32.")
    return fields


def z_field(dim: int) -> Fields:
    """What an agent stores that stores its skill alone."""
    return {"z": ((dim,), F32)}


def agent_fields(agent: Any, spec: EnvSpec) -> Fields:
    """What is kept of one step of this agent in this environment."""
    return transition_fields(spec, stored_fields(agent, example_transition(spec, agent.config.z.dim)))


def example_transition(spec: EnvSpec, z_dim: int, n: int = 1) -> Transition:
    """`n` transitions of zeros: the shapes and dtypes that an agent is created for."""
    return blank(transition_fields(spec, z_field(z_dim)), BatchSpec(), n)


def relabelled(rows: Rows, reward: np.ndarray) -> Transition:
    """Stored rows as transitions that earned `reward` (n,)."""
    return as_transitions(rows)._replace(reward=reward.astype(np.float32))


def as_transitions(rows: dict[str, Any]) -> Transition:
    """Stored columns (*B, ...) as transitions, with discount 0 at true terminations alone."""
    extra = {name: column for name, column in rows.items() if name not in OWN and name != "z"}
    names = ("obs", "action", "reward", "next_obs", "z")
    discount = 1 - rows["terminated"].astype(np.float32)
    return Transition(**{name: rows[name] for name in names}, discount=discount, extra=extra or None)


def blank(fields: Fields, spec: BatchSpec, n: int) -> Transition:
    """`n` transitions of zeros, which take no memory, as a ring of these fields draws them."""
    zeros = {name: np.broadcast_to(np.zeros((), dtype), (n, *shape)) for name, (shape, dtype) in fields.items()}
    batch = as_transitions(zeros)
    if spec.goals is not None:
        batch = batch._replace(goal=batch.obs, goal_steps=np.zeros(n, np.int32))
    return batch._replace(future=np.zeros((n, spec.futures, batch.obs.shape[1]), F32)) if spec.futures else batch


class Slots(NamedTuple):
    """The space of rows of rings side by side, one a shard: slots (batches, shards, *more)."""

    width: Array | int  # environments of a shard, interleaved: slot i + width holds what follows slot i
    filled: Any  # (), int32: how many slots of each shard hold a transition
    left: Array | None  # (shards, size), int32: see `steps_left`; None where nobody asks for later rows

    def any_row(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.randint(key, shape, 0, self.filled, jnp.int32)

    def steps_left(self, slot: jax.Array) -> jax.Array:
        assert self.left is not None
        shard = jnp.arange(slot.shape[1], dtype=jnp.int32)
        return jnp.asarray(self.left)[shard.reshape(-1, *[1] * (slot.ndim - 2)), slot]

    def ahead(self, slot: jax.Array, steps: jax.Array) -> jax.Array:
        assert self.left is not None
        return (slot + steps * self.width) % self.left.shape[1]


draw_slots = partial(jax.jit, static_argnums=(1, 2))(draw)


@partial(jax.jit, static_argnums=1)
def steps_left(ended: jax.Array, width: int, next_slot: jax.Array, filled: jax.Array) -> jax.Array:
    """How many of its episode's transitions a ring holds after each one, int32 of the shape of `ended`.

    Args:
        ended: (shards, size), bool: the episode ended with this transition.
        width: environments of a shard, interleaved: slot i + width holds what follows slot i.
        next_slot: the slot of the next transition, in each shard.
        filled: how many slots of each shard hold one; the others get numbers that mean nothing.
    """
    shards, size = ended.shape
    rows = size // width
    row = jnp.arange(rows, dtype=jnp.int32)
    oldest = jnp.where(filled == size, next_slot // width, 0)
    by_age = jnp.take(ended.reshape(shards, rows, width), (oldest + row) % rows, axis=1)
    age = row[None, :, None]
    last = by_age | (age == filled // width - 1)
    end = jax.lax.cummin(jnp.where(last, age, rows), axis=1, reverse=True)
    left = end - age
    return jnp.take(left, (row - oldest) % rows, axis=1).reshape(shards, size)


def by_batch(batch: Transition, size: int) -> Transition:
    """What was gathered by shard, (batches, shards, size / shards, ...), as batches (batches, size, ...)."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0], size, *x.shape[3:]), batch)


class Replay:
    """A ring of `capacity` transitions. Each has a global index, counted from 0; its slot is index mod capacity.

    Environments are interleaved: with n of them, the `lanes`, transition i + n follows transition i unless that one
    ended its episode. Batches are drawn from `shards` of n / shards neighbouring lanes, as many rows from each.
    """

    def __init__(self, capacity: int, fields: Fields, lanes: int = 1, shards: int = 1):
        """`capacity` is a multiple of `lanes`, and `lanes` of `shards`."""
        self.capacity, self.lanes, self.shards = capacity, lanes, shards
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
        width, filled = self.lanes // self.shards, np.int32(len(self) // self.shards)
        left = self._steps_left(width, filled) if spec.goals is not None or spec.futures else None
        shape = (num_batches, self.shards, spec.size // self.shards)
        drawn = jax.tree.map(np.asarray, draw_slots(key, shape, spec, Slots(width, filled, left)))
        return by_batch(gather(self, drawn, spec), spec.size)

    def transitions(self, slot: np.ndarray) -> Transition:
        """Those in slots (batches, shards, *more) of the shards."""
        return as_transitions({name: self._take(name, slot) for name in self.fields if name not in UNSEEN})

    def reached(self, slot: np.ndarray) -> np.ndarray:
        return self._take("next_obs", slot)

    def timed_out(self, slot: np.ndarray) -> np.ndarray:
        return self._take("truncated", slot)

    def _take(self, name: str, slot: np.ndarray) -> np.ndarray:
        width = self.lanes // self.shards
        first = (np.arange(self.shards) * width).reshape(-1, *[1] * (slot.ndim - 2))
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
        ended = (self.data["terminated"] | self.data["truncated"]).reshape(-1, self.shards, width)
        by_shard = ended.swapaxes(0, 1).reshape(self.shards, -1)
        return steps_left(by_shard, width, np.int32(self.total % self.capacity // self.shards), filled)
