"""Suites: every task from every snapshot, resumed, merged, refused; a miniature one on `point`."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from run_tools import TINY, copy_of, transitions

import urlrl
from urlrl.adaptation import suite as suites
from urlrl.adaptation.config import METHODS, AdaptConfig, OffPolicyConfig, SearchConfig
from urlrl.adaptation.ladder import Cell
from urlrl.adaptation.methods import RUN
from urlrl.adaptation.suite import URLB, Suite, aggregate, find_suite
from urlrl.agents.metra import Metra
from urlrl.cli import main
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation.stats import over_seeds
from urlrl.tasks.catalogue import TASKS, URLB_TASKS, find_task
from urlrl.tasks.task import Task
from urlrl.verbs import adapt as verb
from urlrl.verbs.adapt_suite import score_suite

MINI = "mini-v1/point"
NEAR = dataclasses.replace(find_task("point_goal"), name="point_near", episode_steps=20, radius=2.0, expert=49.0)
RIGHT = Task(
    "point_right", "point", ("point",), reward=lambda physics, action: 1 + physics[:, 0], episode_steps=20, expert=200.0
)
SUITE = Suite(
    name=MINI,
    tasks=("point_near", "point_right"),
    snapshots=(30, 70),
    methods=("zero_shot", "finetune", "scratch"),
    config=AdaptConfig(
        steps=200,
        eval_every=100,
        eval_episodes=4,
        num_envs=2,
        samples=1000,
        off_policy=OffPolicyConfig(interval=10, batch=16, random=40, warmup=40, warmup_updates=3),
        search=SearchConfig(population=2, finetune_share=0.5),
    ),
)
PRETRAIN = dataclasses.replace(TINY, eval_every=0, checkpoint_minutes=60, steps=120, snapshots=SUITE.snapshots)


@pytest.fixture(scope="module", autouse=True)
def mini():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(suites.URLB, MINI, SUITE)
        for task in (NEAR, RIGHT):
            patch.setitem(TASKS, task.name, lambda task=task: task)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Snapshots at 40 and 80 of 120 steps."""
    return urlrl.pretrain(PRETRAIN, tmp_path_factory.mktemp("suite") / "run", quiet=True)


@pytest.fixture(scope="module")
def scored(run):
    """(result, folder, what ran) of one seed."""
    ran = []
    with pytest.MonkeyPatch.context() as patch:
        spy(patch, ran)
        result = score_suite(run, MINI, seeds=[0], quiet=True)
    return result, run / "suites" / "mini-v1", ran


def spy(patch: pytest.MonkeyPatch, ran: list) -> None:
    """Note what runs: method, seed, task, and the transitions of the past that it was shown."""
    run_cell, make_setting, runs = verb.run_cell, verb.make_setting, []

    def noted(folder, run, loaded, task, config, method, seed, *rest):
        runs.append((method, seed, task.name))
        return run_cell(folder, run, loaded, task, config, method, seed, *rest)

    def made(*arguments):
        setting = make_setting(*arguments)
        ran.append((*runs[-1], setting.data))
        return setting

    patch.setattr(verb, "run_cell", noted)
    patch.setattr(verb, "make_setting", made)


def strict(path: Path) -> dict:
    """JSON as others read it, without NaN."""

    def refuse(name):
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the protocols


