"""What a user did wrong, in one sentence; the command line prints it and exits with `exit_code`."""

import difflib
from collections.abc import Iterable
from math import inf
from typing import Any

LISTED = 12  # names that a sentence lists


class UserError(Exception):
    """Bad input: the message names the thing, the value that was found and what was expected."""

    exit_code = 2


class TrainingDiverged(UserError):
    """A learner's state or metric is not finite; nothing was saved after the last good checkpoint."""

    exit_code = 3


class RunsFailed(UserError):
    """Of several runs some failed; the others are done."""

    exit_code = 3


class InUse(UserError):
    """Another process trains in the folder."""


class UnsupportedPrompt(UserError):
    """The agent cannot be asked this; the message names both."""


def shown(value: object, most: int = 100) -> str:
    """A value as a sentence shows it: on one line, without control characters, and of a long text the beginning and how
    long it is."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def not_finite(env: str, what: str, lane: int, step: int) -> str:
    """The sentence for an environment that returned a NaN or an infinity."""
    return (
        f"Environment '{env}' returned a non-finite {what} (lane {lane}, step {step} of its episode): expected numbers "
        "that are finite as float32."
    )


def check(name: str, value: float | None, low: float, high: float = inf, *, open_low: bool = False) -> None:
    """Refuse a number that is not finite, or not in [low, high]; with `open_low`, not in (low, high]. None passes: a
    setting's type says whether it can be None."""
    if value is None:
        return
    in_range = (low < value if open_low else low <= value) and value <= high  # Never so for NaN.
    if not in_range or value == inf:
        number = "a finite number" if value == inf else "a number"
        limits = f"above {low}" if open_low else f"of at least {low}"
        limits += "" if high == inf else f" and at most {high}"
        raise UserError(f"{name} is {shown(value)}: expected {number} {limits}.")


def check_all(
    config: Any, *names: str, low: float, high: float = inf, open_low: bool = False, within: str = ""
) -> None:
    """`check` these fields of a config, which a sentence calls as they are called `within` another config."""
    for name in names:
        check(within + name, getattr(config, name), low, high, open_low=open_low)


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse what is none of the choices."""
    if value not in choices:
        raise UserError(f"{name} is {shown(repr(value))}: expected one of {', '.join(map(repr, choices))}.")


def reason(error: BaseException) -> str:
    """The first line of what an error says, to be put into a sentence."""
    strerror = error.strerror if isinstance(error, OSError) else None
    lines = str(strerror or error).splitlines()
    return shown(lines[0].rstrip("."), 200) if lines and lines[0] else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, if any is. Those with the same last part, after a dot, come first: a
    setting may have moved into a part of its own."""
    by_end = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    near = difflib.get_close_matches(name, by_end or known, n=1, cutoff=0 if by_end else 0.5)
    return near[0] if near else None


def unknown(kind: str, name: str, known: Iterable[str], listed_by: str = "") -> UserError:
    """The error for a name that is in no table: offers the nearest one, else lists them, a dozen at most; `listed_by`
    is the command that lists all."""
    known, name = sorted(known), shown(name)
    near = nearest(name, known)
    rest = len(known) - LISTED
    more = f" and {rest:,} more" + (f", as `{listed_by}` lists them" if listed_by else "") if rest > 0 else ""
    hint = f"did you mean '{near}'?" if near else f"expected one of: {', '.join(known[:LISTED])}{more}."
    return UserError(f"Unknown {kind} '{name}': {hint}")


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
