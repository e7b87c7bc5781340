"""Training on the device is training on the host: the same transitions, the same agent, many seeds at once."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_tools import TINY, assert_same, damage_checkpoint, final_state, saved_arrays, transitions
from test_contracts import config_of

import urlrl
from urlrl.agents.hilp import HILPConfig
from urlrl.agents.uniform import UniformConfig
from urlrl.cli import main
from urlrl.data.device_replay import rings
from urlrl.data.replay import Replay
from urlrl.data.rows import transition_fields, z_field
from urlrl.envs import make_device_env, point
from urlrl.errors import TrainingDiverged, UserError
from urlrl.learners.skills import SkillSpace
from urlrl.runs.begin import create_agent, run_spec
from urlrl.training import memory
from urlrl.training.device import FLOWS, _broken, advance
from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder
from urlrl.training.seeds import Seeds
from urlrl.training.stacked import pick_agent
from urlrl.types import BatchSpec, DeviceEnv, EnvSpec, Goals
from urlrl.verbs import pretrain as verb
from urlrl.verbs.pretrain import pretrain_seeds, skill_metrics

SHORT = replace(TINY, checkpoint_minutes=60, eval_every=160)
ENVS = ["point", "maze:rooms", "maze:8x8_fixed", "maze:rings_mass", "maze:rooms_fixed_mass_cells"]


def seeds_of(config, seeds, devices=None) -> Seeds:
    env = make_device_env(config.env, episode_steps=config.episode_steps)
    agents = {seed: create_agent(replace(config, seed=seed), env.env_spec) for seed in seeds}
    return Seeds(config, agents, env, devices or jax.devices()[:1])


def assert_close(a, b) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


@pytest.mark.parametrize("name", ENVS)
def test_an_environment_is_the_hosts(name):
    """The same starts from the same keys, the same steps."""
    host, device, rng = urlrl.make_env(name, 4), make_device_env(name), np.random.default_rng(0)
    assert device.env_spec == host.env_spec
    obs, _ = host.reset(seed=5)
    start = lambda lane: device.reset(jax.random.fold_in(jax.random.fold_in(jax.random.key(5), lane), 0))  # noqa: E731
    state = jax.jit(jax.vmap(start))(jnp.arange(4))
    step = jax.jit(jax.vmap(device.step))
    for _ in range(20):
        np.testing.assert_allclose(state.obs, obs, atol=1e-6)
        np.testing.assert_allclose(state.position, host.position(), atol=1e-6)
        np.testing.assert_allclose(state.physics, host.physics(), atol=1e-6)
        action = rng.uniform(-1.5, 1.5, (4, 2)).astype(np.float32)
        state = step(state, jnp.asarray(action))
        obs, reward, terminated, _, _ = host.step(action)
        np.testing.assert_allclose(state.reward, reward, atol=1e-5)
        np.testing.assert_array_equal(state.terminated, terminated)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype("float32"), np.dtype("bool")}


FIELDS = transition_fields(EnvSpec("toy", 3, 2, 10, 0.1, physics=(("qpos", 2),)), z_field(2))


@pytest.mark.parametrize(
    ("shape", "sizes", "seed", "timeout_as_terminal", "goals"),
    [
        ((5, 1, 1), (), 0, False, False),
        ((8, 2, 1), (1, 2, 3), 1, True, True),  # The ring is full, and its oldest rows are overwritten.
        ((16, 4, 2), (1, 2, 1, 3), 2, False, True),
        ((18, 6, 6), (2, 1, 2), 3, True, False),
    ],
)
def test_both_replays_draw_the_same_batches(shape, sizes, seed, timeout_as_terminal, goals):
    """The first rows are loaded, as a run that goes on has them, and the others added."""
    capacity, lanes, parts = shape
    rng, host = np.random.default_rng(seed), Replay(capacity, FIELDS, lanes, parts)

    def some(n):
        return {name: (2 * rng.random((n, *shape))).astype(dtype) for name, (shape, dtype) in FIELDS.items()}

    host.add(rows := some(lanes))
    device = jax.tree.map(lambda x: x[0], rings(capacity, FIELDS, lanes, parts, lanes, [rows], jnp.asarray))
    for n in sizes:
        host.add(rows := some(n * lanes))
        device = device.add(
            {
                name: jnp.asarray(column.reshape(n, lanes, *column.shape[1:]), device.data[name].dtype)
                for name, column in rows.items()
            }
        )
    spec = BatchSpec(24, timeout_as_terminal, goals=Goals(current=0.1) if goals else None, futures=3 * goals)
    expected, found = (ring.sample(jax.random.key(seed), 3, spec) for ring in (host, device))
    jax.tree.map(np.testing.assert_array_equal, expected, found)


@pytest.fixture(scope="module")
def host_run(tmp_path_factory):
    return urlrl.pretrain(replace(SHORT, seed=1), tmp_path_factory.mktemp("host") / "run", quiet=True)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Seeds 0, 1, 2 that nobody disturbed."""
    return pretrain_seeds(SHORT, [0, 1, 2], tmp_path_factory.mktemp("three"), quiet=True)


