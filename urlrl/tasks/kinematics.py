"""Where the bodies of a MuJoCo model are and how they move, for many states at once and without a simulator.

Rewards and features read stored physics rows through this: it is vectorised over rows in NumPy, equal to MuJoCo to
rounding, and computes only what is asked for. A vector is three components, each an array over rows, or a plain number
where that is the same in every row; they are combined elementwise, so a result depends on no other row, and what is 0
costs nothing: most constants of a model, and in a body that moves in a plane half of all there is to compute.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

import mujoco
import numpy as np

CHUNK = 8192  # rows whose intermediate arrays still fit a processor's cache; fewer cost more calls
ROUNDING = 1e-14  # how far a model's constant may be from the whole number that it stands for

Function = Callable[..., np.ndarray]
Component: TypeAlias = float | np.ndarray  # (n,)
Vector: TypeAlias = Sequence[Component]  # x, y, z
Axes: TypeAlias = Sequence[Vector]  # [k] is where axis k points

_ZERO: Vector = (0.0, 0.0, 0.0)
_EYE: Axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def by_rows(function: Function, *arrays: np.ndarray) -> np.ndarray:
    """`function` of arrays (*B, width), called on at most `CHUNK` rows at a time.

    Args:
        function: takes arrays (n, width) and returns (*F, n).

    Returns:
        (*F, *B)
    """
    shape = arrays[0].shape[:-1]
    rows = [np.reshape(array, (-1, array.shape[-1])) for array in arrays]
    starts = range(0, max(len(rows[0]), 1), CHUNK)
    parts = [function(*(array[start : start + CHUNK] for array in rows)) for start in starts]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return whole.reshape(whole.shape[:-1] + shape)


class _Joint(NamedTuple):
    kind: int  # mujoco.mjtJoint
    qpos: int  # where its coordinates start
    dof: int  # where its velocities start
    home: float  # coordinate in which a slide or a hinge leaves the body where the model places it
    anchor: Vector  # m, in the body's frame
    axis: Vector  # in the body's frame


class _Body(NamedTuple):
    parent: int
    offset: Vector  # m, in the parent's frame
    turn: Axes  # in the parent's frame
    joints: tuple[_Joint, ...]
    mass: float  # kg
    centre: Vector  # m: centre of mass in the body's frame
    inertia: Sequence[Vector]  # kg m^2: (3, 3), about the centre of mass along the body's axes


class _Frame(NamedTuple):
    position: Vector  # m
    axes: Axes
    joints: list[tuple[_Joint, Vector, Vector]]  # with anchor and axis in the world


class Kinematics:
    """One model's constants; call it with physics rows. Joints of every type are known, mocap bodies are not."""

    def __init__(self, model: mujoco.MjModel):
        self.nq, self.nv = model.nq, model.nv
        self.bodies = tuple(_body(model, i) for i in range(model.nbody))

    def __call__(self, physics: np.ndarray) -> "Pose":
        """The states of physics rows (n, nq + nv + anything): qpos, qvel, and what does not concern it."""
        return Pose(self, np.ascontiguousarray(physics[:, : self.nq + self.nv].T, np.float64))

    def subtree(self, root: int) -> list[int]:
        """The body `root` and all that hangs on it."""
        found = [root]
        for i in range(root + 1, len(self.bodies)):
            if self.bodies[i].parent in found:
                found.append(i)
        return found


