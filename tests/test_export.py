"""From an agent to files: equal actions in NumPy, ONNX and StableHLO, names that mean what they say, errors."""

import dataclasses
import json
import re
import subprocess
import sys
from contextlib import closing
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from run_tools import TINY, copy_of
from test_bundles import make

import urlrl
from urlrl import cli
from urlrl.adaptation.config import AdaptConfig, HighLevelConfig
from urlrl.adaptation.tuned import Controlled, Tuned, TunedConfig, start
from urlrl.agents import AGENTS, find_agent
from urlrl.agents.csf import CSFConfig
from urlrl.agents.diayn import DIAYNConfig
from urlrl.agents.fb import FBConfig
from urlrl.agents.fre import FREConfig
from urlrl.agents.hilp import HILPConfig
from urlrl.agents.lsd import LSDConfig
from urlrl.agents.metra import MetraConfig
from urlrl.agents.sf import SFConfig
from urlrl.config import PretrainConfig
from urlrl.envs import make_env
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation import coverage
from urlrl.learners.ddpg import DDPG, DDPGConfig
from urlrl.learners.features import FeatureConfig
from urlrl.learners.iql import IQL, IQLConfig
from urlrl.learners.ppo import PPOConfig
from urlrl.learners.sac import SAC, SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.runs.begin import create_agent
from urlrl.runs.load import GOAL_SCORES
from urlrl.skills import export as exporting
from urlrl.skills.card import make_card
from urlrl.skills.formats import FORMATS, aims
from urlrl.skills.policy import CARD, CONFIG, SkillError, SkillPolicy, turned
from urlrl.types import BatchSpec, DemoPrompt, GoalPrompt, RewardPrompt, Trajectory, Transition
from urlrl.verbs.export import export

ORIGIN = {"agent": "test", "step": 7, "evaluation_seed": 0, "note": "", "commands": [], "config": {}, "versions": {}}


def make_agent(name, config, env="point", steps=6):
    """(agent, its environment, its episodes): untrained, with statistics that are not the identity."""
    config = PretrainConfig(agent=config, agent_name=name, env=env, episode_steps=steps)
    env = make_env(env, coverage.EPISODES, episode_steps=steps)
    rng = np.random.default_rng(0)
    obs_dim = env.env_spec.obs_dim
    mean, std = rng.normal(size=obs_dim).astype(np.float32), rng.uniform(0.1, 2, obs_dim).astype(np.float32)
    agent = create_agent(config, env.env_spec).replace(normalizer=Normalizer(jnp.array(mean), jnp.array(std)))
    return agent, env, coverage.scored_episodes(env, agent, 0)


WIDE, PHI = SkillSpace("wide_sphere", 6), FeatureConfig(width=16)
SMALL = {"z": SkillSpace("sphere", 4), "width": 16}
CASES = {
    "metra": ("metra", MetraConfig(width=16)),
    "metra, one-hot": ("metra", MetraConfig(z=SkillSpace("onehot", 5), width=16)),
    "metra, gaussian": ("metra", MetraConfig(z=SkillSpace("gaussian", 3), width=16)),
    "metra, x unseen": ("metra", MetraConfig(phi_only=1, width=16)),
    "lsd": ("lsd", LSDConfig(width=16)),
    "csf": ("csf", CSFConfig(width=16)),
    "diayn": ("diayn", DIAYNConfig(z=SkillSpace("gaussian", 4), width=16)),
    "fb": ("fb", FBConfig(z=WIDE, width=16, backward_width=24)),
    "sf": ("sf", SFConfig(z=WIDE, width=16, phi=PHI)),
    "sf, laplacian": ("sf", SFConfig(z=WIDE, width=16, phi=PHI, features="laplacian")),
    "sf, difference": ("sf", SFConfig(z=WIDE, width=16, phi=PHI, cumulant="difference")),
    "hilp": ("hilp", HILPConfig(**SMALL)),
    "hilp, planning": (
        "hilp",
        HILPConfig(**SMALL, plan_recursions=2, plan_states=100, plan_neighbours=2, plan_near=0.3),
    ),
    "fre": ("fre", FREConfig(z=SkillSpace("gaussian", 8), width=16, encoder_width=16)),
    "fre, bins": (
        "fre",
        FREConfig(
            z=SkillSpace("gaussian", 8), width=16, encoder_width=16, position=(1,), position_bins=4,
            position_range=(-2.0, 2.0), goal_scale=(0.5, 2.0), goal_radius=0.7,
        ),
    ),
}  # fmt: skip


