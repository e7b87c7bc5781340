"""PPO and its two policy heads against NumPy, and small problems that it learns in seconds."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from urlrl.adaptation.options import Options
from urlrl.adaptation.tuned import Tuned, TunedConfig
from urlrl.config import PretrainConfig
from urlrl.errors import TrainingDiverged, UserError
from urlrl.learners.distributions import Categorical, TanhNormal
from urlrl.learners.nets import MLP, CategoricalPolicy, ConvNet, ConvPolicy
from urlrl.learners.ppo import PPO, Decisions, PPOConfig, Rollout, _real_rows
from urlrl.learners.skills import SkillSpace, hold_skill
from urlrl.learners.statistics import Normalizer
from urlrl.streams import stream
from urlrl.tasks.task import Task, make_task_env
from urlrl.training.host import Host
from urlrl.types import BatchSpec

RNG = np.random.default_rng(0)
SMALL = PPOConfig(width=16, lr=1e-2, gamma=0.9, gae_lambda=0.7, entropy_coef=0.0, rounds=1, batch=64)


improve, update = jax.jit(PPO._improve), jax.jit(PPO.update)


def make(config=SMALL, obs=3, act=2, discrete=True) -> PPO:
    x, action = np.zeros((1, obs), np.float32), np.zeros((1, act), bool if discrete else np.float32)
    return PPO.create(config, x, action, stream(0, "ppo"))


# --- advantages and returns


def random_rollout(steps=7, lanes=3, obs=3):
    """Lane 0 ends an episode in the middle and at the end, lane 1 in the middle only, lane 2 never; time limits end one
    in lane 1 and one in lane 2."""
    discount = np.ones((steps, lanes), np.float32)
    discount[2::4, :1] = discount[4::4, 1:2] = 0
    ended = discount == 0
    ended[1:2, 1:2] = ended[3:4, 2:] = True
    x, next_x = RNG.normal(size=(2, steps, lanes, obs)).astype(np.float32)  # Apart, as at the end of an episode.
    action = np.eye(2, dtype=np.float32)[RNG.integers(2, size=(steps, lanes))]
    return Rollout(x, action, RNG.normal(size=(steps, lanes)).astype(np.float32), discount, next_x, ended)


def by_hand(rollout, value, next_value, gamma, lam):
    """GAE as its definition, a sum over later deltas of the episode; the return as a sum of later rewards."""
    steps, lanes = rollout.reward.shape
    delta = rollout.reward + gamma * rollout.discount * next_value - value
    advantage, returns = np.zeros((2, steps, lanes))
    for lane in range(lanes):
        for t in range(steps):
            end = next((s for s in range(t, steps) if rollout.ended[s, lane]), steps - 1)
            for s in range(t, end + 1):
                advantage[t, lane] += (gamma * lam) ** (s - t) * delta[s, lane]
                returns[t, lane] += gamma ** (s - t) * rollout.reward[s, lane]
            returns[t, lane] += gamma ** (end - t + 1) * rollout.discount[end, lane] * next_value[end, lane]
    return advantage, returns


def test_advantages_and_returns_are_those_of_the_definition():
    ppo, rollout = make(), random_rollout()
    value, next_value = (np.asarray(ppo.value(x))[..., 0] for x in (rollout.x, rollout.next_x))
    advantage, returns = by_hand(rollout, value, next_value, 0.9, 0.7)
    got = ppo.advantages_and_returns(rollout)
    np.testing.assert_allclose(got[0], advantage, atol=1e-5)
    np.testing.assert_allclose(got[1], returns, atol=1e-5)
    assert got[1][2, 0] == pytest.approx(rollout.reward[2, 0])  # An episode's last return is its last reward.
    endless = rollout._replace(discount=np.ones((7, 3)), ended=np.zeros((7, 3), bool))
    deadly, next_row = (
        rollout._replace(discount=np.float32(~rollout.ended)),
        np.concatenate([value[1:], next_value[-1:]]),
    )
    wrong = {
        "episodes run into each other": by_hand(endless, value, next_value, 0.9, 0.7),
        "the value after a step is that of the next row": by_hand(rollout, value, next_row, 0.9, 0.7),
        "a time limit is a death": by_hand(deadly, value, next_value, 0.9, 0.7),
        "lambda is 1": by_hand(rollout, value, next_value, 0.9, 1.0),
    }
    for name, (other, _) in wrong.items():
        assert np.abs(got[0] - other).max() > 0.05, name
    assert np.abs(got[1] - (advantage + value)).max() > 0.05  # The value is not fitted to A + V.


# --- the losses


def loss_parts(ppo, x, action, old_log_prob, advantage, returns):
    """Metrics of one step, and both parts as they were before it, by NumPy from the policy's log-probabilities."""
    stepped, metrics = improve(ppo, decisions(x, action, old_log_prob, advantage, returns))
    policy = ppo.actor(x)
    log_prob, entropy = np.asarray(policy.log_prob(action)), np.asarray(policy.entropy())
    standard = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
    standard = standard if ppo.config.standardise else advantage
    ratio, c = np.exp(log_prob - old_log_prob), ppo.config.clip
    gain = np.minimum(ratio * standard, np.clip(ratio, 1 - c, 1 + c) * standard)
    policy_loss = -(gain + ppo.config.entropy_coef * entropy).mean()
    value_loss = ((np.asarray(ppo.value(x))[:, 0] - returns) ** 2).mean()
    return stepped, metrics, policy_loss, value_loss


