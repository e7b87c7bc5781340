"""OGBench's evaluation tasks, five of each environment (`ogbench:*`). `urlrl.envs.ogbench` says their rewards."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from urlrl.envs.ogbench import OGBENCH_TASKS, drawing, is_maze, make
from urlrl.errors import unknown
from urlrl.tasks.task import Task

THING_RADIUS = 0.04  # m, of cubes, drawers and windows; in the package it is a literal


class Part(NamedTuple):
    """One thing that a task wants: these entries of a physics row near these values."""

    columns: tuple[int, ...]
    target: tuple[float, ...]  # m, or the state of a button
    radius: float


@dataclass(frozen=True)
class OGBenchTask(Task):
    """One of the package's five evaluation tasks; see `urlrl.envs.ogbench` for the reward."""

    goal_observation: tuple[float, ...] = ()  # what the package shows as the goal

    def goal_obs(self, env: Any = None) -> np.ndarray:
        return np.array(self.goal_observation, np.float32)

    def ceiling(self, starts: np.ndarray) -> tuple[float, str]:
        del starts
        return 1.0, "success"


def _reward(parts: tuple[Part, ...], physics: np.ndarray, action: np.ndarray) -> np.ndarray:
    del action
    missing = np.zeros(physics.shape[:-1])
    for columns, target, radius in parts:
        missing += np.linalg.norm(physics[..., columns] - np.array(target), axis=-1) > radius
    return 1.0 - missing


def _parts(env: Any, task: dict[str, Any]) -> tuple[Part, ...]:
    """What one of the package's `task_infos` wants."""
    nq, nv = env.model.nq, env.model.nv
    if is_maze(env):
        start = int(env.model.joint("ball_root").qposadr[0]) if "ball_init_xy" in task else 0
        return (Part((start, start + 1), tuple(map(float, task["goal_xy"])), float(env._goal_tol)),)
    goal = task.get("goal", task)  # scenes have one level more, and other names
    cubes = goal.get("goal_xyzs", goal.get("block_xyzs", ()))
    buttons = goal.get("goal_button_states", goal.get("button_states", ()))
    places = {f"object_joint_{i}": xyz for i, xyz in enumerate(cubes)}
    places |= {f"{what}_slide": [goal[f"{what}_pos"]] for what in ("drawer", "window") if f"{what}_pos" in goal}
    parts = []
    for joint, place in places.items():
        start = int(env.model.joint(joint).qposadr[0])
        parts.append(Part(tuple(range(start, start + len(place))), tuple(map(float, place)), THING_RADIUS))
    return (*parts, *(Part((nq + nv + i,), (float(state),), 0.5) for i, state in enumerate(buttons)))


@cache
def ogbench_task(name: str) -> OGBenchTask:
    """The task that is called as its environment, `ogbench:antmaze-medium-singletask-task1-v0`.

    Raises:
        UserError: there is none, or the package is missing.
    """
    tasks = {task: base for base, names in OGBENCH_TASKS.items() for task in names}
    if name not in tasks:
        raise unknown("task", name, tasks)
    env = make(name)
    with drawing(env, (0,)):
        _, info = env.reset()
    env.close()
    base = tasks[name]
    return OGBenchTask(
        name, name, (f"ogbench:{base}", *OGBENCH_TASKS[base]), reward=partial(_reward, _parts(env, env.cur_task_info)),
        goal_observation=tuple(info["goal"].tolist()),
    )  # fmt: skip


def ogbench_tasks(base: str) -> dict[str, OGBenchTask]:
    """By name, the five tasks of `antmaze-medium-v0` or another key of `OGBENCH_TASKS`."""
    return {name: ogbench_task(name) for name in OGBENCH_TASKS[base]}
