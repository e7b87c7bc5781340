"""FRE: what its encoder must and must not see, its rewards, its two phases, and what a prompt becomes."""

import dataclasses
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.agents.fre import FRE, FREConfig
from urlrl.data.dataset import DatasetInfo, Episode, write_dataset
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.learners.model import Model, minimise_jointly
from urlrl.learners.nets import MLP, gelu_tanh
from urlrl.learners.reward_encoder import RewardEncoder, kl, reward_bin
from urlrl.learners.reward_priors import PRIORS, Reward, States, field, find_prior, goal, label, linear, mlp, reached
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.presets import preset
from urlrl.training.learn import learn
from urlrl.types import BatchSpec, DemoPrompt, GoalPrompt, RewardPrompt, Transition

OBS, ACT, DIM = 5, 2, 8
CONFIG = FREConfig(
    z=SkillSpace("gaussian", DIM), batch=BatchSpec(size=12, futures=3), encode=8, decode=4,
    encoder_width=16, width=16, depth=2, warmup=2, lr=1e-3,
)  # fmt: skip


def batches(num: int, seed: int = 0) -> Transition:
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal((num, CONFIG.batch.size, *shape)).astype(np.float32)

    ones, z = np.ones((num, CONFIG.batch.size), np.float32), np.zeros((num, CONFIG.batch.size, 0), np.float32)
    return Transition(normal(OBS), np.tanh(normal(ACT)), normal(), ones, normal(OBS), z, future=normal(3, OBS))


@cache
def make_agent(config: FREConfig = CONFIG) -> FRE:
    return jax.jit(partial(FRE.create, config))(jax.tree.map(lambda x: x[0], batches(1)), jax.random.key(0))


# --- the encoder ------------------------------------------------------------------------------------------------------


def encoder_moves_by(order, attend=None, monkeypatch=None) -> float:
    """How much the encoding changes when the pairs come in another order."""
    if attend is not None:
        monkeypatch.setattr(nn.MultiHeadDotProductAttention, "__call__", attend)
    rng = np.random.default_rng(0)
    states, rewards = rng.standard_normal((3, 32, OBS)), rng.uniform(-1, 1, (3, 32))
    encoder = RewardEncoder(DIM, width=32)
    params = encoder.init(jax.random.key(0), states, rewards)
    one, other = (encoder.apply(params, states[:, i], rewards[:, i]) for i in (slice(None), order))
    return max(float(jnp.abs(a - b).max()) for a, b in zip(one, other))


def test_pairs_have_no_order():
    assert encoder_moves_by(np.random.default_rng(1).permutation(32)) < 1e-5


def test_a_causal_mask_would_give_them_one(monkeypatch):
    original = nn.MultiHeadDotProductAttention.__call__

    def causal(self, x):
        return original(self, x, mask=nn.make_causal_mask(jnp.ones(x.shape[:-1])))

    assert encoder_moves_by(np.random.default_rng(1).permutation(32), causal, monkeypatch) > 1e-2


def test_bins_of_rewards():
    rewards = np.array([-1, -0.5, -1 / 32, 0, 0.5, 15 / 16, 1, 2, -3])
    assert reward_bin(rewards).tolist() == [0, 8, 15, 16, 24, 31, 31, 31, 0]


def check_kl(divergence):
    zero = jnp.zeros((1, 4))
    assert divergence(zero, zero)[0] == 0
    for mean, log_std in ((0.5, 0.0), (0.0, 0.3), (0.0, -0.3), (-1.0, 0.2)):
        x = mean + np.exp(log_std) * np.random.default_rng(0).standard_normal(400_000)
        expected = np.mean(-log_std - 0.5 * ((x - mean) / np.exp(log_std)) ** 2 + 0.5 * x**2)  # E log q - log p
        found = divergence(jnp.full((1, 4), mean), jnp.full((1, 4), log_std))[0]
        assert found == pytest.approx(expected, abs=0.01) and found > 0


