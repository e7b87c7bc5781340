"""Minari's datasets (https://minari.farama.org): a folder `data/` with metadata.json and main_data.hdf5, whose groups
`episode_<k>` hold T + 1 observations and T actions. Read and written with h5py alone.

Actions are mapped from the bounds of the dataset's action space onto [-1, 1], as `gym:` environments map them back.
What this library writes also has the name of its environment in the metadata, and `infos/physics`. Other metadata name
the environment that recorded the data with its keyword arguments, wrappers and time limit. Where these are not what
`gym:<id>` makes, no name is guessed: an agent would be tested in another environment than it learned from.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from urlrl.data.claims import check_size, reading
from urlrl.data.dataset import DatasetInfo, Episode
from urlrl.data.hdf5 import all_bytes, array, file_size, find, open_hdf5
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
from urlrl.errors import UserError, shown
from urlrl.types import EnvSpec

NAMES = Names("observations", "actions", "rewards", "infos/physics")
VERSION = "0.5.0"  # of Minari, the first that writes folders of this layout; later ones read them
GYM_ID = re.compile(r"[\w.-]+(/[\w.-]+)*")  # no colon: what stands before one is a module to import
ID = re.compile(r"([-_\w][-_\w/]*[-_\w]/)?[-_\w]+-v\d+")  # of a dataset


def root() -> Path:
    """Where Minari keeps its datasets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def find_data(path: Path) -> Path | None:
    """The folder `data/` of a dataset's folder, or of an id of Minari's own; None if there is none."""
    folders = (path, path / "data", root() / path / "data")
    return next((folder for folder in folders if (folder / "metadata.json").is_file()), None)


def guess_env(path: Path) -> str:
    """The environment that the metadata names, `gym:<id>`; "" if there is none, or if it is not what the id makes."""
    data = find_data(path)
    metadata = _metadata(data) if data else {}
    if data is None or isinstance(metadata.get("urlrl_env"), str):
        return metadata.get("urlrl_env", "")
    gym_id, own = _recorded(data, metadata)
    return f"gym:{gym_id}" if gym_id and not own else ""


def _recorded(data: Path, metadata: dict[str, Any]) -> tuple[str, list[str]]:
    """The id of the environment that recorded the data, and in what it was not the one that Gymnasium makes of the id;
    ("", []) where that is not known."""
    with reading(f"{data}/metadata.json: 'env_spec'"):
        spec = json.loads(metadata["env_spec"]) if metadata.get("env_spec") else {}
        gym_id, given, wrappers = spec.get("id", ""), spec.get("kwargs") or {}, spec.get("additional_wrappers") or ()
        if not isinstance(gym_id, str) or not GYM_ID.fullmatch(gym_id):
            return "", []
        usual = gymnasium.registry.get(gym_id)
        kwargs, limit = ({}, None) if usual is None else (usual.kwargs, usual.max_episode_steps)
        own = [f"{key}={value!r}" for key, value in given.items() if key != "render_mode" and value != kwargs.get(key)]
        own += [f"the wrapper {wrapper['name']}" for wrapper in wrappers]
        if usual is not None and (found := spec.get("max_episode_steps", limit)) != limit:
            own.append(f"max_episode_steps={found}")
        return gym_id, own


def read_minari(path: Path, env: str = "", spec: EnvSpec | None = None, *, observation: Sequence[str] = ()) -> Source:
    """Episodes in order of their number.

    Args:
        observation: the parts of observations that are a Dict, which are joined in this order; without it the part
            "observation" is taken.

    Raises:
        UserError: not HDF5, observations or actions that are no flat boxes, or a missing key; or later, at an episode
            that cannot be read or does not fit.
    """
    data = find_data(path)
    if data is None:
        raise UserError(f"{path} has no data/metadata.json: expected a dataset of Minari's, or the id of one.")
    metadata = _metadata(data)
    if not (data / "main_data.hdf5").is_file():
        kind = metadata.get("data_format", "unknown")
        raise UserError(f"{data} is stored as '{shown(kind)}': expected HDF5, the file main_data.hdf5.")
    file = open_hdf5(data / "main_data.hdf5")
    with reading(data / "main_data.hdf5"):
        names = [name for name in file if re.fullmatch(r"episode_[0-9]{1,12}", name)]
    names.sort(key=lambda name: int(name.removeprefix("episode_")))
    expected = metadata.get("total_episodes")
    if not names or len(names) != expected:
        raise UserError(f"{data / 'main_data.hdf5'} holds {len(names)} episodes: metadata.json says {shown(expected)}.")
    widths, notes = _parts(data, metadata, observation), []
    store = _Store(data, file, *_affine(data, metadata), widths, spec)
    first = usual_readable(store.episode, names, sizes)
    layout = _layout(metadata, 0 if first.physics is None else first.physics.shape[1], spec, data)
    total = metadata.get("total_steps")
    if "" not in widths:
        notes.append(f"{path}: observations are a Dict, of which the part {' + '.join(map(repr, widths))} is taken.")
    gym_id, own = ("", []) if isinstance(metadata.get("urlrl_env"), str) else _recorded(data, metadata)
    if own:
        what = "no name says that, so its environment is not guessed"
        if env:
            what = f"nobody can tell here whether '{env}' is the same"
        notes.append(f"{path} was recorded in gym:{gym_id} with {shown(', '.join(own), 300)}: {what}.")
    info = DatasetInfo(env, f"{path} (Minari)", layout)
    return Source(info, Each(store.episode, names), total if isinstance(total, int) else None, tuple(notes))


