"""Environments whose actions are skills, and single lanes as Gymnasium environments."""

import subprocess
import sys
import warnings
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from test_skills import make

from urlrl.envs import make_env
from urlrl.envs.base import LaneByLaneEnv
from urlrl.errors import UserError
from urlrl.skills import BUNDLES
from urlrl.skills.env import Z_SCALE, SkillEnv, SkillVectorEnv
from urlrl.skills.policy import SkillError, SkillPolicy
from urlrl.tasks.catalogue import find_task
from urlrl.tasks.single import SingleEnv, make_single
from urlrl.tasks.task import make_task_env
from urlrl.types import EnvSpec

OBS, ACT, EXTRA = 3, 2, 2  # of the policies that test_skills makes; a task's features behind the observation
MIX = np.random.default_rng(0).normal(size=(ACT, OBS)) / 2


def make_policy(obs=OBS, act=ACT, **options):
    return make(obs=obs, act=act, width=32, **options)


def acting(policy):
    """The pair by which a policy without memory acts."""
    return (lambda z: z), (lambda obs, z: (policy.act(obs, z), z))


def after(x, action):
    """The world of these tests: (OBS,), (ACT,) -> the next state and its reward. Not linear in time."""
    return 1.2 * np.cos(1.5 * x) + action @ MIX, float(np.sin(3 * x).sum())


