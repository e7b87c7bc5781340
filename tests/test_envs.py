"""Environments: equal to Gymnasium's and dm_control's bit for bit, resumable, and clear about bad input."""

import re
import warnings
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from urlrl.envs import ENVS, make_env
from urlrl.envs.dmc import _STACKED, TASKS, DmcEnv, Stacked, suite
from urlrl.envs.gym import GymEnv, find_maker
from urlrl.envs.locomotion import ANT, HALF_CHEETAH, OGBENCH_ANT, LocomotionEnv, load_model
from urlrl.envs.pool import silenced
from urlrl.errors import UserError
from urlrl.loading import load_object
from urlrl.schemes import SCHEMES

DMC = ["walker_walk", "cheetah_run", "quadruped_walk", "humanoid_walk"]
# Besides these: one whose target is in the model, one with RK4, one whose tendons change, one asked lane by lane.
DMC_OTHERS = ["reacher_easy", "cartpole_swingup", "point_mass_hard", "quadruped_fetch"]


def actions_of(env, num_steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (num_steps, *env.action_space.shape))


def roll(env, actions):
    """Observations (T, n, obs) and rewards (T, n)."""
    steps = [env.step(action)[:2] for action in actions]
    return np.stack([obs for obs, _ in steps]), np.stack([reward for _, reward in steps])


