"""Does it learn? On `point` in seconds; on real environments in minutes (marked slow)."""

import dataclasses

import jax
import numpy as np
import pytest

import urlrl
from urlrl.data.dataset import Episode, write_dataset
from urlrl.envs import make_env
from urlrl.evaluation.rollout import follow, rollout
from urlrl.evaluation.zero_shot import reach_goals
from urlrl.types import DemoPrompt
from urlrl.verbs.collect import collect
from urlrl.verbs.evaluate_suite import evaluate_suite
from urlrl.verbs.pretrain import pretrain_seeds


@pytest.fixture(scope="module")
def point_agent(tmp_path_factory):
    config = dataclasses.replace(urlrl.preset("metra", "point-quick"), steps=24_000, eval_every=0)
    agent, _ = urlrl.load(urlrl.pretrain(config, tmp_path_factory.mktemp("point") / "run", quiet=True))
    return agent


def closest_to_goals_all_around(agent):
    """(16,), by the agent and by the random policy; and where the agent ended."""
    angles = 2 * np.pi * np.arange(16) / 16
    goals = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = reach_goals(make_env("point", 16), agent, goals, seen=None, seed=0)
    closest, random = (scores[who]["closest_distance"] for who in ("agent", "random"))
    return closest, random, scores["agent"]["final_distance"]


def test_metra_on_point_reaches_goals_all_around(point_agent):
    closest, random, final = closest_to_goals_all_around(point_agent)
    assert closest.mean() < 0.1 and final.mean() < 0.3
    assert random.mean() > 1.5  # What the agent does is not luck.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lsd", "csd", "csf", "diayn", "dads"])
def test_skill_discovery_on_point(name, tmp_path):
    """Each one's skills go farther than a random policy; those that follow goals by a latent space reach most."""
    run = urlrl.pretrain(dataclasses.replace(urlrl.preset(name, "point-quick"), eval_every=0), tmp_path / name)
    coverage = urlrl.evaluate(run)["coverage"]
    assert coverage["agent"] > 2.5 * coverage["random"]
    agent, _ = urlrl.load(run)
    if "latent" in agent.abilities:
        closest, random, _ = closest_to_goals_all_around(agent)
        assert np.median(closest) < 0.1 and np.median(random) > 1.5


def test_metra_follows_a_demonstration(point_agent):
    """Asked to do as a walk to the upper left did, it walks to the upper left."""
    demo = np.linspace([0, 0], [-2, 2], 30, dtype=np.float32)
    task = point_agent.read(DemoPrompt(demo), seen=None, key=None)
    z = jax.numpy.broadcast_to(point_agent.aim(task, demo[0]), (1, 2))
    trajectory = rollout(make_env("point", 1), follow(point_agent, z), jax.random.key(0), 0, 30)
    moved = trajectory.position[-1, 0] - trajectory.position[0, 0]
    assert np.dot(moved / np.linalg.norm(moved), np.array([-1, 1]) / np.sqrt(2)) > 0.95


@pytest.mark.slow
def test_skills_span_a_maze_whose_arms_random_walks_do_not_see(tmp_path):
    """Three of the four arms of `pinwheel` at least, each 25 m long, in 80,000 steps on the device: under a minute."""
    runs = pretrain_seeds(dataclasses.replace(urlrl.preset("metra", "maze-quick"), eval_every=0), range(4), tmp_path)
    scores = [urlrl.evaluate(run)["coverage"] for run in runs]
    agent, random = (np.array([score[who] for score in scores]) for who in ("agent", "random"))
    assert (agent > random).all() and agent.mean() > max(65, 1.2 * random.mean()), (agent, random)


@pytest.mark.slow
def test_half_cheetah_quick_runs_both_ways(tmp_path):
    run = urlrl.pretrain(urlrl.preset("metra", "half-cheetah-quick"), tmp_path / "run")
    result = urlrl.evaluate(run)
    coverage, goals = result["coverage"], result["goals"]
    assert coverage["agent"] >= 60 > coverage["random"]
    assert coverage["min"][0] < -12 and coverage["max"][0] > 12
    assert goals["agent"]["final_distance"] <= 0.8 * goals["random"]["final_distance"]
    for reward in ("vx", "-vx"):  # Told in words, it runs that way: 200 steps at 1 m/s and more.
        assert urlrl.prompt(run, reward)["return"]["mean"] > 200
    ladder = urlrl.adapt(run, "half_cheetah_goal", ["zero_shot"], seeds=range(5), quiet=True)
    assert ladder["methods"]["zero_shot"]["final"]["value"] > 1.3 * ladder["floors"]["zero action"]["mean"]


# --- zero-shot agents on a maze: 20,000 random transitions of `maze:rooms`, start, horizon and discount fixed


@pytest.fixture(scope="module")
def maze_data(tmp_path_factory):
    return collect("maze-rooms-random", tmp_path_factory.mktemp("maze") / "data", quiet=True)


def shares(config, data, out, told_by):
    """Of the value-iteration return, at each of the five goals."""
    config = dataclasses.replace(config, data=str(data.folder))
    rows = evaluate_suite(urlrl.pretrain(config, out, quiet=True), "maze-v1/rooms_cells", quiet=True)["rows"]
    return [row["return"]["mean"] / row["ceiling"][0] for row in rows if row["prompt"] == told_by]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "preset", "told_by"),
    [("hilp", "maze-quick", "goal"), ("fb", "maze-quick", "reward"), ("sf", "laplacian-maze-quick", "reward")],
)
def test_a_maze_that_was_explored_at_random_is_solved_when_told_where_to_go(
    agent, preset, told_by, maze_data, tmp_path
):
    config = urlrl.preset(agent, preset)
    found = [
        shares(dataclasses.replace(config, seed=seed), maze_data, tmp_path / str(seed), told_by) for seed in range(2)
    ]
    assert np.shape(found) == (2, 5)
    assert np.mean(found) >= 0.9 and np.mean(found, axis=1).min() >= 0.7


RIGHT, LEFT = (0, 1, 3, 4), 2  # goals that no step to the left is needed for, and the one that lies there


@pytest.mark.slow
def test_without_steps_to_the_left_conservative_values_hold(maze_data, tmp_path):
    """The didactic test of VC-FB's paper: actions that the data does not hold are not worth what FB imagines."""

    def to_the_right():
        for episode in maze_data.episodes():
            for t in np.flatnonzero(episode.action[:, 0] >= 0):
                both = slice(t, t + 2)
                nothing = np.zeros(1)
                yield Episode(
                    episode.obs[both], episode.action[t : t + 1], nothing, nothing.astype(bool), episode.physics[both]
                )

    data = write_dataset(tmp_path / "right", maze_data.info, to_the_right())
    assert 9_000 < len(data) < 11_000
    found = {}
    for penalty in ("none", "vc"):
        for seed in range(2):
            config = dataclasses.replace(urlrl.preset("fb", "maze-quick"), steps=4_000, seed=seed)
            config = dataclasses.replace(config, agent=dataclasses.replace(config.agent, penalty=penalty))
            got = np.array(shares(config, data, tmp_path / f"{penalty}-{seed}", "reward"))
            found.setdefault(penalty, []).append(got)
    vc, fb = np.array(found["vc"]), np.array(found["none"])
    assert vc[:, LEFT].max() < 0.1 and fb[:, LEFT].min() > 0.9  # On the others two seeds do not tell them apart.
    assert vc[:, RIGHT].mean() > 0.7
