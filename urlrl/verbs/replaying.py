"""What an environment says of stored states: its simulator is set to them."""

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from urlrl.data.validate import Simulated
from urlrl.types import HostEnv

PROBE_EPISODES, PROBE_STEPS = 2, 150
SAME = 1e-6  # relative and absolute

Place = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]  # physics, action -> observation, reward


def simulated(env: HostEnv) -> Simulated | None:
    """What `env`, one lane that nobody else uses, shows of physics rows; None where its simulator cannot be set.

    Which entries of the observation, and whether the reward, are functions of the row, is found out: episodes of random
    actions are played, and what their own states do not give back is none (accelerations and forces; targets that
    are drawn anew in each episode).
    """
    place = _placing(env)
    if place is None:
        return None
    played = _play(env)
    obs, reward = _replay(place, played["physics"], played["action"])
    shown = (np.abs(obs - played["obs"]) <= SAME * (1 + np.abs(played["obs"]))).all(axis=0)
    own = (np.abs(reward - played["reward"]) <= SAME * (1 + np.abs(reward))).all()

    def observe(physics: np.ndarray) -> np.ndarray:
        return _replay(place, physics, np.zeros((len(physics), env.env_spec.action_dim)))[0]

    return Simulated(
        env.env_spec.id, observe, shown, (lambda physics, action: _replay(place, physics, action)[1]) if own else None
    )


def _placing(env: HostEnv) -> Place | None:
    from urlrl.envs.dmc import DmcEnv
    from urlrl.envs.jaco import JacoEnv

    if isinstance(env, DmcEnv):
        return _dmc(env)
    if isinstance(env, JacoEnv):
        return _jaco(env)
    own = getattr(env, "place", None)
    return (lambda physics, action: (own(physics[None])[0], float("nan"))) if own else None


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


def _replay(place: Place, physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, obs) and (n,)."""
    found = [place(*row) for row in zip(physics, action)]
    return np.stack([obs for obs, _ in found]), np.array([reward for _, reward in found])


def _set(model: mujoco.MjModel, data: mujoco.MjData, physics: np.ndarray, control: np.ndarray) -> None:
    data.qpos[:], data.qvel[:], data.act[:] = np.split(physics, np.cumsum([model.nq, model.nv]))
    data.ctrl[:] = control
    mujoco.mj_forward(model, data)


def _dmc(env: Any) -> Place:
    lane = env._lanes[0]

    def place(physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float]:
        _set(lane.model, lane.data, physics, env._to_bounds(action))
        return env._observe(lane), env.task.get_reward(lane.physics)

    return place


def _jaco(env: Any) -> Place:
    data = env._data[0]

    def place(physics: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, float]:
        _set(env.model, data, physics, env._middle + env._half * action)
        return env._read(data), float("nan")  # Its tasks are in `urlrl.tasks`.

    return place
