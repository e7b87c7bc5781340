"""What an agent that was trained in another simulator is worth in C MuJoCo: two evaluations side by side."""

from typing import Any

from urlrl.evaluation.rollout import STILL


def columns(evaluation: dict[str, Any]) -> list[str]:
    """What the numbers of `beside` are."""
    twin = evaluation.get("twin")
    return ["agent", *_baselines(evaluation), *((f"agent in {twin['env']}", "gap") if twin else ())]


def beside(evaluation: dict[str, Any], part: str, name: str | None = None) -> list[float]:
    """A score of the agent, of the random policy and of standing still; of a run that has a twin also the
    agent's there, and how much greater that is.

    Args:
        part: "coverage" or "goals".
        name: which of the scores of "goals".
    """
    agent, twin = _score(evaluation, part, name, "agent"), evaluation.get("twin")
    there = _score(twin, part, name, "agent") if twin else 0.0
    return [agent, *baselines(evaluation, part, name).values(), *((there, there - agent) if twin else ())]


def baselines(evaluation: dict[str, Any], part: str, name: str | None = None) -> dict[str, float]:
    """Who -> score; `part` and `name` are those of `beside`."""
    return {called: _score(evaluation, part, name, who) for called, who in _baselines(evaluation).items()}


def _score(evaluation: dict[str, Any], part: str, name: str | None, who: str) -> float:
    found = evaluation[part][who]
    return found if name is None else found[name]


def _baselines(evaluation: dict[str, Any]) -> dict[str, str]:
    """What a reader calls them -> their key; an older version did not measure standing still."""
    return {"random policy": "random"} | ({STILL: STILL} if STILL in (evaluation["coverage"] or {}) else {})
