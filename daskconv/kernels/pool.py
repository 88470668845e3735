"""Pooling and its gradients over one block, channels last; borders are clipped to the image."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.geometry import Window
from daskconv.kernels import plain
from daskconv.kernels.jit import njit
from daskconv.kernels.scratch import empty

# Loops over channels count in uint64: a signed index may be negative, and that check costs the vectors.
_options: Any = {"nogil": True, "cache": True}


def max_pool(x: NDArray, window: Window) -> tuple[NDArray, NDArray]:
    """Return the maxima (n, p, q, c) and the tap each came from (uint32, the first of equals)."""
    out = empty((x.shape[0], *window.output_size(x.shape[1], x.shape[2]), x.shape[3]), x.dtype)
    winner = np.empty(out.shape, np.uint32)
    _max_pool(x, *_options_of(window), out, winner)
    return out, winner


def max_pool_alone(x: NDArray, window: Window) -> NDArray:
    """Return the maxima (n, p, q, c), for passes that never go back."""
    out = empty((x.shape[0], *window.output_size(x.shape[1], x.shape[2]), x.shape[3]), x.dtype)
    _max_pool_alone(x, *_options_of(window), out)
    return out


def max_pool_grad(dy: NDArray, winner: NDArray, window: Window, x_shape: tuple[int, ...]) -> NDArray:
    """Return the gradient by ``x``: each output's gradient goes to the tap that won."""
    dx = np.zeros(x_shape, dy.dtype)
    _max_pool_grad(dy, winner, *_options_of(window), dx)
    return dx


def avg_pool(x: NDArray, window: Window, count_include_pad: bool) -> NDArray:
    """Return the means (n, p, q, c), over real pixels or over padding too."""
    out = np.zeros((x.shape[0], *window.output_size(x.shape[1], x.shape[2]), x.shape[3]), x.dtype)
    scale = _scales(window, x.shape[1:3], count_include_pad, x.dtype)
    _avg_pool(x, *_options_of(window), scale, out)
    return out


def sum_pool(x: NDArray, window: Window) -> NDArray:
    """Return the sums (n, p, q, c) over real pixels."""
    out = np.zeros((x.shape[0], *window.output_size(x.shape[1], x.shape[2]), x.shape[3]), x.dtype)
    _avg_pool(x, *_options_of(window), np.ones(out.shape[1:3], x.dtype), out)
    return out


def sum_pool_grad(dy: NDArray, window: Window, x_shape: tuple[int, ...]) -> NDArray:
    """Return the gradient by ``x``: each pixel gets the gradients of all outputs that it is in."""
    dx = np.zeros(x_shape, dy.dtype)
    _avg_pool_grad(dy, *_options_of(window), np.ones(dy.shape[1:3], dy.dtype), dx)
    return dx


def avg_pool_grad(dy: NDArray, window: Window, count_include_pad: bool, x_shape: tuple[int, ...]) -> NDArray:
    """Return the gradient by ``x``: each output's gradient is shared out over its pixels."""
    dx = np.zeros(x_shape, dy.dtype)
    scale = _scales(window, x_shape[1:3], count_include_pad, dy.dtype)
    _avg_pool_grad(dy, *_options_of(window), scale, dx)
    return dx


def _options_of(window: Window) -> tuple:
    (top, _), (left, _) = window.padding
    return window.kernel, window.stride, (top, left), window.dilation


