"""Statistics over seeds: means, areas under curves, intervals, shares.

How many values there are decides how they are summed up, in every table and in every picture: with 10 seeds or more by
the interquartile mean and a bootstrap interval, from 5 by the mean and Student's interval. Below 5 there is no
interval, but every value. A bootstrap of few values is too narrow: its 95 % intervals hold the centre of normal values
in 50, 74 and 91 % of all cases for 2, 3 and 5 of them, and in 93 % for 10.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2_000
STUDENT_FROM, BOOTSTRAP_FROM = 5, 10  # values
RULE = (
    "Over seeds: the mean with Student's 95 % interval; from 10 seeds the interquartile mean with a 95 % bootstrap "
    "interval; below 5 the mean without an interval, and every seed."
)
LEAST_ROOM = 0.2  # of the upper bound: with less between it and the baselines a share says nothing


class Estimate(NamedTuple):
    """A number and its 95 % interval, which is NaN where there are too few values."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def text(self, digits: int) -> str:
        """'4.2 [3.9, 4.6]'; '4.2' where there is no interval."""
        value, low, high = (f"{number:.{digits}f}" for number in self)
        return f"{value} [{low}, {high}]" if np.isfinite(self.low) else value

    def to_json(self) -> dict[str, float | None]:
        """By name; JSON knows no NaN, so a missing interval is None."""
        return {name: number if np.isfinite(number) else None for name, number in self._asdict().items()}

    @classmethod
    def from_json(cls, data: dict[str, float | None]) -> "Estimate":
        return cls(**{name: number for name, number in data.items() if number is not None})


def over_seeds(groups: Sequence[np.ndarray]) -> Estimate:
    """What groups of values, a task's seeds each, come to; see the rule above. The smallest group decides."""
    fewest = min(len(group) for group in groups)
    return iqm_interval(groups) if fewest >= BOOTSTRAP_FROM else _mean_of_groups(groups)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Values of several seeds, and what they come to, as JSON."""
    return {"values": values, "estimate": over_seeds([np.array(values, float)]).to_json()}


def shown(values: Sequence[float], digits: int) -> str:
    """`over_seeds` of one group as text: '4.2 [3.9, 4.6]', or of few values '4.2 (3.9, 4.5)'."""
    text = over_seeds([np.asarray(values, float)]).text(digits)
    if not 1 < len(values) < STUDENT_FROM:
        return text
    return f"{text} ({', '.join(f'{value:.{digits}f}' for value in values)})"


def improvement(better: np.ndarray, worse: np.ndarray, seed: int = 0) -> Estimate:
    """The probability that a value of `better` is greater than one of `worse`: the share of all pairs; a tie counts
    half (Agarwal et al., 2021). From 10 values of each on it has a bootstrap interval, stratified by setting."""
    better, worse = np.asarray(better, float), np.asarray(worse, float)
    value = float(_share_of_pairs(better, worse))
    if min(len(better), len(worse)) < BOOTSTRAP_FROM:
        return Estimate(value)
    rng = np.random.default_rng(seed)
    draws = _share_of_pairs(*(rng.choice(one, (RESAMPLES, len(one))) for one in (better, worse)))
    return Estimate(value, *(float(q) for q in np.quantile(draws, [0.025, 0.975])))


def _share_of_pairs(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """(*B, n), (*B, m) -> (*B,)."""
    gap = better[..., :, None] - worse[..., None, :]
    return (0.5 * (1 + np.sign(gap))).mean(axis=(-2, -1))


def share(score: float, baselines: Iterable[float], bound: float | None) -> float | None:
    """How far a score is from the best baseline, 0, to the upper bound, 1; below 0 it is worse than a baseline. None
    where no bound is known, or where it is so near to a baseline that a share says nothing."""
    best = max(baselines)
    if bound is None or bound - best < LEAST_ROOM * abs(bound) or bound <= best:
        return None
    return (score - best) / (bound - best)


def iqm(values: np.ndarray) -> float:
    """Mean of the middle half of all values (Agarwal et al., 2021): a quarter is cut off at either end, values at the
    cuts count by their share."""
    return float(_iqm_of_rows(np.asarray(values, float).ravel()))


def _iqm_of_rows(values: np.ndarray) -> np.ndarray:
    """(*B, n) -> (*B,)."""
    n = values.shape[-1]
    weights = np.minimum(np.arange(1, n + 1), 0.75 * n) - np.maximum(np.arange(n), 0.25 * n)
    return np.average(np.sort(values), axis=-1, weights=np.maximum(weights, 0))


def iqm_interval(groups: Sequence[np.ndarray], seed: int = 0) -> Estimate:
    """IQM over groups of values, a task's seeds each, with a stratified bootstrap interval; without one where a group
    has less than 10."""
    value = iqm(np.concatenate(groups))
    if min(len(group) for group in groups) < BOOTSTRAP_FROM:
        return Estimate(value)
    rng = np.random.default_rng(seed)
    draws = np.concatenate([rng.choice(group, (RESAMPLES, len(group))) for group in groups], axis=1)
    return Estimate(value, *(float(q) for q in np.quantile(_iqm_of_rows(draws), [0.025, 0.975])))


def mean_interval(values: np.ndarray) -> Estimate:
    """Mean with Student's interval; without one for less than 5 values."""
    return _mean_of_groups([np.asarray(values, float)])


def hits_interval(hits: np.ndarray) -> Estimate:
    """The share of hits (n,), each 0 or 1, with Wilson's interval, which never leaves [0, 1]."""
    found = stats.binomtest(int(np.sum(hits)), len(hits)).proportion_ci(method="wilson")
    return Estimate(float(np.mean(hits)), float(found.low), float(found.high))


def _mean_of_groups(groups: Sequence[np.ndarray]) -> Estimate:
    """Mean of the groups' means. Each group has a spread of its own; the smallest one's degrees of freedom count."""
    mean, fewest = float(np.mean([np.mean(group) for group in groups])), min(len(group) for group in groups)
    if fewest < STUDENT_FROM:
        return Estimate(mean)
    error = np.sqrt(sum(np.var(group, ddof=1) / len(group) for group in groups)) / len(groups)
    half = float(stats.t.ppf(0.975, fewest - 1) * error)
    return Estimate(mean, mean - half, mean + half)


def area(steps: np.ndarray, returns: np.ndarray, budget: int) -> float:
    """Mean return over [0, budget] of a curve that is linear between its points and constant beyond them; at points
    of one step the last counts."""
    steps, returns = np.asarray(steps, float), np.asarray(returns, float)
    last = np.append(np.diff(steps) > 0, True)
    steps, returns = steps[last], returns[last]
    inside = steps[(steps > 0) & (steps < budget)]
    grid = np.concatenate([[0.0], inside, [float(budget)]])
    return float(np.trapezoid(np.interp(grid, steps, returns), grid) / budget)
