"""Studies: what they say, their runs, and the page and the tables that compare them."""

import csv
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import urlrl
from urlrl.agents import find_agent
from urlrl.cli import main
from urlrl.cli.arguments import check_arguments
from urlrl.cli.compare import _said
from urlrl.config import PretrainConfig
from urlrl.errors import RunsFailed, UserError
from urlrl.evaluation import comparison, figures
from urlrl.evaluation.comparison import Run, Target, by_metric, summarise, table, table_csv
from urlrl.evaluation.stats import improvement
from urlrl.training.run import RunFolder
from urlrl.verbs import compare as verb
from urlrl.verbs import launch
from urlrl.verbs.study import settings_of, settings_of_runs

STUDY = """
env = "point"
num_envs = 2
episode_steps = 15
rollout_steps = 20
steps_per_update = 13
min_replay = 40
replay_capacity = 150
eval_every = 100
steps = 200
seeds = "0..1"
reach = "coverage=1, coverage=1000"

[settings.metra]
agents = "metra"
agent.width = 16
agent.batch.size = 32

[settings.chance]
agents = "uniform"
"""
POINT = {"env": "point", "seeds": "0..1"}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """The folder of a study of two agents with two seeds each."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_text(STUDY)
    urlrl.compare(folder / "study.toml", out=folder / "out", quiet=True)
    return folder


@pytest.fixture
def copied(study, tmp_path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(study, tmp_path / "copy"))


@pytest.fixture
def worked(monkeypatch) -> list[tuple[str, bool]]:
    """What is trained (True) and evaluated (False), none of which is done."""
    done: list[tuple[str, bool]] = []
    monkeypatch.setattr(launch, "_do", lambda one, quiet: done.append((one.name, one.config is not None)))
    return done


# The runs and what is made of them.


def test_a_study_leaves_a_page_and_tables(study):
    out = study / "out"
    made = {path.name for path in out.iterdir()}
    tables = {"index.html", "table.csv", "table.json", "curves.pdf", "curves.png", "skills.png", "study.json"}
    assert made == {*tables, "runs"} and (out / "curves.pdf").read_bytes().startswith(b"%PDF")
    result = json.loads((out / "table.json").read_text())
    assert [each["label"] for each in result["settings"]] == ["metra", "chance"]
    assert result["env"] == "point" and result["failed"] == {} and result["protocol"]["episode_steps"] == 15
    for each in result["settings"]:
        assert each["seeds"] == [0, 1] and each["step"] == 200 and each["curves"]["eval/coverage"]["steps"][-1] == 200
        for seed, run in zip(each["seeds"], each["runs"]):
            evaluation = json.loads((out / "runs" / each["label"] / f"seed-{seed}" / "evaluation.json").read_text())
            if goals := evaluation["goals"]:
                del goals["goals"], goals["outcomes"]  # Only the run's own file has each goal.
            assert run["evaluation"] == evaluation and run["config"]["seed"] == seed
            assert each["scores"]["coverage, 1 m cells"]["values"][seed] == evaluation["coverage"]["agent"]
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert [row["setting"] for row in rows] == ["metra"] * 2 + ["chance"] * 2 + ["random policy", "standing still"]
    assert rows[4]["coverage, 1 m cells"] == str(float(evaluation["coverage"]["random"]))
    page = (out / "index.html").read_text()
    for said in ("metra", "chance", "random policy", "Probability of improvement", "skill-coverage-v1", "0 of 2"):
        assert said in page


def test_a_cell_is_the_run_of_the_command_in_its_config(study, capsys):
    """The command finds the run to be done: of another config it would be refused."""
    for label in ("metra", "chance"):
        folder = study / "out" / "runs" / label / "seed-1"
        words = shlex.split(RunFolder(folder).manifest()["command"])
        assert words[:3] == ["urlrl", "pretrain", "metra" if label == "metra" else "uniform"]
        assert words[-2:] == ["--out", str(folder)]
        main([*words[1:], "--quiet"])
        assert "Done." in capsys.readouterr().out and RunFolder(folder).manifest()["continued"] == []


def test_a_second_call_trains_and_evaluates_what_is_missing(copied, worked, monkeypatch):
    again = {"study": copied / "study.toml", "out": copied / "out", "quiet": True}
    verb.compare(**again)
    assert worked == []
    (copied / "out/runs/chance/seed-1/evaluation.json").unlink()
    shutil.rmtree(copied / "out/runs/metra/seed-0")
    result = verb.compare(**again)
    assert worked == [("metra, seed 0", True), ("metra, seed 0", False), ("chance, seed 1", False)]
    assert result["failed"].keys() == {"metra, seed 0", "chance, seed 1"}  # Nothing was done, in truth.


def test_a_cell_that_fails_is_named_and_the_others_go_on(copied, monkeypatch, capsys):
    shutil.rmtree(copied / "out/runs/metra/seed-0")
    shutil.rmtree(copied / "out/runs/chance/seed-0")

    def do(one, quiet):
        if one.config is not None and "metra" in one.name:
            raise ValueError("the simulator broke")
        if one.config is not None:
            shutil.copytree(copied / "out/runs/chance/seed-1", one.folder)

    monkeypatch.setattr(launch, "_do", do)
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(copied / "study.toml"), "--out", str(copied / "out"), "--quiet"])
    said = capsys.readouterr()
    assert stop.value.code == 3
    assert "1 of 4 runs failed" in said.err and "metra, seed 0: ValueError: the simulator broke" in said.err
    rows = [line.split()[:4] for line in said.out.splitlines()]
    assert (
        ["metra,", "seed", "0", "failed"] in rows and rows[1][:2] == ["metra", "1"] and rows[2][:2] == ["chance", "2"]
    )
    failed = json.loads((copied / "out/table.json").read_text())["failed"]
    assert failed == {"metra, seed 0": "ValueError: the simulator broke"}
    assert "the simulator broke" in (copied / "out/index.html").read_text()


def test_a_study_of_which_all_runs_fail_says_why(tmp_path, monkeypatch):
    def do(one, quiet):
        raise UserError("The disk is full.")

    monkeypatch.setattr(launch, "_do", do)
    (tmp_path / "out").mkdir()
    with pytest.raises(RunsFailed, match="All runs failed, as .*index.html says; uniform, seed 0: The disk is full"):
        verb.compare(POINT, agents="uniform", reach="coverage=1", out=tmp_path / "out")
    result = json.loads((tmp_path / "out/table.json").read_text())
    assert list(result["failed"]) == ["uniform, seed 0", "uniform, seed 1"] and result["labels"] == ["uniform"]
    page = (tmp_path / "out/index.html").read_text()
    assert "1 setting on point" in page and "The disk is full" in page
    assert '"uniform, seed 1",,,,,The disk is full.' in (tmp_path / "out/table.csv").read_text()


def test_runs_that_are_there_are_compared(study, tmp_path, capsys):
    runs = sorted(map(str, (study / "out/runs").glob("*/*")))
    main(
        ["compare", "--runs", *runs, "--out", str(tmp_path / "out"), "--reach", "coverage=1", "--curves", "phi/lambda"]
    )
    result = json.loads((tmp_path / "out/table.json").read_text())
    assert [(each["label"], each["seeds"]) for each in result["settings"]] == [("uniform", [0, 1]), ("metra", [0, 1])]
    assert [list(each["curves"]) for each in result["settings"]] == [[], ["phi/lambda"]]
    assert "coverage=1, steps" in capsys.readouterr().out


def test_diagnostics_of_skills_have_a_table_of_their_own(copied, tmp_path):
    runs = sorted((copied / "out/runs/metra").iterdir())
    for run_folder, rank, told in zip(runs, (1.5, 2.0), (0.7, 0.8)):
        file = run_folder / "evaluation.json"
        diagnostics = {
            "protocol": "x", "episodes": 48, "skills": 2, "radius": 1.0, "chance": 0.5, "latent_dim": 2,
            "scores": {"dead_skills": 3.0, "discriminability": told, "effective_rank": rank},
        }  # fmt: skip
        file.write_text(json.dumps(json.loads(file.read_text()) | {"diagnostics": diagnostics}))
    result = verb.compare(runs=list(map(str, runs)), out=tmp_path / "out", quiet=True)
    assert result["settings"][0]["scores"]["skills, effective_rank"]["values"] == [1.5, 2.0]
    page = (tmp_path / "out/index.html").read_text()
    for label, said in (
        ("Effective rank", "1.750 (1.500, 2.000)"),
        ("Dead skills", "3 (3, 3)"),
        ("Skill told from the last observation, %", "75 (70, 80); chance 50"),
    ):
        assert f'<th scope="row">{label}</th><td>{said}</td>' in page
    assert "skills, effective_rank" not in page and "skills, effective_rank" in (tmp_path / "out/table.csv").read_text()


def test_python_says_a_study_by_names(study, worked, tmp_path):
    with pytest.raises(RunsFailed):  # Nothing was trained.
        urlrl.compare(POINT, agents="uniform,metra", num_envs="1,2", out=tmp_path / "out")
    trained = [name for name, is_trained in worked if is_trained]
    assert (
        trained[:4] == [f"uniform, num_envs={n}, seed {seed}" for n in (1, 2) for seed in (0, 1)] and len(trained) == 8
    )


# Bad input.


@pytest.mark.parametrize(
    "said, expected",
    [
        ({}, "The study is empty: expected settings"),
        ({"seeds": "0..1", "settings": {}}, "The study is empty: expected settings"),
        ({"agents": "metro", **POINT}, "Unknown agent 'metro': did you mean 'metra'?"),
        ({"agents": "metra", "preset": "nothing", **POINT}, "Unknown preset of agent 'metra' 'nothing'"),
        ({"agents": "rnd", **POINT, "agent.lrr": 1}, "Unknown option of the study 'agent.lrr': did you mean 'agent.l"),
        ({"agents": "metra", **POINT, "launchr": 1}, "Unknown option of the study 'launchr': did you mean 'launcher'?"),
        ({"agents": "metra", **POINT, "seed": 1}, "Unknown option of the study 'seed': did you mean 'seeds'?"),
        ({"agents": "metra", **POINT, "num_envs": "one"}, "config.num_envs is 'one': expected int."),
        ({"agents": "metra", "env": "point"}, "The study has no seeds"),
        ({"agents": "metra", "env": "point", "seeds": "4..0"}, "Option 'seeds' is '4..0'"),
        ({"agents": "metra", "env": "point", "seeds": [1, 1]}, "seeds are 1, 1: expected each once."),
        ({"agents": "metra", "env": "pont", "seeds": 1}, "Unknown environment 'pont': did you mean 'point'?"),
        ({"agents": "rnd,rnd", **POINT}, "Settings 'rnd' and 'rnd' do not differ"),
        ({**POINT, "settings": {"a": {}}}, "A setting names no agent"),
        ({**POINT, "settings": ["a"]}, "settings is ['a']: expected a table for each setting"),
        ({**POINT, "settings": {n: {"agents": n} for n in ("rnd", "uniform")}, "episode_steps": "9,8"},
         "episode_steps is 9 of 'rnd, episode_steps=9' and 8 of 'rnd, episode_steps=8': expected runs of one env"),
        ({"agents": "rnd", "env": "point,maze:rooms_cells", "normalizer": "off", "seeds": 0},
         "env is 'point' of 'env=point' and 'maze:rooms_cells' of 'env=maze:rooms_cells': expected runs of one"),
        ({"agents": "rnd", **POINT, "launcher": "cloud"}, "launcher is 'cloud': expected one of 'local', 'slurm'."),
        ({"agents": "rnd", **POINT, "workers": "two"}, "workers is 'two': expected a whole number."),
        ({"agents": "rnd", **POINT, "workers": 0}, "workers is 0: expected a number of at least 1."),
        ({"agents": "rnd", **POINT, "slurm": 3}, "slurm is 3: expected a table of parameters."),
        ({"agents": "rnd", **POINT, "reach": "coverage"}, "reach is 'coverage': expected a metric and a score"),
        ({"agents": "rnd", **POINT, "curves": 3}, "curves is 3: expected a text or a list of texts."),
        ({"agents": "rnd", **POINT, "reach": "coverage=1", "eval_every": 0, "steps": 90},
         "eval_every is 0 and steps is 90 of 'rnd': expected evaluations during training, by which 'coverage' is"),
        ({"agents": "rnd", **POINT, "curves": "eval/dead_skills", "eval_every": 2000, "steps": 90},
         "eval_every is 2,000 and steps is 90 of 'rnd': expected evaluations during training, by which 'eval/dead_"),
        ({"agents": "rnd", **POINT, "reach": "coverage=nan"}, "reach is 'coverage=nan': expected a metric and a score"),
        ({"agents": "rnd", **POINT, "workers": True}, "workers is True: expected a whole number."),
        ({"agents": "metra", "preset": 3, **POINT}, "Unknown preset of agent 'metra' '3'"),
        ({**POINT, "settings": {"..": {"agents": "rnd"}}}, "Setting '..' cannot name a folder: expected one with"),
        ({**POINT, "settings": {"a/b": {"agents": "rnd"}}}, "Setting 'a/b' cannot name a folder: expected one with"),
        ({**POINT, "settings": {"a" * 101: {"agents": "rnd"}}}, f"Setting '{'a' * 100}... (101 characters)' has a lo"),
        ({"agents": "rnd", **POINT, "checkpoint_minutes": "1,2"},
         "Settings 'checkpoint_minutes=1' and 'checkpoint_minutes=2' do not differ"),
        ({"agents": "rnd", **POINT, "episode_steps": "None,50"},
         "Settings 'episode_steps=None' and 'episode_steps=50' do not differ"),
        ({"runs": []}, "The study is empty: expected folders of runs."),
        ({"runs": "a,b"}, "a,b is not a run: it has no config.json."),
        ({"runs": ["nowhere"]}, "nowhere is not a run: it has no config.json."),
        ({"runs": ["nowhere"], "env": "point"}, "The study has runs and env: expected runs that are there, or"),
    ],
)  # fmt: skip
def test_a_bad_study_is_refused_in_one_sentence(said, expected, tmp_path, worked):
    with pytest.raises(UserError) as error:
        verb.compare(said, out=tmp_path / "out")
    assert str(error.value).startswith(expected) and "\n" not in str(error.value)
    assert error.value.exit_code == 2
    assert worked == []


def test_a_file_that_is_no_study_is_refused(tmp_path, capsys):
    file = tmp_path / "study.toml"
    file.write_text("agents = metra")
    for path, said in ((file, "Invalid value"), (tmp_path / "none.toml", "No such file")):
        with pytest.raises(SystemExit) as stop:
            main(["compare", str(path), "--out", str(tmp_path / "out")])
        assert stop.value.code == 2 and f"Study {path} cannot be read: {said}" in capsys.readouterr().err
    for argv, said in (
        (["--agents", "rnd"], "Option '--out' is missing"),
        (["a", "b", "--out", "c"], "Unexpected argument 'b'"),
        (["--agents", "rnd", "--workers", "--out", "c"], "Option '--workers' has no value: expected one after it."),
        (["--slurm", "x", "--out", "c"], "Option '--slurm' is 'x': expected --slurm.NAME VALUE."),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["compare", *argv])
        assert stop.value.code == 2 and said in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_refused(study, copied, tmp_path, worked):
    with pytest.raises(UserError, match="holds another study, which has the setting 'metra': expected a new folder"):
        verb.compare(POINT, agents="rnd", out=copied / "out")
    with pytest.raises(UserError, match=r"seed-0 holds another run: steps_per_update is 13 there and 10 here"):
        verb.compare(copied / "study.toml", steps_per_update=10, out=copied / "out")
    with pytest.raises(UserError, match=r"seed-0 has a checkpoint at step 200, and steps is 100 of 'metra': expected"):
        verb.compare(copied / "study.toml", steps=100, out=copied / "out")
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="is not empty and holds no study: expected a new folder"):
        verb.compare(POINT, agents="rnd", out=tmp_path)
    assert worked == []


def test_runs_that_cannot_be_in_one_table_are_refused(copied, tmp_path):
    runs = [copied / "out/runs/metra/seed-0", copied / "out/runs/metra/seed-1"]
    again = {"runs": list(map(str, runs)), "out": tmp_path / "out"}
    with pytest.raises(UserError, match="do not differ: expected each setting and seed once"):
        verb.compare(runs=[str(runs[0])] * 2, out=tmp_path / "out")
    evaluation = runs[1] / "evaluation.json"
    there = json.loads(evaluation.read_text())
    evaluation.write_text(json.dumps({**there, "coverage": {**there["coverage"], "protocol": "skill-coverage-v0"}}))
    with pytest.raises(
        UserError, match="coverage is skill-coverage-v1 of 'metra, seed 0' and skill-coverage-v0 of 'metra"
    ):
        verb.compare(**again)
    evaluation.write_text(json.dumps({**there, "seed": 3}))
    with pytest.raises(UserError, match="evaluation seed is 0 of 'metra, seed 0' and 3 of 'metra, seed 1'"):
        verb.compare(**again)


def test_what_is_added_to_a_study(tmp_path):
    given = {"steps": 10, "slurm": {"a": 1, "b": 2}, "settings": {"slow": {"agent": {"lr": 1}, "seeds": 3}}}
    assert verb._added(given, {"slurm": {"b": 3}, "steps": 20}) == {**given, "slurm": {"a": 1, "b": 3}, "steps": 20}
    with pytest.raises(UserError, match=r"agent.lr is 2 of all settings and 1 of setting 'slow' in the file: expected"):
        verb._added(given, {"agent.lr": 2})
    with pytest.raises(UserError, match=r"seeds is '0..4' of all settings and 3 of setting 'slow' in the file"):
        verb._added(given, {"seeds": "0..4"})


def test_scores_that_an_environment_cannot_have_are_refused_before_training():
    (one,) = settings_of({"agents": "rnd", **POINT}, Path("out"))
    verb._check_evaluated([one], ["coverage"])
    blind = one._replace(spec=replace(one.spec, position=()))
    verb._check_evaluated([blind], ["reward/intrinsic"])
    with pytest.raises(UserError, match="'point' does not say where it is: expected one that does, by which 'cov"):
        verb._check_evaluated([one, blind], ["coverage"])


def test_a_damaged_checkpoint_is_named_and_the_others_are_drawn(copied):
    runs = [Run(label, 0, copied / "out/runs" / label / "seed-0", 200, [], {}) for label in ("metra", "chance")]
    for file in (runs[0].folder / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"x")
    fans, damaged = verb._fans(runs)
    assert [fan.label for fan in fans] == ["chance"] and list(damaged) == ["metra, seed 0"]
    assert "200" in damaged["metra, seed 0"]


def test_figures_of_an_earlier_table_are_removed_and_settings_that_failed_are_counted(tmp_path):
    for name in ("curves.pdf", "curves.png", "skills.png"):
        (tmp_path / name).write_text("")
    scored = summarise([run("a", 0, [(10, 1.0)], 1.0)], (), ())
    scored["settings"][0]["runs"] = [{"command": "urlrl pretrain", "evaluation": {}}]
    about = {"env": "point", "labels": ["a", "b"], "protocol": {}, "failed": {"b, seed 0": "It broke."}}
    comparison.write(tmp_path, about | scored, [])
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "table.csv", "table.json"}
    page = (tmp_path / "index.html").read_text()
    assert "2 settings on point" in page and "<dt>Seeds</dt><dd>0 to 1<" in page


# Labels.


def labels(**said) -> list[str]:
    return [each.label for each in settings_of({"env": "point", "seeds": 0, **said}, Path("out"))]


def test_labels_are_the_options_that_differ(tmp_path):
    assert labels(agents="metra,rnd") == ["metra", "rnd"]
    assert labels(agents="metra") == ["metra"] and labels(agents=["rnd", "metra"]) == ["rnd", "metra"]
    assert labels(agents="metra", **{"agent.lr": "1e-3,1e-4"}) == ["lr=0.001", "lr=0.0001"]
    both = ["metra, width=8", "metra, width=16", "rnd, width=8", "rnd, width=16"]
    assert labels(agents="metra,rnd", **{"agent.width": "8, 16"}) == both
    twice = labels(agents="metra", **{"agent.lr": "0.1,0.2", "agent.sac.lr": "0.1,0.2"})
    assert twice[1] == "agent.lr=0.1, agent.sac.lr=0.2"
    named = {"slow": {"agents": "metra", "agent": {"lr": "0.1,0.2"}}, "quick": {"preset": "metra/point-quick"}}
    assert labels(settings=named) == ["slow, lr=0.1", "slow, lr=0.2", "quick"]


def test_a_setting_has_a_folder_for_each_seed_and_the_options_of_its_preset():
    (one,) = settings_of({"preset": "metra/point-quick", "steps": 500, "seeds": "0,3"}, Path("out"))
    assert one.folders == {seed: Path(f"out/runs/metra/seed-{seed}") for seed in (0, 3)}
    assert one.config.steps == 500 and one.config.agent.width == 64 and one.config.env == "point"
    assert one.words == ["metra", "--preset", "point-quick", "--steps", "500"]


def test_the_command_line_has_booleans_of_parts_of_a_config():
    words = ["--agent.batch.no-timeout-as-terminal", "--stagger-resets", "--agent.lr", "0.1"]
    said = _said(list(words))
    assert said == {"agent.batch.timeout_as_terminal": False, "stagger_resets": True, "agent.lr": 0.1}
    (one,) = settings_of({"agents": "metra", **POINT, **said}, Path("out"))
    assert one.words == ["metra", "--env", "point", *words]
    check_arguments(one.words[1:], PretrainConfig[find_agent("metra")[1]])  # As `urlrl pretrain` does.


# Numbers, by hand.


def run(setting: str, seed: int, rows: list[tuple[int, float]], score: float, distance: float = 1.0) -> Run:
    metrics = [{"step": step, "eval/coverage": value, "time/epoch_seconds": 60.0} for step, value in rows]
    scores = {"coverage, 1 m cells": {"agent": score, "random": 2.0}, "goals, final_distance": {"agent": distance}}
    return Run(setting, seed, Path("x"), rows[-1][0], metrics, scores)


def test_what_runs_reached_and_when():
    runs = [run("a", 0, [(10, 1.0), (20, 5.0), (30, 4.0)], 4), run("a", 1, [(10, 2.0), (30, 3.0)], 3)]
    (found,) = summarise(runs, ["coverage"], [Target("coverage", 4), Target("eval/coverage", 2)])["settings"]
    assert found["minutes"] == [3.0, 2.0]
    assert found["curves"]["eval/coverage"] == {"steps": [10, 30], "values": [[1.0, 2.0], [4.0, 3.0]]}
    assert found["reach"]["coverage=4"] == {"steps": [20, None], "minutes": [2.0, None]}
    assert found["reach"]["eval/coverage=2"] == {"steps": [20, 10], "minutes": [2.0, 1.0]}
    result = summarise(runs, (), [Target("coverage", 4)]) | {"failed": {}}
    head, rows = table(result)
    assert rows[0][head.index("coverage=4, steps")] == "1 of 2: 20"
    assert rows[0][head.index("coverage, 1 m cells")] == "3.5 (4.0, 3.0)" and rows[1][:5] == [
        "random policy",
        "",
        "",
        "",
        "2.0",
    ]
    with pytest.raises(UserError, match="Unknown metric 'covrage'"):
        summarise(runs, ["covrage"], [])


def test_seeds_that_were_trained_for_different_lengths_are_refused():
    runs = [run("a", 0, [(10, 1.0)], 1), run("b", 0, [(20, 1.0)], 1)]
    verb._check_lengths(runs)  # Settings may differ in it.
    with pytest.raises(UserError, match="x is at step 20 and x at 10: expected runs of one length in a setting"):
        verb._check_lengths([*runs, run("a", 1, [(20, 1.0)], 1)])


def test_the_probability_of_improvement_is_the_share_of_pairs():
    assert improvement(np.array([1, 2, 3]), np.array([2, 0])).value == pytest.approx((0 + 1 + 0.5 + 1 + 1 + 1) / 6)
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=9), rng.normal(size=30)
    assert np.isnan(improvement(few, many).low) and np.isnan(improvement(many, few).low)
    found = improvement(rng.normal(size=80) + 1, rng.normal(size=80))
    assert found.low < 0.760 < found.high and found.high - found.low < 0.2  # Phi(1 / sqrt(2))


def test_smaller_distances_are_the_better_ones():
    runs = [run("near", 0, [(1, 1.0)], 1, distance=1.0), run("far", 0, [(1, 1.0)], 2, distance=9.0)]
    found = summarise(runs, (), ())["improvement"]
    assert found["coverage, 1 m cells"]["far"]["near"]["value"] == 1.0
    assert found["goals, final_distance"]["near"]["far"]["value"] == 1.0


def test_a_baseline_has_a_value_of_each_seed():
    runs = [run("a", seed, [(1, 1.0)], 1) for seed in range(3)]
    changed = [one._replace(scores={"coverage, 1 m cells": {"agent": 1.0, "random": random}})
               for one, random in zip(runs, (2.0, 2.0, 5.0))]  # fmt: skip
    result = summarise(changed, (), ()) | {"failed": {}}
    assert result["baselines"]["random"] == {"coverage, 1 m cells": [2.0, 2.0, 5.0]}
    assert table(result)[1][1][4] == "3.0 (2.0, 2.0, 5.0)" and b"random policy,,,,,3.0" in table_csv(result)


def test_improvement_is_said_of_scores_whose_direction_is_known():
    known = ["coverage, 1 m cells, in ant", "rooms visited per episode", "goals, hit_3"]
    scores = {name: {"agent": 1.0} for name in (*known, "coverage, 1 m cells, gap", "share of time in noise")}
    runs = [Run(label, 0, Path("x"), 1, [], scores) for label in "ab"]
    assert list(summarise(runs, (), ())["improvement"]) == known


def test_curves_of_a_single_step_are_not_drawn():
    curves = {"eval/coverage": {"steps": [0], "values": [[1.0]]}, "kl": {"steps": [0, 9], "values": [[1.0], [2.0]]}}
    assert by_metric([{"label": "a", "curves": curves}]) == {"kl": {"a": ([0, 9], [[1.0], [2.0]])}}


def test_few_seeds_are_lines_and_more_have_a_band():
    steps = [0, 10]
    for seeds, lines, bands in ((3, 1 + 3, 0), (5, 1, 1)):
        values = np.arange(2 * seeds, dtype=float).reshape(2, seeds)
        (ax,) = figures.draw_compared({"eval/coverage": {"a": (steps, values)}}, figures.LIGHT).axes
        assert (len(ax.get_lines()), len(ax.collections)) == (lines, bands) and ax.get_xlim()[0] == 0
        np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), values.mean(axis=1))


def test_more_than_ten_settings_differ_in_their_lines():
    curves = {"kl": {str(i): ([0, 10], [[i], [i]]) for i in range(11)}}
    lines = figures.draw_compared(curves, figures.LIGHT).axes[0].get_lines()[::2]  # Each mean is before its seeds.
    assert len({(str(line.get_color()), line.get_linestyle()) for line in lines}) == 11


def test_runs_of_one_config_are_one_setting(copied):
    runs = sorted((copied / "out/runs/metra").iterdir())
    (one,) = settings_of_runs(runs)
    assert one.folders == dict(enumerate(runs)) and one.label == "metra"
    config = runs[1] / "config.json"
    config.write_text(config.read_text().replace('"keep_data": "all"', '"keep_data": "window"'))
    assert [each.label for each in settings_of_runs(runs)] == ["metra"]
    config.write_text(config.read_text().replace('"min_replay": 40', '"min_replay": 50'))
    assert [each.label for each in settings_of_runs(runs)] == ["min_replay=40", "min_replay=50"]
