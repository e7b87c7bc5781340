"""METRA against hand-written NumPy, and the contract of every agent (sheet, sections 1.1, 1.5, 2.1, 7.1 and 7.2)."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from urlrl.agents.metra import Metra, MetraConfig
from urlrl.errors import UserError
from urlrl.learners.model import Model, PositiveScalar
from urlrl.learners.nets import MLP
from urlrl.learners.sac import SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.types import DemoPrompt, GoalPrompt, Transition

OBS, ACT, BATCH, LR, SLACK = 5, 2, 8, 0.05, 1e-3
SGD = optax.sgd(LR)
jit_update = jax.jit(lambda agent, batch, key: agent.update(batch, key))


def make_batch(config: MetraConfig, seed: int = 0, size: int = BATCH) -> Transition:
    rng = np.random.default_rng(seed)
    return Transition(
        obs=jnp.float32(rng.standard_normal((size, OBS))),
        action=jnp.float32(rng.uniform(-1, 1, (size, ACT))),
        reward=jnp.float32(rng.standard_normal(size)),
        discount=jnp.float32(rng.integers(0, 2, size)),
        next_obs=jnp.float32(rng.standard_normal((size, OBS))),
        z=config.z.sample(jax.random.key(seed), size),
    )


# --- One update on a linear phi, in NumPy -----------------------------------------------------------------------------


class LinearPhi(nn.Module):
    dim: int

    @nn.compact
    def __call__(self, obs):
        return obs @ self.param("w", nn.initializers.normal(1.0), (obs.shape[-1], self.dim))


class Witness(struct.PyTreeNode):
    """Stands where the policy learner does, and keeps what it was given."""

    given: Any = None

    def update(self, *given):
        return Witness(given[:-1]), {}


class World(NamedTuple):
    """The numbers of an update of phi, float64; phi(s) = normalised(s) @ w."""

    w: np.ndarray  # (obs, d)
    log_lambda: float
    mean: np.ndarray  # (obs,)
    std: np.ndarray  # (obs,)
    batch: Transition


class Step(NamedTuple):
    """What an update of phi leaves behind, and what it hands to the policy learner."""

    w: np.ndarray
    log_lambda: float
    x: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    next_x: np.ndarray


def make_world(config: MetraConfig, scale: float = 0.35) -> World:
    """`scale` 0.35 makes about half of the transitions feasible, 0.01 all, 10 none."""
    rng = np.random.default_rng(1)
    return World(
        w=scale * rng.standard_normal((OBS, config.z.dim)),
        log_lambda=float(np.log(config.dual_init)),
        mean=rng.standard_normal(OBS),
        std=rng.uniform(0.5, 1.5, OBS),
        batch=jax.tree.map(np.float64, make_batch(config)),
    )


def make_linear(world: World, config: MetraConfig) -> Metra:
    params = {"w": jnp.float32(world.w)}
    return Metra(
        phi=Model(params=params, opt_state=SGD.init(params), module=LinearPhi(config.z.dim), tx=SGD),
        dual=PositiveScalar(log_value=jnp.float32(world.log_lambda), opt_state=SGD.init(jnp.float32(0)), tx=SGD),
        sac=Witness(),
        normalizer=Normalizer(jnp.float32(world.mean), jnp.float32(world.std)),
        config=config,
    )


def library_step(world: World, config: MetraConfig) -> Step:
    agent, _ = jit_update(make_linear(world, config), jax.tree.map(jnp.float32, world.batch), jax.random.key(0))
    return Step(agent.phi.params["w"], agent.dual.log_value, *agent.sac.given)


def centred(z: np.ndarray) -> np.ndarray:
    """1 at the index of a one-hot z, -1 / (D - 1) elsewhere."""
    return np.where(z == 1, 1.0, -1 / (z.shape[-1] - 1))


def numpy_step(world: World, config: MetraConfig, mistake: str = "") -> Step:
    """Section 2.1 of the sheet with its gradients written out; `mistake` names what is done wrong."""
    w, log_lambda, mean, std, batch = world
    obs, next_obs = ((o - mean) / (std + 1e-8) for o in (batch.obs, batch.next_obs))
    ds = batch.next_obs - batch.obs if mistake == "phi of raw observations" else next_obs - obs
    onehot = config.z.kind == "onehot"
    v = centred(batch.z) if onehot and mistake != "uncentred one-hot" else batch.z
    use_mean = (config.constraint_reduction == "mean") != (mistake == "the other reduction")
    per_dim = 1 / config.z.dim if use_mean else 1.0
    lam = np.exp(log_lambda)
    limit = np.inf if mistake == "constraint without the min" else config.slack
    sign = -1 if mistake == "objective minimised" else 1

    dphi = ds @ w
    q = per_dim * (dphi**2).sum(axis=1)
    active = 1 - q < limit
    slope_q = (
        2 * per_dim * dphi * (1 / (2 * np.sqrt(q)))[:, None] if mistake == "norm, not squared" else 2 * per_dim * dphi
    )
    rows = batch.discount if mistake == "terminal rows left out" else np.ones(len(q))
    toward = v - (lam**2 if mistake == "lambda twice" else lam) * active[:, None] * slope_q
    w_new = w + sign * LR * ds.T @ (rows[:, None] * toward) / len(q)

    c_w = w_new if mistake == "c from after the phi step" else w
    q = per_dim * ((ds @ c_w) ** 2).sum(axis=1)
    c = np.mean(rows * np.minimum(limit, 1 - (np.sqrt(q) if mistake == "norm, not squared" else q)))
    slope = {"lambda instead of log lambda": lam * c, "gradient through lambda": c - lam * c, "dual ascends": -c}
    log_lambda_new = log_lambda - LR * slope.get(mistake, c)

    reward_w = w if mistake == "reward with old phi" else w_new
    reward = (ds @ reward_w * v).sum(axis=1)
    if mistake == "environment's reward added":
        reward = reward + batch.reward
    if mistake == "reward of phi(s') alone":
        reward = (next_obs @ reward_w * v).sum(axis=1)
    z = v if mistake == "centred one-hot given to the networks" else batch.z
    raw = mistake == "raw observations for the policy"
    x, next_x = (np.concatenate([o, z], axis=1) for o in ((batch.obs, batch.next_obs) if raw else (obs, next_obs)))
    return Step(w_new, log_lambda_new, x, batch.action, reward, batch.discount, next_x)


MISTAKES = (
    "uncentred one-hot",
    "centred one-hot given to the networks",
    "the other reduction",
    "norm, not squared",
    "constraint without the min",
    "objective minimised",
    "lambda twice",
    "gradient through lambda",
    "lambda instead of log lambda",
    "dual ascends",
    "c from after the phi step",
    "reward with old phi",
    "reward of phi(s') alone",
    "environment's reward added",
    "terminal rows left out",
    "phi of raw observations",
    "raw observations for the policy",
)
LINEAR = MetraConfig(dual_init=3.0, slack=SLACK)
CONFIGS = {
    "sphere, sum": LINEAR,
    "sphere, mean": replace(LINEAR, constraint_reduction="mean"),
    "gaussian, sum": replace(LINEAR, z=SkillSpace("gaussian", 3)),
    "onehot, sum": replace(LINEAR, z=SkillSpace("onehot", 4)),
}


def check_step(step):
    for name, config in CONFIGS.items():
        world = make_world(config)
        found, expected = step(world, config), numpy_step(world, config)
        for field, a, b in zip(Step._fields, found, expected):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-6, err_msg=f"{name}: {field}")


def test_step_is_numpys():
    check_step(library_step)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_step_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_step(partial(numpy_step, mistake=mistake))


def check_feasible_gradient(step):
    """Where every transition has q < 1 - eps, phi climbs mean(r) alone, whatever lambda is, and lambda shrinks by
    eps; phi = 0 is such a case."""
    for scale in (0.01, 0.0):
        for dual_init in (0.1, 3000.0):
            config = replace(LINEAR, dual_init=dual_init)
            world = make_world(config, scale)
            found = step(world, config)
            ds = (world.batch.next_obs - world.batch.obs) / world.std
            np.testing.assert_allclose(found.w, world.w + LR * ds.T @ world.batch.z / BATCH, atol=1e-6)
            np.testing.assert_allclose(found.log_lambda - world.log_lambda, -LR * SLACK, atol=1e-6)


def check_dual_direction(step):
    """All feasible: lambda shrinks. All violated: lambda grows. mean(c) = 0: it stays."""
    config = CONFIGS["sphere, sum"]
    world = make_world(config)
    size = np.square((world.batch.next_obs - world.batch.obs) / world.std @ world.w).sum(axis=1)
    for q, sign in ((0.5, -1), (1.5, 1)):
        ds = (world.batch.next_obs - world.batch.obs) * np.sqrt(q / size)[:, None]
        moved = world._replace(batch=world.batch._replace(next_obs=world.batch.obs + ds))
        change = float(step(moved, config).log_lambda) - world.log_lambda
        assert np.sign(change) == sign and abs(change) > 1e-5
    q = np.where(np.arange(BATCH) % 2, 0.5, 1 + SLACK)  # c is eps, then -eps
    ds = (world.batch.next_obs - world.batch.obs) * np.sqrt(q / size)[:, None]
    moved = world._replace(batch=world.batch._replace(next_obs=world.batch.obs + ds))
    np.testing.assert_allclose(step(moved, config).log_lambda, world.log_lambda, atol=1e-6)


def test_feasible_gradient():
    check_feasible_gradient(library_step)


@pytest.mark.parametrize("mistake", ["constraint without the min", "objective minimised", "dual ascends"])
def test_feasible_gradient_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_feasible_gradient(partial(numpy_step, mistake=mistake))


def test_dual_direction():
    check_dual_direction(library_step)


@pytest.mark.parametrize("mistake", ["constraint without the min", "dual ascends", "gradient through lambda"])
def test_dual_direction_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_dual_direction(partial(numpy_step, mistake=mistake))


# --- A random walk on a line ------------------------------------------------------------------------------------------

TOY = MetraConfig(z=SkillSpace("sphere", 1), slack=SLACK, dual_init=1.0, lr=1e-2)


def learned_slope(step_sizes: np.ndarray, config: MetraConfig = TOY, dual_tx=None) -> float:
    """Of a linear phi on s' = s + a with a along z: the mean over the last updates, on the same batch each time."""
    z = np.resize(np.float32([1, -1]), (len(step_sizes), 1))
    zero = np.zeros_like(z)
    batch = Transition(zero, zero, zero[:, 0], zero[:, 0] + 1, z * np.float32(step_sizes)[:, None], z)
    dual = PositiveScalar.create(config.dual_init, config.lr)
    if dual_tx is not None:
        dual = dual.replace(tx=dual_tx, opt_state=dual_tx.init(dual.log_value))
    phi = Model.create(LinearPhi(1), config.lr, jax.random.key(0), jnp.zeros((1, 1)))
    agent = Metra(phi=phi, dual=dual, sac=Witness(), normalizer=Normalizer.identity(1), config=config)

    def update(agent, _):
        agent, _ = agent.update(batch, jax.random.key(0))
        return agent.replace(sac=Witness()), agent.phi.params["w"][0, 0]

    slopes = jax.jit(lambda agent: jax.lax.scan(update, agent, None, 6000)[1])(agent)
    return float(jnp.mean(slopes[-2000:]))


