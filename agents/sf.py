"""SF: universal successor features on learned state features: baselines of the FB paper, and HILP's zero-shot variant.

Barreto et al., 2017, https://arxiv.org/abs/1606.05312; Borsa et al., 2019, https://arxiv.org/abs/1812.07626;
Touati, Rapin, Ollivier, 2023, https://arxiv.org/abs/2209.14935; Park, Kreiman, Levine, 2024,
https://arxiv.org/abs/2402.15567.

psi(s, a, z) is the discounted sum of the features phi(s') that the policy pi_z will meet, so psi^T z is its Q function
for the reward phi(s')^T z. A reward is regressed on phi, and its weights are the z to use.

    phi      trained by its own loss alone (learners/features.py)
    y        phi(s') + gamma psibar_j(s', a', z),    j = argmin_i psibar_i(s', a', z)^T z,    a' ~ pi_z(s')
    L_psi    sum_i mean (psi_i - y)^2, or with `q_loss` sum_i mean ((psi_i - y)^T z)^2
    policy   learners/skill_actor.py on Q_i = psi_i^T z
    z        half of them along Cov(phi)^-1 phi(s') of states in the batch, half uniform on the sphere of radius sqrt(d)

`features="hilbert"` is HILP (zero-shot RL), preset `hilp-zsrl`: phi is temporal distance. `cumulant="state"` takes the
centred phi(s') - mean as psi's features, as the released code does for every reward; "difference" takes
phi(s') - phi(s), which is the paper's Eq. 7 and what the code uses to reach goals.

Differences from the released code (docs/fidelity.md#sf): hilbert's targets begin as copies of phi (there a
re-initialisation makes them differ); a goal may be an episode's last state; the covariance is inverted with a ridge of
1e-5 of its trace. The "concat" cumulant, pixels and the svd_sr, latent and autoencoder features are left out.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import UserError, check_choice
from urlrl.learners import graphs
from urlrl.learners.ddpg import DDPG, DDPGConfig
from urlrl.learners.embed import ForwardMap
from urlrl.learners.features import FEATURES, WITH_GOALS, FeatureConfig
from urlrl.learners.model import Model, filled, one_row, soft_update
from urlrl.learners.skill_actor import Linear, SkillActor, check_linear, linear_task, mix
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer
from urlrl.types import (
    Array,
    BatchSpec,
    DemoPrompt,
    GoalPrompt,
    Goals,
    Metrics,
    Prompt,
    RewardPrompt,
    Rule,
    SkillNetworks,
    Transition,
    check_prompt,
)

POLICY = DDPGConfig(gamma=0.98)


@dataclass(frozen=True)
class SFConfig:
    z: SkillSpace = SkillSpace("wide_sphere", 50)  # task vectors; phi and psi map into the same dimension
    batch: BatchSpec = BatchSpec(size=1024, goals=Goals())  # what a gradient step sees
    features: Literal["random", "laplacian", "contrastive", "svd", "inverse", "forward", "hilbert"] = "hilbert"
    cumulant: Literal["state", "difference"] = "state"  # what psi sums: phi(s') | phi(s') - phi(s)
    phi: FeatureConfig = FeatureConfig()  # their learner, with a width and a rate of its own
    width: int = 1024  # units of psi's layers, and of the policy's if it has no width of its own
    lr: float = 1e-4  # Adam, of psi, and the policy if it has no rate of its own
    ddpg: DDPGConfig = POLICY  # the policy's learner; its gamma and tau are those of psi
    q_loss: bool = False  # psi is fitted along z only
    mix: float = 0.5  # share of z that come from states in the batch
    max_gradient: float | None = None  # each gradient entry of psi is clipped to it; None: none is

    def __post_init__(self):
        check_linear("SF", self)
        check_choice("features", self.features, FEATURES)
        check_choice("cumulant", self.cumulant, ("state", "difference"))
        if self.features in WITH_GOALS and self.batch.goals is None:
            raise UserError(f"batch.goals is None: expected some, as features '{self.features}' learn from goals.")
        if self.features == "contrastive" and self.batch.goals and self.batch.goals.random:
            raise UserError(
                f"batch.goals.random is {self.batch.goals.random}: expected 0, as features 'contrastive' learn from "
                f"later states of the same episode."
            )


class Toward(NamedTuple):
    """A task: a point of the feature space to move to."""

    phi_goal: jax.Array  # (d,)


class SF(struct.PyTreeNode):
    psi: Model  # obs, action, z -> (2, *B, d)
    target: dict  # its parameters, averaged
    phi: Any  # a learners.features.FeatureLearner
    actor: SkillActor
    normalizer: Normalizer
    config: SFConfig = struct.field(pytree_node=False)
    Config = SFConfig

    begin, act = hold_skill()
    plan = nothing
    abilities = frozenset({"told", "predicts", "adaptable", "exportable", "latent", "offline"})
    prompts = (RewardPrompt, GoalPrompt, DemoPrompt)
    shared = ()

    @classmethod
    def create(cls, config: SFConfig, example: Transition, key: jax.Array) -> "SF":
        """`example` is one transition or a batch; only its shapes matter."""
        psi_key, phi_key, actor_key = jax.random.split(key, 3)
        obs, action = one_row(example)
        z = jnp.zeros((1, config.z.dim), jnp.float32)
        module = ForwardMap(config.z.dim, config.width)
        psi = Model.create(module, config.lr, psi_key, obs, action, z, clip=config.max_gradient)
        return cls(
            psi=psi,
            target=jax.tree.map(jnp.copy, psi.params),
            phi=FEATURES[config.features].create(config.z.dim, config.phi, obs, action, phi_key),
            actor=SkillActor.create(config.ddpg, obs, action, z, actor_key, config),
            normalizer=Normalizer.identity(obs.shape[-1]),
            config=config,
        )

    def sample_actions(self, obs: Array, z: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature 0 is the mode."""
        return self.actor(self.normalizer(obs), z).sample(key, temperature)

    def latent(self, obs: Array) -> jax.Array:
        """phi of raw observations, (*B, d)."""
        return self.phi(self.normalizer(obs))

    def features(self, batch: Transition) -> jax.Array:
        """What psi sums, of raw observations: (B, d)."""
        return self._cumulant(self._normalized(batch))

    def intrinsic_reward(self, batch: Transition) -> jax.Array:
        """The reward that z stands for, (B,)."""
        return jnp.sum(self.features(batch) * batch.z, axis=-1)

    def update(self, batch: Transition, key: jax.Array) -> tuple["SF", Metrics]:
        """Draw tasks, improve psi and phi, improve the tasks' policies."""
        z_key, next_key, actor_key = jax.random.split(key, 3)
        batch = self._normalized(batch)
        z = self._tasks(batch, z_key)
        psi, metrics = self._update_psi(batch, z, next_key)
        phi, phi_metrics = self.phi.update(batch)

        def q(action):
            return jnp.sum(psi(batch.obs, action, z) * z[None], axis=-1)

        actor, actor_loss = self.actor.improve(q, batch.obs, z, actor_key)
        target = soft_update(self.target, psi.params, self.config.ddpg.tau)
        agent = self.replace(psi=psi, phi=phi, actor=actor, target=target)
        return agent, {**metrics, **phi_metrics, "actor/loss": actor_loss}

    def _cumulant(self, batch: Transition) -> jax.Array:
        """Of normalised observations, (B, d)."""
        phi = self.phi(batch.next_obs)
        return phi if self.config.cumulant == "state" else phi - self.phi(batch.obs)

    def _normalized(self, batch: Transition) -> Transition:
        goal = batch.goal if batch.goal is None else self.normalizer(batch.goal)
        return batch._replace(obs=self.normalizer(batch.obs), next_obs=self.normalizer(batch.next_obs), goal=goal)

    def _tasks(self, batch: Transition, key: jax.Array) -> jax.Array:
        """z, (B, d)."""
        prior_key, order_key, mix_key = jax.random.split(key, 3)
        features = self._cumulant(batch)
        own = whitened(jax.random.permutation(order_key, features, axis=0), features)
        prior = self.config.z.sample(prior_key, features.shape[0])
        return mix(prior, self.config.z.project(own), self.config.mix, mix_key)

    def _update_psi(self, batch: Transition, z: jax.Array, key: jax.Array) -> tuple[Model, Metrics]:
        next_action = self.actor(batch.next_obs, z).smoothed(key)
        next_psi = self.psi(batch.next_obs, next_action, z, params=self.target)
        worse = jnp.argmin(jnp.sum(next_psi * z[None], axis=-1), axis=0)  # A whole vector is chosen by its Q.
        next_psi = jnp.take_along_axis(next_psi, worse[None, :, None], axis=0)[0]
        y = self._cumulant(batch) + self.gamma * batch.discount[:, None] * next_psi
        y = jax.lax.stop_gradient(y)

        def loss(params):
            psi = self.psi(batch.obs, batch.action, z, params=params)
            error = psi - y[None]
            if self.config.q_loss:
                error = jnp.sum(error * z[None], axis=-1, keepdims=True)
            return jnp.sum(jnp.mean(error**2, axis=(1, 2))), jnp.mean(jnp.sum(psi * z[None], axis=-1))

        psi, psi_loss, q = self.psi.minimise(loss)
        return psi, {"psi/loss": psi_loss, "psi/q": q}

    def read(self, prompt: Prompt, seen: Transition, key: jax.Array) -> Linear | Toward:
        """A reward is its least-squares fit on the features, without intercept. A goal is the weights that single its
        features out among those of `seen`; for the difference cumulant a point to move to. A demonstration is the
        mean of the goals that it reached, or the way that it went."""
        check_prompt(self, prompt)
        match prompt:
            case RewardPrompt(steps):
                w = jnp.linalg.pinv(self.features(steps), rtol=1e-5) @ steps.reward
            case GoalPrompt(goal) if self.config.cumulant == "difference":
                return Toward(self.latent(goal))
            case GoalPrompt(goal):
                w = whitened(self.latent(goal)[None], self.features(seen))[0]
            case DemoPrompt(obs) if self.config.cumulant == "difference":
                w = self.latent(obs[-1]) - self.latent(obs[0])
            case DemoPrompt(obs):
                w = jnp.mean(whitened(self.latent(obs[1:]), self.features(seen)), axis=0)
        return linear_task(self.config.z, w, key)

    def aim(self, task: Linear | Toward, obs: Array) -> jax.Array:
        """The z to use at each of these states, (*B, d)."""
        match task:
            case Toward(phi_goal):
                latent = self.latent(obs)
                return self.config.z.project(jnp.broadcast_to(phi_goal, latent.shape) - latent)
            case Linear(z):
                return jnp.broadcast_to(z, (*obs.shape[:-1], z.shape[-1]))

    @property
    def gamma(self) -> float:
        """Of `predict_return`: the policy's discount."""
        return self.config.ddpg.gamma

    def predict_reward(self, task: Linear, batch: Transition) -> jax.Array:
        """features^T w, (B,)."""
        return self.features(batch) @ task.w

    def predict_return(self, task: Linear, obs: Array) -> jax.Array:
        """psi(s, pi_z(s), z)^T w, (*B,), without end: the smaller of both."""
        obs, z = self.normalizer(obs), self.aim(task, obs)
        return jnp.min(self.psi(obs, self.actor(obs, z).mode(), z) @ task.w, axis=0)

    def learner(self, z: Array, key: jax.Array) -> DDPG:
        """DDPG on normalised observations that starts as pi_z, with untrained critics, at the rate of psi."""
        return self.actor.learner(filled(replace(self.config.ddpg, lr=None), self.config), z, key)

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        del seen
        steps = ("difference",) if self.config.cumulant == "difference" else ()
        told = Rule("difference" if steps else "whitened")
        return SkillNetworks(
            policy=graphs.policy(self.actor.model, ("obs", "z")),
            features=self.phi.graph(),
            goal=told,
            reward=Rule("least_squares", steps),
            demo=told,
        )


def whitened(x: Array, features: Array) -> jax.Array:
    """Cov^-1 x for each row of x (m, d), Cov = features^T features / n, uncentred."""
    # An accelerator's fast products err by 1e-3, and without its ridge a covariance of few directions has no root.
    cov = jnp.matmul(features.T, features, precision="highest") / features.shape[0]
    ridge = 1e-5 * jnp.trace(cov) + 1e-12
    return jax.scipy.linalg.solve(cov + ridge * jnp.eye(cov.shape[0]), x.T, assume_a="pos").T
