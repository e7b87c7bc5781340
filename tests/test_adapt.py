"""The ladder: what each method counts, starts from and learns; what is kept of it; what is refused."""

import dataclasses
import json
import shutil
from contextlib import ExitStack, closing, nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from kill_tools import killed_at
from matplotlib.axes import Axes
from matplotlib.image import imread
from pages import ROOT, blocks_of, shortened
from run_tools import TINY, Notes, copy_of

import urlrl
from urlrl.adaptation import methods, plot
from urlrl.adaptation.config import METHODS, AdaptConfig, HighLevelConfig, OffPolicyConfig, SearchConfig
from urlrl.adaptation.ladder import Cell, check_same, summarise
from urlrl.adaptation.methods import RUN, TRAIN, Setting, Training, _reward_scale, episode_returns, prepare
from urlrl.adaptation.search import Found
from urlrl.adaptation.suite import URLB
from urlrl.adaptation.tuned import Controlled, Tuned, TunedConfig
from urlrl.agents.fre import FRE, FREConfig
from urlrl.agents.hilp import HILP, HILPConfig
from urlrl.agents.metra import Metra, MetraConfig
from urlrl.cli import main
from urlrl.config import to_json
from urlrl.data.rows import example_transition
from urlrl.envs.point import PointEnv
from urlrl.errors import TrainingDiverged, UnsupportedPrompt, UserError
from urlrl.evaluation.rollout import acting
from urlrl.learners.ppo import PPO, PPOConfig
from urlrl.learners.sac import SAC, SACConfig
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
from urlrl.runs.load import load_checkpoint
from urlrl.skills.env import SkillEnv
from urlrl.skills.formats import FORMATS
from urlrl.skills.policy import SkillController, SkillError, SkillPolicy
from urlrl.streams import env_seed, stream
from urlrl.tasks.catalogue import TASKS, find_task
from urlrl.tasks.task import GoalTask, Task, make_task_env
from urlrl.training.host import Host
from urlrl.training.learn import learn
from urlrl.training.saver import Saver
from urlrl.training.stop import Stop
from urlrl.types import BatchSpec, GoalPrompt, RewardPrompt
from urlrl.verbs import adapt as verb
from urlrl.verbs.adapt import adapt, make_setting
from urlrl.verbs.evaluate_suite import SUITES
from urlrl.verbs.tuned import adapted_returns, load_adapted, play_kept
from urlrl.verbs.tuning import train

FULL = find_task("point_goal")  # 50 control steps per episode
POINT = dataclasses.replace(FULL, episode_steps=20)
NEAR = dataclasses.replace(POINT, name="point_near", radius=2.0)  # even an agent that knows nothing gets some of it
RIGHT = Task("point_right", "point", ("point",), reward=lambda physics, action: physics[:, 0], episode_steps=20)
SMALL = AdaptConfig(
    steps=300,
    eval_every=100,
    eval_episodes=4,
    num_envs=2,
    samples=100,
    high_level=HighLevelConfig(
        sac=SACConfig(width=16, lr=1e-3),
        ppo=PPOConfig(width=16, lr=1e-3, rounds=3, batch=8),
        episodes=4,
        updates=3,
        batch=8,
        random=4,
    ),
    off_policy=OffPolicyConfig(interval=10, batch=16, random=40, warmup=40, warmup_updates=3),
    search=SearchConfig(population=2, finetune_share=0.5),
)
PLAIN = dataclasses.replace(TINY, eval_every=0, steps=80, checkpoint_minutes=60)
ONEHOT = dataclasses.replace(PLAIN, agent=dataclasses.replace(PLAIN.agent, z=SkillSpace("onehot", 4)))


@pytest.fixture(scope="module", autouse=True)
def near():
    """Make it a task that the verb finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, NEAR.name, lambda: NEAR)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An agent with skills on the circle."""
    return urlrl.pretrain(PLAIN, tmp_path_factory.mktemp("sphere") / "run", quiet=True)


@pytest.fixture(scope="module")
def onehot_run(tmp_path_factory):
    return urlrl.pretrain(ONEHOT, tmp_path_factory.mktemp("onehot") / "run", quiet=True)


@pytest.fixture
def start():
    """(run, task, ...) -> what a method starts from."""
    with ExitStack() as opened:

        def make(run: Path, task: Task = POINT, config: AdaptConfig = SMALL, seed: int = 0) -> Setting:
            return make_setting(run, load_once(run), task, config, seed, lambda steps, mean: None, opened)

        yield make


load_once = cache(load_checkpoint)


@pytest.fixture
def lane_steps(monkeypatch):
    """Number of lanes -> control steps that environments of so many lanes have made: 2 learn, 4 are for evaluation."""
    counts = dict.fromkeys((SMALL.num_envs, SMALL.eval_episodes), 0)
    original = PointEnv.step

    def step(self, actions):
        counts[self.num_envs] += self.num_envs
        return original(self, actions)

    monkeypatch.setattr(PointEnv, "step", step)
    return counts


def play(setting: Setting, method: str, folder: Path) -> None:
    """By a method, whether it learns in a loop, into this folder, or not."""
    if method in RUN:
        RUN[method](setting)
    else:
        place = folder / f"{method}-{setting.seed}"
        place.mkdir(parents=True)
        train(place, method, setting, Stop(Notes()), Notes())


def training(setting: Setting, method: str) -> Training:
    """What the loop is asked to do."""
    start = (prepare(setting),) if method == "finetune" else ()
    return TRAIN[method](setting, *start)


def steps_of(setting: Setting) -> list[int]:
    return [steps for steps, _ in setting.curve]


class Guide(struct.PyTreeNode):
    """An agent without networks: a skill is the direction in which the point goes."""

    normalizer: Normalizer
    config: SimpleNamespace = struct.field(pytree_node=False)
    begin, act = hold_skill()
    plan, shared, prompts, abilities = nothing, (), (GoalPrompt,), frozenset({"told"})

    def sample_actions(self, obs, z, key, temperature=1.0):
        return jnp.clip(z, -1, 1)

    def read(self, prompt, seen, key):
        match prompt:
            case GoalPrompt(goal):
                return goal
        raise UnsupportedPrompt(f"A Guide cannot follow a {type(prompt).__name__}: expected a GoalPrompt.")

    def aim(self, task, obs):
        return jnp.clip(10 * (task - obs), -1, 1)


def guided(task: Task, config: AdaptConfig = SMALL, kind: str = "sphere", seed: int = 0) -> Setting:
    guide = Guide(Normalizer.identity(2), SimpleNamespace(z=SkillSpace(kind, 2)))
    width = 2 + len(task.input_names)
    return Setting(
        guide,
        task,
        lambda n: make_task_env(task, n),
        config,
        seed,
        None,
        Normalizer.identity(width),
        lambda steps, mean: None,
    )


# --- where curves begin, and what counts


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("zero_shot", [0]),
        ("z_search", [0, 40, 80]),  # Two skills, then the better one, each of two lanes for 20 steps.
        ("hierarchical", [0, 100, 200, 300]),
        ("finetune", [0, 40, 80, 180, 280, 330]),  # 80 of them are the search; a phase of learning takes 50.
        ("scratch", [0, 100, 200, 300]),
    ],
)
def test_curves_begin_at_0_and_count_every_control_step(run, start, lane_steps, tmp_path, method, expected):
    setting = start(run)
    play(setting, method, tmp_path)
    assert steps_of(setting) == expected
    assert lane_steps[SMALL.num_envs] == expected[-1]
    evaluations = len(expected) + (method == "finetune")  # What the search found is measured once more by the loop.
    assert lane_steps[SMALL.eval_episodes] == 4 * 20 * evaluations  # whole episodes, and not on the axis


@pytest.mark.parametrize("kind", ["sphere", "onehot"])
def test_the_controller_counts_its_options_in_full(run, onehot_run, start, lane_steps, tmp_path, kind):
    """Options of 15 and 5 steps count 15 each; so an episode of 20 counts 30. PPO learns after 4 episodes."""
    setting = start(run if kind == "sphere" else onehot_run, dataclasses.replace(POINT, option_steps=15))
    play(setting, "hierarchical", tmp_path)
    assert steps_of(setting) == ([0, 90, 180, 270, 300] if kind == "sphere" else [0, 120, 240, 360])
    assert lane_steps[SMALL.num_envs] == steps_of(setting)[-1] * 20 / 30


def test_the_controller_is_ppo_over_indices_and_sac_over_the_sphere(run, onehot_run, start):
    for folder, kind in ((run, SAC), (onehot_run, PPO)):
        asked = training(start(folder), "hierarchical")
        assert type(asked.agent.learner) is kind and asked.env.env_spec.action == ("onehot" if kind is PPO else "box")


