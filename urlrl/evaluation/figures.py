"""The figures of a report: pure functions of data and a theme, drawn without a display."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from urlrl.evaluation.diagnostics import ROWS
from urlrl.evaluation.stats import over_seeds
from urlrl.evaluation.whereabouts import NOISY, SILENT, SWITCHED_OFF, Steps
from urlrl.types import EnvSpec, Trajectory


def png(figure: Figure, format: str = "png", **options: Any) -> bytes:
    """The figure as an image, or in another format. Dollar signs in names are no formulas: matplotlib would refuse what
    it cannot parse."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Theme:
    """Colours of a page and of the figures on it."""

    page: str
    ink: str
    muted: str
    rule: str
    accent: str
    second: str  # beside the accent


LIGHT = Theme("#ffffff", "#1d2126", "#667080", "#e3e6ea", "#2266ac", "#d9762e")
DARK = Theme("#15181c", "#e3e6ea", "#98a2b0", "#2d333b", "#6fb3f5", "#f0965a")
DPI = 170
MAX_POINTS = 300  # a curve with more log entries is drawn as averages
LEGEND_LETTERS = 108  # of a legend over the width of a page
LINE_STYLES: tuple[Any, ...] = ("-", "--", ":", "-.")  # of settings that have a colour in common, each of the ten
NUM_TAB = 20  # skills that get a colour of their own

# Metric -> what it is, in the order of the panels. Others follow by name; those under time/ are left out.
PANELS = {
    "eval/coverage": "Coverage, evaluation",
    **{f"eval/{name}": label for name, (label, _) in ROWS.items()},
    "rollout/coverage": "Coverage, training",
    "reward/intrinsic": "Intrinsic reward",
    "phi/step_sq": "Squared latent step",
    "phi/lambda": "Dual variable",
    "critic/loss": "Critic loss",
    "actor/entropy": "Policy entropy",
    "actor/alpha": "Entropy temperature",
}
LOG_PANELS = {"phi/lambda"}  # moves over orders of magnitude


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


def principal(x: np.ndarray) -> np.ndarray:
    """(m, d) finite rows -> (m, 2): their first two principal components, the second 0 where d = 1."""
    centred = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(min(2, len(axes))), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    return np.pad(centred @ axes.T, ((0, 0), (0, 2 - len(axes))))


def skill_colors(z: np.ndarray, kind: str) -> np.ndarray:
    """(n, d) skills -> (n, 3): one colour per index, or where there are no skills, else the hue of z's direction in the
    plane that is shown."""
    if kind == "none":
        return _index_colors(1)[np.zeros(len(z), int)]
    if kind == "onehot":
        return _index_colors(z.shape[1])[z.argmax(axis=1)]
    plane = z if z.shape[1] == 2 else principal(z)
    return hue(np.arctan2(plane[:, 1], plane[:, 0]))


def _index_colors(dim: int) -> np.ndarray:
    if dim <= NUM_TAB:
        return colormaps["tab20"](np.arange(dim))[:, :3]
    return colormaps["turbo"](np.linspace(0.05, 0.95, dim))[:, :3]


def _place_strength(radius: np.ndarray) -> np.ndarray:
    """Chroma of a place at this distance, 1 being the farthest: the root, so that the colours of near places differ."""
    return np.sqrt(np.minimum(radius, 1.0))


# What the figures draw.


def clock(trajectory: Trajectory, spec: EnvSpec) -> tuple[np.ndarray, str]:
    """(T + 1,) clock of an episode, and the label of its axis."""
    steps = np.arange(len(trajectory.mask) + 1)
    return (steps * spec.control_dt, "time (s)") if spec.control_dt else (steps.astype(float), "control steps")


def seen(trajectory: Trajectory, rows: np.ndarray) -> np.ndarray:
    """(T + 1, n, k) as floats, NaN after an episode's end."""
    alive = np.concatenate([np.ones((1, trajectory.mask.shape[1]), bool), trajectory.mask])
    return np.where(alive[..., None], rows, np.nan).astype(float)


