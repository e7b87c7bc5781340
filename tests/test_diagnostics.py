"""Diagnostics of skills and representations, against numbers worked out by hand."""

import json
from contextlib import closing
from math import exp, log
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from run_tools import copy_of
from scipy.stats import rankdata

import urlrl
from urlrl.agents.uniform import Uniform
from urlrl.cli.evaluate import show_evaluation
from urlrl.evaluation.diagnostics import (
    ROWS,
    count_distinct,
    diagnose,
    directions_led,
    discriminability,
    effective_rank,
    per_skill,
    radius_of,
    time_correlation,
)
from urlrl.runs.load import load_checkpoint, saved_evaluation
from urlrl.training.log import read_metrics
from urlrl.types import EnvSpec, Trajectory, Transition
from urlrl.verbs.pretrain import skill_metrics

COMPASS = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


def test_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values():
    along_axes = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]]) + 7  # singular values 3 sqrt(2) and sqrt(2)
    assert effective_rank(along_axes) == pytest.approx(exp(-(0.75 * log(0.75) + 0.25 * log(0.25))))
    assert effective_rank(COMPASS) == pytest.approx(2) and effective_rank(COMPASS[:, :1]) == pytest.approx(1)
    assert np.isnan(effective_rank(np.full((1000, 3), 0.1, np.float32)))


def test_time_correlation_is_spearmans_within_episodes():
    line = np.arange(4.0) ** 3  # distances 1, 7, 19, 8, 26, 27 after 1, 1, 1, 2, 2, 3 steps
    back = np.array([0.0, 1.0, 2.0, 0.0])  # 1, 1, 2, 2, 1, 0 after the same
    by_hand = {
        "line": ([1, 2, 4, 3, 5, 6], [2, 2, 2, 4.5, 4.5, 6]),
        "back": ([3, 3, 5.5, 5.5, 3, 1], [2, 2, 2, 4.5, 4.5, 6]),
    }  # the ranks of (s0 s1), (s1 s2), (s2 s3), (s0 s2), (s1 s3), (s0 s3)
    for name, places in (("line", line), ("back", back)):
        expected = np.corrcoef(*by_hand[name])[0, 1]
        assert time_correlation(places[:, None, None], np.array([3])) == pytest.approx(expected), name
    far = np.stack([line, line + 1000], axis=1)[..., None]  # Two episodes far apart: no pair is of both.
    assert time_correlation(far, np.array([3, 3])) == pytest.approx(time_correlation(far[:, :1], np.array([3])))
    assert time_correlation(far, np.array([1, 1])) != time_correlation(far, np.array([3, 3]))
    clock = np.tile(np.arange(201.0), (2, 1)).T[..., None]  # Of both episodes 32 states are compared.
    assert time_correlation(clock, np.array([200, 40])) == pytest.approx(1)
    assert np.isnan(time_correlation(np.zeros((4, 1, 1)), np.array([3])))


def test_ends_are_averaged_over_the_episodes_of_a_skill():
    z = np.eye(2)[[0, 1, 0]]
    found = per_skill(z, np.array([[1.0, 1.0], [10.0, 0.0], [3.0, 5.0]]))
    assert sorted(found.tolist()) == [[2.0, 3.0], [10.0, 0.0]]


def test_distinct_ends_are_farther_than_the_radius_from_each_other():
    ends = np.array([0.0, 1, 5, 6, 11, 11.5])[:, None]
    assert count_distinct(ends, 3.0) == 3
    assert count_distinct(ends, 5.0) == 3 and count_distinct(ends, 0.4) == 6 and count_distinct(ends, 20.0) == 1
    assert count_distinct(ends[:0], 3.0) == 0 and count_distinct(ends[[0, 2]], 5.0) == 1
    chain = np.arange(5.0)[:, None]  # Each is near the next, and the first is far from the last.
    assert count_distinct(chain, 3.0) == 2


