"""The report: self-contained, escaped, tolerant of what is missing, and with figures that show something."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import mujoco
import numpy as np
import pytest
from PIL import Image

from urlrl.cli.report import show_seeds
from urlrl.errors import UserError
from urlrl.evaluation import figures, report, video
from urlrl.evaluation.diagnostics import ROWS, sentences, warnings
from urlrl.evaluation.figures import curves, hue, principal, skill_colors
from urlrl.evaluation.report import ReportContent, write_report
from urlrl.evaluation.rollout import STILL
from urlrl.evaluation.video import choose_episodes
from urlrl.types import EnvSpec, Trajectory, Transition

T, N = 30, 20
GOALS = {"hit_3": 0.6, "end_3": 0.5, "at_3": 0.41, "hit_1": 0.2, "end_1": 0.1, "at_1": 0.0, "closest_distance": 3.0,
         "final_distance": 9.5}  # fmt: skip
DIAGNOSTICS = {
    "protocol": "diagnostics-v0", "episodes": 48, "skills": 16, "radius": 2.5, "chance": 2 / 47, "latent_dim": 2,
    "scores": {
        "distinct_skills": 3.0, "dead_skills": 8.0, "directions": 0.75, "discriminability": 0.646,
        "discriminability_position": 0.3125, "effective_rank": 1.875, "time_correlation": 0.328, "constraint": -0.05,
    },
}  # fmt: skip
BALL = """<mujoco><worldbody><geom type="plane" size="5 5 1"/><light pos="0 0 3"/>
<body pos="0 0 .5"><freejoint/><geom size=".3" rgba="1 0 0 1"/></body></worldbody></mujoco>"""


def make_content(kind: str, p: int, d: int) -> ReportContent:
    """A run whose skill z moves in the direction of its first coordinates, with noise."""
    rng = np.random.default_rng(0)
    z = np.eye(d)[np.arange(N) % d] if kind == "onehot" else rng.standard_normal((N, d))
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    velocity = (z.argmax(1)[:, None] - (d - 1) / 2) / d if kind == "onehot" else z[:, :p]
    position = np.cumsum(np.r_[np.zeros((1, N, p)), velocity[:, :p] + 0.3 * rng.standard_normal((T, N, p))], axis=0)
    zs = np.broadcast_to(z, (T, N, d))
    nothing = np.zeros((T, N, 1))
    steps = Transition(nothing, nothing, nothing[..., 0], nothing[..., 0] + 1, nothing, zs)
    mask = np.ones((T, N), bool)
    mask[20:, 3] = False
    latent = np.cumsum(np.r_[np.zeros((1, N, d)), zs], axis=0) + rng.standard_normal((T + 1, N, d))
    metrics = [{"step": 1000 * i, "reward/intrinsic": float(np.sin(i / 40)), "time/update": 1.0} for i in range(700)]
    metrics += [{"step": 100_000 * i, "eval/coverage": 40 * i, "phi/lambda": 3.0**i} for i in range(8)]
    metrics += [{"step": 5, "phi/lambda": float("nan")}]
    evaluation = {
        "step": 700_000, "seed": 3, "env": "ant", "coverage": None, "goals": None, "notes": ["It is nowhere."],
    }  # fmt: skip
    if p:
        evaluation |= {
            "coverage": {"protocol": "coverage-v0", "agent": 1203, "random": 58, "episodes": 48, "unit": "1 m cells",
                         "min": [-12.5, -9.0][:p], "max": [11.0, 14.0][:p]},
            "goals": {"protocol": "goals-v0", "num_goals": 50, "goal_box": [50.0] * p, "agent": GOALS,
                      "random": {**GOALS, "final_distance": 38.25}},
            "notes": [],
        }  # fmt: skip
    return ReportContent(
        title=f"METRA on {kind}",
        config={"seed": 3, "agent": {"name": "metra", "lr": 1e-4}, "command": "urlrl pretrain --out 'a b'"},
        versions={"jax": "0.10.2", "mujoco": "3.17.0"},
        spec=EnvSpec("ant", 29, 8, T, 0.05, position=("x", "y")[:p], goal_box=(50.0,) * p),
        trajectory=Trajectory(steps, mask, position if p else None, None),
        latent=latent,
        diagnostics=DIAGNOSTICS if p else None,
        metrics=metrics,
        evaluation=evaluation,
        videos="There is no video here.",
        skill_kind=kind,
    )


def without_figures(content: ReportContent) -> ReportContent:
    """A page costs what its figures cost."""
    trajectory, spec = content.trajectory._replace(position=None), replace(content.spec, position=())
    return replace(content, trajectory=trajectory, spec=spec, latent=None, metrics=[])


class Page(HTMLParser):
    """Collects what a page would load, its tags and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text())
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        if self.get_starttag_text() != "<style>":
            self.words.append(data)


