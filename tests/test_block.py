"""The corridor with televisions, and what adversarial surprise, the entropy maximiser and the surprise minimiser do in
it when they plan perfectly: nothing is learned here, everything is counted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from urlrl.envs import make_device_env, make_env
from urlrl.envs.block import CELLS, DARK, MOVES, NOISE, has_television
from urlrl.errors import UserError
from urlrl.learners.densities import DirichletCategorical

LEFT, STAY, RIGHT = np.eye(3, dtype=bool)
TELEVISIONS = [2, 5, 8, 11, 14, 17]


# --- The environment --------------------------------------------------------------------------------------------------


def walk(name: str, actions: list, lanes: int = 3, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Symbols (T + 1, lanes) and cells (T + 1, lanes) of these actions in all lanes."""
    env = make_env(name, lanes)
    obs, _ = env.reset(seed=seed)
    seen, cells = [obs], [env.position()[:, 0]]
    for action in actions:
        obs, reward, terminated, _, _ = env.step(np.tile(action, (lanes, 1)))
        assert not reward.any() and not terminated.any()
        seen.append(obs)
        cells.append(env.position()[:, 0])
    seen = np.stack(seen)
    assert ((seen == 0) | (seen == 1)).all() and (seen.sum(axis=-1) == 1).all()
    return seen.argmax(axis=-1), np.stack(cells)


def test_cells_are_in_a_line_with_a_television_in_every_third():
    symbols, cells = walk("block:line18", [RIGHT] * 20 + [STAY] + [LEFT] * 20)
    there = np.minimum(np.arange(21), CELLS - 1)
    np.testing.assert_array_equal(cells[:, 0], np.concatenate([there, [17], np.arange(16, -1, -1), [0, 0, 0]]))
    assert np.flatnonzero(has_television(np.arange(CELLS))).tolist() == TELEVISIONS
    dark = ~has_television(cells)
    names = {cell: set(symbols[cells == cell]) for cell in range(CELLS) if cell not in TELEVISIONS}
    assert sorted(next(iter(name)) for name in names.values()) == list(range(DARK))  # Each its own, always the same.
    assert all(len(name) == 1 for name in names.values()) and (symbols[~dark] >= DARK).all()


def test_physics_says_where_noise_is():
    for name, noise in (("block:line18_loud", [0, 0, -1, 0, 0, -1]), ("block:line18_quiet", [0] * 6)):
        env = make_env(name)
        env.reset(seed=0)
        rows = [env.physics()[0]]
        for _ in range(5):
            env.step(RIGHT[None])
            rows.append(env.physics()[0])
        np.testing.assert_array_equal(rows, np.stack([np.arange(6), noise], axis=1))


def test_a_television_never_repeats_itself_and_is_another_in_each_episode():
    symbols, cells = walk("block:line18", [RIGHT, RIGHT] + [STAY] * (NOISE - 2))
    shown = symbols[2:]
    assert (cells[2:] == 2).all() and all(len(set(lane)) == NOISE - 1 for lane in shown.T)
    assert len({tuple(lane) for lane in shown.T}) == 3
    quiet, cells = walk("block:line18_quiet", [RIGHT] * 17 + [STAY] * 5)
    assert len({*quiet[:18, 0]}) == CELLS and (quiet[17:] == quiet[17]).all()  # The same episode without noise.


def test_a_loud_television_shows_noise_twice_and_the_dark_a_blank():
    env = make_env("block:line18_loud", 2)
    seen = [env.reset(seed=0)[0]] + [env.step(np.tile(RIGHT, (2, 1)))[0] for _ in range(CELLS)]
    first, second = np.stack(seen).reshape(CELLS + 1, 2, 2, -1).argmax(axis=-1).transpose(2, 0, 1)
    on = has_television(np.minimum(np.arange(CELLS + 1), CELLS - 1))
    assert (first[on] >= DARK).all() and (second[on] >= DARK).all() and (first[on] != second[on]).any()
    assert (second[~on] == 0).all() and sorted(first[~on][:, 0]) == list(range(DARK))
    quiet = make_env("block:line18_loud_quiet", 2)
    quiet.reset(seed=0)
    again = np.stack([quiet.step(np.tile(RIGHT, (2, 1)))[0] for _ in range(4)])[1:3]  # At the first television, and on.
    assert (again[:, 0].reshape(2, 2, -1).argmax(axis=-1) == [[DARK, 0], [2, 0]]).all()


