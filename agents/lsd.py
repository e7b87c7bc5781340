"""LSD: Lipschitz-constrained unsupervised skill discovery (Park et al., 2022).

https://arxiv.org/abs/2202.00914

Skills z move the agent along a learned latent phi, and phi is 1-Lipschitz in the state, so that far in latent space is
far in the world:

    reward   r  = dphi^T z,                        dphi = phi(s') - phi(s)
    phi      max  mean[ r ]                        every matrix W of phi is W / sigma(W)
    policy   SAC on r, recomputed with the new phi (learners/sac.py)

sigma(W) is the largest singular value, by a power iteration that goes on from update to update:

    u <- W^T W u / |W^T W u|,    sigma = |W u|     with the gradient through W only

Distance is that of normalised observations: the normaliser is part of the algorithm, and says which way is far.

These are the settings of METRA's code, which trains LSD on replayed steps. LSD's own code makes 4 updates on 2,048
steps of the present policy for each 20 episodes (docs/fidelity.md#lsd).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check
from urlrl.learners.latent_tasks import LatentTasks
from urlrl.learners.model import Model, one_row
from urlrl.learners.nets import MLP
from urlrl.learners.sac import SAC
from urlrl.learners.skill_agent import SkillConfig
from urlrl.learners.statistics import Normalizer
from urlrl.types import Metrics, Transition

Vectors = dict[str, jax.Array]  # of each layer, u (out,)


@dataclass(frozen=True)
class LSDConfig(SkillConfig):
    power_iterations: int = 4  # of each update

    def __post_init__(self):
        super().__post_init__()
        check("power_iterations", self.power_iterations, 1)


class LSD(LatentTasks, struct.PyTreeNode):
    phi: Model
    vectors: Vectors
    sac: SAC
    normalizer: Normalizer
    config: LSDConfig = struct.field(pytree_node=False)
    Config = LSDConfig

    abilities = LatentTasks.abilities | {"constrained"}

    @classmethod
    def create(cls, config: LSDConfig, example: Transition, key: jax.Array) -> "LSD":
        """`example` is one transition or a batch; only its shapes matter."""
        phi_key, sac_key, vector_key = jax.random.split(key, 3)
        obs, action = one_row(example)
        phi = Model.create(MLP(config.z.dim, config.width), config.lr, phi_key, obs)
        return cls(
            phi=phi,
            vectors=start_vectors(phi.params, vector_key),
            sac=SAC.create(config.sac, config.policy_example(obs), action, sac_key, config),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    def _represent(self, batch: Transition, key: jax.Array) -> tuple["LSD", Metrics]:
        """A step of phi; observations are normalised."""
        del key
        agent = self.replace(vectors=iterated(self.phi.params, self.vectors, self.config.power_iterations))
        direction = self.config.z.direction(batch.z)

        def loss(params):
            dphi = agent._dphi(batch, params)
            return -jnp.mean(jnp.sum(dphi * direction, axis=-1)), jnp.mean(jnp.sum(dphi**2, axis=-1))

        phi, phi_loss, q = self.phi.minimise(loss)
        length = jnp.linalg.norm(batch.next_obs - batch.obs, axis=-1)
        return agent.replace(phi=phi), {"phi/loss": phi_loss, "phi/step_sq": q, "phi/state_step": jnp.mean(length)}

    def _phi_params(self, params: Any = None) -> Any:
        return bounded(super()._phi_params(params), self.vectors)

    def constraint(self, batch: Transition) -> jax.Array:
        """|s' - s| - |dphi| of raw transitions, in normalised units, (*B,): the constraint keeps it at 0 or above."""
        batch = self._normalized(batch)
        length, latent = (jnp.linalg.norm(x, axis=-1) for x in (batch.next_obs - batch.obs, self._dphi(batch)))
        return length - latent


def start_vectors(params: Any, key: jax.Array) -> Vectors:
    """Random unit vectors."""
    keys = jax.random.split(key, len(params))
    drawn = {name: jax.random.normal(k, params[name]["bias"].shape) for name, k in zip(sorted(params), keys)}
    return {name: u / jnp.linalg.norm(u) for name, u in drawn.items()}


def iterated(params: Any, vectors: Vectors, times: int) -> Vectors:
    """After so many power iterations."""

    def iterate(w: jax.Array, u: jax.Array) -> jax.Array:
        for _ in range(times):
            u = w.T @ (w @ u)
            u = u / jnp.maximum(jnp.linalg.norm(u), 1e-12)
        return u

    return {name: iterate(params[name]["kernel"], u) for name, u in vectors.items()}


def bounded(params: Any, vectors: Vectors) -> Any:
    """With each kernel (in, out) divided by |kernel u|, its largest singular value once u has converged."""

    def of(layer: Any, u: jax.Array) -> Any:
        sigma = jnp.sqrt(jnp.maximum(jnp.sum((layer["kernel"] @ u) ** 2), 1e-24))  # The root has a gradient at 0 too.
        return {**layer, "kernel": layer["kernel"] / sigma}

    return {name: of(layer, vectors[name]) for name, layer in params.items()}
