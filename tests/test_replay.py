"""The ring, its parts, and what a batch says of episode ends."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urlrl.data.replay import Replay
from urlrl.data.rows import transition_fields, z_field
from urlrl.data.shards import Shard, ShardFolder
from urlrl.errors import UserError
from urlrl.types import BatchSpec, EnvSpec, Goals

FIELDS = transition_fields(EnvSpec("toy", 3, 2, 10, 0.1), z_field(2))


def make_rows(begin: int, end: int) -> dict[str, np.ndarray]:
    """Rows that carry their own global index in every field."""
    index = np.arange(begin, end)
    rows = {k: np.zeros((len(index), *shape), dtype) for k, (shape, dtype) in FIELDS.items()}
    for name in ("obs", "action", "z"):
        rows[name][:] = index[:, None]
    rows["next_obs"][:] = index[:, None] + 0.5
    rows["reward"][:] = index
    rows["terminated"][:] = index % 7 == 6
    rows["truncated"][:] = index % 7 == 3
    return rows


@given(st.integers(1, 20), st.lists(st.integers(1, 20), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_ring_keeps_the_last_transitions_whole(capacity, sizes):
    replay, total = Replay(capacity, FIELDS), 0
    for n in sizes:
        n = min(n, capacity)
        replay.add(make_rows(total, total + n))
        total += n
    rows = replay.read(total - len(replay), total)
    np.testing.assert_array_equal(rows["reward"], np.arange(total - len(replay), total))
    for name in ("obs", "action", "z"):
        np.testing.assert_array_equal(rows[name][:, 0], rows["reward"])
    np.testing.assert_array_equal(rows["next_obs"][:, 0], rows["reward"] + 0.5)
    with pytest.raises(IndexError):
        replay.read(total - len(replay) - 1, total)


def test_samples_are_uniform_over_the_filled_part_and_keep_transitions_together():
    replay = Replay(100, FIELDS)
    replay.add(make_rows(0, 50))
    batch = replay.sample(jax.random.key(0), 40, BatchSpec(size=250))
    counts = np.bincount(batch.reward.astype(int).ravel(), minlength=100)
    assert counts[:50].min() > 120 and counts[50:].sum() == 0  # 10,000 draws over 50 rows
    np.testing.assert_array_equal(batch.obs[..., 0], batch.reward)
    np.testing.assert_array_equal(batch.next_obs[..., 0], batch.reward + 0.5)
    np.testing.assert_array_equal(batch.z[..., 0], batch.reward)


def test_the_last_slot_of_a_full_ring_is_used():
    replay = Replay(8, FIELDS)
    replay.add(make_rows(0, 8))
    assert set(np.unique(replay.sample(jax.random.key(0), 10, BatchSpec(size=100)).reward)) == set(range(8))


def test_a_batch_takes_as_much_from_each_part():
    """Of six environments in three parts, the environments of one stand together in the batch."""
    replay = Replay(24, FIELDS, lanes=6, parts=3)
    replay.add(make_rows(0, 24))
    replay.add(make_rows(24, 36))
    index = replay.sample(jax.random.key(0), 50, BatchSpec(size=12)).reward.astype(int)
    np.testing.assert_array_equal(index % 6 // 2, np.tile(np.repeat(range(3), 4), (50, 1)))
    assert set(np.unique(index)) == set(range(12, 36))


def episode_ahead(index: int, lanes: int, total: int) -> int:
    """Transitions of the same episode after this one, by looking."""
    left = 0
    while index % 7 not in (3, 6) and index + lanes < total:
        index, left = index + lanes, left + 1
    return left


@pytest.mark.parametrize(("lanes", "parts", "total"), [(1, 1, 17), (2, 1, 38), (4, 2, 20), (4, 4, 40), (6, 3, 66)])
def test_goals_are_later_states_of_the_same_episode(lanes, parts, total):
    """In a ring that is not full, full, and has come round several times."""
    replay = Replay(24, FIELDS, lanes, parts)
    for begin in range(0, total, lanes):
        replay.add(make_rows(begin, begin + lanes))
    spec = BatchSpec(size=60, goals=Goals(gamma=0.6, random=0.3, current=0.2), futures=2, future_gamma=0.6)
    batch = replay.sample(jax.random.key(1), 50, spec)
    index, steps = batch.reward.astype(int), batch.goal_steps
    left = np.vectorize(episode_ahead)(index, lanes, total)
    ahead, now, anywhere = steps > 0, steps == 0, steps == -1
    np.testing.assert_array_equal(batch.goal[now], batch.obs[now])
    np.testing.assert_array_equal(batch.goal[ahead][:, 0], (index + (steps - 1) * lanes)[ahead] + 0.5)
    assert (steps[ahead] <= left[ahead] + 1).all() and (steps[ahead] == left[ahead] + 1).any()
    assert set(np.unique(batch.goal[anywhere][:, 0] - 0.5)) == set(range(total - len(replay), total))
    own = 0.3 / len(replay)  # Of the random goals, those that are obs itself.
    assert abs(anywhere.mean() - 0.3) < 0.03 + own and abs(now.mean() - 0.2) < 0.03 + own
    # Geometric as far as the episode goes.
    first = steps[ahead & (left > 0)] == 1
    assert abs(first.mean() - 0.4) < 0.06
    later = (batch.future[..., 0] - 0.5 - index[..., None]) / lanes
    assert (later >= 0).all() and (later <= left[..., None]).all() and later.max() > 0


def test_no_goal_lies_beyond_a_cut():
    replay = Replay(24, FIELDS, lanes=2)
    replay.add(make_rows(0, 10))
    replay.cut()
    replay.add(make_rows(10, 20))
    batch = replay.sample(jax.random.key(0), 20, BatchSpec(size=50, goals=Goals(gamma=1, random=0)))
    crossed = (batch.reward < 10) & (batch.goal[..., 0] > 10)
    assert not crossed.any() and (batch.goal[..., 0] > 10).any()


@pytest.mark.parametrize("timeout_as_terminal", [False, True])
def test_time_limits_end_the_future_only_where_the_agent_says_so(timeout_as_terminal):
    replay = Replay(70, FIELDS)
    replay.add(make_rows(0, 70))
    batch = replay.sample(jax.random.key(0), 1, BatchSpec(500, timeout_as_terminal))
    index = batch.reward.astype(int)
    np.testing.assert_array_equal(batch.discount[index % 7 == 6], 0.0)
    np.testing.assert_array_equal(batch.discount[index % 7 == 3], 0.0 if timeout_as_terminal else 1.0)
    np.testing.assert_array_equal(batch.discount[(index % 7 != 6) & (index % 7 != 3)], 1.0)


def test_physics_is_stored_where_the_observation_does_not_hold_it():
    layout = (("qpos", 2), ("qvel", 2))
    inside = transition_fields(EnvSpec("a", 4, 1, 10, 0.1, physics=layout, obs_is_physics=True), z_field(2))
    beside = transition_fields(EnvSpec("b", 3, 1, 10, 0.1, physics=layout), z_field(2))
    assert "physics" not in inside
    assert beside["physics"] == beside["next_physics"] == ((4,), np.dtype(np.float64))


@pytest.fixture
def shards(tmp_path):
    return ShardFolder(tmp_path / "replay", FIELDS, num_envs=2)


def test_shards_give_back_the_last_rows(shards):
    written = [shards.write(a, make_rows(a, b)) for a, b in ((0, 10), (10, 30), (30, 35))]
    assert [s.file for s in written] == [
        "000000000000-000000000010.safetensors",
        "000000000010-000000000030.safetensors",
        "000000000030-000000000035.safetensors",
    ]
    for count in (1, 5, 6, 25, 26, 35, 100):
        expected = make_rows(max(0, 35 - count), 35)
        for name, column in shards.read_last(written, count).items():
            np.testing.assert_array_equal(column, expected[name])


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "empty"])
def test_a_damaged_shard_is_named(shards, damage):
    shard = shards.write(0, make_rows(0, 10))
    path = shards.folder / shard.file
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "delete":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "truncate" else 0])
    with pytest.raises(UserError, match=shard.file):
        shards.read(shard)


def test_a_shard_of_other_sizes_is_refused(shards, tmp_path):
    shard = shards.write(0, make_rows(0, 10))
    other = ShardFolder(shards.folder, transition_fields(EnvSpec("toy", 4, 2, 10, 0.1), z_field(2)), 2)
    with pytest.raises(UserError, match="expected"):
        other.read(shard)


def test_shards_that_no_checkpoint_knows_are_removed(shards):
    kept = shards.write(0, make_rows(0, 10))
    shards.write(10, make_rows(10, 20))
    (shards.folder / ".000000000010-000000000020.safetensors.part").write_bytes(b"half")
    shards.keep_only([kept])
    assert [p.name for p in shards.folder.iterdir()] == [kept.file]
    assert Shard(**kept.to_json()) == kept
