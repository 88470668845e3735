"""The dask transport: subtrees of shards, and the update of every step, are tasks of a cluster.

A worker gets one task a step, the largest subtree of shards that is its own, and runs its blocks on its
threads. No task changes its inputs, so a lost worker's tasks are computed again, to the same bits; what was
scattered and died with its last holder, the driver places anew, and repeats the steps since its own copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np
from distributed import CancelledError, Client, Future, get_worker, wait
from numpy.typing import NDArray

from daskconv.errors import WorkerError, sentence_of
from daskconv.layout import even_parts
from daskconv.plan import tree
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, Position, TrainState, add, update
from daskconv.run.ahead import chunks_ahead, close_kept, kept_ahead, kept_read
from daskconv.run.forward import forwarding, send_position
from daskconv.run.loop import add_in_order, evaluate_blocks, subtree_sums
from daskconv.run.transport import begin

# Steps in flight: enough to hide the scheduler's latency, few enough to stop soon.
_WINDOW = 4
# The chain of updates is cut this often by a copy on the driver: the scheduler keeps no more steps than
# that, and no more have to be repeated where workers take with them what Dask cannot compute again.
_CUT = 50
# Losses in a row that the driver makes up for, and seconds in which a worker has to come back.
_LOSSES, _RETURN = 5, 60


@dataclass
class Progress:
    """What one step hands to the next: the state, and the shards that each worker has computed."""

    state: TrainState
    owners: dict[str, set[int]]


class _Lost(WorkerError):
    """What the tasks build on died with the workers that held it."""


class DaskTransport:
    """Run a Program as tasks of a client's workers."""

    name = "dask"

    def __init__(
        self, program: Program, state: TrainState, data: Mapping[str, Data], client: Client, threads: int
    ) -> None:
        self.program, self.client, self.threads = program, client, threads
        self.data = data
        self.run, self.placements = f"daskconv-{uuid4().hex[:12]}", 0
        # The newest state that the driver holds: nothing that workers lose is older.
        self._root = Progress(state.copy(), {})
        self._keeping_on(self._place)

    def _place(self) -> None:
        """Give every worker the program, the data and the root of the chain of updates."""
        self.placements += 1
        self.workers = worker_addresses(self.client)
        self._program = self._spread(self.program)
        self._futures = {name: self._spread(item) for name, item in self.data.items()}
        self._set_root(self._root)

    def _spread(self, item: Any) -> Future:
        """Return a future of an object that every worker holds, until Dask thins out the copies."""
        try:
            return self.client.scatter([item], broadcast=True, hash=False)[0]
        except (CancelledError, OSError, TimeoutError, KeyError) as error:
            # A KeyError is the scheduler's own, where a worker goes while the copies are made.
            raise _Lost(f"No worker took what the tasks need: {sentence_of(error)}") from error

    def _set_root(self, progress: Progress) -> None:
        """Begin the chain of updates anew from what the driver holds."""
        self._root = progress
        # Held until the next root: scattered data that no client holds is forgotten, and with it every
        # later step that might have to be computed again.
        self._root_future = self._progress = self._spread(progress)

    def _keeping_on(self, action: Callable[[], Any]) -> Any:
        """Return what the action returns; where workers took with them what it needs, place that anew and repeat it."""
        for losses in count(1):
            try:
                if losses > 1:
                    self._place()
                return action()
            except _Lost:
                if losses > _LOSSES:
                    raise
                wait_for_a_worker(self.client)

    def run_epoch(self, epoch: int, stopped: Callable[[], bool]) -> Position:
        """Run the epoch in chains of a few steps; the driver keeps the state at the end of each."""
        batches = self.data["train"].batches(epoch)
        self._root = Progress(begin(self._root.state, epoch), self._root.owners)
        self.workers = worker_addresses(self.client)
        with forwarding(self.client, self.run):
            self._keeping_on(lambda: self._set_root(self._root))
            while self._root.state.position.step < len(batches) and not stopped():
                self._keeping_on(lambda: self._run_chain(epoch, batches, stopped))
        return self._root.state.position

    def _run_chain(self, epoch: int, batches: Sequence[Indices], stopped: Callable[[], bool]) -> None:
        """Submit steps from the root on, a few ahead of those that are done; the last one gives the new root."""
        spans, waiting = self._spans(), deque[Future]()
        self._progress = self._root_future
        first = self._root.state.position.step
        for step in range(first, min(first + _CUT, len(batches))):
            if stopped():
                break
            self._submit(spans, epoch, step, batches)
            waiting.append(self._progress)
            if len(waiting) >= _WINDOW:
                _finished(waiting.popleft())
        self._set_root(_result(self._progress))

    def _spans(self) -> list[tuple[tree.Span, str]]:
        """Return the subtrees of shards and the worker that each is meant for."""
        return [(span, self.workers[w]) for span, w in tree.shares(self.program.shards, len(self.workers))]

    def _submit(
        self, spans: list[tuple[tree.Span, str]], epoch: int, step: int, batches: Sequence[Indices]
    ) -> None:
        """Submit one step; its progress becomes the next step's input."""
        parts = [
            self.client.submit(
                _subtree,
                self._program,
                self._progress,
                self._futures["train"],
                dict(chunks_ahead(self.program, self.data["train"], batches, span, step)),
                span,
                batches[step],
                epoch,
                self.threads,
                self.run,
                key=f"{self.run}-{self.placements}-gradients-{epoch}-{step}-{span[0]}-{span[1]}",
                workers=[worker],
                allow_other_workers=True,
            )
            for span, worker in spans
        ]
        self._progress = self.client.submit(
            _finish,
            self._program,
            self._progress,
            [span for span, _ in spans],
            parts,
            self.run,
            len(batches),
            key=f"{self.run}-{self.placements}-update-{epoch}-{step}",
            workers=[spans[0][1]],
            allow_other_workers=True,
        )

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set; each worker takes a run of its blocks."""
        return self._keeping_on(lambda: self._evaluate(data))

    def _evaluate(self, data: str) -> NDArray[np.float64]:
        blocks = self.program.evaluate_blocks(len(self.data[data]))
        shares = even_parts(len(blocks), len(self.workers))
        futures = [
            self.client.submit(
                _evaluate,
                self._program,
                self._progress,
                self._futures[data],
                dict(self.data[data].chunks(blocks[start:stop])),
                blocks[start:stop],
                self.threads,
                pure=False,
                workers=[worker],
                allow_other_workers=True,
            )
            for worker, (start, stop) in zip(self.workers, shares, strict=True)
        ]
        return add_in_order(np.concatenate([_result(future) for future in futures]))

    def state(self) -> TrainState:
        """Return a copy of the state at the end of the newest chain of steps."""
        return self._root.state.copy()

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that each worker computed."""
        return {worker: sorted(shards) for worker, shards in sorted(self._root.owners.items())}

    def read(self) -> dict[str, InputRead]:
        """Return what each worker has read since it got the data."""
        return self.client.run(kept_read, self.run, on_error="ignore")

    def close(self) -> None:
        """Release what the workers hold."""
        self.client.run(close_kept, self.run, on_error="ignore")
        for future in (self._program, self._progress, self._root_future, *self._futures.values()):
            future.release()


