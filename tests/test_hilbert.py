"""Hilbert representations against hand-written NumPy and on graphs (sheet of zero-shot offline RL, sections 1.1, 5.1
and 6.1)."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urlrl.learners.hilbert import Hilbert
from urlrl.learners.model import Model
from urlrl.learners.nets import MLP

OBS, DIM, BATCH, LR = 4, 3, 6, 0.05
SGD = optax.sgd(LR)
GAMMA, EXPECTILE, TAU = 0.9, 0.8, 0.25


class BothLinear(nn.Module):
    """phi_i = s w_i."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(1.0), (2, x.shape[-1], DIM))
        return jnp.stack([x @ w[0], x @ w[1]])


def make_hilbert(w, w_bar, tx=SGD, hilbert_class=Hilbert, expectile=EXPECTILE, tau=TAU, gamma=GAMMA) -> Hilbert:
    params = {"w": jnp.float32(w)}
    phi = Model(params=params, opt_state=tx.init(params), module=BothLinear(), tx=tx)
    return hilbert_class(phi=phi, target={"w": jnp.float32(w_bar)}, gamma=gamma, expectile=expectile, tau=tau)


jit_update = jax.jit(lambda hilbert, *batch: hilbert.update(*batch))


# --- One update -------------------------------------------------------------------------------------------------------


class World(NamedTuple):
    """The numbers of an update, float64: parameters, then a batch. In row 0 the state is the goal, in row 1 it counts
    as such, row 2's goal is any state."""

    w: np.ndarray  # (2, obs, d)
    w_bar: np.ndarray
    obs: np.ndarray
    next_obs: np.ndarray
    goal: np.ndarray
    goal_steps: np.ndarray


