"""Statistics over seeds, against numbers computed by hand and SciPy; each has a wrong variant that must be caught."""

import numpy as np
import pytest
from scipy import stats

from urlrl.evaluation.stats import (
    Estimate,
    area,
    hits_interval,
    iqm,
    iqm_interval,
    mean_interval,
    over_seeds,
    share,
    shown,
)

# --- interquartile mean

# By hand: a quarter of n values is cut off at either end; the value at a cut counts by the share that is left of it.
IQMS = {
    (7,): 7.0,
    (1, 5): 3.0,
    (0, 6, 100): (0.25 * 0 + 6 + 0.25 * 100) / 1.5,  # 0.75 of the outer ones is cut off
    (1, 2, 4, 100): 3.0,
    (0, 1, 2, 10, 100): (0.75 * 1 + 2 + 0.75 * 10) / 2.5,
    (1, 2, 3, 4, 5, 6, 7, 1000): 4.5,
    (-50, 1, 2, 3, 3, 9, 11, 1000): (2 + 3 + 3 + 9) / 4,
}


def check_iqm(function):
    for values, expected in IQMS.items():
        for order in (values, values[::-1], np.roll(values, 2)):
            assert function(np.array(order)) == pytest.approx(expected), values


def test_iqm_equals_the_hand_computation():
    check_iqm(iqm)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
@pytest.mark.parametrize(
    "wrong",
    [
        np.median,
        np.mean,
        lambda x: stats.trim_mean(x, 0.25),  # cuts off whole values: for n = 5 one of 1.25
        lambda x: np.mean(x[(np.percentile(x, 25) <= x) & (x <= np.percentile(x, 75))]),
        lambda x: np.mean(x[len(x) // 4 : -(len(x) // 4) or None]),  # forgets to sort
    ],
    ids=["median", "mean", "whole values", "by percentiles", "unsorted"],
)
def test_what_is_no_iqm_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_iqm(wrong)


@pytest.mark.parametrize("n", [4, 8, 12, 40])
def test_iqm_is_the_trimmed_mean_where_a_quarter_is_a_whole_number(n):
    values = np.random.default_rng(n).standard_normal(n)
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_iqm_takes_any_shape_and_whole_numbers():
    assert iqm(np.array([[1, 2], [100, 4]])) == 3.0


# --- bootstrap


def test_the_bootstrap_of_few_values_is_missing_and_the_text_leaves_it_out():
    found = iqm_interval([np.array([3.0]), np.array([5.0])])
    assert np.isnan(iqm_interval([np.arange(9.0)]).low) and np.isfinite(iqm_interval([np.arange(10.0)]).low)
    assert found.value == 4.0 and np.isnan(found.low) and np.isnan(found.high)
    assert found.text(1) == "4.0" and Estimate(4.25, 4.0, 4.5).text(1) == "4.2 [4.0, 4.5]"


def test_an_estimate_is_strict_json_and_back():
    for found in (Estimate(1.0, 0.5, 1.5), Estimate(2.0)):
        assert Estimate.from_json(found.to_json()).text(2) == found.text(2)
    assert Estimate(2.0).to_json() == {"value": 2.0, "low": None, "high": None}


def test_the_bootstrap_draws_within_each_task():
    """Between tasks that differ greatly but whose seeds agree there is nothing uncertain."""
    same = [np.full(10, 0.0), np.full(10, 10.0), np.full(10, 1000.0)]
    assert iqm_interval(same) == Estimate(*[iqm(np.concatenate(same))] * 3)
    pooled = iqm_interval([np.concatenate(same)])  # The wrong variant: one stratum.
    assert pooled.high - pooled.low > 100


def test_the_bootstrap_is_repeatable_and_covers():
    """Of 95 % intervals for 40 normal values nearly all hold the true centre, and none is absurdly wide."""
    rng = np.random.default_rng(0)
    samples = rng.normal(5.0, 1.0, (60, 4, 10))
    found = [iqm_interval(list(sample)) for sample in samples]
    assert found[0] == iqm_interval(list(samples[0]))
    assert np.mean([low <= 5.0 <= high for _, low, high in found]) >= 0.85
    assert max(high - low for _, low, high in found) < 1.5
    assert all(low < value < high for value, low, high in found)


# --- the rule


def check_rule(function):
    """No interval below 5 values, Student's on the mean from 5, a bootstrap of the interquartile mean from 10."""
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 100.0])
    for n in (1, 2, 4):
        found = function([values[:n]])
        assert found.value == pytest.approx(values[:n].mean()) and np.isnan(found.low) and np.isnan(found.high)
    for n in (5, 9):
        expected = stats.ttest_1samp(values[:n], 0).confidence_interval(0.95)
        assert function([values[:n]]) == pytest.approx((values[:n].mean(), *expected))
    assert function([values]) == iqm_interval([values]) and function([values]).value == pytest.approx(4.5)


