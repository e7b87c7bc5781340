"""A run scored by a zero-shot protocol: every task told once, nothing trained, floors and ceilings beside it."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from urlrl.config import MAX_SEED, OfflineConfig, to_json
from urlrl.data.rows import Rows, relabelled
from urlrl.envs.ogbench import OGBENCH_TASKS
from urlrl.errors import UnsupportedPrompt, UserError, check
from urlrl.evaluation import prompting
from urlrl.evaluation.rollout import play, starts
from urlrl.evaluation.suites import PromptKind, ZeroShotSuite, find_suite, make_suites
from urlrl.files import check_folder_of, write_json
from urlrl.runs.load import Loaded, load_checkpoint
from urlrl.runs.past import past_to_label, run_dataset, seen_of
from urlrl.runtime import enable_compilation_cache, versions
from urlrl.streams import stream
from urlrl.tasks.catalogue import FRE_TASKS, MAZE_TASKS, ZERO_SHOT_TASKS, find_task
from urlrl.tasks.task import Task, TaskEnv, check_runs_on, make_task_env, runs_on
from urlrl.training.log import Progress, make_progress, read_metrics
from urlrl.training.run import RunFolder
from urlrl.types import GoalPrompt, Trajectory, Transition, need
from urlrl.verbs.adapt import labelled, measure_floors
from urlrl.verbs.data import best_returns

SUITES = make_suites(
    ZERO_SHOT_TASKS, MAZE_TASKS, {base.removesuffix("-v0"): names for base, names in OGBENCH_TASKS.items()}, FRE_TASKS
)

PLAN = 3  # recursions of planning where the agent's config has none, as in HILP's paper


class Asked(NamedTuple):
    """A kind of prompt that the agent answers."""

    kind: PromptKind
    agent: Any  # one that can plan is asked with and without
    seen: Transition  # what it reads a goal by


def suite_on(env: str) -> str | None:
    """A protocol whose tasks run on this environment, if there is one."""
    return next((name for name, suite in SUITES.items() if runs_on(find_task(suite.tasks[0]), env)), None)


def evaluate_suite(
    run: Path | str, suite: str, *, samples: int | None = None, seed: int = 0, step: int | None = None,
    json_file: Path | str | None = None, quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Score a run by a protocol such as "exorl-v1/walker", and write `<run>/zero_shot/<suite>.json`.

    Args:
        samples: labelled transitions of each reward prompt, if not the protocol's: the result is then marked as such.
        seed: of the samples, resets and random actions.
        step: which checkpoint; None is the newest that is whole.
        json_file: also write the result there.

    Returns:
        {"suite", "protocol", "env", "agent", "step", "seed", "samples", "rows": [...], "notes", "versions"}; a row is
        {"task", "prompt", "return": {"mean", "low", "high"}, "fit": {"samples", "held_out", "r2"}, "gamma",
        "predicted_return", "reliability", "discounted_return", "floors", "ceiling", "best_in_data", ...}: see
        docs/metrics.md.

    Raises:
        UserError: no such suite, a run of another environment, or one without data that could be labelled.
    """
    check("seed", seed, 0, MAX_SEED)
    protocol = find_suite(suite, SUITES)
    count = protocol.samples if samples is None else samples
    check("samples", count, 2)
    check_folder_of(json_file)
    enable_compilation_cache()
    loaded, tasks = load_checkpoint(run, step), [find_task(name) for name in protocol.tasks]
    for task in tasks:
        check_runs_on(task, loaded.config.env)
    progress, notes = make_progress(quiet), [loaded.note] if loaded.note else []
    if count != protocol.samples:
        notes.append(f"Prompts of {count:,} labelled transitions: the protocol has {protocol.samples:,}.")
    wanted = prompting.labelled_count(count)
    rows = past_to_label(run, loaded, wanted, seed)
    if round((held := len(rows["reward"])) * (1 - prompting.HELD_OUT)) < count:
        notes.append(f"The data holds {held:,} transitions: prompts show {1 - prompting.HELD_OUT:.0%} of them.")
    asked = _asked(run, loaded, protocol, relabelled(rows, rows["reward"]), seed)
    found: list[dict[str, Any]] = []
    with closing(progress):
        for done, task in enumerate(tasks):
            progress.update(f"{task.name}: {done} of {len(tasks)} tasks done")
            found += _score_task(loaded, task, protocol, asked, rows, count, seed, notes, progress)
    result = {
        "suite": suite,
        "protocol": to_json(protocol),
        **_origin(run, loaded),
        "seed": seed,
        "samples": count,
        "rows": found,
        "notes": notes,
        "versions": versions(),
    }
    file = Path(run) / "zero_shot" / f"{suite.replace('/', '-')}{'' if count == protocol.samples else f'-{count}'}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(result, file, json_file)
    return json.loads(file.read_bytes())


