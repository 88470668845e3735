"""Split: a network as its shards run it: segments that need no other shard, and the exchanges between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

from daskconv.layout import Layout, even_parts
from daskconv.nn import passes
from daskconv.plan.boxes import Box, Edges, shape_of
from daskconv.plan.buckets import sizes
from daskconv.plan.exchange import Exchange
from daskconv.plan.slices import Slice, Slices, slices_of

# Buckets are cut alike for any dtype.
_ITEMSIZE = 4


@dataclass(frozen=True)
class Value:
    """What shards hold of a value between two layers.

    Attributes
    ----------
    boxes : tuple of Box
        By shard; the first axis counts groups of images where it is ``batched``.
    level : int
        The segment that computes it.
    layout : Layout
        How its images, rows, columns and channels (k) are split.
    """

    boxes: tuple[Box, ...]
    level: int
    layout: Layout
    batched: bool = True
    dtype: str | None = None


@dataclass(frozen=True)
class Piece:
    """What a shard holds of a parameter or a running statistic.

    Attributes
    ----------
    box : Box
    counts : (int, int)
        The groups of images that the shard's batch statistics are counted for: none where another shard gives them.
    """

    box: Box
    counts: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Stage:
    """Exchanges, then a segment: nodes that each shard runs without talking to another.

    Attributes
    ----------
    exchanges : tuple of Exchange
    runs : tuple of Run
        By shard.
    parts : int
        In how many parts n is split here.
    level : int
        Exchanges are between levels; segments of one level differ in ``parts``.
    """

    exchanges: tuple[Exchange, ...]
    runs: tuple[passes.Run, ...]
    parts: int
    level: int

    def groups(self, shard: int) -> tuple[int, int]:
        """Return the groups of images that a shard takes through the segment."""
        return even_parts(len(self.runs), self.parts)[shard * self.parts // len(self.runs)]


class Bucket(NamedTuple):
    """Gradients, and batch statistics, that are added up together.

    Attributes
    ----------
    holders : tuple of int
        The shards that have them.
    pieces : tuple of (str, Box)
        In the order in which a backward pass completes them.
    """

    holders: tuple[int, ...]
    pieces: tuple[tuple[str, Box], ...]

    @property
    def elements(self) -> int:
        """The elements of all its pieces."""
        return sum(prod(shape_of(box, None)) for _, box in self.pieces)


@dataclass(frozen=True)
class Split:
    """A network under a plan.

    Attributes
    ----------
    shards : int
    stages : tuple of Stage
    reads : mapping of str to tuple of Box
        What shards read of the images, by the name of the value.
    scores : tuple of str
        The values that the loss takes: of each shard's group of images.
    values : mapping of str to Value
    pieces : tuple of mapping of str to Piece
        By shard, what it holds of parameters and running statistics.
    statistics : frozenset of str
        The names of running statistics.
    owners : mapping of str to str
        The node that runs each parameter or statistic.
    learning : mapping of str to mapping
        By node, what the gradient of each weight is called.
    needed : frozenset of str
        The values that a gradient flows through.
    layouts : mapping of str to Layout
        By node of the network, as they are.
    bucket_bytes : int, optional
        As the plan has it.
    slices : int or "shard"
        The slices in which a batch goes through the last segments.
    sliced : int
        The first of those segments.
    """

    shards: int
    stages: tuple[Stage, ...]
    reads: Mapping[str, tuple[Box, ...]]
    scores: tuple[str, ...]
    values: Mapping[str, Value]
    pieces: tuple[Mapping[str, Piece], ...]
    statistics: frozenset[str]
    owners: Mapping[str, str]
    learning: Mapping[str, Mapping[str, str]]
    needed: frozenset[str]
    layouts: Mapping[str, Layout]
    bucket_bytes: int | None
    slices: Slices
    sliced: int

    def slices_of(self, edges: Edges) -> list[Slice]:
        """Return the slices of a batch, one after the other."""
        return slices_of(edges, self.slices)

    @cached_property
    def sliced_nodes(self) -> frozenset[str]:
        """The nodes that a batch goes through in slices."""
        return frozenset(node.name for stage in self.stages[self.sliced :] for node in stage.runs[0].nodes)

    @cached_property
    def holders(self) -> dict[str, dict[Box, list[int]]]:
        """The shards that hold each piece of each parameter and statistic."""
        found: dict[str, dict[Box, list[int]]] = {}
        for shard, pieces in enumerate(self.pieces):
            for name, piece in pieces.items():
                found.setdefault(name, {}).setdefault(piece.box, []).append(shard)
        return found

    def buckets(self, names: Iterable[str]) -> list[Bucket]:
        """Return the buckets of gradients and statistics, in the order in which a backward pass completes them.

        A bucket has pieces that the same shards hold, as many as make it large enough to travel.
        """
        wanted, smallest = set(names), sizes(self.bucket_bytes)[0]
        found: list[Bucket] = []
        filling: dict[tuple[int, ...], list[tuple[str, Box]]] = {}
        for name in (name for name in self._completed if name in wanted):
            for box, shards in self.holders[name].items():
                pieces = filling.setdefault(holders := tuple(shards), [])
                pieces.append((name, box))
                if (bucket := Bucket(holders, tuple(pieces))).elements * _ITEMSIZE >= smallest:
                    found.append(bucket)
                    del filling[holders]
        return found + [Bucket(holders, tuple(pieces)) for holders, pieces in filling.items()]

    @cached_property
    def _completed(self) -> list[str]:
        """The parameters and statistics, in the order in which a backward pass completes their gradients."""
        nodes = [node.name for stage in self.stages for node in stage.runs[0].nodes]
        last = {node: at for at, node in enumerate(nodes)}
        return sorted(self.holders, key=lambda name: -last[self.owners[name]])

    def parts_read(self, shards: Iterable[int]) -> list[tuple[tuple[int, int], Box]]:
        """Return what some shards read, each once: groups of images with targets, and which part of the images."""
        shards, found = list(shards), dict[tuple[tuple[int, int], Box], None]()
        for shard in shards:
            for boxes in self.reads.values():
                found[boxes[shard][0], boxes[shard][1:]] = None
        for shard in shards:
            if not any(first <= shard < last for (first, last), _ in found):
                found[(shard, shard + 1), next(iter(found))[1]] = None
        return list(found)

    @cached_property
    def done_after(self) -> tuple[tuple[str, ...], ...]:
        """By stage, the values that nobody reads after its segment."""
        last: dict[str, int] = {}
        for number, stage in enumerate(self.stages):
            read = {name for node in stage.runs[0].nodes for name in node.inputs}
            last |= dict.fromkeys(read | {exchange.value for exchange in stage.exchanges}, number)
        for name in self.scores:
            last.pop(name, None)
        return tuple(
            tuple(name for name, at in last.items() if at == number) for number in range(len(self.stages))
        )

    @cached_property
    def back(self) -> tuple[tuple[Exchange, ...], ...]:
        """By stage, the exchanges of gradients after its segment's way back."""
        return tuple(
            tuple(exchange.transposed() for exchange in stage.exchanges if exchange.value in self.needed)
            for stage in self.stages
        )

    @property
    def exchanges(self) -> list[Exchange]:
        """All exchanges of a step but those of gradients by weights, in order."""
        there = [exchange for stage in self.stages for exchange in stage.exchanges]
        return there + [exchange for row in reversed(self.back) for exchange in row]
