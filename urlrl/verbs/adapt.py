"""Adaptation of a pretrained agent to a task, by every method along one axis of environment steps."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from urlrl.adaptation.config import METHODS, AdaptConfig
from urlrl.adaptation.ladder import Cell, Ladder, summarise
from urlrl.adaptation.methods import RUN, Setting, episode_returns, need_skills
from urlrl.config import MAX_SEED
from urlrl.data.rows import relabelled
from urlrl.errors import UnsupportedPrompt, UserError, check, unknown
from urlrl.evaluation.rollout import STILL, Policy, starts
from urlrl.evaluation.video import check_video
from urlrl.files import check_folder_of, write_json
from urlrl.learners.statistics import Normalizer
from urlrl.runs.load import Loaded, load_checkpoint
from urlrl.runs.past import check_physics, past
from urlrl.runtime import enable_compilation_cache, versions
from urlrl.streams import env_seed
from urlrl.tasks.catalogue import find_task
from urlrl.tasks.on_device import task_on_device
from urlrl.tasks.task import Moment, Task, TaskEnv, check_runs_on, make_task_env, rewards
from urlrl.training.log import Progress, duration, make_progress
from urlrl.training.run import RunFolder
from urlrl.training.stop import Stop, stop_requested
from urlrl.types import Carry, Transition, need
from urlrl.verbs.tuned import adapted_returns, claim, keep_skill, load_adapted, render_adapted, settings
from urlrl.verbs.tuning import train

INPUT_DRAWS = 1_000  # episodes that a task draws so that the spread of its inputs is known
FLOOR_EPISODES = 50


def adapt(
    run: Path | str,
    task: str,
    methods: Iterable[str] = METHODS,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    config: AdaptConfig | None = None,
    step: int | None = None,
    out: Path | str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Adapt a run's agent to a task by each of the methods, with each of the seeds, and compare them.

    Every method and seed is one file in `<out>/<task>/`; what is there already is kept, so an interrupted call goes on,
    also in the middle of a training, and a later one adds to it. The policy that was learned is in the folder
    `<method>-<seed>` beside, for `evaluate` and `export`.
    `ladder.json` and `ladder.png` there are of all that is done.

    Args:
        task: a name of `urlrl.tasks.TASKS`, or a user's `module:object`.
        methods: of "zero_shot", "z_search", "hierarchical", "finetune", "scratch".
        config: budget and settings; `AdaptConfig()` by default.
        step: which checkpoint; None is the newest that is whole.
        out: `<run>/adapt` by default.

    Returns:
        {"task", "agent", "env", "pretrain_steps", "steps", "floors", "ceiling", "notes", "methods": {name: {"seeds",
        "final", "area", "over_scratch", ...}}}: see docs/metrics.md.

    Raises:
        UserError: unknown names, a task for another environment, damaged results or such of another agent or of other
            settings in the folder.
        TrainingDiverged: a learner is no longer finite; what was done before is kept.
        Interrupted: a signal came; what was done is saved, and the same call goes on.
    """  # fmt: skip
    methods, seeds = list(methods), list(seeds)
    check_seeds(seeds)
    enable_compilation_cache()
    config, found, loaded = config or AdaptConfig(), find_task(task), load_checkpoint(run, step)
    _check_fits(found, loaded, methods, config)
    ladder = Ladder(Path(out or Path(run) / "adapt") / _file_name(task), type(loaded.config.agent))
    same = settings(task, loaded, config)
    asked = list(dict.fromkeys(product(methods, seeds)))
    done = ladder.done(same)
    todo = [cell for cell in asked if cell not in done]
    progress, notes = make_progress(quiet), [loaded.note] if loaded.note else []
    progress.say(
        f"{loaded.config.agent_name} on {found.name}: pretrained for {loaded.step:,} steps, {config.steps:,} steps in "
        f"the task for each method and seed; {len(todo)} to do, {len(asked) - len(todo)} done before."
    )
    with closing(progress), stop_requested(progress) as stop:
        for i, (method, seed) in enumerate(todo):
            try_cell(ladder, run, loaded, found, config, method, seed, same, stop, progress, notes, i / len(todo))
        cells = ladder.cells(same)
        if not cells:
            raise UserError(" ".join(notes) or "There are no results: expected at least one method and one seed.")
        return _compare(ladder.folder, cells, found, loaded, config, notes)


