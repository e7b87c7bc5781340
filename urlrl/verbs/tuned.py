"""What an adaptation left in `<run>/adapt/<task>/<method>-<seed>/`: tuned.json says what it is, `checkpoints/` hold it;
search.json says what fine-tuning began with. `agent-<id>` beside is the pretrained agent, where it acts on."""

import hashlib
import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.adaptation.config import METHODS, AdaptConfig
from urlrl.adaptation.ladder import check_same
from urlrl.adaptation.methods import Start, episode_returns
from urlrl.adaptation.tuned import Controlled, Kept, Skilled, Tuned, blank
from urlrl.agents import find_agent
from urlrl.config import RESUMABLE_FIELDS, RunConfig, from_json, run_config_from_json, to_json
from urlrl.errors import UserError
from urlrl.evaluation.rollout import DEFAULT_STEPS, acting, rollout
from urlrl.evaluation.video import MAX_TILES, render_video
from urlrl.files import read_json, write_atomically, write_json
from urlrl.loading import check_names
from urlrl.runs.begin import create_agent, run_spec
from urlrl.runs.load import Loaded
from urlrl.runtime import made_elsewhere, versions
from urlrl.tasks.catalogue import find_task
from urlrl.tasks.task import Task, TaskEnv, make_task_env
from urlrl.training.checkpoint import Checkpoints
from urlrl.training.run import TUNED
from urlrl.types import Trajectory

FORMAT = "urlrl-tuned-1"
SHAPE = {
    "format": FORMAT,
    "task": str,
    "method": str,
    "seed": int,
    "pretrain": {"agent": dict, "agent_name": str, "env": str},
    "pretrain_steps": int,
    "config": dict,
    "versions": {str: str},
}
SEARCH = "search.json"
SEARCHED = {"z": [float], "steps": int, "reward_scale": float, "curve": [[float]]}


class Adapted(NamedTuple):
    """A policy that was kept, and where it comes from."""

    policy: Kept
    task: Task
    method: str
    seed: int
    steps: int  # in the task, those of a search included
    config: RunConfig  # of the pretraining
    pretrain_steps: int


def settings(task: str, loaded: Loaded, config: AdaptConfig) -> dict[str, Any]:
    """What results that are compared have in common: the task, the agent as it was pretrained, how it is adapted."""
    return _settings(task, to_json(loaded.config), loaded.step, to_json(config))


def _settings(task: str, pretrain: dict[str, Any], step: int, config: dict[str, Any]) -> dict[str, Any]:
    pretrain = {name: value for name, value in pretrain.items() if name not in RESUMABLE_FIELDS}
    return {"task": task, "pretrain": pretrain, "pretrain_steps": step, "config": config}


def claim(folder: Path, loaded: Loaded, task: str, method: str, seed: int, config: AdaptConfig) -> str:
    """Write into `folder`, which the caller has locked, what it will hold; and beside it the pretrained agent, where
    that is a part of it: the run may go on and drop this checkpoint. Returns `made_elsewhere` of what was there.

    Raises:
        UserError: a training of other settings was begun there.
    """
    if (folder / TUNED).exists() and METHODS[method].learns:
        there = read_json(folder / TUNED, SHAPE)
        same = _settings(there["task"], there["pretrain"], there["pretrain_steps"], there["config"])
        here = settings(task, loaded, config)
        check_same(folder / TUNED, method, same, here, type(loaded.config.agent))
        return made_elsewhere(folder, there["versions"])
    content = {
        "format": FORMAT, "task": task, "method": method, "seed": seed, "pretrain": to_json(loaded.config),
        "pretrain_steps": loaded.step, "config": to_json(config), "versions": versions(),
    }  # fmt: skip
    if not METHODS[method].learns:
        Checkpoints(folder / "checkpoints").drop_after(-1)  # What an interrupted call left is found again.
    if METHODS[method].keeps != "policy":
        _keep_agent(_agent_folder(folder, content), loaded)
    write_json(content, folder / TUNED)
    return ""


def _agent_folder(folder: Path, content: dict[str, Any]) -> Path:
    """Where the pretrained agent of a tuned.json is, which all policies of a task that act by it share."""
    which = json.dumps([content["pretrain"], content["pretrain_steps"]], sort_keys=True)
    return folder.parent / f"agent-{hashlib.sha256(which.encode()).hexdigest()[:12]}"


def _keep_agent(place: Path, loaded: Loaded) -> None:
    """Whole or not at all; another process may do the same."""
    if place.exists():
        return
    own = place.with_name(f".{place.name}-{os.getpid()}")
    Checkpoints(own).save(loaded.step, {"agent": loaded.agent}, {"step": loaded.step, "shards": [], "snapshots": []})
    try:
        os.rename(own, place)
    except OSError:
        if not place.exists():
            raise
        shutil.rmtree(own)


def keep_skill(folder: Path, skilled: Skilled, steps: int) -> None:
    """Write a skill that was found within `steps` into a folder that is claimed."""
    Checkpoints(folder / "checkpoints").save(
        steps, {"policy": {"z": skilled.z}}, {"step": steps, "shards": [], "snapshots": []}
    )


