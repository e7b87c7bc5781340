"""Unlabelled data: episodes in flat, memory-mapped columns, from which goals can be drawn.

A folder `dataset.json obs.npy action.npy reward.npy terminated.npy physics.npy starts.npy`. An episode of T transitions
has T + 1 rows, so that each state is stored once: row i and the next are the ends of a transition, whose action, reward
and termination stand in row i; in an episode's last row these are zero and mean nothing. `physics` is the simulator's
state of the row's own observation; it is there where the source had one.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.data.claims import map_npy, reading
from urlrl.data.draw import Drawn, draw, gather
from urlrl.data.rows import Rows
from urlrl.errors import UserError, shown
from urlrl.files import check_shape, new_folder, read_json, remembered_sha256, sha256, write_json
from urlrl.runtime import cache_folder
from urlrl.types import Array, BatchSpec, Transition

FORMAT = "urlrl-dataset-1"
MAX_ROWS = 2**31 - 1  # rows are drawn as int32
ACTION_TOLERANCE = 1e-6  # beyond [-1, 1], from rounding
# How a sentence ends that refuses actions.
IN_BOUNDS = "expected actions in [-1, 1]; `urlrl data convert` takes --action-scale and --clip-actions"
COLUMNS = {"obs": np.float32, "action": np.float32, "reward": np.float32, "terminated": np.bool_, "physics": np.float64}


class Episode(NamedTuple):
    """What every reader yields: T transitions, in order of time."""

    obs: np.ndarray  # (T + 1, obs)
    action: np.ndarray  # (T, act), in [-1, 1]
    reward: np.ndarray  # (T,): the source's own; zeros where it has none
    terminated: np.ndarray  # (T,), bool: the future counts nothing, which is not the same as a time limit
    physics: np.ndarray | None = None  # (T + 1, physics)


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset says of itself, in dataset.json."""

    env: str  # a name that `make_env` knows and whose observations these are; "" where there is none
    source: str  # what it was made of
    physics: tuple[tuple[str, int], ...] = ()  # (name, size) of the parts of a physics row
    obs_is_physics: bool = False  # the observation is the physics row, so it is not stored twice
    episodes: int = 0
    rows: int = 0
    obs_dim: int = 0
    action_dim: int = 0
    sha256: dict[str, str] = field(default_factory=dict)  # column -> hash of its file
    format: str = FORMAT


SHAPE = {
    "format": FORMAT, "env": str, "source": str, "physics": [list], "obs_is_physics": bool,
    "episodes": int, "rows": int, "obs_dim": int, "action_dim": int, "sha256": {str: str},
}  # fmt: skip


