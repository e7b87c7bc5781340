"""What an accelerator makes of METRA on `mjx:ant`:
`python scripts/benchmarks/benchmark_gpu.py [--out FILE]`, some minutes.

Environment steps per second by number of environments (random actions, nothing learned), milliseconds per gradient step
of one seed and of ten at once, beside the least time that its matrix products and its memory traffic would take, and
compile times, without JAX's cache of programs. Floors count by hand: FLOPs as in benchmark_learner.py; bytes are those
of the weights, once for each product, and of Adam's and the targets' arrays.
"""

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from benchmark_common import spread
from benchmark_learner import ACTION, OBS, Z, metra, update_flops
from benchmark_updates import SEED

from urlrl.envs import make_device_env
from urlrl.files import write_atomically
from urlrl.runtime import versions
from urlrl.training.learn import learn
from urlrl.verbs.pretrain import PRECISIONS

STEPS = 25  # control steps of each environment in a call


@dataclass(frozen=True)
class Options:
    """Measure an accelerator."""

    out: Path = Path("runs/bench-gpu.json")
    env: str = "mjx:ant"
    num_envs: tuple[int, ...] = (256, 1024, 2048, 4096)
    seeds: tuple[int, ...] = (1, 10)  # that learn at once
    width: int = 1024
    updates: int = 200  # gradient steps of a call
    repeats: int = 5
    peak_tflops: float = 495.0  # of TF32 products without sparsity: an H100's and H200's by its datasheet
    peak_tb_s: float = 4.3  # of a copy within the device's memory, bytes read and written: an H200's, measured


@dataclass
class Program:
    """A compiled call and its first arguments; what it returns first is its next first argument."""

    label: dict[str, Any]
    lowered: Any
    state: Any
    rest: tuple

    def compile(self) -> "Program":
        start = time.perf_counter()
        self.call = self.lowered.compile()
        self.compile_s = time.perf_counter() - start
        return self

    def run(self) -> float:
        start = time.perf_counter()
        self.state, _ = jax.block_until_ready(self.call(self.state, *self.rest))
        return time.perf_counter() - start


def collecting(name: str, n: int) -> Program:
    """`n` environments under random actions."""
    env = make_device_env(name)

    def step(state: Any, key: jax.Array) -> tuple[Any, None]:
        action = jax.random.uniform(key, (n, env.env_spec.action_dim), minval=-1.0, maxval=1.0)
        return jax.vmap(env.step)(state, action), None

    def steps(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state, _ = jax.lax.scan(step, state, jax.random.split(key, STEPS))
        return state, jnp.isfinite(state.obs).all()

    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(SEED), n))
    key = jax.random.key(1)
    return Program({"env": name, "num_envs": n}, jax.jit(steps).lower(state, key), state, (key,))


def learning(width: int, updates: int, seeds: int, precision: str) -> Program:
    learner = metra(width, updates)
    agents, batches = (
        jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[None], seeds, axis=0), tree)
        for tree in (learner.agent, learner.batches)
    )
    keys = jax.random.split(learner.key, seeds)
    call = lambda agents, batches, keys: jax.vmap(learn)(agents, batches, keys)[::2]  # noqa: E731
    with jax.default_matmul_precision(PRECISIONS[precision]):
        lowered = jax.jit(call, donate_argnums=0).lower(agents, batches, keys)
    label = {"width": width, "updates": updates, "seeds": seeds, "precision": precision}
    return Program(label, lowered, agents, (batches, keys))


def update_bytes(width: int) -> int:
    """Bytes to and from memory in one update: the weights once for each product that needs them (3 times in a forward
    and two backward passes of what is trained), and Adam's arrays (gradient, two moments and weights read, all but the
    gradient written, the gradient written before) and the targets' (two read, one written)."""
    sizes = (OBS, Z), (OBS + Z, 2 * ACTION), (OBS + Z + ACTION, 1)
    phi, actor, critic = (width * (inputs + width + outputs) for inputs, outputs in sizes)
    products = phi * (2 * 3 + 2) + actor * (1 + 3) + 2 * critic * (1 + 3 + 2)
    adam, targets = 8 * (phi + actor + 2 * critic), 3 * 2 * critic
    return 4 * (products + adam + targets)


def memory() -> dict[str, Any]:
    stats = jax.local_devices()[0].memory_stats() or {}
    return {"peak_mib": stats.get("peak_bytes_in_use", 0) / 2**20, "limit_mib": stats.get("bytes_limit", 0) / 2**20}


def measure(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    jax.config.update("jax_enable_compilation_cache", False)
    kinds = product(options.seeds, PRECISIONS)
    updating = [learning(options.width, options.updates, seeds, precision) for seeds, precision in kinds]
    stepping = [collecting(options.env, n) for n in options.num_envs]
    with ThreadPoolExecutor(2) as pool:  # More get into each other's way while products are tuned.
        list(pool.map(Program.compile, [*updating, *stepping]))
    flops, moved = update_flops(options.width), update_bytes(options.width)
    floor_ms = {"products": 1e-9 * flops / options.peak_tflops, "memory": 1e-9 * moved / options.peak_tb_s}
    result: dict[str, Any] = {
        "environment": [], "update": [], "flops_per_update": flops, "bytes_per_update": moved, "floor_ms": floor_ms,
        "compiled": "two programs at a time", "versions": versions(),
    }  # fmt: skip
    for program in updating:
        program.run()
        ms = 1e3 * np.array([program.run() for _ in range(options.repeats)]) / options.updates
        share = program.label["seeds"] * max(floor_ms.values()) / np.median(ms)
        row = {**program.label, "compile_s": program.compile_s, "update": spread(ms, "ms, all seeds"), **memory()}
        result["update"].append(row | {"share_of_floor": float(share)})
        say(json.dumps(result["update"][-1]))
        program.state = None  # Free it.
    for program in stepping:
        program.run()
        rate = program.label["num_envs"] * STEPS / np.array([program.run() for _ in range(options.repeats)])
        row = {**program.label, "compile_s": program.compile_s, "steps": spread(rate, "env steps/s"), **memory()}
        result["environment"].append(row)
        say(json.dumps(row))
    return {**result, "versions": versions(), "compiled": "two programs at a time"}


if __name__ == "__main__":
    options = tyro.cli(Options, description=__doc__)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = measure(options, partial(print, file=sys.stderr, flush=True))
    write_atomically(options.out, json.dumps(found, indent=2).encode())
    print(f"Written to {options.out}.")
