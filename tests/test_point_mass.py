"""The maze: its dynamics are dm_control's point mass, its walls hold, its doors open, its rewards know actions."""

import mujoco
import numpy as np
import pytest
from dm_control import suite

from urlrl.envs import make_env, point_mass
from urlrl.envs.point_mass import ARM, RADIUS, TARGETS, THICKNESS, WALLS, PointMassMazeEnv
from urlrl.tasks.catalogue import ZERO_SHOT_TASKS, find_task
from urlrl.tasks.features import evaluate, features
from urlrl.tasks.task import make_task_env
from urlrl.tasks.urlb import maze_reward

TASKS = ZERO_SHOT_TASKS["point_mass_maze"]
LOW, HIGH = np.array([-0.29, 0.15]), np.array([-0.15, 0.29])  # of the starts
GIVE = 2e-3  # m that a wall gives way


def actions_of(env, num_steps, hold=1, seed=0):
    """Random actions (T, n, 2), each held for a number of steps."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (-(-num_steps // hold), *env.action_space.shape))
    return np.repeat(actions, hold, axis=0)[:num_steps]


def roll(env, actions):
    """Physics rows (T, n, 4) after each step."""
    return np.stack([env.step(action)[0] for action in actions])


def put(env, *places):
    """Move the lanes to these places, at rest."""
    env.reset(seed=0)
    for lane, place in enumerate(places):
        env.pool.reset(lane, np.array(place), np.zeros(2))


def clearance(position):
    """From positions (*B, 2) to the nearest wall of the cross, m; negative inside."""
    apart = [np.abs(position) - half for half in WALLS]
    return np.minimum(*(np.linalg.norm(np.maximum(d, 0), axis=-1) + np.minimum(d.max(axis=-1), 0) for d in apart))


# The environment


def test_spec():
    spec = make_env("point_mass_maze").env_spec
    assert (spec.obs_dim, spec.action_dim, spec.episode_steps, spec.control_dt) == (4, 2, 1000, 0.02)
    assert (spec.position, spec.physics, spec.physics_dim) == (("x", "y"), (("qpos", 2), ("qvel", 2)), 4)
    assert spec.obs_is_physics and spec.exact_resume and spec.goal_box == pytest.approx((0.29, 0.29))


def test_an_observation_is_position_and_velocity():
    env = make_env("point_mass_maze", 3)
    before, _ = env.reset(seed=0)
    assert (before[:, 2:] == 0).all()
    obs, reward, terminated, truncated, _ = env.step(actions_of(env, 1)[0])
    assert np.array_equal(obs[:, :2], env.position()) and np.array_equal(obs, env.physics())
    assert np.sign(obs[:, 2:]).tolist() == np.sign(actions_of(env, 1)[0]).tolist()
    assert np.sign(obs[:, :2] - before[:, :2]).tolist() == np.sign(obs[:, 2:]).tolist()
    assert not reward.any() and not terminated.any() and not truncated.any()


def test_starts_are_uniform_in_the_top_left_box_and_of_the_environments_seed():
    """P36: ExORL draws them from NumPy's global generator."""
    env = make_env("point_mass_maze", 400)
    np.random.seed(1)  # noqa: NPY002
    starts = env.reset(seed=0)[0][:, :2]
    assert (starts >= LOW).all() and (starts <= HIGH).all()
    assert starts.mean(axis=0) == pytest.approx((LOW + HIGH) / 2, abs=0.01)
    assert starts.std(axis=0) == pytest.approx([0.14 / np.sqrt(12)] * 2, rel=0.1)
    assert abs(np.corrcoef(starts.T)[0, 1]) < 0.15
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(make_env("point_mass_maze", 400).reset(seed=0)[0][:, :2], starts)
    other = np.concatenate([env.reset(seed=1)[0][:, :2], env.reset()[0][:, :2], starts])
    assert len(np.unique(other, axis=0)) == 1200


def test_the_dynamics_of_open_space_are_dm_controls_point_mass():
    """By formula, force = gear u - damping v, and by its simulation, whose steps are twice as long."""
    env = PointMassMazeEnv(1, episode_steps=10_000)
    put(env, (-0.2, 0.1))
    u = np.array([0.7, -0.4])
    row = roll(env, np.tile(u, (40, 1, 1)))[:, 0]
    time, decay = 0.02 * np.arange(1, 41), 0.3  # s: mass by damping
    expected = 0.1 * u * (1 - np.exp(-time / decay))[:, None]
    np.testing.assert_allclose(row[:, 2:], expected, atol=1.2e-3)
    assert not np.allclose(row[:, 2:], 1.1 * expected, atol=1.2e-3)  # Another gear or damping would be seen.
    physics = suite.load("point_mass", "easy").physics
    with physics.reset_context():
        physics.data.qpos[:] = -0.2, 0.1
    for expected in row:
        physics.set_control(u)
        physics.step()
        np.testing.assert_allclose(np.concatenate([physics.data.qpos, physics.data.qvel]), expected, atol=1.2e-3)


