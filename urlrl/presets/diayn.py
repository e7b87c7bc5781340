"""Settings of DIAYN."""

from urlrl.agents.diayn import DIAYNConfig
from urlrl.learners.sac import SACConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets.metra import like_metra

_PLANE = SkillSpace("gaussian", 2)
_PAPER = DIAYNConfig(z=SkillSpace("onehot", 50), sac=SACConfig(alpha=0.1, learn_alpha=False))

PRESETS = like_metra(
    "diayn",
    {
        "point-quick": DIAYNConfig(z=_PLANE, width=64, lr=1e-3),
        "maze-quick": DIAYNConfig(z=_PLANE, width=64, lr=1e-3),
        "half-cheetah-quick": DIAYNConfig(width=128, lr=1e-3),
        "ant-quick": DIAYNConfig(z=_PLANE, width=256, lr=1e-3),
    },
) | like_metra(
    "diayn",
    {"half-cheetah-paper": _PAPER, "ant-paper": _PAPER},
    "DIAYN in CSF's released code (github.com/Princeton-RL/contrastive-successor-features)",
)
