"""How a network is split under a plan: which boxes each layer needs, and what has to move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any

from daskconv.errors import InputError
from daskconv.layout import Layout, even_parts
from daskconv.nn import passes
from daskconv.nn.fuse import tails
from daskconv.nn.layers import BatchNorm, Conv2D, Dense, Outputs
from daskconv.nn.layers.base import Layer, Shape
from daskconv.nn.layers.shards import Bias, Moments, NormalizePart
from daskconv.nn.network import INPUT, Network, Node
from daskconv.plan.boxes import Box, whole
from daskconv.plan.exchange import Exchange, move, total
from daskconv.plan.fitting import fitting, required, summands, summed, unsummed
from daskconv.plan.parts import Part, part_of, summed_axes
from daskconv.plan.plans import Plan
from daskconv.plan.split import Piece, Split, Stage, Value


def split(
    network: Network, plan: Plan, input_shape: Shape, *, trainable: Sequence[str], methods: passes.Methods
) -> Split:
    """Return a network under a plan.

    Parameters
    ----------
    network, plan, input_shape
    trainable : sequence of str
        The parameters whose gradients are wanted.
    methods : mapping of str to mapping
        The method of each convolution and pass, which all its parts have.
    """
    splitter = _Splitter(network, plan, input_shape, methods)
    for position, node in enumerate(network.nodes):
        try:
            splitter.place(position, node)
        except InputError as error:
            raise InputError(f"Plan {plan.name}, layer {node.name!r}: {error}") from None
    found = splitter.finish(trainable)
    _check_slices(found, network, trainable)
    return found


def _check_slices(found: Split, network: Network, trainable: Sequence[str]) -> None:
    """Raise InputError where a layer needs more images together than a slice has."""
    learning = {name.rpartition(".")[0] for name in trainable}
    for node in network.nodes:
        if isinstance(node.layer, BatchNorm) and node.name in learning & found.sliced_nodes:
            raise InputError(
                f"The BatchNorm {node.name!r} would take its statistics from slices of a batch: let split_at name a "
                "layer after it, or leave slices at 1."
            )


@dataclass
class _Placed:
    """A node as each shard runs it."""

    name: str
    position: int
    inputs: tuple[str, ...]
    layers: list[Layer]
    level: int


@dataclass
class _Splitter:
    network: Network
    plan: Plan
    input_shape: Shape
    methods: passes.Methods
    values: dict[str, Value] = field(default_factory=dict)
    placed: list[_Placed] = field(default_factory=list)
    exchanges: dict[int, list[Exchange]] = field(default_factory=dict)
    fetched: dict[tuple[str, tuple[Box, ...]], str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    layouts: dict[str, Layout] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shards = self.plan.shards
        self.shapes = self.network.shapes(self.input_shape)
        self.asked = self.plan.layouts(self.network)
        self.pieces: list[dict[str, Piece]] = [{} for _ in range(self.shards)]
        self.learning: dict[str, dict[str, str]] = {}

    # Layouts

    def place(self, position: int, node: Node) -> None:
        """Add a node's parts, and the exchanges that they need."""
        shapes = [self.shapes[name] for name in node.inputs]
        out = self.shapes[node.name]
        if isinstance(node.layer, Outputs):
            # Several outputs stay several values.
            self.layouts[node.name] = Layout(n=self.shards)
            return
        layout = self._layout(node, shapes, out)
        self.layouts[node.name] = layout
        parts = self._parts(node.layer, shapes, out, layout)
        inputs = tuple(
            self._fetch(name, [self._input_box(name, shard, layout, part.inputs[i]) for shard, part in parts])
            for i, name in enumerate(node.inputs)
        )
        if isinstance(node.layer, BatchNorm) and (layout.h * layout.w > 1 or self.plan.synchronize):
            self._place_norm(position, node, inputs[0], layout, parts)
        else:
            self._place_parts(position, node, inputs, out, layout, parts)

    def _layout(self, node: Node, shapes: Sequence[Shape], out: Shape) -> Layout:
        """Return the layout that was asked for, or that of what the node reads, as far as the layer can be split."""
        asked, either = self.asked[node.name]
        if asked is None:
            return fitting(node.layer, shapes, out, self._followed(node))
        if self.plan.layers:
            return required(node.layer, shapes, out, asked)
        if not either:
            return fitting(node.layer, shapes, out, asked)
        by_channel = replace(asked, c=asked.k, k=1)
        choices = [fitting(node.layer, shapes, out, layout) for layout in (asked, by_channel)]
        split = [layout for layout in choices if layout.shards == asked.shards] or choices[:1]
        return min(split, key=lambda layout: self._sent(node, shapes, out, layout))

    def _followed(self, node: Node) -> Layout:
        first = node.inputs[0]
        return Layout(n=self.shards) if first == INPUT else self.values[self.held[first]].layout

    def _sent(self, node: Node, shapes: Sequence[Shape], out: Shape, layout: Layout) -> int:
        """Return the elements that a layout of a node sends for S images."""
        parts = self._parts(node.layer, shapes, out, layout)
        elements = 0
        for i, name in enumerate(node.inputs):
            boxes = [self._input_box(name, shard, layout, part.inputs[i]) for shard, part in parts]
            if name != INPUT and tuple(boxes) != self.values[self.held[name]].boxes:
                elements += _elements(move("", "", self.values[self.held[name]].boxes, boxes))
        if summands(node.layer, layout) > 1:
            elements += _elements(self._sum("", "", node.layer, out, layout))
        return elements

    # Boxes

    def _grid(self, shard: int, layout: Layout) -> dict[str, int]:
        """Return a shard's part along each axis; neighbouring shards are replicas, then differ in k, c, w, h, n."""
        part, found = shard * layout.shards // self.shards, {}
        for axis in "kcwhn":
            part, found[axis] = divmod(part, getattr(layout, axis))
        return found

    def _images(self, shard: int, layout: Layout) -> tuple[int, int]:
        return even_parts(self.shards, layout.n)[self._grid(shard, layout)["n"]]

    def _box(self, shard: int, layout: Layout, shape: Shape, cut: Layout | None = None) -> Box:
        """Return a shard's box of a node's output, without images; ``cut`` has the axes along which it is cut."""
        grid, sides, cut = self._grid(shard, layout), list(whole(shape)), cut or layout
        for axis, at in (("h", 0), ("w", 1), ("k", -1)):
            if getattr(cut, axis) > 1:
                sides[at] = even_parts(shape[at], getattr(cut, axis))[grid[axis]]
        return tuple(sides)

    def _parts(
        self, layer: Layer, shapes: Sequence[Shape], out: Shape, layout: Layout
    ) -> list[tuple[int, Part]]:
        """Return what each shard runs of a layer."""
        parts, partial = [], unsummed(layer, layout)
        for shard in range(self.shards):
            grid, summed = self._grid(shard, layout), {}
            for axis, at in (("h", 0), ("w", 1), ("c", -1)):
                if axis in summed_axes(layer) and getattr(layout, axis) > 1:
                    summed[axis] = even_parts(shapes[0][at], getattr(layout, axis))[grid[axis]]
            parts.append((shard, part_of(layer, shapes, self._box(shard, layout, out, partial), summed)))
        return parts

    def _input_box(self, name: str, shard: int, layout: Layout, box: Box) -> Box:
        if name != INPUT and not self.values[self.held[name]].batched:
            return box
        return (self._images(shard, layout), *box)

    def _fetch(self, name: str, boxes: Sequence[Box]) -> str:
        """Return the value that has these boxes, exchanged where the shards hold others."""
        wanted = tuple(boxes)
        if name == INPUT:
            return self._read(wanted)
        value = self.values[self.held[name]]
        return self._moved(self.held[name], value, wanted)

    def _read(self, boxes: tuple[Box, ...]) -> str:
        if (INPUT, boxes) not in self.fetched:
            reads = sum(source == INPUT for source, _ in self.fetched)
            name = INPUT if not reads else f"{INPUT}#{reads + 1}"
            self.fetched[INPUT, boxes] = name
            self.values[name] = Value(boxes, 0, Layout(n=self.shards))
        return self.fetched[INPUT, boxes]

    def _moved(self, held: str, value: Value, boxes: tuple[Box, ...]) -> str:
        if boxes == value.boxes:
            return held
        if (held, boxes) not in self.fetched:
            times = sum(source == held for source, _ in self.fetched)
            name = f"{held}>{times + 1}"
            exchange = move(held, name, value.boxes, boxes, batched=value.batched, dtype=value.dtype)
            self._add_exchange(exchange, value, boxes, value.layout)
            self.fetched[held, boxes] = name
        return self.fetched[held, boxes]

    def _add_exchange(self, exchange: Exchange, value: Value, boxes: tuple[Box, ...], layout: Layout) -> None:
        level = value.level + 1
        self.exchanges.setdefault(level, []).append(exchange)
        self.values[exchange.result] = replace(value, boxes=boxes, level=level, layout=layout)

    # Nodes

    def _add(
        self, name: str, position: int, inputs: tuple[str, ...], layers: list[Layer], value: Value
    ) -> None:
        level = max(self.values[read].level for read in inputs)
        self.placed.append(_Placed(name, position, inputs, layers, level))
        self.values[name] = replace(value, level=level)

    def _place_parts(
        self,
        position: int,
        node: Node,
        inputs: tuple[str, ...],
        out: Shape,
        layout: Layout,
        parts: list[tuple[int, Part]],
    ) -> None:
        batched = not node.layer.is_constant and any(self.values[name].batched for name in inputs)
        partial = unsummed(node.layer, layout)
        boxes = [self._box(shard, layout, out, partial) for shard, _ in parts]
        if batched:
            boxes = [(self._images(shard, layout), *box) for shard, box in enumerate(boxes)]
        layers = [part.layer for _, part in parts]
        self._add(node.name, position, inputs, layers, Value(tuple(boxes), 0, layout, batched))
        for shard, part in parts:
            self._hold(shard, node, node.name, part.weights, layout)
        self.held[node.name] = node.name
        if summands(node.layer, layout) > 1:
            self._place_sum(position, node, out, layout)

    def _place_sum(self, position: int, node: Node, out: Shape, layout: Layout) -> None:
        """Add the sum of what shards have summed up, cut along k into as many parts where it can be, and the bias."""
        name, after = f"{node.name}.sum", summed(node.layer, out, layout)
        exchange = self._sum(node.name, name, node.layer, out, layout)
        self._add_exchange(exchange, self.values[node.name], exchange.dests, after)
        self.held[node.name] = name
        if isinstance(node.layer, Conv2D | Dense) and node.layer.bias:
            held = f"{node.name}.bias"
            self._add(held, position, (name,), [Bias()] * self.shards, self.values[name])
            for shard, box in enumerate(exchange.dests):
                self._hold(shard, node, held, {"bias": (box[-1],)}, after)
            self.held[node.name] = held

    def _sum(self, value: str, result: str, layer: Layer, out: Shape, layout: Layout) -> Exchange:
        partial, after = unsummed(layer, layout), summed(layer, out, layout)
        sources = [
            (self._images(shard, layout), *self._box(shard, layout, out, partial))
            for shard in range(self.shards)
        ]
        dests = [(self._images(shard, after), *self._box(shard, after, out)) for shard in range(self.shards)]
        numbers = []
        for shard in range(self.shards):
            grid, number = self._grid(shard, layout), 0
            for axis in summed_axes(layer):
                number = number * getattr(layout, axis) + grid[axis]
            numbers.append(number)
        return total(value, result, sources, dests, numbers)

    def _place_norm(
        self, position: int, node: Node, read: str, layout: Layout, parts: list[tuple[int, Part]]
    ) -> None:
        """Add a batch norm whose statistics are those of several parts of the images."""
        layer, value = node.layer, self.values[read]
        assert isinstance(layer, BatchNorm)
        each = layout.h * layout.w
        boxes, needed = [], []
        for shard in range(self.shards):
            grid = self._grid(shard, layout)
            group, number = grid["n"] * each, grid["h"] * layout.w + grid["w"]
            rest = ((0, 3), value.boxes[shard][-1])
            boxes.append(((group + number, group + number + 1), *rest))
            needed.append(((0, layout.n * each) if self.plan.synchronize else (group, group + each), *rest))
        own = f"{node.name}.moments"
        moments = Value(tuple(boxes), 0, layout, batched=False, dtype="float64")
        self._add(own, position, (read,), [Moments()] * self.shards, moments)
        joined = self._moved(own, self.values[own], tuple(needed))
        part = NormalizePart(**{each.name: getattr(layer, each.name) for each in fields(layer)})
        self._add(node.name, position, (read, joined), [part] * self.shards, value)
        for shard, of_shard in parts:
            self._hold(shard, node, node.name, of_shard.weights, layout)
        self.held[node.name] = node.name

    def _hold(self, shard: int, node: Node, owner: str, boxes: Mapping[str, Box], layout: Layout) -> None:
        """Note what a shard holds of a node's weights and statistics, and which of the parts runs them."""
        shapes = [self.shapes[name] for name in node.inputs]
        statistics = node.layer.statistics(shapes[0] if len(shapes) == 1 else tuple(shapes))
        for name, box in boxes.items():
            full = f"{node.name}.{name}"
            counts = self._counts(shard, layout) if name in statistics else (0, 0)
            self.pieces[shard][full] = Piece(box, counts)
            if name not in statistics:
                self.learning.setdefault(owner, {})[name] = full
            self.owners[full] = owner

    def _counts(self, shard: int, layout: Layout) -> tuple[int, int]:
        """Return the images that a shard's batch statistics stand for: the first of those that have the same."""
        grid = self._grid(shard, layout)
        first = shard == 0 or self._grid(shard - 1, layout) != grid
        if not first or grid["h"] or grid["w"] or (self.plan.synchronize and grid["n"]):
            return 0, 0
        return (0, self.shards) if self.plan.synchronize else self._images(shard, layout)

    # The whole

    def finish(self, trainable: Sequence[str]) -> Split:
        """Return what was placed, with the scores at each shard's group of images."""
        scores = self._place_scores()
        wanted = set(trainable)
        learning = {
            owner: {name: full for name, full in row.items() if full in wanted}
            for owner, row in self.learning.items()
        }
        learning = {owner: row for owner, row in learning.items() if row}
        stages = self._stages(scores)
        return Split(
            self.shards,
            stages,
            {name: boxes for (source, boxes), name in self.fetched.items() if source == INPUT},
            scores,
            self.values,
            tuple(self.pieces),
            frozenset(self.network.statistic_shapes(self.input_shape)),
            self.owners,
            learning,
            self._needed(learning),
            self.layouts,
            self.plan.bucket_bytes,
            self.plan.slices,
            self._sliced(stages),
        )

    def _sliced(self, stages: Sequence[Stage]) -> int:
        """Return the first segment that a batch goes through in slices: no layer before the plan's cut comes later."""
        if self.plan.slices == 1:
            return len(stages)
        cut = self.plan.cut(self.network)
        return 1 + max(
            (
                number
                for number, stage in enumerate(stages)
                if any(at < cut for at in stage.runs[0].positions)
            ),
            default=-1,
        )

    def _place_scores(self) -> tuple[str, ...]:
        last = self.network.nodes[-1]
        names = last.inputs if isinstance(last.layer, Outputs) else (last.name,)
        each = [(shard, shard + 1) for shard in range(self.shards)]
        return tuple(self._fetch(name, [(n, *whole(self.shapes[name])) for n in each]) for name in names)

    def _needed(self, learning: Mapping[str, Any]) -> frozenset[str]:
        """Return the values that a gradient flows through, in the order of levels."""
        needed: set[str] = set()
        for level in range(self._levels()):
            for exchange in self.exchanges.get(level, []):
                needed |= {exchange.result} if exchange.value in needed else set()
            nodes = [
                Node(each.name, each.layers[0], each.inputs) for each in self.placed if each.level == level
            ]
            needed = passes.needs_grad(nodes, learning, needed)
        return frozenset(needed)

    def _levels(self) -> int:
        return 1 + max((value.level for value in self.values.values()), default=0)

    def _stages(self, scores: tuple[str, ...]) -> tuple[Stage, ...]:
        stages = []
        sent = {exchange.value for row in self.exchanges.values() for exchange in row} | set(scores)
        for level in range(self._levels()):
            exchanges = tuple(self.exchanges.get(level, ()))
            here = [each for each in self.placed if each.level == level]
            # Nodes of one level with other images do not read each other.
            for parts in sorted({self._images_parts(each) for each in here}) or [1]:
                nodes = [each for each in here if self._images_parts(each) == parts]
                read = {name for each in self.placed if each.level > level for name in each.inputs}
                outputs = frozenset({each.name for each in nodes} & (read | sent))
                runs = tuple(self._run(shard, nodes, outputs) for shard in range(self.shards))
                stages.append(Stage(exchanges, runs, parts, level))
                exchanges = ()
        return tuple(stages)

    def _images_parts(self, placed: _Placed) -> int:
        return self.values[placed.name].layout.n

    def _run(self, shard: int, here: list[_Placed], outputs: frozenset[str]) -> passes.Run:
        nodes = [Node(each.name, each.layers[shard], each.inputs) for each in here]
        made = {node.name for node in nodes}
        names = made.union(*(node.inputs for node in nodes))
        shapes = {name: self._shape(name, shard) for name in names}
        positions = tuple(each.position for each in here)
        kept = outputs | (names - made)
        return passes.Run(tuple(nodes), positions, tails(nodes, shapes, outputs), self.methods, kept)

    def _shape(self, name: str, shard: int) -> Shape:
        """Return the shape of a shard's part of a value, of one image."""
        return tuple(stop - start for start, stop in self.values[name].boxes[shard][1:])


def _elements(exchange: Exchange) -> int:
    return sum(prod(b - a for a, b in box) for source, dest, box in exchange.transfers if source != dest)
