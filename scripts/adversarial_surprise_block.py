"""Adversarial surprise beside its baselines in the corridor with televisions: where each of them spends its time.

python scripts/adversarial_surprise_block.py --runs runs/as-block --out docs/results/adversarial-surprise-block

Trains an agent for each world, objective and seed by the preset `block-quick` (all seeds of one advance together on the
device; what is trained already is not trained again), plays 32 episodes of each as in training, and writes OUT.json
and OUT.png. Cells are those of the true position in an episode, its start included; a step is on a television when it
has reached one. Beside the agents stands the random policy.
"""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from urlrl.config import changed, to_json
from urlrl.envs import make_env
from urlrl.envs.block import CELLS, has_television
from urlrl.evaluation.rollout import Policy, acting, rollout, uniform
from urlrl.evaluation.stats import Estimate, iqm_interval, mean_interval
from urlrl.presets import preset
from urlrl.runs.load import load
from urlrl.runtime import enable_compilation_cache, versions
from urlrl.streams import env_seed, stream
from urlrl.training.log import read_metrics
from urlrl.verbs.pretrain import pretrain_seeds

SYMBOLS, EPISODES, RANDOM = 140, 32, "random"
WORDS = {"adversarial": "adversarial surprise", "entropy": "entropy maximiser", "minimiser": "surprise minimiser",
         "rnd": "novelty bonus (RND)", RANDOM: "random policy"}  # fmt: skip
COLOURS = {"adversarial": "#2266ac", "entropy": "#c0392b", "minimiser": "#667080", "rnd": "#b9770e", RANDOM: "#aab2bd"}
PLAN = {
    "line18_loud": ("adversarial", "entropy", "minimiser", "rnd"),
    "line18_loud_quiet": ("adversarial", "entropy"),
    "line18": ("adversarial", "entropy", "minimiser"),
}


@dataclass(frozen=True)
class Options:
    """What is compared."""

    runs: Path  # folder of the runs
    out: Path  # writes OUT.json and OUT.png
    seeds: tuple[int, ...] = tuple(range(10))
    worlds: tuple[str, ...] = tuple(PLAN)  # names of `block:`
    steps: int = 160_000  # of each run


def measure(world: str, policy: Policy, seed: int) -> dict[str, Any]:
    """Means over episodes as in training, and the share of steps by cell."""
    with closing(make_env(f"block:{world}", EPISODES)) as env:
        name = "corridor"  # The streams of randomness are the same for all that are compared.
        steps = env.env_spec.episode_steps or 0
        played = rollout(env, policy, stream(seed, name), env_seed(seed, name), steps)
    assert played.position is not None
    cells = played.position[..., 0].astype(int)
    control = played.steps.z[..., 1:].sum(axis=-1) > 0
    on = has_television(cells[1:])
    return {
        "cells": float(np.mean([len(set(lane)) for lane in cells.T])),
        "television": float(on.mean()),
        "television_of_control": float(on[control].mean()) if control.any() else None,
        "share_by_cell": (np.bincount(cells[1:].ravel(), minlength=CELLS) / cells[1:].size).round(5).tolist(),
    }


def trained(world: str, objective: str, options: Options) -> Iterator[dict[str, Any]]:
    """A row for each seed."""
    settings = {"env": f"block:{world}", "agent.symbols": SYMBOLS, "agent.objective": objective, "steps": options.steps}
    config = changed(preset("adversarial_surprise", "block-quick"), settings)
    wall, cores = time.perf_counter(), time.process_time()
    folders = pretrain_seeds(config, options.seeds, options.runs / f"{world}-{objective}", quiet=True)
    wall, cores = time.perf_counter() - wall, time.process_time() - cores
    for seed, folder in zip(options.seeds, folders):
        agent, _ = load(folder)
        late = [row["control/late_log_p"] for row in read_metrics(folder / "metrics.jsonl")][-10:]
        # Times are those of all seeds together.
        about = {
            "world": world,
            "objective": objective,
            "seed": seed,
            "wall_s": round(wall, 1),
            "cpu_s": round(cores, 1),
        }
        yield {**about, **measure(world, acting(agent, temperature=1.0), seed), "late_log_p": float(np.mean(late))}


