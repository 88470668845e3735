"""The mpi transport of a split Program: one long task a worker runs an epoch's steps in step with all others.

Each rank holds its pieces of the weights and nothing else; values and sums travel by :mod:`daskconv.run.messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import ClassVar
from uuid import uuid4

import numpy as np
from distributed import Client, wait
from numpy.typing import NDArray

from daskconv.plan import tree
from daskconv.plan.pieces import Pieces, joined
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, TrainState
from daskconv.run import member
from daskconv.run.alike import check_alike
from daskconv.run.exchange import Mesh
from daskconv.run.mpi import MPITransport, options_of, results_of, worker_ranks
from daskconv.run.shards import images_of_workers
from daskconv.run.watch import NOBODY, Asked


class MPIShards(MPITransport):
    """Run a split Program on the workers that dask-mpi started."""

    tasks: ClassVar[ModuleType] = member

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
        self.program, self.client, self.data, self._whole = program, client, data, state
        self.run = f"daskconv-{uuid4().hex[:12]}"
        ranks = worker_ranks(client)
        self.workers = sorted(ranks, key=ranks.__getitem__)[: program.split.shards]
        check_alike(client, self.workers)
        world = tuple(ranks[worker] for worker in self.workers)
        shared = client.scatter([program, *data.values()], broadcast=True, hash=False)
        options, owners = (
            options_of(threads, len(world), asked),
            tree.owners(program.split.shards, len(world)),
        )
        futures = []
        for rank, worker in enumerate(self.workers):
            mesh = Mesh(owners, rank)
            # A worker is sent its own pieces only: none ever holds a whole weight that the plan splits.
            pieces = Pieces.cut(program.split, state, mesh.mine).without_split()
            pieces = client.scatter([pieces], workers=[worker], hash=False)[0]
            args = self.run, shared[0], pieces, list(data), shared[1:], mesh, world, options
            futures.append(
                client.submit(member.open_shards, *args, pure=False, workers=[worker], priority=10)
            )
        wait(futures)
        results_of(futures)

    def own_images(self, epoch: int) -> list[list[Indices]]:
        """Return the images of an epoch that each worker reads, where a cluster holds their chunks."""
        return images_of_workers(
            self.program, self.data["train"], self.data["train"].batches(epoch), len(self.workers)
        )

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set, which all workers take through their shards together."""
        found = self.data[data]
        self._deliver(
            data, images_of_workers(self.program, found, [np.arange(len(found))], len(self.workers))
        )
        return self._call_all(member.evaluate, data)[0]

    def state(self) -> TrainState:
        """Return the whole state, put together from the workers' pieces."""
        return joined(self._whole, self._call_all(member.pieces_of))
