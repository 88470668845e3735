"""Where a pass is cut: ranges of output pixels; by shape alone, wherever the cut could be seen in the bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from daskconv.layout import even_parts

Range = tuple[int, int]

# A product is worth ten times what a tile's tasks and edges cost, about 150 microseconds out of cold caches ...
_PIPELINED_FLOPS = 160_000_000
# ... its lowered rows stay in the caches that cores share, where another core finds them, nearly so at the most where
# it would be worth less ...
_PIPELINED_BYTES, _MOST_BYTES = 4 << 20, 16 << 20
# ... and where there is work enough, all threads get some.
_PIPELINED_TILES = 8
_FEWEST_ROWS = 64
# A block is about a millisecond of work: to hand it out, and to wait for it, takes a twentieth of that ...
_BLOCK_FLOPS = 48_000_000
# ... and a thread takes another one where that is four of those: the last to end has less to wait for then.
_BLOCKS_AGAIN, _BLOCKS_A_THREAD = 4, 4
# Clearing and adding an element of a block's sum takes as long as so many operations, times 10.
_FLOPS_PER_SUM = 750
_BLOCK_BYTES = 256 << 20
_MOST_BLOCKS = 16
# The shortest turn, as a part of a thread's work: so long threads wait for the last one.
_TURNS_A_THREAD = 24


@dataclass(frozen=True)
class Work:
    """The cost of one output pixel of a pass: ``flops``, and ``bytes`` of its lowered row.

    ``grain`` is how many times a block's least work is needed to be worth what each block costs once more.
    """

    flops: int
    bytes: int
    grain: int = 1


def pipelined_tiles(rows: int, work: Work) -> list[Range]:
    """Cut rows into tiles for the pipeline: small enough for the caches, large enough for a task.

    Rows are output pixels of all images, so that a tile of a small map holds many images.
    """
    worth = max(_worth(work.flops), _FEWEST_ROWS)
    fit = max(_PIPELINED_BYTES // work.bytes, min(worth, _MOST_BYTES // work.bytes), _FEWEST_ROWS)
    fewest, shared = -(-rows // fit), min(max(rows // worth, 1), _PIPELINED_TILES)
    return split(rows, _even(fewest) if fewest > shared else 1 << shared.bit_length() - 1)


def _even(tiles: int) -> int:
    """Return so many tiles or a few more, as many for each thread: cores are mostly a power of two."""
    return min(1 << (tiles - 1).bit_length(), -(-tiles // _PIPELINED_TILES) * _PIPELINED_TILES)


def pipelined_columns(rows: int, columns: int, work: Work, grain: int = 1) -> list[Range]:
    """Cut the output channels of a tile of so many rows, where its weights are more than its lowered rows.

    All parts but the last are multiples of the ``grain``.
    """
    narrowest = -(-columns * _worth(work.flops) // max(rows, 1))
    parts = min(-(-columns // max(rows, 1)), columns // narrowest)
    return [(start * grain, min(stop * grain, columns)) for start, stop in split(-(-columns // grain), parts)]


def _worth(flops: int) -> int:
    """Return the rows of so many operations each that make a task."""
    return max(-(-_PIPELINED_FLOPS // max(flops, 1)), 1)


def blocks(rows: int, work: Work) -> list[Range]:
    """Cut rows into the blocks that threads take whole: few, and bounded in memory.

    They are a power of two, as cores mostly are: with 7 blocks, one of 2 threads waits for an eighth of the time.
    """
    worth = min(max(rows * work.flops // (_BLOCK_FLOPS * work.grain), 1), _MOST_BLOCKS)
    return split(rows, max(1 << worth.bit_length() - 1, -(-rows * work.bytes // _BLOCK_BYTES)))


def shares(flops: int, threads: int) -> int:
    """Return in how many equal parts threads take so many operations whose results are the same for any cut."""
    worth = max(flops // _BLOCK_FLOPS, 1)
    again = min(worth // (_BLOCKS_AGAIN * threads), _BLOCKS_A_THREAD)
    return min(worth, threads * max(again, 1))


@lru_cache(4096)
def turns(rows: int, threads: int, grain: int = 1) -> tuple[Range, ...]:
    """Cut rows into ranges for threads to take: half of a thread's part of what is left, but the last ones not small.

    All but the last are multiples of the ``grain``. Guided self-scheduling: C. D. Polychronopoulos and D. J. Kuck,
    IEEE Transactions on Computers 36(12), 1987.
    """
    if threads == 1:
        return ((0, rows),)
    grains = -(-rows // grain)
    cuts, least = [0], max(1, grains // (threads * _TURNS_A_THREAD))
    while cuts[-1] < grains:
        cuts.append(min(cuts[-1] + max((grains - cuts[-1]) // (2 * threads), least), grains))
    return tuple((start * grain, min(stop * grain, rows)) for start, stop in pairwise(cuts))


def grain_of_sums(elements: int) -> int:
    """Return the grain of blocks that each have a sum of so many elements, to be cleared and added."""
    return 1 + elements * _FLOPS_PER_SUM // _BLOCK_FLOPS


def split(rows: int, parts: int) -> list[Range]:
    """Cut rows into near-even ranges, none empty unless there are no rows at all."""
    return even_parts(rows, max(1, min(parts, rows)))
