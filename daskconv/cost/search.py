"""Search: a layout for each layer, by dynamic programming over the network's graph.

The graph is cut where all values go through one node. Between two cuts all layers have one layout, and the cheapest way
to the end of each stretch is kept for each way in which its last value may be held (Jia, Lin, Qi and Aiken 2018 search
the same space for GPUs). Costs add up here: that the gradients of a data parallel plan travel while the backward pass
goes on is for the simulator to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from daskconv.cost.cuts import Grid, Held, Moved, move
from daskconv.cost.machine import Machine
from daskconv.cost.price import exchange_seconds
from daskconv.cost.speed import assembling, seconds_of
from daskconv.cost.trace import Case, Step, Tracer
from daskconv.errors import InputError
from daskconv.layout import Layout
from daskconv.nn.layers import Conv2D, Dense, Outputs
from daskconv.nn.network import INPUT, Node
from daskconv.plan.boxes import Box
from daskconv.plan.fitting import fitting
from daskconv.plan.plans import Plan

# Ways that are followed at once, and shards that stand for all.
_WAYS, _SAMPLES = 8, 3


class Stretch(NamedTuple):
    """Nodes between two cuts of the graph: of the values before it, it reads one."""

    nodes: tuple[Node, ...]
    entry: str

    @property
    def named(self) -> list[Node]:
        """The nodes that are given a layout: those with weights, and those that would follow what came before."""
        return [
            node
            for node in self.nodes
            if isinstance(node.layer, Conv2D | Dense) or node.inputs[0] == self.entry
        ]


class Priced(NamedTuple):
    """A stretch in a layout: its seconds, what it needs of the value before it, and how its last value is held."""

    seconds: float
    boxes: tuple[tuple[Box, ...], ...]
    held: Held


class Way(NamedTuple):
    """The cheapest way to the end of a stretch."""

    seconds: float
    layouts: tuple[Layout, ...]
    held: Held | None


def by_layer(case: Case, machine: Machine, shards: int, transport: str = "mpi") -> Plan:
    """Return the plan of the cheapest layouts; raise InputError where nothing cuts the network into so many shards.

    Examples
    --------
    >>> from daskconv.cost.machine import load_machine
    >>> from daskconv.nn import zoo
    >>> case = Case(zoo.build("alexnet", 1000), (224, 224, 3), 256)
    >>> by_layer(case, load_machine("environment_a"), 64).shards
    64
    """
    stretches, options = stretches_of(case.network.nodes), layouts(shards, case.batch)
    search = _Search(case, machine, shards, transport)
    ways = [Way(0.0, (), None)]
    for stretch in stretches:
        found = [(layout, priced) for layout in options if (priced := search.priced(stretch, layout))]
        ways = _cheapest(
            Way(
                way.seconds + priced.seconds + search.fetched(stretch.entry, way.held, priced.boxes),
                (*way.layouts, layout),
                priced.held,
            )
            for way in ways
            for layout, priced in found
        )
    if not ways:
        raise InputError(f"No mixture of layouts cuts {case.network.name} into {shards} shards.")
    best = min(ways, key=lambda way: way.seconds)
    named = tuple(
        (node.name, search.fitted(node, layout))
        for stretch, layout in zip(stretches, best.layouts, strict=True)
        for node in stretch.named
    )
    return replace(Plan("by layer", Layout(n=shards)), layers=named)


def _cheapest(ways: Iterable[Way]) -> list[Way]:
    best: dict[Held | None, Way] = {}
    for way in ways:
        if way.held not in best or way.seconds < best[way.held].seconds:
            best[way.held] = way
    return sorted(best.values(), key=lambda way: way.seconds)[:_WAYS]


def layouts(shards: int, batch: int) -> list[Layout]:
    """Return the layouts that a stretch may have: images, filters, channels, rows, and mixtures of images with those.

    Examples
    --------
    >>> [str(layout) for layout in layouts(4, 2)]
    ['k=4', 'c=4', 'h=4', 'n=2, k=2', 'n=2, c=2', 'n=2, h=2', 'h=2, w=2']
    """
    found = [Layout(n=shards)] if shards <= batch else []
    counts = [n for n in (2**i for i in range(14)) if shards % n == 0 and n < shards and n <= batch]
    # Both ends matter most: few parts of the images, and as many as there are.
    for n in counts if len(counts) <= 6 else [*counts[:2], counts[len(counts) // 2], *counts[-3:]]:
        parts = shards // n
        found += [Layout(n=n, k=parts), Layout(n=n, c=parts), Layout(n=n, h=parts)]
    if shards % 2 == 0 and shards > 2:
        found.append(Layout(h=shards // 2, w=2))
    return found


def stretches_of(nodes: Sequence[Node]) -> list[Stretch]:
    """Return the nodes between cuts: after one through which all values go, before one with weights or branches."""
    last = {name: at for at, node in enumerate(nodes) for name in node.inputs}
    readers = [name for node in nodes for name in node.inputs]
    found: list[Stretch] = []
    here: list[Node] = []
    entry, read_until = INPUT, last[INPUT]
    for at, node in enumerate(nodes):
        here.append(node)
        weighs = any(isinstance(each.layer, Conv2D | Dense) for each in here)
        following = nodes[at + 1].layer if at + 1 < len(nodes) else None
        begins = isinstance(following, Conv2D | Dense) or readers.count(node.name) > 1
        if weighs and begins and read_until <= at and not isinstance(following, Outputs):
            found.append(Stretch(tuple(here), entry))
            here, entry, read_until = [], node.name, -1
        read_until = max(read_until, last.get(node.name, -1) if here else last[entry])
    if here:
        found.append(Stretch(tuple(here), entry))
    return found


class _Inside(Tracer):
    """Goes through a stretch, and notes what it needs of the value before it."""

    entry = INPUT

    def _fetches(self, name: str, boxes: tuple[Box, ...]) -> bool:
        return super()._fetches(name, boxes) and name != self.entry


class _Search:
    """Prices of stretches; equal ones are priced once."""

    def __init__(self, case: Case, machine: Machine, shards: int, transport: str) -> None:
        self.case, self.machine, self.shards = case, machine.over(transport), shards
        self.grid = Grid(shards, case.batch, _SAMPLES)
        self._known: dict[object, Priced | None] = {}
        self._moved: dict[object, float] = {}

    def fitted(self, node: Node, layout: Layout) -> Layout:
        """Return the layout as far as a layer can have it."""
        shapes = [self.case.shapes[name] for name in node.inputs]
        return fitting(node.layer, shapes, self.case.shapes[node.name], layout)

    def priced(self, stretch: Stretch, layout: Layout) -> Priced | None:
        """Return what a stretch takes in a layout; None where a layer with weights cannot have it."""
        names = {stretch.entry: -1} | {node.name: i for i, node in enumerate(stretch.nodes)}
        reads = tuple(tuple(names[name] for name in node.inputs) for node in stretch.nodes)
        ends = stretch.nodes[-1] is self.case.network.nodes[-1]
        shape = self.case.shapes[stretch.entry]
        key = (
            tuple(node.layer for node in stretch.nodes),
            reads,
            shape,
            layout,
            stretch.entry == INPUT,
            ends,
        )
        if key not in self._known:
            try:
                self._known[key] = self._priced(stretch, layout, ends)
            except InputError:
                self._known[key] = None
        return self._known[key]

    def _priced(self, stretch: Stretch, layout: Layout, ends: bool) -> Priced | None:
        named = [(node, self.fitted(node, layout)) for node in stretch.named]
        if any(isinstance(node.layer, Conv2D) and found.shards < layout.shards for node, found in named):
            return None
        asked: dict[str, tuple[Layout | None, bool]] = dict.fromkeys(
            (node.name for node in stretch.nodes), (None, False)
        )
        asked |= {node.name: (found, False) for node, found in named}
        plan = Plan("by layer", Layout(n=self.shards), layers=(("*", layout),))
        inside = _Inside(self.case, plan, asked=asked)
        inside.entry, inside.grid = stretch.entry, self.grid
        steps = [inside.step(node) for node in stretch.nodes]
        boxes = tuple(needed for name, needed in inside.fetched if name == stretch.entry)
        held = inside.values.get(stretch.nodes[-1].name, Held((), Layout(n=self.shards)))
        steps += [inside.scores()] if ends else []
        return Priced(sum(map(self._seconds, steps)), boxes, held)

    def fetched(self, entry: str, held: Held | None, boxes: tuple[tuple[Box, ...], ...]) -> float:
        """Return the seconds in which what a stretch needs travels, there and back."""
        if held is None:
            return 0.0
        if (held, boxes) not in self._moved:
            moves = [moved for each in boxes if (moved := move(entry, held, each, self.grid))]
            self._moved[held, boxes] = self._exchanged(moves, moves if entry in self.case.needed else ())
        return self._moved[held, boxes]

    def _exchanged(self, moves: Sequence[Moved], back: Sequence[Moved]) -> float:
        machine, workers = self.machine, self.shards
        travels = sum(
            exchange_seconds(machine, workers, each.messages + 1, each.nbytes, each.messages)
            for each in (*moves, *back)
        )
        return travels + assembling(machine, moves) + assembling(machine, back, back=True)

    def _seconds(self, step: Step) -> float:
        machine, workers = self.machine, self.shards
        seconds = self._exchanged(step.moves, step.back)
        if step.work is not None:
            args = step.images, 1, step.share, step.parts, min(workers, machine.workers_per_host)
            for pass_ in ("forward", "backward"):
                seconds += seconds_of(machine, step.work, pass_, *args)[0]
        for parts, nbytes in step.weights:
            members = max(1, workers // parts)
            if members > 1:  # its messages are those of all weights with the same members
                seconds += exchange_seconds(
                    machine, workers, members, 2 * nbytes * (members - 1) / members, 1
                )
        return seconds
