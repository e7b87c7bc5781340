"""What a user waits for: seconds until Python has imported the library, and microseconds per action of a bundle."""

import subprocess
import sys
import timeit
from typing import Any

import numpy as np
from benchmark_common import load_average, load_of, show, spread
from rich.table import Table

from urlrl.skills import BUNDLES
from urlrl.skills.policy import SkillPolicy

MODULES = ("urlrl", "urlrl.skills.policy")
CALLS = 1_000  # of the policy, in one measurement
SECONDS = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def import_seconds(module: str) -> float:
    """In a new process, without the start of Python itself."""
    return float(subprocess.check_output([sys.executable, "-c", SECONDS.format(module)]))


def measure(repeats: int) -> list[dict[str, Any]]:
    """A row for each import, and one for an action of the `ant` bundle, two layers of 256."""
    load = load_average()
    rows = {f"import {name}": spread([import_seconds(name) for _ in range(repeats)], "s") for name in MODULES}
    policy = SkillPolicy.from_pretrained(BUNDLES / "ant")
    obs, z = np.zeros(29), policy.skills["east"]
    seconds = timeit.repeat(lambda: policy.act(obs, z), number=CALLS, repeat=repeats)
    rows["action of the ant bundle"] = spread(1e6 * np.array(seconds) / CALLS, "us")
    return [{"what": what, "time": time, "load_average": [load, load_average()]} for what, time in rows.items()]


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table("what", "unit", "time", "load", title="Imports and actions, median (quartiles)")
    for row in rows:
        digits = 3 if row["time"]["unit"] == "s" else 1
        out.add_row(row["what"], row["time"]["unit"], show(row["time"], digits), load_of(row))
    return out
