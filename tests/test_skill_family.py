"""LSD, CSD, CSF, DIAYN and DADS against hand-written NumPy (sheet, sections 2.2 to 2.6 and 7.1 to 7.6)."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from urlrl.agents.csd import CSD, CSDConfig
from urlrl.agents.csf import CSF, CSFConfig, SuccessorSAC, lower
from urlrl.agents.dads import DADS, EPS, BatchNorm, DADSConfig
from urlrl.agents.diayn import DIAYN, DIAYNConfig
from urlrl.agents.lsd import LSD, LSDConfig, bounded, iterated, start_vectors
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.learners.distributions import Gaussian
from urlrl.learners.latent_tasks import Maximise
from urlrl.learners.model import Model, PositiveScalar
from urlrl.learners.nets import MLP, GaussianNet
from urlrl.learners.skills import SkillSpace
from urlrl.learners.statistics import Normalizer
from urlrl.presets import preset
from urlrl.types import GoalPrompt, RewardPrompt, Transition

OBS, ACT, DIM, BATCH, LR = 5, 2, 3, 8, 0.05
SGD = optax.sgd(LR)
SPHERE, PLANE, INDICES = SkillSpace("sphere", DIM), SkillSpace("gaussian", DIM), SkillSpace("onehot", DIM)
RNG = np.random.default_rng(0)
MEAN, STD = RNG.standard_normal(OBS), RNG.uniform(0.5, 1.5, OBS)
LAMBDA = 2.0


def make_batch(space: SkillSpace, size: int = BATCH, seed: int = 0) -> Transition:
    rng = np.random.default_rng(seed)
    return Transition(
        obs=rng.standard_normal((size, OBS)),
        action=rng.uniform(-1, 1, (size, ACT)),
        reward=np.full(size, np.nan),
        discount=np.float64(np.arange(size) % 3 > 0),
        next_obs=rng.standard_normal((size, OBS)),
        z=np.float64(space.sample(jax.random.key(seed), size)),
    )


def as_jax(batch: Transition) -> Transition:
    return jax.tree.map(jnp.float32, batch)


def normalised(batch: Transition) -> tuple[np.ndarray, np.ndarray]:
    return tuple((obs - MEAN) / (STD + 1e-8) for obs in (batch.obs, batch.next_obs))


def v_of(space: SkillSpace, z: np.ndarray) -> np.ndarray:
    """1 at the index of a one-hot z, -1 / (D - 1) elsewhere."""
    return np.where(z == 1, 1.0, -1 / (z.shape[-1] - 1)) if space.kind == "onehot" else z


class Witness(struct.PyTreeNode):
    """Stands where the policy learner does, and keeps what it was given."""

    given: Any = None

    def update(self, *given):
        return Witness(given[:-1]), {}


def linear(w: np.ndarray, bias: np.ndarray | None = None) -> Model:
    """x @ w + bias, trained by gradient descent."""
    params = {"Dense_0": {"kernel": jnp.float32(w), "bias": jnp.zeros(w.shape[1]) if bias is None else bias}}
    return Model(params=params, opt_state=SGD.init(params), module=MLP(w.shape[1], 1, depth=0), tx=SGD)


def parts(config: Any) -> dict[str, Any]:
    return {"sac": Witness(), "normalizer": Normalizer(jnp.float32(MEAN), jnp.float32(STD)), "config": config}


def updated(agent: Any, batch: Transition, seed: int = 0) -> Any:
    return jax.jit(lambda agent, batch: agent.update(batch, jax.random.key(seed)))(agent, as_jax(batch))[0]


def kernel(model: Model) -> np.ndarray:
    return np.asarray(model.params["Dense_0"]["kernel"])


def with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=-1)


def close(ours: Any, expected: Any, rtol: float = 2e-4) -> bool:
    return np.allclose(ours, expected, rtol=rtol, atol=2e-5)


# --- LSD --------------------------------------------------------------------------------------------------------------


def numpy_lsd(w: np.ndarray, u: np.ndarray, batch: Transition, config: LSDConfig, mistake: str = ""):
    """The new kernel of a linear phi, and the reward with it."""
    obs, next_obs = normalised(batch)
    ds, v = next_obs - obs, v_of(config.z, batch.z)
    for _ in range(0 if mistake == "no iteration" else config.power_iterations):
        u = w.T @ (w @ u)
        u = u / np.linalg.norm(u)
    sigma = np.linalg.norm(w @ u)
    toward = ds.T @ v / len(v)  # of mean[dphi^T v] with sigma 1
    through = 0 if mistake == "sigma without a gradient" else (toward * w).sum() * np.outer(w @ u, u) / sigma**3
    new = w + LR * (toward / sigma - through)
    paying = w if mistake == "reward of the old phi" else new
    sigma = 1.0 if mistake == "reward of an unbounded phi" else np.linalg.norm(paying @ u)
    return new, ((ds @ paying / sigma) * v).sum(-1)


LSD_MISTAKES = ("no iteration", "sigma without a gradient", "reward of the old phi", "reward of an unbounded phi")


@pytest.mark.parametrize("space", [SPHERE, INDICES])
def test_lsd_update(space):
    config, batch = LSDConfig(z=space), make_batch(space)
    w = np.random.default_rng(1).standard_normal((OBS, DIM))
    u = np.float64(start_vectors(linear(w).params, jax.random.key(3))["Dense_0"])
    agent = updated(LSD(phi=linear(w), vectors={"Dense_0": jnp.float32(u)}, **parts(config)), batch)
    ours = kernel(agent.phi), np.asarray(agent.sac.given[2])
    for mistake in ("", *LSD_MISTAKES):
        same = [close(*pair) for pair in zip(ours, numpy_lsd(w, u, batch, config, mistake))]
        assert all(same) == (not mistake), mistake


def test_lsd_does_not_stretch_distances():
    module = MLP(DIM, 16)
    params = module.init(jax.random.key(0), jnp.zeros((1, OBS)))["params"]
    params = jax.tree.map(lambda x: 3 * x + 0.5, params)
    vectors = iterated(params, start_vectors(params, jax.random.key(1)), 200)
    limited = bounded(params, vectors)
    for name, layer in limited.items():
        np.testing.assert_array_equal(layer["bias"], params[name]["bias"])
        np.testing.assert_allclose(np.linalg.svd(layer["kernel"], compute_uv=False)[0], 1.0, rtol=1e-3)
    x, y = jax.random.normal(jax.random.key(2), (2, 500, OBS))

    def stretch(params):
        difference = module.apply({"params": params}, x) - module.apply({"params": params}, y)
        return np.max(np.linalg.norm(difference, axis=-1) / np.linalg.norm(x - y, axis=-1))

    assert stretch(limited) <= 1.001 < stretch(params)
    larger = {name: {**layer, "kernel": 7 * layer["kernel"]} for name, layer in params.items()}
    np.testing.assert_allclose(stretch(bounded(larger, vectors)), stretch(limited), rtol=1e-5)


# --- CSD --------------------------------------------------------------------------------------------------------------


class FixedGaussian(nn.Module):
    """A density that is the same in every state."""

    @nn.compact
    def __call__(self, x):
        mean, log_std = (self.param(name, nn.initializers.zeros, (OBS,)) for name in ("mean", "log_std"))
        return Gaussian(jnp.broadcast_to(mean, x.shape), jnp.broadcast_to(log_std, x.shape))


def density_of(mean: np.ndarray, log_std: np.ndarray) -> Model:
    params = {"mean": jnp.float32(mean), "log_std": jnp.float32(log_std)}
    return Model(params=params, opt_state=SGD.init(params), module=FixedGaussian(), tx=SGD)


def make_csd(config: CSDConfig, w: np.ndarray, mean: np.ndarray, log_std: np.ndarray) -> CSD:
    dual = PositiveScalar(jnp.log(jnp.float32(LAMBDA)), SGD.init(jnp.float32(0)), SGD)
    return CSD(phi=linear(w), dual=dual, density=density_of(mean, log_std), **parts(config))


def numpy_csd(w, mean, log_std, batch: Transition, config: CSDConfig, mistake: str = ""):
    """The new kernel of phi, log lambda, mean and log_std of the density, and the reward."""
    obs, next_obs = normalised(batch)
    ds, v, sigma = next_obs - obs, v_of(config.z, batch.z), np.exp(log_std)
    slope = (ds - mean) / sigma**2
    new_mean = mean + LR * slope.mean(0)
    new_log_std = log_std + LR * (slope * (ds - mean) - 1).mean(0)
    sees = (new_mean, np.exp(new_log_std)) if mistake == "density after its step" else (mean, sigma)
    inverse = 1 / sees[1]
    gm = 1.0 if mistake == "volume not normalised" else np.prod(inverse) ** (1 / OBS)
    power = 1 if mistake == "weights not squared" else 2
    around = 0 if mistake == "mean left out" else sees[0]
    reduce = np.sum if mistake == "sum over the state" else np.mean
    delta = reduce((inverse / gm) ** power * (ds - around) ** 2, -1)
    dphi = ds @ w
    room = delta - (dphi**2).mean(-1)
    active = room < config.slack
    toward = v - LAMBDA * active[:, None] * 2 * dphi / config.z.dim
    new = w + LR * ds.T @ toward / len(v)
    log_lambda = np.log(LAMBDA) - LR * np.minimum(room, config.slack).mean()
    scale = 1.0 if mistake == "reward not scaled" else config.reward_scale
    return new, log_lambda, new_mean, new_log_std, scale * ((ds @ new) * v).sum(-1)


CSD_MISTAKES = (
    "density after its step", "volume not normalised", "weights not squared", "mean left out", "sum over the state",
    "reward not scaled",
)  # fmt: skip


@pytest.mark.parametrize("space", [SPHERE, INDICES])
def test_csd_update(space):
    config, batch, rng = CSDConfig(z=space), make_batch(space), np.random.default_rng(1)
    world = rng.standard_normal((OBS, DIM)), 0.3 * rng.standard_normal(OBS), 0.5 * rng.standard_normal(OBS)
    agent = updated(make_csd(config, *world), batch)
    density = agent.density.params
    ours = kernel(agent.phi), agent.dual.log_value, density["mean"], density["log_std"], agent.sac.given[2]
    for mistake in ("", *CSD_MISTAKES):
        same = [close(*pair) for pair in zip(ours, numpy_csd(*world, batch, config, mistake))]
        assert all(same) == (not mistake), mistake


def test_csd_distance():
    """Equal deviations: the mean squared residual. Deviations k times as large: the same. Never below 0."""
    config, batch = CSDConfig(z=SPHERE), as_jax(make_batch(SPHERE))
    w, zeros, log_std = np.zeros((OBS, DIM)), np.zeros(OBS), 0.5 * np.random.default_rng(1).standard_normal(OBS)
    equal = make_csd(config, w, zeros, np.full(OBS, 0.7))._distance(batch)
    np.testing.assert_allclose(equal, np.mean((batch.next_obs - batch.obs) ** 2, axis=-1), rtol=1e-5)
    one, other = (make_csd(config, w, zeros, log_std + k)._distance(batch) for k in (0, 1.3))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    assert np.all(one >= 0) and not np.allclose(one, equal)


def test_constraints_are_of_raw_transitions_in_normalised_units():
    batch, w = make_batch(SPHERE), np.random.default_rng(1).standard_normal((OBS, DIM))
    obs, next_obs = normalised(batch)
    batch = as_jax(batch)
    ds, zeros = next_obs - obs, np.zeros(OBS)
    csd = make_csd(CSDConfig(z=SPHERE), w, zeros, zeros)
    np.testing.assert_allclose(csd.constraint(batch), (ds**2).mean(-1) - ((ds @ w) ** 2).mean(-1), rtol=1e-4)
    u = np.eye(DIM)[0]
    lsd = LSD(phi=linear(w), vectors={"Dense_0": jnp.float32(u)}, **parts(LSDConfig(z=SPHERE)))
    dphi = ds @ w / np.linalg.norm(w @ u)
    expected = np.linalg.norm(ds, axis=-1) - np.linalg.norm(dphi, axis=-1)
    np.testing.assert_allclose(lsd.constraint(batch), expected, rtol=1e-4, atol=1e-5)


# --- CSF --------------------------------------------------------------------------------------------------------------


def make_csf(config: CSFConfig, w: np.ndarray) -> CSF:
    return CSF(phi=linear(w), **parts(config))


def numpy_csf(w, batch: Transition, others: np.ndarray, config: CSFConfig, mistake: str = ""):
    """The new kernel of phi, and the steps that psi is trained on."""
    obs, next_obs = normalised(batch)
    ds, v = next_obs - obs, v_of(config.z, batch.z)
    scores = (ds @ w) @ others.T
    share = np.exp(scores - scores.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    xi = 1.0 if mistake == "no weight" else config.xi
    if mistake == "negatives of one step":
        share = np.broadcast_to(share[:1], share.shape)
    new = w + LR * ds.T @ (v - xi * share @ others) / len(v)
    return new, ds @ (w if mistake == "steps of the old phi" else new)


@pytest.mark.parametrize("space", [SPHERE, INDICES])
def test_csf_update_of_phi(space):
    config, batch = CSFConfig(z=space, negatives=7), make_batch(space)
    w = np.random.default_rng(1).standard_normal((OBS, DIM))
    agent = updated(make_csf(config, w), batch, seed=4)
    key = jax.random.fold_in(jax.random.key(4), 3)
    others = v_of(space, np.float64(space.sample(key, 7)))
    ours = kernel(agent.phi), agent.sac.given[2]
    for mistake in ("", "no weight", "negatives of one step", "steps of the old phi"):
        same = [close(*pair) for pair in zip(ours, numpy_csf(w, batch, others, config, mistake))]
        assert all(same) == (not mistake), mistake
    # The policy sees the skill, psi is led along its direction.
    x, action, _, direction, discount, next_x = agent.sac.given
    obs, next_obs = normalised(batch)
    given = (np.concatenate([obs, batch.z], -1), batch.action, v_of(space, batch.z), batch.discount)
    assert all(map(close, (x, action, direction, discount), given))
    assert close(next_x, np.concatenate([next_obs, batch.z], -1))


def loss_of_phi(agent: CSF, batch: Transition) -> float:
    return float(agent._represent(as_jax(batch), jax.random.key(0))[1]["phi/loss"])


def test_csf_loss_where_it_is_known():
    """A phi that is constant: xi ln N. Steps along their skill in the plane: least where |dphi| is 0.408 (Bessel)."""
    config = CSFConfig(z=SkillSpace("sphere", 2))
    batch = make_batch(config.z, size=400)
    np.testing.assert_allclose(loss_of_phi(make_csf(config, np.zeros((OBS, 2))), batch), 5 * np.log(256), rtol=1e-5)
    many, aligned = replace(config, negatives=20_000), np.concatenate([batch.z, np.zeros((400, OBS - 2))], axis=1)
    batch = batch._replace(obs=np.zeros((400, OBS)), next_obs=aligned)
    below, best, above = (loss_of_phi(make_csf(many, rho * np.eye(OBS, 2)), batch) for rho in (0.3, 0.408, 0.52))
    assert best < below and best < above
    np.testing.assert_allclose(best - 5 * np.log(20_000 / 256), 27.524, atol=0.01)


def test_csf_refuses_a_weight_that_bounds_nothing():
    with pytest.raises(UserError, match="xi is 1"):
        CSFConfig(xi=1.0)


def make_successor(seed: int = 0, **sac: Any) -> tuple[SuccessorSAC, dict[str, jax.Array]]:
    config = CSFConfig(z=SPHERE, width=8, lr=1e-2)
    config = replace(config, sac=replace(config.sac, alpha=0.3, **sac))
    batch = as_jax(make_batch(SPHERE, seed=seed))
    learner = SuccessorSAC.create(config.sac, DIM, batch.obs[:1], batch.action[:1], jax.random.key(1), config)
    target = jax.tree.map(lambda x: 1.5 * x, learner.target)
    dphi = jax.random.normal(jax.random.key(2), (BATCH, DIM))
    given = {"x": batch.obs, "action": batch.action, "dphi": dphi, "z": batch.z, "discount": batch.discount}
    return learner.replace(target=target), {**given, "next_x": batch.next_obs}


def test_csf_targets_are_whole_vectors_without_entropy():
    learner, given = make_successor()
    y = learner.td_target(given["dphi"], given["z"], given["discount"], given["next_x"], jax.random.key(5))
    action, _ = learner.actor(given["next_x"]).sample_and_log_prob(jax.random.key(5))
    psi = np.asarray(learner.psi(given["next_x"], action, params=learner.target))
    z, dphi, discount = (np.asarray(given[name]) for name in ("z", "dphi", "discount"))
    values = (psi * z).sum(-1)
    chosen = psi[values.argmin(0), np.arange(BATCH)]
    np.testing.assert_allclose(y, dphi + 0.99 * discount[:, None] * chosen, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        (y * z).sum(-1), (dphi * z).sum(-1) + 0.99 * discount * values.min(0), rtol=1e-4, atol=1e-5
    )
    # A minimum of each number for itself is another vector.
    assert not np.allclose(np.asarray(lower(psi, z)), psi.min(0))


def test_csf_steps_psi_then_targets_then_the_policy():
    learner, given = make_successor()
    after, metrics = jax.jit(lambda learner: learner.update(**given, key=jax.random.key(5)))(learner)
    target_key, actor_key = jax.random.split(jax.random.key(5))
    y = np.asarray(learner.td_target(given["dphi"], given["z"], given["discount"], given["next_x"], target_key))
    psi = np.asarray(learner.psi(given["x"], given["action"]))
    np.testing.assert_allclose(metrics["critic/loss"], ((psi - y) ** 2).mean((1, 2)).sum(), rtol=1e-4)
    leaves = (jax.tree.leaves(tree) for tree in (learner.target, after.critic.params, after.target))
    for old, online, new in zip(*leaves):
        np.testing.assert_allclose(new, 0.995 * old + 0.005 * online, rtol=1e-5, atol=1e-6)
    action, log_prob = learner.actor(given["x"]).sample_and_log_prob(actor_key)

    def loss_by(learner):
        values = (np.asarray(learner.psi(given["x"], action)) * np.asarray(given["z"])).sum(-1)
        return np.mean(0.3 * np.asarray(log_prob) - values.min(0))

    np.testing.assert_allclose(metrics["actor/loss"], loss_by(after), rtol=1e-4)
    assert not np.isclose(loss_by(learner), loss_by(after), rtol=1e-4)
    # By Adam's first step: the learning rate, down as the entropy is above its target of -|A| / 2.
    assert metrics["actor/entropy"] > -ACT / 2
    np.testing.assert_allclose(after.alpha.log_value, np.log(0.3) - 1e-2, rtol=1e-4)
    fixed, _ = make_successor(learn_alpha=False)
    np.testing.assert_allclose(fixed.update(**given, key=jax.random.key(5))[0].alpha.value, 0.3, rtol=1e-6)


def test_csf_in_one_dimension_is_td_of_a_value():
    """With z = 1 psi is Q, without the entropy and the half of SAC's loss."""
    learner, given = make_successor()
    one = jnp.ones((BATCH, 1))
    own = SuccessorSAC.create(learner.config, 1, given["x"][:1], given["action"][:1], jax.random.key(1), learner.config)
    y = own.td_target(given["dphi"][:, :1], one, given["discount"], given["next_x"], jax.random.key(0))
    sac = own.along(jnp.ones(1)).replace(alpha=PositiveScalar.create(0.0, 1.0))
    expected = sac.td_target(given["dphi"][:, 0], given["discount"], given["next_x"], jax.random.key(0))
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-4, atol=1e-6)