UNIT, UNIFORM = np.ones(64), (np.arange(256) + 0.5) / 256


def check_random_walk(slope):
    """The slope tends to 1 where |a| = 1, and to 1.0315 where |a| ~ U(0, 1): the slack buys a little violation. The
    number is the root w of E[min(eps, 1 - w^2 a^2)] = 0; the sheet, which ran a noisy batch, has 1.035."""
    assert abs(slope(UNIT) - 1.0) < 0.005
    assert abs(slope(UNIFORM) - 1.0315) < 0.003


def test_random_walk_learns_temporal_distance():
    check_random_walk(learned_slope)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"config": replace(TOY, slack=1e9)}, id="constraint without the min"),
        pytest.param({"dual_tx": optax.sgd(0.0)}, id="lambda frozen"),
        pytest.param({"dual_tx": optax.adam(-TOY.lr)}, id="dual ascends"),
    ],
)
def test_random_walk_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_random_walk(partial(learned_slope, **wrong))


# --- What rewards are -------------------------------------------------------------------------------------------------

SMALL = MetraConfig(z=SkillSpace("sphere", 3), width=16, lr=1e-2)
ONEHOT = replace(SMALL, z=SkillSpace("onehot", 3))  # The same shapes: nothing is compiled twice.


def make_agent(config: MetraConfig = SMALL, seed: int = 0, **changes) -> Metra:
    """A fresh agent whose normaliser is not the identity."""
    normalizer = Normalizer(jnp.linspace(-1, 1, OBS), jnp.linspace(0.5, 2, OBS))
    agent = Metra.create(config, make_batch(config), jax.random.key(seed))
    return agent.replace(normalizer=normalizer, **changes)


