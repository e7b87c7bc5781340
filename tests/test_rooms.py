"""Rooms behind doors with floors of noise: the rules in scenes that are drawn here, and the layouts that are drawn by
the environment."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.envs import make_device_env, make_env, rooms
from urlrl.envs.rooms import (
    ACTIONS,
    BOX,
    CLOSED,
    COLOURS,
    FLOOR,
    FORWARD,
    LEFT,
    OPEN,
    PHYSICS,
    RIGHT,
    SYMBOLS,
    TILE,
    TOGGLE,
    VIEW,
    WALL,
    WORLDS,
    Sim,
    World,
)
from urlrl.errors import UserError
from urlrl.learners.densities import check_density

MARKS, ARROWS = "?#.DOBabcdef", ">v<^"
REST = ACTIONS - 1  # an action that does nothing
TWO, DEAD = World(9, 2), World(9, 2, dead_switch=True)
BOUNDS = [[0, 0, 4, 4], [4, 0, 8, 4]]  # of the two rooms of the scenes
NOISY = """
    #########
    #abc#def#
    #>Bd#abc#
    #efaDdBe#
    #########
    #########
    #########
    #########
    #########
"""
DARK = """
    #########
    #...#...#
    #..>D...#
    #...#...#
    #########
    #########
    #########
    #########
    #########
