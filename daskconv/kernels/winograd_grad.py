"""Winograd's weight gradient: tiles of images and of output gradients, transformed, multiplied point by point."""

from __future__ import annotations

from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.panels import options
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import VECTORS, add_tile, columns_of, tiles_of
from daskconv.kernels.transform import FILTER_GRAD, INPUT, OUTPUT_GRAD, transform, transforms_of
from daskconv.kernels.winograd import Buffers, address_lists, block_of, list_pixels, locate, map_of, odd_lines
from daskconv.kernels.winograd_tiles import tile_size

# Sums of a weight gradient, of all points: more input channels than fit are done one part after another.
_SUMS_BYTES = 8 << 20


def weight_grad(
    x: NDArray,
    dy: NDArray,
    correlation: Correlation,
    groups: int,
    tiles: Pair,
    span: Pair,
    out: NDArray,
) -> None:
    """Write the gradient by the weights (r, s, c / groups, k) into ``out``, from a range of tiles of all images.

    ``span`` are the input channels of each group whose weights it is done for.
    """
    if tiles[0] == tiles[1]:
        out[:, :, span[0] : span[1]] = 0
        return
    m, r = tile_size(correlation), len(correlation.rows)
    transforms, micro = transforms_of(m, r, x.dtype), tiles_of(x.dtype)
    points, width = transforms.points**2, VECTORS * micro.lanes
    cg, kg = x.shape[3] // groups, dy.shape[3] // groups
    filters = -(-kg // width) * width
    part = max(_SUMS_BYTES // (points * filters * x.itemsize) // width, 1) * width
    channels = min(-(-(span[1] - span[0]) // width) * width, part)
    block = min(block_of(points, channels + filters, x.itemsize), max(tiles[1] - tiles[0], 1))
    reads, gradients = (
        Buffers(block, odd_lines(block * length, x.itemsize), block * width) for length in (channels, filters)
    )
    sums = odd_lines(channels * filters, x.itemsize)
    zeros = scratch("zeros", (max(cg, kg, width),), x.dtype)
    zeros[:] = 0
    if kg < filters:
        scratch("writes", (points * gradients.points,), x.dtype)[:] = 0
    arrays = (
        x.reshape(-1),
        dy.reshape(-1),
        zeros,
        scratch("reads", (points * reads.points,), x.dtype),
        scratch("writes", (points * gradients.points,), x.dtype),
        scratch("sums", (points * sums,), x.dtype),
        out.reshape(-1),
        address_lists(transforms),
    )
    where = map_of(correlation, (x.shape[1], x.shape[2]), m)
    for first in range(span[0], span[1], channels):
        some = (first, min(first + channels, span[1]))
        sizes = (groups, cg, kg, sums, filters)
        _weight_grad(arrays, where, (reads, gradients), transforms, micro, sizes, some, tiles)


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
