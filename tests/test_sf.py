"""Successor features against hand-written NumPy (sheet of zero-shot offline RL, sections 1.2, 1.5, 6.4 and 6.6)."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from urlrl.agents.sf import SF, SFConfig, Toward, whitened
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.learners.ddpg import DDPGConfig
from urlrl.learners.distributions import NoisyTanh
from urlrl.learners.features import FEATURES, FeatureConfig
from urlrl.learners.model import Model
from urlrl.learners.skill_actor import Linear, SkillActor
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.presets import preset
from urlrl.types import BatchSpec, DemoPrompt, GoalPrompt, Goals, RewardPrompt, Transition

OBS, ACT, DIM, BATCH, LR = 4, 2, 3, 5, 0.05
SGD = optax.sgd(LR)
Z = np.random.default_rng(0).standard_normal((BATCH, DIM))
Z *= np.sqrt(DIM) / np.linalg.norm(Z, axis=1, keepdims=True)

jit_update = jax.jit(lambda agent, batch, key: agent.update(batch, key))


# --- One update with networks that have no hidden layers --------------------------------------------------------------


class LinearPsi(nn.Module):
    """psi_i = [s, a, z] w_i."""

    @nn.compact
    def __call__(self, *inputs):
        x = jnp.concatenate(inputs, axis=-1)
        w = self.param("w", nn.initializers.normal(1.0), (2, x.shape[-1], DIM))
        return jnp.stack([x @ w[0], x @ w[1]])


class LinearPolicy(nn.Module):
    """tanh([s, z] w), without noise."""

    @nn.compact
    def __call__(self, obs, z):
        x = jnp.concatenate([obs, z], axis=-1)
        return NoisyTanh(x @ self.param("w", nn.initializers.normal(1.0), (x.shape[-1], ACT)), 0.0, 0.0)


class LinearPhi(struct.PyTreeNode):
    """phi = s w; an update doubles it, so that what is asked after the update is seen."""

    w: jax.Array

    def __call__(self, obs):
        return obs @ self.w

    def update(self, batch):
        return LinearPhi(2 * self.w), {"phi/rows": jnp.float32(batch.obs.shape[0])}


class Given(SkillSpace):
    """A prior that always draws Z."""

    def sample(self, key, n):
        return jnp.float32(Z[:n])


class World(NamedTuple):
    """The numbers of an update, float64: parameters, then a batch."""

    psi: np.ndarray  # (2, obs + act + d, d)
    target: np.ndarray
    actor: np.ndarray  # (obs + d, act)
    phi: np.ndarray  # (obs, d)
    obs: np.ndarray
    action: np.ndarray
    discount: np.ndarray
    next_obs: np.ndarray


def make_world(seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    width, normal = OBS + ACT + DIM, rng.standard_normal
    return World(
        psi=0.4 * normal((2, width, DIM)), target=0.4 * normal((2, width, DIM)), actor=0.5 * normal((OBS + DIM, ACT)),
        phi=0.6 * normal((OBS, DIM)), obs=normal((BATCH, OBS)), action=rng.uniform(-1, 1, (BATCH, ACT)),
        discount=np.array([1.0, 0, 1, 1, 0]), next_obs=normal((BATCH, OBS)),
    )  # fmt: skip


PLAIN = SFConfig(z=Given("wide_sphere", DIM), ddpg=DDPGConfig(gamma=0.9, tau=0.25), mix=0.0)
CONFIGS = {
    "vectors": PLAIN,
    "along z": replace(PLAIN, q_loss=True),
    "difference": replace(PLAIN, cumulant="difference"),
}


def linear_model(module: nn.Module, w: Any) -> Model:
    params = {"w": jnp.float32(w)}
    return Model(params=params, opt_state=SGD.init(params), module=module, tx=SGD)


def make_linear(world: World, config: SFConfig = PLAIN) -> SF:
    return SF(
        psi=linear_model(LinearPsi(), world.psi),
        target={"w": jnp.float32(world.target)},
        phi=LinearPhi(jnp.float32(world.phi)),
        actor=SkillActor(model=linear_model(LinearPolicy(), world.actor)),
        normalizer=Normalizer.identity(OBS),
        config=config,
    )


def make_batch(world: World) -> Transition:
    obs, action, discount, next_obs = (jnp.float32(x) for x in world[4:])
    return Transition(obs, action, jnp.full(BATCH, jnp.nan), discount, next_obs, jnp.zeros((BATCH, 0)))


def library_step(world: World, config: SFConfig) -> tuple[World, dict]:
    agent, metrics = jit_update(make_linear(world, config), make_batch(world), jax.random.key(0))
    assert metrics.pop("phi/rows") == BATCH
    return World(
        agent.psi.params["w"], agent.target["w"], agent.actor.model.params["w"], agent.phi.w, *world[4:]
    ), metrics


def gradient(loss, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    """Central differences of a scalar function at x, float64."""
    slopes = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        slopes[i] = (loss(x + step) - loss(x - step)) / (2 * h)
    return slopes


def successor_target(world: World, config: SFConfig, psi: np.ndarray, mistake: str = "") -> np.ndarray:
    """y, (B, d), or (2, B, d) where each network has its own; `psi` are the online parameters."""
    phi = 2 * world.phi if mistake == "features after their step" else world.phi
    cumulant = (world.obs if mistake == "features of s" else world.next_obs) @ phi
    if (config.cumulant == "difference") != (mistake == "the other cumulant"):
        cumulant = (world.next_obs - world.obs) @ phi
    there = world.obs if mistake == "next action from s" else world.next_obs
    next_action = np.tanh(np.concatenate([there, Z], axis=1) @ world.actor)
    next_x = np.concatenate([world.next_obs, next_action, Z], axis=1)
    next_psi = np.stack([next_x @ w for w in (psi if "online" in mistake else world.target)])
    q = (next_psi * Z).sum(axis=-1)
    if mistake == "smaller of both, entry by entry":
        chosen = next_psi.min(axis=0)
    elif mistake == "mean of both":
        chosen = next_psi.mean(axis=0)
    elif mistake == "each network its own target":
        chosen = next_psi
    elif mistake == "one network for the whole batch":
        chosen = next_psi[q.mean(axis=1).argmin()]
    else:
        pick = q.argmax(axis=0) if mistake == "the better network" else q.argmin(axis=0)
        chosen = next_psi[pick, np.arange(BATCH)]
    discount = np.ones(BATCH) if mistake == "bootstraps through terminals" else world.discount
    return cumulant + config.ddpg.gamma * discount[:, None] * chosen


def numpy_step(world: World, config: SFConfig, mistake: str = "") -> tuple[World, dict]:
    """One update of the sheet's section 1.5; `mistake` names what is done wrong."""
    x = np.concatenate([world.obs, world.action, Z], axis=1)

    def loss(psi):
        seen = psi if mistake == "gradient through the online target" else world.psi
        error = np.stack([x @ w for w in psi]) - successor_target(world, config, seen, mistake)
        if config.q_loss != (mistake == "the other loss"):
            error = (error * Z).sum(axis=-1, keepdims=True)
        size = (error**2).sum(axis=-1) if mistake == "sum over dimensions" else (error**2).mean(axis=-1)
        return size.mean() if mistake == "loss averaged over networks" else size.mean(axis=1).sum()

    def actor_loss(w, psi):
        action = np.tanh(np.concatenate([world.obs, Z], axis=1) @ w)
        q = np.stack([(np.concatenate([world.obs, action, Z], axis=1) @ v * Z).sum(axis=1) for v in psi])
        return -np.mean(q.mean(axis=0) if mistake == "actor on the mean of both" else q.min(axis=0))

    psi = world.psi - LR * gradient(loss, world.psi)
    seen = world.psi if mistake == "actor on psi before its step" else psi
    actor = world.actor - LR * gradient(lambda w: actor_loss(w, seen), world.actor)
    if mistake == "actor trains psi":
        psi = psi - LR * gradient(lambda w: actor_loss(world.actor, w), psi)
    tau = 1 - config.ddpg.tau if mistake == "tau for 1 - tau" else config.ddpg.tau
    online = world.psi if mistake == "target averaged before the step" else psi
    target = (1 - tau) * world.target + tau * online
    q = np.mean([((x @ w) * Z).sum(axis=1) for w in world.psi])
    metrics = {"psi/loss": loss(world.psi), "psi/q": q, "actor/loss": actor_loss(world.actor, psi)}
    return World(psi, target, actor, 2 * world.phi, *world[4:]), metrics


