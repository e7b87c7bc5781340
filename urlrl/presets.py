"""Named settings. A published one says its source; `*-quick` ones are for two CPU cores."""

from dataclasses import dataclass, replace

from urlrl.agents.fb import FBConfig
from urlrl.agents.fre import FREConfig
from urlrl.agents.hilp import HILPConfig
from urlrl.agents.metra import MetraConfig
from urlrl.agents.rnd import RNDConfig
from urlrl.agents.sf import SFConfig
from urlrl.agents.uniform import UniformConfig
from urlrl.config import OfflineConfig, PretrainConfig, RunConfig
from urlrl.errors import unknown
from urlrl.learners.latents import SkillSpace
from urlrl.types import BatchSpec, Goals


@dataclass(frozen=True)
class Preset:
    config: RunConfig
    source: str  # where the settings come from
    cost: str  # what a run takes


_CODE = "METRA's released code (github.com/seohongpark/METRA)"
_METRA_CODE = MetraConfig(constraint_reduction="mean", batch=BatchSpec(timeout_as_terminal=True))
# Narrow networks and ten times the published learning rate. HalfCheetah keeps METRA's 16 indices and mean constraint.

_HILP = "HILP's released code (github.com/seohongpark/HILP)"
_FRE = "FRE's released code (github.com/kvfrans/fre)"
_CA = "the FB paper's released code (github.com/facebookresearch/controllable_agent)"
_ZSRL = "VC-FB's released code (github.com/enjeeneer/zero-shot-rl)"
_CHEETAH_QUICK = MetraConfig(z=SkillSpace("onehot", 16), width=128, lr=1e-3, constraint_reduction="mean")

_QUICK = "tuned for two CPU cores, docs/results"
_MINUTES = "10 minutes on two CPU cores"
_HOURS = "a GPU, or days on two CPU cores, estimated"


def _offline(agent: object, name: str, steps: int = 1_000_000, **options) -> OfflineConfig:
    return OfflineConfig(agent=agent, agent_name=name, steps=steps, **options)


def _data(agent: object, name: str, env: str, steps: int, steps_per_update: float, **options) -> PretrainConfig:
    """Settings of a run that makes data: no evaluation, raw observations, transitions of whole episodes."""
    return PretrainConfig(
        agent=agent, agent_name=name, env=env, steps=steps, steps_per_update=steps_per_update, rollout_steps=250,
        min_replay=4_000, normalizer="off", eval_every=0, **options,
    )  # fmt: skip


# What two cores can train on: narrow networks, small batches, five times the published learning rates.
_GOALS = BatchSpec(size=256, goals=Goals())
_RND_QUICK = RNDConfig(width=256, lr=3e-4, outputs=64, batch=BatchSpec(size=256))
_FB_QUICK = FBConfig(
    width=256, backward_width=256, lr=5e-4, actor_lr=5e-4, batch=BatchSpec(size=256)
)  # fmt: skip
_HILP_ZSRL = SFConfig(features="hilbert")
# Distances spread as fast as phi's target follows: with the published 0.005 they still grow after 25,000 updates.
_HILP_ZSRL_QUICK = replace(_HILP_ZSRL, width=256, feature_width=256, lr=5e-4, batch=_GOALS, distance_tau=0.02)
_HILP_WALKER_QUICK = replace(_HILP_ZSRL_QUICK, distance_gamma=0.96, distance_tau=0.005)
_NO_GOALS, _AHEAD = BatchSpec(size=1024), BatchSpec(size=1024, goals=Goals(random=0.0))
_FB_MAZE = replace(_FB_QUICK, width=128, backward_width=128, lr=1e-3, actor_lr=1e-3, gamma=0.9)
_LAPLACIAN_MAZE = SFConfig(
    features="laplacian", width=128, feature_width=128, lr=1e-3, feature_lr=1e-3, gamma=0.9,
    batch=BatchSpec(size=256),
)  # fmt: skip
_HILP_MAZE = HILPConfig(width=128, depth=2, lr=1e-3, gamma=0.98, distance_gamma=0.98, batch=_GOALS)
_FRE_MAZE = FREConfig(
    z=SkillSpace("gaussian", 32), batch=BatchSpec(size=128, futures=7, future_gamma=0.9),
    rewards=("goal", "near", "mlp"), position=(0, 1), goal_radius=0.45, mlp_scale=4.0, encoder_width=64, warmup=8_000,
    width=128, depth=2, lr=1e-3, gamma=0.95, tau=0.005, position_bins=16, position_range=(-1.8, 1.8),
)  # fmt: skip
# Position and velocity in standard deviations, so 1 m is 0.4 of x and y: the radius of goals. More questions to the
# decoder are cheap, and tell more of each function.
_FRE_MASS = replace(
    _FRE_MAZE, z=SkillSpace("gaussian", 64), rewards=("goal", "linear", "mlp", "field"), goal_radius=0.4, decode=32,
    warmup=12_000, inverse_temperature=10.0,
)  # fmt: skip
# States as they are, as in the paper.
_FRE_ANT = FREConfig(
    z=SkillSpace("gaussian", 64), batch=BatchSpec(size=128, futures=7), position=(0, 1), goal_radius=2.0,
    decode=32, encoder_width=64, warmup=8_000, width=256, depth=2, lr=5e-4, tau=0.005, inverse_temperature=10.0,
    position_bins=32, position_range=(-2.0, 38.0),
)  # fmt: skip
_FRE_QUICK = FREConfig(
    z=SkillSpace("gaussian", 64), batch=BatchSpec(size=128, futures=7), mlp_scale=4.0, encoder_width=64,
    warmup=8_000, width=256, depth=2, lr=5e-4, gamma=0.98, tau=0.005,
)  # fmt: skip
_FRE_CHEETAH = replace(_FRE_QUICK, goal_radius=1.44, inverse_temperature=10.0)
_CONSERVATIVE = FBConfig(
    batch=BatchSpec(size=512), actor_lr=3e-5, max_gradient=1.0, penalty="vc", backward_width=256
)  # fmt: skip

