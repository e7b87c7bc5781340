"""Signals that ask a run to stop, and how it answers: at once, also while compiled code runs.

Python calls its own handlers in the main thread only, and not before compiled code there returns, which can take
minutes where XLA compiles. A thread is told of a signal at once (`signal.set_wakeup_fd`): it answers with a line, and
ends the process where nothing would be lost by that.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urlrl.errors import UserError
from urlrl.training.log import Progress

INTERRUPTED = 75  # Exit code of a run that was told to stop and can be continued (EX_TEMPFAIL).
AT_ONCE = 130  # Exit code after a second Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PATIENCE = 0.5  # seconds in which the main thread may stop by itself


class Interrupted(UserError):
    """SIGTERM, SIGUSR1 or Ctrl-C came; everything is saved."""

    exit_code = INTERRUPTED


class _Stopped(KeyboardInterrupt):
    """Ends the main thread where nothing is unsaved. No UserError: what reads a file takes one for damage."""


class Stop:
    """What was asked of a run. `name` is that of the signal, "" as long as none came; the run sets `unsaved` while
    there is something that it must save before it stops."""

    def __init__(self, progress: Progress):
        self.name, self.unsaved = "", False
        self._progress = progress
        self._stopped = threading.Event()  # The main thread stops by itself.

    def receive(self, number: int, frame: Any) -> None:
        """The handler of Python. Raises _Stopped where nothing is unsaved, KeyboardInterrupt at a second Ctrl-C."""
        if self.name and number == signal.SIGINT:
            self._stopped.set()
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        if not self.unsaved:
            self._stopped.set()
            raise _Stopped

    def answer(self, signals: socket.socket) -> None:
        """What the thread does: read numbers of signals until the other end is closed."""
        asked = False
        while received := signals.recv(1):
            number = received[0]
            if number not in SIGNALS:
                continue
            name = signal.Signals(number).name
            if asked and number == signal.SIGINT:
                self._end(AT_ONCE, "Stopped by a second Ctrl-C: the last checkpoint is whole.")
            elif not asked and self.unsaved:
                self._progress.note(f"{name}: the run stops as soon as this epoch is done and saved.")
            elif not asked:
                self._end(INTERRUPTED, _at_once(name))
            asked = True

    def close(self) -> None:
        self._stopped.set()

    def _end(self, code: int, line: str) -> None:
        """End the process with a line, unless the main thread stops by itself and says so; a session in which someone
        types goes on."""
        if self._stopped.wait(PATIENCE):
            return
        self._progress.note(line)
        if not hasattr(sys, "ps1"):
            self._progress.close()
            os._exit(code)


def _at_once(name: str) -> str:
    return f"Stopped by {name}: nothing was unsaved, and the same command continues."


@contextmanager
def stop_requested(progress: Progress) -> Iterator[Stop]:
    """In it, signals ask the run to stop. Outside the main thread signals cannot be caught, and none ever does.

    Raises:
        Interrupted: one came while nothing was unsaved.
    """
    stop = Stop(progress)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    thread = threading.Thread(target=stop.answer, args=(ours,), daemon=True)
    thread.start()
    woken = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, stop.receive) for number in SIGNALS}
    try:
        yield stop
    except _Stopped:
        raise Interrupted(_at_once(stop.name)) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        stop.close()
        theirs.close()
        thread.join()
        ours.close()
