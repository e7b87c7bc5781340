"""Drives a loop to its end: logs, evaluates, saves, resumes, and stops cleanly when it is told to."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from urlrl.config import PretrainConfig, RunConfig
from urlrl.errors import UserError
from urlrl.training.log import MetricsLog, Progress, duration
from urlrl.training.loop import Clocked, Loop
from urlrl.training.saver import Saver

INTERRUPTED = 75  # Exit code of a run that was told to stop and can be continued (EX_TEMPFAIL).


class Interrupted(UserError):
    """SIGTERM, SIGUSR1 or Ctrl-C came; everything is saved."""

    exit_code = INTERRUPTED


def drive(
    loop: Loop,
    saver: Saver,
    config: RunConfig,
    evaluate: Callable[[Any, int], dict[str, float]] | None,
    progress: Progress,
) -> None:
    """Run `loop`, which `saver` may have restored, to `config.steps`.

    Args:
        evaluate: (agent, step) -> metrics, called at step 0 and after each multiple of `config.eval_every`; or None.

    Raises:
        Interrupted: a signal came; a checkpoint was written.
        TrainingDiverged: the run produced non-finite numbers; nothing of them was saved.
        UserError: the disk cannot be written.
    """
    folder = saver.run.path
    log = MetricsLog(folder, saver.saved_step)
    speed = Speed(loop, config)
    try:
        with stop_requested() as stop:
            if saver.saved_step < 0 and evaluate:
                untrained = evaluate(loop.agent, 0)
                log.write(0, untrained)
                speed.coverage = untrained.get("eval/coverage")
            while loop.step < config.steps:
                before = loop.step
                metrics = loop.epoch()
                if evaluate and loop.step // config.eval_every > before // config.eval_every:
                    metrics |= evaluate(loop.agent, loop.step)
                log.write(loop.step, metrics | speed.measure())
                progress.update(speed.line(metrics))
                if saver.due() or stop:
                    log.sync()
                    saver.save()
                if stop:
                    raise Interrupted(
                        f"Stopped by {stop[0]} at step {loop.step:,} and saved; the same command continues {folder}."
                    )
            log.sync()
            saver.save()
    finally:
        log.close()


class Speed:
    """Times of a run: what goes under `time/`, and the progress line."""

    def __init__(self, loop: Clocked, config: RunConfig):
        self.loop, self.config = loop, config
        self.name = config.env or config.agent_name
        self.acts = isinstance(config, PretrainConfig)  # Its steps are the environment's, else gradient steps.
        self.started, self.first_step = time.perf_counter(), loop.step
        self.last, self.last_step, self.last_updates = self.started, loop.step, loop.updates
        self.coverage: float | None = None
        self.rates: dict[str, float] = {}

    def measure(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds, steps, updates = now - self.last, self.loop.step - self.last_step, self.loop.updates
        made, self.last_updates = updates - self.last_updates, updates
        self.last, self.last_step = now, self.loop.step
        parts = self.loop.timing()
        self.rates = {
            "time/epoch_seconds": seconds,
            **({"time/env_steps_per_s": steps / seconds} if self.acts else {}),
            "time/updates_per_s": made / seconds,
            **{f"time/{name}_share": part / seconds for name, part in parts.items()},
        }
        return self.rates

    def line(self, metrics: dict[str, float]) -> str:
        """One line: what a person watching wants to know."""
        self.coverage = metrics.get("eval/coverage", self.coverage)
        done, total = self.loop.step, self.config.steps
        average = (done - self.first_step) / max(self.last - self.started, 1e-9)
        parts = [
            f"{self.name}  {done:,}/{total:,} {'steps' if self.acts else 'updates'}",
            *([f"{self.rates['time/env_steps_per_s']:,.0f} steps/s"] if self.acts else []),
            f"{self.rates['time/updates_per_s']:,.0f} updates/s",
            *([] if self.coverage is None else [f"coverage {self.coverage:.0f}"]),
            f"ETA {duration(max(total - done, 0) / average)}",
        ]
        return "  ".join(parts)


@contextmanager
def stop_requested() -> Iterator[list[str]]:
    """A list that receives the name of a signal that asks the run to stop. A second Ctrl-C stops at once.

    Outside the main thread signals cannot be caught, and the list stays empty.
    """
    stop: list[str] = []

    def receive(number: int, frame: Any) -> None:
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.append(signal.Signals(number).name)

    previous = {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        try:
            previous[number] = signal.signal(number, receive)
        except ValueError:  # Not the main thread.
            break
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
