"""Milliseconds per update of the offline agents, as benchmark_updates.py measures them, at the sizes of dm_control's
walker and a batch of 1024.

FLOPs are XLA's count of one update, elementwise work included; FRE's two phases are measured apart. Memory is what the
call needs by XLA's count: agent, batches, and what it works in.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from benchmark_common import load_of, show
from benchmark_updates import Learner, beside_products, noise
from rich.table import Table

from urlrl.agents import find_agent
from urlrl.agents.fre import FRE
from urlrl.learners.features import FeatureConfig
from urlrl.presets import preset
from urlrl.runtime import enable_compilation_cache
from urlrl.types import Transition

OBS, ACTION, BATCH = 24, 6, 1024  # dm_control's walker
AGENTS = {  # published presets, and what else is set
    "hilp": ("hilp", "antmaze-paper", {}),
    "hilp-zsrl": ("sf", "hilp-zsrl", {}),
    "fb": ("fb", "fb", {}),
    "fre, encoder": ("fre", "exorl-walker-paper", {"warmup": 2**30}),
    "fre, policy": ("fre", "exorl-walker-paper", {"warmup": 0}),
}


def offline(name: str, width: int, updates: int, batch: int) -> Learner:
    """One of AGENTS on `updates` batches of noise."""
    agent, preset_name, options = AGENTS[name]
    config = preset(agent, preset_name).agent
    halves = {"fb": {"backward_width": width // 2}, "sf": {"phi": FeatureConfig(width=width // 2)}}  # as published
    config = dataclasses.replace(
        config, width=width, batch=dataclasses.replace(config.batch, size=batch), **halves.get(agent, {}), **options
    )
    normal, ones = noise(updates, batch), np.ones((updates, batch), np.float32)
    obs, steps = normal(OBS), np.full((updates, batch), 5, np.int32)
    batches = Transition(
        obs, np.tanh(normal(ACTION)), 0 * ones, ones, obs + 0.1 * normal(OBS), normal(0), normal(OBS), steps,
        normal(config.batch.futures, OBS),
    )  # fmt: skip
    return Learner(find_agent(agent)[0], config, batches)


def update_flops(learner: Learner) -> float:
    """By XLA's count. FRE's update is a choice of two, of which it would count the larger one."""
    lowered = learner.lowered()
    if isinstance(learner.agent, FRE):
        phase = FRE.improve_encoding if learner.agent.config.warmup else FRE.improve_policy
        lowered = jax.jit(phase).lower(learner.agent, jax.tree.map(lambda x: x[0], learner.batches), learner.key)
    return lowered.cost_analysis()["flops"]


def memory(learner: Learner) -> float:
    """MiB, by XLA's count: arguments, which the results replace, and what the call works in."""
    found = learner.lowered().compile().memory_analysis()
    return (found.argument_size_in_bytes + found.temp_size_in_bytes) / 2**20


def measure_one(name: str, width: int, updates: int, batch: int, repeats: int, seconds: float) -> dict[str, Any]:
    learner = offline(name, width, updates, batch)
    flops = update_flops(learner)
    return {
        "agent": name,
        **beside_products(learner, flops, width, repeats, seconds),
        "flops": {"unit": "FLOP per update, XLA's count", "value": flops},
        "memory": {"unit": "MiB, agent, batches and temporaries", "value": memory(learner)},
    }


def measure(
    widths: tuple[int, ...], updates: int, repeats: int, seconds: float, batch: int = BATCH
) -> list[dict[str, Any]]:
    """A row for each agent and width."""
    enable_compilation_cache()
    return [measure_one(name, width, updates, batch, repeats, seconds) for name in AGENTS for width in widths]


def table(rows: list[dict[str, Any]]) -> Table:
    out = Table(
        "agent", "width", "batch", "MFLOP", "GEMM, GFLOP/s", "floor, ms", "update, ms", "of GEMM", "MiB", "load",
        title="One update of an offline agent, median (quartiles); the floor is its FLOPs at the best GEMM rate",
    )  # fmt: skip
    for row in rows:
        out.add_row(
            row["agent"],
            str(row["width"]),
            str(row["batch"]),
            f"{row['flops']['value'] / 1e6:,.0f}",
            show(row["gemm"], 0),
            f"{row['floor_ms']['value']:.1f}",
            show(row["update"], 1),
            show(row["fraction_of_gemm"]),
            f"{row['memory']['value']:,.0f}",
            load_of(row),
        )
    return out
