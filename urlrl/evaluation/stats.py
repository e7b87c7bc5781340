"""Statistics over seeds: interquartile means, areas under curves, intervals."""

from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2_000


class Estimate(NamedTuple):
    """A number and its 95 % interval; the interval is NaN for a single value."""

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


def iqm(values: np.ndarray) -> float:
    """Mean of the middle half of all values (Agarwal et al., 2021): a quarter is cut off at either end, values at the
    cuts count by their share."""
    return float(_iqm_of_rows(np.asarray(values, float).ravel()))


def _iqm_of_rows(values: np.ndarray) -> np.ndarray:
    """(*B, n) -> (*B,)."""
    n = values.shape[-1]
    weights = np.minimum(np.arange(1, n + 1), 0.75 * n) - np.maximum(np.arange(n), 0.25 * n)
    return np.average(np.sort(values), axis=-1, weights=np.maximum(weights, 0))


def iqm_interval(groups: list[np.ndarray], seed: int = 0) -> Estimate:
    """IQM over groups of values, a task's seeds each, with a stratified bootstrap interval."""
    value = iqm(np.concatenate(groups))
    if max(len(group) for group in groups) < 2:
        return Estimate(value)
    rng = np.random.default_rng(seed)
    draws = np.concatenate([rng.choice(group, (RESAMPLES, len(group))) for group in groups], axis=1)
    return Estimate(value, *(float(q) for q in np.quantile(_iqm_of_rows(draws), [0.025, 0.975])))


def mean_interval(values: np.ndarray) -> Estimate:
    """Mean of paired differences, one per seed, with Student's interval: wider for few seeds than a bootstrap's."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean)
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
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
