"""Search over skills by the returns that they bring: successive halving, and the cross-entropy method."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.adaptation.config import SearchConfig
from urlrl.errors import UserError
from urlrl.learners.skills import SkillSpace

Try = Callable[[np.ndarray], np.ndarray]  # skills (m, d) -> the return of one episode of each, (m,)


class Found(NamedTuple):
    z: np.ndarray  # (d,): the best so far
    score: float  # its mean return over the episodes it was tried in


def search(config: SearchConfig, space: SkillSpace, key: jax.Array, attempt: Try) -> Iterator[Found]:
    """What is best after each round.

    Raises:
        UserError: CEM on one-hot skills.
    """
    if config.kind == "cem":
        if space.kind == "onehot":
            raise UserError("search.kind is 'cem': expected 'halving' for one-hot skills, which have no neighbours.")
        return _cem(config, space, key, attempt)
    return _halving(config, space, key, attempt)


def _halving(config: SearchConfig, space: SkillSpace, key: jax.Array, attempt: Try) -> Iterator[Found]:
    """Successive halving (Jamieson and Talwalkar, 2016, https://arxiv.org/abs/1502.07943): try every skill once more,
    keep the better half by mean return, until one is left."""
    count = min(config.population, space.dim) if space.kind == "onehot" else config.population
    skills = np.asarray(space.spread(count, key))
    totals, tries = np.zeros(len(skills)), 0
    while True:
        totals, tries = totals + attempt(skills), tries + 1
        best = np.argsort(-totals, kind="stable")
        yield Found(skills[best[0]], float(totals[best[0]] / tries))
        if len(skills) == 1:
            return
        keep = best[: len(skills) // 2]
        skills, totals = skills[keep], totals[keep]


def _cem(config: SearchConfig, space: SkillSpace, key: jax.Array, attempt: Try) -> Iterator[Found]:
    """Cross-entropy method (Rubinstein, 1999) in the space of directions: each round draws around the mean of the
    elites with their spread, and projects onto the prior. The best is the elites' mean direction."""
    first_key, key = jax.random.split(key)
    skills = space.sample(first_key, config.population)
    for i in range(config.rounds):
        returns = attempt(np.asarray(skills))
        count = min(config.elites, max(1, len(skills) // 2))  # A small budget makes a small population.
        elites = skills[np.argsort(-returns, kind="stable")[:count]]
        mean, std = jnp.mean(elites, axis=0), jnp.std(elites, axis=0)
        yield Found(np.asarray(space.project(mean)), float(np.sort(returns)[-count:].mean()))
        noise = jax.random.normal(jax.random.fold_in(key, np.int32(i)), (config.population, space.dim))
        skills = space.project(mean[None] + std[None] * noise)