def test_the_number_of_values_decides_how_they_are_summed_up():
    check_rule(over_seeds)


@pytest.mark.parametrize(
    "wrong",
    [iqm_interval, lambda groups: mean_interval(groups[0]), lambda groups: Estimate(iqm(groups[0]))],
    ids=["always the bootstrap", "always Student's", "never an interval"],
)
def test_other_rules_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_rule(wrong)


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 5), (4, 5)])
def test_intervals_of_few_seeds_hold_the_centre_as_often_as_they_say(tasks, seeds):
    samples = np.random.default_rng(0).normal(5.0, 1.0, (300, tasks, seeds))
    found = [over_seeds(list(sample)) for sample in samples]
    assert np.mean([low <= 5.0 <= high for _, low, high in found]) >= 0.92
    if (tasks, seeds) == (1, 5):  # The wrong variant: a bootstrap of five values.
        draws = np.random.default_rng(1).integers(0, 5, (300, 500, 5))
        means = np.take_along_axis(samples, draws, axis=-1).mean(axis=-1)
        low, high = np.quantile(means, [0.025, 0.975], axis=1)
        assert np.mean((low <= 5.0) & (high >= 5.0)) < 0.9


def test_the_smallest_group_decides_and_each_has_a_spread_of_its_own():
    small, large = np.arange(5.0), 100 + 10 * np.arange(12.0)
    error = np.sqrt(small.var(ddof=1) / 5 + large.var(ddof=1) / 12) / 2
    half = stats.t.ppf(0.975, 4) * error
    assert over_seeds([small, large]) == pytest.approx((78.5, 78.5 - half, 78.5 + half))
    assert np.isnan(over_seeds([small[:4], large]).low)


def test_of_few_values_every_one_is_printed():
    assert shown([3.0, 5.0, 10.0], 1) == "6.0 (3.0, 5.0, 10.0)" and shown([3.0], 0) == "3"
    assert shown([1.0, 2.0, 3.0, 4.0, 5.0], 1) == "3.0 [1.0, 5.0]"


# --- shares


def check_share(function):
    """0 is the best baseline, 1 the bound; nothing where they are close."""
    assert function(103.0, [22.8, 19.5, 167.0], 796.0) == pytest.approx(-64 / 629)
    assert function(60.0, [20.0], 100.0) == pytest.approx(0.5)
    assert function(-20.0, [-40.0], -10.0) == pytest.approx(2 / 3)  # A return that is never above 0.
    assert function(900.0, [1000.0, 129.0], 984.0) is None  # Standing still earns more than the expert.
    assert function(90.0, [81.0], 100.0) is None and function(90.0, [80.0], 100.0) == pytest.approx(0.5)
    assert function(5.0, [1.0], None) is None and function(0.0, [0.0], 0.0) is None


def test_shares_are_from_the_best_baseline_to_the_bound():
    check_share(share)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda score, baselines, bound: None if bound is None else score / bound,
        lambda score, baselines, bound: share(score, [list(baselines)[0]], bound),
        lambda score, baselines, bound: share(score, [min(baselines)], bound),
    ],
    ids=["not subtracted", "the first baseline", "the weakest baseline"],
)
def test_shares_of_something_else_are_caught(wrong):
    with pytest.raises((AssertionError, ZeroDivisionError)):
        check_share(wrong)


# --- Student


