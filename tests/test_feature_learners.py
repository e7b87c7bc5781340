"""What state features are learned from, against hand-written NumPy (sheet of zero-shot offline RL, sections 1.2, 1.5,
5.3, 6.5 and 6.7)."""

from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urlrl.learners.embed import FeatureMap, of_length
from urlrl.learners.features import (
    SVD,
    Contrastive,
    FeatureConfig,
    Forward,
    HilbertFeatures,
    Inverse,
    Laplacian,
    RandomFeatures,
    orthonormality,
)
from urlrl.learners.hilbert import Hilbert
from urlrl.learners.model import Model
from urlrl.learners.nets import MLP, Pair, orthogonal
from urlrl.types import Transition

OBS, ACT, DIM, BATCH, LR = 4, 2, 3, 6, 0.05
SGD = optax.sgd(LR)
RNG = np.random.default_rng(0)
ARRAYS = {"obs": RNG.standard_normal((BATCH, OBS)), "action": RNG.uniform(-1, 1, (BATCH, ACT)),
          "next_obs": RNG.standard_normal((BATCH, OBS)), "goal": RNG.standard_normal((BATCH, OBS))}  # fmt: skip
PHI, OTHER = 0.5 * RNG.standard_normal((OBS, DIM)), 0.5 * RNG.standard_normal((OBS, DIM))
INVERSE, FORWARD = 0.5 * RNG.standard_normal((2 * DIM, ACT)), 0.5 * RNG.standard_normal((DIM + ACT, OBS))
CONFIG = FeatureConfig(width=16, lr=1e-3, mean_rate=0.25)


class Linear(nn.Module):
    out: int
    length: float = 0.0  # scale the result to it; 0: as it is

    @nn.compact
    def __call__(self, x):
        y = x @ self.param("w", nn.initializers.normal(1.0), (x.shape[-1], self.out))
        return of_length(y, self.length) if self.length else y


def linear_model(w: np.ndarray, length: float = 0.0) -> Model:
    params = {"w": jnp.float32(w)}
    return Model(params=params, opt_state=SGD.init(params), module=Linear(w.shape[1], length), tx=SGD)


def make_batch() -> Transition:
    """Without a reward or a skill to read."""
    f32 = {name: jnp.float32(x) for name, x in ARRAYS.items()}
    blind = jnp.full(BATCH, jnp.nan)
    steps = jnp.int32([0, 1, -1, 4, 0, 2])
    return Transition(reward=blind, discount=blind, z=blind[:, None], goal_steps=steps, **f32)


# --- Each loss --------------------------------------------------------------------------------------------------------


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def numpy_orthonormality(phi: np.ndarray, mistake: str = "") -> float:
    n, gram = len(phi), phi @ phi.T
    square = gram**2 if mistake == "diagonal in the mean of all pairs" else gram**2 * (1 - np.eye(n))
    pairs = n * n if "pairs" in mistake else n * (n - 1)
    return square.sum() / pairs - (1 if mistake == "half of the diagonal" else 2) * np.diag(gram).mean()


def laplacian_loss(phi, _, mistake):
    obs, next_obs = (ARRAYS[name] @ phi for name in ("obs", "next_obs"))
    change = (obs - next_obs) ** 2
    if mistake == "gradient of s alone":
        change = (obs - ARRAYS["next_obs"] @ PHI) ** 2
    smooth = change.sum(axis=1).mean() if mistake == "sum over dimensions" else change.mean()
    at = next_obs if mistake == "orthonormality of s'" else obs
    return smooth + numpy_orthonormality(at, mistake)


def contrastive_loss(phi, mu, mistake):
    x = ARRAYS["next_obs" if mistake == "features of s'" else "obs"] @ phi
    y = ARRAYS["next_obs" if mistake == "the next state for a later one" else "goal"] @ mu
    logits = unit(x) @ unit(y).T
    if mistake == "not cosines":
        logits = x @ y.T
    if mistake == "cosines times d":
        logits = DIM * logits
    axis = 0 if mistake == "one state among many pasts" else 1
    others = np.where(np.eye(BATCH, dtype=bool) & (mistake != "the positive among the others"), -np.inf, logits)
    return np.mean(np.log(np.exp(others).sum(axis=axis)) - np.diag(logits))


def inverse_loss(phi, head, mistake):
    both = [ARRAYS[name] @ phi for name in ("obs", "next_obs")]
    if mistake == "s and s' swapped":
        both = both[::-1]
    predicted = np.concatenate(both, axis=1) @ head
    if mistake != "no tanh":
        predicted = np.tanh(predicted)
    square = (predicted - ARRAYS["action"]) ** 2
    return square.sum(axis=1).mean() if mistake == "sum over dimensions" else square.mean()