def shaken(agent):
    """With other parameters, so that none is at its start: no bias is 0, no scale is 1."""
    leaves, shape = jax.tree.flatten(agent)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(
        shape,
        [
            x + 0.1 * rng.normal(size=x.shape).astype(x.dtype) if x.dtype == jnp.float32 and x.ndim else x
            for x in leaves
        ],
    )


def seen_in(trajectory):
    """Its steps, and a word: twice the first number of the state that was reached."""
    steps = exporting._steps_of(trajectory)
    return exporting.Seen(steps, {"twice": 2 * np.asarray(steps.next_obs)[:, 0]})


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def exported(request):
    agent, env, trajectory = make_agent(*request.param)
    agent, seen = shaken(agent).replace(normalizer=agent.normalizer), seen_in(trajectory)
    with closing(env):
        policy, probes = exporting.make_policy(agent, env, trajectory, jax.random.key(0), ORIGIN, seen=seen)
    policy.card = make_card(policy, None)
    return agent, policy, probes, seen.steps


def fresh(agent):
    """Observations, goals and skills that no export has seen."""
    rng = np.random.default_rng(5)
    obs, goal = rng.normal(size=(2, 9, agent.normalizer.mean.shape[0])).astype(np.float32)
    return obs, goal, np.array(agent.config.z.sample(jax.random.key(6), 9))


def agents_own(agent, seen):
    obs, goal, z = fresh(agent)
    action = np.array(agent.sample_actions(obs, z, jax.random.key(1), 0.0))
    if isinstance(agent.config, FREConfig):
        return action, None  # It reads a goal at other states each time.
    aimed = [agent.aim(agent.read(GoalPrompt(goal[i]), seen, jax.random.key(2)), obs[i]) for i in range(9)]
    return action, np.array(aimed)


def test_a_bundle_acts_as_its_agent_does(exported, tmp_path):
    agent, policy, probes, seen = exported
    policy = SkillPolicy.from_pretrained(FORMATS["bundle"](policy, probes, tmp_path / "bundle"))
    obs, goal, z = fresh(agent)
    action, aimed = agents_own(agent, seen)
    np.testing.assert_allclose(policy.act(obs, z), action, atol=1e-5)
    if aimed is not None:
        errors, allowed = policy.apart(policy.aim(goal, obs), aimed)
        assert errors.max() <= allowed
        by_prompt = policy.act(obs[3], policy.prompt(goal=goal[3]))
        np.testing.assert_allclose(by_prompt, policy.act(obs[3], policy.aim(goal[3], obs[3])), atol=1e-6)


def test_a_bundle_is_told_what_its_agent_is_told(exported):
    """Rewards as numbers, functions and words, and demonstrations."""
    agent, policy, _, seen = exported
    if RewardPrompt not in agent.prompts:
        with pytest.raises(SkillError, match="cannot be told a reward: expected a goal"):
            policy.prompt(reward=np.zeros(len(seen.obs)))
        return
    reward = np.float32(0.3) + np.asarray(seen.next_obs)[:, 0] + np.square(np.asarray(seen.next_obs)[:, 1])
    task = agent.read(RewardPrompt(seen._replace(reward=reward)), seen, jax.random.key(0))
    told = policy.prompt(reward=reward)
    assert turned(told, np.array(agent.aim(task, seen.obs[0]))) < 1e-5
    of_columns = policy.prompt(reward=lambda seen: 0.3 + seen["obs_0"] + seen["obs_1"] ** 2)
    in_words = policy.prompt(reward="0.3 + twice / 2 + obs_1 ** 2") if "obs_1" in policy.transitions.columns else told
    assert turned(of_columns, told) < 1e-5 and turned(in_words, told) < 1e-5
    assert ("demo" in policy.config["golden"]) == (DemoPrompt in agent.prompts)
    if DemoPrompt in agent.prompts:
        demo = np.asarray(seen.obs)[:5]
        task = agent.read(DemoPrompt(demo), seen, jax.random.key(0))
        assert turned(policy.prompt(demo=demo), np.array(agent.aim(task, demo[0]))) < 1e-5
    else:
        with pytest.raises(SkillError, match="cannot be told a demo: expected a goal or reward"):
            policy.prompt(demo=np.asarray(seen.obs)[:5])


