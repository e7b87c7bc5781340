"""METRA's tasks (https://arxiv.org/abs/2310.08887) as CSF's released code has them, and two of ours: `point_goal` for
first steps, `half_cheetah_approach` for learning over skills.

Quadruped and humanoid: METRA steps these two frames per decision, so an episode of 200 decisions is 400 control steps
here, an option of 25 is 50, and a control step pays one half: returns keep their scale, at most 199.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from urlrl.envs.locomotion import HALF_CHEETAH_HURDLE
from urlrl.envs.rewards import library
from urlrl.tasks.task import LARGEST, GoalTask, Moment, Task

HURDLES = np.array(HALF_CHEETAH_HURDLE.hurdles)  # x in m; those at x >= 0 count


@dataclass(frozen=True)
class HurdleTask(Task):
    """+1 for each hurdle with x >= 0 that the back foot passes, -1 for passing it back."""

    def inputs(self, physics: np.ndarray, context: np.ndarray, clock: np.ndarray) -> np.ndarray:
        """x of the next hurdle (15 m if there is none), and the distance to it."""
        foot = _back_foot(physics)[:, None]
        ahead = np.where(foot <= HURDLES, HURDLES, np.inf).min(axis=1)
        ahead = np.where(np.isfinite(ahead), ahead, 15.0)
        return np.stack([ahead, np.abs(ahead - foot[:, 0])], axis=1)

    def score(self, moment: Moment) -> np.ndarray:
        return (_hurdles_left(moment.before) - _hurdles_left(moment.physics)).astype(float)


@dataclass(frozen=True)
class ApproachTask(GoalTask):
    """The metres by which a control step brings it nearer to its goal: a return is at most what the goal is away at the
    start. Every skill that moves earns or loses something, so there is a reward to learn from at once."""

    def ceiling(self, starts: np.ndarray) -> tuple[float, str]:
        """The mean distance of the goals: they are uniform in one coordinate, and bodies start near 0."""
        del starts
        return self.half / 2, LARGEST

    def score(self, moment: Moment) -> Any:
        goal = self.goal(moment.context, moment.clock - 1)
        before, after = (
            library(place).linalg.norm(place[:, : self.position] - goal, axis=1)
            for place in (moment.before, moment.physics)
        )
        return before - after


def _hurdles_left(physics: np.ndarray) -> np.ndarray:
    return ((HURDLES >= 0) & (_back_foot(physics)[:, None] <= HURDLES)).sum(axis=1)


def _back_foot(physics: np.ndarray) -> np.ndarray:
    """x of the half cheetah's back foot, (n,): down the chain of its three hinges, which all turn about y."""
    x, angle = physics[:, 0], physics[:, 2]
    for (offset_x, offset_z), hinge in zip(_BACK_LEG, (3, 4, 5)):
        x = x + np.cos(angle) * offset_x + np.sin(angle) * offset_z
        angle = angle + physics[:, hinge]
    return x


_BACK_LEG = (
    (-0.5, 0.0),
    (0.16, -0.25),
    (-0.28, -0.14),
)  # thigh, shin, foot: where each hangs (x, z), in m


LOCOMOTION: dict[str, Task] = {
    "point_goal": GoalTask(
        "point_goal", "point", ("point",), episode_steps=50, option_steps=10, input_names=("goal_x", "goal_y"),
        position=2, half=3.0, radius=0.5,
    ),
    "ant_multi_goal": GoalTask(
        "ant_multi_goal", "ant", ("ant",), episode_steps=200, input_names=("goal_x", "goal_y"), position=2, goals=4,
    ),
    "half_cheetah_goal": GoalTask(
        "half_cheetah_goal", "half_cheetah", ("half_cheetah",), episode_steps=200, input_names=("goal_x",),
        position=1, half=100.0,
    ),
    "half_cheetah_approach": ApproachTask(
        "half_cheetah_approach", "half_cheetah", ("half_cheetah",), episode_steps=200, input_names=("goal_x",),
        position=1, half=30.0,
    ),
    "half_cheetah_hurdle": HurdleTask(
        "half_cheetah_hurdle", "half_cheetah_hurdle", ("half_cheetah", "half_cheetah_hurdle"), episode_steps=200,
        input_names=("hurdle_x", "hurdle_distance"), largest=float((HURDLES >= 0).sum()),
    ),
    "quadruped_goal": GoalTask(
        "quadruped_goal", "dmc:quadruped_run", tuple(f"dmc:quadruped_{task}" for task in ("run", "walk")),
        episode_steps=400, option_steps=50, input_names=("goal_x", "goal_y"), position=2, radius=1.5, pays=0.5,
        first=3,
    ),
    "humanoid_goal": GoalTask(
        "humanoid_goal", "dmc:humanoid_run", tuple(f"dmc:humanoid_{task}" for task in ("run", "walk", "stand")),
        episode_steps=400, option_steps=50, input_names=("goal_x", "goal_y"), position=2, half=5.0, radius=1.5,
        pays=0.5, first=3,
    ),
}  # fmt: skip
