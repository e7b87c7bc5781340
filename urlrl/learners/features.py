"""Feature learners: state features that rewards are then taken to be linear in. Successor features stand on one.

| name        | what the features are trained for                                                        |
|-------------|------------------------------------------------------------------------------------------|
| random      | nothing                                                                                  |
| laplacian   | mean (phi(s) - phi(s'))^2 + L_orth(phi(s)): slow along trajectories, orthonormal          |
| contrastive | InfoNCE of phi(s) and mu(s+), cosines; s+ a later state of the same episode               |
| inverse     | predict a from phi(s), phi(s')                                                           |
| forward     | predict s' from phi(s), a                                                                |
| svd         | mu(s, a)^T phi(s') is P(s'|s, a) / rho(s'), at rank d; + L_orth(phi(s'))                 |
| hilbert     | temporal distance (learners/hilbert.py); phi - mu, a running mean                        |

All but hilbert scale phi to length sqrt(d). Means are over the batch and over dimensions. From HILP's and FB's released
zero-shot code (https://arxiv.org/abs/2402.15567, https://arxiv.org/abs/2209.14935).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check_all
from urlrl.learners import graphs
from urlrl.learners.embed import FeatureMap
from urlrl.learners.hilbert import Hilbert
from urlrl.learners.model import Model, check_network, minimise_jointly
from urlrl.learners.nets import MLP, orthogonal
from urlrl.types import Array, Graph, Metrics, Transition


@dataclass(frozen=True)
class FeatureConfig:
    """Of any feature learner; those of `hilbert` are read by it alone."""

    width: int = 512  # units of both hidden layers
    lr: float = 5e-4  # Adam
    gamma: float = 0.98  # hilbert: discount of the distance
    expectile: float = 0.5  # hilbert: 0.5 is the distance of what the data does
    tau: float = 0.005  # hilbert: target encoders: share of the online ones per update
    mean_rate: float = 0.005  # hilbert: share of a batch in the running mean

    def __post_init__(self):
        check_network(self)
        check_all(self, "gamma", "expectile", "tau", "mean_rate", low=0, high=1)


class FeatureLearner(Protocol):
    """Trained by its own loss alone. Observations are normalised, features have `dim` entries."""

    @classmethod
    def create(cls, dim: int, config: FeatureConfig, obs: Array, action: Array, key: jax.Array) -> "FeatureLearner": ...
    def __call__(self, obs: Array) -> jax.Array: ...  # (*B, d), without gradient
    def graph(self) -> Graph: ...  # the same as operations
    def update(self, batch: Transition) -> tuple["FeatureLearner", Metrics]: ...


def _map(dim: int, config: FeatureConfig, obs: Array, key: jax.Array) -> Model:
    return Model.create(FeatureMap(dim, config.width), config.lr, key, obs)


def _phi(learner: Any, obs: Array) -> jax.Array:
    return learner.phi(obs)


def _graph(learner: Any) -> Graph:
    return graphs.features(learner.phi.module, learner.phi.params)


def _head(out: int, config: FeatureConfig, inputs: int, key: jax.Array) -> Model:
    """The predictors of inverse and forward."""
    return Model.create(
        MLP(out, config.width, kernel_init=orthogonal), config.lr, key, jnp.zeros((1, inputs), jnp.float32)
    )


def orthonormality(phi: jax.Array) -> jax.Array:
    """mean_{j!=k} (phi_j^T phi_k)^2 - 2 mean_j |phi_j|^2 of (n, d): |Cov - I|^2 - d but for the rows left out."""
    n, gram = phi.shape[0], phi @ phi.T
    off = jnp.sum(gram**2) - jnp.sum(jnp.diagonal(gram) ** 2)
    return off / (n * (n - 1)) - 2 * jnp.mean(jnp.diagonal(gram))


class RandomFeatures(struct.PyTreeNode):
    phi: Model

    @classmethod
    def create(cls, dim: int, config: FeatureConfig, obs: Array, action: Array, key: jax.Array) -> "RandomFeatures":
        return cls(phi=_map(dim, config, obs, key))

    __call__, graph = _phi, _graph

    def update(self, batch: Transition) -> tuple["RandomFeatures", Metrics]:
        return self, {}


class Laplacian(struct.PyTreeNode):
    phi: Model

    @classmethod
    def create(cls, dim: int, config: FeatureConfig, obs: Array, action: Array, key: jax.Array) -> "Laplacian":
        return cls(phi=_map(dim, config, obs, key))

    __call__, graph = _phi, _graph

    def update(self, batch: Transition) -> tuple["Laplacian", Metrics]:
        def loss(params):
            phi = self.phi(batch.obs, params=params)
            smooth = jnp.mean((phi - self.phi(batch.next_obs, params=params)) ** 2)
            orth = orthonormality(phi)
            return smooth + orth, (smooth, orth)

        phi, total, (smooth, orth) = self.phi.minimise(loss)
        return self.replace(phi=phi), {"phi/loss": total, "phi/smoothness": smooth, "phi/orthonormality": orth}


class Contrastive(struct.PyTreeNode):
    phi: Model
    mu: Model  # of the later state

    @classmethod
    def create(cls, dim: int, config: FeatureConfig, obs: Array, action: Array, key: jax.Array) -> "Contrastive":
        phi_key, mu_key = jax.random.split(key)
        return cls(phi=_map(dim, config, obs, phi_key), mu=_map(dim, config, obs, mu_key))

    __call__, graph = _phi, _graph

    def update(self, batch: Transition) -> tuple["Contrastive", Metrics]:
        def loss(params):
            phi, mu = self.phi(batch.obs, params=params[0]), self.mu(batch.goal, params=params[1])
            logits = phi @ mu.T / phi.shape[1]  # Both have length sqrt(d), so these are cosines.
            others = jnp.where(jnp.eye(phi.shape[0], dtype=bool), -jnp.inf, logits)
            return jnp.mean(jax.nn.logsumexp(others, axis=1) - jnp.diagonal(logits)), None

        (phi, mu), total, _ = minimise_jointly((self.phi, self.mu), loss)
        return self.replace(phi=phi, mu=mu), {"phi/loss": total}


class SVD(struct.PyTreeNode):
    phi: Model
    mu: Model  # of the state and the action that led to s'; of any length

    @classmethod
    def create(cls, dim: int, config: FeatureConfig, obs: Array, action: Array, key: jax.Array) -> "SVD":
        phi_key, mu_key = jax.random.split(key)
        mu = FeatureMap(dim, config.width, normalise=False)
        both = jnp.concatenate([obs, action], axis=-1)
        return cls(phi=_map(dim, config, obs, phi_key), mu=Model.create(mu, config.lr, mu_key, both))

    __call__, graph = _phi, _graph

    def update(self, batch: Transition) -> tuple["SVD", Metrics]:
        n, before = batch.obs.shape[0], jnp.concatenate([batch.obs, batch.action], axis=-1)

        def loss(params):
            phi = self.phi(batch.next_obs, params=params[0])
            p = self.mu(before, params=params[1]) @ phi.T
            diagonal = jnp.diagonal(p)
            fit = (jnp.sum(p**2) - jnp.sum(diagonal**2)) / (n * (n - 1)) - 2 * jnp.mean(diagonal)
            return fit + orthonormality(phi), None

        (phi, mu), total, _ = minimise_jointly((self.phi, self.mu), loss)
        return self.replace(phi=phi, mu=mu), {"phi/loss": total}


class Inverse(struct.PyTreeNode):
    phi: Model
    head: Model

    @classmethod
    def create(cls, dim: int, config: FeatureConfig, obs: Array, action: Array, key: jax.Array) -> "Inverse":
        phi_key, head_key = jax.random.split(key)
        head = _head(action.shape[-1], config, 2 * dim, head_key)
        return cls(phi=_map(dim, config, obs, phi_key), head=head)

    __call__, graph = _phi, _graph

    def update(self, batch: Transition) -> tuple["Inverse", Metrics]:
        def loss(params):
            both = [self.phi(obs, params=params[0]) for obs in (batch.obs, batch.next_obs)]
            predicted = jnp.tanh(self.head(jnp.concatenate(both, axis=-1), params=params[1]))
            return jnp.mean((predicted - batch.action) ** 2), None

        (phi, head), total, _ = minimise_jointly((self.phi, self.head), loss)
        return self.replace(phi=phi, head=head), {"phi/loss": total}


class Forward(struct.PyTreeNode):
    phi: Model
    head: Model

    @classmethod
    def create(cls, dim: int, config: FeatureConfig, obs: Array, action: Array, key: jax.Array) -> "Forward":
        phi_key, head_key = jax.random.split(key)
        head = _head(obs.shape[-1], config, dim + action.shape[-1], head_key)
        return cls(phi=_map(dim, config, obs, phi_key), head=head)

    __call__, graph = _phi, _graph

    def update(self, batch: Transition) -> tuple["Forward", Metrics]:
        def loss(params):
            x = jnp.concatenate([self.phi(batch.obs, params=params[0]), batch.action], axis=-1)
            return jnp.mean((self.head(x, params=params[1]) - batch.next_obs) ** 2), None

        (phi, head), total, _ = minimise_jointly((self.phi, self.head), loss)
        return self.replace(phi=phi, head=head), {"phi/loss": total}


class HilbertFeatures(struct.PyTreeNode):
    hilbert: Hilbert
    mean: jax.Array  # (d,), running, of phi(s)
    rate: float = struct.field(pytree_node=False)

    @classmethod
    def create(cls, dim: int, config: FeatureConfig, obs: Array, action: Array, key: jax.Array) -> "HilbertFeatures":
        encoder = FeatureMap(dim, config.width, normalise=False)
        hilbert = Hilbert.create(
            encoder, config.lr, key, obs, gamma=config.gamma, expectile=config.expectile, tau=config.tau
        )
        return cls(hilbert=hilbert, mean=jnp.zeros(dim, jnp.float32), rate=config.mean_rate)

    def __call__(self, obs: Array) -> jax.Array:
        phi = self.hilbert(obs)
        return phi - jnp.broadcast_to(self.mean, phi.shape)

    def graph(self) -> Graph:
        return self.hilbert.graph(self.mean)

    def update(self, batch: Transition) -> tuple["HilbertFeatures", Metrics]:
        mean = (1 - self.rate) * self.mean + self.rate * jnp.mean(self.hilbert(batch.obs), axis=0)
        hilbert, metrics = self.hilbert.update(batch.obs, batch.next_obs, batch.goal, batch.goal_steps)
        return self.replace(hilbert=hilbert, mean=mean), metrics


FEATURES: dict[str, Any] = {
    "random": RandomFeatures,
    "laplacian": Laplacian,
    "contrastive": Contrastive,
    "svd": SVD,
    "inverse": Inverse,
    "forward": Forward,
    "hilbert": HilbertFeatures,
}
WITH_GOALS = ("contrastive", "hilbert")  # need `BatchSpec.goals`