class World(gymnasium.Env):
    """`after`, with features that the policy must not see, and an action box of its own."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS + EXTRA,))

    def __init__(self, dies_at=None, stops_at=None, low=-1.0, high=1.0):
        self.action_space = gymnasium.spaces.Box(low, high, (ACT,), np.float64)
        self.dies_at, self.stops_at, self.commands = dies_at, stops_at, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = np.array([0.3, -0.7, 1.1]), 0
        return self.shown(), {"start": True}

    def step(self, action):
        self.commands.append(action)
        self.x, reward = after(self.x, action)
        self.t += 1
        return self.shown(), reward, self.t == self.dies_at, self.t == self.stops_at, {"t": self.t}

    def shown(self):
        return np.append(self.x, [1e3, -1e3]).astype(np.float32)


def by_hand(policy, z, num_steps, x=(0.3, -0.7, 1.1)):
    """Feedback in a loop: the last state, the sum of rewards, the commands."""
    x, total, commands = np.array(x), 0.0, []
    for _ in range(num_steps):
        commands.append(policy.act(x.astype(np.float32), z).astype(np.float64))
        x, reward = after(x, commands[-1])
        total += reward
    return x, total, np.array(commands)


# --- SkillEnv


@pytest.mark.parametrize(
    ("kind", "action", "z"),
    [("sphere", [0.3, 0.4], [0.6, 0.8]), ("gaussian", [0.3, -0.4], [0.3 * Z_SCALE, -0.4 * Z_SCALE]), ("onehot", 1, 1)],
)
def test_an_option_is_k_steps_of_feedback_and_their_sum(kind, action, z):
    policy, k = make_policy(kind=kind), 7
    env = SkillEnv(World(), policy, k)
    obs, info = env.reset()
    assert info == {"start": True} and obs.shape == (OBS + EXTRA,)
    last, total, commands = by_hand(policy, np.float32(z) if kind != "onehot" else z, k)
    obs, reward, terminated, truncated, info = env.step(np.array(action))
    np.testing.assert_allclose(obs[:OBS], last, atol=1e-5)
    np.testing.assert_allclose(env.unwrapped.commands, commands, atol=1e-5)
    assert reward == pytest.approx(total, abs=1e-4)
    assert (terminated, truncated, info) == (False, False, {"t": k, "control_steps": k})
    assert np.ptp(env.unwrapped.commands, axis=0).min() > 1e-2  # A replay of the first action is something else.


def test_the_next_option_goes_on_from_where_the_last_one_ended():
    policy = make_policy()
    env = SkillEnv(World(), policy, 3)
    env.reset()
    env.step(np.array([1, 0]))
    obs, reward, *_ = env.step(np.array([0, 1]))
    middle, _, _ = by_hand(policy, np.float32([1, 0]), 3)
    last, total, _ = by_hand(policy, np.float32([0, 1]), 3, middle)
    np.testing.assert_allclose(obs[:OBS], last, atol=1e-5)
    assert reward == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize(("end", "flags"), [("dies_at", (True, False)), ("stops_at", (False, True))])
def test_an_episode_that_ends_ends_the_option(end, flags):
    policy = make_policy()
    env = SkillEnv(World(**{end: 4}), policy, 10)
    for _ in range(2):  # A reset starts anew.
        env.reset()
        obs, reward, terminated, truncated, info = env.step(np.array([1, 0]))
        last, total, _ = by_hand(policy, np.float32([1, 0]), 4)
        assert (terminated, truncated) == flags and info["control_steps"] == 4
        assert reward == pytest.approx(total, abs=1e-4)
        np.testing.assert_allclose(obs[:OBS], last, atol=1e-5)


def test_actions_fill_the_box_of_the_environment():
    policy = make_policy()
    env = SkillEnv(World(low=-1.0, high=3.0), policy, 1)
    obs, _ = env.reset()
    env.step(np.array([1, 0]))
    expected = 1 + 2 * policy.act(obs[:OBS], np.float32([1, 0])).astype(np.float64)
    np.testing.assert_allclose(env.unwrapped.commands[0], expected, atol=1e-6)


def test_one_hot_skills_are_indices_or_preferences():
    policy = make_policy(kind="onehot", dim=4)
    index, box = SkillEnv(World(), policy, 3), SkillEnv(World(), policy, 3, discrete=False)
    assert index.action_space == gymnasium.spaces.Discrete(4) and box.action_space.shape == (4,)
    index.reset()
    box.reset()
    preferred = box.step(np.array([-1, 0.2, 0.3, 0.1]))
    assert preferred[1] == index.step(np.int64(2))[1]
    assert preferred[1] != index.step(1)[1]


def refused(**spaces):
    env = World()
    env.__dict__.update(spaces)
    return env


box, dict_space = gymnasium.spaces.Box, gymnasium.spaces.Dict


@pytest.mark.parametrize(
    ("env", "options", "found"),
    [
        (World(), {"k": 0}, "k is 0: expected a whole number"),
        (World(), {"k": 2.5}, "k is 2.5: expected a whole number"),
        (World(), {"discrete": True}, "discrete is True: expected None or False"),
        (refused(observation_space=box(-1, 1, (OBS - 1,))), {}, "expected a flat Box of at least 3 numbers"),
        (refused(observation_space=box(-1, 1, (OBS, 1))), {}, "expected a flat Box of at least 3 numbers"),
        (refused(observation_space=dict_space(x=box(-1, 1, (OBS,)))), {}, "observes Dict.*expected a flat Box"),
        (refused(action_space=box(-1, 1, (ACT + 1,))), {}, "acts by Box.*expected a Box of 2 real numbers"),
        (refused(action_space=box(-np.inf, 1, (ACT,))), {}, "acts by Box.*with bounds"),
        (refused(action_space=box(-1, 1, (ACT,), np.int8)), {}, "acts by Box.*expected a Box of 2 real numbers"),
        (refused(action_space=gymnasium.spaces.Discrete(ACT)), {}, r"acts by Discrete\(2\)"),
        (World(low=-0.4, high=0.4), {}, r"acts by Box.*expected the bounds \[-1.0, -1.0\] to \[3.0, 3.0\]"),
        (refused(dt=0.02), {}, "has a control step of 0.02 s: expected 0.05 s"),
        (refused(metadata={"position": {"control_dt": 0.1}}), {}, "has a control step of 0.1 s: expected 0.05 s"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(env, options, found):
    with pytest.raises(SkillError, match=rf"{found}.*\.$"):
        SkillEnv(env, make_policy(), **options)


class Degrees(World):
    """The same in other units."""

    def shown(self):
        return (57.3 * super().shown()).astype(np.float32)


STOCK = {
    "Ant-v5": ("ant", {}, r"observes 0\.\d+ as 'qpos/root/x': expected .*, as the simulation has it\.$"),
    "Walker2d-v5": (
        "half_cheetah",
        {"exclude_current_positions_from_observation": False, "frame_skip": 25},
        "model has no joint for 'qpos/bthigh': expected the policy's body",
    ),
}


@pytest.mark.parametrize("name", STOCK)
def test_observations_that_are_not_those_of_the_bundle_are_refused(name):
    bundle, options, found = STOCK[name]
    env = SkillEnv(gymnasium.make(name, **options), SkillPolicy.from_pretrained(BUNDLES / bundle))
    with pytest.raises(SkillError, match=found):
        env.reset(seed=0)


def test_a_stock_environment_with_the_observations_of_the_bundle_is_accepted():
    whole = gymnasium.make("Ant-v5", exclude_current_positions_from_observation=False)
    env = SkillEnv(whole, SkillPolicy.from_pretrained(BUNDLES / "ant"), k=2)
    for seed in range(3):
        env.reset(seed=seed)
        env.step(env.policy.skills["east"])


def test_observations_in_other_units_are_refused():
    with pytest.raises(SkillError, match="observes 17.2 as 'entry_0': expected one near"):
        SkillEnv(Degrees(), make_policy()).reset()


@pytest.mark.parametrize(
    ("kind", "action"),
    [("sphere", a) for a in ([1, 0, 0], [[1, 0]], [np.nan, 0])] + [("onehot", a) for a in (2, -1, 0.5)],
)
def test_what_is_no_skill_is_refused(kind, action):
    env = SkillEnv(World(), make_policy(kind=kind))
    env.reset()
    with pytest.raises(SkillError, match="expected"):
        env.step(action)
    assert not env.unwrapped.commands


def test_what_is_no_policy_is_refused():
    with pytest.raises(SkillError, match="policy is a NoneType: expected a SkillPolicy"):
        SkillEnv(World(), None)


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(SkillError, match="expected a reset"):
        SkillEnv(World(), make_policy()).step(np.array([1, 0]))


def test_it_needs_gymnasium_and_the_runtime_alone():
    code = (
        "import sys, urlrl.skills.env; print(sorted(n for n in sys.modules if n.startswith('urlrl.')), "
        "sorted({'jax', 'mujoco', 'flax', 'torch', 'scipy'} & set(sys.modules)))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.strip() == "['urlrl.skills', 'urlrl.skills.env', 'urlrl.skills.policy'] []"


# --- SingleEnv


@pytest.mark.parametrize("name", ["half_cheetah_goal", "half_cheetah", "point_goal"])
def test_gymnasium_checks_a_single_lane(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That observations have no bounds, and that there is no spec to make it by.
        check_env(make_single(name))


def test_gymnasium_checks_skills_of_a_single_lane():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("sphere", "onehot"):
            check_env(SkillEnv(make_single("half_cheetah_goal"), make_policy(kind=kind, obs=18, act=6)))


def test_a_single_lane_is_the_lane():
    task = find_task("half_cheetah_goal")
    many, one = make_task_env(task), SingleEnv(make_task_env(task))
    rng = np.random.default_rng(0)
    for options, seed in ((None, 5), ({"reset_mask": np.ones(1, bool)}, None)):  # Its next episode, too.
        expected, _ = many.reset(seed=seed, options=options)
        obs, _ = one.reset(seed=seed)
        assert obs.dtype == np.float32 and np.array_equal(obs, expected[0].astype(np.float32))
        for t in range(200):
            action = rng.uniform(-1, 1, (1, 6)).astype(np.float32)
            expected, reward, _, truncated, _ = many.step(action)
            obs, single_reward, ended, stopped, _ = one.step(action[0])
            assert np.array_equal(obs, expected[0].astype(np.float32)) and single_reward == reward[0]
            assert (ended, stopped) == (False, t == 199) and stopped == truncated[0]
    many.close()
    one.close()


def test_a_single_lane_without_a_seed_draws_one():
    first = [make_single("half_cheetah_goal").reset()[0] for _ in range(2)]
    assert not np.array_equal(*first)


def test_single_lanes_refuse_several_and_unknown_names():
    with pytest.raises(UserError, match="'point' has 2 lanes: expected an environment of one"):
        SingleEnv(make_env("point", 2))
    with pytest.raises(UserError, match="Unknown task or environment 'half_cheeta_goal': did you mean"):
        make_single("half_cheeta_goal")


# --- SkillVectorEnv


class Worlds(LaneByLaneEnv):
    """`after` in lanes that start anew in every episode, die where the state gets large, and stop by the clock."""

    LIMIT, STEPS = 1.57, 9

    def __init__(self, num_envs):
        super().__init__(EnvSpec("worlds", OBS + EXTRA, ACT, self.STEPS, None), num_envs)
        self.x = np.zeros((num_envs, OBS))

    def _reset_lane(self, lane, seed):
        self.x[lane] = start(lane, self.episode[lane])

    def _step(self, actions):
        rows = [after(x, action) for x, action in zip(self.x, actions)]
        self.x = np.stack([x for x, _ in rows])
        return np.array([reward for _, reward in rows]), np.abs(self.x).max(axis=1) > self.LIMIT

    def _obs(self):
        return np.concatenate([self.x, np.full((self.num_envs, EXTRA), 1e3)], axis=1)


def start(lane, episode):
    return np.random.default_rng([lane, episode]).uniform(-1, 1, OBS)


class Lane:
    """What one lane should do, on its own."""

    ends = True

    def begin(self, lane, episode):
        self.x, self.t = start(lane, episode), 0

    def perform(self, policy, z, k):
        total, died, stopped, taken = 0.0, False, False, 0
        while taken < k and not (self.ends and (died or stopped)):
            self.x, reward = after(self.x, policy.act(self.x.astype(np.float32), z).astype(np.float64))
            total, taken, self.t = total + reward, taken + 1, self.t + 1
            died |= np.abs(self.x).max() > Worlds.LIMIT
            stopped |= self.t == Worlds.STEPS and not died
        return self.x, total, died, stopped, taken


class GoesOn(Lane):
    """Wrong: performs all k steps, whatever happens."""

    ends = False


def run_lanes(reference=Lane, num_envs=6, k=4, num_options=60):
    """Options of lanes that end at different times, each beside its reference: rows of (lanes, references, taken)."""
    policy, rng = make_policy(), np.random.default_rng(0)
    worlds, lanes = Worlds(num_envs), [reference() for _ in range(num_envs)]
    env = SkillVectorEnv(worlds, *acting(policy), 2, k, OBS)
    env.reset(seed=0)
    begun, rows = np.ones(num_envs, bool), []
    for _ in range(num_options):
        for i in np.flatnonzero(begun):
            lanes[i].begin(i, worlds.episode[i])
        z = policy.sample(rng, num_envs)
        before = env.control_steps
        obs, reward, terminated, truncated, info = env.step(z)
        got = [
            (obs[i, :OBS], reward[i], terminated[i], truncated[i], info["control_steps"][i]) for i in range(num_envs)
        ]
        rows.append((got, [lane.perform(policy, skill, k) for lane, skill in zip(lanes, z)]))
        assert env.control_steps - before == sum(row[-1] for row in got)
        begun = terminated | truncated
        if begun.any():
            obs, _ = env.reset(options={"reset_mask": begun})
            for i in np.flatnonzero(~begun):  # The reset of others leaves a lane where it is.
                assert np.array_equal(obs[i, :OBS], got[i][0])
    return rows


def assert_rows_agree(rows):
    for got, expected in rows:
        for mine, reference in zip(got, expected):
            np.testing.assert_allclose(mine[0], reference[0], atol=1e-4)
            assert mine[1] == pytest.approx(reference[1], abs=1e-3)
            assert mine[2:] == reference[2:]


def test_lanes_that_end_at_different_times_do_what_each_would_do_alone():
    rows = run_lanes()
    assert_rows_agree(rows)
    flags = np.array([[lane[2:] for lane in got] for got, _ in rows])  # (options, lanes, 3)
    died, stopped, taken = flags[..., 0] == 1, flags[..., 1] == 1, flags[..., 2]
    assert died.sum() > 20 and stopped.sum() > 20 and not (died & stopped).any()
    assert ((taken < 4).any(axis=1) & (taken == 4).any(axis=1)).sum() > 20  # Some wait while others go on.
    assert set(np.unique(taken)) == {1, 2, 3, 4}


def test_the_comparison_sees_a_lane_that_goes_on():
    with pytest.raises(AssertionError):
        assert_rows_agree(run_lanes(GoesOn))


def test_a_lane_that_ended_must_be_reset():
    policy, env = make_policy(), SkillVectorEnv(Worlds(2), *acting(make_policy()), 2, 20, OBS)
    z = policy.sample(np.random.default_rng(0), 2)
    with pytest.raises(RuntimeError, match=r"Lanes \[0, 1\] have ended"):
        env.step(z)
    env.reset(seed=0)
    env.step(z)  # 20 steps are more than an episode.
    env.reset(options={"reset_mask": np.array([False, True])})
    with pytest.raises(RuntimeError, match=r"Lanes \[0\] have ended"):
        env.step(z)


def test_vector_skills_refuse_what_does_not_fit():
    with pytest.raises(SkillError, match="k is 0"):
        SkillVectorEnv(Worlds(1), *acting(make_policy()), 2, 0, OBS)
    with pytest.raises(SkillError, match="at least 6 numbers"):
        SkillVectorEnv(Worlds(1), *acting(make_policy()), 2, 1, OBS + EXTRA + 1)


def test_one_lane_of_the_vector_is_the_single_one():
    task = replace(find_task("half_cheetah_goal"), half=3.0)
    policy = make_policy(kind="sphere", obs=18, act=6)
    single = SkillEnv(SingleEnv(make_task_env(task)), policy, 25)
    vector = SkillVectorEnv(make_task_env(task), *acting(policy), 2, 25, 18)
    single.reset(seed=3)
    vector.reset(seed=3)
    rewards = []
    for z in policy.sample(np.random.default_rng(0), 8):
        obs, reward, _, stopped, _ = single.step(z)
        rows, row_reward, _, truncated, _ = vector.step(z[None])
        np.testing.assert_allclose(obs, rows[0], atol=1e-3)
        assert reward == row_reward[0] and stopped == truncated[0]
        rewards.append(reward)
    assert stopped and sum(rewards) > 0


def earned(task: str, choose, episodes: int = 8) -> np.ndarray:
    """The rewards of all options, (episodes, 8), of the skills that are chosen by `choose(policy, rng, obs)`."""
    policy, rng = SkillPolicy.from_pretrained(BUNDLES / "half_cheetah"), np.random.default_rng(0)
    env, rows = SkillEnv(make_single(task), policy, k=25), []
    for seed in range(episodes):
        obs, ended, row = env.reset(seed=seed)[0], False, []
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(choose(policy, rng, obs))
            row.append(reward)
            ended = terminated or truncated
        rows.append(row)
    env.close()
    return np.array(rows)


def any_skill(policy, rng, obs):
    return int(rng.integers(16))


def toward_the_goal(policy, rng, obs):
    return int(np.argmax(policy.aim(policy.goal(x=obs[18]), obs[:18])))


def test_the_pages_task_pays_for_a_random_choice_of_skills():
    """Learning over skills needs rewards of different sizes before anything is learned; far goals give none."""
    rewards = earned("half_cheetah_approach", any_skill)
    assert rewards.shape == (8, 8) and (np.abs(rewards) > 0.1).mean() > 0.5 and rewards.std() > 1
    assert not earned("half_cheetah_goal", any_skill).any()
    assert earned("half_cheetah_approach", toward_the_goal).sum(axis=1).mean() > 3 + rewards.sum(axis=1).mean()
