"""The input gradient where images have few channels: each output pixel adds to all the pixels that it read.

Read the other way round, as a correlation that writes c channels, most of a vector register would stay empty.
Here a tile's vectors run over the taps of a kernel row and their channels, which are neighbours in the image; its
rows are output pixels that lie so far apart that what they write does not overlap.
"""

from __future__ import annotations

from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Pair, Window
from daskconv.kernels.panels import options, width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import VECTORS, add_tile, columns_of, tiles_of


def fits(window: Window, c: int, dtype: object) -> bool:
    """Return whether taps are neighbours in memory and channels too few to fill a vector."""
    return (
        window.groups == 1 and window.dilation[1] == 1 and c < tiles_of(dtype).lanes and window.kernel[1] > 1
    )


def input_grad(dy: NDArray, w: NDArray, window: Window, images: Pair, out: NDArray) -> None:
    """Write the gradient by some images into ``out`` (n, h, w, c), from ``dy`` (n, p, q, k), C-contiguous."""
    tiles, width = tiles_of(dy.dtype), width_of(dy.dtype)
    (r, s, c, k), (p, q) = w.shape, dy.shape[1:3]
    run = s * c
    panels = scratch("panels", (r, -(-run // width), k, width), w.dtype)
    panels[:] = 0
    taps = w.reshape(r, run, k).transpose(0, 2, 1)
    for number in range(panels.shape[1]):
        part = taps[:, :, number * width : (number + 1) * width]
        panels[:, number, :, : part.shape[2]] = part
    (top, _), (left, _) = window.padding
    (_, h, columns, _), (down, across) = out.shape, window.stride
    # What whole vectors write beyond the last pixel stays inside of the row.
    row = max((q - 1) * across + s, left + columns) * c + width
    padded = scratch("padded", (max((p - 1) * down + window.extent[0], top + h), row), dy.dtype)
    for image in range(*images):
        padded[:] = 0
        steps = (down, across, window.dilation[0])
        _scatter(dy[image].reshape(-1), panels.reshape(-1), padded, tiles, (p, q, k, c), (r, run), steps)
        out[image] = padded[top : top + h, left * c : (left + columns) * c].reshape(h, columns, c)


@njit(**options)
def _scatter(dy, panels, padded, tiles, shape, kernel, steps):  # type: ignore[no-untyped-def]
    """Add all output pixels of an image to its padded gradient."""
    (p, q, k, c), (r, run), (down, across, dilation) = shape, kernel, steps
    size, width = tiles.itemsize, VECTORS * tiles.lanes
    count = (run + width - 1) // width
    for i in range(p):
        for tap in range(r):
            line = padded.ctypes.data + size * (i * down + tap * dilation) * padded.shape[1]
            for panel in range(count):
                vectors = (min(width, run - panel * width) + tiles.lanes - 1) // tiles.lanes
                apart = (vectors * tiles.lanes + across * c - 1) // (across * c)
                b = panels.ctypes.data + size * (tap * count + panel) * k * width
                for first in range(min(apart, q)):
                    j = first
                    for rows, number in columns_of((q - first + apart - 1) // apart, tiles[vectors]):
                        if number > 0:
                            a = dy.ctypes.data + size * (i * q + j) * k
                            to = line + size * (j * across * c + panel * width)
                            pitch = (apart * k, apart * across * c)
                            counts, onwards = (1, 1, k), ((0, 0, 1), (0, 0, width))
                            add_tile(
                                tiles, (rows, vectors, number), (a, b, to, to), pitch, counts, *onwards, 1
                            )
                        j += rows * number * apart
