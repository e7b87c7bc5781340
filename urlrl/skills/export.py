"""An agent of the training library becomes a `SkillPolicy`, and proves that it acts as the agent does."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from math import cos, pi, sin
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from urlrl.skills.policy import ANGLE, FORMAT, ROLES, RULES, TOLERANCE, SkillError, SkillPolicy, file_of, turned
from urlrl.types import (
    DemoPrompt,
    Each,
    EnvSpec,
    GoalPrompt,
    Graph,
    HostEnv,
    Op,
    RewardPrompt,
    Rule,
    Skill,
    SkillNetworks,
    Trajectory,
    Transition,
    need,
)

GOLDEN_ROWS, PROBE_ROWS = 16, 1024  # pairs that a bundle keeps, and those that an export checks
GOLDEN_REWARDS = 3
NUDGE, NUDGES = 1e-6, 4  # what rounding may do to an input, and how often it is tried
# Number of position coordinates -> name of a skill -> the direction in which it goes farthest of all.
DIRECTIONS: dict[int, dict[str, tuple[float, ...]]] = {
    1: {"forward": (1.0,), "backward": (-1.0,)},
    2: {
        name: (cos(i * pi / 4), sin(i * pi / 4))
        for i, name in enumerate(
            ("east", "north_east", "north", "north_west", "west", "south_west", "south", "south_east")
        )
    },
}

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Probes(NamedTuple):
    """What the agent itself does, (n, ...) each."""

    act: dict[str, np.ndarray]  # obs, z, action
    aim: dict[str, np.ndarray] | None  # goal, obs, z, the least sensitive first; None: it cannot be told goals
    reward: dict[str, np.ndarray] | None  # entry, z: of rewards that are an entry of next_obs; None: nor rewards
    demo: dict[str, np.ndarray] | None  # obs (t, obs) from all over one episode, z; None: nor demonstrations


class Seen(NamedTuple):
    """Transitions that rewards are told on."""

    steps: Transition  # (n, ...)
    words: dict[str, np.ndarray]  # what else is known of the states that they reached, (n,) by name


def make_policy(
    agent: Any,
    env: HostEnv,
    trajectory: Trajectory,
    key: jax.Array,
    provenance: dict[str, Any],
    *,
    seen: Seen | None = None,
    named: Mapping[str, np.ndarray] = MappingProxyType({}),
    features: tuple[str, ...] = (),
    prompts: Sequence[str] = (),
) -> tuple[SkillPolicy, Probes]:
    """The policy of an agent, and the agent's own inputs and outputs that it was checked with; it has no card yet.

    Args:
        env: what the agent was trained in; it will be reset.
        trajectory: episodes of the agent, one skill each: its observations and its named skills come from them.
        provenance: what the bundle tells of its origin, as JSON.
        seen: what the bundle brings along to be told rewards on; without it, it cannot be told what needs them.
        named: further skills, z (d,) by name.
        features: of the agent's observations, the names of those behind what `env` shows.
        prompts: rewards in words, which become named skills.

    Raises:
        UnsupportedPrompt: the agent cannot be exported.
        SkillError: the policy does not do what the agent does, to 1e-5, or a prompt cannot be told.
    """
    need(agent, "exportable")
    z, position, steps = agent.config.z, env.env_spec.position, _steps_of(trajectory)
    networks = agent.skill_networks(seen.steps if seen else steps)
    graphs = {role: graph for role in ROLES if (graph := getattr(networks, role, None)) is not None}
    rules = {kind: _possible(kind, getattr(networks, kind), seen) for kind in RULES}
    straight = networks.goal is not None and networks.goal.rule == "plan" and rules["goal"] != networks.goal
    probes = make_probes(agent.planning(0) if straight else agent, rules, trajectory, seen, key)
    tensors = _tensors(agent, graphs, networks, rules)
    about, transitions = _describe_seen(seen) if seen else (None, None)
    weights = hashlib.sha256(file_of(tensors)).hexdigest()
    skills = named_skills(trajectory, z.kind, position)
    skills |= {name: {"z": to_json(np.asarray(skill)), "displacement": None} for name, skill in named.items()}
    config: dict[str, Any] = {
        "format": FORMAT,
        **_contract(env, [steps, *([seen.steps] if seen else [])], features),
        "skill": {"kind": z.kind, "dim": z.dim},
        "skills": {name: {**skill, "told_by": None, "weights": weights} for name, skill in skills.items()},
        "networks": {role: [_describe(op) for op in graph] for role, graph in graphs.items()},
        "prompting": {kind: rule and _rule(rule) for kind, rule in rules.items()},
        "transitions": about,
        "golden": _golden(probes),
        "provenance": provenance,
    }
    policy = SkillPolicy(config, tensors, "", transitions)
    check_parity("NumPy policy", policy, policy.act, policy.aim, probes)
    check_prompts(policy, probes)
    if prompts:
        for words in prompts:
            told = {"z": to_json(np.asarray(policy.prompt(reward=words))), "told_by": f"reward {words}"}
            config["skills"][words] = {**told, "displacement": None, "weights": weights}
        policy = SkillPolicy(config, tensors, "", transitions)
    return policy, probes


def _contract(env: HostEnv, all_steps: Sequence[Transition], features: tuple[str, ...]) -> dict[str, Any]:
    """What config.json says of the environment, and between which numbers these steps saw it."""
    spec, model = env.env_spec, getattr(env, "model", None)
    low, high = (list(bound) for bound in zip(*(spec.action_bounds or ((-1.0, 1.0),) * spec.action_dim)))
    obs = np.concatenate([np.asarray(rows, np.float32) for steps in all_steps for rows in (steps.obs, steps.next_obs)])
    return {
        "env": spec.id,
        "control_dt": spec.control_dt,
        "observation": {
            "size": spec.obs_dim + len(features),
            "names": [*observation_names(spec, model), *features],
            "low": to_json(obs.min(axis=0)),
            "high": to_json(obs.max(axis=0)),
        },
        "action": {"size": spec.action_dim, "names": action_names(spec, model), "low": low, "high": high},
        "goal": None if features else goal_template(env),
    }


def _steps_of(trajectory: Trajectory) -> Transition:
    """The steps that count, (n, ...)."""
    return jax.tree.map(lambda x: x[trajectory.mask].astype(np.float32), trajectory.steps)


def _possible(kind: str, rule: Rule | None, seen: Seen | None) -> Rule | None:
    """The rule, or what is left of it without transitions."""
    if rule is None or seen is not None or "transitions" not in RULES[kind][rule.rule][0]:
        return rule
    return Rule("difference") if rule.rule == "plan" else None


def _tensors(
    agent: Any, graphs: dict[str, Graph], networks: SkillNetworks, rules: dict[str, Rule | None]
) -> dict[str, np.ndarray]:
    normalizer = agent.normalizer
    tensors = {"normalizer.mean": np.asarray(normalizer.mean), "normalizer.std": np.asarray(normalizer.std)}
    for role, graph in graphs.items():
        tensors |= _weights(role, graph)
    if rules["reward"] and "moves" in rules["reward"].options:
        tensors["prompting.moves"] = np.asarray(networks.moves, np.float32)
    return tensors


def _weights(role: str, graph: Graph) -> dict[str, np.ndarray]:
    return {f"{role}.{op.output}.{name}": np.asarray(x, np.float32) for op in graph for name, x in op.tensors.items()}


def _describe_seen(seen: Seen) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What config.json says of them, and the columns."""
    steps = seen.steps
    columns = {name: np.asarray(getattr(steps, name), np.float32) for name in ("obs", "action", "next_obs")}
    if seen.words:
        columns["words"] = np.stack([*seen.words.values()], axis=1).astype(np.float32)
    digest = hashlib.sha256(file_of(columns)).hexdigest()
    return {"count": len(columns["obs"]), "words": [*seen.words], "sha256": digest}, columns


