"""The NumPy runtime of skill bundles: its mathematics, what it refuses, and that it needs nothing else."""

import ast
import contextlib
import copy
import json
import math
import os
import pickle  # noqa: TID251 - only to write what must be refused
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle_tools import alone, change_anywhere, contents, refreshed, sign
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from urlrl.learners.skills import SkillSpace
from urlrl.skills import policy as runtime
from urlrl.skills.policy import (
    CARD,
    CONFIG,
    FILES,
    FORMAT_1,
    PROMPT,
    WEIGHTS,
    SkillError,
    SkillPolicy,
)

RUNTIME = Path(runtime.__file__)
GOLDEN = Path(__file__).parent / "data" / "skill-bundle-1"
ROOT = Path(__file__).parent.parent


def make_parts(kind="sphere", dim=2, obs=3, act=2, width=4, latent=True, seed=0):
    """(config, tensors) of a random policy whose golden outputs are computed here, without the runtime's checks."""
    rng = np.random.default_rng(seed)
    sizes = {"policy": [obs + dim, width, width, act]} | ({"latent": [obs, width, dim]} if latent else {})
    ends = {"policy": ["relu", "tanh", "tanh"], "latent": ["relu", "linear"]}
    tensors = {"normalizer.mean": rng.normal(size=obs), "normalizer.std": rng.uniform(0.5, 2, obs)}
    for name, layer_sizes in sizes.items():
        for i, (a, b) in enumerate(zip(layer_sizes, layer_sizes[1:])):
            tensors |= {
                f"{name}.{i}.kernel": rng.normal(size=(a, b)) / np.sqrt(a),
                f"{name}.{i}.bias": rng.normal(size=b),
            }
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}

    def network(name, x):
        layers = zip(*([tensors[f"{name}.{i}.{part}"] for i in range(len(ends[name]))] for part in ("kernel", "bias")))
        for (kernel, bias), activation in zip(layers, ends[name]):
            x = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "linear": lambda x: x}[activation](
                x @ kernel + bias
            )
        return x

    observations, goals = rng.normal(size=(2, 3, obs)).astype(np.float32)
    normal = [
        (x - tensors["normalizer.mean"]) / (tensors["normalizer.std"] + np.float32(1e-8)) for x in (observations, goals)
    ]
    z = np.array(SkillSpace(kind, dim).project(rng.normal(size=(3, dim)).astype(np.float32)))
    golden = {
        "act": {"obs": observations, "z": z, "action": network("policy", np.concatenate([normal[0], z], 1))},
        "aim": None,
    }
    if latent:
        aimed = SkillSpace(kind, dim).project(network("latent", normal[1]) - network("latent", normal[0]))
        golden["aim"] = {"goal": goals, "obs": observations, "z": np.array(aimed)}
    names = [f"entry_{i}" for i in range(obs)]
    config = {
        "format": FORMAT_1,
        "env": "test",
        "control_dt": 0.05,
        "observation": {"size": obs, "names": names},
        "action": {"size": act, "names": [f"motor_{i}" for i in range(act)], "low": [-1.0] * act, "high": [3.0] * act},
        "skill": {"kind": kind, "dim": dim},
        "skills": {
            "forward": {"z": z[0].tolist(), "displacement": {"x": 3.0}},
            "rest": {"z": z[1].tolist(), "displacement": None},
        },
        "goal": {"names": ["x", "y"], "index": [0, 2], "template": [0.5] * obs},
        "policy": {"sizes": sizes["policy"], "activations": ends["policy"]},
        "latent": {"sizes": sizes["latent"], "activations": ends["latent"]} if latent else None,
        "golden": {name: part and {key: rows.tolist() for key, rows in part.items()} for name, part in golden.items()},
        "provenance": {"seed": seed},
    }  # fmt: skip
    return config, tensors


def make(**options) -> SkillPolicy:
    return SkillPolicy(*make_parts(**options), card="# A card\n")


@pytest.fixture
def bundle(tmp_path) -> Path:
    return make().save_pretrained(tmp_path / "bundle")


# --- mathematics


def hand_made() -> SkillPolicy:
    """action = tanh(2 relu(n - z + 0.5) - 1) with n = (obs - 10) / 4; z in {-1, 1}."""
    config, _ = make_parts(dim=1, obs=1, act=1, latent=False)
    config |= {
        "policy": {"sizes": [2, 1, 1], "activations": ["relu", "tanh"]},
        "skills": {},
        "goal": None,
        "golden": {"act": {"obs": [[12.0]], "z": [[-1.0]], "action": [[math.tanh(3.0)]]}, "aim": None},
    }
    tensors = {
        "normalizer.mean": np.float32([10]), "normalizer.std": np.float32([4]),
        "policy.0.kernel": np.float32([[1], [-1]]), "policy.0.bias": np.float32([0.5]),
        "policy.1.kernel": np.float32([[2]]), "policy.1.bias": np.float32([-1]),
    }  # fmt: skip
    return SkillPolicy(config, tensors, "")


