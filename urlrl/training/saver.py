"""Checkpoints of one run, in step with what it records."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from urlrl.config import RunConfig
from urlrl.errors import UserError
from urlrl.training.log import Progress, read_metrics
from urlrl.training.loop import Memory
from urlrl.training.recorder import Record
from urlrl.training.run import RunFolder

Key = TypeVar("Key")


class Saver:
    """Saves a loop and restores it. `saved_step` is -1 as long as there is no checkpoint."""

    def __init__(self, run: RunFolder, config: RunConfig, loop: Memory, record: Record):
        self.run, self.config, self.loop, self.record = run, config, loop, record
        self.saved_step = -1
        self.saved_at = time.monotonic()

    def due(self) -> bool:
        """Time for a checkpoint, or the record cannot wait."""
        late = time.monotonic() - self.saved_at >= 60 * self.config.checkpoint_minutes
        return bool(self._snapshots()) or late or self.record.due()

    def _snapshots(self) -> list[int]:
        """The requested snapshots that a checkpoint now would be."""
        return [step for step in self.config.snapshots if self.saved_step < step <= self.loop.step]

    def save(self) -> None:
        """Write what is new of the record, then the checkpoint that refers to it. Does nothing at a saved step.

        Raises:
            UserError: the disk cannot be written; what was saved before is whole.
        """
        loop = self.loop
        if loop.step == self.saved_step:
            return
        info = {"step": loop.step, "shards": self.record.write(self.saved_step), "snapshots": self._snapshots()}
        self.run.checkpoints.save(loop.step, loop.state(), info)
        self.saved_step, self.saved_at = loop.step, time.monotonic()
        self.record.prune(all_unreferenced=False)

    def load(self, step: int) -> tuple[dict[str, Any], dict[str, Any], Any]:
        """(state, info, rows) of a checkpoint. Raises UserError where it or a shard that it refers to is not whole."""
        state, info = self.run.checkpoints.restore(step, self.loop.state())
        return state, info, self.record.read(info["shards"])

    def adopt(self, state: dict[str, Any], info: dict[str, Any], rows: Any) -> None:
        """Go on from what `load` found."""
        self.loop.restore(state, info["step"], rows)
        self.record.adopt(info["shards"])
        self.saved_step = info["step"]


def common_steps(runs: Sequence[RunFolder]) -> list[int]:
    """The steps of which all of the runs have a checkpoint, ascending."""
    return sorted(set.intersection(*(set(run.checkpoints.steps()) for run in runs))) if runs else []


def restore(savers: Sequence[Saver], progress: Progress) -> None:
    """Continue a run, or several that go in step, from the newest checkpoint that is whole in all of them with its
    shards; those that are not are named and set aside. Files of an abandoned future are removed.

    Raises:
        UserError: no checkpoint is whole, or there is data without any checkpoint; nothing was touched.
    """
    failed: list[tuple[Saver, int, str]] = []
    for step in reversed(common_steps([saver.run for saver in savers])):
        loaded = []
        for saver in savers:
            try:
                loaded.append((saver, saver.load(step)))
            except UserError as error:
                failed.append((saver, step, str(error)))
        if len(loaded) == len(savers):
            for saver, found in loaded:
                saver.adopt(*found)
            break
    resumed = savers[0].saved_step
    if failed and resumed < 0:
        reason = failed[0][2].rstrip(".")
        raise UserError(f"{reason}; no earlier checkpoint can be used instead.")
    if resumed < 0:
        for saver in savers:
            saver.record.check_new()
    for saver, step, reason in failed:
        aside = saver.run.checkpoints.set_aside(step)
        progress.note(f"{reason} It was moved to {aside}; the checkpoint before it is used.")
    for saver in savers:
        saver.run.checkpoints.drop_after(resumed)
        saver.run.checkpoints.clear_partial()
        saver.record.prune(all_unreferenced=True)


def in_step(runs: Mapping[Key, RunFolder]) -> list[list[Key]]:
    """Which runs can advance together, those that are furthest first. Runs that were killed while one after another was
    saved differ in their newest checkpoint alone, and all have logged its step."""
    newest = {key: max(run.checkpoints.steps(), default=-1) for key, run in runs.items()}
    groups, left = [], list(runs)
    while left:
        ahead = max(newest[key] for key in left)
        group = [key for key in left if newest[key] == ahead or _logged(runs[key]) >= ahead]
        groups.append(group)
        left = [key for key in left if key not in group]
    return groups


def _logged(run: RunFolder) -> int:
    """The last step of the record."""
    rows = read_metrics(run.path / "metrics.jsonl")
    return rows[-1]["step"] if rows else -1
