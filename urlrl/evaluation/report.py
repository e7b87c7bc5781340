"""One HTML page about one pretrained agent: it needs no other file, no network and no script.

The page embeds each figure twice, for light and dark screens; the light one is also written beside the page as PNG.
"""

import base64
import csv
import html
import io
import json
import math
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator

from urlrl.types import EnvSpec, Trajectory


@dataclass(frozen=True)
class ReportContent:
    """All that the page shows; a missing part is left out, and a sentence says so."""

    title: str
    config: dict[str, Any]  # resolved, as in config.json; `command`, if there, is the command line: a string or a list
    versions: dict[str, str]  # package -> version
    spec: EnvSpec
    trajectory: Trajectory  # episodes of different skills with deterministic actions
    latent: np.ndarray | None  # (T + 1, n, d): phi along these episodes
    metrics: Sequence[dict[str, Any]]  # rows of metrics.jsonl: {"step": int, name: float, ...}
    evaluation: dict[str, Any] | None  # what `urlrl evaluate` writes
    videos: Sequence[Path] | str  # animated WebP files, or the sentence that says why there are none
    skill_kind: str  # of SkillSpace


@dataclass(frozen=True)
class Theme:
    """Colours of a page and of the figures on it."""

    page: str
    ink: str
    muted: str
    rule: str
    accent: str


LIGHT = Theme("#ffffff", "#1d2126", "#667080", "#e3e6ea", "#2266ac")
DARK = Theme("#15181c", "#e3e6ea", "#98a2b0", "#2d333b", "#6fb3f5")
DPI = 170
MAX_POINTS = 300  # a curve with more log entries is drawn as averages
NUM_TAB = 20  # skills that get a colour of their own

# Metric -> what it is, in the order of the panels. Others follow by name; those under time/ are left out.
PANELS = {
    "eval/coverage": "Coverage, evaluation",
    "rollout/coverage": "Coverage, training",
    "reward/intrinsic": "Intrinsic reward",
    "phi/step_sq": "Squared latent step",
    "phi/lambda": "Dual variable",
    "critic/loss": "Critic loss",
    "actor/entropy": "Policy entropy",
    "actor/alpha": "Entropy temperature",
}
LOG_PANELS = {"phi/lambda"}  # moves over orders of magnitude
GOAL_ROWS = {  # key of evaluation["goals"]["agent"] -> what it is, and whether it is a share
    "hit_3": ("Comes within 3 m at some time", True),
    "end_3": ("Is within 3 m at the end", True),
    "at_3": ("Time spent within 3 m", True),
    "hit_1": ("Comes within 1 m at some time", True),
    "end_1": ("Is within 1 m at the end", True),
    "at_1": ("Time spent within 1 m", True),
    "closest_distance": ("Mean of the closest distance to the goal (m)", False),
    "final_distance": ("Mean distance to the goal at the end (m)", False),
}


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write `index.html`, and beside it the figures it has: `skills.png`, `skills.csv`, `latent.png`, `curves.png`.

    Every file is replaced in one step, so a report that was there before stays whole if this one fails.

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = [
        _summary(content),
        _skills_section(folder, content),
        _latent_section(folder, content),
        _evaluation_section(content),
        _curves_section(folder, content),
        _setup_section(content),
    ]
    page = folder / "index.html"
    _replace(page, _page(content.title, "\n".join(sections)).encode())
    return page


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


# Colours of skills and places.


