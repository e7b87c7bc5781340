"""Datasets: made of what other libraries and runs wrote, looked at, checked, labelled with a task, handed on."""

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from urlrl.data import sources
from urlrl.data import validate as checks
from urlrl.data.dataset import Dataset, Episode, write_dataset
from urlrl.data.exorl import write_exorl
from urlrl.data.minari import write_minari
from urlrl.data.reading import Found, Source
from urlrl.data.recorded import read_run
from urlrl.data.shards import Shard
from urlrl.data.summary import summarise
from urlrl.data.validate import Check
from urlrl.envs import make_env
from urlrl.errors import UserError, check, check_choice, shown
from urlrl.files import new_folder, write_atomically
from urlrl.loading import check_names, is_trusted
from urlrl.tasks.catalogue import TASKS, find_task
from urlrl.tasks.task import Moment, Task, rewards, runs_on
from urlrl.training.meter import metered
from urlrl.training.run import RunFolder
from urlrl.types import EnvSpec

AUTO = "auto"
EXPORTS = ("exorl", "minari")
CHUNK = 65536  # rows that are labelled together


def open_source(
    paths: Sequence[Path | str] | Path | str,
    *,
    env: str | None = None,
    format: str = AUTO,
    observation: Sequence[str] = (),
    action_scale: float = 1.0,
    clip_actions: bool = False,
    skip_bad: bool = False,
) -> Source:
    """Data of any known format, to be read once; of several paths, one after the other.

    Args:
        env: what `make_env` calls the environment that the observations are of; None takes what the source says.
        format: one of `urlrl.data.sources.FORMATS`, or "auto".
        observation: the parts that are joined, of Minari's observations that are a Dict, or LeRobot's features.
        action_scale: what actions are divided by.
        clip_actions: clip those that are beyond [-1, 1] then, instead of refusing them.
        skip_bad: leave out episodes, and paths, that cannot be read or do not fit. What of a file is damaged so that it
            cannot be told where the next episode begins is refused all the same.

    Raises:
        UserError: no such data, or it does not fit the environment, or the other sources.
    """
    check("action_scale", action_scale, 0, open_low=True)
    opened, found = [], Found()
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not paths:
        raise UserError("paths is empty: expected at least one.")
    for path in paths:
        try:
            source = _open(Path(path), env, format, observation)
        except UserError as error:
            if not skip_bad:
                raise
            found.left_out.append(str(error))
        else:
            opened.append(sources.bounded(source, action_scale, clip_actions, found))
    if not opened:
        raise UserError(found.left_out[0])
    joined = sources.joined(opened)
    return replace(joined, episodes=sources.sound(joined.episodes, found) if skip_bad else joined.episodes, found=found)


def _open(path: Path, env: str | None, format: str, observation: Sequence[str]) -> Source:
    check_choice("format", format, (AUTO, *sources.FORMATS))
    format = sources.detect(path) if format == AUTO else format
    if observation and format not in sources.JOINING:
        raise UserError(
            f"{path} has observations without parts: expected --observation with Minari's or LeRobot's data alone."
        )
    if len(set(observation)) < len(observation):
        raise UserError(f"--observation is {shown(','.join(observation))}: expected each part once.")
    if format == "run":
        return _open_run(path, env)
    name = sources.GUESSES[format](path) if env is None else env
    spec, note = _spec(name, given=env is not None)
    parts = {"observation": observation} if observation else {}
    source = sources.fitted(sources.READERS[format](path, name, spec, **parts), spec)
    return replace(source, notes=(*source.notes, note)) if note else source


