"""Densities against NumPy, SciPy and sums by hand; a check is fed a wrong density and must find it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as scipy_stats

from urlrl.envs import make_device_env
from urlrl.errors import UserError
from urlrl.learners.densities import (
    DENSITIES,
    BetaBernoulli,
    Counts,
    DirichletCategorical,
    FlooredCategorical,
    KernelMean,
    Moments,
    Neighbours,
    NormalInverseGamma,
    check_density,
)

POINT, BLOCK = (make_device_env(name).env_spec for name in ("point", "block:line18"))
REALS = [name for name in DENSITIES if DENSITIES[name](1, 1).takes == "reals"]
SYMBOLS = [name for name in DENSITIES if name not in REALS]


def draws(name: str, n: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    """(n, dim): two groups of two symbols, or numbers of unit variance."""
    rng = np.random.default_rng(seed)
    if name in REALS:
        return rng.standard_normal((n, dim)).astype(np.float32)
    return np.eye(2, dtype=np.float32)[rng.integers(2, size=(n, dim // 2))].reshape(n, dim)


def make(name: str, dim: int = 4):
    return DENSITIES[name](dim, 2)


def fitted(density, rows):
    return jax.jit(
        lambda rows: jax.lax.scan(lambda theta, x: (density.update(theta, x), None), density.init(), rows)[0]
    )(jnp.asarray(rows))


def log_probs(density, theta, rows):
    return np.asarray(jax.vmap(lambda x: density.log_prob(theta, x))(jnp.asarray(rows)))


def all_symbols() -> np.ndarray:
    """The four observations that two groups of two symbols can be."""
    return np.stack([np.concatenate([a, b]) for a in np.eye(2) for b in np.eye(2)]).astype(np.float32)


# --- What holds for all of them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DENSITIES)
def test_it_is_mapped_and_scanned_with_its_types_unchanged(name):
    """The order of what was seen makes no difference; statistics are a float32 vector; dtypes and shapes stay."""
    density, rows = make(name), draws(name, 9)
    empty, theta, other = density.init(), fitted(density, rows), fitted(density, rows[::-1])
    for a, b in zip(jax.tree.leaves(empty), jax.tree.leaves(theta), strict=True):
        assert (a.shape, a.dtype, b.weak_type) == (b.shape, b.dtype, False) and a.dtype == jnp.float32
    np.testing.assert_allclose(log_probs(density, theta, rows), log_probs(density, other, rows), rtol=1e-4)
    vector = density.stats(theta)
    assert vector.ndim == 1 and vector.dtype == jnp.float32 and np.abs(vector).max() < 20
    assert density.stats(empty).shape == vector.shape
    np.testing.assert_allclose(vector, density.stats(other), rtol=1e-3, atol=1e-4)
    lanes = jax.vmap(density.update)(jax.tree.map(lambda a, b: jnp.stack([a, b]), empty, theta), jnp.asarray(rows[:2]))
    for lane, (start, x) in enumerate(((empty, rows[0]), (theta, rows[1]))):
        alone = density.update(start, x)
        for a, b in zip(jax.tree.leaves(jax.tree.map(lambda a, at=lane: a[at], lanes)), jax.tree.leaves(alone)):
            np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("name", DENSITIES)
def test_what_was_seen_becomes_less_surprising(name):
    """Also why a score must come before the insertion: after it, everything new looks known."""
    density, rows = make(name), draws(name, 3)
    theta = fitted(density, rows[:1])
    before, after = density.log_prob(theta, rows[0]), density.log_prob(density.update(theta, rows[0]), rows[0])
    assert after > before or (name == "floored" and after == before == 0)


def check_proper(density, grid):
    """Probabilities of all that can be seen add up to 1: none seen, one seen, many seen."""
    rows = grid[np.random.default_rng(0).integers(len(grid), size=20)]
    for n in (0, 1, 20):
        assert np.exp(log_probs(density, fitted(density, rows[:n]), grid)).sum() == pytest.approx(1, abs=1e-5)


def test_categorical_adds_up_to_one():
    check_proper(make("categorical"), all_symbols())
    theta = DirichletCategorical(4, 2).init()
    np.testing.assert_allclose(log_probs(DirichletCategorical(4, 2), theta, all_symbols()), np.log(0.25), rtol=1e-5)


def test_bernoulli_adds_up_to_one():
    check_proper(
        make("bernoulli"), np.float32([[a, b, c, d] for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)])
    )


def test_the_check_finds_the_references_floor():
    """Its floor is not normalised."""
    with pytest.raises(AssertionError):
        check_proper(FlooredCategorical(4, 2, floor=0.2), all_symbols())


# --- Symbols ----------------------------------------------------------------------------------------------------------


def check_counts(density, expected):
    """`expected(counts (dim,), n)` is the log-probability of each single symbol of one group of three."""
    rows = np.eye(3, dtype=np.float32)[[0, 0, 2, 0]]
    for n in range(5):
        found = log_probs(density, fitted(density, rows[:n]), np.eye(3))
        np.testing.assert_allclose(found, expected(rows[:n].sum(axis=0), n), rtol=1e-5)


def by_dirichlet(counts, n):
    return np.log((counts + 0.1) / (n + 0.3))


def by_floor(counts, n):
    return np.log(np.maximum(counts / n, 1e-3)) if n else np.full(3, np.log(1 / 3))


def test_counts_are_those_of_the_formulas():
    check_counts(DirichletCategorical(3, 3), by_dirichlet)
    check_counts(FlooredCategorical(3, 3), by_floor)


@dataclass(frozen=True)
class ScoredAfter(DirichletCategorical):
    def log_prob(self, theta, x):
        return super().log_prob(self.update(theta, x), x)


@pytest.mark.parametrize("wrong", [ScoredAfter(3, 3), DirichletCategorical(3, 3, alpha=1.0), FlooredCategorical(3, 3)])
def test_the_check_of_counts_finds(wrong):
    """A score after the insertion, another prior, the maximum-likelihood estimate."""
    with pytest.raises(AssertionError):
        check_counts(wrong, by_dirichlet)


def test_bernoulli_is_the_product_of_its_entries():
    theta = Counts(jnp.float32(7), jnp.float32([0, 3, 7]))
    q = (np.array([0, 3, 7]) + 0.5) / 8
    for x in np.float32([[0, 1, 1], [1, 0, 0]]):
        expected = np.log(np.where(x > 0, q, 1 - q)).sum()
        assert BetaBernoulli(3).log_prob(theta, x) == pytest.approx(expected, rel=1e-5)


def test_what_a_network_is_shown_of_counts_is_0_for_the_unseen_and_tells_the_probability():
    density = DirichletCategorical(3, 3)
    vector = np.asarray(density.stats(fitted(density, np.eye(3, dtype=np.float32)[[0, 0, 2]])))
    assert vector[1] == 0 and 0 < vector[2] < vector[0] < 1 and vector[3] == pytest.approx(np.log(4))
    n = np.expm1(vector[3])
    p = 0.1 / (n + 0.3) * ((n + 0.3) / 0.1) ** vector[:3]
    np.testing.assert_allclose(np.log(p), by_dirichlet(np.array([2, 0, 1]), 3), rtol=1e-4)


# --- Real numbers -----------------------------------------------------------------------------------------------------


def check_student(log_prob):
    """`log_prob(theta, x)` against SciPy's Student-t with the posterior by hand, by sums rather than by steps; and at
    many observations against the normal of their mean and variance."""
    rows = (1.5 + 0.7 * np.random.default_rng(1).standard_normal((400, 2))).astype(np.float32)
    density, x = NormalInverseGamma(2), np.float32([0.3, 2.0])
    for n in (0, 1, 5, 400):
        seen = rows[:n].astype(float)
        mean = seen.mean(axis=0) if n else np.zeros(2)
        kappa, a = 1 + n, 1 + n / 2
        b = 1 + 0.5 * ((seen - mean) ** 2).sum(axis=0) + n * mean**2 / (2 * kappa)
        scale = np.sqrt(b * (kappa + 1) / (a * kappa))
        expected = scipy_stats.t.logpdf(x, 2 * a, n * mean / kappa, scale).sum()
        assert log_prob(fitted(density, rows[:n]), x) == pytest.approx(expected, abs=2e-3)
    normal = scipy_stats.norm.logpdf(x, rows.mean(axis=0), rows.std(axis=0)).sum()
    assert log_prob(fitted(density, rows), x) == pytest.approx(normal, abs=0.05)


def test_gaussian_is_the_students_t_of_its_posterior():
    check_student(NormalInverseGamma(2).log_prob)


def deviation_for_variance(theta, x):
    """The reference's normaliser."""
    density = NormalInverseGamma(2)
    _, _, square_scale = density._predictive(theta)
    return density.log_prob(theta, x) + jnp.sum(jnp.log(square_scale)) / 4


