"""Milliseconds per METRA update, beside the time that its matrix products alone would take.

Updates run as in training: one scanned, donated call (`urlrl.training.host`) on stacked batches that come from host
memory. The rate of float32 matrix products, (256, W) @ (W, W) in a chain, is measured in turns with them; a chain has
as many FLOPs as the call, so the ratio of the two times is the fraction of that rate that the learner reaches.
"""

from functools import partial
from typing import Any

import benchmark_sb3
import jax
import jax.numpy as jnp
import numpy as np
from benchmark_common import Contender, interleave, load_average, show, spread
from rich.table import Table

from urlrl.agents.metra import Metra, MetraConfig
from urlrl.runtime import enable_compilation_cache
from urlrl.training.learn import learn
from urlrl.types import Transition

OBS, ACTION, Z, BATCH = 29, 8, 2, 256  # METRA's ant
SEED = 0


def update_flops(width: int) -> int:
    """Floating-point operations in the matrix products of one update, two per multiply-add.

    With U = 2 B W^2, the product of one hidden layer: phi 6 U (forward, weight and input gradients, for s and s'),
    reward 2 U, target 3 U (actor, two critics), critics 6 U, actor 7 U (its own 3, forward and input gradients of two
    critics 4), together 24 U. The input and output layers are added by their sizes.
    """

    def forward(inputs: int, outputs: int) -> int:
        return 2 * BATCH * (inputs * width + width * width + width * outputs)

    def train(inputs: int, outputs: int) -> int:  # The network's own input needs no gradient.
        return 3 * forward(inputs, outputs) - 2 * BATCH * inputs * width

    phi, actor, critic = (OBS, Z), (OBS + Z, 2 * ACTION), (OBS + Z + ACTION, 1)
    target = forward(*actor) + 2 * forward(*critic)
    policy = 2 * train(*critic) + train(*actor) + 4 * forward(*critic)
    return 2 * train(*phi) + 2 * forward(*phi) + target + policy


class Learner:
    """METRA on `updates` batches of noise; each `run` continues with the agent of the one before."""

    def __init__(self, width: int, updates: int):
        rng = np.random.default_rng(SEED)
        normal = lambda *shape: rng.standard_normal((updates, BATCH, *shape)).astype(np.float32)  # noqa: E731
        obs, z, ones = normal(OBS), normal(Z), np.ones((updates, BATCH), np.float32)
        z /= np.linalg.norm(z, axis=-1, keepdims=True)
        self.batches = Transition(obs, np.tanh(normal(ACTION)), 0 * ones, ones, obs + 0.1 * normal(OBS), z)
        example = jax.tree.map(lambda x: x[0], self.batches)
        self.key = jax.random.key(SEED)
        self.agent = jax.jit(partial(Metra.create, MetraConfig(width=width)))(example, jax.random.fold_in(self.key, 0))
        self.calls = 0

    def run(self) -> None:
        self.calls += 1
        self.agent, _, self.finite = jax.block_until_ready(
            learn(self.agent, self.batches, jax.random.fold_in(self.key, self.calls))
        )

    def xla_flops(self) -> float:
        """XLA's count for one update: it counts a scan's body once. Elementwise work is included."""
        return learn.lower(self.agent, self.batches, self.key).cost_analysis()["flops"]


def gemm_chain(width: int, products: int) -> Contender:
    """x <- x @ w, `products` times; w is orthogonal, so that x neither grows nor fades into slow denormal numbers."""
    rng = np.random.default_rng(SEED)
    w = jnp.float32(np.linalg.qr(rng.standard_normal((width, width)))[0])
    x = jnp.float32(rng.standard_normal((BATCH, width)))
    chain = jax.jit(lambda x, w: jax.lax.fori_loop(0, products, lambda _, x: x @ w, x))
    return Contender(lambda: chain(x, w).block_until_ready())


def measure_width(width: int, updates: int, repeats: int, seconds: float) -> dict[str, Any]:
    flops = update_flops(width)
    products = round(flops * updates / (2 * BATCH * width**2))  # as many FLOPs as `updates` updates
    learner, chain = Learner(width, updates), gemm_chain(width, products)
    load = load_average()
    times = interleave({"gemm": chain, "metra": Contender(learner.run)}, repeats, seconds)
    ms = 1e3 * times["metra"] / updates
    rate = 2e-9 * BATCH * width**2 * products / times["gemm"]
    return {
        "width": width, "updates_per_call": updates, "seed": SEED, "load_average": [load, load_average()],
        "flops": {"unit": "FLOP per update", "formula": flops, "xla": learner.xla_flops()},
        "gemm": spread(rate, "GFLOP/s"),
        "floor_ms": {"unit": "ms per update at the best GEMM rate", "value": 1e-6 * flops / rate.max()},
        "metra": spread(ms, "ms per update"),
        "fraction_of_gemm": spread(1e-6 * flops / ms / rate, "ratio, by round"),
        "fraction_of_gemm_best": {"unit": "ratio, of the best of each", "value": 1e-6 * flops / ms.min() / rate.max()},
        "finite": bool(learner.finite),
    }  # fmt: skip


def measure(widths: tuple[int, ...], updates: int, repeats: int, seconds: float) -> dict[str, Any]:
    """Rows for each width; Stable-Baselines3 comes last, for the threads of one library would disturb the other's."""
    enable_compilation_cache()
    return {
        "sizes": {"obs": OBS, "action": ACTION, "z": Z, "batch": BATCH},
        "metra": [measure_width(width, updates, repeats, seconds) for width in widths],
        "stable_baselines3_sac": [
            benchmark_sb3.measure_width(width, OBS + Z, ACTION, BATCH, min(updates, 10), repeats, seconds)
            for width in widths
            if benchmark_sb3.installed()
        ],
    }


def table(result: dict[str, Any]) -> Table:
    out = Table(
        "width", "MFLOP (XLA's)", "GEMM, GFLOP/s", "floor, ms", "METRA, ms", "of GEMM", "best", "SB3's SAC, ms",
        "load", title="One learner update, median (quartiles); the floor is its matrix products at the best GEMM rate",
    )  # fmt: skip
    peers = {row["width"]: show(row["sac"]) for row in result["stable_baselines3_sac"]}
    for row in result["metra"]:
        out.add_row(
            str(row["width"]),
            f"{row['flops']['formula'] / 1e6:,.0f} ({row['flops']['xla'] / 1e6:,.0f})",
            show(row["gemm"], 0),
            f"{row['floor_ms']['value']:.2f}",
            show(row["metra"]),
            show(row["fraction_of_gemm"]),
            f"{row['fraction_of_gemm_best']['value']:.2f}",
            peers.get(row["width"], "not installed"),
            f"{row['load_average'][1]:.1f}",
        )
    return out
