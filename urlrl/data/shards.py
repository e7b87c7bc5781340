"""What a run writes of its transitions: safetensors files of consecutive rows, which are also a dataset.

A shard `000000000000-000000016000.safetensors` holds the transitions of global indices [0, 16000) in order; its
metadata says how many environments are interleaved (transition i + n follows i). Files are written whole or not at
all, and a checkpoint remembers the hash of each.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from urlrl.data.rows import Fields, Rows
from urlrl.errors import UserError, reason, shown
from urlrl.files import check_shape, write_atomically

FORMAT = "urlrl-shard-1"
NAME = re.compile(r"\d{12}-\d{12}\.safetensors|\.\d{12}-\d{12}\.safetensors\.part")  # a shard | one being written


@dataclass(frozen=True)
class Shard:
    """Rows [begin, end) in `file`."""

    file: str
    begin: int
    end: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Shard":
        """Raises UserError at what `to_json` does not give."""
        try:
            check_shape(data, {"file": str, "begin": int, "end": int, "sha256": str}, "shard")
            shard = cls(*(data[field.name] for field in fields(cls)))
            if shard.file != _name(shard.begin, shard.end):
                raise ValueError(f"shard.file is {shown(shard.file)}, not {_name(shard.begin, shard.end)!r}")
            if shard.begin >= shard.end:
                raise ValueError(f"shard.end is {shard.end}, not above {shard.begin}")
        except ValueError as error:
            raise UserError(f"A checkpoint refers to a shard in a way that cannot be read: {error}.") from error
        return shard


class ShardFolder:
    """The folder `replay/` of a run."""

    def __init__(self, folder: Path, fields: Fields, num_envs: int):
        self.folder = folder
        self.fields = fields
        self.num_envs = num_envs

    def write(self, begin: int, rows: Rows) -> Shard:
        """Write rows that start at global index `begin`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        end = begin + len(rows["obs"])
        name = _name(begin, end)
        # One key: safetensors writes several in random order, and equal rows should make equal files.
        content = save(rows, {"urlrl": json.dumps({"format": FORMAT, "num_envs": self.num_envs})})
        write_atomically(self.folder / name, content)
        return Shard(name, begin, end, hashlib.sha256(content).hexdigest())

    def read(self, shard: Shard) -> Rows:
        """The rows of a shard. Raises UserError that names the file if it is not what was written; where the shard says
        no hash, that is judged by its rows."""
        path = self.folder / shard.file
        try:
            content = path.read_bytes()
            if shard.sha256 and hashlib.sha256(content).hexdigest() != shard.sha256:
                raise UserError(f"Shard {path} is corrupted: its SHA-256 is not the one the checkpoint recorded.")
            rows = load(content)
        except (OSError, SafetensorError) as error:
            raise UserError(f"Shard {path} cannot be read: {reason(error)}.") from error
        except (KeyError, AttributeError) as error:  # A type of numbers that NumPy lacks, as the float8s.
            raise UserError(f"Shard {path} holds numbers of type {error}: expected those of this run.") from error
        found = {name: (column.shape[1:], column.dtype) for name, column in rows.items()}
        if found != self.fields:
            held, fields = shown(sorted(found)), sorted(self.fields)
            raise UserError(f"Shard {path} holds {held}: expected {fields} of this run's sizes.")
        for name, column in rows.items():
            if column.shape[:1] != (shard.end - shard.begin,):
                raise UserError(
                    f"Shard {path} holds {name} of shape {column.shape}: expected {shard.end - shard.begin:,} rows."
                )
        return rows

    def read_last(self, shards: list[Shard], count: int) -> Rows:
        """The last `count` rows of consecutive shards."""
        parts: list[Rows] = []
        end = shards[-1].end
        for shard in reversed(shards):
            if shard.end <= end - count:
                break
            rows = self.read(shard)
            skip = max(0, end - count - shard.begin)
            parts.insert(0, {name: column[skip:] for name, column in rows.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.fields}

    def files(self) -> list[Path]:
        """The shards that are here, in order of their rows."""
        return sorted(path for path in self._ours() if not path.name.endswith(".part"))

    def sample(self, count: int, shards: list[Shard], rng: np.random.Generator) -> Rows | None:
        """`count` distinct rows (or all, if there are fewer) of these shards, uniform and in order; None if none of the
        shards is here.

        Raises:
            UserError: a shard is missing or is not what was written.
        """
        if not any((self.folder / shard.file).exists() for shard in shards):
            return None
        ends = np.cumsum([0, *(shard.end - shard.begin for shard in shards)])
        picks = np.sort(rng.choice(ends[-1], min(count, int(ends[-1])), replace=False))
        parts = []
        for shard, begin, end in zip(shards, ends, ends[1:]):
            rows, mine = self.read(shard), picks[(begin <= picks) & (picks < end)] - begin
            parts.append({name: column[mine] for name, column in rows.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.fields}

    def keep_only(self, shards: list[Shard]) -> None:
        """Delete every other shard: those of an abandoned future, of evicted rows, and parts of interrupted writes."""
        names = {shard.file for shard in shards}
        for path in self._ours():
            if path.name not in names:
                path.unlink(missing_ok=True)

    def _ours(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if NAME.fullmatch(path.name)]


def _name(begin: int, end: int) -> str:
    return f"{begin:012d}-{end:012d}.safetensors"
