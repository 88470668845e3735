"""Winograd's convolution: 3x3 and 5x5 kernels of stride 1 with a fraction of the multiplications.

Images are cut into tiles of m x m output pixels. A block of tiles is transformed into scratch that stays in the
caches, multiplied by the transformed weights (one matrix product for each of the tile's points, by the
micro-kernel), and transformed back (Lavin and Gray 2016). Pixels outside of the image are read from a row of zeros
and written to a spare row, so that tiles at the border are like any other.

Numbers grow in the transforms and cancel again: a result is exact to about 1e-5 of its largest element in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import DTypeLike, NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.epilogue import NOTHING, Epilogue, finish_run
from daskconv.kernels.panels import copy_panels, copy_transposed_panel, options, tap_order, width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import VECTORS, add_tile, columns_of, tiles_of
from daskconv.kernels.transform import (
    FILTER,
    INPUT,
    OUTPUT,
    Transforms,
    transform,
    transforms_of,
)
from daskconv.kernels.winograd_tiles import tile_size
from daskconv.layout import even_parts

# Transformed pixels and products of a block: what a core's share of the caches holds.
_BLOCK_BYTES = 2 << 20
_MOST_TILES, _FEWEST_TILES = 256, 24
# Transformed filters: more than fit are done one part after another.
_FILTER_BYTES = 12 << 20
# Filters that wait in L2 to be transformed, read in the order of the weights.
_COPY_BYTES = 256 << 10


@dataclass(frozen=True)
class Filters:
    """Transformed weights in the order in which tiles of the micro-kernel read them.

    Attributes
    ----------
    panels : array (groups, points, panels, channels, panel width), flat, points a ``stride`` apart
    stride : int
    groups, channels, filters : int
        Groups, and the input and output channels of one.
    first, whole : int
        These filters are those from ``first`` on, of the ``whole`` number that a group has.
    m, r : int
        Output pixels of a tile, and taps, along one axis.
    """

    panels: NDArray
    stride: int
    groups: int
    channels: int
    filters: int
    first: int
    whole: int
    m: int
    r: int


class Map(NamedTuple):
    """Where tiles lie: outputs, tiles along both axes, the first tap's offset, and the image that is read."""

    size: Pair
    tiles: Pair
    first: Pair
    image: Pair


class Buffers(NamedTuple):
    """How transformed tiles lie in scratch: elements from one point to the next, and panels of channels."""

    block: int
    points: int
    panel: int


