"""Goal-relabelled batches from a memory-mapped dataset, and rewards computed from stored physics; on one core.

The dataset has the sizes of dm_control's walker, physics left out, so that the full-size one (5M transitions) is
0.6 GB; its content does not matter. Sampling runs in a process of its own, whose memory is read from the kernel: what
it holds itself (anonymous), and what of the file is mapped at the time, which the kernel takes back when others need
it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_common import load_average, load_of, show, spread
from rich.table import Table

from urlrl.data.dataset import DatasetInfo, Episode, write_dataset
from urlrl.tasks.catalogue import ZERO_SHOT_TASKS, find_task

OBS, ACTION, STEPS = 24, 6, 1000  # dm_control's walker
BATCHES, BATCH = 64, 1024
SEED = 0
ROWS = 1_000_000  # physics rows that are labelled


def make_dataset(folder: Path, transitions: int) -> int:
    """Episodes of noise; returns their bytes on disk."""
    rng = np.random.default_rng(SEED)
    block = rng.standard_normal((64, STEPS + 1, OBS)).astype(np.float32)
    action, zeros = rng.uniform(-1, 1, (STEPS, ACTION)).astype(np.float32), np.zeros(STEPS, np.float32)
    episodes = (Episode(block[i % len(block)], action, zeros, zeros.astype(bool)) for i in range(transitions // STEPS))
    write_dataset(folder, DatasetInfo("dmc:walker_walk", "noise"), episodes)
    return sum(path.stat().st_size for path in folder.iterdir())


def sample(folder: str, repeats: int, seconds: float) -> None:
    """What the child process does: prints its figures as JSON."""
    import jax

    from urlrl.data.dataset import Dataset
    from urlrl.types import BatchSpec, Goals

    dataset, spec = Dataset(folder), BatchSpec(size=BATCH, goals=Goals())
    before, rates, peak = memory(), [], 0
    dataset.sample(jax.random.key(SEED), BATCHES, spec)
    begin, call = time.perf_counter(), 0
    while len(rates) < repeats or time.perf_counter() - begin < seconds:
        call += 1
        start = time.perf_counter()
        dataset.sample(jax.random.key(call), BATCHES, spec)
        rates.append(BATCHES * BATCH / (time.perf_counter() - start))
        peak = max(peak, memory()["RssAnon"])
    print(json.dumps({"rates": rates, "before": before["RssAnon"], "peak": peak, "mapped": memory()["RssFile"]}))


def memory() -> dict[str, int]:
    """Bytes, by the kernel's names; zeros where it does not say."""
    path, found = Path("/proc/self/status"), {"RssAnon": 0, "RssFile": 0}
    for line in path.read_text().splitlines() if path.is_file() else []:
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = 1024 * int(rest.split()[0])
    return found


def measure_sampling(transitions: int, repeats: int, seconds: float) -> dict[str, Any]:
    load = load_average()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        size = make_dataset(folder, transitions)
        code = f"import benchmark_data; benchmark_data.sample({str(folder)!r}, {repeats}, {seconds})"
        env = {**os.environ, "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        one_core = ["taskset", "-c", "0"] if sys.platform == "linux" else []
        done = subprocess.run(
            [*one_core, sys.executable, "-c", code], cwd=Path(__file__).parent, env=env, capture_output=True, check=True
        )
    found = json.loads(done.stdout)
    return {
        "transitions": transitions, "bytes": size, "batch": BATCH, "batches_per_call": BATCHES, "seed": SEED,
        "load_average": [load, load_average()],
        "rate": spread(found["rates"], "goal-relabelled transitions/s, one core"),
        "memory": {
            "unit": "bytes", "anonymous_before": found["before"], "anonymous_peak": found["peak"],
            "mapped_at_end": found["mapped"],
        },
    }  # fmt: skip


def measure_relabelling(rows: int, repeats: int) -> list[dict[str, Any]]:
    """Physics rows of a body in free motion: what they hold does not change the time."""
    rng, found = np.random.default_rng(SEED), []
    physics, action = rng.standard_normal((rows, 18)), rng.uniform(-1, 1, (rows, 6))
    for name in (*ZERO_SHOT_TASKS["walker"], *ZERO_SHOT_TASKS["cheetah"]):
        task, rates, load = find_task(name), [], load_average()
        assert task.reward is not None
        for _ in range(repeats):
            start = time.perf_counter()
            task.reward(physics, action)
            rates.append(rows / (time.perf_counter() - start))
        found.append(
            {"task": name, "rows": rows, "load_average": [load, load_average()], "rate": spread(rates, "rows/s")}
        )
    return found


def measure(transitions: int, rows: int, repeats: int, seconds: float) -> dict[str, Any]:
    return {
        "sampling": measure_sampling(transitions, repeats, seconds),
        "relabelling": measure_relabelling(rows, repeats),
    }


def table(result: dict[str, Any]) -> Table:
    out = Table("what", "size", "rate, 1,000/s", "memory", "load", title="Data, median (quartiles)")
    row = result["sampling"]
    mib = {name: value / 2**20 for name, value in row["memory"].items() if name != "unit"}
    out.add_row(
        "goal-relabelled transitions, one core",
        f"{row['transitions']:,} transitions, {row['bytes'] / 2**20:,.0f} MiB",
        show(_thousands(row["rate"]), 0),
        f"{mib['anonymous_peak']:,.0f} MiB own ({mib['anonymous_before']:,.0f} before), "
        f"{mib['mapped_at_end']:,.0f} mapped",
        load_of(row),
    )
    for row in result["relabelling"]:
        out.add_row(row["task"], f"{row['rows']:,} rows", show(_thousands(row["rate"]), 0), "", load_of(row))
    return out


def _thousands(figure: dict[str, Any]) -> dict[str, Any]:
    return {name: value / 1e3 if name in ("median", "q25", "q75") else value for name, value in figure.items()}
