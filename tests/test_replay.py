"""The ring, its shards, and what a batch says of episode ends."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urlrl.data.replay import Replay, sample_slots, transition_fields
from urlrl.data.shards import Shard, ShardFolder
from urlrl.errors import UserError
from urlrl.types import BatchSpec, EnvSpec

FIELDS = transition_fields(EnvSpec("toy", 3, 2, 10, 0.1), z_dim=2)


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
    slots = sample_slots(jax.random.key(0), 10, 100, 8)
    assert set(np.unique(slots)) == set(range(8))


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
    inside = transition_fields(EnvSpec("a", 4, 1, 10, 0.1, physics=layout, obs_is_physics=True), 2)
    beside = transition_fields(EnvSpec("b", 3, 1, 10, 0.1, physics=layout), 2)
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
    other = ShardFolder(shards.folder, transition_fields(EnvSpec("toy", 4, 2, 10, 0.1), 2), 2)
    with pytest.raises(UserError, match="expected"):
        other.read(shard)


def test_shards_that_no_checkpoint_knows_are_removed(shards):
    kept = shards.write(0, make_rows(0, 10))
    shards.write(10, make_rows(10, 20))
    (shards.folder / ".000000000010-000000000020.safetensors.part").write_bytes(b"half")
    shards.keep_only([kept])
    assert [p.name for p in shards.folder.iterdir()] == [kept.file]
    assert Shard(**kept.to_json()) == kept
