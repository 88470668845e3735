"""All-reduce: which worker sends what to which, until the sum over all shards is on all workers that hold some of them.

A sum climbs the tree of :mod:`daskconv.plan.tree`. Where up to ``PARTS`` neighbouring subtrees meet, each of their
workers gets its slice of all of them and adds that up in the tree's order, a reduce-scatter; on the way back it hands
the total to those from whom it had parts, an all-gather. Two parts are recursive halving and recursive doubling, and
few workers meet once, where each sends to every other one (Thakur, Rabenseifner, Gropp: Optimization of Collective
Communication Operations in MPICH, 2005). So a worker sends some messages for each doubling of the workers, not for
each worker, and no more bytes. What is small climbs whole, and nothing has to come back.

Workers of a host meet among themselves first: what travels between hosts then is each host's sum once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import zip_longest
from math import gcd
from typing import NamedTuple, TypeVar

from daskconv.plan import tree

Sum = TypeVar("Sum", "Meeting", "Size")

# More parts are fewer rounds and more messages.
PARTS = 4
# Bytes up to which a vector climbs whole.
WHOLE = 65_536


@dataclass(frozen=True, eq=False)
class Meeting:
    """A subtree's sum, and the workers that have it; a leaf is what one worker adds up by itself.

    Attributes
    ----------
    span : Span
    workers : tuple of int
        In the order of their slices.
    parts : tuple of Meeting
        What is added up here; none for a leaf.
    host : int or None
        Of all its workers, None where these are on several.
    """

    span: tree.Span
    workers: tuple[int, ...]
    parts: tuple[Meeting, ...] = ()
    host: int | None = None

    @cached_property
    def height(self) -> int:
        """Rounds until the sum is there."""
        return 1 + max(part.height for part in self.parts) if self.parts else 0

    @cached_property
    def place(self) -> dict[int, int]:
        """By worker, the number of its slice."""
        return {worker: at for at, worker in enumerate(self.workers)}

    @cached_property
    def home(self) -> dict[int, Meeting]:
        """By worker, the first part that it has some of."""
        return {worker: part for part in reversed(self.parts) for worker in part.workers}

    def slice_of(self, worker: int, size: int, whole: bool) -> tuple[int, int]:
        """Return the elements of the sum that a worker has."""
        return (0, size) if whole else _cut(self.place[worker], len(self.workers), size)

    def leaves_of(self, worker: int) -> Iterator[Meeting]:
        """Return the largest subtrees that a worker adds up by itself."""
        if worker in self.place:
            if not self.parts:
                yield self
            for part in self.parts:
                yield from part.leaves_of(worker)

    def inside(self) -> Iterator[Meeting]:
        """Return this and all below it that are no leaves, each after its parts."""
        for part in self.parts:
            yield from part.inside()
        if self.parts:
            yield self


class Piece(NamedTuple):
    """Some elements, and the other worker that they come from or go to."""

    worker: int
    start: int
    stop: int


class Part(NamedTuple):
    """A slice of a subtree's sum, by the workers that have it, this one among them."""

    span: tree.Span
    pieces: tuple[Piece, ...]


class Join(NamedTuple):
    """A worker's slice of a meeting's sum, and the parts that add up to it."""

    span: tree.Span
    start: int
    stop: int
    parts: tuple[Part, ...]


class Gift(NamedTuple):
    """What a worker sends of a subtree's sum."""

    span: tree.Span
    piece: Piece


class Round(NamedTuple):
    """A worker's part of all meetings of one height: what it sends and adds up; what goes and comes on the way back."""

    joins: tuple[Join, ...]
    gifts: tuple[Gift, ...]
    returned: tuple[Piece, ...]
    back: tuple[Piece, ...]


@lru_cache(maxsize=4096)
def meetings(
    owners: tuple[int, ...], holders: tuple[int, ...] | None = None, hosts: tuple[int, ...] | None = None
) -> Meeting:
    """Return the sum over some shards, or all.

    Parameters
    ----------
    owners : tuple of int
        The worker of each shard.
    holders : tuple of int, optional
        The shards that add something.
    hosts : tuple of int, optional
        The host of each worker; one for all when not given.

    Examples
    --------
    >>> [meeting.workers for meeting in meetings((0, 1, 2, 3), None, (0, 0, 1, 1)).inside()]
    [(0, 1), (2, 3), (0, 2, 1, 3)]
    """
    some = range(len(owners)) if holders is None else holders
    by_shard: dict[int, int | None] = dict.fromkeys(range(len(owners)))
    by_shard |= {shard: owners[shard] for shard in some}
    leaves = {
        span: Meeting(span, (worker,), host=hosts[worker] if hosts else 0)
        for span, worker in tree.frontier((0, len(owners)), by_shard)
    }
    root = tree.fold((0, len(owners)), leaves.get, _meet)
    assert root is not None
    return root


