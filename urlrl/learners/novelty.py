"""How new a state is, by random network distillation (Burda et al., 2018, https://arxiv.org/abs/1810.12894).

A network g is trained to repeat the outputs of a random one, f, on the states that were seen; where it cannot, a state
is new:

    e(s) = mean_j (f_j(x) - g_j(x))^2,    x = clip((s - mean) / std, -5, 5)    by running statistics of the states
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check, check_all
from urlrl.learners.model import Model
from urlrl.learners.nets import MLP, orthogonal
from urlrl.learners.statistics import RunningMoments
from urlrl.types import Array


@dataclass(frozen=True)
class NoveltyConfig:
    width: int = 64  # units of both hidden layers
    outputs: int = 32  # of the random network
    lr: float = 1e-3  # Adam
    batch: int = 256  # states per gradient step

    def __post_init__(self):
        check_all(self, "width", "outputs", "batch", low=1)
        check("lr", self.lr, 0, open_low=True)


class Novelty(struct.PyTreeNode):
    random: Model  # f, never trained
    predictor: Model  # g
    states: RunningMoments  # of observations, (obs,)
    config: NoveltyConfig = struct.field(pytree_node=False)

    @classmethod
    def create(cls, config: NoveltyConfig, obs_dim: int, key: jax.Array) -> "Novelty":
        random_key, predictor_key = jax.random.split(key)
        module, obs = MLP(config.outputs, config.width, kernel_init=orthogonal), jnp.zeros((1, obs_dim), jnp.float32)
        return cls(
            random=Model.create(module, config.lr, random_key, obs),
            predictor=Model.create(module, config.lr, predictor_key, obs),
            states=RunningMoments.create((obs_dim,)),
            config=config,
        )

    def error(self, obs: Array) -> jax.Array:
        """e, (*B,)."""
        return self._error(obs, None)

    def update(self, obs: Array, key: jax.Array) -> "Novelty":
        """Learn what these states (n, obs) look like: each is seen once, less what is no whole batch."""
        novelty, n = self.replace(states=self.states.seen(obs)), obs.shape[0]
        size = min(self.config.batch, n)
        batches = jax.random.permutation(key, n)[: n // size * size].reshape(-1, size)

        def step(predictor: Model, rows: jax.Array) -> tuple[Model, None]:
            def loss(params):
                return jnp.mean(novelty.replace(predictor=predictor)._error(obs[rows], params)), None

            return predictor.minimise(loss)[0], None

        predictor, _ = jax.lax.scan(step, novelty.predictor, batches)
        return novelty.replace(predictor=predictor)

    def _error(self, obs: Array, params) -> jax.Array:
        x = jnp.clip(self.states.normalise(obs), -5, 5)
        return jnp.mean((self.random(x) - self.predictor(x, params=params)) ** 2, axis=-1)