class Toy(gymnasium.Env):
    """A point that moves by its action, in [-1, 3] x [-1, 3]; what it says of itself is a parameter."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 3.0, (2,), np.float64)

    def __init__(self, ends_at=None, cuts_at=None, metadata=None, start=0.0, **spaces):
        self.ends_at, self.cuts_at, self.metadata, self.start = ends_at, cuts_at, metadata or {}, start
        self.__dict__.update(spaces)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.t = np.append(self.start, self.np_random.normal(size=2)), 0
        return self.state, {}

    def step(self, action):
        self.state[1:] += action
        self.t += 1
        return self.state, float(action[0]), self.t == self.ends_at, self.t == self.cuts_at, {}


def make_toy():
    return Toy()


PLACE = {"names": ["x", "y"], "obs_index": [1, 2], "goal_box": [3.0, 2.0], "control_dt": 0.05}


# What every environment has in common


MAKERS = [*ENVS.values(), *(path for scheme in SCHEMES.values() for path in (scheme.host, scheme.device) if path)]


@pytest.mark.parametrize("path", MAKERS)
def test_every_maker_is_there(path):
    assert callable(load_object(path, "environment"))


@pytest.mark.parametrize("name", [*ENVS, "dmc:walker_walk", "gym:Pendulum-v1"])
def test_every_name_builds_and_agrees_with_its_spec(name):
    env = make_env(name, 3)
    spec = env.env_spec
    obs, _ = env.reset(seed=1)
    assert spec.id == name
    assert obs.shape == env.observation_space.shape == (3, spec.obs_dim)
    assert env.action_space.shape == (3, spec.action_dim)
    assert env.position().shape == (3, len(spec.position))
    assert env.physics().shape == (3, spec.physics_dim)
    obs, reward, terminated, truncated, _ = env.step(actions_of(env, 1)[0])
    assert obs.shape == (3, spec.obs_dim)
    assert reward.shape == terminated.shape == truncated.shape == (3,)
    assert terminated.dtype == truncated.dtype == bool
    if spec.obs_is_physics:
        assert np.array_equal(obs, env.physics())
    env.close()


@pytest.mark.parametrize("name", ["ant", "point", "dmc:walker_walk", "dmc:quadruped_walk", "gym:Pendulum-v1"])
def test_a_reset_depends_on_seed_lane_and_episode_alone(name):
    env, other = make_env(name, 3), make_env(name, 4)
    first, _ = env.reset(seed=5)
    roll(env, actions_of(env, 3))
    second, _ = env.reset()
    other.reset(seed=9)
    assert np.array_equal(other.reset(seed=5)[0][:3], first)
    assert np.array_equal(other.reset()[0][:3], second)  # Without steps in between.
    rows = np.concatenate([first, second, other.reset(seed=6)[0]])
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("name", ["half_cheetah", "point", "dmc:cheetah_run", "gym:Pendulum-v1"])
def test_reset_mask_touches_only_its_lanes(name):
    env = make_env(name, 3)
    env.reset(seed=0)
    (before,), _ = roll(env, actions_of(env, 1))
    mask = np.array([False, True, False])
    after, _ = env.reset(options={"reset_mask": mask})
    assert np.array_equal(after[~mask], before[~mask])
    assert not np.array_equal(after[mask], before[mask])
    assert env.clock.tolist() == [1, 0, 1]
    assert env.episode.tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", ["ant", "dmc:walker_walk", "gym:Pendulum-v1"])
def test_the_time_limit_truncates_and_an_ended_lane_keeps_still(name):
    env = make_env(name, 2, episode_steps=3)
    assert env.env_spec.episode_steps == 3
    env.reset(seed=0)
    for step in range(3):
        _, _, terminated, truncated, _ = env.step(actions_of(env, 1)[0])
        assert not terminated.any()
        assert (truncated == (step == 2)).all()
    with pytest.raises(RuntimeError, match=r"Lanes \[0, 1\] have ended"):
        env.step(actions_of(env, 1)[0])
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(RuntimeError, match=r"Lanes \[1\] have ended"):
        env.step(actions_of(env, 1)[0])


@pytest.mark.parametrize("name", [*ENVS, *(f"dmc:{task}" for task in DMC + DMC_OTHERS)])
def test_a_saved_state_continues_bit_for_bit_in_a_new_environment(name):
    env = make_env(name, 2, episode_steps=130)
    env.reset(seed=3)
    env.reset(options={"reset_mask": np.array([True, False])})
    actions = actions_of(env, 100)
    for warm_up in (0, 30):  # A state right after a reset, and one in the middle of an episode.
        for action in actions[:warm_up]:
            env.step(action)
        state = env.get_state()
        expected = roll(env, actions), env.reset()[0]
        other = make_env(name, 2, episode_steps=130)
        obs = other.set_state(state)
        env.set_state(state)
        assert np.array_equal(obs, env.reset(options={"reset_mask": np.zeros(2, bool)})[0])
        for resumed in (env, other):
            assert np.array_equal(resumed.clock, state["clock"])
            got = roll(resumed, actions), resumed.reset()[0]
            assert all(map(np.array_equal, (*got[0], got[1]), (*expected[0], expected[1])))
        env.reset(seed=4)


@pytest.mark.parametrize(
    "make", [lambda n, t: LocomotionEnv(ANT, n, threads=t), lambda n, t: DmcEnv("humanoid_walk", n, threads=t)]
)
def test_results_do_not_depend_on_the_number_of_lanes_or_threads(make):
    alone, one_thread, three_threads = make(1, None), make(7, 1), make(7, 3)
    actions = actions_of(one_thread, 40)
    for env in (alone, one_thread, three_threads):
        env.reset(seed=2)
    expected = roll(one_thread, actions)
    assert all(map(np.array_equal, roll(three_threads, actions), expected))
    assert all(np.array_equal(a, b[:, :1]) for a, b in zip(roll(alone, actions[:, :1]), expected))
    three_threads.close()


@pytest.mark.parametrize(
    "name, options",
    [
        ("ant", {}),
        ("half_cheetah", {}),
        ("point", {}),
        ("dmc:walker_walk", {"root_position": True}),
        ("dmc:cheetah_run", {"root_position": True}),
        ("dmc:quadruped_walk", {"root_position": True}),
        ("dmc:humanoid_walk", {"root_position": True}),
    ],
)
def test_goal_observations_are_resets_moved_to_the_goal(name, options):
    env = make_env(name, 2, **options)
    obs, _ = env.reset(seed=0)
    p = len(env.env_spec.position)
    goals = np.random.default_rng(0).uniform(-1, 1, (4, p)) * env.env_spec.goal_box
    near, far = env.goal_obs(0 * goals), env.goal_obs(goals)
    assert np.allclose(far[:, :p], goals)
    assert np.allclose(far[:, p:], near[:, p:], atol=1e-6)
    assert np.array_equal(obs[:, :p], env.position().astype(obs.dtype))
    assert np.array_equal(env.reset(options={"reset_mask": np.zeros(2, bool)})[0], obs)  # The lanes did not move.


# METRA's Ant and HalfCheetah


def gymnasium_twin(name, physics, **options):
    """Gymnasium's environment in the state `physics`, as after a reset."""
    twin = gymnasium.make(name, max_episode_steps=1000, **options)
    twin.reset(seed=0)
    inner = twin.unwrapped
    mujoco.mj_resetData(inner.model, inner.data)
    inner.set_state(physics[: inner.model.nq], physics[inner.model.nq :])
    return twin