"""


def scene(drawing: str, seed: int = 0) -> Sim:
    """Two rooms of 5 x 5, the agent in the first. Under its arrow is floor, or tile `a` where the room has tiles."""
    marks = np.array([list(row) for row in drawing.split()])
    (y, x) = np.argwhere(np.isin(marks, list(ARROWS)))[0]
    direction = ARROWS.index(marks[y, x])
    marks[y, x] = "a" if np.isin(marks[1:4, 1:4], list(MARKS[TILE:])).any() else "."
    grid = np.vectorize(MARKS.index)(marks).astype(np.int8)
    noisy = [(grid[1:4, low + 1 : low + 4] == BOX).any() for low in (0, 4)]
    none = jnp.zeros(2, bool)
    return Sim(
        grid=jnp.asarray(grid), live=jnp.asarray(grid >= TILE), rooms=jnp.array(BOUNDS, jnp.int32),
        noisy=jnp.asarray(noisy), pressed=none, visited=jnp.array([True, False]), room=jnp.int32(0),
        at=jnp.array([x, y], jnp.int32), direction=jnp.int32(direction), clock=jnp.int32(0), number=jnp.int32(7),
        seed=jax.random.key_data(jax.random.key(seed)),
    )  # fmt: skip


Advance = Callable[[Sim, jax.Array, World], Sim]


@cache
def compiled(advance: Advance, world: World) -> Callable:
    """(sim, choices (T,)) -> the sims that follow, stacked."""

    def go(sim: Sim, choices: jax.Array) -> Sim:
        def step(sim: Sim, choice: jax.Array) -> tuple[Sim, Sim]:
            after = advance(sim, choice, world)
            return after, after

        return jax.lax.scan(step, sim, choices)[1]

    return jax.jit(go)


def play(sim: Sim, *choices: int, advance: Advance = rooms.advance, world: World = TWO) -> list[Sim]:
    """`sim` and what follows each choice; of one length, as another is another program."""
    padded = np.array([*choices, *[REST] * (16 - len(choices))], np.int32)
    after = jax.tree.map(np.asarray, compiled(advance, world)(sim, padded))
    return [jax.tree.map(np.asarray, sim), *[one(after, i) for i in range(len(choices))]]


def where(sims: list[Sim]) -> list[tuple[int, int, int]]:
    return [(*sim.at.tolist(), int(sim.direction)) for sim in sims]


def number(sim: Sim, name: str, world: World = TWO) -> float:
    row = rooms.physics(jax.tree.map(jnp.asarray, sim), world)
    return float(row[[part for part, _ in PHYSICS].index(name)])


# --- Doors and moves --------------------------------------------------------------------------------------------------


def check_door(advance: Advance) -> None:
    """It blocks, toggling opens it, one passes, it is closed from the other side, and blocks again."""
    choices = [FORWARD, TOGGLE, FORWARD, FORWARD, LEFT, LEFT, TOGGLE, FORWARD]
    sims = play(scene(DARK), *choices, advance=advance)
    assert where(sims) == [
        (3, 2, 0), (3, 2, 0), (3, 2, 0), (4, 2, 0), (5, 2, 0), (5, 2, 3), (5, 2, 2), (5, 2, 2), (5, 2, 2)
    ]  # fmt: skip
    assert [int(sim.grid[2, 4]) for sim in sims] == [CLOSED] * 2 + [OPEN] * 5 + [CLOSED] * 2
    assert [int(sim.room) for sim in sims] == [0, 0, 0, 0, 1, 1, 1, 1, 1]  # In the door it is the last room.
    assert [number(sim, "rooms_visited") for sim in sims[2:5]] == [1, 1, 2]
    changed = [(before.grid != after.grid).sum() for before, after in zip(sims, sims[1:])]
    assert changed == [0, 1, 0, 0, 0, 0, 1, 0]  # Toggling changes the cell ahead, and nothing else changes any.


def open_doors(sim: Sim, choice: jax.Array, world: World) -> Sim:
    opened = jnp.where(sim.grid == CLOSED, OPEN, sim.grid).astype(jnp.int8)
    passed = rooms.advance(sim._replace(grid=opened), choice, world)
    return rooms.advance(sim, choice, world)._replace(at=passed.at)


def toggle_everything(sim: Sim, choice: jax.Array, world: World) -> Sim:
    after, (y, x) = rooms.advance(sim, choice, world), (2, 4)
    swapped = jnp.where(sim.grid[y, x] == CLOSED, OPEN, CLOSED).astype(jnp.int8)
    return after._replace(grid=jnp.where(choice == TOGGLE, sim.grid.at[y, x].set(swapped), after.grid))


def test_a_door_blocks_until_it_is_opened():
    check_door(rooms.advance)
    with pytest.raises(AssertionError):
        check_door(open_doors)


def check_toggle_reaches_the_cell_ahead(advance: Advance) -> None:
    for choices in ([LEFT, TOGGLE], [RIGHT, TOGGLE], [LEFT, LEFT, FORWARD, TOGGLE]):
        sims = play(scene(DARK), *choices, advance=advance)
        assert (sims[-1].grid == sims[0].grid).all()


def test_toggle_reaches_the_cell_ahead_alone():
    check_toggle_reaches_the_cell_ahead(rooms.advance)
    with pytest.raises(AssertionError):
        check_toggle_reaches_the_cell_ahead(toggle_everything)


def test_turns_moves_walls_and_what_does_nothing():
    sims = play(scene(DARK), RIGHT, FORWARD, FORWARD, RIGHT, FORWARD, LEFT, *range(4, ACTIONS))
    assert where(sims) == [
        (3, 2, 0), (3, 2, 1), (3, 3, 1), (3, 3, 1), (3, 3, 2), (2, 3, 2), (2, 3, 1), *[(2, 3, 1)] * 3
    ]  # fmt: skip
    assert [number(sim, "noise") for sim in sims] == [0] * len(sims)
    assert where(play(scene(NOISY), FORWARD))[-1] == (1, 2, 0)  # Boxes cannot be entered,
    assert where(play(scene(NOISY), LEFT, FORWARD))[-1] == (1, 1, 3)  # tiles can.


# --- Noise and its switch ---------------------------------------------------------------------------------------------


def check_switch(advance: Advance, world: World = TWO) -> None:
    """Room 0 keeps the colours that were seen when its box was toggled, its box is gone, and room 1 goes on."""
    sims = play(scene(NOISY), REST, TOGGLE, *[REST] * 10, advance=advance, world=world)
    before, grids = sims[1].grid, np.stack([sim.grid for sim in sims[2:]])
    assert (sims[1].grid != sims[0].grid)[1:4, 1:4].any()
    assert before[2, 2] == BOX and (grids[:, 2, 2] == FLOOR).all()
    tiles = before[1:4, 1:4] != BOX
    assert (grids[:, 1:4, 1:4] == before[1:4, 1:4])[:, tiles].all()
    later = grids[:, 1:4, 5:8][:, sims[0].live[1:4, 5:8]]
    assert (np.diff(later, axis=0) != 0).any(axis=0).all() and (grids[:, 3, 6] == BOX).all()
    assert [number(sim, "noise") for sim in sims[1:3]] == [-1, 1]
    assert [number(sims[i], name) for i in (1, 2) for name in ("off", "pressed")] == [0, 0, 0.5, 0.5]
    assert {number(sim, "noisy_rooms") for sim in sims} == {2}


def freeze_all(sim: Sim, choice: jax.Array, world: World) -> Sim:
    after = rooms.advance(sim, choice, world)
    return after._replace(live=after.live & ~after.pressed.any())


def freeze_at_any_toggle(sim: Sim, choice: jax.Array, world: World) -> Sim:
    return rooms.advance(sim._replace(live=sim.live & (choice != TOGGLE)), choice, world)


def test_a_box_stops_the_noise_of_its_room_alone():
    check_switch(rooms.advance)
    for wrong in (freeze_all, freeze_at_any_toggle):
        with pytest.raises(AssertionError):
            check_switch(wrong)


def test_a_dead_switch_does_nothing_but_is_counted():
    with pytest.raises(AssertionError):
        check_switch(rooms.advance, DEAD)
    sims = play(scene(NOISY), TOGGLE, *[REST] * 10, world=DEAD)
    grids = np.stack([sim.grid for sim in sims])
    assert (grids[:, 2, 2] == BOX).all() and (np.diff(grids, axis=0) != 0).any(axis=0)[sims[0].live].all()
    assert [number(sims[-1], name, DEAD) for name in ("noise", "off", "pressed")] == [-1, 0, 0.5]
    assert WORLDS["noisy_dead_switch"] == WORLDS["noisy"]._replace(dead_switch=True)


LANES, STEPS = 64, 100


def check_noise(advance: Advance) -> None:
    """Tiles of a noisy room, seen or not, are drawn again at every step: uniformly, apart in space and in time."""
    sims = jax.vmap(lambda seed: scene_with(seed))(jnp.arange(LANES, dtype=jnp.uint32))
    live = np.array(scene(NOISY).live)
    choices = jnp.full(STEPS, REST, jnp.int32)
    grids = np.array(jax.vmap(lambda sim: compiled(advance, TWO)(sim, choices).grid)(sims))  # (LANES, STEPS, 9, 9)
    assert (grids[:, :, ~live] == np.array(scene(NOISY).grid)[~live]).all()
    colours = grids[:, :, live] - TILE  # (LANES, STEPS, tiles)
    assert colours.shape[-1] == 16 and colours.min() == 0 and colours.max() == COLOURS - 1
    shares = np.stack([(colours == colour).mean(axis=(0, 1)) for colour in range(COLOURS)])
    error = 5 * np.sqrt(5 / 36 / (LANES * STEPS))
    assert np.abs(shares - 1 / COLOURS).max() < error
    for same in (colours[:, 1:] == colours[:, :-1], colours[..., 1:] == colours[..., :-1], colours[1:] == colours[:-1]):
        assert abs(same.mean() - 1 / COLOURS) < 5 * np.sqrt(5 / 36 / same.size)


def scene_with(seed: jax.Array) -> Sim:
    return scene(NOISY)._replace(seed=jax.random.key_data(jax.random.key(seed)))


def same_noise(sim: Sim, choice: jax.Array, world: World) -> Sim:
    return rooms.advance(sim._replace(clock=jnp.zeros((), jnp.int32)), choice, world)


def seen_noise(sim: Sim, choice: jax.Array, world: World) -> Sim:
    here = rooms.within(sim.rooms[sim.room], world.cells)
    after = rooms.advance(sim._replace(live=sim.live & here), choice, world)
    return after._replace(live=sim.live)


def floors_too(sim: Sim, choice: jax.Array, world: World) -> Sim:
    return rooms.advance(sim._replace(live=sim.grid != WALL), choice, world)


def test_noise_is_uniform_and_independent_in_the_tiles_of_noisy_rooms():
    check_noise(rooms.advance)
    for wrong in (same_noise, seen_noise, floors_too):
        with pytest.raises(AssertionError):
            check_noise(wrong)


# --- What is seen -----------------------------------------------------------------------------------------------------

View = Callable[[Sim], jax.Array]

# A scene, actions, and what is then seen: the agent is in the middle of the lowest row.
SEEN = {
    "in front of a closed door": (
        DARK, [],
        """
        ???????
        ???????
        ???????
        ???????
        ???????
        ?##D##?
        ?#...#?
        """,
    ),
    "in front of an open door": (
        DARK, [TOGGLE],
        """
        ???????
        ?#####?
        ?#...#?
        ?#...#?
        ??...??
        ?##O##?
        ?#...#?
        """,
    ),
    "in the door": (
        DARK, [TOGGLE, FORWARD],
        """
        ???????
        ???????
        ?#####?
        ?#...#?
        ?#...#?
        ?#...#?
        ??#O#??
        """,
    ),
    "a box hides nothing": (
        NOISY, [],
        """
        ???????
        ???????
        ???????
        ?###D#?
        ?#cda#?
        ?#bBf#?
        ?#aae#?
        """,
    ),
}  # fmt: skip


def drawn(symbols: np.ndarray) -> list[str]:
    return ["".join(MARKS[symbol] for symbol in row) for row in np.asarray(symbols).reshape(VIEW, VIEW)]


@cache
def compiled_view(view: View) -> Callable:
    return jax.jit(jax.vmap(view))


def check_views(view: View) -> None:
    sims = [play(scene(drawing), *choices)[-1] for drawing, choices, _ in SEEN.values()]
    symbols = compiled_view(view)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *sims))
    assert [drawn(one) for one in symbols] == [expected.split() for _, _, expected in SEEN.values()]


def through_walls(sim: Sim) -> jax.Array:
    at = jnp.clip(sim.at[None] + jnp.asarray(rooms.AHEAD)[sim.direction], 0, len(sim.grid) - 1)
    return sim.grid[at[:, 1], at[:, 0]].astype(jnp.int32)


def facing_up(sim: Sim) -> jax.Array:
    return rooms.view(sim._replace(direction=jnp.full_like(sim.direction, 3)))


def mirrored(sim: Sim) -> jax.Array:
    return rooms.view(sim).reshape(VIEW, VIEW)[:, ::-1].ravel()


def test_walls_and_closed_doors_hide_what_is_behind_them():
    check_views(rooms.view)
    for wrong in (through_walls, facing_up, mirrored):
        with pytest.raises(AssertionError):
            check_views(wrong)


def check_turns_with_the_agent(view: View) -> None:
    """A world that is turned with the agent in it looks the same; the agent alone sees it turned."""
    sims = layouts("noisy", 40)
    size = sims.grid.shape[-1] - 1
    seen = np.array(compiled_view(view)(sims))
    turned = sims
    for _ in range(3):
        x, y = turned.at.T
        turned = turned._replace(
            grid=np.rot90(turned.grid, -1, axes=(1, 2)),  # Clockwise, as a turn to the right.
            at=np.stack([size - y, x], axis=1), direction=(turned.direction + 1) % 4,
        )  # fmt: skip
        np.testing.assert_array_equal(compiled_view(view)(turned), seen)
    around = [np.array(compiled_view(view)(sims._replace(direction=np.full_like(sims.direction, d)))) for d in range(4)]
    near = np.stack(around).reshape(4, -1, VIEW, VIEW)[:, :, -2:, 2:5]  # Two rows of three cells around the agent.
    for d in range(4):
        left, ahead, right = near[d, :, 1, 0], near[d, :, 0, 1], near[d, :, 1, 2]
        np.testing.assert_array_equal(near[(d + 1) % 4, :, 0, 1], right)
        np.testing.assert_array_equal(near[(d + 3) % 4, :, 0, 1], left)
        np.testing.assert_array_equal(near[(d + 1) % 4, :, 1, 0], ahead)


def test_what_is_seen_turns_with_the_agent():
    check_turns_with_the_agent(rooms.view)
    for wrong in (facing_up, mirrored):
        with pytest.raises(AssertionError):
            check_turns_with_the_agent(wrong)


# --- Layouts ----------------------------------------------------------------------------------------------------------


@cache
def layouts(name: str, num: int = 500) -> Sim:
    """Starts, as NumPy's, (num, ...)."""
    keys = jax.random.split(jax.random.key(3), num)
    return jax.tree.map(np.array, jax.jit(jax.vmap(lambda key: rooms.start(key, WORLDS[name])))(keys))


