"""Protocols of zero-shot evaluation: what an agent is told, how often it then acts, what is counted. A protocol is
fixed: another number in it is another name.

Scores are of the final checkpoint. An agent is told each task once, by `samples` labelled transitions of its own past
(or of the dataset that it learned from) or by the goal itself, and acts deterministically for whole episodes.
"""

from dataclasses import dataclass
from typing import Any, Literal

from urlrl.errors import unknown
from urlrl.evaluation.stats import share

PromptKind = Literal["reward", "goal", "plan"]  # "plan": a goal, by an agent that plans a way there

GOALS: tuple[PromptKind, ...] = ("reward", "goal", "plan")  # what a task of a place to be is told by


@dataclass(frozen=True)
class ZeroShotSuite:
    name: str
    tasks: tuple[str, ...]
    prompts: tuple[PromptKind, ...] = ("reward",)  # how each task is told; an agent answers those that it can
    samples: int = 5_120  # labelled transitions of a reward prompt; also what an agent may look at to read a goal
    episodes: int = 20  # of each task; their undiscounted returns are averaged
    floor_episodes: int = 50  # of the random policy, and of action zero


def make_suites(
    exorl: dict[str, tuple[str, ...]],
    mazes: dict[str, tuple[str, ...]],
    ogbench: dict[str, tuple[str, ...]],
    fre: dict[str, tuple[str, ...]],
) -> dict[str, ZeroShotSuite]:
    """The protocols, by name, of these groups of tasks."""
    suites = [
        *(ZeroShotSuite(f"exorl-v1/{domain}", tasks) for domain, tasks in exorl.items()),
        *(ZeroShotSuite(f"maze-v1/{layout}", tasks, GOALS) for layout, tasks in mazes.items()),
        *(ZeroShotSuite(f"ogbench-v1/{name}", tasks, GOALS, episodes=10) for name, tasks in ogbench.items()),
        *(ZeroShotSuite(f"fre-v1/{name}", tasks, GOALS, samples=32) for name, tasks in fre.items()),
    ]
    return {suite.name: suite for suite in suites}


def share_of(row: dict[str, Any], score: float) -> float | None:
    """How far a score is from the best baseline of a result's row to its upper bound, see `stats.share`."""
    bound = None if row["ceiling"] is None else row["ceiling"][0]
    return share(score, [floor["mean"] for floor in row["floors"].values()], bound)


def find_suite(name: str, suites: dict[str, ZeroShotSuite]) -> ZeroShotSuite:
    """Raises UserError that offers the nearest name."""
    if name not in suites:
        raise unknown("suite", name, suites, "urlrl tasks")
    return suites[name]
