"""Named features of an environment's physics rows: what tasks and reward expressions are written in.

    found = features("dmc:walker_walk")
    found["vx"](physics, action)                                   # (*B,), m/s
    evaluate([found["vx"], found["upright"]], physics, action)     # (2, *B), sharing what both need

Physics and action belong together as in a reward: the state that was reached, and the action that led there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

import mujoco
import numpy as np

from urlrl.errors import UserError
from urlrl.tasks.kinematics import Kinematics, Pose, by_rows

Of = Callable[["Moments"], np.ndarray]

# Environments of the suite whose physics row is that of the animal alone (in fetch and escape there are other things).
_SUITE = {
    "walker": ("stand", "walk", "run"),
    "quadruped": ("walk", "run"),
    "cheetah": ("run",),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
}
NAMES = (
    "ant", "half_cheetah", "half_cheetah_hurdle", "point", "point_mass_maze",
    *(f"dmc:{domain}_{task}" for domain, tasks in _SUITE.items() for task in tasks),
)  # fmt: skip


class Moments:
    """n states that were reached and the actions that led there; what several features need is computed once."""

    def __init__(self, physics: np.ndarray, action: np.ndarray, kinematics: Kinematics | None):
        self.physics, self.action, self._kinematics = physics, np.clip(action, -1.0, 1.0), kinematics

    @cached_property
    def pose(self) -> Pose:
        assert self._kinematics is not None
        return self._kinematics(self.physics)


@dataclass(frozen=True)
class Feature:
    """A number that each control step has. Called with physics (*B, P) and action (*B, A), it returns (*B,)."""

    about: str  # one line
    unit: str  # "" where there is none
    of: Of  # (n,) of n moments
    kinematics: Kinematics | None  # the body's; None where physics is not MuJoCo's

    def __call__(self, physics: np.ndarray, action: np.ndarray) -> np.ndarray:
        return evaluate([self], physics, action)[0]


def evaluate(chosen: Sequence[Feature], physics: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Several features of one environment: physics (*B, P), action (*B, A) to (len(chosen), *B)."""

    def values(physics: np.ndarray, action: np.ndarray) -> np.ndarray:
        moments = Moments(physics, action, chosen[0].kinematics)
        return np.stack([feature.of(moments) for feature in chosen])

    return by_rows(values, physics, action)


@cache
def features(env_name: str) -> dict[str, Feature]:
    """The features of an environment by name. Do not change the dict: it is shared.

    Raises:
        UserError: the environment has none.
    """
    env_name, kind = _body(env_name)
    if kind in _POINTS:
        return _features(_POINTS[kind]() | _effort(), None)
    if kind not in NAMES:
        raise UserError(
            f"Environment '{env_name}' has no named features: expected one of {', '.join(NAMES)} or a maze."
        )
    model = _model(env_name)
    torso = model.body("torso").id
    free = model.jnt_type[model.body_jntadr[torso]] == mujoco.mjtJoint.mjJNT_FREE
    root = _free_root(torso) if free else _planar_root(model)
    return _features(_whole_body(torso) | root | _joints(model, torso) | _effort(), Kinematics(model))


def has_features(env_name: str) -> bool:
    _, kind = _body(env_name)
    return kind in _POINTS or kind in NAMES


def _body(env_name: str) -> tuple[str, str]:
    """The environment without its distractors, which are no part of physics, and the name that its features go by."""
    env_name = env_name.partition("+")[0]
    return env_name, "maze" if env_name.startswith("maze:") else env_name


_Rows = dict[str, tuple[str, str, Of]]  # name -> (about, unit, of)


def _features(rows: _Rows, kinematics: Kinematics | None) -> dict[str, Feature]:
    return {name: Feature(about, unit, of, kinematics) for name, (about, unit, of) in rows.items()}


def _model(env_name: str) -> mujoco.MjModel:
    if env_name.startswith("dmc:"):
        from urlrl.envs.dmc import TASKS, silenced, suite

        with silenced("'settotalmass' is deprecated"):
            return suite.load(*TASKS[env_name]).physics.model.ptr
    from urlrl.envs.locomotion import ANT, HALF_CHEETAH, HALF_CHEETAH_HURDLE, load_model

    return load_model({body.spec.id: body for body in (ANT, HALF_CHEETAH, HALF_CHEETAH_HURDLE)}[env_name])


def _point() -> _Rows:
    return {
        "x": ("position along x", "m", lambda m: m.physics[:, 0]),
        "y": ("position along y", "m", lambda m: m.physics[:, 1]),
        "vx": ("velocity along x that the action asks for", "m/s", lambda m: m.action[:, 0]),
        "vy": ("velocity along y that the action asks for", "m/s", lambda m: m.action[:, 1]),
        "speed": ("length of that velocity", "m/s", lambda m: np.hypot(m.action[:, 0], m.action[:, 1])),
    }


