"""Rewards of dm_control's bodies and URLB's (https://arxiv.org/abs/2110.15191), of arrays of NumPy or of JAX: tasks
compute them from stored states, environments on the device from the simulator's own.
"""

from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Pose(Protocol):
    """n states of one model as rewards look at them: `urlrl.tasks.kinematics.Pose`, or the device's."""

    def position(self, body: int) -> Any: ...  # (n, 3), m
    def orientation(self, body: int) -> Any: ...  # (n, 3, 3)
    def local_velocity(self, body: int) -> Any: ...  # (n, 3), m/s
    def com(self) -> Any: ...  # (n, 3), m
    def com_velocity(self) -> Any: ...  # (n, 3), m/s
    def angular_momentum(self) -> Any: ...  # (n, 3), kg m^2/s


def tolerance(
    x: Any,
    lower: float,
    upper: float,
    margin: float,
    value_at_margin: float = 0.1,
    kind: Literal["gaussian", "linear", "quadratic"] = "gaussian",
) -> Any:
    """dm_control's building block of rewards: 1 where lower <= x <= upper, less the further outside. Of arrays of NumPy
    or of JAX, as are the rewards that are made of it.

    With d the distance to the bounds in units of `margin` and v the `value_at_margin`, the value outside is v^(d^2)
    (gaussian), 1 - (1 - v) d (linear) or 1 - (1 - v) d^2 (quadratic), never below 0; with margin 0 it is 0.
    """
    xp = library(x)
    outside = xp.maximum(xp.maximum(lower - x, x - upper), 0.0)
    if margin == 0:
        return xp.where(outside > 0, 0.0, 1.0)
    d = outside / margin
    if kind == "gaussian":
        return value_at_margin ** xp.square(d)
    return xp.maximum(0.0, 1 - (1 - value_at_margin) * (d if kind == "linear" else xp.square(d)))


def library(x: Any) -> Any:
    """The functions for arrays like `x`: NumPy's, or JAX's where a reward is computed on the device."""
    return jnp if isinstance(x, jax.Array) else np


def reach_reward(hand: np.ndarray, target: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """Of positions (*B, 3) in m: 1 within 5 cm, 0.1 at 10 cm."""
    return tolerance(np.linalg.norm(hand - np.asarray(target), axis=-1), 0, 0.05, 0.05)


def _ramp(x: Any, full: float) -> Any:
    """From 0 at x = 0 to 1 at `full`, which may be negative."""
    return library(x).clip(x / full, 0, 1)


def _forward(speed: float) -> Callable[[Pose], Any]:
    """A factor that is 1 from `speed` m/s on."""
    return lambda pose: (5 * _ramp(pose.com_velocity()[:, 0], speed) + 1) / 6


_WALKER: dict[str, Callable[[Pose], Any]] = {  # factors of the reward beside the posture
    "stand": lambda pose: np.ones(1),
    "walk": _forward(1.0),
    "run": _forward(8.0),
    "velocity_0.1": _forward(0.1),  # these two are FRE's (https://arxiv.org/abs/2402.17135)
    "velocity_4": _forward(4.0),
    "flip": lambda pose: (5 * _ramp(pose.angular_momentum()[:, 1], 5.0) + 1) / 6,  # kg m^2/s, forward
}


def walker_reward(move: str, pose: Pose, torso: int) -> Any:
    """(n,): a posture, 3/4 height of the torso and 1/4 upright, times how well it moves."""
    standing = tolerance(pose.position(torso)[:, 2], 1.2, np.inf, 0.6)
    return (3 * standing + _upright(pose, torso)) / 4 * _WALKER[move](pose)


_QUADRUPED: dict[str, Callable[[Pose, int], Any]] = {
    "stand": lambda pose, torso: np.ones(1),
    "walk": lambda pose, torso: _ramp(0.5 + 0.5 * pose.local_velocity(torso)[:, 0] / 0.5, 1),  # m/s
    "run": lambda pose, torso: _ramp(0.5 + 0.5 * pose.local_velocity(torso)[:, 0] / 5.0, 1),
    "jump": lambda pose, torso: _ramp(0.5 + 0.5 * pose.com()[:, 2] / 1.0, 1),  # m
}


def quadruped_reward(move: str, pose: Pose, torso: int) -> Any:
    """(n,): upright, times how well it moves forward by its own frame, or how high it is."""
    return _upright(pose, torso) * _QUADRUPED[move](pose, torso)


_CHEETAH = {"run": 10.0, "run_backward": -10.0, "walk": 2.0, "walk_backward": -2.0}  # m/s from which the reward is 1


def cheetah_reward(move: str, pose: Pose, torso: int) -> Any:
    """(n,): how fast it moves, in any posture."""
    del torso
    return _ramp(pose.com_velocity()[:, 0], _CHEETAH[move])


def _upright(pose: Pose, torso: int) -> Any:
    return (1 + pose.orientation(torso)[:, 2, 2]) / 2
