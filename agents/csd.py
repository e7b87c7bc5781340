"""CSD: controllability-aware unsupervised skill discovery (Park et al., 2023).

https://arxiv.org/abs/2302.05103

METRA's machinery (agents/metra.py) with another distance: the less likely a step is under the skills so far, the longer
it is. So skills turn to what is hard to control:

    density  p(s' - s | s) = N(mu(s), diag sigma(s)^2)       max  mean[ log p ], detached from all else
    distance delta^2 = mean_i w_i ((s' - s)_i - mu_i)^2,      w_i = (GM_k(sigma_k) / sigma_i)^2, so that prod_i w_i = 1
    reward   r  = scale * dphi^T z,                           dphi = phi(s') - phi(s)
    phi      max  mean[ dphi^T z + lambda c ],                c = min(eps, delta^2 - mean_j dphi_j^2)
    lambda   min  log(lambda) mean(c)
    policy   SAC on r, recomputed with the new phi (learners/sac.py)

mean_i is over the entries of the normalised state, GM the geometric mean over them. phi and lambda see the density
from before its step.

These are the settings of METRA's code, which trains CSD on replayed steps, and the constants of CSD's own
(docs/fidelity.md#csd).
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.agents.metra import Metra, MetraConfig
from urlrl.errors import check
from urlrl.learners.model import Model, one_row
from urlrl.learners.nets import GaussianNet
from urlrl.types import Metrics, Transition


@dataclass(frozen=True)
class CSDConfig(MetraConfig):
    constraint_reduction: Literal["sum", "mean"] = "mean"  # of dphi^2 over the latent dimensions
    slack: float = 1e-6
    dual_init: float = 3000.0
    reward_scale: float = 10.0  # of the policy's reward

    def __post_init__(self):
        super().__post_init__()
        check("reward_scale", self.reward_scale, 0, open_low=True)


class CSD(Metra):
    density: Model  # of s' - s
    config: CSDConfig = struct.field(pytree_node=False)
    Config = CSDConfig

    @classmethod
    def create(cls, config: Any, example: Transition, key: jax.Array) -> "CSD":
        """`example` is one transition or a batch; only its shapes matter."""
        metra_key, density_key = jax.random.split(key)
        obs, _ = one_row(example)
        density = Model.create(GaussianNet(obs.shape[-1], config.width), config.lr, density_key, obs)
        metra = Metra.create(config, example, metra_key)
        return cls(metra.phi, metra.dual, metra.sac, metra.normalizer, config, density=density)

    @property
    def pay(self) -> float:
        """What a unit of dphi^T direction(z) pays."""
        return self.config.reward_scale

    def _represent(self, batch: Transition, key: jax.Array) -> tuple[Self, Metrics]:
        """A step of phi, one of lambda, then one of the density; observations are normalised."""
        agent, metrics = super()._represent(batch, key)
        step = batch.next_obs - batch.obs

        def loss(params):
            return -jnp.mean(self.density(batch.obs, params=params).log_prob(step)), ()

        density, nll, _ = self.density.minimise(loss)
        distance = jnp.mean(self._limit(batch))
        return agent.replace(density=density), {**metrics, "density/nll": nll, "phi/distance_sq": distance}

    def _limit(self, batch: Transition) -> jax.Array:
        """delta^2, (B,)."""
        given = self.density(batch.obs)
        log_w = 2 * (jnp.mean(given.log_std, axis=-1, keepdims=True) - given.log_std)
        return jnp.mean(jnp.exp(log_w) * (batch.next_obs - batch.obs - given.mean) ** 2, axis=-1)
