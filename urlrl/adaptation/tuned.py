"""What an adaptation leaves: agents of one task, which act by `begin` and `act` as every agent does.

They see the task's observations: those of the pretrained agent, and the task's inputs behind them. `Tuned` is trained
by the loop that pretrains (`urlrl.training.host`), on the task's environment.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from urlrl.acting import begun
from urlrl.adaptation.config import METHODS, AdaptConfig
from urlrl.learners import graphs
from urlrl.learners.ppo import PPO, Rollout
from urlrl.learners.sac import SAC
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
from urlrl.skills.env import Z_SCALE
from urlrl.tasks.task import Task
from urlrl.types import All, Array, BatchSpec, Carry, Each, Graph, Metrics, Op, Skill, SkillNetworks, Transition

NO_SKILL = SkillSpace("none", 0)


@dataclass(frozen=True)
class TunedConfig:
    batch: BatchSpec
    uniform: bool = False  # until the first update act uniformly at random, and not by the learner
    warmup_updates: int = 0  # the first updates are of the critics alone
    z: SkillSpace = NO_SKILL


class Tuned(struct.PyTreeNode):
    """A policy that learns by the task's reward: from a skill's, or from scratch. The one agent whose `update` reads
    `batch.reward`."""

    learner: Any  # a `Learner`, or PPO
    normalizer: Normalizer
    reward_scale: Array  # (): what the learner is shown of a reward of 1
    updates: Array  # (), int32: how many there were
    config: TunedConfig = struct.field(pytree_node=False)
    begin, act = hold_skill()
    abilities = frozenset({"exportable"})
    plan, shared = nothing, ("updates",)

    @classmethod
    def create(cls, config: TunedConfig, learner: Any, normalizer: Normalizer) -> "Tuned":
        # Copies: updates take over the memory, which may be the pretrained agent's.
        learner, normalizer = jax.tree.map(jnp.copy, (learner, normalizer))
        return cls(learner, normalizer, jnp.float32(1), jnp.zeros((), jnp.int32), config)

    def sample_actions(self, obs: Array, z: Array | None, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        del z
        policy = self.learner.actor(self.normalizer(obs))
        if not self.config.uniform or not temperature:
            return policy.sample(key, temperature)
        uniform_key, key = jax.random.split(key)
        action = policy.sample(key, temperature)
        return jnp.where(self.updates == 0, jax.random.uniform(uniform_key, action.shape, minval=-1.0), action)

    def update(self, batch: Transition, key: jax.Array) -> tuple["Tuned", Metrics]:
        x, next_x = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        reward = self.reward_scale * batch.reward
        if self.config.batch.source == "rollout":
            ended = batch.extra["ended"]
            learner, metrics = self.learner.update(Rollout(x, batch.action, reward, batch.discount, next_x, ended), key)
        else:
            learner, metrics = self.learner.update(x, batch.action, reward, batch.discount, next_x, key)
        if self.config.warmup_updates:
            warm = self.updates >= self.config.warmup_updates
            for name in learner.acts_by:
                old, new = getattr(self.learner, name), getattr(learner, name)
                learner = learner.replace(**{name: jax.tree.map(lambda a, b: jnp.where(warm, b, a), old, new)})
        return self.replace(learner=learner, updates=self.updates + 1), metrics

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        del seen
        return SkillNetworks(policy=graphs.policy(self.learner.actor, ("obs",)))


class Skilled(struct.PyTreeNode):
    """The pretrained agent under the skill that was found."""

    agent: Any
    z: Array  # (d,)

    def begin(self, key: jax.Array, n: int, plan: Any, task: Each | All | None = None) -> Carry:
        del task
        return self.agent.begin(key, n, plan, All(Skill(self.z)))

    def act(self, obs: Array, carry: Carry, key: jax.Array, temperature: float = 1.0) -> tuple[jax.Array, Carry]:
        return self.agent.act(known(self.agent, obs), carry, key, temperature)


class Controlled(struct.PyTreeNode):
    """The pretrained agent, and a controller that chooses its skill every `hold` control steps."""

    agent: Any
    controller: Tuned  # its actions stand for skills
    hold: int = struct.field(pytree_node=False)

    def begin(self, key: jax.Array, n: int, plan: Any, task: Each | All | None = None) -> Carry:
        del task
        below = self.agent.begin(key, n, plan, Each(Skill(jnp.zeros((n, self.agent.config.z.dim), jnp.float32))))
        return Carry(below.stored, (jnp.zeros(n, jnp.int32), below))

    def act(self, obs: Array, carry: Carry, key: jax.Array, temperature: float = 1.0) -> tuple[jax.Array, Carry]:
        choose_key, begin_key, act_key = jax.random.split(key, 3)
        clock, below = carry.lane
        skill = self.choose(obs, choose_key, temperature)
        chosen = self.agent.begin(begin_key, clock.shape[0], None, Each(Skill(skill)))
        below = begun(clock % self.hold == 0, chosen, below)
        action, below = self.agent.act(known(self.agent, obs), below, act_key, temperature)
        return action, Carry(below.stored, (clock + 1, below))

    def choose(self, obs: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """Skills (n, d), of the task's observations."""
        return as_skill(self.agent.config.z, self.controller.sample_actions(obs, None, key, temperature))

    def network(self) -> Graph:
        """Of "inputs", which are the task's observations, normalised: what `choose` makes skills of. Skills without a
        fixed length are the output itself."""
        graph, space = graphs.policy(self.controller.learner.actor, ("inputs",)), self.agent.config.z
        if space.kind != "gaussian":
            return graph
        tensors = {"kernel": Z_SCALE * np.eye(space.dim, dtype=np.float32), "bias": np.zeros(space.dim, np.float32)}
        return (*graph, Op("dense", (graph[-1].output,), "scaled", {"units": (space.dim,)}, tensors))