def curves(metrics: Iterable[dict[str, Any]]) -> dict[str, np.ndarray]:
    """name -> (k, 2) of (step, value), finite only, by step; in the order of the panels, without those of time/."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in metrics:
        for name, value in row.items():
            if name != "step" and not name.startswith("time/") and math.isfinite(value):
                found.setdefault(name, []).append((row["step"], value))
    names = [name for name in PANELS if name in found] + sorted(found.keys() - PANELS.keys())
    return {name: np.array(sorted(found[name]), float) for name in names}


# The figures.


def draw_skills(trajectory: Trajectory, spec: EnvSpec, skill_kind: str, theme: Theme) -> Figure:
    """The fan: a line per episode, in the colour of its skill."""
    figure, ax = _map(theme)
    _draw_fan(ax, trajectory, spec, skill_kind, theme)
    if len(spec.position) >= 2:
        ax.set_aspect("equal", adjustable="datalim")
    dim = trajectory.steps.z.shape[-1]
    if skill_kind == "onehot":
        _index_strip(figure, theme, dim)
    elif skill_kind != "none":
        label = "direction of z" if dim == 2 else "direction of z,\nfirst two\ncomponents"
        _wheel(figure, theme, label, inner=0.62)
    return figure


class Fan(NamedTuple):
    """What `draw_fans` shows of one agent."""

    label: str
    trajectory: Trajectory
    spec: EnvSpec
    skill_kind: str


def draw_fans(fans: Sequence[Fan], theme: Theme) -> Figure:
    """The fans of several agents in one environment side by side, in one scale."""
    columns = min(3, len(fans))
    rows = math.ceil(len(fans) / columns)
    layout = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.05)
    figure = Figure((2.6 * columns + 0.6, 2.6 * rows + 0.4), dpi=DPI, facecolor=theme.page, layout=layout)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for ax, fan in zip(panels, fans):
        _style(ax, theme)
        _draw_fan(ax, fan.trajectory, fan.spec, fan.skill_kind, theme)
        if len(fan.spec.position) >= 2:
            ax.set_aspect("equal")
        ax.label_outer()
        ax.set_title(fan.label, color=theme.ink, size=8.5, loc="left", pad=4)
    for ax in panels[len(fans) :]:
        ax.set_axis_off()
    return figure


def _draw_fan(ax: Axes, trajectory: Trajectory, spec: EnvSpec, skill_kind: str, theme: Theme) -> None:
    assert trajectory.position is not None
    place = seen(trajectory, trajectory.position)
    if len(spec.position) >= 2:
        horizontal, vertical = place[..., 0], place[..., 1]
        ax.set(xlabel=f"{spec.position[0]} (m)", ylabel=f"{spec.position[1]} (m)")
        _draw_walls(ax, spec, theme)
    else:
        times, label = clock(trajectory, spec)
        horizontal, vertical = np.broadcast_to(times[:, None], place.shape[:2]), place[..., 0]
        ax.set(xlabel=label, ylabel=f"{spec.position[0]} (m)")
    for lane, color in enumerate(skill_colors(np.asarray(trajectory.steps.z[0]), skill_kind)):
        ax.plot(horizontal[:, lane], vertical[:, lane], color=color, linewidth=1.2, solid_capstyle="round")
        end = int(trajectory.mask[:, lane].sum())
        ax.plot(horizontal[end, lane], vertical[end, lane], "o", color=color, markersize=3.2)
    starts = np.stack([horizontal[0], vertical[0]], axis=1)
    near = starts.round()  # Those that round to the same metre are one.
    for spot in np.unique(near, axis=0):
        ax.plot(*starts[(near == spot).all(axis=1)].mean(axis=0), "o", markersize=7, markeredgewidth=1.3, zorder=4,
                markeredgecolor=theme.ink, markerfacecolor="none")  # fmt: skip


def draw_latent(latent: np.ndarray, trajectory: Trajectory, spec: EnvSpec, theme: Theme) -> Figure:
    """phi (T + 1, n, d) of every state that was seen, in the colour of the place it was seen at (or of its time)."""
    phi = seen(trajectory, latent)
    times, time_label = clock(trajectory, spec)
    shade, shade_label = np.broadcast_to(times[:, None], phi.shape[:2]), time_label
    finite = np.isfinite(phi).all(axis=-1)
    figure, ax = _map(theme)
    if phi.shape[-1] == 1:
        xy = np.stack([shade[finite], phi[finite][:, 0]], axis=1)
        ax.set(xlabel=time_label, ylabel="φ")
    else:
        plane = phi.shape[-1] == 2
        xy = phi[finite] if plane else principal(phi[finite])
        names = ("φ₁", "φ₂") if plane else ("φ, first principal component", "φ, second principal component")
        ax.set(xlabel=names[0], ylabel=names[1])
        ax.set_aspect("equal", adjustable="datalim")
    order = np.random.default_rng(0).permutation(len(xy))  # No episode is on top of the others.
    draw = partial(ax.scatter, xy[order, 0], xy[order, 1], s=5, linewidths=0, alpha=0.85)
    position = trajectory.position
    if position is not None and len(spec.position) >= 2:
        away = position - position[0].mean(axis=0)
        radius = np.hypot(away[..., 0], away[..., 1])
        farthest = float(radius[finite].max())
        colors = hue(np.arctan2(away[..., 1], away[..., 0]), _place_strength(radius / max(farthest, 1e-9)))
        draw(c=colors[finite][order])
        _wheel(figure, theme, f"place: {farthest:.3g} m\naround the start", inner=0.0)
        return figure
    if position is not None:
        shade, shade_label = position[..., 0], f"{spec.position[0]} (m)"
    _bar(figure, theme, draw(c=shade[finite][order], cmap="viridis"), shade_label)
    return figure


def draw_curves(series: dict[str, np.ndarray], theme: Theme) -> Figure:
    """A small panel per metric, of `curves`, against environment steps."""
    columns = 3
    rows = math.ceil(len(series) / columns)
    layout = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.05)
    figure = Figure((7.8, 1.75 * rows + 0.35), dpi=DPI, facecolor=theme.page, layout=layout)
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
        if name in LOG_PANELS:
            _log_axis(ax, points[:, 1].min(), points[:, 1].max())
        ax.set_xlim(0, max(last, 1))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(PANELS.get(name, name), color=theme.ink, size=8.5, loc="left", pad=4)
    for ax in panels[len(series) :]:
        ax.set_axis_off()
    figure.supxlabel("environment steps", color=theme.ink, size=9)
    return figure


def draw_compared(
    curves: dict[str, dict[str, tuple[Sequence[float], Sequence[Sequence[float]]]]], theme: Theme
) -> Figure:
    """A panel per metric, and in it a line per setting with the interval of `over_seeds`; where there are too few seeds
    for one, a thin line per seed.

    Args:
        curves: metric -> setting -> (k,) steps and (k, n) values, one for each seed.
    """
    columns = min(2, len(curves))
    rows = math.ceil(len(curves) / columns)
    layout = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06)
    figure = Figure((7.8, 3.1 * rows + 0.5), dpi=DPI, facecolor=theme.page, layout=layout)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    labels = dict.fromkeys(label for each in curves.values() for label in each)
    colors = dict(zip(labels, cycle(colormaps["tab10"](range(10)))))
    dashes = {label: LINE_STYLES[i // 10 % len(LINE_STYLES)] for i, label in enumerate(labels)}
    for ax, (name, settings) in zip(panels, curves.items()):
        _style(ax, theme)
        for label, (steps, values) in settings.items():
            mean, low, high = zip(*(over_seeds([np.asarray(row, float)]) for row in values))
            ax.plot(steps, mean, color=colors[label], linestyle=dashes[label], linewidth=1.6,
                    marker="o" if len(steps) <= 25 else "", markersize=2.6)  # fmt: skip
            if np.isfinite(low).all():
                ax.fill_between(steps, low, high, color=colors[label], alpha=0.12, linewidth=0)
            else:
                ax.plot(steps, values, color=colors[label], linewidth=0.6, alpha=0.6)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(PANELS.get(name, name), color=theme.ink, size=8.5, loc="left", pad=4)
    for ax in panels[len(curves) :]:
        ax.set_axis_off()
    figure.supxlabel("steps", color=theme.ink, size=9)
    handles = [Line2D([], [], color=color, linestyle=dashes[label], linewidth=1.8, label=label)
               for label, color in colors.items()]  # fmt: skip
    _legend(figure, theme, handles, max(1, LEGEND_LETTERS // (7 + max(map(len, colors)))))  # A line is 7 letters wide.
    return figure


def draw_time(steps: dict[str, Steps], spec: EnvSpec, theme: Theme) -> Figure:
    """Shares of each one's steps: by cell on a line or on a plane; by room and noise where a third coordinate tells
    layouts apart, as cells of different layouts are different places."""
    draw = {1: _draw_line_time, 2: _draw_plane_time}.get(len(spec.position), _draw_room_time)
    return draw(steps, spec, theme)


def _draw_line_time(steps: dict[str, Steps], spec: EnvSpec, theme: Theme) -> Figure:
    """A curve each, and noise as a shade behind them."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure((7.4, 3.6), dpi=DPI, facecolor=theme.page, layout=layout)
    ax = figure.subplots()
    _style(ax, theme)
    cells = {name: np.floor(one.position[:, 0]).astype(int) for name, one in steps.items()}
    low, high = (int(bound([bound(where) for where in cells.values()])) for bound in (min, max))
    for cell in np.unique(np.concatenate([cells[name][_in_noise(one, spec)] for name, one in steps.items()])):
        ax.axvspan(cell - 0.5, cell + 0.5, color=theme.muted, alpha=0.2, linewidth=0)
    for (name, where), color in zip(cells.items(), _colors_of(steps, theme)):
        share = np.bincount(where - low, minlength=high - low + 1) / len(where)
        ax.plot(np.arange(low, high + 1), share, color=color, linewidth=1.6, marker="o", markersize=3.2, label=name)
    ax.set(xlabel=spec.position[0], ylabel="share of steps", xlim=(low - 0.5, high + 0.5))
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    handles = [*ax.get_lines(), Patch(color=theme.muted, alpha=0.2, linewidth=0, label="noise")]
    _legend(figure, theme, handles)
    return figure


