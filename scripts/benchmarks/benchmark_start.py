"""What a user waits for: seconds until Python has imported the library, and what runs its bundles."""

import subprocess
import sys
from typing import Any

from benchmark_common import load_average, load_of, show, spread
from rich.table import Table

MODULES = ("urlrl", "urlrl.skills.policy")
SECONDS = (
    "import time; start, busy = time.perf_counter(), time.process_time(); import {}; "
    "print(time.perf_counter() - start, time.process_time() - busy)"
)


def import_seconds(module: str) -> tuple[float, float]:
    """In a new process, without the start of Python itself: in all, and of a processor."""
    took, busy = subprocess.check_output([sys.executable, "-c", SECONDS.format(module)]).split()
    return float(took), float(busy)


def measure(repeats: int) -> list[dict[str, Any]]:
    """A row for each import."""
    rows = []
    for name in MODULES:
        load = load_average()
        took, busy = zip(*(import_seconds(name) for _ in range(repeats)))
        times = {"time": spread(took, "s"), "processor": spread(busy, "s")}
        rows.append({"what": f"import {name}", **times, "load_average": [load, load_average()]})
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table("what", "seconds", "of a processor", "load", title="Imports, median (quartiles)")
    for row in rows:
        out.add_row(row["what"], show(row["time"], 3), show(row["processor"], 3), load_of(row))
    return out
