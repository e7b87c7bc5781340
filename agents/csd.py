"""CSD: controllability-aware unsupervised skill discovery (Park et al., 2023).

https://arxiv.org/abs/2302.05103

Skills z move the agent along a learned latent phi, as in METRA, but the less likely a step is under the skills so far,
the longer it is. So skills turn to what is hard to control:

    density  p(s' - s | s) = N(mu(s), diag sigma(s)^2)       max  mean[ log p ]
    distance delta^2 = mean_i w_i ((s' - s)_i - mu_i)^2,      w_i = (GM_k(sigma_k) / sigma_i)^2, so that prod_i w_i = 1
    reward   r  = scale * dphi^T z,                           dphi = phi(s') - phi(s)
    phi      max  mean[ dphi^T z + lambda c ],                c = min(eps, delta^2 - mean_j dphi_j^2)
    lambda   min  log(lambda) mean(c)                         detached c, taken before phi moved
    policy   SAC on r, recomputed with the new phi (learners/sac.py)

mean_i is over the entries of the normalised state, GM the geometric mean over them. phi and lambda see the density
from before its step, and do not train it.

METRA's code has this agent too, without the scale. Ours has the constants of CSD's own code, and learns from replayed
steps as METRA's does (docs/fidelity.md#csd).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check
from urlrl.learners.latent_tasks import LatentTasks
from urlrl.learners.model import Model, PositiveScalar, one_row
from urlrl.learners.nets import MLP, GaussianNet
from urlrl.learners.sac import SAC
from urlrl.learners.skill_agent import SkillConfig
from urlrl.learners.statistics import Normalizer
from urlrl.types import Metrics, Transition


@dataclass(frozen=True)
class CSDConfig(SkillConfig):
    slack: float = 1e-6  # eps: lets lambda shrink where the constraint holds
    dual_init: float = 3000.0  # initial lambda
    reward_scale: float = 10.0  # of the policy's reward

    def __post_init__(self):
        super().__post_init__()
        check("slack", self.slack, 0)
        check("dual_init", self.dual_init, 0, open_low=True)
        check("reward_scale", self.reward_scale, 0, open_low=True)


class CSD(LatentTasks, struct.PyTreeNode):
    phi: Model
    dual: PositiveScalar  # lambda
    density: Model  # of s' - s
    sac: SAC
    normalizer: Normalizer
    config: CSDConfig = struct.field(pytree_node=False)
    Config = CSDConfig

    abilities = LatentTasks.abilities | {"constrained"}

    @classmethod
    def create(cls, config: CSDConfig, example: Transition, key: jax.Array) -> "CSD":
        """`example` is one transition or a batch; only its shapes matter."""
        phi_key, density_key, sac_key = jax.random.split(key, 3)
        obs, action = one_row(example)
        return cls(
            phi=Model.create(MLP(config.z.dim, config.width), config.lr, phi_key, obs),
            dual=PositiveScalar.create(config.dual_init, config.lr),
            density=Model.create(GaussianNet(obs.shape[-1], config.width), config.lr, density_key, obs),
            sac=SAC.create(config.sac, config.policy_example(obs), action, sac_key, config),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    @property
    def pay(self) -> float:
        """What a unit of dphi^T direction(z) pays."""
        return self.config.reward_scale

    def _represent(self, batch: Transition, key: jax.Array) -> tuple["CSD", Metrics]:
        """A step of phi, one of lambda, then one of the density; observations are normalised."""
        del key
        direction, distance, step = self.config.z.direction(batch.z), self._distance(batch), batch.next_obs - batch.obs

        def phi_loss(params):
            dphi = self._dphi(batch, params)
            q = jnp.mean(dphi**2, axis=-1)
            c = jnp.minimum(self.config.slack, distance - q)
            objective = jnp.sum(dphi * direction, axis=-1) + jax.lax.stop_gradient(self.dual.value) * c
            return -jnp.mean(objective), (jnp.mean(c), jnp.mean(q))

        def density_loss(params):
            return -jnp.mean(self.density(batch.obs, params=params).log_prob(step)), ()

        phi, loss, (c, q) = self.phi.minimise(phi_loss)
        density, nll, _ = self.density.minimise(density_loss)
        metrics = {
            "phi/loss": loss,
            "phi/step_sq": q,
            "phi/slack": c,
            "phi/lambda": self.dual.value,
            "phi/distance_sq": jnp.mean(distance),
            "density/nll": nll,
        }
        return self.replace(phi=phi, dual=self.dual.minimise(c), density=density), metrics

    def constraint(self, batch: Transition) -> jax.Array:
        """delta^2 - mean_j dphi_j^2 of raw transitions, (*B,): the constraint keeps it at 0 or above."""
        batch = self._normalized(batch)
        return self._distance(batch) - jnp.mean(self._dphi(batch) ** 2, axis=-1)

    def _distance(self, batch: Transition) -> jax.Array:
        """delta^2, (*B,)."""
        given = self.density(batch.obs)
        log_w = 2 * (jnp.mean(given.log_std, axis=-1, keepdims=True) - given.log_std)
        return jnp.mean(jnp.exp(log_w) * (batch.next_obs - batch.obs - given.mean) ** 2, axis=-1)
