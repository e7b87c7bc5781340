"""Adversarial surprise beside its baselines in worlds with noise: where each of them spends its time.

python scripts/adversarial_surprise.py block --runs runs/as-block --out docs/results/adversarial-surprise-block

Trains an agent for each world, objective and seed of a study by its preset (all seeds of one advance together where the
world is on the device; what is trained already is not trained again), plays the episodes of `whereabouts-v1` with each,
as in training, and with the random policy from the same starts, and writes OUT.json and OUT.png. All scores are of the
true state. Of adversarial surprise it also says how well Control does against its Explore, and against a random one.
"""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from urlrl.cells import count_cells
from urlrl.config import changed, to_json
from urlrl.envs import make_env
from urlrl.evaluation import whereabouts
from urlrl.evaluation.rollout import Policy, acting, rollout, uniform
from urlrl.evaluation.stats import RULE, over_seeds, shown
from urlrl.presets import preset
from urlrl.runs.load import load
from urlrl.runtime import enable_compilation_cache, versions
from urlrl.streams import env_seed, stream
from urlrl.training.log import read_metrics
from urlrl.types import EnvSpec, PlayEnv, Trajectory
from urlrl.verbs.pretrain import pretrain, pretrain_seeds

RANDOM = "random"
WORDS = {"adversarial": "adversarial surprise", "entropy": "entropy maximiser", "minimiser": "surprise minimiser",
         "rnd": "novelty bonus (RND)", RANDOM: "random policy"}  # fmt: skip
COLOURS = {"adversarial": "#2266ac", "entropy": "#c0392b", "minimiser": "#667080", "rnd": "#b9770e", RANDOM: "#aab2bd"}
ALL = ("adversarial", "entropy", "minimiser", "rnd")
# Of the walker: distinct boxes of 0.1 m of the torso's height, 0.5 rad of its pitch and 1 m/s of its speed.
SCORES = {**whereabouts.ROWS, "poses": "poses in all episodes together"}


@dataclass(frozen=True)
class Study:
    preset: str
    worlds: dict[str, tuple[str, ...]]  # environment -> objectives
    scores: tuple[str, ...]  # of SCORES, in the order of the picture; the first is compared
    seeds: tuple[int, ...]
    changes: dict[str, Any] = field(default_factory=dict)  # of the preset


STUDIES = {
    "block": Study(
        "block-quick",
        {
            "block:line18_loud": ALL,
            "block:line18_loud_quiet": ("adversarial", "entropy"),
            "block:line18": ("adversarial", "entropy", "minimiser"),
        },
        ("cells", "noise"),
        tuple(range(10)),
        {"agent.symbols": 140},
    ),
    "rooms": Study(
        "rooms-quick",
        {"rooms:noisy": ALL},
        ("rooms_visited", "noise", "pressed"),
        tuple(range(5)),
    ),
    # Control's turn is long enough to find the switch.
    "switch": Study(
        "rooms-quick",
        {"rooms:noisy": ("adversarial",), "rooms:noisy_dead_switch": ("adversarial",)},
        ("pressed", "noise", "rooms_visited"),
        tuple(range(5)),
        {"agent.turns": 8, "agent.explore_steps": 16, "agent.control_steps": 16, "agent.grace": 0.5},
    ),
    "tv": Study(
        "tv-quick",
        {"tv:rooms": ALL, "tv:rooms_quiet": ("adversarial", "entropy")},
        ("rooms_visited", "noise", "off"),
        tuple(range(5)),
    ),
    "walker": Study(
        "walker-noise-quick",
        dict.fromkeys(("dmc:walker_walk+noise10", "dmc:walker_walk"), ("adversarial", "entropy", "rnd")),
        ("poses", "cells"),
        tuple(range(3)),
    ),
}