MISTAKES = (
    "features after their step", "features of s", "the other cumulant", "next action from s", "no target: online",
    "gradient through the online target", "smaller of both, entry by entry", "mean of both", "the better network",
    "each network its own target", "one network for the whole batch", "bootstraps through terminals", "the other loss",
    "sum over dimensions", "loss averaged over networks", "actor on the mean of both", "actor on psi before its step",
    "actor trains psi", "tau for 1 - tau", "target averaged before the step",
)  # fmt: skip


def check_step(step):
    for name, config in CONFIGS.items():
        (found, metrics), (expected, numbers) = step(make_world(), config), numpy_step(make_world(), config)
        for field, a, b in list(zip(World._fields, found, expected))[:4]:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=f"{name}: {field}")
        assert set(metrics) == set(numbers)
        for field, value in numbers.items():
            np.testing.assert_allclose(metrics[field], value, rtol=1e-4, atol=1e-5, err_msg=f"{name}: {field}")


def test_step_is_numpys():
    check_step(library_step)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_step_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_step(partial(numpy_step, mistake=mistake))


# --- The tasks that an update draws -----------------------------------------------------------------------------------

MANY = 400


def many(config: SFConfig) -> tuple[SF, Transition]:
    rng = np.random.default_rng(5)
    obs = rng.standard_normal((MANY, OBS)) * [0.5, 1.0, 0.7, 2.0] - 0.5
    next_obs = rng.standard_normal((MANY, OBS)) * [1.0, 0.3, 2.0, 1.0] + 0.5
    columns = obs, np.zeros((MANY, ACT)), np.zeros(MANY), np.ones(MANY), next_obs
    return make_linear(make_world(), config), Transition(*(jnp.float32(x) for x in columns), None)


