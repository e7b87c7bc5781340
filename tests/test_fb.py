"""FB and its conservative variants against hand-written NumPy and in an exact Markov chain (sheet of zero-shot offline
RL, sections 1.4, 1.6, 6.3, 6.4, 6.6 and 6.8).

Gradients are central differences of a loss that is written out in float64: what the library may differentiate and
what it may not is then a matter of which parameters are moved.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urlrl.agents.fb import FB, FBConfig
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.learners.ddpg import DDPGConfig
from urlrl.learners.distributions import NoisyTanh
from urlrl.learners.embed import ForwardMap
from urlrl.learners.model import Model, PositiveScalar
from urlrl.learners.skill_actor import Linear, SkillActor
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.types import DemoPrompt, GoalPrompt, RewardPrompt, Transition

OBS, ACT, DIM, BATCH, LR = 4, 2, 3, 5, 0.05
SGD = optax.sgd(LR)
RNG = np.random.default_rng(0)
Z = RNG.standard_normal((BATCH, DIM))
Z *= np.sqrt(DIM) / np.linalg.norm(Z, axis=1, keepdims=True)
HERE, THERE = RNG.uniform(-1, 1, (8, BATCH, ACT)), RNG.uniform(-1, 1, (2, BATCH, ACT))  # what a penalty scores

jit_update = jax.jit(lambda agent, batch, key: agent.update(batch, key))


# --- Networks without hidden layers -----------------------------------------------------------------------------------


class LinearF(nn.Module):
    """F_i = [s, a, z] w_i; a table over s where s is one-hot and the rest of w is 0."""

    dim: int = DIM

    @nn.compact
    def __call__(self, *inputs):
        x = jnp.concatenate(inputs, axis=-1)
        w = self.param("w", nn.initializers.normal(1.0), (2, x.shape[-1], self.dim))
        return jnp.stack([x @ w[0], x @ w[1]])


class LinearB(nn.Module):
    dim: int = DIM

    @nn.compact
    def __call__(self, obs):
        return obs @ self.param("w", nn.initializers.normal(1.0), (obs.shape[-1], self.dim))


class LinearPolicy(nn.Module):
    """tanh([s, z] w), without noise."""

    action_dim: int = ACT

    @nn.compact
    def __call__(self, obs, z):
        x = jnp.concatenate([obs, z], axis=-1)
        w = self.param("w", nn.initializers.normal(1.0), (x.shape[-1], self.action_dim))
        return NoisyTanh(x @ w, 0.0, 0.0)


class Given(SkillSpace):
    """A prior that always draws Z."""

    def sample(self, key, n):
        return jnp.float32(Z[:n])


class Scripted(FB):
    """FB whose penalty scores HERE and THERE."""

    def _penalty_actions(self, batch, z, key):
        return jnp.float32(HERE), jnp.float32(THERE)


def linear_model(module: nn.Module, w: Any, tx: optax.GradientTransformation = SGD) -> Model:
    params = {"w": jnp.float32(w)}
    return Model(params=params, opt_state=tx.init(params), module=module, tx=tx)


class World(NamedTuple):
    """The numbers of an update, float64: parameters, then a batch."""

    f: np.ndarray  # (2, obs + act + d, d)
    b: np.ndarray  # (obs, d)
    f_bar: np.ndarray
    b_bar: np.ndarray
    actor: np.ndarray  # (obs + d, act)
    log_alpha: Any
    obs: np.ndarray
    action: np.ndarray
    discount: np.ndarray
    next_obs: np.ndarray


def make_world(seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    width, normal = OBS + ACT + DIM, rng.standard_normal
    return World(
        f=0.4 * normal((2, width, DIM)), b=0.4 * normal((OBS, DIM)), f_bar=0.4 * normal((2, width, DIM)),
        b_bar=0.4 * normal((OBS, DIM)), actor=0.5 * normal((OBS + DIM, ACT)), log_alpha=np.log(0.3),
        obs=normal((BATCH, OBS)), action=rng.uniform(-1, 1, (BATCH, ACT)), discount=np.array([1.0, 0, 1, 1, 0]),
        next_obs=normal((BATCH, OBS)),
    )  # fmt: skip


PLAIN = FBConfig(
    z=Given("wide_sphere", DIM),
    ddpg=DDPGConfig(gamma=0.9, tau=0.25),
    orthonormality=0.7,
    mix=0.0,
    penalty_lr=LR,
    penalty_budget=2.0,
)
CONFIGS = {"plain": PLAIN, "vc": replace(PLAIN, penalty="vc"), "mc": replace(PLAIN, penalty="mc")}


def make_linear(world: World, config: FBConfig = PLAIN) -> FB:
    return Scripted(
        forward=linear_model(LinearF(), world.f),
        backward=linear_model(LinearB(), world.b),
        target=({"w": jnp.float32(world.f_bar)}, {"w": jnp.float32(world.b_bar)}),
        actor=SkillActor(model=linear_model(LinearPolicy(), world.actor)),
        alpha=PositiveScalar(jnp.float32(world.log_alpha), SGD.init(jnp.float32(0)), SGD),
        normalizer=Normalizer.identity(OBS),
        config=config,
    )


def make_batch(world: World) -> Transition:
    obs, action, discount, next_obs = (jnp.float32(x) for x in world[6:])
    return Transition(obs, action, jnp.full(BATCH, jnp.nan), discount, next_obs, jnp.zeros((BATCH, 0)))


def library_step(world: World, config: FBConfig = PLAIN, update=jit_update) -> tuple[World, dict]:
    agent, metrics = update(make_linear(world, config), make_batch(world), jax.random.key(0))
    f_bar, b_bar = agent.target
    networks = (agent.forward.params, agent.backward.params, f_bar, b_bar, agent.actor.model.params)
    return World(*(params["w"] for params in networks), agent.alpha.log_value, *world[6:]), metrics


# --- The same in NumPy ------------------------------------------------------------------------------------------------


def gradient(loss, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Central differences of a scalar function at x, float64."""
    slopes = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        slopes[i] = (loss(x + step) - loss(x - step)) / (2 * h)
    return slopes


