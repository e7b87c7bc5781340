"""A run's skills as files that another controller loads."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from urlrl.adaptation.tuned import Skilled, Tuned
from urlrl.config import MAX_SEED, to_json
from urlrl.errors import UnsupportedPrompt, UserError, check, check_choice
from urlrl.evaluation import coverage
from urlrl.files import read_json
from urlrl.runs.begin import make_run_env
from urlrl.runs.load import load_checkpoint, saved_evaluation
from urlrl.runtime import enable_compilation_cache
from urlrl.skills.card import make_card
from urlrl.skills.export import Probes, make_policy
from urlrl.skills.formats import FORMATS
from urlrl.skills.policy import SkillError, SkillPolicy
from urlrl.streams import stream
from urlrl.tasks.task import make_task_env
from urlrl.training.run import TUNED, RunFolder
from urlrl.verbs.tuned import load_adapted


def export(run: Path | str, out: Path | str, *, step: int | None = None, format: str = "bundle", seed: int = 0) -> Path:
    """Write a run's skills, or the policy that an adaptation left, into the folder `out`; it is whole or not there, and
    replaces only an older export.

    Args:
        run: folder of a run, or `<run>/adapt/<task>/<method>-<seed>`.
        step: which checkpoint; None is the newest that is whole.
        format: "bundle" (`urlrl.skills.policy` reads it), "onnx" or "stablehlo" (see `urlrl.skills.formats`).
        seed: of the episodes that name the skills and give the golden outputs; that of `evaluate`.

    Returns:
        The folder.

    Raises:
        UserError: not a run, the export does not do what the agent does to 1e-5, a package is missing, or the folder
            holds something else.
    """
    check_choice("format", format, FORMATS)
    check("seed", seed, 0, MAX_SEED)
    enable_compilation_cache()
    make = _of_adaptation if (Path(run) / TUNED).exists() else _of_run
    try:
        policy, probes = make(Path(run), step, seed)
        return FORMATS[format](policy, probes, out)
    except SkillError as error:
        raise UserError(str(error)) from error


def _of_run(run: Path, step: int | None, seed: int) -> tuple[SkillPolicy, Probes]:
    agent, config, spec, step, note = load_checkpoint(run, step)
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
        policy, probes = make_policy(agent, env, trajectory, stream(seed, "export"), provenance)
    policy.card = make_card(policy, saved_evaluation(run, step, spec))
    return policy, probes


def _of_adaptation(folder: Path, step: int | None, seed: int) -> tuple[SkillPolicy, Probes]:
    if step is not None:
        raise UserError(f"{folder} holds one policy of one task: expected no step.")
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
            case Tuned() as agent:
                if "exportable" not in agent.abilities:
                    kind = type(agent.learner).__name__
                    raise UnsupportedPrompt(f"{folder} holds a policy of {kind}: expected one of SAC to export.")
                trajectory = coverage.scored_episodes(env, agent, seed)
                extra = {"features": task.input_names}
            case _:
                raise UserError(
                    f"{folder} holds a controller over skills: expected a single policy, of another method than "
                    f"{adapted.method}."
                )
        policy, probes = make_policy(agent, env.env, trajectory, stream(seed, "export"), provenance, **extra)
    policy.card = make_card(policy, None)
    return policy, probes