def check_tasks(tasks):
    """All of length sqrt(d); a `mix` of them along Cov^-1 phi(s') of the batch, in another order; the rest uniform."""
    for share in (0.5, 0.8, 1.0):
        for cumulant in ("state", "difference"):
            config = replace(PLAIN, z=SkillSpace("wide_sphere", DIM), mix=share, cumulant=cumulant)
            agent, batch = many(config)
            z = np.asarray(tasks(agent, batch, jax.random.key(3)))
            np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.sqrt(DIM), rtol=1e-5)
            phi = (
                np.asarray(batch.next_obs - (batch.obs if cumulant == "difference" else 0), np.float64)
                @ make_world().phi
            )
            own = phi @ np.linalg.pinv(phi.T @ phi / MANY)
            own *= np.sqrt(DIM) / np.linalg.norm(own, axis=1, keepdims=True)
            row, state = np.nonzero(np.abs(z[:, None] - own[None]).max(axis=2) < 2e-3)
            same = row == state
            assert abs(len(set(row)) / MANY - share) < 0.08 and same.mean() < 0.05
            rest = np.delete(z, row, axis=0)
            if len(rest) > 100:
                np.testing.assert_allclose(rest.mean(axis=0), 0, atol=0.3)


def draw_tasks(agent, batch, key):
    return agent._tasks(batch, key)


def unit_tasks(agent, batch, key):
    return agent._tasks(batch, key) / DIM**0.5


def tasks_of_states(agent, batch, key):
    return agent._tasks(batch._replace(obs=batch.next_obs, next_obs=batch.obs), key)


def tasks_not_whitened(agent, batch, key):
    order_key, prior_key, mix_key = jax.random.split(key, 3)
    own = agent.config.z.project(jax.random.permutation(order_key, agent.features(batch)))
    prior = agent.config.z.sample(prior_key, MANY)
    return jnp.where(jax.random.uniform(mix_key, (MANY, 1)) < agent.config.mix, own, prior)


def tasks_whitened_around_the_mean(agent, batch, key):
    order_key, prior_key, mix_key = jax.random.split(key, 3)
    phi = agent.features(batch)
    own = whitened(jax.random.permutation(order_key, phi), phi - jnp.mean(phi, axis=0, keepdims=True))
    prior = agent.config.z.sample(prior_key, MANY)
    return jnp.where(jax.random.uniform(mix_key, (MANY, 1)) < agent.config.mix, agent.config.z.project(own), prior)