def map_phi(agent: Metra, matrix: np.ndarray, shift: float = 0.0) -> Metra:
    """The agent with phi(s) @ matrix + shift for phi(s)."""
    last = agent.phi.params["Dense_2"]
    last = jax.tree.map(lambda p: jnp.asarray(np.asarray(p) @ np.float32(matrix)), last)
    last["bias"] = last["bias"] + shift
    return agent.replace(phi=agent.phi.replace(params={**agent.phi.params, "Dense_2": last}))


def check_reward(reward):
    """Telescoping, antisymmetries, invariance and homogeneity of `reward(agent, batch)`."""
    close, reward = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), jax.jit(reward)
    for config in (SMALL, ONEHOT):
        agent, batch = make_agent(config), make_batch(config)
        z = jnp.tile(batch.z[:1], (BATCH, 1))
        path = batch._replace(next_obs=jnp.roll(batch.obs, -1, axis=0), z=z)  # a closed loop; open without its end
        gain = agent.latent(path.obs[-1]) - agent.latent(path.obs[0])
        close(jnp.sum(reward(agent, path)), 0)
        close(jnp.sum(reward(agent, path)[:-1]), jnp.sum(gain * config.z.direction(z[0])))
        r = reward(agent, batch)
        close(reward(agent, batch._replace(obs=batch.next_obs, next_obs=batch.obs)), -r)
        close(reward(map_phi(agent, np.eye(config.z.dim), shift=3.0), batch), r)
        close(reward(map_phi(agent, 2.5 * np.eye(config.z.dim)), batch), 2.5 * r)
        close(reward(map_phi(agent, 0 * np.eye(config.z.dim)), batch), 0)
        assert np.abs(r).max() > 0.1
    agent, batch = make_agent(SMALL), make_batch(SMALL)
    r = reward(agent, batch)
    close(reward(agent, batch._replace(z=-batch.z)), -r)
    rotation = np.float32(np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0])
    close(reward(map_phi(agent, rotation), batch._replace(z=batch.z @ rotation)), r)