class _Store:
    """An open file of episodes."""

    def __init__(
        self, data: Path, file: Any, middle: np.ndarray, half: np.ndarray, parts: dict[str, int], spec: EnvSpec | None
    ):
        self.where, self.file, self.spec = data / "main_data.hdf5", file, spec
        self.middle, self.half, self.parts = middle, half, parts

    def episode(self, name: str) -> Episode:
        where = f"{self.where}: {name}"
        group = find(self.file, name, self.where)
        places = {part: f"observations/{part}" if part else "observations" for part in self.parts}
        keys = (*places.values(), "actions", "rewards", "terminations", "infos/physics")
        found = {key: values for key in keys if (values := array(group, key, where)) is not None}
        with reading(where):
            held = () if hasattr(group, "dtype") else set(group)
        check_keys(where, [key for key in keys if key not in found and key != "infos/physics"], held)
        check_size(where, sum(map(all_bytes, found.values())), file_size(self.file))
        with reading(where):
            arrays = {key: np.asarray(values[()]) for key, values in found.items()}
        obs = [_flat(where, key, arrays[key], self.parts[part]) for part, key in places.items()]
        action = numeric(where, "actions", arrays["actions"], 2)
        if action.shape[1] != len(self.middle):
            raise UserError(
                f"{where}: 'actions' has {action.shape[1]} numbers per row: expected {len(self.middle)}, as the action "
                f"space has."
            )
        action = ((action - self.middle) / self.half).astype(np.float32)
        reward = column(where, "rewards", arrays["rewards"])
        terminated = column(where, "terminations", arrays["terminations"]) != 0
        episode = Episode(np.concatenate(obs, axis=1), action, reward, terminated, arrays.get("infos/physics"))
        return checked(episode, where, NAMES)


def _metadata(data: Path) -> dict[str, Any]:
    path = data / "metadata.json"
    with reading(path):
        metadata = json.loads(path.read_text())
    if not isinstance(metadata, dict):
        raise UserError(f"{path} holds a {type(metadata).__name__}: expected an object.")
    return metadata


def _space(data: Path, metadata: dict[str, Any], key: str) -> dict[str, Any]:
    path = data / "metadata.json"
    check_keys(path, [key], metadata)
    with reading(f"{path}: '{key}'"):
        space = json.loads(metadata[key])
    if not isinstance(space, dict):
        raise UserError(f"{path}: '{key}' is {shown(repr(space))}: expected the description of a space.")
    return space


def _is_flat(space: Any, most: int = 1) -> bool:
    """Whether it is a Box of one dimension, or of at most so many."""
    shape = space.get("shape") if isinstance(space, dict) and space.get("type") == "Box" else None
    return isinstance(shape, list) and 1 <= len(shape) <= most and all(type(size) is int and size > 0 for size in shape)


def _kind(space: Any) -> str:
    return shown(f"{space.get('type')} of shape {space.get('shape')}" if isinstance(space, dict) else repr(space))


