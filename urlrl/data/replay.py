"""The host replay: a ring of transitions in main memory."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.data.hindsight import geometric, goal_kinds, steps_left
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


class Picks(NamedTuple):
    """Slots of a ring's shards that batches are made of: (num_batches, shards, size / shards), as `goal_steps`."""

    slot: Array  # of the transitions
    goal: Array | None = None  # the state that this transition reached is the goal, or where goal_steps is 0, obs is
    goal_steps: Array | None = None  # see Transition
    future: Array | None = None  # (..., futures): the states that these transitions reached are later ones


@partial(jax.jit, static_argnums=(1, 2, 3))
def pick(
    key: jax.Array,
    num_batches: int,
    spec: BatchSpec,
    shards: int,
    width: int | jax.Array,
    filled: jax.Array,
    left: jax.Array | None,
) -> Picks:
    """Transitions for `num_batches` batches, uniform with replacement over what each shard holds and as many from each;
    goals and later states where `spec` asks for them. Pure: the host replay and one on the accelerator gather by the
    same numbers, and no shard needs to know another.

    Args:
        width: environments of a shard.
        filled: how many slots of each shard hold a transition.
        left: (shards, size): see `steps_left`; only for goals and later states.
    """
    shape = (num_batches, shards, spec.size // shards)
    slot = jax.random.randint(key, shape, 0, filled, jnp.int32)
    if left is None:
        return Picks(slot)
    shard = jnp.arange(shards, dtype=jnp.int32)[:, None]
    size, ahead = left.shape[1], left[shard, slot]

    def reached(key: jax.Array, slot: jax.Array, ahead: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Transitions Geom(1 - goal_gamma) - 1 later, in the same episode, and how many steps away their ends are."""
        steps = jnp.minimum(geometric(key, jnp.broadcast_shapes(slot.shape, ahead.shape), spec.goal_gamma), ahead + 1)
        return (slot + (steps - 1) * width) % size, steps

    picks = Picks(slot)
    if spec.goals:
        ahead_key, kind_key, random_key = (jax.random.fold_in(key, i) for i in (1, 2, 3))
        later, steps = reached(ahead_key, slot, ahead)
        is_random, is_current = goal_kinds(kind_key, shape, spec)
        anywhere = jax.random.randint(random_key, shape, 0, filled, jnp.int32)
        goal = jnp.where(is_random, anywhere, jnp.where(is_current, slot, later))
        goal_steps = jnp.where(is_random, -1, jnp.where(is_current, 0, steps))
        picks = picks._replace(goal=goal, goal_steps=goal_steps)
    if spec.futures:
        wide = jnp.zeros((*shape, spec.futures), jnp.int32)
        future, _ = reached(jax.random.fold_in(key, 4), slot[..., None] + wide, ahead[..., None])
        picks = picks._replace(future=future)
    return picks


def gather(take: Callable[[str, Any], Any], picks: Picks, spec: BatchSpec) -> Transition:
    """The batches of these picks, (num_batches, size, ...). `take(name, slots)` gives a field's rows in slots
    (num_batches, shards, size / shards, *more); NumPy's and JAX's arrays alike."""
    xp = picks.slot.__array_namespace__()

    def rows(name: str, slots: Array) -> Any:
        found = take(name, slots)
        return found.reshape(found.shape[0], spec.size, *found.shape[3:])

    ended = rows("terminated", picks.slot)
    if spec.timeout_as_terminal:
        ended = ended | rows("truncated", picks.slot)
    names = ("obs", "action", "reward", "next_obs", "z")
    batch = Transition(**{name: rows(name, picks.slot) for name in names}, discount=1.0 - ended.astype(xp.float32))
    if picks.goal is not None and picks.goal_steps is not None:
        steps = picks.goal_steps.reshape(batch.reward.shape)
        goal = xp.where(steps[..., None] == 0, batch.obs, rows("next_obs", picks.goal))
        batch = batch._replace(goal=goal, goal_steps=steps)
    return batch if picks.future is None else batch._replace(future=rows("next_obs", picks.future))


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
        left = self._steps_left(width, filled) if spec.goals or spec.futures else None
        picks = jax.tree.map(np.asarray, pick(key, num_batches, spec, self.shards, width, filled, left))
        first = np.arange(self.shards)[:, None] * width

        def take(name: str, slots: np.ndarray) -> np.ndarray:
            shard = first.reshape(*first.shape, *[1] * (slots.ndim - 3))
            return self.data[name][slots // width * self.lanes + shard + slots % width]

        return gather(take, picks, spec)

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