def _draw_plane_time(steps: dict[str, Steps], spec: EnvSpec, theme: Theme) -> Figure:
    """A map each, in one scale of colours, and a line around noise."""
    everywhere = np.concatenate([one.position for one in steps.values()])
    shift = np.array(np.shape(spec.walls)[::-1]) / 2 % 1  # The cells of a maze lie around the origin.
    low, high = (np.floor(bound - shift) + shift for bound in (everywhere.min(axis=0), everywhere.max(axis=0)))
    edges = [np.arange(first, last + 1.5) for first, last in zip(low, high)]

    def count(position: np.ndarray) -> np.ndarray:
        return np.histogramdd(position, bins=edges)[0]

    shares = {name: count(one.position) / len(one.position) for name, one in steps.items()}
    noise = count(np.concatenate([one.position[_in_noise(one, spec)] for one in steps.values()])) > 0
    least = min(share[share > 0].min() for share in shares.values())
    scale = LogNorm(least, max(share.max() for share in shares.values()))
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    figure = Figure((3.1 * len(steps) + 0.9, 3.8), dpi=DPI, facecolor=theme.page, layout=layout)
    axes = figure.subplots(1, len(steps), squeeze=False, sharey=True)[0]
    for ax, (name, share) in zip(axes, shares.items()):
        _style(ax, theme)
        ax.grid(visible=False)
        _draw_walls(ax, spec, theme)
        shown = ax.pcolormesh(*edges, np.ma.masked_equal(share.T, 0), norm=scale, cmap="viridis")
        ax.add_collection(LineCollection(_outline(noise, edges), colors=[theme.second], linewidths=1.8))
        ax.set_title(name, color=theme.ink, size=9, loc="left")
        ax.set(xlabel=f"{spec.position[0]} (m)", aspect="equal")
    axes[0].set_ylabel(f"{spec.position[1]} (m)")
    key = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02)
    key.outline.set_visible(False)
    key.ax.tick_params(which="both", colors=theme.muted, labelsize=8, width=0.6)
    key.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    key.ax.set_title("share of\nsteps", color=theme.muted, size=8, loc="left")
    _legend(figure, theme, [Line2D([], [], color=theme.second, linewidth=1.8, label="around noise")])
    return figure


