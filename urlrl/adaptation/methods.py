"""The methods of the ladder. Those of RUN take a `Setting` and say, along the budget, how well they would do; those of
TRAIN say what the training loop is to do.

| method | what is learned | starts from |
|---|---|---|
| zero_shot | nothing: the agent is told the goal, or the reward of its own past transitions | no step in the task |
| z_search | one skill, by its returns | the prior over skills |
| hierarchical | a controller that chooses a skill every `task.option_steps` | the frozen skills |
| finetune | the policy and its critics, by the task's reward | `agent.learner(z)` of a skill that a search chose |
| scratch | the same, from untrained networks | nothing |
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.acting import begun, to_goals
from urlrl.adaptation.config import CALLS, DECISIONS, AdaptConfig
from urlrl.adaptation.options import Options, options_on_device
from urlrl.adaptation.search import Found, search
from urlrl.adaptation.tuned import Skilled, Tuned, TunedConfig, start
from urlrl.config import PretrainConfig
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation.rollout import Policy, acting
from urlrl.learners.statistics import Normalizer
from urlrl.streams import env_seed, stream
from urlrl.tasks.task import Task
from urlrl.types import All, Carry, DeviceEnv, Each, RewardPrompt, Skill, Transition, need

MAX_SCALE = 100.0  # of rewards, up or down
NO_LIMIT = 1_000  # control steps that an episode without a time limit is taken for, where rollouts are counted out


@dataclass
class Setting:
    """One cell of a ladder: an agent, a task, a seed; and what its runs have seen of the world."""

    agent: Any
    task: Task
    make_env: Callable[[int], Any]  # number of lanes -> a TaskEnv
    config: AdaptConfig
    seed: int
    data: Transition | None  # transitions of the agent's own past, with the task's reward; None if it has none
    encode: Normalizer  # of observations and inputs, as the past has spread them
    progress: Callable[[int, float], None]  # told control steps and return at each measurement
    on_device: DeviceEnv | None = None  # the task, where it is to be learned there
    curve: list[tuple[int, float]] = field(default_factory=list)  # control steps, mean return of the episodes
    notes: dict[str, Any] = field(default_factory=dict)
    kept: Skilled | None = None  # what a method of RUN leaves; None: nothing but the agent as it was

    @property
    def obs_dim(self) -> int:
        return self.agent.normalizer.mean.shape[0]

    def world(self) -> Any:
        """The task to learn in: lanes on the host, or a `DeviceEnv`. Its rewards are known: no transition is labelled
        again, and none needs its physics."""
        if self.on_device:
            return replace(self.on_device, env_spec=replace(self.on_device.env_spec, physics=()))
        env = self.make_env(self.config.num_envs)
        env.env_spec = replace(env.env_spec, physics=())
        return env

    def key(self, name: str) -> jax.Array:
        return stream(self.seed, f"adapt {name}")

    def env_seed(self, name: str) -> int:
        return env_seed(self.seed, f"adapt {name}")

    def acting(self, task: Each | All | None = None) -> Policy:
        """The agent with this task, acting by the modes of its actions; it sees what it was trained on."""
        policy = acting(self.agent, task)
        return policy._replace(act=lambda obs, *rest: policy.act(obs[:, : self.obs_dim], *rest))

    def measure(self, steps: int, env: Any, policy: Policy) -> None:
        """Note the mean return of deterministic episodes in `env`; their starts depend on nothing but the seed."""
        mean = self.returns(env, policy, steps).mean()
        self.curve.append((steps, float(mean)))
        self.progress(steps, float(mean))

    def returns(self, env: Any, policy: Policy, steps: int) -> np.ndarray:
        """(n,): of deterministic episodes, after so many `steps` in the task."""
        returns = episode_returns(env, policy, self.env_seed("evaluation"))
        if not np.isfinite(returns).all():
            raise UserError(
                f"An episode after {steps:,} steps has the return {returns.sum()}: expected finite rewards."
            )
        return returns


class Start(NamedTuple):
    """What fine-tuning begins with, by a search."""

    z: np.ndarray  # (d,)
    steps: int  # control steps that were spent
    reward_scale: float


class Training(NamedTuple):
    """What a method of TRAIN asks of the training loop."""

    config: PretrainConfig[TunedConfig]
    agent: Tuned
    env: Any  # a `HostEnv`, or a `DeviceEnv` where config.loop is "device"
    spent: int = 0  # control steps before it
    hold: int = 1  # control steps of one of its steps


def episode_returns(env: Any, policy: Policy, seed: int) -> np.ndarray:
    """(n,): the return of one episode per lane of `env`, from a reset with `seed`."""
    obs, _ = env.reset(seed=seed)
    key = jax.random.key(0)  # Modes of actions are taken: nothing is drawn.
    carry = policy.begin(key, env.num_envs)
    total, alive, t = np.zeros(env.num_envs), np.ones(env.num_envs, bool), 0
    while True:
        action, carry = policy.act(obs.astype(np.float32), carry, key, np.int32(t))
        obs, reward, terminated, truncated, _ = env.step(np.asarray(action))
        t, ended = t + 1, terminated | truncated
        total[alive] += reward[alive]
        alive &= ~ended
        if not alive.any():
            return total
        if ended.any():
            obs, _ = env.reset(options={"reset_mask": ended})


def pursue(setting: Setting, env: Any) -> Policy:
    """The agent, told the present goal of each lane whenever it changes."""
    told = setting.acting()
    goals = np.empty((0, 0))

    def start(key: jax.Array, n: int) -> Carry:
        nonlocal goals
        del n
        goals = env.goal()
        seen_goals = env.goal_obs(goals).astype(np.float32)
        return _begin_goals(setting.agent, seen_goals, setting.data, setting.key("read"), key)

    def act(obs: np.ndarray, carry: Carry, key: jax.Array, t: np.int32) -> tuple[Any, Carry]:
        changed = (env.goal() != goals).any(axis=1)
        if changed.any():
            carry = begun(changed, start(key, len(obs)), carry)
        return told.act(obs, carry, key, t)

    return Policy(start, act)


@jax.jit
def _begin_goals(agent, goals, seen, read_key, key):
    return agent.begin(key, goals.shape[0], None, to_goals(agent, goals, seen, read_key))


def zero_shot(setting: Setting) -> None:
    """Raises UnsupportedPrompt: the agent cannot be told this, or has no past to be told it by."""
    need(setting.agent, "told")
    env = setting.make_env(setting.config.eval_episodes)
    env.reset(seed=0)
    if env.goal() is not None:
        setting.measure(0, env, pursue(setting, env))
        return
    if env.context.size:
        raise UnsupportedPrompt(
            f"Task '{env.task.name}' draws in each episode what it pays for: expected a goal, or one reward for all."
        )
    z = _skill_of_reward(setting)
    setting.notes["z"] = z.tolist()
    setting.measure(0, env, setting.acting(All(Skill(z))))
    setting.kept = Skilled(setting.agent, z)


def _skill_of_reward(setting: Setting) -> np.ndarray:
    if setting.data is None:
        raise UnsupportedPrompt("There are no transitions of the run to label: expected its replay folder.")
    if not np.ptp(setting.data.reward):
        raise UnsupportedPrompt(
            f"The reward is {setting.data.reward[0]:g} in all of {len(setting.data.reward):,} transitions of the run: "
            "expected one that varies there."
        )
    task = setting.agent.read(RewardPrompt(setting.data), setting.data, setting.key("read"))
    return np.asarray(setting.agent.aim(task, setting.data.obs[0]))


class _BudgetSpent(Exception):
    """The next round of a search would cost more than there is."""


def need_skills(agent: Any) -> None:
    """Raises UnsupportedPrompt: the agent has no skills."""
    if not agent.config.z.dim:
        name = type(agent).__name__
        raise UnsupportedPrompt(f"Agent {name} has no skills: expected one with skills to choose from.")


def z_search(setting: Setting) -> None:
    """Raises UnsupportedPrompt: the agent has no skills."""
    need_skills(setting.agent)
    found, _ = _search(setting, setting.config.steps, setting.make_env(setting.config.eval_episodes))
    setting.kept = Skilled(setting.agent, found.z)


def _search(setting: Setting, budget: int, evaluation: Any) -> tuple[Found, int]:
    """The best skill that the budget finds, and the steps it took. The first round is as small as the budget makes it
    (a budget for less than two skills: a guess), a later one that would exceed it is not begun."""
    env = setting.make_env(setting.config.num_envs)
    space, n, batches = setting.agent.config.z, setting.config.num_envs, 0
    batch_steps = n * (env.env_spec.episode_steps or 0)

    def attempt(skills: np.ndarray) -> np.ndarray:
        nonlocal batches
        if env.control_steps + -(-len(skills) // n) * batch_steps > budget:
            raise _BudgetSpent
        returns = []
        for i in range(0, len(skills), n):
            lanes = np.arange(n) % len(skills[i : i + n])  # Spare lanes try skills once more.
            found = episode_returns(
                env, setting.acting(Each(Skill(skills[i + lanes]))), setting.env_seed(f"search {batches}")
            )
            returns.append(np.bincount(lanes, found) / np.bincount(lanes))
            batches += 1
        return np.concatenate(returns)

    best = Found(np.asarray(space.sample(setting.key("guess"), 1))[0], 0.0)
    setting.measure(0, evaluation, setting.acting(All(Skill(best.z))))
    config = setting.config.search
    affordable = budget // batch_steps * n if batch_steps else config.population
    if affordable >= 2:
        config = replace(config, population=min(config.population, affordable))
        with suppress(_BudgetSpent):
            for best in search(config, space, setting.key("search"), attempt):
                setting.measure(env.control_steps, evaluation, setting.acting(All(Skill(best.z))))
    setting.notes |= {"z": best.z.tolist(), "search_steps": env.control_steps}
    return best, env.control_steps


def prepare(setting: Setting) -> Start:
    """The search for the skill that fine-tuning begins with. Raises UnsupportedPrompt: the agent has no learner."""
    need(setting.agent, "adaptable")  # Before a search is paid for.
    evaluation = setting.make_env(setting.config.eval_episodes)
    # There is nothing to search for in an agent without skills.
    share = int(setting.config.search.finetune_share * setting.config.steps) if setting.agent.config.z.dim else 0
    found, spent = _search(setting, share, evaluation)
    return Start(found.z, spent, _reward_scale(setting, found, evaluation))


def _reward_scale(setting: Setting, found: Found, env: Any) -> float:
    """What brings the task's reward to the size of the intrinsic one, in whose units critics and temperature start.
    A skill that earns nothing, or an agent without a past, tells nothing of the size: 1."""
    per_step = abs(found.score) / (env.env_spec.episode_steps or 1)
    if setting.data is None or not per_step:
        return 1.0
    data = setting.data
    if data.z.shape[-1] != found.z.shape[-1]:  # A dataset does not say which skills acted.
        data = data._replace(z=jnp.broadcast_to(found.z, (len(data.reward), *found.z.shape)))
    intrinsic = float(jnp.mean(jnp.abs(setting.agent.intrinsic_reward(data))))
    if not np.isfinite(intrinsic):
        raise UserError(f"The agent's intrinsic reward is {intrinsic} on average over its past: expected a finite one.")
    return float(np.clip(intrinsic / per_step, 1 / MAX_SCALE, MAX_SCALE))


def finetune(setting: Setting, start: Start) -> Training:
    """From the first step the pretrained policy acts; its critics, or fresh ones, first learn alone."""
    setting.notes |= {"z": start.z.tolist(), "search_steps": start.steps, "reward_scale": start.reward_scale}
    training = _motor_control(setting, "finetune", start.z, start.steps, setting.config.off_policy.warmup)
    return training._replace(agent=training.agent.replace(reward_scale=jnp.float32(start.reward_scale)))


def scratch(setting: Setting) -> Training:
    """Raises UnsupportedPrompt: the agent has no learner."""
    need(setting.agent, "adaptable")
    z = np.zeros(setting.agent.config.z.dim, np.float32)
    return _motor_control(setting, "scratch", z, 0, setting.config.off_policy.random)


def _motor_control(setting: Setting, method: str, z: np.ndarray, spent: int, wait: int) -> Training:
    """Observations keep the agent's own normalisation, inputs have the run's."""
    config, normalizer, split, n = setting.config, setting.agent.normalizer, setting.obs_dim, setting.config.num_envs
    encode = Normalizer(
        mean=jnp.concatenate([normalizer.mean, setting.encode.mean[split:]]),
        std=jnp.concatenate([normalizer.std, setting.encode.std[split:]]),
    )
    env = setting.world()
    agent = start(method, setting.agent, z, config, encode, env.env_spec.action_dim, setting.key("learner"))
    capacity = min(config.off_policy.replay_capacity, config.steps + CALLS * n) // n * n
    rhythm = {
        "rollout_steps": CALLS,
        "steps_per_update": CALLS * n / max(1, CALLS * n // config.off_policy.interval),
        "min_replay": min(wait, config.steps // 4, capacity),
        "replay_capacity": capacity,
    }
    return Training(_loop(setting, method, agent, env, spent, 1, **rhythm), agent, env, spent)


def hierarchical(setting: Setting) -> Training:
    """The high level sees normalised observations and inputs, and holds a skill for `task.option_steps`. Raises
    UnsupportedPrompt: the agent has no skills."""
    need_skills(setting.agent)
    config, n, z = setting.config.high_level, setting.config.num_envs, np.zeros(0)
    hold, options = setting.task.option_steps, options_on_device if setting.on_device else Options
    env = options(setting.world(), setting.agent, hold)
    agent = start("hierarchical", setting.agent, z, setting.config, setting.encode, 0, setting.key("learner"))
    rhythm: dict[str, Any]
    if agent.config.batch.source == "rollout":
        episode = env.env_spec.episode_steps or NO_LIMIT // hold
        rhythm = {"rollout_steps": -(-config.episodes // n) * episode}
        rhythm["replay_capacity"] = 2 * n * rhythm["rollout_steps"]
    else:
        capacity = max(n, DECISIONS // n * n)
        rhythm = {"rollout_steps": 1, "steps_per_update": 1 / config.updates, "replay_capacity": capacity}
        rhythm["min_replay"] = min(config.random, capacity)
    return Training(_loop(setting, "hierarchical", agent, env, 0, hold, **rhythm), agent, env, 0, hold)


def _loop(setting: Setting, method: str, agent: Tuned, env: Any, spent: int, hold: int, **rhythm: Any) -> Any:
    config = setting.config
    return PretrainConfig(
        agent=agent.config,
        agent_name=method,
        env=env.env_spec.id,
        normalizer="off",
        loop=config.loop,
        num_envs=config.num_envs,
        steps=max(1, -(-(config.steps - spent) // hold)),
        seed=setting.seed,
        eval_every=max(1, config.eval_every // hold),
        keep_data="window",
        **rhythm,
    )


RUN: dict[str, Callable[[Setting], None]] = {"zero_shot": zero_shot, "z_search": z_search}
TRAIN: dict[str, Callable[..., Training]] = {"hierarchical": hierarchical, "finetune": finetune, "scratch": scratch}
