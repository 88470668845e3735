"""The simple convolution: loops over the output, compiled. Every other method is tested against it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.geometry import Window
from daskconv.kernels.jit import njit

# Only "contract" (fused multiply-add): the order of the sums stays as written.
_options: Any = {"nogil": True, "cache": True, "fastmath": {"contract"}}


def forward(x: NDArray, w: NDArray, bias: NDArray | None, window: Window, out: NDArray) -> None:
    """Write the convolution of ``x`` (n, h, w, c) with ``w`` (r, s, c / groups, k) into ``out`` (n, p, q, k)."""
    out[...] = 0 if bias is None else bias
    _forward(x, w, *_options_of(window), out)


def input_grad(dy: NDArray, w: NDArray, window: Window, out: NDArray) -> None:
    """Write the gradient by ``x`` into ``out`` (n, h, w, c), from ``dy`` (n, p, q, k)."""
    out[...] = 0
    _input_grad(dy, np.ascontiguousarray(w.swapaxes(2, 3)), *_options_of(window), out)


def weight_grad(x: NDArray, dy: NDArray, window: Window, out: NDArray) -> None:
    """Write the gradient by ``w`` into ``out`` (r, s, c / groups, k)."""
    out[...] = 0
    _weight_grad(x, dy, *_options_of(window), out)


def _options_of(window: Window) -> tuple:
    (top, _), (left, _) = window.padding
    return window.stride, (top, left), window.dilation, window.groups


# Unsigned indices: signed ones may be negative, which costs a check an element and the vectors.
@njit(inline="always", **_options)
def _add_scaled(out, at, value, row, start, length):  # type: ignore[no-untyped-def]
    """``out[at:] += value * row[start:]``, ``length`` elements."""
    for t in range(np.uint64(length)):
        out[np.uint64(at) + t] += value * row[np.uint64(start) + t]


@njit(**_options)
def _forward(x, w, stride, pad, dilation, groups, out):  # type: ignore[no-untyped-def]
    n, p, q, k = out.shape
    r, s, cg, _ = w.shape
    kg = k // groups
    for image in range(n):
        for i in range(p):
            for j in range(q):
                for a in range(r):
                    y = i * stride[0] - pad[0] + a * dilation[0]
                    if y < 0 or y >= x.shape[1]:
                        continue
                    for b in range(s):
                        z = j * stride[1] - pad[1] + b * dilation[1]
                        if z < 0 or z >= x.shape[2]:
                            continue
                        for g in range(groups):
                            for c in range(cg):
                                _add_scaled(
                                    out[image, i, j],
                                    g * kg,
                                    x[image, y, z, g * cg + c],
                                    w[a, b, c],
                                    g * kg,
                                    kg,
                                )


@njit(**_options)
def _input_grad(dy, wt, stride, pad, dilation, groups, out):  # type: ignore[no-untyped-def]
    n, p, q, k = dy.shape
    r, s, _, cg = wt.shape
    kg = k // groups
    for image in range(n):
        for i in range(p):
            for j in range(q):
                for a in range(r):
                    y = i * stride[0] - pad[0] + a * dilation[0]
                    if y < 0 or y >= out.shape[1]:
                        continue
                    for b in range(s):
                        z = j * stride[1] - pad[1] + b * dilation[1]
                        if z < 0 or z >= out.shape[2]:
                            continue
                        for g in range(groups):
                            for f in range(g * kg, (g + 1) * kg):
                                _add_scaled(out[image, y, z], g * cg, dy[image, i, j, f], wt[a, b, f], 0, cg)


@njit(**_options)
def _weight_grad(x, dy, stride, pad, dilation, groups, out):  # type: ignore[no-untyped-def]
    n, p, q, k = dy.shape
    r, s, cg, _ = out.shape
    kg = k // groups
    for image in range(n):
        for i in range(p):
            for j in range(q):
                for a in range(r):
                    y = i * stride[0] - pad[0] + a * dilation[0]
                    if y < 0 or y >= x.shape[1]:
                        continue
                    for b in range(s):
                        z = j * stride[1] - pad[1] + b * dilation[1]
                        if z < 0 or z >= x.shape[2]:
                            continue
                        for g in range(groups):
                            for c in range(cg):
                                _add_scaled(
                                    out[a, b, c],
                                    g * kg,
                                    x[image, y, z, g * cg + c],
                                    dy[image, i, j],
                                    g * kg,
                                    kg,
                                )