def test_csf_values_under_a_skill_are_psi_along_it():
    learner, given = make_successor()
    z = SPHERE.sample(jax.random.key(9), 1)[0]
    q = learner.along(z).critic(given["x"], given["action"])
    np.testing.assert_allclose(q, learner.psi(given["x"], given["action"]) @ z, rtol=1e-4, atol=1e-5)


def make_csf_of_indices() -> CSF:
    config = CSFConfig(z=INDICES, width=8, phi_only=2)
    agent = CSF.create(config, as_jax(make_batch(INDICES)), jax.random.key(1))
    agent = jax.tree.map(lambda x: x + 0.1 if x.dtype == jnp.float32 else x, agent)
    return agent.replace(normalizer=Normalizer(jnp.float32(MEAN), jnp.float32(STD)))


def test_csf_is_tuned_from_its_values_under_a_skill():
    """Of indices, along the centred vector; what the policy does not see changes nothing."""
    agent, batch = make_csf_of_indices(), as_jax(make_batch(INDICES))
    z = INDICES.sample(jax.random.key(3), 1)[0]
    obs = agent.normalizer(batch.obs)
    x = jnp.concatenate([obs[:, 2:], jnp.broadcast_to(z, (BATCH, DIM))], axis=-1)
    psi = agent.sac.psi(x, batch.action)
    q = agent.learner(z, jax.random.key(0)).critic(obs, batch.action)
    np.testing.assert_allclose(q, psi @ INDICES.direction(z), rtol=1e-4, atol=1e-5)