def _affine(data: Path, metadata: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(middle, half) of the action space, (act,) each; 0 and 1 where it has no bounds."""
    space = _space(data, metadata, "action_space")
    where = f"{data / 'metadata.json'}: 'action_space'"
    if not _is_flat(space):
        raise UserError(f"{where} is {_kind(space)}: expected a flat Box.")
    with reading(where):
        low, high = (np.array(space[bound], np.float64) for bound in ("low", "high"))
    if low.shape != high.shape or low.ndim != 1 or not (low < high).all():  # Never so for NaN.
        raise UserError(f"{where} has bounds that are no bounds: expected low below high.")
    bounded = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):
        return np.where(bounded, high / 2 + low / 2, 0.0), np.where(bounded, high / 2 - low / 2, 1.0)


def _parts(data: Path, metadata: dict[str, Any], wanted: Sequence[str]) -> dict[str, int]:
    """The parts of the observations that are joined, and how many numbers each has; {"": n} where there are no parts.
    A stack of frames is laid flat."""
    space, where = _space(data, metadata, "observation_space"), data / "metadata.json"
    parts = space.get("subspaces") if space.get("type") == "Dict" else None
    if isinstance(parts, dict):
        names = wanted or ("observation",)
        absent = [name for name in names if name not in parts]
        if absent:
            raise UserError(
                f"{where}: observations are a Dict of {shown(', '.join(sorted(parts)))}, without "
                f"{shown(repr(absent[0]))}: expected --observation with some of these, as in --observation a,b."
            )
    elif wanted:
        raise UserError(f"{where}: observations are {_kind(space)}: expected a Dict, as --observation names parts.")
    else:
        names, parts = ("",), {"": space}
    for name in names:
        if not _is_flat(parts[name], most=2):
            part = f" of part {shown(repr(name))}" if name else ""
            raise UserError(f"{where}: observations{part} are {_kind(parts[name])}: expected a flat Box, or a stack.")
    return {name: math.prod(parts[name]["shape"]) for name in names}


def _flat(where: str, key: str, values: np.ndarray, width: int) -> np.ndarray:
    """(n, width)."""
    if values.ndim == 3 and math.prod(values.shape[1:]) == width:
        values = values.reshape(len(values), width)
    return numeric(where, key, values, 2)


def _layout(metadata: dict[str, Any], width: int, spec: EnvSpec | None, data: Path) -> tuple[tuple[str, int], ...]:
    if not width:
        return ()
    if spec is not None and spec.physics:
        return physics_layout(width, spec, data)
    with reading(f"{data}/metadata.json: 'urlrl_physics'"):
        layout = tuple((str(name), int(size)) for name, size in metadata.get("urlrl_physics", ()))
    fits = all(size > 0 for _, size in layout) and sum(size for _, size in layout) == width
    return layout if fits else (("physics", width),)


def write_minari(folder: Path, target: Path, info: DatasetInfo, episodes: Iterable[Episode]) -> None:
    """Write a dataset that `minari.MinariDataset(target / "data")` opens, and `minari.load_dataset` by its id where the
    target lies in Minari's folder.

    Args:
        folder: where to write; it becomes `target` later.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError("Writing Minari's format needs the package h5py: pip install 'urlrl[data]'.") from error
    data = folder / "data"
    data.mkdir()
    count = steps = obs_dim = action_dim = 0
    with h5py.File(data / "main_data.hdf5", "w", track_order=True) as file:
        for count, episode in enumerate(episodes, 1):
            _write_episode(file.create_group(f"episode_{count - 1}"), count - 1, episode)
            steps += len(episode.action)
            obs_dim, action_dim = episode.obs.shape[1], episode.action.shape[1]
    metadata = {
        "total_episodes": count,
        "total_steps": steps,
        "data_format": "hdf5",
        "observation_space": _box(obs_dim, math.inf),
        "action_space": _box(action_dim, 1.0),
        "dataset_size": round((data / "main_data.hdf5").stat().st_size / 1e6, 1),
        "dataset_id": _dataset_id(target),
        "minari_version": VERSION,
        "description": f"Written by urlrl; environment '{info.env}', actions in [-1, 1]; made of {info.source}.",
        "urlrl_env": info.env,
        "urlrl_physics": info.physics,
    }
    (data / "metadata.json").write_text(json.dumps(metadata))


def _write_episode(group: Any, number: int, episode: Episode) -> None:
    steps = len(episode.action)
    group.attrs["id"], group.attrs["total_steps"] = number, steps
    truncated = np.zeros(steps, bool)
    truncated[-1] = not episode.terminated[-1]
    arrays: dict[str, np.ndarray] = {
        "observations": np.asarray(episode.obs, np.float32),
        "actions": np.asarray(episode.action, np.float32),
        "rewards": np.asarray(episode.reward, np.float64),
        "terminations": np.asarray(episode.terminated, bool),
        "truncations": truncated,
    }
    if episode.physics is not None:
        arrays["infos/physics"] = np.asarray(episode.physics, np.float64)
    for key, values in arrays.items():
        group.create_dataset(key, data=values, chunks=True, maxshape=(None, *values.shape[1:]))


def _box(size: int, bound: float) -> str:
    space = {"type": "Box", "dtype": "float32", "shape": [size], "low": [-bound] * size, "high": [bound] * size}
    return json.dumps(space)


def _dataset_id(target: Path) -> str:
    """What Minari would call a dataset in this folder."""
    target, home = target.resolve(), root().resolve()
    name = target.relative_to(home).as_posix() if target.is_relative_to(home) else target.name
    return name if ID.fullmatch(name) else re.sub(r"\W", "-", target.name) + "-v0"
