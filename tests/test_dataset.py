"""The dataset: what is drawn of it and how goals lie, what is written and refused, and that no file runs code."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_tools import LENGTHS, PHYSICS, QUIET, assert_same_episodes, make_dataset, make_episodes
from hypothesis import given, settings
from hypothesis import strategies as st

from urlrl.data.dataset import Dataset, DatasetInfo, Episode, Indices, draw, write_dataset
from urlrl.data.validate import DATASET_CHECKS
from urlrl.errors import UserError
from urlrl.types import BatchSpec


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Change a copy of it."""
    return make_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def copy(dataset, tmp_path):
    return Path(shutil.copytree(dataset.folder, tmp_path / "copy"))


# --- Reading and writing ----------------------------------------------------------------------------------------------


def test_what_is_written_is_read(dataset):
    assert_same_episodes(dataset.episodes(), make_episodes())
    assert (len(dataset), dataset.info.rows, dataset.info.episodes) == (21, 25, 4)
    assert (dataset.info.obs_dim, dataset.info.action_dim) == (3, 2)
    np.testing.assert_array_equal(dataset.starts, [0, 6, 8, 21, 25])


def test_a_transition_is_two_rows_of_one_episode(dataset):
    rows = dataset.transition_rows(np.arange(len(dataset)))
    lasts = dataset.starts[1:] - 1
    np.testing.assert_array_equal(rows, np.setdiff1d(np.arange(dataset.info.rows), lasts))
    batch = dataset.at(rows)
    np.testing.assert_array_equal(batch.next_obs[:, 0], batch.obs[:, 0] + 1)
    np.testing.assert_allclose(batch.action[:, 0], -1e-3 * (1 + np.arange(21)), rtol=1e-6)
    expected = np.concatenate([1.0 - episode.terminated for episode in make_episodes()])
    np.testing.assert_array_equal(batch.discount, expected)
    assert batch.z.shape == (21, 0) and batch.goal is None
    both = dataset.rows(rows)
    physics = np.concatenate([episode.physics for episode in make_episodes()])
    np.testing.assert_array_equal(both["physics"], physics[rows])
    np.testing.assert_array_equal(both["next_physics"], physics[rows + 1])
    np.testing.assert_array_equal(dataset.pick(100, 0), rows)
    assert len(np.unique(dataset.pick(7, 0))) == 7


def test_observations_that_are_physics_are_stored_once(tmp_path):
    info = DatasetInfo("", "noise", (("qpos", 1), ("qvel", 2)), obs_is_physics=True)
    data = write_dataset(tmp_path / "set", info, make_episodes(physics=False))
    assert not (data.folder / "physics.npy").exists()
    np.testing.assert_array_equal(data.physics(np.arange(25)), data.columns["obs"])
    assert next(data.episodes()).physics.dtype == np.float64


def test_equal_content_has_equal_ids(dataset, tmp_path):
    assert make_dataset(tmp_path / "again").id == dataset.id
    assert make_dataset(tmp_path / "other", seed=1).id != dataset.id


BAD_EPISODES = {
    "no episodes": ([], "noise holds no episodes"),
    "no transition": ([Episode(np.zeros((1, 3)), np.zeros((0, 2)), np.zeros(0), np.zeros(0, bool))], "T at least 1"),
    "a state too few": (
        [Episode(np.zeros((4, 3)), np.zeros((4, 2)), np.zeros(4), np.zeros(4, bool))],
        "4 observations",
    ),
    "a reward too few": ([Episode(np.zeros((5, 3)), np.zeros((4, 2)), np.zeros(3), np.zeros(4, bool))], "of 'reward'"),
    "another size": (make_episodes(physics=False) + make_episodes(obs_dim=4, physics=False), "obs of shape"),
}


@pytest.mark.parametrize("what", BAD_EPISODES)
def test_bad_episodes_leave_nothing_behind(what, tmp_path):
    episodes, said = BAD_EPISODES[what]
    with pytest.raises(UserError, match=said):
        write_dataset(tmp_path / "set", DatasetInfo("", "noise"), episodes)
    assert not list(tmp_path.iterdir())


def test_an_episode_without_its_physics_is_refused(tmp_path):
    with pytest.raises(UserError, match="and no physics"):
        write_dataset(tmp_path / "set", DatasetInfo("", "noise", PHYSICS), make_episodes(physics=False))


def test_a_dataset_is_never_overwritten(dataset):
    before = {path: path.read_bytes() for path in dataset.folder.iterdir()}
    with pytest.raises(UserError, match="is there already"):
        make_dataset(dataset.folder, seed=1)
    assert {path: path.read_bytes() for path in dataset.folder.iterdir()} == before