def filter_spans(
    w: NDArray, correlation: Correlation, groups: int, parts: int, *, transposed: bool
) -> list[Pair]:
    """Return at least so many ranges of a group's filters, each small enough to be packed at once."""
    r, _, c, k = w.shape
    c, k = (k // groups, c) if transposed else (c, k // groups)
    points, width = (tile_size(correlation) + r - 1) ** 2, width_of(w.dtype)
    panels = -(-k // width)
    fit = max(_FILTER_BYTES // (points * c * width * w.itemsize * groups), 1)
    return panel_spans(w.dtype, (0, k), max(-(-panels // fit), parts))


def panel_spans(dtype: DTypeLike, span: Pair, parts: int) -> list[Pair]:
    """Cut a range of a group's channels, in whole panels: so often, or into single panels where these are fewer."""
    (first, end), width = span, width_of(dtype)
    panels = -(-(end - first) // width)
    return [
        (first + i * width, min(first + j * width, end)) for i, j in even_parts(panels, min(parts, panels))
    ]


def pack(w: NDArray, correlation: Correlation, groups: int, span: Pair, *, transposed: bool) -> Filters:
    """Return a range of filters of weights (r, s, c / groups, k), transformed and packed.

    ``transposed`` swaps the channels, as the input gradient needs: it reads k and writes c.
    """
    filters = unpacked(w, correlation, groups, span, transposed=transposed)
    pack_some(filters, w, correlation, span, transposed)
    return filters


def unpacked(w: NDArray, correlation: Correlation, groups: int, span: Pair, *, transposed: bool) -> Filters:
    """Return room for a range of filters; :func:`pack_some` fills it."""
    r, _, c, k = w.shape
    c, k = (k // groups, c) if transposed else (c, k // groups)
    transforms = transforms_of(tile_size(correlation), r, w.dtype)
    width = width_of(w.dtype)
    count = -(-(span[1] - span[0]) // width)
    stride = odd_lines(count * c * width, transforms.itemsize)
    panels = scratch("panels", (groups * transforms.points**2 * stride,), w.dtype)
    return Filters(panels, stride, groups, c, span[1] - span[0], span[0], k, transforms.m, r)


def pack_some(filters: Filters, w: NDArray, correlation: Correlation, span: Pair, transposed: bool) -> None:
    """Transform and pack some of the filters, from a panel's first on."""
    r, groups, c = filters.r, filters.groups, filters.channels
    transforms = transforms_of(filters.m, r, w.dtype)
    width = width_of(w.dtype)
    panels = 1 if transposed else -(-(span[1] - span[0]) // width)
    some = c if transposed else min(c, max(_COPY_BYTES // (r * r * panels * width * w.itemsize), 1))
    copy = scratch("copy", (panels, r * r, some, width), w.dtype)
    order, lists = tap_order(correlation, r), address_lists(transforms)
    packed, sizes = (filters.panels, filters.stride, filters.first), (groups, c, filters.whole)
    _pack(w.reshape(-1), order, transposed, copy, packed, lists, transforms, sizes, span)


def address_lists(transforms: Transforms) -> NDArray[np.int64]:
    """Return room for the addresses that transforms read and write: four lists of a tile's points."""
    return scratch("addresses", (4, transforms.points**2), np.int64)


def odd_lines(elements: int, itemsize: int) -> int:
    """Return at least so many elements that make an odd number of cache lines: points never share a set."""
    line = 64 // itemsize
    return (-(-elements // line) | 1) * line


@njit(**options)
def _pack(w, order, transposed, copy, packed, lists, transforms, sizes, span):  # type: ignore[no-untyped-def]
    """Transform filters from a copy in which those of a panel are neighbours: some channels of all, or a panel's."""
    (panels, stride, start), (groups, c, _) = packed, sizes
    points, size, width, some = transforms.points**2, transforms.itemsize, copy.shape[3], copy.shape[2]
    for g in range(groups):
        for point in range(points):
            lists[1, point] = panels.ctypes.data + size * (g * points + point) * stride
        if transposed:
            for first in range(span[0], span[1], width):
                copy_transposed_panel(w, order, sizes, g, first, copy[0])
                _transform_panel(transforms, copy[0], lists, (first - start) * c, c)
            continue
        for channel in range(0, c, some):
            end = min(channel + some, c)
            copy_panels(w, order, sizes, g, span, (channel, end), copy)
            for panel, first in enumerate(range(span[0], span[1], width)):
                _transform_panel(
                    transforms, copy[panel], lists, (first - start) * c + channel * width, end - channel
                )


@njit(**options)
def _transform_panel(transforms, panel, lists, to, channels):  # type: ignore[no-untyped-def]
    """Transform the first channels of a panel (taps, channels, width) of filters."""
    for tap in range(len(panel)):
        lists[0, tap] = panel[tap].ctypes.data
    transform(transforms, FILTER, lists[0], lists[1], 0, to, channels * panel.shape[2])


def map_of(correlation: Correlation, image: Pair, m: int) -> Map:
    """Return where a correlation's tiles of m x m outputs lie."""
    p, q = correlation.size
    return Map((p, q), (-(-p // m), -(-q // m)), (correlation.rows[0], correlation.cols[0]), image)


def block_of(points: int, elements: int, itemsize: int) -> int:
    """Return the tiles of a block whose tiles have so many channels, all in all."""
    fit = _BLOCK_BYTES // (points * elements * itemsize)
    return min(max(fit, _FEWEST_TILES), _MOST_TILES)


def correlate(
    x: NDArray,
    filters: Filters,
    bias: NDArray | None,
    correlation: Correlation,
    tiles: Pair,
    out: NDArray,
    epilogue: Epilogue = NOTHING,
) -> None:
    """Write a range of tiles, counted over all images, of a correlation of ``x`` (n, h, w, c) into ``out``."""
    transforms = transforms_of(filters.m, filters.r, x.dtype)
    micro, points = tiles_of(x.dtype), transforms.points**2
    width = VECTORS * transforms.lanes
    padded = -(-filters.filters // width) * width
    block = min(block_of(points, filters.channels + padded, x.itemsize), max(tiles[1] - tiles[0], 1))
    reads = Buffers(block, odd_lines(block * filters.channels, x.itemsize), filters.channels)
    writes = Buffers(block, odd_lines(block * padded, x.itemsize), padded)
    start = scratch("start", (2, filters.groups, padded), x.dtype)
    start[:] = 0
    if bias is not None:
        stop = filters.first + filters.filters
        start[1, :, : filters.filters] = bias.reshape(filters.groups, -1)[:, filters.first : stop]
    zeros = scratch("zeros", (filters.channels,), x.dtype)
    zeros[:] = 0
    arrays = (
        x.reshape(-1),
        filters.panels,
        start.reshape(-1),
        zeros,
        scratch("spare", (filters.filters,), x.dtype),
        scratch("reads", (points * reads.points,), x.dtype),
        scratch("writes", (points * writes.points,), x.dtype),
        out.reshape(-1),
        address_lists(transforms),
    )
    where = map_of(correlation, (x.shape[1], x.shape[2]), filters.m)
    channels = (filters.groups, filters.channels, filters.filters, filters.stride)
    place = (filters.first, filters.whole)
    after = (epilogue.flat(out), epilogue.flags)
    _correlate(arrays, where, (reads, writes), transforms, micro, channels, place, tiles, after)


@njit(**options)
def _correlate(arrays, where, buffers, transforms, micro, channels, place, tiles, epilogue):  # type: ignore[no-untyped-def]
    x, _, _, zeros, spare, v, y, out, lists = arrays
    reads, writes = buffers
    groups, cg, kg, _ = channels
    a, size = transforms.points, transforms.itemsize
    pixels, transformed, products, results = lists[0], lists[1], lists[2], lists[3]
    for point in range(a * a):
        transformed[point] = v.ctypes.data + size * point * reads.points
        products[point] = y.ctypes.data + size * point * writes.points
    for first in range(tiles[0], tiles[1], reads.block):
        count = min(reads.block, tiles[1] - first)
        for g in range(groups):
            for t in range(count):
                top, left, image = locate(where, first + t, transforms.m)
                origin = (top + where.first[0], left + where.first[1])
                base = x.ctypes.data + size * g * cg
                list_pixels(pixels, base, image, origin, where.image, groups * cg, a, zeros.ctypes.data, size)
                transform(transforms, INPUT, pixels, transformed, 0, t * cg, cg)
            for point in range(a * a):
                _multiply(arrays, point, g, buffers, transforms, micro, channels, count)
            for t in range(count):
                top, left, image = locate(where, first + t, transforms.m)
                base, k = out.ctypes.data + size * (g * place[1] + place[0]), groups * place[1]
                nowhere = spare.ctypes.data
                list_pixels(results, base, image, (top, left), where.size, k, transforms.m, nowhere, size)
                transform(transforms, OUTPUT, products, results, t * writes.panel, 0, kg)
                if epilogue[1][0] or epilogue[1][1]:
                    _finish(out, results, transforms.m, nowhere, kg, size, epilogue)


@njit(**options)
def _finish(out, results, m, nowhere, length, size, epilogue):  # type: ignore[no-untyped-def]
    """Apply an epilogue to a tile's pixels, which are in L1 still."""
    add, flags = epilogue
    for pixel in range(m * m):
        if results[pixel] != nowhere:
            at = (results[pixel] - out.ctypes.data) // size
            finish_run(out, at, add, at, flags, length)


@njit(**options)
def locate(where, tile, m):  # type: ignore[no-untyped-def]
    """Return a tile's first output row and column, and its image."""
    across = where.tiles[0] * where.tiles[1]
    image, place = tile // across, tile % across
    return place // where.tiles[1] * m, place % where.tiles[1] * m, image


@njit(**options)
def list_pixels(places, base, image, origin, shape, channels, length, outside, size):  # type: ignore[no-untyped-def]
    """List the addresses of a square of pixels; those that are not in the image are at ``outside``."""
    h, w = shape
    for i in range(length):
        row = origin[0] + i
        for j in range(length):
            column = origin[1] + j
            inside = 0 <= row < h and 0 <= column < w
            address = base + size * ((image * h + row) * w + column) * channels
            places[i * length + j] = address if inside else outside


@njit(**options)
def _multiply(arrays, point, g, buffers, transforms, micro, channels, count):  # type: ignore[no-untyped-def]
    """Multiply a block of one point by its weights."""
    _, panels, start, _, _, v, y, _, _ = arrays
    reads, writes = buffers
    _, cg, kg, stride = channels
    size, width, padded = micro.itemsize, VECTORS * micro.lanes, writes.panel
    # The products of the point 1 are the sum of a tile's: a bias that they start with is added to every pixel.
    one = transforms.points + 1
    begin = start.ctypes.data + size * ((padded * (len(start) // padded // 2 + g)) if point == one else 0)
    b = panels.ctypes.data + size * (g * transforms.points**2 + point) * stride
    for panel in range(0, padded, width):
        vectors = (min(width, kg - panel) + micro.lanes - 1) // micro.lanes
        t = 0
        for rows, number in columns_of(count, micro[vectors]):
            addresses = (
                v.ctypes.data + size * (point * reads.points + t * cg),
                b + size * panel * cg,
                y.ctypes.data + size * (point * writes.points + t * padded + panel),
                begin + (size * panel if point == one else 0),
            )
            shape, counts = (rows, vectors, number), (1, 1, cg)
            if number > 0:
                add_tile(micro, shape, addresses, (cg, padded), counts, (0, 0, 1), (0, 0, width), 0)
            t += rows * number
