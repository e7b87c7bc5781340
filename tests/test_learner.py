"""What others build on an agent: exported layers, folded inputs, a learner that starts from a skill, read rewards."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.agents.metra import Metra, MetraConfig
from urlrl.learners.latent_tasks import Maximise
from urlrl.learners.model import Model
from urlrl.learners.nets import MLP
from urlrl.learners.sac import SAC, SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer, least_squares
from urlrl.learners.surgery import fold_input, insert_inputs
from urlrl.types import RewardPrompt, Transition

OBS, ACT, D, N = 5, 2, 3, 40
SPACES = {"sphere": SkillSpace("sphere", D), "gaussian": SkillSpace("gaussian", D), "onehot": SkillSpace("onehot", D)}
NUMPY = {"linear": lambda x: x, "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}


def arrays(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def shaken(params, seed: int = 0):
    """Parameters of which none is zero: biases start there."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.float32(0.2 * rng.standard_normal(x.shape)), params)


def trained(sac: SAC) -> SAC:
    """As if it had learned for a while."""
    parts = {}
    for name in ("actor", "critic", "alpha"):
        part = getattr(sac, name)
        parts[name] = part.replace(opt_state=jax.tree.map(lambda x: x + 1, part.opt_state))
    parts["actor"], parts["critic"] = (
        parts[name].replace(params=shaken(parts[name].params)) for name in list(parts)[:2]
    )
    return sac.replace(**parts, target=shaken(sac.target, 1))


@cache
def make_agent(kind: str = "sphere") -> Metra:
    config = MetraConfig(z=SPACES[kind], width=16, lr=1e-2, sac=SACConfig(gamma=0.9))
    example = Transition(arrays(OBS), arrays(ACT), 0.0, 1.0, arrays(OBS), arrays(D))
    agent = jax.jit(Metra.create, static_argnums=0)(config, example, jax.random.key(0))
    statistics = Normalizer(mean=jnp.float32(arrays(OBS, seed=3)), std=jnp.float32(1 + arrays(OBS, seed=4) ** 2))
    return agent.replace(
        sac=trained(agent.sac), phi=agent.phi.restart(shaken(agent.phi.params, 5)), normalizer=statistics
    )


def make_steps(seed: int = 0, n: int = N) -> Transition:
    return Transition(
        obs=arrays(n, OBS, seed=seed), action=np.tanh(arrays(n, ACT, seed=seed + 1)), reward=arrays(n, seed=seed + 2),
        discount=np.ones(n, np.float32), next_obs=arrays(n, OBS, seed=seed + 3), z=arrays(n, D, seed=seed + 4),
    )  # fmt: skip


def steps_taken(opt_state) -> int:
    return int(opt_state[0].count)


# --- Layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 2, OBS - 2])
def test_fold_input_holds_what_is_gone(start):
    x, held = arrays(7, OBS), arrays(2, seed=9)
    mlp = Model.create(MLP(4, 8), 1e-3, jax.random.key(0), x)
    params = shaken(mlp.params)
    whole = np.concatenate([x[:, :start], np.tile(held, (7, 1)), x[:, start + 2 :]], axis=1)
    rest = np.delete(x, [start, start + 1], axis=1)
    folded = fold_input(params, start, held)
    assert folded["Dense_0"]["kernel"].shape == (OBS - 2, 8)
    np.testing.assert_allclose(mlp(rest, params=folded), mlp(whole, params=params), rtol=1e-5, atol=1e-6)
    wrong = fold_input(params, start, held[::-1])  # the values the other way around
    assert not np.allclose(mlp(rest, params=wrong), mlp(whole, params=params), atol=1e-3)