def convert(
    paths: Sequence[Path | str] | Path | str,
    out: Path | str,
    *,
    max_transitions: int | None = None,
    quiet: bool = False,
    **reading: Any,
) -> Dataset:
    """Make a dataset of one or more sources, one after the other; it is whole or not there.

    Args:
        max_transitions: take only the first so many.
        reading: the options of `open_source`, the same for all.

    Raises:
        UserError: `out` is there already, a source cannot be read, or they do not fit each other.
    """
    if max_transitions is not None:
        check("max_transitions", max_transitions, 1)
    _refuse_existing(Path(out))
    source = open_source(paths, **reading)
    if max_transitions is not None:
        source = sources.limited(source, max_transitions)
    with metered("Converting", source.transitions, quiet) as meter:
        for note in source.notes:
            meter.note(note)
        dataset = write_dataset(out, source.info, meter.passing(source.episodes))
        for note in source.found.sentences():
            meter.note(note)
    return dataset


def info(
    path: Path | str, *, env: str | None = None, format: str = AUTO, observation: Sequence[str] = ()
) -> dict[str, Any]:
    """What is in a dataset, or in anything that can be made one: `urlrl.data.summary.summarise`, and {"env", "source",
    "physics", "notes", "id": None where it is no dataset yet}."""
    source = open_source(path, env=env, format=format, observation=observation)
    found = summarise(source.episodes)
    dataset = _dataset(path, format)
    return {
        "env": source.info.env,
        "source": dataset.info.source if dataset is not None else source.info.source,
        **found,
        "physics": [list(part) for part in source.info.physics],
        "notes": [*source.notes, *source.found.sentences()],
        "id": dataset.id if dataset is not None else None,
    }


def running_checks(
    path: Path | str,
    *,
    env: str | None = None,
    format: str = AUTO,
    observation: Sequence[str] = (),
    seed: int = 0,
) -> Iterator[Check]:
    """`validate`, as the checks are made."""
    try:
        source = open_source(path, env=env, format=format, observation=observation)
        dataset = _dataset(path, format)
    except UserError as error:
        yield Check("opening", False, str(error).rstrip("."))
        return
    for note in source.notes:
        yield Check("note", None, note.rstrip("."))
    if dataset is not None:
        found = [one(dataset) for one in checks.DATASET_CHECKS]
        yield from found
        if not all(one.ok for one in found):
            return
        sample, course = dataset.rows(dataset.pick(checks.SAMPLE, seed)), checks.Course()
        for begin, end in pairwise(dataset.starts):
            course.see(dataset.columns["obs"][begin:end])
    else:
        read, rows, course = checks.check_source(source, seed)
        yield read
        if rows is None:
            return
        for note in source.found.sentences():
            yield Check("note", None, note.rstrip("."))
        sample = rows
    spec, _ = _spec(source.info.env, given=False)
    yield course.check_jumps()
    yield course.check_limit(spec.episode_steps if spec else None, source.info.env)
    if source.info.obs_is_physics:
        sample |= {"physics": sample["obs"].astype(np.float64), "next_physics": sample["next_obs"].astype(np.float64)}
    yield from _check_simulated(source, sample)


def _dataset(path: Path | str, format: str) -> Dataset | None:
    """What is a dataset already, and is read as one."""
    return Dataset(path) if (Path(path) / "dataset.json").is_file() and format in (AUTO, "urlrl") else None


def validate(path: Path | str, **options: Any) -> list[Check]:
    """Hashes, numbers, jumps, and whether observations and rewards are those of the stored physics, on a sample. What
    fails is said, not raised. Options are those of `running_checks`."""
    return list(running_checks(path, **options))


def _check_simulated(source: Source, sample: dict[str, np.ndarray]) -> Iterator[Check]:
    name = source.info.env
    spec, _ = _spec(name, given=False)
    itself = source.info.obs_is_physics
    if "physics" not in sample or spec is None:
        what = "the data has no physics" if "physics" not in sample else "its environment cannot be made here"
        yield Check("observations", None, what)
        yield Check("rewards", None, what)
        return
    from urlrl.data.simulated import simulated

    with closing(make_env(name, 1)) as env:
        beside = simulated(env)
        if beside is None or itself:
            why = "they are the physics, so there is nothing to compare them with"
            yield Check("observations", None, why if itself else "its simulator cannot be set to a state")
        else:
            yield checks.check_observations(sample, beside)
        rewards = {} if beside is None or beside.reward is None else {f"'{name}'": beside.reward}
        tasks = [task for task in (make() for make in TASKS.values()) if task.reward and runs_on(task, name)]
        rewards |= {task.name: task.reward for task in tasks if task.reward}
        expected = bool(beside and beside.reward) or any(task.env == name for task in tasks)
        yield checks.check_rewards(sample, rewards, expected)


