"""Skills without the library that learned them: one file that needs NumPy and safetensors, and can be copied.

    policy = SkillPolicy.from_pretrained("bundles/ant")
    ctrl = policy.scale(policy.act(obs, "north"))  # in actuator units
    z = policy.aim(policy.goal(x=10, y=-5), obs)  # the skill that leads there from here

    z = policy.prompt(reward=lambda seen: seen["vx"])  # the skill for a reward on the transitions that it brings along

    controller = SkillController(policy)  # of a bundle that has one; act(obs and features) chooses skills by itself

A bundle is a folder: `skill.safetensors` (float32 weights and normalisation), `config.json` (the contract), `README.md`
(a model card) and, where rewards can be asked for, `prompt.safetensors` (transitions to tell them on). Networks are
lists of the named operations below, so nothing in a bundle is ever executed. Loading it checks hashes, shapes and the
golden inputs and outputs of the agent that it was made from, and fails closed: whatever is wrong raises SkillError, one
sentence that says what was found and what was expected. A loaded policy keeps nothing of its calls but the features of
its transitions, which are the same each time, so threads can share it.
"""

import difflib
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

FORMAT, FORMAT_1 = "urlrl-skill-2", "urlrl-skill-1"  # what is written; and what is read, too: chains of dense layers
WEIGHTS, CONFIG, CARD = FILES = ("skill.safetensors", "config.json", "README.md")
PROMPT = "prompt.safetensors"
LIMITS = {WEIGHTS: 2**28, CONFIG: 2**22, CARD: 2**22, PROMPT: 2**30}  # bytes
TOLERANCE = 1e-5  # of golden outputs
ANGLE = 1e-5  # of golden skills that solve equations, by `turned`
# wide_sphere: of length sqrt(dim); none: a policy of one task, whose z has no numbers
KINDS = ("sphere", "wide_sphere", "gaussian", "onehot", "none")
LARGEST = float(np.finfo(np.float32).max)
TINY = 1e-8  # below this norm a vector has no direction
NAME = re.compile(r"\w[\w-]*")
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")

MAX_OPS, MAX_WIDTH = 256, 2**16  # operations of a network, and numbers of a vector between them
MAX_GROUP = 4096  # pairs that are encoded together
TOKENS = -1  # the axis of pairs (state, reward), of any length

_ZERO, _HALF, _ONE = (np.float32(number) for number in (0, 0.5, 1))
Shape = tuple[int, ...]  # of one input: its last axes
Numbers = dict[str, list[float]]
Tensors = dict[str, np.ndarray]


class Kind(NamedTuple):
    """What a kind of operation is. An operation has numbers and tensors, each by name."""

    inputs: int | None  # how many; None: at least one
    numbers: dict[str, int | None]  # name -> how many; None: any
    shapes: Callable[[list[Shape], Numbers], tuple[Shape, dict[str, Shape]]]  # of the output and of the tensors
    make: Callable[[Numbers, Tensors], Callable[..., np.ndarray]]  # of arrays with these last axes


