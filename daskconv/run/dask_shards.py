"""The dask transport of a split Program: each worker's part of a step, up to where arrays have to travel, is a task.

A worker keeps its pieces of the weights, and where it is in its step, from task to task; what it sends to others is the
task's result. So the tasks of a chain of steps run once, in order, on their worker. The driver keeps the whole state at
the end of each chain: where a worker dies, or joins, the next chain begins anew from there, to the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
from distributed import CancelledError, Client, Future, wait
from numpy.typing import NDArray

from daskconv.errors import WorkerError, sentence_of
from daskconv.kernels import heap
from daskconv.plan import tree
from daskconv.plan.describe import moves_of
from daskconv.plan.input import InputRead
from daskconv.plan.pieces import Pieces, joined
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Position, TrainState
from daskconv.run.alike import check_alike
from daskconv.run.dask import wait_for_a_worker, worker_addresses
from daskconv.run.exchange import Mesh, Parcels, Steps
from daskconv.run.forward import forwarding, sender, worker_name
from daskconv.run.held import Lost
from daskconv.run.local_shards import epoch_steps, evaluation
from daskconv.run.shards import Shards, images_of_workers
from daskconv.run.transport import begin
from daskconv.run.watch import NOBODY, Asked, Watch

# Steps in flight, and steps from one copy on the driver to the next.
_WINDOW, _CUT = 3, 50
# Losses in a row that the driver makes up for; seconds between two looks whether workers are still there.
_LOSSES, _LOOK = 5, 1.0

Outbox = dict[int, list[NDArray]]
"""By worker, the arrays for it, in order."""


class DaskShards:
    """Run a split Program as tasks of a client's workers."""

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
        assert program.split is not None
        self.program, self.split, self.client, self.threads = program, program.split, client, threads
        self.data, self._root, self.asked = data, state.copy(), asked
        self.run, self.workers, self._tasks = "", list[str](), 0
        self._computed: dict[str, set[int]] = {}
        self._keeping_on(lambda: None)  # that finds other workers than none, and places all

    def _place(self) -> None:
        """Give every worker its pieces of the driver's state."""
        self._close()
        self.workers = worker_addresses(self.client)[: self.split.shards]
        self.run, self._tasks = f"daskconv-{uuid4().hex[:12]}", 0
        check_alike(self.client, self.workers)
        owners = tree.owners(self.split.shards, len(self.workers))
        self.moves = moves_of(self.split, owners, self.program.vector_shapes)
        program, data = self._spread([self.program, dict(self.data)], self.workers)
        futures = []
        for rank, worker in enumerate(self.workers):
            mesh = Mesh(owners, rank)
            # The workers have the Split, and make it anew from the Program.
            pieces = Pieces.cut(self.split, self._root, mesh.mine).without_split()
            (held,) = self._spread([pieces], [worker])
            args = self.run, program, data, held, mesh, self.threads, self.asked
            futures.append(self._submit(worker, f"open-{rank}", _open, *args))
        self._wait(futures)

    def _spread(self, items: list[Any], workers: list[str]) -> list[Future]:
        """Return futures of objects that some workers hold."""
        try:
            return self.client.scatter(items, workers=workers, broadcast=True, hash=False)
        except (CancelledError, OSError, TimeoutError, KeyError) as error:
            # A KeyError is the scheduler's own, where a worker goes while the copies are made.
            raise Lost(f"No worker took what the tasks need: {sentence_of(error)}") from error

    def _submit(self, worker: str, name: str, function: Callable[..., Any], *args: Any) -> Future:
        key = f"{self.run}-{name}"
        return self.client.submit(function, *args, key=key, workers=[worker], pure=False, priority=10)

    def _results(self, futures: list[Future]) -> list[Any]:
        """Return the results of tasks."""
        self._wait(futures)
        try:
            return self.client.gather(futures)
        except (CancelledError, KeyError, OSError) as error:
            raise Lost(f"A result was lost before it was fetched: {error}") from error

    def _wait(self, futures: list[Future]) -> None:
        """Wait for tasks; raise Lost as soon as one of the workers is gone."""
        while True:
            try:
                wait(futures, timeout=_LOOK)
                break
            except TimeoutError:
                gone = set(self.workers) - set(self.client.scheduler_info(n_workers=-1)["workers"])
                if gone:
                    raise Lost(f"Worker {min(gone)} is gone.") from None
        failures = [future.exception() for future in futures if future.status == "error"]
        for failure in failures:
            if isinstance(failure, WorkerError):
                raise failure
            if failure is not None and type(failure).__name__ not in ("KilledWorker", "FutureCancelledError"):
                raise WorkerError(f"A task failed on a worker: {sentence_of(failure)}") from failure
        if failures or any(future.status != "finished" for future in futures):
            raise Lost("The cluster lost a task of a step.")

    def _keeping_on(self, action: Callable[[], Any]) -> Any:
        """Return what the action returns; where a worker was lost, begin anew from the driver's state."""
        losses = 0
        while True:
            try:
                if losses or set(worker_addresses(self.client)[: self.split.shards]) != set(self.workers):
                    self._place()
                return action()
            except Lost:
                losses += 1
                if losses > _LOSSES:
                    raise
                wait_for_a_worker(self.client)

    def run_epoch(self, epoch: int, stopped: Callable[[], bool]) -> Position:
        """Run the epoch in chains of a few steps; the driver keeps the state at the end of each."""
        steps = len(self.data["train"].batches(epoch))
        self._root = begin(self._root, epoch)
        while self._root.position.step < steps and not stopped():
            self._keeping_on(lambda: self._run_chain(epoch, steps, stopped))
        return self._root.position

    def _run_chain(self, epoch: int, steps: int, stopped: Callable[[], bool]) -> None:
        first = self._root.position.step
        count = min(_CUT, steps - first)
        batches = self.data["train"].batches(epoch)[first : first + count]
        self._deliver("train", batches)
        with forwarding(self.client, self.run):
            self._together("epoch", (epoch, first, count), self.moves * count, stopped)
        self._root = joined(self._root, self._pieces())
        for shard, rank in enumerate(tree.owners(self.split.shards, len(self.workers))):
            self._computed.setdefault(self.workers[rank], set()).add(shard)

    def _deliver(self, data: str, batches: Sequence[Indices]) -> None:
        """Bring each worker the chunks of its images, where the cluster's memory holds them."""
        own = images_of_workers(self.program, self.data[data], batches, len(self.workers))
        self._wait(
            [
                self._submit(worker, f"hold-{uuid4().hex}", _hold, self.run, data, dict(chunks))
                for worker, images in zip(self.workers, own, strict=True)
                if (chunks := self.data[data].chunks(images))
            ]
        )

    def read(self) -> dict[str, InputRead]:
        """Return what each worker has read since it got the data."""
        return self.client.run(_read, self.run, workers=self.workers, on_error="ignore")

    def _pieces(self) -> list[Pieces]:
        return self._results(
            [self._submit(worker, f"pieces-{uuid4().hex}", _pieces, self.run) for worker in self.workers]
        )

    def _together(
        self, kind: str, args: tuple, moves: int, stopped: Callable[[], bool] = lambda: False
    ) -> list[Any]:
        """Run work on all workers in step with each other: a task for each stretch between two moves of arrays."""
        asked, flying = False, deque[list[Future]]()
        before = self._round([], ("begin", kind, args))
        for number in range(moves):
            flying.append(before)
            if len(flying) > max(_WINDOW * self.moves, 1):
                self._wait(flying.popleft())
            if stopped() and not asked:
                self.client.run(_request_stop, self.run, workers=self.workers)
                asked = True
            before = self._round(before, ("go on", number))
            if asked and self._has_ended(before):
                break
        return [result for _, result in self._results(before)]

    def _has_ended(self, futures: list[Future]) -> bool:
        return all(outbox is None for outbox, _ in self._results(futures))

    def _round(self, before: list[Future], what: tuple) -> list[Future]:
        """Submit the next task of every worker, which gets what all others have sent to it."""
        self._tasks += 1
        return [
            self._submit(worker, f"{self._tasks}-{rank}", _go_on, self.run, self._tasks, what, before)
            for rank, worker in enumerate(self.workers)
        ]

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set."""
        return self._keeping_on(lambda: self._evaluate(data))

    def _evaluate(self, data: str) -> NDArray[np.float64]:
        self._deliver(data, [np.arange(len(self.data[data]))])
        batches = -(-len(self.data[data]) // self.program.batch_size)
        owners = tree.owners(self.split.shards, len(self.workers))
        moves = moves_of(self.split, owners, self.program.vector_shapes, training=False)
        return self._together("evaluate", (data,), moves * batches)[0]

    def state(self) -> TrainState:
        """Return a copy of the state at the end of the newest chain of steps."""
        return self._root.copy()

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that each worker computed."""
        return {worker: sorted(shards) for worker, shards in sorted(self._computed.items())}

    def close(self) -> None:
        """Let go of what the workers hold."""
        self._close()

    def _close(self) -> None:
        here = set(self.client.scheduler_info(n_workers=-1)["workers"])
        known = [worker for worker in self.workers if worker in here]
        if known:
            self.client.run(_forget, self.run, workers=known, on_error="ignore")


