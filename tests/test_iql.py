"""Implicit Q-learning against hand-written NumPy (sheet of zero-shot offline RL, sections 1.1, 5.1 and 6.10)."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urlrl.errors import UserError
from urlrl.learners.distributions import Gaussian
from urlrl.learners.iql import IQL, MAX_WEIGHT, IQLConfig, expectile_loss
from urlrl.learners.model import Model
from urlrl.learners.nets import MLP, GaussianPolicy, Pair, SoftBins, gelu_tanh

IN, ACT, BATCH, LR = 3, 2, 6, 0.05
SGD = optax.sgd(LR)
CONFIG = IQLConfig(width=16, depth=3, lr=1e-3, gamma=0.9, tau=0.25, expectile=0.8, inverse_temperature=3.0)


class LinearValue(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ self.param("w", nn.initializers.normal(1.0), (x.shape[-1], 1))


class LinearCritics(nn.Module):
    @nn.compact
    def __call__(self, xa):
        w = self.param("w", nn.initializers.normal(1.0), (2, xa.shape[-1], 1))
        return jnp.stack([xa @ w[0], xa @ w[1]])


class LinearGaussian(nn.Module):
    """The last row of w is the logarithm of the standard deviation."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(1.0), (x.shape[-1] + 1, ACT))
        mean = x @ w[:-1]
        return Gaussian(mean, jnp.broadcast_to(w[-1], mean.shape))


class World(NamedTuple):
    """The numbers of an update, float64: parameters, then a batch."""

    actor: np.ndarray  # (in + 1, act)
    value: np.ndarray  # (in, 1)
    critic: np.ndarray  # (2, in + act, 1)
    target: np.ndarray
    x: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    next_x: np.ndarray


def make_world(seed: int = 0, scale: float = 0.6) -> World:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal
    return World(
        actor=0.4 * normal((IN + 1, ACT)), value=scale * normal((IN, 1)), critic=scale * normal((2, IN + ACT, 1)),
        target=scale * normal((2, IN + ACT, 1)), x=normal((BATCH, IN)), action=rng.uniform(-1, 1, (BATCH, ACT)),
        reward=normal(BATCH), discount=np.array([1.0, 0, 1, 1, 0, 1]), next_x=normal((BATCH, IN)),
    )  # fmt: skip


def make_iql(world: World, config: IQLConfig = CONFIG) -> IQL:
    def model(module, w):
        params = {"w": jnp.float32(w)}
        return Model(params=params, opt_state=SGD.init(params), module=module, tx=SGD)

    return IQL(
        actor=model(LinearGaussian(), world.actor),
        value=model(LinearValue(), world.value),
        critic=model(LinearCritics(), world.critic),
        target={"w": jnp.float32(world.target)},
        config=config,
    )


jit_update = jax.jit(lambda iql, *batch: iql.update(*batch))


def library_step(world: World, config: IQLConfig = CONFIG) -> tuple[World, dict]:
    iql, metrics = jit_update(make_iql(world, config), *(jnp.float32(x) for x in world[4:]), jax.random.key(0))
    networks = (iql.actor.params, iql.value.params, iql.critic.params, iql.target)
    return World(*(params["w"] for params in networks), *world[4:]), metrics