@pytest.mark.parametrize("name", ["block:line18", "block:line18_loud_quiet"])
def test_the_host_plays_what_the_device_does_and_goes_on_from_a_state(name):
    host, other, device = make_env(name, 4, episode_steps=9), make_env(name, 4, episode_steps=9), make_device_env(name)
    assert replace(device.env_spec, episode_steps=9) == host.env_spec and host.env_spec.exact_resume
    obs, _ = host.reset(seed=5)
    state = jax.vmap(lambda lane: device.reset(jax.random.fold_in(jax.random.fold_in(jax.random.key(5), lane), 0)))(
        jnp.arange(4)
    )
    rng, step = np.random.default_rng(0), jax.jit(jax.vmap(device.step))
    for t in range(9):
        np.testing.assert_array_equal(state.obs, obs)
        np.testing.assert_array_equal(state.position, host.position())
        np.testing.assert_array_equal(state.physics, host.physics())
        if t == 4:
            np.testing.assert_array_equal(other.set_state(host.get_state()), obs)
        action = np.eye(3, dtype=bool)[rng.integers(3, size=4)]
        state = step(state, jnp.asarray(action))
        obs, _, _, truncated, _ = host.step(action)
        if t >= 4:
            np.testing.assert_array_equal(other.step(action)[0], obs)
    assert truncated.all()


@pytest.mark.parametrize("make", [make_env, make_device_env])
def test_bad_names_and_lengths_get_one_sentence(make):
    with pytest.raises(UserError, match="Unknown environment 'block:line9': did you mean 'block:line18'"):
        make("block:line9")
    with pytest.raises(UserError, match="episode_steps is 129: expected at most 128 in 'block:line18'"):
        make("block:line18", episode_steps=129)


# --- Perfect planners -----------------------------------------------------------------------------------------------

ALPHA, SYMBOLS, ROUNDS, SEEDS = 0.1, 100, 16, 10


@dataclass(frozen=True)
class Play:
    """Explore and Control plan perfectly: Control maximises the log-probability of what it sees in its turn, fitted as
    it goes; Explore hands over where Control's best is worst. `reach` is how far each walks in a turn."""

    explore: int = 4  # steps of Explore's turn
    control: int = 4
    grace: int = 0  # first steps of Control's turn that do not count
    forget: bool = False  # clear what was seen at every turn
    deep: int = 0  # a television holds who enters it for so many steps
    still: tuple[str, ...] = ()  # players who never move
    score_first: bool = True  # False: the wrong order, what is seen is inserted before it is scored


class Seen:
    """What was seen in the episode, by cell, the start at first: the symbol of a television is never seen again."""

    def __init__(self, start: bool = True):
        self.counts, self.n = [0] * CELLS, 0
        if start:
            self.insert(0)

    def insert(self, cell: int) -> None:
        self.counts[cell] += cell % 3 != 2
        self.n += 1

    def remove(self, cell: int) -> None:
        self.counts[cell] -= cell % 3 != 2
        self.n -= 1

    def log_p(self, cell: int) -> float:
        return float(np.log((self.counts[cell] + ALPHA) / (self.n + ALPHA * SYMBOLS)))


def moves(cell: int, held: int) -> list[int]:
    return [cell] if held else sorted({min(max(cell + move, 0), CELLS - 1) for move in MOVES})


def best_paths(
    cell: int, steps: int, grace: int, seen: Seen, sign: int, play: Play, held: int = 0
) -> tuple[float, list]:
    """The largest sum of sign * log p over the counted steps of a path from `cell`, and all paths that have it."""
    if not steps:
        return 0.0, [()]
    best, paths = -np.inf, list[tuple]()
    for to in moves(cell, held):
        score = 0.0
        if grace <= 0:
            if not play.score_first:
                seen.insert(to)
            score = sign * seen.log_p(to)
            if play.score_first:
                seen.insert(to)
        hold = max(held - 1, 0) if held else (play.deep if to % 3 == 2 else 0)
        value, rest = best_paths(to, steps - 1, grace - 1, seen, sign, play, hold)
        if grace <= 0:
            seen.remove(to)
        if score + value > best + 1e-9:
            best, paths = score + value, []
        if score + value > best - 1e-9:
            paths += [(to, *tail) for tail in rest]
    return best, paths


@dataclass
class Played:
    cells: int  # that were visited
    growth: list[int]  # cells by round
    televisions: float  # share of the counted player's steps
    handovers: list[int]  # cells
    returns: float  # sum of log p that Control was paid


