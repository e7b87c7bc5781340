"""How much memory a file may ask for, and what reads NumPy's formats without asking for more.

A header of a few bytes can claim any shape, and deflate stores zeros in a thousandth of their size. So what a file
claims is compared with the file before memory is taken: what is held of a file at one time (an episode, a block of
rows, a chunk) may be RATIO times as large as the whole file, and FREE bytes in any case.

Why 100 times: float32 observations of simulators compress to about 9/10 of their size, integer positions on a grid to
1/15, and one-hot positions on a grid of 100 cells to 1/140 (as float64 to 1/230). Columns such as terminals, and
rewards that are all zero, do compress 1,000 times. All of these are read, as an episode of them is small beside FREE.
"""

import fnmatch
import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from urlrl.errors import UserError, reason

RATIO = 100
FREE = 64 * 2**20  # bytes that any file may ask for
PER_ROW = 8  # bytes that a row costs at least: where its episode ends is held for all rows
BLOCK = 65536  # rows that are read at once, where rows are numbers
DIMENSIONS = 32  # of an array, at most
LONGEST = 2**14  # bytes of a header; NumPy refuses 10,000

# What NumPy, zipfile and h5py raise at damaged files; a damaged shape asks for any amount of memory.
UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, RuntimeError, MemoryError,
    OverflowError, SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

# Names of files that other programs leave in folders -> which.
STRAY = {
    "._*": "macOS",
    ".DS_Store": "macOS",
    "Thumbs.db": "Windows",
    "desktop.ini": "Windows",
}
# How files begin that are not what their name says -> what they are.
BEGINNINGS = {
    b"version https://git-lfs": "is a pointer of Git LFS: expected the file itself, which `git lfs pull` gets",
    b"<!doctype html": "is a web page: expected the file itself",
    b"<html": "is a web page: expected the file itself",
}


@contextmanager
def reading(file: Path | str) -> Iterator[None]:
    """Whatever goes wrong inside is a UserError that names the file, and what it is if that is known."""
    try:
        yield
    except UNREADABLE as error:
        known = what_it_is(file) if isinstance(file, Path) and file.is_file() else ""
        raise UserError(f"{file} {known or f'cannot be read: {reason(error)}'}.") from error


def stray(file: Path) -> str:
    """Which program leaves files of this name in folders of data; "" if none is known to."""
    return next((who for name, who in STRAY.items() if fnmatch.fnmatchcase(file.name, name)), "")


def what_it_is(file: Path) -> str:
    """The end of a sentence about a file that is not what its name says; "" if that is not known."""
    if who := stray(file):
        return f"is a file of {who}: expected one of data"
    try:
        with open(file, "rb") as opened:
            start = opened.read(32).lower()
    except OSError:
        return ""
    return "is empty" if not start else next((what for mark, what in BEGINNINGS.items() if start.startswith(mark)), "")


def check_size(what: Path | str, claimed: int, size: int) -> None:
    """Refuse what is out of proportion to the file: `claimed` bytes, held at one time, of a file of `size` bytes."""
    if claimed > max(FREE, RATIO * size):
        raise UserError(
            f"{what} would take {claimed:,} bytes of memory at once, and the file has {size:,}: expected at most "
            f"{RATIO} times the file's size; if the data is right, save it without compression."
        )


class Header(NamedTuple):
    """What stands at the beginning of an array in NumPy's format."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: Any) -> Header:
    """The header of an array, from an io.BufferedReader with a buffer of LONGEST bytes; the file is then at the first
    number. Raises ValueError, or what else NumPy raises."""
    start = io.BytesIO(file.peek(LONGEST))  # No more: a header claims its own length too.
    version = np.lib.format.read_magic(start)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format is {version}, not (1, 0) or (2, 0)")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header = Header(*read(start))
    file.read(start.tell())
    if header.dtype.hasobject:
        raise ValueError("it holds Python objects, which could run code")
    if len(header.shape) > DIMENSIONS or min(header.shape, default=0) < 0:
        raise ValueError(f"its shape is {header.shape}")
    return header


def map_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, mapped and not loaded.

    Raises:
        UserError: it is no such file, or its header claims more than the file has.
    """
    with reading(path):
        with open(path, "rb", buffering=LONGEST) as file:
            header = read_header(file)
            stored = path.stat().st_size - file.tell()
        if header.nbytes > stored:
            raise ValueError(f"its header claims {header.nbytes:,} bytes of numbers, and the file has {stored:,}")
        return np.lib.format.open_memmap(path, mode="r")


class Archive:
    """The arrays of an .npz file, to be read from the front without loading them."""

    def __init__(self, path: Path):
        self.path = path
        with reading(path):
            self.file = zipfile.ZipFile(path)
            for entry in self.file.infolist():  # Its name stands in two places, of which no checksum knows.
                self.file.open(entry).close()
            self.size = path.stat().st_size
        self.keys = [name.removesuffix(".npy") for name in self.file.namelist() if name.endswith(".npy")]

    def load(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole arrays."""
        streams = {key: Stream(self, key) for key in keys}
        check_size(self.path, sum(stream.header.nbytes for stream in streams.values()), self.size)
        return {key: stream.whole() for key, stream in streams.items()}


class Stream:
    """One array of an archive."""

    def __init__(self, archive: Archive, key: str):
        self.where = f"{archive.path}: '{key}'"
        with reading(self.where):
            entry = archive.file.getinfo(f"{key}.npy")
            self.file = io.BufferedReader(archive.file.open(entry), LONGEST)  # type: ignore[type-var]
            self.header = read_header(self.file)
            stored = entry.file_size - self.file.tell()
            if self.header.nbytes != stored:
                raise ValueError(f"its header claims {self.header.nbytes:,} bytes of numbers, and {stored:,} are there")
        self.shape = self.header.shape
        self.row = math.prod(self.shape[1:]) * self.header.dtype.itemsize  # bytes

    def take(self, rows: int) -> np.ndarray:
        """The next rows."""
        with reading(self.where):
            if self.header.fortran and len(self.shape) > 1:
                raise ValueError("its columns are stored one after the other; save it again from a C-contiguous array")
            return self._read(int(rows) * self.row).reshape(int(rows), *self.shape[1:])

    def whole(self) -> np.ndarray:
        with reading(self.where):
            values = self._read(self.header.nbytes).reshape(self.shape, order="F" if self.header.fortran else "C")
        self.finish()
        return values

    def _read(self, count: int) -> np.ndarray:
        content = self.file.read(count) if count else b""
        if len(content) != count:
            raise ValueError("it ends too early")
        return np.frombuffer(content, self.header.dtype)

    def finish(self) -> None:
        """Read past the last row, which compares the checksum."""
        with reading(self.where):
            if self.file.read(1):
                raise ValueError("it is longer than its shape says")
