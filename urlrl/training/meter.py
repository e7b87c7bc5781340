"""How far a pass over data has come: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from urlrl.data.dataset import Episode
from urlrl.data.summary import episode_bytes
from urlrl.training.log import Quiet, duration, make_progress


class Meter:
    """Counts what passes, and shows it."""

    def __init__(self, what: str, total: int | None, quiet: bool):
        self.total, self.transitions, self.bytes, self.start = total, 0, 0, time.perf_counter()
        self.bar: Progress | None = None
        if not quiet and sys.stdout.isatty():
            self.bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(), console=Console(), transient=True,
            )  # fmt: skip
            self.task = self.bar.add_task(what, total=total, state="")
            self.bar.start()
        self.lines = Quiet() if self.bar else make_progress(quiet)
        self.what = what

    @property
    def seconds(self) -> float:
        return max(time.perf_counter() - self.start, 1e-9)

    def add(self, transitions: int, size: int) -> None:
        self.transitions += transitions
        self.bytes += size
        if self.bar:
            self.bar.update(self.task, advance=transitions, state=self.state())
        else:
            left = ""
            if self.total and self.transitions:
                left = f", {duration((self.total / self.transitions - 1) * self.seconds)} left"
            self.lines.update(f"{self.what}: {self.state()}{left}")

    def state(self) -> str:
        of = f" of {self.total:,}" if self.total else ""
        return f"{self.transitions:,}{of} transitions, {self.bytes / 1e6 / self.seconds:,.0f} MB/s"

    def passing(self, episodes: Iterable[Episode]) -> Iterator[Episode]:
        for episode in episodes:
            yield episode
            self.add(len(episode.action), episode_bytes(episode))

    def note(self, line: str) -> None:
        if self.bar:
            self.bar.console.print(line, highlight=False, markup=False)
        else:
            self.lines.note(line)

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
        self.lines.close()


@contextmanager
def metered(what: str, total: int | None, quiet: bool) -> Iterator[Meter]:
    with closing(Meter(what, total, quiet)) as meter:
        yield meter
