"""The reward tasks of FRE (https://arxiv.org/abs/2402.17135): a place, a direction, a random landscape, a path.

    reach      1 within a radius of a place, else 0 (the paper: 0 and -1)
    move       v . direction
    linear     clip(c^T s, -1, 1), of position and velocity (ours: held-out members of FRE's linear family)
    simplex    -1 + 1/2 [n_0 > 0.3] + v . (n_1, n_2): simplex noise over the arena; components below 1/2 count as 0
    path       1/2 [on it] + v . (where it leads), on a few strips of cells; on the edges there is no direction

They are in two arenas: OGBench's large ant maze, whose walls, coordinates and strips of cells are the paper's, and
`maze:rings_mass`, a point mass. **Scores compare with published ones in neither**: data and bodies differ, and starts,
which are those of the environments. The noise is simplex noise, but another draw of it than the paper's package makes.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from urlrl.envs.maze import CELLS, LAYOUTS, MASS, MazeGoalTask, maze_layout, place_reward
from urlrl.envs.ogbench import OGBENCH_TASKS
from urlrl.envs.tasks import PlaceTask, Task


class Strip(NamedTuple):
    """A rectangle of cells, both ends included, and where a path leads on it."""

    x: tuple[int, int]
    y: tuple[int, int]
    toward: tuple[int, int]


@dataclass(frozen=True)
class Arena:
    """Cells of 1 m, and how a physics row is read."""

    corner: tuple[float, float]  # x, y in m of cell (0, 0)'s corner
    columns: int
    rows: int
    velocity: int  # where vx, vy stand in a physics row
    speed: float  # m/s that count as 1
    border: int  # cells that the edges are wide
    noise_length: float  # m per unit of the noise
    paths: tuple[tuple[str, tuple[Strip, ...]], ...]  # where strips overlap, the later one counts


RINGS = Arena(
    (-4.0, -4.0), 8, 8, velocity=2, speed=1.0, border=1, noise_length=4.5,
    paths=(
        ("loop", (  # around the outside, to the left
            Strip((0, 7), (0, 0), (1, 0)), Strip((7, 7), (0, 7), (0, 1)), Strip((0, 7), (7, 7), (-1, 0)),
            Strip((0, 0), (1, 7), (0, -1)),
        )),
        ("center", (  # around the block in the middle, to the right
            Strip((2, 5), (5, 5), (1, 0)), Strip((5, 5), (2, 5), (0, -1)), Strip((2, 5), (2, 2), (-1, 0)),
            Strip((2, 2), (2, 4), (0, 1)),
        )),
    ),
)  # fmt: skip
ANTMAZE = Arena(
    (0.0, 0.0), 36, 24, velocity=15, speed=1 / 0.33820298, border=3, noise_length=20.0,
    paths=(
        ("loop", (
            Strip((22, 32), (14, 17), (-1, 0)), Strip((21, 35), (0, 2), (1, 0)), Strip((33, 35), (3, 17), (0, 1)),
            Strip((18, 20), (0, 6), (0, -1)),
        )),
        ("center", (
            Strip((3, 20), (7, 9), (-1, 0)), Strip((0, 2), (3, 9), (0, -1)), Strip((0, 17), (0, 2), (1, 0)),
        )),
    ),
)  # fmt: skip
ANTMAZE_ENV = "ogbench:antmaze-large-v0"
PLACES = {
    "bottom": (28.0, 0.0),
    "left": (0.0, 15.0),
    "top": (35.0, 24.0),
    "center": (12.0, 24.0),
    "right": (33.0, 16.0),
}
PLACE_RADIUS = 2.0  # m, of these
DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
LINEAR_SEED = 2402  # of the weights of the linear tasks


def move(arena: Arena, direction: tuple[float, float], physics: np.ndarray, action: np.ndarray | None) -> np.ndarray:
    """Physics (*B, P) to (*B,); the action is not looked at, here and below."""
    return _velocity(arena, physics) @ np.array(direction)


def linear(arena: Arena, weights: tuple[float, ...], physics: np.ndarray, action: np.ndarray | None) -> np.ndarray:
    """Of x and y in half the arena's sizes, from its middle, and of vx and vy."""
    half = np.array([arena.columns, arena.rows]) / 2
    place = (physics[..., :2] - np.array(arena.corner)) / half - 1
    state = np.concatenate([place, _velocity(arena, physics)], axis=-1)
    return np.clip(state @ np.array(weights), -1, 1)


def simplex(arena: Arena, seed: int, physics: np.ndarray, action: np.ndarray | None) -> np.ndarray:
    at = _cell(arena, physics)
    height, vx, vy = (field[at] for field in _landscape(arena, seed))
    velocity = _velocity(arena, physics)
    return -1 + 0.5 * (height > 0.3) + velocity[..., 0] * vx + velocity[..., 1] * vy


def path(arena: Arena, name: str, physics: np.ndarray, action: np.ndarray | None) -> np.ndarray:
    on_it, toward = _strips(arena, name)
    at = _cell(arena, physics)
    return 0.5 * on_it[at] + (_velocity(arena, physics) * toward[at]).sum(axis=-1)


def edges(arena: Arena, physics: np.ndarray, action: np.ndarray | None) -> np.ndarray:
    row, column = _cell(arena, physics)
    away = np.minimum(np.minimum(row, arena.rows - 1 - row), np.minimum(column, arena.columns - 1 - column))
    return 0.5 * (away < arena.border)


def _velocity(arena: Arena, physics: np.ndarray) -> np.ndarray:
    return physics[..., arena.velocity : arena.velocity + 2] / arena.speed


