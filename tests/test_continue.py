"""A run that has a checkpoint goes on with other settings where it is asked to, and is exact from there on."""

import dataclasses
import json

import pytest
from run_tools import TINY, assert_same, command, copy_of, final_state

import urlrl
from urlrl.cli import main
from urlrl.errors import UserError
from urlrl.training.run import RunFolder

MORE = dataclasses.replace(TINY, steps=400)


def test_a_changed_setting_is_recorded_and_kept_by_the_command_that_began_the_run(whole_run, tmp_path):
    whole, parts = copy_of(whole_run, tmp_path / "whole"), copy_of(whole_run, tmp_path / "parts")
    options = command(parts, "--steps", "360", "--continue-with", "agent.lr=1e-4", "--quiet")[3:]
    main(options)
    main(options)  # Nothing is left to do, and nothing is recorded again.
    manifest = json.loads((parts / "config.json").read_text())
    assert [entry.get("changed") for entry in manifest["continued"]] == [{"agent.lr": [0.001, 0.0001]}]
    assert urlrl.load(parts)[1].agent.lr == 0.0001
    urlrl.pretrain(MORE, parts, quiet=True)
    urlrl.pretrain(MORE, whole, continue_with={"agent.lr": 1e-4}, quiet=True)
    assert_same(final_state(whole), final_state(parts))
    urlrl.pretrain(dataclasses.replace(MORE, agent=dataclasses.replace(MORE.agent, lr=1e-4)), parts, quiet=True)
    with pytest.raises(UserError, match=r"agent\.lr is 0\.0001 there and 0\.01 here"):
        RunFolder(parts).check(dataclasses.replace(MORE, agent=dataclasses.replace(MORE.agent, lr=0.01)))


def test_seeds_that_train_together_go_on_with_another_setting(tmp_path):
    config = dataclasses.replace(TINY, steps=40, eval_every=0)
    urlrl.pretrain_seeds(config, [0, 1], tmp_path, quiet=True)
    config = dataclasses.replace(config, steps=80)
    urlrl.pretrain_seeds(config, [1], tmp_path, continue_with={"agent.lr": 1e-4}, quiet=True)
    runs = urlrl.pretrain_seeds(dataclasses.replace(config, steps=120), [0, 1], tmp_path, quiet=True)
    assert [urlrl.load(run)[1].agent.lr for run in runs] == [1e-3, 1e-4]
    assert [RunFolder(run).checkpoints.steps()[-1] for run in runs] == [120, 120]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"agent.width": 32},
            r"checkpoints/320/agent has shape .* at .*: expected .*; no earlier checkpoint can be used",
        ),
        ({"num_envs": 4}, r"num_envs cannot change when a run is continued: expected one of agent\.\*, "),
        ({"env": "ant"}, "env cannot change when a run is continued"),
        ({"agent.lrr": 1e-4}, r"Unknown setting 'agent\.lrr': did you mean 'agent\.lr'\?"),
        ({"agent.lr": "fast"}, "agent.lr is 'fast': expected float"),
        ({"agent": 3}, "Unknown setting 'agent'"),
    ],
)
def test_a_setting_that_cannot_change_is_refused(whole_run, settings, message):
    before = (whole_run / "config.json").read_bytes()
    with pytest.raises(UserError, match=message):
        urlrl.pretrain(MORE, whole_run, continue_with=settings, quiet=True)
    assert (whole_run / "config.json").read_bytes() == before


def test_a_run_without_a_checkpoint_takes_no_other_settings(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(command(tmp_path / "x", "--continue-with", "agent.lr=1e-4")[3:])
    assert "has no checkpoint to continue with other settings" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(SystemExit):
        main(command(tmp_path / "x", "--continue-with", "agent.lr")[3:])
    assert "Option '--continue-with' is 'agent.lr': expected NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [(3, "continued.0.changed is 3, not"), ({"agent.lr": 3}, "continued.0.changed.agent.lr is 3, not a list")],
)
def test_damage_where_changes_are_recorded_is_named(damage, message, whole_run, tmp_path):
    run = RunFolder(copy_of(whole_run, tmp_path))
    manifest = run.manifest()
    entry = {"from_step": 40, "versions": {}, "command": "", "changed": damage}
    run.config_file.write_text(json.dumps({**manifest, "continued": [entry]}))
    with pytest.raises(UserError, match=f"config.json cannot be read: {message}"):
        run.check(TINY)


@pytest.mark.parametrize("where", ["host", "device"])
def test_each_environment_is_made_once_for_each_use(where, tmp_path, monkeypatch):
    from urlrl.runs import begin

    made, (host, device) = [], (begin.make_env, begin.make_device_env)
    monkeypatch.setattr(begin, "make_env", lambda name, n, **rest: made.append(n) or host(name, n, **rest))
    monkeypatch.setattr(begin, "make_device_env", lambda name, **rest: made.append(name) or device(name, **rest))
    urlrl.pretrain(dataclasses.replace(TINY, steps=40, loop=where), tmp_path / "run", quiet=True)
    assert made == [{"host": 2, "device": "point"}[where], 48]  # to train in and to measure coverage in
