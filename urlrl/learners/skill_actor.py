"""What agents share whose rewards are linear in features: pi(a|s, z) for every task vector z, and such a task.

L_pi = -mean min_i Q_i(s, pi(s, z) + clipped noise; z),        the gradient reaches the policy through the action only
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import UserError, check
from urlrl.learners.ddpg import DDPG, DDPGConfig
from urlrl.learners.embed import TWO_INPUTS, SkillPolicy
from urlrl.learners.model import Model, check_network, filled
from urlrl.learners.skills import TINY, SkillSpace
from urlrl.learners.surgery import fold_input
from urlrl.types import Array


class Linear(NamedTuple):
    """A task: the reward features(s')^T w, to be pursued by the policy of z."""

    z: jax.Array  # (d,), of the length that policies were trained for
    w: jax.Array  # (d,)


class SkillActor(struct.PyTreeNode):
    model: Model

    @classmethod
    def create(
        cls, config: DDPGConfig, obs: Array, action: Array, z: Array, key: jax.Array, within: Any = None
    ) -> "SkillActor":
        """`within` is the agent's config that `config` is a part of, if it is one."""
        own = filled(config, within)
        policy = SkillPolicy(action.shape[-1], own.width, own.noise, own.noise_clip)
        return cls(model=Model.create(policy, own.lr, key, obs, z))

    def __call__(self, obs: Array, z: Array):
        """The policy's distribution over actions."""
        return self.model(obs, z)

    def improve(
        self, q: Callable[[jax.Array], jax.Array], obs: Array, z: Array, key: jax.Array
    ) -> tuple["SkillActor", jax.Array]:
        """One step towards larger min_i Q_i; `q` maps actions (B, act) to (2, B). Returns the loss too."""

        def loss(params):
            action = self.model(obs, z, params=params).smoothed(key)
            return -jnp.mean(jnp.min(q(action), axis=0)), None

        model, actor_loss, _ = self.model.minimise(loss)
        return self.replace(model=model), actor_loss

    def learner(self, config: DDPGConfig, z: Array, key: jax.Array) -> DDPG:
        """DDPG whose policy is this one under z (d,), with untrained critics."""
        module = self.model.module
        obs_dim = self.model.params[TWO_INPUTS[0]]["kernel"].shape[0]
        params = fold_input(self.model.params, obs_dim, z, layers=TWO_INPUTS[1:])
        obs, action = jnp.zeros((1, obs_dim), jnp.float32), jnp.zeros((1, module.action_dim), jnp.float32)
        ddpg = DDPG.create(config, obs, action, key)
        return ddpg.replace(actor=Model(params, ddpg.actor.tx.init(params), module, ddpg.actor.tx))


def mix(prior: Array, own: Array, share: float, key: jax.Array) -> jax.Array:
    """(B, d): each row of `own` with this probability, else of `prior`."""
    chosen = jax.random.uniform(key, (prior.shape[0], 1)) < share
    return jnp.where(chosen, own, prior)


def linear_task(space: SkillSpace, w: Array, key: jax.Array) -> Linear:
    """The task of a weight vector (d,). A reward of which no feature knows anything has no direction: a random z is
    taken then."""
    drawn = space.sample(key, 1)[0]
    return Linear(jnp.where(jnp.linalg.norm(w) > TINY, space.project(w), drawn), jnp.asarray(w))


def check_linear(name: str, agent: Any) -> None:
    """Refuse the config of an agent that has a SkillActor where a setting that all such agents have cannot be."""
    check_network(agent)
    if agent.z.kind != "wide_sphere":
        raise UserError(f"z.kind is '{agent.z.kind}': expected 'wide_sphere' for {name}, vectors of length sqrt(dim).")
    check("max_gradient", agent.max_gradient, 0, open_low=True)
    check("mix", agent.mix, 0, 1)
    check("batch.size", agent.batch.size, 2)
