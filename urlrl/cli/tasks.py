"""`urlrl tasks`: a table of them, and the names of the suites."""

from rich.table import Table

from urlrl.cli.arguments import NoOptions, parse
from urlrl.cli.console import make_console


def main(argv: list[str]) -> None:
    parse(NoOptions, argv, "tasks")
    from urlrl.adaptation.suite import URLB
    from urlrl.tasks.catalogue import TASKS
    from urlrl.verbs.evaluate_suite import SUITES

    table = Table("task", "acted out in", "for agents pretrained on", box=None, pad_edge=False)
    for name, make in TASKS.items():
        task = make()
        table.add_row(name, task.env, ", ".join(task.runs_on))
    console = make_console()
    console.print(table)
    shown = [name for name in SUITES if not name.startswith("ogbench-v1/")]
    count = len(SUITES) - len(shown)
    console.print(
        f"\nSuites of `urlrl evaluate RUN --suite`: {', '.join(shown)}, and {count} as ogbench-v1/antmaze-medium"
    )
    console.print(f"Suites of `urlrl adapt RUN --suite`: {', '.join(URLB)}")
