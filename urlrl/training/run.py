"""The folder of a run: who may write to it, what it is a run of, and its parts."""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from urlrl.config import RESUMABLE_FIELDS, RunConfig, flatten, run_config_from_json, to_json
from urlrl.errors import UserError, shown
from urlrl.files import read_json, write_atomically
from urlrl.loading import names_in
from urlrl.training.checkpoint import Checkpoints

FORMAT = "urlrl-run-1"
TUNED = "tuned.json"  # of a folder that holds what an adaptation left, see `urlrl.verbs.tuned`
START = {"versions": {str: str}, "command": str}
# What config.json holds; the agent's own settings are read by `run_config_from_json`.
SHAPE = {
    "format": FORMAT,
    "config": {"agent": dict, "agent_name": str, "env": str, "seed": int, "steps": int},
    **START,
    "continued": [{"from_step": int, **START}],
}


class RunFolder:
    """`config.json metrics.jsonl tensorboard/ checkpoints/ replay/ report/`."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.checkpoints = Checkpoints(self.path / "checkpoints")

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    def manifest(self) -> dict[str, Any]:
        """The content of config.json: {"format", "config", "versions", "command", "continued"}.

        Raises:
            UserError: not a run, or its config.json is damaged; the message names the key.
        """
        if (self.path / TUNED).exists():
            raise UserError(
                f"{self.path} holds what an adaptation left for one task: expected a run, or `urlrl evaluate` for it."
            )
        if not self.config_file.exists():
            raise UserError(f"{self.path} is not a run: it has no config.json.")
        return read_json(self.config_file, SHAPE)

    def check(self, config: RunConfig) -> None:
        """Raises UserError if the folder holds a run of another config, or something that is not a run. An option that
        did not exist when the run began is there with its default."""
        if self.config_file.exists():
            if self.checkpoints.steps():  # Otherwise there is nothing that another config could spoil.
                there, here = self.manifest()["config"], to_json(config)
                if set(names_in(there)) <= set(names_in(here)):  # A config may import what it names.
                    with suppress(UserError):  # Of another agent it says other things, which are told below.
                        there = to_json(run_config_from_json(there, type(config.agent)))
                self._check_same(there, here)
        elif self.path.exists() and any(not path.name.startswith(".") for path in self.path.iterdir()):
            raise UserError(f"{self.path} is not empty and holds no run: expected a new folder, or one of a run.")

    def claim(self, config: dict[str, Any], versions: dict[str, str], command: str, from_step: int | None) -> None:
        """Write config.json: what the run is and how it began, and each time it was continued; `from_step` is None
        where it begins."""
        start = {"versions": versions, "command": command}
        if from_step is None:
            manifest = {"format": FORMAT, "config": config, **start, "continued": []}
        else:
            before = self.manifest()
            config = {**config, "steps": max(config["steps"], before["config"]["steps"])}
            continued = [*before["continued"], {"from_step": from_step, **start}]
            manifest = {**before, "config": config, "continued": continued}
        write_atomically(self.config_file, json.dumps(manifest, indent=2).encode())

    def versions(self) -> dict[str, str]:
        """Of the packages, when the run was begun or last continued."""
        manifest = self.manifest()
        return [manifest, *manifest["continued"]][-1]["versions"]

    def _check_same(self, there: dict[str, Any], here: dict[str, Any]) -> None:
        old, new = flatten(there), flatten(here)
        for name in sorted(old.keys() | new.keys()):
            if name not in RESUMABLE_FIELDS and _plain(old.get(name)) != _plain(new.get(name)):
                was, now = (shown(repr(values.get(name))) for values in (old, new))
                raise UserError(
                    f"{self.path} holds another run: {name} is {was} there and {now} here; choose another --out, or "
                    f"{_option(name, old.get(name))} to continue that run."
                )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other processes; the lock goes with the process, also when it is killed. A folder
        that nothing else came into is removed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self.path / ".lock"
            file = open(lock, "w")  # noqa: SIM115 - closed below
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name.
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"Cannot write to {shown(self.path)}: {reason}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{self.path} is in use by another process that trains there.") from error
        else:
            try:
                yield
            finally:
                if os.listdir(self.path) == [lock.name]:
                    lock.unlink()
                    self.path.rmdir()
        finally:
            file.close()


def _option(name: str, value: Any) -> str:
    """How an option is given this value; where nothing can be typed, that it must be the same."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or name in ("agent_name", "data_id"):
        return "the same options"
    return f"--{name.replace('_', '-')} {shlex.quote(str(value))}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