def gradient(loss, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Central differences of a scalar function at x, float64."""
    slopes = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        slopes[i] = (loss(x + step) - loss(x - step)) / (2 * h)
    return slopes


def log_density(w: np.ndarray, x: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Of a normal distribution, summed over action dimensions, (B,)."""
    std = np.exp(w[-1])
    return (-0.5 * ((action - x @ w[:-1]) / std) ** 2 - w[-1] - 0.5 * np.log(2 * np.pi)).sum(axis=1)


def numpy_step(world: World, config: IQLConfig = CONFIG, mistake: str = "") -> tuple[World, dict]:
    """One update of the sheet's section 1.1, the latent policy; `mistake` names what is done wrong."""
    xa = np.concatenate([world.x, world.action], axis=1)

    def q(w):
        return np.stack([xa @ v for v in w])[..., 0]

    bars = q(world.critic if mistake == "no target critics" else world.target)
    bar = bars.mean(axis=0) if mistake == "mean of both targets" else bars.min(axis=0)

    def value_loss(w):
        u = bar - (world.x @ w)[:, 0]
        up = 1 - config.expectile if mistake == "expectile upside down" else config.expectile
        return np.mean(np.where(u < 0, 1 - up, up) * u**2) * (0.5 if mistake == "half of the value loss" else 1)

    value = world.value - LR * gradient(value_loss, world.value)
    next_v = (world.next_x @ (value if mistake == "the value after its step" else world.value))[:, 0]
    if mistake == "bootstraps from the critics":
        next_a = np.concatenate([world.next_x, world.next_x @ world.actor[:-1]], axis=1)
        next_v = np.stack([next_a @ w for w in world.target])[..., 0].min(axis=0)
    discount = np.ones(BATCH) if mistake == "bootstraps through terminals" else world.discount
    y = world.reward + config.gamma * discount * next_v

    def critic_loss(w):
        square = (q(w) - y) ** 2
        return square.mean() if mistake == "critic loss averaged over critics" else square.mean(axis=1).sum()

    critic = world.critic - LR * gradient(critic_loss, world.critic)
    v = (world.x @ (value if mistake == "advantage over the value after its step" else world.value))[:, 0]
    seen = q(world.critic).min(axis=0) if mistake == "advantage of the online critics" else bar
    beta = 1 / config.inverse_temperature if mistake == "temperature for its inverse" else config.inverse_temperature
    weight = np.exp(beta * (seen - v))
    if mistake != "weights without a limit":
        weight = np.minimum(weight, 100)
    if mistake == "weights that sum to one":
        weight = weight / weight.sum()

    def actor_loss(w):
        density = log_density(w, world.x, world.action)
        return -np.mean(weight * (density / ACT if mistake == "mean over action dimensions" else density))

    actor = world.actor - LR * gradient(actor_loss, world.actor)
    tau = 1 - config.tau if mistake == "tau for 1 - tau" else config.tau
    online = critic if mistake == "targets averaged after the step" else world.critic
    target = (1 - tau) * world.target + tau * online
    metrics = {
        "value/loss": value_loss(world.value), "critic/loss": critic_loss(world.critic),
        "critic/q": q(world.critic).mean(), "actor/loss": actor_loss(world.actor), "actor/weight": weight.mean(),
    }  # fmt: skip
    return World(actor, value, critic, target, *world[4:]), metrics


MISTAKES = (
    "no target critics", "mean of both targets", "expectile upside down", "half of the value loss",
    "the value after its step", "bootstraps from the critics", "bootstraps through terminals",
    "critic loss averaged over critics", "advantage over the value after its step", "advantage of the online critics",
    "temperature for its inverse", "weights without a limit", "weights that sum to one", "mean over action dimensions",
    "tau for 1 - tau", "targets averaged after the step",
)  # fmt: skip


def check_step(step):
    """On two worlds; in the second, weights are at their limit."""
    for world in (make_world(0), make_world(10, scale=2.0)):
        (found, metrics), (expected, numbers) = step(world), numpy_step(world)
        for name, a, b in list(zip(World._fields, found, expected))[:4]:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5, err_msg=name)
        assert set(metrics) == set(numbers)
        for name, value in numbers.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)


def test_step_is_numpys():
    check_step(library_step)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_step_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_step(partial(numpy_step, mistake=mistake))


# --- Expectiles -------------------------------------------------------------------------------------------------------


def check_expectile_loss(loss):
    """0.5 is half of the square; 0.9 counts what lies above nine times as much as what lies below."""
    u = np.float32([-2, -0.5, 0, 0.5, 3])
    np.testing.assert_allclose(loss(u, 0.5), 0.5 * u**2)
    np.testing.assert_allclose(loss(u, 0.9), [0.4, 0.025, 0, 0.225, 8.1], rtol=1e-5)
    np.testing.assert_allclose(loss(u, 1.0), [0, 0, 0, 0.25, 9])


def test_expectile_loss():
    check_expectile_loss(expectile_loss)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda u, tau: expectile_loss(-u, tau), id="upside down"),
        pytest.param(lambda u, tau: 2 * expectile_loss(u, tau), id="twice"),
        pytest.param(lambda u, tau: np.where(u < 0, 1 - tau, tau) * np.abs(u), id="quantile"),
    ],
)
def test_expectile_loss_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_expectile_loss(wrong)


def learned_value(q: np.ndarray, expectile: float) -> float:
    """V of one state whose actions are worth q, (BATCH,), by the library's updates with frozen target critics."""
    config = replace(CONFIG, expectile=expectile, tau=0.0)
    world = make_world()._replace(x=np.tile([1.0, 0, 0], (BATCH, 1)))
    target = np.zeros((2, IN + ACT, 1))
    target[:, IN] = 1.0  # Q = a_0
    batch = [jnp.float32(x) for x in world._replace(action=np.stack([q, 0 * q], axis=1))[4:]]

    def step(iql, key):
        return iql.update(*batch, key)[0], None

    iql = make_iql(world._replace(target=target), config)
    keys = jax.random.split(jax.random.key(0), 4000)
    iql, _ = jax.jit(lambda iql: jax.lax.scan(step, iql, keys))(iql.replace(actor=iql.actor.replace(tx=optax.sgd(0.0))))
    return float(iql.value.params["w"][0, 0])


