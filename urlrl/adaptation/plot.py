"""The ladder's picture: every method along one axis of environment steps."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from urlrl.adaptation.config import METHODS
from urlrl.adaptation.ladder import Cell
from urlrl.evaluation.figures import png
from urlrl.files import write_atomically


def draw(cells: list[Cell], floors: dict[str, float], budget: int, title: str, path: Path) -> None:
    """Mean over seeds as a line, each seed as a thin one; floors in grey."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method in dict.fromkeys(cell.method for cell in cells):
        mine = [cell for cell in cells if cell.method == method]
        grid = np.unique(np.concatenate([[0, budget], *(cell.steps for cell in mine)]))
        grid = grid[grid <= budget]
        lines = np.stack([np.interp(grid, cell.steps, cell.returns) for cell in mine])
        about = METHODS[method]
        style: dict[str, Any] = {"color": about.color, "linestyle": "-" if about.settings else "--"}
        if len(mine) > 1:
            axes.plot(grid, lines.T, **style, linewidth=0.6, alpha=0.3)
        axes.plot(grid, lines.mean(axis=0), **style, linewidth=2, label=f"{about.label} ({len(mine)})")
    low, high = axes.get_ylim()
    for names, value in _together(floors, 0.05 * (high - low)):
        axes.axhline(value, color="0.72", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate(
            names, (1, value), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            color="0.5", fontsize=8, va="center",
        )  # fmt: skip
    axes.set(xlabel="environment steps in the task", ylabel="return", xlim=(0, budget))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, title="mean over (n) seeds")
    write_atomically(path, png(figure, dpi=150))


def _together(floors: dict[str, float], near: float) -> list[tuple[str, float]]:
    """Names and height of each line; floors that would be drawn over each other share one."""
    lines: list[tuple[str, float]] = []
    for name, value in sorted(floors.items(), key=lambda item: item[1]):
        if lines and value - lines[-1][1] < near:
            lines[-1] = (f"{lines[-1][0]}\n{name}", lines[-1][1])
        else:
            lines.append((name, value))
    return lines