@pytest.mark.parametrize("kind, p, d", [("sphere", 2, 2), ("onehot", 1, 16), ("gaussian", 0, 5)])
def test_report_is_one_page_that_loads_nothing(tmp_path, monkeypatch, kind, p, d):
    monkeypatch.setattr(figures, "DPI", 50)
    page_path = write_report(tmp_path / "report", make_content(kind, p, d))
    page = Page(page_path)
    assert page.loads and all(load.startswith("data:image/") for load in page.loads)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\(", page_path.read_text())
    drawn = {"latent.png", "curves.png"} | ({"skills.png", "skills.csv"} if p else set())
    assert {f.name for f in page_path.parent.iterdir()} == {"index.html"} | drawn  # No temporary file is left.
    for name in drawn - {"skills.csv"}:
        image = Image.open(page_path.parent / name).convert("RGB")
        assert image.width > 300 and image.height > 80
        assert len(image.getcolors(maxcolors=1 << 24)) > 100
    said = ["urlrl pretrain --out 'a b'", "agent.lr", "0.0001", "There is no video here.", "700,000"]
    said += ["1,203", "60.0 %", "41.0 %", "38.25", "coverage-v0"] if p else ["names no position", "It is nowhere."]
    for words in said:
        assert words in page.text


def test_the_page_says_what_each_diagnostic_means_and_warns(tmp_path):
    content = without_figures(make_content("sphere", 2, 2))
    text = Page(write_report(tmp_path, content)).text
    for said in (
        "Distinct skills 3 of 16; 8 dead",
        "3 of 16 skills move more than 2.5 m, to places as far from each other.",
        "8 of 16 skills move less than 2.5 m on average.",
        "In 75 % of the directions of the plane, the skill that goes farthest that way leads within 60° of it.",
        "In 65 % of the episodes, the other episode whose last observation is nearest has the same skill",
        "Chance is 4 %.",
        "In 31 % of the episodes, the other one that moved most alike has such a skill.",
        "use 1.88 of the 2 dimensions",
        "rank correlation of 0.33 with",
        "the mean over all steps is -0.050.",
        "More than a third of the skills are dead.",
        "More than a tenth of the directions have no skill.",
        "The constraint on the representation is broken on average.",
    ):
        assert said in text
    fine = {"distinct_skills": 11.0, "dead_skills": 5.0, "directions": 22 / 24, "constraint": 0.0}
    assert warnings({**DIAGNOSTICS, "scores": fine}) == []  # Five of 16 are less than a third.
    assert list(sentences({**DIAGNOSTICS, "scores": fine})) == [ROWS[name][0] for name in fine]
    without = Page(write_report(tmp_path, replace(content, diagnostics=None))).text
    assert "How good the skills are" in text and "How good the skills are" not in without


def test_what_a_user_wrote_is_escaped(tmp_path):
    evil = '<script>alert("x")</script>'
    content = without_figures(make_content("sphere", 0, 2))
    content = replace(
        content, title=evil, config={evil: evil, "command": evil}, versions={evil: evil}, videos=evil,
        evaluation={**content.evaluation, "notes": [evil]}, spec=replace(content.spec, id=evil),
    )  # fmt: skip
    path = write_report(tmp_path, content)
    assert "script" not in Page(path).tags
    assert path.read_text().count("&lt;script&gt;") >= 10


def test_a_name_that_is_a_broken_formula_is_drawn_as_it_is():
    content = make_content("sphere", 2, 2)
    spec = replace(content.spec, position=(r"$\frac{x$", "$y"))
    assert figures.png(figures.draw_skills(content.trajectory, spec, "sphere", figures.LIGHT), dpi=30)


def test_a_name_with_markup_is_printed_as_it_is(capsys):
    row = {who: {"values": [1.0, 2.0]} for who in ("agent", "random")}
    show_seeds({"env": "[/red]", "agent": "[b]", "step": 3, "seeds": [0, 1], "metrics": {"coverage, [/x]": row}})
    said = capsys.readouterr().out
    assert "[b] on [/red], step 3" in said and "coverage, [/x]" in said
    assert said.count("1.5 (1.0, 2.0)") == 2  # Of few seeds every one is printed, also the random policy's.


def test_missing_parts_are_left_out_and_said(tmp_path):
    text = Page(write_report(tmp_path, without_figures(make_content("sphere", 0, 2)))).text
    for said in ("names no position", "logged no metrics", "no latent map", "It is nowhere."):
        assert said in text
    assert [f.name for f in tmp_path.iterdir()] == ["index.html"]


@pytest.mark.parametrize(
    ("still", "said"),
    [
        ((1, 0.3), ["1 m cells; random policy 58", "standing still 30.0 %; 42.9 % of the way from there to all"]),
        ((90, 0.1), ["1 m cells; standing still 90", "random policy 20.0 %; 50.0 % of the way from there to all"]),
        ((1, 0.9), ["60.0 % standing still 90.0 %", "Pretrained"]),
    ],
)
def test_the_summary_names_the_best_baseline(still, said):
    content = make_content("sphere", 2, 2)
    evaluation = content.evaluation
    evaluation["coverage"][STILL] = still[0]
    evaluation["goals"]["random"]["hit_3"] = 0.2
    evaluation["goals"][STILL] = {**GOALS, "hit_3": still[1]}
    text = re.sub(r"<[^>]*>", " ", report._summary(content))
    for words in said:
        assert words in " ".join(text.split())
    assert still[1] < 0.9 or "of the way" not in text


def test_diverged_latents_do_not_stop_a_report(tmp_path):
    content = make_content("sphere", 0, 2)
    content = replace(without_figures(content), latent=np.full_like(content.latent, np.nan))
    assert "No state of these episodes has a finite phi" in Page(write_report(tmp_path, content)).text


@pytest.mark.parametrize("d", [1, 3])
def test_skill_space_of_any_dimension_are_drawn(d):
    content = make_content("sphere", 1, d)
    figure = figures.draw_latent(content.latent, content.trajectory, content.spec, figures.DARK)
    shown = figure.axes[0].collections[0].get_offsets()
    assert shown.shape == (N * (T + 1) - 10, 2)  # One episode ends 10 steps before the others.
    assert figure.axes[0].get_ylabel().startswith("φ")


def test_log_panels_have_plain_numbers():
    def ticks(values):
        points = np.stack([np.arange(len(values)), values], axis=1)
        ax = figures.draw_curves({"phi/lambda": points}, figures.LIGHT).axes[0]
        low, high = ax.get_ylim()
        return [
            label.get_text() for label in ax.get_yticklabels(which="both") if low <= label.get_position()[1] <= high
        ]

    assert ticks([30.0, 10.0, 1.5]) == ["3", "10", "30"]
    assert len(ticks([30.0, 1e-4])) >= 2 and len(ticks([30.0, 28.0])) >= 2


def test_skills_csv_holds_the_figure():
    content = make_content("sphere", 2, 2)
    rows = list(csv.DictReader(report.skills_csv(content).decode().splitlines()))
    assert len(rows) == N * (T + 1) - 10  # One episode ends 10 steps before the others.
    assert list(rows[0]) == ["episode", "step", "time_s", "x", "y", "z_0", "z_1"]
    row = rows[T + 1 + 10]
    assert (row["episode"], row["step"], row["time_s"]) == ("1", "10", "0.5")
    assert float(row["y"]) == pytest.approx(content.trajectory.position[10, 1, 1], rel=1e-5)
    assert float(row["z_0"]) == pytest.approx(content.trajectory.steps.z[10, 1, 0], rel=1e-5)
    indices = report.skills_csv(make_content("onehot", 1, 16))
    assert indices.startswith(b"episode,step,time_s,x,skill\n0,0,0,0,0\n")


def test_videos_are_embedded(tmp_path):
    film = tmp_path / "film.webp"
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in (0, 200)]
    frames[0].save(film, save_all=True, append_images=frames[1:])
    page = Page(write_report(tmp_path, replace(without_figures(make_content("sphere", 0, 2)), videos=[film])))
    assert any(load.startswith("data:image/webp;base64,") for load in page.loads)


