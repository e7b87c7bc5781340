"""Random network distillation against hand-written NumPy (URLB's sheet, sections 4, 5, 12), and the random policy."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from urlrl.agents.rnd import RND, RNDConfig
from urlrl.agents.uniform import Uniform, UniformConfig
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.learners.ddpg import DDPGConfig
from urlrl.learners.model import Model
from urlrl.learners.nets import MLP, orthogonal
from urlrl.learners.statistics import Normalizer, RunningMoments
from urlrl.types import Transition, need

OBS, ACT, OUT, BATCH, LR = 4, 2, 3, 6, 0.05
SGD = optax.sgd(LR)
CONFIG = RNDConfig(width=16, outputs=8, lr=1e-3)
MEAN, STD = np.linspace(-1, 1, OBS), np.linspace(0.5, 2, OBS)
jit_update = jax.jit(lambda agent, batch, key: agent.update(batch, key))


# --- Running moments --------------------------------------------------------------------------------------------------


def check_moments(seen):
    """After any stream of batches, mean and variance of all rows together. `seen(moments, rows)` are the next."""
    rng = np.random.default_rng(0)
    for shape in ((), (3,)):
        moments, rows = RunningMoments.create(shape), []
        for n, offset in ((5, 10.0), (1, -3.0), (40, 0.5), (200, -1.0)):
            rows.append(offset + (1 + abs(offset)) * rng.standard_normal((n, *shape)))
            moments = seen(moments, jnp.float32(rows[-1]))
            if len(rows) > 1:
                everything = np.concatenate(rows)
                np.testing.assert_allclose(moments.mean, everything.mean(axis=0), rtol=2e-3, atol=1e-3)
                np.testing.assert_allclose(moments.var, everything.var(axis=0), rtol=2e-3)
                np.testing.assert_allclose(moments.std, everything.std(axis=0), rtol=2e-3)
        np.testing.assert_allclose(moments.count, 246, rtol=1e-5)
    x = jnp.float32(rng.standard_normal((2, 5, 3)))
    np.testing.assert_allclose(
        moments.normalise(x), (x - np.asarray(moments.mean)[None, None]) / moments.std[None, None], rtol=1e-3, atol=1e-5
    )


def batch_statistics(moments, rows):
    return RunningMoments.create(moments.mean.shape).seen(rows).replace(count=moments.count + len(rows))


def mean_of_variances(moments, rows):
    after = moments.seen(rows)
    share = len(rows) / after.count
    return after.replace(var=(1 - share) * moments.var + share * jnp.var(rows, axis=0))


def every_batch_alike(moments, rows):
    after, alone = moments.seen(rows), RunningMoments.create(moments.mean.shape).seen(rows)
    return after.replace(mean=(moments.mean + alone.mean) / 2)


def count_of_batches(moments, rows):
    return moments.seen(rows).replace(count=moments.count + 1)


def test_moments():
    check_moments(RunningMoments.seen)
    fresh = RunningMoments.create((2,))
    np.testing.assert_allclose(fresh.normalise(jnp.float32([3, -2])), [3, -2], rtol=1e-4)


@pytest.mark.parametrize("wrong", [batch_statistics, mean_of_variances, every_batch_alike, count_of_batches])
def test_moments_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_moments(wrong)


def test_moments_of_some_rows_are_those_of_these_alone():
    rng, moments = np.random.default_rng(0), RunningMoments.create(()).seen(jnp.float32([1, 4]))
    rows, there = jnp.float32(rng.normal(3, 2, (5, 4))), jnp.asarray(rng.random((5, 4)) < 0.5)
    expected = moments.seen(rows[there])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), moments.seen_where(rows, there), expected)
    assert moments.seen_where(rows, jnp.zeros_like(there)) == moments


def test_moments_keep_their_precision_for_long():
    """After a hundred million rows float32 still tells what a batch adds, and the variance of far-off data is right."""
    moments = RunningMoments(jnp.float32([1e3]), jnp.float32([4.0]), jnp.float32(1e8))
    rows = jnp.float32(1e3 + 2 * np.random.default_rng(0).standard_normal((1024, 1)))
    for _ in range(20):
        moments = moments.seen(rows)
    np.testing.assert_allclose(moments.count, 1e8 + 20 * 1024, rtol=1e-6)
    np.testing.assert_allclose([moments.mean[0], moments.var[0]], [1e3, 4.0], rtol=1e-3)


# --- One update -------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ self.param("w", nn.initializers.normal(1.0), (OBS, OUT))


class Witness(struct.PyTreeNode):
    """Stands where the policy learner does, and keeps what it was given."""

    given: Any = None

    def update(self, *given):
        return Witness(given[:-1]), {}


class World(NamedTuple):
    """The numbers of an update, float64."""

    random: np.ndarray  # (obs, out)
    predictor: np.ndarray
    states: tuple  # mean, variance and count of observations so far
    errors: tuple  # of errors
    obs: np.ndarray
    next_obs: np.ndarray
    discount: np.ndarray


class Step(NamedTuple):
    """What an update leaves behind, and what it hands to the policy learner."""

    random: np.ndarray
    predictor: np.ndarray
    states: tuple
    errors: tuple
    x: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    next_x: np.ndarray
    loss: float


def make_world() -> World:
    rng = np.random.default_rng(0)
    obs, next_obs = rng.standard_normal((2, BATCH, OBS)) * 2
    obs[0] = 40  # beyond the limit of five standard deviations
    return World(
        random=rng.standard_normal((OBS, OUT)), predictor=rng.standard_normal((OBS, OUT)),
        states=(rng.standard_normal(OBS), rng.uniform(0.5, 2, OBS), 50.0), errors=(2.0, 3.0, 50.0), obs=obs,
        next_obs=next_obs, discount=np.array([1.0, 0, 1, 1, 0, 1]),
    )  # fmt: skip


def library_step(world: World) -> Step:
    def model(w):
        params = {"w": jnp.float32(w)}
        return Model(params=params, opt_state=SGD.init(params), module=Linear(), tx=SGD)

    agent = RND(
        random=model(world.random), predictor=model(world.predictor),
        states=RunningMoments(*(jnp.float32(part) for part in world.states)),
        errors=RunningMoments(*(jnp.float32(part) for part in world.errors)),
        ddpg=Witness(), normalizer=Normalizer(jnp.float32(MEAN), jnp.float32(STD)), config=CONFIG,
    )  # fmt: skip
    obs, next_obs, discount = (jnp.float32(x) for x in world[4:])
    blind = jnp.full(BATCH, jnp.nan)
    batch = Transition(obs, jnp.zeros((BATCH, ACT)), blind, discount, next_obs, jnp.zeros((BATCH, 0)))
    agent, metrics = jit_update(agent, batch, jax.random.key(0))
    x, _, reward, discount, next_x = agent.ddpg.given
    np.testing.assert_allclose(metrics["reward/intrinsic"], jnp.mean(reward), rtol=1e-5)
    moments = ((m.mean, m.var, m.count) for m in (agent.states, agent.errors))
    networks = agent.random.params["w"], agent.predictor.params["w"]
    return Step(*networks, *moments, x, reward, discount, next_x, metrics["rnd/loss"])


def with_rows(moments: tuple, rows: np.ndarray) -> tuple:
    """Mean, variance and count, with these rows too."""
    mean, var, count = moments
    n = len(rows)
    both = (mean * count + rows.sum(axis=0)) / (count + n)
    square = (var + mean**2) * count + (rows**2).sum(axis=0)
    return both, square / (count + n) - both**2, count + n


def numpy_step(world: World, mistake: str = "") -> Step:
    """One update of the sheet's section 5, item 2; `mistake` names what is done wrong."""
    obs = world.next_obs if mistake == "the states that were reached" else world.obs
    states = with_rows(world.states, obs)
    seen = world.states if mistake == "statistics without the batch" else states
    if mistake == "statistics of the batch alone":
        seen = obs.mean(axis=0), obs.var(axis=0), 0
    x = (obs - seen[0]) / (np.sqrt(seen[1]) + 1e-5)
    if mistake != "no limits":
        x = np.clip(x, -5, 5)

    def error(predictor):
        square = (x @ world.random - x @ predictor) ** 2
        return square.sum(axis=1) if mistake == "sum over outputs" else square.mean(axis=1)

    outputs = 1 if mistake == "sum over outputs" else OUT
    slope = -2 * x.T @ (x @ world.random - x @ world.predictor) / outputs / BATCH
    predictor = world.predictor - LR * slope
    random = world.random + LR * slope if mistake == "both learn" else world.random
    before, after = error(world.predictor), error(predictor)
    e = before if mistake == "reward before the step" else after
    errors = with_rows(world.errors, e)
    scale = np.sqrt((world.errors if mistake == "deviation without the batch" else errors)[1])
    reward = (e - errors[0] if mistake == "mean taken off" else e) / (scale + 1e-8)
    if mistake == "divided by the variance":
        reward = e / (errors[1] + 1e-8)
    if mistake == "logarithm":
        reward = np.log1p(reward)
    policy_x, next_x = ((o - MEAN) / (STD + 1e-8) for o in (world.obs, world.next_obs))
    if mistake == "the policy sees raw states":
        policy_x, next_x = world.obs, world.next_obs
    if mistake == "the policy sees what the networks see":
        policy_x = x
    discount = np.ones(BATCH) if mistake == "never ends" else world.discount
    return Step(random, predictor, states, errors, policy_x, reward, discount, next_x, before.mean())


