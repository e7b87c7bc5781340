"""`urlrl evaluate`: scores of a run beside the random policy's, or of a suite beside floors and ceilings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from tyro.conf import Positional

from urlrl.cli.arguments import TRUST_RUN, parse
from urlrl.cli.console import make_console
from urlrl.errors import UserError
from urlrl.evaluation import diagnostics, whereabouts
from urlrl.evaluation.gap import beside, columns
from urlrl.evaluation.prompting import reliability_words
from urlrl.evaluation.suites import share_of


@dataclass(frozen=True)
class EvaluateOptions:
    """Coverage and zero-shot goals of a run, beside the random policy, and diagnostics of its skills; or, with --suite,
    its returns on the tasks of a zero-shot protocol, beside floors and ceilings."""

    run: Positional[Path]  # folder of the run
    suite: str | None = None  # a protocol, as in exorl-v1/walker; `urlrl tasks` lists them
    samples: int | None = None  # with --suite: labelled transitions that a reward prompt shows; the protocol's own
    json: Path | None = None  # also write the result to this file
    video: Path | None = None  # of what an adaptation left: also render episodes to this .mp4 or .webp file
    step: int | None = None  # which checkpoint; the newest by default
    seed: int = 0  # of skills, goals, resets, samples and sampled actions


def main(argv: list[str]) -> None:
    options = parse(EvaluateOptions, argv, "evaluate", TRUST_RUN)
    if options.suite is not None:
        if options.video is not None:
            raise UserError("Option '--video' is of what an adaptation left: expected it without --suite.")
        from urlrl.verbs.evaluate_suite import evaluate_suite

        given = {name: getattr(options, name) for name in ("samples", "seed", "step")}
        return show_suite(evaluate_suite(options.run, options.suite, json_file=options.json, **given))
    if options.samples is not None:
        raise UserError("Option '--samples' is of a suite: expected --suite NAME with it.")
    from urlrl.verbs.evaluate import evaluate

    result = evaluate(options.run, step=options.step, seed=options.seed, json_file=options.json, video=options.video)
    (show_task_scores if "task" in result else show_evaluation)(result)


def show_evaluation(result: dict[str, Any]) -> None:
    console = make_console()
    console.print(f"{result['env']}, step {result['step']:,}, evaluation seed {result['seed']}")
    table = Table("", *columns(result), box=None, pad_edge=False)
    if result["coverage"]:
        table.add_row("coverage, 1 m cells", *map(str, beside(result, "coverage")))
    if result["goals"]:
        labels = {"final_distance": "final goal distance, m", "closest_distance": "closest goal distance, m"}
        for name in result["goals"]["agent"]:
            kind, _, radius = name.partition("_")
            label = labels.get(name, f"goals: {kind} within {radius} m")
            table.add_row(label, *_with_intervals(result["goals"], name, beside(result, "goals", name)))
    if "whereabouts" in result:
        for row in whereabouts.rows(result["whereabouts"]):
            table.add_row(*row)
    if table.row_count:
        console.print(table)
    if result["goals"]:
        console.print(f"In brackets: 95 % intervals over the {result['goals']['num_goals']} goals.")
    if found := result["diagnostics"]:
        for text in [*diagnostics.sentences(found).values(), *diagnostics.warnings(found)]:
            console.print(text, soft_wrap=True)
    for note in result["notes"]:
        console.print(note)


def _with_intervals(goals: dict[str, Any], name: str, scores: list[float]) -> list[str]:
    """Those of the agent and of the random policy, which come first, have one."""
    intervals = [goals["intervals"][who][name] for who in ("agent", "random")]
    shown = [f"{score:.3f} [{low:.3f}, {high:.3f}]" for score, (low, high) in zip(scores, intervals)]
    return shown + [f"{score:.3f}" for score in scores[len(shown) :]]


def show_task_scores(result: dict[str, Any]) -> None:
    """Of what an adaptation left."""
    print(f"{result['task']}, after {result['step']:,} steps in the task, evaluation seed {result['seed']}")
    for name, score in {result["method"]: result["policy"], **result["floors"]}.items():
        error = f" +- {score['standard_error']:.2f}" if "standard_error" in score else ""
        print(f"return {score['mean']:.2f}{error}  ({name})")
    if result["ceiling"] is not None:
        bound, whose = result["ceiling"]
        print(f"return {bound:.2f}  ({whose})")
    for note in result["notes"]:
        print(note)


def show_suite(result: dict[str, Any]) -> None:
    console = make_console()
    console.print(
        f"{result['suite']}: {result['agent']}, seed {result['run_seed']}, step {result['step']:,}; "
        f"{_shown(result):,} labelled transitions, seed {result['seed']}"
    )
    rows = result["rows"]
    floors = list(dict.fromkeys(name for row in rows for name in row["floors"]))
    columns = [
        "task",
        "told by",
        "return",
        *floors,
        "best in data",
        "upper bound",
        "share",
        "R²",
        "measured",
        "predicted",
    ]
    doubted = any(map(_doubts, rows))
    table = Table(*columns, *(["of the prediction"] if doubted else []), box=None, pad_edge=False)
    for row in rows:
        fit, discounted = row["fit"], row["discounted_return"]
        cells = [row["task"], row["prompt"], _interval(**row["return"])]
        cells += [f"{row['floors'][name]['mean']:.1f}" if name in row["floors"] else "" for name in floors]
        cells += ["" if row["best_in_data"] is None else f"{row['best_in_data']:.1f}"]
        cells += ["" if row["ceiling"] is None else f"{row['ceiling'][0]:.0f} ({row['ceiling'][1]})"]
        reached = share_of(row, row["return"]["mean"])
        cells += ["" if reached is None else f"{reached:.2f}"]
        cells += ["" if not fit or fit["r2"] is None else f"{fit['r2']:.2f}"]
        cells += ["", ""] if discounted is None else [f"{discounted['mean']:.1f}", f"{row['predicted_return']:.1f}"]
        table.add_row(*cells, *(brief for brief, _ in _doubts(row)))
    console.print(table)
    console.print(_legend(result), soft_wrap=True)
    for note in result["notes"]:
        console.print(note, soft_wrap=True)


def _doubts(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What an agent says of its prediction; nothing where it made none."""
    return reliability_words(row["reliability"], row["gamma"]) if row["gamma"] else []


