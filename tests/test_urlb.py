"""URLB's tasks: the sheet's known-correct behaviour (E1-E7), and rewards from physics rows against the simulators'."""

from functools import cache

import mujoco
import numpy as np
import pytest
from dm_control.utils import rewards

from urlrl.envs import make_env
from urlrl.envs.jaco import NAMES, JacoEnv, composer, make_simulation
from urlrl.envs.rewards import reach_reward, tolerance
from urlrl.errors import UserError
from urlrl.tasks.catalogue import TASKS, URLB_TASKS, ZERO_SHOT_TASKS, find_task
from urlrl.tasks.features import evaluate, features
from urlrl.tasks.task import make_task_env
from urlrl.tasks.urlb import EXPERTS, FLOORS, urlb_task

NEW = ("cheetah_walk_backward", "point_mass_maze_reach_top_left")
SITE_TASKS = tuple(name for name in TASKS if name.startswith("jaco_site"))


def random_actions(env, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, env.action_space.shape)


def roll(name, num_envs, policy="zero", seed=0, num_steps=None):
    """Physics rows (T, n, P), actions (T, n, A) and the environment's own rewards (T, n)."""
    env = make_env(name, num_envs)
    env.reset(seed=seed)
    rng, rows = np.random.default_rng(seed), []
    for _ in range(num_steps or env.env_spec.episode_steps):
        shape = env.action_space.shape
        action = np.zeros(shape) if policy == "zero" else rng.uniform(-1, 1, shape)
        _, reward, _, _, _ = env.step(action)
        rows.append((env.physics(), action, reward))
    env.close()
    return [np.stack(part) for part in zip(*rows)]


def returns(task, physics, action=None):
    """(n,): of whole episodes."""
    return find_task(task).reward(physics, action).sum(axis=0)


def standard_error(x):
    return x.std(ddof=1) / np.sqrt(len(x))


@cache
def model_of(env_name):
    return make_env(env_name).model


def row_of(env_name, **qpos_or_qvel):
    """A physics row of the model's own pose, with some joints' coordinates or (`<joint>_vel`) velocities changed."""
    model = model_of(env_name)
    row = np.concatenate([model.qpos0, np.zeros(model.nv + model.na)])
    for name, value in qpos_or_qvel.items():
        joint = model.joint(name.removesuffix("_vel"))
        row[model.nq + joint.dofadr[0] if name.endswith("_vel") else joint.qposadr[0]] = value
    return row


# E1: spaces, lengths, ends


@pytest.mark.parametrize(
    "name, obs, act, physics, steps, dt",
    [
        ("dmc:walker_stand", 24, 6, 18, 1000, 0.025), ("dmc:quadruped_walk", 78, 12, 57, 1000, 0.02),
        ("dmc:cheetah_run", 17, 6, 18, 1000, 0.01), ("dmc:cartpole_swingup", 5, 1, 4, 1000, 0.01),
        ("point_mass_maze", 4, 2, 4, 1000, 0.02),
        ("jaco:brick_top_left", 55, 9, 31, 250, 0.04), ("jaco:site_top_left", 42, 9, 18, 250, 0.04),
    ],
)  # fmt: skip
def test_e1_spaces_and_lengths(name, obs, act, physics, steps, dt):
    spec = make_env(name).env_spec
    found = spec.obs_dim, spec.action_dim, spec.physics_dim, spec.episode_steps, spec.control_dt
    assert found == pytest.approx((obs, act, physics, steps, dt))


def test_every_task_builds():
    urlb = {name for names in URLB_TASKS.values() for name in names}
    of_fre = {"walker_velocity_0.1", "walker_velocity_4"}
    assert set(FLOORS) == urlb | of_fre | {name for names in ZERO_SHOT_TASKS.values() for name in names}
    for name in FLOORS:
        task = find_task(name)
        assert task.name == name and task.env in task.runs_on
        assert task.expert == EXPERTS.get(name) and (task.expert is None) == (name not in urlb)
    with pytest.raises(UserError, match="Unknown URLB task 'walker_fly': did you mean 'walker_flip'"):
        urlb_task("walker_fly")


