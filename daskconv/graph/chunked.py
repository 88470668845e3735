"""The three passes of a convolution as graphs over the chunks of Dask arrays, cut along any axis.

A result's chunks follow those of its images. A task gathers what its chunk reads, convolves that, and nothing
lowered leaves it. Chunks of a contracted axis are summed in a tree that the chunks alone fix; chunks of filters
stay apart. Groups are never cut: their channels are gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np
from dask._task_spec import Alias, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.utils import parse_bytes
from numpy.typing import DTypeLike, NDArray

from daskconv.geometry import Window
from daskconv.graph import conv
from daskconv.graph.gather import Gather, Source, added, gathered
from daskconv.graph.halo import (
    Range,
    Read,
    WindowAxis,
    edges,
    folded_parts,
    mapped_part,
    output_ranges,
    part,
    pixel_ranges,
    places,
    ranges,
    transposed_part,
    window_axes,
    window_part,
    with_padding,
    within,
)
from daskconv.graph.threads import available_threads

if TYPE_CHECKING:
    import dask.array as da

Shape = tuple[int, ...]


class Channels(NamedTuple):
    """Channels that meet: ranges of c and k, and how many whole groups they are."""

    c: Range
    k: Range
    groups: int


def forward(
    x: da.Array, w: da.Array, bias: da.Array | None, window: Window, mode: str | None, method: str
) -> da.Array:
    """Return the convolution (n, p, q, k); ``mode`` is numpy.pad's name of what lies beyond the image, None zeros."""
    layer = Layer("conv2d", (window, mode, method), x, w, *([] if bias is None else [bias]))
    images, weights, *biases = layer.sources
    meets = channels_of(window.groups, w.shape[2], x.chunks[3], w.chunks[3])
    filters = sorted({block.k for block in meets})
    n, p, q = _output_parts(x, window, max(stop - start for start, stop in filters))
    axes = window_axes(window, x.shape[1:3])
    reads = [
        [part(images.edges[0], span) for span in n],
        _window_reads(axes[0], images.edges[1], p, mode),
        _window_reads(axes[1], images.edges[2], q, mode),
    ]
    for at, (batch, rows, cols) in _numbered(reads):
        for number, k in enumerate(filters):
            calls: list[tuple] = []
            for block in (block for block in meets if block.k == k):
                operands = [images.gather((batch, rows, cols, part(images.edges[3], block.c)))]
                operands.append(weights.gather(_weight_reads(weights, window.groups, block)))
                operands += [b.gather([part(b.edges[0], k)]) for b in biases if not calls]
                calls.append((forward_chunk, operands, _local(window, rows, cols, block.groups), method))
            layer.add_sum((*at, number), calls)
    return layer.array([n, p, q, filters])


def input_grad(
    dy: da.Array, w: da.Array, image: Shape, window: Window, mode: str | None, method: str
) -> da.Array:
    """Return the gradient by the input, whose images have (h, w) pixels."""
    layer = Layer("conv2d_input_grad", (image, window, mode, method), dy, w)
    gradients, weights = layer.sources
    meets = channels_of(window.groups, w.shape[2], w.chunks[2], dy.chunks[3])
    channels = sorted({block.c for block in meets})
    axes = list(window_axes(window, image))
    spans = [pixel_ranges(axis, chunks) for axis, chunks in zip(axes, dy.chunks[1:3], strict=True)]
    if mode:
        spans = [with_padding(axis, pixels) for axis, pixels in zip(axes, spans, strict=True)]
        axes = [axis._replace(size=axis.size + sum(axis.pads), pads=(0, 0)) for axis in axes]
    limit = most_elements(dy.dtype) // max(stop - start for start, stop in channels)
    n, h, v = within([ranges(dy.chunks[0]), *spans], limit, (1, 1, 1))
    reads = [
        [part(gradients.edges[0], span) for span in n],
        [transposed_part(axes[0], gradients.edges[1], span) for span in h],
        [transposed_part(axes[1], gradients.edges[2], span) for span in v],
    ]
    for at, (batch, rows, cols) in _numbered(reads):
        size = (h[at[1]][1] - h[at[1]][0], v[at[2]][1] - v[at[2]][0])
        for number, c in enumerate(channels):
            calls: list[tuple] = []
            for block in (block for block in meets if block.c == c):
                operands = [gradients.gather((batch, rows, cols, part(gradients.edges[3], block.k)))]
                operands.append(weights.gather(_weight_reads(weights, window.groups, block)))
                local = _local(window, rows, cols, block.groups)
                calls.append((input_grad_chunk, operands, local, method, size))
            layer.add_sum((*at, number), calls)
    dx = layer.array([n, h, v, channels])
    return folded(dx, window, image, mode) if mode else dx