def decisions(x, action, log_prob, advantage, returns, value=None) -> Decisions:
    return Decisions(x, action, log_prob, np.zeros_like(returns) if value is None else value, advantage, returns)


def batch_of(ppo, n=64, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    action = np.asarray(ppo.actor(x).sample(stream(seed, "actions")))
    log_prob = np.asarray(ppo.actor(x).log_prob(action))
    return x, action, log_prob, rng.normal(size=n).astype(np.float32), rng.normal(size=n).astype(np.float32)


@pytest.mark.parametrize(("discrete", "standardise"), [(True, True), (False, True), (True, False)])
def test_the_losses_are_those_of_the_paper(discrete, standardise):
    ppo = make(PPOConfig(width=16, lr=1e-4, entropy_coef=0.3, standardise=standardise), discrete=discrete)
    x, action, log_prob, advantage, returns = batch_of(ppo)
    old = log_prob + np.random.default_rng(2).normal(scale=0.4, size=64).astype(np.float32)
    _, metrics, policy_loss, value_loss = loss_parts(ppo, x, action, old, 5 * advantage + 3, returns)
    assert metrics["actor/loss"] == pytest.approx(policy_loss, abs=1e-5)
    assert metrics["critic/loss"] == pytest.approx(value_loss, rel=1e-5)
    assert metrics["actor/entropy"] == pytest.approx(np.asarray(ppo.actor(x).entropy()).mean(), rel=1e-5)
    unclipped = -(np.exp(log_prob - old) * (advantage - advantage.mean()) / advantage.std(ddof=1)).mean()
    assert abs(policy_loss + 0.3 * float(metrics["actor/entropy"]) - unclipped) > 0.01  # Wrong: without the clip.


def moved(before, after):
    return max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params)))


def test_the_value_is_fitted_to_the_worse_of_itself_and_what_it_may_move_to():
    ppo = make(PPOConfig(width=16, lr=1e-4, value_clip=0.1))
    x, action, log_prob, advantage, returns = batch_of(ppo)
    value = np.asarray(ppo.value(x))[:, 0]
    before = value + np.random.default_rng(3).normal(scale=0.3, size=64).astype(np.float32)
    _, metrics = improve(ppo, decisions(x, action, log_prob, advantage, returns, before))
    near = before + np.clip(value - before, -0.1, 0.1)
    expected = np.maximum((value - returns) ** 2, (near - returns) ** 2).mean()
    assert metrics["critic/loss"] == pytest.approx(expected, rel=1e-5)
    assert abs(expected - ((value - returns) ** 2).mean()) > 0.01  # Wrong: without the clip.


def test_gradients_are_scaled_down_to_their_largest_norm():
    x, action, log_prob, advantage, returns = batch_of(make())
    for norm, scale in ((0.05, 1.0), (1e6, 0.0)):
        tx = make(PPOConfig(width=16, lr=1e-4, max_grad_norm=norm)).value.tx
        gradient = {"w": np.float32([3.0, 4.0])}
        clipped, _ = tx.update(gradient, tx.init(gradient))
        found = optax.adam(1e-4)
        expected, _ = found.update({"w": np.float32([3.0, 4.0]) * (norm / 5 if scale else 1)}, found.init(gradient))
        np.testing.assert_allclose(clipped["w"], expected["w"], rtol=1e-5)


