"""Small datasets: what the tests of data share."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from urlrl.data.dataset import Dataset, DatasetInfo, Episode, write_dataset

PHYSICS = (("qpos", 2), ("qvel", 2))
LENGTHS = (5, 1, 12, 3)
QUIET = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def make_episodes(lengths=LENGTHS, obs_dim=3, physics=True, seed=0) -> list[Episode]:
    """Episodes of noise; the first number of an observation counts states over all episodes, that of an action counts
    transitions backwards from -1e-3."""
    rng, episodes, states, steps = np.random.default_rng(seed), [], 0, 0
    for length in lengths:
        obs = rng.standard_normal((length + 1, obs_dim)).astype(np.float32)
        obs[:, 0] = states + np.arange(length + 1)
        action = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        action[:, 0] = -1e-3 * (1 + steps + np.arange(length))
        reward = rng.standard_normal(length).astype(np.float32)
        ended = np.zeros(length, bool)
        ended[-1] = len(episodes) % 2 == 1
        state = rng.standard_normal((length + 1, 4)) if physics else None
        episodes.append(Episode(obs, action, reward, ended, state))
        states, steps = states + length + 1, steps + length
    return episodes


def make_dataset(folder: Path, lengths=LENGTHS, **options) -> Dataset:
    episodes = make_episodes(lengths, **options)
    physics = PHYSICS if episodes[0].physics is not None else ()
    return write_dataset(folder, DatasetInfo("", "noise", physics), episodes)


def assert_same_episodes(found, expected) -> None:
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        for name, x, y in zip(Episode._fields, a, b):
            assert (x is None) == (y is None), name
            if x is not None:
                np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


def compact(episodes, **more) -> dict[str, np.ndarray]:
    """As on disk: a last action that nobody took, and a terminal in every last row."""
    last = [np.full((1, 2), 0.125, np.float32)]
    ends = np.concatenate([np.arange(len(e.obs)) == len(e.obs) - 1 for e in episodes]).astype(np.float32)
    return {
        "observations": np.concatenate([episode.obs for episode in episodes]),
        "actions": np.concatenate([part for episode in episodes for part in (episode.action, *last)]),
        "terminals": ends,
        **more,
    }


def save_d4rl(file: Path, arrays: dict[str, np.ndarray]) -> Path:
    import h5py

    with h5py.File(file, "w") as stored:
        for key, values in arrays.items():
            stored.create_dataset(key, data=values)
    return file


def d4rl_arrays(episodes, nexts=True) -> dict[str, np.ndarray]:
    """One row per transition; every other episode ends in a terminal, the rest in a timeout."""
    last = np.concatenate([np.arange(len(e.action)) == len(e.action) - 1 for e in episodes])
    terminals = np.concatenate([episode.terminated for episode in episodes])
    arrays = {
        "observations": np.concatenate([episode.obs[:-1] for episode in episodes]),
        "actions": np.concatenate([episode.action for episode in episodes]),
        "rewards": np.concatenate([episode.reward for episode in episodes]),
        "terminals": terminals,
        "timeouts": last & ~terminals,
    }
    return arrays | ({"next_observations": np.concatenate([e.obs[1:] for e in episodes])} if nexts else {})


LEROBOT = {
    "observation.state": {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]},
    "observation.environment_state": {"dtype": "float64", "shape": [1], "names": None},
    "observation.images.top": {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channel"]},
    "action": {"dtype": "float32", "shape": [2], "names": None},
    "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
}


def _frames(number: int, episode: Episode) -> dict[str, list]:
    """An episode of T transitions as T + 1 frames, in columns."""
    count = len(episode.obs)
    return {
        "observation.state": list(episode.obs),
        "observation.environment_state": list(1000.0 + episode.obs[:, 0]),
        "action": [*episode.action, np.full(2, 0.125, np.float32)],
        "next.reward": [*episode.reward, 7.0],
        "next.done": [False] * (count - 1) + [True],
        "frame_index": list(range(count)),
        "episode_index": [number] * count,
    }


def _save_parquet(path: Path, columns: dict[str, list]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    vector = pyarrow.list_(pyarrow.float32())
    known = {"observation.state": pyarrow.list_(pyarrow.float32(), 3), "action": vector}
    arrays = {key: pyarrow.array(values, known.get(key)) for key, values in columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(arrays), path, row_group_size=4)


def make_lerobot(folder: Path, version="v3.0", change=lambda columns: None, features=LEROBOT, lengths=LENGTHS) -> Path:
    """A folder of noise; in version 3 it has two files of half of the episodes each."""
    episodes = [_frames(number, one) for number, one in enumerate(make_episodes(lengths, physics=False))]
    names = [f"episode_{number:06d}" for number in range(len(episodes))]
    if version >= "v3":
        half = len(episodes) // 2
        groups = episodes[:half], episodes[half:]
        episodes = [{key: sum((one[key] for one in group), []) for key in group[0]} for group in groups]
        names = ["file-000", "file-001"]
    for name, columns in zip(names, episodes):
        change(columns)
        _save_parquet(folder / "data" / "chunk-000" / f"{name}.parquet", columns)
    about = {"codebase_version": version, "fps": 30, "total_frames": sum(lengths) + len(lengths), "features": features}
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps(about))
    return folder
