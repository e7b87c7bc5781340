"""Sets of our own, one command each: what agents that explore, or controllers that know the maze, have seen."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from urlrl.config import MAX_SEED, PretrainConfig
from urlrl.data.dataset import Dataset, DatasetInfo, Episode, write_dataset
from urlrl.envs import make_env
from urlrl.envs.maze import CELLS, LAYOUTS
from urlrl.envs.maze_control import Navigator
from urlrl.errors import UserError, check, unknown
from urlrl.presets import preset
from urlrl.streams import env_seed
from urlrl.verbs.data import convert
from urlrl.verbs.pretrain import pretrain

LANES = 50  # navigators side by side


@dataclass(frozen=True)
class Explored:
    """The transitions of a run that makes data: a preset, and how many of its first transitions are taken."""

    agent: str
    preset: str
    share: float = 1.0


@dataclass(frozen=True)
class Navigated:
    """Walks of `Navigator` from random starts, in whole episodes, seen by place cells."""

    layout: str
    transitions: int
    episode_steps: int | None = None  # the maze's own; fewer, and no episode leads from one end of it to the other


# What data is made of. A set's size is its presets' own, or `steps`, to which the parts are scaled.
RECIPES: dict[str, tuple[Explored, ...] | Navigated] = {
    "walker": (Explored("rnd", "walker-quick"),),
    "cheetah": (Explored("rnd", "cheetah-quick", share=0.5), Explored("metra", "cheetah-collect-quick")),
    "walker-random": (Explored("uniform", "walker"),),
    "cheetah-random": (Explored("uniform", "cheetah"),),
    "maze-rooms-random": (Explored("uniform", "maze-rooms"),),
    "maze-rooms-xy-random": (Explored("uniform", "maze-rooms-xy"),),
    "maze-rings-mass-random": (Explored("uniform", "maze-rings-mass"),),
    "maze-rings-mass-cells-random": (Explored("uniform", "maze-rings-mass-cells"),),
    "maze-8x8-navigate": Navigated("8x8", 100_000),
    "maze-medium-navigate": Navigated("medium", 200_000),
    "maze-large-navigate": Navigated("large", 400_000),
    "maze-medium-stitch": Navigated("medium", 200_000, episode_steps=10),
    "maze-large-stitch": Navigated("large", 400_000, episode_steps=15),
}


def collect(name: str, out: Path | str, *, steps: int | None = None, seed: int = 0, quiet: bool = False) -> Dataset:
    """Make a set of `RECIPES`; the runs that explore go to `<out>-runs/` and are continued there if they were stopped.

    Args:
        steps: environment steps of each run, or of the navigators, if not the recipe's own.

    Raises:
        UserError: no such recipe, or `out` is there already.
    """
    check("seed", seed, 0, MAX_SEED)
    if steps is not None:
        check("steps", steps, 1)
    if name not in RECIPES:
        raise unknown("set", name, RECIPES)
    out, recipe = Path(out), RECIPES[name]
    if out.exists():
        raise UserError(f"{out} is there already: expected a new folder for a dataset.")
    if isinstance(recipe, Navigated):
        return _navigate(recipe, out, steps or recipe.transitions, seed)
    if len(recipe) == 1:
        return _explore(recipe[0], out, out, steps, seed, quiet)
    places = [out.with_name(f"{out.name}-runs") / f"{part.agent}-data" for part in recipe]
    parts = [_explore(part, place, out, steps, seed, quiet) for part, place in zip(recipe, places)]
    return convert([part.folder for part in parts], out, quiet=quiet)


def _explore(part: Explored, folder: Path, out: Path, steps: int | None, seed: int, quiet: bool) -> Dataset:
    """One part of the set `out`, as a dataset in `folder`."""
    config = preset(part.agent, part.preset)
    assert isinstance(config, PretrainConfig)
    config = replace(config, seed=seed, steps=steps or config.steps)
    run = pretrain(config, out.with_name(f"{out.name}-runs") / part.agent, quiet=quiet)
    if folder.exists():  # Of an earlier call that was stopped: a dataset is whole or not there.
        return Dataset(folder)
    limit = None if part.share == 1 else int(part.share * config.steps)
    return convert(run, folder, max_transitions=limit, quiet=quiet)


def _navigate(recipe: Navigated, out: Path, transitions: int, seed: int) -> Dataset:
    info = DatasetInfo(f"maze:{recipe.layout}{CELLS}", f"navigators, seed {seed}", physics=(("xy", 2),))
    return write_dataset(out, info, _walks(recipe, transitions, seed))


def _walks(recipe: Navigated, transitions: int, seed: int) -> Iterator[Episode]:
    """Whole episodes, side by side, until there are at least so many transitions."""
    with closing(make_env(f"maze:{recipe.layout}{CELLS}", LANES, episode_steps=recipe.episode_steps)) as env:
        steps = env.env_spec.episode_steps
        assert steps is not None
        navigator = Navigator(LAYOUTS[recipe.layout].walls, LANES, env_seed(seed, "navigate"))
        env.reset(seed=env_seed(seed, "navigate, starts"))
        for _ in range(-(-transitions // (LANES * steps))):
            obs, _ = env.reset(options={"reset_mask": np.ones(LANES, bool)})
            seen, places, actions = [obs], [env.physics()], []
            for _ in range(steps):
                actions.append(navigator.act(env.position()))
                seen.append(env.step(actions[-1])[0])
                places.append(env.physics())
            obs, xy, acted, zeros = np.stack(seen), np.stack(places), np.stack(actions), np.zeros(steps)
            for lane in range(LANES):
                yield Episode(obs[:, lane], acted[:, lane], zeros, zeros.astype(bool), xy[:, lane])
