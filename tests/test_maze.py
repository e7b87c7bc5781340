"""The mazes: no way leads through a wall, and what is known of them is right."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urlrl.envs import make_env, maze
from urlrl.envs.maze import LAYOUTS, LEVELS, MARGIN, Level, State, cell, centre, near, reset, step
from urlrl.errors import UserError
from urlrl.evaluation.prompting import position_columns
from urlrl.tasks import maze_control
from urlrl.tasks.catalogue import TASKS
from urlrl.tasks.maze import maze_tasks
from urlrl.tasks.maze_control import Navigator, returns, rollout, shortest_steps, value_iteration
from urlrl.tasks.task import Moment, make_task_env

SIZES = {"8x8": (8, 8), "rooms": (8, 8), "rings": (8, 8), "pinwheel": (20, 20), "medium": (12, 12), "large": (16, 20)}
NO_DETOUR = {
    "rooms": (2, 3, 4, 5),
    "rings": (1, 2, 3, 4, 5),
}  # Doors lie on a shortest way over open ground; other goals take a longer one.
RADIUS = 1.0  # m: where a task pays
STEPS = {"8x8": 50, "rooms": 50, "rings": 50, "pinwheel": 60, "medium": 100, "large": 200}


def walls_of(*rows):
    """The top row first."""
    return np.array([[mark == "#" for mark in row] for row in reversed(rows)])


def cell_at(xy, walls):
    row, column = cell(np.asarray(xy), walls.shape)
    return int(row), int(column)


def route(walls, start, goal):
    """Cells from start to goal, both positions and both included."""
    ways, at = shortest_steps(walls, cell_at(goal, walls)), cell_at(start, walls)
    cells = [at]
    while ways.steps[at] > 0:
        at = tuple(ways.toward[at].tolist())
        cells.append(at)
    return cells


# --- layouts


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_connected_and_their_goals_lie_apart(name):
    walls, start, goals, episode_steps = LAYOUTS[name]
    assert walls.shape == SIZES[name] and episode_steps == STEPS[name]
    ways = shortest_steps(walls, cell_at(start, walls))
    assert ((ways.steps >= 0) == ~walls).all()
    assert goals.shape == (5, 2) and len(np.unique(np.concatenate([goals, start[None]]), axis=0)) == 6
    routes = [set(route(walls, start, goal)) for goal in goals]
    for i, cells in enumerate(routes):
        others = set().union(*(routes[j] for j in range(5) if j != i))
        assert cells - others  # None lies on the way to the others.
        assert 5 <= len(cells) - 1 < episode_steps / 2  # At a metre per step there is time to come and to stay.
        assert (len(cells) - 1 > np.abs(goals[i] - start).sum()) == (i + 1 not in NO_DETOUR.get(name, ()))


def test_row_zero_is_the_lowest_and_the_middle_is_the_origin():
    walls, start, goals, _ = LAYOUTS["8x8"]
    assert start.tolist() == [-3.5, -3.5] and goals[3].tolist() == [3.5, 3.5] and goals[0].tolist() == [1.5, -0.5]
    assert walls[0].tolist() == [False, True] + [False] * 6  # "S#......", the last row of the drawing
    assert cell_at([-3.999, 3.999], walls) == (7, 0) and cell_at([0.0, -0.001], walls) == (3, 4)
    assert centre(np.array([7, 0]), walls.shape).tolist() == [-3.5, 3.5]


# --- steps

CORNER = walls_of(
    "..#",
    "..#",
    "...",
)  # 3 x 3 m around the origin; the right column is solid but for its lowest cell


@pytest.mark.parametrize(
    ("start", "action", "end"),
    [
        ((-1.0, -1.0), (1.0, 0.5), (0.0, -0.5)),  # in the open: 1 m at full action
        ((-1.0, -1.0), (7.0, -0.25), (0.0, -1.25)),  # actions are clipped
        ((0.25, 0.0), (1.0, 1.0), (0.5 - MARGIN, 1.0)),  # slides up along the wall
        ((0.25, 0.0), (0.125, 0.0), (0.375, 0.0)),  # stops short of it
        ((np.nextafter(np.float32(-0.5), -1), 0.0), (1.0, 0.0), (0.5 - MARGIN, 0.0)),  # as far as to the next cell
        ((0.25, -1.0), (1.0, 0.0), (1.25, -1.0)),  # through the gap
        ((0.25, -0.75), (1.0, 1.0), (1.25, -0.5 - MARGIN)),  # into the gap first, and then there is a wall above
        ((0.25, -0.25), (1.0, -1.0), (0.5 - MARGIN, -1.25)),  # x comes first: from there the wall is in the way
        ((0.75, -1.25), (0.5, 0.5), (1.25, -0.75)),
        ((1.25, -1.25), (1.0, -1.0), (1.5 - MARGIN, -1.5 + MARGIN)),  # the edge of the grid is a wall
        ((-1.25, 1.25), (-1.0, 1.0), (-1.5 + MARGIN, 1.5 - MARGIN)),
    ],
)
def test_steps_by_hand(start, action, end):
    state = step(State(jnp.float32(start), jnp.array(CORNER)), jnp.float32(action))
    assert np.allclose(state.obs, end, atol=1e-6) and np.array_equal(state.walls, CORNER)
    assert state.obs.dtype == jnp.float32


def component(walls, at):
    """Free cells (H, W) that are connected with one, side to side."""
    return shortest_steps(walls, at).steps >= 0


@partial(jax.jit, static_argnums=0)
def path_of(step, state, actions):
    """The positions that actions (T, ...) lead to."""
    return jax.lax.scan(lambda state, action: (step(state, action),) * 2, state, actions)[1].obs


def assert_stays(step, walls, at, inside, actions):
    """Who starts in the free cell `at`, `inside` (2,) of it, never leaves the cells that are connected with it."""
    allowed = component(walls, at)
    xy = jnp.float32(centre(np.array(at), walls.shape) - 0.5 + np.array(inside))
    path = np.asarray(path_of(step, State(xy, jnp.array(walls)), actions), np.float64)
    row, column = cell(path, walls.shape)
    assert (row >= 0).all() and (row < walls.shape[0]).all() and (column >= 0).all() and (column < walls.shape[1]).all()
    assert allowed[row, column].all()


def looks_only_where_it_ends(state, action):
    """Wrong: refuses to end in a wall, and so passes between two that touch at a corner."""
    to = jnp.clip(state.obs + maze.STEP * jnp.clip(action, -1, 1), -0.99, 0.99)  # of a maze of 2 x 2 cells
    blocked = state.walls[cell(to, state.walls.shape)]
    return State(jnp.where(blocked, state.obs, to), state.walls)


def both_legs_from_the_same_cell(state, action):
    """Wrong: looks beside and above the cell it starts in alone, and so ends in a wall diagonally ahead."""
    x = step(state, action * jnp.array([1.0, 0.0])).obs[0]
    y = step(state, action * jnp.array([0.0, 1.0])).obs[1]
    return State(jnp.stack([x, y]), state.walls)


DIAGONAL = walls_of("#.", ".#")  # Two free cells that touch at the origin.
AHEAD = walls_of(".#", "..")
RANDOM_ACTIONS = jnp.float32(np.random.default_rng(0).uniform(-1.3, 1.3, (2000, 2)))


@pytest.mark.parametrize("walls", [DIAGONAL, DIAGONAL[::-1], AHEAD, AHEAD[:, ::-1]])
def test_no_way_leads_between_walls_that_touch_at_a_corner(walls):
    at = tuple(np.argwhere(~walls)[0].tolist())
    assert_stays(step, walls, at, (0.9, 0.9), RANDOM_ACTIONS)
    into_the_corner = jnp.tile(jnp.float32([[1, 1], [1, -1], [-1, 1], [-1, -1]])[:, None], (1, 5, 1)).reshape(-1, 2)
    assert_stays(step, walls, at, (0.5, 0.5), into_the_corner)


@pytest.mark.parametrize(
    ("wrong", "walls"), [(looks_only_where_it_ends, DIAGONAL), (both_legs_from_the_same_cell, AHEAD)]
)
def test_a_wrong_step_does_get_through(wrong, walls):
    with pytest.raises(AssertionError):
        assert_stays(wrong, walls, (0, 0), (0.9, 0.9), RANDOM_ACTIONS)


unit = st.floats(0, 1, exclude_max=True, width=16)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16 - 1), st.integers(0, 2**20), unit, unit, st.integers(0, 2**32 - 1))
def test_no_way_leads_through_any_walls(solid, which, x, y, seed):
    """Starts on the face of a wall included; a cell's upper faces are not its own."""
    walls = np.array([solid >> bit & 1 for bit in range(16)], bool).reshape(4, 4)
    free = np.argwhere(~walls)
    if len(free):
        rng = np.random.default_rng(seed)
        whole, any_size = rng.choice([-1.0, 0.0, 1.0], (60, 2)), rng.uniform(-1, 1, (60, 2))
        actions = jnp.float32(np.where(rng.random((60, 2)) < 0.5, whole, any_size))
        assert_stays(step, walls, tuple(free[which % len(free)].tolist()), (x, y), actions)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_points_of_an_environment_are_never_in_a_wall(name):
    env = make_env(f"maze:{name}", 256)
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    headings = rng.uniform(-1, 1, (256, 2))
    for _ in range(STEPS[name]):
        headings = np.where(rng.random((256, 1)) < 0.1, rng.uniform(-1, 1, (256, 2)), headings)  # Long runs into walls.
        obs, reward, terminated, _, _ = env.step(3 * headings)
        assert not env.walls[cell(obs, env.walls.shape)].any() and (np.abs(obs) < env.env_spec.goal_box).all()
        assert not reward.any() and not terminated.any()


