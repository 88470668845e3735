"""Images whose pixels come from other places, in one pass over memory: crops, flips and what they make together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daskconv.kernels import plain
from daskconv.kernels.jit import njit

NOWHERE = -1
"""The source of a pixel that is 0, such as those of a border."""


def rearrange(images: NDArray, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray:
    """Return images whose pixel (p, q) is the one at (rows[p], columns[q]) before.

    Parameters
    ----------
    images : array (n, h, w, c)
    rows : array of int64, (n, p)
    columns : array of int64, (n, q)

    Examples
    --------
    >>> image = np.array([[[[1], [2]], [[3], [4]]]])
    >>> rearrange(image, np.array([[1, NOWHERE]]), np.array([[1, 0]]))[0, :, :, 0].tolist()
    [[4, 3], [0, 0]]
    """
    n, h, w, c = images.shape
    out = np.empty((n, rows.shape[1], columns.shape[1], c), images.dtype)
    if not out.size or not h * w:
        return np.zeros_like(out)
    # Bits are moved, whatever they mean: compiled once for each size.
    size = 8 if images.dtype.itemsize % 8 == 0 else np.gcd(images.dtype.itemsize, 8)
    source, target = (np.ascontiguousarray(array).view(f"u{size}") for array in (images, out))
    _rearrange(source, np.ascontiguousarray(rows), np.ascontiguousarray(columns), target)
    return out


# Unsigned indices: signed ones may be negative, which costs a check an element and the vectors.
@njit(otherwise=plain.rearrange, nogil=True, cache=True)
def _rearrange(images, rows, columns, out):  # type: ignore[no-untyped-def]
    count, height, width, channels = out.shape
    zero, channel_count = out.dtype.type(0), np.uint64(channels)
    ends = np.empty(width, np.int64)
    for n in range(count):
        runs = _runs(columns[n], ends)
        for p in range(height):
            target, row = out[n, p].reshape(-1), rows[n, p]
            source = images[n, max(row, 0)].reshape(-1)
            first = 0
            for run in range(runs):
                last, column = ends[run], columns[n, first]
                at, start = np.uint64(first * channels), np.uint64(column * channels)
                length = np.uint64((last - first) * channels)
                if row < 0 or column < 0:
                    for t in range(length):
                        target[at + t] = zero
                elif last - first == 1 or columns[n, first + 1] > column:
                    for t in range(length):
                        target[at + t] = source[start + t]
                else:
                    for _ in range(last - first):
                        for c in range(channel_count):
                            target[at + c] = source[start + c]
                        at, start = at + channel_count, start - channel_count
                first = last


@njit(nogil=True, cache=True)
def _runs(columns, ends):  # type: ignore[no-untyped-def]
    """Write where runs of neighbours end, in either direction, or of pixels without a source; return how many."""
    runs, step, first = 0, 0, 0
    for q in range(1, len(columns) + 1):
        if q < len(columns):
            before, here = columns[q - 1], columns[q]
            if q == first + 1:
                step = here - before
            neighbours = here - before == step and abs(step) == 1 and before >= 0 and here >= 0
            if neighbours or (before < 0 and here < 0):
                continue
        ends[runs], runs, first = q, runs + 1, q
    return runs
