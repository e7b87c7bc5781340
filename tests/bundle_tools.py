"""Damage to bundles, and bundles without the library: what the tests of both formats share."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from urlrl.skills import policy as runtime
from urlrl.skills.policy import CONFIG, OPS, WEIGHTS, SkillPolicy


def sign(folder: Path, config: dict | None = None) -> None:
    """State the right hashes, as someone would who wants a bad bundle to be loaded."""
    config = json.loads((folder / CONFIG).read_text()) if config is None else config
    config.pop("sha256", None)
    hashes = {WEIGHTS: hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(), CONFIG: runtime._digest(config)}
    (folder / CONFIG).write_text(json.dumps({**config, "sha256": hashes}))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refreshed(policy: SkillPolicy, folder: Path) -> Callable[[], Path]:
    """A fresh copy of a bundle, in one folder, at each call; `save_pretrained` would wait for the disk."""
    whole = contents(policy.save_pretrained(folder))

    def refresh() -> Path:
        for name, content in whole.items():
            (folder / name).write_bytes(content)
        return folder

    return refresh


LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    LEAF | st.sampled_from((10**400, 2**70, *OPS, "obs")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


def places(value: Any, path: tuple = ()) -> Any:
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def change_anywhere(config: dict, data: st.DataObject) -> None:
    """Any value at any place."""
    *path, last = data.draw(st.sampled_from([path for path in places(config) if path]))
    place = config
    for key in path:
        place = place[key]
    place[last] = data.draw(JSON)


def alone(code: str, *packages: str, folder: Path) -> str:
    """What Python code prints where nothing but the standard library and these packages can be imported."""
    blocked = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {{*sys.stdlib_module_names, *{packages!r}}}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Blocker())
"""
    done = subprocess.run([sys.executable, "-c", blocked + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
