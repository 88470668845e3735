"""Products of rows by packed weights: the pixels of a 1x1 convolution, which know no neighbours, or lowered rows."""

from __future__ import annotations

from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.copies import copy_rows, pack_strip
from daskconv.kernels.epilogue import Epilogue, finish_run
from daskconv.kernels.fork_join import Helpers, bound, fork
from daskconv.kernels.packed import Packed, cut_of, fill, start_of
from daskconv.kernels.panels import options, width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import VECTORS, add_tile, columns_of, tiles_of
from daskconv.kernels.turns import Turns, take

# Rows so many bytes apart, or a multiple, meet in one set of the first cache, and drive each other out.
_WAY_BYTES = 4096
# Tiles of rows that stay in L2 while all panels meet them.
_TILES = 8
# Pixels whose gradients, of a panel, are read again for every tile of channels.
_STRIP = 512
# What is copied at once to lie apart.
_COPIED_BYTES = 1 << 20


def is_pixelwise(x: NDArray, correlation: Correlation, result: NDArray) -> bool:
    """Return whether each pixel of the result is that of the images at its place."""
    c = correlation
    whole = c.size == result.shape[1:3] and c.step == c.spacing == (1, 1) and c.size == x.shape[1:3]
    return whole and c.rows == c.cols == (0,)


def rows_at_once(dtype: object) -> int:
    """Return how many rows meet all weights before the next ones do."""
    return _TILES * tiles_of(dtype).double


def correlate_pixels(
    x: NDArray,
    packed: Packed,
    bias: NDArray | None,
    turns: Turns,
    out: NDArray,
    epilogue: Epilogue,
    helpers: Helpers,
) -> int:
    """Pack the weights, and write ``x`` (n, h, w, c) times them into ``out`` (n, h, w, k), both C-contiguous.

    Turns are of pixels, counted over all images. Returns how many helpers came.
    """
    tiles, width = tiles_of(x.dtype), width_of(x.dtype)
    apart, line = _apart(x, rows_at_once(x.dtype))
    return _take_turns(
        helpers.gate,
        x.reshape(-1),
        scratch("padded", (helpers.threads, line * apart), x.dtype),
        (turns.lines, turns.taken),
        packed.source,
        packed.panels,
        start_of(packed, bias),
        scratch("edge", (helpers.threads, 16 * width), x.dtype),
        out.reshape(-1),
        tiles,
        (packed.groups, packed.channels, packed.filters),
        (line, apart, cut_of(packed, 1)[1]),
        (epilogue.flat(out), epilogue.flags),
    )


def multiply(lowered: NDArray, packed: Packed, bias: NDArray | None, columns: Pair, out: NDArray) -> None:
    """Write lowered rows (m, depth) times a part of the weights, plus bias, into columns of ``out`` (m, k)."""
    width, (first, stop) = width_of(lowered.dtype), columns
    _multiply_lines(
        lowered,
        packed.panels,
        start_of(packed, None if bias is None else bias[first:stop]),
        scratch("edge", (16 * width,), lowered.dtype),
        out[:, first:stop],
        tiles_of(lowered.dtype),
        (packed.groups, packed.channels, packed.filters),
        rows_at_once(lowered.dtype),
        cut_of(packed, 1)[1],
    )