@pytest.mark.parametrize("name", ["walker_flip", "quadruped_jump", "jaco_brick_reach_bottom_left", SITE_TASKS[1], *NEW])
def test_a_task_is_scored_in_its_environment(name):
    env = make_task_env(find_task(name), 2)
    env.reset(seed=0)
    _, reward, _, _, _ = env.step(random_actions(env))
    assert reward.shape == (2,) and (reward >= 0).all() and (reward <= 1).all()
    env.close()


# E2: the building block


def test_e2_tolerance():
    assert tolerance(np.array([0.6, 0.9, 1.2, 5.0]), 1.2, np.inf, 0.6) == pytest.approx([0.1, 0.5623413, 1, 1])
    distances = np.array([0.05, 0.075, 0.10, 0.15])
    assert tolerance(distances, 0, 0.05, 0.05) == pytest.approx([1, 0.562341, 0.1, 1e-4])
    assert reach_reward(distances[:, None] * [[0, 1, 0]], (0, 0, 0)) == pytest.approx([1, 0.562341, 0.1, 1e-4])
    assert tolerance(np.array([-1e-9, 0, 1]), 0, 1, 0).tolist() == [0, 1, 1]


@pytest.mark.parametrize("kind", ["gaussian", "linear", "quadratic"])
def test_tolerance_is_dm_controls(kind):
    x = np.linspace(-5, 5, 101)
    expected = rewards.tolerance(x, (-1, 0.5), 2.0, kind, 0.3)
    assert tolerance(x, -1, 0.5, 2.0, 0.3, kind) == pytest.approx(expected, abs=1e-15)


def test_e2_ramps():
    flip, walk = find_task("walker_flip").reward, find_task("quadruped_walk").reward
    rate = 2.5 / 7.21  # rad/s at which half of the angular momentum is there
    assert flip(row_of("dmc:walker_walk", rooty_vel=rate), None) == pytest.approx((5 * 0.5 + 1) / 6, abs=1e-3)
    rows = np.stack([row_of("dmc:quadruped_walk", root_vel=v) for v in (0.0, -0.5, 0.25, 0.5)])
    assert walk(rows, None) == pytest.approx([0.5, 0, 0.75, 1])


# E3, E4: known poses


def forward_is_up(angular_momentum):
    """E3, of a function of physics rows."""
    rates = np.array([-1.0, 0.5, 1.0])
    rows = np.stack([row_of("dmc:walker_walk", rooty_vel=rate) for rate in rates])
    return np.allclose(angular_momentum(rows) / rates, 7.21, atol=0.02)


def test_e3_angular_momentum_of_the_straight_walker():
    found = features("dmc:walker_walk")["ly"]
    action = np.zeros((3, 6))
    assert forward_is_up(lambda rows: found(rows, action))
    assert not forward_is_up(lambda rows: -found(rows, action))  # The swapped sign.
    torso = features("dmc:walker_walk")["pitch_vel"]  # Of the torso alone, not of the whole body.
    assert not forward_is_up(lambda rows: torso(rows, action))


def test_e4_a_quadruped_that_stands_still():
    model = model_of("dmc:quadruped_run")
    data = mujoco.MjData(model)
    data.joint("root").qpos[2] = 0.6
    mujoco.mj_step(model, data, 1000)
    row = np.concatenate([data.qpos, data.qvel, data.act])
    found = [float(find_task(task).reward(row, None)) for task in URLB_TASKS["quadruped"]]
    assert found == pytest.approx([1.0, 0.5, 0.5, 0.721], abs=5e-3)
    assert [FLOORS[task]["stand_still"].mean / 1000 for task in URLB_TASKS["quadruped"]] == pytest.approx(
        found, abs=5e-3
    )
    walker = row_of("dmc:walker_walk")
    found = [float(find_task(task).reward(walker, None)) for task in URLB_TASKS["walker"]]
    assert found == pytest.approx([1, 1 / 6, 1 / 6, 1 / 6])