def test_evaluation_starts_are_the_same_for_every_method_and_measurement(run, start, monkeypatch, tmp_path):
    seen = []
    original = methods.episode_returns

    def spy(env, act, seed):
        obs, _ = env.reset(seed=seed)
        seen.append((env.num_envs, obs.tolist()))
        return original(env, act, seed)

    monkeypatch.setattr(methods, "episode_returns", spy)
    for method in METHODS:
        play(start(run), method, tmp_path)
    starts = [obs for lanes, obs in seen if lanes == SMALL.eval_episodes]
    assert len(starts) == 19 and all(obs == starts[0] for obs in starts)
    assert len({str(obs) for lanes, obs in seen if lanes == SMALL.num_envs}) == 2  # Rounds of a search differ.
    RUN["zero_shot"](start(run, seed=1))
    assert seen[-1][1] != starts[0]


def test_an_episode_counts_until_its_own_end():
    """Lanes that have ended wait for the others, and what they earn meanwhile is not theirs."""

    class Lanes:
        num_envs = 3

        def reset(self, seed=None, options=None):
            self.time = np.where(options["reset_mask"], 0, self.time) if options else np.zeros(3, int)
            return self.time[:, None], {}

        def step(self, action):
            self.time = self.time + 1
            ends = self.time == [2, 5, 3]
            return self.time[:, None], np.ones(3), ends & [True, False, False], ends & [False, True, True], {}

    np.testing.assert_array_equal(episode_returns(Lanes(), verb._as_policy(lambda obs: obs), 0), [2, 5, 3])


# --- prompts


def test_zero_shot_is_told_each_goal_and_told_again_when_it_moves():
    """A guide that goes straight to what it was told collects nearly all: it cannot be at a far goal at once."""
    setting = guided(FULL)
    RUN["zero_shot"](setting)
    (_, mean) = setting.curve[0]
    env = make_task_env(FULL, 4)
    obs, _ = env.reset(seed=setting.env_seed("evaluation"))
    far = np.abs(obs[:, 2:] - obs[:, :2]).max(axis=1)  # the larger coordinate takes the longest, 0.1 m per step
    assert 49 - 10 * far.mean() <= mean <= 49
    moving = dataclasses.replace(FULL, goals=2, half=0.8, radius=0.3)
    setting = guided(moving)
    RUN["zero_shot"](setting)
    assert setting.curve[0][1] > 30  # Who stays at the first goal gets at most 25.


def test_a_reward_is_prompted_by_the_past_labelled_with_it(run, start):
    setting = start(run, RIGHT)
    np.testing.assert_array_equal(setting.data.reward, setting.data.next_obs[:, 0])
    RUN["zero_shot"](setting)
    task = setting.agent.read(RewardPrompt(setting.data), setting.data, None)
    np.testing.assert_array_equal(setting.notes["z"], setting.agent.aim(task, setting.data.obs[0]))


@dataclasses.dataclass(frozen=True)
class Sided(Task):
    """Pays for going to a side that each episode draws, and shows it."""

    def draw(self, rng):
        return rng.choice([-1.0, 1.0], 1)

    def inputs(self, physics, context, clock):
        return context

    def score(self, moment):
        return moment.physics[:, 0] * moment.context[:, 0]


SIDED = Sided("point_sided", "point", ("point",), episode_steps=20, input_names=("side",))


def test_what_a_prompt_cannot_say_is_refused_and_not_made_up(run, start):
    with pytest.raises(UnsupportedPrompt, match="'point_sided' draws in each episode what it pays for"):
        RUN["zero_shot"](start(run, SIDED))
    with pytest.raises(UnsupportedPrompt, match="There are no transitions of the run to label"):
        RUN["zero_shot"](guided(RIGHT))


def test_agents_without_a_learner_are_not_finetuned(run, start, monkeypatch):
    monkeypatch.setattr(Metra, "abilities", Metra.abilities - {"adaptable"})
    for method in ("finetune", "scratch"):
        with pytest.raises(UnsupportedPrompt, match="Agent Metra cannot be fine-tuned on a reward"):
            training(start(run), method)


# --- search


def test_search_finds_the_direction_that_pays_and_its_mean_return():
    config = dataclasses.replace(SMALL, steps=10_000, search=SearchConfig(population=16))
    setting = guided(RIGHT, config)
    found, spent = methods._search(setting, config.steps, setting.make_env(4))
    assert found.z[0] > 0.95 and spent == 20 * (16 + 8 + 4 + 2 + 2)  # the last skill alone takes both lanes
    returns = [mean for _, mean in setting.curve]
    assert returns[-1] == max(returns) == pytest.approx(found.score, abs=4)
    assert setting.notes == {"z": found.z.tolist(), "search_steps": spent}


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [
        (0, []),
        (39, []),
        (40, [40]),  # Of 8 skills the two that can be afforded.
        (100, [80]),
        (180, [160]),  # All 8; the next round of 4 would be 80 more.
        (260, [160, 240]),
        (360, [160, 240, 280, 320]),
    ],
)
def test_search_stays_within_its_budget(budget, rounds):
    setting = guided(RIGHT, dataclasses.replace(SMALL, search=SearchConfig(population=8)))
    _, spent = methods._search(setting, budget, setting.make_env(4))
    assert steps_of(setting) == [0, *rounds] and spent == (rounds or [0])[-1] <= budget


def test_cem_stays_within_its_budget():
    setting = guided(RIGHT, dataclasses.replace(SMALL, search=SearchConfig(kind="cem", population=4, elites=2)))
    methods._search(setting, 280, setting.make_env(4))
    assert steps_of(setting) == [0, 80, 160, 240]


def test_spare_lanes_share_their_skills_returns():
    """Three skills in two lanes: the third is tried twice in its batch, and its score is the mean of both."""
    setting, tried = guided(RIGHT, dataclasses.replace(SMALL, search=SearchConfig(population=3))), []

    def spy(config, space, key, attempt):
        skills = np.float32([[1, 0], [0, 1], [-1, 0]])
        tried.append(attempt(skills))
        return iter(())

    original, methods.search = methods.search, spy
    try:
        methods._search(setting, 1000, setting.make_env(4))
    finally:
        methods.search = original
    right, up, left = tried[0]
    path = 0.1 * np.arange(1, 21).sum()  # the sum of x over an episode to the right, but for its start within 0.1 m
    assert (
        right == pytest.approx(path, abs=2.5)
        and up == pytest.approx(0, abs=2.5)
        and left == pytest.approx(-path, abs=2.5)
    )


# --- what the loop is asked to do


def test_the_controllers_loop_counts_decisions(run, onehot_run, start):
    """Sheet 4.3: the last option of an episode is stored as terminal. 2 lanes make a decision each, then 6 updates."""
    asked = training(start(run), "hierarchical")
    config = asked.config
    assert (config.rollout_steps, config.updates, config.min_replay, config.steps) == (1, 6, 4, 30)
    assert config.agent == TunedConfig(BatchSpec(8, timeout_as_terminal=True), uniform=True)
    assert asked.hold == POINT.option_steps and asked.env.env_spec.action_dim == 2 and asked.agent.reward_scale == 1
    assert asked.agent.learner.config == SMALL.high_level.sac
    asked = training(start(onehot_run), "hierarchical")
    assert (asked.config.rollout_steps, asked.config.updates) == (2 * 2, 1)  # 4 episodes of 2 decisions by 2 lanes
    assert asked.config.agent.batch == BatchSpec(8, timeout_as_terminal=True, source="rollout")


def first_actions(run, start, uniform: bool) -> tuple[np.ndarray, np.ndarray]:
    """(n, act) of the first step of the loop, and those of the pretrained policy there."""
    setting = start(run)
    asked = training(setting, "finetune")
    agent = asked.agent.replace(config=dataclasses.replace(asked.agent.config, uniform=uniform))
    host = Host(dataclasses.replace(asked.config, agent=agent.config), agent, asked.env)
    host.epoch()
    obs, taken = (host.replay.data[name][:2] for name in ("obs", "action"))
    key = jax.random.split(jax.random.fold_in(stream(0, "epochs"), 0), 5)[0]
    z = np.tile(np.float32(setting.notes["z"]), (2, 1))
    own = setting.agent.sample_actions(obs[:, :2], z, jax.random.fold_in(key, 0), 1.0)
    return taken, own


def test_finetuning_acts_from_its_first_step_as_the_pretrained_policy(run, start):
    """F2 of URLB's sheet: the same noise, so the same sampled actions."""
    np.testing.assert_allclose(*first_actions(run, start, uniform=False), atol=1e-6)


def test_random_seed_frames_are_caught(run, start):
    """URLB's own code forgets the policy for 4000 steps (its pitfall P3)."""
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(*first_actions(run, start, uniform=True), atol=1e-6)


