"""The ladder's picture: every method along one axis of environment steps."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from urlrl.adaptation.config import METHODS
from urlrl.evaluation.figures import png
from urlrl.evaluation.stats import over_seeds
from urlrl.files import write_atomically

LINE = 0.045  # a line of small text, as a share of the axis


def draw(result: dict[str, Any], path: Path) -> None:
    """Of what `adapt` returns: what the seeds come to, with its interval; each seed thinly; baselines in grey."""
    budget = result["steps"]
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method, entry in result["methods"].items():
        curves = [np.array(curve, float) for curve in entry["curves"]]
        grid = np.unique(np.concatenate([[0, budget], *(curve[:, 0] for curve in curves)]))
        grid = grid[grid <= budget]
        lines = np.stack([np.interp(grid, *curve.T) for curve in curves])
        middle, low, high = zip(*(over_seeds([column]) for column in lines.T))
        about = METHODS[method]
        style: dict[str, Any] = {"color": about.color, "linestyle": "-" if about.settings else "--"}
        if len(lines) > 1:
            axes.plot(grid, lines.T, **style, linewidth=0.6, alpha=0.3)
        axes.fill_between(grid, low, high, color=about.color, alpha=0.07, linewidth=0)
        axes.plot(grid, middle, **style, linewidth=2, label=f"{about.label} ({len(lines)})")
    _draw_baselines(axes, {name: floor["mean"] for name, floor in result["floors"].items()})
    axes.set(xlabel="environment steps in the task", ylabel="return", xlim=(0, budget))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    title = f"{result['task']}: {result['agent']} pretrained on {result['env']} for {result['pretrain_steps']:,} steps"
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, title="over (n) seeds")
    write_atomically(path, png(figure, dpi=150))


def _draw_baselines(axes: Axes, baselines: dict[str, float]) -> None:
    """A line for each at its own height. Names that would be printed over each other move up, the highest most."""
    for value in baselines.values():
        axes.axhline(value, color="0.5", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    low, high = axes.get_ylim()
    place, at = axes.get_yaxis_transform(), -np.inf
    for name, value in sorted(baselines.items(), key=lambda item: item[1]):
        at = max(value, at + LINE * (high - low))
        axes.annotate(
            name, (1, value), xycoords=place, xytext=(1.02, at), textcoords=place,
            color="0.5", fontsize=8, va="center", arrowprops={"arrowstyle": "-", "color": "0.8", "linewidth": 0.6},
        )  # fmt: skip
