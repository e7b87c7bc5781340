"""Settings of several seeds side by side: one HTML page, and what it shows as CSV, JSON and PDF."""

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from urlrl.errors import unknown
from urlrl.evaluation import diagnostics, figures, page, whereabouts
from urlrl.evaluation.rollout import STILL
from urlrl.evaluation.stats import BOOTSTRAP_FROM, RULE, improvement, shown, summary
from urlrl.files import write_atomically, write_json

BASELINES = {"random": "random policy", STILL: STILL}  # who -> as tables say it
GOALS_SHOWN = ("goals, hit_3", "goals, final_distance")  # of all that is measured of goals, in tables for people
VISITED = tuple(whereabouts.ROWS[name] for name in whereabouts.COUNTS)  # the more the better
OF_SKILLS = "skills, "  # how scores begin that diagnose the skills: they have a table of their own
PAIRS = (
    "A number is the share of all pairs of seeds in which the run of the row is better than that of the column, where "
    f"0.5 is no difference. From {BOOTSTRAP_FROM} seeds on it has a 95 % bootstrap interval."
)


class Run(NamedTuple):
    """What a comparison takes of one run."""

    setting: str  # label
    seed: int
    folder: Path
    step: int  # of the checkpoint that was evaluated
    metrics: Sequence[dict[str, Any]]  # rows of metrics.jsonl
    scores: Mapping[str, Mapping[str, float]]  # score -> the agent and the baselines -> value

    @property
    def name(self) -> str:
        """As sentences and tables say it."""
        return f"{self.setting}, seed {self.seed}"

    @property
    def minutes(self) -> float:
        """That training took."""
        return sum(row.get("time/epoch_seconds", 0.0) for row in self.metrics) / 60


class Target(NamedTuple):
    """A score to be reached, as in coverage=100."""

    metric: str
    score: float

    @property
    def text(self) -> str:
        return f"{self.metric}={self.score:g}"


def summarise(runs: Sequence[Run], curves: Sequence[str], targets: Sequence[Target]) -> dict[str, Any]:
    """All that the page and the tables show.

    Args:
        curves: metrics to draw; () is those of the evaluations during training, or else coverage during training.

    Returns:
        {"settings": [{"label", "seeds", "folders", "step", "minutes", "scores": {score: {"values", "estimate"}},
        "curves": {metric: {"steps", "values"}}, "reach": {"coverage=100": {"steps", "minutes"}}}], "baselines": {who:
        {score: values}}, "improvement": {score: {better: {worse: estimate}}}}, the last of scores of which is known
        whether more or less is better. Values are in the order of the seeds; None is a seed that did not reach a score.
        An estimate is one of `urlrl.evaluation.stats`, as JSON.

    Raises:
        UserError: no run logged such a metric.
    """
    if not runs:
        curves, targets = (), ()
    logged = {name for run in runs for row in run.metrics for name in row} - {"step"}
    drawn = [_logged(name, logged) for name in curves] or sorted(name for name in logged if name.startswith("eval/"))
    drawn = drawn or sorted({"rollout/coverage"} & logged)
    wanted = {target.text: (_logged(target.metric, logged), target.score) for target in targets}
    settings = list[dict[str, Any]]()
    for label in dict.fromkeys(run.setting for run in runs):
        mine = [run for run in runs if run.setting == label]
        scores = [name for name in mine[0].scores if all("agent" in run.scores.get(name, {}) for run in mine)]
        reached = {text: [_reached(run, *target) for run in mine] for text, target in wanted.items()}
        settings.append({
            "label": label, "seeds": [run.seed for run in mine], "folders": [str(run.folder) for run in mine],
            "step": mine[0].step, "minutes": [run.minutes for run in mine],
            "scores": {name: summary([run.scores[name]["agent"] for run in mine]) for name in scores},
            "curves": {name: curve for name in drawn if (curve := _curve(mine, name))["steps"]},
            "reach": {
                text: {"steps": [step for step, _ in found], "minutes": [minutes for _, minutes in found]}
                for text, found in reached.items()
            },
        })  # fmt: skip
    names = list(dict.fromkeys(name for setting in settings for name in setting["scores"]))
    baselines = {who: {name: found for name in names if (found := _of_baseline(runs, name, who))} for who in BASELINES}
    pairs = {name: _improvements(settings, name) for name in names if _is_shown(name) and _direction(name)}
    return {"settings": settings, "baselines": baselines, "improvement": pairs}


