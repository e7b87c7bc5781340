"""The blocks of README and docs/, run as a reader would: in this process, which is quick, or in others."""

import glob
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest

from urlrl.cli import main

ROOT = Path(__file__).parent.parent
WITHOUT_JAX = "# without JAX"
SHELL = """
urlrl() { printf 'urlrl'; printf ' %q' "$@"; echo; }
python() { printf 'python'; printf ' %q' "$@"; echo; }
pip() { :; }
"""
NOTHING_ELSE = """
from importlib.util import find_spec
assert action.shape == ctrl.shape == (6,) and np.abs(action).max() <= 1
assert not any(map(find_spec, ["jax", "flax", "scipy", "gymnasium", "mujoco", "tyro"]))
"""


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """(language, text) of what can be run."""
    return re.findall(r"^```(bash|python)\n(.*?)^```$", page.read_text(), re.M | re.S)


def shortened(text: str, shorter: dict[str, str]) -> str:
    for long, short in shorter.items():
        text = text.replace(long, short)
    return text


def kept_as_file(text: str, place: Path) -> bool:
    """Whether a block is a file that later ones use; it is then written."""
    named = re.match(r"# file: (\S+)\n", text)
    if named:
        (place / named[1]).write_text(text)
    return bool(named)


def run_here(language: str, text: str, place: Path, names: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, whose folder is `place`. `names` are those of earlier Python blocks."""
    if kept_as_file(text, place):
        return
    if language == "bash":
        for words in commands(text):
            run_command(words, monkeypatch)
    elif all(map(find_spec, re.findall(r"^(?:from|import) (\w+)", text, re.M))):  # Not all is there in development.
        exec(compile(text, "page", "exec"), names)


def commands(text: str) -> list[list[str]]:
    """The words of each command, as the shell understands them."""
    done = subprocess.run(["bash", "-euc", SHELL + text], capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in done.stdout.splitlines()]


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = [name for word in words for name in sorted(glob.glob(word)) or [word]]
    if words[0] == "urlrl":
        main(words[1:])
        return
    script = ROOT / words[1]
    monkeypatch.setattr(sys, "argv", words[1:])
    monkeypatch.syspath_prepend(script.parent)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as stop:
        assert not stop.code, words


def run_apart(language: str, text: str, place: Path, installed: Path | None) -> None:
    """In a process of its own, with the checkout, or with what is installed in a folder."""
    if kept_as_file(text, place):
        return
    if text.startswith(WITHOUT_JAX):
        only_numpy(place / "only-numpy")
        argv = [sys.executable, "-S", "-c", f"{text}\n{NOTHING_ELSE}"]
        env = {"PYTHONPATH": str(place / "only-numpy")}
    else:
        argv = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
        env = environment(installed)
    done = subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stderr}"


def environment(installed: Path | None) -> dict[str, str]:
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if installed:
        tools = f"{installed / 'bin'}:{tools}"
    path = {"PYTHONPATH": str(installed)} if installed else {}
    return {**os.environ, "PATH": tools, "MUJOCO_GL": "disabled", **path}


def only_numpy(place: Path) -> None:
    """A place to import from with what `pip install --no-deps urlrl numpy safetensors` installs."""
    place.mkdir()
    for package in (Path(numpy.__file__).parent.parent).iterdir():
        if package.name.startswith(("numpy", "safetensors")):
            (place / package.name).symlink_to(package)
    shutil.copytree(ROOT / "urlrl", place / "urlrl", ignore=shutil.ignore_patterns("__pycache__"))
