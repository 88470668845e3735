"""Blocks: the parts of a pass that threads take whole."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from time import perf_counter
from typing import Any

import numpy as np
from dask._task_spec import Task
from dask.callbacks import Callback
from numpy.typing import DTypeLike, NDArray

from daskconv.graph.team import team_of
from daskconv.graph.threads import execute, serial_blas
from daskconv.graph.tiles import Range, Work, blocks, shares, split
from daskconv.timeline import note, place, timed


def run(calls: list[tuple], threads: int | None, stage: str = "convolve") -> None:
    """Call each (function, arguments): at once on this thread, or as the tasks of a graph, each a ``stage``."""
    if threads is None or len(calls) == 1:
        with serial_blas():
            for function, *args in calls:
                function(*args)
        return
    graph = {("block", i): Task(("block", i), timed, stage, i, *call) for i, call in enumerate(calls)}
    execute(graph, list(graph), threads)


def run_together(threads: int, kernel: Callable[..., int], *args: Any) -> None:
    """Call a compiled kernel, with the helpers that make it so many threads as its last argument.

    It returns how many came. On a timeline they are there as long as the caller is; Dask's callbacks see one task.
    """
    if threads > 1 and Callback.active:
        key = ("block", 0)
        execute({key: Task(key, _run_together, threads, kernel, *args)}, [], 1)
    else:
        _run_together(threads, kernel, *args)


def _run_together(threads: int, kernel: Callable[..., int], *args: Any) -> None:
    with team_of(threads - 1) as team:
        start = perf_counter()
        came = kernel(*args, team.rouse())
        if threads > 1 and place() is not None:
            for tile, thread in enumerate([get_ident(), *team.idents[:came]]):
                note("convolve", tile, start, thread=thread)


def cuts_of(rows: int, work: Work, threads: int | None) -> list[Range]:
    """Return the ranges of rows that are blocks: one on the calling thread, else by shape alone."""
    return [(0, rows)] if threads is None else blocks(rows, work)


def shares_of(rows: int, flops: int, threads: int | None) -> list[Range]:
    """Return ranges of rows, of so many operations each, for kernels whose bits do not depend on the cut."""
    return split(rows, count_of_shares(rows * flops, threads))


def count_of_shares(flops: int, threads: int | None) -> int:
    """Return into how many parts such a kernel's operations are cut, where there is enough to cut."""
    return 1 if threads is None else shares(flops, threads)


def parts_of(count: int, shape: tuple[int, ...], dtype: DTypeLike, out: NDArray | None) -> NDArray:
    """Return room for so many parts of a sum; a single one is the sum, and goes to ``out`` where that is given."""
    if count == 1 and out is not None and out.dtype == dtype and out.flags.c_contiguous:
        return out.reshape(1, *shape)
    return np.empty((count, *shape), dtype)


def sum_in_order(parts: NDArray) -> NDArray:
    """Return the sum of parts, first to last, in the place of the first."""
    total = parts[0]
    for part in parts[1:]:
        np.add(total, part, out=total)
    return total
