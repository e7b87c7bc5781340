"""`urlrl doctor`: what is installed, what it runs on, and what is known not to work together."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

from urlrl.errors import UserError
from urlrl.evaluation.video import find_gl
from urlrl.runtime import check_backend, compilation_cache, usable_cores

PACKAGES = (
    "urlrl", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "gymnasium", "mujoco", "dm_control",
    "orbax-checkpoint", "safetensors", "tyro", "rich", "tensorboard", "matplotlib", "pillow",
)  # fmt: skip
GPU_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")


@dataclass(frozen=True)
class KnownBad:
    """Versions that do not work: every package named in `versions` is installed at such a version."""

    versions: Mapping[str, str]  # package -> version specifier
    problem: str  # what goes wrong
    remedy: str  # what to do

    def matches(self, installed: Mapping[str, str]) -> bool:
        return all(
            name in installed and SpecifierSet(bad).contains(installed[name], prereleases=True)
            for name, bad in self.versions.items()
        )


KNOWN_BAD = (
    KnownBad(
        {"mujoco": ">=4", "dm_control": "<=1.0.50"},
        "dm_control reads flex_vertedge, a field that MuJoCo 4 no longer has, so no dmc: environment loads",
        "pip install 'mujoco>=3.17,<4'",
    ),
    KnownBad({"mujoco": "<3.17"}, "urlrl is tested with MuJoCo 3.17", "pip install 'mujoco>=3.17,<4'"),
    KnownBad({"jax": "<0.10"}, "urlrl uses names that JAX has since 0.10", "pip install -U 'jax>=0.10'"),
    KnownBad({"flax": "<0.12"}, "flax before 0.12 does not know JAX 0.10", "pip install -U 'flax>=0.12'"),
    KnownBad({"numpy": "<2"}, "JAX 0.10 and MuJoCo 3.17 are built for NumPy 2", "pip install -U 'numpy>=2'"),
    KnownBad(
        {"gymnasium": "<1.4"},
        "vector environments before 1.4 differ in how a reset names its lanes",
        "pip install -U 'gymnasium[mujoco]>=1.4'",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Diagnosis:
    """What was found."""

    facts: tuple[tuple[str, str], ...]  # (what, value)
    problems: tuple[str, ...]  # sentences: something will fail
    notes: tuple[str, ...]  # sentences: something is slower or left out

    @property
    def ok(self) -> bool:
        return not self.problems


def diagnose() -> Diagnosis:
    """Look at this installation; takes a few seconds, for JAX and a GL backend are started. Raises nothing: what does
    not start is a problem of the diagnosis."""
    installed = installed_versions((*PACKAGES, *GPU_PLUGINS))
    facts = [("Python", platform.python_version()), ("Platform", platform.platform())]
    facts += [(name, installed.get(name, "not installed")) for name in PACKAGES]
    facts += [(name, installed[name]) for name in GPU_PLUGINS if name in installed]
    problems, notes = version_problems(installed), []
    for look in (_look_at_jax, _look_at_mujoco, _look_at_gl, _look_at_cache):
        more_facts, more_problems, more_notes = look()
        facts += more_facts
        problems += more_problems
        notes += more_notes
    return Diagnosis(tuple(facts), tuple(problems), tuple(notes))


def installed_versions(names: tuple[str, ...]) -> dict[str, str]:
    """name -> version, for those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def version_problems(installed: Mapping[str, str]) -> list[str]:
    """Sentences about packages that are missing or known not to work together."""
    problems = [f"{name} is not installed: pip install {name}." for name in PACKAGES if name not in installed]
    for bad in KNOWN_BAD:
        if bad.matches(installed):
            have = " with ".join(f"{name} {installed[name]}" for name in bad.versions)
            problems.append(f"{have}: {bad.problem}. Do: {bad.remedy}")
    for plugin in GPU_PLUGINS:
        if plugin in installed and "jaxlib" in installed and installed[plugin] != installed["jaxlib"]:
            extra = plugin.split("-")[1]
            problems.append(
                f"{plugin} {installed[plugin]} with jaxlib {installed['jaxlib']}: JAX leaves the GPU alone unless both "
                f"are of one version. Do: pip install -U 'jax[{extra}]'"
            )
    return problems


# Each of these returns facts, problems and notes.
Found = tuple[list[tuple[str, str]], list[str], list[str]]


def _look_at_jax() -> Found:
    try:
        import jax

        check_backend()
        backend, devices = jax.default_backend(), jax.devices()
    except UserError as error:
        return [("JAX backend", "none")], [str(error)], []
    except (ImportError, RuntimeError, AttributeError) as error:
        return [("JAX backend", "none")], [f"JAX does not start: {_first_line(error)}"], []
    facts = [("JAX backend", backend), ("JAX devices", ", ".join(str(device) for device in devices))]
    if backend == "cpu" and Path("/proc/driver/nvidia/version").exists():
        return (
            facts,
            [],
            ["There is an NVIDIA driver, but JAX runs on the CPU: pip install -U 'jax[cuda12]' to use the GPU."],
        )
    return facts, [], []


def _look_at_mujoco() -> Found:
    try:
        import mujoco  # noqa: F401 - it loads what MUJOCO_GL names
    except (ImportError, RuntimeError, AttributeError) as error:
        hint = f" MUJOCO_GL is '{os.environ['MUJOCO_GL']}': unset it." if "MUJOCO_GL" in os.environ else ""
        return [], [f"MuJoCo does not import: {_first_line(error)}.{hint}"], []
    return [("Usable cores", str(usable_cores()))], [], []


def _look_at_gl() -> Found:
    gl = find_gl()
    if gl:
        return [("Rendering", f"MUJOCO_GL={gl}")], [], []
    note = (
        "No GL backend renders off screen, so reports have no video; everything else works. On Debian and Ubuntu: "
        "apt-get install libegl1 libgl1-mesa-dri, or libosmesa6."
    )
    return [("Rendering", "none")], [], [note]


def _look_at_cache() -> Found:
    folder = compilation_cache()
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    facts = [("Compilation cache", str(folder))]
    if parent.is_dir() and os.access(parent, os.W_OK):
        return facts, [], []
    return facts, [], [f"{parent} is not a writable folder, so every run compiles anew: set JAX_COMPILATION_CACHE_DIR."]


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
