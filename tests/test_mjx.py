"""MuJoCo on the device: its steps are C MuJoCo's. What compiles a body is slow."""

import importlib.util
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mjx_tools import DRIFT_STEPS, LANES, Episodes, on_device, play

from urlrl.envs import make_device_env, make_env
from urlrl.envs.locomotion import LocomotionEnv
from urlrl.envs.mjx import BODIES, device_env
from urlrl.envs.on_device import DeviceHostEnv
from urlrl.errors import UserError

needs_mjx = pytest.mark.skipif(importlib.util.find_spec("mujoco.mjx") is None, reason="mujoco-mjx is not installed")


@pytest.mark.parametrize("make", [make_env, make_device_env])
def test_without_the_package_one_sentence_says_what_to_install(make, monkeypatch):
    device_env.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    expected = r"Environment 'mjx:ant' needs the package mujoco-mjx: pip install 'urlrl\[mjx\]'\."
    with pytest.raises(UserError, match=f"^{expected}$"):
        make("mjx:ant")


@pytest.mark.parametrize("make", [make_env, make_device_env])
def test_an_unknown_body_gets_the_nearest_name(make):
    with pytest.raises(UserError, match="Unknown environment 'mjx:an': did you mean 'mjx:ant'"):
        make("mjx:an")


@needs_mjx
@pytest.mark.parametrize("name", BODIES)
def test_it_says_of_itself_what_the_hosts_body_says(name, capfd):
    env = make_device_env(name, episode_steps=7)
    twin = name.removeprefix("mjx:")
    assert env.env_spec == replace(make_env(twin, episode_steps=7).env_spec, id=name, twin=twin)
    assert capfd.readouterr().out == ""  # MJX would tell that it has no Warp.


@needs_mjx
@pytest.mark.parametrize("name", BODIES)
def test_a_start_is_the_hosts_distribution(name):
    """U(-0.1, 0.1) around the model's pose and 0.1 N(0, 1): the same means and spreads, by 2000 draws of each."""
    env = make_device_env(name)
    found = np.array(jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2000)).obs)
    expected, _ = LocomotionEnv(BODIES[name], 2000).reset(seed=0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=0.012)
    np.testing.assert_allclose(found.std(axis=0), expected.std(axis=0), rtol=0.07)
    nq = dict(env.env_spec.physics)["qpos"]
    assert np.abs(found[:, :nq] - expected[:, :nq].mean(axis=0)).max() < 0.11


def test_the_hosts_wrapper_is_the_environment_it_wraps():
    """Of a point, which compiles at once: the starts are PointEnv's, lane by lane, and so is the rest."""
    env, point = DeviceHostEnv(make_device_env("point", episode_steps=3), 4), make_env("point", 4, episode_steps=3)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(env.reset(seed=5)[0], point.reset(seed=5)[0])
    mask = np.array([True, False, False, True])
    np.testing.assert_array_equal(
        env.reset(options={"reset_mask": mask})[0], point.reset(options={"reset_mask": mask})[0]
    )
    for _ in range(3):
        for found, expected in zip(env.step(action := rng.uniform(-1, 1, (4, 2)))[:4], point.step(action)[:4]):
            np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(env.position(), env.physics())
    with pytest.raises(RuntimeError, match=r"Lanes \[0, 1, 2, 3\] have ended"):
        env.step(action)
    with pytest.raises(UserError, match="'point' has no goal positions"):
        env.goal_obs(np.zeros((1, 2)))


def test_the_hosts_wrapper_continues_from_what_it_saved():
    env, other = (DeviceHostEnv(make_device_env("maze:rings_mass"), 3) for _ in range(2))
    rng = np.random.default_rng(0)
    env.reset(seed=3)
    env.step(rng.uniform(-1, 1, (3, 2)))
    state = env.get_state()
    assert all(isinstance(leaf, np.ndarray) for leaf in state.values())
    np.testing.assert_array_equal(other.set_state(state), env._obs())
    action = rng.uniform(-1, 1, (3, 2))
    for found, expected in zip(other.step(action)[:4], env.step(action)[:4]):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(other.reset()[0], env.reset()[0])


