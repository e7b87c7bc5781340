"""Put the results of `urlrl evaluate RUN --suite SUITE --json FILE` of several agents and seeds side by side.

python scripts/zero_shot_table.py runs/fb-walker-*.json runs/sf-walker-*.json --out docs/results/zero-shot-walker

Writes OUT.json (what all files hold, and each run's command and config) and OUT.png, and prints a Markdown table:
returns by task, beside all baselines, the best episode of the data, and an upper bound where one is known. A share is 0
at the best baseline and 1 at the upper bound. Results with another number of samples than the protocol's are series of
their own. A result may say under "chosen" how its length or settings were chosen by scores; its agent is marked then.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tyro.conf import Positional

from urlrl.errors import UserError
from urlrl.evaluation.stats import RULE, Estimate, over_seeds, shown
from urlrl.evaluation.suites import share_of

Told = tuple[str, int | None]  # kind of prompt; labelled transitions, where they are not as many as the protocol has
Series = dict[tuple[str, Told], dict[int, dict[str, Any]]]  # (agent, told by) -> seed -> result

MARK = "†"  # of an agent whose scores chose something of its own
BASELINE_STYLES = {"random": ("0.4", ":"), "zero action": ("0.4", "-."), "standing still": ("m", "-")}


@dataclass(frozen=True)
class Options:
    """Results of one suite."""

    results: Positional[tuple[Path, ...]]  # JSON files
    out: Path  # writes OUT.json and OUT.png


def load(files: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Raises UserError if they are not of one suite."""
    results = [json.loads(file.read_text()) for file in files]
    suites = sorted({result["suite"] for result in results})
    if len(suites) != 1:
        raise UserError(f"The results are of {', '.join(suites) or 'no suite'}: expected one suite.")
    return results


def by_series(results: list[dict[str, Any]]) -> Series:
    """Results by agent and what it was told by."""
    series: Series = {}
    for result in results:
        other = result["samples"] if result["samples"] != result["protocol"]["samples"] else None
        for prompt in dict.fromkeys(row["prompt"] for row in result["rows"]):
            told = (prompt, other if prompt == "reward" else None)
            series.setdefault((label(result), told), {})[result["run_seed"]] = result
    return series


def name_of(agent: str, told: Told) -> str:
    prompt, samples = told
    return f"{agent}, {prompt}{'' if samples is None else f' ({samples})'}"


def label(result: dict[str, Any]) -> str:
    """An agent, with what tells its variants apart."""
    config = result["config"]["agent"]
    variant = config.get("features") or ({"none": ""}.get(config.get("penalty", "none"), config.get("penalty")))
    return f"{result['agent']}{f' ({variant})' if variant else ''}{MARK if result.get('chosen') else ''}"


def row_of(result: dict[str, Any], task: str, told: Told) -> dict[str, Any] | None:
    return next((row for row in result["rows"] if (row["task"], row["prompt"]) == (task, told[0])), None)


def seeds_of(results: dict[int, dict[str, Any]], task: str, told: Told) -> list[float]:
    """Return of each seed, in order of the seeds."""
    rows = [row_of(results[seed], task, told) for seed in sorted(results)]
    return [row["return"]["mean"] for row in rows if row]


def table(results: list[dict[str, Any]], series: Series) -> str:
    """Markdown: the agents' returns, and beside them all that is known of the task."""
    baselines = list(dict.fromkeys(name for result in results for row in result["rows"] for name in row["floors"]))
    columns = ["task", "agent, told by", "return", "share", *baselines, "upper bound", "best in data", "R²"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for task in results[0]["protocol"]["tasks"]:
        for (agent, told), mine in series.items():
            rows = [row for seed in sorted(mine) if (row := row_of(mine[seed], task, told))]
            if not rows:
                continue
            known, fits = rows[0], [row["fit"]["r2"] for row in rows if row["fit"] and row["fit"]["r2"] is not None]
            returns = seeds_of(mine, task, told)
            cells = [
                task,
                name_of(agent, told),
                shown(returns, 0),
                two_digits(share_of(known, over_seeds([np.array(returns)]).value)),
            ]
            cells += [f"{known['floors'][name]['mean']:.0f}" if name in known["floors"] else "" for name in baselines]
            cells += ["" if known["ceiling"] is None else f"{known['ceiling'][0]:.0f}"]
            cells += ["" if known["best_in_data"] is None else f"{known['best_in_data']:.0f}"]
            lines.append(f"| {' | '.join([*cells, two_digits(float(np.mean(fits)) if fits else None)])} |")
    return "\n".join([*lines, *notes(results)])


def notes(results: list[dict[str, Any]]) -> list[str]:
    """What the marks mean."""
    return sorted({f"\n{label(result)}: {result['chosen']}" for result in results if result.get("chosen")})


def two_digits(value: float | None) -> str:
    return "" if value is None else f"{round(value, 2) + 0.0:.2f}"


def draw(results: list[dict[str, Any]], series: Series, path: Path) -> None:
    tasks = results[0]["protocol"]["tasks"]
    figure = Figure(figsize=(2.2 * len(tasks) + 1, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks):
        for i, ((agent, told), mine) in enumerate(series.items()):
            returns = seeds_of(mine, task, told)
            found = over_seeds([np.array(returns)]) if returns else Estimate(0.0)
            axis.bar(i, found.value, color=f"C{i}", alpha=0.5, label=name_of(agent, told))
            axis.plot([i] * len(returns), returns, "o", color=f"C{i}", markersize=3)
            axis.vlines(i, found.low, found.high, color="k", linewidth=1)
        row = next(row for row in results[0]["rows"] if row["task"] == task)
        marks = {name: (floor["mean"], *BASELINE_STYLES[name]) for name, floor in row["floors"].items()}
        marks["best in data"] = (row["best_in_data"], "k", "--")
        marks["upper bound"] = (None if row["ceiling"] is None else row["ceiling"][0], "k", "-")
        for name, (value, color, style) in marks.items():
            if value is not None:
                axis.axhline(value, color=color, linestyle=style, linewidth=1, label=name)
        axis.set(title=task, xticks=[], ylim=(0, None))
        axis.title.set_fontsize(9)
    figure.axes[0].set_ylabel("return")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=130)


def main(options: Options) -> None:
    results = load(options.results)
    series = by_series(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, series, options.out.with_suffix(".png"))
    print(f"{table(results, series)}\n\n{RULE}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        print(f"zero_shot_table: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
