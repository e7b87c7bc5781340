"""CSF: contrastive successor features, can a MISL fly? (Zheng et al., 2024).

https://arxiv.org/abs/2412.08021

METRA's reward, a representation that tells which skill made a step, and a policy that learns from successor features
where others have values:

    phi      max  mean[ dphi^T z - xi log sum_j exp(dphi^T z_j) ],    z_j ~ prior, N for the whole batch
    psi_k    y = dphi + gamma discount psibar_k*(x', a'),              a' ~ pi(.|x'), k* = argmin_k psibar_k(x', a')^T z
             min  sum_k mean (psi_k(x, a) - y)^2                       mean over steps and dimensions, no entropy in y
    policy   min  mean[ alpha log pi(a|x) - min_k psi_k(x, a)^T z ]
    alpha    as in learners/sac.py

dphi = phi(s') - phi(s) with the phi that was just updated; targets follow psi before the policy's step. With xi <= 1
nothing bounds |dphi|, and few negatives bound it weakly. It is prompted as METRA is (learners/latent_tasks.py), with
rewards too: psi^T w is their value.

The released code ignores all ends; ours ends the future at an end that is no time limit (docs/fidelity.md#csf).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check
from urlrl.learners.latent_tasks import LatentTasks, Maximise
from urlrl.learners.model import Model, PositiveScalar, filled, one_row, soft_update
from urlrl.learners.nets import MLP, Critics, Pair, TanhPolicy, xavier_normal
from urlrl.learners.sac import SAC, SACConfig, improve_actor
from urlrl.learners.skill_agent import SkillConfig
from urlrl.learners.statistics import Normalizer
from urlrl.types import Array, Metrics, Transition


@dataclass(frozen=True)
class CSFConfig(SkillConfig):
    xi: float = 5.0  # weight of the negatives; above 1
    negatives: int = 256  # N

    def __post_init__(self):
        super().__post_init__()
        check("xi", self.xi, 1, open_low=True)
        check("negatives", self.negatives, 2)


class SuccessorSAC(struct.PyTreeNode):
    """SAC whose two critics are successor features psi, (2, *B, d)."""

    actor: Model
    critic: Model  # psi, of x and action as one vector
    target: dict  # parameters of psi, averaged
    alpha: PositiveScalar
    config: SACConfig = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls, config: SACConfig, dim: int, x: Array, action: Array, key: jax.Array, within: Any
    ) -> "SuccessorSAC":
        """`x` (1, in) and `action` (1, act) are examples; only their shapes matter."""
        own = filled(config, within)
        actor_key, critic_key = jax.random.split(key)
        psi = Pair(MLP(dim, own.width, kernel_init=xavier_normal))
        critic = Model.create(psi, own.lr, critic_key, jnp.concatenate([x, action], axis=-1))
        return cls(
            actor=Model.create(TanhPolicy(action.shape[-1], own.width), own.lr, actor_key, x),
            critic=critic,
            target=jax.tree.map(jnp.copy, critic.params),
            alpha=PositiveScalar.create(own.alpha, own.lr),
            config=own,
        )

    def psi(self, x: Array, action: Array, params: Any = None) -> jax.Array:
        """(2, *B, d)"""
        return self.critic(jnp.concatenate([x, action], axis=-1), params=params)

    def td_target(self, dphi: Array, z: Array, discount: Array, next_x: Array, key: jax.Array) -> jax.Array:
        """y, (B, d): the whole vector of the head that promises less along z."""
        next_action, _ = self.actor(next_x).sample_and_log_prob(key)
        psi = self.psi(next_x, next_action, params=self.target)
        return jnp.asarray(dphi) + self.config.gamma * discount[:, None] * lower(psi, z)

    def update(
        self, x: Array, action: Array, dphi: Array, z: Array, discount: Array, next_x: Array, key: jax.Array
    ) -> tuple["SuccessorSAC", Metrics]:
        """One step of psi, targets, actor and temperature, in this order. dphi and z (B, d)."""
        target_key, actor_key = jax.random.split(key)
        y = jax.lax.stop_gradient(self.td_target(dphi, z, discount, next_x, target_key))

        def psi_loss(params):
            psi = self.psi(x, action, params=params)
            return jnp.sum(jnp.mean((psi - y[None]) ** 2, axis=(1, 2))), jnp.mean(jnp.sum(psi * z[None], axis=-1))

        critic, critic_loss, q_mean = self.critic.minimise(psi_loss)
        target = soft_update(self.target, critic.params, self.config.tau)
        after = self.replace(critic=critic, target=target)

        def value(new_action):
            return jnp.min(jnp.sum(after.psi(x, new_action) * z[None], axis=-1), axis=0)

        actor, alpha, metrics = improve_actor(self, x, actor_key, value)
        metrics = {"critic/loss": critic_loss, "critic/q": q_mean, **metrics}
        return after.replace(actor=actor, alpha=alpha), metrics

    def along(self, z: Array) -> SAC:
        """SAC whose critics are psi^T z, for one z (d,): the last layer takes z in. Their optimiser begins anew."""

        def folded(network: Any) -> Any:
            *_, last = sorted(network)
            layer = network[last]
            return {**network, last: {"kernel": layer["kernel"] @ z[:, None], "bias": (layer["bias"] @ z)[None]}}

        params = {f"MLP_{i}": folded(self.critic.params[f"copy_{i}"]) for i in range(2)}
        module = Critics(self.critic.module.module.width)
        critic = Model(params=params, opt_state=self.critic.tx.init(params), module=module, tx=self.critic.tx)
        return SAC(
            actor=self.actor,
            critic=critic,
            target=jax.tree.map(jnp.copy, params),
            alpha=self.alpha,
            config=self.config,
        )


def lower(psi: Array, z: Array) -> jax.Array:
    """(2, B, d), (B, d) -> (B, d): of two vectors the one whose product with z is smaller."""
    first, second = psi[0], psi[1]
    less = jnp.sum(first * z, axis=-1) <= jnp.sum(second * z, axis=-1)
    return jnp.where(less[..., None], first, second)


class CSF(LatentTasks, struct.PyTreeNode):
    phi: Model
    sac: SuccessorSAC
    normalizer: Normalizer
    config: CSFConfig = struct.field(pytree_node=False)
    Config = CSFConfig

    @classmethod
    def create(cls, config: CSFConfig, example: Transition, key: jax.Array) -> "CSF":
        """`example` is one transition or a batch; only its shapes matter."""
        phi_key, sac_key = jax.random.split(key)
        obs, action = one_row(example)
        x, dim = config.policy_example(obs), config.z.dim
        return cls(
            phi=Model.create(MLP(dim, config.width), config.lr, phi_key, obs),
            sac=SuccessorSAC.create(config.sac, dim, x, action, sac_key, config),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    def _improve_policy(self, batch: Transition, reward_key: jax.Array, key: jax.Array) -> tuple[SuccessorSAC, Metrics]:
        """Psi and the policy after a step on the dphi of now."""
        dphi, direction = self._dphi(batch), self.config.z.direction(batch.z)
        x, next_x = self._policy_input(batch.obs, batch.z), self._policy_input(batch.next_obs, batch.z)
        sac, metrics = self.sac.update(x, batch.action, dphi, direction, batch.discount, next_x, key)
        return sac, {**metrics, "reward/intrinsic": jnp.mean(self._reward(batch, reward_key))}

    def _represent(self, batch: Transition, key: jax.Array) -> tuple["CSF", Metrics]:
        """A step of phi; observations are normalised."""
        space = self.config.z
        direction = space.direction(batch.z)
        others = space.direction(space.sample(key, self.config.negatives))

        def loss(params):
            dphi = self._dphi(batch, params)
            contrast = jax.nn.logsumexp(dphi @ others.T, axis=-1)
            objective = jnp.sum(dphi * direction, axis=-1) - self.config.xi * contrast
            return -jnp.mean(objective), jnp.mean(jnp.sum(dphi**2, axis=-1))

        phi, phi_loss, q = self.phi.minimise(loss)
        return self.replace(phi=phi), {"phi/loss": phi_loss, "phi/step_sq": q}

    def learner(self, z: Array, key: jax.Array) -> SAC:
        """As other skill agents have it, with critics psi^T z."""
        return LatentTasks.learner(self.replace(sac=self.sac.along(self.config.z.direction(z))), z, key)

    def predict_return(self, task: Maximise, obs: Array) -> jax.Array:
        """The discounted return from these states, (*B,), without end: psi^T w, by the head that promises less of the
        skill, and the offset's share."""
        z = self.aim(task, obs)
        x = self._policy_input(self.normalizer(obs), z)
        psi = self.sac.psi(x, self.sac.actor(x).mode())
        return lower(psi, self.config.z.direction(z)) @ task.w + task.offset / (1 - self.gamma)

    def reliability(self, task: Maximise, steps: Transition, seen: Transition, key: jax.Array) -> Metrics:
        """`too_low_by`: of predictions, by design. Targets take the vector that promises less along z. Along w it is
        lower than the mean of both by half their difference, in each of 1 / (1 - gamma) steps like these."""
        del seen
        z = self.aim(task, steps.obs)
        x = self._policy_input(self.normalizer(steps.obs), z)
        psi = self.sac.psi(x, self.sac.actor(x).sample(key))
        less = (jnp.mean(psi, axis=0) - lower(psi, self.config.z.direction(z))) @ task.w
        return {"too_low_by": jnp.mean(less) / (1 - self.gamma)}
