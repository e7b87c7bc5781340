"""Where an agent spends its time in an environment with noise. The true state says it, never what is seen."""

from typing import Any, NamedTuple

import numpy as np

from urlrl.cells import count_cells
from urlrl.evaluation.rollout import DEFAULT_STEPS, Policy, acting, rollout, uniform
from urlrl.streams import env_seed, stream
from urlrl.types import EnvSpec, PlayEnv, Trajectory

PROTOCOL = "whereabouts-v1"  # 48 episodes that the agent plays as in training: told nothing, actions are sampled
EPISODES = 48
PLAYERS = ("explore", "control")  # who acts, where z is one-hot over two and changes within an episode
NOISY, SILENT, SWITCHED_OFF = -1, 0, 1  # what "noise" is in a physics row
AT_THE_END = ("off", "pressed", "rooms_visited")  # parts of physics that count from an episode's start
ROWS = {  # score -> what it is, in the order of tables
    "cells": "cells visited per episode",
    "noise": "share of time in noise",
    "noise_explore": "share of Explore's time in noise",
    "noise_control": "share of Control's time in noise",
    "off": "noise sources switched off at the end",
    "pressed": "noise sources whose switch was used",
    "rooms_visited": "rooms visited per episode",
}
COUNTS = ("cells", "rooms_visited")  # the others are shares


class Episodes(NamedTuple):
    agent: Trajectory
    random: Trajectory  # of the random policy, from the same starts


class Steps(NamedTuple):
    """What some steps reached."""

    position: np.ndarray  # (k, p)
    physics: np.ndarray  # (k, physics)


def has_noise(spec: EnvSpec) -> bool:
    """Whether an environment says where noise is; only of such ones is there anything to measure."""
    return bool(spec.position) and "noise" in dict(spec.physics)


def play(env: PlayEnv, agent: Any, seed: int) -> Episodes:
    """The protocol's episodes; `env` has EPISODES lanes."""
    spec, name = env.env_spec, "evaluate whereabouts"

    def episodes(policy: Policy, use: str) -> Trajectory:
        return rollout(env, policy, stream(seed, use), env_seed(seed, name), spec.episode_steps or DEFAULT_STEPS)

    return Episodes(episodes(acting(agent, temperature=1.0), name), episodes(uniform(spec), f"{name}, random"))


def score(episodes: Episodes, spec: EnvSpec) -> dict[str, Any]:
    """The scores of both, as JSON: those of ROWS that the environment and the agent have."""
    agent, random = (measure(trajectory, spec) for trajectory in episodes)
    return {"protocol": PROTOCOL, "episodes": episodes.agent.mask.shape[1], "agent": agent, "random": random}


def measure(trajectory: Trajectory, spec: EnvSpec) -> dict[str, float]:
    """Scores by the names of ROWS. Time is steps, by the state that each has reached; what counts from an episode's
    start is taken at its end, as a mean over episodes."""
    assert trajectory.position is not None and trajectory.physics is not None
    lengths = trajectory.mask.sum(axis=0)
    cells = [count_cells(trajectory.position[: end + 1, lane]) for lane, end in enumerate(lengths)]
    scores = {"cells": float(np.mean(cells)), "noise": _noisy(trajectory, trajectory.mask, spec)}
    for name, mask in turns(trajectory).items():
        scores[f"noise_{name}"] = _noisy(trajectory, mask, spec)
    last = trajectory.physics[lengths, np.arange(len(lengths))]
    parts = [name for name in AT_THE_END if name in dict(spec.physics)]
    return scores | {name: float(last[:, spec.physics_part(name)].mean()) for name in parts}


def turns(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """By player the steps that it took, (T, n), bool; nothing where there are no two players."""
    z, mask = np.asarray(trajectory.steps.z), trajectory.mask
    onehot = z.shape[-1] == len(PLAYERS) and ((z == 0) | (z == 1)).all() and (z.sum(axis=-1) == 1).all()
    if not onehot or not (mask[1:] & (z[1:] != z[:-1]).any(axis=-1)).any():
        return {}
    return {name: mask & (z[..., player] == 1) for player, name in enumerate(PLAYERS)}


def steps(episodes: Episodes) -> dict[str, Steps]:
    """What the steps have reached of whom a picture shows: of both players, or of the agent, and of the random
    policy."""
    agent, random = episodes
    shown = {name: _reached(agent, mask) for name, mask in turns(agent).items()} or {"agent": _reached(agent)}
    return shown | {"random policy": _reached(random)}


def _reached(trajectory: Trajectory, mask: np.ndarray | None = None) -> Steps:
    assert trajectory.position is not None and trajectory.physics is not None
    mask = trajectory.mask if mask is None else mask
    return Steps(trajectory.position[1:][mask], trajectory.physics[1:][mask])


def _noisy(trajectory: Trajectory, mask: np.ndarray, spec: EnvSpec) -> float:
    """The share of these steps that ended in noise."""
    return float((_reached(trajectory, mask).physics[:, spec.physics_part("noise")] == NOISY).mean())


def rows(scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The rows of a table: what it is, of the agent and of the random policy, which is no two players."""

    def shown(who: str, name: str) -> str:
        value = scores[who].get(name)
        return "" if value is None else f"{value:.1f}" if name in COUNTS else f"{100 * value:.1f} %"

    return [(ROWS[name], shown("agent", name), shown("random", name)) for name in ROWS if name in scores["agent"]]
