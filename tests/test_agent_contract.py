"""What every agent must hold to."""

import dataclasses
import re
import sys
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.acting import to_goals
from urlrl.agents import AGENTS, find_agent
from urlrl.agents.adversarial_surprise import AdversarialSurpriseConfig
from urlrl.agents.csd import CSDConfig
from urlrl.agents.csf import CSFConfig
from urlrl.agents.dads import DADSConfig
from urlrl.agents.diayn import DIAYNConfig
from urlrl.agents.fb import FBConfig
from urlrl.agents.fre import FREConfig
from urlrl.agents.hilp import HILPConfig
from urlrl.agents.lsd import LSDConfig
from urlrl.agents.metra import MetraConfig
from urlrl.agents.rnd import RNDConfig
from urlrl.agents.sf import SFConfig
from urlrl.agents.uniform import UniformConfig
from urlrl.config import flatten, to_json
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation.rollout import acting
from urlrl.learners.features import FEATURES, FeatureConfig
from urlrl.learners.ppo import PPOConfig
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.training.checkpoint import Checkpoints
from urlrl.training.learn import learn
from urlrl.types import ABILITIES, BatchSpec, DemoPrompt, GoalPrompt, Goals, RewardPrompt, Transition, need

OBS, ACT, DIM, BATCH, UPDATES = 5, 2, 4, 8, 2
WIDE, GOALS = SkillSpace("wide_sphere", DIM), BatchSpec(size=BATCH, goals=Goals(random=0.0))
FB_TINY = FBConfig(z=WIDE, width=16, backward_width=16, lr=1e-2)
SF_TINY = SFConfig(z=WIDE, width=16, lr=1e-2, phi=FeatureConfig(width=16, lr=1e-2), batch=GOALS)
CONFIGS: dict[str, Any] = {
    "metra": MetraConfig(z=SkillSpace("sphere", DIM), width=16, lr=1e-2),
    "lsd": LSDConfig(z=SkillSpace("sphere", DIM), width=16, lr=1e-2),
    "csd": CSDConfig(z=SkillSpace("onehot", DIM), width=16, lr=1e-2),
    "csf": CSFConfig(z=SkillSpace("sphere", DIM), negatives=4, width=16, lr=1e-2),
    "diayn": DIAYNConfig(z=SkillSpace("gaussian", DIM), width=16, lr=1e-2),
    "dads": DADSConfig(z=SkillSpace("gaussian", DIM), alternatives=3, width=16, lr=1e-2),
    "fb": FB_TINY,
    "fb, mc": replace(FB_TINY, penalty="mc", max_gradient=1.0),
    **{f"sf, {name}": replace(SF_TINY, features=name) for name in FEATURES},
    "hilp": HILPConfig(
        z=SkillSpace("sphere", DIM), width=16, lr=1e-2, plan_recursions=2, plan_neighbours=3, plan_near=0.0
    ),
    "fre": FREConfig(
        z=SkillSpace("gaussian", DIM),
        batch=BatchSpec(size=BATCH, futures=2),
        encode=4,
        decode=2,
        encoder_width=8,
        width=16,
        depth=2,
        lr=1e-2,
        warmup=1,
        position=(0,),
        position_bins=3,
        position_range=(-2.0, 2.0),
    ),
    "adversarial_surprise": AdversarialSurpriseConfig(
        ppo=PPOConfig(width=16, lr=1e-2, epochs=2, batch=4), turns=2, explore_steps=1, control_steps=3, grace=0.3
    ),
    "rnd": RNDConfig(width=16, outputs=8, lr=1e-2),
    "uniform": UniformConfig(),
}
TOLD = [
    name for name in CONFIGS if name not in ("adversarial_surprise", "dads", "rnd", "uniform")
]  # those that follow prompts
# Successor features on other features are the same but for these, which are tried alone: each whole agent is a program
# that takes seconds to compile.
OTHER_FEATURES = [name for name in CONFIGS if name.startswith("sf") and name != "sf, hilbert"]
WHOLE = [name for name in CONFIGS if name not in OTHER_FEATURES]
LEARN = [name for name in WHOLE if name != "uniform"]
# But for the one with a memory, who acts as no skill alone says.
ONE_OF_EACH = ["metra", "csf", "fb", "sf, hilbert", "hilp", "fre", "rnd", "uniform"]
KEY = jax.eval_shape(lambda: jax.random.key(0))
MEAN, STD = np.float32(np.linspace(-1, 1, OBS)), np.float32(np.linspace(0.5, 2, OBS))


