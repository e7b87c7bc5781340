"""Studies: runs of several settings and seeds, made, continued and compared."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby, product
from math import isfinite
from pathlib import Path
from typing import Any

from urlrl.config import PretrainConfig, flatten
from urlrl.errors import RunsFailed, UserError, shown
from urlrl.evaluation import comparison, coverage, diagnostics
from urlrl.files import read_json, write_json
from urlrl.runs.begin import make_run_env
from urlrl.runs.load import load_checkpoint, saved_evaluation
from urlrl.runtime import enable_compilation_cache
from urlrl.training.log import read_metrics
from urlrl.training.run import RunFolder
from urlrl.values import literal
from urlrl.verbs.launch import Work, check_launcher, is_trained, launch, share_memory
from urlrl.verbs.report_seeds import scores_of
from urlrl.verbs.study import OF_LAUNCHER, Setting, read_study, settings_of, settings_of_runs

FORMAT = "urlrl-study-1"
SHAPE = {"format": FORMAT, "settings": {str: str}}


def compare(
    study: Mapping[str, Any] | Path | str | None = None, *, out: Path | str, quiet: bool = False, **more: Any
) -> dict[str, Any]:
    """Train, evaluate and compare settings with several seeds each, or compare runs that are there. A second call goes
    on where one was stopped: what is done is not done again.

    Args:
        study: what is compared, or the TOML file that says it; docs/compare.md names the keys.
        out: the folder of the comparison, and of the runs that it makes: `out/runs/<label>/seed-<n>`.
        more: what to add to the study or to change in it, as in `agents="metra,rnd", env="point", seeds="0..2"`.

    Returns:
        What `table.json` holds: {"env", "labels", "protocol", "settings", "baselines", "improvement", "failed": {run:
        why}}, see `urlrl.evaluation.comparison.summarise`; "labels" are those of all settings, also where all seeds
        failed. Beside it lie `index.html`, `table.csv` and `curves.pdf`.

    Raises:
        UserError: a bad study, or the folder holds something else; nothing was trained. Or, when all is trained: runs
            that cannot be compared, or a metric that none logged.
        RunsFailed: every run failed, as the table says. Where some did, "failed" names them.
        Interrupted: a signal stopped the runs; they were saved and can be continued.
    """
    given: Mapping[str, Any] = read_study(study) if isinstance(study, str | Path) else study or {}
    said = _added(given, more)
    out, targets, curves = Path(out), _targets(said.get("reach", ())), _names("curves", said.get("curves", ()))
    launcher: dict[str, Any] = {name: said[name] for name in OF_LAUNCHER if name in said}
    check_launcher(**launcher)
    share_memory(launcher.get("workers", 1))
    enable_compilation_cache()
    settings = _settings(said, out)
    env = _common(settings, "env", lambda each: each.config.env)
    protocol = {"episode_steps": _common(settings, "episode_steps", lambda each: each.spec.episode_steps)}
    if "runs" not in said:
        _check_evaluated(settings, [*curves, *(target.metric for target in targets)])
    _claim(out, settings)
    options = {**launcher, "jobs": out / "jobs", "quiet": quiet}
    failed = launch([] if "runs" in said else _to_train(settings), **options)
    done = [(each, seed) for each in settings for seed in each.folders if each.name(seed) not in failed]
    work = [Work(each.name(seed), each.folders[seed]) for each, seed in done if not _evaluation(each, seed)]
    failed |= launch(work, **options)
    found, runs = dict[str, dict[str, Any]](), list[comparison.Run]()
    for each, seed in done:
        name = each.name(seed)
        if evaluation := _evaluation(each, seed):
            found[name] = evaluation
            runs.append(_run(each, seed, evaluation))
            failed.pop(name, None)  # By another launcher, perhaps.
        else:
            failed.setdefault(name, "it has no evaluation.")
    protocol |= _protocol(found)
    _check_lengths(runs)
    table = comparison.summarise(runs, curves, targets)
    fans, damaged = _fans(runs)
    failed |= damaged
    result = {"env": env, "labels": [each.label for each in settings], "protocol": protocol, **table, "failed": failed}
    for entry in result["settings"]:
        entry["runs"] = [_made(run, found[run.name]) for run in runs if run.setting == entry["label"]]
    comparison.write(out, result, fans)
    if not found:
        name, why = next(iter(failed.items()))
        raise RunsFailed(f"All runs failed, as {out / 'index.html'} says; {name}: {why}")
    return result


def _added(given: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """A study with more in it; tables are added to key by key. Raises UserError where a setting of its own says
    something else than what is added for all."""
    said = dict(given)
    for name, value in more.items():
        is_table = isinstance(value, Mapping) and isinstance(given.get(name), Mapping)
        said[name] = {**given[name], **value} if is_table else value
    for label, table in _settings_tables(given).items():
        own, added = flatten(dict(table)), flatten(dict(more))
        for name in own.keys() & added.keys():
            raise UserError(
                f"{name} is {shown(repr(added[name]))} of all settings and {shown(repr(own[name]))} of setting "
                f"'{shown(label)}' in the file: expected one of them."
            )
    return said


def _settings_tables(study: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What is no table is refused later."""
    settings = study.get("settings")
    tables = settings if isinstance(settings, Mapping) else {}
    return {label: table for label, table in tables.items() if isinstance(table, Mapping)}


