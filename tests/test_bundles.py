"""Bundles of format 2: how prompts become skills in NumPy, by identities; what is refused; and any damage."""

import hashlib
import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from bundle_tools import alone, change_anywhere, contents, refreshed, sign
from hypothesis import given, settings
from hypothesis import strategies as st

from urlrl.envs import make_env
from urlrl.skills import policy as runtime
from urlrl.skills.policy import (
    CONFIG,
    FORMAT,
    PROMPT,
    Network,
    SkillController,
    SkillError,
    SkillPolicy,
    file_of,
    turned,
)

OBS, ACT, D, N = 4, 2, 3, 40


class Ops:
    """A network under construction, with random weights."""

    def __init__(self, role, rng, **sizes):
        self.role, self.rng, self.ops, self.tensors = role, rng, [], {}
        self.shapes = sizes

    def add(self, kind, *inputs, **numbers):
        numbers = {name: list(np.ravel(value).astype(float)) for name, value in numbers.items()}
        self.ops.append({"op": kind, "inputs": list(inputs), "output": f"x{len(self.ops)}", "numbers": numbers})
        return f"x{len(self.ops) - 1}"

    def filled(self):
        """With a tensor for each that is expected."""
        network = Network(self.role, self.ops, self.shapes)
        for name, shape in network.tensor_shapes.items():
            self.tensors[name] = (self.rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
        return self


def make_parts(rules, kind="wide_sphere", seed=0, length=None, hold=None):
    """(config, tensors, transitions) of a random policy that is told by `rules`: {kind of prompt: rule}. With `hold` it
    has a controller, which holds a skill for so many actions. Golden outputs are those of the runtime itself; that they
    are an agent's is the matter of tests/test_export.py."""
    rng = np.random.default_rng(seed)
    policy = Ops("policy", rng, obs=(OBS,), z=(D,))
    hidden = policy.add("layernorm", policy.add("dense", policy.add("concat", "obs", "z"), units=5), eps=1e-5)
    policy.add("tanh", policy.add("dense", policy.add("relu", hidden), units=ACT))
    features = Ops("features", rng, obs=(OBS,))
    x = features.add("dense", features.add("gelu_tanh", features.add("dense", "obs", units=6)), units=D)
    if length:
        features.add("scale_to", x, length=length)
    encoder = Ops("encoder", rng, states=(runtime.TOKENS, OBS), rewards=(runtime.TOKENS,))
    tokens = encoder.add(
        "concat", encoder.add("dense", "states", units=2), encoder.add("embed", "rewards", units=2, bins=8)
    )
    mixed = encoder.add("add", tokens, encoder.add("attention", tokens, heads=2))
    encoder.add("dense", encoder.add("mean", mixed), units=D)
    networks = [network.filled() for network in (policy, features, encoder)]
    tensors = {"normalizer.mean": rng.normal(size=OBS), "normalizer.std": rng.uniform(0.5, 2, OBS)}
    if hold:
        controller = Ops("controller", rng, inputs=(OBS + 1,))
        controller.add("tanh", controller.add("dense", "inputs", units=D))
        networks.append(controller.filled())
        tensors |= {"inputs.mean": rng.normal(size=OBS + 1), "inputs.std": rng.uniform(0.5, 2, OBS + 1)}
    for network in networks:
        tensors |= network.tensors
    rules = {name: {"rule": "", "options": [], "numbers": {}, **rule} for name, rule in rules.items()}
    if "moves" in rules.get("reward", {}).get("options", ()):
        tensors["prompting.moves"] = rng.normal(size=(D, D))
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    sizes = {"obs": OBS, "action": ACT, "next_obs": OBS, "words": 1}
    seen = {name: rng.uniform(-1, 1, (N, size)) for name, size in sizes.items()}
    seen = {name: column.astype(np.float32) for name, column in seen.items()}
    config = {
        "format": FORMAT,
        "env": "test",
        "control_dt": 0.05,
        "observation": {
            "size": OBS, "names": [f"entry_{i}" for i in range(OBS)], "low": [-2.0] * OBS, "high": [3.0] * OBS,
        },
        "action": {"size": ACT, "names": ["left", "right"], "low": [-1.0] * ACT, "high": [3.0] * ACT},
        "skill": {"kind": kind, "dim": D},
        "skills": {},
        "goal": {"names": ["x"], "index": [0], "template": [0.5] * OBS},
        "networks": {network.role: network.ops for network in networks},
        "prompting": {name: rules.get(name) for name in ("goal", "reward", "demo")},
        "transitions": {"count": N, "words": ["speed"], "sha256": hashlib.sha256(file_of(seen)).hexdigest()},
        "golden": {"act": {"obs": [[0.0] * OBS], "z": [[0.0] * D], "action": [[0.0] * ACT]}, "aim": None,
                   "reward": None},
        "provenance": {},
        **({"controller": {"features": ["goal_x"], "hold": hold}} if hold else {}),
    }  # fmt: skip
    z = fill_golden(config, tensors, seen, rules)
    digest = hashlib.sha256(file_of(tensors)).hexdigest()
    config["skills"] = {
        "forward": {"z": z[0].tolist(), "displacement": None, "told_by": "reward speed", "weights": digest}
    }
    return config, tensors, seen


def fill_golden(config, tensors, seen, rules):
    """Golden outputs by the runtime itself; returns the skill z (1, D) of the golden action."""
    golden = config["golden"]
    bare = SkillPolicy.__new__(SkillPolicy)
    bare._check_golden = lambda: None
    if rules.get("goal"):
        golden["aim"] = {"goal": [[0.0] * OBS], "obs": [[0.0] * OBS], "z": [[0.0] * D]}
    if rules.get("reward"):
        golden["reward"] = {"entry": [0], "z": [[0.0] * D]}
    if "controller" in config:
        golden["choose"] = {"inputs": [[0.5] * (OBS + 1)], "z": [[0.0] * D]}
    bare.__init__(config, tensors, "", seen)
    z = bare.project(np.float32([[1, 2, 3]]))
    golden["act"] |= {"z": z.tolist(), "action": bare.act(np.zeros((1, OBS)), z).tolist()}
    if golden["aim"]:
        golden["aim"] |= {"goal": [[1.0] * OBS], "z": bare.aim(np.ones((1, OBS)), np.zeros((1, OBS))).tolist()}
    if "controller" in config:
        golden["choose"]["z"] = bare.choose(golden["choose"]["inputs"]).tolist()
    if rules.get("demo"):
        steps = seen["next_obs"][:3]
        golden["demo"] = {"obs": steps.tolist(), "z": bare.prompt(demo=steps).tolist()}
    if golden["reward"]:
        golden["reward"]["z"] = [bare.prompt(reward=seen["next_obs"][:, 0]).tolist()]
    return z


def make(rules, **options) -> SkillPolicy:
    config, tensors, seen = make_parts(rules, **options)
    return SkillPolicy(config, tensors, "# A card\n", seen)


FB = {"goal": {"rule": "features"}, "reward": {"rule": "mean"}, "demo": {"rule": "mean"}}
FITTED = {"rule": "least_squares", "options": ["difference", "intercept"]}
HILP = {"goal": {"rule": "difference"}, "reward": FITTED, "demo": {"rule": "difference"}}
SF = {"goal": {"rule": "whitened"}, "reward": {"rule": "least_squares"}, "demo": {"rule": "whitened"}}
GROUP = {"group": [8.0]}
FRE = {
    "goal": {"rule": "labels", "numbers": {"position": [], "scale": [], "radius": [1.0], **GROUP}},
    "reward": {"rule": "encode", "numbers": GROUP},
}


def plan(recursions, neighbours=3):
    return {
        **HILP,
        "goal": {"rule": "plan", "numbers": {"neighbours": [neighbours], "recursions": [recursions], "near": [0]}},
    }


def normalised(policy, obs):
    return (np.asarray(obs, np.float32) - policy._mean) / policy._std


# --- how prompts become skills


def test_a_reward_tells_fb_the_same_at_any_scale_and_the_opposite_with_another_sign():
    policy = make(FB, length=D**0.5)
    r = np.random.default_rng(1).normal(size=N).astype(np.float32)
    z = policy.prompt(reward=r)
    np.testing.assert_allclose(np.linalg.norm(z), D**0.5, rtol=1e-5)
    for scale in (7, 1e-9, 1e30):
        np.testing.assert_allclose(policy.prompt(reward=scale * r), z, atol=1e-5)
    np.testing.assert_allclose(policy.prompt(reward=-r), -z, atol=1e-5)
    assert turned(policy.prompt(reward=r + 1), z) > 1e-3  # An offset is another reward.
    with pytest.raises(SkillError, match="The reward has no direction in what the agent knows"):
        policy.prompt(reward=np.zeros(N))


def test_a_reward_at_one_state_is_that_state_as_a_goal():
    policy = make(FB, length=D**0.5)
    r = np.zeros(N)
    r[7] = 1
    goal = policy.transitions.next_obs[7]
    np.testing.assert_allclose(policy.prompt(reward=r), policy.prompt(goal=goal), atol=1e-5)
    np.testing.assert_allclose(policy.prompt(demo=np.stack([goal + 9, goal])), policy.prompt(goal=goal), atol=1e-5)
    assert np.isfinite(policy.prompt(goal=policy.transitions.obs[0])).all()


@pytest.mark.parametrize("rules", [SF, HILP], ids=["without an intercept", "with one"])
def test_a_reward_that_is_linear_in_the_features_is_found(rules):
    policy = make(rules, kind="sphere")
    seen, w = policy.transitions, np.float32([1, -2, 0.5])
    rows = policy._features(normalised(policy, seen.next_obs))
    if rules is HILP:
        rows = rows - policy._features(normalised(policy, seen.obs))
    z = policy.prompt(reward=rows @ w + 3 * (rules is HILP))
    np.testing.assert_allclose(z, w / np.linalg.norm(w), atol=1e-4)


def test_rewards_of_few_directions_are_solved_with_the_least_weights():
    config, tensors, seen = make_parts(SF, kind="sphere")
    tensors["features.x2.kernel"][:, 2] = 2 * tensors["features.x2.kernel"][:, 0]  # The third is twice the first.
    tensors["features.x2.bias"][2] = 2 * tensors["features.x2.bias"][0]
    config["golden"] |= {"aim": None, "reward": None}
    config["golden"].pop("demo")
    config["skills"] = {}
    config["prompting"] = dict.fromkeys(config["prompting"])
    policy = SkillPolicy(config, tensors, "", seen)
    policy._rules = {**policy._rules, "reward": {"rule": "least_squares", "options": [], "numbers": {}}}
    rows = policy._features(normalised(policy, seen["next_obs"]))
    np.testing.assert_allclose(policy.prompt(reward=rows[:, 0]), np.float32([1, 0, 2]) / 5**0.5, atol=1e-4)


def test_moves_turn_what_is_wanted_into_what_leads_there():
    moved = {**HILP, "reward": {**FITTED, "options": ["difference", "intercept", "moves"]}}
    policy, plain = make(moved, kind="sphere"), make(HILP, kind="sphere")
    r = policy.transitions["speed"]
    rows = policy._rows - policy._rows.mean(axis=0)
    w = np.linalg.lstsq(rows, r - r.mean(), rcond=1e-5)[0]
    z = policy.tensors["prompting.moves"] @ w
    np.testing.assert_allclose(policy.prompt(reward=r), z / np.linalg.norm(z), atol=1e-4)
    assert turned(policy.prompt(reward=r), plain.prompt(reward=plain.transitions["speed"])) > 1e-3


def test_planning_goes_half_of_the_way_and_by_no_recursion_straight():
    policy, straight = make(plan(1), kind="sphere"), make(HILP, kind="sphere")
    rng = np.random.default_rng(2)
    at, target = rng.normal(size=(2, 5, D)).astype(np.float32)
    numbers = {"neighbours": [3.0], "recursions": [1.0], "near": [0.0]}
    ways = policy._waypoints
    for row, (a, t) in enumerate(zip(at, target)):
        farther = np.maximum(np.linalg.norm(ways - a, axis=1), np.linalg.norm(ways - t, axis=1))
        expected = ways[np.argsort(farther)[:3]].mean(axis=0)
        np.testing.assert_allclose(policy._subgoals(at, target, numbers)[row], expected, atol=1e-5)
    policy.__dict__["_waypoints"] = np.float32([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]])
    ends = np.float32([[0, 0, 0]]), np.float32([[4, 0, 0]])
    for recursions, near, x in ((1.0, 0.0, 2), (2.0, 0.0, 1), (2.0, 2.0, 2), (2.0, 4.0, 4)):
        numbers = {"neighbours": [1.0], "recursions": [recursions], "near": [near]}
        np.testing.assert_allclose(policy._subgoals(*ends, numbers), [[x, 0, 0]])
    obs, goal = rng.normal(size=(2, OBS))
    toward = straight.project(
        straight._features(normalised(straight, goal)) - straight._features(normalised(straight, obs))
    )
    np.testing.assert_allclose(straight.prompt(goal=goal).aim(obs), toward, atol=1e-5)


