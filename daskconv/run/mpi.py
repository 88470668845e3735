"""The mpi transport: one long task a worker runs an epoch's steps; sums travel by MPI among the workers.

MPI only moves bytes. Each rank adds the largest subtrees of shards that are its own, all ranks gather all
of them, and each completes the tree in the same order. No scheduler message is part of a step.

A step's message carries a flag and a sentence, so that one rank's exception ends all of them; a rank that
hears nothing for long calls Abort.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import uuid4

import dask
import numpy as np
from distributed import Client, Future, wait
from numpy.typing import NDArray

from daskconv.errors import InputError, WorkerError
from daskconv.layout import even_parts
from daskconv.plan import tree
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, Position, TrainState
from daskconv.run.ahead import own_images, reading_ahead
from daskconv.run.dask import join, sentence_of, worker_addresses
from daskconv.run.forward import forwarding, send_position
from daskconv.run.loop import add_in_order, evaluate_blocks, run_steps, subtree_sums

RUNNING, FAILED, STOPPING = 0, 1, 2
_SENTENCE = 1016  # bytes of a message's sentence; with the flag 1024, so that sums lie aligned
_POLL = 5e-5  # seconds between two looks at a message that has not come yet


def launcher_ranks() -> int:
    """Return the ranks of the MPI job this process belongs to, by its environment; 0 outside of one."""
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMIX_SIZE"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    # srun sets these for every task; a batch script's own shell has no PMI socket or PMIx rank.
    if "PMIX_RANK" in os.environ or "PMI_RANK" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "0") or 0)
    return 0


def launcher_rank() -> int | None:
    """Return this process's rank in its MPI job, by its environment; None outside of one."""
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


