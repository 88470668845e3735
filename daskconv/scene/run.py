"""Run: one chunk of the result, from the pixels around it; what a task does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
from dask._task_spec import Task
from numpy.typing import NDArray

from daskconv.errors import DataError
from daskconv.graph.threads import execute, one_thread_each
from daskconv.nn.layers.base import Shape
from daskconv.scene.field import Span
from daskconv.scene.read import Part, Pieces, region
from daskconv.scene.tiling import Strip


class Ready(Protocol):
    """A network made ready for images of one shape, as :class:`daskconv.train.predictor.Predictor` is."""

    methods: Mapping[str, Mapping[str, str]]

    def run(self, images: NDArray, threads: int = 1) -> NDArray:
        """Return the output of raw images."""
        ...


@dataclass(frozen=True, eq=False)
class Runner:
    """What every task needs: a network for each shape of a tile. It is one task of a graph.

    Attributes
    ----------
    ready : mapping
        By the shape (h, w, c).
    batch : int
        Tiles that run at once.
    threads : int
        Of a task on a worker.
    axes : str
        The scene's; the result's are alike.
    outputs : int
        Channels of the result.
    dtype : dtype
        The result's.
    """

    ready: Mapping[Shape, Ready]
    batch: int
    threads: int
    axes: str
    outputs: int
    dtype: np.dtype


def run_region(runner: Runner, array: Any, n: int, rows: Strip, columns: Strip) -> NDArray:
    """Return a chunk of the result, of a scene that lies in memory or in Zarr."""
    pixels = region(array, runner.axes, n, rows.pixels, columns.pixels)
    part = Part.of(pixels, rows.pixels, columns.pixels)
    return in_order(run_chunk(runner, part, rows, columns, n, _own_threads(runner)), runner.axes)


def run_blocks(
    runner: Runner, sides: tuple[Pieces, ...], n: int, rows: Strip, columns: Strip, *blocks: NDArray
) -> NDArray:
    """Return a chunk of the result, of a scene that lies in the chunks of a Dask array."""
    part = Part(runner.axes, (rows.pixels[0], columns.pixels[0]), sides, blocks)
    return in_order(run_chunk(runner, part, rows, columns, n, _own_threads(runner)), runner.axes)


def in_order(chunk: NDArray, axes: str) -> NDArray:
    """Return a chunk (p, q, k) with its axes as the scene's lie; a grey scene gets channels, its last axis."""
    axes = axes if "c" in axes else f"{axes}c"
    left = axes.replace("n", "")
    chunk = chunk.transpose(["yxc".index(axis) for axis in left])
    return np.expand_dims(chunk, axes.index("n")) if "n" in axes else chunk


def _own_threads(runner: Runner) -> int:
    """Return the threads of this task: on a worker those that were planned, elsewhere the tasks are the threads."""
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return 1
    return runner.threads


def run_chunk(runner: Runner, part: Part, rows: Strip, columns: Strip, n: int, threads: int) -> NDArray:
    """Return a chunk (p, q, k) of image ``n``: its tiles in batches, on so many threads."""
    out = np.empty((rows.size, columns.size, runner.outputs), runner.dtype)
    batches = list(_batches(runner.batch, rows, columns))
    with one_thread_each():
        if len(batches) < threads:
            # Too few for the threads: all of them share each convolution, which changes no bits.
            for batch in batches:
                _run_batch(runner, part, rows, columns, n, batch, out, threads)
        else:
            graph = {
                i: Task(i, _run_batch, runner, part, rows, columns, n, batch, out)
                for i, batch in enumerate(batches)
            }
            execute(graph, [], threads)
    return out


def _batches(most: int, rows: Strip, columns: Strip) -> Iterator[list[tuple[int, int]]]:
    """Yield numbers (row, column) of tiles of one shape, not more than so many at once."""
    alike: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (i, (top, bottom)), (j, (left, right)) in product(enumerate(rows.cuts), enumerate(columns.cuts)):
        alike.setdefault((bottom - top, right - left), []).append((i, j))
    for tiles in alike.values():
        for first in range(0, len(tiles), most):
            yield tiles[first : first + most]


def _run_batch(
    runner: Runner,
    part: Part,
    rows: Strip,
    columns: Strip,
    n: int,
    tiles: list[tuple[int, int]],
    out: NDArray,
    threads: int = 1,
) -> None:
    cuts = [(rows.cuts[i], columns.cuts[j]) for i, j in tiles]
    (top, bottom), (left, right) = cuts[0]
    ready = runner.ready[bottom - top, right - left, part.channels]
    # No name here holds on to the pixels: the network lets them go after its first layer.
    maps = ready.run(_images(part, n, cuts), threads)
    maps = maps if maps.ndim == 4 else maps.reshape(len(maps), 1, 1, -1)
    tops, lefts = _starts(rows), _starts(columns)
    for one, (i, j) in zip(maps, tiles, strict=True):
        (a, b), (c, d) = rows.keeps[i], columns.keeps[j]
        out[tops[i] : tops[i] + b - a, lefts[j] : lefts[j] + d - c] = one[a:b, c:d]


def _starts(strip: Strip) -> NDArray[np.int64]:
    return np.cumsum([0, *(b - a for a, b in strip.keeps)])


def _images(part: Part, n: int, cuts: list[tuple[Span, Span]]) -> NDArray:
    """Return the pixels of some tiles (tiles, h, w, c)."""
    tiles = [part.window(*cut) for cut in cuts]
    for pixels, (rows, columns) in zip(tiles, cuts, strict=True):
        if np.issubdtype(pixels.dtype, np.floating):
            with np.errstate(over="ignore"):
                fine = np.isfinite(pixels.astype(np.float32, copy=False)).all()
            if not fine:
                raise DataError(
                    f"The scene has pixels that are not finite in rows {rows[0]}:{rows[1]}, columns "
                    f"{columns[0]}:{columns[1]} of image {n}: remove or fill them."
                )
    return np.stack(tiles) if len(tiles) > 1 else np.ascontiguousarray(tiles[0])[None]
