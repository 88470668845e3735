"""Cuts: what the shards of a plan compute, hold and move, from the shapes alone and for any number of shards.

:class:`daskconv.plan.split.Split` lists every transfer, which for thousands of shards would take minutes. Shards differ
by a row or an image at most, so that some of them stand for all; up to 16 shards, all are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from daskconv.cost.work import ITEM
from daskconv.layout import Layout
from daskconv.nn.layers import BatchNorm, Conv2D, Dense, Outputs
from daskconv.nn.layers.base import Layer, Shape
from daskconv.plan.boxes import Box, Range, intersect, whole
from daskconv.plan.fitting import summands, summed, unsummed
from daskconv.plan.parts import part_of, summed_axes

_ALL, _SOME = 16, 6


@dataclass(frozen=True)
class Grid:
    """Shards, the images of a step that they share, and those shards that stand for all."""

    shards: int
    images: int
    most: int = _ALL

    @property
    def samples(self) -> Sequence[int]:
        """The shards that are looked at."""
        if self.shards <= self.most:
            return range(self.shards)
        some = min(_SOME, self.most)
        return [i * (self.shards - 1) // (some - 1) for i in range(some)]

    def count(self, groups: Range) -> int:
        """Return the images of some groups of the batch."""
        return _edge(self.images, self.shards, groups[1]) - _edge(self.images, self.shards, groups[0])


@dataclass(frozen=True)
class Held:
    """What shards hold of a value: its shape, how it is split, and whether each image has its own."""

    shape: Shape
    layout: Layout
    batched: bool = True


@dataclass(frozen=True)
class Moved:
    """An exchange of a value between shards, one way.

    Attributes
    ----------
    name : str
        The value.
    kind : str
        As MPI calls it.
    nbytes, total : float
        Bytes that the busiest shard gets, and those of all shards.
    messages : int
        That the busiest shard gets.
    made : float
        Bytes that the busiest shard puts its result together from, its own among them.
    times : int
        In how many slices it travels, one after the other, each in so many messages.
    """

    name: str
    kind: str
    nbytes: float
    total: float
    messages: int
    made: float
    times: int = 1

    @property
    def sums(self) -> bool:
        """Whether parts are added up on the way forward, and not on the way back."""
        return self.kind in ("all-reduce", "reduce-scatter")


def needs(
    layer: Layer, shapes: tuple[Shape, ...], out: Shape, layout: Layout, grid: Grid
) -> list[tuple[Box, ...]]:
    """Return, by sampled shard, the box that it reads of each input, images first."""
    return [
        tuple(
            (_part(grid.shards, layout.n, at[0]), *box) for box in _inputs(layer, shapes, out, layout, at[1:])
        )
        for at in (place(shard, layout, grid.shards) for shard in grid.samples)
    ]


@lru_cache(maxsize=65536)
def _inputs(
    layer: Layer, shapes: tuple[Shape, ...], out: Shape, layout: Layout, at: tuple[int, ...]
) -> tuple[Box, ...]:
    h, w, c, k = at
    grid = {"h": h, "w": w, "c": c}
    ranges = {
        axis: _part(shapes[0][i], getattr(layout, axis), grid[axis])
        for axis, i in (("h", 0), ("w", 1), ("c", -1))
        if axis in summed_axes(layer) and getattr(layout, axis) > 1
    }
    return part_of(layer, shapes, _cut(out, unsummed(layer, layout), h, w, k), ranges).inputs


def place(shard: int, layout: Layout, shards: int) -> tuple[int, int, int, int, int]:
    """Return a shard's part along n, h, w, c and k, as :mod:`daskconv.plan.splitter` numbers them.

    Examples
    --------
    >>> place(5, Layout(n=2, k=4), 8)
    (1, 0, 0, 0, 1)
    """
    part = shard * layout.shards // shards
    part, k = divmod(part, layout.k)
    part, c = divmod(part, layout.c)
    part, w = divmod(part, layout.w)
    n, h = divmod(part, layout.h)
    return n, h, w, c, k


def box_of(shard: int, held: Held, grid: Grid) -> Box:
    """Return what a shard holds of a value, images first."""
    n, h, w, _, k = place(shard, held.layout, grid.shards)
    return (_part(grid.shards, held.layout.n, n), *_cut(held.shape, held.layout, h, w, k))


def _cut(shape: Shape, layout: Layout, h: int, w: int, k: int) -> Box:
    sides = list(whole(shape))
    for at, axis, number in ((0, layout.h, h), (1, layout.w, w), (-1, layout.k, k)):
        if axis > 1:
            sides[at] = _part(shape[at], axis, number)
    return tuple(sides)


def move(name: str, held: Held, needed: Sequence[Box], grid: Grid, times: int = 1) -> Moved | None:
    """Return the exchange that gives each sampled shard its box of a value; None where all have theirs.

    ``times`` counts the summands that a result is the sum of.
    """
    sizes, made, counts, grows = [], [], [], True
    for shard, box in zip(grid.samples, needed, strict=True):
        own = box_of(shard, held, grid)
        shared = intersect(own, box)
        grows = grows and shared == own
        made.append(times * _volume(box, held.batched, grid))
        sizes.append(made[-1] - (_volume(shared, held.batched, grid) if shared else 0))
        counts.append(times * _owners(held, box, grid) - (shared is not None))
    if not any(sizes):
        return None
    kind = _kind(held, needed, grows) if times == 1 else _kind_of_sum(needed)
    total = sum(sizes) / len(sizes) * grid.shards
    return Moved(name, kind, ITEM * max(sizes), ITEM * total, max(counts), ITEM * max(made))


def add_up(layer: Layer, name: str, held: Held, layout: Layout, grid: Grid) -> tuple[Moved | None, Held]:
    """Return the exchange that adds up what shards have of a layer's sums, and how the result is held."""
    if summands(layer, layout) == 1:
        return None, held
    after = Held(held.shape, summed(layer, held.shape, layout), held.batched)
    needed = [box_of(shard, after, grid) for shard in grid.samples]
    partial = Held(held.shape, as_summands(layer, layout), held.batched)
    return move(name, partial, needed, grid, summands(layer, layout)), after


