"""Named settings, one file for each agent, which is imported when it is asked for. A published one says its source;
`*-quick` ones are for two CPU cores."""

import dataclasses
import logging
import typing
from importlib import import_module
from typing import Any

from urlrl.agents import AGENTS, find_agent
from urlrl.config import OfflineConfig, RunConfig
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
    """The config of a preset, see `find_preset`."""
    return find_preset(agent, name).config


def find_preset(agent: str, name: str) -> Preset:
    """A preset of an agent by its name; or one of another agent, by OTHER/NAME, whose settings this agent gets where
    it has them.

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
    found = presets[own_name]
    if owner == agent:
        return found
    config = dataclasses.replace(found.config, agent=_carried_over(found.config.agent, agent, name), agent_name=agent)
    return dataclasses.replace(found, config=config)


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
