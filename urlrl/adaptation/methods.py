"""The methods of the ladder. Each takes a `Setting` and says, along the budget, how well it would do.

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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.acting import begun
from urlrl.adaptation.config import AdaptConfig
from urlrl.adaptation.learn import Plan, mode_of, off_policy, on_policy
from urlrl.adaptation.search import Found, search
from urlrl.adaptation.tuned import (
    Controlled,
    Kept,
    Skilled,
    Tuned,
    as_skill,
    controller,
    tuned_learner,
    untrained_learner,
    without_optimiser,
)
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation.rollout import Policy, acting
from urlrl.learners.nets import Normalizer
from urlrl.skills.env import SkillVectorEnv
from urlrl.streams import env_seed, stream
from urlrl.types import All, BatchSpec, Carry, Each, GoalPrompt, RewardPrompt, Skill, Transition, need

MAX_SCALE = 100.0  # of rewards, up or down


@dataclass
class Setting:
    """One cell of a ladder: an agent, a task, a seed; and what its runs have seen of the world."""

    agent: Any
    make_env: Callable[[int], Any]  # number of lanes -> a TaskEnv
    config: AdaptConfig
    seed: int
    data: Transition | None  # transitions of the agent's own past, with the task's reward; None if it has none
    encode: Normalizer  # of observations and features, as the past has spread them
    progress: Callable[[int, float], None]  # told control steps and return at each measurement
    curve: list[tuple[int, list[float]]] = field(default_factory=list)  # control steps, returns of the episodes
    notes: dict[str, Any] = field(default_factory=dict)
    learner: Any = None  # the last that a loop has shown
    kept: Kept | None = None  # what the method leaves; None: it leaves nothing but the agent as it was

    @property
    def obs_dim(self) -> int:
        return self.agent.normalizer.mean.shape[0]

    @property
    def features(self) -> int:
        """What the task adds to the observation."""
        return self.encode.mean.shape[0] - self.obs_dim

    def key(self, name: str) -> jax.Array:
        return stream(self.seed, f"adapt {name}")

    def env_seed(self, name: str) -> int:
        return env_seed(self.seed, f"adapt {name}")

    def acting(self, task: Each | All | None = None) -> Policy:
        """The agent with this task, acting by the modes of its actions; it sees what it was trained on."""
        policy = acting(self.agent, task)
        return policy._replace(act=lambda obs, *rest: policy.act(obs[:, : self.obs_dim], *rest))

    def measure(self, steps: int, env: Any, policy: Policy) -> None:
        """Note the returns of deterministic episodes in `env`; their starts depend on nothing but the seed."""
        returns = episode_returns(env, policy, self.env_seed("evaluation"))
        if not np.isfinite(returns).all():
            raise UserError(
                f"An episode after {steps:,} steps has the return {returns.sum()}: expected finite rewards."
            )
        self.curve.append((steps, returns.tolist()))
        self.progress(steps, float(returns.mean()))

    def observer(self, env: Any, encode: Normalizer) -> Callable[[int, Any], None]:
        """Measures a learner in `env` where a curve begins, and whenever another `eval_every` steps are over."""

        def observe(steps: int, learner: Any) -> None:
            self.learner = learner
            last = self.curve[-1][0] if self.curve else -1
            if steps // self.config.eval_every > last // self.config.eval_every or steps >= self.config.steps:
                self.measure(steps, env, mode_of(learner, encode))

        return observe


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
    tasks = jax.vmap(lambda goal: agent.read(GoalPrompt(goal), seen, read_key))(goals)
    return agent.begin(key, goals.shape[0], None, Each(tasks))


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


def z_search(setting: Setting) -> None:
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


def hierarchical(setting: Setting) -> None:
    """The high level sees normalised observations and features, and holds a skill for `task.option_steps`."""
    config, space = setting.config.high_level, setting.agent.config.z
    key, policy = jax.random.key(0), setting.acting()  # Modes of actions are taken: nothing is drawn.

    def begin(action: np.ndarray) -> Carry:
        return setting.agent.begin(key, len(action), None, Each(Skill(np.float32(as_skill(space, action)))))

    def act(obs: np.ndarray, carry: Carry) -> tuple[Any, Carry]:
        return policy.act(obs, carry, key, np.int32(0))

    def make(n: int) -> SkillVectorEnv:
        env = setting.make_env(n)
        return SkillVectorEnv(env, begin, act, space.dim, env.task.option_steps, setting.obs_dim)

    env, evaluation = make(setting.config.num_envs), make(setting.config.eval_episodes)
    observe = setting.observer(evaluation, setting.encode)
    loop_key, seed = setting.key("loop"), setting.env_seed("training")
    learner = controller(config, setting.agent, setting.features, setting.key("create"))
    observe(0, learner)
    if space.kind == "onehot":
        on_policy(env, learner, setting.encode, config.episodes, setting.config.steps, loop_key, seed, observe)
    else:
        plan = _controller_plan(setting, env.k)
        off_policy(env, learner, setting.encode, plan, 0, setting.config.steps, loop_key, seed, observe)
    actor = without_optimiser(setting.learner)
    setting.kept = Controlled(setting.agent, actor, setting.encode, env.k)


def _controller_plan(setting: Setting, hold: int) -> Plan:
    config = setting.config.high_level
    return Plan(
        calls=1,
        updates=config.updates * setting.config.num_envs,
        batch=BatchSpec(config.batch, timeout_as_terminal=True),
        first=config.random * hold,
        uniform=True,
        replay_capacity=100_000,
    )


def finetune(setting: Setting) -> None:
    """From the first step the pretrained policy acts; its critics, or fresh ones, first learn alone.

    Raises:
        UnsupportedPrompt: the agent has no learner.
    """
    need(setting.agent, "adaptable")  # Before a search is paid for.
    config = setting.config.off_policy
    evaluation = setting.make_env(setting.config.eval_episodes)
    share = int(setting.config.search.finetune_share * setting.config.steps)
    found, spent = _search(setting, share, evaluation)
    learner = tuned_learner(setting.agent, found.z, setting.features, setting.key("learner"))
    if config.critic == "fresh":
        learner = learner.fresh_critic(setting.key("critic"))
    plan = _control_plan(setting, spent, config.warmup, uniform=False, critic_updates=config.warmup_updates)
    plan = replace(plan, reward_scale=_reward_scale(setting, found, evaluation))
    setting.notes["reward_scale"] = plan.reward_scale
    _learn_control(setting, learner, plan, spent, evaluation)


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
    return float(np.clip(intrinsic / per_step, 1 / MAX_SCALE, MAX_SCALE))


def scratch(setting: Setting) -> None:
    need(setting.agent, "adaptable")
    env = setting.make_env(setting.config.eval_episodes)
    action_dim = env.single_action_space.shape[0]
    learner = untrained_learner(setting.agent, setting.features, action_dim, setting.key("create"))
    plan = _control_plan(setting, 0, setting.config.off_policy.random, uniform=True)
    _learn_control(setting, learner, plan, 0, env)


def _control_plan(setting: Setting, spent: int, wait: int, uniform: bool, critic_updates: int = 0) -> Plan:
    config, n = setting.config.off_policy, setting.config.num_envs
    calls = 25
    first = spent + min(wait, setting.config.steps // 4)
    capacity = min(config.replay_capacity, setting.config.steps + calls * n)
    return Plan(
        calls, max(1, calls * n // config.interval), BatchSpec(config.batch), first, uniform, critic_updates, capacity
    )


def _learn_control(setting: Setting, learner: Any, plan: Plan, spent: int, evaluation: Any) -> None:
    """Act with motor commands; observations keep the agent's own normalisation, features the run's."""
    split = setting.obs_dim
    encode = Normalizer(
        mean=jnp.concatenate([setting.agent.normalizer.mean, setting.encode.mean[split:]]),
        std=jnp.concatenate([setting.agent.normalizer.std, setting.encode.std[split:]]),
    )
    observe = setting.observer(evaluation, encode)
    observe(spent, learner)
    env = setting.make_env(setting.config.num_envs)
    seed = setting.env_seed("training")
    off_policy(env, learner, encode, plan, spent, setting.config.steps, setting.key("loop"), seed, observe)
    setting.kept = Tuned(without_optimiser(setting.learner), encode)


RUN: dict[str, Callable[[Setting], None]] = {
    "zero_shot": zero_shot,
    "z_search": z_search,
    "hierarchical": hierarchical,
    "finetune": finetune,
    "scratch": scratch,
}
