"""The mpi transport: a gang of workers that are ranks of an MPI job, and exchange arrays by MPI.

See :mod:`daskconv.run.replica` and :mod:`daskconv.run.member` for what a rank does, :mod:`daskconv.run.reduce` for how
sums travel, :mod:`daskconv.run.messages` for how anything does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dask
import numpy as np
from distributed import Client, Future, wait
from numpy.typing import NDArray

from daskconv.errors import InputError, check_count
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Position, TrainState
from daskconv.run.alike import check_alike
from daskconv.run.gang import Gang, failure_of
from daskconv.run.losses import worker_addresses
from daskconv.run.patience import deadline
from daskconv.run.peers import MPIWorld
from daskconv.run.rank import Options
from daskconv.run.watch import NOBODY, Asked


class MPITransport(Gang):
    """Run a Program on the workers that dask-mpi started."""

    name = "mpi"

    def __init__(
        self,
        program: Program,
        state: TrainState,
        data: Mapping[str, Data],
        client: Client,
        threads: int,
        asked: Asked = NOBODY,
    ) -> None:
        super().__init__(program, data, client, threads)
        self._position = state.position
        ranks = worker_ranks(client)
        # A worker without shards would have no part in the steps.
        workers = sorted(ranks, key=ranks.__getitem__)[: program.shards]
        check_alike(client, workers)
        world = MPIWorld(tuple(ranks[worker] for worker in workers))
        self.gather_in(workers, world, options_of(threads, len(workers), asked), state)

    def run_epoch(self, epoch: int, stopped: Callable[[], bool], until: int | None = None) -> Position:
        """Run the epoch, or its steps up to ``until``, as one task a worker, and wait for all of them."""
        first = self._position.step if self._position.epoch == epoch else 0
        self._position = self.run_steps(epoch, first, until, stopped)
        return self._position

    def results(self, futures: Sequence[Future]) -> list[Any]:
        """Wait for tasks and return their results; raise the ranks' one sentence where they failed."""
        wait(futures)
        if (failure := failure_of(futures)) is not None:
            raise failure
        return [future.result() for future in futures]

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set."""
        return self.sums(data)

    def state(self) -> TrainState:
        """Return a copy of the workers' state."""
        return self.spread.state()

    def hand_over(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Return what a function returns on each worker, which is given copies of its pieces of the state."""
        return self.call_all(self.spread.tasks.hand_over, function, *args)

    def ask(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Return what a function returns on each worker, beside its steps."""
        answers = self.client.run(function, *args, workers=self.workers)
        return [answers[worker] for worker in self.workers]

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that each worker computed."""
        return self.computed()


def options_of(threads: int, workers: int, asked: Asked = NOBODY) -> Options:
    """Return what Dask's configuration says of this transport; raise InputError where it does not fit."""
    together = dask.config.get("daskconv.mpi.ranks-per-host")
    if together is not None and workers % check_count(together, "daskconv.mpi.ranks-per-host"):
        raise InputError(
            f"daskconv.mpi.ranks-per-host is {together} but there are {workers} workers: give a divisor of that."
        )
    alone = not dask.config.get("daskconv.mpi.exchanges")
    return Options(threads, deadline(), together, alone, asked)


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
