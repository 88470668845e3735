"""NumPy .npz files as data sets; never unpickles."""

from __future__ import annotations

import os
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from daskconv.datasets.assemble import KEYS, assemble, because
from daskconv.datasets.dataset import Dataset
from daskconv.errors import DataError

_MANY_BYTES = 2**28


def from_npz(path: str | os.PathLike[str], *, mapped: bool = False) -> Dataset:
    """Read a data set from an .npz file.

    Parameters
    ----------
    path : str or path
        A file with x_train and y_train (or x and y), and if it has them x_test, y_test and class_names.
        Images are (n, h, w, c) or (n, h, w), uint8 or float; labels are integers, (n,) or (n, 1).
    mapped : bool
        Leave images that are not compressed in the file, mapped into memory: workers read the rows they need, so
        the path must mean the same to them, and the file must stay as it is meanwhile.

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
    arrays = read_arrays(source, mapped)
    return assemble(source, arrays, arrays.get("class_names"))


def read_arrays(source: Path, mapped: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Read the arrays of a data set, and no others, from an .npz file; images may stay in it."""
    if not source.is_file():
        raise DataError(f"{source} is no file: give the path of an .npz file")
    try:
        # np.load would also take a lone .npy array or try a pickle; only a zip is an .npz.
        with zipfile.ZipFile(source) as archive:
            arrays = _mapped(source, archive) if mapped else {}
            _check_fits(source, [info for info in archive.infolist() if _name_of(info) not in arrays])
        with np.load(source, allow_pickle=False) as file:
            found = {
                name: file[name] for name in (*KEYS, "class_names") if name in file and name not in arrays
            }
    except DataError:
        raise
    except Exception as error:  # NumPy evaluates headers, and zip files have many codecs
        raise DataError(
            f"{source} cannot be read ({because(error)}): write it anew with numpy.savez"
        ) from error
    for name, value in found.items():
        if not isinstance(value, np.ndarray):  # NumPy hands out what is no array as bytes
            raise DataError(f"{name} in {source} is no array: write it anew with numpy.savez")
    return arrays | found


def _check_fits(source: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise DataError where arrays would take more memory than there is: a few kB can unpack to anything."""
    size = sum(info.file_size for info in members if _name_of(info) in (*KEYS, "class_names"))
    if size < _MANY_BYTES:
        return
    from distributed.system import MEMORY_LIMIT

    if size > MEMORY_LIMIT:
        raise DataError(
            f"the arrays of {source} take {size:,} bytes and this process has {MEMORY_LIMIT:,}: "
            "store the images in Zarr, or uncompressed with numpy.savez and read them mapped"
        )


def _name_of(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _mapped(source: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray[Any, Any]]:
    """Return the images that lie in the file row after row, after one look at their checksum."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for member in archive.infolist():
        name = _name_of(member)
        if name not in KEYS or not name.startswith("x") or member.compress_type != zipfile.ZIP_STORED:
            continue
        with archive.open(member) as inside:
            shape, fortran, dtype = _header(inside)
            header = inside.tell()
            while inside.read(1 << 20):
                pass
        if header + prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{name} claims the shape {shape} and has {member.file_size - header} bytes")
        if not fortran and dtype.isnative and not dtype.hasobject and 0 not in shape:
            found[name] = np.memmap(source.absolute(), dtype, "r", _start(source, member) + header, shape)
    return found


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _start(source: Path, member: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin: only its own header says how long that is."""
    with open(source, "rb") as file:
        file.seek(member.header_offset + 26)
        lengths = file.read(4)
    return member.header_offset + 30 + sum(int.from_bytes(lengths[at : at + 2], "little") for at in (0, 2))