def test_finetuning_begins_with_the_agents_actor_and_critics_whatever_the_features_say(run, start):
    setting = start(run)
    asked = training(setting, "finetune")
    tuned, learner, z = asked.agent, asked.agent.learner, np.float32(setting.notes["z"])
    obs = np.float32(np.random.default_rng(0).normal(0, 3, (20, 4)))
    obs[10:, :2] = obs[:10, :2]  # the same places, other goals
    expected = setting.agent.sample_actions(obs[:, :2], np.tile(z, (20, 1)), jax.random.key(0), 0.0)
    np.testing.assert_allclose(tuned.sample_actions(obs, None, jax.random.key(0), 0.0), expected, atol=1e-6)
    action = np.float32(np.random.default_rng(1).uniform(-1, 1, (20, 2)))
    x = jnp.concatenate([setting.agent.normalizer(obs[:, :2]), np.tile(z, (20, 1))], axis=1)
    q = learner.critic(tuned.normalizer(obs), action)
    np.testing.assert_allclose(q, setting.agent.sac.critic(x, action), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(q, learner.critic(tuned.normalizer(obs), action, params=learner.target))
    assert asked.spent == 80 and asked.config.min_replay == 40  # The search, and a warm-up behind it.
    assert asked.config.agent == TunedConfig(BatchSpec(16), warmup_updates=3)


def test_fresh_critics_are_others_and_the_actor_is_not(run, start):
    fresh = dataclasses.replace(SMALL, off_policy=dataclasses.replace(SMALL.off_policy, critic="fresh"))
    own, other = (training(start(run, config=config), "finetune").agent.learner for config in (SMALL, fresh))
    jax.tree.map(np.testing.assert_array_equal, own.actor, other.actor)
    x, action = np.ones((3, 4), np.float32), np.zeros((3, 2), np.float32)
    assert (own.critic(x, action) != other.critic(x, action)).all()
    jax.tree.map(np.testing.assert_array_equal, other.critic.params, other.target)


def same(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b)))


def tuned(updates: int, **config) -> tuple[Tuned, Tuned]:
    """An agent of a task, and the same after so many updates."""
    learner = SAC.create(PLAIN.agent.sac, jnp.zeros((1, 4)), jnp.zeros((1, 2)), jax.random.key(0), PLAIN.agent)
    agent = Tuned.create(TunedConfig(BatchSpec(16), **config), learner, Normalizer.identity(4))
    rng = np.random.default_rng(0)
    batch = example_transition(make_task_env(POINT, 1).env_spec, 0, updates * 16)
    batch = jax.tree.map(lambda x: np.float32(rng.uniform(-1, 1, x.shape)).reshape(updates, 16, *x.shape[1:]), batch)
    after, _, finite = learn(jax.tree.map(jnp.copy, agent), batch, jax.random.key(1))
    assert finite
    return agent, after


def test_critics_warm_up_alone_once_and_then_all_learn():
    before, after = tuned(3, warmup_updates=3)
    learner, new = before.learner, after.learner
    assert same((new.actor, new.alpha), (learner.actor, learner.alpha))  # bit by bit, the optimisers' state too
    assert not same(new.critic, learner.critic) and not same(new.target, learner.target)
    assert new.critic.opt_state[0].count == 3 and after.updates == 3
    _, after = tuned(5, warmup_updates=3)
    assert [int(part.opt_state[0].count) for part in (after.learner.critic, after.learner.actor)] == [5, 2]
    assert not same(after.learner.alpha, learner.alpha)


def test_it_acts_at_random_only_until_its_first_update_and_never_where_modes_are_asked_for():
    obs = np.zeros((500, 4), np.float32)

    def draw(agent, temperature=1.0) -> np.ndarray:
        return np.asarray(agent.sample_actions(obs, None, jax.random.key(3), temperature))

    before, after = tuned(1, uniform=True)
    assert np.abs(draw(before)).max() <= 1 and draw(before).std() == pytest.approx(1 / np.sqrt(3), rel=0.05)
    _, policy_key = jax.random.split(jax.random.key(3))
    np.testing.assert_array_equal(draw(after), after.learner.actor(obs).sample(policy_key))
    plain = before.replace(config=dataclasses.replace(before.config, uniform=False))
    np.testing.assert_array_equal(draw(plain), before.learner.actor(obs).sample(jax.random.key(3)))
    np.testing.assert_allclose(draw(before, 0.0), before.learner.actor(obs).mode(), atol=1e-6)


def test_rewards_are_learned_from_in_the_learners_units(run, start):
    """Twice the reward is as half of it with a scale of four."""
    agent, _ = tuned(1)
    batch = example_transition(make_task_env(POINT, 1).env_spec, 0, 16)
    reward = np.linspace(-1, 1, 16, dtype=np.float32)
    one, other = (
        agent.replace(reward_scale=jnp.float32(scale)).update(batch._replace(reward=part), jax.random.key(0))[0]
        for scale, part in ((1.0, 2 * reward), (4.0, reward / 2))
    )
    jax.tree.map(np.testing.assert_array_equal, one.learner, other.learner)
    setting = start(run, RIGHT)
    assert training(setting, "finetune").agent.reward_scale == np.float32(setting.notes["reward_scale"]) != 1.0
    asked = training(start(run, RIGHT), "scratch")
    assert asked.agent.reward_scale == 1.0 and asked.config.agent.uniform and asked.spent == 0


def test_a_learner_that_is_not_finite_stops_the_loop(run, start, tmp_path, monkeypatch):
    monkeypatch.setattr("urlrl.tasks.task.rewards", lambda task, moment: np.full(len(moment.clock), np.inf))
    monkeypatch.setattr(methods.Setting, "returns", lambda *arguments: np.zeros(4))
    with pytest.raises(TrainingDiverged, match="Training diverged at step 50: metric '.*' is nan"):
        play(start(run), "scratch", tmp_path)


def test_a_reward_that_is_not_finite_is_no_result():
    wrong = {
        r"gave a non-finite reward in environment 'point' \(row 0, step 1 of its episode\)": lambda x, _: (
            x[:, 0] * np.nan
        ),
        r"gave rewards of shape \(\d+, 1\), float64: expected numbers of shape": lambda x, _: x[:, :1],
        r"gave rewards of shape .*, <U1: expected numbers": lambda x, _: np.array(["x"] * len(x)),
    }
    for message, reward in wrong.items():
        with pytest.raises(UserError, match=message):
            RUN["z_search"](guided(dataclasses.replace(RIGHT, reward=reward)))


def test_a_reward_that_never_varied_tells_no_skill(run, start):
    setting = start(run)
    setting.data = setting.data._replace(reward=np.full_like(setting.data.reward, 2))
    setting.make_env = lambda n: make_task_env(RIGHT, n)
    with pytest.raises(UnsupportedPrompt, match="The reward is 2 in all of"):
        RUN["zero_shot"](setting)


def test_adapting_leaves_the_agent_as_it_is(run, start, tmp_path):
    agent = load_checkpoint(run).agent
    before, curves = jax.tree.map(np.array, agent), []
    for _ in range(2):
        setting = start(run)
        setting.agent = agent
        for method in ("finetune", "hierarchical", "scratch"):
            play(setting, method, tmp_path / str(len(curves)))
        curves.append(setting.curve)
    assert same(agent, before) and curves[0] == curves[1]


def test_the_reward_scale_brings_rewards_to_the_intrinsic_size(run, start):
    setting = start(run)
    env, z = setting.make_env(1), jnp.float32([1.0, 0.0])
    intrinsic = np.abs(setting.agent.intrinsic_reward(setting.data)).mean()
    for score in (4.0, -4.0):  # per episode of 20 steps
        assert _reward_scale(setting, Found(z, score), env) == pytest.approx(intrinsic / (4 / 20), rel=1e-5)
    assert _reward_scale(setting, Found(z, 1e-9), env) == 100.0
    assert _reward_scale(setting, Found(z, 1e9), env) == pytest.approx(0.01)
    assert _reward_scale(setting, Found(z, 0.0), env) == 1.0  # A skill that earns nothing tells nothing.
    setting.data = None
    assert _reward_scale(setting, Found(z, 4.0), env) == 1.0


# --- what learners see


