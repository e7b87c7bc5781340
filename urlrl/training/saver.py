"""Checkpoints and replay shards of one run, kept in step with each other."""

import time

from urlrl.config import PretrainConfig
from urlrl.data.replay import Rows
from urlrl.data.shards import Shard, ShardFolder
from urlrl.errors import UserError
from urlrl.training.host import Host
from urlrl.training.log import Progress
from urlrl.training.run import RunFolder


class Saver:
    """Saves a loop and restores it. `saved_step` is -1 as long as there is no checkpoint."""

    def __init__(self, run: RunFolder, config: PretrainConfig, loop: Host):
        self.run, self.config, self.loop = run, config, loop
        self.folder = ShardFolder(run.path / "replay", loop.replay.fields, config.num_envs)
        self.shards: list[Shard] = []
        self.saved_step = -1
        self.saved_at = time.monotonic()

    @property
    def flushed(self) -> int:
        """The global index up to which transitions are on disk."""
        return self.shards[-1].end if self.shards else 0

    def due(self) -> bool:
        """Time for a checkpoint, or the ring would overwrite rows that are not on disk yet."""
        if self._snapshots():
            return True
        per_epoch = self.config.num_envs * self.config.rollout_steps
        late = time.monotonic() - self.saved_at >= 60 * self.config.checkpoint_minutes
        return late or self.loop.step + per_epoch - self.flushed > self.loop.replay.capacity

    def _snapshots(self) -> list[int]:
        """The requested snapshots that a checkpoint now would be."""
        return [step for step in self.config.snapshots if self.saved_step < step <= self.loop.step]

    def save(self) -> None:
        """Write what is new of the replay, then the checkpoint that refers to it. Does nothing at a saved step.

        Raises:
            UserError: the disk cannot be written; what was saved before is whole.
        """
        loop = self.loop
        if loop.step == self.saved_step:
            return
        try:
            self.shards.append(self.folder.write(self.flushed, self._new_rows()))
        except OSError as error:
            raise UserError(f"Cannot write to {self.folder.folder}: {error.strerror}; {self._whole()}.") from error
        if self.config.keep_data == "window":
            oldest = loop.step - len(loop.replay)
            self.shards = [shard for shard in self.shards if shard.end > oldest]
        shards = [shard.to_json() for shard in self.shards]
        info = {"step": loop.step, "shards": shards, "snapshots": self._snapshots()}
        self.run.checkpoints.save(loop.step, loop.state(), info)
        self.saved_step, self.saved_at = loop.step, time.monotonic()
        if self.config.keep_data == "window":
            self.folder.keep_only(self._referenced())

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
                shards = [Shard(**shard) for shard in info["shards"]]
                rows = self.folder.read_last(shards, self.config.replay_capacity)
            except UserError as error:
                failed.append((step, str(error)))
                continue
            self.loop.restore(state, info["step"], rows)
            self.shards, self.saved_step = shards, info["step"]
            break
        if failed and self.saved_step < 0:
            reason = failed[0][1].rstrip(".")
            raise UserError(f"{reason}; no earlier checkpoint is whole: start again in a new folder.")
        if self.saved_step < 0 and len(found := self.folder.files()) > 1:  # One is a run killed in its first save.
            raise UserError(
                f"{self.folder.folder} holds {len(found)} shards, but there is no checkpoint to continue from: "
                f"expected a new folder for a new run."
            )
        for step, reason in failed:
            progress.note(f"{reason} It was moved to {checkpoints.set_aside(step)}; the checkpoint before it is used.")
        checkpoints.clear_partial()
        self.folder.keep_only(self._referenced())

    def _new_rows(self) -> Rows:
        """What is not on disk yet. A resumed run of an environment that cannot save its state begins new episodes, so
        on disk those that are running end here."""
        rows = self.loop.replay.read(self.flushed, self.loop.step)
        if not self.loop.env.env_spec.exact_resume:
            rows["truncated"][-self.config.num_envs :] |= ~rows["terminated"][-self.config.num_envs :]
        return rows

    def _referenced(self) -> list[Shard]:
        return [Shard(**shard) for info in self.run.checkpoints.infos() for shard in info["shards"]]

    def _whole(self) -> str:
        return f"the checkpoint of step {self.saved_step} is whole" if self.saved_step >= 0 else "nothing was saved yet"