# Rewards from physics rows are the simulators' own


@pytest.mark.parametrize(
    "env, task",
    [
        ("dmc:walker_stand", "walker_stand"), ("dmc:walker_walk", "walker_walk"), ("dmc:walker_run", "walker_run"),
        ("dmc:quadruped_walk", "quadruped_walk"), ("dmc:quadruped_run", "quadruped_run"),
        ("dmc:cheetah_run", "cheetah_run"),
        ("jaco:brick_top_left", "jaco_brick_reach_top_left"), ("jaco:site_top_left", "jaco_site_reach_top_left"),
    ],
)  # fmt: skip
def test_rewards_equal_the_simulators_along_random_rollouts(env, task):
    physics, _, reward = roll(env, 8, "random", num_steps=100)
    np.testing.assert_allclose(find_task(task).reward(physics, None), reward, atol=1e-12, rtol=0)


@pytest.mark.parametrize("task, env", [("walker_flip", "dmc:walker_run"), ("quadruped_jump", "dmc:quadruped_walk")])
def test_urlbs_own_tasks_by_mujocos_subtree_quantities(task, env):
    physics, _, _ = roll(env, 4, "random", num_steps=40)
    model = model_of(env)
    data, expected = mujoco.MjData(model), []
    for row in physics.reshape(-1, physics.shape[-1]):
        data.qpos[:], data.qvel[:] = row[: model.nq], row[model.nq : model.nq + model.nv]
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        torso = data.body("torso")
        upright = (1 + torso.xmat[8]) / 2
        if task == "walker_flip":
            standing = rewards.tolerance(torso.xpos[2], (1.2, np.inf), 0.6)
            expected.append((3 * standing + upright) / 4 * (5 * np.clip(torso.subtree_angmom[1] / 5, 0, 1) + 1) / 6)
        else:
            expected.append(upright * np.clip(0.5 + 0.5 * torso.subtree_com[2], 0, 1))
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(find_task(task).reward(physics, None).ravel(), expected, atol=1e-12, rtol=0)


# The cheetah: run is the suite's, the other directions and speeds are made of the same tolerance


SPEEDS = {"cheetah_run": 10.0, "cheetah_run_backward": -10.0, "cheetah_walk": 2.0, "cheetah_walk_backward": -2.0}  # m/s


@cache
def cheetah_rows():
    """States of random episodes and of a body thrown about, (n, 18), and the velocity of its centre of mass (n,)."""
    physics = roll("dmc:cheetah_run", 4, "random", num_steps=40)[0].reshape(-1, 18)
    rows = np.concatenate([physics, 4 * np.random.default_rng(0).normal(size=(200, 18))])
    model = model_of("dmc:cheetah_run")
    data, speed = mujoco.MjData(model), []
    for row in rows:
        data.qpos[:], data.qvel[:] = row[:9], row[9:]
        mujoco.mj_forward(model, data)
        speed.append(data.sensor("torso_subtreelinvel").data[0])
    return rows, np.array(speed)


def are_the_cheetahs(reward):
    """Of a function of a task's name and physics rows."""
    rows, speed = cheetah_rows()
    for name, full in SPEEDS.items():
        along, full = np.sign(full) * speed, abs(full)
        expected = rewards.tolerance(along, (full, np.inf), margin=full, value_at_margin=0, sigmoid="linear")
        assert 0 < (expected == 0).mean() < 0.9 and len(np.unique(expected)) > 50
        if not np.allclose(reward(name, rows), expected, atol=1e-12, rtol=0):
            return False
    return True


def cheetah_reward_of(velocity):
    return lambda name, rows: np.clip(velocity(rows) / SPEEDS[name], 0, 1)


WRONG_CHEETAHS = {
    "the root joint's velocity": cheetah_reward_of(lambda rows: rows[:, 9]),
    "backward is forward": lambda name, rows: find_task(name.removesuffix("_backward")).reward(rows, None),
    "half at half speed": lambda name, rows: (1 + find_task(name).reward(rows, None)) / 2,
    "speed in any direction": lambda name, rows: np.clip(np.abs(cheetah_rows()[1] / SPEEDS[name]), 0, 1),
    "runs at a walk": lambda name, rows: find_task(name.replace("run", "walk")).reward(rows, None),
}