def measures(f: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(*L, 2, n, d), (*L, n, d) -> F_i[j]^T B[k], (*L, 2, n, n)."""
    return np.einsum("...ijd,...kd->...ijk", f, b)


def fb_terms(f, b, f_bar, b_bar, bootstrap, mistake: str = "", z=None) -> tuple[np.ndarray, np.ndarray]:
    """Off-diagonal and diagonal term of each network, (*L, 2): means over j != k, and over j. `bootstrap` (*L, n)."""
    n, m, m_bar = b.shape[-2], measures(f, b), measures(f_bar, b_bar)
    eye = np.eye(n)
    if mistake == "mean of both targets":
        target = m_bar.mean(axis=-3, keepdims=True)
    elif mistake == "each network its own target":
        target = m_bar
    elif mistake == "the network chosen by its Q":
        worse = np.argmin((f_bar * z).sum(axis=-1), axis=0)
        target = m_bar[worse, np.arange(n)][None]
    else:
        target = m_bar.mean(axis=-3, keepdims=True) - 0.5 * np.abs(np.diff(m_bar, axis=-3))  # the smaller of both
    rows = bootstrap[..., None, None, :] if mistake == "gamma of the column" else bootstrap[..., None, :, None]
    square = (m - rows * target) ** 2
    if mistake == "diagonal in the off term":
        off = square.mean(axis=(-1, -2))
    else:
        pairs = n * n if mistake == "off term over n squared" else n * (n - 1)
        off = (square * (1 - eye)).sum(axis=(-1, -2)) / pairs
    diagonal = (m * eye).sum(axis=(-1, -2)) / n
    if mistake == "gamma on the diagonal":
        diagonal = np.mean(bootstrap, axis=-1)[..., None] * diagonal
    return 0.5 * off, diagonal


def orthonormality(b: np.ndarray, mistake: str = "") -> float:
    n, gram = len(b), b @ b.T
    off = (gram**2).sum() - (np.diag(gram) ** 2).sum()
    if mistake == "orthonormality in the half-scaled form":
        return 0.5 * off / (n * (n - 1)) - np.diag(gram).mean()
    return off / (n * (n - 1)) - 2 * np.diag(gram).mean()


def penalty(world: World, kind: str, f: np.ndarray, b: np.ndarray, mistake: str = "") -> float:
    def score(obs, action):
        values = np.stack([np.concatenate([obs, action, Z], axis=1) @ w for w in f])
        return (values * Z).sum(axis=-1) if kind == "vc" else measures(values, world.next_obs @ b)

    there = world.obs if mistake == "all actions scored at s" else world.next_obs
    data = score(world.obs, world.action)
    copies = 1 if mistake == "the data's action once" else 2
    scores = [score(world.obs, a) for a in HERE] + [score(there, a) for a in THERE] + [data] * copies
    best = np.log(np.exp(np.stack(scores)).sum(axis=0))
    if mistake == "logarithm of a mean":
        best = best - np.log(len(scores))
    if mistake == "penalty without the data":
        data = 0 * data
    gap = best - data
    if mistake == "penalty off the diagonal only" and kind == "mc":
        gap = gap * (1 - np.eye(BATCH)) * BATCH / (BATCH - 1)
    per_network = gap.reshape(2, -1).mean(axis=1)
    return per_network.mean() if mistake == "penalty averaged over networks" else per_network.sum()


def loss_parts(world: World, config: FBConfig, f: np.ndarray, b: np.ndarray, mistake: str = ""):
    """L_FB, L_orth and P as functions of F's and B's parameters; all else is `world`."""
    there = world.obs if mistake == "next action from s" else world.next_obs
    next_action = np.tanh(np.concatenate([there, Z], axis=1) @ world.actor)
    x = np.concatenate([world.obs, world.action, Z], axis=1)
    next_x = np.concatenate([world.next_obs, next_action, Z], axis=1)
    seen = world.obs if mistake == "counts from s" else world.next_obs
    f_bar, b_bar = (f, b) if mistake == "gradient through the target" else (world.f_bar, world.b_bar)
    if mistake == "no target networks":
        f_bar, b_bar = world.f, world.b
    bootstrap = config.ddpg.gamma * (np.ones(BATCH) if mistake == "bootstraps through terminals" else world.discount)
    values, next_values = (np.stack([inputs @ w for w in ws]) for inputs, ws in ((x, f), (next_x, f_bar)))
    off, diagonal = fb_terms(values, seen @ b, next_values, seen @ b_bar, bootstrap, mistake, Z)
    measure = off.sum() * (2 if mistake == "no half" else 1) - diagonal.sum()
    orth = orthonormality((world.obs if mistake == "orthonormality of s" else world.next_obs) @ b, mistake)
    return measure, orth, penalty(world, config.penalty, f, b, mistake) if config.penalty != "none" else 0.0


def numpy_step(world: World, config: FBConfig = PLAIN, mistake: str = "") -> tuple[World, dict]:
    """One update of the sheet's sections 1.4 and 1.6; `mistake` names what is done wrong."""
    measure, orth, p = loss_parts(world, config, world.f, world.b, mistake)
    log_alpha = world.log_alpha
    if config.penalty != "none":
        slope = 0.5 * np.exp(log_alpha) * (p - config.penalty_budget)
        slope *= {"alpha falls": -1, "alpha without the half": 2}.get(mistake, 1)
        if mistake == "alpha instead of its logarithm":
            slope /= np.exp(log_alpha)
        log_alpha = log_alpha + LR * slope
    alpha = np.exp(world.log_alpha if mistake == "alpha before its step" else log_alpha)
    weight = 1.0 if mistake == "orthonormality unweighted" else config.orthonormality

    def total(f, b):
        measure, orth, p = loss_parts(world, config, f, b, mistake)
        if mistake == "penalty without gradient to B":
            p = loss_parts(world, config, f, world.b, mistake)[2]
        return measure + weight * orth + alpha * p

    def actor_loss(w, f):
        action = np.tanh(np.concatenate([world.obs, Z], axis=1) @ w)
        q = np.stack([(np.concatenate([world.obs, action, Z], axis=1) @ v * Z).sum(axis=1) for v in f])
        return -np.mean(q.mean(axis=0) if mistake == "actor on the mean of both" else q.min(axis=0))

    f = world.f - LR * gradient(lambda w: total(w, world.b), world.f)
    b = world.b - LR * gradient(lambda w: total(world.f, w), world.b)
    f_seen = world.f if mistake == "actor on F before its step" else f
    actor = world.actor - LR * gradient(lambda w: actor_loss(w, f_seen), world.actor)
    if mistake == "actor trains F":
        f = f - LR * gradient(lambda w: actor_loss(world.actor, w), f)
    tau = 1 - config.ddpg.tau if mistake == "tau for 1 - tau" else config.ddpg.tau
    online = (world.f, world.b) if mistake == "targets averaged before the step" else (f, b)
    f_bar, b_bar = ((1 - tau) * t + tau * o for t, o in zip((world.f_bar, world.b_bar), online))
    metrics = {"fb/loss": measure, "fb/orthonormality": orth, "fb/penalty": p, "fb/alpha": np.exp(log_alpha),
               "actor/loss": actor_loss(world.actor, f)}  # fmt: skip
    return World(f, b, f_bar, b_bar, actor, log_alpha, *world[6:]), metrics


MISTAKES = (
    "gamma on the diagonal", "counts from s", "mean of both targets", "each network its own target",
    "the network chosen by its Q", "gamma of the column", "diagonal in the off term", "off term over n squared",
    "no half", "bootstraps through terminals", "next action from s", "no target networks",
    "gradient through the target", "orthonormality of s", "orthonormality in the half-scaled form",
    "orthonormality unweighted", "actor on the mean of both", "actor on F before its step", "actor trains F",
    "tau for 1 - tau", "targets averaged before the step", "all actions scored at s", "the data's action once",
    "penalty without the data", "penalty off the diagonal only", "penalty averaged over networks",
    "penalty without gradient to B", "alpha falls", "alpha without the half", "alpha instead of its logarithm",
    "alpha before its step",
)  # fmt: skip
ONLY_IN_METRICS = ("logarithm of a mean",)  # A constant has no gradient; alpha's step sees it too.


def check_step(step):
    for name, config in CONFIGS.items():
        (found, metrics), (expected, numbers) = step(make_world(), config), numpy_step(make_world(), config)
        for field, a, b in list(zip(World._fields, found, expected))[:6]:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=f"{name}: {field}")
        for field, value in numbers.items():
            if name != "plain" or field not in ("fb/penalty", "fb/alpha"):
                np.testing.assert_allclose(metrics[field], value, rtol=1e-4, atol=1e-5, err_msg=f"{name}: {field}")