def _golden(probes: Probes) -> dict[str, Any]:
    act = {key: to_json(_pick(values, GOLDEN_ROWS)) for key, values in probes.act.items()}
    aim = probes.aim and {key: to_json(values[:GOLDEN_ROWS]) for key, values in probes.aim.items()}
    told = probes.reward and {"entry": probes.reward["entry"].tolist(), "z": to_json(probes.reward["z"])}
    demo = {"demo": {key: to_json(values) for key, values in probes.demo.items()}} if probes.demo else {}
    return {"act": act, "aim": aim, "reward": told, **demo}


def add_controller(policy: SkillPolicy, controlled: Any, seen: np.ndarray, features: Sequence[str]) -> SkillPolicy:
    """A policy with a controller over its skills; it has no card yet.

    Args:
        controlled: `urlrl.adaptation.tuned.Controlled` of the agent that the policy was made of.
        seen: what the controller saw in its task, (n, obs + features).
        features: names of what the task shows behind an observation.

    Raises:
        SkillError: it does not choose as `controlled` does, to 1e-5.
    """
    graph, normalizer, config = controlled.network(), controlled.controller.normalizer, policy.config
    seen, observation = np.asarray(seen, np.float32), config["observation"]
    statistics = {"inputs.mean": np.asarray(normalizer.mean), "inputs.std": np.asarray(normalizer.std)}
    tensors = {**policy.tensors, **statistics, **_weights("controller", graph)}
    with jax.default_matmul_precision("highest"):
        probes = _surest(lambda rows: np.asarray(_choose(controlled, rows)), inputs=_pick(seen, PROBE_ROWS))
    golden = {name: to_json(rows[:GOLDEN_ROWS]) for name, rows in probes.items()}
    weights = hashlib.sha256(file_of(tensors)).hexdigest()
    rows = np.concatenate(
        [seen[:, : observation["size"]], np.array([observation["low"], observation["high"]], np.float32)]
    )
    config = {
        **config,
        "observation": {**observation, "low": to_json(rows.min(axis=0)), "high": to_json(rows.max(axis=0))},
        "skills": {name: {**skill, "weights": weights} for name, skill in config["skills"].items()},
        "networks": {**config["networks"], "controller": [_describe(op) for op in graph]},
        "controller": {"features": list(features), "hold": controlled.hold},
        "golden": {**config["golden"], "choose": golden},
    }
    made = SkillPolicy(config, tensors, "", policy.transitions and policy.transitions.tensors)
    _refuse_above(made.tolerance, np.abs(made.choose(probes["inputs"]) - probes["z"]).max(), "NumPy controller has a z")
    return made