def test_where_one_is_already_has_a_fixed_direction():
    policy = make(HILP, kind="sphere")
    obs = policy.transitions.obs[0]
    np.testing.assert_array_equal(policy.prompt(goal=obs).aim(obs), [1, 0, 0])


def test_an_encoding_knows_no_order_offset_or_scale():
    policy = make(FRE, kind="gaussian")
    r = np.round(np.random.default_rng(3).uniform(-1, 1, N), 1).astype(np.float32)
    r[:2] = -1, 1
    z = policy.prompt(reward=r)
    np.testing.assert_allclose(policy.prompt(reward=4 * r + 8), z, atol=1e-5)
    states, rewards = normalised(policy, policy.transitions.next_obs[:8]), r[:8]
    order = np.random.default_rng(4).permutation(8)
    np.testing.assert_allclose(
        policy._encoder(states[order], rewards[order]), policy._encoder(states, rewards), atol=1e-6
    )
    groups = [
        policy._encoder(normalised(policy, policy.transitions.next_obs[i : i + 8]), r[i : i + 8])
        for i in range(0, N, 8)
    ]
    np.testing.assert_allclose(z, np.mean(groups, axis=0), atol=1e-5)


def test_a_goal_is_labelled_by_its_position():
    near = {"position": [0.0], "scale": [2.0, 1.0, 1.0, 1.0], "radius": [0.5], **GROUP}
    policy = make({**FRE, "goal": {"rule": "labels", "numbers": near}}, kind="gaussian")
    goal = policy.transitions.obs[3] + np.float32([0.1, 50, 50, 50])
    states = normalised(policy, np.concatenate([goal[None], policy.transitions.obs[:7]]))
    rewards = np.where(np.abs(states[:, 0] - states[0, 0]) / 2 < 0.5, 0, -1).astype(np.float32)
    assert 1 < (rewards == 0).sum() < 8
    np.testing.assert_allclose(policy.prompt(goal=goal), policy._encoder(states, rewards), atol=1e-6)


