"""Adversarial surprise: who acts when, what is scored and inserted, what each player is paid and on which clock,
against NumPy and by hand; and that the game is learned in the corridor with televisions."""

from dataclasses import dataclass, replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_tools import assert_same, final_state
from scipy import stats as scipy_stats

from urlrl.agents.adversarial_surprise import OBJECTIVES, AdversarialSurprise, AdversarialSurpriseConfig
from urlrl.config import PretrainConfig
from urlrl.data.rows import example_transition
from urlrl.envs import make_device_env, make_env
from urlrl.errors import UserError
from urlrl.learners.nets import as_image
from urlrl.learners.novelty import NoveltyConfig
from urlrl.learners.ppo import PPO, PPOConfig
from urlrl.learners.sac import SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets import preset
from urlrl.runs.begin import create_agent
from urlrl.training.seeds import Seeds
from urlrl.types import All, BatchSpec, Each, EnvSpec, Skill, Transition
from urlrl.verbs.pretrain import pretrain

# Two episodes of two rounds: Explore has 2 steps, Control 3, of which the first does not count.
EXPLORE, CONTROL, GRACE, TURNS, LANES = 2, 3, 1, 4, 3
ROUND, EPISODE = EXPLORE + CONTROL, TURNS // 2 * (EXPLORE + CONTROL)
STEPS = 2 * EPISODE
TINY = AdversarialSurpriseConfig(
    ppo=PPOConfig(width=8, lr=1e-3, epochs=1, batch=8, value_target="gae", gamma=0.9, gae_lambda=0.8),
    novelty=NoveltyConfig(width=8, outputs=4, batch=8),
    density="categorical",
    turns=TURNS,
    explore_steps=EXPLORE,
    control_steps=CONTROL,
    grace=1 / 3,
)
ENV = make_device_env("block:line18", episode_steps=EPISODE)
CLOCK = jnp.tile(jnp.arange(STEPS, dtype=jnp.int32)[:, None] % EPISODE, LANES)
ENDED = CLOCK == EPISODE - 1
ROOMS = make_device_env("rooms:noisy", episode_steps=EPISODE).env_spec


def make(config: AdversarialSurpriseConfig = TINY) -> AdversarialSurprise:
    return AdversarialSurprise.create(config, example_transition(ENV.env_spec, 2), jax.random.key(0))


def play(agent: AdversarialSurprise, task=None) -> tuple[Transition, np.ndarray]:
    """Two episodes in each of three lanes as the loops play them, (T, n, ...); and the positions that were reached."""
    key = jax.random.key(1)

    @partial(jax.jit, static_argnums=0)
    def episode(number):
        keys = jax.random.split(jax.random.fold_in(key, number), LANES + EPISODE)
        state, carry = jax.vmap(ENV.reset)(keys[:LANES]), agent.begin(key, LANES, (), task)

        def step(now, step_key):
            state, carry = now
            action, carry = agent.act(state.obs, carry, step_key)
            after = jax.vmap(ENV.step)(state, action)
            row = (state.obs, action, after.obs, carry.z, carry.given, after.position)
            return (after, carry), row

        return jax.lax.scan(step, (state, carry), keys[LANES:])[1]

    obs, action, next_obs, z, given, position = jax.tree.map(lambda *x: jnp.concatenate(x), *map(episode, range(2)))
    nothing, one = jnp.full((STEPS, LANES), jnp.nan), jnp.ones((STEPS, LANES))
    return Transition(obs, action, nothing, one, next_obs, z, extra={**given, "ended": ENDED}), np.asarray(position)


@cache
def played(config: AdversarialSurpriseConfig = TINY) -> tuple[AdversarialSurprise, Transition]:
    agent = make(config)
    return agent, play(agent)[0]


# --- Who acts, and what is seen ---------------------------------------------------------------------------------------


