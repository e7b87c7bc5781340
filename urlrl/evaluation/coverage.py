"""Policy state coverage: how many unit cells of the floor the skills reach."""

from typing import Any

import jax
import numpy as np

from urlrl.cells import count_cells
from urlrl.evaluation.rollout import DEFAULT_STEPS, STILL, follow, rollout, uniform
from urlrl.streams import env_seed, stream
from urlrl.types import HostEnv, Trajectory

PROTOCOL = "skill-coverage-v1"  # 48 deterministic episodes, one skill each, fresh resets, 1 m cells anchored at 0
EPISODES = 48


def visited(trajectory: Trajectory) -> np.ndarray:
    """Every position of the episodes, start included: (points, p)."""
    assert trajectory.position is not None
    start, later = trajectory.position[0], trajectory.position[1:]
    return np.concatenate([start, later[trajectory.mask]])


def skill_episodes(env: HostEnv, agent: Any, key: jax.Array, seed: int) -> Trajectory:
    """The protocol's episodes of an agent; `env` has EPISODES lanes, `seed` is of their resets."""
    z_key, act_key = jax.random.split(key)
    policy = follow(agent, agent.config.z.spread(EPISODES, z_key))
    return rollout(env, policy, act_key, seed, env.env_spec.episode_steps or DEFAULT_STEPS)


def scored_episodes(env: HostEnv, agent: Any, seed: int) -> Trajectory:
    """The episodes that `score` counts: what a report of that score shows."""
    return skill_episodes(env, agent, stream(seed, "evaluate coverage"), env_seed(seed, "evaluate coverage"))


def score(env: HostEnv, agent: Any, seed: int) -> tuple[dict[str, Any], Trajectory]:
    """Coverage of the agent beside the random policy's, as JSON, and the agent's episodes; `env` has EPISODES lanes."""
    trajectory = scored_episodes(env, agent, seed)
    resets = env_seed(seed, "evaluate coverage")  # The same starts for both.
    steps = env.env_spec.episode_steps or DEFAULT_STEPS
    random = rollout(env, uniform(env.env_spec), stream(seed, "evaluate coverage, random"), resets, steps)
    points = visited(trajectory)
    assert trajectory.position is not None
    result = {
        "protocol": PROTOCOL,
        "episodes": EPISODES,
        "unit": "1 m cells",
        "agent": count_cells(points),
        "random": count_cells(visited(random)),
        STILL: count_cells(trajectory.position[0]),
        "min": points.min(axis=0).tolist(),
        "max": points.max(axis=0).tolist(),
    }
    return result, trajectory
