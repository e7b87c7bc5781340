"""Agents by name. One paper, one file."""

import importlib

from urlrl.errors import UserError, unknown
from urlrl.loading import load_object

# name -> (module, agent class, config class); imported when asked for.
AGENTS = {"metra": ("urlrl.agents.metra", "Metra", "MetraConfig")}


def find_agent(name: str) -> tuple[type, type]:
    """(agent class, config class) of a registered name, or of a user's own `module:Class`.

    A user's class names its config by the default of its `config` field's type: a class attribute `Config`.
    """
    if ":" not in name:
        if name not in AGENTS:
            raise unknown("agent", name, AGENTS)
        module, agent, config = AGENTS[name]
        loaded = importlib.import_module(module)
        return getattr(loaded, agent), getattr(loaded, config)
    agent_class = load_object(name, "agent")
    if not hasattr(agent_class, "Config"):
        raise UserError(f"Agent '{name}' has no attribute 'Config': expected its config dataclass there.")
    return agent_class, agent_class.Config
