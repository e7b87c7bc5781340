"""Named settings, one file for each agent, which is imported when it is asked for. A published one says its source;
`*-quick` ones are for two CPU cores."""

from collections.abc import Container
from importlib import import_module

from urlrl.agents import AGENTS, find_agent
from urlrl.config import OfflineConfig, PretrainConfig, RunConfig
from urlrl.errors import UserError, unknown
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


def starting_config(agent: str, preset_name: str | None, given: Container[str]) -> RunConfig:
    """The config that options change: a preset's, or the agent's own defaults, those of a run on a dataset where the
    options that are `given` name one, or where the agent learns from data alone and they name no environment.

    Raises:
        UserError: no such agent or preset, or a dataset for a preset of a run in an environment.
    """
    _, agent_config = find_agent(agent)
    if not preset_name:
        from_data = "data" in given or ("env" not in given and learns_from_data(agent))
        return (OfflineConfig if from_data else PretrainConfig)(agent=agent_config(), agent_name=agent)
    config = preset(agent, preset_name)
    if "data" in given and not isinstance(config, OfflineConfig):
        raise UserError(f"Preset '{preset_name}' is of a run in an environment: expected one without --data.")
    return config