@dataclass(frozen=True)
class Options:
    """What is compared."""

    study: tyro.conf.Positional[Literal["block", "rooms", "switch", "tv", "walker"]]
    runs: Path  # folder of the runs
    out: Path  # writes OUT.json and OUT.png
    seeds: tuple[int, ...] = ()  # none: those of the study
    worlds: tuple[str, ...] = ()  # none: all of the study
    steps: int | None = None  # of each run; None: the preset's


def control_log_p(env: PlayEnv, agent: Any, seed: int, explore: Policy | None) -> float:
    """The mean log p of the steps of Control that count, with another Explore if there is one."""
    spec, name = env.env_spec, "evaluate control"
    own, other_key = acting(agent, temperature=1.0), stream(seed, f"{name}, random")

    def act(obs: np.ndarray, carry: Any, key: jax.Array, t: np.int32) -> tuple[Any, Any]:
        action, carry = own.act(obs, carry, key, t)
        if explore is not None:
            other, _ = explore.act(obs, carry, other_key, t)
            action = np.where(np.asarray(carry.z)[:, :1] == 1, other, action)
        given.append(carry.given)
        return action, carry

    given = list[dict[str, Any]]()
    steps = spec.episode_steps or 0
    played = rollout(env, Policy(own.begin, act), stream(seed, name), env_seed(seed, name), steps).steps
    extra = {key: jnp.stack([row[key] for row in given]) for key in given[0]}
    log_p = np.asarray(jax.jit(type(agent).log_p)(agent, played._replace(extra=extra)))
    return float(log_p[np.asarray(agent.counts(extra["clock"]))].mean())


def scored(episodes: whereabouts.Episodes, spec: EnvSpec) -> dict[str, Any]:
    """Scores of SCORES, of both; where no noise is to be counted, those of the walker."""
    if whereabouts.has_noise(spec):
        return whereabouts.score(episodes, spec)
    return {"agent": walked(episodes.agent, spec), "random": walked(episodes.random, spec)}


def walked(trajectory: Trajectory, spec: EnvSpec) -> dict[str, float]:
    """Without the distractors, which are no part of the state."""
    assert trajectory.position is not None and trajectory.physics is not None
    position, velocity = (trajectory.physics[..., spec.physics_part(name)] for name in ("qpos", "qvel"))
    height, pitch, speed = position[..., 0], np.mod(position[..., 2], 2 * np.pi), velocity[..., 1]
    poses = np.stack([height / 0.1, pitch / 0.5, speed], axis=-1).reshape(-1, 3)
    cells = [count_cells(lane) for lane in trajectory.position.swapaxes(0, 1)]
    return {"poses": count_cells(poses), "cells": float(np.mean(cells))}