def _outline(cells: np.ndarray, edges: list[np.ndarray]) -> list[list[tuple[float, float]]]:
    """The sides between cells (w, h) that are True and others, as lines."""
    padded = np.pad(cells, 1).astype(int)
    x, y = edges
    upright = [[(x[i], y[j]), (x[i], y[j + 1])] for i, j in np.argwhere(np.diff(padded, axis=0)[:, 1:-1])]
    level = [[(x[i], y[j]), (x[i + 1], y[j])] for i, j in np.argwhere(np.diff(padded, axis=1)[1:-1])]
    return upright + level


def _draw_room_time(steps: dict[str, Steps], spec: EnvSpec, theme: Theme) -> Figure:
    """A bar for each room, of parts by its noise."""
    kinds = (("no noise", SILENT, theme.muted), ("noise", NOISY, theme.second),
             ("switched off", SWITCHED_OFF, theme.accent))  # fmt: skip
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    figure = Figure((7.4, 3.4), dpi=DPI, facecolor=theme.page, layout=layout)
    axes = figure.subplots(1, len(steps), squeeze=False, sharey=True)[0]
    room, noise = (
        {name: one.physics[:, spec.physics_part(part)][:, 0].astype(int) for name, one in steps.items()}
        for part in ("room", "noise")
    )
    num = 1 + max(where.max() for where in room.values())
    for ax, name in zip(axes, steps):
        _style(ax, theme)
        ax.grid(visible=False, axis="x")
        below = np.zeros(num)
        for _, kind, color in kinds:
            share = np.bincount(room[name][noise[name] == kind], minlength=num) / len(room[name])
            ax.bar(np.arange(num), share, 0.7, bottom=below, color=color)
            below += share
        ax.set_title(name, color=theme.ink, size=9, loc="left")
        ax.set(xlabel="room", xticks=np.arange(num))
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes[0].set_ylabel("share of steps")
    _legend(figure, theme, [Patch(color=color, label=name) for name, _, color in kinds])
    return figure


