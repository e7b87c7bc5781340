"""Zero-shot evaluation of a run, beside the random policy."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from urlrl.config import MAX_SEED
from urlrl.errors import UnsupportedPrompt, check
from urlrl.evaluation import coverage, zero_shot
from urlrl.files import write_atomically
from urlrl.runtime import enable_compilation_cache
from urlrl.training.run import RunFolder
from urlrl.verbs.runs import load_checkpoint, make_run_env


def evaluate(run: Path | str, *, step: int | None = None, seed: int = 0, json_file: Path | str | None = None) -> dict:
    """Zero-shot evaluation of a run: policy state coverage and goal reaching, each beside the random policy.

    Args:
        step: which checkpoint; None is the newest that is whole.
        seed: of skills, goals, resets and sampled actions.
        json_file: also write the result there; it is always written to `<run>/evaluation.json`.

    Returns:
        {"step", "seed", "env", "coverage": {...} or None, "goals": {...} or None, "notes": [...]}; each part names its
        protocol. What an environment or an agent does not allow is None, and a note says why.
    """
    check("seed", seed, 0, MAX_SEED)
    enable_compilation_cache()
    agent, config, spec, step, note = load_checkpoint(run, step)
    result: dict[str, Any] = {"step": step, "seed": seed, "env": config.env, "coverage": None, "goals": None}
    notes = [note] if note else []
    if not spec.position:
        notes.append(f"Environment '{config.env}' does not say where it is: coverage and goals are left out.")
    else:
        with closing(make_run_env(config, coverage.EPISODES)) as env:
            result["coverage"], trajectory = coverage.score(env, agent, seed)
        if not spec.goal_box:
            notes.append(f"Environment '{config.env}' has no goals that its observation can show: goals are left out.")
        else:
            seen = jax.tree.map(lambda x: x[trajectory.mask].astype(np.float32), trajectory.steps)
            try:
                with closing(make_run_env(config, zero_shot.NUM_GOALS)) as env:
                    result["goals"] = zero_shot.score(env, agent, seen, seed)
            except UnsupportedPrompt as error:
                notes.append(f"{error} Goals are left out.")
    content = json.dumps({**result, "notes": notes}, indent=2).encode()
    write_atomically(RunFolder(run).path / "evaluation.json", content)
    if json_file is not None:
        write_atomically(Path(json_file), content)
    return {**result, "notes": notes}
