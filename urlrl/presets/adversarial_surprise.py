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


def _quick(agent: AdversarialSurpriseConfig, env: str, num_envs: int, steps: int) -> PretrainConfig:
    """A run of whole episodes, two of which stay in the replay."""
    rows = num_envs * agent.episode_steps
    return PretrainConfig(
        agent=agent, agent_name="adversarial_surprise", env=env, loop="device", num_envs=num_envs, steps=steps,
        rollout_steps=agent.episode_steps, replay_capacity=2 * rows, keep_data="window", eval_every=0,
    )  # fmt: skip


PRESETS = {
    "block-quick": Preset(
        _quick(_BLOCK, "block:line18", 16, 160_000), QUICK, "2 minutes on two CPU cores, 10 seeds at once"
    ),
    "rooms-quick": Preset(_quick(_ROOMS, "rooms:noisy", 32, 1_000_000), _FIRST, "minutes on two CPU cores, estimated"),
    "tv-quick": Preset(_quick(_TV, "tv:rooms", 32, 1_000_000), _FIRST, "minutes on two CPU cores, estimated"),
}
