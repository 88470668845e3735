"""Slices: parts of a batch, which go through a network, or the end of one, one after the other.

A slice has images of many groups, so that all shards work on each: even parts of each group (variant c of Krizhevsky
2014, "One weird trick for parallelizing convolutional neural networks", section 4.2), or all of one group (variant b).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from daskconv.layout import even_parts
from daskconv.plan.boxes import Edges, Range

Slices = int | Literal["shard"]
"""How many slices with even parts of each group, or "shard": one for each group."""


@dataclass(frozen=True)
class Slice:
    """Some images of each group of a batch.

    Attributes
    ----------
    batch : tuple of int
        Where each group begins in the batch, and where the last one ends.
    ranges : tuple of (int, int)
        By group, its images' places in the batch.
    """

    batch: tuple[int, ...]
    ranges: tuple[Range, ...]

    @cached_property
    def edges(self) -> list[int]:
        """Where each group begins in the slice, and where the last one ends."""
        return [0, *accumulate(stop - start for start, stop in self.ranges)]

    def of(self, indices: NDArray) -> NDArray:
        """Return the slice's images of those of the batch."""
        return indices[self.rows((0, len(self.ranges)))]

    def rows(self, groups: Range) -> slice | NDArray[np.int64]:
        """Return where the slice's images lie in an array that has those of some groups."""
        origin = self.batch[groups[0]]
        found = [(start - origin, stop - origin) for start, stop in self.ranges[slice(*groups)]]
        found = [(start, stop) for start, stop in found if stop > start] or [(0, 0)]
        if all(stop == start for (_, stop), (start, _) in pairwise(found)):
            return slice(found[0][0], found[-1][1])
        return np.concatenate([np.arange(*each) for each in found])

    def group(self, number: int) -> slice:
        """Return where the slice's images lie in an array that has those of one group."""
        return slice(*(place - self.batch[number] for place in self.ranges[number]))


def count_of(slices: Slices, groups: int) -> int:
    """Return how many slices a batch of so many groups has."""
    return groups if slices == "shard" else slices


def slices_of(edges: Edges, slices: Slices) -> list[Slice]:
    """Return the slices of a batch.

    Examples
    --------
    >>> [each.ranges for each in slices_of([0, 4, 7], 2)]
    [((0, 2), (4, 6)), ((2, 4), (6, 7))]
    >>> [each.ranges for each in slices_of([0, 4, 7], "shard")]
    [((0, 4), (4, 4)), ((0, 0), (4, 7))]
    """
    groups = list(pairwise(edges))
    if slices == "shard":
        rows = [
            tuple((start, stop if group == number else start) for group, (start, stop) in enumerate(groups))
            for number in range(len(groups))
        ]
    else:
        parts = (
            [(start + a, start + b) for a, b in even_parts(stop - start, slices)] for start, stop in groups
        )
        rows = list(zip(*parts, strict=True))
    return [Slice(tuple(edges), row) for row in rows]