def test_networks_are_convolutions_where_inputs_begin_with_an_image():
    config = replace(SMALL, image=(7, 2))
    ppo = make(config, obs=100)
    assert isinstance(ppo.actor.module, ConvPolicy) and isinstance(ppo.value.module, ConvNet)
    after, metrics = update(ppo, random_rollout(obs=100), stream(0, "update"))
    assert moved(ppo.actor, after.actor) > 1e-3 and moved(ppo.value, after.value) > 1e-3
    assert all(np.isfinite(value) for value in metrics.values())
    with pytest.raises(
        UserError, match=r"image is \(7, 2\), and there are 97 inputs and one-hot actions: expected None"
    ):
        make(config, obs=97)
    with pytest.raises(UserError, match="100 inputs and boxes: expected None, or at least 98 inputs and one-hot acti"):
        make(config, obs=100, discrete=False)
    for image, message in (((6, 2), "image's side is 6: expected a number of at least 7"), ((7, 0), "channels is 0")):
        with pytest.raises(UserError, match=message):
            replace(SMALL, image=image)


@pytest.mark.parametrize("target", ["gae", "monte_carlo"])
def test_what_the_value_is_fitted_to(target):
    ppo, rollout = make(replace(SMALL, value_target=target)), random_rollout()
    value, next_value = (np.asarray(ppo.value(x))[..., 0] for x in (rollout.x, rollout.next_x))
    advantage, returns = by_hand(rollout, value, next_value, 0.9, 0.7)
    expected = advantage + value if target == "gae" else returns
    np.testing.assert_allclose(ppo.advantages_and_returns(rollout)[1], expected, atol=1e-5)


def test_an_epoch_sees_every_row_once():
    ppo = make(replace(SMALL, epochs=3, batch=8))
    rows = np.asarray(ppo._batches(26, stream(0, "rows")))
    assert rows.shape == (9, 8)  # 3 of 3 whole batches; two rows are left out of each.
    for epoch in rows.reshape(3, 24):
        assert len(np.unique(epoch)) == 24
    assert not np.array_equal(rows[:3], rows[3:6])
    drawn = np.asarray(make(replace(SMALL, rounds=50, batch=8))._batches(26, stream(0, "rows")))
    assert drawn.shape == (50, 8) and any(len(np.unique(batch)) < 8 for batch in drawn)  # With replacement.
    assert make(replace(SMALL, epochs=2, batch=256))._batches(26, stream(0, "rows")).shape == (2, 26)


@pytest.mark.parametrize(
    ("good", "bad", "still"),
    [(1.5, 0.5, True), (0.5, 1.5, False), (1.1, 0.9, False), (1.5, 0.9, False), (1.1, 0.5, False)],
)
def test_the_policy_stands_still_only_where_every_ratio_is_beyond_the_clip_in_its_favour(good, bad, still):
    """`good` and `bad` are pi / pi_old of actions with A > 0 and A < 0."""
    ppo = make()
    x, action, log_prob, advantage, returns = batch_of(ppo)
    advantage -= advantage.mean()
    old = (log_prob - np.log(np.where(advantage > 0, good, bad))).astype(np.float32)
    stepped, _ = improve(ppo, decisions(x, action, old, advantage, returns))
    assert (moved(ppo.actor, stepped.actor) == 0) == still
    assert moved(ppo.value, stepped.value) > 0


def test_the_policy_moves_toward_what_was_better_and_the_value_toward_the_return():
    ppo = make()
    x, action, log_prob, advantage, returns = batch_of(ppo)
    stepped, _ = improve(ppo, decisions(x, action, log_prob, advantage, returns))
    change = np.asarray(stepped.actor(x).log_prob(action)) - log_prob
    assert np.corrcoef(change, advantage)[0, 1] > 0.2
    before, after = (((np.asarray(p.value(x))[:, 0] - returns) ** 2).mean() for p in (ppo, stepped))
    assert after < before


def test_entropy_alone_drives_the_policy_to_uniform():
    ppo = make(PPOConfig(width=16, lr=1e-2, entropy_coef=1.0))
    bias = {**ppo.actor.params, "Dense_2": {**ppo.actor.params["Dense_2"], "bias": jnp.float32([2.0, 0.0])}}
    ppo = ppo.replace(actor=ppo.actor.restart(bias))
    x, action, log_prob, _, returns = batch_of(ppo)
    before = float(ppo.actor(x).entropy().mean())
    for _ in range(50):
        ppo, _ = improve(ppo, decisions(x, action, log_prob, np.zeros(64, np.float32), returns))
    assert before < 0.5 < 0.65 < float(ppo.actor(x).entropy().mean()) <= np.log(2) + 1e-5


