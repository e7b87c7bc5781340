"""Runs on a dataset: they learn, stop, continue exactly, and refuse what does not fit."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from run_tools import Notes, assert_same, saved_arrays

import urlrl
from urlrl.agents.fb import FBConfig
from urlrl.agents.hilp import HILPConfig
from urlrl.agents.metra import MetraConfig
from urlrl.cli import main
from urlrl.cli.evaluate import show_suite
from urlrl.config import OfflineConfig, run_config_from_json, to_json
from urlrl.data.dataset import Dataset, DatasetInfo, Episode, write_dataset
from urlrl.errors import UserError
from urlrl.evaluation.suites import share_of
from urlrl.learners.skills import SkillSpace
from urlrl.presets import learns_from_data
from urlrl.runs.past import run_dataset
from urlrl.training import learn
from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder
from urlrl.types import BatchSpec, GoalPrompt, Goals
from urlrl.verbs.evaluate_suite import evaluate_suite

FB_TINY = FBConfig(
    z=SkillSpace("wide_sphere", 4), width=16, backward_width=16, batch=BatchSpec(size=32), lr=1e-3
)  # fmt: skip
HILP_TINY = HILPConfig(
    z=SkillSpace("sphere", 4), width=16, depth=2, batch=BatchSpec(size=32, goals=Goals()), plan_recursions=2,
    plan_states=700,
)  # fmt: skip


def maze_episodes(seed: int = 0, num: int = 40, steps: int = 25) -> list[Episode]:
    """Random walks in an 8 m square; they hold the maze's observations, whatever its walls."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num):
        action = rng.uniform(-1, 1, (steps, 2))
        xy = np.clip(rng.uniform(-4, 4, 2) + 0.5 * np.vstack([np.zeros(2), action]).cumsum(axis=0), -4, 4)
        zeros = np.zeros(steps)
        found.append(Episode(xy.astype(np.float32), action, zeros, zeros.astype(bool)))
    return found


INFO = DatasetInfo("maze:8x8", "a test", physics=(("xy", 2),), obs_is_physics=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "maze"
    write_dataset(folder, INFO, maze_episodes())
    return folder


def offline(data, agent=FB_TINY, name="fb", **changes) -> OfflineConfig:
    settings = {"updates": 5, "steps": 20, "checkpoint_minutes": 0, **changes}
    return OfflineConfig(agent=agent, agent_name=name, data=str(data), **settings)


@pytest.fixture(scope="module")
def fb_run(data, tmp_path_factory):
    return urlrl.pretrain(offline(data), tmp_path_factory.mktemp("fb") / "run", quiet=True)


@pytest.fixture(scope="module")
def hilp_run(data, tmp_path_factory):
    return urlrl.pretrain(offline(data, HILP_TINY, "hilp", steps=10), tmp_path_factory.mktemp("hilp") / "r", quiet=True)


def state(run) -> dict[str, dict]:
    rows = read_metrics(run / "metrics.jsonl")
    kept = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]
    return {"arrays": saved_arrays(run), "metrics": dict(enumerate(kept))}


def test_a_stopped_run_continues_exactly(data, fb_run, tmp_path):
    run = urlrl.pretrain(offline(data, steps=10), tmp_path / "run", quiet=True)
    urlrl.pretrain(offline(data), run, quiet=True)
    assert_same(state(fb_run), state(run))
    with pytest.raises(AssertionError):  # What tells a run apart from one with other random numbers.
        assert_same(state(fb_run), state(urlrl.pretrain(offline(data, seed=1), tmp_path / "other", quiet=True)))


def test_the_config_returns_from_the_run_folder(data, fb_run):
    config = run_config_from_json(RunFolder(fb_run).manifest()["config"], FBConfig)
    assert config == dataclasses.replace(offline(data), env="maze:8x8", data_id=Dataset(data).id)
    assert run_config_from_json(json.loads(json.dumps(to_json(config))), FBConfig) == config


def test_learning_compiles_once_and_every_step_draws_anew(data, tmp_path):
    learn.learn.clear_cache()
    run = urlrl.pretrain(offline(data, steps=15), tmp_path / "run", quiet=True)
    assert learn.learn._cache_size() == 1
    losses = [row["fb/loss"] for row in read_metrics(run / "metrics.jsonl")]
    assert len(losses) == 3 and len(set(losses)) == 3