def test_csf_predicts_returns_by_psi_along_the_rewards_weights():
    agent, batch = make_csf_of_indices(), as_jax(make_batch(INDICES))
    w, offset = np.array([3.0, -1.0, 2.0]), 0.5
    moves = np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.1], [0.3, 0.0, 1.0]])
    task = Maximise(*(jnp.float32(x) for x in (w, offset, moves)))
    z = np.eye(DIM)[np.argmax(moves @ w)]
    np.testing.assert_array_equal(agent.aim(task, batch.obs), np.tile(z, (BATCH, 1)))
    obs = np.asarray(agent.normalizer(batch.obs))[:, 2:]
    x = jnp.float32(np.concatenate([obs, np.tile(z, (BATCH, 1))], -1))
    psi = np.asarray(agent.sac.psi(x, agent.sac.actor(x).mode()))
    along = (psi * v_of(INDICES, z)).sum(-1)
    chosen = psi[along.argmin(0), np.arange(BATCH)]
    np.testing.assert_allclose(agent.predict_return(task, batch.obs), chosen @ w + offset / 0.01, rtol=1e-4)
    psi = np.asarray(agent.sac.psi(x, agent.sac.actor(x).sample(jax.random.key(2))))
    chosen = psi[(psi * v_of(INDICES, z)).sum(-1).argmin(0), np.arange(BATCH)]
    found = agent.reliability(task, batch, batch, jax.random.key(2))["too_low_by"]
    np.testing.assert_allclose(found, ((psi.mean(0) - chosen) @ w).mean() / 0.01, rtol=1e-3)


