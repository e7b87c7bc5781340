"""A short real run of `urlrl pretrain` in a process of its own: speed, where the time goes, peak memory."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmark_common import load_average, load_of, show, spread
from rich.table import Table

from urlrl.errors import UserError
from urlrl.training.log import read_metrics

SEED = 0
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024  # unit of ru_maxrss
SHARES = ("env", "learner", "host")


def pretrain(preset: str, steps: int) -> dict[str, Any]:
    """One row of the result. Speeds are of the epochs that learned; the process's time includes start and compiling.

    Raises:
        UserError: the run failed.
    """
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        run, errors = Path(folder) / "run", Path(folder) / "errors"
        command = f"-m urlrl pretrain metra --preset {preset} --seed {SEED} --steps {steps} --quiet".split()
        start = time.perf_counter()
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, *command, "--out", str(run)], stdout=subprocess.DEVNULL, stderr=stderr
            )
            # wait4 tells of this one child; its peak counts this process's size at the fork too, which is smaller.
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if process.returncode:
            said = errors.read_text().strip().splitlines() or ["nothing"]
            raise UserError(f"`python {' '.join(command)}` exited with {process.returncode} and said: {said[-1]}")
        epochs = [row for row in read_metrics(run / "metrics.jsonl") if row.get("time/updates_per_s")]
    shares = {name: [row[f"time/{name}_share"] for row in epochs] for name in SHARES}
    return {
        "preset": preset, "steps": steps, "seed": SEED, "load_average": [load, load_average()],
        "env_steps_per_s": spread([row["time/env_steps_per_s"] for row in epochs], "env steps/s, by epoch"),
        "updates_per_s": spread([row["time/updates_per_s"] for row in epochs], "updates/s, by epoch"),
        "shares": {name: spread(values, "share of an epoch's time") for name, values in shares.items()},
        "process": {"unit": "s", "value": wall},
        "peak_memory": {"unit": "bytes, resident", "value": usage.ru_maxrss * MAXRSS_BYTES},
    }  # fmt: skip


def measure(presets: dict[str, int]) -> list[dict[str, Any]]:
    """A row for each preset -> steps."""
    return [pretrain(preset, steps) for preset, steps in presets.items()]


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(
        "preset", "steps", "env steps/s", "updates/s", *(f"in {name}" for name in SHARES), "process, s", "peak, MiB",
        "load", title="urlrl pretrain, epochs that learn, median (quartiles)",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            row["preset"],
            f"{row['steps']:,}",
            show(row["env_steps_per_s"], 0),
            show(row["updates_per_s"], 0),
            *(f"{row['shares'][name]['median']:.0%}" for name in SHARES),
            f"{row['process']['value']:.0f}",
            f"{row['peak_memory']['value'] / 2**20:,.0f}",
            load_of(row),
        )
    return out
