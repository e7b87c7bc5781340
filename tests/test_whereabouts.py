"""Where an agent spends its time, against numbers counted by hand."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from run_tools import copy_of

import urlrl
from urlrl.agents.adversarial_surprise import AdversarialSurprise, AdversarialSurpriseConfig
from urlrl.agents.uniform import UniformConfig
from urlrl.cli.evaluate import show_evaluation
from urlrl.config import PretrainConfig
from urlrl.envs import make_env
from urlrl.evaluation import figures, whereabouts
from urlrl.evaluation.rollout import follow, rollout
from urlrl.evaluation.whereabouts import PLAYERS, Episodes, Steps, measure, score, steps, turns
from urlrl.learners.ppo import PPOConfig
from urlrl.learners.skills import SkillSpace
from urlrl.runs.load import load_checkpoint, saved_evaluation
from urlrl.types import EnvSpec, Trajectory, Transition
from urlrl.verbs.report_seeds import report_seeds

SPEC = EnvSpec(
    "mine", 1, 1, 4, None, position=("x",), physics=(("pose", 2), ("noise", 1), ("off", 1), ("rooms_visited", 1)),
)  # fmt: skip
EXPLORE, CONTROL = (1, 0), (0, 1)


def episodes() -> Trajectory:
    """Two of them; the second ends after two steps, and what follows in its lane is another one's."""
    position = np.array([[0.5, 0.5], [1.5, 0.9], [2.5, -0.1], [1.5, 7.5], [1.2, 8.5]])[..., None]
    noise = [[-1, 0], [-1, 0], [0, -1], [-1, -1], [1, -1]]  # The start counts for nothing.
    off = [[0, 0], [0, 0], [0, 0], [0, 1], [1, 1]]
    visited = [[1, 1], [1, 1], [2, 2], [2, 4], [3, 4]]
    physics = np.concatenate([np.zeros((5, 2, 2)), np.stack([noise, off, visited], axis=-1)], axis=-1)
    z = np.array([[EXPLORE] * 2, [EXPLORE, CONTROL], [CONTROL] * 2, [CONTROL] * 2], np.float32)
    mask = np.array([[True, True], [True, True], [True, False], [True, False]])
    nothing = np.zeros((4, 2, 1))
    moves = Transition(nothing, nothing, nothing[..., 0], nothing[..., 0] + 1, nothing, z)
    return Trajectory(moves, mask, position, physics)


def with_z(z: np.ndarray) -> Trajectory:
    return episodes()._replace(steps=episodes().steps._replace(z=z))


def test_scores_by_hand():
    assert measure(episodes(), SPEC) == {
        "cells": (3 + 2) / 2,  # 0, 1, 2 and 0, -1
        "noise": 3 / 6,  # of the six steps that happened
        "noise_explore": 1 / 3,  # steps 0 and 1 of the first, step 0 of the second
        "noise_control": 2 / 3,
        "off": 1 / 2,  # at the episodes' own ends
        "rooms_visited": (3 + 2) / 2,
    }


def test_one_player_has_no_turns():
    for z in (
        np.zeros((4, 2, 0)),  # the random policy's
        np.broadcast_to([EXPLORE, CONTROL], (4, 2, 2)),  # a skill for each episode
        np.tile([[0.6, 0.8], [0.8, 0.6]], (2, 2, 1)),  # directions
        np.eye(3)[np.arange(8) % 3].reshape(4, 2, 3),
    ):
        assert turns(with_z(z)) == {} and set(measure(with_z(z), SPEC)) == {"cells", "noise", "off", "rooms_visited"}
    late = np.array([[EXPLORE] * 2] * 2 + [[EXPLORE, CONTROL]] * 2)  # changes after the end
    assert turns(with_z(late)) == {}