def test_goals_and_observations_are_normalised_by_how_the_past_has_spread_them(run, start):
    setting = start(run)
    mean, std = np.asarray(setting.encode.mean), np.asarray(setting.encode.std)
    assert mean.shape == std.shape == (4,)
    np.testing.assert_allclose(mean[:2], setting.data.obs.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(std[:2], setting.data.obs.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std[2:], 3 / np.sqrt(3), rtol=0.2)  # goals are uniform in [-3, 3]
    assert (np.abs(mean[2:]) < 0.6).all()


@dataclasses.dataclass(frozen=True)
class Watched(Task):
    def inputs(self, physics, context, clock):
        return physics[:, :1]


def test_features_are_spread_over_all_of_the_past_and_not_its_beginning(run):
    """The rows of a past are in order of time, and far places come late."""
    count = 5 * verb.INPUT_DRAWS
    x = np.linspace(0, 10, count)
    rows = {"obs": np.zeros((count, 2)), "physics": np.stack([x, x], axis=1)}
    task = Watched("watched", "point", ("point",), reward=RIGHT.reward, episode_steps=50, input_names=("x",))
    spread = verb._spread(load_checkpoint(run), rows, task)
    assert spread.mean[2] == pytest.approx(5, abs=0.01) and spread.std[2] == pytest.approx(10 / np.sqrt(12), rel=0.01)
    np.testing.assert_allclose(spread.std[:2], 1e-3)  # What never varied is not blown up without bound.


def test_without_a_past_observations_are_as_the_agent_knows_them_and_features_as_they_are(run):
    loaded = load_checkpoint(run)
    agent = loaded.agent.replace(normalizer=Normalizer(jnp.float32([1, 2]), jnp.float32([3, 4])))
    spread = verb._spread(loaded._replace(agent=agent), None, POINT)
    np.testing.assert_array_equal(spread.mean, [1, 2, 0, 0])
    np.testing.assert_array_equal(spread.std, [3, 4, 1, 1])


def test_motor_learners_see_the_agents_own_normalisation_and_the_runs_of_features(run, start):
    setting = start(run)
    setting.agent = setting.agent.replace(normalizer=Normalizer(jnp.float32([1, 2]), jnp.float32([3, 4])))
    for method in ("finetune", "scratch"):
        agent = training(setting, method).agent
        encode = agent.normalizer
        np.testing.assert_array_equal(encode.mean, [1, 2, *setting.encode.mean[2:]])
        np.testing.assert_array_equal(encode.std, [3, 4, *setting.encode.std[2:]])
        kernel = agent.learner.actor.params["Dense_0"]["kernel"]
        assert kernel.shape == (4, 16) and (np.asarray(kernel[2:]) == 0).all() == (method == "finetune")


# --- results


@pytest.fixture(scope="module")
def ladder(run):
    """(result, folder) of every method with two seeds."""
    return adapt(run, "point_near", seeds=(0, 1), config=SMALL, quiet=True), run / "adapt" / "point_near"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def strict(path: Path) -> dict:
    """JSON as others read it, without NaN."""

    def refuse(name):
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def forbid(monkeypatch, allowed=()) -> list:
    """Nothing but `allowed` may run; what did is in the list."""
    ran = []
    original = verb.run_cell

    def spy(folder, run, loaded, task, config, method, seed, *rest):
        ran.append((method, seed))
        assert (method, seed) in allowed
        return original(folder, run, loaded, task, config, method, seed, *rest)

    monkeypatch.setattr(verb, "run_cell", spy)
    return ran


def test_the_ladder_says_what_each_method_brought(ladder):
    result, folder = ladder
    assert strict(folder / "ladder.json") == json.loads(json.dumps(result))
    assert (result["task"], result["env"], result["pretrain_steps"]) == ("point_near", "point", 80)
    assert result["steps"] == 300 and result["ceiling"] == (19.0, "the largest possible return") and not result["notes"]
    assert list(result["methods"]) == list(METHODS)
    assert set(result["floors"]) == {"random", "zero action"} and result["versions"]["jax"]
    for method, entry in result["methods"].items():
        cells = [strict(folder / f"{method}-{seed}.json") for seed in (0, 1)]
        assert entry["seeds"] == [0, 1]
        assert entry["final_per_seed"] == [cell["curve"][-1][1] for cell in cells]
        assert entry["final"]["value"] == pytest.approx(np.mean(entry["final_per_seed"]))
        assert entry["curves"] == [cell["curve"] for cell in cells]
        assert (entry["over_scratch"] is None) == (method == "scratch")
        best = max(floor["mean"] for floor in result["floors"].values())
        assert entry["share"] == pytest.approx((entry["final"]["value"] - best) / (19 - best))
    areas = [result["methods"][method]["area_per_seed"] for method in ("finetune", "scratch")]
    assert result["methods"]["finetune"]["over_scratch"]["value"] == pytest.approx(np.mean(np.subtract(*areas)))
    (agent,) = folder.glob("agent-*")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{method}-{seed}.json" for method in METHODS for seed in (0, 1)]
        + [f"{method}-{seed}" for method in KEPT for seed in (0, 1)]
        + [agent.name, "ladder.json", "ladder.png"]
    )


def test_the_picture_is_not_empty(ladder):
    image = imread(ladder[1] / "ladder.png")
    assert image.shape[0] > 400 and image.shape[1] > 800
    assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) > 50


def test_other_seeds_give_other_results(ladder):
    for method, entry in ladder[0]["methods"].items():
        cells = [strict(ladder[1] / f"{method}-{seed}.json") for seed in (0, 1)]
        assert cells[0]["curve"] != cells[1]["curve"], method
        assert len(set(entry["final_per_seed"])) == 2, method


def test_a_second_call_does_nothing_but_compare(ladder, run, monkeypatch):
    before = contents(ladder[1])
    ran = forbid(monkeypatch)
    assert adapt(run, "point_near", seeds=(0, 1), config=SMALL, quiet=True) == ladder[0]
    assert not ran and contents(ladder[1]) == before


def test_what_is_missing_is_done_again_alone_and_alike(ladder, run, monkeypatch):
    missing = {("finetune", 1), ("hierarchical", 0)}
    before = {cell: strict(ladder[1] / f"{cell[0]}-{cell[1]}.json") for cell in missing}
    for method, seed in missing:
        (ladder[1] / f"{method}-{seed}.json").unlink()
    ran = forbid(monkeypatch, missing)
    assert adapt(run, "point_near", seeds=(0, 1), config=SMALL, quiet=True) == ladder[0]
    assert sorted(ran) == sorted(missing)
    for method, seed in missing:
        after = strict(ladder[1] / f"{method}-{seed}.json")
        assert after | {"seconds": 0} == before[method, seed] | {"seconds": 0}


def prompted(run: Path, tmp_path: Path, **options) -> dict:
    """A prompt with two seeds, without the picture: quickly done, and its folder is this test's own."""
    given = {"methods": ["zero_shot"], "seeds": [0, 1], "config": SMALL, "out": tmp_path / "out", "quiet": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plot, "draw", lambda *arguments: None)
        patch.setattr(verb, "FLOOR_EPISODES", 2)
        return adapt(run, "point_near", **(given | options))


def test_seeds_and_methods_of_later_calls_are_added(run, tmp_path, monkeypatch):
    prompted(run, tmp_path, seeds=[3])
    ran = forbid(monkeypatch, [("zero_shot", 0), ("zero_shot", 1), ("z_search", 3)])
    prompted(run, tmp_path, seeds=[0, 0, 1, 3])
    result = prompted(run, tmp_path, seeds=iter([3]), methods=iter(["z_search", "z_search"]))
    assert ran == [("zero_shot", 0), ("zero_shot", 1), ("z_search", 3)]
    assert {name: entry["seeds"] for name, entry in result["methods"].items()} == {
        "zero_shot": [0, 1, 3],
        "z_search": [3],
    }
    assert result["methods"]["z_search"]["over_scratch"] is None
    alone = strict(tmp_path / "out" / "point_near" / "ladder.json")["methods"]["z_search"]["final"]
    assert alone["low"] is None and alone["value"] == result["methods"]["z_search"]["final_per_seed"][0]


def assert_refused(run: Path, tmp_path: Path, message: str, **options) -> None:
    before = contents(tmp_path)
    with pytest.raises(UserError) as refusal:
        prompted(run, tmp_path, **options)
    sentence = str(refusal.value)
    assert message in sentence and sentence.endswith(".") and ". " not in sentence and "\n" not in sentence
    assert contents(tmp_path) == before


def test_results_of_other_settings_are_not_mixed_also_by_other_seeds_or_methods(run, tmp_path):
    prompted(run, tmp_path)
    longer = dataclasses.replace(SMALL, steps=400)
    for options in ({}, {"seeds": [7]}, {"methods": ["scratch"]}):
        message = "zero_shot-0.json holds another result: config.steps is 300 there and 400 here; choose another --out"
        assert_refused(run, tmp_path, message, config=longer, **options)


def test_results_that_name_settings_as_0_1_0_did_are_added_to(run, tmp_path):
    prompted(run, tmp_path)
    path = tmp_path / "out" / "point_near" / "zero_shot-0.json"
    content = json.loads(path.read_text())
    pretrain = content["same"]["pretrain"]
    pretrain["agent"] |= {name: x for name, x in pretrain["agent"].pop("sac").items() if name not in ("width", "lr")}
    pretrain["replay_shards"] = pretrain.pop("replay_parts")
    path.write_text(json.dumps(content))
    found = prompted(run, tmp_path, seeds=[0, 2])
    assert found["methods"]["zero_shot"]["seeds"] == [0, 1, 2]
    pretrain["agent"]["tau"] = 0.5
    path.write_text(json.dumps(content))
    assert_refused(run, tmp_path, "pretrain.agent.sac.tau is 0.5 there and 0.005 here")