def assert_close_runs(a: Path, b: Path, steps: int = TINY.steps) -> None:
    """Agents, transitions and metrics are equal within 1e-5, after 24 updates."""
    agents = [{k: v for k, v in saved_arrays(run).items() if k.startswith("agent")} for run in (a, b)]
    assert agents[0].keys() == agents[1].keys()
    assert_close(*agents)
    assert_close(transitions(a)[1], transitions(b)[1])
    logs = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(run / "metrics.jsonl")]
        for run in (a, b)
    ]
    assert logs[0][-1]["step"] == steps and "phi/loss" in logs[0][-1]
    assert_close(*logs)


def test_a_run_on_the_device_is_the_hosts(host_run, tmp_path):
    """Its own loop, the same keys: episodes, skills, batches and updates are those of the host's loop."""
    run = urlrl.pretrain(replace(SHORT, seed=1, loop="device"), tmp_path / "run", quiet=True)
    assert_close_runs(host_run, run)


@pytest.mark.slow
def test_staggered_resets_and_parts_are_those_of_the_hosts_loop(tmp_path):
    """The first episodes are cut short one after another, all later ones are whole."""
    config = replace(SHORT, num_envs=4, stagger_resets=True, replay_parts=2, eval_every=0)
    runs = [urlrl.pretrain(replace(config, loop=loop), tmp_path / loop, quiet=True) for loop in ("host", "device")]
    assert_close_runs(*runs)
    _, rows = transitions(runs[1])
    ends = np.argwhere(rows["truncated"].reshape(-1, 4).T)
    assert [[t for lane, t in ends if lane == i][:2] for i in range(4)] == [[14, 29], [11, 26], [7, 22], [3, 18]]


@pytest.mark.slow
def test_an_agent_that_wants_goals_learns_on_either_side(tmp_path):
    agent = HILPConfig(z=SkillSpace("sphere", 4), width=16, depth=2, batch=BatchSpec(32, goals=Goals()))
    config = replace(SHORT, agent=agent, agent_name="hilp", env="maze:rooms", normalizer="off", eval_every=0)
    runs = [urlrl.pretrain(replace(config, loop=loop), tmp_path / loop, quiet=True) for loop in ("host", "device")]
    agents = [{k: v for k, v in saved_arrays(run).items() if k.startswith("agent")} for run in runs]
    assert_close(*agents)


