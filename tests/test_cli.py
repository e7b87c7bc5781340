"""The command line: what it prints, one sentence for each mistake, and a user's own agent and environment."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import urlrl
from urlrl import cli
from urlrl.cli import READERS, VERBS, main
from urlrl.loading import OPTIONS
from urlrl.presets import all_presets

# The networks of test_runs.py, so that programs are compiled once for both.
TINY = shlex.split(
    "--num-envs 2 --episode-steps 15 --rollout-steps 20 --steps-per-update 13 --min-replay 40 "
    "--replay-capacity 150 --steps 80 --eval-every 0 --agent.width 16 --agent.lr 1e-3 --agent.batch.size 32 --quiet"
)
# A user's module: an agent, environments good and bad, and things that are neither.
MINE = """
from dataclasses import dataclass
from types import SimpleNamespace

import gymnasium
import numpy as np
from urlrl.agents.metra import Metra, MetraConfig
from urlrl.types import BatchSpec

class Agent(Metra):
    Config = MetraConfig

class NoConfig:
    pass

class NoClass:
    Config = MetraConfig()

@dataclass(frozen=True)
class NoSkills:
    z: int = 2
    batch: BatchSpec = BatchSpec()

@dataclass(frozen=True)
class NoBatch(MetraConfig):
    batch: int = 256

Skillless, Batchless = SimpleNamespace(Config=NoSkills), SimpleNamespace(Config=NoBatch)

class Walk(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0.1 * self.np_random.standard_normal(2)
        return self._obs(), {}

    def step(self, action):
        self.place = self.place + action
        return self._obs(), 0.0, False, False, {}

    def _obs(self):
        return self.place.astype(np.float32)

class Map(Walk):
    metadata = {"position": {"names": ["x", "y"], "obs_index": [0, 1], "goal_box": [5.0, 5.0], "control_dt": 0.1}}

class Camera(Walk):
    observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)

class Broken(Walk):
    def _obs(self):
        return np.full(2, np.nan, np.float32)

class Lost(Walk):
    metadata = {"position": {"names": ["x"], "obs_index": [7]}}

number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with the user's module `mine`, as the working directory: a console script finds modules there."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run on `point`, made by the command line."""
    folder = tmp_path_factory.mktemp("run") / "run"
    main(["pretrain", "metra", "--env", "point", *TINY, "--out", str(folder)])
    return folder


def test_lists_of_numbers_are_checked(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "metra", "--snapshots", "100", "x"])
    assert capsys.readouterr().err == "urlrl: Option '--snapshots' is 'x': expected whole numbers.\n"


def test_usage(capsys):
    for argv in ([], ["--help"], ["-h"]):
        main(argv)
        said = capsys.readouterr()
        assert not said.err
        for verb in VERBS:
            assert f"urlrl {verb}" in said.out


def help_of(argv, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--help"])
    said = capsys.readouterr()
    assert stop.value.code == 0 and f"urlrl {' '.join(argv)}" in said.out and not said.err
    return said.out


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "data"])
def test_every_verb_has_help(verb, capsys):
    """It names the options that are taken before tyro sees any, here and in `main`."""
    said, source = help_of([verb], capsys), (Path(cli.__file__).parent / f"{verb}.py").read_text()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    taken = {ast.literal_eval(call.args[1]) for call in calls if ast.unparse(call.func) in ("take", "take_flag")}
    assert bool(taken) == (verb in ("pretrain", "compare", "adapt"))
    taken |= set() if verb in ("agents", "tasks", "presets", "doctor") else {"--trust"}
    taken |= {f"{option} NAME" for option in OPTIONS.values()} if verb in READERS else set()
    assert [option for option in taken if not re.search(rf"{option}(?![\w.-])", said)] == []


@pytest.mark.parametrize("verb", ["info", "validate", "convert", "collect", "relabel", "export"])
def test_every_verb_of_data_has_help(verb, capsys):
    assert "--trust" in help_of(["data", verb], capsys)


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"{urlrl.__version__}\n"


