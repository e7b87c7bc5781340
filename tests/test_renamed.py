"""What 0.1.0 wrote stays readable: a run that it trained, and every agent's config.

`data/old_run` is METRA on `point`, 40 steps, then 20 more with another `agent.gamma`; `data/old_run_actions.json` says
how it acted. `data/old_configs.json` has configs of defaults and presets, each with the settings that its learners had.
"""

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import urlrl
from urlrl.agents import find_agent
from urlrl.agents.metra import MetraConfig
from urlrl.config import PretrainConfig, flatten, run_config_from_json, to_json
from urlrl.errors import UserError, nearest
from urlrl.learners.iql import IQLConfig
from urlrl.learners.model import filled
from urlrl.learners.ppo import PPOConfig
from urlrl.learners.sac import SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets import preset
from urlrl.renamed import MOVED, name_now
from urlrl.training.run import RunFolder
from urlrl.types import BatchSpec

DATA = Path(__file__).parent / "data"
OLD = json.loads((DATA / "old_configs.json").read_text())
# What began the old run, as it is said today.
CONFIG = PretrainConfig(
    agent=MetraConfig(
        z=SkillSpace("sphere", 2), batch=BatchSpec(size=16), width=8, lr=1e-3,
        sac=SACConfig(gamma=0.95, tau=0.01, alpha=0.05, entropy_coef=0.4),
    ),
    env="point", num_envs=2, episode_steps=10, rollout_steps=10, steps_per_update=10, min_replay=20, replay_capacity=60,
    steps=60, eval_every=0, checkpoint_minutes=60, keep_data="window",
)  # fmt: skip


@pytest.fixture
def old_run(tmp_path):
    return Path(shutil.copytree(DATA / "old_run", tmp_path / "run"))


# --- runs


def test_an_old_run_acts_as_it_did(old_run):
    agent, config = urlrl.load(old_run)
    assert config == replace(CONFIG, agent=replace(CONFIG.agent, sac=replace(CONFIG.agent.sac, gamma=0.9)))
    golden = {name: np.float32(rows) for name, rows in json.loads((DATA / "old_run_actions.json").read_text()).items()}
    for name, temperature in (("mode", 0.0), ("sampled", 1.0)):
        action = agent.sample_actions(golden["obs"], golden["z"], jax.random.key(0), temperature)
        np.testing.assert_allclose(action, golden[name], rtol=1e-5, atol=1e-6)


def test_an_old_run_goes_on(old_run):
    """By the command that began it, with the gamma that it was given later; and with another one now."""
    config = replace(CONFIG, steps=80)
    urlrl.pretrain(config, old_run, quiet=True)
    assert RunFolder(old_run).manifest()["config"]["agent"]["sac"]["gamma"] == 0.9
    urlrl.pretrain(replace(config, steps=100), old_run, continue_with={"agent.sac.gamma": 0.8}, quiet=True)
    agent, found = urlrl.load(old_run)
    assert found.agent.sac.gamma == agent.sac.config.gamma == 0.8 and agent.sac.config.lr == 1e-3
    assert RunFolder(old_run).manifest()["continued"][-1]["changed"] == {"agent.sac.gamma": [0.9, 0.8]}


def test_a_setting_of_an_old_run_can_change_at_once(old_run):
    urlrl.pretrain(replace(CONFIG, steps=80), old_run, continue_with={"agent.sac.gamma": 0.8}, quiet=True)
    assert RunFolder(old_run).manifest()["continued"][-1]["changed"] == {"agent.sac.gamma": [0.9, 0.8]}
    urlrl.pretrain(replace(CONFIG, steps=100), old_run, quiet=True)
    assert urlrl.load(old_run)[1].agent.sac.gamma == 0.8


def test_another_old_run_is_told_apart(old_run):
    other = replace(CONFIG, agent=replace(CONFIG.agent, sac=replace(CONFIG.agent.sac, tau=0.02)))
    with pytest.raises(UserError, match=r"agent\.sac\.tau is 0\.01 there and 0\.02 here; .*--agent\.sac\.tau 0\.01"):
        RunFolder(old_run).check(other)


# --- configs


