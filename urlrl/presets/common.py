"""What presets are, and what those of several agents share."""

from dataclasses import dataclass

from urlrl.config import OfflineConfig, PretrainConfig, RunConfig
from urlrl.types import BatchSpec, Goals


@dataclass(frozen=True)
class Preset:
    config: RunConfig
    source: str  # where the settings come from
    cost: str  # what a run takes

    @property
    def for_gpu(self) -> bool:
        """Whether it is made for a GPU; its cost begins with that then."""
        return self.cost.startswith("a GPU")


HILP = "HILP's released code (github.com/seohongpark/HILP)"
FRE = "FRE's released code (github.com/kvfrans/fre)"
CONTROLLABLE = "the FB paper's released code (github.com/facebookresearch/controllable_agent)"
ZERO_SHOT_RL = "VC-FB's released code (github.com/enjeeneer/zero-shot-rl), in the FB paper's networks"

# What two cores can train on: narrow networks, small batches, several times the published learning rates.
QUICK = "tuned for two CPU cores, docs/results"
MINUTES = "10 minutes on two CPU cores"
HOURS = "a GPU, or days on two CPU cores, estimated"
GOALS = BatchSpec(size=256, goals=Goals())


def offline(agent: object, name: str, steps: int = 1_000_000, **options) -> OfflineConfig:
    return OfflineConfig(agent=agent, agent_name=name, steps=steps, **options)


def making_data(agent: object, name: str, env: str, steps: int, steps_per_update: float, **options) -> PretrainConfig:
    """Settings of a run that makes data: no evaluation, raw observations, transitions of whole episodes."""
    return PretrainConfig(
        agent=agent, agent_name=name, env=env, steps=steps, steps_per_update=steps_per_update, rollout_steps=250,
        min_replay=4_000, normalizer="off", eval_every=0, **options,
    )  # fmt: skip