def test_a_reader_that_fails_leaves_nothing_behind(tmp_path):
    def broken():
        yield from make_episodes()
        raise UserError("The fifth episode cannot be read.")

    with pytest.raises(UserError, match="fifth"):
        write_dataset(tmp_path / "set", DatasetInfo("", "noise", PHYSICS), broken())
    assert not list(tmp_path.iterdir())


# --- Damage -----------------------------------------------------------------------------------------------------------


def edit_info(folder: Path, **changes) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def save_over(name: str, values: np.ndarray, folder: Path) -> None:
    np.save(folder / f"{name}.npy", values, allow_pickle=True)


DAMAGE = {
    "no info": (lambda folder: (folder / "dataset.json").unlink(), "is not a dataset"),
    "half the info": (lambda folder: (folder / "dataset.json").write_text('{"format": "urlrl-data'), "cannot be read"),
    "info of a list": (lambda folder: (folder / "dataset.json").write_text("[]"), "cannot be read"),
    "another format": (partial(edit_info, format="urlrl-dataset-0"), "urlrl-dataset-0"),
    "an unknown field": (partial(edit_info, color="red"), "color"),
    "rows as a fraction": (partial(edit_info, rows=25.0), "rows is 25.0, not a whole number"),
    "env as a number": (partial(edit_info, env=3), "env is 3, not a text"),
    "more rows than there are": (partial(edit_info, rows=26), "obs.npy holds float32 of shape"),
    "fewer episodes": (partial(edit_info, episodes=3), "starts.npy holds"),
    "another physics": (partial(edit_info, physics=[["qpos", 9]]), "physics.npy holds"),
    "no rewards": (lambda folder: (folder / "reward.npy").unlink(), "reward.npy is missing"),
    "float64": (partial(save_over, "obs", np.zeros((25, 3))), "obs.npy holds float64"),
    "objects": (partial(save_over, "reward", np.array([{"a": 1}] * 25, object)), "reward.npy cannot be read"),
    "starts that fall": (partial(save_over, "starts", np.array([0, 8, 6, 21, 25])), "does not divide 25 rows"),
    "an episode of one state": (partial(save_over, "starts", np.array([0, 1, 8, 21, 25])), "does not divide"),
    "starts that begin late": (partial(save_over, "starts", np.array([1, 6, 8, 21, 25])), "does not divide"),
    "half a column": (
        lambda folder: (folder / "obs.npy").write_bytes((folder / "obs.npy").read_bytes()[:200]),
        "obs.npy cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_one_sentence(what, copy):
    damage, said = DAMAGE[what]
    damage(copy)
    with pytest.raises(UserError, match=said) as raised:
        Dataset(copy)
    assert str(copy) in str(raised.value) and "\n" not in str(raised.value)


@settings(QUIET, max_examples=120)
@given(st.data())
def test_a_flipped_bit_is_a_user_error_or_found_by_its_hash(dataset, tmp_path_factory, data):
    folder = Path(shutil.copytree(dataset.folder, tmp_path_factory.mktemp("flip") / "set"))
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found = Dataset(folder)
        list(found.episodes())
    except UserError:
        return
    assert path.name == "dataset.json" or DATASET_CHECKS[0](found).ok is False


# --- What is drawn ----------------------------------------------------------------------------------------------------

GOALS = BatchSpec(size=512, goals=True, goal_gamma=0.9)


def starts_of(lengths) -> jnp.ndarray:
    return jnp.array(np.cumsum([0, *(length + 1 for length in lengths)]), jnp.int32)


@settings(QUIET, max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(0, 2**31 - 1))
def test_goals_of_the_trajectory_lie_ahead_in_it(lengths, seed):
    starts = starts_of(lengths)
    drawn = draw(jax.random.key(seed), starts, 2, replace(GOALS, goal_random=0.0))
    row, goal, steps = map(np.asarray, drawn)
    edges = np.asarray(starts)
    episode = np.searchsorted(edges, row, side="right") - 1
    last = edges[episode + 1] - 1
    assert row.shape == (2, 512) and (row >= 0).all() and (row < last).all()  # No last row begins a transition.
    assert (goal > row).all() and (goal <= last).all()
    np.testing.assert_array_equal(steps, goal - row)


@settings(QUIET, max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(0, 2**31 - 1))
def test_random_and_current_goals(lengths, seed):
    starts, keys = starts_of(lengths), jax.random.split(jax.random.key(seed))
    anywhere = jax.tree.map(np.asarray, draw(keys[0], starts, 2, replace(GOALS, goal_random=1.0)))
    assert (anywhere.goal >= 0).all() and (anywhere.goal < int(starts[-1])).all()
    np.testing.assert_array_equal(anywhere.goal_steps, np.where(anywhere.goal == anywhere.row, 0, -1))
    here = jax.tree.map(np.asarray, draw(keys[1], starts, 2, replace(GOALS, goal_random=0.0, goal_current=1.0)))
    np.testing.assert_array_equal(here.goal, here.row)
    assert not here.goal_steps.any()


def test_transitions_are_uniform():
    starts = starts_of(LENGTHS)
    row = np.asarray(draw(jax.random.key(0), starts, 100, BatchSpec(size=2100)).row)
    counts = np.bincount(row.ravel(), minlength=25)
    lasts = np.asarray(starts)[1:] - 1
    assert not counts[lasts].any()
    np.testing.assert_allclose(np.delete(counts, lasts), 10_000, atol=5 * 100)  # 5 standard deviations


def check_goals(drawn: Indices, starts: np.ndarray) -> None:
    """The sheet's 6.2: offsets are Geom(1 - gamma) cut off at the trajectory's end, .375 +- .01 are random, and none
    of the others crosses a boundary."""
    row, goal, steps = (np.asarray(part).ravel() for part in drawn)
    room = starts[np.searchsorted(starts, row, side="right")] - 1 - row
    random = steps < 0
    assert abs(random.mean() - 0.375) < 0.01
    offset, room = (goal - row)[~random], room[~random]
    assert (offset <= room).all() and (offset >= 0).all()
    gamma, many = GOALS.goal_gamma, 30
    expected = [((1 - gamma) * gamma ** (k - 1) * (k < room) + gamma ** (k - 1) * (k == room)).mean()
                for k in range(1, many)]  # fmt: skip
    found = np.bincount(offset, minlength=many)[1:many] / len(offset)
    np.testing.assert_allclose(found, expected, atol=0.004)


def uniform_offsets(drawn: Indices, starts: np.ndarray) -> Indices:
    last = starts[np.searchsorted(starts, drawn.row, side="right")] - 1
    ahead = np.random.default_rng(0).integers(1, last - drawn.row + 1)
    return drawn._replace(goal=np.where(drawn.goal_steps < 0, drawn.goal, drawn.row + ahead))


WRONG_GOALS = {
    "one step short": lambda drawn, starts: drawn._replace(goal=drawn.goal - (drawn.goal_steps > 0)),
    "across the boundary": lambda drawn, starts: drawn._replace(goal=drawn.goal + 20 * (drawn.goal_steps > 0)),
    "uniform in the rest of the episode": uniform_offsets,
    "half of them random": lambda drawn, starts: drawn._replace(
        goal_steps=np.where(np.arange(drawn.row.size).reshape(drawn.row.shape) % 5 == 0, -1, drawn.goal_steps)
    ),
}


@pytest.fixture(scope="module")
def drawn():
    starts = starts_of([40, 3, 17, 200, 1, 39])
    return jax.tree.map(np.asarray, draw(jax.random.key(3), starts, 300, GOALS)), np.asarray(starts)


def test_how_goals_are_distributed(drawn):
    check_goals(*drawn)


@pytest.mark.parametrize("wrong", WRONG_GOALS)
def test_wrong_goals_are_noticed(drawn, wrong):
    with pytest.raises(AssertionError):
        check_goals(WRONG_GOALS[wrong](*drawn), drawn[1])


@pytest.mark.parametrize(("gamma", "offset"), [(0.0, 1), (1.0, None)])
def test_the_ends_of_gamma(gamma, offset):
    starts = starts_of(LENGTHS)
    spec = replace(GOALS, goal_gamma=gamma, goal_random=0.0)
    row, goal, _ = map(np.asarray, draw(jax.random.key(0), starts, 1, spec))
    last = np.asarray(starts)[np.searchsorted(np.asarray(starts), row, side="right")] - 1
    np.testing.assert_array_equal(goal, row + offset if offset else last)


def test_a_batch_is_gathered_by_what_is_drawn(dataset):
    batch = dataset.sample(jax.random.key(1), 3, replace(GOALS, size=16))
    row, goal, steps = map(np.asarray, draw(jax.random.key(1), starts_of(LENGTHS), 3, replace(GOALS, size=16)))
    np.testing.assert_array_equal(batch.obs[..., 0], row)
    np.testing.assert_array_equal(batch.next_obs[..., 0], row + 1)
    np.testing.assert_array_equal(batch.goal[..., 0], goal)
    np.testing.assert_array_equal(batch.goal_steps, steps)
    assert batch.reward.shape == (3, 16) and batch.z.shape == (3, 16, 0)
    assert dataset.sample(jax.random.key(2), 3, BatchSpec(size=16)).goal is None
