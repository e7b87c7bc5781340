"""Settings of DADS."""

from urlrl.agents.dads import DADSConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets.metra import like_metra
from urlrl.types import BatchSpec

_PAPER = DADSConfig(batch=BatchSpec(timeout_as_terminal=True))

# Of skills that are no indices, each alternative is a pass of the dynamics: 16 here, not 100.
PRESETS = like_metra(
    "dads",
    {
        "point-quick": DADSConfig(width=64, lr=1e-3, alternatives=16),
        "maze-quick": DADSConfig(width=64, lr=1e-3, alternatives=16),
        "half-cheetah-quick": DADSConfig(z=SkillSpace("onehot", 16), width=128, lr=1e-3),
        "ant-quick": DADSConfig(width=256, lr=1e-3, alternatives=16),
    },
) | like_metra(
    "dads",
    {"half-cheetah-paper": _PAPER, "ant-paper": _PAPER},
    "DADS in METRA's released code (github.com/seohongpark/METRA)",
)