def test_a_reward_may_be_numbers_a_function_or_words():
    policy = make(FB)
    r = policy.transitions["speed"] - 0.5 * policy.transitions["entry_1"] ** 2
    z = policy.prompt(reward=r)
    np.testing.assert_allclose(
        policy.prompt(reward=lambda seen: seen["speed"] - 0.5 * seen["entry_1"] ** 2), z, atol=1e-6
    )
    np.testing.assert_allclose(policy.prompt(reward="speed - 0.5 * entry_1 ** 2"), z, atol=1e-5)
    np.testing.assert_allclose(policy.act(np.zeros(OBS), z), policy.act(np.zeros(OBS), policy.prompt(reward=r)))
    np.testing.assert_allclose(policy.prompt(goal={"x": 2.0}), policy.prompt(goal=policy.goal(x=2.0)))


# --- what is refused


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: p.prompt(), r"prompt is \[\]: expected one of reward, goal and demo"),
        (lambda p: p.prompt(reward="speed", goal=[0] * OBS), r"prompt is \['reward', 'goal'\]: expected one of"),
        (lambda p: p.prompt(reward=np.zeros(3)), r"reward has shape \(3,\): expected \(40,\)"),
        (
            lambda p: p.prompt(reward=np.zeros((2, N))),
            r"The shape of reward is \(2, 40\): expected \(40,\), a number for each",
        ),
        (lambda p: p.prompt(reward=lambda seen: seen["sped"]), r"Unknown column 'sped': did you mean 'speed'\?"),
        (lambda p: p.prompt(reward=np.full(N, np.nan)), r"reward is nan at entry 0"),
        (lambda p: p.prompt(reward="sped"), r"sped"),
        (lambda p: p.prompt(reward="__import__('os')"), r"import"),
        (
            lambda p: p.prompt(goal=np.zeros((2, OBS))),
            r"shape of goal is \(2, 4\): expected that of one observation",
        ),
        (lambda p: p.prompt(goal={"y": 1}), r"The goal has 'y': expected 'x'"),
        (lambda p: p.prompt(demo=np.zeros(OBS)), r"The shape of demo is \(4,\): expected that of the observations"),
        (lambda p: p.act(np.zeros(OBS), [1, 0, 0]), r"z has length 1: expected 1\.732, as `project` makes it"),
        (lambda p: p.act(np.zeros(OBS), 3 * p.skills["forward"]), r"z has length 5\.196: expected 1\.732"),
        (lambda p: p.act(np.zeros(OBS), np.zeros(D)), r"z has length 0: expected 1\.732"),
    ],
)
def test_bad_prompts_are_named(call, message):
    with pytest.raises(SkillError, match=message) as caught:
        call(make(FB))
    assert "\n" not in str(caught.value)


