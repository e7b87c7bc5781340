"""The random policy: uniform actions, nothing learned. It makes data, and is what others must beat."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
from urlrl.types import Array, BatchSpec, Metrics, Transition


@dataclass(frozen=True)
class UniformConfig:
    z: SkillSpace = SkillSpace("none", 0)  # no skills
    batch: BatchSpec = BatchSpec()


class Uniform(struct.PyTreeNode):
    low: jax.Array  # (act,), -1; or False, where actions are one-hot
    normalizer: Normalizer
    config: UniformConfig = struct.field(pytree_node=False)
    Config = UniformConfig

    begin, act = hold_skill()
    plan = nothing
    abilities = frozenset({"offline", "discrete"})
    shared = ()

    @classmethod
    def create(cls, config: UniformConfig, example: Transition, key: jax.Array) -> "Uniform":
        """`example` is one transition or a batch; only its shapes matter."""
        del key
        action = example.action
        low = jnp.zeros(action.shape[-1], bool) if action.dtype == bool else -jnp.ones(action.shape[-1], jnp.float32)
        return cls(low=low, normalizer=Normalizer.identity(example.obs.shape[-1]), config=config)

    def sample_actions(self, obs: Array, z: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """(*B, act) uniform in [-1, 1], or any choice; temperature 0 is the mode, 0, or the first choice."""
        del z
        shape = (*obs.shape[:-1], self.low.shape[0])
        if self.low.dtype == bool:
            choice = jax.random.randint(key, shape[:-1], 0, shape[-1]) * (temperature > 0)
            return jax.nn.one_hot(choice, shape[-1], dtype=bool)
        return temperature * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)

    def update(self, batch: Transition, key: jax.Array) -> tuple["Uniform", Metrics]:
        """Nothing is learned."""
        del batch, key
        return self, {"reward/intrinsic": jnp.float32(0)}
