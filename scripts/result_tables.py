"""Print the tables of the README and of docs/ from the results that they quote, into the pages, and draw the pictures.

python scripts/result_tables.py

A table stands between two comments that name it; all else in the pages stays. The results are the JSON files of
docs/results.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import prompt_size as sizes
import zero_shot_table as zero_shot

from urlrl.adaptation import plot
from urlrl.adaptation.config import METHODS
from urlrl.evaluation import comparison, figures
from urlrl.evaluation.stats import shown
from urlrl.evaluation.suites import share_of

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
BODIES = {"half-cheetah-quick": "600k", "ant-quick": "1,500k"}
LADDERS = ("ant-multi-goal", "half-cheetah-goal", "half-cheetah-hurdle")
SUITES = ("walker", "cheetah", "rooms", "stitch", "left")
NUM_ENVS = ("num-envs", "num-envs-fewer-updates")
TABLE = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n\n).*?(\n\n<!-- end of table -->)", re.S)


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def skills() -> str:
    """METRA's runs; nearer by: the share of the way from the random policy's distance to none."""
    head = ["preset", "seed", "coverage", "random policy's", "reached", "final goal distance", "random policy's"]
    rows = []
    for preset, steps in BODIES.items():
        (setting,) = read(preset)["settings"]
        for seed, minutes, run in zip(setting["seeds"], setting["minutes"], setting["runs"]):
            coverage, goals = run["evaluation"]["coverage"], run["evaluation"]["goals"]
            mine, random = (goals[who]["final_distance"] for who in ("agent", "random"))
            extent = ", ".join(
                f"{x} {low:.0f} to {high:.0f}" for x, low, high in zip("xy", coverage["min"], coverage["max"])
            )
            rows.append([
                f"`{preset}`, {steps} steps", str(seed), str(coverage["agent"]), str(coverage["random"]),
                f"{extent} m", f"{mine:.1f} m", f"{random:.1f} m", f"{1 - mine / random:.0%}".replace("%", " %"),
                f"{minutes:.1f} min",
            ])  # fmt: skip
    return markdown([*head, "nearer by", "training time"], rows)


def suite(name: str) -> str:
    results = read(f"zero-shot-{name}")
    return zero_shot.table(results, zero_shot.by_series(results))


def fb_alone() -> str:
    """FB's rows of both bodies."""
    parts = []
    for name in ("walker", "cheetah"):
        results = [result for result in read(f"zero-shot-{name}") if result["agent"] == "fb"]
        parts.append(zero_shot.table(results, zero_shot.by_series(results)).splitlines())
    assert parts[0][0] == parts[1][0], "the tables of both bodies have the same columns"
    return "\n".join([*parts[0], *parts[1][2:]])


def goal_shares(name: str, prompts: tuple[str, ...]) -> list[tuple[str, int, list[float | None]]]:
    """(agent and told by, seed, share of each goal) of a maze."""
    results, found = read(f"zero-shot-{name}"), []
    for (agent, told), runs in zero_shot.by_series(results).items():
        for seed in sorted(runs) if told[0] in prompts else ():
            rows = [row for row in runs[seed]["rows"] if row["prompt"] == told[0]]
            shares = [share_of(row, row["return"]["mean"]) for row in rows]
            found.append((zero_shot.name_of(agent, told), seed, shares))
    return found


def maze() -> str:
    """A row per agent: means over seeds by goal, what the seeds come to, and the lowest."""
    found, rows = goal_shares("rooms", ("reward", "goal", "plan")), []
    for agent in dict.fromkeys(agent for agent, *_ in found):
        mine = np.array([shares for other, _, shares in found if other == agent], float)
        goals = map(zero_shot.two_digits, mine.mean(axis=0))
        rows.append([agent, *goals, shown(list(mine.mean(axis=1)), 2), zero_shot.two_digits(mine.min())])
    head = ["agent, told by", *(f"goal {i}" for i in range(1, 6)), "mean", f"lowest of {mine.size}"]
    return "\n".join([markdown(head, rows), *zero_shot.notes(read("zero-shot-rooms"))])


