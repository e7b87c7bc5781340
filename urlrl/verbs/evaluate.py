"""Zero-shot evaluation of a run, beside the random policy."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from urlrl.config import MAX_SEED, OfflineConfig, RunConfig
from urlrl.errors import UnsupportedPrompt, UserError, check
from urlrl.evaluation import coverage, diagnostics, prompting, whereabouts, zero_shot
from urlrl.files import check_folder_of, write_json
from urlrl.runs.begin import make_run_env
from urlrl.runs.load import Loaded, load_checkpoint
from urlrl.runs.past import seen_of
from urlrl.runtime import enable_compilation_cache
from urlrl.training.run import TUNED, RunFolder
from urlrl.types import Transition


def evaluate(
    run: Path | str,
    *,
    step: int | None = None,
    seed: int = 0,
    json_file: Path | str | None = None,
    video: Path | str | None = None,
) -> dict[str, Any]:
    """Zero-shot evaluation of a run: policy state coverage and goal reaching, each beside the random policy. An
    agent that learned from data reads the goals by that data. What an adaptation left is scored on its
    task instead, see `urlrl.verbs.adapt.evaluate_adapted`.

    Args:
        step: which checkpoint; None is the newest that is whole.
        seed: of skills, goals, resets and sampled actions.
        json_file: also write the result there; it is always written to `<run>/evaluation.json`.
        video: of what an adaptation left: also render its first episodes to this .mp4 or .webp file.

    Returns:
        {"step", "seed", "env", "coverage": {...} or None, "goals": {...} or None, "diagnostics": {...} or None, "twin":
        {...} or None, "notes": [...]}; each part names its protocol. "diagnostics" is of the skills, see
        `urlrl.evaluation.diagnostics`. "twin" holds "env" and these three of the same in C MuJoCo, for a run in another
        simulator. What an environment or an agent does not allow is None, and a note says why. Of an
        environment that says where noise is, "whereabouts" holds {"agent", "random"}: where they spend their time.
    """
    check("seed", seed, 0, MAX_SEED)
    check_folder_of(json_file)
    enable_compilation_cache()
    if (Path(run) / TUNED).exists():
        from urlrl.verbs.adapt import evaluate_adapted  # It imports all that learns in tasks.

        if step is not None:
            raise UserError(f"{run} holds one policy of one task: expected no step.")
        return evaluate_adapted(run, seed=seed, json_file=json_file, video=video)
    if video is not None:
        raise UserError(
            f"{run} is a run, whose videos are in its report: expected --video for what an adaptation left."
        )
    loaded = load_checkpoint(run, step)
    agent, config, spec, step, note = loaded
    scores, notes = _measure(run, loaded, seed)
    twin = None
    if spec.twin:
        twin = {"env": spec.twin, **_measure(run, loaded._replace(config=replace(config, env=spec.twin)), seed)[0]}
    if whereabouts.has_noise(spec):
        scores["whereabouts"] = whereabouts.score(play_whereabouts(agent, config, seed), spec)
    notes = [note, *notes] if note else notes
    result = {"step": step, "seed": seed, "env": config.env, **scores, "twin": twin, "notes": notes}
    write_json(result, RunFolder(run).path / "evaluation.json", json_file, indent=2)
    return result


def play_whereabouts(agent: Any, config: RunConfig, seed: int) -> whereabouts.Episodes:
    """The episodes that "whereabouts" counts, and that a report shows."""
    with closing(make_run_env(config, whereabouts.EPISODES)) as env:
        return whereabouts.play(env, agent, seed)


def _measure(run: Path | str, loaded: Loaded, seed: int) -> tuple[dict[str, Any], list[str]]:
    """{"coverage", "goals", "diagnostics"} in the config's environment, and notes on what is missing."""
    agent, config, spec = loaded.agent, loaded.config, loaded.spec
    result: dict[str, Any] = {"coverage": None, "goals": None, "diagnostics": None}
    nowhere = [f"Environment '{config.env}' does not say where it is: coverage and goals are left out."]
    if not config.env or not (spec.position or config.agent.z.dim):
        return result, nowhere
    with closing(make_run_env(config, coverage.EPISODES)) as env:
        if spec.position:
            result["coverage"], trajectory = coverage.score(env, agent, seed)
        else:
            trajectory = coverage.scored_episodes(env, agent, seed)
    result["diagnostics"] = diagnostics.diagnose(agent, trajectory, spec)
    if not spec.position:
        return result, nowhere
    if not spec.goal_box:
        return result, [f"Environment '{config.env}' has no goals that its observation can show: goals are left out."]
    seen: Transition | None
    if isinstance(config, OfflineConfig):  # It reads goals by its data, as it learned from it.
        try:
            seen = seen_of(run, loaded, agent, prompting.LABELLED, seed)
        except UserError as error:
            return result, [f"{error} Goals are left out, as they are read by the data."]
    else:
        seen = jax.tree.map(lambda x: x[trajectory.mask].astype(np.float32), trajectory.steps)
    try:
        with closing(make_run_env(config, zero_shot.NUM_GOALS)) as env:
            result["goals"] = zero_shot.score(env, agent, seen, seed)
    except UnsupportedPrompt as error:
        return result, [f"{error} Goals are left out."]
    return result, []
