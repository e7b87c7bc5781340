"""Checkpoints: Orbax for the arrays, a manifest of hashes that is checked before anything is loaded.

A checkpoint is written beside its final place and renamed when it is complete, so `checkpoints/<step>` is whole or
absent; a damaged one is detected by its manifest, named, and the one before it is used.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from urlrl.errors import UserError
from urlrl.files import read_json, sha256

KEEP = 2  # checkpoints kept, so that one damaged on disk is not the end of a run
STEP = re.compile(r"0|[1-9][0-9]{0,17}")
INFO, MANIFEST = "info.json", "manifest.json"


class Checkpoints:
    """The folder `checkpoints/` of a run: `<step>/{<part>/, info.json, manifest.json}`.

    A training state is saved in parts, so that an agent can be loaded without the loop that trained it.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()  # Orbax takes no other.

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if STEP.fullmatch(path.name) and path.is_dir())

    def infos(self) -> list[dict[str, Any]]:
        """The info of each checkpoint whose info is whole, ascending by step."""
        infos = []
        for step in self.steps():
            folder = self.folder / str(step)
            with contextlib.suppress(OSError, UserError):  # A damaged one refers to nothing.
                _check_hash(folder, INFO, _manifest(folder).get(INFO))
                infos.append(_info(folder))
        return infos

    def snapshots(self) -> dict[int, int]:
        """Requested snapshot -> step of the checkpoint that it is."""
        return {asked: info["step"] for info in self.infos() for asked in info["snapshots"]}

    def save(self, step: int, parts: dict[str, Any], info: dict[str, Any]) -> None:
        """Write a checkpoint, and drop those older than the last `KEEP` that are no snapshots.

        Args:
            parts: pytrees of arrays, by name.
            info: JSON that `restore` gives back: {"step", "shards": those it refers to, "snapshots": the requested
                ones that it is}; a checkpoint that is a snapshot is kept.

        Raises:
            UserError: the disk is full or cannot be written; checkpoints already there stay whole.
        """
        final, partial = self.folder / str(step), self.folder / f".saving-{step}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.clear_partial()
            for name, state in parts.items():
                _checkpointer().save(partial / name, args=_save_args(jax.device_get(state)))
            (partial / INFO).write_text(json.dumps(info))
            (partial / MANIFEST).write_text(json.dumps(_hashes(partial), indent=1))
            _sync(partial)
            os.replace(partial, final)
            _sync_one(self.folder)
        except (OSError, ValueError, RuntimeError) as error:  # The latter two are how Orbax reports a disk's errors.
            shutil.rmtree(partial, ignore_errors=True)  # Orbax's threads may still write; the next save clears it.
            last = self.steps()
            kept = f"the checkpoint of step {last[-1]} is whole" if last else "there is no earlier checkpoint"
            raise UserError(f"Cannot write checkpoint {final}: {_reason(error)}; {kept}.") from error
        passing = {info["step"] for info in self.infos() if not info["snapshots"]}
        for old in self.steps()[:-KEEP]:
            if old in passing:  # One whose info is damaged may be a snapshot.
                self._delete(old)

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps."""
        for later in self.steps():
            if later > step:
                self._delete(later)

    def _delete(self, step: int) -> None:
        doomed = self.folder / f".deleting-{step}"  # What is named after a step is whole, also while it goes.
        os.replace(self.folder / str(step), doomed)
        shutil.rmtree(doomed)

    def clear_partial(self) -> None:
        """Remove what an interrupted save left."""
        for path in [*self.folder.glob(".saving-*"), *self.folder.glob(".deleting-*")]:
            shutil.rmtree(path)

    def set_aside(self, step: int) -> Path:
        """Rename a damaged checkpoint, so that its step can be written again; returns the new place."""
        aside = self.folder / f"damaged-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        return (self.folder / str(step)).rename(aside)

    def restore(self, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(parts, info) of a checkpoint; `like` holds, for each part wanted, a state of the same structure.

        Raises:
            UserError: a file is missing, damaged or of another run; the message names it.
        """
        folder = self.folder / str(step)
        try:
            _verify(folder, like)
            info = _info(folder)
            return {name: _restore_part(folder / name, part) for name, part in like.items()}, info
        except OSError as error:  # As where a run in progress deletes it meanwhile.
            raise UserError(f"Checkpoint {folder} cannot be read: {_reason(error)}.") from error


