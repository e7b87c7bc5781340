"""Settings of adversarial surprise."""

from dataclasses import replace

from urlrl.agents.adversarial_surprise import AdversarialSurpriseConfig
from urlrl.config import PretrainConfig
from urlrl.learners.ppo import PPOConfig
from urlrl.presets.common import QUICK, Preset

_BLOCK = AdversarialSurpriseConfig(
    ppo=PPOConfig(width=64, lr=1e-3, epochs=4, batch=128, value_target="gae", max_grad_norm=0.5, entropy_coef=0.02),
    density="categorical",
    turns=32,
    explore_steps=4,
    control_steps=4,
    grace=0.0,
    next_turn=0.0,
)

_ROOMS = replace(
    _BLOCK, symbols=12, turns=16, explore_steps=8, control_steps=8, grace=0.5, ppo=replace(_BLOCK.ppo, batch=256)
)  # fmt: skip
_TV = replace(
    _BLOCK, density="kernel", turns=8, explore_steps=25, control_steps=25,
    ppo=replace(_BLOCK.ppo, batch=400, entropy_coef=0.005),
)  # fmt: skip
_FIRST = "for first steps; nothing was measured with it"


PRESETS = {
    "block-quick": Preset(
        PretrainConfig(
            agent=_BLOCK, agent_name="adversarial_surprise", env="block:line18", loop="device", num_envs=16,
            rollout_steps=128, steps=160_000, replay_capacity=4_096, keep_data="window", eval_every=0,
        ),
        QUICK,
        "2 minutes on two CPU cores, 10 seeds at once",
    ),
    "rooms-quick": Preset(
        PretrainConfig(
            agent=_ROOMS, agent_name="adversarial_surprise", env="rooms:noisy", loop="device", num_envs=32,
            rollout_steps=128, steps=1_000_000, replay_capacity=8_192, keep_data="window", eval_every=0,
        ),
        _FIRST,
        "3 minutes on two CPU cores",
    ),
    "tv-quick": Preset(
        PretrainConfig(
            agent=_TV, agent_name="adversarial_surprise", env="tv:rooms", loop="device", num_envs=32,
            rollout_steps=200, steps=1_000_000, replay_capacity=12_800, keep_data="window", eval_every=0,
        ),
        _FIRST,
        "5 minutes on two CPU cores",
    ),
}  # fmt: skip
