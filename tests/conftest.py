"""JAX settings of every test and of every process that a test starts; set here, before anything imports JAX."""

import ctypes
import gc
import os
import resource
from functools import cache
from pathlib import Path

import pytest

os.environ["JAX_DEBUG_KEY_REUSE"] = "1"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

_cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "urlrl" / "jax-tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
# Keep every program: a test's programs are small, and compiling them is most of what a test costs.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@pytest.fixture(scope="session", autouse=True)
def config_home(tmp_path_factory):
    """The names that tests use are not remembered in the home of who runs them."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


def pytest_configure(config):
    """Compile quickly rather than well, but for the slow tests, which run long enough to gain from good programs."""
    if config.option.markexpr == "not slow":
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ.setdefault("XLA_FLAGS", flags)


# What glibc's allocator keeps of memory that was freed, hundreds of MB of each module, goes back to the system by this.
trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)
STATM = Path("/proc/self/statm")


@pytest.fixture(scope="module", autouse=True)
def free_memory(request):
    """Free what a module cached and compiled."""
    yield
    import jax

    for thing in vars(request.module).values():
        if isinstance(thing, type(cache(id))):
            thing.cache_clear()
    jax.clear_caches()
    gc.collect()
    trim(0)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Also between the tests of a large module."""
    if STATM.exists() and int(STATM.read_text().split()[1]) * resource.getpagesize() > 1.5e9:
        trim(0)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """A run of `run_tools.TINY` that nobody disturbed. Change a copy of it."""
    from run_tools import TINY

    import urlrl

    run = urlrl.pretrain(TINY, tmp_path_factory.mktemp("whole") / "run", quiet=True)

    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in run.rglob("[!.]*") if path.is_file()}

    before = files()
    yield run
    assert files() == before, "A test changed whole_run: expected it to change a copy."
