"""A run in another simulator is scored in C MuJoCo too. The point is its own twin here."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from run_tools import TINY, copy_of

import urlrl
from urlrl import cli
from urlrl.cli.report import show_seeds
from urlrl.envs import point
from urlrl.evaluation.gap import beside, columns
from urlrl.evaluation.stats import mean_interval
from urlrl.runs.load import GOAL_SCORES, load_checkpoint, saved_evaluation
from urlrl.verbs.report_seeds import report_seeds

GOALS = dict.fromkeys(GOAL_SCORES, 0.5) | {"final_distance": 2.0}
COVERAGE = {
    "protocol": "skill-coverage-v1", "episodes": 48, "unit": "1 m cells", "agent": 77, "random": 4,
    "min": [-3.0, -3.0], "max": [3.0, 3.0],
}  # fmt: skip
PROTOCOL = {"protocol": "zero-shot-goals-v1", "num_goals": 50, "goal_box": [3.0, 3.0]}
EVALUATION = {
    "step": 320, "seed": 0, "env": "mjx:ant", "notes": [], "diagnostics": None,
    "coverage": COVERAGE, "goals": {**PROTOCOL, "agent": GOALS, "random": GOALS},
    "twin": {
        "env": "ant", "coverage": {**COVERAGE, "agent": 70, "random": 5},
        "goals": {**PROTOCOL, "agent": {**GOALS, "final_distance": 2.25, "hit_3": 0.75}, "random": GOALS},
    },
}  # fmt: skip


@pytest.fixture
def run(whole_run, tmp_path, monkeypatch):
    monkeypatch.setattr(point, "SPEC", replace(point.SPEC, twin="point"))
    return copy_of(whole_run, tmp_path)


def test_both_scores_and_the_gap():
    assert columns(EVALUATION) == ["agent", "random policy", "agent in ant", "gap"]
    assert beside(EVALUATION, "coverage") == [77, 4, 70, -7]
    assert beside(EVALUATION, "goals", "final_distance") == [2.0, 2.0, 2.25, 0.25]
    alone = {**EVALUATION, "twin": None}
    assert columns(alone) == ["agent", "random policy"] and beside(alone, "goals", "hit_3") == [0.5, 0.5]


def test_an_evaluation_measures_the_twin_by_the_same_protocol(run, capsys):
    """Equal simulators, equal scores: the same skills, starts, goals and actions are drawn."""
    cli.main(["evaluate", str(run)])
    said = capsys.readouterr().out
    result = json.loads((run / "evaluation.json").read_text())
    assert "whereabouts" not in result  # There is no noise in `point`.
    assert result["twin"] == {"env": "point", **{part: result[part] for part in ("coverage", "goals", "diagnostics")}}
    assert "agent in point" in said and re.search(rf"coverage, 1 m cells +{result['coverage']['agent']} .* 0\b", said)


def test_every_goals_outcome_is_kept_with_an_interval_and_standing_still_stands_beside(run):
    found = urlrl.evaluate(run)
    goals = np.array(found["goals"]["goals"])
    assert goals.shape == (50, 2) and 1 <= found["coverage"]["standing still"] <= 4
    for who in ("agent", "random", "standing still"):
        outcomes = found["goals"]["outcomes"][who]
        assert outcomes.keys() == GOAL_SCORES.keys()
        for name, values in outcomes.items():
            assert len(values) == 50 and found["goals"][who][name] == pytest.approx(np.mean(values))
            low, high = found["goals"]["intervals"][who][name]
            assert 0 <= low <= found["goals"][who][name] <= high and (high <= 1 or name.endswith("distance"))
            if name.endswith("distance") and low:
                assert (low, high) == pytest.approx(mean_interval(values)[1:])
    still = np.array(found["goals"]["outcomes"]["standing still"]["final_distance"])
    np.testing.assert_allclose(still, np.linalg.norm(goals, axis=1), atol=0.5)  # It starts near 0.
    np.testing.assert_array_equal(found["goals"]["outcomes"]["standing still"]["at_1"], still < 1)
    assert columns(found)[:3] == ["agent", "random policy", "standing still"]
    assert beside(found, "goals", "final_distance")[2] == pytest.approx(still.mean())


def test_an_evaluation_that_lacks_the_twin_is_made_anew(run):
    loaded = load_checkpoint(run)
    (run / "evaluation.json").write_text(json.dumps({**EVALUATION, "twin": None}))
    assert saved_evaluation(run, 320, loaded.spec) is None
    assert saved_evaluation(run, 320, replace(loaded.spec, twin=None)) is not None
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    assert saved_evaluation(run, 320, loaded.spec) == EVALUATION
    assert saved_evaluation(run, 321, loaded.spec) is None


def test_the_page_and_the_table_of_seeds_show_it(run, tmp_path, capsys):
    page = urlrl.report(run).read_text()
    assert "Where it spends its time" not in page and not (run / "report" / "time.png").exists()
    assert "Agent in point" in page and "Gap" in page and "the same environment in C MuJoCo" in page
    other = urlrl.pretrain(replace(TINY, seed=TINY.seed + 1), tmp_path / "other", quiet=True)
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    twin = {**EVALUATION["twin"], "coverage": {**COVERAGE, "agent": 75}}
    (other / "evaluation.json").write_text(json.dumps({**EVALUATION, "twin": twin}))
    metrics = report_seeds([run, other])["metrics"]
    assert metrics["coverage, 1 m cells, in ant"]["agent"]["values"] == [70, 75]
    assert metrics["coverage, 1 m cells, gap"]["agent"]["values"] == [-7, -2]
    assert metrics["goals, final_distance, gap"]["agent"]["values"] == [0.25, 0.25]
    show_seeds(report_seeds([run, other]))
    assert "coverage, 1 m cells, gap" in capsys.readouterr().out
