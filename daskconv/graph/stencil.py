"""A filter over the blocks of an image: those of a Dask array, or one NumPy array as a single block.

What lies inside a block is filtered where it is. Only a rim as wide as the halo is put together from the block, its
neighbours and the boundary, so that no padded copy of an image is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from dask._task_spec import DataNode, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import DTypeLike, NDArray

from daskconv.graph.blocks import run
from daskconv.graph.gather import Gather, Source, gathered
from daskconv.graph.halo import Range, mapped_part, part, ranges, whole
from daskconv.graph.threads import available_threads
from daskconv.graph.tiles import split
from daskconv.kernels.scratch import empty
from daskconv.kernels.stencil import Lines, Stencil, correlate, correlate_frequencies

if TYPE_CHECKING:
    import dask.array as da

# Rows that are put together at once take so much memory.
_BOX_BYTES = 4 << 20
# Rows that a thread takes at once have so many pixels.
_PIXELS = 1 << 20


def filter_now(image: NDArray, axis: int, shown: Sequence[NDArray], stencil: Stencil, fill: float) -> NDArray:
    """Return a filtered image, computed on this process's threads.

    ``axis`` is the rows', the columns' is the next; ``shown`` are the pixels of both with what lies beyond.
    """
    reads = [whole((size,)) for size in image.shape]
    reads[axis : axis + 2] = [mapped_part(line, [0, image.shape[axis + i]]) for i, line in enumerate(shown)]
    gather = Gather(tuple(reads), (-1,) * prod(len(read.runs) for read in reads))
    blocks = (image,) * len(gather.picks)
    return _filter(gather, blocks, axis, stencil, fill, image.dtype, available_threads())


def filter_lazily(
    name: str, image: da.Array, axis: int, shown: Sequence[NDArray], stencil: Stencil, fill: float
) -> da.Array:
    """Return the graph: a task a chunk, one that copies its rims, and the kernel."""
    import dask.array as da

    token = tokenize(name, image.name, axis, shown, stencil, fill)
    source = Source(image, f"{name}-rims-{token}")
    parts = [ranges(chunks) for chunks in image.chunks]
    reads = [[part(at, span) for span in spans] for at, spans in zip(source.edges, parts, strict=True)]
    for i, size in enumerate(stencil.taps.shape, axis):
        line = shown[i - axis]
        reads[i] = [mapped_part(line[low : high + size - 1], source.edges[i]) for low, high in parts[i]]
    kernel = f"{name}-kernel-{token}"
    tasks: dict[Any, Any] = {kernel: DataNode(kernel, stencil)}
    for numbered in product(*(enumerate(axis_reads) for axis_reads in reads)):
        key = (f"{name}-{token}", *(i for i, _ in numbered))
        gather, refs = source.gather([read for _, read in numbered])
        tasks[key] = Task(key, filter_chunk, gather, (axis, fill, image.dtype), TaskRef(kernel), *refs)
    tasks.update(source.tasks())
    arrays: Any = [image]
    graph = HighLevelGraph.from_collections(f"{name}-{token}", tasks, dependencies=arrays)
    chunks = tuple(tuple(high - low for low, high in spans) for spans in parts)
    return da.Array(graph, f"{name}-{token}", chunks, meta=image._meta)


def filter_chunk(
    gather: Gather, options: tuple[int, float, np.dtype], stencil: Stencil, *blocks: Any
) -> NDArray:
    """Filter a chunk on this thread."""
    axis, fill, dtype = options
    return _filter(gather, blocks, axis, stencil, fill, dtype, None)


class Home(NamedTuple):
    """The block in whose inside nothing needs to be put together: rows and columns of the box that lie in it."""

    lines: Lines
    rows: Range
    cols: Range


def _filter(
    gather: Gather,
    blocks: Sequence[Any],
    axis: int,
    stencil: Stencil,
    fill: float,
    dtype: np.dtype,
    threads: int | None,
) -> NDArray:
    """Return the filtered pixels of a gathered box, in bands of rows that threads take."""
    halo = [size - 1 for size in stencil.taps.shape]
    shape = list(gather.shape)
    shape[axis : axis + 2] = [size - more for size, more in zip(shape[axis : axis + 2], halo, strict=True)]
    out = empty(tuple(shape), dtype)
    folded = out.reshape(prod(shape[:axis]), *shape[axis : axis + 2], prod(shape[axis + 2 :]))
    home = None if stencil.spectrum is not None else _home(gather, blocks, axis, dtype)
    box = (gather, blocks, axis, fill, home)
    run(
        [(filter_rows, box, stencil, band, folded) for band in _bands(stencil, home, folded, threads)],
        threads,
    )
    return out


def _home(gather: Gather, blocks: Sequence[Any], axis: int, dtype: np.dtype) -> Home | None:
    """Return the largest block, where its pixels can be read as they lie."""
    block, runs = max(gather.moves(blocks), key=lambda move: prod(run.length for run in move[1]))
    others = [i for i in range(block.ndim) if i not in (axis, axis + 1)]
    if any(block.shape[i] != gather.shape[i] for i in others) or any(run.step != 1 for run in runs):
        return None
    if block.dtype != dtype or dtype != sums_of(dtype):
        return None
    trail = prod(block.shape[axis + 2 :])
    lines = Lines.in_place(block.reshape(prod(block.shape[:axis]), block.shape[axis], -1))
    if lines is None:
        return None
    rows, cols = runs[axis : axis + 2]
    lines = lines.at(rows.at - rows.to, (cols.at - cols.to) * trail)
    return Home(lines, (rows.to, rows.to + rows.length), (cols.to, cols.to + cols.length))


def _bands(stencil: Stencil, home: Home | None, out: NDArray, threads: int | None) -> list[Range]:
    """Cut the rows: those inside of the home block into a thread's shares, others so that their box is small."""
    n, rows, cols, trail = out.shape
    r, s = stencil.taps.shape
    if stencil.spectrum is not None:
        step = stencil.tile[0] - r + 1
        return [(low, min(low + step, rows)) for low in range(0, rows, step)]
    inside = (0, 0)
    if home:
        low, high = min(home.rows[0], rows), home.rows[1] - r + 1
        inside = (low, max(low, high))
    bands = []
    line = n * (cols + s - 1) * trail
    for low, high in pairwise((0, *inside, rows)):
        share = (_PIXELS if threads else rows * line) if (low, high) == inside else _BOX_BYTES // 8
        parts = split(high - low, -(-(high - low) * line // max(share, 1)))
        bands += [(low + i, low + j) for i, j in parts if i < j]
    return bands


def filter_rows(box: tuple, stencil: Stencil, band: Range, out: NDArray) -> None:
    """Write a range of rows of ``out`` (images, rows, columns, channels)."""
    home: Home | None = box[-1]
    (r, s), (n, _, columns, trail) = stencil.taps.shape, out.shape
    spans = [(0, columns)]
    if home and home.rows[0] <= band[0] and band[1] + r - 1 <= home.rows[1]:
        low, high = home.cols[0], home.cols[1] - s + 1
        if low < high:
            shape = (n, band[1] - band[0], (high - low) * trail)
            to = Lines.of(out).at(band[0], low * trail)
            correlate(home.lines.at(band[0], low * trail), trail, stencil, shape, to)
            spans = [(0, low), (high, columns)]
    for span in spans:
        if span[0] < span[1]:
            _filter_box(box, stencil, band, span, out)


def _filter_box(box: tuple, stencil: Stencil, band: Range, span: Range, out: NDArray) -> None:
    """Write a rectangle of ``out`` from what is put together for it."""
    gather, blocks, axis, fill, _ = box
    (r, s), (n, _, _, trail), sums = stencil.taps.shape, out.shape, sums_of(out.dtype)
    part: list[Range] = [(0, size) for size in gather.shape]
    part[axis : axis + 2] = [(band[0], band[1] + r - 1), (span[0], span[1] + s - 1)]
    found = np.ascontiguousarray(gathered(gather, blocks, sums, fill, part))
    found = found.reshape(n, found.shape[axis], found.shape[axis + 1], trail)
    shape = n, band[1] - band[0], span[1] - span[0], trail
    target = out[:, slice(*band), slice(*span)]
    if stencil.spectrum is not None:
        correlate_frequencies(found, stencil, target)
        return
    result = empty(shape, sums)
    correlate(Lines.of(found), trail, stencil, (n, shape[1], shape[2] * trail), Lines.of(result))
    target[...] = _as_scipy(result, out.dtype)


def sums_of(dtype: np.dtype) -> np.dtype:
    """Return the dtype that an image's sums are added in."""
    return dtype if dtype == np.float32 else np.dtype(np.float64)


def _as_scipy(sums: NDArray, dtype: DTypeLike) -> NDArray:
    """Return sums in an image's dtype; fractions go, and what does not fit wraps around, as in scipy.ndimage."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return sums
    if dtype == np.uint64:
        whole = abs(sums).astype(np.uint64)
        return np.where(sums > -1, whole, -whole)
    return sums.astype(np.int64).astype(dtype)
