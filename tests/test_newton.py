"""The solver of contacts against a general optimiser, in double precision, and its line search against a fine grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from urlrl.envs.newton import constrained_acceleration, line_minimum


def problem(seed: int, nv: int = 5, m: int = 14) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((nv, nv))
    jacobian = rng.standard_normal((m, nv))
    jacobian[-2:] = 0  # constraints that are off
    return {
        "mass": root @ root.T + 0.1 * np.eye(nv),
        "smooth": rng.standard_normal(nv),
        "jacobian": jacobian,
        "reference": rng.standard_normal(m),
        "stiffness": 10 ** rng.uniform(-1, 3, m),
    }


def cost(p: dict[str, np.ndarray], a: np.ndarray) -> float:
    gap = np.minimum(p["jacobian"] @ a - p["reference"], 0)
    return 0.5 * (a - p["smooth"]) @ p["mass"] @ (a - p["smooth"]) + 0.5 * p["stiffness"] @ gap**2


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_the_minimum_and_its_force(seed):
    p = problem(seed)
    best = minimize(lambda a: cost(p, a), p["smooth"], method="BFGS", options={"gtol": 1e-9, "maxiter": 10_000})
    with jax.enable_x64(True):
        for start in (p["smooth"], p["smooth"] + 10.0, best.x):
            a, force = constrained_acceleration(**p, start=start, iterations=30)  # These are harder than any body's.
            np.testing.assert_allclose(a, best.x, atol=1e-5)
            np.testing.assert_allclose(force, p["mass"] @ (a - p["smooth"]), rtol=1e-6, atol=1e-6)  # They balance.


def test_an_equality_is_two_rows():
    """Where all that holds is a @ j = r, whatever its force's sign: the least-squares problem has a closed form."""
    p = problem(1)
    j, r, d = p["jacobian"][:3], p["reference"][:3], p["stiffness"][:3]
    best = np.linalg.solve(p["mass"] + j.T @ (d[:, None] * j), p["mass"] @ p["smooth"] + j.T @ (d * r))
    rows = {"jacobian": np.concatenate([j, -j]), "reference": np.concatenate([r, -r]), "stiffness": np.tile(d, 2)}
    with jax.enable_x64(True):
        a, _ = constrained_acceleration(**p | rows, start=p["smooth"], iterations=30)
    np.testing.assert_allclose(a, best, atol=1e-8)


def test_nothing_touches():
    p = problem(0)
    p["reference"] = p["jacobian"] @ p["smooth"] - 1.0  # All gaps are 1.
    a, force = constrained_acceleration(**jax.tree.map(jnp.float32, p), start=jnp.float32(p["smooth"]) + 1)
    np.testing.assert_allclose(a, p["smooth"], atol=1e-5)
    np.testing.assert_allclose(force, 0, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_the_line_search_is_exact(seed):
    rng = np.random.default_rng(seed)
    gap, rate, stiffness = rng.standard_normal(9), rng.standard_normal(9), 10 ** rng.uniform(-1, 2, 9)
    rate[0] = 0
    slope = -np.abs(rng.standard_normal()) - np.minimum(gap, 0) @ (stiffness * rate)  # At 0 it falls.
    curvature = rng.uniform(0.01, 1)
    t = np.linspace(0, 50, 500_001)
    inside = np.minimum(gap + t[:, None] * rate, 0)
    value = slope * t + 0.5 * curvature * t**2 + 0.5 * inside**2 @ stiffness
    found = line_minimum(*(jnp.float32(x) for x in (slope, curvature, gap, rate, stiffness)))
    assert abs(found - t[value.argmin()]) < max(2e-4, 1e-4 * found)


def test_no_way_is_no_step():
    zeros = jnp.zeros(4)
    assert line_minimum(jnp.float32(0), jnp.float32(0), jnp.ones(4), zeros, jnp.ones(4)) == 0
