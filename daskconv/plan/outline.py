"""What a Program prints: its segments, and the exchanges between them, in the order of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from daskconv.plan import tree
from daskconv.plan.boxes import edges_of
from daskconv.plan.split import Split

if TYPE_CHECKING:
    from daskconv.plan.program import Program


@dataclass(frozen=True)
class Segment:
    """Layers that one shard computes without talking to another.

    Attributes
    ----------
    name : str
    layers : tuple of str
        Names of the network's nodes.
    per : {"shard", "slice", "step"}
        Whether it runs once a shard, for each slice of a batch in each shard, or once a step.
    """

    name: str
    layers: tuple[str, ...]
    per: str

    def __str__(self) -> str:
        span = f"{self.layers[0]} .. {self.layers[-1]}" if len(self.layers) > 1 else "".join(self.layers)
        return f"segment   {self.name:<14} each {self.per:<6} {span}"


@dataclass(frozen=True)
class Sent:
    """Arrays that travel between shards, there or back.

    Attributes
    ----------
    kind : str
        As in MPI: all-reduce, reduce-scatter, all-gather ...
    what : str
    nbytes : int
        Bytes of all shards, each on a worker of its own.
    """

    kind: str
    what: str
    nbytes: int

    def __str__(self) -> str:
        return f"exchange  {self.kind:<14} {self.what}, {self.nbytes:,} bytes"


def outline(program: Program) -> tuple[Segment | Sent, ...]:
    """Return what a step does, in order."""
    learners = {name.rpartition(".")[0] for name in program.trainable}
    learning = tuple(node.name for node in program.network.nodes if node.name in learners)
    update = Segment("update", learning, "step")
    order = f"summed as {tree.describe((0, program.shards))}" if program.shards <= 16 else "summed as a tree"
    if program.split is None:
        layers = tuple(node.name for node in program.network.nodes)
        nbytes = program.shards * (
            program.elements * np.dtype(program.dtype).itemsize + program.sums_size * 8
        )
        sent = Sent("all-reduce", f"gradients and sums, {order}", nbytes)
        return Segment("gradients", layers, "shard"), sent, update
    return *_of_split(program, program.split), *_gradients(program, program.split, order), update


def _of_split(program: Program, split: Split) -> Iterator[Segment | Sent]:
    edges, owners = edges_of(program.batch_size, split.shards), range(split.shards)
    itemsize = np.dtype(program.dtype).itemsize
    per = ["shard" if number < split.sliced else "slice" for number in range(len(split.stages))]
    for number, stage in enumerate(split.stages):
        for exchange in stage.exchanges:
            yield Sent(exchange.kind, exchange.value, exchange.nbytes(owners, edges, itemsize))
        if stage.runs[0].nodes:
            yield Segment(f"forward {number}", tuple(node.name for node in stage.runs[0].nodes), per[number])
    yield Segment("loss", split.scores, per[-1])
    for number, stage in reversed(list(enumerate(split.stages))):
        names = tuple(node.name for node in reversed(stage.runs[0].nodes) if node.name in split.needed)
        if names:
            yield Segment(f"backward {number}", names, per[number])
        for exchange in split.back[number]:
            yield Sent(
                exchange.kind,
                f"gradient by {exchange.result}",
                exchange.nbytes(owners, edges, itemsize),
            )


def _gradients(program: Program, split: Split, order: str) -> Iterator[Sent]:
    for bucket in split.buckets(program.vector_shapes):
        holders, pieces = bucket
        if len(holders) > 1:
            names = [name for name, _ in pieces]
            what = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"
            shards = order if len(holders) == split.shards else f"of shards {', '.join(map(str, holders))}"
            nbytes = len(holders) * bucket.elements * np.dtype(program.dtype).itemsize
            yield Sent("all-reduce", f"gradients of {what}, {shards}", nbytes)


def methods_of(methods: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line for each convolution: the method of each pass."""
    rows = {
        name: ", ".join(f"{name} {method}" for name, method in row.items()) for name, row in methods.items()
    }
    return [f"method    {name:<12} {row}" for name, row in rows.items()]
