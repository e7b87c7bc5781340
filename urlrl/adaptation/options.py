"""A task whose actions are skills, as the training loop takes environments."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from urlrl.adaptation.tuned import as_skill
from urlrl.evaluation.rollout import acting
from urlrl.skills.env import SkillVectorEnv
from urlrl.tasks.task import TaskEnv
from urlrl.types import Each, Skill


class Options:
    """`env`, in which the pretrained agent acts: an action is its skill for the next `task.option_steps`, and a step of
    it is so many control steps, or fewer where an episode ends. The agent acts by the modes of its actions."""

    def __init__(self, env: TaskEnv, agent: Any):
        space, spec, hold = agent.config.z, env.env_spec, env.task.option_steps
        obs_dim = agent.normalizer.mean.shape[0]
        key, policy = jax.random.key(0), acting(agent)  # Nothing is drawn.

        def begin(actions: np.ndarray) -> Any:
            return agent.begin(key, len(actions), None, Each(Skill(as_skill(space, actions))))

        def act(obs: np.ndarray, carry: Any) -> tuple[Any, Any]:
            return policy.act(obs, carry, key, np.int32(0))

        self.env, self.num_envs = env, env.num_envs
        self.options = SkillVectorEnv(env, begin, act, space.dim, hold, obs_dim)
        self.env_spec = replace(
            spec,
            physics=(),
            action="onehot" if space.kind == "onehot" else "box",
            action_dim=space.dim,
            action_bounds=(),
            episode_steps=spec.episode_steps and -(-spec.episode_steps // hold),
            control_dt=spec.control_dt and hold * spec.control_dt,
        )
        self.reset, self.step = self.options.reset, self.options.step
        self.get_state, self.set_state = self.options.get_state, self.options.set_state
        self.position, self.physics, self.goal_obs, self.place = env.position, env.physics, env.goal_obs, env.place

    def close(self) -> None:
        self.env.close()
