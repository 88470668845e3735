"""CIFAR-10 in the user's cache folder: found there, or downloaded once and checked."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO

from daskconv.datasets.assemble import because
from daskconv.errors import DataError

ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
ARCHIVE = "cifar-10-python.tar.gz"
KNOWN = (ARCHIVE, "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-batches-bin")
MOST_BYTES = 2**28
SECONDS = 30


def cached_cifar10() -> Path:
    """Give the path of CIFAR-10 in the cache folder, downloading it if it is not there.

    Raises
    ------
    DataError
        The address cannot be reached, the folder cannot be written, or the archive is not the official one.
    """
    from daskconv.graph.tuning_file import cache_folder  # brings in Dask, which readers of files do without

    folder = cache_folder()
    for name in KNOWN:
        if (folder / name).exists():
            return folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _download(folder / ARCHIVE)
    except _network_errors() as error:
        raise DataError(
            f"CIFAR-10 cannot be downloaded from {ADDRESS} into {folder} ({because(error)}): "
            f"bring {ARCHIVE} here by other means and give its path, as cifar10('{ARCHIVE}')"
        ) from error


def _network_errors() -> tuple[type[Exception], ...]:
    from http.client import HTTPException

    return OSError, HTTPException


def _download(target: Path) -> Path:
    # Under another name until it is whole and checked, so that no other process ever reads a part of it.
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _fetch(file)
        if digest != SHA256:
            raise DataError(
                f"the file at {ADDRESS} has SHA-256 {digest}, not {SHA256}: try again, or give the path "
                f"of the official archive, as cifar10('{ARCHIVE}')"
            )
        os.replace(part, target)
    finally:
        Path(part).unlink(missing_ok=True)
    return target


def _fetch(file: IO[bytes]) -> str:
    from urllib.request import urlopen

    digest, size = hashlib.sha256(), 0
    with urlopen(ADDRESS, timeout=SECONDS) as reply:
        while (block := reply.read(2**20)) and size <= MOST_BYTES:
            size += len(block)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()
