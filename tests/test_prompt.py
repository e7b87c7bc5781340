"""Prompts: what is measured against numbers counted by hand, what is written, and one sentence for each mistake."""

import json
import re
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from PIL import Image
from run_tools import copy_of
from safetensors.numpy import save_file

from urlrl.agents.metra import Metra
from urlrl.cli import main
from urlrl.cli.prompt import show
from urlrl.envs import make_env
from urlrl.errors import UnsupportedPrompt, UserError
from urlrl.evaluation import figures, prompting, video
from urlrl.evaluation.figures import LIGHT, OverTime, draw_prompt
from urlrl.evaluation.rollout import play_random, rollout, uniform
from urlrl.types import EnvSpec, Trajectory, Transition
from urlrl.verbs.prompt import list_features, prompt

# --- Measures ---------------------------------------------------------------------------------------------------------


def trajectory_of(position, mask=None, physics=None, action=None) -> Trajectory:
    mask = np.ones((len(position) - 1, position.shape[1]), bool) if mask is None else mask
    nothing = np.zeros((*mask.shape, 1))
    steps = Transition(nothing, action, nothing[..., 0], nothing[..., 0] + 1, nothing, np.zeros((*mask.shape, 2)))
    return Trajectory(steps, mask, position, physics)


def test_r2():
    targets = np.array([1.0, 2.0, 3.0, 6.0])  # mean 3, variation 4 + 1 + 0 + 9 = 14
    assert prompting.r2(targets, targets) == 1
    assert prompting.r2(targets, np.full(4, 3.0)) == 0
    assert prompting.r2(targets, np.array([1.0, 2.0, 3.0, -1.0])) == pytest.approx(1 - 49 / 14)  # may be negative
    assert prompting.r2(np.ones(4), targets) is None


def test_rewards_and_returns_end_with_the_episode():
    physics = np.arange(4.0)[:, None, None] + np.array([0.0, 10.0])[None, :, None]  # (4, 2, 1)
    action = np.array([[0.5, 0.5], [3.0, -3.0], [0.0, 0.0]])[..., None]  # beyond [-1, 1] in the second step
    mask = np.array([[True, True], [True, True], [True, False]])
    trajectory = trajectory_of(physics, mask, physics, action)
    found = prompting.rewards_along(trajectory, lambda physics, action: physics[:, 0] + 100 * action[:, 0])
    # The state that was reached, 1, 2, 3 and 11, 12; not the one before, 0, 1, 2.
    np.testing.assert_array_equal(found, [[51, 61], [102, -88], [3, np.nan]])
    np.testing.assert_allclose(prompting.returns(found), [156, -27])
    np.testing.assert_allclose(prompting.returns(found, 0.5), [51 + 51 + 0.75, 61 - 44])  # gamma^0 for the first


def test_interval_is_students():
    found = prompting.interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    half = 2.7764451 * np.sqrt(2.5 / 5)  # t of 4 degrees of freedom; 1.96 would be a normal's
    assert found == pytest.approx({"mean": 3, "low": 3 - half, "high": 3 + half}, rel=1e-6)


def test_distances_to_a_demonstration_are_between_displacements():
    demo = np.array([[5.0, 5.0], [6.0, 5.0], [7.0, 5.0]])  # two steps of 1 m along x
    lanes = np.array([[[0.0, 0.0], [9.0, 9.0], [0.0, 0.0]],
                      [[1.0, 0.0], [9.0, 10.0], [2.0, 0.0]],
                      [[2.0, 0.0], [9.0, 11.0], [4.0, 0.0]],
                      [[3.0, 0.0], [9.0, 12.0], [6.0, 0.0]]])  # fmt: skip
    found = prompting.distances_to_demo(trajectory_of(lanes), demo)
    np.testing.assert_allclose(found, [[0, np.sqrt(2), 1], [0, np.sqrt(8), 2]])  # the demonstration ends here
    metrics = prompting.demo_metrics(trajectory_of(lanes), demo)
    assert metrics["distance"] == pytest.approx((0 + 1.5 * np.sqrt(2) + 1.5) / 3)
    assert metrics["cosine"] == pytest.approx((1 + 0 + 1) / 3)
    assert prompting.demo_metrics(trajectory_of(0 * lanes), demo)["cosine"] is None


def test_distances_to_a_goal():
    lanes = np.array([[[0.0], [0.0]], [[1.0], [4.0]], [[2.0], [5.0]]])
    mask = np.array([[True, True], [True, False]])
    np.testing.assert_array_equal(
        prompting.distances(trajectory_of(lanes, mask), np.array([3.0])), [[2, 1], [1, np.nan]]
    )


