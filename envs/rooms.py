"""`rooms:*`: a chain of rooms behind doors, some of them with a floor of noise that a switch stops. Pure JAX functions.

Of arXiv 2107.07394, whose MiniGrid world this follows in its rules, not in its code. Each episode has a layout of its
own. The agent starts in room 0, and a closed door leads from each room to the next. A room is dark or noisy. In a
noisy one every free cell but one is a tile, whose colour is drawn again from 6 at every step, independently, whether
or not anybody sees it. In the cell without a tile is a box, the switch: `toggle` removes it, and the room's tiles keep
their colours until the episode ends. There is no reward.

Seven actions: turn left, turn right, go forward, toggle, and three that do nothing. `toggle` acts on the cell ahead: it
opens a closed door and closes an open one. Walls, closed doors and boxes cannot be entered.

What is seen are the 7 x 7 cells ahead, the agent in the middle of the nearest row, each one of 12 symbols. Walls and
closed doors hide what is behind them: a cell is seen if one of the two cells that are nearest to the straight line to
the agent, one step before it, is seen and does not hide.

    rooms:noisy              13 x 13 cells, 3 rooms, at least one of them noisy
    rooms:noisy_dead_switch  the same, but toggling the box does nothing
    rooms:paper              25 x 25 cells, 4 rooms, each noisy with probability 1/2: the paper's

How a layout is drawn. Each room lies right of the one before, or below it, and shares a wall with it. Its sides are 4
to 8 cells, walls included, as far as 4 are left for each room that follows. Along the shared wall it may begin later
than the one before, never earlier. So no two rooms overlap, and nothing need be drawn twice. The door is anywhere where
the two rooms face each other. Then the chain is put anywhere in the grid, and mirrored in each axis with probability
1/2. Boxes are never beside a door: no room is closed by its box.

Differences from MiniGrid's layouts, which are drawn until they fit: a chain has no U-turn, sides are smaller where
there is little space, and cells outside of all rooms are walls.

The position is x, y in cells and a number of the layout: coverage counts cells of different episodes apart.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.errors import unknown
from urlrl.types import Array, DeviceEnv, DeviceState, EnvSpec

UNSEEN, WALL, FLOOR, CLOSED, OPEN, BOX, TILE = range(7)  # symbols; from TILE on they are colours
COLOURS = 6
SYMBOLS = TILE + COLOURS
LEFT, RIGHT, FORWARD, TOGGLE = range(4)
ACTIONS = 7
VIEW = 7  # cells, each way
EPISODE_STEPS = 128
SHORT, LONG = 3, 7  # steps from one wall of a room to the other: sides of 4 and 8 cells
MOVES = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], np.int32)  # x, y by direction: a turn to the right is the next one
PHYSICS = (
    ("x", 1), ("y", 1), ("direction", 1),
    ("room", 1),  # in a door it is the last one
    ("noise", 1),  # of that room: -1 noisy, 1 switched off, 0 dark; see EnvSpec.physics
    ("rooms_visited", 1),  # in this episode
    ("noisy_rooms", 1),
    ("off", 1),  # share of noisy rooms that are switched off; 0 where there are none
    ("pressed", 1),  # share of noisy rooms whose box was toggled, dead ones too
)  # fmt: skip


class World(NamedTuple):
    cells: int  # of a side
    rooms: int
    surely_noisy: bool = True  # at least one room is noisy
    dead_switch: bool = False  # toggling a box does nothing


WORLDS = {
    "noisy": World(13, 3),
    "noisy_dead_switch": World(13, 3, dead_switch=True),
    "paper": World(25, 4, surely_noisy=False),
}


class Sim(NamedTuple):
    """Grids are (cells, cells), the row is y. A room is low x, low y, high x, high y of its walls."""

    grid: jax.Array  # int8: symbols
    live: jax.Array  # bool: tiles whose colours change
    rooms: jax.Array  # (rooms, 4), int32
    noisy: jax.Array  # (rooms,), bool
    pressed: jax.Array  # (rooms,), bool: the box was toggled
    visited: jax.Array  # (rooms,), bool
    room: jax.Array  # (), int32: where the agent is
    at: jax.Array  # (2,), int32: x, y of the agent
    direction: jax.Array  # (), int32
    clock: jax.Array  # (), int32: steps of the episode
    number: jax.Array  # (), int32: of the layout
    seed: jax.Array  # (2,), uint32: of the noise


# --- Layouts ----------------------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    rooms: jax.Array  # (rooms, 4), int32
    doors: jax.Array  # (rooms - 1, 2), int32: x, y


def draw_layout(key: jax.Array, world: World) -> Layout:
    """A chain that begins in the corner (0, 0), then put where it will be."""
    end, num = world.cells - 1, world.rooms
    draws = jax.random.uniform(key, (num + 1, 5))
    axes = _pick(draws[: num - 1, 0], 0, 1)  # along which the next room follows
    steps = jnp.stack([1 - axes, axes], axis=1)  # (rooms - 1, 2)
    low, high, rooms, doors = jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int32), [], []
    for i in range(num):
        before, last = high, end - SHORT * jnp.sum(steps[i:], axis=0)  # leaves the least for those that follow
        high = low + _pick(draws[i, 1:3], SHORT, jnp.minimum(LONG, last - low))
        rooms.append(jnp.stack([low, high]))
        if i > 0:
            across = _pick(draws[i, 3], low + 1, jnp.minimum(before, high) - 1)
            doors.append(jnp.where(steps[i - 1] == 1, before, across))
        if i < num - 1:
            slid = _pick(draws[i, 4], low, jnp.minimum(high - 2, last - SHORT))
            low = jnp.where(steps[i] == 1, high, slid)
    return _put(jnp.stack(rooms), jnp.stack(doors), draws[num, :4], end)


def _put(rooms: jax.Array, doors: jax.Array, draws: jax.Array, end: int) -> Layout:
    """Anywhere in the grid and mirrored at random; rooms are (rooms, low or high, x or y), draws (4,)."""
    shift = _pick(draws[:2], 0, end - jnp.max(rooms[:, 1], axis=0))
    rooms, doors, mirrored = rooms + shift[None, None], doors + shift[None], draws[2:] < 0.5
    rooms = jnp.where(mirrored[None, None], end - rooms[:, ::-1], rooms)
    return Layout(rooms.reshape(-1, 4), jnp.where(mirrored[None], end - doors, doors))


def _pick(draw: jax.Array, low: Array | int, high: Array | int) -> jax.Array:
    """low ... high, int32, of uniform draws in [0, 1)."""
    return jnp.asarray(low) + jnp.floor(draw * (high - low + 1)).astype(jnp.int32)


def start(key: jax.Array, world: World) -> Sim:
    """A fresh layout, the agent in its room 0."""
    seed, layout_key, cell_key, kind_key, direction_key, number_key = jax.random.split(key, 6)
    layout, none, zero = draw_layout(layout_key, world), jnp.zeros(world.rooms, bool), jnp.zeros((), jnp.int32)
    kinds = jax.random.randint(kind_key, (), int(world.surely_noisy), 2**world.rooms, jnp.int32)
    noisy = kinds >> jnp.arange(world.rooms, dtype=jnp.int32) & 1 == 1
    boxes, at = _furnish(cell_key, layout, noisy)
    inside = jax.vmap(lambda room: within(room, world.cells))(layout.rooms)  # (rooms, cells, cells)
    place = boxes[:, 1], boxes[:, 0]
    grid = jnp.where(jnp.any(inside, axis=0), FLOOR, WALL).at[layout.doors[:, 1], layout.doors[:, 0]].set(CLOSED)
    grid = grid.at[place].set(jnp.where(noisy, BOX, FLOOR)).astype(jnp.int8)
    sim = Sim(
        grid=grid, live=jnp.any(inside & noisy[:, None, None], axis=0).at[place].set(False), rooms=layout.rooms,
        noisy=noisy, pressed=none, visited=none.at[0].set(True), room=zero, at=at,
        direction=jax.random.randint(direction_key, (), 0, len(MOVES), jnp.int32), clock=zero,
        number=jax.random.bits(number_key, (), jnp.uint16).astype(jnp.int32), seed=jax.random.key_data(seed),
    )  # fmt: skip
    return _flicker(sim)


def _furnish(key: jax.Array, layout: Layout, noisy: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A cell (rooms, 2) for the box of each room, noisy or not, and one for the agent (2,): any that is free."""
    places = 1 + np.indices((LONG - 1, LONG - 1), np.int32).reshape(2, -1).T
    cells = layout.rooms[:, None, :2] + places[None]  # (rooms, places, 2)
    free = jnp.all(cells < layout.rooms[:, None, 2:], axis=-1)
    from_doors = jnp.sum(jnp.abs(cells[:, :, None] - layout.doors[None, None]), axis=-1)
    draws = jax.random.bits(key, (len(cells) + 1, len(places)), jnp.uint16).astype(jnp.int32)
    box = jnp.argmax(jnp.where(free & jnp.all(from_doors > 1, axis=-1), draws[1:], -1), axis=1)
    taken = (jnp.arange(len(places)) == box[0]) & noisy[0]
    at = cells[0, jnp.argmax(jnp.where(free[0] & ~taken, draws[0], -1))]
    return jnp.take_along_axis(cells, box[:, None, None], axis=1)[:, 0], at