def test_coverage_can_be_measured_elsewhere(tmp_path):
    """In another simulator of the same body, say; what is learned stays the same."""
    config = replace(SHORT, seed=1, eval_env="maze:rooms_fixed")
    run = urlrl.pretrain(replace(config, steps=160, eval_env=None), tmp_path / "run", quiet=True)
    urlrl.pretrain(config, run, quiet=True)
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "eval/coverage" in row]
    plain = urlrl.pretrain(replace(SHORT, seed=1), tmp_path / "plain", quiet=True)
    other = [row for row in read_metrics(plain / "metrics.jsonl") if "eval/coverage" in row]
    assert [row["step"] for row in rows] == [row["step"] for row in other] == [0, 160, 320]
    measured = [row["eval/coverage"] for row in rows]
    assert measured[:2] == [row["eval/coverage"] for row in other[:2]]
    agent, _ = urlrl.load(run)
    assert (
        measured[2]
        == skill_metrics(config, urlrl.make_env("maze:rooms_fixed", 48, episode_steps=15))(agent, 320)["eval/coverage"]
    )
    assert_same(*({"arrays": final_state(each)["arrays"]} for each in (run, plain)))
    with pytest.raises(
        UserError, match=r"eval_env 'half_cheetah' has .*\(18, 6, \('x',\)\): expected \(2, 2, .*'point'"
    ):
        urlrl.pretrain(replace(config, eval_env="half_cheetah"), tmp_path / "x", quiet=True)


def test_a_run_says_what_it_ran_on(three):
    manifest = json.loads((three[0] / "config.json").read_text())
    assert manifest["config"]["precision"] == "float32"
    assert manifest["versions"]["backend"] == "cpu" and manifest["versions"]["devices"].endswith("x cpu")


def test_a_mapped_seed_is_the_seed_alone(host_run, three):
    assert_close_runs(host_run, three[1])


def test_no_transition_straddles_a_reset_or_a_change_of_skill(three):
    n = TINY.num_envs
    for run in three:
        _, rows = transitions(run)
        ended = (rows["terminated"] | rows["truncated"])[:-n]
        same = {name: (rows[name][n:] == rows[other][:-n]).all(axis=1) for name, other in
                {"obs": "next_obs", "z": "z"}.items()}  # fmt: skip
        for goes_on in same.values():
            np.testing.assert_array_equal(goes_on, ~ended)
        clock = np.arange(len(rows["obs"])) // n % TINY.episode_steps
        np.testing.assert_array_equal(rows["truncated"], clock == TINY.episode_steps - 1)


def test_runs_that_were_stopped_continue_exactly(three, tmp_path):
    pretrain_seeds(replace(SHORT, steps=160), [0, 1, 2], tmp_path, quiet=True)
    runs = pretrain_seeds(SHORT, [0, 1, 2], tmp_path, quiet=True)
    for whole, run in zip(three, runs):
        assert_same(final_state(whole), final_state(run))
        np.testing.assert_equal(transitions(whole), transitions(run))


@pytest.mark.parametrize("harm", ["killed between the checkpoints of two seeds", "a damaged checkpoint"])
def test_seeds_go_back_to_the_newest_checkpoint_that_all_have(three, tmp_path, harm, capsys):
    runs = pretrain_seeds(replace(SHORT, steps=160), [0, 1, 2], tmp_path, quiet=True)
    runs = pretrain_seeds(replace(SHORT, steps=240), [0, 1, 2], tmp_path, quiet=True)
    if harm.startswith("killed"):
        shutil.rmtree(runs[2] / "checkpoints/240")
    else:
        damage_checkpoint(runs[1], 240, "flip")
    pretrain_seeds(SHORT, [0, 1, 2], tmp_path, quiet=True)
    assert ("seed-1" in capsys.readouterr().err) == harm.startswith("a damaged")
    for whole, run in zip(three, runs):
        assert_same(final_state(whole), final_state(run))


def test_seeds_that_were_killed_in_their_first_save_begin_again(tmp_path):
    """Also their normalisers, which a checkpoint would hold."""
    config = replace(SHORT, env="maze:8x8_fixed", steps=40, min_replay=99, eval_every=0)
    runs = pretrain_seeds(config, [0, 1], tmp_path, quiet=True)
    whole = [final_state(run) for run in runs]
    shutil.rmtree(runs[1] / "checkpoints/40")
    pretrain_seeds(config, [0, 1], tmp_path, quiet=True)
    for before, run in zip(whole, runs):
        assert_same(before, final_state(run))
    assert whole[0]["arrays"]["agent['normalizer']['std']"].max() > 1.5


