"""The dask transport: the sums of every step are tasks of a cluster, one a worker.

The state stays on the workers, each of which takes every step itself from the sums of all; so one hop is between a step
and the next. The driver keeps a copy every few steps, where the chain of tasks also ends: Dask's scheduler remembers no
more than that, and where a worker dies or joins, all begin anew from the copy, to the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any
from uuid import uuid4

import numpy as np
from distributed import CancelledError, Client, Future, KilledWorker, wait
from numpy.typing import NDArray

from daskconv.errors import WorkerError, sentence_of
from daskconv.layout import even_parts
from daskconv.plan import tree
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Position, TrainState
from daskconv.run import held
from daskconv.run.ahead import chunks_ahead
from daskconv.run.alike import check_alike
from daskconv.run.forward import forwarding
from daskconv.run.held import Progress, Seat
from daskconv.run.loop import add_in_order
from daskconv.run.losses import Losses, Lost, keeping_on, placing, run_on, spread, worker_addresses
from daskconv.run.patience import deadline
from daskconv.run.transport import begin

# Steps in flight: enough to hide the scheduler's latency, few enough to stop soon.
_WINDOW = 4
# Seconds without a result after which the driver looks whether its workers are still there.
_LOOK = 1.0


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
        self._root = Progress(state.copy())
        self._losses = Losses()
        self.workers, self._spans = list[str](), list[list[tree.Span]]()
        self._late = deadline()
        self._keeping_on(lambda: placing(self._place))

    def _place(self) -> None:
        """Give every worker the program, the data and a copy of the driver's state."""
        self.placements += 1
        self._present = worker_addresses(self.client)
        check_alike(self.client, self._present)
        # A worker without shards would have no part in the steps.
        self.workers = self._present[: self.program.shards]
        shares = tree.shares(self.program.shards, len(self.workers))
        self._spans = [[span for span, owner in shares if owner == w] for w in range(len(self.workers))]
        items = [self.program, self._root, *self.data.values()]
        program, root, *data = spread(self.client, items, self.workers[0])
        tasks = self._each(held.hold, program, root, list(self.data), data, self.threads, key="hold")
        for task in tasks:
            self._finished(task)

    @property
    def _placement(self) -> str:
        return f"{self.run}-{self.placements}"

    def _each(self, function: Callable[..., Any], *args: Any, key: str) -> list[Future]:
        """Submit a task for each worker."""
        return [self._submit(w, function, *args, key=key) for w in range(len(self.workers))]

    def _submit(self, worker: int, function: Callable[..., Any], *args: Any, key: str) -> Future:
        """Submit a task for one worker; where that is gone another one says so."""
        return self.client.submit(
            function,
            Seat(self.run, self._placement, self.workers[worker]),
            *args,
            key=f"{self._placement}-{key}-{worker}",
            workers=[self.workers[worker]],
            allow_other_workers=True,
        )

    def _keeping_on(self, action: Callable[[], Any]) -> Any:
        """Return what the action returns; where workers were lost, begin anew from the driver's copy."""
        self._losses.reached(self._root.state.position)
        return keeping_on(action, self._place, self._lost_shards, self._losses, self.client)

    def _lost_shards(self) -> list[int]:
        """Return the shards of workers that are gone."""
        present = worker_addresses(self.client, none_is_fine=True)
        spans = [self._spans[w] for w, worker in enumerate(self.workers) if worker not in present]
        return [shard for own in spans for span in own for shard in range(*span)]

    def run_epoch(self, epoch: int, stopped: Callable[[], bool], until: int | None = None) -> Position:
        """Run the epoch in chains of a few steps; the driver keeps the state at the end of each."""
        batches = self.data["train"].batches(epoch)
        last = min(until or len(batches), len(batches))
        self._root.state = begin(self._root.state, epoch)
        with forwarding(self.client, self.run):
            while self._root.state.position.step < last and not stopped():
                self._keeping_on(lambda: self._run_chain(epoch, batches, last, stopped))
        return self._root.state.position

    def _run_chain(
        self, epoch: int, batches: Sequence[Indices], last: int, stopped: Callable[[], bool]
    ) -> None:
        """Run steps from the driver's copy on, a few ahead of those that are done; the end gives the new copy."""
        if worker_addresses(self.client) != self._present:
            placing(self._place)
        first, steps = self._root.state.position.step, len(batches)
        parts, waiting = list[Future](), deque[list[Future]]()
        step = first
        while step < min(first + self._losses.chain, last) and not (parts and stopped()):
            batch, place = batches[step], (epoch, step, steps)
            key, data = f"step-{epoch}-{step}", self.data["train"]
            parts = [
                self._submit(
                    w,
                    held.compute_step,
                    parts,
                    spans,
                    batch,
                    dict(chunks_ahead(self.program, data, batches, spans, step)),
                    place,
                    key=key,
                )
                for w, spans in enumerate(self._spans)
            ]
            waiting.append(parts)
            if len(waiting) >= _WINDOW:
                self._step_done(waiting.popleft())
            step += 1
        self._end_chain(parts, (epoch, step, steps))

    def _step_done(self, parts: list[Future]) -> None:
        """Wait for a step; raise WorkerError where that takes longer than the deadline."""
        for w, part in enumerate(parts):
            late = f"worker {self.workers[w]} with shards {[list(range(*span)) for span in self._spans[w]]}"
            self._finished(part, late)

    def _end_chain(self, parts: list[Future], place: tuple[int, int, int]) -> None:
        ends = [
            self._submit(w, held.end_chain, parts, place, w == 0, key=f"end-{place[0]}-{place[1]}")
            for w in range(len(self.workers))
        ]
        self._step_done(ends)
        self._root = self._result(ends[0])

    def _finished(self, future: Future, late: str | None = None) -> Future:
        """Wait for a future; raise one sentence where it failed, Lost where a worker is gone.

        ``late`` says whom it comes from, where that is a step, which has a deadline.
        """
        self._await(future, late)
        if future.status == "error":
            failure = future.exception()
            if isinstance(failure, WorkerError):
                raise failure
            if isinstance(failure, KilledWorker):
                raise Lost(f"Worker {failure.last_worker.address} died again and again.")
            raise WorkerError(f"A task failed on a worker: {sentence_of(failure)}") from failure
        if future.status != "finished":
            raise Lost(f"The cluster lost a result ({future.status}): is the scheduler still there?")
        return future

    def _await(self, future: Future, late: str | None) -> None:
        end = monotonic() + self._late
        while True:
            try:
                wait(future, timeout=_LOOK)
                return
            except CancelledError as error:
                raise Lost(f"The cluster lost a result that nothing can bring back: {error}") from error
            except TimeoutError:
                # Dask does not hand a task that waits for a worker which is gone to one that has joined.
                gone = set(self.workers) - set(worker_addresses(self.client, none_is_fine=True))
                if gone:
                    raise Lost(f"{len(gone)} of {len(self.workers)} workers are gone.") from None
                if late is not None and monotonic() > end:
                    raise WorkerError(
                        f"A step has not ended in {self._late:g} s (daskconv.deadline): {late} is missing."
                    ) from None

    def _result(self, future: Future) -> Any:
        """Return a future's result; another worker may die between the end of the task and the fetch."""
        try:
            return self._finished(future).result()
        except CancelledError as error:
            raise Lost(f"The cluster lost a result before it was fetched: {error}") from error

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set; each worker takes a run of its blocks."""
        return self._keeping_on(lambda: self._evaluate(data))

    def _evaluate(self, data: str) -> NDArray[np.float64]:
        blocks = self.program.evaluate_blocks(len(self.data[data]))
        shares = even_parts(len(blocks), len(self.workers))
        key = f"evaluate-{uuid4().hex[:12]}"
        futures = [
            self._submit(
                w,
                held.evaluate,
                data,
                blocks[start:stop],
                dict(self.data[data].chunks(blocks[start:stop])),
                key=key,
            )
            for w, (start, stop) in enumerate(shares)
        ]
        return add_in_order(np.concatenate([self._result(future) for future in futures]))

    def state(self) -> TrainState:
        """Return a copy of the state at the end of the newest chain of steps."""
        return self._root.state.copy()

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that each worker computed."""
        return {worker: sorted(shards) for worker, shards in sorted(self._root.owners.items())}

    def read(self) -> dict[str, InputRead]:
        """Return what each worker has read since it got the data."""
        return run_on(self.client, held.read, self.run)

    def close(self) -> None:
        """Drop what the workers hold."""
        run_on(self.client, held.let_go, self.run)
