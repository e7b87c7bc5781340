"""Settings of an adaptation: one budget of environment steps for every method."""

from dataclasses import dataclass
from typing import Literal

from urlrl.errors import UserError, check, check_choice
from urlrl.learners.ppo import PPOConfig
from urlrl.learners.sac import SACConfig

METHODS = ("zero_shot", "z_search", "hierarchical", "finetune", "scratch")


@dataclass(frozen=True)
class HighLevelConfig:
    """The controller over frozen skills: SAC where skills are continuous, PPO where they are indices."""

    sac: SACConfig = SACConfig(width=128, lr=3e-4, alpha=0.1)
    ppo: PPOConfig = PPOConfig(width=128, lr=3e-4, rounds=40, batch=64)
    episodes: int = 16  # PPO: episodes per update
    updates: int = 2  # SAC: gradient steps per decision
    batch: int = 128  # SAC: decisions per gradient step
    random: int = 64  # SAC: decisions by random skills before the first update


@dataclass(frozen=True)
class OffPolicyConfig:
    """SAC on the task's own reward, for fine-tuning and from scratch."""

    interval: int = 8  # environment steps per gradient step
    batch: int = 256  # transitions per gradient step
    replay_capacity: int = 1_000_000  # transitions kept
    random: int = 4_000  # from scratch: steps of uniform actions before the first update
    warmup: int = 4_000  # fine-tuning: steps by the pretrained actor before the first update
    warmup_updates: int = 1_000  # fine-tuning: gradient steps of the critics alone, then
    critic: Literal["own", "fresh"] = "own"  # fine-tuning starts from the agent's critics, or from untrained ones

    def __post_init__(self):
        check_choice("critic", self.critic, ("own", "fresh"))


@dataclass(frozen=True)
class SearchConfig:
    """Search over skills by their returns."""

    kind: Literal["halving", "cem"] = "halving"
    population: int = 32  # skills of the first round; CEM: of every round
    rounds: int = 5  # CEM; halving goes on until one skill is left
    elites: int = 8  # CEM: the skills that the next round is drawn around
    finetune_share: float = 0.1  # of a fine-tuning's budget: what choosing its skill may take

    def __post_init__(self):
        check_choice("kind", self.kind, ("halving", "cem"))
        for name in ("population", "elites"):
            check(name, getattr(self, name), 2)
        check("finetune_share", self.finetune_share, 0, 1)


@dataclass(frozen=True)
class AdaptConfig:
    """How a pretrained agent meets a task. `steps` counts control steps of the environment, search included."""

    steps: int = 200_000  # of each method and seed
    eval_every: int = 10_000  # control steps between evaluations, which are not counted
    eval_episodes: int = 32  # deterministic ones, from the same starts for every method
    num_envs: int = 8  # environments stepped together
    samples: int = 5_120  # labelled transitions of the run's own data that a zero-shot prompt may see
    high_level: HighLevelConfig = HighLevelConfig()
    off_policy: OffPolicyConfig = OffPolicyConfig()
    search: SearchConfig = SearchConfig()

    def __post_init__(self):
        for name in ("steps", "eval_every", "eval_episodes", "num_envs", "samples"):
            check(name, getattr(self, name), 1)
        if self.eval_every > self.steps:
            raise UserError(f"eval_every is {self.eval_every}: expected at most steps = {self.steps}.")