def _origin(run: Path | str, loaded: Loaded) -> dict[str, Any]:
    """Which agent was scored, how it was made, and the wall clock of all its epochs so far."""
    manifest, epochs = RunFolder(run).manifest(), read_metrics(Path(run) / "metrics.jsonl")
    return {
        "env": loaded.config.env,
        "agent": loaded.config.agent_name,
        "run_seed": loaded.config.seed,
        "step": loaded.step,
        "config": manifest["config"],
        "command": manifest["command"],
        "training_seconds": round(sum(row.get("time/epoch_seconds", 0.0) for row in epochs), 1),
    }


def _score_task(
    loaded: Loaded,
    task: Task,
    protocol: ZeroShotSuite,
    asked: list[Asked],
    rows: Rows,
    samples: int,
    seed: int,
    notes: list[str],
    progress: Progress,
) -> list[dict[str, Any]]:
    """A row for each kind of prompt that the agent answers."""
    found = []
    with closing(make_task_env(task, protocol.episodes, root_position=loaded.config.root_position)) as env:
        around = {
            "floors": measure_floors(task, protocol.floor_episodes),
            "ceiling": task.ceiling(starts(env, seed)),
            "best_in_data": _best_in_data(loaded, task),
        }
        for kind, agent, seen in asked:
            if kind != "reward" and task.goal_obs(env) is None:
                continue
            try:
                told = _read(kind, agent, task, env, rows, seen, samples, seed)
            except UserError as error:  # The agent cannot be asked so, or the data says nothing of this reward.
                note = str(error) if isinstance(error, UnsupportedPrompt) else f"{task.name}: {error}"
                notes += [] if note in notes else [note]
                continue
            read, fit = told
            trajectory = play(env, agent, read, seed)
            row = {"task": task.name, "prompt": kind, "fit": fit, **_measure(agent, read, trajectory, kind, seen, seed)}
            progress.say(f"{task.name}, told by {kind}: return {row['return']['mean']:.1f}")
            found.append(row | around)
    return found


def _asked(run: Path | str, loaded: Loaded, protocol: ZeroShotSuite, seen: Transition, seed: int) -> list[Asked]:
    """The protocol's prompts that the agent answers. It reads them by `seen`, but plans over as many transitions as it
    wants."""
    found = []
    for kind in protocol.prompts:
        if (agent := _variant(loaded.agent, kind)) is not None:
            own = seen_of(run, loaded, agent, len(seen.reward), seed) if kind == "plan" else seen
            assert own is not None  # `seen` was read there.
            found.append(Asked(kind, agent, own))
    return found


def _variant(agent: Any, kind: PromptKind) -> Any | None:
    """The agent that answers this kind of prompt: one that can plan is asked with and without. None if it cannot."""
    if "plans" in agent.abilities:
        return agent.planning(agent.config.plan_recursions or PLAN if kind == "plan" else 0)
    return None if kind == "plan" else agent


def _read(
    kind: PromptKind, agent: Any, task: Task, env: TaskEnv, rows: Rows, seen: Transition | None, samples: int, seed: int
) -> tuple[Any, dict[str, Any] | None]:
    """What the agent makes of the task, and how well that explains its reward."""
    need(agent, "told")
    if kind == "reward":
        return prompting.read_reward(agent, labelled(rows, task), samples, seed)
    goal = task.goal_obs(env)
    assert goal is not None, task.name
    return agent.read(GoalPrompt(goal), seen, stream(seed, "prompt, read")), None


def _measure(
    agent: Any, read: Any, trajectory: Trajectory, kind: PromptKind, seen: Transition, seed: int
) -> dict[str, Any]:
    """Returns of the episodes, and what the agent expected of them where it was told a reward."""
    rewards = np.where(trajectory.mask, trajectory.steps.reward, np.nan)
    returns = prompting.returns(rewards)
    row: dict[str, Any] = {
        "return": prompting.interval(returns),
        "returns": returns.tolist(),
        "episode_steps": len(rewards),
    }
    if kind != "reward":
        return row | {"gamma": None, "discounted_return": None, "predicted_return": None}
    gamma = float(agent.gamma)
    discounted = prompting.interval(prompting.returns(rewards, gamma))
    predicted = prompting.predict(agent, read, trajectory, seen, seed)
    return row | {"gamma": gamma, "discounted_return": discounted, **predicted}


def _best_in_data(loaded: Loaded, task: Task) -> float | None:
    """The best episode return of this task in the dataset that the agent learned from; None for other runs."""
    if not isinstance(loaded.config, OfflineConfig) or not loaded.spec.physics:
        return None
    return float(best_returns(run_dataset(loaded.config), task).max())
