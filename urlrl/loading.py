"""A user's own code by name: `module:name`."""

import importlib
import os
import sys
from typing import Any

from urlrl.errors import UserError


def load_object(path: str, kind: str) -> Any:
    """What `module:name` refers to; the working directory is on the import path, as with `python -m`.

    Raises:
        UserError: a path, no such module, or it has no such name. What the module itself raises passes through.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise UserError(f"Cannot import the {kind} '{path}': expected 'module:name'.")
    if "/" in module or "\\" in module or "" in module.split(".") or module.endswith(".py"):
        raise UserError(
            f"Cannot import the {kind} '{path}': expected 'module:name', a module such as 'my_agents', not a path."
        )
    # A console script has its own folder on the path instead. The library itself is never looked for there.
    if not module.startswith("urlrl.") and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"Cannot import the {kind} '{path}': {error}.") from error
    if not hasattr(loaded, name):
        raise UserError(f"Cannot import the {kind} '{path}': module '{module}' has no '{name}'.")
    return getattr(loaded, name)
