"""DDPG, the networks that it shares with FB and successor features, and learners that start from a skill (URLB's sheet,
sections 4 and 12; sheet of zero-shot offline RL, section 1.4)."""

from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from urlrl.errors import UserError
from urlrl.learners.ddpg import DDPG, DDPGConfig
from urlrl.learners.distributions import NoisyTanh, inside
from urlrl.learners.embed import DDPGCritics, DDPGPolicy, SkillPolicy
from urlrl.learners.model import Model
from urlrl.learners.skill_actor import SkillActor, linear_task, mix
from urlrl.learners.skills import SkillSpace
from urlrl.learners.surgery import insert_inputs

IN, ACT, BATCH, LR = 3, 2, 6, 0.05
SGD = optax.sgd(LR)
CONFIG = DDPGConfig(width=16, lr=1e-3, gamma=0.9, tau=0.25)


class LinearPolicy(nn.Module):
    """tanh(x w), without noise."""

    @nn.compact
    def __call__(self, x):
        return NoisyTanh(x @ self.param("w", nn.initializers.normal(1.0), (IN, ACT)), 0.0, 0.0)


class LinearCritics(nn.Module):
    @nn.compact
    def __call__(self, x, action):
        w = self.param("w", nn.initializers.normal(1.0), (2, IN + ACT))
        return (jnp.concatenate([x, action], axis=-1) @ w.T).T


class World(NamedTuple):
    """The numbers of an update, float64: parameters, then a batch."""

    actor: np.ndarray  # (in, act)
    critic: np.ndarray  # (2, in + act)
    target: np.ndarray
    x: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    next_x: np.ndarray


def make_world(seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal
    return World(
        actor=0.5 * normal((IN, ACT)), critic=normal((2, IN + ACT)), target=normal((2, IN + ACT)),
        x=normal((BATCH, IN)), action=rng.uniform(-1, 1, (BATCH, ACT)), reward=normal(BATCH),
        discount=np.array([1.0, 0, 1, 1, 0, 1]), next_x=normal((BATCH, IN)),
    )  # fmt: skip


def make_linear(world: World, ddpg_class=DDPG) -> DDPG:
    def model(module, w):
        params = {"w": jnp.float32(w)}
        return Model(params=params, opt_state=SGD.init(params), module=module, tx=SGD)

    actor, critic = model(LinearPolicy(), world.actor), model(LinearCritics(), world.critic)
    return ddpg_class(actor=actor, critic=critic, target={"w": jnp.float32(world.target)}, config=CONFIG)


jit_update = jax.jit(lambda ddpg, *batch: ddpg.update(*batch))


def library_step(world: World) -> tuple[World, dict]:
    batch = (jnp.float32(x) for x in world[3:])
    ddpg, metrics = jit_update(make_linear(world), *batch, jax.random.key(0))
    return World(ddpg.actor.params["w"], ddpg.critic.params["w"], ddpg.target["w"], *world[3:]), metrics


def numpy_step(world: World, mistake: str = "") -> tuple[World, dict]:
    """One update of the sheet's section 4 with its gradients written out; `mistake` names what is done wrong."""
    w_pi, w, w_bar, x, action, reward, discount, next_x = world
    xa = np.concatenate([x, action], axis=1)
    there = x if mistake == "next action from x" else next_x
    next_xa = np.concatenate([next_x, np.tanh(there @ w_pi)], axis=1)
    next_qs = (w if mistake == "no target critics" else w_bar) @ next_xa.T
    next_q = next_qs.mean(axis=0) if mistake == "mean of both targets" else next_qs.min(axis=0)
    ends = np.ones(BATCH) if mistake == "bootstraps through terminals" else discount
    y = reward + CONFIG.gamma * ends * next_q
    scale = {"critic loss halved": 1.0, "critic loss summed over the batch": 2.0 * BATCH}.get(mistake, 2.0)
    w_new = w - scale * LR * (w @ xa.T - y) @ xa / BATCH
    a = np.tanh(x @ w_pi)
    seen = w if mistake == "actor on critics before their step" else w_new
    qs = seen @ np.concatenate([x, a], axis=1).T
    slope = seen[qs.argmin(axis=0), IN:]
    if mistake == "actor on the first critic":
        slope = np.tile(seen[0, IN:], (BATCH, 1))
    sign = -1 if mistake == "actor descends" else 1
    w_pi_new = w_pi + sign * LR * x.T @ (slope * (1 - a**2)) / BATCH
    tau = 1 - CONFIG.tau if mistake == "tau for 1 - tau" else CONFIG.tau
    online = w if mistake == "targets averaged before the step" else w_new
    w_bar_new = (1 - tau) * w_bar + tau * online
    metrics = {
        "critic/loss": np.sum(np.mean((w @ xa.T - y) ** 2, axis=1)),
        "critic/q": np.mean(w @ xa.T),
        "actor/loss": -np.mean(qs.min(axis=0)),
    }
    return World(w_pi_new, w_new, w_bar_new, *world[3:]), metrics


MISTAKES = (
    "next action from x", "no target critics", "mean of both targets", "bootstraps through terminals",
    "critic loss halved", "critic loss summed over the batch", "actor on critics before their step",
    "actor on the first critic", "actor descends", "tau for 1 - tau", "targets averaged before the step",
)  # fmt: skip


def check_step(step):
    """One step, and a second from where it led."""
    world = make_world()
    for _ in range(2):
        (found, metrics), (world, numbers) = step(world), numpy_step(world)
        for name, a, b in list(zip(World._fields, found, world))[:3]:
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=5e-6, err_msg=name)
        assert set(metrics) == set(numbers)
        for name, value in numbers.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_step_is_numpys():
    check_step(library_step)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_step_check_finds(mistake):
    with pytest.raises(AssertionError):
        check_step(partial(numpy_step, mistake=mistake))


