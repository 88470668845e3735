"""Implicit lowering: the micro-kernel reads the image where it lies, so no lowered copy is made.

The rows of a tile are neighbouring output pixels of one image row, its vectors are output channels, and its
loops run over the kernel's rows, its taps and the input channels. Taps that fall into the padding are
skipped, not multiplied: at the border, such a tap is added to those pixels of a tile that have it.
"""

from __future__ import annotations

from numpy.typing import NDArray

from daskconv.geometry import Correlation
from daskconv.kernels.copies import as_they_lie, padded, room_of
from daskconv.kernels.epilogue import Epilogue
from daskconv.kernels.fork_join import Helpers
from daskconv.kernels.implicit_walk import take_turns, walk_of
from daskconv.kernels.packed import Packed, cut_of, start_of
from daskconv.kernels.panels import width_of
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import tiles_of
from daskconv.kernels.turns import Turns

# Image rows that stay in L2, beside the part of a panel that they meet.
_IMAGE_BYTES = 256 << 10

# Lines of at most so many pixels are left for lines of images, where there are so many.
_SHORT_LINE, _MANY_IMAGES = 16, 24
# About so many images have their pixels side by side, in two tiles. Images are often a power of two apart, so that
# those of a tile meet in one set of the first cache, which has 8 lines or a few more: 12 drive each other out.
_SIDE_BY_SIDE = 16


def by_image(correlation: Correlation, images: int) -> bool:
    """Return whether a tile's rows are the same pixel of neighbouring images, which all have the same taps.

    Lines of few pixels divide badly into tiles, and their border is most of them.
    """
    return correlation.size[1] <= _SHORT_LINE and images >= _MANY_IMAGES and len(correlation.cols) > 1


def count_lines(correlation: Correlation, images: int) -> int:
    """Return the lines that :func:`correlate` takes turns of: rows of pixels, or a pixel of some images each."""
    p, q = correlation.size
    return -(-images // _group_of(images)) * p * q if by_image(correlation, images) else images * p


def _group_of(images: int) -> int:
    """Return how many images have their pixels side by side: near-even groups."""
    return -(-images // max(1, round(images / _SIDE_BY_SIDE)))


def copies_whole_images(x: NDArray, correlation: Correlation) -> bool:
    """Return whether images are copied, with their padding, for the lines that are asked for."""
    return not by_image(correlation, len(x)) and padded(x, correlation)[0].number > 0


def correlate(
    x: NDArray,
    packed: Packed,
    bias: NDArray | None,
    correlation: Correlation,
    turns: Turns,
    out: NDArray,
    epilogue: Epilogue,
    helpers: Helpers,
) -> int:
    """Pack the weights and write the lines of a correlation of ``x`` (n, h, w, c), C-contiguous, into ``out``.

    ``out`` (n, whole rows, whole columns, k) is the whole result; the correlation's phase and spacing say
    which of its pixels are written. An epilogue needs all of them to be. Returns how many helpers came.
    """
    tiles, width = tiles_of(x.dtype), width_of(x.dtype)
    across = by_image(correlation, len(x))
    many = _group_of(len(x))
    copies, moved = (as_they_lie(x), correlation) if across else padded(x, correlation)
    image_row = max(1, copies.columns * x.shape[3] * x.itemsize * correlation.step[0])
    arguments = (
        x.reshape(-1),
        (copies, room_of(copies, x, helpers.threads)),
        (turns.lines, turns.taken),
        packed.source,
        packed.panels,
        start_of(packed, bias),
        scratch("edge", (helpers.threads, 16 * width), x.dtype),
        out.reshape(-1),
        walk_of(moved, (len(x), copies.image[0], copies.columns, x.shape[3]), out.shape),
        tiles,
        (packed.groups, packed.channels, packed.filters),
        cut_of(packed, len(moved.cols)),
        many if across else 1 if len(moved.rows) == 1 else max(1, _IMAGE_BYTES // image_row),
        across,
        (epilogue.flat(out), epilogue.flags),
    )
    return take_turns(helpers.gate, arguments)
