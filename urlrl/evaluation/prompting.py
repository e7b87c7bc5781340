"""What an agent makes of one prompt: how well it reads a reward, and what it then does, beside the random policy."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from urlrl.data.demo import LARGEST
from urlrl.errors import UserError
from urlrl.evaluation.stats import mean_interval
from urlrl.streams import env_seed, stream
from urlrl.types import PlayEnv, RewardPrompt, Trajectory, Transition, need

EPISODES = 16  # what the command line watches
HELD_OUT = 0.2  # share of the labelled transitions that the agent is not shown, at least
LABELLED = 6_400  # at least so many are labelled: a prompt may be of few, what judges its reading is not

# What agents say of their predictions: the number in a few words, and why it is so.
RELIABILITY = {
    "too_low_by": (
        "about {size:.3g} too {side}",
        "Predictions are off by design: critics take the smaller of two values, and may count entropy. "
        "Trust their order.",
    ),
    "mean_m": (
        "mean M {value:.3g}, exact {exact:.3g}",
        "Predictions are too low by design: targets take the smaller of two M, whose mean is 1 / (1 - gamma) if M is "
        "exact. Trust their order.",
    ),
}

Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # physics (n, physics), action (n, act) -> (n,)


class Episodes(NamedTuple):
    """From the same starts."""

    agent: Trajectory
    random: Trajectory
    zero: Trajectory | None  # of action zero; None where actions are choices

    @property
    def by_name(self) -> dict[str, Trajectory]:
        """The agent's, and those of all baselines."""
        found = {"agent": self.agent, "random": self.random}
        return found if self.zero is None else found | {"zero action": self.zero}


def labelled_count(samples: int) -> int:
    """How many transitions to label, so that `samples` of them are shown and the others held out."""
    return max(round(samples / (1 - HELD_OUT)), LABELLED)


def read_reward(agent: Any, steps: Transition, samples: int, seed: int) -> tuple[Any, dict[str, Any]]:
    """The task that an agent makes of `samples` of these labelled transitions (n, ...), and how well it explains the
    others. Of too few, a share of HELD_OUT is not shown. More samples are the same ones, and further ones.

    Returns:
        the task, and {"samples", "held_out", "r2"}: all of them, how many were not shown, and 1 - residual / variance
        of the rewards of these, None where they are all equal.

    Raises:
        UnsupportedPrompt: the agent cannot be asked for rewards.
        UserError: all rewards that it would be shown are equal.
    """
    need(agent, "told")
    n = len(steps.reward)
    order = np.random.default_rng(env_seed(seed, "prompt, held out")).permutation(n)
    cut = np.split(order, [max(n - samples, 1, int(HELD_OUT * n))])
    held_out, shown = (jax.tree.map(lambda x, rows=rows: x[rows], steps) for rows in cut)
    if np.ptp(shown.reward) == 0:
        raise UserError(
            f"The reward is {shown.reward[0]:.6g} in all of {len(shown.reward):,} transitions that were drawn of the "
            f"run: expected one that differs between them."
        )
    task = agent.read(RewardPrompt(shown), shown, stream(seed, "prompt, read"))
    need(agent, "predicts")
    predicted = np.asarray(jax.jit(type(agent).predict_reward)(agent, task, held_out), np.float64)
    return task, {"samples": n, "held_out": len(predicted), "r2": r2(held_out.reward, predicted)}


def r2(targets: np.ndarray, predicted: np.ndarray) -> float | None:
    """1 - sum (targets - predicted)^2 / sum (targets - mean)^2, of (n,); None where the targets are all equal."""
    variation = np.square(targets - targets.mean()).sum()
    return float(1 - np.square(targets - predicted).sum() / variation) if variation > 0 else None


def rewards_along(trajectory: Trajectory, reward: Reward) -> np.ndarray:
    """(T, n): the reward of each state that was reached and the action that led there, NaN after an episode's end."""
    assert trajectory.physics is not None
    physics, action = trajectory.physics[1:], np.clip(trajectory.steps.action, -1.0, 1.0)
    found = np.full(trajectory.mask.shape, np.nan)
    found[trajectory.mask] = reward(physics[trajectory.mask], action[trajectory.mask])
    return found


def returns(rewards: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """(T, n) with NaN after an episode's end -> (n,): the sum of gamma^t r_t, t from 0."""
    return np.nansum(rewards * gamma ** np.arange(len(rewards))[:, None], axis=0)


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean of (n,) values, n >= 5, and its 95 % interval by Student's t."""
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high}