class Pose:
    """n states of one model. Vectors are in the world frame; a body is given by its number in the model.

    The whole body is the subtree of body 1, which in a model of one animal is its torso.
    """

    def __init__(self, kinematics: Kinematics, rows: np.ndarray):
        self._bodies = kinematics.bodies
        self._qpos, self._qvel = rows[: kinematics.nq], rows[kinematics.nq :]
        self._whole = [i for i in kinematics.subtree(1) if self._bodies[i].mass]
        self._mass = sum(self._bodies[i].mass for i in self._whole)
        self._frames = {0: _Frame(_ZERO, _EYE, [])}
        self._twists: dict[int, tuple[Vector, Vector]] = {0: (_ZERO, _ZERO)}
        self._arms: dict[int, Vector] = {}
        self._com: Vector | None = None
        self._com_velocity: Vector | None = None

    def position(self, body: int) -> np.ndarray:
        """Origin of the body's frame (MuJoCo's xpos), (n, 3), m."""
        return self._out(self._frame(body).position)

    def point(self, body: int, offset: Sequence[float] | np.ndarray) -> np.ndarray:
        """A point that is fixed in the body, at `offset` (3,) in its frame: (n, 3), m."""
        frame = self._frame(body)
        return self._out(_plus(frame.position, _combine(_constants(offset), frame.axes)))

    def orientation(self, body: int) -> np.ndarray:
        """Rotation matrices (xmat), (n, 3, 3): column k is where the body's axis k points."""
        return np.stack([self._out(axis) for axis in self._frame(body).axes], axis=2)

    def inertial_position(self, body: int) -> np.ndarray:
        """The body's own centre of mass (xipos), (n, 3), m."""
        return self._out(self._centre(body))

    def angular_velocity(self, body: int) -> np.ndarray:
        """(n, 3), rad/s."""
        return self._out(self._twist(body)[0])

    def local_velocity(self, body: int) -> np.ndarray:
        """Velocity of the body's origin along the body's own axes, as a velocimeter there reads it: (n, 3), m/s."""
        velocity = self._twist(body)[1]
        return self._out([_dot(axis, velocity) for axis in self._frame(body).axes])

    def com(self) -> np.ndarray:
        """Centre of mass of the whole body (subtree_com), (n, 3), m."""
        return self._out(self._whole_com())

    def com_velocity(self) -> np.ndarray:
        """Velocity of the whole body's centre of mass (subtree_linvel), (n, 3), m/s."""
        return self._out(self._whole_velocity())

    def angular_momentum(self) -> np.ndarray:
        """Angular momentum of the whole body about its centre of mass (subtree_angmom), (n, 3), kg m^2/s."""
        com, velocity = self._whole_com(), self._whole_velocity()
        parts = []
        for i in self._whole:
            body, spin, axes = self._bodies[i], self._twist(i)[0], self._frame(i).axes
            apart = _cross(_minus(self._centre(i), com), _minus(self._centre_velocity(i), velocity))
            local = [_dot(axis, spin) for axis in axes]
            turns = [_dot(row, local) for row in body.inertia]
            parts += [_scale(body.mass, apart), _combine(turns, axes)]
        return self._out(reduce(_plus, parts))

    def _out(self, vector: Vector) -> np.ndarray:
        whole = np.empty((3, self._qpos.shape[1]))
        for row, component in zip(whole, vector):
            row[:] = component
        return whole.T

    def _whole_com(self) -> Vector:
        if self._com is None:
            self._com = self._mean(self._centre)
        return self._com

    def _whole_velocity(self) -> Vector:
        if self._com_velocity is None:
            self._com_velocity = self._mean(self._centre_velocity)
        return self._com_velocity

    def _mean(self, of: Callable[[int], Vector]) -> Vector:
        """Over the bodies of the whole, weighted by mass."""
        return reduce(_plus, (_scale(self._bodies[i].mass / self._mass, of(i)) for i in self._whole))

    def _arm(self, body: int) -> Vector:
        """From the body's origin to its own centre of mass."""
        if body not in self._arms:
            self._arms[body] = _combine(self._bodies[body].centre, self._frame(body).axes)
        return self._arms[body]

    def _centre(self, body: int) -> Vector:
        return _plus(self._frame(body).position, self._arm(body))

    def _centre_velocity(self, body: int) -> Vector:
        spin, velocity = self._twist(body)
        return _plus(velocity, _cross(spin, self._arm(body)))

    def _frame(self, number: int) -> _Frame:
        """As in `mj_kinematics`: from the parent's frame through the body's own joints, in their order."""
        if number not in self._frames:
            body = self._bodies[number]
            parent = self._frame(body.parent)
            position = _plus(parent.position, _combine(body.offset, parent.axes))
            axes = _turned(parent.axes, body.turn)
            joints: list[tuple[_Joint, Vector, Vector]] = []
            for joint in body.joints:
                coordinates = self._qpos[joint.qpos :]
                if joint.kind == mujoco.mjtJoint.mjJNT_FREE:
                    position, axes = list(coordinates[:3]), _axes_of(coordinates[3:7])
                    joints.append((joint, position, axes[0]))
                    continue
                anchor = _plus(position, _combine(joint.anchor, axes))
                axis = _combine(joint.axis, axes)
                joints.append((joint, anchor, axis))
                if joint.kind == mujoco.mjtJoint.mjJNT_SLIDE:
                    position = _plus(position, _scale(coordinates[0] - joint.home, axis))
                    continue
                ball = joint.kind == mujoco.mjtJoint.mjJNT_BALL
                turn = _axes_of(coordinates[:4]) if ball else _hinge(joint.axis, coordinates[0] - joint.home)
                axes = _turned(axes, turn)
                position = _minus(anchor, _combine(joint.anchor, axes))
            self._frames[number] = _Frame(position, axes, joints)
        return self._frames[number]

    def _twist(self, number: int) -> tuple[Vector, Vector]:
        """Angular velocity of a body, and velocity of its origin."""
        if number not in self._twists:
            parent, frame = self._bodies[number].parent, self._frame(number)
            spin, velocity = self._twist(parent)
            if parent:  # The world stands still.
                velocity = _plus(velocity, _cross(spin, _minus(frame.position, self._frame(parent).position)))
            for joint, anchor, axis in frame.joints:
                rates = self._qvel[joint.dof :]
                if joint.kind == mujoco.mjtJoint.mjJNT_SLIDE:
                    velocity = _plus(velocity, _scale(rates[0], axis))
                    continue
                if joint.kind == mujoco.mjtJoint.mjJNT_HINGE:
                    added = _scale(rates[0], axis)
                else:  # The last three rates turn about the body's own axes.
                    free = joint.kind == mujoco.mjtJoint.mjJNT_FREE
                    added = _combine(list(rates[3:6] if free else rates[:3]), frame.axes)
                    velocity = _plus(velocity, list(rates[:3])) if free else velocity
                if any(joint.anchor) or len(frame.joints) > 1:  # Else it turns about the origin itself.
                    velocity = _plus(velocity, _cross(added, _minus(frame.position, anchor)))
                spin = _plus(spin, added)
            self._twists[number] = spin, velocity
        return self._twists[number]


