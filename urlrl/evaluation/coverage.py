"""Policy state coverage: how many unit cells of the floor the skills reach."""

import jax
import numpy as np

from urlrl.evaluation.rollout import Policy, rollout
from urlrl.types import HostEnv, Trajectory

PROTOCOL = "skill-coverage-v1"  # 48 deterministic episodes, one skill each, fresh resets, 1 m cells anchored at 0
EPISODES = 48
DEFAULT_STEPS = 200  # for environments without a time limit


def visited(trajectory: Trajectory) -> np.ndarray:
    """Every position of the episodes, start included: (points, p)."""
    assert trajectory.position is not None
    start, later = trajectory.position[0], trajectory.position[1:]
    return np.concatenate([start, later[trajectory.mask]])


def coverage(positions: np.ndarray) -> int:
    """Distinct 1 m cells, floor(position), of positions (points, p)."""
    return len(np.unique(np.floor(positions), axis=0))


def skill_rollout(env: HostEnv, policy: Policy, key: jax.Array, seed: int) -> Trajectory:
    """The protocol's episodes; `env` has EPISODES lanes."""
    return rollout(env, policy, key, seed, env.env_spec.episode_steps or DEFAULT_STEPS)