# --- the environment


def test_the_environment_is_its_pure_functions():
    env = make_env("maze:medium", 3)
    level = jax.tree.map(jnp.asarray, LEVELS["medium"])
    obs, _ = env.reset(seed=7)
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(7), lane), 0) for lane in range(3)]
    states = [jax.jit(reset)(key, level) for key in keys]  # Compiled, as rounding may differ otherwise.
    assert np.array_equal(obs, np.stack([state.obs for state in states])) and obs.dtype == np.float32
    for action in np.random.default_rng(0).uniform(-1.2, 1.2, (30, 3, 2)):
        obs, *_ = env.step(action)
        states = [jax.jit(step)(state, jnp.float32(one)) for state, one in zip(states, action)]
        assert np.array_equal(obs, np.stack([state.obs for state in states]))
        assert np.array_equal(obs, env.position()) and np.array_equal(obs, env.physics())


@pytest.mark.parametrize("fixed", [False, True])
def test_levels_come_from_outside_one_per_lane(fixed):
    """As a loop on a device has them: arrays, batched, in one program."""
    walls = np.random.default_rng(0).random((5, 6, 7)) < 0.4
    walls[:, 0, 0] = False
    level = Level(jnp.array(walls), jnp.tile(jnp.float32([-3.2, -2.7]), (5, 1)) if fixed else None)
    actions = jnp.float32(np.random.default_rng(1).uniform(-1, 1, (40, 5, 2)))

    @jax.jit
    def run(seeds):
        return path_of(jax.vmap(step), jax.vmap(reset)(jax.vmap(jax.random.key)(seeds), level), actions)

    together = np.asarray(run(jnp.arange(5)))
    for lane in range(5):
        state = reset(jax.random.key(lane), jax.tree.map(lambda x, lane=lane: x[lane], level))
        assert not fixed or np.array_equal(state.obs, level.start[lane])
        assert np.allclose(path_of(step, state, actions[:, lane]), together[:, lane], atol=1e-5)
        assert not walls[lane][cell(together[:, lane], (6, 7))].any()


