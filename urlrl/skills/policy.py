"""Skills without the library that learned them: one file that needs NumPy and safetensors, and can be copied.

    policy = SkillPolicy.from_pretrained("bundles/ant")
    ctrl = policy.scale(policy.act(obs, "north"))  # in actuator units
    z = policy.aim(policy.goal(x=10, y=-5), obs)  # the skill that leads there from here

A bundle is a folder: `skill.safetensors` (float32 weights and normalisation), `config.json` (the contract) and
`README.md` (a model card). Nothing in it is ever executed. Loading it checks hashes, shapes and the golden inputs and
outputs of the agent that it was made from, and fails closed: whatever is wrong raises SkillError, one sentence that
says what was found and what was expected. A loaded policy keeps nothing between calls, so threads can share it.
"""

import difflib
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

FORMAT = "urlrl-skill-1"
WEIGHTS, CONFIG, CARD = FILES = ("skill.safetensors", "config.json", "README.md")
LIMITS = {WEIGHTS: 2**28, CONFIG: 2**22, CARD: 2**22}  # bytes
TOLERANCE = 1e-5  # of golden outputs
KINDS = ("sphere", "gaussian", "onehot", "none")  # none: a policy of one task, whose z has no numbers
LARGEST = float(np.finfo(np.float32).max)
TINY = 1e-8  # below this norm a vector has no direction
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")

_ZERO = np.zeros((), np.float32)
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # each in place
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, _ZERO, out=x),
    "tanh": lambda x: np.tanh(x, out=x),
}

# What config.json holds: a type, [type of each item], {key: type}, {str: type of every value}, (type, None) where null
# is allowed. A float is any finite number.
_NETWORK = {"sizes": [int], "activations": [str]}
_SCHEMA = {
    "format": str,
    "env": str,
    "control_dt": (float, None),  # seconds per control step
    "observation": {"size": int, "names": [str]},
    "action": {"size": int, "names": [str], "low": [float], "high": [float]},  # bounds in actuator units
    "skill": {"kind": str, "dim": int},  # the prior over z
    "skills": {str: {"z": [float], "displacement": ({str: float}, None)}},  # named skills, and where an episode led
    "goal": ({"names": [str], "index": [int], "template": [float]}, None),  # position entries of an observation
    "policy": _NETWORK,  # [normalised obs, z] -> action
    "latent": (_NETWORK, None),  # normalised obs -> phi
    "golden": {  # inputs and outputs of the agent, row by row
        "act": {"obs": [[float]], "z": [[float]], "action": [[float]]},
        "aim": ({"goal": [[float]], "obs": [[float]], "z": [[float]]}, None),  # null where there is no latent
    },
    "provenance": dict,
}  # fmt: skip
_TYPES = {str: "a text", int: "a whole number", float: "a finite number", dict: "an object"}


class SkillError(ValueError):
    """What is wrong with a bundle or an input: the thing, what was found and what was expected."""