def test_who_is_strict_acts_near_what_training_saw_only(bundle):
    policy = SkillPolicy.from_pretrained(bundle, strict=True)
    obs = np.float32([[0, 0, 0, 0], [-6.9, 7.9, 0, 0]])
    np.testing.assert_array_equal(policy.act(obs, "forward"), SkillPolicy.from_pretrained(bundle).act(obs, "forward"))
    for entry, value in ((1, 8.1), (3, -7.1), (2, 1e6)):
        obs = np.zeros(OBS)
        obs[entry] = value
        with pytest.raises(SkillError, match=rf"obs is .* at entry {entry} \('entry_{entry}'\): expected -7 to 8, as"):
            policy.act(obs, "forward")
    assert repr(policy) == ("SkillPolicy('test', 4 -> 2, z: wide_sphere 3, 1 named, told by goal reward demo)")


def test_what_a_bundle_cannot_be_told_it_says():
    policy = make({"demo": {"rule": "difference"}})
    with pytest.raises(SkillError, match="This bundle cannot be told a reward: expected a demo"):
        policy.prompt(reward=np.zeros(N))


@pytest.fixture
def bundle(tmp_path) -> Path:
    return make(FB, length=D**0.5, hold=3).save_pretrained(tmp_path / "bundle")


def op(i, role="policy", **changes):
    return lambda c: c["networks"][role][i].update(changes)