def test_the_divergence_is_that_of_what_is_sampled():
    check_kl(kl)
    with pytest.raises(AssertionError):  # As released: a log-variance here, a log standard deviation in the sample.
        check_kl(lambda mean, scale: -0.5 * jnp.mean(1 + scale - mean**2 - jnp.exp(scale), axis=-1))


def test_encoder_and_decoder_overfit_16_random_rewards():
    states = jax.random.normal(jax.random.key(0), (16, 40, OBS))
    labels = label([find_prior("mlp", States())], jax.random.key(1), states[:, :32], states[:, 32:])
    encoder, decoder = RewardEncoder(32, width=64), MLP(1, 128, 2, activation=gelu_tanh, norm=True)
    models = (
        Model.create(encoder, 1e-3, jax.random.key(2), states[:1, :32], labels.encode[:1]),
        Model.create(decoder, 1e-3, jax.random.key(3), jnp.zeros((1, 32 + OBS))),
    )

    def error(params, order):
        w, _ = models[0](states[:, :32], labels.encode, params=params[0])
        told = jnp.broadcast_to(w[order, None], (16, 8, 32))
        decoded = models[1](jnp.concatenate([told, labels.decode_states], axis=-1), params=params[1])[..., 0]
        return jnp.mean((decoded - labels.decode) ** 2)

    @jax.jit
    def train(models):
        def step(models, _):
            models, _, _ = minimise_jointly(models, lambda params: (error(params, jnp.arange(16)), None))
            return models, None

        return jax.lax.scan(step, models, length=200)[0]

    trained = tuple(model.params for model in train(models))
    matched, shuffled = error(trained, jnp.arange(16)), error(trained, jnp.roll(jnp.arange(16), 1))
    assert matched < 1e-2 and shuffled > 10 * matched


# --- rewards ----------------------------------------------------------------------------------------------------------

ABOUT = States(futures=7, position=(0, 1), goal_radius=0.5)


def drawn(family, num=400, about=ABOUT, at=None):
    """Rewards of `num` functions at `at` (m, obs), (num, m)."""
    states = jax.random.normal(jax.random.key(0), (num, 32, OBS))
    at = jax.random.normal(jax.random.key(9), (200, OBS)) if at is None else at
    keys = jax.random.split(jax.random.key(1), num)
    return np.asarray(jax.vmap(lambda key, s: family(key, s, about).of(at))(keys, states))


def check_linear(family):
    rewards = drawn(family)
    low = rewards.min(axis=1)
    assert rewards.max() <= 1 and rewards.min() >= -1
    assert 0.3 < (low >= 0).mean() < 0.7  # Half of them are cut at 0; few others happen to be.
    free = drawn(family, at=jnp.eye(OBS)[2:]) - drawn(family, at=-jnp.eye(OBS)[2:])
    assert (np.abs(free).sum(axis=1) > 0).all()  # None is zero everywhere.
    assert 1.1 < (np.abs(free) > 0).sum(axis=1).mean() < 1.35  # One that is kept, and 0.1 of two others.
    assert not drawn(family, at=jnp.eye(OBS)[:2]).any()  # Where it is does not count.


def never_forced(key, states, about):
    kept_key, size_key = jax.random.split(key)
    c = jnp.where(jax.random.bernoulli(kept_key, 0.1, (OBS,)), jax.random.uniform(size_key, (OBS,), minval=-1), 0)
    return Reward(lambda s: jnp.clip(s.at[..., :2].set(0) @ c, -1, 1))


def test_linear_rewards():
    check_linear(linear)
    with pytest.raises(AssertionError):
        check_linear(never_forced)


def test_random_networks_differ_and_stay_in_bounds():
    rewards = drawn(mlp, about=dataclasses.replace(ABOUT, mlp_scale=5.0))
    assert np.abs(rewards).max() <= 1 and (rewards.std(axis=1) > 0.1).mean() > 0.9
    assert (drawn(mlp).std(axis=1) > 0.1).mean() < 0.8  # Of states of size 1 fewer networks make much.
    varied = rewards[rewards.std(axis=1) > 0.1][:50]
    assert np.abs(np.corrcoef(varied) - np.eye(50)).mean() < 0.4