def _interval(mean: float, low: float, high: float) -> str:
    """Episodes that are all the same one have no interval."""
    return f"{mean:.1f}" if low == high else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def _shown(result: dict[str, Any]) -> int:
    """Labelled transitions of a prompt; what was asked for where no reward was told."""
    fits = [row["fit"] for row in result["rows"] if row["fit"]]
    return fits[0]["samples"] - fits[0]["held_out"] if fits else result["samples"]


def _legend(result: dict[str, Any]) -> str:
    protocol, gammas = result["protocol"], {row["gamma"] for row in result["rows"] if row["gamma"]}
    spread = any(row["return"]["low"] < row["return"]["high"] for row in result["rows"])
    lines = [
        f"Return: mean of {protocol['episodes']} episodes of the final checkpoint"
        f"{', 95 % Student interval' if spread else ', which all returned the same'}. R²: of the reward as the agent "
        f"reads it, on transitions held out."
    ]
    if gammas:
        lines.append(
            f"Measured and predicted: discounted by {', '.join(f'{gamma:g}' for gamma in sorted(gammas))}, from the "
            f"start states; a prediction has no end."
        )
    lines += dict.fromkeys(why for row in result["rows"] for _, why in _doubts(row))
    if any(share_of(row, 0.0) is not None for row in result["rows"]):
        lines.append("Share: 0 is the best baseline and 1 the upper bound; none where these are close.")
    return " ".join(lines)