def numbers(i, role="policy", **changes):
    return lambda c: c["networks"][role][i]["numbers"].update(changes)


BAD = {
    "unknown operation": (op(1, op="conv"), r"Unknown operation 'conv': did you mean 'concat'\?"),
    "code": (op(1, op="os.system"), r"Unknown operation 'os\.system'"),
    "an input from later": (op(1, inputs=["x4"]), r"its input is 'x4': expected one of 'obs', 'z', 'x0'"),
    "an output twice": (op(1, output="x0"), r"its output is 'x0': expected a name that is not taken"),
    "an output of the name of an input": (op(1, output="z"), r"its output is 'z': expected a name that is not taken"),
    "no input": (op(1, inputs=[]), r"its number of inputs is 0: expected 1"),
    "two inputs": (op(1, inputs=["x0", "x0"]), r"its number of inputs is 2: expected 1"),
    "no units": (numbers(1, units=[0.0]), r"units is 0\.0: expected a whole number of at least 1"),
    "a width beyond all": (numbers(1, units=[1e9]), r"the size of its output is 1000000000: expected at most 65536"),
    "bins of entries that are not there": (
        op(1, "features", op="bins", inputs=["obs"], numbers={"index": [4.0], "centres": [0.0], "width": [1.0]}),
        r"index is \[4\.0\]: expected entries of an input of 4 numbers",
    ),
    "more inputs than a machine holds": (
        op(0, inputs=["obs"] * 300),
        r"its number of inputs is 300: expected 1 to 256",
    ),
    "a named skill of another length": (
        lambda c: c["skills"]["forward"].update(z=[0.5, 0.0, 0.0]),
        r"z has length 0\.5: expected 1\.732",
    ),
    "half a unit": (numbers(1, units=[2.5]), r"units is 2\.5: expected a whole number"),
    "units of another size": (numbers(1, units=[7.0]), r"Tensor 'policy\.x1\.kernel' is float32"),
    "two numbers": (numbers(1, units=[5.0, 5.0]), r"how many units is 2: expected 1"),
    "another number": (numbers(1, unit=[5.0]), r"its numbers is \['units', 'unit'\]: expected 'units'"),
    "no epsilon": (numbers(2, eps=[0.0]), r"eps is 0\.0: expected more than 0"),
    "action of another size": (
        numbers(4, units=[3.0]),
        r"the output of networks\.policy is \(3,\): expected of shape \(2,\)",
    ),
    "heads that do not divide": (
        numbers(3, "encoder", heads=[3.0]),
        r"heads is 3: expected a divisor of 4",
    ),
    "attention to no tokens": (op(1, "features", op="attention", numbers={"heads": [1.0]}), r"a vector for each token"),
    "too many": (lambda c: c["networks"].update(policy=c["networks"]["policy"] * 60), r"expected 1 to 256"),
    "an empty network": (
        lambda c: c["networks"].update(policy=[]),
        r"networks\.policy has is 0: expected 1 to 256",
    ),
    "no policy": (
        lambda c: c["networks"].pop("policy"),
        r"networks is \['features', .*\]: expected a policy",
    ),
    "unknown role": (lambda c: c["networks"].update(critic=[]), r"Unknown role 'critic'"),
    "unknown rule": (
        lambda c: c["prompting"]["reward"].update(rule="means"),
        r"Unknown rule of a reward 'means': did you mean 'mean'\?",
    ),
    "unknown option": (
        lambda c: c["prompting"]["reward"].update(options=["x"]),
        r"prompting\.reward\.options is \['x'\]",
    ),
    "numbers of another rule": (
        lambda c: c["prompting"]["reward"].update(numbers={"group": [1.0]}),
        r"prompting\.reward\.numbers is \['group'\]",
    ),
    "a rule without its network": (
        lambda c: c["networks"].pop("features"),
        r"what the rule 'features' needs, 'features'",
    ),
    "a rule without transitions": (lambda c: c.update(transitions=None), r"what the rule 'mean' needs"),
    "a golden reward of no entry": (
        lambda c: c["golden"]["reward"].update(entry=[9]),
        r"an entry of an observation for each z",
    ),
    "no golden reward": (lambda c: c["golden"].update(reward=None), r"golden\.reward is None: expected some"),
    "another golden reward": (
        lambda c: c["golden"]["reward"].update(z=[[-x for x in c["golden"]["reward"]["z"][0]]]),
        r"The golden skill of a reward differs by 2: expected at most",
    ),
    "another golden demonstration": (
        lambda c: c["golden"]["demo"].update(z=[-x for x in c["golden"]["demo"]["z"]]),
        r"The golden skill of a demonstration differs by 2: expected at most",
    ),
    "a golden demonstration of another size": (
        lambda c: c["golden"]["demo"].update(z=[1.0]),
        r"golden\.demo\.z is \[\[1\.0\]\]: expected 1 x 3 numbers",
    ),
    "a golden demonstration that cannot be told": (
        lambda c: c["prompting"].update(demo=None),
        r"golden.demo is .*: expected none, as it can be told no demonstration",
    ),
    "another golden choice": (
        lambda c: c["golden"]["choose"].update(z=[[-x for x in c["golden"]["choose"]["z"][0]]]),
        r"The golden choice differs by \d.*: expected at most 1\.7",
    ),
    "a golden choice of other inputs": (
        lambda c: c["golden"]["choose"].update(inputs=[[0.0] * OBS]),
        r"golden\.choose\.inputs is \[\[0\.0.*: expected 1 x 5 numbers",
    ),
    "no golden choice": (
        lambda c: c["golden"].pop("choose"),
        r"golden\.choose is None: expected an object where networks has a 'controller', and only there",
    ),
    "a controller without its network": (
        lambda c: c["networks"].pop("controller"),
        r"controller is {'features': \['goal_x'\], 'hold': 3}: expected an object where networks has",
    ),
    "a network without its controller": (
        lambda c: c.pop("controller"),
        r"controller is None: expected an object where networks has a 'controller', and only there",
    ),
    "no controller, but a word for it": (
        lambda c: c.update(controller=None),
        r"config\.controller is None: expected an object",
    ),
    "a controller that sees a name twice": (
        lambda c: c["controller"].update(features=["entry_0"]),
        r"controller\.features is \['entry_0'\]: expected no name twice",
    ),
    "a controller that sees more": (
        lambda c: c["controller"].update(features=["goal_x", "goal_y"]),
        r"golden\.choose\.inputs is .*: expected 1 x 6 numbers",
    ),
    "a controller that holds nothing": (
        lambda c: c["controller"].update(hold=0),
        r"controller\.hold is 0: expected at least 1 action",
    ),
    "a controller of skills of another size": (
        numbers(0, "controller", units=[2.0]),
        r"the output of networks\.controller is \(2,\): expected of shape \(3,\)",
    ),
    "a word twice": (lambda c: c["transitions"].update(words=["entry_0"]), r"expected no name twice"),
    "transitions of another count": (
        lambda c: c["transitions"].update(count=41),
        r"Tensor 'obs' is float32 \(40, 4\): expected",
    ),
    "a skill for other weights": (
        lambda c: c["skills"]["forward"].update(weights="0" * 64),
        r"The skill 'forward' of .* was made for other weights than those in skill\.safetensors",
    ),
}