def control_turn(cell: int, seen: Seen, play: Play) -> tuple[float, list]:
    if "control" in play.still:
        path, total = (cell,) * play.control, 0.0
        for i, to in enumerate(path):
            total += seen.log_p(to) if i >= play.grace else 0.0
            if i >= play.grace:
                seen.insert(to)
        for to in path[play.grace :]:
            seen.remove(to)
        return total, [path]
    return best_paths(cell, play.control, play.grace, seen, 1, play, play.deep if cell % 3 == 2 else 0)


def game(play: Play, seed: int, rounds: int = ROUNDS) -> Played:
    rng, seen, cell = np.random.default_rng(seed), Seen(), 0
    visited, growth, on, handovers, returns = {0}, [], [], [], 0.0
    for _ in range(rounds):
        if play.forget:
            seen = Seen(start=False)
        reach = (
            [cell]
            if "explore" in play.still
            else range(max(0, cell - play.explore), min(CELLS - 1, cell + play.explore) + 1)
        )
        worth = {at: control_turn(at, seen, play)[0] for at in reach}
        worst = [at for at, value in worth.items() if value < min(worth.values()) + 1e-9]
        handover = worst[rng.integers(len(worst))]
        visited |= set(range(min(cell, handover), max(cell, handover) + 1))
        value, paths = control_turn(handover, seen, play)
        path = paths[rng.integers(len(paths))]
        for to in path[play.grace :]:
            seen.insert(to)
        visited |= set(path)
        on += [to % 3 == 2 for to in path]
        cell, returns = path[-1], returns + value
        handovers.append(handover)
        growth.append(len(visited))
    return Played(len(visited), growth, float(np.mean(on)), handovers, returns)


def alone(sign: int, seed: int, blocks: int = 2 * ROUNDS) -> Played:
    """One policy that plans blocks of 4 steps, each of which counts: sign 1 minimises surprise, -1 maximises it."""
    rng, seen, cell = np.random.default_rng(seed), Seen(), 0
    visited, growth, on, returns = {0}, [], [], 0.0
    for _ in range(blocks):
        value, paths = best_paths(cell, 4, 0, seen, sign, Play())
        path = paths[rng.integers(len(paths))]
        for to in path:
            seen.insert(to)
        visited |= set(path)
        on += [to % 3 == 2 for to in path]
        cell, returns = path[-1], returns + sign * value
        growth.append(len(visited))
    return Played(len(visited), growth, float(np.mean(on)), [], returns)


@cache
def games(play: Play) -> list[Played]:
    return [game(play, seed) for seed in range(SEEDS)]


@cache
def singles(sign: int) -> list[Played]:
    return [alone(sign, seed) for seed in range(SEEDS)]


def test_the_planners_density_is_the_agents():
    """And its counts are those of what was seen."""
    density, seen = DirichletCategorical(SYMBOLS, SYMBOLS, alpha=ALPHA), Seen(start=False)
    theta = density.init()
    for i, cell in enumerate([0, 0, 1, 2, 2, 3, 0]):
        symbol = SYMBOLS - 1 - i if cell % 3 == 2 else cell
        x = jnp.eye(SYMBOLS)[symbol]
        assert float(density.log_prob(theta, x)) == pytest.approx(seen.log_p(cell), rel=1e-5)
        theta = density.update(theta, x)
        seen.insert(cell)


def check_covers(play: Play) -> None:
    """At least 16 of 18 cells for every seed, most of them in the first rounds; Control hardly watches television."""
    played = games(play)
    assert min(result.cells for result in played) >= 16
    assert np.mean([result.televisions for result in played]) < 0.1
    assert np.mean([result.growth[4] for result in played]) > 14


def test_adversarial_surprise_visits_the_corridor():
    check_covers(Play())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(Play(grace=2), id="Control walks home for free"),
        pytest.param(Play(forget=True), id="no memory of earlier turns"),
        pytest.param(Play(deep=8), id="televisions that hold who enters"),
    ],
)
def test_the_check_of_coverage_finds(wrong):
    with pytest.raises(AssertionError):
        check_covers(wrong)


def check_trapped(played: list[Played]) -> None:
    assert min(result.televisions for result in played) >= 0.9


def test_the_entropy_maximiser_watches_television():
    check_trapped(singles(-1))
    with pytest.raises(AssertionError):
        check_trapped(games(Play()))  # Wrong: adversarial surprise is no entropy maximiser.


def check_stays(played: list[Played]) -> None:
    assert {result.cells for result in played} == {1}