def test_without_a_level_it_is_the_smallest_layout():
    assert np.array_equal(reset(jax.random.key(0)).walls, LAYOUTS["8x8"].walls)


def test_starts_are_uniform_over_the_free_cells():
    layout, num = LAYOUTS["8x8"], 20_000
    keys = jax.random.split(jax.random.key(0), num)
    obs = np.asarray(jax.vmap(lambda key: reset(key).obs)(keys))
    row, column = cell(obs, layout.walls.shape)
    counts = np.zeros(layout.walls.shape)
    np.add.at(counts, (row, column), 1)
    assert counts[layout.walls].sum() == 0
    share = num / (~layout.walls).sum()
    assert np.abs(counts[~layout.walls] - share).max() < 5 * np.sqrt(share)
    inside = (obs + 4) % 1
    assert inside.min() > MARGIN - 1e-5 and inside.max() < 1 - MARGIN + 1e-5
    assert np.allclose(inside.mean(axis=0), 0.5, atol=0.01)
    assert np.allclose(inside.std(axis=0), 0.98 / 12**0.5, atol=0.01)
    spec = make_env("maze:8x8", 1).env_spec
    assert np.allclose(obs.mean(axis=0), spec.obs_mean, atol=0.06)
    assert np.allclose(obs.std(axis=0), spec.obs_std, rtol=0.02)


@pytest.mark.parametrize("name", LEVELS)
def test_the_spec(name):
    env, layout = make_env(f"maze:{name}", 2), LAYOUTS[name.removesuffix("_fixed")]
    spec = env.env_spec
    assert (spec.id, spec.obs_dim, spec.action_dim, spec.control_dt) == (f"maze:{name}", 2, 2, 1.0)
    assert (spec.position, spec.physics) == (("x", "y"), (("xy", 2),)) and spec.obs_is_physics and spec.exact_resume
    assert spec.goal_box == (layout.walls.shape[1] / 2, layout.walls.shape[0] / 2)
    assert spec.episode_steps == layout.episode_steps
    starts = np.concatenate([env.reset(seed=seed)[0] for seed in range(3)])
    assert len(np.unique(starts, axis=0)) == (1 if name.endswith("_fixed") else 6)
    if name.endswith("_fixed"):
        assert np.array_equal(starts[0], layout.start)