def test_curves_skip_what_is_not_finite_and_keep_unknown_names():
    rows = [
        {"step": 2, "zeta/own": 1, "actor/alpha": float("inf"), "time/x": 1.0},
        {"step": 1, "zeta/own": 3.0, "critic/loss": 0.5},
    ]
    found = curves(rows)
    assert list(found) == ["critic/loss", "zeta/own"]
    np.testing.assert_array_equal(found["zeta/own"], [[1, 3], [2, 1]])


def test_colours_of_skills():
    angles = np.linspace(0, 2 * np.pi, 9)
    colors = hue(angles)
    np.testing.assert_allclose(colors[0], colors[-1], atol=1e-6)  # Cyclic.
    assert (colors >= 0).all() and (colors <= 1).all() and np.ptp(hue(angles, 0.0)) < 1e-3  # No strength is a grey.
    assert len(np.unique(skill_colors(np.eye(16), "onehot"), axis=0)) == 16
    assert len(np.unique(skill_colors(np.eye(50), "onehot"), axis=0)) == 50
    assert skill_colors(np.array([[1.0], [-1.0]]), "sphere").shape == (2, 3)
    assert len(np.unique(skill_colors(np.zeros((3, 0)), "none"), axis=0)) == 1  # There are no skills to tell apart.


