"""Two loops that improve a controller on a reward: off-policy with a replay, on-policy with whole episodes.

They do not know what an action is: a motor command on a task's environment, or a skill on a `SkillVectorEnv`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.data.replay import Replay
from urlrl.errors import TrainingDiverged
from urlrl.evaluation.rollout import Policy
from urlrl.learners.nets import Normalizer
from urlrl.learners.ppo import PPO, Rollout
from urlrl.types import BatchSpec

Observe = Callable[[int, Any], None]  # (control steps so far, learner): called between learning phases


@jax.jit
def _sample(actor, encode, obs, key, step):
    return actor(encode(obs)).sample(jax.random.fold_in(key, step))


@jax.jit
def _mode(actor, encode, obs):
    return actor(encode(obs)).mode()


@partial(jax.jit, static_argnums=3, donate_argnums=0)
def _learn(learner, batches, key, keep_actor):
    """One update per stacked batch; returns the learner and whether all of it is finite."""

    def body(learner, inputs):
        batch, update_key = inputs
        new, _ = learner.update(batch.obs, batch.action, batch.reward, batch.discount, batch.next_obs, update_key)
        kept = {name: getattr(learner, name) for name in ("actor", "alpha") if keep_actor and hasattr(learner, name)}
        return new.replace(**kept), None

    learner, _ = jax.lax.scan(body, learner, (batches, jax.random.split(key, batches.reward.shape[0])))
    return learner, _finite(learner)


@partial(jax.jit, donate_argnums=0)
def _improve(ppo, rollout, key):
    ppo, _ = ppo.update(rollout, key)
    return ppo, _finite(ppo)


def _finite(tree: Any) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def mode_of(learner: Any, encode: Normalizer) -> Policy:
    """The learner's best action for raw observations (n, obs)."""
    return Policy(lambda key, n: None, lambda obs, carry, key, t: (_mode(learner.actor, encode, obs), carry))


@dataclass(frozen=True)
class Plan:
    """The rhythm of an off-policy loop. A call of the environment is one decision of each of its lanes."""

    calls: int  # of the environment between two learning phases
    updates: int  # gradient steps per learning phase
    batch: BatchSpec
    first: int  # control steps before the first learning phase
    uniform: bool  # until then act uniformly at random, and not by the learner
    critic_updates: int = 0  # gradient steps of the critics alone, in the first learning phase
    replay_capacity: int = 1_000_000
    reward_scale: float = 1.0  # what the learner is shown of a reward of 1


def off_policy(
    env: Any,
    learner: Any,
    encode: Normalizer,
    plan: Plan,
    start: int,
    steps: int,
    key: jax.Array,
    seed: int,
    observe: Observe,
) -> None:
    """Improve `learner` on `env` while control steps last: from `start`, already spent, to `steps`.

    Raises:
        TrainingDiverged: the learner is no longer finite.
    """  # fmt: skip
    act_key, sample_key, update_key, uniform_key = jax.random.split(key, 4)
    width, act_dim, n = env.single_observation_space.shape[0], env.single_action_space.shape[0], env.num_envs
    rng = np.random.default_rng(np.asarray(jax.random.key_data(uniform_key)))
    replay = Replay(plan.replay_capacity, _fields(width, act_dim))
    learner = jax.tree.map(jnp.copy, learner)  # Updates take over its memory, which may be an agent's.
    base = env.control_steps - start
    obs, _ = env.reset(seed=seed)
    calls, phases = 0, 0
    while env.control_steps - base < steps:
        learning = env.control_steps - base >= plan.first
        for _ in range(plan.calls):
            if plan.uniform and not learning:
                action = rng.uniform(-1, 1, (n, act_dim)).astype(np.float32)
            else:
                action = np.asarray(_sample(learner.actor, encode, obs.astype(np.float32), act_key, np.int32(calls)))
            next_obs, reward, terminated, truncated, _ = env.step(action)
            row = {"obs": obs, "action": action, "terminated": terminated, "truncated": truncated, "next_obs": next_obs}
            replay.add({**row, "reward": plan.reward_scale * reward, "z": np.zeros((n, 0))})
            obs, calls, ended = next_obs, calls + 1, terminated | truncated
            if ended.any():
                obs, _ = env.reset(options={"reset_mask": ended})
        if learning:
            warm = plan.critic_updates if not phases else 0
            for count, keep_actor in ((warm, True), (plan.updates, False)):
                if count:
                    phase = np.int32(2 * phases + keep_actor)
                    batches = replay.sample(jax.random.fold_in(sample_key, phase), count, plan.batch)
                    batches = batches._replace(obs=encode(batches.obs), next_obs=encode(batches.next_obs))
                    learner, finite = _learn(learner, batches, jax.random.fold_in(update_key, phase), keep_actor)
                    _check_finite(finite, env.control_steps - base)
            phases += 1
        observe(env.control_steps - base, learner)


def on_policy(
    env: Any, ppo: PPO, encode: Normalizer, episodes: int, steps: int, key: jax.Array, seed: int, observe: Observe
) -> None:
    """Improve `ppo` on `env`, whose lanes end their episodes together, by rollouts of `episodes` whole episodes.

    Raises:
        TrainingDiverged: the learner is no longer finite.
    """
    act_key, update_key = jax.random.split(key)
    calls, phases = 0, 0
    env.reset(seed=seed)
    while env.control_steps < steps:
        rows, ends = [], 0
        while ends < episodes:
            obs, _ = env.reset(options={"reset_mask": np.ones(env.num_envs, bool)})
            ended = np.zeros(env.num_envs, bool)
            while not ended.all():
                x = obs.astype(np.float32)
                action = np.asarray(_sample(ppo.actor, encode, x, act_key, np.int32(calls)))
                obs, reward, terminated, truncated, _ = env.step(action)
                ended, calls = terminated | truncated, calls + 1
                rows.append((x, action, reward.astype(np.float32), np.float32(~ended), ended, obs.astype(np.float32)))
            ends += env.num_envs
        x, action, reward, discount, ended, next_x = (np.stack(column) for column in zip(*rows))
        rollout = Rollout(x, action, reward, discount, next_x, ended)
        rollout = rollout._replace(x=encode(rollout.x), next_x=encode(rollout.next_x))
        ppo, finite = _improve(ppo, rollout, jax.random.fold_in(update_key, np.int32(phases)))
        _check_finite(finite, env.control_steps)
        phases += 1
        observe(env.control_steps, ppo)


def _fields(width: int, act_dim: int) -> dict:
    f32, flag = np.dtype(np.float32), np.dtype(np.bool_)
    shapes = {"obs": (width,), "action": (act_dim,), "reward": (), "next_obs": (width,), "z": (0,)}
    return {name: (shape, f32) for name, shape in shapes.items()} | {
        name: ((), flag) for name in ("terminated", "truncated")
    }


def _check_finite(finite: Any, step: int) -> None:
    if not finite:
        raise TrainingDiverged(f"Adaptation diverged at step {step}: a parameter is not finite; expected finite ones.")