def mean_off_by_one(theta, x):
    """The reference's running mean."""
    return NormalInverseGamma(2).log_prob(theta._replace(mean=theta.mean * theta.n / (theta.n + 1)), x)


@pytest.mark.parametrize("wrong", [deviation_for_variance, mean_off_by_one])
def test_the_check_of_gaussian_finds(wrong):
    with pytest.raises(AssertionError):
        check_student(wrong)


@pytest.mark.parametrize("n", [0, 1, 12])
def test_gaussian_and_kernel_integrate_to_one(n):
    rows = draws("gaussian", n, 1)
    for density, edge, tolerance in ((NormalInverseGamma(1), 60, 2e-3), (KernelMean(1, 4096), 8, 0.05)):
        grid = np.linspace(-edge, edge, 40 * edge + 1).astype(np.float32)
        p = np.exp(log_probs(density, fitted(density, rows), grid[:, None]))
        assert np.trapezoid(p, grid) == pytest.approx(1, abs=tolerance)


def test_welford_is_exact_far_from_the_origin():
    rows = (1e3 + np.random.default_rng(0).standard_normal((200, 1))).astype(np.float32)
    theta = fitted(NormalInverseGamma(1), rows)
    assert theta.squares[0] / 200 == pytest.approx(rows.astype(float).var(), rel=1e-2)
    assert isinstance(theta, Moments)


