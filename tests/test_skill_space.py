"""Skill priors and what a skill's direction means (sheet, sections 1.5 and 7.1)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.errors import UserError
from urlrl.learners.skills import SkillSpace, hold_skill
from urlrl.types import All, Carry, Each, Skill

N = 20_000
KINDS = ("sphere", "wide_sphere", "gaussian", "onehot")


def check_sphere_prior(space_class):
    for d in (1, 2, 5):
        z = np.asarray(space_class("sphere", d).sample(jax.random.key(0), N))
        assert z.shape == (N, d) and z.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.03)
        np.testing.assert_allclose(z.T @ z / N, np.eye(d) / d, atol=0.02)
        # Uniform over angles, not only of the right covariance: E z_i^4 = 3 / (d (d + 2)).
        np.testing.assert_allclose((z**4).mean(axis=0), 3 / (d * (d + 2)), atol=0.01)


class NormalisedCube(SkillSpace):
    """Points of a cube, projected to the sphere: too many near the corners."""

    def sample(self, key, n):
        z = jax.random.uniform(key, (n, self.dim), minval=-1.0)
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


class NotNormalised(SkillSpace):
    def sample(self, key, n):
        return jax.random.normal(key, (n, self.dim)) / self.dim**0.5


class NormalisedOverTheBatch(SkillSpace):
    def sample(self, key, n):
        z = jax.random.normal(key, (n, self.dim))
        return z / jnp.linalg.norm(z, axis=0, keepdims=True)


class PositiveOrthant(SkillSpace):
    def sample(self, key, n):
        return jnp.abs(super().sample(key, n))


def test_sphere_prior():
    check_sphere_prior(SkillSpace)


@pytest.mark.parametrize("wrong", [NormalisedCube, NotNormalised, NormalisedOverTheBatch, PositiveOrthant])
def test_sphere_prior_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_sphere_prior(wrong)


def check_wide_sphere(space_class):
    """The unit sphere's draws and projections, sqrt(d) times as long; as drawn, a skill is its own direction."""
    for d in (1, 2, 9):
        wide, unit = space_class("wide_sphere", d), SkillSpace("sphere", d)
        assert wide.typical_norm == d**0.5
        draws = [(space.sample(jax.random.key(0), 50), space.spread(7, jax.random.key(1))) for space in (wide, unit)]
        for z, of_unit in zip(*draws):
            assert z.dtype == jnp.float32
            np.testing.assert_allclose(np.linalg.norm(z, axis=1), d**0.5, rtol=1e-5)
            np.testing.assert_allclose(z, d**0.5 * np.asarray(of_unit), rtol=1e-5)
            np.testing.assert_array_equal(wide.direction(z), z)
    by_hand = space_class("wide_sphere", 4).project(jnp.float32([[0, 3, 0, 0], [1, -1, 1, 1], [0, 0, 0, 0]]))
    np.testing.assert_allclose(by_hand, [[0, 2, 0, 0], [1, -1, 1, 1], [2, 0, 0, 0]], rtol=1e-5)


class UnitLength(SkillSpace):
    typical_norm = 1.0


class LengthIsDim(SkillSpace):
    typical_norm = property(lambda self: float(self.dim))


class WideDrawsAlone(SkillSpace):
    """Projections stay of length 1."""

    def project(self, x):
        return SkillSpace("sphere", self.dim).project(x)

    def sample(self, key, n):
        return SkillSpace("wide_sphere", self.dim).sample(key, n)


def test_wide_sphere():
    check_wide_sphere(SkillSpace)


@pytest.mark.parametrize("wrong", [UnitLength, LengthIsDim, WideDrawsAlone])
def test_wide_sphere_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_wide_sphere(wrong)


