"""The dataset: what is drawn of it and how goals lie, what is written and refused, and that no file runs code."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from data_tools import PHYSICS, QUIET, assert_same_episodes, make_dataset, make_episodes
from hypothesis import given, settings
from hypothesis import strategies as st

from urlrl.data.dataset import Dataset, DatasetInfo, Episode, write_dataset
from urlrl.data.validate import DATASET_CHECKS
from urlrl.errors import UserError


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
    "an action beyond the bounds": (
        [Episode(np.zeros((3, 3)), np.array([[0, 1], [0, -1.5]]), np.zeros(2), np.zeros(2, bool))],
        r"Episode 0 has an action of -1.5 in step 1: expected actions in \[-1, 1\]; `urlrl data convert` takes",
    ),
    "an action that is no number": (
        [Episode(np.zeros((2, 3)), np.full((1, 2), np.nan), np.zeros(1), np.zeros(1, bool))],
        "an action of nan",
    ),
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