def test_presets_are_listed_with_their_source_and_cost(capsys):
    main(["presets"])
    lines = capsys.readouterr().out.splitlines()
    for agent, presets in all_presets().items():
        for name, entry in presets.items():
            (line,) = [line for line in lines if line.split()[:2] == [agent, name]]
            assert entry.source in line and entry.cost in line and f" {entry.config.steps:,} " in line
            assert f" {entry.config.env or 'a dataset'} " in line
    assert len(lines) == 1 + sum(map(len, all_presets().values()))  # No row is folded.


def test_dry_run_prints_the_resolved_config_and_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = (
        "--agent.lr 3e-4 --agent.z.kind onehot --agent.z.dim=16 --agent.sac.no-learn-alpha --keep_data window --seed 7"
    )
    main(["pretrain", "metra", "--preset", "ant-quick", "--dry-run", *options.split()])
    shown = json.loads(capsys.readouterr().out)
    config, preset = shown["config"], urlrl.preset("metra", "ant-quick")
    assert shown["out"] == "runs/metra-ant-quick-7" and not list(tmp_path.iterdir())
    assert config["agent"]["lr"] == 3e-4 and config["agent"]["z"] == {"kind": "onehot", "dim": 16}
    assert config["agent"]["sac"]["learn_alpha"] is False and config["keep_data"] == "window" and config["seed"] == 7
    assert config["agent"]["width"] == preset.agent.width and config["env"] == preset.env