def test_csds_predictions_are_in_units_of_the_reward_that_was_asked_for():
    """Scaling what the policy is paid, and its values with it, changes no prediction."""
    batch, w = as_jax(make_batch(SPHERE)), np.random.default_rng(1).standard_normal((OBS, DIM))
    task = Maximise(jnp.float32([3, 0, 4]), jnp.float32(0.5), jnp.eye(DIM))
    predictions = []
    for scale in (np.float32(1), np.float32(10)):
        config = CSDConfig(z=SPHERE, width=8, reward_scale=float(scale))
        agent = CSD.create(config, batch, jax.random.key(0)).replace(phi=linear(w))
        critic, params = agent.sac.critic, {}
        for name, network in agent.sac.critic.params.items():
            params[name] = {**network, "Dense_2": {part: scale * x for part, x in network["Dense_2"].items()}}
        agent = agent.replace(sac=agent.sac.replace(critic=critic.replace(params=params)))
        predictions.append(agent.predict_return(task, batch.obs))
    np.testing.assert_allclose(*predictions, rtol=1e-4)


# --- DIAYN ------------------------------------------------------------------------------------------------------------


def make_diayn(config: DIAYNConfig, w: np.ndarray) -> DIAYN:
    return DIAYN(discriminator=linear(w), **parts(config))


