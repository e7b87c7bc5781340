"""A run scored by a protocol: many tasks, snapshots and seeds, in one folder that later calls add to."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from urlrl.adaptation.config import METHODS
from urlrl.adaptation.ladder import Cell, Ladder
from urlrl.adaptation.suite import Suite, aggregate, find_suite
from urlrl.config import to_json
from urlrl.errors import UserError
from urlrl.files import write_json
from urlrl.runs.load import Loaded, load_checkpoint
from urlrl.runtime import enable_compilation_cache, versions
from urlrl.tasks.catalogue import find_task
from urlrl.tasks.task import Task, check_runs_on
from urlrl.training.log import Progress, make_progress
from urlrl.training.run import RunFolder
from urlrl.training.stop import Stop, stop_requested
from urlrl.verbs.adapt import check_seeds, measure_floors, try_cell
from urlrl.verbs.tuned import settings


def score_suite(
    run: Path | str,
    suite: str,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    out: Path | str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score a run by a protocol, such as "urlb-v1/walker". What is done already is kept, so a call that was stopped
    goes on, and one with other seeds adds to it.

    Args:
        out: `<run>/suites` by default; `<out>/<suite>.json` is what it all says together.

    Returns:
        {"suite", "env", "experts", "floors", "notes", "scores": {snapshot: {method: {"returns", "normalised",
        "estimate"}}}}: see docs/metrics.md.

    Raises:
        UserError: no such suite, a run of another environment, or one without a snapshot that the protocol asks for.
    """  # fmt: skip
    check_seeds(seeds)
    enable_compilation_cache()
    protocol, folder = find_suite(suite), Path(out or Path(run) / "suites") / suite
    tasks = {name: find_task(name) for name in protocol.tasks}
    experts = {name: float(task.expert) for name, task in tasks.items() if task.expert}
    snapshots = _check_run(run, protocol, tasks)
    progress, notes = make_progress(quiet), list[str]()
    scores: dict[int, dict[str, Any]] = {}
    with closing(progress), stop_requested(progress) as stop:
        for i, snapshot in enumerate(protocol.snapshots):
            loaded = load_checkpoint(run, snapshots[snapshot])
            methods = [method for method in protocol.methods if METHODS[method].pretrained or not i]
            scores[snapshot] = {}
            for j, method in enumerate(methods):
                place = folder / (str(snapshot) if METHODS[method].pretrained else method)
                done = (i + j / len(methods)) / len(protocol.snapshots)
                cells = _score_method(run, loaded, protocol, tasks, method, seeds, place, stop, progress, notes, done)
                if any(cells.values()):
                    scores[snapshot][method] = aggregate(cells, experts)
        progress.say("Measuring the floors.")
        floors = {name: measure_floors(task) for name, task in tasks.items()}
    if not any(scores.values()):
        raise UserError(" ".join(notes) or "There are no results: expected at least one seed.")
    result = {
        "suite": suite,
        "env": loaded.config.env,
        "protocol": to_json(protocol),
        "experts": experts,
        "floors": floors,
        "scores": scores,
        "notes": notes,
        "versions": versions(),
    }
    write_json(result, folder.with_name(f"{folder.name}.json"))
    return result


def _check_run(run: Path | str, protocol: Suite, tasks: dict[str, Task]) -> dict[int, int]:
    """Requested snapshot -> step of the checkpoint that it is; refuses a run that the protocol cannot score."""
    env = RunFolder(run).manifest()["config"]["env"]
    for task in tasks.values():
        check_runs_on(task, env)
    snapshots = RunFolder(run).checkpoints.snapshots()
    if missing := [str(step) for step in protocol.snapshots if step not in snapshots]:
        raise UserError(
            f"{run} has no snapshot at {', '.join(missing)} steps: expected a run that was pretrained with "
            f"--snapshots {' '.join(map(str, protocol.snapshots))}."
        )
    return snapshots


def _score_method(
    run: Path | str, loaded: Loaded, protocol: Suite, tasks: dict[str, Task], method: str, seeds: Sequence[int],
    place: Path, stop: Stop, progress: Progress, notes: list[str], done: float,
) -> dict[str, list[Cell]]:  # fmt: skip
    """The cells of a method by task, those of earlier calls included; what is missing is run."""
    cells = {}
    for name, task in tasks.items():
        ladder = Ladder(place / name, type(loaded.config.agent))
        same = settings(name, loaded, protocol.config)
        there = ladder.done(same)
        for seed in dict.fromkeys(seeds):
            if (method, seed) not in there:
                try_cell(ladder, run, loaded, task, protocol.config, method, seed, same, stop, progress, notes, done)
        cells[name] = [cell for cell in ladder.cells(same) if cell.method == method]
    return cells
