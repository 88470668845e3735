"""The sum over all shards of a step, among ranks: each bucket's exchange begins while the backward pass goes on.

See :mod:`daskconv.plan.buckets` and :mod:`daskconv.run.allreduce`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.plan import tree
from daskconv.plan.allreduce import is_whole, meetings, rounds
from daskconv.plan.buckets import sums_size
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, TrainState
from daskconv.run.allreduce import all_reduce
from daskconv.run.blocks import BlockSums
from daskconv.run.moves import Carrier, Pending


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
        owners = tree.owners(program.shards, len(hosts))
        self.root = meetings(owners, None, tuple(hosts))
        self.own = tuple(leaf.span for leaf in self.root.leaves_of(rank))
        self.height = 0 if alone else self.root.height
        self.blocks = BlockSums(program, self.own, threads, self._ready)
        self.last = len(self.blocks.ranges)
        self.total = Partial(np.empty(0, program.dtype), np.zeros(sums_size(program)))
        if self.height:
            self.total.gradient = np.empty(program.elements, program.dtype)
        self._buffers: dict[Any, NDArray] = {}
        self._lock = threading.Lock()

    def compute(self, state: TrainState, data: Data, indices: Indices, epoch: int, messages: Carrier) -> None:
        """Run this rank's blocks; what is complete is on its way when this returns."""
        self.messages, self.pending = messages, list[Pending]()
        self._missing = [len(self.own)] * self.last
        self.blocks.run(state, data, indices, epoch)

    def finish(self, stop: bool) -> tuple[Partial, bool]:
        """Return the sum over all shards, valid until the next step, and whether anyone wants to stop."""
        # The wish is one more sum.
        arrays = {span: np.append(own.sums, float(stop)) for span, own in self.blocks.totals.items()}
        self._start(self.last, arrays, self.total.sums)
        for pending in self.pending:
            pending.wait()
        if not self.height:
            self.total.gradient = self.blocks.totals[self.own[0]].gradient
        return Partial(self.total.gradient, self.total.sums[:-1]), bool(self.total.sums[-1])

    def _ready(self, bucket: int, span: tree.Span) -> None:
        """Begin a bucket's exchange once this rank has it of all its subtrees."""
        if bucket == self.last or not self.height:
            return
        with self._lock:
            self._missing[bucket] -= 1
            complete = not self._missing[bucket]
        if complete:
            start, stop = self.blocks.ranges[bucket]
            # In the order in which the others expect the subtrees, whatever came first.
            arrays = {span: own.gradient[start:stop] for span, own in self.blocks.totals.items()}
            self._start(bucket, arrays, self.total.gradient[start:stop])

    def _start(self, bucket: int, arrays: Mapping[tree.Span, NDArray], out: NDArray) -> None:
        way = rounds(self.root, self.rank, len(out), is_whole(out.nbytes)) if self.height else ()

        def buffer(span: tree.Span, size: int) -> NDArray:
            if (bucket, span) not in self._buffers:
                self._buffers[bucket, span] = np.empty(size, out.dtype)
            return self._buffers[bucket, span]

        exchange = all_reduce(self.rank, way, arrays, bucket, out, buffer)
        self.pending.append(self.messages.start(exchange))
