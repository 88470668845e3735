"""Trace: a step of a plan, layer by layer: its layout, its largest shard's part of the work, and what moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any, NamedTuple

from daskconv.cost.cuts import (
    Grid,
    Held,
    Moved,
    add_up,
    keeps_apart,
    moments,
    move,
    needs,
    weight_parts,
    work_share,
)
from daskconv.cost.work import ITEM, Work, works_of
from daskconv.errors import InputError
from daskconv.layout import Layout
from daskconv.nn import passes
from daskconv.nn.layers.base import Layer, Shape
from daskconv.nn.network import INPUT, Network, Node
from daskconv.plan.boxes import Box
from daskconv.plan.fitting import fitting, required
from daskconv.plan.plans import Plan
from daskconv.plan.slices import count_of

LOSS = "loss"
"""What the last step of a trace is called, after all nodes."""


@dataclass(frozen=True)
class Step:
    """A node of a network as a plan's shards run it.

    Attributes
    ----------
    node : Node
    work : Work or None
        None where it is done at the end of the layer before.
    layout : Layout
    images : int
        Of the largest shard.
    share : float
        The largest shard's share of an image's work.
    moves : tuple of Moved
        Exchanges that come before it, and the sum that comes after it, on the way forward.
    back : tuple of Moved
        Those of the gradients.
    weights : tuple of (parts, bytes)
        Into how many parts each weight and statistic is cut, and the bytes of the largest.
    held : float
        Bytes that the largest shard keeps of its output, and of inputs that came from others.
    """

    node: Node
    work: Work | None
    layout: Layout
    images: int
    share: float
    moves: tuple[Moved, ...]
    back: tuple[Moved, ...]
    weights: tuple[tuple[int, float], ...]
    held: float

    @property
    def parts(self) -> int:
        """In how many parts its channels are cut."""
        return self.layout.k * self.layout.c


@dataclass(frozen=True)
class Case:
    """What a plan is priced for: a network on images of a shape, in batches, cut into shards.

    ``chosen`` is the method of each convolution and pass; what ``auto`` chooses when not given.
    """

    network: Network
    input_shape: Shape
    batch: int
    chosen: Mapping[str, Mapping[str, str]] | None = None

    @cached_property
    def methods(self) -> Mapping[str, Mapping[str, str]]:
        """The method of each convolution and pass."""
        return self.chosen or self.network.tuned_methods(self.input_shape, "auto", images=self.batch)[0]

    @cached_property
    def works(self) -> dict[str, Work]:
        """The layers, by the name of their own node."""
        return {work.node.name: work for work in works_of(self.network, self.input_shape, self.methods)}

    @cached_property
    def made(self) -> set[str]:
        """The values that are really made: of a layer with its tail, the last."""
        return {work.nodes[-1] for work in self.works.values()}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each value."""
        return self.network.shapes(self.input_shape)

    @cached_property
    def needed(self) -> set[str]:
        """The values that a gradient flows through."""
        names = self.network.weight_shapes(self.input_shape)
        return passes.needs_grad(self.network.nodes, passes.by_node(dict.fromkeys(names)))


def trace(case: Case, plan: Plan) -> list[Step]:
    """Return what a step under a plan consists of.

    Raises
    ------
    InputError
        Where a layer cannot be split as the plan says.
    """
    tracer = Tracer(case, plan)
    steps = [tracer.step(node) for node in case.network.nodes]
    return [*steps, tracer.scores()]


