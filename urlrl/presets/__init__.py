"""Named settings, one file for each agent, which is imported when it is asked for. A published one says its source;
`*-quick` ones are for two CPU cores."""

import dataclasses
import logging
import typing
from collections.abc import Container
from importlib import import_module
from typing import Any

from urlrl.agents import AGENTS, find_agent
from urlrl.config import OfflineConfig, PretrainConfig, RunConfig
from urlrl.errors import UserError, nearest, shown, unknown
from urlrl.presets.common import Preset

logger = logging.getLogger(__name__)


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
    """The config of a preset of an agent; or of one of another agent, by OTHER/NAME, whose settings this agent gets
    where it has them. Raises UserError as `find_preset` does."""
    config = find_preset(agent, name).config
    if config.agent_name == agent:
        return config
    return dataclasses.replace(config, agent=_carried_over(config.agent, agent, name), agent_name=agent)


def find_preset(agent: str, name: str) -> Preset:
    """A preset of an agent by its name, or of another one by OTHER/NAME, as it was made for that one.

    Raises:
        UserError: there is no such preset; it offers the nearest name.
    """
    owner, slash, own_name = name.rpartition("/")
    if slash and owner not in AGENTS:
        raise unknown("agent of a preset", owner, AGENTS)
    owner = owner or agent
    presets = presets_of(owner)
    if not presets:
        names = [f"{other}/{one}" for other, found in all_presets().items() for one in found]
        raise UserError(
            f"Agent '{owner}' has no presets of its own, such as '{shown(name)}': expected one of another agent, as "
            f"{nearest(name, names) or names[0]} (`urlrl presets` lists them)."
        )
    if own_name not in presets:
        raise unknown(f"preset of agent '{owner}'", own_name, presets, "urlrl presets")
    return presets[own_name]


def _carried_over(theirs: Any, agent: str, name: str) -> Any:
    """The config of an agent with what a preset sets of another agent's, which is where `theirs` differs from its
    defaults, in fields of the same name and type. A warning names the settings that find no such field."""
    own, default = find_agent(agent)[1](), type(theirs)()
    hints, own_hints = (typing.get_type_hints(type(config)) for config in (theirs, own))
    settings = _differences(theirs, default)
    lost = {field: settings.pop(field) for field in list(settings) if own_hints.get(field) != hints[field]}
    if lost:
        without = " and ".join(f"{field}={value!r}" for field, value in lost.items())
        logger.warning(
            "Preset '%s' is used without %s: the Config of '%s' has no field of that name and type.",
            name, without, agent,
        )  # fmt: skip
    return _with(own, settings, default)


def _differences(config: Any, default: Any) -> dict[str, Any]:
    """Field -> value, where two configs of one class differ."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _with(own: Any, settings: dict[str, Any], default: Any) -> Any:
    """A config with these settings; of one that is a config too only what differs from the `default`'s, so that the
    rest stays its own."""
    changes = {}
    for name, value in settings.items():
        mine, before = getattr(own, name), getattr(default, name)
        is_config = dataclasses.is_dataclass(value) and type(mine) is type(value) is type(before)
        changes[name] = _with(mine, _differences(value, before), before) if is_config else value
    return dataclasses.replace(own, **changes)


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