def _same(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    _expect("its inputs", len(set(shapes)) == 1, shapes, "equal shapes")
    return shapes[0], {}


def _vectors(shapes: list[Shape]) -> int:
    """Of one input that is a vector, or one for each token: its size."""
    _expect("its input", len(shapes[0]) > 0 and shapes[0][-1] > 0, shapes[0], "vectors")
    return shapes[0][-1]


def _whole(name: str, numbers: Numbers, low: int) -> int:
    number = numbers[name][0]
    _expect(name, number == int(number) >= low, number, f"a whole number of at least {low}")
    return int(number)


def _dense_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    size, units = _vectors(shapes), _whole("units", numbers, 1)
    return (*shapes[0][:-1], units), {"kernel": (size, units), "bias": (units,)}


def _dense(numbers: Numbers, tensors: Tensors) -> Callable[..., np.ndarray]:
    kernel, bias = tensors["kernel"], tensors["bias"]

    def run(x: np.ndarray) -> np.ndarray:
        y = x @ kernel
        y += bias
        return y

    return run


def _norm_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    size = _vectors(shapes)
    _expect("eps", numbers["eps"][0] > 0, numbers["eps"][0], "more than 0")
    return shapes[0], {"scale": (size,), "bias": (size,)}


def _norm(numbers: Numbers, tensors: Tensors) -> Callable[..., np.ndarray]:
    """The variance is E[x^2] - E[x]^2, as in training: another formula differs where the mean is large."""
    scale, bias, eps = tensors["scale"], tensors["bias"], np.float32(numbers["eps"][0])
    share = np.float32(1 / len(scale))

    def run(x: np.ndarray) -> np.ndarray:
        mean = np.add.reduce(x, axis=-1, keepdims=True) * share
        square = np.add.reduce(x * x, axis=-1, keepdims=True) * share
        return (x - mean) * (scale / np.sqrt(np.maximum(square - mean * mean, _ZERO) + eps)) + bias

    return run


def _concat_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    for shape in shapes:
        _vectors([shape])
    _expect("its inputs", len({shape[:-1] for shape in shapes}) == 1, shapes, "all vectors, or all one for each token")
    return (*shapes[0][:-1], sum(shape[-1] for shape in shapes)), {}


def _length_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    _vectors(shapes)
    _expect("length", numbers["length"][0] > 0, numbers["length"][0], "more than 0")
    return shapes[0], {}


def _length(numbers: Numbers, tensors: Tensors) -> Callable[..., np.ndarray]:
    length, least = np.float32(numbers["length"][0]), np.float32(1e-12)
    return lambda x: x * (length / np.sqrt(np.maximum(np.add.reduce(x * x, axis=-1, keepdims=True), least)))


def _clip_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    (low,), (high,) = numbers["low"], numbers["high"]
    _expect("high", low < high, high, f"more than low, which is {low}")
    return shapes[0], {}


def _clip(numbers: Numbers, tensors: Tensors) -> Callable[..., np.ndarray]:
    low, high = (np.float32(numbers[name][0]) for name in ("low", "high"))
    return lambda x: np.minimum(np.maximum(x, low), high)


def _bins_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    size, index, centres = _vectors(shapes), numbers["index"], numbers["centres"]
    good = len(set(index)) == len(index) > 0 and _entries(index, size)
    _expect("index", good, index, f"entries of an input of {size} numbers")
    _expect("centres", len(centres) > 0, centres, "at least one")
    _expect("width", numbers["width"][0] > 0, numbers["width"][0], "more than 0")
    return (*shapes[0][:-1], size + len(index) * (len(centres) - 1)), {}


def _bins(numbers: Numbers, tensors: Tensors) -> Callable[..., np.ndarray]:
    """Each entry x of the index is tanh((x - c) / width) of all centres c; the others come behind, as they are."""
    index, width = [int(i) for i in numbers["index"]], np.float32(numbers["width"][0])
    centres = np.array(numbers["centres"], np.float32)

    def run(x: np.ndarray) -> np.ndarray:
        rest = np.delete(x, index, axis=-1)
        soft = np.tanh((x[..., index, None] - centres) / width)
        return np.concatenate((soft.reshape(*x.shape[:-1], -1), rest), axis=-1)

    return run


def _embed_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    units, bins = _whole("units", numbers, 1), _whole("bins", numbers, 1)
    _expect("its input", shapes[0] == (TOKENS,), shapes[0], "a number for each token")
    return (TOKENS, units), {"table": (bins, units)}


def _embed(numbers: Numbers, tensors: Tensors) -> Callable[..., np.ndarray]:
    """A row of the table for each number in [-1, 1]."""
    table = tensors["table"]
    bins = np.float32(len(table))
    return lambda x: table[np.clip(np.floor((x * _HALF + _HALF) * bins), 0, bins - 1).astype(int)]


def _attention_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    size, heads = _vectors(shapes), _whole("heads", numbers, 1)
    _expect("its input", len(shapes[0]) == 2, shapes[0], "a vector for each token")
    _expect("heads", size % heads == 0, heads, f"a divisor of {size}")
    names = ("query", "key", "value", "out")
    return shapes[0], {
        f"{name}_{part}": (size,) * axes for name in names for part, axes in (("kernel", 2), ("bias", 1))
    }


def _attention(numbers: Numbers, tensors: Tensors) -> Callable[..., np.ndarray]:
    heads = int(numbers["heads"][0])

    def run(x: np.ndarray) -> np.ndarray:
        def split(name: str) -> np.ndarray:  # (*B, heads, tokens, size)
            y = x @ tensors[f"{name}_kernel"] + tensors[f"{name}_bias"]
            return np.moveaxis(y.reshape(*y.shape[:-1], heads, -1), -2, -3)

        query, key, value = (split(name) for name in ("query", "key", "value"))
        scores = query @ key.swapaxes(-1, -2) * np.float32(query.shape[-1] ** -0.5)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = np.moveaxis(weights / weights.sum(axis=-1, keepdims=True) @ value, -3, -2)
        return mixed.reshape(x.shape) @ tensors["out_kernel"] + tensors["out_bias"]

    return run


def _mean_shapes(shapes: list[Shape], numbers: Numbers) -> tuple[Shape, dict[str, Shape]]:
    _expect("its input", len(shapes[0]) == 2, shapes[0], "a vector for each token")
    return shapes[0][1:], {}


def _gelu(x: np.ndarray) -> np.ndarray:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    return _HALF * x * (_ONE + np.tanh(inner))


OPS: dict[str, Kind] = {
    "dense": Kind(1, {"units": 1}, _dense_shapes, _dense),  # x kernel + bias
    "layernorm": Kind(1, {"eps": 1}, _norm_shapes, _norm),
    "relu": Kind(1, {}, _same, lambda numbers, tensors: lambda x: np.maximum(x, _ZERO)),
    "tanh": Kind(1, {}, _same, lambda numbers, tensors: np.tanh),
    "gelu_tanh": Kind(1, {}, _same, lambda numbers, tensors: _gelu),
    "clip": Kind(1, {"low": 1, "high": 1}, _clip_shapes, _clip),
    "scale_to": Kind(1, {"length": 1}, _length_shapes, _length),  # vectors of this length
    "concat": Kind(None, {}, _concat_shapes, lambda numbers, tensors: lambda *x: np.concatenate(x, axis=-1)),
    "add": Kind(2, {}, _same, lambda numbers, tensors: np.add),
    "bins": Kind(1, {"index": None, "centres": None, "width": 1}, _bins_shapes, _bins),
    "embed": Kind(1, {"units": 1, "bins": 1}, _embed_shapes, _embed),
    "attention": Kind(1, {"heads": 1}, _attention_shapes, _attention),
    "mean": Kind(1, {}, _mean_shapes, lambda numbers, tensors: lambda x: x.mean(axis=-2)),  # over tokens
}


class Network:
    """Operations, each of inputs or of results that came before it; the last one's result is the network's.

    `ops` are {"op", "inputs", "output", "numbers"}, `inputs` the shape of each input by name.

    Raises:
        SkillError: an unknown operation or input, or one that does not fit what it is given.
    """

    def __init__(self, role: str, ops: list[dict[str, Any]], inputs: dict[str, Shape]):
        _expect(f"How many operations networks.{role} has", 1 <= len(ops) <= MAX_OPS, len(ops), f"1 to {MAX_OPS}")
        self.role, self.ops, self.inputs, shapes = role, ops, list(inputs), dict(inputs)
        self.tensor_shapes: dict[str, Shape] = {}
        for op in ops:
            kind, output, place = op["op"], op["output"], f"networks.{role}, operation {_short(op['output'])}"
            if kind not in OPS:
                raise _unknown("operation", kind, OPS)
            for name in op["inputs"]:
                _expect(f"{place}, its input", name in shapes, name, f"one of {_listed(shapes)}")
            _expect(f"{place}, its output", output not in shapes, output, "a name that is not taken")
            count, expected = len(op["inputs"]), OPS[kind].inputs
            good = count == expected if expected else 1 <= count <= MAX_OPS
            _expect(f"{place}, its number of inputs", good, count, str(expected or f"1 to {MAX_OPS}"))
            _expect(f"{place}, its numbers", op["numbers"].keys() == OPS[kind].numbers.keys(), list(op["numbers"]),
                    _listed(OPS[kind].numbers))  # fmt: skip
            for name, size in OPS[kind].numbers.items():
                found = len(op["numbers"][name])
                _expect(f"{place}, how many {name}", size in (None, found), found, f"{size}")
            try:
                shapes[output], tensors = OPS[kind].shapes([shapes[name] for name in op["inputs"]], op["numbers"])
            except SkillError as error:
                raise SkillError(f"{place}: {error}") from error
            most = max(0, *shapes[output])
            _expect(f"{place}, the size of its output", most <= MAX_WIDTH, most, f"at most {MAX_WIDTH}")
            self.tensor_shapes |= {f"{role}.{output}.{part}": shape for part, shape in tensors.items()}
        self.shape = shapes[ops[-1]["output"]]

    def load(self, tensors: Tensors) -> Callable[..., np.ndarray]:
        """The function of the inputs, in their order; each has its shape as its last axes, float32."""
        places = {name: i for i, name in enumerate(self.inputs)}
        steps = []
        for op in self.ops:
            function = OPS[op["op"]].make(op["numbers"], self.tensors_of(op, tensors))
            steps.append((function, [places[name] for name in op["inputs"]]))
            places[op["output"]] = len(places)

        def run(*values: np.ndarray) -> np.ndarray:
            found = list(values)
            for function, inputs in steps:
                found.append(function(*[found[i] for i in inputs]))
            return found[-1]

        return run

    def tensors_of(self, op: dict[str, Any], tensors: Tensors) -> Tensors:
        """An operation's own ones."""
        prefix = f"{self.role}.{op['output']}."
        return {name.removeprefix(prefix): tensors[name] for name in self.tensor_shapes if name.startswith(prefix)}


# What config.json holds: a type, [type of each item], {key: type}, {str: type of every value}, (type, None) where null
# is allowed, (type,) where the key may be missing. A float is any finite number.
_COMMON = {
    "format": str,
    "env": str,
    "control_dt": (float, None),  # seconds per control step
    "action": {"size": int, "names": [str], "low": [float], "high": [float]},  # bounds in actuator units
    "skill": {"kind": str, "dim": int},  # the prior over z
    "goal": ({"names": [str], "index": [int], "template": [float]}, None),  # position entries of an observation
    "provenance": dict,
}  # fmt: skip
_ACT = {"obs": [[float]], "z": [[float]], "action": [[float]]}
_AIM = ({"goal": [[float]], "obs": [[float]], "z": [[float]]}, None)  # null where goals cannot be told
_CHAIN = {"sizes": [int], "activations": [str]}
_SCHEMA_1 = _COMMON | {
    "observation": {"size": int, "names": [str]},
    "skills": {str: {"z": [float], "displacement": ({str: float}, None)}},
    "policy": _CHAIN,  # [normalised obs, z] -> action
    "latent": (_CHAIN, None),  # normalised obs -> phi
    "golden": {"act": _ACT, "aim": _AIM},
}
_CHAINED = ("linear", "relu", "tanh")  # activations of format 1
_RULE = ({"rule": str, "options": [str], "numbers": {str: [float]}}, None)  # null: it cannot be told so
_SCHEMA = _COMMON | {
    "observation": {"size": int, "names": [str], "low": [float], "high": [float]},  # between which its export saw it
    # Named skills: where an episode led, what they were asked for, and the SHA-256 of the weights that they are for.
    "skills": {str: {"z": [float], "displacement": ({str: float}, None), "told_by": (str, None), "weights": str}},
    "networks": {str: [{"op": str, "inputs": [str], "output": str, "numbers": {str: [float]}}]},  # of ROLES
    "prompting": {"goal": _RULE, "reward": _RULE, "demo": _RULE},  # of RULES: how z is made
    "transitions": ({"count": int, "words": [str], "sha256": str}, None),  # of PROMPT; words name columns of numbers
    "controller": ({"features": [str], "hold": int},),  # what it sees behind an observation; actions of a choice
    "golden": {  # inputs and outputs of the agent, row by row
        "act": _ACT,
        "aim": _AIM,
        "reward": ({"entry": [int], "z": [[float]]}, None),  # z for the reward that is this entry of next_obs
        "demo": ({"obs": [[float]], "z": [float]},),  # one z for all of obs; older bundles keep none
        "choose": ({"inputs": [[float]], "z": [[float]]},),  # where there is a controller
    },
}  # fmt: skip
# role -> its inputs, which are normalised observations, states (tokens, obs) and their rewards (tokens,), z, and
# observations with the features of a task behind them, normalised by their own statistics
ROLES = {"policy": ("obs", "z"), "features": ("obs",), "encoder": ("states", "rewards"), "controller": ("inputs",)}
# kind of prompt -> rule -> what it takes: roles and transitions, its options, and its numbers
RULES: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]] = {
    "goal": {
        "features": (("features",), (), ()),  # z along f(g)
        "whitened": (("features", "transitions"), (), ()),  # z along Cov(f)^-1 f(g)
        "difference": (("features",), (), ()),  # z along f(g) - f(s), at every step
        "plan": (("features", "transitions"), (), ("neighbours", "recursions", "near")),  # the same over waypoints
        # The encoding of 0 at the goal and -1 elsewhere.
        "labels": (("encoder", "transitions"), (), ("position", "scale", "radius", "group")),
    },
    "reward": {
        "mean": (("features", "transitions"), (), ()),  # z along the mean of r f(s')
        "least_squares": (("features", "transitions"), ("difference", "intercept", "moves"), ()),
        "encode": (("encoder", "transitions"), (), ("group",)),  # the mean encoding of groups of pairs (s', r)
    },
    "demo": {
        "mean": (("features",), (), ()),  # as a goal by "features", on average
        "whitened": (("features", "transitions"), (), ()),
        "difference": (("features",), (), ()),  # z along f(last) - f(first)
    },
}
# The numbers of rules that are counts, and the largest; lengths are any number of at least 0.
COUNTS = {"group": MAX_GROUP, "neighbours": 10**9, "recursions": 100}
_TYPES = {str: "a text", int: "a whole number", float: "a finite number", dict: "an object"}


