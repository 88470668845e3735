"""The sum over all shards of a step, among ranks: each bucket's exchange begins while the backward pass goes on.

MPI moves and daskconv adds, in the tree's order: see :mod:`daskconv.plan.buckets`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.plan import tree
from daskconv.plan.buckets import Level, levels, slices, sums_size
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, TrainState
from daskconv.run.blocks import BlockSums, Vector
from daskconv.run.moves import Carrier, Move, Pending

Arrays = dict[tree.Span, NDArray]


class Reduction:
    """A rank's part of all steps' sums.

    Parameters
    ----------
    program : Program
    hosts : sequence of int
        The host of each rank.
    rank : int
    threads : int
    alone : bool
        Leave the exchanges out, to measure what they cost: every rank goes on with a sum of its own, which is wrong.
    """

    def __init__(
        self, program: Program, hosts: Sequence[int], rank: int, threads: int, alone: bool = False
    ) -> None:
        self.program, self.rank = program, rank
        self.own = tuple(span for span, owner in tree.shares(program.shards, len(hosts)) if owner == rank)
        self.levels = () if alone else levels(program.shards, hosts, rank)
        self.blocks = BlockSums(program, self.own, threads, self._ready)
        self.last = len(self.blocks.ranges)
        self.total = Partial(np.empty(0, program.dtype), np.zeros(sums_size(program)))
        if self.levels:
            self.total.gradient = np.empty(program.elements, program.dtype)
        self._buffers: dict[Any, NDArray] = {}
        self._lock = threading.Lock()

    def compute(self, state: TrainState, data: Data, indices: Indices, epoch: int, messages: Carrier) -> None:
        """Run this rank's blocks; what is complete is on its way when this returns."""
        self.messages, self.pending = messages, list[Pending]()
        self._found: list[dict[tree.Span, Vector]] = [{} for _ in range(self.last + 1)]
        for bucket in () if self.own else range(self.last):
            self._start(bucket)
        self.blocks.run(state, data, indices, epoch)

    def finish(self, stop: bool) -> tuple[Partial, bool]:
        """Return the sum over all shards, valid until the next step, and whether anyone wants to stop."""
        vectors = self._found[self.last]
        # The wish is one more sum; ranks without shards have no say.
        arrays = {span: np.append(vectors[span].sums, float(stop)) for span in self.own}
        self.pending.append(self.messages.start(self._all_reduce(self.last, 0, arrays, self.total.sums)))
        for pending in self.pending:
            pending.wait()
        if not self.levels:
            self.total.gradient = vectors[self.own[0]].vector
        self.blocks.give_back(list(vectors.values()))
        return Partial(self.total.gradient, self.total.sums[:-1]), bool(self.total.sums[-1])

    def _ready(self, bucket: int, span: tree.Span, vector: Vector) -> None:
        """Begin a bucket's exchange once this rank has it of all its subtrees."""
        with self._lock:
            self._found[bucket][span] = vector
            complete = len(self._found[bucket]) == len(self.own)
        if complete and bucket < self.last and self.levels:
            self._start(bucket)

    def _start(self, bucket: int) -> None:
        start, stop = self.blocks.ranges[bucket]
        # In the order in which the others expect the subtrees, whatever came first.
        arrays = {span: self._found[bucket][span].vector[start:stop] for span in self.own}
        exchange = self._all_reduce(bucket, 0, arrays, self.total.gradient[start:stop])
        self.pending.append(self.messages.start(exchange))

    def _all_reduce(self, bucket: int, depth: int, arrays: Arrays, out: NDArray) -> Iterator[Move]:
        """Leave in ``out`` the sum of a range over all shards, from that of this rank's subtrees, which it uses up."""
        if depth == len(self.levels):
            out[...] = next(iter(arrays.values()))
            return
        level, tag = self.levels[depth], 4 * bucket + 2 * depth
        cuts = slices(len(out), out.nbytes, len(level.ranks))
        start, stop = cuts[level.ranks.index(self.rank)]
        others = [(r, *cut) for r, cut in zip(level.ranks, cuts, strict=True) if r != self.rank]
        parts = self._parts(bucket, level, arrays, start, stop)
        yield Move(
            [(r, tag, array[a:b]) for r, a, b in others for array in arrays.values()],
            [(r, tag, parts[span]) for r, _, _ in others for span in level.spans[level.ranks.index(r)]],
        )
        joined = {span: join_into(span, parts) for span in level.joined}
        yield from self._all_reduce(bucket, depth + 1, joined, out[start:stop])
        if cuts[0] != cuts[-1]:
            yield Move(
                [(r, tag + 1, out[start:stop]) for r, _, _ in others],
                [(r, tag + 1, out[a:b]) for r, a, b in others],
            )

    def _parts(self, bucket: int, level: Level, arrays: Arrays, start: int, stop: int) -> Arrays:
        """Return this rank's slice of all subtrees of a level: its own, and where the others' come to."""
        parts = {}
        for span in (span for spans in level.spans for span in spans):
            if span in arrays:
                parts[span] = arrays[span][start:stop]
                continue
            key = bucket, level.ranks, span
            if key not in self._buffers:
                dtype = np.float64 if bucket == self.last else self.program.dtype
                self._buffers[key] = np.empty(stop - start, dtype)
            parts[span] = self._buffers[key]
        return parts


def join_into(span: tree.Span, parts: Arrays) -> NDArray:
    """Return a subtree's sum from those of its parts, added in the tree's order into the leftmost."""
    if span in parts:
        return parts[span]
    left, right = (join_into(half, parts) for half in tree.halves(span))
    return np.add(left, right, out=left)