@needs_mjx
def test_a_goal_is_a_start_that_was_moved_there():
    env = make_env("mjx:ant", 2)
    goals = np.array([[3.0, -4.0], [0.5, 0.0]])
    obs = env.goal_obs(goals)
    np.testing.assert_allclose(obs[:, :2], goals)
    np.testing.assert_array_equal(obs[:, 2:], env.goal_obs(0 * goals)[:, 2:])
    assert len(np.unique(obs[:, 2])) == 2


# Against C MuJoCo


@pytest.fixture(scope="module", params=BODIES)
def episodes(request) -> Episodes:
    if importlib.util.find_spec("mujoco.mjx") is None:
        pytest.skip("mujoco-mjx is not installed")
    host = LocomotionEnv(BODIES[request.param], 2 * LANES)
    return play(make_device_env(request.param), host, host.pool.data)


@pytest.mark.slow
def test_one_control_step_is_c_mujocos(episodes):
    """In every state within 1e-3; 1e-5 was measured. In single precision a rounding could decide whether a contact has
    begun, and then it would be more."""
    nq = dict(episodes.env.env_spec.physics)["qpos"]
    error = episodes.error()
    of_qpos, of_qvel = error[:, :nq].max(axis=1), error[:, nq:].max(axis=1)
    for what, values in (("qpos", of_qpos), ("qvel", of_qvel)):
        print(
            f"{episodes.env.env_spec.id}, one step, {what}: {np.quantile(values, [0.5, 0.99, 1])} (median, 99 %, max)"
        )
    assert np.quantile(of_qpos, 0.99) < 1e-4 and of_qpos.max() < 1e-3
    assert np.quantile(of_qvel, 0.99) < 1e-2
    assert np.quantile(np.abs(episodes.reward[0] - episodes.c_reward[0]), 0.99) < 2e-3


@pytest.mark.slow
def test_in_double_precision_nothing_is_left_of_the_difference(episodes):
    """All of it is rounding: the model, its contacts and the integrator are MuJoCo's."""
    with jax.enable_x64(True):
        env = device_env.__wrapped__(episodes.env.env_spec.id.removeprefix("mjx:"))
        obs, reward = on_device(env, episodes.start, episodes.actions[:1], jnp.float64)
    np.testing.assert_allclose(obs[0], episodes.c_obs[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(reward[0], episodes.c_reward[0], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_drift_is_chaos_and_not_bias(episodes):
    """Roundings grow at contacts, so lanes part at their own times; half of them are together after 2.5 s."""
    p = len(episodes.env.env_spec.position)
    error = np.linalg.norm((episodes.obs - episodes.c_obs)[..., :p], axis=-1)
    way = np.linalg.norm(episodes.c_obs[-1, :, :p] - episodes.start.qpos[:, :p], axis=-1)
    print(
        f"{episodes.env.env_spec.id}: after {DRIFT_STEPS} steps apart by {np.median(error[-1]):.1e} m (median), "
        f"{error[-1].max():.2f} m (max), of ways of {np.median(way):.2f} m"
    )
    assert np.isfinite(episodes.obs).all()
    assert np.median(error[-1]) < 0.1
    found = np.linalg.norm(episodes.obs[-1, :, :p] - episodes.start.qpos[:, :p], axis=-1)
    assert abs(np.median(found) - np.median(way)) < 0.2 * np.median(way)


@pytest.mark.slow
@needs_mjx
def test_a_saved_state_continues_bit_for_bit_on_the_host():
    env, other = make_env("mjx:half_cheetah", 2, episode_steps=30), make_env("mjx:half_cheetah", 2, episode_steps=30)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2, 6))
    env.reset(seed=3)
    for action in actions[:10]:
        env.step(action)
    state = env.get_state()
    other.set_state(state)
    for action in actions[10:]:
        for found, expected in zip(other.step(action)[:4], env.step(action)[:4]):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(other.reset()[0], env.reset()[0])
