"""D4RL's HDF5 files (https://arxiv.org/abs/2004.07219): flat arrays, one row per transition.

An episode ends at a terminal, at a timeout, or where `next_observations`, if the file has them, is not the observation
of the row after. In antmaze terminals mean that the goal is touched, which ends nothing. The state after an episode's
last row is known from `next_observations` alone, as the row that follows belongs to the next episode. Without them an
episode's last transition is left out, unless it is a true end. That is kept. The state that it reached is not in the
file, so the last state stands for it, and rewards and goals read that one.
"""

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from urlrl.data.claims import BLOCK, PER_ROW, check_size, reading
from urlrl.data.dataset import DatasetInfo, Episode
from urlrl.data.hdf5 import array, file_size, open_hdf5, row_bytes
from urlrl.data.reading import Each, Names, Source, check_keys, checked, column, numeric, stops
from urlrl.errors import UserError
from urlrl.types import EnvSpec

NAMES = Names("observations", "actions", "rewards", "infos/qpos")
KEYS = (
    "observations", "actions", "rewards", "terminals", "timeouts", "next_observations", "infos/qpos", "infos/qvel",
)  # fmt: skip
# A key of another layout -> what has it.
OTHERS = {
    "data": "demonstrations in groups, as robomimic stores them",
    "episode_0": "episodes in groups, as Minari stores them (give the dataset's folder)",
    "traj_0": "trajectories in groups, as ManiSkill stores them",
}
Piece = tuple[int, dict[str, np.ndarray]]  # the first row of an episode, and its rows of each array
BLOCK_BYTES = 2**24  # that are read at once, of rows that are large
SAME_STATE = 1e-5  # the next observation is that of the row after, up to this
PROBE = 1000  # rows in which physics is compared with the observation


def is_antmaze(name: str) -> bool:
    return "antmaze" in name.lower().replace("_", "")


def read_d4rl(path: Path, env: str = "", spec: EnvSpec | None = None) -> Source:
    """Episodes in the order of the file.

    Raises:
        UserError: another layout, a key is missing, arrays are of unequal lengths; or later, at rows that are wrong.
    """
    del spec
    table = _Table(path)
    nexts, notes = "next_observations" in table.arrays, []
    if not nexts and "timeouts" not in table.arrays:
        raise UserError(
            f"{path} has neither 'timeouts' nor 'next_observations': expected one of them, to know where episodes end."
        )
    antmaze = is_antmaze(path.stem) or is_antmaze(env)
    terminated = table.flags("terminals")
    if antmaze:
        terminated[:] = False
        notes.append(f"{path}: antmaze's terminals are contacts with the goal: they end no episode and no future.")
    ends = terminated | (table.flags("timeouts") if "timeouts" in table.arrays else False)
    ends[-1] = True
    if nexts:
        _add_jumps(table, ends)
    else:
        kept = int((ends & terminated).sum())
        true_ends = f", but for the {kept:,} true ends, whose last state is repeated" if kept else ""
        notes.append(f"{path} has no 'next_observations': the last transition of each episode is left out{true_ends}.")
    layout, note = _physics(table, nexts)
    notes += [note] if note else []
    transitions = table.rows - (0 if nexts else int((ends & ~terminated).sum()))
    info = DatasetInfo(env, f"{path} (D4RL)", layout)
    physics = [f"infos/{name}" for name, _ in layout]
    episodes = Each(partial(_episode, table, terminated, physics), _pieces(table, ends, terminated, physics))
    return Source(info, episodes, transitions, tuple(notes))


def _add_jumps(table: "_Table", ends: np.ndarray) -> None:
    """Mark the rows whose next observation is not that of the row after."""
    block = table.block("observations")
    for begin in range(0, table.rows - 1, block):
        end = min(begin + block, table.rows - 1)
        after = table.numbers("next_observations", begin, end)
        there = table.numbers("observations", begin + 1, end + 1)
        with np.errstate(invalid="ignore"):  # Infinities are refused later, with their row.
            ends[begin:end] |= ~(np.abs(after - there) <= SAME_STATE).all(axis=1)


def _physics(table: "_Table", nexts: bool) -> tuple[tuple[tuple[str, int], ...], str]:
    """The layout of infos/qpos and infos/qvel, and a sentence if they are left out."""
    if not {"infos/qpos", "infos/qvel"} <= table.arrays.keys():
        return (), ""
    if nexts:
        return (), f"{table.path}: infos/qpos and infos/qvel are left out, as they lack each episode's last state."
    qvel, qpos, obs = (table.numbers(key, 0, PROBE) for key in ("infos/qvel", "infos/qpos", "observations"))
    shown = obs[:, -qvel.shape[1] :]  # Observations of these environments end with the velocities, clipped in some.
    comparable = qpos.size and qvel.size and shown.shape == qvel.shape
    if not comparable or not np.allclose(shown, np.clip(qvel, shown.min(), shown.max()), atol=1e-4):
        return (), f"{table.path}: infos/qpos and infos/qvel are left out, as they are not the states of their rows."
    return (("qpos", qpos.shape[1]), ("qvel", qvel.shape[1])), ""


