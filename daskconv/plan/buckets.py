"""Buckets: the ranges of the gradient vector that are exchanged one by one, and by which ranks they are summed.

A range is cut into a slice for each rank, every rank receives its slice of all subtrees and adds them in the tree's
order (a reduce-scatter), and hands the sum to all (an all-gather). Where several ranks share each of several hosts,
that happens inside the hosts first, then across them: what a host has added is whole subtrees, so the sum has the
same bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from daskconv.layout import even_parts
from daskconv.plan import tree

if TYPE_CHECKING:
    from daskconv.plan.program import Program

Range = tuple[int, int]

# Bytes of a bucket. Measured with 2 workers on 2 cores: a VGG-11's 37 MB take as long in buckets of 1 MB as of 16.
SMALLEST, LARGEST = 4_000_000, 16_000_000
# What is no larger goes to everybody whole, in one round instead of two.
WHOLE = 65_536


def buckets(program: Program) -> tuple[Range, ...]:
    """Return the ranges of the gradient vector, in the order in which a backward pass completes them.

    Each has some neighbouring parameters, or a part of a large one.
    """
    itemsize = np.dtype(program.dtype).itemsize
    smallest, largest = sizes(program.plan.bucket_bytes)
    found: list[Range] = []
    stop = program.elements
    for start, _ in reversed(program.places.values()):
        if start == 0 or (stop - start) * itemsize >= smallest:
            found += reversed(_cut(start, stop, max(1, largest // itemsize)))
            stop = start
    return tuple(found)


def sizes(most: int | None) -> tuple[int, int]:
    """Return the bytes from which on a bucket is complete, and the most that it has."""
    return (SMALLEST, LARGEST) if most is None else (-(-most // (LARGEST // SMALLEST)), most)


def _cut(start: int, stop: int, most: int) -> list[Range]:
    """Return equal parts of a range, as few as have at most so many elements."""
    parts = even_parts(stop - start, max(1, -(-(stop - start) // most)))
    return [(start + a, start + b) for a, b in parts]


@dataclass(frozen=True)
class Level:
    """The ranks that a rank sums with, at one level: of its host, or of all hosts.

    Attributes
    ----------
    ranks : tuple of int
    spans : tuple of tuple of Span
        The subtrees that each of them holds before.
    joined : tuple of Span
        Those that they hold together afterwards.
    """

    ranks: tuple[int, ...]
    spans: tuple[tuple[tree.Span, ...], ...]
    joined: tuple[tree.Span, ...]


def levels(shards: int, hosts: Sequence[int], rank: int) -> tuple[Level, ...]:
    """Return the levels of a rank's sums, where rank r is on host ``hosts[r]``.

    Examples
    --------
    >>> [level.ranks for level in levels(4, [0, 0, 1, 1], 3)], levels(4, [0, 0, 1, 1], 3)[0].joined
    ([(2, 3), (1, 3)], ((2, 4),))
    """
    owners = dict(enumerate(tree.owners(shards, len(hosts))))
    ranks = range(len(hosts))
    members = {host: [r for r in ranks if hosts[r] == host] for host in dict.fromkeys(hosts)}
    sizes = {len(found) for found in members.values()}
    if len(members) == 1 or len(sizes) > 1 or sizes == {1}:
        return _level(shards, [*ranks], owners, dict.fromkeys(ranks, 0)) if len(hosts) > 1 else ()
    at = members[hosts[rank]].index(rank)
    of_host = dict(enumerate(hosts))
    inside = _level(shards, members[hosts[rank]], owners, of_host)
    by_host = {shard: hosts[owner] for shard, owner in owners.items()}
    across = [found[at] for found in members.values()]
    held = tuple(_held(shards, by_host, host) for host in members)
    return (*inside, Level(tuple(across), held, ((0, shards),)))


def _level(shards: int, ranks: list[int], owners: dict[int, int], unit: dict[int, int]) -> tuple[Level]:
    by_unit = {shard: unit[owner] for shard, owner in owners.items()}
    joined = _held(shards, by_unit, unit[ranks[0]])
    return (Level(tuple(ranks), tuple(_held(shards, owners, rank) for rank in ranks), joined),)


def _held(shards: int, owners: dict[int, int], owner: int) -> tuple[tree.Span, ...]:
    return tuple(span for span, found in tree.frontier((0, shards), owners) if found == owner)


def slices(size: int, nbytes: int, members: int) -> list[Range]:
    """Return each member's slice of a range; the whole range, for each, where it is small."""
    return [(0, size)] * members if nbytes <= WHOLE else even_parts(size, members)


def traffic(program: Program, hosts: Sequence[int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the messages and the bytes of one step from each rank to each other one.

    Parameters
    ----------
    program : Program
    hosts : sequence of int
        The host of each rank.

    Examples
    --------
    >>> import daskconv
    >>> program = daskconv.Trainer(daskconv.zoo.cifar10_quick()).program((32, 32, 3), 100)
    >>> traffic(program, [0, 0])  # half the gradients and half their sum each, and loss, counts and hits of the images
    {(0, 1): (3, 582360), (1, 0): (3, 582360)}
    """
    messages: Counter[tuple[int, int]] = Counter()
    nbytes: Counter[tuple[int, int]] = Counter()
    itemsize = np.dtype(program.dtype).itemsize
    ranges = [(stop - start, itemsize) for start, stop in buckets(program)]
    for rank in range(len(hosts)):
        for size, each in [*ranges, (sums_size(program), 8)]:
            for peer, sent in _sent(levels(program.shards, hosts, rank), rank, size, each):
                messages[rank, peer] += 1
                nbytes[rank, peer] += sent
    return {pair: (messages[pair], nbytes[pair]) for pair in messages}


def sums_size(program: Program) -> int:
    """Return the numbers that travel besides gradients: the sums, and how many ranks want to stop."""
    return program.sums_size + 1


def _sent(levels: Sequence[Level], rank: int, size: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """Return (peer, bytes) of each message of one bucket."""
    for level in levels:
        at = level.ranks.index(rank)
        cuts = slices(size, size * itemsize, len(level.ranks))
        own = cuts[at][1] - cuts[at][0]
        whole = cuts[0] == cuts[-1]
        for peer, (start, stop) in zip(level.ranks, cuts, strict=True):
            if peer != rank and stop > start:
                yield from [(peer, (stop - start) * itemsize)] * len(level.spans[at])
            if peer != rank and own and not whole:
                yield peer, own * itemsize
        size = own
