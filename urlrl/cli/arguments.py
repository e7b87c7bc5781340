"""Arguments of the command line: bad ones are refused in one sentence, good ones go to tyro."""

import dataclasses
import typing
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

import tyro
from tyro.conf import Positional, Suppress

from urlrl.errors import UserError, nearest, shown

# Type of an option -> what a value of it is.
WORDS = {int: "a whole number", float: "a number", str: "a text", Path: "a path", NoneType: "None"}
# What help says of the options that `main` takes: of a verb that reads data, and of one whose first argument is a run.
TRUST = "Also takes --trust: code of yours that a run or a dataset names is then imported (docs/security.md)."
TRUST_RUN = (
    "Also takes --trust: code of yours that the run names is then imported; and --env NAME and --agent NAME, the names "
    "that the run must have (docs/security.md)."
)


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """No options."""


def parse(options_class: type, argv: list[str], verb: str, also: str = "") -> Any:
    """The options of a verb, whose help says `also` after what the class says of itself."""
    if not asks_for_help(argv):
        check_arguments(argv, options_class)
    about = " ".join((options_class.__doc__ or "").split())
    return tyro.cli(options_class, args=argv, prog=f"urlrl {verb}", description=f"{about}\n\n{also}".strip())


def asks_for_help(argv: list[str]) -> bool:
    return "--help" in argv or "-h" in argv


def check_arguments(argv: list[str], options_class: Any, default: Any = None) -> None:
    """Refuse in one sentence what tyro would refuse in a box; values of types without words are left to tyro. A part
    of the options that the `default` leaves out, None, has no options."""
    options = _options(options_class, default)
    missing = [name for name in options if not name.startswith("--")]
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        name, is_whole, value = token.partition("=")
        name = name.replace("_", "-")
        if not name.startswith("--"):
            if not missing:
                raise UserError(f"Unexpected argument '{shown(token)}': `--help` lists the options.")
            if typing.get_origin(options[missing.pop(0)]) is tuple:  # It takes all that follow.
                while tokens and not tokens[0].startswith("--"):
                    tokens.pop(0)
        elif name not in options:
            near = nearest(name, options)
            hint = f"did you mean '{near}'?" if near else "`--help` lists the options."
            raise UserError(f"Unknown option '{shown(token)}': {hint}")
        elif options[name] is bool:
            if is_whole:
                raise UserError(
                    f"Option '{name}' has the value '{shown(value)}': expected none (and no- for the opposite)."
                )
        elif not (expected := _in_words(options[name])):
            while tokens and not tokens[0].startswith("--"):
                tokens.pop(0)
        elif typing.get_origin(options[name]) is tuple:
            values = [value] if is_whole else []
            while tokens and not tokens[0].startswith("--"):
                values.append(tokens.pop(0))
            for value in values or [""]:
                if not _fits(value, typing.get_args(options[name])[0]):
                    raise UserError(f"Option '{name}' is '{shown(value)}': expected {expected}.")
        else:
            if not is_whole:
                value = tokens.pop(0) if tokens and not tokens[0].startswith("--") else ""
            if not value or not _fits(value, options[name]):
                found = f"is '{shown(value)}'" if value else "has no value"
                raise UserError(f"Option '{name}' {found}: expected {expected}.")
    if missing:
        raise UserError(f"Argument {missing[0]} is missing: expected {_in_words(options[missing[0]])}.")


def with_home(token: str) -> str:
    """`~/x` and `--name=~/x` with the home folder in place of ~. The shell leaves the second as it is."""
    name, equals, value = token.partition("=") if token.startswith("--") else ("", "", token)
    return f"{name}{equals}{Path(value).expanduser()}" if value.startswith("~/") else token


def take(options: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` from the options; returns the value."""
    for i, token in enumerate(options):
        if token == name or token.startswith(f"{name}="):
            _, is_whole, value = options.pop(i).partition("=")
            if not is_whole and i < len(options) and not options[i].startswith("--"):
                value = options.pop(i)
            if not value:
                raise UserError(f"Option '{name}' has no value: expected one after it.")
            return value
    return None


def take_flag(options: list[str], name: str) -> bool:
    if name not in options:
        return False
    options.remove(name)
    return True


def required(option: str, value: Any, what: str) -> Any:
    """The value of an option that must be given."""
    if value is None:  # A field without a default would be refused in tyro's box.
        raise UserError(f"Option '{option}' is missing: expected {what}.")
    return value


def _in_words(hint: Any) -> str:
    """What an option of this type takes; empty for a type that is not in WORDS."""
    if typing.get_origin(hint) is tuple:
        return f"{WORDS[typing.get_args(hint)[0]].removeprefix('a ')}s"
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


def _options(options_class: Any, default: Any = None, prefix: str = "--") -> dict[str, Any]:
    """Option, as tyro spells it -> type, of a (nested, generic) dataclass; positional arguments in capitals."""
    plain = typing.get_origin(options_class) or options_class
    hints, marked = typing.get_type_hints(plain), typing.get_type_hints(plain, include_extras=True)
    bound = dict(zip(getattr(plain, "__parameters__", ()), typing.get_args(options_class)))
    options: dict[str, Any] = {}
    for field in dataclasses.fields(plain):
        name, hint = field.name.replace("_", "-"), bound.get(hints[field.name], hints[field.name])
        marks = getattr(marked[field.name], "__metadata__", ())
        value = getattr(default, field.name, None)
        if part := next((part for part in _parts(hint) if dataclasses.is_dataclass(part)), None):
            if Suppress not in marks and (part is hint or value is not None):
                options |= _options(part, value, f"{prefix}{name}.")
        elif Positional in marks:
            options[name.upper()] = hint
        elif Suppress not in marks:
            options |= {f"{prefix}{name}": hint} | ({f"{prefix}no-{name}": hint} if hint is bool else {})
    return options
