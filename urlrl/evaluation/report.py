"""One HTML page about one pretrained agent: it needs no other file, no network and no script.

The page embeds each figure twice, for light and dark screens; the light one is also written beside the page as PNG.
"""

import base64
import csv
import html
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from urlrl.config import flatten
from urlrl.errors import sentence
from urlrl.evaluation import diagnostics, figures, whereabouts
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
    page = folder / "index.html"
    write_atomically(page, _page(content.title, "\n".join(sections)).encode())
    return page


# Sections.


def _summary(content: ReportContent) -> str:
    """The title and the few numbers that a reader looks for first, each beside its best baseline."""
    evaluation, dim = content.evaluation, content.trajectory.steps.z.shape[-1]
    facts = [
        ("Environment", content.spec.id, ""),
        ("Skills", f"{content.skill_kind}, {dim}-d", ""),
        ("Pretrained for", _number(evaluation["step"]), "environment steps, no reward"),
    ]
    if coverage := evaluation["coverage"]:
        who, best = _best(baselines(evaluation, "coverage"))
        facts.append(("Coverage", _number(coverage["agent"]), f"{coverage['unit']}; {who} {_number(best)}"))
    found = content.diagnostics
    if found and "dead_skills" in found["scores"]:
        distinct, dead = (f"{found['scores'][name]:.0f}" for name in ("distinct_skills", "dead_skills"))
        facts.append(("Distinct skills", distinct, f"of {found['skills']}; {dead} dead"))
    if goals := evaluation["goals"]:
        (who, best), hit = _best(baselines(evaluation, "goals", "hit_3")), goals["agent"]["hit_3"]
        way = share(hit, [best], 1.0)
        more = "" if way is None else f"; {_share(way)} of the way from there to all"
        facts.append(("Goals hit (3 m)", _share(hit), f"{who} {_share(best)}{more}"))
    cells = "".join(
        f"<div><dt>{_escape(name)}</dt><dd>{_escape(value)}<small>{_escape(more)}</small></dd></div>"
        for name, value, more in facts
    )
    return f'<header><h1>{_escape(content.title)}</h1>\n<dl class="facts">{cells}</dl></header>'


def _best(scores: dict[str, float]) -> tuple[str, float]:
    """The best baseline, and its score."""
    return max(scores.items(), key=lambda one: one[1])


def _skills_section(folder: Path, content: ReportContent) -> str:
    title, trajectory, spec = "What the skills do", content.trajectory, content.spec
    if isinstance(content.videos, str):
        parts = [_note(content.videos)]
    else:
        caption = "Deterministic episodes of different skills; each tile carries its episode's clock."
        image = '<img src="{}" alt="Animation of the agent following different skills">'
        parts = [_figure(image.format(_uri(path, "webp")), caption) for path in map(Path.read_bytes, content.videos)]
    if trajectory.position is None:
        return _section(title, *parts, _note(f"Environment '{spec.id}' names no position: there is no map."))
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
    return _section(title, *parts, _picture(folder / "skills.png", draw, "Map of the skills", caption))


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
        return _section(title, _note("The agent has no latent map of states to show."))
    if not np.isfinite(figures.seen(content.trajectory, latent)).all(axis=-1).any():
        return _section(title, _note("No state of these episodes has a finite phi, so there is nothing to show."))
    dim = latent.shape[-1]
    shown = {1: "φ has one dimension and is shown against time.", 2: "φ of every state in the episodes above."}.get(
        dim, f"φ has {dim} dimensions; shown are the first two principal components over these states."
    )
    color = "where the state was" if content.spec.position else "time in the episode: there is no position"
    draw = partial(figures.draw_latent, latent, content.trajectory, content.spec)
    picture = _picture(folder / "latent.png", draw, "Latent space", f"{shown} Colour is {color}.")
    return _section(title, picture)


