"""Numbers of pure noise that an observation holds, drawn anew at every step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Noise(NamedTuple):
    """Where the noise of an episode is. It depends on the key of the episode and on the step alone, so two small arrays
    continue it bit for bit."""

    key: jax.Array  # (2,), uint32: a key's data, which files can hold
    clock: jax.Array  # (), int32: steps of the episode

    @classmethod
    def begin(cls, key: jax.Array) -> "Noise":
        return cls(jax.random.key_data(key), jnp.zeros((), jnp.int32))

    def later(self) -> "Noise":
        """A step later."""
        return self._replace(clock=self.clock + 1)

    def draw(self, num: int) -> jax.Array:
        """That of this step, (num,): independent N(0, 1)."""
        return jax.random.normal(jax.random.fold_in(jax.random.wrap_key_data(self.key), self.clock), (num,))