def _verify(folder: Path, parts: Iterable[str]) -> None:
    """Raises UserError unless the files of a checkpoint are those that were written, all of them and no others in the
    parts that will be read."""
    manifest = _manifest(folder)
    read = [path for name in parts for path in (folder / name).rglob("*") if path.is_file()]
    for name in (str(path.relative_to(folder)) for path in read):
        if name not in manifest:
            raise UserError(f"Checkpoint {folder} is damaged: {name} is not in its {MANIFEST}.")
    for name in (INFO, *parts):
        if not any(file == name or file.startswith(f"{name}/") for file in manifest):
            raise UserError(f"Checkpoint {folder} is damaged: its {MANIFEST} has no {name}.")
    for name, digest in manifest.items():
        _check_hash(folder, name, digest)


def _manifest(folder: Path) -> dict[str, str]:
    """Hash by file."""
    return read_json(folder / MANIFEST, {str: str})


def _info(folder: Path) -> dict[str, Any]:
    info = read_json(folder / INFO, {"step": int, "shards": [dict], "snapshots": [int]}, shards=[], snapshots=[])
    if str(info["step"]) != folder.name:
        raise UserError(f"{folder / INFO} says step {info['step']}: expected {folder.name}.")
    return info


def _check_hash(folder: Path, name: str, digest: str | None) -> None:
    if not (folder / name).is_file():
        raise UserError(f"Checkpoint {folder} is damaged: {name} is missing.")
    if sha256(folder / name) != digest:
        raise UserError(f"Checkpoint {folder} is damaged: {name} is not what was written.")


def _restore_part(folder: Path, like: Any) -> Any:
    like = jax.device_get(like)
    stored = _storable(like)
    try:
        state = _checkpointer().restore(folder, args=_restore_args(stored))
    except OSError:
        raise
    except Exception as error:  # Orbax raises anything at arrays that are damaged or of another run.
        raise UserError(f"Checkpoint {folder} does not fit this run's config: {_reason(error)}.") from error
    for (path, want), got in zip(jax.tree_util.tree_leaves_with_path(stored), jax.tree.leaves(state)):
        if np.shape(want) != np.shape(got):
            where = jax.tree_util.keystr(path)
            raise UserError(f"Checkpoint {folder} has shape {np.shape(got)} at {where}: expected {np.shape(want)}.")
    return jax.tree.map(lambda want, got: got if np.size(want) else want, like, state)


@cache
def _checkpointer():
    import orbax.checkpoint as ocp  # Takes a third of a second to import.

    absl = logging.getLogger("absl")
    absl.setLevel(logging.ERROR)  # Orbax logs every save.
    absl.addFilter(lambda record: "orbax" not in record.pathname)  # What its threads log, it also raises.
    sys.unraisablehook = partial(_but_late_callbacks, sys.unraisablehook)
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _save_args(state: Any):
    import orbax.checkpoint as ocp

    return ocp.args.StandardSave(_storable(state))


def _restore_args(like: Any):
    import orbax.checkpoint as ocp

    return ocp.args.StandardRestore(like)


def _storable(state: Any) -> Any:
    """Orbax refuses arrays without elements, such as the skills of an agent that has none: zeros stand in for them."""
    return jax.tree.map(lambda x: x if np.size(x) else np.zeros(1, np.asarray(x).dtype), state)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def _sync(folder: Path) -> None:
    """Force a folder's files and names to the disk, so that the rename that follows cannot overtake them."""
    for path in [*folder.rglob("*"), folder]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _but_late_callbacks(hook: Callable[[Any], None], unraisable: Any) -> None:
    """A `sys.unraisablehook` that shows all but one thing. Where a save or a load failed, other arrays are still being
    written or read; when they are done, each finds Orbax's event loop closed, and Python would show that."""
    trace = unraisable.exc_traceback
    late = trace is not None and "asyncio" in trace.tb_frame.f_code.co_filename
    if not (late and str(unraisable.exc_value) == "Event loop is closed"):
        hook(unraisable)


def _reason(error: Exception) -> str:
    """The first line of an error, or what the system says where that is the reason."""
    code = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"os_error_code='(\d+)'", str(error)):  # As tensorstore has it.
        code = int(found[1])
    if code is not None:
        return os.strerror(code)
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