def test_the_cheetahs_rewards_are_tolerances_of_the_whole_bodys_velocity():
    assert are_the_cheetahs(lambda name, rows: find_task(name).reward(rows, None))
    assert are_the_cheetahs(cheetah_reward_of(lambda rows: cheetah_rows()[1]))


@pytest.mark.parametrize("wrong", WRONG_CHEETAHS)
def test_a_wrong_reward_of_the_cheetah_is_found(wrong):
    assert not are_the_cheetahs(WRONG_CHEETAHS[wrong])


def test_a_cheetah_that_moves_as_a_whole():
    speeds = np.array([-12.0, -10.0, -5.0, -1.0, 0.0, 0.5, 2.0, 9.0, 20.0])
    rows = np.stack([row_of("dmc:cheetah_run", rootx_vel=v, rootz_vel=3.0) for v in speeds])
    expected = {
        "cheetah_run": [0, 0, 0, 0, 0, 0.05, 0.2, 0.9, 1],
        "cheetah_run_backward": [1, 1, 0.5, 0.1, 0, 0, 0, 0, 0],
        "cheetah_walk": [0, 0, 0, 0, 0, 0.25, 1, 1, 1],
        "cheetah_walk_backward": [1, 1, 1, 0.5, 0, 0, 0, 0, 0],
    }
    for name, rewards_ in expected.items():
        assert find_task(name).reward(rows, None) == pytest.approx(rewards_, abs=1e-12)
        assert find_task(name).stand_still == 0


def test_the_cheetah_weighs_14_kg():
    """Its model says so by an attribute that MuJoCo is about to drop; the velocities of the rewards hang on it."""
    assert model_of("dmc:cheetah_run").body_subtreemass[1] == pytest.approx(14)


# E5, E7: what policies that know nothing return


def check_floors(tasks, policy, physics, action=None):
    for task in tasks:
        found, floor = returns(task, physics, action), FLOORS[task][policy]
        own = standard_error(found)
        error = np.hypot(own, own if floor.error is None else floor.error)
        assert abs(found.mean() - floor.mean) <= 3 * error + 0.5, (task, policy, found.mean(), floor)


def test_e5_zero_action_floors_of_the_walker():
    physics, _, _ = roll("dmc:walker_walk", 12)
    check_floors(URLB_TASKS["walker"], "zero", physics)
    with pytest.raises(AssertionError):  # A posture that forgets to be divided by 4.
        check_floors(["walker_stand"], "zero", np.tile(physics, (4, 1, 1)))


def test_e5_zero_action_floors_of_the_quadruped():
    """Two kinds of episodes, decided by how it lands: their share has an s.e. of 11 % here, their returns none."""
    physics, _, _ = roll("dmc:quadruped_run", 16)
    check_floors(URLB_TASKS["quadruped"], "zero", physics)
    upright = returns("quadruped_stand", physics) > 500
    assert 0 < upright.mean() < 0.6
    for task in URLB_TASKS["quadruped"]:
        found, still = returns(task, physics), FLOORS[task]["stand_still"].mean
        assert (found[upright] > 0.95 * still).all() and (found[upright] < 1.05 * still).all(), task
        assert (found[~upright] < 0.1 * still).all(), task


@pytest.mark.parametrize("task", URLB_TASKS["jaco"])
def test_e5_zero_action_floors_of_jaco(task):
    physics, _, reward = roll(find_task(task).env, 2)
    assert returns(task, physics) == pytest.approx(reward.sum(axis=0), abs=1e-9)
    assert (returns(task, physics) < 0.05).all()


@pytest.mark.parametrize("policy", ["zero", "random"])
@pytest.mark.parametrize("domain, env", [("cheetah", "dmc:cheetah_run"), ("point_mass_maze", "point_mass_maze")])
def test_e5_floors_of_the_cheetah_and_the_maze(domain, env, policy):
    check_floors(ZERO_SHOT_TASKS[domain], policy, *roll(env, 12, policy)[:2])


