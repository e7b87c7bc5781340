"""Settings of LSD."""

from urlrl.agents.lsd import LSDConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets.metra import like_metra
from urlrl.types import BatchSpec

_INDICES, _TERMINAL = SkillSpace("onehot", 16), BatchSpec(timeout_as_terminal=True)

PRESETS = like_metra(
    "lsd",
    {
        "point-quick": LSDConfig(width=64, lr=1e-3),
        "maze-quick": LSDConfig(width=64, lr=1e-3),
        "half-cheetah-quick": LSDConfig(z=_INDICES, width=128, lr=1e-3),
        "ant-quick": LSDConfig(width=256, lr=1e-3),
    },
) | like_metra(
    "lsd",
    {"half-cheetah-paper": LSDConfig(z=_INDICES, batch=_TERMINAL), "ant-paper": LSDConfig(batch=_TERMINAL)},
    "LSD in METRA's released code (github.com/seohongpark/METRA)",
)
