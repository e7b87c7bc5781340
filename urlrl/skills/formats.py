"""A `SkillPolicy` in other forms: ONNX graphs and StableHLO programs, with the normalisation inside.

Either is a folder. `skill.*` maps (obs (n, obs), z (n, d)) to the action (n, act) in [-1, 1]; `aim.*`, for a bundle
with a latent network, maps (goal (n, obs), obs (n, obs)) to z (n, d). All is float32, and n is free.
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
    try:
        import onnxruntime

        graphs = {"skill.onnx": onnx_skill(policy)} | (
            {"aim.onnx": onnx_aim(policy)} if policy.config["latent"] else {}
        )
    except ImportError as error:
        raise _not_installed("onnx", "onnx and onnxruntime") from error

    def run(name: str, *inputs: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        session = onnxruntime.InferenceSession(graphs[name], providers=["CPUExecutionProvider"])
        return lambda *values: session.run(None, dict(zip(inputs, values)))[0]

    aim = run("aim.onnx", "goal", "obs") if policy.config["latent"] else policy.aim
    check_parity("ONNX graph", run("skill.onnx", "obs", "z"), aim, probes)
    return write_folder(folder, graphs, ONNX_FILES)


def write_stablehlo(policy: SkillPolicy, probes: Probes, folder: str | PathLike) -> Path:
    """Write skill.stablehlo, aim.stablehlo (`jax.export.deserialize` reads them) and the contract as JSON.

    Raises:
        SkillError: flatbuffers is not installed, an output differs, or the folder cannot be written.
    """
    obs, z = policy.config["observation"]["size"], policy.config["skill"]["dim"]
    try:
        programs = {"skill.stablehlo": _serialise(jax_skill(policy), obs, z)}
        if policy.config["latent"]:
            programs["aim.stablehlo"] = _serialise(jax_aim(policy), obs, obs)
    except ImportError as error:
        raise _not_installed("stablehlo", "flatbuffers") from error

    def run(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        program = jax.export.deserialize(bytearray(programs[name]))
        return lambda *values: np.asarray(program.call(*values))

    aim = run("aim.stablehlo") if policy.config["latent"] else policy.aim
    check_parity("StableHLO program", run("skill.stablehlo"), aim, probes)
    contract = json.dumps(policy.config, indent=1).encode()
    return write_folder(folder, {**programs, "contract.json": contract}, STABLEHLO_FILES)


FORMATS: dict[str, Callable[[SkillPolicy, Probes, str | PathLike], Path]] = {
    "bundle": write_bundle,
    "onnx": write_onnx,
    "stablehlo": write_stablehlo,
}


def _not_installed(name: str, packages: str) -> SkillError:
    return SkillError(f"The format '{name}' needs {packages}, not installed here: pip install 'urlrl[onnx]'.")


def jax_skill(policy: SkillPolicy) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(obs (n, obs), z (n, d)) -> action (n, act)."""
    return lambda obs, z: _jax_network(policy, "policy", jnp.concatenate([_jax_normalise(policy, obs), z], axis=-1))


def jax_aim(policy: SkillPolicy) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(goal (n, obs), obs (n, obs)) -> z (n, d)."""
    space = SkillSpace(**policy.config["skill"])

    def aim(goal: jax.Array, obs: jax.Array) -> jax.Array:
        ends = [_jax_network(policy, "latent", _jax_normalise(policy, x)) for x in (goal, obs)]
        return space.project(ends[0] - ends[1])

    return aim


def _jax_normalise(policy: SkillPolicy, obs: jax.Array) -> jax.Array:
    return (obs - policy.tensors["normalizer.mean"][None]) / (policy.tensors["normalizer.std"] + np.float32(1e-8))[None]


def _jax_network(policy: SkillPolicy, name: str, x: jax.Array) -> jax.Array:
    functions = {"linear": lambda x: x, "relu": jax.nn.relu, "tanh": jnp.tanh}
    for i, activation in enumerate(policy.config[name]["activations"]):
        kernel, bias = policy.tensors[f"{name}.{i}.kernel"], policy.tensors[f"{name}.{i}.bias"]
        x = functions[activation](jnp.matmul(x, kernel, precision="highest") + bias[None])
    return x


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

    def network(self, name: str, x: str) -> str:
        kinds = {"relu": "Relu", "tanh": "Tanh"}
        for i, activation in enumerate(self.policy.config[name]["activations"]):
            names = (f"{name}.{i}.kernel", f"{name}.{i}.bias")
            x = self.node("Gemm", x, *(self.constant(part, self.policy.tensors[part]) for part in names))
            x = x if activation == "linear" else self.node(kinds[activation], x)
        return x

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
    x = graph.node("Concat", graph.normalise("obs"), "z", axis=1)
    inputs = {"obs": config["observation"]["size"], "z": config["skill"]["dim"]}
    return graph.build(inputs, "action", config["action"]["size"], graph.network("policy", x))


def onnx_aim(policy: SkillPolicy) -> bytes:
    """The graph (goal (n, obs), obs (n, obs)) -> z (n, d)."""
    graph, config = _Graph(policy), policy.config
    ends = [graph.network("latent", graph.normalise(name)) for name in ("goal", "obs")]
    inputs = dict.fromkeys(("goal", "obs"), config["observation"]["size"])
    return graph.build(inputs, "z", config["skill"]["dim"], graph.project(graph.node("Sub", *ends)))