def test_an_onnx_graph_acts_as_its_agent_does(exported, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    agent, policy, probes, seen = exported
    folder = FORMATS["onnx"](policy, probes, tmp_path / "onnx")
    obs, goal, z = fresh(agent)
    action, aimed = agents_own(agent, seen)
    session = onnxruntime.InferenceSession(folder / "skill.onnx")
    np.testing.assert_allclose(session.run(["action"], {"obs": obs, "z": z})[0], action, atol=1e-5)
    assert session.run(None, {"obs": obs[:1], "z": z[:1]})[0].shape == (1, 2)
    assert json.loads(session.get_modelmeta().custom_metadata_map["urlrl"]) == policy.config
    assert (folder / "aim.onnx").exists() == aims(policy)
    if aims(policy):
        session = onnxruntime.InferenceSession(folder / "aim.onnx")
        np.testing.assert_allclose(session.run(["z"], {"goal": goal, "obs": obs})[0], aimed, atol=1e-5)


def test_a_stablehlo_program_acts_as_its_agent_does(exported, tmp_path):
    pytest.importorskip("flatbuffers")
    agent, policy, probes, seen = exported
    folder = FORMATS["stablehlo"](policy, probes, tmp_path / "stablehlo")
    obs, goal, z = fresh(agent)
    action, aimed = agents_own(agent, seen)
    program = jax.export.deserialize(bytearray((folder / "skill.stablehlo").read_bytes()))
    np.testing.assert_allclose(program.call(obs, z), action, atol=1e-5)
    assert program.call(obs[:1], z[:1]).shape == (1, 2) and set(program.platforms) >= {"cpu", "cuda", "tpu"}
    assert json.loads((folder / "contract.json").read_text()) == policy.config
    if aims(policy):
        program = jax.export.deserialize(bytearray((folder / "aim.stablehlo").read_bytes()))
        np.testing.assert_allclose(program.call(goal, obs), aimed, atol=1e-5)


# --- exports that are wrong


@pytest.fixture(scope="module")
def metra_on_point():
    agent, env, trajectory = make_agent("metra", MetraConfig(width=16))
    with closing(env):
        yield agent, env, trajectory


@pytest.fixture(scope="module")
def metra(metra_on_point):
    """(policy, probes)"""
    return exporting.make_policy(*metra_on_point, jax.random.key(0), ORIGIN)


@pytest.fixture(autouse=True)
def no_compiled_calls():
    """A class that was collected leaves its address to the next one, and with it the calls that JAX has compiled."""
    for call in (exporting._act, exporting._aim, exporting._read_rewards):
        call.clear_cache()


def louder(dense, factor):
    return dense._replace(tensors={**dense.tensors, "kernel": factor * np.asarray(dense.tensors["kernel"])})


@pytest.mark.parametrize("wrong", ["activation", "scaled", "latent", "normalizer"])
def test_an_export_that_acts_otherwise_is_refused(metra_on_point, wrong):
    """Wrong networks of an agent are found before anything is written."""
    agent, env, trajectory = metra_on_point

    class Wrong(type(agent)):
        def skill_networks(self, seen):
            networks = super().skill_networks(seen)
            policy, features = list(networks.policy), list(networks.features)
            if wrong == "activation":
                policy[2] = policy[2]._replace(kind="relu")
            elif wrong == "scaled":
                policy[-2] = louder(policy[-2], 1.01)
            elif wrong == "latent":
                features[-1] = louder(features[-1], -1)
            return networks._replace(policy=tuple(policy), features=tuple(features))

    fields = {field.name: getattr(agent, field.name) for field in dataclasses.fields(agent)}
    if wrong == "normalizer":  # What the agent uses is not what it says.
        Wrong.sample_actions = lambda self, obs, z, key, t: agent.sample_actions(obs + 1, z, key, t)
    with pytest.raises(SkillError, match="differs .*expected at most 1e-05"):
        exporting.make_policy(Wrong(**fields), env, trajectory, jax.random.key(0), ORIGIN)


def test_a_policy_that_is_shown_what_it_should_not_see_is_refused():
    """The unseen entry of an observation in another place than the agent's."""
    agent, env, trajectory = make_agent("metra", MetraConfig(phi_only=1, width=16))

    class Wrong(type(agent)):
        def skill_networks(self, seen):
            networks = super().skill_networks(seen)
            dense = networks.policy[1]
            tensors = {**dense.tensors, "kernel": np.asarray(dense.tensors["kernel"])[[1, 0, 2, 3]]}
            changed = (networks.policy[0], dense._replace(tensors=tensors), *networks.policy[2:])
            return networks._replace(policy=changed)

    fields = {field.name: getattr(agent, field.name) for field in dataclasses.fields(agent)}
    with closing(env), pytest.raises(SkillError, match="golden action differs by 0.* expected at most 1e-05"):
        exporting.make_policy(Wrong(**fields), env, trajectory, jax.random.key(0), ORIGIN)


def test_agents_that_say_what_their_policy_is_are_those_that_can_be_exported():
    assert {name for name in AGENTS if hasattr(find_agent(name)[0], "skill_networks")} == {
        "csd", "csf", "dads", "diayn", "fb", "fre", "hilp", "lsd", "metra", "sf",
    }  # fmt: skip


def test_an_agent_without_skill_networks_is_refused_by_name(metra_on_point):
    _, env, trajectory = metra_on_point

    class Other:
        config, abilities = MetraConfig(), frozenset()

    with pytest.raises(UnsupportedPrompt) as refusal:
        exporting.make_policy(Other(), env, trajectory, jax.random.key(0), ORIGIN)
    assert str(refusal.value) == (
        "Agent Other cannot be exported: expected one with the ability 'exportable' (`urlrl agents` lists them)."
    )


@pytest.mark.parametrize("name", ["onnx", "stablehlo"])
def test_a_format_that_acts_otherwise_is_not_written(metra, name, tmp_path):
    policy, probes = metra
    act = {**probes.act, "action": probes.act["action"] + np.float32(2e-5)}
    with pytest.raises(
        SkillError, match="has an action that differs from the agent's by 2e-05: .* nothing was written"
    ):
        FORMATS[name](policy, probes._replace(act=act), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, package, named",
    [
        ("onnx", "onnxruntime", "onnx and onnxruntime"),
        ("onnx", "onnx", "onnx and onnxruntime"),
        ("stablehlo", "flatbuffers", "flatbuffers"),
    ],
)
def test_a_package_that_is_not_installed_is_named(metra, name, package, named, monkeypatch, tmp_path):
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "jax._src.export.serialization", raising=False)
    with pytest.raises(SkillError, match=rf"The format '{name}' needs {named}, .* pip install 'urlrl\[onnx\]'\."):
        FORMATS[name](*metra, tmp_path / "out")