def _pieces(table: "_Table", ends: np.ndarray, terminated: np.ndarray, physics: list[str]) -> Iterator[Piece]:
    """The episodes that have a transition whose two states are known, or that is a true end."""
    optional = [key for key in ("rewards", "next_observations") if key in table.arrays]
    columns = {key: _Column(table, key) for key in ("observations", "actions", *optional, *physics)}
    size, row, begin = file_size(table.file), sum(row_bytes(table.arrays[key]) for key in columns), 0
    for end in stops(ends):
        check_size(f"{table.path}: an episode of {end - begin:,} rows", (end - begin) * row, size)
        rows = {key: values.take(end - begin) for key, values in columns.items()}
        if end - begin > 1 or "next_observations" in rows or terminated[begin]:
            yield begin, rows
        begin = end


def _episode(table: "_Table", terminated: np.ndarray, physics: list[str], piece: Piece) -> Episode:
    begin, rows = piece
    obs = numeric(table.path, "observations", rows["observations"], 2)
    states = np.concatenate([rows[key] for key in physics], axis=1) if physics else None
    steps = len(obs)
    if "next_observations" in rows:
        obs = np.concatenate([obs, numeric(table.path, "next_observations", rows["next_observations"], 2)[-1:]])
    elif terminated[begin + steps - 1]:
        obs = np.concatenate([obs, obs[-1:]])
        states = None if states is None else np.concatenate([states, states[-1:]])
    else:
        steps -= 1
    reward = column(table.path, "rewards", rows["rewards"])[:steps] if "rewards" in rows else np.zeros(steps)
    episode = Episode(obs, rows["actions"][:steps], reward, terminated[begin : begin + steps], states)
    return checked(episode, table.path, NAMES, begin)


def _refuse_others(path: Path, found: Collection[str]) -> None:
    """Refuse a file of another layout, by its name."""
    for key, what in OTHERS.items():
        if key in found and "observations" not in found:
            raise UserError(
                f"{path} holds {what}: expected D4RL's layout, arrays 'observations', 'actions' and 'terminals'."
            )
    check_keys(path, ("observations", "actions", "terminals"), found)


class _Table:
    """The arrays of an HDF5 file, and how many rows they have."""

    def __init__(self, path: Path):
        self.path = path
        self.file = open_hdf5(path)
        with reading(path):
            keys = set(self.file)
        _refuse_others(path, keys)
        # name -> h5py.Dataset
        self.arrays = {key: found for key in KEYS if (found := array(self.file, key, path)) is not None}
        shapes = {key: found.shape for key, found in self.arrays.items()}
        self.rows = shapes["terminals"][0] if shapes.get("terminals") else 0
        for key, shape in shapes.items():
            if not shape or shape[0] != self.rows:
                raise UserError(f"{path}: '{key}' has shape {shape}: expected {self.rows:,} rows, as 'terminals' has.")
        if "terminals" in shapes and not self.rows:
            raise UserError(f"{path}: 'terminals' is empty: expected at least one row.")
        obs, after = (shapes.get(key) for key in ("observations", "next_observations"))
        if obs and after and obs != after:
            raise UserError(f"{path}: 'next_observations' has shape {after}: expected {obs}, as 'observations' has.")

    def flags(self, key: str) -> np.ndarray:
        """(rows,), bool."""
        check_size(f"{self.path}: '{key}'", PER_ROW * self.rows, file_size(self.file))
        flags = np.empty(self.rows, bool)
        for begin in range(0, self.rows, self.block(key)):
            block = slice(begin, begin + self.block(key))
            flags[block] = column(self.path, key, self.read(key, block.start, block.stop)) != 0
        return flags

    def block(self, key: str) -> int:
        """How many rows are read at once."""
        return min(BLOCK, max(BLOCK_BYTES // max(row_bytes(self.arrays[key]), 1), 1))

    def numbers(self, key: str, begin: int, end: int) -> np.ndarray:
        """Rows [begin, end), (n, k) float64."""
        return numeric(self.path, key, self.read(key, begin, end), 2).astype(np.float64)

    def read(self, key: str, begin: int, end: int) -> np.ndarray:
        what, end = f"{self.path}: '{key}'", min(end, self.rows)
        check_size(what, (end - begin) * row_bytes(self.arrays[key]), file_size(self.file))
        with reading(what):
            return np.asarray(self.arrays[key][begin:end])


class _Column:
    """One array, read in blocks: its compressed chunks may be longer than an episode."""

    def __init__(self, table: _Table, key: str):
        self.table, self.key, self.row = table, key, 0  # the next row to be read from the file
        self.held: np.ndarray | None = None

    def take(self, rows: int) -> np.ndarray:
        """The next rows."""
        while self.held is None or len(self.held) < rows:
            end = min(self.row + self.table.block(self.key), self.table.rows)
            block = self.table.read(self.key, self.row, end)
            if not len(block):
                raise UserError(
                    f"{self.table.path}: '{self.key}' ends in row {self.row:,}: expected {self.table.rows:,}."
                )
            self.row += len(block)
            self.held = block if self.held is None else np.concatenate([self.held, block])
        taken, self.held = self.held[:rows], self.held[rows:]
        return taken
