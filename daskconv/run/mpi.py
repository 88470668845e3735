"""The mpi transport: one long task a worker runs an epoch's steps; sums travel by MPI among the workers.

The driver only starts and ends epochs. No scheduler message is part of a step: see :mod:`daskconv.run.replica` for what
a rank does, :mod:`daskconv.run.reduce` for how sums travel, :mod:`daskconv.run.messages` for how anything does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar
from uuid import uuid4

import dask
import numpy as np
from distributed import Client, Future, wait
from numpy.typing import NDArray

from daskconv.errors import InputError, WorkerError, check_count, sentence_of
from daskconv.layout import even_parts
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Position, TrainState
from daskconv.run import rank, replica
from daskconv.run.ahead import own_images
from daskconv.run.alike import check_alike
from daskconv.run.dask import worker_addresses
from daskconv.run.forward import forwarding
from daskconv.run.loop import add_in_order
from daskconv.run.watch import NOBODY, Asked


class MPITransport:
    """Run a Program on the workers that dask-mpi started."""

    name = "mpi"
    tasks: ClassVar[ModuleType] = replica
    """Whose steps the workers run."""

    def __init__(
        self,
        program: Program,
        state: TrainState,
        data: Mapping[str, Data],
        client: Client,
        threads: int,
        asked: Asked = NOBODY,
    ) -> None:
        self.program, self.client = program, client
        self.data = data
        self.run = f"daskconv-{uuid4().hex[:12]}"
        ranks = worker_ranks(client)
        self.workers = sorted(ranks, key=ranks.__getitem__)
        check_alike(client, self.workers)
        items = [program, state, *data.values()]
        shared = [client.scatter([item], broadcast=True, hash=False)[0] for item in items]
        world = tuple(sorted(ranks.values()))
        options = options_of(threads, len(world), asked)
        self._call_all(replica.open_replica, *shared[:2], list(data), shared[2:], world, options)

    def _submit_all(self, function: Callable[..., Any], *args: Any) -> list[Future]:
        """Submit a task for each worker, on that worker."""
        return [
            self.client.submit(function, self.run, *args, pure=False, workers=[worker], priority=10)
            for worker in self.workers
        ]

    def _call_all(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        futures = self._submit_all(function, *args)
        wait(futures)
        return results_of(futures)

    def _deliver(self, data: str, images: list[list[Indices]]) -> None:
        """Bring each worker the chunks of its images, where the cluster's memory holds them."""
        futures = [
            self.client.submit(
                rank.hold, self.run, data, dict(chunks), pure=False, workers=[worker], priority=10
            )
            for worker, mine in zip(self.workers, images, strict=True)
            if (chunks := self.data[data].chunks(mine))
        ]
        wait(futures)
        results_of(futures)

    def own_images(self, epoch: int) -> list[list[Indices]]:
        """Return the images of an epoch that each worker reads, where a cluster holds their chunks."""
        return own_images(self.program, self.data["train"], epoch, len(self.workers))

    def run_epoch(self, epoch: int, stopped: Callable[[], bool]) -> Position:
        """Run the epoch as one task a worker, and wait for all of them."""
        with forwarding(self.client, self.run):
            self._deliver("train", self.own_images(epoch))
            futures = self._submit_all(self.tasks.run_epoch, epoch)
            asked = False
            while not all(future.done() for future in futures):
                if stopped() and not asked:
                    self.client.run(rank.request_stop, self.run, workers=self.workers)
                    asked = True
                time.sleep(0.02)
        return results_of(futures)[0]

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set; each worker takes a run of its blocks."""
        blocks = self.program.evaluate_blocks(len(self.data[data]))
        shares = even_parts(len(blocks), len(self.workers))
        self._deliver(data, [blocks[start:stop] for start, stop in shares])
        futures = [
            self.client.submit(
                replica.evaluate,
                self.run,
                data,
                blocks[start:stop],
                pure=False,
                workers=[worker],
                priority=10,
            )
            for worker, (start, stop) in zip(self.workers, shares, strict=True)
        ]
        wait(futures)
        return add_in_order(np.concatenate(results_of(futures)))

    def state(self) -> TrainState:
        """Return a copy of the first worker's state; all are equal."""
        future = self.client.submit(
            replica.state_of, self.run, pure=False, workers=self.workers[:1], priority=10
        )
        wait(future)
        return results_of([future])[0]

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that each worker computed."""
        return dict(zip(self.workers, self._call_all(self.tasks.computed), strict=True))

    def read(self) -> dict[str, InputRead]:
        """Return what each worker has read."""
        return dict(zip(self.workers, self._call_all(rank.read), strict=True))

    def close(self) -> None:
        """Drop the workers' replicas."""
        self.client.run(rank.close, self.run, workers=self.workers)

    def traffic(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return the messages and the bytes that each worker has sent to each other one, by their numbers."""
        found = enumerate(self._call_all(rank.traffic_of))
        return {(sender, to): sent for sender, row in found for to, sent in row.items()}

    def waited(self) -> list[float]:
        """Return the seconds in which each worker waited for others: for their messages, or for these to travel."""
        return self._call_all(rank.waited)


def options_of(threads: int, workers: int, asked: Asked = NOBODY) -> rank.Options:
    """Return what Dask's configuration says of this transport; raise InputError where it does not fit."""
    together = dask.config.get("daskconv.mpi.ranks-per-host")
    if together is not None and workers % check_count(together, "daskconv.mpi.ranks-per-host"):
        raise InputError(
            f"daskconv.mpi.ranks-per-host is {together} but there are {workers} workers: give a divisor of that."
        )
    deadline = float(dask.config.get("daskconv.mpi.deadline"))
    return rank.Options(threads, deadline, together, not dask.config.get("daskconv.mpi.exchanges"), asked)


def worker_ranks(client: Client) -> dict[str, int]:
    """Return the world rank of each worker; raise InputError where workers are no ranks of one MPI job."""
    worlds = client.run(_world, workers=worker_addresses(client))
    if any(world is None or world[1] < 3 for world in worlds.values()):
        raise InputError(
            "transport='mpi' needs workers that are ranks of this MPI job: start the script with "
            "mpiexec -n 3 or more and begin it with daskconv.start(), or use transport='dask'."
        )
    return {worker: number for worker, (number, _) in worlds.items()}


def _world() -> tuple[int, int] | None:
    """Return (rank, size) of this process in its MPI job, or None without mpi4py."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


def results_of(futures: list[Future]) -> list[Any]:
    """Return the results of finished futures; the ranks' one sentence where they failed."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    if not errors:
        return [future.result() for future in futures]
    named = next((error for error in errors if isinstance(error, WorkerError)), None)
    raise named or WorkerError(f"A task failed on a worker: {sentence_of(errors[0])}") from errors[0]
