"""A user's own code by name, `module:name`, and whose word is enough to import it.

A name that the user gives, on the command line or in Python, is imported. A name that stands in a file is imported only
if the user has used it before, and only from the file that it came from then; docs/security.md has the rules. Who reads
a file asks `check_names` before the names in it are used.
"""

import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from urlrl.errors import UserError
from urlrl.files import write_json
from urlrl.schemes import SCHEMES

# Field of a file that names code -> the option that says the same name.
OPTIONS = {"env": "--env", "agent_name": "--agent"}


class Given(NamedTuple):
    """What the command line says of the files that it reads."""

    trust: bool  # every name in them
    names: Mapping[str, str]  # field of OPTIONS -> the name that the file must have there


_NOTHING = Given(trust=False, names={})
_given: ContextVar[Given] = ContextVar("given", default=_NOTHING)
_used: dict[str, set[str | None]] = {}  # name -> the files that it was imported from, in this process


def load_object(path: str, kind: str) -> Any:
    """What `module:name` refers to.

    Raises:
        UserError: as `load_module`, or the module has no such name.
    """
    module, name = load_module(path, kind), path.partition(":")[2]
    if not hasattr(module, name):
        raise UserError(f"Cannot import the {kind} '{path}': module '{module.__name__}' has no '{name}'.")
    return getattr(module, name)


def load_module(path: str, kind: str) -> Any:
    """The module of `module:name` or of `gym:module:id`. The working directory is on the import path if the module lies
    there, as with `python -m`. From now on files may name it too.

    Raises:
        UserError: a path, no such module, or it ends the program. What else the module raises passes through.
    """
    module = module_of(path)
    if not module:
        raise UserError(
            f"Cannot import the {kind} '{path}': expected 'module:name', a module such as 'my_agents', not a path."
        )
    is_ours = module.startswith("urlrl.")
    if not is_ours and os.getcwd() not in sys.path:  # A console script has its own folder on the path instead.
        file = file_of(path)
        if file is None or Path(file).is_relative_to(os.getcwd()):
            sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"Cannot import the {kind} '{path}': {error}.") from error
    except SystemExit as error:
        raise UserError(f"Cannot import the {kind} '{path}': module '{module}' raises SystemExit.") from error
    if not is_ours:
        trust(path)
    return loaded


def module_of(name: str) -> str | None:
    """The module that is imported for a name; None if there is none, as for the names of all that we ship."""
    first, _, rest = name.partition(":")
    if first in SCHEMES:  # Gymnasium imports the module of gym:module:id.
        module, colon, _ = rest.partition(":")
        return module if colon else None
    parts = first.replace("-", "_").split(".")
    is_module = all(part.isidentifier() for part in parts) and parts[-1] != "py"
    return first if is_module and rest.isidentifier() else None


# Whose word it is.


def check_names(data: Any, where: Path | str) -> None:
    """Refuse the content of a file if it names code that the user has not used, or other code than the command line.

    Args:
        data: the JSON in which names are about to be used.
        where: the file, for the message.

    Raises:
        UserError: it says what would be imported from where. Nothing was imported.
    """
    given = _given.get()
    for field, name in given.names.items():
        if (found := data.get(field)) != name:
            raise UserError(f"{where} has {field} {found!r}: expected '{name}', as {OPTIONS[field]} says.")
    names = sorted(names_in(data), key=lambda pair: pair[0] in OPTIONS)  # Of two fields, the one with an option counts.
    refused = {name: field for field, name in names if not is_trusted(name)}
    if refused:
        code = " and ".join(f"{name!r} ({_whence(name)})" for name in refused)
        options = [f"{OPTIONS[field]} {name!r}" for name, field in refused.items() if field in OPTIONS]
        same = f"{' '.join(options)} or " if len(options) == len(refused) else ""
        raise UserError(
            f"{where} names code that you have not used before: {code}. Nothing was imported: expected {same}--trust, "
            f"if you want it to run (in Python: urlrl.trust({next(iter(refused))!r}))."
        )


