"""`urlrl agents`: a table of them."""

from rich.table import Table

from urlrl.cli.arguments import NoOptions, parse
from urlrl.cli.console import make_console


def main(argv: list[str]) -> None:
    parse(NoOptions, argv, "agents")
    from urlrl.verbs.agents import HEADINGS, list_agents

    table = Table(*HEADINGS, box=None, pad_edge=False)
    for row in list_agents():
        table.add_row(*row)
    make_console(240).print(table)