def measured(world: str, agent: Any, objective: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores of an agent, and those of the random policy from the same starts."""
    with closing(make_env(world, whereabouts.EPISODES)) as env:
        scores = scored(whereabouts.play(env, agent, seed), env.env_spec)
        if objective == "adversarial":
            for name, explore in (("log_p", None), ("log_p_random_explore", uniform(env.env_spec))):
                scores["agent"][name] = control_log_p(env, agent, seed, explore)
    return scores["agent"], scores["random"]


def trained(world: str, objective: str, study: Study, options: Options) -> Iterator[dict[str, Any]]:
    """A row for each seed, and with the first objective of a world one of the random policy."""
    settings = {"env": world, "agent.objective": objective, **study.changes}
    if options.steps:
        settings["steps"] = options.steps
    config = changed(preset("adversarial_surprise", study.preset), settings)
    seeds, name = options.seeds or study.seeds, f"{world}-{objective}".replace(":", "-")
    out = options.runs / name
    if config.loop == "device":
        folders = pretrain_seeds(config, seeds, out, quiet=True)
    else:
        folders = [pretrain(replace(config, seed=seed), out / f"seed-{seed}", quiet=True) for seed in seeds]
    for seed, folder in zip(seeds, folders):
        agent, _ = load(folder)
        log = read_metrics(folder / "metrics.jsonl")
        late = [row["control/late_log_p"] for row in log][-10:]
        ours, random = measured(world, agent, objective, seed)
        about = {"world": world, "seed": seed}
        # Where all seeds advance together, it is the time of all of them.
        wall = round(sum(row["time/epoch_seconds"] for row in log), 1)
        yield {**about, "objective": objective, "wall_s": wall, **ours, "late_log_p": float(np.mean(late))}
        if objective == study.worlds[world][0]:  # It is the same beside all.
            yield {**about, "objective": RANDOM, **random}


def column(rows: list[dict[str, Any]], world: str, objective: str, name: str) -> np.ndarray:
    """(seeds,)"""
    return np.array([row[name] for row in rows if (row["world"], row["objective"]) == (world, objective)], float)


def line(rows: list[dict[str, Any]], study: Study, world: str, objective: str) -> str:
    scores = (f"{name} {shown(list(column(rows, world, objective, name)), 2)}" for name in study.scores)
    return f"{world:24} {WORDS[objective]:22} " + ", ".join(scores)


def summary(rows: list[dict[str, Any]], study: Study, worlds: tuple[str, ...]) -> dict[str, Any]:
    """By world and objective, and the paired differences to adversarial surprise."""
    found: dict[str, Any] = {}
    for world in worlds:
        for objective in (*study.worlds[world], RANDOM):
            about: dict[str, Any] = {}
            for name in study.scores:
                ours, scores = (column(rows, world, who, name) for who in ("adversarial", objective))
                about[name] = {
                    "estimate": over_seeds([scores]).to_json(),
                    "adversarial_minus_this": over_seeds([ours - scores]).to_json(),
                }
            found[f"{world} {objective}"] = about
        log_p, random = (column(rows, world, "adversarial", name) for name in ("log_p", "log_p_random_explore"))
        difference = over_seeds([log_p - random]).to_json()
        found[f"{world} log p of control, against its Explore minus against a random one"] = difference
    return found


def draw(rows: list[dict[str, Any]], study: Study, worlds: tuple[str, ...]) -> Figure:
    """A panel for each score and world; a dot is a seed, the line what they come to."""
    figure = Figure((4 * len(worlds), 2.6 * len(study.scores)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(study.scores), len(worlds), squeeze=False, sharey="row")
    for across, name in zip(axes, study.scores):
        for ax, world in zip(across, worlds):
            objectives = (*study.worlds[world], RANDOM)
            for place, objective in enumerate(objectives):
                scores, colour = column(rows, world, objective, name), COLOURS[objective]
                ax.plot(np.full(len(scores), place), scores, "o", color=colour, alpha=0.4)
                ax.hlines(over_seeds([scores]).value, place - 0.3, place + 0.3, color=colour, linewidth=2)
            ax.set_xticks(range(len(objectives)), objectives, rotation=20)
        across[0].set_ylim(0, 1.08 * max(row[name] for row in rows))
        across[0].set_ylabel(SCORES[name], fontsize=7)
    for ax, world in zip(axes[0], worlds):
        ax.set_title(world)
    return figure


def main(options: Options) -> None:
    enable_compilation_cache()
    began, study = time.perf_counter(), STUDIES[options.study]
    worlds, rows = options.worlds or tuple(study.worlds), list[dict[str, Any]]()
    for world in worlds:
        for objective in study.worlds[world]:
            rows += trained(world, objective, study, options)
            print(line(rows, study, world, objective), flush=True)
        print(line(rows, study, world, RANDOM), flush=True)
    protocol = "poses" if "poses" in study.scores else whereabouts.PROTOCOL
    content = {
        "protocol": f"{protocol}: {whereabouts.EPISODES} episodes of each seed, as in training. {RULE}",
        "config": to_json(preset("adversarial_surprise", study.preset)),
        "changes": {**study.changes, **({"steps": options.steps} if options.steps else {})},
        "versions": versions(),
        "seconds": round(time.perf_counter() - began, 1),
        "summary": summary(rows, study, worlds),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(content, indent=1))
    draw(rows, study, worlds).savefig(options.out.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
