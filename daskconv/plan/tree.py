"""The one tree in which sums over shards are added, fixed by shard numbers and not by who computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from daskconv.layout import even_parts

T = TypeVar("T")

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


def frontier(span: Span, owners: Mapping[int, int | None]) -> list[tuple[Span, int]]:
    """Return the largest subtrees that have one owner each, left to right, with that owner.

    An owner adds these by itself; only their sums have to travel. Shards of nobody add nothing.

    Examples
    --------
    >>> frontier((0, 4), {0: 0, 1: 0, 2: 0, 3: 1})
    [((0, 2), 0), ((2, 3), 0), ((3, 4), 1)]
    """
    found = {owner for shard in range(*span) if (owner := owners[shard]) is not None}
    if len(found) <= 1:
        return [(span, owner) for owner in found]
    left, right = halves(span)
    return frontier(left, owners) + frontier(right, owners)


def shares(shards: int, workers: int) -> list[tuple[Span, int]]:
    """Return the subtrees of evenly shared shards, left to right, with the number of the worker of each.

    Examples
    --------
    >>> shares(4, 3)
    [((0, 2), 0), ((2, 3), 1), ((3, 4), 2)]
    """
    return frontier((0, shards), dict(enumerate(owners(shards, workers))))


def owners(shards: int, workers: int) -> tuple[int, ...]:
    """Return the worker of each of evenly shared shards: neighbours lie together.

    Examples
    --------
    >>> owners(4, 3)
    (0, 0, 1, 2)
    """
    parts = enumerate(even_parts(shards, workers))
    return tuple(worker for worker, (start, stop) in parts for _ in range(start, stop))


def fold(span: Span, known: Callable[[Span], T | None], add: Callable[[T, T], T]) -> T | None:
    """Return what is known of a subtree, or of its parts, added in the tree's order; None where nothing is known.

    Examples
    --------
    >>> fold((0, 4), {(0, 1): "a", (2, 4): "b"}.get, lambda left, right: f"({left} + {right})")
    '(a + b)'
    """
    if (found := known(span)) is not None or is_leaf(span):
        return found
    left, right = (fold(half, known, add) for half in halves(span))
    if left is None or right is None:
        return right if left is None else left
    return add(left, right)
