"""How whatever acts is stepped, in training as in evaluation: one compiled call, so that both act alike bit for bit."""

from functools import partial
from typing import Any

import jax

from urlrl.types import Carry


@partial(jax.jit, static_argnames="temperature")
def act(agent: Any, obs: Any, carry: Carry, key: jax.Array, step: Any, *, temperature: float = 1.0) -> Any:
    """`agent.act` by the key of this step: actions (n, act) and the carry after them."""
    return agent.act(obs, carry, jax.random.fold_in(key, step), temperature)


def begun(ended: Any, new: Carry, old: Carry) -> Carry:
    """`new` in the lanes that ended, (n,) bool, and `old` in the others."""

    def choose(new: Any, old: Any) -> Any:
        return jax.numpy.where(ended.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    lanes = jax.tree.map(choose, new._replace(shared=None), old._replace(shared=None))
    return lanes._replace(shared=new.shared)