def test_the_action_is_that_of_a_network_worked_out_by_hand():
    policy = hand_made()
    for obs, z, expected in ((12, -1, math.tanh(2 * 2 - 1)), (12, 1, math.tanh(-1)), (18, 1, math.tanh(2 * 1.5 - 1))):
        np.testing.assert_allclose(policy.act([obs], [z]), [expected], rtol=1e-6)
    np.testing.assert_allclose(policy.scale([-0.5]), [0])  # bounds [-1, 3]


@pytest.mark.parametrize("wrong", ["no normalisation", "z first", "no bias", "no activation"])
def test_golden_outputs_catch(wrong):
    config, tensors = make_parts()
    if wrong == "no normalisation":
        tensors["normalizer.mean"] = np.zeros_like(tensors["normalizer.mean"])
    elif wrong == "z first":
        tensors["policy.0.kernel"] = np.roll(tensors["policy.0.kernel"], 2, axis=0)
    elif wrong == "no bias":
        tensors["latent.1.bias"] = tensors["latent.1.bias"] * 0  # Cancels in phi(g) - phi(s): this one is none.
        SkillPolicy(config, tensors, "")
        tensors["latent.0.bias"] = tensors["latent.0.bias"] * 0
    else:
        config["policy"]["activations"][0] = "linear"
    with pytest.raises(SkillError, match=r"The golden (action|aim) differs by .*: expected at most 1e-05\."):
        SkillPolicy(config, tensors, "")


@pytest.mark.parametrize("kind, dim", [("sphere", 2), ("sphere", 5), ("gaussian", 3), ("onehot", 4)])
def test_projections_are_those_of_the_training_library(kind, dim):
    policy, space = make(kind=kind, dim=dim), SkillSpace(kind, dim)
    x = np.random.default_rng(1).normal(size=(20, dim)).astype(np.float32)
    x[0], x[1], x[2] = 0, 1e-9, 1e-7  # no direction, too short for one, just long enough
    np.testing.assert_allclose(policy.project(x), np.array(space.project(x)), rtol=1e-6)
    np.testing.assert_array_equal(policy.project(x[4]), policy.project(x)[4])
    assert runtime.typical_norm({"kind": kind, "dim": dim}) == space.typical_norm
    far = policy.project(np.full(dim, 1e30))  # Its square is beyond float32.
    np.testing.assert_allclose(far, np.array(space.project(np.ones(dim, np.float32))), rtol=1e-6)
    if kind != "onehot":  # The fixed direction, not a division by zero, and not NaN.
        assert policy.project(x[0]).tolist() == [np.float32(space.typical_norm), *[0] * (dim - 1)]


def test_samples_come_from_the_prior():
    rng = np.random.default_rng(0)
    unit = make(kind="sphere", dim=3).sample(rng, 4000)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(unit.T @ unit / 4000, np.eye(3) / 3, atol=0.03)
    normal = make(kind="gaussian", dim=3).sample(rng, 4000)
    np.testing.assert_allclose(normal.T @ normal / 4000, np.eye(3), atol=0.1)
    one = make(kind="onehot", dim=4).sample(rng, 4000)
    assert set(np.unique(one)) == {0, 1} and (one.sum(axis=1) == 1).all()
    np.testing.assert_allclose(one.mean(axis=0), 0.25, atol=0.03)
    assert unit.dtype == normal.dtype == one.dtype == np.float32


def test_aiming_is_the_direction_of_latent_motion():
    policy = make(dim=2)
    rng = np.random.default_rng(2)
    obs, goal = rng.normal(size=(2, 5, 3)).astype(np.float32)

    def phi(x):
        t = policy.tensors
        x = (x - t["normalizer.mean"]) / t["normalizer.std"]
        return np.maximum(x @ t["latent.0.kernel"] + t["latent.0.bias"], 0) @ t["latent.1.kernel"] + t["latent.1.bias"]

    dphi = phi(goal) - phi(obs)
    expected = dphi / np.linalg.norm(dphi, axis=1, keepdims=True)
    np.testing.assert_allclose(policy.aim(goal, obs), expected, atol=1e-5)
    np.testing.assert_allclose(policy.aim(goal[0], obs[0]), expected[0], atol=1e-5)
    np.testing.assert_allclose(policy.aim(goal[0], obs)[0], expected[0], atol=1e-5)
    assert not np.allclose(policy.aim(obs, goal), expected, atol=0.1)  # The wrong way round.


def test_a_goal_is_the_template_moved():
    assert make().goal(y=-5, x=10).tolist() == [10, 0.5, -5]
    assert make().goal(x=1, y=2).tolist() == [1, 0.5, 2], "the template itself does not change"


