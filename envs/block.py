"""`block:*`: a corridor with televisions, the block MDP in which adversarial surprise can be proved by counting.

18 cells lie in a line, and every third one has a television. An action moves by one cell to the left or to the right,
or stays; at the ends it stays too. What is seen is one symbol: a dark cell shows its own; a television shows one that
it has not shown in this episode, so its noise can neither be predicted nor controlled. There is no reward.

`block:line18` has televisions; in `block:line18_quiet` each of them shows a symbol of its own, always the same.

The position is the cell where the agent really is: coverage counts cells, never symbols.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from urlrl.errors import UserError, unknown
from urlrl.types import Array, DeviceEnv, DeviceState, EnvSpec

CELLS = 18
PERIOD = 3  # cell p has a television where p mod 3 is 2
DARK = CELLS - CELLS // PERIOD  # cells without one
NOISE = 128  # symbols of the televisions: as many as an episode has steps
MOVES = (-1, 0, 1)  # cells, by action
NOISY = {"line18": True, "line18_quiet": False}  # name -> whether televisions show noise


class Sim(NamedTuple):
    cell: jax.Array  # (), int32
    clock: jax.Array  # (), int32: steps of the episode
    order: jax.Array  # (NOISE,), int32: what televisions show, by step


def has_television(cell: Array) -> Array:
    """Whether there is one in these cells, (*B,), bool."""
    return cell % PERIOD == PERIOD - 1


def symbol(sim: Sim, noisy: bool) -> jax.Array:
    """What is seen, (), int32: those of dark cells come first."""
    shown = sim.order[sim.clock % NOISE] if noisy else sim.cell // PERIOD
    return jnp.where(has_television(sim.cell), DARK + shown, sim.cell - (sim.cell + 1) // PERIOD)


def device_env(name: str, episode_steps: int | None = None) -> DeviceEnv:
    """Of what follows `block:`.

    Raises:
        UserError: an unknown one, or an episode in which televisions would have to repeat themselves.
    """
    if name not in NOISY:
        raise unknown("environment", f"block:{name}", [f"block:{other}" for other in NOISY])
    if episode_steps is not None and episode_steps > NOISE:
        raise UserError(
            f"episode_steps is {episode_steps}: expected at most {NOISE} in 'block:{name}', whose televisions show as "
            f"many symbols."
        )
    noisy, dim = NOISY[name], DARK + NOISE
    spec = EnvSpec(
        id=f"block:{name}", obs_dim=dim, action_dim=len(MOVES), episode_steps=NOISE, control_dt=None,
        position=("cell",), obs_mean=(0.0,) * dim, obs_std=(1.0,) * dim, exact_resume=True, action="onehot",
        symbols=dim,
    )  # fmt: skip

    def seen(sim: Sim) -> DeviceState:
        obs = jax.nn.one_hot(symbol(sim, noisy), dim, dtype=jnp.float32)
        zero = jnp.zeros((), jnp.float32)
        position = sim.cell.astype(jnp.float32)[None]
        return DeviceState(sim, obs, zero, jnp.zeros((), bool), position, jnp.zeros(0, jnp.float32))

    def reset(key: jax.Array) -> DeviceState:
        zero = jnp.zeros((), jnp.int32)
        return seen(Sim(zero, zero, jax.random.permutation(key, NOISE).astype(jnp.int32)))

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        move = jnp.array(MOVES, jnp.int32)[jnp.argmax(action)]
        cell = jnp.clip(state.sim.cell + move, 0, CELLS - 1)
        return seen(state.sim._replace(cell=cell, clock=state.sim.clock + 1))

    return DeviceEnv(spec if episode_steps is None else replace(spec, episode_steps=episode_steps), reset, step)
