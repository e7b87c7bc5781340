"""Implicit Q-learning (Kostrikov et al., 2021, https://arxiv.org/abs/2110.06169): no action is asked of the critics
that the data does not hold.

    L_V  = mean L(min_k Qbar_k(x, a) - V(x)),      L(u) = |tau - [u < 0]| u^2
    L_Q  = mean (Q_1 - y)^2 + (Q_2 - y)^2,         y = r + gamma * discount * V(x')
    L_pi = -mean w log pi(a|x),                    w = min(exp(beta (min_k Qbar_k(x, a) - V(x))), 100)

With `online_advantage` w is by the critics Q_k themselves, as FRE has it; HILP has Qbar_k.

All three are of the networks as they were before the step, and so is what the targets are averaged from.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from tyro.conf import Suppress

from urlrl.errors import check, check_all
from urlrl.learners.model import Model, check_network, filled, soft_update
from urlrl.learners.nets import MLP, NO_BINS, GaussianPolicy, Pair, SoftBins, gelu_tanh
from urlrl.learners.surgery import fold_input, insert_inputs
from urlrl.types import Array, Metrics

MAX_WEIGHT = 100.0


@dataclass(frozen=True)
class IQLConfig:
    width: int | None = None  # units of every hidden layer; None: the agent's
    depth: int | None = None  # hidden layers; None: the agent's
    lr: float | None = None  # Adam, of every network; None: the agent's
    gamma: float = 0.99  # discount per step
    tau: float = 0.005  # target critics: share of the online critics per update
    expectile: float = 0.9  # 0.5: the value of what the data does; towards 1: of its best
    inverse_temperature: float = 10.0  # beta; 0 is behaviour cloning
    online_advantage: bool = False  # the policy's weight is by the critics, not by their targets
    bins: Suppress[SoftBins] = NO_BINS  # what every network sees of x; for agents to set, from their own settings

    def __post_init__(self):
        check_network(self)
        check("depth", self.depth, 1)
        check_all(self, "gamma", "tau", "expectile", low=0, high=1)
        check("inverse_temperature", self.inverse_temperature, 0)


def expectile_loss(difference: Array, expectile: float) -> jax.Array:
    """|expectile - [u < 0]| u^2, elementwise."""
    return jnp.where(difference < 0, 1 - expectile, expectile) * difference**2


class IQL(struct.PyTreeNode):
    actor: Model
    value: Model
    critic: Model  # (2, *B, 1) of [x, action]
    target: dict  # critic parameters, averaged
    config: IQLConfig = struct.field(pytree_node=False)
    acts_by = ("actor",)

    @classmethod
    def create(cls, config: IQLConfig, x: Array, action: Array, key: jax.Array, within: Any = None) -> "IQL":
        """`x` (1, in) and `action` (1, act) are examples; only their shapes matter. `within` is the agent's config that
        `config` is a part of, if it is one."""
        own = filled(config, within)
        actor_key, value_key, critic_key = jax.random.split(key, 3)
        net = MLP(1, own.width, own.depth, activation=gelu_tanh, norm=True, bins=own.bins)
        policy = GaussianPolicy(action.shape[-1], own.width, own.depth, bins=own.bins)
        critic = Model.create(Pair(net), own.lr, critic_key, jnp.concatenate([x, action], axis=-1))
        return cls(
            actor=Model.create(policy, own.lr, actor_key, x),
            value=Model.create(net, own.lr, value_key, x),
            critic=critic,
            target=jax.tree.map(jnp.copy, critic.params),
            config=own,
        )

    def hold_input(self, start: int, values: Array) -> "IQL":
        """A learner that starts from this one with the inputs [start, start + len(values)) of x held at `values`, and
        no longer sees them: equal actions and values. Its targets are its critics, its optimisers begin anew."""
        return self._with_inputs(lambda params: fold_input(params, start, values))

    def insert_inputs(self, start: int, num: int) -> "IQL":
        """A learner that starts here and sees `num` further inputs at `start` of x, and ignores them so far."""
        return self._with_inputs(lambda params: insert_inputs(params, self.config.bins.column(start), num))

    def with_bins(self, bins: SoftBins) -> "IQL":
        """The same networks of x from which `bins` make what this learner, which has none, sees."""
        actor, value = (net.replace(module=net.module.clone(bins=bins)) for net in (self.actor, self.value))
        critic = self.critic.replace(module=Pair(self.critic.module.module.clone(bins=bins)))
        return self.replace(actor=actor, value=value, critic=critic, config=replace(self.config, bins=bins))

    def fresh_critic(self, key: jax.Array) -> "IQL":
        """This learner with untrained critics and value."""
        first = self.actor.params["Dense_0"]["kernel"]  # It reads what the bins make of x.
        x, action = jnp.zeros((1, first.shape[0])), jnp.zeros((1, self.actor.module.action_dim))
        other = IQL.create(replace(self.config, bins=NO_BINS), x, action, key)
        return self._with_values(other.value.params, other.critic.params)

    def _with_inputs(self, change: Callable[[dict], dict]) -> "IQL":
        critic = {name: change(network) for name, network in self.critic.params.items()}
        learner = self._with_values(change(self.value.params), critic)
        return learner.replace(actor=self.actor.restart(change(self.actor.params)))

    def _with_values(self, value: dict, critic: dict) -> "IQL":
        """With these parameters, targets that are equal, and optimisers that begin anew."""
        return self.replace(
            value=self.value.restart(value), critic=self.critic.restart(critic), target=jax.tree.map(jnp.copy, critic)
        )

    def q(self, x: Array, action: Array, params) -> jax.Array:
        """(2, *B)."""
        return self.critic(jnp.concatenate([x, action], axis=-1), params=params)[..., 0]

    def update(
        self, x: Array, action: Array, reward: Array, discount: Array, next_x: Array, key: jax.Array
    ) -> tuple["IQL", Metrics]:
        """One step of value, critics, actor and targets. x (B, in), action (B, act), rest (B,)."""
        del key
        config = self.config
        target_q = jnp.min(self.q(x, action, self.target), axis=0)
        y = jax.lax.stop_gradient(reward + config.gamma * discount * self.value(next_x)[..., 0])
        q = jnp.min(self.q(x, action, None), axis=0) if config.online_advantage else target_q
        advantage = q - self.value(x)[..., 0]
        weight = jnp.minimum(jnp.exp(config.inverse_temperature * advantage), MAX_WEIGHT)
        target_q, weight = jax.lax.stop_gradient((target_q, weight))

        def value_loss(params):
            v = self.value(x, params=params)[..., 0]
            return jnp.mean(expectile_loss(target_q - v, config.expectile)), None

        def critic_loss(params):
            q = self.q(x, action, params)
            return jnp.sum(jnp.mean((q - y[None]) ** 2, axis=1)), jnp.mean(q)

        def actor_loss(params):
            return -jnp.mean(weight * self.actor(x, params=params).log_prob(action)), None

        value, v_loss, _ = self.value.minimise(value_loss)
        critic, q_loss, q_mean = self.critic.minimise(critic_loss)
        actor, pi_loss, _ = self.actor.minimise(actor_loss)
        metrics = {
            "value/loss": v_loss, "critic/loss": q_loss, "critic/q": q_mean, "actor/loss": pi_loss,
            "actor/weight": jnp.mean(weight),
        }  # fmt: skip
        target = soft_update(self.target, self.critic.params, config.tau)
        return self.replace(actor=actor, value=value, critic=critic, target=target), metrics
