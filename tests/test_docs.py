"""Every block of docs/ runs, page by page, one after another, as a reader would run them. What would take minutes is
shortened, bodies are exchanged for a point in a maze, and what needs a GPU is looked at without being started."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT, blocks_of, run_here, shortened

from urlrl.agents import AGENTS, find_agent
from urlrl.cli import main
from urlrl.envs.maze import place_cells
from urlrl.skills import BUNDLES

PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCKS = {page.stem: blocks_of(page) for page in sorted((ROOT / "docs").glob("*.md"))}
# Page -> what stands there -> what is run.
TINY = "--agent.width 16 --steps 60 --updates 20"
ENCODER = "--agent.warmup 20 --agent.encoder-width 16 --agent.encoder-depth 1 --agent.encoder-heads 2"
QUICK = "--agent.width 16 --normalizer off"
BRIEF_RUN = "--steps 400 --num-envs 2 --rollout-steps 50 --min-replay 100 --eval-every 200 --agent.width 16"
GOAL, BRIEF = "--task maze_rooms_cells_goal_1", "--seeds 0 --steps 400 --eval-every 400 --eval-episodes 2"
DATA = {
    "data collect walker": "data collect maze-rooms-random --steps 4000",
    "data collect maze-rooms-random --out": "data collect maze-rooms-random --steps 4000 --out",
    "data collect maze-rings-mass-random": "data collect maze-rings-mass-random --steps 4000",
    "pretrain fb --preset quick": f"pretrain fb --preset maze-quick {TINY} --agent.backward-width 16",
    "exorl-v1/walker": "maze-v1/rooms_cells",
}
SHORTER = {
    "agents": {"--preset metra/point-quick": f"--preset metra/point-quick --steps 2000 --eval-every 0 {QUICK}"},
    "adversarial-surprise": {
        "--preset block-quick": "--preset block-quick --steps 4096 --agent.ppo.width 16",
        "--seeds 0..4": "--seeds 0..1",
        "--out as-block": "--out as-block --seeds 0 1 --worlds block:line18 --steps 2048",
        "--steps 1_000_000 --eval-every 0 --out runs/hopper": "--steps 1600 --eval-every 0 --out runs/hopper",
    },
    "device": {
        "--num-envs 64 --seeds 0..7": f"--num-envs 64 --seeds 0..1 --steps 3200 --eval-every 0 {QUICK}",
        "--preset mjx-ant --out": "--dry-run --preset mjx-ant --out",
        "--preset mjx-ant --seeds": "--dry-run --preset mjx-ant --seeds",
        "benchmark_gpu.py": "benchmark_gpu.py --help",
        "64x25 256x6 1024x2 2048x1 256x25 1024x25 2048x25": "32x10 16x20",
        "--steps 102400 --eval-every 12800": f"--steps 640 --eval-every 640 {QUICK}",
        "--out docs/results/num-envs": "--out num-envs",
        "--seeds 0..4": "--seeds 0..1",
        "--method finetune --seeds 0": f"--method finetune {BRIEF}",
        **DATA,
    },
    "compare": {
        "--env half_cheetah --steps 600000 --seeds 0..4 --reach coverage=50": f"--env point --seeds 0 {BRIEF_RUN}",
        "study.toml --out": f"study.toml {BRIEF_RUN} --out",
    },
    "skills": {
        "drive_skill.py bundles": f"drive_skill.py {BUNDLES}",
    },
    "zero-shot": {
        **DATA,
        "vx * upright - 0.1 * energy": "-abs(x - 2)",
        "vx * upright": "x",
        "PATH...": "data/walker",
        "PATH": "data/walker",
        "[:, 14]": "[:, 0]",
        "pretrain sf --preset hilp-zsrl-walker-quick": f"pretrain sf --preset laplacian-maze-quick {TINY}",
        "pretrain hilp --preset maze-quick": f"pretrain hilp --preset maze-quick {TINY}",
        "pretrain fre --preset maze-mass-quick": f"pretrain fre --preset maze-mass-quick {TINY} {ENCODER}",
        "--task walker_run --seeds 0..4": f"{GOAL} {BRIEF}",
        "--task walker_run --method finetune --steps 100000": f"{GOAL} --method finetune {BRIEF}",
        "--steps 3000": "--steps 60 --updates 20",
        "range(1000)": "range(10)",
        "maze-v1/rooms\n": "maze-v1/rooms_cells\n",
    },
}  # fmt: skip
SLOW = ("adversarial-surprise", "compare", "device", "zero-shot")  # a minute each


def headings(page: Path) -> set[str]:
    """As links name them: lower case, spaces as hyphens, no other signs."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for file, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), file
        assert not heading or heading in headings(target), f"{file}#{heading}"


def test_every_agent_that_learns_says_how_it_differs_from_its_papers_code():
    sections = headings(ROOT / "docs" / "fidelity.md")
    for name in AGENTS.keys() - {"uniform"}:
        assert name in sections, name
        page = sys.modules[find_agent(name)[0].__module__].__doc__
        assert f"docs/fidelity.md#{name}" in page, name


@pytest.fixture
def before(tmp_path, monkeypatch):
    """What readers of a page have already, in the folder where they are."""
    monkeypatch.chdir(tmp_path)

    def make(page: str) -> None:
        if page == "skills":
            tiny = "--steps 400 --num-envs 2 --rollout-steps 200 --min-replay 400 --agent.width 16 --eval-every 0"
            main(shlex.split(f"pretrain metra --preset half-cheetah-quick {tiny} --out runs/demo --quiet"))
        if page == "compare":
            study = re.search(r"^```toml\n(.*?)^```$", (ROOT / "docs/compare.md").read_text(), re.M | re.S)[1]
            tiny = {"half_cheetah": "point", "/half-cheetah-quick": "/point-quick", '"0..4"': "0", '"0..9"': "0"}
            Path("study.toml").write_text(shortened(study, {**tiny, "coverage=50": "coverage=2"}))
        if page == "zero-shot":
            rng = np.random.default_rng(0)
            np.save("episode.npy", place_cells(rng.uniform(-3, 3, (20, 2)), (8, 8)).astype(np.float32))
        if page == "device":
            main(shlex.split("data collect maze-rooms-random --steps 4000 --out data/walker --quiet"))

    return make


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page, blocks in BLOCKS.items() if blocks],
)
def test_every_block_runs(page, before, tmp_path, monkeypatch):
    before(page)
    names: dict = {}
    for language, text in BLOCKS[page]:
        run_here(language, shortened(text, SHORTER.get(page, {})), tmp_path, names, monkeypatch)