@pytest.mark.slow
@pytest.mark.parametrize("policy, quadrupeds", [("zero", 400), ("random", 100)])
def test_e5_floors_in_full(policy, quadrupeds):
    check_floors(URLB_TASKS["walker"], policy, roll("dmc:walker_walk", 50, policy)[0])
    check_floors(URLB_TASKS["quadruped"], policy, roll("dmc:quadruped_run", quadrupeds, policy)[0])
    for task in URLB_TASKS["jaco"]:
        check_floors([task], policy, roll(find_task(task).env, 20, policy)[0])
    check_floors(SITE_TASKS, policy, roll("jaco:site_top_left", 100, policy)[0])
    check_floors(ZERO_SHOT_TASKS["cheetah"], policy, *roll("dmc:cheetah_run", 100, policy, seed=1)[:2])
    check_floors(ZERO_SHOT_TASKS["point_mass_maze"], policy, *roll("point_mass_maze", 400, policy, seed=1)[:2])


def test_e7_cheetah_with_random_actions():
    physics, action, _ = roll("dmc:cheetah_run", 20, "random")
    found = features("dmc:cheetah_run")
    vx, ly = evaluate([found["vx"], found["ly"]], physics, action)
    for speed, mean, error in ((-vx / 10, 20.5, 0.7), (ly / 5, 153, 2), (-ly / 5, 148, 2), (vx / 10, 3.6, 0.3)):
        total = np.clip(speed, 0, 1).sum(axis=0)
        assert abs(total.mean() - mean) <= 3 * np.hypot(standard_error(total), error)


# E6: what observations alone say


def test_e6_rewards_of_observations():
    def upright(zz):
        return (1 + zz) / 2

    walker = make_env("dmc:walker_stand", 8)
    quadrupeds = {speed: make_env(f"dmc:quadruped_{name}", 8) for speed, name in ((0.5, "walk"), (5.0, "run"))}
    for env in (walker, *quadrupeds.values()):
        env.reset(seed=0)
    for step in range(50):
        obs, reward, *_ = walker.step(random_actions(walker, step))
        stand = (3 * tolerance(obs[:, 14], 1.2, np.inf, 0.6) + upright(obs[:, 0])) / 4
        np.testing.assert_allclose(reward, stand, atol=1e-7)
        for speed, env in quadrupeds.items():
            obs, reward, *_ = env.step(random_actions(env, step))
            move = np.clip(0.5 + 0.5 * obs[:, 44] / speed, 0, 1)
            np.testing.assert_allclose(reward, upright(obs[:, 47]) * move, atol=1e-7)
            stand = find_task("quadruped_stand").reward(env.physics(), None)
            np.testing.assert_allclose(stand, upright(obs[:, 47]), atol=1e-12)


def reward_of_obs(obs, shift):
    """Of the brick's version: the observed point is `shift` m up the brick's z axis from the one that counts."""
    w, x, y, z = obs[:, 48:52].T
    axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)
    return reach_reward(obs[:, 30:33], obs[:, 52:55] - shift * axis)


def test_e6_jaco_needs_the_shift_of_the_observed_brick():
    env = JacoEnv("brick_top_left", 16)
    obs, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for data, hand in zip(env._data, obs[:, 30:33]):  # Bricks that fall from just below the hand, turned anyhow.
        data.joint("duplo2x4/").qpos[:] = np.concatenate([hand - (0, 0, 0.07), rng.normal(size=4)])
        mujoco.mj_forward(env.model, data)
    errors = {0.0119: 0.0, 0.0: 0.0}
    for step in range(5):
        obs, reward, *_ = env.step(random_actions(env, step))
        for shift in errors:
            errors[shift] = max(errors[shift], np.abs(reward - reward_of_obs(obs, shift)).max())
    assert errors[0.0119] < 2e-3  # The sheet rounds it.
    assert errors[0.0] > 0.1  # The shift left out.


