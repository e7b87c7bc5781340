"""Milliseconds per update of an agent, beside the time that matrix products alone would take.

Updates run as in training: one scanned, donated call (`urlrl.training.learn`) on stacked batches that come from host
memory. The rate of float32 matrix products, (B, W) @ (W, W) in a chain, is measured in turns with them; a chain has as
many FLOPs as the call, so the ratio of the two times is the fraction of that rate that the learner reaches.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_common import Contender, interleave, load_average, spread

from urlrl.training.learn import learn
from urlrl.types import Transition

SEED = 0


def noise(updates: int, batch: int) -> Callable[..., np.ndarray]:
    """A function that draws (updates, batch, *shape)."""
    rng = np.random.default_rng(SEED)
    return lambda *shape: rng.standard_normal((updates, batch, *shape)).astype(np.float32)


class Learner:
    """An agent on stacked batches; each `run` continues with the agent of the one before."""

    def __init__(self, agent: Any, config: Any, batches: Transition):
        self.batches, self.key, self.calls = batches, jax.random.key(SEED), 0
        example = jax.tree.map(lambda x: x[0], batches)
        self.agent = jax.jit(partial(agent.create, config))(example, jax.random.fold_in(self.key, 0))

    def run(self) -> None:
        self.calls += 1
        self.agent, _, self.finite = jax.block_until_ready(
            learn(self.agent, self.batches, jax.random.fold_in(self.key, self.calls))
        )

    def lowered(self) -> Any:
        """The call, for XLA's counts of it. It counts a scan's body once, and of two branches the larger one."""
        return learn.lower(self.agent, self.batches, self.key)


def gemm_chain(width: int, batch: int, products: int) -> Contender:
    """x <- x @ w, `products` times; w is orthogonal, so that x neither grows nor fades into slow denormal numbers."""
    rng = np.random.default_rng(SEED)
    w = jnp.float32(np.linalg.qr(rng.standard_normal((width, width)))[0])
    x = jnp.float32(rng.standard_normal((batch, width)))
    chain = jax.jit(lambda x, w: jax.lax.fori_loop(0, products, lambda _, x: x @ w, x))
    return Contender(lambda: chain(x, w).block_until_ready())


def beside_products(learner: Learner, flops: float, width: int, repeats: int, seconds: float) -> dict[str, Any]:
    """The figures of a learner whose update makes `flops`, most of them in layers of `width`."""
    updates, batch = learner.batches.reward.shape
    products = max(1, round(flops * updates / (2 * batch * width**2)))  # as many FLOPs as `updates` updates
    chain, load = gemm_chain(width, batch, products), load_average()
    times = interleave({"gemm": chain, "agent": Contender(learner.run)}, repeats, seconds)
    ms, rate = 1e3 * times["agent"] / updates, 2e-9 * batch * width**2 * products / times["gemm"]
    return {
        "width": width, "batch": batch, "updates_per_call": updates, "seed": SEED,
        "load_average": [load, load_average()],
        "gemm": spread(rate, "GFLOP/s"),
        "floor_ms": {"unit": "ms per update at the best GEMM rate", "value": 1e-6 * flops / rate.max()},
        "update": spread(ms, "ms per update"),
        "fraction_of_gemm": spread(1e-6 * flops / ms / rate, "ratio, by round"),
        "fraction_of_gemm_best": {"unit": "ratio, of the best of each", "value": 1e-6 * flops / ms.min() / rate.max()},
        "finite": bool(learner.finite),
    }  # fmt: skip