def test_a_saved_state_continues_bit_for_bit_in_a_new_environment():
    """Pressed against a wall too, where the solver's warm start matters."""
    env, other = PointMassMazeEnv(16, threads=1), PointMassMazeEnv(16, threads=3)
    env.reset(seed=3)
    actions = actions_of(env, 400, hold=100)
    roll(env, actions[:250])
    state = env.get_state()
    assert (clearance(env.position()) < RADIUS).any()
    assert np.array_equal(other.set_state(state), env.physics())
    expected = roll(env, actions[250:]), env.reset()[0]
    got = roll(other, actions[250:]), other.reset()[0]
    assert all(map(np.array_equal, got, expected))
    other.close()


def test_a_goal_observation_is_at_rest_where_it_is_asked_for_even_in_a_wall():
    env = make_env("point_mass_maze", 2)
    obs, _ = env.reset(seed=0)
    goals = np.array([[0.15, -0.15], [0.0, 0.1], [0.29, 0.29], [0.0, 0.0]])
    assert np.array_equal(env.goal_obs(goals), np.concatenate([goals, np.zeros((4, 2))], axis=1))
    assert np.array_equal(env.physics(), obs)  # The lanes did not move.
    assert env.goal_obs(goals[:0]).shape == (0, 4)


# Its walls and doors


def walls_hold(position):
    """Of positions (*B, 2): outside the cross and inside the arena, but for what walls give way."""
    return (clearance(position) > RADIUS - GIVE).all() and (np.abs(position) < 0.29 + GIVE).all()


def test_nothing_gets_into_a_wall_or_out_of_the_arena():
    env = PointMassMazeEnv(32)
    env.reset(seed=0)
    bumps = np.sign(actions_of(env, 1000, hold=100))  # At full throttle into whatever comes.
    position = roll(env, bumps)[..., :2]
    assert walls_hold(position)
    assert clearance(position).min() < RADIUS and np.abs(position).max() > 0.29
    assert np.abs(np.diff(position, axis=0)).max() < 2.1e-3  # 0.1 m/s: no jumps through a wall, which is 20 mm thick.
    assert not walls_hold(np.array([0.1, 0.0])) and not walls_hold(np.array([0.2, -0.3]))


def test_a_straight_way_between_targets_is_barred():
    """Full throttle along it for 10 s ends at the wall, 2 cm from the middle of the arena."""
    names = list(TARGETS)
    ways = [(a, b) for a in names for b in names if a != b]
    env = PointMassMazeEnv(len(ways))
    put(env, *(TARGETS[a] for a, _ in ways))
    throttle = np.sign([np.subtract(TARGETS[b], TARGETS[a]) for a, b in ways])
    position = roll(env, np.tile(throttle, (500, 1, 1)))[-1, :, :2]
    for (a, _), along, place in zip(ways, throttle, position):
        barred = np.flatnonzero(along)
        assert place[barred] == pytest.approx(-along[barred] * (THICKNESS + RADIUS), abs=GIVE)
        np.testing.assert_allclose(np.delete(place, barred), np.delete(TARGETS[a], barred), atol=GIVE)


ROUND = ("top_left", "top_right", "bottom_right", "bottom_left", "top_left")


def round_trip(env):
    """Seconds from each target to the next, clockwise, steered by hand through the doors."""
    put(env, TARGETS["top_left"])
    times = []
    for here, there in zip(ROUND, ROUND[1:]):
        here, there = np.array(TARGETS[here]), np.array(TARGETS[there])
        door = (here + there) / 2 * (ARM + 0.05) / 0.15
        shift = (there - here) / 10
        steps = 0
        for mark in (door - shift, door + shift, there):
            while np.linalg.norm(mark - env.position()[0]) > 0.015 and steps < 500:
                env.step(np.clip(20 * (mark - env.position()), -1, 1))
                steps += 1
        times.append(0.02 * steps)
    return times


def test_each_room_opens_to_its_two_neighbours_within_a_few_seconds():
    times = round_trip(PointMassMazeEnv(1, episode_steps=10_000))
    assert all(2.5 < seconds < 5 for seconds in times), times


def test_a_maze_with_a_closed_door_is_found(monkeypatch):
    closed = point_mass._XML.replace(f'size="{THICKNESS} {ARM}', f'size="{THICKNESS} 0.3')
    assert closed != point_mass._XML
    monkeypatch.setattr(point_mass, "_XML", closed)
    assert round_trip(PointMassMazeEnv(1, episode_steps=10_000))[0] == pytest.approx(10)  # s, when it gives up


def test_there_is_a_camera_for_videos():
    model = make_env("point_mass_maze").model
    assert mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track") == 0


# Its tasks