def test_ant_equals_gymnasium():
    env = make_env("ant", 2)
    env.reset(seed=0)
    twin = gymnasium_twin(
        "Ant-v5",
        env.physics()[1],
        include_cfrc_ext_in_observation=False,
        terminate_when_unhealthy=False,
        exclude_current_positions_from_observation=False,
    )
    lags = []
    for action in actions_of(env, 200):
        x = env.position()[1, 0]
        obs, reward, *_ = env.step(action)
        twin_obs, _, _, _, info = twin.step(action[1])
        assert np.array_equal(obs[1], twin_obs)
        forward = (twin.unwrapped.data.qpos[0] - x) / 0.05
        assert reward[1] == forward + 1.0 + info["reward_ctrl"]  # Gymnasium's bonus of 1 stops while unhealthy.
        # Gymnasium's velocity is that of xpos, which dates from inside the last simulation step of 0.01 s.
        lags.append((forward - info["x_velocity"]) * 0.05)
    assert 1e-4 < max(map(abs, lags)) < 0.01 * 10  # m; the torso does not exceed 10 m/s.
    assert abs(sum(lags)) < 0.01 * 10  # It does not add up.


def test_half_cheetah_equals_gymnasium():
    env = make_env("half_cheetah", 2)
    env.reset(seed=0)
    with silenced("'settotalmass' is deprecated"):
        twin = gymnasium_twin("HalfCheetah-v5", env.physics()[1], exclude_current_positions_from_observation=False)
    for action in actions_of(env, 200):
        obs, reward, terminated, truncated, _ = env.step(action)
        twin_obs, twin_reward, *_ = twin.step(action[1])
        assert np.array_equal(obs[1], twin_obs)
        assert reward[1] == twin_reward
        assert not terminated.any()
    assert truncated.all()  # METRA's episodes of 200 steps.


@pytest.mark.parametrize("body", [ANT, HALF_CHEETAH, OGBENCH_ANT])
def test_reset_noise(body):
    env = LocomotionEnv(body, 500)
    obs, _ = env.reset(seed=0)
    noise, qvel = obs[:, : env.model.nq] - env.model.qpos0, obs[:, env.model.nq :]
    assert np.abs(noise).max() <= 0.1 + 1e-12
    assert np.allclose(noise.std(axis=0), 0.1 / np.sqrt(3), rtol=0.12)
    assert np.allclose(noise.mean(axis=0), 0, atol=0.012)
    assert np.allclose(qvel.std(axis=0), 0.1, rtol=0.12)
    assert np.allclose(qvel.mean(axis=0), 0, atol=0.02)


@pytest.mark.parametrize("name", ["ant", "half_cheetah"])
def test_published_normalisation_matches_random_rollouts(name):
    """The constants are those of random actions for 50 steps, so entries in another order would be seen here."""
    env = make_env(name, 100)
    env.reset(seed=0)
    obs = roll(env, actions_of(env, 50))[0].reshape(-1, env.env_spec.obs_dim)
    mean, std = np.array(env.env_spec.obs_mean), np.array(env.env_spec.obs_std)
    assert np.abs((obs.mean(axis=0) - mean) / std).max() < 0.25
    assert np.abs(np.log(obs.std(axis=0) / std)).max() < 0.25


