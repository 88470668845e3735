"""Pipelined lowering: lowering and product of small tiles as tasks of one Dask graph, over a ring of buffers.

One thread lowers (bound by memory) while another multiplies (bound by arithmetic). Edges make the graph:

- ``("product", t, part)`` needs ``("lower", t)``: its lowered rows, for a part of the output channels;
- ``("lower", t)`` needs the products that free the ring's buffer it fills;
- where threads share cores (SMT), ``("lower", t)`` needs ``("lower", t - lanes)``: at most ``lanes`` threads lower at
  once, the others multiply. Each thread's first tile is free of this: there is nothing to multiply yet.

Threads that have cores of their own gain nothing from the other's waiting for memory, but lose what travels between
their caches: there, each goes on with the tile that it lowered, and the ring has no buffer more than threads.

The graph is local to one process: lowered tiles never travel.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from dask._task_spec import Task, TaskRef
from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.graph.threads import share_cores
from daskconv.graph.tiles import Range, Work, pipelined_columns
from daskconv.kernels import lowering
from daskconv.kernels.jit import enabled, importable
from daskconv.kernels.lowering import channel_range, lower, lowered_width, weight_matrices
from daskconv.kernels.scratch import scratch
from daskconv.timeline import timed

if importable():
    from daskconv.kernels import product
    from daskconv.kernels.packed import packed
    from daskconv.kernels.panels import width_of


def live_buffers(threads: int) -> int:
    """Return the most lowered tiles alive at once: one for each thread, and one ahead where they share cores."""
    return threads + (threads > 1 and share_cores())


@dataclass
class Pipeline:
    """A graph of lowering and product tasks under construction.

    Parameters
    ----------
    threads : int
        The threads that will run it: sets the ring's length and the lanes, never where tiles are cut.
    largest : int
        Elements of the largest lowered tile.
    dtype : numpy.dtype
        Of the lowered tiles.
    """

    threads: int
    largest: int
    dtype: Any
    graph: dict[tuple, Task] = field(default_factory=dict)
    products: list[list[Hashable]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ring = scratch("ring", (live_buffers(self.threads), self.largest), self.dtype)
        self.ahead = self.threads > 1 and share_cores()
        self.lanes = max(1, self.threads // 2)

    def add_tile(
        self, x: NDArray, correlation: Correlation, rows: Range, channels: Range, width: int
    ) -> tuple[int, NDArray]:
        """Add the lowering of a tile; return its number and the buffer (rows, width) it will fill."""
        tile = len(self.products)
        self.products.append([])
        buffer = self.ring[tile % len(self.ring)]
        buffer = buffer[: (rows[1] - rows[0]) * width].reshape(-1, width)
        freed = tile - len(self.ring)
        edges = list(self.products[freed]) if freed >= 0 else []
        if self.ahead and tile >= self.threads:
            edges.append(("lower", tile - self.lanes))
        self._add(("lower", tile), edges, lower, x, correlation, rows, channels, buffer)
        return tile, buffer

    def add_product(
        self, tile: int, after: Sequence[Hashable], function: Callable[..., None], *args: Any
    ) -> None:
        """Add what consumes a tile's buffer, after some other tasks."""
        key = ("product", tile, len(self.products[tile]))
        self.products[tile].append(key)
        self._add(key, [("lower", tile), *after], function, *args)

    def in_order(self) -> dict[tuple, Task]:
        """Return the graph, the task to prefer first: tile by tile; threads that share cores lower one ahead."""
        if not self.ahead:
            return self.graph

        def rank(key: tuple) -> tuple:
            return key[1] + (key[0] == "product"), key

        return {key: self.graph[key] for key in sorted(self.graph, key=rank)}

    def _add(self, key: tuple, edges: list[Any], function: Callable[..., None], *args: Any) -> None:
        # Dask looks at every argument for what it refers to: of these, only edges do.
        call = partial(timed, key[0], key[1], function, *args)
        self.graph[key] = Task(key, _after, call, *(TaskRef(edge) for edge in edges if edge in self.graph))


