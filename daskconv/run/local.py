"""The local transport: all shards in this process, on its threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from daskconv.events import emit
from daskconv.kernels import heap
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, Position, TrainState
from daskconv.run.ahead import reading_ahead
from daskconv.run.blocks import BlockSums
from daskconv.run.loop import add_in_order, evaluate_blocks, run_steps
from daskconv.run.watch import NOBODY, Asked, Watch


class LocalTransport:
    """Run a Program in this process."""

    name = "local"

    def __init__(
        self,
        program: Program,
        state: TrainState,
        data: Mapping[str, Data],
        threads: int,
        asked: Asked = NOBODY,
    ) -> None:
        self.program, self.data, self.threads = program, data, threads
        self.watch = Watch(program, emit, asked, threads=threads, interval=0)
        self._state, self._shared = state, False
        self._root = (0, program.shards)
        self._sums = BlockSums(program, [self._root], threads)
        self._computed: set[int] = set()

    def run_epoch(self, epoch: int, stopped: Callable[[], bool], until: int | None = None) -> Position:
        """Run the epoch's steps here."""

        def compute(program: Program, state: TrainState, data: Data, indices: Indices, epoch: int) -> None:
            self._sums.run(state, data, indices, epoch)

        def exchange(parts: None, stop: bool) -> tuple[Partial, bool]:
            self._computed.update(range(*self._root))
            return self._sums.totals[self._root], stop

        def keep(state: TrainState, steps: int) -> None:
            self._state = state
            self.watch.done(state.position, steps)

        if self._shared:
            # Whoever else has the state keeps it as it is; steps change it in place.
            self._state, self._shared = self._state.copy(), False
        with reading_ahead(self.program, self.data["train"], epoch, [self._root], self._state, until) as data:
            steps = (self.program, self._state, data, epoch, compute, exchange, stopped, keep)
            return run_steps(*steps, self.watch, until).position

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set."""
        blocks = self.program.evaluate_blocks(len(self.data[data]))
        rows = evaluate_blocks(self.program, self._state, self.data[data], blocks, self.threads)
        return add_in_order(rows)

    def state(self) -> TrainState:
        """Return the state, which stays as it is."""
        self._shared = True
        return self._state

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that this process computed."""
        return {"local": sorted(self._computed)}

    def read(self) -> dict[str, InputRead]:
        """Return what this process has read."""
        return {"local": self.data["train"].count.read}

    def close(self) -> None:
        """Give memory back: the threads are the process's."""
        heap.release()