class SkillPolicy:
    """A pretrained policy whose input, beside the observation, is the skill z to perform.

    `config` is the contract that config.json states, `tensors` are the weights by name, `skills` maps names to skills
    z (d,), `card` is the model card: all as loaded, none to be changed.

    Raises:
        SkillError: config and tensors do not fit each other, or do not give the golden outputs.
    """

    def __init__(self, config: dict[str, Any], tensors: dict[str, np.ndarray], card: str):
        _check_config(config)
        _check_tensors(tensors, expected_shapes(config))
        # Contiguous: safetensors writes the memory of an array, in whatever order it is.
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        self.config, self.tensors, self.card = config, tensors, card
        self._mean = tensors["normalizer.mean"]
        self._std = tensors["normalizer.std"] + np.float32(1e-8)
        self._policy = _layers("policy", config, tensors)
        self._latent = _layers("latent", config, tensors) if config["latent"] else None
        self._obs_dim, self._z_dim = config["observation"]["size"], config["skill"]["dim"]
        self._onehot = config["skill"]["kind"] == "onehot"
        low, high = (np.array(config["action"][bound], np.float64) for bound in ("low", "high"))
        self._middle, self._half = (high + low) / 2, (high - low) / 2
        self.skills = {name: np.array(skill["z"], np.float32) for name, skill in config["skills"].items()}
        for z in self.skills.values():
            z.setflags(write=False)
        self._check_golden()

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike, revision: str | None = None, local_files_only: bool = False
    ) -> "SkillPolicy":
        """Load a bundle from a folder, or from the Hugging Face hub if there is no such folder.

        Args:
            source: a folder, or a hub id "owner/name" (needs the package huggingface_hub).
            revision: of a hub id: a branch, tag or commit; None is the newest.
            local_files_only: of a hub id: never use the network.

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
        try:
            return cls(config, _parse_tensors(content[WEIGHTS]), card)
        except SkillError as error:
            raise SkillError(f"Bundle '{source}': {error}") from error

    def save_pretrained(self, folder: str | os.PathLike) -> Path:
        """Write the bundle: whole or not at all, replacing a bundle that is there; returns the folder.

        Raises:
            SkillError: the folder holds something else, or cannot be written.
        """
        weights = save(self.tensors, {"format": FORMAT})
        hashes = {WEIGHTS: hashlib.sha256(weights).hexdigest(), CONFIG: _digest(self.config)}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in {**self.config, "sha256": hashes}.items()]
        config = "{\n" + ",\n".join(lines) + "\n}\n"
        return write_folder(folder, {WEIGHTS: weights, CONFIG: config.encode(), CARD: self.card.encode()}, FILES)

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
            z: (d,) or (n, d), taken as it is; or a named skill; or, of one-hot skills, an index. A policy of one task
                takes none.

        Raises:
            SkillError: a wrong size or name, or what is not finite.
        """
        x, z = _side_by_side(self._normalised("obs", obs), self._skill(z), "obs and z")
        action = forward(self._policy, np.concatenate((x, z), axis=-1))
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
        """The skill that leads from obs toward goal, project(phi(goal) - phi(obs)): (d,), or (n, d) where either has n
        rows. Both are whole observations; `goal()` makes one of a position.

        Raises:
            SkillError: the bundle has no latent network, a wrong size, or what is not finite.
        """
        if self._latent is None:
            raise SkillError("This bundle has no latent network, so it cannot aim at goals: expected a skill by name.")
        goal, obs = _side_by_side(self._normalised("goal", goal), self._normalised("obs", obs), "goal and obs")
        return self.project(forward(self._latent, goal) - forward(self._latent, obs))

    def goal(self, **position: float) -> np.ndarray:
        """The observation (obs,) of standing at a position, as `goal(x=10, y=-5)`, in the environment's units.

        Raises:
            SkillError: the observation does not show a position, or other coordinates than these were given.
        """
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
        return self.project(z) if self.config["skill"]["kind"] == "sphere" else z

    def project(self, x: Any) -> np.ndarray:
        """(*B, d) -> the skill that points most along x; where x has no direction, a fixed one."""
        x = _vector("x", x, self._z_dim)
        if self._onehot:
            return self._one_hot(x.argmax(axis=-1))
        norm = np.sqrt(np.square(x, dtype=np.float64).sum(axis=-1, keepdims=True))  # Squares beyond float32.
        unit = np.where(norm > TINY, x / np.maximum(norm, TINY), np.eye(1, self._z_dim)[0])
        return (unit * typical_norm(self.config["skill"])).astype(np.float32)

    def _skill(self, z: Any) -> np.ndarray:
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
        return _vector("z", z, self._z_dim)

    def _normalised(self, name: str, obs: Any) -> np.ndarray:
        return (_vector(name, obs, self._obs_dim, self.config["observation"]["names"]) - self._mean) / self._std

    def _one_hot(self, index: Any) -> np.ndarray:
        return (np.arange(self._z_dim) == np.expand_dims(index, -1)).astype(np.float32)

    def _check_golden(self) -> None:
        act, aim = self.config["golden"]["act"], self.config["golden"]["aim"]
        errors = {"action": np.abs(self.act(act["obs"], act["z"]) - np.array(act["action"])).max()}
        if aim:
            errors["aim"] = np.abs(self.aim(aim["goal"], aim["obs"]) - np.array(aim["z"])).max()
        for name, error in errors.items():
            if not error <= TOLERANCE:
                raise SkillError(f"The golden {name} differs by {error:.2g}: expected at most {TOLERANCE:g}.")


