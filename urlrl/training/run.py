"""The folder of a run: who may write to it, what it is a run of, and its parts."""

import fcntl
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from urlrl.config import CHANGEABLE, RESUMABLE_FIELDS, RunConfig, changed, flatten, run_config_from_json, to_json
from urlrl.errors import InUse, UserError, shown
from urlrl.files import check_shape, read_json, write_json
from urlrl.loading import names_in
from urlrl.renamed import name_now, renewed
from urlrl.training.checkpoint import Checkpoints

NONE: Mapping[str, Any] = MappingProxyType({})
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
        manifest = read_json(self.config_file, SHAPE)
        for entry in manifest["continued"]:
            entry.setdefault("changed", {})  # 0.1.0 could change none.
        try:
            check_shape(manifest["continued"], [{"changed": {str: list}}], "continued")
        except ValueError as error:
            raise UserError(f"{self.config_file} cannot be read: {error}.") from error
        return manifest

    def check(self, config: RunConfig, settings: Mapping[str, Any] = NONE) -> RunConfig:
        """The config by which the run goes on: `config`, with the `settings` that are to change, and those that were
        changed before as they are now. An option that did not exist when the run began is there with its default.

        Raises:
            UserError: the folder holds a run of another config, or something that is not a run; or a setting cannot
                change.
        """
        holds = [path for path in self.path.glob("*") if not path.name.startswith(".")]
        if holds and not self.config_file.exists():
            raise UserError(f"{self.path} is not empty and holds no run: expected a new folder, or one of a run.")
        if not self.checkpoints.steps():  # There is nothing that another config could spoil.
            if settings:
                raise UserError(
                    f"{self.path} has no checkpoint to continue with other settings: expected --continue-with of a run "
                    f"that has one; a new run takes them as options."
                )
            return config
        for name in settings:
            if not name.startswith(CHANGEABLE) and name in flatten(to_json(config)):
                allowed = ", ".join(f"{name}*" if name.endswith(".") else name for name in CHANGEABLE)
                raise UserError(f"{name} cannot change when a run is continued: expected one of {allowed}.")
        manifest = self.manifest()
        there, here, had = manifest["config"], to_json(config), _values_had(manifest)
        if set(names_in(there)) <= set(names_in(here)):  # A config may import what it names.
            with suppress(UserError):  # Of another agent it says other things, which are told below.
                there = to_json(run_config_from_json(there, type(config.agent)))
        self._check_same(there, here, had)
        now = flatten(there)
        return changed(config, {name: now[name] for name in had if name in now} | dict(settings))

    def claim(
        self,
        config: dict[str, Any],
        versions: dict[str, str],
        command: str,
        from_step: int | None,
        settings: Mapping[str, Any] = NONE,
    ) -> None:
        """Write config.json: what the run is and how it began, and each time it was continued, with those of the
        `settings` that changed then, as [before, after]; `from_step` is None where it begins."""
        start = {"versions": versions, "command": command}
        if from_step is None:
            manifest = {"format": FORMAT, "config": config, **start, "continued": []}
        else:
            before = self.manifest()
            config = {**config, "steps": max(config["steps"], before["config"]["steps"])}
            was, now = flatten(renewed(before["config"])), flatten(config)
            others = {name: [was.get(name), now[name]] for name in settings if was.get(name) != now[name]}
            entry = {"from_step": from_step, **start, "changed": others}
            continued = [*before["continued"], entry]
            manifest = {**before, "config": config, "continued": continued}
        write_json(manifest, self.config_file, indent=2)

    def versions(self) -> dict[str, str]:
        """Of the packages, when the run was begun or last continued."""
        manifest = self.manifest()
        return [manifest, *manifest["continued"]][-1]["versions"]

    def _check_same(self, there: dict[str, Any], here: dict[str, Any], had: dict[str, list[Any]]) -> None:
        old, new = flatten(there), flatten(here)
        for name in sorted(old.keys() | new.keys()):
            if name not in RESUMABLE_FIELDS and _plain(new.get(name)) not in [
                _plain(old.get(name)),
                *had.get(name, ()),
            ]:
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
            raise InUse(f"{self.path} is in use by another process that trains there.") from error
        else:
            try:
                yield
            finally:
                if os.listdir(self.path) == [lock.name]:
                    lock.unlink()
                    self.path.rmdir()
        finally:
            file.close()

    def in_use(self) -> bool:
        """Whether a process holds the lock."""
        try:
            with open(self.path / ".lock") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # There is none, or it cannot be read: who wants to write there is told.
            return False
        return False


def _values_had(manifest: dict[str, Any]) -> dict[str, list[Any]]:
    """Every value that a setting has had, of the settings that a run has changed."""
    had: dict[str, list[Any]] = {}
    for entry in manifest["continued"]:
        for name, pair in entry["changed"].items():
            had.setdefault(name_now(manifest["config"]["agent_name"], name), []).extend(pair)
    return had


def _option(name: str, value: Any) -> str:
    """How an option is given this value; where nothing can be typed, that it must be the same."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or name in ("agent_name", "data_id"):
        return "the same options"
    return f"--{name.replace('_', '-')} {shlex.quote(str(value))}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
