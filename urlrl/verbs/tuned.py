"""What an adaptation left in `<run>/adapt/<task>/<method>-<seed>/`: written, read, and played on its task."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.adaptation.config import METHODS, AdaptConfig
from urlrl.adaptation.methods import episode_returns
from urlrl.adaptation.tuned import Kept, Tuned, blank
from urlrl.agents import find_agent
from urlrl.config import RunConfig, from_json, run_config_from_json, to_json
from urlrl.envs.tasks import Task, find_task, make_task_env
from urlrl.errors import UserError
from urlrl.evaluation.rollout import acting
from urlrl.files import read_json, write_atomically
from urlrl.loading import check_names
from urlrl.runs.begin import create_agent, run_spec
from urlrl.runtime import versions
from urlrl.training.checkpoint import Checkpoints
from urlrl.training.run import TUNED
from urlrl.verbs.runs import Loaded

FORMAT = "urlrl-tuned-1"
SHAPE = {
    "format": FORMAT,
    "task": str,
    "method": str,
    "seed": int,
    "steps": int,
    "pretrain": {"agent": dict, "agent_name": str, "env": str},
    "pretrain_steps": int,
    "config": dict,
    "versions": {str: str},
}


class Adapted(NamedTuple):
    """A policy that was kept, and where it comes from."""

    policy: Kept
    task: Task
    method: str
    seed: int
    steps: int  # in the task, those of a search included
    config: RunConfig  # of the pretraining
    pretrain_steps: int


def keep(
    folder: Path, policy: Kept, loaded: Loaded, task: str, method: str, seed: int, steps: int, config: AdaptConfig
) -> None:
    """Write a policy into `folder`, in the place of an older one. A policy that acts by the pretrained agent finds it
    in the folder `agent` beside, which all policies of the task share: the run may go on and drop this checkpoint.

    Raises:
        UserError: the disk cannot be written.
    """
    if not isinstance(policy, Tuned):
        shared = Checkpoints(folder.parent / "agent")
        first = not any(folder.parent.glob("*.json"))  # What an interrupted call left may be another agent.
        if first or loaded.step not in shared.steps():
            _save(shared, loaded.step, {"agent": loaded.agent})
        policy = policy.replace(agent=None)
    _save(Checkpoints(folder / "checkpoints"), steps, {"policy": policy})
    content = {
        "format": FORMAT, "task": task, "method": method, "seed": seed, "steps": steps,
        "pretrain": to_json(loaded.config), "pretrain_steps": loaded.step, "config": to_json(config),
        "versions": versions(),
    }  # fmt: skip
    write_atomically(folder / TUNED, json.dumps(content, indent=1).encode())


def _save(checkpoints: Checkpoints, step: int, parts: dict[str, Any]) -> None:
    checkpoints.drop_after(-1)
    checkpoints.save(step, parts, {"step": step, "shards": [], "snapshots": []})


def load_adapted(folder: Path | str) -> Adapted:
    """The policy that an adaptation left.

    Raises:
        UserError: the folder holds none, it is damaged, or it names code that the user has not used.
    """
    folder = Path(folder)
    data = read_json(folder / TUNED, SHAPE)
    if data["method"] not in METHODS:
        raise UserError(f"{folder / TUNED} has the method {data['method']!r}: expected one of {', '.join(METHODS)}.")
    check_names({**data["pretrain"], "task": data["task"]}, folder / TUNED)
    try:
        config = run_config_from_json(data["pretrain"], find_agent(data["pretrain"]["agent_name"])[1])
        settings = from_json(AdaptConfig, data["config"])
    except UserError as error:
        raise UserError(f"{folder / TUNED} cannot be read: {str(error).removeprefix('config.json: ')}") from error
    task, spec = find_task(data["task"]), run_spec(config)
    agent = create_agent(config, spec)
    like = blank(data["method"], agent, task, settings, spec.action_dim)
    if not isinstance(like, Tuned):
        parts, _ = Checkpoints(folder.parent / "agent").restore(data["pretrain_steps"], {"agent": agent})
        agent, like = parts["agent"], like.replace(agent=None)
    parts, _ = Checkpoints(folder / "checkpoints").restore(data["steps"], {"policy": like})
    policy = parts["policy"] if isinstance(like, Tuned) else parts["policy"].replace(agent=agent)
    policy = jax.tree.map(jnp.asarray, policy)
    return Adapted(policy, task, data["method"], data["seed"], data["steps"], config, data["pretrain_steps"])


def adapted_returns(adapted: Adapted, episodes: int, seed: int) -> np.ndarray:
    """(episodes,): of one episode each from a reset with `seed`, by the modes of actions."""
    with closing(make_task_env(adapted.task, episodes, root_position=adapted.config.root_position)) as env:
        return episode_returns(env, acting(adapted.policy), seed)
