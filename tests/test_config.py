"""Configs: strict JSON, presets, one sentence for each mistake."""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from urlrl.agents import find_agent
from urlrl.agents.metra import Metra, MetraConfig
from urlrl.config import PretrainConfig, flatten, run_config_from_json, to_json
from urlrl.errors import UserError, check
from urlrl.learners.sac import SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets import all_presets, preset
from urlrl.types import BatchSpec, Goals

OWN = f"{__name__}:Own"


@dataclass(frozen=True)
class OwnConfig:
    z: SkillSpace = SkillSpace("sphere", 3)
    batch: BatchSpec = BatchSpec(size=7, goals=Goals())
    width: int = 9
    lr: int = 2  # METRA's is another type.
    mine: float = 0.5


class Own(Metra):
    Config = OwnConfig


ALL = [(agent, name) for agent, presets in all_presets().items() for name in presets]


@pytest.mark.parametrize(("agent", "name"), ALL)
def test_every_preset_survives_json(agent, name):
    config, agent_config = preset(agent, name), find_agent(agent)[1]
    assert config.agent_name == agent and type(config.agent) is agent_config
    assert run_config_from_json(json.loads(json.dumps(to_json(config))), agent_config) == config
    assert all_presets()[agent][name].source and all_presets()[agent][name].cost