def within(room: jax.Array, cells: int) -> jax.Array:
    """The cells (cells, cells) between the walls of a room (4,)."""
    line = jnp.arange(cells, dtype=jnp.int32)
    x, y = ((line > room[axis]) & (line < room[axis + 2]) for axis in (0, 1))
    return y[:, None] & x[None]


# --- Steps ------------------------------------------------------------------------------------------------------------


def advance(sim: Sim, choice: jax.Array, world: World) -> Sim:
    """The agent acts, then the tiles of rooms that are noisy still change."""
    turn = (choice == RIGHT).astype(jnp.int32) - (choice == LEFT)
    ahead = sim.at + jnp.asarray(MOVES)[sim.direction]
    symbol = sim.grid[ahead[1], ahead[0]].astype(jnp.int32)
    free = (symbol == FLOOR) | (symbol == OPEN) | (symbol >= TILE)
    at = jnp.where((choice == FORWARD) & free, ahead, sim.at)
    toggled = np.arange(SYMBOLS, dtype=np.int8)
    toggled[[CLOSED, OPEN]] = OPEN, CLOSED
    toggled[BOX] = BOX if world.dead_switch else FLOOR
    line = jnp.arange(world.cells, dtype=jnp.int32)
    changed = (line == ahead[1])[:, None] & (line == ahead[0])[None] & (choice == TOGGLE)
    pressed = _inside(sim.rooms, ahead) & (choice == TOGGLE) & (symbol == BOX)
    live = sim.live
    if not world.dead_switch:
        live &= ~(within(sim.rooms[jnp.argmax(pressed)], world.cells) & jnp.any(pressed))
    entered = _inside(sim.rooms, at)
    return _flicker(sim._replace(
        grid=jnp.where(changed, jnp.asarray(toggled)[symbol], sim.grid), live=live, pressed=sim.pressed | pressed,
        visited=sim.visited | entered,
        room=jnp.where(jnp.any(entered), jnp.argmax(entered).astype(jnp.int32), sim.room), at=at,
        direction=(sim.direction + turn) % len(MOVES), clock=sim.clock + 1,
    ))  # fmt: skip


