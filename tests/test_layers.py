"""Which rooms may import which, and what importing the library loads."""

import ast
import subprocess
import sys
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
    "urlrl/runtime.py": set(),
    "urlrl/cells.py": set(),
    "urlrl/loading.py": {"errors", "files"},
    "urlrl/config.py": {"errors", "files", "types"},
    "urlrl/acting.py": {"types"},
    "urlrl/learners": {"types", "errors", "learners", "loading"},
    "urlrl/data": {"acting", "types", "errors", "files", "runtime", "data"},
    "envs": {"types", "errors", "envs", "loading"},
    "agents": {"types", "errors", "learners", "agents", "loading"},
    "urlrl/training": {
        "acting",
        "types",
        "errors",
        "files",
        "loading",
        "streams",
        "config",
        "cells",
        "data",
        "training",
    },
    "urlrl/runs": {
        "types",
        "errors",
        "loading",
        "streams",
        "config",
        "learners",
        "data",
        "envs",
        "agents",
        "training",
        "evaluation",
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
        "evaluation",
        "skills",
        "adaptation",
    },
    "urlrl/skills": {"types", "errors", "streams", "evaluation", "learners", "skills"},
    "urlrl/skills/policy.py": set(),
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
