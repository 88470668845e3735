"""Batch normalisation of rows (m, c), channels last: moments, the normalised rows, and their gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.kernels import plain
from daskconv.kernels.epilogue import NOTHING, Epilogue
from daskconv.kernels.jit import njit
from daskconv.kernels.scratch import empty_like

# Rows whose sums are exact enough in their own dtype; sums of such sums are float64.
_ROWS = 64
# Loops over channels count in uint64: a signed index may be negative, and that check costs the vectors.
_options: Any = {"nogil": True, "cache": True}


def moments(rows: NDArray) -> tuple[NDArray, NDArray]:
    """Return mean and variance (c,) over all rows, of float64, in one pass over memory.

    Each run of rows has a mean of its own, from which its squares are taken; runs are merged by the update of Chan,
    Golub and LeVeque (1983). Nothing is lost where the mean is far larger than the deviation.
    """
    mean, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    _moments(rows, mean, squares)
    return mean, squares / len(rows)


@njit(otherwise=plain.moments, **_options)
def _moments(rows, mean, squares):  # type: ignore[no-untyped-def]
    channels = np.uint64(rows.shape[1])
    sums, centre, parts = np.empty_like(rows[0]), np.empty_like(rows[0]), np.empty_like(rows[0])
    for first in range(0, len(rows), _ROWS):
        end = min(first + _ROWS, len(rows))
        sums[:] = 0
        parts[:] = 0
        for m in range(first, end):
            for c in range(channels):
                sums[c] += rows[m, c]
        for c in range(channels):
            centre[c] = sums[c] / (end - first)
        for m in range(first, end):
            for c in range(channels):
                distance = rows[m, c] - centre[c]
                parts[c] += distance * distance
        share = (end - first) / end
        for c in range(channels):
            shift = centre[c] - mean[c]
            mean[c] += shift * share
            squares[c] += parts[c] + shift * shift * share * first


def normalize(
    rows: NDArray,
    mean: NDArray,
    factor: NDArray,
    offset: NDArray,
    epilogue: Epilogue = NOTHING,
) -> NDArray:
    """Return ``(rows - mean) * factor + offset``, and do an epilogue, in one pass."""
    out = empty_like(rows)
    vectors = (vector.astype(rows.dtype) for vector in (mean, factor, offset))
    _normalize(rows, *vectors, epilogue.flat(out).reshape(rows.shape), epilogue.flags, out)
    return out


@njit(otherwise=plain.normalize, **_options)
def _normalize(rows, mean, factor, offset, add, flags, out):  # type: ignore[no-untyped-def]
    adds, relu = flags
    channels, zero = np.uint64(rows.shape[1]), rows.dtype.type(0)
    for m in range(len(rows)):
        if adds and relu:
            for c in range(channels):
                out[m, c] = max((rows[m, c] - mean[c]) * factor[c] + offset[c] + add[m, c], zero)
        elif adds:
            for c in range(channels):
                out[m, c] = (rows[m, c] - mean[c]) * factor[c] + offset[c] + add[m, c]
        elif relu:
            for c in range(channels):
                out[m, c] = max((rows[m, c] - mean[c]) * factor[c] + offset[c], zero)
        else:
            for c in range(channels):
                out[m, c] = (rows[m, c] - mean[c]) * factor[c] + offset[c]


def normalize_grad_sums(
    dy: NDArray, rows: NDArray, mean: NDArray, inverse: NDArray
) -> tuple[NDArray, NDArray]:
    """Return the sums (c,) of ``dy`` and of ``dy * (rows - mean) * inverse`` over all rows, of float64."""
    sums, products = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    _grad_sums(dy, rows, mean.astype(rows.dtype), sums, products)
    return sums, products * inverse


@njit(otherwise=plain.normalize_grad_sums, **_options)
def _grad_sums(dy, rows, mean, sums, products):  # type: ignore[no-untyped-def]
    channels = np.uint64(rows.shape[1])
    some, parts = np.empty_like(rows[0]), np.empty_like(rows[0])
    for first in range(0, len(rows), _ROWS):
        some[:] = 0
        parts[:] = 0
        for m in range(first, min(first + _ROWS, len(rows))):
            for c in range(channels):
                some[c] += dy[m, c]
                parts[c] += dy[m, c] * (rows[m, c] - mean[c])
        for c in range(channels):
            sums[c] += some[c]
            products[c] += parts[c]


def normalize_grad(
    dy: NDArray, rows: NDArray, mean: NDArray, factors: tuple[NDArray, NDArray, NDArray]
) -> NDArray:
    """Return ``dy * factors[0] + (rows - mean) * factors[1] + factors[2]``: the gradient by the rows."""
    dx = empty_like(rows)
    _normalize_grad(dy, rows, *(vector.astype(rows.dtype) for vector in (mean, *factors)), dx)
    return dx


@njit(otherwise=plain.normalize_grad, **_options)
def _normalize_grad(dy, rows, mean, of_dy, of_rows, rest, dx):  # type: ignore[no-untyped-def]
    channels = np.uint64(rows.shape[1])
    for m in range(len(rows)):
        for c in range(channels):
            dx[m, c] = dy[m, c] * of_dy[c] + (rows[m, c] - mean[c]) * of_rows[c] + rest[c]
