"""Several runs: one after another, in processes, and as jobs of a cluster."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_tools import TINY, Notes, wait_for

from urlrl.cli import main
from urlrl.errors import InUse, UserError
from urlrl.runtime import threads_divided, usable_cores
from urlrl.training.run import RunFolder
from urlrl.training.stop import Interrupted
from urlrl.verbs import launch
from urlrl.verbs.launch import Work

# Stands for a process that trains: what it does is the name of its run.
CHILD = """
import json, os, signal, sys, time
work = json.loads(sys.argv[1])
def leave(*_):
    open(work["folder"] + ".saved", "w").close()
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
names = ("NPROC", "OMP_NUM_THREADS", "XLA_PYTHON_CLIENT_PREALLOCATE")
open(work["folder"] + ".begun", "w").write("".join(os.environ.get(name, "") for name in names))
if work["name"] == "fails":
    print("A note.\\nurlrl: The disk is full.\\nAn afterthought.", file=sys.stderr)
    sys.exit(2)
if work["name"] == "is killed":
    os.kill(os.getpid(), signal.SIGKILL)
if work["name"].startswith("waits"):
    time.sleep(600)
"""


def work(place: Path, *names: str) -> list[Work]:
    return [Work(name, place / name) for name in names]


@pytest.fixture
def children(monkeypatch) -> Notes:
    """Processes do what CHILD says; the notes that are shown meanwhile."""
    monkeypatch.setattr(launch, "CHILD", [sys.executable, "-c", CHILD])
    shown = Notes()
    monkeypatch.setattr(launch, "make_progress", lambda quiet: shown)
    return shown


def test_a_process_that_fails_is_named_and_the_others_go_on(tmp_path, children, monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    failed = launch.launch(work(tmp_path, "fails", "is killed", "works"), workers=2)
    assert failed == {"fails": "The disk is full.", "is killed": "exit code -9"}
    assert (tmp_path / "works.begun").exists()
    assert children.notes == ["fails: A note.", "fails: urlrl: The disk is full.", "fails: An afterthought."]
    cores = max(1, usable_cores() // 2)
    assert (tmp_path / "works.begun").read_text() == f"{cores}{cores}false"


def test_the_cores_are_divided(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr("urlrl.runtime.os.sched_getaffinity", lambda _: range(8))
    assert [threads_divided(n)["NPROC"] for n in (1, 2, 3, 20)] == ["8", "4", "2", "1"]
    monkeypatch.setenv("NPROC", "2")  # What a process has of them.
    assert usable_cores() == 2 and threads_divided(2)["OMP_NUM_THREADS"] == "1"


def test_a_signal_is_passed_on_and_runs_are_saved(tmp_path, children):
    def stop():
        wait_for(lambda: len(list(tmp_path.glob("*.begun"))) == 2, SimpleNamespace(poll=lambda: None))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(Interrupted, match="Stopped by SIGTERM: the runs are saved, and the same command continues"):
        launch.launch(work(tmp_path, "waits", "waits too", "works"), workers=2)
    assert {path.name for path in tmp_path.glob("*.*")} == {
        f"{name}.{what}" for name in ("waits", "waits too") for what in ("begun", "saved")
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_another_process_trains_is_waited_for(workers, tmp_path, children, monkeypatch, capsys):
    """As after the launcher was killed, whose processes go on."""
    monkeypatch.setattr(launch, "_do", lambda one, quiet: (tmp_path / "works.begun").write_text(""))
    hold = (
        f"import sys; from urlrl.training.run import RunFolder\nwith RunFolder({str(tmp_path / 'works')!r}).lock():\n"
    )
    hold += "    print(flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    assert RunFolder(tmp_path / "works").in_use()
    thread = threading.Thread(target=launch.launch, args=(work(tmp_path, "works"),), kwargs={"workers": workers})
    thread.start()
    time.sleep(3 * launch.POLL_SECONDS)
    assert not (tmp_path / "works.begun").exists()
    other.communicate()
    thread.join(60)
    assert not thread.is_alive()
    said = f"works: {tmp_path / 'works'} is in use by another process, which is waited for."
    assert said in (children.notes if workers == 2 else capsys.readouterr().err.splitlines())
    assert (tmp_path / "works.begun").exists() and not RunFolder(tmp_path / "works").in_use()


def test_a_run_that_another_process_locks_a_moment_earlier_is_waited_for(tmp_path, monkeypatch):
    tried: list[str] = []

    def do(one, quiet):
        tried.append(one.name)
        if len(tried) == 1:
            raise InUse("It is in use.")

    monkeypatch.setattr(launch, "_do", do)
    assert launch.launch(work(tmp_path, "a")) == {} and tried == ["a", "a"]
    monkeypatch.setattr(sys, "argv", ["launch", json.dumps(work(tmp_path, "b")[0].to_json())])
    tried.clear()
    launch.main()
    assert tried == ["b", "b"]
    with RunFolder(tmp_path).lock(), pytest.raises(InUse), RunFolder(tmp_path).lock():
        pass


def test_a_run_that_is_trained_in_the_end_has_not_failed(tmp_path, monkeypatch):
    def do(one, quiet):
        raise UserError("It broke.")

    monkeypatch.setattr(launch, "_do", do)
    both = [Work(name, tmp_path / name, TINY) for name in ("done", "broken")]
    monkeypatch.setattr(launch, "is_trained", lambda folder, config: folder.name == "done")
    assert launch.launch(both) == {"broken": "It broke."}


def test_several_processes_share_the_memory_of_a_gpu(monkeypatch):
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.setenv(name, "true")
    launch.share_memory(2)
    assert os.environ[name] == "true"  # Who set it knows better.
    monkeypatch.delenv(name)
    launch.share_memory(1)
    assert name not in os.environ
    launch.share_memory(2)
    assert os.environ[name] == "false"


def test_work_is_the_same_in_another_process(tmp_path):
    one = Work("a", tmp_path, TINY, "urlrl pretrain", {"agent.lr": 1e-4})
    assert Work.from_json(json.loads(json.dumps(one.to_json()))) == one
    again = Work("a", tmp_path)
    assert Work.from_json(json.loads(json.dumps(again.to_json()))) == again


def test_a_process_says_errors_as_the_command_line_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["launch", json.dumps(Work("a", tmp_path / "none").to_json())])
    with pytest.raises(SystemExit) as stop:
        launch.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"urlrl: {tmp_path / 'none'} is not a run: it has no config.json.\n"


# Jobs of a cluster.


@pytest.fixture
def submitit(monkeypatch):
    """The package, with its local executor, which runs jobs here, in place of SLURM's."""
    monkeypatch.setattr(launch, "CLUSTER", "local")
    return pytest.importorskip("submitit")


