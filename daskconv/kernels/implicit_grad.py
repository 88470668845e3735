"""The weight gradient without lowering: the same micro-kernel, its loops over output pixels.

A tile's rows are input channels of one tap, or of neighbouring taps where channels are few, and its vectors are
output channels. A tap meets the pixels that have it: nothing of the padding is multiplied.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.copies import copy_images, copy_rows, pack_strip, padded, room_of
from daskconv.kernels.fork_join import Helpers, bound, fork
from daskconv.kernels.implicit_walk import valid, walk_of
from daskconv.kernels.panels import options, width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import VECTORS, add_tile, columns_of, tiles_of
from daskconv.kernels.turns import Turns, take

# Output gradients that are read again for every tap, from L2: the more they are, the fewer times sums are fetched.
# With 16 KiB, which stay in L1, GoogLeNet's layers take 1.04 of the time (AVX-512, 1 thread).
_STRIP_BYTES = 64 << 10


class Strip(NamedTuple):
    """Range of output pixels (whole images, or rows of one), and one panel of filters of theirs."""

    image: int
    images: int
    row: int
    height: int
    group: int
    filter: int
    filters: int
    vectors: int


class Block(NamedTuple):
    """Pixels of a strip, and the elements (taps and channels) of the gradient that they are added to."""

    rows: Pair
    cols: Pair
    y: int
    z: int
    element: int
    elements: int


def weight_grad(
    x: NDArray,
    dy: NDArray,
    correlation: Correlation,
    groups: int,
    turns: Turns,
    out: NDArray,
    helpers: Helpers,
) -> int:
    """Write each turn's part of the gradient by the weights into ``out``: that of some output rows.

    ``x`` (n, h, w, c) and ``dy`` (n, p, q, k) are C-contiguous; ``out`` (turns, r, s, c / groups, k) has a part a turn.
    Returns how many helpers came.
    """
    copies, moved = padded(x, correlation)
    walk = walk_of(moved, (len(x), copies.image[0], copies.columns, x.shape[3]), dy.shape)
    strips, edges, pixels = _buffers(dy, helpers.threads)
    return take_turns(
        helpers.gate,
        x.reshape(-1),
        (copies, room_of(copies, x, helpers.threads)),
        (turns.lines, turns.taken),
        dy.reshape(-1),
        strips,
        edges,
        out.reshape(len(out), -1),
        walk,
        tiles_of(x.dtype),
        groups,
        pixels,
    )


def _buffers(gradients: NDArray, threads: int) -> tuple[NDArray, NDArray, int]:
    """Return room for strips and for edges of so many threads, flat ones, and how many pixels a strip has at most."""
    dtype, width = gradients.dtype, width_of(gradients.dtype)
    pixels = max(_STRIP_BYTES // (width * dtype.itemsize), gradients.shape[2])
    return (
        scratch("strip", (threads, pixels * width), dtype),
        scratch("edge", (threads, 16 * width), dtype),
        pixels,
    )


@njit(**options)
def take_turns(gate, x, copies, turns, dy, strips, edges, out, walk, tiles, groups, pixels):  # type: ignore[no-untyped-def]
    """Take turns of rows, and write the sum of each to its place; images are maybe copied.

    The threads that stand by at the gate join in; returns how many came.
    """
    arguments = (x, copies, turns, dy, strips, edges, out, walk, tiles, groups, pixels)
    return fork(gate, bound(_take_turns, arguments))


@njit(**options)
def _take_turns(number, x, copies, turns, dy, strips, edges, out, walk, tiles, groups, pixels):  # type: ignore[no-untyped-def]
    (how, rooms), (lines, taken), n, p = copies, turns, walk.image[0], walk.size[0]
    room, strip, edge = rooms[number], strips[number], edges[number]
    some = how.number if how.number > 0 else max(n, 1)
    turn = take(taken)
    while turn < len(lines):
        start, stop = lines[turn]
        sums = out[turn]
        sums[:] = 0
        for first in range(start // p, (stop + p - 1) // p, some):
            images = (first, min(first + some, n))
            at = copy_images(x, how, images, room)
            rows = max(start, first * p), min(stop, images[1] * p)
            add_rows(at, dy, strip, edge, sums, walk, tiles, groups, pixels, rows)
        turn = take(taken)


@njit(**options)
def add_rows(x, dy, strip, edge, out, walk, tiles, groups, pixels, rows):  # type: ignore[no-untyped-def]
    """Add what some rows give to the gradient, strip by strip; ``x`` is the address of the first image."""
    _, p, q, k = walk.whole
    kg, width = k // groups, VECTORS * tiles.lanes
    row = rows[0]
    while row < rows[1]:
        n, i = row // p, row % p
        images, height = 1, min(pixels // q, p - i, rows[1] - row)
        if i == 0 and height == p:
            images = max(1, min(pixels // (p * q), (rows[1] - row) // p))
        for g in range(groups):
            for first in range(0, kg, width):
                filters = min(width, kg - first)
                vectors = (filters + tiles.lanes - 1) // tiles.lanes
                part = Strip(n, images, i, height, g, g * kg + first, filters, vectors)
                if filters == vectors * tiles.lanes:
                    _add_strip(x, (dy, row * q * k + part.filter, k), edge, out, walk, tiles, groups, part)
                else:
                    pack_strip(dy, row * q * k + part.filter, k, images * height * q, filters, width, strip)
                    _add_strip(x, (strip, 0, width), edge, out, walk, tiles, groups, part)
        row += images * height


@njit(**options)
def _add_strip(x, strip, edge, out, walk, tiles, groups, part):  # type: ignore[no-untyped-def]
    """Add a strip (an array, where in it, and how far pixels lie apart) to all taps and channels of its filters."""
    (_, h, w, c), q, taps = walk.image, walk.size[1], walk.cols
    cg, step = c // groups, walk.step[1]
    # Where a tap has few channels, tiles take all taps of a row: from the pixels that have them all.
    low, high = 0, 0
    if groups == 1 and taps.step == 1 and cg < 2 * tiles.double:
        low = valid(taps.first, step, q, w)[0]
        high = max(low, valid(taps.first + taps.number - 1, step, q, w)[1])
    for r in range(walk.rows.number):
        y = part.row * walk.step[0] + walk.rows.first + r * walk.rows.step
        rows = valid(y, walk.step[0], part.height, h)
        if rows[0] == rows[1]:
            continue
        element = r * taps.number * cg
        if high > low:
            block = Block(rows, (low, high), y, taps.first, element, taps.number * cg)
            _add_block(x, strip, edge, out, walk, tiles, part, block, cg)
        for tap in range(taps.number):
            z = taps.first + tap * taps.step
            left, right = valid(z, step, q, w)
            # Of the pixels that have the tap, those that the tiles of all taps have left.
            end = min(right, low) if high > low else right
            begin = max(left, high) if high > low else right
            for cols in ((left, end), (begin, right)):
                if cols[1] > cols[0]:
                    block = Block(rows, cols, y, z, element + tap * cg, cg)
                    _add_block(x, strip, edge, out, walk, tiles, part, block, cg)


@njit(**options)
def _add_block(x, strip, edge, out, walk, tiles, part, block, cg):  # type: ignore[no-untyped-def]
    """Add some pixels of a strip to some elements, tile by tile."""
    _, h, w, c = walk.image
    q, k, width = walk.size[1], walk.whole[3], VECTORS * tiles.lanes
    gradients, start, pixel = strip
    top, left = block.y + block.rows[0] * walk.step[0], block.z + block.cols[0] * walk.step[1]
    a = x + tiles.itemsize * (((part.image * h + top) * w + left) * c + part.group * cg)
    b = gradients.ctypes.data + tiles.itemsize * (start + (block.rows[0] * q + block.cols[0]) * pixel)
    counts = (part.images, block.rows[1] - block.rows[0], block.cols[1] - block.cols[0])
    a_steps = (h * w * c, walk.step[0] * w * c, walk.step[1] * c)
    b_steps = (part.height * q * pixel, q * pixel, pixel)
    ragged = part.filters < part.vectors * tiles.lanes
    at = block.element * k + part.filter
    for rows, number in columns_of(block.elements, tiles[part.vectors]):
        for _ in range(number if ragged else min(number, 1)):
            to, to_at, to_row = out, at, k
            if ragged:
                to, to_at, to_row = edge, 0, width
                copy_rows(out, at, k, edge, 0, width, rows, part.filters)
            sums = to.ctypes.data + tiles.itemsize * to_at
            shape, addresses = (rows, part.vectors, 1 if ragged else number), (a, b, sums, sums)
            add_tile(tiles, shape, addresses, (1, to_row), counts, a_steps, b_steps, 1)
            if ragged:
                copy_rows(edge, 0, width, out, at, k, rows, part.filters)
            a += tiles.itemsize * shape[0] * shape[2]
            at += shape[0] * shape[2] * k
