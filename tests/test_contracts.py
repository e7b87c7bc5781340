"""The contracts carry agents of other kinds than those of the library: one with memory, one that learns from whole
rollouts, one whose skill is a state and which leaves more than its skill in the data. Each is trained on the host and
on the device, and evaluation acts as training did."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from urlrl.acting import Flat, begin_all, begun
from urlrl.agents.uniform import UniformConfig
from urlrl.config import PretrainConfig
from urlrl.data.recorded import read_run
from urlrl.data.replay import Replay
from urlrl.data.rows import agent_fields, blank
from urlrl.envs import make_device_env, make_env
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation.rollout import Policy, acting, rollout, uniform
from urlrl.learners.ppo import PPO, PPOConfig, Rollout
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
from urlrl.presets import preset
from urlrl.runs.begin import create_agent
from urlrl.runs.load import load, load_checkpoint
from urlrl.runs.past import past
from urlrl.streams import env_seed
from urlrl.training.host import Host
from urlrl.training.seeds import Seeds
from urlrl.types import All, BatchSpec, Carry, Each, Skill
from urlrl.verbs.pretrain import pretrain, pretrain_seeds

LANES, ROLLOUT, EPISODE = 3, 8, 12  # an episode crosses the border of an epoch


class Memory(NamedTuple):
    clock: jax.Array  # (n,), int32: steps since the reset
    mean: jax.Array  # (n, obs): of what was seen since then


@dataclass(frozen=True)
class ClockedConfig:
    z: SkillSpace = SkillSpace("sphere", 2)
    batch: BatchSpec = BatchSpec(size=8)


class Clocked(struct.PyTreeNode):
    """Its action depends on a clock since the reset, on what it saw since then, and on its skill."""

    weight: jax.Array  # (obs, act)
    normalizer: Normalizer
    config: ClockedConfig = struct.field(pytree_node=False)
    Config, plan, shared, abilities = ClockedConfig, nothing, (), frozenset()

    @classmethod
    def create(cls, config, example, key):
        obs, act = example.obs.shape[-1], example.action.shape[-1]
        return cls(jax.random.normal(key, (obs, act)), Normalizer.identity(obs), config)

    def begin(self, key, n, plan, task=None):
        z = task.task.z if isinstance(task, Each) else self.config.z.sample(key, n)
        return Carry({"z": jnp.asarray(z)}, Memory(jnp.zeros(n, jnp.int32), jnp.zeros((n, self.weight.shape[0]))))

    def act(self, obs, carry, key, temperature=1.0):
        clock, mean = carry.lane
        mean = (mean * clock[:, None] + obs) / (clock[:, None] + 1)
        noise = temperature * jax.random.normal(key, (obs.shape[0], self.weight.shape[1]))
        action = jnp.tanh(jnp.sin(mean @ self.weight + clock[:, None]) + carry.z + 0.3 * noise)
        return action, carry._replace(lane=Memory(clock + 1, mean))

    def update(self, batch, key):
        return self, {"reward/intrinsic": jnp.mean(batch.discount)}


@dataclass(frozen=True)
class OnPolicyConfig:
    z: SkillSpace = SkillSpace("none", 0)
    batch: BatchSpec = BatchSpec(source="rollout", whole_episodes=False)
    ppo: PPOConfig = PPOConfig(width=16, lr=3e-3, epochs=4, batch=96, value_target="gae", max_grad_norm=0.5)


class OnPolicy(struct.PyTreeNode):
    """PPO on the distance that x grows by; it gives `update` its clock, and remembers what it was shown."""

    ppo: PPO
    shown: Any  # the last rollout's obs, ended and clock; None before
    updates: jax.Array  # (), int32
    normalizer: Normalizer
    config: OnPolicyConfig = struct.field(pytree_node=False)
    Config, plan, shared, abilities = OnPolicyConfig, nothing, ("updates",), frozenset()

    @classmethod
    def create(cls, config, example, key):
        obs = jnp.zeros((1, example.obs.shape[-1]))
        ppo = PPO.create(config.ppo, obs, example.action[:1], key)
        shown = {"obs": jnp.zeros((ROLLOUT, LANES, obs.shape[1])), "ended": jnp.zeros((ROLLOUT, LANES), bool),
                 "clock": jnp.zeros((ROLLOUT, LANES), jnp.int32)}  # fmt: skip
        return cls(ppo, shown, jnp.int32(0), Normalizer.identity(obs.shape[1]), config)

    def begin(self, key, n, plan, task=None):
        clock = jnp.zeros(n, jnp.int32)
        return Carry({"z": jnp.zeros((n, 0))}, lane=clock, given={"clock": clock})

    def act(self, obs, carry, key, temperature=1.0):
        action = self.ppo.actor(obs).sample(key, temperature)
        return action, carry._replace(lane=carry.lane + 1, given={"clock": carry.lane})

    def update(self, batch, key):
        reward = (batch.next_obs - batch.obs)[..., 0]
        rows = Rollout(batch.obs, batch.action, reward, batch.discount, batch.next_obs, batch.extra["ended"])
        ppo, metrics = self.ppo.update(rows, key)
        shown = {"obs": batch.obs, "ended": batch.extra["ended"], "clock": batch.extra["clock"]}
        metrics |= {"reward/intrinsic": jnp.mean(reward)}
        return self.replace(ppo=ppo, shown=shown, updates=self.updates + 1), metrics


@dataclass(frozen=True)
class GoerConfig:
    z: SkillSpace = SkillSpace("none", 0)  # a skill is an observation, which the data gives
    batch: BatchSpec = BatchSpec(size=8)


class Goer(struct.PyTreeNode):
    """It goes to a state of the data that `plan` has picked, and notes when it is near and how often it was."""

    visits: jax.Array  # (4,), int32: of each quadrant, counted in `update`
    normalizer: Normalizer
    config: GoerConfig = struct.field(pytree_node=False)
    Config, shared, abilities = GoerConfig, (), frozenset()

    @classmethod
    def create(cls, config, example, key):
        return cls(jnp.zeros(4, jnp.int32), Normalizer.identity(example.obs.shape[-1]), config)

    def plan(self, seen, key):
        return 1 + jax.random.permutation(key, seen.obs)

    def begin(self, key, n, plan, task=None):
        if isinstance(task, Each):
            z = jnp.asarray(task.task.z)
        else:
            z = plan[jax.random.randint(key, (n,), 0, plan.shape[0])]
        return Carry({"z": z, "near": jnp.zeros(n, bool), "count": jnp.zeros(n, jnp.int32)})

    def act(self, obs, carry, key, temperature=1.0):
        gap = carry.z - obs
        near = jnp.linalg.norm(gap, axis=-1) < 1
        noise = 0.1 * temperature * jax.random.normal(key, gap.shape)
        stored = {"z": carry.z, "near": near, "count": carry.stored["count"] + near}
        return jnp.clip(0.3 * gap[:, :2] + noise[:, :2], -1, 1), carry._replace(stored=stored)

    def update(self, batch, key):
        quadrant = (batch.obs[:, 0] > 0) + 2 * (batch.obs[:, 1] > 0)
        counted = self.visits + jnp.zeros(4, jnp.int32).at[quadrant].add(1)
        return self.replace(visits=counted), {"reward/intrinsic": jnp.mean(1.0 * batch.extra["near"])}


AGENTS = {"clocked": Clocked, "on-policy": OnPolicy, "goer": Goer}


def config_of(name: str, **changes) -> PretrainConfig:
    agent = AGENTS[name].Config()
    rhythm = {} if agent.batch.source == "rollout" else {"steps_per_update": 0, "min_replay": 1}
    return PretrainConfig(
        agent=agent, agent_name=f"test_contracts:{AGENTS[name].__name__}", env="point", episode_steps=EPISODE,
        normalizer="off", num_envs=LANES, rollout_steps=ROLLOUT, **{**rhythm, "steps": 3 * LANES * ROLLOUT, **changes},
    )  # fmt: skip


def make_loops(name: str, **changes):
    """The run on the host and on the device, with the agent that both begin with."""
    config = config_of(name, **changes)
    env = make_env("point", LANES, episode_steps=EPISODE)
    agent = create_agent(config, env.env_spec)
    seeds = Seeds(
        replace(config, loop="device"), {0: agent}, make_device_env("point", episode_steps=EPISODE), jax.devices()
    )
    return Host(config, jax.tree.map(jnp.copy, agent), env), seeds


# --- Evaluation acts as training does ---------------------------------------------------------------------------------


def trained_actions(loop, epochs: int) -> dict[str, np.ndarray]:
    """Rows of a run without updates, (steps, lanes, ...)."""
    for _ in range(epochs):
        loop.epoch()
    replay = loop.replay if isinstance(loop, Host) else loop.runs[0].replay
    rows = replay.read(0, epochs * ROLLOUT * LANES)
    return {name: column.reshape(-1, LANES, *column.shape[1:]) for name, column in rows.items()}


def evaluated(agent: Any, rows: dict[str, np.ndarray], run_key: jax.Array, first: int, told: bool) -> Any:
    """An episode of the evaluation's own rollout, by the keys that the training had from its step `first` on; `told`:
    under the skills that it had."""

    def keys(t):
        return jax.random.split(jax.random.fold_in(run_key, (first + t) // ROLLOUT), 5)

    _, begin_key, seen_key, _, _ = keys(0)
    plan = agent.plan(seen_of(agent, rows, first, seen_key), jax.random.fold_in(seen_key, 1))
    task, step = Each(Skill(rows["z"][first])) if told else None, np.int32(first % ROLLOUT)
    base = acting(agent, task, plan=plan, temperature=1.0)
    policy = Policy(
        begin=lambda key, n: begin_all(Flat(agent), n, begin_key, step, plan, task),
        act=lambda obs, carry, key, t: base.act(obs, carry, keys(t)[0], np.int32((first + t) % ROLLOUT)),
    )
    env = make_env("point", LANES, episode_steps=EPISODE)
    start, every = env.reset, {"reset_mask": np.ones(LANES, bool)}

    def reset(*, seed):
        """The training's episode, which is number 1 or 2 of this seed."""
        start(seed=seed)
        return [start(options=every) for _ in range(1 + first // EPISODE)][-1]

    env.reset = reset
    return rollout(env, policy, jax.random.key(0), env_seed(0, "epochs"), EPISODE).steps


def seen_of(agent, rows, first, key):
    """What the agent planned by in the epoch of this step: a batch of what the run had made before it."""
    fields = agent_fields(agent, make_env("point", 1).env_spec)
    if first < ROLLOUT:
        return blank(fields, agent.config.batch, agent.config.batch.size)
    replay = Replay(10_000 // LANES * LANES, fields, LANES)
    made = first // ROLLOUT * ROLLOUT
    replay.add({name: column[:made].reshape(-1, *column.shape[2:]) for name, column in rows.items()})
    return jax.tree.map(lambda x: x[0], replay.sample(key, 1, agent.config.batch))


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", ["clocked", "goer"])
def test_evaluation_acts_as_training_did(name, told):
    """Step by step over two episodes that cross an epoch: on the host bit for bit, on the device within 1e-5."""
    host, seeds = make_loops(name)
    for loop, tolerance in ((host, 0), (seeds, 1e-5)):
        rows = trained_actions(loop, 3)
        assert rows["truncated"][[EPISODE - 1, 2 * EPISODE - 1]].all() and rows["truncated"].sum() == 2 * LANES
        for first in (0, EPISODE):
            episode = evaluated(host.agent, rows, host.key, first, told)
            np.testing.assert_allclose(episode.action, rows["action"][first : first + EPISODE], atol=tolerance, rtol=0)
            np.testing.assert_allclose(episode.z, rows["z"][first : first + EPISODE], atol=tolerance, rtol=0)
    assert len(np.unique(rows["action"])) > 100


def test_an_evaluation_without_memory_is_caught():
    """Wrong: an agent that begins anew at every step is another agent."""
    host, _ = make_loops("clocked")
    rows = trained_actions(host, 2)
    act_key = jax.random.split(jax.random.fold_in(host.key, 0), 5)[0]
    carry = host.agent.begin(jax.random.key(0), LANES, (), Each(Skill(rows["z"][0])))
    actions = [host.agent.act(rows["obs"][t], carry, jax.random.fold_in(act_key, t))[0] for t in range(ROLLOUT)]
    np.testing.assert_allclose(actions[0], rows["action"][0], atol=1e-6)
    assert np.abs(actions[3] - rows["action"][3]).max() > 0.1


# --- What an agent leaves in the data ---------------------------------------------------------------------------------


def test_columns_that_an_agent_stores_come_back_to_it(tmp_path):
    """In batches, in shards, in a run that goes on, and in what a dataset is made of."""
    config = config_of("goer", steps_per_update=4, steps=6 * LANES * ROLLOUT, eval_every=0, checkpoint_minutes=0)
    run = pretrain(config, tmp_path / "run", quiet=True)
    agent, _ = load(run)
    assert agent.visits.sum() == 6 * LANES * ROLLOUT // 4 * 8
    rows = past(run, load_checkpoint(run), 1000, 0)
    assert {"z", "near", "count"} <= rows.keys() and rows["near"].dtype == bool and rows["count"].dtype == np.int32
    assert rows["z"].shape == (6 * LANES * ROLLOUT, 2)
    np.testing.assert_array_equal(rows["near"], np.linalg.norm(rows["z"] - rows["obs"], axis=1) < 1)
    spec = make_env("point", 1).env_spec
    episodes = list(read_run(run, "point", spec).episodes)
    assert sum(len(episode.action) for episode in episodes) == 6 * LANES * ROLLOUT


def test_seeds_count_apart_what_they_do_not_share(tmp_path):
    """Integers are stacked over seeds like everything else, but for the fields that are `shared`."""
    config = config_of("goer", steps_per_update=4, steps=3 * LANES * ROLLOUT, eval_every=0)
    runs = pretrain_seeds(config, [0, 1], tmp_path / "goer", quiet=True)
    visits = [np.asarray(load(run)[0].visits) for run in runs]
    assert visits[0].sum() == visits[1].sum() > 0 and (visits[0] != visits[1]).any()
    config = config_of("on-policy", steps=3 * LANES * ROLLOUT, eval_every=0)
    for run in pretrain_seeds(config, [0, 1], tmp_path / "ppo", quiet=True):
        assert int(load(run)[0].updates) == 3


def test_a_column_that_cannot_be_stored_is_named():
    class Strange(Goer):
        def begin(self, key, n, plan, task=None):
            return Carry({"z": jnp.zeros((n, 2)), self.column: jnp.zeros(n, self.dtype)})

    for column, dtype, expected in (
        ("reward", "float32", "a column 'reward'"),
        ("mass", "float16", "'mass' as float16"),
    ):
        Strange.column, Strange.dtype = column, dtype
        env = make_env("point", LANES)
        agent = Strange(jnp.zeros(4, jnp.int32), Normalizer.identity(2), GoerConfig())
        with pytest.raises(UserError, match=f"Agent Strange stores {expected}"):
            Host(config_of("goer"), agent, env)


# --- Whole rollouts ---------------------------------------------------------------------------------------------------


def test_an_agent_of_rollouts_is_shown_each_epoch_once_in_order_of_time():
    host, seeds = make_loops("on-policy")
    for epoch in range(3):
        host.epoch()
        seeds.epoch()
        made = host.replay.read(epoch * ROLLOUT * LANES, (epoch + 1) * ROLLOUT * LANES)
        on_device = seeds.runs[0].agent
        for agent, tolerance in ((host.agent, 0), (on_device, 1e-4)):
            obs = np.asarray(agent.shown["obs"]).reshape(-1, 2)
            np.testing.assert_allclose(obs, made["obs"], atol=tolerance)
            ended = (made["terminated"] | made["truncated"]).reshape(ROLLOUT, LANES)
            np.testing.assert_array_equal(agent.shown["ended"], ended)
            clock = (np.arange(ROLLOUT) + epoch * ROLLOUT) % EPISODE
            np.testing.assert_array_equal(agent.shown["clock"], np.tile(clock[:, None], LANES))
            assert int(agent.updates) == epoch + 1
    assert len(host.replay) == 3 * ROLLOUT * LANES  # The ring is written all the same.


def test_an_agent_of_rollouts_learns_to_go_where_it_is_paid():
    """x grows by 0.2 per step at most; at random it stays where it is."""
    host, _ = make_loops("on-policy", steps=150 * LANES * ROLLOUT)
    rewards = [host.epoch()[0]["reward/intrinsic"] for _ in range(150)]
    before, after = np.mean(rewards[:10]), np.mean(rewards[-10:])
    assert after > before + 0.03, (before, after)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"steps_per_update": 4},
            "steps_per_update is 4: expected it left out, as agent 'test_contracts:OnPolicy'",
        ),
        ({"min_replay": 5}, "min_replay is 5: expected it left out"),
    ],
)
def test_settings_of_the_replay_are_refused_for_an_agent_of_rollouts(changes, message):
    with pytest.raises(UserError, match=message):
        config_of("on-policy", **changes)


