"""Snapshots: checkpoints that a run was asked to keep for good. An epoch of these runs is 40 steps."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from run_tools import TINY, assert_same, copy_of, damage_checkpoint, final_state, transitions

import urlrl
from urlrl.cli import main
from urlrl.errors import UserError
from urlrl.runs.load import load_checkpoint
from urlrl.runs.past import past
from urlrl.training.checkpoint import Checkpoints
from urlrl.training.run import RunFolder

# The next checkpoint is an hour off, but the ring of 150 is saved before it overwrites.
PLAIN = dataclasses.replace(TINY, eval_every=0, checkpoint_minutes=60)
ASKED = dataclasses.replace(PLAIN, snapshots=(30, 90, 100, 120))


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """The same run without snapshots."""
    return urlrl.pretrain(PLAIN, tmp_path_factory.mktemp("whole") / "run", quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """30 is kept by the checkpoint of 40; the other three, passed in one epoch, by that of 120."""
    return urlrl.pretrain(ASKED, tmp_path_factory.mktemp("snapshots") / "run", quiet=True)


def kept(run: Path) -> tuple[list[int], dict[int, int]]:
    return RunFolder(run).checkpoints.steps(), RunFolder(run).checkpoints.snapshots()


def assert_equal_agents(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_snapshots_are_kept_beside_the_last_two_checkpoints(run):
    assert kept(run) == ([40, 120, 240, 320], {30: 40, 90: 120, 100: 120, 120: 120})


def test_forgetting_that_a_checkpoint_is_a_snapshot_is_caught(tmp_path, monkeypatch):
    infos = Checkpoints.infos
    monkeypatch.setattr(Checkpoints, "infos", lambda self: [{**info, "snapshots": []} for info in infos(self)])
    short = urlrl.pretrain(dataclasses.replace(ASKED, steps=160), tmp_path / "run", quiet=True)
    assert kept(short)[0] == [120, 160]


def test_snapshots_change_nothing_else(run, plain_run):
    assert kept(plain_run) == ([240, 320], {})
    assert_same(final_state(plain_run), final_state(run))
    np.testing.assert_equal(transitions(run), transitions(plain_run))


def test_a_snapshot_is_the_agent_of_its_step(run, tmp_path):
    short = urlrl.pretrain(dataclasses.replace(PLAIN, steps=120), tmp_path / "run", quiet=True)
    assert_equal_agents(urlrl.load(run, step=120)[0], urlrl.load(short)[0])
    with pytest.raises(UserError, match="no checkpoint at step 80: found those at 40, 120, 240, 320"):
        urlrl.load(run, step=80)


def test_a_snapshot_comes_with_the_epoch_that_passes_its_step(tmp_path):
    """As URLB's F3 asks: less than an epoch behind it, and not where the next checkpoint would have been."""
    config = dataclasses.replace(PLAIN, snapshots=(1, 41, 80, 155, 5000), steps=200)
    run = urlrl.pretrain(config, tmp_path / "run", quiet=True)
    assert kept(run) == ([40, 80, 160, 200], {1: 40, 41: 80, 80: 80, 155: 160})


def test_snapshots_survive_stopping_and_continuing(run, tmp_path):
    config = dataclasses.replace(ASKED, snapshots=(30, 90, 100, 120, 330))
    stopped = urlrl.pretrain(dataclasses.replace(config, steps=80), tmp_path / "run", quiet=True)
    assert kept(stopped) == ([40, 80], {30: 40})
    urlrl.pretrain(dataclasses.replace(config, steps=320), stopped, quiet=True)
    assert kept(stopped) == kept(run)
    assert_same(final_state(run), final_state(stopped))
    assert_equal_agents(urlrl.load(run, step=120)[0], urlrl.load(stopped, step=120)[0])
    longer = dataclasses.replace(config, steps=400)
    urlrl.pretrain(longer, stopped, quiet=True)
    assert kept(stopped) == ([40, 120, 360, 400], {30: 40, 90: 120, 100: 120, 120: 120, 330: 360})
    urlrl.pretrain(dataclasses.replace(longer, snapshots=(), steps=440), stopped, quiet=True)
    assert kept(stopped)[0] == [40, 120, 360, 400, 440]  # Nobody asks for them any more, but they stay.


def test_a_damaged_snapshot_is_made_again(plain_run, tmp_path, capsys):
    config = dataclasses.replace(PLAIN, snapshots=(50, 310))
    run = urlrl.pretrain(config, tmp_path / "run", quiet=True)
    assert kept(run) == ([80, 200, 320], {50: 80, 310: 320})
    name = damage_checkpoint(run, 320, "flip")
    urlrl.pretrain(config, run, quiet=True)
    assert name in capsys.readouterr().err
    assert kept(run) == ([80, 200, 320], {50: 80, 310: 320})
    assert_same(final_state(plain_run), final_state(run))


