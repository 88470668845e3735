"""Implicit lowering: the micro-kernel reads the image where it lies, so no lowered copy is made.

The rows of a tile are neighbouring output pixels of one image row, its vectors are output channels, and its
loops run over the kernel's rows, its taps and the input channels. Taps that fall into the padding are
skipped, not multiplied: at the border, such a tap is added to those pixels of a tile that have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.panels import copy_panel, options, tap_order, width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import VECTORS, add_tile, columns_of, tiles_of

# The part of a panel that is read for one tile after another stays in L2, beside the image rows it meets.
_PANEL_BYTES, _IMAGE_BYTES = 192 << 10, 256 << 10
# Images of few channels, copied with their padding.
_PADDED_BYTES = 1 << 20
# Tiles in a row of pixels of a 1x1 convolution.
_LINE_TILES = 8

Rows = tuple[int, int]
"""A range of output rows, counted over images and rows together."""


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


def pack(w: NDArray, correlation: Correlation, groups: int, *, transposed: bool) -> Packed:
    """Return the weights (r, s, c / groups, k) of a correlation, packed.

    ``transposed`` swaps the channels, as the input gradient needs: it reads k and writes c.
    """
    _, s, c, k = w.shape
    c, k = (k // groups, c) if transposed else (c, k // groups)
    taps = tap_order(correlation, s)
    shape = (groups, -(-k // width_of(w.dtype)), len(taps), c, width_of(w.dtype))
    panels = scratch(f"panels {correlation.phase}", shape, w.dtype)
    _pack(w.reshape(-1), taps, transposed, (groups, c, k), panels)
    return Packed(panels.reshape(-1), groups, c, k, len(taps) * c * groups * k)


@njit(**options)
def _pack(w, taps, transposed, sizes, panels):  # type: ignore[no-untyped-def]
    for group in range(sizes[0]):
        for number in range(panels.shape[1]):
            first = number * panels.shape[4]
            copy_panel(w, taps, transposed, sizes, group, first, panels[group, number])


class Taps(NamedTuple):
    """Evenly spaced offsets of taps along one axis."""

    first: int
    step: int
    number: int


class Walk(NamedTuple):
    """A correlation as compiled code takes it: taps, the image that is read, and the whole result."""

    rows: Taps
    cols: Taps
    step: Pair
    size: Pair
    phase: Pair
    spacing: Pair
    image: tuple[int, ...]
    whole: tuple[int, ...]


class Part(NamedTuple):
    """A panel's place, and which of its kernel rows and channels are added at once."""

    group: int
    filter: int
    filters: int
    vectors: int
    panel: int
    start: int
    rows: Pair
    channels: Pair


def walk_of(correlation: Correlation, image: tuple[int, ...], whole: tuple[int, ...]) -> Walk:
    """Return the walk of a correlation over an image (n, h, w, c) into a result (n, h, w, k)."""
    c = correlation
    return Walk(taps_of(c.rows), taps_of(c.cols), c.step, c.size, c.phase, c.spacing, image, whole)


def taps_of(offsets: tuple[int, ...]) -> Taps:
    """Return evenly spaced offsets as first, step and number."""
    return Taps(offsets[0], offsets[1] - offsets[0] if len(offsets) > 1 else 1, len(offsets))


