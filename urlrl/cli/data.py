"""`urlrl data VERB`: what can be done with datasets."""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from tyro.conf import Positional

from urlrl.cli.arguments import TRUST, asks_for_help, parse, required
from urlrl.cli.console import make_console
from urlrl.config import MAX_SEED
from urlrl.errors import UserError, check, unknown

Format = Literal["auto", "urlrl", "run", "exorl", "ogbench", "d4rl", "minari", "lerobot"]

USAGE = """\
usage: urlrl data VERB ...

  urlrl data info PATH                    what is in a dataset, or in anything that can be made one
  urlrl data validate PATH                check hashes, numbers, and observations and rewards against stored physics
  urlrl data convert PATH... --out DIR    make a dataset: of a run, ExORL, OGBench, D4RL, Minari, LeRobot
  urlrl data collect NAME --out DIR       make a set of our own: walker, cheetah, maze-large-navigate, ...
  urlrl data relabel DIR --task TASK      a task's reward of every transition, from stored physics
  urlrl data export PATH --format minari --out DIR
                                          write ExORL's or Minari's format

Every verb takes --trust: code of yours that a run or a dataset names is then imported (docs/security.md).
`urlrl data VERB --help` lists the options of a verb."""


def main(argv: list[str]) -> None:
    verbs: dict[str, Callable[[list[str]], None]] = {
        "info": _info,
        "validate": _validate,
        "convert": _convert,
        "collect": _collect,
        "relabel": _relabel,
        "export": _export,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
    elif argv[0] not in verbs:
        raise unknown("data command", argv[0], verbs)
    else:
        verbs[argv[0]](argv[1:])


@dataclass(frozen=True)
class InfoOptions:
    """What is in a dataset, a run, or a file or folder of ExORL, OGBench, D4RL, Minari or LeRobot."""

    path: Positional[Path]  # a file, a folder, or the id of a Minari dataset
    env: str | None = None  # the environment that the observations are of, where the data does not say
    format: Format = "auto"
    observation: str = ""  # parts of Minari's or LeRobot's that are joined, as in observation,achieved_goal


@dataclass(frozen=True)
class ValidateOptions:
    """Check a dataset, or anything that can be made one; exit code 2 says that something failed."""

    path: Positional[Path]  # a file, a folder, or the id of a Minari dataset
    env: str | None = None  # the environment that the observations are of, where the data does not say
    format: Format = "auto"
    observation: str = ""  # parts of Minari's or LeRobot's that are joined, as in observation,achieved_goal
    seed: int = 0  # of the sample that is compared with the simulator

    def __post_init__(self):
        check("seed", self.seed, 0, MAX_SEED)


@dataclass(frozen=True)
class ConvertOptions:
    """Make one dataset of one or more sources: urlrl data convert PATH... --out DIR"""

    out: Path | None = None  # folder to write; required
    env: str | None = None  # the environment that the observations are of, where the data does not say
    format: Format = "auto"
    observation: str = ""  # parts of Minari's or LeRobot's that are joined, as in observation,achieved_goal
    action_scale: float = 1.0  # actions are divided by this: 2 for those that were recorded in [-2, 2]
    clip_actions: bool = False  # clip actions beyond [-1, 1], and say how many and how far
    skip_bad: bool = False  # leave out episodes and files that cannot be read or do not fit, and say which and why
    max_transitions: int | None = None  # take only the first so many
    quiet: bool = False


# Options without a value, also with no- before.
FLAGS = tuple(field.name.replace("_", "-") for field in fields(ConvertOptions) if field.type is bool)


@dataclass(frozen=True)
class CollectOptions:
    """Make a set of our own: walker, cheetah (each also -random), maze-{rooms,rings-mass}-random,
    maze-{8x8,medium,large}-navigate, maze-{medium,large}-stitch, of short episodes, and
    antmaze-{medium,large}-navigate, of OGBench's ant, which METRA teaches to walk first."""

    name: Positional[str]  # which set
    out: Path | None = None  # folder to write; required
    steps: int | None = None  # environment steps of each of its runs; the recipe's own by default
    seed: int = 0  # of everything random in it
    quiet: bool = False


@dataclass(frozen=True)
class RelabelOptions:
    """Compute a task's reward of every transition of a dataset from its physics."""

    dataset: Positional[Path]  # folder of the dataset
    task: str | None = None  # `urlrl tasks` lists them; required
    out: Path | None = None  # .npy file to write; <dataset>/rewards/<task>.npy by default
    quiet: bool = False


@dataclass(frozen=True)
class ExportOptions:
    """Write a dataset, or anything that can be made one, in another library's format."""

    path: Positional[Path]  # a file, a folder, or the id of a Minari dataset
    format: Literal["exorl", "minari"] = "exorl"  # what to write
    out: Path | None = None  # folder to write; required
    env: str | None = None  # the environment that the observations are of, where the data does not say
    quiet: bool = False


def _info(argv: list[str]) -> None:
    options = parse(InfoOptions, argv, "data info", TRUST)
    from urlrl.verbs.data import info

    parts = _names(options.observation)
    show_info(info(options.path, env=options.env, format=options.format, observation=parts))


def _validate(argv: list[str]) -> None:
    options = parse(ValidateOptions, argv, "data validate", TRUST)
    from urlrl.verbs.data import running_checks

    console, failed, count = make_console(), 0, 0
    parts = _names(options.observation)
    for one in running_checks(
        options.path, env=options.env, format=options.format, observation=parts, seed=options.seed
    ):
        word = {True: "ok", False: "FAILED", None: "-"}[one.ok]
        console.print(f"{word:<8}{one.name:<14}{one.detail}", soft_wrap=True)
        failed, count = failed + (one.ok is False), count + (one.ok is not None)
    if failed:
        raise UserError(f"{options.path}: {failed} of {count} checks failed.")


def _convert(argv: list[str]) -> None:
    paths, rest = _split(argv)
    options = parse(ConvertOptions, rest, "data convert", TRUST)
    if not paths:
        raise UserError("Argument PATH is missing: expected a file or a folder to make a dataset of.")
    out = required("--out", options.out, "the folder to write")
    from urlrl.verbs.data import convert

    start = time.perf_counter()
    dataset = convert(
        paths,
        out,
        env=options.env,
        format=options.format,
        observation=_names(options.observation),
        action_scale=options.action_scale,
        clip_actions=options.clip_actions,
        skip_bad=options.skip_bad,
        max_transitions=options.max_transitions,
        quiet=options.quiet,
    )
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in out.iterdir())
    print(
        f"Wrote {out}: {len(dataset):,} transitions in {dataset.info.episodes:,} episodes, {size / 1e6:,.1f} MB in "
        f"{seconds:.1f} s, id {dataset.id}"
    )


