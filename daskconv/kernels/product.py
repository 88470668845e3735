"""Products of rows by packed weights: the pixels of a 1x1 convolution, which know no neighbours, or lowered rows."""

from __future__ import annotations

from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Pair
from daskconv.kernels.copies import copy_rows
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
    tiles, width, c = tiles_of(x.dtype), width_of(x.dtype), x.shape[3]
    line = rows_at_once(x.dtype)
    apart = c + tiles.lanes if c * x.itemsize % _WAY_BYTES == 0 else 0
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