def check_seeds(seeds: Iterable[int]) -> None:
    for seed in seeds:
        check("seed", seed, 0, MAX_SEED)


def _check_fits(task: Task, loaded: Loaded, methods: Iterable[str], config: AdaptConfig) -> None:
    """Refuse before the first cell what a later one would stumble over."""
    for method in methods:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
    check_runs_on(task, loaded.config.env)
    if not loaded.spec.physics:
        raise UserError(
            f"Environment '{loaded.config.env}' does not show its physics: expected one that can be rewarded."
        )
    searches = any(METHODS[method].searches for method in methods)
    if searches and config.search.kind == "cem" and loaded.config.agent.z.kind == "onehot":
        raise UserError("search.kind is 'cem': expected 'halving' for one-hot skills, which have no neighbours.")


def try_cell(
    ladder: Ladder, run: Path | str, loaded: Loaded, task: Task, config: AdaptConfig, method: str, seed: int,
    same: dict[str, Any], stop: Stop, progress: Progress, notes: list[str], done: float,
) -> None:  # fmt: skip
    """`run_cell` into the ladder; where the agent cannot be asked, a note: the other methods can still be compared."""
    folder = ladder.folder / f"{method}-{seed}"
    try:
        ladder.add(run_cell(folder, run, loaded, task, config, method, seed, same, stop, progress, done))
    except UnsupportedPrompt as error:
        if (note := f"{method}: {error}") not in notes:
            notes.append(note)
            progress.note(note)


def run_cell(
    folder: Path, run: Path | str, loaded: Loaded, task: Task, config: AdaptConfig, method: str, seed: int,
    same: dict[str, Any], stop: Stop, progress: Progress, done: float,
) -> Cell:  # fmt: skip
    """One method with one seed, measured; the policy that it leaves, if it does, is in `folder`. `done` is the share of
    the work that came before it."""
    began = time.monotonic()

    def show(steps: int, mean: float) -> None:
        rest = max(config.steps - steps, 0)  # The last phase may end beyond the budget.
        left = f"  ETA {duration((time.monotonic() - began) / steps * rest)}" if steps else ""
        progress.update(f"{done:4.0%}  {method} seed {seed}  {steps:,}/{config.steps:,} steps  return {mean:.1f}{left}")

    with ExitStack() as opened:
        setting = make_setting(run, loaded, task, config, seed, show, opened)
        if METHODS[method].learns:
            if METHODS[method].keeps == "controller":  # Before anything is written.
                need_skills(loaded.agent)
            else:
                need(loaded.agent, "adaptable")
            with RunFolder(folder).lock():
                if said := claim(folder, loaded, same["task"], method, seed, config):
                    progress.note(said)
                progress.say(f"{method} seed {seed}, in {folder}.")
                train(folder, method, setting, stop, progress)
        else:
            RUN[method](setting)
            if setting.kept is not None:
                with RunFolder(folder).lock():
                    claim(folder, loaded, same["task"], method, seed, config)
                    keep_skill(folder, setting.kept, setting.curve[-1][0])
    seconds = time.monotonic() - began
    steps, mean = setting.curve[-1]
    progress.say(f"{method} seed {seed}: return {mean:.1f} at {steps:,} steps, {duration(seconds)}")
    return Cell(method, seed, same, setting.curve, setting.notes, round(seconds, 1))


