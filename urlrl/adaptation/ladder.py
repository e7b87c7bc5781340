"""Results of an adaptation: one JSON file per method and seed, and what they say together."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from urlrl.adaptation.config import METHODS
from urlrl.errors import UserError
from urlrl.evaluation.stats import Estimate, area, iqm_interval, mean_interval
from urlrl.files import write_atomically

FORMAT = "urlrl-adapt-1"
LABELS = {
    "zero_shot": "zero-shot prompt",
    "z_search": "search over z",
    "hierarchical": "hierarchical control",
    "finetune": "fine-tuning",
    "scratch": "from scratch",
}


@dataclass(frozen=True)
class Cell:
    """One method with one seed; `same` is what a repeat of it must share: task, agent, settings."""

    method: str
    seed: int
    same: dict[str, Any]
    curve: list[tuple[int, list[float]]]  # control steps, returns of the evaluation's episodes
    notes: dict[str, Any]
    seconds: float

    @property
    def steps(self) -> np.ndarray:
        return np.array([steps for steps, _ in self.curve])

    @property
    def returns(self) -> np.ndarray:
        return np.array([np.mean(returns) for _, returns in self.curve])


class Ladder:
    """The folder of one task: `<method>-<seed>.json`, and `ladder.json`, which merges them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def find(self, method: str, seed: int, same: dict[str, Any]) -> bool:
        """Whether this cell is done. Raises UserError if the file there is of something else."""
        path = self._path(method, seed)
        if not path.exists():
            return False
        there = _flat(self._read(path).same)
        for name, value in _flat(same).items():
            if there.get(name) != value:
                raise UserError(
                    f"{path} holds another result: {name} is {there.get(name)!r} there and {value!r} here; choose "
                    "another --out, or the same options to add to it."
                )
        return True

    def add(self, cell: Cell) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, **cell.__dict__}
        write_atomically(self._path(cell.method, cell.seed), json.dumps(content).encode())

    def cells(self) -> list[Cell]:
        """All that are done, in the order of methods and seeds."""
        paths = [path for path in self.folder.glob("*-*.json") if path.stem.split("-")[0] in METHODS]
        cells = [self._read(path) for path in paths]
        return sorted(cells, key=lambda cell: (METHODS.index(cell.method), cell.seed))

    def _path(self, method: str, seed: int) -> Path:
        return self.folder / f"{method}-{seed}.json"

    def _read(self, path: Path) -> Cell:
        try:
            content = json.loads(path.read_text())
            if content.pop("format", None) != FORMAT:
                raise ValueError(f"it does not say format {FORMAT}")
            content["curve"] = [(int(steps), [float(r) for r in returns]) for steps, returns in content["curve"]]
            return Cell(**content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} cannot be read as a result: {error}.") from error


def summarise(cells: list[Cell], budget: int, expert: float | None) -> dict[str, Any]:
    """Per method: seeds, return at the budget's end and area (mean return over the budget), each with an interval and
    per seed; `over_scratch`: differences of areas from scratch's, paired by seed."""
    by_method = {method: [cell for cell in cells if cell.method == method] for method in METHODS}
    scratch = {cell.seed: area(cell.steps, cell.returns, budget) for cell in by_method["scratch"]}
    result = {}
    for method, mine in by_method.items():
        if not mine:
            continue
        final = [float(cell.returns[-1]) for cell in mine]
        areas = {cell.seed: area(cell.steps, cell.returns, budget) for cell in mine}
        paired = [areas[seed] - scratch[seed] for seed in areas if seed in scratch]
        end = _interval(final)
        result[method] = {
            "seeds": [cell.seed for cell in mine],
            "final": end,
            "final_per_seed": final,
            "normalised": None if expert is None else end["value"] / expert,
            "area": _interval(list(areas.values())),
            "area_per_seed": list(areas.values()),
            "curves": [[[steps, float(np.mean(returns))] for steps, returns in cell.curve] for cell in mine],
            "over_scratch": mean_interval(np.array(paired))._asdict() if paired and method != "scratch" else None,
        }
    return result


def _interval(values: list[float]) -> dict[str, float]:
    return iqm_interval([np.array(values)])._asdict()


def estimate(data: dict[str, float] | None, digits: int = 1) -> str:
    """'4.2 [3.9, 4.6]'; without an interval where there is none, empty without data."""
    return "" if data is None else Estimate(**data).text(digits)


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """JSON by dotted names; tuples are lists there."""
    flat: dict[str, Any] = {}
    for name, value in json.loads(json.dumps(data)).items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
