"""JAX settings of every test and of every process that a test starts; set here, before anything imports JAX."""

import os
from pathlib import Path

os.environ["JAX_DEBUG_KEY_REUSE"] = "1"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

_cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "urlrl" / "jax-tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
# Keep every program: a test's programs are small, and compiling them is most of what a test costs.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