@dataclass
class _Member:
    """What a worker keeps of a run from task to task."""

    shards: Shards
    data: Mapping[str, Data]
    watch: Watch
    tasks: int = 0
    work: Steps[Any] | None = None
    parcels: Parcels = field(default_factory=Parcels)
    stop: bool = False


_members: dict[str, _Member] = {}


def _open(
    run: str,
    program: Program,
    data: Mapping[str, Data],
    pieces: Pieces,
    mesh: Mesh,
    threads: int,
    asked: Asked,
) -> None:
    assert program.split is not None
    pieces.split = program.split
    where = worker_name(), mesh.rank, len(set(mesh.owners)), len(mesh.mine) / len(mesh.owners)
    watch = Watch(program, sender(run), asked, *where, threads)
    _members[run] = _Member(Shards(program, pieces, mesh, threads), data, watch)


def _go_on(
    run: str, task: int, what: tuple, before: list[tuple[Outbox | None, Any]]
) -> tuple[Outbox | None, Any]:
    """Go on to where arrays have to travel; return those, by worker, or None and the result at the end."""
    member = _members.get(run)
    if member is None or member.tasks != task - 1:
        raise Lost("A worker forgot where it was in a step.")
    member.tasks = task
    if what[0] == "begin":
        member.work = _work(member, *what[1:])
    else:
        _deliver(member, before)
    assert member.work is not None
    try:
        member.parcels = next(member.work)
    except StopIteration as end:
        # Tasks that were submitted before a stop was heard of find nothing to do.
        member.parcels = Parcels()
        return None, end.value
    outbox: Outbox = {}
    for worker, _, array in member.parcels.sends:
        outbox.setdefault(worker, []).append(array)
    return outbox, None


