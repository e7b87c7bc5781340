"""The tasks of `maze:*`: to be at one of five places of each layout."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from urlrl.envs.maze import ENDS, GOAL_RADIUS, LAYOUTS, maze_layout, near
from urlrl.tasks.maze_control import best_returns, returns, rollout, value_iteration
from urlrl.tasks.task import PlaceTask


@dataclass(frozen=True)
class MazeGoalTask(PlaceTask):
    """1 per control step that ends within GOAL_RADIUS of a place that is the same in every episode, else 0."""

    def ceiling(self, starts: np.ndarray) -> tuple[float, str]:
        """Of the controller that value iteration finds, from `starts` over one episode."""
        layout, goal = maze_layout(self.env), np.array(self.goal_position)
        if starts.shape[1] == 4:
            found = best_returns(layout.walls, starts, partial(place_reward, self.goal_position), layout.episode_steps)
        else:
            controller = value_iteration(layout.walls, goal)
            found = returns(rollout(controller.act, layout.walls, starts, layout.episode_steps), goal)
        return float(found.mean()), "value iteration"


def place_reward(goal: tuple[float, float], physics: Any, action: Any, radius: float = GOAL_RADIUS) -> Any:
    """`near`, of physics rows (*B, P) that begin with x and y."""
    del action
    return near(physics[..., :2], np.array(goal), radius)


def maze_tasks() -> dict[str, MazeGoalTask]:
    """By name, `maze_<layout>[_mass][_cells]_goal_<1 to 5>`: acted out from the layout's fixed start."""
    tasks = {}
    for layout_name, end in product(LAYOUTS, ENDS):
        layout, fixed = LAYOUTS[layout_name], f"maze:{layout_name}_fixed{end}"
        for number, (x, y) in enumerate(layout.goals.tolist(), 1):
            name = f"maze_{layout_name}{end}_goal_{number}"
            tasks[name] = MazeGoalTask(
                name,
                fixed,
                (f"maze:{layout_name}{end}", fixed),
                reward=partial(place_reward, (x, y)),
                episode_steps=layout.episode_steps,
                option_steps=10,
                goal_position=(x, y),
            )
    return tasks
