"""Results of an adaptation: one JSON file per method and seed, and what they say together."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from urlrl.adaptation.config import METHODS
from urlrl.config import flatten
from urlrl.errors import UserError
from urlrl.evaluation.stats import Estimate, area, iqm_interval, mean_interval
from urlrl.files import write_atomically
from urlrl.renamed import renewed

FORMAT = "urlrl-adapt-1"
NAME = re.compile(rf"(?P<method>{'|'.join(METHODS)})-(?P<seed>0|[1-9]\d*)\.json")
NOT_YET = {"config.loop": "host"}  # settings that results of 0.1.0 may not name, as they were then


@dataclass(frozen=True)
class Cell:
    """One method with one seed; `same` is what a repeat of it must share: task, agent, settings."""

    method: str
    seed: int
    same: dict[str, Any]
    curve: list[tuple[int, float]]  # control steps, mean return of the evaluation's episodes
    notes: dict[str, Any]
    seconds: float

    @property
    def steps(self) -> np.ndarray:
        return np.array([steps for steps, _ in self.curve])

    @property
    def returns(self) -> np.ndarray:
        return np.array([mean for _, mean in self.curve])


class Ladder:
    """The folder of one task: `<method>-<seed>.json`; in the folder `<method>-<seed>` what was learned; and
    `ladder.json`, which merges the results."""

    def __init__(self, folder: Path):
        self.folder = folder

    def cells(self, same: dict[str, Any]) -> list[Cell]:
        """All that are done, in the order of methods and seeds.

        Raises:
            UserError: one of them is damaged, or a result of something else: together they would say nothing.
        """
        found = [(match, path) for path in sorted(self.folder.glob("*.json")) if (match := NAME.fullmatch(path.name))]
        cells = [self._read(path, match["method"], int(match["seed"])) for match, path in found]
        for cell in cells:
            check_same(self._path(cell.method, cell.seed), cell.method, cell.same, same)
        order = list(METHODS)
        return sorted(cells, key=lambda cell: (order.index(cell.method), cell.seed))

    def done(self, same: dict[str, Any]) -> set[tuple[str, int]]:
        """(method, seed) of `cells`."""
        return {(cell.method, cell.seed) for cell in self.cells(same)}

    def add(self, cell: Cell) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, **cell.__dict__}
        write_atomically(self._path(cell.method, cell.seed), json.dumps(content).encode())

    def _path(self, method: str, seed: int) -> Path:
        return self.folder / f"{method}-{seed}.json"

    def _read(self, path: Path, method: str, seed: int) -> Cell:
        try:
            content = json.loads(path.read_text())
            if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
                raise ValueError(f"it does not say format {FORMAT}")
            cell = Cell(**content)
            curve = [(int(steps), _mean(returns)) for steps, returns in cell.curve]
            if (cell.method, cell.seed) != (method, seed):
                raise ValueError(f"it is of {cell.method!r}, seed {cell.seed!r}")
            if not isinstance(cell.same, dict):
                raise ValueError("it does not say what it is a result of")
            if not curve or not all(np.isfinite(mean) for _, mean in curve):
                raise ValueError("its curve has no finite returns")
            return replace(cell, curve=curve)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} cannot be read as a result: {error}.") from error


def check_same(path: Path, method: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuse what is of another task, agent or settings than `here`, where the method depends on these."""
    there = {**there, "pretrain": renewed(there.get("pretrain", {}))}
    had, has = NOT_YET | flatten(there), flatten(json.loads(json.dumps(here)))  # Tuples are lists in JSON.
    for name in has | had:
        new = name.startswith("pretrain.") and name not in had  # 0.1.0 did not know it, and acted as it is.
        if _matters(name, method) and not new and had.get(name) != has.get(name):
            raise UserError(
                f"{path} holds another result: {name} is {had.get(name)!r} there and {has.get(name)!r} here; choose "
                f"another --out, or the same options to add to it."
            )


def _mean(returns: Any) -> float:
    """0.1.0 wrote the return of each episode."""
    if isinstance(returns, list) and not returns:
        raise ValueError("its curve has no finite returns")
    return float(np.mean([float(r) for r in returns] if isinstance(returns, list) else float(returns)))


def _matters(name: str, method: str) -> bool:
    """Whether a method's results depend on this setting: other methods' own settings may differ."""
    own = {setting for other in METHODS.values() for setting in other.settings} - set(METHODS[method].settings)
    return not any(name.startswith(f"config.{setting}.") for setting in own)


def summarise(cells: list[Cell], budget: int, expert: float | None) -> dict[str, Any]:
    """Per method: seeds, return at the budget's end and area (mean return over the budget), each with an interval and
    per seed; `over_scratch`: differences of areas from scratch's, paired by seed."""
    by_method = {method: [cell for cell in cells if cell.method == method] for method in METHODS}
    scratch = {
        cell.seed: area(cell.steps, cell.returns, budget) for cell in cells if not METHODS[cell.method].pretrained
    }
    result = {}
    for method, mine in by_method.items():
        if not mine:
            continue
        final = [float(cell.returns[-1]) for cell in mine]
        areas = {cell.seed: area(cell.steps, cell.returns, budget) for cell in mine}
        compared = scratch if METHODS[method].pretrained else {}
        paired = [areas[seed] - compared[seed] for seed in areas if seed in compared]
        end = iqm_interval([np.array(final)])
        result[method] = {
            "seeds": [cell.seed for cell in mine],
            "final": end.to_json(),
            "final_per_seed": final,
            "normalised": None if expert is None else end.value / expert,
            "area": iqm_interval([np.array(list(areas.values()))]).to_json(),
            "area_per_seed": list(areas.values()),
            "curves": [[[steps, mean] for steps, mean in cell.curve] for cell in mine],
            "over_scratch": mean_interval(np.array(paired)).to_json() if paired else None,
        }
    return result


def estimate(data: dict[str, float | None] | None, digits: int = 1) -> str:
    """'4.2 [3.9, 4.6]'; without an interval where there is none, empty without data."""
    return "" if data is None else Estimate.from_json(data).text(digits)
