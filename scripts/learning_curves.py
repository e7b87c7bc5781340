"""Summarise runs of several seeds: one JSON, one picture, the commands that made them.

python scripts/learning_curves.py runs/hc-0 runs/hc-1 runs/hc-2 --out docs/results/half-cheetah-quick
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tyro.conf import Positional

from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder


@dataclass(frozen=True)
class Options:
    """Evaluated runs of one config that differ in their seed."""

    runs: Positional[tuple[Path, ...]]
    out: Path  # writes OUT.json and OUT.png


def summarise(run: Path) -> dict:
    """What one run reached, and what it took."""
    manifest = RunFolder(run).manifest()
    rows = read_metrics(run / "metrics.jsonl")
    speed = [row["time/env_steps_per_s"] for row in rows if "critic/loss" in row]
    return {
        "seed": manifest["config"]["seed"],
        "command": manifest["command"],
        "training_minutes": round(sum(row.get("time/epoch_seconds", 0) for row in rows) / 60, 2),
        "env_steps_per_s_median": round(statistics.median(speed)),
        "coverage_curve": [[row["step"], row["eval/coverage"]] for row in rows if "eval/coverage" in row],
        "evaluation": json.loads((run / "evaluation.json").read_text()),
        "config": manifest["config"],
        "versions": manifest["versions"],
    }


def draw(runs: list[dict], path: Path) -> None:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for run in runs:
        left.plot(*zip(*run["coverage_curve"]), label=f"seed {run['seed']}")
    left.set(xlabel="environment steps", ylabel="coverage (1 m cells)", ylim=(0, None))
    left.legend(frameon=False)
    kinds = ("agent", "random")
    for i, run in enumerate(runs):
        distances = [run["evaluation"]["goals"][kind]["final_distance"] for kind in kinds]
        right.bar([i - 0.2, i + 0.2], distances, width=0.38, color=["C0", "0.75"])
    right.set_xticks(range(len(runs)), [f"seed {run['seed']}" for run in runs])
    right.set(ylabel="final goal distance (m)", title="agent (blue) and random policy (grey)")
    figure.savefig(path, dpi=130)


def main(options: Options) -> None:
    runs = [summarise(run) for run in options.runs]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(runs, indent=1) + "\n")
    draw(runs, options.out.with_suffix(".png"))
    for run in runs:
        coverage, goals = run["evaluation"]["coverage"], run["evaluation"]["goals"]
        print(
            f"seed {run['seed']}: {coverage['agent']} cells (random {coverage['random']}), "
            f"min {coverage['min']} max {coverage['max']}, goal distance {goals['agent']['final_distance']:.1f} m "
            f"(random {goals['random']['final_distance']:.1f}), {run['training_minutes']} min"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
