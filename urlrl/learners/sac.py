"""Soft actor-critic (Haarnoja et al., 2018, https://arxiv.org/abs/1812.05905) as skill-discovery code bases run it.

    y     = r + gamma * discount * (min_k Qbar_k(x', a') - alpha log pi(a'|x')),        a' ~ pi(.|x')
    L_Q   = 1/2 mean (Q_1 - y)^2 + 1/2 mean (Q_2 - y)^2
    L_pi  = mean[alpha log pi(a|x) - min_k Q_k(x, a)],  a ~ pi(.|x) reparameterised, Q_k after their step
    L_a   = -log(alpha) mean[log pi(a|x) + H],          H = -entropy_coef * |A|, the same a as in L_pi

Three silent deviations from common SAC, all METRA's: a tanh policy trunk, output heads at a tenth of Xavier's scale,
and a target entropy of -|A|/2. `x` is whatever the actor sees (here: normalised observation and skill).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check, check_all
from urlrl.learners.model import Model, PositiveScalar, check_network, filled, soft_update
from urlrl.learners.nets import Critics, TanhPolicy
from urlrl.learners.surgery import fold_input, insert_inputs
from urlrl.types import Array, Metrics


@dataclass(frozen=True)
class SACConfig:
    width: int | None = None  # units of both hidden layers; None: the agent's
    lr: float | None = None  # Adam, all of actor, critics and temperature; None: the agent's
    gamma: float = 0.99  # discount per decision
    tau: float = 0.005  # target networks: share of the online network per update
    alpha: float = 0.01  # initial entropy temperature
    learn_alpha: bool = True  # False: alpha stays as it is
    entropy_coef: float = 0.5  # target entropy in units of -|A|

    def __post_init__(self):
        check_network(self)
        check_all(self, "gamma", "tau", low=0, high=1)
        check("alpha", self.alpha, 0, open_low=True)
        check("entropy_coef", self.entropy_coef, 0)


class SAC(struct.PyTreeNode):
    actor: Model
    critic: Model
    target: dict  # critic parameters, averaged
    alpha: PositiveScalar
    config: SACConfig = struct.field(pytree_node=False)
    acts_by = ("actor", "alpha")

    @classmethod
    def create(cls, config: SACConfig, x: Array, action: Array, key: jax.Array, within: Any = None) -> "SAC":
        """`x` (1, in) and `action` (1, act) are examples; only their shapes matter. `within` is the agent's config that
        `config` is a part of, if it is one."""
        own = filled(config, within)
        actor_key, critic_key = jax.random.split(key)
        critic = Model.create(Critics(own.width), own.lr, critic_key, x, action)
        return cls(
            actor=Model.create(TanhPolicy(action.shape[-1], own.width), own.lr, actor_key, x),
            critic=critic,
            target=jax.tree.map(jnp.copy, critic.params),  # A copy: an alias cannot be donated.
            alpha=PositiveScalar.create(own.alpha, own.lr),
            config=own,
        )

    def hold_input(self, start: int, values: Array) -> "SAC":
        """A learner that starts from this one with the inputs [start, start + len(values)) of x held at `values`, and
        no longer sees them: equal actions and values. Its targets are its critics, its optimisers begin anew."""
        return self._with_inputs(lambda params: fold_input(params, start, values))

    def insert_inputs(self, start: int, num: int) -> "SAC":
        """A learner that starts here and sees `num` further inputs at `start` of x, and ignores them so far."""
        return self._with_inputs(lambda params: insert_inputs(params, start, num))

    def fresh_critic(self, key: jax.Array) -> "SAC":
        """This learner with untrained critics."""
        first = self.critic.params["MLP_0"]["Dense_0"]["kernel"]
        action = jnp.zeros((1, self.actor.module.action_dim), first.dtype)
        x = jnp.zeros((1, first.shape[0] - action.shape[-1]), first.dtype)
        critic = self.critic.restart(self.critic.module.init(key, x, action)["params"])
        return self.replace(critic=critic, target=jax.tree.map(jnp.copy, critic.params))

    def _with_inputs(self, change: Callable[[Any], Any]) -> "SAC":
        critic = self.critic.restart({name: change(network) for name, network in self.critic.params.items()})
        return self.replace(
            actor=self.actor.restart(change(self.actor.params)),
            critic=critic,
            target=jax.tree.map(jnp.copy, critic.params),
            alpha=self.alpha.restart(),
        )

    def td_target(self, reward: Array, discount: Array, next_x: Array, key: jax.Array) -> jax.Array:
        """y, (B,)."""
        next_action, log_prob = self.actor(next_x).sample_and_log_prob(key)
        next_q = jnp.min(self.critic(next_x, next_action, params=self.target), axis=0) - self.alpha.value * log_prob
        return reward + self.config.gamma * discount * next_q

    def update(
        self, x: Array, action: Array, reward: Array, discount: Array, next_x: Array, key: jax.Array
    ) -> tuple["SAC", Metrics]:
        """One step of critics, actor, temperature and targets, in this order. x (B, in), action (B, act), rest (B,)."""
        target_key, actor_key = jax.random.split(key)
        y = jax.lax.stop_gradient(self.td_target(reward, discount, next_x, target_key))

        def critic_loss(params):
            q = self.critic(x, action, params=params)
            return 0.5 * jnp.sum(jnp.mean((q - y[None]) ** 2, axis=1)), jnp.mean(q)

        critic, q_loss, q_mean = self.critic.minimise(critic_loss)
        actor, alpha, metrics = improve_actor(self, x, actor_key, lambda new: jnp.min(critic(x, new), axis=0))
        target = soft_update(self.target, critic.params, self.config.tau)
        metrics = {"critic/loss": q_loss, "critic/q": q_mean, **metrics}
        return self.replace(actor=actor, critic=critic, alpha=alpha, target=target), metrics


def improve_actor(
    learner: Any, x: Array, key: jax.Array, value: Callable[[jax.Array], jax.Array]
) -> tuple[Model, PositiveScalar, Metrics]:
    """A step of the actor, and one of the temperature, of a learner with SAC's `actor`, `alpha` and `config`. `value`
    is that of new actions (B, act) at x, (B,)."""

    def loss(params):
        action, log_prob = learner.actor(x, params=params).sample_and_log_prob(key)
        target_entropy = -learner.config.entropy_coef * action.shape[-1]
        too_low = jnp.mean(log_prob) + target_entropy  # the entropy, by so much
        return jnp.mean(learner.alpha.value * log_prob - value(action)), (jnp.mean(log_prob), too_low)

    actor, pi_loss, (log_prob, too_low) = learner.actor.minimise(loss)
    alpha = learner.alpha.minimise(-too_low) if learner.config.learn_alpha else learner.alpha
    metrics = {"actor/loss": pi_loss, "actor/entropy": -log_prob, "actor/alpha": learner.alpha.value}
    return actor, alpha, metrics
