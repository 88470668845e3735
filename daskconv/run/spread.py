"""How a run's state lies on its workers: a copy on each of them, or on each the pieces of its own shards."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from distributed import Future
from numpy.typing import NDArray

from daskconv.layout import even_parts
from daskconv.plan import tree
from daskconv.plan.pieces import Pieces, joined
from daskconv.plan.tasks import Indices, TrainState
from daskconv.run import member, replica
from daskconv.run.ahead import own_images
from daskconv.run.exchange import Mesh
from daskconv.run.loop import add_in_order
from daskconv.run.peers import World
from daskconv.run.rank import Options
from daskconv.run.shards import images_of_workers

if TYPE_CHECKING:
    from daskconv.run.gang import Gang


class Copies:
    """Each worker has the whole state, and takes every step itself from the sums of all."""

    tasks: ClassVar[ModuleType] = replica
    """Whose steps the workers run."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang

    def open(self, state: TrainState, world: World, options: Options) -> list[Future]:
        """Return the tasks that get the workers ready."""
        gang = self.gang
        program, root, *data = gang.share([gang.program, state, *gang.data.values()])
        args = program, root, list(gang.data), data, world, options
        return [gang.submit(worker, replica.open_replica, *args) for worker in gang.workers]

    def images(self, batches: Sequence[Indices]) -> list[list[Indices]]:
        """Return the images of some batches that each worker reads, where a cluster holds their chunks."""
        return own_images(self.gang.program, self.gang.data["train"], batches, len(self.gang.workers))

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set; each worker takes a run of its blocks."""
        gang = self.gang
        blocks = gang.program.evaluate_blocks(len(gang.data[data]))
        shares = [blocks[start:stop] for start, stop in even_parts(len(blocks), len(gang.workers))]
        gang.deliver(data, shares)
        futures = [
            gang.submit(worker, replica.evaluate, data, share)
            for worker, share in zip(gang.workers, shares, strict=True)
        ]
        return add_in_order(np.concatenate(gang.results(futures)))

    def state(self) -> TrainState:
        """Return a copy of the first worker's state; all are equal."""
        gang = self.gang
        return gang.results([gang.submit(gang.workers[0], replica.state_of)])[0]


class Parts:
    """Each worker has the pieces of its own shards: none ever holds a whole weight that the plan splits."""

    tasks: ClassVar[ModuleType] = member
    """Whose steps the workers run."""

    def __init__(self, gang: Gang) -> None:
        self.gang = gang

    def open(self, state: TrainState, world: World, options: Options) -> list[Future]:
        """Return the tasks that get the workers ready."""
        gang, split, self._whole = self.gang, self.gang.program.split, state
        assert split is not None
        program, *data = gang.share([gang.program, *gang.data.values()])
        owners = tree.owners(split.shards, len(gang.workers))
        futures = []
        for rank, worker in enumerate(gang.workers):
            mesh = Mesh(owners, rank)
            # The workers have the Split, and make it anew from the Program.
            (pieces,) = gang.share([Pieces.cut(split, state, mesh.mine).without_split()], [worker])
            args = program, pieces, list(gang.data), data, mesh, world, options
            futures.append(gang.submit(worker, member.open_shards, *args))
        return futures

    def images(self, batches: Sequence[Indices]) -> list[list[Indices]]:
        """Return the images of some batches that each worker reads, where a cluster holds their chunks."""
        return self._images("train", batches)

    def _images(self, data: str, batches: Sequence[Indices]) -> list[list[Indices]]:
        return images_of_workers(self.gang.program, self.gang.data[data], batches, len(self.gang.workers))

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set, which all workers take through their shards together."""
        self.gang.deliver(data, self._images(data, [np.arange(len(self.gang.data[data]))]))
        return self.gang.call_all(member.evaluate, data)[0]

    def state(self) -> TrainState:
        """Return the whole state, put together from the workers' pieces."""
        return joined(self._whole, self.gang.call_all(member.pieces_of))
