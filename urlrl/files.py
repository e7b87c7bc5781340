"""Files that are whole or absent."""

import os
from contextlib import suppress
from pathlib import Path

from urlrl.errors import UserError


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


def check_folder_of(file: Path | str | None) -> None:
    """Refuse, before the work, a file whose folder is not there; None is no file."""
    if file is not None and not Path(file).parent.is_dir():
        raise UserError(f"Cannot write {file}: there is no folder {Path(file).parent}.")