def test_step_is_numpys():
    check_step(library_step)


@pytest.mark.parametrize("mistake", MISTAKES + ONLY_IN_METRICS)
def test_step_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_step(partial(numpy_step, mistake=mistake))


def test_the_smaller_of_both_is_taken_entry_by_entry():
    """Two states; Fbar^T B is ((1, 0), (1, 0)) by one network, ((0, 1), (0, 1)) by the other. Entry by entry, the
    smaller is 0, so F = 0 is right off the diagonal; a whole network, whichever its Q chooses, holds a 1."""
    batch = Transition(jnp.eye(2), jnp.zeros((2, 1)), jnp.zeros(2), jnp.ones(2), jnp.eye(2), jnp.zeros((2, 0)))
    f_bar = jnp.float32([[[1, 0], [1, 0]], [[0, 1], [0, 1]]])
    agent = make_ring(jnp.zeros((2, 2, 2)), jnp.eye(2), f_bar, jnp.eye(2))
    _, metrics = jit_update(agent, batch, jax.random.key(0))
    assert metrics["fb/loss"] == 0
    off, _ = fb_terms(np.zeros((2, 2, 2)), np.eye(2), np.asarray(f_bar), np.eye(2), np.full(2, 0.9))
    np.testing.assert_array_equal(off, 0)
    for z in ([[2, 1], [2, 1]], [[2, 1], [1, 2]]):
        wrong = fb_terms(
            np.zeros((2, 2, 2)), np.eye(2), np.asarray(f_bar), np.eye(2), np.full(2, 0.9),
            "the network chosen by its Q", np.array(z),
        )  # fmt: skip
        assert wrong[0].sum() > 0.1


# --- A ring of N states that is walked clockwise: everything is known -------------------------------------------------

N, GAMMA = 8, 0.9
CLOCKWISE = np.roll(np.eye(N), 1, axis=1)  # P
DENSITY = N * CLOCKWISE @ np.linalg.inv(np.eye(N) - GAMMA * CLOCKWISE)  # m, relative to the uniform distribution
UNIT = optax.sgd(1.0)


def make_ring(f, b, f_bar, b_bar, **changes) -> FB:
    """Tables over one-hot states, (2, n, d) and (n, d); F reads neither action nor z."""
    n, dim = b.shape

    def wide(table):
        return jnp.concatenate([jnp.float32(table), jnp.zeros((2, 1 + dim, dim))], axis=1)

    space = SkillSpace("wide_sphere", dim)
    config = FBConfig(z=space, ddpg=DDPGConfig(gamma=GAMMA, tau=1.0), **{"orthonormality": 0.0, **changes})
    return FB(
        forward=linear_model(LinearF(dim), wide(f), UNIT),
        backward=linear_model(LinearB(dim), b, UNIT),
        target=({"w": wide(f_bar)}, {"w": jnp.float32(b_bar)}),
        actor=SkillActor(model=linear_model(LinearPolicy(1), jnp.zeros((n + dim, 1)))),
        alpha=PositiveScalar.create(1.0, 0.0),
        normalizer=Normalizer.identity(n),
        config=config,
    )


