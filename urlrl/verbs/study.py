"""What a study is: settings by label, the options and the seeds of each, and where their runs are."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

from urlrl.config import RESUMABLE_FIELDS, RunConfig, changed, flatten, to_json
from urlrl.errors import UserError, reason, shown, unknown
from urlrl.presets import starting_config
from urlrl.runs.begin import begin, run_spec
from urlrl.runs.load import run_config
from urlrl.types import EnvSpec
from urlrl.values import literal, number_list

# What a study says beside the options of its runs; of a setting.
OF_SETTING = ("agents", "preset", "seeds")
OF_LAUNCHER = ("launcher", "workers", "slurm")
OF_STUDY = (*OF_SETTING, "settings", "runs", "curves", "reach", *OF_LAUNCHER)
# Options in which runs of one setting may differ.
NO_DIFFERENCE = {"seed", "loop", "agent_name", *RESUMABLE_FIELDS} - {"steps", "eval_env"}  # curves are of eval_env
MOST_LETTERS = 100  # of a label, which names a folder


class Setting(NamedTuple):
    """What is compared: runs of one config that differ in their seed."""

    label: str
    config: RunConfig  # its seed does not count
    spec: EnvSpec  # of its environment
    folders: dict[int, Path]  # by seed
    words: list[str]  # of `urlrl pretrain`, without seed and folder; [] where the runs are there already

    def name(self, seed: int) -> str:
        """Of a run, as sentences and tables say it."""
        return f"{self.label}, seed {seed}"


def read_study(file: Path | str) -> dict[str, Any]:
    """Raises UserError where it cannot be read."""
    try:
        return tomllib.loads(Path(file).read_text())
    except (OSError, ValueError) as error:  # A TOMLDecodeError is a ValueError, and so is text that is no UTF-8.
        raise UserError(f"Study {shown(file)} cannot be read: {reason(error)}.") from error


def settings_of(study: Mapping[str, Any], out: Path) -> list[Setting]:
    """The settings whose runs are, or will be, in `out`. Each environment is made once, to see that it can be.

    Raises:
        UserError: an unknown agent, preset, option or environment, no seeds, settings that do not differ, or different
            environments.
    """
    if not {"agents", "preset", "settings"} & study.keys():
        raise UserError("The study is empty: expected settings, as in agents = 'metra,rnd' and seeds = '0..4'.")
    common = {name: value for name, value in study.items() if name not in OF_STUDY or name in OF_SETTING}
    tables = study.get("settings", {"": {}})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UserError(f"settings is {shown(repr(tables))}: expected a table for each setting, as [settings.slow].")
    chosen = [
        (label, choice, _seeds({**common, **table}))
        for label, table in tables.items()
        for choice in _choices({**flatten(common), **flatten(table)})
    ]
    if not chosen:
        raise UserError("The study is empty: expected settings, as in agents = 'metra,rnd' and seeds = '0..4'.")
    labels = _labels([(label, choice) for label, choice, _ in chosen])
    _check_labels(tables, labels)
    settings = [_setting(label, choice, seeds, out) for label, (_, choice, seeds) in zip(labels, chosen)]
    for i, setting in enumerate(settings):
        for other in settings[:i]:
            if _described(other.config, other.spec) == _described(setting.config, setting.spec):
                raise UserError(
                    f"Settings '{other.label}' and '{setting.label}' do not differ: expected each once, with all its "
                    f"seeds."
                )
            if _place(other.label) == _place(setting.label):
                raise UserError(
                    f"Settings '{other.label}' and '{setting.label}' have one folder: expected other names."
                )
    return settings


def settings_of_runs(runs: Sequence[Path | str]) -> list[Setting]:
    """The settings of runs that are there: those that differ in their seed alone are of one.

    Raises:
        UserError: a folder holds no run, or two runs are of one setting and seed.
    """
    described, settings, specs = list[dict[str, Any]](), list[Setting](), dict[RunConfig, EnvSpec]()
    for run in map(Path, runs):
        config = run_config(run)
        alike = replace(config, seed=0)
        if alike not in specs:
            specs[alike] = run_spec(config)
        choice = _described(config, specs[alike])
        if choice not in described:
            described.append(choice)
            settings.append(Setting("", config, specs[alike], {}, []))
        folders = settings[described.index(choice)].folders
        if config.seed in folders:
            raise UserError(f"{folders[config.seed]} and {run} do not differ: expected each setting and seed once.")
        folders[config.seed] = run
    if not settings:
        raise UserError("The study is empty: expected folders of runs.")
    labels = _labels([("", choice) for choice in described])
    return [setting._replace(label=label) for setting, label in zip(settings, labels)]


def _described(config: RunConfig, spec: EnvSpec) -> dict[str, Any]:
    """All in which runs of one setting may not differ; their episodes are as long as the environment has them."""
    flat = flatten(to_json(config))
    options = {name: value for name, value in flat.items() if name not in NO_DIFFERENCE}
    return {"agents": config.agent_name, **options, "episode_steps": spec.episode_steps}


def _seeds(setting: Mapping[str, Any]) -> list[int]:
    seeds = setting.get("seeds")
    if seeds is None:
        raise UserError("The study has no seeds: expected them, as in seeds = '0..4'.")
    numbers = number_list("seeds", ",".join(map(str, seeds)) if isinstance(seeds, list | tuple) else str(seeds))
    if len(set(numbers)) < len(numbers):
        raise UserError(f"seeds are {', '.join(map(str, numbers))}: expected each once.")
    return numbers


def _choices(setting: dict[str, Any]) -> list[dict[str, Any]]:
    """One value of each option; a text with commas is a list of values, all of which are tried."""
    names = [name for name in setting if name != "seeds"]
    values = [_values(name, setting[name]) for name in names]
    return [_with_agent(dict(zip(names, chosen))) for chosen in product(*values)]


def _values(name: str, value: Any) -> list[Any]:
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if name in OF_SETTING:  # A name may look like a number.
        return [str(part) for part in (parts if isinstance(parts, list | tuple) else [parts])]
    return [literal(part) for part in parts] if isinstance(value, str) else [value]


def _with_agent(choice: dict[str, Any]) -> dict[str, Any]:
    """Where no agent is named, a preset says whose it is, as metra/half-cheetah-quick."""
    agent, slash, preset = str(choice.get("preset", "")).partition("/")
    if "agents" in choice:
        return choice
    if not slash:
        raise UserError("A setting names no agent: expected one, as in agents = 'metra,rnd', or preset = 'metra/NAME'.")
    return {**choice, "agents": agent, "preset": preset}


def _setting(label: str, choice: dict[str, Any], seeds: list[int], out: Path) -> Setting:
    agent, preset = str(choice["agents"]), choice.get("preset")
    options = {name: value for name, value in choice.items() if name not in OF_SETTING}
    start = starting_config(agent, preset, options)
    known = flatten(to_json(start)).keys() - {"seed", "agent_name", "data_id"}
    for name in options:
        if name not in known:
            raise unknown("option of the study", name, {*known, *OF_STUDY} - {name})
    with begin(changed(start, options), getattr(start, "loop", "host") == "device") as begun:
        config, spec = begun.config, begun.spec
    words = [agent, *(["--preset", preset] if preset else []), *chain(*(_words(*pair) for pair in options.items()))]
    place = out / "runs" / _place(label)
    return Setting(label, config, spec, {seed: place / f"seed-{seed}" for seed in seeds}, words)


def _words(name: str, value: Any) -> list[str]:
    """How the command line gives an option a value."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        table, dot, last = option.rpartition(".")
        return [f"--{table}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{option}", *map(str, value if isinstance(value, list | tuple) else [value])]