REWARDS = [  # distance from the target (m), action, reward
    (0.0, (0.0, 0.0), 1.0),
    (0.015, (0.0, 0.0), 1.0),
    (0.0, (1.0, -1.0), 0.8),
    (0.0, (0.5, 0.0), 0.975),  # (4 + (0.75 + 1) / 2) / 5
    (0.0, (2.0, 0.0), 0.9),  # Nothing below 0.
    (0.0225, (0.0, 0.0), 0.5623413),  # 0.1^(0.5^2)
    (0.03, (0.0, 0.0), 0.1),
    (0.03, (-1.0, 1.0), 0.08),
    (0.045, (0.0, 0.0), 1e-4),
]


def is_the_mazes(reward):
    for distance, action, expected in REWARDS:
        for target in TARGETS.values():
            for way in ((1, 0), (0, -1), (-0.6, 0.8)):
                found = reward(np.array(target) + distance * np.array(way), np.array(action), target)
                if found != pytest.approx(expected, rel=1e-6, abs=1e-12):
                    return False
    return True


WRONG = {
    "control forgotten": lambda p, a, t: maze_reward(p, 0 * a, t),
    "control of the sum": lambda p, a, t: maze_reward(p, 0 * a, t) * (4 + max(0, 1 - np.square(a).sum())) / 5,
    "no fifth": lambda p, a, t: maze_reward(p, 0 * a, t) * np.maximum(0, 1 - np.square(a)).mean(),
    "left is right": lambda p, a, t: maze_reward(p, a, (-t[0], t[1])),
    "jaco's radius": lambda p, a, t: maze_reward(np.array(t) + 0.3 * (p - t), a, t),
}


def test_the_reward_by_hand():
    assert is_the_mazes(maze_reward)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_reward_is_found(wrong):
    assert not is_the_mazes(WRONG[wrong])


def test_targets_are_where_their_names_say():
    for name in TASKS:
        task = find_task(name)
        assert (task.env, task.runs_on, task.expert) == ("point_mass_maze", ("point_mass_maze",), None)
        assert name.removeprefix("point_mass_maze_reach_") in TARGETS
        place = [(-0.15, 0.15)["right" in name], (-0.15, 0.15)["top" in name], 0.0, 0.0]
        assert task.reward(np.array(place), np.zeros(2)) == 1
        assert task.reward(np.array(place) * [-1, 1, 1, 1], np.zeros(2)) < 1e-9


def pull(target, obs):
    """A controller that goes straight for a target in its own room."""
    return np.clip(20 * (np.array(target) - obs[:, :2]) - 2 * obs[:, 2:], -1, 1)


def test_relabelled_rewards_are_those_of_the_episode_exactly():
    """P15: a simulator that is set to a stored state holds no control, and then every row has the full factor."""
    task = find_task("point_mass_maze_reach_top_left")
    env = make_task_env(task, 8)
    obs, _ = env.reset(seed=0)
    rng, rows = np.random.default_rng(0), []
    for _ in range(400):
        action = (pull(TARGETS["top_left"], obs) + 0.5 * rng.normal(size=(8, 2))).astype(np.float32)
        obs, reward, *_ = env.step(action)
        rows.append((env.physics(), np.clip(action, -1, 1), reward))
    physics, action, live = (np.stack(part) for part in zip(*rows))
    assert np.array_equal(task.reward(physics, action), live)
    flat = task.reward(physics.reshape(-1, 4)[::-1], action.reshape(-1, 2)[::-1])
    assert np.array_equal(flat[::-1].reshape(live.shape), live)
    without = task.reward(physics, np.zeros_like(action))
    assert live.sum() > 1000 and without.sum() > 1.02 * live.sum()
    assert (live / without)[without > 0.5].min() < 0.9


def test_random_actions_do_not_leave_the_first_room():
    """Which is why the other rooms' floors are 0."""
    env = PointMassMazeEnv(32)
    env.reset(seed=0)
    physics = roll(env, actions_of(env, 1000))
    assert (physics[..., 0] < 0).all() and (physics[..., 1] > 0).all()


# Its features


def test_features_by_name():
    found = features("point_mass_maze")
    assert list(found) == ["x", "y", "vx", "vy", "speed", "energy", "effort"]
    physics, action = np.array([[0.1, -0.2, 0.03, -0.04]]), np.array([[0.5, -2.0]])  # Actions are clipped.
    values = evaluate(list(found.values()), physics, action)[:, 0]
    assert values == pytest.approx([0.1, -0.2, 0.03, -0.04, 0.05, (0.25 + 1) / 2, 0.75])
    for feature in found.values():
        assert feature.about and feature(physics, action).shape == (1,)
    assert found["vx"].unit == found["speed"].unit == "m/s" and found["x"].unit == "m"
    point = features("point")["vx"](physics[:, :2], action)
    assert point == 0.5 != found["vx"](physics, action)  # The other point's velocity is its action.
