"""Winograd's weight gradient: tiles of images and of output gradients, transformed, multiplied point by point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.fork_join import Helpers, bound, fork
from daskconv.kernels.panels import options
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import VECTORS, add_tile, columns_of, tiles_of
from daskconv.kernels.transform import FILTER_GRAD, INPUT, OUTPUT_GRAD, transform, transforms_of
from daskconv.kernels.turns import take
from daskconv.kernels.winograd import Buffers, block_of, list_pixels, locate, map_of
from daskconv.kernels.winograd_filters import address_lists, odd_lines, padded
from daskconv.kernels.winograd_tiles import tile_size

# Sums of a weight gradient, of all points: more input channels than fit are done one part after another.
_SUMS_BYTES = 8 << 20


def weight_grad(
    x: NDArray,
    dy: NDArray,
    correlation: Correlation,
    groups: int,
    shares: Sequence[tuple[Pair, Pair]],
    out: NDArray,
    helpers: Helpers,
) -> int:
    """Write the gradient by the weights, or parts of it, into ``out`` (parts, r, s, c / groups, k).

    Threads take turns of ``shares``: ranges of tiles of all images, and of each group's input channels. There is a
    part for each, or one that they fill together. Returns how many helpers came.
    """
    longest, widest = (max(stop - start for start, stop in ranges) for ranges in zip(*shares, strict=True))
    if longest == 0:
        out[:] = 0
        return 0
    m, r = tile_size(correlation), len(correlation.rows)
    transforms, micro, threads = transforms_of(m, r, x.dtype), tiles_of(x.dtype), helpers.threads
    points, width = transforms.points**2, VECTORS * micro.lanes
    cg, kg = x.shape[3] // groups, dy.shape[3] // groups
    filters = padded(kg, x.dtype)
    part = max(_SUMS_BYTES // (points * filters * x.itemsize) // width, 1) * width
    channels = min(padded(widest, x.dtype), part)
    block = min(block_of(points, channels + filters, x.itemsize), longest)
    reads, gradients = (
        Buffers(block, odd_lines(block * length, x.itemsize), block * width) for length in (channels, filters)
    )
    sums = odd_lines(channels * filters, x.itemsize)
    zeros = scratch("zeros", (max(cg, kg, width),), x.dtype)
    zeros[:] = 0
    factors = scratch("writes", (threads, points * gradients.points), x.dtype)
    if kg < filters:
        factors[:] = 0
    return _take_turns(
        helpers.gate,
        (x.reshape(-1), dy.reshape(-1), zeros, out.reshape(len(out), -1)),
        (
            scratch("reads", (threads, points * reads.points), x.dtype),
            factors,
            scratch("sums", (threads, points * sums), x.dtype),
            address_lists(transforms, threads),
        ),
        (np.array(shares, np.int64), np.zeros(1, np.int64)),
        map_of(correlation, (x.shape[1], x.shape[2]), m),
        (reads, gradients),
        transforms,
        micro,
        (groups, cg, kg, sums, filters),
        channels,
    )


@njit(**options)
def _take_turns(gate, arrays, rooms, turns, where, buffers, transforms, micro, sizes, most):  # type: ignore[no-untyped-def]
    arguments = (arrays, rooms, turns, where, buffers, transforms, micro, sizes, most)
    return fork(gate, bound(_add_shares, arguments))


@njit(**options)
def _add_shares(number, arrays, rooms, turns, where, buffers, transforms, micro, sizes, most):  # type: ignore[no-untyped-def]
    """Take turns of shares: so many channels at a time."""
    (x, dy, zeros, out), (reads, factors, sums, addresses), (shares, taken) = arrays, rooms, turns
    turn = take(taken)
    while turn < len(shares):
        (start, stop), (first, end) = shares[turn]
        part = out[min(turn, len(out) - 1)]
        mine = (x, dy, zeros, reads[number], factors[number], sums[number], part, addresses[number])
        for c in range(first, end, most):
            some = (c, min(c + most, end))
            _weight_grad(mine, where, buffers, transforms, micro, sizes, some, (start, stop))
        turn = take(taken)


@njit(**options)
def _weight_grad(arrays, where, buffers, transforms, micro, channels, part, tiles):  # type: ignore[no-untyped-def]
    x, dy, zeros, v, u, s, out, lists = arrays
    reads, gradients = buffers
    groups, cg, kg, _, _ = channels
    a, m, size = transforms.points, transforms.m, transforms.itemsize
    pixels, transformed, outputs, factors = lists[0], lists[1], lists[2], lists[3]
    for point in range(a * a):
        transformed[point] = v.ctypes.data + size * point * reads.points
        factors[point] = u.ctypes.data + size * point * gradients.points
    nothing = zeros.ctypes.data
    for g in range(groups):
        for first in range(tiles[0], tiles[1], reads.block):
            count = min(reads.block, tiles[1] - first)
            for t in range(count):
                top, left, image = locate(where, first + t, m)
                origin = (top + where.first[0], left + where.first[1])
                base = x.ctypes.data + size * g * cg
                list_pixels(pixels, base, image, origin, where.image, groups * cg, a, nothing, size)
                _to_panels(transforms, micro, INPUT, pixels, transformed, part, reads, t)
                base = dy.ctypes.data + size * g * kg
                list_pixels(outputs, base, image, (top, left), where.size, groups * kg, m, nothing, size)
                _to_panels(transforms, micro, OUTPUT_GRAD, outputs, factors, (0, kg), gradients, t)
            for point in range(a * a):
                onto = 0 if first == tiles[0] else 1
                _accumulate(arrays, point, buffers, micro, channels, part, count, onto)
        _transform_sums(s, out, lists, g, transforms, channels, part)


@njit(**options)
def _to_panels(transforms, micro, which, sources, targets, part, buffers, t):  # type: ignore[no-untyped-def]
    """Transform a tile's channels into panels of their own."""
    width = VECTORS * micro.lanes
    for panel, c in enumerate(range(part[0], part[1], width)):
        to = panel * buffers.panel + t * width
        transform(transforms, which, sources, targets, c, to, min(width, part[1] - c))


