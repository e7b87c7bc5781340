"""Coverage curves of several settings, each with several seeds: one JSON, one picture, one table.

python scripts/compare_runs.py runs/envs-64x25 runs/envs-256x25 --out docs/results/num-envs

Each folder holds what `urlrl pretrain ... --seeds 0..4 --out FOLDER` made. Curves and bands are what
`urlrl.evaluation.stats.over_seeds` makes of the seeds.
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
from urlrl.evaluation.stats import over_seeds, shown
from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder


@dataclass(frozen=True)
class Options:
    """Runs that were evaluated at the same steps."""

    settings: Positional[tuple[Path, ...]]
    out: Path  # writes OUT.json and OUT.png


def read(folder: Path) -> dict[str, Any]:
    """A setting's curve, and what it was."""
    runs = sorted(folder.glob("seed-*"))
    if not runs:
        raise UserError(f"{folder} holds no runs: expected folders seed-0, seed-1, ...")
    curves = [
        {row["step"]: row["eval/coverage"] for row in read_metrics(run / "metrics.jsonl") if "eval/coverage" in row}
        for run in runs
    ]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = [[curve[step] for curve in curves] for step in steps]
    manifest = RunFolder(runs[0]).manifest()
    config = manifest["config"]
    return {
        "setting": folder.name, "command": manifest["command"], "seeds": len(runs), "steps": steps, "coverage": values,
        **{name: config[name] for name in ("num_envs", "rollout_steps", "steps_per_update")},
        "updates": round(config["num_envs"] * config["rollout_steps"] / config["steps_per_update"]),
    }  # fmt: skip


def draw(settings: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for setting in settings:
        value, low, high = zip(*(over_seeds([np.array(row)]) for row in setting["coverage"]))
        label = "{num_envs} x {rollout_steps} steps, then {updates} updates".format(**setting)
        (line,) = axes.plot(setting["steps"], value, label=label)
        axes.fill_between(setting["steps"], low, high, color=line.get_color(), alpha=0.07, lw=0)
    axes.set(xlabel="environment steps", ylabel="coverage (1 m cells)", ylim=(0, None))
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=130)


def main(options: Options) -> None:
    settings = [read(folder) for folder in options.settings]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(settings, indent=1) + "\n")
    draw(settings, options.out.with_suffix(".png"))
    for setting in settings:
        print(
            f"{setting['setting']}: {shown(setting['coverage'][-1], 1)} cells at step {setting['steps'][-1]:,}, "
            f"{setting['seeds']} seeds"
        )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        print(f"compare_runs: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