@pytest.mark.parametrize("change, message", BAD.values(), ids=BAD)
def test_bad_bundles_are_named(bundle, change, message):
    config = json.loads((bundle / CONFIG).read_text())
    change(config)
    sign(bundle, config)
    with pytest.raises(SkillError, match=message) as caught:
        SkillPolicy.from_pretrained(bundle)
    assert "\n" not in str(caught.value)


def test_bad_statistics_of_a_controllers_inputs_are_named():
    config, tensors, seen = make_parts(FB, hold=3)
    below = {**tensors, "inputs.std": np.float32([1, 1, -0.5, 1, 1])}
    without = {name: tensor for name, tensor in tensors.items() if name != "inputs.mean"}
    for wrong, message in (
        (below, r"Tensor 'inputs\.std' holds -0\.5: expected none below 0"),
        (without, r"Tensor 'inputs\.mean' is missing"),
    ):
        with pytest.raises(SkillError, match=message):
            SkillPolicy(config, wrong, "", seen)


def test_transitions_of_another_bundle_are_refused(bundle, tmp_path):
    other = make(FB, seed=1).save_pretrained(tmp_path / "other")
    (bundle / PROMPT).write_bytes((other / PROMPT).read_bytes())
    with pytest.raises(SkillError, match=r"prompt\.safetensors was changed or damaged: its SHA-256 is not what"):
        SkillPolicy.from_pretrained(bundle)
    (bundle / PROMPT).unlink()
    with pytest.raises(SkillError, match=r"has no prompt\.safetensors"):
        SkillPolicy.from_pretrained(bundle)


