"""Named settings. A published one says its source; `*-quick` ones are for two CPU cores."""

from dataclasses import dataclass, replace

from urlrl.agents.metra import MetraConfig
from urlrl.config import PretrainConfig
from urlrl.errors import unknown
from urlrl.learners.latents import SkillSpace
from urlrl.types import BatchSpec


@dataclass(frozen=True)
class Preset:
    config: PretrainConfig
    source: str  # where the settings come from
    cost: str  # what a run takes


_CODE = "METRA's released code (github.com/seohongpark/METRA)"
_METRA_CODE = MetraConfig(constraint_reduction="mean", batch=BatchSpec(timeout_as_terminal=True))
# Narrow networks and ten times the published learning rate. HalfCheetah keeps METRA's 16 indices and mean constraint.
_CHEETAH_QUICK = MetraConfig(z=SkillSpace("onehot", 16), width=128, lr=1e-3, constraint_reduction="mean")

# agent -> name -> preset
PRESETS: dict[str, dict[str, Preset]] = {
    "metra": {
        "half-cheetah-quick": Preset(
            PretrainConfig(agent=_CHEETAH_QUICK, env="half_cheetah", updates=100, steps=600_000, eval_every=50_000),
            "tuned for two CPU cores, docs/results",
            "2 minutes on two CPU cores",
        ),
        "ant-quick": Preset(
            PretrainConfig(
                agent=MetraConfig(width=256, lr=1e-3), env="ant", updates=50, steps=1_500_000, eval_every=100_000
            ),
            "tuned for two CPU cores, docs/results",
            "6 to 11 minutes on two CPU cores",
        ),
        "point-quick": Preset(
            PretrainConfig(
                agent=MetraConfig(width=64, lr=1e-3), env="point", rollout_steps=50, updates=50, min_replay=1_000,
                steps=40_000, eval_every=10_000,
            ),
            "for tests and first steps",
            "seconds",
        ),
        "half-cheetah-paper": Preset(
            PretrainConfig(
                agent=replace(_METRA_CODE, z=SkillSpace("onehot", 16)), env="half_cheetah", updates=50,
                steps=10_000_000, eval_every=400_000, checkpoint_minutes=5,
            ),
            _CODE,
            "4 hours on two CPU cores, estimated",
        ),
        "ant-paper": Preset(
            PretrainConfig(
                agent=_METRA_CODE, env="ant", updates=50, steps=10_000_000, eval_every=400_000, checkpoint_minutes=5
            ),
            _CODE,
            "4 hours on two CPU cores, estimated",
        ),
    }
}  # fmt: skip


def preset(agent: str, name: str) -> PretrainConfig:
    """The config of a preset. Raises UserError that offers the nearest name."""
    presets = PRESETS.get(agent, {})
    if name not in presets:
        raise unknown(f"preset of agent '{agent}'", name, presets)
    return presets[name].config
