"""`urlrl report`: the page of a run, whose name is printed, or a table of several."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from tyro.conf import Positional

from urlrl.cli.arguments import TRUST_RUN, parse
from urlrl.cli.console import make_console
from urlrl.errors import UserError


@dataclass(frozen=True)
class ReportOptions:
    """One self-contained page: trajectories, curves, latents, goals, videos, config. Of several runs that differ in
    their seed, a table instead: means over seeds with 95 % intervals."""

    runs: Positional[tuple[Path, ...]]  # folder of the run, or of each
    step: int | None = None  # which checkpoint; the newest by default
    json: Path | None = None  # of several runs: also write the table to this file


def main(argv: list[str]) -> None:
    options = parse(ReportOptions, argv, "report", TRUST_RUN)
    from urlrl.verbs.report import report

    if len(options.runs) > 1:
        from urlrl.verbs.report_seeds import report_seeds

        return show_seeds(report_seeds(options.runs, step=options.step, json_file=options.json))
    if options.json is not None:
        raise UserError("Option '--json' is of a table of several runs: expected more than one folder with it.")
    print(report(options.runs[0], step=options.step))


def show_seeds(result: dict[str, Any]) -> None:
    """Print the table."""
    from urlrl.evaluation.stats import RULE, shown

    console = make_console(160)
    seeds = ", ".join(map(str, result["seeds"]))
    console.print(f"{result['agent']} on {result['env']}, step {result['step']:,}, seeds {seeds}")
    baselines = {who: None for row in result["metrics"].values() for who in row if who != "agent"}
    table = Table("", "agent", *baselines, box=None, pad_edge=False)
    for name, row in result["metrics"].items():
        digits = 1 if name.startswith("coverage") else 3
        table.add_row(name, *(shown(row[who]["values"], digits) if who in row else "" for who in ("agent", *baselines)))
    console.print(table)
    console.print(RULE, soft_wrap=True)