def one(sims: Sim, i: int) -> Sim:
    return jax.tree.map(lambda leaf: leaf[i].copy(), sims)


def interiors(sim: Sim) -> np.ndarray:
    """(rooms, cells, cells)"""
    masks = np.zeros((len(sim.rooms), *sim.grid.shape), bool)
    for mask, (x, y, right, below) in zip(masks, sim.rooms):
        mask[y + 1 : below, x + 1 : right] = True
    return masks


def reached(sim: Sim) -> np.ndarray:
    """Cells one can walk to when doors are opened and boxes are left where they are."""
    free, seen = ~np.isin(sim.grid, [WALL, BOX]), np.zeros(sim.grid.shape, bool)
    queue = deque([tuple(sim.at[::-1])])
    while queue:
        y, x = queue.popleft()
        if free[y, x] and not seen[y, x]:
            seen[y, x] = True
            queue.extend([(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)])
    return seen


def check_layout(sim: Sim) -> None:
    inside, (cells, _) = interiors(sim), sim.grid.shape
    low, high = sim.rooms[:, :2], sim.rooms[:, 2:]
    assert low.min() >= 0 and high.max() < cells
    assert np.isin(high - low + 1, [4, 5, 6, 7, 8]).all()
    assert inside.sum(axis=0).max() == 1  # No cell is in two rooms,
    assert ((sim.grid == WALL) | (sim.grid == CLOSED))[~inside.any(axis=0)].all()  # and between them are walls.
    doors = np.argwhere(sim.grid == CLOSED)
    beside = [sorted(np.argwhere(inside[:, y - 1 : y + 2, x - 1 : x + 2].any(axis=(1, 2))).ravel()) for y, x in doors]
    assert sorted(beside) == [[i, i + 1] for i in range(len(inside) - 1)]  # One from each room to the next.
    reach = reached(sim)
    assert ((sim.grid != BOX) & inside.any(axis=0) <= reach).all()
    assert inside[0, sim.at[1], sim.at[0]] and sim.grid[sim.at[1], sim.at[0]] != BOX
    boxes = (inside & (sim.grid == BOX)).sum(axis=(1, 2))
    assert (boxes == sim.noisy).all()
    tiles = inside[sim.noisy].any(axis=0) & (sim.grid != BOX)
    assert (sim.live == tiles).all() and ((sim.grid >= TILE) == tiles).all()


