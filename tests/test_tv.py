"""The point mass and its television: what is seen where, what the button does, and that every episode can go on."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.envs import make_device_env, make_env, tv
from urlrl.envs.maze import MARGIN, cell
from urlrl.envs.tv import BUTTON, NUMBERS, ROOMS, TELEVISION, WALLS
from urlrl.errors import UserError
from urlrl.types import DeviceEnv

NAMES = ["tv:rooms", "tv:rooms_quiet"]
RIGHT, UP, STAY = np.array([1.0, 0]), np.array([0, 1.0]), np.zeros(2)
TO_TELEVISION = [RIGHT] * 9  # through the door of room 0, into room 1
TO_BUTTON = [np.array(action) for action in ([-0.6, -1], [-0.6, -1], [-0.8, 0])]  # from there
OUT_AND_BACK = [UP] * 4 + [STAY, -UP, -UP] + [-RIGHT] * 10 + [RIGHT] * 10  # from there to room 0 and to room 1 again


@cache
def noisy() -> DeviceEnv:
    return make_device_env("tv:rooms")


def play(env: DeviceEnv, actions: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Observations and physics (T, n, ...) after each of actions (T, n, 2)."""

    @jax.jit
    def run(keys, actions):
        def step(state, action):
            state = jax.vmap(env.step)(state, action)
            return state, (state.obs, state.physics)

        return jax.lax.scan(step, jax.vmap(env.reset)(keys), actions)[1]

    obs, physics = run(jax.random.split(jax.random.key(seed), actions.shape[1]), jnp.asarray(actions, jnp.float32))
    return np.array(obs), np.array(physics)


def at_random(lanes: int, steps: int = 200) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, lanes, 2))


def everywhere(actions: list, lanes: int = 1) -> np.ndarray:
    """The same actions in all lanes, (T, lanes, 2)."""
    return np.tile(np.array(actions)[:, None], (1, lanes, 1))


# Rooms, walls and doors


def test_four_rooms_are_joined_to_a_ring():
    assert (np.bincount(ROOMS[ROOMS >= 0]) == 49).all() and len(np.unique(ROOMS)) == 5
    assert ((ROOMS == tv.DOOR) == WALLS).sum() == WALLS.size - 4  # But for the doors.
    doors = np.argwhere((ROOMS == tv.DOOR) & ~WALLS)
    beside = [{int(ROOMS[row + i, column + j]) for i, j in ((0, 1), (0, -1), (1, 0), (-1, 0))} for row, column in doors]
    assert [room - {tv.DOOR} for room in beside] == [{0, 1}, {0, 2}, {1, 3}, {2, 3}]
    assert ROOMS[tuple(BUTTON)] == TELEVISION