class Linear(SimpleNamespace):
    """Explains a reward by the first entry of the observation, with the slope of what it was shown."""

    abilities = frozenset({"told", "predicts"})

    def read(self, given, seen, key):
        self.shown = len(given.steps.reward)
        return jnp.float32(np.polyfit(given.steps.obs[:, 0], given.steps.reward, 1))

    def predict_reward(self, task, batch):
        return task[0] * batch.obs[:, 0] + task[1]


def test_what_is_not_shown_is_held_out_a_fifth_at_least(monkeypatch):
    monkeypatch.setattr(prompting.jax, "jit", lambda function: function)
    rng = np.random.default_rng(0)
    obs, noise = rng.standard_normal((100, 2)), 0.1 * rng.standard_normal(100)
    column = np.zeros(100)
    steps = Transition(obs, column[:, None], 3 * obs[:, 0] + 1 + noise, column + 1, obs, column[:, None])
    agent = Linear()
    for samples, shown in ((30, 30), (80, 80), (100, 80)):
        _, fit = prompting.read_reward(agent, steps, samples, seed=0)
        assert (fit["samples"], fit["held_out"], agent.shown) == (100, 100 - shown, shown) and 0.98 < fit["r2"] < 1
    with pytest.raises(UserError, match="The reward is 2 in all of 30 transitions"):
        prompting.read_reward(agent, steps._replace(reward=column + 2), 30, seed=0)


def test_more_samples_are_the_same_ones_and_further_ones():
    class Keeps:
        abilities = frozenset({"told", "predicts"})

        def read(self, given, seen, key):
            self.shown = given.steps.reward
            return jnp.float32(0)

        def predict_reward(self, task, batch):
            return task + 0 * batch.reward

    kept, n = [], 200
    numbers = np.arange(n, dtype=np.float32)
    steps = Transition(numbers[:, None], numbers[:, None], numbers, numbers, numbers[:, None], numbers[:, None])
    for samples in (4, 32, 150):
        agent = Keeps()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(prompting.jax, "jit", lambda function: function)
            prompting.read_reward(agent, steps, samples, seed=0)
        kept.append(set(agent.shown.tolist()))
    assert [len(some) for some in kept] == [4, 32, 150] and kept[0] < kept[1] < kept[2]
    assert prompting.labelled_count(32) == prompting.labelled_count(5120) == 6400


@pytest.mark.parametrize(
    ("name", "options", "columns"),
    [("ant", {}, [0, 1]), ("half_cheetah", {}, [0]), ("dmc:cheetah_run", {"root_position": True}, [0])],
)
def test_where_an_observation_shows_the_position(name, options, columns):
    env = make_env(name, 2, **options)
    env.reset(seed=0)
    assert prompting.position_columns(env) == columns
    np.testing.assert_allclose(env.reset(seed=1)[0][:, columns], env.position())
    env.close()


# --- The verb ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(whole_run, tmp_path_factory):
    figures.DPI, dpi = 50, figures.DPI
    yield shutil.copytree(whole_run, tmp_path_factory.mktemp("prompted") / "run")
    figures.DPI = dpi


def command(capsys, *argv) -> tuple[int, str, str]:
    try:
        main(["prompt", *map(str, argv)])
        code = 0
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_reward(run, capsys, tmp_path):
    found = prompt(run, "-vx - 0.01 * energy", samples=200, json_file=tmp_path / "r.json")
    folder = run / "prompts"
    (made,) = [path for path in folder.iterdir() if path.name.startswith("vx-0-01-energy-")]
    assert {path.name for path in made.iterdir()} == {"result.json", "trajectory.png"}
    assert json.loads((made / "result.json").read_text()) == json.loads((tmp_path / "r.json").read_text()) == found
    assert found["kind"] == "reward" and found["fit"]["samples"] - found["fit"]["held_out"] == 200
    assert found["tail"] == pytest.approx(0.99**15) and found["episode_steps"] == 15
    assert found["return"]["low"] < found["return"]["mean"] < found["return"]["high"]
    assert (
        found["zero_return"]["mean"] == found["zero_discounted_return"]["mean"] == 0
    )  # Who does nothing has no speed.
    assert np.linalg.norm(found["z"]) == pytest.approx(1) and abs(found["return"]["mean"]) <= 15.15
    assert len(Image.open(made / "trajectory.png").convert("RGB").getcolors(1 << 24)) > 50
    show(found)
    assert "0.99^15 = 0.86" in capsys.readouterr().out and found == json.loads((made / "result.json").read_text())
    # The one with the other sign is another folder, and a reward may begin with a minus.
    code, out, _ = command(capsys, run, "-vx", "--samples", 200)
    assert code == 0 and "predicted, discounted" in out and "0.99^15 = 0.86" in out
    size = abs(found["reliability"]["too_low_by"])
    show(found)
    assert (
        re.search(r"agent +random policy +zero action", out)
        and f"about {size:.3g} too" in capsys.readouterr().out
        and "Trust their order" in out
    )
    code, _, _ = command(capsys, run, "vx", "--samples", 200)
    assert code == 0 and len([path for path in folder.iterdir() if path.name.startswith("vx-")]) == 3