def padded(rows, garbage):
    """Six real rows in a lane, then five in the other, and behind them rows of garbage."""
    real = np.arange(8)[:, None] < np.array([6, 5])
    last = np.arange(8)[:, None] == np.array([5, 4])

    def fill(part):
        return np.where(real.reshape(8, 2, *[1] * (part.ndim - 2)), part, np.asarray(garbage, part.dtype))

    filled = jax.tree.map(fill, rows)
    filled = filled._replace(discount=np.where(last, 0, filled.discount), ended=filled.ended | last, real=real)
    return jax.tree.map(jnp.asarray, filled)._replace(decisions=11)


def test_rows_that_are_not_real_teach_nothing():
    ppo, rows = make(replace(SMALL, epochs=3, batch=4)), random_rollout(steps=8, lanes=2)
    one, other = (ppo.update(padded(rows, garbage), jax.random.key(0))[0] for garbage in (1, 7))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))
    unmasked = ppo.update(padded(rows, 7)._replace(real=None), jax.random.key(0))[0]
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(unmasked)))


def test_each_real_row_is_chosen_once_before_any_is_chosen_again():
    real = np.array([False, True, True, False, True, False, False])
    rows = np.asarray(_real_rows(jnp.asarray(real), jax.random.key(0)))
    assert sorted(rows[:3]) == [1, 2, 4] and (rows[3:6] == rows[:3]).all() and rows[6] == rows[0]


def test_an_update_learns_from_the_rollouts_own_rows():
    """All rows alike: whatever is drawn, the value of one round takes one step on them."""
    ppo, row = make(), random_rollout(steps=1, lanes=1)
    rollout = jax.tree.map(lambda part: np.repeat(part, 6, axis=1), row)
    stepped, metrics = update(ppo, rollout, stream(0, "update"))
    value, next_value = (float(ppo.value(x)[0, 0, 0]) for x in (row.x, row.next_x))
    target = row.reward[0, 0] + 0.9 * row.discount[0, 0] * next_value
    assert metrics["critic/loss"] == pytest.approx((value - target) ** 2, rel=1e-4)
    assert abs(float(stepped.value(row.x)[0, 0, 0]) - target) < abs(value - target)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", 1.1),
        ("gae_lambda", -0.1),
        ("clip", 0),
        ("rounds", 0),
        ("batch", 0),
        ("entropy_coef", -1),
        ("lr", 0),
        ("epochs", -1),
        ("value_clip", 0),
        ("max_grad_norm", 0),
    ],  # fmt: skip
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}: expected a"):
        PPOConfig(**{name: value})


# --- the heads


LOGITS = RNG.normal(scale=2, size=(5, 4)).astype(np.float32)
ONE_HOT = np.eye(4, dtype=np.float32)[[0, 3, 1, 1, 2]]
P = np.exp(LOGITS.astype(float)) / np.exp(LOGITS.astype(float)).sum(axis=1, keepdims=True)


def test_the_categorical_is_a_softmax():
    head = Categorical(jnp.asarray(LOGITS))
    log_prob, entropy = np.log(P[np.arange(5), [0, 3, 1, 1, 2]]), -(P * np.log(P)).sum(axis=1)
    np.testing.assert_allclose(head.log_prob(ONE_HOT), log_prob, atol=1e-5)
    np.testing.assert_allclose(head.entropy(), entropy, atol=1e-5)
    assert head.log_prob(ONE_HOT).shape == head.entropy().shape == (5,)
    wrong = {
        "logits for log-probabilities": (LOGITS * ONE_HOT).sum(axis=1),
        "a softmax over rows": np.log((np.exp(LOGITS) / np.exp(LOGITS).sum(axis=0) * ONE_HOT).sum(axis=1)),
    }
    for name, other in wrong.items():
        assert np.abs(head.log_prob(ONE_HOT) - other).max() > 0.1, name
    assert float(Categorical(jnp.full((1, 4), 3.0)).entropy()[0]) == pytest.approx(np.log(4))
    extreme = Categorical(jnp.float32([[1e4, 0.0, 0.0, 0.0]]))
    assert float(extreme.log_prob(ONE_HOT[:1])[0]) == 0 and float(extreme.entropy()[0]) == 0


