"""NumPy .npz files as data sets; never unpickles."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from daskconv.datasets.assemble import KEYS, assemble, because
from daskconv.datasets.dataset import Dataset
from daskconv.errors import DataError

DAMAGE = (OSError, EOFError, ValueError, KeyError, MemoryError, NotImplementedError, RuntimeError)


def from_npz(path: str | os.PathLike[str]) -> Dataset:
    """Read a data set from an .npz file.

    Parameters
    ----------
    path : str or path
        A file with x_train and y_train (or x and y), and if it has them x_test, y_test and class_names.
        Images are (n, h, w, c) or (n, h, w), uint8 or float; labels are integers, (n,) or (n, 1).

    Raises
    ------
    DataError
        The file is missing or damaged, lacks an array, or holds something else than images and labels.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> from daskconv.datasets import from_npz
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = os.path.join(folder, "stripes.npz")
    ...     np.savez(file, x_train=np.zeros((6, 4, 4), "uint8"), y_train=[0, 0, 0, 1, 1, 1])
    ...     from_npz(file)
    Dataset(train 6 x 4 x 4 x 1 uint8, no test, 2 classes)
    """
    source = Path(path).expanduser()
    arrays = read_arrays(source)
    return assemble(source, arrays, arrays.get("class_names"))


def read_arrays(source: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of a data set, and no others, from an .npz file."""
    if not source.is_file():
        raise DataError(f"{source} is no file: give the path of an .npz file")
    try:
        # np.load would also take a lone .npy array or try a pickle; only a zip is an .npz.
        with zipfile.ZipFile(source):
            pass
        with np.load(source, allow_pickle=False) as file:
            return {name: file[name] for name in (*KEYS, "class_names") if name in file}
    except (*DAMAGE, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{source} cannot be read ({because(error)}): write it anew with numpy.savez"
        ) from error
