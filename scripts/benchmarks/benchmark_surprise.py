"""Adversarial surprise on the device: environment steps per second with learning, one seed and several at once.

`python scripts/benchmarks/benchmark.py --parts surprise --out docs/results/benchmark-surprise.json`

An epoch is that of the preset: a rollout of whole episodes, then both players' update. Compile times are without JAX's
cache of programs, and the first epoch of each contender is not among the rates; nor are logs and checkpoints.
"""

from typing import Any

import jax
import numpy as np
from benchmark_common import Contender, interleave, load_average, load_of, show, spread
from benchmark_device import begin, first_epoch, no_cache
from rich.table import Table

from urlrl.presets import preset


def measure_one(name: str, num_seeds: int, repeats: int, seconds: float) -> dict[str, Any]:
    config, load = preset("adversarial_surprise", name), load_average()
    contenders = {"one": begin(config, range(1)), "together": begin(config, range(num_seeds))}
    with no_cache():
        first = {key: first_epoch(run) for key, run in contenders.items()}
    times = interleave({key: Contender(run.epoch) for key, run in contenders.items()}, repeats, seconds)
    return {
        "preset": name, "env": config.env, "num_envs": config.num_envs, "seeds": num_seeds,
        "epoch_steps": config.epoch_steps, "load_average": [load, load_average()], "backend": jax.default_backend(),
        "first_epoch_s": {key: value - float(np.median(times[key])) for key, value in first.items()},
        "one": spread(config.epoch_steps / times["one"], "env steps/s, one seed"),
        "together": spread(num_seeds * config.epoch_steps / times["together"], "env steps/s, all seeds"),
        "sequential_over_together": spread(num_seeds * times["one"] / times["together"], "ratio, by round"),
    }  # fmt: skip


def measure(names: tuple[str, ...], num_seeds: int, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each preset."""
    return [measure_one(name, num_seeds, repeats, seconds) for name in names]


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(
        "preset", "environment", "compile, s", "one seed", "all seeds", "one by one / at once", "load",
        title="Adversarial surprise, env steps/s with learning, median (quartiles); compile times of one and of all",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            f"{row['preset']}, {row['seeds']} seeds",
            f"{row['env']}, {row['num_envs']} copies",
            ", ".join(f"{value:.1f}" for value in row["first_epoch_s"].values()),
            *(show(row[name], 0) for name in ("one", "together")),
            show(row["sequential_over_together"]),
            load_of(row),
        )
    return out