def check_kernel(density):
    """Like a sum over Gaussian kernels around what was seen, and the prior with the weight of one observation."""
    rows, at = draws("kernel", 20, 2), draws("kernel", 30, 2, seed=1)
    h = np.sqrt(4 * (1 - 1 / 9) ** 3)
    kernels = scipy_stats.norm.pdf(at[:, None], rows[None], h).prod(axis=-1).sum(axis=1)
    prior = scipy_stats.norm.pdf(at, 0, np.sqrt(1 + h**2)).prod(axis=-1)
    expected = np.log((kernels + prior) / 21)
    assert np.abs(log_probs(density, fitted(density, rows), at) - expected).mean() < 0.06
    np.testing.assert_allclose(log_probs(density, density.init(), at), np.log(prior), rtol=1e-4)


def test_kernel_is_a_sum_of_kernels():
    check_kernel(KernelMean(2, 20_000))
    median = np.median(np.linalg.norm(draws("kernel", 4000, 2) - draws("kernel", 4000, 2, seed=1), axis=1))
    assert KernelMean(2).h == pytest.approx(median, rel=0.03)


@dataclass(frozen=True)
class HalfTheExponent(KernelMean):
    """Features of exp(x y) scaled by exp(-|x|^2 / 2), whose product is no Gaussian of x - y."""

    def phi(self, x):
        return super().phi(x) * jnp.exp(jnp.sum((x / self.h) ** 2) / 2)


@pytest.mark.parametrize("wrong", [HalfTheExponent(2, 20_000), KernelMean(2, 20_000, bandwidth=1.5)])
def test_the_check_of_kernels_finds(wrong):
    with pytest.raises(AssertionError):
        check_kernel(wrong)


def check_neighbours(density, k):
    """By sorting; missing neighbours are sqrt(2 dim) away, and what left the window is forgotten."""
    rows, at = draws("neighbours", 9, 3), draws("neighbours", 5, 3, seed=1)
    for n in (0, 1, 6, 9):
        seen = rows[max(0, n - 6) : n]
        distances = np.sort(np.linalg.norm(at[:, None] - seen[None], axis=-1), axis=1)
        padded = np.concatenate([distances, np.full((5, 6 - len(seen)), np.sqrt(6))], axis=1)
        nearest = np.sort(padded, axis=1)[:, :k]
        np.testing.assert_allclose(
            log_probs(density, fitted(density, rows[:n]), at), -np.log1p(nearest.mean(axis=1)), rtol=1e-4
        )


def test_neighbours_are_the_nearest_of_the_window():
    check_neighbours(Neighbours(3, window=6, k=2), 2)


def test_the_check_of_neighbours_finds():
    """A window that forgets nothing, and another number of neighbours."""
    for wrong in (Neighbours(3, window=9, k=2), Neighbours(3, window=6, k=3)):
        with pytest.raises(AssertionError):
            check_neighbours(wrong, 2)


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYMBOLS)
def test_a_density_of_symbols_is_refused_for_real_numbers(name):
    with pytest.raises(UserError, match=f"density is '{name}', which counts symbols, and observations of 'point' are "):
        check_density(name, 2, POINT)
    with pytest.raises(UserError, match="symbols is 12: expected 140, as observations of 'block:line18' have them"):
        check_density(name, 12, BLOCK)
    check_density(name, 140, BLOCK)


@pytest.mark.parametrize("name", REALS)
def test_a_density_of_numbers_takes_symbols_too(name):
    check_density(name, 2, POINT)
    check_density(name, 140, BLOCK)
