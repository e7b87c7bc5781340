"""One HTML page about one pretrained agent."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from urlrl.config import flatten
from urlrl.errors import sentence
from urlrl.evaluation import diagnostics, figures, page, whereabouts
from urlrl.evaluation.gap import baselines, beside, columns
from urlrl.evaluation.stats import share
from urlrl.files import write_atomically
from urlrl.types import EnvSpec, Trajectory

GOAL_ROWS = {  # key of evaluation["goals"]["agent"] -> what it is
    "hit_3": "Goals: comes within 3 m at some time",
    "end_3": "Goals: is within 3 m at the end",
    "at_3": "Goals: time spent within 3 m",
    "hit_1": "Goals: comes within 1 m at some time",
    "end_1": "Goals: is within 1 m at the end",
    "at_1": "Goals: time spent within 1 m",
    "closest_distance": "Goals: closest distance, mean (m)",
    "final_distance": "Goals: distance at the end, mean (m)",
}


@dataclass(frozen=True)
class ReportContent:
    """All that the page shows; a missing part is left out, and a sentence says so."""

    title: str
    config: dict[str, Any]  # resolved, as in config.json, and the `command` line
    versions: dict[str, str]  # package -> version
    spec: EnvSpec
    trajectory: Trajectory  # episodes with deterministic actions, each with a skill of its own
    latent: np.ndarray | None  # (T + 1, n, d): phi along these episodes
    diagnostics: dict[str, Any] | None  # of the skills of these episodes, see `diagnostics.diagnose`
    metrics: Sequence[dict[str, float]]  # rows of metrics.jsonl: {"step": int, name: float, ...}
    evaluation: dict[str, Any]  # what `urlrl evaluate` writes
    videos: Sequence[Path] | str  # animated WebP files, or the sentence that says why there are none
    skill_kind: str  # of SkillSpace
    time_spent: whereabouts.Episodes | None = None  # of an environment that says where noise is


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write `index.html`, and beside it the figures it has: `skills.png`, `skills.csv`, `latent.png`, `time.png`,
    `curves.png`.

    Every file is replaced in one step, so a report that was there before stays whole if this one fails.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = [
        _summary(content),
        _skills_section(folder, content),
        _latent_section(folder, content),
        _diagnostics_section(content),
        _evaluation_section(content),
        _time_section(folder, content),
        _curves_section(folder, content),
        _setup_section(content),
    ]
    file = folder / "index.html"
    write_atomically(file, page.document(content.title, "\n".join(sections)).encode())
    return file


# Sections.


def _summary(content: ReportContent) -> str:
    """The title and the few numbers that a reader looks for first, each beside its best baseline."""
    evaluation, dim = content.evaluation, content.trajectory.steps.z.shape[-1]
    facts = [
        ("Environment", content.spec.id, ""),
        ("Skills", f"{content.skill_kind}, {dim}-d", ""),
        ("Pretrained for", page.number(evaluation["step"]), "environment steps, no reward"),
    ]
    if coverage := evaluation["coverage"]:
        who, best = _best(baselines(evaluation, "coverage"))
        facts.append(("Coverage", page.number(coverage["agent"]), f"{coverage['unit']}; {who} {page.number(best)}"))
    found = content.diagnostics
    if found and "dead_skills" in found["scores"]:
        distinct, dead = (f"{found['scores'][name]:.0f}" for name in ("distinct_skills", "dead_skills"))
        facts.append(("Distinct skills", distinct, f"of {found['skills']}; {dead} dead"))
    if goals := evaluation["goals"]:
        (who, best), hit = _best(baselines(evaluation, "goals", "hit_3")), goals["agent"]["hit_3"]
        way = share(hit, [best], 1.0)
        more = "" if way is None else f"; {page.share(way)} of the way from there to all"
        facts.append(("Goals hit (3 m)", page.share(hit), f"{who} {page.share(best)}{more}"))
    return page.header(content.title, facts)


def _best(scores: dict[str, float]) -> tuple[str, float]:
    """The best baseline, and its score."""
    return max(scores.items(), key=lambda one: one[1])


def _skills_section(folder: Path, content: ReportContent) -> str:
    title, trajectory, spec = "What the skills do", content.trajectory, content.spec
    if isinstance(content.videos, str):
        parts = [page.note(content.videos)]
    else:
        caption = "Deterministic episodes of different skills; each tile carries its episode's clock."
        image = '<img src="{}" alt="Animation of the agent following different skills">'
        parts = [
            page.figure(image.format(page.uri(path, "webp")), caption) for path in map(Path.read_bytes, content.videos)
        ]
    if trajectory.position is None:
        return page.section(title, *parts, page.note(f"Environment '{spec.id}' names no position: there is no map."))
    write_atomically(folder / "skills.csv", skills_csv(content))
    names = spec.position
    where = f"{names[0]} against time" if len(names) == 1 else f"{names[0]} and {names[1]}, at equal scale"
    if len(names) > 2:
        where += f", without {' and '.join(names[2:])}"
    caption = (
        f"{trajectory.mask.shape[1]} episodes with deterministic actions: {where}. Colour is the skill z; rings "
        f"mark starts, dots mark ends."
    )
    draw = partial(figures.draw_skills, trajectory, spec, content.skill_kind)
    return page.section(title, *parts, page.picture(folder / "skills.png", draw, "Map of the skills", caption))


def skills_csv(content: ReportContent) -> bytes:
    """A row per episode and step: the clock, the position, and z (its index where skills are indices)."""
    trajectory, spec = content.trajectory, content.spec
    assert trajectory.position is not None
    z, z_names = np.asarray(trajectory.steps.z[0]), [f"z_{i}" for i in range(trajectory.steps.z.shape[-1])]
    if content.skill_kind == "onehot":
        z, z_names = z.argmax(axis=-1)[:, None], ["skill"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["episode", "step", "time_s" if spec.control_dt else "control_steps", *spec.position, *z_names])
    times, _ = figures.clock(trajectory, spec)
    for lane, length in enumerate(trajectory.mask.sum(axis=0)):
        for row in range(length + 1):
            numbers = [times[row], *trajectory.position[row, lane], *z[lane]]
            writer.writerow([lane, row, *(f"{value:.6g}" for value in numbers)])
    return text.getvalue().encode()


def _latent_section(folder: Path, content: ReportContent) -> str:
    title, latent = "The latent space", content.latent
    if latent is None:
        return page.section(title, page.note("The agent has no latent map of states to show."))
    if not np.isfinite(figures.seen(content.trajectory, latent)).all(axis=-1).any():
        return page.section(
            title, page.note("No state of these episodes has a finite phi, so there is nothing to show.")
        )
    dim = latent.shape[-1]
    shown = {1: "φ has one dimension and is shown against time.", 2: "φ of every state in the episodes above."}.get(
        dim, f"φ has {dim} dimensions; shown are the first two principal components over these states."
    )
    color = "where the state was" if content.spec.position else "time in the episode: there is no position"
    draw = partial(figures.draw_latent, latent, content.trajectory, content.spec)
    picture = page.picture(folder / "latent.png", draw, "Latent space", f"{shown} Colour is {color}.")
    return page.section(title, picture)


def _diagnostics_section(content: ReportContent) -> str:
    """Nothing, where there are no skills."""
    found = content.diagnostics
    if found is None:
        return ""
    caption = (
        f"Protocol {found['protocol']}, of the {found['episodes']} episodes above. Measured on one agent in one "
        "evaluation; docs/metrics.md has the formulas."
    )
    return page.section(
        "How good the skills are",
        *map(page.note, diagnostics.warnings(found)),
        page.table(("", ""), diagnostics.sentences(found).items(), "settings"),
        page.caption(caption),
    )


def _evaluation_section(content: ReportContent) -> str:
    """Coverage and goals beside the random policy, and those of the same in C MuJoCo for a run in another simulator; or
    the notes that say why there are none."""
    evaluation, rows, captions = content.evaluation, [], []
    if coverage := evaluation["coverage"]:
        rows.append((f"Coverage ({coverage['unit']})", *map(page.number, beside(evaluation, "coverage"))))
        reached = zip(content.spec.position, coverage["min"], coverage["max"])
        extent = ", ".join(f"{name} from {page.number(low)} to {page.number(high)} m" for name, low, high in reached)
        captions.append(
            f"Coverage is protocol {coverage['protocol']}, {coverage['episodes']} episodes each; the agent reached "
            f"{extent}."
        )
    if goals := evaluation["goals"]:
        for key, name in GOAL_ROWS.items():
            show = page.number if key.endswith("distance") else page.share
            rows.append((name, *map(show, beside(evaluation, "goals", key))))
        box = " × ".join(f"[−{g:g}, {g:g}]" for g in goals["goal_box"])
        captions.append(f"Goals are protocol {goals['protocol']}, {goals['num_goals']} of them, drawn from {box} m.")
    parts = [page.note(note) for note in evaluation["notes"]]
    if rows:
        if twin := evaluation.get("twin"):
            captions.append(f"{twin['env']} is the same environment in C MuJoCo, by the same protocol and seed.")
        captions.append(f"Evaluation seed {evaluation['seed']}; one training run says little about a method.")
        parts.append(page.table(["", *map(sentence, columns(evaluation))], rows, "numbers"))
        parts.append(page.caption(" ".join(captions)))
    return page.section("Zero-shot evaluation", *parts)


def _time_section(folder: Path, content: ReportContent) -> str:
    """Nothing, where there is no noise to speak of."""
    episodes, spec = content.time_spent, content.spec
    if episodes is None:
        return ""
    scores, steps = whereabouts.score(episodes, spec), whereabouts.steps(episodes)
    rows = [(sentence(name), *numbers) for name, *numbers in whereabouts.rows(scores)]
    protocol = (
        f"Protocol {scores['protocol']}: {scores['episodes']} episodes as in training, with sampled actions, and as "
        f"many of the random policy from the same starts. Places and noise are those of the true state."
    )
    whose = "of each player's own steps" if len(steps) > 2 else "of steps"
    caption = {
        1: f"Share {whose} by cell. Cells with noise are shaded.",
        2: f"Share {whose} by cell, in a logarithmic scale. Cells without colour were not visited.",
    }.get(
        len(spec.position),
        f"Share {whose} by room, of all layouts together, up to the last that anybody entered. A room's noise is that "
        f"of the step.",
    )
    return page.section(
        "Where it spends its time",
        page.picture(folder / "time.png", partial(figures.draw_time, steps, spec), "Where the time goes", caption),
        page.table(["", "Agent", "Random policy"], rows, "numbers"),
        page.caption(protocol),
    )


def _curves_section(folder: Path, content: ReportContent) -> str:
    series = figures.curves(content.metrics)
    if not series:
        return page.section("Training", page.note("The run logged no metrics."))
    caption = "Metrics of the run against environment steps. "
    if any(len(points) > figures.MAX_POINTS for points in series.values()):
        caption += "Lines are averages of consecutive log entries, bands their range. "
    named = "; ".join(f"{figures.PANELS[name]} is {name}" for name in series if name in figures.PANELS)
    caption += f"Names in metrics.jsonl: {named}." if named else ""
    draw = partial(figures.draw_curves, series)
    return page.section("Training", page.picture(folder / "curves.png", draw, "Training curves", caption))


def _setup_section(content: ReportContent) -> str:
    spec, settings = content.spec, flatten(content.config)
    command = settings.pop("command")
    limit = f"{spec.episode_steps} control steps" if spec.episode_steps else "until the environment ends them"
    if spec.episode_steps and spec.control_dt:
        limit += f" ({spec.episode_steps * spec.control_dt:g} s)"
    environment = [("Observation", f"{spec.obs_dim} numbers"), ("Action", f"{spec.action_dim} numbers in [−1, 1]"),
                   ("Episodes", limit), ("Position", ", ".join(spec.position) or "none")]  # fmt: skip
    config = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in settings.items()]
    return page.section(
        "Setup",
        f"<p>The command that made this run:</p><pre><code>{page.escape(command)}</code></pre>" if command else "",
        page.table((f"Environment {spec.id}", ""), environment, "settings"),
        page.table(("Configuration", ""), config, "settings"),
        page.table(("Versions", ""), content.versions.items(), "settings"),
    )