def numpy_diayn(w, batch: Transition, config: DIAYNConfig, mistake: str = ""):
    """The new kernel of a linear discriminator, and the reward with it."""
    x = with_one(normalised(batch)[0 if mistake == "states before the step" else 1])
    w = np.concatenate([w, np.zeros((1, DIM))])  # its bias starts at 0

    def log_q(w):
        logits = x @ w
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    new = w + LR * x.T @ (batch.z - np.exp(log_q(w))) / len(x)
    reward = (log_q(w if mistake == "the old discriminator" else new) * batch.z).sum(-1)
    return new[:-1], reward + (0 if mistake == "no prior" else np.log(config.z.dim))


def test_diayn_update():
    config, batch = DIAYNConfig(z=INDICES), make_batch(INDICES)
    w = np.random.default_rng(1).standard_normal((OBS, DIM))
    agent = updated(make_diayn(config, w), batch)
    ours = kernel(agent.discriminator), agent.sac.given[2]
    for mistake in ("", "states before the step", "the old discriminator", "no prior"):
        same = [close(*pair) for pair in zip(ours, numpy_diayn(w, batch, config, mistake))]
        assert all(same) == (not mistake), mistake


@pytest.mark.parametrize("prior, chance", [(True, 0.0), (False, -np.log(16))])
def test_diayn_pays_nothing_for_skills_that_nobody_can_tell_apart(prior, chance):
    config = DIAYNConfig(prior=prior)
    batch = as_jax(make_batch(config.z))
    np.testing.assert_allclose(make_diayn(config, np.zeros((OBS, 16))).intrinsic_reward(batch), chance, atol=1e-5)
    sure = make_diayn(config, 100 * np.random.default_rng(0).standard_normal((OBS, 16)))
    assert np.max(sure.intrinsic_reward(batch)) <= np.log(16) + chance + 1e-4


