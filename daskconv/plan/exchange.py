"""Exchange: values that travel between shards, as a list of transfers. Plain data; it does no communication.

A value is ``result[box] += value[box]`` over the transfers, so that the gradient travels by the same list with sources
and destinations swapped: an all-gather comes back as a reduce-scatter, a halo is added to its owner's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.boxes import Box, Edges, contains, intersect, shape_of, slices

_BACK = {"all-gather": "reduce-scatter", "reduce-scatter": "all-gather"}


class Transfer(NamedTuple):
    """What one shard gives another, or itself: a box of the value."""

    source: int
    dest: int
    box: Box


@dataclass(frozen=True)
class Exchange:
    """One value, from the boxes that shards hold to those that they need.

    Attributes
    ----------
    value, result : str
        What it is called where it is, and where it is needed.
    sources, dests : tuple of Box
        By shard.
    transfers : tuple of Transfer
        Those of a destination in the order in which they are added.
    kind : str
        What MPI, or the field, calls the pattern.
    sums : bool
        Whether a result is the sum of several shards' values.
    batched : bool
        Whether the first axis counts groups of images.
    dtype : str, optional
        Of the value; the Program's when not given.
    """

    value: str
    result: str
    sources: tuple[Box, ...]
    dests: tuple[Box, ...]
    transfers: tuple[Transfer, ...]
    kind: str
    sums: bool = False
    batched: bool = True
    dtype: str | None = None

    def transposed(self) -> Exchange:
        """Return the exchange of the gradient."""
        back = (Transfer(dest, source, box) for source, dest, box in self.transfers)
        return Exchange(
            self.result,
            self.value,
            self.dests,
            self.sources,
            tuple(sorted(back)),
            _BACK.get(self.kind, self.kind),
            not self._gathers(self.sources, [(source, box) for source, _, box in self.transfers]),
            self.batched,
            self.dtype,
        )

    def nbytes(self, owners: Sequence[int], edges: Edges, itemsize: int) -> int:
        """Return the bytes that travel between workers, where ``owners`` gives the worker of each shard."""
        itemsize = np.dtype(self.dtype).itemsize if self.dtype else itemsize
        return sum(prod(shape_of(box, self._edges(edges))) for _, _, box in self.crossing(owners)) * itemsize

    def crossing(self, owners: Sequence[int]) -> list[Transfer]:
        """Return the transfers between workers; what two shards of a worker read of the same source goes there once."""
        found: dict[tuple[int, int, Box], Transfer] = {}
        for transfer in self.transfers:
            if owners[transfer.source] != owners[transfer.dest]:
                found.setdefault((transfer.source, owners[transfer.dest], transfer.box), transfer)
        return list(found.values())

    def take(self, transfer: Transfer, value: NDArray, edges: Edges) -> NDArray:
        """Return the view of a source's value that a transfer takes."""
        return value[slices(transfer.box, self.sources[transfer.source], self._edges(edges))]

    def shape(self, transfer: Transfer, edges: Edges) -> tuple[int, ...]:
        """Return the shape of what a transfer takes."""
        return shape_of(transfer.box, self._edges(edges))

    def assemble(self, dest: int, part: Callable[[Transfer], NDArray], edges: Edges, dtype: str) -> NDArray:
        """Return what a shard gets, from the part of each transfer to it."""
        box, edges_or_none = self.dests[dest], self._edges(edges)
        make = np.zeros if self.sums else np.empty
        result = make(shape_of(box, edges_or_none), self.dtype or dtype)
        for transfer in self.incoming[dest]:
            place = result[slices(transfer.box, box, edges_or_none)]
            if self.sums:
                place += part(transfer)
            else:
                place[...] = part(transfer)
        return result

    @cached_property
    def incoming(self) -> Mapping[int, list[Transfer]]:
        """The transfers to each shard."""
        found: dict[int, list[Transfer]] = {shard: [] for shard in range(len(self.dests))}
        for transfer in self.transfers:
            found[transfer.dest].append(transfer)
        return found

    def _edges(self, edges: Edges) -> Edges | None:
        return edges if self.batched else None

    @staticmethod
    def _gathers(boxes: Sequence[Box], parts: Sequence[tuple[int, Box]]) -> bool:
        """Return whether parts fill each shard's box once: no zeros are left, and nothing is added."""
        filled = [0] * len(boxes)
        by_shard: dict[int, list[Box]] = {}
        for shard, box in parts:
            filled[shard] += prod(b - a for a, b in box)
            others = by_shard.setdefault(shard, [])
            if any(intersect(box, other) for other in others):
                return False
            others.append(box)
        return all(count == prod(b - a for a, b in box) for count, box in zip(filled, boxes, strict=True))


def move(
    value: str, result: str, sources: Sequence[Box], dests: Sequence[Box], **options: object
) -> Exchange:
    """Return the exchange that gives each shard its box, from the nearest shard that holds each region."""
    transfers = _transfers(sources, dests, [0] * len(sources))
    kind = _kind_of_move(sources, dests)
    return Exchange(value, result, tuple(sources), tuple(dests), transfers, kind, **options)  # type: ignore[arg-type]


def _transfers(sources: Sequence[Box], dests: Sequence[Box], summands: Sequence[int]) -> tuple[Transfer, ...]:
    """Return what each shard gets of each summand, from the nearest of the shards that hold the same box of it."""
    holders: dict[tuple[int, Box], list[int]] = {}
    for shard in sorted(range(len(sources)), key=lambda shard: (summands[shard], shard)):
        holders.setdefault((summands[shard], sources[shard]), []).append(shard)
    transfers = []
    for dest, needed in enumerate(dests):
        for (_, box), shards in holders.items():
            if (shared := intersect(box, needed)) is not None:
                nearest = min(shards, key=lambda shard: (abs(shard - dest), shard))
                transfers.append(Transfer(nearest, dest, shared))
    return tuple(transfers)


def _kind_of_move(sources: Sequence[Box], dests: Sequence[Box]) -> str:
    pairs = list(zip(sources, dests, strict=True))
    if all(contains(source, dest) for source, dest in pairs):
        return "slice"
    rows_only = all(source[:1] == dest[:1] and source[3:] == dest[3:] for source, dest in pairs)
    if rows_only and len(dests[0]) == 4 and len(set(dests)) > 1:
        return "halo"
    return "all-gather" if all(contains(dest, source) for source, dest in pairs) else "all-to-all"


def total(
    value: str, result: str, sources: Sequence[Box], dests: Sequence[Box], summands: Sequence[int]
) -> Exchange:
    """Return the exchange that gives each shard its box of a sum; ``summands`` numbers what each shard holds of it."""
    transfers = _transfers(sources, dests, summands)
    kind = "all-reduce" if len(set(dests)) < len(dests) else "reduce-scatter"
    return Exchange(value, result, tuple(sources), tuple(dests), transfers, kind, sums=True)