class Episodes(NamedTuple):
    """The space of rows of a dataset: those in which a transition begins."""

    starts: jax.Array  # (episodes + 1,), int32: the first rows of the episodes, and the number of rows

    def any_row(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        # Transition j of all is j-th among the rows that are not an episode's last.
        before = self.starts - jnp.arange(self.starts.shape[0], dtype=self.starts.dtype)
        transition = jax.random.randint(key, shape, 0, before[-1], jnp.int32)
        return transition + jnp.searchsorted(before, transition, side="right").astype(jnp.int32) - 1

    def steps_left(self, row: jax.Array) -> jax.Array:
        return self.starts[jnp.searchsorted(self.starts, row, side="right")] - row - 2

    def ahead(self, row: jax.Array, steps: jax.Array) -> jax.Array:
        return row + steps


@partial(jax.jit, static_argnums=(1, 2))
def draw_rows(key: jax.Array, shape: tuple[int, ...], spec: BatchSpec, space: Episodes) -> Drawn:
    """`draw`, by a key of this one: with it, batches without goals are those that earlier versions drew."""
    return draw(jax.random.split(key, 4)[0], shape, spec, space)


class Columns(NamedTuple):
    """What batches are gathered from, mapped from the disk or on the device."""

    obs: Any  # (rows, obs)
    action: Any  # (rows, act)
    reward: Any  # (rows,)
    terminated: Any  # (rows,)
    starts: Any  # (episodes + 1,)

    def transitions(self, row: Array) -> Transition:
        """Those that begin in these rows, (*B,). There is no skill: z is (*B, 0)."""
        return Transition(
            obs=self.obs[row],
            action=self.action[row],
            reward=self.reward[row],
            discount=1 - self.terminated[row].astype(np.float32),
            next_obs=self.obs[row + 1],
            z=np.zeros((*row.shape, 0), np.float32),
        )

    def reached(self, row: Array) -> Array:
        return self.obs[row + 1]

    def timed_out(self, row: Array) -> Array:
        """Whether the episode ends here; that it is not terminated shows in the transition."""
        xp = row.__array_namespace__()
        return self.starts[xp.searchsorted(self.starts, row, side="right")] == row + 2


class Dataset:
    """An open dataset. Columns are mapped, not loaded: what is sampled is what is read."""

    def __init__(self, folder: Path | str):
        """
        Raises:
            UserError: not a dataset, or a column is missing, cut short or of another shape; the message names it.
        """
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        physics_dim = sum(size for _, size in self.info.physics)
        widths: dict[str, tuple[int, ...]] = {
            "obs": (self.info.obs_dim,), "action": (self.info.action_dim,), "reward": (), "terminated": (),
        }  # fmt: skip
        if self.info.physics and not self.info.obs_is_physics:
            widths["physics"] = (physics_dim,)
        self.columns = {
            name: _map(self.folder / f"{name}.npy", (self.info.rows, *width), np.dtype(COLUMNS[name]))
            for name, width in widths.items()
        }
        self.starts = np.array(_map(self.folder / "starts.npy", (self.info.episodes + 1,), np.dtype(np.int64)))
        if self.starts[0] or self.starts[-1] != self.info.rows or (np.diff(self.starts) < 2).any():
            raise UserError(
                f"{self.folder / 'starts.npy'} does not divide {self.info.rows:,} rows into episodes: expected numbers "
                f"that rise from 0 to {self.info.rows:,} by 2 or more."
            )
        some = {name: self.columns[name] for name in Columns._fields if name in self.columns}
        self.to_draw = Columns(**some, starts=self.starts.astype(np.int32))

    def verify(self) -> "Dataset":
        """Compare the files with their hashes in dataset.json, once: see `remembered_sha256`. Whoever learns or prompts
        from a dataset does this first.

        Raises:
            UserError: a file is not the one that was written.
        """
        for name in (*self.columns, "starts"):
            path = self.folder / f"{name}.npy"
            if remembered_sha256(path, cache_folder() / "hashes.json") != self.info.sha256.get(name):
                raise UserError(f"{path} is not the file that was written: its SHA-256 is not the one in dataset.json.")
        return self

    def __len__(self) -> int:
        """Transitions."""
        return self.info.rows - self.info.episodes

    @property
    def id(self) -> str:
        """What tells this content from another's."""
        return hashlib.sha256(json.dumps(self.info.sha256, sort_keys=True).encode()).hexdigest()[:16]

    def sample(self, key: jax.Array, num_batches: int, spec: BatchSpec) -> Transition:
        """`num_batches` uniform batches, stacked: every field is (num_batches, spec.size, ...)."""
        space, shape = Episodes(jnp.asarray(self.to_draw.starts)), (num_batches, spec.size)
        drawn = jax.tree.map(np.asarray, draw_rows(key, shape, spec, space))
        return gather(self.to_draw, drawn, spec)

    def at(self, row: np.ndarray) -> Transition:
        """The transitions that begin in these rows, (*B,). There is no skill: z is (*B, 0)."""
        return self.to_draw.transitions(row)

    def transition_rows(self, index: np.ndarray) -> np.ndarray:
        """Where the transitions of these indices in [0, len(self)) begin."""
        return index + np.searchsorted(self.starts - np.arange(len(self.starts)), index, side="right") - 1

    def rows(self, row: np.ndarray) -> Rows:
        """The transitions that begin in these rows (n,), as a run stores them, with physics and next_physics."""
        batch = self.at(row)
        found = {name: getattr(batch, name) for name in ("obs", "action", "reward", "next_obs", "z")}
        found["terminated"] = self.columns["terminated"][row]
        if self.info.physics:
            found |= {"physics": self.physics(row), "next_physics": self.physics(row + 1)}
        return found

    def physics(self, row: np.ndarray | slice) -> np.ndarray:
        """The simulator's states in these rows, (*B, physics), float64. Only where `info.physics` names some."""
        name = "obs" if self.info.obs_is_physics else "physics"
        return np.asarray(self.columns[name][row], np.float64)

    def pick(self, count: int, seed: int) -> np.ndarray:
        """The first rows of `count` distinct transitions (or of all, if there are fewer), uniform, in order."""
        picks = np.random.default_rng(seed).choice(len(self), min(count, len(self)), replace=False)
        return self.transition_rows(np.sort(picks))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the observations, (obs,) each; 1 where one never varies."""
        count, total, squares = 0, np.zeros(self.info.obs_dim), np.zeros(self.info.obs_dim)
        for start in range(0, self.info.rows, 2**16):
            rows = self.columns["obs"][start : start + 2**16].astype(np.float64)
            count, total, squares = count + len(rows), total + rows.sum(axis=0), squares + np.square(rows).sum(axis=0)
        std = np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
        return total / count, np.where(std < 1e-6, 1.0, std)

    def episodes(self) -> Iterator[Episode]:
        for begin, end in zip(self.starts, self.starts[1:]):
            some = {name: column[begin : end - 1] for name, column in self.columns.items()}
            physics = self.physics(slice(begin, end)) if self.info.physics else None
            yield Episode(self.columns["obs"][begin:end], some["action"], some["reward"], some["terminated"], physics)


def write_dataset(folder: Path | str, info: DatasetInfo, episodes: Iterable[Episode]) -> Dataset:
    """Write episodes, as they come, into a new folder; it is whole or not there.

    Args:
        info: `env`, `source`, `physics` and `obs_is_physics`; the rest is counted.

    Raises:
        UserError: the folder is there already, there are no episodes, one does not fit the others, or an action is
            beyond [-1, 1]. What is beyond by rounding is clipped.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder} is there already: expected a new folder for a dataset.")
    with new_folder(folder) as part:
        counted = _write_columns(part, info, episodes)
        write_json(asdict(counted), part / "dataset.json")
    return Dataset(folder)


