"""Draw what FRE makes of reward functions in a maze: what each pays, what its decoder says after a few samples of it,
and where the agent goes when it is told those.

python scripts/show_encodings.py runs/fre --out encodings.png

A row for each family that the run was trained on. The functions drawn here are new: none of them was trained on.
"""

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tyro.conf import Positional

from urlrl.agents.fre import FRE
from urlrl.errors import UserError
from urlrl.evaluation.rollout import pursue_one, rollout
from urlrl.types import RewardPrompt
from urlrl.verbs.runs import load_checkpoint, make_run_env, run_dataset

FINE = 8  # points of the maps per metre
PATHS = 6
COLUMNS = ("reward", "decoded", "paths")


@dataclass(frozen=True)
class Options:
    """A picture of FRE's encodings."""

    run: Positional[Path]  # folder of a run of fre in a maze
    out: Path = Path("encodings.png")
    samples: int = 32  # states with their rewards that the agent is told
    functions: int = 2  # drawn of each family
    seed: int = 0  # of functions, samples and starts


def main(options: Options) -> None:
    loaded = load_checkpoint(options.run, None)
    agent, spec = loaded.agent, loaded.spec
    if not isinstance(agent, FRE) or not spec.walls:
        raise UserError(
            f"{options.run} is a run of '{loaded.config.agent_name}' in '{spec.id}': expected fre in a maze."
        )
    data = run_dataset(loaded.config)
    walls = np.array(spec.walls)
    height, width = walls.shape
    x, y = ((np.arange(size * FINE) + 0.5) / FINE - size / 2 for size in (width, height))
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    families = [(name, n) for name in agent.config.rewards for n in range(options.functions)]
    figure = Figure((2.6 * len(COLUMNS), 2.5 * len(families)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(families), len(COLUMNS), squeeze=False)
    with closing(make_run_env(loaded.config, PATHS)) as env:
        grid = env.goal_obs(places)
        for row, (family, number) in enumerate(families):
            key = jax.random.fold_in(jax.random.key(options.seed), row)
            rows = data.pick(options.samples, seed=options.seed * 1000 + row)
            steps = data.at(rows)
            prior = agent.config.priors()[agent.config.rewards.index(family)]
            of = prior(key, agent.normalizer(jnp.asarray(steps.next_obs))).of
            told = steps._replace(reward=np.asarray(of(agent.normalizer(steps.next_obs))))
            task = agent.read(RewardPrompt(told), told, key)
            maps = [of(agent.normalizer(grid)), task.middle + task.scale * agent.decode(agent.aim(task, grid), grid)]
            path = rollout(env, pursue_one(agent, task, temperature=0.0), key, row, spec.episode_steps or 50).position
            for axis, title, values in zip(axes[row], COLUMNS, [*maps, maps[0]]):
                solid = np.kron(walls, np.ones((FINE, FINE), bool))
                shown = np.ma.masked_array(np.asarray(values).reshape(solid.shape), solid)
                extent = (-width / 2, width / 2, -height / 2, height / 2)
                axis.set_facecolor("0.6")
                axis.imshow(shown, origin="lower", extent=extent, vmin=-1, vmax=1, cmap="RdBu")
                axis.set(xticks=[], yticks=[], title=f"{family} {number + 1}: {title}")
                axis.title.set_fontsize(8)
            axes[row, 1].plot(*data.physics(rows + 1)[:, :2].T, "k.", markersize=3)  # what it was told
            for lane in range(PATHS):
                axes[row, 2].plot(*path[:, lane].T, color="k", linewidth=0.8)
                axes[row, 2].plot(*path[-1, lane], "ko", markersize=3)
    figure.savefig(options.out)
    print(options.out)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except UserError as error:
        print(f"show_encodings: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