def test_another_agent_is_not_taken_for_the_one_that_was_adapted(run, onehot_run, tmp_path):
    prompted(run, tmp_path)
    assert_refused(onehot_run, tmp_path, "pretrain.agent.z.kind is 'sphere' there and 'onehot' here")
    twin = urlrl.pretrain(dataclasses.replace(PLAIN, seed=1), tmp_path / "twin", quiet=True)
    assert_refused(twin, tmp_path, "pretrain.seed is 0 there and 1 here")
    longer = urlrl.pretrain(dataclasses.replace(PLAIN, steps=120), copy_of(run, tmp_path), quiet=True)
    assert_refused(longer, tmp_path, "pretrain_steps is 80 there and 120 here")
    assert prompted(longer, tmp_path, step=80)["methods"]["zero_shot"]["seeds"] == [0, 1]  # The same agent, elsewhere.


def test_settings_of_other_methods_may_differ(run, tmp_path):
    """A prompt does not depend on the controller's learning rate; the controller does."""
    short = dataclasses.replace(SMALL, steps=100, eval_every=100)
    other = dataclasses.replace(short, high_level=dataclasses.replace(short.high_level, updates=1))
    prompted(run, tmp_path, config=short, seeds=[0])
    prompted(run, tmp_path, config=other, seeds=[0], methods=["zero_shot", "hierarchical"])
    assert_refused(run, tmp_path, "hierarchical-0.json holds another result: config.high_level.updates", config=short)


@pytest.mark.parametrize("method", METHODS)
def test_where_a_method_learns_matters_where_it_learns(method, tmp_path):
    here, there = ({"config": to_json(dataclasses.replace(SMALL, loop=loop))} for loop in ("host", "device"))
    refused = pytest.raises(UserError, match="config.loop is 'device' there and 'host' here")
    with refused if METHODS[method].learns else nullcontext():
        check_same(tmp_path, method, there, here, MetraConfig)


