"""Every block of the README runs. Long presets are shortened, nothing else is changed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from urlrl.presets import PRESETS, preset

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```$", README, re.M | re.S)
# What would take minutes -> what takes seconds and goes the same way.
SHORTER = {"--preset half-cheetah-quick": "--preset point-quick --steps 3000", "steps=20_000": "steps=2_000"}


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "MUJOCO_GL": "disabled"}


def run_block(language: str, text: str, place: Path) -> None:
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
    argv = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
    done = subprocess.run(argv, cwd=place, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_every_block_runs(tmp_path):
    """One after another in an empty folder, as a reader would run them."""
    assert len(BLOCKS) >= 8
    for language, text in BLOCKS:
        run_block(language, text, tmp_path)


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
    for name in PRESETS["metra"]:
        assert f"`{name}`" in README, name


def test_nothing_is_left_to_fill_in():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert not re.search(r"^[A-Z_]{5,}$", page.read_text(), re.M), page
