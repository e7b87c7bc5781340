"""JAX settings of every test and of every process that a test starts; set here, before anything imports JAX."""

import os
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


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run of `run_tools.TINY` that nobody disturbed. Change a copy of it."""
    from run_tools import TINY

    import urlrl

    return urlrl.pretrain(TINY, tmp_path_factory.mktemp("whole") / "run", quiet=True)
