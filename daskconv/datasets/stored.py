"""A Zarr array that never reads as zeros what is not there: Zarr itself does, without a word."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from dask.base import normalize_token

from daskconv.errors import DataError

_METADATA = ("zarr.json", ".zarray", ".zattrs")


@dataclass(frozen=True, eq=False)
class Stored:
    """A Zarr array whose chunks have to be there when they are read; what a Dask array's tasks read from.

    Attributes
    ----------
    array : zarr.Array
    name : str
        What errors call it.
    """

    array: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """As of any array."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """As of any array."""
        return self.array.ndim

    @property
    def dtype(self) -> Any:
        """As of any array."""
        return self.array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """The sizes of a chunk."""
        return self.array.chunks

    def __getitem__(self, where: slice | tuple[int | slice, ...]) -> Any:
        """Return a part; raise DataError where a chunk of it is damaged, or is no longer there."""
        where = where if isinstance(where, tuple) else (where,)
        try:
            part = self.array[where]
        except Exception as error:  # chunks go through many codecs, each with its own errors
            said = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self.name} cannot be read ({said}): write its damaged chunk anew.") from None
        folder = _folder(self.array)
        if folder is not None:
            for key in self._keys(where):
                if not os.path.exists(folder / key):
                    raise DataError(
                        f"{self.name} lacks its chunk {key}, which would read as zeros: write it again."
                    )
        return part

    def __dask_tokenize__(self) -> Any:
        return normalize_token(self.array)

    def _keys(self, where: tuple[int | slice, ...]) -> Iterable[str]:
        """Return the names of the files in which a part lies."""
        sides = []
        for step, size, side in zip(_block(self.array), self.shape, where, strict=False):
            low, high, _ = side.indices(size) if isinstance(side, slice) else (side, side + 1, 1)
            sides.append(range(low // step, -(-high // step)))
        rest = zip(_block(self.array)[len(sides) :], self.shape[len(sides) :], strict=True)
        sides += [range(-(-size // step)) for step, size in rest]
        return map(self.array.metadata.encode_chunk_key, itertools.product(*sides))


def checked(array: Any, name: str, otherwise: str) -> Stored:
    """Return a Zarr array as one that refuses missing chunks; raise DataError where one in a folder lacks any now.

    Parameters
    ----------
    array : zarr.Array
    name : str
        What errors call it.
    otherwise : str
        What to do where chunks were left out because they hold nothing but zeros.
    """
    folder = _folder(array)
    if folder is not None:
        sizes = [-(-size // step) for size, step in zip(array.shape, _block(array), strict=True)]
        # One walk, not one look-up a chunk: those are slow on parallel file systems, and the chunks many.
        files, count = _files(folder), prod(sizes)
        missing = count - len(files)
        if missing <= 0:  # else there are fewer files than chunks, of which metadata may claim any number
            places = itertools.product(*map(range, sizes))
            missing = len({array.metadata.encode_chunk_key(place) for place in places} - files)
        if missing > 0:
            raise DataError(
                f"{name} lacks {missing} of its {count} chunks, which would read as zeros: "
                f"write it again, or {otherwise} if zeros are what they held"
            )
    return Stored(array, name)


def _folder(array: Any) -> Path | None:
    """Return the folder of an array's chunks; None where it is kept elsewhere."""
    root = getattr(array.store, "root", None)
    return root / array.path if isinstance(root, Path) else None


def _block(array: Any) -> tuple[int, ...]:
    """Return the sizes of what lies in one file."""
    return array.shards or array.chunks


def _files(folder: Path) -> set[str]:
    """Return the files below a folder that hold anything."""
    return {
        os.path.relpath(os.path.join(parent, file), folder).replace(os.sep, "/")
        for parent, _, files in os.walk(folder)
        for file in files
        if file not in _METADATA
    }
