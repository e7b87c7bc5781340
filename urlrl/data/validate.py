"""Checks of data: each says what was looked at, whether it holds, and where it does not.

What takes a simulator to know comes in as functions of physics and actions.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from urlrl.data.dataset import ACTION_TOLERANCE, Dataset, Episode
from urlrl.data.reading import Source
from urlrl.data.rows import Rows
from urlrl.errors import UserError
from urlrl.files import sha256

CHUNK = 65536  # rows that are looked at together
SAMPLE = 256  # transitions that are compared with a simulator
TOLERANCE = 1e-4  # relative and absolute: what is stored as float32, by another version of a simulator
SHORTEST = 20  # steps of an episode in which jumps are looked for
JUMP = 10  # times what nine of ten steps change: a step that does not belong to the episode
PER_EPISODE = 4  # transitions of one episode in a sample of a stream

Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # physics (n, physics), action (n, act) -> (n,)


@dataclass(frozen=True)
class Check:
    """`ok` is None where there was nothing to check, and `detail` says why."""

    name: str
    ok: bool | None
    detail: str


class Simulated(NamedTuple):
    """What an environment says of physics rows."""

    env: str
    observe: Callable[[np.ndarray], np.ndarray]  # (n, physics) -> (n, obs)
    shown: np.ndarray  # (obs,), bool: the entries that are a function of the physics row
    reward: Reward | None  # the environment's own, where that is a function of physics and action


# A dataset of this library.


def check_files(dataset: Dataset) -> Check:
    """Whether every file is the one that was written."""
    size = 0
    for name in (*dataset.columns, "starts"):
        path = dataset.folder / f"{name}.npy"
        size += path.stat().st_size
        if sha256(path) != dataset.info.sha256.get(name):
            return Check("hashes", False, f"{path.name} is not the file that was written: its SHA-256 differs")
    return Check("hashes", True, f"{len(dataset.columns) + 1} files, {size / 1e6:,.1f} MB")


def check_finite(dataset: Dataset) -> Check:
    names = [name for name, values in dataset.columns.items() if values.dtype.kind == "f"]
    for name in names:
        for begin, rows in _chunks(dataset.columns[name]):
            if not np.isfinite(rows).all():
                bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
                return Check(
                    "finite", False, f"{name}.npy is not finite in {_place(dataset, begin + int(np.argmax(bad)))}"
                )
    return Check("finite", True, ", ".join(names))


def check_actions(dataset: Dataset) -> Check:
    least, greatest = np.inf, -np.inf
    for begin, rows in _chunks(dataset.columns["action"]):
        beyond = ~(np.abs(rows) <= 1 + ACTION_TOLERANCE).all(axis=1)
        if beyond.any():
            return Check(
                "actions", False, f"action.npy leaves [-1, 1] in {_place(dataset, begin + int(np.argmax(beyond)))}"
            )
        least, greatest = min(least, rows.min()), max(greatest, rows.max())
    return Check("actions", True, f"in [{least:.4g}, {greatest:.4g}]")


def check_last_rows(dataset: Dataset) -> Check:
    """Whether the last row of each episode, whose action nobody took, is zero."""
    last = dataset.starts[1:] - 1
    for name in ("action", "reward", "terminated"):
        taken = dataset.columns[name][last].reshape(len(last), -1).any(axis=1)
        if taken.any():
            place = _place(dataset, last[int(np.argmax(taken))])
            return Check("last rows", False, f"{name}.npy is not zero in {place}, an episode's last: expected zero")
    return Check("last rows", True, f"zero in {len(last):,} episodes")


DATASET_CHECKS: tuple[Callable[[Dataset], Check], ...] = (check_files, check_finite, check_actions, check_last_rows)


def _chunks(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for begin in range(0, len(values), CHUNK):
        yield begin, values[begin : begin + CHUNK]


def _place(dataset: Dataset, row: int) -> str:
    episode = int(np.searchsorted(dataset.starts, row, side="right")) - 1
    return f"row {row:,} (episode {episode:,}, step {row - dataset.starts[episode]:,})"


# Any source.


def check_source(source: Source, seed: int) -> tuple[Check, Rows | None, "Course"]:
    """Read all of a source, whose reader refuses what is wrong; returns also a sample of transitions, and the course of
    the episodes."""
    rng, reservoir, course = np.random.default_rng(seed), list[Rows](), Course()
    steps = number = 0
    try:
        for number, episode in enumerate(source.episodes, 1):
            steps += len(episode.action)
            course.see(episode.obs)
            slot = number - 1 if number <= SAMPLE // PER_EPISODE else int(rng.integers(number))
            if slot < SAMPLE // PER_EPISODE:
                reservoir[slot : slot + 1] = [_some(episode, rng)]
    except UserError as error:
        return Check("reading", False, str(error).rstrip(".")), None, course
    if not reservoir:
        return Check("reading", False, f"{source.info.source} holds no episodes"), None, course
    sample = {name: np.concatenate([part[name] for part in reservoir]) for name in reservoir[0]}
    detail = f"{steps:,} transitions in {number:,} episodes: finite, actions in [-1, 1], lengths that fit"
    return Check("reading", True, detail), sample, course


def _some(episode: Episode, rng: np.random.Generator) -> Rows:
    at = np.sort(rng.choice(len(episode.action), min(PER_EPISODE, len(episode.action)), replace=False))
    obs = episode.obs
    rows = {"obs": obs[at], "next_obs": obs[at + 1], "action": episode.action[at], "reward": episode.reward[at]}
    if episode.physics is not None:
        rows |= {"physics": episode.physics[at], "next_physics": episode.physics[at + 1]}
    return rows


class Course:
    """How episodes go on, watched as they pass: whether one jumps, and how long the longest is."""

    def __init__(self) -> None:
        self.jumps: list[str] = []
        self.episodes = self.watched = self.longest = 0

    def see(self, obs: np.ndarray) -> None:
        """The observations (T + 1, obs) of the next episode."""
        self.longest = max(self.longest, len(obs) - 1)
        self.watched += len(obs) > SHORTEST
        self.jumps += [f"step {step:,} of episode {self.episodes:,}" for step in find_jumps(obs)]
        self.episodes += 1

    def check_jumps(self) -> Check:
        """Whether no episode begins anew: a reset that no flag marks makes a transition that there never was."""
        if self.jumps:
            more = f", and in {len(self.jumps) - 1:,} other steps" if len(self.jumps) > 1 else ""
            what = f"all begins anew in {self.jumps[0]}{more}: expected the end of an episode there"
            return Check("jumps", False, what)
        if not self.watched:
            return Check(
                "jumps", None, f"no episode has {SHORTEST} steps, so it is not known how far they usually move"
            )
        return Check("jumps", True, f"none in {self.watched:,} episodes of {SHORTEST} steps or more")

    def check_limit(self, limit: int | None, env: str) -> Check:
        """Whether no episode is longer than the environment's own, which may have been recorded with another limit."""
        if limit is None:
            return Check("time limit", None, "its environment's is not known")
        if self.longest > limit:
            why = "resets may be unmarked, or it was recorded with another limit"
            what = f"an episode has {self.longest:,} steps, and '{env}' ends after {limit:,}: {why}"
            return Check("time limit", None, what)
        return Check("time limit", True, f"{self.longest:,} steps at most, and '{env}' ends after {limit:,}")


