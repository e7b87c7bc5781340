"""Drives a loop to its end: logs, evaluates, saves, and stops cleanly when it is told to. A loop is of one run, or of
several that advance together, each with a folder of its own."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from urlrl.config import PretrainConfig, RunConfig
from urlrl.errors import TrainingDiverged, UserError
from urlrl.training.log import MetricsLog, Progress, duration
from urlrl.training.loop import Lane, Loop, Timed, Undone
from urlrl.training.saver import Saver
from urlrl.training.stop import Interrupted, Stop

Measure = Callable[[Any, int], dict[str, float]]  # (agent, step) -> metrics
SHOWN = {"coverage": ".0f", "return": ".1f"}  # evaluations of the progress line -> how they are written


class Member:
    """One of the runs of a loop, with its record. It is evaluated by `measure`, where there is one; `advice` is what
    can be done where it diverges."""

    def __init__(self, run: Lane, saver: Saver, measure: Measure | None, advice: str = ""):
        self.run, self.saver, self.measure, self.advice = run, saver, measure, advice
        self.log = MetricsLog(saver.run.path, saver.saved_step)
        self.error: UserError | None = None

    def evaluate(self) -> dict[str, float]:
        return self.measure(self.run.agent, self.run.step) if self.measure else {}

    def leave(self, error: UserError, progress: Progress) -> None:
        """Advance it no further: its numbers are not finite. Its last checkpoint is what remains of it."""
        self.error, saved = error, self.saver.saved_step
        kept = f"The checkpoint of step {saved:,} is kept{self.advice}."
        progress.note(f"{self.saver.run.path}: {error} {'There is no checkpoint yet.' if saved < 0 else kept}")


def drive(loop: Loop, members: Sequence[Member], config: RunConfig, stop: Stop, progress: Progress) -> None:
    """Run `loop`, whose runs may have been restored, to `config.steps`. A run that produces non-finite numbers gets an
    `error` and is left as its last checkpoint has it; the others go on.

    Args:
        members: the runs of `loop`, in its order; they are evaluated at step 0 and after each multiple of
            `config.eval_every`.

    Raises:
        Interrupted: a signal came; checkpoints were written.
        UserError: a disk cannot be written; or an environment cannot go on, and on the host all was saved.
    """
    speed, live = Speed(loop, config), list(members)
    try:
        if live[0].saver.saved_step < 0:
            untrained = [member.evaluate() for member in live]
            for member, metrics in zip(live, untrained):
                if metrics:
                    member.log.write(0, metrics)
            speed.see(untrained)
        if loop.step < config.steps:
            progress.update(f"{speed.name}  {loop.step:,}/{config.steps:,}  compiling, then the first epoch")
        while live and loop.step < config.steps:
            try:
                live = _epoch(loop, members, config, speed, stop, progress)
            except Undone as undone:
                _save_first(undone, loop, live, stop, progress)
            if stop.name or any(member.saver.due() for member in live):
                _save(live, stop)
            if stop.name:
                same = "the same command continues"
                what = members[0].saver.run.path if len(members) == 1 else "all seeds"
                raise Interrupted(f"Stopped by {stop.name} at step {loop.step:,} and saved; {same} {what}.")
        _save(live, stop)
    finally:
        for member in members:
            member.log.close()


def _epoch(
    loop: Loop, members: Sequence[Member], config: RunConfig, speed: "Speed", stop: Stop, progress: Progress
) -> list[Member]:
    """One epoch, logged; returns the members that are still finite. Raises Undone as the loop does, and where the epoch
    is done and an evaluation fails."""
    before, outcomes, made = loop.step, loop.epoch(), []
    stop.unsaved = True
    for member, outcome in zip(members, outcomes):
        if member.error:
            continue
        if isinstance(outcome, UserError):
            member.leave(outcome, progress)
        else:
            made.append((member, outcome))
    failed: Exception | None = None
    if config.eval_every and loop.step // config.eval_every > before // config.eval_every:
        try:
            made = [(member, metrics | member.evaluate()) for member, metrics in made]
        except Exception as error:  # noqa: BLE001 - it is raised when the epoch, which is whole, is logged
            failed = error
    rates = speed.measure()
    for member, metrics in made:
        member.log.write(loop.step, metrics | rates)
    if failed:
        raise Undone from failed
    speed.see([metrics for _, metrics in made])
    progress.update(speed.line())
    return [member for member, _ in made]


def _save(members: Sequence[Member], stop: Stop) -> None:
    """Every log first: a run that has logged a step was there, also if it was killed before its checkpoint."""
    for member in members:
        member.log.sync()
    for member in members:
        member.saver.save()
    stop.unsaved = False


def _save_first(undone: Undone, loop: Loop, members: Sequence[Member], stop: Stop, progress: Progress) -> NoReturn:
    """Save what there was before something failed, and raise it."""
    if loop.step:
        _save([member for member in members if not member.error], stop)
        progress.note(f"The run is saved at step {loop.step:,}.")
    cause = undone.__cause__
    assert cause
    raise cause from cause.__cause__  # Not from `undone`, which says nothing more.


def raise_diverged(members: Sequence[Member]) -> None:
    """Raises the error of the run that could not go on. Of several runs it says which, by a TrainingDiverged if one of
    them diverged."""
    failed = [member for member in members if member.error]
    if not failed:
        return
    errors = [error for member in failed if (error := member.error)]
    if len(members) == 1:
        raise errors[0]
    reasons = "; ".join(f"seed {m.run.config.seed}: {str(error).rstrip('.')}" for m, error in zip(failed, errors))
    others = ", the others are done" if len(failed) < len(members) else ""
    diverged = [error for error in errors if isinstance(error, TrainingDiverged)]
    what = "diverged" if diverged else "could not go on"
    kind = TrainingDiverged if diverged else UserError
    raise kind(f"{len(failed)} of {len(members)} seeds {what}{others}; {reasons}.")


class Speed:
    """Times of a run: what goes under `time/`, and the progress line."""

    def __init__(self, loop: Timed, config: RunConfig):
        self.loop, self.config = loop, config
        self.name = config.env or config.agent_name
        self.acts = isinstance(config, PretrainConfig)  # Its steps are the environment's, else gradient steps.
        self.started, self.first_step = time.perf_counter(), loop.step
        self.last, self.last_step, self.last_updates = self.started, loop.step, loop.updates
        self.measured: dict[str, float] = {}
        self.rates: dict[str, float] = {}

    def measure(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds, steps, updates = now - self.last, self.loop.step - self.last_step, self.loop.updates
        made, self.last_updates = updates - self.last_updates, updates
        self.last, self.last_step = now, self.loop.step
        self.rates = {
            "time/epoch_seconds": seconds,
            **({"time/env_steps_per_s": steps / seconds} if self.acts else {}),
            "time/updates_per_s": made / seconds,
            **{f"time/{use}_share": spent / seconds for use, spent in self.loop.watch.read().items()},
        }
        return self.rates

    def see(self, metrics: Sequence[Mapping[str, float]]) -> None:
        """Remember what was measured, if it was: the mean over the runs, whose metrics these are."""
        for name in SHOWN:
            if measured := [run[f"eval/{name}"] for run in metrics if f"eval/{name}" in run]:
                self.measured[name] = float(np.mean(measured))

    def line(self) -> str:
        """One line: what a person watching wants to know."""
        done, total = self.loop.step, self.config.steps
        average = (done - self.first_step) / max(self.last - self.started, 1e-9)
        parts = [
            f"{self.name}  {done:,}/{total:,} {'steps' if self.acts else 'updates'}",
            *([f"{self.rates['time/env_steps_per_s']:,.0f} steps/s"] if self.acts else []),
            f"{self.rates['time/updates_per_s']:,.0f} updates/s",
            *(f"{name} {value:{SHOWN[name]}}" for name, value in self.measured.items()),
            f"ETA {duration(max(total - done, 0) / average)}",
        ]
        return "  ".join(parts)