class SkillError(ValueError):
    """What is wrong with a bundle or an input: the thing, what was found and what was expected."""


class Transitions:
    """What a policy brings along to be told rewards on: columns by name, (n, size) or (n,), none to be changed.

    `obs`, `action` and `next_obs` are rows. Columns, as `seen["vx"]`, are of the state that was reached: each entry of
    `next_obs` by its name, and the `words`.
    """

    def __init__(self, tensors: Tensors, names: list[str], words: list[str]):
        for tensor in tensors.values():
            tensor.setflags(write=False)
        self.obs, self.action, self.next_obs = (tensors[name] for name in ("obs", "action", "next_obs"))
        entries = {name: self.next_obs[:, i] for i, name in enumerate(names)}
        self.columns = entries | {word: tensors["words"][:, i] for i, word in enumerate(words)}
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise _unknown("column", str(name), self.columns)
        return self.columns[name]


@dataclass(frozen=True)
class Toward:
    """A prompt whose skill depends on where one is: `SkillPolicy.act` takes it as z, and asks at every step."""

    aim: Callable[[Any], np.ndarray]  # obs (obs,) or (n, obs) -> z


class SkillPolicy:
    """A pretrained policy whose input, beside the observation, is the skill z to perform.

    `config` is the contract that config.json states, `tensors` are the weights by name, `skills` maps names to skills
    z (d,), `transitions` are what rewards are told on (None: there are none), `card` is the model card: all as loaded,
    none to be changed. A `strict` one refuses to act on observations far from those that its export saw in episodes
    and transitions: beyond their range by more than the range itself.

    Raises:
        SkillError: config and tensors do not fit each other, or do not give the golden outputs.
    """

    def __init__(
        self,
        config: dict[str, Any],
        tensors: dict[str, np.ndarray],
        card: str,
        seen: dict[str, np.ndarray] | None = None,
        strict: bool = False,
    ):
        networks = _check_config(config)
        _check_tensors(tensors, expected_shapes(config))
        self.config, self.tensors, self.card = config, tensors, card
        self.networks = networks
        self._mean = tensors["normalizer.mean"]
        self._std = tensors["normalizer.std"] + np.float32(1e-8)
        run = {role: network.load(tensors) for role, network in networks.items()}
        # What a rule needs is there: `_check_config` has seen to it.
        self._policy: Any
        self._features: Any
        self._encoder: Any
        self._controller: Any
        self._policy, self._features, self._encoder, self._controller = (run.get(role) for role in ROLES)
        self._rules = _prompting(config)
        self._range = _range(config["observation"], tensors["normalizer.std"]) if strict else None
        self._obs_dim, self._z_dim = config["observation"]["size"], config["skill"]["dim"]
        self._onehot = config["skill"]["kind"] == "onehot"
        low, high = (np.array(config["action"][bound], np.float64) for bound in ("low", "high"))
        self._middle, self._half = (high + low) / 2, (high - low) / 2
        self.skills = {name: self.skill(np.array(skill["z"], np.float32)) for name, skill in config["skills"].items()}
        for z in self.skills.values():
            z.setflags(write=False)
        self.transitions: Any = self._transitions(seen)
        self._check_golden()

    def _transitions(self, seen: dict[str, np.ndarray] | None) -> Transitions | None:
        about, observation = self.config.get("transitions"), self.config["observation"]
        if bool(about) != (seen is not None):
            raise SkillError(f"There are {'no' if about else 'some'} transitions: expected what {CONFIG} says of them.")
        if not about or seen is None:
            return None
        n, obs = about["count"], observation["size"]
        shapes: dict[str, Shape] = {"obs": (n, obs), "action": (n, self.config["action"]["size"]), "next_obs": (n, obs)}
        if about["words"]:
            shapes["words"] = (n, len(about["words"]))
        _check_shapes(seen, shapes)
        return Transitions(dict(seen), observation["names"], about["words"])

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        revision: str | None = None,
        local_files_only: bool = False,
        *,
        strict: bool = False,
    ) -> "SkillPolicy":
        """Load a bundle from a folder, or from the Hugging Face hub if there is no such folder.

        Args:
            source: a folder, the name of a bundle that ships beside this file, or a hub id "owner/name" (needs the
                package huggingface_hub).
            revision: of a hub id: a branch, tag or commit; None is the newest.
            local_files_only: of a hub id: never use the network.
            strict: see the class.

        Raises:
            SkillError: it is missing, damaged, of another format, or does not give its golden outputs.
        """
        folder, root = _find(str(source), revision, local_files_only)
        content = {name: _read(folder, root, name) for name in FILES}
        config = _parse_config(folder / CONFIG, content[CONFIG], content[WEIGHTS])
        try:
            card = content[CARD].decode()
        except UnicodeDecodeError as error:
            raise SkillError(f"{folder / CARD} is no text: {error}; expected UTF-8.") from error
        seen = None
        if about := config.get("transitions"):
            prompt = _read(folder, root, PROMPT)
            if hashlib.sha256(prompt).hexdigest() != about["sha256"]:
                raise SkillError(f"{folder / PROMPT} was changed or damaged: its SHA-256 is not what {CONFIG} states.")
            seen = _parse_tensors(prompt, PROMPT)
        try:
            return cls(config, _parse_tensors(content[WEIGHTS], WEIGHTS), card, seen, strict)
        except SkillError as error:
            raise SkillError(f"Bundle '{source}': {error}") from error

    def save_pretrained(self, folder: str | os.PathLike) -> Path:
        """Write the bundle: whole or not at all, replacing a bundle that is there; returns the folder.

        Raises:
            SkillError: the folder holds something else, or cannot be written.
        """
        weights = file_of(self.tensors, self.config["format"])
        hashes = {WEIGHTS: hashlib.sha256(weights).hexdigest(), CONFIG: _digest(self.config)}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in {**self.config, "sha256": hashes}.items()]
        config = "{\n" + ",\n".join(lines) + "\n}\n"
        files = {WEIGHTS: weights, CONFIG: config.encode(), CARD: self.card.encode()}
        if self.transitions:
            files[PROMPT] = file_of(self.transitions.tensors, self.config["format"])
        return write_folder(folder, files, (*FILES, PROMPT))

    def push_to_hub(self, repo: str) -> None:
        """Upload the bundle to the hub id "owner/name", which is made if it is not there.

        Raises:
            SkillError: huggingface_hub is not installed, or the hub refuses.
        """
        hub = _import_hub()
        with tempfile.TemporaryDirectory() as work:
            folder = self.save_pretrained(Path(work) / "bundle")
            try:
                hub.HfApi().create_repo(repo, exist_ok=True)
                hub.HfApi().upload_folder(repo_id=repo, folder_path=folder)
            except (OSError, ValueError) as error:
                raise SkillError(f"Cannot push to the hub as '{repo}': {_first_line(error)}.") from error

    def act(self, obs: Any, z: Any = ()) -> np.ndarray:
        """The mode of the policy: action in [-1, 1], float32 of shape (act,), or (n, act) where obs or z has n rows.

        Args:
            obs: (obs,) or (n, obs), in the environment's own units.
            z: (d,) or (n, d), on a sphere of its length; or a named skill; or what `prompt` returned; or, of one-hot
                skills, an index. A policy of one task takes none.

        Raises:
            SkillError: a wrong size, length or name, or what is not finite.
        """
        x = self._normalised("obs", obs)
        if self._range is not None:
            self._check_range(np.asarray(obs, np.float32), *self._range)
        x, z = _side_by_side(x, z.aim(obs) if isinstance(z, Toward) else self.skill(z), "obs and z")
        action = self._policy(x, z)
        if not math.isfinite(np.vdot(action, action)):
            raise SkillError("The action is not finite: expected obs and z of a size that the policy was trained on.")
        return action

    def scale(self, action: Any) -> np.ndarray:
        """An action in [-1, 1], (*B, act), in actuator units: mapped affinely onto the action's bounds; float64."""
        try:
            numbers = np.asarray(action)
        except ValueError:  # Rows of unequal lengths.
            numbers = np.empty(0, object)
        fits = numbers.dtype.kind in "biuf" and numbers.shape[-1:] == self._half.shape
        if not fits or not (np.abs(numbers) <= 1).all():  # Never so for NaN.
            raise SkillError(f"action is {_short(action)}: expected {self._half.size} numbers in [-1, 1].")
        return self._middle + self._half * numbers

    def aim(self, goal: Any, obs: Any) -> np.ndarray:
        """The skill that leads from obs toward goal: (d,), or (n, d) where either has n rows. Both are whole
        observations; `goal()` makes one of a position.

        Raises:
            SkillError: the bundle cannot be told goals, a wrong size, or what is not finite.
        """
        rule, goal = self._rule("goal"), _vector("goal", goal, self._obs_dim)
        if rule["rule"] not in ("difference", "plan"):
            return _side_by_side(self._fixed_goal(goal, rule), self._normalised("obs", obs), "goal and obs")[0]
        goal, obs = _side_by_side(goal, self._normalised("obs", obs), "goal and obs")
        target, at = self._features(self._normalised("goal", goal)), self._features(obs)
        if rule["rule"] == "plan":
            target = self._subgoals(at, target, rule["numbers"])
        return self.project(target - at)

    def choose(self, inputs: Any) -> np.ndarray:
        """The skill that the controller chooses: (d,), or (n, d) of n rows. `SkillController` holds it as in training.

        Args:
            inputs: (obs + features,) or (n, obs + features): observations, with the features behind them that
                `config["controller"]` names.

        Raises:
            SkillError: the bundle has no controller, a wrong size, or what is not finite.
        """
        x = (self._inputs(inputs) - self.tensors["inputs.mean"]) / (self.tensors["inputs.std"] + np.float32(1e-8))
        z = self._controller(x)
        return z if self.config["skill"]["kind"] == "gaussian" else self.project(z)

    def control(self) -> dict[str, Any]:
        """What the contract says of the controller. Raises SkillError where there is none."""
        if "controller" not in self.config:
            raise SkillError("This bundle has no controller over skills: expected one with the role 'controller'.")
        return self.config["controller"]

    def _inputs(self, inputs: Any) -> np.ndarray:
        names = [*self.config["observation"]["names"], *self.control()["features"]]
        return _vector("inputs", inputs, len(names), names)

    def prompt(self, *, reward: Any = None, goal: Any = None, demo: Any = None) -> "np.ndarray | Toward":
        """What to do, as `act` takes it for z: a skill (d,), or what finds one anew at every step.

        Args:
            reward: of the transitions that the bundle brings along: numbers (n,), a function of `transitions` that
                returns them, or words, as "vx - 0.1 * energy": arithmetic on their columns, never run as code.
            goal: a whole observation (obs,), or its position by name, as {"x": 10, "y": -5}.
            demo: the observations (t, obs) of an episode to be followed.

        Raises:
            SkillError: not exactly one of them, one that this bundle cannot be told, or a wrong size.
        """
        given = {"reward": reward, "goal": goal, "demo": demo}
        kinds = [kind for kind, value in given.items() if value is not None]
        _expect("prompt", len(kinds) == 1, kinds, "one of reward, goal and demo")
        rule = self._rule(kinds[0])
        if reward is not None:
            return self._told(self._rewards(reward), rule)
        if goal is not None:
            goal = self._place(goal) if isinstance(goal, Mapping) else _single(_vector("goal", goal, self._obs_dim))
            if rule["rule"] in ("difference", "plan"):
                return Toward(lambda obs: self.aim(goal, obs))
            return self._fixed_goal(goal, rule)
        steps = self._normalised("demo", demo)
        good = steps.ndim == 2 and len(steps) > 1
        _expect("The shape of demo", good, steps.shape, "that of the observations of two steps or more")
        if rule["rule"] == "difference":
            first, last = self._features(steps[[0, -1]])
            return self.project(last - first)
        rows = self._features(steps[1:])
        return self.project((self._whitened(rows) if rule["rule"] == "whitened" else rows).mean(axis=0))

    def _rule(self, kind: str) -> dict[str, Any]:
        rule = self._rules[kind]
        if rule is None:
            known = [name for name, found in self._rules.items() if found]
            expected = f"a {' or '.join(known)}" if known else "a skill by name"
            raise SkillError(f"This bundle cannot be told a {kind}: expected {expected}.")
        return rule

    def _fixed_goal(self, goal: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
        """The skill for goals (*B, obs) that is the same wherever one is."""
        goal = self._normalised("goal", goal)
        if rule["rule"] == "labels":
            return self._encoded_goal(goal, rule["numbers"])
        found = self._features(goal)
        return self.project(self._whitened(found) if rule["rule"] == "whitened" else found)

    def _encoded_goal(self, goal: np.ndarray, numbers: Numbers) -> np.ndarray:
        """Told at the goal (*B, obs) and at the first states of the transitions: 0 where the position is near the
        goal's, or all of the state, and -1 elsewhere."""
        others = self._normalised("states", self.transitions.obs[: int(numbers["group"][0]) - 1])
        goal = goal[..., None, :]
        states = np.concatenate((goal, np.broadcast_to(others, (*goal.shape[:-2], *others.shape))), axis=-2)
        away, position = states - goal, [int(i) for i in numbers["position"]]
        if numbers["scale"]:
            away = away / np.array(numbers["scale"], np.float32)
        near = np.square(away[..., position or slice(None)]).sum(axis=-1) < np.float32(numbers["radius"][0] ** 2)
        return self._encoder(states, np.where(near, _ZERO, -_ONE))

    def _subgoals(self, at: np.ndarray, target: np.ndarray, numbers: Numbers) -> np.ndarray:
        """Half of the way to the target, `recursions` times unless it is near: the mean of the waypoints between,
        (*B, d)."""
        ways, count = self._waypoints, int(numbers["neighbours"][0])
        shape, at, target = at.shape, at.reshape(-1, self._z_dim), target.reshape(-1, self._z_dim)
        near = _distances(ways, at)
        for _ in range(int(numbers["recursions"][0])):
            farther = np.maximum(near, _distances(ways, target))
            best = np.argpartition(farther, min(count, len(ways)) - 1, axis=1)[:, :count]
            short = np.sqrt(np.square(target - at).sum(axis=1, keepdims=True)) <= np.float32(numbers["near"][0])
            target = np.where(short, target, ways[best].mean(axis=1))
        return target.reshape(shape)

    def _rewards(self, reward: Any) -> np.ndarray:
        seen = self.transitions
        if isinstance(reward, str):
            reward = _in_words(reward, seen.columns)
        elif callable(reward):
            reward = reward(seen)
        found = _vector("reward", reward, len(seen))
        _expect("The shape of reward", found.ndim == 1, found.shape, f"({len(seen)},), a number for each transition")
        return found

    def _told(self, reward: np.ndarray, rule: dict[str, Any]) -> np.ndarray:
        if rule["rule"] == "encode":
            low, high = float(reward.min()), float(reward.max())
            middle, scale = np.float32((low + high) / 2), np.float32((high - low) / 2 if high > low else 1)
            size = min(int(rule["numbers"]["group"][0]), len(reward))
            whole = len(reward) // size * size
            states = self._normalised("states", self.transitions.next_obs[:whole]).reshape(-1, size, self._obs_dim)
            return self._encoder(states, ((reward - middle) / scale)[:whole].reshape(-1, size)).mean(axis=0)
        reward = reward / max(np.abs(reward).max(), np.finfo(np.float32).tiny)  # Its scale tells nothing.
        if rule["rule"] == "mean":
            w = reward @ self._rows / np.float32(len(reward))
        else:
            w = self._inverse @ (reward - reward.mean() if "intercept" in rule["options"] else reward)
        if not np.linalg.norm(w) > TINY:
            raise SkillError(
                "The reward has no direction in what the agent knows: expected one that varies with the state."
            )
        return self.project(self.tensors["prompting.moves"] @ w if "moves" in rule["options"] else w)

    def _whitened(self, rows: np.ndarray) -> np.ndarray:
        """Cov^-1 of each row (*B, d), by the covariance of the transitions' features, with a ridge."""
        return np.linalg.solve(self._covariance, rows[..., None])[..., 0]

    @cached_property
    def _covariance(self) -> np.ndarray:
        features = self._rows.astype(np.float64)
        cov = features.T @ features / len(features)
        return cov + (1e-5 * np.trace(cov) + 1e-12) * np.eye(len(cov))

    def _finite(self, features: np.ndarray) -> np.ndarray:
        if not np.abs(features).max() <= 1e15:  # Their squares are summed.
            raise SkillError(
                "The features of the transitions are not of a sane size: expected those of a trained agent."
            )
        return features

    @cached_property
    def _waypoints(self) -> np.ndarray:
        """Features of where the transitions began, (n, d)."""
        return self._finite(self._features(self._normalised("states", self.transitions.obs)))

    @cached_property
    def _rows(self) -> np.ndarray:
        """What rewards are linear in, of each transition, (n, d)."""
        found = self._finite(self._features(self._normalised("states", self.transitions.next_obs)))
        rule = self._rules["reward"]
        return found - self._waypoints if rule and "difference" in rule["options"] else found

    @cached_property
    def _inverse(self) -> np.ndarray:
        """(d, n): of these rows, centred where there is an intercept; directions that do not vary count for nothing."""
        rows = self._rows.astype(np.float64)
        if "intercept" in self._rules["reward"]["options"]:
            rows = rows - rows.mean(axis=0)
        return np.linalg.pinv(rows, rcond=1e-5).astype(np.float32)

    def goal(self, **position: float) -> np.ndarray:
        """The observation (obs,) of standing at a position, as `goal(x=10, y=-5)`, in the environment's units.

        Raises:
            SkillError: the observation does not show a position, or other coordinates than these were given.
        """
        return self._place(position)

    def _place(self, position: Mapping[str, Any]) -> np.ndarray:
        place = self.config["goal"]
        if place is None:
            raise SkillError(f"Observations of '{self.config['env']}' show no position: expected a whole observation.")
        if set(position) != set(place["names"]):
            raise SkillError(f"The goal has {_listed(position)}: expected {_listed(place['names'])}.")
        obs = np.array(place["template"], np.float32)
        obs[place["index"]] = [_vector(name, [position[name]], 1)[0] for name in place["names"]]
        return obs

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(n, d) skills, drawn from the prior that the policy was trained under."""
        if self._onehot:
            return self._one_hot(rng.integers(self._z_dim, size=n))
        z = rng.standard_normal((n, self._z_dim), np.float32)
        return self.project(z) if self._length is not None else z

    def project(self, x: Any) -> np.ndarray:
        """(*B, d) -> the skill that points most along x; where x has no direction, a fixed one."""
        x = _vector("x", x, self._z_dim)
        if self._onehot:
            return self._one_hot(x.argmax(axis=-1))
        norm = np.sqrt(np.square(x, dtype=np.float64).sum(axis=-1, keepdims=True))  # Squares beyond float32.
        unit = np.where(norm > TINY, x / np.maximum(norm, TINY), np.eye(1, self._z_dim)[0])
        return (unit * typical_norm(self.config["skill"])).astype(np.float32)

    @cached_property
    def _length(self) -> float | None:
        """That all skills have; None where they differ."""
        return typical_norm(self.config["skill"]) if self.config["skill"]["kind"] in ("sphere", "wide_sphere") else None

    def skill(self, z: Any) -> np.ndarray:
        """The skill (d,) or (n, d) that `act` means by z: a name, an index, or numbers of the right length."""
        if isinstance(z, str):
            if z not in self.skills:
                raise _unknown("skill", z, self.skills)
            return self.skills[z]
        if self._onehot and isinstance(z, int | np.integer) and not isinstance(z, bool):
            if not 0 <= z < self._z_dim:
                raise SkillError(f"z is the index {z}: expected one in [0, {self._z_dim}).")
            return self._one_hot(z)
        if not self._z_dim and np.shape(z) == (0,):
            return np.zeros(0, np.float32)
        z = _vector("z", z, self._z_dim)
        if self._length is not None and z.size:  # Another length acts plausibly, and wrongly.
            for length in np.sqrt(np.square(z).sum(axis=1)) if z.ndim == 2 else (math.sqrt(np.vdot(z, z)),):
                if not abs(length - self._length) <= 1e-3 * self._length:
                    raise SkillError(f"z has length {length:.4g}: expected {self._length:.4g}, as `project` makes it.")
        return z

    def _normalised(self, name: str, obs: Any) -> np.ndarray:
        return (_vector(name, obs, self._obs_dim, self.config["observation"]["names"]) - self._mean) / self._std

    def _check_range(self, obs: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        if ((obs < low) | (obs > high)).any():
            where = np.argwhere((obs < low) | (obs > high))[0]
            i, value = where[-1], obs[tuple(where)]
            entry = f"obs is {value:g} at entry {i} ('{self.config['observation']['names'][i]}')"
            raise SkillError(f"{entry}: expected {low[i]:g} to {high[i]:g}, as its export saw nothing like it.")

    def __repr__(self) -> str:
        config, told = self.config, [kind for kind, rule in self._rules.items() if rule]
        return (
            f"SkillPolicy({config['env']!r}, {config['observation']['size']} -> {config['action']['size']}, z: "
            f"{config['skill']['kind']} {self._z_dim}, {len(self.skills)} named, told by {' '.join(told) or 'nothing'})"
        )

    def _one_hot(self, index: Any) -> np.ndarray:
        return (np.arange(self._z_dim) == np.expand_dims(index, -1)).astype(np.float32)

    def _check_golden(self) -> None:
        golden = self.config["golden"]
        act, aim, told = golden["act"], golden["aim"], golden.get("reward")
        _check_error("action", np.abs(self.act(act["obs"], act["z"]) - np.array(act["action"])).max(), TOLERANCE)
        if aim:
            errors, allowed = self.apart(self.aim(aim["goal"], aim["obs"]), np.array(aim["z"]))
            _check_error("aim", errors.max(), allowed)
        for entry, z in zip(*told.values()) if told else ():
            found = self._told(self.transitions.next_obs[:, entry], self._rule("reward"))
            _check_error("skill of a reward", turned(found, np.array(z)), ANGLE)
        if demo := golden.get("demo"):
            found = np.asarray(self.prompt(demo=demo["obs"]))
            _check_error("skill of a demonstration", turned(found, np.array(demo["z"])), ANGLE)
        if chosen := golden.get("choose"):
            _check_error("choice", np.abs(self.choose(chosen["inputs"]) - np.array(chosen["z"])).max(), self.tolerance)

    def apart(self, found: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, float]:
        """How far skills toward goals are apart, (n,), and what is allowed: it is their direction that counts where
        they solve equations, which every library rounds in another way."""
        if self._rule("goal")["rule"] == "whitened":
            return np.array([turned(a, b) for a, b in zip(found, expected)]), ANGLE
        return np.abs(found - expected).max(axis=1), self.tolerance

    @property
    def tolerance(self) -> float:
        """Of the numbers of skills that networks find."""
        return TOLERANCE * max(1.0, typical_norm(self.config["skill"]))


class SkillController:
    """The controller of a bundle at work: it chooses a skill, and the policy follows it for `hold` actions.

        controller = SkillController(SkillPolicy.from_pretrained("bundles/ant_goal"))
        ctrl = controller.scale(controller.act(inputs))  # the observation, with the task's features behind it
        controller.reset()  # where the next episode begins

    It remembers the present skill `z` and for how many actions it was `held`. A `TimedLoop` takes it as a policy.

    Raises:
        SkillError: the bundle has no controller.
    """

    def __init__(self, policy: SkillPolicy):
        self.policy, self.config, self.scale = policy, policy.config, policy.scale
        self.hold = policy.control()["hold"]
        self.reset()

    def reset(self) -> None:
        """Forget the skill: the next action begins with a choice."""
        self.held, self.z = 0, np.zeros(0, np.float32)

    def act(self, inputs: Any, z: Any = ()) -> np.ndarray:
        """Action in [-1, 1]: (act,), or (n, act) for n rows that began together.

        Args:
            inputs: as of `SkillPolicy.choose`.
            z: nothing, as the controller chooses it.

        Raises:
            SkillError: a wrong size, or what is not finite; such a call leaves no trace.
        """
        _expect("z", np.shape(z) == (0,), z, "none, as the controller chooses it")
        inputs = self.policy._inputs(inputs)
        skill = self.policy.choose(inputs) if self.held % self.hold == 0 else self.z
        action = self.policy.act(inputs[..., : self.config["observation"]["size"]], skill)
        self.z, self.held = skill, self.held % self.hold + 1
        return action


def _check_error(name: str, error: float, allowed: float) -> None:
    if not error <= allowed:
        raise SkillError(f"The golden {name} differs by {error:.2g}: expected at most {allowed:g}.")


def turned(a: np.ndarray, b: np.ndarray) -> float:
    """|a - b|^2 / 2 |b|^2 of two skills: 1 - cos where both have the same length."""
    away, b = a.astype(np.float64) - b, b.astype(np.float64)
    return float(away @ away / (2 * max(b @ b, TINY**2)))


def typical_norm(skill: dict[str, Any]) -> float:
    """E|z| of the prior {"kind", "dim"}; for N(0, I) it is sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2)."""
    if skill["kind"] != "gaussian":
        return math.sqrt(skill["dim"]) if skill["kind"] == "wide_sphere" else 1.0
    return math.sqrt(2) * math.exp(math.lgamma((skill["dim"] + 1) / 2) - math.lgamma(skill["dim"] / 2))


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a bundle with this config; all are float32."""
    obs, z = (config["observation"]["size"],), config["skill"]["dim"]
    shapes: dict[str, tuple[int, ...]] = {"normalizer.mean": obs, "normalizer.std": obs}
    if "controller" in config:
        inputs = (obs[0] + len(config["controller"]["features"]),)
        shapes |= {"inputs.mean": inputs, "inputs.std": inputs}
    for network in _networks(config).values():
        shapes |= network.tensor_shapes
    reward = _prompting(config)["reward"]
    return shapes | ({"prompting.moves": (z, z)} if reward and "moves" in reward["options"] else {})