def test_skills_by_name_index_and_vector_are_one():
    policy = make(kind="onehot", dim=4)
    obs = np.zeros(3)
    name = next(iter(policy.skills))
    index = int(policy.skills[name].argmax())
    np.testing.assert_array_equal(policy.act(obs, name), policy.act(obs, index))
    np.testing.assert_array_equal(policy.act(obs, np.int64(index)), policy.act(obs, np.eye(4)[index]))


def test_batches_are_rows():
    policy = make()
    rng = np.random.default_rng(3)
    obs, z = rng.normal(size=(6, 3)), policy.sample(rng, 6)
    single = np.stack([policy.act(o, skill) for o, skill in zip(obs, z)])
    np.testing.assert_allclose(policy.act(obs, z), single, atol=1e-6)
    np.testing.assert_allclose(policy.act(obs, z[0])[0], single[0], atol=1e-6)
    np.testing.assert_allclose(policy.act(obs[0], z)[0], single[0], atol=1e-6)
    np.testing.assert_allclose(policy.act(obs, "forward"), policy.act(obs, policy.skills["forward"]))
    assert policy.act(obs, z).shape == policy.scale(policy.act(obs, z)).shape == (6, 2)
    assert policy.act(obs[:0], z[:0]).shape == (0, 2)
    assert policy.act(obs, z).dtype == np.float32 and np.abs(policy.act(100 * obs, z)).max() <= 1


def test_inputs_are_not_changed():
    policy = make()
    obs, z = np.ones(3, np.float32), np.float32([1, 0])
    policy.act(obs, z), policy.aim(obs, obs), policy.goal(x=1, y=2)
    assert obs.tolist() == [1, 1, 1] and z.tolist() == [1, 0]
    with pytest.raises(ValueError, match="read-only"):
        policy.skills["forward"][0] = 2


# --- inputs that are refused


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: p.act(np.zeros(4), "forward"), r"obs has shape \(4,\): expected \(3,\) or \(n, 3\)\."),
        (lambda p: p.act(np.zeros((2, 2, 3)), "forward"), r"obs has shape \(2, 2, 3\): expected"),
        (lambda p: p.act(1.0, "forward"), r"obs has shape \(\): expected"),
        (
            lambda p: p.act([0, math.nan, 0], "forward"),
            r"obs is nan at entry 1 \('entry_1'\): expected finite numbers\.",
        ),
        (lambda p: p.act([0, 0, -math.inf], "forward"), r"obs is -inf at entry 2 \('entry_2'\)"),
        (lambda p: p.act([[0, 0, 0], [1e300, 0, 0]], "forward"), r"obs is inf at entry 0"),
        (lambda p: p.act([1e37, 0, 0], "forward"), None),
        (lambda p: p.act(["0", "0", "0"], "forward"), r"obs is \['0', '0', '0'\]: expected 3 real numbers\."),
        (lambda p: p.act([0, 0, 1j], "forward"), r"expected 3 real numbers"),
        (lambda p: p.act([[0, 0, 0], [0, 0]], "forward"), r"obs is no array \(.*\): expected shape \(3,\) or \(n, 3\)"),
        (lambda p: p.act(None, "forward"), r"obs is None: expected 3 real numbers"),
        (lambda p: p.act(np.zeros(3), "forwrd"), r"Unknown skill 'forwrd': did you mean 'forward'\?"),
        (lambda p: p.act(np.zeros(3), "q"), r"Unknown skill 'q': expected 'forward', 'rest'\."),
        (lambda p: p.act(np.zeros(3), 1), r"z has shape \(\): expected \(2,\)"),
        (lambda p: p.act(np.zeros(3), [1, 0, 0]), r"z has shape \(3,\): expected \(2,\)"),
        (lambda p: p.act(np.zeros(3), [math.nan, 0]), r"z is nan at entry 0: expected finite"),
        (
            lambda p: p.act(np.zeros((2, 3)), np.eye(2)[[0, 1, 0]]),
            r"obs and z have 2 and 3 rows: expected as many of each",
        ),
        (lambda p: p.aim(np.zeros(2), np.zeros(3)), r"goal has shape \(2,\): expected \(3,\)"),
        (lambda p: p.aim(np.zeros(3), [0, 0, math.nan]), r"obs is nan at entry 2"),
        (lambda p: p.goal(x=1), r"The goal has 'x': expected 'x', 'y'\."),
        (lambda p: p.goal(x=1, y=2, z=3), r"The goal has 'x', 'y', 'z': expected 'x', 'y'\."),
        (lambda p: p.goal(x=math.inf, y=2), r"x is inf at entry 0"),
        (lambda p: p.scale([0.5, 1.5]), r"action is \[0\.5, 1\.5\]: expected 2 numbers in \[-1, 1\]\."),
        (lambda p: p.scale(["a", "b"]), r"action is \['a', 'b'\]: expected 2 numbers in \[-1, 1\]\."),
        (lambda p: p.scale([None, None]), r"action is \[None, None\]: expected 2 numbers in \[-1, 1\]\."),
        (lambda p: p.scale([[0, 0], [0]]), r"action is \[\[0, 0\], \[0\]\]: expected 2 numbers in \[-1, 1\]\."),
        (lambda p: p.save_pretrained("a\0b"), r"Cannot write 'a\\x00b': .*null byte"),
        (lambda p: p.scale([0.5, math.nan]), r"expected 2 numbers in \[-1, 1\]"),
        (lambda p: p.scale([0.5]), r"expected 2 numbers in \[-1, 1\]"),
    ],
)
def test_bad_inputs_are_named(call, message):
    policy = make()
    if message is None:  # Finite, however large.
        assert np.isfinite(call(policy)).all()
        return
    with pytest.raises(SkillError, match=message) as caught:
        call(policy)
    assert "\n" not in str(caught.value)


