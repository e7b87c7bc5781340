"""Tasks by name: METRA's and one for first steps, URLB's and ExORL's, FRE's, those of the mazes, OGBench's.

A task is made, and the file that defines it imported, when it is asked for: a list of names needs neither.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from urlrl.envs.maze import ENDS, LAYOUTS
from urlrl.errors import UserError, unknown
from urlrl.loading import load_object
from urlrl.tasks.locomotion import LOCOMOTION
from urlrl.tasks.task import Task


def _maze(name: str) -> Task:
    from urlrl.tasks.maze import maze_tasks

    return maze_tasks()[name]


def _fre(name: str) -> Task:
    from urlrl.tasks.fre import fre_task

    return fre_task(name)


def _urlb(name: str) -> Task:
    from urlrl.tasks.urlb import urlb_task

    return urlb_task(name)


_CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


def _each(start: str, ends: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{start}_{end}" for end in ends)


# The tasks of zero-shot benchmarks by domain: one agent per domain is asked for all of its tasks.
MAZE_TASKS = {
    f"{name}{end}": tuple(f"maze_{name}{end}_goal_{i}" for i in range(1, len(layout.goals) + 1))
    for name, layout in LAYOUTS.items()
    for end in ENDS
}
ZERO_SHOT_TASKS: dict[str, tuple[str, ...]] = {
    "walker": _each("walker", ("stand", "walk", "run", "flip")),
    "cheetah": _each("cheetah", ("run", "run_backward", "walk", "walk_backward")),
    "quadruped": _each("quadruped", ("stand", "walk", "run", "jump")),
    "jaco": _each("jaco_site_reach", _CORNERS),  # ExORL's version: 42-d observations
    "point_mass_maze": _each("point_mass_maze_reach", _CORNERS),
}
# FRE's kinds of rewards: what is held out from the functions that it is pretrained on.
_NUMBERS = tuple(map(str, range(1, 6)))
_FRE_BOTH = (
    *_each("move", ("left", "right", "up", "down")), *_each("simplex", _NUMBERS),
    *_each("path", ("edges", "loop", "center")),
)  # fmt: skip
_FRE_MAZE = (*_each("reach", _NUMBERS), *_each("linear", _NUMBERS), *_FRE_BOTH)
_FRE_PLACES = _each("reach", ("bottom", "left", "top", "center", "right"))
FRE_TASKS = {
    **{f"maze-rings_mass{end}": _each(f"maze_rings_mass{end}", _FRE_MAZE) for end in ("", "_cells")},
    "antmaze-large": _each("antmaze_large", (*_FRE_PLACES, *_FRE_BOTH)),
    "walker": _each("walker", ("velocity_0.1", "walk", "velocity_4", "run", *_each("posture", _NUMBERS))),
    "cheetah": (*ZERO_SHOT_TASKS["cheetah"], *_each("cheetah_posture", _NUMBERS)),
}
URLB_TASKS = {
    "walker": ZERO_SHOT_TASKS["walker"],
    "quadruped": ZERO_SHOT_TASKS["quadruped"],
    "jaco": _each("jaco_brick_reach", _CORNERS),
}

TASKS: dict[str, Callable[[], Task]] = {
    **{name: partial(LOCOMOTION.__getitem__, name) for name in LOCOMOTION},
    **{name: partial(_fre, name) for names in FRE_TASKS.values() for name in names},
    **{
        name: partial(_urlb, name)
        for table in (URLB_TASKS, ZERO_SHOT_TASKS)
        for names in table.values()
        for name in names
    },
    **{name: partial(_maze, name) for names in MAZE_TASKS.values() for name in names},
}


def _with_distractors(task: Task, suffix: str) -> Task:
    on = tuple(env + suffix for env in task.runs_on)
    device = task.device and task.device + suffix
    return replace(task, name=task.name + suffix, env=task.env + suffix, runs_on=on, device=device)


def find_task(name: str) -> Task:
    """A task of `TASKS`, one of OGBench's by its package's id, or the `Task` that a user's `module:object` is. With
    "+noise10" after its name, a task of `TASKS` is the same one in environments with these distractors.

    Raises:
        UserError: there is none of this name.
    """
    if name in TASKS:
        return TASKS[name]()
    body, plus, end = name.partition("+")
    if body in TASKS:
        return _with_distractors(TASKS[body](), plus + end)
    if name.startswith("ogbench:"):
        from urlrl.tasks.ogbench import ogbench_task

        return ogbench_task(name)
    if ":" not in name:
        raise unknown("task", name, TASKS, "urlrl tasks")
    task = load_object(name, "task")
    if not isinstance(task, Task):
        raise UserError(f"Task '{name}' is a {type(task).__name__}: expected a urlrl.tasks.Task.")
    for old, now in (("features", "inputs"), ("feature_names", "input_names")):
        if old in dir(task):
            raise UserError(f"Task '{name}' has '{old}', which 0.1.0 read: expected it to be called '{now}'.")
    return task