def test_principal_components_of_a_plane_in_space():
    rng = np.random.default_rng(1)
    plane = rng.standard_normal((100, 2)) * [5, 1]
    rotation, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    found = principal(plane @ rotation[:2] + 7)
    centred = plane - plane.mean(axis=0)
    np.testing.assert_allclose(found @ found.T, centred @ centred.T, atol=1e-9)  # Distances are kept.
    assert principal(rng.standard_normal((5, 1))).shape == (5, 2)


@pytest.fixture(scope="module")
def ball() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(BALL)


def falling(model: mujoco.MjModel, n: int) -> np.ndarray:
    qpos = np.tile(model.qpos0, (3, n, 1))
    qpos[:, :, 0] += np.linspace(0, 100, 3)[:, None]
    return qpos


def test_a_backend_that_does_not_exist_gives_a_sentence(tmp_path, monkeypatch, ball):
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    said = video.render_videos(ball, falling(ball, 2), tmp_path, fps=20, labels=["a", "b"])
    assert isinstance(said, str) and said.endswith(".") and "bogus" in said
    assert list(tmp_path.iterdir()) == []
    assert video.find_gl() is None


def test_a_renderer_that_hangs_gives_a_sentence(tmp_path, monkeypatch, ball):
    monkeypatch.setattr(video, "RENDER_LIMIT", 0.01)
    said = video.render_videos(ball, falling(ball, 1), tmp_path, fps=20, labels=["a"])
    assert isinstance(said, str) and "nothing after 0.01 s" in said


def test_video_refuses_what_does_not_fit(tmp_path, ball):
    with pytest.raises(UserError, match="2 labels"):
        video.render_videos(ball, falling(ball, 1), tmp_path, fps=20, labels=["a", "b"])


def test_video_shows_the_body_far_from_the_start(tmp_path, ball):
    found = video.render_videos(ball, falling(ball, 8), tmp_path, fps=10, labels=list("abcdefgh"))
    if isinstance(found, str):
        assert video.find_gl() is None
        pytest.skip("no GL backend renders off screen here")
    (path,) = found
    film = Image.open(path)
    assert (film.size, film.n_frames) == ((720, 360), 3) and path.stat().st_size < video.MAX_BYTES
    film.seek(2)
    pixels = np.asarray(film.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 2 * pixels[..., 1]).reshape(2, 180, 3, 240).mean(axis=(1, 3))
    assert (red > 0.005).all()  # Every tile shows the red ball, 100 m away from where it began.


def test_soften_changes_looks_alone(ball):
    model = mujoco.MjModel.from_xml_string(BALL)
    video.soften(model)
    data, changed = mujoco.MjData(ball), mujoco.MjData(model)
    for _ in range(300):
        mujoco.mj_step(ball, data)
        mujoco.mj_step(model, changed)
    np.testing.assert_array_equal(data.qpos, changed.qpos)


def test_importing_the_report_loads_no_simulator_and_no_window_toolkit():
    code = "import sys, json, urlrl.evaluation.report, urlrl.evaluation.video; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"mujoco", "matplotlib.pyplot", "tkinter"} & set(loaded)


def test_videos_show_skills_from_all_over_the_prior():
    onehot = np.eye(16)[np.arange(48) % 16]
    assert choose_episodes(onehot, "onehot") == ([0, 3, 6, 9, 12, 15], [f"skill {i}" for i in (0, 3, 6, 9, 12, 15)])
    angles = np.radians([350, 10, 100, 190, 280, 55, 145])
    lanes, labels = choose_episodes(np.stack([np.cos(angles), np.sin(angles)], axis=1), "sphere")
    assert labels[0] == "z at 10°" and labels[-1] == "z at 350°" and lanes[0] == 1 and lanes[-1] == 0
    assert choose_episodes(np.eye(3), "gaussian") == ([0, 1, 2], ["episode 0", "episode 1", "episode 2"])
