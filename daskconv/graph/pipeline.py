"""Pipelined lowering: lowering and product of small tiles as tasks of one Dask graph, over a ring of buffers.

One thread lowers (bound by memory) while another multiplies (bound by arithmetic). Three kinds of edges
make the graph:

- ``("product", t)`` needs ``("lower", t)``: its lowered rows;
- ``("lower", t)`` needs the product that frees the ring's buffer it fills;
- ``("lower", t)`` needs ``("lower", t - lanes)``: at most ``lanes`` threads lower at once, the others multiply.

The graph is local to one process: lowered tiles never travel.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from dask._task_spec import List, Task, TaskRef
from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.graph.tiles import Range
from daskconv.graph.timeline import timed
from daskconv.kernels.lowering import channel_range, lower, multiply
from daskconv.kernels.scratch import scratch


def live_buffers(threads: int) -> int:
    """Return the most lowered tiles alive at once: one for each thread, and one ahead."""
    return threads + 1


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
    graph: dict[Hashable, Task] = field(default_factory=dict)
    tiles: int = 0

    def __post_init__(self) -> None:
        self.ring = scratch("ring", (live_buffers(self.threads), self.largest), self.dtype)
        self.lanes = max(1, self.threads // 2)

    def add_tile(
        self, x: NDArray, correlation: Correlation, rows: Range, channels: Range, width: int
    ) -> tuple[int, NDArray]:
        """Add the lowering of a tile; return its number and the buffer (rows, width) it will fill."""
        tile = self.tiles
        self.tiles += 1
        buffer = self.ring[tile % len(self.ring)]
        buffer = buffer[: (rows[1] - rows[0]) * width].reshape(-1, width)
        edges = [("product", tile - len(self.ring)), ("lower", tile - self.lanes)]
        self._add("lower", tile, edges, lower, x, correlation, rows, channels, buffer)
        return tile, buffer

    def add_product(self, tile: int, after: int | None, function: Callable[..., None], *args: Any) -> None:
        """Add what consumes a tile's buffer, after the product of tile ``after`` where their sums are one."""
        edges: list[Hashable] = [("lower", tile)]
        if after is not None:
            edges.append(("product", after))
        self._add("product", tile, edges, function, *args)

    def _add(
        self, stage: str, tile: int, edges: list[Any], function: Callable[..., None], *args: Any
    ) -> None:
        present = List(*(TaskRef(edge) for edge in edges if edge in self.graph))
        self.graph[(stage, tile)] = Task((stage, tile), _after, present, stage, tile, function, *args)


def _after(_: list[None], stage: str, tile: int, function: Callable[..., None], *args: Any) -> None:
    """Run one stage of one tile; the first argument only carries the edges."""
    timed(stage, tile, function, *args)


def add_correlation(
    pipeline: Pipeline,
    x: NDArray,
    matrices: list[NDArray],
    bias: NDArray | None,
    correlation: Correlation,
    tiles: list[Range],
    out: NDArray,
) -> None:
    """Add a correlation whose result is ``out`` (all output pixels, k)."""
    groups = len(matrices)
    for rows in tiles:
        for g, matrix in enumerate(matrices):
            channels = channel_range(g, groups, x.shape[3])
            tile, buffer = pipeline.add_tile(x, correlation, rows, channels, matrix.shape[0])
            columns = channel_range(g, groups, out.shape[1])
            pipeline.add_product(tile, None, multiply, buffer, matrix, bias, columns, out[slice(*rows)])


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
                after,
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
