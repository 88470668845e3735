"""A filter over the blocks of an image: those of a Dask array, or one NumPy array as a single block.

No padded copy of an image is made: a kernel gets views of what its box consists of - the block, the rims of its
neighbours, and what the boundary repeats - and copies a few rows at a time into the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from dask._task_spec import DataNode, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import DTypeLike, NDArray

from daskconv.graph.blocks import run
from daskconv.graph.gather import Gather, Source, views
from daskconv.graph.halo import Range, mapped_part, part, ranges, whole
from daskconv.graph.threads import available_threads
from daskconv.graph.tiles import split
from daskconv.kernels.scratch import empty
from daskconv.kernels.stencil import Part, Stencil, correlate, correlate_frequencies

if TYPE_CHECKING:
    import dask.array as da

# Rows that a thread takes at once, and those whose sums become integers, have so many pixels.
_PIXELS = 1 << 19


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


def _filter(
    gather: Gather,
    blocks: Sequence[Any],
    axis: int,
    stencil: Stencil,
    fill: float,
    dtype: np.dtype,
    threads: int | None,
) -> NDArray:
    """Return the filtered pixels of a box, in bands of rows that threads take."""
    shape = list(gather.shape)
    shape[axis : axis + 2] = [shape[axis + i] - size + 1 for i, size in enumerate(stencil.taps.shape)]
    out = empty(tuple(shape), dtype)
    images = out.reshape(prod(shape[:axis]), shape[axis], -1)
    found = list(views(gather, blocks))
    calls: list[tuple] = []
    for number, index in enumerate(np.ndindex(*shape[:axis])):
        parts = [
            Part(pixels[index].reshape(*pixels.shape[axis : axis + 2], -1), *to[axis : axis + 2])
            for pixels, to in found
        ]
        for band in _bands(stencil, images, dtype, threads):
            if stencil.spectrum is None:
                calls.append((filter_rows, parts, stencil, fill, band, images[number]))
            else:
                calls.append((filter_frequencies, parts, stencil, fill, band, images[number]))
    run(calls, threads)
    return out


def _bands(stencil: Stencil, images: NDArray, dtype: np.dtype, threads: int | None) -> list[Range]:
    """Cut the rows of an image: by shape alone."""
    rows, length = images.shape[1:]
    if stencil.spectrum is not None:
        step = stencil.tile[0] - stencil.taps.shape[0] + 1
        return [(low, min(low + step, rows)) for low in range(0, rows, step)]
    most = _PIXELS if threads or dtype != sums_of(dtype) else rows * length
    return split(rows, -(-rows * length // most))


def filter_rows(parts: list[Part], stencil: Stencil, fill: float, band: Range, out: NDArray) -> None:
    """Write a range of rows of ``out`` (rows, columns * channels)."""
    sums = sums_of(out.dtype)
    if out.dtype == sums:
        correlate(parts, stencil, fill, band, out)
        return
    # Only the rows that are written: the box begins with the first that they read.
    moved = [part._replace(row=part.row - band[0]) for part in parts]
    found = empty((band[1] - band[0], out.shape[1]), sums)
    correlate(moved, stencil, fill, (0, len(found)), found)
    out[slice(*band)] = _as_scipy(found, out.dtype)


def filter_frequencies(parts: list[Part], stencil: Stencil, fill: float, band: Range, out: NDArray) -> None:
    """Write a range of rows of ``out`` (rows, columns * channels) from a box that is put together."""
    (r, s), trail = stencil.taps.shape, parts[0].pixels.shape[2]
    columns = out.shape[1] // trail
    box = empty((1, band[1] - band[0] + r - 1, columns + s - 1, trail), out.dtype)
    box[...] = fill
    for pixels, row, column in parts:
        low, high = max(row, band[0]), min(row + len(pixels), band[1] + r - 1)
        if low < high:
            to = slice(column, column + pixels.shape[1])
            box[0, low - band[0] : high - band[0], to] = pixels[low - row : high - row]
    correlate_frequencies(box, stencil, out[slice(*band)].reshape(1, -1, columns, trail))


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