def reward_of_next_state(agent, batch):
    return jnp.sum(agent.latent(batch.next_obs) * agent.config.z.direction(batch.z), axis=-1)


def reward_magnitude(agent, batch):
    return jnp.abs(agent.intrinsic_reward(batch))


def reward_of_unit_steps(agent, batch):
    dphi = agent.latent(batch.next_obs) - agent.latent(batch.obs)
    return jnp.sum(agent.config.z.project(dphi) * batch.z, axis=-1)


def reward_of_squared_steps(agent, batch):
    dphi = agent.latent(batch.next_obs) - agent.latent(batch.obs)
    return jnp.sum(jnp.sign(dphi) * dphi**2 * batch.z, axis=-1)


def reward_of_uncentred_onehot(agent, batch):
    return jnp.sum((agent.latent(batch.next_obs) - agent.latent(batch.obs)) * batch.z, axis=-1)


def discounted_reward(agent, batch):
    dphi = agent.config.sac.gamma * agent.latent(batch.next_obs) - agent.latent(batch.obs)
    return jnp.sum(dphi * agent.config.z.direction(batch.z), axis=-1)


def test_reward():
    check_reward(Metra.intrinsic_reward)


@pytest.mark.parametrize(
    "wrong",
    [
        reward_of_next_state,
        reward_magnitude,
        reward_of_unit_steps,
        reward_of_squared_steps,
        reward_of_uncentred_onehot,
        discounted_reward,
    ],
)
def test_reward_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_reward(wrong)