def test_indices_are_of_onehot_skills_and_in_range():
    policy = make(kind="onehot", dim=4)
    for index in (-1, 4):
        with pytest.raises(SkillError, match=rf"z is the index {index}: expected one in \[0, 4\)"):
            policy.act(np.zeros(3), index)
    with pytest.raises(SkillError, match="z is True"):
        policy.act(np.zeros(3), True)


def test_what_a_bundle_cannot_do_it_says():
    config, tensors = make_parts(latent=False)
    config["goal"] = None
    policy = SkillPolicy(config, tensors, "")
    with pytest.raises(SkillError, match="This bundle cannot be told a goal: expected a skill by name"):
        policy.aim(np.zeros(3), np.zeros(3))
    with pytest.raises(SkillError, match="Observations of 'test' show no position"):
        policy.goal(x=1)


def test_an_action_that_is_not_finite_is_no_action():
    policy = make()
    policy.tensors["policy.0.kernel"][:] *= 1e38
    policy.tensors["policy.1.kernel"][:] *= 1e38
    with pytest.raises(SkillError, match="The action is not finite"), np.errstate(all="ignore"):
        policy.act(np.ones(3) * 1e5, "forward")


# --- bundles that are refused


def _remove(name):
    return lambda folder: (folder / name).unlink()


def _edit(change, name=CONFIG):
    """Change the parsed config, with right hashes: what is refused is refused for what it says."""

    def damage(folder):
        config = json.loads((folder / CONFIG).read_text())
        change(config)
        sign(folder, config)

    return damage


def _retensor(change):
    def damage(folder):
        tensors = load((folder / WEIGHTS).read_bytes())
        tensors = change(tensors) or tensors
        (folder / WEIGHTS).write_bytes(save(tensors))
        sign(folder)

    return damage


def _write(name, content, signed=False):
    def damage(folder):
        (folder / name).write_bytes(content)
        if signed:
            sign(folder)

    return damage


def _link(name, target):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return damage


def _folder(name):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def _pickled(folder):
    (folder / WEIGHTS).unlink()
    (folder / "policy.pkl").write_bytes(pickle.dumps({"w": 1}))


def _header(length, header=b""):
    return _write(WEIGHTS, length.to_bytes(8, "little") + header, signed=True)


def _set(*path_and_value):
    *path, last, value = path_and_value

    def change(config):
        for key in path:
            config = config[key]
        config[last] = value

    return _edit(change)


def _drop(*path):
    def change(config):
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    return _edit(change)


def _tensors(**shapes):
    """Tensors of these shapes, all in the same 4 bytes."""
    infos = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]} for name, shape in shapes.items()}
    header = json.dumps(infos).encode()
    return _header(len(header), header + b"\0" * 4)


def _with(**tensors):
    return _retensor(lambda old: {**old, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}})


