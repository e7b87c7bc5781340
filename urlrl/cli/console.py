"""Where tables and sentences are printed."""

import sys

from rich.console import Console


def make_console(width: int = 200) -> Console:
    """A console that takes text as it is: names from files may hold what rich would take for markup. `width` is that of
    a file or a pipe."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else width)
