"""RND: exploration by random network distillation (Burda et al., 2018), as URLB pretrains with it.

https://arxiv.org/abs/1810.12894, https://arxiv.org/abs/2110.15191

A network g is trained to repeat the outputs of a random one, f, on the states that the agent has seen. Where it
cannot, a state is new:

    e(s) = mean_j (f_j(x) - g_j(x))^2,    x = clip((s - mean) / std, -5, 5)
    r(s) = e(s) / std(e)                                       the running standard deviation, after g's step
    policy: DDPG on r (learners/ddpg.py)

It has no skills, so there is nothing to prompt: it is here to make data that other agents learn from.

Differences from URLB's code (docs/fidelity.md#rnd):
- x is normalised by running statistics of all states so far; there by the batch's own, so that a reward depended on the
  batch it was computed in (and is kept raw for the policy, as there).
- One-step returns instead of three-step ones, and no random actions before the first update.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check
from urlrl.learners.ddpg import DDPG, DDPGConfig
from urlrl.learners.model import Model, check_network, one_row
from urlrl.learners.nets import MLP, orthogonal
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer, RunningMoments
from urlrl.types import Array, BatchSpec, Metrics, Transition


@dataclass(frozen=True)
class RNDConfig:
    z: SkillSpace = SkillSpace("none", 0)  # no skills
    batch: BatchSpec = BatchSpec(size=1024)  # what a gradient step sees
    width: int = 1024  # units of every hidden layer, of every network that has no width of its own
    outputs: int = 512  # of the random network
    lr: float = 1e-4  # Adam, of every network that has no rate of its own
    ddpg: DDPGConfig = DDPGConfig()  # the policy's learner

    def __post_init__(self):
        check_network(self)
        check("outputs", self.outputs, 1)


class RND(struct.PyTreeNode):
    random: Model  # f, never trained
    predictor: Model  # g
    states: RunningMoments  # of observations, (obs,)
    errors: RunningMoments  # of e, ()
    ddpg: DDPG
    normalizer: Normalizer
    config: RNDConfig = struct.field(pytree_node=False)
    Config = RNDConfig

    begin, act = hold_skill()
    plan = nothing
    abilities = frozenset({"adaptable", "offline"})
    shared = ()

    @classmethod
    def create(cls, config: RNDConfig, example: Transition, key: jax.Array) -> "RND":
        """`example` is one transition or a batch; only its shapes matter."""
        random_key, predictor_key, ddpg_key = jax.random.split(key, 3)
        obs, action = one_row(example)
        module = MLP(config.outputs, config.width, kernel_init=orthogonal)
        return cls(
            random=Model.create(module, config.lr, random_key, obs),
            predictor=Model.create(module, config.lr, predictor_key, obs),
            states=RunningMoments.create((obs.shape[-1],)),
            errors=RunningMoments.create(()),
            ddpg=DDPG.create(config.ddpg, obs, action, ddpg_key, config),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    def sample_actions(self, obs: Array, z: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature 0 is the mode."""
        del z
        return self.ddpg.actor(self.normalizer(obs)).sample(key, temperature)

    def intrinsic_reward(self, batch: Transition) -> jax.Array:
        """r of the states that the batch starts from, (B,)."""
        return self._error(batch.obs, None) / (self.errors.std + 1e-8)

    def update(self, batch: Transition, key: jax.Array) -> tuple["RND", Metrics]:
        """Learn what these states look like, see how new they still are, improve the policy."""
        agent = self.replace(states=self.states.seen(batch.obs))

        def loss(params):
            return jnp.mean(agent._error(batch.obs, params)), None

        predictor, predictor_loss, _ = self.predictor.minimise(loss)
        agent = agent.replace(predictor=predictor)
        agent = agent.replace(errors=agent.errors.seen(agent._error(batch.obs, None)))
        reward = agent.intrinsic_reward(batch)
        x, next_x = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        ddpg, metrics = self.ddpg.update(x, batch.action, reward, batch.discount, next_x, key)
        metrics |= {"rnd/loss": predictor_loss, "reward/intrinsic": jnp.mean(reward)}
        return agent.replace(ddpg=ddpg), metrics

    def _error(self, obs: Array, params) -> jax.Array:
        """e, (B,)."""
        x = jnp.clip(self.states.normalise(obs), -5, 5)
        return jnp.mean((self.random(x) - self.predictor(x, params=params)) ** 2, axis=-1)

    def learner(self, z: Array, key: jax.Array) -> DDPG:
        """DDPG as it is: what URLB fine-tunes."""
        del z, key
        return self.ddpg