def maze_by_seed(name: str, prompts: tuple[str, ...], left_out: int | None = None) -> str:
    """A row per agent and seed; a goal may be left out of the mean."""
    rows = []
    for agent, seed, shares in goal_shares(name, prompts):
        counted = [value for i, value in enumerate(shares, 1) if i != left_out]
        rows.append([agent, str(seed), *map(zero_shot.two_digits, [*shares, np.mean(counted)])])
    mean = "mean" if left_out is None else f"mean without goal {left_out}"
    return markdown(["agent, told by", "seed", *(f"goal {i}" for i in range(1, 6)), mean], rows)


def prompt_size() -> str:
    """Shares by kind of task, means over tasks and seeds."""
    kinds, rows = {"linear": "linear", "move": "directions", "path": "paths"}, []
    data = read("prompt-size")["rows"]

    def mean(agent: str, samples: int, kind: str, seeds: tuple[int, ...]) -> float:
        mine = [
            row for row in data if row["agent"] == agent and row["run_seed"] in seeds and row["task"].startswith(kind)
        ]
        return sizes.means(mine, (samples,))[0][1]

    for samples in (32, 5120):
        for agent in dict.fromkeys(row["agent"] for row in data):
            of_all = [mean(agent, samples, kind, (0, 1, 2)) for kind in kinds]
            by_seed = [float(np.mean([mean(agent, samples, kind, (seed,)) for kind in kinds])) for seed in range(3)]
            rows.append([agent, f"{samples:,}", *(f"{value:.2f}" for value in of_all), shown(by_seed, 2)])
    return markdown(["agent", "samples", *kinds.values(), "mean of the three"], rows)


def ladder(name: str) -> str:
    """A row per method, then baselines and the upper bound."""
    result = read(f"ladder-{name}")
    rows = [
        [
            METHODS[method].label, shown(entry["final_per_seed"], 1), zero_shot.two_digits(entry["share"]),
            shown(entry["area_per_seed"], 1), ", ".join(f"{value:.1f}" for value in entry["area_per_seed"]),
            shown(entry["over_scratch_per_seed"], 1) if entry["over_scratch_per_seed"] else "",
        ]
        for method, entry in result["methods"].items()
    ]  # fmt: skip
    for baseline, floor in result["floors"].items():
        rows.append([f"({baseline})", f"{floor['mean']:.1f} ± {floor['standard_error']:.1f}", "", "", "", ""])
    bound, whose = result["ceiling"]
    head = ["method", "return at the end", "share", "mean over the budget", "per seed", "over scratch"]
    return markdown(head, [*rows, [f"({whose})", f"{bound:.0f}", "", "", "", ""]])


def ladders() -> str:
    """A row per task: means over the budget."""
    methods, rows = ("zero_shot", "hierarchical", "finetune", "scratch"), []
    for name in ("half-cheetah-goal", "half-cheetah-hurdle", "ant-multi-goal"):
        result = read(f"ladder-{name}")
        found = result["methods"]
        cells = [shown(found[method]["area_per_seed"], 1) for method in methods]
        cells.append(shown(found["hierarchical"]["over_scratch_per_seed"], 1))
        cells += [f"{floor['mean']:.1f}" for floor in result["floors"].values()]
        rows.append([f"`{result['task']}`", *cells, f"{result['ceiling'][0]:.0f}"])
    head = ["task", *(METHODS[method].label for method in methods), "hierarchical over scratch"]
    return markdown([*head, *result["floors"], "upper bound"], rows)


def device_seeds() -> str:
    """Three rows per environment. The baselines are the same for all seeds, as the seed of the evaluation is."""
    cells = {"maze:pinwheel_fixed": " of 108", "maze:rooms_fixed": " of 55"}  # free ones, by environment
    rows = []
    for result in read("device-seeds"):
        scores = {
            "coverage, 1 m cells": (f"coverage, 1 m cells{cells.get(result['env'], '')}", 1),
            "goals, hit_1": ("goals within 1 m at some time", 2),
            "goals, final_distance": ("final goal distance, m", 2),
        }
        for key, (name, digits) in scores.items():
            found = result["metrics"][key]
            floors = [f"{found[who]['estimate']['value']:.{digits}f}" for who in ("random", "standing still")]
            rows.append([f"`{result['env']}`", name, shown(found["agent"]["values"], digits), *floors])
    return markdown(["environment, 8 seeds", "", "agent", "random", "standing still"], rows)