def test_another_agents_preset_gives_an_own_agent_the_settings_that_both_have(caplog):
    theirs, config = preset("metra", "half-cheetah-quick"), preset(OWN, "metra/half-cheetah-quick")
    assert config.agent == OwnConfig(z=SkillSpace("onehot", 16), width=128)
    assert config == replace(theirs, agent=config.agent, agent_name=OWN)
    assert caplog.messages == [
        "Preset 'metra/half-cheetah-quick' is used without lr=0.001 and constraint_reduction='mean': the Config of "
        f"'{OWN}' has no field of that name and type."
    ]
    batch = preset(OWN, "metra/ant-paper").agent.batch  # METRA's sets one of the fields.
    assert batch == BatchSpec(size=7, goals=Goals(), timeout_as_terminal=True)
    assert preset("metra", "metra/point-quick") == preset("metra", "point-quick")
    assert preset("hilp", "metra/point-quick").agent.width == 64  # A registered agent can have it too.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent": {"lrr": 1.0}}, "Unknown key in config.agent 'lrr': did you mean 'lr'"),
        ({"stepz": 1}, "Unknown key in config 'stepz': did you mean 'steps'"),
        ({"agent": {"lr": "fast"}}, "config.agent.lr is 'fast': expected float"),
        ({"agent": {"z": {"kind": "ball"}}}, "config.agent.z.kind is 'ball': expected one of 'sphere'"),
        ({"agent": {"z": 3}}, "config.agent.z is 3: expected an object with its fields"),
        ({"num_envs": 0}, "num_envs is 0: expected a number of at least 1"),
        ({"steps": True}, "config.steps is True: expected int"),
        ({"replay_capacity": 10}, "replay_capacity is 10: expected at least one rollout"),
        (
            {"min_replay": 10_000, "replay_capacity": 9_999},
            "min_replay is 10000: expected at most 9992, the whole steps of all environments in replay_capacity = 9999",
        ),
        ({"replay_parts": 3}, "replay_parts is 3: expected a divisor of num_envs, which is 8."),
        ({"num_envs": 3, "replay_parts": 3}, "replay_parts is 3: expected a divisor of the batch, which is 256."),
        ({"steps_per_update": 4000}, "steps_per_update is 4000: expected at most the 1600 steps"),
        ({"seed": 2**32}, "seed is 4294967296: expected a number of at least 0 and at most 4294967295."),
        ({"checkpoint_minutes": float("nan")}, "checkpoint_minutes is nan: expected a number of at least 0."),
        ({"agent": {"batch": {"size": 0}}}, "size is 0: expected a number of at least 1."),
        ({"agent": {"z": {"kind": "onehot", "dim": 1}}}, "dim is 1: expected at least 2 with kind 'onehot'"),
    ],
)
def test_bad_values_get_one_sentence(change, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.").replace("(", r"\(")):
        run_config_from_json(change, MetraConfig)


NAN, INF = float("nan"), float("inf")
# class -> field -> values at the edge of what is taken, values just outside
EDGES: dict[Any, dict[str, tuple[list, list]]] = {
    PretrainConfig: {
        "num_envs": ([1], [0]),
        "rollout_steps": ([4], [0]),
        "steps": ([1], [0]),
        "steps_per_update": ([0, 0.5, 1600], [-1, NAN, 10_000]),
        "replay_parts": ([1, 4], [0]),
        "min_replay": ([0, 1_000_000], [-1, 1_000_001]),
        "replay_capacity": ([10_000, 2**31 - 1], [9_999, 0, 2**31]),
        "eval_every": ([0], [-1]),
        "checkpoint_minutes": ([0, 0.5], [-0.5, NAN, INF]),
        "seed": ([0, 2**32 - 1], [-1, 2**32, 10**20]),
        "episode_steps": ([1, None], [0]),
    },
    MetraConfig: {
        "dual_init": ([1e-3], [0, -1, NAN, INF]),
        "slack": ([0], [-1e-3, NAN, INF]),
        "width": ([1], [0]),
        "lr": ([1e-9], [0, -1e-4, NAN, INF]),
    },
    SACConfig: {
        "width": ([1, None], [0]),
        "lr": ([1e-9, None], [0, -1e-4, NAN, INF]),
        "gamma": ([0, 1], [-0.1, 1.1, NAN]),
        "tau": ([0, 1], [-0.1, 1.1, NAN]),
        "alpha": ([1e-3], [0, -1, NAN, INF]),
        "entropy_coef": ([0], [-0.1, NAN, INF]),
    },
    SkillSpace: {"dim": ([1], [0])},
    BatchSpec: {"size": ([1], [0])},
}


@pytest.mark.parametrize(("cls", "field"), [(cls, field) for cls, fields in EDGES.items() for field in fields])
def test_a_number_out_of_range_is_refused_by_name(cls, field):
    given = {"agent": MetraConfig()} if cls is PretrainConfig else {}
    taken, refused = EDGES[cls][field]
    for value in taken:
        cls(**given, **{field: value})
    for value in refused:
        with pytest.raises(UserError, match=r"^\w+ is .*: expected .*\.$") as error:
            cls(**given, **{field: value})
        assert f"{value}" in str(error.value) and field in str(error.value)


def test_check_says_what_it_expects():
    for args, open_low, message in (
        (("n", 0, 1), False, "n is 0: expected a number of at least 1."),
        (("lr", NAN, 0), True, "lr is nan: expected a number above 0."),
        (("lr", INF, 0), True, "lr is inf: expected a finite number above 0."),
        (("gamma", 2.0, 0, 1), False, "gamma is 2.0: expected a number of at least 0 and at most 1."),
    ):
        with pytest.raises(UserError) as error:
            check(*args, open_low=open_low)
        assert str(error.value) == message


def test_one_index_is_no_skill_space():
    SkillSpace("onehot", 2)
    with pytest.raises(UserError, match="dim is 1: expected at least 2 with kind 'onehot'"):
        SkillSpace("onehot", 1)


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
        assert (config.num_envs, config.rollout_steps, config.steps_per_update) == (8, 200, 32)
        assert (config.min_replay, config.replay_capacity) == (10_000, 1_000_000)
    assert preset("metra", "half-cheetah-paper").agent.z == SkillSpace("onehot", 16)


def test_choices_are_checked_from_python_too():
    with pytest.raises(UserError, match="kind is 'ball': expected one of 'sphere'"):
        SkillSpace("ball", 2)
    with pytest.raises(UserError, match="constraint_reduction is 'max': expected one of 'sum', 'mean'"):
        MetraConfig(constraint_reduction="max")


def test_the_whole_number_of_updates_that_comes_nearest_is_made():
    config = PretrainConfig(agent=MetraConfig())
    assert (config.updates, replace(config, num_envs=1024, rollout_steps=25).updates) == (50, 800)
    assert replace(config, num_envs=3).updates == 19  # 18.75


def test_runs_that_counted_updates_are_read():
    data = to_json(PretrainConfig(agent=MetraConfig(), steps_per_update=16))
    del data["steps_per_update"]
    assert run_config_from_json({**data, "updates": 100}, MetraConfig).steps_per_update == 16
    assert run_config_from_json({**data, "updates": 0}, MetraConfig).steps_per_update == 0
