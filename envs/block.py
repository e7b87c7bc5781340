"""`block:*`: a corridor with televisions, the block MDP in which adversarial surprise can be proved by counting.

18 cells lie in a line, and every third one has a television. An action moves by one cell to the left or to the right,
or stays; at the ends it stays too. What is seen is one symbol: a dark cell shows its own; a television shows one that
it has not shown in this episode, so its noise can neither be predicted nor controlled. There is no reward.

`block:line18` has televisions; in `block:line18_quiet` each of them shows a symbol of its own, always the same.

In `block:line18_loud` two symbols are seen: the second of a dark cell is blank, and a television shows noise in both.
There a television is more surprising than a dark cell that is new; in `line18` it is as surprising, and who seeks
surprise may as well pass through every cell once. `block:line18_loud_quiet` is without noise.

The position is the cell where the agent really is: coverage counts cells, never symbols. Physics says it too, and
whether there is noise. Nothing switches a television off.
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
BLANK = 0  # symbol


class Line(NamedTuple):
    noisy: bool = True  # televisions show noise
    seen: int = 1  # symbols of an observation


LINES = {
    "line18": Line(),
    "line18_quiet": Line(noisy=False),
    "line18_loud": Line(seen=2),
    "line18_loud_quiet": Line(noisy=False, seen=2),
}


class Sim(NamedTuple):
    cell: jax.Array  # (), int32
    clock: jax.Array  # (), int32: steps of the episode
    noise: jax.Array  # (NOISE, seen), int32: what televisions show, by step


def has_television(cell: Array) -> Array:
    """Whether there is one in these cells, (*B,), bool."""
    return cell % PERIOD == PERIOD - 1


def symbols(sim: Sim, line: Line) -> jax.Array:
    """What is seen, (seen,), int32: those of dark cells come first."""
    other = jnp.full(line.seen - 1, BLANK, jnp.int32)
    dark = jnp.append(sim.cell - (sim.cell + 1) // PERIOD, other)
    shown = DARK + sim.noise[sim.clock % NOISE] if line.noisy else jnp.append(DARK + sim.cell // PERIOD, other)
    return jnp.where(has_television(sim.cell), shown, dark)


def device_env(name: str, episode_steps: int | None = None) -> DeviceEnv:
    """Of what follows `block:`.

    Raises:
        UserError: an unknown one, or an episode in which televisions would have to repeat themselves.
    """
    if name not in LINES:
        raise unknown("environment", f"block:{name}", [f"block:{other}" for other in LINES])
    if episode_steps is not None and episode_steps > NOISE:
        raise UserError(
            f"episode_steps is {episode_steps}: expected at most {NOISE} in 'block:{name}', whose televisions show as "
            f"many symbols."
        )
    line, num = LINES[name], DARK + NOISE
    dim = line.seen * num
    spec = EnvSpec(
        id=f"block:{name}", obs_dim=dim, action_dim=len(MOVES), episode_steps=NOISE, control_dt=None,
        position=("cell",), physics=(("cell", 1), ("noise", 1)), obs_mean=(0.0,) * dim, obs_std=(1.0,) * dim,
        exact_resume=True, action="onehot", symbols=num,
    )  # fmt: skip

    def seen(sim: Sim) -> DeviceState:
        obs = jax.nn.one_hot(symbols(sim, line), num, dtype=jnp.float32).reshape(dim)
        zero = jnp.zeros((), jnp.float32)
        noise = jnp.where(has_television(sim.cell) & line.noisy, -1, 0)
        physics = jnp.stack([sim.cell, noise]).astype(jnp.float32)
        return DeviceState(sim, obs, zero, jnp.zeros((), bool), physics[:1], physics)

    def reset(key: jax.Array) -> DeviceState:
        zero, keys = jnp.zeros((), jnp.int32), jax.random.split(key, line.seen)
        noise = jax.vmap(lambda key: jax.random.permutation(key, NOISE), out_axes=1)(keys)
        return seen(Sim(zero, zero, noise.astype(jnp.int32)))

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        sim, move = state.sim, jnp.array(MOVES, jnp.int32)[jnp.argmax(action)]
        return seen(sim._replace(cell=jnp.clip(sim.cell + move, 0, CELLS - 1), clock=sim.clock + 1))

    return DeviceEnv(spec if episode_steps is None else replace(spec, episode_steps=episode_steps), reset, step)