def measured(options: Options) -> list[dict[str, Any]]:
    rows = list[dict[str, Any]]()
    for world in options.worlds:
        for objective in PLAN[world]:
            rows += trained(world, objective, options)
            print(line(rows, world, objective), flush=True)
        with closing(make_env(f"block:{world}")) as env:
            policy = uniform(env.env_spec)
        for seed in options.seeds:
            about = {"world": world, "objective": RANDOM, "seed": seed}
            rows.append({**about, **measure(world, policy, seed)})
        print(line(rows, world, RANDOM), flush=True)
    return rows


def column(rows: list[dict[str, Any]], world: str, objective: str, name: str) -> np.ndarray:
    """(seeds,)"""
    return np.array([row[name] for row in rows if (row["world"], row["objective"]) == (world, objective)], float)


def line(rows: list[dict[str, Any]], world: str, objective: str) -> str:
    cells, television = (
        iqm_interval([column(rows, world, objective, name)]).text(2) for name in ("cells", "television")
    )
    return f"{world:18} {WORDS[objective]:22} cells {cells}, on televisions {television}"


def summary(rows: list[dict[str, Any]], options: Options) -> dict[str, Any]:
    """By world and objective: interquartile means; and the paired differences of cells to adversarial surprise."""
    found: dict[str, Any] = {}
    for world in options.worlds:
        ours = column(rows, world, "adversarial", "cells")
        for objective in (*PLAN[world], RANDOM):
            cells = column(rows, world, objective, "cells")
            found[f"{world} {objective}"] = {
                "mean_cells": float(cells.mean()),
                "cells": iqm_interval([cells]).to_json(),
                "television": iqm_interval([column(rows, world, objective, "television")]).to_json(),
                "adversarial_minus_this": iqm_interval([ours - cells]).to_json(),
                "adversarial_minus_this_mean": mean_interval(ours - cells).to_json(),
            }
    return found


def draw(rows: list[dict[str, Any]], options: Options) -> Figure:
    """Above, cells by seed; below, where the time is spent."""
    figure = Figure((4 * len(options.worlds), 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(options.worlds), squeeze=False)
    for top, below, world in zip(axes[0], axes[1], options.worlds):
        for place, objective in enumerate((*PLAN[world], RANDOM)):
            cells, colour = column(rows, world, objective, "cells"), COLOURS[objective]
            middle = Estimate(**{k: v or 0.0 for k, v in iqm_interval([cells]).to_json().items()})
            top.plot(np.full(len(cells), place), cells, "o", color=colour, alpha=0.4)
            top.hlines(middle.value, place - 0.3, place + 0.3, color=colour, linewidth=2)
            shares = [row["share_by_cell"] for row in rows if (row["world"], row["objective"]) == (world, objective)]
            below.plot(range(CELLS), np.mean(shares, axis=0), color=colour, label=WORDS[objective])
        top.set_title(f"block:{world}")
        top.set_xticks(range(len(PLAN[world]) + 1), [*PLAN[world], RANDOM], rotation=20)
        top.set_ylim(0, CELLS + 1)
        top.set_yticks(range(0, CELLS + 1, 3))
        for television in np.flatnonzero(has_television(np.arange(CELLS))):
            below.axvspan(television - 0.5, television + 0.5, color="#e3e6ea", zorder=0)
        below.set_yscale("log")
        below.set_ylim(1e-4, 1)
        below.set_xticks(range(0, CELLS, 3))
        below.set_xlabel("cell; televisions are shaded")
    axes[0, 0].set_ylabel("cells visited in an episode, of 18")
    axes[1, 0].set_ylabel("share of steps")
    axes[1, 0].legend(fontsize=7, loc="lower left")
    return figure


def main(options: Options) -> None:
    enable_compilation_cache()
    began = time.perf_counter()
    rows = measured(options)
    content = {
        "protocol": f"{EPISODES} episodes of each seed, as in training; IQM with a bootstrap interval, of paired "
        "differences too; and their mean with Student's interval",
        "config": to_json(preset("adversarial_surprise", "block-quick")),
        "changes": {"agent.symbols": SYMBOLS, "steps": options.steps},
        "versions": versions(),
        "seconds": round(time.perf_counter() - began, 1),
        "summary": summary(rows, options),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(content, indent=1))
    draw(rows, options).savefig(options.out.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
