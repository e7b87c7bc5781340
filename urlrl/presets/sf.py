"""Settings of successor features, HILP's zero-shot variant among them."""

from dataclasses import replace

from urlrl.agents.sf import SFConfig
from urlrl.learners.ddpg import DDPGConfig
from urlrl.learners.features import FeatureConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets.common import CONTROLLABLE, GOALS, HILP, HOURS, MINUTES, QUICK, Preset, offline
from urlrl.types import BatchSpec, Goals

_HILP_ZSRL = SFConfig(features="hilbert")
# Distances spread as fast as phi's target follows: with the published 0.005 they still grow after 25,000 updates.
_HILP_ZSRL_QUICK = replace(_HILP_ZSRL, width=256, lr=5e-4, batch=GOALS, phi=FeatureConfig(width=256, tau=0.02))
_HILP_WALKER_QUICK = replace(_HILP_ZSRL_QUICK, phi=FeatureConfig(width=256, gamma=0.96))
_NO_GOALS, _AHEAD = BatchSpec(size=1024), BatchSpec(size=1024, goals=Goals(random=0.0))
_FB_PAPER = SFConfig(z=SkillSpace("wide_sphere", 100), mix=0.0, q_loss=True, features="random", batch=_NO_GOALS)
_LAPLACIAN_MAZE = SFConfig(
    features="laplacian", phi=FeatureConfig(width=128, lr=1e-3), width=128, lr=1e-3, ddpg=DDPGConfig(gamma=0.9),
    batch=BatchSpec(size=256),
)  # fmt: skip

PRESETS = {
    "hilp-zsrl": Preset(offline(_HILP_ZSRL, "sf"), f"{HILP}, ExORL cheetah", HOURS),
    "hilp-zsrl-walker": Preset(
        offline(replace(_HILP_ZSRL, phi=FeatureConfig(gamma=0.96)), "sf"), f"{HILP}, ExORL walker", HOURS
    ),
    "hilp-zsrl-quadruped": Preset(
        offline(replace(_HILP_ZSRL, q_loss=True), "sf"), f"{HILP}, ExORL quadruped and jaco", HOURS
    ),
    "hilp-zsrl-jaco-goal": Preset(
        offline(replace(_HILP_ZSRL, q_loss=True, cumulant="difference", phi=FeatureConfig(expectile=0.9)), "sf"),
        f"{HILP}, HILP-G on jaco",
        HOURS,
    ),
    "laplacian": Preset(offline(replace(_FB_PAPER, features="laplacian"), "sf"), CONTROLLABLE, HOURS),
    "contrastive": Preset(
        offline(replace(_FB_PAPER, features="contrastive", batch=_AHEAD), "sf"), CONTROLLABLE, HOURS
    ),
    "svd": Preset(offline(replace(_FB_PAPER, features="svd"), "sf"), CONTROLLABLE, HOURS),
    "inverse": Preset(offline(replace(_FB_PAPER, features="inverse"), "sf"), CONTROLLABLE, HOURS),
    "forward": Preset(offline(SFConfig(features="forward", q_loss=False, batch=_NO_GOALS), "sf"), HILP, HOURS),
    "random": Preset(offline(_FB_PAPER, "sf"), CONTROLLABLE, HOURS),
    "hilp-zsrl-quick": Preset(
        offline(_HILP_ZSRL_QUICK, "sf", steps=40_000), QUICK, "15 minutes on two CPU cores"
    ),
    "hilp-zsrl-walker-quick": Preset(
        offline(_HILP_WALKER_QUICK, "sf", steps=20_000), QUICK, MINUTES
    ),
    "laplacian-maze-quick": Preset(
        offline(_LAPLACIAN_MAZE, "sf", steps=8_000), QUICK, "a minute on two CPU cores"
    ),
}  # fmt: skip