# --- names, bounds, templates


def episodes(z, ends, lengths=None):
    """One-step-per-row episodes that move straight to `ends` (n, p), and are masked after `lengths`; what follows the
    mask is far away."""
    z, ends = np.float32(z), np.float64(ends)
    n, steps = len(z), 4
    lengths = np.full(n, steps) if lengths is None else np.array(lengths)
    t = np.arange(steps + 1)[:, None, None]
    position = np.where(t <= lengths[:, None], ends * t / lengths[:, None], 1e6) + 0.5
    mask = np.arange(steps)[:, None] < lengths
    fields = dict.fromkeys(Transition._fields, np.zeros((steps, n, 1))) | {"z": np.broadcast_to(z, (steps, *z.shape))}
    return Trajectory(Transition(**fields), mask, position, None)


def test_forward_and_backward_are_the_skills_that_lead_farthest():
    trajectory = episodes([[0.25], [0.5], [0.75]], [[3.0], [-2.0], [5.0]], lengths=[4, 4, 2])
    assert exporting.named_skills(trajectory, "gaussian", ("x",)) == {
        "forward": {"z": [0.75], "displacement": {"x": 5.0}},  # Not 1e6, which is after the end.
        "backward": {"z": [0.5], "displacement": {"x": -2.0}},
    }


def test_a_direction_in_which_no_skill_leads_has_no_name():
    named = exporting.named_skills(episodes([[0.25], [0.5]], [[3.0], [2.0]]), "gaussian", ("x",))
    assert list(named) == ["forward"]


def test_compass_names_on_the_plane():
    angles = np.arange(8) * np.pi / 4
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    named = exporting.named_skills(episodes(-ring, 3 * ring), "sphere", ("x", "y"))
    expected = ["east", "north_east", "north", "north_west", "west", "south_west", "south", "south_east"]
    assert list(named) == expected
    for name, direction in zip(expected, ring):
        np.testing.assert_allclose(named[name]["z"], -direction, atol=1e-6)
        np.testing.assert_allclose(list(named[name]["displacement"].values()), 3 * direction, atol=1e-3)
    assert named["north"]["displacement"] == {"x": 0.0, "y": 3.0}


