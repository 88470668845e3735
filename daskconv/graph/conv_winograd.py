"""How Winograd's passes are cut for threads: by tiles of the images, or by channels where these are more."""

from __future__ import annotations

from math import prod

from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.graph.blocks import count_of_shares, cuts_of, parts_of, run_together, shares_of, sum_in_order
from daskconv.graph.tiles import Work, grain_of_sums
from daskconv.kernels import winograd, winograd_grad
from daskconv.kernels.epilogue import NOTHING, Epilogue
from daskconv.kernels.turns import Turns
from daskconv.kernels.winograd_filters import filter_spans, panel_spans, unpacked
from daskconv.kernels.winograd_tiles import count_points, count_tiles, tile_size

# With fewer tiles than this for each channel, sums of parts of the images would cost more than they share.
_FEW = 4
# Transforming an element takes as long as so many operations of a product.
_FLOPS_PER_TRANSFORM = 30


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
    spans = filter_spans(w, correlation, groups, parts, transposed=transposed)
    if parts > 1:
        owners = min(threads or 1, len(spans))
        filters = unpacked(w, correlation, groups, spans, transposed=transposed, owners=owners)
        all_tiles = Turns.of([(0, tiles)])
        run_together(owners, winograd.correlate, x, filters, bias, correlation, all_tiles, out, epilogue)
        return
    for span in spans:
        cuts = shares_of(tiles, work // len(spans) // max(tiles, 1), threads)
        at_once = min(len(cuts), threads or 1)
        packed = panel_spans(w.dtype, span, at_once)
        filters = unpacked(w, correlation, groups, packed, transposed=transposed)
        turns = Turns.of(cuts)
        run_together(at_once, winograd.correlate, x, filters, bias, correlation, turns, out, epilogue)


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
        spans = panel_spans(x.dtype, (0, c), count_of_shares(work, threads))
        parts, shares = parts_of(1, w_shape, x.dtype, out), [((0, tiles), span) for span in spans]
    else:
        cuts = cuts_of(tiles, Work(work // tiles, 1, grain_of_sums(prod(w_shape))), threads)
        parts, shares = parts_of(len(cuts), w_shape, x.dtype, out), [(cut, (0, c)) for cut in cuts]
    at_once = min(len(shares), threads or 1)
    run_together(at_once, winograd_grad.weight_grad, x, dy, correlation, groups, shares, parts)
    return sum_in_order(parts)


def _flops(correlation: Correlation, images: int, c: int, k: int) -> int:
    return images * count_points(correlation) * (2 * c * k + _FLOPS_PER_TRANSFORM * (c + k))