@dataclass
class Tracer:
    """Goes through a network from the images to the scores."""

    case: Case
    plan: Plan
    values: dict[str, Held] = field(default_factory=dict)
    fetched: set[tuple[str, tuple[Box, ...]]] = field(default_factory=set)
    asked: Mapping[str, tuple[Layout | None, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.grid = Grid(self.plan.shards, self.case.batch)
        network, plan = self.case.network, self.plan
        self.asked = self.asked or plan.layouts(network)
        self.slices, sliced = count_of(plan.slices, plan.shards), len(network.nodes)
        if self.slices > 1:
            sliced = plan.cut(network)
        self.sliced = {node.name for node in network.nodes[sliced:]}

    def step(self, node: Node) -> Step:
        """Add a node."""
        case, grid = self.case, self.grid
        shapes, out = tuple(case.shapes[name] for name in node.inputs), case.shapes[node.name]
        if keeps_apart(node.layer):
            return Step(node, None, Layout(n=grid.shards), 0, 0.0, (), (), (), 0.0)
        layout = self._layout(node, shapes, out)
        given = tuple(self.values.get(name) for name in node.inputs)
        part = _part(node.layer, shapes, out, layout, given, grid, self.plan.synchronize)
        self.values[node.name] = part.held
        moves, back = [], []
        times = self.slices if node.name in self.sliced else 1
        for name, boxes, moved in zip(node.inputs, part.boxes, part.moved, strict=True):
            if self._fetches(name, boxes) and moved:
                moves.append(replace(moved, name=name, times=times))
                back += moves[-1:] if name in case.needed else []
        for each in part.sums:
            moves.append(replace(each, name=node.name, times=times))
            back.append(moves[-1])
        made = node.name in case.made
        kept = made * ITEM * part.images * part.share * prod(out) + sum(each.nbytes for each in moves)
        # Two slices are there at once.
        kept *= min(1.0, 2 / times)
        work = case.works.get(node.name)
        return Step(
            node, work, layout, part.images, part.share, tuple(moves), tuple(back), part.weights, kept
        )

    def scores(self) -> Step:
        """Return the exchange of the scores, so that each shard has those of its group of images."""
        last = self.case.network.nodes[-1]
        grid, moves = self.grid, []
        for name in last.inputs if keeps_apart(last.layer) else (last.name,):
            held = self.values[name]
            needed = [((shard, shard + 1), *((0, size) for size in held.shape)) for shard in grid.samples]
            moves.append(move(name, held, needed, grid))
        found = tuple(replace(each, times=self.slices) for each in moves if each)
        images = -(-self.case.batch // grid.shards)
        return Step(Node(LOSS, last.layer), None, Layout(n=grid.shards), images, 0.0, found, found, (), 0.0)

    def _layout(self, node: Node, shapes: tuple[Shape, ...], out: Shape) -> Layout:
        asked, either = self.asked[node.name]
        try:
            if asked is None:
                first = node.inputs[0]
                follows = Layout(n=self.grid.shards) if first == INPUT else self.values[first].layout
                return fitting(node.layer, shapes, out, follows)
            if self.plan.layers:
                return required(node.layer, shapes, out, asked)
        except InputError as error:
            raise InputError(f"Plan {self.plan.name}, layer {node.name!r}: {error}") from None
        if not either:
            return fitting(node.layer, shapes, out, asked)
        by_channel = replace(asked, c=asked.k, k=1)
        choices = [fitting(node.layer, shapes, out, layout) for layout in (asked, by_channel)]
        split = [layout for layout in choices if layout.shards == asked.shards] or choices[:1]
        return min(split, key=lambda layout: self._sent(node, shapes, out, layout))

    def _sent(self, node: Node, shapes: tuple[Shape, ...], out: Shape, layout: Layout) -> float:
        """Return the bytes that a layout of a node sends for as many images as shards."""
        grid = Grid(self.grid.shards, self.grid.shards)
        boxes = needs(node.layer, shapes, out, layout, grid)
        total = 0.0
        for i, name in enumerate(node.inputs):
            moved = name != INPUT and move(name, self.values[name], [box[i] for box in boxes], grid)
            total += moved.total if moved else 0.0
        summed = add_up(node.layer, node.name, Held(out, layout), layout, grid)[0]
        return total + (summed.total if summed else 0.0)

    def _fetches(self, name: str, boxes: tuple[Box, ...]) -> bool:
        """Return whether a value is fetched now: images are read, and what came once is there."""
        if name == INPUT or (name, boxes) in self.fetched:
            return False
        self.fetched.add((name, boxes))
        return True


class _Part(NamedTuple):
    """What a layer's layout means, by the values that it reads; "moved" belongs to each of them."""

    boxes: tuple[tuple[Box, ...], ...]
    moved: tuple[Moved | None, ...]
    sums: tuple[Moved, ...]
    held: Held
    images: int
    share: float
    weights: tuple[tuple[int, float], ...]


@lru_cache(maxsize=16384)
def _part(
    layer: Layer,
    shapes: tuple[Shape, ...],
    out: Shape,
    layout: Layout,
    given: tuple[Held | None, ...],
    grid: Grid,
    synchronize: bool,
) -> _Part:
    """Return what a layer's layout means: networks have the same layers again and again."""
    needed = needs(layer, shapes, out, layout, grid)
    boxes = tuple(tuple(box[i] for box in needed) for i in range(len(shapes)))
    moved = tuple(
        move("", held, each, grid) if held else None for held, each in zip(given, boxes, strict=True)
    )
    batched = not layer.is_constant and any(held is None or held.batched for held in given)
    total, after = add_up(layer, "", Held(out, layout, batched), layout, grid)
    norm = moments("", layer, layout, out[-1] if out else 1, synchronize)
    sums = tuple(each for each in (norm, total) if each)
    images = max(grid.count(box[0][0]) for box in needed) if shapes else 0
    share = work_share(layer, shapes, out, layout, grid)
    return _Part(boxes, moved, sums, after, images, share, _weights(layer, shapes, layout))


def _weights(layer: Layer, shapes: tuple[Shape, ...], layout: Layout) -> tuple[tuple[int, float], ...]:
    read: Any = shapes[0] if len(shapes) == 1 else shapes
    named = {**layer.weights(read), **layer.statistics(read)}
    parts = weight_parts(layer, layout)
    found = []
    for name, (shape, _) in named.items():
        count = min(parts.get(name, parts.get("", 1)), max(prod(shape), 1))
        found.append((count, ITEM * -(-prod(shape) // count)))
    return tuple(found)