@pytest.mark.parametrize("body", ["walker", "cheetah"])
def test_random_networks_of_the_papers_presets_see_states_as_they_are(body):
    """A third of the functions would vary by less than 0.1 on states in standard deviations."""
    config = preset("fre", f"exorl-{body}-paper")
    scale, about = np.array(config.agent.goal_scale), config.agent.about()
    units = np.random.default_rng(0).standard_normal((300, len(scale)))
    seen = units if config.normalizer == "fit" else units * scale
    keys = jax.random.split(jax.random.key(1), 300)
    spread = np.asarray(jax.vmap(lambda key: mlp(key, jnp.float32(seen), about).of(jnp.float32(seen)))(keys)).std(
        axis=1
    )
    assert spread.min() > 0.1 and np.median(spread) == pytest.approx(0.7, abs=0.1)
    alike = np.zeros((3, len(scale)), np.float32)
    alike[1:, :2] = np.float32([[0.99], [1.01]]) * about.goal_radius * scale[:2] / 2**0.5
    assert reached(alike, alike[0], about).tolist() == [True, True, False]  # Goals are near in standard deviations.


def test_fields_are_linear_in_the_rest_by_weights_of_the_place():
    rng = np.random.default_rng(0)
    place, rest = rng.standard_normal((300, 2)), 0.1 * rng.standard_normal((300, OBS - 2))

    def at(rest):
        return drawn(field, num=60, at=jnp.float32(np.concatenate([place, rest], axis=1)))

    none, once, twice = at(0 * rest), at(rest), at(2 * rest)
    inside = np.abs(np.stack([none, once, twice])).max(axis=0) < 1  # where nothing is clipped
    assert inside.mean() > 0.4 and np.abs(once).max() <= 1
    np.testing.assert_allclose((twice - none)[inside], 2 * (once - none)[inside], atol=1e-5)
    slopes = (once - none) / rest.sum(axis=1)
    assert np.median(np.abs(once - none)[inside]) > 0.01 and np.median(slopes.std(axis=1)) > 0.5  # by the place
    with pytest.raises(UserError, match="Rewards 'field' depend on the position: expected position to name"):
        find_prior("field", States())


def test_goals_are_states_that_tell_the_reward():
    states = jnp.outer(jnp.arange(32.0), jnp.ones(OBS))  # Row i is i.
    chosen = jax.vmap(lambda key: goal(key, states, ABOUT).special[0])(jax.random.split(jax.random.key(0), 20_000))
    shares = np.bincount(np.asarray(chosen, int), minlength=32) / 20_000
    groups = [shares[0], shares[1:8].sum(), shares[8:].sum()]
    assert groups == pytest.approx([0.2, 0.5, 0.3], abs=0.015)


def test_a_goal_ends_exactly_where_its_reward_is_zero():
    states = jax.random.normal(jax.random.key(0), (300, 32, OBS))
    labels = label([find_prior("goal", ABOUT)], jax.random.key(1), states, states[:, :4])
    assert set(np.unique(labels.encode)) == {-1.0, 0.0}
    assert np.array_equal(labels.ends, labels.encode[:, 0] == 0) and 0.1 < labels.ends.mean() < 0.5
    assert (labels.decode[:, 0] == 0).all()  # The goal itself is asked about first.
    near = np.linalg.norm(labels.decode_states[:, :1, :2] - states[:, :, :2], axis=-1) < 0.5
    assert np.array_equal(near, labels.encode == 0)  # By the position alone.
    same = label([find_prior("near", ABOUT)], jax.random.key(1), states, states[:, :4])
    assert np.array_equal(same.encode, labels.encode + 1) and not same.ends.any()
    assert not label([find_prior("linear", ABOUT)], jax.random.key(1), states, states[:, :4]).ends.any()


