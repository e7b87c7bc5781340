"""What every verb starts from: a run's checkpoint, its agent and its environment."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from urlrl.agents import find_agent
from urlrl.config import RunConfig, run_config_from_json
from urlrl.errors import UserError
from urlrl.evaluation.zero_shot import RADII
from urlrl.files import read_json
from urlrl.loading import check_names
from urlrl.runs.begin import create_agent, run_spec
from urlrl.training.run import RunFolder
from urlrl.types import EnvSpec

logger = logging.getLogger(__name__)

# What `evaluate` writes.
GOAL_SCORES = dict.fromkeys(
    [*(f"{kind}_{radius}" for kind in ("hit", "end", "at") for radius in RADII), "final_distance", "closest_distance"],
    float,
)
DIAGNOSTICS = {
    "protocol": str, "episodes": int, "skills": int, "radius": float, "chance": float, "latent_dim": (int,),
    "scores": {str: float},
}  # fmt: skip
SCORES = {
    "coverage": (
        {
            "protocol": str, "episodes": int, "unit": str, "agent": float, "random": float,
            "min": [float], "max": [float],
        },
    ),
    "goals": (
        {"protocol": str, "num_goals": int, "goal_box": [float], "agent": GOAL_SCORES, "random": GOAL_SCORES},
    ),
}  # fmt: skip
EVALUATION = {
    "step": int, "seed": int, "env": str, **SCORES, "diagnostics": (DIAGNOSTICS,), "twin": ({"env": str, **SCORES},),
    "notes": [str],
    "whereabouts": ({"protocol": str, "episodes": int, "agent": {str: float}, "random": {str: float}},),
}  # fmt: skip


class Loaded(NamedTuple):
    """A checkpoint's agent; `note` says which damaged checkpoints were passed over, if any were."""

    agent: Any
    config: RunConfig
    spec: EnvSpec
    step: int
    note: str


def load(run: Path | str, step: int | None = None) -> tuple[Any, RunConfig]:
    """(agent, config) of a run's newest checkpoint that is whole, or of the one at `step`.

    Raises:
        UserError: not a run, no such checkpoint, it is damaged, or it names code that the user has not used.
    """
    loaded = load_checkpoint(run, step)
    return loaded.agent, loaded.config


def run_config(run: Path | str) -> RunConfig:
    """The config of a run. Raises UserError as `load`."""
    folder = RunFolder(run)
    data = folder.manifest()["config"]
    check_names(data, folder.config_file)
    return run_config_from_json(data, find_agent(data["agent_name"])[1])


def load_checkpoint(run: Path | str, step: int | None = None) -> Loaded:
    """`load`, and what else is known of the checkpoint."""
    folder, config = RunFolder(run), run_config(run)
    steps = folder.checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        found = f"those at {', '.join(map(str, steps))}" if steps else "none"
        raise UserError(f"{folder.path} has no checkpoint{'' if step is None else f' at step {step}'}: found {found}.")
    spec = run_spec(config)
    like = {"agent": create_agent(config, spec)}
    damaged: dict[int, UserError] = {}
    while True:  # A run in progress may have replaced its checkpoints since they were listed.
        steps = folder.checkpoints.steps()
        left = [one for one in (steps if step is None else [step]) if one not in damaged]
        if not left:
            raise next(iter(damaged.values()))
        try:
            parts, _ = folder.checkpoints.restore(left[-1], like)
        except UserError as error:
            damaged[left[-1]] = error
            continue
        passed = [error for one, error in damaged.items() if one in steps]
        note = " ".join(f"{error} The checkpoint before it was used." for error in passed)
        return Loaded(jax.tree.map(jnp.asarray, parts["agent"]), config, spec, left[-1], note)


def saved_evaluation(run: Path | str, step: int, spec: EnvSpec) -> dict[str, Any] | None:
    """What `evaluate` last wrote, if it is of this checkpoint and says all that is said of such an environment; what is
    damaged is not used, and a warning says so."""
    file = Path(run) / "evaluation.json"
    if not file.exists():
        return None
    try:
        evaluation = read_json(file, EVALUATION, twin=None, whereabouts=None, diagnostics=None)
    except UserError as error:
        logger.warning("%s It is not used.", error)
        return None
    if evaluation["whereabouts"] is None:  # Of no noise, or written by an older version, whose scores are good as ever.
        del evaluation["whereabouts"]
    twin = evaluation["twin"]
    if evaluation["step"] != step or (spec.twin and not twin):
        return None
    if twin and any((twin[part] is None) != (evaluation[part] is None) for part in SCORES):
        logger.warning("%s has other scores in its twin than beside it. It is not used.", file)
        return None
    return evaluation