def test_the_surprise_minimiser_never_leaves():
    check_stays(singles(1))
    with pytest.raises(AssertionError):
        check_stays(singles(-1))


def test_adversarial_surprise_is_above_entropy_is_above_the_minimiser():
    adversarial, entropy, minimiser = (
        np.mean([result.cells for result in played]) for played in (games(Play()), singles(-1), singles(1))
    )
    assert adversarial > entropy + 4 and entropy > minimiser + 4


def test_grace_needs_an_explorer_with_more_reach():
    """With half of Control's turn free, Control walks back to where it was; a longer turn of Explore repairs it."""
    assert max(result.cells for result in games(Play(grace=2))) <= 11
    for explore in (6, 8):
        assert min(result.cells for result in games(Play(grace=2, explore=explore))) >= 16


def check_memory(play: Play) -> None:
    """Some seed is left far below what a memory reaches."""
    assert min(result.cells for result in games(play)) <= 14


def test_without_memory_coverage_is_unreliable():
    check_memory(Play(forget=True))
    with pytest.raises(AssertionError):
        check_memory(Play())


# --- Where it fails, and why ---------------------------------------------------------------------------------------


def late_on_television(play: Play) -> float:
    """The share of the last half of hand-overs that are at a television."""
    return float(np.mean([[at % 3 == 2 for at in result.handovers[ROUNDS // 2 :]] for result in games(play)]))


def check_trap(play: Play) -> None:
    assert late_on_television(play) > 0.9


def test_explore_hands_over_in_noise_that_control_cannot_leave():
    """The failure condition: televisions that hold who enters for twice Control's turn."""
    check_trap(Play(deep=8))
    with pytest.raises(AssertionError):
        check_trap(Play())  # Noise that can be left is not worth a hand-over.


def check_minimiser(play: Play) -> None:
    """Control's returns are those of the surprise minimiser in as many counted steps."""
    for seed in range(3):
        returns = alone(1, seed, blocks=ROUNDS).returns
        assert game(play, seed).returns == pytest.approx(returns, rel=1e-9)


def test_control_under_an_explorer_that_stands_still_is_the_surprise_minimiser():
    check_minimiser(Play(still=("explore",)))
    with pytest.raises(AssertionError):
        check_minimiser(Play())
    with pytest.raises(AssertionError):
        check_minimiser(Play(still=("explore",), score_first=False))  # What is scored after the insertion pays more.


def test_explore_under_a_control_that_stands_still_seeks_the_noise():
    check_trap(Play(still=("control",)))


def check_noise_is_a_constant(density_of: Callable[[], DirichletCategorical], code: Callable) -> None:
    """Noise dimensions everywhere change Control's reward by a constant in expectation, whatever it does: the mean
    difference is the same for a path that stays and for one that walks. `code(cell, noise)` is the observation."""
    rng, lanes, steps = np.random.default_rng(0), 2000, 12
    density, plain = density_of(), DirichletCategorical(CELLS, CELLS)

    def rewards(density, rows):
        def step(theta, x):
            return density.update(theta, x), density.log_prob(theta, x)

        return jax.lax.scan(step, density.init(), rows)[1]

    differences = []
    for path in (np.zeros(steps, int), np.arange(steps)):
        noise = rng.integers(4, size=(lanes, steps))
        noisy = jax.jit(jax.vmap(lambda rows: rewards(density, rows)))(jnp.float32(code(path[None], noise)))
        clean = rewards(plain, jnp.eye(CELLS)[path])
        differences.append(np.asarray(noisy - clean[None]).sum(axis=1))
    (stays, walks), error = (d.mean() for d in differences), sum(d.var() / lanes for d in differences) ** 0.5
    assert abs(stays - walks) < 4 * error


def factored(cell, noise):
    cells = np.broadcast_to(np.eye(CELLS)[cell], (*noise.shape, CELLS))
    return np.concatenate([cells, np.eye(CELLS)[noise]], axis=-1)  # Groups are of one size.


def joint(cell, noise):
    return np.eye(CELLS * 4)[4 * cell + noise]


def test_noise_everywhere_adds_a_constant():
    check_noise_is_a_constant(lambda: DirichletCategorical(2 * CELLS, CELLS), factored)


def test_the_check_of_noise_finds_a_density_of_pairs():
    """One symbol for each pair of cell and noise: noise makes a known cell look new."""
    with pytest.raises(AssertionError):
        check_noise_is_a_constant(lambda: DirichletCategorical(4 * CELLS, 4 * CELLS), joint)
