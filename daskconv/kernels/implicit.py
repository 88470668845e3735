"""Implicit lowering: the micro-kernel reads the image where it lies, so no lowered copy is made.

The rows of a tile are neighbouring output pixels of one image row, its vectors are output channels, and its
loops run over the kernel's rows, its taps and the input channels. Taps that fall into the padding are
skipped, not multiplied: at the border, such a tap is added to those pixels of a tile that have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair, Window, forward_correlation
from daskconv.kernels.epilogue import NOTHING, Epilogue
from daskconv.kernels.implicit_walk import correlate_lines, walk_of
from daskconv.kernels.panels import copy_panels, copy_transposed_panel, options, tap_order, width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import tiles_of

# The part of a panel that is read for one tile after another stays in L2, beside the image rows it meets.
_PANEL_BYTES, _IMAGE_BYTES = 192 << 10, 256 << 10
# Images of few channels, copied with their padding.
_PADDED_BYTES = 1 << 20
# Pixels so many bytes apart, or a multiple, meet in one set of the first cache; what is copied to part them.
_WAY_BYTES, _APART_BYTES, _IMAGES_BYTES = 4096, 1 << 20, 2 << 20
# Tiles in a row of pixels of a 1x1 convolution.
_LINE_TILES = 8

# Lines of at most so many pixels are left for lines of images, where there are so many.
_SHORT_LINE, _MANY_IMAGES = 16, 24

_PIXEL = Window((1, 1))

Range = tuple[int, int]
"""A range of lines: output rows, counted over images and rows together, or pixels of all images."""


@dataclass(frozen=True)
class Packed:
    """Weights in the order in which tiles read them.

    Attributes
    ----------
    panels : array (groups, panels, rows, taps, channels, panel width), flat
        Each group's output channels in panels of :data:`VECTORS` vectors, padded with zeros.
    groups, channels, filters : int
        Groups, and the input and output channels of one.
    macs : int
        Multiplications that one output pixel needs.
    """

    panels: NDArray
    groups: int
    channels: int
    filters: int
    macs: int

    def part(self, group: int, start: int, stop: int) -> Packed:
        """Return some filters of a group, from the first of a panel on, as those of lowered rows."""
        width = width_of(self.panels.dtype)
        depth = self.macs // (self.groups * self.filters)
        panel = group * -(-self.filters // width) + start // width
        size = depth * width
        panels = self.panels[panel * size : (panel - (start - stop) // width) * size]
        return Packed(panels, 1, depth, stop - start, depth * (stop - start))


def pack(w: NDArray, correlation: Correlation, groups: int, *, transposed: bool) -> Packed:
    """Return the weights (r, s, c / groups, k) of a correlation, packed.

    ``transposed`` swaps the channels, as the input gradient needs: it reads k and writes c.
    """
    packed = place(w, correlation, groups, transposed=transposed)
    fill(w, correlation, packed, transposed=transposed)
    return packed


def place(w: NDArray, correlation: Correlation, groups: int, *, transposed: bool) -> Packed:
    """Return where :func:`pack` puts the weights, which :func:`fill` has to write."""
    c, k = (w.shape[3] // groups, w.shape[2]) if transposed else (w.shape[2], w.shape[3] // groups)
    taps = len(correlation.rows) * len(correlation.cols)
    shape = (groups, -(-k // width_of(w.dtype)), taps, c, width_of(w.dtype))
    panels = scratch(f"panels {correlation.phase}", shape, w.dtype)
    return Packed(panels.reshape(-1), groups, c, k, taps * c * groups * k)


def fill(w: NDArray, correlation: Correlation, packed: Packed, *, transposed: bool) -> None:
    """Write the weights of a correlation to their place."""
    taps, width = tap_order(correlation, w.shape[1]), width_of(w.dtype)
    sizes = packed.groups, packed.channels, packed.filters
    panels = packed.panels.reshape(packed.groups, -1, len(taps), packed.channels, width)
    _pack(w.reshape(-1), taps, transposed, sizes, panels)


@njit(**options)
def _pack(w, taps, transposed, sizes, panels):  # type: ignore[no-untyped-def]
    groups, c, k = sizes
    for group in range(groups):
        if not transposed:
            copy_panels(w, taps, sizes, group, (0, k), (0, c), panels[group])
            continue
        for number in range(panels.shape[1]):
            copy_transposed_panel(w, taps, sizes, group, number * panels.shape[4], panels[group, number])


def by_image(correlation: Correlation, images: int) -> bool:
    """Return whether a tile's rows are the same pixel of neighbouring images, which all have the same taps.

    Lines of few pixels divide badly into tiles, and their border is most of them.
    """
    return correlation.size[1] <= _SHORT_LINE and images >= _MANY_IMAGES and len(correlation.cols) > 1


def count_lines(correlation: Correlation, images: int) -> int:
    """Return the lines that :func:`correlate` takes a range of: of pixels, or for each pixel one of all images."""
    p, q = correlation.size
    return p * q if by_image(correlation, images) else images * p


def correlate(
    x: NDArray,
    packed: Packed,
    bias: NDArray | None,
    correlation: Correlation,
    lines: Range,
    out: NDArray,
    epilogue: Epilogue = NOTHING,
    first: int = 0,
) -> None:
    """Write a range of lines of a correlation of ``x`` (n, h, w, c), C-contiguous, into ``out``.

    ``out`` (n, whole rows, whole columns, k) is the whole result; the correlation's phase and spacing say
    which of its pixels are written, and the filters may be only some of k, from the ``first`` on. An epilogue needs
    all of both to be.
    """
    tiles, width = tiles_of(x.dtype), width_of(x.dtype)
    start = scratch("start", (packed.groups, -(-packed.filters // width) * width), x.dtype)
    start[:] = 0
    if bias is not None:
        start[:, : packed.filters] = bias.reshape(packed.groups, -1)
    edge = scratch("edge", (16 * width,), x.dtype)
    image_row = max(1, x.strides[1] * correlation.step[0])
    work: Iterable[Lines] = [(x, correlation, out, lines)]
    across = by_image(correlation, len(x))
    if across and x.strides[0] % _WAY_BYTES == 0:
        work = _images_apart(x, correlation, out, lines)
    elif not across:
        work = even_lines(x, correlation, out, lines, _LINE_TILES * tiles.double)
    add = epilogue.flat(out)
    for images, part, whole, span in work:
        offset = (whole.ctypes.data - out.ctypes.data) // out.itemsize
        correlate_lines(
            images.ctypes.data,
            packed.panels,
            start.reshape(-1),
            edge,
            whole.reshape(-1)[first:],
            walk_of(part, images.shape, whole.shape, images.strides[0] // x.itemsize),
            tiles,
            (packed.groups, packed.channels, packed.filters),
            _cut(len(part.cols), packed.channels, width * x.itemsize),
            _MANY_IMAGES if across else 1 if len(part.rows) == 1 else max(1, _IMAGE_BYTES // image_row),
            span,
            across,
            (add[offset:], epilogue.flags),
        )


def multiply(lowered: NDArray, packed: Packed, bias: NDArray | None, columns: Range, out: NDArray) -> None:
    """Write lowered rows (m, depth) times a part of the weights, plus bias, into columns of ``out`` (m, k)."""
    rows, whole = (array.reshape(1, 1, *array.shape) for array in (lowered, out))
    pixels = forward_correlation(_PIXEL, 1, len(lowered))
    part = None if bias is None else bias[slice(*columns)]
    correlate(rows, packed, part, pixels, (0, 1), whole, first=columns[0])


Lines = tuple[NDArray, Correlation, NDArray, Range]
"""Images, the correlation over them, its result and the rows of that."""


def even_lines(
    x: NDArray, correlation: Correlation, result: NDArray, rows: Range, length: int
) -> Iterator[Lines]:
    """Yield the same work in lines of pixels that suit tiles better, where there are such.

    ``length`` is that of lines whose pixels do not know their neighbours.
    """
    c = correlation
    whole = c.size == result.shape[1:3] and c.step == c.spacing == (1, 1) and c.size == x.shape[1:3]
    if whole and c.rows == c.cols == (0,):
        for lines in _long_lines(x, correlation, result, rows, length):
            yield from _lines_apart(*lines) if x.strides[2] % _WAY_BYTES == 0 else (lines,)
    elif x.shape[3] < tiles_of(x.dtype).lanes and x[:1].nbytes <= _PADDED_BYTES:
        yield from _padded_lines(x, correlation, result, rows)
    else:
        yield x, correlation, result, rows


def _long_lines(
    x: NDArray, correlation: Correlation, result: NDArray, rows: Range, length: int
) -> Iterator[Lines]:
    """Yield the pixels of a 1x1 convolution as rows that tiles divide evenly, then the rest."""
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
        _pad(some.reshape(-1, c), 0, copy.reshape(-1, apart))
        size = some.shape[1:3]
        yield copy, replace(correlation, size=size), result[:, first : first + most], (0, size[0])


def _images_apart(x: NDArray, correlation: Correlation, result: NDArray, pixels: Range) -> Iterator[Lines]:
    """Yield the rows of images that some pixels read, copied a few at a time, one cache line further apart.

    As in :func:`_lines_apart`, where a tile's pixels are the same one of neighbouring images.
    """
    c, q, step = correlation, correlation.size[1], correlation.step[0]
    top = max(0, pixels[0] // q * step + min(c.rows))
    bottom = min((pixels[1] - 1) // q * step + max(c.rows) + 1, x.shape[1])
    shape = max(bottom - top, 0), *x.shape[2:]
    size = prod(shape)
    if _MANY_IMAGES * size * x.itemsize > _IMAGES_BYTES:
        yield x, correlation, result, pixels
        return
    moved = replace(correlation, rows=tuple(row - top for row in c.rows))
    for first in range(0, len(x), _MANY_IMAGES):
        some = x[first : first + _MANY_IMAGES, top : top + shape[0]]
        room = scratch("padded", (len(some), size + tiles_of(x.dtype).lanes), x.dtype)
        copy = room[:, :size].reshape(some.shape)
        np.copyto(copy, some)
        yield copy, moved, result[first : first + _MANY_IMAGES], pixels


def _padded_lines(x: NDArray, correlation: Correlation, result: NDArray, rows: Range) -> Iterator[Lines]:
    """Yield images copied with their padding to the left and right.

    With few channels a tile of the border's pixels costs more than the products by zeros it saves.
    """
    (n, h, w, c), (p, q) = x.shape, correlation.size
    left = max(0, -correlation.cols[0])
    right = max(0, (q - 1) * correlation.step[1] + correlation.cols[-1] - (w - 1))
    if left == right == 0:
        yield x, correlation, result, rows
        return
    moved = replace(correlation, cols=tuple(offset + left for offset in correlation.cols))
    most = max(1, _PADDED_BYTES // max(1, h * (left + w + right) * c * x.itemsize))
    for first in range(rows[0] // p, -(-rows[1] // p), most):
        images = slice(first, min(first + most, n))
        copy = scratch("padded", (images.stop - first, h, left + w + right, c), x.dtype)
        _pad(x[images].reshape(len(copy) * h, w * c), left * c, copy.reshape(len(copy) * h, -1))
        yield (
            copy,
            moved,
            result[images],
            (max(rows[0] - first * p, 0), min(rows[1] - first * p, len(copy) * p)),
        )


@njit(**options)
def _pad(rows, left, padded):  # type: ignore[no-untyped-def]
    """Copy rows with zeros on both sides, in one call: two threads that return to Python wait for each other."""
    length = rows.shape[1]
    for i in range(len(rows)):
        for j in range(left):
            padded[i, j] = 0
        for j in range(length):
            padded[i, left + j] = rows[i, j]
        for j in range(left + length, padded.shape[1]):
            padded[i, j] = 0


def _cut(taps: int, channels: int, row_bytes: int) -> Pair:
    """Return the kernel rows and channels of a panel that are added at once."""
    kernel_row = taps * channels * row_bytes
    if kernel_row <= _PANEL_BYTES:
        return max(1, _PANEL_BYTES // kernel_row), channels
    return 1, max(1, _PANEL_BYTES // (taps * row_bytes))
