"""What is known of the mazes: shortest ways, a scripted explorer that collects data, and a near-optimal controller.

They know the walls, which agents are not told, and are what agents are compared with.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from urlrl.envs.maze import ACCELERATION, GOAL_RADIUS, MARGIN, STEP, cell, centre, near, step_all
from urlrl.errors import UserError, check

Policy = Callable[[np.ndarray], np.ndarray]  # positions (n, 2) to actions (n, 2)
Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # physics (n, 4), action (n, 2): it is not looked at -> (n,)

_SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))


class Ways(NamedTuple):
    """Shortest ways to one cell, from side to side of cells."""

    steps: np.ndarray  # (H, W), int: cells to go, 0 at the goal, -1 where no way leads there
    toward: np.ndarray  # (H, W, 2), int: row and column of the next cell; the cell itself where steps <= 0


def shortest_steps(walls: np.ndarray, goal: tuple[int, int]) -> Ways:
    """Breadth-first search in walls (H, W) from the goal, (row, column). Raises UserError for a goal in a wall."""
    if walls[goal]:
        raise UserError(f"The goal {goal} is a wall: expected row and column of a free cell.")
    height, width = walls.shape
    steps = np.full(walls.shape, -1)
    toward = np.moveaxis(np.indices(walls.shape), 0, -1)
    steps[goal] = 0
    queue = deque([goal])
    while queue:
        row, column = queue.popleft()
        for beside in ((row + up, column + right) for up, right in _SIDES):
            inside = 0 <= beside[0] < height and 0 <= beside[1] < width
            if inside and not walls[beside] and steps[beside] < 0:
                steps[beside] = steps[row, column] + 1
                toward[beside] = row, column
                queue.append(beside)
    return Ways(steps, toward)


class Navigator:
    """Walks from one random cell to the next, as the data of OGBench's navigate sets was collected
    (https://arxiv.org/abs/2410.20092): straight to the centre of the next cell on the shortest way, at 1 m/s, plus
    noise. Whoever reaches the goal draws another one.

    Args:
        walls: (H, W), bool; every free cell must be reachable from every other.
        noise: standard deviation of what is added to each coordinate of an action.
        arrived: m from the centre of its goal's cell, where a lane takes another goal.
    """

    def __init__(self, walls: np.ndarray, num_lanes: int, seed: int, noise: float = 0.5, arrived: float = 0.5):
        self.shape = walls.shape
        self.cells = np.argwhere(~walls)  # (F, 2)
        self.number = np.full(walls.shape, -1)  # of each free cell in `cells`
        self.number[tuple(self.cells.T)] = np.arange(len(self.cells))
        ways = [shortest_steps(walls, (int(row), int(column))) for row, column in self.cells]
        if len(ways) < 2 or (ways[0].steps[~walls] < 0).any():
            raise UserError(f"The walls leave {len(ways)} free cells: expected at least two, all of them connected.")
        self.toward = np.stack([way.toward for way in ways])  # (F, H, W, 2)
        self.noise, self.arrived = noise, arrived
        self.rng = np.random.default_rng(seed)
        self.goal = self.rng.integers(len(self.cells), size=num_lanes)  # numbers of cells
        self.num_reached = 0  # goals, of all lanes together

    def goals(self) -> np.ndarray:
        """(n, 2): where each lane is going, in metres."""
        return centre(self.cells[self.goal], self.shape)

    def leg(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What lies on each lane's way from positions (n, 2): the centres of the cell that it is in and of the next
        one, (n, 2) each. Draws from the generator."""
        row, column = cell(xy, self.shape)
        # Any cell but the one that the lane is in.
        draw = self.rng.integers(len(self.cells) - 1, size=len(xy))
        draw += draw >= self.number[row, column]
        reached = np.linalg.norm(self.goals() - xy, axis=1) <= self.arrived
        self.goal = np.where(reached, draw, self.goal)
        self.num_reached += int(reached.sum())
        here, there = np.stack([row, column], axis=1), self.toward[self.goal, row, column]
        return centre(here, self.shape), centre(there, self.shape)

    def act(self, xy: np.ndarray) -> np.ndarray:
        """Positions (n, 2) to actions (n, 2) in [-1, 1], float32; draws from the generator."""
        way = self.leg(xy)[1] - xy
        length = np.linalg.norm(way, axis=1, keepdims=True)
        noise = self.noise * self.rng.standard_normal(xy.shape)
        return np.clip(way / np.maximum(length, 1e-6) + noise, -1, 1).astype(np.float32)


@dataclass(frozen=True)
class Controller:
    """The greedy policy of `value_iteration`'s values."""

    walls: np.ndarray  # (H, W), bool
    goal: np.ndarray  # (2,): x, y in metres
    radius: float  # m
    gamma: float
    value: np.ndarray  # (H * k, W * k) float64 with k squares per metre, NaN in walls
    actions: np.ndarray  # (A, 2) float32: all that it chooses from

    def values(self, xy: np.ndarray) -> np.ndarray:
        """Positions (n, 2) to (n,): the discounted return that `act` gets from there at least, in a whole horizon."""
        squares = self.value.shape[0] // self.walls.shape[0]
        row, column = cell(xy * np.asarray(squares, xy.dtype), self.value.shape)
        return self.value[row, column]

    def act(self, xy: np.ndarray) -> np.ndarray:
        """Positions (n, 2) to actions (n, 2): best by the reward and the value of where they lead."""
        xy = np.asarray(xy, np.float32)
        reached = _move_each(self.walls, xy, self.actions)
        scores = near(reached, self.goal, self.radius) + self.gamma * self.values(reached)
        return self.actions[scores.reshape(len(xy), -1).argmax(axis=1)]


def value_iteration(
    walls: np.ndarray,
    goal: np.ndarray,
    radius: float = GOAL_RADIUS,
    gamma: float = 0.99,
    horizon: int | None = None,
    squares: int = 8,
) -> Controller:
    """The best way to be within `radius` m of the goal (2,) for as long as possible: 1 per control step, as the tasks.

    Positions are squares of 1 / `squares` m, and actions move by whole squares: (STEP * squares * 2 + 1)^2 of them. All
    positions of a square then move to one and the same square, walls included, so the transitions are exact; what
    is rounded is the reward, which a square has only if all of it is within the radius. Values are thus lower bounds
    of what the controller gets. It may come about a step later than the best policy of all, which has more actions.

    Args:
        horizon: control steps of an episode; None has no end. The controller does not look at the clock: to come
            sooner and to stay is best at any time from which the goal is within reach.

    Raises:
        UserError: gamma is not in (0, 1], or 1 without a horizon; a square is no larger than what legs keep from walls.
    """
    check("gamma", gamma, 0, 1 if horizon else np.nextafter(1, 0), open_low=True)
    most = math.ceil(1 / MARGIN) - 1
    if not 1 <= squares <= most:
        raise UserError(f"squares is {squares}: expected a whole number between 1 and {most}.")
    solid = np.kron(walls, np.ones((squares, squares), bool))
    at = np.argwhere(~solid)
    places = (centre(at, solid.shape) / squares).astype(np.float32)
    actions = _actions(round(STEP * squares))
    number = np.zeros(solid.shape, np.int32)
    number[tuple(at.T)] = np.arange(len(at))
    reached = _move_each(walls, places, actions)
    leads_to = number[cell(reached * np.float32(squares), solid.shape)].reshape(len(at), -1)

    corners = np.array([(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) / squares
    reward = np.min([near(places + corner, goal, radius) for corner in corners], axis=0)
    values = _backups(reward, leads_to, gamma, horizon)
    value = np.full(solid.shape, np.nan)
    value[tuple(at.T)] = values
    return Controller(walls, np.asarray(goal, np.float64), radius, gamma, value, actions)


def best_returns(walls: np.ndarray, starts: np.ndarray, reward: Reward, num_steps: int) -> np.ndarray:
    """What a mass that knows the maze and the reward is paid in `num_steps` steps, without a discount: (n,) of starts
    (n, 4), x, y, vx, vy.

    By value iteration over the steps that are left, on a lattice: squares of 1 / SQUARES m, velocities and
    accelerations in multiples of 1 / SQUARES m/s. What is rounded is where a wall has stopped a mass. The returns are
    what the controller then gets from the starts, in the maze itself and by the reward itself; a policy of finer
    accelerations may get a little more.
    """
    lattice = _lattice(walls.tobytes(), walls.shape)

    def pay(states: np.ndarray) -> np.ndarray:
        return reward(states, np.zeros((len(states), 2)))

    paid = pay(lattice.reached).astype(np.float32).reshape(lattice.leads_to.shape)
    values = [np.zeros(len(paid), np.float32)]  # with 0, 1, ... steps left
    for _ in range(num_steps - 1):
        values.append((paid + values[-1][lattice.leads_to]).max(axis=1))
    state, total = starts.astype(np.float32), np.zeros(len(starts))
    for left in reversed(range(num_steps)):
        reached = _move_each(walls, state, lattice.actions)
        scores = pay(reached) + values[left][lattice.find(reached)]
        best = scores.reshape(len(state), -1).argmax(axis=1)
        state = reached.reshape(len(state), -1, 4)[np.arange(len(state)), best]
        total += pay(state)
    return total


SQUARES = 4  # of a mass's lattice, per metre and per m/s


class Lattice(NamedTuple):
    """N states of a mass, and all that it can do in them."""

    actions: np.ndarray  # (A, 2), float32
    reached: np.ndarray  # (N * A, 4), float32: by each action from each state
    leads_to: np.ndarray  # (N, A), int32: numbers of the states nearest to these
    number: np.ndarray  # (squares in y, squares in x, speeds, speeds), int32: of each state

    def find(self, states: np.ndarray) -> np.ndarray:
        """Numbers (n,) of the states that are nearest to (n, 4)."""
        row, column = cell(states[:, :2] * np.float32(SQUARES), self.number.shape[:2])
        vx, vy = np.rint((states[:, 2:].T + STEP) * SQUARES).astype(int)
        return self.number[row, column, vx, vy]


@cache
def _lattice(walls_bytes: bytes, shape: tuple[int, int]) -> Lattice:
    walls = np.frombuffer(walls_bytes, bool).reshape(shape)
    solid = np.kron(walls, np.ones((SQUARES, SQUARES), bool))
    xy = centre(np.argwhere(~solid), solid.shape) / SQUARES
    most = round(STEP * SQUARES)
    speeds = np.arange(-most, most + 1) / SQUARES
    velocities = np.stack(np.meshgrid(speeds, speeds, indexing="ij"), axis=-1).reshape(-1, 2)
    places, ways = np.repeat(xy, len(velocities), axis=0), np.tile(velocities, (len(xy), 1))
    states = np.concatenate([places, ways], axis=1).astype(np.float32)
    actions = _actions(round(ACCELERATION * SQUARES))
    number = np.zeros((*solid.shape, len(speeds), len(speeds)), np.int32)
    number[~solid] = np.arange(len(states)).reshape(len(xy), len(speeds), len(speeds))
    reached = _move_each(walls, states, actions)
    lattice = Lattice(actions, reached, np.zeros((0, 0), np.int32), number)
    return lattice._replace(leads_to=lattice.find(reached).reshape(len(states), -1))


def _backups(reward: np.ndarray, leads_to: np.ndarray, gamma: float, horizon: int | None) -> np.ndarray:
    """V(s) = max_a r(s') + gamma V(s') of n states with rewards (n,), where s' = leads_to (n, A)."""
    if horizon is not None:
        values = np.zeros(len(reward))
        for _ in range(horizon):
            values = (reward + gamma * values)[leads_to].max(axis=1)
        return values
    # A lower bound from the start: who stays where it pays. Every backup then puts states one step further away right.
    values, before = reward / (1 - gamma), np.full(len(reward), -np.inf)
    while np.abs(values - before).max() > 1e-9:
        values, before = (reward + gamma * values)[leads_to].max(axis=1), values
    return values


def _actions(most: int) -> np.ndarray:
    """(A, 2) float32: all moves by whole squares, `most` of them per axis at full action. Of equally good ones the
    first is chosen: to stay, else the fastest.

    Who has time to spare keeps it for the end of the way: there the point may be paid before all of its square is.
    """
    moves = np.stack(np.meshgrid(*[np.arange(-most, most + 1)] * 2), axis=-1).reshape(-1, 2)
    speed, length = np.abs(moves).max(axis=1), np.square(moves).sum(axis=1)
    return (moves[np.lexsort((length, -speed, speed > 0))] / most).astype(np.float32)


def _move_each(walls: np.ndarray, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """(n * A, s): each of states (n, s), of a point or a mass, after each of actions (A, 2)."""
    return np.asarray(step_all(np.repeat(states, len(actions), axis=0), np.tile(actions, (len(states), 1)), walls))


def rollout(policy: Policy, walls: np.ndarray, start: np.ndarray, num_steps: int) -> np.ndarray:
    """Positions (num_steps + 1, n, 2), float32, of a policy that starts at (n, 2)."""
    path = [np.asarray(start, np.float32)]
    for _ in range(num_steps):
        path.append(np.asarray(step_all(path[-1], policy(path[-1]), walls)))
    return np.stack(path)


def returns(path: np.ndarray, goal: np.ndarray, gamma: float = 1.0, radius: float = GOAL_RADIUS) -> np.ndarray:
    """The sum of gamma^t r_t along positions (T + 1, n, 2), (n,), where r_0 is of the state after the first step."""
    reward = near(path[1:], goal, radius)
    return (gamma ** np.arange(len(reward))[:, None] * reward).sum(axis=0)
