"""Configs: strict JSON, presets, one sentence for each mistake."""

import json

import pytest

from urlrl.agents.metra import MetraConfig
from urlrl.config import PretrainConfig, flatten, pretrain_config_from_json, to_json
from urlrl.errors import UserError
from urlrl.presets import PRESETS, preset

ALL = [(agent, name) for agent, presets in PRESETS.items() for name in presets]


@pytest.mark.parametrize(("agent", "name"), ALL)
def test_every_preset_survives_json(agent, name):
    config = preset(agent, name)
    assert pretrain_config_from_json(json.loads(json.dumps(to_json(config))), MetraConfig) == config
    assert PRESETS[agent][name].source and PRESETS[agent][name].cost


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent": {"lrr": 1.0}}, "Unknown key in config.agent 'lrr': did you mean 'lr'"),
        ({"stepz": 1}, "Unknown key in config 'stepz': did you mean 'steps'"),
        ({"agent": {"lr": "fast"}}, "config.agent.lr is 'fast': expected float"),
        ({"agent": {"z": {"kind": "ball"}}}, "config.agent.z.kind is 'ball': expected one of 'sphere'"),
        ({"num_envs": 0}, "num_envs is 0: expected a number of at least 1"),
        ({"steps": True}, "config.steps is True: expected int"),
        ({"replay_capacity": 10}, "replay_capacity is 10: expected at least one rollout"),
    ],
)
def test_bad_values_get_one_sentence(change, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.").replace("(", r"\(")):
        pretrain_config_from_json(change, MetraConfig)


def test_unknown_preset_offers_the_nearest():
    with pytest.raises(UserError, match="did you mean 'half-cheetah-quick'"):
        preset("metra", "half-chetah-quick")


def test_flatten_gives_dotted_names():
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_paper_presets_are_the_released_code():
    for name in ("ant-paper", "half-cheetah-paper"):
        config: PretrainConfig = preset("metra", name)
        assert config.agent.constraint_reduction == "mean" and config.agent.batch.timeout_as_terminal
        assert (config.agent.width, config.agent.lr, config.agent.batch.size) == (1024, 1e-4, 256)
        assert (config.num_envs, config.rollout_steps, config.updates) == (8, 200, 50)
        assert (config.min_replay, config.replay_capacity) == (10_000, 1_000_000)
    assert preset("metra", "half-cheetah-paper").agent.z.dim == 16
