"""What every verb starts from: a run's checkpoint, its agent and its environment."""

import json
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.agents import find_agent
from urlrl.config import OfflineConfig, RunConfig, run_config_from_json
from urlrl.data.dataset import Dataset
from urlrl.data.replay import Rows, transition_fields
from urlrl.data.shards import ShardFolder
from urlrl.envs import make_env
from urlrl.errors import UserError
from urlrl.loading import check_names
from urlrl.streams import env_seed, stream
from urlrl.training.loop import example_transition
from urlrl.training.run import RunFolder
from urlrl.types import EnvSpec, HostEnv, Transition


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


def load_checkpoint(run: Path | str, step: int | None = None) -> Loaded:
    """`load`, and what else is known of the checkpoint."""
    folder = RunFolder(run)
    data = folder.manifest()["config"]
    check_names(data, folder.config_file)
    config = run_config_from_json(data, find_agent(data["agent_name"])[1])
    steps = folder.checkpoints.steps()
    if not steps or (step is not None and step not in steps):
        found = f"those at {', '.join(map(str, steps))}" if steps else "none"
        raise UserError(f"{folder.path} has no checkpoint{'' if step is None else f' at step {step}'}: found {found}.")
    spec = run_spec(config)
    like, damaged = {"agent": create_agent(config, spec)}, []
    for candidate in reversed(steps) if step is None else [step]:
        try:
            parts, _ = folder.checkpoints.restore(candidate, like)
        except UserError as error:
            damaged.append(error)
            continue
        note = " ".join(f"{error} The checkpoint before it was used." for error in damaged)
        return Loaded(jax.tree.map(jnp.asarray, parts["agent"]), config, spec, candidate, note)
    raise damaged[0]


def create_agent(config: RunConfig, spec: EnvSpec) -> Any:
    """An untrained agent of this config, from the config's seed."""
    agent_class, _ = find_agent(config.agent_name)
    example = example_transition(spec, config.agent.z.dim, 1)
    return _create(agent_class, config.agent, example, stream(config.seed, "agent"))


@partial(jax.jit, static_argnums=(0, 1))
def _create(agent_class: Any, config: Any, example: Transition, key: jax.Array) -> Any:
    return agent_class.create(config, example, key)


def run_spec(config: RunConfig) -> EnvSpec:
    """What a run's environment says of itself; of a dataset that names none, what the data says.

    Raises:
        UserError: the environment's observations or actions are not those of the data.
    """
    if isinstance(config, OfflineConfig) and not config.env:
        info = Dataset(config.data).info
        return EnvSpec("", info.obs_dim, info.action_dim, None, None, obs_is_physics=info.obs_is_physics)
    with closing(make_run_env(config, 1)) as env:
        return env.env_spec


def past(run: Path | str, loaded: Loaded, count: int, seed: int) -> Rows | None:
    """`count` rows drawn from all that a run has stored of its transitions up to this checkpoint, or from the dataset
    that it learned from, with "physics" and "next_physics" where there are any; None if it has stored none."""
    if isinstance(loaded.config, OfflineConfig):
        dataset = run_dataset(loaded.config)
        return dataset.rows(dataset.pick(count, env_seed(seed, "past")))
    fields = transition_fields(loaded.spec, loaded.config.agent.z.dim)
    folder = ShardFolder(Path(run) / "replay", fields, loaded.config.num_envs)
    rows = folder.sample(count, loaded.step, np.random.default_rng(env_seed(seed, "past")))
    if rows and loaded.spec.obs_is_physics:
        rows |= {"physics": rows["obs"].astype(np.float64), "next_physics": rows["next_obs"].astype(np.float64)}
    return rows


def check_physics(rows: Rows, run: Path | str) -> None:
    """Refuse transitions that hold no physics where a reward is to be computed from it."""
    if "next_physics" not in rows:
        raise UserError(
            f"The transitions that {run} learned from have no physics: expected some, to compute a reward from; label "
            f"transitions yourself with a RewardPrompt in Python."
        )


def run_dataset(config: OfflineConfig) -> Dataset:
    """The dataset of an offline run. Raises UserError if it is not there any more, or another one is."""
    dataset = Dataset(config.data)
    if dataset.id != config.data_id:
        raise UserError(
            f"{config.data} holds other data (id {dataset.id}) than the run learned from: expected id {config.data_id}."
        )
    return dataset


def saved_evaluation(run: Path | str, step: int, spec: EnvSpec) -> dict[str, Any] | None:
    """What `evaluate` last wrote, if it is of this checkpoint and says all that is said of such an environment."""
    try:
        evaluation = json.loads((Path(run) / "evaluation.json").read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(evaluation, dict) or evaluation.get("step") != step:
        return None
    return evaluation if evaluation.get("twin") or not spec.twin else None


def make_run_env(config: RunConfig, num_envs: int) -> HostEnv:
    """Copies of the environment that a run of this config trains in, or that its dataset names."""
    if not config.env:
        raise UserError(
            "The run's dataset names no environment: expected --env NAME when it is pretrained or converted."
        )
    return make_env(config.env, num_envs, episode_steps=config.episode_steps, root_position=config.root_position)
