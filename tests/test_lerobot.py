"""LeRobot's folders: all versions give the same episodes, what is left out is said, what is wrong is one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from data_tools import LENGTHS, LEROBOT, assert_same_episodes, make_episodes, make_lerobot

from urlrl.data import claims, lerobot
from urlrl.data.dataset import Episode
from urlrl.errors import UserError
from urlrl.verbs.data import convert, open_source


def expected(lengths=LENGTHS) -> list[Episode]:
    return [one._replace(terminated=0 * one.terminated != 0) for one in make_episodes(lengths, physics=False)]


def edit(folder: Path, **changes) -> Path:
    file = folder / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def without(feature: str) -> dict:
    return {key: value for key, value in LEROBOT.items() if key != feature}


def refused(path: Path, said: str, **options) -> None:
    with pytest.raises(UserError) as raised:
        list(open_source(path, **options).episodes)
    assert said in str(raised.value), str(raised.value)


@pytest.mark.parametrize("block", [3, 65536])
@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_both_layouts_give_the_same_episodes(tmp_path, monkeypatch, version, block):
    monkeypatch.setattr(lerobot, "BLOCK", block)
    source = open_source(make_lerobot(tmp_path, version))
    assert_same_episodes(source.episodes, expected())
    assert source.info.env == "" and source.info.source == f"{tmp_path} (LeRobot)"
    assert source.transitions >= sum(LENGTHS) and (version >= "v3" or source.transitions == sum(LENGTHS))


def test_what_is_left_out_is_said(tmp_path):
    notes = open_source(make_lerobot(tmp_path)).notes
    assert notes == (
        f"{tmp_path} does not have the state after an episode's last frame: its last transition is left out.",
        f"{tmp_path}: observations are 'observation.state'; left out are observation.environment_state (float64), "
        f"observation.images.top (video).",
        f"{tmp_path}: 'next.done' ends episodes and no future: it does not tell a true end from a time limit.",
    )


def test_features_are_joined_in_the_order_in_which_they_are_named(tmp_path):
    source = open_source(make_lerobot(tmp_path), observation=["observation.environment_state", "observation.state"])
    states = [np.concatenate([1000 + one.obs[:, :1], one.obs], axis=1) for one in expected()]
    assert_same_episodes(source.episodes, [one._replace(obs=obs) for one, obs in zip(expected(), states)])
    assert (
        "are 'observation.environment_state' + 'observation.state'; left out are observation.images.top"
        in (source.notes[1])
    )


def test_without_rewards_they_are_zero(tmp_path):
    folder = make_lerobot(tmp_path, change=lambda columns: columns.pop("next.reward"), features=without("next.reward"))
    found = list(open_source(folder).episodes)
    assert_same_episodes(found, [one._replace(reward=0 * one.reward) for one in expected()])


def test_a_feature_of_one_number_may_be_a_list_of_one(tmp_path):
    def as_lists(columns):
        columns["next.reward"] = [[value] for value in columns["next.reward"]]
        columns["next.done"] = [[value] for value in columns["next.done"]]

    assert_same_episodes(open_source(make_lerobot(tmp_path, change=as_lists)).episodes, expected())


def test_next_done_ends_an_episode_within_one(tmp_path):
    folder = make_lerobot(tmp_path, "v2.1", lambda columns: columns["next.done"].__setitem__(3, True), lengths=(7,))
    (whole,) = expected((7,))
    first = Episode(whole.obs[:4], whole.action[:3], whole.reward[:3], whole.terminated[:3])
    rest = Episode(whole.obs[4:], whole.action[4:], whole.reward[4:], whole.terminated[4:])
    assert_same_episodes(open_source(folder).episodes, [first, rest])


def test_files_are_read_in_the_order_of_their_numbers(tmp_path):
    folder = make_lerobot(tmp_path, "v2.1")
    data = folder / "data"
    (data / "chunk-1000").mkdir()
    (data / "chunk-000" / "episode_000000.parquet").rename(data / "chunk-1000" / "episode_0.parquet")
    (data / "chunk-000").rename(data / "chunk-999")
    (data / "chunk-999" / "._episode_000001.parquet").write_bytes(b"\0\5\x16\7")
    one, *others = expected()
    assert_same_episodes(open_source(folder).episodes, [*others, one])


def test_frames_that_are_missing_are_said(tmp_path):
    folder = edit(make_lerobot(tmp_path), total_frames=100)
    assert f"{folder} holds 25 frames: meta/info.json says 100." in open_source(folder).notes


def test_actions_beyond_the_bounds_are_scaled_or_clipped_where_that_is_asked_for(tmp_path):
    def in_degrees(columns):
        columns["action"] = [np.array([90.0, -45.0])] * len(columns["action"])

    folder = make_lerobot(tmp_path / "a", change=in_degrees)
    refused(folder, "has an action of 90 in step 0: expected actions in [-1, 1]; `urlrl data convert` takes")
    assert (convert(folder, tmp_path / "b", action_scale=90, quiet=True).columns["action"][0] == [1, -0.5]).all()
    assert (convert(folder, tmp_path / "c", clip_actions=True, quiet=True).columns["action"][0] == [1, -1]).all()


# What is wrong.


def put(key, row, value):
    return lambda columns: columns[key].__setitem__(row, value)


BAD_ROWS = {
    "not finite": (put("action", 2, np.array([0, np.nan])), "episode 0: 'action' has nan in row 2: expected finite"),
    "a row too long": (put("action", 3, np.zeros(3)), "'action' has 3 numbers in row 3: expected 2, as meta/info.json"),
    "an empty value": (put("next.reward", 1, None), "'next.reward' has 1 empty values in the 6 rows from row 0 on"),
    "an empty row": (put("action", 1, None), "'action' has 1 empty values in the 6 rows from row 0 on"),
    "a missing frame": (
        lambda columns: [values.pop(2) for values in columns.values()],
        "episode 0: 'frame_index' is 3 in row 2 after 1: expected one more in each row",
    ),
    "no column": (lambda columns: columns.pop("next.done"), "has no 'next.done': found action, episode_index"),
    "texts": (
        lambda columns: columns.__setitem__("next.reward", ["0"] * len(columns["next.reward"])),
        "'next.reward' is string: expected numbers, or lists of numbers",
    ),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_bad_row_is_one_sentence_that_names_it(tmp_path, what):
    change, said = BAD_ROWS[what]
    folder = make_lerobot(tmp_path, "v2.1", change, lengths=(5,))
    refused(folder, f"{folder / 'data' / 'chunk-000' / 'episode_000000.parquet'}")
    refused(folder, said)


BAD_INFO = {
    "another version": ({"codebase_version": "v1.6"}, "'codebase_version' is 'v1.6': expected v2 or v3."),
    "no features": ({"features": {}}, "'observation.state' is not there: expected one of flat numbers, as are none"),
    "no list": ({"features": []}, "cannot be read: features is [], not an object"),
    "pictures alone": (
        {"features": without("observation.state")},
        "'observation.state' is not there: expected one of flat numbers, as are observation.environment_state, action, "
        "next.reward, next.done, frame_index, episode_index; --observation names others.",
    ),
    "no actions": ({"features": without("action")}, "feature 'action' is not there"),
    "another width": (
        {"features": LEROBOT | {"action": {"dtype": "float32", "shape": [6]}}},
        "'action' has 2 numbers in row 0: expected 6, as meta/info.json says",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_INFO)
def test_bad_metadata_is_one_sentence(tmp_path, what):
    changes, said = BAD_INFO[what]
    refused(edit(make_lerobot(tmp_path), **changes), said)


def test_videos_are_no_observations(tmp_path):
    said = "feature 'observation.images.top' is video of shape [48, 64, 3]: expected one of flat numbers"
    refused(make_lerobot(tmp_path), said, observation=["observation.images.top"])
    refused(tmp_path, "--observation is action,action: expected each part once", observation=["action", "action"])


def test_a_folder_without_files_is_refused(tmp_path):
    folder = make_lerobot(tmp_path)
    for file in (folder / "data" / "chunk-000").iterdir():
        file.rename(file.with_suffix(".txt"))
    refused(folder, f"{folder} holds no episodes of its version, v3.0: expected data/chunk-*/episode_*.parquet")


def test_bad_files_and_episodes_are_left_out_where_that_is_asked_for(tmp_path):
    folder = make_lerobot(tmp_path, change=lambda columns: columns["action"].__setitem__(1, np.full(2, np.nan)))
    (folder / "data" / "chunk-000" / "file-002.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    source = open_source(folder, skip_bad=True)
    assert [len(one.action) for one in source.episodes] == [1, 3]
    found = " ".join(source.found.left_out)
    assert len(source.found.left_out) == 3 and "file-002.parquet is a pointer of Git LFS" in found
    assert "file-000.parquet: episode 0: 'action' has nan in row 1" in found
    assert "file-001.parquet: episode 2: 'action' has nan in row 1" in found


def test_a_file_whose_rest_would_be_lost_is_refused_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot, "BLOCK", 7)
    folder = make_lerobot(tmp_path, change=put("episode_index", -1, None))
    refused(folder, "'episode_index' has 1 empty values", skip_bad=True)


@pytest.mark.parametrize(("free", "what"), [(10, "file-000.parquet would"), (1000, "a block of 41 rows would")])
def test_a_file_that_claims_more_than_it_may_is_refused(tmp_path, monkeypatch, free, what):
    def repeat(columns):
        for values in columns.values():
            values[:] = values[:1] * len(values)

    folder = make_lerobot(tmp_path, change=repeat, lengths=(40, 40))
    monkeypatch.setattr(claims, "FREE", free)
    monkeypatch.setattr(claims, "RATIO", 0)
    refused(folder, f"{what} take")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    refused(tmp_path, r"needs the package pyarrow: pip install 'urlrl[lerobot]'.")


def test_metadata_that_is_no_lerobots_is_one_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    refused(tmp_path, "info.json cannot be read: codebase_version is missing")