def _diagnostics_section(content: ReportContent) -> str:
    """Nothing, where there are no skills."""
    found = content.diagnostics
    if found is None:
        return ""
    caption = (
        f"Protocol {found['protocol']}, of the {found['episodes']} episodes above. Measured on one agent in one "
        "evaluation; docs/metrics.md has the formulas."
    )
    return _section(
        "How good the skills are",
        *map(_note, diagnostics.warnings(found)),
        _table(("", ""), diagnostics.sentences(found).items(), "settings"),
        f'<p class="caption">{_escape(caption)}</p>',
    )


def _evaluation_section(content: ReportContent) -> str:
    """Coverage and goals beside the random policy, and those of the same in C MuJoCo for a run in another simulator; or
    the notes that say why there are none."""
    evaluation, rows, captions = content.evaluation, [], []
    if coverage := evaluation["coverage"]:
        rows.append((f"Coverage ({coverage['unit']})", *map(_number, beside(evaluation, "coverage"))))
        reached = zip(content.spec.position, coverage["min"], coverage["max"])
        extent = ", ".join(f"{name} from {_number(low)} to {_number(high)} m" for name, low, high in reached)
        captions.append(
            f"Coverage is protocol {coverage['protocol']}, {coverage['episodes']} episodes each; the agent reached "
            f"{extent}."
        )
    if goals := evaluation["goals"]:
        for key, name in GOAL_ROWS.items():
            show = _number if key.endswith("distance") else _share
            rows.append((name, *map(show, beside(evaluation, "goals", key))))
        box = " × ".join(f"[−{g:g}, {g:g}]" for g in goals["goal_box"])
        captions.append(f"Goals are protocol {goals['protocol']}, {goals['num_goals']} of them, drawn from {box} m.")
    parts = [_note(note) for note in evaluation["notes"]]
    if rows:
        if twin := evaluation.get("twin"):
            captions.append(f"{twin['env']} is the same environment in C MuJoCo, by the same protocol and seed.")
        captions.append(f"Evaluation seed {evaluation['seed']}; one training run says little about a method.")
        parts.append(_table(["", *map(sentence, columns(evaluation))], rows, "numbers"))
        parts.append(f'<p class="caption">{_escape(" ".join(captions))}</p>')
    return _section("Zero-shot evaluation", *parts)


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
    return _section(
        "Where it spends its time",
        _picture(folder / "time.png", partial(figures.draw_time, steps, spec), "Where the time goes", caption),
        _table(["", "Agent", "Random policy"], rows, "numbers"),
        f'<p class="caption">{_escape(protocol)}</p>',
    )


def _curves_section(folder: Path, content: ReportContent) -> str:
    series = figures.curves(content.metrics)
    if not series:
        return _section("Training", _note("The run logged no metrics."))
    caption = "Metrics of the run against environment steps. "
    if any(len(points) > figures.MAX_POINTS for points in series.values()):
        caption += "Lines are averages of consecutive log entries, bands their range. "
    named = "; ".join(f"{figures.PANELS[name]} is {name}" for name in series if name in figures.PANELS)
    caption += f"Names in metrics.jsonl: {named}." if named else ""
    draw = partial(figures.draw_curves, series)
    return _section("Training", _picture(folder / "curves.png", draw, "Training curves", caption))


def _setup_section(content: ReportContent) -> str:
    spec, settings = content.spec, flatten(content.config)
    command = settings.pop("command")
    limit = f"{spec.episode_steps} control steps" if spec.episode_steps else "until the environment ends them"
    if spec.episode_steps and spec.control_dt:
        limit += f" ({spec.episode_steps * spec.control_dt:g} s)"
    environment = [("Observation", f"{spec.obs_dim} numbers"), ("Action", f"{spec.action_dim} numbers in [−1, 1]"),
                   ("Episodes", limit), ("Position", ", ".join(spec.position) or "none")]  # fmt: skip
    config = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in settings.items()]
    return _section(
        "Setup",
        f"<p>The command that made this run:</p><pre><code>{_escape(command)}</code></pre>" if command else "",
        _table((f"Environment {spec.id}", ""), environment, "settings"),
        _table(("Configuration", ""), config, "settings"),
        _table(("Versions", ""), content.versions.items(), "settings"),
    )