def make_world(seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    obs, next_obs, goal = rng.standard_normal((3, BATCH, OBS))
    goal[0] = obs[0]
    w, w_bar = 0.6 * rng.standard_normal((2, 2, OBS, DIM))
    return World(w, w_bar, obs, next_obs, goal, np.array([0, 0, -1, 1, 7, 2]))


def gradient(loss, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Central differences of a scalar function at x, float64."""
    slopes = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        slopes[i] = (loss(x + step) - loss(x - step)) / (2 * h)
    return slopes


def values(w: np.ndarray, s: np.ndarray, g: np.ndarray, mistake: str = "", frozen=None) -> np.ndarray:
    """V_i(s, g), (2, B)."""
    goal_w = frozen if mistake == "goals without gradient" and frozen is not None else w
    square = np.square(np.stack([s @ a - g @ b for a, b in zip(w, goal_w)])).sum(axis=-1)
    if mistake == "root of a sum":
        return -np.sqrt(square + 1e-2)
    return -square if mistake == "squared distance" else -np.sqrt(np.maximum(square, 1e-6))


def library_step(world: World):
    batch = [jnp.float32(x) for x in world[2:5]] + [jnp.int32(world.goal_steps)]
    hilbert, metrics = jit_update(make_hilbert(world.w, world.w_bar), *batch)
    return hilbert.phi.params["w"], hilbert.target["w"], metrics["phi/loss"], metrics["phi/distance"]


def numpy_step(world: World, mistake: str = ""):
    """One update of the sheet's section 1.1; `mistake` names what is done wrong."""
    w, w_bar, s, s_next, g, steps = world
    reached = (steps <= 0 if mistake == "any state counts as reached" else steps == 0).astype(float)
    reward = reached if mistake == "reward 1 at the goal" else reached - 1
    mask = 1 - (0 if mistake == "bootstraps through the goal" else reached)

    def loss(params):
        bar = {"targets of the online networks": w, "gradient through the targets": params}.get(mistake, w_bar)
        next_v, v_bar = values(bar, s_next, g), values(bar, s, g)
        both, own = reward + GAMMA * mask * next_v.min(axis=0), reward + GAMMA * mask * next_v
        baseline = v_bar.min(axis=0) if mistake == "baseline of the smaller target" else v_bar.mean(axis=0)
        advantage = own - v_bar if mistake == "each network its own weight" else both - baseline
        if mistake == "weight of the mean of both":
            advantage = own.mean(axis=0) - baseline
        if mistake == "weight of the error":
            advantage = own - values(params, s, g)
        weight = np.where(advantage >= 0, EXPECTILE, 1 - EXPECTILE)
        if mistake == "expectile upside down":
            weight = 1 - weight
        q = both if mistake == "both regress to the smaller target" else own
        square = weight * (q - values(params, s, g, mistake, w)) ** 2
        return square.mean() if mistake == "averaged over networks" else square.mean(axis=1).sum()

    new = w - LR * gradient(loss, w)
    tau = 1 - TAU if mistake == "tau for 1 - tau" else TAU
    target = (1 - tau) * w_bar + tau * (new if mistake == "targets averaged after the step" else w)
    return new, target, loss(w), -values(w, s, g).mean()


MISTAKES = (
    "each network its own weight", "weight of the mean of both", "weight of the error", "expectile upside down",
    "baseline of the smaller target", "both regress to the smaller target", "targets of the online networks",
    "gradient through the targets", "goals without gradient", "root of a sum", "squared distance",
    "averaged over networks", "reward 1 at the goal", "bootstraps through the goal", "any state counts as reached",
    "targets averaged after the step", "tau for 1 - tau",
)  # fmt: skip


def check_step(step):
    """On several batches, so that every weight is tried on both sides."""
    for seed in range(6):
        for a, b in zip(step(make_world(seed)), numpy_step(make_world(seed))):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_step_is_numpys():
    check_step(library_step)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_step_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_step(partial(numpy_step, mistake=mistake))


# --- A distance for any parameters ------------------------------------------------------------------------------------


def check_metric(hilbert_class):
    """V(s, g) = V(g, s), the triangle inequality, V(s, s) = -1e-3 and no bias elsewhere; a gradient that is finite
    everywhere, 0 where s is g."""
    rng = np.random.default_rng(0)
    hilbert = make_hilbert(*rng.standard_normal((2, 2, OBS, DIM)), hilbert_class=hilbert_class)
    params = hilbert.phi.params
    a, b, c = np.float32(rng.standard_normal((3, 50, OBS)))
    ab, ba, bc, ac, aa = (np.asarray(hilbert.value(x, y, params)) for x, y in ((a, b), (b, a), (b, c), (a, c), (a, a)))
    np.testing.assert_array_equal(ab, ba)
    assert (ac >= ab + bc - 1e-5).all() and (ab < 0).all()
    np.testing.assert_allclose(aa, -1e-3, rtol=1e-6)
    near = a + np.float32(1e-2) * b
    exact = -np.linalg.norm(np.stack([(near - a) @ w for w in np.asarray(params["w"])]), axis=-1)
    far = exact < -2e-3
    np.testing.assert_allclose(np.asarray(hilbert.value(a, near, params))[far], exact[far], rtol=2e-3)

    def total(params, goal):
        return jnp.sum(hilbert.value(a, goal, params))

    slope = jax.jit(jax.grad(total))
    np.testing.assert_array_equal(slope(params, jnp.asarray(a))["w"], 0)
    assert np.isfinite(slope(params, jnp.asarray(b))["w"]).all()


class BareRoot(Hilbert):
    def value(self, obs, goal, params):
        difference = self.phi(obs, params=params) - self.phi(goal, params=params)
        return -jnp.sqrt(jnp.sum(difference**2, axis=-1))


class RootOfASum(Hilbert):
    def value(self, obs, goal, params):
        difference = self.phi(obs, params=params) - self.phi(goal, params=params)
        return -jnp.sqrt(jnp.sum(difference**2, axis=-1) + 1e-6)


class FloorOnTheDistance(Hilbert):
    """The floor is above the root: behind it, 0 times infinity."""

    def value(self, obs, goal, params):
        return jnp.minimum(BareRoot.value(self, obs, goal, params), -1e-3)


class SquaredDistance(Hilbert):
    def value(self, obs, goal, params):
        return -(super().value(obs, goal, params) ** 2) - 1e-3


class Asymmetric(Hilbert):
    def value(self, obs, goal, params):
        return super().value(obs, 1.01 * goal, params)


def test_metric():
    check_metric(Hilbert)


@pytest.mark.parametrize("wrong", [BareRoot, RootOfASum, FloorOnTheDistance, SquaredDistance, Asymmetric])
def test_metric_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_metric(wrong)


def test_the_first_encoder_is_what_others_see():
    w = np.random.default_rng(0).standard_normal((2, OBS, DIM))
    s = np.float32(np.random.default_rng(1).standard_normal((5, OBS)))
    hilbert = make_hilbert(w, 0 * w)
    np.testing.assert_allclose(hilbert(s), s @ w[0], rtol=1e-4, atol=1e-5)
    slope = jax.grad(lambda params: jnp.sum(hilbert.replace(phi=hilbert.phi.replace(params=params))(s)))
    assert (slope(hilbert.phi.params)["w"] == 0).all()


def test_create_starts_with_targets_that_are_copies_and_two_encoders():
    hilbert = Hilbert.create(
        MLP(DIM, 8), 0.02, jax.random.key(0), jnp.zeros((1, OBS)), gamma=0.7, expectile=0.6, tau=0.1
    )
    for online, target in zip(jax.tree.leaves(hilbert.phi.params), jax.tree.leaves(hilbert.target), strict=True):
        np.testing.assert_array_equal(online, target)
        assert online.unsafe_buffer_pointer() != target.unsafe_buffer_pointer()  # An alias cannot be donated.
    first, second = hilbert.phi(jnp.ones((2, OBS)))
    assert first.shape == (2, DIM) and not np.allclose(first, second, atol=1e-2)
    assert (hilbert.gamma, hilbert.expectile, hilbert.tau) == (0.7, 0.6, 0.1)
    updates, _ = hilbert.phi.tx.update(jnp.float32(1), hilbert.phi.tx.init(jnp.float32(0)))
    np.testing.assert_allclose(updates, -0.02, rtol=1e-4)


# --- A path of eleven states: any value function ----------------------------------------------------------------------

N = 11
LISTED = {  # expectile -> -V(0, 10), -V(9, 10): gamma 0.99, left and right equally often
    0.5: (57.04, 11.865), 0.7: (20.37, 2.420), 0.9: (11.64, 1.245), 0.95: (10.50, 1.109), 0.99: (9.736, 1.020),
    1.0: (9.562, 1.0),
}  # fmt: skip


def steps_of(neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(s, s', g) of every step, (n, 2) neighbours, toward every goal."""
    n, k = neighbours.shape
    s, move, g = (x.ravel() for x in np.meshgrid(np.arange(n), np.arange(k), np.arange(n), indexing="ij"))
    return s, neighbours[s, move], g


PATH = np.clip(np.arange(N)[:, None] + [-1, 1], 0, N - 1)


def numpy_fixed_point(expectile: float, gamma: float = 0.99, mistake: str = "") -> np.ndarray:
    """V(s, g) by sweeps of expectile regression on the two moves, (N, N)."""
    goal = np.eye(N, dtype=bool)
    v = np.where(goal, 0.0, -100.0)  # below the solution: where only rises count, V rises to it
    for _ in range(4000):
        q = -1 + gamma * v[PATH]  # (s, move, g)
        weight = np.where(q >= v[:, None], expectile, 1 - expectile)
        if mistake == "expectile upside down":
            weight = 1 - weight
        total = weight.sum(axis=1)
        v = np.where(goal, 0, np.where(total > 0, (weight * q).sum(axis=1) / np.where(total > 0, total, 1), v))
    return v


def library_fixed_point(expectile: float, gamma: float = 0.99) -> np.ndarray:
    """The library's update on a table over pairs: an observation names a state and the goal, the goal itself is at the
    origin, so that V(s, g) = -|w[s, g]| is any number."""
    s, s_next, g = steps_of(PATH)
    batch = [jnp.float32(np.eye(N * N)[i * N + g]) for i in (s, s_next)]
    zeros, steps = jnp.zeros_like(batch[0]), jnp.where(s == g, 0, 5)
    w = np.zeros((2, N * N, DIM))
    w[0, :, 0], w[1, :, 1] = 30.0, 40.0  # below the solution: where only rises count, V rises to it
    hilbert = make_hilbert(w, w, optax.sgd(0.45 * len(s)), expectile=expectile, tau=1.0, gamma=gamma)

    @jax.jit
    def learn(hilbert):
        return jax.lax.fori_loop(0, 1500, lambda _, h: h.update(*batch, zeros, steps)[0], hilbert)

    learned = learn(hilbert)
    v = np.asarray(learned.value(jnp.eye(N * N), jnp.zeros((N * N, N * N)), learned.phi.params))
    np.testing.assert_allclose(v[0], v[1], rtol=1e-3, atol=1e-3)
    return v[0].reshape(N, N)


def check_listed(fixed_point, expectiles=LISTED):
    """To 2e-3: the library's V is -1e-3 at the goal itself."""
    for expectile in expectiles:
        v = fixed_point(expectile)
        np.testing.assert_allclose(
            [-v[0, 10], -v[9, 10]], LISTED[expectile], rtol=5e-4, atol=2e-3, err_msg=str(expectile)
        )
    if 0.95 in expectiles:  # Not symmetric: no metric is exactly this.
        v = fixed_point(0.95)
        np.testing.assert_allclose([-v[0, 5], -v[5, 0]], [5.367, 5.424], atol=2e-3)


def test_listed_fixed_points():
    check_listed(numpy_fixed_point)
    for gamma, distances in ((0.99, (1, 4.901, 9.562)), (0.98, (1, 4.804, 9.146)), (0.96, (1, 4.616, 8.379))):
        v = numpy_fixed_point(1.0, gamma)
        np.testing.assert_allclose(-v[0, [1, 5, 10]], distances, rtol=1e-3)
        np.testing.assert_allclose(
            -v, (1 - gamma ** np.abs(np.subtract.outer(np.arange(N), np.arange(N)))) / (1 - gamma)
        )


def test_library_finds_the_listed_fixed_points():
    check_listed(library_fixed_point, expectiles=(0.5, 0.95))


def test_listed_check_finds_an_expectile_upside_down():
    with pytest.raises(AssertionError):
        check_listed(partial(numpy_fixed_point, mistake="expectile upside down"), expectiles=(0.9,))


# --- Learned distances ------------------------------------------------------------------------------------------------


def gram(distance: np.ndarray) -> np.ndarray:
    centre = np.eye(len(distance)) - 1 / len(distance)
    return -0.5 * centre @ distance**2 @ centre


def test_which_graphs_a_hilbert_space_holds():
    """Paths, discounted or not, fit exactly; rings do not: exact recovery is asked of paths alone."""
    d = np.abs(np.subtract.outer(np.arange(N), np.arange(N))).astype(float)
    for metric in (d, (1 - 0.99**d) / 0.01, (1 - 0.9**d) / 0.1):
        assert np.linalg.eigvalsh(gram(metric)).min() > -1e-9
    for n, smallest in ((4, -1.0), (6, -2.0), (8, -4.0)):
        apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        found = np.linalg.eigvalsh(gram(np.minimum(apart, n - apart).astype(float))).min()
        np.testing.assert_allclose(found, smallest, atol=1e-9)


@partial(jax.jit, static_argnames=("expectile", "gamma"))
def learn_distances(neighbours, key, expectile: float, gamma: float, steps=2500):
    """Distances (n, n) of a small network's first encoder, trained on every step towards every goal at once."""
    n = neighbours.shape[0]
    s, move, g = (x.ravel() for x in jnp.meshgrid(jnp.arange(n), jnp.arange(2), jnp.arange(n), indexing="ij"))
    states = jnp.eye(n)
    batch = states[s], states[neighbours[s, move]], states[g], jnp.where(s == g, 0, 1)
    encoder = MLP(8, 32, depth=1)
    hilbert = Hilbert.create(encoder, 3e-3, key, states, gamma=gamma, expectile=expectile, tau=0.1)
    hilbert = jax.lax.fori_loop(0, steps, lambda _, h: h.update(*batch)[0], hilbert)
    phi = hilbert(states)
    return jnp.linalg.norm(phi[:, None] - phi[None], axis=-1)


def check_path(distance):
    """Within 5 % of the discounted number of steps, 3 % on average."""
    steps = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
    exact = (1 - 0.96**steps) / 0.04
    error = np.abs(distance - exact)[steps > 0] / exact[steps > 0]
    assert error.max() < 0.05 and error.mean() < 0.03, (error.max(), error.mean())


def learned_path(**changes):
    expectile, steps = changes.get("expectile", 0.99), changes.get("steps", 2500)
    return np.asarray(
        learn_distances(jnp.asarray(PATH), jax.random.key(0), expectile, changes.get("gamma", 0.96), steps)
    )


def test_a_path_is_learned():
    check_path(learned_path())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"expectile": 0.5}, id="the distance of what the data does"),
        pytest.param({"steps": 100}, id="not converged"),
    ],
)
def test_path_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_path(learned_path(**wrong))


def ranks(x: np.ndarray) -> np.ndarray:
    """With ties at their mean."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def test_a_ring_is_learned_in_order():
    """It fits in no Hilbert space; what is nearer must still be nearer: rank correlation above 0.95."""
    n = N
    ring = (np.arange(n)[:, None] + [-1, 1]) % n
    found = np.asarray(learn_distances(jnp.asarray(ring), jax.random.key(1), 0.99, 0.96))
    apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    steps, upper = np.minimum(apart, n - apart), np.triu_indices(n, 1)
    correlation = np.corrcoef(ranks(steps[upper]), ranks(np.round(found[upper], 6)))[0, 1]
    assert correlation > 0.95
    path = np.asarray(learn_distances(jnp.asarray(PATH), jax.random.key(1), 0.99, 0.96))
    assert np.corrcoef(ranks(steps[upper]), ranks(path[upper]))[0, 1] < 0.8  # Wrong: the distances of a path.
