"""Proximal policy optimisation (Schulman et al., 2017, https://arxiv.org/abs/1707.06347), as CSF's code runs it.

    delta_t = r_t + gamma * discount_t * V(x_{t+1}) - V(x_t)
    A_t     = delta_t + gamma * lambda * discount_t * A_{t+1}           with the value net as it was before the update
    G_t     = r_t + gamma * discount_t * G_{t+1}                        the value is fitted to it, not to A + V
    L_pi    = -mean[min(rho A, clip(rho, 1 - clip, 1 + clip) A) + entropy_coef * H(pi)],   rho = pi / pi_old
    L_V     = mean (V(x) - G)^2

Of CSF's code and not common: a round draws its rows with replacement, advantages are standardised within them, and
the value is fitted to the Monte-Carlo return. Where a rollout stops before its episode ends, both recursions start from
V of the last state. Actions are in [-1, 1] (tanh-normal) or one-hot (categorical).
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check
from urlrl.learners.nets import MLP, CategoricalPolicy, Model, TanhPolicy, xavier_normal
from urlrl.types import Array, Metrics


@dataclass(frozen=True)
class PPOConfig:
    width: int = 1024  # units of both hidden layers
    lr: float = 1e-4  # Adam, of policy and value
    gamma: float = 0.99  # discount per decision
    gae_lambda: float = 0.95  # share of later advantages
    clip: float = 0.2  # how far the ratio of probabilities may move
    entropy_coef: float = 0.01
    rounds: int = 10  # steps of policy and value per update
    batch: int = 256  # decisions per round

    def __post_init__(self):
        for name in ("width", "rounds", "batch"):
            check(name, getattr(self, name), 1)
        for name in ("lr", "clip"):
            check(name, getattr(self, name), 0, open_low=True)
        for name in ("gamma", "gae_lambda"):
            check(name, getattr(self, name), 0, 1)
        check("entropy_coef", self.entropy_coef, 0)


class Rollout(NamedTuple):
    """T decisions of n environments, by the policy that is to be improved."""

    x: Array  # (T, n, in)
    action: Array  # (T, n, act)
    reward: Array  # (T, n)
    discount: Array  # (T, n): 0 where the future counts nothing
    next_x: Array  # (T, n, in): what was reached, also where an episode ended


class PPO(struct.PyTreeNode):
    actor: Model
    value: Model
    config: PPOConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, config: PPOConfig, x: Array, action: Array, key: jax.Array, *, discrete: bool) -> "PPO":
        """`x` (1, in) and `action` (1, act) are examples; only their shapes matter."""
        actor_key, value_key = jax.random.split(key)
        policy = CategoricalPolicy if discrete else TanhPolicy
        return cls(
            actor=Model.create(policy(action.shape[-1], config.width), config.lr, actor_key, x),
            value=Model.create(MLP(1, config.width, kernel_init=xavier_normal), config.lr, value_key, x),
            config=config,
        )

    def advantages_and_returns(self, rollout: Rollout) -> tuple[jax.Array, jax.Array]:
        """A and G, (T, n)."""
        gamma, lam = self.config.gamma, self.config.gae_lambda
        value, next_value = self.value(rollout.x)[..., 0], self.value(rollout.next_x)[..., 0]
        delta = rollout.reward + gamma * rollout.discount * next_value - value

        def back(carry, row):
            advantage, ret = carry
            d, reward, discount = row
            carry = (d + gamma * lam * discount * advantage, reward + gamma * discount * ret)
            return carry, carry

        start = (jnp.zeros_like(delta[-1]), next_value[-1])
        _, (advantage, ret) = jax.lax.scan(back, start, (delta, rollout.reward, rollout.discount), reverse=True)
        return advantage, ret

    def update(self, rollout: Rollout, key: jax.Array) -> tuple["PPO", Metrics]:
        """`rounds` steps of policy, then value, each on rows drawn from the rollout."""
        advantage, ret = self.advantages_and_returns(rollout)
        log_prob = self.actor(rollout.x).log_prob(rollout.action)
        columns = (rollout.x, rollout.action, log_prob, advantage, ret)
        flat = jax.tree.map(lambda a: jnp.reshape(a, (-1, *a.shape[2:])), columns)

        def one_round(ppo, round_key):
            rows = jax.random.randint(round_key, (self.config.batch,), 0, flat[2].shape[0])
            return ppo._improve(*jax.tree.map(lambda a: a[rows], flat))

        ppo, metrics = jax.lax.scan(one_round, self, jax.random.split(key, self.config.rounds))
        return ppo, jax.tree.map(jnp.mean, metrics)

    def _improve(self, x, action, old_log_prob, advantage, ret) -> tuple["PPO", Metrics]:
        advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage, ddof=1) + 1e-8)

        def policy_loss(params):
            policy = self.actor(x, params=params)
            ratio = jnp.exp(policy.log_prob(action) - old_log_prob)
            clipped = jnp.clip(ratio, 1 - self.config.clip, 1 + self.config.clip)
            gain, entropy = jnp.minimum(ratio * advantage, clipped * advantage), policy.entropy()
            return -jnp.mean(gain + self.config.entropy_coef * entropy), jnp.mean(entropy)

        def value_loss(params):
            return jnp.mean((self.value(x, params=params)[..., 0] - ret) ** 2), None

        actor, pi_loss, entropy = self.actor.minimise(policy_loss)
        value, v_loss, _ = self.value.minimise(value_loss)
        metrics = {"actor/loss": pi_loss, "actor/entropy": entropy, "critic/loss": v_loss}
        return self.replace(actor=actor, value=value), metrics
