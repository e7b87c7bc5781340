"""DIAYN: diversity is all you need (Eysenbach et al., 2019).

https://arxiv.org/abs/1802.06070

Skills are paid for being told apart by the states that they reach:

    reward         r = log q(z|s') - log p(z)
    discriminator  max  mean[ log q(z|s') ]             q: a softmax over indices, or N(mu(s'), diag sigma(s')^2)
    policy         SAC on r, recomputed with the new discriminator (learners/sac.py)

A goal g is prompted by what the discriminator takes it for: the likeliest index, or a skill along mu(g). For a reward,
skills are tried (`urlrl adapt --method z_search`).

METRA's code leaves out log p(z) (`prior=False`), which makes rewards of indices negative everywhere. The paper, and
CSF's code, have it (docs/fidelity.md#diayn).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check_choice
from urlrl.learners import graphs
from urlrl.learners.distributions import Gaussian
from urlrl.learners.latent_tasks import Along
from urlrl.learners.model import Model, one_row
from urlrl.learners.nets import MLP, GaussianNet
from urlrl.learners.sac import SAC
from urlrl.learners.skill_agent import SkillAgent, SkillConfig
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.types import Array, GoalPrompt, Metrics, Prompt, Rule, SkillNetworks, Transition, check_prompt


@dataclass(frozen=True)
class DIAYNConfig(SkillConfig):
    z: SkillSpace = SkillSpace("onehot", 16)  # prior over skills: onehot or gaussian
    prior: bool = True  # whether the reward has - log p(z)

    def __post_init__(self):
        super().__post_init__()
        check_choice("z.kind", self.z.kind, ("onehot", "gaussian"))


class DIAYN(SkillAgent, struct.PyTreeNode):
    discriminator: Model
    sac: SAC
    normalizer: Normalizer
    config: DIAYNConfig = struct.field(pytree_node=False)
    Config = DIAYNConfig

    abilities = SkillAgent.abilities | {"told"}
    prompts = (GoalPrompt,)

    @classmethod
    def create(cls, config: DIAYNConfig, example: Transition, key: jax.Array) -> "DIAYN":
        """`example` is one transition or a batch; only its shapes matter."""
        own_key, sac_key = jax.random.split(key)
        obs, action = one_row(example)
        net = (MLP if config.z.kind == "onehot" else GaussianNet)(config.z.dim, config.width)
        return cls(
            discriminator=Model.create(net, config.lr, own_key, obs),
            sac=SAC.create(config.sac, config.policy_example(obs), action, sac_key, config),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    def _represent(self, batch: Transition, key: jax.Array) -> tuple["DIAYN", Metrics]:
        """A step of the discriminator; observations are normalised."""
        del key

        def loss(params):
            return -jnp.mean(self._log_q(batch, params)), ()

        discriminator, loss_value, _ = self.discriminator.minimise(loss)
        return self.replace(discriminator=discriminator), {"discriminator/loss": loss_value}

    def _log_q(self, batch: Transition, params=None) -> jax.Array:
        """log q(z|s') of normalised observations, (B,)."""
        told = self.discriminator(batch.next_obs, params=params)
        if self.config.z.kind == "gaussian":
            return told.log_prob(batch.z)
        return jnp.sum(jax.nn.log_softmax(told) * batch.z, axis=-1)

    def _reward(self, batch: Transition, key: jax.Array) -> jax.Array:
        """r of normalised observations, (B,)."""
        del key
        return self._log_q(batch) - self._log_prior(batch.z)

    def _log_prior(self, z: Array) -> jax.Array:
        """log p(z), (B,)."""
        if not self.config.prior:
            return jnp.zeros(z.shape[:-1])
        if self.config.z.kind == "gaussian":
            return Gaussian(jnp.zeros_like(z), jnp.zeros_like(z)).log_prob(z)
        return jnp.full(z.shape[:-1], -jnp.log(self.config.z.dim))

    def read(self, prompt: Prompt, seen: Transition, key: jax.Array) -> Along:
        """The skill that the discriminator takes a goal for."""
        del seen, key
        check_prompt(self, prompt)
        assert isinstance(prompt, GoalPrompt)
        told = self.discriminator(self.normalizer(prompt.goal))
        return Along(self.config.z.project(told.mean if self.config.z.kind == "gaussian" else told))

    def aim(self, task: Along, obs: Array) -> jax.Array:
        """The same skill at each of these states, (*B, d)."""
        return jnp.broadcast_to(task.z, (*obs.shape[:-1], task.z.shape[-1]))

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        module, params = self.discriminator.module, self.discriminator.params
        if isinstance(module, GaussianNet):
            module, params = MLP(module.out, module.width), params["MLP_0"]  # of the mean
        features = graphs.features(module, params)
        return super().skill_networks(seen)._replace(features=features, goal=Rule("features"))