@jax.jit
def _choose(controlled: Any, obs: jax.Array) -> jax.Array:
    return controlled.choose(obs, jax.random.key(0), 0.0)  # A mode is taken: nothing is drawn.


def make_probes(
    agent: Any, rules: dict[str, Rule | None], trajectory: Trajectory, seen: Seen | None, key: jax.Array
) -> Probes:
    """Observations of the episodes with what the agent makes of them, on any device in full float32 precision."""
    steps = _steps_of(trajectory)
    obs, z = _pick(steps.obs, PROBE_ROWS), _pick(steps.z, PROBE_ROWS)
    act_key, aim_key, reward_key, demo_key = jax.random.split(key, 4)
    known = seen.steps if seen else steps
    aim = reward = demo = None
    with jax.default_matmul_precision("highest"):
        act = {"obs": obs, "z": z, "action": np.asarray(_act(agent, obs, z, act_key))}
        if rules["goal"] is not None:
            aim = _aims(agent, rules["goal"], known, obs, aim_key)
        if rules["reward"] is not None and seen is not None:
            entries = np.argsort(-np.std(np.asarray(known.next_obs), axis=0))[:GOLDEN_REWARDS]
            rewards = jnp.asarray(known.next_obs)[:, entries].T
            reward = {"entry": entries, "z": np.asarray(_read_rewards(agent, known, reward_key, rewards))}
        if rules["demo"] is not None:
            episode = np.asarray(trajectory.steps.obs, np.float32)[trajectory.mask[:, 0], 0]
            episode = episode[np.linspace(0, len(episode) - 1, GOLDEN_ROWS).astype(int)]
            demo = {"obs": episode, "z": np.asarray(_follow(agent, known, demo_key, episode))}
    return Probes(act, aim, reward, demo)


def _aims(agent: Any, rule: Rule, known: Transition, obs: np.ndarray, key: jax.Array) -> dict[str, np.ndarray]:
    """Goals, observations and the agent's skills toward the goals, which are other observations."""

    def asked(goal: np.ndarray, obs: np.ndarray) -> np.ndarray:
        if rule.rule == "labels":
            others = np.asarray(known.obs)[: int(rule.numbers["group"][0]) - 1]
            return np.asarray(_label(agent, others, goal))
        return np.asarray(_aim(agent, known, jax.random.clone(key), goal, obs))  # The same draws each time.

    return _surest(asked, goal=np.roll(obs, 1, axis=0), obs=obs)  # Rows are in random order.


