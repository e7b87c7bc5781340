"""What rollouts in the host's and the device's loop have in common."""

import numpy as np

from urlrl.cells import count_cells
from urlrl.config import PretrainConfig
from urlrl.errors import UserError
from urlrl.types import EnvSpec


def check_episodes(config: PretrainConfig, spec: EnvSpec) -> None:
    """Refuse a rhythm by which rollouts would cut episodes, for an agent that wants them whole."""
    if not config.agent.batch.whole_episodes:
        return
    if not spec.episode_steps or config.rollout_steps % spec.episode_steps or config.stagger_resets:
        limit = f"{spec.episode_steps} steps" if spec.episode_steps else "no time limit"
        raise UserError(
            f"rollout_steps is {config.rollout_steps} and stagger_resets {config.stagger_resets}, and episodes of "
            f"'{spec.id}' have {limit}: expected whole episodes, as agent '{config.agent_name}' learns from these."
        )


def rollout_coverage(positions: np.ndarray) -> dict[str, float]:
    """How many 1 m cells an epoch's positions (rows, p) are in; nothing where p is 0."""
    return {"rollout/coverage": float(count_cells(positions))} if positions.size else {}


def first_clock(config: PretrainConfig, spec: EnvSpec) -> np.ndarray:
    """(num_envs,), int64: the control step at which each environment's first episode begins. Where resets are
    staggered, evenly spread over an episode, so that the first ones are cut short one after another."""
    spread = spec.episode_steps if config.stagger_resets and spec.episode_steps else 0
    return np.arange(config.num_envs) * spread // config.num_envs