def predict(agent: Any, task: Any, played: Trajectory, seen: Transition, seed: int) -> dict[str, Any]:
    """What an agent expects of a reward, as a mean over the start states of the episodes in which it followed it, and
    what it says of its predictions, by the names of RELIABILITY. `seen` are transitions that it learned from."""
    start = played.steps.obs[0].astype(np.float32)
    predicted = np.asarray(jax.jit(type(agent).predict_return)(agent, task, start), np.float64)
    found: dict[str, jax.Array] = {}
    if "reliability" in agent.abilities:
        steps = jax.tree.map(lambda x: x[played.mask].astype(np.float32), played.steps)
        key = stream(seed, "prompt, reliability")
        found = jax.jit(type(agent).reliability)(agent, task, steps, seen, key)
    if strange := sorted(found.keys() - RELIABILITY):
        names = ", ".join(RELIABILITY)
        raise UserError(f"reliability of {type(agent).__name__} has '{strange[0]}': expected some of {names}.")
    reliability = {name: float(value) for name, value in found.items()}
    return {"predicted_return": float(predicted.mean()), "reliability": reliability}


def reliability_words(reliability: dict[str, float], gamma: float) -> list[tuple[str, str]]:
    """Of each number what it is, and why."""
    found = []
    for name, value in reliability.items():
        (brief, why), side = RELIABILITY[name], "low" if value >= 0 else "high"
        found.append((brief.format(value=value, size=abs(value), side=side, exact=1 / (1 - gamma)), why))
    return found


def return_metrics(
    agent: Any, task: Any, episodes: Episodes, reward: Reward, seen: Transition, seed: int
) -> dict[str, Any]:
    """Measured returns of both, and the agent's prediction at the start states.

    The prediction is discounted by the agent's gamma, as is one of the measurements, but it has no end: steps after an
    episode of T weigh `tail` = gamma^T of a return.
    """
    gamma = float(agent.gamma)
    rewards = {who: rewards_along(played, reward) for who, played in episodes.by_name.items()}
    steps = len(rewards["agent"])
    found: dict[str, Any] = {}
    for who, values in rewards.items():
        start = "" if who == "agent" else f"{who.split()[0]}_"
        found[f"{start}return"] = interval(returns(values))
        found[f"{start}discounted_return"] = interval(returns(values, gamma))
    predicted = predict(agent, task, episodes.agent, seen, seed)
    return found | {"gamma": gamma, **predicted, "episode_steps": steps, "tail": gamma**steps}


def distances(trajectory: Trajectory, position: np.ndarray) -> np.ndarray:
    """(T, n) metres from `position` (p,) after each control step; NaN after an episode's end."""
    assert trajectory.position is not None
    return np.where(trajectory.mask, np.linalg.norm(trajectory.position[1:] - position, axis=-1), np.nan)


def distances_to_demo(trajectory: Trajectory, demo: np.ndarray) -> np.ndarray:
    """(t, n) metres: how far apart the displacements from their own starts are of each episode and of a demonstration
    (> t, p), after each of the t control steps that both have; NaN after an episode's end."""
    assert trajectory.position is not None
    t = min(len(demo) - 1, len(trajectory.mask))
    moved = trajectory.position[1 : t + 1] - trajectory.position[:1]
    distance = np.linalg.norm(moved - (demo[1 : t + 1] - demo[:1])[:, None], axis=-1)
    return np.where(trajectory.mask[:t], distance, np.nan)


def demo_metrics(trajectory: Trajectory, demo: np.ndarray) -> dict[str, float | None]:
    """Means over episodes. `distance`: of `distances_to_demo`, over time, in metres; `cosine`: between the total
    displacements over the control steps that both have, None where either stands still."""
    distance = distances_to_demo(trajectory, demo)
    assert trajectory.position is not None
    last = np.minimum(trajectory.mask.sum(axis=0), len(distance))
    lanes = np.arange(len(last))
    mine, shown = trajectory.position[last, lanes] - trajectory.position[0], demo[last] - demo[0]
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(shown, axis=1)
    cosine = float(((mine * shown).sum(axis=1) / lengths).mean()) if (lengths > 1e-9).all() else None
    return {"distance": float(np.nanmean(distance, axis=0).mean()), "cosine": cosine}


# What a user gives.


def goal_position(goal: Mapping[str, float], names: tuple[str, ...]) -> np.ndarray:
    """(p,) metres."""
    for name, value in goal.items():
        if name not in names:
            raise UserError(f"The goal has the coordinate '{name}': expected {', '.join(names)}.")
        if not abs(value) <= LARGEST:
            raise UserError(f"The goal has {name} = {value}: expected a finite number of metres.")
    for name in names:
        if name not in goal:
            raise UserError(f"The goal has no {name}: expected {', '.join(names)}.")
    return np.array([goal[name] for name in names], np.float64)


def position_columns(env: PlayEnv) -> list[int]:
    """Where the observation shows the position: the entries that are a goal's coordinates, one for each."""
    box = np.asarray(env.env_spec.goal_box)
    places = np.random.default_rng(0).uniform(-box, box, (64, len(box)))
    obs = env.goal_obs(places)
    columns = []
    for coordinate in places.T:  # Some of the time: a goal in a wall is moved out of it.
        shown = np.flatnonzero((np.abs(obs - coordinate[:, None]) < 1e-4).mean(axis=0) > 0.1)
        columns += [int(i) for i in shown[:1]]
    return columns if len(columns) == len(box) else []