def forward_loss(phi, head, mistake):
    predicted = np.concatenate([ARRAYS["obs"] @ phi, ARRAYS["action"]], axis=1) @ head
    target = ARRAYS["next_obs"] - (ARRAYS["obs"] if mistake == "predicts the change" else 0)
    square = (predicted - target) ** 2
    return square.sum(axis=1).mean() if mistake == "sum over dimensions" else square.mean()


LOSSES = {
    "laplacian": (laplacian_loss, None),
    "contrastive": (contrastive_loss, OTHER),
    "inverse": (inverse_loss, INVERSE),
    "forward": (forward_loss, FORWARD),
}
MISTAKES = [
    *(("laplacian", m) for m in ("sum over dimensions", "orthonormality of s'", "gradient of s alone",
                                 "diagonal in the mean of all pairs", "n squared pairs", "half of the diagonal")),
    *(("contrastive", m) for m in ("features of s'", "the next state for a later one", "not cosines", "cosines times d",
                                   "one state among many pasts", "the positive among the others")),
    *(("inverse", m) for m in ("s and s' swapped", "no tanh", "sum over dimensions")),
    *(("forward", m) for m in ("predicts the change", "sum over dimensions")),
]  # fmt: skip


def gradient(loss, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Central differences of a scalar function at x, float64."""
    slopes = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        slopes[i] = (loss(x + step) - loss(x - step)) / (2 * h)
    return slopes


@jax.jit
def library_steps(batch):
    """Each learner's parameters after one update, and its loss. Contrastive features have length sqrt(d), as with
    their own networks."""
    phi, long = linear_model(PHI), DIM**0.5
    learners = {
        "laplacian": Laplacian(phi),
        "contrastive": Contrastive(linear_model(PHI, long), linear_model(OTHER, long)),
        "inverse": Inverse(phi, linear_model(INVERSE)),
        "forward": Forward(phi, linear_model(FORWARD)),
    }
    found = {}
    for name, learner in learners.items():
        after, metrics = learner.update(batch)
        head = None if name == "laplacian" else getattr(after, "mu" if name == "contrastive" else "head").params["w"]
        found[name] = after.phi.params["w"], head, metrics["phi/loss"]
    return found


def numpy_step(name: str, mistake: str = ""):
    loss, head = LOSSES[name]
    phi = PHI - LR * gradient(lambda w: loss(w, head, mistake), PHI)
    moved = head if head is None else head - LR * gradient(lambda w: loss(PHI, w, mistake), head)
    return phi, moved, loss(PHI, head, mistake)


def check_step(name, step):
    for found, expected in zip(step(name), numpy_step(name)):
        if expected is not None:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def stepped():
    return library_steps(make_batch())


@pytest.mark.parametrize("name", LOSSES)
def test_step_is_numpys(name, stepped):
    check_step(name, stepped.get)


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_step_check_finds(name, mistake):
    with pytest.raises(AssertionError):
        check_step(name, partial(numpy_step, mistake=mistake))


def test_random_features_stay():
    learner = RandomFeatures(linear_model(PHI))
    after, metrics = learner.update(make_batch())
    assert after is learner and metrics == {}


def test_features_are_without_gradient():
    """Whoever uses them: psi's loss and the tasks leave phi alone."""

    def total(params):
        hilbert = linear_hilbert()
        hilbert = hilbert.replace(phi=hilbert.phi.replace(params={"w": jnp.stack([params, params])}))
        learners = (
            Laplacian(linear_model(PHI).replace(params={"w": params})),
            HilbertFeatures(hilbert, jnp.zeros(DIM), 0.1),
        )
        return sum(jnp.sum(learner(jnp.float32(ARRAYS["obs"])) ** 2) for learner in learners)

    value, slope = jax.value_and_grad(total)(jnp.float32(PHI))
    assert value > 1 and (slope == 0).all()


# --- Orthonormality ---------------------------------------------------------------------------------------------------


def check_orthonormality(loss):
    """|Cov - I|^2 - d but for the rows left out, and so its gradient; at least -d, at Cov = I; with rows of length
    sqrt(d) its diagonal part is -2d; twice the half-scaled form."""
    rng = np.random.default_rng(1)
    for n, tolerance in ((400, 0.03), (3000, 0.004)):
        phi = np.float32(rng.standard_normal((n, DIM)) @ rng.standard_normal((DIM, DIM)) / 2)
        cov = phi.T @ phi / n
        np.testing.assert_allclose(loss(phi), np.square(cov - np.eye(DIM)).sum() - DIM, rtol=tolerance)
    white = np.float32(np.sqrt(DIM) * np.eye(DIM)[np.arange(3000) % DIM])
    np.testing.assert_allclose(loss(white), -DIM, rtol=2e-3)
    for scale in (0.8, 1.2):
        assert loss(scale * white) > -DIM + 0.1
    np.testing.assert_allclose(
        loss(np.float32([[1, 2, 2], [-1, 2, 2]]) / np.sqrt(3)), (7 / 3) ** 2 - 2 * DIM, rtol=1e-5
    )
    phi = np.float32(rng.standard_normal((BATCH, DIM)))
    np.testing.assert_allclose(loss(phi), numpy_orthonormality(phi), rtol=1e-5)


def half_scaled(phi):
    """Meta Motivo's form."""
    return 0.5 * orthonormality(jnp.asarray(phi))


def with_the_diagonal(phi):
    gram = phi @ phi.T
    return np.mean(gram**2) - 2 * np.mean(np.diag(gram))


def of_the_covariance(phi):
    return np.square(phi.T @ phi / len(phi) - np.eye(DIM)).sum()


def test_orthonormality():
    check_orthonormality(jax.jit(orthonormality))


@pytest.mark.parametrize("wrong", [half_scaled, with_the_diagonal, of_the_covariance])
def test_orthonormality_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_orthonormality(wrong)


def test_both_forms_of_orthonormality_pull_the_same_way():
    """Twice Meta Motivo's half-scaled form has the gradient of ours: that is what their coefficients differ by."""
    phi = jnp.float32(RNG.standard_normal((BATCH, DIM)))

    def meta_motivo(phi):
        gram = phi @ phi.T
        off = jnp.sum(gram**2) - jnp.sum(jnp.diagonal(gram) ** 2)
        return 0.5 * off / (BATCH * (BATCH - 1)) - jnp.mean(jnp.diagonal(gram))

    ours, theirs = (jax.grad(loss)(phi) for loss in (orthonormality, meta_motivo))
    np.testing.assert_allclose(ours, 2 * theirs, rtol=1e-4, atol=1e-6)
    by_hand = gradient(numpy_orthonormality, np.float64(phi))
    np.testing.assert_allclose(ours, by_hand, rtol=1e-3, atol=1e-5)


# --- Eigenvectors of a random walk on a ring --------------------------------------------------------------------------

RING, RING_DIM = 9, 5


def learn_ring(tied: bool = False, steps: int = 1500) -> np.ndarray:
    """phi of all states, (RING, RING_DIM), by the library's learner on every step of a random walk at once: a table
    with outputs of length sqrt(d). `tied` has s' = s."""
    states = np.tile(np.arange(RING), 8)
    moves = np.repeat([1, -1] * 4, RING) * (0 if tied else 1)
    one_hot = np.eye(RING, dtype=np.float32)
    batch = make_batch()._replace(
        obs=jnp.asarray(one_hot[states]), next_obs=jnp.asarray(one_hot[(states + moves) % RING])
    )
    phi = Model.create(Linear(RING_DIM, RING_DIM**0.5), 0.02, jax.random.key(0), jnp.zeros((1, RING)))
    return np.asarray(_learn(Laplacian(phi), batch, steps)(one_hot))


@jax.jit
def _learn(learner, batch, steps):
    return jax.lax.fori_loop(0, steps, lambda _, learner: learner.update(batch)[0], learner)


def check_ring(phi: np.ndarray):
    """phi spans the eigenvectors of the walk with the largest eigenvalues, cos(2 pi k / N), the constant among them."""
    walk = (np.roll(np.eye(RING), 1, axis=0) + np.roll(np.eye(RING), -1, axis=0)) / 2
    values, vectors = np.linalg.eigh(walk)
    np.testing.assert_allclose(values[::-1][:RING_DIM], np.cos(2 * np.pi * np.array([0, 1, 1, 2, 2]) / RING), atol=1e-9)
    top = vectors[:, ::-1][:, :RING_DIM]
    basis, _ = np.linalg.qr(phi)
    angles = np.arccos(np.clip(np.linalg.svd(top.T @ basis, compute_uv=False), -1, 1))
    assert angles.max() < 0.05
    np.testing.assert_allclose(np.linalg.norm(phi, axis=1), np.sqrt(RING_DIM), rtol=1e-5)


def test_laplacian_learns_the_slowest_eigenvectors_of_a_ring():
    check_ring(learn_ring())


@pytest.mark.parametrize(
    "wrong", [pytest.param({"tied": True}, id="s' is s"), pytest.param({"steps": 20}, id="not converged")]
)
def test_ring_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_ring(learn_ring(**wrong))


def learn_transitions(copies: int = 30, steps: int = 1500) -> np.ndarray:
    """mu phi^T of all states, (RING, RING), by the library's learner on tables, of a walk without actions."""
    states = np.tile(np.arange(RING), 2 * copies)
    moves = np.repeat([1, -1] * copies, RING)
    one_hot = np.eye(RING, dtype=np.float32)
    batch = make_batch()._replace(
        obs=jnp.asarray(one_hot[states]), next_obs=jnp.asarray(one_hot[(states + moves) % RING]),
        action=jnp.zeros((len(states), 0)),
    )  # fmt: skip
    phi, mu = (Model.create(Linear(RING_DIM), 0.02, jax.random.key(i), jnp.zeros((1, RING))) for i in range(2))
    learner = _learn(SVD(phi, mu), batch, steps)
    return np.asarray(learner.mu(one_hot) @ learner.phi(one_hot).T)


def check_best_of_rank(p: np.ndarray):
    """Eckart and Young: the leading singular vectors of P(s'|s) / rho(s'), rho uniform."""
    walk = (np.roll(np.eye(RING), 1, axis=0) + np.roll(np.eye(RING), -1, axis=0)) / 2 * RING
    left, values, right = np.linalg.svd(walk)
    best = (left[:, :RING_DIM] * values[:RING_DIM]) @ right[:RING_DIM]
    assert np.abs(p - best).max() < 0.05 * np.abs(best).max()


def test_svd_learns_the_best_transitions_of_its_rank():
    check_best_of_rank(learn_transitions())


@pytest.mark.parametrize(
    "wrong",
    [pytest.param({"steps": 20}, id="not converged"), pytest.param({"copies": 1}, id="pairs left out that count")],
)
def test_svd_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_best_of_rank(learn_transitions(**wrong))


# --- Hilbert features -------------------------------------------------------------------------------------------------


class BothLinear(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(1.0), (2, OBS, DIM))
        return jnp.stack([x @ w[0], x @ w[1]])


def linear_hilbert() -> Hilbert:
    params = {"w": jnp.float32([PHI, OTHER])}
    phi = Model(params=params, opt_state=SGD.init(params), module=BothLinear(), tx=SGD)
    return Hilbert(phi=phi, target={"w": jnp.float32([OTHER, PHI])}, gamma=0.9, expectile=0.7, tau=0.25)


def check_hilbert_features(update):
    """phi_1 minus a running mean of phi_1(s), which begins at 0 and takes the network before its step; phi is trained
    as by `Hilbert` alone, with no mean in its distances."""
    batch, mean = make_batch(), np.float32([1.0, -1.0, 0.5])
    learner = HilbertFeatures(linear_hilbert(), jnp.asarray(mean), 0.25)
    np.testing.assert_allclose(learner(batch.goal), ARRAYS["goal"] @ PHI - mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(learner(batch.goal[0]), ARRAYS["goal"][0] @ PHI - mean, rtol=1e-4, atol=1e-5)
    after, _ = update(learner, batch)
    expected = 0.75 * mean + 0.25 * (ARRAYS["obs"] @ PHI).mean(axis=0)
    np.testing.assert_allclose(after.mean, expected, rtol=1e-4, atol=1e-5)
    alone, _ = linear_hilbert().update(batch.obs, batch.next_obs, batch.goal, batch.goal_steps)
    np.testing.assert_allclose(after.hilbert.phi.params["w"], alone.phi.params["w"], rtol=1e-5)
    np.testing.assert_allclose(after.hilbert.target["w"], alone.target["w"], rtol=1e-5)
    assert np.abs(alone.phi.params["w"] - linear_hilbert().phi.params["w"]).max() > 1e-3


def mean_of_next_states(learner, batch):
    after, metrics = learner.update(batch)
    mean = 0.75 * learner.mean + 0.25 * jnp.mean(learner.hilbert(batch.next_obs), axis=0)
    return after.replace(mean=mean), metrics


def mean_after_the_step(learner, batch):
    after, metrics = learner.update(batch)
    return after.replace(mean=0.75 * learner.mean + 0.25 * jnp.mean(after.hilbert(batch.obs), axis=0)), metrics


def mean_of_centred_features(learner, batch):
    after, metrics = learner.update(batch)
    return after.replace(mean=0.75 * learner.mean + 0.25 * jnp.mean(learner(batch.obs), axis=0)), metrics


def shares_swapped(learner, batch):
    return learner.replace(rate=1 - learner.rate).update(batch)


def goals_are_next_states(learner, batch):
    return learner.update(batch._replace(goal=batch.next_obs))


def test_hilbert_features():
    check_hilbert_features(jax.jit(HilbertFeatures.update))


@pytest.mark.parametrize(
    "wrong", [mean_of_next_states, mean_after_the_step, mean_of_centred_features, shares_swapped, goals_are_next_states]
)
def test_hilbert_features_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_hilbert_features(wrong)


# --- Networks ---------------------------------------------------------------------------------------------------------


def layer_norm(x: np.ndarray, params: Any) -> np.ndarray:
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return x * np.asarray(params["scale"]) + np.asarray(params["bias"])


@pytest.mark.parametrize("normalise", [True, False])
def test_feature_map(normalise):
    """Layer, norm, tanh; layer, relu; layer; and a length of sqrt(d)."""
    x = np.float32(RNG.standard_normal((7, OBS)))
    model = Model.create(FeatureMap(DIM, 16, normalise), 1e-3, jax.random.key(0), x)
    params = jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, model.params)  # A forgotten bias is seen.

    def dense(x, i):
        return x @ np.asarray(params[f"Dense_{i}"]["kernel"]) + np.asarray(params[f"Dense_{i}"]["bias"])

    y = dense(np.maximum(dense(np.tanh(layer_norm(dense(x, 0), params["LayerNorm_0"])), 1), 0), 2)
    expected = np.sqrt(DIM) * unit(y) if normalise else y
    np.testing.assert_allclose(model(x, params=params), expected, atol=1e-5)
    kernel = np.asarray(model.params["Dense_1"]["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(16), atol=1e-5)  # orthogonal at the start


def test_a_length_of_nothing_has_no_gradient():
    for x in (np.zeros(DIM, np.float32), np.float32([3, 0, 4])):
        value, slope = jax.value_and_grad(lambda y: jnp.sum(of_length(y, 2.0) * jnp.arange(1.0, 4)))(x)
        assert np.isfinite(value) and np.isfinite(slope).all()
    np.testing.assert_allclose(of_length(jnp.float32([3, 0, 4]), 10.0), [6, 0, 8], rtol=1e-6)
    np.testing.assert_allclose(slope @ x, 0, atol=1e-6)  # Along x itself a length does not change.


def test_every_number_of_a_config_arrives():
    obs, action = jnp.zeros((1, OBS)), jnp.zeros((1, ACT))
    config = replace(CONFIG, lr=0.02, gamma=0.8, expectile=0.6, tau=0.1)
    made = {
        learner: jax.eval_shape(lambda key, c=learner: c.create(DIM, config, obs, action, key), jax.random.key(0))
        for learner in (RandomFeatures, Laplacian, Contrastive, SVD, Inverse, Forward, HilbertFeatures)
    }
    for learner in (RandomFeatures, Laplacian, Contrastive, SVD, Inverse, Forward):
        assert made[learner].phi.module == FeatureMap(DIM, 16)
    assert made[Contrastive].mu.module == FeatureMap(DIM, 16)
    assert made[SVD].mu.module == FeatureMap(DIM, 16, normalise=False)
    assert made[Inverse].head.module == MLP(ACT, 16, kernel_init=orthogonal)
    assert made[Inverse].head.params["Dense_0"]["kernel"].shape == (2 * DIM, 16)
    assert made[Forward].head.module == MLP(OBS, 16, kernel_init=orthogonal)
    assert made[Forward].head.params["Dense_0"]["kernel"].shape == (DIM + ACT, 16)
    hilbert = made[HilbertFeatures]
    assert hilbert.hilbert.phi.module == Pair(FeatureMap(DIM, 16, normalise=False))
    assert (hilbert.hilbert.gamma, hilbert.hilbert.expectile, hilbert.hilbert.tau, hilbert.rate) == (
        0.8,
        0.6,
        0.1,
        0.25,
    )
    models = [made[Laplacian].phi, made[Contrastive].mu, made[Inverse].head, made[Forward].head, hilbert.hilbert.phi]
    for model in models:
        updates, _ = model.tx.update(jnp.float32(1), model.tx.init(jnp.float32(0)))
        np.testing.assert_allclose(updates, -0.02, rtol=1e-4)