class MPITransport:
    """Run a Program on the workers that dask-mpi started."""

    name = "mpi"

    def __init__(
        self, program: Program, state: TrainState, data: Mapping[str, Data], client: Client, threads: int
    ) -> None:
        self.program, self.client = program, client
        self.data = data
        self.run = f"daskconv-{uuid4().hex[:12]}"
        ranks = _worker_ranks(client)
        self.workers = sorted(ranks, key=ranks.__getitem__)
        futures = {name: client.scatter([item], broadcast=True, hash=False)[0] for name, item in data.items()}
        world = tuple(sorted(ranks.values()))
        # Workers do not see this process's configuration: what it says travels as values.
        deadline = float(dask.config.get("daskconv.mpi.deadline", 600))
        names, items = list(futures), list(futures.values())
        self._call_all(_open, program, state, names, items, world, threads, deadline)

    def _submit_all(self, function: Callable[..., Any], *args: Any) -> list[Future]:
        """Submit a task for each worker, on that worker."""
        return [
            self.client.submit(function, self.run, *args, pure=False, workers=[worker], priority=10)
            for worker in self.workers
        ]

    def _call_all(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        futures = self._submit_all(function, *args)
        wait(futures)
        return _results(futures)

    def _deliver(self, data: str, images: list[list[Indices]]) -> None:
        """Bring each worker the chunks of its images, where the cluster's memory holds them."""
        futures = [
            self.client.submit(_hold, self.run, data, dict(chunks), pure=False, workers=[worker], priority=10)
            for worker, mine in zip(self.workers, images, strict=True)
            if (chunks := self.data[data].chunks(mine))
        ]
        wait(futures)
        _results(futures)

    def run_epoch(self, epoch: int, stopped: Callable[[], bool]) -> Position:
        """Run the epoch as one task a worker, and wait for all of them."""
        own = own_images(self.program, self.data["train"], epoch, len(self.workers))
        with forwarding(self.client, self.run):
            self._deliver("train", own)
            futures = self._submit_all(_run_epoch, epoch)
            asked = False
            while not all(future.done() for future in futures):
                if stopped() and not asked:
                    self.client.run(_request_stop, self.run, workers=self.workers)
                    asked = True
                time.sleep(0.02)
        return _results(futures)[0]

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set; each worker takes a run of its blocks."""
        blocks = self.program.evaluate_blocks(len(self.data[data]))
        shares = even_parts(len(blocks), len(self.workers))
        self._deliver(data, [blocks[start:stop] for start, stop in shares])
        futures = [
            self.client.submit(
                _evaluate, self.run, data, blocks[start:stop], pure=False, workers=[worker], priority=10
            )
            for worker, (start, stop) in zip(self.workers, shares, strict=True)
        ]
        wait(futures)
        return add_in_order(np.concatenate(_results(futures)))

    def state(self) -> TrainState:
        """Return a copy of the first worker's state; all are equal."""
        future = self.client.submit(_state, self.run, pure=False, workers=self.workers[:1], priority=10)
        wait(future)
        return _results([future])[0]

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that each worker computed."""
        return dict(zip(self.workers, self._call_all(_computed), strict=True))

    def read(self) -> dict[str, InputRead]:
        """Return what each worker has read."""
        return dict(zip(self.workers, self._call_all(_read), strict=True))

    def close(self) -> None:
        """Drop the workers' replicas."""
        self.client.run(_close, self.run, workers=self.workers)


@dataclass
class Replica:
    """One rank's part of a run."""

    program: Program
    state: TrainState
    data: dict[str, Data]
    comm: Any
    spans: list[tuple[tree.Span, int]]
    threads: int
    deadline: float
    stop: threading.Event = field(default_factory=threading.Event)
    computed: set[int] = field(default_factory=set)

    @property
    def own(self) -> list[tree.Span]:
        """The subtrees of this rank."""
        return [span for span, rank in self.spans if rank == self.comm.rank]


_replicas: dict[str, Replica] = {}


@cache
def _communicator(ranks: tuple[int, ...]) -> Any:
    """Return the communicator of these world ranks; made once, since MPI has a limited number of them."""
    from mpi4py import MPI

    return MPI.COMM_WORLD.Create_group(MPI.COMM_WORLD.group.Incl(list(ranks)))


def _open(
    run: str,
    program: Program,
    state: TrainState,
    names: list[str],
    data: list[Data],
    ranks: tuple[int, ...],
    threads: int,
    deadline: float,
) -> None:
    comm = _communicator(ranks)
    spans = tree.shares(program.shards, len(ranks))
    named = dict(zip(names, data, strict=True))
    _replicas[run] = Replica(program, state.copy(), named, comm, spans, threads, deadline)


def _hold(run: str, data: str, chunks: dict[int, NDArray]) -> None:
    _replicas[run].data[data].hold("epoch", chunks)


def _run_epoch(run: str, epoch: int) -> Position:
    replica = _replicas[run]
    replica.stop.clear()
    gather = _Gather(replica)

    def keep(state: TrainState, steps: int) -> None:
        replica.state = state
        replica.computed.update(shard for span in replica.own for shard in range(*span))
        if replica.comm.rank == 0:
            send_position(run, state.position, steps)

    program, state, stopped = replica.program, replica.state, replica.stop.is_set
    with reading_ahead(program, replica.data["train"], epoch, replica.own, state) as data:
        return run_steps(program, state, data, epoch, gather.compute, gather.exchange, stopped, keep).position


class _Gather:
    """A step's exchange: every rank's subtree sums to every rank, with a flag and a sentence."""

    def __init__(self, replica: Replica) -> None:
        self.replica, self.comm = replica, replica.comm
        program = replica.program
        self.dtype = np.dtype(
            [("sums", np.float64, program.sums_size), ("gradient", program.dtype, program.elements)],
            align=True,
        )
        self.head = np.dtype([("flag", np.int64), ("sentence", f"S{_SENTENCE}")])
        counts = [sum(rank == r for _, rank in replica.spans) for r in range(self.comm.size)]
        self.sizes = [self.head.itemsize + count * self.dtype.itemsize for count in counts]
        self.starts = [0, *np.cumsum(self.sizes).tolist()]
        self.send = np.zeros(self.sizes[self.comm.rank], np.uint8)
        self.received = np.zeros(self.starts[-1], np.uint8)
        self.error: Exception | None = None

    def compute(self, *args: Any) -> dict[tree.Span, Partial]:
        """Return this rank's subtree sums; an exception is kept for the exchange, which tells the others."""
        program, state, data, indices, epoch = args
        try:
            return subtree_sums(program, state, data, self.replica.own, indices, epoch, self.replica.threads)
        except Exception as error:
            self.error = error
            return {}

    def exchange(self, parts: dict[tree.Span, Partial], stop: bool) -> tuple[Partial, bool]:
        """Return the sum over all shards, and whether anyone wants to stop; raise where a rank failed."""
        head = self.send[: self.head.itemsize].view(self.head)[0]
        head["flag"] = FAILED if self.error else STOPPING if stop else RUNNING
        head["sentence"] = sentence_of(self.error).encode()[:_SENTENCE] if self.error else b""
        body = self.send[self.head.itemsize :].view(self.dtype)
        for row, span in zip(body, self.replica.own if parts else [], strict=bool(parts)):
            row["gradient"], row["sums"] = parts[span].gradient, parts[span].sums
        self._gather()
        flags = [self._head(rank)["flag"] for rank in range(self.comm.size)]
        if FAILED in flags:
            rank = flags.index(FAILED)
            sentence = bytes(self._head(rank)["sentence"]).decode(errors="replace")
            raise WorkerError(f"Worker {rank} of {self.comm.size} failed: {sentence}") from self.error
        return join((0, self.replica.program.shards), self._parts()), STOPPING in flags

    def _gather(self) -> None:
        """Gather all ranks' bytes; look and sleep instead of spinning, which would cost a core."""
        request = self.comm.Iallgatherv(self.send, [self.received, self.sizes, self.starts[:-1], _byte()])
        patience = time.monotonic() + self.replica.deadline
        while not request.Test():
            time.sleep(_POLL)
            if time.monotonic() > patience:
                silent = f"{self.replica.deadline:.0f} s (daskconv.mpi.deadline)"
                print(f"A worker sent nothing for {silent}: the job is aborted.", file=sys.stderr, flush=True)
                self.comm.Abort(1)

    def _head(self, rank: int) -> Any:
        start = self.starts[rank]
        return self.received[start : start + self.head.itemsize].view(self.head)[0]

    def _parts(self) -> dict[tree.Span, Partial]:
        parts: dict[tree.Span, Partial] = {}
        for rank in range(self.comm.size):
            body = self.received[self.starts[rank] + self.head.itemsize : self.starts[rank + 1]].view(
                self.dtype
            )
            own = [span for span, owner in self.replica.spans if owner == rank]
            parts |= {
                span: Partial(row["gradient"], row["sums"]) for span, row in zip(own, body, strict=True)
            }
        return parts


def _byte() -> Any:
    from mpi4py import MPI

    return MPI.BYTE


def _request_stop(run: str) -> None:
    _replicas[run].stop.set()


def _evaluate(run: str, data: str, blocks: list) -> NDArray[np.float64]:
    replica = _replicas[run]
    return evaluate_blocks(replica.program, replica.state, replica.data[data], blocks, replica.threads)


def _state(run: str) -> TrainState:
    return _replicas[run].state


def _computed(run: str) -> list[int]:
    return sorted(_replicas[run].computed)


def _read(run: str) -> InputRead:
    return _replicas[run].data["train"].count.read


def _close(run: str) -> None:
    replica = _replicas.pop(run, None)
    if replica is not None:
        # A driver that gave up may leave an epoch running: it ends after its step.
        replica.stop.set()


def _worker_ranks(client: Client) -> dict[str, int]:
    """Return the world rank of each worker; raise InputError where workers are no ranks of one MPI job."""
    worlds = client.run(_world, workers=worker_addresses(client))
    if any(world is None or world[1] < 3 for world in worlds.values()):
        raise InputError(
            "transport='mpi' needs workers that are ranks of this MPI job: start the script with "
            "mpiexec -n 3 or more and begin it with daskconv.start(), or use transport='dask'."
        )
    return {worker: rank for worker, (rank, _) in worlds.items()}


def _world() -> tuple[int, int] | None:
    """Return (rank, size) of this process in its MPI job, or None without mpi4py."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


def _results(futures: list[Future]) -> list[Any]:
    """Return the results of finished futures; the ranks' one sentence where they failed."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    if not errors:
        return [future.result() for future in futures]
    named = next((error for error in errors if isinstance(error, WorkerError)), None)
    raise named or WorkerError(f"A task failed on a worker: {sentence_of(errors[0])}") from errors[0]