def test_the_categorical_samples_its_probabilities_and_its_mode():
    head = Categorical(jnp.broadcast_to(jnp.asarray(LOGITS[0]), (20_000, 4)))
    samples = np.asarray(head.sample(stream(0, "samples")))
    assert set(np.unique(samples)) == {0, 1} and (samples.sum(axis=1) == 1).all()
    np.testing.assert_allclose(samples.mean(axis=0), P[0], atol=0.015)
    mode = np.eye(4)[LOGITS.argmax(axis=1)]
    head = Categorical(jnp.asarray(LOGITS))
    assert np.array_equal(head.mode(), mode) and np.array_equal(head.sample(stream(0, "cold"), 0.0), mode)


def test_a_fresh_categorical_policy_is_nearly_uniform():
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    module = CategoricalPolicy(4, 64)
    head = module.apply(module.init(stream(0, "policy"), x), x)
    assert head.logits.shape == (32, 4) and float(head.entropy().min()) > np.log(4) - 0.1
    assert isinstance(make(act=4).value.module, MLP)


MEAN = np.float32([[0.5, -1.0], [0.0, 0.3], [2.0, 1.0]])
LOG_STD = np.float32([[-1.0, 0.2], [0.0, -0.5], [-2.0, 0.4]])


def gauss(u):
    return -0.5 * ((u - MEAN) / np.exp(LOG_STD)) ** 2 - LOG_STD - 0.5 * np.log(2 * np.pi)


def test_the_log_prob_of_a_tanh_normal_is_that_of_its_change_of_variables():
    head = TanhNormal(jnp.asarray(MEAN), jnp.asarray(LOG_STD))
    action = np.float32([[0.3, -0.9], [0.99, 0.0], [0.95, -0.2]])
    u = np.arctanh(action.astype(float))
    expected = (gauss(u) - np.log(1 - action.astype(float) ** 2)).sum(axis=1)
    np.testing.assert_allclose(head.log_prob(action), expected, atol=2e-3)  # The floors of 1e-6, at |a| = 0.99.
    wrong = {
        "no Jacobian": gauss(u).sum(axis=1),
        "the density at a instead of u": (gauss(action) - np.log(1 - action**2)).sum(axis=1),
        "a Jacobian of the wrong sign": (gauss(u) + np.log(1 - action**2)).sum(axis=1),
    }
    for name, other in wrong.items():
        assert np.abs(head.log_prob(action) - other).max() > 0.1, name


def test_the_log_prob_of_a_tanh_normal_is_that_of_its_sample_and_sums_to_one():
    head = TanhNormal(jnp.asarray(MEAN), jnp.asarray(LOG_STD))
    action, log_prob = head.sample_and_log_prob(stream(0, "sample"))
    np.testing.assert_allclose(head.log_prob(action), log_prob, atol=5e-3)
    grid = np.linspace(-1, 1, 20_001)[1:-1].astype(np.float32)
    one = TanhNormal(jnp.float32([[0.4]]), jnp.float32([[-0.3]]))
    density = np.exp(np.asarray(one._replace(mean=jnp.full((len(grid), 1), 0.4)).log_prob(grid[:, None])))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)


def test_log_prob_is_finite_at_the_edge():
    head = TanhNormal(jnp.zeros((2, 1)), jnp.zeros((2, 1)))
    assert np.isfinite(head.log_prob(np.float32([[1.0], [-1.0]]))).all()


def test_the_entropy_of_a_tanh_normal_is_that_of_its_normal():
    head = TanhNormal(jnp.asarray(MEAN), jnp.asarray(LOG_STD))
    noise = np.random.default_rng(0).normal(size=(200_000, *MEAN.shape))
    expected = -gauss(MEAN + np.exp(LOG_STD) * noise).sum(axis=-1).mean(axis=0)
    np.testing.assert_allclose(head.entropy(), expected, atol=0.01)
    assert head.entropy().shape == (3,)


# --- learning


def learn(ppo, rounds, reward_of, n=256, obs=3, seed=0):
    """One-step episodes of random contexts."""
    rng = np.random.default_rng(seed)
    for i in range(rounds):
        x = rng.choice([-1.0, 1.0], size=(1, n, obs)).astype(np.float32)
        action = np.asarray(ppo.actor(x).sample(stream(seed, f"act {i}")))
        reward = reward_of(x, action).astype(np.float32)
        rollout = Rollout(x, action, reward, np.zeros((1, n), np.float32), x, np.ones((1, n), bool))
        ppo, _ = update(ppo, rollout, stream(seed, f"update {i}"))
    return ppo


