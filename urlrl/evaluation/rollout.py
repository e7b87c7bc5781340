"""Episodes of a policy, side by side."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from urlrl.acting import Flat, act, begin_all
from urlrl.streams import env_seed, stream
from urlrl.types import All, Carry, Each, EnvSpec, PlayEnv, Skill, Trajectory, Transition

DEFAULT_STEPS = 200  # length of an episode that has no time limit
STILL = "standing still"  # a baseline that is known without an episode
BEGIN = np.int32(-1)  # the number of the step by whose key episodes begin


class Policy(NamedTuple):
    """Whatever acts, as an agent does in training: it begins, and then goes on from what it remembers."""

    begin: Callable[[jax.Array, int], Any]  # key, number of lanes -> carry
    act: Callable[[np.ndarray, Any, jax.Array, np.int32], tuple[Any, Any]]  # obs, carry, key, step -> action, carry


@partial(jax.jit, static_argnums=(0, 1))
def _uniform(onehot, shape, key, t):
    key = jax.random.fold_in(key, t)
    if onehot:
        return jax.nn.one_hot(jax.random.randint(key, shape[:1], 0, shape[1]), shape[1], dtype=bool)
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def acting(agent: Any, task: Each | All | None = None, *, plan: Any = None, temperature: float = 0.0) -> Policy:
    """The agent itself, by the pair of functions that it acts by in training.

    Args:
        task: what it is told: a `Skill`, or what `read` made of a prompt. None: it chooses as in training.
        plan: what it may choose from then; see `Agent.plan`.
        temperature: 0 is the mode of each action.
    """

    flat = Flat(agent)
    return Policy(
        begin=lambda key, n: begin_all(flat, n, key, BEGIN, plan, task),
        act=lambda obs, carry, key, t: act(flat, obs, carry, key, t, temperature=temperature),
    )


def follow(agent: Any, z: Any, *, temperature: float = 0.0) -> Policy:
    """Each lane keeps its skill, z (n, d)."""
    return acting(agent, Each(Skill(z)), temperature=temperature)


def uniform(spec: EnvSpec) -> Policy:
    """The random policy: actions uniform in [-1, 1], or any choice; no skill."""
    return Policy(
        begin=lambda key, n: Carry({"z": np.zeros((n, 0), np.float32)}),
        act=lambda obs, carry, key, t: (_uniform(spec.action == "onehot", (len(obs), spec.action_dim), key, t), carry),
    )


def rollout(env: PlayEnv, policy: Policy, key: jax.Array, seed: int, num_steps: int) -> Trajectory:
    """One episode per lane from a fresh reset with `seed`, at most `num_steps` long. Rows after an end are masked."""
    n = env.num_envs
    obs, _ = env.reset(seed=seed)
    carry = policy.begin(key, n)
    alive = np.ones(n, bool)
    records: list[tuple] = []
    position, physics = [env.position()], [env.physics()]
    for t in range(num_steps):
        action, carry = policy.act(obs.astype(np.float32), carry, key, np.int32(t))
        action = np.asarray(action)
        stored = {name: np.asarray(column) for name, column in carry.stored.items()}
        next_obs, reward, terminated, truncated, _ = env.step(action)
        records.append((obs, action, reward, 1.0 - terminated, next_obs, stored, alive))
        position.append(env.position())
        physics.append(env.physics())
        ended = terminated | truncated
        alive = alive & ~ended
        if not alive.any():
            break
        if ended.any():  # A lane that is done keeps stepping, masked, so that the others can go on.
            next_obs, _ = env.reset(options={"reset_mask": ended})
        obs = next_obs
    *columns, kept, masks = zip(*records)
    obs, action, reward, discount, next_obs, mask = map(np.stack, (*columns, masks))
    extra = {name: np.stack([row[name] for row in kept]) for name in kept[0]}
    z = extra.pop("z")
    return Trajectory(
        steps=Transition(obs, action, reward, discount, next_obs, z, extra=extra or None),
        mask=mask,
        position=np.stack(position) if env.env_spec.position else None,
        physics=np.stack(physics) if env.env_spec.physics else None,
    )


def play(env: PlayEnv, agent: Any, task: Any, seed: int) -> Trajectory:
    """An episode of a task, as `agent.read` returns it, in every lane: deterministic, re-aimed at every step. The task
    is one for all lanes, as it may be too large to have a copy in each."""
    return _episodes(env, acting(agent, All(task)), stream(seed, "prompt"), seed)


def play_random(env: PlayEnv, seed: int) -> Trajectory:
    """Episodes of the random policy, from the starts of `play`."""
    return _episodes(env, uniform(env.env_spec), stream(seed, "prompt, random"), seed)


def play_zero(env: PlayEnv, seed: int) -> Trajectory:
    """Episodes of action zero, from the starts of `play`."""
    spec = env.env_spec
    zero = Policy(uniform(spec).begin, lambda obs, carry, key, t: (np.zeros((len(obs), spec.action_dim)), carry))
    return _episodes(env, zero, stream(seed, "prompt"), seed)  # The key is not used.


def starts(env: PlayEnv, seed: int) -> np.ndarray:
    """Where the episodes of `play` start: physics rows (n, physics)."""
    env.reset(seed=env_seed(seed, "prompt"))
    return env.physics()


def _episodes(env: PlayEnv, policy: Policy, key: jax.Array, seed: int) -> Trajectory:
    return rollout(env, policy, key, env_seed(seed, "prompt"), env.env_spec.episode_steps or DEFAULT_STEPS)
