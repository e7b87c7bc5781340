"""How many statements the package has, by room, without docstrings: what there is to read, however it is formatted.

python scripts/count_statements.py [CHECKOUT ...]
"""

import ast
import sys
from collections import Counter
from pathlib import Path

PLACES = ("urlrl", "agents", "envs")


def count(tree: ast.AST) -> int:
    """Statements, but for those that are a text alone."""
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.stmt))
    return sum(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in nodes)


def rooms(checkout: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for place in PLACES:
        for path in (checkout / place).rglob("*.py"):
            found[str(path.parent.relative_to(checkout))] += count(ast.parse(path.read_text()))
    return found


def main() -> None:
    counts = [rooms(Path(name)) for name in sys.argv[1:] or [Path(__file__).parent.parent]]
    for room in sorted(set().union(*counts)):
        print(f"{room:20}", *(f"{each[room]:7,}" for each in counts))
    print(f"{'all':20}", *(f"{each.total():7,}" for each in counts))


if __name__ == "__main__":
    main()