BAD_BUNDLES = {
    "no weights": (_remove(WEIGHTS), r"has no skill\.safetensors: expected .*, found 'README\.md', 'config\.json'"),
    "no config": (_remove(CONFIG), r"has no config\.json"),
    "no card": (_remove(CARD), r"has no README\.md"),
    "a pickle beside": (_pickled, r"has no skill\.safetensors: .* found .*'policy\.pkl'"),
    "a pickle inside": (_write(WEIGHTS, pickle.dumps({"w": 1}), True), r"not a safetensors file: .*"),
    "weights are a folder": (_folder(WEIGHTS), r"skill\.safetensors is a folder or a device: expected a file"),
    "config is a folder": (_folder(CONFIG), r"config\.json is a folder or a device"),
    "a link outside": (_link(WEIGHTS, __file__), r"leads out of the bundle, to .*test_skills\.py"),
    "a link up": (_link(CONFIG, "../../outside.json"), r"has no config\.json"),
    "a link to itself": (_link(CARD, CARD), r"README\.md"),
    "a device": (_link(CARD, os.devnull), r"leads out of the bundle"),
    "a card that is no text": (_write(CARD, b"\xff\xfe"), r"README\.md is no text: .*expected UTF-8"),
    "too large": (lambda folder: os.truncate(folder / WEIGHTS, 2**28 + 1), r"is of .* bytes: expected at most 268"),
    "config too large": (_write(CONFIG, b" " * (2**22 + 1)), r"config\.json is of .*: expected at most 4,194,304"),
    "not JSON": (_write(CONFIG, b"{'a': 1}"), r"config\.json is not JSON: Expecting property name"),
    "empty config": (_write(CONFIG, b""), r"config\.json is not JSON"),
    "config is a pickle": (_write(CONFIG, pickle.dumps({})), r"config\.json is not JSON"),
    "endless nesting": (_write(CONFIG, b"[" * 100_000), r"config\.json is not JSON: .*recursion"),
    "huge number": (_write(CONFIG, b"1" * 5000), r"config\.json is not JSON: Exceeds the limit"),
    "a list": (_write(CONFIG, b"[1]"), r"config\.json holds \[1\]: expected an object"),
    "NaN": (_write(CONFIG, b'{"format": NaN}'), r"not JSON: it holds NaN"),
    "a key twice": (_write(CONFIG, b'{"a": 1, "a": 2}'), r"a key stands twice"),
    "no format": (_write(CONFIG, b"{}"), r"has the format None: this reads 'urlrl-skill-2' and 'urlrl-skill-1'"),
    "later format": (_set("format", "urlrl-skill-3"), r"has the format 'urlrl-skill-3': this reads 'urlrl-skill-2'"),
    "unknown key": (_set("actoin", 1), r"Unknown key in config 'actoin': did you mean 'action'\?"),
    "unknown nested key": (_set("skill", "dims", 1), r"Unknown key in config\.skill 'dims': did you mean 'dim'\?"),
    "missing key": (_drop("env"), r"config has no 'env': expected 'format', 'env'"),
    "missing nested key": (_drop("action", "low"), r"config\.action has no 'low'"),
    "no statistics": (_retensor(lambda t: t.pop("normalizer.mean") is None), r"Tensor 'normalizer\.mean' is missing"),
    "wrong type": (_set("env", 3), r"config\.env is 3: expected a text"),
    "a truth as a number": (_set("skill", "dim", True), r"config\.skill\.dim is True: expected a whole number"),
    "a fraction": (_set("skill", "dim", 2.0), r"config\.skill\.dim is 2\.0: expected a whole number"),
    "not finite": (
        _edit(lambda c: c["golden"]["act"]["obs"][0].__setitem__(0, 1e39)),
        r"golden\.act\.obs\[0\]\[0\] is 1e\+39",
    ),
    "a number beyond floats": (
        _set("control_dt", 10**400),
        r"config\.control_dt is 10+\.\.\.: expected a finite number",
    ),
    "a negative step": (_set("control_dt", -0.1), r"control_dt is -0\.1: expected a positive number of seconds"),
    "unknown kind": (_set("skill", "kind", "spere"), r"Unknown skill kind 'spere': did you mean 'sphere'\?"),
    "another kind": (_set("skill", "kind", "onehot"), r"The golden aim differs"),
    "size and names": (_set("observation", "size", 4), r"observation\.size is 4: expected .* 3"),
    "a name twice": (
        _set("observation", "names", ["a", "b", "a"]),
        r"observation\.names is .*: expected no name twice",
    ),
    "bounds": (_set("action", "high", [3.0, -1.0]), r"action\.high is -1\.0: expected more than its low of -1\.0"),
    "bounds of another size": (_set("action", "low", [-1.0]), r"action\.low is \[\[-1\.0\]\]: expected 1 x 2 numbers"),
    "network sizes": (
        _set("policy", "sizes", [5, 4, 4, 3]),
        r"policy\.sizes is .*: expected positive sizes from 5 to 2",
    ),
    "no layers": (_set("policy", "sizes", []), r"policy\.sizes is \[\]"),
    "activation": (
        _set("policy", "activations", ["relu", "gelu", "tanh"]),
        r"policy\.activations is .*'linear', 'relu', 'tanh'",
    ),
    "unbounded action": (_set("policy", "activations", ["relu"] * 3), r"the last 'tanh'"),
    "goal entries": (_set("goal", "index", [0, 3]), r"goal\.index is \[0, 3\]: expected an entry of the observation"),
    "goal template": (_set("goal", "template", [0.0]), r"goal\.template is .*: expected 1 x 3 numbers"),
    "named skill": (_set("skills", "rest", "z", [1.0]), r"skills\.rest\.z is \[\[1\.0\]\]: expected 1 x 2 numbers"),
    "no golden rows": (
        _edit(lambda c: c["golden"]["act"].update(obs=[], z=[], action=[])),
        r"golden\.act\.obs is \[\]: expected 1 x 3",
    ),
    "golden of other lengths": (
        _edit(lambda c: c["golden"]["act"]["z"].pop()),
        r"golden\.act\.z is .*: expected 3 x 2 numbers",
    ),
    "no golden aims": (_set("golden", "aim", None), r"golden\.aim\.goal is \[\]: expected 1 x 3 numbers"),
    "golden aims without latent": (
        _set("latent", None),
        r"golden\.aim is .*: expected null, as it cannot be told goals",
    ),
    "a golden action": (
        _edit(lambda c: c["golden"]["act"]["action"][1].__setitem__(0, 0.123)),
        r"The golden action differs by",
    ),
    "a golden aim": (_edit(lambda c: c["golden"]["aim"]["z"].reverse()), r"The golden aim differs by"),
    "no hashes": (lambda folder: _unsigned(folder), r"sha256 is None: expected an object"),
    "changed config": (lambda folder: _replace(folder, b'"test"', b'"tast"'), r"config\.json was changed or damaged"),
    "missing tensor": (
        _retensor(lambda t: t.pop("policy.1.bias") is None),
        r"Tensor 'policy\.1\.bias' is missing: found",
    ),
    "extra tensor": (_with(critic__0__bias=np.zeros(1, np.float32)), r"Unknown tensor 'critic\.0\.bias'"),
    "shape": (
        _with(policy__0__bias=np.zeros(5, np.float32)),
        r"'policy\.0\.bias' is float32 \(5,\): expected float32 \(4,\)",
    ),
    "transposed": (
        _with(policy__0__kernel=np.zeros((4, 5), np.float32)),
        r"is float32 \(4, 5\): expected float32 \(5, 4\)",
    ),
    "not finite weight": (
        _with(policy__0__bias=np.float32([0, np.nan, 0, 0])),
        r"'policy\.0\.bias' holds nan: expected finite",
    ),
    "double": (_with(policy__0__bias=np.zeros(4)), r"'policy\.0\.bias' is of type F64: expected F32"),
    "negative std": (
        _with(normalizer__std=np.float32([1, -1, 1])),
        r"'normalizer\.std' holds -1\.0: expected none below 0",
    ),
    "empty weights": (_write(WEIGHTS, b"", True), r"skill\.safetensors is not a safetensors file"),
    "changed weights": (_write(WEIGHTS, b"xx"), r"skill\.safetensors was changed or damaged: its SHA-256"),
    "huge header": (_header(2**63), r"not a safetensors file: .*header"),
    "header past the end": (_header(1000, b"{}"), r"not a safetensors file"),
    "header no JSON": (_header(4, b"{,,}"), r"not a safetensors file"),
    "overlapping tensors": (_tensors(a=[1], b=[1]), r"not a safetensors file"),
    "shape overflow": (_tensors(a=[2**40, 2**40]), r"not a safetensors file"),
}


