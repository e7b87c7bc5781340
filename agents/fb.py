"""FB: forward-backward representations (Touati, Ollivier, 2021; Touati, Rapin, Ollivier, 2023).

Also its conservative variants VC-FB and MC-FB (Jeen, Bewley, Cullen, 2024).

https://arxiv.org/abs/2103.07945, https://arxiv.org/abs/2209.14935, https://arxiv.org/abs/2309.15178

F(s, a, z)^T B(s') is the density of the states that the policy pi_z visits, relative to the data's; counting begins
with the next state, at weight 1. So for any reward r(s'), z = E[r(s') B(s')] makes F(s, a, z)^T z the Q function of
pi_z, and pi_z(s) = argmax_a F(s, a, z)^T z is optimal: nothing is left to learn once the reward is told.

    M_i[j,k] = F_i(s_j, a_j, z_j)^T B(s'_k),   Mbar[j,k] = min_i Fbar_i(s'_j, a'_j, z_j)^T Bbar(s'_k),   a' ~ pi_z(s')
    L_FB     = 1/2 sum_i mean_{j!=k} (M_i - gamma_j Mbar)^2 - sum_i mean_j M_i[j,j]
    L_orth   = mean_{j!=k} (B_j^T B_k)^2 - 2 mean_j |B_j|^2                                  so that Cov(B) is I
    policy   learners/skill_actor.py on Q_i = F_i^T z
    z        half of them sqrt(d) B(s) / |B(s)| of states in the batch, half uniform on the sphere of radius sqrt(d)

A conservative variant adds alpha P, which is large where actions that the data does not hold seem better than its own:

    VC       P = sum_i mean_s  [logsumexp_n F_i(s, a_n, z)^T z]     - sum_i mean F_i(s, a, z)^T z
    MC       P = sum_i mean_{s,s'} [logsumexp_n F_i(s, a_n, z)^T B(s')] - sum_i mean F_i(s, a, z)^T B(s')
    alpha    log(alpha) rises while P is above `penalty_budget`

The a_n are 12: 6 uniform, 2 of the policy, 2 of the policy at s' (scored there), the data's twice.

Differences from the released code (facebookresearch/controllable_agent; docs/fidelity.md#fb): F and B have an optimiser
each, which for Adam is the same; targets are copies at the start (as there); Q loss, pixels and goal spaces are left
out. A prompt's z is mean(r B), without weights.

VC-FB and MC-FB have these networks too, in the released code (enjeeneer/zero-shot-rl) others: embeddings of two ReLU
layers without layer norm, heads of two layers of 1,024, B of three layers of 256, PyTorch's initial weights.
"""

from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import check, check_all, check_choice
from urlrl.learners import graphs
from urlrl.learners.ddpg import DDPG, DDPGConfig
from urlrl.learners.embed import FeatureMap, ForwardMap
from urlrl.learners.model import Model, PositiveScalar, filled, minimise_jointly, one_row, soft_update
from urlrl.learners.skill_actor import Linear, SkillActor, check_linear, linear_task, mix
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
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

POLICY = DDPGConfig(gamma=0.98)
PENALTIES = ("none", "vc", "mc")
UNIFORM, OF_POLICY, OF_DATA = 6, 2, 2  # actions of the penalty: uniform; of the policy at s, and at s'; the data's own


@dataclass(frozen=True)
class FBConfig:
    z: SkillSpace = SkillSpace("wide_sphere", 50)  # task vectors; F and B map into the same dimension
    batch: BatchSpec = BatchSpec(size=1024)  # what a gradient step sees
    width: int = 1024  # units of F's layers, and of the policy's if it has no width of its own
    backward_width: int = 512  # units of B's layers
    lr: float = 1e-4  # Adam, of F, B, and the policy if it has no rate of its own
    ddpg: DDPGConfig = POLICY  # the policy's learner; its gamma and tau are those of F and B
    orthonormality: float = 1.0  # weight of L_orth
    mix: float = 0.5  # share of z that are B of states in the batch
    penalty: Literal["none", "vc", "mc"] = "none"  # conservatism: none | of values | of measures
    penalty_budget: float = 50.0  # P that is allowed before alpha rises
    penalty_lr: float = 1e-4  # Adam, of log alpha; 0: alpha stays as it is
    penalty_init: float = 1.0  # initial alpha; from 0 it never rises: P is measured only
    max_gradient: float | None = None  # each gradient entry of F and B is clipped to it; None: none is

    def __post_init__(self):
        check_linear("FB", self)
        check("backward_width", self.backward_width, 1)
        check_all(self, "orthonormality", "penalty_budget", "penalty_lr", "penalty_init", low=0)
        check_choice("penalty", self.penalty, PENALTIES)