@pytest.mark.parametrize("start", [0, 2, OBS])
def test_inserted_inputs_change_nothing_and_can_learn(start):
    x, new = arrays(7, OBS), arrays(7, 3, seed=9)
    mlp = Model.create(MLP(4, 8), 1e-3, jax.random.key(0), x)
    params = shaken(mlp.params)
    wider = insert_inputs(params, start, 3)
    given = np.concatenate([x[:, :start], new, x[:, start:]], axis=1)
    np.testing.assert_allclose(mlp(given, params=wider), mlp(x, params=params), rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda p: jnp.sum(mlp(given, params=p) ** 2))(wider)["Dense_0"]["kernel"][start : start + 3]
    assert (np.abs(slope).max(axis=1) > 0).all()


def test_restart_takes_parameters_of_another_shape_and_forgets_its_optimiser():
    x = arrays(7, OBS)
    model = Model.create(MLP(1, 8), 1e-2, jax.random.key(0), x)
    model, _, _ = model.minimise(lambda p: (jnp.sum(model(x, params=p) ** 2), None))
    assert steps_taken(model.opt_state) == 1
    narrow = model.restart(fold_input(model.params, 0, x[0, :2]))
    assert steps_taken(narrow.opt_state) == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(narrow.opt_state))
    moved, _, _ = narrow.minimise(lambda p: (jnp.sum(narrow(x[:, 2:], params=p) ** 2), None))
    assert moved.params["Dense_0"]["kernel"].shape == (OBS - 2, 8)


# --- SAC that starts elsewhere ----------------------------------------------------------------------------------------


def make_sac() -> SAC:
    return trained(SAC.create(SACConfig(width=16, lr=1e-2), arrays(1, OBS), arrays(1, ACT), jax.random.key(0)))


def check_starts_over(sac: SAC) -> None:
    """Its targets are its critics, not the same buffers; its optimisers begin anew."""
    for target, online in zip(jax.tree.leaves(sac.target), jax.tree.leaves(sac.critic.params), strict=True):
        np.testing.assert_array_equal(target, online)
        assert target is not online
    assert [steps_taken(part.opt_state) for part in (sac.actor, sac.critic, sac.alpha)] == [0, 0, 0]


def check_updates(sac: SAC, x: np.ndarray) -> None:
    """An update goes through on observations of the new width, and keeps every shape."""
    steps = make_steps(n=len(x))
    given = (x, steps.action, steps.reward, steps.discount, x, jax.random.key(5))
    after, _ = jax.eval_shape(lambda sac, *given: sac.update(*given), sac, *given)
    assert jax.tree.map(jnp.shape, sac) == jax.tree.map(lambda leaf: leaf.shape, after)


@pytest.mark.parametrize("start", [0, 1, OBS - 2])
def test_hold_input(start):
    sac, x, action, held = make_sac(), arrays(7, OBS), np.tanh(arrays(7, ACT)), arrays(2, seed=9)
    whole = np.concatenate([x[:, :start], np.tile(held, (7, 1)), x[:, start + 2 :]], axis=1)
    rest = np.delete(x, [start, start + 1], axis=1)
    learner = sac.hold_input(start, held)
    np.testing.assert_allclose(learner.actor(rest).mode(), sac.actor(whole).mode(), atol=1e-6)
    np.testing.assert_allclose(learner.actor(rest).log_std, sac.actor(whole).log_std, atol=1e-5)
    np.testing.assert_allclose(learner.critic(rest, action), sac.critic(whole, action), rtol=1e-4, atol=1e-5)
    assert float(learner.alpha.value) == float(sac.alpha.value)
    check_starts_over(learner)
    check_updates(learner, rest)


def test_insert_inputs():
    sac, x, action, new = make_sac(), arrays(7, OBS), np.tanh(arrays(7, ACT)), 10 * arrays(7, 2, seed=9)
    given = np.concatenate([x, new], axis=1)
    learner = sac.insert_inputs(OBS, 2)
    np.testing.assert_allclose(learner.actor(given).mode(), sac.actor(x).mode(), atol=1e-6)
    np.testing.assert_allclose(learner.critic(given, action), sac.critic(x, action), rtol=1e-4, atol=1e-5)
    check_starts_over(learner)
    check_updates(learner, given)
    # The wrong variant: behind the actions, where the critics would take an action for a feature.
    wrong = {name: insert_inputs(network, OBS + ACT, 2) for name, network in sac.critic.params.items()}
    assert not np.allclose(learner.critic(given, action, params=wrong), sac.critic(x, action), atol=1e-2)


