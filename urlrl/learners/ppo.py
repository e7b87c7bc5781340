"""Proximal policy optimisation (Schulman et al., 2017, https://arxiv.org/abs/1707.06347).

    delta_t = r_t + gamma * discount_t * V(x_{t+1}) - V(x_t)
    A_t     = delta_t + gamma * lambda * discount_t * goes_on_t * A_{t+1}         with the value net before the update
    L_pi    = -mean[min(rho A, clip(rho, 1 - clip, 1 + clip) A) + entropy_coef * H(pi)],   rho = pi / pi_old
    L_V     = mean (V(x) - G)^2,   the larger of it and the same of V_old + clip(V - V_old, -value_clip, value_clip)

`value_target` says what G is: "gae" A_t + V(x_t); "monte_carlo" the discounted sum of rewards to the episode's end.
Both recursions stop where an episode ended; where it or the rollout was cut short they go on from V of the last state.

The defaults are those of CSF's code: `rounds` batches of rows drawn with replacement, advantages standardised within
them, Monte-Carlo returns. With `epochs` every row is seen once in each of these, as in the paper. Actions are in
[-1, 1] (tanh-normal) or one-hot (categorical). Networks are MLPs, or with `image` convolutions.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import UserError, check, check_choice
from urlrl.learners.model import Model, check_network, filled
from urlrl.learners.nets import MLP, CategoricalPolicy, ConvNet, ConvPolicy, TanhPolicy, xavier_normal
from urlrl.types import Array, Metrics


@dataclass(frozen=True)
class PPOConfig:
    width: int | None = None  # units of both hidden layers, or of the one after convolutions; None: the agent's
    image: tuple[int, int] | None = None  # side and channels of images that x begins with, for convolutions; None: none
    lr: float | None = None  # Adam, of policy and value; None: the agent's
    gamma: float = 0.99  # discount per decision
    gae_lambda: float = 0.95  # share of later advantages
    clip: float = 0.2  # how far the ratio of probabilities may move
    entropy_coef: float = 0.01
    rounds: int = 10  # steps of policy and value per update, on rows drawn with replacement
    epochs: int = 0  # instead of rounds: passes over the rollout, less what is no whole batch; 0 is none
    batch: int = 256  # decisions per step
    value_target: Literal["monte_carlo", "gae"] = "monte_carlo"
    value_clip: float | None = None  # how far the value may move per update; None: as far as it likes
    max_grad_norm: float | None = None  # gradients of each network are scaled down to it; None: none is
    standardise: bool = True  # advantages, within each batch

    def __post_init__(self):
        check_network(self)
        if self.image is not None:
            side, channels = self.image
            check("image's side", side, 7)  # Of a smaller one the convolutions leave nothing.
            check("image's channels", channels, 1)
        for name in ("rounds", "batch"):
            check(name, getattr(self, name), 1)
        for name in ("gamma", "gae_lambda"):
            check(name, getattr(self, name), 0, 1)
        for name in ("entropy_coef", "epochs"):
            check(name, getattr(self, name), 0)
        for name in ("clip", "value_clip", "max_grad_norm"):
            check(name, getattr(self, name), 0, open_low=True)
        check_choice("value_target", self.value_target, get_args(Literal["monte_carlo", "gae"]))


class Rollout(NamedTuple):
    """T decisions of n environments, by the policy that is to be improved."""

    x: Array  # (T, n, in)
    action: Array  # (T, n, act)
    reward: Array  # (T, n)
    discount: Array  # (T, n): 0 where the future counts nothing
    next_x: Array | None  # (T, n, in): what was reached, also where an episode ended; None: x of the next row
    ended: Array  # (T, n), bool: the next row is of another episode
    real: Array | None = None  # (T, n), bool: rows that are there; None: all of them
    decisions: int | None = None  # how many rows to learn from, where not all are real; a fixed number


class Decisions(NamedTuple):
    """Rows of a rollout (B, ...), with what was known before the update."""

    x: Array
    action: Array
    log_prob: Array  # (B,): of the policy that acted
    value: Array  # (B,)
    advantage: Array  # (B,)
    ret: Array  # (B,): what the value is fitted to


class PPO(struct.PyTreeNode):
    actor: Model
    value: Model
    config: PPOConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, config: PPOConfig, x: Array, action: Array, key: jax.Array, within: Any = None) -> "PPO":
        """`x` (1, in) and `action` (1, act) are examples: only shapes matter, and that one-hot actions are bool.
        `within` is the agent's config that `config` is a part of, if it is one."""
        own = filled(config, within)
        actor_key, value_key = jax.random.split(key)
        (policy, value), norm = _networks(own.width, own.image, x, action), own.max_grad_norm
        return cls(
            actor=Model.create(policy, own.lr, actor_key, x, max_norm=norm),
            value=Model.create(value, own.lr, value_key, x, max_norm=norm),
            config=own,
        )

    def advantages_and_returns(self, rollout: Rollout) -> tuple[jax.Array, jax.Array]:
        """A and G, (T, n)."""
        gamma, lam = self.config.gamma, self.config.gae_lambda
        value = self.value(rollout.x)[..., 0]
        next_value = jnp.roll(value, -1, axis=0) if rollout.next_x is None else self.value(rollout.next_x)[..., 0]
        delta = rollout.reward + gamma * rollout.discount * next_value - value

        def back(carry, row):
            advantage, ret = carry
            d, reward, discount, ended, after = row
            advantage = d + gamma * lam * discount * jnp.where(ended, 0, advantage)
            ret = reward + gamma * discount * jnp.where(ended, after, ret)
            return (advantage, ret), (advantage, ret)

        start = (jnp.zeros_like(delta[-1]), next_value[-1])
        rows = (delta, rollout.reward, rollout.discount, rollout.ended, next_value)
        _, (advantage, ret) = jax.lax.scan(back, start, rows, reverse=True)
        return advantage, ret if self.config.value_target == "monte_carlo" else advantage + value

    def update(self, rollout: Rollout, key: jax.Array) -> tuple["PPO", Metrics]:
        """Steps of policy and value, each on a batch of the rollout's rows."""
        advantage, ret = self.advantages_and_returns(rollout)
        log_prob, value = self.actor(rollout.x).log_prob(rollout.action), self.value(rollout.x)[..., 0]
        columns = Decisions(rollout.x, rollout.action, log_prob, value, advantage, ret)
        flat = jax.tree.map(lambda a: jnp.reshape(a, (-1, *a.shape[2:])), columns)
        if rollout.real is None:
            batches = self._batches(advantage.size, key)
        else:
            real_key, key = jax.random.split(key)
            batches = self._batches(rollout.decisions or advantage.size, key)
            batches = _real_rows(jnp.asarray(rollout.real).reshape(-1), real_key)[batches]

        def step(ppo, rows):
            return ppo._improve(jax.tree.map(lambda a: a[rows], flat))

        ppo, metrics = jax.lax.scan(step, self, batches)
        if rollout.real is not None:  # There is nothing to learn from a rollout without one.
            ppo = jax.tree.map(partial(jnp.where, jnp.any(rollout.real)), ppo, self)
        return ppo, jax.tree.map(jnp.mean, metrics)

    def _batches(self, num_rows: int, key: jax.Array) -> jax.Array:
        """(steps, batch) rows."""
        config = self.config
        if not config.epochs:
            keys = jax.random.split(key, config.rounds)
            return jax.vmap(lambda k: jax.random.randint(k, (config.batch,), 0, num_rows))(keys)
        size = min(config.batch, num_rows)
        orders = jax.vmap(lambda k: jax.random.permutation(k, num_rows))(jax.random.split(key, config.epochs))
        return orders[:, : num_rows // size * size].reshape(-1, size)

    def _improve(self, rows: "Decisions") -> tuple["PPO", Metrics]:
        config, advantage = self.config, rows.advantage
        if config.standardise:
            advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage, ddof=1) + 1e-8)

        def policy_loss(params):
            policy = self.actor(rows.x, params=params)
            log_ratio = policy.log_prob(rows.action) - rows.log_prob
            ratio = jnp.exp(log_ratio)
            clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
            gain, entropy = jnp.minimum(ratio * advantage, clipped * advantage), policy.entropy()
            distance = jnp.mean(ratio - 1 - log_ratio)  # KL(old || new), http://joschu.net/blog/kl-approx.html
            return -jnp.mean(gain + config.entropy_coef * entropy), (jnp.mean(entropy), distance)

        def value_loss(params):
            value = self.value(rows.x, params=params)[..., 0]
            error = (value - rows.ret) ** 2
            if config.value_clip is not None:
                near = rows.value + jnp.clip(value - rows.value, -config.value_clip, config.value_clip)
                error = jnp.maximum(error, (near - rows.ret) ** 2)
            return jnp.mean(error), None

        actor, pi_loss, (entropy, distance) = self.actor.minimise(policy_loss)
        value, v_loss, _ = self.value.minimise(value_loss)
        metrics = {"actor/loss": pi_loss, "actor/entropy": entropy, "actor/kl": distance, "critic/loss": v_loss}
        return self.replace(actor=actor, value=value), metrics


def _networks(width: int, image: tuple[int, int] | None, x: Array, action: Array) -> tuple[nn.Module, nn.Module]:
    """Of policy and value, for such inputs and actions."""
    dim, onehot = action.shape[-1], action.dtype == bool
    if image is None:
        return (CategoricalPolicy if onehot else TanhPolicy)(dim, width), MLP(1, width, kernel_init=xavier_normal)
    if not onehot or x.shape[-1] < image[0] ** 2 * image[1]:
        raise UserError(
            f"image is {image}, and there are {x.shape[-1]} inputs and {'one-hot actions' if onehot else 'boxes'}: "
            f"expected None, or at least {image[0] ** 2 * image[1]} inputs and one-hot actions."
        )
    return ConvPolicy(dim, width, image), ConvNet(1, width, image)


def _real_rows(real: jax.Array, key: jax.Array) -> jax.Array:
    """(rows,): the numbers of those that are real, in a random order, and then again and again."""
    order = jnp.argsort(jnp.where(real, jax.random.uniform(key, real.shape), 2.0))
    return order[jnp.arange(real.size) % jnp.maximum(jnp.sum(real), 1)]
