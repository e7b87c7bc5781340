"""LeRobot's datasets (https://github.com/huggingface/lerobot), versions 2 and 3: a folder with meta/info.json and files
`data/chunk-<k>/episode_<k>.parquet`, one per episode, or `data/chunk-<k>/file-<k>.parquet`, of many episodes. Read with
pyarrow alone.

A row holds what was seen in a frame, the action that was taken then, and the reward that followed. The state after an
episode's last frame is not stored, so each episode's last transition is left out. An episode lies in one file.
`next.done` marks where an episode ends, for whatever reason: the future beyond counts as after a time limit. Pictures
are no states: they are left out.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from urlrl.data.claims import BLOCK, check_size, reading
from urlrl.data.dataset import DatasetInfo, Episode
from urlrl.data.reading import BadEpisode, Each, Names, Source, check_keys, checked
from urlrl.errors import UserError, shown
from urlrl.files import read_json
from urlrl.types import EnvSpec

STATE = "observation.state"
REWARDS = ("next.reward", "reward")  # the first that is there is taken
DONE = "next.done"
VERSION = re.compile(r"v[23]\.\d+")
FILES = {"v2": re.compile(r"episode_(\d{1,12})\.parquet"), "v3": re.compile(r"file-(\d{1,12})\.parquet")}  # by version
CHUNK = re.compile(r"chunk-(\d{1,12})")
SHAPE = {"codebase_version": str, "total_frames": int, "features": {str: dict}}
NUMBERS = re.compile(r"bool|u?int\d+|float\d+")
Piece = tuple[int, Any]  # the row of its file in which an episode begins, and its rows, a pyarrow.Table


def find_info(path: Path) -> Path | None:
    """What a dataset's folder says of itself; None if there is no such file."""
    file = path / "meta" / "info.json"
    return file if file.is_file() else None


def read_lerobot(path: Path, env: str = "", spec: EnvSpec | None = None, *, observation: Sequence[str] = ()) -> Source:
    """Episodes in the order of the files.

    Args:
        observation: the features that are joined, in this order; without it "observation.state" is taken.

    Raises:
        UserError: another version, a feature that is not there or has no numbers, no files; or later, at a file or an
            episode that cannot be read or does not fit.
    """
    del spec
    parquet = _parquet(path)
    file = find_info(path)
    if file is None:
        raise UserError(f"{path} has no meta/info.json: expected a dataset of LeRobot's.")
    about = read_json(file, SHAPE)
    if not VERSION.fullmatch(about["codebase_version"]):
        raise UserError(f"{file}: 'codebase_version' is {shown(repr(about['codebase_version']))}: expected v2 or v3.")
    features = about["features"]
    parts = tuple(observation) or (STATE,)
    reward = next((key for key in REWARDS if key in features), "")
    widths = {key: _width(file, features, key) for key in (*parts, "action", *filter(None, [reward]))}
    files = _files(path, FILES[about["codebase_version"][:2]])
    if not files:
        raise UserError(
            f"{path} holds no episodes of its version, {about['codebase_version']}: expected "
            f"data/chunk-*/episode_*.parquet in version 2, data/chunk-*/file-*.parquet in version 3."
        )
    widths |= {"episode_index": 1, "frame_index": 1} | ({DONE: 1} if DONE in features else {})
    rows = sum(_num_rows(parquet, file) for file in files)
    make = partial(_episode, widths, parts, reward)
    episodes = (Each(partial(make, file), _pieces(parquet, file, widths)) for file in files)
    info = DatasetInfo(env, f"{path} (LeRobot)")
    # It goes on after a BadEpisode, with the next of the file or with the next file.
    return Source(info, chain.from_iterable(episodes), max(rows - len(files), 0), _notes(path, about, parts, rows))


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"Reading {path} needs the package pyarrow: pip install 'urlrl[lerobot]'.") from error
    return pyarrow.parquet


def _width(file: Path, features: dict[str, Any], key: str) -> int:
    """How many numbers a feature has per frame."""
    flat = {}
    for name, one in features.items():
        match one:
            case {"dtype": str(dtype), "shape": [int(size)]} if NUMBERS.fullmatch(dtype) and size > 0:
                flat[name] = size
    if key not in flat:
        found = ""
        if key in features:
            found = f"is {shown(features[key].get('dtype'))} of shape {shown(features[key].get('shape'))}"
        advice = "; --observation names others" if key not in ("action", *REWARDS) else ""
        raise UserError(
            f"{file}: feature {shown(repr(key))} {found or 'is not there'}: expected one of flat numbers, as are "
            f"{shown(', '.join(flat), 300) or 'none'}{advice}."
        )
    return flat[key]


def _files(path: Path, names: re.Pattern[str]) -> list[Path]:
    """In order of their numbers; not what other programs leave beside them."""
    found = [
        ((int(chunk[1]), int(name[1])), file)
        for file in path.glob("data/*/*.parquet")
        if (name := names.fullmatch(file.name)) and (chunk := CHUNK.fullmatch(file.parent.name))
    ]
    return [file for _, file in sorted(found)]


def _num_rows(parquet: Any, file: Path) -> int:
    """As its end says; 0 of a file that cannot be read, which is said when it is its turn."""
    with suppress(UserError), reading(file):
        return parquet.read_metadata(file).num_rows
    return 0


