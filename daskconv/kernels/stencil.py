"""Filters of single channels: a 2-D kernel that moves over an image, by its taps, by two 1-D passes, or by frequencies.

Sums run over the taps in their order and without fused additions, as ``scipy.ndimage`` adds them: in float64 the bits
are the same. Taps of 0 are skipped, so what lies under them does not count, not even a NaN.

A box is what some outputs read: (images, rows + taps - 1, columns + taps - 1, channels).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike, NDArray

from daskconv.kernels.jit import enabled, importable, njit

# scipy.ndimage leaves such taps out.
_NOTHING = np.finfo(np.float64).eps
# Sums of so many elements stay in the first cache while taps are added to them.
_BLOCK = 4096
# A tile of a transform fits the second cache; it is this long, or four times as long as the kernel.
_LENGTH, _KERNELS = 256, 4
# A pixel costs as much by frequencies as by so many taps.
_FFT_TAPS = 400
# To pass twice costs as much as so many taps.
_PASS_TAPS = 8

# Rows of a kernel's height, copied next to each other.
_RING_BYTES = 192 << 10

if importable():
    from numba import carray

    from daskconv.kernels.native import pointer

_options: Any = {"nogil": True, "cache": True}


class Stencil(NamedTuple):
    """A kernel, ready to be moved over an image.

    Attributes
    ----------
    taps : array (r, s)
        What each pixel of a window is multiplied with.
    down, along : array (r,), (s,), or None
        Two kernels of one dimension whose outer product is ``taps``.
    spectrum : complex array (r', s' // 2 + 1), or None
        The conjugate frequencies of ``taps`` in a tile.
    tile : (int, int)
        Rows and columns of a tile.
    """

    taps: NDArray
    down: NDArray | None = None
    along: NDArray | None = None
    spectrum: NDArray | None = None
    tile: tuple[int, int] = (0, 0)


def stencil_of(taps: NDArray, dtype: DTypeLike, image: tuple[int, int], mixing: bool) -> Stencil:
    """Return the kernel for images of (h, w) pixels, whose sums are of float32 or float64.

    ``mixing`` allows methods that add in another order than the taps'.
    """
    if not np.isfinite(taps).all():
        return Stencil(np.ascontiguousarray(taps, dtype))
    taps = np.where(abs(taps) > _NOTHING, taps, 0)
    by_taps, count = Stencil(np.ascontiguousarray(taps, dtype)), int(np.count_nonzero(taps))
    if not mixing:
        return by_taps
    factors = _factors(taps, float(np.finfo(dtype).eps))
    if factors:
        down, along = (factor.astype(dtype) for factor in factors)
        passes = int(np.count_nonzero(down)) + int(np.count_nonzero(along)) + _PASS_TAPS
        if passes < min(count, _FFT_TAPS):
            return by_taps._replace(down=down, along=along)
    if count <= _FFT_TAPS:
        return by_taps
    tile = _length(taps.shape[0], image[0]), _length(taps.shape[1], image[1])
    spectrum = np.conj(np.fft.rfft2(taps, tile)).astype(np.result_type(dtype, np.complex64))
    return by_taps._replace(spectrum=spectrum, tile=tile)


def _length(kernel: int, image: int) -> int:
    """Return a tile's length along one axis: a power of two, or what a small image needs."""
    length, most = max(_LENGTH, 1 << (_KERNELS * kernel - 1).bit_length()), image + kernel - 1
    return length if length < most else most + (-most) % 8


def _factors(taps: NDArray, tolerance: float) -> tuple[NDArray, NDArray] | None:
    """Return a column and a row whose outer product the taps are, to rounding; None where they are not.

    Of a matrix of rank 1, every column and row are such a pair. Taken as they are they keep zeros and integers, which
    the vectors of a singular value decomposition would not.
    """
    row, column = np.unravel_index(np.argmax(abs(taps)), taps.shape)
    top = taps[row, column]
    if top == 0:
        return None
    down, along = taps[:, column] / top, taps[row]
    apart = abs(taps - np.outer(down, along)).max()
    return (down, along) if apart <= 2 * tolerance * abs(top) else None


class Part(NamedTuple):
    """Pixels (rows, columns, channels), a view of any array, and where in a box they lie."""

    pixels: NDArray
    row: int
    column: int


def correlate(
    parts: Sequence[Part], stencil: Stencil, fill: float, rows: tuple[int, int], out: NDArray
) -> None:
    """Write a range of rows of ``out`` (rows, columns * channels), by taps or in two passes.

    Parameters
    ----------
    parts : sequence of Part
        What the box consists of; they do not overlap, and have the same dtype.
    stencil : Stencil
    fill : float
        The value of pixels that no part brings.
    rows : (int, int)
        Those that are written; row i of the result is that of rows i to i + r - 1 of the box.
    out : array
        Contiguous, float32 or float64. Sums are of its dtype.
    """
    trail = parts[0].pixels.shape[2] if parts else 1
    box = len(out) + stencil.taps.shape[0] - 1, out.shape[1] // trail + stencil.taps.shape[1] - 1
    if not enabled():
        _correlate_plainly(parts, stencil, fill, rows, (*box, trail), out)
        return
    table = np.array(
        [
            (
                part.pixels.__array_interface__["data"][0],
                *part.pixels.strides,
                part.row,
                part.column,
                *part.pixels.shape[:2],
            )
            for part in parts
        ],
        np.int64,
    ).reshape(-1, 8)
    whole = sum(part.pixels.size for part in parts) == box[0] * box[1] * trail
    kind = np.empty(0, parts[0].pixels.dtype if parts else out.dtype)
    source = (table, kind, trail, whole, float(fill))
    if stencil.down is None or stencil.along is None:
        places = np.argwhere(stencil.taps)
        _add_taps(source, places, stencil.taps[tuple(places.T)], stencil.taps.shape, rows, out)
        return
    down, along = np.flatnonzero(stencil.down), np.flatnonzero(stencil.along)
    columns = (np.stack((down, 0 * down), 1), stencil.down[down])
    _add_passes(source, columns, (along * trail, stencil.along[along]), stencil.taps.shape, rows, out)


def correlate_frequencies(box: NDArray, stencil: Stencil, out: NDArray) -> None:
    """Write sums of products into ``out`` (images, rows, columns, channels), tile by tile in the frequency domain.

    Rounding errors follow the largest pixel of a tile. A tile in which something is not finite is summed by taps.
    """
    (r, s), (height, width) = stencil.taps.shape, stencil.tile
    assert stencil.spectrum is not None
    by_taps = Stencil(stencil.taps)
    for i, j, n, c in product(
        range(0, out.shape[1], height - r + 1),
        range(0, out.shape[2], width - s + 1),
        range(len(out)),
        range(out.shape[3]),
    ):
        to = out[n, i : i + height - r + 1, j : j + width - s + 1, c]
        tile = box[n, i : i + len(to) + r - 1, j : j + to.shape[1] + s - 1, c]
        if np.isfinite(tile.sum()) or np.isfinite(tile).all():
            found = np.fft.irfft2(np.fft.rfft2(tile, stencil.tile) * stencil.spectrum, stencil.tile)
            to[...] = found[: len(to), : to.shape[1]]
        else:
            summed = np.empty(to.shape, out.dtype)
            correlate([Part(tile[..., None], 0, 0)], by_taps, 0, (0, len(to)), summed)
            to[...] = summed


@njit(**_options)
def _strip(size, trail, itemsize):  # type: ignore[no-untyped-def]
    """Return how many elements of a row are taken at once: rows of a kernel's height stay in the second cache."""
    return max(_RING_BYTES // (size[0] * itemsize), 4 * (size[1] - 1) * trail, _BLOCK)


@njit(**_options)
def _add_taps(source, places, taps, size, rows, out):  # type: ignore[no-untyped-def]
    trail, length = source[2], out.shape[1]
    reach = (size[1] - 1) * trail
    strip = min(_strip(size, trail, out.itemsize), length)
    ring, at = np.empty((size[0], strip + reach), out.dtype), np.empty(len(taps), np.int64)
    flat, to = ring.reshape(-1), out.reshape(-1)
    for low in range(0, length, strip):
        some = min(strip, length - low)
        for i in range(rows[0], rows[1] + size[0] - 1):
            _copy_row(source, i, low, some + reach, ring[i % size[0]])
            row = i - size[0] + 1
            if row >= rows[0]:
                _find_taps(places, row, ring.shape, trail, at)
                for first in range(0, some, _BLOCK):
                    _sum_taps(
                        flat, first, at, taps, to, row * length + low + first, min(_BLOCK, some - first)
                    )


@njit(**_options)
def _add_passes(source, down, along, size, rows, out):  # type: ignore[no-untyped-def]
    trail, length, back = source[2], out.shape[1], along[0][-1]
    reach = (size[1] - 1) * trail
    strip = min(_strip(size, trail, out.itemsize), length)
    ring, at = np.empty((size[0], strip + reach), out.dtype), np.empty(len(down[1]), np.int64)
    flat, to, between = ring.reshape(-1), out.reshape(-1), np.empty(_BLOCK + back, out.dtype)
    for low in range(0, length, strip):
        some = min(strip, length - low)
        for i in range(rows[0], rows[1] + size[0] - 1):
            _copy_row(source, i, low, some + reach, ring[i % size[0]])
            row = i - size[0] + 1
            if row >= rows[0]:
                _find_taps(down[0], row, ring.shape, trail, at)
                for first in range(0, some, _BLOCK):
                    more = min(_BLOCK, some - first)
                    _sum_taps(flat, first, at, down[1], between, 0, more + back)
                    _sum_taps(between, 0, along[0], along[1], to, row * length + low + first, more)


@njit(**_options)
def _find_taps(places, row, ring, trail, at):  # type: ignore[no-untyped-def]
    """Write where in the ring of rows each tap of an output row reads."""
    for t in range(len(at)):
        at[t] = (row + places[t, 0]) % ring[0] * ring[1] + places[t, 1] * trail


@njit(**_options)
def _copy_row(source, row, low, length, to):  # type: ignore[no-untyped-def]
    """Copy a range of a box's row from the parts that have it."""
    table, kind, trail, whole, fill = source
    if not whole:
        to[:length] = fill
    for part in range(len(table)):
        top, left = table[part, 4], table[part, 5]
        if row < top or row >= top + table[part, 6]:
            continue
        first, last = max(left * trail, low), min((left + table[part, 7]) * trail, low + length)
        if first >= last:
            continue
        along, inner = table[part, 2], table[part, 3]
        start = table[part, 0] + (row - top) * table[part, 1]
        if along == trail * kind.itemsize and (inner == kind.itemsize or trail == 1):
            pixels = carray(
                pointer(start + (first - left * trail) * kind.itemsize), (last - first,), kind.dtype
            )
            _copy(pixels, to, first - low, last - first)
        else:
            for j in range(first, last):
                column, channel = divmod(j - left * trail, trail)
                to[j - low] = carray(pointer(start + column * along + channel * inner), (1,), kind.dtype)[0]


@njit(**_options)
def _copy(pixels, to, at, length):  # type: ignore[no-untyped-def]
    first = np.uint64(at)
    for j in range(np.uint64(length)):
        to[first + j] = pixels[j]


def _correlate_plainly(
    parts: Sequence[Part],
    stencil: Stencil,
    fill: float,
    rows: tuple[int, int],
    shape: tuple[int, int, int],
    out: NDArray,
) -> None:
    """Do the same without a compiled kernel: put the box together, and add views of it."""
    box = np.full(shape, fill, out.dtype)
    for pixels, row, column in parts:
        box[row : row + len(pixels), column : column + pixels.shape[1]] = pixels
    box = box[rows[0] : rows[1] + stencil.taps.shape[0] - 1]
    steps = [stencil.taps]
    if stencil.down is not None and stencil.along is not None:
        steps = [stencil.down[:, None], stencil.along[None]]
    for matrix in steps:
        windows = sliding_window_view(box, matrix.shape, (0, 1))
        sums = np.zeros(windows.shape[:3], out.dtype)
        with np.errstate(invalid="ignore"):  # compiled kernels do not warn of infinities either
            for i, j in np.argwhere(matrix):
                sums += matrix[i, j] * windows[..., i, j]
        box = sums
    out[slice(*rows)] = box.reshape(rows[1] - rows[0], -1)


@njit(**_options)
def _sum_taps(x, start, at, taps, sums, to, length):  # type: ignore[no-untyped-def]
    """Write sums over taps, eight of them at a time: each sum is loaded and stored once for all eight."""
    count, t = len(at), 0
    if count == 0:
        sums[to : to + length] = 0
    while t < count:
        if count - t >= 8:
            _add_eight(x, start, at, taps, t, sums, to, length)
            t += 8
        elif count - t >= 4:
            _add_four(x, start, at, taps, t, sums, to, length)
            t += 4
        else:
            _add_one(x, start, at, taps, t, sums, to, length)
            t += 1


# Unsigned indices: signed ones may be negative, which costs a check an element and the vectors.
@njit(**_options)
def _add_eight(x, start, at, taps, n, sums, to, length):  # type: ignore[no-untyped-def]
    a, b, c = np.uint64(start + at[n]), np.uint64(start + at[n + 1]), np.uint64(start + at[n + 2])
    d, e, f = np.uint64(start + at[n + 3]), np.uint64(start + at[n + 4]), np.uint64(start + at[n + 5])
    g, h, o = np.uint64(start + at[n + 6]), np.uint64(start + at[n + 7]), np.uint64(to)
    p, q, r, s = taps[n], taps[n + 1], taps[n + 2], taps[n + 3]
    t, u, v, w = taps[n + 4], taps[n + 5], taps[n + 6], taps[n + 7]
    for j in range(np.uint64(length)):
        total = sums[o + j] if n > 0 else taps.dtype.type(0)
        total = total + p * x[a + j] + q * x[b + j] + r * x[c + j] + s * x[d + j]
        sums[o + j] = total + t * x[e + j] + u * x[f + j] + v * x[g + j] + w * x[h + j]


@njit(**_options)
def _add_four(x, start, at, taps, n, sums, to, length):  # type: ignore[no-untyped-def]
    a, b, o = np.uint64(start + at[n]), np.uint64(start + at[n + 1]), np.uint64(to)
    c, d = np.uint64(start + at[n + 2]), np.uint64(start + at[n + 3])
    p, q, r, s = taps[n], taps[n + 1], taps[n + 2], taps[n + 3]
    for j in range(np.uint64(length)):
        total = sums[o + j] if n > 0 else taps.dtype.type(0)
        sums[o + j] = total + p * x[a + j] + q * x[b + j] + r * x[c + j] + s * x[d + j]


@njit(**_options)
def _add_one(x, start, at, taps, n, sums, to, length):  # type: ignore[no-untyped-def]
    a, p, o = np.uint64(start + at[n]), taps[n], np.uint64(to)
    for j in range(np.uint64(length)):
        total = sums[o + j] if n > 0 else taps.dtype.type(0)
        sums[o + j] = total + p * x[a + j]
