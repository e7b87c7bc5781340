"""METRA: scalable unsupervised RL with metric-aware abstraction (Park, Rybkin, Levine, 2024).

https://arxiv.org/abs/2310.08887

Skills z move the agent along a learned latent phi, and phi is bounded by temporal distance:

    max_{pi, phi}  E[ sum_t (phi(s_{t+1}) - phi(s_t))^T z ]     s.t.  |phi(s) - phi(s')|^2 <= 1  for neighbours s, s'

    reward   r  = dphi^T z,                      dphi = phi(s') - phi(s)
    phi      max  mean[ r + lambda c ],          c = min(eps, 1 - q),  q = sum_j dphi_j^2
    lambda   min  log(lambda) mean(c)            detached c, taken before phi moved
    policy   SAC on r, recomputed with the new phi (learners/sac.py)

Since r telescopes, the best z to reach a goal g from s is the direction of phi(g) - phi(s): that is how it is prompted.
A reward is prompted through its least-squares fit dphi^T w + b; this is ours, the paper prompts with goals only.

Differences between the paper and its released code; presets named `*-paper` follow the code (docs/fidelity.md#metra):
- `constraint_reduction="mean"`: the code has q = mean_j dphi_j^2, so it enforces |dphi| <= sqrt(d). The paper: "sum".
- `batch.timeout_as_terminal=True`: the code stores a time limit as a terminal and does not bootstrap there.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import UserError, check, check_choice
from urlrl.learners import graphs
from urlrl.learners.model import Model, PositiveScalar, check_network, one_row
from urlrl.learners.nets import MLP
from urlrl.learners.sac import SAC, SACConfig
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer, least_squares
from urlrl.learners.surgery import insert_inputs
from urlrl.types import (
    Array,
    BatchSpec,
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

REDUCTIONS = {"sum": jnp.sum, "mean": jnp.mean}


@dataclass(frozen=True)
class MetraConfig:
    z: SkillSpace = SkillSpace("sphere", 2)  # prior over skills; phi maps into the same dimension
    batch: BatchSpec = BatchSpec()  # what a gradient step sees
    phi_only: int = 0  # leading entries of the observation that the policy does not see: the root's, to collect data
    width: int = 1024  # units of both hidden layers, of every network that has no width of its own
    lr: float = 1e-4  # Adam, of lambda and every network that has no rate of its own
    constraint_reduction: Literal["sum", "mean"] = "sum"  # q over the latent dimensions: the paper's, the code's
    slack: float = 1e-3  # eps: lets lambda shrink where the constraint holds
    dual_init: float = 30.0  # initial lambda
    sac: SACConfig = SACConfig()  # the policy's learner

    def __post_init__(self):
        check_network(self)
        check("phi_only", self.phi_only, 0)
        check_choice("constraint_reduction", self.constraint_reduction, REDUCTIONS)
        check("slack", self.slack, 0)
        check("dual_init", self.dual_init, 0, open_low=True)


class Toward(NamedTuple):
    """A task of METRA: a point of latent space to move to."""

    phi_goal: jax.Array  # (d,)


class Along(NamedTuple):
    """A task of METRA: a skill to follow throughout."""

    z: jax.Array  # (d,)


class Maximise(NamedTuple):
    """A task of METRA: the reward dphi^T w + offset, for skills that move phi by direction(z)^T moves on average."""

    w: jax.Array  # (d,)
    offset: jax.Array  # ()
    moves: jax.Array  # (d, d)


class Metra(struct.PyTreeNode):
    phi: Model
    dual: PositiveScalar  # lambda
    sac: SAC
    normalizer: Normalizer
    config: MetraConfig = struct.field(pytree_node=False)
    Config = MetraConfig

    begin, act = hold_skill()
    plan = nothing
    abilities = frozenset({"told", "predicts", "reliability", "adaptable", "exportable", "latent", "constrained"})
    prompts = (GoalPrompt, RewardPrompt, DemoPrompt)
    shared = ()

    @classmethod
    def create(cls, config: MetraConfig, example: Transition, key: jax.Array) -> "Metra":
        """`example` is one transition or a batch; only its shapes matter."""
        phi_key, sac_key = jax.random.split(key)
        obs, action = one_row(example)
        x = jnp.zeros((1, _seen(config, obs) + config.z.dim), jnp.float32)
        return cls(
            phi=Model.create(MLP(config.z.dim, config.width), config.lr, phi_key, obs),
            dual=PositiveScalar.create(config.dual_init, config.lr),
            sac=SAC.create(config.sac, x, action, sac_key, config),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    def latent(self, obs: Array) -> jax.Array:
        """phi of raw observations, (*B, d)."""
        return self.phi(self.normalizer(obs))

    def constraint(self, batch: Transition) -> jax.Array:
        """1 - q of raw transitions, (*B,): the constraint keeps it at 0 or above."""
        return 1 - self._step_sq(self._latent_step(batch))

    def sample_actions(self, obs: Array, z: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature 0 is the mode."""
        return self.sac.actor(self._policy_input(self.normalizer(obs), z)).sample(key, temperature)

    def intrinsic_reward(self, batch: Transition) -> jax.Array:
        """r = dphi^T z, (B,); where the constraint holds, at most |direction(z)|, times sqrt(d) if it is averaged."""
        return self._reward(self._normalized(batch))

    def update(self, batch: Transition, key: jax.Array) -> tuple["Metra", Metrics]:
        """Improve the representation, replace the reward, improve the policy."""
        batch = self._normalized(batch)
        agent, metrics = self._update_phi(batch)
        reward = agent._reward(batch)
        x, next_x = self._policy_input(batch.obs, batch.z), self._policy_input(batch.next_obs, batch.z)
        sac, sac_metrics = self.sac.update(x, batch.action, reward, batch.discount, next_x, key)
        return agent.replace(sac=sac), {**metrics, **sac_metrics, "reward/intrinsic": jnp.mean(reward)}

    def _update_phi(self, batch: Transition) -> tuple["Metra", Metrics]:
        direction = self.config.z.direction(batch.z)

        def loss(params):
            dphi = self._dphi(batch, params)
            q = self._step_sq(dphi)
            c = jnp.minimum(self.config.slack, 1 - q)
            objective = jnp.sum(dphi * direction, axis=-1) + jax.lax.stop_gradient(self.dual.value) * c
            return -jnp.mean(objective), (jnp.mean(c), jnp.mean(q))

        phi, phi_loss, (c, q) = self.phi.minimise(loss)
        metrics = {"phi/loss": phi_loss, "phi/step_sq": q, "phi/slack": c, "phi/lambda": self.dual.value}
        return self.replace(phi=phi, dual=self.dual.minimise(c)), metrics

    def _step_sq(self, dphi: jax.Array) -> jax.Array:
        """q, (*B,)."""
        return REDUCTIONS[self.config.constraint_reduction](dphi**2, axis=-1)

    def _reward(self, batch: Transition) -> jax.Array:
        """r of normalised observations, (B,)."""
        return jnp.sum(self._dphi(batch) * self.config.z.direction(batch.z), axis=-1)

    def _dphi(self, batch: Transition, params: Any = None) -> jax.Array:
        """phi(s') - phi(s) of normalised observations, (B, d). Not in one pass: in two, the gradients of biases that
        make no difference cancel to zero, where in one they are rounding, and Adam makes steps of these."""
        return self.phi(batch.next_obs, params=params) - self.phi(batch.obs, params=params)

    def _latent_step(self, batch: Transition) -> jax.Array:
        """dphi of raw observations, (B, d)."""
        return self.latent(batch.next_obs) - self.latent(batch.obs)

    def _normalized(self, batch: Transition) -> Transition:
        return batch._replace(obs=self.normalizer(batch.obs), next_obs=self.normalizer(batch.next_obs))

    def _policy_input(self, obs: Array, z: Array) -> jax.Array:
        return jnp.concatenate([obs[..., self.config.phi_only :], z], axis=-1)

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
                moves, _ = least_squares(self.config.z.direction(seen.z), self._latent_step(seen))
                return Maximise(w, offset, moves)

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
        scale = (move @ task.w) / jnp.sum(move * direction, axis=-1)
        return self._policy_input(self.normalizer(obs), z), scale

    def learner(self, z: Array, key: jax.Array) -> SAC:
        """SAC on normalised observations whose actor is the policy under z (d,), and its critics METRA's under z."""
        del key
        learner = self.sac.hold_input(_seen(self.config, self.normalizer.mean), z)
        return learner.insert_inputs(0, self.config.phi_only) if self.config.phi_only else learner

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        actor = self.sac.actor.replace(params=insert_inputs(self.sac.actor.params, 0, self.config.phi_only))
        moves, _ = least_squares(self.config.z.direction(seen.z), self._latent_step(seen))
        return SkillNetworks(
            policy=graphs.policy(actor, ("obs", "z")),
            features=graphs.features(self.phi.module, self.phi.params),
            goal=Rule("difference"),
            reward=Rule("least_squares", ("difference", "intercept", "moves")),
            demo=Rule("difference"),
            moves=moves,
        )


def _seen(config: MetraConfig, obs: Array) -> int:
    """How many entries of an observation the policy sees."""
    seen = obs.shape[-1] - config.phi_only
    if seen < 1:
        raise UserError(f"phi_only is {config.phi_only}: expected fewer than the {obs.shape[-1]} of an observation.")
    return seen