# agent -> name -> preset
PRESETS: dict[str, dict[str, Preset]] = {
    "metra": {
        "half-cheetah-quick": Preset(
            PretrainConfig(
                agent=_CHEETAH_QUICK, env="half_cheetah", steps_per_update=16, steps=600_000, eval_every=50_000
            ),
            "tuned for two CPU cores, docs/results",
            "2 minutes on two CPU cores",
        ),
        "ant-quick": Preset(
            PretrainConfig(
                agent=MetraConfig(width=256, lr=1e-3), env="ant", steps=1_500_000, eval_every=100_000
            ),
            "tuned for two CPU cores, docs/results",
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
            "7 minutes on an H200, docs/device.md",
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
            replace(
                _data(replace(_CHEETAH_QUICK, phi_only=1), "metra", "dmc:cheetah_run", 500_000, 40 / 3),
                normalizer="fit", root_position=True, min_replay=10_000, eval_every=100_000,
            ),
            _QUICK,
            "3 minutes on two CPU cores",
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
    },
    "fb": {
        "fb": Preset(_offline(FBConfig(), "fb"), f"{_CA}, ExORL", _HOURS),
        "fb-maze": Preset(
            _offline(FBConfig(z=SkillSpace("wide_sphere", 100), gamma=0.99), "fb"), f"{_CA}, point-mass maze", _HOURS
        ),
        "vcfb": Preset(_offline(_CONSERVATIVE, "fb"), _ZSRL, _HOURS),
        "mcfb": Preset(_offline(replace(_CONSERVATIVE, penalty="mc"), "fb"), _ZSRL, _HOURS),
        "quick": Preset(_offline(_FB_QUICK, "fb", steps=20_000), _QUICK, _MINUTES),
        "maze-quick": Preset(_offline(_FB_MAZE, "fb", steps=12_000), _QUICK, "a minute on two CPU cores"),
    },
    "sf": {
        "hilp-zsrl": Preset(_offline(_HILP_ZSRL, "sf"), f"{_HILP}, ExORL cheetah", _HOURS),
        "hilp-zsrl-walker": Preset(
            _offline(replace(_HILP_ZSRL, distance_gamma=0.96), "sf"), f"{_HILP}, ExORL walker", _HOURS
        ),
        "hilp-zsrl-quadruped": Preset(
            _offline(replace(_HILP_ZSRL, q_loss=True), "sf"), f"{_HILP}, ExORL quadruped and jaco", _HOURS
        ),
        "hilp-zsrl-jaco-goal": Preset(
            _offline(replace(_HILP_ZSRL, q_loss=True, cumulant="difference", distance_expectile=0.9), "sf"),
            f"{_HILP}, HILP-G on jaco",
            _HOURS,
        ),
        "laplacian": Preset(
            _offline(SFConfig(features="laplacian", q_loss=True, batch=_NO_GOALS), "sf"), _CA, _HOURS
        ),
        "contrastive": Preset(
            _offline(SFConfig(features="contrastive", q_loss=True, batch=_AHEAD), "sf"), _CA, _HOURS
        ),
        "svd": Preset(_offline(SFConfig(features="svd", q_loss=True, batch=_NO_GOALS), "sf"), _CA, _HOURS),
        "inverse": Preset(_offline(SFConfig(features="inverse", q_loss=True, batch=_NO_GOALS), "sf"), _CA, _HOURS),
        "forward": Preset(_offline(SFConfig(features="forward", q_loss=False, batch=_NO_GOALS), "sf"), _HILP, _HOURS),
        "random": Preset(_offline(SFConfig(features="random", q_loss=True, batch=_NO_GOALS), "sf"), _CA, _HOURS),
        "hilp-zsrl-quick": Preset(
            _offline(_HILP_ZSRL_QUICK, "sf", steps=40_000), _QUICK, "15 minutes on two CPU cores"
        ),
        "hilp-zsrl-walker-quick": Preset(
            _offline(_HILP_WALKER_QUICK, "sf", steps=20_000), _QUICK, _MINUTES
        ),
        "laplacian-maze-quick": Preset(
            _offline(_LAPLACIAN_MAZE, "sf", steps=8_000), _QUICK, "a minute on two CPU cores"
        ),
    },
    "hilp": {
        "antmaze-paper": Preset(_offline(HILPConfig(), "hilp"), f"{_HILP}, AntMaze", _HOURS),
        "antmaze-plan-paper": Preset(
            _offline(HILPConfig(plan_recursions=3), "hilp"), f"{_HILP}, AntMaze with planning", _HOURS
        ),
        "kitchen-paper": Preset(_offline(HILPConfig(), "hilp", steps=500_000), f"{_HILP}, Kitchen", _HOURS),
        "maze-quick": Preset(_offline(_HILP_MAZE, "hilp", steps=12_000), _QUICK, "2 minutes on two CPU cores"),
    },
    "fre": {
        "antmaze-paper": Preset(
            _offline(
                FREConfig(position=(0, 1), goal_radius=2.0, position_bins=32, position_range=(0.0, 35.0)), "fre"
            ),
            f"{_FRE}, AntMaze",
            _HOURS,
        ),
        # Goals are near in standard deviations of the data, as the normaliser has them; random networks see the same.
        "exorl-walker-paper": Preset(
            _offline(FREConfig(goal_radius=5.4, warmup=1_000_000), "fre", steps=2_000_000, normalizer="fit"),
            f"{_FRE}, ExORL walker",
            _HOURS,
        ),
        "exorl-cheetah-paper": Preset(
            _offline(FREConfig(goal_radius=1.44, warmup=1_000_000), "fre", steps=2_000_000, normalizer="fit"),
            f"{_FRE}, ExORL cheetah",
            _HOURS,
        ),
        "maze-mass-quick": Preset(
            _offline(_FRE_MASS, "fre", steps=72_000, normalizer="fit"), _QUICK, "25 minutes on one CPU core"
        ),
        "antmaze-quick": Preset(
            _offline(_FRE_ANT, "fre", steps=32_000), _QUICK, "20 minutes on one CPU core"
        ),
        "walker-quick": Preset(
            _offline(replace(_FRE_QUICK, goal_radius=5.4), "fre", steps=28_000, normalizer="fit"), _QUICK, _MINUTES
        ),
        "cheetah-quick": Preset(
            _offline(_FRE_CHEETAH, "fre", steps=28_000, normalizer="fit"), _QUICK, _MINUTES
        ),
        "maze-quick": Preset(
            _offline(_FRE_MAZE, "fre", steps=20_000, normalizer="fit"),
            "for first steps on maze:rooms, x and y as observations",
            "8 minutes on two CPU cores",
        ),
    },
    "rnd": {
        "urlb": Preset(
            _data(RNDConfig(), "rnd", "dmc:walker_walk", 2_000_000, 2),
            "URLB (github.com/rll-research/url_benchmark), with one-step returns",
            _HOURS,
        ),
        "walker-quick": Preset(_data(_RND_QUICK, "rnd", "dmc:walker_walk", 1_000_000, 10), _QUICK, _MINUTES),
        "cheetah-quick": Preset(_data(_RND_QUICK, "rnd", "dmc:cheetah_run", 1_000_000, 10), _QUICK, _MINUTES),
    },
    "uniform": {
        "walker": Preset(
            _data(UniformConfig(), "uniform", "dmc:walker_walk", 1_000_000, steps_per_update=0), _QUICK, "a minute"
        ),
        "cheetah": Preset(
            _data(UniformConfig(), "uniform", "dmc:cheetah_run", 1_000_000, steps_per_update=0), _QUICK, "a minute"
        ),
        **{
            f"maze-{name}": Preset(
                replace(
                    _data(UniformConfig(), "uniform", env, steps, steps_per_update=0), num_envs=10, rollout_steps=200
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
    },
}  # fmt: skip


def learns_from_data(agent: str) -> bool:
    """Whether all that is published of an agent are runs on datasets."""
    configs = [preset.config for preset in PRESETS.get(agent, {}).values()]
    return bool(configs) and all(isinstance(config, OfflineConfig) for config in configs)


def preset(agent: str, name: str) -> RunConfig:
    """The config of a preset. Raises UserError that offers the nearest name."""
    presets = PRESETS.get(agent, {})
    if name not in presets:
        raise unknown(f"preset of agent '{agent}'", name, presets, "urlrl presets")
    return presets[name].config