def test_a_seed_that_comes_later_does_not_make_the_others_begin_again(three, tmp_path):
    for run in three[:2]:
        shutil.copytree(run, tmp_path / run.name)
    runs = pretrain_seeds(SHORT, [0, 7, 1], tmp_path, quiet=True)
    for before, run in ((three[0], runs[0]), (three[1], runs[2])):
        assert_same(final_state(before), final_state(run))
    assert RunFolder(runs[1]).checkpoints.steps()[-1] == 320


def test_a_seed_that_diverges_is_left_and_the_others_go_on(three, tmp_path, monkeypatch, capsys):
    honest = verb.create_agent

    def fragile(config, *rest):
        agent = honest(config, *rest)
        huge = jax.tree.map(lambda x: x * np.float32(1e30), agent.sac.critic.params)
        return agent.replace(sac=agent.sac.replace(critic=agent.sac.critic.replace(params=huge))) if (
            config.seed == 1
        ) else agent  # fmt: skip

    monkeypatch.setattr(verb, "create_agent", fragile)
    sentence = r"1 of 3 seeds diverged, the others are done; seed 1: Training diverged at step 40: .* finite numbers\.$"
    for _ in range(2):  # The second time the other seeds have nothing left to do.
        with pytest.raises(TrainingDiverged, match=sentence):
            pretrain_seeds(SHORT, [0, 1, 2], tmp_path, quiet=True)
        assert "seed-1: Training diverged at step 40" in capsys.readouterr().err
    assert not (tmp_path / "seed-1/checkpoints").exists()
    monkeypatch.setattr(verb, "create_agent", honest)
    runs = pretrain_seeds(SHORT, [0, 1, 2], tmp_path, quiet=True)
    for i in (0, 2):
        assert_same(final_state(three[i]), final_state(runs[i]))
    assert_close_runs(three[1], runs[1])


SHARDED = """
import jax, numpy as np
from dataclasses import replace
from test_device import SHORT, assert_close, seeds_of
assert len(jax.devices()) == 8
sharded = seeds_of(SHORT, range(8), jax.devices())
for _ in range(8):
    outcomes = sharded.epoch()
assert sharded.updates >= 20 and len(sharded.state.agent.dual.log_value.sharding.device_set) == 8
for seed in (0, 4, 7):
    alone = seeds_of(SHORT, [seed])
    for _ in range(8):
        (outcome,) = alone.epoch()
    assert_close(outcome, outcomes[seed])
    assert_close(alone.runs[0].state(), sharded.runs[seed].state())
    assert_close(alone.runs[0].replay.read(280, 320), sharded.runs[seed].replay.read(280, 320))
assert seeds_of(SHORT, range(6), jax.devices()).mesh.size == 6  # The most that divide them.
assert seeds_of(SHORT, range(9), jax.devices()).mesh.size == 3

config = replace(SHORT, num_envs=8, rollout_steps=10, steps_per_update=20, replay_parts=8, replay_capacity=400)
for seeds in ([3], [3, 4]):
    split, alone = seeds_of(config, seeds, jax.devices()), seeds_of(config, [3])
    for _ in range(6):
        outcome, expected = split.epoch()[0], alone.epoch()[0]
    assert alone.updates >= 20
    assert_close(expected, outcome)
    assert_close(alone.runs[0].state(), split.runs[0].state())
    assert_close(alone.runs[0].replay.read(400, 480), split.runs[0].replay.read(400, 480))
    assert split.state.replay.data["obs"].sharding.shard_shape((len(seeds), 8, 50, 2)) == (1, len(seeds), 50, 2)
    assert split.state.lanes.clock.sharding.shard_shape((len(seeds), 8)) == (1, len(seeds))
lines = split.programs[True].lower(split.state).compile().as_text().splitlines()
assert any(" all-reduce(" in line for line in lines)  # of gradients
assert not any(" all-gather(" in line and ",50," in line for line in lines)  # of the replay's parts of 50 rows
try:
    seeds_of(replace(config, replay_parts=2), [3], jax.devices())
except Exception as error:
    print(error)
"""