def tasks_of_the_prior(agent, batch, key):
    return agent.config.z.sample(key, MANY)


def shares_swapped(agent, batch, key):
    return agent.replace(config=replace(agent.config, mix=1 - agent.config.mix))._tasks(batch, key)


def test_tasks():
    check_tasks(draw_tasks)


@pytest.mark.parametrize(
    "wrong",
    [
        unit_tasks,
        tasks_of_states,
        tasks_not_whitened,
        tasks_whitened_around_the_mean,
        tasks_of_the_prior,
        shares_swapped,
    ],
)
def test_tasks_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_tasks(wrong)


def check_tasks_are_drawn_anew(update):
    agent, batch = many(replace(PLAIN, z=SkillSpace("wide_sphere", DIM)))
    first, again, other = (update(agent, batch, jax.random.key(seed))[0].psi.params["w"] for seed in (0, 0, 1))
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


def test_what_is_not_a_number_does_not_pass_for_a_task():
    """Else half of the tasks of a diverged run would be one and the same vector, and no loss would show it."""
    agent, batch = many(replace(PLAIN, z=SkillSpace("wide_sphere", DIM), mix=1.0))
    agent = agent.replace(phi=LinearPhi(agent.phi.w * jnp.nan))
    assert np.isnan(agent._tasks(batch, jax.random.key(0))).all()