def weight_grad_pixels(
    x: NDArray, dy: NDArray, groups: int, turns: Turns, out: NDArray, helpers: Helpers
) -> int:
    """Write each turn's part of the gradient by the weights of a 1x1 convolution into ``out``.

    ``x`` (n, h, w, c) and ``dy`` (n, h, w, k) are C-contiguous; ``out`` (turns, 1, 1, c / groups, k) has a part a
    turn, and turns are of pixels, counted over all images. Returns how many helpers came.
    """
    tiles, width, c, k = tiles_of(x.dtype), width_of(x.dtype), x.shape[3], dy.shape[3]
    apart, most = _apart(x, _STRIP)
    return _take_turns_of_sums(
        helpers.gate,
        x.reshape(-1),
        dy.reshape(-1),
        scratch("padded", (helpers.threads, most * apart), x.dtype),
        scratch("strip", (helpers.threads, most * width), x.dtype),
        scratch("edge", (helpers.threads, 16 * width), x.dtype),
        (turns.lines, turns.taken),
        out.reshape(len(out), -1),
        tiles,
        (groups, c // groups, k // groups),
        (most, apart, k * x.itemsize % _WAY_BYTES == 0),
    )


def _apart(x: NDArray, most: int) -> tuple[int, int]:
    """Return how many elements pixels are to lie apart in a copy, 0 where they can be read as they lie, and how many.

    These are ``most``, or fewer where they are copied.
    """
    c = x.shape[3]
    if c * x.itemsize % _WAY_BYTES:
        return 0, most
    apart = c + tiles_of(x.dtype).lanes
    return apart, min(most, max(_COPIED_BYTES // (apart * x.itemsize), 1))


@njit(**options)
def _take_turns(gate, x, rooms, turns, weights, panels, start, edges, out, tiles, channels, cut, epilogue):  # type: ignore[no-untyped-def]
    arguments = (x, rooms, turns, weights, panels, start, edges, out, tiles, channels, cut, epilogue)
    return fork(gate, bound(_correlate_turns, arguments))


@njit(**options)
def _correlate_turns(  # type: ignore[no-untyped-def]
    number, x, rooms, turns, weights, panels, start, edges, out, tiles, channels, cut, epilogue
):
    """Pack weights together with the others, then take turns of pixels; those of a line are maybe copied."""
    fill(weights, panels)
    (lines, taken), (groups, cg, kg), (most, apart, depth), (add, flags) = turns, channels, cut, epilogue
    c, k, size, room, edge = groups * cg, groups * kg, tiles.itemsize, rooms[number], edges[number]
    turn = take(taken)
    while turn < len(lines):
        for row in range(lines[turn, 0], lines[turn, 1], most):
            count = min(most, lines[turn, 1] - row)
            a, a_row, to = x.ctypes.data + size * row * c, c, out[row * k : (row + count) * k]
            if apart > 0:
                copy_rows(x, row * c, c, room, 0, apart, count, c)
                a, a_row = room.ctypes.data, apart
            _multiply(a, a_row, panels, start, edge, to, k, tiles, channels, depth, count)
            if flags[0] or flags[1]:
                finish_run(out, row * k, add, row * k, flags, count * k)
        turn = take(taken)


@njit(**options)
def _multiply_lines(lowered, panels, start, edge, out, tiles, channels, most, depth):  # type: ignore[no-untyped-def]
    """Multiply all rows, some at a time."""
    for row in range(0, len(lowered), most):
        count = min(most, len(lowered) - row)
        a, a_row, to = lowered[row:].ctypes.data, lowered.shape[1], out[row:]
        _multiply(
            a, a_row, panels, start, edge, to, out.strides[0] // out.itemsize, tiles, channels, depth, count
        )


@njit(**options)
def _multiply(a, a_row, panels, start, edge, out, to_row, tiles, channels, depth, count):  # type: ignore[no-untyped-def]
    """Multiply some rows, from the address ``a`` on, by all panels, so much of the depth at a time."""
    groups, cg, kg = channels
    size, width = tiles.itemsize, VECTORS * tiles.lanes
    across = (kg + width - 1) // width
    for panel in range(groups * across):
        g, first = panel // across, panel % across * width
        filters = min(width, kg - first)
        vectors = (filters + tiles.lanes - 1) // tiles.lanes
        ragged = filters < vectors * tiles.lanes
        begin = start.ctypes.data + size * panel * width
        for channel in range(0, cg, depth):
            b = panels.ctypes.data + size * (panel * cg + channel) * width
            counts, onto = (1, 1, min(depth, cg - channel)), 1 if channel > 0 else 0
            row = 0
            for rows, number in columns_of(count, tiles[vectors]):
                for _ in range(number if ragged else min(number, 1)):
                    run, at = 1 if ragged else number, row * to_row + g * kg + first
                    to, step = out.ctypes.data + size * at, to_row
                    if ragged:
                        # Whole vectors would write over the next row's first columns.
                        to, step = edge.ctypes.data, width
                        if onto == 1:
                            copy_rows(out, at, to_row, edge, 0, width, rows, filters)
                    addresses = (a + size * (row * a_row + g * cg + channel), b, to, begin)
                    shape, steps = (rows, vectors, run), (0, 0, width)
                    add_tile(tiles, shape, addresses, (a_row, step), counts, (0, 0, 1), steps, onto)
                    if ragged:
                        copy_rows(edge, 0, width, out, at, to_row, rows, filters)
                    row += rows * run


@njit(**options)
def _take_turns_of_sums(gate, x, dy, rooms, strips, edges, turns, out, tiles, channels, cut):  # type: ignore[no-untyped-def]
    arguments = (x, dy, rooms, strips, edges, turns, out, tiles, channels, cut)
    return fork(gate, bound(_add_turns, arguments))


@njit(**options)
def _add_turns(number, x, dy, rooms, strips, edges, turns, out, tiles, channels, cut):  # type: ignore[no-untyped-def]
    """Take turns of pixels, and write the sum of each to its place; pixels are maybe copied."""
    (lines, taken), (groups, cg, _), (most, apart, _), room = turns, channels, cut, rooms[number]
    c, size = groups * cg, tiles.itemsize
    turn = take(taken)
    while turn < len(lines):
        sums = out[turn]
        sums[:] = 0
        for first in range(lines[turn, 0], lines[turn, 1], most):
            pixels = (first, min(first + most, lines[turn, 1]))
            a, a_row = x.ctypes.data + size * first * c, c
            if apart > 0:
                copy_rows(x, first * c, c, room, 0, apart, pixels[1] - first, c)
                a, a_row = room.ctypes.data, apart
            _add_pixels(a, a_row, dy, strips[number], edges[number], sums, tiles, channels, cut[2], pixels)
        turn = take(taken)


@njit(**options)
def _add_pixels(a, a_row, dy, strip, edge, out, tiles, channels, pack, pixels):  # type: ignore[no-untyped-def]
    """Add some pixels, from the address ``a`` on, to the sums of all channels, panel by panel of filters."""
    groups, cg, kg = channels
    size, width, k, count = tiles.itemsize, VECTORS * tiles.lanes, groups * kg, pixels[1] - pixels[0]
    for g in range(groups):
        for first in range(0, kg, width):
            filters = min(width, kg - first)
            vectors = (filters + tiles.lanes - 1) // tiles.lanes
            ragged = filters < vectors * tiles.lanes
            at = pixels[0] * k + g * kg + first
            b, b_row = dy.ctypes.data + size * at, k
            if ragged or pack:
                pack_strip(dy, at, k, count, filters, width, strip)
                b, b_row = strip.ctypes.data, width
            counts, a_steps, b_steps = (1, 1, count), (0, 0, a_row), (0, 0, b_row)
            channel = 0
            for rows, number in columns_of(cg, tiles[vectors]):
                for _ in range(number if ragged else min(number, 1)):
                    run, place = 1 if ragged else number, channel * k + g * kg + first
                    to, step = out.ctypes.data + size * place, k
                    if ragged:
                        to, step = edge.ctypes.data, width
                        copy_rows(out, place, k, edge, 0, width, rows, filters)
                    addresses = (a + size * (g * cg + channel), b, to, to)
                    add_tile(tiles, (rows, vectors, run), addresses, (1, step), counts, a_steps, b_steps, 1)
                    if ragged:
                        copy_rows(edge, 0, width, out, place, k, rows, filters)
                    channel += rows * run
