"""HILP against hand-written NumPy (sheet of zero-shot offline RL, sections 1.1, 5.1 and 6.1 (f))."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from urlrl.acting import to_goals
from urlrl.agents.hilp import HILP, Along, HILPConfig, Toward
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation.rollout import acting
from urlrl.learners.hilbert import Hilbert
from urlrl.learners.iql import IQLConfig
from urlrl.learners.model import Model
from urlrl.learners.nets import MLP, Pair, gelu_tanh
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.presets import preset
from urlrl.types import BatchSpec, DemoPrompt, GoalPrompt, Goals, RewardPrompt, Transition

OBS, ACT, DIM, BATCH, LR = 4, 2, 3, 6, 0.05
SGD = optax.sgd(LR)
CONFIG = HILPConfig(z=SkillSpace("sphere", DIM), width=16, iql=IQLConfig(gamma=0.9))
MEAN, STD = np.linspace(-1, 1, OBS), np.linspace(0.5, 2, OBS)
W = 0.6 * np.random.default_rng(9).standard_normal((2, OBS, DIM))
jit_update = jax.jit(lambda agent, batch, key: agent.update(batch, key))


class BothLinear(nn.Module):
    """phi_i = s w_i."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(1.0), (2, x.shape[-1], DIM))
        return jnp.stack([x @ w[0], x @ w[1]])


class Witness(struct.PyTreeNode):
    """Stands where the policy learner does, and keeps what it was given."""

    given: Any = None

    def update(self, *given):
        return Witness(given[:-1]), {}


def make_hilbert(w=W, tx=SGD) -> Hilbert:
    params = {"w": jnp.float32(w)}
    phi = Model(params=params, opt_state=tx.init(params), module=BothLinear(), tx=tx)
    return Hilbert(phi=phi, target={"w": jnp.float32(w[::-1].copy())}, gamma=0.9, expectile=0.8, tau=0.25)


def make_agent(config: HILPConfig = CONFIG, w=W, iql=None, mean=MEAN, std=STD) -> HILP:
    """With a linear phi."""
    normalizer = Normalizer(jnp.float32(mean), jnp.float32(std))
    return HILP(hilbert=make_hilbert(w), iql=iql or Witness(), normalizer=normalizer, config=config)


def make_batch(size: int = BATCH, seed: int = 0) -> Transition:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal
    return Transition(
        obs=jnp.float32(normal((size, OBS))), action=jnp.float32(rng.uniform(-1, 1, (size, ACT))),
        reward=jnp.full(size, jnp.nan), discount=jnp.zeros(size), next_obs=jnp.float32(normal((size, OBS))),
        z=jnp.full((size, DIM), jnp.nan), goal=jnp.float32(normal((size, OBS))),
        goal_steps=jnp.int32(rng.integers(-1, 3, size)),
    )  # fmt: skip


def phi_of(obs) -> np.ndarray:
    """The first encoder, of raw observations."""
    return (np.asarray(obs, np.float64) - MEAN) / (STD + 1e-8) @ W[0]


# --- What an update hands on ------------------------------------------------------------------------------------------


