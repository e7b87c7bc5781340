"""`urlrl doctor`: what was found of this installation, as a list, then problems and notes."""

import sys
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from urlrl.cli.arguments import NoOptions, parse
from urlrl.cli.console import make_console

if TYPE_CHECKING:
    from urlrl.doctor import Diagnosis


def main(argv: list[str]) -> None:
    parse(NoOptions, argv, "doctor")
    from urlrl.doctor import diagnose

    found = diagnose()
    show(found)
    if not found.ok:
        sys.exit(1)


def show(found: "Diagnosis") -> None:
    table = Table.grid(padding=(0, 3))
    for what, value in found.facts:
        table.add_row(Text(what, "dim"), Text(value))
    lines = [Text.assemble(("problem  ", "bold red"), sentence) for sentence in found.problems]
    lines += [Text.assemble(("note  ", "yellow"), sentence) for sentence in found.notes]
    if found.ok:
        lines.append(Text("No known problem.", "green"))
    make_console(80).print(table, Text(), *lines, sep="\n")
