"""The page of a run."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from urlrl.evaluation import coverage, diagnostics, whereabouts
from urlrl.runs.begin import make_run_env
from urlrl.runs.load import load_checkpoint, saved_evaluation
from urlrl.runtime import enable_compilation_cache
from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder
from urlrl.types import EnvSpec, Trajectory
from urlrl.verbs.evaluate import evaluate, play_whereabouts


def report(run: Path | str, *, step: int | None = None) -> Path:
    """Write `<run>/report/index.html`: skills, curves, latents, goals, config; and videos, where a GL backend
    exists. Evaluates the checkpoint if that was not done.

    Args:
        step: which checkpoint; None is the newest that is whole.

    Returns:
        The page.
    """
    from urlrl.evaluation.report import ReportContent, write_report  # Imports matplotlib: training need not.

    enable_compilation_cache()
    folder = RunFolder(run)
    agent, config, spec, step, _ = load_checkpoint(run, step)
    evaluation = saved_evaluation(run, step, spec) or evaluate(run, step=step)
    with closing(make_run_env(config, coverage.EPISODES)) as env:
        model = getattr(env, "model", None)
        trajectory = coverage.scored_episodes(env, agent, evaluation["seed"])
    if model is None and spec.twin:
        with closing(make_run_env(replace(config, env=spec.twin), 1)) as env:
            model = getattr(env, "model", None)
    target, manifest = folder.path / "report", folder.manifest()
    content = ReportContent(
        title=f"{config.agent_name} on {config.env}, {step:,} steps, seed {config.seed}",
        config={**manifest["config"], "command": manifest["command"]},
        versions=manifest["versions"],
        spec=spec,
        trajectory=trajectory,
        latent=diagnostics.latents(agent, trajectory),
        diagnostics=diagnostics.diagnose(agent, trajectory, spec),
        metrics=[row for row in read_metrics(folder.path / "metrics.jsonl") if row["step"] <= step],
        evaluation=evaluation,
        videos=_videos(model, spec, trajectory, config.agent.z.kind, target),
        skill_kind=config.agent.z.kind,
        time_spent=play_whereabouts(agent, config, evaluation["seed"]) if whereabouts.has_noise(spec) else None,
    )
    return write_report(target, content)


def _videos(model: Any, spec: EnvSpec, trajectory: Trajectory, kind: str, folder: Path) -> list[Path] | str:
    if model is None or trajectory.physics is None:
        return f"Environment '{spec.id}' has no MuJoCo model to render: there are no videos."
    from urlrl.evaluation.video import choose_episodes, render_videos

    qpos = trajectory.physics[..., : dict(spec.physics)["qpos"]]
    lanes, labels = choose_episodes(trajectory.steps.z[0], kind)
    return render_videos(model, qpos[:, lanes], folder, fps=1 / (spec.control_dt or 1), labels=labels)
