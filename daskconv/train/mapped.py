"""Images in a file that is mapped into memory: workers map it too, and read the rows they need."""

from __future__ import annotations

import mmap
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import DataError
from daskconv.train.images import Indices, InMemory


class Place(NamedTuple):
    """Where an array lies in a file.

    Attributes
    ----------
    path : str
    offset : int
        Bytes.
    shape : tuple of int
    dtype : str
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def open(self) -> NDArray:
        """Return the array, mapped from this process's file system."""
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


class Mapped(InMemory):
    """An array in a file; what travels to workers is its place there."""

    def __init__(self, x: NDArray, name: str, place: Place) -> None:
        super().__init__(x, name)
        self.name, self.place = name, place

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"x": None}

    def take(self, indices: Indices) -> NDArray:
        """Return some images."""
        if self.x is None:
            try:
                self.x = self.place.open()
            except (OSError, ValueError) as error:
                raise DataError(
                    f"{self.name} lies in {self.place.path}, which cannot be mapped here ({error}): put it where all "
                    "workers see it, or give numpy.array(x) to send them the images."
                ) from error
        return super().take(indices)


def place_of(x: NDArray) -> Place | None:
    """Return where an array lies in a file, or None where it does not, or not row after row.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     x = np.memmap(file.name, np.uint8, "w+", shape=(9, 2))
    ...     place_of(np.asarray(x)[3:]).offset
    6
    """
    whole: Any = x
    while isinstance(whole, np.ndarray) and not isinstance(whole, np.memmap):
        whole = whole.base
    if not isinstance(whole, np.memmap) or whole.filename is None or whole.mode == "c":
        return None
    mapped = whole._mmap  # type: ignore[attr-defined]
    if mapped is None or not x.flags.c_contiguous or not x.dtype.isnative or not x.size:
        return None
    if whole.mode != "r":
        whole.flush()
    start = np.frombuffer(mapped, np.uint8).ctypes.data
    offset = whole.offset - whole.offset % mmap.ALLOCATIONGRANULARITY + x.ctypes.data - start
    return Place(os.path.abspath(whole.filename), offset, x.shape, x.dtype.str)