def test_onehot_skills_are_means_over_their_episodes():
    z = np.eye(3)[[0, 0, 1]]
    named = exporting.named_skills(episodes(z, [[4.0], [-6.0], [0.5]]), "onehot", ("x",))
    assert {name: skill["displacement"] for name, skill in named.items()} == {
        "forward": {"x": 0.5},  # Skill 0 went 4 once, and -1 in the mean.
        "backward": {"x": -1.0},
        "skill_0": {"x": -1.0},
        "skill_1": {"x": 0.5},
        "skill_2": None,
    }
    assert named["skill_2"]["z"] == [0, 0, 1]


def test_without_positions_only_indices_are_names():
    trajectory = episodes(np.eye(2), [[1.0], [2.0]])._replace(position=None)
    named = exporting.named_skills(trajectory, "onehot", ())
    assert named == {f"skill_{i}": {"z": [1 - i, i], "displacement": None} for i in (0, 1)}
    assert exporting.named_skills(trajectory, "sphere", ()) == {}


@pytest.mark.parametrize("name, index", [("point", [0, 1]), ("ant", [0, 1]), ("half_cheetah", [0])])
def test_goal_templates(name, index):
    with closing(make_env(name, 1)) as env:
        env.reset(seed=0)
        goal = exporting.goal_template(env)
        assert goal["index"] == index and goal["names"] == list(env.env_spec.position)
        place = np.arange(1.0, 1 + len(index))
        obs = np.float32(goal["template"])
        obs[index] = place
        np.testing.assert_array_equal(obs, env.goal_obs(place[None])[0].astype(np.float32))


def test_an_environment_that_shows_no_position_has_no_goal_template():
    with closing(make_env("gym:Pendulum-v1", 1)) as env:
        assert exporting.goal_template(env) is None


@pytest.mark.parametrize("name", ["ant", "half_cheetah", "dmc:walker_walk", "dmc:fish_swim", "gym:Pendulum-v1"])
def test_bounds_are_those_that_the_environment_maps_to(name):
    with closing(make_env(name, 1)) as env:
        size = env.env_spec.action_dim
        reach = np.array(env.env_spec.action_bounds or ((-1, 1),) * size).T
        env.reset(seed=0)
        for sign, bound in zip((-1.0, 1.0), reach):
            applied = None
            if hasattr(env, "pool"):
                env.step(np.full((1, size), sign))
                applied = env.pool.data[0].ctrl
            elif name.startswith("dmc"):
                env.step(np.full((1, size), sign))
                applied = env._lanes[0].data.ctrl
            elif name.startswith("gym"):
                applied = [2 * sign]  # Pendulum's torque, in N m
            np.testing.assert_allclose(bound, applied)


def test_observations_are_named_after_joints():
    with closing(make_env("half_cheetah", 1)) as env:
        names = exporting.observation_names(env.env_spec, env.model)
        assert names[:4] == ["qpos/rootx", "qpos/rootz", "qpos/rooty", "qpos/bthigh"] and names[9] == "qvel/rootx"
        assert len(names) == len(set(names)) == 18
    with closing(make_env("ant", 1)) as env:
        names = exporting.observation_names(env.env_spec, env.model)
        assert names[:7] == [f"qpos/root/{axis}" for axis in ("x", "y", "z", "qw", "qx", "qy", "qz")]
        assert names[15:21] == [f"qvel/root/{axis}" for axis in ("x", "y", "z", "turn_x", "turn_y", "turn_z")]
        assert len(names) == len(set(names)) == 29
    with closing(make_env("dmc:walker_walk", 1)) as env:
        assert exporting.observation_names(env.env_spec, env.model)[:2] == ["obs_0", "obs_1"]
        assert exporting.action_names(env.env_spec, env.model)[0] == "right_hip"


def test_numbers_in_json_are_the_same_floats():
    values = np.float32([0.1, 1 / 3, 1e-8, -123456.789, 3e38])
    assert (np.float32(json.loads(json.dumps(exporting.to_json(values)))) == values).all()
    assert exporting.to_json(values[:1]) == [0.1]


