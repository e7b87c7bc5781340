"""Zero-shot goal reaching: one goal per episode, the agent re-aims at every step."""

from typing import Any

import jax
import numpy as np

from urlrl.evaluation.rollout import DEFAULT_STEPS, Policy, acting, rollout, uniform
from urlrl.streams import env_seed, stream
from urlrl.types import Each, GoalPrompt, HostEnv, Trajectory, Transition, need

PROTOCOL = "zero-shot-goals-v1"  # 50 goals, uniform in the environment's goal box; sampled actions; radii 3 and 1
NUM_GOALS = 50
RADII = (3, 1)  # metres


def draw_goals(goal_box: tuple[float, ...], num_goals: int, seed: int) -> np.ndarray:
    """(num_goals, p) positions, uniform in [-g, g] per coordinate."""
    half = np.asarray(goal_box)
    return np.random.default_rng(seed).uniform(-half, half, (num_goals, len(half)))


def goal_metrics(trajectory: Trajectory, goals: np.ndarray) -> dict[str, float]:
    """Means over goals (n, p). `hit_r`: ever within r; `end_r`: within r at the last step; `at_r`: share of the steps
    within r (strictly; the start does not count); `final_distance` and `closest_distance` in metres."""
    assert trajectory.position is not None
    mask = trajectory.mask
    assert len(goals) == mask.shape[1], (goals.shape, mask.shape)
    distance = np.linalg.norm(trajectory.position[1:] - goals, axis=-1)  # (T, n)
    last = mask.sum(axis=0) - 1
    final = distance[last, np.arange(len(goals))]
    metrics = {}
    for radius in RADII:
        inside = (distance < radius) & mask
        metrics[f"hit_{radius}"] = float(inside.any(axis=0).mean())
        metrics[f"end_{radius}"] = float((final < radius).mean())
        metrics[f"at_{radius}"] = float((inside.sum(axis=0) / mask.sum(axis=0)).mean())
    metrics["final_distance"] = float(final.mean())
    metrics["closest_distance"] = float(np.where(mask, distance, np.inf).min(axis=0).mean())
    return metrics


def reach_goals(env: HostEnv, agent: Any, goals: np.ndarray, seen: Transition | None, seed: int) -> dict[str, dict]:
    """Goal metrics of the agent and of the random policy; `env` has one lane per goal (n, p).

    `seen` is a batch of transitions, for agents whose reading of a prompt needs data.

    Raises:
        UnsupportedPrompt: the agent cannot be asked for goals.
    """
    need(agent, "told")
    read_key, agent_key, random_key = jax.random.split(stream(seed, "goals"), 3)
    env.reset(seed=env_seed(seed, "goals, observed"))
    goal_obs = env.goal_obs(goals).astype(np.float32)
    tasks = jax.vmap(lambda goal: agent.read(GoalPrompt(goal), seen, read_key))(goal_obs)
    steps = env.env_spec.episode_steps or DEFAULT_STEPS

    def run(policy: Policy, key: jax.Array) -> dict[str, float]:
        return goal_metrics(rollout(env, policy, key, env_seed(seed, "goals"), steps), goals)

    return {
        "agent": run(acting(agent, Each(tasks), temperature=1.0), agent_key),
        "random": run(uniform(env.env_spec), random_key),
    }


def score(env: HostEnv, agent: Any, seen: Transition | None, seed: int) -> dict[str, Any]:
    """`reach_goals` on the protocol's goals, as JSON; `env` has NUM_GOALS lanes."""
    box = env.env_spec.goal_box
    scores = reach_goals(env, agent, draw_goals(box, NUM_GOALS, env_seed(seed, "goals, drawn")), seen, seed)
    return {"protocol": PROTOCOL, "num_goals": NUM_GOALS, "goal_box": list(box), **scores}
