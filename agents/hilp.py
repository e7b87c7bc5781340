"""HILP: foundation policies with Hilbert representations (Park, Kreiman, Levine, 2024), goal-conditioned variant.

https://arxiv.org/abs/2402.15567

phi maps states so that distances are temporal distances (learners/hilbert.py); a latent-conditioned policy learns
offline to move along every direction z of that space:

    reward  r = (phi(s') - phi(s))^T z,  z uniform on the unit sphere, drawn anew for every sample of every step
    policy  IQL on r (learners/iql.py), which never terminates
    goal    z = (phi(g) - phi(s)) / |...|, anew at every step
    plan    t = phi(g), then `plan_recursions` times: t = mean of the latents w of dataset states with the smallest
            max(|w - phi(s)|, |w - t|), a point half way; z points to t. Averaged are the nearest 0.1 % of the
            states, at least one: more would lie all along a short way, and their mean would lead astray

A reward is prompted through its least-squares fit on phi(s') - phi(s), a demonstration as the way that it went. HILP's
zero-shot-RL variant is agents/sf.py.

Differences from the released code (docs/fidelity.md#hilp): skills are drawn by keys that the update is given (for most
of the code's life a jitted loss held one constant set of skills, and the paper's numbers were made so); goals may be an
episode's last state; the four losses have an Adam each, which is the same as one; planning's states are drawn without
replacement, of fewer than `plan_states` all are taken, with as large a share of them as neighbours, and `plan_near`
ends the halving where the way is short.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from urlrl.errors import UserError, check, check_all
from urlrl.learners import graphs
from urlrl.learners.hilbert import Hilbert
from urlrl.learners.iql import IQL, IQLConfig
from urlrl.learners.model import check_network, one_row
from urlrl.learners.nets import MLP, gelu_tanh
from urlrl.learners.skills import SkillSpace, hold_skill, nothing
from urlrl.learners.statistics import Normalizer, least_squares
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
    Shared,
    SkillNetworks,
    Transition,
    check_prompt,
)


@dataclass(frozen=True)
class HILPConfig:
    z: SkillSpace = SkillSpace("sphere", 32)  # directions of latent space; phi maps into the same dimension
    batch: BatchSpec = BatchSpec(size=1024, goals=Goals())  # what a gradient step sees
    width: int = 512  # units of every hidden layer, of every network that has no width of its own
    depth: int = 3  # hidden layers of every network that has no depth of its own
    lr: float = 3e-4  # Adam, of every network that has no rate of its own
    distance_gamma: float = 0.99  # discount per control step, of phi
    distance_expectile: float = 0.95  # of phi: towards 1 is the distance of the best that the data shows
    iql: IQLConfig = IQLConfig()  # the policy's learner; phi's target follows by its tau, too
    plan_recursions: int = 0  # of planning toward a goal; 0 is none, the paper's HILP-Plan is 3
    plan_states: int = 50_000  # states of the data that a way is planned over, or all if there are fewer
    plan_neighbours: int = 50  # of plan_states latents, how many a subgoal averages; of fewer as large a share, or 1
    plan_near: float = 8.0  # a target at most so many steps of latent distance away is not halved; 0 is the paper's

    def __post_init__(self):
        check_network(self)
        check_all(self, "depth", "plan_neighbours", low=1)
        check_all(self, "distance_gamma", "distance_expectile", low=0, high=1)
        if self.z.kind != "sphere":
            raise UserError(f"z.kind is '{self.z.kind}': expected 'sphere' for HILP, directions of latent space.")
        check_all(self, "plan_recursions", "plan_near", low=0)
        check("plan_states", self.plan_states, self.plan_neighbours)
        if self.batch.goals is None:
            raise UserError("batch.goals is None: expected some, as HILP learns from goals.")


class Toward(NamedTuple):
    """A task: a point of latent space to move to, and latents of states on the way, where it is planned."""

    phi_goal: jax.Array  # (d,)
    waypoints: Shared | None = None  # (n, d)


class Along(NamedTuple):
    """A task: a direction to follow throughout, and the reward dphi^T w + offset that it is meant for."""

    z: jax.Array  # (d,)
    w: jax.Array  # (d,)
    offset: jax.Array  # ()


class HILP(struct.PyTreeNode):
    hilbert: Hilbert
    iql: IQL
    normalizer: Normalizer
    config: HILPConfig = struct.field(pytree_node=False)
    Config = HILPConfig

    begin, act = hold_skill()
    plan = nothing
    abilities = frozenset({"told", "predicts", "adaptable", "exportable", "latent", "plans", "offline"})
    prompts = (GoalPrompt, RewardPrompt, DemoPrompt)
    shared = ()

    @classmethod
    def create(cls, config: HILPConfig, example: Transition, key: jax.Array) -> "HILP":
        """`example` is one transition or a batch; only its shapes matter."""
        phi_key, iql_key = jax.random.split(key)
        obs, action = one_row(example)
        encoder = MLP(config.z.dim, config.width, config.depth, activation=gelu_tanh, norm=True)
        hilbert = Hilbert.create(
            encoder, config.lr, phi_key, obs, gamma=config.distance_gamma, expectile=config.distance_expectile,
            tau=config.iql.tau,
        )  # fmt: skip
        x = jnp.zeros((1, obs.shape[-1] + config.z.dim), jnp.float32)
        iql = IQL.create(config.iql, x, action, iql_key, config)
        return cls(hilbert=hilbert, iql=iql, normalizer=Normalizer.identity(obs.shape[-1]), config=config)

    def latent(self, obs: Array) -> jax.Array:
        """phi of raw observations, (*B, d)."""
        return self.hilbert(self.normalizer(obs))

    def sample_actions(self, obs: Array, z: Array, key: jax.Array, temperature: float = 1.0) -> jax.Array:
        """(*B, act) in [-1, 1]; temperature 0 is the mode."""
        return self.iql.actor(_join(self.normalizer(obs), z)).sample(key, temperature)

    def intrinsic_reward(self, batch: Transition) -> jax.Array:
        """r = (phi(s') - phi(s))^T z, (B,)."""
        return jnp.sum(self._latent_step(batch) * batch.z, axis=-1)

    def update(self, batch: Transition, key: jax.Array) -> tuple["HILP", Metrics]:
        """Draw skills, reward them, improve the policy; and improve the representation, on the same batch."""
        z_key, iql_key = jax.random.split(key)
        obs, next_obs, goal = (self.normalizer(x) for x in (batch.obs, batch.next_obs, batch.goal))
        z = self.config.z.sample(z_key, obs.shape[0])
        reward = jnp.sum((self.hilbert(next_obs) - self.hilbert(obs)) * z, axis=-1)
        on = jnp.ones_like(reward)  # The way along z has no end.
        iql, metrics = self.iql.update(_join(obs, z), batch.action, reward, on, _join(next_obs, z), iql_key)
        hilbert, phi_metrics = self.hilbert.update(obs, next_obs, goal, batch.goal_steps)
        metrics = {**metrics, **phi_metrics, "reward/intrinsic": jnp.mean(reward)}
        return self.replace(hilbert=hilbert, iql=iql), metrics

    def planning(self, recursions: int) -> "HILP":
        """The same agent, going to goals over waypoints; 0 recursions: straight."""
        return self.replace(config=replace(self.config, plan_recursions=recursions))

    @property
    def num_waypoints(self) -> int:
        return self.config.plan_states if self.config.plan_recursions else 0

    def read(self, prompt: Prompt, seen: Transition, key: jax.Array) -> Toward | Along:
        """A goal is a point of latent space, reached over waypoints that `seen` holds; a reward the direction that
        explains it best; a demonstration the direction in which it went."""
        del key
        check_prompt(self, prompt)
        match prompt:
            case GoalPrompt(goal):
                latent = self.latent(goal)
                planned = self.config.plan_recursions > 0
                return Toward(latent, Shared(self.latent(seen.obs)) if planned else None)
            case DemoPrompt(obs):
                way = self.latent(obs[-1]) - self.latent(obs[0])
                return Along(self.config.z.project(way), way, jnp.float32(0))
            case RewardPrompt(steps):
                w, offset = least_squares(self._latent_step(steps), steps.reward)
                return Along(self.config.z.project(w), w, offset)

    def aim(self, task: Toward | Along, obs: Array) -> jax.Array:
        """The skill to use at each of these states, (*B, d)."""
        match task:
            case Toward(phi_goal, waypoints):
                latent = self.latent(obs)
                target = jnp.broadcast_to(phi_goal, latent.shape)
                if waypoints is not None:
                    plan = jnp.vectorize(self._subgoal, excluded={2}, signature="(d),(d)->(d)")
                    target = plan(latent, target, waypoints.value)
                return self.config.z.project(target - latent)
            case Along(z):
                return jnp.broadcast_to(z, (*obs.shape[:-1], z.shape[-1]))

    def _subgoal(self, latent: jax.Array, target: jax.Array, waypoints: jax.Array) -> jax.Array:
        """A latent (d,) that lies 1 / 2^recursions of the way from `latent` to `target`, or nearer to `target` where
        what is left of the way is short already."""
        config, near = self.config, _distance(waypoints, latent)
        neighbours = self._neighbours(waypoints.shape[0])
        for _ in range(config.plan_recursions):
            farther = jnp.maximum(near, _distance(waypoints, target))
            _, best = jax.lax.top_k(-farther, neighbours)
            is_short = jnp.linalg.norm(target - latent) <= config.plan_near
            target = jnp.where(is_short, target, jnp.mean(waypoints[best], axis=0))
        return target

    def _neighbours(self, states: int) -> int:
        """How many of so many states a subgoal averages."""
        return max(1, round(self.config.plan_neighbours * states / self.config.plan_states))

    @property
    def gamma(self) -> float:
        """Of `predict_return`: the policy's discount."""
        return self.config.iql.gamma

    def predict_reward(self, task: Along, batch: Transition) -> jax.Array:
        """dphi^T w + offset, (B,)."""
        return self._latent_step(batch) @ task.w + task.offset

    def predict_return(self, task: Along, obs: Array) -> jax.Array:
        """The discounted return from these states, (*B,), without end: the value of the direction, in the reward's
        units, and the offset's share."""
        value = self.iql.value(_join(self.normalizer(obs), self.aim(task, obs)))[..., 0]
        return jnp.linalg.norm(task.w) * value + task.offset / (1 - self.gamma)

    def learner(self, z: Array, key: jax.Array) -> IQL:
        """IQL on normalised observations that starts as the policy under z, with the critics and the value of z: they
        know what a way along z is worth, and z was chosen because that way is worth something in the task."""
        del key
        return self.iql.hold_input(self.normalizer.mean.shape[-1], z)

    def skill_networks(self, seen: Transition) -> SkillNetworks:
        config = self.config
        neighbours = self._neighbours(seen.obs.shape[0])
        numbers = {"neighbours": neighbours, "recursions": config.plan_recursions, "near": config.plan_near}
        plan = Rule("plan", (), {name: (float(number),) for name, number in numbers.items()})
        return SkillNetworks(
            policy=graphs.policy(self.iql.actor, ("obs", "z")),
            features=self.hilbert.graph(),
            goal=plan if config.plan_recursions else Rule("difference"),
            reward=Rule("least_squares", ("difference", "intercept")),
            demo=Rule("difference"),
        )

    def _latent_step(self, batch: Transition) -> jax.Array:
        """dphi of raw observations, (B, d)."""
        return self.latent(batch.next_obs) - self.latent(batch.obs)


def _join(obs: Array, z: Array) -> jax.Array:
    return jnp.concatenate([obs, z], axis=-1)


def _distance(points: jax.Array, center: jax.Array) -> jax.Array:
    """(n,) from each of points (n, d) to `center` (d,)."""
    return jnp.linalg.norm(points - center[None], axis=-1)
