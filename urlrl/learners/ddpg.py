"""Deep deterministic policy gradient (Lillicrap et al., 2016, https://arxiv.org/abs/1509.02971) as URLB runs it.

    y     = r + gamma * discount * min_k Qbar_k(x', a'),            a' = pi(x') + clipped noise, of the online policy
    L_Q   = mean (Q_1 - y)^2 + mean (Q_2 - y)^2
    L_pi  = -mean min_k Q_k(x, pi(x) + clipped noise),               Q_k after their step

Noise has a constant standard deviation, 0.2, and is clipped at 0.3 while learning. There is no entropy, no delayed
actor and no target actor. URLB's returns of three steps are of one here: with an intrinsic reward that is computed
anew for each batch, three steps would count one reward for a jump.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check_all
from urlrl.learners.embed import DDPGCritics, DDPGPolicy
from urlrl.learners.model import Model, check_network, filled, soft_update
from urlrl.learners.surgery import fold_input, insert_inputs
from urlrl.types import Array, Metrics


@dataclass(frozen=True)
class DDPGConfig:
    width: int | None = None  # units of the embedding and of the hidden layer; None: the agent's
    lr: float | None = None  # Adam, of actor and critics; None: the agent's
    gamma: float = 0.99  # discount per step
    tau: float = 0.01  # target critics: share of the online critics per update
    noise: float = 0.2  # standard deviation of the exploration noise
    noise_clip: float = 0.3  # its largest size while learning

    def __post_init__(self):
        check_network(self)
        check_all(self, "gamma", "tau", low=0, high=1)
        check_all(self, "noise", "noise_clip", low=0)


class DDPG(struct.PyTreeNode):
    actor: Model
    critic: Model
    target: dict  # critic parameters, averaged
    config: DDPGConfig = struct.field(pytree_node=False)
    acts_by = ("actor",)

    @classmethod
    def create(cls, config: DDPGConfig, x: Array, action: Array, key: jax.Array, within: Any = None) -> "DDPG":
        """`x` (1, in) and `action` (1, act) are examples; only their shapes matter. `within` is the agent's config that
        `config` is a part of, if it is one."""
        own = filled(config, within)
        actor_key, critic_key = jax.random.split(key)
        policy = DDPGPolicy(action.shape[-1], own.width, own.noise, own.noise_clip)
        critic = Model.create(DDPGCritics(own.width), own.lr, critic_key, x, action)
        return cls(
            actor=Model.create(policy, own.lr, actor_key, x),
            critic=critic,
            target=jax.tree.map(jnp.copy, critic.params),  # A copy: an alias cannot be donated.
            config=own,
        )

    def insert_inputs(self, start: int, num: int) -> "DDPG":
        """A learner that starts here and sees `num` further inputs at `start` of x, and ignores them so far. Its
        targets are its critics, its optimisers begin anew."""
        return self._with_inputs(lambda params, layers: insert_inputs(params, start, num, layers))

    def hold_input(self, start: int, values: Array) -> "DDPG":
        """A learner that starts from this one with the inputs [start, start + len(values)) of x held at `values`, and
        no longer sees them."""
        return self._with_inputs(lambda params, layers: fold_input(params, start, values, layers))

    def fresh_critic(self, key: jax.Array) -> "DDPG":
        """This learner with untrained critics."""
        kernel = self.actor.params["Dense_0"]["kernel"]
        x = jnp.zeros((1, kernel.shape[0]), kernel.dtype)
        action = jnp.zeros((1, self.actor.module.action_dim), kernel.dtype)
        critic = self.critic.restart(self.critic.module.init(key, x, action)["params"])
        return self.replace(critic=critic, target=jax.tree.map(jnp.copy, critic.params))

    def _with_inputs(self, change: Callable[[dict, tuple[str, ...]], dict]) -> "DDPG":
        """`change` maps parameters and the names of the layers that read x."""
        actor, critic = (change(net.params, net.module.input_layers) for net in (self.actor, self.critic))
        return self.replace(
            actor=self.actor.restart(actor), critic=self.critic.restart(critic), target=jax.tree.map(jnp.copy, critic)
        )

    def td_target(self, reward: Array, discount: Array, next_x: Array, key: jax.Array) -> jax.Array:
        """y, (B,)."""
        next_q = jnp.min(self.critic(next_x, self.actor(next_x).smoothed(key), params=self.target), axis=0)
        return jnp.asarray(reward) + self.config.gamma * discount * next_q

    def update(
        self, x: Array, action: Array, reward: Array, discount: Array, next_x: Array, key: jax.Array
    ) -> tuple["DDPG", Metrics]:
        """One step of critics, actor and targets, in this order. x (B, in), action (B, act), rest (B,)."""
        target_key, actor_key = jax.random.split(key)
        y = jax.lax.stop_gradient(self.td_target(reward, discount, next_x, target_key))

        def critic_loss(params):
            q = self.critic(x, action, params=params)
            return jnp.sum(jnp.mean((q - y[None]) ** 2, axis=1)), jnp.mean(q)

        critic, q_loss, q_mean = self.critic.minimise(critic_loss)

        def actor_loss(params):
            return -jnp.mean(jnp.min(critic(x, self.actor(x, params=params).smoothed(actor_key)), axis=0)), None

        actor, pi_loss, _ = self.actor.minimise(actor_loss)
        target = soft_update(self.target, critic.params, self.config.tau)
        metrics = {"critic/loss": q_loss, "critic/q": q_mean, "actor/loss": pi_loss}
        return self.replace(actor=actor, critic=critic, target=target), metrics
