"""The one tree in which sums over shards are added, fixed by shard numbers and not by who computes them."""

from __future__ import annotations

from collections.abc import Mapping

from daskconv.layout import even_parts

Span = tuple[int, int]
"""A subtree: the shards ``span[0] <= shard < span[1]``."""


def halves(span: Span) -> tuple[Span, Span]:
    """Return the two subtrees that add up to this one.

    Examples
    --------
    >>> halves((0, 4)), halves((0, 3))
    (((0, 2), (2, 4)), ((0, 2), (2, 3)))
    """
    middle = (span[0] + span[1] + 1) // 2
    return (span[0], middle), (middle, span[1])


def is_leaf(span: Span) -> bool:
    """Return whether the subtree is a single shard."""
    return span[1] - span[0] == 1


def describe(span: Span) -> str:
    """Return the tree in words.

    Examples
    --------
    >>> describe((0, 4))
    '((0 + 1) + (2 + 3))'
    """
    if is_leaf(span):
        return str(span[0])
    left, right = halves(span)
    return f"({describe(left)} + {describe(right)})"


def frontier(span: Span, owners: Mapping[int, int]) -> list[tuple[Span, int]]:
    """Return the largest subtrees that have one owner each, left to right, with that owner.

    An owner adds these by itself; only their sums have to travel.

    Examples
    --------
    >>> frontier((0, 4), {0: 0, 1: 0, 2: 0, 3: 1})
    [((0, 2), 0), ((2, 3), 0), ((3, 4), 1)]
    """
    found = {owners[shard] for shard in range(*span)}
    if len(found) == 1:
        return [(span, found.pop())]
    left, right = halves(span)
    return frontier(left, owners) + frontier(right, owners)


def shares(shards: int, workers: int) -> list[tuple[Span, int]]:
    """Return the subtrees of evenly shared shards, left to right, with the number of the worker of each.

    Examples
    --------
    >>> shares(4, 3)
    [((0, 2), 0), ((2, 3), 1), ((3, 4), 2)]
    """
    parts = even_parts(shards, workers)
    owners = {shard: worker for worker, (start, stop) in enumerate(parts) for shard in range(start, stop)}
    return frontier((0, shards), owners)
