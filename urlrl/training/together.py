"""Drives runs that advance together to their end, each into a folder of its own."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from urlrl.config import RunConfig
from urlrl.errors import TrainingDiverged
from urlrl.files import write_atomically
from urlrl.training.driver import Interrupted, Speed, stop_requested
from urlrl.training.log import MetricsLog, Progress
from urlrl.training.loop import Clocked, Memory
from urlrl.training.run import RunFolder
from urlrl.training.saver import Saver

Measure = Callable[[Any, int], dict[str, float]]
FROZEN = "diverged.json"  # in the folder of a run whose numbers were not finite: where that was


class Lane(Memory, Protocol):
    """One of the runs. All that it asks of the device goes through what advances them."""

    config: Any  # of this seed
    lane: int  # its place among the outcomes of an epoch

    @property
    def agent(self) -> Any: ...


class Lanes(Clocked, Protocol):
    """Runs in progress, in step with each other. `step` and `updates` are those of each."""

    @property
    def runs(self) -> Sequence[Lane]: ...
    def epoch(self) -> list[dict[str, float] | TrainingDiverged]: ...  # by lane


class Member:
    """One of the runs, with its record."""

    def __init__(self, run: Lane, saver: Saver, measure: Measure | None):
        self.run, self.saver, self.measure = run, saver, measure
        self.log = MetricsLog(saver.run.path, saver.saved_step)

    def evaluate(self) -> dict[str, float]:
        return self.measure(self.run.agent, self.run.step) if self.measure else {}

    def freeze(self, error: TrainingDiverged) -> None:
        """Leave the run as its last checkpoint has it."""
        content = {"step": self.run.step, "reason": str(error)}
        write_atomically(self.saver.run.path / FROZEN, json.dumps(content, indent=1).encode())


def is_frozen(run: RunFolder) -> bool:
    return (run.path / FROZEN).exists()


def drive_together(seeds: Lanes, members: Sequence[Member], config: RunConfig, progress: Progress) -> None:
    """Run `seeds`, whose runs may have been restored, to `config.steps`. One that produces non-finite numbers is left
    as its last checkpoint has it, the others go on.

    Raises:
        Interrupted: a signal came; checkpoints were written.
        UserError: a disk cannot be written.
    """
    speed, live = Speed(seeds, config), list(members)
    try:
        with stop_requested() as stop:
            if live and live[0].saver.saved_step < 0:
                for member in live:
                    if member.measure:
                        member.log.write(0, member.measure(member.run.agent, 0))
            while live and seeds.step < config.steps:
                live = _epoch(seeds, live, config, speed, progress)
                if stop or any(member.saver.due() for member in live):
                    _save(live)
                if stop:
                    raise Interrupted(
                        f"Stopped by {stop[0]} at step {seeds.step:,} and saved; the same command continues all seeds."
                    )
            _save(live)
    finally:
        for member in members:
            member.log.close()


def _epoch(seeds: Lanes, live: list[Member], config: RunConfig, speed: Speed, progress: Progress) -> list[Member]:
    """One epoch, logged; returns the members that are still finite."""
    before, outcomes, made = seeds.step, seeds.epoch(), []
    for member in live:
        outcome = outcomes[member.run.lane]
        if isinstance(outcome, TrainingDiverged):
            member.freeze(outcome)
            progress.note(f"Seed {member.run.config.seed}: {outcome} It is left at its last checkpoint.")
        else:
            made.append((member, outcome))
    if config.eval_every and seeds.step // config.eval_every > before // config.eval_every:
        made = [(member, metrics | member.evaluate()) for member, metrics in made]
    rates = speed.measure()
    for member, metrics in made:
        member.log.write(seeds.step, metrics | rates)
    coverage = [metrics["eval/coverage"] for _, metrics in made if "eval/coverage" in metrics]
    progress.update(speed.line({"eval/coverage": float(np.mean(coverage))} if coverage else {}))
    return [member for member, _ in made]


def _save(members: Sequence[Member]) -> None:
    """Every log first: a run that has logged a step was there, also if it was killed before its checkpoint."""
    for member in members:
        member.log.sync()
    for member in members:
        member.saver.save()