def counts_by_hand(next_obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """n (T, lanes) and counts (T, lanes, symbols) before each step is scored, and whether each counts, (T,)."""
    counts, whether = np.zeros(next_obs.shape), np.zeros(len(next_obs), bool)
    for t in range(len(next_obs)):
        phase = t % ROUND
        whether[t] = phase >= EXPLORE + GRACE
        fresh = t % EPISODE == 0
        before = t - 1
        counts[t] = 0 if fresh else counts[before] + (next_obs[before] if whether[before] else 0)
    return counts, whether


def check_schedule(config: AdversarialSurpriseConfig) -> None:
    """Players alternate; only what Control's steps after the grace reach is counted; a reset forgets it."""
    _, rows = played(config)
    explores = np.arange(STEPS) % ROUND < EXPLORE
    np.testing.assert_array_equal(rows.z[..., 0], np.tile(explores[:, None], LANES))
    np.testing.assert_array_equal(rows.z.sum(axis=-1), np.ones((STEPS, LANES)))
    counts, _ = counts_by_hand(np.asarray(rows.next_obs))
    np.testing.assert_array_equal(rows.extra["theta_0"], counts.sum(axis=-1))
    np.testing.assert_array_equal(rows.extra["theta_1"], counts)
    after_turns = rows.extra["theta_0"][ROUND::ROUND, 0]  # At the first step of each round but the first.
    assert after_turns.tolist() == [CONTROL - GRACE, 0, CONTROL - GRACE]


def test_players_take_turns_and_only_controls_steps_are_counted():
    check_schedule(TINY)


@dataclass(frozen=True)
class CountsGrace(AdversarialSurpriseConfig):
    @property
    def counted(self):
        return slice(self.explore_steps, self.round_steps)


@dataclass(frozen=True)
class CountsAll(AdversarialSurpriseConfig):
    @property
    def counted(self):
        return slice(0, self.round_steps)


@dataclass(frozen=True)
class ControlFirst(AdversarialSurpriseConfig):
    @property
    def parts(self):
        return {1: slice(0, self.control_steps), 0: slice(self.control_steps, self.round_steps)}


@pytest.mark.parametrize("wrong", [CountsGrace, CountsAll, ControlFirst])
def test_the_check_of_the_schedule_finds(wrong):
    with pytest.raises(AssertionError):
        check_schedule(wrong(**vars(TINY)))


def test_both_see_the_observation_the_statistics_and_the_clock():
    agent = make()
    obs, theta = jax.nn.one_hot(3, 140), agent.density.update(agent.density.init(), jax.nn.one_hot(5, 140))
    x = np.asarray(agent._input(obs, theta, jnp.int32(EPISODE - 2)))
    np.testing.assert_array_equal(x[:140], obs)
    np.testing.assert_array_equal(x[140:281], agent.density.stats(theta))
    np.testing.assert_allclose(x[281:], [(EPISODE - 2) / EPISODE, 1 / CONTROL], rtol=1e-6)
    assert np.abs(x).max() < 3


def in_rooms(density: str) -> AdversarialSurprise:
    config = replace(TINY, density=density, symbols=12, ppo=replace(TINY.ppo, image=(7, 12)))
    return AdversarialSurprise.create(config, example_transition(ROOMS, 2), jax.random.key(0))


@pytest.mark.parametrize("density", ["floored", "categorical", "bernoulli"])
def test_statistics_are_channels_of_the_image(density):
    """Of each cell, which symbol it shows, then what the density knows of each symbol there; the rest is beside it."""
    agent, rng = in_rooms(density), np.random.default_rng(0)
    now, *before = rng.integers(12, size=(4, 7, 7))
    theta = agent.density.init()
    for seen in before:
        theta = agent.density.update(theta, np.eye(12, dtype=np.float32)[seen].ravel())
    x = agent._input(np.eye(12, dtype=np.float32)[now].ravel(), theta, jnp.int32(EPISODE // 2))
    image, rest = as_image(x, agent.config.ppo.image)
    assert image.shape == (7, 7, 24) and rest[-2] == 0.5
    stats = np.asarray(agent.density.stats(theta))
    for row, column, symbol in np.ndindex(7, 7, 12):
        assert image[row, column, symbol] == (now[row, column] == symbol)
        assert image[row, column, 12 + symbol] == stats[(row * 7 + column) * 12 + symbol]
    np.testing.assert_array_equal(rest[:-2], stats[588:])
    if density == "floored":
        counts = sum(seen[..., None] == np.arange(12) for seen in before)
        np.testing.assert_allclose(image[..., 12:], np.maximum(counts / 3, 1e-3), rtol=1e-6)


def test_a_step_of_training_with_convolutions():
    agent, rng = in_rooms("floored"), np.random.default_rng(0)
    obs, next_obs = np.eye(12, dtype=np.float32)[rng.integers(12, size=(2, EPISODE, LANES, 49))].reshape(
        2, EPISODE, LANES, 588
    )
    action, one = np.eye(7, dtype=bool)[rng.integers(7, size=(EPISODE, LANES))], np.ones((EPISODE, LANES), np.float32)
    given = agent.begin(jax.random.key(0), LANES, ()).given
    extra = {name: np.broadcast_to(leaf, (EPISODE, *leaf.shape)) for name, leaf in given.items()}
    extra |= {"clock": CLOCK[:EPISODE], "ended": ENDED[:EPISODE]}
    rows = Transition(obs, action, one, one, next_obs, np.zeros((EPISODE, LANES, 2), np.float32), extra=extra)
    after, metrics = jax.jit(agent.update)(rows, jax.random.key(0))
    assert all(np.isfinite(value) for value in metrics.values())
    for name in ("explore", "control"):
        before, stepped = (jax.tree.leaves(getattr(it, name).actor.params) for it in (agent, after))
        assert all((x != y).any() for x, y in zip(before, stepped))


@pytest.mark.parametrize("player", [0, 1])
def test_a_player_that_is_told_acts_throughout(player):
    """Its own network does; what is counted goes by the clock as before."""
    agent, z = make(), jax.nn.one_hot(player, 2)
    rows, _ = play(agent, Each(Skill(jnp.tile(z, (LANES, 1)))) if player else All(Skill(z)))
    np.testing.assert_array_equal(rows.z, np.tile(z, (STEPS, LANES, 1)))
    counts, _ = counts_by_hand(np.asarray(rows.next_obs))
    np.testing.assert_array_equal(rows.extra["theta_1"], counts)
    carry = agent.begin(jax.random.key(0), LANES, (), All(Skill(z)))
    action, _ = agent.act(rows.obs[0], carry, jax.random.key(1), 0.0)
    x = jax.vmap(agent._input)(rows.obs[0], carry.lane.theta, carry.lane.clock)
    modes = [ppo.actor(x).mode() for ppo in (agent.explore, agent.control)]
    np.testing.assert_array_equal(action, modes[player])
    assert action.dtype == bool


# --- What is paid -----------------------------------------------------------------------------------------------------


def scored() -> np.ndarray:
    """log p of every step, (T, n), by hand."""
    _, rows = played()
    next_obs = np.asarray(rows.next_obs)
    counts, _ = counts_by_hand(next_obs)
    p = ((counts + 0.1) / (counts.sum(axis=-1, keepdims=True) + 14) * next_obs).sum(axis=-1)
    return np.log(p)


def test_what_is_reached_is_scored_before_it_is_inserted():
    agent, rows = played()
    _, metrics = jax.jit(agent.update)(rows, jax.random.key(0))
    _, counted = counts_by_hand(np.asarray(rows.next_obs))
    assert metrics["control/log_p"] == pytest.approx(scored()[counted].mean(), rel=1e-5)
    late = np.arange(STEPS) % ROUND == ROUND - 1  # The last quarter of three steps is one.
    assert metrics["control/late_log_p"] == pytest.approx(scored()[late].mean(), rel=1e-5)
    inserted = np.log(np.exp(scored()) + 0.01)  # Wrong: something like a score after the insertion.
    assert metrics["control/log_p"] != pytest.approx(inserted[counted].mean(), rel=1e-3)


def check_pay(pay) -> None:
    """`pay(agent, log p)` is the rewards, (T, n): in each episode those of Explore are minus those of
    Control, at the last step of its turns alone; a step of Control's that counts is paid log p over a deviation that
    all share; grace pays nothing."""
    agent, log_p = make(), scored().astype(np.float32)
    reward = np.asarray(pay(agent, jnp.asarray(log_p)))
    phase = np.arange(STEPS) % ROUND
    explore, control = np.where(phase[:, None] < EXPLORE, reward, 0), np.where(phase[:, None] >= EXPLORE, reward, 0)
    for episode in (slice(0, EPISODE), slice(EPISODE, STEPS)):
        np.testing.assert_allclose(explore[episode].sum(axis=0), -control[episode].sum(axis=0), rtol=1e-5)
    assert (explore[phase != EXPLORE - 1] == 0).all() and (explore[phase == EXPLORE - 1] > 0).all()
    counts = phase >= EXPLORE + GRACE
    assert (control[~counts] == 0).all()
    totals, total = [], np.zeros(LANES)
    for t in np.flatnonzero(counts):
        total = log_p[t] + (0.9 * total if t % EPISODE > EXPLORE + GRACE else 0)
        totals.append(total)
    np.testing.assert_allclose(control[counts], log_p[counts] / np.std(totals), rtol=1e-3)
    turns = control.reshape(-1, ROUND, LANES).sum(axis=1)
    np.testing.assert_allclose(explore.reshape(-1, ROUND, LANES)[:, EXPLORE - 1], -turns, rtol=1e-5)


def pay_of(agent, log_p):
    return agent._pay(log_p, CLOCK, ENDED)[1]


def explore_is_paid_for_all_that_follows(agent, log_p):
    reward = pay_of(agent, log_p)
    return reward.at[EXPLORE - 1].add(reward[ROUND + EXPLORE - 1])


def explore_is_discounted(agent, log_p):
    """A convention of its own."""
    return pay_of(agent, log_p) * jnp.where(CLOCK % ROUND < EXPLORE, 0.9, 1.0)


def divided_by_something_else(agent, log_p):
    return 2 * pay_of(agent, log_p)


def explore_is_paid_at_every_step(agent, log_p):
    reward = pay_of(agent, log_p)
    return jnp.where(CLOCK % ROUND < EXPLORE, (reward + jnp.roll(reward, 1 - EXPLORE, axis=0)) / EXPLORE, reward)


def grace_is_paid(agent, log_p):
    return pay_of(agent.replace(config=replace(TINY, grace=0.0)), log_p)


def test_the_game_is_zero_sum():
    check_pay(pay_of)


@pytest.mark.parametrize(
    "wrong",
    [
        explore_is_paid_for_all_that_follows,
        explore_is_discounted,
        divided_by_something_else,
        explore_is_paid_at_every_step,
        grace_is_paid,
    ],
)
def test_the_check_of_the_pay_finds(wrong):
    with pytest.raises(AssertionError):
        check_pay(wrong)


def test_baselines_play_alone_and_are_paid_at_every_step():
    """The entropy maximiser is paid what the minimiser pays; every step counts for both."""
    log_p = jnp.asarray(scored(), jnp.float32)
    for objective, (alone, sign, novelty) in OBJECTIVES.items():
        if alone is None:
            continue
        agent, rows = played(replace(TINY, objective=objective))
        np.testing.assert_array_equal(rows.z[..., alone], np.ones((STEPS, LANES)))
        np.testing.assert_array_equal(rows.extra["theta_0"], np.tile(np.arange(STEPS)[:, None] % EPISODE, LANES))
        reward = np.asarray(pay_of(agent, sign * log_p))
        np.testing.assert_allclose(reward / reward[0, 0], log_p / log_p[0, 0], rtol=1e-4)
        assert np.sign(reward[0, 0]) == -sign
        after, metrics = jax.jit(agent.update)(rows, jax.random.key(0))
        moved = {
            name: any(
                (x != y).any()
                for x, y in zip(
                    jax.tree.leaves(getattr(agent, name).actor.params),
                    jax.tree.leaves(getattr(after, name).actor.params),
                )
            )
            for name in ("explore", "control")
        }
        assert moved == {"explore": alone == 0, "control": alone == 1}
        assert len(agent.novelty) == novelty and all(np.isfinite(value) for value in metrics.values())


# --- Each on its own clock --------------------------------------------------------------------------------------------


def by_hand(value: np.ndarray, reward: np.ndarray, mine: np.ndarray, next_turn: float) -> np.ndarray:
    """Advantages of a player's own steps, (own, n), lane by lane: the step after the last of a turn is the first of its
    next turn; nothing comes after the episode. gamma is 0.9, lambda 0.8."""
    own = np.flatnonzero(mine)
    advantage = np.zeros((len(own), LANES))
    for i in reversed(range(len(own))):
        t = own[i]
        after = own[i + 1] if i + 1 < len(own) and own[i + 1] // EPISODE == t // EPISODE else None
        if after is None:
            advantage[i] = reward[t] - value[t]
        else:
            gamma = 0.9 * (next_turn if after != t + 1 else 1.0)
            advantage[i] = reward[t] + gamma * value[after] - value[t] + gamma * 0.8 * advantage[i + 1]
    return advantage


def _arrays(rollout):
    return rollout._replace(decisions=None)


def check_clock(config: AdversarialSurpriseConfig, rollout_of) -> None:
    agent, rows = make(config), played()[1]
    rng = np.random.default_rng(0)
    x, reward = (rng.standard_normal(shape).astype(np.float32) for shape in ((STEPS, LANES, 283), (STEPS, LANES)))
    for ppo, player in ((agent.explore, 0), (agent.control, 1)):
        mine = (np.arange(STEPS) % ROUND < EXPLORE) == (player == 0)
        value = np.asarray(ppo.value(x))[..., 0]
        rollout = rollout_of(agent, player, jnp.asarray(x), rows.action, jnp.asarray(reward), CLOCK, ENDED)
        own = np.sum(mine)
        np.testing.assert_array_equal(rollout.x[:own], x[mine])
        np.testing.assert_array_equal(rollout.action[:own], rows.action[mine])
        np.testing.assert_array_equal(rollout.real[:, 0], np.arange(STEPS) < own)
        assert rollout.decisions == own * LANES
        advantage, ret = (rows[:own] for rows in jax.jit(PPO.advantages_and_returns)(ppo, _arrays(rollout)))
        expected = by_hand(value, reward, mine, config.next_turn)
        np.testing.assert_allclose(advantage, expected, atol=2e-5)
        np.testing.assert_allclose(ret, expected + value[mine], atol=2e-5)


@pytest.mark.parametrize("next_turn", [1.0, 0.5, 0.0])
def test_advantages_are_on_each_players_own_clock(next_turn):
    check_clock(replace(TINY, next_turn=next_turn), AdversarialSurprise._own)


def the_opponents_step_comes_next(agent, player, x, *rest):
    following = jnp.roll(x, -1, axis=0)
    rollout = agent._own(player, x, *rest)
    return rollout._replace(next_x=agent._own(player, following, *rest).x)


def episodes_run_into_each_other(agent, *rest):
    rollout = agent._own(*rest)
    return rollout._replace(discount=jnp.ones_like(rollout.discount), ended=jnp.zeros_like(rollout.ended))


def every_turn_ends_the_future(agent, *rest):
    return agent.replace(config=replace(TINY, next_turn=0.0))._own(*rest)


@pytest.mark.parametrize(
    "wrong", [the_opponents_step_comes_next, episodes_run_into_each_other, every_turn_ends_the_future]
)
def test_the_check_of_the_clock_finds(wrong):
    with pytest.raises(AssertionError):
        check_clock(TINY, wrong)


# --- Episodes that end early ------------------------------------------------------------------------------------------

# Lane 0 plays two whole episodes. Lane 1 falls in Explore's second turn, after 6 steps, and begins anew; then, 9 steps
# later, in Control's second turn. Lane 2 is at step 7 of an episode as the rollout begins, plays it to its end, and
# then falls again and again in Control's first turn, in the middle of which the rollout ends.
LENGTHS = ((10, 10), (6, 9, 5), (3, 4, 4, 5, 4))
FIRST = (0, 0, 7)


def cut_short() -> tuple[jax.Array, jax.Array]:
    """Clock and ended, (T, n)."""
    clock, ended = np.zeros((STEPS, LANES), np.int32), np.zeros((STEPS, LANES), bool)
    for lane, (lengths, first) in enumerate(zip(LENGTHS, FIRST)):
        ends = np.cumsum(lengths)
        ended[ends - 1, lane] = True
        clock[:, lane] = np.concatenate([np.arange(n) + first * (i == 0) for i, n in enumerate(lengths)])
    ended[-1, 1:] = False  # There the rollout ends, and not the episode.
    return jnp.asarray(clock), jnp.asarray(ended)


def missing_by_hand(clock: int, next_turn: float) -> tuple[int, float]:
    """How many steps that count are missing if an episode ends after the step at `clock`: of its round, and of later
    ones, which count `next_turn`."""
    later = [c for c in range(clock + 1, EPISODE) if c % ROUND >= EXPLORE + GRACE]
    this = [c for c in later if c // ROUND == clock // ROUND]
    return len(this), next_turn * (len(later) - len(this))


def check_ends(pay) -> None:
    """`pay(agent, log p, clock, ended)` is (agent, rewards). What is missing of a turn is paid the mean, to both."""
    clock, ended = cut_short()
    log_p = np.random.default_rng(0).normal(-5, 2, (STEPS, LANES)).astype(np.float32)
    agent, reward = pay(make(), jnp.asarray(log_p), clock, ended)
    counts = np.asarray(clock) % ROUND >= EXPLORE + GRACE
    mean, std = log_p[counts].mean(), float(agent.returns.std)
    expected = np.zeros((STEPS, LANES))
    for lane in range(LANES):
        answered = {}  # episode and round -> what Control was paid there
        episode = 0
        for t in range(STEPS):
            c = int(clock[t, lane])
            cut = bool(ended[t, lane]) or t == STEPS - 1
            paid = (log_p[t, lane] if counts[t, lane] else 0) + (mean * missing_by_hand(c, 0)[0] if cut else 0)
            answered[episode, c // ROUND] = answered.get((episode, c // ROUND), 0) + paid / std
            if c % ROUND >= EXPLORE:
                expected[t, lane] = paid / std
            episode += bool(ended[t, lane])
        episode = 0
        for t in range(STEPS):
            c = int(clock[t, lane])
            if c % ROUND < EXPLORE and (c % ROUND == EXPLORE - 1 or ended[t, lane] or t == STEPS - 1):
                expected[t, lane] = -answered[episode, c // ROUND]
            episode += bool(ended[t, lane])
    np.testing.assert_allclose(reward, expected, atol=1e-4)


def pay_with_ends(agent, log_p, clock, ended):
    return agent._pay(log_p, clock, ended)


def nothing_is_paid_for_what_is_missing(agent, log_p, clock, ended):
    after, reward = agent._pay(log_p, clock, ended)
    counts, explores = agent.counts(clock), clock % ROUND < EXPLORE
    return after, jnp.where(counts, log_p / after.returns.std, jnp.where(explores, reward, 0))


def the_rollouts_end_is_none(agent, log_p, clock, ended):
    after, reward = agent._pay(
        jnp.concatenate([log_p, log_p[:1]]), *(jnp.concatenate([x, x[:1]]) for x in (clock, ended))
    )
    return after, reward[:-1]


def test_what_is_missing_of_a_turn_is_paid_the_mean():
    check_ends(pay_with_ends)


@pytest.mark.parametrize("wrong", [nothing_is_paid_for_what_is_missing, the_rollouts_end_is_none])
def test_the_check_of_ends_finds(wrong):
    with pytest.raises(AssertionError):
        check_ends(wrong)


@pytest.mark.parametrize("player", [0, 1])
def test_an_early_end_ends_the_future_and_later_turns_are_paid_the_mean(player):
    clock, ended = cut_short()
    agent, rng = make(replace(TINY, next_turn=0.5)), np.random.default_rng(0)
    agent = agent.replace(
        pays=agent.pays.replace(mean=jnp.float32(-3)), returns=agent.returns.replace(var=jnp.float32(4))
    )
    x, reward = (rng.standard_normal(shape).astype(np.float32) for shape in ((STEPS, LANES, 283), (STEPS, LANES)))
    rollout = agent._own(player, jnp.asarray(x), jnp.zeros((STEPS, LANES, 3), bool), jnp.asarray(reward), clock, ended)
    episode = np.cumsum(ended, axis=0) - ended
    for lane in range(LANES):
        own = np.flatnonzero((np.asarray(clock)[:, lane] % ROUND < EXPLORE) == (player == 0))
        assert rollout.real[:, lane].sum() == len(own) and rollout.real[: len(own), lane].all()
        for i, t in enumerate(own):
            c = int(clock[t, lane])
            after = own[i + 1] if i + 1 < len(own) and episode[own[i + 1], lane] == episode[t, lane] else None
            future = 0.0 if after is None else 0.5 if after != t + 1 else 1.0
            later = missing_by_hand(c, 0.5)[1] * -3 / 2 * (-1 if player == 0 else 1) if after is None else 0
            np.testing.assert_array_equal(rollout.x[i, lane], x[t, lane])
            assert rollout.discount[i, lane] == future and rollout.ended[i, lane] == (after is None), (lane, t)
            assert rollout.reward[i, lane] == pytest.approx(reward[t, lane] + later, abs=1e-5), (lane, t)
            assert rollout.next_x is None  # The next row's.


def test_a_rollout_without_a_turn_of_control_teaches_it_nothing():
    agent, rows = played()
    first = jnp.zeros_like(CLOCK)
    after, _ = agent.update(rows._replace(extra={**rows.extra, "clock": first, "ended": first == 0}), jax.random.key(0))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), agent.control, after.control)
    assert all(jax.tree.leaves(same)) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


# --- What is left for tasks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("player", [0, 1])
def test_fine_tuning_starts_from_either_player(player):
    """SAC whose modes are those of the player at the first step of its first turn, whatever it sees."""
    example, rng = example_transition(make_device_env("point").env_spec, 2), np.random.default_rng(0)
    agent = AdversarialSurprise.create(replace(TINY, density="gaussian"), example, jax.random.key(0))
    obs = rng.standard_normal((5, 2)).astype(np.float32)
    z = jax.nn.one_hot(player, 2)
    carry = agent.begin(jax.random.key(0), 5, (), All(Skill(z)))
    clock = jnp.full(5, EXPLORE if player else 0, jnp.int32)
    action, _ = agent.act(obs, carry._replace(lane=carry.lane._replace(clock=clock)), jax.random.key(0), 0.0)
    learner = agent.learner(z, jax.random.key(1))
    np.testing.assert_allclose(learner.actor(agent.normalizer(obs)).mode(), action, atol=1e-6)
    other = agent.learner(1 - z, jax.random.key(1))
    assert np.abs(np.asarray(other.actor(obs).mode()) - action).max() > 1e-3
    reward = agent.intrinsic_reward(Transition(obs, action, obs[:, 0], obs[:, 0], obs, z))
    np.testing.assert_allclose(reward, scipy_stats.t.logpdf(obs, 2, 0, np.sqrt(2)).sum(axis=1), rtol=1e-4)


# --- Bad input --------------------------------------------------------------------------------------------------------

BLOCK = ENV.env_spec
REALS = replace(BLOCK, symbols=0, id="point")
GAUSSIAN = replace(TINY, density="gaussian")
SEES = replace(TINY.ppo, image=(7, 12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"turns": 3}, "turns is 3: expected an even number, as Control answers each turn of Explore"),
        ({"turns": 0}, "turns is 0: expected a number of at least 1"),
        ({"explore_steps": 0}, "explore_steps is 0"),
        ({"grace": 1.0}, "grace is 1.0: expected at least one step of 3 to count"),
        ({"grace": 1.5}, "grace is 1.5: expected a number of at least 0 and at most 1"),
        ({"next_turn": 2.0}, "next_turn is 2.0: expected a number of at least 0 and at most 1"),
        ({"density": "normal"}, "density is 'normal': expected one of 'categorical'"),
        ({"objective": "boredom"}, "objective is 'boredom': expected one of 'adversarial'"),
        ({"batch": BatchSpec()}, "batch.whole_episodes is False: expected True, for whole turns"),
        ({"sac": SACConfig(width=8)}, "sac.width is 8: expected none, as its policy begins as one of ppo.width"),
        ({"z": SkillSpace("sphere", 2)}, "z is sphere of 2: expected onehot of 2, explore and control"),
    ],
)
def test_bad_settings_get_one_sentence(change, message):
    with pytest.raises(UserError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize(
    ("config", "spec", "message"),
    [
        (
            replace(TINY, turns=2),
            BLOCK,
            "turns is 2, of 2 and 3 steps in alternation, and episodes of 'block:line18' ha",
        ),
        (TINY, replace(BLOCK, episode_steps=None), "episodes of 'block:line18' have None: expected turns that fill an"),
        (
            TINY,
            REALS,
            "density is 'categorical', which counts symbols, and observations of 'point' are real numbers: exp",
        ),
        (replace(TINY, symbols=12), BLOCK, "symbols is 12: expected 140, as observations of 'block:line18' have them"),
        (
            replace(GAUSSIAN, ppo=SEES),
            ROOMS,
            r"ppo.image is \(7, 12\), and density is 'gaussian', which does not count symbols: expected None, or a",
        ),
        (
            replace(TINY, ppo=SEES),
            BLOCK,
            r"ppo.image is \(7, 12\), 49 groups of 12 symbols: expected None, or a square of those that observat",
        ),
        (
            replace(TINY, symbols=12, ppo=replace(SEES, image=(8, 12))),
            ROOMS,
            r"ppo.image is \(8, 12\), 64 groups of 12 symbols: .* observations of 'rooms:noisy' have, 49 of 12\.",
        ),
    ],
)
def test_environments_that_do_not_fit_get_one_sentence(config: AdversarialSurpriseConfig, spec: EnvSpec, message: str):
    run = PretrainConfig(
        agent=config, agent_name="adversarial_surprise", env=spec.id, num_envs=2, rollout_steps=EPISODE
    )
    with pytest.raises(UserError, match=message):
        create_agent(run, spec)


def test_environments_that_may_end_early_say_so():
    assert make_env("gym:CartPole-v1", 1).env_spec.ends_early
    assert not any(make_env(name, 1).env_spec.ends_early for name in ("point", "block:line18"))


# --- The paper's settings ---------------------------------------------------------------------------------------------


def test_the_papers_settings_are_those_of_its_code():
    config = preset("adversarial_surprise", "minigrid-paper")
    agent, ppo, episode = config.agent, config.agent.ppo, 4 * 32
    assert (config.env, config.num_envs, config.rollout_steps, config.loop) == (
        "rooms:paper",
        16,
        4 * episode,
        "device",
    )
    assert config.steps == 6005 * 8192 and config.epoch_steps == 8192 and round(config.steps / 1e6, 1) == 49.2
    assert (agent.turns, agent.explore_steps, agent.control_steps, agent.grace, agent.grace_steps) == (
        4,
        32,
        32,
        0.5,
        16,
    )
    assert (agent.density, agent.symbols, agent.objective, agent.next_turn) == ("floored", 12, "adversarial", 1)
    assert (ppo.epochs, ppo.batch, ppo.clip, ppo.value_clip, ppo.gamma, ppo.gae_lambda) == (
        4,
        256,
        0.2,
        0.2,
        0.99,
        0.95,
    )
    assert (ppo.lr, ppo.entropy_coef, ppo.max_grad_norm, ppo.standardise) == (3e-4, 0.01, 0.5, False)
    assert (ppo.width, ppo.image, ppo.value_target) == (64, (7, 12), "gae")
    spec = make_device_env(config.env).env_spec
    AdversarialSurprise.check_env(agent, spec)
    made = AdversarialSurprise.create(agent, example_transition(spec, 2), jax.random.key(0))
    shapes = [layer["kernel"].shape for _, layer in sorted(made.control.value.params.items())]
    assert shapes == [(4 * 24, 16), (4 * 16, 32), (4 * 32, 64), (64 + 2, 64), (64, 1)]


# --- In the loops -----------------------------------------------------------------------------------------------------


def test_a_run_of_numbers_and_boxes_resumes_bit_for_bit(tmp_path):
    """A point on the host: statistics in the middle of nothing, as rollouts are whole episodes; networks, deviation."""
    config = PretrainConfig(
        agent=replace(TINY, density="gaussian"), agent_name="adversarial_surprise", env="point", episode_steps=EPISODE,
        num_envs=LANES, rollout_steps=STEPS, steps=4 * STEPS * LANES, eval_every=0, checkpoint_minutes=0,
        replay_capacity=2 * STEPS * LANES,
    )  # fmt: skip
    whole = pretrain(config, tmp_path / "whole", quiet=True)
    half = pretrain(replace(config, steps=2 * STEPS * LANES), tmp_path / "half", quiet=True)
    assert_same(final_state(pretrain(config, half, quiet=True)), final_state(whole))


@pytest.mark.slow
def test_the_game_is_learned_in_the_corridor():
    """In seconds: Control comes to see what it knows, though Explore takes it through nearly all cells, and keeps away
    from televisions. At random, it is there in 0.3 of its steps."""
    config = preset("adversarial_surprise", "block-quick")
    config, env = replace(config, num_envs=8), make_device_env(config.env)
    loop = Seeds(config, {0: create_agent(config, env.env_spec)}, env, jax.devices())
    late = [loop.epoch()[0]["control/late_log_p"] for _ in range(40)]
    seen = loop.runs[0].replay.read(39 * 1024, 40 * 1024)["obs"].argmax(axis=-1).reshape(-1, 8, 8)
    cells = np.mean([len({symbol for symbol in lane if symbol < 12}) for lane in seen.reshape(128, 8).T])
    on_television = (seen[:, 5:] >= 12).mean()  # What Control's first three steps have reached.
    assert np.mean(late[-5:]) > np.mean(late[:5]) + 1 and cells > 9 and on_television < 0.15, (cells, on_television)
