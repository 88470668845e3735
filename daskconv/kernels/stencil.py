"""Filters of single channels: a 2-D kernel that moves over an image, by its taps, by two 1-D passes, or by frequencies.

Sums run over the taps in their order and without fused additions, as ``scipy.ndimage`` adds them: in float64 the bits
are the same. Taps of 0 are skipped, so what lies under them does not count, not even a NaN.

A box is what some outputs read: (images, rows + taps - 1, columns + taps - 1, channels).
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike, NDArray

from daskconv.kernels import plain
from daskconv.kernels.jit import njit

# scipy.ndimage leaves such taps out.
_NOTHING = np.finfo(np.float64).eps
# Sums of so many elements stay in the first cache while taps are added to them.
_BLOCK = 2048
# A tile of a transform fits the second cache; it is this long, or four times as long as the kernel.
_LENGTH, _KERNELS = 256, 4
# A pixel costs as much by frequencies as by so many taps.
_FFT_TAPS = 400
# To pass twice costs as much as so many taps.
_PASS_TAPS = 8

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


class Lines(NamedTuple):
    """Lines of elements in a flat array: where the first begins, and how far images and rows lie apart."""

    flat: NDArray
    first: int
    steps: tuple[int, int]

    @classmethod
    def of(cls, array: NDArray) -> Lines:
        """Return the lines of a contiguous array (images, rows, columns, channels)."""
        _, rows, cols, channels = array.shape
        return cls(array.reshape(-1), 0, (rows * cols * channels, cols * channels))

    @classmethod
    def in_place(cls, array: NDArray) -> Lines | None:
        """Return the lines of an array (images, rows, elements) where it lies, None where its elements lie apart."""
        if min(array.strides) < 0 or any(stride % array.itemsize for stride in array.strides):
            return None
        images, rows, elements = (stride // array.itemsize for stride in array.strides)
        if elements != 1 and array.shape[2] > 1:
            return None
        reach = sum((size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True))
        flat = as_strided(array, (reach // array.itemsize + 1,), (array.itemsize,))
        return cls(flat, 0, (images, rows))

    def at(self, row: int, element: int) -> Lines:
        """Return the lines from a row and an element of each on."""
        return self._replace(first=self.first + row * self.steps[1] + element)


def correlate(box: Lines, trail: int, stencil: Stencil, shape: tuple[int, int, int], out: Lines) -> None:
    """Write sums of products, by taps or in two passes.

    Parameters
    ----------
    box : Lines
        Of the dtype of ``out``; its columns are ``trail`` elements apart.
    stencil : Stencil
    shape : (int, int, int)
        Images, rows and elements of a row that are written.
    out : Lines
    """
    across = box.steps[1]
    if stencil.down is None or stencil.along is None:
        rows, cols = np.nonzero(stencil.taps)
        _add_taps(box, rows * across + cols * trail, stencil.taps[rows, cols], shape, out)
        return
    down, along = np.flatnonzero(stencil.down), np.flatnonzero(stencil.along)
    columns = (down * across, stencil.down[down])
    _add_passes(box, columns, (along * trail, stencil.along[along]), shape, out)


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
            summed = np.empty((1, *to.shape, 1), out.dtype)
            lines = Lines.of(np.ascontiguousarray(tile)[None, ..., None])
            correlate(lines, 1, by_taps, summed.shape[:3], Lines.of(summed))
            to[...] = summed[0, ..., 0]


@njit(otherwise=plain.add_taps, **_options)
def _add_taps(box, at, taps, shape, out):  # type: ignore[no-untyped-def]
    for n in range(shape[0]):
        for i in range(shape[1]):
            start = box.first + n * box.steps[0] + i * box.steps[1]
            to = out.first + n * out.steps[0] + i * out.steps[1]
            for low in range(0, shape[2], _BLOCK):
                length = min(_BLOCK, shape[2] - low)
                _sum_taps(box.flat, start + low, at, taps, out.flat, to + low, length)


@njit(otherwise=plain.add_passes, **_options)
def _add_passes(box, down, along, shape, out):  # type: ignore[no-untyped-def]
    reach = along[0][-1]
    between = np.empty(_BLOCK + reach, out.flat.dtype)
    for n in range(shape[0]):
        for i in range(shape[1]):
            start = box.first + n * box.steps[0] + i * box.steps[1]
            to = out.first + n * out.steps[0] + i * out.steps[1]
            for low in range(0, shape[2], _BLOCK):
                length = min(_BLOCK, shape[2] - low)
                _sum_taps(box.flat, start + low, down[0], down[1], between, 0, length + reach)
                _sum_taps(between, 0, along[0], along[1], out.flat, to + low, length)


@njit(**_options)
def _sum_taps(x, start, at, taps, sums, to, length):  # type: ignore[no-untyped-def]
    """Write sums over taps, eight of them at a time: each sum is loaded and stored once for all eight."""
    count, t = len(at), 0
    if count == 0:
        sums[to : to + length] = 0
    while t < count:
        some = 8 if count - t >= 8 else 4 if count - t >= 4 else 1
        a, w = at[t : t + some] + start, taps[t : t + some]
        if some == 8:
            _add_eight(x, a, w, sums, to, length, t > 0)
        elif some == 4:
            _add_four(x, a, w, sums, to, length, t > 0)
        else:
            _add_one(x, a, w, sums, to, length, t > 0)
        t += some


# Unsigned indices: signed ones may be negative, which costs a check an element and the vectors.
@njit(**_options)
def _add_eight(x, at, taps, sums, to, length, onto):  # type: ignore[no-untyped-def]
    a, b, c, d = np.uint64(at[0]), np.uint64(at[1]), np.uint64(at[2]), np.uint64(at[3])
    e, f, g, h = np.uint64(at[4]), np.uint64(at[5]), np.uint64(at[6]), np.uint64(at[7])
    p, q, r, s, t, u, v, w = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7]
    o = np.uint64(to)
    for j in range(np.uint64(length)):
        total = sums[o + j] if onto else taps.dtype.type(0)
        total = total + p * x[a + j] + q * x[b + j] + r * x[c + j] + s * x[d + j]
        sums[o + j] = total + t * x[e + j] + u * x[f + j] + v * x[g + j] + w * x[h + j]


@njit(**_options)
def _add_four(x, at, taps, sums, to, length, onto):  # type: ignore[no-untyped-def]
    a, b, c, d = np.uint64(at[0]), np.uint64(at[1]), np.uint64(at[2]), np.uint64(at[3])
    p, q, r, s = taps[0], taps[1], taps[2], taps[3]
    o = np.uint64(to)
    for j in range(np.uint64(length)):
        total = sums[o + j] if onto else taps.dtype.type(0)
        sums[o + j] = total + p * x[a + j] + q * x[b + j] + r * x[c + j] + s * x[d + j]


@njit(**_options)
def _add_one(x, at, taps, sums, to, length, onto):  # type: ignore[no-untyped-def]
    a, p, o = np.uint64(at[0]), taps[0], np.uint64(to)
    for j in range(np.uint64(length)):
        total = sums[o + j] if onto else taps.dtype.type(0)
        sums[o + j] = total + p * x[a + j]
