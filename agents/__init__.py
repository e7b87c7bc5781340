"""Agents by name. One paper, one file."""

import importlib
from typing import Any

from urlrl.errors import UserError, unknown

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


def load_object(path: str, kind: str) -> Any:
    """What `module:name` refers to; the working directory is on the import path, as with `python -m`."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"Cannot import the {kind} '{path}': {error}.") from error
    except AttributeError as error:
        raise UserError(f"Cannot import the {kind} '{path}': module '{module}' has no '{name}'.") from error
