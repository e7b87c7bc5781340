"""Point masses in mazes, FRE's reward tasks, and what is the most that can be had of them."""

from functools import partial
from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.envs import make_env, maze
from urlrl.envs.maze import LAYOUTS, MARGIN, State, cell, place_cells, step_all, step_mass
from urlrl.errors import UserError
from urlrl.evaluation.prompting import position_columns
from urlrl.evaluation.rollout import starts
from urlrl.evaluation.suites import find_suite
from urlrl.streams import env_seed
from urlrl.tasks import fre
from urlrl.tasks.catalogue import FRE_TASKS, TASKS, find_task
from urlrl.tasks.fre import ANTMAZE, BODIES, RINGS, edges, linear, move, observations, path, simplex, simplex_noise
from urlrl.tasks.maze import place_reward
from urlrl.tasks.maze_control import Navigator, best_returns
from urlrl.tasks.task import make_task_env
from urlrl.verbs.evaluate_suite import SUITES

RINGS_WALLS = LAYOUTS["rings"].walls

# --- a point with mass

CORNER = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 1]], bool)  # the lowest row first; 3 x 3 m around the origin


@pytest.mark.parametrize(
    ("start", "action", "end"),
    [
        ((-1.0, -1.0, 0.0, 0.0), (1.0, 0.5), (-0.5, -0.75, 0.5, 0.25)),  # from rest: half a metre at full action
        ((-1.0, -1.0, 0.5, 0.0), (3.0, 0.0), (0.0, -1.0, 1.0, 0.0)),  # actions are clipped
        ((-1.0, -1.0, 1.0, 0.0), (1.0, 0.0), (0.0, -1.0, 1.0, 0.0)),  # and so is the speed
        ((0.0, 0.0, 0.5, -0.5), (0.0, 0.0), (0.49, -0.5, 0.5, -0.5)),  # a wall a centimetre early is none yet
        ((0.25, 0.0, 0.5, 0.5), (0.0, 0.0), (0.49, 0.5, 0.24, 0.5)),  # a wall stops x; y goes on
        ((0.49, 0.0, 0.24, 0.0), (0.0, 0.0), (0.49, 0.0, 0.0, 0.0)),
        ((0.25, -0.75, 0.5, 0.5), (1.0, 0.0), (1.25, -0.51, 1.0, 0.24)),  # through the gap, and then there is a wall
    ],
)
def test_steps_by_hand(start, action, end):
    state = step_mass(State(jnp.float32(start), jnp.array(CORNER)), jnp.float32(action))
    np.testing.assert_allclose(state.obs, end, atol=1e-6)


def test_a_mass_is_never_in_a_wall_and_its_velocities_add_up_to_its_way():
    env, rng = make_env("maze:rings_mass", 256), np.random.default_rng(1)
    obs, _ = env.reset(seed=0)
    assert env.env_spec.obs_dim == 4 and env.env_spec.obs_is_physics and not obs[:, 2:].any()
    first, total, blocked = obs, 0, 0
    for _ in range(50):
        before, pushes = obs, rng.uniform(-2, 2, (256, 2))
        obs, reward, *_ = env.step(pushes)
        total, blocked = total + obs[:, 2:], blocked + (np.abs(obs[:, 2:]) < 0.3).mean()
        assert not RINGS_WALLS[cell(obs[:, :2], RINGS_WALLS.shape)].any() and not reward.any()
        assert (np.abs(obs[:, 2:] - before[:, 2:]) <= 1.5 + 1e-6).all() and np.abs(obs[:, 2:]).max() <= 1
        np.testing.assert_allclose(obs[:, :2] - before[:, :2], obs[:, 2:], atol=2 * MARGIN + 1e-6)
    np.testing.assert_allclose(obs[:, :2] - first[:, :2], total, atol=0.2)
    assert 5 < blocked < 45  # It was a test of walls too.


def test_a_mass_seen_by_place_cells_is_the_same():
    env, plain = make_env("maze:rings_fixed_mass_cells", 3), make_env("maze:rings_fixed_mass", 3)
    obs, state = env.reset(seed=4)[0], plain.reset(seed=4)[0]
    assert env.env_spec.obs_dim == 66 and env.env_spec.physics == (("xy", 2), ("velocity", 2))
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 3, 2)):
        expected = np.concatenate([place_cells(state[:, :2], (8, 8)), state[:, 2:]], axis=1)
        assert np.array_equal(obs, expected) and np.array_equal(env.physics(), state)
        obs, state = env.step(action)[0], plain.step(action)[0]
    assert np.array_equal(plain.goal_obs(np.array([[0.6, 1.4]])), np.float32([[0.6, 1.4, 0, 0]]))
    assert position_columns(plain) == [0, 1]


