"""OGBench's .npz files (https://arxiv.org/abs/2410.20092), in each of the three forms that its loader knows.

On disk every trajectory has L + 1 states, a last action that nobody took, and terminals = 1 in its last row. What the
package's `load_dataset` returns may have been saved too: compact, with `valids` = 0 in the last row, or regular, with
`next_observations`, L rows per trajectory and terminals = 1 in the last of these. A terminal is where a trajectory
ends, for whatever reason; only `masks` = 0, where there are masks, says that the future counts nothing.
"""

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from urlrl.data.claims import BLOCK, PER_ROW, Archive, Stream, check_size
from urlrl.data.dataset import DatasetInfo, Episode
from urlrl.data.reading import Each, Names, Source, check_keys, checked, column, numeric, stops
from urlrl.errors import UserError
from urlrl.types import EnvSpec

NAMES = Names("observations", "actions", "rewards", "qpos")
PHYSICS = ("qpos", "qvel", "button_states")
Piece = tuple[int, dict[str, np.ndarray]]  # the first row of a trajectory, and its rows of each array


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
    archive = Archive(path)
    check_keys(path, ("observations", "actions", "terminals"), archive.keys)
    regular = "next_observations" in archive.keys
    ends = ~_flags(archive, "valids") if "valids" in archive.keys and not regular else _flags(archive, "terminals")
    _close(path, ends, 1 if regular else 2)
    parts = [key for key in PHYSICS if key in archive.keys]
    notes = []
    if parts and regular:  # Of the last state of a trajectory only the observation is there.
        notes.append(f"{path}: {', '.join(parts)} are left out, as they say nothing of a trajectory's last state.")
        parts = []
    layout = tuple((key, math.prod(Stream(archive, key).shape[1:])) for key in parts)
    info = DatasetInfo(env, f"{path} (OGBench)", layout)
    keys = ["observations", "actions", *(key for key in ("rewards", "masks") if key in archive.keys)]
    rows = _trajectories(archive, ends, [*keys, *(["next_observations"] if regular else parts)])
    episodes = Each(partial(_regular, path) if regular else partial(_compact, path, parts), rows)
    return Source(info, episodes, len(ends) - (0 if regular else int(np.count_nonzero(ends))), tuple(notes))


def _flags(archive: Archive, key: str) -> np.ndarray:
    """(rows,), bool, read in blocks: zeros are stored in a thousandth of their size."""
    stream = Stream(archive, key)
    rows = stream.shape[0] if stream.shape else 0
    check_size(stream.where, max(PER_ROW * rows, min(rows, BLOCK) * stream.row), archive.size)
    flags = np.empty(rows, bool)
    for begin in range(0, rows, BLOCK):
        block = flags[begin : begin + BLOCK]
        block[:] = column(archive.path, key, stream.take(len(block))) != 0
    stream.finish()
    return flags


def _close(path: Path, ends: np.ndarray, least: int) -> None:
    """End the last trajectory, which may be cut short; refuse one that has fewer than `least` (1 or 2) rows."""
    if not len(ends):
        raise UserError(f"{path}: 'terminals' is empty: expected at least one trajectory.")
    ends[-1] = True
    short = ends & np.concatenate([[True], ends[:-1]])
    if least > 1 and short.any():
        raise UserError(
            f"{path}: 'terminals' ends a trajectory in row {int(np.argmax(short)):,} that has no transition: expected "
            f"1 in the last row of each trajectory, and nowhere else."
        )


def _trajectories(archive: Archive, ends: np.ndarray, keys: Sequence[str]) -> Iterator[Piece]:
    """Each with its rows of these arrays, which are read to their end."""
    streams = {key: Stream(archive, key) for key in keys}
    for key, stream in streams.items():
        if not stream.shape or stream.shape[0] != len(ends):
            raise UserError(
                f"{archive.path}: '{key}' has shape {stream.shape}: expected {len(ends):,} rows, as 'terminals' has."
            )
    begin, row = 0, sum(stream.row for stream in streams.values())
    for end in stops(ends):
        check_size(f"{archive.path}: a trajectory of {end - begin:,} rows", (end - begin) * row, archive.size)
        yield begin, {key: stream.take(end - begin) for key, stream in streams.items()}
        begin = end
    for stream in streams.values():
        stream.finish()


def _compact(path: Path, parts: list[str], piece: Piece) -> Episode:
    begin, rows = piece
    action = numeric(path, "actions", rows["actions"], 2)[:-1]
    physics = np.concatenate([_flat(path, key, rows[key]) for key in parts], axis=1) if parts else None
    reward, terminated = _labels(path, rows, len(action))
    return checked(Episode(rows["observations"], action, reward, terminated, physics), path, NAMES, begin)


def _regular(path: Path, piece: Piece) -> Episode:
    begin, rows = piece
    obs, after = (numeric(path, key, rows[key], 2) for key in ("observations", "next_observations"))
    if obs.shape != after.shape:
        raise UserError(
            f"{path}: 'next_observations' has {after.shape[1]} numbers per row: expected {obs.shape[1]}, as "
            f"'observations' has."
        )
    differ = (obs[1:] != after[:-1]).any(axis=1)
    if differ.any():
        row = begin + int(np.argmax(differ))
        raise UserError(
            f"{path}: 'next_observations' in row {row:,} is not the observation of row {row + 1:,}: expected the same, "
            f"as 'terminals' does not end a trajectory there."
        )
    reward, terminated = _labels(path, rows, len(obs))
    return checked(Episode(np.concatenate([obs, after[-1:]]), rows["actions"], reward, terminated), path, NAMES, begin)


def _labels(path: Path, rows: dict[str, np.ndarray], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(reward, terminated), (steps,) each; zeros where the file has none."""
    reward = column(path, "rewards", rows["rewards"])[:steps] if "rewards" in rows else np.zeros(steps, np.float32)
    terminated = column(path, "masks", rows["masks"])[:steps] == 0 if "masks" in rows else np.zeros(steps, bool)
    return reward, terminated


def _flat(path: Path, key: str, values: np.ndarray) -> np.ndarray:
    return numeric(path, key, values[:, None] if values.ndim == 1 else values, 2).astype(np.float64)