def test_jobs_of_a_cluster_run_and_those_that_fail_are_named(tmp_path, children, submitit, monkeypatch):
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = {"launcher": "slurm", "jobs": tmp_path / "jobs", "slurm": {"slurm_partition": "gpu"}}
    assert launch.launch(work(tmp_path, "works", "fails"), **options) == {"fails": "The disk is full."}
    assert (tmp_path / "works.begun").exists() and "fails: failed." in children.lines
    with pytest.raises(UserError, match="Launcher 'slurm' cannot begin jobs: Parameter 'wrong' need to be prefixed"):
        launch.launch(work(tmp_path, "works"), **{**options, "slurm": {"wrong": 1}})


def test_a_launcher_that_is_not_installed_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="'slurm' needs the package submitit, which is not installed: expected"):
        launch.check_launcher("slurm")
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--agents", "rnd", "--launcher", "slurm", "--seeds", "0", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and not (tmp_path / "out").exists()


# `--seeds` of `urlrl pretrain` on the host.

HOST = shlex.split(
    "pretrain uniform --env point --steps 40 --num-envs 2 --rollout-steps 20 --eval-every 0 --min-replay 20 "
    "--steps-per-update 0"
)


def test_seeds_on_the_host_are_ordinary_runs(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    main([*HOST, "--loop", "host", "--seeds", "0..1", "--out", str(out), "--quiet"])
    assert f"urlrl report {out}/seed-*" in capsys.readouterr().out
    configs = [RunFolder(out / f"seed-{seed}").manifest()["config"] for seed in (0, 1)]
    assert [config["seed"] for config in configs] == [0, 1] and configs[0]["loop"] == "host"
    trained: list[str] = []

    def do(one, quiet):
        trained.append(one.name)
        if one.name == "seed 2":
            raise ValueError("the simulator broke")

    monkeypatch.setattr(launch, "_do", do)
    with pytest.raises(SystemExit) as stop:  # Finished ones are not trained again, and others go on.
        main([*HOST, "--loop", "host", "--seeds", "0..3", "--out", str(out), "--quiet"])
    assert stop.value.code == 3 and trained == ["seed 2", "seed 3"]
    assert "1 of 4 runs failed, and the same command tries them again: seed 2: ValueError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, how",
    [
        (["--env", "half_cheetah"], ("host", 1)),
        (["--env", "half_cheetah", "--workers", "3"], ("host", 3)),
        (["--env", "point"], ("device", None)),
        (["--env", "point", "--loop", "host"], ("host", 1)),
        (["--env", "point", "--workers", "2"], ("host", 2)),
        (["--env", "half_cheetah", "--loop", "device"], ("device", None)),
    ],
)
def test_seeds_train_together_where_there_is_a_device_version(options, how, monkeypatch, tmp_path):
    found = []
    monkeypatch.setattr(
        "urlrl.cli.pretrain._train", lambda config, many, workers, *_: found.append((config.loop, workers))
    )
    main(["pretrain", "metra", "--seeds", "0..1", *options, "--out", str(tmp_path)])
    assert found == [how]


def test_workers_are_of_several_seeds(capsys):
    for options, said in (
        (["--workers", "2"], "Option '--workers' is of several runs: expected --seeds with it."),
        (["--workers", "x", "--seeds", "0..1"], "Option '--workers' is 'x': expected a whole number."),
        (["--workers", "0", "--seeds", "0..1"], "workers is 0: expected a number of at least 1."),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*HOST, *options])
        assert stop.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.slow
def test_seeds_in_processes_are_those_of_one_process(tmp_path):
    """Parameters and metrics are the same bit for bit, of networks that are too narrow to be shared out over cores."""
    from run_tools import TINY_OPTIONS, assert_same, final_state

    for workers in ("1", "2"):
        options = [*TINY_OPTIONS, "--steps", "200", "--seeds", "0..1", "--workers", workers]
        main(["pretrain", "metra", *options, "--out", str(tmp_path / workers)])
    for seed in ("seed-0", "seed-1"):
        assert_same(final_state(tmp_path / "1" / seed), final_state(tmp_path / "2" / seed))