def keep_search(folder: Path, start: Start, curve: list[tuple[int, float]]) -> None:
    content = {"z": start.z.tolist(), "steps": start.steps, "reward_scale": start.reward_scale, "curve": curve}
    write_atomically(folder / SEARCH, json.dumps(content).encode())


def read_search(folder: Path, z_dim: int) -> tuple[Start, list[tuple[int, float]]] | None:
    """What `keep_search` wrote, if it did. Raises UserError where the file is damaged."""
    if not (folder / SEARCH).exists():
        return None
    found = read_json(folder / SEARCH, SEARCHED)
    if len(found["z"]) != z_dim or not all(len(point) == 2 for point in found["curve"]):
        raise UserError(
            f"{folder / SEARCH} cannot be read: expected a z of {z_dim} numbers, and steps and a return at each point "
            f"of its curve."
        )
    curve = [(int(steps), mean) for steps, mean in found["curve"]]
    return Start(np.array(found["z"], np.float32), found["steps"], found["reward_scale"]), curve


def load_adapted(folder: Path | str) -> Adapted:
    """The policy that an adaptation left, or has reached so far.

    Raises:
        UserError: the folder holds none, it is damaged, or it names code that the user has not used.
    """
    folder = Path(folder)
    data = read_json(folder / TUNED, SHAPE)
    method = data["method"]
    if method not in METHODS:
        raise UserError(f"{folder / TUNED} has the method {method!r}: expected one of {', '.join(METHODS)}.")
    check_names({**data["pretrain"], "task": data["task"]}, folder / TUNED)
    try:
        config = run_config_from_json(data["pretrain"], find_agent(data["pretrain"]["agent_name"])[1])
        adapting = from_json(AdaptConfig, data["config"])
    except UserError as error:
        raise UserError(f"{folder / TUNED} cannot be read: {str(error).removeprefix('config.json: ')}") from error
    task, spec = find_task(data["task"]), run_spec(config)
    agent = create_agent(config, spec)
    like = blank(method, agent, task, adapting, spec.action_dim)
    if not isinstance(like, Tuned):
        parts, _ = Checkpoints(_agent_folder(folder, data)).restore(data["pretrain_steps"], {"agent": agent})
        agent = parts["agent"]
    policy: Kept
    match like:
        case Tuned():
            policy, step = _newest(folder, "agent", like)
        case Controlled():
            tuned, step = _newest(folder, "agent", like.controller)
            policy = like.replace(agent=agent, controller=tuned)
        case _:
            found, step = _newest(folder, "policy", {"z": like.z})
            policy = Skilled(agent, **found)
    search = read_search(folder, config.agent.z.dim)
    hold = task.option_steps if METHODS[method].keeps == "controller" else 1
    spent = (search[0].steps if search else 0) + hold * step
    policy = jax.tree.map(jnp.asarray, policy)
    return Adapted(policy, task, method, data["seed"], spent, config, data["pretrain_steps"])


def _newest(folder: Path, part: str, like: Any) -> tuple[Any, int]:
    """(part, step) of the newest checkpoint that is whole. Raises the newest one's error where none is."""
    checkpoints, errors = Checkpoints(folder / "checkpoints"), list[UserError]()
    for step in reversed(checkpoints.steps()):
        try:
            return checkpoints.restore(step, {part: like})[0][part], step
        except UserError as error:
            errors.append(error)
    raise errors[0] if errors else UserError(f"{folder} holds no policy yet: its adaptation has made no checkpoint.")


def adapted_returns(adapted: Adapted, episodes: int, seed: int) -> np.ndarray:
    """(episodes,): of one episode each from a reset with `seed`, by the modes of actions."""
    with closing(make_task_env(adapted.task, episodes, root_position=adapted.config.root_position)) as env:
        return episode_returns(env, acting(adapted.policy), seed)


def play_kept(env: TaskEnv, policy: Kept, seed: int) -> Trajectory:
    """One episode in each lane of `env`, from a reset with `seed`, by the modes of actions."""
    return rollout(env, acting(policy), jax.random.key(0), seed, env.env_spec.episode_steps or DEFAULT_STEPS)


def render_adapted(adapted: Adapted, path: Path, seed: int) -> str | None:
    """The first episodes of `adapted_returns`, side by side in a video; returns None, or why there is none."""
    with closing(make_task_env(adapted.task, MAX_TILES, root_position=adapted.config.root_position)) as env:
        model, spec = getattr(env.env, "model", None), env.env_spec
        if model is None:
            return f"Environment '{adapted.config.env}' has no MuJoCo model to render: there is no video."
        played = play_kept(env, adapted.policy, seed)
    assert played.physics is not None
    returns = (played.steps.reward * played.mask).sum(axis=0)
    labels = [f"{adapted.task.name}: return {total:.1f}" for total in returns]
    qpos = played.physics[..., : dict(spec.physics)["qpos"]]
    return render_video(model, qpos, path, fps=1 / (spec.control_dt or 1), labels=labels)