def worker_addresses(client: Client) -> list[str]:
    """Return the addresses of a client's workers, in the order of their names."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise WorkerError("The cluster has no workers: start some, or call client.wait_for_workers(1) first.")
    # Names are numbers in a LocalCluster and under dask-mpi: 10 comes after 9.
    return sorted(workers, key=lambda address: (str(workers[address]["name"]).zfill(20), address))


def wait_for_a_worker(client: Client) -> None:
    """Wait until the cluster has a worker again; raise WorkerError where none comes."""
    try:
        client.wait_for_workers(1, timeout=_RETURN)
    except TimeoutError:
        raise WorkerError(
            f"All workers of the cluster are gone and none came back in {_RETURN} s: start some and fit again."
        ) from None


def _subtree(
    program: Program,
    progress: Progress,
    data: Data,
    chunks: dict[int, NDArray],
    span: tree.Span,
    indices: Indices,
    epoch: int,
    threads: int,
    run: str,
) -> tuple[Partial, str]:
    data.hold(span, chunks)
    ahead = kept_ahead(run, program, data, epoch, span, progress.state)
    parts = subtree_sums(program, progress.state, ahead, [span], indices, epoch, threads)
    return parts[span], get_worker().address


def _finish(
    program: Program,
    progress: Progress,
    spans: list[tree.Span],
    parts: list[tuple[Partial, str]],
    run: str,
    steps: int,
) -> Progress:
    """Join the subtrees and take the step, on copies."""
    total = join((0, program.shards), {span: part for span, (part, _) in zip(spans, parts, strict=True)})
    now = progress.state.position
    state = update(program, progress.state, total, program.rate(now.epoch, now.step, steps), in_place=False)
    owners = {worker: set(shards) for worker, shards in progress.owners.items()}
    for span, (_, worker) in zip(spans, parts, strict=True):
        owners.setdefault(worker, set()).update(range(*span))
    send_position(run, state.position, steps)
    return Progress(state, owners)


def join(span: tree.Span, parts: Mapping[tree.Span, Partial]) -> Partial:
    """Return a subtree's sums from those of its parts, added in the tree's order."""
    if span in parts:
        return parts[span]
    left, right = tree.halves(span)
    return add(join(left, parts), join(right, parts))


def _evaluate(
    program: Program,
    progress: Progress,
    data: Data,
    chunks: dict[int, NDArray],
    blocks: list[Indices],
    threads: int,
) -> NDArray[np.float64]:
    data.hold("evaluate", chunks)
    try:
        return evaluate_blocks(program, progress.state, data, blocks, threads)
    finally:
        data.hold("evaluate", {})


def _finished(future: Future) -> Future:
    """Wait for a future; raise one sentence where it failed."""
    try:
        wait(future)
    except CancelledError as error:
        raise _Lost(f"The cluster lost a result that nothing can bring back: {error}") from error
    if future.status == "error":
        failure = future.exception()
        if isinstance(failure, WorkerError):
            raise failure
        raise WorkerError(f"A task failed on a worker: {sentence_of(failure)}") from failure
    if future.status != "finished":
        raise _Lost(f"The cluster lost a result ({future.status}): is the scheduler still there?")
    return future


def _result(future: Future) -> Any:
    """Return a future's result; another worker may die between the end of the task and the fetch."""
    try:
        return _finished(future).result()
    except CancelledError as error:
        raise _Lost(f"The cluster lost a result before it was fetched: {error}") from error