def _meet(left: Meeting, right: Meeting) -> Meeting:
    host = left.host if left.host == right.host else None
    parts = _parts(left, right, host)
    # Each stays within the slice that it has: the fewest bytes travel.
    order = sorted(
        ((2 * at + 1) / (2 * len(part.workers)), number, worker)
        for number, part in enumerate(parts)
        for at, worker in enumerate(part.workers)
    )
    workers = tuple(dict.fromkeys(worker for *_, worker in order))
    return Meeting((left.span[0], right.span[1]), workers, parts, host)


def _parts(left: Sum, right: Sum, host: int | None) -> tuple[Sum, ...]:
    """Return what meets: two sums, or what they were to be added up from."""
    opened: list[Sum] = []
    for side in (left, right):
        opened += (side.parts if (side.host is None) == (host is None) else ()) or (side,)
    return tuple(opened) if len(opened) <= PARTS else (left, right)


def is_whole(nbytes: float) -> bool:
    """Return whether a vector climbs whole."""
    return nbytes <= WHOLE


@lru_cache(maxsize=4096)
def rounds(root: Meeting, worker: int, size: int, whole: bool) -> tuple[Round, ...]:
    """Return what a worker does for the sum of vectors of so many elements, by height, from the leaves up.

    Examples
    --------
    >>> root = meetings((0, 1))
    >>> for each in rounds(root, 0, 10, whole=False):
    ...     print(each.gifts, each.returned)
    (Gift(span=(0, 1), piece=Piece(worker=1, start=5, stop=10)),) (Piece(worker=1, start=0, stop=5),)
    """
    found: list[list[Meeting]] = [[] for _ in range(root.height)]
    for meeting in _of(root, worker):
        found[meeting.height - 1].append(meeting)
    return tuple(_round(some, worker, size, whole) for some in found)


def _of(root: Meeting, worker: int) -> Iterator[Meeting]:
    if root.parts and worker in root.place:
        for part in root.parts:
            yield from _of(part, worker)
        yield root


def _round(some: Sequence[Meeting], worker: int, size: int, whole: bool) -> Round:
    given, joins, gifts = (_given_whole if whole else _given), [], []
    returned: dict[Piece, None] = {}
    back: dict[Piece, None] = {}
    for meeting in some:
        parts = []
        for part in meeting.parts:
            needed = _needed_whole if whole else _needed
            pieces = tuple(needed(meeting, part, worker, size))
            parts.append(Part(part.span, pieces))
            others = [piece for piece in pieces if piece.worker != worker]
            sent = list(given(meeting, part, worker, size)) if worker in part.place else []
            gifts += [Gift(part.span, piece) for piece in sent]
            if not whole:
                returned |= dict.fromkeys(others)
                back |= dict.fromkeys(sent)
        joins.append(Join(meeting.span, *meeting.slice_of(worker, size, whole), tuple(parts)))
    return Round(tuple(joins), tuple(gifts), tuple(returned), tuple(back))


def _cut(at: int, count: int, size: int) -> tuple[int, int]:
    return at * size // count, (at + 1) * size // count


