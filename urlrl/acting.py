"""How whatever acts is stepped, in training as in evaluation: by the same compiled calls, so that both act alike to the
last bit."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from urlrl.types import All, Carry, Each, Transition


@jax.jit
def begin(
    agent: Any, carry: Carry, ended: Any, key: jax.Array, step: Any, plan: Any, task: Each | All | None = None
) -> Carry:
    """What the agent remembers by `carry`, begun anew in the lanes that ended, (n,) bool, by the key of this step."""
    return begun(ended, agent.begin(jax.random.fold_in(key, step), ended.shape[0], plan, task), carry)


@partial(jax.jit, static_argnames="temperature")
def act(agent: Any, obs: Any, carry: Carry, key: jax.Array, step: Any, *, temperature: float = 1.0) -> Any:
    """`agent.act` by the key of this step: actions (n, act) and the carry after them."""
    return agent.act(obs, carry, jax.random.fold_in(key, step), temperature)


def begun(ended: Any, new: Carry, old: Carry) -> Carry:
    """`new` in the lanes that ended, (n,) bool, and `old` in the others."""

    def choose(new: Any, old: Any) -> Any:
        return jnp.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    lanes = jax.tree.map(choose, new._replace(shared=None), old._replace(shared=None))
    return lanes._replace(shared=new.shared)


def nothing_yet(agent: Any, n: int, plan: Any, task: Each | All | None = None) -> Carry:
    """Zeros of the shapes that the agent remembers in `n` lanes: what is there before the first episodes begin. Of the
    plan only the shapes matter."""
    shapes = jax.eval_shape(lambda a, *rest: a.begin(rest[0], n, *rest[1:]), agent, jax.random.key(0), plan, task)
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
