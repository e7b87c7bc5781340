"""What is drawn of stored rows: laws of the draws by counting, and one meaning for ring and dataset."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_tools import LENGTHS, QUIET, make_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from urlrl.data.dataset import DatasetInfo, Episode, Episodes, draw_rows, write_dataset
from urlrl.data.draw import Drawn, draw, gather
from urlrl.data.replay import Replay, Slots
from urlrl.data.rows import transition_fields, z_field
from urlrl.errors import UserError
from urlrl.types import BatchSpec, EnvSpec, Goals

SPEC = BatchSpec(size=512, goals=Goals(gamma=0.9))
AHEAD = replace(SPEC, goals=Goals(gamma=0.9, random=0.0))


def starts_of(lengths) -> np.ndarray:
    return np.cumsum([0, *(length + 1 for length in lengths)]).astype(np.int32)


class States(NamedTuple):
    """Rows of the states that were drawn, in a dataset: its row i and the next are the ends of transition i."""

    row: np.ndarray
    goal: np.ndarray
    steps: np.ndarray


def states(lengths, spec: BatchSpec, seed: int = 0, num_batches: int = 2) -> States:
    space = Episodes(jnp.asarray(starts_of(lengths)))
    drawn = jax.tree.map(np.asarray, draw_rows(jax.random.key(seed), (num_batches, spec.size), spec, space))
    return States(drawn.row, np.where(drawn.goal_steps == 0, drawn.row, drawn.goal + 1), drawn.goal_steps)


def lasts(starts: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The last row of each row's episode."""
    return starts[np.searchsorted(starts, row, side="right")] - 1


@settings(QUIET, max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(0, 2**31 - 1))
def test_goals_of_the_trajectory_lie_ahead_in_it(lengths, seed):
    row, goal, steps = states(lengths, AHEAD, seed)
    last = lasts(starts_of(lengths), row)
    assert row.shape == (2, 512) and (row >= 0).all() and (row < last).all()  # No last row begins a transition.
    assert (goal > row).all() and (goal <= last).all()
    np.testing.assert_array_equal(steps, goal - row)


@settings(QUIET, max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.integers(0, 2**31 - 1))
def test_a_random_goal_is_any_state_that_was_reached_and_0_steps_away_where_it_is_obs(lengths, seed):
    row, goal, steps = states(lengths, replace(SPEC, goals=Goals(random=1.0)), seed)
    assert set(np.unique(goal)) <= set(range(1, sum(lengths) + 4)) - set(starts_of(lengths).tolist())
    np.testing.assert_array_equal(steps, np.where(goal == row, 0, -1))


def test_current_goals_are_obs_itself():
    row, goal, steps = states(LENGTHS, replace(SPEC, goals=Goals(random=0.0, current=1.0)))
    np.testing.assert_array_equal(goal, row)
    assert not steps.any()


def test_transitions_and_random_goals_are_uniform():
    starts, spec = starts_of(LENGTHS), BatchSpec(size=2100, goals=Goals(random=1.0))
    row, goal, _ = states(LENGTHS, spec, num_batches=100)
    for drawn, never in ((row, starts[1:] - 1), (goal, starts[:-1])):
        counts = np.bincount(drawn.ravel(), minlength=25)
        assert not counts[never].any()
        np.testing.assert_allclose(np.delete(counts, never), 10_000, atol=5 * 100)  # 5 standard deviations


LONG = [40, 3, 17, 200, 1, 39]


def check_goals(drawn: States) -> None:
    """Offsets are Geom(1 - gamma) cut off at the trajectory's end, .375 +- .01 are random, and none of the others
    crosses a boundary. (HILP's specification, 6.2.)"""
    row, goal, steps = (part.ravel() for part in drawn)
    random = (steps < 0) | (steps == 0)
    assert abs(random.mean() - 0.375) < 0.01
    offset, room = (goal - row)[~random], (lasts(starts_of(LONG), row) - row)[~random]
    assert (offset <= room).all() and (offset >= 0).all()
    gamma, many = 0.9, 30
    expected = [((1 - gamma) * gamma ** (k - 1) * (k < room) + gamma ** (k - 1) * (k == room)).mean()
                for k in range(1, many)]  # fmt: skip
    found = np.bincount(offset, minlength=many)[1:many] / len(offset)
    np.testing.assert_allclose(found, expected, atol=0.004)


