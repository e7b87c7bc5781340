"""Sets of our own, one command each: what agents that explore, or controllers that know the maze, have seen."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from urlrl.acting import to_goals
from urlrl.config import MAX_SEED, PretrainConfig
from urlrl.data.dataset import Dataset, DatasetInfo, Episode, write_dataset
from urlrl.data.rows import example_transition
from urlrl.envs import make_env
from urlrl.envs.maze import CELLS, LAYOUTS
from urlrl.envs.ogbench import OGBenchEnv
from urlrl.errors import UserError, check, unknown
from urlrl.presets import preset
from urlrl.runs.load import load
from urlrl.streams import env_seed, stream
from urlrl.tasks.maze_control import Navigator
from urlrl.training.meter import metered
from urlrl.types import HostEnv, Transition
from urlrl.verbs.data import convert
from urlrl.verbs.pretrain import pretrain

LANES = 50  # navigators side by side
AHEAD = 4.0  # m to the goal that a steered agent is shown
LEAD = 0.25  # cells ahead, on the line between two cells' centres, of the point that it heads for: it keeps off walls
ARRIVED = 0.125  # cells from its goal, where it takes another: 0.5 m is what OGBench's tasks call success
NOISE = 0.2  # standard deviation of what is added to its actions


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


@dataclass(frozen=True)
class Steered:
    """Walks of an agent that knows how to walk, through one of OGBench's mazes that it never saw. At every step it is
    told a goal that lies on the shortest way to a random cell. Episodes are whole, and start anywhere."""

    agent: str
    preset: str
    maze: str
    transitions: int


# What data is made of. A set's size is its presets' own, or `steps`, to which the parts are scaled; who is steered
# learns as its preset says.
RECIPES: dict[str, tuple[Explored, ...] | Navigated | Steered] = {
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
    "antmaze-medium-navigate": Steered("metra", "ogbench-ant-quick", "antmaze-medium-v0", 500_000),
    "antmaze-large-navigate": Steered("metra", "ogbench-ant-quick", "antmaze-large-v0", 500_000),
}


def collect(name: str, out: Path | str, *, steps: int | None = None, seed: int = 0, quiet: bool = False) -> Dataset:
    """Make a set of `RECIPES`; the runs behind it go to `<out>-runs/` and are continued there if they were stopped.

    Args:
        steps: environment steps of each run that explores, or of those who navigate, if not the recipe's own.

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
    if isinstance(recipe, Steered):
        return _steer(recipe, out, steps or recipe.transitions, seed, quiet)
    if len(recipe) == 1:
        return _explore(recipe[0], out, out, steps, seed, quiet)
    places = [_runs(out) / f"{part.agent}-data" for part in recipe]
    parts = [_explore(part, place, out, steps, seed, quiet) for part, place in zip(recipe, places)]
    return convert([part.folder for part in parts], out, quiet=quiet)


def _explore(part: Explored, folder: Path, out: Path, steps: int | None, seed: int, quiet: bool) -> Dataset:
    """One part of the set `out`, as a dataset in `folder`."""
    config = _config(part, seed)
    config = replace(config, steps=steps or config.steps)
    run = pretrain(config, _runs(out) / part.agent, quiet=quiet)
    if folder.exists():  # Of an earlier call that was stopped: a dataset is whole or not there.
        return Dataset(folder)
    limit = None if part.share == 1 else int(part.share * config.steps)
    return convert(run, folder, max_transitions=limit, quiet=quiet)


def _config(recipe: Explored | Steered, seed: int) -> PretrainConfig:
    config = preset(recipe.agent, recipe.preset)
    assert isinstance(config, PretrainConfig)
    return replace(config, seed=seed)


def _runs(out: Path) -> Path:
    return out.with_name(f"{out.name}-runs")


