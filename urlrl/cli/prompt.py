"""`urlrl prompt`: what an agent did of what it was asked for, beside the random policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from urlrl.cli.arguments import TRUST_RUN, parse
from urlrl.cli.console import make_console
from urlrl.errors import UserError

if TYPE_CHECKING:
    from urlrl.tasks.features import Feature

BASELINES = {"random": "random policy", "zero action": "zero action"}  # key of a result -> heading


@dataclass(frozen=True)
class PromptOptions:
    """Ask a run's agent for a reward, a goal or a demonstration, and measure what it does beside the random policy.
    A REWARD follows RUN: arithmetic on the names that --list shows, as in "vx * upright - 0.1 * energy"."""

    run: Positional[Path]  # folder of the run
    goal: str | None = None  # metres by coordinate, as in x=10,y=-5
    demo: Path | None = None  # observations of one episode: .safetensors, .npy or .csv
    video: Path | None = None  # also render the first episode to this .mp4 or .webp file
    out: Path | None = None  # folder of what is written; <run>/prompts/<name> by default
    json: Path | None = None  # also write the result to this file
    samples: int = 5120  # labelled transitions of the run that the agent is shown
    step: int | None = None  # which checkpoint; the newest by default
    seed: int = 0  # of samples, resets and random actions
    list: bool = False  # only list the names that a reward can use


def main(argv: list[str]) -> None:
    argv, reward = list(argv), None
    if len(argv) > 1 and not any(token.startswith("--") for token in argv[:2]) and "-h" not in argv:
        reward = argv.pop(1)  # It may begin with a minus, so no parser of options gets to see it.
    options = parse(PromptOptions, argv, "prompt", TRUST_RUN)
    from urlrl.verbs.prompt import list_features, prompt

    if options.list:
        return show_features(list_features(options.run))
    goal = None if options.goal is None else parse_goal(options.goal)
    given = {name: getattr(options, name) for name in ("demo", "video", "out", "samples", "step", "seed")}
    show(prompt(options.run, reward, goal=goal, json_file=options.json, **given))


def show_features(found: "Mapping[str, Feature]") -> None:
    table = Table("name", "unit", "", box=None, pad_edge=False)
    for name, feature in found.items():
        table.add_row(name, feature.unit, feature.about)
    make_console().print(table)


def show(result: dict[str, Any]) -> None:
    console, z = make_console(), np.array(result["z"])
    skill = f"skill {z.argmax()} of {len(z)}" if result["z_kind"] == "onehot" else f"z = {np.round(z, 3).tolist()}"
    console.print(f"{result['prompt']}: {result['env']}, step {result['step']:,}, seed {result['seed']}; {skill}")
    table = Table("", "agent", *(BASELINES[who] for who in _who(result)[1:]), box=None, pad_edge=False)
    legend = {"reward": _show_reward, "goal": _show_goal, "demo": _show_demo}[result["kind"]](result, table, console)
    if table.row_count:
        console.print(table)
    for line in (*result["notes"], *legend, *(f"Wrote {file}" for file in result["files"])):
        console.print(line, soft_wrap=True)


# Each of these fills the table and returns the sentences that belong under it.


def _show_reward(result: dict[str, Any], table: Table, console: Console) -> list[str]:
    from urlrl.evaluation.prompting import reliability_words

    fit, steps, gamma = result["fit"], result["episode_steps"], result["gamma"]
    explained = "undefined, the rewards held out are all equal" if fit["r2"] is None else f"{fit['r2']:.3f}"
    console.print(f"R² of the reward as the agent reads it, on {fit['held_out']:,} transitions held out: {explained}")
    starts = ["" if who == "agent" else f"{who.split()[0]}_" for who in _who(result)]
    table.add_row(f"return of {steps} steps", *(_interval(result[f"{start}return"]) for start in starts))
    table.add_row(f"discounted by {gamma:g}", *(_interval(result[f"{start}discounted_return"]) for start in starts))
    table.add_row("predicted, discounted", f"{result['predicted_return']:.4g}", "")
    doubts = reliability_words(result["reliability"], gamma)
    for brief, _ in doubts:
        table.add_row("of the prediction", brief, "")
    return [
        f"Returns are means of {result['episodes']} episodes and their 95 % intervals. Episodes end, the "
        f"prediction does not: what comes after {steps} steps weighs {gamma:g}^{steps} = {result['tail']:.2g} in it.",
        *(why for _, why in doubts),
    ]


def _show_goal(result: dict[str, Any], table: Table, console: Console) -> list[str]:
    del console
    from urlrl.evaluation.zero_shot import RADII

    for name, label in (("final_distance", "distance at the end, m"), ("closest_distance", "closest distance, m")):
        table.add_row(label, *(f"{result[who][name]:.2f}" for who in _who(result)))
    for radius in RADII:
        table.add_row(
            f"within {radius} m at some time", *(f"{result[who][f'hit_{radius}']:.0%}" for who in _who(result))
        )
    return []


def _show_demo(result: dict[str, Any], table: Table, console: Console) -> list[str]:
    del console
    if result["agent"] is None:
        return []
    table.add_row("mean distance to it, m", *(f"{result[who]['distance']:.2f}" for who in _who(result)))
    cosines = (result[who]["cosine"] for who in _who(result))
    table.add_row("cosine of the way", *("undefined" if cosine is None else f"{cosine:.2f}" for cosine in cosines))
    return []


def _who(result: dict[str, Any]) -> list[str]:
    """Whose numbers the table has."""
    return ["agent", *(who for who in BASELINES if who in result or f"{who.split()[0]}_return" in result)]


def _interval(found: dict[str, float]) -> str:
    return f"{found['mean']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"


def parse_goal(text: str) -> dict[str, float]:
    """ "x=10,y=-5" -> {"x": 10.0, "y": -5.0}."""
    goal: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name or not equals or name in goal:
            raise UserError(f"Goal '{text}' has '{part}' in it: expected each coordinate once, as in x=10,y=-5.")
        try:
            goal[name] = float(value)
        except ValueError as error:
            raise UserError(f"Goal '{text}' has {name} = '{value}': expected a number of metres.") from error
    return goal
