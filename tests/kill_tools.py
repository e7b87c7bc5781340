"""A process that ends itself by SIGKILL at one moment of what it does."""

import functools
import importlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

Moment = tuple[str, str, int, str]


def die_at(function: str, when: str, number: int, pattern: str = "") -> None:
    """Kill this process "before", "after" or "amid" a call of `function`, as module:path: the one of this number among
    those whose arguments (arrays by their shape) match the pattern."""
    module, _, path = function.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    original, numbers = getattr(owner, name), itertools.count(1)

    def patched(*args, **kwargs):
        said = " ".join(str(getattr(arg, "shape", arg)) for arg in args)
        here = re.search(pattern, said) and next(numbers) == number
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if here and when == "amid":  # A deletion, at its third file.
            die_at("os:unlink", "before", 3)
        result = original(*args, **kwargs)
        if here and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, patched)


def killed_at(moment: Moment, program: str) -> None:
    """Run a program, which sees the modules of the tests, in a process that is killed at the moment."""
    code = f"import json, sys, kill_tools; kill_tools.die_at(*json.loads(sys.argv[1])); {program}"
    command = [sys.executable, "-c", code, json.dumps(moment)]
    ran = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
