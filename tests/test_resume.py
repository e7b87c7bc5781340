"""A run that was stopped, killed or damaged continues exactly, or says why not and touches nothing."""

import dataclasses
import shutil
import signal
import subprocess
from itertools import count
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from kill_tools import killed_at
from run_tools import (
    TINY,
    assert_same,
    command,
    copy_of,
    damage_checkpoint,
    final_state,
    saved_arrays,
    transitions,
    wait_for,
)

import urlrl
from urlrl.agents.uniform import UniformConfig
from urlrl.envs.point import PointEnv
from urlrl.errors import UserError
from urlrl.training import checkpoint
from urlrl.training.checkpoint import Checkpoints
from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder
from urlrl.types import BatchSpec

# Of `killed_at`; WINDOW is of a run that drops old transitions.
MOMENTS = {  # An epoch is 40 steps; each is followed by a checkpoint, of two parts.
    "writing config.json": ("os:replace", "before", 1, r"config\.json$"),
    "the untrained agent was evaluated": ("urlrl.training.log:MetricsLog.write", "after", 1, ""),
    "collecting": ("urlrl.envs.point:PointEnv.step", "before", 110, r" \(2, 2\)$"),
    "learned and logged half a row": ("urlrl.training.host:Host.epoch", "after", 5, ""),
    "the first shard's rename": ("os:replace", "before", 1, r"\.safetensors$"),
    "between shard and checkpoint": ("os:replace", "after", 5, r"\.safetensors$"),
    "between the parts of a checkpoint": ("orbax.checkpoint:Checkpointer.save", "after", 7, ""),
    "the first checkpoint's rename": ("os:replace", "before", 1, r"/checkpoints/\d+$"),
    "deleting an old checkpoint": ("shutil:rmtree", "amid", 3, r"/checkpoints/(\.deleting-)?\d+$"),
}


WINDOW = {  # The first one alone is no slow test.
    "between two old shards": ("pathlib:Path.unlink", "after", 2, r"/replay/\d+-\d+\.safetensors$"),
    "before the first old shard is deleted": ("pathlib:Path.unlink", "before", 1, r"/replay/\d+-\d+\.safetensors$"),
    "after the part of the agent": ("orbax.checkpoint:Checkpointer.save", "after", 13, ""),
}


QUICK = ("writing config.json", "collecting", "learned and logged half a row", "between the parts of a checkpoint")


@pytest.mark.parametrize("moment", [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in MOMENTS])
def test_a_run_killed_at_any_moment_continues_exactly(whole_run, tmp_path, moment):
    run = tmp_path / "run"
    killed_at(MOMENTS[moment], f"import urlrl, run_tools; urlrl.pretrain(run_tools.TINY, {str(run)!r}, quiet=True)")
    if "half a row" in moment:
        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step": 200, "phi/lo')
    urlrl.pretrain(TINY, run, quiet=True)
    assert_same(final_state(whole_run), final_state(run))
    np.testing.assert_equal(transitions(run), transitions(whole_run))  # Also those that it no longer learns from.
    for folder in (".", "checkpoints", "replay"):  # Nothing is left over.
        assert names(run / folder) == names(whole_run / folder)