def test_diayn_takes_a_goal_for_a_skill_along_its_mean():
    batch, goal = as_jax(make_batch(PLANE)), jnp.float32(np.random.default_rng(2).standard_normal(OBS))
    agent = DIAYN.create(DIAYNConfig(z=PLANE, width=8), batch, jax.random.key(0))
    mean = np.asarray(agent.discriminator(goal).mean)
    aimed = agent.aim(agent.read(GoalPrompt(goal), batch, jax.random.key(0)), batch.obs)
    np.testing.assert_allclose(aimed[3], mean / np.linalg.norm(mean) * PLANE.typical_norm, rtol=1e-5)
    told = agent.discriminator(batch.next_obs)
    density = np.exp(-0.5 * ((batch.z - told.mean) / np.exp(told.log_std)) ** 2 - told.log_std).prod(-1)
    expected = np.log(density) + 0.5 * np.sum(np.square(batch.z), axis=-1)  # less the log density of N(0, I)
    np.testing.assert_allclose(agent.intrinsic_reward(batch), expected, rtol=1e-4, atol=1e-5)


def test_diayn_of_continuous_skills():
    """A standard normal guess: E r = -d/2 (1 + ln 2 pi) without the prior, and exactly 0 with it."""
    example = as_jax(make_batch(PLANE, size=4000))
    agent = DIAYN.create(DIAYNConfig(z=PLANE, width=4, prior=False), example, jax.random.key(0))
    assert isinstance(agent.discriminator.module, GaussianNet)
    zeros = jax.tree.map(jnp.zeros_like, agent.discriminator.params)
    blank = agent.replace(discriminator=agent.discriminator.replace(params=zeros))
    expected = -DIM / 2 * (1 + np.log(2 * np.pi))
    np.testing.assert_allclose(np.mean(blank.intrinsic_reward(example)), expected, atol=0.06)
    with_prior = blank.replace(config=replace(agent.config, prior=True))
    np.testing.assert_allclose(with_prior.intrinsic_reward(example), 0, atol=1e-5)


