"""Results of an adaptation: one JSON file per method and seed, and what they say together."""

import json
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from urlrl.adaptation.config import METHODS, AdaptConfig
from urlrl.config import RESUMABLE_FIELDS, flatten, from_json, run_config_from_json, to_json
from urlrl.errors import UserError, shown
from urlrl.evaluation.stats import area, over_seeds, share
from urlrl.files import write_atomically

FORMAT = "urlrl-adapt-1"
NAME = re.compile(rf"(?P<method>{'|'.join(METHODS)})-(?P<seed>0|[1-9]\d*)\.json")


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

    def __init__(self, folder: Path, agent_config: type):
        """`agent_config` is the class of the config of the agents whose results are compared."""
        self.folder, self.agent_config = folder, agent_config

    def cells(self, same: dict[str, Any]) -> list[Cell]:
        """All that are done, in the order of methods and seeds.

        Raises:
            UserError: one of them is damaged, or a result of something else: together they would say nothing.
        """
        found = [(match, path) for path in sorted(self.folder.glob("*.json")) if (match := NAME.fullmatch(path.name))]
        cells = [self._read(path, match["method"], int(match["seed"])) for match, path in found]
        for cell in cells:
            check_same(self._path(cell.method, cell.seed), cell.method, cell.same, same, self.agent_config)
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


def check_same(path: Path, method: str, there: dict[str, Any], here: dict[str, Any], agent_config: type) -> None:
    """Refuse what is of another task, agent or settings than `here`, where the method depends on these."""
    had, has = (flatten(json.loads(json.dumps(same))) for same in (_as_now(there, agent_config), here))
    for name in has | had:
        if _matters(name, method) and had.get(name) != has.get(name):
            raise UserError(
                f"{path} holds another result: {name} is {had.get(name)!r} there and {has.get(name)!r} here; choose "
                f"another --out, or the same options to add to it."
            )


def _as_now(same: dict[str, Any], agent_config: type) -> dict[str, Any]:
    """What a result says of itself, as this version writes it: settings of 0.1.0 by their names today, and those that
    it did not have as they are by default. What cannot be read like this is of something else, and stays as it is."""
    found = dict(same)
    with suppress(UserError):
        found["config"] = to_json(from_json(AdaptConfig, _object(found.get("config"))))
    with suppress(UserError):
        pretrain = _object(found.get("pretrain"))
        offline = {"data": ""} if "data_id" in pretrain else {}  # Where the data lies is no part of a result.
        read = to_json(run_config_from_json({**pretrain, **offline}, agent_config))
        found["pretrain"] = {name: value for name, value in read.items() if name not in RESUMABLE_FIELDS}
    return found


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"It is {shown(repr(value))}: expected an object.")
    return value


def _mean(returns: Any) -> float:
    """0.1.0 wrote the return of each episode."""
    if isinstance(returns, list) and not returns:
        raise ValueError("its curve has no finite returns")
    return float(np.mean([float(r) for r in returns] if isinstance(returns, list) else float(returns)))


def _matters(name: str, method: str) -> bool:
    """Whether a method's results depend on this setting: not on the own settings of other methods, nor, where it learns
    nothing, on where methods learn."""
    if name == "config.loop":
        return METHODS[method].learns
    own = {setting for other in METHODS.values() for setting in other.settings} - set(METHODS[method].settings)
    return not any(name.startswith(f"config.{setting}.") for setting in own)


def summarise(cells: list[Cell], budget: int, baselines: Collection[float], bound: float | None) -> dict[str, Any]:
    """Per method: seeds, return at the budget's end and area (mean return over the budget), over all seeds and of each;
    `share` of the end from the best baseline to the bound; `over_scratch`: differences of areas from scratch's, paired
    by seed."""
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
        end = over_seeds([np.array(final)])
        result[method] = {
            "seeds": [cell.seed for cell in mine],
            "final": end.to_json(),
            "final_per_seed": final,
            "share": share(end.value, baselines, bound),
            "area": over_seeds([np.array(list(areas.values()))]).to_json(),
            "area_per_seed": list(areas.values()),
            "curves": [[[steps, mean] for steps, mean in cell.curve] for cell in mine],
            "over_scratch": over_seeds([np.array(paired)]).to_json() if paired else None,
            "over_scratch_per_seed": paired,
        }
    return result