def learners(config) -> dict:
    """The settings that the learners of an agent work with."""
    match type(config).__name__:
        case "MetraConfig":
            return {"learner": filled(config.sac, config)}
        case "RNDConfig":
            return {"learner": filled(config.ddpg, config)}
        case "FREConfig":
            return {"learner": filled(config.iql, config)}
        case "HILPConfig":
            phi = {"gamma": config.distance_gamma, "expectile": config.distance_expectile, "tau": config.iql.tau}
            return {"learner": filled(config.iql, config), "phi": phi}
        case "FBConfig":
            return policies(config)
    return {**policies(config), "phi": {"dim": config.z.dim, **dataclasses.asdict(config.phi)}}


def policies(config) -> dict:
    """Of FB and SF, that of a skill's policy and that of fine-tuning, which are one but for the rate."""
    own = dataclasses.asdict(filled(config.ddpg, config))
    return {
        "learner": {**own, "lr": config.lr},
        "actor": {name: own[name] for name in ("width", "lr", "noise", "noise_clip")},
    }


@pytest.mark.parametrize("name", OLD)
def test_old_configs_are_those_of_today(name):
    """Every setting of every learner is what it was, and the same preset goes on with the run."""
    agent_name, _, preset_name = name.partition(" ")
    _, config_class = find_agent(agent_name)
    config = run_config_from_json(OLD[name]["config"], config_class)
    found = {part: x if isinstance(x, dict) else dataclasses.asdict(x) for part, x in learners(config.agent).items()}
    said = {part: value for part, value in OLD[name].items() if part != "config"}
    assert json.loads(json.dumps(found)) == said
    assert config.agent == (preset(agent_name, preset_name).agent if preset_name else config_class())
    assert run_config_from_json(json.loads(json.dumps(to_json(config))), config_class) == config


@pytest.mark.parametrize("agent_name", MOVED)
def test_the_table_leads_from_names_that_are_gone_to_names_that_are_there(agent_name):
    now = flatten(to_json(find_agent(agent_name)[1]()))
    old = flatten(OLD[agent_name]["config"]["agent"])
    moved = MOVED[agent_name]
    assert old.keys() - now.keys() <= moved.keys() <= moved.keys() - now.keys() and set(moved.values()) <= now.keys()
    assert [name_now(agent_name, f"agent.{name}") for name in moved] == [f"agent.{name}" for name in moved.values()]
    assert name_now(agent_name, "agent.lr") == "agent.lr" and name_now("mine:Agent", "agent.gamma") == "agent.gamma"


def test_an_agents_own_rate_is_one_for_all():
    """An old FB whose policy had another rate keeps it; one that had the same follows the agent's."""
    data = OLD["fb quick"]["config"]
    for actor_lr, read, now in ((5e-4, None, 5e-4), (3e-5, 3e-5, 3e-5)):
        agent = run_config_from_json({**data, "agent": {**data["agent"], "actor_lr": actor_lr}}, find_agent("fb")[1])
        assert agent.agent.ddpg.lr == read and filled(agent.agent.ddpg, agent.agent).lr == now


# --- what a learner takes from its agent


def test_what_a_learner_leaves_out_is_the_agents():
    agent = MetraConfig(width=64, lr=1e-3)
    assert filled(SACConfig(), agent) == SACConfig(width=64, lr=1e-3)
    assert filled(SACConfig(width=8, lr=1e-2, gamma=0.5), agent) == SACConfig(width=8, lr=1e-2, gamma=0.5)
    assert filled(PPOConfig(), agent) == PPOConfig(width=64, lr=1e-3) and PPOConfig().value_clip is None
    with pytest.raises(UserError, match="IQLConfig.depth is None: expected a number, as there is no agent"):
        filled(IQLConfig(), agent)  # METRA has no depth.
    with pytest.raises(UserError, match="SACConfig.lr is None: expected a number"):
        filled(SACConfig(width=8))


def test_json_leaves_a_learner_as_its_agent_has_it():
    fre = find_agent("fre")[1]
    assert run_config_from_json({"data": "", "agent": {"iql": {"gamma": 0.5}}}, fre).agent.iql == replace(
        fre().iql, gamma=0.5
    )


def test_the_nearest_name_is_one_that_ends_alike():
    assert nearest("--agent.gamma", ["--agent.sac.gamma", "--agent.batch", "--agent.games"]) == "--agent.sac.gamma"
    assert nearest("gamme", ["gamma", "lr"]) == "gamma" and nearest("x", ["gamma", "lr"]) is None