def _collect(argv: list[str]) -> None:
    options = parse(CollectOptions, argv, "data collect", TRUST)
    out = required("--out", options.out, "the folder to write")
    from urlrl.verbs.collect import collect

    dataset = collect(options.name, out, steps=options.steps, seed=options.seed, quiet=options.quiet)
    print(
        f"Wrote {dataset.folder}: {len(dataset):,} transitions in {dataset.info.episodes:,} episodes, id {dataset.id}"
    )


def _relabel(argv: list[str]) -> None:
    options = parse(RelabelOptions, argv, "data relabel", TRUST)
    task = required("--task", options.task, "one that `urlrl tasks` lists")
    from urlrl.verbs.data import relabel

    found = relabel(options.dataset, task, options.out, quiet=options.quiet)
    print(
        f"{found['task']}: the best episode returns {found['best']:.4g}, the mean {found['mean']:.4g}; "
        f"{found['transitions']:,} transitions, {found['transitions'] / found['seconds']:,.0f} per second"
    )
    print(f"Wrote {found['file']}")


def _export(argv: list[str]) -> None:
    options = parse(ExportOptions, argv, "data export", TRUST)
    out = required("--out", options.out, "the folder to write")
    from urlrl.verbs.data import export_data

    print(f"Wrote {export_data(options.path, out, options.format, env=options.env, quiet=options.quiet)}")


def show_info(found: dict[str, Any]) -> None:
    def span(low: float, high: float) -> str:
        return f"{low:.4g} to {high:.4g}"

    low, mean, high = found["return"]
    length = found["length"]
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "environment": found["env"] or "unknown",
        "source": found["source"],
        "id": found["id"] or "none: not a dataset yet",
        "episodes": f"{found['episodes']:,}, {found['terminated']:.1%} with a true termination",
        "transitions": f"{found['transitions']:,}",
        "length": f"{length['min']:,} to {length['max']:,}, median {length['median']:,.0f}",
        "observation": f"{found['obs_dim']} numbers",
        "action": f"{found['action_dim']} numbers, {span(*found['action'])}",
        "physics": ", ".join(f"{name} {size}" for name, size in found["physics"]) or "none",
        "reward": span(*found["reward"]),
        "return": f"{span(low, high)}, mean {mean:.4g}",
        "size": f"{found['bytes'] / 1e6:,.1f} MB as a dataset",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console = make_console()
    console.print(table)
    for note in found["notes"]:
        console.print(note, soft_wrap=True)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """(paths, options), wherever the paths stand."""
    paths, options, rest = [], [], list(argv)
    if asks_for_help(argv):
        return [], rest
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            paths.append(token)
            continue
        options.append(token)
        if "=" not in token and not token.replace("_", "-").endswith(FLAGS) and rest and not rest[0].startswith("--"):
            options.append(rest.pop(0))
    return paths, options