def _point_mass() -> _Rows:
    return {
        "x": ("position along x", "m", partial(_column, 0)),
        "y": ("position along y", "m", partial(_column, 1)),
        "vx": ("velocity along x", "m/s", partial(_column, 2)),
        "vy": ("velocity along y", "m/s", partial(_column, 3)),
        "speed": ("length of the velocity", "m/s", lambda m: np.hypot(m.physics[:, 2], m.physics[:, 3])),
    }


_POINTS = {
    "point": _point,
    "maze": _point,
    "point_mass_maze": _point_mass,
}  # those whose physics rows say all without a model


def _effort() -> _Rows:
    return {
        "energy": ("mean square of the action", "", lambda m: np.square(m.action).mean(axis=1)),
        "effort": ("mean size of the action", "", lambda m: np.abs(m.action).mean(axis=1)),
    }


def _whole_body(torso: int) -> _Rows:
    return {
        "x": ("torso's origin along x", "m", lambda m: m.pose.position(torso)[:, 0]),
        "z": ("torso's origin above the ground", "m", lambda m: m.pose.position(torso)[:, 2]),
        "height": ("the same as z", "m", lambda m: m.pose.position(torso)[:, 2]),
        "com_height": ("centre of mass above the ground", "m", lambda m: m.pose.com()[:, 2]),
        "vx": ("velocity of the centre of mass along x", "m/s", lambda m: m.pose.com_velocity()[:, 0]),
        "vz": ("velocity of the centre of mass along z", "m/s", lambda m: m.pose.com_velocity()[:, 2]),
        "speed": (
            "horizontal speed of the centre of mass", "m/s",
            lambda m: np.hypot(m.pose.com_velocity()[:, 0], m.pose.com_velocity()[:, 1]),
        ),
        "upright": (
            "world's z of the torso's z axis: 1 upright, -1 upside down", "",
            lambda m: m.pose.orientation(torso)[:, 2, 2],
        ),
        "ly": (
            "angular momentum about the centre of mass, around y: positive tips forward", "kg m^2/s",
            lambda m: m.pose.angular_momentum()[:, 1],
        ),
    }  # fmt: skip


def _planar_root(model: mujoco.MjModel) -> _Rows:
    """Of a body that moves in the x-z plane: its pitch is the angle of one hinge, whole turns included."""
    angle, rate = int(model.joint("rooty").qposadr[0]), model.nq + int(model.joint("rooty").dofadr[0])
    return {
        "pitch": ("angle around y, whole turns included: positive tips forward", "rad", lambda m: m.physics[:, angle]),
        "pitch_vel": ("rate of the pitch", "rad/s", lambda m: m.physics[:, rate]),
    }


def _free_root(torso: int) -> _Rows:
    """Of a body that floats. Angles are yaw around z, then pitch around y, then roll around x."""

    def axis(m: Moments, world: int, own: int) -> np.ndarray:
        return m.pose.orientation(torso)[:, world, own]

    return {
        "y": ("torso's origin along y", "m", lambda m: m.pose.position(torso)[:, 1]),
        "vy": ("velocity of the centre of mass along y", "m/s", lambda m: m.pose.com_velocity()[:, 1]),
        "forward": (
            "velocity of the torso's origin along the torso's own x axis", "m/s",
            lambda m: m.pose.local_velocity(torso)[:, 0],
        ),
        "yaw": ("heading of the torso's x axis, 0 along x", "rad", lambda m: np.arctan2(axis(m, 1, 0), axis(m, 0, 0))),
        "pitch": (
            "fall of the torso's x axis below the horizontal", "rad",
            lambda m: -np.arcsin(np.clip(axis(m, 2, 0), -1, 1)),
        ),
        "roll": ("lean around the torso's x axis", "rad", lambda m: np.arctan2(axis(m, 2, 1), axis(m, 2, 2))),
        "turn": ("rate around the vertical, positive to the left", "rad/s",
                 lambda m: m.pose.angular_velocity(torso)[:, 2]),
        "lx": ("angular momentum about the centre of mass, around x", "kg m^2/s",
               lambda m: m.pose.angular_momentum()[:, 0]),
        "lz": ("angular momentum about the centre of mass, around z: positive turns left", "kg m^2/s",
               lambda m: m.pose.angular_momentum()[:, 2]),
    }  # fmt: skip


def _joints(model: mujoco.MjModel, torso: int) -> _Rows:
    """Angles and rates of the limbs' hinges, by the model's names."""
    rows: _Rows = {}
    for joint in map(model.joint, range(model.njnt)):
        if model.jnt_bodyid[joint.id] == torso:
            continue
        angle, rate = int(joint.qposadr[0]), model.nq + int(joint.dofadr[0])
        rows[joint.name] = (f"angle of joint {joint.name}", "rad", partial(_column, angle))
        rows[f"{joint.name}_vel"] = (f"rate of joint {joint.name}", "rad/s", partial(_column, rate))
    return rows


def _column(index: int, moments: "Moments") -> np.ndarray:
    return moments.physics[:, index]