def _whence(name: str) -> str:
    """Where the code of a name that is not trusted comes from, in words."""
    known = _remembered().get(name)
    before = f"; what you used was in {known[-1]}" if known else ""
    return f"from {file_of(name) or 'no file that is found here'}{before}"


def is_trusted(name: str) -> bool:
    """Whether a file may name this: nothing is imported for it, or the user's word is known."""
    given = _given.get()
    if module_of(name) is None or given.trust or name in given.names.values():
        return True
    file = file_of(name)
    return file in _used.get(name, ()) or file in _remembered().get(name, ())


def names_in(data: Any) -> list[tuple[str, str]]:
    """(field, name) of every string in JSON for which a module would be imported. The path of a dataset is no name."""
    found, rest = [], [("", data)]
    while rest:
        field, value = rest.pop()
        if isinstance(value, str) and field != "data" and module_of(value) is not None:
            found.append((field, value))
        elif isinstance(value, dict):
            rest += [(f"{field}.{key}" if field else key, part) for key, part in value.items()]
        elif isinstance(value, list | tuple):
            rest += [(field, part) for part in value]
    return found


@contextmanager
def given(trust: bool, names: Mapping[str, str]) -> Iterator[None]:
    """In it, files are read under these words of the command line."""
    token = _given.set(Given(trust, names))
    try:
        yield
    finally:
        _given.reset(token)


def trust(name: str) -> None:
    """Let files name this code of yours, `module:name`, as long as it is in the file in which it is now. Each name that
    you use yourself is trusted in this way.

    Raises:
        UserError: nothing can be imported for such a name.
    """
    if module_of(name) is None:
        raise UserError(f"Cannot trust '{name}': expected 'module:name'.")
    file = file_of(name)
    if file not in _used.setdefault(name, set()):
        _used[name].add(file)
        _remember(name, file)


# Where a name's code is.


def file_of(name: str) -> str | None:
    """The file that would be imported for a name; None if there is none. Nothing is imported to find it, packages
    around the module neither. Links are not followed: a link elsewhere is another file."""
    module, file = module_of(name), None
    here = os.getcwd()
    places: Any = sys.path if here in sys.path else [here, *sys.path]
    parts = (module or "").split(".")
    for i in range(len(parts)):
        if not places:
            return None
        part = ".".join(parts[: i + 1])
        if part in sys.modules:
            loaded = sys.modules[part]
            file, places = getattr(loaded, "__file__", None), getattr(loaded, "__path__", None)
        elif i == 0:
            specs = (finder.find_spec(part, places) for finder in sys.meta_path)
            spec = next((spec for spec in specs if spec is not None), None)
            file = spec.origin if spec and spec.has_location else None
            places = spec.submodule_search_locations if spec else None
        else:
            file, places = _look(part, places)
    return os.path.abspath(file) if file else None


def _look(module: str, places: Any) -> tuple[str | None, list[str]]:
    """(file, folders of its submodules) of a module in these folders of its package. PathFinder needs the package to be
    imported, where the module is a folder without __init__.py."""
    portions: list[str] = []
    for place in places:
        finder = pkgutil.get_importer(place)
        spec = finder.find_spec(module) if finder else None
        if spec and spec.loader:
            return spec.origin, list(spec.submodule_search_locations or [])
        portions += (spec.submodule_search_locations or []) if spec else []
    return None, portions


# What is remembered from one process to the next.


def _memory() -> Path | None:
    """The file of the names that this user has used; None where there is no home."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))
    return home / "urlrl" / "trusted.json" if home.is_absolute() else None


def _remembered() -> dict[str, list[str]]:
    """Name -> files. What cannot be read is not remembered."""
    memory = _memory()
    try:
        known = json.loads(memory.read_text()) if memory else {}
        return {name: list(map(str, files)) for name, files in known.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _remember(name: str, file: str | None) -> None:
    """Without a file, or where nothing can be written, the user is asked again."""
    memory, known = _memory(), _remembered()
    if memory and file and file not in known.get(name, ()):
        known[name] = [*known.get(name, ()), file]
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(known, memory, indent=2)
