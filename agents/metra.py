"""METRA: scalable unsupervised RL with metric-aware abstraction (Park, Rybkin, Levine, 2024).

https://arxiv.org/abs/2310.08887

Skills z move the agent along a learned latent phi, and phi is bounded by temporal distance:

    max_{pi, phi}  E[ sum_t (phi(s_{t+1}) - phi(s_t))^T z ]     s.t.  |phi(s) - phi(s')|^2 <= 1  for neighbours s, s'

    reward   r  = dphi^T z,                      dphi = phi(s') - phi(s)
    phi      max  mean[ r + lambda c ],          c = min(eps, 1 - q),  q = sum_j dphi_j^2
    lambda   min  log(lambda) mean(c)            detached c, taken before phi moved
    policy   SAC on r, recomputed with the new phi (learners/sac.py)

The order of an update is in learners/skill_agent.py, how prompts become skills in learners/latent_tasks.py.

Differences between the paper and its released code; presets named `*-paper` follow the code (docs/fidelity.md#metra):
- `constraint_reduction="mean"`: the code has q = mean_j dphi_j^2, so it enforces |dphi| <= sqrt(d). The paper: "sum".
- `batch.timeout_as_terminal=True`: the code stores a time limit as a terminal and does not bootstrap there.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check, check_choice
from urlrl.learners.latent_tasks import LatentTasks
from urlrl.learners.model import Model, PositiveScalar, one_row
from urlrl.learners.nets import MLP
from urlrl.learners.sac import SAC
from urlrl.learners.skill_agent import SkillConfig
from urlrl.learners.statistics import Normalizer
from urlrl.types import Metrics, Transition

REDUCTIONS = {"sum": jnp.sum, "mean": jnp.mean}


@dataclass(frozen=True)
class MetraConfig(SkillConfig):
    constraint_reduction: Literal["sum", "mean"] = "sum"  # q over the latent dimensions: the paper's, the code's
    slack: float = 1e-3  # eps: lets lambda shrink where the constraint holds
    dual_init: float = 30.0  # initial lambda

    def __post_init__(self):
        super().__post_init__()
        check_choice("constraint_reduction", self.constraint_reduction, REDUCTIONS)
        check("slack", self.slack, 0)
        check("dual_init", self.dual_init, 0, open_low=True)


class Metra(LatentTasks, struct.PyTreeNode):
    phi: Model
    dual: PositiveScalar  # lambda
    sac: SAC
    normalizer: Normalizer
    config: MetraConfig = struct.field(pytree_node=False)
    Config = MetraConfig

    abilities = LatentTasks.abilities | {"constrained"}

    @classmethod
    def create(cls, config: MetraConfig, example: Transition, key: jax.Array) -> "Metra":
        """`example` is one transition or a batch; only its shapes matter."""
        phi_key, sac_key = jax.random.split(key)
        obs, action = one_row(example)
        return cls(
            phi=Model.create(MLP(config.z.dim, config.width), config.lr, phi_key, obs),
            dual=PositiveScalar.create(config.dual_init, config.lr),
            sac=SAC.create(config.sac, config.policy_example(obs), action, sac_key, config),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    def _represent(self, batch: Transition, key: jax.Array) -> tuple["Metra", Metrics]:
        """A step of phi, and one of lambda; observations are normalised."""
        del key
        direction = self.config.z.direction(batch.z)

        def loss(params):
            dphi = self._dphi(batch, params)
            q = self._step_sq(dphi)
            c = jnp.minimum(self.config.slack, 1 - q)
            objective = jnp.sum(dphi * direction, axis=-1) + jax.lax.stop_gradient(self.dual.value) * c
            return -jnp.mean(objective), (jnp.mean(c), jnp.mean(q))

        phi, phi_loss, (c, q) = self.phi.minimise(loss)
        metrics = {"phi/loss": phi_loss, "phi/step_sq": q, "phi/slack": c, "phi/lambda": self.dual.value}
        return self.replace(phi=phi, dual=self.dual.minimise(c)), metrics

    def _step_sq(self, dphi: jax.Array) -> jax.Array:
        """q, (*B,)."""
        return REDUCTIONS[self.config.constraint_reduction](dphi**2, axis=-1)

    def constraint(self, batch: Transition) -> jax.Array:
        """1 - q of raw transitions, (*B,): the constraint keeps it at 0 or above."""
        return 1 - self._step_sq(self._latent_step(batch))