def test_models_load_without_noise(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(HALF_CHEETAH)
        DmcEnv("cheetah_run", 1)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert not list(tmp_path.iterdir())  # MuJoCo writes its warnings into MUJOCO_LOG.TXT.


def test_other_warnings_of_mujoco_are_heard():
    xml = "<mujoco><compiler settotalmass='1'/><worldbody><body><geom size='1'/></body></worldbody></mujoco>"
    with pytest.warns(UserWarning, match="settotalmass"), silenced("another notice"):
        mujoco.MjModel.from_xml_string(xml)


# dm_control


def dm_control_twin(name, seed):
    with silenced("'settotalmass' is deprecated"):
        twin = suite.load(*TASKS[f"dmc:{name}"], environment_kwargs={"flat_observation": True})
    twin.task.random.seed(seed)
    return twin


@pytest.mark.parametrize("name", DMC + DMC_OTHERS)
def test_dmc_equals_dm_control(name):
    env = DmcEnv(name, 2)
    obs, _ = env.reset(seed=4)
    twin = dm_control_twin(name, [4, 1, 0])
    bounds = twin.action_spec()
    assert np.array_equal(obs[1], twin.reset().observation["observations"])
    assert env.env_spec.episode_steps == 1000
    for action in actions_of(env, 200):
        obs, reward, terminated, truncated, _ = env.step(action)
        half = (bounds.maximum - bounds.minimum) / 2
        expected = twin.step((bounds.maximum + bounds.minimum) / 2 + half * action[1])
        assert np.array_equal(obs[1], expected.observation["observations"])
        assert reward[1] == expected.reward
        assert not terminated.any() and not truncated.any()
    data = twin.physics.data
    assert np.array_equal(env.physics()[1], np.concatenate([data.qpos, data.qvel, data.act]))


@pytest.mark.parametrize("name", DMC)
def test_dmc_root_position_is_in_front_and_equals_the_torso(name):
    plain, env = DmcEnv(name, 2), DmcEnv(name, 2, root_position=True)
    plain.reset(seed=0), env.reset(seed=0)
    actions = actions_of(env, 20)
    p = len(env.env_spec.position)
    (obs, _), (plain_obs, _) = roll(env, actions), roll(plain, actions)
    assert np.array_equal(obs[..., p:], plain_obs)
    assert np.array_equal(obs[-1, :, :p], env.position())
    assert np.array_equal(env.position(), plain.position())
    assert np.abs(env.position()).min() > 0
    assert env.env_spec.goal_box and not plain.env_spec.goal_box


def test_dmc_terminates_where_the_discount_is_zero_but_not_at_the_time_limit(monkeypatch):
    env = DmcEnv("cheetah_run", 2, episode_steps=2)
    actions = actions_of(env, 2)

    def endings(*discounts):
        """What the last of these steps said, when the task returned these discounts."""
        env.reset(seed=0)
        for action, discount in zip(actions, discounts):
            monkeypatch.setattr(env.task, "get_termination", lambda physics, discount=discount: discount)
            _, _, terminated, truncated, _ = env.step(action)
        return terminated.tolist(), truncated.tolist()

    assert endings(0.0) == ([True, True], [False, False])
    assert endings(1.0) == ([False, False], [False, False])
    assert endings(None, 0.0) == ([False, False], [True, True])


def test_every_stacked_domain_is_compared_with_dm_control():
    compared = {type(suite.load(*TASKS[f"dmc:{name}"]).task) for name in DMC}
    assert compared == set(_STACKED)
    assert all(issubclass(stacked, Stacked) for stacked in _STACKED.values())


def test_dmc_refuses_a_simulation_that_diverged():
    env = DmcEnv("walker_walk", 2)
    env.reset(seed=0)
    state = env.get_state()
    state["simulation"][1, 1:] = 1e300
    env.set_state(state)
    with pytest.raises(UserError, match=r"simulation of 'dmc:walker_walk' is invalid \(.*lane 1, step 1"):
        env.step(actions_of(env, 1)[0])


# Gymnasium


def test_gym_equals_gymnasium_with_actions_mapped_to_its_box():
    env = make_env("gym:Pendulum-v1", 2)
    assert env.env_spec.episode_steps == 200
    assert not env.env_spec.exact_resume
    obs, _ = env.reset(seed=0)
    twin = gymnasium.make("Pendulum-v1").unwrapped
    twin.reset(seed=0)
    twin.state = np.array([np.arctan2(obs[1, 1], obs[1, 0]), obs[1, 2]])
    for action in actions_of(env, 50):
        obs, reward, *_ = env.step(action)
        twin_obs, twin_reward, *_ = twin.step(np.float32(2 * action[1]))
        assert np.allclose(obs[1], twin_obs, atol=1e-4)
        assert np.isclose(reward[1], twin_reward, atol=1e-4)


def test_gym_maps_actions_affinely():
    env = GymEnv("toy", Toy, 3)
    before, _ = env.reset(seed=0)
    obs, reward, *_ = env.step(np.array([[-1.0, -1.0], [0.0, 0.5], [7.0, 1.0]]))
    assert np.allclose(obs[:, 1:] - before[:, 1:], [[-1, -1], [1, 2], [3, 3]])
    assert reward.tolist() == [-1.0, 1.0, 3.0]


@pytest.mark.parametrize(
    "options, episode_steps, terminates, length",
    [
        ({"ends_at": 4}, None, True, 4),
        ({"cuts_at": 3}, None, False, 3),
        ({"cuts_at": 5}, 2, False, 2),
        ({"ends_at": 2, "cuts_at": 2}, 2, True, 2),
    ],
)
def test_gym_endings_pass_through(options, episode_steps, terminates, length):
    env = GymEnv("toy", lambda: Toy(**options), 2, episode_steps)
    env.reset(seed=0)
    for step in range(length):
        assert not env.ended.any(), step
        _, _, terminated, truncated, _ = env.step(np.zeros((2, 2)))
    assert (terminated == terminates).all()
    assert (truncated != terminates).all()


def test_gym_position_comes_from_metadata():
    env = GymEnv("toy", lambda: Toy(metadata={"position": PLACE}), 2)
    spec = env.env_spec
    assert (spec.position, spec.goal_box, spec.control_dt) == (("x", "y"), (3.0, 2.0), 0.05)
    obs, _ = env.reset(seed=0)
    assert np.array_equal(env.position(), obs[:, 1:])
    assert env.goal_obs(np.array([[1.0, 2.0], [3.0, 4.0]])).tolist() == [[0, 1, 2], [0, 3, 4]]
    assert np.array_equal(env.position(), obs[:, 1:])


def test_gym_resumes_at_the_next_episode():
    env, other = GymEnv("toy", Toy, 2), GymEnv("toy", Toy, 2)
    env.reset(seed=3)
    other.set_state(env.get_state())
    with pytest.raises(RuntimeError, match="have ended"):
        other.step(np.zeros((2, 2)))
    assert np.array_equal(other.reset()[0], env.reset()[0])


def test_a_users_function_makes_an_environment(tmp_path, monkeypatch):
    Path(tmp_path, "my_envs.py").write_text(
        "import gymnasium\n\nlimit = 5\n\ndef pendulum():\n    return gymnasium.make('Pendulum-v1')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    env = make_env("my_envs:pendulum", 2, episode_steps=7)
    assert (env.env_spec.id, env.env_spec.episode_steps) == ("my_envs:pendulum", 7)
    assert env.reset(seed=0)[0].shape == (2, 3)


# Bad input: one sentence


def toy(**options):
    return lambda: GymEnv("toy", lambda: Toy(**options), 1).reset(seed=0)


def place(**changes):
    return toy(metadata={"position": {**PLACE, **changes}})


BAD = {
    "name": (lambda: make_env("antt"), "Unknown environment 'antt': did you mean 'ant'"),
    "dmc task": (lambda: make_env("dmc:walker_wlk"), "'dmc:walker_wlk': did you mean 'dmc:walker_walk'"),
    "dmc unbounded": (lambda: make_env("dmc:lqr_lqr_2_1"), "has actions of shape .* finite bounds"),
    "dmc no root": (lambda: make_env("dmc:reacher_easy", root_position=True), "no option root_position"),
    "dmc no goals": (lambda: make_env("dmc:walker_walk").goal_obs(np.zeros((1, 1))), "expected root_position=True"),
    "root elsewhere": (lambda: make_env("ant", root_position=True), "'ant' has no option root_position"),
    "no copies": (lambda: make_env("ant", 0), "asked for 0 copies"),
    "no steps": (lambda: make_env("dmc:walker_walk", 1, episode_steps=0), "episodes of 0 steps"),
    "gym version": (lambda: make_env("gym:Pendulum-v9"), "`v9` .* did you mean 'gym:Pendulum-v1'"),
    "gym name": (lambda: make_env("gym:Pendulumm-v1"), "did you mean 'gym:Pendulum-v1'"),
    "gym module": (lambda: make_env("gym:no_such_module:Foo-v0"), "No module named 'no_such_module'"),
    "gym binary actions": (toy(action_space=gymnasium.spaces.MultiBinary(3)), r"MultiBinary\(3\): expected a flat Box"),
    "gym discrete obs": (lambda: make_env("gym:FrozenLake-v1"), r"observation space Discrete\(16\): expected a flat"),
    "gym image": (toy(observation_space=gymnasium.spaces.Box(0, 1, (4, 4))), r"observation space Box\(.*\(4, 4\)"),
    "gym unbounded": (toy(action_space=gymnasium.spaces.Box(-np.inf, 1, (2,))), "action space .* finite bounds"),
    "gym integers": (toy(action_space=gymnasium.spaces.Box(0, 9, (2,), int)), "action space .* expected real"),
    "user module": (lambda: make_env("no_such_module:make"), "No module named 'no_such_module'"),
    "user name": (lambda: make_env("urlrl.envs:nothing"), "module 'urlrl.envs' has no 'nothing'"),
    "user value": (lambda: make_env("urlrl.envs:ENVS"), "is a dict: expected a function"),
    "user result": (lambda: make_env("builtins:dict"), "is a dict: expected a gymnasium.Env"),
    "user half": (lambda: make_env(":make"), "environment ':make': expected 'module:name'"),
    "gym no width": (
        toy(action_space=gymnasium.spaces.Box(1, 1, (2,))),
        "action space .* the lower one below the upper",
    ),
    "gym too wide": (toy(action_space=gymnasium.spaces.Box(-1.7e308, 1.7e308, (2,), np.float64)), "finite bounds"),
    "gym no action": (toy(action_space=gymnasium.spaces.Box(-1, 1, (0,))), "action space .* with n at least 1"),
    "position kind": (toy(metadata={"position": [1]}), "expected a mapping with 'names' and 'obs_index'"),
    "position missing": (toy(metadata={"position": {"names": ["x"]}}), "expected a mapping with 'names'"),
    "position key": (place(goal=1), "not 'goal'"),
    "position names": (place(names="xy"), "a list of strings as 'names'"),
    "position index": (place(obs_index=[1, 3]), r"a list of integers in \[0, 3\) as 'obs_index'"),
    "position box": (place(goal_box=[1.0, -1.0]), "a list of positive numbers as 'goal_box'"),
    "position length": (place(goal_box=[1.0]), "of one length"),
    "position dt": (place(control_dt=0), "a positive number of seconds as 'control_dt'"),
    "gym no goals": (lambda: GymEnv("toy", Toy, 1).goal_obs(np.zeros((1, 2))), "'toy' has no goal positions"),
    "no end": (
        lambda: make_env("dmc:walker_walk", on_nonfinite="end"),
        "'dmc:walker_walk' has no option on_nonfinite: expected a gym: environment or your own",
    ),
    "no end of ours": (lambda: make_env("ant+noise3", on_nonfinite="end"), "'ant' has no option on_nonfinite"),
    "reset obs": (toy(start=np.nan), r"non-finite observation \(lane 0, step 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    run, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)


class Says(Toy):
    """Returns `found` of its second step, or of its reset."""

    def __init__(self, found, at):
        super().__init__()
        self.found, self.at = found, at

    def reset(self, *, seed=None, options=None):
        whole = super().reset(seed=seed)
        return self.found if self.at == 0 else whole

    def step(self, action):
        whole = super().step(action)
        return self.found if self.t == self.at else whole


def says(found, at=2):
    """What two copies of an environment made of two steps, the second of which returned `found`."""
    if isinstance(found, dict):
        parts = {"obs": 0, "reward": 1, "terminated": 2, "truncated": 3}
        (name, value), whole = *found.items(), [np.zeros(3), 0.0, False, False, {}]
        whole[parts[name]] = value
        found = tuple(whole)
    env = GymEnv("toy", lambda: Says(found, at), 2)
    env.reset(seed=0)
    for _ in range(2):
        result = env.step(np.zeros((2, 2)))
    return result


FOUR = "\\(observation, reward, terminated, truncated, info\\)"
WRONG = {
    "one number": ({"obs": np.ones(1)}, r"the observation .* of shape \(1,\) .*: expected numbers of shape \(3,\)"),
    "scalar": ({"obs": 5.0}, r"the observation 5\.0, of shape \(\) "),
    "too many": ({"obs": np.ones(5)}, r"the observation .* of shape \(5,\) "),
    "column": ({"obs": np.ones((3, 1))}, r"the observation .* of shape \(3, 1\) "),
    "text": ({"obs": "east"}, "the observation east, of type str "),
    "texts": ({"obs": np.array(["1", "2", "3"])}, "the observation .* of type ndarray "),
    "ragged": ({"obs": [1, [2, 3]]}, "the observation .* of type list "),
    "reward text": ({"reward": "x"}, "the reward x, of type str .*: expected one number"),
    "reward None": ({"reward": None}, "the reward None, of type NoneType .*: expected one number"),
    "rewards": ({"reward": np.zeros(2)}, r"the reward .* of shape \(2,\) "),
    "reward nan": ({"reward": np.nan}, "a non-finite reward "),
    "reward inf": ({"reward": np.array([np.inf], np.float32)}, "a non-finite reward "),
    "obs too large": (
        {"obs": np.full(3, 1e39)},
        "a non-finite observation .*: expected numbers that are finite as float32",
    ),
    "reward too large": ({"reward": -1e39}, "a non-finite reward "),
    "flag nan": ({"terminated": np.nan}, r"the termination nan, of shape \(\) .*: expected True or False"),
    "flag discount": ({"truncated": 0.99}, r"the truncation 0\.99, of shape \(\) "),
    "flag": ({"terminated": "no"}, "the termination no, of type str "),
    "flags": ({"truncated": np.zeros(2, bool)}, r"the truncation .* of shape \(2,\) "),
    "four": ((np.zeros(3), 0.0, False, {}), f": expected {FOUR}"),
    "nothing": (None, f"None, of type NoneType .*: expected {FOUR}"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_step_that_returns_something_else_is_refused(case):
    found, message = WRONG[case]
    where = r"\(lane 0, step 2 of its episode\): expected "
    with pytest.raises(UserError, match=f"^Environment 'toy' returned .*{message}") as caught:
        says(found)
    assert re.search(where, str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("found", [np.zeros(3), (np.zeros(2), {}), (np.zeros(3), 0.0, {})])
def test_a_reset_that_returns_something_else_is_refused(found):
    with pytest.raises(UserError, match=r"^Environment 'toy' returned .* \(lane 0, step 0 of its episode\): expected "):
        says(found, at=0)


def test_one_object_for_several_lanes_is_refused():
    same = Toy()
    for maker in (lambda: same, lambda: gymnasium.wrappers.TimeLimit(same, 5)):
        with pytest.raises(UserError, match="^Environment 'toy' gives the same object twice: expected a function"):
            GymEnv("toy", maker, 2)


def test_a_reset_that_takes_no_seed_is_refused(monkeypatch):
    monkeypatch.setattr(Toy, "reset", lambda self: np.zeros(3))
    with pytest.raises(UserError, match="^Environment 'toy' has a reset that takes no seed: expected Gymnasium's"):
        toy()()


@pytest.mark.parametrize(("part", "place"), [("reward", 1), ("terminated", 2), ("truncated", 3)])
def test_a_reward_or_flag_may_be_an_array_of_one(part, place):
    for value in (np.ones(1), np.ones((1, 1), np.float32), np.float32(1), np.array(1), np.bool_(True), 1):
        assert says({part: value})[place].tolist() == [1, 1]


@pytest.mark.parametrize("actions", [np.zeros((2, 1)), np.zeros(8), np.full((2, 8), np.nan)])
def test_bad_actions_are_refused(actions):
    env = make_env("ant", 2)
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"'ant' got actions of shape .* expected finite numbers of shape \(2, 8\)"):
        env.step(actions)


def test_find_maker_makes_registered_environments():
    assert find_maker("gym:Pendulum-v1")().spec.id == "Pendulum-v1"


def test_a_simulation_that_blows_up_is_refused_and_not_silently_reset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a file in the working directory.
    env = make_env("ant", 2)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros((2, 8)))
    env.pool.data[1].qvel[:] = 1e12
    with pytest.raises(UserError, match=r"lane 1 became unstable 0\.15 s into its episode"):
        env.step(np.zeros((2, 8)))