def test_a_saved_mass_continues_bit_for_bit():
    env, other = make_env("maze:rings_mass", 3), make_env("maze:rings_mass", 3)
    env.reset(seed=3)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 3, 2))
    for action in actions[:10]:
        env.step(action)
    assert np.array_equal(other.set_state(env.get_state()), env.physics())
    for action in actions[10:]:
        assert all(map(np.array_equal, env.step(action)[:4], other.step(action)[:4]))
    assert not env.reset()[0][:, 2:].any()


# --- rewards


def at(*rows):
    return np.array(rows, np.float64)


def test_rewards_by_hand_in_the_rings():
    row = at(
        (-3.5, -3.5, 1, 0), (0, -3.5, 1, 0), (0, -3.5, -1, 0), (3.5, 0, 0.2, 0.5), (0, 3.5, -0.5, 0), (0, 1.5, 1, 0)
    )
    assert path(RINGS, "loop", row, None).tolist() == pytest.approx([1.5, 1.5, -0.5, 1.0, 1.0, 0.0])
    assert path(RINGS, "center", row, None).tolist() == pytest.approx([0, 0, 0, 0, 0, 1.5])
    assert edges(RINGS, row, None).tolist() == [0.5, 0.5, 0.5, 0.5, 0.5, 0.0]
    assert move(RINGS, (0.0, 1.0), row, None).tolist() == pytest.approx([0, 0, 0, 0.5, 0, 0])
    weights = (0.5, -1.0, 0.25, 0.0)
    expected = [-0.4375 + 0.875 + 0.25, 0.875 + 0.25, 0.875 - 0.25, 0.4375 + 0.05, -0.875 - 0.125, -0.375 + 0.25]
    assert linear(RINGS, weights, row, None).tolist() == pytest.approx(np.clip(expected, -1, 1).tolist())
    assert linear(RINGS, weights, row[None], None).shape == (1, 6)


def test_every_path_can_be_walked_round_and_round():
    """Each strip leads into the next one, and none leads into a wall."""
    for name in ("loop", "center"):
        on_it, toward = fre._strips(RINGS, name)
        assert not (on_it.astype(bool) & RINGS_WALLS).any()
        here, seen = tuple(np.argwhere(on_it)[0].tolist()), []
        while here not in seen:
            seen.append(here)
            right, up = toward[here].astype(int)
            here = here[0] + up, here[1] + right
            assert on_it[here], (name, seen)
        assert len(seen) == on_it.sum()


def physics_of_ants(*rows):
    """x, y, vx, vy to physics rows of OGBench's ant."""
    found = np.zeros((len(rows), 29))
    found[:, [0, 1, 15, 16]] = rows
    return found


def test_rewards_by_hand_in_the_ant_maze():
    """Strips of cells, edges and the scale of velocities as the paper's code has them."""
    ants = physics_of_ants((25, 15.5, -2, 0), (34.5, 17.9, 0, 1), (19, 5, 0, -1), (10, 8, -1, 3), (-1.5, -1, 1, 0))
    v = 0.33820298
    assert path(ANTMAZE, "loop", ants, None).tolist() == pytest.approx([0.5 + 2 * v, 0.5 + v, 0.5 + v, 0, 0])
    assert path(ANTMAZE, "center", ants, None).tolist() == pytest.approx([0, 0, 0, 0.5 + v, 0.5 + v])
    assert edges(ANTMAZE, ants, None).tolist() == [0, 0.5, 0, 0, 0.5]
    assert move(ANTMAZE, (-1.0, 0.0), ants, None).tolist() == pytest.approx([2 * v, 0, 0, v, -v])


def test_a_landscape_is_read_cell_by_cell():
    height, vx, vy = fre._landscape(RINGS, 2)
    assert height.shape == (8, 8) and (np.abs(vx[vx != 0]) >= 0.5).all() and (vx != 0).any() and (vy == 0).any()
    row = at((-3.2, 2.3, 0.5, -0.25))  # column 0, row 6
    expected = -1 + 0.5 * (height[6, 0] > 0.3) + 0.5 * vx[6, 0] - 0.25 * vy[6, 0]
    assert simplex(RINGS, 2, row, None) == pytest.approx([expected])
    assert not np.array_equal(height, fre._landscape(RINGS, 3)[0])


def test_simplex_noise():
    points = np.random.default_rng(0).uniform(-20, 20, (100_000, 2))
    noise = simplex_noise(points, 3)
    assert -1 <= noise.min() < -0.95 and 0.95 < noise.max() <= 1 and abs(noise.mean()) < 0.02
    assert np.abs(simplex_noise(points + 1e-5, 3) - noise).max() < 2e-4  # no jumps between triangles
    corners = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1) * 1.0
    corners -= (3 - 3**0.5) / 6 * corners.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(simplex_noise(corners, 3), 0, atol=1e-12)  # at the corners of triangles


# --- tasks and the suite