def test_it_learns_a_contextual_bandit_with_two_arms():
    def reward_of(x, action):
        return (action.argmax(axis=-1) == (x[..., 0] > 0)).astype(float)

    ppo = learn(make(PPOConfig(width=16, lr=1e-2, batch=128)), 12, reward_of)
    x = np.random.default_rng(9).choice([-1.0, 1.0], size=(200, 3)).astype(np.float32)
    assert reward_of(x, np.asarray(ppo.actor(x).mode())).mean() == 1
    value = np.asarray(ppo.value(x))[:, 0]
    assert np.abs(value - 1).mean() < 0.25  # Of the rollouts, which explore.
    wrong = learn(make(PPOConfig(width=16, lr=1e-2, batch=128)), 12, lambda x, action: -reward_of(x, action))
    assert reward_of(x, np.asarray(wrong.actor(x).mode())).mean() == 0  # It follows the reward, not a habit.


def test_it_learns_a_continuous_bandit():
    def reward_of(x, action):
        return -np.abs(action[..., 0] - 0.5 * x[..., 0])

    ppo = learn(make(PPOConfig(width=16, lr=1e-2, batch=128), act=1, discrete=False), 40, reward_of)
    x = np.random.default_rng(9).choice([-1.0, 1.0], size=(200, 3)).astype(np.float32)
    assert reward_of(x, np.asarray(ppo.actor(x).mode())).mean() > -0.2  # Doing nothing is at -0.5.


class Nearer(Task):
    """Minus the distance to the origin of a point that starts anywhere: 4 skills lead in 4 directions."""

    def score(self, moment):
        return -np.linalg.norm(moment.physics - moment.context, axis=1)

    def draw(self, rng):
        return rng.uniform(-2, 2, 2)

    def inputs(self, physics, context, clock):
        return context


def test_it_learns_to_lead_a_point_to_a_goal_by_skills():
    """In the training loop, on options of 10 steps: 3 decisions of each of 64 lanes are a rollout."""
    task = Nearer("nearer", "point", ("point",), episode_steps=30, option_steps=10, input_names=("goal_x", "goal_y"))
    directions = np.float32([[1, 0], [-1, 0], [0, 1], [0, -1]])

    class Compass(struct.PyTreeNode):
        """Four skills lead in four directions."""

        normalizer: Normalizer
        config: Any = struct.field(pytree_node=False)
        begin, act = hold_skill()

        def sample_actions(self, obs, z, key, temperature):
            return z @ directions

    def make_env():
        compass = Compass(Normalizer.identity(2), SimpleNamespace(z=SkillSpace("onehot", 4)))
        return Options(make_task_env(task, 64), compass, task.option_steps)

    def mean_return(act):
        """`act(obs)` is skills."""
        env = make_env()
        obs, _ = env.reset(seed=7)
        total = np.zeros(64)
        for _ in range(3):
            obs, reward, *_ = env.step(act(obs))
            total += reward
        return total.mean()

    def greedy(obs):
        gap = obs[:, 2:] - obs[:, :2]
        return np.eye(4)[(gap @ directions.T).argmax(axis=1)]

    ppo = make(PPOConfig(width=64, lr=3e-3, rounds=40, batch=128, entropy_coef=0.05), obs=4, act=4)
    tuned = TunedConfig(BatchSpec(128, timeout_as_terminal=True, source="rollout"))
    agent = Tuned.create(tuned, ppo, Normalizer.identity(4))
    config = PretrainConfig(agent=tuned, num_envs=64, rollout_steps=3, replay_capacity=192, normalizer="off")
    host = Host(config, agent, make_env())
    while host.step < 6_000:
        (outcome,) = host.epoch()
        assert not isinstance(outcome, TrainingDiverged)
    random = mean_return(lambda obs: np.eye(4)[np.random.default_rng(0).integers(4, size=len(obs))])
    best = mean_return(greedy)
    learned = mean_return(lambda obs: host.agent.sample_actions(np.float32(obs), None, jax.random.key(0), 0.0))
    assert learned > random + 0.8 * (best - random), (random, learned, best)