MISTAKES = (
    "the states that were reached", "statistics without the batch", "statistics of the batch alone", "no limits",
    "sum over outputs", "both learn", "reward before the step", "deviation without the batch", "mean taken off",
    "divided by the variance", "logarithm", "the policy sees raw states", "the policy sees what the networks see",
    "never ends",
)  # fmt: skip


def check_step(step):
    found, expected = step(make_world()), numpy_step(make_world())
    for name, a, b in zip(Step._fields, found, expected):
        for one, other in zip(*((x if isinstance(x, tuple) else (x,)) for x in (a, b)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=name)


def test_step_is_numpys():
    check_step(library_step)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_step_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_step(partial(numpy_step, mistake=mistake))


# --- What is new ------------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnames="learning")
def novelty(key, learning: bool = True):
    """Rewards and errors of what was seen 300 times, before and after, and of states from elsewhere."""
    create_key, update_key = jax.random.split(key)
    rng = np.random.default_rng(0)
    known = jnp.float32(rng.standard_normal((64, OBS)) * [1, 1, 1, 0.2])
    new = jnp.float32(rng.standard_normal((64, OBS)) * [0.2, 0.2, 0.2, 1] + [0, 0, 0, 2])
    zero = jnp.zeros(64)
    batch = Transition(known, jnp.zeros((64, ACT)), zero, zero, known, jnp.zeros((64, 0)))
    agent = RND.create(CONFIG, batch, create_key).replace(ddpg=Witness())
    if not learning:
        agent = agent.replace(predictor=agent.predictor.replace(tx=optax.sgd(0.0), opt_state=optax.sgd(0.0).init({})))

    def step(agent, key):
        agent, metrics = agent.update(batch, key)
        return agent.replace(ddpg=Witness()), metrics["rnd/loss"]

    after, losses = jax.lax.scan(step, agent, jax.random.split(update_key, 300))
    return losses, after.intrinsic_reward(batch), after.intrinsic_reward(batch._replace(obs=new))


def check_novelty(found):
    """The error on a repeated batch falls; states from elsewhere are rewarded far more."""
    losses, known, new = found
    assert losses[-1] < 0.1 * losses[0] and losses[150] < 0.5 * losses[0]
    assert new.mean() > 5 * known.mean() and known.min() >= 0


def test_novelty():
    check_novelty(novelty(jax.random.key(0)))


def test_novelty_check_finds_a_predictor_that_does_not_learn():
    with pytest.raises(AssertionError):
        check_novelty(novelty(jax.random.key(0), learning=False))


# --- The agents around it ---------------------------------------------------------------------------------------------


def make_batch(size: int = BATCH) -> Transition:
    rng = np.random.default_rng(1)
    obs, next_obs = (jnp.float32(rng.standard_normal((size, OBS))) for _ in range(2))
    blind = jnp.full(size, jnp.nan)
    return Transition(obs, jnp.zeros((size, ACT)), blind, jnp.ones(size), next_obs, jnp.zeros((size, 0)))


def test_the_two_networks_start_apart_and_are_as_published():
    agent = RND.create(CONFIG, make_batch(), jax.random.key(0))
    module = MLP(8, 16, kernel_init=orthogonal)
    assert agent.random.module == agent.predictor.module == module
    first, second = (model.params["Dense_1"]["kernel"] for model in (agent.random, agent.predictor))
    assert not np.allclose(first, second, atol=1e-2)
    np.testing.assert_allclose(first.T @ first, np.eye(16), atol=1e-5)
    assert agent.ddpg.config == DDPGConfig(width=16, lr=1e-3, gamma=0.99, tau=0.01, noise=0.2, noise_clip=0.3)
    config = RNDConfig()
    assert (config.width, config.outputs, config.lr, config.batch.size) == (1024, 512, 1e-4, 1024)
    assert (config.ddpg.gamma, config.ddpg.tau) == (0.99, 0.01)


def test_fine_tuning_starts_from_its_own_policy_and_critics():
    agent = RND.create(CONFIG, make_batch(), jax.random.key(0))
    assert agent.learner(jnp.zeros(0), jax.random.key(1)) is agent.ddpg
    moved = agent.replace(normalizer=Normalizer(jnp.float32(MEAN), jnp.float32(STD)))
    obs = make_batch().obs
    x = (obs - MEAN[None]) / STD[None]
    np.testing.assert_allclose(
        moved.sample_actions(obs, jnp.zeros((BATCH, 0)), jax.random.key(2), 0.0),
        moved.ddpg.actor(jnp.float32(x)).mode(), atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(("agent_class", "config"), [(RND, CONFIG), (Uniform, UniformConfig())])
def test_what_has_no_skills_follows_no_prompt(agent_class, config):
    agent = jax.eval_shape(lambda key: agent_class.create(config, make_batch(), key), jax.random.key(0))
    with pytest.raises(UnsupportedPrompt, match="cannot follow a prompt"):
        need(agent, "told")


def test_the_random_policy_is_uniform():
    agent, obs = Uniform.create(UniformConfig(), make_batch(), jax.random.key(0)), jnp.zeros((10_000, OBS))
    actions = np.asarray(agent.sample_actions(obs, jnp.zeros((10_000, 0)), jax.random.key(1)))
    assert actions.shape == (10_000, ACT) and np.abs(actions).max() <= 1
    np.testing.assert_allclose(np.quantile(actions, [0.1, 0.5, 0.9], axis=0), [[-0.8] * ACT, [0] * ACT, [0.8] * ACT],
                               atol=0.04)  # fmt: skip
    half = agent.sample_actions(obs, jnp.zeros((10_000, 0)), jax.random.key(1), 0.5)
    np.testing.assert_allclose(half, 0.5 * actions, rtol=1e-6)
    after, metrics = agent.update(make_batch(), jax.random.key(0))
    assert after is agent and metrics["reward/intrinsic"] == 0


def test_settings_out_of_range_are_refused():
    for wrong in ({"outputs": 0}, {"width": 0}, {"lr": 0.0}):
        ((name, value),) = wrong.items()
        with pytest.raises(UserError, match=f"{name} is {value}"):
            RNDConfig(**wrong)