Kept: TypeAlias = Tuned | Skilled | Controlled


def as_skill(space: SkillSpace, action: Array) -> jax.Array:
    """The skills that a controller's actions (*B, d) stand for; a one-hot action is one."""
    if space.kind == "onehot":
        return jnp.asarray(action, jnp.float32)
    return Z_SCALE * jnp.asarray(action) if space.kind == "gaussian" else space.project(action)


def known(agent: Any, obs: Array) -> Array:
    """What the pretrained agent sees of the task's observations."""
    return obs[:, : agent.normalizer.mean.shape[0]]


# How those begin that learn.


def start(
    method: str, agent: Any, z: Array, config: AdaptConfig, encode: Normalizer, action_dim: int, key: jax.Array
) -> Tuned:
    """What learns in a task that it has not seen yet.

    Args:
        agent: the pretrained one.
        z: the skill that fine-tuning begins with, (d,).
        encode: of the task's observations.
        action_dim: of the task's environment.
    """
    obs_dim, space = agent.normalizer.mean.shape[0], agent.config.z
    inputs = encode.mean.shape[0] - obs_dim
    x = jnp.zeros((1, obs_dim + inputs), jnp.float32)
    learn_key, critic_key = jax.random.split(key)
    learner: Any
    match method:
        case "finetune":  # The agent's own learner under z, which sees the task's inputs too and ignores them so far.
            learner = agent.learner(jnp.asarray(z), learn_key).insert_inputs(obs_dim, inputs)
            if config.off_policy.critic == "fresh":
                learner = learner.fresh_critic(critic_key)
        case "scratch":  # One of the same kind and with the same settings that knows nothing.
            own = agent.learner(jnp.zeros(space.dim, jnp.float32), jax.random.key(0))
            learner = type(own).create(own.config, x, jnp.zeros((1, action_dim), jnp.float32), learn_key)
        case _ if space.kind == "onehot":
            learner = PPO.create(config.high_level.ppo, x, jnp.zeros((1, space.dim), bool), learn_key)
        case _:
            learner = SAC.create(config.high_level.sac, x, jnp.zeros((1, space.dim), jnp.float32), learn_key)
    return Tuned.create(tuned_config(method, space, config), learner, encode)


def tuned_config(method: str, space: SkillSpace, config: AdaptConfig) -> TunedConfig:
    """`space` is that of the agent's skills."""
    high, off = config.high_level, config.off_policy
    match method:
        case "finetune":
            most = config.steps // 4 // off.interval
            return TunedConfig(BatchSpec(off.batch), warmup_updates=min(off.warmup_updates, most))
        case "scratch":
            return TunedConfig(BatchSpec(off.batch), uniform=True)
        case _ if space.kind == "onehot":
            return TunedConfig(BatchSpec(high.ppo.batch, timeout_as_terminal=True, source="rollout"))
        case _:
            return TunedConfig(BatchSpec(high.batch, timeout_as_terminal=True), uniform=True)


def blank(method: str, agent: Any, task: Task, config: AdaptConfig, action_dim: int) -> Kept:
    """What a method keeps, with zeros for all that it learns: the structure of what is stored."""
    z = np.zeros(agent.config.z.dim, np.float32)
    keeps = METHODS[method].keeps
    if keeps == "skill":
        return Skilled(agent, z)
    encode = Normalizer.identity(agent.normalizer.mean.shape[0] + len(task.input_names))
    make = partial(start, method, z=z, config=config, encode=encode, action_dim=action_dim)
    shapes = jax.eval_shape(lambda agent, key: make(agent, key=key), agent, jax.random.key(0))
    tuned = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes)
    return Controlled(agent, tuned, task.option_steps) if keeps == "controller" else tuned