def agent_class(name: str) -> type:
    return find_agent(name.partition(",")[0])[0]


def make_batches(z_dim: int, seed: int = 0, blind: bool = False) -> Transition:
    """UPDATES stacked batches; `blind` has no number where a reward or a skill is."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.float32(rng.standard_normal((UPDATES, BATCH, *shape)))

    batches = Transition(
        obs=normal(OBS), action=jnp.tanh(normal(ACT)), reward=normal(), discount=jnp.float32(normal() > -1),
        next_obs=normal(OBS), z=normal(z_dim), goal=normal(OBS),
        goal_steps=jnp.int32(rng.integers(-1, 4, (UPDATES, BATCH))), future=normal(2, OBS),
    )  # fmt: skip
    nothing = jnp.full_like(batches.reward, jnp.nan), jnp.full_like(batches.z, jnp.nan)
    return batches._replace(reward=nothing[0], z=nothing[1]) if blind else batches


def batches_of(name: str, seed: int = 0, blind: bool = False) -> Transition:
    """`make_batches` for this agent: where it learns from rollouts, of 4 steps in each of 2 lanes, with what it is
    given."""
    batches = make_batches(CONFIGS[name].z.dim, seed, blind)
    if CONFIGS[name].batch.source != "rollout":
        return batches
    batches = jax.tree.map(lambda x: x.reshape(UPDATES, 4, BATCH // 4, *x.shape[2:]), batches)
    carry, given, act = make_agent(name).begin(jax.random.key(0), BATCH // 4, ()), [], jax.jit(make_agent(name).act)
    for obs in batches.obs[0]:
        carry = act(obs, carry, jax.random.key(0))[1]
        given.append(carry.given)
    extra = jax.tree.map(lambda *rows: jnp.broadcast_to(jnp.stack(rows), (UPDATES, 4, *rows[0].shape)), *given)
    ended = jnp.broadcast_to(jnp.arange(4)[None, :, None] == 3, batches.reward.shape)
    return batches._replace(extra={**extra, "ended": ended})


def make_batch(z_dim: int = DIM, seed: int = 0) -> Transition:
    return jax.tree.map(lambda x: x[0], make_batches(z_dim, seed))


def create(name: str, config: Any, key: jax.Array):
    """By one compiled call, as runs create agents."""
    return _create(agent_class(name), config, make_batch(config.z.dim), key)


_create = jax.jit(lambda cls, config, example, key: cls.create(config, example, key), static_argnums=(0, 1))


@cache
def make_agent(name: str, seed: int = 0):
    agent = create(name, CONFIGS[name], jax.random.key(seed))
    return agent.replace(normalizer=Normalizer(jnp.asarray(MEAN), jnp.asarray(STD)))


def learned(agent: Any, batches: Transition, seed: int = 1):
    """By the loops' own compiled call, which takes over the memory of what it is given."""
    return learn(jax.tree.map(jnp.copy, agent), batches, jax.random.key(seed))


@cache
def after_learning(name: str, blind: bool = False):
    batches = batches_of(name, blind=blind)
    if "offline" not in agent_class(name).abilities:  # It learns by the skills that acted.
        batches = batches._replace(z=batches_of(name).z)
    return learned(make_agent(name), batches)