def check_target(ddpg_class):
    """y is the reward where discount is 0, and there no gradient reaches the target critics."""
    world = make_world()
    ddpg = make_linear(world, ddpg_class)

    def total(w_bar, discount):
        y = ddpg.replace(target={"w": w_bar}).td_target(
            jnp.float32(world.reward), discount, jnp.float32(world.next_x), jax.random.key(0)
        )
        return jnp.sum(y)

    value, slope = jax.value_and_grad(total)(jnp.float32(world.target), jnp.zeros(BATCH))
    np.testing.assert_allclose(value, world.reward.sum(), rtol=1e-5)
    assert (slope == 0).all()
    next_xa = np.concatenate([world.next_x, np.tanh(world.next_x @ world.actor)], axis=1)
    expected = world.reward.sum() + CONFIG.gamma * (world.target @ next_xa.T).min(axis=0).sum()
    np.testing.assert_allclose(total(jnp.float32(world.target), jnp.ones(BATCH)), expected, rtol=1e-5)


class BootstrapsThroughTerminals(DDPG):
    def td_target(self, reward, discount, next_x, key):
        return super().td_target(reward, jnp.ones_like(discount), next_x, key)


class DiscountsTheReward(DDPG):
    def td_target(self, reward, discount, next_x, key):
        return super().td_target(self.config.gamma * reward, discount, next_x, key)


def test_target():
    check_target(DDPG)


@pytest.mark.parametrize("wrong", [BootstrapsThroughTerminals, DiscountsTheReward])
def test_target_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_target(wrong)


# --- Noise ------------------------------------------------------------------------------------------------------------


def check_inside(squash):
    """Clipped just inside of [-1, 1], with a gradient of 1 everywhere."""
    a = jnp.float32([-3.0, -1.0, -0.5, 0.0, 0.9999999, 2.0])
    value, slope = squash(a), jax.vmap(jax.grad(squash))(a)
    np.testing.assert_allclose(value, np.clip(a, -1 + 1e-6, 1 - 1e-6), atol=1e-7)
    assert np.abs(value).max() < 1
    np.testing.assert_array_equal(slope, 1)


def test_inside():
    check_inside(inside)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda a: jnp.clip(a, -1 + 1e-6, 1 - 1e-6), id="no gradient beyond"),
        pytest.param(lambda a: a + jax.lax.stop_gradient(jnp.clip(a, -1, 1) - a), id="up to 1"),
        pytest.param(jnp.tanh, id="tanh"),
    ],
)
def test_inside_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_inside(wrong)


