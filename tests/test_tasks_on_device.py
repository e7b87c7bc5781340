"""Tasks on the device: what they pay, show and draw there is what they do on the host; adapting in them."""

import dataclasses
import importlib.util
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from run_tools import TINY

import urlrl
from urlrl.adaptation.config import AdaptConfig, HighLevelConfig, OffPolicyConfig, SearchConfig
from urlrl.adaptation.options import Options, options_on_device
from urlrl.cli import main
from urlrl.errors import UserError
from urlrl.learners.sac import SACConfig
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
from urlrl.tasks.catalogue import FRE_TASKS, TASKS, find_task
from urlrl.tasks.on_device import Draws, task_on_device
from urlrl.tasks.task import Moment, Task, make_task_env, rewards
from urlrl.training.saver import Saver
from urlrl.training.seeds import Seeds
from urlrl.verbs.adapt import adapt, evaluate_adapted
from urlrl.verbs.tuned import load_adapted

RIGHT = Task("point_right", "point", ("point",), reward=lambda physics, action: physics[:, 0], episode_steps=25)
GOAL, RINGS = find_task("point_goal"), FRE_TASKS["maze-rings_mass"]


# --- what a task is there


def assert_pays_alike(tasks, moment):
    traced = jax.jit(lambda moment: [task.score(moment) for task in tasks])
    with jax.numpy_rank_promotion("allow"):
        found = traced(jax.tree.map(jnp.float32, moment))
    for task, reward in zip(tasks, found):
        np.testing.assert_allclose(reward, rewards(task, moment), atol=2e-5, err_msg=task.name)


@pytest.fixture(scope="module")
def moment():
    """500 states of a point mass, anywhere in the rings."""
    rng = np.random.default_rng(0)
    physics = np.float64(np.float32(np.c_[rng.uniform(-4, 4, (500, 2)), rng.uniform(-1, 1, (500, 2))]))
    return Moment(physics, np.zeros((500, 2)), physics, np.zeros((500, 0)), np.ones(500, np.int64))


def test_rewards_of_jax_are_those_of_numpy(moment):
    assert_pays_alike([find_task(name) for name in RINGS], moment)


def test_another_reward_of_jax_is_found(moment):
    def other(physics, action):
        return physics[:, 0] + 0.01 * isinstance(physics, jax.Array)

    with pytest.raises(AssertionError, match="Not equal"):
        assert_pays_alike([dataclasses.replace(RIGHT, reward=other)], moment)


def test_an_episode_pays_and_shows_what_the_task_says_of_its_physics():
    """Goals that move on after half the episode."""
    task = dataclasses.replace(GOAL, goals=2, half=1.0, radius=0.6)
    env = task_on_device(task)

    @jax.jit
    def play(key, actions):
        def step(state, action):
            after = env.step(state, action)
            return after, after

        start = env.reset(key)
        return start, jax.lax.scan(step, start, actions)[1]

    start, states = play(jax.random.key(3), jax.random.uniform(jax.random.key(4), (50, 2), minval=-1.0))
    start, states = jax.device_get((start, states))
    physics = np.r_[start.physics[None], states.physics].astype(np.float64)
    context, clock = np.tile(np.float64(start.sim.context), (50, 1)), np.arange(1, 51)
    expected = rewards(task, Moment(physics[:-1], np.zeros((50, 2)), physics[1:], context, clock))
    np.testing.assert_array_equal(states.reward, expected)
    assert 0 < expected.sum() < 50
    np.testing.assert_allclose(states.obs[:, 2:], task.inputs(physics[1:], context, clock), rtol=1e-6)
    np.testing.assert_array_equal(states.obs[:, :2], states.physics)
    goals = states.obs[:, 2:]
    assert (goals[:24] == start.obs[2:]).all() and (goals[24:] == goals[-1]).all() and (goals[0] != goals[-1]).any()
    spec, host = env.env_spec, make_task_env(task).env_spec
    assert spec == host


def test_goals_are_drawn_as_on_the_host():
    """By counting: 4,096 episodes of each."""
    task = dataclasses.replace(GOAL, goals=3)
    keys = jax.random.split(jax.random.key(0), 4_096)
    with jax.numpy_rank_promotion("allow"):
        device = jax.device_get(jax.vmap(lambda key: task.draw(Draws(key)))(keys))
    rng = np.random.default_rng(0)
    host = np.stack([task.draw(rng) for _ in range(4_096)])
    assert device.shape == host.shape
    for draws in (device, host):
        np.testing.assert_allclose(np.mean(draws, axis=0), 0, atol=0.15)
        first, second, third = np.split(draws, 3, axis=1)
        # U[-3, 3] has the variance 3; each later goal is such a draw away from the one before.
        np.testing.assert_allclose([first.var(), second.var(), third.var()], [3, 6, 9], rtol=0.05)
        np.testing.assert_allclose(np.corrcoef(second[:, 0], third[:, 0])[0, 1], (6 / 9) ** 0.5, atol=0.03)
        assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.06


