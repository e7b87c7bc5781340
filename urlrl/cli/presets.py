"""`urlrl presets`: a table of them."""

from rich.table import Table

from urlrl.cli.arguments import NoOptions, parse
from urlrl.cli.console import make_console


def main(argv: list[str]) -> None:
    parse(NoOptions, argv, "presets")
    from urlrl.presets import all_presets

    table = Table("agent", "preset", "environment", "steps", "settings from", "takes", box=None, pad_edge=False)
    for agent, presets in all_presets().items():
        for name, entry in presets.items():
            where = entry.config.env or "a dataset"
            table.add_row(agent, name, where, f"{entry.config.steps:,}", entry.source, entry.cost)
    make_console(240).print(table)
