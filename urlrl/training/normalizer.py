"""Observation statistics of random play, as METRA's published constants were made."""

import numpy as np

from urlrl.training.log import Progress
from urlrl.types import HostEnv

ROLLOUTS, STEPS = 10_000, 50  # METRA's
SHARE, FEWEST = 0.25, 20  # of the run's steps that its statistics may take; rollouts of a very short run


def rollouts_for(steps: int) -> int:
    """How many rollouts a run of so many steps is worth: all from 2,000,000 steps on."""
    return min(ROLLOUTS, max(FEWEST, int(SHARE * steps / STEPS)))


def fit_statistics(env: HostEnv, rollouts: int, seed: int, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, (obs,) each, over the first `STEPS` steps of episodes with uniform actions, at least
    `rollouts` of them.

    An episode that ends early stops counting there. A coordinate that never moved gets the standard deviation 1.
    """
    rng = np.random.default_rng(seed)
    count, total, squares = 0, np.zeros(env.env_spec.obs_dim), np.zeros(env.env_spec.obs_dim)
    env.reset(seed=seed)
    rounds = -(-rollouts // env.num_envs)
    budget = rounds * STEPS * env.num_envs
    for begun in range(rounds):
        env.reset()
        alive = np.ones(env.num_envs, bool)
        for step in range(STEPS):
            progress.update(f"fitting the normaliser  {(begun * STEPS + step) * env.num_envs:,}/{budget:,} steps")
            obs, _, terminated, truncated, _ = env.step(env.env_spec.random_actions(rng, env.num_envs))
            seen = obs[alive]
            count, total, squares = count + len(seen), total + seen.sum(axis=0), squares + np.square(seen).sum(axis=0)
            ended = terminated | truncated
            alive &= ~ended
            if ended.any():
                env.reset(options={"reset_mask": ended})
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean, np.where(std < 1e-6, 1.0, std)
