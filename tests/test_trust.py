"""Names in files run no code (docs/security.md): what is refused, what is imported on the user's word, and that a
person's own runs go on without any option."""

import ast
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from data_tools import make_episodes
from run_tools import TINY

import urlrl
from urlrl import loading
from urlrl.agents.fre import FREConfig
from urlrl.cli import main
from urlrl.config import OfflineConfig, to_json
from urlrl.data.dataset import DatasetInfo, write_dataset
from urlrl.envs import make_env
from urlrl.errors import UserError
from urlrl.loading import check_names, file_of, module_of, names_in
from urlrl.runs.begin import with_data
from urlrl.training.run import RunFolder
from urlrl.verbs import data as data_verbs

# A stranger's module: it leaves a file as soon as it is imported. Its environment has the sizes of `point`.
LOADER = """
from pathlib import Path

import gymnasium
import numpy as np

Path("code-ran").touch()

class Env(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(2), {}

    def step(self, action):
        return np.zeros(2), 0.0, False, False, {}

def make():
    return Env()
"""


@pytest.fixture
def new_process(monkeypatch):
    """Forgets what this process knows; what is remembered on disk stays."""

    def forget():
        monkeypatch.setattr(loading, "_used", {})
        monkeypatch.setattr(sys, "path", list(original))
        for module in ("loader", "package", "package.inner", "package.inner.loader"):
            sys.modules.pop(module, None)

    original = [place for place in sys.path if place]
    forget()
    yield forget
    forget()


@pytest.fixture
def downloaded(tmp_path, monkeypatch, new_process):
    """A stranger's folder with the module `loader`, as the working directory. Nobody's names are remembered."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / "loader.py").write_text(LOADER)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def make_dataset(folder, env="loader:make"):
    return write_dataset(folder, DatasetInfo(env, "noise"), make_episodes(obs_dim=2, physics=False))


def edited(whole_run, folder, **fields):
    """A stranger's run: `whole_run` with other fields in its config.json."""
    run = shutil.copytree(whole_run, folder / "run")
    manifest = RunFolder(run).manifest()
    manifest["config"] |= fields
    (run / "config.json").write_text(json.dumps(manifest))
    return run


def refused(capsys, folder, argv, names="loader:make"):
    """The command ends with a sentence that says the name and its file, and no code of the folder ran."""
    path = list(sys.path)
    with pytest.raises(SystemExit) as stop:
        main(argv)
    said = capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "code-ran").exists() and sys.path == path
    assert stop.value.code == 2 and f"names code that you have not used before: '{names}'" in said, said
    assert "Nothing was imported: expected " in said and "--trust" in said
    return said


# Refused: datasets.

PRETRAIN = ["pretrain", "fb", "--data", "data", "--out", "out"]


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--seeds", "0..1"]], ids=["run", "dry run", "seeds"])
def test_pretraining_does_not_import_what_a_dataset_names(downloaded, capsys, more):
    make_dataset("data")
    said = refused(capsys, downloaded, [*PRETRAIN, *more])
    assert f"data/dataset.json names code that you have not used before: 'loader:make' (from {downloaded}/" in said
    assert "expected --env 'loader:make' or --trust" in said and not (downloaded / "out").exists()


@pytest.mark.parametrize("name", ["os:abort", "gym:loader:X-v0", "ogbench:loader:X", "urlrl.cli:main", "sys:exit"])
def test_names_of_installed_modules_are_refused_too(downloaded, capsys, name):
    make_dataset("data", name)
    refused(capsys, downloaded, [*PRETRAIN, "--dry-run"], name)


def test_a_name_that_came_through_minari_is_refused(downloaded, capsys):
    make_dataset("first")
    main(["data", "export", "first", "--format", "minari", "--out", "minari", "--quiet"])
    main(["data", "convert", "minari", "--out", "data", "--quiet"])
    assert json.loads(Path("data/dataset.json").read_text())["env"] == "loader:make"
    refused(capsys, downloaded, PRETRAIN)


def test_data_info_shows_a_dataset_and_says_that_its_environment_was_not_made(downloaded):
    make_dataset("data")
    assert "is made only if --env loader:make says so" in data_verbs.info("data")["notes"][0]
    assert not Path("code-ran").exists()


# Refused: runs.

