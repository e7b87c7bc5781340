"""Sets of our own: what they are made of, that a seed is a set, and that what stands in them happened."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from urlrl.agents.metra import MetraConfig
from urlrl.agents.rnd import RNDConfig
from urlrl.agents.uniform import UniformConfig
from urlrl.cli import main
from urlrl.config import PretrainConfig
from urlrl.data.dataset import Dataset
from urlrl.envs.maze import LAYOUTS, cell, centre, place_cells, step_all
from urlrl.envs.ogbench import OGBENCH_TASKS, OGBenchEnv
from urlrl.errors import UserError
from urlrl.presets import preset
from urlrl.tasks.maze_control import Navigator
from urlrl.training.run import RunFolder
from urlrl.types import BatchSpec
from urlrl.verbs import collect as collecting
from urlrl.verbs.collect import RECIPES, Explored, Navigated, Steered, collect, headings
from urlrl.verbs.data import validate

WALK = PretrainConfig(
    agent=UniformConfig(), agent_name="uniform", env="maze:rooms", num_envs=2, episode_steps=10, rollout_steps=20,
    steps_per_update=0, min_replay=40, steps=80, normalizer="off", eval_every=0,
)  # fmt: skip
EXPLORE = replace(
    WALK,
    agent=RNDConfig(width=16, outputs=4, batch=BatchSpec(size=16)),
    agent_name="rnd",
    steps_per_update=20,
)
STEER = replace(
    WALK, agent=MetraConfig(width=16, phi_only=2, batch=BatchSpec(size=16)), agent_name="metra", env="ogbench:ant",
    steps_per_update=20,
)  # fmt: skip
TINY = {"uniform": WALK, "rnd": EXPLORE, "metra": STEER}


@pytest.fixture
def two_parts(monkeypatch):
    """A recipe of half of one agent's transitions and all of another's."""
    monkeypatch.setattr(collecting, "preset", lambda agent, name: TINY[agent])
    monkeypatch.setitem(RECIPES, "both", (Explored("rnd", "tiny", share=0.5), Explored("uniform", "tiny")))


@pytest.fixture
def few_lanes(monkeypatch):
    monkeypatch.setattr(collecting, "LANES", 4)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_of_presets_and_mazes_that_are_there(name):
    recipe = RECIPES[name]
    if isinstance(recipe, Navigated):
        longest = LAYOUTS[recipe.layout].episode_steps
        assert recipe.transitions > 0 and (recipe.episode_steps is None or 1 < recipe.episode_steps < longest)
        return
    if isinstance(recipe, Steered):
        config = preset(recipe.agent, recipe.preset)
        assert config.env == "ogbench:ant" and recipe.maze in OGBENCH_TASKS and recipe.transitions > 0
        return
    configs = [preset(part.agent, part.preset) for part in recipe]
    assert all(isinstance(config, PretrainConfig) and config.keep_data == "all" for config in configs)
    assert [config.agent_name for config in configs] == [part.agent for part in recipe]
    assert len({config.env for config in configs}) == 1 and all(0 < part.share <= 1 for part in recipe)
    assert len({part.agent for part in recipe}) == len(recipe)  # Folders are named after agents.


# --- one run that explores


def test_a_set_of_one_run_is_that_run(tmp_path):
    config = preset("uniform", "maze-rooms")
    data = collect("maze-rooms-random", tmp_path / "set", steps=2_000, quiet=True)
    assert (
        len(data) == 2_000 and data.info.env == config.env == "maze:rooms_cells" and data.info.physics == (("xy", 2),)
    )
    assert RunFolder(tmp_path / "set-runs" / "uniform").manifest()["config"]["steps"] == 2_000
    for episode in data.episodes():
        assert len(episode.action) == 50 and not episode.terminated.any()
        np.testing.assert_array_equal(episode.obs, place_cells(np.float32(episode.physics), (8, 8)))
        np.testing.assert_array_equal(
            step_all(np.float32(episode.physics[:-1]), episode.action, LAYOUTS["rooms"].walls), episode.physics[1:]
        )
    again = collect("maze-rooms-random", tmp_path / "again", steps=2_000, quiet=True)
    other = collect("maze-rooms-random", tmp_path / "other", steps=2_000, seed=1, quiet=True)
    assert again.id == data.id != other.id


# --- two


def test_a_set_of_two_runs_holds_a_share_of_the_first_and_all_of_the_second(two_parts, tmp_path):
    data = collect("both", tmp_path / "set", quiet=True)
    parts = [Dataset(tmp_path / "set-runs" / f"{agent}-data") for agent in ("rnd", "uniform")]
    assert [len(part) for part in parts] == [40, 80] and len(data) == 120
    assert [RunFolder(tmp_path / "set-runs" / agent).checkpoints.steps()[-1] for agent in ("rnd", "uniform")] == [
        80,
        80,
    ]
    expected = [episode for part in parts for episode in part.episodes()]
    for found, episode in zip(data.episodes(), expected, strict=True):
        np.testing.assert_array_equal(found.obs, episode.obs)
        np.testing.assert_array_equal(found.action, episode.action)
    assert not np.array_equal(expected[0].action, expected[4].action)  # Of the second agent, not the first once more.


def test_a_set_that_was_stopped_goes_on_where_it_was(two_parts, tmp_path, monkeypatch):
    whole = collect("both", tmp_path / "whole", quiet=True)

    def stop(*args, **kwargs):
        raise UserError("stopped")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
        original = collecting.pretrain
        patch.setattr(collecting, "pretrain", lambda c, *a, **k: (stop if c == WALK else original)(c, *a, **k))
        collect("both", tmp_path / "set", quiet=True)
    assert not (tmp_path / "set").exists() and len(Dataset(tmp_path / "set-runs" / "rnd-data")) == 40
    assert collect("both", tmp_path / "set", quiet=True).id == whole.id


def test_steps_scale_every_part(two_parts, tmp_path):
    assert len(collect("both", tmp_path / "set", steps=160, quiet=True)) == 80 + 160


# --- navigators


def check_walks(data: Dataset, layout: str, episodes=None):
    """Episodes begin anywhere free, every action leads from its row to the next, and no row is in a wall."""
    walls = LAYOUTS[layout].walls
    for episode in data.episodes() if episodes is None else episodes:
        xy = np.float32(episode.physics)
        assert not walls[cell(xy, walls.shape)].any()
        np.testing.assert_array_equal(episode.obs, place_cells(xy, walls.shape))
        np.testing.assert_array_equal(step_all(xy[:-1], episode.action, walls), xy[1:])
        assert np.abs(episode.action).max() <= 1 and not episode.reward.any() and not episode.terminated.any()
        assert np.linalg.norm(xy[-1] - xy[0]) > 0.5


def of_the_step_before(episode):
    return episode._replace(action=np.roll(episode.action, 1, axis=0))


def rows_from_the_top(episode):
    return episode._replace(physics=episode.physics * np.array([1, -1]))


def test_navigators_walk_over_free_cells(few_lanes, tmp_path):
    data = collect("maze-medium-navigate", tmp_path / "set", steps=401, quiet=True)
    assert len(data) == 800 and [len(episode.action) for episode in data.episodes()] == [100] * 8  # Whole episodes.
    assert data.info.env == "maze:medium_cells" and data.info.physics == (("xy", 2),)
    check_walks(data, "medium")
    for wrong in (of_the_step_before, rows_from_the_top):
        with pytest.raises(AssertionError):
            check_walks(data, "medium", map(wrong, data.episodes()))
    starts = np.stack([episode.obs[0] for episode in data.episodes()])
    assert len(np.unique(starts, axis=0)) == 8


def test_a_seed_is_a_set(few_lanes, tmp_path):
    ids = [
        collect("maze-8x8-navigate", tmp_path / f"{i}", steps=100, seed=seed, quiet=True).id
        for i, seed in enumerate((0, 0, 1))
    ]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(("layout", "steps"), [("medium", 10), ("large", 15)])
def test_sets_to_stitch_are_of_short_episodes(layout, steps, few_lanes, tmp_path):
    data = collect(f"maze-{layout}-stitch", tmp_path / "set", steps=4 * steps, quiet=True)
    assert [len(episode.action) for episode in data.episodes()] == [steps] * 4
    check_walks(data, layout)


# --- an agent that is steered


@pytest.fixture(scope="module")
def large():
    return OGBenchEnv("antmaze-large-v0", 1)


def where_the_package_says(env, xy):
    return cell(env.in_cells(xy), env.walls.shape) == env._envs[0].xy_to_ij(xy)


def test_ogbenchs_mazes_are_counted_in_cells_as_ours(large):
    assert large.walls.shape == (9, 12) and large.walls[0].all() and not large.walls[1, 1] and large.walls[2, 2]
    for row, column in np.argwhere(~large.walls):
        xy = np.array(large._envs[0].ij_to_xy((row, column)), float)
        np.testing.assert_allclose(large.in_cells(xy), centre(np.array([row, column]), large.walls.shape))
        assert all(where_the_package_says(large, xy + np.array(by)) for by in ((1.9, -1.9), (-1.9, 1.9)))


def test_headings_lead_from_cell_to_cell_through_ogbenchs_maze(large):
    """From each free cell to each other one, along the world's x and y, as the package's own maps of distances say."""
    cells = np.argwhere(~large.walls)
    xy = np.array([large._envs[0].ij_to_xy(ij) for ij in cells], float)
    navigator, seen = Navigator(large.walls, len(cells), seed=0), set()
    for goal in range(len(cells)):
        navigator.goal[:] = goal
        at = large.in_cells(xy)
        heading = headings(at, *navigator.leg(at))
        distance = large._envs[0].get_oracle_subgoal(xy[goal], xy[goal])[1]
        for start, step in zip(np.delete(xy, goal, axis=0), np.delete(heading, goal, axis=0)):
            here, there = (distance[large._envs[0].xy_to_ij(place)] for place in (start, start + 4 * step))
            assert there == here - 1 >= 0
            seen.add(tuple(step.tolist()))
    assert seen == {(1, 0), (-1, 0), (0, 1), (0, -1)}


def test_headings_lead_to_the_line_between_cells_and_along_it():
    here, there = np.array([[0.5, 0.5]]), np.array([[1.5, 0.5]])
    for xy, way in (
        ((0.5, 0.5), (0.25, 0)),
        ((0.9, 0.75), (0.25, -0.25)),  # off the line
        ((0.1, 0.5), (0.65, 0)),  # behind the centre: to the point beyond it
        ((0.5, 0.1), (0.25, 0.4)),
    ):
        np.testing.assert_allclose(headings(np.array([xy]), here, there), [way / np.linalg.norm(way)])
    assert not headings(here, here, here).any()  # There is no way.


def check_steps(episode):
    """Each of some actions leads from its row to the next, in the package's own environment."""
    with closing(OGBenchEnv("antmaze-medium-v0", 1)) as env:
        inner = env._envs[0]
        for t in range(0, len(episode.action), 50):
            inner.set_state(*np.split(np.float64(episode.obs[t]), [15]))
            np.testing.assert_allclose(inner.step(episode.action[t])[0], episode.obs[t + 1], rtol=1e-3, atol=1e-3)


