"""Runs: the folder, damage, signals, bad input. Everything on `point`, in seconds."""

import dataclasses
import json
import re
import subprocess
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_tools import TINY, Notes, assert_same, command, copy_of, damage_checkpoint, final_state, wait_for

import urlrl
from urlrl import acting
from urlrl.agents.metra import Metra
from urlrl.errors import TrainingDiverged, UserError
from urlrl.runs.begin import make_normalizer
from urlrl.training import learn, loop, normalizer
from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder


def test_a_run_leaves_a_complete_folder(whole_run):
    manifest = json.loads((whole_run / "config.json").read_text())
    assert manifest["config"]["agent"]["width"] == 16 and manifest["versions"]["jax"]
    metrics = read_metrics(whole_run / "metrics.jsonl")
    assert metrics[0]["step"] == 0 and "eval/coverage" in metrics[0] and metrics[-1]["step"] == 320
    assert {"phi/loss", "phi/lambda", "critic/loss", "actor/alpha", "time/env_steps_per_s"} <= set(metrics[-1])
    assert list((whole_run / "tensorboard").iterdir())
    assert sorted(int(p.name) for p in (whole_run / "checkpoints").iterdir()) == [280, 320]
    shards = sorted(p.name for p in (whole_run / "replay").iterdir())
    assert shards[0].startswith("000000000000-") and shards[-1].endswith("-000000000320.safetensors")


def test_the_same_seed_gives_the_same_run(whole_run, tmp_path):
    assert_same(final_state(whole_run), final_state(urlrl.pretrain(TINY, tmp_path / "again", quiet=True)))


def test_another_seed_gives_another_run(whole_run, tmp_path):
    other = urlrl.pretrain(dataclasses.replace(TINY, seed=1), tmp_path / "other", quiet=True)
    assert (
        read_metrics(other / "metrics.jsonl")[-1]["phi/loss"]
        != read_metrics(whole_run / "metrics.jsonl")[-1]["phi/loss"]
    )


def test_sigterm_saves_and_says_how_to_continue(tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(run, "--steps", "1000000", "--checkpoint-minutes", "60"), stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: len(read_metrics(run / "metrics.jsonl")) > 3, process)
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75 and "SIGTERM" in stderr and "continues" in stderr
    step = RunFolder(run).checkpoints.steps()[-1]
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == step > 0


def test_more_steps_extend_a_run(whole_run, tmp_path):
    run = urlrl.pretrain(dataclasses.replace(TINY, steps=160), tmp_path / "run", quiet=True)
    urlrl.pretrain(TINY, run, quiet=True)
    assert_same(final_state(whole_run), final_state(run))
    before = (run / "metrics.jsonl").read_bytes()
    urlrl.pretrain(TINY, run, quiet=True)  # Nothing left to do.
    assert (run / "metrics.jsonl").read_bytes() == before


def test_window_keeps_only_what_a_resume_needs(whole_run, tmp_path):
    config = dataclasses.replace(TINY, keep_data="window")
    run = urlrl.pretrain(config, tmp_path / "run", quiet=True)
    begins = sorted(int(p.name[:12]) for p in (run / "replay").iterdir())
    assert begins[0] == 120  # The older checkpoint, at 280, needs its last 150 transitions: from 130.
    assert_same(final_state(whole_run), final_state(run))


def test_a_full_ring_is_saved_before_it_overwrites(tmp_path):
    config = dataclasses.replace(TINY, checkpoint_minutes=60)
    run = urlrl.pretrain(config, tmp_path / "run", quiet=True)
    ranges = sorted((int(p.name[:12]), int(p.name[13:25])) for p in (run / "replay").iterdir())
    assert ranges == [(0, 120), (120, 240), (240, 320)]


