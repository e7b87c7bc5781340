"""Seeds that learn from one dataset together: each is the run that it would be alone."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_tools import make_dataset
from kill_tools import killed_at
from run_tools import assert_same, saved_arrays
from test_device import assert_close
from test_offline import FB_TINY, HILP_TINY, INFO, maze_episodes, offline, state

import urlrl
from urlrl.agents.fre import FREConfig
from urlrl.agents.sf import SFConfig
from urlrl.cli import main
from urlrl.config import OfflineConfig
from urlrl.data.dataset import Dataset, DatasetInfo, write_dataset
from urlrl.errors import TrainingDiverged, UserError
from urlrl.learners.features import FeatureConfig
from urlrl.learners.skills import SkillSpace
from urlrl.runs.begin import create_agent, run_spec
from urlrl.training import memory
from urlrl.training.log import read_metrics
from urlrl.training.offline_seeds import OfflineSeeds, sample
from urlrl.training.run import RunFolder
from urlrl.types import BatchSpec, Goals
from urlrl.verbs import pretrain as verb
from urlrl.verbs.pretrain import pretrain_seeds

AGENTS = {
    "fb": FB_TINY,
    "hilp": HILP_TINY,
    "sf": SFConfig(z=SkillSpace("wide_sphere", 4), width=16, phi=FeatureConfig(width=16),
                   batch=BatchSpec(size=32, goals=Goals())),
    "fre": FREConfig(z=SkillSpace("gaussian", 4), batch=BatchSpec(size=32, futures=3), encode=8, decode=4,
                     encoder_width=16, encoder_depth=1, width=16, depth=1, rewards=("goal",), warmup=10, lr=1e-3),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "maze"
    write_dataset(folder, INFO, maze_episodes())
    return folder


@pytest.fixture(scope="module")
def three(data, tmp_path_factory):
    """Seeds 0, 1, 2 of FB that nobody disturbed."""
    return pretrain_seeds(offline(data, normalizer="fit"), [0, 1, 2], tmp_path_factory.mktemp("three"), quiet=True)


@pytest.mark.parametrize("spec", [AGENTS[name].batch for name in ("fb", "hilp", "fre")])
def test_batches_are_those_of_the_host(spec, tmp_path):
    """Also those of several seeds at once, bit for bit."""
    dataset = make_dataset(tmp_path / "data")
    columns = jax.device_put(dataset.to_draw)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    drawn = jax.jit(jax.vmap(partial(sample, columns, num_batches=3, spec=spec)))(keys)
    for i in (0, 1):
        expected = dataset.sample(jax.random.key(i), 3, spec)
        found = jax.tree.map(lambda column, i=i: column[i], drawn)
        jax.tree.map(partial(np.testing.assert_array_equal, strict=True), found, expected)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "fb" else pytest.mark.slow) for name in AGENTS]
)
def test_a_seed_among_others_is_the_seed_alone(name, data, tmp_path):
    """Within 1e-5 after 20 updates, agent and metrics; FRE changes its phase half-way."""
    config = offline(data, AGENTS[name], name, normalizer="fit")
    runs = pretrain_seeds(config, [0, 1, 2], tmp_path, quiet=True)
    alone = urlrl.pretrain(replace(config, seed=1), tmp_path / "alone", quiet=True)
    found, expected = state(runs[1]), state(alone)
    for arrays in (found["arrays"], expected["arrays"]):
        for path in [path for path in arrays if path.endswith("['key']['bias']")]:
            del arrays[path]  # Softmax does not see it: its gradient is rounding alone, which Adam makes large.
    assert_close(expected, found)
    with pytest.raises(AssertionError):
        assert_close(saved_arrays(runs[0]), saved_arrays(runs[1]))


@pytest.mark.slow
def test_fre_learns_in_one_phase_at_a_time(data, tmp_path):
    """A mapped choice runs both branches: what the other one made must not remain."""
    config = offline(data, AGENTS["fre"], "fre", normalizer="fit", snapshots=(10,))
    run = pretrain_seeds(config, [0, 1, 2], tmp_path, quiet=True)[1]
    config = urlrl.load(run)[1]
    new, middle, end = create_agent(config, run_spec(config)), urlrl.load(run, 10)[0], urlrl.load(run)[0]
    same = partial(jax.tree.map, np.testing.assert_array_equal)
    same(new.iql, middle.iql)
    same((middle.encoder, middle.decoder), (end.encoder, end.decoder))
    for before, after in ((new.encoder, middle.encoder), (middle.iql, end.iql)):
        with pytest.raises(AssertionError):
            same(before, after)


def test_runs_that_were_stopped_continue_exactly(data, three, tmp_path):
    config = offline(data, normalizer="fit")
    pretrain_seeds(replace(config, steps=10), [0, 1, 2], tmp_path, quiet=True)
    runs = pretrain_seeds(config, [0, 1, 2], tmp_path, quiet=True)
    for whole, run in zip(three, runs):
        assert_same(state(whole), state(run))


def test_runs_that_were_killed_continue_exactly(data, three, tmp_path):
    """Seed 0 had saved one checkpoint more than the others."""
    call = f"pretrain_seeds(t.offline({str(data)!r}, normalizer='fit'), [0, 1, 2], {str(tmp_path)!r}, quiet=True)"
    killed_at(("urlrl.training.saver:Saver.save", "after", 7, ""), f"import test_offline_seeds as t; t.{call}")
    newest = [RunFolder(tmp_path / f"seed-{seed}").checkpoints.steps()[-1] for seed in (0, 1, 2)]
    assert newest == [15, 10, 10]
    for whole, run in zip(three, pretrain_seeds(offline(data, normalizer="fit"), [0, 1, 2], tmp_path, quiet=True)):
        assert_same(state(whole), state(run))


def test_a_run_among_others_can_go_on_alone(data, three, tmp_path):
    """It is an ordinary run folder; nothing in it says how it was made."""
    config = offline(data, normalizer="fit")
    pretrain_seeds(replace(config, steps=10), [0, 1, 2], tmp_path, quiet=True)
    run = urlrl.pretrain(replace(config, seed=2), tmp_path / "seed-2", quiet=True)
    assert_close(state(three[2])["arrays"], state(run)["arrays"])


def test_seeds_go_back_to_the_newest_checkpoint_that_all_have(data, three, tmp_path):
    for run in three:
        shutil.copytree(run, tmp_path / run.name)
    shutil.rmtree(tmp_path / "seed-1/checkpoints/20")
    runs = pretrain_seeds(offline(data, normalizer="fit"), [0, 1, 2], tmp_path, quiet=True)
    for whole, run in zip(three, runs):
        assert_same(state(whole), state(run))


def test_a_seed_that_diverges_is_left_and_the_others_go_on(data, three, tmp_path, monkeypatch, capsys):
    honest = verb.create_agent

    def fragile(config, spec):
        agent = honest(config, spec)
        return agent if config.seed != 1 else jax.tree.map(
            lambda x: x * np.float32(1e30) if x.dtype == np.float32 else x, agent
        )  # fmt: skip

    monkeypatch.setattr(verb, "create_agent", fragile)
    config, sentence = (
        offline(data, normalizer="fit"),
        "1 of 3 seeds diverged, .*; seed 1: Training diverged at step 5: ",
    )
    with pytest.raises(TrainingDiverged, match=sentence):
        pretrain_seeds(config, [0, 1, 2], tmp_path, quiet=True)
    assert not (tmp_path / "seed-1/checkpoints").exists()
    monkeypatch.setattr(verb, "create_agent", honest)
    runs = pretrain_seeds(config, [0, 1, 2], tmp_path, quiet=True)
    for i in (0, 2):
        assert_same(state(three[i]), state(runs[i]))
    assert_close(state(three[1])["arrays"], state(runs[1])["arrays"])


def seeds_of(config: OfflineConfig, seeds, devices) -> OfflineSeeds:
    agents = {seed: create_agent(replace(config, seed=seed), run_spec(config)) for seed in seeds}
    return OfflineSeeds(config, agents, Dataset(config.data), devices)


SHARDED = """
import jax, sys
from test_device import assert_close
from test_offline import offline
from test_offline_seeds import seeds_of
config, devices = offline(sys.argv[1]), jax.devices()
assert len(devices) == 8
sharded, alone = seeds_of(config, range(8), devices), seeds_of(config, [6], devices[:1])
for _ in range(4):
    outcomes, (outcome,) = sharded.epoch(), alone.epoch()
