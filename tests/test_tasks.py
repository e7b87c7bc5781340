"""METRA's goal and hurdle tasks, as the sheet (section 4.3) says them, and what every task promises."""

from dataclasses import dataclass, replace

import mujoco
import numpy as np
import pytest

from urlrl.envs import make_env
from urlrl.envs.base import LaneByLaneEnv
from urlrl.envs.locomotion import HALF_CHEETAH, HALF_CHEETAH_HURDLE, load_model
from urlrl.errors import UserError
from urlrl.tasks.catalogue import TASKS, URLB_TASKS, ZERO_SHOT_TASKS, find_task
from urlrl.tasks.locomotion import HURDLES, HurdleTask, _back_foot
from urlrl.tasks.task import LARGEST, GoalTask, Moment, Task, TaskEnv, check_runs_on, make_task_env
from urlrl.types import EnvSpec

ANT, CHEETAH, HURDLE = (find_task(name) for name in ("ant_multi_goal", "half_cheetah_goal", "half_cheetah_hurdle"))
GOALS = ["point_goal", "ant_multi_goal", "half_cheetah_goal", "quadruped_goal", "humanoid_goal"]


def score(task, position, goals, clock):
    """The reward of one environment that is at `position` after `clock` control steps."""
    position, context = np.array([position], float), np.ravel(np.array(goals, float))[None]
    return task.score(Moment(position, np.zeros((1, 1)), position, context, np.array([clock]))).item()


def shown(task, goals, clock):
    return task.inputs(np.zeros((1, 9)), np.ravel(np.array(goals, float))[None], np.array([clock]))[0].tolist()


# --- goals


def test_a_goal_is_reached_up_to_its_radius_and_never_in_the_first_decision():
    goals = [[1.0, -2.0], [100, 100], [100, 100], [100, 100]]
    assert score(ANT, [1, -2], goals, 1) == 0
    assert score(ANT, [1, -2], goals, 2) == 1
    assert score(ANT, [1 + 3.0, -2], goals, 2) == score(ANT, [1, -2 - 3.0], goals, 2) == 1
    assert score(ANT, [1 + 3.001, -2], goals, 2) == 0
    assert score(ANT, [1 + 2.2, -2 + 2.2], goals, 2) == 0  # A disc and no square: 2.2 sqrt(2) is above 3.
    assert score(CHEETAH, [-47.0], [-50], 2) == score(CHEETAH, [-53.0], [-50], 200) == 1
    assert score(CHEETAH, [-46.9], [-50], 2) == score(CHEETAH, [-50.0], [-50], 1) == 0


def test_coming_nearer_pays_in_metres():
    task, goal = find_task("half_cheetah_approach"), np.array([[10.0]])

    def paid(before, after):
        moment = Moment(np.array([[before]]), np.zeros((1, 6)), np.array([[after]]), goal, np.array([5]))
        return task.score(moment).item()

    assert (paid(-2.0, 1.0), paid(4.0, 3.5), paid(9.0, 12.0)) == (3.0, -0.5, -1.0)
    assert task.ceiling(np.zeros((1, 18))) == (15.0, LARGEST)  # The mean distance of goals in ±30 m.


CORNERS = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]]