def num_envs() -> str:
    """Coverage by numbers of environments, early, half way and at the end."""
    first, second = (read(name)["settings"] for name in NUM_ENVS)
    rows = []
    for setting in [*first, *second[1:]]:  # Both begin with the same.
        config, curve = setting["runs"][0]["config"], setting["curves"]["eval/coverage"]
        updates = round(config["num_envs"] * config["rollout_steps"] / config["steps_per_update"])
        at = dict(zip(curve["steps"], curve["values"]))
        early = [shown(values, 0) for step, values in at.items() if 12_800 <= step < 15_000]
        half = [shown(values, 0) for step, values in at.items() if 51_200 <= step < 53_000]
        about = [f"{config['num_envs']:,}", f"{config['rollout_steps']}, {updates:,}"]
        rows.append([*about, early[0] if early else "–", half[0], shown(curve["values"][-1], 0)])
    head = ["environments", "steps of each, updates between", "at 12,800 to 14,300 steps", "at 51,200", "at the end"]
    return markdown(head, rows)


FAMILY = {  # score -> (head, digits)
    "coverage, 1 m cells": ("coverage", 1), "goals, hit_3": ("goals hit (3 m)", 2),
    "goals, final_distance": ("final goal distance, m", 1), "skills, distinct_skills": ("distinct skills", 1),
    "skills, dead_skills": ("dead", 1), "skills, directions": ("directions with a skill", 2),
    "skills, effective_rank": ("effective rank", 1), "skills, time_correlation": ("latent distance and time", 2),
}  # fmt: skip


def family(name: str) -> str:
    """The skill-discovery agents of a comparison: means over seeds, and what the baselines have of it."""
    result, rows = read(name), []
    names = [each for each in FAMILY if any(each in setting["scores"] for setting in result["settings"])]
    for setting in result["settings"]:
        scores = setting["scores"]
        rows.append([
            setting["label"], *(shown(scores[n]["values"], FAMILY[n][1]) if n in scores else "–" for n in names)
        ])  # fmt: skip
    for who, values in result["baselines"].items():
        floors = (f"{np.mean(values[n]):.{FAMILY[n][1]}f}" if n in values else "–" for n in names)
        rows.append([{"random": "random policy"}.get(who, who), *floors])
    return markdown(["", *(FAMILY[n][0] for n in names)], rows)


TABLES: dict[str, Callable[[], str]] = {
    "skills": skills,
    "zero-shot": fb_alone,
    "ladders": ladders,
    "walker": lambda: suite("walker"),
    "cheetah": lambda: suite("cheetah"),
    "rooms": maze,
    "stitch": lambda: maze_by_seed("stitch", ("goal", "plan")),
    "left": lambda: maze_by_seed("left", ("reward",), left_out=3),
    "prompt-size": prompt_size,
    **{f"ladder-{name}": lambda name=name: ladder(name) for name in LADDERS},
    "num-envs": num_envs,
    "device-seeds": device_seeds,
    **{f"skills-{body}": lambda body=body: family(f"skills-{body}") for body in ("maze",)},
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A page with its tables as the results have them."""
    return TABLE.sub(lambda found: f"{found[1]}{TABLES[found['name']]()}{found[3]}", text)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text()))
    for name in SUITES:
        results = read(f"zero-shot-{name}")
        zero_shot.draw(results, zero_shot.by_series(results), RESULTS / f"zero-shot-{name}.png")
    sizes.draw(read("prompt-size")["rows"], sizes.SIZES, RESULTS / "prompt-size.png")
    for name in LADDERS:
        plot.draw(read(f"ladder-{name}"), RESULTS / f"ladder-{name}.png")
    for name in (*BODIES, *NUM_ENVS):
        curves = comparison.by_metric(read(name)["settings"])
        (RESULTS / f"{name}.png").write_bytes(figures.png(figures.draw_compared(curves, figures.LIGHT)))


if __name__ == "__main__":
    main()