def spoiled(kind: str, n: int = 64, d: int = 12) -> np.ndarray:
    """Features whose covariance has no inverse, or none in float32."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d))
    return np.float32(
        {
            "all alike": 1 + 0 * x,
            "nearly alike": 1 + 1e-4 * x,
            "three directions": x[:, :3] @ rng.standard_normal((3, d)) + 5,
            "fewer rows than dimensions": x[:5],
            "all zero": 0 * x,
            "huge": 1e4 * x,
            "tiny": 1e-4 * x,
        }[kind]
    )


def check_whitening(whiten):
    """Finite, whatever the features; where they span few directions, what the pseudo-inverse makes of them."""
    for kind in ("all alike", "nearly alike", "all zero"):
        assert np.isfinite(whiten(spoiled(kind), spoiled(kind))).all(), kind
    for kind in ("three directions", "fewer rows than dimensions", "huge", "tiny"):
        x = spoiled(kind)
        wide = np.float64(x)
        expected = wide @ np.linalg.pinv(wide.T @ wide / len(x), rcond=1e-5)
        found = np.asarray(whiten(x, x))
        cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.999, kind
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(expected, axis=1), rtol=2e-2)


def whitened_without_ridge(x, features):
    cov = features.T @ features / features.shape[0]
    return jax.scipy.linalg.solve(cov, x.T, assume_a="pos").T


def whitened_with_a_small_ridge(x, features):
    cov = features.T @ features / features.shape[0]
    ridge = 1e-6 * (jnp.trace(cov) / cov.shape[0] + 1e-6)
    return jax.scipy.linalg.solve(cov + ridge * jnp.eye(cov.shape[0]), x.T, assume_a="pos").T


def whitened_with_a_fixed_ridge(x, features):
    cov = features.T @ features / features.shape[0]
    return jax.scipy.linalg.solve(cov + 1e-6 * jnp.eye(cov.shape[0]), x.T, assume_a="pos").T


def test_whitening():
    check_whitening(whitened)


@pytest.mark.parametrize("wrong", [whitened_without_ridge, whitened_with_a_small_ridge, whitened_with_a_fixed_ridge])
def test_whitening_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_whitening(wrong)


# --- Being told what to do --------------------------------------------------------------------------------------------


def cosine(a, b) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def check_reward_prompts(read):
    """Section 6.4 (a), (c), (d) and (g); `read(agent, steps)` is a task."""
    rng = np.random.default_rng(1)
    for cumulant in ("state", "difference"):
        agent, steps = many(replace(PLAIN, cumulant=cumulant))
        phi = np.asarray(agent.features(steps), np.float64)
        w = rng.standard_normal(DIM)

        def task_of(reward, rows=slice(None), agent=agent, steps=steps):
            shown = steps._replace(reward=jnp.float32(reward))
            return read(agent, jax.tree.map(lambda x: x[rows], shown))

        task = task_of(phi @ w)
        np.testing.assert_allclose(task.w, w, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(task.z, np.sqrt(DIM) * w / np.linalg.norm(w), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(agent.predict_reward(task, steps), phi @ w, rtol=1e-3, atol=1e-3)
        few = slice(10 * DIM)
        assert cosine(task_of(phi @ w + 0.1 * rng.standard_normal(MANY), few).z, w) > 0.99
        np.testing.assert_allclose(task_of(0.1 * phi @ w).z, task.z, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(task_of(-5 * phi @ w).z, -task.z, rtol=1e-3, atol=1e-4)
        order = rng.permutation(MANY)
        noisy = phi @ w + rng.standard_normal(MANY)
        np.testing.assert_allclose(task_of(noisy, np.r_[order, order]).w, task_of(noisy).w, rtol=1e-3, atol=1e-4)
        # There is no intercept: a constant is another reward, unless the features have mean 0 over the prompt.
        np.testing.assert_allclose(task_of(noisy + 3).w, np.linalg.lstsq(phi, noisy + 3)[0], rtol=1e-3, atol=1e-3)


def read(agent: SF, steps: Transition) -> Linear:
    return agent.read(RewardPrompt(steps), None, jax.random.key(7))


def read_with_intercept(agent, steps):
    phi = agent.features(steps)
    w = jnp.linalg.pinv(phi - jnp.mean(phi, axis=0)[None]) @ steps.reward
    return Linear(agent.config.z.project(w), w)


def read_as_fb_does(agent, steps):
    w = jnp.mean(steps.reward[:, None] * agent.features(steps), axis=0)
    return Linear(agent.config.z.project(w), w)


def read_at_s(agent, steps):
    return read(agent, steps._replace(obs=steps.next_obs, next_obs=steps.obs))


def read_unscaled(agent, steps):
    task = read(agent, steps)
    return task._replace(z=task.w)


def test_reward_prompts():
    check_reward_prompts(read)


@pytest.mark.parametrize("wrong", [read_with_intercept, read_as_fb_does, read_at_s, read_unscaled])
def test_reward_prompts_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_reward_prompts(wrong)


def test_a_constant_changes_nothing_where_features_are_centred():
    agent, steps = many(PLAIN)
    agent = agent.replace(normalizer=Normalizer(jnp.mean(steps.next_obs, axis=0), jnp.ones(OBS)))
    reward = steps.next_obs[:, 0] * 2 - steps.next_obs[:, 2]
    first, shifted = (read(agent, steps._replace(reward=reward + c)).w for c in (0.0, 5.0))
    np.testing.assert_allclose(shifted, first, rtol=1e-3, atol=1e-3)


def test_a_reward_that_no_feature_knows_gets_a_random_z():
    agent, steps = many(replace(PLAIN, z=SkillSpace("wide_sphere", DIM)))
    zs = [agent.read(RewardPrompt(steps), None, jax.random.key(seed)).z for seed in range(2)]
    np.testing.assert_allclose(np.linalg.norm(zs, axis=1), np.sqrt(DIM), rtol=1e-5)
    assert not np.allclose(*zs)


def check_goal_prompts(ask):
    """`ask(agent, prompt, seen, obs)` is a z. State features: Cov^-1 phi(g) over what is seen, wherever the agent is.
    Differences: phi(g) - phi(s), from each s."""
    agent, seen = many(PLAIN)
    phi = np.asarray(agent.features(seen), np.float64)
    goal, obs = seen.obs[3], seen.obs[:6]
    w = np.linalg.solve(phi.T @ phi / MANY, np.asarray(agent.latent(goal)))
    z = ask(agent, GoalPrompt(goal), seen, obs)
    np.testing.assert_allclose(z, np.tile(np.sqrt(DIM) * w / np.linalg.norm(w), (6, 1)), rtol=1e-2, atol=1e-2)
    agent, seen = many(CONFIGS["difference"])
    way = np.asarray(agent.latent(goal))[None] - np.asarray(agent.latent(obs))
    way *= np.sqrt(DIM) / np.linalg.norm(way, axis=1, keepdims=True).clip(1e-6)
    z = ask(agent, GoalPrompt(goal), seen, obs)
    np.testing.assert_allclose(np.delete(z, 3, axis=0), np.delete(way, 3, axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(z[3]), np.sqrt(DIM), rtol=1e-5)  # There already, and still a skill.
    np.testing.assert_allclose(ask(agent, GoalPrompt(goal), seen, obs[1]), way[1], rtol=1e-4, atol=1e-4)


def ask(agent, prompt, seen, obs):
    return agent.aim(agent.read(prompt, seen, jax.random.key(0)), obs)


def goal_not_whitened(agent, prompt, seen, obs):
    if agent.config.cumulant == "difference":
        return ask(agent, prompt, seen, obs)
    return jnp.broadcast_to(agent.config.z.project(agent.latent(prompt.goal)), (*obs.shape[:-1], DIM))


def goal_whitened_by_states(agent, prompt, seen, obs):
    return ask(agent, prompt, seen._replace(next_obs=seen.obs), obs)


def away_from_goal(agent, prompt, seen, obs):
    z = ask(agent, prompt, seen, obs)
    return -z if agent.config.cumulant == "difference" else z


def aims_once(agent, prompt, seen, obs):
    z = ask(agent, prompt, seen, obs.reshape(-1, OBS)[0])
    return jnp.broadcast_to(z, (*obs.shape[:-1], DIM))


def test_goal_prompts():
    check_goal_prompts(ask)


@pytest.mark.parametrize("wrong", [goal_not_whitened, goal_whitened_by_states, away_from_goal, aims_once])
def test_goal_prompts_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_goal_prompts(wrong)


def test_a_goal_is_the_reward_of_reaching_it_where_features_single_states_out():
    """One-hot states, each seen once: least squares on 1[s' = g], whitening phi(g) and the state itself agree."""
    n = OBS
    agent = make_linear(make_world()._replace(phi=np.eye(OBS)[:, :DIM]))
    steps = Transition(jnp.eye(n), jnp.zeros((n, ACT)), jnp.zeros(n), jnp.ones(n), jnp.eye(n), None)
    for g in range(DIM):
        asked = agent.read(GoalPrompt(jnp.eye(n)[g]), steps, jax.random.key(0))
        labelled = read(agent, steps._replace(reward=jnp.eye(n)[g]))
        np.testing.assert_allclose(asked.z, labelled.z, atol=1e-4)


def test_demonstrations():
    """State features: the mean of the goals that were reached. Differences: the way from the first to the last."""
    agent, seen = many(PLAIN)
    demo = seen.obs[:9]
    each = [agent.read(GoalPrompt(s), seen, jax.random.key(0)).w for s in demo]
    asked = agent.read(DemoPrompt(demo), seen, jax.random.key(0))
    np.testing.assert_allclose(asked.w, np.mean(each[1:], axis=0), rtol=1e-3, atol=1e-4)
    assert np.abs(asked.w - np.mean(each, axis=0)).max() > 1e-3  # Wrong: the start counted too.
    agent, seen = many(CONFIGS["difference"])
    asked = agent.read(DemoPrompt(demo), seen, jax.random.key(0))
    np.testing.assert_allclose(asked.w, agent.latent(demo[8]) - agent.latent(demo[0]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(asked.z, agent.config.z.project(asked.w), rtol=1e-5)


def test_prompts_are_of_raw_observations():
    for config in (PLAIN, CONFIGS["difference"]):
        agent, steps = many(config)
        moved = agent.replace(normalizer=Normalizer(jnp.full(OBS, 0.5), jnp.full(OBS, 2.0)))
        steps = steps._replace(reward=steps.obs[:, 0])
        again = steps._replace(obs=2 * steps.obs + 0.5, next_obs=2 * steps.next_obs + 0.5)
        for one, other in (
            (RewardPrompt(steps), RewardPrompt(again)),
            (GoalPrompt(steps.obs[0]), GoalPrompt(again.obs[0])),
            (DemoPrompt(steps.obs), DemoPrompt(again.obs)),
        ):
            first = ask(agent, one, steps, steps.obs[5])
            np.testing.assert_allclose(ask(moved, other, again, again.obs[5]), first, rtol=1e-3, atol=1e-3)


def test_predictions_by_hand():
    """psi_i(s, pi_z(s), z)^T w at the smaller of both, the policy's mode and the task's z."""
    world = make_world()
    agent, obs, w = make_linear(world), np.float32(world.obs), np.array([1.0, -2.0, 0.5])
    task = Linear(jnp.float32(Z[0]), jnp.float32(w))
    z = np.tile(Z[:1], (BATCH, 1))
    action = np.tanh(np.concatenate([obs, z], axis=1) @ world.actor)
    q = np.stack([np.concatenate([obs, action, z], axis=1) @ v @ w for v in world.psi])
    np.testing.assert_allclose(agent.predict_return(task, obs), q.min(axis=0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(q.min(axis=0), q.mean(axis=0), rtol=1e-2)
    np.testing.assert_allclose(agent.predict_return(task, obs[0]), q.min(axis=0)[0], rtol=1e-4)
    np.testing.assert_allclose(
        agent.predict_reward(task, make_batch(world)), world.next_obs @ world.phi @ w, rtol=1e-4, atol=1e-5
    )


def test_another_prompt_is_refused_by_name():
    with pytest.raises(UnsupportedPrompt, match=r"^SF cannot follow a tuple: expected a RewardPrompt, GoalPrompt or"):
        make_linear(make_world()).read((), None, jax.random.key(0))


# --- What is made of a config -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEATURES)
def test_a_name_is_its_feature_learner(name):
    batch = BatchSpec(goals=Goals(random=0.0))
    config = SFConfig(
        z=SkillSpace("wide_sphere", 4), batch=batch, features=name, width=16,
        phi=FeatureConfig(width=12, lr=3e-3, gamma=0.7, expectile=0.8),
    )  # fmt: skip
    example = make_batch(make_world())
    agent = jax.eval_shape(lambda key: SF.create(config, example, key), jax.random.key(0))
    assert type(agent.phi) is FEATURES[name]
    assert agent.psi.params["Dense_0"]["kernel"].shape == (OBS + ACT, 16)
    if name == "hilbert":
        assert (agent.phi.hilbert.gamma, agent.phi.hilbert.expectile, agent.phi.hilbert.tau) == (0.7, 0.8, 0.005)
        assert agent.phi.rate == 0.005 and agent.phi.mean.shape == (4,)


def test_settings_out_of_range_are_refused():
    for wrong, message in (
        ({"z": SkillSpace("sphere", 4)}, "z.kind is 'sphere': expected 'wide_sphere' for SF"),
        ({"mix": -0.1}, "mix is -0.1"),
        ({"features": "icm"}, "features is 'icm'"),
        ({"cumulant": "concat"}, "cumulant is 'concat'"),
        ({"batch": BatchSpec()}, "batch.goals is None: expected some, as features 'hilbert' learn from goals"),
        ({"features": "contrastive"}, "batch.goals.random is 0.375: expected 0, as features 'contrastive' learn"),
        ({"batch": BatchSpec(size=1, goals=Goals())}, "batch.size is 1"),
    ):
        with pytest.raises(UserError, match=message):
            SFConfig(**wrong)


def test_baselines_of_the_fb_paper_have_its_codes_settings():
    """100 numbers, drawn from the prior alone. HILP's code has 50, half of them of states in the batch."""
    for name in ("laplacian", "contrastive", "svd", "inverse", "random"):
        config = preset("sf", name).agent
        assert (config.features, config.z.dim, config.mix, config.q_loss) == (name, 100, 0.0, True)
    for name in ("forward", "hilp-zsrl"):
        assert (preset("sf", name).agent.z.dim, preset("sf", name).agent.mix) == (50, 0.5)


def test_a_goal_of_differences_is_a_point():
    agent, seen = many(CONFIGS["difference"])
    task = agent.read(GoalPrompt(seen.obs[0]), seen, jax.random.key(0))
    assert isinstance(task, Toward)
    np.testing.assert_allclose(task.phi_goal, agent.latent(seen.obs[0]), rtol=1e-5)