def check_student(function):
    """Of 1, 2, 3, 3, 6: mean 3, sum of squares 4 + 1 + 0 + 0 + 9, deviation sqrt(14 / 4), t of 4 degrees 2.776445."""
    value, low, high = function(np.array([1.0, 2.0, 3.0, 3.0, 6.0]))
    half = 2.7764451051977934 * np.sqrt(14 / 4) / np.sqrt(5)
    assert (value, low, high) == pytest.approx((3.0, 3 - half, 3 + half))


def normal(values):
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def population(values):
    half = stats.t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def test_students_interval_equals_the_hand_computation():
    check_student(mean_interval)
    found = mean_interval(np.array([1.0, 2.0, 3.0, 3.0, 6.0]))
    assert found[1:] == pytest.approx(stats.ttest_1samp([1, 2, 3, 3, 6], 0).confidence_interval(0.95))


@pytest.mark.parametrize("wrong", [normal, population])
def test_too_narrow_intervals_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_student(wrong)


def test_few_differences_have_no_interval():
    found = mean_interval(np.array([2.0, 3.0, 4.0, 3.0]))
    assert np.isnan(found.low) and found.text(0) == "3"


# --- area under a curve

# (steps, returns, budget) -> mean over the budget, by hand
AREAS = [
    (([0, 10], [0, 10], 10), 5.0),
    (([0], [7], 10), 7.0),  # A prompt: known at once.
    (([0, 4, 10], [0, 8, 8], 10), (16 + 48) / 10),
    (([0, 5], [2, 4], 10), (15 + 20) / 10),  # constant behind the last point
    (([4, 10], [6, 12], 10), (24 + 54) / 10),  # and before the first
    (([0, 20], [0, 20], 10), 5.0),  # what lies beyond the budget counts for the slope alone
    (([0, 10, 30], [0, 10, 1000], 10), 5.0),
    (([0, 5, 5, 10], [0, 0, 10, 10], 10), (25 + 50) / 10),  # Two points of one step: the last one counts.
    (([0, 5, 5, 10], [10, 0, 10, 10], 10), 10.0),
    (([0, 0, 10], [100, 0, 10], 10), 5.0),
    (([12], [3], 10), 3.0),
]


def check_area(function):
    for (steps, returns, budget), expected in AREAS:
        assert function(np.array(steps), np.array(returns), budget) == pytest.approx(expected), (steps, returns)


def test_area_equals_the_hand_computation():
    check_area(area)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda steps, returns, budget: np.mean(returns),
        lambda steps, returns, budget: np.trapezoid(returns, steps) / budget,
        lambda steps, returns, budget: np.trapezoid(np.interp(np.arange(budget + 1), steps, returns)) / (budget + 1),
        lambda steps, returns, budget: area(np.r_[steps, budget], np.r_[returns, 0], budget),
    ],
    ids=["mean of points", "no ends", "one too many", "0 behind the last point"],
)
def test_what_is_no_area_is_caught(wrong):
    with pytest.raises(AssertionError):
        check_area(wrong)


def test_area_agrees_with_a_fine_grid():
    rng = np.random.default_rng(1)
    steps, returns = np.sort(rng.choice(np.arange(1, 90), 12, replace=False)), rng.standard_normal(12)
    middles = (np.arange(200_000) + 0.5) / 2_000
    assert area(steps, returns, 100) == pytest.approx(np.interp(middles, steps, returns).mean(), abs=1e-6)


def test_wilsons_interval_by_hand():
    """9 of 10: centre (0.9 + z^2/20) / (1 + z^2/10), half z sqrt(0.9 0.1 / 10 + z^2/400) / (1 + z^2/10)."""
    z = 1.959964
    centre, half = (0.9 + z**2 / 20) / (1 + z**2 / 10), z * np.sqrt(0.009 + z**2 / 400) / (1 + z**2 / 10)
    found = hits_interval(np.array([1.0] * 9 + [0.0]))
    assert found == pytest.approx((0.9, centre - half, centre + half), abs=1e-6)
    assert hits_interval(np.ones(50)).high == 1 and hits_interval(np.zeros(50)).low == 0