def test_the_time_limit_truncates_and_another_may_be_asked_for():
    env = make_env("maze:8x8_fixed", 2, episode_steps=3)
    env.reset(seed=0)
    for t in range(3):
        _, _, terminated, truncated, _ = env.step(np.zeros((2, 2)))
        assert not terminated.any() and truncated.all() == (t == 2)


def test_resets_depend_on_seed_lane_and_episode_alone():
    env, other = make_env("maze:8x8", 3), make_env("maze:8x8", 4)
    first, _ = env.reset(seed=5)
    before, *_ = env.step(np.ones((3, 2)))
    mask = np.array([False, True, False])
    second, _ = env.reset(options={"reset_mask": mask})
    assert np.array_equal(second[~mask], before[~mask])
    other.reset(seed=9)
    assert np.array_equal(other.reset(seed=5)[0][:3], first)
    assert np.array_equal(other.reset()[0][1], second[1])
    rows = np.concatenate([first, second[1:2], other.reset(seed=6)[0]])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_a_saved_state_continues_bit_for_bit():
    env, other = make_env("maze:large", 4), make_env("maze:large", 4)
    env.reset(seed=3)
    env.reset(options={"reset_mask": np.array([True, False, False, True])})
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 4, 2))
    for action in actions[:20]:
        env.step(action)
    state = env.get_state()
    assert np.array_equal(other.set_state(state), env.position())
    for action in actions[20:]:
        assert all(map(np.array_equal, env.step(action)[:4], other.step(action)[:4]))
    assert np.array_equal(env.reset()[0], other.reset()[0])


def test_goals_in_walls_are_moved_to_the_nearest_free_cell():
    env = make_env("maze:8x8", 2)
    obs, _ = env.reset(seed=0)
    free, wall, beyond = [0.3, 0.9], [-2.2, -3.9], [4.0, 5.0]  # in cells (4, 4), (0, 1), none
    assert np.allclose(env.goal_obs(np.array([free, wall, beyond])), [free, [-1.5, -3.5], [3.5, 3.5]])
    box = np.array(env.env_spec.goal_box)
    goals = np.random.default_rng(0).uniform(-box, box, (500, 2))
    found = env.goal_obs(goals)
    solid = env.walls[cell(goals, env.walls.shape)]
    assert found.dtype == np.float32 and 50 < solid.sum() < 250
    assert not env.walls[cell(found, env.walls.shape)].any()
    assert np.array_equal(found[~solid], np.float32(goals[~solid]))
    centres = centre(np.argwhere(~env.walls), env.walls.shape)
    for goal, moved in zip(goals[solid], found[solid]):
        assert np.linalg.norm(moved - goal) == pytest.approx(np.linalg.norm(centres - goal, axis=1).min())
    assert np.array_equal(env.position(), obs)


@pytest.mark.parametrize("name", LEVELS)
def test_the_position_is_found_in_the_observation(name):
    env = make_env(f"maze:{name}", 1)
    assert position_columns(env) == [0, 1]


# --- place cells


def check_place_cells(place_cells):
    """exp(-2 d^2) around the centre of every cell, row by row from the lowest, each from its lowest column."""
    seen = place_cells(np.float32([[0.5, 0.0], [0.0, 0.0], [0.5, 0.5]]), (1, 2))  # Centres at x = -0.5 and 0.5.
    by_hand = [[0.1353353, 1.0], [0.6065307, 0.6065307], [0.0820850, 0.6065307]]  # exp of -2, 0, -0.5, -2.5
    assert seen.shape == (3, 2) and seen.dtype == np.float32
    np.testing.assert_allclose(seen, by_hand, atol=1e-6)
    walls = LAYOUTS["large"].walls
    cells = np.stack(np.indices(walls.shape), axis=-1).reshape(-1, 2)
    seen = place_cells(np.float32(centre(cells, walls.shape)), walls.shape)
    assert np.array_equal(seen.argmax(axis=1), np.arange(walls.size)) and np.allclose(np.diag(seen), 1)
    beside, above = seen[np.arange(5), np.arange(1, 6)], seen[np.arange(5), np.arange(20, 25)]
    np.testing.assert_allclose(np.concatenate([beside, above]), np.exp(-2), rtol=1e-5)


def column_by_column(xy, shape):
    return maze.place_cells(xy, shape).reshape(-1, *shape).swapaxes(1, 2).reshape(len(xy), -1)


def from_the_top(xy, shape):
    return maze.place_cells(xy, shape).reshape(-1, *shape)[:, ::-1].reshape(len(xy), -1)


def metre_wide(xy, shape):
    """exp(-d^2 / 2)"""
    return maze.place_cells(xy, shape) ** 0.25


def around_corners(xy, shape):
    return maze.place_cells(xy + np.float32(0.5), shape)


def test_place_cells_by_hand():
    check_place_cells(maze.place_cells)