@pytest.mark.parametrize("kind", ["flip", "truncate", "delete", "manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(whole_run, tmp_path, capsys, kind):
    run = urlrl.pretrain(TINY, tmp_path / "run", quiet=True)
    name = damage_checkpoint(run, 320, kind)
    urlrl.pretrain(TINY, run, quiet=True)
    said = capsys.readouterr().err
    assert name in said and "the checkpoint before it is used" in said
    assert_same(final_state(whole_run), final_state(run))


def test_a_damaged_shard_falls_back_too(whole_run, tmp_path, capsys):
    run = urlrl.pretrain(TINY, tmp_path / "run", quiet=True)
    newest = sorted((run / "replay").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-5])
    urlrl.pretrain(TINY, run, quiet=True)
    assert newest.name in capsys.readouterr().err
    assert_same(final_state(whole_run), final_state(run))


def test_when_all_is_damaged_nothing_is_lost_and_the_reason_is_given(tmp_path):
    run = urlrl.pretrain(TINY, tmp_path / "run", quiet=True)
    for step in (280, 320):
        damage_checkpoint(run, step, "flip")
    with pytest.raises(UserError, match="earlier checkpoint can be used"):
        urlrl.pretrain(TINY, run, quiet=True)
    assert (run / "checkpoints" / "280").exists()


def test_a_folder_of_another_run_is_refused(whole_run, tmp_path):
    other = dataclasses.replace(TINY, agent=dataclasses.replace(TINY.agent, lr=3e-4))
    with pytest.raises(UserError, match=r"agent\.lr is 0\.001 there and 0\.0003 here; .* or --agent\.lr 0\.001 to"):
        urlrl.pretrain(other, whole_run, quiet=True)
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds no run"):
        urlrl.pretrain(TINY, tmp_path, quiet=True)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_run_that_continues_with_other_versions_says_so(whole_run, tmp_path):
    import urlrl.verbs.pretrain as verbs

    run = RunFolder(copy_of(whole_run, tmp_path))
    manifest, longer, notes = run.manifest(), dataclasses.replace(TINY, steps=400), Notes()
    saver = SimpleNamespace(run=run, loop=SimpleNamespace(step=320), saved_step=320)
    now, cores = manifest["versions"]["jax"], manifest["versions"]["cores"]
    run.config_file.write_text(
        json.dumps({**manifest, "versions": {**manifest["versions"], "jax": "0.1.0", "cores": "64"}})
    )
    verbs.claim(saver, longer, None, notes)
    changed = f"jax 0.1.0 is now {now}, cores 64 is now {cores}"
    assert f"{run.path} was made under other conditions: {changed}. It need not end" in "".join(notes.notes)
    notes.notes.clear()
    verbs.claim(saver, longer, None, notes)  # It was continued with these.
    assert "other conditions" not in "".join(notes.notes)


def test_two_processes_cannot_share_a_folder(whole_run):
    with RunFolder(whole_run).lock(), pytest.raises(UserError, match="in use by another process"):
        urlrl.pretrain(TINY, whole_run, quiet=True)


def test_a_run_that_diverges_says_the_same_on_every_loop_and_can_go_on(whole_run, tmp_path, monkeypatch):
    original, said = Metra.update, {}

    def poisoned(self, batch, key):
        agent, metrics = original(self, batch, key)
        bad = jnp.where(self.sac.actor.opt_state[0].count > 20, jnp.nan, 1.0)
        return agent.replace(phi=agent.phi.replace(params=jax.tree.map(lambda x: x * bad, agent.phi.params))), metrics

    monkeypatch.setattr(Metra, "update", poisoned)
    learn.learn.clear_cache()
    for where in ("host", "device"):
        with pytest.raises(TrainingDiverged) as error:
            urlrl.pretrain(dataclasses.replace(TINY, loop=where), tmp_path / where, quiet=True)
        said[where] = (str(error.value), error.value.exit_code)
        agent, _ = urlrl.load(tmp_path / where)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(agent))
    assert said["host"] == said["device"]
    assert re.fullmatch(r"Training diverged at step \d+: metric .* is nan; expected finite numbers\.", said["host"][0])
    assert said["host"][1] == 3
    monkeypatch.setattr(Metra, "update", original)
    learn.learn.clear_cache()
    assert_same(final_state(whole_run), final_state(urlrl.pretrain(TINY, tmp_path / "host", quiet=True)))
    run = urlrl.pretrain(dataclasses.replace(TINY, loop="device"), tmp_path / "device", quiet=True)
    assert RunFolder(run).checkpoints.steps()[-1] == 320


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(whole_run, tmp_path):
    """A limit on file size stands in for a full disk: the same error, at the same calls."""
    run = tmp_path / "run"
    urlrl.pretrain(dataclasses.replace(TINY, steps=120), run, quiet=True)
    limited = ["bash", "-c", 'ulimit -f 3; exec "$@"', "bash", *command(run, "--steps", "320")]  # 3 KiB
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr and "is whole" in done.stderr
    assert "Traceback" not in done.stderr and "ERROR" not in done.stderr, done.stderr  # Of the threads that write.
    assert done.stderr.splitlines()[-1].startswith("urlrl: Cannot write")
    assert RunFolder(run).checkpoints.steps()[-1] == 120
    urlrl.load(run)
    urlrl.pretrain(TINY, run, quiet=True)  # There is room again: it goes on, and nothing of the failed save is left.
    assert_same(final_state(whole_run), final_state(run))
    assert not list((run / "checkpoints").glob(".saving*"))


