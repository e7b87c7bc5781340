"""`mjx:ant` and `mjx:half_cheetah`: `ant` and `half_cheetah` on the device, thousands at a time, by MuJoCo's own JAX
implementation (mujoco.readthedocs.io/en/stable/mjx.html) in single precision.

Everything but the solver's budget and the random numbers of a reset is that of envs/locomotion.py. A test compares one
control step with C MuJoCo's; after some seconds of contact the trajectories part, as those of any two roundings do.
"""

import importlib.util
import io
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from urlrl.envs.locomotion import ANT, FRAME_SKIP, HALF_CHEETAH, Body, load_model
from urlrl.errors import UserError, unknown
from urlrl.types import DeviceEnv, DeviceState

BODIES: dict[str, Body] = {f"mjx:{body.spec.id}": body for body in (ANT, HALF_CHEETAH)}

ITERATIONS = 4
LS_ITERATIONS = 8


class Sim(NamedTuple):
    """All that the next step depends on. The bodies have no activations, and nothing in them depends on time."""

    qpos: Any  # (nq,)
    qvel: Any  # (nv,)
    qacc_warmstart: Any  # (nv,): where the solver starts


@cache  # One environment, one compiled program.
def device_env(name: str, episode_steps: int | None = None) -> DeviceEnv:
    """The environment of a key of `BODIES`.

    Raises:
        UserError: no such environment, or a missing package.
    """
    if name not in BODIES:
        raise unknown("environment", name, BODIES)
    mjx = _import_mjx(name)
    body = BODIES[name]
    spec = replace(body.spec, id=name)
    spec = spec if episode_steps is None else replace(spec, episode_steps=episode_steps)
    physics = Physics(mjx, body)
    p = len(spec.position)

    def seen(sim: Sim, reward: jax.Array) -> DeviceState:
        obs = jnp.concatenate([sim.qpos, sim.qvel])
        return DeviceState(sim, obs, reward, jnp.zeros((), bool), sim.qpos[:p], obs)

    def reset(key: jax.Array) -> DeviceState:
        return seen(physics.reset(key), jnp.zeros((), jnp.float32))

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        action = jnp.clip(action, -1, 1)
        # Networks may multiply in less than single precision; physics would fall apart. And MJX adds what broadcasts.
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            sim = jax.lax.fori_loop(0, FRAME_SKIP, lambda _, sim: physics.step(sim, action), state.sim)
        forward = (sim.qpos[0] - state.sim.qpos[0]) / spec.control_dt
        return seen(sim, forward + body.alive_bonus - body.control_cost * jnp.square(action).sum())

    def goal_obs(key: jax.Array, position: jax.Array) -> jax.Array:
        return reset(key).obs.at[:p].set(position)

    return DeviceEnv(spec, reset, step, goal_obs)


class Physics:
    """One simulation step of a body, of MJX's public parts. `mjx.step` has RK4's stages one after the other in the
    program, which takes four times as long to compile, and its contacts differ from MuJoCo's: see `_align`."""

    def __init__(self, mjx: Any, body: Body):
        host = load_model(body)
        host.opt.iterations, host.opt.ls_iterations = ITERATIONS, LS_ITERATIONS
        self.mjx, self.model = mjx, mjx.put_model(host, impl="jax")
        self.blank = mjx.make_data(host, impl="jax")
        self.has_free_root = host.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
        self.runge_kutta = host.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        self.is_capsule = jnp.asarray(host.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE)

    def reset(self, key: jax.Array) -> Sim:
        model = self.model
        qpos_key, qvel_key = jax.random.split(key)
        qpos = model.qpos0 + jax.random.uniform(qpos_key, (model.nq,), minval=-0.1, maxval=0.1)
        return Sim(qpos, 0.1 * jax.random.normal(qvel_key, (model.nv,)), jnp.zeros(model.nv, jnp.float32))

    def step(self, sim: Sim, ctrl: jax.Array) -> Sim:
        if self.runge_kutta:
            return self._runge_kutta(sim, ctrl)
        data = self.mjx.euler(self.model, self._forward(sim, ctrl))
        return Sim(data.qpos, data.qvel, data.qacc_warmstart)

    def _runge_kutta(self, sim: Sim, ctrl: jax.Array) -> Sim:
        """Runge and Kutta's fourth order: `share` weighs a stage in the sum, `ahead` is how far it leads the next."""
        h = self.model.opt.timestep

        def stage(carry: tuple, weights: tuple) -> tuple[tuple, None]:
            qpos, qvel, velocity, acceleration, _ = carry
            share, ahead = weights
            qacc = self._forward(Sim(qpos, qvel, sim.qacc_warmstart), ctrl).qacc
            after = self._moved(sim.qpos, ahead * h * qvel), sim.qvel + ahead * h * qacc
            return (*after, velocity + share * qvel, acceleration + share * qacc, qacc), None

        still = jnp.zeros_like(sim.qvel)
        weights = jnp.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]), jnp.array([0.5, 0.5, 1.0, 0.0])
        (*_, velocity, acceleration, qacc), _ = jax.lax.scan(stage, (sim.qpos, sim.qvel, still, still, still), weights)
        return Sim(self._moved(sim.qpos, h * velocity), sim.qvel + h * acceleration, qacc)

    def _forward(self, sim: Sim, ctrl: jax.Array) -> Any:
        """`mjx.forward`, without what these bodies have none of (tendons, sensors) and what nobody sees (cameras)."""
        mjx, model = self.mjx, self.model
        data = self.blank.replace(**sim._asdict(), ctrl=ctrl)
        for part in (mjx.kinematics, mjx.com_pos, mjx.crb, mjx.factor_m, mjx.collision):
            data = part(model, data)
        data = self._align(data)
        for part in (
            mjx.make_constraint, mjx.transmission, mjx.fwd_velocity, mjx.fwd_actuation, mjx.fwd_acceleration, mjx.solve,
        ):  # fmt: skip
            data = part(model, data)
        return data

    def _align(self, data: Any) -> Any:
        """Turn the friction pyramids of capsules on the plane along the capsules, as MuJoCo does. MJX 3.17 turns those
        of capsules within 60 degrees of the plane and leaves steeper ones along y, which is another friction."""
        contact = data._impl.contact
        normal, axis = contact.frame[:, 0], data.geom_xmat[contact.geom2][:, :, 2]
        along = axis - normal * (axis * normal).sum(axis=1, keepdims=True)
        length = jnp.linalg.norm(along, axis=1, keepdims=True)
        turned = self.is_capsule[contact.geom2][:, None] & (length > 1e-6)
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


def _import_mjx(name: str) -> Any:
    if importlib.util.find_spec("mujoco.mjx") is None:
        raise UserError(f"Environment '{name}' needs the package mujoco-mjx: pip install 'urlrl[mjx]'.")
    with redirect_stdout(io.StringIO()):  # It prints that Warp, which is not used here, is missing.
        from mujoco import mjx
    return mjx
