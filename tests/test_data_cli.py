"""`urlrl data`: what is printed, checks that fail where they should, rewards from physics, a sentence per mistake."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_tools import assert_same_episodes, d4rl_arrays, make_dataset, make_episodes, save_d4rl

from urlrl.cli import main
from urlrl.data import validate as checks
from urlrl.data.dataset import Dataset, DatasetInfo, Episode, write_dataset
from urlrl.envs import make_env
from urlrl.errors import UserError
from urlrl.tasks.catalogue import find_task
from urlrl.training import meter as meters
from urlrl.verbs import data as verb


def command(capsys, *argv) -> tuple[int, str, str]:
    try:
        main(["data", *map(str, argv)])
        code = 0
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    return code, said.out, said.err


def collect(name: str, episodes=3, steps=12) -> list[Episode]:
    """Episodes of random actions in an environment."""
    found = []
    with closing(make_env(name, 1, episode_steps=steps)) as env:
        rng = np.random.default_rng(0)
        for number in range(episodes):
            obs, states, actions, rewards = [env.reset(seed=number)[0][0]], [env.physics()[0]], [], []
            for _ in range(steps):
                actions.append(rng.uniform(-1, 1, env.env_spec.action_dim).astype(np.float32))
                after, reward, *_ = env.step(actions[-1][None])
                obs.append(after[0])
                states.append(env.physics()[0])
                rewards.append(reward[0])
            arrays = np.array(obs, np.float32), np.array(actions), np.array(rewards, np.float32)
            found.append(Episode(*arrays, np.zeros(steps, bool), np.array(states)))
    return found


def store(folder: Path, name: str, episodes: list[Episode]) -> Dataset:
    spec = verb._make_spec(name)
    return write_dataset(folder, DatasetInfo(name, "random actions", spec.physics), episodes)


@pytest.fixture(scope="module")
def cheetah(tmp_path_factory):
    return store(tmp_path_factory.mktemp("cheetah") / "set", "dmc:cheetah_run", collect("dmc:cheetah_run"))


@pytest.fixture(scope="module")
def walker(tmp_path_factory):
    return store(tmp_path_factory.mktemp("walker") / "set", "dmc:walker_walk", collect("dmc:walker_walk"))


@pytest.fixture
def noise(tmp_path):
    return make_dataset(tmp_path / "noise")


def all_rows(data: Dataset) -> np.ndarray:
    return data.transition_rows(np.arange(len(data)))


# --- info, convert, export --------------------------------------------------------------------------------------------


def test_info(cheetah, capsys):
    code, out, _ = command(capsys, "info", cheetah.folder)
    rows = dict(line.split("  ", 1) for line in out.splitlines())
    rows = {name: text.strip() for name, text in rows.items()}
    reward = np.concatenate([episode.reward for episode in cheetah.episodes()])
    assert code == 0 and rows["environment"] == "dmc:cheetah_run" and rows["id"] == cheetah.id
    assert rows["transitions"] == "36" and rows["episodes"].startswith("3, 0.0%")
    assert rows["length"] == "12 to 12, median 12" and rows["physics"] == "qpos 9, qvel 9"
    assert rows["reward"] == f"{reward.min():.4g} to {reward.max():.4g}"
    assert rows["source"] == "random actions"


def test_info_counts(noise):
    found = verb.info(noise.folder)
    episodes = make_episodes()
    assert (found["episodes"], found["transitions"], found["terminated"]) == (4, 21, 0.5)
    assert found["length"] == {"min": 1, "median": 4.0, "max": 12}
    returns = [episode.reward.sum(dtype=np.float64) for episode in episodes]
    np.testing.assert_allclose(found["return"], [min(returns), np.mean(returns), max(returns)])
    assert found["bytes"] == sum(values.nbytes for values in noise.columns.values())
    assert found["env"] == "" and found["physics"] == [["qpos", 2], ["qvel", 2]]


def test_a_source_that_is_no_dataset_yet(noise, capsys, tmp_path):
    out = verb.export_data(noise.folder, tmp_path / "out", "exorl", quiet=True)
    code, said, _ = command(capsys, "info", out)
    assert code == 0 and "none: not a dataset yet" in said and "unknown" in said and "physics 4" in said


def test_export_and_convert_again(cheetah, capsys, tmp_path):
    for kind, options in (("exorl", ["--env", "dmc:cheetah_run"]), ("minari", [])):
        code, out, _ = command(capsys, "export", cheetah.folder, "--format", kind, "--out", tmp_path / kind)
        assert code == 0 and out.splitlines()[-1] == f"Wrote {tmp_path / kind}"
        code, out, _ = command(capsys, "convert", tmp_path / kind, *options, "--out", tmp_path / f"{kind}-set")
        again = Dataset(tmp_path / f"{kind}-set")
        assert code == 0 and "36 transitions in 3 episodes, 0.0 MB in" in out and again.id in out
        assert again.id == cheetah.id and again.info.env == cheetah.info.env
        assert again.info.physics == cheetah.info.physics


def test_observations_that_are_physics_come_back(tmp_path):
    """Other formats get both; here they are stored once."""
    info = DatasetInfo("point", "noise", (("xy", 2),), obs_is_physics=True)
    data = write_dataset(tmp_path / "set", info, make_episodes(obs_dim=2, physics=False))
    for kind in ("exorl", "minari"):
        out = verb.export_data(data.folder, tmp_path / kind, kind, quiet=True)
        again = verb.convert(out, tmp_path / f"{kind}-set", env="point", quiet=True)
        assert again.info.obs_is_physics and again.id == data.id
    with np.load(tmp_path / "exorl" / "episode_00000000_5.npz") as stored:
        np.testing.assert_array_equal(stored["physics"], stored["observation"])


def test_paths_stand_anywhere(noise, capsys, tmp_path):
    other = make_dataset(tmp_path / "other", seed=1)
    out = tmp_path / "both"
    flags = ["--skip-bad", noise.folder, "--clip-actions"]
    argv = [*flags, "--out", out, "--max-transitions=30", other.folder, "--quiet"]
    code, said, err = command(capsys, "convert", *argv)
    assert code == 0 and err == "" and said.count("\n") == 1  # Quiet: only what was written.
    assert len(Dataset(out)) == 30


def test_options_of_what_is_read(capsys, tmp_path):
    arrays = d4rl_arrays(make_episodes(physics=False))
    arrays["actions"][0] = 3, -3
    arrays["rewards"][6] = np.nan  # of the third episode
    path = save_d4rl(tmp_path / "a.hdf5", arrays)
    options = ["--skip-bad", "--action-scale", "2", "--clip-actions"]
    code, said, _ = command(capsys, "convert", *options, path, "--out", tmp_path / "set")
    assert code == 0 and "9 transitions in 3 episodes" in said and "'rewards' has nan in row 6" in said
    assert "2 of 18 numbers of actions were beyond [-1, 1], by at most 0.5: clipped." in said
    assert Dataset(tmp_path / "set").columns["action"][0].tolist() == [1, -1]
    for verb_name in ("info", "validate"):
        code, out, err = command(capsys, verb_name, path, "--observation", "a,b")
        assert code == 2 and "expected --observation with Minari's or LeRobot's data alone" in out + err


def test_notes_are_said(capsys, tmp_path):
    arrays = {"observation": np.zeros((3, 2)), "action": np.zeros((3, 1)), "reward": np.ones((3, 4))}
    np.savez(tmp_path / "episode_0_2.npz", **arrays, discount=np.ones(3))
    code, out, _ = command(capsys, "convert", tmp_path, "--out", tmp_path / "set")
    assert code == 0 and "has 4 rewards per transition: the first is taken." in out


def test_the_meter_on_a_terminal_and_off(monkeypatch, capsys):
    for terminal in (False, True):
        monkeypatch.setattr(meters.sys.stdout, "isatty", lambda terminal=terminal: terminal)
        with meters.metered("Converting", 21, quiet=False) as meter:
            assert sum(1 for _ in meter.passing(make_episodes())) == 4
            meter.note("A note.")
            assert meter.transitions == 21 and "21 of 21 transitions" in meter.state()
        out = capsys.readouterr().out
        assert "A note." in out and (terminal or "Converting: 5 of 21 transitions" in out)


# --- validate ---------------------------------------------------------------------------------------------------------


def outcome(found) -> dict[str, bool | None]:
    return {one.name: one.ok for one in found if one.name != "note"}


WHOLE = dict.fromkeys(("hashes", "finite", "actions", "last rows", "time limit", "observations", "rewards"), True)
WHOLE |= {"jumps": None}  # The episodes here are too short for that.


def test_data_of_a_simulator_is_whole(cheetah, walker, capsys):
    assert outcome(verb.validate(cheetah.folder)) == outcome(verb.validate(walker.folder)) == WHOLE
    code, out, _ = command(capsys, "validate", cheetah.folder)
    assert code == 0 and "ok      rewards       those of 'dmc:cheetah_run' in 36 transitions" in out


def test_data_without_an_environment_is_checked_as_far_as_it_goes(noise):
    assert outcome(verb.validate(noise.folder)) == WHOLE | dict.fromkeys(("time limit", "observations", "rewards"))


@pytest.mark.parametrize("name", ["dmc:quadruped_run", "jaco:site_top_left"])
def test_what_physics_does_not_determine_is_left_out(tmp_path, name):
    data = store(tmp_path / "set", name, collect(name, episodes=2))
    found = {one.name: one for one in verb.validate(data.folder)}
    assert found["observations"].ok and "entries that it does not determine left out" in found["observations"].detail
    assert found["rewards"].ok


def test_ogbenchs_own_states(tmp_path):
    pytest.importorskip("ogbench")
    name, episodes = "ogbench:cube-single-v0", collect("ogbench:cube-single-v0", episodes=2)
    ends = np.tile(np.arange(13) == 12, 2).astype(np.float32)
    states = np.concatenate([episode.physics for episode in episodes])
    arrays = {
        "observations": np.concatenate([episode.obs for episode in episodes]),
        "actions": np.concatenate([np.append(e.action, e.action[-1:], axis=0) for e in episodes]),
        "qpos": states[:, : dict(verb._make_spec(name).physics)["qpos"]],
        "qvel": states[:, dict(verb._make_spec(name).physics)["qpos"] :],
    }
    np.savez(tmp_path / "cube-single-play-v0.npz", **arrays, terminals=ends)
    data = verb.convert(tmp_path / "cube-single-play-v0.npz", tmp_path / "set", quiet=True)
    assert data.info.env == name and outcome(verb.validate(data.folder)) == WHOLE | {"rewards": None}


def late(episode: Episode, name: str) -> Episode:
    return episode._replace(**{name: np.roll(getattr(episode, name), 1, axis=0)})


WRONG_DATA = {
    "rewards of the step before": (lambda e: late(e, "reward"), {"rewards": False}),
    "rewards of the other direction": (lambda e: e._replace(reward=-e.reward), {"rewards": False}),
    "physics of the state before": (lambda e: late(e, "physics"), {"observations": False, "rewards": False}),
    "velocities first": (
        lambda e: e._replace(physics=np.roll(e.physics, 9, axis=1)), {"observations": False, "rewards": False}),
    "observations of the state before": (lambda e: late(e, "obs"), {"observations": False}),
    "no rewards": (lambda e: e._replace(reward=0 * e.reward), {"rewards": None}),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_DATA)
def test_wrong_data_is_noticed(cheetah, tmp_path, wrong):
    change, expected = WRONG_DATA[wrong]
    data = store(tmp_path / "set", "dmc:cheetah_run", [change(episode) for episode in cheetah.episodes()])
    assert outcome(verb.validate(data.folder)) == WHOLE | expected


def write_into(folder: Path, name: str, row: int, value: float) -> None:
    column = np.load(folder / f"{name}.npy", mmap_mode="r+")
    column[row] = value
    column.flush()


WRONG_FILES = {
    "a changed number": (("obs", 5, 0.5), checks.check_files, "obs.npy is not the file that was written"),
    "not a number": (
        ("physics", 14, np.nan),
        checks.check_finite,
        "physics.npy is not finite in row 14 (episode 1, step 1)",
    ),
    "a reward without end": (
        ("reward", 3, np.inf),
        checks.check_finite,
        "reward.npy is not finite in row 3 (episode 0",
    ),
    "beyond the bounds": (("action", 27, -1.01), checks.check_actions, "leaves [-1, 1] in row 27 (episode 2, step 1)"),
    "an action nobody took": (("action", 12, 0.5), checks.check_last_rows, "action.npy is not zero in row 12"),
}


@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_wrong_files_are_noticed(cheetah, tmp_path, capsys, wrong):
    place, check, said = WRONG_FILES[wrong]
    folder = Path(shutil.copytree(cheetah.folder, tmp_path / "set"))
    assert check(Dataset(folder)).ok
    write_into(folder, *place)
    found = check(Dataset(folder))
    assert found.ok is False and said in found.detail
    code, out, err = command(capsys, "validate", folder)
    assert code == 2 and f"FAILED  {found.name}" in out and "checks failed." in err and err.count("\n") == 1


def test_a_source_that_cannot_be_read_fails(cheetah, tmp_path, capsys):
    out = verb.export_data(cheetah.folder, tmp_path / "cheetah", "exorl", quiet=True)
    expected = {"reading": True, "jumps": None, "time limit": True, "observations": True, "rewards": True}
    assert outcome(verb.validate(out)) == expected
    last = out / "episode_00000002_12.npz"
    last.write_bytes(last.read_bytes()[:-40])
    assert outcome(verb.validate(out)) == {"reading": False}
    code, said, err = command(capsys, "validate", out)
    assert code == 2 and f"FAILED  reading       {last} cannot be read" in said and "1 of 1 checks failed" in err
    code, said, err = command(capsys, "validate", tmp_path / "none")
    assert code == 2 and "FAILED  opening" in said


def test_a_sample_of_a_stream_is_of_all_episodes():
    episodes = [
        Episode(np.full((9, 1), i, np.float32), np.zeros((8, 1)), np.zeros(8), np.zeros(8, bool)) for i in range(1000)
    ]
    source = verb.Source(DatasetInfo("", "counted"), iter(episodes), None)
    check, sample, _ = checks.check_source(source, seed=0)
    assert check.ok and len(sample["obs"]) == checks.SAMPLE
    assert 350 < sample["obs"].mean() < 650 and sample["obs"].min() < 150 and sample["obs"].max() > 850


def unmarked(steps: int) -> Episode:
    """A body that drifts and begins anew halfway, which no flag marks; another number never changes."""
    phase = np.arange(steps + 1) % ((steps + 1) // 2)
    obs = np.stack([phase, 3 - 0.1 * phase, np.ones(steps + 1)], axis=1)
    return Episode(obs, np.zeros((steps, 2)), np.zeros(steps), np.zeros(steps, bool))


def test_a_reset_that_no_flag_marks_is_found(tmp_path, capsys):
    whole, wrong = unmarked(99), unmarked(99)
    halves = [Episode(whole.obs[at : at + 50], *(values[at : at + 49] for values in whole[1:4])) for at in (0, 50)]
    good = write_dataset(tmp_path / "good", DatasetInfo("", "drift"), halves)
    bad = write_dataset(tmp_path / "bad", DatasetInfo("", "drift"), [halves[0], wrong])
    assert outcome(verb.validate(good.folder))["jumps"] is True
    said = "all begins anew in step 49 of episode 1: expected the end of an episode there"
    code, out, _ = command(capsys, "validate", bad.folder)
    assert code == 2 and f"FAILED  jumps         {said}" in out
    stream = verb.export_data(bad.folder, tmp_path / "stream", "exorl", quiet=True)
    assert outcome(verb.validate(stream))["jumps"] is False


def test_a_body_that_begins_elsewhere_is_found():
    drift = np.cumsum(np.full((120, 3), 0.1), axis=0)
    assert not checks.find_jumps(drift)
    drift[60:] += 40  # nowhere near the start
    assert checks.find_jumps(drift) == [59]


def test_a_simulators_resets_are_found():
    """The state after the reset is not the first one, but like it."""
    a, b = (episode.obs for episode in collect("dmc:cartpole_swingup", episodes=2, steps=100))
    assert checks.find_jumps(a) == checks.find_jumps(b) == []
    assert checks.find_jumps(np.concatenate([a, b])) == [100]


def test_contacts_and_new_goals_are_no_jumps():
    rng, steps = np.random.default_rng(0), 200
    speed = rng.normal(0, 0.01, (steps + 1, 3)).cumsum(axis=0)
    speed[100:] -= 20  # a blow
    goal = np.repeat(rng.normal(0, 9, (5, 1)), 41, axis=0)[: steps + 1]
    assert not checks.find_jumps(np.concatenate([(speed * 0.05).cumsum(axis=0), speed, goal], axis=1))
    assert not checks.find_jumps(np.eye(9)[rng.integers(9, size=steps + 1)])
    assert not checks.find_jumps(rng.normal(size=(steps + 1, 5)))


def test_an_episode_beyond_the_time_limit_is_said(tmp_path):
    obs = np.zeros((1202, 17), np.float32)
    episode = Episode(obs, np.zeros((1201, 6)), np.zeros(1201), np.zeros(1201, bool))
    data = write_dataset(tmp_path / "set", DatasetInfo("dmc:cheetah_run", "by hand"), [episode])
    found = {one.name: one for one in verb.validate(data.folder)}["time limit"]
    assert found.ok is None and "has 1,201 steps, and 'dmc:cheetah_run' ends after 1,000: resets may be" in found.detail


def test_observations_that_are_the_physics_are_not_compared_with_themselves(tmp_path):
    """Any numbers would be those of themselves."""
    info = DatasetInfo("point_mass_maze", "noise", (("qpos", 2), ("qvel", 2)), obs_is_physics=True)
    data = write_dataset(tmp_path / "set", info, make_episodes(obs_dim=4, physics=False))
    found = {one.name: one for one in verb.validate(data.folder)}["observations"]
    assert found.ok is None and found.detail == "they are the physics, so there is nothing to compare them with"


# --- relabel ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "task"), [("cheetah", "cheetah_run"), ("walker", "walker_walk")])
def test_the_collectors_rewards_come_back(request, capsys, tmp_path, name, task):
    data = request.getfixturevalue(name)
    code, out, _ = command(capsys, "relabel", data.folder, "--task", task, "--out", tmp_path / "r.npy")
    rewards = np.load(tmp_path / "r.npy")
    np.testing.assert_allclose(rewards, data.columns["reward"], atol=1e-6)  # 0 in the last rows.
    assert rewards.dtype == np.float32 and len(rewards) == data.info.rows
    returns = [episode.reward.sum() for episode in data.episodes()]
    assert code == 0 and f"{task}: the best episode returns {max(returns):.4g}, the mean {np.mean(returns):.4g}" in out
    np.testing.assert_allclose(verb.best_returns(data, task), returns, rtol=1e-5)


def check_relabelled(rewards: np.ndarray, data: Dataset) -> None:
    np.testing.assert_allclose(rewards, data.columns["reward"][all_rows(data)], atol=1e-6)


WRONG_LABELS = {
    "of the state before": lambda data, task, rows: task.reward(data.physics(rows), data.columns["action"][rows]),
    "of the next but one": lambda data, task, rows: task.reward(
        data.physics(np.minimum(rows + 2, data.info.rows - 1)), data.columns["action"][rows]),
    "of another task": lambda data, task, rows: verb.relabel_rows(data, "cheetah_run_backward", rows),
    "one off": lambda data, task, rows: np.roll(verb.relabel_rows(data, task, rows), 1),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_LABELS)
def test_wrong_labels_are_noticed(cheetah, wrong):
    task, rows = find_task("cheetah_run"), all_rows(cheetah)
    check_relabelled(verb.relabel_rows(cheetah, task, rows), cheetah)
    with pytest.raises(AssertionError):
        check_relabelled(WRONG_LABELS[wrong](cheetah, task, rows), cheetah)


def test_rows_are_labelled_one_by_one_as_together(walker, monkeypatch):
    rows = all_rows(walker)
    together = verb.relabel_rows(walker, "walker_run", rows)
    alone = [verb.relabel_rows(walker, "walker_run", rows[i : i + 1])[0] for i in (0, 11, 12, 35)]
    np.testing.assert_array_equal(alone, together[[0, 11, 12, 35]])
    returns = verb.best_returns(walker, "walker_run")
    monkeypatch.setattr(verb, "CHUNK", 7)
    np.testing.assert_array_equal(verb.best_returns(walker, "walker_run"), returns)
    np.testing.assert_allclose(returns, together.reshape(3, 12).sum(axis=1))


def test_rewards_that_read_the_action(tmp_path):
    """In the maze the action that led to a state counts, a fifth of the reward at full throttle."""
    obs = np.zeros((4, 4), np.float32)
    obs[:, :2] = (-0.15, 0.15)  # at the target
    action = np.array([[0, 0], [1, 1], [0, 1]], np.float32)
    data = write_dataset(
        tmp_path / "set",
        DatasetInfo("point_mass_maze", "by hand", (("qpos", 2), ("qvel", 2)), obs_is_physics=True),
        [Episode(obs, action, np.zeros(3), np.zeros(3, bool))],
    )
    found = verb.relabel_rows(data, "point_mass_maze_reach_top_left", np.arange(3))
    np.testing.assert_allclose(found, [1, 0.8, 0.9], atol=1e-6)


def test_the_file_lies_in_the_dataset(cheetah, tmp_path, capsys):
    folder = Path(shutil.copytree(cheetah.folder, tmp_path / "set"))
    found = verb.relabel(folder, "cheetah_walk", quiet=True)
    assert found["file"] == str(folder / "rewards" / "cheetah_walk.npy") and found["transitions"] == 36
    code, _, err = command(capsys, "relabel", folder, "--task", "cheetah_walk")
    assert code == 2 and "cheetah_walk.npy is there already" in err
    assert outcome(verb.validate(folder)) == WHOLE  # It is beside the data, not of it.


def test_a_task_that_looks_back(tmp_path):
    """The hurdles count what was passed in the step, so the state before it is asked for as well."""
    rng = np.random.default_rng(0)
    states = rng.uniform(-0.1, 0.1, (40, 18))
    states[:, 0] = np.linspace(0, 40, 40)
    episode = Episode(states, np.zeros((39, 6)), np.zeros(39), np.zeros(39, bool))
    info = DatasetInfo("half_cheetah_hurdle", "by hand", verb._make_spec("half_cheetah_hurdle").physics, True)
    data = write_dataset(tmp_path / "set", info, [episode])
    task = find_task("half_cheetah_hurdle")
    passed = verb.best_returns(data, task)
    assert passed.shape == (1,) and passed[0] >= 5 and passed[0] == round(passed[0])


# --- Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["inf", "noise"], "Unknown data command 'inf': did you mean 'info'?"),
        (["info"], "Argument PATH is missing: expected a path."),
        (["info", "none"], "none is not there: expected a dataset"),
        (["info", "empty"], "empty is of no known format"),
        (["info", "noise", "--format", "hdf5"], "Option '--format' is 'hdf5': expected one of auto, urlrl, run"),
        (["info", "noise", "--env", "dmc:walker_wlak"], "Unknown environment 'dmc:walker_wlak'"),
        (["convert", "--out", "out"], "Argument PATH is missing"),
        (["convert", "noise"], "Option '--out' is missing: expected the folder to write."),
        (["convert", "noise", "--out", "empty"], "empty is there already"),
        (["convert", "noise", "none", "--out", "out"], "none is not there"),
        (
            ["convert", "noise", "--out", "out", "--max-transitions", "0"],
            "max_transitions is 0: expected a number of at",
        ),
        (["convert", "noise", "--out", "out", "--max-transitions", "many"], "'--max-transitions' is 'many'"),
        (["convert", "noise", "--out", "out", "--evn", "point"], "Unknown option '--evn': did you mean '--env'?"),
        (
            ["convert", "noise", "--out", "out", "--env", "dmc:walker_walk"],
            "'physics' has 4 numbers per row: expected 18",
        ),
        (["convert", "noise", "--out", "file/out"], "Cannot write"),
        (["export", "noise", "--out", "empty"], "empty is there already"),
        (["export", "noise"], "Option '--out' is missing"),
        (
            ["export", "noise", "--out", "out", "--format", "d4rl"],
            "'--format' is 'd4rl': expected one of exorl, minari",
        ),
        (["relabel", "noise"], "Option '--task' is missing: expected one that `urlrl tasks` lists."),
        (["relabel", "empty", "--task", "walker_run"], "empty is not a dataset"),
        (["relabel", "noise", "--task", "walker_rum"], "Unknown task 'walker_rum': did you mean 'walker_run'?"),
        (["relabel", "noise", "--task", "walker_run"], "noise is of no known environment."),
        (["relabel", "cheetah", "--task", "walker_run"], "cheetah is of 'dmc:cheetah_run'."),
        (["relabel", "cheetah", "--task", "cheetah_run", "--out", "r.csv"], "the suffix '.csv': expected .npy"),
        (["relabel", "goals", "--task", "half_cheetah_goal"], "draws a goal in each episode"),
        (["relabel", "bare", "--task", "cheetah_run"], "bare has no physics: expected it"),
        (["relabel", "narrow", "--task", "cheetah_run"], "narrow has 17 numbers of physics per row: expected 18 of"),
        (["validate", "noise", "--seed", "-1"], "seed is -1"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(cheetah, noise, tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    shutil.copytree(cheetah.folder, "cheetah")
    episodes = list(cheetah.episodes())
    info = DatasetInfo("dmc:cheetah_run", "random")
    write_dataset("bare", info, episodes)
    write_dataset("narrow", replace(info, physics=(("qpos", 17),)), [e._replace(physics=e.obs) for e in episodes])
    write_dataset("goals", replace(info, env="half_cheetah", physics=(("qpos", 18),)), episodes)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = command(capsys, *argv)
    assert code == 2 and said in err and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_help(capsys):
    code, out, _ = command(capsys)
    assert code == 0 and all(
        f"urlrl data {name}" in out for name in ("info", "validate", "convert", "relabel", "export")
    )
    for name in ("info", "convert"):
        code, out, _ = command(capsys, name, "--help")
        assert code == 0 and "--env" in out


def test_an_environment_that_a_file_names_is_not_called(tmp_path):
    data = write_dataset(tmp_path / "set", DatasetInfo("antigravity:fly", "noise"), make_episodes(physics=False))
    found = verb.validate(data.folder)
    assert "is made only if --env antigravity:fly says so" in found[0].detail
    with pytest.raises(UserError, match="is of 'antigravity:fly'"):
        verb.best_returns(data, "walker_run")
    assert "antigravity" not in __import__("sys").modules


def test_a_shape_that_was_a_dataset_can_be_checked_again(noise, tmp_path):
    again = verb.convert(noise.folder, tmp_path / "again", quiet=True)
    assert_same_episodes(again.episodes(), make_episodes())
    assert verb.validate(again.folder) == verb.validate(noise.folder)
