"""Skills: their priors, their geometry, and the pair of functions by which an agent without memory acts."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, lgamma, sqrt
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from urlrl.errors import UserError, check, check_choice
from urlrl.types import All, Array, Carry, Each, Skill, Transition, join_task, split_task

Kind = Literal["sphere", "wide_sphere", "gaussian", "onehot", "none"]
TINY = 1e-8  # below this norm a vector has no direction


@dataclass(frozen=True)
class SkillSpace:
    """The prior over skills z and what a direction in latent space means for it."""

    # unit vectors | vectors of length sqrt(dim) | N(0, I) | one of `dim` indices | nothing: dim is 0
    kind: Kind = "sphere"
    dim: int = 2

    def __post_init__(self):
        check_choice("kind", self.kind, get_args(Kind))
        check("dim", self.dim, *((0, 0) if self.kind == "none" else (1,)))
        if self.kind == "onehot" and self.dim == 1:
            raise UserError(
                "dim is 1: expected at least 2 with kind 'onehot', as one skill alone has nothing to learn."
            )

    def sample(self, key: jax.Array, n: int) -> jax.Array:
        """(n, dim) draws from the prior."""
        if self.kind == "onehot":
            return jax.nn.one_hot(jax.random.randint(key, (n,), 0, self.dim), self.dim, dtype=jnp.float32)
        z = jax.random.normal(key, (n, self.dim), jnp.float32)
        return z if self.kind in ("gaussian", "none") else self.project(z)

    def project(self, x: Array) -> jax.Array:
        """(*B, dim) -> the skill that points most along x; where x has no direction, a fixed one; NaN stays NaN."""
        if self.kind == "none":
            return jnp.asarray(x)
        if self.kind == "onehot":
            return jax.nn.one_hot(jnp.argmax(x, axis=-1), self.dim, dtype=jnp.float32)
        norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
        fixed = jnp.broadcast_to(jnp.eye(1, self.dim)[0], x.shape)
        unit = jnp.where(norm <= TINY, fixed, x / jnp.maximum(norm, TINY))
        return unit * self.typical_norm

    def direction(self, z: Array) -> jax.Array:
        """(*B, dim): the vector that stands for z in an inner product. One-hot skills are centred, so that the
        prior has mean zero: 1 at the index, -1/(dim - 1) elsewhere."""
        if self.kind != "onehot":
            return jnp.asarray(z)
        return (jnp.asarray(z) - 1 / self.dim) * (self.dim / (self.dim - 1))

    def spread(self, n: int, key: jax.Array) -> jax.Array:
        """(n, dim) skills for an evaluation: indices split as evenly as n allows, else draws from the prior."""
        if self.kind == "onehot":
            return jax.nn.one_hot(jnp.arange(n) * self.dim // n if n < self.dim else jnp.arange(n) % self.dim, self.dim)
        return self.sample(key, n)

    @property
    def typical_norm(self) -> float:
        """E|z| of the prior; for N(0, I) it is sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2)."""
        if self.kind != "gaussian":
            return sqrt(self.dim) if self.kind == "wide_sphere" else 1.0
        return sqrt(2) * exp(lgamma((self.dim + 1) / 2) - lgamma(self.dim / 2))


def nothing(agent: Any, seen: Transition, key: jax.Array) -> tuple:
    """The plan of an agent that picks from nothing."""
    del agent, seen, key
    return ()


class Held(NamedTuple):
    """What is remembered beside the skill."""

    steps: Any = None  # (n,), int32: since the skill was drawn; None where it is kept for the episode
    task: Any = None  # each lane's own, (n, ...), where there is one to aim at


def hold_skill(steps: int | None = None) -> tuple[Callable, Callable]:
    """`begin` and `act` of an agent without memory, as a pair to be assigned in its class.

    It follows one skill per episode, or draws another one after every so many `steps` of it. Told a task, it asks
    `aim` for the skill at every step.
    """

    def begin(agent: Any, key: jax.Array, n: int, plan: Any, task: Each | All | None = None) -> Carry:
        """Draw a skill per environment, or take what the task says. See `urlrl.types.Agent`."""
        del plan
        space, own, one = agent.config.z, None, None
        match task:
            case Each(Skill(z)):
                z = jnp.asarray(z)
            case All(Skill(z)):
                z = jnp.broadcast_to(jnp.asarray(z), (n, space.dim))
            case None:
                z = space.sample(key, n)
            case _:
                z = jnp.zeros((n, space.dim), jnp.float32)
                own, one = split_task(task.task) if isinstance(task, Each) else (None, task.task)
        clock = jnp.zeros(n, jnp.int32) if steps and task is None else None
        return Carry({"z": z}, Held(clock, own), shared=one)

    def act(agent: Any, obs: Array, carry: Carry, key: jax.Array, temperature=1.0) -> tuple[jax.Array, Carry]:
        """Act under the skill: (n, act), and what is remembered then."""
        z, clock, own = carry.z, carry.lane.steps, carry.lane.task
        if own is not None:
            z = jax.vmap(lambda task, at: agent.aim(join_task(task, carry.shared), at))(own, obs)
        elif carry.shared is not None:
            z = agent.aim(carry.shared, obs)
        elif clock is not None:
            draw_key, key = jax.random.split(key)
            over = clock == steps
            z = jnp.where(over[:, None], agent.config.z.sample(draw_key, z.shape[0]), z)
            carry = carry._replace(lane=Held(jnp.where(over, 0, clock) + 1))
        return agent.sample_actions(obs, z, key, temperature), carry._replace(stored={"z": z})

    return begin, act
