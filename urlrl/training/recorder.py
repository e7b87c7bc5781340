"""The shards that a run writes of its transitions, in step with its checkpoints."""

from typing import Protocol

from urlrl.config import PretrainConfig
from urlrl.data.rows import Fields, Rows
from urlrl.data.shards import Shard, ShardFolder
from urlrl.errors import UserError
from urlrl.training.run import RunFolder
from urlrl.types import DeviceEnv, HostEnv


class Record(Protocol):
    """What a checkpoint refers to beside itself. `shards` are the JSON of `Shard`s."""

    def due(self) -> bool: ...
    def write(self, saved_step: int) -> list[dict]: ...
    def read(self, shards: list[dict]) -> Rows | None: ...
    def adopt(self, shards: list[dict]) -> None: ...
    def check_new(self) -> None: ...
    def prune(self, *, all_unreferenced: bool) -> None: ...


class Ring(Protocol):
    """A replay whose rows can be read while they are in it."""

    @property
    def fields(self) -> Fields: ...
    @property
    def capacity(self) -> int: ...
    def __len__(self) -> int: ...
    def read(self, begin: int, end: int) -> Rows: ...


class Recorded(Protocol):
    """A loop that makes transitions."""

    @property
    def env(self) -> HostEnv | DeviceEnv: ...
    @property
    def replay(self) -> Ring: ...
    @property
    def step(self) -> int: ...


class NoRecord:
    """Of a run that makes no transitions."""

    def due(self) -> bool:
        return False

    def write(self, saved_step: int) -> list[dict]:
        del saved_step
        return []

    def read(self, shards: list[dict]) -> Rows | None:
        del shards
        return None

    def adopt(self, shards: list[dict]) -> None:
        pass

    def check_new(self) -> None:
        pass

    def prune(self, *, all_unreferenced: bool) -> None:
        pass


class Recorder:
    """Writes what is new of a loop's replay at each checkpoint, and reads back what the ring held."""

    def __init__(self, run: RunFolder, config: PretrainConfig, loop: Recorded):
        self.run, self.config, self.loop = run, config, loop
        self.folder = ShardFolder(run.path / "replay", loop.replay.fields, config.num_envs)
        self.shards: list[Shard] = []

    @property
    def flushed(self) -> int:
        """The global index up to which transitions are on disk."""
        return self.shards[-1].end if self.shards else 0

    def due(self) -> bool:
        """The ring would overwrite rows that are not on disk yet."""
        per_epoch = self.config.num_envs * self.config.rollout_steps
        return self.loop.step + per_epoch - self.flushed > self.loop.replay.capacity

    def write(self, saved_step: int) -> list[dict]:
        """Write what is new; returns all shards that a checkpoint now refers to.

        Raises:
            UserError: the disk cannot be written; what was saved before is whole.
        """
        try:
            self.shards.append(self.folder.write(self.flushed, self._new_rows()))
        except OSError as error:
            whole = f"the checkpoint of step {saved_step} is whole" if saved_step >= 0 else "nothing was saved yet"
            raise UserError(f"Cannot write to {self.folder.folder}: {error.strerror}; {whole}.") from error
        if self.config.keep_data == "window":
            oldest = self.loop.step - len(self.loop.replay)
            self.shards = [shard for shard in self.shards if shard.end > oldest]
        return [shard.to_json() for shard in self.shards]

    def read(self, shards: list[dict]) -> Rows:
        """The last rows of these shards, as many as the ring holds."""
        return self.folder.read_last(list(map(Shard.from_json, shards)), self.config.replay_capacity)

    def adopt(self, shards: list[dict]) -> None:
        """Go on from the checkpoint that refers to these."""
        self.shards = list(map(Shard.from_json, shards))

    def check_new(self) -> None:
        """Raises UserError if a run that has no checkpoint would begin on top of another's data."""
        if len(found := self.folder.files()) > 1:  # One is a run killed in its first save.
            raise UserError(
                f"{self.folder.folder} holds {len(found)} shards, but there is no checkpoint to continue from: "
                f"expected a new folder for a new run."
            )

    def prune(self, *, all_unreferenced: bool) -> None:
        """Remove shards that no checkpoint refers to: evicted ones, or all (those of an abandoned future too)."""
        if all_unreferenced or self.config.keep_data == "window":
            infos = self.run.checkpoints.infos()
            self.folder.keep_only([Shard.from_json(shard) for info in infos for shard in info["shards"]])

    def _new_rows(self) -> Rows:
        """What is not on disk yet. A resumed run of an environment that cannot save its state begins new episodes, so
        on disk those that are running end here."""
        rows = self.loop.replay.read(self.flushed, self.loop.step)
        if not self.loop.env.env_spec.exact_resume:
            rows["truncated"][-self.config.num_envs :] |= ~rows["terminated"][-self.config.num_envs :]
        return rows
