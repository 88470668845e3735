"""Images of few channels, copied with their padding, some at a time, before the micro-kernel reads them.

With few channels a tile of the border's pixels costs more than the products by zeros that it saves.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.kernels.native import copy_bytes
from daskconv.kernels.panels import options
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import tiles_of

_COPIED_BYTES = 1 << 20


class Copies(NamedTuple):
    """How images (h, w, c) are copied: so many at a time, none where they are read as they lie.

    Rows get so many columns of zeros to the ``left``, and as many to the right as make ``columns``.
    """

    number: int
    image: tuple[int, int, int]
    left: int
    columns: int


def as_they_lie(x: NDArray) -> Copies:
    """Return that none of the images (n, h, w, c) is copied."""
    _, h, w, c = x.shape
    return Copies(0, (h, w, c), 0, w)


def padded(x: NDArray, correlation: Correlation) -> tuple[Copies, Correlation]:
    """Return the copies of images (n, h, w, c) where they are worth it, and the correlation over what is read."""
    return _padded(x.shape[1:], x.dtype, correlation, _COPIED_BYTES) or (as_they_lie(x), correlation)


@lru_cache(1024)
def _padded(
    image: tuple[int, int, int], dtype: np.dtype, correlation: Correlation, most: int
) -> tuple[Copies, Correlation] | None:
    """Return how images are copied, at most so many bytes at a time, if that is worth it."""
    (h, w, c), q = image, correlation.size[1]
    left = max(0, -correlation.cols[0])
    right = max(0, (q - 1) * correlation.step[1] + correlation.cols[-1] - (w - 1))
    if c >= tiles_of(dtype).lanes or h * w * c * dtype.itemsize > most or left == right == 0:
        return None
    columns = left + w + right
    number = max(1, most // max(1, h * columns * c * dtype.itemsize))
    moved = replace(correlation, cols=tuple(offset + left for offset in correlation.cols))
    return Copies(number, image, left, columns), moved


def room_of(copies: Copies, x: NDArray, threads: int) -> NDArray:
    """Return memory for the copies of so many threads: flat, one row each."""
    h, _, c = copies.image
    return scratch("padded", (threads, min(copies.number, len(x)) * h * copies.columns * c), x.dtype)


@njit(**options)
def copy_images(x, copies, images, room):  # type: ignore[no-untyped-def]
    """Copy a range of images, which ``x`` has flat; return the address that counts as that of image 0."""
    if copies.number == 0:
        return x.ctypes.data
    (h, w, c), size = copies.image, x.itemsize
    length, before, after = copies.columns * c, copies.left * c, (copies.left + w) * c
    for row in range((images[1] - images[0]) * h):
        to, at = row * length, (images[0] * h + row) * w * c
        for i in range(before):
            room[to + i] = 0
        copy_bytes(room.ctypes.data + size * (to + before), x.ctypes.data + size * at, size * w * c)
        for i in range(after, length):
            room[to + i] = 0
    return room.ctypes.data - size * images[0] * h * length


@njit(**options)
def copy_rows(source, at, step, to, to_at, to_step, rows, length):  # type: ignore[no-untyped-def]
    """Copy the first elements of some rows between two flat arrays."""
    size = source.itemsize
    for row in range(rows):
        target, origin = to_at + row * to_step, at + row * step
        copy_bytes(to.ctypes.data + size * target, source.ctypes.data + size * origin, size * length)


@njit(**options)
def pack_strip(dy, at, k, pixels, filters, width, strip):  # type: ignore[no-untyped-def]
    """Copy a panel of some pixels' gradients, from element ``at`` of rows of k on, padded with zeros."""
    copy_rows(dy, at, k, strip, 0, width, pixels, filters)
    for pixel in range(pixels):
        for lane in range(filters, width):
            strip[pixel * width + lane] = 0
