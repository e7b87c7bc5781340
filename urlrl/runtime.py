"""Where a process runs: versions, and the folder in which compiled programs are kept."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from urlrl.errors import UserError, shown

VERSIONED = ("urlrl", "jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "mujoco-mjx", "gymnasium", "dm_control")


def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on; and what they run on: the cores that this process may
    use, JAX's backend, its devices and the flags that it was given."""
    import jax

    found = {"python": sys.version.split()[0]}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    devices = jax.devices()
    flags = {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_DEFAULT_MATMUL_PRECISION") if name in os.environ}
    place = {"backend": jax.default_backend(), "devices": f"{len(devices)} x {devices[0].device_kind}"}
    return found | place | {"cores": str(usable_cores())} | flags


def usable_cores() -> int:
    """As many as this process may run on; XLA makes no more threads than NPROC says, where it is given."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    given = os.environ.get("NPROC", "")
    return min(cores, int(given)) if given.isdecimal() and int(given) else cores


def threads_divided(processes: int) -> dict[str, str]:
    """The environment variables that give each of several processes its share of the threads."""
    threads = str(max(1, usable_cores() // processes))
    return {"NPROC": threads, "OMP_NUM_THREADS": threads}


def made_elsewhere(path: Path, before: dict[str, str]) -> str:
    """Says which versions, devices or cores differ from those that made the run in `path`; "" if none does that its
    numbers may depend on. XLA shares out large matrix products over the cores, and rounds by how it does."""
    now = versions()
    names = [name for name in (*VERSIONED, "backend", "devices", "cores") if name in before]
    changed = [f"{name} {before[name]} is now {now[name]}" for name in names if before[name] != now[name]]
    if not changed:
        return ""
    return (
        f"{path} was made under other conditions: {', '.join(changed)}. It need not end as one that was never stopped."
    )


def cache_folder() -> Path:
    """This user's own folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "urlrl"


def compilation_cache() -> Path:
    """The folder in which JAX keeps compiled programs between runs."""
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or cache_folder() / "jax")


def check_backend() -> None:
    """Start JAX. Raises UserError where JAX_PLATFORMS names a backend that it cannot start."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # The latter where none of the backends that it knows has a device.
        if not (asked := os.environ.get("JAX_PLATFORMS")):
            raise
        raise UserError(
            f"JAX cannot start on '{shown(asked)}', as JAX_PLATFORMS says: expected a backend that is installed here, "
            "such as cpu."
        ) from error


def enable_compilation_cache() -> None:
    """Keep compiled programs between runs: the first thing that a verb does. Raises UserError as `check_backend`."""
    import jax

    check_backend()
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