def find_jumps(obs: np.ndarray) -> list[int]:
    """The steps of an episode, of observations (T + 1, obs), in which it seems to begin anew.

    Of the numbers in an observation, those are looked at that change in most steps. Either two thirds of them change at
    once, by half a standard deviation and by far more than usually and than in the steps before and after (a contact
    changes speeds alone); or the episode is back at its first observation from afar.
    """
    if len(obs) <= SHORTEST:
        return []
    varying = obs[:, (obs != obs[0]).any(axis=0)].astype(np.float64)
    moving = varying[:, (np.diff(varying, axis=0) != 0).mean(axis=0) > 0.5]
    if 2 * moving.shape[1] <= varying.shape[1]:
        return []
    moving /= moving.std(axis=0)
    change = np.abs(np.diff(moving, axis=0))
    beside = np.maximum(np.pad(change, ((1, 0), (0, 0)))[:-1], np.pad(change, ((0, 1), (0, 0)))[1:])
    leaps = (change > np.maximum(JUMP * np.quantile(change, 0.9, axis=0), 3 * beside)) & (change > 0.5)
    away = np.sqrt(np.mean(np.square(moving - moving[0]), axis=1))
    usual = np.quantile(np.abs(np.diff(away)), 0.97)
    afar = np.minimum(away[:-1], np.append(0, away[:-2]))  # for two states
    returns = (afar > max(0.5, 3 * usual)) & (away[1:] < afar / 8)
    return np.flatnonzero((leaps.mean(axis=1) > 2 / 3) | returns).tolist()


# A sample of transitions, beside a simulator.


def check_observations(sample: Rows, simulated: Simulated) -> Check:
    """Whether stored observations are those of the stored physics, in the entries that it determines."""
    shown = np.flatnonzero(simulated.shown)
    for when, name in (("physics", "obs"), ("next_physics", "next_obs")):
        expected = simulated.observe(sample[when])[:, shown]
        found = sample[name][:, shown]
        off = np.abs(found - expected) > TOLERANCE * (1 + np.abs(expected))
        if off.any():
            row, entry = np.argwhere(off)[0]
            return Check(
                "observations", False,
                f"entry {shown[entry]} of {name} is {found[row, entry]:.6g} where '{simulated.env}' shows "
                f"{expected[row, entry]:.6g} of the stored physics ({off.any(axis=1).sum()} of {len(off)} transitions)",
            )  # fmt: skip
    left = len(simulated.shown) - len(shown)
    detail = f"those of the stored physics in {len(sample['obs'])} transitions"
    return Check(
        "observations", True, detail + (f"; {left} entries that it does not determine left out" if left else "")
    )


def check_rewards(sample: Rows, rewards: Mapping[str, Reward], expected: bool) -> Check:
    """Whether stored rewards are those of one of these, of the state that was reached and the action that led there.

    Args:
        rewards: by the name of the task.
        expected: one of them should be.
    """
    stored = sample["reward"]
    if not stored.any():
        return Check("rewards", None, "all are zero in the sample")
    action, reached = sample["action"].astype(np.float64), sample["next_physics"]
    worst = {}
    for name, reward in rewards.items():
        computed = reward(reached, action)
        off = np.abs(stored - computed) > TOLERANCE * (1 + np.abs(computed))
        if not off.any():
            return Check("rewards", True, f"those of {name} in {len(stored)} transitions")
        worst[name] = (int(off.sum()), int(np.argmax(off)), computed)
    if not worst or not expected:
        return Check("rewards", None, "no known task gives the environment's own reward")
    name = min(worst, key=lambda name: worst[name][0])
    count, row, computed = worst[name]
    return Check(
        "rewards", False,
        f"{count} of {len(stored)} differ from those of {name}, the nearest of {', '.join(rewards)}: {stored[row]:.6g} "
        f"is stored where it gives {computed[row]:.6g}",
    )  # fmt: skip