def test_an_episode_begins_at_rest_in_the_middle_of_room_0():
    state = noisy().reset(jax.random.key(0))
    np.testing.assert_array_equal(state.obs, [-4, -4, *[0] * (2 + NUMBERS)])
    np.testing.assert_array_equal(state.physics, [-4, -4, 0, 0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(state.position, [-4, -4])
    assert float(state.reward) == 0 and not state.terminated


def test_the_mass_gathers_speed_and_passes_the_door():
    obs, physics = play(noisy(), everywhere(TO_TELEVISION))
    np.testing.assert_allclose(obs[:, 0, 0], np.arange(-3.5, 5), atol=0.02)
    np.testing.assert_allclose(obs[:3, 0, 2], [0.5, 1, 1])
    assert physics[:, 0, 4].tolist() == [0, 0, 0, tv.DOOR, 1, 1, 1, 1, 1]


def test_walls_hold_and_take_what_runs_into_them():
    obs, physics = play(noisy(), everywhere([UP, UP, RIGHT, RIGHT, RIGHT, RIGHT, RIGHT]))  # Beside the door.
    assert obs[-1, 0, 0] == pytest.approx(-0.5 - MARGIN) and obs[-1, 0, 2] == 0
    _, physics = play(noisy(), at_random(64))
    row, column = cell(physics[..., :2].reshape(-1, 2), WALLS.shape)
    assert not WALLS[row, column].any() and np.abs(physics[..., :2]).max() <= 7.5 - MARGIN + 1e-6
    np.testing.assert_array_equal(physics[..., 4].ravel(), ROOMS[row, column])
    assert set(np.unique(physics[..., 4])) == {tv.DOOR, 0, 1, 2, 3}  # All of them are reached.


# The television


def check_noise(env: DeviceEnv) -> None:
    """N(0, 1) in the television's room, anew at every step and in every lane; 0 elsewhere."""
    obs, physics = play(env, everywhere(TO_TELEVISION + [STAY] * 150, lanes=64))
    shown, inside = obs[..., 4:], physics[..., 4] == TELEVISION
    assert not shown[~inside].any() and inside[-150:].all()
    seen = shown[-150:]  # (150, 64, 8): by step, lane and number
    count = seen.size
    assert abs(seen.mean()) < 4 / count**0.5 and abs(np.square(seen).mean() - 1) < 4 * (2 / count) ** 0.5
    assert abs((np.abs(seen) < 1).mean() - 0.6827) < 4 * 0.5 / count**0.5  # A normal's, not only its two moments.
    for axis in range(3):
        one, other = (np.take(seen, range(*part), axis) for part in ((0, seen.shape[axis] - 1), (1, seen.shape[axis])))
        assert abs((one * other).mean()) < 4 / one.size**0.5


def check_button(env: DeviceEnv) -> None:
    """Entering it is what switches the television off; the last picture stays, and is seen in that room alone."""
    obs, physics = play(env, everywhere(TO_TELEVISION + TO_BUTTON + OUT_AND_BACK, lanes=2))
    row, column = cell(physics[..., :2], WALLS.shape)
    pressed = np.flatnonzero((row[:, 0] == BUTTON[0]) & (column[:, 0] == BUTTON[1]))
    assert pressed[0] == len(TO_TELEVISION + TO_BUTTON) - 1
    np.testing.assert_array_equal(physics[:, 0, 5], np.arange(len(obs)) < pressed[0])
    np.testing.assert_array_equal(physics[:, 0, 7], np.arange(len(obs)) >= pressed[0])
    kind = np.where(np.arange(len(obs)) < pressed[0], -1, 1) * (physics[:, 0, 4] == TELEVISION)
    np.testing.assert_array_equal(physics[:, 0, 6], kind)
    assert physics[:, 0, 8].tolist() == [len(set(physics[: i + 1, 0, 4]) - {tv.DOOR} | {0}) for i in range(len(obs))]
    inside, last = physics[:, 0, 4] == TELEVISION, obs[pressed[0] - 1, :, 4:]
    after = np.arange(len(obs)) >= pressed[0]
    assert inside[after].any() and not inside[after].all() and last.all()
    assert (obs[after & inside][..., 4:] == last).all() and not obs[~inside][..., 4:].any()


def check_quiet(env: DeviceEnv) -> None:
    """The same steps without noise."""
    actions = at_random(64)
    (obs, physics), (loud, as_loud) = play(env, actions), play(noisy(), actions)
    (told, noise, visited), (loud_told, loud_noise, loud_visited) = (
        (rows[..., :6], rows[..., 6:8], rows[..., 8]) for rows in (physics, as_loud)
    )
    np.testing.assert_array_equal(told, loud_told)
    np.testing.assert_array_equal(visited, loud_visited)
    assert not noise.any() and loud_noise.any()
    assert not obs[..., 4:].any() and loud[..., 4:].any()


def test_the_television_shows_noise_in_its_room_alone():
    check_noise(noisy())


def test_the_button_freezes_the_picture():
    check_button(noisy())


def test_the_quiet_variant_only_lacks_the_noise():
    check_quiet(make_device_env("tv:rooms_quiet"))


def changed(change) -> DeviceEnv:
    """`tv:rooms`, where `change` is made to every state that is reached."""
    return replace(noisy(), step=lambda state, action: change(noisy().step(state, action)))


def with_sim(state, **parts):
    return state._replace(sim=state.sim._replace(**parts))


WRONG = {
    "the same noise at every step": (
        check_noise, changed(lambda state: with_sim(state, noise=state.sim.noise._replace(clock=jnp.int32(0)))),
    ),
    "the same noise in every lane": (
        check_noise, replace(noisy(), reset=lambda key: noisy().reset(jax.random.key(0))),
    ),
    "noise in every room": (
        check_noise, changed(lambda state: state._replace(obs=state.obs.at[4:].add(state.sim.noise.draw(NUMBERS)))),
    ),
    "noise of half the size": (check_noise, changed(lambda state: state._replace(obs=state.obs.at[4:].mul(0.5)))),
    "a button that does nothing": (check_button, changed(lambda state: with_sim(state, on=jnp.ones((), bool)))),
    "a television that is off": (check_button, changed(lambda state: with_sim(state, on=jnp.zeros((), bool)))),
    "a picture that is lost": (check_button, changed(lambda state: with_sim(state, picture=jnp.zeros(NUMBERS)))),
    "a quiet variant with noise": (check_quiet, noisy()),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_the_checks_find(wrong):
    check, env = WRONG[wrong]
    with pytest.raises(AssertionError):
        check(env)


# As any other environment


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    spec = make_env(name).env_spec
    assert (spec.id, spec.obs_dim, spec.action_dim, spec.episode_steps, spec.control_dt) == (name, 12, 2, 200, 1.0)
    assert spec.position == ("x", "y") and spec.exact_resume and not spec.obs_is_physics
    assert spec.physics == (
        ("xy", 2), ("velocity", 2), ("room", 1), ("television", 1), ("noise", 1), ("off", 1), ("rooms_visited", 1),
    )  # fmt: skip
    np.testing.assert_allclose(spec.obs_mean, 0, atol=1e-9)
    assert len(spec.obs_std) == 12 and np.shape(spec.walls) == (15, 15)
    free = np.argwhere(~WALLS)[:, ::-1] - 7.0
    points = free + np.random.default_rng(0).uniform(-0.5, 0.5, (2000, *free.shape))
    np.testing.assert_allclose(spec.obs_std[:2], points.std(axis=(0, 1)), rtol=0.01)
    assert make_env(name, episode_steps=7).env_spec.episode_steps == 7


@pytest.mark.parametrize("name", NAMES)
def test_the_host_plays_what_the_device_does_and_goes_on_from_a_state(name):
    host, other = (make_env(name, 3, episode_steps=30) for _ in range(2))
    device = make_device_env(name)
    obs, _ = host.reset(seed=5)
    state = jax.vmap(lambda lane: device.reset(jax.random.fold_in(jax.random.fold_in(jax.random.key(5), lane), 0)))(
        jnp.arange(3)
    )
    step = jax.jit(jax.vmap(device.step))
    for t, action in enumerate(everywhere(TO_TELEVISION + TO_BUTTON + [STAY] * 18, lanes=3)):
        np.testing.assert_array_equal(state.obs, obs)
        np.testing.assert_array_equal(state.physics, host.physics())
        np.testing.assert_array_equal(host.position(), host.physics()[:, :2])
        if t in (8, 14):  # In the noise, and with the picture that stays.
            np.testing.assert_array_equal(other.set_state(host.get_state()), obs)
        state = step(state, jnp.asarray(action, jnp.float32))
        obs, reward, terminated, truncated, _ = host.step(action)
        assert not reward.any() and not terminated.any()
        if t >= 8:
            np.testing.assert_array_equal(other.step(action)[0], obs)
    assert truncated.all() and (host.physics()[:, 5] == 0).all()
    again = host.reset()[0], other.reset()[0]  # The next episode: the television is on again.
    np.testing.assert_array_equal(*again)
    assert (host.physics()[:, 5] == 1).all()


@pytest.mark.parametrize("make", [make_env, make_device_env])
def test_a_bad_name_gets_one_sentence(make):
    with pytest.raises(UserError, match=r"^Unknown environment 'tv:room': did you mean 'tv:rooms'\?$"):
        make("tv:room")
    with pytest.raises(UserError, match="'tv:rooms' has no option root_position"):
        make_env("tv:rooms", root_position=True)
