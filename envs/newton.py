"""The accelerations of bodies in contact: MuJoCo's constraint problem, by Newton's method with an exact line search.

    min_a  1/2 (a - a0)^T M (a - a0) + 1/2 sum_i D_i min(J_i a - r_i, 0)^2

(mujoco.readthedocs.io/en/stable/computation: a0 is the smooth acceleration, r the reference that constraints are held
to; for joint limits, frictionless contacts and pyramidal friction, without friction loss. An equality is two rows, one
from either side.)

The same steps as MuJoCo's own Newton solver. What differs is the line search. Along a direction the slope is piecewise
linear and rises, so all its kinks are looked at together and the zero between two of them is exact: a handful of
kernels, where MJX's search is a loop of some dozens in each of its iterations.
"""

import jax
import jax.numpy as jnp

ITERATIONS = 6  # MuJoCo stops by itself; a batch waits for its slowest. Fewer than 6 are not enough for an ant.


def constrained_acceleration(
    mass: jax.Array,
    smooth: jax.Array,
    jacobian: jax.Array,
    reference: jax.Array,
    stiffness: jax.Array,
    start: jax.Array,
    iterations: int = ITERATIONS,
) -> tuple[jax.Array, jax.Array]:
    """The minimiser a and the constraints' force on each degree of freedom, J^T f, (nv,) each.

    Args:
        mass: M, (nv, nv).
        smooth: a0, (nv,).
        jacobian: J, (m, nv); rows of constraints that are off are zero.
        reference: r, (m,).
        stiffness: D, (m,), at least 0.
        start: a guess of a, (nv,); a0 is taken where that is better.
        iterations: of Newton's method.
    """

    def cost(a: jax.Array) -> jax.Array:
        return 0.5 * (a - smooth) @ (mass @ (a - smooth)) + 0.5 * jnp.sum(stiffness * gap(a).clip(max=0) ** 2)

    def gap(a: jax.Array) -> jax.Array:
        return jacobian @ a - reference

    def force(a: jax.Array) -> jax.Array:
        return -(stiffness * gap(a).clip(max=0)) @ jacobian

    def newton(_: int, a: jax.Array) -> jax.Array:
        active = jnp.where(gap(a) < 0, stiffness, 0.0)
        residual = mass @ (a - smooth)
        hessian = mass + (jacobian.T * active[None, :]) @ jacobian
        way = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(hessian), residual - force(a))
        return a + way * line_minimum(way @ residual, way @ (mass @ way), gap(a), jacobian @ way, stiffness)

    a = jnp.where(cost(start) < cost(smooth), start, smooth)
    a = jax.lax.fori_loop(0, iterations, newton, a)
    return a, force(a)


def line_minimum(
    slope: jax.Array, curvature: jax.Array, gap: jax.Array, rate: jax.Array, stiffness: jax.Array
) -> jax.Array:
    """The t >= 0, (), that minimises  slope t + 1/2 curvature t^2 + 1/2 sum_i stiffness_i min(gap_i + t rate_i, 0)^2.

    `gap`, `rate` and `stiffness` are (m,). 0 where nothing rises.
    """
    moving = rate != 0
    kink = jnp.where(moving, -gap / jnp.where(moving, rate, 1.0), -1.0)  # where constraint i goes on or off
    ahead = kink > 0
    at = jnp.where(ahead, kink, 0.0)[:, None]
    inside = (gap[None, :] + at * rate[None, :]).clip(max=0)
    pull = jnp.sum(inside * (stiffness * rate)[None, :], axis=1)  # Not a product: that would write `inside` to memory.
    falling = ahead & (slope + at[:, 0] * curvature + pull < 0)
    low = jnp.max(jnp.where(falling, kink, 0.0))  # The minimum lies between these two kinks.
    high = jnp.min(jnp.where(ahead & ~falling, kink, jnp.inf))
    middle = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * low + 1)
    active = jnp.where(gap + middle * rate < 0, stiffness * rate, 0.0)
    rise = curvature + active @ rate
    return jnp.where(rise > 0, -(slope + active @ gap) / jnp.where(rise > 0, rise, 1.0), 0.0)
