"""OGBench's .npz files (https://arxiv.org/abs/2410.20092), in each of the three forms that its loader knows.

On disk every trajectory has L + 1 states, a last action that nobody took, and terminals = 1 in its last row. What the
package's `load_dataset` returns may have been saved too: compact, with `valids` = 0 in the last row, or regular, with
`next_observations`, L rows per trajectory and terminals = 1 in the last of these. A terminal is where a trajectory
ends, for whatever reason; only `masks` = 0, where there are masks, says that the future counts nothing.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from urlrl.data.dataset import DatasetInfo, Episode
from urlrl.data.reading import Names, Source, checked, column, missing, numeric, reading
from urlrl.errors import UserError
from urlrl.types import EnvSpec

NAMES = Names("observations", "actions", "rewards", "qpos")
PHYSICS = ("qpos", "qvel", "button_states")


def guess_env(path: Path) -> str:
    """The package's environment for a file: antmaze-medium-navigate-v0(-val).npz -> ogbench:antmaze-medium-v0."""
    match = re.fullmatch(r"(.+)-[^-]+-(v\d+)", path.stem.removesuffix("-val"))
    return f"ogbench:{match[1]}-{match[2]}" if match else ""


def read_ogbench(path: Path, env: str = "", spec: EnvSpec | None = None) -> Source:
    """Trajectories in the order of the file, which is decompressed as they are asked for.

    Raises:
        UserError: a key is missing, arrays are of unequal lengths; or later, at rows that are wrong.
    """
    del spec
    archive = _Archive(path)
    for key in ("observations", "actions", "terminals"):
        if key not in archive.keys:
            raise missing(path, key, archive.keys)
    regular = "next_observations" in archive.keys
    ends = archive.flags("valids") == 0 if "valids" in archive.keys and not regular else archive.flags("terminals") != 0
    parts = [key for key in PHYSICS if key in archive.keys]
    notes = []
    if parts and regular:  # Of the last state of a trajectory only the observation is there.
        notes.append(f"{path}: {', '.join(parts)} are left out, as they say nothing of a trajectory's last state.")
        parts = []
    layout = tuple((key, archive.width(key)) for key in parts)
    info = DatasetInfo(env, f"{path} (OGBench)", layout)
    episodes = _regular(archive, ends) if regular else _compact(archive, ends, parts)
    bounds = _bounds(path, ends, 1 if regular else 2)
    return Source(
        info, episodes, int(np.sum(bounds[:, 1] - bounds[:, 0]) - (0 if regular else len(bounds))), tuple(notes)
    )


def _bounds(path: Path, ends: np.ndarray, least: int) -> np.ndarray:
    """(trajectories, 2): the rows [begin, end) of each. What follows the last end is a trajectory cut short."""
    if not len(ends):
        raise UserError(f"{path}: 'terminals' is empty: expected at least one trajectory.")
    stops = np.flatnonzero(ends) + 1
    stops = stops if len(stops) and stops[-1] == len(ends) else np.append(stops, len(ends))
    bounds = np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1)
    short = bounds[:, 1] - bounds[:, 0] < least
    if short.any():
        row = bounds[short][0, 0]
        raise UserError(
            f"{path}: 'terminals' ends a trajectory in row {row:,} that has no transition: expected 1 in the last row "
            f"of each trajectory, and nowhere else."
        )
    return bounds


def _compact(archive: "_Archive", ends: np.ndarray, parts: list[str]) -> Iterator[Episode]:
    keys = ["observations", "actions", *parts, *(key for key in ("rewards", "masks") if key in archive.keys)]
    streams = {key: archive.stream(key, len(ends)) for key in keys}
    for begin, end in _bounds(archive.path, ends, 2):
        rows = {key: stream.take(end - begin) for key, stream in streams.items()}
        action = numeric(archive.path, "actions", rows["actions"], 2)[:-1]
        physics = np.concatenate([_flat(archive.path, key, rows[key]) for key in parts], axis=1) if parts else None
        reward, terminated = _labels(archive.path, rows, len(action))
        episode = Episode(rows["observations"], action, reward, terminated, physics)
        yield checked(episode, archive.path, NAMES, int(begin))
    for stream in streams.values():
        stream.finish()


