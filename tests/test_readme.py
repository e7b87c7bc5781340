"""Every block of the README runs. Long presets are shortened, nothing else is changed."""

import re
import subprocess
from pathlib import Path

from pages import WITHOUT_JAX, blocks_of

from urlrl.presets import all_presets, preset
from urlrl.skills import BUNDLES
from urlrl.verbs.agents import HEADINGS, list_agents

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = blocks_of(ROOT / "README.md")
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


def test_the_readme_loads_skills_without_jax():
    assert sum(text.startswith(WITHOUT_JAX) for _, text in BLOCKS) == 1


def test_every_target_of_make_is_there():
    """That they work is what running the tests and the demo shows. All other blocks are run by tests/test_package.py,
    on a wheel."""
    targets = re.findall(r"^make (\S+)", README, re.M)
    assert len(BLOCKS) >= 8 and {"demo", "test"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


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
