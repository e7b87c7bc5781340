"""`tv:rooms`: a point mass in four rooms with a television in one of them, the continuous counterpart of `block:*`.

Rooms of 7 m x 7 m are joined by four doors of 1 m to a ring:

    2 | 3      An episode begins at rest in the middle of room 0. The television is in room 1, beside it, so noise is
    --+--      met early; room 3 can be reached on both ways. The mass is that of `maze:*_mass`: an action is an
    0 | 1      acceleration, walls take what runs into them, a step takes 1 s and leads 1 m at most per axis.

What is seen is x, y, vx, vy and the NUMBERS of the television. While the mass is in the television's room, these are
N(0, 1) and drawn anew at every step: no action predicts or controls them. In other rooms and in doors they are 0. The
off button is a cell of 1 m in that room, far from both doors and a step from the walls, into which a mass without aim
slides. A mass that ends a step there switches the television off for the rest of the episode: its last picture stays,
and is still seen in that room alone. There is no reward. Random actions visit 2.4 rooms of an episode and press the
button in a fifth of all.

In `tv:rooms_quiet` the television's numbers are always 0, and nothing else differs.

The position is x and y, without the television. Physics also says in which room the mass is, how many it has visited,
whether the television is still on, and of its noise what `EnvSpec.physics` asks for. Its button never fails, so `off`
also says whether it was pressed.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.envs.maze import CONTROL_DT, STEP, State, cell, centre, step_mass
from urlrl.envs.noise import Noise
from urlrl.errors import unknown
from urlrl.types import DeviceEnv, DeviceState, EnvSpec

# '#' is a wall, '.' a door, a digit the room of a cell of 1 m.
_DRAWING = """
    2222222#3333333
    2222222#3333333
    2222222#3333333
    2222222.3333333
    2222222#3333333
    2222222#3333333
    2222222#3333333
    ###.#######.###
    0000000#1111111
    0000000#1111111
    0000000#1111111
    0000000.1111111
    0000000#1111111
    0000000#1111111
    0000000#1111111
"""
_CELLS = np.array([list(row) for row in reversed(_DRAWING.split())])  # the lowest row first, as in envs/maze.py
WALLS = _CELLS == "#"
NUM_ROOMS = 4
DOOR, TELEVISION = -1, 1  # rooms
ROOMS = np.char.find("0123", _CELLS).astype(np.int32)  # (H, W): of each cell; DOOR is a wall or a door
START, BUTTON = np.array([3, 3]), np.array([1, 13])  # row, column
NUMBERS = 8  # of the television: twice the mass's, so that noise is most of what a distance or a density sees
EPISODE_STEPS = 200
PHYSICS = (
    ("xy", 2), ("velocity", 2),
    ("room", 1),  # DOOR in a door
    ("television", 1),  # whether it is on
    ("noise", 1), ("off", 1), ("rooms_visited", 1),  # as EnvSpec.physics has them
)  # fmt: skip
NAMES = {"rooms": True, "rooms_quiet": False}  # whether the television shows noise


class Sim(NamedTuple):
    mass: jax.Array  # (4,): x, y in m, velocity in m/s
    on: jax.Array  # (), bool: the television is
    visited: jax.Array  # (NUM_ROOMS,), bool
    picture: jax.Array  # (NUMBERS,): what it showed last
    noise: Noise


def _spec(name: str) -> EnvSpec:
    centres = centre(np.argwhere(~WALLS), WALLS.shape)
    mean, spread = centres.mean(axis=0), np.sqrt(centres.var(axis=0) + 1 / 12)  # Uniform within each cell.
    return EnvSpec(
        id=f"tv:{name}", obs_dim=4 + NUMBERS, action_dim=2, episode_steps=EPISODE_STEPS, control_dt=CONTROL_DT,
        position=("x", "y"), physics=PHYSICS,
        obs_mean=(*mean.tolist(), 0.0, 0.0, *[0.0] * NUMBERS),
        obs_std=(*spread.tolist(), STEP / 2, STEP / 2, *[1.0] * NUMBERS),
        exact_resume=True, walls=tuple(map(tuple, WALLS.tolist())),
    )  # fmt: skip


def device_env(name: str, episode_steps: int | None = None) -> DeviceEnv:
    """Of what follows `tv:`.

    Raises:
        UserError: an unknown one.
    """
    if name not in NAMES:
        raise unknown("environment", f"tv:{name}", [f"tv:{other}" for other in NAMES])
    noisy, spec = NAMES[name], _spec(name)
    walls, rooms = jnp.asarray(WALLS), jnp.asarray(ROOMS)
    start = jnp.asarray([*centre(START, WALLS.shape), 0.0, 0.0], jnp.float32)

    def seen(sim: Sim) -> DeviceState:
        room = rooms[cell(sim.mass[:2], WALLS.shape)]
        shown = jnp.where(room == TELEVISION, sim.picture, 0.0)
        noise = jnp.where((room == TELEVISION) & noisy, jnp.where(sim.on, -1, 1), 0)
        numbers = jnp.stack([room, sim.on, noise, ~sim.on & noisy, jnp.sum(sim.visited)])
        physics = jnp.concatenate([sim.mass, numbers.astype(jnp.float32)])
        obs, zero = jnp.concatenate([sim.mass, shown]), jnp.zeros((), jnp.float32)
        return DeviceState(sim, obs, zero, jnp.zeros((), bool), sim.mass[:2], physics)

    def reset(key: jax.Array) -> DeviceState:
        on, visited = jnp.ones((), bool), jnp.arange(NUM_ROOMS) == rooms[cell(start[:2], WALLS.shape)]
        return seen(Sim(start, on, visited, jnp.zeros(NUMBERS, jnp.float32), Noise.begin(key)))

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        sim = state.sim
        mass, noise = step_mass(State(sim.mass, walls), action).obs, sim.noise.later()
        row, column = cell(mass[:2], WALLS.shape)
        on = sim.on & ((row != BUTTON[0]) | (column != BUTTON[1]))
        room = rooms[row, column]
        visited, changes = sim.visited | (jnp.arange(NUM_ROOMS) == room), on & (room == TELEVISION) & noisy
        return seen(Sim(mass, on, visited, jnp.where(changes, noise.draw(NUMBERS), sim.picture), noise))

    return DeviceEnv(spec if episode_steps is None else replace(spec, episode_steps=episode_steps), reset, step)
