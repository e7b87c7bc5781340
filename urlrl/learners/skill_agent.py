"""What agents share that are paid for following a skill: SAC on [observation, skill], and a reward made anew for it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from urlrl.errors import UserError, check
from urlrl.learners import graphs
from urlrl.learners.model import check_network
from urlrl.learners.sac import SAC, SACConfig
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
from urlrl.learners.surgery import insert_inputs
from urlrl.types import Array, BatchSpec, Metrics, SkillNetworks, Transition


@dataclass(frozen=True)
class SkillConfig:
    z: SkillSpace = SkillSpace("sphere", 2)  # prior over skills
    batch: BatchSpec = BatchSpec()  # what a gradient step sees
    phi_only: int = 0  # leading entries of the observation that the policy does not see, such as the root's position
    width: int = 1024  # units of both hidden layers, of every network that has no width of its own
    lr: float = 1e-4  # Adam, of all that has no rate of its own
    sac: SACConfig = SACConfig()  # the policy's learner

    def __post_init__(self):
        check_network(self)
        check("phi_only", self.phi_only, 0)

    def policy_example(self, obs: Array) -> jax.Array:
        """(1, in): what the policy sees, as zeros, to make networks with."""
        seen = obs.shape[-1] - self.phi_only
        if seen < 1:
            raise UserError(f"phi_only is {self.phi_only}: expected fewer than the {obs.shape[-1]} of an observation.")
        return jnp.zeros((1, seen + self.z.dim), jnp.float32)


class SkillAgent(ABC):
    """An agent's class derives from this and from a PyTreeNode with these fields. It adds what it learns about skills,
    `_represent`, and what that pays, `_reward`. Both see normalised observations. An update is both, then SAC."""

    sac: Any  # SAC, or what stands in its place
    normalizer: Normalizer
    config: Any  # a SkillConfig

    begin, act = hold_skill()
    plan = nothing
    abilities: frozenset[str] = frozenset({"adaptable", "exportable"})
    shared = ()

    @abstractmethod
    def _represent(self, batch: Transition, key: jax.Array) -> tuple[Any, Metrics]:
        """The agent after a step of all but the policy."""

    @abstractmethod
    def _reward(self, batch: Transition, key: jax.Array) -> jax.Array:
        """(B,)"""

    def update(self, batch: Transition, key: jax.Array) -> tuple[Any, Metrics]:
        """Improve the representation, replace the reward, improve the policy."""
        batch = self._normalized(batch)
        # The policy's learner splits the key in two, which JAX makes the same as to fold in 0 and 1.
        own_key, reward_key = jax.random.fold_in(key, 3), jax.random.fold_in(key, 2)
        agent, metrics = self._represent(batch, own_key)
        sac, sac_metrics = agent._improve_policy(batch, reward_key, key)
        return agent.replace(sac=sac), {**metrics, **sac_metrics}

    def _improve_policy(self, batch: Transition, reward_key: jax.Array, key: jax.Array) -> tuple[Any, Metrics]:
        """The policy's learner after a step on the rewards of now."""
        reward = self._reward(batch, reward_key)
        x, next_x = self._policy_input(batch.obs, batch.z), self._policy_input(batch.next_obs, batch.z)
        sac, metrics = self.sac.update(x, batch.action, reward, batch.discount, next_x, key)
        return sac, {**metrics, "reward/intrinsic": jnp.mean(reward)}

    def intrinsic_reward(self, batch: Transition) -> jax.Array:
        """(B,)"""
        return self._reward(self._normalized(batch), jax.random.key(0))

    def sample_actions(self, obs: Array, z: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature 0 is the mode."""
        return self.sac.actor(self._policy_input(self.normalizer(obs), z)).sample(key, temperature)

    def _normalized(self, batch: Transition) -> Transition:
        return batch._replace(obs=self.normalizer(batch.obs), next_obs=self.normalizer(batch.next_obs))

    def _policy_input(self, obs: Array, z: Array) -> jax.Array:
        return jnp.concatenate([obs[..., self.config.phi_only :], z], axis=-1)

    def learner(self, z: Array, key: jax.Array) -> SAC:
        """SAC on normalised observations whose actor is the policy under z (d,), and its critics the agent's under
        z."""
        del key
        hidden = self.config.phi_only
        learner = self.sac.hold_input(self.normalizer.mean.shape[-1] - hidden, z)
        return learner.insert_inputs(0, hidden) if hidden else learner

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        del seen
        actor = self.sac.actor.replace(params=insert_inputs(self.sac.actor.params, 0, self.config.phi_only))
        return SkillNetworks(policy=graphs.policy(actor, ("obs", "z")))