def _labels(described: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    """For each setting, which has a name of its own or "": this name, and the options in which it differs from others
    of this name; agents differ in nearly all of theirs, so their options are compared with those of the same agent."""
    labels = []
    for own, choice in described:
        alike = [other for name, other in described if name == own]
        agent = choice["agents"]
        several = any(other["agents"] != agent for other in alike)
        same = [other for other in alike if other["agents"] == agent]
        differ = [name for name in dict.fromkeys(chain(*same)) if len({repr(other.get(name)) for other in same}) > 1]
        last = Counter(name.rpartition(".")[2] for name in differ)
        parts = [own] if own else []
        parts += [agent] if several or not (own or differ) else []
        for name in differ:
            short = name.rpartition(".")[2]
            parts.append(f"{short if last[short] == 1 else name}={choice.get(name)}")
        labels.append(", ".join(parts))
    return labels


def _check_labels(own: Iterable[str], labels: Iterable[str]) -> None:
    """Raises UserError where the name of a setting, its `own` or what is made of it, cannot name a folder."""
    for label in own:
        if "/" in label or (label and not label.strip(". ")):
            raise UserError(
                f"Setting '{shown(label)}' cannot name a folder: expected one without a slash that is more than dots."
            )
    for label in labels:
        if len(label) > MOST_LETTERS:
            raise UserError(f"Setting '{shown(label)}' has a long name: expected at most {MOST_LETTERS} letters.")


def _place(label: str) -> str:
    """A label as the name of a folder."""
    return re.sub(r"[^\w.=+-]+", "_", label)
