"""Files that outlast a crash: written, forced to the disk, and only then given their names."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from uuid import uuid4

from daskconv.errors import DataError

# Only calls of `os` here: the tests count them, and end the process, or fill the disk, at each one.


def write_file(path: Path, content: bytes) -> None:
    """Write a new file; its contents are on the disk on return."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Force the names of a folder's files to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: str | PathLike[str], content: bytes) -> None:
    """Write a whole file beside ``path``, then put it in its place; raise DataError where that fails."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        write_file(temporary, content)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{target} cannot be written: {error.strerror}.") from None
