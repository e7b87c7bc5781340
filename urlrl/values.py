"""Values that a user writes as text: numbers, lists of numbers, True, False and None."""

from contextlib import suppress
from typing import Any

from urlrl.errors import UserError, shown

MANY = 1_000  # numbers of a list
DIGITS = 18  # of a number: Python refuses to read thousands


def literal(text: str) -> Any:
    """A number, True, False or None, where the text is one; else the text."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def number(option: str, text: str) -> int:
    """A whole number. Raises UserError for anything else."""
    if not _is_number(text):
        raise UserError(f"Option '{option}' is '{shown(text)}': expected a whole number.")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= DIGITS


def number_list(option: str, text: str) -> list[int]:
    """'0..4' -> [0, 1, 2, 3, 4]; '0,3' -> [0, 3]; '2' -> [2]. Raises UserError for anything else."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        if not _is_number(first) or (dots and not _is_number(last)) or (dots and int(last) < int(first)):
            raise UserError(f"Option '{option}' is '{shown(text)}': expected whole numbers, as in 0..4 or 0,3.")
        if dots and int(last) - int(first) >= MANY:
            raise UserError(f"Option '{option}' is '{shown(text)}': expected at most {MANY} numbers.")
        numbers += range(int(first), int(last if dots else first) + 1)
    return numbers