@pytest.mark.slow
def test_seeds_are_shared_out_over_devices():
    """Eight virtual ones: 24 updates are those of one device, within 1e-5."""
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_multi_thread_eigen=false"
    env = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
    done = subprocess.run([sys.executable, "-c", SHARDED], cwd=Path(__file__).parent, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert done.stdout.decode() == (
        "8 devices are 8 for each of 1 seeds at a time, and replay_parts is 2: expected a multiple of 8, and a batch "
        "that it divides.\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--env point --seeds 0,1,0", "seeds are 0, 1, 0: expected each once, at least one."),
        ("--env point --seeds 3..1", "Option '--seeds' is '3..1': expected whole numbers, as in 0..4 or 0,3."),
        ("--env point --seeds 4294967296", "seed is 4294967296: expected a number of at least 0"),
        ("--env poimt --seeds 0..1", "Unknown environment 'poimt': did you mean 'point'?"),
        ("--env maze:rom --seeds 0..1", "Unknown environment 'maze:rom': did you mean 'maze:rooms'?"),
        (
            "--env half_cheetah --loop device --seeds 0..1",
            "Environment 'half_cheetah' has no device version: expected point, maze:<layout>[_fixed][_mass][_cells], "
            "block:<line>, rooms:<world>, tv:rooms[_quiet], mjx:ant, mjx:half_cheetah, ",
        ),
        (
            "--env point --seed 1 --seeds 0..1",
            "Options '--seed' and '--seeds' exclude each other: expected one of them.",
        ),
        ("--env point --loop dev", "Option '--loop' is 'dev': expected one of host, device."),
    ],
)
def test_bad_input_gets_one_sentence(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "metra", *options.split(), "--out", str(tmp_path / "x")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_what_does_not_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda devices: 100 * 2**20)
    big = replace(TINY, replay_capacity=2_000_000, steps=2_000_000)
    with pytest.raises(UserError, match=r"2 seeds need at least 1\d\d MiB \(72 MiB of replay, .* the 100 MiB that are"):
        pretrain_seeds(big, [0, 1], tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())


def test_free_memory_is_what_the_devices_say():
    def device(**stats):
        return SimpleNamespace(platform="gpu", memory_stats=lambda: stats or None)

    assert memory.available([device(bytes_limit=100, bytes_in_use=30), device(bytes_limit=100)]) == 140
    assert memory.available([device(bytes_limit=100), device()]) is None
    assert memory.available(jax.devices()[:1]) > 2**20


def test_a_command_with_two_seeds_makes_two_runs_and_one_report(tmp_path, capsys):
    options = "--preset point-quick --env point --num-envs 64 --seeds 0..1 --steps 25600 --steps-per-update 64"
    main(["pretrain", "metra", *options.split(), "--eval-every", "0", "--quiet", "--out", str(tmp_path / "x")])
    runs = sorted((tmp_path / "x").iterdir())
    assert [run.name for run in runs] == ["seed-0", "seed-1"]
    for seed, run in enumerate(runs):
        _, config = urlrl.load(run)
        assert (config.seed, config.loop) == (seed, "device") and (run / "replay").is_dir()
    main(["report", *map(str, runs), "--json", str(tmp_path / "x.json")])
    said = capsys.readouterr().out
    assert "metra on point, step 25,600, seeds 0, 1" in said and "below 5 the mean without an interval" in said
    coverage = json.loads((tmp_path / "x.json").read_text())["metrics"]["coverage, 1 m cells"]
    skills, random = (coverage[who]["estimate"] for who in ("agent", "random"))
    assert skills["value"] > 2 * random["value"], coverage
    exported = urlrl.export(runs[0], tmp_path / "bundle")
    assert Path(exported).is_dir()