@pytest.fixture
def tiny_ant(monkeypatch, few_lanes):
    monkeypatch.setattr(collecting, "preset", lambda agent, name: TINY[agent])
    monkeypatch.setattr(collecting, "LANES", 2)


@pytest.mark.slow
def test_an_agent_is_steered_through_ogbenchs_maze(tiny_ant, tmp_path, capsys):
    data = collect("antmaze-medium-navigate", tmp_path / "set", steps=10, quiet=True)
    assert "set: 0.0 goals were reached per episode." in capsys.readouterr().err  # It did not learn to walk.
    assert [len(episode.action) for episode in data.episodes()] == [1000] * 2  # Whole episodes.
    assert data.info.env == "ogbench:antmaze-medium-v0" and data.info.obs_is_physics
    assert all(check.ok is not False for check in validate(tmp_path / "set"))
    assert RunFolder(tmp_path / "set-runs" / "metra").manifest()["config"]["env"] == "ogbench:ant"
    for episode in data.episodes():
        assert not episode.reward.any() and not episode.terminated.any() and np.abs(episode.action).max() <= 1
        check_steps(episode)
        with pytest.raises(AssertionError):
            check_steps(of_the_step_before(episode))
    again = collect("antmaze-medium-navigate", tmp_path / "again", steps=10, quiet=True)
    assert again.id == data.id


# --- bad input


def test_what_cannot_be_collected_is_refused_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    out = ["--out", str(tmp_path / "new")]
    for argv, message in (
        (["maze-mediun-navigate", *out], "Unknown set 'maze-mediun-navigate': did you mean 'maze-medium-navigate'?"),
        (["walker", "--out", str(tmp_path / "full")], "is there already: expected a new folder for a dataset."),
        (["walker", *out, "--steps", "0"], "steps is 0: expected a number of at least 1."),
        (["walker", *out, "--seed", "-1"], "seed is -1: expected a number of at least 0"),
        (["walker"], "'--out' is missing"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["data", "collect", *argv])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and message in error and error.count("\n") == 1, error
    assert [path.name for path in tmp_path.iterdir()] == ["full"] and not list((tmp_path / "full").iterdir())