class FB(struct.PyTreeNode):
    forward: Model  # F: obs, action, z -> (2, *B, d)
    backward: Model  # B: obs -> (*B, d)
    target: tuple[dict, dict]  # their parameters, averaged
    actor: SkillActor
    alpha: PositiveScalar  # weight of the penalty
    normalizer: Normalizer
    config: FBConfig = struct.field(pytree_node=False)
    Config = FBConfig

    begin, act = hold_skill()
    plan = nothing
    abilities = frozenset({"told", "predicts", "reliability", "adaptable", "exportable", "offline"})
    prompts = (RewardPrompt, GoalPrompt, DemoPrompt)
    shared = ()

    @classmethod
    def create(cls, config: FBConfig, example: Transition, key: jax.Array) -> "FB":
        """`example` is one transition or a batch; only its shapes matter."""
        forward_key, backward_key, actor_key = jax.random.split(key, 3)
        obs, action = one_row(example)
        z, clip = jnp.zeros((1, config.z.dim), jnp.float32), config.max_gradient
        f, b = ForwardMap(config.z.dim, config.width), FeatureMap(config.z.dim, config.backward_width)
        forward = Model.create(f, config.lr, forward_key, obs, action, z, clip=clip)
        backward = Model.create(b, config.lr, backward_key, obs, clip=clip)
        return cls(
            forward=forward,
            backward=backward,
            target=jax.tree.map(jnp.copy, (forward.params, backward.params)),
            actor=SkillActor.create(config.ddpg, obs, action, z, actor_key, config),
            alpha=PositiveScalar.create(config.penalty_init, config.penalty_lr),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    def sample_actions(self, obs: Array, z: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature 0 is the mode."""
        return self.actor(self.normalizer(obs), z).sample(key, temperature)

    def features(self, obs: Array) -> jax.Array:
        """B of raw observations, (*B, d)."""
        return self.backward(self.normalizer(obs))

    def intrinsic_reward(self, batch: Transition) -> jax.Array:
        """The reward that z stands for, B(s')^T z, (B,): exact where Cov(B) is I."""
        return jnp.sum(self.features(batch.next_obs) * batch.z, axis=-1)

    def update(self, batch: Transition, key: jax.Array) -> tuple["FB", Metrics]:
        """Draw tasks, improve the representation, improve their policies."""
        z_key, next_key, penalty_key, actor_key = jax.random.split(key, 4)
        batch = batch._replace(obs=self.normalizer(batch.obs), next_obs=self.normalizer(batch.next_obs))
        z = self._tasks(batch, z_key)
        agent, metrics = self._update_measure(batch, z, next_key, penalty_key)

        def q(action):
            return jnp.sum(agent.forward(batch.obs, action, z) * z[None], axis=-1)

        actor, actor_loss = self.actor.improve(q, batch.obs, z, actor_key)
        online = (agent.forward.params, agent.backward.params)
        target = soft_update(self.target, online, self.config.ddpg.tau)
        return agent.replace(actor=actor, target=target), metrics | {"actor/loss": actor_loss}

    def _tasks(self, batch: Transition, key: jax.Array) -> jax.Array:
        """z, (B, d)."""
        prior_key, order_key, mix_key = jax.random.split(key, 3)
        states = jax.random.permutation(order_key, batch.obs, axis=0)
        prior = self.config.z.sample(prior_key, states.shape[0])
        return mix(prior, self.config.z.project(self.backward(states)), self.config.mix, mix_key)

    def _update_measure(
        self, batch: Transition, z: jax.Array, next_key: jax.Array, penalty_key: jax.Array
    ) -> tuple["FB", Metrics]:
        config, n = self.config, z.shape[0]
        next_action = self.actor(batch.next_obs, z).smoothed(next_key)
        next_f = self.forward(batch.next_obs, next_action, z, params=self.target[0])
        target_m = jnp.min(next_f @ self.backward(batch.next_obs, params=self.target[1]).T, axis=0)
        target_m = jax.lax.stop_gradient(self.gamma * batch.discount[:, None] * target_m)
        off = (1 - jnp.eye(n)) / (n * (n - 1))  # averages over j != k
        actions = self._penalty_actions(batch, z, penalty_key) if config.penalty != "none" else None
        alpha = self.alpha
        if actions is not None and config.penalty_lr:
            before = self._penalty(actions, batch, z, self.forward.params, self.backward.params)
            alpha = self.alpha.minimise(-alpha.value * (before - config.penalty_budget) / 2)

        def loss(params):
            f, b = (
                self.forward(batch.obs, batch.action, z, params=params[0]),
                self.backward(batch.next_obs, params=params[1]),
            )
            m, gram = f @ b.T, b @ b.T
            diagonal = jnp.mean(jnp.sum(f * b[None], axis=-1), axis=1)
            fb = 0.5 * jnp.sum(off[None] * (m - target_m[None]) ** 2) - jnp.sum(diagonal)
            orth = jnp.sum(off * gram**2) - 2 * jnp.mean(jnp.diagonal(gram))
            penalty = jnp.float32(0) if actions is None else self._penalty(actions, batch, z, *params)
            total = fb + config.orthonormality * orth
            if actions is not None:
                total = total + jax.lax.stop_gradient(alpha.value) * penalty
            error = jnp.max(jnp.abs(b.T @ b / n - jnp.eye(b.shape[1])))
            return total, (fb, orth, jnp.mean(diagonal), error, penalty)

        (forward, backward), _, aux = minimise_jointly((self.forward, self.backward), loss)
        names = ("fb/loss", "fb/orthonormality", "fb/diagonal", "fb/covariance_error", "fb/penalty")
        metrics = dict(zip(names, aux)) | {"fb/alpha": alpha.value}
        if actions is None:
            metrics = {name: metrics[name] for name in names[:-1]}
        return self.replace(forward=forward, backward=backward, alpha=alpha), metrics

    def _penalty_actions(self, batch: Transition, z: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Actions to score at s, (UNIFORM + OF_POLICY, B, act), and at s', (OF_POLICY, B, act)."""
        uniform_key, *keys = jax.random.split(key, 1 + 2 * OF_POLICY)
        uniform = jax.random.uniform(uniform_key, (UNIFORM, *batch.action.shape), minval=-1.0, maxval=1.0)
        here, there = (self.actor(obs, z) for obs in (batch.obs, batch.next_obs))
        sampled = [policy.smoothed(k) for policy, k in zip([here, there] * OF_POLICY, keys)]
        return jnp.concatenate([uniform, jnp.stack(sampled[::2])]), jnp.stack(sampled[1::2])

    def _penalty(self, actions: tuple[jax.Array, jax.Array], batch: Transition, z: jax.Array, f_params, b_params):
        """P, (); its gradient reaches F, and B for "mc"."""

        def score(obs, action):  # (2, B) for "vc", (2, B, B) for "mc"
            f = self.forward(obs, action, z, params=f_params)
            return jnp.sum(f * z[None], axis=-1) if self.config.penalty == "vc" else f @ b.T

        b = self.backward(batch.next_obs, params=b_params)
        here, there = actions
        data = score(batch.obs, batch.action)
        scores = [*(score(batch.obs, a) for a in here), *(score(batch.next_obs, a) for a in there), *[data] * OF_DATA]
        best = jax.nn.logsumexp(jnp.stack(scores), axis=0)
        return jnp.sum(jnp.mean(best - data, axis=tuple(range(1, data.ndim))))

    def read(self, prompt: Prompt, seen: Transition, key: jax.Array) -> Linear:
        """A reward is mean(r(s') B(s')), a goal B(g), a demonstration the mean B of the states that it reached."""
        del seen
        check_prompt(self, prompt)
        match prompt:
            case RewardPrompt(steps):
                w = jnp.mean(steps.reward[:, None] * self.features(steps.next_obs), axis=0)
            case GoalPrompt(goal):
                w = self.features(goal)
            case DemoPrompt(obs):
                w = jnp.mean(self.features(obs[1:]), axis=0)
        return linear_task(self.config.z, w, key)

    def aim(self, task: Linear, obs: Array) -> jax.Array:
        """The task's z at each of these states, (*B, d)."""
        return jnp.broadcast_to(task.z, (*obs.shape[:-1], task.z.shape[-1]))

    @property
    def gamma(self) -> float:
        """Of `predict_return`: the policy's discount."""
        return self.config.ddpg.gamma

    def predict_reward(self, task: Linear, batch: Transition) -> jax.Array:
        """B(s')^T w, (B,): exact where Cov(B) is I and B spans the reward."""
        return self.features(batch.next_obs) @ task.w

    def predict_return(self, task: Linear, obs: Array) -> jax.Array:
        """F(s, pi_z(s), z)^T w, (*B,), without end: the smaller of both F's."""
        obs, z = self.normalizer(obs), self.aim(task, obs)
        return jnp.min(self.forward(obs, self.actor(obs, z).mode(), z) @ task.w, axis=0)

    def reliability(self, task: Linear, steps: Transition, seen: Transition, key: jax.Array) -> Metrics:
        """`mean_m`: mean F(s, pi_z(s), z)^T B(s'), s of `steps` and s' of `seen`: 1 / (1 - gamma) if M is exact.
        Targets take the smaller of two M, so it is lower, and may be negative."""
        del key
        obs, z = self.normalizer(steps.obs), self.aim(task, steps.obs)
        f = self.forward(obs, self.actor(obs, z).mode(), z)
        return {"mean_m": jnp.mean(f @ jnp.mean(self.features(seen.next_obs), axis=0))}

    def learner(self, z: Array, key: jax.Array) -> DDPG:
        """DDPG on normalised observations that starts as pi_z, with untrained critics, at the rate of F."""
        return self.actor.learner(filled(replace(self.config.ddpg, lr=None), self.config), z, key)

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        del seen
        return SkillNetworks(
            policy=graphs.policy(self.actor.model, ("obs", "z")),
            features=graphs.features(self.backward.module, self.backward.params),
            goal=Rule("features"),
            reward=Rule("mean"),
            demo=Rule("mean"),
        )