def _compare(
    folder: Path, cells: list[Cell], task: Task, loaded: Loaded, config: AdaptConfig, notes: list[str]
) -> dict[str, Any]:
    """What the cells say together: written to ladder.json, drawn to ladder.png."""
    from urlrl.adaptation.plot import draw  # Imports matplotlib.

    floors, bound = measure_floors(task), _upper_bound(task)
    baselines = [floor["mean"] for floor in floors.values()]
    result = {
        "task": task.name,
        "agent": loaded.config.agent_name,
        "env": loaded.config.env,
        "pretrain_steps": loaded.step,
        "steps": config.steps,
        "floors": floors,
        "ceiling": bound,
        "methods": summarise(cells, config.steps, baselines, None if bound is None else bound[0]),
        "notes": notes,
        "versions": versions(),
    }
    write_json(result, folder / "ladder.json")
    draw(result, folder / "ladder.png")
    return result


def _upper_bound(task: Task) -> tuple[float, str] | None:
    """A return that is hard to exceed, and whose it is."""
    with closing(make_task_env(task, FLOOR_EPISODES)) as env:
        return task.ceiling(starts(env, 0))


def measure_floors(task: Task, episodes: int = FLOOR_EPISODES) -> dict[str, dict[str, float]]:
    """Returns of controllers that know nothing, mean and standard error over so many episodes; and that of standing
    still, where a task is known to pay it. Tasks that draw nothing and share an environment share these episodes."""
    floors: dict[str, dict[str, float]] = {}
    for name in ("random", "zero action"):
        if len(task.draw(np.random.default_rng(0))):
            with closing(make_task_env(task, episodes)) as env:
                returns = episode_returns(env, _as_policy(_know_nothing(env)[name]), env_seed(0, "floors"))
        else:
            moment, lanes = _floor_steps(name, task.env, task.episode_steps, episodes)
            returns = np.bincount(lanes, weights=rewards(task, moment), minlength=episodes)
        floors[name] = _score(returns)
    if task.stand_still is not None:
        floors[STILL] = {"mean": task.stand_still}
    return floors


def evaluate_adapted(
    folder: Path | str,
    *,
    seed: int = 0,
    json_file: Path | str | None = None,
    video: Path | str | None = None,
) -> dict[str, Any]:
    """Returns of a kept policy in its task, in as many new episodes as those of controllers that know nothing.

    Args:
        folder: `<run>/adapt/<task>/<method>-<seed>`.
        seed: of resets and of what the task draws.
        json_file: also write the result there; it is always written to `<folder>/evaluation.json`.
        video: also render the first episodes to this .mp4 or .webp file.

    Returns:
        {"task", "env", "method", "step", "seed", "policy": {"mean", "standard_error", "episodes"}, "floors": {name:
        the same}, "ceiling", "notes"}.
    """
    check_folder_of(json_file)
    if video is not None:
        check_video(Path(video))
    enable_compilation_cache()
    adapted = load_adapted(folder)
    returns = adapted_returns(adapted, FLOOR_EPISODES, env_seed(seed, "adapted"))
    failure = None if video is None else render_adapted(adapted, Path(video), env_seed(seed, "adapted"))
    result = {
        "task": adapted.task.name,
        "env": adapted.config.env,
        "method": adapted.method,
        "step": adapted.steps,
        "seed": seed,
        "policy": _score(returns),
        "floors": measure_floors(adapted.task),
        "ceiling": _upper_bound(adapted.task),
        "notes": [failure] if failure else [],
    }
    write_json(result, Path(folder) / "evaluation.json", json_file, indent=2)
    return result


def _score(returns: np.ndarray) -> dict[str, float]:
    error = float(returns.std(ddof=1) / np.sqrt(len(returns)))
    return {"mean": float(returns.mean()), "standard_error": error, "episodes": len(returns)}


def _know_nothing(env: TaskEnv) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    shape, rng = (env.num_envs, env.env_spec.action_dim), np.random.default_rng(env_seed(0, "floor actions"))
    return {"random": lambda obs: rng.uniform(-1, 1, shape), "zero action": lambda obs: np.zeros(shape)}


