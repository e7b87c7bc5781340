"""`maze:*`: a point that moves at will among walls: all there is to learn is the way. The world is pure JAX functions.

A maze is walls (H, W), true where a cell of 1 m is solid; beyond its edge all is solid. Positions are metres from its
middle: x grows with the column, y with the row, so row 0 is the lowest, and cell (i, j) covers
[j, j + 1) x [i, i + 1) - (W, H) / 2. Drawings have the highest row on top, as on paper.

A control step is two legs, along x and then along y. Each ends MARGIN before the wall that it meets, and in the next
cell at the latest. So the point slides along walls and passes the corner of one wall, but not between two that touch at
a corner: no leg leads there.

With `_mass` in its name the point has inertia: an action is an acceleration, by half a metre per second in a step,
the speed is at most 1 m/s per axis, walls take what runs into them, and the observation is x, y, vx, vy.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.envs.base import LaneByLaneEnv
from urlrl.envs.rewards import library
from urlrl.errors import unknown
from urlrl.types import Array, DeviceEnv, DeviceState, EnvSpec

STEP = 1.0  # m per axis in one control step at full action
CONTROL_DT = 1.0  # seconds
ACCELERATION = 0.5  # m/s per axis that the velocity of a mass changes in one control step at full action
MARGIN = 0.01  # m that a leg keeps from the face of a wall: rounding must not put the point into it
GOAL_RADIUS = 1.0  # m, as long as a step: who comes at full speed can stay. It does not reach through walls of 1 m

# In the four arms of `pinwheel` a random walk does not come far, and skills have four ways to be different.
# '#' is a wall, S the start of the `_fixed` environments, 1 to 5 the goals of the tasks.
_DRAWINGS = {
    "8x8": """
        3..#.5#4
        .#.#.##.
        .#...#..
        .##....#
        ..#.#1#.
        #.#..#2.
        ...#.##.
        S#......
    """,
    "rooms": """
        ...#....
        3..#..4.
        ...#....
        .......5
        ....####
        ....#.1.
        .S..#...
        ......2.
    """,
    "rings": """
        .......1
        .##..##.
        .#...4#.
        .S.##...
        ...##...
        .#...5#.
        .##..##.
        3......2
    """,
    "medium": """
        3..#..5.#..4
        .#.#.##.#.#.
        .#...#..#.#.
        .###.#.##.#.
        ...#.#....#.
        ##.#....###.
        ...##.#.....
        .#....####.#
        .####.#..#..
        ....#.#.##.#
        .##.#.#.....
        S.#...##1#.2
    """,
    "pinwheel": """
        ........4#..........
        .#########.####5###.
        .#########.########.
        .#########.########.
        .#########.########.
        .#########.########.
        .#########.########.
        .#########.########.
        .#########.########1
        .#########.#########
        ..........S.........
        ##########.########.
        3#########.########.
        .#########.########.
        .#########.########.
        .#########.########.
        .#########.########.
        .#########.########.
        .#########.########.
        ...........#2.......
    """,
    "large": """
        3...#......#2......4
        .##.#.####.#.#####.#
        .#..#.#..#...#...#..
        .#.##.#.######.#.##.
        .#....#.#......#....
        .####.#.#.####.####.
        ......#.#....#....#.
        .######.....##.##.#.
        .#....#.#.#.....#.#.
        .#.##.#.#.#####.#.##
        ...#..........#.#...
        ##.#.####.###.#.###.
        .....#..#.#...#...#.
        .#####.##.#.#####.#.
        .#..........#.1.#.#5
        S..#####.####.#....#
    """,
}
_EPISODE_STEPS = {"8x8": 50, "rooms": 50, "rings": 50, "pinwheel": 60, "medium": 100, "large": 200}


class Level(NamedTuple):
    """What `reset` starts in: arrays, so a level may come from anywhere and be batched."""

    walls: Array  # (H, W), bool
    start: Array | None = None  # (2,): x, y in metres; None is anywhere free


class State(NamedTuple):
    obs: jax.Array  # (2,): x, y in metres; of a mass (4,): also its velocity in m/s
    walls: jax.Array  # (H, W), bool


class Layout(NamedTuple):
    """A maze that has a name."""

    walls: np.ndarray  # (H, W), bool
    start: np.ndarray  # (2,): x, y in metres, the centre of a cell
    goals: np.ndarray  # (5, 2): likewise
    episode_steps: int

    @classmethod
    def read(cls, drawing: str, episode_steps: int) -> "Layout":
        cells = np.array([list(row) for row in reversed(drawing.split())])

        def marked(mark: str) -> np.ndarray:
            return centre(np.argwhere(cells == mark)[0], cells.shape)

        goals = np.stack([marked(mark) for mark in "12345"])
        return cls(cells == "#", marked("S"), goals, episode_steps)


def cell(xy: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Row and column, int32 (*B,), of positions (*B, 2) in a maze of shape (H, W); NumPy's and JAX's arrays alike."""
    xp = xy.__array_namespace__()
    row, column = (xp.floor(xy[..., axis] + shape[1 - axis] / 2).astype(xp.int32) for axis in (1, 0))
    return row, column


