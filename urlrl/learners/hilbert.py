"""Hilbert representations (Park, Kreiman, Levine, 2024, https://arxiv.org/abs/2402.15567): phi such that distances in
latent space are temporal distances.

    V_i(s, g) = -sqrt(max(|phi_i(s) - phi_i(g)|^2, 1e-6)),                                i = 1, 2
    q_i       = r + gamma m Vbar_i(s', g),            r = [s is g] - 1,  m = 1 - [s is g]
    adv       = r + gamma m min_i Vbar_i(s', g) - mean_i Vbar_i(s, g)
    L         = sum_i mean w (q_i - V_i(s, g))^2,     w = expectile if adv >= 0 else 1 - expectile

This is action-free IQL on goals that are drawn from the data: three different aggregations of two networks in one loss,
on purpose. The targets are averages of phi as it was before each step. The floor below the root is on the square, so
that the gradient is 0 where s is g. With gamma < 1 the distance is that of discounted steps, at most 1 / (1 - gamma).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from urlrl.learners import graphs
from urlrl.learners.model import Model, soft_update
from urlrl.learners.nets import Pair
from urlrl.types import Array, Graph, Metrics


class Hilbert(struct.PyTreeNode):
    phi: Model  # two encoders, (*B, obs) -> (2, *B, d)
    target: dict  # their parameters, averaged
    gamma: float = struct.field(pytree_node=False)  # discount per step
    expectile: float = struct.field(pytree_node=False)  # 0.5: of what the data does; towards 1: of its best
    tau: float = struct.field(pytree_node=False)  # target: share of the online parameters per update

    @classmethod
    def create(
        cls, module: nn.Module, lr: float, key: jax.Array, obs: Array, *, gamma: float, expectile: float, tau: float
    ) -> "Hilbert":
        """`module` is one encoder, (*B, obs) -> (*B, d)."""
        phi = Model.create(Pair(module), lr, key, obs)
        target = jax.tree.map(jnp.copy, phi.params)
        return cls(phi=phi, target=target, gamma=gamma, expectile=expectile, tau=tau)

    def __call__(self, obs: Array) -> jax.Array:
        """The first encoder, (*B, d): what policies are built on."""
        return self.phi(obs)[0]

    def graph(self, shift: Array | None = None) -> Graph:
        """The same as operations; `shift` (d,) is taken from the result."""
        return graphs.features(self.phi.module.module, self.phi.params["copy_0"], shift)

    def value(self, obs: Array, goal: Array, params) -> jax.Array:
        """V, (2, *B): minus the number of steps from obs to goal."""
        difference = self.phi(obs, params=params) - self.phi(goal, params=params)
        return -jnp.sqrt(jnp.maximum(jnp.sum(difference**2, axis=-1), 1e-6))

    def update(self, obs: Array, next_obs: Array, goal: Array, goal_steps: Array) -> tuple["Hilbert", Metrics]:
        """One step on (B, obs) states and goals; `goal_steps` (B,) is 0 where obs is the goal."""
        reached = (goal_steps == 0).astype(jnp.float32)
        next_v, v_target = self.value(next_obs, goal, self.target), self.value(obs, goal, self.target)
        reward, future = reached - 1, self.gamma * (1 - reached)
        q = reward[None] + future[None] * next_v
        advantage = reward + future * jnp.min(next_v, axis=0) - jnp.mean(v_target, axis=0)
        weight = jax.lax.stop_gradient(jnp.where(advantage >= 0, self.expectile, 1 - self.expectile))
        q = jax.lax.stop_gradient(q)

        def loss(params):
            v = self.value(obs, goal, params)
            return jnp.sum(jnp.mean(weight[None] * (q - v) ** 2, axis=1)), jnp.mean(v)

        phi, phi_loss, v_mean = self.phi.minimise(loss)
        target = soft_update(self.target, self.phi.params, self.tau)
        return self.replace(phi=phi, target=target), {"phi/loss": phi_loss, "phi/distance": -v_mean}