@lru_cache(maxsize=256)
def _scales(window: Window, image: tuple[int, ...], count_include_pad: bool, dtype: np.dtype) -> NDArray:
    """Return 1 / pixels counted, for each output pixel (p, q)."""
    counts = []
    for axis in (0, 1):
        size, (before, after) = image[axis], window.padding[axis]
        lowest, limit = (-before, size + after) if count_include_pad else (0, size)
        starts = np.arange(window.output_size(*image)[axis]) * window.stride[axis] - before
        taps = starts[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        counts.append(((taps >= lowest) & (taps < limit)).sum(1))
    return (1 / np.maximum(np.outer(*counts), 1)).astype(dtype)


@njit(otherwise=plain.max_pool, **_options)
def _max_pool(x, kernel, stride, pad, dilation, out, winner):  # type: ignore[no-untyped-def]
    n, p, q, channels = out.shape
    for image in range(n):
        for i in range(p):
            for j in range(q):
                best, tap = out[image, i, j], winner[image, i, j]
                best[:] = -np.inf
                tap[:] = 0
                for a in range(kernel[0]):
                    y = i * stride[0] - pad[0] + a * dilation[0]
                    if y < 0 or y >= x.shape[1]:
                        continue
                    for b in range(kernel[1]):
                        z = j * stride[1] - pad[1] + b * dilation[1]
                        if z < 0 or z >= x.shape[2]:
                            continue
                        here = np.uint32(a * kernel[1] + b)
                        pixel = x[image, y, z]
                        for c in range(np.uint64(channels)):
                            # A NaN has to win, or it would vanish silently.
                            wins = pixel[c] > best[c] or pixel[c] != pixel[c]
                            best[c] = pixel[c] if wins else best[c]
                            tap[c] = here if wins else tap[c]


@njit(otherwise=plain.max_pool_alone, **_options)
def _max_pool_alone(x, kernel, stride, pad, dilation, out):  # type: ignore[no-untyped-def]
    n, p, q, channels = out.shape
    for image in range(n):
        for i in range(p):
            for j in range(q):
                best = out[image, i, j]
                best[:] = -np.inf
                for a in range(kernel[0]):
                    y = i * stride[0] - pad[0] + a * dilation[0]
                    if y < 0 or y >= x.shape[1]:
                        continue
                    for b in range(kernel[1]):
                        z = j * stride[1] - pad[1] + b * dilation[1]
                        if z < 0 or z >= x.shape[2]:
                            continue
                        pixel = x[image, y, z]
                        for c in range(np.uint64(channels)):
                            best[c] = best[c] if pixel[c] <= best[c] else pixel[c]


@njit(otherwise=plain.max_pool_grad, **_options)
def _max_pool_grad(dy, winner, kernel, stride, pad, dilation, dx):  # type: ignore[no-untyped-def]
    n, p, q, channels = dy.shape
    for image in range(n):
        for i in range(p):
            for j in range(q):
                gradient, tap = dy[image, i, j], winner[image, i, j]
                for a in range(kernel[0]):
                    y = i * stride[0] - pad[0] + a * dilation[0]
                    if y < 0 or y >= dx.shape[1]:
                        continue
                    for b in range(kernel[1]):
                        z = j * stride[1] - pad[1] + b * dilation[1]
                        if z < 0 or z >= dx.shape[2]:
                            continue
                        here = np.uint32(a * kernel[1] + b)
                        pixel = dx[image, y, z]
                        # Every tap looks at every channel: that is vectors, jumping to the winners is not.
                        for c in range(np.uint64(channels)):
                            pixel[c] = pixel[c] + gradient[c] if tap[c] == here else pixel[c]


@njit(otherwise=plain.avg_pool, **_options)
def _avg_pool(x, kernel, stride, pad, dilation, scale, out):  # type: ignore[no-untyped-def]
    n, p, q, channels = out.shape
    for image in range(n):
        for i in range(p):
            for j in range(q):
                total = out[image, i, j]
                for a in range(kernel[0]):
                    y = i * stride[0] - pad[0] + a * dilation[0]
                    if y < 0 or y >= x.shape[1]:
                        continue
                    for b in range(kernel[1]):
                        z = j * stride[1] - pad[1] + b * dilation[1]
                        if z < 0 or z >= x.shape[2]:
                            continue
                        pixel = x[image, y, z]
                        for c in range(np.uint64(channels)):
                            total[c] += pixel[c]
                for c in range(np.uint64(channels)):
                    total[c] *= scale[i, j]


@njit(otherwise=plain.avg_pool_grad, **_options)
def _avg_pool_grad(dy, kernel, stride, pad, dilation, scale, dx):  # type: ignore[no-untyped-def]
    n, p, q, channels = dy.shape
    for image in range(n):
        for i in range(p):
            for j in range(q):
                gradient = dy[image, i, j]
                for a in range(kernel[0]):
                    y = i * stride[0] - pad[0] + a * dilation[0]
                    if y < 0 or y >= dx.shape[1]:
                        continue
                    for b in range(kernel[1]):
                        z = j * stride[1] - pad[1] + b * dilation[1]
                        if z < 0 or z >= dx.shape[2]:
                            continue
                        pixel = dx[image, y, z]
                        for c in range(np.uint64(channels)):
                            pixel[c] += gradient[c] * scale[i, j]
