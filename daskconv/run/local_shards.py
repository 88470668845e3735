"""The local transport of a split Program: all shards in this process, in step with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from daskconv.graph.threads import one_thread_each
from daskconv.plan.pieces import Pieces, joined
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Position, TrainState
from daskconv.run.exchange import Mesh
from daskconv.run.local import emit_position
from daskconv.run.shards import Shards
from daskconv.run.transport import begin


class LocalShards:
    """Run a split Program in this process."""

    name = "local"

    def __init__(self, program: Program, state: TrainState, data: Mapping[str, Data], threads: int) -> None:
        assert program.split is not None
        self.program, self.data, self._whole = program, data, state
        shards = program.split.shards
        pieces = Pieces.cut(program.split, state, range(shards))
        self.shards = Shards(program, pieces, Mesh((0,) * shards), threads)
        self._stepped = False

    def run_epoch(self, epoch: int, stopped: Callable[[], bool]) -> Position:
        """Run the epoch's steps here."""
        self._stepped = True
        return run_steps(self.shards, self.data["train"], epoch, stopped, emit_position)

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set."""
        return evaluate(self.shards, self.data[data])

    def state(self) -> TrainState:
        """Return the whole state, put together from the pieces."""
        return joined(self._whole, [self.shards.pieces])

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that this process computed."""
        return {"local": list(range(len(self.shards.mesh.owners))) if self._stepped else []}

    def close(self) -> None:
        """Do nothing: the threads are the process's."""


def run_steps(
    shards: Shards,
    data: Data,
    epoch: int,
    stopped: Callable[[], bool],
    done: Callable[[Position, int], None],
) -> Position:
    """Run an epoch from where the pieces stand in it; ``done`` gets the position, and the steps, after each step."""
    batches, pieces = data.batches(epoch), shards.pieces
    pieces.position = begin(TrainState({}, {}, pieces.position), epoch).position
    with one_thread_each():
        while pieces.position.step < len(batches):
            step = pieces.position.step
            rate = shards.program.rate(epoch, step, len(batches))
            shards.step(data, batches[step], epoch, rate)
            done(pieces.position, len(batches))
            if shards.anyone(stopped()):
                break
    return pieces.position


def evaluate(shards: Shards, data: Data) -> NDArray[np.float64]:
    """Return the sums over a data set, taken through the shards in batches."""
    total = np.zeros(shards.program.sums_size)
    with one_thread_each():
        for indices in batches_of(len(data), shards.program.batch_size):
            total += shards.evaluate(data, indices)
    return total


def batches_of(images: int, size: int) -> list[Indices]:
    """Return the numbers of images in batches of a size; the last one may be short."""
    return [np.arange(start, min(start + size, images)) for start in range(0, images, size)]
