"""Tiling: how a scene is cut, axis by axis, into chunks of the result and the tiles that make them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from daskconv.nn.layers.base import Shape
from daskconv.scene.field import Field, Span


@dataclass(frozen=True)
class Strip:
    """A chunk along one axis.

    Attributes
    ----------
    outputs : (int, int)
        Of the whole result.
    cuts : tuple of (int, int)
        The pixels of the scene that each of its tiles is run on.
    keeps : tuple of (int, int)
        The outputs of each tile's run that are kept: side by side they are the chunk's.
    """

    outputs: Span
    cuts: tuple[Span, ...]
    keeps: tuple[Span, ...]

    @property
    def size(self) -> int:
        """The chunk's outputs."""
        return self.outputs[1] - self.outputs[0]

    @property
    def pixels(self) -> Span:
        """The pixels of the scene that the chunk's tiles read."""
        return min(start for start, _ in self.cuts), max(stop for _, stop in self.cuts)


@dataclass(frozen=True)
class Tiling:
    """The chunks of the result along rows and along columns.

    Attributes
    ----------
    rows, columns : tuple of Strip
    channels : int
        Of the scene.
    outputs : int
        Channels of the result.
    tile : (int, int)
        Pixels of the scene for a tile, without what it looks at around it.
    """

    rows: tuple[Strip, ...]
    columns: tuple[Strip, ...]
    channels: int
    outputs: int
    tile: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        return self.rows[-1].outputs[1], self.columns[-1].outputs[1]

    @property
    def windows(self) -> list[Shape]:
        """The shapes (h, w, c) that the network is run on."""
        rows, columns = (
            {b - a for strip in side for a, b in strip.cuts} for side in (self.rows, self.columns)
        )
        return sorted((h, w, self.channels) for h in rows for w in columns)

    @property
    def tiles(self) -> int:
        """Tiles of one scene."""
        rows, columns = (sum(len(strip.cuts) for strip in side) for side in (self.rows, self.columns))
        return rows * columns


def dense_tiling(field: Field, tile: tuple[int, int], group: tuple[int, int]) -> Tiling:
    """Return the tiling of a network's map into tiles of so many pixels, and so many of them a chunk."""
    rows, columns = (_dense_side(field, axis, tile[axis], group[axis]) for axis in (0, 1))
    return Tiling(rows, columns, field.shape[2], field.output[2], tile)


@lru_cache(maxsize=64)
def _dense_side(field: Field, axis: int, tile: int, group: int) -> tuple[Strip, ...]:
    outputs, rate, size = field.output[axis], field.rate(axis), field.shape[axis]
    step = max(1, int(tile * rate))
    spans = [(start, min(start + step, outputs)) for start in range(0, outputs, step)]
    cuts = _alike([field.cut(axis, span) for span in spans], size, field.stride[axis])
    keeps = [
        (int(a - start * rate), int(b - start * rate)) for (a, b), (start, _) in zip(spans, cuts, strict=True)
    ]
    return tuple(
        Strip(
            (spans[i][0], spans[i : i + group][-1][1]),
            tuple(cuts[i : i + group]),
            tuple(keeps[i : i + group]),
        )
        for i in range(0, len(spans), group)
    )


def _alike(cuts: list[Span], size: int, stride: int) -> list[Span]:
    """Return the cuts made as long as the longest, so that tiles can be stacked and one plan serves them.

    The last ones end with the scene; they start at a multiple of the stride, and so may be a little longer.
    """
    longest = max(stop - start for start, stop in cuts)
    longest += -longest % stride
    if longest >= size:
        return [(0, size)] * len(cuts)
    last = (size - longest) // stride * stride
    return [(start, start + longest) if start + longest <= size else (last, size) for start, _ in cuts]


def sliding_tiling(
    shape: Shape, window: tuple[int, int], stride: tuple[int, int], group: tuple[int, int], outputs: int
) -> Tiling:
    """Return the tiling of a map with one output for each window, a window every ``stride`` pixels."""
    sides = []
    for size, length, step, some in zip(shape[:2], window, stride, group, strict=True):
        count = (size - length) // step + 1
        ranges = [range(start, min(start + some, count)) for start in range(0, count, some)]
        sides.append(
            tuple(
                Strip(
                    (places.start, places.stop),
                    tuple((i * step, i * step + length) for i in places),
                    ((0, 1),) * len(places),
                )
                for places in ranges
            )
        )
    return Tiling(sides[0], sides[1], shape[2], outputs, window)
