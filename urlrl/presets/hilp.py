"""Settings of HILP."""

from urlrl.agents.hilp import HILPConfig
from urlrl.learners.iql import IQLConfig
from urlrl.presets.common import GOALS, HILP, HOURS, QUICK, Preset, offline

_HILP_MAZE = HILPConfig(
    width=128, depth=2, lr=1e-3, distance_gamma=0.98, iql=IQLConfig(gamma=0.98), batch=GOALS, plan_near=8.0
)  # fmt: skip

PRESETS = {
    "antmaze-paper": Preset(offline(HILPConfig(), "hilp"), f"{HILP}, AntMaze", HOURS),
    "antmaze-plan-paper": Preset(
        offline(HILPConfig(plan_recursions=3), "hilp"), f"{HILP}, AntMaze with planning", HOURS
    ),
    "kitchen-paper": Preset(offline(HILPConfig(), "hilp", steps=500_000), f"{HILP}, Kitchen", HOURS),
    "maze-quick": Preset(offline(_HILP_MAZE, "hilp", steps=12_000), QUICK, "2 minutes on two CPU cores"),
}  # fmt: skip
