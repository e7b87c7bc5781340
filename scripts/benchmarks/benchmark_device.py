"""Runs on the device: compile time, environment steps per second, and seeds at once against one after another.

An epoch is that of `--preset point-quick` with 64 environments: 3,200 steps, then 50 updates of networks of width 64 on
batches of 256. The host's loop makes the same epoch, in C MuJoCo where the environment has a twin there. Compile times
are without JAX's cache of programs.
"""

import dataclasses
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from typing import Any

import jax
import numpy as np
from benchmark_common import Contender, interleave, load_average, load_of, show, spread
from rich.table import Table

from urlrl.config import PretrainConfig
from urlrl.envs import make_device_env, make_env
from urlrl.presets import preset
from urlrl.runs.begin import create_agent
from urlrl.training.host import Host
from urlrl.training.seeds import Seeds

NUM_ENVS = 64


def begin(config: PretrainConfig, seeds: range) -> Seeds:
    env = make_device_env(config.env)
    agents = {seed: create_agent(dataclasses.replace(config, seed=seed), env.env_spec) for seed in seeds}
    return Seeds(config, agents, env, jax.devices()[:1])


@contextmanager
def no_cache():
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def first_epoch(seeds: Seeds) -> float:
    """Seconds: tracing and compiling the learning program, and running it once."""
    start = time.perf_counter()
    seeds.epoch()
    return time.perf_counter() - start


def measure_one(name: str, num_seeds: int, repeats: int, seconds: float) -> dict[str, Any]:
    config = dataclasses.replace(
        preset("metra", "point-quick"),
        env=name,
        num_envs=NUM_ENVS,
        steps_per_update=64,
        steps=200_000,
        replay_capacity=200_000,
        min_replay=0,
    )
    load, seeds = load_average(), range(num_seeds)
    idle = begin(dataclasses.replace(config, steps_per_update=0), range(1))
    alone, together = [begin(config, range(seed, seed + 1)) for seed in seeds], begin(config, seeds)
    with no_cache():
        first = {"one": first_epoch(alone[0]), "together": first_epoch(together)}
    with closing(make_env(make_device_env(name).env_spec.twin or name, NUM_ENVS)) as env:
        host = Host(config, create_agent(config, env.env_spec), env)
        sequential: Callable[[], Any] = lambda: [run.epoch() for run in alone]  # noqa: E731
        contenders = {
            "collect": idle.epoch, "one": alone[0].epoch, "host": host.epoch, "sequential": sequential,
            "together": together.epoch,
        }  # fmt: skip
        times = interleave({key: Contender(run) for key, run in contenders.items()}, repeats, seconds)
    steps = config.num_envs * config.rollout_steps
    return {
        "env": name, "num_envs": NUM_ENVS, "seeds": num_seeds, "width": config.agent.width, "updates": config.updates,
        "load_average": [load, load_average()], "backend": jax.default_backend(),
        "first_epoch_s": {key: value - float(np.median(times[key])) for key, value in first.items()},
        "collect": spread(steps / times["collect"], "env steps/s, nothing learned"),
        "one": spread(steps / times["one"], "env steps/s, one seed"),
        "host": spread(steps / times["host"], "env steps/s, one seed, the host's loop"),
        "together": spread(num_seeds * steps / times["together"], "env steps/s, all seeds"),
        "sequential_over_together": spread(times["sequential"] / times["together"], "ratio, by round"),
    }  # fmt: skip


def measure(names: tuple[str, ...], num_seeds: int, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each environment."""
    return [measure_one(name, num_seeds, repeats, seconds) for name in names]


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(
        "environment", "compile, s", "collect", "one seed", "host's loop", "all seeds", "one by one / at once", "load",
        title="Training on the device, env steps/s, median (quartiles); compile times of one seed and of all at once",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            f"{row['env']}, {row['num_envs']} copies, {row['seeds']} seeds",
            ", ".join(f"{value:.1f}" for value in row["first_epoch_s"].values()),
            *(show(row[name], 0) for name in ("collect", "one", "host", "together")),
            show(row["sequential_over_together"]),
            load_of(row),
        )
    return out