def test_urlbs_suites_are_its_tasks_with_their_experts_on_environments_that_fit():
    assert set(URLB) >= {"urlb-v1/walker", "urlb-v1/quadruped", "urlb-v1/jaco"}
    for domain, names in URLB_TASKS.items():
        suite = find_suite(f"urlb-v1/{domain}")
        assert suite.name == f"urlb-v1/{domain}" and set(suite.tasks) == set(names) and len(suite.tasks) == 4
        tasks = [find_task(name) for name in suite.tasks]
        assert all(task.expert and task.expert > 0 for task in tasks)
        assert set.intersection(*(set(task.runs_on) for task in tasks))  # One run is scored on all of them.
        assert set(suite.methods) <= set(METHODS) and "scratch" in suite.methods
        assert suite.snapshots == (100_000, 500_000, 1_000_000, 2_000_000)
        assert (suite.config.steps, suite.config.eval_every, suite.config.eval_episodes) == (100_000, 10_000, 10)
        learning = suite.config.off_policy
        assert (suite.config.steps // learning.interval, learning.batch) == (50_000, 1024)  # URLB's updates


def test_an_unknown_suite_gets_the_nearest_name():
    with pytest.raises(UserError, match="^Unknown suite 'urlb-v1/jacko': did you mean 'urlb-v1/jaco'?"):
        find_suite("urlb-v1/jacko")
    with pytest.raises(UserError, match="expected one of: .*urlb-v1/quadruped"):
        find_suite("?")


# --- aggregation


def cell(seed: int, last: float) -> Cell:
    return Cell("finetune", seed, {}, [(0, 99.0), (10, last)], {}, 0.0)


def check_aggregate(function) -> None:
    """The last mean return of each seed, divided by each task's own expert; 10 shares of 2 tasks."""
    returns = {"a": [1.0, 5.0, 3.0, 2.0, 4.0], "b": [20.0, 80.0, 60.0, 40.0, 50.0]}
    cells = {task: [cell(seed, value) for seed, value in enumerate(values)] for task, values in returns.items()}
    found = function(cells, {"a": 10.0, "b": 100.0})
    assert found["returns"] == returns
    assert found["normalised"] == {"a": [0.1, 0.5, 0.3, 0.2, 0.4], "b": [0.2, 0.8, 0.6, 0.4, 0.5]}
    assert found["estimate"]["value"] == pytest.approx((0.3 + 0.5) / 2)
    expected = over_seeds([np.array(values) for values in found["normalised"].values()])
    assert (found["estimate"]["low"], found["estimate"]["high"]) == pytest.approx(expected[1:])


def test_shares_of_the_expert_are_aggregated_over_tasks_and_seeds():
    check_aggregate(aggregate)


def best(cells, experts):
    """The best return of a curve and not the last one."""
    return aggregate(
        {task: [dataclasses.replace(c, curve=[max(c.curve, key=lambda p: p[1])]) for c in mine]
         for task, mine in cells.items()}, experts,
    )  # fmt: skip


def pooled(cells, experts):
    """One expert for all."""
    return aggregate(cells, dict.fromkeys(experts, 100.0))


@pytest.mark.parametrize("wrong", [best, pooled])
def test_wrong_aggregates_are_caught(wrong):
    with pytest.raises(AssertionError):
        check_aggregate(wrong)


def test_tasks_weigh_equally_in_the_mean_and_one_without_results_is_left_out():
    found = aggregate({"a": [cell(0, 1.0)], "b": [cell(0, 20.0), cell(1, 80.0)], "c": []}, {"a": 10.0, "b": 100.0})
    assert found["estimate"]["value"] == pytest.approx((0.1 + 0.5) / 2) and set(found["returns"]) == {"a", "b"}
    single = aggregate({"a": [cell(0, 1.0)]}, {"a": 10.0})
    assert single["estimate"] == {"value": pytest.approx(0.1), "low": None, "high": None}


# --- a miniature suite


def test_every_method_runs_from_every_snapshot_and_scratch_once_per_task(scored):
    _, _, ran = scored
    once = [(method, name) for method, _, name, _ in ran]
    assert sorted(once) == sorted(
        [("zero_shot", name) for name in SUITE.tasks] * 2
        + [("finetune", name) for name in SUITE.tasks] * 2
        + [("scratch", name) for name in SUITE.tasks]
    )


def test_a_snapshots_past_ends_with_it(scored, run):
    """1000 are asked for, so what is shown is all there is: 40, then 80 transitions of the run's 120."""
    _, stored = transitions(run)
    pasts = [data for method, *_, data in scored[2] if method == "zero_shot"]
    assert [len(data.obs) for data in pasts] == [40, 40, 80, 80]
    for data in pasts:
        np.testing.assert_array_equal(data.next_obs, stored["next_obs"][: len(data.obs)])


def test_the_result_is_of_what_the_files_hold(scored, run):
    result, folder, _ = scored
    assert strict(folder / "point.json") == json.loads(json.dumps(result))
    assert (result["suite"], result["env"], result["notes"]) == (MINI, "point", [])
    assert result["experts"] == {"point_near": 49.0, "point_right": 200.0}
    assert set(result["floors"]) == set(SUITE.tasks) and set(result["floors"]["point_near"]) == {
        "random",
        "zero action",
    }
    assert result["protocol"]["config"]["steps"] == 200 and result["versions"]["jax"]
    assert {snapshot: list(methods) for snapshot, methods in result["scores"].items()} == {
        30: ["zero_shot", "finetune", "scratch"],
        70: ["zero_shot", "finetune"],
    }
    for snapshot, methods in result["scores"].items():
        for method, score in methods.items():
            place = folder / "point" / ("scratch" if method == "scratch" else str(snapshot))
            for name in SUITE.tasks:
                there = strict(place / name / f"{method}-0.json")
                last = there["curve"][-1][1]
                assert there["curve"][-1][0] == {"zero_shot": 0, "finetune": 230, "scratch": 200}[method]
                assert there["same"]["pretrain_steps"] == (80 if snapshot == 70 else 40)
                assert score["returns"][name] == [last]
                assert score["normalised"][name] == [pytest.approx(last / result["experts"][name])]
    early, late = (result["scores"][snapshot]["finetune"]["returns"] for snapshot in SUITE.snapshots)
    assert early != late


def test_a_second_call_does_nothing_and_a_missing_result_is_done_alone(scored, run, monkeypatch):
    result, folder, _ = scored
    ran = []
    spy(monkeypatch, ran)
    before = contents(folder)
    assert score_suite(run, MINI, seeds=[0, 0], quiet=True) == result
    assert not ran and contents(folder) == before
    missing = folder / "point" / "70" / "point_right" / "finetune-0.json"
    cell = strict(missing)
    missing.unlink()
    assert score_suite(run, MINI, seeds=[0], quiet=True) == result
    assert [entry[:3] for entry in ran] == [("finetune", 0, "point_right")] and len(ran[0][3].obs) == 80
    assert strict(missing) | {"seconds": 0} == cell | {"seconds": 0}


def prompts_only(monkeypatch) -> None:
    monkeypatch.setitem(suites.URLB, MINI, dataclasses.replace(SUITE, methods=("zero_shot",)))


def test_other_seeds_are_added(run, tmp_path, monkeypatch):
    prompts_only(monkeypatch)
    one = score_suite(run, MINI, seeds=[1], out=tmp_path / "out", quiet=True)
    two = score_suite(run, MINI, seeds=[0], out=tmp_path / "out", quiet=True)
    for snapshot in SUITE.snapshots:
        for name in SUITE.tasks:
            first, both = (found["scores"][snapshot]["zero_shot"]["returns"][name] for found in (one, two))
            assert len(both) == 2 and both[1:] == first
    estimate = strict(tmp_path / "out" / "mini-v1" / "point.json")["scores"]["30"]["zero_shot"]["estimate"]
    assert estimate["value"] and estimate["low"] is None  # Of two seeds there is no interval.


def test_what_an_agent_cannot_do_is_a_note_and_the_others_are_scored(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Metra, "abilities", Metra.abilities - {"adaptable"})
    result = score_suite(run, MINI, seeds=[0], out=tmp_path / "out", quiet=True)
    sentence = (
        "Agent Metra cannot be fine-tuned on a reward: expected one with the ability 'adaptable' (`urlrl agents` lists "
        "them)."
    )
    assert result["notes"] == [f"finetune: {sentence}", f"scratch: {sentence}"]
    assert capsys.readouterr().err.splitlines() == result["notes"]
    assert all(list(methods) == ["zero_shot"] for methods in result["scores"].values())


def test_a_suite_without_any_result_says_why_and_writes_nothing(run, tmp_path, monkeypatch):
    prompts_only(monkeypatch)

    def refuse(setting):
        raise UnsupportedPrompt("Cannot be asked: expected another agent.")

    monkeypatch.setitem(RUN, "zero_shot", refuse)
    with pytest.raises(UserError, match="^zero_shot: Cannot be asked: expected another agent.$"):
        score_suite(run, MINI, seeds=[0], out=tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_another_runs_results_are_refused(scored, run, tmp_path):
    other = urlrl.pretrain(dataclasses.replace(PRETRAIN, seed=5), tmp_path / "run", quiet=True)
    before = contents(run / "suites")
    with pytest.raises(UserError, match="holds another result: pretrain.seed is 0 there and 5 here"):
        score_suite(other, MINI, seeds=[0], out=run / "suites", quiet=True)
    assert contents(run / "suites") == before


def test_a_damaged_result_is_named(scored, run, tmp_path):
    path = copy_of(run, tmp_path) / "suites" / "mini-v1" / "point" / "30" / "point_near" / "finetune-0.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match="finetune-0.json cannot be read as a result: "):
        score_suite(tmp_path / "copy", MINI, seeds=[0], quiet=True)


def test_a_run_without_snapshots_is_refused_with_the_option_that_makes_them(tmp_path):
    plain = dataclasses.replace(PRETRAIN, snapshots=(70,), steps=80)
    run = urlrl.pretrain(plain, tmp_path / "run", quiet=True)
    before = contents(run)
    with pytest.raises(UserError) as refusal:
        score_suite(run, MINI, quiet=True)
    assert str(refusal.value) == (
        f"{run} has no snapshot at 30 steps: expected a run that was pretrained with --snapshots 30 70."
    )
    assert contents(run) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "urlb-v1/walker"}, r"is for agents pretrained on .*dmc:walker_walk.*: this one knows 'point'\.$"),
        ({"seeds": [2**32]}, "seed is 4294967296: expected a number of at least 0 and at most 4294967295"),
        ({"seeds": []}, "There are no results: expected at least one seed"),
        ({"suite": "mini-v1/pont"}, "did you mean 'mini-v1/point'"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(run, tmp_path, options, message):
    given = {"suite": MINI, "out": tmp_path / "out", "quiet": True} | options
    with pytest.raises(UserError, match=message):
        score_suite(run, given.pop("suite"), **given)
    assert not (tmp_path / "out").exists()


def test_the_command_line_scores_a_suite(scored, run, capsys):
    main(["adapt", str(run), "--suite", MINI, "--seeds", "0", "--quiet"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{MINI}, pretrained on point: share of the expert's return"
    score = scored[0]["scores"][70]["finetune"]
    (line,) = [line for line in lines if line.startswith("70") and "fine-tuning" in line]
    assert line.split()[-1] == f"{score['estimate']['value']:.2f}"
    assert sum("from scratch" in line for line in lines) == 1
    assert any("(random)" in line for line in lines) and any("(zero action)" in line for line in lines)
