"""Every block of the README runs. Long presets are shortened, nothing else is changed."""

import re
import subprocess
from pathlib import Path

import pytest
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
    "--agents metra,csf --preset ant-quick --seeds 0..4 --out c": "--agents uniform --env point --steps 400 "
    "--num-envs 2 --min-replay 10 --steps-per-update 0 --seeds 0 --out c",
    "--agents metra,lsd,csd,csf,diayn,dads": "--agents metra,csf",
    "--steps 8000 --seeds 0..2": "--steps 2000 --seeds 0..1",
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


@pytest.fixture
def result_tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import result_tables

    return result_tables


def test_the_tables_are_those_that_the_results_give(result_tables):
    named = set()
    for page in result_tables.PAGES:
        text = page.read_text()
        named |= {found["name"] for found in result_tables.TABLE.finditer(text)}
        assert result_tables.filled(text) == text, f"{page}: run python scripts/result_tables.py"
    assert named == result_tables.TABLES.keys()
    changed = README.replace("| 189 (", "| 190 (").replace("| 0.48 |", "| 5.1x |")  # The wrong variant.
    assert changed != README and result_tables.filled(changed) == README


def test_all_that_is_known_stands_beside_a_score(result_tables):
    """Standing still was in the results and in no table, and shares were of the bound alone."""
    rows = [line.split(" | ") for line in result_tables.suite("walker").splitlines()]
    assert rows[0][4:8] == ["random", "zero action", "standing still", "upper bound"]
    run = next(row for row in rows if row[0].endswith("walker_run") and row[1] == "fb, reward")
    assert run[2:8] == ["103 (112, 95, 102)", "-0.10", "23", "20", "167", "796"]
    table = [line.split(" | ") for line in result_tables.prompt_size().splitlines()]
    paths = {tuple(row[:2]): row[4] for row in table if len(row) > 4}
    assert paths["| fre", "32"] == "0.47" and paths["| fb", "32"] == "0.50"  # 0.60 and 0.57 of the bound alone


def test_numbers_in_the_readmes_sentences_are_those_of_the_results(result_tables):
    goals = [result_tables.read(f"ladder-{name}") for name in ("half-cheetah-goal", "ant-multi-goal")]
    prompts = [f"{result['methods']['zero_shot']['share']:.2f}" for result in goals]
    assert f"{' and '.join(prompts)} of the way" in README
    zero = [f"{result['floors']['zero action']['mean']:.1f}" for result in goals]
    assert f"Action zero returns {' and '.join(zero)}" in README
    cheetah, ant = ([result["methods"]["hierarchical"]["area"]["value"], float(z)] for result, z in zip(goals, zero))
    assert cheetah[0] < cheetah[1] and ant[0] > ant[1]  # "below that on HalfCheetah, and a little above it on Ant"
    walker = {result_tables.zero_shot.label(result) for result in result_tables.read("zero-shot-walker")}
    assert "fb" in walker and not re.search(r"\d+(\.\d+)?x\b", README)  # No multiple of the random policy's return.


def test_nothing_is_left_to_fill_in():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert not re.search(r"^[A-Z_]{5,}$", page.read_text(), re.M), page
