"""Tasks: data beside an environment, by name or of one's own.

    task = Task("left", "point", ("point",), reward=lambda physics, action: -physics[:, 0])
    env = make_task_env(find_task("walker_run"), num_envs=8)

What is here is imported on first use: the files beside this one define it.
"""

import importlib
from typing import TYPE_CHECKING, Any

# Public name -> module that defines it.
_PUBLIC = {
    **{name: "urlrl.tasks.task" for name in ("GoalTask", "Moment", "PlaceTask", "Task", "TaskEnv", "make_task_env")},
    **{name: "urlrl.tasks.catalogue" for name in ("TASKS", "find_task")},
}
__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from urlrl.tasks.catalogue import TASKS as TASKS
    from urlrl.tasks.catalogue import find_task as find_task
    from urlrl.tasks.task import GoalTask as GoalTask
    from urlrl.tasks.task import Moment as Moment
    from urlrl.tasks.task import PlaceTask as PlaceTask
    from urlrl.tasks.task import Task as Task
    from urlrl.tasks.task import TaskEnv as TaskEnv
    from urlrl.tasks.task import make_task_env as make_task_env


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'urlrl.tasks' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
