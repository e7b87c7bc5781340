"""What agents share that are paid to move along their skill in a learned latent space: how they follow prompts.

    r = dphi^T direction(z),        dphi = phi(s') - phi(s)

Since r telescopes, the best z to reach a goal g from s is the direction of phi(g) - phi(s): that is how they are
prompted. A reward is prompted through its least-squares fit dphi^T w + b; this is ours, the papers prompt with goals.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from urlrl.learners import graphs
from urlrl.learners.model import Model
from urlrl.learners.skill_agent import SkillAgent
from urlrl.learners.statistics import least_squares
from urlrl.types import (
    Array,
    DemoPrompt,
    GoalPrompt,
    Metrics,
    Prompt,
    RewardPrompt,
    Rule,
    SkillNetworks,
    Transition,
    check_prompt,
)


class Toward(NamedTuple):
    """A task: a point of latent space to move to."""

    phi_goal: jax.Array  # (d,)


class Along(NamedTuple):
    """A task: a skill to follow throughout."""

    z: jax.Array  # (d,)


class Maximise(NamedTuple):
    """A task: the reward dphi^T w + offset, for skills that move phi by direction(z)^T moves on average."""

    w: jax.Array  # (d,)
    offset: jax.Array  # ()
    moves: jax.Array  # (d, d)


class LatentTasks(SkillAgent):
    """See `SkillAgent`. The agent says how phi learns."""

    phi: Model

    abilities = frozenset({"told", "predicts", "reliability", "adaptable", "exportable", "latent"})
    prompts = (GoalPrompt, RewardPrompt, DemoPrompt)

    @property
    def pay(self) -> float:
        """What a unit of dphi^T direction(z) pays."""
        return 1.0

    def latent(self, obs: Array) -> jax.Array:
        """phi of raw observations, (*B, d)."""
        return self._phi(self.normalizer(obs))

    def _phi(self, obs: Array, params: Any = None) -> jax.Array:
        """Of normalised observations, (*B, d)."""
        return self.phi(obs, params=self._phi_params(params))

    def _phi_params(self, params: Any = None) -> Any:
        """What phi is computed with, of these parameters; None: of the present ones."""
        return jax.lax.stop_gradient(self.phi.params) if params is None else params

    def _reward(self, batch: Transition, key: jax.Array) -> jax.Array:
        """r of normalised observations, (B,)."""
        del key
        return self.pay * jnp.sum(self._dphi(batch) * self.config.z.direction(batch.z), axis=-1)

    def _dphi(self, batch: Transition, params: Any = None) -> jax.Array:
        """phi(s') - phi(s) of normalised observations, (B, d). Not in one pass: in two, the gradients of biases that
        make no difference cancel to zero, where in one they are rounding, and Adam makes steps of these."""
        return self._phi(batch.next_obs, params) - self._phi(batch.obs, params)

    def _latent_step(self, batch: Transition) -> jax.Array:
        """dphi of raw observations, (B, d)."""
        return self.latent(batch.next_obs) - self.latent(batch.obs)

    def read(self, prompt: Prompt, seen: Transition, key: jax.Array) -> Toward | Along | Maximise:
        """A goal is a point of latent space; a demonstration is the direction in which it went; a reward is the
        direction w that explains it best, dphi^T w + b, and the skill the one that `seen` shows to move most along w.
        Both are least squares."""
        del key
        check_prompt(self, prompt)
        match prompt:
            case GoalPrompt(goal):
                return Toward(self.latent(goal))
            case DemoPrompt(obs):
                return Along(self.config.z.project(self.latent(obs[-1]) - self.latent(obs[0])))
            case RewardPrompt(steps):
                w, offset = least_squares(self._latent_step(steps), steps.reward)
                return Maximise(w, offset, self._moves(seen))

    def _moves(self, seen: Transition) -> jax.Array:
        """(d, d): how skills move phi on average, direction(z)^T moves."""
        return least_squares(self.config.z.direction(seen.z), self._latent_step(seen))[0]

    def aim(self, task: Toward | Along | Maximise, obs: Array) -> jax.Array:
        """The skill to use at each of these states, (*B, d)."""
        match task:
            case Toward(phi_goal):
                latent = self.latent(obs)
                return self.config.z.project(jnp.broadcast_to(phi_goal, latent.shape) - latent)
            case Along(z):
                return jnp.broadcast_to(z, (*obs.shape[:-1], z.shape[-1]))
            case Maximise(w, _, moves):
                return jnp.broadcast_to(self.config.z.project(moves @ w), (*obs.shape[:-1], w.shape[-1]))

    @property
    def gamma(self) -> float:
        """Of `predict_return`: the policy's discount."""
        return self.config.sac.gamma

    def predict_reward(self, task: Maximise, batch: Transition) -> jax.Array:
        """dphi^T w + offset, (B,)."""
        return self._latent_step(batch) @ task.w + task.offset

    def predict_return(self, task: Maximise, obs: Array) -> jax.Array:
        """The discounted return from these states, (*B,), without end: the critics' value of the skill (which counts
        entropy too), in the units of the reward that its moves bring, and the offset's share."""
        x, scale = self._followed(task, obs)
        q = jnp.min(self.sac.critic(x, self.sac.actor(x).mode()), axis=0)
        return scale * q + task.offset / (1 - self.gamma)

    def reliability(self, task: Maximise, steps: Transition, seen: Transition, key: jax.Array) -> Metrics:
        """`too_low_by`: of predictions, by design. Targets take the smaller of two critics, whose mean is half their
        difference above it, and count entropy, which is no reward: both in each of 1 / (1 - gamma) steps like these."""
        del seen
        x, scale = self._followed(task, steps.obs)
        action, log_prob = self.sac.actor(x).sample_and_log_prob(key)
        first, second = self.sac.critic(x, action)
        each = jnp.abs(first - second) / 2 + self.sac.alpha.value * log_prob
        return {"too_low_by": jnp.mean(scale * each) / (1 - self.gamma)}

    def _followed(self, task: Maximise, obs: Array) -> tuple[jax.Array, jax.Array]:
        """What the policy sees under the task's skill, and what a unit of its own reward is worth there."""
        z = self.aim(task, obs)
        direction = self.config.z.direction(z)
        move = direction @ task.moves
        scale = (move @ task.w) / (self.pay * jnp.sum(move * direction, axis=-1))
        return self._policy_input(self.normalizer(obs), z), scale

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        return (
            super()
            .skill_networks(seen)
            ._replace(
                features=graphs.features(self.phi.module, self._phi_params()),
                goal=Rule("difference"),
                reward=Rule("least_squares", ("difference", "intercept", "moves")),
                demo=Rule("difference"),
                moves=self._moves(seen),
            )
        )
