"""Named settings, one file for each agent, which is imported when it is asked for. A published one says its source;
`*-quick` ones are for two CPU cores."""

from importlib import import_module

from urlrl.agents import AGENTS
from urlrl.config import OfflineConfig, RunConfig
from urlrl.errors import unknown
from urlrl.presets.common import Preset


def presets_of(agent: str) -> dict[str, Preset]:
    """By name; none of an agent that is not registered."""
    return import_module(f"urlrl.presets.{agent}").PRESETS if agent in AGENTS else {}


def all_presets() -> dict[str, dict[str, Preset]]:
    """agent -> name -> preset."""
    return {agent: presets_of(agent) for agent in AGENTS}


def learns_from_data(agent: str) -> bool:
    """Whether all that is published of an agent are runs on datasets."""
    configs = [preset.config for preset in presets_of(agent).values()]
    return bool(configs) and all(isinstance(config, OfflineConfig) for config in configs)


def preset(agent: str, name: str) -> RunConfig:
    """The config of a preset. Raises UserError that offers the nearest name."""
    presets = presets_of(agent)
    if name not in presets:
        raise unknown(f"preset of agent '{agent}'", name, presets, "urlrl presets")
    return presets[name].config