def test_no_skills():
    space = SkillSpace("none", 0)
    for z in (space.sample(jax.random.key(0), 5), space.spread(5, jax.random.key(0))):
        assert z.shape == (5, 0) and z.dtype == jnp.float32
    assert (
        space.project(np.zeros((2, 5, 0), np.float32)).shape == space.direction(np.zeros((2, 5, 0))).shape == (2, 5, 0)
    )
    with pytest.raises(UserError, match=r"^dim is 2: expected a number of at least 0 and at most 0\.$"):
        SkillSpace("none", 2)
    for kind in KINDS:
        with pytest.raises(UserError, match=r"^dim is 0: expected a number of at least 1\.$"):
            SkillSpace(kind, 0)


def check_gaussian_prior(space_class):
    for d, mean_norm in ((2, 1.2533), (3, 1.5958)):
        space = space_class("gaussian", d)
        z = np.asarray(space.sample(jax.random.key(0), N))
        assert z.shape == (N, d) and z.dtype == np.float32
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.03)
        np.testing.assert_allclose(z.T @ z / N, np.eye(d), atol=0.04)
        np.testing.assert_allclose(np.linalg.norm(z, axis=1).mean(), mean_norm, atol=0.02)
        np.testing.assert_allclose(space.typical_norm, mean_norm, atol=1e-4)


class GaussianOnTheSphere(SkillSpace):
    def sample(self, key, n):
        return SkillSpace("sphere", self.dim).sample(key, n)


class NormIsRootOfDim(SkillSpace):
    """sqrt(E|z|^2) for E|z|."""

    typical_norm = property(lambda self: self.dim**0.5)


def test_gaussian_prior():
    check_gaussian_prior(SkillSpace)


@pytest.mark.parametrize("wrong", [GaussianOnTheSphere, NormIsRootOfDim])
def test_gaussian_prior_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_gaussian_prior(wrong)


def check_onehot_prior(space_class):
    z = np.asarray(space_class("onehot", 5).sample(jax.random.key(0), N))
    assert z.shape == (N, 5) and z.dtype == np.float32
    assert (np.sort(z, axis=1) == [0, 0, 0, 0, 1]).all()
    np.testing.assert_allclose(z.mean(axis=0), 1 / 5, atol=0.02)


class LastIndexNeverDrawn(SkillSpace):
    def sample(self, key, n):
        return jax.nn.one_hot(jax.random.randint(key, (n,), 0, self.dim - 1), self.dim)


class CentredForTheNetworks(SkillSpace):
    """Networks get the raw one-hot; only the inner product gets the centred one."""

    def sample(self, key, n):
        return self.direction(super().sample(key, n))


def test_onehot_prior():
    check_onehot_prior(SkillSpace)


@pytest.mark.parametrize("wrong", [LastIndexNeverDrawn, CentredForTheNetworks])
def test_onehot_prior_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_onehot_prior(wrong)


def check_direction(space_class):
    for n in (2, 3, 16, 24):
        v = np.asarray(space_class("onehot", n).direction(jnp.eye(n)), np.float64)
        gram = np.where(np.eye(n, dtype=bool), n / (n - 1), -n / (n - 1) ** 2)
        np.testing.assert_allclose(v @ v.T, gram, atol=1e-6)
        np.testing.assert_allclose(v.sum(axis=1), 0, atol=1e-6)
        np.testing.assert_allclose(v.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(np.diag(v), 1, atol=1e-6)
        np.testing.assert_allclose(v[~np.eye(n, dtype=bool)], -1 / (n - 1), atol=1e-6)
    z = np.float32([[0.6, -0.8], [3.0, 4.0]])
    for kind in ("sphere", "wide_sphere", "gaussian"):
        np.testing.assert_array_equal(space_class(kind, 2).direction(z), z)


class Uncentred(SkillSpace):
    def direction(self, z):
        return z


class CentredNotScaled(SkillSpace):
    def direction(self, z):
        return z - 1 / self.dim if self.kind == "onehot" else z


class ScaledToUnitLength(SkillSpace):
    def direction(self, z):
        v = super().direction(z)
        return v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-8)


