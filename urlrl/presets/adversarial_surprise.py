"""Settings of adversarial surprise."""

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

PRESETS = {
    "block-quick": Preset(
        PretrainConfig(
            agent=_BLOCK, agent_name="adversarial_surprise", env="block:line18", loop="device", num_envs=16,
            rollout_steps=128, steps=160_000, replay_capacity=4_096, keep_data="window", eval_every=0,
        ),
        QUICK,
        "2 minutes on two CPU cores, 10 seeds at once",
    ),
}  # fmt: skip