def test_an_environment_without_positions(tmp_path):
    agent, env, trajectory = make_agent("metra", MetraConfig(z=SkillSpace("onehot", 3), width=8), "gym:Pendulum-v1", 3)
    with closing(env):
        policy, _ = exporting.make_policy(agent, env, trajectory, jax.random.key(0), ORIGIN)
    assert list(policy.skills) == ["skill_0", "skill_1", "skill_2"] and policy.config["control_dt"] is None
    np.testing.assert_allclose(policy.scale([1.0]), [2.0])
    card = make_card(policy, None)
    assert "not measured" in card and "not stated by the environment" in card and "goal_obs" in card


# --- the verb


@pytest.fixture
def run(whole_run, tmp_path):
    """A copy, to be changed."""
    return copy_of(whole_run, tmp_path)


def test_export_writes_a_bundle_with_a_card(run, tmp_path, capsys):
    goal_scores = {"agent": 0.5, "random": 1.25, "standing still": 1.0}
    evaluation = {
        "step": 320, "seed": 0, "env": "point", "notes": [],
        "goals": {
            "protocol": "zero-shot-goals-v1", "num_goals": 50, "goal_box": [3.0, 3.0],
            **{who: dict.fromkeys(GOAL_SCORES, score) for who, score in goal_scores.items()},
        },
        "coverage": {
            "protocol": "skill-coverage-v1", "episodes": 48, "unit": "1 m cells", "agent": 77, "random": 4,
            "min": [-3.0, -3.0], "max": [3.0, 3.0],
        },
    }  # fmt: skip
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    cli.main(["export", str(run), "--out", str(tmp_path / "bundle")])
    assert capsys.readouterr().out == f"{tmp_path / 'bundle'}\n"
    policy = SkillPolicy.from_pretrained(tmp_path / "bundle")
    assert policy.config["provenance"]["config"]["env"] == "point" and policy.config["provenance"]["step"] == 320
    assert policy.card.startswith("---\nlibrary_name: urlrl\n") and "| coverage, 1 m cells | 77 | 4 |" in policy.card
    assert "| final goal distance, m | 0.500 | 1.250 | 1.000 |" in policy.card
    assert "| `obs_0` |" in policy.card and str(tmp_path) not in policy.card
    snippet = re.search(r"```python\n(.*?)```", policy.card, re.DOTALL).group(1)
    snippet = snippet.replace("path/to/this/folder", str(tmp_path / "bundle"))
    code = f"import numpy as np\nobs = np.zeros(2)\n{snippet}\nassert ctrl.shape == z.shape == (2,)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scores_of_another_checkpoint_are_left_out(run, tmp_path):
    (run / "evaluation.json").write_text(json.dumps({"step": 1, "seed": 0, "coverage": {"agent": 77}}))
    assert "## Scores" not in SkillPolicy.from_pretrained(export(run, tmp_path / "bundle")).card


def test_the_same_export_is_the_same_files(whole_run, tmp_path):
    folders = [export(whole_run, tmp_path / name) for name in "ab"]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name


def test_bad_exports_are_refused_in_one_sentence(whole_run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    run, out = str(whole_run), ["--out", str(tmp_path / "out")]
    for argv, message in (
        ([run], r"Option '--out' is missing: expected the folder to write\."),
        ([run, "--out", str(tmp_path / "full")], r"is not empty and holds mine\.txt: expected a new folder"),
        ([run, *out, "--format", "pickle"], r"Option '--format' is 'pickle': expected one of bundle, onnx, stablehlo"),
        ([run, *out, "--step", "5"], r"has no checkpoint at step 5: found those at"),
        ([run, *out, "--seed", "-1"], r"seed is -1: expected a number of at least 0"),
        ([str(tmp_path / "full"), *out], r"is not a run: it has no config\.json"),
    ):
        with pytest.raises(SystemExit) as exit:
            cli.main(["export", *argv])
        error = capsys.readouterr().err
        assert exit.value.code == 2 and re.search(message, error) and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists() and [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="format is 'zip': expected one of 'bundle', 'onnx', 'stablehlo'"):
        export(run, tmp_path / "out", format="zip")


def test_a_run_whose_agent_cannot_be_exported_gets_one_sentence(tmp_path, capsys):
    config = dataclasses.replace(TINY, agent=find_agent("uniform")[1](), agent_name="uniform", steps=80)
    run = urlrl.pretrain(config, tmp_path / "run", quiet=True)
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", str(run), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err == (
        "urlrl: Agent Uniform cannot be exported: expected one with the ability 'exportable' (`urlrl agents` lists "
        "them).\n"
    )


