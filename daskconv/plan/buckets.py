"""Buckets: the ranges of the gradient vector that are exchanged one by one, and what ranks send to add them up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from daskconv.layout import even_parts
from daskconv.plan import allreduce, tree

if TYPE_CHECKING:
    from daskconv.plan.program import Program

Range = tuple[int, int]

# Bytes of a bucket. Measured with 2 workers on 2 cores: a VGG-11's 37 MB take as long in buckets of 1 MB as of 16.
SMALLEST, LARGEST = 4_000_000, 16_000_000


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
    root = allreduce.meetings(tree.owners(program.shards, len(hosts)), None, tuple(hosts))
    itemsize = np.dtype(program.dtype).itemsize
    ranges = [(stop - start, itemsize) for start, stop in buckets(program)]
    for size, each in [*ranges, (sums_size(program), 8)]:
        for sender, receiver, elements in allreduce.traffic(root, size, allreduce.is_whole(size * each)):
            messages[sender, receiver] += 1
            nbytes[sender, receiver] += elements * each
    return {pair: (messages[pair], nbytes[pair]) for pair in messages}


def sums_size(program: Program) -> int:
    """Return the numbers that travel besides gradients: the sums, and how many ranks want to stop."""
    return program.sums_size + 1