def test_opposite_rewards_are_mirror_images(run, tmp_path):
    """Labels, prediction and random return are linear in the reward; a sign that is lost on the way shows here."""
    a, b = (prompt(run, text, samples=300, out=tmp_path / str(i)) for i, text in enumerate(("vx", "-vx")))
    np.testing.assert_allclose(a["z"], -np.array(b["z"]), atol=1e-5)
    assert a["fit"]["r2"] == pytest.approx(b["fit"]["r2"], abs=1e-4)
    assert a["random_return"]["mean"] == pytest.approx(-b["random_return"]["mean"])


def test_a_goal_is_measured_in_every_episode(run, tmp_path):
    found = prompt(run, goal={"y": -1.0, "x": 0.5}, out=tmp_path)
    assert found["prompt"] == "x=0.5,y=-1" and found["goal"] == [0.5, -1.0]
    assert found["zero action"]["closest_distance"] == pytest.approx(found["zero action"]["final_distance"])
    for who in ("agent", "random", "zero action"):
        assert found[who]["closest_distance"] <= found[who]["final_distance"]
    again = prompt(run, goal={"x": 0.5, "y": -1.0}, out=tmp_path / "b")
    assert again["agent"] == found["agent"]


def test_the_goals_distances_are_those_of_all_lanes(run, tmp_path, monkeypatch):
    played = []
    monkeypatch.setattr("urlrl.verbs.prompt.play", lambda env, *_: played.append(play_random(env, 3)) or played[-1])
    found = prompt(run, goal={"x": 1.0, "y": 1.0}, out=tmp_path)
    by_hand = np.linalg.norm(played[0].position[-1] - 1, axis=-1)
    assert len(by_hand) == prompting.EPISODES and found["agent"]["final_distance"] == pytest.approx(by_hand.mean())


def test_a_demonstration_from_every_kind_of_file(run, tmp_path, capsys):
    path = np.stack([np.linspace(0, 1, 11), np.linspace(0, -1, 11)], axis=1)
    np.save(tmp_path / "walk.npy", path)
    save_file({"obs": path.astype(np.float32), "action": path}, tmp_path / "walk.safetensors")
    np.savetxt(tmp_path / "walk.csv", path, delimiter=",", header="x,y", comments="")
    np.savetxt(tmp_path / "bare.csv", path, delimiter=",")
    files = ("walk.npy", "walk.safetensors", "walk.csv", "bare.csv")
    found = [prompt(run, demo=given, out=tmp_path / "out") for given in (path, *(tmp_path / file for file in files))]
    assert all(one["agent"] == found[0]["agent"] and one["demo_steps"] == 10 for one in found)
    assert -1 <= found[0]["agent"]["cosine"] <= 1 and found[0]["agent"]["distance"] >= 0
    code, out, _ = command(capsys, run, "--demo", tmp_path / "walk.npy")
    assert code == 0 and "cosine of the way" in out


def test_names_are_listed(run, capsys):
    code, out, _ = command(capsys, run, "--list")
    assert code == 0 and all(name in out for name in list_features(run)) and "m/s" in out


def test_a_goal_needs_no_replay_but_a_reward_does(run, tmp_path, capsys):
    bare = copy_of(run, tmp_path)
    shutil.rmtree(bare / "replay")
    assert command(capsys, bare, "--goal", "x=1,y=1", "--out", tmp_path / "out")[0] == 0
    code, _, err = command(capsys, bare, "vx")
    assert code == 2 and "has no transitions in its folder replay/" in err


def test_a_video_that_cannot_be_is_a_note(run, tmp_path, capsys):
    code, out, _ = command(capsys, run, "--goal", "x=1,y=1", "--out", tmp_path / "o", "--video", tmp_path / "v.mp4")
    assert code == 0 and "has no MuJoCo model to render: there is no video." in out
    assert not (tmp_path / "v.mp4").exists()