def hue(angle: np.ndarray, strength: np.ndarray | float = 1.0) -> np.ndarray:
    """sRGB in [0, 1], (*B, 3), of equal lightness: the angle in radians is the hue, strength in [0, 1] the chroma.

    OKLCH with L = 0.69 and C = 0.14 (https://bottosson.github.io/posts/oklab), so no direction stands out.
    """
    a, b = 0.14 * strength * np.cos(angle), 0.14 * strength * np.sin(angle)
    lms = np.stack(
        [
            0.69 + 0.3963377774 * a + 0.2158037573 * b,
            0.69 - 0.1055613458 * a - 0.0638541728 * b,
            0.69 - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=-1,
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(lms**3 @ to_rgb.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def place_strength(radius: np.ndarray) -> np.ndarray:
    """Chroma of a place at this distance, 1 being the farthest: the root, so that the colours of near places differ."""
    return np.sqrt(np.minimum(radius, 1.0))


def principal(x: np.ndarray) -> np.ndarray:
    """(m, d) finite rows -> (m, 2): their first two principal components, the second 0 where d = 1."""
    centred = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(min(2, len(axes))), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    return np.pad(centred @ axes.T, ((0, 0), (0, 2 - len(axes))))


def skill_colors(z: np.ndarray, kind: str) -> np.ndarray:
    """(n, d) skills -> (n, 3): one colour per index, else the hue of z's direction in the plane that is shown."""
    if kind == "onehot":
        return _index_colors(z.shape[1])[z.argmax(axis=1)]
    plane = z if z.shape[1] == 2 else principal(z)
    return hue(np.arctan2(plane[:, 1], plane[:, 0]))


def _index_colors(dim: int) -> np.ndarray:
    from matplotlib import colormaps

    if dim <= NUM_TAB:
        return colormaps["tab20"](np.arange(dim))[:, :3]
    return colormaps["turbo"](np.linspace(0.05, 0.95, dim))[:, :3]


# Figures. Each is a function of the content and a theme.


def _figure(width: float, height: float, theme: Theme, **options: Any) -> Figure:
    figure = Figure((width, height), dpi=DPI, facecolor=theme.page, **options)
    FigureCanvasAgg(figure)
    return figure


def _style(ax: Axes, theme: Theme) -> None:
    ax.set_facecolor(theme.page)
    for side, spine in ax.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=theme.muted, linewidth=0.6)
    ax.tick_params(which="both", colors=theme.muted, labelsize=8, width=0.6)
    ax.tick_params(length=3)
    ax.grid(color=theme.rule, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.xaxis.label.set(color=theme.ink, size=9)
    ax.yaxis.label.set(color=theme.ink, size=9)


def _wheel(figure: Figure, theme: Theme, label: str, inner: float) -> None:
    """The key of `hue` at the right: a ring of directions (inner > 0), or a disc whose chroma is the radius."""
    ax = figure.add_axes((0.82, 0.64, 0.14, 0.14 * figure.get_figwidth() / figure.get_figheight()))
    x, y = np.meshgrid(*[np.linspace(-1, 1, 301)] * 2)
    radius = np.hypot(x, y)
    rgb = hue(np.arctan2(y, x), 1.0 if inner else place_strength(radius))
    shown = np.clip((1 - radius) * 60, 0, 1) * np.clip((radius - inner) * 60, 0, 1)
    ax.imshow(np.dstack([rgb, shown]), origin="lower", extent=(-1, 1, -1, 1))
    ax.set_axis_off()
    ax.set_title(label, color=theme.muted, size=8, pad=6)


def _index_strip(figure: Figure, theme: Theme, dim: int) -> None:
    ax = figure.add_axes((0.84, 0.12, 0.025, 0.76))
    ax.imshow(_index_colors(dim)[:, None], aspect="auto", origin="lower", extent=(0, 1, -0.5, dim - 0.5))
    _style(ax, theme)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.yaxis.tick_right()
    ax.yaxis.set_major_locator(MaxNLocator(NUM_TAB, integer=True))
    ax.tick_params(length=0)
    ax.set_title("skill", color=theme.muted, size=8, pad=6)


def _skill_key(figure: Figure, content: ReportContent, theme: Theme) -> None:
    dim = content.trajectory.steps.z.shape[-1]
    if content.skill_kind == "onehot":
        _index_strip(figure, theme, dim)
    else:
        _wheel(figure, theme, "direction of z" if dim == 2 else "direction of z,\nfirst two\ncomponents", inner=0.62)


def _times(content: ReportContent) -> tuple[np.ndarray, str]:
    """(T + 1,) clock of an episode, and the label of its axis."""
    steps = np.arange(len(content.trajectory.mask) + 1)
    dt = content.spec.control_dt
    return (steps * dt, "time (s)") if dt else (steps.astype(float), "control steps")


def _seen(content: ReportContent, rows: np.ndarray) -> np.ndarray:
    """(T + 1, n, k) as floats, NaN after an episode's end."""
    mask = content.trajectory.mask
    alive = np.concatenate([np.ones((1, mask.shape[1]), bool), mask])
    return np.where(alive[..., None], rows, np.nan).astype(float)


def draw_skills(content: ReportContent, theme: Theme) -> Figure:
    """The fan: a line per episode, in the colour of its skill."""
    trajectory = content.trajectory
    assert trajectory.position is not None
    place = _seen(content, trajectory.position)
    colors = skill_colors(np.asarray(trajectory.steps.z[0]), content.skill_kind)
    figure = _figure(7.4, 5.6, theme)
    ax = figure.add_axes((0.10, 0.10, 0.66, 0.86))
    _style(ax, theme)
    names = content.spec.position
    if place.shape[-1] >= 2:
        horizontal, vertical = place[..., 0], place[..., 1]
        ax.set(xlabel=f"{names[0]} (m)", ylabel=f"{names[1]} (m)")
        ax.set_aspect("equal", adjustable="datalim")
    else:
        times, label = _times(content)
        horizontal, vertical = np.broadcast_to(times[:, None], place.shape[:2]), place[..., 0]
        ax.set(xlabel=label, ylabel=f"{names[0]} (m)")
    for lane, color in enumerate(colors):
        ax.plot(horizontal[:, lane], vertical[:, lane], color=color, linewidth=1.2, solid_capstyle="round")
        end = int(trajectory.mask[:, lane].sum())
        ax.plot(horizontal[end, lane], vertical[end, lane], "o", color=color, markersize=3.2)
    ax.plot(horizontal[0].mean(), vertical[0].mean(), "o", markersize=7, markeredgewidth=1.3, zorder=4,
            markeredgecolor=theme.ink, markerfacecolor=theme.page)  # fmt: skip
    _skill_key(figure, content, theme)
    return figure


def draw_latent(content: ReportContent, theme: Theme) -> Figure:
    """phi of every state that was seen, in the colour of the place it was seen at (or of its time)."""
    assert content.latent is not None
    phi = _seen(content, content.latent)
    times, time_label = _times(content)
    clock = np.broadcast_to(times[:, None], phi.shape[:2])
    finite = np.isfinite(phi).all(axis=-1)
    figure = _figure(7.4, 5.6, theme)
    ax = figure.add_axes((0.10, 0.10, 0.66, 0.86))
    _style(ax, theme)
    dim = phi.shape[-1]
    if dim == 1:
        xy = np.stack([clock[finite], phi[finite][:, 0]], axis=1)
        ax.set(xlabel=time_label, ylabel="φ")
    else:
        xy = phi[finite] if dim == 2 else principal(phi[finite])
        what = ("φ₁", "φ₂") if dim == 2 else ("φ, first principal component", "φ, second principal component")
        ax.set(xlabel=what[0], ylabel=what[1])
        ax.set_aspect("equal", adjustable="datalim")
    order = np.random.default_rng(0).permutation(len(xy))  # No episode is on top of the others.
    draw = partial(ax.scatter, xy[order, 0], xy[order, 1], s=5, linewidths=0, alpha=0.85)
    position = content.trajectory.position
    if position is not None and position.shape[-1] >= 2:
        away = position - position[0].mean(axis=0)
        radius = np.hypot(away[..., 0], away[..., 1])
        farthest = float(radius[finite].max())
        colors = hue(np.arctan2(away[..., 1], away[..., 0]), place_strength(radius / max(farthest, 1e-9)))
        draw(c=colors[finite][order])
        _wheel(figure, theme, f"place: {farthest:.3g} m\naround the start", inner=0.0)
        return figure
    shade, label = clock, time_label
    if position is not None and position.shape[-1] == 1:
        shade, label = position[..., 0], f"{content.spec.position[0]} (m)"
    dots = draw(c=shade[finite][order], cmap="viridis")
    bar = figure.add_axes((0.82, 0.22, 0.02, 0.52))
    figure.colorbar(dots, cax=bar)
    bar.tick_params(colors=theme.muted, labelsize=8, width=0.6, length=3)
    bar.spines[:].set_visible(False)
    bar.set_title(label, color=theme.muted, size=8, pad=8, loc="left")
    return figure


def curves(metrics: Iterable[dict[str, Any]]) -> dict[str, np.ndarray]:
    """name -> (k, 2) of (step, value), finite only, by step; in the order of the panels, without those of time/."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in metrics:
        for name, value in row.items():
            if _is_number(value) and name != "step" and not name.startswith("time/"):
                found.setdefault(name, []).append((row["step"], value))
    names = [name for name in PANELS if name in found] + sorted(found.keys() - PANELS.keys())
    return {name: np.array(sorted(found[name]), float) for name in names}


def draw_curves(series: dict[str, np.ndarray], theme: Theme) -> Figure:
    """A small panel per metric against environment steps."""
    columns = 3
    rows = math.ceil(len(series) / columns)
    figure = _figure(7.8, 1.75 * rows + 0.35, theme, layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.05))
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    last = max(points[-1, 0] for points in series.values())
    for ax, (name, points) in zip(panels, series.items()):
        _style(ax, theme)
        parts = np.array_split(points, min(len(points), MAX_POINTS))
        mean = np.array([part.mean(axis=0) for part in parts])
        if len(points) > MAX_POINTS:
            low, high = ([f(part[:, 1]) for part in parts] for f in (np.min, np.max))
            ax.fill_between(mean[:, 0], low, high, color=theme.accent, alpha=0.22, linewidth=0)
        ax.plot(*mean.T, color=theme.accent, linewidth=1.2, marker="o" if len(points) <= 25 else "", markersize=2.6)
        if name in LOG_PANELS and points[:, 1].min() > 0:
            ax.set_yscale("log")
        ax.set_xlim(0, max(last, 1))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(PANELS.get(name, name), color=theme.ink, size=8.5, loc="left", pad=4)
    for ax in panels[len(series) :]:
        ax.set_axis_off()
    figure.supxlabel("environment steps", color=theme.ink, size=9)
    return figure


# Sections.


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


def _picture(path: Path, draw: Callable[[Theme], Figure], alt: str, caption: str) -> str:
    """Draw a figure for both themes, write the light one to `path`, and return the HTML that embeds both."""
    drawn = []
    for theme in (LIGHT, DARK):
        buffer = io.BytesIO()
        draw(theme).savefig(buffer, format="png")
        drawn.append(buffer.getvalue())
    _replace(path, drawn[0])
    return (
        f'<figure><picture><source media="screen and (prefers-color-scheme: dark)" srcset="{_uri(drawn[1], "png")}">'
        f'<img src="{_uri(drawn[0], "png")}" alt="{_escape(alt)}"></picture>'
        f"<figcaption>{_escape(caption)}</figcaption></figure>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: Any) -> str:
    """A number as a reader wants it; what is not a finite number is a dash."""
    if not _is_number(value):
        return "–"
    return f"{value:,}" if isinstance(value, Integral) else f"{value:,.4g}"


def _share(value: Any) -> str:
    return f"{100 * value:.1f} %" if _is_number(value) else "–"


def _part(evaluation: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    """The nested dict at these names; {} where any of them is missing."""
    for name in names:
        evaluation = (evaluation or {}).get(name)
    return evaluation if isinstance(evaluation, dict) else {}


def _summary(content: ReportContent) -> str:
    """The title and the few numbers that a reader looks for first."""
    evaluation, spec = content.evaluation or {}, content.spec
    step = evaluation.get("step", max((row["step"] for row in content.metrics), default=None))
    dim = content.trajectory.steps.z.shape[-1]
    facts = [("Environment", spec.id, ""), ("Skills", f"{content.skill_kind}, {dim}-d", "")]
    if step is not None:
        facts.append(("Pretrained for", f"{_number(step)}", "environment steps, no reward"))
    coverage = _part(evaluation, "coverage")
    if coverage:
        unit = coverage.get("unit", "cells")
        facts.append(("Coverage", _number(coverage.get("agent")), f"{unit}; random {_number(coverage.get('random'))}"))
    agent, random = _part(evaluation, "goals", "agent"), _part(evaluation, "goals", "random")
    if agent:
        facts.append(("Goals hit (3 m)", _share(agent.get("hit_3")), f"random {_share(random.get('hit_3'))}"))
    cells = "".join(
        f"<div><dt>{_escape(name)}</dt><dd>{_escape(value)}<small>{_escape(more)}</small></dd></div>"
        for name, value, more in facts
    )
    return f'<header><h1>{_escape(content.title)}</h1>\n<dl class="facts">{cells}</dl></header>'


def _skills_section(folder: Path, content: ReportContent) -> str:
    parts = []
    if isinstance(content.videos, str):
        parts.append(_note(content.videos))
    else:
        for path in content.videos:
            image = _uri(path.read_bytes(), "webp")
            caption = "Deterministic episodes of different skills; each tile carries its episode's clock."
            parts.append(
                f'<figure><img src="{image}" alt="Animation of the agent following different skills">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    trajectory = content.trajectory
    if trajectory.position is None or trajectory.position.shape[-1] == 0:
        parts.append(_note(f"Environment '{content.spec.id}' names no position, so there is no map of the skills."))
        return _section("What the skills do", *parts)
    _replace(folder / "skills.csv", skills_csv(content))
    names, n = content.spec.position, trajectory.mask.shape[1]
    where = f"{names[0]} against time" if len(names) == 1 else f"{names[0]} and {names[1]}, at equal scale"
    held = np.array_equal(trajectory.steps.z, np.broadcast_to(trajectory.steps.z[0], trajectory.steps.z.shape))
    caption = (
        f"{n} episodes with deterministic actions: {where}. Colour is the skill z"
        f"{'' if held else ' at the start of the episode'}; the ring marks the start, dots mark the ends."
    )
    parts.append(
        _picture(folder / "skills.png", lambda theme: draw_skills(content, theme), "Map of the skills", caption)
    )
    return _section("What the skills do", *parts)


def skills_csv(content: ReportContent) -> bytes:
    """A row per episode and step: the clock, the position, and z (its index where skills are indices)."""
    trajectory = content.trajectory
    assert trajectory.position is not None
    z = np.asarray(trajectory.steps.z)
    z = np.concatenate([z, z[-1:]])
    if content.skill_kind == "onehot":
        z, z_names = z.argmax(axis=-1)[..., None], ["skill"]
    else:
        z_names = [f"z_{i}" for i in range(z.shape[-1])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    clock = "time_s" if content.spec.control_dt else "control_steps"
    writer.writerow(["episode", "step", clock, *content.spec.position, *z_names])
    times, _ = _times(content)
    for lane in range(trajectory.mask.shape[1]):
        for row in range(int(trajectory.mask[:, lane].sum()) + 1):
            numbers = [times[row], *trajectory.position[row, lane], *z[row, lane]]
            writer.writerow([lane, row, *(f"{value:.6g}" for value in numbers)])
    return text.getvalue().encode()


def _latent_section(folder: Path, content: ReportContent) -> str:
    title = "The latent space"
    if content.latent is None:
        return _section(title, _note("The agent has no latent map of states to show."))
    if not np.isfinite(_seen(content, content.latent)).all(axis=-1).any():
        return _section(title, _note("No state of these episodes has a finite phi, so there is nothing to show."))
    dim, p = content.latent.shape[-1], len(content.spec.position)
    shown = {1: "φ has one dimension and is shown against time.", 2: "φ of every state in the episodes above."}.get(
        dim, f"φ has {dim} dimensions; shown are the first two principal components over these states."
    )
    color = "time in the episode: the environment names no position" if p == 0 else "where the state was"
    caption = f"{shown} Colour is {color}."
    return _section(
        title,
        _picture(folder / "latent.png", lambda theme: draw_latent(content, theme), "Latent space", caption),
    )


def _evaluation_section(content: ReportContent) -> str:
    title = "Zero-shot evaluation"
    if not content.evaluation:
        return _section(title, _note("This run was not evaluated: `urlrl evaluate` writes the numbers shown here."))
    evaluation = content.evaluation
    protocol, seed, step = (evaluation.get(key, "unknown") for key in ("protocol", "seed", "step"))
    parts = [
        f"<p>Protocol <code>{_escape(protocol)}</code>, seed {_escape(seed)}, at environment step "
        f"{_escape(_number(step))}. These are numbers of one training run, not of a method.</p>"
    ]
    coverage = _part(evaluation, "coverage")
    if coverage:
        rows = [(f"Coverage ({coverage.get('unit', 'cells')})", _number(coverage.get("agent")),
                 _number(coverage.get("random")))]  # fmt: skip
        extent = zip(content.spec.position, coverage.get("min") or (), coverage.get("max") or ())
        reached = ", ".join(f"{name} from {_number(low)} to {_number(high)} m" for name, low, high in extent)
        parts.append(_table(("", "Agent", "Random policy"), rows, "numbers"))
        caption = f"{_number(coverage.get('episodes'))} episodes each" + (
            f"; the agent reached {reached}." if reached else "."
        )
        parts.append(f'<p class="caption">{_escape(caption)}</p>')
    else:
        parts.append(_note("The evaluation holds no coverage."))
    parts.append(_goal_table(evaluation))
    return _section(title, *parts)


def _goal_table(evaluation: dict[str, Any]) -> str:
    goals = _part(evaluation, "goals")
    agent, random = _part(goals, "agent"), _part(goals, "random")
    if not agent:
        return _note(evaluation.get("goals_note") or "The evaluation holds no goal reaching.")
    rows = [
        (name, *((_share if is_share else _number)(who.get(key)) for who in (agent, random)))
        for key, (name, is_share) in GOAL_ROWS.items()
    ]
    box = " × ".join(f"[−{g:g}, {g:g}]" for g in goals.get("goal_box") or ())
    caption = f"Averages over {_number(goals.get('num_goals'))} goals" + (f" drawn from {box} m." if box else ".")
    table = _table(("Goal reaching", "Agent", "Random policy"), rows, "numbers")
    return f'{table}<p class="caption">{_escape(caption)}</p>'


def _curves_section(folder: Path, content: ReportContent) -> str:
    series = curves(content.metrics)
    if not series:
        return _section("Training", _note("The run logged no metrics."))
    named = [f"{PANELS[name]} is {name}" for name in series if name in PANELS]
    caption = "Metrics of the run against environment steps. "
    if any(len(points) > MAX_POINTS for points in series.values()):
        caption += "Lines are averages of consecutive log entries, bands their range. "
    caption += f"Names in metrics.jsonl: {'; '.join(named)}." if named else ""
    draw = _picture(folder / "curves.png", lambda theme: draw_curves(series, theme), "Training curves", caption)
    return _section("Training", draw)


def flatten(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested dict -> rows of (dotted name, value as text), in order."""
    rows = []
    for name, value in config.items():
        if isinstance(value, dict) and value:
            rows += flatten(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value if isinstance(value, str) else json.dumps(value, default=str)))
    return rows


def _setup_section(content: ReportContent) -> str:
    spec, command = content.spec, content.config.get("command")
    parts = []
    if command:
        line = command if isinstance(command, str) else shlex.join(map(str, command))
        parts.append(f"<p>The command that made this run:</p><pre><code>{_escape(line)}</code></pre>")
    limit = f"{spec.episode_steps} control steps" if spec.episode_steps else "until the environment ends them"
    if spec.episode_steps and spec.control_dt:
        limit += f" ({spec.episode_steps * spec.control_dt:g} s)"
    rows = [("Observation", f"{spec.obs_dim} numbers"), ("Action", f"{spec.action_dim} numbers in [−1, 1]"),
            ("Episodes", limit), ("Position", ", ".join(spec.position) or "none")]  # fmt: skip
    parts.append(_table((f"Environment {spec.id}", ""), rows, "settings"))
    config = {name: value for name, value in content.config.items() if name != "command"}
    parts.append(_table(("Configuration", ""), flatten(config), "settings"))
    parts.append(_table(("Versions", ""), content.versions.items(), "settings"))
    return _section("Setup", *parts)


# The page.


def _variables(theme: Theme) -> str:
    return "".join(f"--{name}:{value};" for name, value in vars(theme).items())


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
    # The policy makes the promise checkable: a browser refuses whatever is not in this file.
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_escape(title)}</title>
<style>:root{{{_variables(LIGHT)}}}
@media screen and (prefers-color-scheme: dark){{:root{{{_variables(DARK)}}}}}{_STYLE}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""
