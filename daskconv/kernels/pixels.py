"""The pixels of a 1x1 convolution as lines that suit tiles: they do not know their neighbours, or their images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.kernels.copies import copy_rows
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import tiles_of
from daskconv.kernels.turns import Range

# Pixels so many bytes apart, or a multiple, meet in one set of the first cache; what is copied at once to part them.
_WAY_BYTES, _APART_BYTES = 4096, 1 << 20

Lines = tuple[NDArray, Correlation, NDArray, Range]
"""Images, the correlation over them, its result and the rows of that."""


def is_pixelwise(x: NDArray, correlation: Correlation, result: NDArray) -> bool:
    """Return whether each pixel of the result is that of the images at its place."""
    c = correlation
    whole = c.size == result.shape[1:3] and c.step == c.spacing == (1, 1) and c.size == x.shape[1:3]
    return whole and c.rows == c.cols == (0,)


def pixel_lines(
    x: NDArray, correlation: Correlation, result: NDArray, rows: Range, length: int
) -> Iterator[Lines]:
    """Yield the same work of a pixelwise correlation in lines of so many pixels, then those left over."""
    for lines in _long_lines(x, correlation, result, rows, length):
        yield from _lines_apart(*lines) if x.strides[2] % _WAY_BYTES == 0 else (lines,)


def _long_lines(
    x: NDArray, correlation: Correlation, result: NDArray, rows: Range, length: int
) -> Iterator[Lines]:
    span = slice(rows[0] * x.shape[2], rows[1] * x.shape[2])
    pixels, results = (array.reshape(-1, array.shape[3])[span] for array in (x, result))
    even = len(pixels) // length * length
    for part, columns in ((slice(0, even), length), (slice(even, None), len(pixels) - even)):
        if columns and len(pixels[part]):
            images, whole = (
                array[part].reshape(1, -1, columns, array.shape[1]) for array in (pixels, results)
            )
            yield images, replace(correlation, size=images.shape[1:3]), whole, (0, images.shape[1])


def _lines_apart(x: NDArray, correlation: Correlation, result: NDArray, rows: Range) -> Iterator[Lines]:
    """Yield lines copied a few at a time, their pixels one cache line further apart.

    The pixels of a tile would be read in the same few lines of the first cache, and drive each other out.
    """
    _, lines, columns, c = x.shape
    apart = c + tiles_of(x.dtype).lanes
    most = max(1, _APART_BYTES // (columns * apart * x.itemsize))
    for first in range(0, lines, most):
        some = x[:, first : first + most]
        copy = scratch("padded", (*some.shape[:3], apart), x.dtype)
        rows = some.size // c
        copy_rows(some.reshape(-1), 0, c, copy.reshape(-1), 0, apart, rows, c)
        size = some.shape[1:3]
        yield copy, replace(correlation, size=size), result[:, first : first + most], (0, size[0])
