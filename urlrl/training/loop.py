"""What all loops are to those who drive them and save them."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

from urlrl.errors import UserError


class Memory(Protocol):
    """What a checkpoint holds of a run in progress."""

    @property
    def step(self) -> int: ...  # of the unit that the config's `steps` counts
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any], step: int, rows: Any) -> None: ...


class Undone(Exception):
    """An epoch failed, by its `__cause__`. The loop is between two epochs, and can be saved."""


class Lane(Memory, Protocol):
    """One of the runs of a loop."""

    config: Any  # of this run, with its own seed

    @property
    def agent(self) -> Any: ...


class Stopwatch:
    """Seconds spent by use: `with watch(use)` counts what runs inside, but for what an inner one counts."""

    def __init__(self, *uses: str):
        self.seconds = dict.fromkeys(uses, 0.0)
        self.uses = list[str]()  # those that are being counted for, the innermost last
        self.since = 0.0  # when its time began

    def __call__(self, use: str) -> "Stopwatch":
        self._count()
        self.uses.append(use)
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._count()
        self.uses.pop()

    def read(self) -> dict[str, float]:
        """The seconds since the last call."""
        spent, self.seconds = self.seconds, dict.fromkeys(self.seconds, 0.0)
        return spent

    def _count(self) -> None:
        now = time.perf_counter()
        if self.uses:
            self.seconds[self.uses[-1]] += now - self.since
        self.since = now


class Timed(Protocol):
    """What says how fast it goes."""

    updates: int  # gradient steps of each run made by this process
    watch: Stopwatch

    @property
    def step(self) -> int: ...  # of each run


Outcome = dict[str, float] | UserError  # finite metrics of an epoch, or why there are none


class Loop(Timed, Protocol):
    """Runs in progress that advance together, or one: `epoch` advances them; each of `runs` is the memory of one."""

    @property
    def runs(self) -> Sequence[Lane]: ...
    def epoch(self) -> list[Outcome]: ...  # by run; raises Undone where it can go back
