"""ExORL's episodes (https://arxiv.org/abs/2201.13425): one `episode_<index>_<length>.npz` each, of length + 1 rows.

Row 0 is the reset, with an action of zeros that nobody took. Row t holds the action that led to observation t, its
reward and discount, and the simulator's state at observation t: transition t is (observation[t-1], action[t],
reward[t], discount[t], observation[t]).
"""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from urlrl.data.claims import Archive, stray
from urlrl.data.dataset import DatasetInfo, Episode
from urlrl.data.reading import (
    Each,
    Names,
    Source,
    check_keys,
    checked,
    column,
    numeric,
    physics_layout,
    sizes,
    usual_readable,
)
from urlrl.errors import UserError
from urlrl.types import EnvSpec

NAME = re.compile(r".*_(\d+)_(\d+)\.npz")  # the last two fields are index and length
KEYS = ("observation", "action", "reward", "discount")
NAMES = Names("observation", "action", "reward")
# Folder of the archive -> an environment with the domain's dynamics and observations.
ENVS = {
    "walker": "dmc:walker_walk",
    "cheetah": "dmc:cheetah_run",
    "quadruped": "dmc:quadruped_run",
    "cartpole": "dmc:cartpole_swingup",
    "jaco": "jaco:site_top_left",
    "point_mass_maze": "point_mass_maze",
}


def find_files(path: Path) -> list[Path]:
    """The episodes of a folder, or of the folder `buffer` in it, by their index; [] if there are none. Files that other
    programs leave there are none, whatever their name ends with."""
    for folder in (path, path / "buffer"):
        files = folder.glob("*.npz") if folder.is_dir() else ()
        found = [file for file in files if NAME.fullmatch(file.name) and not stray(file)]
        if found:
            return sorted(found, key=lambda file: (_numbers(file)[0], file.name))
    return []


def guess_env(path: Path) -> str:
    """The environment of the archive's folder `<domain>/<algorithm>/buffer`; "" if no part of the path is a domain."""
    return next((ENVS[part] for part in reversed(path.resolve().parts) if part in ENVS), "")


def read_exorl(path: Path, env: str = "", spec: EnvSpec | None = None) -> Source:
    """Episodes in order of their index.

    Raises:
        UserError: there are none, or none can be read; or later, at an episode that cannot be read or does not fit.
    """
    files = find_files(path)
    if not files:
        raise UserError(f"{path} holds no episodes: expected files episode_<index>_<length>.npz, there or in buffer/.")
    first, rewards = usual_readable(partial(_load, spec), files, lambda one: sizes(one[0]))
    layout = () if first.physics is None else physics_layout(first.physics.shape[1], spec, files[0])
    others = sorted(set(files[0].parent.iterdir()) - set(files))
    notes = [f"{file} is a file of {who}: it is left out." for file in others if (who := stray(file))]
    if rewards > 1:
        notes.append(f"{path} has {rewards} rewards per transition: the first is taken.")
    if files != sorted(files, key=lambda file: file.name):
        notes.append(f"{path}: by name its files are in another order than by index, which is the one taken.")
    info = DatasetInfo(env, f"{path} (ExORL)", layout)
    episodes = Each(partial(_episode, spec, bool(layout)), files)
    return Source(info, episodes, sum(_numbers(file)[1] for file in files), tuple(notes))


def _episode(spec: EnvSpec | None, physics: bool, file: Path) -> Episode:
    episode, _ = _load(spec, file)
    if physics and episode.physics is None:
        raise UserError(f"{file} has no 'physics': expected it, as in the episodes before it.")
    return episode


def _load(spec: EnvSpec | None, file: Path) -> tuple[Episode, int]:
    """An episode, and how many rewards it has per transition."""
    archive = Archive(file)
    check_keys(file, KEYS, archive.keys)
    arrays = archive.load([key for key in (*KEYS, "physics") if key in archive.keys])
    archive.file.close()
    rows, length = len(np.atleast_1d(arrays["observation"])), _numbers(file)[1]
    if rows != length + 1:
        raise UserError(f"{file} has {rows:,} observations: expected {length + 1:,}, one more than its name says.")
    for key, values in arrays.items():
        if values.ndim == 0 or len(values) != rows:
            raise UserError(f"{file}: '{key}' has shape {values.shape}: expected {rows:,} rows, one per observation.")
    action, rewards = numeric(file, "action", arrays["action"], 2), np.atleast_2d(arrays["reward"].T).shape[0]
    if action[0].any():
        raise UserError(f"{file}: 'action' is not zero in row 0: expected the reset, to which no action led.")
    reward = column(file, "reward", arrays["reward"])[1:]
    terminated = column(file, "discount", arrays["discount"])[1:] == 0
    episode = Episode(arrays["observation"], action[1:], reward, terminated, arrays.get("physics"))
    episode = checked(episode, file, NAMES)
    if episode.physics is not None:
        physics_layout(episode.physics.shape[1], spec, file)
    return episode, rewards


def _numbers(file: Path) -> tuple[int, int]:
    """(index, length), as the name says."""
    match = NAME.fullmatch(file.name)
    assert match
    return int(match[1]), int(match[2])


def write_exorl(folder: Path, episodes: Iterable[Episode]) -> None:
    """Write episodes as the archive has them. Indices are padded, so that files sort by name as by index."""
    for index, episode in enumerate(episodes):
        steps = len(episode.action)
        arrays = {
            "observation": episode.obs.astype(np.float32),
            "action": np.concatenate([np.zeros((1, episode.action.shape[1])), episode.action]).astype(np.float32),
            "reward": np.concatenate([[0], episode.reward]).astype(np.float32)[:, None],
            "discount": np.concatenate([[1], 1 - episode.terminated.astype(np.float32)]).astype(np.float32)[:, None],
        }
        if episode.physics is not None:
            arrays["physics"] = episode.physics.astype(np.float64)
        np.savez_compressed(folder / f"episode_{index:08d}_{steps}.npz", **arrays)  # type: ignore[arg-type]
