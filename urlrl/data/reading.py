"""What the readers of foreign formats share: nothing that is read runs code, and whatever is wrong with a file is one
sentence that names the file, the key and the row. How much memory a file may ask for is said in `urlrl.data.claims`."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from urlrl.data.claims import BLOCK
from urlrl.data.dataset import COLUMNS, DatasetInfo, Episode
from urlrl.errors import UserError, shown
from urlrl.types import EnvSpec

LOOKED_AT = 9  # of the first readable episodes, which say what sizes are usual


class BadEpisode(UserError):
    """One episode is wrong; those after it can still be read."""


class Each(Iterator[Episode]):
    """What `make` makes of each piece. Where it refuses one, a BadEpisode is raised, and the next can be asked for;
    what the pieces themselves raise ends them."""

    def __init__(self, make: Callable[[Any], Episode], pieces: Iterable[Any]):
        self.make, self.pieces = make, iter(pieces)

    def __next__(self) -> Episode:
        piece = next(self.pieces)
        try:
            return self.make(piece)
        except UserError as error:
            raise BadEpisode(str(error)) from error


@dataclass
class Found:
    """What was changed and left out while episodes were read."""

    rounded: int = 0  # actions beyond [-1, 1] by rounding, which were clipped
    clipped: int = 0  # actions further beyond, which were clipped
    actions: int = 0  # that were looked at
    excess: float = 0.0  # the largest of a clipped action
    left_out: list[str] = field(default_factory=list)  # a sentence for each episode or source

    def sentences(self) -> list[str]:
        said = [f"Left out: {why}" for why in self.left_out]
        for count, how in ((self.rounded, " by rounding"), (self.clipped, f", by at most {self.excess:.3g}")):
            if count:
                said.append(f"{count:,} of {self.actions:,} numbers of actions were beyond [-1, 1]{how}: clipped.")
        return said


@dataclass(frozen=True)
class Source:
    """Data that can be read once, episode by episode."""

    info: DatasetInfo  # `env`, `source`, `physics` and `obs_is_physics`; what is counted is not known yet
    episodes: Iterator[Episode]
    transitions: int | None  # how many there will be, at most
    notes: tuple[str, ...] = ()  # sentences: what was decided about this source
    found: Found = field(default_factory=Found)  # filled as episodes are read


class Names(NamedTuple):
    """What a source calls its arrays."""

    obs: str
    action: str
    reward: str = ""
    physics: str = "physics"


def numeric(file: Path | str, key: str, values: Any, ndim: int) -> Any:
    """`values`, an array in memory or in a file, if they are real numbers in an array of this many dimensions."""
    if values.dtype.kind not in "biuf" or values.ndim != ndim:
        raise UserError(
            f"{file}: '{key}' is {shown(values.dtype)} of shape {values.shape}: expected numbers in an array of {ndim} "
            f"dimension{'s' if ndim > 1 else ''}."
        )
    return values


def column(file: Path | str, key: str, values: np.ndarray) -> np.ndarray:
    """(n,): one number per row, whether it stands in (n,) or in the first column of (n, k)."""
    if values.ndim == 2 and values.shape[1]:
        values = values[:, 0]
    return numeric(file, key, values, 1)


def stops(ends: np.ndarray) -> Iterator[int]:
    """Where `ends` (n,) is true, the row after; found in blocks, as there may be as many as rows."""
    for begin in range(0, len(ends), BLOCK):
        yield from (np.flatnonzero(ends[begin : begin + BLOCK]) + begin + 1).tolist()


def checked(episode: Episode, file: Path | str, names: Names, first: int = 0) -> Episode:
    """The episode in the dtypes of a dataset. Actions (T,) that are no whole numbers are actions of one number each.

    Args:
        first: row of the file in which the episode begins.

    Raises:
        UserError: arrays that are no numbers or of unequal lengths, rows without numbers, numbers that are not finite.
    """
    steps = len(episode.action)
    cast: dict[str, Any] = {}
    for name, values in episode._asdict().items():
        if values is None:
            continue
        if name == "action" and values.ndim == 1 and values.dtype.kind == "f":
            values = values[:, None]
        key = getattr(names, name, name)
        values = numeric(file, key, values, 1 if name in ("reward", "terminated") else 2)
        expected = steps + (name in ("obs", "physics"))
        if len(values) != expected:
            raise UserError(f"{file}: '{key}' has {len(values):,} rows in an episode: expected {expected:,}.")
        if not all(values.shape[1:]):
            raise UserError(f"{file}: '{key}' has no numbers in its rows: expected at least one in each.")
        with np.errstate(over="ignore", invalid="ignore"):  # What is too large for a column's dtype is infinite there.
            cast[name] = values.astype(COLUMNS[name], copy=False)
        if name != "terminated":
            bad = np.argwhere(~np.isfinite(cast[name]))
            if len(bad):
                row, value = first + bad[0][0], float(values[tuple(bad[0])])
                raise UserError(f"{file}: '{key}' has {value:.6g} in row {row:,}: expected finite numbers.")
    return Episode(**cast)


def sizes(episode: Episode) -> tuple[int, ...]:
    """Of observations, actions and physics, how many numbers each has per row."""
    return tuple(0 if values is None else values.shape[-1] for values in (episode.obs, episode.action, episode.physics))


def usual(found: Sequence[Any], kind: Callable[[Any], Any]) -> Any:
    """The first of these that is of the kind of which there are most, at least one."""
    most = Counter(map(kind, found)).most_common(1)[0][0]
    return next(one for one in found if kind(one) == most)


def usual_readable(load: Callable[[Any], Any], pieces: Sequence[Any], kind: Callable[[Any], Any]) -> Any:
    """The usual one of what `load` makes of the first pieces that it can read.

    Raises:
        UserError: it can read none; what is wrong with the first is said.
    """
    found: list[Any] = []
    for piece in pieces:
        with suppress(UserError):
            found.append(load(piece))
        if len(found) == LOOKED_AT:
            break
    return usual(found, kind) if found else load(pieces[0])


def physics_layout(width: int, spec: EnvSpec | None, file: Path | str) -> tuple[tuple[str, int], ...]:
    """Names and sizes of the parts of a physics row of `width` numbers."""
    if spec is None or not spec.physics:
        return (("physics", width),)
    if width != spec.physics_dim:
        parts = ", ".join(f"{name} {size}" for name, size in spec.physics)
        raise UserError(
            f"{file}: 'physics' has {width} numbers per row: expected {spec.physics_dim} ({parts}), as environment "
            f"'{spec.id}' has."
        )
    return spec.physics


def check_keys(file: Path | str, keys: Iterable[str], found: Collection[str]) -> None:
    """Refuse a file that lacks one of these keys; `found` are those that it has."""
    for key in keys:
        if key not in found:
            raise UserError(f"{file} has no '{key}': found {shown(', '.join(sorted(found)[:12])) or 'nothing'}.")