GOOD = {"method": "zero_shot", "seed": 1, "same": {}, "curve": [[0, 1.0]], "notes": {}, "seconds": 0.1}
DAMAGED = {
    "cut off": '{"format": "urlrl-adapt-1", "method": "zero_',
    "empty": "",
    "no JSON object": "[1, 2]",
    "another format": json.dumps({"format": "urlrl-run-1", **GOOD}),
    "no format": json.dumps(GOOD),
    "an unknown field": json.dumps({"format": "urlrl-adapt-1", **GOOD, "colour": 1}),
    "a missing field": json.dumps({"format": "urlrl-adapt-1"} | {k: v for k, v in GOOD.items() if k != "curve"}),
    "another seed": json.dumps({"format": "urlrl-adapt-1", **GOOD, "seed": 0}),
    "another method": json.dumps({"format": "urlrl-adapt-1", **GOOD, "method": "scratch"}),
    "settings that are none": json.dumps({"format": "urlrl-adapt-1", **GOOD, "same": [1]}),
    "no curve": json.dumps({"format": "urlrl-adapt-1", **GOOD, "curve": []}),
    "a number for a curve": json.dumps({"format": "urlrl-adapt-1", **GOOD, "curve": 3}),
    "no returns": json.dumps({"format": "urlrl-adapt-1", **GOOD, "curve": [[0, []]]}),
    "words for returns": json.dumps({"format": "urlrl-adapt-1", **GOOD, "curve": [[0, ["a"]]]}),
    "returns that are not finite": json.dumps({"format": "urlrl-adapt-1", **GOOD, "curve": [[0, float("nan")]]}),
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_or_foreign_result_is_named_and_left_alone(run, tmp_path, kind):
    path = tmp_path / "out" / "point_near" / "zero_shot-1.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(DAMAGED[kind] if isinstance(DAMAGED[kind], bytes) else DAMAGED[kind].encode())
    assert_refused(run, tmp_path, f"{path} cannot be read as a result: ")


def test_files_that_are_no_results_are_left_alone(run, tmp_path):
    folder = tmp_path / "out" / "point_near"
    folder.mkdir(parents=True)
    for name in (
        "finetune-0-backup.json",
        "finetune-x.json",
        "finetune-00.json",
        "notes-1.json",
        "zero_shot-1.json.bak",
    ):
        (folder / name).write_text("mine")
    assert list(prompted(run, tmp_path)["methods"]) == ["zero_shot"]
    assert (folder / "finetune-0-backup.json").read_text() == "mine"


# A user's module with tasks.
TASK = """
from urlrl.tasks import Task

def x(physics, action):
    return physics[:, 0]

right = Task("right", "point", ("point",), reward=x, episode_steps=20, expert=100.0, stand_still=0.0)
number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    import sys

    sys.modules.pop("my_tasks", None)


def test_a_users_task_and_a_method_that_cannot_be_asked_leaves_the_others(run, mine, capsys):
    """Without its past a reward cannot be prompted; a search needs none."""
    alone = copy_of(run, mine)
    for path in (alone / "replay").iterdir():
        path.unlink()
    result = adapt(
        alone, "my_tasks:right", ["zero_shot", "z_search"], seeds=[0, 1], config=SMALL, out=mine / "out", quiet=True
    )
    note = "zero_shot: There are no transitions of the run to label: expected its replay folder."
    assert result["notes"] == [note] and capsys.readouterr().err == f"{note}\n"
    assert list(result["methods"]) == ["z_search"] and result["task"] == "right"
    entry = strict(mine / "out" / "my_tasks.right" / "ladder.json")["methods"]["z_search"]
    assert result["ceiling"] == (100.0, "published expert")
    best = max(floor["mean"] for floor in result["floors"].values())
    assert entry["share"] == pytest.approx((entry["final"]["value"] - best) / (100 - best))
    assert result["floors"]["standing still"] == {"mean": 0.0}
    with pytest.raises(UserError, match="^zero_shot: There are no transitions"):
        adapt(alone, "my_tasks:right", ["zero_shot"], config=SMALL, out=mine / "other", quiet=True)
    assert not (mine / "other").exists()


def test_floors_are_random_and_zero_actions_from_the_same_starts():
    task = dataclasses.replace(RIGHT, stand_still=3.0)
    floors = verb.measure_floors(task)
    assert floors == verb.measure_floors(task)
    assert floors["zero action"]["episodes"] == 50 and floors["standing still"] == {"mean": 3.0}
    env = make_task_env(task, 50)
    obs, _ = env.reset(seed=verb.env_seed(0, "floors"))
    assert floors["zero action"]["mean"] == pytest.approx(20 * obs[:, 0].mean(), rel=1e-4)  # It stays where it started.
    assert floors["zero action"]["standard_error"] == pytest.approx(20 * obs[:, 0].std(ddof=1) / np.sqrt(50), rel=1e-4)


def test_floors_of_tasks_that_share_an_environment_are_of_the_same_episodes(monkeypatch):
    made = []
    original = verb.make_task_env
    monkeypatch.setattr(verb, "make_task_env", lambda *args: made.append(args) or original(*args))
    verb._floor_steps.cache_clear()
    ended_early = dataclasses.replace(RIGHT, episode_steps=7)
    floors = [verb.measure_floors(task) for task in (RIGHT, dataclasses.replace(RIGHT, name="again"), ended_early)]
    assert floors[0] == floors[1] != floors[2] and len(made) == 4
    env = original(RIGHT, 50)
    rng = np.random.default_rng(verb.env_seed(0, "floor actions"))
    policy = verb._as_policy(lambda obs: rng.uniform(-1, 1, (50, 2)))
    returns = verb.episode_returns(env, policy, verb.env_seed(0, "floors"))
    assert floors[0]["random"]["mean"] == pytest.approx(returns.mean(), rel=1e-6)


def test_environments_are_closed(run, tmp_path, monkeypatch):
    made, closed = [], []
    original = verb.make_task_env

    def make(*args, **kwargs):
        env = original(*args, **kwargs)
        made.append(env)
        env.close = lambda: closed.append(env)
        return env

    monkeypatch.setattr(verb, "make_task_env", make)
    verb._floor_steps.cache_clear()
    prompted(run, tmp_path, seeds=[0], methods=["zero_shot", "z_search"])
    assert len(made) == 6 and closed and {id(env) for env in made} == {id(env) for env in closed}


def cell(method: str, seed: int, curve: list) -> Cell:
    return Cell(method, seed, {}, curve, {}, 0.0)


def test_differences_from_scratch_are_paired_by_seed():
    """By hand, with a budget of 10. Areas of fine-tuning: 5, 6, 9; from scratch: 1 and 2 for seeds 2 and 0."""
    cells = [
        *(cell("finetune", seed, [(0, value), (10, value)]) for seed, value in ((0, 5.0), (1, 6.0), (2, 9.0))),
        cell("scratch", 0, [(0, 0.0), (10, 4.0)]),
        cell("scratch", 2, [(0, 1.0), (10, 1.0)]),
    ]
    found = summarise(cells, 10, [0.5, -1.0], 20.0)
    assert found["finetune"]["over_scratch"] == {
        "value": pytest.approx(((5 - 2) + (9 - 1)) / 2),
        "low": None,
        "high": None,
    }
    assert found["finetune"]["over_scratch_per_seed"] == [3, 8]
    assert found["finetune"]["area_per_seed"] == [5, 6, 9] and found["scratch"]["area_per_seed"] == [2, 1]
    assert found["scratch"]["over_scratch"] is None and found["scratch"]["share"] == pytest.approx(2.0 / 19.5)
    assert list(found) == ["finetune", "scratch"]


def drawn(monkeypatch, methods: dict, floors: dict) -> Axes:
    """The picture's axes."""
    result = {"task": "t", "agent": "a", "env": "e", "pretrain_steps": 1, "steps": 10}
    figures = []
    monkeypatch.setattr(plot, "png", lambda figure, **options: figures.append(figure) or b"")
    monkeypatch.setattr(plot, "write_atomically", lambda path, content: None)
    plot.draw({**result, "floors": floors, "methods": methods}, Path("ladder.png"))
    return figures[0].axes[0]


def test_each_baseline_is_drawn_at_its_own_height_and_no_name_over_another(monkeypatch):
    """Two that are near each other were one line, at the lower height."""
    methods = summarise([cell("finetune", 0, [(0, 0.0), (10, 100.0)])], 10, [12.78], None)
    floors = {
        name: {"mean": mean} for name, mean in (("random", 12.78), ("zero action", 14.9), ("standing still", 15.0))
    }
    axes = drawn(monkeypatch, methods, floors)
    heights = [line.get_ydata()[0] for line in axes.lines if line.get_ydata()[0] == line.get_ydata()[-1]]
    assert heights == [12.78, 14.9, 15.0]
    names = {text.get_text(): (text.xy[1], text.xyann[1]) for text in axes.texts}
    assert {name: at for name, (at, _) in names.items()} == {name: floor["mean"] for name, floor in floors.items()}
    places = sorted(place for _, place in names.values())
    assert min(np.diff(places)) > 4 and all(place >= at for at, place in names.values())


def test_the_picture_shows_what_the_table_says(monkeypatch):
    """The mean of five seeds with Student's interval, and not another statistic; of four there is no interval."""
    for seeds in (5, 4):
        finals = [0.0, 1.0, 2.0, 3.0, 40.0][:seeds]
        cells = [cell("finetune", seed, [(0, value), (10, value)]) for seed, value in enumerate(finals)]
        methods = summarise(cells, 10, [0.0], None)
        axes = drawn(monkeypatch, methods, {})
        (thick,) = [line for line in axes.lines if line.get_linewidth() == 2]
        assert (
            thick.get_ydata()[-1]
            == pytest.approx(methods["finetune"]["final"]["value"])
            == pytest.approx(np.mean(finals))
        )
        band = axes.collections[0].get_paths()
        assert bool(band) == (seeds == 5) == (methods["finetune"]["final"]["low"] is not None)
        if band:
            extent = band[0].get_extents()
            assert (extent.y0, extent.y1) == pytest.approx(
                [methods["finetune"]["final"][end] for end in ("low", "high")]
            )


def test_a_remaining_time_is_never_negative(run, monkeypatch):
    """The last phase of a method may end beyond its budget."""
    said = []
    monkeypatch.setattr(Notes, "update", lambda self, line: said.append(line))
    monkeypatch.setattr(verb, "time", SimpleNamespace(monotonic=iter((0, 5000, 5001)).__next__))
    monkeypatch.setitem(RUN, "zero_shot", lambda s: (s.progress(700, 1.0), s.curve.append((700, 1.0))))
    verb.run_cell(Path(), run, load_checkpoint(run), POINT, SMALL, "zero_shot", 0, {}, Stop(Notes()), Notes(), 0.5)
    assert said == [" 50%  zero_shot seed 0  700/300 steps  return 1.0  ETA 0:00"]


# --- what is kept

KEPT = [method for method in METHODS if method != "zero_shot"]  # A goal is told anew in each episode.


@pytest.mark.parametrize("method", KEPT)
def test_a_kept_policy_does_what_was_measured_last(method, ladder):
    """It is read from another place, where there is no run: the folder of the task has all that it needs."""
    cell = strict(ladder[1] / f"{method}-0.json")
    adapted = load_adapted(ladder[1] / f"{method}-0")
    assert (adapted.method, adapted.seed, adapted.pretrain_steps, adapted.task) == (method, 0, 80, NEAR)
    assert adapted.steps == cell["curve"][-1][0]
    assert adapted_returns(adapted, 4, env_seed(0, "adapt evaluation")).mean() == cell["curve"][-1][1]


def test_a_kept_policy_needs_no_run(ladder, tmp_path):
    shutil.copytree(ladder[1], tmp_path / "task")
    for method in ("z_search", "finetune"):
        there, here = load_adapted(ladder[1] / f"{method}-1"), load_adapted(tmp_path / "task" / f"{method}-1")
        assert all(map(np.array_equal, jax.tree.leaves(there.policy), jax.tree.leaves(here.policy)))


@pytest.mark.parametrize("skills", ["run", "onehot_run"])
def test_a_kept_controller_holds_its_skills_as_in_training(skills, request, start):
    setting = start(request.getfixturevalue(skills), RIGHT)
    asked = training(setting, "hierarchical")
    in_training = asked.agent.replace(config=dataclasses.replace(asked.agent.config, uniform=False))
    expected = episode_returns(asked.env, acting(in_training), setting.env_seed("evaluation"))

    def returns(hold: int) -> np.ndarray:
        policy = Controlled(setting.agent, in_training, hold)
        return episode_returns(setting.make_env(2), acting(policy), setting.env_seed("evaluation"))

    np.testing.assert_allclose(returns(asked.hold), expected, rtol=1e-4, atol=1e-4)
    if skills == "run":  # Wrong: it chooses again at every step. Indices change too rarely to see it.
        assert not np.allclose(returns(1), expected, rtol=1e-3)


def test_a_prompted_reward_keeps_its_skill(run, start):
    setting = start(run, RIGHT)
    RUN["zero_shot"](setting)
    assert setting.kept.z.tolist() == setting.notes["z"]


def test_a_kept_policy_is_evaluated_beside_the_floors(ladder, tmp_path, capsys):
    folder = ladder[1] / "finetune-0"
    main(["evaluate", str(folder), "--json", str(tmp_path / "result.json")])
    said, result = capsys.readouterr().out, strict(tmp_path / "result.json")
    assert result == strict(folder / "evaluation.json")
    assert (result["task"], result["method"], result["floors"]) == ("point_near", "finetune", ladder[0]["floors"])
    assert result["policy"]["episodes"] == 50 and 0 <= result["policy"]["mean"] <= 19
    assert "point_near, after 330 steps in the task" in said and "(finetune)" in said and "(random)" in said


@pytest.mark.parametrize("verb_and_options", ["prompt vx", "report", "adapt --task point_near"])
def test_other_verbs_refuse_a_kept_policy_by_name(verb_and_options, ladder, capsys):
    name, *rest = verb_and_options.split()
    with pytest.raises(SystemExit) as stop:
        main([name, str(ladder[1] / "scratch-0"), *rest])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    assert "scratch-0 holds what an adaptation left for one task: expected a run" in said


@pytest.mark.parametrize("format", ["bundle", "onnx", "stablehlo"])
def test_a_kept_policy_is_exported(format, ladder, tmp_path):
    """As a policy without skills, which sees the features of the task behind the observation."""
    main(["export", str(ladder[1] / "finetune-0"), "--out", str(tmp_path / "out"), "--format", format])
    if format != "bundle":
        return  # `check_parity` has compared it.
    policy = SkillPolicy.from_pretrained(tmp_path / "out")
    agent = load_adapted(ladder[1] / "finetune-0").policy
    obs = np.float32(np.random.default_rng(0).normal(size=(5, 4)))
    np.testing.assert_allclose(policy.act(obs), agent.sample_actions(obs, None, jax.random.key(0), 0.0), atol=1e-5)
    assert policy.act(obs[0]).shape == (2,) and not policy.skills
    assert policy.config["skill"] == {"kind": "none", "dim": 0}
    assert policy.config["observation"]["names"][2:] == ["goal_x", "goal_y"]
    assert "fine-tuned on the reward of the task `point_near` for 330 control steps" in policy.card
    for wrong in ([1.0, 2.0], np.nan, np.ones((5, 7))):
        with pytest.raises(SkillError, match="^z has shape|^z is"):
            policy.act(obs[0], wrong)
    with pytest.raises(SkillError, match="is of one task and has no skills"):
        SkillEnv(gymnasium.make("MountainCarContinuous-v0"), policy)


def test_a_skill_that_was_found_is_a_named_one_of_the_agents_bundle(ladder, tmp_path):
    main(["export", str(ladder[1] / "z_search-0"), "--out", str(tmp_path / "out")])
    policy = SkillPolicy.from_pretrained(tmp_path / "out")
    found = strict(ladder[1] / "z_search-0.json")["notes"]["z"]
    np.testing.assert_allclose(policy.skills["point_near"], found, atol=1e-6)
    assert policy.config["observation"]["size"] == 2 and policy.config["networks"].keys() == {"policy", "features"}


def test_a_controller_leaves_jax_together_with_its_skills(ladder, tmp_path):
    """What was exported acts as the controller does along its own episodes."""
    folder = ladder[1] / "hierarchical-0"
    main(["export", str(folder), "--out", str(tmp_path / "out")])
    policy = SkillPolicy.from_pretrained(tmp_path / "out")
    controller = SkillController(policy)
    assert policy.config["controller"] == {"features": ["goal_x", "goal_y"], "hold": NEAR.option_steps}
    with closing(make_task_env(NEAR, 3)) as env:
        played = play_kept(env, load_adapted(folder).policy, 7).steps
    assert len(np.unique(played.z[:, 0], axis=0)) == 20 // NEAR.option_steps
    for obs, action, z in zip(played.obs, played.action, played.z):
        np.testing.assert_allclose(controller.act(obs), action, atol=1e-5)
        np.testing.assert_allclose(controller.z, z, atol=1e-5)
    card = policy.card
    assert "Then a controller that chooses the skill was trained on the reward of the task `point_near` for 300" in card
    assert "sees the observation, `goal_x`, `goal_y`; chooses a skill every 10 control steps" in card
    assert "controller.act(inputs))  # inputs (4,): obs, goal_x, goal_y" in card
    (page,) = (text for _, text in blocks_of(ROOT / "docs" / "skills.md") if "SkillController(" in text)
    here = {'"bundles/to_goals"': repr(str(tmp_path / "out")), "np.zeros(18), [10.0]": "np.zeros(2), [1.0, 2.0]"}
    exec(shortened(page, here), names := {})
    assert names["ctrl"].shape == (2,) and names["controller"].held == 0
    for format in ("onnx", "stablehlo"):
        with pytest.raises(SkillError, match=f"The format '{format}' has no place for a controller over skills"):
            FORMATS[format](policy, None, tmp_path / format)


class Killed(BaseException):
    """As if the process were ended here."""


@pytest.mark.parametrize("method", ["finetune", "hierarchical", "scratch"])
@pytest.mark.parametrize("epoch", [1, 4])
def test_what_was_killed_goes_on_bit_for_bit(method, epoch, run, ladder, tmp_path, monkeypatch):
    """In the warm-up, and later."""
    epochs, original = [], Host.epoch

    def count(self):
        epochs.append(1)
        if len(epochs) == epoch + 1:
            raise Killed
        return original(self)

    monkeypatch.setattr(Saver, "due", lambda self: True)
    monkeypatch.setattr(Host, "epoch", count)
    options = {"seeds": [0], "config": SMALL, "out": tmp_path, "quiet": True}
    with pytest.raises(Killed):
        adapt(run, "point_near", [method], **options)
    assert load_adapted(tmp_path / "point_near" / f"{method}-0").steps < 300  # It can be looked at meanwhile.
    adapt(run, "point_near", [method], **options)
    assert_equal_cells(method, ladder[1], tmp_path / "point_near")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["finetune", "hierarchical"])