def chosen(rng):
    return rng.choice([-1.0, 1.0], 1)


def in_place(physics, action):
    reward = 1 * physics[:, 0]
    reward[physics[:, 0] > 1] = 1
    return reward


@dataclasses.dataclass(frozen=True)
class Sided(Task):
    def draw(self, rng):
        return chosen(rng)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (dataclasses.replace(RIGHT, reward=lambda physics, action: np.asarray(physics)[:, 0]), "JAX cannot trace its"),
        (dataclasses.replace(RIGHT, reward=in_place), "JAX arrays are immutable"),
        (dataclasses.replace(RIGHT, reward=lambda physics, action: physics[physics[:, 0] > 1, 0]), "JAX cannot trace"),
        (dataclasses.replace(GOAL, input_names=("goal_x",)), r"inputs of shape \(1, 2\): expected \(1, 1\)"),
        (dataclasses.replace(GOAL, device="point"), "has inputs, and 'point' pays it itself"),
        (dataclasses.replace(RIGHT, reward=lambda physics, action: physics[0, 0]), r"rewards of shape \(\), float32"),
        (Sided("sided", "point", ("point",), reward=RIGHT.reward), "'Draws' object has no attribute 'choice'"),
        (find_task("half_cheetah_hurdle"), "no device version: Unknown environment 'mjx:half_cheetah_hurdle'"),
        (find_task("walker_velocity_4"), "no device version: Unknown environment 'mjx:walker_velocity_4'"),
    ],
)  # fmt: skip
def test_what_cannot_be_there_is_refused_in_one_sentence(task, words):
    with pytest.raises(UserError, match=words):
        task_on_device(task)


# --- options


class Steered(struct.PyTreeNode):
    """Its skill is the direction in which the point goes, by less and less within an option."""

    normalizer: Normalizer
    config: SimpleNamespace = struct.field(pytree_node=False)
    begin, act = hold_skill()
    plan, shared, abilities = nothing, (), frozenset[str]()

    def sample_actions(self, obs, z, key, temperature=1.0):
        return jnp.clip(z - 0.1 * obs, -1, 1)


def option_rewards(hold: int, on_device_hold: int):
    """(decisions,) of the host and of the device, and the observations (decisions, obs) that they led to: two episodes
    of 25 control steps by the same skills."""
    agent = Steered(Normalizer.identity(2), SimpleNamespace(z=SkillSpace("sphere", 2)))
    below = make_task_env(RIGHT)
    host, device = Options(below, agent, hold), options_on_device(task_on_device(RIGHT), agent, on_device_hold)
    step, state = jax.jit(device.step), jax.jit(device.reset)(jax.random.key(1))
    host.reset(seed=0)
    start = {**below.env.get_state(), "xy": np.asarray(state.obs)[None]}
    below.env.set_state(start)
    host.options._obs = np.asarray(state.obs)[None]
    found = []
    for action in np.random.default_rng(0).uniform(-1, 1, (host.env_spec.episode_steps, 2)).astype(np.float32):
        obs, reward, _, truncated, _ = host.step(action[None])
        state = step(state, action)
        found.append((reward[0], state.reward, obs[0], state.obs))
    assert truncated.all()
    return map(np.array, zip(*found))


def test_an_option_is_as_on_the_host_also_the_short_one_at_the_end():
    reward, on_device, obs, obs_on_device = option_rewards(10, 10)
    np.testing.assert_allclose(on_device, reward, atol=1e-4)
    np.testing.assert_allclose(obs_on_device, obs, atol=1e-5)


def test_an_option_of_another_length_is_found():
    reward, on_device, *_ = option_rewards(10, 9)
    assert not np.allclose(on_device, reward, atol=1e-2)


# --- adapting there