def _inside(rooms: jax.Array, at: jax.Array) -> jax.Array:
    """Between the walls of which room a cell is, (rooms,)."""
    return jnp.all((at[None] > rooms[:, :2]) & (at[None] < rooms[:, 2:]), axis=1)


def _flicker(sim: Sim) -> Sim:
    """Other colours where tiles change."""
    key = jax.random.fold_in(jax.random.wrap_key_data(sim.seed), sim.clock)
    # 2^16 mod 6 is 4: the colours differ in probability by a part in 10,000.
    colours = TILE + jax.random.bits(key, sim.grid.shape, jnp.uint16) % COLOURS
    return sim._replace(grid=jnp.where(sim.live, colours.astype(jnp.int8), sim.grid))


# --- What is seen -----------------------------------------------------------------------------------------------------


def _cells_ahead() -> np.ndarray:
    """The way to each cell that is seen, (4, VIEW * VIEW, 2): x, y by direction, the farthest row first, from left to
    right."""
    row, column = np.indices((VIEW, VIEW), np.int32).reshape(2, -1, 1)
    forward, aside = VIEW - 1 - row, column - VIEW // 2
    return np.stack([forward * MOVES[d] + aside * MOVES[(d + 1) % len(MOVES)] for d in range(len(MOVES))])