def _notes(path: Path, about: dict[str, Any], parts: Sequence[str], rows: int) -> tuple[str, ...]:
    notes = [f"{path} does not have the state after an episode's last frame: its last transition is left out."]
    others = [
        f"{name} ({one.get('dtype')})"
        for name, one in about["features"].items()
        if name not in parts and (name.startswith("observation") or not NUMBERS.fullmatch(str(one.get("dtype"))))
    ]
    if others:
        taken = " + ".join(map(repr, parts))
        notes.append(f"{path}: observations are {shown(taken, 300)}; left out are {shown(', '.join(others), 300)}.")
    if DONE in about["features"]:
        notes.append(f"{path}: '{DONE}' ends episodes and no future: it does not tell a true end from a time limit.")
    if rows != about["total_frames"]:
        notes.append(f"{path} holds {rows:,} frames: meta/info.json says {about['total_frames']:,}.")
    return tuple(notes)


def _pieces(parquet: Any, file: Path, widths: dict[str, int]) -> Iterator[Piece]:
    """The episodes of a file that have a transition. A file that cannot be read is one bad episode, unless some were
    read of it: those that follow would be lost."""
    from pyarrow import concat_tables

    held, begin = None, 0
    try:
        with reading(file):
            size = file.stat().st_size
        for table in _blocks(parquet, file, widths):
            held = table if held is None else concat_tables([held, table])
            check_size(f"{file}: a block of {len(held):,} rows", held.nbytes, size)
            ends = np.diff(_numbers(file, held, begin, "episode_index", 1)[:, 0]) != 0
            if DONE in widths:
                ends |= _numbers(file, held, begin, DONE, 1)[:-1, 0] != 0
            first = 0
            for end in (np.flatnonzero(ends) + 1).tolist():
                if end - first > 1:
                    yield begin, held.slice(first, end - first)
                begin, first = begin + end - first, end
            held = held.slice(first)
        if held is not None and len(held) > 1:
            yield begin, held
    except UserError as error:
        if begin:
            raise
        raise BadEpisode(str(error)) from error


def _blocks(parquet: Any, file: Path, widths: dict[str, int]) -> Iterator[Any]:
    """The columns of these names, in tables of some rows."""
    from pyarrow import Table

    with reading(file):
        opened = parquet.ParquetFile(file)
        check_keys(file, widths, opened.schema_arrow.names)
        for key in widths:
            kind = opened.schema_arrow.field(key).type
            kind = getattr(kind, "value_type", kind)
            if not NUMBERS.fullmatch(str(np.dtype(kind.to_pandas_dtype()))):
                raise UserError(f"{file}: '{key}' is {shown(kind)}: expected numbers, or lists of numbers.")
        # The size of each column is not asked for: pyarrow ends the process where the metadata of one are damaged.
        for group in range(opened.metadata.num_row_groups):
            check_size(file, opened.metadata.row_group(group).total_byte_size, file.stat().st_size)
        batches = opened.iter_batches(BLOCK, columns=list(widths))
    with opened:
        while True:
            with reading(file):
                batch = next(batches, None)
                if batch is None:
                    return
                table = Table.from_batches([batch]).select(list(widths))
            yield table


def _numbers(file: Path, table: Any, begin: int, key: str, width: int) -> np.ndarray:
    """A column of a table, (n, width), which begins in this row of the file."""
    from pyarrow.compute import list_value_length

    with reading(file):
        values = table.column(key).combine_chunks()
        nulls, lengths = values.null_count, np.ones(len(values), int)
        if hasattr(values.type, "value_type") and not nulls:
            lengths = list_value_length(values).to_numpy(zero_copy_only=False)
            values = values.flatten()
            nulls = values.null_count
        if nulls:
            raise UserError(
                f"{file}: '{key}' has {nulls:,} empty values in the {len(table):,} rows from row {begin:,} on: "
                f"expected numbers."
            )
        wrong = np.flatnonzero(lengths != width)
        if len(wrong):
            raise UserError(
                f"{file}: '{key}' has {lengths[wrong[0]]} numbers in row {begin + wrong[0]:,}: expected {width}, as "
                f"meta/info.json says."
            )
        return values.to_numpy(zero_copy_only=False).reshape(-1, width)


def _episode(widths: dict[str, int], parts: Sequence[str], reward: str, file: Path, piece: Piece) -> Episode:
    begin, table = piece
    arrays = {key: _numbers(file, table, begin, key, width) for key, width in widths.items()}
    where = f"{file}: episode {arrays['episode_index'][0, 0]}"
    frame = arrays["frame_index"][:, 0]
    gaps = np.flatnonzero(np.diff(frame) != 1)
    if len(gaps):
        row = gaps[0]
        raise UserError(
            f"{where}: 'frame_index' is {frame[row + 1]} in row {begin + row + 1:,} after {frame[row]}: expected one "
            f"more in each row, as a frame that is missing makes a transition that there never was."
        )
    steps = len(table) - 1
    obs = np.concatenate([arrays[part] for part in parts], axis=1)
    rewards = arrays[reward][:-1, 0] if reward else np.zeros(steps)
    episode = Episode(obs, arrays["action"][:-1], rewards, np.zeros(steps, bool))
    return checked(episode, where, Names(" + ".join(parts), "action", reward), begin)
