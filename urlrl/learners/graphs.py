"""Networks as lists of named operations, which leave JAX. urlrl/skills/policy.py runs them, and says what each one is.

A graph is built from a module and its parameters, layer by layer, in the order in which data meets them. The module's
own file says what it computes. Inputs have names, and observations are normalised.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from urlrl.errors import UnsupportedPrompt
from urlrl.learners.embed import DDPGPolicy, FeatureMap, SkillPolicy
from urlrl.learners.model import Model
from urlrl.learners.nets import MLP, NO_BINS, CategoricalPolicy, GaussianPolicy, SoftBins, TanhPolicy, gelu_tanh
from urlrl.learners.reward_encoder import BINS, RewardEncoder
from urlrl.types import Array, Graph, Op

FLAX_EPS, EMBED_EPS = 1e-6, 1e-5  # of layer norms: flax's own, and that of learners/embed.py
INSIDE = 1 - 1e-6  # learners/distributions.py: actions are kept below this
ACTIVATIONS: dict[Callable, str] = {nn.relu: "relu", nn.tanh: "tanh", gelu_tanh: "gelu_tanh"}


class Builder:
    """Operations so far, and the parameters of those to come; each method adds one and returns its output's name."""

    def __init__(self, params: Any):
        self.params: dict[str, Any] = jax.tree.map(np.asarray, dict(params))
        self.ops: list[Op] = []

    def add(self, kind: str, *inputs: str, tensors: dict[str, Any] | None = None, **numbers: Any) -> str:
        listed = {name: tuple(float(x) for x in np.ravel(value)) for name, value in numbers.items()}
        self.ops.append(Op(kind, inputs, str(len(self.ops)), listed, tensors or {}))
        return self.ops[-1].output

    def join(self, inputs: Sequence[str]) -> str:
        return inputs[0] if len(inputs) == 1 else self.add("concat", *inputs)

    def dense(self, x: str, i: int) -> str:
        layer = self.params[f"Dense_{i}"]
        return self.add("dense", x, tensors=dict(layer), units=layer["kernel"].shape[1])

    def norm(self, x: str, i: int, eps: float = FLAX_EPS) -> str:
        return self.add("layernorm", x, tensors=dict(self.params[f"LayerNorm_{i}"]), eps=eps)

    def embed(self, x: str, i: int, norm: int) -> str:
        return self.add("tanh", self.norm(self.dense(x, i), norm, EMBED_EPS))

    def hidden(self, x: str, i: int) -> str:
        return self.add("relu", self.dense(x, i))

    def bins(self, x: str, bins: SoftBins) -> str:
        if not bins.num:
            return x
        centres = np.linspace(bins.low, bins.high, bins.num, dtype=np.float32)
        return self.add("bins", x, index=bins.position, centres=centres, width=(bins.high - bins.low) / bins.num)

    def mlp(self, x: str, module: Any) -> str:
        """Hidden layers, and the linear one behind them."""
        for i in range(module.depth):
            x = self.add(ACTIVATIONS[module.activation], self.dense(x, i))
            if getattr(module, "norm", False):
                x = self.norm(x, i)
        return self.dense(x, module.depth)

    def built(self) -> Graph:
        return tuple(self.ops)


def policy(model: Model, inputs: Sequence[str], bins: SoftBins = NO_BINS) -> Graph:
    """The mode of the action of `inputs`, one behind the other; `bins` are of "obs". Of indices: their logits.

    Raises:
        UnsupportedPrompt: no operations are known for such a network.
    """
    module, graph = model.module, Builder(model.params)
    inputs = [graph.bins(name, bins) if name == "obs" else name for name in inputs]
    match module:
        case TanhPolicy():
            graph.add("tanh", graph.mlp(graph.join(inputs), module))
        case CategoricalPolicy():
            graph.mlp(graph.join(inputs), module)
        case GaussianPolicy():
            x = graph.bins(graph.join(inputs), module.bins)
            graph.add("clip", graph.mlp(x, module), low=-1, high=1)
        case SkillPolicy():
            parts = ([inputs[0]], inputs)
            halves = [graph.hidden(graph.embed(graph.join(part), 2 * i, i), 2 * i + 1) for i, part in enumerate(parts)]
            action = graph.add("tanh", graph.dense(graph.hidden(graph.join(halves), 4), 5))
            graph.add("clip", action, low=-INSIDE, high=INSIDE)
        case DDPGPolicy():
            x = graph.hidden(graph.embed(graph.join(inputs), 0, 0), 1)
            graph.add("clip", graph.add("tanh", graph.dense(x, 2)), low=-INSIDE, high=INSIDE)
        case _:
            raise UnsupportedPrompt(f"A policy by {type(module).__name__} cannot be exported: expected one by layers.")
    return graph.built()


def features(module: Any, params: Any, shift: Array | None = None) -> Graph:
    """Of "obs"; `shift` (d,) is taken from the result."""
    graph = Builder(params)
    if shift is not None:
        last = f"Dense_{2 if isinstance(module, FeatureMap) else module.depth}"
        layer = graph.params[last]
        graph.params[last] = {**layer, "bias": layer["bias"] - np.asarray(shift)}
    match module:
        case FeatureMap():
            x = graph.dense(graph.hidden(graph.embed("obs", 0, 0), 1), 2)
            if module.normalise:
                graph.add("scale_to", x, length=module.out**0.5)
        case MLP():
            graph.mlp(graph.bins("obs", module.bins), module)
        case _:
            raise UnsupportedPrompt(f"Features by {type(module).__name__} cannot be exported: expected layers.")
    return graph.built()


def reward_encoder(model: Model) -> Graph:
    """The mean, of "states" and "rewards"."""
    module, graph = model.module, Builder(model.params)
    assert isinstance(module, RewardEncoder)
    table = graph.params["Embed_0"]["embedding"]
    rewards = graph.add("embed", "rewards", tensors={"table": table}, units=table.shape[1], bins=BINS)
    x = graph.join([graph.dense("states", 0), rewards])
    for block in range(module.depth):
        attention = graph.params[f"MultiHeadDotProductAttention_{block}"]
        tensors = {}
        for name in ("query", "key", "value", "out"):
            tensors[f"{name}_kernel"] = attention[name]["kernel"].reshape(module.width, module.width)
            tensors[f"{name}_bias"] = attention[name]["bias"].reshape(module.width)
        mixed = graph.add("attention", graph.norm(x, 2 * block), tensors=tensors, heads=module.heads)
        x = graph.add("add", x, mixed)
        hidden = graph.add("gelu_tanh", graph.dense(graph.norm(x, 2 * block + 1), 2 * block + 1))
        x = graph.add("add", x, graph.dense(hidden, 2 * block + 2))
    graph.dense(graph.add("mean", graph.norm(x, 2 * module.depth)), 2 * module.depth + 1)
    return graph.built()
