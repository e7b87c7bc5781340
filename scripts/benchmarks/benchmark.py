"""Speed and memory: `make bench`, or
`python scripts/benchmarks/benchmark.py [--quick] [--parts environment] [--out FILE]`.

Writes one JSON file and prints it as tables. Figures are medians with quartiles over interleaved repeats, each beside
what the machine could do at best: MuJoCo's C alone, matrix products alone. Trust them where the load average is low.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import benchmark_bundle
import benchmark_data
import benchmark_device
import benchmark_env
import benchmark_learner
import benchmark_offline
import benchmark_run
import benchmark_seeds
import benchmark_start
import benchmark_surprise
import tyro
from benchmark_common import machine
from rich.console import Console
from rich.table import Table

from urlrl.errors import UserError
from urlrl.files import write_atomically
from urlrl.runtime import versions

Part = Literal["run", "data", "environment", "learner", "offline", "device", "seeds", "surprise", "start", "bundle"]


@dataclass(frozen=True)
class Sizes:
    num_envs: tuple[int, ...] = (8, 32, 128)  # copies of each environment
    steps: int = 100  # control steps of each copy per repeat
    widths: tuple[int, ...] = (256, 512, 1024)  # units of both hidden layers
    updates: int = 50  # gradient steps per call
    offline_updates: int = 5  # the same, of the offline agents
    offline_batch: int = 1024  # transitions of each of these
    transitions: int = 5_000_000  # of the dataset that is sampled
    rows: int = 1_000_000  # physics rows that are labelled
    device_envs: tuple[str, ...] = ("point", "maze:rooms", "mjx:half_cheetah")  # trained in on the device
    seeds: int = 4  # at once, there and on a dataset
    surprise_presets: tuple[str, ...] = ("rooms-quick", "tv-quick", "minigrid-paper")  # of adversarial surprise
    surprise_seeds: int = 8  # at once, with these
    bundle_width: int = 1024  # units of FB's policy, as a bundle
    bundle_rows: int = 5_120  # transitions that it is told rewards on
    repeats: int = 5  # rounds of each comparison, at least
    seconds: float = 10.0  # of each comparison, at least
    presets: dict[str, int] = field(  # preset -> steps of the run
        default_factory=lambda: {"half-cheetah-quick": 120_000, "ant-quick": 80_000}
    )


QUICK = Sizes(
    num_envs=(8,), steps=20, widths=(256,), updates=5, seconds=0.0, offline_updates=1, offline_batch=256,
    transitions=100_000, rows=20_000, device_envs=("point",), seeds=2,
    surprise_presets=("block-quick",), surprise_seeds=2, bundle_width=64, bundle_rows=100,
    presets={"half-cheetah-quick": 16_000, "ant-quick": 16_000},
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Measure speed and memory; several minutes."""

    out: Path = Path("runs/bench.json")  # the result
    quick: bool = False  # small sizes, under a minute: shows that it works, not how fast
    parts: tuple[Part, ...] = (
        "run",
        "data",
        "environment",
        "learner",
        "offline",
        "device",
        "seeds",
        "surprise",
        "start",
        "bundle",
    )  # what to measure


def _measures(sizes: Sizes) -> dict[Part, tuple[Callable[[], Any], Callable[[Any], Table]]]:
    """By part: what measures it, and what makes a table of that."""
    # The run comes first: the peak memory of a child process counts what this one held when it began.
    return {
        "run": (lambda: benchmark_run.measure(sizes.presets), benchmark_run.table),
        "data": (
            lambda: benchmark_data.measure(sizes.transitions, sizes.rows, sizes.repeats, sizes.seconds),
            benchmark_data.table,
        ),
        "offline": (
            lambda: benchmark_offline.measure(
                sizes.widths, sizes.offline_updates, sizes.repeats, sizes.seconds, sizes.offline_batch
            ),
            benchmark_offline.table,
        ),
        "environment": (
            lambda: benchmark_env.measure(sizes.num_envs, sizes.steps, sizes.repeats, sizes.seconds),
            benchmark_env.table,
        ),
        "learner": (
            lambda: benchmark_learner.measure(sizes.widths, sizes.updates, sizes.repeats, sizes.seconds),
            benchmark_learner.table,
        ),
        "device": (
            lambda: benchmark_device.measure(sizes.device_envs, sizes.seeds, sizes.repeats, sizes.seconds),
            benchmark_device.table,
        ),
        "seeds": (
            lambda: benchmark_seeds.measure(sizes.seeds, sizes.offline_updates, sizes.repeats, sizes.seconds),
            benchmark_seeds.table,
        ),
        "surprise": (
            lambda: benchmark_surprise.measure(
                sizes.surprise_presets, sizes.surprise_seeds, sizes.repeats, sizes.seconds
            ),
            benchmark_surprise.table,
        ),
        "start": (lambda: benchmark_start.measure(sizes.repeats), benchmark_start.table),
        "bundle": (
            lambda: benchmark_bundle.measure(sizes.repeats, sizes.seconds, sizes.bundle_width, sizes.bundle_rows),
            benchmark_bundle.table,
        ),
    }


def benchmark(sizes: Sizes, parts: tuple[Part, ...], out: Path) -> dict[str, Any]:
    """Measure `parts`, print each as a table, and write all to `out` as JSON; returns what was written.

    Raises:
        UserError: `out` is a folder, or the run failed.
    """
    if out.is_dir():
        raise UserError(f"--out is {out}, a folder: expected the name of a file.")
    out.parent.mkdir(parents=True, exist_ok=True)
    measures = _measures(sizes)
    console = Console(width=None if sys.stdout.isatty() else 160)
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine(),
        "sizes": asdict(sizes),
    }
    for part in sorted(set(parts), key=list(measures).index):
        measure, table = measures[part]
        result[part] = measure()
        console.print(table(result[part]))
    result["versions"] = versions()
    write_atomically(out, json.dumps(result, indent=2).encode())
    console.print(f"Written to {out}.")
    return result


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    try:
        benchmark(QUICK if options.quick else Sizes(), options.parts, options.out)
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