# HTML.


def _escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{_escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def _note(sentence: str) -> str:
    return f'<p class="note">{_escape(sentence)}</p>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """A table whose cells are text; `kind` is its CSS class."""
    top = "".join(f'<th scope="col">{_escape(cell)}</th>' for cell in head)
    body = (
        f'<tr><th scope="row">{_escape(first)}</th>' + "".join(f"<td>{_escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _figure(image: str, caption: str) -> str:
    return f"<figure>{image}<figcaption>{_escape(caption)}</figcaption></figure>"


def _picture(path: Path, draw: Callable[[figures.Theme], Figure], alt: str, caption: str) -> str:
    """Draw a figure for both themes, write the light one to `path`, and return the HTML that embeds both."""
    drawn = [figures.png(draw(theme)) for theme in (figures.LIGHT, figures.DARK)]
    write_atomically(path, drawn[0])
    light, dark = (_uri(image, "png") for image in drawn)
    return _figure(
        f'<picture><source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{_escape(alt)}"></picture>',
        caption,
    )


def _number(value: float) -> str:
    """As a reader wants it: counts in full, measurements to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


_STYLE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:960px;margin:0 auto;padding:4.5rem 1.5rem 5rem}
h1{font-size:2.3rem;line-height:1.15;font-weight:680;letter-spacing:-.02em;margin:0 0 2rem;overflow-wrap:anywhere}
h2{font-size:1.3rem;font-weight:640;letter-spacing:-.01em;margin:0 0 1.25rem}
section{border-top:1px solid var(--rule);margin-top:3.25rem;padding-top:2rem}
p{max-width:42rem;margin:0 0 1.25rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:1.5rem 2rem;margin:0}
.facts dt{color:var(--muted);font-size:.8rem}
.facts dd{margin:.1rem 0 0;font-size:1.35rem;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}
.facts small{display:block;color:var(--muted);font-size:.8rem;font-weight:400}
figure{margin:0 0 2.25rem}
figure img{display:block;max-width:100%;height:auto;margin:0 auto;border-radius:3px}
figure picture img{width:100%;max-width:860px}
figcaption,.caption{color:var(--muted);font-size:.875rem;line-height:1.5;max-width:42rem;margin:.75rem auto 0}
.caption{margin:.5rem 0 2rem}
.note{color:var(--muted);border-left:3px solid var(--rule);padding-left:1rem}
table{border-collapse:collapse;width:100%;font-size:.9rem;line-height:1.45;margin:0 0 1.75rem}
th,td{padding:.4rem 1rem .4rem 0;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top;
font-weight:400}
thead th{color:var(--muted);font-size:.8rem;border-bottom-color:var(--muted)}
.numbers{max-width:42rem;margin-bottom:0}
.numbers td,.numbers thead th:not(:first-child){text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;
padding-left:1rem;padding-right:0}
.numbers td:nth-child(2){font-weight:640}
.settings th{width:38%;color:var(--muted)}
.settings td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
code,pre{font:.86em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{border:1px solid var(--rule);border-radius:4px;padding:.9rem 1rem;margin:0 0 1.75rem;white-space:pre-wrap;
overflow-wrap:anywhere}
@media (max-width:600px){main{padding-top:2.5rem}h1{font-size:1.75rem}}
@media print{body{font-size:10pt}main{max-width:none;padding:0}section{margin-top:1.5rem;padding-top:1rem}
figure,pre,.numbers,.facts,tr{break-inside:avoid}h2{break-after:avoid}figure picture img{max-width:13cm}}
"""


def _page(title: str, body: str) -> str:
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in vars(theme).items()) for theme in (figures.LIGHT, figures.DARK)
    )
    # The policy makes the promise checkable: a browser refuses whatever is not in this file.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_escape(title)}</title>
<style>:root{{{light}}}
@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}{_STYLE}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
