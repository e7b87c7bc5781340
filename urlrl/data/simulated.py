"""What an environment says of stored states: its simulator is set to them."""

import numpy as np

from urlrl.data.validate import Simulated
from urlrl.types import HostEnv

PROBE_EPISODES, PROBE_STEPS = 2, 150
SAME = 1e-6  # relative and absolute


def simulated(env: HostEnv) -> Simulated | None:
    """What `env`, one lane that nobody else uses, shows of physics rows; None where its simulator cannot be set.

    Which entries of the observation, and whether the reward, are functions of the row, is found out: episodes of random
    actions are played, and what their own states do not give back is none (accelerations and forces; targets that
    are drawn anew in each episode).
    """
    played = _play(env)
    if env.place(played["physics"][0], played["action"][0]) is None:
        return None
    obs, reward = _replay(env, played["physics"], played["action"])
    shown = (np.abs(obs - played["obs"]) <= SAME * (1 + np.abs(played["obs"]))).all(axis=0)
    own = (np.abs(reward - played["reward"]) <= SAME * (1 + np.abs(reward))).all()

    def observe(physics: np.ndarray) -> np.ndarray:
        return _replay(env, physics, np.zeros((len(physics), env.env_spec.action_dim)))[0]

    return Simulated(
        env.env_spec.id, observe, shown, (lambda physics, action: _replay(env, physics, action)[1]) if own else None
    )


def _play(env: HostEnv) -> dict[str, np.ndarray]:
    """States that were reached, with the actions that led there: physics, action, obs, reward, (n, ...)."""
    rng, rows = np.random.default_rng(0), []
    for episode in range(PROBE_EPISODES):
        env.reset(seed=episode)
        for _ in range(PROBE_STEPS):
            action = rng.uniform(-1, 1, (1, env.env_spec.action_dim)).astype(np.float32)
            obs, reward, terminated, truncated, _ = env.step(action)
            rows.append({"physics": env.physics()[0], "action": action[0], "obs": obs[0], "reward": reward[0]})
            if terminated[0] or truncated[0]:
                break
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def _replay(env: HostEnv, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, obs) and (n,)."""
    found = [shown for row in zip(physics, action) if (shown := env.place(*row)) is not None]
    return np.stack([obs for obs, _ in found]), np.array([reward for _, reward in found])
