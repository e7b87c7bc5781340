"""How whatever acts is stepped, in training as in evaluation: by the same compiled calls, so that both act alike to the
last bit."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from urlrl.types import All, Carry, Each, GoalPrompt, Transition, join_task, split_task


class Structure:
    """Of a pytree, as `jax.tree.structure` has it. Equal ones are one object, so that comparing them costs nothing."""

    def __init__(self, tree: Any):
        self.tree = tree


structure = cache(Structure)


@jax.tree_util.register_pytree_node_class
class Flat:
    """An agent that is about to act many times: a call need not find out anew how it is built."""

    def __init__(self, agent: Any):
        leaves, tree = jax.tree.flatten(agent)
        self.leaves, self.structure = leaves, structure(tree)

    def agent(self) -> Any:
        return jax.tree.unflatten(self.structure.tree, self.leaves)

    def tree_flatten(self) -> tuple[list[Any], Structure]:
        return self.leaves, self.structure

    @classmethod
    def tree_unflatten(cls, structure: Structure, leaves: Any) -> "Flat":
        flat = object.__new__(cls)
        flat.leaves, flat.structure = leaves, structure
        return flat


@jax.jit
def begin(flat: Flat, carry: Carry, ended: Any, key: jax.Array, step: Any, plan: Any) -> Carry:
    """What the agent remembers by `carry`, begun anew in the lanes that ended, (n,) bool, by the key of this step."""
    return begun(ended, flat.agent().begin(jax.random.fold_in(key, step), ended.shape[0], plan), carry)


@partial(jax.jit, static_argnums=1)
def begin_all(flat: Flat, n: int, key: jax.Array, step: Any, plan: Any, task: Each | All | None) -> Carry:
    """The same where all of `n` lanes have ended; the agent may be told a task."""
    return flat.agent().begin(jax.random.fold_in(key, step), n, plan, task)


@partial(jax.jit, static_argnames="temperature")
def act(flat: Flat, obs: Any, carry: Carry, key: jax.Array, step: Any, *, temperature: float = 1.0) -> Any:
    """The agent's `act` by the key of this step: actions (n, act) and the carry after them."""
    return flat.agent().act(obs, carry, jax.random.fold_in(key, step), temperature)


def to_goals(agent: Any, goals: Any, seen: Transition | None, key: jax.Array) -> Each:
    """The tasks of a lane for each of these goals, observations (n, obs)."""

    def read(goal: Any) -> tuple[Any, Any]:
        return split_task(agent.read(GoalPrompt(goal), seen, key))

    # What is shared depends on no goal: JAX refuses it otherwise.
    return Each(join_task(*jax.vmap(read, out_axes=(0, None))(goals)))


def begun(ended: Any, new: Carry, old: Carry) -> Carry:
    """`new` in the lanes that ended, (n,) bool, and `old` in the others."""

    def choose(new: Any, old: Any) -> Any:
        return jnp.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    lanes = jax.tree.map(choose, new._replace(shared=None), old._replace(shared=None))
    return lanes._replace(shared=new.shared)


def nothing_yet(agent: Any, n: int, plan: Any) -> Carry:
    """Zeros of the shapes that the agent remembers in `n` lanes: what is there before the first episodes begin. Of the
    plan only the shapes matter."""
    shapes = jax.eval_shape(lambda a, key, plan: a.begin(key, n, plan), agent, jax.random.key(0), plan)
    return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)


def remembered(carry: Carry) -> dict[str, Any]:
    """A carry as checkpoints hold it. That of an agent without memory is its skill alone, as it has always been."""
    return carry._asdict() if _has_memory(carry) else carry.stored


def recalled(held: dict[str, Any], like: Carry) -> Carry:
    """The reverse of `remembered`, of a carry like this one."""
    return Carry(**held) if _has_memory(like) else like._replace(stored=held)


def _has_memory(carry: Carry) -> bool:
    return bool(jax.tree.leaves(carry._replace(stored={})))


def planned(agent: Any, seen: Transition) -> Any:
    """The shapes of the agent's plan."""
    return jax.eval_shape(lambda a, k: a.plan(seen, k), agent, jax.random.key(0))
