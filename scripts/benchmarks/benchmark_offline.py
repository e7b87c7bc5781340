"""Milliseconds per update of the offline agents, beside the time that their matrix products alone would take.

Updates run as in training: one scanned, donated call (`urlrl.training.loop`) on stacked batches that come from host
memory, at the sizes of dm_control's walker and a batch of 1024. FLOPs are XLA's count of one update, elementwise work
included; FRE's two phases are measured apart. Memory is what the call needs by XLA's count: agent, batches, and what it
works in. The rate of float32 matrix products, (1024, W) @ (W, W) in a chain, is measured in turns with them.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_common import Contender, interleave, load_average, show, spread
from rich.table import Table

from urlrl.agents import find_agent
from urlrl.agents.fre import FRE
from urlrl.learners.features import FeatureConfig
from urlrl.presets import preset
from urlrl.runtime import enable_compilation_cache
from urlrl.training.learn import learn
from urlrl.types import Transition

OBS, ACTION, BATCH = 24, 6, 1024  # dm_control's walker
SEED = 0
AGENTS = {  # published presets, and what else is set
    "hilp": ("hilp", "antmaze-paper", {}),
    "hilp-zsrl": ("sf", "hilp-zsrl", {}),
    "fb": ("fb", "fb", {}),
    "fre, encoder": ("fre", "exorl-walker-paper", {"warmup": 2**30}),
    "fre, policy": ("fre", "exorl-walker-paper", {"warmup": 0}),
}


class Learner:
    """An agent on `updates` batches of noise; each `run` continues with the agent of the one before."""

    def __init__(self, name: str, width: int, updates: int, batch: int):
        agent, preset_name, options = AGENTS[name]
        config = preset(agent, preset_name).agent
        halves = {"fb": {"backward_width": width // 2}, "sf": {"phi": FeatureConfig(width=width // 2)}}  # as published
        config = dataclasses.replace(
            config, width=width, batch=dataclasses.replace(config.batch, size=batch), **halves.get(agent, {}), **options
        )
        rng = np.random.default_rng(SEED)
        normal = lambda *shape: rng.standard_normal((updates, batch, *shape)).astype(np.float32)  # noqa: E731
        ones, obs = np.ones((updates, batch), np.float32), normal(OBS)
        steps = np.full((updates, batch), 5, np.int32)
        self.batches = Transition(
            obs, np.tanh(normal(ACTION)), 0 * ones, ones, obs + 0.1 * normal(OBS), normal(0), normal(OBS), steps,
            normal(config.batch.futures, OBS),
        )  # fmt: skip
        example = jax.tree.map(lambda x: x[0], self.batches)
        self.key = jax.random.key(SEED)
        create = partial(find_agent(agent)[0].create, config)
        self.agent = jax.jit(create)(example, jax.random.fold_in(self.key, 0))
        self.calls = 0

    def run(self) -> None:
        self.calls += 1
        self.agent, _, self.finite = jax.block_until_ready(
            learn(self.agent, self.batches, jax.random.fold_in(self.key, self.calls))
        )

    def flops(self) -> float:
        """XLA's count for one update: it counts a scan's body once, and of two branches the larger one."""
        if not isinstance(self.agent, FRE):
            return learn.lower(self.agent, self.batches, self.key).cost_analysis()["flops"]
        phase = FRE.improve_encoding if self.agent.config.warmup else FRE.improve_policy
        batch = jax.tree.map(lambda x: x[0], self.batches)
        return jax.jit(phase).lower(self.agent, batch, self.key).cost_analysis()["flops"]

    def memory(self) -> float:
        """MiB, by XLA's count: arguments, which the results replace, and what the call works in."""
        found = learn.lower(self.agent, self.batches, self.key).compile().memory_analysis()
        return (found.argument_size_in_bytes + found.temp_size_in_bytes) / 2**20


def gemm_chain(width: int, batch: int, flops: float) -> Contender:
    """x <- x @ w, as often as makes `flops`; w is orthogonal, so that x neither grows nor fades."""
    rng, products = np.random.default_rng(SEED), max(1, round(flops / (2 * batch * width**2)))
    w = jnp.float32(np.linalg.qr(rng.standard_normal((width, width)))[0])
    x = jnp.float32(rng.standard_normal((batch, width)))
    chain = jax.jit(lambda x, w: jax.lax.fori_loop(0, products, lambda _, x: x @ w, x))
    return Contender(lambda: chain(x, w).block_until_ready())


def measure_one(name: str, width: int, updates: int, batch: int, repeats: int, seconds: float) -> dict[str, Any]:
    learner = Learner(name, width, updates, batch)
    flops, load = learner.flops(), load_average()
    products = max(1, round(flops * updates / (2 * batch * width**2)))
    chain = gemm_chain(width, batch, flops * updates)
    times = interleave({"gemm": chain, "agent": Contender(learner.run)}, repeats, seconds)
    ms, rate = 1e3 * times["agent"] / updates, 2e-9 * batch * width**2 * products / times["gemm"]
    return {
        "agent": name, "width": width, "batch": batch, "updates_per_call": updates, "seed": SEED,
        "load_average": [load, load_average()],
        "flops": {"unit": "FLOP per update, XLA's count", "value": flops},
        "memory": {"unit": "MiB, agent, batches and temporaries", "value": learner.memory()},
        "gemm": spread(rate, "GFLOP/s"),
        "floor_ms": {"unit": "ms per update at the best GEMM rate", "value": 1e-6 * flops / rate.max()},
        "update": spread(ms, "ms per update"),
        "fraction_of_gemm": spread(1e-6 * flops / ms / rate, "ratio, by round"),
        "finite": bool(learner.finite),
    }  # fmt: skip


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
            f"{row['load_average'][1]:.1f}",
        )
    return out
