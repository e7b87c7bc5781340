"""What each agent is and what it can be asked."""

import sys
from typing import Any, NamedTuple

from urlrl.agents import AGENTS, find_agent
from urlrl.types import DemoPrompt, GoalPrompt, RewardPrompt

WORDS = {GoalPrompt: "goals", RewardPrompt: "rewards", DemoPrompt: "demonstrations"}


class AgentRow(NamedTuple):
    agent: str
    paper: str  # the first line of its file
    learns_from: str
    prompts: str
    fine_tuned: str
    exported: str


def list_agents() -> list[AgentRow]:
    """A row for each registered agent, made of what its class says of itself."""
    rows = []
    for name in AGENTS:
        agent: Any = find_agent(name)[0]
        abilities = agent.abilities
        rows.append(
            AgentRow(
                name,
                (sys.modules[agent.__module__].__doc__ or "").splitlines()[0].rstrip("."),
                "an environment, or data" if "offline" in abilities else "an environment",
                ", ".join(words for prompt, words in WORDS.items() if prompt in getattr(agent, "prompts", ())),
                "yes" if "adaptable" in abilities else "",
                "yes" if "exportable" in abilities else "",
            )
        )
    return rows


HEADINGS = AgentRow("agent", "paper", "learns from", "follows prompts of", "fine-tuned", "exported")
