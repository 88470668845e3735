"""Where a pass is cut: ranges of output pixels, by shape alone, so that the same shape gives the same bits."""

from __future__ import annotations

from dataclasses import dataclass

from daskconv.layout import even_parts

Range = tuple[int, int]

# A product of a tile is worth many times a scheduler's task (about 50 microseconds) ...
_PIPELINED_FLOPS = 64_000_000
# ... and its lowered rows stay in a core's share of the caches.
_PIPELINED_BYTES = 2 << 20
_BLOCK_FLOPS = 200_000_000
_BLOCK_BYTES = 256 << 20
_MOST_BLOCKS = 16


@dataclass(frozen=True)
class Work:
    """The cost of one output pixel of a pass: ``flops``, and ``bytes`` of its lowered row."""

    flops: int
    bytes: int


def pipelined_tiles(rows: int, work: Work) -> list[Range]:
    """Cut rows into tiles for the pipeline: small enough for the caches, large enough for a task."""
    fit = max(_PIPELINED_BYTES // work.bytes, 64)
    worth = max(_PIPELINED_FLOPS // max(work.flops, 1), 64)
    return _split(rows, -(-rows // min(fit, worth)))


def blocks(rows: int, work: Work) -> list[Range]:
    """Cut rows into the blocks that threads take whole: few, and bounded in memory."""
    worth = min(rows * work.flops // _BLOCK_FLOPS, _MOST_BLOCKS)
    return _split(rows, max(worth, -(-rows * work.bytes // _BLOCK_BYTES), 1))


def _split(rows: int, parts: int) -> list[Range]:
    """Cut rows into near-even ranges, none empty unless there are no rows at all."""
    return even_parts(rows, max(1, min(parts, rows)))