assert sharded.step == sharded.updates == 20 and len(jax.tree.leaves(sharded.agents)[0].sharding.device_set) == 8
assert {len(column.sharding.device_set) for column in sharded.data} == {8}
assert_close(outcome, outcomes[6])
assert_close(alone.runs[0].state(), sharded.runs[6].state())
"""


@pytest.mark.slow
def test_seeds_are_shared_out_over_devices(data):
    """Eight virtual ones: 20 updates are those of one device, within 1e-5."""
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_multi_thread_eigen=false"
    env = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
    command = [sys.executable, "-c", SHARDED, str(data)]
    done = subprocess.run(command, cwd=Path(__file__).parent, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]


def test_what_does_not_fit_is_refused_before_it_starts(data, tmp_path, monkeypatch):
    """40 episodes of 26 rows of 2 + 2 + 1 floats and a bool, 41 starts; batches of 5 x 32 transitions."""
    config = offline(data, replace(FB_TINY, batch=replace(FB_TINY.batch, goals=Goals())))
    seeds = seeds_of(config, [0], jax.devices())
    assert seeds.sizes() == (40 * 26 * 21 + 41 * 4, 5 * 32 * 4 * (2 + 2 + 1 + 1 + 2 + 2 + 1))
    monkeypatch.setattr(memory, "available", lambda devices: 2**20)
    config = offline(data, updates=4_000)  # 4,000 x 32 transitions of 8 floats
    message = r"2 seeds on .* need at least 8 MiB \(0 MiB of data on each device, 4 of batches .* the 1 MiB that are"
    with pytest.raises(UserError, match=message):
        pretrain_seeds(config, [0, 1], tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    {
        "fb --data {data} --seeds 0,1,0": "seeds are 0, 1, 0: expected each once, at least one.",
        "fb --data {data} --seeds 0..1 --seed 1": "Options '--seed' and '--seeds' exclude each other",
        "fb --data {data} --seeds 0..1 --loop device": "Unknown option '--loop'",
        "fb --seeds 0..1": "expected --data DIR",
        "fb --data {data}/none --seeds 0..1": "is not a dataset: it has no dataset.json",
        "fb --data {data} --seeds 0..1 --env half_cheetah": "expected 18 and 6",
        "metra --data {data} --seeds 0..1": "Agent Metra cannot learn from transitions that others collected",
    }.items(),
)
def test_bad_input_gets_one_sentence(options, message, data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", *options.format(data=data).split(), "--out", str(tmp_path / "x")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_command_makes_ordinary_runs_and_one_report(data, tmp_path, capsys):
    options = "--agent.z.dim 4 --agent.width 16 --agent.backward-width 16 --agent.batch.size 32 --agent.lr 1e-3"
    options += " --steps 20 --updates 5 --eval-every 10 --quiet --seeds 0..2"
    main(["pretrain", "fb", "--data", str(data), *options.split(), "--out", str(tmp_path / "x")])
    runs = sorted((tmp_path / "x").iterdir())
    assert [run.name for run in runs] == [f"seed-{seed}" for seed in range(3)]
    assert f"urlrl evaluate {runs[0]} --suite maze-v1/8x8; urlrl report {tmp_path}/x/seed-*" in capsys.readouterr().out
    for seed, run in enumerate(runs):
        assert urlrl.load(run)[1].seed == seed
        rows = read_metrics(run / "metrics.jsonl")
        assert [row["step"] for row in rows if "eval/coverage" in row] == [0, 10, 20]
        assert rows[-1]["time/device_share"] > 0 and "time/env_steps_per_s" not in rows[-1]
    main(["report", *map(str, runs), "--json", str(tmp_path / "x.json")])
    assert "fb on maze:8x8, step 20, seeds 0, 1, 2" in capsys.readouterr().out
    coverage = json.loads((tmp_path / "x.json").read_text())["metrics"]["coverage, 1 m cells"]["agent"]
    assert len(coverage["values"]) == 3 and coverage["estimate"] == {
        "value": np.mean(coverage["values"]),
        "low": None,
        "high": None,
    }
    assert urlrl.prompt(runs[2], goal={"x": 1.0, "y": -1.0}, out=tmp_path / "prompt")["kind"] == "goal"


def test_data_of_no_environment_logs_what_a_run_alone_logs(tmp_path):
    write_dataset(tmp_path / "data", DatasetInfo("", "a test"), maze_episodes())
    config = offline(tmp_path / "data", eval_every=5, steps=5)
    run = pretrain_seeds(config, [0, 1, 2], tmp_path / "x", quiet=True)[0]
    alone = urlrl.pretrain(config, tmp_path / "alone", quiet=True)
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [5]
    assert_close(state(alone), state(run))
