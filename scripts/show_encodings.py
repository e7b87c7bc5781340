"""Draw what FRE makes of reward functions in a maze: what each pays, what its decoder says after a few samples of it,
and where the agent goes when it is told those.

python scripts/show_encodings.py runs/fre --out encodings.png
python scripts/show_encodings.py runs/fre --tasks maze_rings_mass_move_left maze_rings_mass_path_loop --out tasks.png

A row for each family that the run was trained on, of functions that are new to it; or for each of the tasks. Colours
are rewards at rest. Where the agent has a velocity, arrows point to where moving is paid, as long as the reward for it.
"""

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tyro.conf import Positional

from urlrl.agents.fre import FRE
from urlrl.errors import UserError
from urlrl.evaluation.rollout import acting, rollout
from urlrl.runs.begin import make_run_env
from urlrl.runs.load import load_checkpoint
from urlrl.runs.past import run_dataset
from urlrl.tasks.catalogue import find_task
from urlrl.tasks.task import check_runs_on
from urlrl.types import All, RewardPrompt

FINE = 8  # points of the maps per metre
PATHS = 6
COLUMNS = ("reward", "decoded", "paths")
Reward = Callable[[np.ndarray], Any]  # observations (n, obs) -> (n,)


@dataclass(frozen=True)
class Options:
    """A picture of FRE's encodings."""

    run: Positional[Path]  # folder of a run of fre in a maze
    out: Path = Path("encodings.png")
    tasks: tuple[str, ...] = ()  # whose rewards to show; none: functions of the families that it was trained on
    samples: int = 32  # states with their rewards that the agent is told
    functions: int = 2  # drawn of each family
    seed: int = 0  # of functions, samples and starts


class Maze:
    """Where rewards are looked at: places of a fine grid and, to see what moving pays, centres of cells."""

    def __init__(self, walls: np.ndarray, env: Any):
        self.walls, (self.height, self.width) = walls, walls.shape
        self.solid = np.kron(walls, np.ones((FINE, FINE), bool))
        self.fine, self.cells = env.goal_obs(self._places(FINE)), env.goal_obs(self._places(1)[~walls.ravel()])
        self.has_velocity = self.fine.shape[1] == 4

    def _places(self, fine: int) -> np.ndarray:
        x, y = ((np.arange(size * fine) + 0.5) / fine - size / 2 for size in (self.width, self.height))
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)

    def draw(self, axis: Axes, reward: Reward, title: str, limits: tuple[float, float]) -> None:
        values = np.ma.masked_array(np.asarray(reward(self.fine)).reshape(self.solid.shape), self.solid)
        extent = (-self.width / 2, self.width / 2, -self.height / 2, self.height / 2)
        axis.set_facecolor("0.6")
        axis.imshow(values, origin="lower", extent=extent, vmin=limits[0], vmax=limits[1], cmap="RdBu")
        axis.set(xticks=[], yticks=[], title=title)
        axis.title.set_fontsize(8)
        if self.has_velocity:
            half = 0.5 * np.eye(4, dtype=np.float32)[2:]
            pays = [np.asarray(reward(self.cells + v)) - np.asarray(reward(self.cells - v)) for v in half]
            axis.quiver(
                *self.cells[:, :2].T, *pays, angles="xy", scale_units="xy", scale=2.2, width=0.006, color="0.15"
            )


def functions(agent: FRE, options: Options, steps: Any) -> list[tuple[str, Reward]]:
    """What to draw, by its title: a reward of observations each."""
    if options.tasks:
        nothing = np.zeros(2)  # No reward of a maze looks at the action.
        rewards = [(name, find_task(name).reward) for name in options.tasks]
        return [(name, lambda obs, of=of: of(np.float64(obs), nothing)) for name, of in rewards if of]
    found: list[tuple[str, Reward]] = []
    for family in agent.config.rewards:
        for number in range(options.functions):
            key = jax.random.fold_in(jax.random.key(options.seed), len(found))
            prior = agent.config.priors()[agent.config.rewards.index(family)]
            of = prior(key, agent.normalizer(jnp.asarray(steps.next_obs))).of
            found.append((f"{family} {number + 1}", lambda obs, of=of: of(agent.normalizer(obs))))
    return found


def main(options: Options) -> None:
    loaded = load_checkpoint(options.run, None)
    agent, spec = loaded.agent, loaded.spec
    if not isinstance(agent, FRE) or not spec.walls:
        raise UserError(
            f"{options.run} is a run of '{loaded.config.agent_name}' in '{spec.id}': expected fre in a maze."
        )
    for name in options.tasks:
        check_runs_on(find_task(name), spec.id)
    if options.tasks and not spec.obs_is_physics:
        raise UserError(f"The run sees '{spec.id}': expected x and y to be what it sees, to show rewards of tasks.")
    data = run_dataset(loaded.config)
    rows = data.pick(options.samples, seed=options.seed)
    steps = data.at(rows)
    shown = functions(agent, options, steps)
    figure = Figure((2.6 * len(COLUMNS), 2.5 * len(shown)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shown), len(COLUMNS), squeeze=False)
    with closing(make_run_env(loaded.config, PATHS)) as env:
        maze = Maze(np.array(spec.walls), env)
        for row, (title, reward) in enumerate(shown):
            key = jax.random.fold_in(jax.random.key(options.seed), row)
            told = steps._replace(reward=np.asarray(reward(steps.next_obs), np.float32))
            task = agent.read(RewardPrompt(told), told, key)
            path = rollout(env, acting(agent, All(task)), key, row, spec.episode_steps or 50).position

            def decoded(obs: np.ndarray, task: Any = task) -> Any:
                return task.middle + task.scale * agent.decode(agent.aim(task, obs), obs)

            most = max(1.0, float(np.abs(told.reward).max()))
            for axis, column, values in zip(axes[row], COLUMNS, (reward, decoded, reward)):
                maze.draw(axis, values, f"{title}: {column}", (-most, most))
            axes[row, 1].plot(*data.physics(rows + 1)[:, :2].T, "k.", markersize=3)  # what it was told
            for lane in range(PATHS):
                axes[row, 2].plot(*path[:, lane].T, color="C1", linewidth=1.2)
                axes[row, 2].plot(*path[-1, lane], "o", color="C1", markersize=4)
    figure.savefig(options.out)
    print(options.out)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        print(f"show_encodings: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