def _as_policy(act: Callable[[np.ndarray], np.ndarray]) -> Policy:
    return Policy(lambda key, n: Carry({}), lambda obs, carry, key, t: (act(obs), carry))


@lru_cache(maxsize=2)
def _floor_steps(name: str, env_name: str, episode_steps: int | None, episodes: int) -> tuple[Moment, np.ndarray]:
    """All control steps of such a controller in an environment, and which episode each is of, (steps,)."""

    def nothing(physics: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.zeros(len(action))

    moments, lanes, alive = [], [], np.ones(episodes, bool)
    with closing(make_task_env(Task("floors", env_name, (), nothing, episode_steps=episode_steps), episodes)) as env:
        act = _know_nothing(env)[name]
        obs, _ = env.reset(seed=env_seed(0, "floors"))
        while alive.any():
            obs, _, terminated, truncated, _ = env.step(act(obs))
            moments.append(Moment(*(x[alive] for x in env.moment)))
            lanes.append(np.flatnonzero(alive))
            ended = terminated | truncated
            alive &= ~ended
            if ended.any():
                obs, _ = env.reset(options={"reset_mask": ended})
    return Moment(*map(np.concatenate, zip(*moments))), np.concatenate(lanes)


def make_setting(
    run: Path | str, loaded: Loaded, task: Task, config: AdaptConfig, seed: int, show: Callable[[int, float], None],
    opened: ExitStack,
) -> Setting:  # fmt: skip
    """What the methods start from: a run's agent, its past with the task's rewards, the task's environment. The
    environments that they make are closed with `opened`."""

    def make_env(num_envs: int) -> TaskEnv:
        return opened.enter_context(closing(make_task_env(task, num_envs, root_position=loaded.config.root_position)))

    rows = past(run, loaded, config.samples, seed)
    if rows is not None:
        check_physics(rows, run)
    data = None if rows is None else labelled(rows, task)
    on_device = task_on_device(task, loaded.config.root_position) if config.loop == "device" else None
    encode = _spread(loaded, rows, task)
    return Setting(loaded.agent, task, make_env, config, seed, data, encode, show, on_device)


def labelled(rows: dict[str, np.ndarray], task: Task) -> Transition:
    """Transitions with the rewards of a task that is the same in every episode; zeros for one that is not."""
    context = np.stack([task.draw(np.random.default_rng(0))] * len(rows["obs"]))
    clock = np.ones(len(rows["obs"]), np.int64)
    moment = Moment(rows["physics"], rows["action"], rows["next_physics"], context, clock)
    reward = np.zeros(len(rows["obs"])) if context.shape[1] else rewards(task, moment)
    return relabelled(rows, reward)


def _spread(loaded: Loaded, rows: dict[str, np.ndarray] | None, task: Task) -> Normalizer:
    """Mean and standard deviation of the past's observations, and of the task's inputs there; without a past, what
    the agent itself goes by, and inputs as they are."""
    width = len(task.input_names)
    if rows is None:
        mean, std = np.asarray(loaded.agent.normalizer.mean), np.asarray(loaded.agent.normalizer.std)
        return Normalizer(jnp.float32(np.r_[mean, np.zeros(width)]), jnp.float32(np.r_[std, np.ones(width)]))
    rng = np.random.default_rng(0)
    length = len(rows["physics"])  # They are in order of time, so the draws are spread over them.
    physics = rows["physics"][np.linspace(0, length - 1, min(length, INPUT_DRAWS)).astype(int)]
    context = np.stack([task.draw(rng) for _ in physics])
    inputs = task.inputs(physics, context, rng.integers(0, task.episode_steps or 1, len(physics)))
    columns = [(part.mean(axis=0), part.std(axis=0)) for part in (rows["obs"], inputs)]
    mean, std = (np.concatenate(parts) for parts in zip(*columns))
    return Normalizer(jnp.float32(mean), jnp.float32(np.maximum(std, 1e-3)))


def _file_name(task: str) -> str:
    return task.replace(":", ".")
