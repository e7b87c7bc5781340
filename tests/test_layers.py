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
    "urlrl/presets": {"types", "errors", "config", "learners", "agents", "presets"},
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


def test_import_loads_neither_jax_nor_numpy_nor_mujoco():
    code = "import urlrl, sys; assert not {'jax', 'numpy', 'mujoco'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


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