def uniform_offsets(drawn: States) -> States:
    ahead = np.random.default_rng(0).integers(1, lasts(starts_of(LONG), drawn.row) - drawn.row + 1)
    return drawn._replace(goal=np.where(drawn.steps < 1, drawn.goal, drawn.row + ahead))


WRONG_GOALS = {
    "one step short": lambda drawn: drawn._replace(goal=drawn.goal - (drawn.steps > 0)),
    "across the boundary": lambda drawn: drawn._replace(goal=drawn.goal + 20 * (drawn.steps > 0)),
    "uniform in the rest of the episode": uniform_offsets,
    "half of them random": lambda drawn: drawn._replace(
        steps=np.where(np.arange(drawn.row.size).reshape(drawn.row.shape) % 5 == 0, -1, drawn.steps)
    ),
}


@pytest.fixture(scope="module")
def many():
    return states(LONG, SPEC, seed=3, num_batches=300)


def test_how_goals_are_distributed(many):
    check_goals(many)


@pytest.mark.parametrize("wrong", WRONG_GOALS)
def test_wrong_goals_are_noticed(many, wrong):
    with pytest.raises(AssertionError):
        check_goals(WRONG_GOALS[wrong](many))


@pytest.mark.parametrize(("gamma", "offset"), [(0.0, 1), (1.0, None)])
def test_the_ends_of_gamma(gamma, offset):
    row, goal, _ = states(LENGTHS, replace(SPEC, goals=Goals(gamma=gamma, random=0.0)))
    np.testing.assert_array_equal(goal, row + offset if offset else lasts(starts_of(LENGTHS), row))


def test_futures_are_geometric_in_the_episode():
    spec, starts = BatchSpec(size=2000, futures=5, future_gamma=0.5), starts_of([30, 2])
    drawn = draw_rows(jax.random.key(0), (10, 2000), spec, Episodes(jnp.asarray(starts)))
    row, future = np.asarray(drawn.row)[..., None], np.asarray(drawn.future) + 1
    last = lasts(starts, row)
    assert future.shape == (10, 2000, 5) and (future > row).all() and (future <= last).all()
    far = np.broadcast_to(last - row > 10, future.shape)
    counts = np.bincount((future - row)[far])[1:6]
    np.testing.assert_allclose(counts / far.sum(), 0.5 ** np.arange(1, 6), atol=0.01)


def test_a_dataset_is_gathered_by_what_is_drawn(tmp_path):
    dataset = make_dataset(tmp_path / "set")
    spec = replace(SPEC, size=16)
    batch, (row, goal, steps) = dataset.sample(jax.random.key(1), 3, spec), states(LENGTHS, spec, 1, 3)
    np.testing.assert_array_equal(batch.obs[..., 0], row)
    np.testing.assert_array_equal(batch.next_obs[..., 0], row + 1)
    np.testing.assert_array_equal(batch.goal[..., 0], goal)
    np.testing.assert_array_equal(batch.goal_steps, steps)
    assert batch.reward.shape == (3, 16) and batch.z.shape == (3, 16, 0)
    assert dataset.sample(jax.random.key(2), 3, BatchSpec(size=16)).goal is None


# --- One meaning ------------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """A space whose rows are drawn by the number of the transition, so that two spaces draw the same ones."""

    space: Any
    rows: jax.Array  # of each transition

    def any_row(self, key, shape):
        return self.rows[jax.random.randint(key, shape, 0, self.rows.shape[0])]

    def steps_left(self, row):
        return self.space.steps_left(row)

    def ahead(self, row, steps):
        return self.space.ahead(row, steps)


