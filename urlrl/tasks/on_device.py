"""A task on the device: its environment and its reward as one pure function of JAX."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from urlrl.envs import device_name, make_device_env
from urlrl.errors import UserError, reason
from urlrl.tasks.task import Moment, Task, check_inputs, check_rewards, task_spec
from urlrl.types import DeviceEnv, DeviceState

# What JAX, or Python, raises where a task's functions are not for its arrays.
NO_JAX = (jax.errors.JAXTypeError, TypeError, IndexError, AttributeError)


class Draws:
    """What a task draws an episode from on the device: the part of NumPy's generators that tasks use, by a key."""

    def __init__(self, key: jax.Array):
        self.key = key

    def uniform(self, low: float = 0.0, high: float = 1.0, size: tuple[int, ...] = ()) -> jax.Array:
        self.key, key = jax.random.split(self.key)
        return jax.random.uniform(key, size, minval=low, maxval=high)


class Episode(NamedTuple):
    """All that the next step of a task depends on."""

    below: DeviceState  # of the environment
    context: jax.Array  # (context,): what was drawn
    clock: jax.Array  # (), int32: control steps since the reset


def task_on_device(task: Task, root_position: bool = False) -> DeviceEnv:
    """What `make_task_env` makes, on the device: the same rewards and inputs but for their precision, other draws.

    Raises:
        UserError: the environment is not one of the device, or the reward is not computed by what JAX can trace.
    """
    name = task.device or device_name(task.env)
    if task.device and task.input_names:
        raise UserError(f"Task '{task.name}' has inputs, and '{name}' pays it itself: expected one of the two.")
    try:
        env = make_device_env(name, episode_steps=task.episode_steps, root_position=root_position)
    except UserError as error:
        raise UserError(f"Task '{task.name}' has no device version: {error}") from error
    found = replace(env, env_spec=task_spec(task, env.env_spec)) if task.device else _rewarded(env, task)
    try:
        state = jax.eval_shape(found.reset, jax.random.key(0))
        jax.eval_shape(found.step, state, jax.ShapeDtypeStruct((env.env_spec.action_dim,), jnp.float32))
    except NO_JAX as error:
        raise UserError(
            f"Task '{task.name}' has no device version: JAX cannot trace its reward, its inputs or what it draws "
            f"({reason(error)}); urlrl.tasks.task.Task says how they can be written."
        ) from error
    return found


def _rewarded(env: DeviceEnv, task: Task) -> DeviceEnv:
    def shown(below: DeviceState, context: jax.Array, clock: jax.Array, reward: Any) -> DeviceState:
        inputs = task.inputs(below.physics[None], context[None], clock[None])
        check_inputs(task, inputs, 1)
        obs = jnp.concatenate([below.obs, jnp.asarray(inputs[0], jnp.float32)])
        return below._replace(sim=Episode(below, context, clock), obs=obs, reward=jnp.asarray(reward, jnp.float32))

    def reset(key: jax.Array) -> DeviceState:
        env_key, draw_key = jax.random.split(key)
        with jax.numpy_rank_promotion("allow"):  # As NumPy has it, for which tasks are written.
            context = jnp.asarray(task.draw(Draws(draw_key)), jnp.float32)
            return shown(env.reset(env_key), context, jnp.zeros((), jnp.int32), 0.0)

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        before, context, clock = state.sim
        below, clock = env.step(before, action), clock + 1
        row = before.physics, jnp.clip(action, -1, 1), below.physics, context, clock
        moment = Moment(*(part[None] for part in row))
        with jax.numpy_rank_promotion("allow"):
            reward = task.score(moment)
            check_rewards(task, reward, moment)
            return shown(below, context, clock, reward[0])

    return DeviceEnv(task_spec(task, env.env_spec), reset, step)
