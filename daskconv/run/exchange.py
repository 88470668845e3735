"""Exchanges between the shards of this process and those of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskconv.layout import even_parts
from daskconv.plan import tree
from daskconv.plan.boxes import Edges
from daskconv.plan.exchange import Exchange, Transfer

Values = Mapping[int, Mapping[str, NDArray]]
"""By shard, what it holds of each value."""

_VALUES, _SLICES, _SUMS = 1, 2, 3  # tags


class Messages(Protocol):
    """What moves arrays between workers; several to the same one come in the order in which they were sent."""

    def swap(
        self,
        sends: Sequence[tuple[int, int, NDArray]] = (),
        receives: Sequence[tuple[int, int, NDArray]] = (),
    ) -> None:
        """Send and receive (rank, tag, array), and return when all have come and gone."""


@dataclass(frozen=True)
class Mesh:
    """Who computes which shard, and what moves arrays between them.

    Attributes
    ----------
    owners : tuple of int
        The worker of each shard.
    rank : int
        This worker.
    messages : Messages, optional
        None where this is the only worker.
    """

    owners: tuple[int, ...]
    rank: int = 0
    messages: Messages | None = None

    @property
    def mine(self) -> list[int]:
        """The shards of this worker."""
        return [shard for shard, owner in enumerate(self.owners) if owner == self.rank]

    def exchange(
        self, exchanges: Sequence[Exchange], values: Values, edges: Edges, dtype: str
    ) -> dict[int, list[tuple[str, NDArray]]]:
        """Return what each shard here gets of each exchange, with its name; shards without a value count as zeros."""
        received = self._swap(exchanges, values, edges, dtype)
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
    ) -> dict[tuple[int, int, Any], NDArray]:
        sends, received, receives = [], {}, []
        for number, exchange in enumerate(exchanges):
            for transfer in exchange.crossing(self.owners):
                source, dest = (self.owners[shard] for shard in transfer[:2])
                if source == self.rank:
                    array = _taken(exchange, transfer, values, edges, dtype)
                    sends.append((dest, _VALUES, np.ascontiguousarray(array)))
                elif dest == self.rank:
                    buffer = np.empty(exchange.shape(transfer, edges), exchange.dtype or dtype)
                    received[number, transfer.source, transfer.box] = buffer
                    receives.append((source, _VALUES, buffer))
        if self.messages is not None and (sends or receives):
            self.messages.swap(sends, receives)
        return received

    def add(self, parts: Mapping[int, NDArray], holders: Sequence[int], size: int, dtype: Any) -> NDArray:
        """Return the sum of vectors over the shards that hold them, in the tree's order, on each worker of theirs.

        Each worker adds the subtrees that are its own, sends every other one its slice of them, completes the tree of
        its own slice, and sends that to all: what an all-reduce sends, in an order that is known.

        Parameters
        ----------
        parts : mapping of int to array (size,)
            The vectors of this worker's shards; those of shards that have none are left out.
        holders : sequence of int
            The shards that hold a vector, on all workers.
        size : int
        dtype : dtype
        """
        workers = sorted({self.owners[shard] for shard in holders})
        subtrees = {worker: self._subtrees(worker, holders) for worker in workers}
        own = [_add_tree(span, parts, size, dtype) for span in subtrees[self.rank]]
        if len(workers) == 1 or self.messages is None:
            return _join((0, len(self.owners)), dict(zip(subtrees[self.rank], own, strict=True)), size, dtype)
        ranges = dict(zip(workers, even_parts(size, len(workers)), strict=True))
        others = [worker for worker in workers if worker != self.rank]
        start, stop = ranges[self.rank]
        theirs = {worker: [np.empty(stop - start, dtype) for _ in subtrees[worker]] for worker in others}
        self.messages.swap(
            [(worker, _SLICES, array[slice(*ranges[worker])]) for worker in others for array in own],
            [(worker, _SLICES, array) for worker in others for array in theirs[worker]],
        )
        theirs[self.rank] = [array[start:stop] for array in own]
        sums = {span: array for w in workers for span, array in zip(subtrees[w], theirs[w], strict=True)}
        total = np.empty(size, dtype)
        total[start:stop] = _join((0, len(self.owners)), sums, stop - start, dtype)
        self.messages.swap(
            [(worker, _SUMS, total[start:stop]) for worker in others],
            [(worker, _SUMS, total[slice(*ranges[worker])]) for worker in others],
        )
        return total

    def _subtrees(self, worker: int, holders: Sequence[int]) -> list[tree.Span]:
        """Return the largest subtrees of shards that are a worker's own and hold something."""
        held = set(holders)
        owners = {shard: self.owners[shard] if shard in held else None for shard in range(len(self.owners))}
        return [span for span, owner in _frontier((0, len(self.owners)), owners) if owner == worker]


def added_bytes(mesh: Mesh, holders: Sequence[int], nbytes: int) -> int:
    """Return the bytes that all workers together send to add up vectors of so many bytes."""
    workers = sorted({mesh.owners[shard] for shard in holders})
    if len(workers) == 1:
        return 0
    spans = sum(len(mesh._subtrees(worker, holders)) for worker in workers)
    return (spans + len(workers)) * nbytes - (spans + len(workers)) * nbytes // len(workers)


def _frontier(span: tree.Span, owners: Mapping[int, int | None]) -> list[tuple[tree.Span, int | None]]:
    """Return the largest subtrees whose shards that hold something have one owner."""
    found = {owners[shard] for shard in range(*span)} - {None}
    if len(found) <= 1:
        return [(span, found.pop() if found else None)]
    left, right = tree.halves(span)
    return _frontier(left, owners) + _frontier(right, owners)


def _taken(exchange: Exchange, transfer: Transfer, values: Values, edges: Edges, dtype: str) -> NDArray:
    value = values[transfer.source].get(exchange.value)
    if value is None:
        return np.zeros(exchange.shape(transfer, edges), exchange.dtype or dtype)
    return exchange.take(transfer, value, edges)


def _add_tree(span: tree.Span, parts: Mapping[int, NDArray], size: int, dtype: Any) -> NDArray:
    return _fold(span, lambda leaf: parts.get(leaf[0]) if tree.is_leaf(leaf) else None, size, dtype)


def _join(span: tree.Span, sums: Mapping[tree.Span, NDArray], size: int, dtype: Any) -> NDArray:
    return _fold(span, sums.get, size, dtype)


def _fold(span: tree.Span, known: Callable[[tree.Span], NDArray | None], size: int, dtype: Any) -> NDArray:
    """Add up what is known of a tree; shards of which nothing is known add nothing."""

    def of(span: tree.Span) -> NDArray | None:
        if (found := known(span)) is not None or tree.is_leaf(span):
            return found
        left, right = map(of, tree.halves(span))
        if left is None or right is None:
            return right if left is None else left
        return left + right

    total = of(span)
    return np.zeros(size, dtype) if total is None else total