VERBS = {
    "evaluate": ["evaluate", "run"],
    "evaluate on a suite": ["evaluate", "run", "--suite", "exorl-v1/walker"],
    "report": ["report", "run"],
    "export": ["export", "run", "--out", "out"],
    "prompt": ["prompt", "run", "--goal", "x=1,y=1"],
    "prompt with a reward": ["prompt", "run", "x"],
    "adapt": ["adapt", "run", "--task", "point_goal"],
    "data info": ["data", "info", "run"],
    "data convert": ["data", "convert", "run", "--out", "out"],
    "data export": ["data", "export", "run", "--out", "out"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_imports_the_environment_that_a_run_names(whole_run, downloaded, capsys, verb):
    edited(whole_run, downloaded, env="loader:make")
    said = refused(capsys, downloaded, VERBS[verb])
    assert "run/config.json names code" in said and "expected --env 'loader:make' or --trust" in said


def test_validating_a_run_says_that_its_environment_was_not_imported(whole_run, downloaded):
    edited(whole_run, downloaded, env="loader:make")
    (check,) = data_verbs.validate("run")
    assert check.ok is False and "names code that you have not used before" in check.detail
    assert not Path("code-ran").exists()


def test_a_table_of_several_runs_imports_nothing(whole_run, downloaded, capsys):
    for seed in (0, 1):
        edited(whole_run, downloaded / str(seed), env="loader:make", seed=seed)
    refused(capsys, downloaded, ["report", "0/run", "1/run"])


FRE = {"agent_name": "fre", "agent": {**to_json(FREConfig()), "rewards": ["goal", "loader:prior"]}}
FIELDS = {
    "agent_name": ({"agent_name": "loader:Agent"}, "loader:Agent", "--agent 'loader:Agent' or --trust"),
    "eval_env": ({"eval_env": "loader:make"}, "loader:make", "expected --trust"),
    "reward prior of FRE": (FRE, "loader:prior", "expected --trust"),
    "field of an agent": ({"agent": {"nested": [{"a": ["loader:make"]}]}}, "loader:make", "expected --trust"),
    "any function": ({"env": "os:abort"}, "os:abort", "--env 'os:abort' or --trust"),
    "gymnasium's import": ({"env": "gym:loader:X-v0"}, "gym:loader:X-v0", "--env 'gym:loader:X-v0' or --trust"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_run_is_imported(whole_run, downloaded, capsys, monkeypatch, field):
    changes, name, expected = FIELDS[field]
    monkeypatch.syspath_prepend(str(downloaded))  # As with `python -m`; Gymnasium would find the module.
    edited(whole_run, downloaded, **changes)
    assert expected in refused(capsys, downloaded, ["evaluate", "run"], name)
    with pytest.raises(UserError, match="names code that you have not used"):
        urlrl.load("run")
    assert not Path("code-ran").exists()


def test_all_names_are_shown_at_once(whole_run, downloaded, capsys):
    edited(whole_run, downloaded, env="loader:make", agent_name="loader:Agent")
    with pytest.raises(SystemExit):
        main(["evaluate", "run"])
    assert "expected --env 'loader:make' --agent 'loader:Agent' or --trust" in capsys.readouterr().err


def test_a_folder_that_is_to_be_continued_imports_nothing(whole_run, downloaded):
    """A config is built of the one that is there, to fill in options that are new. FRE's imports its priors."""
    edited(whole_run, downloaded, **FRE)
    with pytest.raises(UserError, match="holds another run"):
        RunFolder("run").check(OfflineConfig(agent=FREConfig(), agent_name="fre"))
    assert not Path("code-ran").exists()


# The user's word.


def test_trust_on_the_command_line_is_remembered(whole_run, downloaded, new_process, capsys):
    edited(whole_run, downloaded, env="loader:make")
    main(["evaluate", "run", "--trust"])
    assert Path("code-ran").exists() and "step 320" in capsys.readouterr().out
    new_process()
    _, config = urlrl.load("run")
    assert config.env == "loader:make"


def test_env_and_agent_on_the_command_line_are_the_names_that_the_run_must_have(
    whole_run, downloaded, capsys, monkeypatch
):
    edited(whole_run, downloaded, env="loader:make", agent_name="loader:Agent")
    Path("loader.py").write_text(f"{LOADER}\nfrom urlrl.agents.metra import Metra as Agent\n")
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "--env", "loader:make", "--agent", "loader:Other"])
    assert "run/config.json has agent_name 'loader:Agent': expected 'loader:Other', as --agent says." in (
        capsys.readouterr().err
    )
    refused(capsys, downloaded, ["evaluate", "run", "--env", "loader:make"], "loader:Agent")
    monkeypatch.setattr("urlrl.verbs.export.export", lambda run, *_, **__: urlrl.load(run)[1].agent_name)
    main(["export", "run", "--out", "out", "--env=loader:make", "--agent", "loader:Agent"])
    assert capsys.readouterr().out == "loader:Agent\n"


@pytest.mark.parametrize("word", [["--env", "loader:make"], ["--trust"]], ids=["env", "trust"])
def test_pretraining_on_a_dataset_takes_the_users_word(downloaded, capsys, word):
    make_dataset("data")
    main([*PRETRAIN, "--dry-run", *word])
    assert json.loads(capsys.readouterr().out)["config"]["env"] == "loader:make"


def test_data_verbs_take_the_users_word(whole_run, downloaded, new_process):
    edited(whole_run, downloaded, env="loader:make")
    assert data_verbs.info("run", env="loader:make")["env"] == "loader:make"
    new_process()
    shutil.rmtree(os.environ["XDG_CONFIG_HOME"])
    main(["data", "info", "run", "--trust"])
    make_dataset("data")
    assert data_verbs.info("data")["notes"] == []  # It is known by now.


def test_urlrl_trust_is_remembered_and_refuses_what_names_no_code(downloaded, new_process):
    make_dataset("data")
    config = OfflineConfig(agent=urlrl.preset("fb", "fb").agent, data="data")
    with pytest.raises(UserError, match=r"urlrl\.trust\('loader:make'\)"):
        with_data(config, data_verbs.Dataset("data"))
    urlrl.trust("loader:make")
    new_process()
    assert with_data(config, data_verbs.Dataset("data"))[0].env == "loader:make"
    for name in ("loader", "dmc:walker_walk", "loader.py:make"):
        with pytest.raises(UserError, match=f"Cannot trust '{name}': expected 'module:name'"):
            urlrl.trust(name)


# What was used is remembered.

OWN = {"env": "loader:make"}


def test_a_name_is_remembered_with_its_file(downloaded, tmp_path, monkeypatch, new_process):
    with pytest.raises(UserError):
        check_names(OWN, "file")
    make_env("loader:make").close()
    new_process()
    check_names(OWN, "file")
    with pytest.raises(UserError, match="loader:Env"):  # Another name of the same file is not known.
        check_names({"env": "loader:Env"}, "file")

    other = tmp_path / "other"
    other.mkdir()
    shutil.copy("loader.py", other)
    monkeypatch.chdir(other)
    elsewhere = f"; what you used was in {downloaded}/loader.py\\)"
    with pytest.raises(UserError, match=f"'loader:make' \\(from {other}/loader.py{elsewhere}"):
        check_names(OWN, "file")
    Path("loader.py").unlink()
    with pytest.raises(UserError, match=f"'loader:make' \\(from no file that is found here{elsewhere}"):
        check_names(OWN, "file")
    Path("loader.py").symlink_to(downloaded / "loader.py")
    with pytest.raises(UserError):
        check_names(OWN, "file")

    make_env("loader:make").close()  # In two projects, each with its own.
    for place in (downloaded, other):
        new_process()
        monkeypatch.chdir(place)
        check_names(OWN, "file")


@pytest.mark.parametrize("content", [None, "", "[1]", '{"loader:make": 3}', "\x00"], ids=repr)
def test_a_memory_that_cannot_be_read_asks_again(downloaded, tmp_path, new_process, content):
    memory = tmp_path / "config" / "urlrl" / "trusted.json"
    memory.parent.mkdir(parents=True)
    memory.mkdir() if content is None else memory.write_text(content)
    with pytest.raises(UserError):
        check_names(OWN, "file")
    make_env("loader:make").close()
    check_names(OWN, "file")  # It is known in this process.
    new_process()
    if content is None:  # It could not be written.
        with pytest.raises(UserError):
            check_names(OWN, "file")
    else:
        check_names(OWN, "file")


@pytest.mark.parametrize("home", ["", "relative"])
def test_without_a_home_nothing_is_written_and_nothing_read(downloaded, monkeypatch, new_process, home):
    """A relative path would be one into the stranger's folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", home)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    make_env("loader:make").close()
    assert {path.name for path in downloaded.iterdir()} <= {"loader.py", "code-ran", "__pycache__"}


def test_a_run_of_ones_own_is_continued_without_a_memory(whole_run, downloaded):
    run = edited(whole_run, downloaded, env="loader:make")
    RunFolder(run).check(replace(TINY, env="loader:make"))
    assert not Path("code-ran").exists()


def test_a_trusted_module_elsewhere_does_not_bring_the_working_folder(downloaded, tmp_path, monkeypatch):
    """What it imports in turn must not come from a stranger's folder."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "package.py").write_text("import gymnasium\n\ndef make():\n    return gymnasium.make('Pendulum-v1')\n")
    monkeypatch.syspath_prepend(str(own))
    make_env("package:make").close()
    assert str(downloaded) not in sys.path


# Which names those are, and where their code is.


def test_names_in_json():
    data = {
        "env": "a.b:make",
        "data": "runs:x",
        "agent": {"data": "c:f", "list": ["d:f", {"e": "f-g:h"}], "data_id": "x"},
        "notes": [
            "goal",
            "dmc:walker_walk",
            "gym:Pendulum-v1",
            "ratio: 3",
            "3:1",
            "https://x.y",
            "C:\\x",
            "x.py:f",
            ":",
        ],
        "gym": "gym:m:X-v0",
        "number": 3,
    }
    assert sorted(name for _, name in names_in(data)) == ["a.b:make", "c:f", "d:f", "f-g:h", "gym:m:X-v0"]
    deep = "x:y"
    for _ in range(10_000):
        deep = [deep]
    assert names_in(deep) == [("", "x:y")]


def test_modules_of_names():
    assert module_of("gym:Pendulum-v1") is None and module_of("point") is None and module_of("gym:make") is None
    assert module_of("gym:module:X") == "module" and module_of("gym.x:make") == "gym.x"


@pytest.mark.parametrize("marked", [True, False], ids=["packages", "folders"])
def test_a_file_is_found_without_importing_the_packages_around_it(downloaded, marked):
    inner = downloaded / "package" / "inner"
    inner.mkdir(parents=True)
    shutil.copy("loader.py", inner)
    for folder in (inner, inner.parent) if marked else ():
        (folder / "__init__.py").write_text("open('code-ran', 'w')")
    assert file_of("package.inner.loader:make") == str(inner / "loader.py")
    assert file_of("package.inner.nothing:make") is None and file_of("package.nothing.loader:make") is None
    assert file_of("nothing:make") is None and file_of("sys:exit") is None
    assert file_of("os:abort") == os.__file__ and file_of("gym:loader:X") == str(downloaded / "loader.py")
    assert not Path("code-ran").exists() and "package" not in sys.modules
    make_env("package.inner.loader:make").close()
    assert file_of("package.inner.loader:make") == str(inner / "loader.py")


# Code of one's own that goes wrong is named.

BROKEN = """
import gymnasium

def stops():
    raise SystemExit(0)

def fails():
    raise RuntimeError("no\\nlicence")

class NoSpaces(gymnasium.Env):
    pass
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loader:stops", "Environment 'loader:stops' cannot be made: SystemExit: 0."),
        ("loader:fails", "Environment 'loader:fails' cannot be made: RuntimeError: no licence."),
        ("loader:NoSpaces", "Environment 'loader:NoSpaces' has the observation space None: expected a flat Box"),
        ("json:dumps", "Environment 'json:dumps' cannot be made: TypeError: dumps() missing"),
        ("stops:make", "Cannot import the environment 'stops:make': module 'stops' raises SystemExit."),
        ("gym:stops:X-v0", "Cannot import the environment 'gym:stops:X-v0': module 'stops' raises SystemExit."),
    ],
)
def test_an_environment_that_cannot_be_made_is_named(downloaded, capsys, name, said):
    Path("loader.py").write_text(BROKEN)
    Path("stops.py").write_text("raise SystemExit(0)")
    with pytest.raises(SystemExit) as stop:
        main(["pretrain", "metra", "--env", name, "--out", "out", "--quiet"])
    assert stop.value.code == 2 and f"urlrl: {said}" in capsys.readouterr().err


# New code is noticed.

# What turns a name into code -> who calls it. Each gets its names from the user, or asks `check_names` first.
CALLERS = {
    "load_object": {"agents/__init__.py", "urlrl/tasks/catalogue.py", "urlrl/learners/reward_priors.py"}
    | {"envs/__init__.py", "envs/gym.py"},  # the first by names in tables of ours
    "load_module": {"envs/gym.py", "urlrl/loading.py"},
    "import_module": {
        "urlrl/__init__.py",
        "urlrl/cli/__init__.py",
        "urlrl/loading.py",
        "urlrl/presets/__init__.py",
        "urlrl/tasks/__init__.py",
    },
    # launch.py gets them as an argument, from the process that was told them.
    "find_agent": {"urlrl/cli/pretrain.py", "urlrl/presets/__init__.py", "urlrl/runs/begin.py", "urlrl/verbs/launch.py"}
    | {"urlrl/runs/load.py", "urlrl/verbs/agents.py", "urlrl/verbs/tuned.py"},
    "find_maker": {"envs/__init__.py", "envs/gym.py"},
    "run_config_from_json": {
        "urlrl/adaptation/ladder.py",  # by the config class of the agent at hand
        "urlrl/runs/load.py",
        "urlrl/training/run.py",
        "urlrl/verbs/launch.py",
        "urlrl/verbs/tuned.py",
    },
    "make_env": {f"urlrl/tasks/{name}.py" for name in ("single", "task")}
    | {"envs/__init__.py", "urlrl/runs/begin.py", "urlrl/verbs/collect.py", "urlrl/verbs/data.py"},
}


def test_all_callers_that_turn_names_into_code_are_listed():
    root, found = Path(urlrl.__file__).parent.parent, {name: set() for name in CALLERS}
    for path in (path for place in ("agents", "envs", "urlrl") for path in (root / place).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).removeprefix("importlib.")
                if name in found:
                    found[name].add(str(path.relative_to(root)))
    assert found == CALLERS
