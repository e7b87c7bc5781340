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
