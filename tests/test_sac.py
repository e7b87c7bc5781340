"""Soft actor-critic against hand-written NumPy (sheet, sections 1.1, 1.2, 7.1 and 7.6).

The checks run the library on a world where every gradient fits on a line: linear critics, an actor without noise
whose log density is a linear function, and plain gradient descent, whose steps show the size of a gradient.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urlrl.learners.model import Model, PositiveScalar
from urlrl.learners.nets import Critics, TanhPolicy
from urlrl.learners.sac import SAC, SACConfig

IN, ACT, BATCH, LR = 3, 2, 6, 0.05
SLOPE, OFFSET = 0.7, 1.3  # of the stub's log density, in the sum of the means
CONFIG = SACConfig(width=16, lr=LR, gamma=0.9, tau=0.25, alpha=0.4)
SGD = optax.sgd(LR)


class Noiseless(NamedTuple):
    """An action distribution without noise; its `log density` is made up."""

    mean: jax.Array

    def sample_and_log_prob(self, key):
        return jnp.tanh(self.mean), OFFSET + SLOPE * jnp.sum(self.mean, axis=-1)


class LinearActor(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Noiseless(x @ self.param("w", nn.initializers.normal(1.0), (IN, ACT)))


class LinearCritics(nn.Module):
    """Q_k = w_k . (x, a)."""

    @nn.compact
    def __call__(self, x, action):
        w = self.param("w", nn.initializers.normal(1.0), (2, IN + ACT))
        return w @ jnp.concatenate([x, action], axis=-1).T


class World(NamedTuple):
    """All numbers of an update, float64: parameters, then a batch."""

    actor: np.ndarray  # (in, act)
    critic: np.ndarray  # (2, in + act)
    target: np.ndarray  # (2, in + act)
    log_alpha: float
    x: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    next_x: np.ndarray


def make_world(seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    return World(
        actor=rng.standard_normal((IN, ACT)) * 0.5,
        critic=rng.standard_normal((2, IN + ACT)),
        target=rng.standard_normal((2, IN + ACT)),
        log_alpha=float(np.log(CONFIG.alpha)),
        x=rng.standard_normal((BATCH, IN)),
        action=rng.uniform(-1, 1, (BATCH, ACT)),
        reward=rng.standard_normal(BATCH),
        discount=np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]),
        next_x=rng.standard_normal((BATCH, IN)),
    )


def make_sac(world: World, config: SACConfig = CONFIG, sac_class=SAC) -> SAC:
    """The library's learner with the world's parameters."""

    def model(module, w):
        params = {"w": jnp.float32(w)}
        return Model(params=params, opt_state=SGD.init(params), module=module, tx=SGD)

    alpha = PositiveScalar(log_value=jnp.float32(world.log_alpha), opt_state=SGD.init(jnp.float32(0)), tx=SGD)
    actor, critic = model(LinearActor(), world.actor), model(LinearCritics(), world.critic)
    return sac_class(actor=actor, critic=critic, target={"w": jnp.float32(world.target)}, alpha=alpha, config=config)


jit_update = jax.jit(lambda sac, *batch: sac.update(*batch))


def library_step(world: World, config: SACConfig = CONFIG) -> World:
    batch = (jnp.float32(field) for field in world[4:])
    sac, metrics = jit_update(make_sac(world, config), *batch, jax.random.key(0))
    assert all(np.isfinite(m) for m in metrics.values())
    return World(sac.actor.params["w"], sac.critic.params["w"], sac.target["w"], sac.alpha.log_value, *world[4:])


def numpy_step(world: World, config: SACConfig = CONFIG, mistake: str = "") -> World:
    """Equations 1.2 of the sheet with their gradients written out; `mistake` names what is done wrong."""
    w_pi, w, w_bar, log_alpha, x, action, reward, discount, next_x = world
    alpha, xa = np.exp(log_alpha), np.concatenate([x, action], axis=1)

    # y = r + gamma discount (min_k Qbar_k(x', a') - alpha log pi(a'|x'))
    next_mean = (x if mistake == "next action from x" else next_x) @ w_pi
    next_xa = np.concatenate([next_x, np.tanh(next_mean)], axis=1)
    next_qs = (w if mistake == "no target network" else w_bar) @ next_xa.T
    reduce = {"sum of both critics in the target": np.sum, "mean of both critics in the target": np.mean}.get(
        mistake, np.min
    )
    entropy = alpha * (OFFSET + SLOPE * next_mean.sum(axis=1))
    next_q = reduce(next_qs, axis=0) - entropy * {"no entropy in the target": 0, "entropy with the wrong sign": -1}.get(
        mistake, 1
    )
    y = reward + config.gamma * (1 if mistake == "bootstraps through terminals" else discount) * next_q

    # L_Q = 1/2 mean (Q_1 - y)^2 + 1/2 mean (Q_2 - y)^2
    scale = {"critic loss without the half": 2.0, "critic loss averaged over critics": 0.5}.get(mistake, 1.0)
    w_new = w - scale * LR * (w @ xa.T - y) @ xa / len(x)

    # L_pi = mean[alpha log pi(a|x) - min_k Q_k(x, a)]
    w_old, mean = w, x @ w_pi
    w_used = w_old if mistake == "actor uses critics before their step" else w_new
    new_action = np.tanh(mean)
    qs = w_used @ np.concatenate([x, new_action], axis=1).T
    dq = np.mean(w_used[:, None, IN:], axis=0) if mistake == "actor uses the mean critic" else w_used[qs.argmin(0), IN:]
    slope = {"log-prob detached in the actor": 0.0, "actor minimises entropy": -SLOPE}.get(mistake, SLOPE)
    mean_log_prob = np.mean(OFFSET + SLOPE * mean.sum(axis=1))
    entropy_coef = 1.0 if mistake == "target entropy -|A|" else config.entropy_coef
    step = mean_log_prob - entropy_coef * ACT
    log_alpha_new = log_alpha + (-LR if mistake == "alpha sign flipped" else LR) * step
    alpha_used = np.exp(log_alpha_new) if mistake == "alpha after its step" else alpha
    w_pi_new = w_pi - LR * x.T @ (alpha_used * slope - dq * (1 - new_action**2)) / len(x)

    if mistake == "log pi of the moved actor in the alpha loss":
        log_alpha_new = log_alpha + LR * (
            np.mean(OFFSET + SLOPE * (x @ w_pi_new).sum(axis=1)) - config.entropy_coef * ACT
        )
    if mistake == "alpha instead of log alpha in the loss":
        log_alpha_new = log_alpha + LR * alpha * step
    tau = 1 - config.tau if mistake == "tau for 1 - tau" else config.tau
    w_bar_new = (1 - tau) * w_bar + tau * (w_old if mistake == "EMA before the critic's step" else w_new)
    return World(w_pi_new, w_new, w_bar_new, log_alpha_new, x, action, reward, discount, next_x)


MISTAKES = (
    "next action from x",
    "no target network",
    "sum of both critics in the target",
    "mean of both critics in the target",
    "no entropy in the target",
    "entropy with the wrong sign",
    "bootstraps through terminals",
    "critic loss without the half",
    "critic loss averaged over critics",
    "actor uses critics before their step",
    "actor uses the mean critic",
    "log-prob detached in the actor",
    "actor minimises entropy",
    "alpha after its step",
    "alpha sign flipped",
    "alpha instead of log alpha in the loss",
    "target entropy -|A|",
    "log pi of the moved actor in the alpha loss",
    "tau for 1 - tau",
    "EMA before the critic's step",
)


def check_step(step):
    """One step, and a second from where it led, are NumPy's."""
    world = make_world()
    for _ in range(2):
        found, world = step(world), numpy_step(world)
        for name, a, b in zip(World._fields[:4], found, world):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=name)


