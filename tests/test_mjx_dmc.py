"""dm_control's bodies on the device: their steps are C MuJoCo's. What compiles a step is slow."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mjx_tools import DRIFT_STEPS, LANES, Episodes, on_device, play

from urlrl.envs import make_device_env, make_env, mjx_dmc
from urlrl.envs.dmc import DmcEnv
from urlrl.envs.mjx import device_env
from urlrl.envs.mjx_dmc import DOMAINS, TASKS, Seen, twin
from urlrl.envs.mjx_physics import Sim, exact
from urlrl.errors import UserError
from urlrl.tasks.urlb import urlb_task

needs_mjx = pytest.mark.skipif(importlib.util.find_spec("mujoco.mjx") is None, reason="mujoco-mjx is not installed")


@pytest.fixture
def few_starts(monkeypatch):
    monkeypatch.setattr(mjx_dmc, "NUM_STARTS", 8)
    mjx_dmc._starts.cache_clear()
    device_env.cache_clear()
    yield
    mjx_dmc._starts.cache_clear()
    device_env.cache_clear()


def test_names():
    assert {"mjx:walker_flip", "mjx:cheetah_run", "mjx:humanoid_walk", "mjx:quadruped_jump"} <= set(TASKS)
    assert twin("mjx:walker_stand") == "dmc:walker_stand"
    assert twin("mjx:walker_flip") == "dmc:walker_walk"  # The suite has no flip.
    with pytest.raises(UserError, match="Unknown environment 'mjx:walker_wal': did you mean 'mjx:walker_walk'"):
        make_env("mjx:walker_wal")
    with pytest.raises(UserError, match="'dmc:walker_walk' has no device version: expected point, .*mjx:walker_flip"):
        make_device_env("dmc:walker_walk")


@needs_mjx
def test_what_is_missing_or_is_no_option_is_said(monkeypatch):
    device_env.cache_clear()
    with pytest.raises(UserError, match=r"'mjx:ant' has no option root_position: its observation has it\."):
        make_device_env("mjx:ant", root_position=True)
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dm_control" else there(name))
    with pytest.raises(UserError, match="'mjx:walker_run' needs the package dm_control, whose body it is"):
        make_env("mjx:walker_run")


@needs_mjx
@pytest.mark.parametrize("root_position", [False, True])
@pytest.mark.parametrize("domain", DOMAINS)
def test_it_says_of_itself_what_dm_control_says(domain, root_position, few_starts):
    """Of the last of a domain's tasks, as it starts, too: the observation is that of one of dm_control's starts."""
    name = f"mjx:{domain}_{DOMAINS[domain].tasks[-1]}"
    env = make_device_env(name, episode_steps=7, root_position=root_position)
    host = make_env(twin(name), episode_steps=7, root_position=root_position)
    assert env.env_spec == replace(host.env_spec, id=name, twin=twin(name))
    first = make_env(f"dmc:{domain}_{DOMAINS[domain].hosts[0]}", root_position=root_position)
    first.reset(seed=0)
    starts = np.stack([np.concatenate([first.reset()[0][0], first.physics()[0]]) for _ in range(8)])
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 50))
    drawn = np.concatenate([state.obs, state.physics], axis=1)
    distances = np.abs(drawn[:, None] - starts).max(axis=2)
    assert distances.min(axis=1).max() < 1e-6
    assert len(np.unique(distances.argmin(axis=1))) == 8
    assert {leaf.dtype for leaf in jax.tree.leaves((state.sim, state.obs, state.physics))} == {np.dtype("float32")}
    np.testing.assert_allclose(state.position, np.zeros_like(state.position), atol=0.5)


@needs_mjx
def test_a_goal_is_a_start_that_was_moved_there(few_starts):
    env = make_env("mjx:quadruped_run", 1, root_position=True)
    goals = np.array([[3.0, -4.0], [0.5, 0.0]])
    obs = env.goal_obs(goals)
    np.testing.assert_allclose(obs[:, :2], goals)
    np.testing.assert_array_equal(obs[:, 2:], env.goal_obs(0 * goals)[:, 2:])
    with pytest.raises(UserError, match="'mjx:quadruped_run' has no goal positions"):
        make_env("mjx:quadruped_run", 1).goal_obs(goals)


@needs_mjx
@pytest.mark.parametrize("domain", DOMAINS)
def test_of_a_state_it_observes_and_rewards_what_c_does(domain):
    """After 20 random steps, of each task: those of dm_control by its own reward, and URLB's by ours of the physics.
    What accelerations and forces are felt is taken from dm_control's observation."""
    about, body = DOMAINS[domain], mjx_dmc._body(domain)
    hosts = {task: make_env(f"dmc:{domain}_{task}", 16) for task in about.hosts}
    rng = np.random.default_rng(0)
    bounds = np.array(hosts[about.hosts[0]].env_spec.action_bounds)
    for host in hosts.values():
        host.reset(seed=0)
    for _ in range(20):
        action = rng.uniform(-1, 1, (16, len(bounds)))
        played = {task: host.step(action) for task, host in hosts.items()}
    obs = played[about.hosts[0]][0]
    physics = hosts[about.hosts[0]].physics()

    def look(row: jax.Array, action: jax.Array, felt: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        qpos, qvel, act = jnp.split(row, [body.model.nq, body.model.nq + body.model.nv])
        with exact():
            data = body.physics.look(Sim(qpos, qvel, act, jnp.zeros_like(qvel)))
            rewards = {task: about.reward(task, body, data, action)[0] for task in about.tasks}
            return jnp.concatenate(about.observe(body, Seen(data, felt))), rewards

    felt = np.concatenate([obs[:, 48:51], np.sinh(obs[:, 54:])], axis=1) if about.feels else np.zeros((16, 0))
    found, rewards = jax.jit(jax.vmap(look))(*map(jnp.float32, (physics, action, felt)))
    np.testing.assert_allclose(found, obs, rtol=1e-5, atol=1e-5)
    for task in about.tasks:
        expected = played[task][1] if task in hosts else urlb_task(f"{domain}_{task}").reward(physics, action)
        np.testing.assert_allclose(rewards[task], expected, rtol=2e-5, atol=1e-6, err_msg=task)


# Against C MuJoCo


@pytest.fixture(scope="module", params=["mjx:walker_walk", "mjx:cheetah_run", "mjx:quadruped_run"])
def episodes(request) -> Episodes:
    if importlib.util.find_spec("mujoco.mjx") is None:
        pytest.skip("mujoco-mjx is not installed")
    host = DmcEnv(twin(request.param).removeprefix("dmc:"), 2 * LANES)
    return play(make_device_env(request.param), host, [lane.data for lane in host._lanes])


@pytest.mark.slow
def test_one_control_step_is_c_mujocos(episodes):
    """But for the state in a hundred where a rounding decides whether a contact has begun."""
    error, name = episodes.error().max(axis=1), episodes.env.env_spec.id
    reward = np.abs(episodes.reward[0] - episodes.c_reward[0])
    for what, values in (("observation", error), ("reward", reward)):
        print(f"{name}, one step, {what}: {np.quantile(values, [0.5, 0.99, 1])} (median, 99 %, max)")
    assert np.median(error) < 2e-4 and np.quantile(error, 0.99) < 2e-2
    assert np.median(reward) < 1e-6 and np.quantile(reward, 0.99) < 1e-4


@pytest.mark.slow
def test_in_double_precision_nothing_is_left_of_the_difference(episodes):
    """All of it is rounding: the model, its contacts, the integrator, sensors and rewards are MuJoCo's. (A quadruped
    that lies on its cylindrical eyes is 2e-5 off.)"""
    with jax.enable_x64(True):
        env = device_env.__wrapped__(episodes.env.env_spec.id.removeprefix("mjx:"))
        obs, reward = on_device(env, episodes.start, episodes.actions[:1], jnp.float64)
    error = np.abs(obs[0] - episodes.c_obs[0]).max(axis=1)
    assert np.quantile(error, 0.99) < 1e-9 and error.max() < 1e-4
    np.testing.assert_allclose(reward[0], episodes.c_reward[0], rtol=0, atol=1e-8)


@pytest.mark.slow
def test_drift_is_chaos_and_not_bias(episodes):
    """Roundings grow at contacts, so lanes part at their own times; half of them are together in the end."""
    error = np.abs(episodes.obs[-1] - episodes.c_obs[-1]).max(axis=1)
    print(
        f"{episodes.env.env_spec.id}: after {DRIFT_STEPS} steps {np.quantile(error, [0.5, 0.9, 1])} (median, 90 %, max)"
    )
    assert np.isfinite(episodes.obs).all()
    assert np.median(error) < 0.05
    assert abs(episodes.reward.mean() - episodes.c_reward.mean()) < 0.05 * episodes.c_reward.mean()


STEPS = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax, numpy as np
from urlrl.envs import make_device_env

env = make_device_env("mjx:quadruped_run")
state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 256))
step = jax.jit(jax.vmap(env.step))
for action in np.random.default_rng(0).uniform(-1, 1, (60, 256, 12)).astype(np.float32):
    state = step(state, action)
jax.block_until_ready(state)
"""


@needs_mjx
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="The system does not assign cores to processes.")
def test_two_cores_do_not_wait_for_each_other_for_good():
    """jaxlib's factorisations of many bodies hang where two are side by side: here in step 12, before `_alone`."""
    subprocess.run([sys.executable, "-c", STEPS], check=True, timeout=600)
