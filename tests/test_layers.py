"""Which rooms may import which, that no imports run in a circle, and what importing the library loads."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import urlrl

ROOT = Path(urlrl.__file__).parent.parent
# room -> rooms of urlrl that it may import
ALLOWED = {
    "urlrl/types.py": {"errors"},
    "urlrl/errors.py": set(),
    "urlrl/files.py": {"errors"},
    "urlrl/streams.py": set(),
    "urlrl/runtime.py": {"errors"},
    "urlrl/cells.py": set(),
    "urlrl/schemes.py": set(),
    "urlrl/values.py": {"errors"},
    "urlrl/loading.py": {"errors", "files", "schemes"},
    "urlrl/renamed.py": {"errors", "files", "types"},
    "urlrl/config.py": {"errors", "renamed", "types"},
    "urlrl/acting.py": {"types"},
    "urlrl/learners": {"types", "errors", "learners", "loading"},
    "urlrl/data": {"acting", "types", "errors", "files", "runtime", "data"},
    "envs": {"types", "errors", "envs", "loading", "runtime", "schemes"},
    "agents": {"types", "errors", "learners", "agents", "loading"},
    "urlrl/presets": {"types", "errors", "config", "learners", "agents", "presets"},
    "urlrl/tasks": {"types", "errors", "loading", "envs", "tasks"},
    "urlrl/training": {
        "acting",
        "types",
        "errors",
        "files",
        "loading",
        "streams",
        "config",
        "renamed",
        "cells",
        "data",
        "training",
    },
    "urlrl/runs": {
        "types",
        "errors",
        "files",
        "loading",
        "streams",
        "config",
        "learners",
        "data",
        "envs",
        "agents",
        "training",
        "evaluation",
        "runs",
    },
    "urlrl/evaluation": {"acting", "types", "errors", "files", "streams", "config", "cells", "data", "evaluation"},
    "urlrl/adaptation": {
        "acting",
        "types",
        "errors",
        "files",
        "streams",
        "config",
        "learners",
        "data",
        "envs",
        "tasks",
        "evaluation",
        "skills",
        "adaptation",
    },
    "urlrl/skills": {"types", "errors", "streams", "evaluation", "learners", "skills", "tasks"},
    "urlrl/skills/policy.py": {"errors", "tasks"},  # rewards in words, where the library is there
}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "urlrl":
            rooms |= {node.module.split(".")[1]} if "." in node.module else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("urlrl.")}
    return rooms


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_lean_only_on_what_stands_below(room):
    place = ROOT / room
    for path in [place] if place.is_file() else place.rglob("*.py"):
        assert imported_rooms(path) <= ALLOWED[room], path


def test_no_agent_imports_another():
    for path in (ROOT / "agents").glob("[a-z]*.py"):
        assert "agents" not in imported_rooms(path), path


PLACES = {"urlrl": "urlrl", "agents": "urlrl.agents", "envs": "urlrl.envs"}  # folder of the tree -> installed as


def files_by_module() -> dict[str, Path]:
    found = {}
    for place, package in PLACES.items():
        for path in (ROOT / place).rglob("*.py"):
            parts = path.relative_to(ROOT / place).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


class Imports(ast.NodeVisitor):
    """The names that a file imports, those in functions too; not those for type checkers alone. Of `from a import b`
    this is a.b: whether b is a file or something in a, the caller knows."""

    def __init__(self, source: str):
        self.names: set[str] = set()
        self.visit(ast.parse(source))

    def visit_If(self, node: ast.If) -> None:
        is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in node.orelse if is_typing else ast.iter_child_nodes(node):
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.module and not node.level, "imports name the whole path"
        self.names |= {f"{node.module}.{alias.name}" for alias in node.names}


def imported_modules(source: str, modules: set[str]) -> set[str]:
    return {n if n in modules else n.rpartition(".")[0] for n in Imports(source).names} & modules


def find_circle(sources: dict[str, str]) -> list[str]:
    """Modules of which each is imported by the next, the first one twice; [] where there is no such circle."""
    try:
        TopologicalSorter({name: imported_modules(source, set(sources)) for name, source in sources.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_imports_run_in_a_circle():
    assert find_circle({name: path.read_text() for name, path in files_by_module().items()}) == []


def test_every_circle_is_found():
    below = {"urlrl.a": "", "urlrl.b": "from urlrl.a import thing", "urlrl.b.c": "import numpy\nimport urlrl.a"}
    assert find_circle(below) == []
    assert find_circle(below | {"urlrl.a": "if TYPE_CHECKING:\n    from urlrl.b import c"}) == []
    for back in (
        "import urlrl.b",
        "from urlrl.b import thing",
        "from urlrl.b import c",
        "from urlrl.b.c import thing",
        "def f():\n    from urlrl.b import thing",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import urlrl.b",
        "if sys.platform:\n    import urlrl.b",
    ):
        assert "urlrl.a" in find_circle(below | {"urlrl.a": back}), back


def test_only_what_starts_it_imports_the_command_line():
    sources = (path for room in ("urlrl", "agents", "envs") for path in (ROOT / room).rglob("*.py"))
    found = {str(path.relative_to(ROOT)) for path in sources if "cli" in imported_rooms(path)}
    assert {path for path in found if not path.startswith("urlrl/cli/")} == {"urlrl/__main__.py"}


def imports_rich(path: Path) -> bool:
    modules = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
        elif isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
    return any(module.split(".")[0] == "rich" for module in modules)


def test_verbs_return_what_the_command_line_draws():
    """Rich draws tables in urlrl/cli, and how far training or a pass over data has come in urlrl/training."""
    sources = (path for room in ("urlrl", "agents", "envs") for path in (ROOT / room).rglob("*.py"))
    found = {path.relative_to(ROOT) for path in sources if imports_rich(path)}
    assert Path("urlrl/cli/console.py") in found
    outside = {str(path) for path in found if path.parent != Path("urlrl/cli")}
    assert outside == {"urlrl/training/log.py", "urlrl/training/meter.py"}


@pytest.mark.parametrize("module", ["urlrl", "urlrl.cli"])
def test_import_loads_no_library(module):
    code = f"import {module}, sys; print(*sorted({{'jax', 'numpy', 'mujoco', 'rich', 'tyro'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_every_public_name_exists():
    for name in urlrl.__all__:
        assert getattr(urlrl, name) is not None
    with pytest.raises(AttributeError):
        urlrl.nothing  # noqa: B018


def test_agents_and_envs_have_one_name_each():
    import urlrl.agents
    import urlrl.envs

    assert Path(urlrl.agents.__file__).parent.name == "agents" and "agents" not in sys.modules
    assert Path(urlrl.envs.__file__).parent.name == "envs" and "envs" not in sys.modules
