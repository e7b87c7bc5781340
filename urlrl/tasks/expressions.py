"""Rewards as text: arithmetic on named numbers.

The text is parsed, never run: what is not on the lists below is refused, and what is left is a tree of NumPy calls.
"""

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import numpy as np

from urlrl.errors import UserError

MAX_LENGTH = 1000  # characters
MAX_DEPTH = 50  # operations inside each other; a sum of n terms is n deep
MAX_EXPONENT = 8

BINARY = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power}
COMPARISONS = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip


def _where(condition: Any, then: Any, otherwise: Any) -> Any:
    return np.where(condition != 0, then, otherwise)


# Name -> the function, and how many arguments it takes; None is two or more.
FUNCTIONS: dict[str, tuple[Callable[..., Any], int | None]] = {
    "abs": (np.abs, 1),
    "clip": (lambda x, low, high: np.minimum(np.maximum(x, low), high), 3),
    "cos": (np.cos, 1),
    "exp": (np.exp, 1),
    "log": (np.log, 1),
    "max": (lambda *values: reduce(np.maximum, values), None),
    "min": (lambda *values: reduce(np.minimum, values), None),
    "sin": (np.sin, 1),
    "sqrt": (np.sqrt, 1),
    "tanh": (np.tanh, 1),
    "where": (_where, 3),
}
GRAMMAR = (
    f"numbers, names, + - * / and ** (a number up to {MAX_EXPONENT}), comparisons, and, or, not, `a if c else b`, and "
    f"{' '.join(FUNCTIONS)}"
)


class Part(NamedTuple):
    """A piece of an expression: a number, a name, or a function of further pieces."""

    text: str  # as the user wrote it
    what: np.float64 | str | Callable[..., Any]
    parts: tuple["Part", ...] = ()

    def value(self, values: Mapping[str, np.ndarray]) -> Any:
        """float64, of the shape of the values that it uses."""
        if isinstance(self.what, str):
            return values[self.what]
        if isinstance(self.what, np.float64):
            return self.what
        return np.asarray(self.what(*(part.value(values) for part in self.parts)), np.float64)


@dataclass(frozen=True)
class Expression:
    """A reward; `parse` makes it."""

    text: str
    names: tuple[str, ...]  # those that it uses, at least one
    root: Part

    def __call__(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """values: (n,) by name, for at least `names`. Returns (n,) finite float64; a comparison is 0 or 1.

        Raises:
            UserError: it is not finite somewhere.
        """
        columns = {name: np.asarray(values[name], np.float64) for name in self.names}
        shape = columns[self.names[0]].shape
        with np.errstate(all="ignore"):  # What is not finite in the end is said below.
            result = np.array(np.broadcast_to(self.root.value(columns), shape))
            if not np.isfinite(result).all():
                self._refuse(columns, result)
        return result

    def _refuse(self, columns: dict[str, np.ndarray], result: np.ndarray) -> NoReturn:
        """Name the innermost piece that spoils the first result that is not finite, and what it was made from."""
        bad = ~np.isfinite(result)
        row = {name: column[bad][0] for name, column in columns.items()}
        part = self.root
        while spoilt := [piece for piece in part.parts if not np.isfinite(piece.value(row))]:
            part = spoilt[0]
        given = ", ".join(f"{name} = {row[name]:.4g}" for name in sorted(_names(part)))
        raise UserError(
            f"Reward '{self.text}' is not finite in {bad.sum():,} of {bad.size:,} states: {part.text} is "
            f"{float(part.value(row))}{f' where {given}' if given else ''}."
        )


def parse(text: str, names: Iterable[str]) -> Expression:
    """The reward that `text` describes, of numbers called `names`.

    Raises:
        UserError: it is not one expression of what `GRAMMAR` lists, uses no name or an unknown one, or is too long.
    """
    text, known = text.strip(), sorted(names)
    if len(text) > MAX_LENGTH:
        raise UserError(f"The reward has {len(text):,} characters: expected at most {MAX_LENGTH:,}.")
    try:
        with warnings.catch_warnings():  # Python's own, about code: the text is none.
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"Reward {_short(text)} is not one expression: expected {GRAMMAR}.") from error
    root = _Reader(text, known).read(tree, MAX_DEPTH)
    used = tuple(sorted(_names(root)))
    if not used:
        raise UserError(f"Reward {_short(text)} is the same everywhere: expected one of {', '.join(known)} in it.")
    return Expression(text, used, root)


