"""Which format data on disk has, and how sources are put together. The readers of the formats are beside this file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count, islice
from pathlib import Path

import numpy as np

from urlrl.data import d4rl, exorl, lerobot, minari, ogbench
from urlrl.data.claims import what_it_is
from urlrl.data.dataset import ACTION_TOLERANCE, Dataset, DatasetInfo, Episode, within_bounds
from urlrl.data.reading import LOOKED_AT, BadEpisode, Each, Found, Names, Source, checked, physics_layout, sizes, usual
from urlrl.errors import UserError
from urlrl.types import EnvSpec

NAMES = Names("obs", "action", "reward")
SAME_STATE = 1e-5  # relative and absolute: an observation that is physics was rounded once


def read_dataset(path: Path, env: str = "", spec: EnvSpec | None = None) -> Source:
    """A dataset of this library."""
    dataset = Dataset(path)
    layout = dataset.info.physics
    if spec is not None and spec.physics and layout:
        layout = physics_layout(sum(size for _, size in layout), spec, path)
    info = replace(dataset.info, env=env, physics=layout, source=f"{path} ({dataset.info.source})")
    episodes = Each(
        lambda piece: checked(piece[0], path, NAMES, int(piece[1])), zip(_verified(dataset), dataset.starts)
    )
    return Source(info, episodes, len(dataset))


def _verified(dataset: Dataset) -> Iterator[Episode]:
    yield from dataset.verify().episodes()


Reader = Callable[..., Source]  # of (path, env, spec), and of parts of observations where these can be named
# Name of a format -> its reader. `run` is not here: its reader needs to know more.
READERS: dict[str, Reader] = {
    "urlrl": read_dataset,
    "exorl": exorl.read_exorl,
    "ogbench": ogbench.read_ogbench,
    "d4rl": d4rl.read_d4rl,
    "minari": minari.read_minari,
    "lerobot": lerobot.read_lerobot,
}
JOINING = ("minari", "lerobot")  # Their readers join the parts of observations that are named.
FORMATS = (*READERS, "run")
# Where a file or folder names its environment itself.
GUESSES: dict[str, Callable[[Path], str]] = {
    "urlrl": lambda path: Dataset(path).info.env,
    "exorl": exorl.guess_env,
    "ogbench": ogbench.guess_env,
    "d4rl": lambda path: "",
    "minari": minari.guess_env,
    "lerobot": lambda path: "",
}


def detect(path: Path) -> str:
    """A name of FORMATS.

    Raises:
        UserError: there is nothing, or it is none of them.
    """
    if path.is_file():
        found = {".npz": "ogbench", ".hdf5": "d4rl", ".h5": "d4rl"}.get(path.suffix.lower(), "")
    elif (path / "dataset.json").is_file():
        found = "urlrl"
    elif (path / "config.json").is_file() and (path / "replay").is_dir():
        found = "run"
    elif exorl.find_files(path):
        found = "exorl"
    elif minari.find_data(path):
        found = "minari"
    elif lerobot.find_info(path):
        found = "lerobot"
    else:
        found = ""
    if path.is_file() and (known := what_it_is(path)):
        raise UserError(f"{path} {known}.")
    if not found:
        what = "is of no known format" if path.exists() else "is not there"
        raise UserError(
            f"{path} {what}: expected a dataset (dataset.json), a run (config.json and replay/), ExORL's episodes "
            f"(episode_*.npz), a file of OGBench (.npz) or D4RL (.hdf5), or a dataset of Minari's or "
            f"LeRobot's."
        )
    return found


def fitted(source: Source, spec: EnvSpec | None) -> Source:
    """The source, checked against the environment that its observations are of."""
    if spec is None:
        return source
    info = source.info
    if spec.physics and info.physics not in ((), spec.physics):
        raise UserError(
            f"{info.source} has physics of {_parts(info.physics)}: expected {_parts(spec.physics)}, as environment "
            f"'{spec.id}' has."
        )
    if spec.obs_is_physics:
        info = replace(info, physics=spec.physics, obs_is_physics=True)
    episodes = Each(partial(_fitted, info.source, spec), zip(count(), source.episodes))
    return replace(source, info=info, episodes=episodes)


def _parts(physics: tuple[tuple[str, int], ...]) -> str:
    return ", ".join(f"{name} {size}" for name, size in physics)


def _fitted(name: str, spec: EnvSpec, piece: tuple[int, Episode]) -> Episode:
    number, episode = piece
    widths = {"observations": (episode.obs, spec.obs_dim), "actions": (episode.action, spec.action_dim)}
    for what, (values, expected) in widths.items():
        if values.shape[1] != expected:
            raise UserError(
                f"{name} has {what} of {values.shape[1]} numbers: expected {expected}, as environment '{spec.id}' has."
            )
    if not spec.obs_is_physics:
        return episode
    if episode.physics is not None and not np.allclose(episode.physics, episode.obs, SAME_STATE, SAME_STATE):
        raise UserError(
            f"{name} has physics in episode {number} that is not the observation: expected the same, as in environment "
            f"'{spec.id}'."
        )
    return episode._replace(physics=None)


def bounded(source: Source, scale: float, clip: bool, found: Found) -> Source:
    """The source with its actions divided by `scale`. Those that then leave [-1, 1] are refused, or clipped if that is
    asked for; what is beyond by rounding is clipped. How many is counted."""

    def bound(piece: tuple[int, Episode]) -> Episode:
        number, episode = piece
        action = (episode.action / np.float64(scale)).astype(np.float32)
        excess = np.abs(action) - 1
        far = excess > ACTION_TOLERANCE
        if far.any() and not clip:
            within_bounds(action, f"{source.info.source}: episode {number}")
        found.actions += action.size
        found.clipped += int(far.sum())
        found.rounded += int((excess > 0).sum() - far.sum())
        found.excess = max(found.excess, float(excess[far].max(initial=0.0)))
        return episode._replace(action=np.clip(action, -1, 1))

    how = ("" if scale == 1 else f", actions divided by {scale:g}") + (", actions clipped" if clip else "")
    info = replace(source.info, source=source.info.source + how)
    return replace(source, info=info, episodes=Each(bound, zip(count(), source.episodes)))


def sound(episodes: Iterator[Episode], found: Found) -> Iterator[Episode]:
    """Those that can be read and have the sizes that most of the first have; why others are left out is kept in
    `found`."""
    readable = _readable(episodes, found)
    first = list(islice(readable, LOOKED_AT))
    expected = sizes(usual([episode for _, episode in first], sizes)) if first else ()
    for number, episode in chain(first, readable):
        if sizes(episode) == expected:
            yield episode
        else:
            found.left_out.append(
                f"episode {number} of all that were read has observations, actions and physics of {sizes(episode)} "
                f"numbers: expected {expected}, as most of the first {len(first)} have."
            )


def _readable(episodes: Iterator[Episode], found: Found) -> Iterator[tuple[int, Episode]]:
    """Each with its number among all."""
    for number in count():
        try:
            yield number, next(episodes)
        except StopIteration:
            return
        except BadEpisode as error:
            found.left_out.append(str(error))


def joined(sources: Sequence[Source]) -> Source:
    """One after the other.

    Raises:
        UserError: they are of different environments, or not all with the same physics.
    """
    first = sources[0].info
    for source in sources[1:]:
        for field in ("env", "physics", "obs_is_physics"):
            there, here = getattr(first, field), getattr(source.info, field)
            if there != here:
                raise UserError(
                    f"{source.info.source} has {field} {here!r} and {first.source} {there!r}: expected the same of all "
                    f"that goes into one dataset."
                )
    counts = [source.transitions for source in sources]
    total = sum(count for count in counts if count is not None) if None not in counts else None
    name = " + ".join(source.info.source for source in sources)
    info = DatasetInfo(first.env, name, first.physics, first.obs_is_physics)
    episodes = chain.from_iterable(source.episodes for source in sources)  # It goes on after a BadEpisode.
    return Source(info, episodes, total, tuple(note for source in sources for note in source.notes))


def limited(source: Source, transitions: int) -> Source:
    """The first `transitions`; the last episode may be cut short."""
    total = transitions if source.transitions is None else min(transitions, source.transitions)
    return replace(source, episodes=_limited(source.episodes, transitions), transitions=total)


def _limited(episodes: Iterator[Episode], left: int) -> Iterator[Episode]:
    while left > 0 and (episode := next(episodes, None)) is not None:
        steps = min(len(episode.action), left)
        left -= steps
        physics = None if episode.physics is None else episode.physics[: steps + 1]
        yield Episode(
            episode.obs[: steps + 1],
            episode.action[:steps],
            episode.reward[:steps],
            episode.terminated[:steps],
            physics,
        )