def test_what_comes_next_can_be_pasted_and_a_path_may_begin_at_home(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("urlrl.verbs.pretrain.pretrain", lambda config, out, **options: out)
    monkeypatch.setattr("urlrl.verbs.pretrain.pretrain_seeds", lambda config, seeds, out, **options: [out / "seed-0"])
    for out in (["--out", "~/my runs"], ["--out=~/my runs"]):
        main(["pretrain", "metra", "--preset", "point-quick", *out])
        run = f"{tmp_path}/my runs"
        said = capsys.readouterr().out.strip()
        assert said == f"Done. Next: urlrl evaluate '{run}'; urlrl report '{run}'"
    main(["pretrain", "metra", "--preset", "point-quick", "--seeds", "0..1", "--out", "my runs"])
    assert capsys.readouterr().out.strip().endswith("urlrl evaluate 'my runs/seed-0'; urlrl report 'my runs'/seed-*")


def test_a_preset_for_a_gpu_says_so_where_there_is_none(monkeypatch, capsys):
    monkeypatch.setattr("urlrl.verbs.pretrain.pretrain", lambda config, out, **options: out)
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    main(["pretrain", "metra", "--preset", "mjx-ant"])
    assert "Preset 'mjx-ant' is made for a GPU (it takes: a GPU, 7 minutes" in capsys.readouterr().err
    main(["pretrain", "metra", "--preset", "point-quick"])
    assert not capsys.readouterr().err
    costs = [entry for presets in all_presets().values() for entry in presets.values()]
    assert all(entry.for_gpu == ("GPU" in entry.cost or "H200" in entry.cost) for entry in costs)


def test_a_backend_that_is_not_there_is_a_sentence(tmp_path):
    command = [sys.executable, "-m", "urlrl", "pretrain", "metra", "--preset", "point-quick", "--out", str(tmp_path)]
    ran = subprocess.run(command, env={**os.environ, "JAX_PLATFORMS": "rocm"}, capture_output=True, text=True)
    assert ran.returncode == 2 and "urlrl: JAX cannot start on 'rocm', as JAX_PLATFORMS says" in ran.stderr
    assert "Traceback" not in ran.stderr


# What was typed -> what the sentence says (test_config.py tests the ranges of all numbers). `mine` is the
# user's module, RUN a finished run.
MISTAKES = {
    "pretrian": "Unknown command 'pretrian': did you mean 'pretrain'?",
    "pretrain metro": "Unknown agent 'metro': did you mean 'metra'?",
    "pretrain --agent metro": "Unknown agent 'metro': did you mean 'metra'?",
    "pretrain --agent nomodule:Class": "Cannot import the agent 'nomodule:Class'",
    "pretrain --agent mine:Nobody": "module 'mine' has no 'Nobody'",
    "pretrain --agent mine:NoConfig": "Agent 'mine:NoConfig' has no attribute 'Config'",
    "pretrain --agent mine:NoClass": "'mine:NoClass.Config' is MetraConfig(",
    "pretrain --agent mine:Skillless": "'mine:Skillless.Config' has 2 as 'z': expected a SkillSpace",
    "pretrain --agent mine:Batchless": "'mine:Batchless.Config' has 256 as 'batch': expected a BatchSpec.",
    "pretrain --agent ./mine.py:Agent": "expected 'module:name', a module such as 'my_agents', not a path.",
    "pretrain --agent folder/mine.py:Agent": "Cannot import the agent 'folder/mine.py:Agent': expected 'module:name'",
    "pretrain --agent mine.py:Agent": "Cannot import the agent 'mine.py:Agent': expected 'module:name'",
    "pretrain --agent a..b:Agent": "Cannot import the agent 'a..b:Agent': expected 'module:name'",
    "pretrain --agent mine:Agent --preset half-cheetah-quick": "Agent 'mine:Agent' has no presets of its own, such as "
    "'half-cheetah-quick': expected one of another agent, as ",
    "pretrain --agent mine:Agent --preset metra/ant-quik": "Unknown preset of agent 'metra' 'ant-quik': did you mean",
    "pretrain --agent mine:Agent --preset metro/ant-quick": "Unknown agent of a preset 'metro': did you mean 'metra'?",
    "pretrain metra --preset ant-quik": "Unknown preset of agent 'metra' 'ant-quik': did you mean 'ant-quick'?",
    "pretrain --preset": "Option '--preset' has no value",
    "pretrain --out --dry-run": "Option '--out' has no value",
    "pretrain --agent.lrr 1": "Unknown option '--agent.lrr': did you mean '--agent.lr'?",
    "pretrain --agent.gamma 0.9": "Unknown option '--agent.gamma': did you mean '--agent.sac.gamma'?",
    "pretrain --agent.no-learn-alpha": "did you mean '--agent.sac.no-learn-alpha'?",
    "pretrain hilp --agent.tau=0.1": "did you mean '--agent.iql.tau'?",
    "pretrain fre --agent.iql.bins.num 3": "Unknown option '--agent.iql.bins.num'",
    "pretrain rnd --agent.noise 0.1": "did you mean '--agent.ddpg.noise'?",
    "pretrain fb --agent.actor-lr 0.1": "did you mean '--agent.",
    "pretrain --xyzzy": "Unknown option '--xyzzy': `--help` lists the options.",
    "pretrain metra stray": "Unexpected argument 'stray'",
    "pretrain --agent.lr abc": "Option '--agent.lr' is 'abc': expected a number.",
    "pretrain --agent.lr=abc": "Option '--agent.lr' is 'abc': expected a number.",
    "pretrain --agent.lr": "Option '--agent.lr' has no value: expected a number.",
    "pretrain --agent.lr --seed 1": "Option '--agent.lr' has no value: expected a number.",
    "pretrain --steps 1e6": "Option '--steps' is '1e6': expected a whole number.",
    "pretrain --episode-steps x": "Option '--episode-steps' is 'x': expected a whole number or None.",
    "pretrain --agent.z.kind ball": "Option '--agent.z.kind' is 'ball': expected one of "
    "sphere, wide_sphere, gaussian, onehot, none.",
    "pretrain --agent.sac.learn-alpha False": "Unexpected argument 'False'",
    "pretrain --agent.sac.learn-alpha=False": "Option '--agent.sac.learn-alpha' has the value 'False': expected none",
    "pretrain --num-envs 0": "num_envs is 0: expected a number of at least 1.",
    "pretrain --agent.sac.gamma 2": "gamma is 2.0: expected a number of at least 0 and at most 1.",
    "pretrain --agent.lr nan": "lr is nan: expected a number above 0.",
    "pretrain --seed 99999999999999999999": "seed is 99999999999999999999: expected a number",
    "pretrain --replay-capacity 10": "replay_capacity is 10: expected at least one rollout",
    "pretrain --env half_cheeta --dry-run": "Unknown environment 'half_cheeta': did you mean 'half_cheetah'?",
    "pretrain --env mine:Camera --dry-run": "Environment 'mine:Camera' has the observation space",
    "pretrain --env mine:Walk --dry-run": "Environment 'mine:Walk' has no published normalisation constants",
    "pretrain --env HalfCheetah-v5": "Unknown environment 'HalfCheetah-v5': did you mean 'gym:HalfCheetah-v5'?",
    "pretrain --env ant --on-nonfinite end": "Environment 'ant' has no option on_nonfinite",
    "pretrain --env mjx:ant --loop device --on-nonfinite end": "Environment 'mjx:ant' has no option on_nonfinite",
    "pretrain --env half_cheeta": "Unknown environment 'half_cheeta': did you mean 'half_cheetah'?",
    "pretrain --env nomodule:function": "Cannot import the environment 'nomodule:function'",
    "pretrain --env ./mine.py:Map": "expected 'module:name', a module such as 'my_agents', not a path.",
    "pretrain --env mine:number": "Environment 'mine:number' is a int: expected a function",
    "pretrain --env mine:dict": "module 'mine' has no 'dict'",
    "pretrain --env mine:Camera": "Environment 'mine:Camera' has the observation space",
    "pretrain --env mine:Lost": "expected a list of integers in [0, 2) as 'obs_index'",
    "pretrain --env mine:Broken --normalizer off --agent.width 16": "returned a non-finite observation",
    "pretrain --env gym:CartPole-v1": "Agent Metra cannot act by one-hot actions",
    "pretrain --env gym:Pendulun-v1": "did you mean 'gym:Pendulum-v1'?",
    "pretrain --env dmc:walker_wolk": "did you mean 'dmc:walker_walk'?",
    "pretrain --env point --root-position": "Environment 'point' has no option root_position",
    "pretrain --env mine:Walk --agent.width 16": "Environment 'mine:Walk' has no published normalisation constants",
    "pretrain --env point --seed 3 --out RUN": "RUN holds another run",
    "pretrain --out .": ". is not empty and holds no run",
    "pretrain --out= --dry-run": "Option '--out' has no value: expected one after it.",
    f"pretrain --loop device --episode-steps {10**30}": "expected a number of at least 1 and at most 2147483647.",
    "pretrain --steps-per-update 1e-300": "steps_per_update is 1e-300: expected 0, or one that makes at most",
    "pretrain --steps-per-update 5e-324": "steps_per_update is 5e-324: expected 0, or one that makes at most",
    "evaluate": "Argument RUN is missing: expected a path.",
    "evaluate RUN --json no/where.json": "Cannot write no/where.json: there is no folder no.",
    "report RUN RUN": "RUN and RUN both have seed 0: expected each seed once.",
    "report RUN RUN --json no/where.json": "Cannot write no/where.json: there is no folder no.",
    "adapt RUN --task fly": " more, as `urlrl tasks` lists them.",
    "evaluate nowhere": "nowhere is not a run: it has no config.json.",
    "evaluate RUN --seed -1": "seed is -1: expected a number of at least 0 and at most 4294967295.",
    "evaluate RUN more": "Unexpected argument 'more'",
    "evaluate RUN --stepp 1": "Unknown option '--stepp': did you mean '--step'?",
    "evaluate RUN --step 3": "RUN has no checkpoint at step 3: found those at 80.",
    "report nowhere": "nowhere is not a run: it has no config.json.",
    "presets all": "Unexpected argument 'all'",
    "doctor --fix": "Unknown option '--fix'",
}


def refusal(argv, capsys) -> str:
    """The one line that a mistake gets."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert said.err.startswith("urlrl: ") and said.err.endswith("\n") and said.err.count("\n") == 1, said.err
    return said.err


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gets_one_sentence(typed, mine, run, capsys):
    capsys.readouterr()
    said = refusal([word.replace("RUN", str(run)) for word in typed.split()], capsys)
    assert MISTAKES[typed] in said.replace(str(run), "RUN")


def broken_config(**changes) -> str:
    config = {"agent": {}, "agent_name": "metra", "env": "point", "seed": 0, "steps": 1, **changes}
    return json.dumps({"format": "urlrl-run-1", "config": config, "versions": {}, "command": "", "continued": []})


@pytest.mark.parametrize(
    "argv",
    [
        ["pretrain", "--seed", "9" * 5000],
        ["pretrain", "--agent.lr", "x" * 5000],
        ["pretrain", "--agent.z.kind", "x" * 5000],
        ["pretrain", "x" * 5000],
        ["pretrain", "--env", "x" * 5000, "--agent.width", "16"],
        ["pretrain", "metra", "--" + "x" * 5000, "3"],
        ["pretrain", "metra", "--env", "point", "--out", "x" * 5000],
        ["adapt", "RUN", "--task", "fly"],
        ["adapt", "RUN", "--task", "point_goal", "--seeds", "x" * 5000],
        ["adapt", "RUN", "--task", "point_goal", "--seeds", "9" * 5000],
        ["adapt", "RUN", "--task", "point_goal", "--step", "9" * 5000],
    ],
)
def test_a_sentence_is_short_whatever_was_typed(argv, run, capsys):
    assert len(refusal([word.replace("RUN", str(run)) for word in argv], capsys)) < 600


@pytest.mark.parametrize(("out", "said"), [("", "Option '--out' has no value"), ("a\0b", "embedded null byte")])
def test_a_folder_that_cannot_be_is_refused(out, said, mine, capsys):
    assert said in refusal(["pretrain", "metra", "--env", "point", *TINY, "--out", out], capsys)
    assert [path.name for path in mine.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json cannot be read"),
        (broken_config(agent_name="metro"), "Unknown agent 'metro': did you mean 'metra'?"),
        (broken_config(stepz=1), "config.json: Unknown key in config 'stepz': did you mean 'steps'?"),
        (broken_config(agent={"lr": "x"}), "config.json: config.agent.lr is 'x': expected float"),
    ],
)
def test_a_run_with_a_broken_config_is_refused(content, message, tmp_path, capsys):
    (tmp_path / "config.json").write_text(content)
    for verb in ("evaluate", "report"):
        assert message in refusal([verb, str(tmp_path)], capsys)


def test_a_replay_that_memory_cannot_hold(tmp_path, capsys):
    """Skills of 30,000 numbers make the ring larger than any address space."""
    big = shlex.split("--replay-capacity 2147483647 --agent.z.dim 30000 --out")
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "metra", "--env", "point", *TINY, *big, str(tmp_path / "big")])
    said = capsys.readouterr().err.splitlines()[-1]  # after what a run says of itself
    assert stop.value.code == 2 and said.startswith("urlrl: Not enough memory: Unable to allocate")
    assert said.endswith(" MiB are free); try a smaller agent.z.dim or replay_capacity.")


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("--agent.width 1000000000", "agent.width"),  # XLA would end the process.
        ("--agent.width 200000 --loop device", "agent.width"),
        ("--agent.sac.width 1000000000", "agent.sac.width"),
        ("--agent.batch.size 10000000000", "agent.batch.size or rollout_steps"),
        ("--agent.z.dim 1000000000", "agent.z.dim or agent.width"),
    ],
)
def test_what_memory_cannot_hold_is_refused_by_the_option_that_matters(option, advice, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "metra", "--env", "point", *TINY, *option.split(), "--out", str(tmp_path / "big")])
    said = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and re.search(r"needs at least [\d,]{7,} MiB .* expected at most the [\d,]+ MiB", said)
    assert said.endswith(f"; try a smaller {advice}.") and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 160000000000 bytes."),
            "152,588 MiB were asked for",
        ),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 64.00GiB.\nmore"), "64.00GiB"),
        (MemoryError(), "Not enough memory ("),
        (MemoryError("Unable to allocate 3 TiB for an array"), "Not enough memory: Unable to allocate 3 TiB"),
    ],
)
def test_memory_that_runs_out_is_a_sentence_in_every_verb(error, sentence, monkeypatch, capsys):
    def fail(run, **options):
        raise error

    monkeypatch.setattr("urlrl.verbs.evaluate.evaluate", fail)
    assert sentence in refusal(["evaluate", "run"], capsys)


def test_memory_that_runs_out_in_training_is_explained_by_the_option_that_matters(tmp_path, monkeypatch, capsys):
    def fail(*rest):
        jnp.zeros(2**50, jnp.float32)  # 4 PiB

    monkeypatch.setattr("urlrl.verbs.pretrain.drive", fail)
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "metra", "--env", "point", *TINY, "--out", str(tmp_path / "x")])
    said = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and said.startswith(
        "urlrl: Not enough memory: 4,294,967,296 MiB were asked for at once"
    )
    assert said.endswith(" MiB are free); try a smaller agent.width.")


def test_another_error_while_running_is_not_taken_for_a_lack_of_memory(monkeypatch):
    def fail(run, **options):
        raise RuntimeError("a mistake in the program")

    monkeypatch.setattr("urlrl.verbs.evaluate.evaluate", fail)
    with pytest.raises(RuntimeError, match="a mistake in the program"):
        main(["evaluate", "run"])


def test_a_finished_run_is_evaluated_and_reported(run, tmp_path, capsys):
    main(["evaluate", str(run), "--json", str(tmp_path / "result.json")])
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert "coverage, 1 m cells" in said and str(result["coverage"]["agent"]) in said
    main(["report", str(run)])
    page = capsys.readouterr().out.strip()
    assert page == str(run / "report" / "index.html") and (run / "report" / "skills.png").exists()


def test_a_users_own_agent(mine, capsys):
    main(["pretrain", "--agent", "mine:Agent", "--env", "point", *TINY, "--out", "own"])
    manifest = json.loads((mine / "own" / "config.json").read_text())
    assert manifest["config"]["agent_name"] == "mine:Agent" and manifest["config"]["agent"]["lr"] == 1e-3
    agent, _ = urlrl.load("own")
    assert type(agent) is sys.modules["mine"].Agent
    main(["evaluate", "own"])
    assert "coverage" in capsys.readouterr().out


def test_a_users_own_agent_takes_another_agents_preset(mine, capsys):
    main(["pretrain", "--agent", "mine:Agent", "--preset", "metra/half-cheetah-quick", "--agent.lr", "1", "--dry-run"])
    said = json.loads(capsys.readouterr().out)
    assert said["out"] == "runs/mine.Agent-metra.half-cheetah-quick-0"
    config = said["config"]
    assert (config["agent_name"], config["env"], config["agent"]["lr"]) == ("mine:Agent", "half_cheetah", 1)
    assert (config["agent"]["width"], config["agent"]["constraint_reduction"]) == (128, "mean")


def test_a_users_own_environment_that_says_where_it_is(mine, capsys):
    main(["pretrain", "metra", "--env", "mine:Map", "--normalizer", "off", *TINY, "--out", "own"])
    main(["evaluate", "own"])
    result = json.loads((mine / "own" / "evaluation.json").read_text())
    assert result["goals"]["goal_box"] == [5.0, 5.0] and result["coverage"]["agent"] >= 1 and not result["notes"]
    assert "final goal distance" in capsys.readouterr().out


def test_a_users_own_environment_that_does_not(mine, capsys):
    """A sentence says that coverage and goals are left out; a report is made of the rest."""
    main(["pretrain", "metra", "--env", "mine:Walk", "--normalizer", "off", *TINY, "--out", "own"])
    main(["evaluate", "own"])
    result = json.loads((mine / "own" / "evaluation.json").read_text())
    assert result["coverage"] is None and result["goals"] is None
    of_no_place = ["discriminability", "effective_rank", "time_correlation", "constraint"]
    assert list(result["diagnostics"]["scores"]) == of_no_place
    assert "does not say where it is" in capsys.readouterr().out
    main(["report", "own"])
    report = mine / "own" / "report"
    assert (report / "latent.png").exists() and not (report / "skills.png").exists()
    assert "does not say where it is" in (report / "index.html").read_text()