def leaves_equal(a, b) -> bool:
    """Same structure, same bits; nothing is not a number."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


# --- Created ----------------------------------------------------------------------------------------------------------


def check_create(create, name):
    """Traces under jit and vmap, to the same arrays with an axis in front, of float32 and int32 and no weak type; two
    seeds are two agents."""
    config = CONFIGS[name]
    keys = jax.random.split(jax.random.key(0), 2)
    agents = [create(name, config, key) for key in keys]
    both = jax.eval_shape(jax.vmap(lambda key: create(name, config, key)), keys)
    assert jax.tree.structure(both) == jax.tree.structure(agents[0])
    for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(agents[0])):
        assert (a.shape, a.dtype) == ((2, *b.shape), b.dtype) and b.dtype in (jnp.float32, jnp.int32)
        assert not b.weak_type
    if name != "uniform":
        matrices = [[x for x in jax.tree.leaves(agent) if x.ndim == 2 and x.any()] for agent in agents]
        assert all(not np.allclose(a, b, atol=1e-3) for a, b in zip(*matrices)) and matrices[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_create(name):
    check_create(create, name)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda name, config, key: create(name, config, jax.random.key(0)), id="one seed for all"),
        pytest.param(
            lambda name, config, key: create(name, config, key).replace(alpha=jnp.asarray(1.0)), id="weak type"
        ),
    ],
)
def test_create_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_create(wrong, "fb")


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "uniform"])
def test_targets_are_copies(name):
    """No array of a new agent is in two places: an alias cannot be donated."""
    config, batch = CONFIGS[name], make_batch(CONFIGS[name].z.dim)
    trace = jax.make_jaxpr(lambda key: agent_class(name).create(config, batch, key).replace(normalizer=None))
    held = trace(jax.random.key(0)).jaxpr.outvars
    assert len(set(map(id, held))) == len(held) > 0


# --- Learning ---------------------------------------------------------------------------------------------------------


def check_learning(name, run):
    """Neither rewards nor skills of the data are read, what comes out is finite and has moved. `run(name, blind)` is
    the agent, its metrics and whether it is finite."""
    blind, metrics, finite = run(name, True)
    assert finite and metrics and all(np.isfinite(m) and m.dtype == jnp.float32 for m in metrics.values())
    seeing = run(name, False)
    assert leaves_equal((blind, metrics), seeing[:2])
    if name != "uniform":
        assert not leaves_equal(blind, make_agent(name))


def reads_reward(name, blind):
    agent = make_agent(name)
    batches = make_batches(DIM, blind=blind)
    return learned(agent, batches._replace(action=batches.action + 1e-3 * batches.reward[..., None]))


def reads_its_sign(name, blind):
    """No NaN comes out, but another result."""
    batches = make_batches(DIM, blind=blind)
    return learned(make_agent(name), batches._replace(discount=jnp.where(batches.reward > 0, batches.discount, 0.0)))


def reads_skills(name, blind):
    batches = make_batches(DIM, blind=blind)
    return learned(make_agent(name), batches._replace(action=batches.action + 1e-3 * batches.z[..., :ACT]))


@pytest.mark.parametrize("name", WHOLE)
def test_learning(name):
    check_learning(name, after_learning)


@pytest.mark.parametrize("wrong", [reads_reward, reads_its_sign, reads_skills])
def test_learning_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_learning("fb", wrong)


@pytest.mark.parametrize("name", WHOLE)
def test_learning_goes_on_in_one_program(name):
    """Fed its own output, one compiled call: no dtype, shape or weak type changes on the way."""
    agent, _, _ = after_learning(name)
    programs = learn._cache_size()
    again, _, finite = learned(agent, batches_of(name, seed=1), seed=2)
    assert learn._cache_size() == programs and finite
    for before, after in zip(jax.tree.leaves(make_agent(name)), jax.tree.leaves(again), strict=True):
        assert (before.dtype, before.shape, after.weak_type) == (after.dtype, after.shape, False)


@jax.jit
def learn_features(learners: dict, batch: Transition) -> dict:
    return {name: learner.update(batch) for name, learner in learners.items()}


def test_other_features_learn_from_states_alone():
    """Each by its own loss: neither rewards nor skills are read, all is finite, and only the random ones stay."""
    learners = {name: make_agent(name).phi for name in OTHER_FEATURES}
    seeing, blind = (jax.tree.map(lambda x: x[0], make_batches(DIM, blind=blind)) for blind in (False, True))
    after = learn_features(learners, blind)
    assert leaves_equal(after, learn_features(learners, seeing))
    for name, (learner, metrics) in after.items():
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((learner, metrics)))
        assert leaves_equal(learner, learners[name]) == (name == "sf, random") == (not metrics)


@pytest.mark.parametrize("name", OTHER_FEATURES)
def test_other_features_keep_every_type(name):
    """An update of the whole agent, traced: shapes and dtypes are those it began with, no type is weak."""
    agent = make_agent(name)
    after, metrics = jax.eval_shape(lambda agent, batch, key: agent.update(batch, key), agent, make_batch(), KEY)
    assert jax.tree.structure(after) == jax.tree.structure(agent)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(agent)):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, False)
    assert all(m.shape == () and m.dtype == jnp.float32 for m in metrics.values())


@pytest.mark.parametrize("name", LEARN)
def test_updates_draw_anew(name):
    first, same, other = (learned(make_agent(name), batches_of(name), seed)[0] for seed in (1, 1, 2))
    assert leaves_equal(first, same) and not leaves_equal(first, other)


@pytest.mark.parametrize("name", [name for name in LEARN if name != "rnd"])
def test_observations_are_normalised_everywhere(name):
    """An agent with statistics on raw observations learns what one without does on normalised ones. RND, whose own
    statistics are of raw observations, is checked in its file."""
    agent, batches = make_agent(name), batches_of(name)
    seen = {field: np.asarray(getattr(batches, field)) for field in ("obs", "next_obs", "goal", "future")}
    normal = {field: jnp.asarray((x - MEAN) / (STD + 1e-8)) for field, x in seen.items()}
    plain, _, _ = learned(agent.replace(normalizer=Normalizer.identity(OBS)), batches._replace(**normal))
    found, _, _ = after_learning(name)
    pairs = zip(
        jax.tree.leaves_with_path(found.replace(normalizer=plain.normalizer)), jax.tree.leaves(plain), strict=True
    )
    for (path, a), b in pairs:
        if "['key']['bias']" not in jax.tree_util.keystr(path):  # Attention ignores it: its gradient is rounding.
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    wrong, _, _ = learned(agent.replace(normalizer=Normalizer.identity(OBS)), batches)
    assert not all(
        np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(jax.tree.leaves(wrong), jax.tree.leaves(found))
    )


def test_checkpoints_give_every_agent_back(tmp_path):
    """All of them in one checkpoint; the state that the structure is taken from is another."""
    agents = {name.replace(", ", "-"): jax.tree.map(lambda x: x + 1, make_agent(name)) for name in WHOLE}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, agents, {"step": 3})
    like = {name.replace(", ", "-"): make_agent(name) for name in WHOLE}
    restored, info = checkpoints.restore(3, like)
    assert info["step"] == 3
    for name, agent in agents.items():
        assert leaves_equal(restored[name], agent), name
        assert jax.tree.structure(restored[name]) == jax.tree.structure(agent)


# --- Acting -----------------------------------------------------------------------------------------------------------


def check_actions(sample, name):
    """In [-1, 1], any leading axes, random at temperature 1, one for all keys at 0, of normalised observations."""
    agent, batch = make_agent(name), make_batch(CONFIGS[name].z.dim)
    z = agent.config.z.sample(jax.random.key(0), BATCH)
    mode, again = (sample(agent, batch.obs, z, jax.random.key(seed), 0.0) for seed in (0, 1))
    np.testing.assert_array_equal(mode, again)
    drawn, other = (sample(agent, 5 * batch.obs, z, jax.random.key(seed)) for seed in (0, 1))
    assert mode.shape == drawn.shape == (BATCH, ACT) and mode.dtype == drawn.dtype == jnp.float32
    assert np.abs(drawn).max() <= 1 and np.abs(drawn - other).mean() > 0.05
    np.testing.assert_allclose(sample(agent, batch.obs[0], z[0], jax.random.key(0), 0.0), mode[0], atol=1e-5)
    deep = sample(agent, batch.obs[None], z[None], jax.random.key(0), 0.0)
    np.testing.assert_allclose(deep[0], mode, atol=1e-5)
    plain = agent.replace(normalizer=Normalizer.identity(OBS))
    normal = sample(plain, (batch.obs - MEAN[None]) / STD[None], z, jax.random.key(0), 0.0)
    np.testing.assert_allclose(normal, mode, atol=1e-4)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_actions(name):
    check_actions(lambda agent, *given: agent.sample_actions(*given), name)


def always_samples(agent, obs, z, key, temperature=1.0):
    return agent.sample_actions(obs, z, key)


def always_the_mode(agent, obs, z, key, temperature=1.0):
    return agent.sample_actions(obs, z, key, 0.0)


def acts_on_raw_observations(agent, obs, z, key, temperature=1.0):
    return agent.replace(normalizer=Normalizer(2 * jnp.asarray(MEAN), jnp.ones(OBS))).sample_actions(
        obs, z, key, temperature
    )


def goes_too_far(agent, obs, z, key, temperature=1.0):
    return 2 * agent.sample_actions(obs, z, key, temperature)


@pytest.mark.parametrize("wrong", [always_samples, always_the_mode, acts_on_raw_observations, goes_too_far])
def test_actions_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_actions(wrong, "fb")


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_one_skill_is_held_for_an_episode(name):
    agent, batch = make_agent(name), make_batch(CONFIGS[name].z.dim)
    carry = agent.begin(jax.random.key(0), BATCH, agent.plan(batch, jax.random.key(2)))
    np.testing.assert_array_equal(carry.z, agent.config.z.sample(jax.random.key(0), BATCH))
    action, later = agent.act(batch.obs, carry, jax.random.key(1))
    np.testing.assert_array_equal(later.z, carry.z)
    np.testing.assert_array_equal(action, agent.sample_actions(batch.obs, carry.z, jax.random.key(1)))
    assert jax.tree.structure(later) == jax.tree.structure(carry)
    assert [x.dtype for x in jax.tree.leaves(later)] == [x.dtype for x in jax.tree.leaves(carry)]
    batch = batch._replace(z=carry.z)
    if "adaptable" in agent.abilities:
        assert agent.intrinsic_reward(batch).shape == (BATCH,)
    if "latent" in agent.abilities:  # Diagnostics read both along whole episodes.
        assert agent.latent(jnp.stack([batch.obs, batch.next_obs])).shape[:-1] == (2, BATCH)
    if "constrained" in agent.abilities:
        assert agent.constraint(jax.tree.map(lambda x: jnp.stack([x, x]), batch)).shape == (2, BATCH)


@pytest.mark.parametrize("name", [*AGENTS])
def test_abilities_are_those_of_its_methods(name):
    """Each agent has the methods of the abilities that it names, and none of an ability that it does not name."""
    agent, _ = find_agent(name)
    assert agent.abilities <= ABILITIES.keys()
    for ability, (methods, _) in ABILITIES.items():
        for method in methods:
            others = {other for other in agent.abilities if method in ABILITIES[other][0]}
            assert hasattr(agent, method) == bool(others), (ability, method)
    assert ("told" in agent.abilities) == hasattr(agent, "prompts")
    fields = {field.name for field in dataclasses.fields(agent)}
    assert set(agent.shared) <= fields
    for ability in ABILITIES.keys() - agent.abilities:
        with pytest.raises(UnsupportedPrompt, match=f"Agent {agent.__name__} cannot .* the ability '{ability}'"):
            need(agent, ability)
    for ability in agent.abilities:
        need(agent, ability)


@pytest.mark.parametrize("name", ["metra", "csf", "fb", "sf, hilbert", "hilp", "fre"])
def test_a_learner_starts_as_the_skills_policy(name):
    agent, batch = make_agent(name), make_batch()
    z, other = agent.config.z.sample(jax.random.key(0), 2)
    learner = agent.learner(z, jax.random.key(1))
    mode = agent.sample_actions(batch.obs, jnp.tile(z, (BATCH, 1)), jax.random.key(2), 0.0)
    np.testing.assert_allclose(learner.actor(agent.normalizer(batch.obs)).mode(), mode, atol=1e-5)
    assert learner.config == learner_config(agent.config)
    assert not np.allclose(learner.actor(batch.obs).mode(), mode, atol=1e-3)  # Wrong: raw observations.
    wrong = agent.learner(other, jax.random.key(1)).actor(agent.normalizer(batch.obs))
    assert not np.allclose(wrong.mode(), mode, atol=1e-3)


def learner_config(config):
    """The settings of the learner that an agent hands over, said anew."""
    match config:
        case MetraConfig() | CSFConfig():
            return replace(config.sac, width=config.width, lr=config.lr)
        case FBConfig() | SFConfig():
            return replace(config.ddpg, width=config.width, lr=config.lr)
        case FREConfig():  # Its learner bins the position itself, which the agent does before it joins the skill.
            return replace(config.iql, width=config.width, depth=config.depth, lr=config.lr, bins=config.bins())
        case HILPConfig():
            return replace(config.iql, width=config.width, depth=config.depth, lr=config.lr)


# --- Being told -------------------------------------------------------------------------------------------------------


def check_prompts(name, read):
    """Each prompt is a task with one z for each observation; one of a reward predicts rewards and returns; several
    goals read at once are pursued side by side, each as alone. `read(agent, prompt, seen)` is a task."""
    agent, seen = make_agent(name), make_batch()
    length, obs = agent.config.z.typical_norm, make_batch(seed=3).obs
    prompts = [RewardPrompt(seen), GoalPrompt(seen.goal[0]), DemoPrompt(seen.obs)]
    for prompt in prompts:
        if not isinstance(prompt, agent.prompts):
            with pytest.raises(UnsupportedPrompt):
                read(agent, prompt, seen)
            continue
        task = read(agent, prompt, seen)
        z = agent.aim(task, obs)
        assert z.shape == (BATCH, DIM) and z.dtype == jnp.float32
        if agent.config.z.kind != "gaussian":
            np.testing.assert_allclose(np.linalg.norm(z, axis=-1), length, rtol=1e-4)
        np.testing.assert_allclose(agent.aim(task, obs[0]), z[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(agent.aim(task, obs[None])[0], z, rtol=1e-3, atol=1e-4)
    task = read(agent, RewardPrompt(seen), seen)
    for predicted in (agent.predict_reward(task, seen), agent.predict_return(task, obs)):
        assert predicted.shape == (BATCH,) and np.isfinite(predicted).all()
    reader = SimpleNamespace(read=lambda prompt, seen, key: read(agent, prompt, seen))
    policy = acting(agent, to_goals(reader, seen.goal, seen, jax.random.key(0)))
    carry = policy.begin(jax.random.key(0), BATCH)
    action, carry = policy.act(np.asarray(obs), carry, jax.random.key(1), np.int32(0))
    z = carry.z
    for i in (0, BATCH - 1):
        alone = agent.aim(read(agent, GoalPrompt(seen.goal[i]), seen), obs[i])
        np.testing.assert_allclose(z[i], alone, rtol=1e-3, atol=1e-4)
        mode = agent.sample_actions(obs[i], alone, jax.random.key(1), 0.0)
        np.testing.assert_allclose(action[i], mode, atol=1e-3)
    assert len({float(row[0]) for row in z}) == BATCH


def read(agent, prompt, seen):
    return agent.read(prompt, seen, jax.random.key(0))


class OneForAll(NamedTuple):
    prompt: Any


def read_the_first_goal(agent, prompt, seen):
    return read(agent, GoalPrompt(seen.goal[0]) if isinstance(prompt, GoalPrompt) else prompt, seen)


def read_too_short(agent, prompt, seen):
    task = read(agent, prompt, seen)
    return task._replace(z=task.z / 2)


@pytest.mark.parametrize("name", ["metra", "csf", "fb", "sf, hilbert", "hilp", "fre"])
def test_prompts(name):
    check_prompts(name, read)


@pytest.mark.parametrize("wrong", [read_the_first_goal, read_too_short])
def test_prompts_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_prompts("fb", wrong)


@pytest.mark.parametrize("name", sorted(TOLD))
def test_what_cannot_be_followed_is_refused_by_name(name):
    agent = jax.eval_shape(lambda: make_agent(name))
    with pytest.raises(UnsupportedPrompt, match="OneForAll"):
        agent.read(OneForAll(1), make_batch(), jax.random.key(0))


# --- Settings ---------------------------------------------------------------------------------------------------------


def recorded(config: Any, asked: set[str], prefix: str = "") -> Any:
    """The same config, which puts the names of the fields that it is asked for into `asked`, nested ones dotted. What
    is asked to check or to copy it does not count."""

    class Recording(type(config)):
        __eq__, __hash__ = object.__eq__, object.__hash__  # which ask for nothing

        def __post_init__(self):
            """It was checked already."""

        def __getattribute__(self, field):
            if sys._getframe(1).f_globals["__name__"] != "dataclasses":
                asked.add(f"{prefix}{field}")
            return super().__getattribute__(field)

    parts = {
        name: recorded(part, asked, f"{prefix}{name}.") for name, part in vars(config).items() if is_dataclass(part)
    }
    return Recording(**{**vars(config), **parts})


def unread_fields(name: str, config: Any) -> set[str]:
    """The fields of a config, and of the learners' in it, that nothing asks for in the life of an agent (traced, not
    run)."""
    asked: set[str] = set()
    recording, batch = recorded(config, asked), jax.tree.map(lambda x: x[0], batches_of(name))

    def life(key):
        agent, _ = agent_class(name).create(recording, batch, key).update(batch, key)
        if name in TOLD:
            task = agent.read(GoalPrompt(batch.goal[0]), batch, key)
            batch_z = agent.aim(task, batch.obs)
            return agent.act(batch.obs, agent.begin(key, BATCH, ()), key), batch_z
        obs, next_obs, action = (x.reshape(BATCH, -1) for x in (batch.obs, batch.next_obs, batch.action))
        if "adaptable" in agent.abilities:
            ones = jnp.ones(BATCH)
            agent.learner(jnp.zeros(config.z.dim), key).update(obs, action, ones, ones, next_obs, key)
        return agent.act(obs, agent.begin(key, BATCH, ()), key)

    with jax.debug_key_reuse(False):
        jax.eval_shape(life, jax.random.key(0))
    return flatten(to_json(config)).keys() - asked


FAMILY = ("metra", "lsd", "csd", "csf", "diayn", "dads")
SETTINGS = {name: [CONFIGS[name]] for name in (*FAMILY, "fb, mc", "sf, hilbert", "hilp", "fre", "rnd", "uniform")}
ROUNDS = replace(CONFIGS["adversarial_surprise"].ppo, epochs=0)
SETTINGS["adversarial_surprise"] = [
    CONFIGS["adversarial_surprise"],
    replace(CONFIGS["adversarial_surprise"], objective="rnd", ppo=ROUNDS),
]
# What the loops read, what an agent sets from settings of its own, and what a check lets be one thing only.
ELSEWHERE = ("batch.", "iql.bins.", "z.kind")


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_read(name):
    unread = set.intersection(*(unread_fields(name, config) for config in SETTINGS[name]))
    assert not {field for field in unread if not field.startswith(ELSEWHERE)}


@dataclass(frozen=True)
class Part:
    idle: int = 0  # nobody reads it


@dataclass(frozen=True)
class WithIdleFields(UniformConfig):
    idle: float = 0.0  # nobody reads it
    part: Part = Part()


def test_settings_check_finds_idle_ones():
    idle = unread_fields("uniform", WithIdleFields()) - unread_fields("uniform", UniformConfig())
    assert idle == {"idle", "part.idle"}


def flawed_prompts():
    seen = jax.tree.map(np.asarray, make_batch())
    none = jax.tree.map(lambda x: x[:0], seen)
    nan = np.where(np.arange(BATCH) == 3, np.nan, seen.reward)
    return {
        "GoalPrompt: goal has shape (4,): expected (5).": GoalPrompt(seen.goal[0, :4]),
        "GoalPrompt: goal has shape (8, 5): expected (5).": GoalPrompt(seen.goal),
        "GoalPrompt: goal holds a number that is not finite": GoalPrompt(np.full(OBS, np.inf)),
        "RewardPrompt: reward has shape (0,): expected (n).": RewardPrompt(none),
        "RewardPrompt: next_obs has shape (8, 4): expected (8, 5).": RewardPrompt(
            seen._replace(next_obs=seen.next_obs[:, :4])
        ),
        "RewardPrompt: obs has shape (7, 5): expected (8, 5).": RewardPrompt(seen._replace(obs=seen.obs[:7])),
        "RewardPrompt: reward has shape (8, 1): expected (n).": RewardPrompt(
            seen._replace(reward=seen.reward[:, None])
        ),
        "RewardPrompt: reward holds a number that is not finite": RewardPrompt(seen._replace(reward=nan)),
        "DemoPrompt: obs has shape (5,): expected (n, 5).": DemoPrompt(seen.obs[0]),
    }


@pytest.mark.parametrize("name", ["metra", "fb", "sf, hilbert", "hilp", "fre"])
@pytest.mark.parametrize("message", flawed_prompts())
def test_flawed_prompts_get_one_sentence(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make_agent(name).read(flawed_prompts()[message], make_batch(), jax.random.key(0))
