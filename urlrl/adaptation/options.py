"""A task whose actions are skills, as the training loops take environments: of the host, and of the device."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.adaptation.tuned import as_skill, known
from urlrl.evaluation.rollout import acting
from urlrl.skills.env import SkillVectorEnv
from urlrl.tasks.task import TaskEnv
from urlrl.types import DeviceEnv, DeviceState, Each, EnvSpec, Skill


class Options:
    """`env`, in which the pretrained agent acts: an action is its skill for the next `hold` control steps, and a step
    of it is so many, or fewer where an episode ends. The agent acts by the modes of its actions."""

    def __init__(self, env: TaskEnv, agent: Any, hold: int):
        space, spec = agent.config.z, env.env_spec
        obs_dim = agent.normalizer.mean.shape[0]
        key, policy = jax.random.key(0), acting(agent)  # Nothing is drawn.

        def begin(actions: np.ndarray) -> Any:
            return agent.begin(key, len(actions), None, Each(Skill(as_skill(space, actions))))

        def act(obs: np.ndarray, carry: Any) -> tuple[Any, Any]:
            return policy.act(obs, carry, key, np.int32(0))

        self.env, self.num_envs = env, env.num_envs
        self.options = SkillVectorEnv(env, begin, act, space.dim, hold, obs_dim)
        self.env_spec = _option_spec(spec, agent, hold)
        self.reset, self.step = self.options.reset, self.options.step
        self.get_state, self.set_state = self.options.get_state, self.options.set_state
        self.position, self.physics, self.goal_obs, self.place = env.position, env.physics, env.goal_obs, env.place

    def close(self) -> None:
        self.env.close()


def _option_spec(spec: EnvSpec, agent: Any, hold: int) -> EnvSpec:
    space = agent.config.z
    return replace(
        spec,
        physics=(),
        action="onehot" if space.kind == "onehot" else "box",
        action_dim=space.dim,
        action_bounds=(),
        episode_steps=spec.episode_steps and -(-spec.episode_steps // hold),
        control_dt=spec.control_dt and hold * spec.control_dt,
    )


class Within(NamedTuple):
    """An option that is being performed."""

    state: DeviceState  # of the task
    clock: jax.Array  # (), int32: control steps since the reset
    carry: Any  # the pretrained agent's, (1, ...)
    reward: jax.Array  # (): summed
    ended: jax.Array  # (), bool: the episode has


def options_on_device(env: DeviceEnv, agent: Any, hold: int) -> DeviceEnv:
    """`Options` of a task on the device: an action is a skill for the next `hold` control steps."""
    spec, agent, nothing = env.env_spec, jax.device_get(agent), jax.random.key(0)  # A mode is taken: nothing is drawn.

    def shown(state: DeviceState, clock: jax.Array, reward: jax.Array) -> DeviceState:
        return state._replace(sim=(state, clock), reward=reward)

    def reset(key: jax.Array) -> DeviceState:
        state = env.reset(key)
        return shown(state, jnp.zeros((), jnp.int32), state.reward)

    def control(i: jax.Array, option: Within) -> Within:
        action, carry = agent.act(
            known(agent, option.state.obs[None]), option.carry, jax.random.fold_in(nothing, i), 0.0
        )
        state, clock = env.step(option.state, action[0]), option.clock + 1
        late = jnp.zeros((), bool) if spec.episode_steps is None else clock >= spec.episode_steps
        return Within(state, clock, carry, option.reward + state.reward, state.terminated | late)

    def step(state: DeviceState, action: jax.Array) -> DeviceState:
        below, clock = state.sim
        carry = agent.begin(
            jax.random.fold_in(nothing, hold), 1, None, Each(Skill(as_skill(agent.config.z, action[None])))
        )
        option = Within(below, clock, carry, jnp.zeros((), jnp.float32), jnp.zeros((), bool))

        def perform(i: jax.Array, option: Within) -> Within:
            return jax.tree.map(lambda old, new: jnp.where(option.ended, old, new), option, control(i, option))

        option = jax.lax.fori_loop(0, hold, perform, option)
        return shown(option.state, option.clock, option.reward)

    return DeviceEnv(_option_spec(spec, agent, hold), reset, step)