def test_the_table_has_what_there_is():
    scores = score(Episodes(episodes(), with_z(np.zeros((4, 2, 0)))), SPEC)
    assert (scores["protocol"], scores["episodes"]) == (whereabouts.PROTOCOL, 2)
    rows = {name: numbers for name, *numbers in whereabouts.rows(scores)}
    assert rows["share of time in noise"] == ["50.0 %", "50.0 %"]
    assert rows["share of Explore's time in noise"] == ["33.3 %", ""]
    assert rows["rooms visited per episode"] == ["2.5", "2.5"] and len(rows) == 6  # Nobody says what was pressed.


def test_a_picture_shows_each_players_own_steps():
    found = steps(Episodes(episodes(), with_z(np.zeros((4, 2, 0)))))
    assert list(found) == ["explore", "control", "random policy"]
    assert found["explore"].position.ravel().tolist() == [1.5, 0.9, 2.5]
    assert found["control"].position.ravel().tolist() == [-0.1, 1.5, 1.2]
    assert found["control"].physics[:, 2].tolist() == [-1, -1, 1] and len(found["random policy"].position) == 6
    alone = steps(Episodes(with_z(np.ones((4, 2, 1))), episodes()))
    assert list(alone) == ["agent", "random policy"]


# --- Pictures


def test_a_line_is_drawn_as_shares_by_cell():
    found = steps(Episodes(episodes(), with_z(np.zeros((4, 2, 0)))))
    ax = figures.draw_time(found, SPEC, figures.DARK).axes[0]
    explore, control, random = (line.get_ydata() for line in ax.get_lines())
    np.testing.assert_allclose(explore, np.array([0, 1, 1, 1]) / 3)  # cells -1 to 2
    np.testing.assert_allclose(control, np.array([1, 0, 2, 0]) / 3)
    np.testing.assert_allclose(random, np.array([1, 1, 3, 1]) / 6)
    assert sorted(patch.get_x() for patch in ax.patches) == [-1.5, 0.5]  # Noise is in cells -1 and 1.


@pytest.mark.parametrize(("walls", "corner"), [((), -2), (((False,) * 3,) * 3, -2.5)])
def test_a_plane_is_drawn_as_shares_by_cell(walls, corner):
    spec = EnvSpec("mine", 1, 1, 4, None, position=("x", "y"), physics=(("noise", 1),), walls=walls)
    cells = np.array([[0, 0], [0, 0], [1, 0], [2, 2]])
    agent = Steps(cells + corner + 0.5, np.array([[0.0], [0], [-1], [1]]))
    figure = figures.draw_time({"agent": agent, "random policy": agent}, spec, figures.LIGHT)
    drawn, line = figure.axes[0].collections
    share = np.ma.filled(drawn.get_array(), 0)
    assert share.shape == (3, 3) and share[0].tolist() == [0.5, 0.25, 0] and share[2].tolist() == [0, 0, 0.25]
    left, bottom = drawn.get_coordinates()[0, 0]
    assert (left, bottom) == (corner, corner)
    sides = {tuple(map(tuple, np.sort(side, axis=0) - corner)) for side in line.get_segments()}
    squares = [{((x, y), (x + 1, y)), ((x, y + 1), (x + 1, y + 1)), ((x, y), (x, y + 1)), ((x + 1, y), (x + 1, y + 1))}
               for x, y in ((1, 0), (2, 2))]  # fmt: skip
    assert sides == squares[0] | squares[1]


def test_rooms_of_many_layouts_are_drawn_as_bars():
    spec = replace(SPEC, position=("x", "y", "layout"), physics=(("room", 1), ("noise", 1)))
    one = Steps(np.zeros((4, 3)), np.array([[0.0, -1], [0, 0], [0, -1], [2, 1]]))
    ax = figures.draw_time({"agent": one, "random policy": one}, spec, figures.LIGHT).axes[0]
    heights = np.reshape([bar.get_height() for bar in ax.patches], (3, 3))  # by noise and room
    assert heights.tolist() == [[0.25, 0, 0], [0.5, 0, 0], [0, 0, 0.25]]


# --- Of agents and runs


