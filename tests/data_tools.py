"""Small datasets: what the tests of data share."""

from pathlib import Path

import numpy as np
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