FIELDS = transition_fields(EnvSpec("toy", 1, 1, None, 0.1), z_field(0))


def rings_and_dataset(folder, seed: int, lanes: int, steps: int, capacity: int):
    """A ring that has perhaps come round, and a dataset of the transitions that are in it, with rows by transition."""
    rng, ring = np.random.default_rng(seed), Replay(capacity * lanes, FIELDS, lanes)
    state = np.arange(lanes * (steps + 1), dtype=np.float32).reshape(steps + 1, lanes)  # a number for each
    for t in range(steps):
        ended, dies = rng.random(lanes) < 0.3, rng.random(lanes) < 0.5
        ended |= t == steps - 1  # What goes on in a ring is over in a dataset.
        ring.add(
            {"obs": state[t][:, None], "next_obs": state[t + 1][:, None], "action": np.zeros((lanes, 1), np.float32),
             "reward": state[t], "z": np.zeros((lanes, 0), np.float32), "terminated": ended & dies,
             "truncated": ended & ~dies}
        )  # fmt: skip
    held = ring.read(ring.total - len(ring), ring.total)
    first, episodes, slots, rows, row = ring.total - len(ring), [], [], [], 0
    for lane in range(lanes):
        mine = {name: column[lane::lanes] for name, column in held.items()}
        ends = np.flatnonzero(mine["terminated"] | mine["truncated"])
        for begin, end in zip([0, *(ends[:-1] + 1)], ends + 1):
            part = {name: column[begin:end] for name, column in mine.items()}
            obs = np.concatenate([part["obs"], part["next_obs"][-1:]])
            episodes.append(Episode(obs, part["action"], part["reward"], part["terminated"]))
            slots += [(first + t * lanes + lane) % ring.capacity for t in range(begin, end)]
            rows += [row + t for t in range(end - begin)]
            row += end - begin + 1
    dataset = write_dataset(folder, DatasetInfo("", "toy"), episodes)
    return ring, dataset, jnp.array(slots, jnp.int32), jnp.array(rows, jnp.int32)


@settings(QUIET, max_examples=30)
@given(
    seed=st.integers(0, 2**31 - 1),
    shape=st.sampled_from([(1, 12, 20), (2, 12, 9), (3, 12, 20), (3, 12, 7)]),  # lanes, steps, slots of each lane
    spec=st.builds(
        BatchSpec,
        size=st.just(64),
        timeout_as_terminal=st.booleans(),
        goals=st.none()
        | st.builds(
            lambda gamma, random, current: Goals(gamma, random, (1 - random) * current),
            st.sampled_from([0.0, 0.7, 1.0]), st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([0.0, 0.3]),
        ),
        futures=st.sampled_from([0, 3]),
        future_gamma=st.sampled_from([0.0, 0.8]),
    ),
)  # fmt: skip
def test_ring_and_dataset_draw_the_same_of_the_same_transitions(tmp_path_factory, seed, shape, spec):
    ring, dataset, slots, rows = rings_and_dataset(tmp_path_factory.mktemp("draw") / "set", seed, *shape)
    left = ring._steps_left(ring.lanes, np.int32(len(ring)))
    spaces = Slots(ring.lanes, np.int32(len(ring)), left), Episodes(jnp.asarray(dataset.to_draw.starts))
    batches = []
    for holder, space, where in zip((ring, dataset.to_draw), spaces, (slots, rows)):
        drawn: Drawn = draw(jax.random.key(seed), (2, 1, spec.size), spec, Told(space, where))
        batches.append(gather(holder, jax.tree.map(np.asarray, drawn), spec))
    jax.tree.map(np.testing.assert_array_equal, *batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goals": Goals(), "source": "rollout"}, "source is 'rollout': expected neither goals nor futures"),
        ({"whole_episodes": True}, "whole_episodes is True with source 'replay': expected source 'rollout'"),
        ({"futures": -1}, "futures is -1"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        BatchSpec(**options)
