"""Store: a lazy array written to Zarr chunk by chunk, so that what is complete stays whatever ends the run.

All chunks go to a folder beside the store, ``out.zarr.partial``, which gets the store's name when the last one is
written: a store that bears its name is whole. A chunk's file appears by a rename, when it is whole (Zarr does so from
3.1.3 on), so a chunk is complete if it has a file, and a run that goes on computes the other ones.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from daskconv.errors import DataError, InputError
from daskconv.scene.write import write_chunks

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MARK = "daskconv"
_METADATA = ("zarr.json", ".zarray", ".zgroup")
_NAME = "prediction"  # of a DataArray without a name, in its group


def store(
    array: Any,
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
) -> Any:
    """Compute a lazy array and write it to a Zarr store, chunk by chunk.

    Until the last chunk is written the store is called ``<path>.partial``: whatever ends the run, kill -9 too, complete
    chunks stay, and with ``resume`` another run computes the other ones alone.

    Parameters
    ----------
    array : dask.array.Array or xarray.DataArray
        A prediction; any lazy array will do. A DataArray becomes a group with its coordinates.
    path : str or path
        A folder that the workers of a cluster see, too.
    overwrite : bool
        Replace a store that exists; what it holds stays until the new one is whole.
    resume : bool
        Go on where a run of the same call ended, or begin where there was none.
    progress : bool
        Show a bar on a terminal, and elsewhere a line now and then.

    Returns
    -------
    dask.array.Array or xarray.DataArray
        What is stored, lazily.

    Raises
    ------
    InputError
        Where a store exists and neither is set, or there is one of another result to go on with.
    DataError
        Where the disk is full, or the folder cannot be written to.
    WorkerError
        Where workers died.

    Examples
    --------
    >>> import os, tempfile, dask.array as da, daskconv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x = daskconv.store(da.ones((40, 60), chunks=20), os.path.join(folder, "ones.zarr"), progress=False)
    ...     x.chunks, float(x.sum())
    (((20, 20), (20, 20, 20)), 2400.0)
    """
    if overwrite and resume:
        raise InputError("overwrite and resume are both set: give one of them.")
    data = _regular(array.data if hasattr(array, "dims") else array)
    whole = Path(path).expanduser().absolute()
    part = whole.with_name(f"{whole.name}.partial")
    _check_target(whole, part, overwrite or resume)
    # Beside a store that is whole there is a part where overwriting it was begun.
    if resume and whole.exists() and not part.exists():
        _check_same(whole, data)
        return _read(whole, array)
    with _disk(part):
        if overwrite:
            shutil.rmtree(part, ignore_errors=True)
        if not part.exists():
            _create(part, array, data)
        _check_same(part, data)
        write_chunks(data, _array_of(part), progress)
        _rename(part, whole)
    return _read(whole, array)


def _regular(data: Any) -> Any:
    """Return the array in chunks of one size, as Zarr's are."""
    if not hasattr(data, "dask"):
        kind = type(data).__name__
        raise InputError(f"The array is a {kind} in memory: give a Dask array, or a DataArray of one.")
    if any(np.isnan(size) for size in data.shape):
        raise InputError("The array has chunks of unknown size: call compute_chunk_sizes() first.")
    return data.rechunk(tuple(max(sizes) for sizes in data.chunks))


def _check_target(whole: Path, part: Path, allowed: bool) -> None:
    if not whole.parent.is_dir() or not os.access(whole.parent, os.W_OK):
        raise DataError(f"{whole.parent} is no folder that can be written to: make it, or store elsewhere.")
    for path in (whole, part):
        if path.exists() and not any((path / name).is_file() for name in _METADATA):
            raise InputError(f"{path} exists and is no Zarr store: remove it, or store elsewhere.")
        if path.exists() and not allowed:
            raise InputError(
                f"{path} exists: set overwrite to replace it, or resume to finish what was begun."
            )


@contextmanager
def _disk(part: Path) -> Iterator[None]:
    """Say in one sentence that the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DataError(
            f"There is no room for {part} ({error.strerror}): what is complete stays, so make room and go on with "
            "resume."
        ) from None


def _create(part: Path, array: Any, data: Any) -> None:
    """Write everything but the chunks; the folder appears when that is done."""
    import zarr

    new = part.with_name(f"{part.name}.{os.getpid()}")
    mark: dict[str, Any] = {_MARK: {"result": data.name}}
    try:
        if hasattr(array, "dims"):
            name = array.name or _NAME
            coords = {name: coord.compute() for name, coord in array.coords.items()}
            group = array.copy(deep=False, data=data).assign_coords(coords).to_dataset(name=name)
            mark[_MARK]["variable"] = name
            # The names of classes and bands are text, which has a specification in format 2 alone.
            encoding = {name: {"chunks": data.chunksize}}
            group.assign_attrs(mark).to_zarr(new, compute=False, encoding=encoding, zarr_format=2)
        else:
            zarr.create_array(new, shape=data.shape, chunks=data.chunksize, dtype=data.dtype, attributes=mark)
        new.rename(part)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _array_of(path: Path) -> Any:
    """Return the Zarr array of a store's chunks."""
    import zarr

    found: Any = zarr.open(path, mode="r+")
    variable = found.attrs[_MARK].get("variable")
    return found[variable] if variable else found


def _check_same(path: Path, data: Any) -> None:
    """Raise InputError unless the store is of this result, in chunks of this size."""
    import zarr

    attributes: Any = zarr.open(path, mode="r").attrs
    found = attributes.get(_MARK, {}).get("result")
    if found == data.name:
        return
    chunks = _array_of(path).chunks if found else None
    if chunks and chunks != data.chunksize:
        what = (
            f"in chunks of {chunks}, where this one has {data.chunksize}: predict with the tile that it had"
        )
    else:
        what = "of another model or scene, or of other options: give those that it was begun with"
    raise InputError(f"{path} holds a result {what}, or set overwrite.")


def _rename(part: Path, whole: Path) -> None:
    """Give the store its name; one that had it goes once the new one is there."""
    old = whole.with_name(f"{whole.name}.{os.getpid()}")
    if whole.exists():
        whole.rename(old)
    part.rename(whole)
    shutil.rmtree(old, ignore_errors=True)


def _read(whole: Path, array: Any) -> Any:
    if hasattr(array, "dims"):
        import xarray

        return xarray.open_dataarray(whole, engine="zarr", chunks={})
    import dask.array as da

    return da.from_zarr(str(whole))
