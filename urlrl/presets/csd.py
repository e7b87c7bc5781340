"""Settings of CSD."""

from urlrl.agents.csd import CSDConfig
from urlrl.learners.sac import SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets.metra import like_metra
from urlrl.types import BatchSpec

_INDICES = SkillSpace("onehot", 16)


def _paper(alpha: float) -> CSDConfig:
    return CSDConfig(
        z=_INDICES,
        width=512,
        batch=BatchSpec(size=1024, timeout_as_terminal=True),
        sac=SACConfig(alpha=alpha, learn_alpha=False),
    )


PRESETS = like_metra(
    "csd",
    {
        "point-quick": CSDConfig(width=64, lr=1e-3),
        "maze-quick": CSDConfig(width=64, lr=1e-3),
        "half-cheetah-quick": CSDConfig(z=_INDICES, width=128, lr=1e-3),
        "ant-quick": CSDConfig(width=256, lr=1e-3),
    },
) | like_metra(
    "csd",
    {"half-cheetah-paper": _paper(0.1), "ant-paper": _paper(0.03)},
    "CSD's released code (github.com/seohongpark/CSD-locomotion), but that phi makes 64 updates, not 32",
    # It learns from the steps of the present policy: 64 updates on the last 10 episodes.
    num_envs=10,
    replay_capacity=2_000,
    min_replay=2_000,
    steps_per_update=2_000 / 64,
)
