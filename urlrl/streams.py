"""Randomness by name: each use of a run's seed draws from a stream of its own.

JAX's `split(key, n)[i]` equals `fold_in(key, i)`, so two uses that both start from `key(seed)` and count differently
still meet. A stream starts from the seed and the name of its use.
"""

import zlib

import jax
import numpy as np


def stream(seed: int, name: str) -> jax.Array:
    """The key of a use; derive further ones by `fold_in` and `split`."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def env_seed(seed: int, name: str) -> int:
    """A seed of 32 bits for the resets of an environment, by use."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])