def test_an_agent_that_cannot_follow_says_so(run, tmp_path, capsys, monkeypatch):
    def refuse(self, given, seen, key):
        raise UnsupportedPrompt(f"Mine cannot follow a {type(given).__name__}: expected a smile.")

    monkeypatch.setattr(Metra, "read", refuse)
    for asked, named in ((["vx"], "RewardPrompt"), (["--goal", "x=1,y=1"], "GoalPrompt")):
        code, out, err = command(capsys, run, *asked, "--out", tmp_path / "out")
        assert (code, out) == (2, "") and err == f"urlrl: Mine cannot follow a {named}: expected a smile.\n"
    assert not (tmp_path / "out").exists()


BAD_FILES = {
    "wide.npy": lambda path: np.save(path, np.zeros((5, 3))),
    "nan.npy": lambda path: np.save(path, np.array([[0, 0], [0, np.nan]])),
    "short.npy": lambda path: np.save(path, np.zeros((1, 2))),
    "words.npy": lambda path: np.save(path, np.array([["a", "b"], ["c", "d"]])),
    "pickled.npy": lambda path: np.save(path, np.array([{"a": 1}], object), allow_pickle=True),
    "torn.npy": lambda path: path.write_bytes(b"\x93NUMPY"),
    "ragged.csv": lambda path: path.write_text("1,2\n1,2,3\n"),
    "binary.csv": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "empty.csv": lambda path: path.write_text(""),
    "torn.safetensors": lambda path: path.write_bytes(b"\x08"),
    "unnamed.safetensors": lambda path: save_file({"a": np.zeros((2, 2)), "b": np.zeros((2, 2))}, path),
    "shard.safetensors": lambda path: save_file({"obs": np.zeros((2, 2)), "next_obs": np.zeros((2, 2))}, path),
    "demo.txt": lambda path: path.write_text("1,2\n3,4\n"),
}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["vz"], "Unknown name 'vz' in the reward: did you mean"),
        (["vx.real"], "'vx.real'"),
        ([""], "not one expression"),
        (["1 / (x - x)"], "not finite in"),
        (["where(x > 1e6, 1, 0)"], "The reward is 0 in all of"),
        (["vx", "--goal", "x=1,y=1"], "The prompt is reward and goal: expected one"),
        ([], "The prompt is missing"),
        (["--goal", "x=1"], "The goal has no y: expected x, y."),
        (["--goal", "x=1,y=1,z=1"], "coordinate 'z': expected x, y."),
        (["--goal", "x=1,y=up"], "y = 'up': expected a number of metres."),
        (["--goal", "x=1,y=nan"], "y = nan: expected a finite number of metres."),
        (["--goal", "x=1,y=1e300"], "y = 1e+300: expected a finite number of metres."),
        (["--goal", "x=1,x=1"], "expected each coordinate once"),
        (["--goal", "5"], "expected each coordinate once"),
        (["--demo", "none.npy"], "none.npy cannot be read: No such file"),
        (["--demo", "wide.npy"], "float64 of shape (5, 3): expected numbers of shape (T, 2)"),
        (["--demo", "nan.npy"], "nan.npy is not finite in row 1"),
        (["--demo", "short.npy"], "of shape (1, 2): expected numbers of shape (T, 2), T at least 2"),
        (["--demo", "words.npy"], "expected numbers"),
        (["--demo", "pickled.npy"], "holds Python objects"),
        (["--demo", "torn.npy"], "torn.npy cannot be read"),
        (["--demo", "ragged.csv"], "ragged.csv cannot be read"),
        (["--demo", "binary.csv"], "binary.csv cannot be read"),
        (["--demo", "empty.csv"], "expected numbers of shape"),
        (["--demo", "torn.safetensors"], "torn.safetensors cannot be read"),
        (["--demo", "unnamed.safetensors"], "holds a, b: expected a tensor 'obs'"),
        (["--demo", "shard.safetensors"], "holds transitions, of many episodes"),
        (["--demo", "demo.txt"], "the suffix '.txt'"),
        (["vx", "--video", "v.gif"], "the suffix '.gif': expected .webp or .mp4"),
        (["vx", "--json", "nowhere/x.json"], "there is no folder nowhere"),
        (["vx", "--samples", "0"], "samples is 0"),
        (["vx", "--seed", "-1"], "seed is -1"),
        (["vx", "--step", "7"], "no checkpoint at step 7"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_bad_input_is_one_sentence_and_nothing_is_written(run, tmp_path, monkeypatch, capsys, asked, said):
    monkeypatch.chdir(tmp_path)
    for name, make in BAD_FILES.items():
        if name in asked:
            make(tmp_path / name)
    before = sorted(run.rglob("*")) + sorted(tmp_path.rglob("*"))
    code, out, err = command(capsys, run, *asked)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert sorted(run.rglob("*")) + sorted(tmp_path.rglob("*")) == before


def test_an_environment_without_features_says_so(run, tmp_path, capsys):
    copy = copy_of(run, tmp_path)
    manifest = json.loads((copy / "config.json").read_text())
    manifest["config"]["env"] = "gym:Pendulum-v1"
    (copy / "config.json").write_text(json.dumps(manifest))
    code, _, err = command(capsys, copy, "--list")
    assert code == 2 and "has no named features" in err


# --- Pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0, 1, 2])
@pytest.mark.parametrize("mark", ["goal", "demo", None])
def test_figure(p, mark, monkeypatch):
    monkeypatch.setattr(figures, "DPI", 50)
    rng = np.random.default_rng(0)
    mine, random = (rng.standard_normal((21, 4, max(p, 1))).cumsum(axis=0) for _ in range(2))
    mask = np.ones((20, 4), bool)
    mask[9:] = False  # All end early: no mean of nothing.
    spec = EnvSpec("ant", 29, 8, 20, 0.05, position=("x", "y")[:p])
    values = np.where(mask, rng.standard_normal((20, 4)), np.nan)
    marks = {} if mark is None or not p else {mark: {"goal": np.ones(p), "demo": np.ones((30, p))}[mark]}
    along = OverTime("reward", values, values[:5])
    figure = draw_prompt(trajectory_of(mine, mask), trajectory_of(random), spec, along, LIGHT, **marks)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    shown = [{"goal": "goal", "demo": "demonstration"}[name] for name in marks]
    assert labels == ["agent", "random policy", *shown] and len(figure.axes) == 1 + bool(p)
    figure.canvas.draw()


def test_a_maze_is_drawn_with_its_walls(monkeypatch):
    monkeypatch.setattr(figures, "DPI", 50)
    env = make_env("maze:rooms", 3)
    env.reset(seed=0)
    walk = rollout(env, uniform(env.env_spec), jax.random.key(0), 0, 5)
    walk = walk._replace(steps=walk.steps._replace(z=np.eye(3, 2)[None].repeat(5, axis=0)))
    for figure in (
        draw_prompt(walk, walk, env.env_spec, None, LIGHT),
        figures.draw_skills(walk, env.env_spec, "sphere", LIGHT),
    ):
        (image,) = figure.axes[0].images
        drawn = np.asarray(image.get_array())[..., 3] > 0  # Lowest row first, with an edge of one cell around.
        assert image.origin == "lower" and image.get_extent() == [-5, 5, -5, 5]
        assert np.array_equal(drawn[1:-1, 1:-1], env.walls) and drawn.sum() == env.walls.sum() + 36
        figure.canvas.draw()


BALL = """<mujoco><worldbody><geom type="plane" size="5 5 1"/><light pos="0 0 3"/>
<body pos="0 0 .5"><freejoint/><geom size=".3" rgba="1 0 0 1"/></body></worldbody></mujoco>"""


def test_an_mp4_shows_the_body(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    model = mujoco.MjModel.from_xml_string(BALL)
    qpos = np.tile(np.r_[0, 0, 0.5, 1, 0, 0, 0], (8, 1, 1))
    said = video.render_video(model, qpos, tmp_path / "new" / "ball.mp4", fps=10, labels=["ball"])
    if said is not None:
        assert video.find_gl() is None
        pytest.skip("no GL backend renders off screen here")
    frames = ffmpeg.read_frames(str(tmp_path / "new" / "ball.mp4"))
    about = next(frames)
    assert about["size"] == (480, 360) and about["fps"] == 10 and about["codec"] == "h264"
    pictures = [np.frombuffer(frame, np.uint8).reshape(360, 480, 3).astype(int) for frame in frames]
    assert len(pictures) == 8 and (pictures[-1][..., 0] > 2 * pictures[-1][..., 1]).mean() > 0.005
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ball.mp4"]


def test_mp4_without_its_encoder_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package imageio-ffmpeg"):
        video.check_video(tmp_path / "a.mp4")
    video.check_video(tmp_path / "a.webp")
