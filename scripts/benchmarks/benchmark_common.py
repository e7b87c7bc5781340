"""What the parts of the benchmark share: how figures are repeated, summarised and put beside their circumstances."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from urlrl.runtime import usable_cores


class Contender(NamedTuple):
    """One of several ways to do the same work."""

    run: Callable[[], Any]  # timed
    prepare: Callable[[], None] = lambda: None  # before each repeat, not timed


def interleave(contenders: dict[str, Contender], repeats: int, seconds: float) -> dict[str, np.ndarray]:
    """Time the contenders in turns (A, B, C, A, B, C, ...), so that other work on the machine meets them all alike.

    The first round warms up and is not counted; then at least `repeats` rounds, and more until `seconds` have passed.
    Returns name -> (rounds,) seconds: entry i of each was measured in the same round, so ratios can be taken by round.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    begin, rounds = 0.0, -1
    while rounds < repeats or time.perf_counter() - begin < seconds:
        if rounds == 0:
            begin = time.perf_counter()
        for name, contender in contenders.items():
            contender.prepare()
            start = time.perf_counter()
            contender.run()
            times[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: np.array(spent[1:]) for name, spent in times.items()}


def spread(values: Sequence[float] | np.ndarray, unit: str) -> dict[str, Any]:
    """Median, quartiles and extremes of repeated measurements."""
    low, q25, median, q75, high = (float(x) for x in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return {"unit": unit, "median": median, "q25": q25, "q75": q75, "min": low, "max": high, "repeats": len(values)}


def show(figure: dict[str, Any], digits: int = 2) -> str:
    """median (quartiles)"""
    return f"{figure['median']:,.{digits}f} ({figure['q25']:,.{digits}f}–{figure['q75']:,.{digits}f})"


def load_average() -> float:
    """Mean number of runnable processes over the last minute; above the number of cores, figures suffer."""
    return round(os.getloadavg()[0], 2)


def load_of(row: dict[str, Any]) -> str:
    """The load average at the end of a measurement, for its table."""
    return f"{row['load_average'][1]:.1f}"


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "usable_cores": usable_cores(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
