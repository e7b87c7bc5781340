"""Distractors: noise where it is said to be, and a body that is none the wiser."""

import importlib.util
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.envs import distractors, make_device_env, make_env, mjx_dmc, twin_of
from urlrl.envs.distractors import FAR, DistractedEnv, Distractors
from urlrl.envs.mjx import device_env
from urlrl.errors import UserError
from urlrl.loading import names_in
from urlrl.tasks.catalogue import find_task
from urlrl.tasks.features import features
from urlrl.tasks.task import make_task_env, runs_on

needs_mjx = pytest.mark.skipif(importlib.util.find_spec("mujoco.mjx") is None, reason="mujoco-mjx is not installed")
POINT = 2  # numbers of its observation
EAST = np.array([1.0, 0.3])


def check(env, far: bool) -> None:
    """`env` is the point with 10 distractors: 32 lanes go 5 m to the east, in two episodes."""
    plain = make_env("point", 32)
    played = []
    for _ in range(2):
        obs, seen = plain.reset(seed=None if played else 3)[0], env.reset(seed=None if played else 3)[0]
        np.testing.assert_array_equal(seen[:, :POINT], obs)  # It starts as without them.
        for _ in range(50):
            played.append((env.position()[:, 0], seen))
            found, expected = env.step(np.tile(EAST, (32, 1))), plain.step(np.tile(EAST, (32, 1)))
            seen = found[0]
            np.testing.assert_array_equal(seen[:, :POINT], expected[0])
            for mine, its in zip(found[1:4], expected[1:4]):
                np.testing.assert_array_equal(mine, its)
            np.testing.assert_array_equal(env.position(), plain.position())
            np.testing.assert_array_equal(env.physics(), plain.physics())
    x, noise = np.stack([row for row, _ in played]), np.stack([row for _, row in played])[..., POINT:]
    assert noise.shape == (100, 32, 10)
    noisy = x > 2 if far else np.ones_like(x, bool)
    assert not noise[~noisy].any()
    check_normal(noise, noisy)


def check_normal(noise: np.ndarray, noisy: np.ndarray) -> None:
    """N(0, 1), independent of other steps, lanes, numbers and episodes."""
    seen = noise[noisy]
    assert abs(seen.mean()) < 4 / seen.size**0.5 and abs(np.square(seen).mean() - 1) < 4 * (2 / seen.size) ** 0.5
    assert abs((np.abs(seen) < 1).mean() - 0.6827) < 2 / seen.size**0.5
    pairs = [(noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])]
    for one, other in [*pairs, (noise[:50], noise[50:])]:
        both = (one * other)[(one != 0) & (other != 0)]
        assert both.size > 1000 and abs(both.mean()) < 4 / both.size**0.5


@pytest.mark.parametrize("far", [False, True])
def test_noise_is_where_it_is_said_to_be_and_nothing_else_differs(far):
    check(make_env("point+noise10" + "_far" * far, 32), far)


def frozen(monkeypatch):
    draw = distractors._draw
    monkeypatch.setattr(
        distractors, "_draw", lambda seed, episodes, clocks, num: draw(seed, episodes, np.zeros_like(clocks), num)
    )
    return make_env("point+noise10", 32), False


def repeated(monkeypatch):
    draw = distractors._draw
    monkeypatch.setattr(
        distractors, "_draw", lambda seed, episodes, clocks, num: draw(seed, np.zeros_like(episodes), clocks, num)
    )
    return make_env("point+noise10", 32), False


def nearer(monkeypatch):
    monkeypatch.setattr(distractors, "FAR", 1.0)
    return make_env("point+noise10_far", 32), True


def in_reward(monkeypatch):
    env, step = make_env("point+noise10", 32), DistractedEnv.step

    def wrong(self, actions):
        obs, reward, *rest = step(self, actions)
        return obs, reward + obs[:, POINT], *rest

    monkeypatch.setattr(DistractedEnv, "step", wrong)
    return env, False