def relabel(dataset: Path | str, task: str, out: Path | str | None = None, *, quiet: bool = False) -> dict[str, Any]:
    """Write a task's reward of every transition as float32, one number per row of the dataset (0 in an episode's last).

    Args:
        task: one of `urlrl.tasks.TASKS`, or a user's `module:object`.
        out: a .npy file; None is `<dataset>/rewards/<task>.npy`.

    Returns:
        {"task", "file", "transitions", "seconds", "best", "mean"}: the return of the best episode, and the mean.

    Raises:
        UserError: not a dataset, no such task, one that does not fit the dataset, or the file is there already.
    """
    data, found = Dataset(dataset).verify(), find_task(task)
    check_task(data, found)
    file = data.folder / "rewards" / f"{task.replace(':', '.')}.npy" if out is None else Path(out)
    if file.suffix != ".npy":
        raise UserError(f"Cannot write {file}: it has the suffix '{file.suffix}': expected .npy.")
    _refuse_existing(file)
    start = time.perf_counter()
    size = 8 * sum(width for _, width in data.info.physics) + 4 * data.info.action_dim  # bytes that are read per row
    with metered(f"Labelling with {task}", len(data), quiet) as meter:
        rewards = np.zeros(data.info.rows, np.float32)
        for rows in _chunks(data):
            rewards[rows] = relabel_rows(data, found, rows)
            meter.add(len(rows), len(rows) * size)
    returns = _returns(data, rewards)
    buffer = io.BytesIO()
    np.save(buffer, rewards)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())
    return {
        "task": task,
        "file": str(file),
        "transitions": len(data),
        "seconds": time.perf_counter() - start,
        "best": float(returns.max()),
        "mean": float(returns.mean()),
    }


def check_task(dataset: Dataset, task: Task) -> None:
    """Refuse a task whose rewards a dataset's physics cannot say.

    Raises:
        UserError: the dataset is of another environment or has no physics, or the task is more than a reward of it.
    """
    about = dataset.info
    if not runs_on(task, about.env):
        raise UserError(
            f"Task '{task.name}' is of {' or '.join(task.runs_on)}: {dataset.folder} is of "
            f"{repr(about.env) if about.env else 'no known environment'}."
        )
    if task.reward is None and task.draw(np.random.default_rng(0)).size:
        raise UserError(f"Task '{task.name}' draws a goal in each episode: expected one whose reward says all.")
    if not about.physics:
        raise UserError(f"{dataset.folder} has no physics: expected it, to compute rewards of task '{task.name}' from.")
    check_names({"env": about.env}, dataset.folder / "dataset.json")
    spec, _ = _spec(about.env, given=True)
    width = sum(size for _, size in about.physics)
    if spec is None or width != spec.physics_dim:
        raise UserError(
            f"{dataset.folder} has {width} numbers of physics per row: expected "
            f"{spec.physics_dim if spec else 'those'} of environment '{about.env}'."
        )


def relabel_rows(dataset: Dataset, task: Task | str, rows: np.ndarray) -> np.ndarray:
    """The task's reward of the transitions that begin in these rows, (n,): that of the state that was reached and of
    the action that led there. See `check_task` for what it can be asked for."""
    task = find_task(task) if isinstance(task, str) else task
    physics, action = dataset.physics(rows + 1), dataset.columns["action"][rows].astype(np.float64)
    before = physics if type(task).score is Task.score else dataset.physics(rows)
    clock = rows - dataset.starts[np.searchsorted(dataset.starts, rows, side="right") - 1] + 1
    return rewards(task, Moment(before, action, physics, np.zeros((len(rows), 0)), clock))