def _cell(arena: Arena, physics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column; what is outside counts as the nearest cell."""
    column, row = np.moveaxis(np.floor(physics[..., :2] - np.array(arena.corner)).astype(int), -1, 0)
    return np.clip(row, 0, arena.rows - 1), np.clip(column, 0, arena.columns - 1)


@cache
def _strips(arena: Arena, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which cells are on a path, (rows, columns), and where it leads from each, (rows, columns, 2)."""
    on_it, toward = np.zeros((arena.rows, arena.columns)), np.zeros((arena.rows, arena.columns, 2))
    for strip in dict(arena.paths)[name]:
        some = slice(strip.y[0], strip.y[1] + 1), slice(strip.x[0], strip.x[1] + 1)
        on_it[some], toward[some] = 1, strip.toward
    return on_it, toward


@cache
def _landscape(arena: Arena, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height and what velocities are worth in each cell, (rows, columns)."""
    y, x = np.indices((arena.rows, arena.columns)) / arena.noise_length
    fields = [simplex_noise(np.stack([x, y], axis=-1), s) for s in (seed, seed + 10, seed + 20)]
    vx, vy = (np.where(np.abs(field) < 0.5, 0.0, field) for field in fields[1:])
    return fields[0], vx, vy


def simplex_noise(points: np.ndarray, seed: int) -> np.ndarray:
    """Perlin's simplex noise in the plane: points (*B, 2) to (*B,), smooth, in [-1, 1], about one hill per unit.

    Space is cut into triangles, whose corners have random gradients; each is felt up to 1/sqrt(2) around its corner.
    """
    table = np.random.default_rng(seed).permutation(256)
    skew, unskew = (3**0.5 - 1) / 2, (3 - 3**0.5) / 6
    base = np.floor(points + skew * points.sum(axis=-1, keepdims=True))
    inside = points - base + unskew * base.sum(axis=-1, keepdims=True)
    lower = inside[..., :1] > inside[..., 1:]
    total = np.zeros(points.shape[:-1])
    for corner in (np.zeros(2), np.where(lower, [1.0, 0.0], [0.0, 1.0]), np.ones(2)):
        away = inside - corner + unskew * np.sum(corner, axis=-1, keepdims=True)
        i, j = np.moveaxis((base + corner).astype(int) & 255, -1, 0)
        angle = 2 * np.pi / 256 * table[(table[i] + j) & 255]
        fade = np.maximum(0.5 - np.square(away).sum(axis=-1), 0) ** 4
        total += fade * (away[..., 0] * np.cos(angle) + away[..., 1] * np.sin(angle))
    return 99.2 * total  # The largest sum is 1 / 99.2.


@dataclass(frozen=True)
class MazeRewardTask(Task):
    """A reward in a maze of a point mass, from anywhere in it."""

    def ceiling(self, starts: np.ndarray) -> tuple[float, str]:
        """What the controller that value iteration finds gets from `starts` in one episode, without a discount."""
        from urlrl.envs.maze_control import best_returns

        assert self.reward is not None and self.episode_steps is not None
        found = best_returns(maze_layout(self.env).walls, starts, self.reward, self.episode_steps)
        return float(found.mean()), "value iteration"


def _rewards(arena: Arena) -> dict[str, partial]:
    """The rewards that are the same in both arenas, by the ends of their tasks' names."""
    return {
        **{f"move_{name}": partial(move, arena, direction) for name, direction in DIRECTIONS.items()},
        **{f"simplex_{i}": partial(simplex, arena, i) for i in range(1, 6)},
        "path_edges": partial(edges, arena),
        **{f"path_{name}": partial(path, arena, name) for name, _ in arena.paths},
    }


def _linear_rewards(arena: Arena) -> dict[str, partial]:
    weights = np.random.default_rng(LINEAR_SEED).uniform(-1, 1, (5, 4)).tolist()
    return {f"linear_{i}": partial(linear, arena, tuple(row)) for i, row in enumerate(weights, 1)}


def _rings(end: str) -> dict[str, Task]:
    layout, start, envs = LAYOUTS["rings"], f"maze_rings{end}", (f"maze:rings{end}", f"maze:rings_fixed{end}")
    shared: dict[str, Any] = {
        "env": envs[0], "runs_on": envs, "episode_steps": layout.episode_steps, "option_steps": 10
    }  # fmt: skip
    tasks: list[Task] = [
        MazeGoalTask(f"{start}_reach_{i}", reward=partial(place_reward, (x, y)), goal_position=(x, y), **shared)
        for i, (x, y) in enumerate(layout.goals.tolist(), 1)
    ]
    rewards = _linear_rewards(RINGS) | _rewards(RINGS)
    tasks += [MazeRewardTask(f"{start}_{name}", reward=reward, **shared) for name, reward in rewards.items()]
    return {task.name: task for task in tasks}


def _antmaze() -> dict[str, Task]:
    shared: dict[str, Any] = {
        "env": ANTMAZE_ENV, "runs_on": (ANTMAZE_ENV, *OGBENCH_TASKS["antmaze-large-v0"]), "episode_steps": 2000
    }  # fmt: skip
    tasks: list[Task] = [
        PlaceTask(
            f"antmaze_large_reach_{name}", reward=partial(place_reward, (x, y), radius=PLACE_RADIUS),
            goal_position=(x, y), **shared,
        )
        for name, (x, y) in PLACES.items()
    ]  # fmt: skip
    tasks += [Task(f"antmaze_large_{name}", reward=reward, **shared) for name, reward in _rewards(ANTMAZE).items()]
    return {task.name: task for task in tasks}


@cache
def fre_task(name: str) -> Task:
    """A task of `urlrl.envs.tasks.FRE_TASKS` in one of the arenas."""
    return (_antmaze() | _rings(MASS) | _rings(f"{MASS}{CELLS}"))[name]