def shifted(sim: Sim) -> Sim:
    return sim._replace(rooms=sim.rooms + np.array([[0] * 4] + [[1, 0, 1, 0]] * (len(sim.rooms) - 1)))


def no_door(sim: Sim) -> Sim:
    sim.grid[tuple(np.argwhere(sim.grid == CLOSED)[0])] = WALL
    return sim


def another_box(sim: Sim) -> Sim:
    sim.grid[tuple(np.argwhere((sim.grid >= TILE) | (sim.grid == FLOOR))[0])] = BOX
    return sim


def walled_in(sim: Sim) -> Sim:
    """The box of room 0 is in front of its door."""
    (room, *_), doors = interiors(sim), sim.grid == CLOSED
    beside = sum(np.roll(doors, way, axis) for way in (-1, 1) for axis in (0, 1)) > 0
    box, front = (tuple(np.argwhere(room & there)[0]) for there in (sim.grid == BOX, beside))
    for leaf in (sim.grid, sim.live):
        leaf[box], leaf[front] = leaf[front], leaf[box]
    return sim


def elsewhere(sim: Sim) -> Sim:
    return sim._replace(at=sim.rooms[1, :2] + 1)


@pytest.mark.parametrize("name", ["noisy", "paper"])
def test_every_layout_is_a_chain_of_rooms_behind_doors(name):
    sims = layouts(name)
    for i in range(500):
        check_layout(one(sims, i))
    for wrong in (shifted, no_door, another_box, walled_in, elsewhere):
        for i in np.flatnonzero(sims.noisy[:, 0])[:5]:
            with pytest.raises(AssertionError):
                check_layout(wrong(one(sims, i)))


