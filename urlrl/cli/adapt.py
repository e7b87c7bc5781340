"""`urlrl adapt`: the ladder of a task, or the table of a suite."""

from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from urlrl.adaptation.config import METHODS, AdaptConfig
from urlrl.cli.arguments import TRUST_RUN, asks_for_help, check_arguments, take, take_flag
from urlrl.cli.console import make_console
from urlrl.errors import UserError, unknown
from urlrl.values import number, number_list


def main(argv: list[str]) -> None:
    """The verb's own options come first, every other one is a field of AdaptConfig."""
    options = list(argv)
    if asks_for_help(options):
        print(
            "usage: urlrl adapt RUN --task TASK [--method METHOD] [--seeds 0..4] [--step N] [--out DIR] [--quiet] "
            "[OPTIONS]\n       urlrl adapt RUN --suite SUITE [--seeds 0..4] [--out DIR] [--quiet]\n\n"
            f"METHOD is one of {', '.join(METHODS)}, or all (default). `urlrl tasks` lists the tasks.\n{TRUST_RUN}\n"
        )
        tyro.cli(AdaptConfig, args=options, prog="urlrl adapt", description="")
    run = options.pop(0) if options and not options[0].startswith("-") else None
    task, method = take(options, "--task"), take(options, "--method")
    seeds, step, out = take(options, "--seeds") or "0..4", take(options, "--step"), take(options, "--out")
    suite, quiet = take(options, "--suite"), take_flag(options, "--quiet")
    if run and suite and not (task or method or step or options):
        from urlrl.verbs.adapt_suite import score_suite

        show_suite(score_suite(run, suite, seeds=number_list("--seeds", seeds), out=out, quiet=quiet))
        return
    if suite:
        raise UserError(
            "A suite fixes tasks, methods and settings: expected urlrl adapt RUN --suite SUITE [--seeds 0..4]."
        )
    if run is None or task is None:
        raise UserError("`urlrl adapt` needs a run, first, and a task: expected urlrl adapt RUN --task TASK.")
    method = method or "all"
    if method != "all" and method not in METHODS:
        raise unknown("method", method, [*METHODS, "all"])
    check_arguments(options, AdaptConfig)
    config = tyro.cli(AdaptConfig, args=options, prog="urlrl adapt", description="")
    from urlrl.verbs.adapt import adapt

    result = adapt(
        run,
        task,
        list(METHODS) if method == "all" else [method],
        seeds=number_list("--seeds", seeds),
        config=config,
        step=None if step is None else number("--step", step),
        out=out,
        quiet=quiet,
    )
    show_ladder(result)
    print(Path(out or Path(run) / "adapt") / task.replace(":", ".") / "ladder.png")


def show_ladder(result: dict[str, Any]) -> None:
    from urlrl.evaluation.stats import RULE, shown

    console = make_console(160)
    console.print(
        f"{result['task']}: pretrained for {result['pretrain_steps']:,} steps without reward on {result['env']}, then "
        f"{result['steps']:,} steps in the task"
    )
    columns = ["", "seeds", "return at the end", "share", "mean over the budget", "over scratch"]
    bound = result["ceiling"]
    table = Table(*columns, box=None, pad_edge=False)
    for method, entry in result["methods"].items():
        cells = [METHODS[method].label, ", ".join(map(str, entry["seeds"])), shown(entry["final_per_seed"], 1)]
        cells += ["" if entry["share"] is None else f"{entry['share']:.2f}", shown(entry["area_per_seed"], 1)]
        differences = entry["over_scratch_per_seed"]
        table.add_row(*cells, shown(differences, 1) if differences else "")
    for name, floor in result["floors"].items():
        table.add_row(f"({name})", "", f"{floor['mean']:.1f}", "", "", "")
    if bound is not None:
        table.add_row(f"({bound[1]})", "", f"{bound[0]:.1f}", "", "", "")
    console.print(table)
    console.print(
        f"{RULE} Share: of the return at the end, 0 is the best baseline and 1 the upper bound; none where these are "
        f"close. Over scratch: difference of the means over the budget, paired by seed.",
        soft_wrap=True,
    )
    for note in result["notes"]:
        console.print(note)


def show_suite(result: dict[str, Any]) -> None:
    from urlrl.evaluation.stats import RULE, Estimate, shown

    console = make_console(160)
    tasks = list(result["experts"])
    console.print(f"{result['suite']}, pretrained on {result['env']}: share of the expert's return")
    table = Table("pretraining steps", "", *tasks, "all", box=None, pad_edge=False)
    for snapshot, methods in result["scores"].items():
        for method, score in methods.items():
            shares = [score["normalised"].get(task) for task in tasks]
            cells = ["" if share is None else shown(share, 2) for share in shares]
            steps = f"{snapshot:,}" if METHODS[method].pretrained else ""
            table.add_row(steps, METHODS[method].label, *cells, Estimate.from_json(score["estimate"]).text(2))
    for name in ("random", "zero action", "standing still"):
        floors = [result["floors"][task].get(name, {}).get("mean") for task in tasks]
        if None not in floors:
            shares = [floor / result["experts"][task] for floor, task in zip(floors, tasks)]
            table.add_row("", f"({name})", *(f"{share:.2f}" for share in shares), f"{sum(shares) / len(shares):.2f}")
    console.print(table)
    console.print(f"{RULE} All: over tasks and seeds.", soft_wrap=True)
    for note in result["notes"]:
        console.print(note)
