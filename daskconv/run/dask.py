"""The dask transport: the sums of every step are tasks of a cluster, one a worker.

The state stays on the workers, each of which takes every step itself from the sums of all; so one hop is between a step
and the next. The driver keeps a copy every few steps, where the chain of tasks also ends: Dask's scheduler remembers no
more than that, and where a worker dies or joins, all begin anew from the copy, to the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any
from uuid import uuid4

import numpy as np
from distributed import CancelledError, Client, Future, wait
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
from daskconv.run.held import Lost, Progress
from daskconv.run.loop import add_in_order
from daskconv.run.transport import begin
from daskconv.run.watch import NOBODY, Asked

# Steps in flight: enough to hide the scheduler's latency, few enough to stop soon.
_WINDOW = 4
# Steps between two copies of the state on the driver: no more have to be repeated.
_CHAIN = 50
# Seconds without a result after which the driver looks whether its workers are still there.
_LOOK = 1.0
# Losses in a row that the driver makes up for, and seconds in which a worker has to come back.
_LOSSES, _RETURN = 5, 60


class DaskTransport:
    """Run a Program as tasks of a client's workers."""

    name = "dask"

    def __init__(
        self,
        program: Program,
        state: TrainState,
        data: Mapping[str, Data],
        client: Client,
        threads: int,
        asked: Asked = NOBODY,
    ) -> None:
        self.program, self.client, self.threads, self.asked = program, client, threads, asked
        self.data = data
        self.run, self.placements = f"daskconv-{uuid4().hex[:12]}", 0
        # The newest state that the driver holds: nothing that workers lose is older.
        self._root = Progress(state.copy())
        self._keeping_on(self._place)

    def _place(self) -> None:
        """Give every worker the program, the data and a copy of the driver's state."""
        self.placements += 1
        self._present = worker_addresses(self.client)
        check_alike(self.client, self._present)
        # A worker without shards would have no part in the steps.
        self.workers = self._present[: self.program.shards]
        shares = tree.shares(self.program.shards, len(self.workers))
        self._spans = [[span for span, owner in shares if owner == w] for w in range(len(self.workers))]
        items = [self._spread(item) for item in (self.program, self._root, *self.data.values())]
        program, root, *data = items
        tasks = []
        for rank, spans in enumerate(self._spans):
            shards = sum(last - first for first, last in spans)
            lookout = self.asked, rank, len(self.workers), shards / self.program.shards
            args = program, root, list(self.data), data, self.threads, lookout
            tasks.append(self._submit(rank, held.hold, *args, key="hold"))
        for task in tasks:
            self._finished(task)

    def _spread(self, item: Any) -> Future:
        """Return a future of an object that every worker holds."""
        try:
            return self.client.scatter([item], broadcast=True, hash=False)[0]
        except (CancelledError, OSError, TimeoutError, KeyError) as error:
            # A KeyError is the scheduler's own, where a worker goes while the copies are made.
            raise Lost(f"No worker took what the tasks need: {sentence_of(error)}") from error

    @property
    def _placement(self) -> str:
        return f"{self.run}-{self.placements}"

    def _submit(self, worker: int, function: Callable[..., Any], *args: Any, key: str) -> Future:
        """Submit a task for one worker; where that is gone another one says so."""
        return self.client.submit(
            function,
            self.run,
            self._placement,
            *args,
            key=f"{self._placement}-{key}-{worker}",
            workers=[self.workers[worker]],
            allow_other_workers=True,
        )

    def _keeping_on(self, action: Callable[[], Any]) -> Any:
        """Return what the action returns; where workers took with them what it needs, place that anew and repeat it."""
        for losses in count(1):
            try:
                if losses > 1:
                    self._place()
                return action()
            except Lost as error:
                if losses > _LOSSES:
                    raise
                # Its frames hold on to futures of what is lost.
                error.with_traceback(None)
                wait_for_a_worker(self.client)

    def run_epoch(self, epoch: int, stopped: Callable[[], bool]) -> Position:
        """Run the epoch in chains of a few steps; the driver keeps the state at the end of each."""
        batches = self.data["train"].batches(epoch)
        self._root.state = begin(self._root.state, epoch)
        with forwarding(self.client, self.run):
            while self._root.state.position.step < len(batches) and not stopped():
                self._keeping_on(lambda: self._run_chain(epoch, batches, stopped))
        return self._root.state.position

    def _run_chain(self, epoch: int, batches: Sequence[Indices], stopped: Callable[[], bool]) -> None:
        """Run steps from the driver's copy on, a few ahead of those that are done; the end gives the new copy."""
        if worker_addresses(self.client) != self._present:
            self._place()
        first, steps = self._root.state.position.step, len(batches)
        parts, waiting = list[Future](), deque[list[Future]]()
        step = first
        while step < min(first + _CHAIN, steps) and not (parts and stopped()):
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
                for part in waiting.popleft():
                    self._finished(part)
            step += 1
        self._end_chain(parts, (epoch, step, steps))

    def _end_chain(self, parts: list[Future], place: tuple[int, int, int]) -> None:
        ends = [
            self._submit(w, held.end_chain, parts, place, w == 0, key=f"end-{place[0]}-{place[1]}")
            for w in range(len(self.workers))
        ]
        root = self._result(ends[0])
        for end in ends:
            self._finished(end)
        self._root = root

    def _finished(self, future: Future) -> Future:
        """Wait for a future; raise one sentence where it failed, Lost where a worker is gone."""
        self._await(future)
        if future.status == "error":
            failure = future.exception()
            if isinstance(failure, WorkerError):
                raise failure
            raise WorkerError(f"A task failed on a worker: {sentence_of(failure)}") from failure
        if future.status != "finished":
            raise Lost(f"The cluster lost a result ({future.status}): is the scheduler still there?")
        return future

    def _await(self, future: Future) -> None:
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
        present = worker_addresses(self.client, none_is_fine=True)
        return self.client.run(held.read, self.run, workers=present, on_error="ignore")

    def close(self) -> None:
        """Drop what the workers hold."""
        present = worker_addresses(self.client, none_is_fine=True)
        self.client.run(held.let_go, self.run, workers=present, on_error="ignore")


def worker_addresses(client: Client, none_is_fine: bool = False) -> list[str]:
    """Return the addresses of a client's workers, in the order of their names."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers and not none_is_fine:
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
