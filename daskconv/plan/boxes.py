"""Boxes: the part of a value that a shard holds, as ranges along its axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from daskconv.layout import even_parts

Range = tuple[int, int]
Box = tuple[Range, ...]
"""A range ``start <= i < stop`` along each axis. Along the images it counts groups, one to a logical shard."""

Edges = Sequence[int]
"""Where each group of images begins in a batch, and where the last one ends."""


def whole(shape: Iterable[int]) -> Box:
    """Return the box of a whole array."""
    return tuple((0, size) for size in shape)


def intersect(one: Box, other: Box) -> Box | None:
    """Return what two boxes share, or None.

    Examples
    --------
    >>> intersect(((0, 4), (0, 2)), ((2, 6), (0, 2)))
    ((2, 4), (0, 2))
    """
    shared = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return shared if all(start < stop for start, stop in shared) else None


def contains(outer: Box, inner: Box) -> bool:
    """Return whether a box lies in another."""
    return all(a <= c and d <= b for (a, b), (c, d) in zip(outer, inner, strict=True))


def edges_of(images: int, groups: int) -> list[int]:
    """Return where each group of a batch begins, and where the last one ends.

    Examples
    --------
    >>> edges_of(7, 3)
    [0, 3, 5, 7]
    """
    return [0, *accumulate(stop - start for start, stop in even_parts(images, groups))]


def shape_of(box: Box, edges: Edges | None) -> tuple[int, ...]:
    """Return the shape of the array in a box; ``edges`` where the first axis counts groups of images."""
    return tuple(part.stop for part in slices(box, box, edges))


def slices(box: Box, within: Box, edges: Edges | None) -> tuple[slice, ...]:
    """Return where a box lies in the array of another one that contains it."""
    if edges is not None:
        box, within = (((edges[b[0][0]], edges[b[0][1]]), *b[1:]) for b in (box, within))
    return tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(box, within, strict=True))
