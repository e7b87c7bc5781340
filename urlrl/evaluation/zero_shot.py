"""Zero-shot goal reaching: one goal per episode, the agent re-aims at every step."""

from typing import Any

import jax
import numpy as np

from urlrl.acting import to_goals
from urlrl.evaluation.rollout import DEFAULT_STEPS, STILL, Policy, acting, rollout, uniform
from urlrl.evaluation.stats import hits_interval, mean_interval
from urlrl.streams import env_seed, stream
from urlrl.types import HostEnv, Trajectory, Transition, need

PROTOCOL = "zero-shot-goals-v1"  # 50 goals, uniform in the environment's goal box; sampled actions; radii 3 and 1
NUM_GOALS = 50
RADII = (3, 1)  # metres


def draw_goals(goal_box: tuple[float, ...], num_goals: int, seed: int) -> np.ndarray:
    """(num_goals, p) positions, uniform in [-g, g] per coordinate."""
    half = np.asarray(goal_box)
    return np.random.default_rng(seed).uniform(-half, half, (num_goals, len(half)))


def goal_outcomes(trajectory: Trajectory, goals: np.ndarray) -> dict[str, np.ndarray]:
    """Of each of the goals (n, p), (n,). `hit_r`: ever within r; `end_r`: within r at the last step; `at_r`: share of
    the steps within r (strictly; the start does not count); `final_distance` and `closest_distance` in metres."""
    assert trajectory.position is not None
    return _outcomes(np.linalg.norm(trajectory.position[1:] - goals, axis=-1), trajectory.mask)


def _outcomes(distance: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Of distances (T, n), in metres."""
    assert distance.shape == mask.shape, (distance.shape, mask.shape)
    steps = mask.sum(axis=0)
    final = distance[steps - 1, np.arange(len(steps))]
    outcomes = {}
    for radius in RADII:
        inside = (distance < radius) & mask
        outcomes[f"hit_{radius}"] = inside.any(axis=0).astype(float)
        outcomes[f"end_{radius}"] = (final < radius).astype(float)
        outcomes[f"at_{radius}"] = inside.sum(axis=0) / steps
    closest = np.where(mask, distance, np.inf).min(axis=0)
    return outcomes | {"final_distance": final, "closest_distance": closest}


def goal_metrics(trajectory: Trajectory, goals: np.ndarray) -> dict[str, float]:
    """Means of `goal_outcomes` over goals."""
    return _means(goal_outcomes(trajectory, goals))


def _means(outcomes: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in outcomes.items()}


def reach_goals(
    env: HostEnv, agent: Any, goals: np.ndarray, seen: Transition | None, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """`goal_outcomes` of the agent, of the random policy, and of who stays at the start; `env` has one lane per goal
    (n, p).

    `seen` is a batch of transitions, for agents whose reading of a prompt needs data.

    Raises:
        UnsupportedPrompt: the agent cannot be asked for goals.
    """
    need(agent, "told")
    read_key, agent_key, random_key = jax.random.split(stream(seed, "goals"), 3)
    env.reset(seed=env_seed(seed, "goals, observed"))
    goal_obs = env.goal_obs(goals).astype(np.float32)
    tasks = to_goals(agent, goal_obs, seen, read_key)
    steps = env.env_spec.episode_steps or DEFAULT_STEPS

    def run(policy: Policy, key: jax.Array) -> Trajectory:
        return rollout(env, policy, key, env_seed(seed, "goals"), steps)

    random = run(uniform(env.env_spec), random_key)
    assert random.position is not None
    at_start = np.linalg.norm(random.position[0] - goals, axis=-1)
    return {
        "agent": goal_outcomes(run(acting(agent, tasks, temperature=1.0), agent_key), goals),
        "random": goal_outcomes(random, goals),
        STILL: _outcomes(np.broadcast_to(at_start, random.mask.shape), random.mask),
    }


def _interval(name: str, values: np.ndarray) -> list[float]:
    """95 %: Wilson's of what is hit or missed; else Student's, within what the score can be."""
    if name.startswith(("hit", "end")):
        return list(hits_interval(values)[1:])
    return np.clip(mean_interval(values)[1:], 0, 1 if name.startswith("at") else None).tolist()


def score(env: HostEnv, agent: Any, seen: Transition | None, seed: int) -> dict[str, Any]:
    """`reach_goals` on the protocol's goals, as JSON: means, their intervals, and every goal with its outcomes; `env`
    has NUM_GOALS lanes."""
    box = env.env_spec.goal_box
    goals = draw_goals(box, NUM_GOALS, env_seed(seed, "goals, drawn"))
    found = reach_goals(env, agent, goals, seen, seed)
    return {
        "protocol": PROTOCOL,
        "num_goals": NUM_GOALS,
        "goal_box": list(box),
        **{who: _means(outcomes) for who, outcomes in found.items()},
        "intervals": {
            who: {name: _interval(name, values) for name, values in outcomes.items()} for who, outcomes in found.items()
        },
        "goals": goals.tolist(),
        "outcomes": {
            who: {name: values.tolist() for name, values in outcomes.items()} for who, outcomes in found.items()
        },
    }
