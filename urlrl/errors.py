"""What a user did wrong, in one sentence; the command line prints it and exits with `exit_code`."""

import difflib
from collections.abc import Iterable
from math import inf

ECHO = 200  # characters of what was found that a sentence repeats


class UserError(Exception):
    """Bad input: the message names the thing, the value that was found and what was expected."""

    exit_code = 2


class TrainingDiverged(UserError):
    """A learner's state or metric is not finite; nothing was saved after the last good checkpoint."""

    exit_code = 3


class UnsupportedPrompt(UserError):
    """The agent cannot be asked this; the message names both."""


def check(name: str, value: float, low: float, high: float = inf, *, open_low: bool = False) -> None:
    """Refuse a number that is not finite, or not in [low, high]; with `open_low`, not in (low, high]."""
    in_range = (low < value if open_low else low <= value) and value <= high  # Never so for NaN.
    if not in_range or value == inf:
        number = "a finite number" if value == inf else "a number"
        limits = f"above {low}" if open_low else f"of at least {low}"
        limits += "" if high == inf else f" and at most {high}"
        raise UserError(f"{name} is {value}: expected {number} {limits}.")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse what is none of the choices."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}: expected one of {', '.join(map(repr, choices))}.")


def short(found: object) -> str:
    """What a file or a user says, on one line and cut to ECHO characters, to be repeated in a sentence."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(found))
    return text if len(text) <= ECHO else f"{text[:ECHO]}... ({len(text):,} characters)"


def reason(error: BaseException) -> str:
    """The first line of what an error says, to be put into a sentence."""
    strerror = error.strerror if isinstance(error, OSError) else None
    lines = str(strerror or error).splitlines()
    return short(lines[0].rstrip(".")) if lines and lines[0] else type(error).__name__


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is in no table: offers the nearest one, else lists them all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"expected one of: {', '.join(known)}."
    return UserError(f"Unknown {kind} '{name}': {hint}")
