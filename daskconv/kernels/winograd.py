"""Winograd's convolution: 3x3 and 5x5 kernels of stride 1 with a fraction of the multiplications.

Images are cut into tiles of m x m output pixels. A block of tiles is transformed into scratch that stays in the
caches, multiplied by the transformed weights (one matrix product for each of the tile's points, by the
micro-kernel), and transformed back (Lavin and Gray 2016). Pixels outside of the image are read from a row of zeros
and written to a spare row, so that tiles at the border are like any other.

Numbers grow in the transforms and cancel again: a result is exact to about 1e-5 of its largest element in float32.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.epilogue import Epilogue, finish_run
from daskconv.kernels.fork_join import Helpers, bound, fork
from daskconv.kernels.panels import options
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import VECTORS, add_tile, columns_of, tiles_of
from daskconv.kernels.transform import INPUT, OUTPUT, transform, transforms_of
from daskconv.kernels.turns import Turns, take
from daskconv.kernels.winograd_filters import Filters, address_lists, fill, odd_lines, pack, padded

# Transformed pixels and products of a block: what a core's share of the caches holds.
_BLOCK_BYTES = 2 << 20
_MOST_TILES, _FEWEST_TILES = 256, 24


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
    turns: Turns,
    out: NDArray,
    epilogue: Epilogue,
    helpers: Helpers,
) -> int:
    """Pack the filters and write tiles, counted over all images, of a correlation of ``x`` (n, h, w, c) into ``out``.

    Threads take turns of tiles; or of spans of filters, with all tiles, where each has room for one span.
    Returns how many helpers came.
    """
    transforms = transforms_of(filters.m, filters.r, x.dtype)
    points, threads = transforms.points**2, helpers.threads
    panel = padded(filters.filters, x.dtype)
    block = min(block_of(points, filters.channels + panel, x.itemsize), max(turns.longest, 1))
    reads = Buffers(block, odd_lines(block * filters.channels, x.itemsize), filters.channels)
    writes = Buffers(block, odd_lines(block * panel, x.itemsize), panel)
    start = scratch("start", (2, filters.groups, padded(filters.whole, x.dtype)), x.dtype)
    start[:] = 0
    if bias is not None:
        start[1, :, : filters.whole] = bias.reshape(filters.groups, -1)
    zeros = scratch("zeros", (filters.channels,), x.dtype)
    zeros[:] = 0
    return _take_turns(
        helpers.gate,
        filters.owned,
        (x.reshape(-1), filters.panels, start, zeros, out.reshape(-1)),
        (
            scratch("spare", (threads, filters.filters), x.dtype),
            scratch("reads", (threads, points * reads.points), x.dtype),
            scratch("writes", (threads, points * writes.points), x.dtype),
            address_lists(transforms, threads),
            filters.copies(threads),
        ),
        (turns.lines, turns.taken),
        filters.source,
        map_of(correlation, (x.shape[1], x.shape[2]), filters.m),
        (reads, writes),
        transforms,
        tiles_of(x.dtype),
        (filters.groups, filters.channels, filters.filters, filters.stride),
        (filters.first, filters.whole),
        (epilogue.flat(out), epilogue.flags),
    )


@njit(**options)
def _take_turns(  # type: ignore[no-untyped-def]
    gate, owned, arrays, rooms, turns, source, where, buffers, transforms, micro, channels, place, epilogue
):
    arguments = (arrays, rooms, turns, source, where, buffers, transforms, micro, channels, place, epilogue)
    if owned:
        return fork(gate, bound(_correlate_spans, arguments))
    return fork(gate, bound(_correlate_tiles, arguments))


@njit(**options)
def _correlate_tiles(  # type: ignore[no-untyped-def]
    number, arrays, rooms, turns, source, where, buffers, transforms, micro, channels, place, epilogue
):
    """Pack filters together with the others, then take turns of tiles."""
    lists, mine, copy, panels = _rooms_of(number, arrays, rooms, 0)
    packed, sizes = (panels, channels[3], place[0]), (channels[0], channels[1], place[1])
    fill(source, copy, packed, lists, transforms, sizes)
    lines, taken = turns
    turn = take(taken)
    while turn < len(lines):
        tiles = (lines[turn, 0], lines[turn, 1])
        _correlate(mine, where, buffers, transforms, micro, channels, place, tiles, epilogue)
        turn = take(taken)


@njit(**options)
def _correlate_spans(  # type: ignore[no-untyped-def]
    number, arrays, rooms, turns, source, where, buffers, transforms, micro, channels, place, epilogue
):
    """Take turns of spans of filters: pack one, and write what it makes of all tiles."""
    lists, mine, copy, panels = _rooms_of(number, arrays, rooms, number)
    (groups, cg, _, stride), whole, (reads, writes) = channels, place[1], buffers
    tiles, width = (0, turns[0][-1, 1]), VECTORS * micro.lanes
    turn = take(source.turns)
    while turn < len(source.spans):
        first, stop = source.spans[turn]
        span, panel = (first, stop), (stop - first + width - 1) // width * width
        pack(source, copy, (panels, stride, first), lists, transforms, (groups, cg, whole), span)
        some, room = (groups, cg, stop - first, stride), (reads, Buffers(writes.block, writes.points, panel))
        _correlate(mine, where, room, transforms, micro, some, (first, whole), tiles, epilogue)
        turn = take(source.turns)


@njit(**options)
def _rooms_of(number, arrays, rooms, owner):  # type: ignore[no-untyped-def]
    """Return a thread's lists, the arrays that it works on, its copy and its owner's panels."""
    x, panels, start, zeros, out = arrays
    spares, reads, writes, addresses, copies = rooms
    lists, own = addresses[number], panels[owner]
    mine = (x, own, start, zeros, spares[number], reads[number], writes[number], out, lists)
    return lists, mine, copies[number], own


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
                _multiply(arrays, point, g, buffers, transforms, micro, channels, place[0], count)
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
def _multiply(arrays, point, g, buffers, transforms, micro, channels, first, count):  # type: ignore[no-untyped-def]
    """Multiply a block of one point by its weights, those of filters from the ``first`` on."""
    _, panels, start, _, _, v, y, _, _ = arrays
    reads, writes = buffers
    _, cg, kg, stride = channels
    size, width, padded = micro.itemsize, VECTORS * micro.lanes, writes.panel
    # The products of the point 1 are the sum of a tile's: a bias that they start with is added to every pixel.
    one = transforms.points + 1
    begin = start[1, g, first:].ctypes.data if point == one else start.ctypes.data
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