def test_a_killed_process_goes_on_bit_for_bit(method, run, ladder, tmp_path):
    """The same by SIGKILL, which runs no handler."""
    patches = "t.Saver.due = lambda self: True; t.TASKS['point_near'] = lambda: t.NEAR"
    options = f"seeds=[0], out={str(tmp_path)!r}, config=t.SMALL, quiet=True"
    program = f"import test_adapt as t; {patches}; t.adapt({str(run)!r}, 'point_near', [{method!r}], {options})"
    killed_at(("urlrl.training.host:Host.epoch", "after", 4, ""), program)
    assert load_adapted(tmp_path / "point_near" / f"{method}-0").steps < 300
    adapt(run, "point_near", [method], seeds=[0], config=SMALL, out=tmp_path, quiet=True)
    assert_equal_cells(method, ladder[1], tmp_path / "point_near")


def test_a_search_that_was_killed_is_done_again_alike(run, ladder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(methods, "_reward_scale", lambda *arguments: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            adapt(run, "point_near", ["finetune"], seeds=[0], config=SMALL, out=tmp_path, quiet=True)
    with pytest.raises(UserError, match="finetune-0 holds no policy yet"):
        load_adapted(tmp_path / "point_near" / "finetune-0")
    adapt(run, "point_near", ["finetune"], seeds=[0], config=SMALL, out=tmp_path, quiet=True)
    assert_equal_cells("finetune", ladder[1], tmp_path / "point_near")


def assert_equal_cells(method: str, there: Path, here: Path) -> None:
    cells = [strict(folder / f"{method}-0.json") | {"seconds": 0} for folder in (there, here)]
    assert cells[0] == cells[1]
    policies = [load_adapted(folder / f"{method}-0").policy for folder in (there, here)]
    assert same(*policies)
    assert not (here / f"{method}-0" / "replay").exists()  # It is done.


def test_policies_of_two_runs_in_one_folder_act_by_their_own_agents(run, tmp_path, monkeypatch):
    """What the first left was interrupted, so no result says whose folder it is."""
    with monkeypatch.context() as patch:
        patch.setattr(Host, "epoch", lambda self: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            adapt(run, "point_near", ["hierarchical"], seeds=[0], config=SMALL, out=tmp_path, quiet=True)
    other = urlrl.pretrain(dataclasses.replace(PLAIN, seed=1), tmp_path / "other", quiet=True)
    adapt(other, "point_near", ["z_search"], seeds=[0], config=SMALL, out=tmp_path, quiet=True)
    kept = load_adapted(tmp_path / "point_near" / "z_search-0").policy.agent
    assert same(kept, load_checkpoint(other).agent) and not same(kept, load_checkpoint(run).agent)
    adapt(other, "point_near", ["z_search"], seeds=[0], config=SMALL, out=tmp_path, quiet=True)


def test_a_damaged_last_checkpoint_is_passed_over(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Saver, "due", lambda self: True)
    adapt(run, "point_near", ["scratch"], seeds=[0], config=SMALL, out=tmp_path, quiet=True)
    folder = tmp_path / "point_near" / "scratch-0"
    *_, last = sorted((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    largest = max((path for path in last.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    assert load_adapted(folder).steps == 250


def test_a_skill_that_was_found_with_other_settings_is_found_again(run, tmp_path):
    prompted(run, tmp_path, seeds=[0], methods=["z_search"])
    (tmp_path / "out" / "point_near" / "z_search-0.json").unlink()
    prompted(run, tmp_path, seeds=[0], methods=["z_search"], config=dataclasses.replace(SMALL, steps=400))
    adapted = load_adapted(tmp_path / "out" / "point_near" / "z_search-0")
    assert adapted.steps == strict(tmp_path / "out" / "point_near" / "z_search-0.json")["curve"][-1][0]


def test_an_agent_without_skills_has_none_to_choose_from(run, start):
    setting = start(run)
    space = SkillSpace("none", 0)
    setting.agent = Guide(Normalizer.identity(2), SimpleNamespace(z=space))
    for method in (RUN["z_search"], TRAIN["hierarchical"]):
        with pytest.raises(UnsupportedPrompt, match="Agent Guide has no skills: expected one with skills to choose"):
            method(setting)


def test_what_was_begun_with_other_settings_is_not_gone_on_with(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Host, "epoch", lambda self: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            adapt(run, "point_near", ["scratch"], seeds=[0], config=SMALL, out=tmp_path, quiet=True)
    longer = dataclasses.replace(SMALL, steps=400)
    with pytest.raises(UserError, match="tuned.json holds another result: config.steps is 300 there and 400 here"):
        adapt(run, "point_near", ["scratch"], seeds=[0], config=longer, out=tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data | {"method": "guess"}, "has the method 'guess': expected one of zero_shot"),
        (lambda data: data | {"task": "nowhere:task"}, "names code that you have not used before: 'nowhere:task'"),
        (lambda data: data | {"config": {"stepps": 3}}, "cannot be read: Unknown key in config 'stepps'"),
        (lambda data: data | {"seed": "0"}, "cannot be read: seed is '0', not a whole number"),
        (lambda data: data | {"pretrain_steps": "7"}, "cannot be read: pretrain_steps is '7'"),
    ],
)
def test_damage_to_what_is_kept_is_named(damage, message, ladder, tmp_path):
    shutil.copytree(ladder[1] / "scratch-0", tmp_path / "scratch-0")
    file = tmp_path / "scratch-0" / "tuned.json"
    file.write_text(json.dumps(damage(strict(file))))
    with pytest.raises(UserError, match=message):
        load_adapted(tmp_path / "scratch-0")


def test_a_kept_policy_whose_arrays_are_damaged_is_refused(ladder, tmp_path):
    shutil.copytree(ladder[1] / "scratch-0", tmp_path / "scratch-0")
    files = [path for path in (tmp_path / "scratch-0" / "checkpoints").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="is damaged"):
        load_adapted(tmp_path / "scratch-0")


# --- agents that learn by IQL

HILP_TINY = HILPConfig(z=SkillSpace("sphere", 2), width=32, depth=2, lr=1e-3)
FRE_TINY = FREConfig(
    z=SkillSpace("gaussian", 4), encode=9, decode=2, encoder_width=8, width=32, depth=2, lr=1e-3, position=(0, 1),
    position_bins=4, position_range=(-3.0, 3.0),
)  # fmt: skip


@pytest.mark.parametrize(("agent_class", "config"), [(HILP, HILP_TINY), (FRE, FRE_TINY)])
def test_an_agent_of_iql_is_fine_tuned_on_a_reward(agent_class, config, tmp_path):
    """Its policy explores by its own noise, and after 1,600 steps it goes where the reward is."""
    off_policy = OffPolicyConfig(interval=2, batch=64, warmup=400, warmup_updates=100)
    budget = AdaptConfig(
        steps=1_600, eval_every=1_600, eval_episodes=4, off_policy=off_policy, search=SearchConfig(finetune_share=0.0)
    )
    with ExitStack() as opened:

        def make_env(n):
            return opened.enter_context(closing(make_task_env(RIGHT, n)))

        example = example_transition(make_env(1).env_spec, config.z.dim)
        agent = jax.jit(lambda key: agent_class.create(config, example, key))(jax.random.key(0))
        setting = Setting(agent, RIGHT, make_env, budget, 0, None, agent.normalizer, lambda steps, mean: None)
        play(setting, "finetune", tmp_path)
    assert setting.curve[0][1] < 1 and setting.curve[-1][1] > 5


# --- the command line


# What was typed behind `urlrl adapt` -> what the sentence says. RUN is a run, OUT a folder that must not appear.
MISTAKES = {
    "": "`urlrl adapt` needs a run, first, and a task: expected urlrl adapt RUN --task TASK.",
    "RUN": "needs a run, first, and a task",
    "--task point_goal": "needs a run, first, and a task",
    "RUN --task": "Option '--task' has no value",
    "RUN --task point_gaol": "Unknown task 'point_gaol': did you mean 'point_goal'?",
    "RUN --task half_cheetah_goal": "is for agents pretrained on half_cheetah: this one knows 'point'.",
    "RUN --task nowhere:task": "Cannot import the task 'nowhere:task'",
    "RUN --task math:pi": "Task 'math:pi' is a float: expected a urlrl.tasks.Task.",
    "RUN --task point_goal --method finetun": "Unknown method 'finetun': did you mean 'finetune'?",
    "RUN --task point_goal --seeds 3..1": "Option '--seeds' is '3..1': expected whole numbers, as in 0..4 or 0,3.",
    "RUN --task point_goal --seeds x": "Option '--seeds' is 'x': expected whole numbers",
    "RUN --task point_goal --seeds 0,,1": "Option '--seeds' is '0,,1': expected whole numbers",
    "RUN --task point_goal --seeds -1": "Option '--seeds' is '-1': expected whole numbers",
    "RUN --task point_goal --seeds 4294967296": "seed is 4294967296: expected a number of at least 0 and at most",
    "RUN --task point_goal --steps -5": "steps is -5: expected a number of at least 1.",
    "RUN --task point_goal --steps 0": "steps is 0: expected a number of at least 1.",
    "RUN --task point_goal --steps 1e5": "Option '--steps' is '1e5': expected a whole number.",
    "RUN --task point_goal --step 3..5": "Option '--step' is '3..5': expected a whole number.",
    "RUN --task point_goal --seeds 0..99999999": "Option '--seeds' is '0..99999999': expected at most 1000 numbers.",
    "RUN --suite urlb-v1/walker --method scratch": "A suite fixes tasks, methods and settings",
    "RUN --task point_goal --eval-every 0": "eval_every is 0: expected a number of at least 1.",
    "RUN --task point_goal --eval-episodes 0": "eval_episodes is 0: expected a number of at least 1.",
    "RUN --task point_goal --num-envs 0": "num_envs is 0: expected a number of at least 1.",
    "RUN --task point_goal --off-policy.interval 0": "off_policy.interval is 0: expected a number of at least 1.",
    "RUN --task point_goal --off-policy.warmup -1": "off_policy.warmup is -1: expected a number of at least 0.",
    "RUN --task point_goal --off-policy.replay-capacity 5": "expected at least the 25 transitions of each of num_envs",
    "RUN --task point_goal --off-policy.critic old": "Option '--off-policy.critic' is 'old': expected one of own",
    "RUN --task point_goal --high-level.episodes 0": "high_level.episodes is 0: expected a number of at least 1.",
    "RUN --task point_goal --high-level.sac.lr 0": "lr is 0.0: expected a number above 0.",
    "RUN --task point_goal --search.rounds 0": "search.rounds is 0: expected a number of at least 1.",
    "RUN --task point_goal --search.finetune-share 1.5": "search.finetune_share is 1.5: expected a number",
    "RUN --task point_goal --stepps 5": "Unknown option '--stepps': did you mean '--steps'?",
    "RUN --task point_goal stray": "Unexpected argument 'stray'",
    "RUN --task point_goal --step 7": "has no checkpoint at step 7: found those at 80.",
    "RUN --task point_goal --suite urlb-v1/walker": "A suite fixes tasks, methods and settings",
    "nowhere --task point_goal": "nowhere is not a run: it has no config.json.",
    "nowhere --suite urlb-v1/walker": "nowhere is not a run: it has no config.json.",
    "RUN --suite urlb-v1/walkr": "Unknown suite 'urlb-v1/walkr': did you mean 'urlb-v1/walker'?",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(typed, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word.replace("RUN", str(run)) for word in typed.split()]
    with pytest.raises(SystemExit) as stop:
        main(["adapt", *words, "--out", str(tmp_path / "out"), "--quiet"])
    said = capsys.readouterr()
    assert stop.value.code == 2 and not said.out
    assert said.err.startswith("urlrl: ") and said.err.count("\n") == 1, said.err
    assert MISTAKES[typed] in said.err.replace(str(run), "RUN")
    assert not list(tmp_path.iterdir())


def test_the_command_line_adapts_and_says_where_the_picture_is(run, tmp_path, capsys):
    options = "--steps 100 --eval-every 50 --eval-episodes 2 --num-envs 2 --samples 50 --seeds 0,2 --method zero_shot"
    main(["adapt", str(run), "--task", "point_goal", *options.split(), "--out", str(tmp_path / "out"), "--quiet"])
    said = capsys.readouterr().out
    path = tmp_path / "out" / "point_goal" / "ladder.png"
    assert said.rstrip().endswith(str(path)) and path.exists()
    assert "pretrained for 80 steps without reward on point, then 100 steps in the task" in said
    assert "zero-shot prompt" in said and "0, 2" in said and "(random)" in said and "(zero action)" in said


def test_help_lists_methods_and_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["adapt", "--help"])
    said = capsys.readouterr()
    assert stop.value.code == 0 and not said.err
    assert all(word in said.out for word in (*METHODS, "--suite", "--search.population", "--off-policy.warmup"))


def test_all_tasks_are_listed(capsys):
    main(["tasks"])
    table, suites = capsys.readouterr().out.split("\n\n")
    lines = {line.split()[0]: line for line in table.splitlines()[1:]}
    assert set(lines) == set(TASKS)
    suites = " ".join(suites.split())
    assert all(name in suites for name in [*URLB, *SUITES] if not name.startswith("ogbench-v1/"))
    assert f"and {sum(name.startswith('ogbench-v1/') for name in SUITES)} as ogbench-v1/" in suites
    for name, make in TASKS.items():
        task = make()
        assert task.env in lines[name] and all(env in lines[name] for env in task.runs_on)
    assert isinstance(TASKS["point_goal"](), GoalTask)


# --- learning


QUICK = dataclasses.replace(urlrl.preset("metra", "point-quick"), steps=8_000, eval_every=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return urlrl.pretrain(QUICK, tmp_path_factory.mktemp("trained") / "run", quiet=True)


def test_a_pretrained_agent_is_prompted_with_goals(trained, tmp_path):
    """Of 49 steps the way takes some; the random policy passes a goal by chance."""
    result = adapt(trained, "point_goal", ["zero_shot"], seeds=[0, 1], out=tmp_path, quiet=True)
    assert min(result["methods"]["zero_shot"]["final_per_seed"]) > 10
    assert result["floors"]["random"]["mean"] < 5


@pytest.mark.slow
def test_what_learns_in_the_task_learns_it(trained, tmp_path):
    urlrl.pretrain(dataclasses.replace(QUICK, steps=12_000), trained, quiet=True)
    config = AdaptConfig(
        steps=30_000,
        eval_every=10_000,
        high_level=HighLevelConfig(sac=SACConfig(width=64, lr=1e-3, alpha=0.1)),
        off_policy=OffPolicyConfig(interval=4, warmup=1_000, random=1_000),
    )
    learners = ["hierarchical", "finetune", "scratch"]
    result = adapt(trained, "point_goal", learners, seeds=[0, 1], config=config, out=tmp_path, quiet=True)
    for method, entry in result["methods"].items():
        for curve in entry["curves"]:
            assert curve[0][1] < 5 and curve[-1][1] > 10, method