def weight_grad(
    x: da.Array, dy: da.Array, w_shape: Shape, window: Window, mode: str | None, method: str
) -> da.Array:
    """Return the gradient by the filters: a sum over the chunks of the images."""
    layer = Layer("conv2d_weight_grad", (w_shape, window, mode, method), x, dy)
    images, gradients = layer.sources
    r, s, depth, _ = w_shape
    meets = channels_of(window.groups, depth, x.chunks[3], dy.chunks[3])
    meets = _small_enough(meets, window.groups, depth, most_elements(x.dtype) // (r * s))
    n, p, q = _output_parts(x, window, max(block.k[1] - block.k[0] for block in meets))
    axes = window_axes(window, x.shape[1:3])
    reads = [
        [(part(images.edges[0], span), part(gradients.edges[0], span)) for span in n],
        _pairs(_window_reads(axes[0], images.edges[1], p, mode), gradients.edges[1], p),
        _pairs(_window_reads(axes[1], images.edges[2], q, mode), gradients.edges[2], q),
    ]
    whole = [(0, depth)] if window.groups > 1 else sorted({block.c for block in meets})
    filters = sorted({block.k for block in meets})
    for block in meets:
        calls = []
        for parts in product(*reads):
            read, written = zip(*parts, strict=True)
            operands = [images.gather((*read, part(images.edges[3], block.c)))]
            operands.append(gradients.gather((*written, part(gradients.edges[3], block.k))))
            local = _local(window, read[1], read[2], block.groups)
            calls.append((weight_grad_chunk, operands, local, method))
        at = (0, 0, 0 if window.groups > 1 else whole.index(block.c), filters.index(block.k))
        layer.add_sum(at, calls)
    return layer.array([[(0, r)], [(0, s)], whole, filters])


def folded(dx: da.Array, window: Window, image: Shape, mode: str) -> da.Array:
    """Return the gradient by an image from that by its padded copy: each pixel gets those of all its places."""
    layer = Layer("conv2d_input_grad-folded", (window, image, mode), dx)
    (padded,) = layer.sources
    axes, sizes = [], []
    for axis, at in zip(window_axes(window, image), padded.edges[1:3], strict=True):
        cuts = sorted({0, axis.size, *(min(max(edge - axis.pads[0], 0), axis.size) for edge in at)})
        axes.append(folded_parts(places(axis.size, axis.pads, mode), at, cuts))
        sizes.append(list(pairwise(cuts)))
    n, c = (
        [part(at, span) for span in ranges(dx.chunks[i])]
        for i, at in ((0, padded.edges[0]), (3, padded.edges[3]))
    )
    for at, reads in _numbered([n, *axes, c]):
        gather, refs = padded.gather(reads)
        key = (layer.name, *at)
        if padded.is_one_chunk(gather):
            layer.tasks[key] = Alias(key, refs[0].key)
        else:
            layer.tasks[key] = Task(key, added, gather, dx.dtype, *refs)
    return layer.array([ranges(dx.chunks[0]), *sizes, ranges(dx.chunks[3])])


class Layer:
    """The tasks of one result: those of its chunks, the parts they are summed from, and the copies of rims."""

    def __init__(self, what: str, options: tuple, *arrays: da.Array) -> None:
        self.what = what
        self.arrays: Any = arrays
        self.token = tokenize(what, options, *(array.name for array in arrays))
        self.name = f"{what}-{self.token}"
        self.dtype = arrays[0].dtype
        self.sources = [Source(array, f"{what}-rims{i}-{self.token}") for i, array in enumerate(arrays)]
        self.tasks: dict[Any, Any] = {}

    def add_sum(self, at: Shape, calls: Sequence[tuple]) -> None:
        """Add a chunk: the sum of what calls (function, operands, options ...) give, in the tree of their numbers."""
        self._add_tree(at, calls, 0, len(calls), (self.name, *at))

    def _add_tree(self, at: Shape, calls: Sequence[tuple], low: int, high: int, key: tuple) -> TaskRef:
        if high - low == 1:
            function, operands, *options = calls[low]
            gathers = tuple(gather for gather, _ in operands)
            refs = [ref for _, refs in operands for ref in refs]
            self.tasks[key] = Task(key, function, gathers, self.dtype, tuple(options), *refs)
        else:
            middle = (low + high + 1) // 2
            halves = [
                self._add_tree(
                    at, calls, *span, (f"{self.what}-{self._kind(*span)}-{self.token}", *at, *span)
                )
                for span in ((low, middle), (middle, high))
            ]
            self.tasks[key] = Task(key, add, *halves)
        return TaskRef(key)

    @staticmethod
    def _kind(low: int, high: int) -> str:
        return "part" if high - low == 1 else "sum"

    def array(self, parts: Sequence[Sequence[Range]]) -> da.Array:
        """Return the result, whose axes are cut into these ranges."""
        import dask.array as da

        for source in self.sources:
            self.tasks.update(source.tasks())
        chunks = tuple(tuple(stop - start for start, stop in spans) for spans in parts)
        graph = HighLevelGraph.from_collections(self.name, self.tasks, dependencies=self.arrays)
        return da.Array(graph, self.name, chunks, meta=np.empty((0,) * len(chunks), self.dtype))


def add(a: NDArray, b: NDArray) -> NDArray:
    """Return the sum of two parts."""
    return a + b


def forward_chunk(gathers: Sequence[Gather], dtype: DTypeLike, options: tuple, *blocks: Any) -> NDArray:
    """Convolve what is gathered: images, weights and perhaps a bias."""
    window, method = options
    x, w, *bias = _operands(gathers, dtype, blocks)
    return conv.forward(x, w, bias[0] if bias else None, window, method, _threads(method))


def input_grad_chunk(gathers: Sequence[Gather], dtype: DTypeLike, options: tuple, *blocks: Any) -> NDArray:
    """Return the gradient by some pixels from all the outputs' that read them."""
    window, method, size = options
    dy, w = _operands(gathers, dtype, blocks)
    c = w.shape[2] * window.groups
    return conv.input_grad(dy, w, (len(dy), *size, c), window, method, _threads(method))


def weight_grad_chunk(gathers: Sequence[Gather], dtype: DTypeLike, options: tuple, *blocks: Any) -> NDArray:
    """Return the part of the gradient by the filters that some outputs give."""
    window, method = options
    x, dy = _operands(gathers, dtype, blocks)
    shape = (*window.kernel, x.shape[3] // window.groups, dy.shape[3])
    return conv.weight_grad(x, dy, shape, window, method, _threads(method))


def _operands(gathers: Sequence[Gather], dtype: DTypeLike, blocks: Sequence[Any]) -> list[NDArray]:
    found, at = [], 0
    for gather in gathers:
        count = len(gather.picks)
        found.append(gathered(gather, blocks[at : at + count], dtype))
        at += count
    return found


def _threads(method: str) -> int | None:
    """Chunks run side by side, each on one thread; the pipeline has threads of its own.

    1 is one thread too, but makes ``lowering`` lower a chunk block by block.
    """
    return {"pipelined": available_threads(), "lowering": 1}.get(method)


def channels_of(groups: int, depth: int, c_chunks: Shape, k_chunks: Shape) -> list[Channels]:
    """Return which channels meet in a task: those of a chunk of c and one of k, or whole groups cut where chunks are.

    ``depth`` is the number of channels of a group.

    Examples
    --------
    >>> [block.c for block in channels_of(1, 5, (3, 2), (4,))]
    [(0, 3), (3, 5)]
    >>> channels_of(4, 2, (3, 5), (2, 2))  # 3 channels are no whole groups: they wait for the rest of the second
    [Channels(c=(0, 4), k=(0, 2), groups=2), Channels(c=(4, 8), k=(2, 4), groups=2)]
    """
    if groups == 1:
        return [Channels(c, k, 1) for k in ranges(k_chunks) for c in ranges(c_chunks)]
    width = sum(k_chunks) // groups
    cuts = {0, groups}
    for chunks, per_group in ((c_chunks, depth), (k_chunks, width)):
        if sum(chunks) == groups * per_group:  # the weights' own c is that of one group
            cuts |= {edge // per_group for edge in edges(chunks) if edge % per_group == 0}
    ordered = sorted(cuts)
    return [
        Channels((low * depth, high * depth), (low * width, high * width), high - low)
        for low, high in pairwise(ordered)
    ]


def most_elements(dtype: DTypeLike) -> int:
    """Return how many elements a chunk may have, by Dask's configuration ``array.chunk-size``."""
    return max(parse_bytes(dask.config.get("array.chunk-size")) // np.dtype(dtype).itemsize, 1)


def _small_enough(meets: list[Channels], groups: int, depth: int, limit: int) -> list[Channels]:
    """Cut channels so that the weights between them are a chunk."""
    if groups == 1:
        cuts = sorted({block.c for block in meets}), sorted({block.k for block in meets})
        c, k = within(list(cuts), limit, (1, 1))
        return [Channels(low, high, 1) for high in k for low in c]
    width = meets[0].k[1] // meets[0].groups
    (filters,) = within([[block.k for block in meets]], limit // depth, (width,))
    return [
        Channels((low // width * depth, high // width * depth), (low, high), (high - low) // width)
        for low, high in filters
    ]


def _output_parts(x: da.Array, window: Window, filters: int) -> list[list[Range]]:
    """Return the parts of n, p and q: where the images' chunks are, and smaller where results would be too large."""
    axes = window_axes(window, x.shape[1:3])
    spans = [output_ranges(axis, chunks) for axis, chunks in zip(axes, x.chunks[1:3], strict=True)]
    return within([ranges(x.chunks[0]), *spans], most_elements(x.dtype) // max(filters, 1), (1, 1, 1))


def _window_reads(axis: WindowAxis, at: list[int], outputs: list[Range], mode: str | None) -> list[Read]:
    """Return what each range of outputs reads of an image's axis."""
    if mode is None:
        return [window_part(axis, at, span) for span in outputs]
    shown = places(axis.size, axis.pads, mode)
    return [
        mapped_part(shown[low * axis.stride : (high - 1) * axis.stride + axis.extent], at)
        for low, high in outputs
    ]


def _pairs(reads: list[Read], at: list[int], spans: list[Range]) -> list[tuple[Read, Read]]:
    return [(read, part(at, span)) for read, span in zip(reads, spans, strict=True)]


def _local(window: Window, rows: Read, cols: Read, groups: int) -> Window:
    return replace(window, padding=(rows.pads, cols.pads), groups=groups)


def _weight_reads(weights: Source, groups: int, block: Channels) -> list[Read]:
    r, s, depth = weights.array.shape[:3]
    c = block.c if groups == 1 else (0, depth)
    return [part(at, span) for at, span in zip(weights.edges, [(0, r), (0, s), c, block.k], strict=True)]


def _numbered(axes: Sequence[Sequence[Any]]) -> Any:
    """Yield the position and the items of each combination."""
    for numbered in product(*(enumerate(axis) for axis in axes)):
        yield tuple(i for i, _ in numbered), tuple(item for _, item in numbered)