def test_a_bundle_replaces_a_bundle_but_no_other_format(whole_run, tmp_path):
    folder = export(whole_run, tmp_path / "out")
    (folder / CARD).write_text("old")
    export(whole_run, folder)
    assert (folder / CARD).read_text() != "old"
    pytest.importorskip("onnxruntime")
    with pytest.raises(UserError, match=f"holds {CARD}: expected a new folder"):
        export(whole_run, folder, format="onnx")
    assert (folder / CONFIG).exists()


@pytest.mark.parametrize("kind", [SAC, DDPG, IQL])
def test_what_was_tuned_by_any_learner_leaves_jax(kind):
    """A policy of one task: no skill, no prompts."""
    _, env, _ = make_agent("metra", MetraConfig(width=8))
    x, action = np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32)
    config = {SAC: SACConfig(width=8), DDPG: DDPGConfig(width=8), IQL: IQLConfig(width=8, depth=2)}[kind]
    learner = kind.create(dataclasses.replace(config, lr=1e-3), x, action, jax.random.key(0))
    normalizer = Normalizer(jnp.array([1.0, 2.0]), jnp.array([2.0, 0.5]))
    agent = shaken(Tuned.create(TunedConfig(BatchSpec()), learner, normalizer))
    with closing(env):
        episodes = coverage.scored_episodes(env, agent, 0)
        policy, _ = exporting.make_policy(agent, env, episodes, jax.random.key(0), ORIGIN)
    obs = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    expected = agent.sample_actions(obs, np.zeros((9, 0)), jax.random.key(0), 0.0)
    np.testing.assert_allclose(policy.act(obs, np.zeros((9, 0))), expected, atol=1e-5)
    assert policy.act(obs[0]).shape == (2,) and not any(policy.config["prompting"].values())


class Skills(struct.PyTreeNode):
    """What a controller is told of an agent."""

    normalizer: Normalizer
    config: SimpleNamespace = struct.field(pytree_node=False)


def make_controlled(kind):
    """(a policy of random weights, a controller over its skills, observations of the task with two features)."""
    policy, rng = make({}, kind=kind), np.random.default_rng(0)
    size, dim = policy.config["observation"]["size"], policy.config["skill"]["dim"]
    agent = Skills(Normalizer.identity(size), SimpleNamespace(z=SkillSpace(kind, dim)))
    mean, std = rng.normal(size=size + 2).astype(np.float32), rng.uniform(0.5, 2, size + 2).astype(np.float32)
    config = AdaptConfig(high_level=HighLevelConfig(sac=SACConfig(width=8, lr=1e-3), ppo=PPOConfig(width=8, lr=1e-3)))
    normalizer = Normalizer(jnp.array(mean), jnp.array(std))
    tuned = start("hierarchical", agent, np.zeros(0), config, normalizer, 0, jax.random.key(0))
    actor = tuned.learner.actor
    tuned = tuned.replace(learner=tuned.learner.replace(actor=actor.replace(params=shaken(actor.params))))
    return policy, Controlled(agent, tuned, 3), rng.normal(size=(64, size + 2)).astype(np.float32)


@pytest.mark.parametrize("kind", ["gaussian", "onehot"])
def test_a_controller_chooses_any_kind_of_skill_in_numpy_as_in_jax(kind):
    policy, controlled, seen = make_controlled(kind)
    made = exporting.add_controller(policy, controlled, seen, ["left", "right"])
    chosen = np.asarray(controlled.choose(seen, jax.random.key(0), 0.0))
    np.testing.assert_allclose(made.choose(seen), chosen, atol=1e-5)
    assert len(np.unique(chosen.round(4), axis=0)) > 1
    assert [len(rows) for rows in made.config["golden"]["choose"].values()] == [exporting.GOLDEN_ROWS] * 2
    assert made.config["observation"]["low"] == exporting.to_json(np.minimum(seen[:, :4].min(axis=0), -2))


def test_a_controller_that_chooses_otherwise_is_not_exported():
    policy, controlled, seen = make_controlled("gaussian")

    class Wrong(Controlled):
        def network(self):
            *graph, last = super().network()
            return (*graph, last._replace(tensors={**last.tensors, "kernel": np.eye(3)}))

    wrong = Wrong(controlled.agent, controlled.controller, controlled.hold)
    with pytest.raises(SkillError, match="The golden choice differs by 0.* expected at most 1"):
        exporting.add_controller(policy, wrong, seen, ["left", "right"])