@dataclass(frozen=True)
class _Reader:
    text: str
    known: list[str]

    def read(self, node: ast.AST, depth: int) -> Part:
        """The piece that a node stands for. `depth`: how many may still be inside each other."""
        if depth == 0:
            raise UserError(f"Reward {_short(self.text)} is nested too deeply: expected at most {MAX_DEPTH} levels.")

        def piece(function: Callable[..., Any], *nodes: ast.AST) -> Part:
            return Part(self._source(node), function, tuple(self.read(inner, depth - 1) for inner in nodes))

        match node:
            case ast.Constant(int() | float() as value) if not isinstance(value, bool):
                return Part(self._source(node), self._number(node, value))
            case ast.Name(name):
                return self._name(name)
            case ast.UnaryOp(ast.USub(), inner):
                return piece(np.negative, inner)
            case ast.UnaryOp(ast.UAdd(), inner):
                return self.read(inner, depth - 1)
            case ast.UnaryOp(ast.Not(), inner):
                return piece(lambda x: np.equal(x, 0), inner)
            case ast.BinOp(left, op, right) if type(op) in BINARY:
                if isinstance(op, ast.Pow):
                    self._check_exponent(right)
                return piece(BINARY[type(op)], left, right)
            case ast.BoolOp(op, inner):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return piece(lambda *values: reduce(join, (np.not_equal(value, 0) for value in values)), *inner)
            case ast.Compare(left, ops, rights) if all(type(op) in COMPARISONS for op in ops):
                return piece(_chain([COMPARISONS[type(op)] for op in ops]), left, *rights)
            case ast.IfExp(condition, then, otherwise):
                return piece(_where, condition, then, otherwise)
            case ast.Call(ast.Name(name), arguments, []):
                return piece(self._function(name, len(arguments)), *arguments)
        raise UserError(f"The reward has {_short(self._source(node))} in it: expected only {GRAMMAR}.")

    def _source(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.text, node) or self.text

    def _number(self, node: ast.AST, value: float) -> np.float64:
        try:
            number = np.float64(value)
        except OverflowError:  # An integer that no float can hold.
            number = np.float64("inf")
        if not np.isfinite(number):
            raise UserError(f"The reward has the number {_short(self._source(node))}: expected one below 1.8e308.")
        return number

    def _name(self, name: str) -> Part:
        if name not in self.known:
            raise UserError(f"Unknown name {_short(name)} in the reward: {_choices(name, self.known)}.")
        return Part(name, name)

    def _function(self, name: str, count: int) -> Callable[..., Any]:
        if name not in FUNCTIONS:
            raise UserError(f"Unknown function {_short(name)} in the reward: {_choices(name, FUNCTIONS)}.")
        function, expected = FUNCTIONS[name]
        if count != expected and (expected is not None or count < 2):
            wanted = "at least 2" if expected is None else expected
            raise UserError(f"The reward's {name}(...) has {count} argument(s): expected {wanted}.")
        return function

    def _check_exponent(self, node: ast.AST) -> None:
        match node:
            case ast.Constant(int() | float() as size) | ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as size)):
                if not isinstance(size, bool) and size <= MAX_EXPONENT:
                    return
        raise UserError(
            f"The reward has the exponent {_short(self._source(node))}: expected a number up to {MAX_EXPONENT}."
        )


def _chain(compare: list[Callable[[Any, Any], Any]]) -> Callable[..., Any]:
    """`a < b <= c` is `a < b and b <= c`."""
    return lambda *values: reduce(np.logical_and, (f(a, b) for f, (a, b) in zip(compare, pairwise(values))))


def _names(part: Part) -> set[str]:
    if isinstance(part.what, str):
        return {part.what}
    return set().union(*(_names(piece) for piece in part.parts))


def _choices(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? There are" if near else "expected one of"
    return f"{hint} {', '.join(known)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