def _unsigned(folder):
    config = json.loads((folder / CONFIG).read_text())
    del config["sha256"]
    (folder / CONFIG).write_text(json.dumps(config))


def _replace(folder, old, new):
    content = (folder / CONFIG).read_bytes()
    assert old in content
    (folder / CONFIG).write_bytes(content.replace(old, new))


@pytest.mark.parametrize("damage, message", BAD_BUNDLES.values(), ids=BAD_BUNDLES)
def test_bad_bundles_are_named(bundle, damage, message):
    damage(bundle)
    with pytest.raises(SkillError, match=message) as caught:
        SkillPolicy.from_pretrained(bundle)
    assert "\n" not in str(caught.value)


def test_a_bundle_that_is_not_there(tmp_path):
    (tmp_path / "file.pkl").write_bytes(b"")
    for source, message in {
        tmp_path / "nothing": r"is not there: expected a bundle's folder",
        tmp_path / "file.pkl": r"is a file: expected a bundle's folder",
        "a\0b": r"is not there",
        "../up": r"is not there",
        "": r"has no skill\.safetensors",  # The present folder.
        "x" * 5000: r"cannot be read: File name too long",
    }.items():
        with pytest.raises(SkillError, match=message):
            SkillPolicy.from_pretrained(source)
    with pytest.raises(SkillError, match=r"revision is 'v1': expected None, as '.*' is a folder"):
        SkillPolicy.from_pretrained(tmp_path, revision="v1")


def test_links_within_a_bundle_and_to_one_are_followed(bundle, tmp_path):
    (bundle / CARD).rename(bundle / "card")
    (bundle / CARD).symlink_to("card")
    (tmp_path / "latest").symlink_to(bundle)
    assert SkillPolicy.from_pretrained(tmp_path / "latest").card == "# A card\n"


