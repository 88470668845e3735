"""Lowering (im2col) and the matrix products over lowered rows.

A lowered row holds all taps and channels that one output pixel reads, so a convolution is the product
of lowered rows and weights (Chellapilla, Puri, Simard 2006). Channels are last: a row of taps is one
contiguous run of the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair
from daskconv.kernels import plain
from daskconv.kernels.jit import intrinsic, njit
from daskconv.kernels.scratch import scratch
from daskconv.timeline import timed

# A copy of a constant length is a few instructions, one of any other length is a call.
_VECTOR, _SHORT = 16, 48

Rows = tuple[int, int]
"""A range of output pixels, counted over images, rows and columns together."""


def lower(x: NDArray, correlation: Correlation, rows: Rows, channels: Rows, out: NDArray) -> None:
    """Write the lowered rows of ``x`` (n, h, w, c), C-contiguous, into ``out`` (rows, taps * channels)."""
    _lower(
        x.reshape(-1),
        np.array(x.shape),
        np.array(correlation.rows),
        np.array(correlation.cols),
        correlation.step,
        correlation.size,
        rows,
        channels,
        out.reshape(-1),
    )


@njit(otherwise=plain.lower, nogil=True, cache=True)
def _lower(x, shape, row_offsets, col_offsets, step, size, rows, channels, out):  # type: ignore[no-untyped-def]
    _, h, w, c = shape
    p, q = size
    cg = channels[1] - channels[0]
    taps = len(col_offsets)
    # Neighbouring taps of all channels are neighbours in memory too: one copy takes them all.
    whole_runs = cg == c and col_offsets[taps - 1] - col_offsets[0] == taps - 1
    # Counted up instead of divided out of the row's number: four divisions cost as much as the copies.
    n, pixel = rows[0] // (p * q), rows[0] % (p * q)
    i, j = pixel // q * step[0], pixel % q * step[1]
    at = 0
    for _ in range(rows[0], rows[1]):
        left = j + col_offsets[0]
        skip = min(max(-left, 0), taps)
        stop = max(min(taps, w - left), skip)
        for offset in row_offsets:
            y = i + offset
            if y < 0 or y >= h:
                _zero(out, at, taps * cg)
                at += taps * cg
            elif whole_runs:
                if skip > 0:
                    _zero(out, at, skip * c)
                _copy(out, at + skip * c, x, ((n * h + y) * w + left + skip) * c, (stop - skip) * c)
                if stop < taps:
                    _zero(out, at + stop * c, (taps - stop) * c)
                at += taps * c
            else:
                for across in col_offsets:
                    z = j + across
                    if z < 0 or z >= w:
                        _zero(out, at, cg)
                    else:
                        _copy(out, at, x, ((n * h + y) * w + z) * c + channels[0], cg)
                    at += cg
        j += step[1]
        if j == q * step[1]:
            i, j = i + step[0], 0
            if i == p * step[0]:
                n, i = n + 1, 0


@intrinsic
def _copy_vector(typing, out, at, x, source):  # type: ignore[no-untyped-def]
    """Copy _VECTOR elements. A loop would become as many loads and stores: the compiler fears an overlap."""
    from numba import types
    from numba.core import cgutils

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to, frm = (
            builder.gep(context.make_array(array)(context, builder, value).data, [start])
            for array, value, start in ((out, args[0], args[1]), (x, args[2], args[3]))
        )
        count = context.get_constant(types.intp, _VECTOR)
        itemsize = context.get_abi_sizeof(context.get_data_type(out.dtype))
        cgutils.raw_memcpy(builder, to, frm, count, itemsize)
        return context.get_dummy_value()

    return types.void(out, at, x, source), codegen


# Unsigned indices: signed ones may be negative, which costs a check an element and the vectors.
@njit(nogil=True, cache=True, inline="always")
def _copy(out, at, x, source, length):  # type: ignore[no-untyped-def]
    """Copy a run; a short one in whole vectors: what they write past its end the next run overwrites."""
    if length > _SHORT or length + _VECTOR > min(out.size - at, x.size - source):
        for t in range(np.uint64(length)):
            out[np.uint64(at) + t] = x[np.uint64(source) + t]
        return
    for start in range(0, length, _VECTOR):
        _copy_vector(out, at + start, x, source + start)


@njit(nogil=True, cache=True, inline="always")
def _zero(out, at, length):  # type: ignore[no-untyped-def]
    for t in range(np.uint64(length)):
        out[np.uint64(at) + t] = 0


def weight_matrices(w: NDArray, correlation: Correlation, groups: int, *, transposed: bool) -> list[NDArray]:
    """Return each group's weights as a matrix (taps * input channels, output channels).

    ``transposed`` swaps the channels, as the input gradient needs: it reads k and writes c.
    """
    taps = w[progression(correlation.kernel_rows), progression(correlation.kernel_cols)]
    kg = w.shape[3] // groups
    matrices = []
    for g in range(groups):
        part = taps[..., g * kg : (g + 1) * kg]
        part = part.swapaxes(2, 3) if transposed else part
        matrices.append(np.ascontiguousarray(part).reshape(-1, part.shape[3]))
    return matrices


def progression(taps: tuple[int, ...]) -> slice:
    """Return evenly spaced taps as a slice, so that picking them copies nothing."""
    step = taps[1] - taps[0] if len(taps) > 1 else 1
    stop = taps[-1] + step
    return slice(taps[0], stop if stop >= 0 else None, step)


def channel_range(group: int, groups: int, channels: int) -> Rows:
    """Return the channels of one group."""
    width = channels // groups
    return group * width, (group + 1) * width


def lowered_width(correlation: Correlation, channels: int) -> int:
    """Return the length of a lowered row."""
    return len(correlation.rows) * len(correlation.cols) * channels


def correlate_rows(
    x: NDArray,
    matrices: list[NDArray],
    bias: NDArray | None,
    correlation: Correlation,
    rows: Rows,
    out: NDArray,
) -> None:
    """Lower a range of output pixels whole, then multiply once: ``out`` (rows, k) is overwritten."""
    groups = len(matrices)
    if _is_depthwise(groups, x.shape[3], out.shape[1]):
        np.einsum("mtc,tc->mc", _all_taps(x, correlation, rows), np.concatenate(matrices, 1), out=out)
        if bias is not None:
            out += bias
        return
    for g, matrix in enumerate(matrices):
        channels = channel_range(g, groups, x.shape[3])
        buffer = scratch("lowered", (rows[1] - rows[0], matrix.shape[0]), x.dtype)
        timed("lower", g, lower, x, correlation, rows, channels, buffer)
        timed("product", g, multiply, buffer, matrix, bias, channel_range(g, groups, out.shape[1]), out)


def multiply(lowered: NDArray, matrix: NDArray, bias: NDArray | None, columns: Rows, out: NDArray) -> None:
    """Write lowered rows times weights, plus bias, into ``out[:, columns]``."""
    target = out[:, slice(*columns)]
    np.matmul(lowered, matrix, out=target)
    if bias is not None:
        target += bias[slice(*columns)]


def weight_grad_rows(
    x: NDArray, dy: NDArray, correlation: Correlation, groups: int, rows: Rows, out: NDArray
) -> None:
    """Lower a range of output pixels, then multiply with their gradients ``dy`` (all rows, k).

    ``out`` (taps * c / groups, k) is overwritten.
    """
    if _is_depthwise(groups, x.shape[3], dy.shape[1]):
        np.einsum("mtc,mc->tc", _all_taps(x, correlation, rows), dy[slice(*rows)], out=out)
        return
    for g in range(groups):
        channels = channel_range(g, groups, x.shape[3])
        columns = slice(*channel_range(g, groups, dy.shape[1]))
        buffer = scratch("lowered", (rows[1] - rows[0], out.shape[0]), x.dtype)
        timed("lower", g, lower, x, correlation, rows, channels, buffer)
        timed("product", g, np.matmul, buffer.T, dy[slice(*rows), columns], out[:, columns])


def _is_depthwise(groups: int, c: int, k: int) -> bool:
    """Return whether each group has one channel in and one out: a product of one column each is slow."""
    return 1 < groups == c == k


def _all_taps(x: NDArray, correlation: Correlation, rows: Rows) -> NDArray:
    """Return the lowered rows of all channels as (rows, taps, channels)."""
    c = x.shape[3]
    buffer = scratch("lowered", (rows[1] - rows[0], lowered_width(correlation, 1), c), x.dtype)
    lower(x, correlation, rows, (0, c), buffer)
    return buffer


def interleave(part: NDArray, correlation: Correlation, out: NDArray) -> None:
    """Write one phase (n, i, j, c) of an input gradient at its pixels of ``out`` (n, h, w, c)."""
    (a, b), (dh, dw) = correlation.phase, correlation.spacing
    out[:, a::dh, b::dw] = part


def output_rows(images: int, size: Pair) -> int:
    """Return the number of output pixels of all images."""
    return images * size[0] * size[1]
