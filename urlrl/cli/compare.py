"""`urlrl compare`: settings with several seeds each, trained, scored and shown side by side."""

import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from urlrl.cli.arguments import TRUST, asks_for_help, required, take, take_flag
from urlrl.cli.console import make_console
from urlrl.errors import UserError, shown
from urlrl.values import literal

HELP = f"""\
usage: urlrl compare [STUDY.toml] --out DIR [--agents A,B] [--preset NAME] [--seeds 0..4] [OPTIONS]
       urlrl compare --runs RUN RUN ... --out DIR

Trains each setting with each seed, evaluates the runs and writes DIR/index.html, table.csv, table.json and curves.pdf.
The same command goes on where it was stopped. All other OPTIONS are those of `urlrl pretrain`, and hold for all
settings; values with commas are tried one by one, as in --agent.lr 1e-3,1e-4.

--agents A,B         agents, as `urlrl agents` lists them
--preset NAME        a preset that each of them has, or AGENT/NAME without --agents
--seeds 0..4         seeds of each setting
--runs RUN ...       runs that are there, instead of settings to train
--reach NAME=SCORE   also: when runs reached a score, as in coverage=100
--curves NAME ...    metrics to draw, of metrics.jsonl; those of evaluations during training by default
--workers N          so many runs at a time, each in a process of its own; the cores are divided
--launcher slurm     runs as jobs, by the package submitit; --slurm.NAME VALUE are its parameters
--quiet              show no progress

{TRUST}
docs/compare.md has a STUDY.toml."""
PATHS_OR_NAMES = ("runs", "reach", "curves")  # texts, one or many


def main(argv: list[str]) -> None:
    if asks_for_help(argv):
        print(HELP)
        sys.exit(0)
    words = list(argv)
    out, quiet = take(words, "--out"), take_flag(words, "--quiet")
    study = words.pop(0) if words and not words[0].startswith("-") else None
    said = _said(words)
    folder = Path(required("--out", out, "a folder"))
    from urlrl.verbs.compare import compare
    from urlrl.verbs.launch import raise_failed

    result = compare(study, out=folder, quiet=quiet, **said)
    show(result)
    print(folder / "index.html")
    failed = result["failed"]
    scored = {f"{each['label']}, seed {seed}" for each in result["settings"] for seed in each["seeds"]}
    raise_failed(failed, len(scored | failed.keys()))


def _said(words: list[str]) -> dict[str, Any]:
    """What the options say, by the names that a study has for it."""
    from urlrl.verbs.study import OF_STUDY

    said: dict[str, Any] = {}
    while words:
        token = words.pop(0)
        name, is_whole, value = token.removeprefix("--").partition("=")
        if not token.startswith("--"):
            raise UserError(f"Unexpected argument '{shown(token)}': `--help` lists the options.")
        values = [value] if is_whole else []
        while not is_whole and words and not words[0].startswith("--"):
            values.append(words.pop(0))
        name = name.replace("-", "_")
        read = [literal(one) for one in values]
        first, _, rest = name.partition(".")
        if not read and name in OF_STUDY:
            raise UserError(f"Option '{shown(token)}' has no value: expected one after it.")
        if name == "slurm":
            raise UserError(f"Option '--slurm' is '{shown(values[0])}': expected --slurm.NAME VALUE.")
        if name in PATHS_OR_NAMES:
            said[name] = values
        elif first == "slurm":
            said.setdefault(first, {})[rest] = read[0] if read else True
        elif not read:
            table, dot, last = name.rpartition(".")
            said[f"{table}{dot}{last.removeprefix('no_')}"] = not last.startswith("no_")
        else:
            said[name] = read if len(read) > 1 else read[0]
    return said


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    from urlrl.evaluation.comparison import table
    from urlrl.evaluation.stats import RULE

    head, rows = table(result)
    drawn = Table(*head, box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*row)
    console = make_console()
    console.print(drawn)
    console.print(RULE, soft_wrap=True)
