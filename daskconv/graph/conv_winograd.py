"""How Winograd's passes are cut for threads: by tiles of the images, or by channels where these are more."""

from __future__ import annotations

from math import prod

from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.graph.blocks import count_of_shares, cuts_of, parts_of, run, shares_of, sum_in_order
from daskconv.graph.tiles import Range, Work, grain_of_sums
from daskconv.kernels import winograd, winograd_grad
from daskconv.kernels.epilogue import NOTHING, Epilogue
from daskconv.kernels.winograd_tiles import count_points, count_tiles, tile_size

# With fewer tiles than this for each channel, sums of parts of the images would cost more than they share.
_FEW = 4
# Transforming an element takes as long as so many operations of a product.
_FLOPS_PER_TRANSFORM = 30
# Transforming an element of the filters counts for more: all threads wait for it before they multiply.
_FLOPS_PER_FILTER = 250


def correlate(
    correlation: Correlation,
    x: NDArray,
    w: NDArray,
    bias: NDArray | None,
    groups: int,
    transposed: bool,
    out: NDArray,
    threads: int | None,
    epilogue: Epilogue = NOTHING,
) -> None:
    """Compute a correlation over ``x`` into ``out``."""
    tiles = len(x) * count_tiles(correlation, tile_size(correlation))
    c, k = (w.shape[3] // groups, w.shape[2]) if transposed else (w.shape[2], w.shape[3] // groups)
    work = _flops(correlation, len(x), c, k * groups)
    # Where filters are more than tiles, to transform them is the larger part: each thread takes some of them.
    parts = count_of_shares(work, threads) if tiles < k else 1
    spans = winograd.filter_spans(w, correlation, groups, parts, transposed=transposed)
    if parts > 1:
        calls = [
            (_correlate_some, x, w, bias, correlation, groups, transposed, span, out, epilogue)
            for span in spans
        ]
        run(calls, threads)
        return
    for span in spans:
        filters = winograd.unpacked(w, correlation, groups, span, transposed=transposed)
        packers = count_of_shares(_FLOPS_PER_FILTER * filters.panels.size, threads)
        some = winograd.panel_spans(w.dtype, span, packers)
        run([(winograd.pack_some, filters, w, correlation, part, transposed) for part in some], threads)
        cuts = shares_of(tiles, work // len(spans) // max(tiles, 1), threads)
        run(
            [(winograd.correlate, x, filters, bias, correlation, cut, out, epilogue) for cut in cuts], threads
        )


def _correlate_some(
    x: NDArray,
    w: NDArray,
    bias: NDArray | None,
    correlation: Correlation,
    groups: int,
    transposed: bool,
    span: Range,
    out: NDArray,
    epilogue: Epilogue,
) -> None:
    """Compute all tiles of some filters."""
    filters = winograd.pack(w, correlation, groups, span, transposed=transposed)
    tiles = len(x) * count_tiles(correlation, filters.m)
    winograd.correlate(x, filters, bias, correlation, (0, tiles), out, epilogue)


def weight_grad(
    x: NDArray,
    dy: NDArray,
    correlation: Correlation,
    w_shape: tuple[int, ...],
    groups: int,
    threads: int | None,
    out: NDArray | None = None,
) -> NDArray:
    """Return the gradient by the weights (r, s, c / groups, k), in ``out`` where it can be."""
    c, k = w_shape[2:]
    tiles = len(x) * count_tiles(correlation, tile_size(correlation))
    work = _flops(correlation, len(x), c, k)
    if tiles < _FEW * c:
        (total,) = parts_of(1, w_shape, x.dtype, out)
        spans = winograd.panel_spans(x.dtype, (0, c), count_of_shares(work, threads))
        whole = (0, tiles)
        run(
            [(winograd_grad.weight_grad, x, dy, correlation, groups, whole, span, total) for span in spans],
            threads,
        )
        return total
    cuts = cuts_of(tiles, Work(work // tiles, 1, grain_of_sums(prod(w_shape))), threads)
    parts = parts_of(len(cuts), w_shape, x.dtype, out)
    calls = zip(cuts, parts, strict=True)
    run(
        [(winograd_grad.weight_grad, x, dy, correlation, groups, cut, (0, c), part) for cut, part in calls],
        threads,
    )
    return sum_in_order(parts)


def _flops(correlation: Correlation, images: int, c: int, k: int) -> int:
    return images * count_points(correlation) * (2 * c * k + _FLOPS_PER_TRANSFORM * (c + k))