def test_layouts_are_of_all_kinds():
    for name in ("noisy", "paper"):
        sims, num = layouts(name), WORLDS[name].rooms
        sides = (sims.rooms[..., 2:] - sims.rooms[..., :2] + 1).reshape(500, -1)
        assert set(sides.ravel()) == {4, 5, 6, 7, 8}
        turn = np.sign(np.diff(sims.rooms[..., :2], axis=1))  # Where the next room is: all four ways.
        assert all((turn[..., axis] == way).any() for axis in (0, 1) for way in (-1, 1))
        assert len({grid.tobytes() for grid in sims.grid == WALL}) > 490 and len(set(sims.number)) > 490
        assert set(sims.direction) == {0, 1, 2, 3}
        share = 4 / 7 if name == "noisy" else 1 / 2  # Seven of eight kinds have a noisy room.
        assert np.abs(sims.noisy.mean(axis=0) - share).max() < 5 * 0.5 / np.sqrt(500)
        assert sims.noisy.any(axis=1).all() == (name == "noisy")
        assert len({tuple(kind) for kind in sims.noisy}) == 2**num - (name == "noisy")
        assert np.ptp(sims.rooms[:, 0, :2], axis=0).min() >= WORLDS[name].cells // 2  # Room 0 may be anywhere.