def walk(states: np.ndarray) -> Transition:
    """Steps from these states, (*L,)."""
    obs, next_obs = (jnp.float32(np.eye(N)[s]) for s in (states, (states + 1) % N))
    return Transition(obs, obs[..., :1], obs[..., 0] + jnp.nan, 1 + 0 * obs[..., 0], next_obs, obs[..., :0])


# Over all 64 batches of two states each, means are exactly those of independent uniform states.
PAIRS = np.stack(np.divmod(np.arange(N * N), N), axis=1)
BATCHES = walk(PAIRS)


@partial(jax.jit, static_argnames="orthonormality")
def library_gradient(f, b, f_bar, b_bar, orthonormality=0.0):
    """Of F's and B's table, with the off-diagonal and the diagonal term per network, and L_orth."""
    agent = make_ring(f, b, f_bar, b_bar, orthonormality=orthonormality)
    keys, z = jax.random.split(jax.random.key(0), (len(PAIRS), 2)), jnp.zeros((2, f.shape[-1]))
    new, metrics = jax.vmap(lambda batch, keys: agent._update_measure(batch, z, keys[0], keys[1]))(BATCHES, keys)
    slope_f = f - jnp.mean(new.forward.params["w"], axis=0)[:, : f.shape[1]]
    slope_b = b - jnp.mean(new.backward.params["w"], axis=0)
    loss, diagonal, orth = (jnp.mean(metrics[k]) for k in ("fb/loss", "fb/diagonal", "fb/orthonormality"))
    return slope_f, slope_b, loss / 2 + diagonal, diagonal, orth


def numpy_gradient(f, b, f_bar, b_bar, mistake: str = ""):
    next_states = (PAIRS + 1) % N

    def terms(f, b):
        values, next_values = (np.stack(list(t), axis=0)[:, s] for t, s in ((f, PAIRS), (f_bar, next_states)))
        seen = PAIRS if mistake == "counts from s" else next_states
        bootstrap = np.full(PAIRS.shape, GAMMA)
        return fb_terms(
            values.swapaxes(0, 1), b[seen], next_values.swapaxes(0, 1), b_bar[seen], bootstrap, mistake,
        )  # fmt: skip

    def loss(f, b):
        off, diagonal = terms(f, b)
        return (off - diagonal).sum(axis=-1).mean()

    off, diagonal = (term.mean() for term in terms(f, b))
    return gradient(lambda x: loss(x, b), f), gradient(lambda x: loss(f, x), b), off, diagonal, None


B_RING = np.sqrt(N) * np.eye(N)
F_RING = np.stack([DENSITY / np.sqrt(N)] * 2)


def check_exact_solution(gradient_of):
    """At F^T B = m no gradient is left, also where the second target network is too high: the smaller one counts. The
    two terms are N / 2 and N / (1 - gamma^N). Elsewhere there is a gradient."""
    target = F_RING + np.array([0.0, 0.5])[:, None, None]
    slope_f, slope_b, off, diagonal, _ = gradient_of(F_RING, B_RING, target, B_RING)
    np.testing.assert_allclose(slope_f, 0, atol=2e-5)
    np.testing.assert_allclose(slope_b, 0, atol=5e-5)
    np.testing.assert_allclose([off, diagonal], [4.0, 14.0466], rtol=1e-5)
    elsewhere, *_ = gradient_of(1.1 * F_RING, B_RING, target, B_RING)
    assert np.abs(elsewhere).max() > 1e-2


def test_exact_solution():
    check_exact_solution(library_gradient)
    check_exact_solution(numpy_gradient)
    np.testing.assert_allclose(DENSITY.sum(axis=1) / N, 1 / (1 - GAMMA), rtol=1e-12)
    # The gradient that is 0 at the solution is the right one elsewhere too.
    rng = np.random.default_rng(3)
    tables = [rng.standard_normal(shape) for shape in ((2, N, N), (N, N), (2, N, N), (N, N))]
    for a, b in list(zip(library_gradient(*tables), numpy_gradient(*tables)))[:4]:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "mistake", ["gamma on the diagonal", "counts from s", "mean of both targets", "diagonal in the off term"]
)
def test_exact_solution_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_exact_solution(partial(numpy_gradient, mistake=mistake))


def learn_forward(steps: int = 120, roll: int = 0, scale: float = 1.0) -> np.ndarray:
    """F^T B after so many full gradient steps of F from 0, B fixed; a step of N is one of Bellman's."""

    def step(f, _):
        slope, *_ = library_gradient(f, jnp.float32(B_RING), scale * f, jnp.float32(B_RING))
        return f - N * slope, None

    f, _ = jax.lax.scan(step, jnp.zeros((2, N, N), jnp.float32), None, steps)
    return np.roll(np.asarray(f[0]) @ B_RING.T, roll, axis=1)


def check_learned_density(density):
    """Within 1 %; the weight of the state that follows is 1 / (1 - gamma^N), of the one after it gamma times that."""
    np.testing.assert_allclose(density, DENSITY, rtol=1e-2)
    np.testing.assert_allclose(density[0, 1:3] / N, [1.75583, GAMMA * 1.75583], rtol=1e-2)


def test_forward_learns_the_measure():
    check_learned_density(learn_forward())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"steps": 20}, id="not converged"),
        pytest.param({"roll": -1}, id="counted from s"),
        pytest.param({"scale": 0.9}, id="gamma twice"),
    ],
)
def test_learned_density_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_learned_density(learn_forward(**wrong))