@pytest.mark.parametrize("moment", [pytest.param(m, marks=pytest.mark.slow if i else ()) for i, m in enumerate(WINDOW)])
def test_a_run_that_drops_old_transitions_is_killed_and_continues_exactly(whole_run, tmp_path, moment):
    run, config = tmp_path / "run", dataclasses.replace(TINY, keep_data="window")
    program = (
        "import dataclasses, urlrl, run_tools; "
        f"urlrl.pretrain(dataclasses.replace(run_tools.TINY, keep_data='window'), {str(run)!r}, quiet=True)"
    )
    killed_at(WINDOW[moment], program)
    assert RunFolder(run).checkpoints.steps()[-1] in range(40, 320)
    urlrl.pretrain(config, run, quiet=True)
    assert_same(final_state(whole_run), final_state(run))
    assert transitions(run)[0] == 120  # What the older checkpoint, of 280, needs of 150; nothing is left over.


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sigkill_from_outside(whole_run, tmp_path):
    """The real thing, at a moment that nobody chose."""
    run = tmp_path / "run"
    process = subprocess.Popen(command(run, "--steps", "320"), stdout=subprocess.DEVNULL)
    wait_for(lambda: list((run / "checkpoints").glob("[0-9]*")), process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    urlrl.pretrain(TINY, run, quiet=True)
    assert_same(final_state(whole_run), final_state(run))


@pytest.mark.parametrize(("env", "normalizer"), [("half_cheetah", "preset"), ("dmc:walker_walk", "off")])
def test_mujoco_continues_in_the_middle_of_an_episode(tmp_path, env, normalizer):
    config = dataclasses.replace(TINY, env=env, normalizer=normalizer, eval_every=0, steps=160, checkpoint_minutes=60)
    whole = urlrl.pretrain(config, tmp_path / "whole", quiet=True)
    run = urlrl.pretrain(dataclasses.replace(config, steps=80), tmp_path / "run", quiet=True)
    np.testing.assert_array_equal(saved_arrays(run)["loop['env']['clock']"], [10, 10])  # of 15 steps
    urlrl.pretrain(config, run, quiet=True)
    assert_same(final_state(whole), final_state(run))


@pytest.fixture(scope="module")
def window_run(tmp_path_factory):
    """A run that keeps only what it needs, up to step 200: its checkpoints are of 160 and 200."""
    config = dataclasses.replace(TINY, keep_data="window", steps=200)
    return urlrl.pretrain(config, tmp_path_factory.mktemp("window") / "run", quiet=True)


@pytest.mark.parametrize("through_all", [False, True])
def test_a_window_holds_all_that_the_older_checkpoint_needs(whole_run, window_run, tmp_path, capsys, through_all):
    run = copy_of(window_run, tmp_path)
    config = dataclasses.replace(TINY, keep_data="window")
    if through_all:  # Now keep everything. Nothing is left to do, so the checkpoints stay what they are.
        config = TINY
        urlrl.pretrain(dataclasses.replace(config, steps=200), run, quiet=True)
    name = damage_checkpoint(run, 200, "flip")
    urlrl.pretrain(config, run, quiet=True)
    assert name in capsys.readouterr().err
    assert_same(final_state(whole_run), final_state(run))


def test_files_of_others_are_left_alone(window_run, tmp_path):
    run = copy_of(window_run, tmp_path)
    theirs = {"notes.txt", "best.safetensors", ".hidden", "plots/coverage.svg", "000-notes.safetensors.txt"}
    for name in theirs:
        (run / "replay" / name).parent.mkdir(exist_ok=True)
        (run / "replay" / name).write_text("theirs")
    for keep_data in ("window", "all"):
        steps = {"window": 240, "all": 280}[keep_data]
        urlrl.pretrain(dataclasses.replace(TINY, keep_data=keep_data, steps=steps), run, quiet=True)
        assert theirs <= contents(run / "replay").keys()


def assert_refused(run: Path, culprit: str, config=TINY) -> None:
    """The run is not continued, all that was there is as it was, and one sentence names the culprit."""
    before = contents(run)
    with pytest.raises(UserError) as refusal:
        urlrl.pretrain(config, run, quiet=True)
    after, sentence = contents(run), str(refusal.value)
    assert not {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert culprit in sentence and sentence.endswith(".") and ". " not in sentence and "\n" not in sentence


def test_a_damaged_shard_that_every_checkpoint_needs_is_named_and_nothing_is_touched(whole_run, tmp_path):
    run = copy_of(whole_run, tmp_path)
    shard = run / "replay" / "000000000200-000000000240.safetensors"  # 280 needs [130, 280), 320 needs [170, 320).
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert_refused(run, shard.name)
    arrays = saved_arrays(whole_run)
    agent, _ = urlrl.load(run)
    bias = agent.phi.params["Dense_0"]["bias"]
    np.testing.assert_array_equal(bias, arrays["agent['phi']['params']['Dense_0']['bias']"])


@pytest.mark.parametrize("seed", [0, 1])
def test_data_without_checkpoints_is_refused(whole_run, tmp_path, seed):
    run = copy_of(whole_run, tmp_path)
    shutil.rmtree(run / "checkpoints")
    assert_refused(run, str(run), dataclasses.replace(TINY, seed=seed))


class Uneven(gymnasium.Env):
    """Observes (a number of this episode's own, steps so far, the sum of actions); ends after 3 to 12 steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.last = self.np_random.integers(3, 13)
        self.state = np.array([self.np_random.random(), 0.0, 0.0])
        return self.state.copy(), {}

    def step(self, action):
        self.state += (0.0, 1.0, action[0])
        return self.state.copy(), 0.0, bool(self.state[1] == self.last), False, {}


UNEVEN = dataclasses.replace(
    TINY,
    agent=dataclasses.replace(TINY.agent, batch=BatchSpec(size=32, timeout_as_terminal=True)),  # Reads `truncated`.
    env=f"{__name__}:Uneven",
    normalizer="off",
    episode_steps=None,
    checkpoint_minutes=60,
)


@pytest.fixture(scope="module")
def uneven_run(tmp_path_factory):
    """An undisturbed run of an environment whose state cannot be saved."""
    return urlrl.pretrain(UNEVEN, tmp_path_factory.mktemp("uneven") / "run", quiet=True)


def check_episodes(rows: dict[str, np.ndarray], begun: slice = slice(0)) -> None:
    """Rows of two lanes: each follows from the row two before it, but where that one terminated or in `begun`, where
    a new episode begins."""
    fresh = rows["terminated"][:-2].copy()
    fresh[begun] = True
    before, after = {k: v[:-2] for k, v in rows.items()}, {k: v[2:] for k, v in rows.items()}
    for old, new in (("next_obs", "obs"), ("z", "z")):
        assert (before[old] == after[new]).all(axis=1)[~fresh].all(), new
        assert (before[old] != after[new]).any(axis=1)[fresh].all(), new
    assert (after["obs"][fresh, 1] == 0).all() and fresh.sum() > 20
    assert (rows["terminated"][::2] != rows["terminated"][1::2]).sum() > 10  # The lanes do not end together.


def check_truncated(rows: dict[str, np.ndarray], saves: list[int]) -> None:
    """On disk the running episodes end where the run can be continued, and nowhere else."""
    at_save = np.isin(np.arange(len(rows["truncated"])) // 2 * 2 + 2, saves)
    np.testing.assert_array_equal(rows["truncated"], at_save & ~rows["terminated"])


def test_checkpoints_do_not_disturb_an_environment_that_cannot_save_its_state(uneven_run, tmp_path, capsys):
    often = urlrl.pretrain(dataclasses.replace(UNEVEN, checkpoint_minutes=0), tmp_path / "run", quiet=True)
    assert "cannot save its state" in capsys.readouterr().err
    (_, rarely), (_, rows) = transitions(uneven_run), transitions(often)
    check_episodes(rarely)
    check_truncated(rarely, [120, 240, 320])  # The ring holds 150, so 120 is the last chance to save the first.
    check_truncated(rows, list(range(40, 321, 40)))
    for name in rows.keys() - {"truncated"}:
        np.testing.assert_array_equal(rows[name], rarely[name])
    assert final_state(often)["metrics"] == final_state(uneven_run)["metrics"]


def test_a_resumed_environment_that_cannot_save_its_state_begins_new_episodes(uneven_run, tmp_path):
    run = urlrl.pretrain(dataclasses.replace(UNEVEN, steps=160), tmp_path / "run", quiet=True)
    urlrl.pretrain(UNEVEN, run, quiet=True)
    (_, whole), (_, rows) = transitions(uneven_run), transitions(run)
    check_episodes(rows, begun=slice(158, 160))
    assert not set(rows["obs"][160:, 0]) & set(rows["obs"][:160, 0])
    check_truncated(rows, [120, 160, 280, 320])
    for name in rows.keys() - {"truncated"}:
        np.testing.assert_array_equal(rows[name][:160], whole[name][:160])
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == list(range(40, 321, 40))


class Breaks(Uneven):
    """Observes a NaN after 5 steps of an episode of 11."""

    def step(self, action):
        obs, *rest = super().step(action)
        return np.full(3, np.nan) if self.last == 11 and obs[1] == 5 else obs, *rest


class Raises(Uneven):
    """An error of its own."""

    def step(self, action):
        if self.last == 11 and self.state[1] == 5:
            raise ZeroDivisionError("of the user")
        return super().step(action)


@pytest.mark.parametrize(("name", "error"), [("Breaks", UserError), ("Raises", ZeroDivisionError)])
def test_a_run_whose_environment_fails_is_saved_first(tmp_path, capsys, name, error):
    config = dataclasses.replace(UNEVEN, env=f"{__name__}:{name}")
    with pytest.raises(error, match="non-finite observation|of the user"):
        urlrl.pretrain(config, tmp_path, quiet=True)
    saved = RunFolder(tmp_path).checkpoints.steps()[-1]
    assert saved == read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] > 0
    assert f"The run is saved at step {saved}." in capsys.readouterr().err


def test_a_run_whose_environment_fails_within_an_epoch_goes_on_bit_for_bit(whole_run, tmp_path, monkeypatch):
    """It is saved as it was before the epoch: what was stepped and stored since is undone."""
    config, steps, step = dataclasses.replace(TINY, checkpoint_minutes=60), count(), PointEnv._step

    def fails(env, actions):
        if env.num_envs == TINY.num_envs and next(steps) == 90:  # In the fifth epoch, whose start is not saved.
            raise ZeroDivisionError
        return step(env, actions)

    with monkeypatch.context() as patch:
        patch.setattr(PointEnv, "_step", fails)
        with pytest.raises(ZeroDivisionError):
            urlrl.pretrain(config, tmp_path, quiet=True)
    assert RunFolder(tmp_path).checkpoints.steps()[-1] == 160
    urlrl.pretrain(config, tmp_path, quiet=True)
    assert_same(final_state(whole_run) | {"metrics": {}}, final_state(tmp_path) | {"metrics": {}})


def test_a_run_whose_evaluation_fails_is_saved_first(whole_run, tmp_path, monkeypatch):
    def fails(agent, step):
        if step:
            raise UserError("The evaluation failed.")
        return {}

    config = dataclasses.replace(TINY, checkpoint_minutes=60)
    with monkeypatch.context() as patch:
        patch.setattr("urlrl.verbs.pretrain.skill_metrics", lambda config, env: fails)
        with pytest.raises(UserError, match="The evaluation failed"):
            urlrl.pretrain(config, tmp_path, quiet=True)
    assert RunFolder(tmp_path).checkpoints.steps() == [120]  # The first epoch's end after step 100.
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 120
    urlrl.pretrain(config, tmp_path, quiet=True)
    assert_same(final_state(whole_run) | {"metrics": {}}, final_state(tmp_path) | {"metrics": {}})


def test_what_is_not_finite_ends_the_episode_where_the_user_asks_for_it(tmp_path, caplog):
    config = dataclasses.replace(UNEVEN, env=f"{__name__}:Breaks")
    with pytest.raises(UserError, match="non-finite observation"):
        urlrl.pretrain(config, tmp_path, quiet=True)
    saved = RunFolder(tmp_path).checkpoints.steps()[-1]
    urlrl.pretrain(dataclasses.replace(config, on_nonfinite="end", steps=640), tmp_path, quiet=True)
    _, rows = transitions(tmp_path)
    assert len(rows["obs"]) == 640 and all(np.isfinite(column).all() for column in rows.values())
    broken = (rows["obs"] == rows["next_obs"]).all(axis=1)
    assert rows["truncated"][broken].all() and (rows["obs"][broken, 1] == 4).all()
    assert broken.sum() > 1 and not broken[:saved].any()
    after = np.flatnonzero(broken)[:-1] + 2  # The next row of the lane.
    assert (rows["obs"][after, 1] == 0).all()
    assert "(lane" in caplog.text and "This is number 2 of such episodes." in caplog.text


# --- arrays without elements: the skills of an agent that has none


def check_empty_arrays(folder):
    state = {"z": np.zeros((4, 0), np.float32), "none": np.zeros(0, np.int64), "w": np.arange(6.0).reshape(2, 3)}
    Checkpoints(folder).save(7, {"loop": state}, {"step": 7})
    like = {name: np.ones_like(array) for name, array in state.items()}
    parts, info = Checkpoints(folder).restore(7, {"loop": like})
    assert info["step"] == 7 and parts["loop"].keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(parts["loop"][name], array, strict=True)


def test_arrays_without_elements_come_back(tmp_path):
    check_empty_arrays(tmp_path)


def test_saving_them_as_they_are_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_storable", lambda state: state)
    with pytest.raises(UserError, match="Cannot write checkpoint"):
        check_empty_arrays(tmp_path)


@pytest.mark.parametrize("saved, wanted", [((3, 2), (3, 0)), ((3, 0), (3, 2))])
def test_an_array_without_elements_is_not_taken_for_another(tmp_path, saved, wanted):
    Checkpoints(tmp_path).save(1, {"loop": {"z": np.ones(saved, np.float32)}}, {"step": 1})
    with pytest.raises(UserError, match="Checkpoint .* (does not fit this run's config|has shape)"):
        Checkpoints(tmp_path).restore(1, {"loop": {"z": np.zeros(wanted, np.float32)}})


def test_a_run_of_an_agent_without_skills_continues_exactly(tmp_path):
    config = dataclasses.replace(TINY, agent=UniformConfig(), agent_name="uniform", steps_per_update=0, eval_every=0)
    whole = urlrl.pretrain(config, tmp_path / "whole", quiet=True)
    run = urlrl.pretrain(dataclasses.replace(config, steps=160), tmp_path / "run", quiet=True)
    urlrl.pretrain(config, run, quiet=True)
    assert_same(final_state(whole), final_state(run))
    assert transitions(run)[1]["z"].shape == (320, 0)
    with pytest.raises(AssertionError):  # What tells a run apart from one with other random numbers.
        other = urlrl.pretrain(dataclasses.replace(config, seed=1), tmp_path / "other", quiet=True)
        assert_same(final_state(whole), final_state(other))
