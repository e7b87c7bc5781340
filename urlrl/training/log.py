"""Metrics of a run: metrics.jsonl is the record; TensorBoard and the progress line show it."""

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from urlrl.errors import UserError
from urlrl.files import check_shape, parse_json, write_atomically

logger = logging.getLogger(__name__)
PLAIN_SECONDS = 10.0  # between progress lines where there is no terminal


def read_metrics(path: Path, until: int | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in order. A last line that a kill cut short is left out. A warning names other lines
    that are no rows; the good rows are used.

    Args:
        until: only rows up to this step, which was logged; a warning says so if they end before it.
    """
    rows, damage = _read(path, until)
    if damage:
        logger.warning("%s; the other rows are used.", damage)
    return rows


def _read(path: Path, until: int | None) -> tuple[list[dict[str, Any]], str]:
    """The good rows, and a sentence that says which lines are damaged or missing; "" where none is."""
    rows, bad, reason = [], [], ""
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
            check_shape(row, {"step": int})
            check_shape(row, {str: float})
            rows.append(row)
        except ValueError as error:
            cut = number == len(lines) and (not line or line.startswith(b"{"))  # What a kill leaves of a row.
            if not cut:
                bad.append(number)
                reason = reason or str(error)
    if until is not None:
        rows = [row for row in rows if row["step"] <= until]
    if bad:
        some = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        return rows, f"{path} is damaged in line{'s' * (len(bad) > 1)} {some} ({reason})"
    last = rows[-1]["step"] if rows else -1
    if until is not None and last < until:
        return rows, f"{path} ends at step {max(last, 0):,}: expected rows up to step {until:,}"
    return rows, ""


class MetricsLog:
    """Appends rows `{"step": n, name: number, ...}` to metrics.jsonl and shows them in TensorBoard.

    Opening cuts the record back to `step`, which is where the run continues (-1 is before its beginning). A record that
    has damaged lines is kept beside it as it was found, and a warning says so.
    """

    def __init__(self, folder: Path, step: int):
        self.path = folder / "metrics.jsonl"
        rows, damage = _read(self.path, step)
        if damage:
            logger.warning("%s; the run goes on with the other rows%s.", damage, _keep_aside(self.path))
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        # Unbuffered: a full disk is an error of the write that hit it, and a kill loses no whole row.
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - kept open for the length of the run
        self.events = Events(folder / "tensorboard", rows)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises UserError if the record cannot be written."""
        row = {"step": step, **metrics}
        with self._disk():
            self.file.write((json.dumps(row) + "\n").encode())
        self.events.write(row)

    def sync(self) -> None:
        """Force the record to the disk; a checkpoint that follows can rely on it. Raises UserError as `write` does."""
        with self._disk():
            os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()
        self.events.close()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"Cannot write {self.path}: {error.strerror}; the last checkpoint is whole.") from error


def _keep_aside(path: Path) -> str:
    """Copy a damaged record under a new name beside it; returns what says so."""
    if not path.exists():
        return ""
    names = (path.with_name(f"metrics.damaged-{number}.jsonl") for number in count(1))
    aside = next(name for name in names if not name.exists())
    shutil.copyfile(path, aside)
    return f", and {aside} is the file as it was"


class Events:
    """TensorBoard's view of the record, begun anew from its rows. What goes wrong here is said once, and the run goes
    on without it."""

    def __init__(self, folder: Path, rows: list[dict]):
        self.writer: Any = None
        with self._forgiving():
            from tensorboard.summary import Writer

            _hide_writing_threads()
            shutil.rmtree(folder, ignore_errors=True)
            self.writer = Writer(str(folder))
        for row in rows:
            self.write(row)

    def write(self, row: dict) -> None:
        if self.writer is not None:
            with self._forgiving():
                for name, value in row.items():
                    if name != "step":
                        self.writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        if self.writer is not None:
            with self._forgiving():
                self.writer.close()

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a display is never worth a run
            logger.warning("TensorBoard events are not written: %s", error)
            self.writer = None


@cache
def _hide_writing_threads() -> None:
    """Let Python print nothing where TensorBoard's writing thread ends with an error: the next event raises it."""
    show = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            show(failed)

    threading.excepthook = hook


class Progress(Protocol):
    """Shows how far a run is."""

    def update(self, line: str) -> None: ...
    def say(self, line: str) -> None: ...
    def note(self, line: str) -> None: ...
    def close(self) -> None: ...


class Quiet:
    """Says only what a user must know."""

    def update(self, line: str) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def note(self, line: str) -> None:
        _print(line, sys.stderr)

    def close(self) -> None:
        pass


class PlainProgress(Quiet):
    """One line every ten seconds, for files and pipes."""

    def __init__(self):
        self.shown = -PLAIN_SECONDS
        self.last = ""

    def update(self, line: str) -> None:
        self.last = line
        if time.monotonic() - self.shown >= PLAIN_SECONDS:
            self.shown = time.monotonic()
            _print(line, sys.stdout)
            self.last = ""

    def say(self, line: str) -> None:
        _print(line, sys.stdout)

    note = say

    def close(self) -> None:
        if self.last:
            _print(self.last, sys.stdout)


class LiveProgress(Quiet):
    """One line that is drawn over itself, for terminals."""

    def __init__(self):
        self.live = Live(Text(""), console=Console(), refresh_per_second=4)
        self.live.start()

    def update(self, line: str) -> None:
        self.live.update(Text(line, overflow="ellipsis", no_wrap=True))

    def say(self, line: str) -> None:
        self.live.console.print(line, highlight=False, markup=False)

    note = say

    def close(self) -> None:
        self.live.stop()


def _print(line: str, file: TextIO) -> None:
    with suppress(OSError):  # Whoever read this has gone away; the run has not.
        print(line, file=file, flush=True)


def make_progress(quiet: bool = False) -> Progress:
    if quiet:
        return Quiet()
    return LiveProgress() if sys.stdout.isatty() else PlainProgress()


def duration(seconds: float) -> str:
    """65 -> '1:05', 3725 -> '1:02:05'."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