def test_a_bundle_is_the_same_files_when_it_is_saved_again(bundle, tmp_path):
    again = SkillPolicy.from_pretrained(bundle).save_pretrained(tmp_path / "again")
    assert contents(bundle) == contents(again)


def test_transitions_cannot_be_changed(bundle):
    with pytest.raises(ValueError, match="read-only"):
        SkillPolicy.from_pretrained(bundle).transitions.obs[0] = 1


# --- any damage


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return refreshed(make(FB, length=D**0.5, hold=3), tmp_path_factory.mktemp("fuzz") / "bundle")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_contract_with_right_hashes_loads_or_is_refused(scratch, data):
    folder = scratch()
    config = json.loads((folder / CONFIG).read_text())
    config.pop("sha256")
    change_anywhere(config, data)
    sign(folder, config)
    try:
        policy = SkillPolicy.from_pretrained(folder)
    except SkillError:
        return
    z, size = policy.sample(np.random.default_rng(0), 2), policy.config["observation"]["size"]
    assert np.isfinite(policy.act(np.zeros(size), z)).all()
    inputs = np.zeros(size + len(policy.config["controller"]["features"]))
    assert np.isfinite(SkillController(policy).act(inputs)).all()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_transitions_with_right_hashes_load_or_are_refused(scratch, data):
    folder = scratch()
    damaged = bytearray((folder / PROMPT).read_bytes())
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (folder / PROMPT).write_bytes(damaged)
    config = json.loads((folder / CONFIG).read_text())
    config["transitions"]["sha256"] = hashlib.sha256(bytes(damaged)).hexdigest()
    sign(folder, config)
    try:
        policy = SkillPolicy.from_pretrained(folder)
    except SkillError:
        return
    assert np.isfinite(policy.prompt(reward=policy.transitions["speed"])).all()


