"""What runs that differ in their seed have in common: means with intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urlrl.config import RESUMABLE_FIELDS, flatten, to_json
from urlrl.errors import UserError
from urlrl.evaluation.rollout import STILL
from urlrl.evaluation.stats import summary
from urlrl.evaluation.whereabouts import ROWS
from urlrl.files import check_folder_of, write_json
from urlrl.runs.load import load_checkpoint, saved_evaluation
from urlrl.verbs.evaluate import evaluate

WHO = ("agent", "random", STILL)


def report_seeds(
    runs: Sequence[Path | str], *, step: int | None = None, json_file: Path | str | None = None
) -> dict[str, Any]:
    """The evaluations of runs of one config that differ in their seed; those that were not evaluated are now.

    Args:
        step: which checkpoint; None is the newest of each.
        json_file: also write the result there.

    Returns:
        {"env", "agent", "step", "seeds", "metrics": {name: {"agent": {"values", "estimate"}, "random": ...}}}: values
        in the order of the seeds, "estimate" is what `over_seeds` makes of them, as JSON. Runs in another simulator
        have each metric in C MuJoCo too, and how much greater it is there.

    Raises:
        UserError: a folder holds no run, the runs differ in more than their seed, or in their step.
    """
    check_folder_of(json_file)
    found = [load_checkpoint(run, step) for run in runs]
    configs = [to_json(loaded.config) for loaded in found]
    _check_alike(runs, configs)
    evaluations = []
    for run, loaded in zip(runs, found):
        evaluations.append(saved_evaluation(run, loaded.step, loaded.spec) or evaluate(run, step=step))
        if evaluations[-1]["step"] != evaluations[0]["step"]:
            raise UserError(
                f"{run} is at step {evaluations[-1]['step']:,} and {runs[0]} at {evaluations[0]['step']:,}: expected "
                f"runs of one length, or --step N."
            )
    scores = [scores_of(evaluation) for evaluation in evaluations]
    metrics = {
        name: {who: summary([score[name][who] for score in scores]) for who in WHO if _have(scores, name, who)}
        for name in scores[0]
        if _have(scores, name, "agent")
    }
    result = {
        "env": configs[0]["env"], "agent": configs[0]["agent_name"], "step": evaluations[0]["step"],
        "seeds": [config["seed"] for config in configs], "metrics": metrics,
    }  # fmt: skip
    write_json(result, json_file, indent=2)
    return result


def _check_alike(runs: Sequence[Path | str], configs: Sequence[dict[str, Any]]) -> None:
    first, seen = flatten(configs[0]), {configs[0]["seed"]: runs[0]}
    for run, config in zip(runs[1:], configs[1:]):
        other = flatten(config)
        for name in sorted(first.keys() | other.keys()):
            if name not in ("seed", "loop", *RESUMABLE_FIELDS) and first.get(name) != other.get(name):
                raise UserError(
                    f"{name} is {first.get(name)!r} in {runs[0]} and {other.get(name)!r} in {run}: expected runs that "
                    f"differ in their seed alone."
                )
        if (seed := config["seed"]) in seen:
            raise UserError(f"{seen[seed]} and {run} both have seed {seed}: expected each seed once.")
        seen[seed] = run


def _have(scores: list[dict[str, dict[str, float]]], name: str, who: str) -> bool:
    """An older version did not measure where time is spent, nor standing still."""
    return all(who in score.get(name, {}) for score in scores)


def scores_of(evaluation: dict[str, Any]) -> dict[str, dict[str, float]]:
    """By metric, of the agent and of the baselines."""
    scores = _of_one(evaluation)
    if twin := evaluation.get("twin"):
        for name, there in _of_one(twin).items():
            here = scores[name]
            scores[f"{name}, in {twin['env']}"] = there
            scores[f"{name}, gap"] = {who: there[who] - here[who] for who in there}
    if found := evaluation.get("diagnostics"):
        scores |= {f"skills, {name}": {"agent": value} for name, value in found["scores"].items()}
    if spent := evaluation.get("whereabouts"):
        both = [name for name in ROWS if name in spent["agent"] and name in spent["random"]]
        scores |= {ROWS[name]: {who: spent[who][name] for who in ("agent", "random")} for name in both}
    return scores


def _of_one(evaluation: dict[str, Any]) -> dict[str, dict[str, float]]:
    """In one simulator."""
    scores = {}
    if coverage := evaluation["coverage"]:
        scores[f"coverage, {coverage['unit']}"] = {who: coverage[who] for who in WHO if who in coverage}
    if goals := evaluation["goals"]:
        for name in goals["agent"]:
            scores[f"goals, {name}"] = {who: goals[who][name] for who in WHO if who in goals}
    return scores