SMALL = AdaptConfig(
    steps=300, eval_every=100, eval_episodes=4, num_envs=2, samples=100, loop="device",
    high_level=HighLevelConfig(sac=SACConfig(width=16, lr=1e-3), updates=3, batch=8, random=4),
    off_policy=OffPolicyConfig(interval=10, batch=16, random=40, warmup=40, warmup_updates=3),
    search=SearchConfig(population=2, finetune_share=0.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = dataclasses.replace(TINY, eval_every=0, steps=80, checkpoint_minutes=60)
    return urlrl.pretrain(config, tmp_path_factory.mktemp("sphere") / "run", quiet=True)


@pytest.fixture(autouse=True)
def right(monkeypatch):
    monkeypatch.setitem(TASKS, RIGHT.name, lambda: RIGHT)


class Killed(BaseException):
    """As if the process were ended here."""


@pytest.mark.parametrize("method", ["finetune", pytest.param("hierarchical", marks=pytest.mark.slow)])
def test_what_was_killed_goes_on_bit_for_bit(method, run, tmp_path, monkeypatch):
    options = {"seeds": [0], "config": SMALL, "quiet": True}
    adapt(run, RIGHT.name, [method], out=tmp_path / "whole", **options)
    epochs, original = [], Seeds.epoch

    def count(self):
        epochs.append(1)
        if len(epochs) == 4:
            raise Killed
        return original(self)

    monkeypatch.setattr(Saver, "due", lambda self: True)
    monkeypatch.setattr(Seeds, "epoch", count)
    with pytest.raises(Killed):
        adapt(run, RIGHT.name, [method], out=tmp_path / "killed", **options)
    adapt(run, RIGHT.name, [method], out=tmp_path / "killed", **options)
    folders = [tmp_path / name / RIGHT.name for name in ("whole", "killed")]
    whole, again = (json.loads((folder / f"{method}-0.json").read_text()) | {"seconds": 0} for folder in folders)
    assert whole == again
    kept = [load_adapted(folder / f"{method}-0").policy for folder in folders]
    assert all(map(np.array_equal, *map(jax.tree.leaves, kept)))
    assert evaluate_adapted(folders[1] / f"{method}-0")["policy"]["episodes"] == 50


def test_what_learns_there_learns_the_task(run, tmp_path):
    off_policy = OffPolicyConfig(interval=2, batch=64, random=400)
    config = AdaptConfig(steps=2_400, eval_every=2_400, eval_episodes=4, loop="device", off_policy=off_policy)
    result = adapt(run, RIGHT.name, ["scratch"], seeds=[0], config=config, out=tmp_path, quiet=True)
    assert result["methods"]["scratch"]["final"]["value"] > 15  # The most is 32, and 0 is what knowing nothing gets.


def test_results_of_both_loops_are_not_mixed(run, tmp_path):
    """Results that do not name a loop are of the host's."""
    host = dataclasses.replace(SMALL, loop="host", steps=40, eval_every=40)
    adapt(run, RIGHT.name, ["scratch"], seeds=[0], config=host, out=tmp_path, quiet=True)
    path = tmp_path / RIGHT.name / "scratch-0.json"
    content = json.loads(path.read_text())
    del content["same"]["config"]["loop"]
    path.write_text(json.dumps(content))
    adapt(run, RIGHT.name, ["scratch"], seeds=[0], config=host, out=tmp_path, quiet=True)
    with pytest.raises(UserError, match="config.loop is 'host' there and 'device' here"):
        adapt(run, RIGHT.name, ["scratch"], seeds=[0], config=dataclasses.replace(host, loop="device"), out=tmp_path)


def test_the_command_line_says_what_has_no_device_version(run, tmp_path, monkeypatch, capsys):
    task = dataclasses.replace(RIGHT, reward=lambda physics, action: np.asarray(physics)[:, 0])
    monkeypatch.setitem(TASKS, RIGHT.name, lambda: task)
    with pytest.raises(SystemExit) as stop:
        main(
            ["adapt", str(run), "--task", RIGHT.name, "--method", "scratch", "--loop", "device", "--out", str(tmp_path)]
        )
    assert stop.value.code == 2
    assert "Task 'point_right' has no device version: JAX cannot trace its reward" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mujoco.mjx") is None, reason="mujoco-mjx is not installed")
@pytest.mark.parametrize(("name", "obs"), [("ant_multi_goal", 31), ("half_cheetah_goal", 19), ("cheetah_walk", 17)])
def test_tasks_of_bodies_are_there(name, obs):
    """Traced, and not compiled: goals in an environment of MJX, and a task that such an environment pays itself."""
    task = find_task(name)
    spec = task_on_device(task).env_spec
    assert (spec.id, spec.obs_dim) == (name, obs) and spec.episode_steps == make_task_env(task).env_spec.episode_steps