def as_summands(layer: Layer, layout: Layout) -> Layout:
    """Return the layout in which shards hold summands: the split axes that are summed count as other ones."""
    # place() has to number shards as before: the summed axes become channels, along which no output is cut.
    lost = layout.shards // unsummed(layer, layout).shards
    plain = unsummed(layer, layout)
    return Layout(n=plain.n, h=plain.h, w=plain.w, c=plain.c * lost, k=plain.k)


def work_share(layer: Layer, shapes: tuple[Shape, ...], out: Shape, layout: Layout, grid: Grid) -> float:
    """Return the largest share of an image's work that a shard has."""
    shares = []
    for shard in grid.samples:
        _, h, w, c, k = place(shard, layout, grid.shards)
        box = _cut(out, unsummed(layer, layout), h, w, k)
        share = _plain_volume(box) / max(prod(out), 1)
        if summands(layer, layout) > 1:
            (read, *_) = _inputs(layer, shapes, out, layout, (h, w, c, k))
            share *= _plain_volume(read) / prod(shapes[0])
        shares.append(share)
    return max(shares)


def weight_parts(layer: Layer, layout: Layout) -> dict[str, int]:
    """Return into how many parts a plan cuts each weight and statistic; "" stands for those without a rule."""
    if isinstance(layer, Conv2D | Dense):
        return {"weight": layout.k * layout.c, "bias": layout.k * layout.c if layout.c > 1 else layout.k}
    return {"": layout.k if layout.k > 1 else 1}


def moments(name: str, layer: Layer, layout: Layout, channels: int, synchronize: bool) -> Moved | None:
    """Return the exchange of a batch norm's statistics between the parts of its images, None where there is none."""
    parts = layout.h * layout.w * (layout.n if synchronize else 1)
    if not isinstance(layer, BatchNorm) or parts == 1:
        return None
    own = 3 * -(-channels // layout.k) * 8
    nbytes = (parts - 1) * own
    return Moved(name, "all-gather", nbytes, nbytes * layout.shards, parts - 1, parts * own)


def keeps_apart(layer: Layer) -> bool:
    """Return whether a layer only names several outputs."""
    return isinstance(layer, Outputs)


def _edge(size: int, parts: int, at: int) -> int:
    short, longer = divmod(size, parts)
    return at * short + min(at, longer)


def _part(size: int, parts: int, at: int) -> Range:
    return _edge(size, parts, at), _edge(size, parts, at + 1)


def _at(size: int, parts: int, index: int) -> int:
    """Return the part that holds an index."""
    short, longer = divmod(size, parts)
    if index < longer * (short + 1):
        return index // (short + 1)
    return longer + (index - longer * (short + 1)) // max(short, 1)


def _over(size: int, parts: int, side: Range) -> int:
    """Return how many parts a range touches."""
    if parts == 1 or side[0] >= side[1]:
        return 1
    return _at(size, parts, side[1] - 1) - _at(size, parts, side[0]) + 1


def _owners(held: Held, box: Box, grid: Grid) -> int:
    """Return the boxes of a value that a box touches."""
    layout, shape = held.layout, held.shape
    count = _over(grid.shards, layout.n, box[0])
    for at, parts in ((0, layout.h), (1, layout.w), (-1, layout.k)):
        if parts > 1:
            count *= _over(shape[at], parts, box[1:][at])
    return count


def _volume(box: Box, batched: bool, grid: Grid) -> int:
    return _plain_volume(box[1:]) * (grid.count(box[0]) if batched else 1)


def _plain_volume(box: Box) -> int:
    return prod(stop - start for start, stop in box)


def _kind(held: Held, needed: Sequence[Box], grows: bool) -> str:
    if not grows:
        return "all-to-all"
    layout = held.layout
    rows = layout.h * layout.w > 1 and len(needed[0]) == 4 and len(set(needed)) > 1
    return "halo" if rows and needed[0][3] == whole(held.shape)[-1] else "all-gather"


def _kind_of_sum(needed: Sequence[Box]) -> str:
    return "all-reduce" if len(set(needed)) < len(needed) else "reduce-scatter"