# --- As an environment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rooms:noisy", "rooms:paper"])
def test_the_host_plays_what_the_device_does_and_goes_on_from_a_state(name):
    host, other = (make_env(name, 4, episode_steps=12) for _ in range(2))
    device, spec = make_device_env(name), host.env_spec
    assert replace(device.env_spec, episode_steps=12) == spec and spec.exact_resume
    assert device.env_spec.episode_steps == 128 and spec.obs_dim == VIEW * VIEW * SYMBOLS and not spec.ends_early
    check_density("categorical", SYMBOLS, spec)
    obs, _ = host.reset(seed=5)
    fold = jax.random.fold_in
    keys = jax.vmap(lambda lane: fold(fold(jax.random.key(5), lane), 0))(jnp.arange(4))
    state, step = jax.jit(jax.vmap(device.reset))(keys), jax.jit(jax.vmap(device.step))
    rng, cells = np.random.default_rng(0), WORLDS[name.removeprefix("rooms:")].cells
    for t in range(12):
        np.testing.assert_array_equal(state.obs, obs)
        np.testing.assert_array_equal(state.position, host.position())
        np.testing.assert_array_equal(state.physics, host.physics())
        if t == 4:
            np.testing.assert_array_equal(other.set_state(host.get_state()), obs)
        action = spec.random_actions(rng, 4)
        state = step(state, jnp.asarray(action))
        obs, reward, terminated, truncated, _ = host.step(action)
        assert not reward.any() and not terminated.any() and obs.dtype == np.float32
        groups = obs.reshape(4, VIEW * VIEW, SYMBOLS)
        assert ((groups == 0) | (groups == 1)).all() and (groups.sum(axis=-1) == 1).all()
        if t >= 4:
            np.testing.assert_array_equal(other.step(action)[0], obs)
            np.testing.assert_array_equal(other.physics(), host.physics())
    assert truncated.all() and (host.position()[:, :2] < cells).all()
    before = host.position()[:, 2]
    again, _ = host.reset(options={"reset_mask": np.ones(4, bool)})
    assert (host.position()[:, 2] != before).all() and (again != obs).any()  # Another layout.


@pytest.mark.parametrize("make", [make_env, make_device_env])
def test_bad_names_get_one_sentence(make):
    with pytest.raises(UserError, match="Unknown environment 'rooms:nosy': did you mean 'rooms:noisy'"):
        make("rooms:nosy")