def test_reports_of_runs_that_differ_in_more_than_their_seed(three, host_run, tmp_path, capsys):
    other = pretrain_seeds(replace(SHORT, steps=40, min_replay=99), [5], tmp_path, quiet=True)
    for runs, message in [
        ([three[0], *other], "min_replay is 40 in "),
        ([three[1], host_run], "both have seed 1: expected each seed once."),
    ]:
        with pytest.raises(SystemExit):
            main(["report", *map(str, runs)])
        assert message in capsys.readouterr().err


def test_an_agent_that_learns_nothing_runs_too(tmp_path):
    config = replace(SHORT, agent=UniformConfig(), agent_name="uniform", env="maze:rooms", steps=80, steps_per_update=0)
    (run,) = pretrain_seeds(config, [3], tmp_path, quiet=True)
    assert len(transitions(run)[1]["obs"]) == 80 and run_spec(config).obs_dim == 2


def test_a_reward_on_the_device_that_is_not_finite_stops_its_seed():
    env, zero = point.device_env(20), jnp.zeros((), jnp.int32)

    def begin(key):
        state = env.reset(key)
        return state._replace(sim=(state.sim, zero))

    def step(state, action):
        xy, clock = state.sim
        after = env.step(state._replace(sim=xy), action)
        return after._replace(sim=(after.sim, clock + 1), reward=jnp.where(clock == 2, jnp.nan, after.reward))

    config = replace(SHORT, rollout_steps=5, loop="device")
    seeds = Seeds(config, {0: create_agent(config, env.env_spec)}, DeviceEnv(env.env_spec, begin, step), jax.devices())
    (outcome,) = seeds.epoch()
    assert type(outcome) is UserError  # As on the host: it is the environment that is wrong, and not the learner.
    assert str(outcome).startswith("Environment 'point' returned a non-finite reward (lane 0, step 3 of its episode)")


@pytest.mark.parametrize(
    ("name", "step", "lane", "expected"),
    [
        ("obs", 2, 1, (True, "obs", 1, 2)),  # The third row begins where two steps have led.
        ("action", 2, 1, (True, "action", 1, 3)),
        ("next_obs", 0, 2, (True, "next_obs", 2, 1)),
        ("reward", 3, 0, (True, "reward", 0, 4)),
        ("nothing", 0, 0, (False, "obs", 0, 0)),
    ],
)
def test_the_first_number_on_the_device_that_is_not_finite_is_found(name, step, lane, expected):
    widths = {"obs": (2,), "action": (3,), "next_obs": (2,), "reward": ()}
    rows = {name: np.zeros((4, 3, *width), np.float32) for name, width in widths.items()}
    clock = np.repeat(np.arange(1, 5, dtype=np.int32)[:, None], 3, axis=1)
    if name in rows:
        rows[name][step, lane] = np.inf
        rows["reward"][3, 2] = np.nan  # later
    found = _broken(jax.tree.map(jnp.asarray, rows), jnp.asarray(clock))
    assert (bool(found.any), list(FLOWS)[found.flow], int(found.lane), int(found.step)) == expected


@pytest.mark.parametrize("agent", ["metra", "on-policy"])
def test_an_epoch_lowers_for_other_accelerators(agent):
    """The program of an epoch, learning included, can be given to TPUs and to NVIDIA's GPUs."""
    env = make_device_env("point", episode_steps=12)
    config = replace(SHORT, loop="device") if agent == "metra" else config_of("on-policy")
    seeds = Seeds(config, {0: create_agent(config, env.env_spec)}, env, jax.devices()[:1])
    placed = seeds._place()
    state = jax.tree.map(lambda x: x[0], placed._replace(agent=None))
    state = state._replace(agent=pick_agent(seeds.axes, placed.agent, 0))
    program = jax.jit(partial(advance, env, config, True))
    exported = jax.export.export(program, platforms=("tpu", "cuda"))(state)
    assert exported.platforms == ("tpu", "cuda") and "stablehlo.while" in exported.mlir_module()
