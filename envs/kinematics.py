"""Where the bodies of a MuJoCo model are and how they move, for many states at once and without a simulator.

Rewards and features read stored physics rows through this: it is vectorised over rows in NumPy, equal to MuJoCo to
rounding, and computes only what is asked for. Arrays are kept with the row as their *last* axis and combined
elementwise, so a result depends on no other row, and constants that are zero (most of a model's) cost nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mujoco
import numpy as np

CHUNK = 4096  # rows whose intermediate arrays still fit a processor's cache

Function = Callable[..., np.ndarray]


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
    anchor: np.ndarray  # (3,), m, in the body's frame
    axis: np.ndarray  # (3,), in the body's frame


class _Body(NamedTuple):
    parent: int
    offset: np.ndarray  # (3,), m, in the parent's frame
    turn: np.ndarray  # (3, 3): row k is where the body's axis k points in the parent's frame
    joints: tuple[_Joint, ...]
    mass: float  # kg
    centre: np.ndarray  # (3,), m: centre of mass in the body's frame
    principal: np.ndarray  # (3, 3): rows are the principal axes of inertia in the body's frame
    inertia: np.ndarray  # (3,), kg m^2


class _Frame(NamedTuple):
    position: np.ndarray  # (3, n) or (3, 1), m
    axes: np.ndarray  # (3, 3, n or 1): [k] is where the body's axis k points
    joints: list[tuple[_Joint, np.ndarray, np.ndarray]]  # with anchor and axis in the world, (3, n or 1)


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
        origin = np.zeros((3, 1))
        self._frames = {0: _Frame(origin, np.eye(3)[:, :, None], [])}
        self._twists = {0: (origin, origin)}
        self._centres: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._com: np.ndarray | None = None
        self._com_velocity: np.ndarray | None = None

    def position(self, body: int) -> np.ndarray:
        """Origin of the body's frame (MuJoCo's xpos), (n, 3), m."""
        return self._out(self._frame(body).position)

    def point(self, body: int, offset: np.ndarray) -> np.ndarray:
        """A point that is fixed in the body, at `offset` (3,) in its frame: (n, 3), m."""
        frame = self._frame(body)
        return self._out(frame.position + _combine(offset, frame.axes))

    def orientation(self, body: int) -> np.ndarray:
        """Rotation matrices (xmat), (n, 3, 3): column k is where the body's axis k points."""
        axes = self._frame(body).axes
        return np.broadcast_to(axes, (3, 3, self._qpos.shape[1])).T

    def inertial_position(self, body: int) -> np.ndarray:
        """The body's own centre of mass (xipos), (n, 3), m."""
        return self.point(body, self._bodies[body].centre)

    def angular_velocity(self, body: int) -> np.ndarray:
        """(n, 3), rad/s."""
        return self._out(self._twist(body)[0])

    def local_velocity(self, body: int) -> np.ndarray:
        """Velocity of the body's origin along the body's own axes, as a velocimeter there reads it: (n, 3), m/s."""
        velocity = self._twist(body)[1]
        return self._out(np.stack([_dot(axis, velocity) for axis in self._frame(body).axes]))

    def com(self) -> np.ndarray:
        """Centre of mass of the whole body (subtree_com), (n, 3), m."""
        return self._out(self._whole_com())

    def com_velocity(self) -> np.ndarray:
        """Velocity of the whole body's centre of mass (subtree_linvel), (n, 3), m/s."""
        return self._out(self._whole_velocity())

    def angular_momentum(self) -> np.ndarray:
        """Angular momentum of the whole body about its centre of mass (subtree_angmom), (n, 3), kg m^2/s."""
        com, velocity = self._whole_com(), self._whole_velocity()
        total = np.zeros((3, 1))
        for i in self._whole:
            body, (at, moves), spin = self._bodies[i], self._centre(i), self._twist(i)[0]
            total = total + body.mass * _cross(at - com, moves - velocity)
            axes = self._frame(i).axes
            for moment, principal in zip(body.inertia, body.principal):
                axis = _combine(principal, axes)
                total = total + axis * (moment * _dot(axis, spin))
        return self._out(total)

    def _out(self, vector: np.ndarray) -> np.ndarray:
        return np.broadcast_to(vector, (3, self._qpos.shape[1])).T

    def _whole_com(self) -> np.ndarray:
        if self._com is None:
            frames = [(self._bodies[i], self._frame(i)) for i in self._whole]
            parts = [body.mass * (frame.position + _combine(body.centre, frame.axes)) for body, frame in frames]
            self._com = _sum(parts) / self._mass
        return self._com

    def _whole_velocity(self) -> np.ndarray:
        if self._com_velocity is None:
            parts = [self._bodies[i].mass * self._centre(i)[1] for i in self._whole]
            self._com_velocity = _sum(parts) / self._mass
        return self._com_velocity

    def _centre(self, body: int) -> tuple[np.ndarray, np.ndarray]:
        """Where a body's own centre of mass is, and how it moves."""
        if body not in self._centres:
            frame, (spin, velocity) = self._frame(body), self._twist(body)
            arm = _combine(self._bodies[body].centre, frame.axes)
            self._centres[body] = frame.position + arm, velocity + _cross(spin, arm)
        return self._centres[body]

    def _frame(self, number: int) -> _Frame:
        """As in `mj_kinematics`: from the parent's frame through the body's own joints, in their order."""
        if number not in self._frames:
            body = self._bodies[number]
            parent = self._frame(body.parent)
            position = parent.position + _combine(body.offset, parent.axes)
            axes = _turned(parent.axes, body.turn)
            joints = []
            for joint in body.joints:
                coordinates = self._qpos[joint.qpos :]
                if joint.kind == mujoco.mjtJoint.mjJNT_FREE:
                    position, axes = coordinates[:3], _axes_of(coordinates[3:7])
                    joints.append((joint, position, axes[0]))
                    continue
                anchor = position + _combine(joint.anchor, axes)
                axis = _combine(joint.axis, axes)
                joints.append((joint, anchor, axis))
                if joint.kind == mujoco.mjtJoint.mjJNT_SLIDE:
                    position = position + axis * (coordinates[0] - joint.home)
                    continue
                ball = joint.kind == mujoco.mjtJoint.mjJNT_BALL
                turn = _axes_of(coordinates[:4]) if ball else _hinge(joint.axis, coordinates[0] - joint.home)
                axes = _turned(axes, turn)
                position = anchor - _combine(joint.anchor, axes)
            self._frames[number] = _Frame(position, axes, joints)
        return self._frames[number]

    def _twist(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Angular velocity of a body, and velocity of its origin."""
        if number not in self._twists:
            parent, frame = self._bodies[number].parent, self._frame(number)
            spin, velocity = self._twist(parent)
            if parent:  # The world stands still.
                velocity = velocity + _cross(spin, frame.position - self._frame(parent).position)
            for joint, anchor, axis in frame.joints:
                rates = self._qvel[joint.dof :]
                if joint.kind == mujoco.mjtJoint.mjJNT_SLIDE:
                    velocity = velocity + axis * rates[0]
                    continue
                if joint.kind == mujoco.mjtJoint.mjJNT_HINGE:
                    added = axis * rates[0]
                else:  # The last three rates turn about the body's own axes.
                    free = joint.kind == mujoco.mjtJoint.mjJNT_FREE
                    added = _combine(rates[3:6] if free else rates[:3], frame.axes)
                    velocity = velocity + rates[:3] if free else velocity
                if joint.anchor.any() or len(frame.joints) > 1:  # Else it turns about the origin itself.
                    velocity = velocity + _cross(added, frame.position - anchor)
                spin = spin + added
            self._twists[number] = spin, velocity
        return self._twists[number]


def _body(model: mujoco.MjModel, i: int) -> _Body:
    joints = []
    for j in range(model.body_jntadr[i], model.body_jntadr[i] + model.body_jntnum[i]):
        start = int(model.jnt_qposadr[j])
        joints.append(
            _Joint(
                int(model.jnt_type[j]), start, int(model.jnt_dofadr[j]), float(model.qpos0[start]),
                model.jnt_pos[j].copy(), model.jnt_axis[j].copy(),
            )
        )  # fmt: skip
    turn, principal = _axes_of(model.body_quat[i][:, None])[..., 0], _axes_of(model.body_iquat[i][:, None])[..., 0]
    return _Body(
        int(model.body_parentid[i]), model.body_pos[i].copy(), turn, tuple(joints), float(model.body_mass[i]),
        model.body_ipos[i].copy(), principal, model.body_inertia[i].copy(),
    )  # fmt: skip


def _axes_of(quaternion: np.ndarray) -> np.ndarray:
    """(4, n) -> (3, 3, n): [k] is where axis k points; as in MuJoCo the quaternion need not have unit length."""
    w, x, y, z = quaternion / np.sqrt(_dot(quaternion, quaternion))
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]),
            np.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]),
            np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]),
        ]
    )


def _hinge(axis: np.ndarray, angle: np.ndarray) -> list[list[np.ndarray | float]]:
    """Rodrigues' rotation about a constant axis (3,) by `angle` (n,): row k is where axis k points, as coefficients
    that are plain numbers where the angle does not matter."""
    x, y, z = axis
    cross = np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]])
    square = cross @ cross
    sine, versine = np.sin(angle), 1 - np.cos(angle)
    turn: list[list[Any]] = np.eye(3).tolist()
    for k, j in np.ndindex(3, 3):
        for wave, size in ((sine, cross[k, j]), (versine, square[k, j])):
            if size:
                turn[k][j] = turn[k][j] + size * wave
    return turn


def _combine(coefficients: Sequence | np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Sum over k of coefficients[k] * axes[k]: numbers or (n,), and (3, n), to (3, n). Zeros are left out."""
    total = None
    for coefficient, axis in zip(coefficients, axes):
        if np.ndim(coefficient) == 0:
            if coefficient == 0:
                continue
            part = axis if coefficient == 1 else coefficient * axis
        else:
            part = coefficient * axis
        total = part if total is None else total + part
    return np.zeros((3, 1)) if total is None else total


def _turned(axes: np.ndarray, turn: Sequence | np.ndarray) -> np.ndarray:
    """Axes of a frame that is turned against another: row k of `turn` is where its axis k points in the other's."""
    if isinstance(turn, np.ndarray) and turn.ndim == 2 and np.array_equal(turn, np.eye(3)):
        return axes
    parts = [_combine(row, axes) for row in turn]
    return np.stack(np.broadcast_arrays(*parts))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _sum([x * y for x, y in zip(a, b)])


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _sum(parts: Sequence[np.ndarray]) -> np.ndarray:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