def check_bounds(reward):
    """Where the constraint holds, |r| reaches the sheet's bound along v and never passes it."""
    for kind, d, per_dim, bound in (
        ("sphere", 2, 1.0, 1.0),
        ("sphere", 2, 1 / 2, 2**0.5),
        ("onehot", 16, 1.0, (16 / 15) ** 0.5),
        ("onehot", 16, 1 / 16, 4.13),
        ("onehot", 24, 1 / 24, 5.00),
    ):
        config = replace(LINEAR, z=SkillSpace(kind, d))
        rng = np.random.default_rng(0)
        steps, z = rng.standard_normal((64, d)), rng.standard_normal((64, d))
        z = np.eye(d)[z.argmax(axis=1)] if kind == "onehot" else z / np.linalg.norm(z, axis=1, keepdims=True)
        steps[0] = centred(z)[0] if kind == "onehot" else z[0]  # the best direction there is
        steps /= np.sqrt(per_dim * (steps**2).sum(axis=1, keepdims=True))  # q = 1
        zero, one = np.zeros((64, d), np.float32), np.ones(64, np.float32)
        batch = Transition(zero, zero[:, :ACT], one, one, np.float32(steps), np.float32(z))
        agent = make_linear(World(np.eye(d), 0.0, np.zeros(d), np.ones(d), batch), config)
        r = np.abs(reward(agent, batch))
        np.testing.assert_allclose([r[0], r.max()], bound, rtol=1e-3)


def test_bounds():
    check_bounds(Metra.intrinsic_reward)


@pytest.mark.parametrize("wrong", [reward_of_uncentred_onehot, reward_of_squared_steps])
def test_bounds_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_bounds(wrong)


