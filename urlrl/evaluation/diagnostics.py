"""What coverage does not say about skills: how many lead apart, how many lead nowhere, whether they can be told apart,
and what the representation measures. docs/metrics.md has the formulas and where they come from."""

from math import cos, pi, radians
from typing import Any

import jax
import numpy as np
from scipy.stats import rankdata

from urlrl.acting import Flat
from urlrl.types import EnvSpec, Trajectory, Transition

PROTOCOL = "skill-diagnostics-v1"  # on the episodes of skill-coverage-v1
RADIUS, OF_GOAL_BOX = 3.0, 0.25  # within so many m, or so much of the goal box's half width, two places are one
DIRECTIONS, CONE = 24, 60  # directions of the plane; degrees within which a skill leads in one
TIMES = 32  # states of an episode, evenly spaced, whose distances are compared with time
MANY_DEAD, FEW_DIRECTIONS = 1 / 3, 0.9  # shares: with more dead skills, or fewer directions led, there is a warning
ROWS = {  # score -> what it is called, and what it says
    "distinct_skills": (
        "Distinct skills",
        "{distinct_skills:.0f} of {skills} skills move more than {radius:g} m, to places as far from each other.",
    ),
    "dead_skills": ("Dead skills", "{dead_skills:.0f} of {skills} skills move less than {radius:g} m on average."),
    "directions": (
        "Directions with a skill",
        "In {directions:.0f} % of the directions of the plane, the skill that goes farthest that way leads within "
        "{cone}° of it.",
    ),
    "discriminability": (
        "Skill told from the last observation",
        "In {discriminability:.0f} % of the episodes, the other episode whose last observation is nearest has the same "
        "skill, or else the most similar one. Chance is {chance:.0f} %.",
    ),
    "discriminability_position": (
        "Skill told from the move",
        "In {discriminability_position:.0f} % of the episodes, the other one that moved most alike has such a skill.",
    ),
    "effective_rank": (
        "Effective rank",
        "The states of these episodes use {effective_rank:.2f} of the {latent_dim} dimensions of the representation.",
    ),
    "time_correlation": (
        "Latent distance and time",
        "Within an episode, the distance of two states in the representation has a rank correlation of "
        "{time_correlation:.2f} with the number of steps between them.",
    ),
    "constraint": (
        "Constraint",
        "The constraint on the representation holds where its value is 0 or more; the mean over all steps is "
        "{constraint:.3f}.",
    ),
}
COUNTS = ("distinct_skills", "dead_skills")
SHARES = ("directions", "discriminability", "discriminability_position", "chance")  # shown in per cent


# Of arrays.


def effective_rank(latent: np.ndarray) -> float:
    """RankMe (Garrido et al., 2023) of (k, d), about its mean: exp of the entropy of the singular values' shares; from
    1 to d, and NaN where all rows are the same."""
    rows = np.asarray(latent, np.float64)
    rows = rows - rows.mean(axis=0)
    if np.abs(rows).max() <= 1e-6 * np.abs(latent).max():  # what float32 leaves of no difference
        return float("nan")
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(rows.T @ rows), 0))
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def time_correlation(latent: np.ndarray, lengths: np.ndarray) -> float:
    """Spearman's correlation of |phi(s_i) - phi(s_j)| with |i - j|, over pairs of states of one episode; NaN where one
    of them is the same for all pairs.

    Args:
        latent: (T + 1, n, d), of n episodes.
        lengths: (n,), steps of each episode.
    """
    distances, gaps = [], []
    for lane, length in enumerate(lengths):
        times = np.unique(np.linspace(0, length, TIMES).round().astype(int))
        first, second = np.triu_indices(len(times), 1)
        phi = latent[times, lane]
        distances.append(np.linalg.norm(phi[second] - phi[first], axis=-1))
        gaps.append(times[second] - times[first])
    ranks = rankdata([np.concatenate(distances), np.concatenate(gaps)], axis=1)
    return float(np.corrcoef(ranks)[0, 1]) if ranks.std(axis=1).all() else float("nan")