def typical_norm(skill: dict[str, Any]) -> float:
    """E|z| of the prior {"kind", "dim"}; for N(0, I) it is sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2)."""
    if skill["kind"] != "gaussian":
        return 1.0
    return math.sqrt(2) * math.exp(math.lgamma((skill["dim"] + 1) / 2) - math.lgamma(skill["dim"] / 2))


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a bundle with this config; all are float32."""
    obs = (config["observation"]["size"],)
    shapes: dict[str, tuple[int, ...]] = {"normalizer.mean": obs, "normalizer.std": obs}
    for name in ("policy", "latent"):
        sizes = config[name]["sizes"] if config[name] else []
        for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
            shapes |= {f"{name}.{i}.kernel": (inputs, outputs), f"{name}.{i}.bias": (outputs,)}
    return shapes


def forward(layers: list[tuple], x: np.ndarray) -> np.ndarray:
    """Layers (kernel (in, out), bias (out,), a function of ACTIVATIONS) applied to x (*B, in)."""
    for kernel, bias, activation in layers:
        x = x @ kernel
        x += bias
        activation(x)
    return x


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


def _layers(name: str, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> list[tuple]:
    return [
        (tensors[f"{name}.{i}.kernel"], tensors[f"{name}.{i}.bias"], ACTIVATIONS[activation])
        for i, activation in enumerate(config[name]["activations"])
    ]


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
    if config.get("format") != FORMAT:
        raise SkillError(f"{path} has the format {_short(config.get('format'))}: this reads '{FORMAT}'.")
    hashes = config.pop("sha256", None)
    _check_type("sha256", hashes, {WEIGHTS: str, CONFIG: str})
    _check_type("config", config, _SCHEMA)
    found = {WEIGHTS: hashlib.sha256(weights).hexdigest(), CONFIG: _digest(config)}
    for name, digest in found.items():
        if hashes[name] != digest:
            raise SkillError(f"{path.with_name(name)} was changed or damaged: its SHA-256 is not what {CONFIG} states.")
    return config


def _parse_tensors(content: bytes) -> dict[str, np.ndarray]:
    try:
        parts = deserialize(content)
    except SafetensorError as error:
        raise SkillError(f"{WEIGHTS} is not a safetensors file: {_first_line(error)}.") from error
    tensors = {}
    for name, part in parts:
        if part["dtype"] != "F32":
            raise SkillError(f"Tensor {name!r} is of type {part['dtype']}: expected F32.")
        tensors[name] = np.frombuffer(part["data"], "<f4").reshape(part["shape"])
    return tensors


def _check_tensors(tensors: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
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
    if (tensors["normalizer.std"] < 0).any():
        raise SkillError(f"Tensor 'normalizer.std' holds {tensors['normalizer.std'].min()}: expected none below 0.")


def _check_config(config: dict[str, Any]) -> None:
    _check_type("config", config, _SCHEMA)
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
    _check_network("policy", config["policy"], obs + z, act, "tanh")
    if config["latent"]:
        _check_network("latent", config["latent"], obs, z, "linear")
        _expect("golden.aim", golden["aim"] is not None, None, "goals, observations and skills")
        _check_rows("golden.aim", {"goal": obs, "obs": obs, "z": z}, golden["aim"])
    else:
        _expect("golden.aim", golden["aim"] is None, golden["aim"], "null, as there is no latent")
    _check_rows("golden.act", {"obs": obs, "z": z, "action": act}, golden["act"])
    for name, named in config["skills"].items():
        _check_rows(f"skills.{name}", {"z": z}, {"z": [named["z"]]})
    if goal:
        names, index = goal["names"], goal["index"]
        good = len(set(names)) == len(names) == len(set(index)) == len(index) and set(index) <= set(range(obs))
        _expect("goal.index", good, index, f"an entry of the observation for each of {_listed(names)}")
        _check_rows("goal", {"template": obs}, {"template": [goal["template"]]})


def _check_network(name: str, network: dict[str, list], inputs: int, outputs: int, last: str) -> None:
    sizes, activations = network["sizes"], network["activations"]
    good = len(sizes) >= 2 and min(sizes) > 0 and (sizes[0], sizes[-1]) == (inputs, outputs)
    _expect(f"{name}.sizes", good, sizes, f"positive sizes from {inputs} to {outputs}")
    good = len(activations) == len(sizes) - 1 and activations[-1] == last and set(activations) <= set(ACTIVATIONS)
    _expect(f"{name}.activations", good, activations, f"{len(sizes) - 1} of {_listed(ACTIVATIONS)}, the last '{last}'")


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
        if value is not None:
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
        if missing := [key for key in kinds if key not in value]:
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
    if exists or not HUB_ID.fullmatch(source):
        raise SkillError(f"{_short(source)} is {'a file' if exists else 'not there'}: expected a bundle's folder.")
    try:
        options = {"revision": revision, "local_files_only": local_files_only, "allow_patterns": list(FILES)}
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