def centre(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positions (*B, 2) of the centres of cells (*B, 2): (row, column) to (x, y)."""
    return cells[..., ::-1] + 0.5 - np.array(shape[::-1]) / 2


def reset(key: jax.Array, level: Level | None = None) -> State:
    """At the level's start or, where it has none, uniform over its free cells; without a level in `maze:8x8`."""
    level = LEVELS["8x8"] if level is None else level
    walls = jnp.asarray(level.walls)
    if level.start is not None:
        return State(jnp.asarray(level.start, jnp.float32), walls)
    cell_key, inside_key = jax.random.split(key)
    row, column = jnp.divmod(
        jax.random.categorical(cell_key, jnp.where(walls, -jnp.inf, 0.0).ravel()), jnp.int32(walls.shape[1])
    )
    inside = jax.random.uniform(inside_key, (2,), minval=MARGIN, maxval=1 - MARGIN)
    corner = jnp.stack([column - walls.shape[1] / 2, row - walls.shape[0] / 2])
    return State(jnp.float32(corner) + inside, walls)


def step(state: State, action: jax.Array) -> State:
    """action (2,) in [-1, 1]: the velocity along x and y in m/s, held for a second."""
    return State(_move(state.obs, STEP * jnp.clip(action, -1, 1), state.walls), state.walls)


def step_mass(state: State, action: jax.Array) -> State:
    """action (2,) in [-1, 1]: the acceleration, as a share of the largest; then a second at the new velocity."""
    xy, velocity = state.obs[:2], state.obs[2:]
    velocity = jnp.clip(velocity + ACCELERATION * jnp.clip(action, -1, 1), -STEP, STEP)
    reached = _move(xy, velocity, state.walls)
    # Less than that is the end of the next cell, where a leg ends whether or not there is a wall. What a wall has
    # stopped is as fast as it came far: so velocities always add up to the way.
    stopped = jnp.abs(reached - xy - velocity) > 2 * MARGIN
    return State(jnp.concatenate([reached, jnp.where(stopped, reached - xy, velocity)]), state.walls)


def _move(xy: jax.Array, way: jax.Array, walls: jax.Array) -> jax.Array:
    """Where two legs by `way` (2,), at most STEP each, lead from `xy` (2,)."""
    (x, y), (dx, dy), (height, width) = xy, way, walls.shape
    row, column = cell(xy, walls.shape)
    beside = walls[row, jnp.clip(column - 1, 0)], walls[row, jnp.clip(column + 1, max=width - 1)]
    x = _leg(x, dx, column, width, *beside)
    row, column = cell(jnp.stack([x, y]), walls.shape)
    beside = walls[jnp.clip(row - 1, 0), column], walls[jnp.clip(row + 1, max=height - 1), column]
    y = _leg(y, dy, row, height, *beside)
    return jnp.stack([x, y])


def _leg(
    start: jax.Array, move: jax.Array, index: Array, length: int, wall_below: jax.Array, wall_above: jax.Array
) -> jax.Array:
    """Where a move along one axis ends; it starts in cell `index` of `length`, with or without walls on either side."""
    faces = np.arange(length) - length / 2  # Tables, as compilers may round a sum of three in another order.
    low, high = (jnp.asarray(bound, jnp.float32) for bound in (faces + MARGIN, faces + 1 - MARGIN))
    low = jnp.where(wall_below | (index == 0), low[index], low[jnp.clip(index - 1, 0)])
    high = jnp.where(wall_above | (index == length - 1), high[index], high[jnp.clip(index + 1, max=length - 1)])
    return jnp.clip(start + move, low, high)


LAYOUTS = {name: Layout.read(drawing, _EPISODE_STEPS[name]) for name, drawing in _DRAWINGS.items()}
# By what follows `maze:` in the name of an environment: starts are anywhere, or those of the layout.
_MAZES = {name: (layout, Level(layout.walls)) for name, layout in LAYOUTS.items()} | {
    f"{name}_fixed": (layout, Level(layout.walls, layout.start)) for name, layout in LAYOUTS.items()
}
LEVELS = {name: level for name, (_, level) in _MAZES.items()}
MASS, CELLS = "_mass", "_cells"  # in this order at the end of a name: a point with inertia, seen by place cells
ENDS = tuple(f"{mass}{cells}" for mass in ("", MASS) for cells in ("", CELLS))


def place_cells(xy: Array, shape: tuple[int, ...]) -> Array:
    """Positions (n, 2) to (n, H W), float32: a bump of half a metre around the centre of every cell, exp(-2 d^2), walls
    included. Networks tell places on both sides of a wall apart by it as soon as they see them. NumPy computes them in
    double precision, JAX in single."""
    xp = xy.__array_namespace__()
    centres = centre(np.moveaxis(np.indices(shape), 0, -1).reshape(1, -1, 2), shape)  # float64: JAX makes it float32
    square = xp.square(xy[:, None] - centres).sum(axis=-1)
    return xp.exp(-2 * square).astype(xp.float32)


def nearest_free(position: np.ndarray, walls: np.ndarray) -> np.ndarray:
    """Positions (n, 2), where one that is in a wall or outside is moved to the centre of the nearest free cell."""
    cells = np.stack(cell(position, walls.shape), axis=-1)
    inside = np.clip(cells, 0, np.array(walls.shape) - 1)
    solid = walls[tuple(inside.T)] | (inside != cells).any(axis=1)
    centres = centre(np.argwhere(~walls), walls.shape)
    nearest = np.linalg.norm(position[:, None] - centres, axis=-1).argmin(axis=1)
    return np.where(solid[:, None], centres[nearest], position)


def _spec(name: str, layout: Layout, mass: bool) -> EnvSpec:
    centres = centre(np.argwhere(~layout.walls), layout.walls.shape)
    mean, spread = centres.mean(axis=0), np.sqrt(centres.var(axis=0) + 1 / 12)  # Uniform within each cell.
    at_rest, speeds = (0.0, 0.0) if mass else (), (STEP / 2, STEP / 2) if mass else ()
    height, width = layout.walls.shape
    return EnvSpec(
        id=f"maze:{name}", obs_dim=4 if mass else 2, action_dim=2, episode_steps=layout.episode_steps,
        control_dt=CONTROL_DT, position=("x", "y"), goal_box=(width / 2, height / 2),
        physics=(("xy", 2), ("velocity", 2)) if mass else (("xy", 2),), obs_is_physics=True,
        obs_mean=(*mean.tolist(), *at_rest), obs_std=(*spread.tolist(), *speeds), exact_resume=True,
        walls=tuple(map(tuple, layout.walls.tolist())),
    )  # fmt: skip


@jax.jit
def _reset(seed: jax.Array, level: Level) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed[0]), seed[1]), seed[2])
    return reset(key, level).obs


