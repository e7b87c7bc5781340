"""The reward tasks of FRE (https://arxiv.org/abs/2402.17135): a place, a direction, a random landscape, a path.

    reach      1 within a radius of a place, else 0 (the paper: 0 and -1)
    move       v . direction
    linear     clip(c^T s, -1, 1), of position and velocity (ours; the paper's linear family leaves the position out)
    simplex    -1 + 1/2 [n_0 > 0.3] + v . (n_1, n_2): simplex noise over the arena; components below 1/2 count as 0
    path       1/2 [on it] + v . (where it leads), on a few strips of cells; on the edges there is no direction
    posture    1 where |(obs - g) / sigma| is below a radius, else 0 (the paper: 0 and -1), of walker and cheetah

The first five are in two arenas: OGBench's large ant maze, whose walls, coordinates and strips of cells are the
paper's, and `maze:rings_mass`, a point mass. **Scores compare with published ones in neither**: data and bodies differ,
and starts, which are those of the environments. The noise is simplex noise, but another draw of it than the paper's
package makes. The postures g are states of ours, drawn from our sets `walker` and `cheetah`; sigma and radii are the
paper's, and with them come the walker's and the cheetah's tasks of velocity (`urlrl.tasks.urlb`).
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from urlrl.envs.maze import CELLS, LAYOUTS, MASS, maze_layout
from urlrl.envs.rewards import library
from urlrl.tasks.kinematics import by_rows
from urlrl.tasks.maze import MazeGoalTask, place_reward
from urlrl.tasks.maze_control import best_returns
from urlrl.tasks.task import PlaceTask, Task
from urlrl.tasks.urlb import suite_body, urlb_task


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


def move(arena: Arena, direction: tuple[float, float], physics: Any, action: Any) -> Any:
    """Physics (*B, P) to (*B,), of NumPy or of JAX; the action is not looked at, here and below."""
    return _velocity(arena, physics) @ np.array(direction)


def linear(arena: Arena, weights: tuple[float, ...], physics: Any, action: Any) -> Any:
    """Of x and y in half the arena's sizes, from its middle, and of vx and vy."""
    half = np.array([arena.columns, arena.rows]) / 2
    place = (physics[..., :2] - np.array(arena.corner)) / half - 1
    xp = library(physics)
    state = xp.concatenate([place, _velocity(arena, physics)], axis=-1)
    return xp.clip(state @ np.array(weights), -1, 1)


def simplex(arena: Arena, seed: int, physics: Any, action: Any) -> Any:
    at = _cell(arena, physics)
    height, vx, vy = (library(physics).asarray(field)[at] for field in _landscape(arena, seed))
    velocity = _velocity(arena, physics)
    return -1 + 0.5 * (height > 0.3) + velocity[..., 0] * vx + velocity[..., 1] * vy


def path(arena: Arena, name: str, physics: Any, action: Any) -> Any:
    on_it, toward = map(library(physics).asarray, _strips(arena, name))
    at = _cell(arena, physics)
    return 0.5 * on_it[at] + (_velocity(arena, physics) * toward[at]).sum(axis=-1)


def edges(arena: Arena, physics: Any, action: Any) -> Any:
    row, column = _cell(arena, physics)
    least = library(physics).minimum
    away = least(least(row, arena.rows - 1 - row), least(column, arena.columns - 1 - column))
    return 0.5 * (away < arena.border)


def _velocity(arena: Arena, physics: Any) -> Any:
    return physics[..., arena.velocity : arena.velocity + 2] / arena.speed


def _cell(arena: Arena, physics: Any) -> tuple[Any, Any]:
    """Row and column; what is outside counts as the nearest cell."""
    xp = library(physics)
    cells = xp.floor(physics[..., :2] - np.array(arena.corner)).astype(np.int32)
    return xp.clip(cells[..., 1], 0, arena.rows - 1), xp.clip(cells[..., 0], 0, arena.columns - 1)


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
    shared: dict[str, Any] = {"env": ANTMAZE_ENV, "runs_on": (ANTMAZE_ENV,), "episode_steps": 2000}
    tasks: list[Task] = [
        PlaceTask(
            f"antmaze_large_reach_{name}", reward=partial(place_reward, (x, y), radius=PLACE_RADIUS),
            goal_position=(x, y), **shared,
        )
        for name, (x, y) in PLACES.items()
    ]  # fmt: skip
    tasks += [Task(f"antmaze_large_{name}", reward=reward, **shared) for name, reward in _rewards(ANTMAZE).items()]
    return {task.name: task for task in tasks}


class Body(NamedTuple):
    """A body of dm_control's suite and the states to be in."""

    env: str
    sigma: tuple[float, ...]  # (obs,): what differences of observations are measured in
    radius: float
    goals: tuple[tuple[float, ...], ...]  # physics rows


