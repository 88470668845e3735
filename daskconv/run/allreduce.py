"""All-reduce, run: a worker's part of a sum over shards, of which :mod:`daskconv.plan.allreduce` says who sends what.

The carrier moves and daskconv adds, in the tree's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from daskconv.plan import tree
from daskconv.plan.allreduce import Join, Part, Round
from daskconv.run.moves import Move, Parcel

Buffer = Callable[[tree.Span, int], NDArray]
"""(subtree, elements) -> an array for what comes of it."""

_Held = dict[tree.Span, tuple[int, NDArray]]
"""By subtree, this worker's slice of its sum, and the element with which that begins."""


def all_reduce(
    worker: int,
    rounds: Sequence[Round],
    sums: Mapping[tree.Span, NDArray],
    tag: int,
    out: NDArray,
    buffer: Buffer,
) -> Iterator[Move]:
    """Leave in ``out`` the sum over all shards, from those of this worker's own subtrees, which it uses up.

    It yields a move for each height up, and for each one back.
    """
    held = {span: (0, array) for span, array in sums.items()}
    for each in rounds:
        parts: dict[tree.Span, NDArray] = {}
        receives: list[Parcel] = []
        for join in each.joins:
            for part in join.parts:
                parts[part.span] = _part(join, part, worker, held, tag, buffer, receives)
        yield Move([(to, tag, _view(held, span, a, b)) for span, (to, a, b) in each.gifts], receives)
        for join in each.joins:
            held[join.span] = join.start, join_into(join.span, parts)
    start, total = held[rounds[-1].joins[-1].span] if rounds else next(iter(held.values()))
    out[start : start + len(total)] = total
    for each in reversed(rounds):
        yield Move(
            [(to, tag, out[a:b]) for to, a, b in each.returned],
            [(source, tag, out[a:b]) for source, a, b in each.back],
        )


def _part(
    join: Join, part: Part, worker: int, held: _Held, tag: int, buffer: Buffer, receives: list[Parcel]
) -> NDArray:
    """Return where a part's slice is, or will be once what it lacks has come."""
    if [piece.worker for piece in part.pieces] == [worker]:
        return _view(held, part.span, join.start, join.stop)
    array = buffer(part.span, join.stop - join.start)
    for source, start, stop in part.pieces:
        view = array[start - join.start : stop - join.start]
        if source == worker:
            view[...] = _view(held, part.span, start, stop)
        else:
            receives.append((source, tag, view))
    return array


def _view(held: _Held, span: tree.Span, start: int, stop: int) -> NDArray:
    first, array = held[span]
    return array[start - first : stop - first]


def join_into(span: tree.Span, parts: Mapping[tree.Span, NDArray]) -> NDArray:
    """Return a subtree's sum from those of its parts, added in the tree's order into the leftmost."""
    total = tree.fold(span, parts.get, _add)
    assert total is not None
    return total


def _add(left: NDArray, right: NDArray) -> NDArray:
    return np.add(left, right, out=left)
