"""Formats: what a reader makes of small files, how rows are aligned, and one sentence for each that is damaged."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_tools import (
    PHYSICS,
    assert_same_episodes,
    compact,
    d4rl_arrays,
    make_dataset,
    make_episodes,
    save_d4rl,
)
from run_tools import TINY, copy_of, transitions
from safetensors.numpy import load_file, save_file

import urlrl
from urlrl.agents.uniform import UniformConfig
from urlrl.data import d4rl, exorl, minari, ogbench
from urlrl.data.claims import Stream
from urlrl.data.dataset import Dataset, Episode, write_dataset
from urlrl.data.sources import detect
from urlrl.errors import UserError
from urlrl.training.run import RunFolder
from urlrl.types import EnvSpec
from urlrl.verbs.data import convert, export_data, info, open_source, validate

h5py = pytest.importorskip("h5py")

SPEC = EnvSpec("tiny", 3, 2, 10, None, physics=PHYSICS)


def episodes_of(path, **options) -> list[Episode]:
    return list(open_source(path, **options).episodes)


def pairs(episodes) -> Counter:
    """The multiset of (s, a, s', terminated)."""
    return Counter(
        (s.tobytes(), a.tobytes(), after.tobytes(), bool(ended))
        for episode in episodes
        for s, a, after, ended in zip(episode.obs, episode.action, episode.obs[1:], episode.terminated)
    )


def unlabelled(episodes, physics=True) -> list[Episode]:
    """The same without rewards and terminations, which not every format has."""
    return [
        episode._replace(
            reward=np.zeros_like(episode.reward),
            terminated=np.zeros_like(episode.terminated),
            physics=episode.physics if physics else None,
        )
        for episode in episodes
    ]


def refused(path: Path, said: str, **options) -> None:
    """Reading the path is a UserError that says this, on one line, and names a file that is there."""
    with pytest.raises(UserError) as raised:
        episodes_of(path, **options)
    assert said in str(raised.value) and "\n" not in str(raised.value) and str(path) in str(raised.value)


# --- ExORL ------------------------------------------------------------------------------------------------------------


def save_exorl(file: Path, steps=4, **changes) -> Path:
    """Observation t is [t, 10 t, 100 t], the action that led there [t / 10, -t / 10], its reward t."""
    t = np.arange(steps + 1.0)
    arrays = {
        "observation": np.stack([t, 10 * t, 100 * t], axis=1).astype(np.float32),
        "action": np.stack([t, -t], axis=1).astype(np.float32) / 10,
        "reward": t.astype(np.float32)[:, None],
        "discount": np.ones((steps + 1, 1), np.float32),
        "physics": np.stack([t, t + 0.1, t + 0.2, t + 0.3], axis=1),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return file


def check_alignment(episode: Episode) -> None:
    """Transition t is (observation[t-1], action[t], reward[t], observation[t]), of physics[t-1] and physics[t]."""
    for t in range(1, 5):
        np.testing.assert_array_equal(episode.obs[t - 1], np.float32([t - 1, 10 * (t - 1), 100 * (t - 1)]))
        np.testing.assert_array_equal(episode.obs[t], np.float32([t, 10 * t, 100 * t]))
        np.testing.assert_allclose(episode.action[t - 1], [t / 10, -t / 10], rtol=1e-6)
        assert episode.reward[t - 1] == t and episode.physics[t][0] == t


def test_exorl_is_aligned(tmp_path):
    save_exorl(tmp_path / "episode_000000_4.npz")
    (episode,) = episodes_of(tmp_path)
    check_alignment(episode)
    assert len(episode.action) == 4 and len(episode.obs) == len(episode.physics) == 5 and not episode.terminated.any()


MISALIGNED = {
    "the action of the state before": lambda e: e._replace(action=np.roll(e.action, 1, axis=0)),
    "the action of the state after": lambda e: e._replace(action=np.roll(e.action, -1, axis=0)),
    "the reward of the state before": lambda e: e._replace(reward=e.reward - 1),
    "physics a row early": lambda e: e._replace(physics=e.physics[1:]),
    "the reset's row kept": lambda e: e._replace(obs=np.concatenate([e.obs[:1], e.obs])),
}


@pytest.mark.parametrize("wrong", MISALIGNED)
def test_misalignment_is_noticed(tmp_path, wrong):
    save_exorl(tmp_path / "episode_000000_4.npz")
    with pytest.raises((AssertionError, IndexError)):
        check_alignment(MISALIGNED[wrong](episodes_of(tmp_path)[0]))


def test_what_exorl_is_written_is_read(tmp_path):
    data = make_dataset(tmp_path / "set")
    out = export_data(data.folder, tmp_path / "out", "exorl", quiet=True)
    assert_same_episodes(episodes_of(out), make_episodes())
    names = [file.name for file in exorl.find_files(out)]
    assert names == sorted(names) and names[0] == "episode_00000000_5.npz"
    with np.load(out / names[0]) as stored:
        assert set(stored.files) == {"observation", "action", "reward", "discount", "physics"}
        assert not stored["action"][0].any() and not stored["reward"][0].any() and stored["discount"][0] == 1
        assert stored["reward"].shape == (6, 1) and stored["physics"].dtype == np.float64


def test_exorl_is_read_by_index_from_its_buffer(tmp_path):
    for index in (10, 9, 100):
        save_exorl(tmp_path / "buffer" / f"episode_{index}_4.npz", reward=np.full((5, 1), index, np.float32))
    source = open_source(tmp_path)
    assert [episode.reward[0] for episode in source.episodes] == [9, 10, 100] and source.transitions == 12
    assert "by name its files are in another order" in " ".join(source.notes)


def test_exorl_with_several_rewards_and_an_end(tmp_path):
    reward, discount = np.arange(20, dtype=np.float32).reshape(5, 4), np.ones((5, 1), np.float32)
    discount[-1] = 0
    save_exorl(tmp_path / "episode_0_4.npz", reward=reward, discount=discount, physics=None)
    source = open_source(tmp_path)
    (episode,) = source.episodes
    np.testing.assert_array_equal(episode.reward, [4, 8, 12, 16])
    np.testing.assert_array_equal(episode.terminated, [False, False, False, True])
    assert episode.physics is None and source.info.physics == () and "4 rewards per transition" in source.notes[0]


@pytest.mark.parametrize(
    ("folder", "env"),
    [("walker/rnd/buffer", "dmc:walker_walk"), ("jaco/proto", "jaco:site_top_left"), ("walkers/rnd", "")],
)
def test_exorls_environment_is_the_folders(folder, env):
    assert exorl.guess_env(Path("/data") / folder) == env


NAN = np.full((5, 3), np.nan, np.float32)
BAD_EXORL = {
    "no reward": ({"reward": None}, "has no 'reward': found action, discount, observation, physics"),
    "objects": ({"observation": np.array([{}] * 5, object)}, "holds Python objects"),
    "words": ({"observation": np.array([["a"] * 3] * 5)}, "'observation' is <U1"),
    "another length": ({"observation": np.zeros((4, 3))}, "has 4 observations: expected 5"),
    "a column cut short": ({"action": np.zeros((4, 2), np.float32)}, "'action' has shape (4, 2): expected 5 rows"),
    "not a number": ({"observation": NAN}, "'observation' has nan in row 0: expected finite numbers"),
    "too large for float32": ({"reward": np.full((5, 1), 1e300)}, "'reward' has 1e+300"),
    "physics not finite": ({"physics": np.full((5, 4), np.inf)}, "'physics' has inf in row 0"),
    "actions beyond the bounds": (
        {"action": np.float32([[0, 0], [0, 1], [0, 0], [0, -1.001], [0, 0]])}, "has an action of -1.001 in step 2"),
    "an action in the reset's row": ({"action": np.full((5, 2), 0.5, np.float32)}, "'action' is not zero in row 0"),
    "frames": ({"observation": np.zeros((5, 3, 8, 8), np.uint8)}, "expected numbers in an array of 2 dimensions"),
    "a scalar": ({"discount": np.float32(1)}, "'discount' has shape ()"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_EXORL)
def test_bad_exorl_is_one_sentence(tmp_path, what):
    changes, said = BAD_EXORL[what]
    save_exorl(tmp_path / "episode_0_4.npz")
    save_exorl(tmp_path / "episode_1_4.npz", **changes)
    refused(tmp_path, said)


@pytest.fixture
def beyond(tmp_path):
    """Writes a file of one episode of 3 steps with these actions, and says where it is."""

    def save(*action) -> Path:
        arrays = d4rl_arrays(make_episodes((3,), physics=False))
        return save_d4rl(tmp_path / "beyond.hdf5", arrays | {"actions": np.float32(action)})

    return save


def test_what_rounding_puts_beyond_the_bounds_is_clipped_and_said(tmp_path, beyond, capsys):
    path = beyond([1 + 5e-7, 0.5], [-1 - 5e-7, 1], [0.25, 0])
    data = convert(path, tmp_path / "set")
    assert data.columns["action"][:3].tolist() == [[1, 0.5], [-1, 1], [0.25, 0]]
    said = "2 of 6 numbers of actions were beyond [-1, 1] by rounding: clipped."
    assert said in capsys.readouterr().out and said.rstrip(".") in [one.detail for one in validate(path)]
    assert said in info(path)["notes"]


def test_actions_beyond_the_bounds_are_clipped_or_scaled_where_that_is_asked_for(tmp_path, beyond, capsys):
    path = beyond([1.5, 0.5], [-4, 1], [0.25, 0])
    said = "episode 0 has an action of 1.5 in step 0: expected actions in [-1, 1]; `urlrl data convert` takes "
    refused(path, said + "--action-scale and --clip-actions.")
    clipped = convert(path, tmp_path / "clipped", clip_actions=True)
    assert clipped.columns["action"][:3].tolist() == [[1, 0.5], [-1, 1], [0.25, 0]]
    assert "2 of 6 numbers of actions were beyond [-1, 1], by at most 3: clipped." in capsys.readouterr().out
    assert clipped.info.source == f"{path} (D4RL), actions clipped"
    scaled = convert(path, tmp_path / "scaled", action_scale=4.0)
    assert scaled.columns["action"][:3].tolist() == [[0.375, 0.125], [-1, 0.25], [0.0625, 0]]
    assert "clipped" not in capsys.readouterr().out and scaled.info.source == f"{path} (D4RL), actions divided by 4"
    refused(path, "episode 0 has an action of -2 in step 1", action_scale=2.0)
    with pytest.raises(UserError, match="action_scale is 0: expected a number above 0"):
        open_source(path, action_scale=0)


def test_one_action_per_row_is_an_action_of_one_number(tmp_path):
    arrays = d4rl_arrays(make_episodes(physics=False))
    path = save_d4rl(tmp_path / "a.hdf5", arrays | {"actions": arrays["actions"][:, 1]})
    action = np.concatenate([episode.action for episode in episodes_of(path)])
    np.testing.assert_array_equal(action, arrays["actions"][:, 1:], strict=True)
    refused(save_d4rl(path, arrays | {"actions": np.ones(21, np.int64)}), "'actions' is int64 of shape (5,)")


def test_physics_that_is_not_the_environments_is_refused(tmp_path):
    save_exorl(tmp_path / "episode_0_4.npz")
    assert exorl.read_exorl(tmp_path, "tiny", SPEC).info.physics == PHYSICS
    wide = dataclasses.replace(SPEC, physics=(("qpos", 3), ("qvel", 3)))
    with pytest.raises(
        UserError, match=r"'physics' has 4 numbers per row: expected 6 \(qpos 3, qvel 3\), as .* 'tiny'"
    ):
        exorl.read_exorl(tmp_path, "tiny", wide)


# --- OGBench ----------------------------------------------------------------------------------------------------------

OG_NAME = "antmaze-medium-navigate-v0.npz"


def regular(episodes, **more) -> dict[str, np.ndarray]:
    return {
        "observations": np.concatenate([episode.obs[:-1] for episode in episodes]),
        "next_observations": np.concatenate([episode.obs[1:] for episode in episodes]),
        "actions": np.concatenate([episode.action for episode in episodes]),
        "terminals": np.concatenate([np.arange(len(e.action)) == len(e.action) - 1 for e in episodes]).astype(
            np.float32
        ),
        **more,
    }


def saved_compact(episodes) -> dict[str, np.ndarray]:
    """What the package returns for compact_dataset=True: the last two rows of each trajectory are terminals."""
    arrays = compact(episodes)
    arrays["valids"] = 1 - arrays["terminals"]
    arrays["terminals"] = np.minimum(arrays["terminals"] + np.append(arrays["terminals"][1:], 1), 1)
    return arrays


OG_FORMS = {"compact": compact, "regular": regular, "saved compact": saved_compact}


@pytest.mark.parametrize("form", OG_FORMS)
def test_all_forms_of_ogbench_are_the_same_episodes(tmp_path, form):
    episodes = unlabelled(make_episodes(), physics=False)
    np.savez_compressed(tmp_path / OG_NAME, **OG_FORMS[form](episodes))
    source = open_source(tmp_path / OG_NAME, env="")
    assert source.transitions == 21 and source.info.physics == ()
    assert_same_episodes(source.episodes, episodes)


def test_ogbenchs_own_loader_sees_the_same_transitions(tmp_path):
    package = pytest.importorskip("ogbench")
    np.savez_compressed(tmp_path / OG_NAME, **compact(make_episodes(physics=False)))
    theirs = package.load_dataset(str(tmp_path / OG_NAME))
    expected = Counter(
        (s.tobytes(), a.tobytes(), after.tobytes(), False)
        for s, a, after in zip(theirs["observations"], theirs["actions"], theirs["next_observations"])
    )
    assert pairs(episodes_of(tmp_path / OG_NAME, env="")) == expected


WRONG_PAIRS = {
    "across the boundary": lambda whole: [
        Episode(
            np.concatenate([e.obs for e in whole]),
            np.concatenate([np.append(e.action, e.action[-1:], axis=0) for e in whole])[:-1],
            *(np.zeros(sum(len(e.obs) for e in whole) - 1),) * 2,
        )
    ],
    "terminals that end the future": lambda whole: [
        e._replace(terminated=np.arange(len(e.action)) == len(e.action) - 1) for e in whole
    ],
    "a trajectory's last transition dropped": lambda whole: [e._replace(action=e.action[:-1]) for e in whole],
    "the action of the state after": lambda whole: [e._replace(action=np.roll(e.action, -1, axis=0)) for e in whole],
}


@pytest.mark.parametrize("wrong", WRONG_PAIRS)
def test_wrong_pairs_are_noticed(tmp_path, wrong):
    episodes = unlabelled(make_episodes((4, 6, 2)), physics=False)
    np.savez_compressed(tmp_path / OG_NAME, **compact(episodes))
    found = episodes_of(tmp_path / OG_NAME, env="")
    assert pairs(found) == pairs(episodes) != pairs(WRONG_PAIRS[wrong](found))


def test_masks_end_the_future_and_terminals_do_not(tmp_path):
    episodes = make_episodes((4, 4), physics=False)
    masks = np.array([1, 1, 0, 1, 1, 1, 1, 0], np.float32)
    np.savez(tmp_path / "a.npz", **regular(episodes, masks=masks, rewards=np.arange(8.0)))
    found = episodes_of(tmp_path / "a.npz")
    np.testing.assert_array_equal(np.concatenate([episode.terminated for episode in found]), masks == 0)
    np.testing.assert_array_equal(np.concatenate([episode.reward for episode in found]), np.arange(8.0))


def test_ogbenchs_simulator_states(tmp_path):
    episodes = make_episodes()
    states = np.concatenate([episode.physics for episode in episodes])
    parts = {"qpos": states[:, :2], "qvel": states[:, 2:], "button_states": np.arange(25)}
    np.savez(tmp_path / "a.npz", **compact(episodes, **parts))
    source = open_source(tmp_path / "a.npz")
    assert source.info.physics == (("qpos", 2), ("qvel", 2), ("button_states", 1))
    found = np.concatenate([episode.physics for episode in source.episodes])
    np.testing.assert_array_equal(found, np.concatenate([states, np.arange(25.0)[:, None]], axis=1))
    np.savez(tmp_path / "b.npz", **regular(episodes, qpos=np.zeros((21, 2))))
    source = open_source(tmp_path / "b.npz")
    assert source.info.physics == () and "qpos are left out" in source.notes[0]


@pytest.mark.parametrize(
    ("file", "env"),
    [
        ("antmaze-medium-navigate-v0-val.npz", "ogbench:antmaze-medium-v0"),
        ("cube-single-play-v0.npz", "ogbench:cube-single-v0"),
        ("mine.npz", ""),
    ],
)
def test_ogbenchs_environment_is_the_files(file, env):
    assert ogbench.guess_env(Path(file)) == env


def test_ogbench_is_not_loaded_at_once(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", **compact(make_episodes((5,) * 50, physics=False)))
    taken = []
    take = Stream.take
    monkeypatch.setattr(Stream, "take", lambda self, n: taken.append((self.where, n)) or take(self, n))
    next(open_source(tmp_path / "a.npz").episodes)
    assert sum(n for where, n in taken if "observations" in where) == 6


BAD_OGBENCH = {
    "no actions": (lambda a: a.pop("actions"), "has no 'actions': found observations, terminals"),
    "no terminals": (lambda a: a.pop("terminals"), "has no 'terminals'"),
    "fewer actions": (lambda a: a.update(actions=a["actions"][:-1]), "'actions' has shape (24, 2): expected 25 rows"),
    "frames": (lambda a: a.update(observations=np.zeros((25, 4, 4, 3), np.uint8)), "array of 2 dimensions"),
    "objects": (lambda a: a.update(observations=np.array([[{}]] * 25, object)), "Python objects"),
    "an end too many": (
        lambda a: a["terminals"].__setitem__(4, 1),
        "ends a trajectory in row 5 that has no transition",
    ),
    "not a number": (lambda a: a["observations"].__setitem__((7, 1), np.nan), "'observations' has nan in row 7"),
    "beyond the bounds": (lambda a: a["actions"].__setitem__((9, 0), 2), "episode 2 has an action of 2 in step 1"),
    "columns": (lambda a: a.update(observations=np.asfortranarray(a["observations"])), "C-contiguous"),
    "nothing": (lambda a: a.update({key: values[:0] for key, values in a.items()}), "'terminals' is empty"),
}


@pytest.mark.parametrize("what", BAD_OGBENCH)
def test_bad_ogbench_is_one_sentence(tmp_path, what):
    change, said = BAD_OGBENCH[what]
    arrays = compact(make_episodes(physics=False))
    change(arrays)
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", said)


def test_a_next_observation_that_is_not_the_next_is_refused(tmp_path):
    arrays = regular(make_episodes(physics=False))
    arrays["next_observations"][8] += 1
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", "'next_observations' in row 8 is not the observation of row 9")


# --- D4RL -------------------------------------------------------------------------------------------------------------


def shortened(episodes) -> list[Episode]:
    """As they are read where the state after an episode's last row is not known: a true end repeats the state before
    it, and of the others the last transition is left out."""
    found = []
    for e in episodes:
        if e.terminated[-1]:
            at = [*range(len(e.action)), len(e.action) - 1]
            found.append(e._replace(obs=e.obs[at], physics=None if e.physics is None else e.physics[at]))
        elif len(e.action) > 1:
            cut = (values if values is None else values[:-1] for values in e)
            found.append(Episode(*cut))
    return found


@pytest.mark.parametrize("block", [3, 65536])
def test_d4rl_with_next_observations(tmp_path, monkeypatch, block):
    monkeypatch.setattr(d4rl, "BLOCK", block)  # Episodes that run across blocks.
    episodes = make_episodes(physics=False)
    path = save_d4rl(tmp_path / "hopper.hdf5", d4rl_arrays(episodes))
    source = open_source(path)
    assert source.transitions == 21 and source.info.env == ""
    assert_same_episodes(source.episodes, episodes)


def test_d4rl_without_next_observations_never_pairs_across_episodes(tmp_path):
    episodes = make_episodes(physics=False)
    source = open_source(save_d4rl(tmp_path / "hopper.hdf5", d4rl_arrays(episodes, nexts=False)))
    said = "the last transition of each episode is left out, but for the 2 true ends, whose last state is repeated."
    assert source.transitions == 19 and said in " ".join(source.notes)
    found = list(source.episodes)
    assert_same_episodes(found, shortened(episodes))
    assert [episode.terminated.tolist()[-1] for episode in found] == [False, True, False, True]
    assert not any(episode.terminated[:-1].any() for episode in found) and found[1].reward == episodes[1].reward


def test_antmazes_terminals_end_nothing_and_jumps_do(tmp_path):
    episodes = make_episodes((6, 6), physics=False)
    arrays = d4rl_arrays(episodes)
    arrays["terminals"][:] = False
    arrays["terminals"][[2, 3]] = True  # The goal is touched.
    del arrays["timeouts"]
    path = save_d4rl(tmp_path / "Ant_maze_big-maze_noisy.hdf5", arrays)
    assert_same_episodes(episodes_of(path), [e._replace(terminated=np.zeros(6, bool)) for e in episodes])
    path = save_d4rl(tmp_path / "hopper.hdf5", arrays)  # Elsewhere a terminal is an end.
    assert [len(episode.action) for episode in episodes_of(path)] == [3, 1, 2, 6]
    assert [len(episode.action) for episode in episodes_of(path, env="")] == [3, 1, 2, 6]


def test_d4rls_simulator_states_are_kept_where_they_are_those_of_their_rows(tmp_path):
    episodes = make_episodes((6, 6))
    shown = [
        e._replace(obs=np.concatenate([e.obs[:, :1], e.physics[:, 2:]], axis=1).astype(np.float32)) for e in episodes
    ]
    states = np.concatenate([episode.physics[:-1] for episode in episodes])
    arrays = d4rl_arrays(shown, nexts=False) | {"infos/qpos": states[:, :2], "infos/qvel": states[:, 2:]}
    source = open_source(save_d4rl(tmp_path / "a.hdf5", arrays))
    assert source.info.physics == PHYSICS
    assert_same_episodes(source.episodes, shortened(shown))
    late = arrays | {"infos/qvel": np.roll(states[:, 2:], -1, axis=0)}  # Of the state after.
    source = open_source(save_d4rl(tmp_path / "b.hdf5", late))
    assert source.info.physics == () and "not the states of their rows" in " ".join(source.notes)
    nexts = d4rl_arrays(shown) | {"infos/qpos": states[:, :2], "infos/qvel": states[:, 2:]}
    source = open_source(save_d4rl(tmp_path / "c.hdf5", nexts))
    assert source.info.physics == () and "lack each episode's last state" in " ".join(source.notes)


BAD_D4RL = {
    "no observations": (lambda a: a.pop("observations"), "has no 'observations'"),
    "no ends": (
        lambda a: (a.pop("timeouts"), a.pop("next_observations")),
        "neither 'timeouts' nor 'next_observations'",
    ),
    "fewer rewards": (lambda a: a.update(rewards=a["rewards"][:-1]), "'rewards' has shape (20,): expected 21 rows"),
    "words": (lambda a: a.update(observations=np.array([[b"a"] * 3] * 21)), "'observations' is"),
    "not a number": (lambda a: a["actions"].__setitem__((9, 1), np.nan), "'actions' has nan in row 9"),
    "beyond the bounds": (
        lambda a: a["actions"].__setitem__((0, 1), -1.5),
        "episode 0 has an action of -1.5 in step 0",
    ),
    "other sizes": (
        lambda a: a.update(next_observations=np.zeros((21, 5))),
        "'next_observations' has shape (21, 5): expected (21, 3)",
    ),
    "no rows": (lambda a: a.update({key: values[:0] for key, values in a.items()}), "'terminals' is empty"),
}


@pytest.mark.parametrize("what", BAD_D4RL)
def test_bad_d4rl_is_one_sentence(tmp_path, what):
    change, said = BAD_D4RL[what]
    arrays = d4rl_arrays(make_episodes(physics=False))
    change(arrays)
    refused(save_d4rl(tmp_path / "a.hdf5", arrays), said)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    path = save_d4rl(tmp_path / "a.hdf5", d4rl_arrays(make_episodes(physics=False)))
    data = make_dataset(tmp_path / "set")
    out = export_data(data.folder, tmp_path / "out", "minari", quiet=True)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    for read in (path, out):
        with pytest.raises(UserError, match=r"needs the package h5py: pip install 'urlrl\[data\]'"):
            open_source(read)
    with pytest.raises(UserError, match=r"needs the package h5py: pip install 'urlrl\[data\]'"):
        export_data(data.folder, tmp_path / "again", "minari", quiet=True)
    assert not (tmp_path / "again").exists()


# --- Minari -----------------------------------------------------------------------------------------------------------


def test_what_minari_is_written_is_read(tmp_path):
    data = make_dataset(tmp_path / "set")
    out = export_data(data.folder, tmp_path / "out", "minari", quiet=True)
    source = open_source(out)
    assert source.info.physics == PHYSICS and source.info.env == "" and source.transitions == 21
    assert_same_episodes(source.episodes, make_episodes())


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package, with a folder of its own."""
    package = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return package


def test_the_minari_package_opens_what_is_written(tmp_path, package):
    data = make_dataset(tmp_path / "set")
    export_data(data.folder, tmp_path / "minari" / "urlrl" / "noise-v0", "minari", quiet=True)
    opened = package.load_dataset("urlrl/noise-v0")
    assert (opened.total_episodes, opened.total_steps, opened.id) == (4, 21, "urlrl/noise-v0")
    assert opened.action_space.low.tolist() == [-1, -1] and opened.observation_space.shape == (3,)
    for theirs, ours in zip(opened.iterate_episodes(), make_episodes()):
        np.testing.assert_array_equal(theirs.observations, ours.obs)
        np.testing.assert_array_equal(theirs.actions, ours.action)
        np.testing.assert_allclose(theirs.rewards, ours.reward)
        np.testing.assert_array_equal(theirs.terminations, ours.terminated)
        assert theirs.truncations[-1] == (not ours.terminated[-1]) and not theirs.truncations[:-1].any()
        np.testing.assert_array_equal(theirs.infos["physics"], ours.physics)
    assert list(package.list_local_datasets()) == ["urlrl/noise-v0"]
    assert_same_episodes(episodes_of("urlrl/noise-v0"), make_episodes())  # By its id.


@pytest.mark.filterwarnings("ignore")
def test_what_the_minari_package_writes_is_read(package):
    """Actions come from the bounds of the torque, [-2, 2], to [-1, 1]; the environment is the collector's."""
    import gymnasium

    collector = package.DataCollector(gymnasium.make("Pendulum-v1"))
    collector.action_space.seed(0)
    for seed in range(2):
        collector.reset(seed=seed)
        for _ in range(4):
            collector.step(collector.action_space.sample())
    theirs = list(collector.create_dataset("urlrl/pendulum-v0"))
    source = open_source("urlrl/pendulum-v0")
    assert source.info.env == "gym:Pendulum-v1" and source.transitions == 8
    for episode, other in zip(source.episodes, theirs):
        np.testing.assert_array_equal(episode.obs, other.observations)
        np.testing.assert_allclose(episode.action, other.actions / 2)
        np.testing.assert_allclose(episode.reward, other.rewards, rtol=1e-6)
        assert not episode.terminated.any()


RECORDED = {
    "with another gravity": ({"g": 1.6}, "g=1.6"),
    "with another time limit": ({"max_episode_steps": 50}, "max_episode_steps=50"),
    "in a wrapper": ({}, "the wrapper FlattenObservation"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", RECORDED)
def test_an_environment_that_its_id_does_not_make_is_not_guessed(package, how):
    import gymnasium

    options, said = RECORDED[how]
    env = gymnasium.make("Pendulum-v1", render_mode="rgb_array", **options)
    collector = package.DataCollector(env if options else gymnasium.wrappers.FlattenObservation(env))
    collector.reset(seed=0)
    collector.step(collector.action_space.sample())
    collector.create_dataset("urlrl/pendulum-v0")
    source = open_source("urlrl/pendulum-v0")
    note = f"urlrl/pendulum-v0 was recorded in gym:Pendulum-v1 with {said}: "
    assert source.info.env == "" and source.notes == (f"{note}no name says that, so its environment is not guessed.",)
    source = open_source("urlrl/pendulum-v0", env="gym:Pendulum-v1")
    assert source.notes == (f"{note}nobody can tell here whether 'gym:Pendulum-v1' is the same.",)


def edit_metadata(out: Path, **changes) -> None:
    path = out / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))


def as_dict(out: Path, key: str) -> None:
    """Make the observations a Dict of this part and another."""
    box = json.loads(json.loads((out / "data" / "metadata.json").read_text())["observation_space"])
    edit_metadata(out, observation_space=json.dumps({"type": "Dict", "subspaces": {key: box, "goal": box}}))
    with h5py.File(out / "data" / "main_data.hdf5", "a") as file:
        for group in file.values():
            obs = group["observations"][()]
            del group["observations"]
            group[f"observations/{key}"], group["observations/goal"] = obs, 0 * obs


@pytest.fixture
def exported(tmp_path):
    return export_data(make_dataset(tmp_path / "set").folder, tmp_path / "out", "minari", quiet=True)


def test_minaris_dict_observations(exported):
    as_dict(exported, "observation")
    source = open_source(exported)
    assert "the part 'observation' is taken" in source.notes[0]
    assert_same_episodes(source.episodes, make_episodes())


def test_parts_of_dict_observations_are_joined(exported):
    as_dict(exported, "achieved_goal")
    source = open_source(exported, observation=["goal", "achieved_goal"])
    assert "of which the part 'goal' + 'achieved_goal' is taken" in source.notes[0]
    expected = [e._replace(obs=np.concatenate([0 * e.obs, e.obs], axis=1)) for e in make_episodes()]
    assert_same_episodes(source.episodes, expected)
    refused(exported, "a Dict of achieved_goal, goal, without 'speed': expected --observation", observation=["speed"])


def test_parts_are_not_asked_for_in_vain(exported, tmp_path):
    refused(exported, "observations are Box of shape [3]: expected a Dict", observation=["goal"])
    path = save_d4rl(tmp_path / "a.hdf5", d4rl_arrays(make_episodes(physics=False)))
    refused(path, "has observations without parts: expected --observation with Minari's", observation=["goal"])


def test_stacks_of_frames_are_laid_flat(exported):
    stack = {"type": "Box", "dtype": "float32", "shape": [2, 3], "low": 0, "high": 1}
    edit_metadata(exported, observation_space=json.dumps(stack))

    def stacked(file) -> None:
        for group in file.values():
            obs = group["observations"][()]
            replace_values(group, "observations", np.stack([obs, 2 * obs], axis=1))

    change_group(exported, stacked)
    expected = [e._replace(obs=np.concatenate([e.obs, 2 * e.obs], axis=1)) for e in make_episodes()]
    assert_same_episodes(episodes_of(exported), expected)


def change_group(out: Path, change) -> None:
    with h5py.File(out / "data" / "main_data.hdf5", "a") as file:
        change(file)


def replace_values(group, key: str, values: np.ndarray) -> None:
    del group[key]
    group[key] = values


PICTURE = json.dumps({"type": "Box", "shape": [64, 64, 3], "low": 0, "high": 255})
DISCRETE = json.dumps({"type": "Discrete", "n": 4})
BAD_MINARI = {
    "a dict of goals": (lambda out: as_dict(out, "achieved_goal"), "a Dict of achieved_goal, goal"),
    "pictures": (lambda out: edit_metadata(out, observation_space=PICTURE), "Box of shape [64, 64, 3]"),
    "buttons": (lambda out: edit_metadata(out, action_space=DISCRETE), "'action_space' is Discrete"),
    "a third action": (lambda out: edit_metadata(out, action_space=minari._box(3, 1.0)), "'actions' has 2 numbers"),
    "no space": (lambda out: edit_metadata(out, action_space=None), "has no 'action_space'"),
    "a space that is no json": (lambda out: edit_metadata(out, action_space="Box"), "'action_space' cannot be read"),
    "arrow": (
        lambda out: (edit_metadata(out, data_format="arrow"), (out / "data" / "main_data.hdf5").unlink()),
        "is stored as 'arrow': expected HDF5",
    ),
    "an episode too few": (lambda out: change_group(out, lambda f: f.__delitem__("episode_3")), "holds 3 episodes"),
    "no rewards": (
        lambda out: change_group(out, lambda f: f["episode_2"].__delitem__("rewards")), "episode_2 has no 'rewards'"),
    "a state too few": (
        lambda out: change_group(out, lambda f: replace_values(f["episode_0"], "observations", np.zeros((5, 3)))),
        "episode_0: 'observations' has 5 rows in an episode: expected 6",
    ),
    "beyond the bounds": (
        lambda out: change_group(out, lambda f: replace_values(f["episode_0"], "actions", np.full((5, 2), 1.1))),
        "episode 0 has an action of 1.1 in step 0",
    ),
    "half the file": (
        lambda out: (out / "data" / "main_data.hdf5").write_bytes((out / "data" / "main_data.hdf5").read_bytes()[:999]),
        "main_data.hdf5 cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_MINARI)
def test_bad_minari_is_one_sentence(exported, what):
    change, said = BAD_MINARI[what]
    change(exported)
    refused(exported, said)


def test_a_module_that_a_file_names_is_not_imported(exported):
    edit_metadata(exported, urlrl_env=None, env_spec=json.dumps({"id": "this:Pendulum-v1"}))
    assert minari.guess_env(exported) == ""
    edit_metadata(exported, urlrl_env="this:zen")
    assert "is made only if --env this:zen says so" in open_source(exported).notes[-1]


# --- Runs -------------------------------------------------------------------------------------------------------------

RUN = dataclasses.replace(
    TINY, agent=UniformConfig(), agent_name="uniform", steps_per_update=0, eval_every=0, normalizer="off"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Change a copy of it."""
    return urlrl.pretrain(RUN, tmp_path_factory.mktemp("run") / "run", quiet=True)


def by_hand(run: Path, root=0) -> list[tuple]:
    """(obs, action, reward, terminated) of every episode of a run, lane by lane and row by row."""
    begin, rows = transitions(run)
    manifest = RunFolder(run).manifest()["config"]
    lanes, found = manifest["num_envs"], []
    for lane in range(lanes):
        obs, actions, rewards, ended = [], [], [], []
        for i in range(lane, len(rows["obs"]), lanes):
            obs.append(rows["obs"][i][root:])
            actions.append(rows["action"][i])
            rewards.append(rows["reward"][i])
            ended.append(rows["terminated"][i])
            if rows["terminated"][i] or rows["truncated"][i] or i + lanes >= len(rows["obs"]):
                obs.append(rows["next_obs"][i][root:])
                found.append(tuple(np.array(part).tobytes() for part in (obs, actions, rewards, ended)))
                obs, actions, rewards, ended = [], [], [], []
    assert begin % lanes == 0
    return sorted(found)


def as_bytes(episodes) -> list[tuple]:
    return sorted(tuple(np.ascontiguousarray(part).tobytes() for part in episode[:4]) for episode in episodes)


def test_a_runs_lanes_become_episodes(run):
    source = open_source(run)
    episodes = list(source.episodes)
    assert as_bytes(episodes) == by_hand(run)
    assert source.info.env == "point" and source.info.obs_is_physics and source.transitions == 320
    lengths = [len(episode.action) for episode in episodes]
    assert sum(lengths) == 320 and max(lengths) == 15  # Episodes run across the shards, of 20 steps per lane.
    assert sorted(lengths) == [10, 10] + [15] * 20


def test_a_run_that_was_interrupted(tmp_path, run):
    urlrl.pretrain(dataclasses.replace(RUN, steps=120), tmp_path / "run", quiet=True)
    urlrl.pretrain(RUN, tmp_path / "run", quiet=True)
    assert as_bytes(episodes_of(tmp_path / "run")) == by_hand(run)


def test_skills_are_left_behind(tmp_path, run):
    copy = copy_of(run, tmp_path)
    for file in (copy / "replay").iterdir():
        rewrite(file, lambda rows: rows.update(z=np.ones((40, 3), np.float32)))
    shutil.rmtree(copy / "checkpoints")
    assert_same_episodes(episodes_of(copy), episodes_of(run))


def test_a_run_whose_environment_begins_anew(tmp_path):
    """Where the state cannot be saved, episodes end on disk at each checkpoint; the rows after are not of them."""
    config = dataclasses.replace(RUN, env="gym:Pendulum-v1", steps=80)
    urlrl.pretrain(config, tmp_path / "run", quiet=True)
    urlrl.pretrain(dataclasses.replace(config, steps=120), tmp_path / "run", quiet=True)
    assert as_bytes(episodes_of(tmp_path / "run")) == by_hand(tmp_path / "run")


def test_missing_rows_end_every_lanes_episode(tmp_path, run):
    run = copy_of(run, tmp_path)
    files = sorted((run / "replay").glob("*.safetensors"))
    files[3].unlink()
    episodes = episodes_of(run)
    rows = [{name: np.concatenate([load_file(file)[name] for file in part]) for name in ("obs", "action", "next_obs")}
            for part in (files[:3], files[4:])]  # fmt: skip
    expected = Counter(
        (o.tobytes(), a.tobytes(), n.tobytes(), False) for part in rows for o, a, n in zip(*part.values())
    )
    assert pairs(episodes) == expected
    files[0].unlink()  # As `keep_data="window"` leaves it.
    assert sum(len(episode.action) for episode in episodes_of(run)) == 320 - 2 * 40


@pytest.fixture(scope="module")
def dmc_run(tmp_path_factory):
    config = dataclasses.replace(RUN, env="dmc:cheetah_run", root_position=True, steps=80)
    return urlrl.pretrain(config, tmp_path_factory.mktemp("dmc") / "run", quiet=True)


def test_the_root_is_taken_off(dmc_run):
    source = open_source(dmc_run)
    episodes = list(source.episodes)
    assert as_bytes(episodes) == by_hand(dmc_run, root=1)
    assert source.info.env == "dmc:cheetah_run" and source.info.physics == (("qpos", 9), ("qvel", 9))
    for episode in episodes:  # The suite's observation is the state without the first coordinate.
        np.testing.assert_allclose(episode.obs, episode.physics[:, 1:], rtol=1e-6, atol=1e-6)
        assert len(episode.physics) == len(episode.obs) == len(episode.action) + 1


def rewrite(file: Path, change, num_envs: int = 2) -> None:
    """Change the rows of a shard."""
    rows = load_file(file)
    change(rows)
    save_file(rows, file, {"urlrl": json.dumps({"format": "urlrl-shard-1", "num_envs": num_envs})})


def third(run: Path, change) -> list[Path]:
    """Change the rows of a run's third shard, and forget what the checkpoints say of it; returns all shards."""
    shutil.rmtree(run / "checkpoints")
    files = sorted((run / "replay").glob("*.safetensors"))
    rewrite(files[2], change)
    return files


BAD_RUNS = {
    "a shard that was changed": (
        lambda run: damage(sorted((run / "replay").glob("*.safetensors"))[1]), "its SHA-256 is not the one"),
    "no shards": (lambda run: [file.unlink() for file in (run / "replay").glob("*")], "has no transitions"),
    "another state": (lambda run: third(run, lambda rows: rows["next_obs"].__iadd__(1)), "is not the 'obs'"),
    "not a number": (lambda run: third(run, lambda rows: rows["reward"].__setitem__(3, np.nan)), "'reward' has nan"),
    "fewer rows": (
        lambda run: third(run, lambda rows: rows.update({k: v[:-2] for k, v in rows.items()})), ": expected 40 rows"),
    "a column cut short": (
        lambda run: third(run, lambda rows: rows.update(reward=rows["reward"][:-2])),
        "holds reward of shape (38,): expected 40 rows",
    ),
    "more environments than rows": (
        lambda run: [rewrite(file, lambda rows: None, 10**15) for file in third(run, lambda rows: None)],
        "whole rounds of 1000000000000000 lanes",
    ),
    "a field too few": (lambda run: third(run, lambda rows: rows.pop("reward")), "expected ['action'"),
    "not a run": (lambda run: (run / "config.json").write_text("{}"), "format is missing"),
    "half the config": (
        lambda run: (run / "config.json").write_text('{"format": "urlrl-run-1", "config": {"env": "point"}}'),
        "config.agent is missing",
    ),
}  # fmt: skip


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("what", BAD_RUNS)
def test_bad_runs_are_one_sentence(tmp_path, run, what):
    run = copy_of(run, tmp_path)
    change, said = BAD_RUNS[what]
    change(run)
    refused(run, said)


# --- Any format -------------------------------------------------------------------------------------------------------


def test_sources_are_put_one_after_the_other(tmp_path):
    a, b = make_dataset(tmp_path / "a"), make_dataset(tmp_path / "b", seed=1)
    both = convert([a.folder, b.folder], tmp_path / "both", quiet=True)
    assert_same_episodes(both.episodes(), [*a.episodes(), *b.episodes()])
    assert str(a.folder) in both.info.source and str(b.folder) in both.info.source
    assert convert(a.folder, tmp_path / "same", quiet=True).id == a.id


@pytest.mark.parametrize("count", [1, 5, 6, 7, 20, 21, 99])
def test_the_first_transitions_are_taken(tmp_path, count):
    data = make_dataset(tmp_path / "a")
    some = convert(data.folder, tmp_path / "some", max_transitions=count, quiet=True)
    assert len(some) == min(count, 21)
    rows = np.arange(len(some))
    for name in ("obs", "action", "next_obs"):
        np.testing.assert_array_equal(
            getattr(some.at(some.transition_rows(rows)), name), getattr(data.at(data.transition_rows(rows)), name)
        )


def test_sources_that_do_not_fit_each_other_are_refused(tmp_path):
    a = make_dataset(tmp_path / "a")
    b = make_dataset(tmp_path / "b", physics=False)
    c = write_dataset(tmp_path / "c", dataclasses.replace(a.info, env="gym:None-v0"), a.episodes())
    d = write_dataset(tmp_path / "d", a.info, make_episodes(obs_dim=4))
    for other, said in ((b, "has physics"), (c, "has env 'gym:None-v0'"), (d, "obs of shape")):
        with pytest.raises(UserError, match=said):
            convert([a.folder, other.folder], tmp_path / "out", env=None, quiet=True)
    assert not (tmp_path / "out").exists()


def spoilt(kind: str, folder: Path) -> tuple[Path, str]:
    """A source of four episodes, in one of which something is wrong, and what."""
    data = make_dataset(folder / "set", physics=False)
    if kind == "d4rl":
        arrays = d4rl_arrays(make_episodes(physics=False))
        arrays["rewards"][6] = np.nan  # of the third episode
        return save_d4rl(folder / "a.hdf5", arrays), "'rewards' has nan in row 6"
    if kind == "ogbench":
        arrays = compact(make_episodes(physics=False))
        arrays["observations"][9] = np.inf
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz", "'observations' has inf in row 9"
    out = export_data(data.folder, folder / "out", kind, quiet=True)
    if kind == "minari":
        change_group(out, lambda file: file["episode_2"].__delitem__("rewards"))
        return out, "episode_2 has no 'rewards'"
    (out / "episode_00000002_12.npz").write_bytes(b"")
    return out, "episode_00000002_12.npz is empty"


@pytest.mark.parametrize("kind", ["exorl", "ogbench", "d4rl", "minari"])
def test_a_bad_episode_is_left_out_where_that_is_asked_for(tmp_path, capsys, kind):
    path, why = spoilt(kind, tmp_path)
    refused(path, why)
    data = convert(path, tmp_path / "rest", skip_bad=True)
    assert [len(episode.action) for episode in data.episodes()] == [5, 1, 3]
    out = capsys.readouterr().out
    assert out.count("Left out") == 1 and why in out.partition("Left out: ")[2]


def test_the_first_episode_may_be_bad(tmp_path, exported):
    change_group(exported, lambda file: file["episode_0"].__delitem__("rewards"))
    assert [len(e.action) for e in open_source(exported, skip_bad=True).episodes] == [1, 12, 3]


def test_the_first_episode_may_be_of_other_sizes(tmp_path):
    """It is left out, and does not condemn the others: not by its observations, nor by its physics."""
    wide, good = make_episodes((4,), obs_dim=4), make_episodes()
    first = make_dataset(tmp_path / "a", lengths=(4,), obs_dim=4)
    source = open_source([first.folder, make_dataset(tmp_path / "b").folder], skip_bad=True)
    assert_same_episodes(source.episodes, good)
    assert source.found.left_out == [
        "episode 0 of all that were read has observations, actions and physics of (4, 2, 4) numbers: expected "
        "(3, 2, 4), as most of the first 5 have."
    ]
    wide[0] = wide[0]._replace(physics=np.zeros((5, 9)))
    folder = tmp_path / "exorl"
    folder.mkdir()
    exorl.write_exorl(folder, [wide[0], *good])
    data = convert(folder, tmp_path / "out", skip_bad=True, quiet=True)
    assert data.info.physics == (("physics", 4),) and data.info.episodes == len(good)


def test_a_bad_episode_of_a_run_is_left_out(run, tmp_path):
    run = copy_of(run, tmp_path)
    whole = len(episodes_of(run))
    third(run, lambda rows: rows["reward"].__setitem__(3, np.nan))
    source = open_source(run, skip_bad=True)
    assert len(list(source.episodes)) == whole - 1 and "'reward' has nan" in source.found.left_out[0]


def test_a_bad_path_and_an_episode_of_other_sizes_are_left_out(tmp_path, capsys):
    good, wide = make_dataset(tmp_path / "a"), make_dataset(tmp_path / "b", lengths=(4,), obs_dim=4)
    data = convert([tmp_path / "none", good.folder, wide.folder], tmp_path / "out", skip_bad=True)
    assert_same_episodes(data.episodes(), good.episodes())
    out = capsys.readouterr().out
    assert f"Left out: {tmp_path / 'none'} is not there" in out
    assert "Left out: episode 4 of all that were read has observations, actions and physics of (4, 2, 4) numbers" in out
    with pytest.raises(UserError, match="none is not there"):
        convert(tmp_path / "none", tmp_path / "again", skip_bad=True)


def test_what_loses_the_place_in_a_file_is_refused_all_the_same(tmp_path):
    """Nobody knows where the next episode begins: what follows must not be lost without a word."""
    np.savez_compressed(tmp_path / "a.npz", **compact(make_episodes(physics=False)))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[150:160] = bytes(10)
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError):
        list(open_source(tmp_path / "a.npz", skip_bad=True).episodes)


def test_files_of_other_programs_are_left_out_and_named(tmp_path):
    save_exorl(tmp_path / "episode_0_4.npz")
    for name in ("._episode_0_4.npz", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7" * 20)
    source = open_source(tmp_path)
    assert len(list(source.episodes)) == 1 and source.notes == tuple(
        f"{tmp_path / name} is a file of {who}: it is left out."
        for name, who in ((".DS_Store", "macOS"), ("._episode_0_4.npz", "macOS"),
                          ("Thumbs.db", "Windows"))
    )  # fmt: skip


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n"
OTHER_CONTENTS = {
    "a pointer": ("a.hdf5", POINTER, "a.hdf5 is a pointer of Git LFS: expected the file itself, which `git lfs pull`"),
    "a pointer of numpy": ("a.npz", POINTER, "a.npz is a pointer of Git LFS"),
    "a page": ("a.npz", b"<!DOCTYPE html><html>", "a.npz is a web page: expected the file itself."),
    "nothing": ("a.hdf5", b"", "a.hdf5 is empty."),
    "macos": ("._a.hdf5", b"\0\5\x16\7", "._a.hdf5 is a file of macOS: expected one of data."),
    "windows": ("Thumbs.db", b"\xd0\xcf", "Thumbs.db is a file of Windows"),
}


@pytest.mark.parametrize("what", OTHER_CONTENTS)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, what):
    name, content, said = OTHER_CONTENTS[what]
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, said)


def test_pointers_in_folders_are_named(exported, tmp_path):
    save_exorl(tmp_path / "episodes" / "episode_0_4.npz").write_bytes(POINTER)
    refused(tmp_path / "episodes", "episode_0_4.npz is a pointer of Git LFS")
    (exported / "data" / "main_data.hdf5").write_bytes(POINTER)
    refused(exported, "main_data.hdf5 is a pointer of Git LFS")
    (tmp_path / "set" / "obs.npy").write_bytes(POINTER)
    refused(tmp_path / "set", "obs.npy is a pointer of Git LFS")


def test_hdf5_of_another_layout_is_named(tmp_path, exported):
    demos = save_d4rl(tmp_path / "demos.hdf5", {"data/demo_0/actions": np.zeros((3, 2))})
    refused(demos, "demonstrations in groups, as robomimic stores them")
    refused(exported / "data" / "main_data.hdf5", "as Minari stores them (give the dataset's folder): expected D4RL's")
    arrays = d4rl_arrays(make_episodes(physics=False))
    ends = arrays.pop("terminals") | arrays.pop("timeouts")
    path = save_d4rl(tmp_path / "dones.hdf5", arrays | {"dones": ends})
    refused(path, "has no 'terminals': found actions, dones, next_observations, observations")


def test_no_sentence_says_how_to_load_what_is_unsafe(tmp_path):
    """NumPy does, of headers that are long."""
    long = np.zeros(3, [(f"{i}" * 40, "f4") for i in range(200)])
    np.savez(tmp_path / "a.npz", observations=long, actions=long, terminals=long)
    np.savez(tmp_path / "b.npz", observations=np.array([{}], object), actions=long, terminals=long)
    for name in ("a.npz", "b.npz"):
        with pytest.raises(UserError) as raised:
            episodes_of(tmp_path / name)
        assert "pickle" not in str(raised.value) and "trust" not in str(raised.value)


def test_sizes_are_compared_with_the_environment(tmp_path):
    data = make_dataset(tmp_path / "a", physics=False)
    refused(data.folder, "has observations of 3 numbers: expected 2, as environment 'point' has", env="point")
    with pytest.raises(UserError, match="Unknown environment 'pint'"):
        open_source(data.folder, env="pint")


def test_what_is_no_data_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    for name, said in (
        ("empty", "is of no known format"),
        ("notes.txt", "is of no known format"),
        ("none", "is not there"),
    ):
        with pytest.raises(UserError, match=said):
            detect(tmp_path / name)
    with pytest.raises(UserError, match="format is 'hdf5': expected one of 'auto', 'urlrl'"):
        open_source(tmp_path, format="hdf5")
    refused(tmp_path / "empty", "holds no episodes", format="exorl")
    refused(tmp_path / "empty", "is not a dataset", format="urlrl")


def test_a_dataset_that_was_made_is_a_source(tmp_path):
    data = make_dataset(tmp_path / "set")
    assert_same_episodes(open_source(data.folder).episodes, Dataset(data.folder).episodes())