def _range(observation: dict[str, Any], std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(obs,) each: what the export saw, with as much on either side, or at least a standard deviation."""
    if "low" not in observation:
        raise SkillError(
            f"A bundle of the format '{FORMAT_1}' does not say what its export saw: expected strict=False."
        )
    low, high = (np.array(observation[name], np.float32) for name in ("low", "high"))
    margin = np.maximum(high - low, std)
    return low - margin, high + margin


def _networks(config: dict[str, Any]) -> dict[str, Network]:
    """By role, of either format."""
    obs, z = (config["observation"]["size"],), (config["skill"]["dim"],)
    shapes = {"obs": obs, "z": z, "states": (TOKENS, *obs), "rewards": (TOKENS,)}
    if "controller" in config:
        shapes["inputs"] = (obs[0] + len(config["controller"]["features"]),)
    if config["format"] == FORMAT:
        return {
            role: Network(role, ops, {name: shapes[name] for name in ROLES[role]})
            for role, ops in config["networks"].items()
        }
    networks = {"policy": Network("policy", _chain(config["policy"], "x"), {"obs": obs, "z": z})}
    if config["latent"]:
        networks["features"] = Network("latent", _chain(config["latent"], "obs"), {"obs": obs})
    return networks


def _chain(network: dict[str, list], x: str) -> list[dict[str, Any]]:
    """Dense layers of format 1 as operations."""
    ops = [] if x == "obs" else [{"op": "concat", "inputs": ["obs", "z"], "output": x, "numbers": {}}]
    for i, (units, activation) in enumerate(zip(network["sizes"][1:], network["activations"])):
        ops.append({"op": "dense", "inputs": [x], "output": str(i), "numbers": {"units": [units]}})
        x = str(i)
        if activation != "linear":
            ops.append({"op": activation, "inputs": [x], "output": f"{i} {activation}", "numbers": {}})
            x = f"{i} {activation}"
    return ops


def _prompting(config: dict[str, Any]) -> dict[str, Any]:
    """By kind of prompt its rule, or None, of either format."""
    if config["format"] == FORMAT:
        return config["prompting"]
    straight = {"rule": "difference", "options": [], "numbers": {}} if config["latent"] else None
    return {"goal": straight, "reward": None, "demo": straight}


def file_of(tensors: dict[str, np.ndarray], format: str = FORMAT) -> bytes:
    """Tensors as safetensors, which writes the memory of an array in whatever order it is."""
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, {"format": format})


def _distances(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(m, n): from each target (m, d) to each point (n, d)."""
    square = (targets * targets).sum(axis=1)[:, None] + (points * points).sum(axis=1) - 2 * (targets @ points.T)
    return np.sqrt(np.maximum(square, _ZERO))


def _single(vector: np.ndarray) -> np.ndarray:
    _expect("The shape of goal", vector.ndim == 1, vector.shape, "that of one observation")
    return vector


def _in_words(text: str, columns: dict[str, np.ndarray]) -> np.ndarray:
    try:
        from urlrl.errors import UserError
        from urlrl.tasks.expressions import parse
    except ImportError as error:
        raise SkillError("A reward in words needs the package urlrl: expected numbers or a function here.") from error
    try:
        expression = parse(text, columns)
        found = expression({name: columns[name].astype(np.float64) for name in expression.names})
    except UserError as error:
        raise SkillError(str(error)) from error
    return np.broadcast_to(np.asarray(found, np.float64), next(iter(columns.values())).shape)


def write_folder(folder: str | os.PathLike, files: dict[str, bytes], names: tuple[str, ...]) -> Path:
    """Write a folder of files, whole or not at all; returns it. A folder that is there is replaced if it is empty or
    was written by this: it holds nothing but `names`, and the first of these among them.

    Raises:
        SkillError: the folder holds something else, or cannot be written.
    """
    try:
        target = Path(folder).resolve()
    except ValueError as error:  # A NUL byte.
        raise SkillError(f"Cannot write {_short(folder)}: {error}.") from error
    try:
        found = {path.name for path in target.iterdir()} if target.exists() else set()
        if found and (names[0] not in found or not found <= set(names)):
            other = min(found - set(names), default=f"no {names[0]}")
            raise SkillError(f"'{target}' is not empty and holds {other}: expected a new folder, or one to replace.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
            new, old = Path(work) / "new", Path(work) / "old"
            new.mkdir()
            for name, content in files.items():
                with open(new / name, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            try:
                if found:
                    os.rename(target, old)
                os.rename(new, target)
            finally:
                if old.exists() and not target.exists():
                    os.rename(old, target)
    except OSError as error:
        raise SkillError(f"Cannot write '{target}': {error.strerror or error}.") from error
    return target


def _vector(name: str, value: Any, size: int, names: list[str] | None = None) -> np.ndarray:
    """value as finite float32 of shape (size,) or (n, size); `names` are of its entries."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # Rows of several lengths.
        raise SkillError(f"{name} is no array ({error}): expected shape ({size},) or (n, {size}).") from error
    if array.dtype.kind not in "fiu":
        raise SkillError(f"{name} is {value!r}: expected {size} real numbers.")
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        raise SkillError(f"{name} has shape {array.shape}: expected ({size},) or (n, {size}).")
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):  # What becomes infinite is refused below.
            array = array.astype(np.float32)
    # The sum of squares is finite unless an entry is not, or is beyond 1e19: faster than looking at each.
    if not math.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
        where = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        entry = f"{where[-1]} ('{names[where[-1]]}')" if names else where[-1]
        raise SkillError(f"{name} is {array[where]} at entry {entry}: expected finite numbers.")
    return array


def _side_by_side(a: np.ndarray, b: np.ndarray, names: str) -> tuple[np.ndarray, np.ndarray]:
    """Both with the same number of rows: a single vector goes with each row of the other."""
    if a.shape[:-1] == b.shape[:-1]:
        return a, b
    if a.ndim == b.ndim:
        raise SkillError(f"{names} have {len(a)} and {len(b)} rows: expected as many of each, or a single vector.")
    rows = max(a.shape[:-1], b.shape[:-1])
    return np.broadcast_to(a, (*rows, a.shape[-1])), np.broadcast_to(b, (*rows, b.shape[-1]))


def _read(folder: Path, root: Path, name: str) -> bytes:
    """The content of a bundle's file: a regular file of a sane size whose real place is below `root`."""
    path, limit = folder / name, LIMITS[name]
    try:
        if not path.exists():
            found = sorted(other.name for other in folder.iterdir())[:5]
            raise SkillError(f"'{folder}' has no {name}: expected {_listed(FILES)}, found {_listed(found)}.")
        if not path.resolve().is_relative_to(root):
            raise SkillError(f"{path} leads out of the bundle, to {path.resolve()}: expected a file in it.")
        if not path.is_file():
            raise SkillError(f"{path} is a folder or a device: expected a file.")
        if path.stat().st_size > limit:
            raise SkillError(f"{path} is of {path.stat().st_size:,} bytes: expected at most {limit:,}.")
        return path.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError is a loop of links.
        raise SkillError(f"{path} cannot be read: {_first_line(error)}.") from error


def _parse_config(path: Path, content: bytes, weights: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise SkillError(f"{path} is not JSON: {_first_line(error)}.") from error
    if not isinstance(config, dict):
        raise SkillError(f"{path} holds {_short(config)}: expected an object.")
    if config.get("format") not in (FORMAT, FORMAT_1):
        other = _short(config.get("format"))
        raise SkillError(f"{path} has the format {other}: this reads '{FORMAT}' and '{FORMAT_1}'.")
    hashes = config.pop("sha256", None)
    _check_type("sha256", hashes, {WEIGHTS: str, CONFIG: str})
    _check_type("config", config, _SCHEMA if config["format"] == FORMAT else _SCHEMA_1)
    found = {WEIGHTS: hashlib.sha256(weights).hexdigest(), CONFIG: _digest(config)}
    for name, digest in found.items():
        if hashes[name] != digest:
            raise SkillError(f"{path.with_name(name)} was changed or damaged: its SHA-256 is not what {CONFIG} states.")
    if config["format"] == FORMAT:
        for name, skill in config["skills"].items():
            if skill["weights"] != found[WEIGHTS]:
                raise SkillError(f"The skill '{name}' of {path} was made for other weights than those in {WEIGHTS}.")
    return config


def _parse_tensors(content: bytes, file: str) -> dict[str, np.ndarray]:
    try:
        parts = deserialize(content)
    except SafetensorError as error:
        raise SkillError(f"{file} is not a safetensors file: {_first_line(error)}.") from error
    tensors = {}
    for name, part in parts:
        if part["dtype"] != "F32":
            raise SkillError(f"Tensor {name!r} is of type {part['dtype']}: expected F32.")
        try:
            tensors[name] = np.frombuffer(part["data"], "<f4").reshape(part["shape"])
        except (ValueError, OverflowError) as error:
            raise SkillError(
                f"Tensor {name!r} has the shape {_short(part['shape'])}: expected one of an array."
            ) from error
    return tensors


def _check_tensors(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    _check_shapes(tensors, shapes)
    for name in ("normalizer.std", "inputs.std"):
        if name in shapes and (tensors[name] < 0).any():
            raise SkillError(f"Tensor '{name}' holds {tensors[name].min()}: expected none below 0.")


def _check_shapes(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if name not in tensors:
            raise SkillError(f"Tensor '{name}' is missing: found {_listed(sorted(tensors))}.")
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise SkillError(f"Tensor '{name}' is {tensor.dtype} {tensor.shape}: expected float32 {shape}.")
        if not np.isfinite(tensor).all():
            raise SkillError(f"Tensor '{name}' holds {tensor[~np.isfinite(tensor)][0]}: expected finite numbers.")
    if extra := tensors.keys() - shapes:
        raise _unknown("tensor", min(extra), shapes)


def _check_config(config: dict[str, Any]) -> dict[str, Network]:
    """The networks of a config that is as it should be."""
    _check_type("config", config, _SCHEMA if config.get("format") == FORMAT else _SCHEMA_1)
    dt, skill, goal, golden = (config[key] for key in ("control_dt", "skill", "goal", "golden"))
    _expect("control_dt", dt is None or dt > 0, dt, "a positive number of seconds")
    if skill["kind"] not in KINDS:
        raise _unknown("skill kind", skill["kind"], KINDS)
    if skill["kind"] == "none":
        _expect("skill.dim", skill["dim"] == 0, skill["dim"], "0, as it has no skills")
    else:
        least = 2 if skill["kind"] == "onehot" else 1
        _expect("skill.dim", skill["dim"] >= least, skill["dim"], f"at least {least}")
    for key in ("observation", "action"):
        size, names = config[key]["size"], config[key]["names"]
        _expect(f"{key}.size", size == len(names) > 0, size, f"as many as there are names, {len(names)}")
        _expect(f"{key}.names", len(set(names)) == len(names), names, "no name twice")
    obs, act, z = config["observation"]["size"], config["action"]["size"], skill["dim"]
    _check_rows("action", {"low": act, "high": act}, {key: [config["action"][key]] for key in ("low", "high")})
    for low, high in zip(config["action"]["low"], config["action"]["high"]):
        _expect("action.high", low < high, high, f"more than its low of {low}")
    if config["format"] == FORMAT:
        _check_second(config)
    else:
        _check_chain("policy", config["policy"], obs + z, act, "tanh")
        if config["latent"]:
            _check_chain("latent", config["latent"], obs, z, "linear")
    networks, aims = _networks(config), _prompting(config)["goal"] is not None
    _expect("networks", "policy" in networks, list(networks), "a policy")
    for role, network in networks.items():
        expected = (act if role == "policy" else z,)
        _expect(f"the output of networks.{role}", network.shape == expected, network.shape, f"of shape {expected}")
    if aims:
        _check_rows("golden.aim", {"goal": obs, "obs": obs, "z": z}, golden["aim"] or {"goal": [], "obs": [], "z": []})
    else:
        _expect("golden.aim", golden["aim"] is None, golden["aim"], "null, as it cannot be told goals")
    _check_rows("golden.act", {"obs": obs, "z": z, "action": act}, golden["act"])
    for name, named in config["skills"].items():
        _check_rows(f"skills.{name}", {"z": z}, {"z": [named["z"]]})
    if goal:
        names, index = goal["names"], goal["index"]
        good = len(set(names)) == len(names) == len(set(index)) == len(index) and set(index) <= set(range(obs))
        _expect("goal.index", good, index, f"an entry of the observation for each of {_listed(names)}")
        _check_rows("goal", {"template": obs}, {"template": [goal["template"]]})
    return networks


def _check_second(config: dict[str, Any]) -> None:
    """What only format 2 has."""
    if unknown := config["networks"].keys() - ROLES:
        raise _unknown("role", min(unknown), ROLES)
    observation, about, told = config["observation"], config["transitions"], config["golden"]["reward"]
    size, z = observation["size"], config["skill"]["dim"]
    _check_rows("observation", {"low": size, "high": size}, {key: [observation[key]] for key in ("low", "high")})
    there = {*config["networks"], *(["transitions"] if about else [])}
    for kind, rule in config["prompting"].items():
        if rule is not None:
            _check_rule(kind, rule, there, size)
    if about:
        _expect("transitions.count", about["count"] >= 2, about["count"], "at least 2")
        names, words = [*observation["names"], *about["words"]], about["words"]
        _expect("transitions.words", len(set(names)) == len(names), words, "no name twice, and none of an observation")
    _expect("golden.reward", bool(told) == bool(config["prompting"]["reward"]), told, "some where rewards can be told")
    if told:
        _check_rows("golden.reward", {"z": z}, {"z": told["z"]})
        good = len(told["entry"]) == len(told["z"]) and _entries(told["entry"], size)
        _expect("golden.reward.entry", good, told["entry"], "an entry of an observation for each z")
    if demo := config["golden"].get("demo"):
        _expect("golden.demo", bool(config["prompting"]["demo"]), demo, "none, as it can be told no demonstration")
        _check_rows("golden.demo", {"obs": size}, demo)
        _check_rows("golden.demo", {"z": z}, {"z": [demo["z"]]})
    control, chosen = config.get("controller"), config["golden"].get("choose")
    for place, found in (("controller", control), ("golden.choose", chosen)):
        good = bool(found) == ("controller" in config["networks"])
        _expect(place, good, found, "an object where networks has a 'controller', and only there")
    if control:
        names = [*observation["names"], *control["features"]]
        _expect("controller.features", len(set(names)) == len(names), control["features"], "no name twice")
        _expect("controller.hold", control["hold"] >= 1, control["hold"], "at least 1 action")
        _expect("skill.dim", z > 0, z, "at least 1, as a controller chooses skills")
        _check_rows("golden.choose", {"inputs": len(names), "z": z}, chosen)


def _check_rule(kind: str, rule: dict[str, Any], there: set[str], size: int) -> None:
    """Of a kind of prompt, where these roles are there and observations have this size."""
    if rule["rule"] not in RULES[kind]:
        raise _unknown(f"rule of a {kind}", rule["rule"], RULES[kind])
    (needs, options, numbers), place = RULES[kind][rule["rule"]], f"prompting.{kind}"
    _expect(place, set(needs) <= there, sorted(there), f"what the rule '{rule['rule']}' needs, {_listed(needs)}")
    good = set(rule["options"]) <= set(options)
    _expect(f"{place}.options", good, rule["options"], f"some of {_listed(options)}")
    _expect(f"{place}.numbers", rule["numbers"].keys() == set(numbers), list(rule["numbers"]), _listed(numbers))
    for name, found in rule["numbers"].items():
        if name == "position":
            good, expected = _entries(found, size), "entries of an observation"
        elif name == "scale":
            good = len(found) in (0, size) and all(scale > 0 for scale in found)
            expected = f"{size} numbers above 0, or none"
        elif most := COUNTS.get(name):
            good = len(found) == 1 and 1 <= found[0] <= most and found[0] == int(found[0])
            expected = f"one whole number from 1 to {most}"
        else:
            good, expected = len(found) == 1 and found[0] >= 0, "one number of at least 0"
        _expect(f"{place}.numbers.{name}", good, found, expected)


def _entries(found: list[Any], size: int) -> bool:
    """Whether these are places in a vector of this size; that is not listed, as it may be of any size."""
    return all(0 <= i < size and i == int(i) for i in found)


def _check_chain(name: str, network: dict[str, list], inputs: int, outputs: int, last: str) -> None:
    sizes, activations = network["sizes"], network["activations"]
    good = len(sizes) >= 2 and min(sizes) > 0 and (sizes[0], sizes[-1]) == (inputs, outputs)
    _expect(f"{name}.sizes", good, sizes, f"positive sizes from {inputs} to {outputs}")
    good = len(activations) == len(sizes) - 1 and activations[-1] == last and set(activations) <= {*_CHAINED}
    _expect(f"{name}.activations", good, activations, f"{len(sizes) - 1} of {_listed(_CHAINED)}, the last '{last}'")


def _check_rows(where: str, widths: dict[str, int], columns: dict[str, list[list]]) -> None:
    """Refuse columns that are empty, of several lengths, or whose rows are not of these widths."""
    count = max(1, *(len(columns[key]) for key in widths))
    for key, width in widths.items():
        good = len(columns[key]) == count and all(len(row) == width for row in columns[key])
        _expect(f"{where}.{key}", good, columns[key], f"{count} x {width} numbers")


def _expect(where: str, good: bool, found: Any, expected: str) -> None:
    if not good:
        raise SkillError(f"{where} is {_short(found)}: expected {expected}.")


def _check_type(where: str, value: Any, kind: Any) -> None:
    """Refuse what is not of the schema's kind, with the dotted name of the place."""
    if isinstance(kind, tuple):
        if value is not None or len(kind) == 1:
            _check_type(where, value, kind[0])
    elif isinstance(kind, list):
        _expect(where, isinstance(value, list), value, "a list")
        for i, item in enumerate(value):
            _check_type(f"{where}[{i}]", item, kind[0])
    elif isinstance(kind, dict):
        _expect(where, isinstance(value, dict), value, "an object")
        kinds = dict.fromkeys(value, kind[str]) if str in kind else kind
        if extra := value.keys() - kinds:
            raise _unknown(f"key in {where}", min(extra), kinds)
        optional = {key for key, item in kinds.items() if isinstance(item, tuple) and len(item) == 1}
        if missing := [key for key in kinds if key not in value and key not in optional]:
            raise SkillError(f"{where} has no '{missing[0]}': expected {_listed(kinds)}.")
        for key, item in value.items():
            _check_type(f"{where}.{key}", item, kinds[key])
    else:
        good = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
        if good and kind is float:
            good = abs(value) <= LARGEST  # Never so for NaN; a whole number can be of any size.
        _expect(where, good, value, _TYPES[kind])


def _digest(config: dict[str, Any]) -> str:
    """SHA-256 of what a config says, however it is written."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError(f"a key stands twice in an object, among {[key for key, _ in pairs]}")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def _find(source: str, revision: str | None, local_files_only: bool) -> tuple[Path, Path]:
    """(the bundle's folder, the folder that its files must lie in)."""
    folder = Path(source)
    try:
        exists, is_folder = folder.exists(), folder.is_dir()
    except OSError as error:  # Too long a name, a folder that may not be entered.
        raise SkillError(f"{_short(source)} cannot be read: {error.strerror}.") from error
    if is_folder:
        _expect("revision", revision is None, revision, f"None, as '{folder}' is a folder and no hub id")
        return folder, folder.resolve()
    if NAME.fullmatch(source) and (shipped := Path(__file__).parent / "bundles" / source).is_dir():
        return shipped, shipped.resolve()
    if exists or not HUB_ID.fullmatch(source):
        raise SkillError(f"{_short(source)} is {'a file' if exists else 'not there'}: expected a bundle's folder.")
    try:
        options = {"revision": revision, "local_files_only": local_files_only, "allow_patterns": [*FILES, PROMPT]}
        folder = Path(_import_hub().snapshot_download(source, **options))
    except (OSError, ValueError) as error:  # The hub's own errors are of these kinds.
        raise SkillError(f"There is no folder '{source}', and from the hub: {_first_line(error)}.") from error
    return folder, folder.resolve().parents[1]  # The hub's cache links from snapshots/<commit>/ to blobs/ beside it.


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise SkillError("huggingface_hub is not installed: pip install 'urlrl[hub]'") from error
    return huggingface_hub


def _unknown(kind: str, name: str, known: Iterable[str]) -> SkillError:
    near = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {_listed(known)}."
    return SkillError(f"Unknown {kind} {_short(name)}: {hint}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
