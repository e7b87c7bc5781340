"""What an agent that was trained in another simulator is worth in C MuJoCo: two evaluations side by side."""

from typing import Any


def columns(evaluation: dict[str, Any]) -> list[str]:
    """What the numbers of `beside` are."""
    twin = evaluation.get("twin")
    return ["agent", "random policy", *((f"agent in {twin['env']}", "gap") if twin else ())]


def beside(evaluation: dict[str, Any], part: str, name: str | None = None) -> list[float]:
    """A score of the agent and of the random policy and, of a run that has a twin, the agent's there and how much
    greater that is.

    Args:
        part: "coverage" or "goals".
        name: which of the scores of "goals".
    """

    def score(of: dict[str, Any], who: str) -> float:
        return of[part][who] if name is None else of[part][who][name]

    agent, random = (score(evaluation, who) for who in ("agent", "random"))
    twin = evaluation.get("twin")
    return [agent, random, *((score(twin, "agent"), score(twin, "agent") - agent) if twin else ())]