WRONG = {
    "the same noise at every step": frozen,
    "the same noise in every episode": repeated,
    "a line at 1 m": nearer,
    "noise in the reward": in_reward,
    "noise everywhere": lambda monkeypatch: (make_env("point+noise10", 32), True),
    "9 distractors": lambda monkeypatch: (make_env("point+noise9", 32), False),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_check_finds(wrong, monkeypatch):
    env, far = WRONG[wrong](monkeypatch)
    with pytest.raises(AssertionError):
        check(env, far)


def device_start(env, lanes: int):
    """The first episodes of a loop on the device, of seed 5."""
    fold = jax.random.fold_in
    return jax.jit(jax.vmap(lambda lane: env.reset(fold(fold(jax.random.key(5), lane), 0))))(jnp.arange(lanes))


@pytest.mark.parametrize("name", ["point+noise3", "point+noise3_far"])
def test_the_device_shows_what_the_host_does(name):
    host, device = make_env(name, 3), make_device_env(name)
    assert device.env_spec == host.env_spec
    obs, _ = host.reset(seed=5)
    state, step = device_start(device, 3), jax.jit(jax.vmap(device.step))
    for _ in range(30):
        np.testing.assert_allclose(state.obs, obs, rtol=1e-6, atol=1e-6)  # Programs round normal numbers as they like.
        np.testing.assert_array_equal(state.physics, host.physics())
        action = np.tile(EAST, (3, 1))
        state, obs = step(state, jnp.asarray(action, jnp.float32)), host.step(action)[0]
    assert (host.position()[:, 0] > FAR).all() and obs[:, POINT:].all()


@pytest.mark.parametrize("name", ["point+noise3_far", "dmc:walker_walk+noise10", "dmc:walker_walk+noise10_far"])
def test_a_saved_state_goes_on_bit_for_bit(name):
    one, other = make_env(name, 2), make_env(name, 2)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (45, *one.action_space.shape))
    one.reset(seed=7)
    for action in actions[:25]:
        one.step(action)
    state = one.get_state()
    expected = [one.step(action) for action in actions[25:]], one.reset()[0]
    other.set_state(state)
    found = [other.step(action) for action in actions[25:]], other.reset()[0]
    for mine, its in zip(found[0], expected[0]):
        np.testing.assert_array_equal(mine[0], its[0])
        np.testing.assert_array_equal(mine[1], its[1])
    np.testing.assert_array_equal(found[1], expected[1])
    for env in (one, other):
        env.close()


def test_a_walker_that_does_not_see_its_x_has_noise_by_it():
    env, plain = make_env("dmc:walker_walk+noise10_far", 2), make_env("dmc:walker_walk", 2)
    spec = env.env_spec
    assert (spec.id, spec.obs_dim, spec.position) == ("dmc:walker_walk+noise10_far", 34, ("x",))
    assert spec == replace(plain.env_spec, id=spec.id, obs_dim=34)
    obs, its = env.reset(seed=1)[0], plain.reset(seed=1)[0]
    np.testing.assert_array_equal(obs, np.concatenate([its, np.zeros((2, 10))], axis=1))
    state = env.get_state()
    state["simulation"][1, 2] = 2.5  # Time and the root's z come first.
    assert env.set_state(state)[:, 24:].any(axis=1).tolist() == [False, True]
    np.testing.assert_allclose(env.position(), [[0], [2.5]], atol=1e-9)
    assert env.model is plain.model or env.model.nq == plain.model.nq  # Pictures are of the body.
    np.testing.assert_array_equal(env.physics()[:, 1], [0, 2.5])
    for some in (env, plain):
        some.close()


def test_goals_and_stored_states_are_the_bodys():
    env, plain = (
        make_env("dmc:walker_walk+noise3", 1, root_position=True),
        make_env("dmc:walker_walk", 1, root_position=True),
    )
    goals = np.array([[3.0], [-2.0]])
    np.testing.assert_array_equal(env.goal_obs(goals), np.pad(plain.goal_obs(goals), ((0, 0), (0, 3))))
    action = np.zeros(env.env_spec.action_dim)
    env.reset(seed=0)
    (obs, reward), (its, paid) = env.place(env.physics()[0], action), plain.place(env.physics()[0], action)
    np.testing.assert_array_equal(obs, [*its, *[np.nan] * 3])
    assert reward == paid
    assert make_device_env("point+noise3").goal_obs is None


