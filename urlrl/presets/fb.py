"""Settings of forward-backward representations."""

from dataclasses import replace

from urlrl.agents.fb import POLICY, FBConfig
from urlrl.learners.ddpg import DDPGConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets.common import CONTROLLABLE, HOURS, MINUTES, QUICK, ZERO_SHOT_RL, Preset, offline
from urlrl.types import BatchSpec

_FB_QUICK = FBConfig(width=256, backward_width=256, lr=5e-4, batch=BatchSpec(size=256))
_FB_MAZE = replace(_FB_QUICK, width=128, backward_width=128, lr=1e-3, ddpg=DDPGConfig(gamma=0.9))
_CONSERVATIVE = FBConfig(
    batch=BatchSpec(size=512), ddpg=replace(POLICY, lr=3e-5), max_gradient=1.0, penalty="vc", backward_width=256
)  # fmt: skip


PRESETS = {
    "fb": Preset(offline(FBConfig(), "fb"), f"{CONTROLLABLE}, ExORL", HOURS),
    "fb-maze": Preset(
        offline(FBConfig(z=SkillSpace("wide_sphere", 100), ddpg=DDPGConfig(gamma=0.99)), "fb"),
        f"{CONTROLLABLE}, point-mass maze",
        HOURS,
    ),
    "vcfb": Preset(offline(_CONSERVATIVE, "fb"), ZERO_SHOT_RL, HOURS),
    "mcfb": Preset(offline(replace(_CONSERVATIVE, penalty="mc"), "fb"), ZERO_SHOT_RL, HOURS),
    "quick": Preset(offline(_FB_QUICK, "fb", steps=20_000), QUICK, MINUTES),
    "maze-quick": Preset(offline(_FB_MAZE, "fb", steps=12_000), QUICK, "a minute on two CPU cores"),
}  # fmt: skip