def _in_noise(steps: Steps, spec: EnvSpec) -> np.ndarray:
    """(k,), bool: beside a noise source, also one that is switched off."""
    return steps.physics[:, spec.physics_part("noise")][:, 0] != SILENT


def _colors_of(steps: dict[str, Steps], theme: Theme) -> list[Any]:
    """Of one or two players, and of the random policy at the end."""
    return [theme.accent, theme.second][: len(steps) - 1] + [theme.muted]


class OverTime(NamedTuple):
    """A panel of `draw_prompt`: values (t, n) after 1, 2, ... t control steps, NaN after an episode's end."""

    label: str
    agent: np.ndarray
    random: np.ndarray


def draw_prompt(
    agent: Trajectory, random: Trajectory, spec: EnvSpec, over_time: OverTime | None, theme: Theme, *,
    goal: np.ndarray | None = None, demo: np.ndarray | None = None,
) -> Figure:  # fmt: skip
    """The paths of prompted episodes over those of the random policy, and beside them a panel over time; one of these
    may be missing.

    Args:
        over_time: None has no panel.
        goal: (p,), to be marked.
        demo: (t, p): where a demonstration was.
    """
    count = bool(spec.position) + (over_time is not None)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure((4.6 * count, 4.1), dpi=DPI, facecolor=theme.page, layout=layout)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax in axes:
        _style(ax, theme)
    if spec.position:
        _draw_paths(axes[0], agent, random, spec, theme, goal, demo)
    if over_time is not None:
        times, time_label = clock(max(agent, random, key=lambda trajectory: len(trajectory.mask)), spec)
        axes[-1].set(xlabel=time_label, ylabel=over_time.label)
        for values, color in ((over_time.random, theme.muted), (over_time.agent, theme.accent)):
            values = values[np.isfinite(values).any(axis=1)]
            at = times[1 : len(values) + 1]
            axes[-1].plot(at, values, color=color, linewidth=0.5, alpha=0.3)
            axes[-1].plot(at, np.nanmean(values, axis=1), color=color, linewidth=1.8)
    handles = [Line2D([], [], color=theme.accent, linewidth=1.8, label="agent"),
               Line2D([], [], color=theme.muted, linewidth=1.8, label="random policy")]  # fmt: skip
    if goal is not None:
        handles.append(Line2D([], [], color=theme.ink, linewidth=0, marker="*", markersize=9, label="goal"))
    if demo is not None:
        handles.append(Line2D([], [], color=theme.ink, linewidth=1.6, linestyle="--", label="demonstration"))
    _legend(figure, theme, handles)
    return figure


def _draw_paths(
    ax: Axes, agent: Trajectory, random: Trajectory, spec: EnvSpec, theme: Theme, goal: np.ndarray | None,
    demo: np.ndarray | None,
) -> None:  # fmt: skip
    """On the plane where there are two coordinates, else the one against time."""
    plane = len(spec.position) >= 2
    times, label = clock(agent, spec)
    ax.set(xlabel=f"{spec.position[0]} (m)" if plane else label, ylabel=f"{spec.position[1 if plane else 0]} (m)")
    for trajectory, color, width in ((random, theme.muted, 0.8), (agent, theme.accent, 1.2)):
        assert trajectory.position is not None
        place = seen(trajectory, trajectory.position)
        across = place[..., 0] if plane else clock(trajectory, spec)[0]
        ax.plot(across, place[..., 1 if plane else 0], color=color, linewidth=width, alpha=0.75)
    if demo is not None:
        line = (demo[:, 0], demo[:, 1]) if plane else (np.arange(len(demo)) * (spec.control_dt or 1), demo[:, 0])
        ax.plot(*line, color=theme.ink, linewidth=1.6, linestyle="--")
    if goal is not None and not plane:
        ax.axhline(goal[0], color=theme.ink, linewidth=0.8, linestyle=":")
    if goal is not None:
        ax.plot(*(goal[:2] if plane else (times[-1], goal[0])), "*", color=theme.ink, markersize=11, clip_on=False)
    if plane:
        _draw_walls(ax, spec, theme)
        ax.set_aspect("equal", adjustable="datalim")


