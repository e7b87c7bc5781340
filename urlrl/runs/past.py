"""What a run has seen: the transitions that it stored, or the dataset that it learned from."""

from pathlib import Path
from typing import Any

import numpy as np

from urlrl.config import OfflineConfig
from urlrl.data.dataset import Dataset
from urlrl.data.rows import Rows, agent_fields, relabelled
from urlrl.data.shards import Shard, ShardFolder
from urlrl.errors import UserError
from urlrl.runs.load import Loaded
from urlrl.streams import env_seed
from urlrl.training.run import RunFolder
from urlrl.types import Transition


def past(run: Path | str, loaded: Loaded, count: int, seed: int) -> Rows | None:
    """`count` rows drawn from all that a run has stored of its transitions up to this checkpoint, or from the dataset
    that it learned from, with "physics" and "next_physics" where there are any; None if it has stored none.

    Raises:
        UserError: a shard is missing or damaged, or the dataset is.
    """
    if isinstance(loaded.config, OfflineConfig):
        dataset = run_dataset(loaded.config)
        return dataset.rows(dataset.pick(count, env_seed(seed, "past")))
    fields = agent_fields(loaded.agent, loaded.spec)
    folder = ShardFolder(Path(run) / "replay", fields, loaded.config.num_envs)
    infos = RunFolder(run).checkpoints.infos()
    recorded = {shard["file"]: Shard.from_json(shard) for info in infos for shard in info["shards"]}
    shards = sorted((shard for shard in recorded.values() if shard.end <= loaded.step), key=lambda shard: shard.begin)
    rows = folder.sample(count, shards, np.random.default_rng(env_seed(seed, "past")))
    if rows and loaded.spec.obs_is_physics:
        rows |= {"physics": rows["obs"].astype(np.float64), "next_physics": rows["next_obs"].astype(np.float64)}
    return rows


def past_to_label(run: Path | str, loaded: Loaded, count: int, seed: int) -> Rows:
    """`past`, of which a reward is to be read. Raises UserError also if the run has stored nothing."""
    if (rows := past(run, loaded, count, seed)) is None:
        raise UserError(f"{run} has no transitions in its folder replay/: a reward needs some to be read from.")
    return rows


def seen_of(run: Path | str, loaded: Loaded, agent: Any, count: int, seed: int) -> Transition | None:
    """What `agent`, which is the run's, reads goals and demonstrations by: `count` transitions of `past`, or as many as
    it plans a way over, if these are more; None if there are none."""
    wanted = max(count, agent.num_waypoints) if "plans" in agent.abilities else count
    rows = past(run, loaded, wanted, seed)
    return None if rows is None else relabelled(rows, rows["reward"])


def check_physics(rows: Rows, run: Path | str) -> None:
    """Refuse transitions that hold no physics where a reward is to be computed from it."""
    if "next_physics" not in rows:
        raise UserError(
            f"The transitions that {run} learned from have no physics: expected some, to compute a reward from; label "
            f"transitions yourself with a RewardPrompt in Python."
        )


def run_dataset(config: OfflineConfig) -> Dataset:
    """The dataset of an offline run. Raises UserError if it is not there any more, is damaged, or another one is."""
    dataset = Dataset(config.data)
    if dataset.id != config.data_id:
        raise UserError(
            f"{config.data} holds other data (id {dataset.id}) than the run learned from: expected id {config.data_id}."
        )
    return dataset.verify()
