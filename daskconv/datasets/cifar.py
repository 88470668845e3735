"""CIFAR-10 from its official archives (python and binary), their folders, or an .npz file."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from daskconv.datasets import pickled
from daskconv.datasets.assemble import assemble, because
from daskconv.datasets.dataset import Dataset
from daskconv.datasets.download import cached_cifar10
from daskconv.datasets.npz import read_arrays
from daskconv.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
BATCHES = (*TRAIN, "test_batch")
LAYOUTS = (BATCHES, tuple(f"{name}.bin" for name in BATCHES))
PIXELS = 3 * 32 * 32
# A batch is 31 MB and an archive 186 MB; more than this is no CIFAR-10.
MOST_FILE_BYTES = 2**26
MOST_ARCHIVE_BYTES = 2**28

Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def cifar10(path: str | os.PathLike[str] | None = None) -> Dataset:
    """Read CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 x 3 in ten classes.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).

    Parameters
    ----------
    path : str or path, optional
        cifar-10-python.tar.gz, cifar-10-binary.tar.gz, one of the folders in them (cifar-10-batches-py,
        cifar-10-batches-bin), or an .npz file with x_train, y_train, x_test and y_test. Archives are read
        without unpacking, pickles without running what is in them. Where None, it is looked for in
        $DASKCONV_CACHE, by default ~/.cache/daskconv, and downloaded there (170 MB) and checked if it is not found.

    Raises
    ------
    DataError
        The file is missing, damaged or no CIFAR-10, or the download failed.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> from daskconv.datasets import cifar10
    >>> x, y = np.zeros((10, 32, 32, 3), "uint8"), np.arange(10)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "cifar10.npz")
    ...     np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    ...     cifar10(file).class_names[:3]
    ('airplane', 'automobile', 'bird')
    """
    source = cached_cifar10() if path is None else Path(path).expanduser()
    if source.suffix == ".npz":
        arrays: dict[str, Any] = read_arrays(source)
        return assemble(source, arrays, arrays.get("class_names", CLASSES))
    batches = {name: _decode(source, name, blob) for name, blob in _files(source)}
    train, test = _parts(source, batches)
    arrays = {"x_train": train[0], "y_train": train[1], "x_test": test[0], "y_test": test[1]}
    return assemble(source, arrays, CLASSES)


def is_cifar10(folder: Path) -> bool:
    """Tell whether a folder looks like an unpacked CIFAR-10 archive."""
    return any((folder / layout[0]).is_file() for layout in LAYOUTS)


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    if not source.exists():
        raise DataError(f"{source} does not exist: give the path of cifar-10-python.tar.gz or of its folder")
    try:
        yield from _folder_files(source) if source.is_dir() else _archive_files(source)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{source} cannot be read as a CIFAR-10 archive ({because(error)}): download it again"
        ) from error


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in (name for layout in LAYOUTS for name in layout):
        file = folder / name
        if file.is_file():
            _limit_size(folder, name, file.stat().st_size)
            yield name, file.read_bytes()


def _archive_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    with _LimitedGzip(archive) as plain, tarfile.open(fileobj=plain, mode="r|") as members:
        for member in members:
            name = os.path.basename(member.name)
            if member.isfile() and any(name in layout for layout in LAYOUTS):
                _limit_size(archive, name, member.size)
                file = members.extractfile(member)
                assert file is not None
                yield name, file.read()
        # tar stops at its own end mark; gzip's checksum, which finds flipped bits, comes after it.
        while plain.read(2**20):
            pass


class _LimitedGzip(gzip.GzipFile):
    """Refuses to inflate an archive beyond any real CIFAR-10, whatever its members claim."""

    left = MOST_ARCHIVE_BYTES

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        self.left -= len(block)
        if self.left < 0:
            raise tarfile.ReadError(f"it inflates to more than {MOST_ARCHIVE_BYTES} bytes")
        return block


def _limit_size(source: Path, name: str, size: int) -> None:
    if size > MOST_FILE_BYTES:
        raise DataError(
            f"{name} in {source} has {size} bytes, a CIFAR-10 batch 31 million: download it again"
        )


def _decode(source: Path, name: str, blob: bytes) -> Batch:
    try:
        x, y = _binary(blob) if name.endswith(".bin") else _python(blob)
    except ValueError as error:
        raise DataError(
            f"{name} in {source} is no CIFAR-10 batch ({because(error)}): download it again"
        ) from error
    return x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), y


def _binary(blob: bytes) -> Batch:
    if len(blob) % (1 + PIXELS):
        raise ValueError(f"{len(blob)} bytes are no multiple of {1 + PIXELS}")
    rows = np.frombuffer(blob, np.uint8).reshape(-1, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0]


def _python(blob: bytes) -> Batch:
    batch = pickled.read_dict(blob)
    missing = {"data", "labels"} - batch.keys()
    if missing:
        raise ValueError(f"it holds no {' and no '.join(sorted(missing))}")
    x, y = pickled.array(batch["data"]), pickled.array(batch["labels"])
    if x.ndim != 2 or x.shape[1] != PIXELS or x.dtype != np.uint8 or y.shape != x.shape[:1]:
        raise ValueError(
            f"its data is {x.shape} {x.dtype}, its labels {y.shape}, not (n, {PIXELS}) uint8 and (n,)"
        )
    return x, y


def _parts(source: Path, batches: dict[str, Batch]) -> tuple[Batch, Batch]:
    lacking = min(([name for name in layout if name not in batches] for layout in LAYOUTS), key=len)
    if lacking:
        raise DataError(f"{source} holds no {', '.join(lacking)}: give a complete CIFAR-10 archive or folder")
    *train, test = next([batches[n] for n in layout] for layout in LAYOUTS if batches.keys() >= set(layout))
    return (np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])), test
