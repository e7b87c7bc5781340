"""`mjx:ant` and `mjx:half_cheetah`: `ant` and `half_cheetah` on the device, thousands at a time, by MuJoCo's own JAX
implementation (mujoco.readthedocs.io/en/stable/mjx.html) in single precision.

Everything but the solver's budget and the random numbers of a reset is that of envs/locomotion.py. A test compares one
control step with C MuJoCo's; after some seconds of contact the trajectories part, as those of any two roundings do.
"""

import importlib.util
import io
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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
    host_model = load_model(body)
    host_model.opt.iterations, host_model.opt.ls_iterations = ITERATIONS, LS_ITERATIONS
    model, template = mjx.put_model(host_model, impl="jax"), mjx.make_data(host_model, impl="jax")

    def seen(sim: Sim, reward: jax.Array) -> DeviceState:
        obs = jnp.concatenate([sim.qpos, sim.qvel])
        return DeviceState(sim, obs, reward, jnp.zeros((), bool), sim.qpos[: len(spec.position)], obs)

    def reset(key: jax.Array) -> DeviceState:
        qpos_key, qvel_key = jax.random.split(key)
        qpos = model.qpos0 + jax.random.uniform(qpos_key, (model.nq,), minval=-0.1, maxval=0.1)
        sim = Sim(qpos, 0.1 * jax.random.normal(qvel_key, (model.nv,)), jnp.zeros(model.nv, jnp.float32))
        return seen(sim, jnp.zeros((), jnp.float32))

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        action = jnp.clip(action, -1, 1)  # The motors' own range, too.

        def substep(_: int, sim: Sim) -> Sim:
            data = mjx.step(model, template.replace(**sim._asdict(), ctrl=action))
            return Sim(data.qpos, data.qvel, data.qacc_warmstart)

        # Networks may multiply at less than single precision, where physics would fall apart.
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            sim = jax.lax.fori_loop(0, FRAME_SKIP, substep, state.sim)
        forward = (sim.qpos[0] - state.sim.qpos[0]) / spec.control_dt
        return seen(sim, forward + body.alive_bonus - body.control_cost * jnp.square(action).sum())

    def goal_obs(key: jax.Array, position: jax.Array) -> jax.Array:
        return reset(key).obs.at[: len(spec.position)].set(position)

    return DeviceEnv(spec, reset, step, goal_obs)


def _import_mjx(name: str) -> Any:
    if importlib.util.find_spec("mujoco.mjx") is None:
        raise UserError(f"Environment '{name}' needs the package mujoco-mjx: pip install 'urlrl[mjx]'.")
    with redirect_stdout(io.StringIO()):  # It prints that Warp, which is not used here, is missing.
        from mujoco import mjx
    return mjx
