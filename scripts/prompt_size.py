"""How much of a reward agents must be shown: the return of every task of a suite by the number of labelled transitions.

python scripts/prompt_size.py runs/fre-? runs/fb-? --suite fre-v1/maze-rings_mass --out docs/results/prompt-size

Writes OUT.json (every run, size, task and draw of the samples) and OUT.png, a curve for each agent, and prints a table.
A run whose environment shows other observations is scored on the same suite for those (`_cells` after its name). All
are shown the same transitions, provided that their data were collected with the same seed; more of them are the same
ones and further ones. The score of a task is 0 for the best baseline and 1 for the upper bound, from the same starts;
a task whose baseline is close to its bound has none. Where all the rewards that are shown are equal nothing was told,
and the random policy's return is counted.
"""

import json
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tyro.conf import Positional
from zero_shot_table import label

from urlrl.config import to_json
from urlrl.envs.maze import CELLS
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation import prompting
from urlrl.evaluation.rollout import play, play_random, play_zero, starts
from urlrl.evaluation.stats import share
from urlrl.evaluation.suites import ZeroShotSuite, find_suite
from urlrl.runs.load import load_checkpoint
from urlrl.runs.past import past
from urlrl.runtime import enable_compilation_cache, versions
from urlrl.tasks.catalogue import find_task
from urlrl.tasks.task import Task, check_runs_on, make_task_env
from urlrl.types import Trajectory
from urlrl.verbs.adapt import labelled
from urlrl.verbs.evaluate_suite import SUITES

SIZES = (4, 8, 16, 32, 128, 512, 1280, 5120)
BASELINES = {"random": play_random, "zero action": play_zero}
Bounds = dict[tuple[str, int], dict[str, float]]  # (kind of task, seed) -> returns of the baselines, and the ceiling


@dataclass(frozen=True)
class Options:
    """Runs to compare."""

    runs: Positional[tuple[Path, ...]]  # folders
    suite: str  # tasks with a ceiling
    out: Path  # writes OUT.json and OUT.png
    samples: tuple[int, ...] = SIZES
    seeds: tuple[int, ...] = (0,)  # of the samples that are drawn, and of the starts


def total(trajectory: Trajectory) -> float:
    return float(prompting.returns(np.where(trajectory.mask, trajectory.steps.reward, np.nan)).mean())


def kind_of(task: Task, protocol: ZeroShotSuite) -> str:
    """What a task is called whatever its observations: its name without what all of the suite's have in common."""
    start = len(protocol.tasks[0].rpartition("_")[0].rpartition("_")[0])
    return task.name[start + 1 :]


def suite_of(name: str, env: str) -> ZeroShotSuite:
    protocol = find_suite(name, SUITES)
    if env.endswith(CELLS) and not name.endswith(CELLS):
        protocol = find_suite(name + CELLS, SUITES)
    check_runs_on(find_task(protocol.tasks[0]), env)
    return protocol


def bounds_of(task: Task, env: Any, kind: str, seed: int, known: Bounds) -> dict[str, float]:
    if (kind, seed) not in known:
        ceiling = task.ceiling(starts(env, seed))
        if ceiling is None:
            raise UserError(f"Task '{task.name}' has no ceiling: expected a suite whose tasks have one.")
        known[kind, seed] = {name: total(episodes(env, seed)) for name, episodes in BASELINES.items()}
        known[kind, seed]["ceiling"] = ceiling[0]
    return known[kind, seed]


