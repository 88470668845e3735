"""Read: a scene, whatever it is stored in and however its axes lie, and its pixels (h, w, c) by regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.scene.field import Span

NAMES = {
    "n": ("n", "time", "t", "image", "sample", "batch", "scene"),
    "y": ("y", "h", "row", "rows", "height", "lat", "latitude", "northing"),
    "x": ("x", "w", "col", "cols", "column", "columns", "width", "lon", "longitude", "easting"),
    "c": ("c", "channel", "channels", "band", "bands"),
}
"""What the axes of an xarray.DataArray may be called."""

# Sixteen bits of an integer are exact in float32; of more the last ones would be lost without a word.
_EXACT = ("bool", "uint8", "int8", "uint16", "int16")


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene, or a stack of them.

    Attributes
    ----------
    array : array
        NumPy, Dask or Zarr.
    axes : str
        A letter of "nyxc" for each of its axes, in their order.
    labels : xarray.DataArray or None
        What it was taken from.
    """

    array: Any
    axes: str
    labels: Any = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, h, w, c), of one where an axis is not there."""
        n, h, w, c = (int(self.array.shape[self.axes.index(a)]) if a in self.axes else 1 for a in "nyxc")
        return n, h, w, c

    @property
    def is_dask(self) -> bool:
        """Whether its pixels are still to be computed."""
        return hasattr(self.array, "dask")

    @property
    def is_stored(self) -> bool:
        """Whether its pixels lie in a Zarr array."""
        return not self.is_dask and not isinstance(self.array, np.ndarray)


def is_zarr(array: Any) -> bool:
    """Tell whether a value is a Zarr array, without importing Zarr."""
    return type(array).__module__.partition(".")[0] == "zarr" and hasattr(array, "chunks")


def read_scene(scene: Any, fits: Callable[[int], bool], channels: int | None) -> Scene:
    """Return the scene with its axes told; raise InputError where they cannot be, or its pixels are none.

    Parameters
    ----------
    scene : array
    fits : callable
        Tells whether the network takes so many channels.
    channels : int, optional
        How many it takes, for messages.
    """
    labels = scene if hasattr(scene, "dims") and hasattr(scene, "coords") else None
    array = scene.data if labels is not None else scene
    if is_zarr(array):
        from daskconv.datasets.stored import checked  # brings in no more than Dask, which is there by now

        array = checked(
            array, "the scene", "give dask.array.from_zarr of it (daskconv predict: --fill-missing)"
        )
    else:
        array = array if hasattr(array, "dask") else np.asarray(array)
    _check_pixels(array)
    axes = _axes_of_shape(array.shape, fits) if labels is None else axes_of_labels(labels)
    if axes is None:
        raise InputError(
            f"The scene has the dims {tuple(scene.dims)}: rename them, scene.rename(...), to y, x, and c and n where "
            "there are any."
        )
    found = Scene(array, axes, labels)
    c = found.shape[3]
    if not fits(c):
        reads = f"the network reads {channels}" if channels else "the network reads another number"
        raise InputError(
            f"The scene of {tuple(array.shape)} has {c} channels on its axis {axes.find('c')} but {reads}: select "
            "or stack them along the first or the last axis."
        )
    return found


def _check_pixels(array: Any) -> None:
    if any(np.isnan(size) for size in array.shape):
        raise InputError("The scene has chunks of unknown size: call compute_chunk_sizes() first.")
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise InputError(
            f"The scene has shape {tuple(array.shape)}: give (y, x, c), (c, y, x) or a stack (n, y, x, c)."
        )
    if array.dtype.name not in _EXACT and not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"The scene is {array.dtype}, which float32 does not hold exactly: scale it to uint8, uint16 or float32."
        )


def _axes_of_shape(shape: tuple[int, ...], fits: Callable[[int], bool]) -> str:
    """Return the axes of a plain array: channels lie last, or first where only that fits the network."""
    if len(shape) == 2:
        return "yx"
    first = shape[-3]
    return (
        ("cyx" if fits(first) and not fits(shape[-1]) else "yxc")
        if len(shape) == 3
        else ("ncyx" if fits(first) and not fits(shape[-1]) else "nyxc")
    )


def axes_of_labels(labels: Any) -> str | None:
    """Return the axes that the dims of a DataArray tell; None where they do not."""
    letters = {name: letter for letter, names in NAMES.items() for name in names}
    axes = "".join(letters.get(str(dim).lower(), "?") for dim in labels.dims)
    known = "?" not in axes and len(set(axes)) == len(axes) and {"y", "x"} <= set(axes)
    return axes if known else None


def region(array: Any, axes: str, n: int, rows: Span, columns: Span) -> NDArray:
    """Return the pixels (h, w, c) of a part of a scene in memory or in Zarr."""
    where = {"n": n, "y": slice(*rows), "x": slice(*columns), "c": slice(None)}
    return channels_last(np.asarray(array[tuple(where[axis] for axis in axes)]), axes)


def channels_last(part: NDArray, axes: str) -> NDArray:
    """Return a part of one scene as (h, w, c)."""
    left = axes.replace("n", "")
    if "c" not in left:
        left, part = left + "c", part[..., None]
    return part.transpose([left.index(axis) for axis in "yxc"])


Pieces = tuple[tuple[int, Span, Span], ...]
"""Along one axis: the numbers of chunks, what is taken of each, and where that lies in the part."""


def pieces(chunks: Sequence[int], start: int, stop: int) -> Pieces:
    """Return what chunks of these sizes give of the places from ``start`` to before ``stop``.

    Examples
    --------
    >>> pieces((4, 4, 4), 3, 6)
    ((0, (3, 4), (0, 1)), (1, (0, 2), (1, 3)))
    """
    edges = np.concatenate([[0], np.cumsum(chunks)])
    first = int(np.searchsorted(edges, start, side="right")) - 1
    found, place = [], start
    while place < stop:
        low, high = int(edges[first]), int(edges[first + 1])
        end = min(stop, high)
        if end > place:
            found.append((first, (place - low, end - low), (place - start, end - start)))
            place = end
        first += 1
    return tuple(found)


@dataclass(frozen=True)
class Part:
    """A part of one scene, as it lies in chunks; nothing is put together but what a window shows.

    Attributes
    ----------
    axes : str
    origin : (int, int)
        The row and the column of the scene where it begins.
    sides : tuple of Pieces
        For each axis.
    blocks : sequence of array
        The chunks' values, in order.
    """

    axes: str
    origin: tuple[int, int]
    sides: tuple[Pieces, ...]
    blocks: Sequence[NDArray]

    @classmethod
    def of(cls, pixels: NDArray, rows: Span, columns: Span) -> Part:
        """Return the part that these pixels (h, w, c) are, of these rows and columns of the scene."""
        sides = tuple(((0, (0, size), (0, size)),) for size in pixels.shape)
        return cls("yxc", (rows[0], columns[0]), sides, [pixels])

    @property
    def channels(self) -> int:
        """Of a window."""
        return self.sides[self.axes.index("c")][-1][2][1] if "c" in self.axes else 1

    def window(self, rows: Span, columns: Span) -> NDArray:
        """Return some rows and columns of the scene (h, w, c), in memory of their own."""
        (top, left), whole = self.origin, (0, self.channels)
        spans = {"n": (0, 1), "y": (rows[0] - top, rows[1] - top), "c": whole}
        spans["x"] = columns[0] - left, columns[1] - left
        cut = [spans[axis] for axis in self.axes]
        part = np.empty([stop - start for start, stop in cut], self.blocks[0].dtype)
        for block, some in zip(self.blocks, product(*self.sides), strict=True):
            shown = [_shown(*one, *span) for one, span in zip(some, cut, strict=True)]
            if all(of.start < of.stop for of, _ in shown):
                part[tuple(to for _, to in shown)] = block[tuple(of for of, _ in shown)]
        axes = self.axes
        return channels_last(part.take(0, axes.index("n")) if "n" in axes else part, axes)


def _shown(number: int, of: Span, to: Span, start: int, stop: int) -> tuple[slice, slice]:
    """Return what a window from ``start`` to ``stop`` shows of a chunk's piece, and where."""
    low, high = max(to[0], start), min(to[1], stop)
    return slice(of[0] + low - to[0], of[0] + high - to[0]), slice(low - start, high - start)
