"""Every block of the README runs. Long presets are shortened, nothing else is changed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy

from urlrl.presets import all_presets, preset
from urlrl.skills import BUNDLES
from urlrl.verbs.agents import HEADINGS, list_agents

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", README, re.M | re.S)
# What would take minutes -> what takes seconds and goes the same way.
SHORTER = {
    "--preset half-cheetah-quick": "--preset point-quick --steps 3000",
    "--preset maze-quick": "--preset maze-quick --steps 100 --updates 100",
    "steps=20_000": "steps=2_000, eval_every=0",
    "--task half_cheetah_goal --seeds 0..4": "--task half_cheetah_goal",
    "--task half_cheetah_goal": "--task point_goal --seeds 0 --steps 400 --eval-every 400 --eval-episodes 2 "
    "--num-envs 2 --off-policy.warmup-updates 10",
    "adapt/half_cheetah_goal/": "adapt/point_goal/",
    "--seeds 0..7": "--seeds 0..1 --steps 6400 --eval-every 0",
    "--goal x=30": "--goal x=2,y=1",
    "scripts/drive_skill.py bundles/x": f"{ROOT}/scripts/drive_skill.py {BUNDLES}/half_cheetah",
}
WITHOUT_JAX = "# without JAX"


def environment(installed: Path | None) -> dict[str, str]:
    """Of the checkout, or of what is installed in a folder."""
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if installed:
        tools = f"{installed / 'bin'}:{tools}"
    path = {"PYTHONPATH": str(installed)} if installed else {}
    return {**os.environ, "PATH": tools, "MUJOCO_GL": "disabled", **path}


def run_block(language: str, text: str, place: Path, installed: Path | None) -> None:
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    if "make " in text:  # Each target exists; that they work is what running the tests and the demo shows.
        for target in re.findall(r"^make (\S+)", text, re.M):
            subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)
        return
    named = re.match(r"# file: (\S+)\n", text)
    if named:
        (place / named[1]).write_text(text)
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


NOTHING_ELSE = """
from importlib.util import find_spec
assert action.shape == ctrl.shape == (6,) and np.abs(action).max() <= 1
assert not any(map(find_spec, ["jax", "flax", "scipy", "gymnasium", "mujoco", "tyro"]))
"""


def only_numpy(place: Path) -> None:
    """A place to import from with what `pip install --no-deps urlrl numpy safetensors` installs."""
    place.mkdir()
    for package in (Path(numpy.__file__).parent.parent).iterdir():
        if package.name.startswith(("numpy", "safetensors")):
            (place / package.name).symlink_to(package)
    shutil.copytree(ROOT / "urlrl", place / "urlrl", ignore=shutil.ignore_patterns("__pycache__"))


def test_the_readme_loads_skills_without_jax():
    assert sum(text.startswith(WITHOUT_JAX) for _, text in BLOCKS) == 1


def test_every_block_runs(tmp_path):
    """One after another in an empty folder, as a reader would run them."""
    assert len(BLOCKS) >= 8
    for language, text in BLOCKS:
        run_block(language, text, tmp_path, None)


def test_the_table_of_agents_is_what_the_command_prints():
    for row in [HEADINGS, *list_agents()]:
        assert f"| {' | '.join(row)} |" in README, row.agent


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_named_metric_is_documented():
    documented = (ROOT / "docs/metrics.md").read_text()
    sources = [*(ROOT / "agents").glob("*.py"), *(ROOT / "urlrl").rglob("*.py")]
    names = {
        name
        for path in sources
        for name in re.findall(r'"((?:phi|actor|critic|reward|rollout|eval)/\w+)"', path.read_text())
    }
    assert len(names) > 8
    for name in names:
        assert f"`{name}`" in documented, name


def test_numbers_that_the_readme_repeats_are_those_of_the_presets():
    steps = f"{preset('metra', 'half-cheetah-quick').steps:,}"
    assert f"{steps} steps without reward" in README.replace("\n", " ")
    for name in all_presets()["metra"]:
        assert f"`{name}`" in README, name


def test_nothing_is_left_to_fill_in():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert not re.search(r"^[A-Z_]{5,}$", page.read_text(), re.M), page