def test_shares_of_the_priors_are_equal_and_in_order():
    def constant(value):
        return lambda key, states: Reward(lambda s: jnp.full(s.shape[:-1], value))

    states = jnp.zeros((11, 4, OBS))
    found = label([constant(v) for v in (0.1, 0.2, 0.3)], jax.random.key(0), states, states)
    assert np.allclose(found.encode[:, 0], [0.1] * 3 + [0.2] * 3 + [0.3] * 5)


def tall(key, states):
    height = jax.random.uniform(key)
    return Reward(lambda s: jnp.where(s[..., 2] > height, 1.0, 0.0))


def test_a_prior_of_ones_own():
    agent = make_agent(dataclasses.replace(CONFIG, rewards=("goal", f"{__name__}:tall")))
    _, labels = jax.jit(FRE._draw)(agent, jax.tree.map(lambda x: x[0], batches(1)), jax.random.key(0))
    half = CONFIG.batch.size // 2
    assert set(np.unique(labels.encode[:half])) <= {-1.0, 0.0} and set(np.unique(labels.encode[half:])) == {0.0, 1.0}
    with pytest.raises(UserError, match="Unknown reward prior 'gaol': did you mean 'goal'"):
        dataclasses.replace(CONFIG, rewards=("gaol",))
    with pytest.raises(UserError, match="Cannot import the reward prior"):
        dataclasses.replace(CONFIG, rewards=("nowhere:prior",))
    assert set(PRIORS) == {"goal", "near", "linear", "mlp", "field"}


# --- the agent --------------------------------------------------------------------------------------------------------


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_the_encoder_learns_first_and_then_stays():
    start = make_agent()
    warm, _, _ = learn(jax.tree.map(jnp.copy, start), batches(2), jax.random.key(0))
    done, _, _ = learn(jax.tree.map(jnp.copy, warm), batches(2, seed=1), jax.random.key(1))
    assert not same(start.encoder.params, warm.encoder.params) and same(start.iql, warm.iql)
    assert same(warm.encoder, done.encoder) and same(warm.decoder, done.decoder) and not same(warm.iql, done.iql)
    assert (int(warm.updates), int(done.updates)) == (2, 4)


def test_what_tells_a_reward():
    """The state, later states of its episode, then states of the batch."""
    agent, batch = make_agent(), jax.tree.map(lambda x: x[0], batches(1))
    states, labels = agent._draw(batch, jax.random.key(0))
    assert states.shape == (12, 8, OBS) and labels.decode_states.shape == (12, 4, OBS)
    asked = labels.decode_states[:, 1:]  # The first may be a goal.
    assert np.array_equal(states[:, 0], batch.obs) and np.array_equal(states[:, 1:4], batch.future)
    known = {row.tobytes() for row in batch.obs}
    assert all(
        np.asarray(row).tobytes() in known for row in jnp.concatenate([states[:, 4:], asked], 1).reshape(-1, OBS)
    )
    assert len({np.asarray(row).tobytes() for row in states[:, 4:].reshape(-1, OBS)}) > 6


def pairs(num: int, reward=None) -> Transition:
    rng = np.random.default_rng(3)
    obs = rng.standard_normal((num, OBS)).astype(np.float32)
    reward = rng.uniform(-1, 1, num).astype(np.float32) if reward is None else np.full(num, reward, np.float32)
    return Transition(0 * obs, np.zeros((num, ACT)), reward, np.ones(num), obs, np.zeros((num, 0)))


def test_many_pairs_are_the_mean_of_encodings_of_few():
    agent, steps = make_agent(), pairs(24)
    steps.reward[:2] = -1, 1
    task = agent.read(RewardPrompt(steps), steps, jax.random.key(0))
    parts = [agent.encode(steps.next_obs[i : i + 8], steps.reward[i : i + 8]) for i in (0, 8, 16)]
    np.testing.assert_allclose(task.w, np.mean(parts, axis=0), atol=1e-6)
    few = jax.tree.map(lambda x: x[:5], steps)
    np.testing.assert_allclose(
        agent.read(RewardPrompt(few), few, jax.random.key(0)).w, agent.encode(few.next_obs, few.reward), atol=1e-6
    )


