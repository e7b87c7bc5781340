"""Agents by name. One paper, one file."""

import dataclasses
import importlib

from urlrl.errors import UserError, unknown
from urlrl.loading import load_object

# name -> (module, agent class, config class); imported when asked for.
AGENTS = {"metra": ("urlrl.agents.metra", "Metra", "MetraConfig")}


def find_agent(name: str) -> tuple[type, type]:
    """(agent class, config class) of a registered name, or of a user's own `module:Class`.

    A user's class has its config, a frozen dataclass with a default for every field, as the class attribute `Config`.
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
    config_class = agent_class.Config
    if not dataclasses.is_dataclass(config_class):
        raise UserError(f"'{name}.Config' is {config_class!r}: expected a frozen dataclass.")
    bare = [
        f.name
        for f in dataclasses.fields(config_class)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if bare:
        raise UserError(f"'{name}.Config' has no default for '{bare[0]}': expected one for every field.")
    return agent_class, config_class
