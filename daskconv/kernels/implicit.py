"""Implicit lowering: the micro-kernel reads the image where it lies, so no lowered copy is made.

The rows of a tile are neighbouring output pixels of one image row, its vectors are output channels, and its
loops run over the kernel's rows, its taps and the input channels. Taps that fall into the padding are
skipped, not multiplied: at the border, such a tap is added to those pixels of a tile that have it.
"""

from __future__ import annotations

from numpy.typing import NDArray

from daskconv.geometry import Correlation, Pair, Window, forward_correlation
from daskconv.kernels.copies import as_they_lie, padded, room_of
from daskconv.kernels.epilogue import NOTHING, Epilogue
from daskconv.kernels.fork_join import Helpers
from daskconv.kernels.implicit_walk import correlate_lines, take_turns, walk_of
from daskconv.kernels.packed import Packed
from daskconv.kernels.panels import width_of
from daskconv.kernels.pixels import pixel_lines
from daskconv.kernels.scratch import scratch
from daskconv.kernels.tile import tiles_of
from daskconv.kernels.turns import Range, Turns

# The part of a panel that is read for one tile after another stays in L2, beside the image rows it meets.
_PANEL_BYTES, _IMAGE_BYTES = 192 << 10, 256 << 10
# Tiles in a row of pixels of a 1x1 convolution.
_LINE_TILES = 8

# Lines of at most so many pixels are left for lines of images, where there are so many.
_SHORT_LINE, _MANY_IMAGES = 16, 24
# About so many images have their pixels side by side, in two tiles. Images are often a power of two apart, so that
# those of a tile meet in one set of the first cache, which has 8 lines or a few more: 12 drive each other out.
_SIDE_BY_SIDE = 16

_PIXEL = Window((1, 1))


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
    return take_turns(
        helpers.gate,
        x.reshape(-1),
        (copies, room_of(copies, x, helpers.threads)),
        (turns.lines, turns.taken),
        packed.source,
        packed.panels,
        _start(packed, bias),
        scratch("edge", (helpers.threads, 16 * width), x.dtype),
        out.reshape(-1),
        walk_of(moved, (len(x), copies.image[0], copies.columns, x.shape[3]), out.shape),
        tiles,
        (packed.groups, packed.channels, packed.filters),
        _cut(len(moved.cols), packed.channels, width * x.itemsize),
        many if across else 1 if len(moved.rows) == 1 else max(1, _IMAGE_BYTES // image_row),
        across,
        (epilogue.flat(out), epilogue.flags),
    )


def correlate_pixels(
    x: NDArray,
    packed: Packed,
    bias: NDArray | None,
    correlation: Correlation,
    turns: Turns,
    out: NDArray,
    epilogue: Epilogue,
) -> None:
    """Take part in packing the weights, and take turns of the lines of a pixelwise correlation."""
    packed.fill()
    for _, lines in turns.each():
        _correlate_pixels(x, packed, bias, correlation, lines, out, epilogue)


def multiply(lowered: NDArray, packed: Packed, bias: NDArray | None, columns: Range, out: NDArray) -> None:
    """Write lowered rows (m, depth) times a part of the weights, plus bias, into columns of ``out`` (m, k)."""
    rows, whole = (array.reshape(1, 1, *array.shape) for array in (lowered, out))
    pixels = forward_correlation(_PIXEL, 1, len(lowered))
    part = None if bias is None else bias[slice(*columns)]
    _correlate_pixels(rows, packed, part, pixels, (0, 1), whole, NOTHING, columns[0])


def _correlate_pixels(
    x: NDArray,
    packed: Packed,
    bias: NDArray | None,
    correlation: Correlation,
    lines: Range,
    out: NDArray,
    epilogue: Epilogue,
    first: int = 0,
) -> None:
    """Write some lines of a pixelwise correlation; the filters may be only some of ``out``, from the ``first`` on."""
    tiles, width, add = tiles_of(x.dtype), width_of(x.dtype), epilogue.flat(out)
    start, edge = _start(packed, bias), scratch("edge", (16 * width,), x.dtype)
    for images, part, whole, span in pixel_lines(x, correlation, out, lines, _LINE_TILES * tiles.double):
        offset = (whole.ctypes.data - out.ctypes.data) // out.itemsize
        correlate_lines(
            images.ctypes.data,
            packed.panels,
            start,
            edge,
            whole.reshape(-1)[first:],
            walk_of(part, images.shape, whole.shape),
            tiles,
            (packed.groups, packed.channels, packed.filters),
            _cut(1, packed.channels, width * x.itemsize),
            1,
            span,
            (add[offset:], epilogue.flags),
        )


def _start(packed: Packed, bias: NDArray | None) -> NDArray:
    """Return what sums begin with: a row of panels, flat."""
    width = width_of(packed.panels.dtype)
    start = scratch("start", (packed.groups, -(-packed.filters // width) * width), packed.panels.dtype)
    start[:] = 0
    if bias is not None:
        start[:, : packed.filters] = bias.reshape(packed.groups, -1)
    return start.reshape(-1)


def _cut(taps: int, channels: int, row_bytes: int) -> Pair:
    """Return the kernel rows and channels of a panel that are added at once."""
    kernel_row = taps * channels * row_bytes
    if kernel_row <= _PANEL_BYTES:
        return max(1, _PANEL_BYTES // kernel_row), channels
    return 1, max(1, _PANEL_BYTES // (taps * row_bytes))
