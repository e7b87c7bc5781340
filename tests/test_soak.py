"""The watch over long runs sees what grows, and lets pass what does not."""

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest

from urlrl.training.stop import INTERRUPTED


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    return importlib.import_module("soak")


def samples(soak, **leaks):
    """Of 120 times: 400 MB that grow while the replay fills up and wobble later, files that a checkpoint opens for a
    moment, and what leaks in each interval."""
    found = []
    for t in range(120):
        held = {"memory": 4e8 + 1e6 * min(t, 40) + 1e6 * (t % 3), "files": 30 + 2 * (t % 5 == 0), "threads": 12}
        found.append(soak.Sample(**{name: int(value + leaks.get(name, 0) * t) for name, value in held.items()}))
    return found


@pytest.mark.parametrize("leak", [{}, {"memory": 5e5}, {"files": 0.1}, {"threads": 0.05}])
def test_what_leaks_is_found_and_nothing_else(soak, leak):
    found = soak.grown(samples(soak, **leak))
    assert {name for name, (_, _, more) in found.items() if more} == set(leak)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_what_a_process_holds(soak, tmp_path):
    before = soak.look(os.getpid())
    with open(tmp_path / "one", "w"), open(tmp_path / "two", "w"):
        assert soak.look(os.getpid()).files == before.files + 2
    assert before.memory > 1e7 and before.threads >= 1


class Run:
    """A process that goes on until it is told to stop."""

    pid, returncode = 0, INTERRUPTED

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def poll(self):
        pass

    def send_signal(self, number):
        self.told = number


def test_the_watch_begins_with_the_first_checkpoint(soak, tmp_path, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            (tmp_path / "run" / "checkpoints" / "100").mkdir(parents=True)

    run = Run()
    monkeypatch.setattr(soak.subprocess, "Popen", lambda command: run)
    monkeypatch.setattr(soak.time, "sleep", sleep)
    monkeypatch.setattr(soak, "look", lambda pid: soak.Sample(len(slept), 0, 0))
    found = soak.watch(["metra"], 4.0, str(tmp_path))
    assert slept == [1, 1, 1] + [2.0] * 120 and run.told == signal.SIGTERM
    assert [sample.memory for sample in found] == list(range(4, 124))