def _overlaps(at: int, count: int, cuts: int) -> range:
    """Return which of some equal cuts overlap one of ``count``."""
    return range(at * cuts // count, -(-(at + 1) * cuts // count))


def _pieces(workers: Sequence[int], at: int, count: int, size: int) -> Iterator[Piece]:
    """Return the slices of some workers within slice ``at`` of ``count``."""
    start, stop = _cut(at, count, size)
    for other in _overlaps(at, count, len(workers)):
        a, b = _cut(other, len(workers), size)
        if max(a, start) < min(b, stop):
            yield Piece(workers[other], max(a, start), min(b, stop))


def _needed(meeting: Meeting, part: Meeting, worker: int, size: int) -> Iterator[Piece]:
    """Return who has what of a worker's slice of a part."""
    yield from _pieces(part.workers, meeting.place[worker], len(meeting.workers), size)


def _given(meeting: Meeting, part: Meeting, worker: int, size: int) -> Iterator[Piece]:
    """Return what a worker of a part gives to others."""
    pieces = _pieces(meeting.workers, part.place[worker], len(part.workers), size)
    yield from (piece for piece in pieces if piece.worker != worker)


def _needed_whole(meeting: Meeting, part: Meeting, worker: int, size: int) -> Iterator[Piece]:
    """Return who gives a worker all of a part: itself, or who has its place there."""
    home = meeting.home[worker]
    source = worker if worker in part.place else part.workers[_across(home, part, home.place[worker])]
    yield Piece(source, 0, size)


def _given_whole(meeting: Meeting, part: Meeting, worker: int, size: int) -> Iterator[Piece]:
    """Return to whom a worker gives all of a part."""
    place, count = part.place[worker], len(part.workers)
    for home in meeting.parts:
        some = len(home.workers)
        for at in range(max(0, place * some // count - 1), min(some, (place + 1) * some // count + 2)):
            to = home.workers[at]
            if to not in part.place and meeting.home[to] is home and _across(home, part, at) == place:
                yield Piece(to, 0, size)


def _across(home: Meeting, part: Meeting, at: int) -> int:
    return (2 * at + 1) * len(part.workers) // (2 * len(home.workers))


def traffic(root: Meeting, size: int, whole: bool) -> Iterator[tuple[int, int, int]]:
    """Return (sender, receiver, elements) of each message."""
    for worker in root.workers:
        for each in rounds(root, worker, size, whole):
            for _, piece in each.gifts:
                yield worker, piece.worker, piece.stop - piece.start
            for piece in each.returned:
                # What came from there goes back as part of the total.
                yield worker, piece.worker, piece.stop - piece.start


class Height(NamedTuple):
    """What workers of equal shares send at one height, on the way up or back.

    Attributes
    ----------
    parts : int
        The most that meet.
    messages : float
        Of a worker, the mean.
    share : float
        Of a vector's bytes, what a worker sends, the mean.
    """

    parts: int
    messages: float
    share: float


@dataclass(frozen=True)
class Size:
    """A meeting of equal workers: all that are as large, and lie on hosts in the same way, are one."""

    workers: int
    parts: tuple[Size, ...] = ()
    host: int | None = None

    @cached_property
    def heights(self) -> list[tuple[int, int, int, int]]:
        """Height by height: the most parts, the messages and the vectors that are sent, and the messages if whole."""
        if not self.parts:
            return []
        rows = zip_longest(*(part.heights for part in self.parts), fillvalue=(0, 0, 0, 0))
        below = [(max(p), sum(m), sum(v), sum(w)) for p, m, v, w in (zip(*row, strict=True) for row in rows)]
        others = len(self.parts) - 1
        # Slices of a part that overlap those of the sum, less what stays where it is.
        messages = sum(self.workers - gcd(part.workers, self.workers) for part in self.parts)
        return [*below, (len(self.parts), messages, others, others * self.workers)]


@lru_cache(maxsize=4096)
def _size(offset: int, workers: int, together: int) -> Size:
    """Return the meeting of neighbours, of whom the first is that many workers from the first of its host."""
    host = 0 if offset + workers <= together else None
    if workers == 1:
        return Size(1, (), host)
    left, right = tree.halves((0, workers))
    sides = (
        _size(offset, left[1], together),
        _size((offset + right[0]) % together, workers - left[1], together),
    )
    return Size(workers, _parts(*sides, host), host)


@lru_cache(maxsize=4096)
def heights(workers: int, together: int, whole: bool) -> tuple[Height, ...]:
    """Return the rounds of a sum among workers of one shard each, ``together`` of them on a host.

    Examples
    --------
    >>> heights(4, 1, whole=False)
    (Height(parts=4, messages=3.0, share=0.75), Height(parts=4, messages=3.0, share=0.75))
    """
    rows = _size(0, workers, together).heights
    if whole:
        return tuple(Height(parts, each / workers, each / workers) for parts, _, _, each in rows)
    way = tuple(Height(parts, messages / workers, sent / workers) for parts, messages, sent, _ in rows)
    return way + way[::-1]