def test_a_logger_that_fails_does_not_stop_the_run(tmp_path, monkeypatch):
    from tensorboard.summary import Writer

    def broken(*args, **kwargs):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(Writer, "add_scalar", broken)
    run = urlrl.pretrain(dataclasses.replace(TINY, steps=80), tmp_path / "run", quiet=True)
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == 80


def test_each_function_compiles_once(tmp_path):
    for function in (acting.begin, acting.act, learn.learn):
        function.clear_cache()
    urlrl.pretrain(dataclasses.replace(TINY, steps=120, eval_every=0), tmp_path / "run", quiet=True)
    for function in (acting.begin, acting.act, learn.learn):
        assert function._cache_size() == 1, function


def test_evaluate_a_run_and_a_checkpoint_of_it(whole_run, tmp_path):
    run = copy_of(whole_run, tmp_path)
    result = urlrl.evaluate(run, json_file=tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == result
    assert result["step"] == 320 and result["coverage"]["random"] >= 1
    assert set(result["goals"]["agent"]) == set(result["goals"]["random"])
    assert urlrl.evaluate(run) == result
    assert urlrl.evaluate(run, step=280)["step"] == 280
    with pytest.raises(UserError, match="no checkpoint at step 5"):
        urlrl.evaluate(run, step=5)
    with pytest.raises(UserError, match="is not a run"):
        urlrl.evaluate(tmp_path)


def test_a_fitted_normaliser_is_the_published_one(tmp_path, monkeypatch):
    # All 10,000 rollouts give METRA's published constants within 2.2 % (std) and 0.03 standard deviations (mean).
    monkeypatch.setattr(normalizer, "ROLLOUTS", 1000)
    config = dataclasses.replace(TINY, env="half_cheetah", normalizer="fit", episode_steps=200, steps=2_000_000)
    env = urlrl.make_env("half_cheetah", 1)
    fitted = make_normalizer(config, env.env_spec, Notes())
    np.testing.assert_allclose(fitted.std, env.env_spec.obs_std, rtol=0.07)
    np.testing.assert_array_less(np.abs(np.subtract(fitted.mean, env.env_spec.obs_mean)) / env.env_spec.obs_std, 0.1)
    off = make_normalizer(dataclasses.replace(config, normalizer="off"), env.env_spec, Notes())
    assert not off.mean.any() and (off.std == 1).all()


def test_a_normaliser_costs_what_the_run_is_worth_and_shows_how_far_it_is():
    assert [normalizer.rollouts_for(n) for n in (80_000, 2_000_000, 10_000_000)] == [400, 10_000, 10_000]
    shown, spec = Notes(), urlrl.make_env("point").env_spec
    make_normalizer(dataclasses.replace(TINY, normalizer="fit", steps=800), spec, shown)
    fitting = [line for line in shown.lines if line.startswith("fitting")]
    assert fitting[0] == "fitting the normaliser  0/1,000 steps" and len(fitting) == normalizer.STEPS
    assert fitting[-1] == "fitting the normaliser  980/1,000 steps"


def test_a_run_from_before_an_option_was_there_continues(whole_run, tmp_path):
    """Its default is what the run had."""
    run = copy_of(whole_run, tmp_path)
    manifest = json.loads((run / "config.json").read_text())
    del manifest["config"]["agent"]["batch"]["futures"]
    (run / "config.json").write_text(json.dumps(manifest))
    _, config = urlrl.load(run)
    RunFolder(run).check(config)
    batch = dataclasses.replace(config.agent.batch, futures=2)
    with pytest.raises(UserError, match="agent.batch.futures is 0 there and 2 here"):
        RunFolder(run).check(dataclasses.replace(config, agent=dataclasses.replace(config.agent, batch=batch)))


def test_time_counts_for_the_inner_of_two_uses(monkeypatch):
    monkeypatch.setattr(loop.time, "perf_counter", iter([0.0, 1.0, 3.0, 7.0]).__next__)
    watch = loop.Stopwatch("env", "host")
    with watch("host"), watch("env"):
        pass
    assert watch.read() == {"env": 2.0, "host": 5.0} and watch.read() == {"env": 0.0, "host": 0.0}