def check_update(update):
    """The policy learns from [normalised s, z] that r = (phi_1(s') - phi_1(s))^T z, of phi before its step, on steps
    that never end, with unit z that are drawn anew for each row; phi learns as alone on normalised observations."""
    batch = make_batch(200)
    agent, metrics = update(make_agent(), batch, jax.random.key(1))
    x, action, reward, discount, next_x = (np.asarray(part) for part in agent.iql.given)
    z = x[:, OBS:]
    np.testing.assert_allclose(x[:, :OBS], (batch.obs - MEAN[None]) / STD[None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(next_x[:, :OBS], (batch.next_obs - MEAN[None]) / STD[None], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(next_x[:, OBS:], z)
    np.testing.assert_array_equal(action, batch.action)
    np.testing.assert_array_equal(discount, 1)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.15)
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(DIM) / DIM, atol=0.08)
    expected = ((phi_of(batch.next_obs) - phi_of(batch.obs)) * z).sum(axis=1)
    np.testing.assert_allclose(reward, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["reward/intrinsic"], expected.mean(), rtol=1e-3, atol=1e-5)
    obs, next_obs, goal = (make_agent().normalizer(x) for x in (batch.obs, batch.next_obs, batch.goal))
    alone, _ = make_hilbert().update(obs, next_obs, goal, batch.goal_steps)
    np.testing.assert_allclose(agent.hilbert.phi.params["w"], alone.phi.params["w"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(agent.hilbert.target["w"], alone.target["w"], rtol=1e-4, atol=1e-6)
    assert np.abs(agent.hilbert.phi.params["w"] - make_hilbert().phi.params["w"]).max() > 1e-3
    other, _ = update(make_agent(), batch, jax.random.key(2))  # Compiled once, and yet other skills.
    assert np.abs(other.iql.given[0][:, OBS:] - z).max(axis=1).min() > 1e-4


def given(agent, **changes):
    names = ("x", "action", "reward", "discount", "next_x")
    return agent.replace(iql=Witness(tuple(changes.get(n, old) for n, old in zip(names, agent.iql.given))))


@jax.jit
def frozen_skills(agent, batch, key):
    return agent.update(batch, jax.random.key(0))


def reward_of_the_moved_phi(agent, batch, key):
    after, metrics = jit_update(agent, batch, key)
    z = after.iql.given[0][:, OBS:]
    reward = jnp.sum((after.latent(batch.next_obs) - after.latent(batch.obs)) * z, axis=-1)
    return given(after, reward=reward), metrics


def reward_of_the_second_encoder(agent, batch, key):
    after, metrics = jit_update(agent, batch, key)
    steps = agent.normalizer(batch.next_obs) - agent.normalizer(batch.obs)
    return given(after, reward=jnp.sum(agent.hilbert.phi(steps)[1] * after.iql.given[0][:, OBS:], axis=-1)), metrics


def reward_of_the_next_state(agent, batch, key):
    after, metrics = jit_update(agent, batch, key)
    return given(after, reward=jnp.sum(agent.latent(batch.next_obs) * after.iql.given[0][:, OBS:], axis=-1)), metrics


def ends_where_the_data_does(agent, batch, key):
    after, metrics = jit_update(agent, batch, key)
    return given(after, discount=batch.discount), metrics


def one_skill_for_all(agent, batch, key):
    after, metrics = jit_update(agent, batch, key)
    x, _, _, _, next_x = after.iql.given
    x, next_x = (part.at[:, OBS:].set(part[:1, OBS:].repeat(len(part), axis=0)) for part in (x, next_x))
    return given(after, x=x, next_x=next_x), metrics


def phi_of_raw_goals(agent, batch, key):
    raw = batch._replace(goal=batch.goal * jnp.float32(STD)[None] + jnp.float32(MEAN)[None])
    return jit_update(agent, raw, key)


def test_update():
    check_update(jit_update)


@pytest.mark.parametrize(
    "wrong",
    [frozen_skills, reward_of_the_moved_phi, reward_of_the_second_encoder, reward_of_the_next_state,
     ends_where_the_data_does, one_skill_for_all, phi_of_raw_goals],
)  # fmt: skip
def test_update_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_update(wrong)


def test_intrinsic_reward_is_the_way_along_z():
    agent, batch = make_agent(), make_batch()
    z = CONFIG.z.sample(jax.random.key(0), BATCH)
    expected = ((phi_of(batch.next_obs) - phi_of(batch.obs)) * z).sum(axis=1)
    np.testing.assert_allclose(agent.intrinsic_reward(batch._replace(z=z)), expected, rtol=1e-4, atol=1e-5)


# --- Goals and plans --------------------------------------------------------------------------------------------------


def read_and_aim(agent, goal, seen, obs):
    return agent.aim(agent.read(GoalPrompt(goal), seen, jax.random.key(0)), obs)


def check_goals(aim):
    """The unit direction of phi(g) - phi(s), from each s."""
    agent, batch = make_agent(), make_batch()
    goal = batch.goal[0]
    way = phi_of(goal) - phi_of(batch.obs)
    expected = way / np.linalg.norm(way, axis=1, keepdims=True)
    np.testing.assert_allclose(aim(agent, goal, batch, batch.obs), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(aim(agent, goal, batch, batch.obs[1]), expected[1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(aim(agent, goal, batch, batch.obs[None])[0], expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(aim(agent, goal, batch, goal)), 1, rtol=1e-5)  # There, and still a skill.


def away_from_goal(agent, goal, seen, obs):
    return -read_and_aim(agent, goal, seen, obs)


def aims_once(agent, goal, seen, obs):
    z = read_and_aim(agent, goal, seen, obs.reshape(-1, OBS)[0])
    return jnp.broadcast_to(z, (*obs.shape[:-1], DIM))


def raw_goal(agent, goal, seen, obs):
    return agent.aim(Toward(agent.hilbert(goal)), obs)


def test_goals():
    check_goals(read_and_aim)


@pytest.mark.parametrize("wrong", [away_from_goal, aims_once, raw_goal])
def test_goals_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_goals(wrong)


def planner(recursions: int, dim: int, **settings) -> HILP:
    """phi(s) = s."""
    eye = np.zeros((2, dim, DIM))
    eye[:, :, :dim] = np.eye(dim)
    config = replace(CONFIG, plan_recursions=recursions, **settings)
    return make_agent(config, eye, mean=np.zeros(dim), std=np.ones(dim))


def seen_states(obs: np.ndarray) -> Transition:
    n = len(obs)
    zeros = jnp.zeros((n, 1))
    return Transition(jnp.float32(obs), zeros, zeros[:, 0], zeros[:, 0], jnp.float32(obs) + 5, zeros)


def check_plans(aim):
    """On a path, planning changes no z: sign(g - s). On a half circle, with s and g its ends and every state in between
    known, n recursions lead to the point pi / 2^n from s, in the direction pi / 2 - pi / 2^(n + 1): 7 pi / 16 for 3."""
    line = np.linspace(-5, 5, 401)[:, None]
    obs, goals = np.float32([[-4.0], [0.3], [4.5], [2.0]]), np.float32([-2.0, 3.0])
    for recursions in (0, 3):
        for neighbours in (1, 11):
            agent = planner(recursions, 1, plan_neighbours=neighbours, plan_states=401, plan_near=0.0)
            for goal in goals:
                z = np.asarray(aim(agent, goal[None], seen_states(line), obs))
                np.testing.assert_allclose(z[:, 0], np.sign(goal - obs[:, 0]), atol=1e-6)
    angles = np.linspace(0, np.pi, 2049)
    circle = np.stack([1 - np.cos(angles), np.sin(angles)], axis=1)  # from (0, 0) over (1, 1) to (2, 0)
    for recursions in (0, 1, 2, 3):
        for neighbours, tolerance in ((1, 2e-3), (5, 1e-2)):
            agent = planner(recursions, 2, plan_neighbours=neighbours, plan_states=2049, plan_near=0.0)
            z = np.asarray(aim(agent, circle[-1], seen_states(circle), np.float32([[0, 0]])))
            expected = np.pi / 2 - np.pi / 2 ** (recursions + 1)
            np.testing.assert_allclose(np.arctan2(z[0, 1], z[0, 0]), expected, atol=tolerance)
    np.testing.assert_allclose(np.degrees(expected), 78.75)


class Aimed(HILP):
    """Its actions are its skills."""

    def sample_actions(self, obs, z, key, temperature=1.0):
        return z


def test_waypoints_are_held_once_for_all_goals():
    """And every lane goes to its goal as if it were told that alone."""
    states = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    agent, seen = planner(3, 2, plan_neighbours=5, plan_states=50, plan_near=0.0), seen_states(states)
    agent = Aimed(**vars(agent))
    policy = acting(agent, to_goals(agent, states[:4], seen, jax.random.key(0)))
    carry = policy.begin(jax.random.key(0), 4)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(carry)) == [(4, DIM), (4, DIM), (50, DIM)]
    _, carry = policy.act(states[4:8], carry, jax.random.key(0), np.int32(0))
    alone = [read_and_aim(agent, goal, seen, obs) for goal, obs in zip(states[:4], states[4:8])]
    np.testing.assert_allclose(carry.z, alone, atol=1e-6)
    assert len(jax.tree.leaves(carry)) == 3


def straight(agent, goal, seen, obs):
    return read_and_aim(agent.replace(config=replace(agent.config, plan_recursions=0)), goal, seen, obs)


def planned_with(subgoal):
    class Wrong(HILP):
        _subgoal = subgoal

    def aim(agent, goal, seen, obs):
        wrong = Wrong(agent.hilbert, agent.iql, agent.normalizer, agent.config)
        return read_and_aim(wrong, goal, seen, obs)

    return aim


def by_sum(self, latent, target, waypoints):
    """The smallest sum of both ways is anywhere on the straight line."""
    return _planned(self, latent, target, waypoints, jnp.add)


def by_the_nearer(self, latent, target, waypoints):
    return _planned(self, latent, target, waypoints, jnp.minimum)


def from_the_goal(self, latent, target, waypoints):
    """The next half is taken toward the goal, not toward the agent."""
    return _planned(self, target, latent, waypoints, jnp.maximum)


def once_more(self, latent, target, waypoints):
    return _planned(self, latent, target, waypoints, jnp.maximum, extra=1)


def _planned(self, latent, target, waypoints, combine, extra=0):
    def distance(point):
        return jnp.linalg.norm(waypoints - point[None], axis=-1)

    near = distance(latent)
    for _ in range(self.config.plan_recursions + extra):
        neighbours = round(self.config.plan_neighbours * len(waypoints) / self.config.plan_states)
        best = jnp.argsort(combine(near, distance(target)))[:neighbours]
        target = jnp.mean(waypoints[best], axis=0)
    return target


def of_next_states(agent, goal, seen, obs):
    return read_and_aim(agent, goal, seen._replace(obs=seen.next_obs), obs)


def test_plans():
    check_plans(read_and_aim)
    check_plans(planned_with(_right))


def _right(self, latent, target, waypoints):
    """The scaffold of the wrong variants is itself right."""
    return _planned(self, latent, target, waypoints, jnp.maximum)


@pytest.mark.parametrize(
    "wrong",
    [straight, of_next_states, *(pytest.param(planned_with(f), id=f.__name__) for f in
                                 (by_sum, by_the_nearer, from_the_goal, once_more))],
)  # fmt: skip
def test_plans_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_plans(wrong)


def half_circle(num: int) -> np.ndarray:
    """(num, 2) states on the way from (0, 0) over (1, 1) to (2, 0)."""
    angles = np.linspace(0, np.pi, num)
    return np.stack([1 - np.cos(angles), np.sin(angles)], axis=1)


def first_direction(agent: HILP, way: np.ndarray) -> float:
    """In degrees, from the way's start to its end."""
    z = read_and_aim(agent, way[-1], seen_states(way), np.float32(way[:1]))
    return float(np.degrees(np.arctan2(z[0, 1], z[0, 0])))


def test_neighbours_are_a_share_of_the_states():
    """The paper's 50 of 50,000 are the one nearest of 17 or of 1,001 states, and two of 2,001. Of 17 states 50 would be
    all, whose mean lies at 31 degrees."""
    for num in (17, 1001, 2001):
        assert first_direction(planner(3, 2), 100 * half_circle(num)) == pytest.approx(78.75, abs=0.2), num


def test_halving_stops_when_the_way_is_short():
    """Halves of the half circle lie 2, 1.41, 0.77 and 0.39 from its start."""
    way = half_circle(2049)
    for near, recursions in ((0.0, 3), (0.7, 3), (1.0, 2), (1.5, 1), (2.5, 0)):
        agent = planner(3, 2, plan_neighbours=1, plan_states=2049, plan_near=near)
        assert first_direction(agent, way) == pytest.approx(90 - 90 / 2**recursions, abs=0.2), near


def test_it_asks_for_as_many_states_as_it_plans_over():
    assert make_agent().num_waypoints == 0
    assert make_agent().planning(3).num_waypoints == HILPConfig().plan_states == 50_000


def test_a_plan_keeps_latents_of_seen_states_and_else_none():
    batch = make_batch()
    planned = make_agent(replace(CONFIG, plan_recursions=3)).read(GoalPrompt(batch.goal[0]), batch, jax.random.key(0))
    np.testing.assert_allclose(planned.waypoints.value, phi_of(batch.obs), rtol=1e-4, atol=1e-5)
    straight = make_agent().read(GoalPrompt(batch.goal[0]), None, jax.random.key(0))
    assert straight.waypoints is None


def test_several_goals_at_once():
    """Stacked tasks, one for each of as many observations, as `evaluation.rollout.pursue` has them."""
    for config in (CONFIG, replace(CONFIG, plan_recursions=2, plan_neighbours=3, plan_states=BATCH, plan_near=0.0)):
        agent, batch = make_agent(config), make_batch()
        tasks = jax.vmap(lambda g, a=agent, seen=batch: a.read(GoalPrompt(g), seen, jax.random.key(0)))(batch.goal)
        z = jax.vmap(agent.aim)(tasks, batch.obs)
        for i in range(BATCH):
            np.testing.assert_allclose(z[i], read_and_aim(agent, batch.goal[i], batch, batch.obs[i]), atol=1e-5)


# --- Rewards and demonstrations ---------------------------------------------------------------------------------------


def check_rewards(read):
    """A planted reward dphi^T w + b is found, with its offset; z is its direction."""
    agent, steps = make_agent(), make_batch(200)
    dphi, w = phi_of(steps.next_obs) - phi_of(steps.obs), np.array([1.0, -2.0, 0.5])
    task = read(agent, steps._replace(reward=jnp.float32(dphi @ w + 4)))
    np.testing.assert_allclose(task.w, w, rtol=1e-3)
    np.testing.assert_allclose(task.offset, 4, rtol=1e-3)
    np.testing.assert_allclose(task.z, w / np.linalg.norm(w), rtol=1e-3)
    np.testing.assert_allclose(agent.predict_reward(task, steps), dphi @ w + 4, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(agent.aim(task, steps.obs[:3]), np.tile(task.z, (3, 1)))


def read(agent, steps):
    return agent.read(RewardPrompt(steps), None, jax.random.key(0))


def read_swapped(agent, steps):
    return read(agent, steps._replace(obs=steps.next_obs, next_obs=steps.obs))


def read_without_intercept(agent, steps):
    w = jnp.linalg.pinv(agent._latent_step(steps)) @ steps.reward
    return Along(agent.config.z.project(w), w, jnp.float32(0))


def read_of_the_next_state(agent, steps):
    return read(agent, steps._replace(obs=jnp.tile(jnp.float32(MEAN), (len(steps.obs), 1))))


def test_rewards():
    check_rewards(read)


@pytest.mark.parametrize("wrong", [read_swapped, read_without_intercept, read_of_the_next_state])
def test_rewards_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_rewards(wrong)


def test_a_demonstration_is_the_way_that_it_went():
    agent, demo = make_agent(), make_batch().next_obs
    task = agent.read(DemoPrompt(demo), None, jax.random.key(0))
    way = phi_of(demo[-1]) - phi_of(demo[0])
    np.testing.assert_allclose(task.z, way / np.linalg.norm(way), rtol=1e-3)
    np.testing.assert_allclose(task.w, way, rtol=1e-3)
    assert task.offset == 0


class ConstantValue(struct.PyTreeNode):
    """V(x) = 7 sum(x)."""

    def value(self, x):
        return 7 * jnp.sum(x, axis=-1, keepdims=True)


def test_returns_by_hand():
    """w = (3, 0, 4) is 5 times the unit reward along z = (0.6, 0, 0.8), whose value is 7 sum([s, z]); an offset of 0.5
    lasts 10 steps at gamma 0.9."""
    agent, obs = make_agent(iql=ConstantValue()), make_batch().obs
    task = Along(jnp.float32([0.6, 0, 0.8]), jnp.float32([3, 0, 4]), jnp.float32(0.5))
    total = ((np.asarray(obs) - MEAN) / STD).sum(axis=1) + 1.4
    np.testing.assert_allclose(agent.predict_return(task, obs), 35 * total + 5, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(agent.predict_return(task, obs[0]), 35 * total[0] + 5, rtol=1e-4, atol=1e-4)


def test_another_prompt_is_refused_by_name():
    with pytest.raises(UnsupportedPrompt, match=r"^HILP cannot follow a tuple: expected a GoalPrompt, RewardPrompt or"):
        make_agent().read((), None, jax.random.key(0))


# --- What is made of a config -----------------------------------------------------------------------------------------


def test_every_number_of_a_config_arrives():
    config = HILPConfig(
        z=SkillSpace("sphere", 5), width=16, depth=2, lr=0.02, distance_gamma=0.7, distance_expectile=0.6,
        iql=IQLConfig(gamma=0.8, expectile=0.85, inverse_temperature=3.0, tau=0.1),
    )  # fmt: skip
    agent = jax.eval_shape(lambda key: HILP.create(config, make_batch(), key), jax.random.key(0))
    iql = IQLConfig(width=16, depth=2, lr=0.02, gamma=0.8, tau=0.1, expectile=0.85, inverse_temperature=3.0)
    assert agent.iql.config == iql
    assert (agent.hilbert.gamma, agent.hilbert.expectile, agent.hilbert.tau) == (0.7, 0.6, 0.1)
    assert agent.hilbert.phi.module == Pair(MLP(5, 16, 2, activation=gelu_tanh, norm=True))
    assert agent.iql.actor.params["Dense_0"]["kernel"].shape == (OBS + 5, 16)
    updates, _ = agent.hilbert.phi.tx.update(jnp.float32(1), agent.hilbert.phi.tx.init(jnp.float32(0)))
    np.testing.assert_allclose(updates, -0.02, rtol=1e-4)


def test_published_constants():
    config = HILPConfig()
    assert (config.z, config.batch.size, config.width, config.depth) == (SkillSpace("sphere", 32), 1024, 512, 3)
    assert (config.lr, config.iql.gamma, config.distance_gamma, config.iql.tau) == (3e-4, 0.99, 0.99, 0.005)
    assert (config.distance_expectile, config.iql.expectile, config.iql.inverse_temperature) == (0.95, 0.9, 10.0)
    assert config.batch.goals == Goals(gamma=0.99, random=0.375, current=0.0)


def test_the_papers_presets_plan_as_its_code_does():
    for name in ("antmaze-paper", "antmaze-plan-paper", "kitchen-paper"):
        config = preset("hilp", name).agent
        assert (config.plan_states, config.plan_neighbours, config.plan_near) == (50_000, 50, 0.0)
    assert preset("hilp", "antmaze-plan-paper").agent.plan_recursions == 3


def test_settings_out_of_range_are_refused():
    for wrong, message in (
        ({"batch": BatchSpec()}, "batch.goals is None: expected some, as HILP learns from goals"),
        ({"distance_gamma": 1.2}, "distance_gamma is 1.2"),
        ({"plan_recursions": -1}, "plan_recursions is -1"),
        ({"plan_neighbours": 0}, "plan_neighbours is 0"),
        ({"plan_states": 10}, "plan_states is 10"),
        ({"plan_near": -1.0}, "plan_near is -1"),
        ({"depth": 0}, "depth is 0"),
    ):
        with pytest.raises(UserError, match=message):
            HILPConfig(**wrong)