@jax.jit
def step_all(states: Array, actions: Array, walls: Array) -> jax.Array:
    """`step` of positions (n, 2), or `step_mass` of positions and velocities (n, 4), by actions (n, 2) in one maze: the
    same afterwards."""
    one = step_mass if states.shape[-1] == 4 else step
    return jax.vmap(lambda state, action: one(State(state, jnp.asarray(walls)), action).obs)(states, actions)


class Maze(NamedTuple):
    """What the name of an environment `maze:*` says."""

    layout: Layout
    level: Level
    spec: EnvSpec
    sees_cells: bool

    @classmethod
    def named(cls, name: str, episode_steps: int | None = None) -> "Maze":
        """Of what follows `maze:`. Raises UserError for an unknown one."""
        moves = name.removesuffix(CELLS)
        has_mass, sees_cells = moves.endswith(MASS), name.endswith(CELLS)
        if moves.removesuffix(MASS) not in _MAZES:
            raise unknown("environment", f"maze:{name}", [f"maze:{maze}{end}" for maze in _MAZES for end in ENDS])
        layout, level = _MAZES[moves.removesuffix(MASS)]
        spec = _spec(name, layout, has_mass)
        if sees_cells:
            dim = layout.walls.size + spec.obs_dim - 2
            spec = replace(spec, obs_dim=dim, obs_is_physics=False, obs_mean=None, obs_std=None)
        spec = spec if episode_steps is None else replace(spec, episode_steps=episode_steps)
        return cls(layout, level, spec, sees_cells)

    def observe(self, state: Array) -> Array:
        """What is seen, (n, obs), of states (n, physics), float32."""
        if not self.sees_cells:
            return state
        cells = place_cells(state[:, :2], self.layout.walls.shape)
        return state.__array_namespace__().concatenate([cells, state[:, 2:]], axis=1)


