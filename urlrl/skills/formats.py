"""A `SkillPolicy` in other forms: ONNX graphs and StableHLO programs, with the normalisation inside.

Either is a folder. `skill.*` maps (obs (n, obs), z (n, d)) to the action (n, act) in [-1, 1]; `aim.*`, where the skill
toward a goal takes no transitions, maps (goal (n, obs), obs (n, obs)) to z (n, d). All is float32, and n is free.
"""

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.learners.skills import SkillSpace
from urlrl.skills.export import Probes, check_parity
from urlrl.skills.policy import TINY, SkillError, SkillPolicy, typical_norm, write_folder

OPSET, IR_VERSION = 17, 8  # old enough for the runtimes of the last years
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
STABLEHLO_FILES = ("skill.stablehlo", "aim.stablehlo", "contract.json")
ONNX_FILES = ("skill.onnx", "aim.onnx")


def write_bundle(policy: SkillPolicy, probes: Probes, folder: str | PathLike) -> Path:
    del probes  # `make_policy` has checked it.
    return policy.save_pretrained(folder)


def write_onnx(policy: SkillPolicy, probes: Probes, folder: str | PathLike) -> Path:
    """Write skill.onnx and aim.onnx, each with the contract as its metadata "urlrl"; checked with onnxruntime.

    Raises:
        SkillError: onnx or onnxruntime is not installed, an output differs, or the folder cannot be written.
    """
    _check_parts(policy, "onnx")
    try:
        import onnxruntime

        graphs = {"skill.onnx": onnx_skill(policy)} | ({"aim.onnx": onnx_aim(policy)} if aims(policy) else {})
    except ImportError as error:
        raise _not_installed("onnx", "onnx and onnxruntime") from error

    def run(name: str, *inputs: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        session = onnxruntime.InferenceSession(graphs[name], providers=["CPUExecutionProvider"])
        return lambda *values: session.run(None, dict(zip(inputs, values)))[0]

    aim = run("aim.onnx", "goal", "obs") if aims(policy) else None
    check_parity("ONNX graph", policy, run("skill.onnx", "obs", "z"), aim, probes)
    return write_folder(folder, graphs, ONNX_FILES)


def write_stablehlo(policy: SkillPolicy, probes: Probes, folder: str | PathLike) -> Path:
    """Write skill.stablehlo, aim.stablehlo (`jax.export.deserialize` reads them) and the contract as JSON.

    Raises:
        SkillError: flatbuffers is not installed, an output differs, or the folder cannot be written.
    """
    _check_parts(policy, "stablehlo")
    obs, z = policy.config["observation"]["size"], policy.config["skill"]["dim"]
    try:
        programs = {"skill.stablehlo": _serialise(jax_skill(policy), obs, z)}
        if aims(policy):
            programs["aim.stablehlo"] = _serialise(jax_aim(policy), obs, obs)
    except ImportError as error:
        raise _not_installed("stablehlo", "flatbuffers") from error

    def run(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        program = jax.export.deserialize(bytearray(programs[name]))
        return lambda *values: np.asarray(program.call(*values))

    aim = run("aim.stablehlo") if aims(policy) else None
    check_parity("StableHLO program", policy, run("skill.stablehlo"), aim, probes)
    contract = json.dumps(policy.config, indent=1).encode()
    return write_folder(folder, {**programs, "contract.json": contract}, STABLEHLO_FILES)


FORMATS: dict[str, Callable[[SkillPolicy, Probes, str | PathLike], Path]] = {
    "bundle": write_bundle,
    "onnx": write_onnx,
    "stablehlo": write_stablehlo,
}


def _check_parts(policy: SkillPolicy, name: str) -> None:
    if "controller" in policy.config:
        raise SkillError(f"The format '{name}' has no place for a controller over skills: expected 'bundle'.")


def _not_installed(name: str, packages: str) -> SkillError:
    return SkillError(f"The format '{name}' needs {packages}, not installed here: pip install 'urlrl[onnx]'.")


def aims(policy: SkillPolicy) -> bool:
    """Whether there is an `aim.*`: of goals by rules that take nothing but the features."""
    rule = policy.config["prompting"]["goal"]
    return rule is not None and rule["rule"] in ("features", "difference")


def jax_skill(policy: SkillPolicy) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(obs (n, obs), z (n, d)) -> action (n, act)."""
    return lambda obs, z: _jax_network(policy, "policy", {"obs": _jax_normalise(policy, obs), "z": z})


def jax_aim(policy: SkillPolicy) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(goal (n, obs), obs (n, obs)) -> z (n, d)."""
    space, straight = SkillSpace(**policy.config["skill"]), policy.config["prompting"]["goal"]["rule"] == "difference"

    def aim(goal: jax.Array, obs: jax.Array) -> jax.Array:
        ends = [_jax_network(policy, "features", {"obs": _jax_normalise(policy, x)}) for x in (goal, obs)]
        return space.project(ends[0] - ends[1] if straight else ends[0])

    return aim


def _jax_normalise(policy: SkillPolicy, obs: jax.Array) -> jax.Array:
    return (obs - policy.tensors["normalizer.mean"][None]) / (policy.tensors["normalizer.std"] + np.float32(1e-8))[None]


def _jax_norm(x: jax.Array, eps: float, scale: np.ndarray, bias: np.ndarray) -> jax.Array:
    mean = jnp.mean(x, axis=-1, keepdims=True)
    var = jnp.maximum(jnp.mean(x * x, axis=-1, keepdims=True) - mean * mean, 0)
    return (x - mean) * (scale / jnp.sqrt(var + eps)) + bias


def _jax_bins(x: jax.Array, index: list[float], centres: list[float], width: float) -> jax.Array:
    soft = jnp.tanh((x[:, np.array(index, int), None] - np.array(centres, np.float32)[None, None]) / width)
    return jnp.concatenate([soft.reshape(x.shape[0], -1), jnp.delete(x, np.array(index, int), axis=1)], axis=1)


# Those of `urlrl.skills.policy.OPS` that are not of tokens: of inputs, numbers and tensors.
_JAX_OPS: dict[str, Callable[..., jax.Array]] = {
    "dense": lambda x, n, t: jnp.matmul(x[0], t["kernel"], precision="highest") + t["bias"][None],
    "layernorm": lambda x, n, t: _jax_norm(x[0], n["eps"][0], t["scale"][None], t["bias"][None]),
    "relu": lambda x, n, t: jax.nn.relu(x[0]),
    "tanh": lambda x, n, t: jnp.tanh(x[0]),
    "gelu_tanh": lambda x, n, t: jax.nn.gelu(x[0], approximate=True),
    "clip": lambda x, n, t: jnp.clip(x[0], n["low"][0], n["high"][0]),
    "scale_to": lambda x, n, t: (
        n["length"][0] * x[0] / jnp.sqrt(jnp.maximum(jnp.sum(x[0] ** 2, -1, keepdims=True), 1e-12))
    ),
    "concat": lambda x, n, t: jnp.concatenate(x, axis=-1),
    "add": lambda x, n, t: x[0] + x[1],
    "bins": lambda x, n, t: _jax_bins(x[0], n["index"], n["centres"], n["width"][0]),
}


def _jax_network(policy: SkillPolicy, role: str, values: dict[str, jax.Array]) -> jax.Array:
    network = policy.networks[role]
    for op in network.ops:
        inputs = [values[name] for name in op["inputs"]]
        values[op["output"]] = _JAX_OPS[op["op"]](inputs, op["numbers"], network.tensors_of(op, policy.tensors))
    return values[network.ops[-1]["output"]]


def _serialise(function: Callable, *widths: int) -> bytes:
    (n,) = jax.export.symbolic_shape("n")
    shapes = [jax.ShapeDtypeStruct((n, width), np.float32) for width in widths]
    return bytes(jax.export.export(jax.jit(function), platforms=PLATFORMS)(*shapes).serialize())


class _Graph:
    """An ONNX graph under construction; every method adds nodes and returns the name of their output."""

    def __init__(self, policy: SkillPolicy):
        import onnx

        self.onnx, self.policy = onnx, policy
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = self.onnx.numpy_helper.from_array(value, name)
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def normalise(self, obs: str) -> str:
        mean = self.constant("mean", self.policy.tensors["normalizer.mean"])
        std = self.constant("std", self.policy.tensors["normalizer.std"] + np.float32(1e-8))
        return self.node("Div", self.node("Sub", obs, mean), std)

    def number(self, value: Any) -> str:
        return self.constant(f"number_{len(self.constants)}", np.asarray(value, np.float32))

    def network(self, role: str, values: dict[str, str]) -> str:
        """`values` are the inputs by name."""
        network = self.policy.networks[role]
        for op in network.ops:
            tensors = {
                name: self.constant(f"{role}.{op['output']}.{name}", tensor)
                for name, tensor in network.tensors_of(op, self.policy.tensors).items()
            }
            inputs = [values[name] for name in op["inputs"]]
            values[op["output"]] = self._operation(op["op"], inputs, op["numbers"], tensors)
        return values[network.ops[-1]["output"]]

    def _operation(self, kind: str, x: list[str], numbers: dict[str, list[float]], tensors: dict[str, str]) -> str:
        simple = {"relu": "Relu", "tanh": "Tanh", "add": "Add"}
        match kind:
            case "dense":
                return self.node("Gemm", *x, tensors["kernel"], tensors["bias"])
            case "concat":
                return self.node("Concat", *x, axis=1)
            case "layernorm":
                mean = self.node("ReduceMean", *x, axes=[1], keepdims=1)
                square = self.node("ReduceMean", self.node("Mul", *x, *x), axes=[1], keepdims=1)
                var = self.node("Max", self.node("Sub", square, self.node("Mul", mean, mean)), self.number(0))
                std = self.node("Sqrt", self.node("Add", var, self.number(numbers["eps"])))
                scaled = self.node("Mul", self.node("Sub", *x, mean), self.node("Div", tensors["scale"], std))
                return self.node("Add", scaled, tensors["bias"])
            case "gelu_tanh":
                cube = self.node("Mul", self.node("Mul", *x, *x), *x)
                inner = self.node("Add", *x, self.node("Mul", cube, self.number(0.044715)))
                bent = self.node("Tanh", self.node("Mul", inner, self.number(np.sqrt(2 / np.pi))))
                return self.node("Mul", self.node("Mul", *x, self.number(0.5)), self.node("Add", bent, self.number(1)))
            case "clip":
                return self.node("Clip", *x, *(self.number(numbers[name][0]) for name in ("low", "high")))
            case "scale_to":
                square = self.node(
                    "ReduceSum", self.node("Mul", *x, *x), self.constant("last", np.array([1])), keepdims=1
                )
                norm = self.node("Sqrt", self.node("Max", square, self.number(1e-12)))
                return self.node("Mul", *x, self.node("Div", self.number(numbers["length"][0]), norm))
            case "bins":
                return self._bins(x[0], numbers)
            case _:
                return self.node(simple[kind], *x)

    def _bins(self, x: str, numbers: dict[str, list[float]]) -> str:
        size = self.policy.config["observation"]["size"]
        index, centres = [int(i) for i in numbers["index"]], numbers["centres"]
        rest = [i for i in range(size) if i not in index]
        parts = []
        for i in index:
            column = self.node("Gather", x, self.constant(f"column_{i}", np.array([i])), axis=1)
            away = self.node("Sub", column, self.number([centres]))
            parts.append(self.node("Tanh", self.node("Div", away, self.number(numbers["width"][0]))))
        return self.node(
            "Concat", *parts, self.node("Gather", x, self.constant("rest", np.array(rest)), axis=1), axis=1
        )

    def project(self, x: str) -> str:
        """`SkillPolicy.project`."""
        skill = self.policy.config["skill"]
        if skill["kind"] == "onehot":
            indices = self.constant("indices", np.arange(skill["dim"]))
            best = self.node("ArgMax", x, axis=1, keepdims=1)
            return self.node("Cast", self.node("Equal", best, indices), to=self.onnx.TensorProto.FLOAT)
        tiny = self.constant("tiny", np.array(TINY, np.float32))
        fixed = self.constant("fixed", np.eye(1, skill["dim"], dtype=np.float32))
        norm = self.node("ReduceL2", x, axes=[1], keepdims=1)
        unit = self.node("Div", x, self.node("Max", norm, tiny))
        unit = self.node("Where", self.node("Greater", norm, tiny), unit, fixed)
        return self.node("Mul", unit, self.constant("typical_norm", np.array(typical_norm(skill), np.float32)))

    def build(self, inputs: dict[str, int], output: str, width: int, result: str) -> bytes:
        helper, floats = self.onnx.helper, self.onnx.TensorProto.FLOAT
        self.nodes.append(helper.make_node("Identity", [result], [output]))
        infos = {name: helper.make_tensor_value_info(name, floats, ["n", size]) for name, size in inputs.items()}
        out = helper.make_tensor_value_info(output, floats, ["n", width])
        graph = helper.make_graph(self.nodes, "urlrl", list(infos.values()), [out], list(self.constants.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="urlrl"
        )
        helper.set_model_props(model, {"urlrl": json.dumps(self.policy.config)})
        self.onnx.checker.check_model(model)
        return model.SerializeToString()


def onnx_skill(policy: SkillPolicy) -> bytes:
    """The graph (obs (n, obs), z (n, d)) -> action (n, act)."""
    graph, config = _Graph(policy), policy.config
    inputs = {"obs": config["observation"]["size"], "z": config["skill"]["dim"]}
    action = graph.network("policy", {"obs": graph.normalise("obs"), "z": "z"})
    return graph.build(inputs, "action", config["action"]["size"], action)


def onnx_aim(policy: SkillPolicy) -> bytes:
    """The graph (goal (n, obs), obs (n, obs)) -> z (n, d)."""
    graph, config = _Graph(policy), policy.config
    toward = graph.network("features", {"obs": graph.normalise("goal")})
    if config["prompting"]["goal"]["rule"] == "difference":
        toward = graph.node("Sub", toward, graph.network("features", {"obs": graph.normalise("obs")}))
    inputs = dict.fromkeys(("goal", "obs"), config["observation"]["size"])
    return graph.build(inputs, "z", config["skill"]["dim"], graph.project(toward))