@pytest.mark.parametrize(("factor", "offset"), [(20.0, 0.0), (0.1, 0.5), (1.0, -7.0)])
def test_rewards_are_told_in_their_own_scale_and_level(factor, offset):
    agent, steps = make_agent(), pairs(8)
    low, high = steps.reward.min(), steps.reward.max()
    full = steps._replace(reward=2 * (steps.reward - low) / (high - low) - 1)
    unit = agent.read(RewardPrompt(full), steps, jax.random.key(0))
    np.testing.assert_allclose(unit.w, agent.encode(full.next_obs, full.reward), atol=1e-5)
    task = agent.read(RewardPrompt(steps._replace(reward=factor * full.reward + offset)), steps, jax.random.key(0))
    np.testing.assert_allclose(task.w, unit.w, atol=1e-4)
    np.testing.assert_allclose(
        agent.predict_reward(task, steps), factor * agent.predict_reward(unit, steps) + offset, rtol=1e-4, atol=1e-4
    )
    forever = offset / (1 - agent.config.iql.gamma)
    np.testing.assert_allclose(
        agent.predict_return(task, steps.next_obs), factor * agent.predict_return(unit, steps.next_obs) + forever,
        rtol=1e-3, atol=1e-2,
    )  # fmt: skip


def test_rewards_that_are_all_equal_are_told_as_zero():
    agent, steps = make_agent(), pairs(8, reward=0.3)
    task = agent.read(RewardPrompt(steps), steps, jax.random.key(0))
    np.testing.assert_allclose(task.w, agent.encode(steps.next_obs, 0 * steps.reward), atol=1e-6)
    assert (float(task.middle), float(task.scale)) == (pytest.approx(0.3), 1)


def test_a_goal_is_told_like_the_priors_goals():
    agent = make_agent(dataclasses.replace(CONFIG, position=(0, 1), goal_radius=0.7))
    agent = agent.replace(normalizer=Normalizer(jnp.zeros(OBS), jnp.full(OBS, 2.0)))
    seen, key = pairs(50)._replace(obs=pairs(50).next_obs), jax.random.key(0)
    told = np.float32([0.3, -0.2, 9, 9, 9])
    task = agent.read(GoalPrompt(told), seen, jax.random.clone(key))
    picks = jax.random.randint(jax.random.clone(key), (7,), 0, 50)
    states = np.concatenate([told[None], seen.obs[picks]])
    reward = np.where(np.linalg.norm(states[:, :2] - told[:2], axis=1) / 2 < 0.7, 0.0, -1.0)
    assert reward[0] == 0 and set(reward) == {0.0, -1.0}
    np.testing.assert_allclose(task.w, agent.encode(states, reward), atol=1e-6)
    with pytest.raises(UnsupportedPrompt, match="FRE cannot follow a DemoPrompt"):
        agent.read(DemoPrompt(seen.obs), seen, key)


def test_positions_in_soft_bins():
    config = dataclasses.replace(CONFIG, position=(1,), position_bins=8, position_range=(0.0, 7.0))
    x = jnp.float32([[5.0, 2.0, 6.0, 7.0, 8.0]])
    bins = np.tanh((2.0 - np.arange(8)) / (7 / 8))
    np.testing.assert_allclose(config.bins()(x)[0], [*bins, 5, 6, 7, 8], atol=1e-6)
    assert make_agent(config).sample_actions(x, np.zeros((1, DIM)), jax.random.key(0)).shape == (1, ACT)