def _surest(asked: Callable[..., np.ndarray], **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Inputs (n, ...) with the skills "z" that are asked for: the half that is the least sensitive to rounding, and the
    least sensitive first. Where phi(goal) and phi(obs) nearly meet, or two one-hot skills tie, any float32 may differ.
    """
    rng, z = np.random.default_rng(0), asked(*inputs.values())
    moved = np.zeros(len(z))
    for _ in range(NUDGES):
        nudged = (x + NUDGE * x.std() * rng.standard_normal(x.shape, np.float32) for x in inputs.values())
        moved = np.maximum(moved, np.abs(asked(*nudged) - z).max(axis=1))
    sure = np.argsort(moved, kind="stable")[: max(1, len(moved) // 2)]
    return {name: values[sure] for name, values in {**inputs, "z": z}.items()}


@jax.jit
def _act(agent: Any, obs: jax.Array, z: jax.Array, key: jax.Array) -> jax.Array:
    action, _ = agent.act(obs, agent.begin(key, obs.shape[0], None, Each(Skill(z))), key, 0.0)
    return action


@jax.jit
def _aim(agent: Any, seen: Transition, key: jax.Array, goals: jax.Array, obs: jax.Array) -> jax.Array:
    return jax.vmap(lambda goal, at: agent.aim(agent.read(GoalPrompt(goal), seen, key), at))(goals, obs)


@jax.jit
def _label(agent: Any, others: jax.Array, goals: jax.Array) -> jax.Array:
    """Of an agent that reads a goal at other states, which it draws anew each time: at these."""
    return jax.vmap(lambda goal: agent.encode_goal(goal, others))(goals)


@jax.jit
def _follow(agent: Any, seen: Transition, key: jax.Array, demo: jax.Array) -> jax.Array:
    """The skill (d,) for a demonstration (t, obs)."""
    return agent.aim(agent.read(DemoPrompt(demo), seen, key), demo[0])


@jax.jit
def _read_rewards(agent: Any, steps: Transition, key: jax.Array, rewards: jax.Array) -> jax.Array:
    """The skills (m, d) for rewards (m, n) on these transitions."""

    def read(reward: jax.Array) -> jax.Array:
        return agent.aim(agent.read(RewardPrompt(steps._replace(reward=reward)), steps, key), steps.obs[0])

    return jax.vmap(read)(rewards)


def check_parity(what: str, policy: SkillPolicy, act: Act, aim: Act | None, probes: Probes) -> None:
    """Refuse functions whose outputs are not the agent's, to 1e-5. `aim` takes (goal, obs), where there is one. Of ways
    over neighbours one in fifty may differ, as those that are equally far may change places."""
    error = np.abs(act(probes.act["obs"], probes.act["z"]) - probes.act["action"]).max()
    _refuse_above(TOLERANCE, error, f"{what} has an action")
    if aim is not None and probes.aim:
        found = aim(probes.aim["goal"], probes.aim["obs"])
        errors, allowed = policy.apart(found, probes.aim["z"])
        others = len(errors) // 50 if policy.config["prompting"]["goal"]["rule"] == "plan" else 0
        _refuse_above(allowed, np.sort(errors)[-1 - others], f"{what} has an aim")


def _refuse_above(allowed: float, error: float, what: str) -> None:
    if not error <= allowed:
        raise SkillError(
            f"The {what} that differs from the agent's by {error:.2g}: expected at most {allowed:g}, so nothing was "
            f"written."
        )


def check_prompts(policy: SkillPolicy, probes: Probes) -> None:
    """Refuse a policy that is told another skill by a reward or a demonstration than the agent is."""
    if probes.reward:
        for entry, z in zip(probes.reward["entry"], probes.reward["z"]):
            found = policy.prompt(reward=policy.transitions.next_obs[:, entry])
            _refuse_above(ANGLE, turned(np.asarray(found), z), "NumPy policy has a skill for a reward")
    if probes.demo:
        found = policy.prompt(demo=probes.demo["obs"])
        error = turned(np.asarray(found), probes.demo["z"])
        _refuse_above(ANGLE, error, "NumPy policy has a skill for a demonstration")


def named_skills(trajectory: Trajectory, kind: str, position: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Name -> {"z", "displacement"}: of the skills in the episodes, those that lead farthest in each direction (if any
    lead there at all), and every one-hot skill by its index. Displacements are means over a skill's episodes."""
    if kind == "none":
        return {}
    lanes = trajectory.steps.z[0]
    z = np.eye(lanes.shape[1], dtype=np.float32) if kind == "onehot" else lanes
    runs = [(lanes == row).all(axis=1) for row in z]
    moved = _displacements(trajectory)

    def describe(i: int) -> dict[str, Any]:
        mean = None
        if moved is not None and runs[i].any():
            mean = dict(zip(position, moved[runs[i]].mean(axis=0, dtype=np.float64).round(3).tolist()))
        return {"z": to_json(z[i]), "displacement": mean}

    named = {}
    if moved is not None:
        means = np.array([moved[run].mean(axis=0) if run.any() else np.zeros(len(position)) for run in runs])
        for name, direction in DIRECTIONS.get(len(position), {}).items():
            along = means @ np.array(direction)
            nearest = along >= cos(pi / 8) * np.linalg.norm(means, axis=1)  # No other name is nearer to the skill.
            if (best := np.where(nearest, along, 0.0)).max() > 0:
                named[name] = describe(int(best.argmax()))
    if kind == "onehot":
        named |= {f"skill_{i}": describe(i) for i in range(len(z))}
    return named


def _displacements(trajectory: Trajectory) -> np.ndarray | None:
    """(n, p) from the start to the last step that counts; None without positions."""
    if trajectory.position is None:
        return None
    last = trajectory.mask.sum(axis=0)
    return trajectory.position[last, np.arange(len(last))] - trajectory.position[0]


def goal_template(env: HostEnv) -> dict[str, Any] | None:
    """A reset observation at the origin and which of its entries are the position; None where that cannot be said."""
    names = env.env_spec.position
    if not env.env_spec.goal_box:
        return None
    template = env.goal_obs(np.zeros((1, len(names))))[0].astype(np.float32)
    index = []
    for moved_to in np.eye(len(names)):
        moved = env.goal_obs(moved_to[None])[0].astype(np.float32)  # The same reset, moved by 1.
        changed = np.flatnonzero(moved != template)
        if len(changed) != 1 or moved[changed[0]] != 1:
            return None
        index.append(int(changed[0]))
    return {"names": list(names), "index": index, "template": to_json(template)}


def observation_names(spec: EnvSpec, model: mujoco.MjModel | None) -> list[str]:
    """Of the joints, where the observation is all of qpos and qvel; else numbers."""
    if model is None or not spec.obs_is_physics:
        return [f"obs_{i}" for i in range(spec.obs_dim)]
    axes = ("x", "y", "z")
    parts = {  # type of joint -> (names of its qpos entries, of its qvel entries)
        int(mujoco.mjtJoint.mjJNT_FREE): ([*axes, "qw", "qx", "qy", "qz"], [*axes, *(f"turn_{axis}" for axis in axes)]),
        int(mujoco.mjtJoint.mjJNT_BALL): (["qw", "qx", "qy", "qz"], [f"turn_{axis}" for axis in axes]),
    }
    names: dict[str, list[str]] = {"qpos": [], "qvel": []}
    for i in range(model.njnt):
        joint = model.joint(i).name or f"joint_{i}"
        for kind, entries in zip(names, parts.get(int(model.jnt_type[i]), ([""], [""]))):
            names[kind] += [f"{kind}/{joint}" + (f"/{entry}" if entry else "") for entry in entries]
    return names["qpos"] + names["qvel"]


def action_names(spec: EnvSpec, model: mujoco.MjModel | None) -> list[str]:
    if model is None:
        return [f"action_{i}" for i in range(spec.action_dim)]
    return [model.actuator(i).name or f"actuator_{i}" for i in range(spec.action_dim)]


def to_json(array: np.ndarray) -> Any:
    """Nested lists of floats, each the shortest decimal that is the same float32."""
    return [to_json(row) for row in array] if array.ndim else float(str(np.float32(array)))


def _describe(op: Op) -> dict[str, Any]:
    numbers = {name: list(values) for name, values in op.numbers.items()}
    return {"op": op.kind, "inputs": list(op.inputs), "output": op.output, "numbers": numbers}


def _rule(rule: Rule) -> dict[str, Any]:
    numbers = {name: [float(x) for x in values] for name, values in rule.numbers.items()}
    return {"rule": rule.rule, "options": list(rule.options), "numbers": numbers}


def _pick(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows from all over; the same ones of every array of this length."""
    return rows[np.random.default_rng(0).permutation(len(rows))[:count]]
