"""How the micro-kernel walks over an image where it lies: lines of pixels, or one pixel of many images."""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.copies import copy_images, copy_rows
from daskconv.kernels.epilogue import finish_run
from daskconv.kernels.fork_join import bound, fork
from daskconv.kernels.packed import fill
from daskconv.kernels.panels import options
from daskconv.kernels.tile import VECTORS, add_tile, columns_of
from daskconv.kernels.turns import take


class Taps(NamedTuple):
    """Evenly spaced offsets of taps along one axis."""

    first: int
    step: int
    number: int


class Walk(NamedTuple):
    """A correlation as compiled code takes it: taps, the images that are read, and the whole result."""

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
    """Return the walk of a correlation over images (n, h, w, c) into a result (n, h, w, k)."""
    c = correlation
    return Walk(taps_of(c.rows), taps_of(c.cols), c.step, c.size, c.phase, c.spacing, image, whole)


def taps_of(offsets: tuple[int, ...]) -> Taps:
    """Return evenly spaced offsets as first, step and number."""
    return Taps(offsets[0], offsets[1] - offsets[0] if len(offsets) > 1 else 1, len(offsets))


@njit(**options)
def valid(first, step, count, size):  # type: ignore[no-untyped-def]
    """Return the range of i, within 0 .. count, for which ``first + i * step`` lies in 0 .. size."""
    low = min(max(-(first // step), 0), count)
    return low, min(max((size - 1 - first) // step + 1, low), count)


@njit(**options)
def take_turns(gate, arguments):  # type: ignore[no-untyped-def]
    """Pack the weights and take turns of lines, with the threads that stand by at the gate; return how many came.

    The arguments are those of :func:`_take_turns` but the first.
    """
    return fork(gate, bound(_take_turns, arguments))


@njit(**options)
def _take_turns(  # type: ignore[no-untyped-def]
    number,
    x,
    copies,
    turns,
    weights,
    panels,
    start,
    edges,
    out,
    walk,
    tiles,
    channels,
    cut,
    most,
    across,
    epilogue,
):
    """Pack weights together with the others, and take turns of lines, ``most`` at a time; images are maybe copied.

    With ``across`` a line is a pixel of ``most`` images, and all lines of these come before those of the next ones.
    """
    fill(weights, panels)
    (how, rooms), (lines, taken), n, (p, q) = copies, turns, walk.image[0], walk.size
    room, edge = rooms[number], edges[number]
    some = how.number if how.number > 0 else max(n, 1)
    turn = take(taken)
    while turn < len(lines):
        begin, end = lines[turn]
        if across:
            for group in range(begin // (p * q), (end + p * q - 1) // (p * q)):
                images = (group * most, min(group * most + most, n))
                pixels = (max(begin - group * p * q, 0), min(end - group * p * q, p * q))
                at, extent = x.ctypes.data, (images, pixels)
                _correlate_block(
                    at, panels, start, edge, out, walk, tiles, channels, cut, extent, True, epilogue
                )
        else:
            for first in range(begin // p, (end + p - 1) // p, some):
                images = (first, min(first + some, n))
                rows = (max(begin, images[0] * p), min(end, images[1] * p))
                at = copy_images(x, how, images, room)
                correlate_lines(
                    at, panels, start, edge, out, walk, tiles, channels, cut, most, rows, epilogue
                )
        turn = take(taken)


@njit(**options)
def correlate_lines(x, panels, start, edge, out, walk, tiles, channels, cut, most, lines, epilogue):  # type: ignore[no-untyped-def]
    """Write some lines, ``most`` at a time; ``x`` is the address of image 0."""
    for first in range(lines[0], lines[1], most):
        extent = ((0, 0), (first, min(first + most, lines[1])))
        _correlate_block(x, panels, start, edge, out, walk, tiles, channels, cut, extent, False, epilogue)


@njit(**options)
def _correlate_block(x, panels, start, edge, out, walk, tiles, channels, cut, extent, across, epilogue):  # type: ignore[no-untyped-def]
    """Write a block by panels: some lines, or with ``across`` some pixels of some images."""
    images, lines = extent
    groups, cg, kg = channels
    width = VECTORS * tiles.lanes
    count = (kg + width - 1) // width
    size = walk.rows.number * walk.cols.number * cg * width
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
                if across:
                    _add_images(x, panels, start, edge, out, walk, tiles, cg, part, images, lines)
                else:
                    for row in range(lines[0], lines[1]):
                        _add_row(x, panels, start, edge, out, walk, tiles, cg, part, row)
    add, flags = epilogue
    if flags[0] or flags[1]:
        _finish(out, add, flags, walk, images, lines, across)


@njit(**options)
def _finish(out, add, flags, walk, images, lines, across):  # type: ignore[no-untyped-def]
    """Apply an epilogue to a block: lines of pixels, or some pixels of its images."""
    (p, q), k = walk.size, walk.whole[3]
    if not across:
        for line in range(lines[0], lines[1]):
            finish_run(out, line * q * k, add, line * q * k, flags, q * k)
        return
    for image in range(images[0], images[1]):
        at = (image * p * q + lines[0]) * k
        finish_run(out, at, add, at, flags, (lines[1] - lines[0]) * k)


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
                if part.rows[0] + part.channels[0] > 0:
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
    b = panels.ctypes.data + size * (part.panel + (rows[0] * cols.number * cg + part.channels[0]) * width)
    at, begin = to.ctypes.data + to_at * size, start.ctypes.data + part.start * size
    if height > 0 and last > first:
        counts = (height, last - first, depth)
        if depth == c and cols.step == 1:  # neighbouring taps and all their channels are one run in memory
            counts = (height, 1, (last - first) * depth)
        addresses = (a + first * a_steps[1] * size, b + first * b_steps[1] * size, at, begin)
        tile, onto = (shape[0], part.vectors, shape[1]), 0 if fresh else 1
        add_tile(tiles, tile, addresses, (a_row, to_row), counts, a_steps, b_steps, onto)
    elif fresh:
        copy_rows(start, part.start, 0, to, to_at, to_row, m, part.filters)
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


@njit(**options)
def _add_images(x, panels, start, edge, out, walk, tiles, cg, part, images, pixels):  # type: ignore[no-untyped-def]
    """Add a part of a panel to some pixels of some images, all images at once."""
    (_, h, w, c), (_, q), cols = walk.image, walk.size, walk.cols
    _, whole_rows, whole_cols, k = walk.whole
    size, width, depth = tiles.itemsize, VECTORS * tiles.lanes, part.channels[1] - part.channels[0]
    steps = (walk.rows.step * w * c, cols.step * c, 1), (cols.number * cg * width, cg * width, width)
    for pixel in range(pixels[0], pixels[1]):
        i, j = pixel // q, pixel % q
        y, z = i * walk.step[0] + walk.rows.first, j * walk.step[1] + cols.first
        low, high = valid(y, walk.rows.step, walk.rows.number, h)
        low, high = max(low, part.rows[0]), min(high, part.rows[1])
        first, last = valid(z, cols.step, cols.number, w)
        counts = (high - low, last - first, depth)
        if depth == c and cols.step == 1:
            counts = (high - low, min(1, last - first), (last - first) * depth)
        line = (y + low * walk.rows.step) * w + z + first * cols.step
        tap = (low * cols.number + first) * cg + part.channels[0]
        row = images[0] * whole_rows + i * walk.spacing[0] + walk.phase[0]
        at = (row * whole_cols + j * walk.spacing[1] + walk.phase[1]) * k + part.filter
        a = x + size * (images[0] * h * w * c + line * c + part.group * cg + part.channels[0])
        b = panels.ctypes.data + size * (part.panel + tap * width)
        rows = (h * w * c, whole_rows * whole_cols * k)
        _add_pixel(start, edge, out, tiles, part, (a, b), at, rows, counts, steps, images[1] - images[0])


@njit(**options)
def _add_pixel(start, edge, out, tiles, part, operands, at, rows, counts, steps, images):  # type: ignore[no-untyped-def]
    """Add the taps that one pixel has to that pixel of all images."""
    a, b = operands
    size, width = tiles.itemsize, VECTORS * tiles.lanes
    onto = 0 if part.rows[0] == 0 and part.channels[0] == 0 else 1
    ragged = part.filters < part.vectors * tiles.lanes
    for m, number in columns_of(images, tiles[part.vectors]):
        for _ in range(number if ragged else min(number, 1)):
            run = 1 if ragged else number
            to, to_at, to_row = out, at, rows[1]
            if ragged:
                to, to_at, to_row = edge, 0, width
                if onto == 1:
                    copy_rows(out, at, rows[1], edge, 0, width, m, part.filters)
            if min(counts[0], counts[1]) > 0:
                addresses = (a, b, to.ctypes.data + to_at * size, start.ctypes.data + part.start * size)
                shape = (m, part.vectors, run)
                add_tile(tiles, shape, addresses, (rows[0], to_row), counts, steps[0], steps[1], onto)
            elif onto == 0:
                copy_rows(start, part.start, 0, to, to_at, to_row, m * run, part.filters)
            if ragged:
                copy_rows(edge, 0, width, out, at, rows[1], m, part.filters)
            a += size * m * run * rows[0]
            at += m * run * rows[1]
