"""Search over skills by returns: how often each is tried, what is found, what is refused."""

import numpy as np
import pytest

from urlrl.adaptation.config import SearchConfig
from urlrl.adaptation.search import search
from urlrl.errors import UserError
from urlrl.learners.skills import SkillSpace
from urlrl.streams import stream

SPHERE, GAUSSIAN, ONEHOT = SkillSpace("sphere", 3), SkillSpace("gaussian", 3), SkillSpace("onehot", 6)
TARGET = np.array([2.0, -1.0, 2.0]) / 3


class Tries:
    """Returns of skills, and a note of every call."""

    def __init__(self, returns):
        self.returns, self.calls = returns, []

    def __call__(self, skills):
        self.calls.append(skills)
        return self.returns(skills, len(self.calls))


def along(skills, call):
    return skills @ TARGET


def run(config, space, returns, name="search"):
    tries = Tries(returns)
    return list(search(config, space, stream(0, name), tries)), tries.calls


def assert_finds_the_best(found, calls, population):
    """The better half goes on in each round, and the last one is the best of the first round."""
    assert [len(call) for call in calls] == [population // 2**i for i in range(population.bit_length())]
    best = calls[0][np.argmax(calls[0] @ TARGET)]
    assert np.array_equal(found[-1].z, best)
    assert found[-1].score == pytest.approx(best @ TARGET, abs=1e-6)
    for before, after in zip(calls, calls[1:]):
        order = np.argsort(-(before @ TARGET))[: len(after)]
        assert np.array_equal(after, before[order])


@pytest.mark.parametrize("space", [SPHERE, GAUSSIAN])
def test_halving_finds_the_best_of_its_skills(space):
    found, calls = run(SearchConfig(population=32), space, along)
    assert_finds_the_best(found, calls, 32)
    assert sum(map(len, calls)) == 63 and len(found) == len(calls) == 6
    with pytest.raises(AssertionError):  # A search that keeps the worse half.
        assert_finds_the_best(*run(SearchConfig(population=32), space, lambda z, call: -along(z, call)), 32)


def test_halving_judges_by_the_mean_of_all_its_tries():
    """Skill i returns i, but in the first round skill 2 has the luck of 5 more."""
    index = SkillSpace("onehot", 4)

    def lucky(skills, call):
        return skills @ np.arange(4.0) + (5 * skills[:, 2] if call == 1 else 0)

    found, calls = run(SearchConfig(population=32), index, lucky)
    assert [int(f.z.argmax()) for f in found] == [2, 2, 2]
    assert [f.score for f in found] == pytest.approx([7, (7 + 2) / 2, (7 + 2 + 2) / 3])
    assert [np.flatnonzero(call.sum(axis=0)).tolist() for call in calls] == [[0, 1, 2, 3], [2, 3], [2]]


def test_halving_overcomes_noise():
    noise = np.random.default_rng(0)
    found, _ = run(SearchConfig(population=64), SPHERE, lambda z, call: along(z, call) + noise.normal(0, 0.3, len(z)))
    assert found[-1].z @ TARGET > 0.7


@pytest.mark.parametrize(("population", "sizes"), [(32, [6, 3, 1]), (4, [4, 2, 1]), (7, [6, 3, 1])])
def test_halving_tries_each_index_once(population, sizes):
    def planted(skills, call):
        return skills[:, 3]

    found, calls = run(SearchConfig(population=population), ONEHOT, planted)
    assert [len(call) for call in calls] == sizes
    first = calls[0].argmax(axis=1)
    assert len(set(first)) == len(first) and set(np.unique(calls[0])) == {0, 1}
    if population >= 6:
        assert found[-1].z.argmax() == 3 and found[-1].score == 1


@pytest.mark.parametrize(("space", "norm"), [(SPHERE, 1.0), (GAUSSIAN, GAUSSIAN.typical_norm)])
def test_cem_finds_a_direction(space, norm):
    config = SearchConfig(kind="cem", population=32, rounds=5, elites=8)
    found, calls = run(config, space, along)
    assert [len(call) for call in calls] == [32] * 5 and len(found) == 5
    lengths = np.linalg.norm([f.z for f in found], axis=1)
    np.testing.assert_allclose(lengths, norm, rtol=1e-5)
    assert found[-1].z @ TARGET > 0.98 * norm
    for f, call in zip(found, calls):
        assert f.score == pytest.approx(np.sort(call @ TARGET)[-8:].mean(), abs=1e-6)
    mean = [float((call @ TARGET).mean()) for call in calls]
    assert mean[0] < 0.4 and mean[-1] > 0.9 * norm and mean == sorted(mean)  # Later draws are better.
    away, _ = run(config, space, lambda z, call: -along(z, call))
    assert away[-1].z @ TARGET < -0.98 * norm  # It follows the returns.


def test_cem_rounds_differ_and_a_key_repeats():
    config = SearchConfig(kind="cem")
    first, second = (run(config, SPHERE, along)[1] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    other = run(config, SPHERE, along, "another")[1]
    assert not np.array_equal(first[0], other[0])
    assert len({call.tobytes() for call in first}) == len(first)


def test_cem_refuses_one_hot_skills_before_any_try():
    tries = Tries(along)
    with pytest.raises(UserError, match="search.kind is 'cem': expected 'halving' for one-hot skills"):
        search(SearchConfig(kind="cem"), ONEHOT, stream(0, "search"), tries)
    assert not tries.calls


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"kind": "grid"}, "kind is 'grid': expected one of 'halving', 'cem'"),
        ({"population": 1}, "population is 1"),
        ({"elites": 1}, "elites is 1"),
        ({"finetune_share": 1.5}, "finetune_share is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(options, found):
    with pytest.raises(UserError, match=found):
        SearchConfig(**options)
