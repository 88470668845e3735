"""The local transport of a split Program: all shards in this process, in step with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from daskconv.events import emit
from daskconv.kernels import heap
from daskconv.plan.input import InputRead
from daskconv.plan.pieces import Pieces, joined
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Position, TrainState
from daskconv.run.ahead import Ahead
from daskconv.run.exchange import Mesh, Result, Steps, drive
from daskconv.run.shards import Shards
from daskconv.run.transport import begin
from daskconv.run.watch import NOBODY, Asked, Watch


class LocalShards:
    """Run a split Program in this process."""

    name = "local"

    def __init__(
        self,
        program: Program,
        state: TrainState,
        data: Mapping[str, Data],
        threads: int,
        asked: Asked = NOBODY,
    ) -> None:
        assert program.split is not None
        self.program, self.data, self._whole = program, data, state
        shards = program.split.shards
        pieces = Pieces.cut(program.split, state, range(shards))
        self.shards = Shards(program, pieces, Mesh((0,) * shards), threads)
        self.watch = Watch(program, emit, asked, threads=threads, interval=0)
        self._stepped = False

    def run_epoch(self, epoch: int, stopped: Callable[[], bool], until: int | None = None) -> Position:
        """Run the epoch's steps here."""
        self._stepped = True
        steps = epoch_steps(
            self.shards, self.data["train"], epoch, stopped, self.watch.done, self.watch, until
        )
        return drive(steps)

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set."""
        return drive(evaluation(self.shards, self.data[data]))

    def state(self) -> TrainState:
        """Return the whole state, put together from the pieces."""
        return joined(self._whole, [self.shards.pieces])

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that this process computed."""
        return {"local": list(range(len(self.shards.mesh.owners))) if self._stepped else []}

    def read(self) -> dict[str, InputRead]:
        """Return what this process has read."""
        return {"local": self.data["train"].count.read}

    def close(self) -> None:
        """Give memory back: the threads are the process's."""
        heap.release()


def epoch_steps(
    shards: Shards,
    data: Data,
    epoch: int,
    stopped: Callable[[], bool],
    done: Callable[[Position, int], None],
    watch: Watch,
    until: int | None = None,
) -> Steps[Position]:
    """Run an epoch, or its steps up to ``until``, from where the pieces stand in it.

    ``done`` gets the position, and the epoch's steps, after each step.
    """
    batches, pieces, stop = data.batches(epoch), shards.pieces, False
    pieces.position = begin(TrainState({}, {}, pieces.position), epoch).position
    steps = range(pieces.position.step, min(until or len(batches), len(batches)))
    with closing(
        Ahead(data, lambda step: shards.blocks(batches[step]), steps if data.ahead else steps[:0])
    ) as ahead:
        while pieces.position.step < steps.stop and not stop:
            step = pieces.position.step
            rate = shards.program.rate(epoch, step, len(batches))
            watch.begin(epoch, step, len(batches), len(batches[step]))
            work = shards.step(ahead, batches[step], epoch, rate, stopped())
            stop = yield from stretches(work, watch)
            watch.end()
            done(pieces.position, len(batches))
    return pieces.position


def stretches(work: Steps[Result], watch: Watch) -> Steps[Result]:
    """Do work stretch by stretch, each watched; in between it stands still while arrays travel."""
    while True:
        with watch.working():
            try:
                pending = next(work)
            except StopIteration as end:
                return end.value
        yield pending


def evaluation(
    shards: Shards, data: Data, beat: Callable[[], None] = lambda: None
) -> Steps[NDArray[np.float64]]:
    """Return the sums over a data set, taken through the shards in batches; ``beat`` hears of each."""
    program = shards.program
    total, size = np.zeros(program.sums_size), program.batch_size // program.batches
    for start in range(0, len(data), size):
        total += yield from shards.evaluate(data, np.arange(start, min(start + size, len(data))))
        beat()
    return total