def _navigate(recipe: Navigated, out: Path, transitions: int, seed: int) -> Dataset:
    with closing(make_env(f"maze:{recipe.layout}{CELLS}", LANES, episode_steps=recipe.episode_steps)) as env:
        navigator = Navigator(LAYOUTS[recipe.layout].walls, LANES, env_seed(seed, "navigate"))
        info = DatasetInfo(env.env_spec.id, f"navigators, seed {seed}", physics=env.env_spec.physics)
        return write_dataset(out, info, _walks(env, lambda obs: navigator.act(env.position()), transitions, seed))


def _steer(recipe: Steered, out: Path, transitions: int, seed: int, quiet: bool) -> Dataset:
    agent, _ = load(pretrain(_config(recipe, seed), _runs(out) / recipe.agent, quiet=quiet))
    keys = map(partial(jax.random.fold_in, stream(seed, "steer")), count())
    with (
        closing(OGBenchEnv(recipe.maze, LANES, anywhere=True)) as env,
        metered("Steering", transitions, quiet) as meter,
    ):
        spec = env.env_spec
        navigator = Navigator(env.walls, LANES, env_seed(seed, "navigate"), arrived=ARRIVED)
        nothing = example_transition(spec, agent.config.z.dim)

        def act(obs: np.ndarray) -> np.ndarray:
            xy = env.in_cells(env.position())
            heading = np.float32(headings(xy, *navigator.leg(xy)))
            return np.asarray(_toward(agent, np.float32(obs), heading, nothing, next(keys)))

        info = DatasetInfo(
            spec.id, f"{recipe.agent} steered, seed {seed}", physics=spec.physics, obs_is_physics=spec.obs_is_physics
        )
        data = write_dataset(out, info, meter.passing(_walks(env, act, transitions, seed)))
        # Not every run of an agent learns to go wherever it is told, and the number of transitions does not show it.
        meter.note(f"{out}: {navigator.num_reached / data.info.episodes:.1f} goals were reached per episode.")
        return data


def headings(xy: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 2) from positions to the points that lie `LEAD` ahead of them on the lines from the centres of
    their cells to those of the next, all (n, 2), in cells."""
    along = there - here
    done = np.maximum(np.sum((xy - here) * along, axis=1, keepdims=True), 0)
    way = here + (done + LEAD) * along - xy
    return way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-6)


@jax.jit
def _toward(agent: Any, obs: jax.Array, heading: jax.Array, seen: Transition, key: jax.Array) -> jax.Array:
    """Actions (n, act) of an agent that is asked to be `AHEAD` m further along headings (n, 2), which are unit vectors,
    in the posture that it is in. It learned around the origin, so that is where it believes to be."""
    read_key, act_key, noise_key = jax.random.split(key, 3)
    here = obs.at[:, :2].set(0.0)
    ahead = obs.at[:, :2].set(AHEAD * heading)
    tasks = to_goals(agent, ahead, seen, read_key)
    action, _ = agent.act(here, agent.begin(act_key, len(here), None, tasks), act_key, temperature=0.0)
    return jnp.clip(action + NOISE * jax.random.normal(noise_key, action.shape), -1.0, 1.0)


def _walks(env: HostEnv, act: Callable[[np.ndarray], np.ndarray], transitions: int, seed: int) -> Iterator[Episode]:
    """Whole episodes, side by side, of who acts on observations (n, obs); at least so many transitions."""
    steps = env.env_spec.episode_steps
    assert steps is not None
    env.reset(seed=env_seed(seed, "navigate, starts"))
    for _ in range(-(-transitions // (env.num_envs * steps))):
        obs, _ = env.reset(options={"reset_mask": np.ones(env.num_envs, bool)})
        seen, places, actions = [obs], [env.physics()], []
        for _ in range(steps):
            actions.append(act(seen[-1]))
            seen.append(env.step(actions[-1])[0])
            places.append(env.physics())
        rows, physics, acted, zeros = np.stack(seen), np.stack(places), np.stack(actions), np.zeros(steps)
        for lane in range(env.num_envs):
            yield Episode(rows[:, lane], acted[:, lane], zeros, zeros.astype(bool), physics[:, lane])
