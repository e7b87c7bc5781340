"""`mjx:ant` and `mjx:half_cheetah`: `ant` and `half_cheetah` on the device, thousands at a time, by MuJoCo's own JAX
implementation in single precision; envs/mjx_dmc.py has those of dm_control.

Everything but the random numbers of a reset is that of envs/locomotion.py. A test compares one control step with C
MuJoCo's; after some seconds of contact the trajectories part, as those of any two roundings do.
"""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp

from urlrl.envs import mjx_dmc
from urlrl.envs.locomotion import ANT, FRAME_SKIP, HALF_CHEETAH, Body, load_model
from urlrl.envs.mjx_physics import Physics, Sim, exact, import_mjx
from urlrl.errors import UserError, unknown
from urlrl.types import DeviceEnv, DeviceState

BODIES: dict[str, Body] = {f"mjx:{body.spec.id}": body for body in (ANT, HALF_CHEETAH)}


@cache  # One environment, one compiled program.
def device_env(body_name: str, episode_steps: int | None = None, root_position: bool = False) -> DeviceEnv:
    """The environment of a key of `BODIES` or of `mjx_dmc.TASKS`, given without its `mjx:`.

    Raises:
        UserError: no such environment or option, or a missing package.
    """
    name = f"mjx:{body_name}"
    if name not in BODIES and name not in mjx_dmc.TASKS:
        raise unknown("environment", name, [*BODIES, *mjx_dmc.TASKS])
    import_mjx(name)
    if name in mjx_dmc.TASKS:
        return mjx_dmc.device_env(name, episode_steps, root_position)
    if root_position:
        raise UserError(f"Environment '{name}' has no option root_position: its observation has it.")
    body = BODIES[name]
    spec = replace(body.spec, id=name, twin=body.spec.id)
    spec = spec if episode_steps is None else replace(spec, episode_steps=episode_steps)
    physics = Physics(name, load_model(body))
    p = len(spec.position)

    def seen(sim: Sim, reward: jax.Array) -> DeviceState:
        obs = jnp.concatenate([sim.qpos, sim.qvel])
        return DeviceState(sim, obs, reward, jnp.zeros((), bool), sim.qpos[:p], obs)

    def reset(key: jax.Array) -> DeviceState:
        model = physics.model
        qpos_key, qvel_key = jax.random.split(key)
        qpos = model.qpos0 + jax.random.uniform(qpos_key, (model.nq,), minval=-0.1, maxval=0.1)
        qvel = 0.1 * jax.random.normal(qvel_key, (model.nv,))
        return seen(
            Sim(qpos, qvel, jnp.zeros(0, jnp.float32), jnp.zeros(model.nv, jnp.float32)), jnp.zeros((), jnp.float32)
        )

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        action = jnp.clip(action, -1, 1)
        with exact():
            sim = jax.lax.fori_loop(0, FRAME_SKIP, lambda _, sim: physics.step(sim, action), state.sim)
        forward = (sim.qpos[0] - state.sim.qpos[0]) / spec.control_dt
        return seen(sim, forward + body.alive_bonus - body.control_cost * jnp.square(action).sum())

    def goal_obs(key: jax.Array, position: jax.Array) -> jax.Array:
        return reset(key).obs.at[:p].set(position)

    return DeviceEnv(spec, reset, step, goal_obs)