def device_env(name: str, episode_steps: int | None = None) -> DeviceEnv:
    """`MazeEnv` on the device: the same starts from the same keys, the same steps."""
    maze = Maze.named(name, episode_steps)
    walls, at_rest = jnp.asarray(maze.layout.walls), jnp.zeros(maze.spec.physics_dim - 2, jnp.float32)
    one_step = step_mass if at_rest.size else step

    def seen(sim: jax.Array) -> DeviceState:
        obs = maze.observe(sim[None])[0]
        return DeviceState(sim, obs, jnp.zeros((), jnp.float32), jnp.zeros((), bool), sim[:2], sim)

    def device_reset(key: jax.Array) -> DeviceState:
        return seen(jnp.concatenate([reset(key, maze.level).obs, at_rest]))

    def device_step(state: DeviceState, action: jax.Array) -> DeviceState:
        return seen(one_step(State(state.sim, walls), action).obs)

    return DeviceEnv(maze.spec, device_reset, device_step)


class MazeEnv(LaneByLaneEnv):
    """`num_envs` points in the maze of a key of `LEVELS`; with `_mass` after the name they have inertia. They see x and
    y, a mass its velocity too, or with `_cells` at the end place cells instead of x and y. There is no reward: the
    environment returns 0."""

    def __init__(self, name: str, num_envs: int, episode_steps: int | None = None):
        self.maze = Maze.named(name, episode_steps)
        super().__init__(self.maze.spec, num_envs)
        self.walls = self.maze.layout.walls
        self.level = jax.tree.map(jnp.asarray, self.maze.level)  # On the device once, not at every call.
        self.state = np.zeros((num_envs, self.env_spec.physics_dim), np.float32)  # x, y, and of a mass its velocity

    def position(self) -> np.ndarray:
        return self.state[:, :2].copy()

    def physics(self) -> np.ndarray:
        return self.state.astype(np.float64)

    def goal_obs(self, position: np.ndarray) -> np.ndarray:
        """A goal in a wall is that of the nearest free cell, at its centre. A mass is at rest there."""
        xy = nearest_free(np.asarray(position, np.float64), self.walls)
        at_rest = np.zeros((len(xy), self.state.shape[1] - 2))
        return self._observe(np.concatenate([xy, at_rest], axis=1).astype(np.float32))

    def _reset_lane(self, lane: int, seed: tuple[int, int, int]) -> None:
        self.state[lane] = 0
        self.state[lane, :2] = _reset(np.array(seed, np.uint32), self.level)

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.state = np.array(step_all(self.state, actions, self.level.walls))
        return np.zeros(self.num_envs), np.zeros(self.num_envs, bool)

    def _obs(self) -> np.ndarray:
        return self._observe(self.state)

    def _observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(self.maze.observe(state))

    def _get_state(self) -> dict[str, np.ndarray]:
        return {"xy": self.state.copy()}  # Its name in runs from before there were masses.

    def _set_state(self, state: dict[str, np.ndarray]) -> None:
        self.state = np.array(state["xy"])


def maze_layout(env: str) -> Layout:
    """That of an environment `maze:*`, with or without distractors."""
    return _MAZES[env.partition("+")[0].removeprefix("maze:").removesuffix(CELLS).removesuffix(MASS)][0]


def near(xy: Any, goal: np.ndarray, radius: float = GOAL_RADIUS) -> Any:
    """Positions (*B, 2) to (*B,): 1 where they are within `radius` m of the goal (2,), else 0."""
    away = xy - goal
    xp = library(away)
    return xp.where(xp.linalg.norm(away, axis=-1) <= radius, 1.0, 0.0)
