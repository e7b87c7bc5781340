"""The command line: `urlrl pretrain | evaluate | report | presets | doctor`."""

import dataclasses
import difflib
import json
import os
import shlex
import sys
import typing
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import tyro
from tyro.conf import Positional, Suppress

from urlrl.config import MAX_SEED
from urlrl.errors import UserError, check, unknown

USAGE = """\
urlrl: unsupervised reinforcement learning in JAX

  urlrl pretrain metra --preset half-cheetah-quick --seed 0 --out runs/x
                             pretrain without reward; the same command continues a run
  urlrl evaluate runs/x      coverage and zero-shot goals, beside the random policy
  urlrl report runs/x        a page with trajectories, curves, latents and videos
  urlrl presets              named settings, where they come from and what they cost
  urlrl doctor               versions, backend, graphics, known-bad pairs

`urlrl VERB --help` lists the options of a verb. Exit codes: 0 done, 2 bad input, 3 training diverged,
75 stopped by a signal and saved (the same command continues)."""

# Type of an option -> what a value of it is.
WORDS = {int: "a whole number", float: "a number", str: "a text", Path: "a path", NoneType: "None"}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    verbs = {"pretrain": _pretrain, "evaluate": _evaluate, "report": _report, "presets": _presets, "doctor": _doctor}
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    try:
        if argv[0] == "--version":
            import urlrl

            print(urlrl.__version__)
        elif argv[0] not in verbs:
            raise unknown("command", argv[0], verbs)
        else:
            verbs[argv[0]](argv[1:])
    except UserError as error:
        print(f"urlrl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # The reader, `head` for one, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Flushing at exit has somewhere to go.
        sys.exit(1)
    except OSError as error:  # A disk that is full, a file that may not be read.
        print(f"urlrl: {error.filename or 'a file'}: {error.strerror or error}.", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _pretrain(argv: list[str]) -> None:
    """Everything an option can change comes from a preset, or from the agent's own defaults."""
    from urlrl.agents import find_agent
    from urlrl.config import PretrainConfig, to_json
    from urlrl.presets import preset

    options = list(argv)
    agent = options.pop(0) if options and not options[0].startswith("-") else _take(options, "--agent") or "metra"
    preset_name, out = _take(options, "--preset"), _take(options, "--out")
    dry_run, quiet = _take_flag(options, "--dry-run"), _take_flag(options, "--quiet")
    _, agent_config = find_agent(agent)
    default = preset(agent, preset_name) if preset_name else PretrainConfig(agent=agent_config(), agent_name=agent)
    options_class = PretrainConfig[agent_config]  # type: ignore[valid-type]
    if not _asks_for_help(options):
        _check_arguments(options, options_class)
    else:
        print(
            "usage: urlrl pretrain [AGENT] [--preset NAME] [--out DIR] [--dry-run] [--quiet] [OPTIONS]\n\n"
            "AGENT is a registered name (metra) or module:Class. Options below show the defaults of "
            f"{f'preset {preset_name}' if preset_name else f'agent {agent}'}.\n"
        )
    config = tyro.cli(options_class, args=options, default=default, prog="urlrl pretrain", description="")
    folder = Path(out or f"runs/{agent.replace(':', '.')}-{preset_name or config.env.replace(':', '.')}-{config.seed}")
    if dry_run:
        print(json.dumps({"out": str(folder), "config": to_json(config)}, indent=2))
        return
    from urlrl.verbs import pretrain

    try:
        pretrain(config, folder, quiet=quiet, command=shlex.join(["urlrl", "pretrain", *argv]))
    except MemoryError as error:
        detail = f"Not enough memory: {error}".rstrip(": ")  # Python's own says nothing.
        raise UserError(f"{detail}; try a smaller replay_capacity.") from error
    print(f"Done. Next: urlrl evaluate {folder}; urlrl report {folder}")


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Coverage and zero-shot goals of a run, beside the random policy."""

    run: Positional[Path]  # folder of the run
    json: Path | None = None  # also write the result to this file
    step: int | None = None  # which checkpoint; the newest by default
    seed: int = 0  # of skills, goals, resets and sampled actions

    def __post_init__(self):
        check("seed", self.seed, 0, MAX_SEED)


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """One self-contained page: trajectories, curves, latents, goals, videos, config."""

    run: Positional[Path]  # folder of the run


def _evaluate(argv: list[str]) -> None:
    options = _parse(EvaluateOptions, argv, "evaluate")
    from urlrl.verbs import evaluate

    _print_evaluation(evaluate(options.run, step=options.step, seed=options.seed, json_file=options.json))


def _report(argv: list[str]) -> None:
    options = _parse(ReportOptions, argv, "report")
    from urlrl.verbs import report

    print(report(options.run))


def _presets(argv: list[str]) -> None:
    _parse(NoOptions, argv, "presets")
    from rich.console import Console
    from rich.table import Table

    from urlrl.presets import PRESETS

    table = Table("agent", "preset", "environment", "steps", "settings from", "takes", box=None, pad_edge=False)
    for agent, presets in PRESETS.items():
        for name, entry in presets.items():
            table.add_row(agent, name, entry.config.env, f"{entry.config.steps:,}", entry.source, entry.cost)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _doctor(argv: list[str]) -> None:
    _parse(NoOptions, argv, "doctor")
    from urlrl.doctor import diagnose

    if not diagnose().show():
        sys.exit(1)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """No options."""


def _parse(options_class: type, argv: list[str], verb: str) -> Any:
    if not _asks_for_help(argv):
        _check_arguments(argv, options_class)
    return tyro.cli(options_class, args=argv, prog=f"urlrl {verb}")


def _asks_for_help(argv: list[str]) -> bool:
    return "--help" in argv or "-h" in argv


def _check_arguments(argv: list[str], options_class: Any) -> None:
    """Refuse in one sentence what tyro would refuse in a box; values of types without words are left to tyro."""
    options = _options(options_class)
    missing = [name for name in options if not name.startswith("--")]
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        name, is_whole, value = token.partition("=")
        name = name.replace("_", "-")
        if not name.startswith("--"):
            if not missing:
                raise UserError(f"Unexpected argument '{token}': `--help` lists the options.")
            missing.pop(0)
        elif name not in options:
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else "`--help` lists the options."
            raise UserError(f"Unknown option '{token}': {hint}")
        elif options[name] is bool:
            if is_whole:
                raise UserError(f"Option '{name}' has the value '{value}': expected none (and no- for the opposite).")
        elif not (expected := _in_words(options[name])):
            while tokens and not tokens[0].startswith("--"):
                tokens.pop(0)
        else:
            if not is_whole:
                value = tokens.pop(0) if tokens and not tokens[0].startswith("--") else ""
            if not value or not _fits(value, options[name]):
                found = f"is '{value}'" if value else "has no value"
                raise UserError(f"Option '{name}' {found}: expected {expected}.")
    if missing:
        raise UserError(f"Argument {missing[0]} is missing: expected {_in_words(options[missing[0]])}.")


def _in_words(hint: Any) -> str:
    """What an option of this type takes; empty for a type that is not in WORDS."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    words = [WORDS.get(part, "") for part in _parts(hint)]
    return " or ".join(words) if all(words) else ""


def _fits(text: str, hint: Any) -> bool:
    """Whether an option of this type, one that has words, takes this text."""
    if len(_parts(hint)) > 1:
        return any(_fits(text, part) for part in _parts(hint))
    if hint is NoneType or typing.get_origin(hint) is typing.Literal:
        return text in map(str, typing.get_args(hint) or [None])
    try:
        hint(text)
    except ValueError:
        return False
    return True


def _parts(hint: Any) -> tuple[Any, ...]:
    """The types of a union."""
    return typing.get_args(hint) if typing.get_origin(hint) in (UnionType, typing.Union) else (hint,)


def _options(options_class: Any, prefix: str = "--") -> dict[str, Any]:
    """Option, as tyro spells it -> type, of a (nested, generic) dataclass; positional arguments in capitals."""
    plain = typing.get_origin(options_class) or options_class
    hints, marked = typing.get_type_hints(plain), typing.get_type_hints(plain, include_extras=True)
    bound = dict(zip(getattr(plain, "__parameters__", ()), typing.get_args(options_class)))
    options: dict[str, Any] = {}
    for field in dataclasses.fields(plain):
        name, hint = field.name.replace("_", "-"), bound.get(hints[field.name], hints[field.name])
        marks = getattr(marked[field.name], "__metadata__", ())
        if dataclasses.is_dataclass(hint):
            options |= _options(hint, f"{prefix}{name}.")
        elif Positional in marks:
            options[name.upper()] = hint
        elif Suppress not in marks:
            options |= {f"{prefix}{name}": hint} | ({f"{prefix}no-{name}": hint} if hint is bool else {})
    return options


def _take(options: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` from the options; returns the value."""
    for i, token in enumerate(options):
        if token == name:
            if i + 1 == len(options) or options[i + 1].startswith("--"):
                raise UserError(f"Option '{name}' has no value: expected one after it.")
            options.pop(i)
            return options.pop(i)
        if token.startswith(f"{name}="):
            return options.pop(i).split("=", 1)[1]
    return None


def _take_flag(options: list[str], name: str) -> bool:
    if name not in options:
        return False
    options.remove(name)
    return True


def _print_evaluation(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"{result['env']}, step {result['step']:,}, evaluation seed {result['seed']}")
    table = Table("", "agent", "random policy", box=None, pad_edge=False)
    if result["coverage"]:
        table.add_row("coverage, 1 m cells", *(f"{result['coverage'][who]}" for who in ("agent", "random")))
    if result["goals"]:
        labels = {"final_distance": "final goal distance, m", "closest_distance": "closest goal distance, m"}
        for name in result["goals"]["agent"]:
            kind, _, radius = name.partition("_")
            label = labels.get(name, f"goals: {kind} within {radius} m")
            table.add_row(label, *(f"{result['goals'][who][name]:.3f}" for who in ("agent", "random")))
    if table.row_count:
        console.print(table)
    for note in result["notes"]:
        console.print(note)
