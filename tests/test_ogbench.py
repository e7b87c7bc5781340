"""OGBench's environments: the package's own bit for bit, with resets that repeat, and the package's rewards plus 1."""

import os
import sys
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from urlrl.data.ogbench import guess_env
from urlrl.envs import make_env
from urlrl.envs.locomotion import ANT, OGBENCH_ANT, LocomotionEnv
from urlrl.envs.maze import cell
from urlrl.envs.ogbench import _BASES, OGBENCH_TASKS, OGBenchEnv
from urlrl.envs.pool import STATE
from urlrl.errors import UserError
from urlrl.tasks.ogbench import Part, _reward, ogbench_task, ogbench_tasks
from urlrl.tasks.task import make_task_env

ogbench = pytest.importorskip("ogbench")
from ogbench.relabel_utils import relabel_dataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*precision lowered")  # by the package's own spaces

MAZES = ["pointmaze-teleport", "antmaze-medium", "humanoidmaze-medium", "antsoccer-arena"]
ARMS = ["cube-double", "scene", "puzzle-3x3"]


@cache
def lanes(kind):
    """Two lanes, which tests share: each resets them."""
    return make_env(f"ogbench:{kind}-v0", 2)


def make_package(kind, variant=""):
    """The environment that the package makes, as it comes."""
    return ogbench.make_env_and_datasets(f"{kind}-play{variant}-v0", env_only=True)


package = cache(make_package)  # Tests share them too.


def actions_of(env, num_steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (num_steps, *env.action_space.shape))


def parts_of(env, rows):
    """Physics rows (n, physics) as the arrays of a dataset."""
    cuts = np.cumsum([size for _, size in env.env_spec.physics])[:-1]
    found = dict(zip((name for name, _ in env.env_spec.physics), np.split(rows, cuts, axis=-1)))
    return found | ({"button_states": found["button_states"].astype(int)} if "button_states" in found else {})


def task_name(kind, number):
    return f"ogbench:{kind}-singletask-task{number}-v0"


# Names


def test_the_names_are_all_of_the_packages_environments_with_states():
    rooms = ("ogbench.locomaze", "ogbench.manipspace")
    registered = {
        name
        for name, spec in gymnasium.registry.items()
        if str(spec.entry_point).startswith(rooms) and not name.startswith("visual-")
    }
    registered = {name for name in registered if "singletask" not in name or "-task" in name}  # Not the aliases.
    broken = {name for name in registered if name.startswith("humanoidmaze-teleport")}
    assert {f"ogbench:{name}" for name in registered - broken} == set(_BASES)
    assert len(OGBENCH_TASKS) == 23 and len(broken) == 6
    with pytest.raises(ValueError, match="material 'teleport_in' not found"):  # The reason why they are left out.
        package("humanoidmaze-teleport")


@pytest.mark.parametrize(
    "file", ["pointmaze-medium-navigate-v0", "antmaze-large-explore-v0", "cube-single-noisy-v0", "scene-play-v0",
             "puzzle-4x6-play-v0", "antsoccer-medium-stitch-v0-val"],
)  # fmt: skip
def test_what_the_reader_makes_of_a_files_name_is_an_environment(file):
    assert guess_env(Path(f"{file}.npz")) in {f"ogbench:{base}" for base in OGBENCH_TASKS}


