"""Local response normalisation across channels, and its gradient, over rows (m, c)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.geometry import Pair
from daskconv.kernels import plain
from daskconv.kernels.jit import njit
from daskconv.kernels.scratch import empty_like

# Python's division looks for zeros, which costs the vectors.
_options: Any = {"nogil": True, "cache": True, "error_model": "numpy"}

# The power that every published network has, for which two roots do.
_USUAL = 0.75


def lrn(x: NDArray, window: Pair, numbers: tuple[float, float, float]) -> tuple[NDArray, NDArray]:
    """Return ``x * scale ** -beta`` and ``scale = bias + factor * sum of squares``.

    The sum is over the channels from ``window[0]`` before a channel to ``window[1]`` after it; ``numbers`` are
    factor, bias and beta.
    """
    y, scale = empty_like(x), empty_like(x)
    _lrn(x, window, tuple(map(x.dtype.type, numbers)), y, scale)
    return y, scale


@njit(otherwise=plain.lrn, **_options)
def _lrn(x, window, numbers, y, scale):  # type: ignore[no-untyped-def]
    factor, bias, _ = numbers
    before, length = np.uint64(window[0]), window[0] + window[1] + 1
    channels = np.uint64(x.shape[1])
    squares = np.zeros(x.shape[1] + window[0] + window[1], x.dtype)
    for m in range(len(x)):
        for c in range(channels):
            squares[c + before] = x[m, c] * x[m, c]
            scale[m, c] = bias
        for o in range(np.uint64(length)):
            for c in range(channels):
                scale[m, c] += factor * squares[c + o]
        _inverse_power(scale[m], numbers[2], y[m])
        for c in range(channels):
            y[m, c] *= x[m, c]


def lrn_grad(
    dy: NDArray, x: NDArray, scale: NDArray, window: Pair, numbers: tuple[float, float, float]
) -> NDArray:
    """Return the gradient by ``x``."""
    dx = empty_like(x)
    _lrn_grad(dy, x, scale, window, tuple(map(x.dtype.type, numbers)), dx)
    return dx


@njit(otherwise=plain.lrn_grad, **_options)
def _lrn_grad(dy, x, scale, window, numbers, dx):  # type: ignore[no-untyped-def]
    factor, _, beta = numbers
    # A channel is in the windows of those that lie the other way round.
    after, length = np.uint64(window[1]), window[0] + window[1] + 1
    channels, twice = np.uint64(x.shape[1]), x.dtype.type(2)
    shared = np.zeros(x.shape[1] + window[0] + window[1], x.dtype)
    inverse, total = np.empty_like(x[0]), np.empty_like(x[0])
    for m in range(len(x)):
        _inverse_power(scale[m], beta, inverse)
        for c in range(channels):
            shared[c + after] = dy[m, c] * x[m, c] * inverse[c] / scale[m, c]
        total[:] = 0
        for o in range(np.uint64(length)):
            for c in range(channels):
                total[c] += shared[c + o]
        for c in range(channels):
            dx[m, c] = dy[m, c] * inverse[c] - twice * beta * factor * x[m, c] * total[c]


@njit(**_options)
def _inverse_power(values, power, out):  # type: ignore[no-untyped-def]
    """Write values ** -power."""
    one = values.dtype.type(1)
    if abs(power - _USUAL) < 1e-9:
        for c in range(np.uint64(len(values))):
            root = np.sqrt(values[c])
            out[c] = one / (root * np.sqrt(root))
    else:
        for c in range(np.uint64(len(values))):
            out[c] = values[c] ** -power
