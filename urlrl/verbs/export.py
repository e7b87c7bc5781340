"""A run's skills as files that another controller loads."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from urlrl.adaptation.tuned import Controlled, Skilled
from urlrl.config import MAX_SEED, to_json
from urlrl.data.rows import relabelled
from urlrl.errors import UserError, check, check_choice
from urlrl.evaluation import coverage
from urlrl.files import read_json
from urlrl.runs.begin import make_run_env
from urlrl.runs.load import Loaded, load_checkpoint, saved_evaluation
from urlrl.runs.past import past
from urlrl.runtime import enable_compilation_cache
from urlrl.skills.card import make_card
from urlrl.skills.export import Probes, Seen, add_controller, make_policy
from urlrl.skills.formats import FORMATS
from urlrl.skills.policy import SkillError, SkillPolicy
from urlrl.streams import stream
from urlrl.tasks.features import evaluate, features, has_features
from urlrl.tasks.task import make_task_env
from urlrl.training.run import TUNED, RunFolder
from urlrl.verbs.tuned import load_adapted, play_kept

ROWS = 2000  # transitions that a bundle brings along


def export(
    run: Path | str,
    out: Path | str,
    *,
    step: int | None = None,
    format: str = "bundle",
    seed: int = 0,
    rows: int = ROWS,
    prompts: Sequence[str] | str = (),
) -> Path:
    """Write a run's skills, or what an adaptation left, into the folder `out`; it is whole or not there, and
    replaces only an older export.

    Args:
        run: folder of a run, or `<run>/adapt/<task>/<method>-<seed>`.
        step: which checkpoint; None is the newest that is whole.
        format: "bundle" (`urlrl.skills.policy` reads it), "onnx" or "stablehlo" (see `urlrl.skills.formats`).
        seed: of the episodes that name the skills and give the golden outputs; that of `evaluate`.
        rows: how many of a run's transitions the bundle brings along, to be told rewards on; 0: none, and it cannot.
        prompts: rewards in words, as of `prompt`; each becomes a named skill.

    Returns:
        The folder.

    Raises:
        UserError: not a run, the export does not do what the agent does to 1e-5, a package is missing, or the folder
            holds something else.
    """
    check_choice("format", format, FORMATS)
    check("seed", seed, 0, MAX_SEED)
    if rows != 0 and rows < 2:
        raise UserError(f"rows is {rows}: expected 0, or at least 2.")
    prompts = [prompts] if isinstance(prompts, str) else prompts
    enable_compilation_cache()
    try:
        if (Path(run) / TUNED).exists():
            policy, probes = _of_adaptation(Path(run), step, seed, prompts)
        else:
            policy, probes = _of_run(Path(run), step, seed, rows, prompts)
        return FORMATS[format](policy, probes, out)
    except SkillError as error:
        raise UserError(str(error)) from error


def _of_run(run: Path, step: int | None, seed: int, rows: int, prompts: Sequence[str]) -> tuple[SkillPolicy, Probes]:
    loaded = load_checkpoint(run, step)
    agent, config, spec, step, note = loaded
    manifest = RunFolder(run).manifest()
    parts = [manifest, *(part for part in manifest["continued"] if part["from_step"] < step)]
    provenance = {
        "agent": config.agent_name,
        "step": step,
        "evaluation_seed": seed,
        "note": note,
        "commands": [part["command"] for part in parts],
        **{key: manifest[key] for key in ("config", "versions")},
    }
    with closing(make_run_env(config, coverage.EPISODES)) as env:
        trajectory = coverage.scored_episodes(env, agent, seed)
        seen = _seen(run, loaded, rows, seed) if rows else None
        key = stream(seed, "export")
        policy, probes = make_policy(agent, env, trajectory, key, provenance, seen=seen, prompts=prompts)
    policy.card = make_card(policy, saved_evaluation(run, step, spec))
    return policy, probes


def _seen(run: Path, loaded: Loaded, rows: int, seed: int) -> Seen | None:
    """Transitions of a run, and all features of its environment if they have physics; None if it has stored none."""
    found = past(run, loaded, rows, seed)
    if found is None:
        return None
    words: dict[str, np.ndarray] = {}
    env = loaded.config.env
    if "next_physics" in found and has_features(env):
        known = features(env)
        values = evaluate(list(known.values()), found["next_physics"], found["action"].astype(np.float64))
        words = {name: row.astype(np.float32) for name, row in zip(known, values)}
    return Seen(relabelled(found, np.zeros(len(found["obs"]), np.float32)), words)


def _of_adaptation(folder: Path, step: int | None, seed: int, prompts: Sequence[str]) -> tuple[SkillPolicy, Probes]:
    if step is not None:
        raise UserError(f"{folder} holds one policy of one task: expected no step.")
    if prompts:
        raise UserError(
            f"{folder} holds a policy of one task, and the prompt '{prompts[0]}' is for a run: expected none."
        )
    adapted = load_adapted(folder)
    task, config, tuned = adapted.task, adapted.config, read_json(folder / TUNED)
    provenance = {
        "agent": config.agent_name,
        "step": adapted.pretrain_steps,
        "task": task.name,
        "method": adapted.method,
        "task_steps": adapted.steps,
        "task_seed": adapted.seed,
        "evaluation_seed": seed,
        "note": "",
        "commands": [],
        "config": {**to_json(config), "adaptation": tuned["config"]},
        "versions": tuned["versions"],
    }
    with closing(make_task_env(task, coverage.EPISODES, root_position=config.root_position)) as env:
        match adapted.policy:
            case Skilled(agent=agent, z=z):  # The pretrained agent sees no features.
                trajectory = coverage.scored_episodes(env.env, agent, seed)
                extra: dict[str, Any] = {"named": {task.name: np.asarray(z)}}
            case Controlled(agent=agent):
                trajectory = coverage.scored_episodes(env.env, agent, seed)
                extra = {}
            case agent:
                trajectory = coverage.scored_episodes(env, agent, seed)
                extra = {"features": task.input_names}
        policy, probes = make_policy(agent, env.env, trajectory, stream(seed, "export"), provenance, **extra)
        if isinstance(adapted.policy, Controlled):
            played = play_kept(env, adapted.policy, seed)
            policy = add_controller(policy, adapted.policy, played.steps.obs[played.mask], task.input_names)
    policy.card = make_card(policy, None)
    return policy, probes
