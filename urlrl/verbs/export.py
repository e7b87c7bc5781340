"""A run's skills as files that another controller loads."""

from contextlib import closing
from pathlib import Path

from urlrl.config import MAX_SEED
from urlrl.errors import UserError, check, check_choice
from urlrl.evaluation import coverage
from urlrl.runs.begin import make_run_env
from urlrl.runtime import enable_compilation_cache
from urlrl.skills.card import make_card
from urlrl.skills.export import make_policy
from urlrl.skills.formats import FORMATS
from urlrl.skills.policy import SkillError
from urlrl.streams import stream
from urlrl.training.run import RunFolder
from urlrl.verbs.runs import load_checkpoint, saved_evaluation


def export(run: Path | str, out: Path | str, *, step: int | None = None, format: str = "bundle", seed: int = 0) -> Path:
    """Write a run's skills into the folder `out`; it is whole or not there, and replaces only an older export.

    Args:
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
    try:
        with closing(make_run_env(config, coverage.EPISODES)) as env:
            trajectory = coverage.scored_episodes(env, agent, seed)
            policy, probes = make_policy(agent, env, trajectory, stream(seed, "export"), provenance)
        policy.card = make_card(policy, saved_evaluation(run, step, spec))
        return FORMATS[format](policy, probes, out)
    except SkillError as error:
        raise UserError(str(error)) from error