def test_the_agent_plays_as_in_training_and_the_random_policy_from_the_same_starts():
    env = make_env("block:line18", 4, episode_steps=8)
    config = AdversarialSurpriseConfig(
        ppo=PPOConfig(width=8, lr=1e-3), density="categorical", turns=4, explore_steps=2, control_steps=2
    )
    obs, _ = env.reset(seed=0)
    row = np.zeros(4, np.float32)
    example = Transition(obs, env.env_spec.random_actions(np.random.default_rng(0), 4), row, row, obs, np.zeros((4, 2)))
    agent = AdversarialSurprise.create(config, example, jax.random.key(0))
    mine, random = whereabouts.play(env, agent, 0)
    assert mine.steps.z.argmax(axis=-1).T.tolist() == [[0, 0, 1, 1, 0, 0, 1, 1]] * 4 and list(turns(mine)) == [*PLAYERS]
    np.testing.assert_array_equal(mine.steps.obs[0], random.steps.obs[0])
    assert len(np.unique(mine.steps.action[0].argmax(axis=-1))) > 1  # Sampled: all lanes saw the same.
    told = follow(agent, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]])
    assert turns(rollout(env, told, jax.random.key(0), 0, 8)) == {}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """In the corridor, evaluated. The policy is random."""
    config = PretrainConfig(
        agent=UniformConfig(z=SkillSpace("onehot", 2)), agent_name="uniform", env="block:line18", num_envs=2,
        episode_steps=16, steps=32, rollout_steps=16, min_replay=32, replay_capacity=32, eval_every=0,
    )  # fmt: skip
    run = urlrl.pretrain(config, tmp_path_factory.mktemp("whereabouts") / "run", quiet=True)
    urlrl.evaluate(run)
    return run


def test_an_evaluation_and_a_report_say_it(run, capsys, monkeypatch):
    monkeypatch.setattr(figures, "DPI", 40)
    _, _, spec, step, _ = load_checkpoint(run)
    result = saved_evaluation(run, step, spec)
    show_evaluation(result)
    assert "share of time in noise" in capsys.readouterr().out
    page = urlrl.report(run).read_text()  # It plays the same episodes.
    assert "Where it spends its time" in page and (run / "report" / "time.png").exists()
    shares = (f"{100 * result['whereabouts'][who]['noise']:.1f} %" for who in ("agent", "random"))
    assert "Share of time in noise</th>" + "".join(f"<td>{share}</td>" for share in shares) in page


def test_an_evaluation_of_an_older_version_is_read(run, tmp_path):
    _, _, spec, step, _ = load_checkpoint(run)
    run = copy_of(run, tmp_path)
    written = json.loads((run / "evaluation.json").read_text())
    whole = written.pop("whereabouts")
    (run / "evaluation.json").write_text(json.dumps(written))
    assert saved_evaluation(run, step, spec) == written
    (run / "evaluation.json").write_text(json.dumps({**written, "whereabouts": {**whole, "agent": {"cells": "many"}}}))
    assert saved_evaluation(run, step, spec) is None


def test_a_table_of_seeds_has_what_all_of_them_have(run, tmp_path):
    other = copy_of(run, tmp_path)
    manifest = json.loads((other / "config.json").read_text())
    manifest["config"]["seed"] += 1
    (other / "config.json").write_text(json.dumps(manifest))
    metrics = report_seeds([run, other])["metrics"]
    share = json.loads((run / "evaluation.json").read_text())["whereabouts"]["random"]["noise"]
    assert metrics["share of time in noise"]["random"]["values"] == [share, share]
    written = json.loads((other / "evaluation.json").read_text())
    del written["whereabouts"]
    (other / "evaluation.json").write_text(json.dumps(written))
    shared = list(report_seeds([run, other])["metrics"])
    assert shared[0] == "coverage, 1 m cells" and all(name.startswith("skills, ") for name in shared[1:])


def test_only_where_noise_is_known_it_is_measured():
    having = {name: whereabouts.has_noise(make_env(name).env_spec) for name in ("point", "rooms:noisy", "tv:rooms")}
    assert having == {"point": False, "rooms:noisy": True, "tv:rooms": True}
