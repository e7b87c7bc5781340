"""Settings of CSF."""

from urlrl.agents.csf import CSFConfig
from urlrl.presets.metra import like_metra

PRESETS = like_metra(
    "csf",
    {
        "point-quick": CSFConfig(width=64, lr=1e-3),
        "maze-quick": CSFConfig(width=64, lr=1e-3),
        "half-cheetah-quick": CSFConfig(width=128, lr=1e-3),
        "ant-quick": CSFConfig(width=256, lr=1e-3),
    },
) | like_metra(
    "csf",
    {"half-cheetah-paper": CSFConfig(), "ant-paper": CSFConfig()},
    "CSF's released code (github.com/Princeton-RL/contrastive-successor-features)",
)
