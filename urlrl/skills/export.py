"""An agent of the training library becomes a `SkillPolicy`, and proves that it acts as the agent does."""

from collections.abc import Callable, Mapping
from math import cos, pi, sin
from types import MappingProxyType
from typing import Any

import jax
import mujoco
import numpy as np

from urlrl.skills.policy import ACTIVATIONS, FORMAT, TOLERANCE, SkillError, SkillPolicy, forward
from urlrl.types import Each, EnvSpec, GoalPrompt, HostEnv, Layer, Skill, Trajectory, Transition, need

GOLDEN_ROWS, PROBE_ROWS = 16, 1024  # pairs that a bundle keeps, and those that an export checks
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

Probes = dict[str, dict[str, np.ndarray] | None]  # {"act": {obs, z, action}, "aim": {goal, obs, z} or None}, (n, ...)
Act = Callable[[np.ndarray, np.ndarray], np.ndarray]


def make_policy(
    agent: Any,
    env: HostEnv,
    trajectory: Trajectory,
    key: jax.Array,
    provenance: dict[str, Any],
    *,
    named: Mapping[str, np.ndarray] = MappingProxyType({}),
    features: tuple[str, ...] = (),
) -> tuple[SkillPolicy, Probes]:
    """The policy of an agent, and the agent's own inputs and outputs that it was checked with; it has no card yet.

    Args:
        env: what the agent was trained in; it will be reset.
        trajectory: episodes of the agent, one skill each: its observations and its named skills come from them.
        provenance: what the bundle tells of its origin, as JSON.
        named: further skills, z (d,) by name.
        features: of the agent's observations, the names of those behind what `env` shows.

    Raises:
        UnsupportedPrompt: the agent cannot be exported.
        SkillError: the policy does not do what the agent does, to 1e-5.
    """
    spec, z = env.env_spec, agent.config.z
    need(agent, "exportable")
    networks = agent.skill_networks()
    probes = make_probes(agent, networks.latent, trajectory, key)
    model = getattr(env, "model", None)
    low, high = (list(bound) for bound in zip(*(spec.action_bounds or ((-1.0, 1.0),) * spec.action_dim)))
    config = {
        "format": FORMAT,
        "env": spec.id,
        "control_dt": spec.control_dt,
        "observation": {"size": spec.obs_dim + len(features), "names": [*observation_names(spec, model), *features]},
        "action": {"size": spec.action_dim, "names": action_names(spec, model), "low": low, "high": high},
        "skill": {"kind": z.kind, "dim": z.dim},
        "skills": named_skills(trajectory, z.kind, spec.position)
        | {name: {"z": to_json(np.asarray(skill)), "displacement": None} for name, skill in named.items()},
        "goal": None if features else goal_template(env),
        "policy": _describe(networks.policy),
        "latent": _describe(networks.latent) if networks.latent else None,
        "golden": {name: part and {k: to_json(_pick(v, GOLDEN_ROWS)) for k, v in part.items()}
                   for name, part in probes.items()},
        "provenance": provenance,
    }  # fmt: skip
    normalizer = agent.normalizer
    tensors = {"normalizer.mean": np.asarray(normalizer.mean), "normalizer.std": np.asarray(normalizer.std)}
    for name, layers in {"policy": networks.policy, "latent": networks.latent or ()}.items():
        for i, layer in enumerate(layers):
            tensors |= {f"{name}.{i}.kernel": np.asarray(layer.kernel), f"{name}.{i}.bias": np.asarray(layer.bias)}
    policy = SkillPolicy(config, tensors, card="")
    check_parity("NumPy policy", policy.act, policy.aim, probes)
    return policy, probes


def make_probes(agent: Any, latent: tuple[Layer, ...] | None, trajectory: Trajectory, key: jax.Array) -> Probes:
    """Observations of the episodes with what the agent makes of them, on any device in full float32 precision.

    Goals are other observations of the episodes. Of these pairs only the half whose skill is the least sensitive to
    rounding is kept: where phi(goal) and phi(obs) nearly meet, or two one-hot skills tie, any float32 may differ.
    """
    seen = jax.tree.map(lambda x: x[trajectory.mask].astype(np.float32), trajectory.steps)
    obs, z = _pick(seen.obs, PROBE_ROWS), _pick(seen.z, PROBE_ROWS)
    act_key, read_key = jax.random.split(key)
    with jax.default_matmul_precision("highest"):
        act = {"obs": obs, "z": z, "action": np.asarray(_act(agent, obs, z, act_key))}
        if latent is None:
            return {"act": act, "aim": None}
        goal = np.roll(obs, 1, axis=0)  # Rows are in random order.
        aim = {"goal": goal, "obs": obs, "z": np.asarray(_aim(agent, goal, obs, seen, read_key))}
        layers = [(np.asarray(w), np.asarray(b), ACTIVATIONS[activation]) for w, b, activation in latent]
        dphi = forward(layers, np.array(agent.normalizer(goal))) - forward(layers, np.array(agent.normalizer(obs)))
    if agent.config.z.kind == "onehot":
        margin = np.diff(np.sort(dphi, axis=1)[:, -2:], axis=1)[:, 0]
    else:
        margin = np.linalg.norm(dphi, axis=1)
    sure = margin >= np.median(margin)
    return {"act": act, "aim": {name: rows[sure] for name, rows in aim.items()}}


@jax.jit
def _act(agent: Any, obs: jax.Array, z: jax.Array, key: jax.Array) -> jax.Array:
    action, _ = agent.act(obs, agent.begin(key, obs.shape[0], None, Each(Skill(z))), key, 0.0)
    return action


@jax.jit
def _aim(agent: Any, goals: jax.Array, obs: jax.Array, seen: Transition, key: jax.Array) -> jax.Array:
    return jax.vmap(lambda goal, at: agent.aim(agent.read(GoalPrompt(goal), seen, key), at))(goals, obs)


def check_parity(what: str, act: Act, aim: Act, probes: Probes) -> None:
    """Refuse functions whose outputs are not the agent's, to 1e-5; `aim` takes (goal, obs)."""
    parts = {"action": (act, "obs", "z", "action", probes["act"]), "aim": (aim, "goal", "obs", "z", probes["aim"])}
    for name, (function, first, second, output, rows) in parts.items():
        if rows is None:
            continue
        error = np.abs(function(rows[first], rows[second]) - rows[output]).max()
        if not error <= TOLERANCE:
            raise SkillError(
                f"The {what} has an {name} that differs from the agent's by {error:.2g}: expected at most "
                f"{TOLERANCE:g}, so nothing was written."
            )


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


def _describe(layers: tuple[Layer, ...]) -> dict[str, list]:
    sizes = [layers[0].kernel.shape[0], *(layer.kernel.shape[1] for layer in layers)]
    return {"sizes": sizes, "activations": [layer.activation for layer in layers]}


def _pick(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows from all over; the same ones of every array of this length."""
    return rows[np.random.default_rng(0).permutation(len(rows))[:count]]