def best_returns(dataset: Dataset, task: Task | str) -> np.ndarray:
    """What each of the dataset's own episodes returns under a task, (episodes,); their greatest is what a score stands
    beside.

    Raises:
        UserError: see `check_task`.
    """
    task = find_task(task) if isinstance(task, str) else task
    check_task(dataset, task)
    rewards = np.zeros(dataset.info.rows)
    for rows in _chunks(dataset):
        rewards[rows] = relabel_rows(dataset, task, rows)
    return _returns(dataset, rewards)


def _chunks(dataset: Dataset) -> Iterator[np.ndarray]:
    """The rows in which transitions begin, some at a time."""
    for begin in range(0, len(dataset), CHUNK):
        yield dataset.transition_rows(np.arange(begin, min(begin + CHUNK, len(dataset))))


def _returns(dataset: Dataset, rewards: np.ndarray) -> np.ndarray:
    return np.add.reduceat(rewards.astype(np.float64), dataset.starts[:-1])


def export_data(path: Path | str, out: Path | str, format: str, *, env: str | None = None, quiet: bool = False) -> Path:
    """Write a dataset, or anything that can be made one, as "exorl" or "minari"; returns the folder, which is whole or
    not there.

    Raises:
        UserError: `out` is there already, or the data cannot be read.
    """
    check_choice("format", format, EXPORTS)
    out = Path(out)
    _refuse_existing(out)
    source = open_source(path, env=env)
    with new_folder(out) as part, metered("Writing", source.transitions, quiet) as meter:
        episodes = _with_physics(source, meter.passing(source.episodes))
        if format == "exorl":
            write_exorl(part, episodes)
        else:
            write_minari(part, out, source.info, episodes)
    return out


def _with_physics(source: Source, episodes: Iterator[Episode]) -> Iterator[Episode]:
    """Other formats keep physics apart from observations that are the same."""
    for episode in episodes:
        yield episode._replace(physics=episode.obs.astype(np.float64)) if source.info.obs_is_physics else episode


def _open_run(path: Path, env: str | None) -> Source:
    folder = RunFolder(path)
    config = folder.manifest()["config"]
    try:
        name, episode_steps, root = (config[key] for key in ("env", "episode_steps", "root_position"))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path / 'config.json'} has no {error} in its config: expected a pretraining run's."
        ) from error
    if name != env:
        check_names({"env": name}, folder.config_file)
    with closing(make_env(name, 1, episode_steps=episode_steps, root_position=root)) as made:
        spec = made.env_spec
    shards = [Shard.from_json(shard) for info in folder.checkpoints.infos() for shard in info["shards"]]
    hashes = {shard.file: shard.sha256 for shard in shards}
    source = read_run(path, name if env is None else env, spec, len(spec.position) if root else 0, hashes)
    return source if env is None else sources.fitted(source, _spec(env, given=True)[0])


def _spec(name: str, *, given: bool) -> tuple[EnvSpec | None, str]:
    """What an environment says of itself, or a sentence that says why that is not known.

    Raises:
        UserError: it was `given` by the user, and cannot be made.
    """
    if not name:
        return None, ""
    if not given and not is_trusted(name):
        return None, f"Environment '{name}' is made only if --env {name} says so: sizes were not compared with it."
    try:
        return _make_spec(name), ""
    except UserError as error:
        if given:
            raise
        return None, f"Sizes were not compared with the environment: {str(error).rstrip('.')}."


@cache
def _make_spec(name: str) -> EnvSpec:
    with closing(make_env(name, 1)) as env:
        return env.env_spec


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} is there already: expected a new name.")
