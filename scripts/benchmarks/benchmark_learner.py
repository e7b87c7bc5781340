"""Milliseconds per METRA update, as benchmark_updates.py measures them; its FLOPs are counted by hand."""

from typing import Any

import benchmark_sb3
import numpy as np
from benchmark_common import load_of, show
from benchmark_updates import Learner, beside_products, noise
from rich.table import Table

from urlrl.agents.metra import Metra, MetraConfig
from urlrl.runtime import enable_compilation_cache
from urlrl.types import Transition

OBS, ACTION, Z, BATCH = 29, 8, 2, 256  # METRA's ant


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


def metra(width: int, updates: int) -> Learner:
    """On `updates` batches of noise."""
    normal, ones = noise(updates, BATCH), np.ones((updates, BATCH), np.float32)
    obs, z = normal(OBS), normal(Z)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    batches = Transition(obs, np.tanh(normal(ACTION)), 0 * ones, ones, obs + 0.1 * normal(OBS), z)
    return Learner(Metra, MetraConfig(width=width), batches)


def measure_width(width: int, updates: int, repeats: int, seconds: float) -> dict[str, Any]:
    flops, learner = update_flops(width), metra(width, updates)
    counted = learner.lowered().cost_analysis()["flops"]  # elementwise work is included
    return {
        **beside_products(learner, flops, width, repeats, seconds),
        "flops": {"unit": "FLOP per update", "formula": flops, "xla": counted},
    }


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
            show(row["update"]),
            show(row["fraction_of_gemm"]),
            f"{row['fraction_of_gemm_best']['value']:.2f}",
            peers.get(row["width"], "not installed"),
            load_of(row),
        )
    return out
