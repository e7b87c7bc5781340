"""Settings of functional reward encodings."""

from dataclasses import replace

from urlrl.agents.fre import POLICY, FREConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets.common import FRE, HOURS, MINUTES, QUICK, Preset, offline
from urlrl.types import BatchSpec

_FRE_MAZE = FREConfig(
    z=SkillSpace("gaussian", 32), batch=BatchSpec(size=128, futures=7, future_gamma=0.9),
    rewards=("goal", "near", "mlp"), position=(0, 1), goal_radius=0.45, mlp_scale=4.0, encoder_width=64, warmup=8_000,
    width=128, depth=2, lr=1e-3, iql=replace(POLICY, gamma=0.95, tau=0.005), position_bins=16,
    position_range=(-1.8, 1.8),
)  # fmt: skip
# Position and velocity in standard deviations, so 1 m is 0.4 of x and y: the radius of goals. More questions to the
# decoder are cheap, and tell more of each function.
_FRE_MASS = replace(
    _FRE_MAZE, z=SkillSpace("gaussian", 64), rewards=("goal", "linear", "mlp", "field"), goal_radius=0.4, decode=32,
    warmup=12_000, iql=replace(_FRE_MAZE.iql, inverse_temperature=10.0),
)  # fmt: skip
# States as they are, as in the paper.
_FRE_ANT = FREConfig(
    z=SkillSpace("gaussian", 64), batch=BatchSpec(size=128, futures=7), position=(0, 1), goal_radius=2.0,
    decode=32, encoder_width=64, warmup=8_000, width=256, depth=2, lr=5e-4,
    iql=replace(POLICY, tau=0.005, inverse_temperature=10.0), position_bins=32, position_range=(-2.0, 38.0),
)  # fmt: skip
_FRE_QUICK = FREConfig(
    z=SkillSpace("gaussian", 64), batch=BatchSpec(size=128, futures=7), mlp_scale=4.0, encoder_width=64,
    warmup=8_000, width=256, depth=2, lr=5e-4, iql=replace(POLICY, gamma=0.98, tau=0.005),
)  # fmt: skip
_FRE_CHEETAH = replace(_FRE_QUICK, goal_radius=1.44, iql=replace(_FRE_QUICK.iql, inverse_temperature=10.0))

# By which the released code divides the distance to a goal: about the standard deviations of ExORL's observations.
_WALKER_SCALE = (
    0.7213, 0.6775, 0.76382, 0.63957, 0.68494, 0.70786, 0.71132, 0.67534, 0.68181, 0.7134, 0.65228, 0.75762, 0.73118,
    0.67458, 0.36822, 2.1135, 1.8134, 10.595, 17.41, 17.837, 22.399, 16.149, 15.694, 18.54,
)  # fmt: skip
_CHEETAH_SCALE = (
    0.44074, 10.07, 0.51723, 0.5601, 0.51895, 0.32044, 0.55018, 0.38564, 1.9883, 1.6377, 4.3085, 12.144, 13.538, 16.89,
    7.715, 14.346, 10.69,
)  # fmt: skip

PRESETS = {
    "antmaze-paper": Preset(
        offline(
            FREConfig(position=(0, 1), goal_radius=2.0, position_bins=32, position_range=(0.0, 35.0)), "fre"
        ),
        f"{FRE}, AntMaze",
        HOURS,
    ),
    # States as they are. A goal is near by a mean distance of 0.2 (walker) and 0.08, over 27 and 18 coordinates; those
    # that our observations have no columns for count next to nothing there.
    "exorl-walker-paper": Preset(
        offline(
            FREConfig(goal_radius=5.4, goal_scale=_WALKER_SCALE, warmup=1_000_000), "fre", steps=2_000_000
        ),
        f"{FRE}, ExORL walker, without its extra columns",
        HOURS,
    ),
    "exorl-cheetah-paper": Preset(
        offline(
            FREConfig(goal_radius=1.44, goal_scale=_CHEETAH_SCALE, warmup=1_000_000), "fre", steps=2_000_000
        ),
        f"{FRE}, ExORL cheetah, without its extra column",
        HOURS,
    ),
    "maze-mass-quick": Preset(
        offline(_FRE_MASS, "fre", steps=72_000, normalizer="fit"), QUICK, "25 minutes on one CPU core"
    ),
    "antmaze-quick": Preset(
        offline(_FRE_ANT, "fre", steps=32_000), QUICK, "20 minutes on one CPU core"
    ),
    "walker-quick": Preset(
        offline(replace(_FRE_QUICK, goal_radius=5.4), "fre", steps=28_000, normalizer="fit"), QUICK, MINUTES
    ),
    "cheetah-quick": Preset(
        offline(_FRE_CHEETAH, "fre", steps=28_000, normalizer="fit"), QUICK, MINUTES
    ),
    "maze-quick": Preset(
        offline(_FRE_MAZE, "fre", steps=20_000, normalizer="fit"),
        "for first steps on maze:rooms, x and y as observations",
        "8 minutes on two CPU cores",
    ),
}  # fmt: skip