def check_learned_value(value):
    """0.5 is the mean over actions; towards 1 it is the largest."""
    q = np.array([-1.0, 0.3, 0.7, -0.2, 0.1, 0.9])
    np.testing.assert_allclose(value(q, 0.5), q.mean(), atol=2e-3)
    assert 0.85 < value(q, 0.995) < 0.9


def test_the_value_is_an_expectile_of_the_actions():
    check_learned_value(learned_value)


def test_learned_value_check_finds_an_expectile_upside_down():
    with pytest.raises(AssertionError):
        check_learned_value(lambda q, expectile: learned_value(q, 1 - expectile))


# --- Weights ----------------------------------------------------------------------------------------------------------


def check_weights(update):
    """Finite and in [0, 100], whatever the advantages; all 1 at inverse temperature 0, where the policy's step is that
    of behaviour cloning and knows nothing of critics and values."""
    for scale in (1e-3, 1e3, 1e12):
        for seed in range(3):
            world = make_world(seed, scale)
            after, metrics = update(world, replace(CONFIG, inverse_temperature=10.0))
            assert 0 <= metrics["actor/weight"] <= MAX_WEIGHT
            assert np.isfinite(after.actor).all()
    world = make_world()
    cloned = world.actor - LR * gradient(lambda w: -log_density(w, world.x, world.action).mean(), world.actor)
    for scale in (0.6, 30.0):
        other = make_world(scale=scale)
        after, metrics = update(world._replace(value=other.value, target=other.target, critic=other.critic),
                                replace(CONFIG, inverse_temperature=0.0))  # fmt: skip
        np.testing.assert_allclose(after.actor, cloned, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(metrics["actor/weight"], 1.0)


def never_quite_zero(world, config):
    return library_step(world, replace(config, inverse_temperature=max(config.inverse_temperature, 0.1)))


def without_limit(world, config):
    with np.errstate(over="ignore", invalid="ignore"):
        return numpy_step(world, config, "weights without a limit")


def test_weights():
    check_weights(library_step)


@pytest.mark.parametrize("wrong", [never_quite_zero, without_limit])
def test_weights_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_weights(wrong)


# --- Networks and settings --------------------------------------------------------------------------------------------


def layer_norm(x: np.ndarray, params: Any) -> np.ndarray:
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
    return x * np.asarray(params["scale"]) + np.asarray(params["bias"])


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_networks():
    """Values: three times layer, GELU by tanh, norm; then a layer. Policy: three relu layers, a mean near 0, a standard
    deviation of 1 everywhere."""
    x, action = np.float32(np.random.default_rng(0).standard_normal((7, IN))), np.zeros((7, ACT), np.float32)
    iql = IQL.create(CONFIG, x[:1], action[:1], jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, iql.value.params)  # A forgotten bias is seen.
    h = x
    for i in range(3):
        kernel, bias = (np.asarray(params[f"Dense_{i}"][name]) for name in ("kernel", "bias"))
        h = layer_norm(gelu(h @ kernel + bias), params[f"LayerNorm_{i}"])
    expected = h @ np.asarray(params["Dense_3"]["kernel"]) + np.asarray(params["Dense_3"]["bias"])
    np.testing.assert_allclose(iql.value(x, params=params), expected, atol=1e-5)
    module = MLP(1, 16, 3, activation=gelu_tanh, norm=True)
    assert iql.value.module == module and iql.critic.module == Pair(module)
    assert iql.actor.module == GaussianPolicy(ACT, 16, 3)
    both = iql.q(x, action, iql.critic.params)
    assert both.shape == (2, 7) and not np.allclose(both[0], both[1], atol=1e-3)
    policy = iql.actor(x)
    assert np.abs(policy.mean).max() < 0.3 and (policy.log_std == 0).all()


def test_create_starts_with_targets_that_are_copies_and_one_rate():
    iql = IQL.create(CONFIG, jnp.zeros((1, IN)), jnp.zeros((1, ACT)), jax.random.key(0))
    for online, target in zip(jax.tree.leaves(iql.critic.params), jax.tree.leaves(iql.target), strict=True):
        np.testing.assert_array_equal(online, target)
        assert online.unsafe_buffer_pointer() != target.unsafe_buffer_pointer()  # An alias cannot be donated.
    for model in (iql.actor, iql.value, iql.critic):
        updates, _ = model.tx.update(jnp.float32(1), model.tx.init(jnp.float32(0)))
        np.testing.assert_allclose(updates, -CONFIG.lr, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma", 1.1), ("tau", -0.1), ("expectile", 1.5), ("inverse_temperature", -1.0), ("lr", 0.0), ("depth", 0)],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}: expected a"):
        IQLConfig(**{name: value})


# --- A learner that starts elsewhere ----------------------------------------------------------------------------------

BINS = SoftBins((1,), 4, -1.0, 1.0)
X = np.float32(np.random.default_rng(3).standard_normal((7, IN)))
ACTION = np.float32(np.random.default_rng(4).uniform(-1, 1, (7, ACT)))


def shaken(params):
    """None of them is zero, so that a forgotten bias is seen."""
    return jax.tree.map(lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size, dtype=jnp.float32)).reshape(p.shape), params)