def test_diayn_takes_a_goal_for_the_skill_that_it_looks_like():
    w = np.random.default_rng(1).standard_normal((OBS, DIM))
    agent, goal = make_diayn(DIAYNConfig(z=INDICES), w), np.random.default_rng(2).standard_normal(OBS)
    likeliest = np.argmax((goal - MEAN) / STD @ w)
    task = agent.read(GoalPrompt(jnp.float32(goal)), make_batch(INDICES), jax.random.key(0))
    np.testing.assert_array_equal(agent.aim(task, jnp.zeros((4, OBS))), np.tile(np.eye(DIM)[likeliest], (4, 1)))


def test_diayn_refuses_a_reward_by_name():
    agent, batch = make_diayn(DIAYNConfig(z=INDICES), np.zeros((OBS, DIM))), make_batch(INDICES)
    steps = as_jax(batch._replace(reward=np.ones(BATCH)))
    with pytest.raises(UnsupportedPrompt, match=r"DIAYN cannot follow a RewardPrompt: expected a GoalPrompt\.$"):
        agent.read(RewardPrompt(steps), steps, jax.random.key(0))


def test_diayn_refuses_skills_without_a_density():
    with pytest.raises(UserError, match="z.kind"):
        DIAYNConfig(z=SPHERE)


# --- DADS -------------------------------------------------------------------------------------------------------------


def make_dads(config: DADSConfig, w: np.ndarray) -> DADS:
    rng = np.random.default_rng(7)
    norms = [BatchNorm(*(jnp.float32(x) for x in (rng.standard_normal(OBS), rng.uniform(0.5, 2, OBS)))) for _ in "ab"]
    return DADS(dynamics=linear(w), state_norm=norms[0], step_norm=norms[1], **parts(config))


def numpy_dads(agent: DADS, w, batch: Transition, z: np.ndarray, mistake: str = ""):
    """The new kernel of linear dynamics, the running statistics of steps, and the reward with alternatives z
    (L, B, z)."""
    obs, next_obs = normalised(batch)
    steps = next_obs - obs
    rows = np.ones(len(obs)) if mistake == "rows that end" else batch.discount

    def of_batch(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + EPS)

    w = np.concatenate([w, np.zeros((1, OBS))])  # its bias starts at 0
    x, y = with_one(np.concatenate([of_batch(obs), batch.z], -1)), of_batch(steps)
    new = w + LR * x.T @ (rows[:, None] * (y - x @ w)) / rows.sum()
    unbiased = steps.var(0, ddof=0 if mistake == "biased variance" else 1)
    mean = 0.99 * np.float64(agent.step_norm.mean) + 0.01 * steps.mean(0)
    var = 0.99 * np.float64(agent.step_norm.var) + 0.01 * unbiased
    s_mean = 0.99 * np.float64(agent.state_norm.mean) + 0.01 * obs.mean(0)
    s_var = 0.99 * np.float64(agent.state_norm.var) + 0.01 * obs.var(0, ddof=1)
    if mistake == "batch statistics in the reward":
        mean, var, s_mean, s_var = steps.mean(0), steps.var(0), obs.mean(0), obs.var(0)
    x, y = (obs - s_mean) / np.sqrt(s_var + EPS), (steps - mean) / np.sqrt(var + EPS)

    def log_q(z):
        return -0.5 * ((y - with_one(np.concatenate([x, z], -1)) @ new) ** 2).sum(-1)

    others = np.stack([np.clip(log_q(one) - log_q(batch.z), -50, 50) for one in z])
    return new[:-1], var, np.log(len(z) + 1) - np.log(1 + np.exp(others).sum(0))