def _after(call: Callable[[], None], *_: None) -> None:
    """Run one stage of one tile, once the edges' tasks are done."""
    call()


@dataclass(frozen=True)
class Weights:
    """What lowered rows of each group are multiplied with, in parts where the weights are more than a tile's rows.

    Where kernels are compiled, the micro-kernel reads lowered rows as they are, and weights that are packed once for
    all tiles; BLAS packs both for each tile.

    Attributes
    ----------
    multiply : function
        Called with (lowered rows, a part, bias, columns, out).
    parts : list of list of ((int, int), weights)
        Of each group, some output channels each, after the columns of the result that are theirs.
    """

    multiply: Callable[..., None]
    parts: list[list[tuple[Range, Any]]]


def weights_of(w: NDArray, correlation: Correlation, groups: int, rows: int, *, transposed: bool) -> Weights:
    """Return the weights (r, s, c / groups, k) of a correlation for tiles of so many rows."""
    c, filters = (w.shape[3] // groups, w.shape[2]) if transposed else (w.shape[2], w.shape[3] // groups)
    work = Work(2 * lowered_width(correlation, c) * filters, 1)
    cuts = pipelined_columns(rows, filters, work, width_of(w.dtype) if enabled() else 1)

    def parts(take: Callable[[int, int, int], Any]) -> list[list[tuple[Range, Any]]]:
        return [
            [((g * filters + start, g * filters + stop), take(g, start, stop)) for start, stop in cuts]
            for g in range(groups)
        ]

    if not enabled():
        matrices = weight_matrices(w, correlation, groups, transposed=transposed)
        return Weights(lowering.multiply, parts(lambda g, start, stop: matrices[g][:, start:stop]))
    whole = packed(w, correlation, groups, transposed=transposed)

    def multiply(*args: Any) -> None:
        whole.fill()  # with the threads that come to their first product now
        product.multiply(*args)

    return Weights(multiply, parts(whole.part))


def add_correlation(
    pipeline: Pipeline,
    x: NDArray,
    weights: Weights,
    bias: NDArray | None,
    correlation: Correlation,
    tiles: list[Range],
    out: NDArray,
) -> None:
    """Add a correlation whose result is ``out`` (all output pixels, k)."""
    groups = len(weights.parts)
    width = lowered_width(correlation, x.shape[3] // groups)
    for rows in tiles:
        for g in range(groups):
            channels = channel_range(g, groups, x.shape[3])
            tile, buffer = pipeline.add_tile(x, correlation, rows, channels, width)
            for columns, part in weights.parts[g]:
                args = buffer, part, bias, columns, out[slice(*rows)]
                pipeline.add_product(tile, [], weights.multiply, *args)


def add_weight_grad(
    pipeline: Pipeline,
    x: NDArray,
    dy: NDArray,
    correlation: Correlation,
    groups: int,
    tiles: list[Range],
    sums: NDArray,
) -> None:
    """Add a weight gradient from ``dy`` (all output pixels, k); ``sums`` (lanes, taps * c / groups, k) gets its parts.

    The tile number picks the lane, and a lane adds its tiles in order, so that the bits depend on the
    shape only; two lanes let two products run at once.
    """
    last: dict[tuple[int, int], int] = {}
    for t, rows in enumerate(tiles):
        lane = t % len(sums)
        for g in range(groups):
            tile, buffer = pipeline.add_tile(
                x, correlation, rows, channel_range(g, groups, x.shape[3]), sums.shape[1]
            )
            columns = slice(*channel_range(g, groups, dy.shape[1]))
            after = last.get((lane, g))
            pipeline.add_product(
                tile,
                [] if after is None else pipeline.products[after],
                _accumulate,
                buffer,
                dy[slice(*rows), columns],
                sums[lane][:, columns],
                after is None,
            )
            last[lane, g] = tile


def _accumulate(lowered: NDArray, dy: NDArray, total: NDArray, first: bool) -> None:
    if first:
        np.matmul(lowered.T, dy, out=total)
    else:
        part = scratch("product", total.shape, total.dtype)
        np.matmul(lowered.T, dy, out=part)
        np.add(total, part, out=total)