def test_e6_the_site_is_where_observations_do_not_say():
    site = JacoEnv("site_top_left", 8)
    site.reset(seed=0)
    for step in range(20):
        obs, reward, *_ = site.step(random_actions(site, step))
        np.testing.assert_allclose(reach_reward(obs[:, 30:33], (-0.09, 0.09, 0.001)), reward, atol=1e-12)


# The Jaco environments


@pytest.mark.parametrize("name", ["brick_top_right", "site_bottom_left"])
def test_jaco_is_dm_controls_composer_environment_bit_for_bit(name):
    simulation = make_simulation(name)
    if simulation.kind == "site":
        simulation.task.task_observables["target_position"].enabled = False
    else:
        for entity in simulation.task.root_entity.iter_entities():
            if entity.mjcf_model.model == "duplo2x4":
                for part in ("angular_velocity", "linear_velocity", "orientation", "position"):
                    getattr(entity.observables, part).enabled = True
    reference = composer.Environment(simulation.task, time_limit=10.0, recompile_mjcf_every_episode=False)
    reference.reset()
    reference.random_state.seed([5, 1, 0])
    env = JacoEnv(name, 2)
    obs, _ = env.reset(seed=5)
    bounds, step = reference.action_spec(), reference.reset()
    for t in range(250):
        assert np.array_equal(obs[1], np.concatenate([np.ravel(part) for part in step.observation.values()]))
        action = random_actions(env, t)
        obs, reward, terminated, truncated, _ = env.step(action)
        middle, half = (bounds.maximum + bounds.minimum) / 2, (bounds.maximum - bounds.minimum) / 2
        step = reference.step(middle + half * action[1])
        assert reward[1] == pytest.approx(step.reward, abs=1e-12)
        assert not terminated.any() and step.discount == 1
        assert (truncated == step.last()).all() and step.last() == (t == 249)


def test_a_jaco_reset_depends_on_seed_lane_and_episode_alone_and_a_state_continues():
    env, other = make_env("jaco:brick_top_left", 2), make_env("jaco:brick_top_left", 3)
    first, _ = env.reset(seed=3)
    env.step(random_actions(env))
    second, _ = env.reset()
    other.reset(seed=8)
    assert np.array_equal(other.reset(seed=3)[0][:2], first)
    assert np.array_equal(other.reset()[0][:2], second)
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 4
    for step in range(20):
        env.step(random_actions(env, step))
    state, resumed = env.get_state(), make_env("jaco:brick_top_left", 2)
    resumed.set_state(state)
    for step in range(20):
        action = random_actions(env, step)
        assert all(map(np.array_equal, env.step(action)[:2], resumed.step(action)[:2]))


def test_jaco_starts_and_bricks_are_where_they_should_be():
    boxes = {"brick": ((-0.1, -0.1, 0.2), (0.1, 0.1, 0.4)), "site": ((-0.2, -0.2, 0.02), (0.2, 0.2, 0.4))}
    corners = {"top_left": (-0.09, 0.09), "bottom_right": (0.09, -0.09)}
    for kind, (low, high) in boxes.items():
        for corner, target in corners.items():
            obs, _ = JacoEnv(f"{kind}_{corner}", 16).reset(seed=0)
            tcp = obs[:, 30:33]
            assert (tcp >= np.array(low) - 1e-3).all() and (tcp <= np.array(high) + 1e-3).all()
            assert (np.ptp(tcp, axis=0) > 0.5 * np.subtract(high, low)).all()
            assert (obs[:, 41] < -0.999).all()  # The hand points down.
            if kind == "brick":
                np.testing.assert_allclose(obs[:, 52:55], [[*target, 0.0119]] * 16, atol=1e-3)
    assert len(NAMES) == 8


def test_an_unknown_jaco_environment_is_refused():
    with pytest.raises(UserError, match="Unknown environment 'jaco:brick_top': did you mean 'jaco:brick_top_"):
        make_env("jaco:brick_top")