@pytest.mark.parametrize("space", [PLANE, INDICES])
def test_dads_update(space):
    config, batch = DADSConfig(z=space, alternatives=6), make_batch(space)
    w = 0.3 * np.random.default_rng(1).standard_normal((OBS + DIM, OBS))
    before = make_dads(config, w)
    agent = updated(before, batch, seed=4)
    key = jax.random.fold_in(jax.random.key(4), 2)
    z = np.float64(space.sample(key, 6 * BATCH)).reshape(6, BATCH, DIM)
    ours = kernel(agent.dynamics), agent.step_norm.var, agent.sac.given[2]
    for mistake in ("", "rows that end", "biased variance", "batch statistics in the reward"):
        same = [close(*pair) for pair in zip(ours, numpy_dads(before, w, batch, z, mistake))]
        assert all(same) == (not mistake), mistake


def test_dads_bounds():
    """Dynamics that ignore the skill pay exactly 0; no reward is above ln(L + 1), or below what the clip leaves."""
    config, batch = DADSConfig(z=PLANE), make_batch(PLANE, size=64, seed=1)
    w = np.random.default_rng(1).standard_normal((OBS + DIM, OBS))
    deaf = w * np.concatenate([np.ones((OBS, 1)), np.zeros((DIM, 1))])
    np.testing.assert_allclose(make_dads(config, deaf).intrinsic_reward(as_jax(batch)), 0, atol=1e-5)
    agent = make_dads(config, 30 * w)
    lowest, highest = -50 + np.log(101 / 100), np.log(101)
    surprised = agent.intrinsic_reward(as_jax(batch))
    assert lowest - 1e-3 <= np.min(surprised) < -40
    obs, _ = normalised(batch)
    y = np.concatenate([agent.state_norm(jnp.float32(obs)), batch.z], axis=-1) @ (30 * w)
    reached = obs + np.asarray(agent.step_norm.mean) + y * np.sqrt(np.asarray(agent.step_norm.var) + EPS)
    foretold = agent.intrinsic_reward(as_jax(batch._replace(next_obs=reached * STD + MEAN)))
    np.testing.assert_allclose(np.median(foretold), highest, atol=0.2)
    assert np.max(foretold) <= highest + 1e-4


# --- All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lsd", "csd", "csf", "diayn", "dads"])
def test_quick_presets_differ_from_metras_in_nothing_but_the_agent(name):
    for quick in ("point-quick", "maze-quick", "half-cheetah-quick", "ant-quick"):
        run, base = preset(name, quick), preset("metra", quick)
        assert replace(run, agent=base.agent, agent_name="metra") == base
        ours, metra = run.agent, base.agent
        assert (ours.width, ours.lr, ours.sac, ours.batch) == (metra.width, metra.lr, metra.sac, metra.batch)


# Sheet, section 2.7: skills, time limits as terminals, alpha, width, batch, updates of an epoch, replay.
PAPER = {
    ("lsd", "ant"): ("sphere", 2, True, 0.01, True, 1024, 256, 50, 1_000_000),
    ("lsd", "half-cheetah"): ("onehot", 16, True, 0.01, True, 1024, 256, 50, 1_000_000),
    ("csd", "ant"): ("onehot", 16, True, 0.03, False, 512, 1024, 64, 2_000),
    ("csd", "half-cheetah"): ("onehot", 16, True, 0.1, False, 512, 1024, 64, 2_000),
    ("csf", "ant"): ("sphere", 2, False, 0.01, True, 1024, 256, 50, 1_000_000),
    ("csf", "half-cheetah"): ("sphere", 2, False, 0.01, True, 1024, 256, 50, 1_000_000),
    ("diayn", "ant"): ("onehot", 50, False, 0.1, False, 1024, 256, 50, 1_000_000),
    ("dads", "ant"): ("gaussian", 2, True, 0.01, True, 1024, 256, 50, 1_000_000),
}


@pytest.mark.parametrize("name, env", PAPER)
def test_paper_presets_are_the_published_settings(name, env):
    run = preset(name, f"{env}-paper")
    agent, sac = run.agent, run.agent.sac
    found = (
        agent.z.kind, agent.z.dim, agent.batch.timeout_as_terminal, sac.alpha, sac.learn_alpha, agent.width,
        agent.batch.size, run.updates, run.replay_capacity,
    )  # fmt: skip
    assert found == PAPER[name, env] and (agent.lr, sac.gamma, sac.tau) == (1e-4, 0.99, 0.005)