BAD = {
    "dataset": (lambda: make_env("ogbench:antmaze-large-navigate-v0"), "did you mean 'ogbench:antmaze-large-v0'"),
    "version": (lambda: make_env("ogbench:scene-v1"), "Unknown environment 'ogbench:scene-v1': did you mean"),
    "task": (lambda: ogbench_task("ogbench:scene-singletask-task6-v0"), "Unknown task .* did you mean"),
    "copies": (lambda: make_env("ogbench:pointmaze-medium-v0", 0), "asked for 0 copies"),
    "steps": (lambda: make_env("ogbench:pointmaze-medium-v0", 1, episode_steps=0), "episodes of 0 steps"),
    "wall": (lambda: lanes("antmaze-medium").goal_obs(np.array([[8.0, 0.0]])), r"goal x=8, y=0 is in a wall of 'ogb"),
    "outside": (lambda: lanes("antmaze-medium").goal_obs(np.array([[0.0, 99.0]])), "in a wall .*, or outside"),
    "anywhere, no maze": (lambda: OGBenchEnv("scene-v0", 1, anywhere=True), "'ogbench:scene-v0' cannot start anywhere"),
    "anywhere, a task": (
        lambda: OGBenchEnv("antmaze-medium-singletask-task1-v0", 1, anywhere=True),
        "expected a maze without a task",
    ),
    "no maze": (lambda: lanes("scene").goal_obs(np.zeros((1, 0))), "'ogbench:scene-v0' has no goal positions"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    run, message = BAD[case]
    with pytest.raises(UserError, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_env("ogbench:scene-v0"),
        lambda: make_env("ogbench:ant"),
        lambda: ogbench_task.__wrapped__(task_name("scene", 1)),
    ],
)
def test_without_the_package_one_sentence_says_how_to_get_it(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(
        UserError, match=r"^Environment '.*' needs the package ogbench: pip install 'urlrl\[ogbench\]'\.$"
    ):
        make()


# Against the package


@pytest.mark.parametrize("kind", MAZES + ARMS)
def test_an_environment_says_what_the_package_says(kind):
    env, twin = lanes(kind), package(kind)
    spec, inner = env.env_spec, twin.unwrapped
    assert env.single_observation_space == twin.observation_space
    assert env.single_action_space == twin.action_space
    assert (spec.id, spec.episode_steps) == (f"ogbench:{kind}-v0", twin.spec.max_episode_steps)
    assert spec.control_dt == pytest.approx(inner.dt if kind in MAZES else inner.control_timestep())
    assert spec.position == (("x", "y") if kind in MAZES else ()) and not spec.goal_box
    assert [spec.physics[i][1] for i in (0, 1)] == [inner.model.nq, inner.model.nv]
    assert spec.obs_is_physics == kind.startswith("ant")


@pytest.mark.parametrize("kind", MAZES + ARMS)
def test_steps_equal_the_packages(kind):
    env, twin = lanes(kind), package(kind).unwrapped
    obs, _ = env.reset(seed=1)
    twin.reset(seed=0)
    state, parts = env.get_state()["simulation"][1], parts_of(env, env.physics()[1])
    twin.set_state(*parts.values())
    mujoco.mj_setState(twin.model, twin.data, state, STATE)
    mujoco.mj_forward(twin.model, twin.data)
    mujoco.mj_setState(twin.model, twin.data, state, STATE)
    assert np.array_equal(obs[1], twin.get_ob() if kind in MAZES else twin.compute_observation())
    for action in actions_of(env, 40):
        obs, reward, terminated, truncated, _ = env.step(action)
        twin_obs, *_, info = twin.step(np.float32(action[1]))
        assert np.array_equal(obs[1], twin_obs)
        assert np.array_equal(env.physics()[1], np.concatenate([info[name] for name in parts]))
        assert not (reward.any() or terminated.any() or truncated.any())
    if kind in MAZES:
        assert np.array_equal(env.position()[1], info["xy"])


def away_from_walls(body, env, num_steps=20):
    """Whether steps of the body on a plane are those of the maze's, from one posture and by the same actions."""
    plane = LocomotionEnv(body, 2)
    obs, _ = plane.reset(seed=0)
    for lane, inner in enumerate(env._envs):
        inner.set_state(*np.split(obs[lane], [15]))
    for action in np.float32(actions_of(env, num_steps)):  # As the mazes take them.
        if not np.array_equal(plane.step(action)[0], env.step(action)[0]):
            return False
    return plane.env_spec.control_dt == env.env_spec.control_dt


def test_the_ant_on_a_plane_is_the_mazes_ant_away_from_walls():
    """Its cell leaves 2 m on each side; both swing their legs where they stand."""
    env = make_env("ogbench:antmaze-large-v0", 2)
    env.reset(seed=0)
    assert away_from_walls(OGBENCH_ANT, env)
    env.reset(seed=0)
    assert not away_from_walls(replace(OGBENCH_ANT, package=ANT.package, model=ANT.model), env)


def test_a_maze_can_be_started_anywhere():
    env, twin = (OGBenchEnv("antmaze-medium-v0", 2, anywhere=True) for _ in range(2))
    starts = np.concatenate([env.reset(seed=0)[0], *(env.reset()[0] for _ in range(60))])
    cells = np.stack(cell(env.in_cells(starts[:, :2]), env.walls.shape), axis=1)
    assert set(map(tuple, cells.tolist())) == set(map(tuple, np.argwhere(~env.walls).tolist()))
    assert np.array_equal(twin.set_state(env.get_state()), starts[-2:])


# Resets, ends, resumes


@pytest.mark.parametrize("kind", ["antmaze-medium", "scene"])
def test_a_reset_depends_on_seed_lane_and_episode_alone(kind):
    """In spite of what the package draws from: NumPy's global generator, and spaces that nobody seeds."""
    env, other = lanes(kind), make_env(f"ogbench:{kind}-v0", 3)
    actions = actions_of(env, 4)
    other.reset(seed=9)
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    first, _ = env.reset(seed=5)
    walked = [env.step(action)[0] for action in actions]
    second, _ = env.reset()
    assert all(np.array_equal(a, b) for a, b in zip(before, np.random.get_state()))  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(other.reset(seed=5)[0][:2], first)
    for action, obs in zip(actions, walked):
        assert np.array_equal(other.step(np.concatenate([action, action[:1]]))[0][:2], obs)
    assert np.array_equal(other.reset()[0][:2], second)
    rows = np.concatenate([first, second, other.reset(seed=6)[0]])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_the_time_limit_truncates_and_a_goal_ends_nothing():
    task = ogbench_task(task_name("pointmaze-medium", 1))
    env = make_env("ogbench:pointmaze-medium-v0", 2, episode_steps=3)
    env.reset(seed=0)
    env._envs[0].set_xy(task.goal_observation)
    for step in range(3):
        _, reward, terminated, truncated, _ = env.step(np.zeros((2, 2)))
        assert task.reward(env.physics(), np.zeros((2, 2))).tolist() == [1, 0]
        assert not reward.any() and not terminated.any()
        assert (truncated == (step == 2)).all()


@pytest.mark.parametrize("kind", MAZES + ARMS)
def test_a_saved_state_continues_bit_for_bit_in_a_new_environment(kind):
    env, other = lanes(kind), make_env(f"ogbench:{kind}-v0", 2)
    env.reset(seed=3)
    env.reset(options={"reset_mask": np.array([True, False])})
    actions = actions_of(env, 80)
    for action in actions[:40]:
        env.step(action)
    state = env.get_state()
    resumed = other.set_state(state)
    assert np.array_equal(resumed, state["observation"]) and np.array_equal(other.physics(), env.physics())
    for action in actions[40:]:
        assert np.array_equal(env.step(action)[0], other.step(action)[0])
    assert np.array_equal(env.reset()[0], other.reset()[0])


def test_a_teleport_is_repeated_and_shows_the_moment_before():
    env, exits = lanes("pointmaze-teleport"), []
    portal, outs = env._envs[0]._teleport_info["teleport_in_xys"][0], env._envs[0]._teleport_info["teleport_out_xys"]
    other = make_env("ogbench:pointmaze-teleport-v0", 2)
    for seed in range(8):
        env.reset(seed=seed)
        for lane in env._envs:
            lane.set_xy(np.array(portal))
        env._physics_rows[:, :2] = portal
        other.set_state(env.get_state())
        obs, *_ = env.step(np.zeros((2, 2)))
        assert np.linalg.norm(obs - portal, axis=1).max() < 0.1  # As the package has it, and its sets.
        assert np.array_equal(env.position(), obs)
        state, then = env.get_state(), env.step(np.zeros((2, 2)))[0]
        other.step(np.zeros((2, 2)))
        assert np.array_equal(other.step(np.zeros((2, 2)))[0], then)
        other.set_state(state)
        assert np.array_equal(other.step(np.zeros((2, 2)))[0], then)
        exits += [int(np.linalg.norm(np.array(outs) - xy, axis=1).argmin()) for xy in then]
        assert all(np.linalg.norm(np.array(outs) - xy, axis=1).min() < 0.1 for xy in then)
    assert set(exits) == {0, 1, 2}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what is open as Linux lists it")
def test_nothing_stays_open_or_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_env("ogbench:antmaze-medium-v0")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        make_env("ogbench:antmaze-medium-v0", 2).close()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not list(tmp_path.iterdir())


def test_a_simulation_that_blows_up_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a file in the working directory.
    env = lanes("antmaze-medium")
    env.reset(seed=0)
    env._envs[1].data.qvel[:] = 1e12
    with pytest.raises(UserError, match=r"'ogbench:antmaze-medium-v0' became unstable \(lane 1, step 1 of"):
        env.step(np.zeros((2, 8)))


# Goals and stored states


@pytest.mark.parametrize("kind", MAZES)
def test_goal_observations_are_resets_moved_to_the_goal(kind):
    env = lanes(kind)
    obs, _ = env.reset(seed=0)
    goals = np.array([[0.0, 0.0], [1.0, -0.5]])
    found = env.goal_obs(goals)
    assert np.allclose(found[:, :2], goals)
    if kind == "antsoccer-arena":
        assert np.allclose(found[:, 15:17], goals)
    assert np.array_equal(env.goal_obs(goals), found)
    assert np.array_equal(env.reset(options={"reset_mask": np.zeros(2, bool)})[0], obs)  # The lanes did not move.


@pytest.mark.parametrize("kind", ["humanoidmaze-medium", "cube-double"])
def test_stored_states_have_the_observations_that_were_seen(kind):
    env = lanes(kind)
    env.reset(seed=0)
    steps = [(env.step(action)[0], env.physics()) for action in actions_of(env, 20)]
    obs, physics = (np.concatenate(rows) for rows in zip(*steps))
    same = (np.abs(np.stack([env.place(row, None)[0] for row in physics]) - obs) < 1e-6).all(axis=0)
    hand = set() if kind in MAZES else {12, 13, 14, 15, 16, 18}  # place, yaw and force of the hand
    assert set(np.flatnonzero(~same)) <= hand


# Tasks


def starts(kind, inner, number):
    """[(columns of physics, where they start, how far from it)], by the package's table."""
    info = inner.task_infos[number - 1]
    first = inner.model.nq + inner.model.nv
    if kind == "antsoccer-arena":
        return [([0, 1], info["agent_init_xy"], 1), ([15, 16], info["ball_init_xy"], 1)]
    if kind in MAZES + ["pointmaze-medium"]:
        return [([0, 1], info["init_xy"], 1)]
    if kind == "cube-double":
        return [(range(14 + 7 * i, 17 + 7 * i), xyz, 0.0101) for i, xyz in enumerate(info["init_xyzs"])]
    if kind == "scene":
        init = info["init"]
        slides = [([23], init["drawer_pos"], 0.01), ([24], init["window_pos"], 0.01)]
        return [(range(14, 17), init["block_xyzs"][0], 0.0101), ([first, first + 1], init["button_states"], 0), *slides]
    return [(range(first, first + 9), info["init_button_states"], 0)]


EACH = [(kind, i) for kind in ("pointmaze-medium", "antsoccer-arena") for i in range(1, 6)]
EACH += [("humanoidmaze-medium", 3), ("cube-double", 4), ("scene", 3), ("puzzle-3x3", 5)]


@pytest.mark.parametrize("kind, number", EACH)
def test_a_task_starts_and_ends_as_in_the_package(kind, number):
    task = ogbench_task(task_name(kind, number))
    env = make_task_env(task, 2)
    obs, _ = env.reset(seed=number)
    assert env.env_spec.episode_steps == package(kind).spec.max_episode_steps
    for columns, values, reach in starts(kind, package(kind).unwrapped, number):
        assert (np.abs(env.physics()[:, columns] - values) <= reach + 1e-9).all()
    assert (task.reward(env.physics(), np.zeros((2, 1))) <= 0).all()
    goal = env.physics()[0]
    for columns, target, _ in task.reward.args[0]:
        goal[list(columns)] = target
    env.env._place(env.env._envs[0], goal)
    _, reward, terminated, truncated, _ = env.env.step(np.zeros(env.action_space.shape))  # the environment's own
    assert np.array_equal(reward, task.reward(env.physics(), np.zeros((2, 1))))
    assert reward[0] == 1 and reward[1] <= 0
    assert terminated.tolist() == [True, False] and not truncated.any()


def near_success(parts, env, n=400):
    """Physics rows (n, physics) with the task's things on either side of where success ends, each by itself."""
    rng = np.random.default_rng(0)
    rows = np.repeat(env.physics()[:1], n, axis=0) + rng.normal(scale=0.1, size=(n, env.env_spec.physics_dim))
    for columns, target, radius in parts:
        away = rng.normal(size=(n, len(columns)))
        away *= rng.uniform(0, 1.6 * radius, (n, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
        rows[:, columns] = np.round(target + away) if radius == 0.5 else target + away
    return rows


def agrees(reward, env, twin, rows):
    """Whether rewards are 1 more than those that the package writes into a dataset."""
    data = parts_of(env, rows)
    relabel_dataset(twin.spec.id, twin, data)
    return np.array_equal(reward(rows, np.zeros((len(rows), 1))), data["rewards"] + 1)


# Soccer is about the ball, cubes about all cubes; each of these rewards is wrong in one thing.
WRONG = {
    "the body, not the ball": ("antsoccer-arena", lambda parts: [parts[0]._replace(columns=(0, 1))]),
    "an ant's radius": ("pointmaze-medium", lambda parts: [parts[0]._replace(radius=0.5)]),
    "one cube": ("cube-double", lambda parts: parts[:1]),
    "the other task's cubes": ("cube-double", lambda parts: [Part(parts[0].columns, parts[1].target, 0.04), parts[1]]),
    "no window": ("scene", lambda parts: [part for part in parts if part.columns != (24,)]),
    "half a button": ("puzzle-3x3", lambda parts: parts[:4]),
}


@pytest.mark.parametrize("kind", ["pointmaze-medium", "humanoidmaze-medium", "antsoccer-arena", *ARMS])
def test_rewards_are_the_packages_plus_one(kind):
    env, twin = lanes(kind), make_package(kind, "-singletask-task3")
    env.reset(seed=0)
    task = ogbench_task(task_name(kind, 3))
    parts = task.reward.args[0]
    rows = near_success(parts, env)
    assert agrees(task.reward, env, twin, rows)
    found = task.reward(rows, np.zeros((len(rows), 1)))
    assert found.max() == 1 and found.min() < 1
    for name, (where, change) in WRONG.items():
        if where == kind:
            assert not agrees(partial(_reward, tuple(change(parts))), env, twin, rows), name


def test_tasks_say_what_they_are():
    tasks = ogbench_tasks("antmaze-medium-v0")
    assert list(tasks) == [task_name("antmaze-medium", i) for i in range(1, 6)]
    assert len({task.goal_observation[:2] for task in tasks.values()}) == 5
    env = lanes("antmaze-medium")
    for name, task in tasks.items():
        assert task.name == task.env == name
        assert set(task.runs_on) == {"ogbench:antmaze-medium-v0", *tasks}
        goal = task.goal_obs(env)
        assert goal.dtype == np.float32 and goal.shape == (29,)
        assert task.reward(goal[None], np.zeros((1, 8))) == 1
        assert task == ogbench_task(name)
    assert ogbench_task.__wrapped__(name).goal_observation == task.goal_observation
