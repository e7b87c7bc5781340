"""What an agent that was trained in another simulator is worth in C MuJoCo: two evaluations side by side."""

from typing import Any

from urlrl.evaluation.rollout import STILL


def columns(evaluation: dict[str, Any]) -> list[str]:
    """What the numbers of `beside` are."""
    twin = evaluation.get("twin")
    return ["agent", "random policy", *_still(evaluation), *((f"agent in {twin['env']}", "gap") if twin else ())]


def beside(evaluation: dict[str, Any], part: str, name: str | None = None) -> list[float]:
    """A score of the agent, of the random policy and of standing still; of a run that has a twin also the
    agent's there, and how much greater that is.

    Args:
        part: "coverage" or "goals".
        name: which of the scores of "goals".
    """

    def score(of: dict[str, Any], who: str) -> float:
        return of[part][who] if name is None else of[part][who][name]

    agent, *baselines = (score(evaluation, who) for who in ("agent", "random", *_still(evaluation)))
    twin = evaluation.get("twin")
    return [agent, *baselines, *((score(twin, "agent"), score(twin, "agent") - agent) if twin else ())]


def _still(evaluation: dict[str, Any]) -> list[str]:
    """An older version did not measure it."""
    return [STILL] if STILL in (evaluation["coverage"] or {}) else []