def _draw_walls(ax: Axes, spec: EnvSpec, theme: Theme) -> None:
    """Of a maze, its edge included."""
    if not spec.walls:
        return
    solid = np.pad(np.array(spec.walls), 1, constant_values=True)
    height, width = solid.shape
    shade = np.zeros((height, width, 4))
    shade[solid] = to_rgba(theme.muted, 0.45)
    extent = (-width / 2, width / 2, -height / 2, height / 2)
    ax.imshow(shade, origin="lower", extent=extent, interpolation="nearest", zorder=0.5)


def _legend(figure: Figure, theme: Theme, handles: list[Any], columns: int | None = None) -> None:
    figure.legend(handles=handles, loc="outside upper left", ncols=columns or len(handles), frameon=False,
                  fontsize=8.5, labelcolor=theme.ink)  # fmt: skip


def _log_axis(ax: Axes, low: float, high: float) -> None:
    """A logarithmic axis with plain numbers, where the values differ enough to show some."""
    if 0 < 10 * low <= high:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 1000 * low else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_locator(NullLocator())


def _map(theme: Theme) -> tuple[Figure, Axes]:
    """A figure with room for a key at the right of its axes."""
    figure = Figure((7.4, 5.6), dpi=DPI, facecolor=theme.page)
    ax = figure.add_axes((0.10, 0.10, 0.66, 0.86))
    _style(ax, theme)
    return figure, ax


def _style(ax: Axes, theme: Theme) -> None:
    ax.set_facecolor(theme.page)
    for side, spine in ax.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=theme.muted, linewidth=0.6)
    ax.tick_params(colors=theme.muted, labelsize=8, width=0.6, length=3)
    ax.grid(color=theme.rule, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.xaxis.label.set(color=theme.ink, size=9)
    ax.yaxis.label.set(color=theme.ink, size=9)


def _wheel(figure: Figure, theme: Theme, label: str, inner: float) -> None:
    """The key of `hue`: a ring of directions (inner > 0), or a disc whose chroma is the radius."""
    ax = figure.add_axes((0.82, 0.64, 0.14, 0.14 * figure.get_figwidth() / figure.get_figheight()))
    x, y = np.meshgrid(*[np.linspace(-1, 1, 301)] * 2)
    radius = np.hypot(x, y)
    rgb = hue(np.arctan2(y, x), 1.0 if inner else _place_strength(radius))
    shown = np.clip((1 - radius) * 60, 0, 1) * np.clip((radius - inner) * 60, 0, 1)
    ax.imshow(np.dstack([rgb, shown]), origin="lower", extent=(-1, 1, -1, 1))
    ax.set_axis_off()
    ax.set_title(label, color=theme.muted, size=8, pad=6)


def _index_strip(figure: Figure, theme: Theme, dim: int) -> None:
    """The key of skills that are indices."""
    ax = figure.add_axes((0.84, 0.12, 0.025, 0.76))
    ax.imshow(_index_colors(dim)[:, None], aspect="auto", origin="lower", extent=(0, 1, -0.5, dim - 0.5))
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.yaxis.tick_right()
    ax.yaxis.set_major_locator(MaxNLocator(NUM_TAB, integer=True))
    ax.tick_params(colors=theme.muted, labelsize=8, length=0)
    ax.set_title("skill", color=theme.muted, size=8, pad=6)


def _bar(figure: Figure, theme: Theme, dots: Any, label: str) -> None:
    """The key of a colour scale."""
    ax = figure.add_axes((0.82, 0.22, 0.02, 0.52))
    figure.colorbar(dots, cax=ax)
    ax.spines[:].set_visible(False)
    ax.tick_params(colors=theme.muted, labelsize=8, width=0.6, length=3)
    ax.set_title(label, color=theme.muted, size=8, pad=8, loc="left")
