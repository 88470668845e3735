"""A process's own sums: each gradient of its blocks is added up as it comes, while other layers' are missing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from dask._task_spec import DataNode, Task
from numpy.typing import NDArray

from daskconv.graph.threads import execute, one_thread_each
from daskconv.plan import tree
from daskconv.plan.buckets import Range, buckets
from daskconv.plan.program import DATA, STATE, Program
from daskconv.plan.tasks import (
    Data,
    Indices,
    Partial,
    Places,
    TrainState,
    add_into,
    block_partial,
    block_sums,
)

Ready = Callable[[int, tree.Span], None]
"""Called with (bucket, subtree) once the bucket's sum over the subtree is complete."""

# Besides gradients, which have names, a block has one array of other sums.
_OTHERS = ""


class BlockSums:
    """The sums of some subtrees of shards, step after step.

    Their adds are those of :meth:`Program.subtree_graph`, but each is done for one gradient as soon as both sides have
    that, by the thread that comes last; so they have the same bits. What has been added is let go: besides a subtree's
    sum, memory holds only gradients whose other side is not there yet.

    Attributes
    ----------
    ranges : list of Range
        The buckets; after them comes one of what is no gradient.
    totals : dict of Partial
        The sum of each subtree, valid until the next step.
    """

    def __init__(
        self,
        program: Program,
        spans: Sequence[tree.Span],
        threads: int,
        ready: Ready = lambda bucket, span: None,
    ) -> None:
        self.program, self.threads, self._ready = program, threads, ready
        self.ranges: list[Range] = list(buckets(program))
        self.totals = {
            span: Partial(np.empty(program.elements, program.dtype), np.zeros(program.sums_size))
            for span in spans
        }
        self._buckets = {
            name: [at for at, (start, stop) in enumerate(self.ranges) if a < stop and start < b]
            for name, (a, b) in program.places.items()
        }
        self._buckets[_OTHERS] = [len(self.ranges)]
        self._lock = threading.Lock()

    def run(self, state: TrainState, data: Data, indices: Indices, epoch: int) -> None:
        """Run the blocks of a step; on return all sums are complete."""
        graph: dict[Hashable, Any] = {STATE: DataNode(STATE, state), DATA: DataNode(DATA, data)}
        self._parents: dict[Hashable, tuple[Hashable, Hashable, bool]] = {}
        self._waiting: dict[tuple[str, Hashable], NDArray] = {}
        self._roots = {("sum", *span): span for span in self.totals}
        self._missing = Counter(
            (bucket, span) for span in self.totals for found in self._buckets.values() for bucket in found
        )
        ends = []
        spread = self.program.spread_threads(list(self.totals), indices, self.threads)
        for span, total in self.totals.items():
            # All others are added to the first block, from the left: its gradients lie where the sum will be.
            places = self.program.unflatten(total.gradient)
            for key, task in self.program.subtree_graph(span, indices, epoch, self.threads, spread).items():
                if task.func is add_into:
                    left, right = (reference.key for reference in task.args)
                    self._parents[left], self._parents[right] = (key, right, True), (key, left, False)
                else:
                    assert task.func is block_partial
                    graph[key] = Task(key, _run_block, Block(self, key, places), *task.args)
                    ends.append(key)
                    places = {}
        with one_thread_each():
            execute(graph, ends, self.threads)

    def arrive(self, key: Hashable, name: str, array: NDArray) -> None:
        """Add an array of a block up as far as both sides are there."""
        while key not in self._roots:
            parent, sibling, is_left = self._parents[key]
            with self._lock:
                other = self._waiting.pop((name, sibling), None)
                if other is None:
                    self._waiting[name, key] = array
                    return
            left, right = (array, other) if is_left else (other, array)
            np.add(left, right, out=left)
            key, array = parent, left
        span = self._roots[key]
        if name == _OTHERS:
            self.totals[span].sums = array
        with self._lock:
            self._missing.subtract((bucket, span) for bucket in self._buckets[name])
            complete = [bucket for bucket in self._buckets[name] if not self._missing[bucket, span]]
        for bucket in complete:
            self._ready(bucket, span)


class Block(Places):
    """The places of a block's gradients, made as layers ask for them; what is set goes on to the sums.

    Parameters
    ----------
    sums : BlockSums
    key : hashable
        The block's in the step's graph.
    places : dict of array
        Those that are there already.
    """

    def __init__(self, sums: BlockSums, key: Hashable, places: dict[str, NDArray]) -> None:
        super().__init__(places)
        self._sums, self._key, self._shapes = sums, key, dict(sums.program.vector_shapes)

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def __getitem__(self, name: str) -> NDArray:
        """Return a gradient's place, with any numbers in it."""
        if name not in self.places:
            self.places[name] = np.empty(self._shapes[name], self._sums.program.dtype)
        return self.places[name]

    def __setitem__(self, name: str, gradient: NDArray) -> None:
        super().__setitem__(name, gradient)
        del self._shapes[name]
        self._sums.arrive(self._key, name, self.places.pop(name))

    def end(self, others: NDArray[np.float64]) -> None:
        """Take what no layer has set, parameters that the loss does not depend on, and the block's other sums."""
        for name, shape in list(self._shapes.items()):
            self[name] = np.zeros(shape, self._sums.program.dtype)
        self._sums.arrive(self._key, _OTHERS, others)


def _run_block(block: Block, *args: Any) -> None:
    block.end(block_sums(*args, block))  # type: ignore[call-arg]
