"""One body's simulation steps by the public parts of MJX, MuJoCo's JAX implementation
(mujoco.readthedocs.io/en/stable/mjx.html).

`mjx.step` has RK4's stages one after the other in the program, which takes four times as long to compile; its solver is
a loop of many small kernels (`urlrl.envs.newton` has few); and its contacts differ from MuJoCo's (`_align`).
"""

import importlib.util
import io
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from urlrl.envs.newton import ITERATIONS, constrained_acceleration
from urlrl.errors import UserError


class Sim(NamedTuple):
    """All that the next step depends on. Nothing in these bodies depends on time."""

    qpos: Any  # (nq,)
    qvel: Any  # (nv,)
    act: Any  # (na,): activations of actuators that have a memory
    qacc_warmstart: Any  # (nv,): where the solver starts


class Physics:
    """Of a model without elliptic friction cones, friction loss, or equalities other than those of tendons."""

    def __init__(self, name: str, host: mujoco.MjModel, iterations: int = ITERATIONS):
        self.mjx = mjx = import_mjx(name)
        self.model = mjx.put_model(host, impl="jax")
        self.blank = mjx.make_data(host, impl="jax")
        self.iterations = iterations  # of the solver
        self.has_free_root = host.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
        self.runge_kutta = host.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        self.is_plane = jnp.asarray(host.geom_type == mujoco.mjtGeom.mjGEOM_PLANE)
        self.is_capsule = jnp.asarray(host.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)

    def step(self, sim: Sim, ctrl: jax.Array) -> Sim:
        """After one simulation step under ctrl (nu,), in actuator units."""
        return self._runge_kutta(sim, ctrl) if self.runge_kutta else self.euler(sim, ctrl)[0]

    def euler(self, sim: Sim, ctrl: jax.Array) -> tuple[Sim, Any]:
        """After one step, and MJX's data of the state that it began in, with accelerations and forces."""
        before = self._forward(sim, ctrl)
        data = self.mjx.euler(self.model, _alone(before))
        return Sim(data.qpos, data.qvel, data.act, data.qacc), before

    def look(self, sim: Sim) -> Any:
        """MJX's data of a state as far as no forces are in it: places, velocities, centre of mass, momenta."""
        data = self.blank.replace(**sim._asdict())
        for part in (self.mjx.kinematics, self.mjx.com_pos, self.mjx.com_vel, self.mjx.subtree_vel):
            data = part(self.model, data)
        return data

    def _runge_kutta(self, sim: Sim, ctrl: jax.Array) -> Sim:
        """Runge and Kutta's fourth order: `share` weighs a stage in the sum, `ahead` is how far it leads the next."""
        h = self.model.opt.timestep

        def stage(carry: tuple, weights: tuple) -> tuple[tuple, None]:
            qpos, qvel, velocity, acceleration, _ = carry
            share, ahead = weights
            qacc = self._forward(Sim(qpos, qvel, sim.act, sim.qacc_warmstart), ctrl).qacc
            after = self._moved(sim.qpos, ahead * h * qvel), sim.qvel + ahead * h * qacc
            return (*after, velocity + share * qvel, acceleration + share * qacc, qacc), None

        still = jnp.zeros_like(sim.qvel)
        weights = jnp.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]), jnp.array([0.5, 0.5, 1.0, 0.0])
        (*_, velocity, acceleration, qacc), _ = jax.lax.scan(stage, (sim.qpos, sim.qvel, still, still, still), weights)
        return Sim(self._moved(sim.qpos, h * velocity), sim.qvel + h * acceleration, sim.act, qacc)

    def _forward(self, sim: Sim, ctrl: jax.Array) -> Any:
        """`mjx.forward`, without sensors and what nobody sees (cameras)."""
        mjx, model = self.mjx, self.model
        data = self.blank.replace(**sim._asdict(), ctrl=ctrl)
        for part in (mjx.kinematics, mjx.com_pos, mjx.tendon, mjx.crb, mjx.factor_m, mjx.collision):
            data = part(model, data)
        data = self._align(data)
        for part in (
            mjx.make_constraint, mjx.transmission, mjx.fwd_velocity, mjx.fwd_actuation, mjx.fwd_acceleration,
        ):  # fmt: skip
            data = part(model, data)
        rows = data._impl
        jacobian, reference, stiffness = rows.efc_J, rows.efc_aref, rows.efc_D
        if n := model.neq:  # An equality is what holds from both sides.
            jacobian = jnp.concatenate([jacobian, -jacobian[:n]])
            reference = jnp.concatenate([reference, -reference[:n]])
            stiffness = jnp.concatenate([stiffness, stiffness[:n]])
        mass, smooth = mjx.full_m(model, data), data.qacc_smooth
        qacc, force = constrained_acceleration(
            mass, smooth, jacobian, reference, stiffness, sim.qacc_warmstart, self.iterations
        )
        pushes = -rows.efc_D * (rows.efc_J @ qacc - rows.efc_aref).clip(max=0)  # Of contacts; an equality's may pull.
        return data.tree_replace({"qacc": qacc, "qfrc_constraint": force, "_impl.efc_force": pushes})

    def _align(self, data: Any) -> Any:
        """Turn the friction pyramids of capsules on the plane along the capsules, as MuJoCo does. MJX 3.17 turns those
        of capsules within 60 degrees of the plane and leaves steeper ones along y, which is another friction."""
        contact = data._impl.contact
        normal, axis = contact.frame[:, 0], data.geom_xmat[contact.geom2][:, :, 2]
        along = axis - normal * (axis * normal).sum(axis=1, keepdims=True)
        length = jnp.linalg.norm(along, axis=1, keepdims=True)
        lying = self.is_plane[contact.geom1] & self.is_capsule[contact.geom2]
        turned = lying[:, None] & (length > 1e-6)
        along = jnp.where(turned, along / jnp.where(turned, length, 1.0), contact.frame[:, 1])
        frame = jnp.stack([normal, along, jnp.cross(normal, along)], axis=1)
        return data.tree_replace({"_impl.contact.frame": frame})

    def _moved(self, qpos: jax.Array, way: jax.Array) -> jax.Array:
        """Where `way` (nv,), a velocity times its duration, leads from qpos."""
        if not self.has_free_root:
            return qpos + way
        half = way[3:6] / 2  # of the rotation, about axes that turn with the root
        angle = jnp.linalg.norm(half)
        w, turn = jnp.cos(angle), jnp.sinc(angle / jnp.pi) * half
        quat_w, quat_xyz = qpos[3], qpos[4:7]
        quat = jnp.append(
            quat_w * w - jnp.dot(quat_xyz, turn), quat_w * turn + w * quat_xyz + jnp.cross(quat_xyz, turn)
        )
        return jnp.concatenate([qpos[:3] + way[:3], quat / jnp.linalg.norm(quat), qpos[7:] + way[6:]])


def _alone(data: Any) -> Any:
    """The same data with a mass matrix that depends on the accelerations, so that MJX factorises M plus damping after
    M and not beside it. In jaxlib 0.10 a batch of factorisations waits in one of XLA's threads for others: two batches
    at once hang a CPU of two cores for good."""
    return data.tree_replace({"_impl.M": data._impl.M + 0 * jnp.sum(data.qacc)})


@contextmanager
def exact():
    """Networks may multiply in less than single precision; physics would fall apart. And MJX adds what broadcasts."""
    with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
        yield


def import_mjx(name: str) -> Any:
    if importlib.util.find_spec("mujoco.mjx") is None:
        raise UserError(f"Environment '{name}' needs the package mujoco-mjx: pip install 'urlrl[mjx]'.")
    with redirect_stdout(io.StringIO()):  # It prints that Warp, which is not used here, is missing.
        from mujoco import mjx
    return mjx