def measure(run: Path, options: Options, known: Bounds) -> list[dict[str, Any]]:
    """A row for each task, size and seed."""
    loaded, found = load_checkpoint(run, None), []
    protocol = suite_of(options.suite, loaded.config.env)
    about = {"agent": label({"agent": loaded.config.agent_name, "config": to_json(loaded.config)})}
    about |= {"run_seed": loaded.config.seed, "step": loaded.step}
    for seed in options.seeds:
        rows = past(run, loaded, prompting.labelled_count(max(options.samples)), seed)
        assert rows is not None, run
        for task in map(find_task, protocol.tasks):
            kind, steps = kind_of(task, protocol), labelled(rows, task)
            with closing(make_task_env(task, protocol.episodes)) as env:
                bounds = bounds_of(task, env, kind, seed, known)
                for samples in options.samples:
                    told, got = True, bounds["random"]
                    try:
                        read, _ = prompting.read_reward(loaded.agent, steps, samples, seed)
                        got = total(play(env, loaded.agent, read, seed))
                    except UnsupportedPrompt:
                        raise
                    except UserError:  # The rewards that were drawn are all equal.
                        told = False
                    row = {"task": kind, "samples": samples, "seed": seed, "return": got, "told": told}
                    found.append({**about, **row, **bounds})
        print(
            f"{run}, draw {seed}: " + ", ".join(f"{n}: {s:.2f}" for n, s in means(found, options.samples)), flush=True
        )
    return found


def score(row: dict[str, Any]) -> float | None:
    return share(row["return"], [row[name] for name in BASELINES], row["ceiling"])


def means(rows: list[dict[str, Any]], sizes: tuple[int, ...]) -> list[tuple[int, float]]:
    scores = [(row["samples"], score(row)) for row in rows]
    return [(n, float(np.mean([value for size, value in scores if size == n and value is not None]))) for n in sizes]


def draw(rows: list[dict[str, Any]], sizes: tuple[int, ...], path: Path) -> None:
    groups = {"all tasks": "", **{kind: kind for kind in dict.fromkeys(row["task"].split("_")[0] for row in rows)}}
    figure = Figure((2.5 * len(groups) + 0.5, 3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (title, start) in zip(figure.subplots(1, len(groups), squeeze=False, sharey=True)[0], groups.items()):
        for i, agent in enumerate(dict.fromkeys(row["agent"] for row in rows)):
            mine = [row for row in rows if row["agent"] == agent and row["task"].startswith(start)]
            curves = [
                [mean for _, mean in means([row for row in mine if row["run_seed"] == seed], sizes)]
                for seed in sorted({row["run_seed"] for row in mine})
            ]
            axis.plot(sizes, np.mean(curves, axis=0), "o-", color=f"C{i}", markersize=3, label=agent)
            for curve in curves:
                axis.plot(sizes, curve, color=f"C{i}", linewidth=0.6, alpha=0.5)
        axis.axhline(0, color="0.6", linestyle=":", linewidth=1)
        axis.axhline(1, color="0.6", linestyle="--", linewidth=1)
        axis.set(xscale="log", title=title, xlabel="labelled transitions", ylim=(-0.5, 1.1))
        axis.title.set_fontsize(9)
    figure.axes[0].set_ylabel("0: best baseline, 1: upper bound")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path)


def table(rows: list[dict[str, Any]], sizes: tuple[int, ...]) -> str:
    """Markdown: a row for each agent and kind of task."""
    lines = [f"| agent | tasks | {' | '.join(f'{n:,}' for n in sizes)} |", "|---" * (len(sizes) + 2) + "|"]
    kinds = list(dict.fromkeys(row["task"].split("_")[0] for row in rows))
    for agent in dict.fromkeys(row["agent"] for row in rows):
        for kind in ("", *kinds):
            mine = [row for row in rows if row["agent"] == agent and row["task"].startswith(kind)]
            cells = [f"{value:.2f}" for _, value in means(mine, sizes)]
            lines.append(f"| {agent} | {kind or 'all'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(options: Options) -> None:
    enable_compilation_cache()
    known: Bounds = {}
    rows = [row for run in options.runs for row in measure(run, options, known)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    task = find_task(find_suite(options.suite, SUITES).tasks[0])
    bound = f"value iteration, {task.episode_steps} steps, no discount"
    content = {"suite": options.suite, "ceiling": bound, "runs": [str(run) for run in options.runs], "rows": rows}
    content["versions"] = versions()
    options.out.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    draw(rows, options.samples, options.out.with_suffix(".png"))
    print(f"0: the best of {', '.join(BASELINES)}; 1: {bound}\n{table(rows, options.samples)}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        print(f"prompt_size: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