@pytest.mark.parametrize("changes", [{}, {"rollout_steps": EPISODE, "stagger_resets": True}])
def test_rollouts_that_would_cut_episodes_are_refused_for_an_agent_that_wants_them_whole(changes):
    config = config_of("on-policy")
    whole = replace(config.agent, batch=BatchSpec(source="rollout", whole_episodes=True))
    env = make_env("point", LANES, episode_steps=EPISODE)
    config = replace(config, agent=whole, **changes)
    with pytest.raises(UserError, match="episodes of 'point' have 12 steps: expected whole episodes"):
        Host(config, create_agent(config, env.env_spec), env)
    good = replace(config, rollout_steps=2 * EPISODE, stagger_resets=False)
    Host(good, create_agent(good, env.env_spec), env)


# --- Choices ----------------------------------------------------------------------------------------------------------


class Corridor(gymnasium.Env):
    """Right, left or nothing, numbered from 5: it moves along a line of 1 m steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0
        return np.float32([0, 1]), {}

    def step(self, action):
        self.x += {5: 1, 6: -1, 7: 0}[action]
        return np.float32([self.x / 10, 1]), 0.0, False, False, {}


def make_corridor():
    return Corridor()


class Choosing(OnPolicy):
    """The same in an environment of choices."""

    abilities = frozenset({"discrete"})

    def act(self, obs, carry, key, temperature=1.0):
        action, carry = super().act(obs, carry, key, temperature)
        return action.astype(bool), carry


def test_an_agent_chooses_and_learns_which_choice_pays(tmp_path):
    config = config_of("on-policy", steps=60 * LANES * ROLLOUT, eval_every=0)
    config = replace(config, env="test_contracts:make_corridor", agent_name="test_contracts:Choosing")
    run = pretrain(config, tmp_path / "run", quiet=True)
    loaded = load_checkpoint(run)
    assert (loaded.spec.action, loaded.spec.action_dim) == ("onehot", 3)
    rows = past(run, loaded, 10**6, 0)
    assert rows["action"].dtype == bool and (rows["action"].sum(axis=1) == 1).all()
    first, last = (part.mean(axis=0) for part in (rows["action"][:240], rows["action"][-240:]))
    assert first[0] < 0.6 < 0.8 < last[0]
    moved = rows["next_obs"][:, 0] - rows["obs"][:, 0]
    np.testing.assert_allclose(moved, rows["action"] @ [0.1, -0.1, 0.0], atol=1e-6)


def test_a_random_policy_chooses_each_as_often():
    env = make_env("test_contracts:make_corridor", 50, episode_steps=20)
    steps = rollout(env, uniform(env.env_spec), jax.random.key(0), 0, 20).steps
    np.testing.assert_allclose(steps.action.mean(axis=(0, 1)), 1 / 3, atol=0.06)
    config = replace(config_of("clocked"), agent=UniformConfig(), agent_name="uniform")
    agent = create_agent(config, env.env_spec)
    steps = rollout(env, acting(agent, temperature=1.0), jax.random.key(0), 0, 20).steps
    np.testing.assert_allclose(steps.action.mean(axis=(0, 1)), 1 / 3, atol=0.06)
    env.reset()
    with pytest.raises(UserError, match="got an action that is not one-hot"):
        env.step(np.zeros((50, 3)))


def test_an_agent_that_cannot_choose_is_refused_by_name():
    config = preset("metra", "point-quick")
    with pytest.raises(UnsupportedPrompt, match="Agent Metra cannot act by one-hot actions"):
        create_agent(config, make_env("test_contracts:make_corridor").env_spec)


# --- The pair itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
def test_act_returns_what_begin_does(name):
    """The same structure and dtypes, so that loops can carry it; also where some lanes begin anew."""
    host, _ = make_loops(name)
    plan, obs = host._plan(jax.random.key(0)), jnp.zeros((LANES, 2))
    carry = host.agent.begin(jax.random.key(1), LANES, plan)
    _, later = host.agent.act(obs, carry, jax.random.key(2))
    merged = begun(jnp.array([True, False, True]), carry, later)
    for other in (later, merged):
        assert jax.tree.structure(other) == jax.tree.structure(carry)
        assert [x.dtype for x in jax.tree.leaves(other)] == [x.dtype for x in jax.tree.leaves(carry)]
    for new, old, found in zip(*map(jax.tree.leaves, (carry, later, merged))):
        np.testing.assert_array_equal(found[::2], new[::2])
        np.testing.assert_array_equal(found[1], old[1])


def test_what_is_shared_is_never_masked():
    start, _ = hold_skill()
    agent = partial(lambda: None)
    agent.config = GoerConfig(z=SkillSpace("sphere", 2))
    old, new = (start(agent, jax.random.key(0), 3, (), All(task)) for task in (jnp.zeros(7), jnp.ones(7)))
    np.testing.assert_array_equal(begun(jnp.array([True, False, False]), new, old).shared, np.ones(7))
