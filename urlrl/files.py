"""Files and folders that are whole or absent, JSON that is what it should be, and hashes of files."""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from urlrl.errors import UserError, shown

MAX_DEPTH = 50  # of nested JSON: what this library writes has under ten levels
REMEMBERED_BYTES = 2**26  # of a file whose hash is remembered: a smaller one is hashed in a tenth of a second
SETTLED_NS = 2 * 10**9  # since a file's last change, before its hash is remembered
KINDS = {
    dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number", bool: "true or false",
}  # fmt: skip


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or not there, also after a power cut. An OSError names `path`."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which gets its name at the end: it is whole or not there.

    Raises:
        UserError: it cannot be written.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(folder)
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror or error}; nothing was kept.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(value: Any, *files: Path | str | None, indent: int = 1) -> None:
    """Write JSON into each of these files, as `write_atomically` does; None is no file."""
    content = json.dumps(value, indent=indent).encode()
    for file in files:
        if file is not None:
            write_atomically(Path(file), content)


def check_folder_of(file: Path | str | None) -> None:
    """Refuse, before the work, a file whose folder is not there; None is no file."""
    if file is not None and not Path(file).parent.is_dir():
        raise UserError(f"Cannot write {file}: there is no folder {Path(file).parent}.")


# JSON.


def read_json(path: Path, shape: Any = dict, **absent: Any) -> Any:
    """The content of a JSON file.

    Args:
        shape: see `check_shape`.
        absent: what keys hold that an older version did not write.

    Raises:
        UserError: the file cannot be read, is no JSON or is of another shape; the message names it.
    """
    try:
        value = parse_json(path.read_bytes())
        if absent and isinstance(value, dict):
            value = absent | value
        check_shape(value, shape)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    return value


def parse_json(content: bytes) -> Any:
    """What JSON says. Raises ValueError, also where a number is not finite or too large and where it is nested too
    deeply."""
    try:
        value = json.loads(content.decode(), parse_constant=_real, parse_float=_real, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    level, depth = [value], 0
    while level:
        depth += 1
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [value for values in inner for value in values]
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return value


def _real(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it has the number {shown(text)}, which is not finite")
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) >= 2**63:
        raise ValueError(f"it has the number {shown(text)}, which is beyond 64 bits")
    return number


def check_shape(value: Any, shape: Any, where: str = "it") -> None:
    """Compare JSON with a shape: a type; a text, which must be that text; `(shape,)`, which may also be null;
    `[shape]`, a list of such; `{key: shape}`, an object that has these keys and may have others; or `{str: shape}`, an
    object of any keys.

    Raises:
        ValueError: they differ; the message names the key, what was found and what was expected.
    """
    if isinstance(shape, tuple):
        if value is not None:
            check_shape(value, shape[0], where)
        return
    if isinstance(shape, str):
        if value != shape:
            raise ValueError(f"{where} is {shown(repr(value), 60)}, not {shape!r}")
        return
    kind = shape if isinstance(shape, type) else type(shape)
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {shown(repr(value), 60)}, not {KINDS[kind]}")
    inside = "" if where == "it" else f"{where}."
    if isinstance(shape, list):
        for number, one in enumerate(value):
            check_shape(one, shape[0], f"{inside}{number}")
    elif isinstance(shape, dict) and str in shape:
        for name, one in value.items():
            check_shape(one, shape[str], f"{inside}{name}")
    elif isinstance(shape, dict):
        for name, inner in shape.items():
            if name not in value:
                raise ValueError(f"{inside}{name} is missing")
            check_shape(value[name], inner, f"{inside}{name}")


# Hashes.


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: Path, memory: Path) -> str:
    """`sha256` of a file that may be large: a file that is as it was when it was last hashed is not read again.

    It is taken to be so where its size, inode and times are the same. The time of the last change of an inode (ctime)
    is among them, which no program can set. A file that changed within the last two seconds is not remembered: it
    could change again at the same time by the clock of its disk. Damage below the file system, which changes no time,
    is not seen here: `urlrl data validate` reads every byte.

    Args:
        memory: a JSON file of this user's own, which is written here.
    """
    before = path.stat()
    if before.st_size < REMEMBERED_BYTES:
        return sha256(path)
    key, stamp = str(path.resolve()), [before.st_size, before.st_ino, before.st_mtime_ns, before.st_ctime_ns]
    try:
        known = read_json(memory, {str: {"stamp": [int], "sha256": str}})
    except UserError:  # There is none yet, or it is damaged: it is made anew.
        known = {}
    if key in known and known[key]["stamp"] == stamp:
        return known[key]["sha256"]
    settled = time.time_ns() - before.st_ctime_ns > SETTLED_NS
    digest = sha256(path)
    after = path.stat()
    if settled and stamp == [after.st_size, after.st_ino, after.st_mtime_ns, after.st_ctime_ns]:
        kept = {name: one for name, one in known.items() if Path(name).exists()}
        _remember(memory, {**kept, key: {"stamp": stamp, "sha256": digest}})
    return digest


def _remember(memory: Path, known: dict[str, Any]) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(known, memory)
    except OSError:  # Without a memory every call reads the file.
        pass
