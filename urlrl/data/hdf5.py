"""HDF5 files of which nobody knows where they come from: no other file is read, and no more memory is taken than such a
file may claim (`urlrl.data.claims`).

An HDF5 file can name others, as links, as external storage or as parts of a virtual dataset. Then whoever converts it
would copy a file of their own machine into the dataset that they share.
"""

import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from urlrl.data.claims import FREE, check_size, reading
from urlrl.data.reading import numeric
from urlrl.errors import UserError, shown

DEFLATE_RATIO = 1032  # at most
GZIP = 1
FILTERS = {GZIP: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}  # none of them makes more of less, but gzip


def open_hdf5(path: Path) -> Any:
    """An open h5py.File.

    Raises:
        UserError: it cannot be read, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"Reading {path} needs the package h5py: pip install 'urlrl[data]'.") from error
    with reading(path):
        return h5py.File(path, "r")


def find(group: Any, key: str, where: Path | str) -> Any:
    """The dataset or group under a key of an open group, which may be a path; None if there is none.

    Raises:
        UserError: there is something, but not in this file: some part of the path is a link, or what it leads to is
            stored elsewhere. Nothing of that was opened.
    """
    import h5py

    with reading(f"{where}: '{key}'"):
        node = group
        for part in key.split("/"):
            if not isinstance(node, h5py.Group) or not node.id.links.exists(part.encode()):  # Neither follows a link.
                return None
            if node.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
                raise _elsewhere(where, key, f"is a link to {_target(node.id.links, part.encode())}")
            node = node[part]
        if isinstance(node, h5py.Dataset):
            if node.external:
                raise _elsewhere(where, key, f"is stored in {_files(name for name, *_ in node.external)}")
            if node.is_virtual:
                sources = _files(source.file_name for source in node.virtual_sources())
                raise _elsewhere(where, key, f"is put together of {sources}")
        return node


def array(group: Any, key: str, where: Path | str) -> Any:
    """The h5py.Dataset of numbers under a key; None if there is none.

    Raises:
        UserError: as `find`, or it holds no numbers, or its chunks are larger than the file may claim.
    """
    found = find(group, key, where)
    if found is None:
        return None
    with reading(f"{where}: '{key}'"):
        if not hasattr(found, "dtype"):
            raise ValueError("it is a group, not an array")
        numeric(where, key, found, found.ndim)
        _check_chunks(found, f"{where}: '{key}'")
    return found


def row_bytes(dataset: Any) -> int:
    return math.prod(dataset.shape[1:]) * dataset.dtype.itemsize


def all_bytes(dataset: Any) -> int:
    return math.prod(dataset.shape or ()) * dataset.dtype.itemsize


def file_size(group: Any) -> int:
    return Path(group.file.filename).stat().st_size


def _check_chunks(dataset: Any, what: str) -> None:
    """A chunk is read as a whole, whatever is asked of it; gzip fills it with whatever it holds, not with what it is
    said to hold."""
    if dataset.chunks is None:
        return
    limit = math.prod(dataset.chunks) * dataset.dtype.itemsize
    check_size(what, limit, file_size(dataset))
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    for code in filters:
        if code not in FILTERS or filters.count(code) > 1:
            raise ValueError(f"it has filters {filters}, not each of {', '.join(FILTERS.values())} at most once")
    if GZIP not in filters:
        return
    large: list[Any] = []
    dataset.id.chunk_iter(lambda chunk: large.append(chunk) if chunk.size * DEFLATE_RATIO > FREE else None)
    for chunk in large:
        _, content = dataset.id.read_direct_chunk(chunk.chunk_offset)
        if len(zlib.decompressobj().decompress(content, limit + 5)) > limit + 4:  # 4 are a checksum's.
            raise ValueError(f"a chunk of {chunk.size:,} bytes holds more than the {limit:,} that it is said to hold")


def _target(links: Any, name: bytes) -> str:
    """What a link that is not a hard one leads to."""
    found = links.get_val(name)
    parts = reversed(found) if isinstance(found, tuple) else [found]  # (file, path), or a path in this file
    return " of ".join(f"'{shown(part.decode(errors='replace'))}'" for part in parts)


def _files(names: Iterable[str]) -> str:
    return shown(", ".join(f"'{name}'" for name in dict.fromkeys(names)))


def _elsewhere(where: Path | str, key: str, what: str) -> UserError:
    return UserError(f"{where}: '{key}' {what}: expected the numbers themselves, in this file.")
