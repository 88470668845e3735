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

        array = checked(array, "the scene", "give dask.array.from_zarr of it")
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


def joined(axes: str, sides: tuple[Pieces, ...], blocks: Sequence[NDArray]) -> NDArray:
    """Return the pixels (h, w, c) of a part that lies in several chunks; ``blocks`` are their values in order."""
    shape = [side[-1][2][1] for side in sides]
    part = np.empty(shape, blocks[0].dtype)
    for block, some in zip(blocks, product(*sides), strict=True):
        place = tuple(slice(*to) for _, _, to in some)
        part[place] = block[tuple(slice(*of) for _, of, _ in some)]
    return channels_last(part.take(0, axes.index("n")) if "n" in axes else part, axes)
