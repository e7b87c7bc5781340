"""Milliseconds per update of offline agents: one seed from the host's memory and from the device's, and seeds at once
against one after another, as `--seed N` trains them.

The data has the sizes of dm_control's walker, networks are of width 64, batches of 256. FRE's two phases are measured
apart: the host's loop makes one of them, mapped seeds both.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
from benchmark_common import Contender, interleave, load_average, load_of, show, spread
from benchmark_data import make_dataset
from rich.table import Table

from urlrl.agents import find_agent
from urlrl.config import OfflineConfig
from urlrl.data.dataset import Dataset
from urlrl.runs.begin import create_agent, run_spec
from urlrl.runtime import enable_compilation_cache
from urlrl.training.offline import Offline
from urlrl.training.offline_seeds import OfflineSeeds

WIDTH, BATCH, TRANSITIONS = 64, 256, 100_000
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fb": ("fb", {"backward_width": WIDTH}),
    "fre, encoder": ("fre", {"encoder_width": WIDTH, "warmup": 2**30}),
    "fre, policy": ("fre", {"encoder_width": WIDTH, "warmup": 0}),
}


def measure_one(name: str, data: Path, num_seeds: int, updates: int, repeats: int, seconds: float) -> dict[str, Any]:
    agent_name, options = AGENTS[name]
    default = find_agent(agent_name)[1]()
    batch = dataclasses.replace(default.batch, size=BATCH)
    agent_config = dataclasses.replace(default, width=WIDTH, batch=batch, **options)
    config = OfflineConfig(agent=agent_config, agent_name=agent_name, data=str(data), env="dmc:walker_walk")
    config = dataclasses.replace(config, updates=updates)
    dataset, spec, load = Dataset(data), run_spec(config), load_average()

    def begin(seeds: range) -> OfflineSeeds:
        agents = {seed: create_agent(dataclasses.replace(config, seed=seed), spec) for seed in seeds}
        return OfflineSeeds(config, agents, dataset, jax.devices()[:1])

    host = Offline(config, create_agent(config, spec), dataset)
    runs = {"host": host.epoch, "one": begin(range(1)).epoch, "together": begin(range(num_seeds)).epoch}
    times = interleave({key: Contender(run) for key, run in runs.items()}, repeats, seconds)
    return {
        "agent": name, "width": WIDTH, "batch": BATCH, "seeds": num_seeds, "updates_per_call": updates,
        "load_average": [load, load_average()], "backend": jax.default_backend(),
        "host": spread(1e3 * times["host"] / updates, "ms per update, one seed, batches from the host"),
        "one": spread(1e3 * times["one"] / updates, "ms per update, one seed, batches from the device"),
        "together": spread(1e3 * times["together"] / updates / num_seeds, "ms per update of one of the seeds at once"),
        "sequential_over_together": spread(num_seeds * times["host"] / times["together"], "ratio, by round"),
    }  # fmt: skip


def measure(num_seeds: int, updates: int, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each agent."""
    enable_compilation_cache()
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder) / "data", TRANSITIONS)
        return [measure_one(name, Path(folder) / "data", num_seeds, updates, repeats, seconds) for name in AGENTS]


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(
        "agent", "one seed, host", "one seed, device", "at once, each", "one by one / at once", "load",
        title="Offline training of many seeds: ms per update, median (quartiles)",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            f"{row['agent']}, {row['seeds']} seeds",
            *(show(row[name]) for name in ("host", "one", "together", "sequential_over_together")),
            load_of(row),
        )
    return out