def test_a_moved_dataset_is_the_same_and_another_is_not(data, fb_run, tmp_path):
    moved = tmp_path / "moved"
    write_dataset(moved, INFO, maze_episodes())
    urlrl.pretrain(offline(moved), fb_run, quiet=True)  # Nothing to do, nothing to complain about.
    other = tmp_path / "other"
    write_dataset(other, INFO, maze_episodes(seed=1))
    with pytest.raises(UserError, match="holds another run: data_id is"):
        urlrl.pretrain(offline(other), fb_run, quiet=True)
    config = dataclasses.replace(urlrl.load(fb_run)[1], data=str(other))
    with pytest.raises(UserError, match="holds other data"):
        run_dataset(config)


def test_a_fitted_normaliser_is_the_datas(data, tmp_path):
    run = urlrl.pretrain(offline(data, steps=5, normalizer="fit"), tmp_path / "run", quiet=True)
    agent, _ = urlrl.load(run)
    obs = np.concatenate([episode.obs for episode in maze_episodes()]).astype(np.float64)
    np.testing.assert_allclose(agent.normalizer.mean, obs.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(agent.normalizer.std, obs.std(axis=0), rtol=1e-5)


def test_what_does_not_fit_is_refused(data, tmp_path):
    def refused(config, words):
        with pytest.raises(UserError, match=words):
            urlrl.pretrain(config, tmp_path / "run", quiet=True)
        assert not RunFolder(tmp_path / "run").config_file.exists()

    refused(offline(data, agent=MetraConfig(), name="metra"), "cannot learn from transitions that others collected")
    refused(offline(data, env="half_cheetah"), "observations of 2 numbers and actions of 2: expected 18 and 6")
    refused(offline(tmp_path / "nowhere"), "is not a dataset: it has no dataset.json")


def test_actions_beyond_the_bounds_are_not_learned_from(tmp_path, monkeypatch):
    """Earlier versions wrote them."""
    monkeypatch.setattr("urlrl.data.dataset.within_bounds", lambda action, what: action)
    wrong = [episode._replace(action=1.5 * episode.action) for episode in maze_episodes(num=3)]
    write_dataset(tmp_path / "data", INFO, wrong)
    said = r"data: action.npy leaves \[-1, 1\] in row \d+ \(episode 0, step \d+\): expected actions in"
    with pytest.raises(UserError, match=said):
        urlrl.pretrain(offline(tmp_path / "data", steps=5), tmp_path / "run", quiet=True)
    assert not RunFolder(tmp_path / "run").config_file.exists()


def test_a_dataset_without_an_environment_trains_and_says_what_is_missing(tmp_path):
    write_dataset(tmp_path / "data", DatasetInfo("", "a test"), maze_episodes(num=3))
    run = urlrl.pretrain(offline(tmp_path / "data", steps=5), tmp_path / "run", quiet=True)
    agent, _ = urlrl.load(run)
    assert agent.normalizer.mean.shape == (2,)
    assert any("does not say where it is" in note for note in urlrl.evaluate(run)["notes"])
    with pytest.raises(UserError, match="names no environment: expected --env"):
        urlrl.prompt(run, goal={"x": 1.0, "y": 0.0})


def test_data_without_physics_answers_no_reward_in_words(tmp_path):
    rng = np.random.default_rng(0)
    zeros = np.zeros(5)
    walks = (
        Episode(rng.normal(size=(6, 24)).astype(np.float32), rng.uniform(-1, 1, (5, 6)), zeros, zeros.astype(bool))
        for _ in range(10)
    )
    write_dataset(tmp_path / "data", DatasetInfo("dmc:walker_walk", "a test"), walks)
    run = urlrl.pretrain(offline(tmp_path / "data", steps=5), tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="have no physics: expected some"):
        urlrl.prompt(run, "vx")
    with pytest.raises(UserError, match="have no physics: expected some"):
        urlrl.adapt(run, "walker_walk", ["zero_shot"], seeds=[0], quiet=True)


def test_the_other_verbs_work_on_an_offline_run(fb_run, tmp_path):
    result = urlrl.evaluate(fb_run)
    assert result["coverage"]["agent"] >= 1 and set(result["goals"]) >= {"agent", "random"}
    told = urlrl.prompt(fb_run, goal={"x": 1.0, "y": -1.0}, out=tmp_path / "prompt")
    assert told["kind"] == "goal" and (tmp_path / "prompt" / "trajectory.png").is_file()
    assert urlrl.report(fb_run).is_file()


def test_a_suite_scores_every_task_with_every_prompt(data, fb_run, capsys):
    result = evaluate_suite(fb_run, "maze-v1/8x8", samples=200, quiet=True)
    rows = result["rows"]
    assert [(row["task"][-6:], row["prompt"]) for row in rows[:4]] == [
        ("goal_1", "reward"), ("goal_1", "goal"), ("goal_2", "reward"), ("goal_2", "goal")
    ]  # fmt: skip
    assert len(rows) == 10 and result["samples"] == 200 and any("the protocol has 5,120" in n for n in result["notes"])
    for row in rows:
        assert len(row["returns"]) == result["protocol"]["episodes"] == 20
        assert row["return"]["mean"] == pytest.approx(np.mean(row["returns"]))
        assert row["ceiling"][1] == "value iteration" and row["ceiling"][0] > 20
        assert set(row["floors"]) == {"random", "zero action"} and row["best_in_data"] >= 0
        assert (row["fit"] is None) == (row["prompt"] == "goal") == (row["predicted_return"] is None)
    assert result == json.loads((fb_run / "zero_shot" / "maze-v1-8x8-200.json").read_text())
    show_suite(result)
    shown = capsys.readouterr().out
    assert "maze_8x8_goal_5" in shown and "best in data" in shown and "R²" in shown
    told = [row for row in rows if row["prompt"] == "reward"]
    assert all(f"mean M {row['reliability']['mean_m']:.3g}, exact" in " ".join(shown.split()) for row in told)
    assert (
        "Trust their order" in " ".join(shown.split())
        and f"{share_of(rows[0], rows[0]['return']['mean']):.2f}" in shown
    )


@pytest.fixture
def goals_read(monkeypatch):
    """(agent, observations that it read a goal by), of every goal."""
    read, found = urlrl.agents.hilp.HILP.read, []

    def noting(agent, given, seen, key):
        if isinstance(given, GoalPrompt):
            found.append((agent, np.asarray(seen.obs)))
        return read(agent, given, seen, key)

    monkeypatch.setattr("urlrl.agents.hilp.HILP.read", noting)
    return found


def of_data(data, obs: np.ndarray) -> bool:
    return {row.tobytes() for row in obs} <= {row.tobytes() for row in np.asarray(Dataset(data).columns["obs"])}


def test_goals_are_read_by_the_data_that_the_agent_learned_from(data, hilp_run, goals_read, tmp_path):
    urlrl.evaluate(hilp_run)
    urlrl.prompt(hilp_run, goal={"x": 1.0, "y": -1.0}, out=tmp_path)
    assert len(goals_read) == 2  # All goals of `evaluate` are read at once.
    for _, obs in goals_read:
        assert len(obs) > 100 and of_data(data, obs)


def test_without_its_data_an_agent_is_asked_for_no_goals(hilp_run, tmp_path):
    run = shutil.copytree(hilp_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["config"]["data_id"] = "0" * 16
    (run / "config.json").write_text(json.dumps(config))
    result = urlrl.evaluate(run)
    assert result["coverage"] and result["goals"] is None
    assert "Goals are left out, as they are read by the data." in result["notes"][0]


def test_an_agent_that_plans_is_scored_and_one_without_skills_is_not(data, hilp_run, goals_read, tmp_path, monkeypatch):
    monkeypatch.setattr("urlrl.evaluation.prompting.LABELLED", 600)
    rows = evaluate_suite(hilp_run, "maze-v1/8x8", samples=200, quiet=True)["rows"]
    assert [row["prompt"] for row in rows] == ["reward", "goal", "plan"] * 5
    # Planning draws states of its own.
    assert {(agent.config.plan_recursions, len(obs)) for agent, obs in goals_read} == {(0, 600), (2, 700)}
    config = offline(data, urlrl.agents.find_agent("uniform")[1](), "uniform", steps=5)
    run = urlrl.pretrain(config, tmp_path / "uniform", quiet=True)
    result = evaluate_suite(run, "maze-v1/8x8", samples=200, quiet=True)
    assert not result["rows"] and any("cannot follow a prompt" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("command", "words"),
    {
        "evaluate {run} --suite exorl-v1/walkr": "Unknown suite 'exorl-v1/walkr': did you mean 'exorl-v1/walker'?",
        "evaluate {run} --suite exorl-v1/walker": "is for agents pretrained on dmc:walker_walk",
        "evaluate {run} --samples 32": "expected --suite NAME",
        "evaluate {run} --suite maze-v1/8x8 --samples 1": "samples is 1: expected a number of at least 2",
        "pretrain fb --preset quick": "expected --data DIR",
        "pretrain fb": "expected --data DIR",
        "pretrain metra --preset point-quick --data {data}": "expected one without --data",
        "pretrain fb --data {data} --agent.z.kind sphere": "expected 'wide_sphere'",
        "pretrain fb --data {data} --agent.penalty cv": "agent.penalty' is 'cv'",
        "pretrain sf --data {data} --agent.no-batch.goals": "",
    }.items(),
)
def test_bad_commands(data, fb_run, capsys, command, words):
    with pytest.raises(SystemExit) as stopped:
        main(command.format(run=fb_run, data=data).split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_the_command_line_pretrains_on_data(data, tmp_path, capsys):
    options = "--agent.width 16 --agent.backward-width 16 --agent.batch.size 16 --steps 10 --updates 5 --quiet"
    main(["pretrain", "fb", "--preset", "quick", "--data", str(data), *options.split(), "--out", str(tmp_path / "run")])
    run = tmp_path / "run"
    assert f"Done. Next: urlrl evaluate {run} --suite maze-v1/8x8; urlrl report {run}" in capsys.readouterr().out
    assert RunFolder(tmp_path / "run").checkpoints.steps() == [10]
    assert isinstance(urlrl.load(tmp_path / "run")[1], OfflineConfig)


def test_a_dry_run_on_data_looks_at_the_data(data, tmp_path, capsys):
    main(["pretrain", "fb", "--preset", "quick", "--data", str(data), "--dry-run"])
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["data_id"] == Dataset(data).id and config["env"] == "maze:8x8"
    with pytest.raises(SystemExit):
        main(["pretrain", "fb", "--data", str(tmp_path), "--dry-run"])
    assert "is not a dataset" in capsys.readouterr().err


def test_agents_that_learn_from_data_ask_for_it(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "fb", "--help"])
    assert "--data STR" in capsys.readouterr().out
    main(["pretrain", "fb", "--env", "point", "--dry-run"])  # Told to, it learns from its own steps.
    assert "data" not in json.loads(capsys.readouterr().out)["config"]
    assert learns_from_data("hilp") and not learns_from_data("metra") and not learns_from_data("rnd")


def test_a_run_that_cannot_start_leaves_no_folder(data, tmp_path):
    with pytest.raises(UserError, match="is not a dataset"):
        urlrl.pretrain(offline(tmp_path), tmp_path / "runs" / "new", quiet=True)
    assert not (tmp_path / "runs" / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(UserError, match="is not a dataset"):
        urlrl.pretrain(offline(tmp_path), tmp_path / "mine", quiet=True)
    assert (tmp_path / "mine" / "notes.txt").is_file()


def test_prompts_from_few_transitions_say_so(data, fb_run, capsys):
    result = evaluate_suite(fb_run, "maze-v1/8x8", quiet=True)
    held = len(Dataset(data))
    assert f"The data holds {held:,} transitions: prompts show 80% of them." in result["notes"]
    show_suite(result)
    first = capsys.readouterr().out.splitlines()[0]
    assert f"{held - int(0.2 * held):,} labelled transitions" in first


def test_progress_counts_updates(data, tmp_path):
    from urlrl.runs.begin import create_agent, run_spec
    from urlrl.training.driver import Speed
    from urlrl.training.offline import Offline

    config = dataclasses.replace(offline(data), env="maze:8x8")
    running = Offline(config, create_agent(config, run_spec(config)), Dataset(data))
    speed = Speed(running, config)
    running.epoch()
    rates = speed.measure()
    assert "time/env_steps_per_s" not in rates and rates["time/updates_per_s"] > 0
    assert speed.line().startswith("maze:8x8  5/20 updates")
    assert Notes().notes == []
