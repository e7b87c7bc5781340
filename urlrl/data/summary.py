"""What is in a dataset, counted while its episodes go by."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from urlrl.data.dataset import COLUMNS, Episode


def episode_bytes(episode: Episode) -> int:
    """How large an episode is in a dataset."""
    rows = len(episode.obs)
    widths = {name: np.shape(values)[1:] for name, values in episode._asdict().items() if values is not None}
    return rows * sum(
        int(np.prod(width, dtype=np.int64)) * np.dtype(COLUMNS[name]).itemsize for name, width in widths.items()
    )


def summarise(episodes: Iterable[Episode]) -> dict[str, Any]:
    """Numbers of a set of episodes: {"episodes", "transitions", "length": {"min", "median", "max"}, "obs_dim",
    "action_dim", "bytes", "action": (least, greatest), "reward": (least, greatest), "return": (least, mean, greatest)
    of its episodes, "terminated": share of episodes}."""
    lengths, returns, size, ended = [], [], 0, 0
    bounds = {name: [np.inf, -np.inf] for name in ("action", "reward")}
    widths = (0, 0)
    for episode in episodes:
        lengths.append(len(episode.action))
        returns.append(float(np.sum(episode.reward, dtype=np.float64)))
        size += episode_bytes(episode)
        ended += bool(episode.terminated.any())
        widths = episode.obs.shape[1], episode.action.shape[1]
        for name, bound in bounds.items():
            values = getattr(episode, name)
            bound[0], bound[1] = min(bound[0], values.min(initial=np.inf)), max(bound[1], values.max(initial=-np.inf))
    return {
        "episodes": len(lengths),
        "transitions": sum(lengths),
        "length": dict(zip(("min", "median", "max"), (min(lengths), float(np.median(lengths)), max(lengths)))),
        "obs_dim": widths[0],
        "action_dim": widths[1],
        "bytes": size,
        "action": tuple(float(value) for value in bounds["action"]),
        "reward": tuple(float(value) for value in bounds["reward"]),
        "return": (min(returns), float(np.mean(returns)), max(returns)),
        "terminated": ended / len(lengths),
    }