def test_tasks_are_what_their_names_say():
    for suite, names in FRE_TASKS.items():
        assert len(names) == {"antmaze-large": 17, "walker": 9, "cheetah": 9}.get(suite, 22) == len(set(names))
        for name in names:
            task = find_task(name)
            assert task.name == name and name in TASKS
        assert find_suite(f"fre-v1/{suite}", SUITES).samples == 32
    place = find_task("antmaze_large_reach_top")
    physics = physics_of_ants((35, 25.9, 0, 0), (33.1, 24, 0, 0), (35, 21.9, 0, 0))
    assert place.reward(physics, None).tolist() == [1, 1, 0]
    env = make_task_env(place, 1)
    assert place.goal_obs(env)[:2].tolist() == [35, 24] and place.ceiling(env.physics()) is None
    mass = find_task("maze_rings_mass_path_loop")
    assert mass.goal_obs(make_task_env(mass, 1)) is None


@pytest.mark.parametrize("domain", ["walker", "cheetah"])
def test_postures_are_seen_as_dm_control_shows_them(domain):
    env = make_env(BODIES[domain].env, 4)
    obs, _ = env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 4, 6)):
        obs, *_ = env.step(action)
    np.testing.assert_allclose(observations(domain, env.physics()), obs, atol=1e-6)
    tasks = [find_task(f"{domain}_posture_{i}") for i in range(1, 6)]
    for task, goal in zip(tasks, BODIES[domain].goals):
        near, sigma = np.array(goal), np.array(BODIES[domain].sigma)
        assert task.reward(near[None], None) == 1
        step = np.zeros(18)
        step[-1] = sigma[-1] * BODIES[domain].radius  # of the last joint's velocity
        assert task.reward(near + np.outer([0.99, 1.01], step), None).tolist() == [1, 0]
        np.testing.assert_allclose(task.goal_obs(None), observations(domain, near[None])[0], atol=1e-6)
    assert len({task.goal_obs(None).tobytes() for task in tasks}) == 5


# --- the most that can be had


def by_force(walls, start, reward, num_steps):
    """The best of all sequences of actions that the lattice knows."""
    pushes = np.array(list(product((-1, -0.5, 0, 0.5, 1), repeat=2)), np.float32)
    states, total = np.float32(start)[None], np.zeros(1)
    for _ in range(num_steps):
        states = np.asarray(step_all(np.repeat(states, 25, axis=0), np.tile(pushes, (len(states), 1)), walls))
        total = np.repeat(total, 25) + reward(states, None)
    return total.max()


@pytest.mark.parametrize("name", ["move_right", "path_center", "simplex_1", "reach_4"])
def test_best_returns_are_those_of_all_sequences_of_actions(name):
    reward = find_task(f"maze_rings_mass_{name}").reward
    for start in ((-2.375, 0.625, 0.0, 0.0), (1.375, 1.375, 0.5, -0.25)):
        found = best_returns(RINGS_WALLS, at(start), reward, 3)
        assert found == pytest.approx([by_force(RINGS_WALLS, start, reward, 3)], abs=0.02)


def test_best_returns_by_hand():
    """To the goal's disc and to stay; along the wall and no further."""
    open_ground = np.zeros((1, 8), bool)
    goal = partial(place_reward, (3.5, 0.0))
    # 0.5, 1.5, 2.5, ... m from the start at -3.5: 2.5 is passed with the seventh step, which pays first.
    assert best_returns(open_ground, at((-3.5, 0, 0, 0)), goal, 20).tolist() == [14]
    to_the_wall = best_returns(open_ground, at((2.0, 0, 0, 0)), partial(move, RINGS, (1.0, 0.0)), 20)
    assert to_the_wall == pytest.approx([2.0], abs=0.02)


@pytest.mark.slow
def test_nobody_gets_more_than_the_ceiling():
    """Random pushes and a controller that knows the maze get less, on every task."""
    for name in FRE_TASKS["maze-rings_mass"]:
        task = find_task(name)
        env = make_task_env(task, 16)
        most, whose = task.ceiling(starts(env, 0))
        assert whose == "value iteration"
        env.reset(seed=env_seed(0, "prompt"))
        walker, rng, total = Navigator(RINGS_WALLS, 16, seed=0), np.random.default_rng(0), 0.0
        for _ in range(50):
            target = walker.act(env.env.position()) if "reach" in name else rng.uniform(-1, 1, (16, 2))
            total += env.step(np.clip(2 * (target - env.physics()[:, 2:]), -1, 1))[1].mean()
        assert total < most, name


def test_names_that_are_no_maze():
    with pytest.raises(UserError, match="did you mean 'maze:rings_mass'"):
        make_env("maze:rings_mas")
    assert [f"maze:rings{end}" for end in maze.ENDS][-1] == "maze:rings_mass_cells"
