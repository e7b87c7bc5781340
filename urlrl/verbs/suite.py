"""A run scored by a protocol: many tasks, snapshots and seeds, in one folder that later calls add to."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from urlrl.adaptation.ladder import Cell, Ladder
from urlrl.adaptation.suite import aggregate, find_suite
from urlrl.config import MAX_SEED, to_json
from urlrl.envs.tasks import check_runs_on, find_task
from urlrl.errors import UnsupportedPrompt, UserError, check
from urlrl.files import write_atomically
from urlrl.runtime import enable_compilation_cache, versions
from urlrl.training.log import make_progress
from urlrl.training.run import RunFolder
from urlrl.verbs.adapt import measure_floors, run_cell, settings
from urlrl.verbs.runs import load_checkpoint


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
        {"suite", "env", "experts", "floors", "notes", "scores": {snapshot: {method: {"returns", "normalised", "iqm",
        "mean"}}}}: see docs/metrics.md.

    Raises:
        UserError: no such suite, a run of another environment, or one without a snapshot that the protocol asks for.
    """  # fmt: skip
    for seed in seeds:
        check("seed", seed, 0, MAX_SEED)
    enable_compilation_cache()
    protocol, folder = find_suite(suite), Path(out or Path(run) / "suites") / suite
    tasks = {name: find_task(name) for name in protocol.tasks}
    snapshots = RunFolder(run).checkpoints.snapshots()
    env = RunFolder(run).manifest()["config"]["env"]
    for task in tasks.values():
        check_runs_on(task, env)
    if missing := [str(step) for step in protocol.snapshots if step not in snapshots]:
        raise UserError(
            f"{run} has no snapshot at {', '.join(missing)} steps: expected a run that was pretrained with "
            f"--snapshots {' '.join(map(str, protocol.snapshots))}."
        )
    jobs = [(method, seed, name) for method in protocol.methods for seed in dict.fromkeys(seeds) for name in tasks]
    progress, notes = make_progress(quiet), list[str]()
    cells: dict[int, dict[str, dict[str, list[Cell]]]] = {}
    with closing(progress):
        for i, snapshot in enumerate(protocol.snapshots):
            loaded = load_checkpoint(run, snapshots[snapshot])
            for j, (method, seed, name) in enumerate(jobs):
                alone = method == "scratch"  # Knows nothing of the agent: once is enough.
                if alone and i:
                    continue
                ladder = Ladder(folder / ("scratch" if alone else str(snapshot)) / name)
                same = settings(name, loaded, protocol.config)
                if (method, seed) not in ladder.done(same):
                    done = (i + j / len(jobs)) / len(protocol.snapshots)
                    try:
                        cell = run_cell(run, loaded, tasks[name], protocol.config, method, seed, same, progress, done)
                        ladder.add(cell)
                    except UnsupportedPrompt as error:
                        if f"{method}: {error}" not in notes:
                            notes.append(f"{method}: {error}")
                            progress.note(notes[-1])
                mine = [cell for cell in ladder.cells(same) if cell.method == method]
                cells.setdefault(snapshot, {}).setdefault(method, {})[name] = mine
        progress.say("Measuring the floors.")
        floors = {name: measure_floors(task) for name, task in tasks.items()}
    experts = {name: float(task.expert) for name, task in tasks.items() if task.expert}
    scores = {
        snapshot: {method: aggregate(by_task, experts) for method, by_task in methods.items() if any(by_task.values())}
        for snapshot, methods in cells.items()
    }
    if not any(scores.values()):
        raise UserError(" ".join(notes) or "There are no results: expected at least one seed.")
    result = {
        "suite": suite,
        "env": env,
        "protocol": to_json(protocol),
        "experts": experts,
        "floors": floors,
        "scores": scores,
        "notes": notes,
        "versions": versions(),
    }
    write_atomically(folder.with_name(f"{folder.name}.json"), json.dumps(result, indent=1).encode())
    return result
