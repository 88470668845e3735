"""The steps of an epoch in one process, for some of the shards; an exchange joins them with the others'."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from dask._task_spec import Task
from numpy.typing import NDArray

from daskconv.graph.threads import execute, one_thread_each
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, TrainState, evaluate_block, update
from daskconv.run.ahead import blocks_ahead
from daskconv.run.transport import begin
from daskconv.run.watch import Watch
from daskconv.timeline import in_layer

Compute = Callable[[Program, TrainState, Data, Indices, int], Any]
"""(program, state, data, the step's images, epoch) -> the sums of this process's subtrees, or where they are."""

Exchange = Callable[[Any, bool], tuple[Partial, bool]]
"""(what compute returned, wants to stop) -> (the sum over all shards, whether anyone wants to stop)."""


def run_steps(
    program: Program,
    state: TrainState,
    data: Data,
    epoch: int,
    compute: Compute,
    exchange: Exchange,
    stopped: Callable[[], bool],
    keep: Callable[[TrainState, int], None],
    watch: Watch,
    until: int | None = None,
) -> TrainState:
    """Run an epoch from where ``state`` stands, in place, to its end or the step ``until``.

    ``keep`` gets the state, and the epoch's steps, after each step.
    """
    batches = data.batches(epoch)
    state, stop = begin(state, epoch), False
    with one_thread_each():
        while state.position.step < min(until or len(batches), len(batches)) and not stop:
            step = state.position.step
            watch.begin(epoch, step, len(batches), len(batches[step]))
            with watch.working():
                parts = compute(program, state, data, batches[step], epoch)
            total, stop = exchange(parts, stopped())
            with watch.working():
                rate = program.rate(epoch, step, len(batches))
                state = in_layer("update", "backward", "other", update, program, state, total, rate, True)
            watch.end()
            keep(state, len(batches))
    return state


def evaluate_blocks(
    program: Program,
    state: TrainState,
    data: Data,
    blocks: list[Indices],
    threads: int,
    beat: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Return the sums of each block (blocks, sums); ``beat`` hears of each."""
    if not blocks:
        return np.zeros((0, program.sums_size))
    with one_thread_each(), closing(blocks_ahead(data, blocks, threads)) as ahead:
        graph = {
            ("evaluate", i): Task(("evaluate", i), _evaluated, beat, program, state, ahead, block, threads)
            for i, block in enumerate(blocks)
        }
        return np.stack(execute(graph, list(graph), threads))


def _evaluated(beat: Callable[[], None], *args: Any) -> NDArray[np.float64]:
    sums = evaluate_block(*args)
    beat()
    return sums


def add_in_order(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the blocks, first to last."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row
    return total