def other_learner(config: IQLConfig = CONFIG) -> IQL:
    """One that has learned: its targets are not its critics, and its optimisers remember steps."""
    iql = IQL.create(config, X[:1], ACTION[:1], jax.random.key(0))
    parts = {name: getattr(iql, name) for name in ("actor", "value", "critic")}
    ones = {name: jax.tree.map(jnp.ones_like, model.opt_state) for name, model in parts.items()}
    return iql.replace(
        **{name: model.replace(params=shaken(model.params), opt_state=ones[name]) for name, model in parts.items()}
    )


def outputs(iql: IQL, x: np.ndarray) -> list[np.ndarray]:
    return [iql.actor(x).mode(), iql.actor(x).log_std, iql.value(x), iql.q(x, ACTION, None)]


def check_starts_over(iql: IQL, x: np.ndarray, parts: tuple[str, ...] = ("actor", "value", "critic")) -> None:
    """Its targets are a copy of its critics, its optimisers begin anew, and an update keeps every shape."""
    for target, online in zip(jax.tree.leaves(iql.target), jax.tree.leaves(iql.critic.params), strict=True):
        np.testing.assert_array_equal(target, online)
        assert target is not online
    assert not any(np.any(leaf) for name in parts for leaf in jax.tree.leaves(getattr(iql, name).opt_state))
    row = np.ones(len(x), np.float32)
    after, _ = jax.eval_shape(lambda iql, *given: iql.update(*given, None), iql, x, ACTION, row, row, x)
    assert jax.tree.map(jnp.shape, iql) == jax.tree.map(lambda leaf: leaf.shape, after)


@pytest.mark.parametrize("start", [0, 1])
def test_held_inputs_change_no_action_and_no_value(start):
    iql, held = other_learner(), np.float32([0.7, -1.2])
    whole = np.concatenate([X[:, :start], np.tile(held, (7, 1)), X[:, start + 2 :]], axis=1)
    rest = np.delete(X, [start, start + 1], axis=1)
    learner = iql.hold_input(start, held)
    for found, expected in zip(outputs(learner, rest), outputs(iql, whole)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    check_starts_over(learner, rest)


@pytest.mark.parametrize("bins", [SoftBins(), BINS])
def test_further_inputs_are_ignored_at_first(bins):
    iql = other_learner(replace(CONFIG, bins=bins))
    wider = np.concatenate([X, 10 * np.ones((7, 2), np.float32)], axis=1)
    learner = iql.insert_inputs(IN, 2)
    for found, expected in zip(outputs(learner, wider), outputs(iql, X)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    check_starts_over(learner, wider)


def test_a_fresh_critic_keeps_the_policy():
    iql = other_learner(replace(CONFIG, bins=BINS))
    fresh = iql.fresh_critic(jax.random.key(1))
    for i, (found, old) in enumerate(zip(outputs(fresh, X), outputs(iql, X))):
        assert np.allclose(found, old, atol=1e-3) == (i < 2)
    check_starts_over(fresh, X, ("value", "critic"))


def test_a_learner_with_bins_sees_what_they_make_of_its_input():
    plain = IQL.create(CONFIG, BINS(X[:1]), ACTION[:1], jax.random.key(0))
    learner = plain.with_bins(BINS)
    for found, expected in zip(outputs(learner, X), outputs(plain, BINS(X))):
        np.testing.assert_array_equal(found, expected)
    created = IQL.create(learner.config, X[:1], ACTION[:1], jax.random.key(0))
    assert [getattr(created, part).module for part in ("actor", "value", "critic")] == [
        getattr(learner, part).module for part in ("actor", "value", "critic")
    ]
    assert jax.tree.map(jnp.shape, created) == jax.tree.map(jnp.shape, learner)
