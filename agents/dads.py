"""DADS: dynamics-aware discovery of skills (Sharma et al., 2020), from replayed steps.

https://arxiv.org/abs/1907.01657, https://arxiv.org/abs/2004.12974

Skills are paid for steps that can be foretold when the skill is known, and could not be without it:

    y        = BN(s' - s)                                                 a batch norm of steps, without a scale
    dynamics max  mean[ log q(y | BN(s), z) ],  q = N(mean(BN(s), z), I)  over steps that go on
    reward   r = log(L + 1) - log(1 + sum_j exp(clip(log q(y|s, z_j) - log q(y|s, z), -50, 50))),   z_j ~ prior
    policy   SAC on r, recomputed with the new dynamics (learners/sac.py)

The batch norms use a batch's own statistics when the dynamics learn, and running ones in the reward. It follows no
prompts; for a reward, skills are tried (`urlrl adapt --method z_search`).

Settings are those of METRA's code; the original plans over skills and predicts x and y apart (docs/fidelity.md#dads).
Where skills are indices, each one's density is computed once and the draws choose among them: the same numbers.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check
from urlrl.learners.distributions import Gaussian
from urlrl.learners.model import Model, one_row
from urlrl.learners.nets import MLP
from urlrl.learners.sac import SAC
from urlrl.learners.skill_agent import SkillAgent, SkillConfig
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.types import Array, Metrics, Transition

EPS, MOMENTUM, CLIP = 1e-5, 0.01, 50.0


@dataclass(frozen=True)
class DADSConfig(SkillConfig):
    z: SkillSpace = SkillSpace("gaussian", 2)  # prior over skills
    alternatives: int = 100  # L

    def __post_init__(self):
        super().__post_init__()
        check("alternatives", self.alternatives, 1)


class BatchNorm(struct.PyTreeNode):
    """Running mean and variance of batches, (n,); there is no scale to learn."""

    mean: jax.Array
    var: jax.Array

    @classmethod
    def create(cls, dim: int) -> "BatchNorm":
        return cls(jnp.zeros(dim), jnp.ones(dim))

    def __call__(self, rows: Array) -> jax.Array:
        """By the running statistics."""
        return (jnp.asarray(rows) - self.mean[None]) * jax.lax.rsqrt(self.var + EPS)[None]

    def of_batch(self, rows: Array) -> tuple[jax.Array, "BatchNorm"]:
        """By the batch's own, of rows (B, n); and the running ones after it, whose variance is unbiased."""
        mean, var = jnp.mean(rows, axis=0), jnp.var(rows, axis=0)
        unbiased = var * (len(rows) / max(len(rows) - 1, 1))
        running = (1 - MOMENTUM) * self.mean + MOMENTUM * mean, (1 - MOMENTUM) * self.var + MOMENTUM * unbiased
        return BatchNorm(mean, var)(rows), BatchNorm(*running)


class DADS(SkillAgent, struct.PyTreeNode):
    dynamics: Model  # mean of y
    state_norm: BatchNorm  # of s
    step_norm: BatchNorm  # of s' - s
    sac: SAC
    normalizer: Normalizer
    config: DADSConfig = struct.field(pytree_node=False)
    Config = DADSConfig

    @classmethod
    def create(cls, config: DADSConfig, example: Transition, key: jax.Array) -> "DADS":
        """`example` is one transition or a batch; only its shapes matter."""
        own_key, sac_key = jax.random.split(key)
        obs, action = one_row(example)
        dim = obs.shape[-1]
        given = jnp.zeros((1, dim + config.z.dim))
        return cls(
            dynamics=Model.create(MLP(dim, config.width), config.lr, own_key, given),
            state_norm=BatchNorm.create(dim),
            step_norm=BatchNorm.create(dim),
            sac=SAC.create(config.sac, config.policy_example(obs), action, sac_key, config),
            normalizer=Normalizer.identity(dim),
            config=config,
        )

    def _represent(self, batch: Transition, key: jax.Array) -> tuple["DADS", Metrics]:
        """A step of the dynamics; observations are normalised."""
        del key
        states, state_norm = self.state_norm.of_batch(batch.obs)
        steps, step_norm = self.step_norm.of_batch(batch.next_obs - batch.obs)
        goes_on = jnp.float32(batch.discount > 0)

        def loss(params):
            mean = self.dynamics(jnp.concatenate([states, batch.z], axis=-1), params=params)
            log_q = Gaussian(mean, jnp.zeros_like(mean)).log_prob(steps)
            return -jnp.sum(goes_on * log_q) / (jnp.sum(goes_on) + 1e-12), ()

        dynamics, nll, _ = self.dynamics.minimise(loss)
        agent = self.replace(dynamics=dynamics, state_norm=state_norm, step_norm=step_norm)
        return agent, {"dynamics/nll": nll}

    def _log_q(self, batch: Transition, z: Array) -> jax.Array:
        """log q(y|s, z) of normalised observations, (*L, B), of skills (*L, B, z)."""
        states, steps = self.state_norm(batch.obs), self.step_norm(batch.next_obs - batch.obs)
        given = jnp.concatenate([jnp.broadcast_to(states, (*z.shape[:-1], states.shape[-1])), z], axis=-1)
        mean = self.dynamics(given)
        return Gaussian(mean, jnp.zeros_like(mean)).log_prob(jnp.broadcast_to(steps, mean.shape))

    def _reward(self, batch: Transition, key: jax.Array) -> jax.Array:
        """r of normalised observations, (B,)."""
        others = self._log_q_of_others(batch, key)
        difference = jnp.clip(others - self._log_q(batch, batch.z)[None], -CLIP, CLIP)
        return jnp.log(len(others) + 1.0) - jnp.log1p(jnp.sum(jnp.exp(difference), axis=0))

    def _log_q_of_others(self, batch: Transition, key: jax.Array) -> jax.Array:
        """log q(y|s, z_j) of skills drawn for each step, (L, B)."""
        space, size = self.config.z, len(batch.obs)
        z = space.sample(key, self.config.alternatives * size).reshape(-1, size, space.dim)
        if space.kind != "onehot":
            return self._log_q(batch, z)
        each = self._log_q(batch, jnp.broadcast_to(jnp.eye(space.dim)[:, None], (space.dim, size, space.dim)))
        return jnp.take_along_axis(each, jnp.argmax(z, axis=-1), axis=0)