def test_a_run_falls_back_to_a_snapshot_when_what_came_after_is_damaged(run, plain_run, tmp_path):
    run = copy_of(run, tmp_path)
    for step in (240, 320):
        damage_checkpoint(run, step, "truncate")
    urlrl.pretrain(ASKED, run, quiet=True)
    assert kept(run)[0] == [40, 120, 240, 320]
    assert_same(final_state(plain_run), final_state(run))


def forget_snapshots(run: Path) -> None:
    """Make the folder one that was written before there were snapshots."""
    manifest = json.loads((run / "config.json").read_text())
    del manifest["config"]["snapshots"]
    (run / "config.json").write_text(json.dumps(manifest))
    for folder in (run / "checkpoints").iterdir():
        info = json.loads((folder / "info.json").read_text())
        del info["snapshots"]
        content = json.dumps(info).encode()
        (folder / "info.json").write_bytes(content)
        hashes = json.loads((folder / "manifest.json").read_text())
        hashes["info.json"] = hashlib.sha256(content).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(hashes))


def test_runs_from_before_there_were_snapshots_load_and_continue(tmp_path, plain_run):
    run = urlrl.pretrain(dataclasses.replace(PLAIN, steps=160), tmp_path / "run", quiet=True)
    forget_snapshots(run)
    agent, config = urlrl.load(run)
    assert config.snapshots == () and agent.config == TINY.agent
    assert kept(run) == ([120, 160], {})
    urlrl.pretrain(dataclasses.replace(PLAIN, snapshots=(100, 200)), run, quiet=True)  # 100 is over, 200 is not.
    assert kept(run) == ([200, 320], {200: 200})
    assert_same(final_state(plain_run), final_state(run))


# --- the past of a snapshot


@pytest.mark.parametrize(
    ("step", "count", "expected"), [(40, 1000, 40), (120, 1000, 120), (320, 1000, 320), (120, 7, 7)]
)
def test_the_past_of_a_checkpoint_ends_there(run, step, count, expected):
    rows = past(run, load_checkpoint(run, step), count, seed=0)
    _, stored = transitions(run)
    index = [np.flatnonzero((stored["next_obs"][:step] == row).all(axis=1)) for row in rows["next_obs"]]
    assert len(rows["obs"]) == expected and all(len(found) == 1 for found in index)
    order = np.concatenate(index)
    assert (np.diff(order) > 0).all()  # distinct, and in order
    np.testing.assert_array_equal(rows["z"], stored["z"][order])
    np.testing.assert_array_equal(rows["physics"], stored["obs"][order].astype(np.float64))
    np.testing.assert_array_equal(rows["next_physics"], stored["next_obs"][order].astype(np.float64))


def test_the_past_depends_on_the_seed_alone(run):
    loaded = load_checkpoint(run, 120)
    a, b, c = (past(run, loaded, 20, seed)["obs"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_a_window_keeps_the_past_that_a_snapshot_refers_to(tmp_path):
    config = dataclasses.replace(PLAIN, keep_data="window", snapshots=(40,), replay_capacity=80)
    run = urlrl.pretrain(config, tmp_path / "run", quiet=True)
    files = sorted(int(path.name[:12]) for path in (run / "replay").iterdir())
    assert files == [0, 200, 280]
    assert len(past(run, load_checkpoint(run, 40), 1000, seed=0)["obs"]) == 40


def test_a_run_without_data_has_no_past(run, tmp_path):
    run = copy_of(run, tmp_path)
    for path in (run / "replay").iterdir():
        path.unlink()
    assert past(run, load_checkpoint(run), 10, seed=0) is None


def test_a_damaged_shard_is_named(run, tmp_path):
    run = copy_of(run, tmp_path)
    shard = sorted((run / "replay").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(UserError, match=shard.name):
        past(run, load_checkpoint(run), 10, seed=0)


# --- the option


def test_snapshots_are_an_option(capsys):
    main(["pretrain", "metra", "--env", "point", "--snapshots", "100", "2000", "--dry-run"])
    assert json.loads(capsys.readouterr().out)["config"]["snapshots"] == [100, 2000]


def test_a_snapshot_at_no_step_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "metra", "--snapshots", "0", "--dry-run"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "urlrl: snapshots is 0: expected a number of at least 1.\n"


def test_a_snapshot_asked_for_too_late_is_said(tmp_path, capsys):
    config = dataclasses.replace(PLAIN, steps=80)
    urlrl.pretrain(config, tmp_path / "run", quiet=True)
    urlrl.pretrain(dataclasses.replace(config, steps=160, snapshots=(40, 120)), tmp_path / "run", quiet=True)
    assert "snapshots at [40] come too late" in capsys.readouterr().err
    assert list(RunFolder(tmp_path / "run").checkpoints.snapshots()) == [120]