def _body(model: mujoco.MjModel, i: int) -> _Body:
    joints = []
    for j in range(model.body_jntadr[i], model.body_jntadr[i] + model.body_jntnum[i]):
        start = int(model.jnt_qposadr[j])
        joints.append(
            _Joint(
                int(model.jnt_type[j]), start, int(model.jnt_dofadr[j]), float(model.qpos0[start]),
                _constants(model.jnt_pos[j]), _constants(model.jnt_axis[j]),
            )
        )  # fmt: skip
    turn, principal = (np.array(_axes_of(quaternion)) for quaternion in (model.body_quat[i], model.body_iquat[i]))
    inertia = principal.T @ np.diag(model.body_inertia[i]) @ principal
    inertia[np.abs(inertia) < ROUNDING * np.trace(inertia)] = 0
    return _Body(
        int(model.body_parentid[i]), _constants(model.body_pos[i]), [_constants(axis) for axis in turn], tuple(joints),
        float(model.body_mass[i]), _constants(model.body_ipos[i]), [_constants(row) for row in inertia],
    )  # fmt: skip


def _constants(numbers: Sequence[float] | np.ndarray) -> list[float]:
    """As plain numbers, those that are whole but for rounding made exact."""
    exact = np.round(numbers)
    return np.where(np.abs(np.asarray(numbers) - exact) < ROUNDING, exact, numbers).tolist()


def _axes_of(quaternion: np.ndarray) -> list[list[np.ndarray]]:
    """(4,) or (4, n) to (3, 3) or (3, 3, n): [k] is where axis k points. As in MuJoCo any length will do."""
    w, x, y, z = quaternion / np.sqrt(np.square(quaternion).sum(axis=0))
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
        [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
    ]


def _hinge(axis: Vector, angle: np.ndarray) -> list[list[Component]]:
    """Rodrigues' rotation about a constant axis by `angle` (n,): row k is where axis k points."""
    x, y, z = axis
    cross = np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]])
    square = cross @ cross
    sine, cosine = np.sin(angle), np.cos(angle)
    turn: list[list[Component]] = [list(axis) for axis in _EYE]
    for k, j in np.ndindex(3, 3):
        if square[k, j] == -1:
            turn[k][j] = cosine
        elif square[k, j]:
            turn[k][j] = turn[k][j] + square[k, j] * (1 - cosine)
        if cross[k, j]:
            turn[k][j] = _add(turn[k][j], cross[k, j] * sine)
    return turn


def _turned(axes: Axes, turn: Axes) -> Axes:
    """Axes of a frame that is turned against another: row k of `turn` is where its axis k points in the other's."""
    return [_combine(row, axes) for row in turn]


def _combine(coefficients: Vector, axes: Axes) -> Vector:
    """Sum over k of coefficients[k] * axes[k]."""
    return reduce(_plus, map(_scale, coefficients, axes))


def _cross(a: Vector, b: Vector) -> Vector:
    return [_subtract(_multiply(a[i], b[j]), _multiply(a[j], b[i])) for i, j in ((1, 2), (2, 0), (0, 1))]


def _dot(a: Vector, b: Vector) -> Component:
    return reduce(_add, map(_multiply, a, b))


def _scale(factor: Component, vector: Vector) -> Vector:
    if type(factor) is float and factor == 0:
        return _ZERO
    return [_multiply(factor, component) for component in vector]


def _plus(a: Vector, b: Vector) -> Vector:
    if a is _ZERO:
        return b
    if b is _ZERO:
        return a
    return [_add(x, y) for x, y in zip(a, b)]


def _minus(a: Vector, b: Vector) -> Vector:
    return [_subtract(x, y) for x, y in zip(a, b)]


# Arithmetic of components. A plain 0 or 1 is the model's, in every row: an array is never looked into.


def _add(a: Component, b: Component) -> Component:
    if type(a) is float and a == 0:
        return b
    return a if type(b) is float and b == 0 else a + b


def _subtract(a: Component, b: Component) -> Component:
    if type(b) is float and b == 0:
        return a
    return -b if type(a) is float and a == 0 else a - b


def _multiply(a: Component, b: Component) -> Component:
    if type(a) is float:
        if a == 0:
            return 0.0
        if a == 1:
            return b
    if type(b) is float:
        if b == 0:
            return 0.0
        if b == 1:
            return a
    return a * b
