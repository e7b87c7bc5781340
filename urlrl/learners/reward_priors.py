"""Reward functions to learn from where nobody gives any: FRE's three families (https://arxiv.org/abs/2402.17135), and
two of ours.

A prior is one function `prior(key, states) -> Reward`: it draws one reward function. `states` (K, obs) are those that
the function will be told by: a later part of an episode from states[0] on, then states from anywhere, so a goal among
them is sometimes near. Rewards are in [-1, 1]. It is traced and batched by vmap, so it is written in jax.numpy. Your
own, an importable "module:function", stands beside the names of `PRIORS` in an agent's config:

    def tall(key, states):                      # reward heights above one that is drawn
        height = jax.random.uniform(key, minval=0.5, maxval=1.5)
        return Reward(lambda s: jnp.where(s[..., 14] > height, 1.0, 0.0))

| name   | drawn                                          | reward                                | ends          |
|--------|------------------------------------------------|---------------------------------------|---------------|
| goal   | g of `states`, rather near than far in time    | 0 where |s - g| < radius, else -1     | at the goal   |
| near   | the same g; ours: so most of our tasks pay     | 1 where |s - g| < radius, else 0      | never         |
| linear | few weights c in (-1, 1), at least one; a coin | clip(c^T s, 0 or -1, 1)               | never         |
| mlp    | a network of 32 tanh units                     | clip(net(s), -1, 1)                   | never         |
| field  | smooth b, c of the position; ours: what pays   | clip(b + c^T s, -1, 1), where b or c  | never         |
|        | depends on where, as on a path                 | may be 0, and c is of the position    |               |

States are as the agent's networks see them: in standard deviations of the data, if its run has `normalizer` fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.errors import UserError, unknown
from urlrl.loading import load_object
from urlrl.types import Array

UNITS = 32  # of a random network
KEPT = 0.1  # chance of a linear weight
FIELD_LENGTHS = (0.4, 1.6)  # in units of the position, from which to which a field's places differ
GOAL_SHARES = (0.2, 0.5, 0.3)  # chances that a goal is the state itself, a later one, one from anywhere


class Reward(NamedTuple):
    """One reward function."""

    of: Callable[[jax.Array], jax.Array]  # states (*B, obs) -> (*B,), in [-1, 1]
    ends: bool = False  # the future counts nothing once the reward is 0
    special: Any = None  # (obs,): a state that the decoder should be asked about, or None


@dataclass(frozen=True)
class States:
    """What the families need to know of states."""

    futures: int = 7  # how many of the states that tell a reward follow the first in its episode
    position: tuple[int, ...] = ()  # indices of where the body is: goals are places, linear rewards are of the rest
    goal_radius: float = 1.0  # below this distance a goal is reached: of the position or, without one, of all
    mlp_scale: float = 1.0  # what random networks multiply states by
    goal_scale: tuple[float, ...] = ()  # what distances to a goal are divided by, in each coordinate; () is 1


Prior = Callable[[jax.Array, jax.Array], Reward]


def goal(key: jax.Array, states: jax.Array, about: States) -> Reward:
    """Reach one of `states`."""
    target, is_there = _place(key, states, about)
    return Reward(lambda s: jnp.where(is_there(s), 0.0, -1.0), ends=True, special=target)


def near(key: jax.Array, states: jax.Array, about: States) -> Reward:
    """Stay near one of `states`."""
    target, is_there = _place(key, states, about)
    return Reward(lambda s: jnp.where(is_there(s), 1.0, 0.0), special=target)


def _place(key: jax.Array, states: jax.Array, about: States) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """One of `states`, and whether others are near it."""
    num, later = states.shape[0], about.futures
    counts = (1, later, num - 1 - later)
    chances = jnp.concatenate([jnp.full(n, share / max(n, 1)) for n, share in zip(counts, GOAL_SHARES)])
    target = states[jax.random.choice(key, num, p=chances / jnp.sum(chances))]
    return target, lambda s: reached(s, target, about)


def reached(states: jax.Array, target: jax.Array, about: States) -> jax.Array:
    """Which of states (*B, obs) are near a target (obs,): (*B,), bool."""
    seen = jnp.array(about.position) if about.position else slice(None)
    away = states - jnp.broadcast_to(target, states.shape)
    if about.goal_scale:
        away = away / jnp.broadcast_to(jnp.array(about.goal_scale), away.shape)
    return jnp.sum(jnp.square(away[..., seen]), axis=-1) < about.goal_radius**2


def linear(key: jax.Array, states: jax.Array, about: States) -> Reward:
    """A weighted sum of few coordinates."""
    size_key, kept_key, coin_key = jax.random.split(key, 3)
    dim = states.shape[-1]
    sizes = jax.random.uniform(size_key, (dim,), minval=-1.0, maxval=1.0)
    c = jnp.where(_kept(kept_key, KEPT, dim, about.position), sizes, 0.0)
    low = jnp.where(jax.random.bernoulli(coin_key), 0.0, -1.0)
    return Reward(lambda s: jnp.clip(s @ c, low, 1.0))


def _kept(key: jax.Array, chance: float, dim: int, position: tuple[int, ...]) -> jax.Array:
    """Which coordinates count, (dim,): at least one, none of the position."""
    chance_key, one_key = jax.random.split(key)
    free = jnp.array([i for i in range(dim) if i not in position])
    one = free[jax.random.randint(one_key, (), 0, len(free))]  # Never is all of it zero.
    return jax.random.bernoulli(chance_key, chance, (dim,)).at[jnp.array(position, int)].set(False).at[one].set(True)


def mlp(key: jax.Array, states: jax.Array, about: States) -> Reward:
    """A network that was drawn and never trained."""
    first, bias, second = jax.random.split(key, 3)
    w1 = jax.random.normal(first, (states.shape[-1], UNITS)) / UNITS**0.5
    b1, w2 = 4 * jax.random.normal(bias, (UNITS,)), jax.random.normal(second, (UNITS,)) / 4

    def of(s: jax.Array) -> jax.Array:
        return jnp.clip(
            jnp.tanh(about.mlp_scale * s @ w1 + jnp.broadcast_to(b1, (*s.shape[:-1], UNITS))) @ w2, -1.0, 1.0
        )

    return Reward(of)


def field(key: jax.Array, states: jax.Array, about: States) -> Reward:
    """A height and a weighted sum of some coordinates, or one of both; height and weights depend on the place."""
    size_key, wave_key, shift_key, sum_key, kept_key, part_key = jax.random.split(key, 6)
    dim, place = states.shape[-1], jnp.array(about.position)
    low, high = np.log(FIELD_LENGTHS)
    length = jnp.exp(jax.random.uniform(size_key, minval=low, maxval=high))
    waves = jax.random.normal(wave_key, (len(about.position), UNITS)) / length  # of a Gaussian process, about
    shifts = jax.random.uniform(shift_key, (UNITS,), maxval=2 * jnp.pi)
    sums = jax.random.normal(sum_key, (UNITS, dim + 1)) * (2 / UNITS) ** 0.5  # The last is the height.
    part = jax.random.randint(part_key, (), 0, 3)
    slopes = _kept(kept_key, 0.5, dim, about.position) & (part != 0)
    sums = jnp.where(jnp.append(slopes, part != 1), sums, 0.0)

    def of(s: jax.Array) -> jax.Array:
        x = s[..., place]
        values = jnp.cos(x @ waves + jnp.broadcast_to(shifts, (*x.shape[:-1], UNITS))) @ sums
        return jnp.clip(jnp.sum(values[..., :-1] * s, axis=-1) + values[..., -1], -1.0, 1.0)

    return Reward(of)


PRIORS: dict[str, Callable[[jax.Array, jax.Array, States], Reward]] = {
    "goal": goal, "near": near, "linear": linear, "mlp": mlp, "field": field,
}  # fmt: skip


def find_prior(name: str, about: States) -> Prior:
    """A prior by its name in `PRIORS`, or as "module:function". Raises UserError."""
    if name == "field" and not about.position:
        raise UserError("Rewards 'field' depend on the position: expected position to name entries of the observation.")
    if name in PRIORS:
        return lambda key, states: PRIORS[name](key, states, about)
    if ":" not in name:
        raise unknown("reward prior", name, PRIORS)
    return load_object(name, "reward prior")


class Labels(NamedTuple):
    """Rewards of n reward functions, each at states of its own."""

    encode: jax.Array  # (n, K): at the states that tell them
    decode: jax.Array  # (n, D)
    decode_states: jax.Array  # (n, D, obs): as given, but for special ones in the first place
    ends: jax.Array  # (n,): 1 where the future counts nothing after states[:, 0], else 0


def label(priors: list[Prior], key: jax.Array, encode_states: Array, decode_states: Array) -> Labels:
    """n reward functions, of the priors in equal shares and in their order (the last takes what is left), at states
    (n, K, obs) and (n, D, obs)."""
    n = encode_states.shape[0]
    share = n // len(priors)
    cuts = [share * i for i in range(len(priors))] + [n]
    keys = jax.random.split(key, n)
    parts = []
    for prior, begin, end in zip(priors, cuts, cuts[1:]):

        def one(key: jax.Array, encode: jax.Array, decode: jax.Array, prior: Prior = prior) -> Labels:
            reward = prior(key, encode)
            if reward.special is not None:
                decode = decode.at[0].set(reward.special)
            told = reward.of(encode)
            ends = jnp.where(told[0] == 0, 1.0, 0.0) if reward.ends else jnp.float32(0)
            return Labels(told, reward.of(decode), decode, ends)

        some = slice(begin, end)
        parts.append(jax.vmap(one)(keys[some], jnp.asarray(encode_states)[some], jnp.asarray(decode_states)[some]))
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
