"""Exchanges between the shards of this process and those of others."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from daskconv.graph.threads import one_thread_each
from daskconv.layout import even_parts
from daskconv.plan import tree
from daskconv.plan.boxes import Edges
from daskconv.plan.exchange import Exchange, Transfer
from daskconv.run.moves import Carrier, Move, Pending

Values = Mapping[int, Mapping[str, NDArray]]
"""By shard, what it holds of each value."""

Vectors = Mapping[int, NDArray]
"""By shard."""

Holders = tuple[int, ...]
"""The shards that hold a piece."""

Result = TypeVar("Result")

_VALUES, _VECTORS, _BUCKETS = 1, 2, 3
"""Tags; from the last one on each bucket of gradients has two of its own, since they are ready in any order."""

Steps = Generator[Pending, None, Result]
"""Work that stops wherever it needs what travels: it yields that, and goes on once all of it has come and gone."""


def drive(steps: Steps[Result]) -> Result:
    """Do work to its end, and return its result."""
    with one_thread_each():
        while True:
            try:
                pending = next(steps)
            except StopIteration as end:
                return end.value
            pending.wait()


def taking_turns(works: Iterable[Steps[Any]], most: int = 2) -> Steps[None]:
    """Do works by turns, ``most`` under way at once: while what one needs travels, the next one computes.

    The order is fixed, and in each of its stretches an earlier work is ahead of a later one.
    """
    coming, turns = iter(works), deque[tuple[Steps[Any], Pending]]()
    while True:
        while len(turns) < most and (work := next(coming, None)) is not None:
            with suppress(StopIteration):
                turns.append((work, next(work)))
        if not turns:
            return
        work, pending = turns.popleft()
        yield pending
        with suppress(StopIteration):
            turns.append((work, next(work)))


@dataclass(frozen=True)
class Mesh:
    """Who computes which shard.

    Attributes
    ----------
    owners : tuple of int
        The worker of each shard, from 0.
    rank : int
        This worker.
    carrier : Carrier, optional
        What carries exchanges between workers; nothing travels where there is one worker.
    """

    owners: tuple[int, ...]
    rank: int = 0
    carrier: Carrier | None = None

    @property
    def mine(self) -> list[int]:
        """The shards of this worker."""
        return [shard for shard, owner in enumerate(self.owners) if owner == self.rank]

    def start(self, exchange: Iterator[Move]) -> Pending:
        """Begin an exchange between workers and return at once."""
        assert self.carrier is not None
        return self.carrier.start(exchange)

    def exchange(
        self, exchanges: Sequence[Exchange], values: Values, edges: Edges, dtype: str
    ) -> Steps[dict[int, list[tuple[str, NDArray]]]]:
        """Return what each shard here gets of each exchange, with its name; shards without a value count as zeros."""
        received = yield from self._swap(exchanges, values, edges, dtype)
        results: dict[int, list[tuple[str, NDArray]]] = {shard: [] for shard in self.mine}
        for number, exchange in enumerate(exchanges):

            def part(transfer: Transfer, number: int = number, exchange: Exchange = exchange) -> NDArray:
                if self.owners[transfer.source] != self.rank:
                    return received[number, transfer.source, transfer.box]
                return _taken(exchange, transfer, values, edges, dtype)

            for shard in self.mine:
                results[shard].append((exchange.result, exchange.assemble(shard, part, edges, dtype)))
        return results

    def _swap(
        self, exchanges: Sequence[Exchange], values: Values, edges: Edges, dtype: str
    ) -> Steps[dict[tuple[int, int, Any], NDArray]]:
        sends, received, receives = [], {}, []
        crossing = [(i, each, each.crossing(self.owners)) for i, each in enumerate(exchanges)]
        for number, exchange, transfers in crossing:
            for transfer in transfers:
                source, dest = (self.owners[shard] for shard in transfer[:2])
                if source == self.rank:
                    array = _taken(exchange, transfer, values, edges, dtype)
                    sends.append((dest, _VALUES, np.ascontiguousarray(array)))
                elif dest == self.rank:
                    buffer = np.empty(exchange.shape(transfer, edges), exchange.dtype or dtype)
                    received[number, transfer.source, transfer.box] = buffer
                    receives.append((source, _VALUES, buffer))
        if any(transfers for *_, transfers in crossing):
            yield self.start(iter([Move(sends, receives)]))
        return received

    def add_everywhere(self, vectors: Vectors) -> Steps[NDArray[np.float64]]:
        """Return the sum of small vectors of float64 over all shards, on every worker: all send all they have."""
        shards, size = range(len(self.owners)), len(next(iter(vectors.values())))
        subtrees = {worker: tree.held(self.owners, shards, worker) for worker in sorted(set(self.owners))}
        own = [_add_tree(span, vectors, size, np.float64) for span in subtrees[self.rank]]
        others = [worker for worker in subtrees if worker != self.rank]
        theirs = {worker: [np.empty(size) for _ in subtrees[worker]] for worker in others}
        if others:
            sends = [(worker, _VECTORS, array) for worker in others for array in own]
            receives = [(worker, _VECTORS, array) for worker in others for array in theirs[worker]]
            yield self.start(iter([Move(sends, receives)]))
        theirs[self.rank] = own
        sums = {
            span: a for worker in subtrees for span, a in zip(subtrees[worker], theirs[worker], strict=True)
        }
        return _join((0, len(self.owners)), sums, size, np.float64)


class Adder:
    """One bucket on its way to its sum over the shards that hold it, on each worker of theirs.

    Each worker adds the subtrees that are its own, sends every other one its slice of them, completes the tree of its
    own slice, and sends that to all: a reduce-scatter and an all-gather, in an order that is known.

    Parameters
    ----------
    mesh : Mesh
    number : int
        Of the bucket.
    holders : tuple of int
    size : int
        Elements.
    dtype : dtype
    vectors : mapping of shard to vector
        Those of the shards here.
    """

    def __init__(
        self, mesh: Mesh, number: int, holders: Holders, size: int, dtype: Any, vectors: Vectors
    ) -> None:
        self.root, self.rank, self.size, self.dtype = (0, len(mesh.owners)), mesh.rank, size, dtype
        self.tag = _BUCKETS + 2 * number
        workers = sorted({mesh.owners[shard] for shard in holders})
        self.subtrees = {worker: tree.held(mesh.owners, holders, worker) for worker in workers}
        self.own = [_add_tree(span, vectors, size, dtype) for span in self.subtrees[mesh.rank]]
        self.others = [worker for worker in workers if worker != mesh.rank]
        self.slices = {
            worker: slice(*side) for worker, side in zip(workers, even_parts(size, len(workers)), strict=True)
        }

    def exchange(self) -> Iterator[Move]:
        """Return what travels, as an exchange between the workers."""
        yield self.scatter()
        yield self.gather()

    def scatter(self) -> Move:
        """Return each worker's slices of the subtrees here, and where those of this worker's slice come."""
        here = self.slices[self.rank]
        self.theirs = {
            worker: [np.empty(here.stop - here.start, self.dtype) for _ in self.subtrees[worker]]
            for worker in self.others
        }
        sends = [(worker, self.tag, own[self.slices[worker]]) for worker in self.others for own in self.own]
        return Move(
            sends, [(worker, self.tag, each) for worker in self.others for each in self.theirs[worker]]
        )

    def gather(self) -> Move:
        """Complete this worker's slice; return it for the others, and where theirs come."""
        here = self.slices[self.rank]
        self.theirs[self.rank] = [own[here] for own in self.own]
        sums = {
            span: array
            for worker, spans in self.subtrees.items()
            for span, array in zip(spans, self.theirs[worker], strict=True)
        }
        self.sum = np.empty(self.size, self.dtype)
        self.sum[here] = _join(self.root, sums, here.stop - here.start, self.dtype)
        sends = [(worker, self.tag + 1, self.sum[here]) for worker in self.others]
        return Move(sends, [(worker, self.tag + 1, self.sum[self.slices[worker]]) for worker in self.others])

    def total(self) -> NDArray:
        """Return the sum."""
        if self.others:
            return self.sum
        sums = dict(zip(self.subtrees[self.rank], self.own, strict=True))
        return _join(self.root, sums, self.size, self.dtype)


def _taken(exchange: Exchange, transfer: Transfer, values: Values, edges: Edges, dtype: str) -> NDArray:
    value = values[transfer.source].get(exchange.value)
    if value is None:
        return np.zeros(exchange.shape(transfer, edges), exchange.dtype or dtype)
    return exchange.take(transfer, value, edges)


def _add_tree(span: tree.Span, parts: Vectors, size: int, dtype: Any) -> NDArray:
    return _join(span, {(shard, shard + 1): part for shard, part in parts.items()}, size, dtype)


def _join(span: tree.Span, sums: Mapping[tree.Span, NDArray], size: int, dtype: Any) -> NDArray:
    """Return the sum of a subtree; shards of which nothing is known add nothing."""
    total = tree.fold(span, sums.get, operator.add)
    return np.zeros(size, dtype) if total is None else total
