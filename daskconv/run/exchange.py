"""Exchanges between the shards of this process and those of others."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from daskconv.graph.threads import one_thread_each
from daskconv.plan import tree
from daskconv.plan.allreduce import is_whole, meetings, rounds
from daskconv.plan.boxes import Edges
from daskconv.plan.exchange import Exchange, Transfer
from daskconv.run.allreduce import all_reduce, join_into
from daskconv.run.moves import Carrier, Move, Pending

Values = Mapping[int, Mapping[str, NDArray]]
"""By shard, what it holds of each value."""

Vectors = Mapping[int, NDArray]
"""By shard."""

Holders = tuple[int, ...]
"""The shards that hold a piece."""

Result = TypeVar("Result")

_VALUES, _VECTORS, BUCKETS = 1, 2, 3
"""Tags; from the last one on each bucket of gradients has one of its own, since they are ready in any order."""

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
        """Return the sum of small vectors of float64 over all shards, on every worker."""
        shards, size = tuple(range(len(self.owners))), len(next(iter(vectors.values())))
        own = {shard: vector.copy() for shard, vector in vectors.items()}
        adder = Adder(self, _VECTORS, shards, size, np.float64, own)
        if adder.travels:
            yield self.start(adder.exchange())
        return adder.total


class Adder:
    """One bucket on its way to its sum over the shards that hold it, on each worker of theirs.

    Parameters
    ----------
    mesh : Mesh
    tag : int
    holders : tuple of int
    size : int
        Elements.
    dtype : dtype
    vectors : mapping of shard to vector
        Those of the shards here, which are used up.

    Attributes
    ----------
    travels : bool
        Whether other workers have a part in the sum.
    total : array
        The sum, once all that travels has come.
    """

    def __init__(
        self, mesh: Mesh, tag: int, holders: Holders, size: int, dtype: Any, vectors: Vectors
    ) -> None:
        self.rank, self.tag, self.root = mesh.rank, tag, meetings(mesh.owners, tuple(holders))
        self.own = {leaf.span: _add_tree(leaf.span, vectors) for leaf in self.root.leaves_of(mesh.rank)}
        self.travels = bool(self.root.parts)
        self.total = np.empty(size, dtype) if self.travels else self.own[self.root.span]

    def exchange(self) -> Iterator[Move]:
        """Return what travels, as an exchange between the workers."""
        out = self.total

        def buffer(_: tree.Span, size: int) -> NDArray:
            return np.empty(size, out.dtype)

        way = rounds(self.root, self.rank, len(out), is_whole(out.nbytes))
        return all_reduce(self.rank, way, self.own, self.tag, out, buffer)


def _taken(exchange: Exchange, transfer: Transfer, values: Values, edges: Edges, dtype: str) -> NDArray:
    value = values[transfer.source].get(exchange.value)
    if value is None:
        return np.zeros(exchange.shape(transfer, edges), exchange.dtype or dtype)
    return exchange.take(transfer, value, edges)


def _add_tree(span: tree.Span, vectors: Vectors) -> NDArray:
    return join_into(span, {(shard, shard + 1): vector for shard, vector in vectors.items()})
