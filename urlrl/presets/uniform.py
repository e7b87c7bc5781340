"""Settings of the uniform policy, which makes data."""

from dataclasses import replace

from urlrl.agents.uniform import UniformConfig
from urlrl.presets.common import QUICK, Preset, making_data

PRESETS = {
    "walker": Preset(
        making_data(UniformConfig(), "uniform", "dmc:walker_walk", 1_000_000, steps_per_update=0), QUICK, "a minute"
    ),
    "cheetah": Preset(
        making_data(UniformConfig(), "uniform", "dmc:cheetah_run", 1_000_000, steps_per_update=0), QUICK, "a minute"
    ),
    **{
        f"maze-{name}": Preset(
            replace(
                making_data(UniformConfig(), "uniform", env, steps, steps_per_update=0), num_envs=10, rollout_steps=200
            ),
            source,
            "seconds",
        )
        for name, env, steps, source in (
            ("rooms", "maze:rooms_cells", 20_000, "the named maze of the learning tests"),
            ("rooms-xy", "maze:rooms", 20_000, "the same, seen as x and y"),
            ("rings-mass", "maze:rings_mass", 50_000, "the point-mass maze of FRE's tasks"),
            ("rings-mass-cells", "maze:rings_mass_cells", 50_000, "the same, seen by place cells"),
        )
    },
}  # fmt: skip