def outputs(policy: SkillPolicy) -> list:
    obs = np.linspace(-1, 1, 3)
    return [policy.act(obs, z).tobytes() for z in policy.skills.values()] + [
        policy.aim(policy.goal(x=1, y=2), obs).tobytes(), policy.scale([0.5, 0]).tobytes(), policy.config
    ]  # fmt: skip


WHOLE = make()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Callable[[], Path]:
    return refreshed(WHOLE, tmp_path_factory.mktemp("fuzz") / "bundle")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_noticed_or_mean_nothing(scratch, name, data):
    """Flips, cuts and insertions: the bundle is refused, or does exactly what it did."""
    folder = scratch()
    content = bytearray((folder / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(("flip", "cut", "insert", "swap"))):
        case "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[at : at + data.draw(st.integers(1, len(content)))]
        case "insert":
            content[at:at] = data.draw(
                st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from((b" ", b"\n", b"0")))
            )
        case "swap":
            content[at:] = content[at:][::-1]
    (folder / name).write_bytes(content)
    try:
        policy = SkillPolicy.from_pretrained(folder)
    except SkillError:
        return
    assert outputs(policy) == outputs(WHOLE)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_config_with_right_hashes_loads_or_is_refused(scratch, data):
    """The checks beneath the hashes: any value at any place."""
    folder = scratch()
    config = copy.deepcopy(WHOLE.config)
    change_anywhere(config, data)
    sign(folder, config)
    try:
        policy = SkillPolicy.from_pretrained(folder)
    except SkillError:
        return
    assert np.isfinite(
        policy.act(np.zeros(policy.config["observation"]["size"]), policy.sample(np.random.default_rng(0), 2))
    ).all()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_weights_with_right_hashes_load_or_are_refused(scratch, data):
    folder = scratch()
    content = bytearray((folder / WEIGHTS).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (folder / WEIGHTS).write_bytes(content)
    sign(folder)
    with contextlib.suppress(SkillError):
        assert np.isfinite(SkillPolicy.from_pretrained(folder).act(np.zeros(3), "forward")).all()


# --- writing


def test_round_trip_is_bit_for_bit(bundle, tmp_path):
    policy = SkillPolicy.from_pretrained(bundle)
    again = policy.save_pretrained(tmp_path / "deep" / "again")
    assert set(contents(bundle)) == set(FILES) and contents(bundle) == contents(again)
    assert outputs(policy) == outputs(WHOLE) and policy.card == WHOLE.card
    assert all((policy.tensors[name] == tensor).all() for name, tensor in WHOLE.tensors.items())


def test_tensors_in_another_memory_order_are_saved_as_they_are(tmp_path):
    """safetensors alone writes a transposed view in the wrong order, without a word."""
    config, tensors = make_parts()
    policy = SkillPolicy(config, {name: np.asfortranarray(tensor) for name, tensor in tensors.items()}, "")
    saved = SkillPolicy.from_pretrained(policy.save_pretrained(tmp_path / "bundle"))
    np.testing.assert_array_equal(saved.tensors["policy.0.kernel"], tensors["policy.0.kernel"])


def test_only_a_bundle_is_replaced(bundle, tmp_path):
    other = make(seed=1)
    other.save_pretrained(bundle)
    assert outputs(SkillPolicy.from_pretrained(bundle)) == outputs(other)
    (tmp_path / "empty").mkdir()
    other.save_pretrained(tmp_path / "empty")
    (bundle / "notes.txt").write_text("mine")
    before = contents(bundle)
    with pytest.raises(
        SkillError, match=r"is not empty and holds notes\.txt: expected a new folder, or one to replace"
    ):
        make().save_pretrained(bundle)
    assert contents(bundle) == before
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / CARD).write_text("# Mine")
    with pytest.raises(SkillError, match=r"holds no skill\.safetensors"):
        make().save_pretrained(tmp_path / "docs")
    with pytest.raises(SkillError, match=r"Cannot write '.*README\.md': Not a directory"):
        make().save_pretrained(tmp_path / "docs" / CARD)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failed_replacement_leaves_the_old_bundle(bundle, tmp_path, monkeypatch, failing):
    before, calls, rename = contents(bundle), [], os.rename

    def fail(*args):
        calls.append(args)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device")
        rename(*args)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(SkillError, match="Cannot write .*: No space left on device"):
        make(seed=1).save_pretrained(bundle)
    assert contents(bundle) == before and [path.name for path in tmp_path.iterdir()] == ["bundle"]


# --- the hub, without a network


