"""A signal that asks a run to stop is answered with a line at once, also while compiled code runs."""

import signal
import subprocess
import sys
import threading

import pytest

from urlrl.training.log import Quiet
from urlrl.training.stop import Interrupted, stop_requested

# Runs compiled code that does not return. argv: whether something is unsaved.
BUSY = """
import sys
import threading
import jax
from urlrl.training.log import Quiet
from urlrl.training.stop import stop_requested

endless = jax.jit(lambda x: jax.lax.while_loop(lambda y: y >= 0, lambda y: (y + 1) % 7, x)).lower(0).compile()
with stop_requested(Quiet()) as stop:
    stop.unsaved = sys.argv[1] == "unsaved"
    threading.Timer(0.5, print, ["ready"], {"flush": True}).start()  # By then compiled code runs.
    endless(0).block_until_ready()
"""


def busy(what: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_with_nothing_unsaved_ends_while_compiled_code_runs(number):
    process = busy("saved")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert f"Stopped by {number.name}: nothing was unsaved, and the same command continues." in said
    assert process.returncode == 75


def test_a_process_with_something_unsaved_answers_and_ends_at_a_second_ctrl_c():
    process = busy("unsaved")
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "SIGINT: the run stops as soon as this epoch is done and saved.\n"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_handlers_are_as_they_were_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with pytest.raises(Interrupted, match="Stopped by SIGUSR1: nothing was unsaved"), stop_requested(Quiet()):
        signal.raise_signal(signal.SIGUSR1)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    woken = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(woken)
    assert woken == -1


def test_a_signal_waits_for_what_is_unsaved():
    with stop_requested(Quiet()) as stop:
        stop.unsaved = True
        signal.raise_signal(signal.SIGTERM)
        assert stop.name == "SIGTERM"


def test_outside_the_main_thread_nothing_is_caught():
    found = []

    def run():
        with stop_requested(Quiet()) as stop:
            found.append((stop.name, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [("", signal.getsignal(signal.SIGTERM))]
