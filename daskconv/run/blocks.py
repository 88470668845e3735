"""A rank's own sums: the gradients of its blocks, added up bucket by bucket while later layers' are still missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from dask._task_spec import DataNode, Task
from numpy.typing import NDArray

from daskconv.graph.threads import execute, one_thread_each
from daskconv.plan import tree
from daskconv.plan.buckets import Range, buckets
from daskconv.plan.program import DATA, STATE, Program
from daskconv.plan.tasks import Data, FlatGradients, Indices, TrainState, add_into, block_partial

Ready = Callable[[int, tree.Span, "Vector"], None]
"""Called with (bucket, subtree, vector) once the bucket's sum over the subtree is complete."""


@dataclass
class Vector(FlatGradients):
    """A block's gradients, which tell of each bucket that is complete.

    Attributes
    ----------
    sums : array of float64
        The block's other sums.
    told : function of (bucket)
    """

    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    told: Callable[[int], None] = lambda bucket: None
    missing: list[set[str]] = field(default_factory=list)
    readers: int = 0

    def __setitem__(self, name: str, gradient: NDArray) -> None:
        super().__setitem__(name, gradient)
        for bucket, names in enumerate(self.missing):
            if name in names:
                names.remove(name)
                if not names:
                    self.told(bucket)

    def tell_the_rest(self) -> None:
        """Tell of what no layer has set: parameters that the loss does not depend on."""
        for bucket, names in enumerate(self.missing):
            if names:
                names.clear()
                self.told(bucket)


class BlockSums:
    """The sums of some subtrees of shards, step after step.

    Their adds are those of :meth:`Program.subtree_graph`, but each is done for one bucket as soon as both sides have
    that, by the thread that comes last; so they have the same bits. Vectors are used again and again.
    """

    def __init__(self, program: Program, spans: Sequence[tree.Span], threads: int, ready: Ready) -> None:
        self.program, self.spans, self.threads, self.ready = program, spans, threads, ready
        self.ranges: list[Range] = list(buckets(program))
        self._names = [
            {name for name, (a, b) in program.places.items() if a < stop and start < b}
            for start, stop in self.ranges
        ]
        self._lock = threading.Lock()
        self._free: list[Vector] = []

    def run(self, state: TrainState, data: Data, indices: Indices, epoch: int) -> None:
        """Run the blocks of a step; on return all that is ready has been told."""
        graph: dict[Hashable, Any] = {STATE: DataNode(STATE, state), DATA: DataNode(DATA, data)}
        self._parents: dict[Hashable, tuple[Hashable, Hashable, bool]] = {}
        self._waiting: dict[tuple[int, Hashable], Vector] = {}
        self._roots = {("sum", *span): span for span in self.spans}
        ends = []
        spread = self.program.spread_threads(self.spans, indices, self.threads)
        for span in self.spans:
            for key, task in self.program.subtree_graph(span, indices, epoch, self.threads, spread).items():
                if task.func is add_into:
                    left, right = (reference.key for reference in task.args)
                    self._parents[left], self._parents[right] = (key, right, True), (key, left, False)
                else:
                    assert task.func is block_partial
                    graph[key] = Task(key, _run_block, self, key, *task.args)
                    ends.append(key)
        with one_thread_each():
            execute(graph, ends, self.threads)

    def give_back(self, vectors: Sequence[Vector]) -> None:
        """Take vectors back that nobody reads any more."""
        with self._lock:
            self._free += vectors

    def vector(self, key: Hashable) -> Vector:
        """Return a vector for a block, with any numbers in it."""
        with self._lock:
            vector = self._free.pop() if self._free else None
        if vector is None:
            flat = self.program.flat_gradients()
            vector = Vector(flat.places, flat.vector)
        vector.missing = [set(names) for names in self._names]
        vector.told = lambda bucket: self._arrive(bucket, key, vector)
        vector.readers = len(self.ranges) + 1
        return vector

    def end(self, vector: Vector, sums: NDArray[np.float64]) -> None:
        """Take a block's other sums, after its gradients."""
        vector.tell_the_rest()
        vector.sums = sums
        vector.told(len(self.ranges))

    def _arrive(self, bucket: int, key: Hashable, vector: Vector) -> None:
        """Add a bucket up as far as both sides are there."""
        while key not in self._roots:
            parent, sibling, is_left = self._parents[key]
            with self._lock:
                other = self._waiting.pop((bucket, sibling), None)
                if other is None:
                    self._waiting[bucket, key] = vector
                    return
            left, right = (vector, other) if is_left else (other, vector)
            into, what = self.part(left, bucket), self.part(right, bucket)
            np.add(into, what, out=into)
            self._done_with(right)
            key, vector = parent, left
        self.ready(bucket, self._roots[key], vector)

    def part(self, vector: Vector, bucket: int) -> NDArray:
        """Return one bucket of a vector; after the gradients' come the other sums."""
        if bucket == len(self.ranges):
            return vector.sums
        start, stop = self.ranges[bucket]
        return vector.vector[start:stop]

    def _done_with(self, vector: Vector) -> None:
        with self._lock:
            vector.readers -= 1
            if not vector.readers:
                self._free.append(vector)


def _run_block(sums: BlockSums, key: Hashable, *args: Any) -> None:
    vector = sums.vector(key)
    partial = block_partial(*args, vector)  # type: ignore[call-arg]
    sums.end(vector, partial.sums)