def check_noise(dist_class):
    """What acts has Gaussian noise of the standard deviation, what learns has it clipped; both around tanh(mean), whose
    gradient is the tanh's, also where an action is beyond the limits. Temperature scales the noise, 0 is the mode."""
    mean = jnp.full((20_000, 1), 0.3)
    dist, mode = dist_class(mean, 0.2, 0.3), np.tanh(0.3)
    np.testing.assert_allclose(dist.mode(), mode, rtol=1e-6)
    acted, learned = (np.asarray(x) - mode for x in (dist.sample(jax.random.key(0)), dist.smoothed(jax.random.key(0))))
    assert abs(acted.std() - 0.2) < 0.005 and np.abs(acted).max() > 0.6
    np.testing.assert_allclose(learned, np.clip(acted, -0.3, 0.3), atol=1e-6)
    half = np.asarray(dist.sample(jax.random.key(0), 0.5)) - mode
    np.testing.assert_allclose(half, 0.5 * acted, atol=2e-2)  # Where nothing was clipped, exactly.
    np.testing.assert_array_equal(dist.sample(jax.random.key(0), 0.0), dist.mode())
    far = jax.random.normal(jax.random.key(1), (500, 1)) + 1.5
    slope = jax.grad(lambda m: jnp.sum(dist_class(m, 0.2, 0.3).smoothed(jax.random.key(2))))(far)
    np.testing.assert_allclose(slope, 1 - np.tanh(far) ** 2, rtol=1e-4, atol=1e-6)
    assert np.abs(dist_class(far, 0.2, 0.3).sample(jax.random.key(3))).max() < 1


class ClipsBeforeScaling(NoisyTanh):
    def smoothed(self, key):
        noise = jnp.clip(jax.random.normal(key, self.mean.shape), -self.clip, self.clip)
        return inside(self.mode() + self.std * noise)


class ClipsWhileActing(NoisyTanh):
    def sample(self, key, temperature=1.0):
        noise = jnp.clip(self.std * jax.random.normal(key, self.mean.shape), -self.clip, self.clip)
        return inside(self.mode() + temperature * noise)


class NoiseInsideTheTanh(NoisyTanh):
    def smoothed(self, key):
        noise = self.std * jax.random.normal(key, self.mean.shape)
        return jnp.tanh(self.mean + jnp.clip(noise, -self.clip, self.clip))


class NoNoiseWhileLearning(NoisyTanh):
    def smoothed(self, key):
        return inside(self.mode())


class HardLimits(NoisyTanh):
    def smoothed(self, key):
        noise = self.std * jax.random.normal(key, self.mean.shape)
        return jnp.clip(self.mode() + jnp.clip(noise, -self.clip, self.clip), -1 + 1e-6, 1 - 1e-6)


def test_noise():
    check_noise(NoisyTanh)


@pytest.mark.parametrize(
    "wrong", [ClipsBeforeScaling, ClipsWhileActing, NoiseInsideTheTanh, NoNoiseWhileLearning, HardLimits]
)
def test_noise_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_noise(wrong)


# --- Networks ---------------------------------------------------------------------------------------------------------

X, ACTION, Z = (np.random.default_rng(i).standard_normal((7, n)).astype(np.float32) for i, n in enumerate((IN, ACT, 4)))