def test_direction():
    check_direction(SkillSpace)


@pytest.mark.parametrize("wrong", [Uncentred, CentredNotScaled, ScaledToUnitLength])
def test_direction_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_direction(wrong)


def check_project(space_class):
    """Of all skills of its norm, the projection of x has the largest inner product with x."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 50, 3)).astype(np.float32) * 10
    for kind in KINDS:
        space = space_class(kind, 3)
        z = space.project(x)
        assert z.shape == x.shape and z.dtype == jnp.float32
        if kind != "onehot":
            np.testing.assert_allclose(np.linalg.norm(z, axis=-1), space.typical_norm, rtol=1e-5)
        others = np.eye(3) if kind == "onehot" else np.asarray(space.project(rng.standard_normal((500, 3))))
        best = (x @ others.T).max(axis=-1)
        assert (np.sum(x * np.asarray(z), axis=-1) >= best - 1e-4).all()
        np.testing.assert_allclose(space.project(1e-3 * x), z, rtol=1e-5)
        np.testing.assert_array_equal(space.project(x[0, 0]), z[0, 0])
        # No direction: still a skill of the prior.
        assert np.isclose(np.linalg.norm(space.project(jnp.zeros((1, 3)))), space.typical_norm)


class Backwards(SkillSpace):
    def project(self, x):
        return super().project(-x)


class Shrinks(SkillSpace):
    """x / (|x| + 1): the direction, of the wrong length."""

    def project(self, x):
        return super().project(x) * (1 - 1 / (1 + jnp.linalg.norm(x, axis=-1, keepdims=True)))


class ZeroWithoutDirection(SkillSpace):
    def project(self, x):
        return jnp.where(jnp.linalg.norm(x, axis=-1, keepdims=True) > 1e-8, super().project(x), 0.0)


class SignOfEach(SkillSpace):
    """A corner of the cube."""

    def project(self, x):
        return jnp.sign(x) / self.dim**0.5 * self.typical_norm


def test_project():
    check_project(SkillSpace)


@pytest.mark.parametrize("wrong", [Backwards, Shrinks, ZeroWithoutDirection, SignOfEach])
def test_project_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_project(wrong)


def check_spread(space_class):
    """Indices are split evenly: equally many of each, and over the whole range when there are more than asked for."""
    for d, n, expected in (
        (4, 8, [0, 1, 2, 3, 0, 1, 2, 3]),
        (4, 6, [0, 1, 2, 3, 0, 1]),
        (8, 4, [0, 2, 4, 6]),
        (3, 3, [0, 1, 2]),
    ):
        z = np.asarray(space_class("onehot", d).spread(n, jax.random.key(0)))
        assert z.shape == (n, d) and z.dtype == np.float32
        np.testing.assert_array_equal(z.argmax(axis=1), expected)
    for kind in ("sphere", "wide_sphere", "gaussian"):
        space = space_class(kind, 2)
        np.testing.assert_array_equal(space.spread(6, jax.random.key(3)), space.sample(jax.random.key(3), 6))


class RandomIndices(SkillSpace):
    def spread(self, n, key):
        return self.sample(key, n)


class FirstIndicesOnly(SkillSpace):
    def spread(self, n, key):
        return jnp.eye(self.dim)[jnp.arange(n) % self.dim] if self.kind == "onehot" else self.sample(key, n)


def test_spread():
    check_spread(SkillSpace)


@pytest.mark.parametrize("wrong", [RandomIndices, FirstIndicesOnly])
def test_spread_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_spread(wrong)


class Follower:
    """An agent whose action is its skill, scaled by the temperature."""

    class config:
        z = SkillSpace("sphere", 3)

    def sample_actions(self, obs, z, key, temperature=1.0):
        return z * temperature


def check_skill_is_held(begin, act):
    agent, obs = Follower(), jnp.zeros((4, 2))
    carry = begin(agent, jax.random.key(0), 4, None)
    np.testing.assert_allclose(np.linalg.norm(carry.z, axis=1), 1, atol=1e-6)
    assert carry.z.shape == (4, 3) and not np.allclose(carry.z[0], carry.z[1])
    later = carry
    for step in range(3):
        action, later = act(agent, obs, later, jax.random.key(step), 0.5)
        np.testing.assert_array_equal(action, 0.5 * carry.z)
        np.testing.assert_array_equal(later.z, carry.z)


begin, act = hold_skill()


def one_skill_for_all(agent, key, n, plan):
    z = agent.config.z.sample(key, 1)
    return begin(agent, jax.random.key(9), n, plan)._replace(stored={"z": jnp.broadcast_to(z, (n, 3))})


def redraws_each_step(agent, obs, carry, key, temperature=1.0):
    return act(agent, obs, begin(agent, key, len(obs), None), key, temperature)


def drops_temperature(agent, obs, carry, key, temperature=1.0):
    return act(agent, obs, carry, key)


def test_skill_is_held():
    check_skill_is_held(begin, act)


@pytest.mark.parametrize(
    "begin, act",
    [(one_skill_for_all, act), (begin, redraws_each_step), (begin, drops_temperature)],
)
def test_skill_is_held_check_finds(begin, act):
    with pytest.raises(AssertionError):
        check_skill_is_held(begin, act)


def played(carry: Carry, act, steps: int) -> np.ndarray:
    """(steps, n, d): the skills of an agent that begins like this."""
    skills = []
    for t in range(steps):
        _, carry = act(Follower(), jnp.zeros((4, 2)), carry, jax.random.key(100 + t))
        skills.append(carry.z)
    return np.stack(skills)


def test_a_skill_of_some_steps_is_drawn_anew_when_they_are_over():
    begin, act = hold_skill(steps=3)
    first = begin(Follower(), jax.random.key(0), 4, None)
    z = played(first, act, 9)
    np.testing.assert_array_equal(z[0], first.z)
    changes = (z[1:] != z[:-1]).any(axis=(1, 2))
    np.testing.assert_array_equal(np.flatnonzero(changes), [2, 5])
    assert len(np.unique(z[:, 0, 0])) == 3 and len(np.unique(z[3, :, 0])) == 4


@pytest.mark.parametrize("steps", [None, 2])
def test_a_skill_that_it_is_told_is_kept(steps):
    begin, act = hold_skill(steps)
    each = np.eye(4, 3, dtype=np.float32)
    z = played(begin(Follower(), jax.random.key(0), 4, None, Each(Skill(each))), act, 5)
    np.testing.assert_array_equal(z, np.broadcast_to(each, z.shape))
    z = played(begin(Follower(), jax.random.key(0), 4, None, All(Skill(each[0]))), act, 5)
    np.testing.assert_array_equal(z, np.broadcast_to(each[0], z.shape))


class Aiming(Follower):
    """It aims at its task, away from where it is."""

    def aim(self, task, obs):
        return jnp.broadcast_to(task, obs.shape) - obs


@pytest.mark.parametrize("one", [False, True])
def test_a_task_is_aimed_at_in_every_step(one):
    task = np.arange(3, dtype=np.float32) if one else np.arange(12, dtype=np.float32).reshape(4, 3)
    carry = begin(Aiming(), jax.random.key(0), 4, None, All(task) if one else Each(task))
    assert carry.z.shape == (4, 3) and not carry.z.any()  # Nothing has been seen yet.
    for t in range(2):
        obs = jnp.full((4, 3), float(t))
        action, later = act(Aiming(), obs, carry, jax.random.key(t))
        np.testing.assert_array_equal(later.z, np.broadcast_to(task, (4, 3)) - t)
        np.testing.assert_array_equal(action, later.z)
        assert jax.tree.structure(later) == jax.tree.structure(carry)
        carry = later
