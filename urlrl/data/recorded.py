"""Episodes of a run's shards: n environments are interleaved there, row i + n follows row i unless that one ended.

Each lane's rows are put together again across the borders of shards, which are read one at a time. An episode also ends
where rows are missing (`keep_data="window"`) and where the data ends.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from urlrl.data.claims import reading
from urlrl.data.dataset import DatasetInfo, Episode
from urlrl.data.reading import Each, Names, Source, checked
from urlrl.data.rows import F32, OWN, STORABLE, Fields, Rows, transition_fields
from urlrl.data.shards import FORMAT, Shard, ShardFolder
from urlrl.errors import UserError
from urlrl.types import EnvSpec

NAMES = Names("obs", "action", "reward")
Piece = tuple[Path, list[Rows]]  # the file in which an episode ends, and the parts of it
DTYPES = dict(zip(("F32", "BOOL", "I32"), STORABLE))  # of what an agent leaves, as safetensors calls them


def read_run(
    run: Path, env: str, spec: EnvSpec, root: int = 0, hashes: Mapping[str, str] = MappingProxyType({})
) -> Source:
    """All episodes in `<run>/replay`, in the order in which they end.

    Args:
        spec: of the environment that the run trained in, with its root in front of the observation if that was so.
        root: how many coordinates of the root that are; they are not part of the episodes' observations.
        hashes: of shards by their file, where they are known.

    Raises:
        UserError: there are no shards; or later, at one that cannot be read or does not fit.
    """
    files = sorted((run / "replay").glob("[0-9]*.safetensors")) if (run / "replay").is_dir() else []
    files = [file for file in files if re.fullmatch(r"\d{12}-\d{12}\.safetensors", file.name)]
    if not files:
        raise UserError(f"{run} has no transitions in its folder replay/: expected some to make a dataset of.")
    headers = [_header(file) for file in files]
    lanes, stored = headers[0]
    for file, header in zip(files, headers):
        if header != (lanes, stored):
            raise UserError(
                f"{file} holds {header[0]} environments and {_columns(header[1])} of the agent's: expected {lanes} and "
                f"{_columns(stored)}, as {files[0].name} has."
            )
    folder = ShardFolder(run / "replay", transition_fields(spec, stored), lanes)
    info = DatasetInfo(env, f"{run} (a run)", spec.physics, spec.obs_is_physics and not root)
    total = sum(end - begin for begin, end in map(_range, files))
    return Source(info, Each(partial(_episode, root), _pieces(folder, files, lanes, hashes)), total)


def _header(file: Path) -> tuple[int, Fields]:
    """(environments, the columns that the agent left) of a shard."""
    with reading(file):
        try:
            with safe_open(file, "np") as shard:
                about: Any = json.loads((shard.metadata() or {}).get("urlrl", "{}"))
                if not isinstance(about, dict) or about.get("format") != FORMAT:
                    raise ValueError(f"it does not say format {FORMAT}")
                lanes = about["num_envs"]
                slices = {name: shard.get_slice(name) for name in list(shard.keys()) if name not in OWN}
                stored = {name: (tuple(s.get_shape()[1:]), DTYPES[s.get_dtype()]) for name, s in slices.items()}
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        if not isinstance(lanes, int) or lanes < 1 or len(stored.get("z", ((), F32))[0]) != 1:
            raise ValueError(f"it holds {lanes} environments and {_columns(stored)} of the agent's")
        return lanes, stored


def _columns(stored: Fields) -> str:
    return ", ".join(f"'{name}' of shape {shape}" for name, (shape, _) in sorted(stored.items())) or "no column"


def _range(file: Path) -> tuple[int, int]:
    begin, end = file.stem.split("-")
    return int(begin), int(end)


def _pieces(folder: ShardFolder, files: list[Path], lanes: int, hashes: Mapping[str, str]) -> Iterator[Piece]:
    held: dict[int, list[Rows]] = defaultdict(list)  # of each lane's episode, the rows so far
    reached = _range(files[0])[0]
    for file in files:
        begin, end = _range(file)
        if begin < reached or begin % lanes or end % lanes:
            raise UserError(f"{file} begins at row {begin:,}: expected {reached:,}, and whole rounds of {lanes} lanes.")
        if begin > reached:
            yield from _ended(held, file)
        rows = folder.read(Shard(file.name, begin, end, hashes.get(file.name, "")))
        yield from _complete(rows, held, lanes, file)
        reached = end
    yield from _ended(held, files[-1])


def _complete(rows: Rows, held: dict[int, list[Rows]], lanes: int, file: Path) -> Iterator[Piece]:
    """The episodes that end in these rows; what follows them is held."""
    found: list[tuple[int, list[Rows]]] = []
    for lane in range(lanes):
        mine = {name: values[lane::lanes] for name, values in rows.items()}
        last = np.flatnonzero(mine["terminated"] | mine["truncated"])
        begin = 0
        for stop in last + 1:
            found.append((int(stop) * lanes + lane, [*held[lane], _cut(mine, begin, int(stop))]))
            held[lane], begin = [], int(stop)
        if begin < len(mine["obs"]):
            held[lane].append(_cut(mine, begin, len(mine["obs"])))
    for _, parts in sorted(found, key=lambda one: one[0]):
        yield file, parts


def _cut(rows: Rows, begin: int, end: int) -> Rows:
    return {name: values[begin:end] for name, values in rows.items()}


def _ended(held: dict[int, list[Rows]], file: Path) -> Iterator[Piece]:
    """The episodes that the data does not see the end of."""
    for _, parts in sorted(held.items()):
        if parts:
            yield file, parts
    held.clear()


def _episode(root: int, piece: Piece) -> Episode:
    file, parts = piece
    names = [name for name in parts[0] if name in OWN and name != "truncated"]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in names}
    if (rows["obs"][1:] != rows["next_obs"][:-1]).any():
        row = int(np.argmax((rows["obs"][1:] != rows["next_obs"][:-1]).any(axis=1)))
        raise UserError(
            f"{file}: 'next_obs' in step {row + 1} of an episode that ends here is not the 'obs' of the step after: "
            f"expected the same, as neither 'terminated' nor 'truncated' is set."
        )
    physics = None
    if "physics" in rows:
        physics = np.concatenate([rows["physics"], rows["next_physics"][-1:]])
    obs = np.concatenate([rows["obs"], rows["next_obs"][-1:]])[:, root:]
    return checked(Episode(obs, rows["action"], rows["reward"], rows["terminated"], physics), file, NAMES)
