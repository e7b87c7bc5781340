"""Settings of HILP."""

from dataclasses import replace

from urlrl.agents.hilp import HILPConfig
from urlrl.learners.iql import IQLConfig
from urlrl.presets.common import GOALS, HILP, HOURS, QUICK, Preset, offline

_PAPER = HILPConfig(plan_near=0.0)
_HILP_MAZE = HILPConfig(width=128, depth=2, lr=1e-3, distance_gamma=0.98, iql=IQLConfig(gamma=0.98), batch=GOALS)

PRESETS = {
    "antmaze-paper": Preset(offline(_PAPER, "hilp"), f"{HILP}, AntMaze", HOURS),
    "antmaze-plan-paper": Preset(
        offline(replace(_PAPER, plan_recursions=3), "hilp"), f"{HILP}, AntMaze with planning", HOURS
    ),
    "kitchen-paper": Preset(offline(_PAPER, "hilp", steps=500_000), f"{HILP}, Kitchen", HOURS),
    "maze-quick": Preset(offline(_HILP_MAZE, "hilp", steps=12_000), QUICK, "2 minutes on two CPU cores"),
}  # fmt: skip