def test_fresh_critic():
    sac, x, action = make_sac(), arrays(7, OBS), np.tanh(arrays(7, ACT))
    fresh = sac.hold_input(0, x[0, :2]).fresh_critic(jax.random.key(7))
    shapes = [leaf.shape for leaf in jax.tree.leaves(sac.hold_input(0, x[0, :2]).critic.params)]
    assert [leaf.shape for leaf in jax.tree.leaves(fresh.critic.params)] == shapes
    assert not np.allclose(fresh.critic(x[:, 2:], action), sac.critic(x, action), atol=1e-2)
    np.testing.assert_allclose(fresh.actor(x[:1, 2:]).mode(), sac.actor(x[:1]).mode(), atol=1e-6)
    check_starts_over(fresh)
    first, second = (network["Dense_0"]["kernel"] for network in fresh.critic.params.values())
    assert not np.allclose(first, second)


# --- Least squares ----------------------------------------------------------------------------------------------------


def test_least_squares_is_numpys():
    features, targets = arrays(N, D) + 2, arrays(N, seed=1)
    w, b = least_squares(features, targets)
    expected = np.linalg.lstsq(np.c_[features, np.ones(N)], targets, rcond=None)[0]
    np.testing.assert_allclose([*w, b], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("degenerate", ["constant", "copied", "few rows"])
def test_least_squares_with_degenerate_features(degenerate):
    features, targets = arrays(N, D), arrays(N, seed=1)
    if degenerate == "constant":
        features[:, 1] = 5
    elif degenerate == "copied":
        features[:, 1] = features[:, 0]
    else:
        features, targets = features[:2], targets[:2]
    w, b = least_squares(features, targets)
    centred = features - features.mean(axis=0)
    smallest = np.linalg.lstsq(centred, targets - targets.mean(), rcond=1e-5)[0]  # of least norm
    np.testing.assert_allclose(w, smallest, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(features @ np.asarray(w) + b, centred @ smallest + targets.mean(), rtol=1e-3, atol=1e-4)
    if degenerate == "constant":
        assert w[1] == pytest.approx(0, abs=1e-6)


# --- METRA: a learner that starts from a skill (sheet urlb, F1 and F2) ------------------------------------------------


@pytest.mark.parametrize("kind", SPACES)
def test_learner_is_the_skills_policy(kind):
    agent, obs, action = make_agent(kind), arrays(7, OBS), np.tanh(arrays(7, ACT))
    z, other = SPACES[kind].spread(2, jax.random.key(3))
    learner = agent.learner(z, jax.random.key(4))
    seen, zs = agent.normalizer(obs), np.tile(z, (7, 1))
    mode = agent.sample_actions(obs, zs, jax.random.key(0), 0.0)
    np.testing.assert_allclose(learner.actor(seen).mode(), mode, atol=1e-6)
    x = jnp.concatenate([seen, zs], axis=1)
    np.testing.assert_allclose(learner.critic(seen, action), agent.sac.critic(x, action), rtol=1e-4, atol=1e-5)
    check_starts_over(learner)
    check_updates(learner, np.asarray(seen))
    # Wrong variants: another skill's policy, and one that is shown raw observations.
    assert not np.allclose(agent.learner(other, jax.random.key(4)).actor(seen).mode(), mode, atol=1e-3)
    assert not np.allclose(learner.actor(obs).mode(), mode, atol=1e-3)


# --- METRA: rewards ---------------------------------------------------------------------------------------------------


def planted(agent: Metra) -> tuple[Transition, np.ndarray]:
    """Steps whose reward is dphi^T w + 4; their dphi are far from zero mean and correlated."""
    steps = make_steps(n=300)
    steps = steps._replace(next_obs=steps.next_obs + 3 * arrays(OBS, seed=8))
    dphi = np.asarray(agent.latent(steps.next_obs) - agent.latent(steps.obs))
    w = np.array([1.0, -2.0, 0.5], np.float32)
    return steps._replace(reward=dphi @ w + 4), w


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_planted_reward_is_read():
    agent = make_agent()
    steps, w = planted(agent)
    task = agent.read(RewardPrompt(steps), steps, jax.random.key(0))
    assert cosine(np.asarray(task.w), w) > 0.999
    np.testing.assert_allclose(task.w, w, rtol=1e-2)
    assert float(task.offset) == pytest.approx(4, abs=0.02)
    np.testing.assert_allclose(agent.predict_reward(task, steps), steps.reward, rtol=1e-2, atol=2e-2)


def test_a_reward_aims_at_the_skill_that_moves_along_it():
    """Skill k moves phi along row k of a planted matrix, as it does in a trained agent whose indices phi only nearly
    follows; the named wrong variant, the index with the largest weight, is another skill."""
    agent = make_agent("onehot")
    moves = np.float32([[0, 0, 1], [1, 0, 0], [0, -1, 0]])  # skill 0 moves along the last axis, ...
    z = np.eye(3, dtype=np.float32)[np.arange(300) % 3]
    seen = make_steps(n=300)._replace(z=z)
    latent_step = z @ moves + 0.01 * arrays(300, 3)
    agent_class = type(agent)
    original = agent_class._latent_step
    try:
        agent_class._latent_step = lambda self, batch: jnp.asarray(latent_step)
        w = np.float32([0.5, 0.2, 2])
        task = agent.read(RewardPrompt(seen._replace(reward=latent_step @ w)), seen, jax.random.key(0))
    finally:
        agent_class._latent_step = original
    assert np.argmax(agent.aim(task, seen.obs[0])) == 0 == np.argmax(moves @ w)
    assert np.argmax(w) == 2
    by_hand = np.linalg.lstsq(np.c_[np.asarray(agent.config.z.direction(z)), np.ones(300)], latent_step, rcond=None)[0]
    np.testing.assert_allclose(task.moves, by_hand[:3], atol=1e-4)


def test_the_planted_reward_finds_mistakes():
    """Without an intercept; with states and next states swapped; with features and targets swapped (APS's order)."""
    agent = make_agent()
    steps, w = planted(agent)
    dphi = np.asarray(agent.latent(steps.next_obs) - agent.latent(steps.obs))
    assert cosine(np.linalg.lstsq(dphi, steps.reward, rcond=None)[0], w) < 0.999
    swapped = steps._replace(obs=steps.next_obs, next_obs=steps.obs)
    assert cosine(np.asarray(agent.read(RewardPrompt(swapped), swapped, jax.random.key(0)).w), w) < -0.999
    centred = dphi - dphi.mean(axis=0)
    backwards = np.linalg.lstsq(steps.reward[:, None] - steps.reward.mean(), centred, rcond=None)[0][0]
    assert cosine(backwards, w) < 0.999


def critics_of_7_and_6(kind: str) -> Metra:
    """Everywhere."""
    agent = make_agent(kind)
    constant = {name: jax.tree.map(jnp.zeros_like, network) for name, network in agent.sac.critic.params.items()}
    for network, value in zip(constant.values(), (7.0, 6.0)):
        network["Dense_2"]["bias"] = jnp.float32([value])
    return agent.replace(sac=agent.sac.replace(critic=agent.sac.critic.restart(constant)))


@pytest.mark.parametrize("kind", ["sphere", "onehot"])
def test_predictions_by_hand(kind):
    """Critics that are 7 and 6 everywhere, so min is 6; gamma 0.9, so the offset lasts ten steps.

    sphere: w = (3, 0, 4) aims at z = w / 5, along which a unit of dphi^T z is worth 5: 5 * 6 + 0.5 * 10 = 35.
    onehot: w = (3, 0, 4) aims at index 2, whose direction is (-1/2, -1/2, 1) with squared length 3/2; along it the
    reward is (4 - 3/2) / (3/2) = 5/3 per unit: 5/3 * 6 + 5 = 15. Skills move phi along their directions.
    """
    agent = critics_of_7_and_6(kind)
    task = Maximise(jnp.float32([3, 0, 4]), jnp.float32(0.5), jnp.eye(3))
    expected = {"sphere": 35.0, "onehot": 15.0}[kind]
    np.testing.assert_allclose(agent.predict_return(task, arrays(4, OBS)), np.full(4, expected), rtol=1e-5)
    np.testing.assert_allclose(agent.predict_return(task, arrays(OBS)), expected, rtol=1e-5)

    steps = make_steps(n=4)
    dphi = np.asarray(agent.latent(steps.next_obs)) - np.asarray(agent.latent(steps.obs))
    by_hand = 3 * dphi[:, 0] + 4 * dphi[:, 2] + 0.5
    np.testing.assert_allclose(agent.predict_reward(task, steps), by_hand, rtol=1e-4, atol=1e-5)


def check_too_low(function):
    """Critics 7 and 6, whose mean is 1/2 above the smaller; gamma 0.9, so ten such steps; a unit of dphi^T z is worth
    5. Entropy is worth -alpha log pi in each step, and log pi is that of the action that the key draws."""
    agent, steps = critics_of_7_and_6("sphere"), make_steps(n=4)
    task = Maximise(jnp.float32([3, 0, 4]), jnp.float32(0.5), jnp.eye(3))
    x = jnp.concatenate([agent.normalizer(steps.obs), np.tile(np.float32([0.6, 0, 0.8]), (4, 1))], axis=1)
    _, log_prob = agent.sac.actor(x).sample_and_log_prob(jax.random.key(3))
    entropy = float(agent.sac.alpha.value) * float(np.mean(log_prob))
    found = function(agent, task, steps, jax.random.key(3))
    np.testing.assert_allclose(found, 5 * 10 * (0.5 + entropy), rtol=1e-4)


def test_predictions_are_too_low_by_half_the_critics_difference_and_the_entropy_in_every_step():
    check_too_low(lambda agent, task, steps, key: agent.reliability(task, steps, steps, key)["too_low_by"])

    def of_one_step(agent, task, steps, key):
        return agent.reliability(task, steps, steps, key)["too_low_by"] * (1 - agent.gamma)

    with pytest.raises(AssertionError):
        check_too_low(of_one_step)


def test_a_return_is_the_value_of_the_mode_under_the_skill():
    """The critics are asked at normalised observations, the skill aimed at, and the actor's mode."""
    agent, obs = make_agent(), arrays(4, OBS)
    w = jnp.float32([0, 2, 0])
    x = jnp.concatenate([agent.normalizer(obs), np.tile(np.float32([0, 1, 0]), (4, 1))], axis=1)
    q = np.asarray(agent.sac.critic(x, agent.sac.actor(x).mode()))
    found = agent.predict_return(Maximise(w, jnp.float32(0), jnp.eye(3)), obs)
    np.testing.assert_allclose(found, 2 * q.min(axis=0), rtol=1e-5)
    assert not np.allclose(found, 2 * q.mean(axis=0), rtol=1e-3)
    patience = replace(agent.config.sac, gamma=0.5)
    impatient = agent.replace(config=replace(agent.config, sac=patience))  # An offset of 1 is then worth 2.
    np.testing.assert_allclose(
        impatient.predict_return(Maximise(w, jnp.float32(1), jnp.eye(3)), obs) - found, 2.0, rtol=1e-4
    )
