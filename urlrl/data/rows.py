"""What is kept of a step: the columns, and how they become transitions."""

from typing import Any

import numpy as np

from urlrl.acting import nothing_yet, planned
from urlrl.errors import UserError
from urlrl.types import BatchSpec, EnvSpec, Transition

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