@partial(jax.jit, static_argnums=(0, 1))
def learn_both(dim: int, steps: int = 2500) -> jax.Array:
    """F^T B of the first network, both learned from random tables by Adam; targets are the tables themselves."""
    f_key, b_key = jax.random.split(jax.random.key(1))
    tables = jax.random.normal(f_key, (2, N, dim)), jax.random.normal(b_key, (N, dim))
    tx = optax.adam(optax.cosine_decay_schedule(0.1, steps))

    def step(carry, _):
        tables, opt_state = carry
        slopes = library_gradient(*tables, *tables, orthonormality=1.0)[:2]
        updates, opt_state = tx.update(slopes, opt_state)
        return (optax.apply_updates(tables, updates), opt_state), None

    (tables, _), _ = jax.lax.scan(step, (tables, tx.init(tables)), None, steps)
    return tables[0][0] @ tables[1].T


def test_both_learn_the_measure_and_fewer_dimensions_less_of_it():
    errors = {dim: np.linalg.norm(learn_both(dim) - DENSITY) / np.linalg.norm(DENSITY) for dim in (3, N)}
    check_learned_density(learn_both(N))
    assert errors[3] > 10 * errors[N]


# --- Rewards are read, values follow ----------------------------------------------------------------------------------


def exact_agent() -> FB:
    return make_ring(F_RING, B_RING, F_RING, B_RING)