def test_step_is_numpys():
    check_step(library_step)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_step_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_step(partial(numpy_step, mistake=mistake))


def test_losses_are_numpys():
    world = make_world()
    _, metrics = jit_update(make_sac(world), *(jnp.float32(field) for field in world[4:]), jax.random.key(0))
    new, alpha = numpy_step(world), CONFIG.alpha
    next_action, next_log_prob = (
        np.tanh(world.next_x @ world.actor),
        OFFSET + SLOPE * (world.next_x @ world.actor).sum(1),
    )
    next_q = (world.target @ np.concatenate([world.next_x, next_action], axis=1).T).min(axis=0)
    y = world.reward + CONFIG.gamma * world.discount * (next_q - alpha * next_log_prob)
    q = world.critic @ np.concatenate([world.x, world.action], axis=1).T
    log_prob = OFFSET + SLOPE * (world.x @ world.actor).sum(axis=1)
    new_q = (new.critic @ np.concatenate([world.x, np.tanh(world.x @ world.actor)], axis=1).T).min(axis=0)
    expected = {
        "critic/loss": 0.5 * np.mean((q[0] - y) ** 2) + 0.5 * np.mean((q[1] - y) ** 2),
        "critic/q": q.mean(),
        "actor/loss": np.mean(alpha * log_prob - new_q),
        "actor/entropy": -log_prob.mean(),
        "actor/alpha": alpha,
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


def check_terminals(sac_class):
    """Where discount is 0, y is the reward and its gradient to the target networks and the next state is 0."""
    world = make_world()
    sac = make_sac(world, sac_class=sac_class)

    def target(w_bar, next_x, discount):
        moved = sac.replace(target={"w": w_bar})
        return jnp.sum(moved.td_target(jnp.float32(world.reward), discount, next_x, jax.random.key(0)))

    args = jnp.float32(world.target), jnp.float32(world.next_x)
    gradient = jax.jit(jax.grad(target, argnums=(0, 1)))
    ended = gradient(*args, jnp.zeros(BATCH))
    assert all((g == 0).all() for g in ended)
    np.testing.assert_allclose(target(*args, jnp.zeros(BATCH)), world.reward.sum(), rtol=1e-5)
    # A time limit keeps discount 1: such a row bootstraps.
    assert all((g != 0).any() for g in gradient(*args, jnp.ones(BATCH)))


class BootstrapsThroughTerminals(SAC):
    def td_target(self, reward, discount, next_x, key):
        return super().td_target(reward, jnp.ones_like(discount), next_x, key)


class NeverBootstraps(SAC):
    def td_target(self, reward, discount, next_x, key):
        return super().td_target(reward, jnp.zeros_like(discount), next_x, key)


class EntropyBeyondTheEnd(SAC):
    """Only Q is cut at a terminal, the entropy of the action after it is not."""

    def td_target(self, reward, discount, next_x, key):
        log_prob = self.actor(next_x).sample_and_log_prob(key)[1]
        y = super().td_target(reward, discount, next_x, key)
        return y - self.config.gamma * (1 - discount) * self.alpha.value * log_prob


WRONG_TERMINALS = [BootstrapsThroughTerminals, NeverBootstraps, EntropyBeyondTheEnd]


def test_terminals():
    check_terminals(SAC)


@pytest.mark.parametrize("wrong", WRONG_TERMINALS)
def test_terminals_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_terminals(wrong)


def check_returns(sac_class):
    """Reward 1 for 200 steps: Q = 86.6 where the last is a terminal, 100 where nothing ends (gamma 0.99, alpha 0)."""
    world = make_world()._replace(log_alpha=-np.inf, actor=np.zeros((IN, ACT)))
    config = replace(CONFIG, gamma=0.99)
    next_x = jnp.float32([[1.0, 0.0, 0.0]])
    for last_discount, steps, expected in ((0.0, 200, 86.602), (1.0, 3000, 100.0)):

        def backup(q, discount, next_x=next_x, config=config):
            sac = make_sac(world, config, sac_class).replace(target={"w": jnp.zeros((2, IN + ACT)).at[:, 0].set(q)})
            return sac.td_target(jnp.ones(1), discount[None], next_x, jax.random.key(0))[0], None

        discounts = jnp.ones(steps).at[0].set(last_discount)  # backwards in time
        np.testing.assert_allclose(jax.lax.scan(backup, jnp.float32(50.0), discounts)[0], expected, rtol=1e-4)


class DiscountsTheReward(SAC):
    def td_target(self, reward, discount, next_x, key):
        return super().td_target(self.config.gamma * reward, discount, next_x, key)


def test_returns():
    check_returns(SAC)


@pytest.mark.parametrize("wrong", [BootstrapsThroughTerminals, NeverBootstraps, DiscountsTheReward])
def test_returns_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_returns(wrong)


def check_alpha_direction(step):
    """Entropy below its target raises alpha, above lowers it; a fixed alpha stays."""
    for target_entropy in (-10.0, 0.0):
        config = replace(CONFIG, entropy_coef=-target_entropy / ACT)
        world = make_world()
        entropy = -np.mean(OFFSET + SLOPE * (world.x @ world.actor).sum(axis=1))
        change = step(world, config).log_alpha - np.float32(world.log_alpha)
        assert np.sign(change) == np.sign(target_entropy - entropy)
        assert step(world, replace(config, learn_alpha=False)).log_alpha == np.float32(world.log_alpha)


def always_learns_alpha(world, config):
    return library_step(world, replace(config, learn_alpha=True))


def flips_alpha(world, config):
    stepped = library_step(world, config)
    return stepped._replace(log_alpha=2 * np.float32(world.log_alpha) - stepped.log_alpha)


def test_alpha_direction():
    check_alpha_direction(library_step)


@pytest.mark.parametrize("wrong", [always_learns_alpha, flips_alpha])
def test_alpha_direction_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_alpha_direction(wrong)


def check_average_of_targets(step):
    world = make_world()
    frozen, copied = (step(world, replace(CONFIG, tau=tau)) for tau in (0.0, 1.0))
    np.testing.assert_array_equal(frozen.target, np.float32(world.target))
    np.testing.assert_array_equal(copied.target, copied.critic)
    assert not np.allclose(copied.critic, world.critic)


def averages_before_the_step(world, config):
    stepped = library_step(world, config)
    return stepped._replace(target=(1 - config.tau) * np.float32(world.target) + config.tau * np.float32(world.critic))


def ignores_tau(world, config):
    return library_step(world, CONFIG)


def test_average_of_targets():
    check_average_of_targets(library_step)


@pytest.mark.parametrize("wrong", [averages_before_the_step, ignores_tau])
def test_average_of_targets_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_average_of_targets(wrong)


def check_create(create):
    """The networks of section 1.3, targets that are a copy, alpha at its start, one learning rate for all."""
    x, action = jnp.zeros((1, IN)), jnp.zeros((1, ACT))
    sac = create(CONFIG, x, action, jax.random.key(0))
    assert sac.actor.module == TanhPolicy(ACT, 16) and sac.critic.module == Critics(16)
    for online, target in zip(jax.tree.leaves(sac.critic.params), jax.tree.leaves(sac.target)):
        np.testing.assert_array_equal(online, target)
        assert online.unsafe_buffer_pointer() != target.unsafe_buffer_pointer()  # An alias cannot be donated.
    np.testing.assert_allclose(sac.alpha.value, CONFIG.alpha, rtol=1e-6)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(sac))
    for part in (sac.actor, sac.critic):
        updates, _ = part.tx.update(jnp.float32(1), part.tx.init(jnp.float32(0)))
        np.testing.assert_allclose(updates, -CONFIG.lr, rtol=1e-4)
    np.testing.assert_allclose(sac.alpha.log_value - sac.alpha.minimise(jnp.float32(1)).log_value, CONFIG.lr, rtol=1e-4)


def aliased_target(*args):
    sac = SAC.create(*args)
    return sac.replace(target=sac.critic.params)


def target_of_its_own(config, x, action, key):
    other = SAC.create(config, x, action, jax.random.key(7))
    return SAC.create(config, x, action, key).replace(target=other.target)


def weakly_typed_alpha(*args):
    sac = SAC.create(*args)
    return sac.replace(alpha=sac.alpha.replace(log_value=jnp.asarray(np.log(CONFIG.alpha).item())))


def another_rate_for_alpha(config, x, action, key):
    return SAC.create(config, x, action, key).replace(alpha=PositiveScalar.create(config.alpha, 3 * config.lr))


def test_create():
    check_create(SAC.create)


@pytest.mark.parametrize("wrong", [aliased_target, target_of_its_own, weakly_typed_alpha, another_rate_for_alpha])
def test_create_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_create(wrong)


def test_published_constants():
    config = SACConfig()
    assert (config.gamma, config.tau) == (0.99, 0.005)
    assert (config.alpha, config.learn_alpha) == (0.01, True)
    assert [-config.entropy_coef * act for act in (8, 6, 12, 21)] == [-4, -3, -6, -10.5]  # sheet, 1.2