@pytest.mark.parametrize("wrong", [column_by_column, from_the_top, metre_wide, around_corners])
def test_place_cells_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_place_cells(wrong)


@pytest.mark.parametrize("name", LEVELS)
def test_a_maze_seen_by_place_cells_is_the_same_maze(name):
    env, plain = make_env(f"maze:{name}_cells", 3), make_env(f"maze:{name}", 3)
    spec, walls = env.env_spec, env.walls
    assert (spec.id, spec.obs_dim) == (f"maze:{name}_cells", walls.size)
    assert not spec.obs_is_physics and spec.obs_mean is None and spec.obs_std is None
    same = ("action_dim", "episode_steps", "control_dt", "position", "goal_box", "physics", "exact_resume")
    assert all(getattr(spec, field) == getattr(plain.env_spec, field) for field in same)
    assert env.single_observation_space.shape == (walls.size,)
    obs, xy = env.reset(seed=4)[0], plain.reset(seed=4)[0]
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 3, 2)):
        assert np.array_equal(obs, maze.place_cells(xy, walls.shape)) and obs.dtype == np.float32
        assert np.array_equal(env.position(), xy) and np.array_equal(env.physics(), xy)
        obs, xy = env.step(action)[0], plain.step(action)[0]


def test_goals_are_seen_by_place_cells_too():
    env, plain = make_env("maze:8x8_cells", 2), make_env("maze:8x8", 2)
    goals = np.array([[0.3, 0.9], [-2.2, -3.9], [4.0, 5.0]])
    seen = env.goal_obs(goals)
    assert seen.shape == (3, 64) and seen.dtype == np.float32
    assert np.array_equal(seen, maze.place_cells(plain.goal_obs(goals), (8, 8)))
    assert seen.argmax(axis=1).tolist() == [4 * 8 + 4, 0 * 8 + 2, 7 * 8 + 7]


def test_place_cells_continue_bit_for_bit():
    env, other = make_env("maze:rooms_cells", 3), make_env("maze:rooms_cells", 3)
    env.reset(seed=3)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 3, 2))
    for action in actions[:10]:
        obs, *_ = env.step(action)
    assert np.array_equal(other.set_state(env.get_state()), obs)
    for action in actions[10:]:
        assert all(map(np.array_equal, env.step(action)[:4], other.step(action)[:4]))
    assert np.array_equal(env.reset()[0], other.reset()[0])


# --- tasks


def test_tasks_pay_at_their_goals():
    tasks = maze_tasks()
    names = [f"{name}{end}" for name in LAYOUTS for end in maze.ENDS]
    assert list(tasks) == [f"maze_{name}_goal_{number}" for name in names for number in range(1, 6)]
    assert set(tasks) == {name for name in TASKS if name.startswith("maze_") and "_goal_" in name}
    for name, task in tasks.items():
        assert TASKS[name]().name == name
        seen_as, number = name.removeprefix("maze_").split("_goal_")
        layout_name = seen_as.split("_")[0]
        layout, fixed = LAYOUTS[layout_name], f"maze:{layout_name}_fixed{seen_as.removeprefix(layout_name)}"
        assert task.name == name and task.env == fixed and task.runs_on == (f"maze:{seen_as}", fixed)
        assert task.episode_steps == layout.episode_steps and task.episode_steps % task.option_steps == 0
        goal = layout.goals[int(number) - 1]
        assert task.goal(np.zeros((3, 0)), np.ones(3)).tolist() == [goal.tolist()] * 3
        around = goal + 2 * RADIUS * np.array([[0, 0], [0.5, 0], [0, -0.5], [0.501, 0], [0.36, 0.36]])
        moment = Moment(0 * around, np.zeros((5, 2)), around, np.zeros((5, 0)), np.ones(5, np.int64))
        assert task.score(moment).tolist() == [1, 1, 1, 0, 0]  # A disc: 0.36 sqrt(2) is above 0.5.
        assert task.reward(around[None], np.zeros((1, 5, 2))).shape == (1, 5)


def test_a_task_is_acted_out_from_the_fixed_start():
    task = maze_tasks()["maze_8x8_goal_2"]
    env = make_task_env(task, 2)
    obs, _ = env.reset(seed=0)
    assert obs.tolist() == [[-3.5, -3.5]] * 2 and env.goal().tolist() == [[2.5, -1.5]] * 2
    assert np.array_equal(env.goal_obs(env.goal()), env.goal())
    controller = value_iteration(LAYOUTS["8x8"].walls, task.goal_position, gamma=0.99)
    total, discounted = 0.0, 0.0
    for t in range(task.episode_steps):
        obs, reward, *_ = env.step(controller.act(obs))
        total, discounted = total + reward[0], discounted + 0.99**t * reward[0]
    path = rollout(controller.act, LAYOUTS["8x8"].walls, LAYOUTS["8x8"].start[None], task.episode_steps)
    assert total == returns(path, task.goal_position)[0] == 43
    assert discounted == pytest.approx(returns(path, task.goal_position, 0.99)[0])