def _logged(name: str, logged: set[str]) -> str:
    """The metric of this name, or the evaluations' one. Raises UserError where no run logged it."""
    for known in (name, f"eval/{name}"):
        if known in logged:
            return known
    raise unknown("metric", name, logged)


def _reached(run: Run, metric: str, score: float) -> tuple[int | None, float | None]:
    """The first step that was logged at which the metric is as high, and the minutes of training until then."""
    seconds = 0.0
    for row in run.metrics:
        seconds += row.get("time/epoch_seconds", 0.0)
        if row.get(metric, -np.inf) >= score:
            return row["step"], seconds / 60
    return None, None


def _curve(runs: Sequence[Run], metric: str) -> dict[str, Any]:
    """At the steps that all seeds have."""
    found = [{row["step"]: row[metric] for row in run.metrics if metric in row} for run in runs]
    steps = sorted(set.intersection(*(set(one) for one in found)))
    return {"steps": steps, "values": [[one[step] for one in found] for step in steps]}


def _of_baseline(runs: Sequence[Run], name: str, who: str) -> list[float]:
    return [run.scores[name][who] for run in runs if who in run.scores.get(name, {})]


def _direction(name: str) -> int:
    """1 where a higher score is the better one, -1 where a lower one is, and 0 where it is not known."""
    if name.endswith(", gap"):
        return 0
    if name in VISITED or name.startswith(("coverage, ", "goals, hit_", "goals, end_", "goals, at_")):
        return 1
    return -1 if name.startswith(("goals, final_distance", "goals, closest_distance")) else 0