def check_values(read):
    """At the exact solution F^T z_r is Q_r, and B^T w is r. `read(agent, steps)` is a task."""
    agent, steps = exact_agent(), walk(np.arange(N))
    for seed in range(3):
        r = np.random.default_rng(seed).standard_normal(N)  # of the state that is reached
        task = read(agent, steps._replace(reward=jnp.float32(np.roll(r, -1))))
        q = np.linalg.solve(np.eye(N) - GAMMA * CLOCKWISE, CLOCKWISE @ r)
        np.testing.assert_allclose(agent.predict_return(task, steps.obs), q, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(agent.predict_reward(task, steps), np.roll(r, -1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(task.z), np.sqrt(N), rtol=1e-5)
        np.testing.assert_allclose(np.cross(task.z[:3], task.w[:3]), 0, atol=1e-5)  # They point the same way.


def test_the_mean_of_m_is_one_over_one_minus_gamma_where_m_is_exact():
    steps = walk(np.arange(N))  # Every state once, so that their mean is that of the data.
    task = read(exact_agent(), steps._replace(reward=jnp.arange(N, dtype=jnp.float32)))
    found = exact_agent().reliability(task, steps, steps, jax.random.key(0))["mean_m"]
    np.testing.assert_allclose(found, 1 / (1 - GAMMA), rtol=1e-4)
    lower = make_ring(F_RING / 2, B_RING, F_RING / 2, B_RING)
    np.testing.assert_allclose(lower.reliability(task, steps, steps, None)["mean_m"], found / 2, rtol=1e-4)


def read(agent: FB, steps: Transition, prompt=None) -> Linear:
    return agent.read(RewardPrompt(steps) if prompt is None else prompt, None, jax.random.key(7))


def read_at_s(agent, steps):
    return read(agent, steps._replace(next_obs=steps.obs))


def read_a_sum(agent, steps):
    return read(agent, steps._replace(reward=steps.reward * N))


def read_centred(agent, steps):
    return read(agent, steps._replace(reward=steps.reward - steps.reward.mean()))


def test_values():
    check_values(read)


@pytest.mark.parametrize("wrong", [read_at_s, read_a_sum, read_centred])
def test_values_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_values(wrong)


def make_prompt(n: int = 60, seed: int = 0) -> tuple[FB, Transition, np.ndarray]:
    """An agent whose B has a covariance far from I over the prompt, a prompt, and its B."""
    rng = np.random.default_rng(seed)
    agent = make_linear(make_world())
    spread = np.array([1.0, 0.3, 2.0, 1.0])
    obs, next_obs = (spread * rng.standard_normal((n, OBS)) + 0.5 for _ in range(2))
    steps = Transition(*(jnp.float32(x) for x in (obs, np.zeros((n, ACT)), np.zeros(n), np.ones(n), next_obs)), None)
    return agent, steps, next_obs @ make_world().b


def cosine(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def check_prompts(read):
    """Section 6.4 (b), (c), (d), (f) and (g); `read(agent, steps)` is a task."""
    agent, steps, b = make_prompt()
    cov, mean, rng = b.T @ b / len(b), b.mean(axis=0), np.random.default_rng(1)
    w = rng.standard_normal(DIM)

    def z_of(reward, rows=slice(None)):
        shown = steps._replace(reward=jnp.float32(reward))
        return np.asarray(read(agent, jax.tree.map(lambda x: x[rows], shown)).z)

    r = b @ w
    z = z_of(r)
    np.testing.assert_allclose(np.linalg.norm(z), np.sqrt(DIM), rtol=1e-5)
    assert cosine(z, cov @ w) > 1 - 1e-6 and cosine(z, w) < 0.99  # equal only where Cov is I
    assert cosine(z_of(r + 3), cov @ w + 3 * mean) > 1 - 1e-6 and cosine(z_of(r + 3), z) < 0.99
    np.testing.assert_allclose(z_of(0.1 * r), z, rtol=1e-4)
    np.testing.assert_allclose(z_of(-5 * r), -z, rtol=1e-4)
    soft = np.exp(1e-6 * r) / np.exp(1e-6 * r).sum()  # a weighted prompt whose weights become equal
    assert cosine(z, (soft * r) @ b) > 1 - 1e-6
    order = rng.permutation(len(b))
    np.testing.assert_allclose(z_of(r, order), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(z_of(r, np.r_[order, order]), z, rtol=1e-4, atol=1e-5)


def read_least_squares(agent, steps):
    w = jnp.linalg.pinv(agent.features(steps.next_obs)) @ steps.reward
    return Linear(agent.config.z.project(w), w)


def read_weighted(agent, steps):
    return read(agent, steps._replace(reward=steps.reward * jax.nn.softmax(steps.reward)))


def read_unscaled(agent, steps):
    task = read(agent, steps)
    return task._replace(z=task.w)


def read_without_offset(agent, steps):
    return read(agent, steps._replace(reward=steps.reward - steps.reward.mean()))


def read_first_rows(agent, steps):
    return read(agent, jax.tree.map(lambda x: x[:40], steps))


def test_prompts():
    check_prompts(read)


@pytest.mark.parametrize(
    "wrong", [read_least_squares, read_weighted, read_unscaled, read_without_offset, read_first_rows]
)
def test_prompts_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_prompts(wrong)


def test_a_goal_is_the_reward_of_reaching_it():
    agent, steps = exact_agent(), walk(np.arange(N))
    for goal in range(N):
        reached = steps._replace(reward=steps.next_obs[:, goal])
        asked = read(agent, steps, GoalPrompt(jnp.eye(N)[goal]))
        np.testing.assert_allclose(asked.z, read(agent, reached).z, atol=1e-5)
        assert cosine(asked.z, read(agent, steps._replace(reward=steps.obs[:, goal])).z) < 0.5  # Wrong: left behind.


def test_a_demonstration_is_the_mean_of_the_goals_it_reached():
    agent, steps, _ = make_prompt()
    demo = steps.next_obs[:9]
    asked = read(agent, steps, DemoPrompt(demo))
    np.testing.assert_allclose(asked.w, np.mean([agent.features(s) for s in demo[1:]], axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(asked.z, agent.config.z.project(asked.w), rtol=1e-5)
    assert cosine(asked.w, agent.features(demo).mean(axis=0)) < 1 - 1e-4  # Wrong: the start counted too.


def test_prompts_are_of_raw_observations():
    agent, steps, _ = make_prompt()
    moved = agent.replace(normalizer=Normalizer(jnp.full(OBS, 0.5), jnp.full(OBS, 2.0)))
    again = steps._replace(obs=2 * steps.obs + 0.5, next_obs=2 * steps.next_obs + 0.5, reward=steps.obs[:, 0])
    steps = steps._replace(reward=steps.obs[:, 0])
    for prompt, same in (
        (RewardPrompt(steps), RewardPrompt(again)),
        (GoalPrompt(steps.obs[0]), GoalPrompt(again.obs[0])),
        (DemoPrompt(steps.obs), DemoPrompt(again.obs)),
    ):
        first, second = (a.read(p, None, jax.random.key(0)) for a, p in ((agent, prompt), (moved, same)))
        np.testing.assert_allclose(first.z, second.z, rtol=1e-4, atol=1e-5)


def test_a_reward_that_no_feature_knows_gets_a_random_z():
    agent, steps, _ = make_prompt()
    zs = [agent.read(RewardPrompt(steps), None, jax.random.key(seed)).z for seed in range(3)]
    np.testing.assert_allclose(np.linalg.norm(zs, axis=1), np.sqrt(DIM), rtol=1e-5)
    agent = agent.replace(config=replace(PLAIN, z=SkillSpace("wide_sphere", DIM)))
    first, second = (agent.read(RewardPrompt(steps), None, jax.random.key(seed)).z for seed in range(2))
    assert np.isfinite(first).all() and not np.allclose(first, second)


def test_another_prompt_is_refused_by_name():
    with pytest.raises(UnsupportedPrompt, match=r"^FB cannot follow a tuple: expected a RewardPrompt, GoalPrompt or"):
        exact_agent().read((), None, jax.random.key(0))


# --- The tasks that an update draws -----------------------------------------------------------------------------------

MANY = 400


def many(config: FBConfig) -> tuple[FB, Transition]:
    obs, next_obs = np.random.default_rng(5).standard_normal((2, MANY, OBS))
    batch = Transition(*(jnp.float32(x) for x in (obs, np.zeros((MANY, ACT)), np.zeros(MANY), np.ones(MANY), next_obs)),
                       None)  # fmt: skip
    return make_linear(make_world(), config), batch


def check_tasks(tasks):
    """All of length sqrt(d); a `mix` of them along B of the batch's states, each state once at most and in another
    order; the rest uniform. `tasks(agent, batch, key)` is (B, d)."""
    for share in (0.0, 0.5, 0.8, 1.0):
        agent, batch = many(replace(PLAIN, z=SkillSpace("wide_sphere", DIM), mix=share))
        z = np.asarray(tasks(agent, batch, jax.random.key(3)))
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.sqrt(DIM), rtol=1e-5)
        own = np.asarray(batch.obs) @ make_world().b
        own *= np.sqrt(DIM) / np.linalg.norm(own, axis=1, keepdims=True)
        row, state = np.nonzero(np.abs(z[:, None] - own[None]).max(axis=2) < 1e-4)
        assert abs(len(row) / MANY - share) < 0.08 and (share not in (0, 1) or len(row) == share * MANY)
        assert len(set(state)) == len(state) and (row == state).sum() < 10
        rest = np.delete(z, row, axis=0)
        if len(rest) > 100:
            np.testing.assert_allclose(rest.mean(axis=0), 0, atol=0.25)
            np.testing.assert_allclose(rest.T @ rest / len(rest), np.eye(DIM), atol=0.25)


def draw_tasks(agent, batch, key):
    return agent._tasks(batch, key)


def unit_tasks(agent, batch, key):
    return agent._tasks(batch, key) / DIM**0.5


def tasks_of_next_states(agent, batch, key):
    return agent._tasks(batch._replace(obs=batch.next_obs), key)


def tasks_of_own_rows(agent, batch, key):
    own = agent.config.z.project(agent.backward(batch.obs))
    prior_key, mix_key = jax.random.split(key)
    prior = agent.config.z.sample(prior_key, MANY)
    return jnp.where(jax.random.uniform(mix_key, (MANY, 1)) < agent.config.mix, own, prior)


def tasks_of_the_prior(agent, batch, key):
    return agent.config.z.sample(key, MANY)


def one_coin_for_all(agent, batch, key):
    share = float(jax.random.uniform(jax.random.key(1))) < agent.config.mix
    return agent.replace(config=replace(agent.config, mix=float(share)))._tasks(batch, key)


def shares_swapped(agent, batch, key):
    return agent.replace(config=replace(agent.config, mix=1 - agent.config.mix))._tasks(batch, key)


def test_tasks():
    check_tasks(draw_tasks)


@pytest.mark.parametrize(
    "wrong",
    [unit_tasks, tasks_of_next_states, tasks_of_own_rows, tasks_of_the_prior, one_coin_for_all, shares_swapped],
)
def test_tasks_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_tasks(wrong)


def test_no_gradient_reaches_b_through_the_tasks():
    agent, batch = many(replace(PLAIN, z=SkillSpace("wide_sphere", DIM), mix=1.0))

    def total(backward):
        return jnp.sum(agent.replace(backward=backward)._tasks(batch, jax.random.key(0)) ** 3)

    slope = jax.grad(total)(agent.backward.replace(opt_state=None))
    np.testing.assert_array_equal(slope.params["w"], 0)


def check_tasks_are_drawn_anew(update):
    """Compiled once, an update draws other tasks with another key, and the same ones with the same key."""
    agent, batch = many(replace(PLAIN, z=SkillSpace("wide_sphere", DIM)))
    first, again, other = (update(agent, batch, jax.random.key(seed))[0].forward.params["w"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


@jax.jit
def update_with_frozen_tasks(agent, batch, key):
    return agent.update(batch, jax.random.key(0))


def test_tasks_are_drawn_anew():
    check_tasks_are_drawn_anew(jit_update)


def test_drawn_anew_check_finds_frozen_tasks():
    with pytest.raises(AssertionError):
        check_tasks_are_drawn_anew(update_with_frozen_tasks)


# --- Conservatism -----------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def library_penalty(kind: str, f, b, here, there, batch, z) -> jax.Array:
    agent = make_linear(make_world(), CONFIGS[kind])
    return agent._penalty((here, there), batch, z, {"w": f}, {"w": b})


def values_as_penalised(kind, f, b, here, there, batch, z) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all twelve actions, and of the data's."""

    def score(obs, action):
        values = np.stack([np.concatenate([obs, action, z], axis=1) @ w for w in np.asarray(f)])
        return (values * z).sum(axis=-1) if kind == "vc" else measures(values, batch.next_obs @ b)

    data = score(batch.obs, batch.action)
    return np.stack(
        [*(score(batch.obs, a) for a in here), *(score(batch.next_obs, a) for a in there), data, data]
    ), data


def numpy_penalty(kind, f, b, here, there, batch, z, mistake=""):
    scores, data = values_as_penalised(kind, f, b, here, there, batch, z)
    if mistake == "the data's action once":
        scores = scores[:-1]
    best = scores.max(axis=0) if mistake == "largest instead of logsumexp" else np.logaddexp.reduce(scores, axis=0)
    if mistake == "logarithm of a mean":
        best = best - np.log(len(scores))
    gap = (best - data).reshape(2, -1).mean(axis=1)
    return gap.mean() if mistake == "averaged over networks" else gap.sum()


def check_penalty(penalty_of):
    """P >= 2 log 2, which it comes close to where the data's action is far the best; 2 log 12 where all are alike; a
    better uniform action raises it; with one z for all and B = z everywhere, "mc" is "vc"."""
    world = make_world()
    batch = Transition(*(np.float32(x) for x in (world.obs, world.action, Z[:, 0], world.discount, world.next_obs)), Z)
    f, b, z = np.float32(world.f), np.float32(world.b), np.float32(Z)
    here, there = np.float32(HERE), np.float32(THERE)
    best = f.copy()
    best[:, :OBS], best[:, OBS + ACT :] = 0, 0
    flat = best.copy()
    flat[:, OBS : OBS + ACT] = 0
    q_of = {"vc": z, "mc": batch.next_obs @ b}
    for kind in ("vc", "mc"):
        p = partial(penalty_of, kind)
        assert p(f, b, here, there, batch, z) > 2 * np.log(2)
        np.testing.assert_allclose(p(flat, b, here, there, batch, z), 2 * np.log(12), rtol=1e-5)
        np.testing.assert_allclose(2 * np.log(12), 4.970, atol=1e-3)
        # Q = 40 a_0 |z| or so: the other actions are far below the data's.
        up = best * 0
        up[:, OBS] = 40 * q_of[kind][0]
        same = {"vc": np.tile(z[:1], (BATCH, 1)), "mc": z}[kind]
        at = batch._replace(next_obs=np.tile(batch.next_obs[:1], (BATCH, 1)), action=np.ones_like(batch.action))
        np.testing.assert_allclose(p(up, b, 0 * here - 1, 0 * there - 1, at, same), 2 * np.log(2), rtol=1e-5)
        raised = here.copy()
        raised[3] += 2 * np.float32([1, 0])
        assert p(up / 40, b, raised, there, at, same) > p(up / 40, b, here, there, at, same) + 1e-3
    one = np.tile(z[:1], (BATCH, 1))
    constant = batch._replace(next_obs=np.tile(np.float32(np.linalg.lstsq(b.T, z[0], rcond=None)[0]), (BATCH, 1)))
    np.testing.assert_allclose(constant.next_obs @ b, one, atol=1e-5)
    vc, mc = (penalty_of(kind, f, b, here, there, constant, one) for kind in ("vc", "mc"))
    np.testing.assert_allclose(vc, mc, rtol=1e-5)


def test_penalty():
    check_penalty(library_penalty)
    check_penalty(numpy_penalty)


@pytest.mark.parametrize(
    "mistake",
    ["the data's action once", "largest instead of logsumexp", "logarithm of a mean", "averaged over networks"],
)
def test_penalty_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_penalty(partial(numpy_penalty, mistake=mistake))


def check_alpha_direction(step):
    """P above its budget raises alpha, below lowers it; with rate 0, and from 0, alpha stays."""
    for budget, sign in ((0.1, 1), (50.0, -1)):
        world = make_world()
        config = replace(CONFIGS["mc"], penalty_budget=budget)
        change = float(step(world, config)[0].log_alpha - np.float32(world.log_alpha))
        assert np.sign(change) == sign and abs(change) > 1e-3
        assert step(world, replace(config, penalty_lr=0.0))[0].log_alpha == np.float32(world.log_alpha)


step_uncompiled = partial(library_step, update=FB.update)  # For settings that are tried once.


def always_learns_alpha(world, config):
    return step_uncompiled(world, replace(config, penalty_lr=LR))


def flips_alpha(world, config):
    stepped, metrics = step_uncompiled(world, config)
    return stepped._replace(log_alpha=2 * np.float32(world.log_alpha) - stepped.log_alpha), metrics


def test_alpha_direction():
    check_alpha_direction(step_uncompiled)


@pytest.mark.parametrize("wrong", [always_learns_alpha, flips_alpha])
def test_alpha_direction_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_alpha_direction(wrong)


def test_penalty_actions_are_where_the_sheet_has_them():
    """6 uniform and 2 of the policy at s, 2 of the policy at s', each within its noise."""
    world = make_world()
    noisy = LinearPolicyWithNoise()
    actor = SkillActor(model=linear_model(noisy, world.actor))
    agent = make_linear(world).replace(actor=actor, config=CONFIGS["vc"])
    here, there = FB._penalty_actions(agent, make_batch(world), jnp.float32(Z), jax.random.key(0))
    assert here.shape == (8, BATCH, ACT) and there.shape == (2, BATCH, ACT)
    for obs, actions in ((world.obs, here[6:]), (world.next_obs, there)):
        mode = np.tanh(np.concatenate([obs, Z], axis=1) @ world.actor)
        distance = np.abs(np.asarray(actions) - mode)
        assert distance.min() > 0 and distance.max() < 0.051
        assert not np.allclose(actions[0], actions[1])
    assert np.abs(here[:6]).max() <= 1 and 0.3 < np.abs(here[:6]).mean() < 0.7
    assert len({float(a[0, 0]) for a in (*here, *there)}) == 10


class LinearPolicyWithNoise(LinearPolicy):
    @nn.compact
    def __call__(self, obs, z):
        x = jnp.concatenate([obs, z], axis=-1)
        return NoisyTanh(x @ self.param("w", nn.initializers.normal(1.0), (x.shape[-1], ACT)), 0.02, 0.05)


# --- The networks of the paper ----------------------------------------------------------------------------------------

SMALL = FBConfig(z=SkillSpace("wide_sphere", 4), width=16, backward_width=16, lr=1e-3)


def test_alpha_of_zero_is_fb_to_the_bit():
    """The penalty is then measured only, and alpha stays 0. Not compiled: what is fused is rounded differently."""
    world = make_world()
    agents = [make_linear(world), make_linear(world, replace(CONFIGS["mc"], penalty_init=0.0))]
    agents[1] = agents[1].replace(alpha=PositiveScalar.create(0.0, LR))
    batch = make_batch(world)
    for seed in (1, 2):
        agents[0], _ = agents[0].update(batch, jax.random.key(seed))
        agents[1], metrics = agents[1].update(batch, jax.random.key(seed))
    assert metrics["fb/alpha"] == 0 and metrics["fb/penalty"] > 2 * np.log(2)
    assert np.isfinite(agents[1].alpha.log_value)
    for name in ("forward", "backward", "actor", "target"):
        same = (jax.tree.leaves(getattr(agent, name)) for agent in agents)
        for a, b in zip(*same, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def layer_norm(x: np.ndarray, params: Any) -> np.ndarray:
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return x * np.asarray(params["scale"]) + np.asarray(params["bias"])


def test_forward_map_is_two_heads_on_two_embeddings():
    """(s, a) and (s, z), each: layer, norm, tanh, layer, relu; side by side; then each head: layer, relu, layer."""
    obs, action, z = (
        np.random.default_rng(i).standard_normal((7, n)).astype(np.float32) for i, n in enumerate((4, 2, 3))
    )
    model = Model.create(ForwardMap(5, 16), 1e-3, jax.random.key(0), obs, action, z)
    params = jax.tree.map(lambda x: x + 0.1 if x.ndim == 1 else x, model.params)  # A forgotten bias is seen.

    def dense(x, i):
        return x @ np.asarray(params[f"Dense_{i}"]["kernel"]) + np.asarray(params[f"Dense_{i}"]["bias"])

    halves = [
        np.maximum(dense(np.tanh(layer_norm(dense(np.concatenate([obs, other], axis=1), i), params[f"LayerNorm_{j}"])),
                         i + 1), 0)
        for other, i, j in ((action, 0, 0), (z, 2, 1))
    ]  # fmt: skip
    assert [half.shape[1] for half in halves] == [8, 8]
    both = np.concatenate(halves, axis=1)
    expected = [dense(np.maximum(dense(both, i), 0), i + 1) for i in (4, 6)]
    np.testing.assert_allclose(model(obs, action, z, params=params), expected, atol=1e-5)
    assert not np.allclose(expected[0], expected[1], atol=1e-2)


def test_settings_out_of_range_are_refused():
    for wrong, message in (
        ({"z": SkillSpace("sphere", 4)}, "z.kind is 'sphere': expected 'wide_sphere' for FB"),
        ({"mix": 1.5}, "mix is 1.5"),
        ({"penalty": "cql"}, "penalty is 'cql'"),
        ({"penalty_init": -1.0}, "penalty_init is -1.0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"max_gradient": 0.0}, "max_gradient is 0.0"),
    ):
        with pytest.raises(UserError, match=message):
            FBConfig(**wrong)
    with pytest.raises(UserError, match="batch.size is 1"):
        replace(SMALL, batch=replace(SMALL.batch, size=1))