def test_a_task_seen_by_place_cells_pays_the_same():
    seen, plain = maze_tasks()["maze_rooms_cells_goal_1"], maze_tasks()["maze_rooms_goal_1"]
    env, other = make_task_env(seen, 2), make_task_env(plain, 2)
    obs, xy = env.reset(seed=0)[0], other.reset(seed=0)[0]
    assert env.env_spec.obs_dim == 64 and xy.tolist() == [LAYOUTS["rooms"].start.tolist()] * 2
    goal = seen.goal_obs(env)
    assert goal.dtype == np.float32 and goal.argmax() == 2 * 8 + 6  # '1' is in the third row from below.
    assert np.array_equal(goal, maze.place_cells(np.float32([seen.goal_position]), (8, 8))[0])
    controller, total = value_iteration(LAYOUTS["rooms"].walls, seen.goal_position), 0.0
    for _ in range(seen.episode_steps):
        assert np.array_equal(obs, maze.place_cells(np.float32(xy), (8, 8)))
        action = controller.act(np.float32(env.physics()))
        (obs, reward, *_), (xy, expected, *_) = env.step(action), other.step(action)
        assert np.array_equal(reward, expected)
        total += reward[0]
    starts = np.tile(LAYOUTS["rooms"].start, (2, 1))
    assert total > 20 and seen.ceiling(starts) == plain.ceiling(starts) == (total, "value iteration")


# --- shortest ways

HOOK = walls_of(
    "...#",
    ".#..",
    ".##.",
)


def assert_ways_of_the_hook():
    """To the cell (0, 3), the lower right one: round by the top row."""
    ways = shortest_steps(HOOK, (0, 3))
    assert ways.steps.tolist() == [[7, -1, -1, 0], [6, -1, 2, 1], [5, 4, 3, -1]]
    chain = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3)]
    for at, then in zip(chain, [*chain[1:], (0, 3)]):  # The goal leads to itself.
        assert tuple(ways.toward[at]) == then
    assert ways.toward[1, 1].tolist() == [1, 1]  # A wall leads nowhere.


def test_ways_by_hand():
    assert_ways_of_the_hook()
    assert shortest_steps(DIAGONAL, (0, 0)).steps.tolist() == [[0, -1], [-1, -1]]  # (1, 1) is out of reach.


