"""Settings that older versions wrote in another way: run folders stay readable."""

from typing import Any

from urlrl.files import check_shape
from urlrl.types import BatchSpec

_IQL = {name: f"iql.{name}" for name in ("gamma", "tau", "expectile", "inverse_temperature")}
_DDPG = {name: f"ddpg.{name}" for name in ("gamma", "tau", "noise", "noise_clip")}
RENAMED = {"replay_shards": "replay_parts"}  # a run's settings, as 0.1.0 called them
# Agent -> a setting of it as 0.1.0 called it -> where that is now.
MOVED: dict[str, dict[str, str]] = {
    "metra": {name: f"sac.{name}" for name in ("gamma", "tau", "alpha", "learn_alpha", "entropy_coef")},
    "hilp": _IQL,
    "fre": _IQL,
    "rnd": _DDPG,
    "fb": {**_DDPG, "actor_lr": "ddpg.lr"},
    "sf": {
        **_DDPG,
        **{f"feature_{name}": f"phi.{name}" for name in ("width", "lr")},
        **{f"distance_{name}": f"phi.{name}" for name in ("gamma", "expectile", "tau")},
    },
}


def name_now(agent_name: str, setting: str) -> str:
    """The dotted name of a run's setting today."""
    part, _, name = setting.partition(".")
    if not name:
        return RENAMED.get(setting, setting)
    moved = MOVED.get(agent_name, {}) if part == "agent" else {}
    return f"agent.{moved[name]}" if name in moved else setting


def renewed(config: dict[str, Any]) -> dict[str, Any]:
    """A run's config as this version writes it. Raises ValueError where an old one is damaged."""
    config = {RENAMED.get(name, name): value for name, value in config.items()}
    config = {**config, "agent": _moved(config.get("agent_name", ""), _goals_apart(config.get("agent", {})))}
    if {"data", "data_id"} & config.keys() or "updates" not in config:  # `updates` of a run on data is another thing.
        return config
    check_shape(config, {"updates": int, "num_envs": int, "rollout_steps": int}, "config")
    updates = config.pop("updates")  # Written by 0.1.0 until it knew steps_per_update.
    return config | {"steps_per_update": config["num_envs"] * config["rollout_steps"] / updates if updates else 0.0}


def _moved(agent_name: str, agent: dict[str, Any]) -> dict[str, Any]:
    """An agent's config with what belongs to a learner in that learner's part."""
    table, parts = MOVED.get(agent_name, {}), dict[str, dict[str, Any]]()
    for old in table.keys() & agent.keys():
        part, _, name = table[old].partition(".")
        if old != "actor_lr" or agent[old] != agent.get("lr"):  # A rate that is the agent's is not said twice.
            parts.setdefault(part, {})[name] = agent[old]
    return parts | {name: value for name, value in agent.items() if name not in table}


def _goals_apart(agent: dict[str, Any]) -> dict[str, Any]:
    """An agent's config with `batch.goals` as one part: 0.1.0 kept its entries beside it, and one gamma for goals and
    futures."""
    batch = agent.get("batch")
    if not isinstance(batch, dict) or "goal_gamma" not in batch:
        return agent
    batch = {name: value for name, value in batch.items() if name != "skills"}
    goals = {name: batch.pop(f"goal_{name}") for name in ("gamma", "random", "current") if f"goal_{name}" in batch}
    gamma = goals["gamma"] if batch.get("futures") else BatchSpec.future_gamma
    return {**agent, "batch": {**batch, "goals": goals if batch.get("goals") else None, "future_gamma": gamma}}