def _regular(archive: "_Archive", ends: np.ndarray) -> Iterator[Episode]:
    keys = ["observations", "actions", "next_observations", *(k for k in ("rewards", "masks") if k in archive.keys)]
    streams = {key: archive.stream(key, len(ends)) for key in keys}
    for begin, end in _bounds(archive.path, ends, 1):
        rows = {key: stream.take(end - begin) for key, stream in streams.items()}
        obs, after = (numeric(archive.path, key, rows[key], 2) for key in ("observations", "next_observations"))
        if obs.shape != after.shape:
            raise UserError(
                f"{archive.path}: 'next_observations' has {after.shape[1]} numbers per row: expected {obs.shape[1]}, "
                f"as 'observations' has."
            )
        differ = (obs[1:] != after[:-1]).any(axis=1)
        if differ.any():
            row = int(begin) + int(np.argmax(differ))
            raise UserError(
                f"{archive.path}: 'next_observations' in row {row:,} is not the observation of row {row + 1:,}: "
                f"expected the same, as 'terminals' does not end a trajectory there."
            )
        reward, terminated = _labels(archive.path, rows, len(obs))
        episode = Episode(np.concatenate([obs, after[-1:]]), rows["actions"], reward, terminated)
        yield checked(episode, archive.path, NAMES, int(begin))
    for stream in streams.values():
        stream.finish()


def _labels(path: Path, rows: dict[str, np.ndarray], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(reward, terminated), (steps,) each; zeros where the file has none."""
    reward = column(path, "rewards", rows["rewards"])[:steps] if "rewards" in rows else np.zeros(steps, np.float32)
    terminated = column(path, "masks", rows["masks"])[:steps] == 0 if "masks" in rows else np.zeros(steps, bool)
    return reward, terminated


def _flat(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    return numeric(path, key, values[:, None] if values.ndim == 1 else values, 2).astype(np.float64)


class _Archive:
    """The arrays of an .npz file, to be read from the front without loading them."""

    def __init__(self, path: Path):
        self.path = path
        with reading(path):
            self.file = zipfile.ZipFile(path)
        self.keys = [name.removesuffix(".npy") for name in self.file.namelist() if name.endswith(".npy")]

    def stream(self, key: str, rows: int) -> "_Stream":
        stream = _Stream(self, key)
        if not stream.shape or stream.shape[0] != rows:
            raise UserError(
                f"{self.path}: '{key}' has shape {stream.shape}: expected {rows:,} rows, as 'terminals' has."
            )
        return stream

    def flags(self, key: str) -> np.ndarray:
        stream = _Stream(self, key)
        values = stream.take(stream.shape[0] if stream.shape else 0)
        stream.finish()
        return column(self.path, key, values)

    def width(self, key: str) -> int:
        shape = _Stream(self, key).shape
        return int(np.prod(shape[1:], dtype=np.int64))


class _Stream:
    """One array of an archive."""

    def __init__(self, archive: _Archive, key: str):
        self.where, self.key = archive.path, key
        with reading(f"{self.where}: '{key}'"):
            self.file = archive.file.open(f"{key}.npy")
            version = np.lib.format.read_magic(self.file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"its format is {version}, not (1, 0) or (2, 0)")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, fortran, self.dtype = read(self.file)
            if self.dtype.hasobject:
                raise ValueError("it holds Python objects, which could run code")
            if fortran and len(self.shape) > 1:
                raise ValueError("its columns are stored one after the other; save it again from a C-contiguous array")
            self.row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def take(self, rows: int) -> np.ndarray:
        """The next rows."""
        with reading(f"{self.where}: '{self.key}'"):
            content = self.file.read(int(rows) * self.row) if self.row else b""
            if len(content) != int(rows) * self.row:
                raise ValueError("it ends too early")
            return np.frombuffer(content, self.dtype).reshape(int(rows), *self.shape[1:])

    def finish(self) -> None:
        """Read past the last row, which compares the checksum."""
        with reading(f"{self.where}: '{self.key}'"):
            if self.file.read(1):
                raise ValueError("it is longer than its shape says")
