"""The wheel holds the tree and nothing else, and works where it is installed; so does the editable install."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pages import run_apart, shortened
from test_readme import BLOCKS, SHORTER

import urlrl
from urlrl.skills import BUNDLES

ROOT = Path(urlrl.__file__).parent.parent
SOURCES = {"urlrl": "urlrl", "agents": "urlrl/agents", "envs": "urlrl/envs"}  # folder of the tree -> of the wheel
# Imports everything by its public name, and says where it came from.
SHOW = """
import urlrl, urlrl.agents, urlrl.agents.metra, urlrl.envs, urlrl.evaluation.report
print(urlrl.__file__, urlrl.agents.__file__, urlrl.agents.metra.__file__, urlrl.envs.__file__, sep="\\n")
assert urlrl.preset("metra", "point-quick").agent.__class__ is urlrl.agents.metra.MetraConfig
urlrl.make_env("point", 2).close()
"""
PLACES = ("urlrl/__init__.py", "urlrl/agents/__init__.py", "urlrl/agents/metra.py", "urlrl/envs/__init__.py")


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """What Python prints, with `path` first among the places it imports from."""
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the tree: a build leaves files there, and takes up those of an earlier one."""
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree")
    python(
        "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder),
        str(folder / "tree"), cwd=folder,
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(target)]
    python("-m", "pip", "install", *options, str(wheel), cwd=target)
    return target


def test_the_wheel_holds_the_tree(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"urlrl-{urlrl.__version__}.dist-info/METADATA").decode()
    found = {name for name in names if not name.startswith(f"urlrl-{urlrl.__version__}.dist-info/")}
    expected = {
        str(target / path.relative_to(ROOT / source))
        for source, target in ((source, Path(target)) for source, target in SOURCES.items())
        for path in (ROOT / source).rglob("*.py")
    }
    bundles = {f"urlrl/{path.relative_to(ROOT / 'urlrl')}" for path in BUNDLES.glob("*/*")}
    assert len(bundles) == 10 and found == expected | bundles | {"urlrl/py.typed"}
    assert f"urlrl-{urlrl.__version__}.dist-info/licenses/LICENSE" in names
    assert f"Version: {urlrl.__version__}\n" in metadata and "License-Expression: MIT\n" in metadata


def test_the_installed_wheel_works_on_its_own(installed, tmp_path):
    found = python("-c", SHOW, cwd=tmp_path, path=installed).split()
    assert found == [str(installed / name) for name in PLACES]
    assert "half-cheetah-quick" in python("-m", "urlrl", "presets", cwd=tmp_path, path=installed)
    tops = {path.name for path in installed.iterdir() if path.name != "bin"}
    assert tops == {"urlrl", f"urlrl-{urlrl.__version__}.dist-info"}
    assert "urlrl pretrain" in python(str(installed / "bin" / "urlrl"), cwd=tmp_path, path=installed)


@pytest.mark.slow
def test_every_block_of_the_readme_runs_where_no_checkout_is(installed, tmp_path):
    """But for what the checkout holds beside the package: make."""
    for language, text in BLOCKS:
        if "make " not in text:
            run_apart(language, shortened(text, SHORTER), tmp_path, installed)


def test_the_checkout_works_where_it_shadows_the_wheel(installed):
    found = python("-c", SHOW, cwd=ROOT, path=installed).split()
    assert found == [str(ROOT / name) for name in PLACES]
    assert "half-cheetah-quick" in python("-m", "urlrl", "presets", cwd=ROOT, path=installed)


def test_the_editable_install_works_elsewhere(tmp_path):
    found = python("-c", SHOW, cwd=tmp_path).split()
    assert found[1:] == [str(ROOT / name) for name in PLACES[1:]]


MINE = """
from urlrl.agents.metra import Metra
from urlrl.envs import make_env
reveal_type(Metra.create)
reveal_type(make_env)
"""


@pytest.mark.slow
def test_type_checkers_see_the_editable_install(tmp_path):
    """From elsewhere, as a user's own project does: agents and environments have their types."""
    (tmp_path / "mine.py").write_text(MINE)
    said = python("-m", "mypy", "--ignore-missing-imports", "mine.py", cwd=tmp_path)
    assert "-> urlrl.agents.metra.Metra" in said and "-> urlrl.types.HostEnv" in said, said