def test_ways_over_corners_are_wrong(monkeypatch):
    monkeypatch.setattr(maze_control, "_SIDES", [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    with pytest.raises(AssertionError):
        assert_ways_of_the_hook()


# --- the navigator


def test_the_navigator_heads_for_the_next_cell():
    navigator = Navigator(HOOK, 3, seed=0, noise=0.0)
    navigator.goal[:] = navigator.number[0, 3]
    xy = np.float32(centre(np.array([[2, 2], [1, 0], [1, 2]]), HOOK.shape) + [[0, 0], [0.3, 0.2], [0, 0]])
    along = np.array([-0.3, 0.8]) / np.hypot(0.3, 0.8)
    assert np.allclose(navigator.act(xy), [[0, -1], along, [1, 0]], atol=1e-6)


def test_a_navigator_comes_as_near_to_its_goals_as_it_is_told():
    wide, close = Navigator(HOOK, 1, seed=0), Navigator(HOOK, 1, seed=0, arrived=0.125)
    for navigator, away, reached in ((wide, 0.49, 1), (close, 0.13, 0), (close, 0.12, 1)):
        navigator.leg(navigator.goals() + np.array([away, 0.0]))
        assert navigator.num_reached == reached


def test_the_navigators_noise_is_added_and_clipped():
    navigator = Navigator(HOOK, 20_000, seed=0)
    navigator.goal[:] = navigator.number[0, 3]
    actions = navigator.act(np.tile(np.float32(centre(np.array([2, 2]), HOOK.shape)), (20_000, 1)))
    assert actions.dtype == np.float32 and actions.min() == -1 and actions.max() == 1
    assert np.quantile(np.abs(actions[:, 0]), 0.5) == pytest.approx(0.6745 * 0.5, rel=0.03)  # Across the heading.
    assert (actions[:, 1] == -1).mean() == pytest.approx(0.5, abs=0.02)  # Along it: one half of the noise is cut.


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_navigator_reaches_goal_after_goal(name):
    walls, start, *_ = LAYOUTS[name]
    navigator, twin = (Navigator(walls, 32, seed=4) for _ in range(2))
    xy, reached, visited = np.tile(np.float32(start), (32, 1)), np.zeros(32, int), np.zeros(walls.shape, bool)
    for _ in range(600):
        before, close = navigator.goal, near(xy[:, None] - navigator.goals()[:, None], np.zeros(2), 0.5)[:, 0] > 0
        actions = navigator.act(xy)
        assert np.array_equal(actions, twin.act(xy)) and np.array_equal(navigator.goal, twin.goal)
        here = navigator.number[cell(xy, walls.shape)]
        assert (navigator.goal[close] != here[close]).all() and np.array_equal(navigator.goal[~close], before[~close])
        reached += close
        xy = np.asarray(maze.step_all(xy, actions, walls))
        visited[cell(xy, walls.shape)] = True
    assert navigator.num_reached == reached.sum()
    assert reached.min() >= 5 and not visited[walls].any() and visited.sum() > 0.95 * (~walls).sum()
    assert not np.array_equal(Navigator(walls, 32, seed=5).goal, Navigator(walls, 32, seed=4).goal)


# --- the controller

CORRIDOR = np.zeros((1, 9), bool)
GOAL = (2.0, 0.0)  # the centre of the cell (0, 6)


def assert_values_of_the_corridor():
    """Squares are 12.5 cm; that of the start has its lower left corner there, and all of one must be in the radius."""
    controller = value_iteration(CORRIDOR, GOAL, radius=0.5, gamma=0.9)
    starts = np.float32([[2.0, 0.0], [0.625, 0.0], [0.5, 0.0], [-4.45, 0.0], [4.4, 0.0]])
    # There; one step leads to [1.625, 1.75]; one to [1.5, 1.625], whose corner is 0.515 m away, so two; seven with
    # shorter ones, as six lead to [1.5, 1.625]; from [4.375, 4.5] three, as two lead to [2.375, 2.5] at most.
    expected = 0.9 ** np.array([0, 0, 1, 6, 2]) / (1 - 0.9)
    assert np.allclose(controller.values(starts), expected, rtol=1e-8)
    path = rollout(controller.act, CORRIDOR, starts, 400)
    steps = np.array([0, 0, 0, 5, 1])  # until the first one that pays: the point itself needs no whole square.
    assert np.allclose(returns(path, np.array(GOAL), 0.9, radius=0.5), 0.9**steps / (1 - 0.9), rtol=1e-8)


def test_values_of_a_corridor_by_hand():
    assert_values_of_the_corridor()
    controller = value_iteration(CORRIDOR, GOAL, radius=0.5, gamma=1.0, horizon=20)
    start = np.float32([[-4.45, 0.0]])
    assert controller.values(start).tolist() == [20 - 6]
    assert returns(rollout(controller.act, CORRIDOR, start, 20), np.array(GOAL), radius=0.5).tolist() == [20 - 5]
    discounted = value_iteration(CORRIDOR, GOAL, radius=0.5, gamma=0.9, horizon=20).values(start)
    assert discounted == pytest.approx([sum(0.9**t for t in range(6, 20))])


def pays_where_it_leaves(reward, leads_to, gamma, horizon):
    values = np.zeros(len(reward))
    for _ in range(500):
        values = reward + gamma * values[leads_to].max(axis=1)
    return values


def discounts_the_first_reward(reward, leads_to, gamma, horizon):
    values = np.zeros(len(reward))
    for _ in range(500):
        values = gamma * (reward + values)[leads_to].max(axis=1)
    return values


@pytest.mark.parametrize("wrong", [pays_where_it_leaves, discounts_the_first_reward])
def test_values_with_a_wrong_backup_are_found_out(wrong, monkeypatch):
    monkeypatch.setattr(maze_control, "_backups", wrong)
    with pytest.raises(AssertionError):
        assert_values_of_the_corridor()


def test_all_positions_of_a_square_move_to_the_same_square():
    walls, rng = LAYOUTS["8x8"].walls, np.random.default_rng(0)
    solid = np.kron(walls, np.ones((8, 8), bool))
    at = np.argwhere(~solid)[rng.integers((~solid).sum(), size=20_000)]
    actions = maze_control._actions(8)[rng.integers(289, size=20_000)]
    middle = np.float32(centre(at, solid.shape) / 8)
    anywhere = np.float32(middle + rng.uniform(-0.062, 0.062, middle.shape))
    squares = [np.stack(cell(maze.step_all(xy, actions, walls) * 8, solid.shape)) for xy in (middle, anywhere)]
    assert np.array_equal(*squares)
    assert len(maze_control._actions(8)) == len(np.unique(maze_control._actions(8), axis=0)) == 289


def test_values_are_a_lower_bound_and_those_of_a_wider_goal_an_upper_one():
    walls, goal = LAYOUTS["8x8"].walls, LAYOUTS["8x8"].goals[3]
    controller = value_iteration(walls, goal, gamma=0.9)
    starts = np.asarray(jax.vmap(lambda key: reset(key).obs)(jax.random.split(jax.random.key(1), 300)))
    got = returns(rollout(controller.act, walls, starts, 300), goal, 0.9)
    wider = value_iteration(walls, goal, radius=RADIUS + np.sqrt(2) / 8, gamma=0.9)
    assert (got >= controller.values(starts) - 1e-6).all() and (got <= wider.values(starts) + 1e-6).all()
    assert got.mean() < controller.values(starts).mean() * 1.05


def spread(low, high, index, length, free):
    """Where a leg from [low, high] of a cell may end: (cell, low, high), under any action."""
    face = index - length / 2
    down, up = index > 0 and free(index - 1), index < length - 1 and free(index + 1)
    low = max(low - maze.STEP, -np.inf if down else face + MARGIN)
    high = min(high + maze.STEP, np.inf if up else face + 1 - MARGIN)
    for at, start, end in ((index - 1, face - 1, face), (index, face, face + 1), (index + 1, face + 1, face + 2)):
        if max(low, start) <= min(high, end):
            yield at, max(low, start), min(high, end)


def fewest_steps(walls, start, goal):
    """A bound on how soon any policy is within 1 m of the goal, the centre of a cell.

    All that n steps can lead to is known cell by cell, as a box that is too large if anything: a leg turns a box into
    boxes, as each axis has an action of its own, and those that meet in a cell are made one.
    """
    height, width = walls.shape
    boxes, steps = {cell_at(start, walls): (*start, *start)}, 0  # x, y, x, y

    def distance(box):
        return np.hypot(*(max(box[axis] - goal[axis], goal[axis] - box[axis + 2], 0) for axis in (0, 1)))

    while min(map(distance, boxes.values())) > RADIUS:
        before, boxes, steps = boxes, {}, steps + 1
        for (row, column), (x0, y0, x1, y1) in before.items():
            for j, left, right in spread(x0, x1, column, width, lambda j, row=row: not walls[row, j]):
                for i, low, high in spread(y0, y1, row, height, lambda i, j=j: not walls[i, j]):
                    a, b, c, d = boxes.get((i, j), (left, low, right, high))
                    boxes[i, j] = min(a, left), min(b, low), max(c, right), max(d, high)
    return steps


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_controller_reaches_every_goal_almost_as_soon_as_can_be(name):
    walls, start, goals, episode_steps = LAYOUTS[name]
    for goal in goals:
        controller = value_iteration(walls, goal, gamma=0.99)
        path = rollout(controller.act, walls, start[None], episode_steps)
        inside = near(path[:, 0], goal)
        steps = int(inside.argmax())
        assert inside[steps:].all() and steps > 0  # It comes to stay.
        assert returns(path, goal).tolist() == [episode_steps - steps + 1]
        assert 0 <= steps - fewest_steps(walls, start, goal) <= 1
        navigator = Navigator(walls, 16, seed=0)
        navigator.goal[:] = navigator.number[cell_at(goal, walls)]
        walk = rollout(navigator.act, walls, np.tile(start, (16, 1)), episode_steps)
        assert (returns(walk, goal) < returns(path, goal)).all()
        assert near(walk, goal).any(axis=0).mean() > 0.8


# --- bad input


BAD = {
    "layout": (lambda: make_env("maze:8x9"), "Unknown environment 'maze:8x9': did you mean 'maze:8x8'"),
    "place cells": (lambda: make_env("maze:8x9_cells"), "environment 'maze:8x9_cells': did you mean 'maze:8x8_cells'"),
    "scheme": (lambda: make_env("mazes"), "Unknown environment 'mazes'"),
    "option": (lambda: make_env("maze:8x8", root_position=True), "no option root_position"),
    "unconnected": (lambda: Navigator(DIAGONAL, 1, 0), "leave 2 free cells: expected at least two, all of them"),
    "no room": (lambda: Navigator(np.ones((2, 2), bool), 1, 0), "leave 0 free cells"),
    "goal in a wall": (lambda: shortest_steps(DIAGONAL, (1, 0)), r"The goal \(1, 0\) is a wall: expected"),
    "no squares": (
        lambda: value_iteration(CORRIDOR, GOAL, squares=0),
        "squares is 0: expected a whole number between 1",
    ),
    "tiny squares": (lambda: value_iteration(CORRIDOR, GOAL, squares=100), "squares is 100: expected .* 1 and 99"),
    "no end": (lambda: value_iteration(CORRIDOR, GOAL, gamma=1.0), "gamma is 1.0: expected"),
    "gamma": (lambda: value_iteration(CORRIDOR, GOAL, gamma=1.1, horizon=5), "gamma is 1.1: expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    run, message = BAD[case]
    with pytest.raises(UserError, match=message):
        run()
