"""Coverage and goal metrics against numbers counted by hand."""

import jax
import numpy as np
import pytest

from urlrl.cells import count_cells
from urlrl.envs import make_env
from urlrl.evaluation.coverage import visited
from urlrl.evaluation.rollout import rollout, uniform
from urlrl.evaluation.zero_shot import draw_goals, goal_metrics
from urlrl.types import Trajectory


def trajectory_of(position: np.ndarray, mask: np.ndarray | None = None) -> Trajectory:
    mask = np.ones((len(position) - 1, position.shape[1]), bool) if mask is None else mask
    return Trajectory(steps=None, mask=mask, position=position, physics=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("points", "cells"),
    [
        (np.full((50, 2), 0.5), 1),  # standing still
        (np.linspace(0, 10.5, 106)[:, None], 11),  # a straight walk
        (np.array([[-0.2, 0.3], [0.2, 0.3]]), 2),  # floor, not truncation towards zero
        (np.array([[0.05, -0.05], [-0.05, 0.05], [0.05, 0.05], [-0.05, -0.05]]), 4),  # the corner at the origin
    ],
)
def test_coverage_counts_floor_cells(points, cells):
    assert count_cells(points) == cells


def test_truncation_towards_zero_would_count_differently():
    points = np.array([[-0.2, 0.3], [0.2, 0.3]])
    assert len(np.unique(points.astype(int), axis=0)) != count_cells(points)


def test_the_protocol_counts_the_start_and_every_step():
    assert len(visited(trajectory_of(np.zeros((201, 48, 2))))) == 9648


def test_masked_steps_do_not_count():
    position = np.arange(5.0).reshape(5, 1, 1)
    mask = np.array([[True], [True], [False], [False]])
    assert visited(trajectory_of(position, mask)).ravel().tolist() == [0, 1, 2]


def test_goal_metrics_by_hand():
    # One walker along x from 0, goal at 5: distances after each step 4, 3, 2, 1, 0.5; the start does not count.
    position = np.array([0, 1, 2, 3, 4, 5.5]).reshape(6, 1, 1)
    got = goal_metrics(trajectory_of(position), np.array([[5.0]]))
    assert got == {
        "hit_3": 1.0, "end_3": 1.0, "at_3": 3 / 5,  # strictly inside: the step at distance 3 does not count
        "hit_1": 1.0, "end_1": 1.0, "at_1": 1 / 5,
        "final_distance": 0.5, "closest_distance": 0.5,
    }  # fmt: skip


def test_an_episode_that_ends_early_is_judged_at_its_own_end():
    position = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 9.0], [3.0, 9.0]])[..., None]
    mask = np.array([[True, True], [True, False], [True, False]])
    got = goal_metrics(trajectory_of(position, mask), np.array([[3.0], [1.0]]))
    assert got["final_distance"] == 0.0 and got["at_1"] == (1 / 3 + 1) / 2


def test_uniform_goals_have_the_mean_norm_that_an_untrained_agent_scores():
    goals = draw_goals((50.0, 50.0), 20_000, seed=0)
    assert abs(np.linalg.norm(goals, axis=1).mean() - 38.26) < 0.3
    assert np.mean(np.linalg.norm(goals, axis=1) < 3) == pytest.approx(9 * np.pi / 1e4, abs=1.5e-3)
    np.testing.assert_array_equal(goals[:50], draw_goals((50.0, 50.0), 50, seed=0)[:50])


def test_random_ant_stays_near_the_corner_cells():
    env = make_env("ant", 4)
    trajectory = rollout(env, uniform(env.env_spec), jax.random.key(0), 0, 20)
    env.close()
    assert trajectory.position.shape == (21, 4, 2) and trajectory.mask.all()
    assert 1 <= count_cells(visited(trajectory)) <= 6
    np.testing.assert_array_equal(trajectory.steps.obs[1:], trajectory.steps.next_obs[:-1])
    np.testing.assert_array_equal(trajectory.position[1:], trajectory.steps.next_obs[..., :2])


def test_rollouts_repeat():
    def positions(seed):
        env = make_env("point", 3)
        return rollout(env, uniform(env.env_spec), jax.random.key(seed), seed, 10).position

    np.testing.assert_array_equal(positions(1), positions(1))
    assert not np.array_equal(positions(1), positions(2))
