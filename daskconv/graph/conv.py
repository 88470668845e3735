"""The three passes of a convolution over NumPy arrays: on one thread, or cut into tasks for several.

``threads=None`` computes the whole block on the calling thread (a segment's block, a Dask chunk).
Otherwise the block is cut, by shape alone where the cut could be seen in the bits, and so many threads take the cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.geometry import Correlation, Window, forward_correlation, input_grad_correlations
from daskconv.graph import pipeline
from daskconv.graph.blocks import (
    count_of_shares,
    cuts_of,
    parts_of,
    run,
    run_together,
    shares_of,
    sum_in_order,
)
from daskconv.graph.threads import execute
from daskconv.graph.tiles import Range, Work, grain_of_sums, pipelined_tiles, split, turns
from daskconv.kernels import direct, fft, lowering
from daskconv.kernels.epilogue import NOTHING, Epilogue, finish
from daskconv.kernels.jit import importable
from daskconv.kernels.scratch import empty

# Their micro-kernel is written for LLVM and has no twin in NumPy.
if importable():
    from daskconv.graph import conv_winograd
    from daskconv.kernels import depthwise, implicit, implicit_grad, implicit_scatter, product
    from daskconv.kernels.packed import packed
    from daskconv.kernels.turns import Turns

Shape = tuple[int, ...]

# A product of BLAS packs its operands anew for each block.
_LOWERED = 2
# Memory moves one element of a result in the time of so many operations.
_FLOPS_PER_ELEMENT = 100
# With fewer images that are copied before they are read, threads share single ones.
_IMAGES_A_THREAD = 4
# Two partial sums let two products of a weight gradient run at once; more would cost memory.
_LANES = 2


def forward(
    x: NDArray,
    w: NDArray,
    bias: NDArray | None,
    window: Window,
    method: str,
    threads: int | None = None,
    epilogue: Epilogue = NOTHING,
) -> NDArray:
    """Return the convolution (n, p, q, k) of ``x`` (n, h, w, c) with ``w`` (r, s, c / groups, k).

    The epilogue's array has the result's shape.
    """
    x, w, bias, add = _one_dtype(x, w, bias, epilogue.add)
    epilogue = epilogue._replace(add=add)
    n, h, width, _ = x.shape
    out = empty((n, *window.output_size(h, width), w.shape[3]), x.dtype)
    if method == "direct":
        _over_images(direct.forward, n, threads, window, [x], [w, bias], out, _flops(window, out, w))
        return _finished(out, epilogue, threads)
    correlation = forward_correlation(window, h, width)
    if method == "implicit":
        _correlate_implicitly([correlation], x, w, bias, window.groups, False, out, threads, epilogue)
        return out
    if method == "winograd":
        conv_winograd.correlate(correlation, x, w, bias, window.groups, False, out, threads, epilogue)
        return out
    if method == "fft":
        _correlate_by_fft([correlation], x, w, bias, window.groups, False, out, threads)
        return _finished(out, epilogue, threads)
    _correlate(
        [(correlation, out.reshape(-1, w.shape[3]))], x, w, bias, window.groups, False, method, threads
    )
    return _finished(out, epilogue, threads)


def _finished(out: NDArray, epilogue: Epilogue, threads: int | None) -> NDArray:
    """Return the result after its epilogue, for methods that know of none."""
    if any(epilogue.flags):
        cuts = shares_of(len(out), _FLOPS_PER_ELEMENT * out[:1].size, threads)
        run([(finish, out[i:j], epilogue.part(i, j)) for i, j in cuts], threads, "other")
    return out


def input_grad(
    dy: NDArray, w: NDArray, x_shape: Shape, window: Window, method: str, threads: int | None = None
) -> NDArray:
    """Return the gradient by ``x`` (n, h, w, c) from ``dy`` (n, p, q, k)."""
    dy, w = _one_dtype(dy, w)
    out = empty(x_shape, dy.dtype)
    if method == "direct":
        _over_images(direct.input_grad, len(dy), threads, window, [dy], [w], out, _flops(window, dy, w))
        return out
    if method == "implicit" and implicit_scatter.fits(window, x_shape[3], dy.dtype):
        cuts = shares_of(len(dy), _flops(window, dy, w) // max(len(dy), 1), threads)
        run([(implicit_scatter.input_grad, dy, w, window, cut, out) for cut in cuts], threads)
        return out
    correlations = _with_taps(input_grad_correlations(window, *x_shape[1:3]), out)
    if method == "implicit":
        _correlate_implicitly(correlations, dy, w, None, window.groups, True, out, threads)
        return out
    if method == "winograd":
        conv_winograd.correlate(correlations[0], dy, w, None, window.groups, True, out, threads)
        return out
    if method == "fft":
        _correlate_by_fft(correlations, dy, w, None, window.groups, True, out, threads)
        return out
    parts = []
    for correlation in correlations:
        whole = correlation.spacing == (1, 1)
        part = out if whole else np.empty((len(dy), *correlation.size, x_shape[3]), dy.dtype)
        parts.append((correlation, part.reshape(-1, x_shape[3])))
    _correlate(parts, dy, w, None, window.groups, True, method, threads)
    if window.stride != (1, 1):
        for correlation, part in parts:
            lowering.interleave(part.reshape(len(dy), *correlation.size, x_shape[3]), correlation, out)
    return out


def weight_grad(
    x: NDArray,
    dy: NDArray,
    w_shape: Shape,
    window: Window,
    method: str,
    threads: int | None = None,
    out: NDArray | None = None,
) -> NDArray:
    """Return the gradient by ``w`` (r, s, c / groups, k) from ``x`` (n, h, w, c) and ``dy`` (n, p, q, k).

    It may be written to ``out``, of the gradient's shape; what is returned tells whether it was.
    """
    x, dy = _one_dtype(x, dy)
    correlation = forward_correlation(window, *x.shape[1:3])
    rows, k = dy.size // dy.shape[3], dy.shape[3]
    flat, depth = dy.reshape(rows, k), lowering.lowered_width(correlation, w_shape[2])
    work = Work(2 * depth * k, depth * x.itemsize * window.groups, _LOWERED)
    grain = grain_of_sums(prod(w_shape))
    if method == "winograd":
        return conv_winograd.weight_grad(x, dy, correlation, w_shape, window.groups, threads, out)
    if method == "implicit" and not depthwise.fits(w_shape, window.groups):
        return _implicit_weight_grad(x, dy, correlation, w_shape, window.groups, threads, out)
    if method == "pipelined":
        return _pipelined_weight_grad(x, flat, correlation, window.groups, work, threads).reshape(w_shape)
    if method == "direct":
        cuts = cuts_of(len(x), Work(work.flops * max(rows // max(len(x), 1), 1), 1, grain), threads)
        calls: list[tuple] = [(direct.weight_grad, x[i:j], dy[i:j], window) for i, j in cuts]
    elif method == "fft":
        cuts = _fft_cuts(len(x), correlation, w_shape, window.groups, threads)
        calls = [(fft.weight_grad, x[i:j], dy[i:j], correlation, window.groups) for i, j in cuts]
    elif method == "implicit":
        lines = rows // max(dy.shape[2], 1)
        cuts = cuts_of(lines, Work(work.flops * dy.shape[2], 1, grain), threads)
        calls = [(depthwise.weight_grad, x, dy, correlation, cut) for cut in cuts]
    else:
        cuts = cuts_of(rows, work, threads)
        calls = [(lowering.weight_grad_rows, x, flat, correlation, window.groups, cut) for cut in cuts]
    shape = (depth, k) if method == "lowering" else w_shape
    parts = parts_of(len(cuts), shape, x.dtype, out)
    stage = "other" if method == "lowering" else "convolve"
    run([(*call, part) for call, part in zip(calls, parts, strict=True)], threads, stage)
    return sum_in_order(parts).reshape(w_shape)


def _one_dtype(*arrays: Any) -> list[Any]:
    """Return arrays (None stays) C-contiguous and all float32 or all float64: kernels trust that they are."""
    dtype = np.float64 if any(a is not None and a.dtype.itemsize > 4 for a in arrays) else np.float32
    return [None if a is None else np.ascontiguousarray(a, dtype) for a in arrays]


def _with_taps(correlations: tuple[Correlation, ...], out: NDArray) -> list[Correlation]:
    """Return the correlations that read anything; the pixels of the others become 0."""
    for unread in correlations:
        if not unread.rows or not unread.cols:
            out[:, unread.phase[0] :: unread.spacing[0], unread.phase[1] :: unread.spacing[1]] = 0
    return [correlation for correlation in correlations if correlation.rows and correlation.cols]


def _correlate_implicitly(
    correlations: list[Correlation],
    x: NDArray,
    w: NDArray,
    bias: NDArray | None,
    groups: int,
    transposed: bool,
    out: NDArray,
    threads: int | None,
    epilogue: Epilogue = NOTHING,
) -> None:
    """Compute each correlation over ``x`` into its pixels of ``out``, without lowering."""
    calls: list[tuple] = []
    for correlation in correlations:
        if depthwise.fits(w.shape, groups):
            row = 2 * correlation.size[1] * w.size
            for cut in shares_of(len(x) * correlation.size[0], row, threads):
                calls.append((depthwise.correlate, x, w, bias, correlation, cut, out, epilogue))
            continue
        weights = packed(w, correlation, groups, transposed=transposed)
        parts = count_of_shares(2 * len(x) * prod(correlation.size) * weights.macs, threads)
        at_once = min(parts, threads or 1)
        if product.is_pixelwise(x, correlation, out):
            pixels = Turns.of(turns(len(x) * prod(x.shape[1:3]), at_once, product.rows_at_once(x.dtype)))
            run_together(at_once, product.correlate_pixels, x, weights, bias, pixels, out, epilogue)
        else:
            lines = Turns.of(_turns_of(x, correlation, at_once))
            run_together(at_once, implicit.correlate, x, weights, bias, correlation, lines, out, epilogue)
    if calls:
        run(calls, threads)


def _turns_of(x: NDArray, correlation: Correlation, at_once: int) -> Sequence[Range]:
    """Return the lines of a correlation in turns for so many threads."""
    lines, images = implicit.count_lines(correlation, len(x)), len(x)
    if not implicit.copies_whole_images(x, correlation):
        return turns(lines, at_once)
    # An image is copied once only, if there are enough.
    few = images < _IMAGES_A_THREAD * at_once
    return split(lines, at_once) if few else turns(lines, at_once, lines // images)


def _implicit_weight_grad(
    x: NDArray,
    dy: NDArray,
    correlation: Correlation,
    w_shape: Shape,
    groups: int,
    threads: int | None,
    out: NDArray | None,
) -> NDArray:
    """Return a weight gradient without lowering, cut into lines of output pixels, or into pixels that know no lines."""
    pixelwise = product.is_pixelwise(x, correlation, dy)
    rows, length = len(dy) * dy.shape[1], dy.shape[2]
    lines, flops = (rows * length, 1) if pixelwise else (rows, length)
    work = Work(2 * prod(w_shape) * flops, 1, grain_of_sums(prod(w_shape)))
    cuts = cuts_of(lines, work, threads)
    parts, at_once = parts_of(len(cuts), w_shape, x.dtype, out), min(len(cuts), threads or 1)
    if pixelwise:
        run_together(at_once, product.weight_grad_pixels, x, dy, groups, Turns.of(cuts), parts)
    else:
        run_together(at_once, implicit_grad.weight_grad, x, dy, correlation, groups, Turns.of(cuts), parts)
    return sum_in_order(parts)


def _correlate_by_fft(
    correlations: list[Correlation],
    x: NDArray,
    w: NDArray,
    bias: NDArray | None,
    groups: int,
    transposed: bool,
    out: NDArray,
    threads: int | None,
) -> None:
    """Compute each correlation over ``x`` into its pixels of ``out``, in the frequency domain."""
    run(
        [
            (fft.correlate, x[i:j], w, bias, correlation, groups, transposed, out[i:j])
            for correlation in correlations
            for i, j in _fft_cuts(len(x), correlation, w.shape, groups, threads)
        ],
        threads,
    )


def _fft_cuts(
    images: int, correlation: Correlation, w_shape: Shape, groups: int, threads: int | None
) -> list[Range]:
    """Cut images into blocks that are worth transforming the weights for each."""
    image, weights = fft.flops(correlation, w_shape[2], w_shape[3] // groups)
    few = 1 + 4 * weights // image
    return [
        (i * few, min(j * few, images))
        for i, j in cuts_of(-(-images // few), Work(few * groups * image, 1), threads)
    ]


def _correlate(
    parts: list[tuple[Correlation, NDArray]],
    x: NDArray,
    w: NDArray,
    bias: NDArray | None,
    groups: int,
    transposed: bool,
    method: str,
    threads: int | None,
) -> None:
    """Compute each correlation over ``x`` into its ``out`` (rows, k), by lowering, whole or pipelined."""
    depths = [lowering.lowered_width(correlation, x.shape[3] // groups) for correlation, _ in parts]
    works = [
        Work(2 * depth * out.shape[1], depth * out.itemsize * groups, _LOWERED)
        for depth, (_, out) in zip(depths, parts, strict=True)
    ]
    if method == "lowering":
        calls = []
        for (correlation, out), work in zip(parts, works, strict=True):
            matrices = lowering.weight_matrices(w, correlation, groups, transposed=transposed)
            for cut in cuts_of(len(out), work, threads):
                calls.append((lowering.correlate_rows, x, matrices, bias, correlation, cut, out[slice(*cut)]))
        run(calls, threads, "other")
        return
    tiles = [pipelined_tiles(len(out), work) for (_, out), work in zip(parts, works, strict=True)]
    largest = max((_longest(cuts) * depth for cuts, depth in zip(tiles, depths, strict=True)), default=0)
    line = pipeline.Pipeline(threads or 1, largest, x.dtype)
    for (correlation, out), cuts in zip(parts, tiles, strict=True):
        weights = pipeline.weights_of(w, correlation, groups, _longest(cuts), transposed=transposed)
        pipeline.add_correlation(line, x, weights, bias, correlation, cuts, out)
    execute(line.in_order(), [], threads or 1)


def _pipelined_weight_grad(
    x: NDArray, dy: NDArray, correlation: Correlation, groups: int, work: Work, threads: int | None
) -> NDArray:
    depth = lowering.lowered_width(correlation, x.shape[3] // groups)
    tiles = pipelined_tiles(len(dy), work)
    sums = np.empty((min(_LANES, len(tiles)), depth, dy.shape[1]), x.dtype)
    line = pipeline.Pipeline(threads or 1, _longest(tiles) * depth, x.dtype)
    pipeline.add_weight_grad(line, x, dy, correlation, groups, tiles, sums)
    execute(line.in_order(), [], threads or 1)
    return sum_in_order(sums)


def _over_images(
    kernel: Callable[..., None],
    images: int,
    threads: int | None,
    window: Window,
    per_image: list[NDArray],
    shared: list[Any],
    out: NDArray,
    flops: int,
) -> None:
    cuts = shares_of(images, flops // max(images, 1), threads)
    run([(kernel, *(a[i:j] for a in per_image), *shared, window, out[i:j]) for i, j in cuts], threads)


def _longest(tiles: list[Range]) -> int:
    return max(stop - start for start, stop in tiles)


def _flops(window: Window, y: NDArray, w: NDArray) -> int:
    return 2 * y.size * window.taps * w.shape[2]