def fake_hub(monkeypatch, cache: Path):
    """huggingface_hub as far as the runtime uses it; its cache links from snapshots to blobs, as the real one does."""
    hub, uploads = types.ModuleType("huggingface_hub"), []

    def snapshot_download(repo_id, *, revision, local_files_only, allow_patterns):
        if repo_id != "someone/skills":
            raise FileNotFoundError(f"404: no {repo_id}\nmore")
        assert allow_patterns == [*FILES, PROMPT]
        return str(cache / "snapshots" / (revision or "main"))

    class HfApi:
        def create_repo(self, repo_id, exist_ok):
            if repo_id.startswith("nobody"):
                raise ValueError("forbidden")

        def upload_folder(self, repo_id, folder_path):
            uploads.append((repo_id, contents(Path(folder_path))))

    hub.snapshot_download, hub.HfApi = snapshot_download, HfApi
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return uploads


def test_the_hub(bundle, tmp_path, monkeypatch):
    cache = tmp_path / "models--someone--skills"
    snapshot = cache / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    bundle.rename(cache / "blobs")
    for name in FILES:
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    uploads = fake_hub(monkeypatch, cache)
    policy = SkillPolicy.from_pretrained("someone/skills")
    assert outputs(policy) == outputs(WHOLE)
    policy.push_to_hub("me/skills")
    assert uploads == [("me/skills", contents(cache / "blobs"))]
    with pytest.raises(SkillError, match=r"There is no folder 'no/one', and from the hub: 404: no no/one\."):
        SkillPolicy.from_pretrained("no/one")
    with pytest.raises(SkillError, match="Cannot push to the hub as 'nobody/x': forbidden"):
        policy.push_to_hub("nobody/x")
    (snapshot / CARD).unlink()
    (snapshot / CARD).symlink_to(__file__)
    with pytest.raises(SkillError, match="leads out of the bundle"):
        SkillPolicy.from_pretrained("someone/skills")


def test_without_the_hub_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: SkillPolicy.from_pretrained("some/one"), lambda: make().push_to_hub("some/one")):
        with pytest.raises(SkillError, match=r"huggingface_hub is not installed: pip install 'urlrl\[hub\]'"):
            call()


# --- alone and small


def test_the_runtime_imports_numpy_and_safetensors_only():
    tree = ast.parse(RUNTIME.read_text())
    modules = {a.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    modules |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules - set(sys.stdlib_module_names) == {"numpy", "safetensors", "huggingface_hub", "urlrl"}
    assert not {"pickle", "marshal", "importlib"} & modules


def test_a_copy_works_in_another_project(bundle, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "policy.py").write_bytes(RUNTIME.read_bytes())
    code = f"""
from policy import SkillPolicy
policy = SkillPolicy.from_pretrained({str(bundle)!r})
print(policy.act([-1, 0, 1], "forward").tolist(), policy.aim(policy.goal(x=1, y=2), [-1, 0, 1]).tolist())
policy.save_pretrained("copy")
"""
    said = alone(code, "numpy", "safetensors", "policy", folder=tmp_path / "project")
    aimed = WHOLE.aim(WHOLE.goal(x=1, y=2), [-1, 0, 1])
    assert said.strip() == f"{WHOLE.act([-1, 0, 1], 'forward').tolist()} {aimed.tolist()}"
    assert contents(tmp_path / "project" / "copy") == contents(bundle)


def test_importing_the_runtime_loads_no_jax():
    code = (
        "import sys, urlrl.skills.policy; "
        "assert not {'jax', 'flax', 'mujoco', 'gymnasium'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_first_bundle_loads_forever():
    """Written by the first release of the format; nothing may change about it or about what it does."""
    policy = SkillPolicy.from_pretrained(GOLDEN)
    assert policy.config["format"] == "urlrl-skill-1" and sum(map(len, contents(GOLDEN).values())) < 16_000
    np.testing.assert_allclose(policy.act([0.5, -0.25], "north"), [-0.42755514, 0.91612458], atol=1e-6)
    np.testing.assert_allclose(policy.aim(policy.goal(x=1, y=-2), [0.5, -0.25]), [0.59498751, -0.80373490], atol=1e-5)


def test_the_example_drives_a_skill(tmp_path):
    """scripts/drive_skill.py with an untrained policy; that a trained one runs forward is no matter of the script."""
    config, tensors = make_parts(obs=18, act=6)
    config |= {"env": "half_cheetah", "goal": {"names": ["x"], "index": [0], "template": [0.0] * 18}}
    SkillPolicy(config, tensors, "").save_pretrained(tmp_path / "bundle")

    def drive(*options):
        command = [sys.executable, str(ROOT / "scripts" / "drive_skill.py"), str(tmp_path / "bundle"), *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = drive("--goal", "10", "--steps", "20")
    assert done.returncode == 0 and "in 1 s" in done.stdout and "distance to the goal: " in done.stdout, done.stderr
    done = drive("--skill", "forwrd")
    assert done.returncode == 2 and "did you mean 'forward'?" in done.stderr
