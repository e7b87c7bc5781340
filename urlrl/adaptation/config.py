"""Settings of an adaptation: one budget of environment steps for every method."""

from dataclasses import dataclass
from typing import Literal

from urlrl.config import MAX_REPLAY
from urlrl.errors import UserError, check, check_all, check_choice
from urlrl.learners.model import filled
from urlrl.learners.ppo import PPOConfig
from urlrl.learners.sac import SACConfig

CALLS = 25  # of an environment between two learning phases of motor control; a controller learns after each
DECISIONS = 100_000  # of a controller that are kept to learn from


@dataclass(frozen=True)
class Method:
    """What is known of a method before it begins; `urlrl.adaptation.methods` is what it does."""

    label: str  # in tables and pictures
    color: str  # in pictures
    keeps: Literal["skill", "policy", "controller"]  # what it leaves: a skill of the agent | a policy | one over skills
    settings: tuple[str, ...] = ()  # parts of `AdaptConfig` that it has beside what all share
    pretrained: bool = True  # it starts from the pretrained agent

    @property
    def learns(self) -> bool:
        """In a training loop, into a folder of its own."""
        return self.keeps != "skill"

    @property
    def searches(self) -> bool:
        """It looks for the best skill, before it learns if it does."""
        return "search" in self.settings


METHODS = {
    "zero_shot": Method("zero-shot prompt", "#7b4ab8", "skill"),
    "z_search": Method("search over z", "#d98200", "skill", ("search",)),
    "hierarchical": Method("hierarchical control", "#2266ac", "controller", ("high_level",)),
    "finetune": Method("fine-tuning", "#1a8f5a", "policy", ("search", "off_policy")),
    "scratch": Method("from scratch", "#b3343a", "policy", ("off_policy",), pretrained=False),
}


@dataclass(frozen=True)
class HighLevelConfig:
    """The controller over frozen skills: SAC where skills are continuous, PPO where they are indices."""

    sac: SACConfig = SACConfig(width=128, lr=3e-4, gamma=0.9, alpha=1.0)
    ppo: PPOConfig = PPOConfig(width=128, lr=1e-3, gamma=0.9, rounds=40, batch=64)
    episodes: int = 16  # PPO: episodes per update
    updates: int = 4  # SAC: gradient steps per decision
    batch: int = 256  # SAC: decisions per gradient step
    random: int = 64  # SAC: decisions by random skills before the first update

    def __post_init__(self):
        check_all(self, "episodes", "updates", "batch", low=1, within="high_level.")
        check("high_level.random", self.random, 0, DECISIONS)
        for learner in (self.sac, self.ppo):
            filled(learner)  # Raises where a width or a rate is None: there is no agent to take it from.


@dataclass(frozen=True)
class OffPolicyConfig:
    """SAC on the task's own reward, for fine-tuning and from scratch."""

    interval: int = 8  # environment steps per gradient step
    batch: int = 256  # transitions per gradient step
    replay_capacity: int = 1_000_000  # transitions kept
    random: int = 4_000  # from scratch: steps of uniform actions before the first update, a quarter at most
    warmup: int = 1_000  # fine-tuning: steps by the pretrained actor before the first update, a quarter at most
    warmup_updates: int = 400  # fine-tuning: the first gradient steps, of the critics alone, a quarter at most
    critic: Literal["own", "fresh"] = "own"  # fine-tuning starts from the agent's critics, or from untrained ones

    def __post_init__(self):
        check_all(self, "interval", "batch", low=1, within="off_policy.")
        check("off_policy.replay_capacity", self.replay_capacity, 1, MAX_REPLAY)
        check_all(self, "random", "warmup", "warmup_updates", low=0, within="off_policy.")
        check_choice("off_policy.critic", self.critic, ("own", "fresh"))


@dataclass(frozen=True)
class SearchConfig:
    """Search over skills by their returns."""

    kind: Literal["halving", "cem"] = "halving"
    population: int = 32  # skills of the first round; CEM: of every round
    rounds: int = 5  # CEM; halving goes on until one skill is left
    elites: int = 8  # CEM: the skills that the next round is drawn around
    finetune_share: float = 0.1  # of a fine-tuning's budget: what choosing its skill may take

    def __post_init__(self):
        check_choice("search.kind", self.kind, ("halving", "cem"))
        for name, low in (("population", 2), ("elites", 2), ("rounds", 1)):
            check(f"search.{name}", getattr(self, name), low)
        check("search.finetune_share", self.finetune_share, 0, 0.9)


@dataclass(frozen=True)
class AdaptConfig:
    """How a pretrained agent meets a task. `steps` counts control steps of the environment, search included."""

    steps: int = 200_000  # of each method and seed
    eval_every: int = 10_000  # control steps between evaluations, which are not counted; the end has one too
    eval_episodes: int = 32  # deterministic ones, from the same starts for every method
    num_envs: int = 8  # environments stepped together
    loop: Literal["host", "device"] = "host"  # where it learns: simulators on the host | all of it on the device
    samples: int = 5_120  # of the run's own past: what a zero-shot prompt sees, and whose spread normalises inputs
    high_level: HighLevelConfig = HighLevelConfig()
    off_policy: OffPolicyConfig = OffPolicyConfig()
    search: SearchConfig = SearchConfig()

    def __post_init__(self):
        check_all(self, "steps", "eval_every", "eval_episodes", "num_envs", "samples", low=1)
        check_choice("loop", self.loop, ("host", "device"))
        if self.off_policy.replay_capacity < CALLS * self.num_envs:
            raise UserError(
                f"off_policy.replay_capacity is {self.off_policy.replay_capacity}: expected at least the {CALLS} "
                f"transitions of each of num_envs = {self.num_envs} that are made between two learning phases."
            )
