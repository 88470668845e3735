"""What a plan costs: the bytes that travel in a step, and a table of a network's layers under it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from daskconv.nn.network import Network, aligned
from daskconv.plan import allreduce
from daskconv.plan.boxes import Edges, edges_of, shape_of
from daskconv.plan.exchange import Exchange
from daskconv.plan.plans import Plan
from daskconv.plan.slices import count_of
from daskconv.plan.split import Split
from daskconv.plan.splitter import split


def exchanged_bytes(split: Split, owners: Sequence[int], images: int, itemsize: int = 4) -> int:
    """Return the bytes of values and their gradients that workers send each other in a step of so many images."""
    edges = edges_of(images, split.shards)
    return sum(exchange.nbytes(owners, edges, itemsize) for exchange in split.exchanges)


def added_bytes(split: Split, owners: Sequence[int], names: Iterable[str], itemsize: int = 4) -> int:
    """Return the bytes that workers send each other to add up the gradients of weights, and batch statistics."""
    total = 0
    for bucket in split.buckets(names):
        root, size = allreduce.meetings(tuple(owners), tuple(bucket.holders)), bucket.elements
        total += sum(sent for *_, sent in allreduce.traffic(root, size, allreduce.is_whole(size * itemsize)))
    return total * itemsize


class Row(NamedTuple):
    """What a plan means for a layer.

    Attributes
    ----------
    layer, layout, exchange : str
    sent : int
        Bytes that workers send each other in a step, there and back.
    weights, values : int
        Bytes of the shard that has most.
    """

    layer: str
    layout: str
    exchange: str
    sent: int
    weights: int = 0
    values: int = 0


def describe(plan: Plan, network: Network, input_shape: tuple[int, int, int], batch: int) -> str:
    """Return the table of :meth:`Plan.describe`: one worker a shard, float32."""
    trainable = network.trainable_names(input_shape, None)
    methods = network.choose_methods(input_shape, "auto")
    parts = split(network, plan, input_shape, trainable=trainable, methods=methods)
    edges, owners = edges_of(batch, parts.shards), range(parts.shards)
    found = rows_of(parts, network, edges, owners, trainable)
    rows: list[tuple[str, ...]] = [("layer", "layout", "exchange", "sent", "weights", "values")]
    rows += [(*row[:3], *map(_short, row[3:])) for row in found]
    heaviest = max(held_bytes(parts, shard) for shard in range(parts.shards))
    rows.append(("total", "", "", _short(sum(row.sent for row in found)), _short(heaviest), ""))
    title = (
        f"Plan {plan.name} of {network.name}: {parts.shards} shards, batch {batch} of {tuple(input_shape)}"
    )
    if plan.slices != 1:
        first = network.nodes[min(plan.cut(network), len(network.nodes) - 1)].name
        title += f", from {first} on in {count_of(plan.slices, plan.shards)} slices"
    units = "sent: MB of all shards a step, there and back; weights and values: MB of the largest shard"
    return aligned(f"{title}\n{units}", rows, right=(3, 4, 5))


def rows_of(
    parts: Split, network: Network, edges: Sequence[int], owners: Sequence[int], trainable: Iterable[str]
) -> list[Row]:
    """Return a row a layer, then one for the loss and one for the gradients of weights."""
    by_position = _exchanges_by_position(parts)
    rows = []
    for position, node in enumerate(network.nodes):
        exchanges = by_position.get(position, [])
        nbytes = sum(exchange.nbytes(owners, edges, 4) for exchange in exchanges)
        weights = max(held_bytes(parts, shard, node.name) for shard in range(parts.shards))
        values = max(value_bytes(parts, shard, position, edges) for shard in range(parts.shards))
        layout = str(parts.layouts[node.name])
        rows.append(Row(node.name, layout, _kinds(exchanges), nbytes, weights, values))
    loss = [each for each in by_position.get(len(network.nodes), []) if each.kind != "slice"]
    loss_bytes = sum(each.nbytes(owners, edges, 4) for each in loss)
    rows.append(Row("loss", f"n={parts.shards}", ", ".join(each.kind for each in loss), loss_bytes))
    added = added_bytes(parts, owners, {*trainable, *parts.statistics})
    rows.append(Row("gradients", "", "all-reduce" if added else "", added))
    return rows


def _kinds(exchanges: Iterable[Exchange]) -> str:
    return ", ".join(dict.fromkeys(each.kind for each in exchanges if each.kind != "slice"))


def _exchanges_by_position(split: Split) -> dict[int, list[Exchange]]:
    """Return the exchanges, there and back, by the layer that needs them; those of the scores after the last."""
    needs: dict[str, int] = {}
    for stage in split.stages:
        run = stage.runs[0]
        for position, node in zip(run.positions, run.nodes, strict=True):
            for name in node.inputs:
                needs.setdefault(name, position)
            needs.setdefault(f"{node.name}.sum", position)
    found: dict[int, list[Exchange]] = {}
    after = 1 + max(needs.values(), default=-1)
    for stage, back in zip(split.stages, split.back, strict=True):
        for exchange in stage.exchanges:
            found.setdefault(needs.get(exchange.result, after), []).append(exchange)
        for exchange in back:
            found.setdefault(needs.get(exchange.value, after), []).append(exchange)
    return found


def held_bytes(split: Split, shard: int, node: str | None = None) -> int:
    """Return the bytes of the weights that a shard holds, of one layer or of all."""
    boxes = (
        piece.box
        for name, piece in split.pieces[shard].items()
        if name not in split.statistics and node in (None, name.rpartition(".")[0])
    )
    return sum(prod(shape_of(box, None)) for box in boxes) * 4


def value_bytes(split: Split, shard: int, position: int, edges: Sequence[int]) -> int:
    """Return the bytes of what a shard keeps of a layer for the way back: outputs, and inputs that came from others."""
    whole, sliced = set[str](), set[str]()
    for number, stage in enumerate(split.stages):
        run, names = stage.runs[shard], whole if number < split.sliced else sliced
        for at, node in zip(run.positions, run.nodes, strict=True):
            if at == position:
                names |= {node.name, *(name for name in node.inputs if name not in run.tails)}
    parts = [_nbytes(split, sliced - whole, shard, part.edges) for part in split.slices_of(edges)]
    # Two slices are there at once.
    return _nbytes(split, whole, shard, edges) + max(map(sum, zip(parts, [*parts[1:], 0], strict=True)))


def _nbytes(split: Split, names: Iterable[str], shard: int, edges: Edges) -> int:
    values = [split.values[name] for name in names]
    return sum(
        prod(shape_of(value.boxes[shard], edges if value.batched else None))
        * (np.dtype(value.dtype).itemsize if value.dtype else 4)
        for value in values
    )


def _short(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.3f}" if nbytes else ""
