"""Agents by name. One paper, one file."""

import dataclasses

from urlrl.errors import UserError, unknown
from urlrl.loading import load_object
from urlrl.types import ABILITIES, BatchSpec

# name -> where the class is; imported when asked for. Its config is the class attribute `Config`.
AGENTS = {
    "metra": "urlrl.agents.metra:Metra",
    "lsd": "urlrl.agents.lsd:LSD",
    "csd": "urlrl.agents.csd:CSD",
    "csf": "urlrl.agents.csf:CSF",
    "diayn": "urlrl.agents.diayn:DIAYN",
    "dads": "urlrl.agents.dads:DADS",
    "hilp": "urlrl.agents.hilp:HILP",
    "sf": "urlrl.agents.sf:SF",
    "fb": "urlrl.agents.fb:FB",
    "fre": "urlrl.agents.fre:FRE",
    "adversarial_surprise": "urlrl.agents.adversarial_surprise:AdversarialSurprise",
    "rnd": "urlrl.agents.rnd:RND",
    "uniform": "urlrl.agents.uniform:Uniform",
}
PARTS = ("create", "plan", "begin", "act", "update", "abilities", "shared")  # of a class that is an agent


def find_agent(name: str) -> tuple[type, type]:
    """(agent class, config class) of a registered name, or of a user's own `module:Class`.

    Raises:
        UserError: no such agent, a part of it is missing, or its `Config` is not a dataclass with a default for every
            field, a skill space `z` and a BatchSpec `batch` among them.
    """
    if ":" not in name and name not in AGENTS:
        raise unknown("agent", name, AGENTS)
    agent = load_object(AGENTS.get(name, name), "agent")
    config = getattr(agent, "Config", None)
    if config is None:
        raise UserError(f"Agent '{name}' has no attribute 'Config': expected its config dataclass there.")
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise UserError(f"'{name}.Config' is {config!r}: expected a frozen dataclass.")
    for field in dataclasses.fields(config):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"'{name}.Config' has no default for '{field.name}': expected one for every field.")
    default = config()
    z, batch = getattr(default, "z", None), getattr(default, "batch", None)
    if not {"dim", "sample"} <= set(dir(z)):
        raise UserError(f"'{name}.Config' has {z!r} as 'z': expected a SkillSpace, or what has its 'dim' and 'sample'.")
    if not isinstance(batch, BatchSpec):
        raise UserError(f"'{name}.Config' has {batch!r} as 'batch': expected a BatchSpec.")
    if missing := [part for part in PARTS if part not in dir(agent)]:
        raise UserError(f"Agent '{name}' has no '{missing[0]}': expected {', '.join(PARTS)}; see urlrl.types.Agent.")
    if strange := sorted(set(agent.abilities) - ABILITIES.keys()):
        raise unknown(f"ability of agent '{name}'", strange[0], ABILITIES)
    return agent, config