def correlate(
    x: NDArray, packed: Packed, bias: NDArray | None, correlation: Correlation, rows: Rows, out: NDArray
) -> None:
    """Write a range of output rows of a correlation of ``x`` (n, h, w, c), C-contiguous, into ``out``.

    ``out`` (n, whole rows, whole columns, k) is the whole result; the correlation's phase and spacing say
    which of its pixels are written.
    """
    tiles = tiles_of(x.dtype)
    width = VECTORS * tiles.lanes
    start = scratch("start", (packed.groups, -(-packed.filters // width) * width), x.dtype)
    start[:] = 0
    if bias is not None:
        start[:, : packed.filters] = bias.reshape(packed.groups, -1)
    image_row = max(1, x.strides[1] * correlation.step[0])
    for images, part, whole, lines in even_lines(x, correlation, out, rows, _LINE_TILES * tiles.double):
        _correlate(
            images.ctypes.data,
            packed.panels.ctypes.data,
            start.reshape(-1),
            scratch("edge", (16 * width,), x.dtype),
            whole.reshape(-1),
            walk_of(part, images.shape, whole.shape),
            tiles,
            (packed.groups, packed.channels, packed.filters),
            _cut(len(part.cols), packed.channels, width * x.itemsize),
            max(1, _IMAGE_BYTES // image_row),
            lines,
        )


Lines = tuple[NDArray, Correlation, NDArray, Rows]
"""Images, the correlation over them, its result and the rows of that."""


def even_lines(
    x: NDArray, correlation: Correlation, result: NDArray, rows: Rows, length: int
) -> Iterator[Lines]:
    """Yield the same work in lines of pixels that suit tiles better, where there are such.

    ``length`` is that of lines whose pixels do not know their neighbours.
    """
    c = correlation
    whole = c.size == result.shape[1:3] and c.step == c.spacing == (1, 1) and c.size == x.shape[1:3]
    if whole and c.rows == c.cols == (0,):
        yield from _long_lines(x, correlation, result, rows, length)
    elif x.shape[3] < tiles_of(x.dtype).lanes and x[:1].nbytes <= _PADDED_BYTES:
        yield from _padded_lines(x, correlation, result, rows)
    else:
        yield x, correlation, result, rows


def _long_lines(
    x: NDArray, correlation: Correlation, result: NDArray, rows: Rows, length: int
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


def _padded_lines(x: NDArray, correlation: Correlation, result: NDArray, rows: Rows) -> Iterator[Lines]:
    """Yield images copied with their padding to the left and right.

    With few channels a tile of the border's pixels costs more than the products by zeros it saves.
    """
    (n, h, w, c), (p, q) = x.shape, correlation.size
    left = max(0, -correlation.cols[0])
    right = max(0, (q - 1) * correlation.step[1] + correlation.cols[-1] - (w - 1))
    moved = replace(correlation, cols=tuple(offset + left for offset in correlation.cols))
    most = max(1, _PADDED_BYTES // max(1, h * (left + w + right) * c * x.itemsize))
    for first in range(rows[0] // p, -(-rows[1] // p), most):
        images = slice(first, min(first + most, n))
        copy = scratch("padded", (images.stop - first, h, left + w + right, c), x.dtype)
        copy[:, :, :left], copy[:, :, left + w :] = 0, 0
        copy[:, :, left : left + w] = x[images]
        yield (
            copy,
            moved,
            result[images],
            (max(rows[0] - first * p, 0), min(rows[1] - first * p, len(copy) * p)),
        )


def _cut(taps: int, channels: int, row_bytes: int) -> Pair:
    """Return the kernel rows and channels of a panel that are added at once."""
    kernel_row = taps * channels * row_bytes
    if kernel_row <= _PANEL_BYTES:
        return max(1, _PANEL_BYTES // kernel_row), channels
    return 1, max(1, _PANEL_BYTES // (taps * row_bytes))


@njit(**options)
def valid(first, step, count, size):  # type: ignore[no-untyped-def]
    """Return the range of i, within 0 .. count, for which ``first + i * step`` lies in 0 .. size."""
    low = min(max(-(first // step), 0), count)
    return low, min(max((size - 1 - first) // step + 1, low), count)


@njit(**options)
def _correlate(x, panels, start, edge, out, walk, tiles, channels, cut, image_rows, rows):  # type: ignore[no-untyped-def]
    groups, cg, kg = channels
    width = VECTORS * tiles.lanes
    count = (kg + width - 1) // width
    size = walk.rows.number * walk.cols.number * cg * width
    for block in range(rows[0], rows[1], image_rows):
        for panel in range(groups * count):
            g, first = panel // count, panel % count * width
            filters = min(width, kg - first)
            vectors = (filters + tiles.lanes - 1) // tiles.lanes
            for r in range(0, walk.rows.number, cut[0]):
                for c in range(0, cg, cut[1]):
                    part = Part(
                        g,
                        g * kg + first,
                        filters,
                        vectors,
                        panel * size,
                        panel * width,
                        (r, min(r + cut[0], walk.rows.number)),
                        (c, min(c + cut[1], cg)),
                    )
                    for row in range(block, min(block + image_rows, rows[1])):
                        _add_row(x, panels, start, edge, out, walk, tiles, cg, part, row)


@njit(**options)
def _add_row(x, panels, start, edge, out, walk, tiles, cg, part, row):  # type: ignore[no-untyped-def]
    """Add a part of a panel to one row of output pixels, tile by tile."""
    p, q = walk.size
    n, i = row // p, row % p
    _, whole_rows, whole_cols, k = walk.whole
    to_row = k * walk.spacing[1]
    at = (
        (n * whole_rows + walk.phase[0] + i * walk.spacing[0]) * whole_cols + walk.phase[1]
    ) * k + part.filter
    y = i * walk.step[0] + walk.rows.first
    low, high = valid(y, walk.rows.step, walk.rows.number, walk.image[1])
    rows = max(low, part.rows[0]), min(high, part.rows[1])
    line = (n * walk.image[1] + y) * walk.image[2]
    ragged = part.filters < part.vectors * tiles.lanes
    j = 0
    for m, number in columns_of(q, tiles[part.vectors]):
        end = j + m * number
        while j < end:
            z = j * walk.step[1] + walk.cols.first
            to, first, step = out, at, to_row
            run = _whole_tiles(walk, z, m, (end - j) // m)
            if ragged:
                # Whole vectors would write over the next pixel's first channels.
                to, first, step, run = edge, 0, VECTORS * tiles.lanes, 1
                copy_rows(out, at, to_row, edge, 0, step, m, part.filters)
            _add_taps(x, line, panels, start, to, first, step, walk, tiles, cg, part, rows, z, (m, run))
            if ragged:
                copy_rows(edge, 0, step, out, at, to_row, m, part.filters)
            j += m * run
            at += m * run * to_row


@njit(**options)
def _whole_tiles(walk, z, m, most):  # type: ignore[no-untyped-def]
    """Return how many tiles of m pixels from column z on can be done at once: those that have every tap, or one."""
    span = (walk.cols.number - 1) * walk.cols.step
    pixels = (walk.image[2] - 1 - span - z) // walk.step[1] + 1
    return max(1, min(most, pixels // m)) if z >= 0 else 1


@njit(**options)
def copy_rows(source, at, step, to, to_at, to_step, rows, length):  # type: ignore[no-untyped-def]
    """Copy the first elements of some rows between two flat arrays."""
    for row in range(rows):
        for t in range(length):
            to[to_at + row * to_step + t] = source[at + row * step + t]


@njit(**options)
def _add_taps(x, line, panels, start, to, to_at, to_row, walk, tiles, cg, part, rows, z, shape):  # type: ignore[no-untyped-def]
    """Add the taps that all pixels of a run of tiles have, then each that only some have; z is the first's column."""
    m = shape[0] * shape[1]
    (_, _, w, c), cols = walk.image, walk.cols
    first, last = (
        valid(z, cols.step, cols.number, w)[0],
        valid(z + (m - 1) * walk.step[1], cols.step, cols.number, w)[1],
    )
    fresh = part.rows[0] == 0 and part.channels[0] == 0
    size, width = tiles.itemsize, VECTORS * tiles.lanes
    height, depth = rows[1] - rows[0], part.channels[1] - part.channels[0]
    a_row, a_steps = walk.step[1] * c, (walk.rows.step * w * c, cols.step * c, 1)
    b_steps = (cols.number * cg * width, cg * width, width)
    a = x + size * ((line + rows[0] * walk.rows.step * w + z) * c + part.group * cg + part.channels[0])
    b = panels + size * (part.panel + (rows[0] * cols.number * cg + part.channels[0]) * width)
    at, begin = to.ctypes.data + to_at * size, start.ctypes.data + part.start * size
    if height > 0 and last > first:
        counts = (height, last - first, depth)
        if depth == c and cols.step == 1:  # neighbouring taps and all their channels are one run in memory
            counts = (height, 1, (last - first) * depth)
        addresses = (a + first * a_steps[1] * size, b + first * b_steps[1] * size, at, begin)
        tile, onto = (shape[0], part.vectors, shape[1]), 0 if fresh else 1
        add_tile(tiles, tile, addresses, (a_row, to_row), counts, a_steps, b_steps, onto)
    elif fresh:
        for r in range(m):
            for f in range(part.filters):
                to[to_at + r * to_row + f] = start[part.start + f]
    for tap in range(cols.number if height > 0 else 0):
        if first <= tap < last:
            continue
        left, right = valid(z + tap * cols.step, walk.step[1], m, w)
        if right > left:
            addresses = (
                a + (tap * a_steps[1] + left * a_row) * size,
                b + tap * b_steps[1] * size,
                at + left * to_row * size,
                begin,
            )
            tile, counts = (right - left, part.vectors, 1), (height, 1, depth)
            add_tile(tiles, tile, addresses, (a_row, to_row), counts, a_steps, b_steps, 1)