def test_a_skill_is_told_by_the_nearest_other_end():
    twice = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    ends = np.array([0.0, 1, 10, 11, 2, 12])[:, None]  # The nearest ones: 1, 0 (or 4), 3, 2 (or 5), 1, 3.
    share, chance = discriminability(twice, ends)
    assert share == pytest.approx((1 + 0.5 + 1 + 0.5 + 0 + 0) / 6) and chance == pytest.approx(1 / 5)
    angles = np.radians([0, 10, 90, 110])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    assert discriminability(directions, 40 * directions) == (1.0, pytest.approx(1 / 3))
    assert discriminability(directions, 40 * directions[[0, 2, 1, 3]])[0] == 0.0
    assert np.isnan(discriminability(np.eye(4), directions)[0])  # All of these skills are equally near.


def test_a_folded_plane_has_directions_without_a_skill():
    assert directions_led(5 * COMPASS) == 1.0
    assert directions_led(COMPASS[:1]) == 8 / 24  # 60 degrees to either side, of 360
    assert directions_led(COMPASS[:2]) == 14 / 24  # from -60 to 150 degrees
    far_and_near = np.array([[100.0, 0.0], [0.0, 1.0]])
    assert directions_led(far_and_near) == 12 / 24  # From 60 to 90 degrees the far one is the best.
    assert directions_led(COMPASS[:0]) == 0.0


@pytest.mark.parametrize(
    ("box", "radius"), [((), 3.0), ((50.0, 50.0), 3.0), ((100.0,), 3.0), ((3.0, 3.0), 0.75), ((10.0, 4.0), 1.0)]
)
def test_the_radius_is_three_metres_or_a_quarter_of_a_small_goal_box(box, radius):
    assert radius_of(EnvSpec("mine", 2, 2, 4, None, position=("x", "y"), goal_box=box)) == radius


def episodes(z: np.ndarray, place: np.ndarray, length: int = 4) -> Trajectory:
    """Each goes straight from 0 to its `place` (n, 2), which is what it observes, in `length` of 5 steps; what comes
    after that is another episode's."""
    position = np.linspace(0, 1, length + 1)[:, None, None] * place
    position = np.concatenate([position, np.full((5 - length, *place.shape), 99.0)])
    nothing = np.zeros((5, len(z)))
    zs = np.broadcast_to(z, (5, *z.shape)).astype(np.float32)
    steps = Transition(position[:-1], position[:-1], nothing, nothing, position[1:], zs)
    return Trajectory(steps, np.broadcast_to(np.arange(5)[:, None] < length, nothing.shape), position, None)


def spec_of(position: tuple[str, ...]) -> EnvSpec:
    return EnvSpec("mine", 2, 2, 5, None, position=position)


class Halves(struct.PyTreeNode):
    """Its phi is half the observation."""

    half: jax.Array
    abilities = frozenset({"latent", "constrained"})

    def latent(self, obs):
        return self.half * obs

    def constraint(self, batch):
        return 1 - jnp.sum((self.latent(batch.next_obs) - self.latent(batch.obs)) ** 2, axis=-1)


HALVES, WHERE = Halves(jnp.float32(0.5)), np.array([[4.0, 0], [0, 8], [-4, 0], [0, -1]])


def test_diagnostics_of_episodes_by_hand():
    """Four skills; one of them stays at the start."""
    found = diagnose(HALVES, episodes(COMPASS, WHERE), spec_of(("x", "y")))
    assert (found["episodes"], found["skills"], found["radius"], found["latent_dim"]) == (4, 4, 3.0, 2)
    scores = found["scores"]
    assert list(scores) == list(ROWS)
    # From 27 degrees on the second skill goes farthest, and leads within 60 degrees from 30 on.
    assert (scores["distinct_skills"], scores["dead_skills"], scores["directions"]) == (3, 1, 20 / 24)
    # Each step moves phi by a quarter of half the way: 1/2, 1, 1/2 and 1/8.
    assert scores["constraint"] == pytest.approx(1 - np.mean([1 / 4, 1, 1 / 4, 1 / 64]))
    visited = np.concatenate([step * WHERE / 8 for step in range(5)])
    assert scores["effective_rank"] == pytest.approx(effective_rank(visited))
    steps = np.tile([1, 1, 1, 1, 2, 2, 2, 3, 3, 4], 4)
    ranks = rankdata([steps, steps * np.repeat(np.linalg.norm(WHERE, axis=1), 10)], axis=1)
    assert scores["time_correlation"] == pytest.approx(np.corrcoef(ranks)[0, 1])
    line = diagnose(HALVES, episodes(COMPASS, WHERE), spec_of(("x",)))
    assert list(line["scores"]) == [name for name in ROWS if name != "directions"]


