"""Checkpoints of one run, in step with what it records."""

import time

from urlrl.config import RunConfig
from urlrl.errors import UserError
from urlrl.training.log import Progress
from urlrl.training.loop import Loop
from urlrl.training.recorder import Record
from urlrl.training.run import RunFolder


class Saver:
    """Saves a loop and restores it. `saved_step` is -1 as long as there is no checkpoint."""

    def __init__(self, run: RunFolder, config: RunConfig, loop: Loop, record: Record):
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

    def restore(self, progress: Progress) -> None:
        """Continue from the newest checkpoint that is whole with its shards; those that are not are named and set
        aside. Files of an abandoned future are removed.

        Raises:
            UserError: no checkpoint is whole, or there is data without any checkpoint; nothing was touched.
        """
        checkpoints, failed = self.run.checkpoints, []
        for step in reversed(checkpoints.steps()):
            try:
                state, info = checkpoints.restore(step, self.loop.state())
                rows = self.record.read(info["shards"])
            except UserError as error:
                failed.append((step, str(error)))
                continue
            self.loop.restore(state, info["step"], rows)
            self.record.adopt(info["shards"])
            self.saved_step = info["step"]
            break
        if failed and self.saved_step < 0:
            reason = failed[0][1].rstrip(".")
            raise UserError(f"{reason}; no earlier checkpoint is whole: start again in a new folder.")
        if self.saved_step < 0:
            self.record.check_new()
        for step, reason in failed:
            progress.note(f"{reason} It was moved to {checkpoints.set_aside(step)}; the checkpoint before it is used.")
        checkpoints.clear_partial()
        self.record.prune(all_unreferenced=True)
