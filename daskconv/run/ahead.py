"""Reading ahead: while a step runs, a thread reads, augments and normalises the next one's blocks of images.

The thread reads the blocks that the step's own threads would read, one by one, so the bits are the same. A block that
it has not begun when a step needs it is read by the step's threads, as without it. A thread that nobody needs for a
while ends; the next block that is taken starts another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from daskconv.graph.threads import one_thread_each, step_back
from daskconv.plan import tree
from daskconv.plan.boxes import Box
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, TrainState
from daskconv.run.transport import begin

_IDLE = 10.0  # seconds


Block = tuple[Indices, Box | None]
_Name = tuple[int, int, Any]


class Ahead:
    """A data set whose next blocks are being read.

    Parameters
    ----------
    data : Data
    blocks_of : function
        The blocks of a step, by its number: images, and which part of them, None for all.
    steps : range
        The steps, in order.
    """

    def __init__(self, data: Data, blocks_of: Callable[[int], list[Block]], steps: range) -> None:
        self.data, self.blocks_of, self.steps = data, blocks_of, steps
        self.ahead, self.count = data.ahead, data.count
        self._planned = steps.start
        self._step_of: dict[_Name, int] = {}
        self._left: dict[_Name, tuple[Indices, int | None, Box | None]] = {}
        self._begun: dict[_Name, Future[Any]] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self.data)

    def chunks(self, indices: Sequence[Indices]) -> Mapping[int, Any]:
        """Return the chunks of some images, where a cluster holds them."""
        return self.data.chunks(indices)

    def hold(self, by: Hashable, chunks: Mapping[int, NDArray]) -> None:
        """Take the chunks that a task was given."""
        self.data.hold(by, chunks)

    def batches(self, epoch: int) -> Sequence[Indices]:
        """Return the image numbers of each step of an epoch."""
        return self.data.batches(epoch)

    def take(self, indices: Indices, epoch: int | None = None, box: Box | None = None) -> Any:
        """Return a block's images, targets and weights, and let the thread read the blocks of the next step."""
        if not len(indices):
            return self._read_now(indices, epoch, box)
        started = perf_counter()
        with self._change:
            block = _name(indices, box)
            self._plan(self._step_of.get(block, self.steps.start), epoch)
            self._step_of.pop(block, None)
            self._left.pop(block, None)
            found = self._begun.pop(block, None)
            self._start()
        try:
            return self._read_now(indices, epoch, box) if found is None else found.result()
        finally:
            self.count.add(seconds=perf_counter() - started)

    def _read_now(self, indices: Indices, epoch: int | None, box: Box | None) -> Any:
        return self.data.take(indices, epoch) if box is None else self.data.take(indices, epoch, box)

    def close(self) -> None:
        """Return once the thread has ended."""
        with self._change:
            self._closed, thread = True, self._thread
            self._change.notify()
        if thread is not None:
            thread.join()

    def _plan(self, step: int, epoch: int | None) -> None:
        """Let the blocks be read of steps that come soon; forget those of steps that were left out."""
        while self._planned < min(step + self.ahead + 1, self.steps.stop):
            for indices, box in self.blocks_of(self._planned):
                if len(indices):
                    self._left[_name(indices, box)] = indices, epoch, box
                    self._step_of[_name(indices, box)] = self._planned
            self._planned += 1
        for block in [block for block, of in self._step_of.items() if of < step - 1]:
            for known in (self._step_of, self._left, self._begun):
                known.pop(block, None)

    def _start(self) -> None:
        if self._thread is not None:
            self._change.notify()
        elif self._left and not self._closed:
            self._thread = threading.Thread(target=self._read, name="daskconv-ahead", daemon=True)
            self._thread.start()

    def _read(self) -> None:
        step_back()
        with one_thread_each():
            while (claimed := self._claim()) is not None:
                block, indices, epoch, box = claimed
                try:
                    block.set_result(self._read_now(indices, epoch, box))
                except BaseException as error:
                    block.set_exception(error)

    def _claim(self) -> tuple[Future[Any], Indices, int | None, Box | None] | None:
        with self._change:
            self._change.wait_for(lambda: self._left or self._closed, _IDLE)
            if self._closed or not self._left:
                self._thread = None
                return None
            block = next(iter(self._left))
            indices, epoch, box = self._left.pop(block)
            self._begun[block] = Future()
            return self._begun[block], indices, epoch, box


def _name(indices: Indices, box: Box | None) -> _Name:
    """Return a block's name: no image comes twice in the same epoch, but blocks may begin with the same one."""
    return int(indices[0]), len(indices), box


@contextmanager
def reading_ahead(
    program: Program,
    data: Data,
    epoch: int,
    spans: list[tree.Span],
    state: TrainState,
    until: int | None = None,
) -> Iterator[Data]:
    """Yield the data, which reads the blocks of some subtrees of shards ahead of an epoch's steps."""
    ahead = steps_ahead(program, data, epoch, spans, state, until)
    try:
        yield ahead
    finally:
        ahead.close()


def steps_ahead(
    program: Program,
    data: Data,
    epoch: int,
    spans: list[tree.Span],
    state: TrainState,
    until: int | None = None,
) -> Ahead:
    """Return the data, which reads ahead of the steps that follow a state, to ``until``; close it in the end."""
    batches = data.batches(epoch)

    def blocks_of(step: int) -> list[Block]:
        shards = program.shard_indices(batches[step])
        own = [shards[shard] for span in spans for shard in range(*span)]
        return [(block, None) for indices in own for block in program.blocks_of(indices)]

    first = begin(state, epoch).position.step
    last = min(until or len(batches), len(batches)) if data.ahead else first
    return Ahead(data, blocks_of, range(first, last))


def blocks_ahead(data: Data, blocks: Sequence[Indices], threads: int) -> Ahead:
    """Return the data, which reads blocks ahead of threads that take them in turn; close it in the end."""
    steps = range(-(-len(blocks) // threads) if data.ahead else 0)
    return Ahead(
        data, lambda step: [(block, None) for block in blocks[step * threads : (step + 1) * threads]], steps
    )


def own_images(program: Program, data: Data, batches: Sequence[Indices], workers: int) -> list[list[Indices]]:
    """Return the images of some batches that each of the workers reads, where a cluster holds their chunks."""
    own = [list[Indices]() for _ in range(workers)]
    for batch in batches if data.chunks(batches[:1]) else []:
        shards = program.shard_indices(batch)
        for span, worker in tree.shares(program.shards, workers):
            own[worker] += shards[slice(*span)]
    return own