@needs_mjx
def test_bodies_on_the_device_have_them_too(monkeypatch):
    monkeypatch.setattr(mjx_dmc, "NUM_STARTS", 2)
    mjx_dmc._starts.cache_clear()
    device_env.cache_clear()
    name, twin = "mjx:walker_walk+noise10", "dmc:walker_walk+noise10"
    env, host = make_device_env(name), make_env(twin, 2)
    assert env.env_spec == replace(host.env_spec, id=name, twin=twin) and twin_of(name) == twin
    state = device_start(env, 2)
    np.testing.assert_allclose(state.obs[:, 24:], host.reset(seed=5)[0][:, 24:], rtol=1e-6)  # Twins, so the same noise.
    np.testing.assert_array_equal(state.obs[:, :24], state.sim.below.obs)
    moved = make_device_env(name, root_position=True).goal_obs(jax.random.key(0), jnp.ones(1))
    assert moved.shape == (35,) and moved[0] == 1 and not moved[25:].any()
    mjx_dmc._starts.cache_clear()
    device_env.cache_clear()
    host.close()


def test_the_tasks_of_a_body_are_tasks_of_the_distracted_body():
    task, plain = find_task("walker_run+noise10"), find_task("walker_run")
    assert runs_on(task, "dmc:walker_walk+noise10") and runs_on(task, "mjx:walker_walk+noise10")
    assert not runs_on(task, "dmc:walker_walk") and not runs_on(plain, "dmc:walker_walk+noise10")
    env, its = make_task_env(task, 2), make_task_env(plain, 2)
    env.reset(seed=0), its.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 2, 6)):
        found, expected = env.step(action), its.step(action)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_array_equal(found[0][:, :24], expected[0])
    assert found[0].shape == (2, 34)
    assert features("dmc:walker_walk+noise10").keys() == features("dmc:walker_walk").keys()
    for some in (env, its):
        some.close()


BAD = {
    "name": ("point+nois10", r"^Unknown environment 'point\+nois10': did you mean 'point\+noise10'\?$"),
    "none": ("point+noise0", r"Unknown environment 'point\+noise0': did you mean 'point\+noise10'"),
    "twice": ("point+noise3+noise3", r"Unknown environment 'point\+noise3\+noise3': did you mean 'point\+noise10'"),
    "body": ("maze:rom+noise3", "^Unknown environment 'maze:rom': did you mean 'maze:rooms'"),
    "symbols": ("block:line18+noise3", r"'block:line18' cannot have distractors '\+noise3', as it shows symbols: exp"),
    "own": ("os:path+noise3", r"'os:path' cannot have distractors '\+noise3', as it is your own: expected one of ours"),
}


@pytest.mark.parametrize("make", [make_env, make_device_env])
@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_gets_one_sentence(case, make):
    name, message = BAD[case]
    with pytest.raises(UserError, match=message):
        make(name)


def test_what_does_not_fit_one_body_gets_one_sentence():
    with pytest.raises(UserError, match=r"'dmc:cartpole_swingup' cannot have distractors '\+noise3_far', as its posi"):
        make_env("dmc:cartpole_swingup+noise3_far")
    with pytest.raises(UserError, match="'point' has no option root_position"):
        make_env("point+noise3", root_position=True)
    with pytest.raises(UserError, match="Unknown task 'walker_rn.noise10'"):
        find_task("walker_rn+noise10")


def test_a_file_cannot_name_code_by_distractors():
    """`check_names` sees no module in such a name, and none is imported for it."""
    assert not names_in({"env": "os:path+noise3"}) and names_in({"env": "os:path"})
    assert names_in({"env": "gym:os:path+noise3"})
    with pytest.raises(UserError, match="as it is your own"):
        make_env("gym:os:path+noise3")


def test_presets_of_the_normaliser_leave_noise_as_it_is():
    spec = Distractors("noise2", 2, far=False).spec(make_env("maze:rooms").env_spec)
    its = make_env("maze:rooms").env_spec
    assert (spec.obs_mean, spec.obs_std) == ((*its.obs_mean, 0, 0), (*its.obs_std, 1, 1)) and not spec.obs_is_physics
