"""What the tasks of the dask transport do on a worker: its state stays there, only the sums of its shards travel.

A worker holds the state, which its own tasks change step after step and which is nobody's input. A task that does not
find it at its step, since the worker is new or Dask runs a task again, raises :class:`Lost`: the driver then begins
anew from its own copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from daskconv.errors import WorkerError
from daskconv.kernels import heap
from daskconv.plan import tree
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, TrainState, add, update
from daskconv.run.ahead import Kept
from daskconv.run.forward import sender, worker_name
from daskconv.run.loop import evaluate_blocks, subtree_sums
from daskconv.run.transport import begin
from daskconv.run.watch import Asked, Watch
from daskconv.timeline import in_layer

Parts = tuple[str, dict[tree.Span, Partial]]
"""The address of a worker, and the sums of its subtrees of shards."""


Lookout = tuple[Asked, int, int, float]
"""What is told of the steps, the worker's number, how many there are, and its share of a step's images."""


class Lost(WorkerError):
    """What the tasks build on died with the workers that held it."""


@dataclass
class Progress:
    """What the driver keeps: a state, and the shards that each worker has computed."""

    state: TrainState
    owners: dict[str, set[int]] = field(default_factory=dict)

    def copy(self) -> Progress:
        """Return what may be changed."""
        return Progress(self.state.copy(), {worker: set(shards) for worker, shards in self.owners.items()})


@dataclass
class Held:
    """One worker's part of a run; ``placement`` says which of the driver's beginnings it belongs to."""

    placement: str
    program: Program
    data: Mapping[str, Data]
    threads: int
    progress: Progress
    watch: Watch
    ahead: Kept = field(default_factory=Kept)


# By run and by worker: those of a LocalCluster with processes=False share a process.
_held: dict[tuple[str, str], Held] = {}


def hold(
    run: str,
    placement: str,
    program: Program,
    progress: Progress,
    names: list[str],
    data: list[Data],
    threads: int,
    lookout: Lookout,
) -> None:
    """Begin a run, or begin it anew, from a copy of the driver's state."""
    asked, rank, workers, share = lookout
    watch = Watch(program, sender(run), asked, worker_name(), rank, workers, share, threads)
    named = dict(zip(names, data, strict=True))
    before = _held.get((run, get_worker().address))
    if before is not None and "train" in named:
        before.ahead.close()
        read = before.data["train"].count.read
        named["train"].count.add(read.images, read.nbytes, read.seconds)
    _held[run, get_worker().address] = Held(placement, program, named, threads, progress.copy(), watch)


def let_go(run: str, dask_worker: Any) -> None:
    """Drop this worker's part of a run."""
    if (held := _held.pop((run, dask_worker.address), None)) is not None:
        held.ahead.close()
    heap.release()


def read(run: str, dask_worker: Any) -> InputRead:
    """Return what this worker has read."""
    held = _held.get((run, dask_worker.address))
    return held.data["train"].count.read if held else InputRead()


def _find(run: str, placement: str) -> Held:
    held = _held.get((run, get_worker().address))
    if held is None or held.placement != placement:
        raise Lost("A worker does not hold the state that its task builds on.")
    return held


def compute_step(
    run: str,
    placement: str,
    before: list[Parts],
    spans: list[tree.Span],
    indices: Indices,
    chunks: dict[int, NDArray],
    place: tuple[int, int, int],
) -> Parts:
    """Take the step before, where this chain has one, and compute this worker's sums of the step at ``place``.

    ``place`` is the epoch, the step and the epoch's steps; ``chunks`` are the images' where a cluster holds them.
    """
    held, (epoch, step, steps) = _find(run, placement), place
    state = begin(held.progress.state, epoch)
    watch = held.watch
    with watch.working():
        held.progress.state = state = _take(held, state, before, (epoch, step, steps))
    watch.end()
    watch.begin(epoch, step, steps, len(indices))
    held.data["train"].hold("step", chunks)
    with watch.working():
        data = held.ahead.of(held.program, held.data["train"], epoch, spans, state)
        sums = subtree_sums(held.program, state, data, spans, indices, epoch, held.threads)
    return get_worker().address, sums


def end_chain(
    run: str, placement: str, before: list[Parts], place: tuple[int, int, int], wanted: bool
) -> Progress | None:
    """Take a chain's last step; return a copy of all where it is wanted."""
    held = _find(run, placement)
    with held.watch.working():
        held.progress.state = _take(held, held.progress.state, before, place)
    held.watch.end()
    return held.progress.copy() if wanted else None


def _take(held: Held, state: TrainState, before: list[Parts], place: tuple[int, int, int]) -> TrainState:
    """Return the state at a place, one step after that of which all workers' sums are given."""
    epoch, step, steps = place
    if (state.position.epoch, state.position.step) != (epoch, step - bool(before)):
        raise Lost(f"A worker's state is at step {state.position.step}, not at {step - bool(before)}.")
    if not before:
        return state
    parts = {span: part for _, found in before for span, part in found.items()}
    total = tree.fold((0, held.program.shards), parts.get, add)
    assert total is not None
    rate = held.program.rate(epoch, state.position.step, steps)
    state = in_layer("update", "backward", "other", update, held.program, state, total, rate, True)
    for worker, found in before:
        owned = held.progress.owners.setdefault(worker, set())
        owned.update(shard for span in found for shard in range(*span))
        if worker == get_worker().address and any(span[0] == 0 for span in found):
            held.watch.done(state.position, steps)
    return state


def evaluate(
    run: str, placement: str, data: str, blocks: list[Indices], chunks: dict[int, NDArray]
) -> NDArray[np.float64]:
    """Return the sums of some blocks of a data set."""
    held = _find(run, placement)
    held.data[data].hold("evaluate", chunks)
    try:
        return evaluate_blocks(held.program, held.progress.state, held.data[data], blocks, held.threads)
    finally:
        held.data[data].hold("evaluate", {})