def test_rewards_pay_for_the_state_that_acts(monkeypatch):
    """The policy's reward is that of s, and the future counts nothing where s is the goal."""
    seen = {}

    def spy(self, x, action, reward, discount, next_x, key):
        seen.update(x=x, reward=reward, discount=discount)
        return self, {"actor/loss": jnp.float32(0)}

    agent = make_agent(dataclasses.replace(CONFIG, warmup=0, rewards=("goal",), goal_radius=2.0))
    monkeypatch.setattr(type(agent.iql), "update", spy)
    batch = jax.tree.map(lambda x: x[0], batches(1))
    agent.improve_policy(batch, jax.random.key(4))
    states, labels = agent._draw(batch, jax.random.split(jax.random.key(4))[0])
    assert np.array_equal(seen["reward"], labels.encode[:, 0]) and 0 < labels.ends.mean() < 1
    assert np.array_equal(seen["discount"], (labels.encode[:, 0] != 0).astype(np.float32))
    w, _ = agent.encoder(states, labels.encode)
    np.testing.assert_allclose(seen["x"], np.concatenate([w, batch.obs], axis=-1), atol=1e-6)


BAD = {
    "kind": (partial(FREConfig, z=SkillSpace("sphere", 4)), "z.kind is 'sphere': expected 'gaussian' for FRE"),
    "encode": (partial(FREConfig, encode=8), "encode is 8: expected a number of at least 9"),
    "heads": (partial(FREConfig, encoder_width=130, encoder_heads=4), "encoder_width is 130: expected a multiple of 8"),
    "no rewards": (partial(FREConfig, rewards=()), "expected at least one prior"),
    "one bin": (partial(FREConfig, position_bins=1, position=(0,)), "position_bins is 1: expected 0, or at least 2"),
    "bins of nothing": (partial(FREConfig, position_bins=8), "and the indices of a position"),
    "scale": (partial(FREConfig, goal_scale=(1.0, 0.0)), "goal_scale is .1.0, 0.0.: expected numbers above 0"),
    "radius": (partial(FREConfig, goal_radius=0.0), "goal_radius is 0.0: expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings(case):
    make, message = BAD[case]
    with pytest.raises(UserError, match=message):
        make()


def test_a_scale_of_another_observation():
    with pytest.raises(UserError, match="goal_scale has 2 numbers: expected one for each of the 5 of an observation"):
        make_agent(dataclasses.replace(CONFIG, goal_scale=(1.0, 2.0)))


def test_a_position_outside_the_observation():
    with pytest.raises(UserError, match="position names entry 7 of an observation of 5 numbers"):
        make_agent(dataclasses.replace(CONFIG, position=(0, 7)))


# --- its data ---------------------------------------------------------------------------------------------------------


def test_later_states_are_of_the_same_episode(tmp_path):
    lengths = [3, 9, 40, 400]
    episodes = [
        Episode(np.float32([[e, t] for t in range(n + 1)]), np.zeros((n, 1)), np.zeros(n), np.zeros(n, bool))
        for e, n in enumerate(lengths)
    ]
    data = write_dataset(tmp_path / "data", DatasetInfo("", "a test"), episodes)
    spec = BatchSpec(size=256, futures=7, future_gamma=0.9)
    batch = data.sample(jax.random.key(0), 20, spec)
    assert batch.future.shape == (20, 256, 7, 2) and batch.goal is None
    ahead = batch.future[..., 1] - batch.obs[..., None, 1]
    assert np.array_equal(batch.future[..., 0], np.broadcast_to(batch.obs[..., :1], ahead.shape))
    assert (
        ahead.min() == 1 and (batch.future[..., 1] <= np.array(lengths)[batch.obs[..., 0].astype(int)][..., None]).all()
    )
    inside = ahead[(batch.obs[..., 0] == 3) & (batch.obs[..., 1] < 300)]
    assert inside.mean() == pytest.approx(10, rel=0.05)  # 1 / (1 - 0.9)
    plain = data.sample(jax.random.key(0), 20, dataclasses.replace(spec, futures=0))
    assert plain.future is None and np.array_equal(plain.obs, batch.obs)
