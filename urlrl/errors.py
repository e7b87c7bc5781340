"""What a user did wrong, in one sentence; the command line prints it and exits with `exit_code`."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message names the thing, the value that was found and what was expected."""

    exit_code = 2


class TrainingDiverged(UserError):
    """A learner's state or metric is not finite; nothing was saved after the last good checkpoint."""

    exit_code = 3


class UnsupportedPrompt(UserError):
    """The agent cannot be asked this; the message names both."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is in no table: offers the nearest one, else lists them all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"expected one of: {', '.join(known)}."
    return UserError(f"Unknown {kind} '{name}': {hint}")