def test_starts_do_not_matter_and_skills_that_cancel_out_are_dead():
    away, spec = np.array([[0.0, 0], [50, 0], [0, 50], [50, 50]]), spec_of(("x", "y"))
    alike = episodes(COMPASS, np.tile([5.0, 0], (4, 1)))
    alike = alike._replace(position=alike.position + away)
    scores = diagnose(Uniform, alike, spec)["scores"]
    assert (scores["distinct_skills"], scores["dead_skills"], scores["directions"]) == (1, 0, 8 / 24)
    both_ways = diagnose(Uniform, episodes(np.eye(2)[[0, 0, 1, 1]], 10 * COMPASS[[0, 2, 1, 3]]), spec)["scores"]
    assert (both_ways["distinct_skills"], both_ways["dead_skills"], both_ways["directions"]) == (0, 2, 0)


def test_observations_are_compared_in_units_of_their_spread():
    """The two skills differ in the last two entries. The first one is large, and the same for both."""
    z, seen = np.eye(2)[[0, 0, 1, 1]], np.array([[0.0, 0, 0], [60, 0, 0], [1, 4, 4], [61, 4, 4]])
    found = diagnose(Uniform, episodes(z, seen)._replace(position=None), spec_of(()))
    assert (found["scores"]["discriminability"], found["chance"]) == (1.0, pytest.approx(1 / 3))
    assert discriminability(z, seen)[0] == 0.0


def test_what_cannot_be_measured_is_missing():
    assert diagnose(Uniform, episodes(np.zeros((4, 0)), WHERE), spec_of(("x", "y"))) is None
    nowhere = episodes(np.eye(2)[[0, 1, 0, 1]], WHERE)._replace(position=None)
    found = diagnose(Uniform, nowhere, spec_of(()))
    assert found["latent_dim"] is None and list(found["scores"]) == ["discriminability"]
    lost = episodes(np.eye(4), WHERE)
    lost.position[4, 1] = np.nan
    assert list(diagnose(Uniform, lost, spec_of(("x", "y")))["scores"]) == []
    diverged = diagnose(Halves(jnp.float32(jnp.nan)), episodes(np.eye(4), WHERE), spec_of(("x", "y")))
    assert list(diverged["scores"]) == ["distinct_skills", "dead_skills", "directions"]
    json.dumps(diverged, allow_nan=False)


def test_a_run_and_its_evaluation_have_them(whole_run, tmp_path, capsys):
    rows = [row for row in read_metrics(whole_run / "metrics.jsonl") if "eval/coverage" in row]
    assert len(rows) == 4 and all({f"eval/{name}" for name in ROWS} <= row.keys() for row in rows)
    run = copy_of(whole_run, tmp_path)
    agent, config = urlrl.load(run)
    with closing(urlrl.make_env("point", 48, episode_steps=15)) as env:
        measure = skill_metrics(config, env)
        again = [measure(agent, step) for step in (0, 320)]  # The skills and starts do not depend on the step.
    assert again[0] == again[1] == {name: rows[-1][name] for name in again[0]}
    result = urlrl.evaluate(run)
    loaded = load_checkpoint(run)
    assert saved_evaluation(run, loaded.step, loaded.spec) == result
    found = result["diagnostics"]
    assert found["skills"] == found["episodes"] == 48 and found["radius"] == 0.75 and found["latent_dim"] == 2
    assert found["scores"].keys() == ROWS.keys() and all(np.isfinite(x) for x in found["scores"].values())
    capsys.readouterr()
    show_evaluation(result)
    said = capsys.readouterr().out
    assert f"{found['scores']['dead_skills']:.0f} of 48 skills move less than 0.75 m on average." in said
    old = {name: value for name, value in result.items() if name != "diagnostics"}
    (run / "evaluation.json").write_text(json.dumps(old))
    assert saved_evaluation(run, loaded.step, loaded.spec) == {**old, "diagnostics": None}  # It is as good as ever.


def test_every_diagnostic_is_documented():
    documented = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
    assert [name for name in ROWS if f"| `{name}` |" not in documented] == []
