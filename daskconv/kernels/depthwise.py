"""Depthwise convolution, one filter a channel: there is nothing to reduce over channels, so they fill the vectors."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels.epilogue import NOTHING, Epilogue, finish_run
from daskconv.kernels.implicit_walk import valid, walk_of
from daskconv.kernels.panels import options, tap_order


def fits(w_shape: tuple[int, ...], groups: int) -> bool:
    """Return whether weights (r, s, c / groups, k) give each channel a filter of its own, and just one."""
    return w_shape[2] == 1 and groups == w_shape[3] > 1


def correlate(
    x: NDArray,
    w: NDArray,
    bias: NDArray | None,
    correlation: Correlation,
    lines: Pair,
    out: NDArray,
    epilogue: Epilogue = NOTHING,
) -> None:
    """Write a range of output rows, counted over all images, of a correlation of ``x`` (n, h, w, c) into ``out``.

    ``w`` is (r, s, 1, c); the correlation's phase and spacing say which pixels of ``out`` are written.
    """
    c = x.shape[3]
    taps = np.ascontiguousarray(w.reshape(-1, c)[tap_order(correlation, w.shape[1])])
    start = np.zeros(c, x.dtype) if bias is None else bias
    walk, after = (
        walk_of(correlation, x.shape, out.shape),
        (epilogue.flat(out).reshape(-1, c), epilogue.flags),
    )
    _correlate(x.reshape(-1, c), taps, start, out.reshape(-1, c), walk, lines, after)


@njit(**options)
def _correlate(x, taps, start, out, walk, lines, epilogue):  # type: ignore[no-untyped-def]
    add, flags = epilogue
    (p, q), (_, h, w, _), (_, whole_rows, whole_cols, _) = walk.size, walk.image, walk.whole
    for line in range(lines[0], lines[1]):
        n, i = line // p, line % p
        y = i * walk.step[0] + walk.rows.first
        rows = valid(y, walk.rows.step, walk.rows.number, h)
        for j in range(q):
            z = j * walk.step[1] + walk.cols.first
            cols = valid(z, walk.cols.step, walk.cols.number, w)
            row = n * whole_rows + i * walk.spacing[0] + walk.phase[0]
            to = out[row * whole_cols + j * walk.spacing[1] + walk.phase[1]]
            to[:] = start
            for r in range(rows[0], rows[1]):
                for s in range(cols[0], cols[1]):
                    pixel = x[(n * h + y + r * walk.rows.step) * w + z + s * walk.cols.step]
                    tap = taps[r * walk.cols.number + s]
                    for c in range(len(to)):
                        to[c] += pixel[c] * tap[c]
            if flags[0] or flags[1]:
                finish_run(to, 0, add[line * q + j], 0, flags, len(to))


def weight_grad(x: NDArray, dy: NDArray, correlation: Correlation, lines: Pair, out: NDArray) -> None:
    """Write the gradient by the weights (r, s, 1, c) into ``out``, from a range of output rows of all images."""
    c = x.shape[3]
    out[...] = 0
    _weight_grad(
        x.reshape(-1, c),
        dy.reshape(-1, c),
        out.reshape(-1, c),
        walk_of(correlation, x.shape, dy.shape),
        lines,
    )


@njit(**options)
def _weight_grad(x, dy, out, walk, lines):  # type: ignore[no-untyped-def]
    (p, q), (_, h, w, _) = walk.size, walk.image
    for line in range(lines[0], lines[1]):
        n, i = line // p, line % p
        y = i * walk.step[0] + walk.rows.first
        rows = valid(y, walk.rows.step, walk.rows.number, h)
        for r in range(rows[0], rows[1]):
            for s in range(walk.cols.number):
                total = out[r * walk.cols.number + s]
                z = walk.cols.first + s * walk.cols.step
                first, last = valid(z, walk.step[1], q, w)
                for j in range(first, last):
                    pixel = x[(n * h + y + r * walk.rows.step) * w + z + j * walk.step[1]]
                    gradient = dy[line * q + j]
                    for c in range(len(total)):
                        total[c] += pixel[c] * gradient[c]
