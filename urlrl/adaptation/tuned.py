"""What an adaptation leaves: agents of one task, which act by `begin` and `act` as every agent does.

They see the task's observations: those of the pretrained agent, and the task's features behind them. A policy is kept
without its optimiser and critics: it can act, and is not trained further.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from urlrl.acting import begun
from urlrl.adaptation.config import AdaptConfig, HighLevelConfig
from urlrl.envs.tasks import Task
from urlrl.learners.latents import SkillSpace
from urlrl.learners.nets import Model, Normalizer
from urlrl.learners.ppo import PPO
from urlrl.learners.sac import SAC
from urlrl.skills.env import Z_SCALE
from urlrl.types import All, Array, Carry, Each, Skill


class Tuned(struct.PyTreeNode):
    """A policy that was learned by the task's reward: from a skill's, or from scratch."""

    actor: Model  # of what `encode` makes of observations
    encode: Normalizer

    def begin(self, key: jax.Array, n: int, plan: Any, task: Each | All | None = None) -> Carry:
        del key, plan, task
        return Carry({"z": jnp.zeros((n, 0), jnp.float32)})

    def act(self, obs: Array, carry: Carry, key: jax.Array, temperature: float = 1.0) -> tuple[jax.Array, Carry]:
        return self.actor(self.encode(obs)).sample(key, temperature), carry


class Skilled(struct.PyTreeNode):
    """The pretrained agent under the skill that was found."""

    agent: Any
    z: Array  # (d,)

    def begin(self, key: jax.Array, n: int, plan: Any, task: Each | All | None = None) -> Carry:
        del task
        return self.agent.begin(key, n, plan, All(Skill(self.z)))

    def act(self, obs: Array, carry: Carry, key: jax.Array, temperature: float = 1.0) -> tuple[jax.Array, Carry]:
        return self.agent.act(_known(self.agent, obs), carry, key, temperature)


class Controlled(struct.PyTreeNode):
    """The pretrained agent, and a controller that chooses its skill every `hold` control steps."""

    agent: Any
    actor: Model  # of what `encode` makes of observations; its actions stand for skills
    encode: Normalizer
    hold: int = struct.field(pytree_node=False)

    def begin(self, key: jax.Array, n: int, plan: Any, task: Each | All | None = None) -> Carry:
        del task
        below = self.agent.begin(key, n, plan, Each(Skill(jnp.zeros((n, self.agent.config.z.dim), jnp.float32))))
        return Carry(below.stored, (jnp.zeros(n, jnp.int32), below))

    def act(self, obs: Array, carry: Carry, key: jax.Array, temperature: float = 1.0) -> tuple[jax.Array, Carry]:
        choose_key, begin_key, act_key = jax.random.split(key, 3)
        clock, below = carry.lane
        action = self.actor(self.encode(obs)).sample(choose_key, temperature)
        skill = as_skill(self.agent.config.z, action)
        chosen = self.agent.begin(begin_key, clock.shape[0], None, Each(Skill(skill)))
        below = begun(clock % self.hold == 0, chosen, below)
        action, below = self.agent.act(_known(self.agent, obs), below, act_key, temperature)
        return action, Carry(below.stored, (clock + 1, below))


Kept: TypeAlias = Tuned | Skilled | Controlled


def as_skill(space: SkillSpace, action: Array) -> Array:
    """The skills that a controller's actions (*B, d) stand for; a one-hot action is one."""
    if space.kind == "onehot":
        return action
    return Z_SCALE * action if space.kind == "gaussian" else space.project(action)


def _known(agent: Any, obs: Array) -> Array:
    """What the pretrained agent sees of the task's observations."""
    return obs[:, : agent.normalizer.mean.shape[0]]


# How learners begin.


def tuned_learner(agent: Any, z: Array, features: int, key: jax.Array) -> Any:
    """The agent's own learner under z, which sees the task's features too and ignores them so far."""
    return agent.learner(z, key).insert_inputs(agent.normalizer.mean.shape[0], features)


def untrained_learner(agent: Any, features: int, action_dim: int, key: jax.Array) -> Any:
    """A learner of the same kind and with the same settings that knows nothing."""
    any_z = jnp.zeros(agent.config.z.dim, jnp.float32)
    learner = agent.learner(any_z, jax.random.key(0))
    x = jnp.zeros((1, agent.normalizer.mean.shape[0] + features), jnp.float32)
    return type(learner).create(learner.config, x, jnp.zeros((1, action_dim), jnp.float32), key)


def controller(config: HighLevelConfig, agent: Any, features: int, key: jax.Array) -> Any:
    """An untrained controller over the agent's skills: PPO where they are indices, else SAC."""
    space = agent.config.z
    x = jnp.zeros((1, agent.normalizer.mean.shape[0] + features), jnp.float32)
    if space.kind == "onehot":
        return PPO.create(config.ppo, x, jnp.zeros((1, space.dim), bool), key)
    return SAC.create(config.sac, x, jnp.zeros((1, space.dim), jnp.float32), key)


def without_optimiser(learner: Any) -> Model:
    return learner.actor.replace(opt_state=None)


def blank(method: str, agent: Any, task: Task, config: AdaptConfig, action_dim: int) -> Kept:
    """What a method keeps, with zeros for all that it learns: the structure of what is stored."""
    features, obs_dim = len(task.feature_names), agent.normalizer.mean.shape[0]

    def make(agent: Any, key: jax.Array) -> Any:
        z = jnp.zeros(agent.config.z.dim, jnp.float32)
        match method:
            case "finetune":
                return tuned_learner(agent, z, features, key)
            case "scratch":
                return untrained_learner(agent, features, action_dim, key)
            case _:
                return controller(config.high_level, agent, features, key)

    if method in ("zero_shot", "z_search"):
        return Skilled(agent, np.zeros(agent.config.z.dim, np.float32))
    shapes = without_optimiser(jax.eval_shape(make, agent, jax.random.key(0)))
    actor = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes)
    encode = Normalizer.identity(obs_dim + features)
    return Controlled(agent, actor, encode, task.option_steps) if method == "hierarchical" else Tuned(actor, encode)