def shaken(params: Any, seed: int = 0) -> Any:
    """Parameters of which none is zero: biases start there."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.float32(0.2 * rng.standard_normal(x.shape)), params)


def layer_norm(x: np.ndarray, params: Any) -> np.ndarray:
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return x * np.asarray(params["scale"]) + np.asarray(params["bias"])


def dense(params: Any, x: np.ndarray, i: int) -> np.ndarray:
    return x @ np.asarray(params[f"Dense_{i}"]["kernel"]) + np.asarray(params[f"Dense_{i}"]["bias"])


def embed(params: Any, x: np.ndarray, i: int, norm: int = 0) -> np.ndarray:
    """Layer, norm, tanh."""
    return np.tanh(layer_norm(dense(params, x, i), params[f"LayerNorm_{norm}"]))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def create(module: nn.Module, *inputs: np.ndarray) -> Model:
    model = Model.create(module, 1e-3, jax.random.key(0), *inputs)
    return model.replace(params=shaken(model.params))


def test_networks():
    """DDPG's policy and critics are an embedding and a hidden layer each; the critics share the embedding. The skill
    policy has two embeddings, of s and of (s, z), each with a hidden layer of half the width."""
    policy, critics = create(DDPGPolicy(ACT, 16), X), create(DDPGCritics(16), X, ACTION)
    p = policy.params
    np.testing.assert_allclose(policy(X).mean, dense(p, relu(dense(p, embed(p, X, 0), 1)), 2), atol=1e-5)
    p = critics.params
    h = embed(p, np.concatenate([X, ACTION], axis=1), 0)
    expected = [dense(p, relu(dense(p, h, i)), i + 1)[:, 0] for i in (1, 3)]
    np.testing.assert_allclose(critics(X, ACTION), expected, atol=1e-5)
    assert not np.allclose(*expected, atol=1e-2)
    skilled = create(SkillPolicy(ACT, 16, 0.1, 0.4), X, Z)
    p = skilled.params
    halves = [relu(dense(p, embed(p, x, i, j), i + 1)) for x, i, j in ((X, 0, 0), (np.c_[X, Z], 2, 1))]
    assert [half.shape[1] for half in halves] == [8, 8]
    mean = dense(p, relu(dense(p, np.concatenate(halves, axis=1), 4)), 5)
    np.testing.assert_allclose(skilled(X, Z).mean, mean, atol=1e-5)
    assert (skilled(X, Z).std, skilled(X, Z).clip) == (0.1, 0.4)
    assert set(SkillPolicy.input_layers) == {"Dense_0", "Dense_2"}


@cache
def make_ddpg() -> DDPG:
    """As if it had learned for a while."""
    ddpg = DDPG.create(CONFIG, X[:1], ACTION[:1], jax.random.key(0))
    parts = {
        name: part.replace(params=shaken(part.params, i), opt_state=jax.tree.map(lambda x: x + 1, part.opt_state))
        for i, (name, part) in enumerate({"actor": ddpg.actor, "critic": ddpg.critic}.items())
    }
    return ddpg.replace(**parts, target=shaken(ddpg.target, 2))


def test_create_starts_with_targets_that_are_copies_and_one_rate():
    ddpg = DDPG.create(DDPGConfig(width=16, lr=0.02, noise=0.1, noise_clip=0.4), X[:1], ACTION[:1], jax.random.key(0))
    for online, target in zip(jax.tree.leaves(ddpg.critic.params), jax.tree.leaves(ddpg.target), strict=True):
        np.testing.assert_array_equal(online, target)
        assert online.unsafe_buffer_pointer() != target.unsafe_buffer_pointer()  # An alias cannot be donated.
    assert ddpg.actor.module == DDPGPolicy(ACT, 16, 0.1, 0.4) and ddpg.critic.module == DDPGCritics(16)
    for part in (ddpg.actor, ddpg.critic):
        updates, _ = part.tx.update(jnp.float32(1), part.tx.init(jnp.float32(0)))
        np.testing.assert_allclose(updates, -0.02, rtol=1e-4)
    kernel = np.asarray(ddpg.actor.params["Dense_1"]["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(16), atol=1e-5)  # orthogonal


# --- A learner that starts elsewhere ----------------------------------------------------------------------------------


@cache
def skill_actor() -> SkillActor:
    """pi(a | s, z) with parameters of which none is zero."""
    actor = SkillActor.create(
        DDPGConfig(16, 1e-3, noise=0.1, noise_clip=0.4), X[:1], ACTION[:1], Z[:1], jax.random.key(0)
    )
    return actor.replace(model=actor.model.replace(params=shaken(actor.model.params)))


@cache
def skilled_ddpg() -> DDPG:
    """What FB and SF hand over: a policy with two first layers."""
    ddpg = skill_actor().learner(CONFIG, Z[0], jax.random.key(1))
    return ddpg.replace(critic=ddpg.critic.replace(params=shaken(ddpg.critic.params)))


LEARNERS = {"ddpg": make_ddpg, "skilled": skilled_ddpg}


def check_starts_over(ddpg: DDPG) -> None:
    """Its targets are its critics, not the same buffers; its optimisers begin anew."""
    for target, online in zip(jax.tree.leaves(ddpg.target), jax.tree.leaves(ddpg.critic.params), strict=True):
        np.testing.assert_array_equal(target, online)
        assert target is not online
    for part in (ddpg.actor, ddpg.critic):
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(part.opt_state))


def check_updates(ddpg: DDPG, x: np.ndarray) -> None:
    """An update goes through on observations of this width, and keeps every shape."""
    row = np.ones(len(x), np.float32)
    given = (x, ACTION, row, row, x, jax.random.key(5))
    after, _ = jax.eval_shape(lambda ddpg, *given: ddpg.update(*given), ddpg, *given)
    assert jax.tree.map(jnp.shape, ddpg) == jax.tree.map(lambda leaf: leaf.shape, after)


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("start", [0, 1, IN])
def test_insert_inputs(kind, start):
    ddpg, new = LEARNERS[kind](), 10 * np.random.default_rng(9).standard_normal((7, 2)).astype(np.float32)
    given = np.concatenate([X[:, :start], new, X[:, start:]], axis=1)
    learner = ddpg.insert_inputs(start, 2)
    np.testing.assert_allclose(learner.actor(given).mode(), ddpg.actor(X).mode(), atol=1e-6)
    np.testing.assert_allclose(learner.critic(given, ACTION), ddpg.critic(X, ACTION), rtol=1e-4, atol=1e-5)
    check_starts_over(learner)
    check_updates(learner, given)
    if start == IN:  # The wrong variant: behind the actions, where the critics would take an action for a feature.
        wrong = insert_inputs(ddpg.critic.params, IN + ACT, 2)
        assert not np.allclose(learner.critic(given, ACTION, params=wrong), ddpg.critic(X, ACTION), atol=1e-2)


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("start", [0, 1])
def test_hold_input(kind, start):
    ddpg, held = LEARNERS[kind](), np.float32([0.7, -1.2])
    whole = np.concatenate([X[:, :start], np.tile(held, (7, 1)), X[:, start + 2 :]], axis=1)
    rest = np.delete(X, [start, start + 1], axis=1)
    learner = ddpg.hold_input(start, held)
    np.testing.assert_allclose(learner.actor(rest).mode(), ddpg.actor(whole).mode(), atol=1e-6)
    np.testing.assert_allclose(learner.critic(rest, ACTION), ddpg.critic(whole, ACTION), rtol=1e-4, atol=1e-5)
    check_starts_over(learner)
    check_updates(learner, rest)
    assert not np.allclose(ddpg.hold_input(start, held[::-1]).actor(rest).mode(), learner.actor(rest).mode(), atol=1e-3)


@pytest.mark.parametrize("kind", LEARNERS)
def test_fresh_critic(kind):
    ddpg = LEARNERS[kind]()
    fresh = ddpg.fresh_critic(jax.random.key(7))
    assert jax.tree.map(jnp.shape, fresh.critic.params) == jax.tree.map(jnp.shape, ddpg.critic.params)
    assert not np.allclose(fresh.critic(X, ACTION), ddpg.critic(X, ACTION), atol=1e-2)
    np.testing.assert_array_equal(fresh.actor(X).mode(), ddpg.actor(X).mode())
    check_starts_over(fresh.replace(actor=ddpg.actor.restart(ddpg.actor.params)))  # Of the critics alone.


def check_skill_learner(make):
    """Its actions are the policy's under z; its critics are untrained; updates go on from there.
    `make(actor, z)` is a DDPG."""
    actor = skill_actor()
    for z in Z[:2]:
        ddpg = make(actor, z)
        policy = actor(X, np.tile(z, (7, 1)))
        np.testing.assert_allclose(ddpg.actor(X).mode(), policy.mode(), atol=1e-6)
        a, b = (p.sample(jax.random.key(3)) for p in (ddpg.actor(X), policy))
        np.testing.assert_allclose(a, b, atol=1e-6)
        assert ddpg.config == CONFIG
        check_starts_over(ddpg)
        check_updates(ddpg, X)


def make_learner(actor, z):
    return actor.learner(CONFIG, z, jax.random.key(1))


def of_the_first_skill(actor, z):
    return make_learner(actor, Z[0])


def untrained(actor, z):
    return DDPG.create(CONFIG, X[:1], ACTION[:1], jax.random.key(1))


def with_the_optimiser_of_the_past(actor, z):
    ddpg = make_learner(actor, z)
    return ddpg.replace(actor=ddpg.actor.replace(opt_state=jax.tree.map(lambda x: x + 1, ddpg.actor.opt_state)))


def test_skill_learner():
    check_skill_learner(make_learner)
    actor = skill_actor()  # Wrong: raw z is read, and the other half of the policy too.
    assert not np.allclose(actor(X, np.tile(Z[0], (7, 1))).mode(), actor(X, 0 * Z).mode(), atol=1e-3)


@pytest.mark.parametrize("wrong", [of_the_first_skill, untrained, with_the_optimiser_of_the_past])
def test_skill_learner_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_skill_learner(wrong)


# --- What FB and successor features share -----------------------------------------------------------------------------


def test_an_actor_climbs_the_smaller_q():
    """One step along the gradient of min_i Q_i, and nothing of Q itself."""
    actor = skill_actor()

    def q(action):  # The second is the smaller, by far.
        return jnp.stack([10 + jnp.sum(action, axis=-1), -jnp.sum(action, axis=-1)])

    after, loss = jax.jit(lambda actor, key: actor.improve(q, X, Z, key))(actor, jax.random.key(0))
    before = actor(X, Z).smoothed(jax.random.key(0))
    np.testing.assert_allclose(loss, jnp.mean(jnp.sum(before, axis=-1)), rtol=1e-4)
    assert jnp.sum(after(X, Z).mode()) < jnp.sum(actor(X, Z).mode())


def check_mix(mixed):
    prior, own = jnp.zeros((20_000, 3)), jnp.ones((20_000, 3))
    for share in (0.0, 0.3, 1.0):
        rows = np.asarray(mixed(prior, own, share, jax.random.key(0)))
        assert (rows == rows[:, :1]).all()  # Row by row.
        np.testing.assert_allclose(rows.mean(), share, atol=0.015 if 0 < share < 1 else 0)


def test_mix():
    check_mix(mix)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda prior, own, share, key: mix(own, prior, share, key), id="swapped"),
        pytest.param(
            lambda prior, own, share, key: jnp.where(jax.random.uniform(key, own.shape) < share, own, prior),
            id="entry by entry",
        ),
    ],
)
def test_mix_check_finds(wrong):
    with pytest.raises(AssertionError):
        check_mix(wrong)


def test_a_task_has_a_direction_where_its_weights_do():
    space = SkillSpace("wide_sphere", 4)
    w = jnp.float32([3, 0, 4, 0])
    for scale in (1.0, 1e-8, 1e5):
        task = linear_task(space, scale * w, jax.random.key(0))
        np.testing.assert_allclose(task.z, [1.2, 0, 1.6, 0], rtol=1e-5)
        np.testing.assert_allclose(task.w, scale * w)
    nothing = [linear_task(space, 0 * w, jax.random.key(seed)) for seed in range(2)]
    np.testing.assert_allclose(np.linalg.norm([task.z for task in nothing], axis=1), 2, rtol=1e-5)
    assert not np.allclose(nothing[0].z, nothing[1].z) and not nothing[0].w.any()


@pytest.mark.parametrize(
    ("name", "value"), [("gamma", 1.1), ("tau", -0.1), ("noise", -1.0), ("noise_clip", -1.0), ("lr", 0.0), ("width", 0)]
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}: expected a"):
        DDPGConfig(**{name: value})
