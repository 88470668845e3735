"""Zarr groups as data sets: images stay in the store, labels are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskconv.datasets.assemble import KEYS, assemble, because
from daskconv.datasets.dataset import Dataset
from daskconv.datasets.stored import checked
from daskconv.errors import DataError, InputError

if TYPE_CHECKING:
    import zarr


def from_zarr(path: str | os.PathLike[str], *, allow_missing: bool = False) -> Dataset:
    """Read a data set from a Zarr group, format 2 or 3; the images become a lazy Dask array chunked along n.

    Parameters
    ----------
    path : str or path
        A folder with the group: arrays x_train and y_train (or x and y), and if it has them x_test and
        y_test; class_names is an array or an attribute of the group. Workers read it, so the path must mean
        the same to them.
    allow_missing : bool
        Zarr reads a missing chunk as its fill value (zeros) without a word, so missing chunks are refused.
        But by default it also leaves out chunks that hold nothing else when it writes (its configuration
        array.write_empty_chunks, False): True accepts such a store.

    Raises
    ------
    DataError
        The group or an array is missing, a chunk is missing, or the arrays are no images and labels.
    InputError
        Zarr is not installed.

    Examples
    --------
    >>> import numpy as np, os, tempfile, zarr
    >>> from daskconv.datasets import from_zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "ones.zarr")
    ...     group = zarr.open_group(path, mode="w")
    ...     _ = group.create_array("x_train", data=np.ones((6, 4, 4, 3), "float32"))
    ...     _ = group.create_array("y_train", data=np.arange(6))
    ...     from_zarr(path)
    Dataset(train 6 x 4 x 4 x 3 float32, no test, 6 classes)
    """
    source = Path(path).expanduser().absolute()
    group = _open(source)
    try:
        stored: dict[str, Any] = {name: group[name] for name in (*KEYS, "class_names") if name in group}
        names = stored.pop("class_names")[...] if "class_names" in stored else group.attrs.get("class_names")
        if not allow_missing:
            otherwise = "call from_zarr with allow_missing=True"
            stored = {
                name: checked(array, f"{name} of {source}", otherwise) for name, array in stored.items()
            }
        arrays = {name: array[:] if name.startswith("y") else _lazy(array) for name, array in stored.items()}
    except DataError:
        raise
    except Exception as error:  # metadata and chunks go through many codecs, each with its own errors
        raise DataError(f"{source} cannot be read ({because(error)}): write the group anew") from error
    return assemble(source, arrays, names)


def is_zarr(folder: Path) -> bool:
    """Tell whether a folder is named or laid out as a Zarr group."""
    return folder.suffix == ".zarr" or any((folder / name).is_file() for name in ("zarr.json", ".zgroup"))


def _open(source: Path) -> zarr.Group:
    try:
        import zarr
    except ImportError as error:
        raise InputError("from_zarr needs Zarr: pip install daskconv[io]") from error
    try:
        return zarr.open_group(str(source), mode="r")
    except Exception as error:  # as many kinds as there are ways to damage a group
        raise DataError(f"{source} is no Zarr group ({because(error)}): give the path of a group") from error


def lazy_array(array: Any, name: str) -> Any:
    """Return a Zarr array as a lazy Dask array of its chunks; a missing chunk of one in a folder is refused.

    Parameters
    ----------
    array : zarr.Array
    name : str
        What errors call it.

    Raises
    ------
    DataError
        A chunk is missing.
    """
    return _lazy(checked(array, name, "give dask.array.from_zarr of it"))


def _lazy(array: Any) -> Any:
    import dask.array as da
    from dask.base import tokenize

    x = da.from_array(array, array.chunks, name=f"from-zarr-{tokenize(array, array.chunks)}")
    if all(len(parts) == 1 for parts in x.chunks[1:]):
        return x
    return x.rechunk({0: "auto"} | dict.fromkeys(range(1, x.ndim), -1))