@njit(**options)
def _accumulate(arrays, point, buffers, micro, channels, part, count, onto):  # type: ignore[no-untyped-def]
    """Add a block's products of one point to its sums (channels, filters)."""
    _, _, zeros, v, u, s, _, _ = arrays
    reads, gradients = buffers
    _, _, kg, sums, filters = channels
    size, width = micro.itemsize, VECTORS * micro.lanes
    for panel, c in enumerate(range(0, part[1] - part[0], width)):
        length = min(width, part[1] - part[0] - c)
        for column, k in enumerate(range(0, kg, width)):
            vectors = (min(width, kg - k) + micro.lanes - 1) // micro.lanes
            row = 0
            for rows, number in columns_of(length, micro[vectors]):
                addresses = (
                    v.ctypes.data + size * (point * reads.points + panel * reads.panel + row),
                    u.ctypes.data + size * (point * gradients.points + column * gradients.panel),
                    s.ctypes.data + size * (point * sums + (c + row) * filters + k),
                    zeros.ctypes.data,
                )
                shape, steps = (rows, vectors, number), (0, 0, width)
                if number > 0:
                    add_tile(micro, shape, addresses, (1, filters), (1, 1, count), steps, steps, onto)
                row += rows * number


@njit(**options)
def _transform_sums(s, out, lists, g, transforms, channels, part):  # type: ignore[no-untyped-def]
    """Write the gradient of some input channels from their sums."""
    groups, cg, kg, sums, filters = channels
    r, size = transforms.r, transforms.itemsize
    sources, targets = lists[0], lists[2]
    for point in range(len(sources)):
        sources[point] = s.ctypes.data + size * point * sums
    for tap in range(r * r):
        targets[tap] = out.ctypes.data + size * (tap * cg * groups + g) * kg
    for c in range(part[0], part[1]):
        at, to = (c - part[0]) * filters, c * groups * kg
        transform(transforms, FILTER_GRAD, sources, targets, at, to, kg)