def _write_columns(part: Path, info: DatasetInfo, episodes: Iterable[Episode]) -> DatasetInfo:
    physics = bool(info.physics) and not info.obs_is_physics
    columns: dict[str, _Column] = {}
    starts = [0]
    try:
        for number, episode in enumerate(episodes):
            table = _table(episode, physics, number)
            for name, values in table.items():
                if name not in columns:
                    columns[name] = _Column(part / f"{name}.npy", values)
                columns[name].append(values, number)
            starts.append(starts[-1] + len(episode.obs))
            if starts[-1] > MAX_ROWS:
                raise UserError(f"The data has more than {MAX_ROWS:,} states: expected fewer; convert a part of it.")
    finally:
        for column in columns.values():
            column.close()
    if not columns:
        raise UserError(f"{info.source} holds no episodes: expected at least one.")
    np.save(part / "starts.npy", np.array(starts, np.int64))
    hashes = {name: sha256(part / f"{name}.npy") for name in (*columns, "starts")}
    sizes = {f"{name}_dim": columns[name].width[0] for name in ("obs", "action")}
    return DatasetInfo(
        info.env, info.source, info.physics, info.obs_is_physics, len(starts) - 1, starts[-1], **sizes, sha256=hashes
    )


def _table(episode: Episode, physics: bool, number: int) -> dict[str, np.ndarray]:
    """Columns of one episode, (T + 1, ...) each, in the dtypes that are stored."""
    steps = len(episode.action)
    if steps < 1 or len(episode.obs) != steps + 1 or (physics and episode.physics is None):
        raise UserError(
            f"Episode {number} has {len(episode.obs)} observations and {steps} actions"
            f"{' and no physics' if physics and episode.physics is None else ''}: expected T actions and T + 1 "
            f"observations{', each with its physics' if physics else ''}, T at least 1."
        )
    names = ["obs", "action", "reward", "terminated", *(["physics"] if physics else [])]
    table = {}
    for name in names:
        values: np.ndarray = np.asarray(getattr(episode, name)).astype(COLUMNS[name])
        if name not in ("obs", "physics"):
            values = np.concatenate([values, np.zeros((1, *values.shape[1:]), values.dtype)])
        if len(values) != steps + 1:
            raise UserError(
                f"Episode {number} has {len(values)} rows of '{name}': expected {steps + 1}, as it has {steps} actions."
            )
        table[name] = values
    table["action"] = within_bounds(table["action"], f"Episode {number}")
    return table