def assert_switches(task):
    """The goal moves on after 50, 100 and 150 decisions: judged before, shown after."""
    for clock in range(2, 201):
        judged, told = CORNERS[(clock - 1) // 50], CORNERS[min(clock // 50, 3)]
        assert [score(task, corner, CORNERS, clock) for corner in CORNERS] == [float(c == judged) for c in CORNERS]
        assert shown(task, CORNERS, clock) == told
    assert shown(task, CORNERS, 0) == CORNERS[0]
    assert (shown(task, CORNERS, 49), shown(task, CORNERS, 50)) == (CORNERS[0], CORNERS[1])


@dataclass(frozen=True)
class JudgedAfterTheSwitch(GoalTask):
    def score(self, moment):
        return super().score(moment._replace(clock=moment.clock + 1))


@dataclass(frozen=True)
class ShownBeforeTheSwitch(GoalTask):
    def inputs(self, physics, context, clock):
        return super().inputs(physics, context, np.maximum(clock - 1, 0))


def test_the_goal_switches_after_50_100_and_150_decisions():
    assert_switches(ANT)


@pytest.mark.parametrize("wrong", [JudgedAfterTheSwitch, ShownBeforeTheSwitch])
def test_the_switch_is_not_a_step_off(wrong):
    with pytest.raises(AssertionError):
        assert_switches(wrong(**ANT.__dict__))


class Followed(LaneByLaneEnv):
    """Teleports: an action is where its environment goes, in units of 1000 m."""

    def __init__(self, num_envs, position, episode_steps):
        super().__init__(
            EnvSpec("followed", position, position, episode_steps, None, tuple("xyz"[:position])), num_envs
        )
        self.place = np.zeros((num_envs, position))

    def _reset_lane(self, lane, seed):
        self.place[lane] = 0

    def _step(self, actions):
        self.place = 1e3 * actions
        return np.zeros(self.num_envs), np.zeros(self.num_envs, bool)

    def _obs(self):
        return self.place.copy()

    def position(self):
        return self.place.copy()

    def physics(self):
        return self.place.copy()


def followed(task, num_envs=2):
    return TaskEnv(Followed(num_envs, task.position, task.episode_steps), task)


@pytest.mark.parametrize(("name", "best"), [("point_goal", 49)] + [(name, 199) for name in GOALS[1:]])
def test_who_is_always_at_the_goal_that_it_is_shown_gets_the_most(name, best):
    """Episodes of 200 decisions pay at most 199; quadruped and humanoid take two control steps per decision."""
    task = find_task(name)
    env = followed(task)
    obs, _ = env.reset(seed=0)
    for _ in range(2):  # The clock of the second episode begins anew.
        total, steps, ended = 0, 0, np.zeros(2, bool)
        while not ended.any():
            assert (obs[:, -task.position :] == env.goal()).all()
            obs, reward, terminated, truncated, _ = env.step(env.goal() / 1e3)
            ended, total, steps = terminated | truncated, total + reward, steps + 1
        assert ended.all() and truncated.all() and steps == task.episode_steps
        assert total.tolist() == [best, best]
        obs, _ = env.reset(options={"reset_mask": ended})


@pytest.mark.parametrize(
    ("name", "half", "radius", "goals", "pays", "first", "steps", "option"),
    [
        ("ant_multi_goal", 7.5, 3.0, 4, 1.0, 2, 200, 25),
        ("half_cheetah_goal", 100.0, 3.0, 1, 1.0, 2, 200, 25),
        ("quadruped_goal", 7.5, 1.5, 1, 0.5, 3, 400, 50),
        ("humanoid_goal", 5.0, 1.5, 1, 0.5, 3, 400, 50),
    ],
)
def test_the_numbers_of_the_sheet(name, half, radius, goals, pays, first, steps, option):
    task = find_task(name)
    assert (task.half, task.radius, task.goals, task.pays, task.first) == (half, radius, goals, pays, first)
    assert (task.episode_steps, task.option_steps) == (steps, option)
    at = [0.0] * task.position
    everywhere = [at] * goals
    assert [score(task, at, everywhere, clock) for clock in (first - 1, first, steps)] == [0, pays, pays]
    just_inside, outside = [[r, *at[1:]] for r in (radius, radius + 1e-6)]
    assert (score(task, just_inside, everywhere, first), score(task, outside, everywhere, first)) == (pays, 0)


def test_goals_are_uniform_and_those_after_the_first_are_a_chain_of_their_own():
    draws = np.stack([ANT.draw(np.random.default_rng(seed)) for seed in range(4000)]).reshape(-1, 4, 2)
    first, chain = draws[:, 0], draws[:, 1:]
    assert -7.5 <= first.min() < -7.4 and 7.4 < first.max() <= 7.5
    variance = 7.5**2 / 3  # of one draw
    assert first.var(axis=0) == pytest.approx([variance] * 2, rel=0.06)
    for i in range(3):  # Goal 2 is two draws from the origin, goal 3 three, goal 4 four.
        assert chain[:, i].var(axis=0) == pytest.approx([(i + 2) * variance] * 2, rel=0.08)
        if i:
            assert np.abs(chain[:, i] - chain[:, i - 1]).max() <= 7.5
    assert np.abs(first - chain[:, 0]).max() > 7.5  # Goal 2 is not a draw away from goal 1.
    assert abs(np.corrcoef(first[:, 0], chain[:, 0, 0])[0, 1]) < 0.06
    cheetah = np.stack([CHEETAH.draw(np.random.default_rng(seed)) for seed in range(2000)])
    assert cheetah.shape == (2000, 1) and -100 <= cheetah.min() < -99 and 99 < cheetah.max() <= 100


# --- hurdles


def cheetah_rows(n=200, seed=0):
    """Physics rows (n, 18) of half cheetahs in all postures."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(-20, 30, (n, 1)), rng.uniform(-3, 3, (n, 17))], axis=1)


def with_foot_at(x):
    """Physics rows of one posture, moved to where the back foot is at each of x (n,)."""
    rows = np.repeat(cheetah_rows(1), len(x), axis=0)
    rows[:, 0] += x - _back_foot(rows)
    return rows


def mujoco_foot(rows):
    model = load_model(HALF_CHEETAH_HURDLE)
    data, foot = mujoco.MjData(model), model.body("bfoot").id
    x = []
    for row in rows:
        data.qpos[:] = row[: model.nq]
        mujoco.mj_kinematics(model, data)
        x.append(data.xpos[foot, 0])
    return np.array(x)


def test_the_back_foot_is_where_mujoco_has_it():
    rows = cheetah_rows()
    np.testing.assert_allclose(_back_foot(rows), mujoco_foot(rows), atol=1e-12)
    mirrored = rows * np.where(np.arange(18) == 2, -1, 1)  # The torso turned the other way.
    assert np.abs(_back_foot(mirrored) - mujoco_foot(rows)).max() > 0.1


def passed(start, end):
    before, after = with_foot_at(np.array([start])), with_foot_at(np.array([end]))
    return HURDLE.score(Moment(before, np.zeros((1, 6)), after, np.zeros((1, 0)), np.array([1]))).item()


def test_a_hurdle_passed_pays_one_and_passed_back_costs_one():
    assert passed(2.9, 3.1) == 1 and passed(3.1, 2.9) == -1
    assert passed(2.9, 3 - 1e-6) == 0 and passed(3.1, 4) == 0
    assert passed(2.9, 7.1) == 2 and passed(7.1, 2.9) == -2
    for x in HURDLES:
        assert passed(x - 0.1, x + 0.1) == (x >= 0) == -passed(x + 0.1, x - 0.1)
    assert passed(-100, 100) == 7 and passed(100, -100) == -7  # The most: those at x >= 0.


def test_the_next_hurdle_and_its_distance_are_shown():
    x = np.array([-16.0, -4.9, -1.1, -0.9, 2.9, 3.1, 26.5, 27.1, 40.0])
    expected = [(-15, 1), (-1, 3.9), (-1, 0.1), (3, 3.9), (3, 0.1), (7, 3.9), (27, 0.5), (15, 12.1), (15, 25)]
    features = HURDLE.inputs(with_foot_at(x), np.zeros((len(x), 0)), np.zeros(len(x), int))
    np.testing.assert_allclose(features, expected, atol=1e-9)


def test_the_hurdles_are_bars_on_gymnasiums_half_cheetah():
    model, plain = load_model(HALF_CHEETAH_HURDLE), load_model(HALF_CHEETAH)
    bars = [i for i in range(model.ngeom) if model.geom(i).name.startswith("hurdle")]
    assert model.geom_pos[bars, 0].tolist() == [-15, -13, -9, -5, -1, 3, 7, 11, 15, 19, 23, 27] == HURDLES.tolist()
    assert (model.geom_type[bars] == mujoco.mjtGeom.mjGEOM_BOX).all() and (model.geom_bodyid[bars] == 0).all()
    assert (model.geom_size[bars] == [0.05, 1, 0.03]).all() and (model.geom_pos[bars, 1:] == [0, 0.2]).all()
    assert (model.nq, model.nu, model.ngeom) == (plain.nq, plain.nu, plain.ngeom + 12)
    assert np.array_equal(model.body_mass[1:], plain.body_mass[1:])


def test_the_hurdles_are_in_the_way():
    model = load_model(HALF_CHEETAH_HURDLE)
    data = mujoco.MjData(model)
    data.qpos[:2] = 7.0, -0.5  # The torso, at 0.7 m by default, lies in a bar.
    mujoco.mj_forward(model, data)
    touching = {tuple(sorted(model.geom(i).name for i in pair)) for pair in data.contact.geom}
    assert ("hurdle_7", "torso") in touching


# --- every task


@pytest.mark.parametrize("name", ["point_goal", "half_cheetah_goal", "half_cheetah_hurdle"])
def test_a_task_adds_features_and_changes_nothing_else(name):
    task = find_task(name)
    env, plain = make_task_env(task, 2), make_env(task.env, 2, episode_steps=task.episode_steps)
    obs, _ = env.reset(seed=3)
    expected, _ = plain.reset(seed=3)
    rng = np.random.default_rng(0)
    width = len(task.input_names)
    assert env.env_spec.obs_dim == obs.shape[1] == expected.shape[1] + width
    for _ in range(20):
        assert np.array_equal(obs[:, :-width], expected)
        assert np.array_equal(obs[:, -width:], task.inputs(plain.physics(), env.context, env.clock))
        before, action = plain.physics(), rng.uniform(-1.5, 1.5, plain.action_space.shape)
        obs, reward, *flags, _ = env.step(action)
        expected, _, *plain_flags, _ = plain.step(action)
        moment = Moment(before, np.clip(action, -1, 1), plain.physics(), env.context, env.clock)
        assert np.array_equal(reward, task.score(moment)) and np.array_equal(flags, plain_flags)
    env.close()
    plain.close()


@pytest.mark.parametrize("name", ["quadruped_goal", "humanoid_goal"])
def test_the_position_of_a_dm_control_task_is_that_of_its_root(name):
    env = make_task_env(find_task(name), 1, root_position=True)
    env.reset(seed=0)
    for _ in range(3):
        obs, *_ = env.step(np.ones(env.action_space.shape))
    assert np.array_equal(env.physics()[:, :2], env.position()) and env.env_spec.episode_steps == 400
    assert np.array_equal(obs[:, :2], env.position()) and np.array_equal(obs[:, -2:], env.goal())
    env.close()


def episodes(num_envs, seed, ends):
    """What each lane drew, by the number of its episode, when the lanes of each mask are reset in turn."""
    env = followed(ANT, num_envs)
    env.reset(seed=seed)
    drawn = {(lane, 0): env.context[lane].copy() for lane in range(num_envs)}
    for mask in ends:
        env.reset(options={"reset_mask": np.array(mask)})
        drawn |= {(lane, env.episode[lane]): env.context[lane].copy() for lane in np.flatnonzero(mask)}
    return drawn


def test_what_a_task_draws_depends_on_seed_lane_and_episode_alone():
    a = episodes(3, 5, [[True, False, True], [True, True, False], [False, True, False]])
    b = episodes(2, 5, [[False, True], [False, True], [True, False], [True, True]])
    assert set(a) & set(b) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)}
    for key in set(a) & set(b):
        assert np.array_equal(a[key], b[key])
    everything = [context.tobytes() for context in a.values()]
    assert len(set(everything)) == len(everything)
    other = episodes(3, 6, [])
    assert not any(np.array_equal(other[key], a[key]) for key in other)


def test_a_reset_with_the_same_seed_begins_the_same_sequence():
    env = followed(ANT)
    first = []
    for _ in range(2):
        obs = [env.reset(seed=4)[0], env.reset(options={"reset_mask": np.ones(2, bool)})[0]]
        first.append(np.stack(obs))
    assert np.array_equal(*first) and not np.array_equal(first[0][0], first[0][1])


@pytest.mark.parametrize("name", ["point_goal", "ant_multi_goal", "half_cheetah_hurdle"])
def test_an_environment_of_a_task_goes_on_from_its_saved_state(name):
    """Into the next episodes, whose goals are drawn as they would have been; the start is staggered."""
    task = find_task(name)
    env, other = make_task_env(task, 2), make_task_env(task, 2)
    assert env.env_spec.exact_resume

    def play(env, obs, steps):
        seen, rng = [obs], np.random.default_rng(0)
        for _ in range(steps):
            obs, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, (2, env.env_spec.action_dim)))
            seen += [obs, reward, terminated, truncated, env.clock.copy(), env.context.copy()]
            if (ended := terminated | truncated).any():
                obs, _ = env.reset(options={"reset_mask": ended})
        return seen

    start = {"reset_mask": np.ones(2, bool), "clock": np.array([0, task.episode_steps - 7])}
    play(env, env.reset(seed=5, options=start)[0], 10)
    assert env.clock.tolist() == [10, 3] and env.episode.tolist() == [0, 1]
    state = env.get_state()
    expected = play(env, env.set_state(state), task.episode_steps)
    other.reset(seed=6)
    found = play(other, other.set_state(state), task.episode_steps)
    assert other.control_steps == env.control_steps and all(map(np.array_equal, found, expected))


def test_what_ends_by_the_clock_is_truncated_and_a_goal_does_not_end_an_episode():
    env = make_task_env(find_task("point_goal"), 1)
    env.reset(seed=0)
    for t in range(50):
        _, _, terminated, truncated, _ = env.step(np.zeros((1, 2)))
        assert not terminated.any() and truncated.all() == (t == 49)


def test_agents_that_know_other_observations_are_refused():
    check_runs_on(HURDLE, "half_cheetah")
    check_runs_on(HURDLE, "half_cheetah_hurdle")
    check_runs_on(HURDLE, "mjx:half_cheetah")  # Its twin is.
    check_runs_on(find_task("walker_run"), "mjx:walker_flip")
    with pytest.raises(UserError, match="'ant_multi_goal' is for agents pretrained on ant: this one knows 'point'"):
        check_runs_on(ANT, "point")
    with pytest.raises(UserError, match="on half_cheetah or half_cheetah_hurdle: this one knows 'ant'"):
        check_runs_on(HURDLE, "ant")


def test_tasks_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(
        "from urlrl.tasks import Task\n"
        "left = Task('left', 'point', ('point',), reward=lambda physics, action: -physics[:, 0])\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    task = find_task("my_tasks:left")
    assert isinstance(task, Task)
    env = make_task_env(task, 2)
    env.reset(seed=0)
    obs, reward, *_ = env.step(np.array([[-1.0, 0], [1.0, 0]]))
    assert obs.shape == (2, 2) and np.array_equal(reward, -env.physics()[:, 0]) and env.goal() is None
    with pytest.raises(UserError, match="Task 'my_tasks:number' is a int: expected a urlrl.tasks.Task"):
        find_task("my_tasks:number")
    with pytest.raises(UserError, match="module 'my_tasks' has no 'right'"):
        find_task("my_tasks:right")
    with pytest.raises(UserError, match="Cannot import the task 'no_tasks:left'"):
        find_task("no_tasks:left")
    with pytest.raises(UserError, match="Unknown task 'ant_multi_gaol': did you mean 'ant_multi_goal'"):
        find_task("ant_multi_gaol")


def test_what_0_1_0_called_otherwise_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old_tasks.py").write_text(
        "from dataclasses import dataclass\nfrom urlrl.tasks import Task\n@dataclass(frozen=True)\n"
        "class Old(Task):\n    def features(self, physics, context, clock):\n        return physics\n"
        "old = Old('old', 'point', ('point',), reward=lambda physics, action: physics[:, 0])\n"
    )
    with pytest.raises(UserError, match="Task 'old_tasks:old' has 'features', which 0.1.0 read: .* called 'inputs'"):
        find_task("old_tasks:old")


def test_every_table_entry_is_what_its_key_says():
    for name in GOALS + ["half_cheetah_hurdle"]:
        task = TASKS[name]()
        assert task.name == name and task.env in task.runs_on
        assert task.episode_steps % task.option_steps == 0
        assert len(task.input_names) == (task.position if isinstance(task, GoalTask) else 2)
    assert isinstance(HURDLE, HurdleTask) and replace(HURDLE, name="x").input_names == HURDLE.input_names


def test_the_tasks_of_zero_shot_benchmarks_are_grouped_by_domain():
    corners = ("top_left", "top_right", "bottom_left", "bottom_right")
    assert {domain: set(names) for domain, names in ZERO_SHOT_TASKS.items()} == {
        "walker": {"walker_stand", "walker_walk", "walker_run", "walker_flip"},
        "cheetah": {"cheetah_run", "cheetah_run_backward", "cheetah_walk", "cheetah_walk_backward"},
        "quadruped": {"quadruped_stand", "quadruped_walk", "quadruped_run", "quadruped_jump"},
        "jaco": {f"jaco_site_reach_{corner}" for corner in corners},
        "point_mass_maze": {f"point_mass_maze_reach_{corner}" for corner in corners},
    }
    for names in (*ZERO_SHOT_TASKS.values(), *URLB_TASKS.values()):
        tasks = [find_task(name) for name in names]
        assert len({task.name for task in tasks}) == 4 and set(names) <= set(TASKS)
        assert set.intersection(*(set(task.runs_on) for task in tasks))  # One agent can be asked for all of them.
        assert all(task.reward is not None and not task.input_names for task in tasks)


def test_upper_bounds_are_published_or_the_largest_possible_and_say_which():
    starts = np.zeros((1, 0))
    bounds = {name: find_task(name).ceiling(starts) for name in ("cheetah_run", "walker_run", "half_cheetah_hurdle")}
    assert bounds == {
        "cheetah_run": (1000.0, "the largest possible return"),
        "walker_run": (796.0, "published expert"),
        "half_cheetah_hurdle": (7.0, "the largest possible return"),
    }
    for name in (
        "half_cheetah_goal",
        "ant_multi_goal",
        "quadruped_goal",
    ):  # Each step pays from the second or third on.
        assert find_task(name).ceiling(starts) == (199.0, "the largest possible return"), name
