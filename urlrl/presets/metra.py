"""Settings of METRA."""

from dataclasses import replace
from typing import Any

from urlrl.agents.metra import MetraConfig
from urlrl.config import PretrainConfig
from urlrl.learners.skills import SkillSpace
from urlrl.presets.common import QUICK, Preset, making_data
from urlrl.types import BatchSpec

_CODE = "METRA's released code (github.com/seohongpark/METRA)"
_METRA_CODE = MetraConfig(constraint_reduction="mean", batch=BatchSpec(timeout_as_terminal=True))
# Narrow networks and ten times the published learning rate. HalfCheetah keeps METRA's 16 indices and mean constraint.
_CHEETAH_QUICK = MetraConfig(z=SkillSpace("onehot", 16), width=128, lr=1e-3, constraint_reduction="mean")


def _collecting(agent: MetraConfig, env: str) -> PretrainConfig:
    """A run whose transitions are data: phi sees where the body is, the policy does not."""
    return replace(
        making_data(agent, "metra", env, 500_000, 40 / 3),
        normalizer="fit", root_position=True, min_replay=10_000, eval_every=100_000,
    )  # fmt: skip


PRESETS = {
    "half-cheetah-quick": Preset(
        PretrainConfig(
            agent=_CHEETAH_QUICK, env="half_cheetah", steps_per_update=16, steps=600_000, eval_every=50_000
        ),
        QUICK,
        "2 minutes on two CPU cores",
    ),
    "ant-quick": Preset(
        PretrainConfig(
            agent=MetraConfig(width=256, lr=1e-3), env="ant", steps=1_500_000, eval_every=100_000
        ),
        QUICK,
        "6 to 11 minutes on two CPU cores",
    ),
    "ogbench-ant-quick": Preset(
        PretrainConfig(
            agent=MetraConfig(width=256, lr=1e-3, phi_only=2), env="ogbench:ant", normalizer="fit",
            steps=1_500_000, eval_every=100_000,
        ),
        "for two CPU cores, docs/zero-shot.md",
        "14 to 23 minutes on one busy CPU core",
    ),
    "mjx-ant": Preset(
        PretrainConfig(
            agent=_METRA_CODE, env="mjx:ant", num_envs=4096, stagger_resets=True, rollout_steps=12,
            precision="tf32", steps=16_000_000, eval_every=1_600_000, eval_env="ant", checkpoint_minutes=5,
            keep_data="window", loop="device",
        ),
        _CODE + ", but for the number of environments",
        "a GPU, 7 minutes on an H200, docs/device.md",
    ),
    "point-quick": Preset(
        PretrainConfig(
            agent=MetraConfig(width=64, lr=1e-3), env="point", rollout_steps=50, steps_per_update=8,
            min_replay=1_000, steps=40_000, eval_every=10_000,
        ),
        "for tests and first steps",
        "seconds",
    ),
    "maze-quick": Preset(
        PretrainConfig(
            agent=MetraConfig(width=64, lr=1e-3), env="maze:pinwheel_fixed", normalizer="fit", num_envs=64,
            stagger_resets=True, rollout_steps=25, steps_per_update=16, min_replay=5_000, steps=80_000,
            eval_every=20_000, loop="device",
        ),
        "for first steps on the device, docs/device.md",
        "a minute on one CPU core",
    ),
    "cheetah-collect-quick": Preset(
        _collecting(replace(_CHEETAH_QUICK, phi_only=1), "dmc:cheetah_run"), QUICK, "3 minutes on two CPU cores"
    ),
    "walker-collect-quick": Preset(
        _collecting(MetraConfig(width=128, lr=1e-3, phi_only=1), "dmc:walker_walk"),
        QUICK,
        "4 minutes on two CPU cores",
    ),
    "quadruped-collect-quick": Preset(
        _collecting(MetraConfig(width=256, lr=1e-3, phi_only=2), "dmc:quadruped_walk"),
        QUICK,
        "10 minutes on two CPU cores",
    ),
    "half-cheetah-paper": Preset(
        PretrainConfig(
            agent=replace(_METRA_CODE, z=SkillSpace("onehot", 16)), env="half_cheetah",
            steps=10_000_000, eval_every=400_000, checkpoint_minutes=5,
        ),
        _CODE,
        "4 hours on two CPU cores, estimated",
    ),
    "ant-paper": Preset(
        PretrainConfig(
            agent=_METRA_CODE, env="ant", steps=10_000_000, eval_every=400_000, checkpoint_minutes=5
        ),
        _CODE,
        "4 hours on two CPU cores, estimated",
    ),
}  # fmt: skip


def like_metra(
    name: str,
    agents: dict[str, Any],
    source: str = "METRA's quick settings, not tuned for this agent",
    cost: str = "not measured",
    **options: Any,
) -> dict[str, Preset]:
    """METRA's presets for another agent: nothing but the agent differs, and `options` of the run. `agents` says by the
    preset's name with which settings."""
    return {
        preset: Preset(replace(PRESETS[preset].config, agent=agent, agent_name=name, **options), source, cost)
        for preset, agent in agents.items()
    }