def _made(run: comparison.Run, evaluation: Any) -> dict[str, Any]:
    """What it takes to repeat a run, and what it was scored."""
    manifest = RunFolder(run.folder).manifest()
    return {name: manifest[name] for name in ("command", "config", "versions")} | {"evaluation": _brief(evaluation)}


def _brief(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Without what it says of each goal, which its file has; in its twin too."""
    brief = dict(evaluation)
    if goals := evaluation.get("goals"):
        brief["goals"] = {name: value for name, value in goals.items() if name not in ("goals", "outcomes")}
    if twin := evaluation.get("twin"):
        brief["twin"] = _brief(twin)
    return brief


def _settings(said: Mapping[str, Any], out: Path) -> list[Setting]:
    if "runs" not in said:
        return settings_of(said, out)
    if others := sorted(said.keys() - {"runs", "curves", "reach", *OF_LAUNCHER}):
        raise UserError(f"The study has runs and {others[0]}: expected runs that are there, or settings to train.")
    return settings_of_runs(_texts("runs", said["runs"]))


def _texts(key: str, value: Any) -> list[str]:
    """Of a list of texts, or of one text."""
    if not isinstance(value, str | list | tuple):
        raise UserError(f"{key} is {shown(repr(value))}: expected a text or a list of texts.")
    return [value] if isinstance(value, str) else list(map(str, value))


def _names(key: str, value: Any) -> list[str]:
    """As `_texts`, which may have commas between names."""
    return [part.strip() for text in _texts(key, value) for part in text.split(",")]


def _targets(value: Any) -> list[comparison.Target]:
    targets = []
    for text in _names("reach", value):
        metric, _, score = text.partition("=")
        number = literal(score.strip())
        if isinstance(number, bool) or not isinstance(number, int | float) or not isfinite(number):
            raise UserError(f"reach is '{shown(text)}': expected a metric and a score, as in coverage=100.")
        targets.append(comparison.Target(metric.strip(), float(number)))
    return targets


def _check_evaluated(settings: Sequence[Setting], metrics: Sequence[str]) -> None:
    """Raises UserError where a metric of evaluations during training is asked for, and a setting has none."""
    known = {f"eval/{name}" for name in ("coverage", *diagnostics.ROWS)}
    measured = [metric for metric in metrics if metric in known or f"eval/{metric}" in known]
    for metric, each in product(measured, settings):
        if not each.spec.position:
            raise UserError(
                f"Environment '{each.config.env}' does not say where it is: expected one that does, by which "
                f"'{shown(metric)}' is measured."
            )
        if not 0 < each.config.eval_every <= each.config.steps:
            raise UserError(
                f"eval_every is {each.config.eval_every:,} and steps is {each.config.steps:,} of '{each.label}': "
                f"expected evaluations during training, by which '{shown(metric)}' is measured."
            )


def _common(settings: Sequence[Setting], name: str, value: Any) -> Any:
    """What all settings have. Raises UserError where they differ in it."""
    first = settings[0]
    for other in settings[1:]:
        if value(other) != value(first):
            raise UserError(
                f"{name} is {value(first)!r} of '{first.label}' and {value(other)!r} of '{other.label}': expected runs "
                f"of one environment in one table."
            )
    return value(first)


def _claim(out: Path, settings: Sequence[Setting]) -> None:
    """Write what the study is into its folder. Raises UserError where the folder holds something else."""
    file = out / "study.json"
    here = {each.label: " ".join(each.words) for each in settings}
    if file.exists():
        there = read_json(file, SHAPE)["settings"]
        if gone := [label for label in there if label not in here]:
            raise UserError(
                f"{out} holds another study, which has the setting '{shown(gone[0])}': expected a new folder, or a "
                f"study that has it too."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty and holds no study: expected a new folder, or one of a study.")
    for each in settings:
        if each.words:
            for seed, folder in each.folders.items():
                RunFolder(folder).check(replace(each.config, seed=seed))
                _check_not_beyond(folder, each)
    out.mkdir(parents=True, exist_ok=True)
    write_json({"format": FORMAT, "settings": here}, file)


def _check_not_beyond(folder: Path, setting: Setting) -> None:
    """Raises UserError where the run was already trained for longer than the setting's runs are to be."""
    config = setting.config
    epoch = config.epoch_steps if isinstance(config, PretrainConfig) else config.updates
    trained = max(RunFolder(folder).checkpoints.steps(), default=0)
    if trained >= config.steps + epoch:  # Runs end with a whole epoch.
        raise UserError(
            f"{folder} has a checkpoint at step {trained:,}, and steps is {config.steps:,} of '{setting.label}': "
            f"expected as many steps as that, or a new folder."
        )


def _to_train(settings: Sequence[Setting]) -> list[Work]:
    work = []
    for each in settings:
        for seed, folder in each.folders.items():
            words = ["urlrl", "pretrain", *each.words, "--seed", str(seed), "--out", str(folder)]
            if not is_trained(folder, each.config):
                config = replace(each.config, seed=seed)
                work.append(Work(each.name(seed), folder, config, shlex.join(words)))
    return work


def _evaluation(setting: Setting, seed: int) -> dict[str, Any] | None:
    """What `urlrl evaluate` left of the run's last checkpoint."""
    folder = setting.folders[seed]
    steps = RunFolder(folder).checkpoints.steps()
    return saved_evaluation(folder, steps[-1], setting.spec) if steps else None


def _protocol(found: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """By what all runs were scored. Raises UserError where they differ in it."""
    known: dict[str, tuple[str, Any]] = {}  # part -> a run, and its protocol
    for name, evaluation in found.items():
        scored = [part for part in ("coverage", "goals", "diagnostics", "whereabouts") if evaluation.get(part)]
        parts = {"evaluation seed": evaluation["seed"]} | {part: evaluation[part]["protocol"] for part in scored}
        for part, protocol in parts.items():
            other, there = known.setdefault(part, (name, protocol))
            if protocol != there:
                raise UserError(
                    f"{part} is {there} of '{other}' and {protocol} of '{name}': expected one protocol in one table."
                )
    return {part: protocol for part, (_, protocol) in known.items()}


def _check_lengths(runs: Sequence[comparison.Run]) -> None:
    """Raises UserError where seeds of a setting were not trained for as long."""
    first: dict[str, comparison.Run] = {}
    for run in runs:
        other = first.setdefault(run.setting, run)
        if run.step != other.step:
            raise UserError(
                f"{run.folder} is at step {run.step:,} and {other.folder} at {other.step:,}: expected runs of one "
                f"length in a setting."
            )


def _run(setting: Setting, seed: int, evaluation: Any) -> comparison.Run:
    folder = setting.folders[seed]
    rows = read_metrics(folder / "metrics.jsonl", evaluation["step"])
    return comparison.Run(setting.label, seed, folder, evaluation["step"], rows, scores_of(evaluation))


def _fans(runs: Sequence[comparison.Run]) -> tuple[list[Any], dict[str, str]]:
    """Of the first seed of each setting, where the environment says where it is; and what is damaged: run -> why."""
    from urlrl.evaluation.figures import Fan

    fans, damaged = [], dict[str, str]()
    firsts = [next(group) for _, group in groupby(runs, lambda run: run.setting)]  # Runs come by setting.
    for run in firsts:
        try:
            agent, config, spec, _, _ = load_checkpoint(run.folder, run.step)
        except UserError as error:
            damaged[run.name] = str(error)
            continue
        if spec.position:
            with closing(make_run_env(config, coverage.EPISODES)) as env:
                trajectory = coverage.scored_episodes(env, agent, 0)
            fans.append(Fan(run.setting, trajectory, spec, config.agent.z.kind))
    return fans, damaged