def _steps_before() -> np.ndarray:
    """(VIEW, VIEW, 2): the two cells, as numbers in the view, that are one step before each on the way to the agent.
    The way takes as many steps as the longer of both distances; the shorter one lies between two cells."""
    before = np.zeros((VIEW, VIEW, 2), np.int32)
    for row, column in np.ndindex(VIEW, VIEW):
        forward, aside = VIEW - 1 - row, column - VIEW // 2
        steps = max(forward, abs(aside), 1)
        for i, rounded in enumerate((np.floor, np.ceil)):
            f, a = (int(rounded(way * (steps - 1) / steps)) for way in (forward, aside))
            before[row, column, i] = VIEW * (VIEW - 1 - f) + a + VIEW // 2
    return before


AHEAD, BEFORE = _cells_ahead(), _steps_before().reshape(-1, 2)
AGENT = VIEW * (VIEW - 1) + VIEW // 2  # its place in the view


def view(sim: Sim) -> jax.Array:
    """The symbols that are seen, (VIEW * VIEW,), int32."""
    at = jnp.clip(sim.at[None] + jnp.asarray(AHEAD)[sim.direction], 0, len(sim.grid) - 1)  # The edge is wall.
    symbols = sim.grid[at[:, 1], at[:, 0]].astype(jnp.int32)
    clear = (symbols != WALL) & (symbols != CLOSED)
    seen = jnp.arange(VIEW * VIEW) == AGENT
    for _ in range(VIEW - 1):  # One step farther each time.
        seen |= jnp.any((seen & clear)[BEFORE], axis=1)
    return jnp.where(seen, symbols, UNSEEN)


def physics(sim: Sim, world: World) -> jax.Array:
    """The numbers of PHYSICS, float32."""
    off = jnp.zeros_like(sim.pressed) if world.dead_switch else sim.pressed
    noise = jnp.where(sim.noisy[sim.room], jnp.where(off[sim.room], 1, -1), 0)
    noisy = jnp.sum(sim.noisy)
    shares = [jnp.sum(rooms) / jnp.maximum(noisy, 1) for rooms in (off, sim.pressed)]
    numbers = [*sim.at, sim.direction, sim.room, noise, jnp.sum(sim.visited), noisy, *shares]
    return jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers])


def device_env(name: str, episode_steps: int | None = None) -> DeviceEnv:
    """Of what follows `rooms:`. Raises UserError for an unknown one."""
    if name not in WORLDS:
        raise unknown("environment", f"rooms:{name}", [f"rooms:{other}" for other in WORLDS])
    world, dim = WORLDS[name], VIEW * VIEW * SYMBOLS
    spec = EnvSpec(
        id=f"rooms:{name}", obs_dim=dim, action_dim=ACTIONS, episode_steps=EPISODE_STEPS, control_dt=None,
        position=("x", "y", "layout"), physics=PHYSICS, obs_mean=(0.0,) * dim, obs_std=(1.0,) * dim, exact_resume=True,
        action="onehot", symbols=SYMBOLS,
    )  # fmt: skip

    def seen(sim: Sim) -> DeviceState:
        obs = jax.nn.one_hot(view(sim), SYMBOLS, dtype=jnp.float32).reshape(dim)
        position = jnp.append(sim.at, sim.number).astype(jnp.float32)
        return DeviceState(sim, obs, jnp.zeros((), jnp.float32), jnp.zeros((), bool), position, physics(sim, world))

    def reset(key: jax.Array) -> DeviceState:
        return seen(start(key, world))

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        return seen(advance(state.sim, jnp.argmax(action), world))

    return DeviceEnv(spec if episode_steps is None else replace(spec, episode_steps=episode_steps), reset, step)