def within_bounds(action: np.ndarray, what: str) -> np.ndarray:
    """Actions (T, act), those beyond [-1, 1] by rounding clipped.

    Raises:
        UserError: one is further beyond, or not a number; the message begins with `what`.
    """
    beyond = np.argwhere(~(np.abs(action) <= 1 + ACTION_TOLERANCE))
    if len(beyond):
        raise UserError(f"{what} has an action of {action[tuple(beyond[0])]:.6g} in step {beyond[0][0]}: {IN_BOUNDS}.")
    return np.clip(action, -1, 1)


class _Column:
    """A .npy file that grows; its header, whose length leaves room for any number of rows, is written again at the
    end."""

    def __init__(self, path: Path, like: np.ndarray):
        self.dtype, self.width, self.rows = like.dtype, like.shape[1:], 0
        self.file = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self._header()

    def append(self, values: np.ndarray, number: int) -> None:
        if values.shape[1:] != self.width:
            raise UserError(
                f"Episode {number} has {Path(self.file.name).stem} of shape {values.shape[1:]}: expected {self.width}, "
                f"as in the episodes before it."
            )
        self.file.write(np.ascontiguousarray(values).data)
        self.rows += len(values)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()

    def _header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.width),
        }
        np.lib.format.write_array_header_1_0(self.file, header)


def _read_info(folder: Path) -> DatasetInfo:
    path = folder / "dataset.json"
    if not path.is_file():
        raise UserError(
            f"{folder} is not a dataset: it has no dataset.json; make one with `urlrl data convert {folder} --out DIR`."
        )
    default = asdict(DatasetInfo("", ""))
    data = read_json(path, SHAPE, **{name: default[name] for name in default.keys() - {"env", "source", "format"}})
    with reading(path):
        data["physics"] = tuple((str(name), size) for name, size in data["physics"])
        check_shape(dict(data["physics"]), {str: int}, "physics")
        info = DatasetInfo(**data)
        for name in ("episodes", "rows", "obs_dim", "action_dim"):
            if getattr(info, name) < 1:
                raise ValueError(f"'{name}' is {getattr(info, name)}, not a number of at least 1")
        if any(size < 1 for _, size in info.physics):
            raise ValueError(f"'physics' is {info.physics}, not names with sizes of at least 1")
        return info


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if not path.exists():
        raise UserError(f"{path} is missing: the dataset is not whole.")
    column = map_npy(path)
    if column.shape != shape or column.dtype != dtype:
        raise UserError(
            f"{path} holds {shown(column.dtype)} of shape {column.shape}: expected {dtype} of shape {shape}, as "
            f"dataset.json says."
        )
    return np.asarray(column)  # A view of the map: memmap's own indexing costs more.