def check_metrics_of_phi(update):
    """q and c do not change under a rotation or a shift of phi, q grows with the square of its scale, c = eps at 0."""
    agent, batch = make_agent(), make_batch(SMALL)
    rotation = np.float32(np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0])
    eye = np.eye(3)
    base, rotated, scaled, zero = (
        update(map_phi(agent, matrix, shift), batch, jax.random.key(0))[1]
        for matrix, shift in ((eye, 0.0), (rotation, 0.0), (2 * eye, 1.0), (0 * eye, 0.0))
    )
    for name in ("phi/step_sq", "phi/slack"):
        np.testing.assert_allclose(rotated[name], base[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaled["phi/step_sq"], 4 * base["phi/step_sq"], rtol=1e-5)
    np.testing.assert_allclose([zero["phi/step_sq"], zero["phi/slack"]], [0, SMALL.slack], rtol=1e-6)
    np.testing.assert_allclose(zero["phi/loss"], -SMALL.dual_init * SMALL.slack, rtol=1e-5)


def check_metric_of_reward(update):
    """The reward of an update is that of the phi it returns."""
    agent, batch = make_agent(), make_batch(SMALL)
    new, metrics = update(agent, batch, jax.random.key(0))
    np.testing.assert_allclose(metrics["reward/intrinsic"], jnp.mean(new.intrinsic_reward(batch)), rtol=1e-4)
    assert not np.isclose(metrics["reward/intrinsic"], jnp.mean(agent.intrinsic_reward(batch)), rtol=1e-3)


def largest_coordinate_for_q(agent, batch, key):
    new, metrics = jit_update(agent, batch, key)
    q = jnp.max((agent.latent(batch.next_obs) - agent.latent(batch.obs)) ** 2, axis=-1)
    return new, {**metrics, "phi/step_sq": jnp.mean(q)}


def reward_with_old_phi(agent, batch, key):
    new, metrics = jit_update(agent, batch, key)
    return new, {**metrics, "reward/intrinsic": jnp.mean(agent.intrinsic_reward(batch))}


def test_the_constraint_leaves_what_the_squared_step_does_not_use():
    for config in (LINEAR, replace(LINEAR, constraint_reduction="mean")):
        world = make_world(config)
        dphi = (world.batch.next_obs - world.batch.obs) / (world.std + 1e-8) @ world.w
        q = (dphi**2).mean(axis=1) if config.constraint_reduction == "mean" else (dphi**2).sum(axis=1)
        found = make_linear(world, config).constraint(jax.tree.map(jnp.float32, world.batch))
        assert (q > 1).any() and (q < 1).any()
        np.testing.assert_allclose(found, 1 - q, rtol=1e-5, atol=1e-5)


def test_metrics():
    check_metrics_of_phi(jit_update)
    check_metric_of_reward(jit_update)


@pytest.mark.parametrize(
    "check, wrong", [(check_metrics_of_phi, largest_coordinate_for_q), (check_metric_of_reward, reward_with_old_phi)]
)
def test_metrics_check_finds(check, wrong):
    with pytest.raises(AssertionError):
        check(wrong)


# --- Settings and actions. What every agent must do is in `test_agent_contract.py` ------------------------------------


def check_config_arrives(create):
    """Each number reaches its place: all differ, so that no two can be confused."""
    config = MetraConfig(
        z=SkillSpace("sphere", 3), width=16, lr=0.02, dual_init=7.0,
        sac=SACConfig(gamma=0.8, tau=0.1, alpha=0.3, learn_alpha=False, entropy_coef=0.6),
    )  # fmt: skip
    agent = create(config, make_batch(config), jax.random.key(0))
    assert agent.sac.config == SACConfig(
        width=16, lr=0.02, gamma=0.8, tau=0.1, alpha=0.3, learn_alpha=False, entropy_coef=0.6
    )
    assert agent.phi.module == MLP(3, 16)
    np.testing.assert_allclose([agent.dual.value, agent.sac.alpha.value], [7.0, 0.3], rtol=1e-6)
    np.testing.assert_allclose(
        agent.dual.log_value - agent.dual.minimise(jnp.float32(1)).log_value, config.lr, rtol=1e-4
    )
    updates, _ = agent.phi.tx.update(jnp.float32(1), agent.phi.tx.init(jnp.float32(0)))
    np.testing.assert_allclose(updates, -config.lr, rtol=1e-4)


def swaps_gamma_and_tau(config, example, key):
    swapped = replace(config.sac, gamma=config.sac.tau, tau=config.sac.gamma)
    return Metra.create(replace(config, sac=swapped), example, key)


def default_rate_for_lambda(config, example, key):
    return Metra.create(config, example, key).replace(dual=PositiveScalar.create(config.dual_init, 1e-4))


def test_config_arrives():
    check_config_arrives(Metra.create)


@pytest.mark.parametrize("wrong", [swaps_gamma_and_tau, default_rate_for_lambda])
def test_config_arrives_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_config_arrives(wrong)


def check_actions(sample_actions):
    """The actor sees the normalised observation and the raw skill; temperature 0 is its mode; any leading axes."""
    for config in (SMALL, ONEHOT):
        agent, batch = make_agent(config), make_batch(config)
        obs = (np.asarray(batch.obs) - np.linspace(-1, 1, OBS)) / np.linspace(0.5, 2, OBS)
        x = np.concatenate([obs, batch.z], axis=1)
        mode = sample_actions(agent, batch.obs, batch.z, jax.random.key(0), 0.0)
        np.testing.assert_allclose(mode, agent.sac.actor(jnp.float32(x)).mode(), atol=1e-5)
        np.testing.assert_array_equal(mode, sample_actions(agent, batch.obs, batch.z, jax.random.key(1), 0.0))
        drawn = sample_actions(agent, batch.obs, batch.z, jax.random.key(0))
        assert mode.shape == drawn.shape == (BATCH, ACT)
        assert np.abs(drawn).max() <= 1 and np.abs(drawn - mode).mean() > 0.1
    one = sample_actions(agent, batch.obs[0], batch.z[0], jax.random.key(0), 0.0)
    np.testing.assert_allclose(one, mode[0], atol=1e-6)


def acts_on_centred_onehot(agent, obs, z, key, temperature=1.0):
    return agent.sample_actions(obs, agent.config.z.direction(z), key, temperature)


def acts_on_raw_obs(agent, obs, z, key, temperature=1.0):
    return agent.replace(normalizer=Normalizer.identity(OBS)).sample_actions(obs, z, key, temperature)


def always_samples(agent, obs, z, key, temperature=1.0):
    return agent.sample_actions(obs, z, key)


def always_mode(agent, obs, z, key, temperature=1.0):
    return agent.sample_actions(obs, z, key, 0.0)


def test_actions():
    check_actions(Metra.sample_actions)


@pytest.mark.parametrize("wrong", [acts_on_centred_onehot, acts_on_raw_obs, always_samples, always_mode])
def test_actions_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_actions(wrong)


# --- A policy that does not see the first entries ---------------------------------------------------------------------

UNSEEN = replace(SMALL, phi_only=2)


def check_unseen(config, sample_actions=Metra.sample_actions):
    """The first two entries move phi and no action; every other entry moves both."""
    agent, batch = make_agent(config), make_batch(config)
    seen_by_policy, seen_by_phi = [], []
    for entry in range(OBS):
        moved = batch.obs.at[:, entry].add(1.5)
        actions = [sample_actions(agent, obs, batch.z, jax.random.key(0), 0.5) for obs in (batch.obs, moved)]
        seen_by_policy.append(not np.array_equal(*actions))
        seen_by_phi.append(bool((np.abs(agent.latent(moved) - agent.latent(batch.obs)).max(axis=1) > 1e-4).all()))
    assert seen_by_policy == [False, False, True, True, True] and seen_by_phi == [True] * OBS


def hides_the_last_entries(agent, obs, z, key, temperature=1.0):
    return agent.sample_actions(jnp.flip(obs, axis=-1), z, key, temperature)


def test_the_policy_does_not_see_the_first_entries_and_phi_does():
    check_unseen(UNSEEN)


def test_unseen_entries_check_finds():
    with pytest.raises(AssertionError):
        check_unseen(SMALL)
    with pytest.raises(AssertionError):
        check_unseen(replace(SMALL, phi_only=1))
    with pytest.raises(AssertionError):
        check_unseen(UNSEEN, hides_the_last_entries)


def test_critics_do_not_see_them_either():
    """Both sides of an update: the transition's and its target's; the rest of the agent learns from whole states."""
    agent, batch = make_agent(UNSEEN), make_batch(UNSEEN)
    agent = agent.replace(sac=Witness())
    x, _, _, _, next_x = agent.update(batch, jax.random.key(0))[0].sac.given
    for given, obs in ((x, batch.obs), (next_x, batch.next_obs)):
        expected = np.concatenate([agent.normalizer(obs)[:, 2:], batch.z], axis=1)
        np.testing.assert_array_equal(given, expected)


def check_learner_of_unseen(make_learner):
    """`learner(z)` takes whole observations and begins as the policy; what it did not see has no weight at first."""
    agent, batch = make_agent(UNSEEN), make_batch(UNSEEN)
    learner, x = make_learner(agent, batch.z[0]), agent.normalizer(batch.obs)
    policy = agent.sample_actions(batch.obs, jnp.tile(batch.z[0], (BATCH, 1)), jax.random.key(0), 0.0)
    np.testing.assert_allclose(learner.actor(x).mode(), policy, atol=1e-5)
    own = jnp.concatenate([x[:, 2:], jnp.tile(batch.z[0], (BATCH, 1))], axis=1)
    expected = agent.sac.critic(own, batch.action)
    np.testing.assert_allclose(learner.critic(x, batch.action), expected, rtol=1e-4, atol=1e-4)
    args = (x, batch.action, jnp.ones(BATCH), batch.discount, x, jax.random.key(1))
    learned, _ = jax.jit(lambda learner: learner.update(*args))(learner)
    moved = learned.actor(x.at[:, 0].add(3.0)).mode() - learned.actor(x).mode()
    assert np.abs(moved).max() > 0  # It may use them from now on.


def puts_unseen_entries_last(agent, z):
    return agent.sac.hold_input(OBS - 2, z).insert_inputs(OBS - 2, 2)


def holds_another_skill(agent, z):
    return agent.learner(-z, jax.random.key(0))


def test_the_learner_of_a_policy_that_sees_less():
    check_learner_of_unseen(lambda agent, z: agent.learner(z, jax.random.key(0)))


@pytest.mark.parametrize("wrong", [puts_unseen_entries_last, holds_another_skill])
def test_the_learner_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_learner_of_unseen(wrong)


def test_a_policy_must_see_something():
    for phi_only in (OBS, OBS + 1):
        config = replace(SMALL, phi_only=phi_only)
        with pytest.raises(UserError, match=rf"^phi_only is {phi_only}: expected fewer than the {OBS} of an obs"):
            Metra.create(config, make_batch(config), jax.random.key(0))
    Metra.create(replace(SMALL, phi_only=OBS - 1), make_batch(SMALL), jax.random.key(0))
    with pytest.raises(UserError, match=r"^phi_only is -1: expected a number of at least 0\."):
        replace(SMALL, phi_only=-1)


# --- Being told what to do --------------------------------------------------------------------------------------------


def check_goal_prompt(aim):
    """`aim(agent, goal, obs)`: the direction of phi(g) - phi(s), from each s; its index for one-hot skills."""
    for config in (SMALL, replace(SMALL, z=SkillSpace("gaussian", 3)), ONEHOT):
        agent, batch = make_agent(config), make_batch(config)
        goal = np.asarray(batch.next_obs[0], np.float64)
        z = aim(agent, goal, batch.obs)
        way = np.asarray(agent.latent(goal)) - np.asarray(agent.latent(batch.obs))
        if config.z.kind == "onehot":
            expected = np.eye(3)[way.argmax(axis=1)]
        else:
            expected = config.z.typical_norm * way / np.linalg.norm(way, axis=1, keepdims=True)
        assert z.shape == batch.z.shape and z.dtype == jnp.float32
        np.testing.assert_allclose(z, expected, atol=1e-5)
        np.testing.assert_allclose(aim(agent, goal, batch.obs[1]), expected[1], atol=1e-5)
        np.testing.assert_allclose(aim(agent, goal, batch.obs[None])[0], expected, atol=1e-5)
        there = aim(agent, goal, jnp.float32(goal))  # Nowhere to go, and still a skill.
        np.testing.assert_allclose(np.linalg.norm(there), config.z.typical_norm, rtol=1e-5)


def read_and_aim(agent, goal, obs):
    return agent.aim(agent.read(GoalPrompt(goal), None, jax.random.key(0)), obs)


def away_from_goal(agent, goal, obs):
    return agent.config.z.project(agent.latent(obs) - jnp.broadcast_to(agent.latent(goal), agent.latent(obs).shape))


def direction_of_goal_alone(agent, goal, obs):
    return agent.config.z.project(jnp.broadcast_to(agent.latent(goal), agent.latent(obs).shape))


def aims_once(agent, goal, obs):
    first = obs.reshape(-1, OBS)[0]
    z = agent.config.z.project(agent.latent(goal) - agent.latent(first))
    return jnp.broadcast_to(z, (*obs.shape[:-1], z.shape[-1]))


def straight_line_in_observations(agent, goal, obs):
    return agent.config.z.project(jnp.float32(goal - np.asarray(obs))[..., : agent.config.z.dim])


def test_goal_prompt():
    check_goal_prompt(read_and_aim)


@pytest.mark.parametrize("wrong", [away_from_goal, direction_of_goal_alone, aims_once, straight_line_in_observations])
def test_goal_prompt_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_goal_prompt(wrong)


def check_demo_prompt(follow):
    """`follow(agent, demo, obs)`: the direction from the first to the last state, wherever the agent is."""
    for config in (SMALL, ONEHOT):
        agent, batch = make_agent(config), make_batch(config)
        demo = np.asarray(batch.next_obs, np.float64)
        expected = config.z.project(agent.latent(demo[-1]) - agent.latent(demo[0]))
        np.testing.assert_allclose(follow(agent, demo, batch.obs), np.tile(expected, (BATCH, 1)), atol=1e-6)
        np.testing.assert_allclose(follow(agent, demo, batch.obs[0]), expected, atol=1e-6)


def read_and_follow(agent, demo, obs):
    return agent.aim(agent.read(DemoPrompt(demo), None, jax.random.key(0)), obs)


def follows_backwards(agent, demo, obs):
    return read_and_follow(agent, demo[::-1], obs)


def goes_to_its_end(agent, demo, obs):
    return read_and_aim(agent, demo[-1], obs)


def test_demo_prompt():
    check_demo_prompt(read_and_follow)


@pytest.mark.parametrize("wrong", [follows_backwards, goes_to_its_end])
def test_demo_prompt_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_demo_prompt(wrong)


def test_published_constants():
    config = MetraConfig()
    assert (config.width, config.lr, config.batch.size) == (1024, 1e-4, 256)
    assert (config.dual_init, config.slack, config.sac) == (30.0, 1e-3, SACConfig())
    assert (config.constraint_reduction, config.batch.timeout_as_terminal) == ("sum", False)