def _improvements(settings: Sequence[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """By label of the better and of the worse."""
    values = {each["label"]: _direction(name) * np.array(each["scores"][name]["values"]) for each in settings
              if name in each["scores"]}  # fmt: skip
    return {
        one: {other: improvement(values[one], values[other]).to_json() for other in values if other != one}
        for one in values
    }


# What is shown.


def _is_shown(name: str) -> bool:
    return not name.startswith(("goals, ", OF_SKILLS)) or name in GOALS_SHOWN


def _digits(name: str) -> int:
    return 1 if name.startswith("coverage") else 3


def table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(head, rows) for people: a row per setting, then the baselines, then what failed."""
    settings = result["settings"]
    names = [name for name in dict.fromkeys(n for each in settings for n in each["scores"]) if _is_shown(name)]
    targets = list(dict.fromkeys(target for each in settings for target in each["reach"]))
    head = ["setting", "seeds", "steps", "minutes", *names]
    head += [f"{target}, {what}" for target in targets for what in ("steps", "minutes")]
    rows = []
    for each in settings:
        scores = [shown(each["scores"][n]["values"], _digits(n)) if n in each["scores"] else "" for n in names]
        reached = [_until(each["reach"][target][what], digits) for target in targets
                   for what, digits in (("steps", 0), ("minutes", 1))]  # fmt: skip
        about = [each["label"], str(len(each["seeds"])), f"{each['step']:,}", shown(each["minutes"], 1)]
        rows.append([*about, *scores, *reached])
    for who, said in BASELINES.items():
        if values := result["baselines"][who]:
            scores = [_all_or_one(values[name], _digits(name)) if name in values else "" for name in names]
            rows.append([said, "", "", "", *scores, *[""] * 2 * len(targets)])
    rows += [[name, "failed", *[""] * (len(head) - 2)] for name in result["failed"]]
    return head, rows


def _all_or_one(values: Sequence[float], digits: int) -> str:
    """As `shown`; of values that are all the same, as a baseline has them that no seed of a run changes, just one."""
    return shown(values if len(set(values)) > 1 else values[:1], digits)


def _until(values: Sequence[float | None], digits: int) -> str:
    """As `shown` where every seed reached the score; else how many did, and when."""
    reached = [value for value in values if value is not None]
    if len(reached) == len(values):
        return shown(reached, digits)
    when = f": {', '.join(f'{value:.{digits}f}' for value in reached)}" if reached else ""
    return f"{len(reached)} of {len(values)}{when}"


def table_csv(result: dict[str, Any]) -> bytes:
    """A row per run, then one per baseline, then one per run that failed."""
    settings = result["settings"]
    names = list(dict.fromkeys(name for each in settings for name in each["scores"]))
    targets = list(dict.fromkeys(target for each in settings for target in each["reach"]))
    text = io.StringIO()
    columns = [f"{target}, {what}" for target in targets for what in ("steps", "minutes")]
    writer = csv.DictWriter(
        text, ["setting", "seed", "folder", "step", "minutes", *names, *columns, "failed"], lineterminator="\n"
    )
    writer.writeheader()
    for each in settings:
        for i, seed in enumerate(each["seeds"]):
            row = {"setting": each["label"], "seed": seed, "folder": each["folders"][i], "step": each["step"]}
            row |= {"minutes": each["minutes"][i]} | {
                name: found["values"][i] for name, found in each["scores"].items()
            }
            row |= {f"{target}, {what}": found[what][i] for target, found in each["reach"].items() for what in found}
            writer.writerow(row)
    for who, said in BASELINES.items():
        if values := result["baselines"][who]:
            writer.writerow({"setting": said} | {name: np.mean(found) for name, found in values.items()})
    for name, why in result["failed"].items():
        writer.writerow({"setting": name, "failed": why})
    return text.getvalue().encode()


def write(folder: Path, result: dict[str, Any], fans: Sequence[figures.Fan]) -> Path:
    """Write `index.html`, `table.csv`, `table.json`, and where there are curves and maps, `curves.pdf`, `curves.png`
    and `skills.png`, of which older ones are removed where there are none now; returns the page."""
    curves = by_metric(result["settings"])
    for name in (*(() if curves else ("curves.pdf", "curves.png")), *(() if fans else ("skills.png",))):
        (folder / name).unlink(missing_ok=True)
    sections = [
        _header(result),
        _curves_section(folder, curves),
        _skills_section(folder, fans, result["settings"]),
        page.section("Scores", page.table(*table(result), "wide"), page.caption(_caption(result))),
        _improvement_section(result["improvement"]),
        _runs_section(result),
    ]
    if curves:
        write_atomically(folder / "curves.pdf", figures.png(figures.draw_compared(curves, figures.LIGHT), "pdf"))
    write_atomically(folder / "table.csv", table_csv(result))
    write_json(result, folder / "table.json")
    file = folder / "index.html"
    write_atomically(file, page.document(_title(result), "\n".join(sections)).encode())
    return file


def by_metric(settings: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metric -> label -> (steps, values), of curves that have more than one point."""
    found: dict[str, dict[str, Any]] = {}
    for each in settings:
        for name, curve in each["curves"].items():
            if len(curve["steps"]) > 1:
                found.setdefault(name, {})[each["label"]] = (curve["steps"], curve["values"])
    return found


def _title(result: dict[str, Any]) -> str:
    count = len(result["labels"])
    return f"{count} setting{'' if count == 1 else 's'} on {result['env']}"


def _header(result: dict[str, Any]) -> str:
    counts = {each["label"]: len(each["seeds"]) for each in result["settings"]}
    seeds = sorted({counts.get(label, 0) for label in result["labels"]})
    facts = [("Environment", result["env"], ""), ("Settings", str(len(result["labels"])), ""),
             ("Seeds", " to ".join(map(str, sorted({seeds[0], seeds[-1]}))), "of each setting")]  # fmt: skip
    if failed := len(result["failed"]):
        facts.append(("Failed", str(failed), "runs"))
    return page.header(_title(result), facts)


def _curves_section(folder: Path, curves: dict[str, dict[str, Any]]) -> str:
    title = "Learning curves"
    if not curves:
        return page.section(title, page.note("The runs logged none of these metrics more than once."))
    caption = f"{RULE} Thin lines are seeds. curves.pdf is the same figure."
    draw = partial(figures.draw_compared, curves)
    return page.section(title, page.picture(folder / "curves.png", draw, "Learning curves by setting", caption))


def _skills_section(folder: Path, fans: Sequence[figures.Fan], settings: Sequence[dict[str, Any]]) -> str:
    names = [name for name in diagnostics.ROWS if any(OF_SKILLS + name in each["scores"] for each in settings)]
    rows = [[_of_skills(name), *(_skill_score(each, name) for each in settings)] for name in names]
    parts = []
    if fans:
        caption = (
            "Episodes with deterministic actions of the first seed of each setting, each with a skill of its own: "
            "colour is the skill, rings mark starts, dots mark ends. All are in one scale."
        )
        draw = partial(figures.draw_fans, fans)
        parts.append(page.picture(folder / "skills.png", draw, "Skills by setting", caption))
    if rows:
        parts.append(page.table(["", *(each["label"] for each in settings)], rows, "wide"))
    return page.section("What the skills do", *parts) if parts else ""


def _of_skills(name: str) -> str:
    """What a score of `diagnostics` is called."""
    return diagnostics.ROWS[name][0] + (", %" if name in diagnostics.SHARES else "")


def _skill_score(setting: dict[str, Any], name: str) -> str:
    """Of a setting; beside how often the skill can be told is how often it would be by chance."""
    if OF_SKILLS + name not in setting["scores"]:
        return ""
    values = np.array(setting["scores"][OF_SKILLS + name]["values"])
    if name not in diagnostics.SHARES:
        return shown(values.tolist(), 0 if name in diagnostics.COUNTS else _digits(name))
    chance = [run["evaluation"]["diagnostics"]["chance"] for run in setting["runs"]]
    beside = f"; chance {100 * np.mean(chance):.0f}" if name == "discriminability" else ""
    return shown((100 * values).tolist(), 0) + beside


def _caption(result: dict[str, Any]) -> str:
    protocols = ", ".join(f"{name} {value}" for name, value in result["protocol"].items() if value is not None)
    return f"{RULE} Minutes are those of training alone. Scores are of the last checkpoint, by: {protocols}."


def _improvement_section(pairs: dict[str, dict[str, Any]]) -> str:
    parts = []
    for name, found in pairs.items():
        if len(found) > 1:
            rows = [[one, *(_probability(found[one].get(other)) for other in found)] for one in found]
            parts += [page.table([name, *found], rows, "wide")]
    return page.section("Probability of improvement", *parts, page.caption(PAIRS)) if parts else ""


def _probability(estimate: dict[str, float | None] | None) -> str:
    if estimate is None:
        return ""
    interval = "" if estimate["low"] is None else f" [{estimate['low']:.2f}, {estimate['high']:.2f}]"
    return f"{estimate['value']:.2f}{interval}"


def _runs_section(result: dict[str, Any]) -> str:
    rows = [(each["label"], each["runs"][0]["command"]) for each in result["settings"]]
    parts = [page.table(("What made the first seed", ""), rows, "settings")]
    if failed := result["failed"]:
        parts.append(page.table(("Failed", ""), failed.items(), "settings"))
    return page.section("Runs", *parts)