def _work(member: _Member, kind: str, args: tuple) -> Steps[Any]:
    if kind == "evaluate":
        return evaluation(member.shards, member.data[args[0]])
    epoch, first, count = args

    def done(position: Position, steps: int) -> None:
        if member.shards.mesh.rank == 0:
            member.watch.done(position, steps)

    member.stop = False
    data, stopped = member.data["train"], lambda: member.stop
    return epoch_steps(member.shards, data, epoch, stopped, done, member.watch, first + count)


def _deliver(member: _Member, before: list[tuple[Outbox | None, Any]]) -> None:
    """Copy what others have sent to where it is expected; each sends in the order in which it is expected."""
    rank = member.shards.mesh.rank
    waiting = {worker: deque((outbox or {}).get(rank, ())) for worker, (outbox, _) in enumerate(before)}
    for worker, _, buffer in member.parcels.receives:
        buffer[...] = waiting[worker].popleft()


def _request_stop(run: str) -> None:
    if run in _members:
        _members[run].stop = True


def _hold(run: str, data: str, chunks: dict[int, NDArray]) -> None:
    _members[run].data[data].hold("epoch", chunks)


def _read(run: str) -> InputRead:
    return _members[run].data["train"].count.read


def _pieces(run: str) -> Pieces:
    return _members[run].shards.pieces.without_split()


def _forget(run: str) -> None:
    _members.pop(run, None)
    heap.release()
