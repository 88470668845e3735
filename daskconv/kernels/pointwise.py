"""Activations and their gradients, one pass over memory each: piecewise linear ones compiled, the others by numexpr."""

from __future__ import annotations

from typing import Any

import numexpr
import numpy as np
from numpy.typing import NDArray

from daskconv.kernels import plain
from daskconv.kernels.jit import njit
from daskconv.kernels.scratch import empty_like

_options: Any = {"nogil": True, "cache": True}


def evaluate(expression: str, like: NDArray, **names: Any) -> NDArray:
    """Return an expression of numexpr, in the dtype of ``like``, which is ``x`` in it; numbers take that dtype too."""
    scalars = {
        name: like.dtype.type(value) for name, value in names.items() if not isinstance(value, np.ndarray)
    }
    arrays = {"x": like} | names | scalars
    return numexpr.evaluate(expression, local_dict=arrays, global_dict={}, out=empty_like(like))


def clip(x: NDArray, low: float, high: float) -> NDArray:
    """Return x limited to low .. high; NaN stays."""
    return np.clip(x, low, high, out=empty_like(x))


def leaky_relu(x: NDArray, slopes: NDArray) -> NDArray:
    """Return x where it is positive, else x times the slope of its channel (c,)."""
    y = empty_like(x)
    _leaky_relu(np.ascontiguousarray(x).reshape(-1, len(slopes)), slopes, y.reshape(-1, len(slopes)))
    return y


@njit(otherwise=plain.leaky_relu, **_options)
def _leaky_relu(x, slopes, y):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    for m in range(len(x)):
        for c in range(np.uint64(x.shape[1])):
            y[m, c] = x[m, c] * slopes[c] if x[m, c] < zero else x[m, c]


def leaky_relu_grad(dy: NDArray, x: NDArray, slopes: NDArray) -> NDArray:
    """Return the gradient by the input of :func:`leaky_relu`."""
    dx, shape = empty_like(x), (-1, len(slopes))
    rows = (np.ascontiguousarray(array).reshape(shape) for array in (dy, x))
    _leaky_relu_grad(*rows, slopes, dx.reshape(shape))
    return dx


@njit(otherwise=plain.leaky_relu_grad, **_options)
def _leaky_relu_grad(dy, x, slopes, dx):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    for m in range(len(x)):
        for c in range(np.uint64(x.shape[1])):
            dx[m, c] = dy[m, c] * slopes[c] if x[m, c] < zero else dy[m, c]


def prelu_grad(dy: NDArray, x: NDArray, slopes: NDArray) -> tuple[NDArray, NDArray]:
    """Return the gradients by the input and by the slopes (c,) of :func:`leaky_relu`; rows are added first to last."""
    dx, of_slopes, shape = empty_like(x), np.zeros_like(slopes), (-1, len(slopes))
    rows = (np.ascontiguousarray(array).reshape(shape) for array in (dy, x))
    _prelu_grad(*rows, slopes, dx.reshape(shape), of_slopes)
    return dx, of_slopes


@njit(otherwise=plain.prelu_grad, **_options)
def _prelu_grad(dy, x, slopes, dx, of_slopes):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    for m in range(len(x)):
        for c in range(np.uint64(x.shape[1])):
            dx[m, c] = dy[m, c] * slopes[c] if x[m, c] < zero else dy[m, c]
            of_slopes[c] += dy[m, c] * x[m, c] if x[m, c] < zero else zero


def hard_swish(x: NDArray) -> NDArray:
    """Return ``x * min(max(x + 3, 0), 6) / 6``; NaN stays."""
    y = empty_like(x)
    _hard_swish(np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y


@njit(otherwise=plain.hard_swish, **_options)
def _hard_swish(x, y):  # type: ignore[no-untyped-def]
    zero, three, sixth = x.dtype.type(0), x.dtype.type(3), x.dtype.type(1 / 6)
    for i in range(np.uint64(len(x))):
        inside = x[i] * (x[i] + three) * sixth
        y[i] = x[i] if x[i] > three else zero if x[i] < -three else inside


def hard_swish_grad(dy: NDArray, x: NDArray) -> NDArray:
    """Return the gradient by the input of :func:`hard_swish`."""
    dx = empty_like(x)
    _hard_swish_grad(*(np.ascontiguousarray(array).reshape(-1) for array in (dy, x)), dx.reshape(-1))
    return dx


@njit(otherwise=plain.hard_swish_grad, **_options)
def _hard_swish_grad(dy, x, dx):  # type: ignore[no-untyped-def]
    zero, three = x.dtype.type(0), x.dtype.type(3)
    third, half = x.dtype.type(1 / 3), x.dtype.type(0.5)
    for i in range(np.uint64(len(x))):
        inside = dy[i] * (x[i] * third + half)
        dx[i] = dy[i] if x[i] > three else zero if x[i] < -three else inside


def between_grad(dy: NDArray, x: NDArray, low: float, high: float, slope: float = 1.0) -> NDArray:
    """Return ``slope * dy`` where x lies strictly between low and high, else 0."""
    dx, (low, high, slope) = empty_like(x), (x.dtype.type(number) for number in (low, high, slope))
    _between_grad(
        *(np.ascontiguousarray(array).reshape(-1) for array in (dy, x)), (low, high, slope), dx.reshape(-1)
    )
    return dx


@njit(otherwise=plain.between_grad, **_options)
def _between_grad(dy, x, numbers, dx):  # type: ignore[no-untyped-def]
    (low, high, slope), zero = numbers, x.dtype.type(0)
    for i in range(np.uint64(len(x))):
        dx[i] = slope * dy[i] if low < x[i] < high else zero
