"""A name or a path to the reader it needs."""

from __future__ import annotations

import os
from pathlib import Path

from daskconv.datasets.cifar import cifar10, is_cifar10
from daskconv.datasets.dataset import Dataset
from daskconv.datasets.digits import digits
from daskconv.datasets.folder import image_folder
from daskconv.datasets.npz import from_npz
from daskconv.datasets.zarr_store import from_zarr, is_zarr
from daskconv.errors import DataError

CHOICES = (
    "digits, cifar10, a .npz file, a .zarr folder, a folder of image classes, or a CIFAR-10 folder or .tar.gz"
)


def load(
    name_or_path: str | os.PathLike[str], *, mapped: bool = False, skip_damaged: bool = False
) -> Dataset:
    """Read a data set by its name or from a path.

    Parameters
    ----------
    name_or_path : str or path
        "digits" (split into 80 % training and 20 % test, seed 0), "cifar10", an .npz file, a Zarr group, a
        folder of image classes, or a CIFAR-10 folder or .tar.gz. A folder named digits is "./digits".
    mapped : bool
        Leave the images of an .npz file in it; see :func:`from_npz`.
    skip_damaged : bool
        Leave out the images of a folder that cannot be read; see :func:`image_folder`.

    Raises
    ------
    DataError
        It is none of these, or its reader refuses it.

    Examples
    --------
    >>> from daskconv.datasets import load
    >>> load("digits")
    Dataset(train 1438 x 8 x 8 x 1 uint8, test 359, 10 classes)
    """
    if name_or_path == "digits":
        return digits().split(test=0.2, seed=0)
    if name_or_path == "cifar10":
        return cifar10()
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _folder(path, skip_damaged)
    if path.is_file() and path.suffix == ".npz":
        return from_npz(path, mapped=mapped)
    if path.is_file() and path.name.endswith((".tar.gz", ".tgz")):
        return cifar10(path)
    what = "has no known ending" if path.is_file() else "does not exist"
    raise DataError(f"{os.fspath(name_or_path)!r} {what}: give {CHOICES}")


def _folder(path: Path, skip_damaged: bool) -> Dataset:
    if is_zarr(path):
        return from_zarr(path)
    return cifar10(path) if is_cifar10(path) else image_folder(path, skip_damaged=skip_damaged)