def per_skill(z: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(skills, ...): the mean of values (n, ...) over the episodes of each skill, of z (n, d)."""
    skills, index = np.unique(z, axis=0, return_inverse=True)
    return np.stack([values[index.reshape(-1) == skill].mean(axis=0) for skill in range(len(skills))])


def count_distinct(places: np.ndarray, radius: float) -> int:
    """How many of the places (k, p) are farther than `radius` from each other, each next one being the farthest from
    those before; another choice may find more."""
    count, nearest = 0, np.full(len(places), np.inf)
    while (nearest > radius).any():
        nearest = np.minimum(nearest, np.linalg.norm(places - places[nearest.argmax()], axis=-1))
        count += 1
    return count


def discriminability(z: np.ndarray, ends: np.ndarray) -> tuple[float, float]:
    """(share, chance) of episodes whose nearest other end, of (n, p), has the nearest other skill, of z (n, d). That is
    the same skill where it has several episodes. Of equally near ends each counts its part. The share is NaN where all
    skills are equally near to each other: nothing can be told then."""
    skill, near = (_is_nearest(values) for values in (z, ends))
    chance = float(skill.sum(axis=1).mean() / (len(z) - 1))
    if not np.isfinite(ends).all():
        return float("nan"), chance
    share = float(((skill & near).sum(axis=1) / near.sum(axis=1)).mean())
    return (share if chance < 1 else float("nan")), chance


def _is_nearest(points: np.ndarray) -> np.ndarray:
    """(n, n), bool: whether the second of these points is one of the nearest to the first."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return distance <= distance.min(axis=1, keepdims=True)


def directions_led(moves: np.ndarray) -> float:
    """The share of directions of the plane whose best skill, which goes farthest that way, leads within 60 degrees; of
    skills that move by (k, 2)."""
    if not len(moves):
        return 0.0
    angles = (np.arange(DIRECTIONS) + 0.5) * 2 * pi / DIRECTIONS
    along = np.stack([np.cos(angles), np.sin(angles)], axis=-1) @ moves.T
    best = along.argmax(axis=1)
    return float((along.max(axis=1) >= cos(radians(CONE)) * np.linalg.norm(moves[best], axis=-1)).mean())


def radius_of(spec: EnvSpec) -> float:
    """In the unit of EnvSpec.position: 3 m, or a quarter of the goal box's half width where that is less."""
    return min([RADIUS, *(OF_GOAL_BOX * half for half in spec.goal_box)])


# Of an agent's episodes.


@jax.jit
def _latent(flat: Flat, obs: Any) -> jax.Array:
    return flat.agent().latent(obs)


@jax.jit
def _constraint(flat: Flat, batch: Transition) -> jax.Array:
    return flat.agent().constraint(batch)


def latents(agent: Any, trajectory: Trajectory) -> np.ndarray | None:
    """phi along the episodes, (T + 1, n, d); None for an agent without one."""
    if "latent" not in agent.abilities:
        return None
    obs = np.concatenate([trajectory.steps.obs[:1], trajectory.steps.next_obs]).astype(np.float32)
    return np.asarray(_latent(Flat(agent), obs))


def diagnose(agent: Any, trajectory: Trajectory, spec: EnvSpec) -> dict[str, Any] | None:
    """The diagnostics of episodes that each follow one skill, as JSON; None for an agent without skills. A score is
    missing where there is nothing to measure it on, and where it is no finite number."""
    z = np.asarray(trajectory.steps.z[0])
    if not z.shape[-1]:
        return None
    lengths, latent = trajectory.mask.sum(axis=0), latents(agent, trajectory)
    told, chance = discriminability(z, _standardized(trajectory.steps.next_obs[lengths - 1, np.arange(len(z))]))
    scores = {"discriminability": told} | of_places(trajectory, spec)
    happened = np.arange(len(trajectory.mask) + 1)[:, None] <= lengths
    if latent is not None and np.isfinite(latent[happened]).all():
        scores["effective_rank"] = effective_rank(latent[happened])
        scores["time_correlation"] = time_correlation(latent, lengths)
    if "constrained" in agent.abilities:
        steps = jax.tree.map(np.float32, trajectory.steps)
        scores["constraint"] = float(np.asarray(_constraint(Flat(agent), steps))[trajectory.mask].mean())
    return {
        "protocol": PROTOCOL, "episodes": len(z), "skills": len(np.unique(z, axis=0)), "radius": radius_of(spec),
        "chance": chance, "latent_dim": None if latent is None else latent.shape[-1],
        "scores": {name: scores[name] for name in ROWS if name in scores and np.isfinite(scores[name])},
    }  # fmt: skip


def of_places(trajectory: Trajectory, spec: EnvSpec) -> dict[str, float]:
    """The scores that need positions; none where there are none. All are of moves, from each episode's own start, so
    that it does not matter where episodes start."""
    z, lengths = np.asarray(trajectory.steps.z[0]), trajectory.mask.sum(axis=0)
    if trajectory.position is None:
        return {}
    moves = trajectory.position[lengths, np.arange(len(z))] - trajectory.position[0]
    if not np.isfinite(moves).all():
        return {}
    led, radius = per_skill(z, moves), radius_of(spec)
    led = led[np.linalg.norm(led, axis=-1) > radius]
    scores = {
        "distinct_skills": float(count_distinct(led, radius)),
        "dead_skills": float(len(np.unique(z, axis=0)) - len(led)),
        "discriminability_position": discriminability(z, moves)[0],
    }
    if len(spec.position) == 2:
        scores["directions"] = directions_led(led)
    return scores


def _standardized(rows: np.ndarray) -> np.ndarray:
    """Rows (n, k) in units of each column's standard deviation; a column that is the same everywhere says nothing."""
    scale = rows.std(axis=0)
    return rows[:, scale != 0] / scale[scale != 0]  # A column with a NaN is kept.


# In words.


def sentences(diagnostics: dict[str, Any]) -> dict[str, str]:
    """What is measured -> what it says, one sentence or two."""
    values = {**diagnostics, **diagnostics["scores"]}
    values |= {name: 100 * values[name] for name in SHARES if values.get(name) is not None}
    return {label: text.format(cone=CONE, **values) for name, (label, text) in ROWS.items() if name in values}


def warnings(diagnostics: dict[str, Any]) -> list[str]:
    """A sentence for each score that says that something is wrong."""
    scores = diagnostics["scores"]
    found = []
    if scores.get("dead_skills", 0) > MANY_DEAD * diagnostics["skills"]:
        found.append("More than a third of the skills are dead.")
    if scores.get("directions", 1) < FEW_DIRECTIONS:
        found.append("More than a tenth of the directions have no skill. The representation may fold the plane.")
    if scores.get("constraint", 0) < 0:
        found.append("The constraint on the representation is broken on average.")
    return found
