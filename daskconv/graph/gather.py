"""Gathers: an array put together, inside a task, from exactly the parts of chunks that the task needs.

A chunk gives its neighbours copies of its rims, all in one task, so that halos travel and whole chunks stay
where they are. A chunk of which a task needs half or more goes there whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from dask._task_spec import GraphNode, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import DTypeLike, NDArray

from daskconv.errors import InputError
from daskconv.graph.halo import Range, Read, Run, edges
from daskconv.kernels.scratch import empty

if TYPE_CHECKING:
    import dask.array as da

Key = tuple[Hashable, ...]
Index = tuple[int, ...]
_WHOLE = -1


class Gather(NamedTuple):
    """How an array is put together: a Read for each axis, their runs combined in the order of ``itertools.product``.

    ``picks`` are, for each combination, the number of a copy among those that a chunk's rims are, or -1 for the chunk.
    """

    reads: tuple[Read, ...]
    picks: tuple[int, ...]

    @property
    def shape(self) -> Index:
        """The array's shape."""
        return tuple(read.length for read in self.reads)

    def moves(self, blocks: Sequence[Any]) -> Iterator[tuple[NDArray, list[Run]]]:
        """Yield each array that is read, with the run of each axis."""
        combined = product(*(read.runs for read in self.reads))
        for block, pick, runs in zip(blocks, self.picks, combined, strict=True):
            if pick == _WHOLE:
                yield block, list(runs)
            else:
                yield block[pick], [run._replace(at=run.at - run.span[0]) for run in runs]


def lazy(array: Any, chunks: Any) -> da.Array:
    """Return a Dask array; a NumPy array is cut into these chunks, or is one task, however many tasks read it."""
    import dask.array as da

    found = array if hasattr(array, "dask") else da.from_array(np.ascontiguousarray(array), chunks=chunks)
    if not isinstance(found.dask, HighLevelGraph):
        raise InputError(
            "Dask's array.query-planning is on, whose arrays cannot be read chunk by chunk: "
            "set it to False before dask.array is imported."
        )
    return found


class Source:
    """A Dask array that tasks gather from; collects the rims they ask for."""

    def __init__(self, array: da.Array, rims: str) -> None:
        self.array, self.rims = array, rims
        self.edges = [edges(chunks) for chunks in array.chunks]
        self._copies: dict[Index, dict[tuple[Range, ...], int]] = {}

    def gather(self, reads: Sequence[Read]) -> tuple[Gather, list[TaskRef]]:
        """Return how a task makes an array of these reads, and what it takes for that."""
        home = tuple(read.home for read in reads)
        picks, refs = [], []
        for runs in product(*(read.runs for read in reads)):
            index = tuple(run.chunk for run in runs)
            pick = _WHOLE if index == home else self._pick(index, runs)
            picks.append(pick)
            refs.append(TaskRef((self.array.name if pick == _WHOLE else self.rims, *index)))
        return Gather(tuple(reads), tuple(picks)), refs

    def _pick(self, index: Index, runs: Sequence[Run]) -> int:
        spans = tuple(run.span for run in runs)
        chunk = prod(self.array.chunks[axis][i] for axis, i in enumerate(index))
        if 2 * prod(stop - start for start, stop in spans) >= chunk:
            return _WHOLE
        copies = self._copies.setdefault(index, {})
        return copies.setdefault(spans, len(copies))

    def is_one_chunk(self, gather: Gather) -> bool:
        """Return whether an array that is gathered is a chunk as it is."""
        return all(
            len(read.runs) == 1 and read.runs[0].step == 1 and read.runs[0].length == chunks[read.home]
            for read, chunks in zip(gather.reads, self.array.chunks, strict=True)
        )

    def tasks(self) -> dict[Key, GraphNode]:
        """Return the tasks that copy rims, one a chunk."""
        found: dict[Key, GraphNode] = {}
        for index, copies in self._copies.items():
            key = (self.rims, *index)
            found[key] = Task(key, copy_rims, tuple(copies), TaskRef((self.array.name, *index)))
        return found


def copy_rims(spans: Sequence[tuple[Range, ...]], block: NDArray) -> tuple[NDArray, ...]:
    """Return copies of some parts of a chunk, so that the chunk itself need not be kept for them."""
    return tuple(block[tuple(slice(*span) for span in part)].copy() for part in spans)


def gathered(gather: Gather, blocks: Sequence[Any], dtype: DTypeLike) -> NDArray:
    """Return the array, zeros where no run brings anything; a view of a block where that is all that is read."""
    found = list(views(gather, blocks))
    if len(found) == 1 and found[0][0].shape == gather.shape:
        return found[0][0]
    out = empty(gather.shape, dtype)
    if sum(part.size for part, _ in found) < out.size:
        out[...] = 0
    for part, places in found:
        out[tuple(slice(at, at + size) for at, size in zip(places, part.shape, strict=True))] = part
    return out


def views(gather: Gather, blocks: Sequence[Any]) -> Iterator[tuple[NDArray, list[int]]]:
    """Yield views of all that is read, with the place of each along every axis."""
    for block, runs in gather.moves(blocks):
        lengths, part = tuple(run.length for run in runs), block[_reading(runs)]
        yield part if part.shape == lengths else np.broadcast_to(part, lengths), [run.to for run in runs]


def added(gather: Gather, dtype: DTypeLike, *blocks: Any) -> NDArray:
    """Return the sum of what runs bring to each place, in their order."""
    out = np.zeros(gather.shape, dtype)
    for block, runs in gather.moves(blocks):
        out[tuple(slice(run.to, run.to + run.length) for run in runs)] += block[_reading(runs)]
    return out


def _reading(runs: Sequence[Run]) -> tuple[slice, ...]:
    return tuple(_from(run) for run in runs)


def _from(run: Run) -> slice:
    """Return the slice that reads a run; a repeated element is one, which NumPy repeats."""
    if run.step == -1:
        stop = run.at - run.length
        return slice(run.at, stop if stop >= 0 else None, -1)
    return slice(run.at, run.at + (run.length if run.step else 1))