BODIES = {
    "walker": Body(
        "dmc:walker_walk",
        (0.72130, 0.67750, 0.76382, 0.63957, 0.68494, 0.70786, 0.71132, 0.67534, 0.68181, 0.71340, 0.65228, 0.75762,
         0.73118, 0.67458, 0.36822, 2.1135, 1.8134, 10.595, 17.410, 17.837, 22.399, 16.149, 15.694, 18.540),
        0.2 * 27,  # the paper's observation has three more numbers, which hardly count
        ((-1.02, 0.84, 2.35, 1.61, -2.66, -0.67, 0.09, -1.83, -1.08, 0.78, 0.42, 3.73, 5.29, 1.25, 12.63, 14.16, -9.48,
          1.80),
         (-0.59, 7.59, 19.43, 1.77, 0.01, 0.60, 0.18, -2.66, -0.03, 0.79, -0.37, 2.72, -0.78, -1.13, -21.89, 5.70,
          -11.33, 29.63),
         (-1.11, -2.97, 4.87, 1.54, -2.15, -1.18, 1.65, -0.66, 1.02, -2.79, 0.99, 2.45, 27.63, -19.40, 4.98, -6.47,
          19.14, -5.33),
         (-0.86, 0.54, 4.87, -0.36, -2.58, 0.82, 1.82, -2.02, -1.07, 0.86, 0.44, 0.65, -0.08, -0.02, -2.80, -7.98,
          -8.99, -6.95),
         (-0.40, 8.48, 13.98, 0.78, -2.27, -0.88, 0.88, -2.41, -0.96, -2.95, -2.63, 21.40, 34.92, -30.98, 3.25, 32.87,
          -32.11, 5.85)),
    ),
    "cheetah": Body(
        "dmc:cheetah_run",
        (0.44074, 10.070, 0.51723, 0.56010, 0.51895, 0.32044, 0.55018, 0.38564, 1.9883, 1.6377, 4.3085, 12.144, 13.538,
         16.890, 7.7150, 14.346, 10.690),
        0.08 * 18,  # likewise, one more
        ((-0.13, -0.07, 0.11, 0.11, -0.20, 0.63, -0.45, -0.28, 0.31, -1.19, -0.99, -2.86, -9.09, 18.25, -4.10, -4.66,
          13.54, -11.29),
         (1.65, -0.57, -2.97, -0.25, -0.41, 0.67, -0.51, -0.54, 0.44, -0.36, -0.54, -0.76, 9.24, -8.03, -6.82, 3.17,
          0.97, -0.61),
         (-0.39, -0.11, 0.0, 0.01, 0.15, -0.20, -0.17, 0.04, 0.04, 0.49, 0.02, -1.43, 7.76, -1.83, -6.67, 0.18, 4.51,
          2.38),
         (-1.18, -0.20, -0.06, 0.14, 0.63, 0.33, -0.62, 0.44, -0.39, -2.72, -0.47, -0.91, -5.30, -5.57, 9.60, 6.37,
          -8.61, 6.39),
         (25.51, -0.03, 0.09, -0.12, 0.29, 0.05, -0.82, -0.50, -0.42, 4.94, 0.60, 3.86, -5.65, -10.81, -11.22, -11.36,
          3.52, 1.63)),
    ),
}  # fmt: skip


def observations(domain: str, physics: np.ndarray) -> np.ndarray:
    """What dm_control shows of physics rows (n, 18): (n, 24) of the walker, (n, 17) of the cheetah."""
    if domain == "cheetah":
        return physics[:, 1:]  # all but x
    kinematics, torso = suite_body(domain)
    pose = kinematics(physics)
    axes = [pose.orientation(body)[:, [0, 0], [0, 2]] for body in range(1, len(kinematics.bodies))]
    return np.concatenate([*axes, pose.position(torso)[:, 2:], physics[:, kinematics.nq :]], axis=1)


def posture(domain: str, number: int, physics: np.ndarray, action: np.ndarray | None) -> np.ndarray:
    """Of BODIES[domain].goals[number]."""
    body = BODIES[domain]
    goal = observations(domain, np.array(body.goals[number])[None])

    def near(rows: np.ndarray) -> np.ndarray:
        away = (observations(domain, rows) - goal) / np.array(body.sigma)
        return (np.linalg.norm(away, axis=1) < body.radius).astype(np.float64)

    return by_rows(near, physics)


@dataclass(frozen=True)
class PostureTask(Task):
    """To be in a state of the body, wherever it is."""

    domain: str = ""
    number: int = 0

    def goal_obs(self, env: Any) -> np.ndarray:
        return observations(self.domain, np.array(BODIES[self.domain].goals[self.number])[None])[0].astype(np.float32)


def _postures(domain: str) -> dict[str, Task]:
    shared = urlb_task(f"{domain}_walk")
    return {
        f"{domain}_posture_{number + 1}": PostureTask(
            f"{domain}_posture_{number + 1}", shared.env, shared.runs_on, reward=partial(posture, domain, number),
            domain=domain, number=number,
        )
        for number in range(len(BODIES[domain].goals))
    }  # fmt: skip


@cache
def _tasks() -> dict[str, Task]:
    return _antmaze() | _rings(MASS) | _rings(f"{MASS}{CELLS}") | _postures("walker") | _postures("cheetah")


def fre_task(name: str) -> Task:
    """A task of `urlrl.tasks.catalogue.FRE_TASKS`."""
    return _tasks()[name] if name in _tasks() else urlb_task(name)
