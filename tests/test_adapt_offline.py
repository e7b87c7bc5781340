"""Adaptation of an agent that learned from a dataset: its learner has no temperature, and its past does not say which
skills acted."""

from contextlib import ExitStack, closing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import urlrl
from urlrl.adaptation.config import AdaptConfig, HighLevelConfig, OffPolicyConfig, SearchConfig
from urlrl.adaptation.methods import TRAIN, _reward_scale, prepare
from urlrl.adaptation.search import Found
from urlrl.adaptation.tuned import as_skill
from urlrl.agents.fb import FBConfig
from urlrl.config import OfflineConfig
from urlrl.data.dataset import DatasetInfo, Episode, write_dataset
from urlrl.envs import make_env
from urlrl.learners.ddpg import DDPG
from urlrl.learners.sac import SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.runs.load import load_checkpoint
from urlrl.tasks.catalogue import find_task
from urlrl.training.learn import learn
from urlrl.types import BatchSpec
from urlrl.verbs.adapt import adapt, make_setting

TASK = "maze_rooms_goal_1"  # 50 control steps per episode
DIM = 4
FB = FBConfig(z=SkillSpace("wide_sphere", DIM), width=16, backward_width=16, batch=BatchSpec(size=32))
SMALL = AdaptConfig(
    steps=300,
    eval_every=100,
    eval_episodes=3,
    num_envs=2,
    samples=60,
    high_level=HighLevelConfig(sac=SACConfig(width=16, lr=1e-4), updates=1, batch=8, random=2),
    off_policy=OffPolicyConfig(interval=10, batch=16, random=40, warmup=40, warmup_updates=3),
    search=SearchConfig(population=2, finetune_share=0.5),
)


def walks(steps: int = 50, lanes: int = 6) -> list[Episode]:
    rng, zeros = np.random.default_rng(0), np.zeros(steps)
    with closing(make_env("maze:rooms", lanes)) as env:
        seen, actions = [env.reset(seed=0)[0]], rng.uniform(-1, 1, (steps, lanes, 2))
        seen += [env.step(action)[0] for action in actions]
    return [Episode(np.stack(seen)[:, i], actions[:, i], zeros, zeros.astype(bool)) for i in range(lanes)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fb")
    info = DatasetInfo("maze:rooms", "a test", physics=(("xy", 2),), obs_is_physics=True)
    write_dataset(folder / "data", info, walks())
    config = OfflineConfig(agent=FB, agent_name="fb", data=str(folder / "data"), updates=5, steps=5)
    return urlrl.pretrain(config, folder / "run", quiet=True)


@pytest.fixture
def setting(run):
    with ExitStack() as opened:
        loaded = load_checkpoint(run)
        yield make_setting(run, loaded, find_task(TASK), SMALL, 0, lambda steps, mean: None, opened)


@pytest.fixture(scope="module")
def ladder(run, tmp_path_factory):
    asked = ["zero_shot", "finetune", "scratch"]
    return adapt(run, TASK, asked, seeds=[0], config=SMALL, out=tmp_path_factory.mktemp("adapt"), quiet=True)


def test_every_method_has_a_result(ladder):
    """A goal task is one reward for all episodes here, but no step of the data may earn it."""
    assert {"finetune", "scratch"} <= set(ladder["methods"]) and ladder["pretrain_steps"] == 5
    assert all(entry["seeds"] == [0] for entry in ladder["methods"].values())
    assert not [note for note in ladder["notes"] if not note.startswith("zero_shot: ")]


def test_finetuning_begins_with_the_agents_actor_and_scratch_does_not(setting):
    obs = jnp.asarray(setting.data.obs)
    tuned, fresh = TRAIN["finetune"](setting, prepare(setting)).agent, TRAIN["scratch"](setting).agent
    assert type(tuned.learner) is type(fresh.learner) is DDPG and tuned.learner.acts_by == ("actor",)
    z = jnp.tile(jnp.float32(setting.notes["z"]), (len(obs), 1))
    own = setting.agent.sample_actions(obs, z, jax.random.key(0), 0.0)
    tuned, fresh = (agent.sample_actions(obs, z, jax.random.key(0), 0.0) for agent in (tuned, fresh))
    np.testing.assert_allclose(tuned, own, atol=1e-5)
    assert np.abs(fresh - own).max() > 0.1


def leaves(tree) -> list[np.ndarray]:
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def same(a, b) -> bool:
    return all(map(np.array_equal, a, b))


def test_critics_of_a_learner_without_temperature_warm_up_alone(setting):
    batch = jax.tree.map(lambda x: jnp.asarray(x)[:32].reshape(2, 16, *x.shape[1:]), setting.data)
    agent = TRAIN["finetune"](setting, prepare(setting)).agent
    for warmup in (2, 0):
        new = agent.replace(config=replace(agent.config, warmup_updates=warmup))
        new, _, finite = learn(jax.tree.map(jnp.copy, new), batch, jax.random.key(1))
        assert finite and not same(leaves(new.learner.critic), leaves(agent.learner.critic))
        assert same(leaves(new.learner.actor), leaves(agent.learner.actor)) == bool(warmup)


# --- The size of the reward, where the data does not say which skills acted


def check_scale(reward_scale, setting):
    """Mean |intrinsic reward| of the past under the skill that was found, over the task's reward per step of it."""
    env, data = setting.make_env(1), setting.data
    assert data.z.shape == (60, 0)
    found = Found(np.float32([2.0, 0.0, 0.0, 0.0]), 10.0)  # Of a whole episode of 50 steps.
    features = np.asarray(setting.agent.intrinsic_reward(data._replace(z=jnp.tile(found.z, (60, 1)))))
    expected = np.abs(features).mean() / (10.0 / 50)
    assert 0.01 < expected < 100
    assert reward_scale(setting, found, env) == pytest.approx(expected, rel=1e-5)
    assert reward_scale(setting, Found(found.z, 0.0), env) == 1.0


def under_another_skill(setting, found, env):
    return _reward_scale(setting, Found(np.roll(found.z, 1), found.score), env)


def by_the_whole_return(setting, found, env):
    return _reward_scale(setting, Found(found.z, found.score * 50), env)


def test_the_reward_scale_is_of_the_skill_that_was_found(setting):
    check_scale(_reward_scale, setting)


@pytest.mark.parametrize("wrong", [under_another_skill, by_the_whole_return])
def test_the_reward_scale_check_finds(wrong, setting):
    with pytest.raises(AssertionError):
        check_scale(wrong, setting)


# --- A controller over skills of length sqrt(dim)


def test_the_controller_holds_skills_of_the_agents_own_length(setting):
    skills = as_skill(setting.agent.config.z, np.random.default_rng(0).uniform(-1, 1, (9, DIM)))
    np.testing.assert_allclose(np.linalg.norm(skills, axis=-1), DIM**0.5, rtol=1e-5)