# --- alone


def test_numpy_and_safetensors_are_enough(bundle, tmp_path):
    """A copy of the one file; rewards in words need the library, and say so."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "policy.py").write_bytes(Path(runtime.__file__).read_bytes())
    code = f"""
from policy import SkillController, SkillError, SkillPolicy
policy = SkillPolicy.from_pretrained({str(bundle)!r})
print(policy.act([0] * 4, policy.prompt(reward=lambda seen: seen["speed"])).tolist())
try:
    policy.prompt(reward="speed")
except SkillError as error:
    print(error)
print(SkillController(policy).act([0] * 5).tolist())
"""
    said = alone(code, "numpy", "safetensors", "policy", folder=tmp_path / "project").splitlines()
    policy = SkillPolicy.from_pretrained(bundle)
    np.testing.assert_allclose(json.loads(said[0]), policy.act([0] * OBS, policy.prompt(reward="speed")), atol=1e-6)
    assert said[1] == "A reward in words needs the package urlrl: expected numbers or a function here."
    expected = policy.act([0] * OBS, policy.choose([0] * (OBS + 1)))
    np.testing.assert_allclose(json.loads(said[2]), expected, atol=1e-6)


def test_the_package_without_jax_loads_prompts_and_drives(bundle, tmp_path):
    """As after `pip install --no-deps urlrl numpy safetensors`."""
    code = f"""
from urlrl.skills.control import SkillSwitcher, TimedLoop
from urlrl.skills.policy import SkillPolicy
policy = SkillPolicy.from_pretrained({str(bundle)!r}, strict=True)
print(policy.act([0] * 4, policy.prompt(reward="speed - entry_1 ** 2")).tolist())
for name in ("ant", "half_cheetah", "maze_rooms"):
    shipped = SkillPolicy.from_pretrained(name)
    obs, skill = [0] * shipped.config["observation"]["size"], next(iter(shipped.skills))
    print(TimedLoop(shipped)(0.0, obs, SkillSwitcher(shipped, skill)).shape)
"""
    packages = ("numpy", "safetensors", "urlrl")
    action, *shapes = alone(code, *packages, folder=tmp_path).splitlines()
    expected = SkillPolicy.from_pretrained(bundle)
    told = expected.prompt(reward=expected.transitions["speed"] - expected.transitions["entry_1"] ** 2)
    np.testing.assert_allclose(json.loads(action), expected.act([0] * OBS, told), atol=1e-5)
    assert shapes == ["(8,)", "(6,)", "(2,)"]


def test_the_shipped_bundle_of_a_maze_goes_where_it_is_told():
    """By a reward in words, from 20 starts anywhere. It was trained on random steps, and misses three of them."""
    policy = SkillPolicy.from_pretrained("maze_rooms")
    z = policy.prompt(reward="1 if abs(x - 2.5) < 1 and abs(y - 2.5) < 1 else 0")
    with closing(make_env("maze:rooms_cells", 20)) as env:
        obs, _ = env.reset(seed=0)
        assert np.linalg.norm(env.position() - 2.5, axis=1).mean() > 3
        for _ in range(50):
            obs, *_ = env.step(policy.act(obs, z))
        assert (np.linalg.norm(env.position() - 2.5, axis=1) < 0.6).sum() >= 16
