"""Program: a Plan applied to a Network. Plain data: it prints, it pickles, it compares, it is executed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from dask._task_spec import Task, TaskRef
from numpy.typing import NDArray

from daskconv.layout import even_parts
from daskconv.nn.head import measured_part
from daskconv.nn.losses import Loss, first_output, loss_weights
from daskconv.nn.metrics import Metric
from daskconv.nn.network import Network
from daskconv.plan import tree
from daskconv.plan.boxes import edges_of
from daskconv.plan.outline import methods_of, outline
from daskconv.plan.plans import Plan, data
from daskconv.plan.slices import Slice, slices_of
from daskconv.plan.split import Split
from daskconv.plan.splitter import split
from daskconv.plan.tasks import Indices, add_into, block_partial, flat_layout, update

STATE, DATA = "state", "data"
"""Keys that a step's graph reads: the TrainState before the step, and the Data."""

# Sums before the metrics': the loss, its weight, images, their weight.
_HEAD = 4
# Forward passes keep nothing for a backward pass, so a block of them may be larger.
_EVALUATE_BLOCKS = 4


@dataclass(frozen=True)
class Program:
    """One training step of a network for S logical shards, and how to run it.

    Shards, blocks, methods and the order of all sums are fixed here, so that the same Program gives the
    same bits on every transport and any number of workers (on one CPU type, with one set of versions).
    ``tuning`` is the hash of the table of measurements that chose the methods, "" where the rule did; ``clip_norm``
    limits the norm of a step's gradient, ``average`` is what running means of the parameters keep in a step. With
    ``whole_shards`` a shard is one block while training. A step takes ``batches`` one after the other through the
    shards of a split network, and ``batch_size`` images in all.
    """

    network: Network
    input_shape: tuple[int, int, int]
    shards: int
    batch_size: int
    block_images: int
    methods_table: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    loss: Loss
    metrics: tuple[Metric, ...]
    optimizer: Any
    trainable: tuple[str, ...]
    seed: int = 0
    dtype: str = "float32"
    tuning: str = ""
    whole_shards: bool = False
    clip_norm: float | None = None
    average: float | None = None
    plan: Plan = field(default_factory=data)
    batches: int = 1

    @cached_property
    def split(self) -> Split | None:
        """The network as its shards run it; None where only images are split, and each shard runs the whole network."""
        if self.plan.splits_images_only:
            return None
        return split(
            self.network, self.plan, self.input_shape, trainable=self.trainable, methods=self.methods
        )

    @cached_property
    def methods(self) -> dict[str, dict[str, str]]:
        """The convolution method of each layer and pass."""
        return {name: dict(methods) for name, methods in self.methods_table}

    @cached_property
    def measured(self) -> tuple[Network, Loss]:
        """The network and the loss of an evaluation: without outputs that are for training alone."""
        return measured_part(self.network, self.loss)

    def __str__(self) -> str:
        shard = -(-self.batch_size // self.shards)
        head = (
            f"Program of {self.network.name}: batch {self.batch_size} in {self.shards} shards, "
            f"blocks of {shard if self.whole_shards else min(self.block_images, shard)} images"
        )
        head += f", {self.batches} batches after each other" if self.batches > 1 else ""
        head += f", tuning {self.tuning}" if self.tuning else ""
        return "\n".join([head, *map(str, outline(self)), *methods_of(self.methods)])

    # How a shard's gradients, and after them its batch statistics, lie in one vector.

    @cached_property
    def vector_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each gradient, and of each batch statistic after them, in the order of the vector."""
        shapes = self.network.weight_shapes(self.input_shape)
        trained = {name: shapes[name] for name in self.trainable}
        statistics = self.network.statistic_shapes(self.input_shape)
        return trained | {n: s for n, s in statistics.items() if n.rpartition(".")[0] not in self.frozen}

    @cached_property
    def frozen(self) -> frozenset[str]:
        """The layers that keep their running statistics, since none of their parameters is trained."""
        weights, statistics, trained = (
            {name.rpartition(".")[0] for name in names}
            for names in (
                self.network.weight_shapes(self.input_shape),
                self.network.statistic_shapes(self.input_shape),
                self.trainable,
            )
        )
        return frozenset(weights & statistics - trained)

    @cached_property
    def elements(self) -> int:
        """Elements of the gradient vector."""
        return sum(prod(shape) for shape in self.vector_shapes.values())

    def gradients_of(self, vector: NDArray) -> NDArray:
        """Return the part of a vector that is gradients."""
        return vector[: sum(prod(self.vector_shapes[name]) for name in self.trainable)]

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """The range of the vector that is each parameter's and statistic's."""
        return flat_layout(self.vector_shapes)

    def unflatten(self, vector: NDArray) -> dict[str, NDArray]:
        """Return views of a vector, by parameter and statistic."""
        return {
            name: vector[start:stop].reshape(self.vector_shapes[name])
            for name, (start, stop) in self.places.items()
        }

    # What is summed besides gradients.

    @cached_property
    def sums_size(self) -> int:
        """Loss, its weight, images, their weight, and the metrics' sums."""
        return _HEAD + sum(self._metric_sizes)

    @cached_property
    def _metric_sizes(self) -> list[int]:
        scores = (1, *first_output(self.network.output_shape(self.input_shape)))[-1]
        return [metric.size(scores) for metric in self.metrics]

    def sums_of(self, scores: Any, y: NDArray, weight: NDArray, loss: float) -> NDArray[np.float64]:
        """Return a block's sums; metrics read the first of several outputs."""
        scores = first_output(scores)
        counted = loss_weights(self.loss, y, weight)
        head = [loss, *(float(np.sum(each, dtype=np.float64)) for each in (counted, np.ones(len(y)), weight))]
        return np.concatenate([head, *(metric.sums(scores, y, weight) for metric in self.metrics)])

    def results(self, sums: NDArray[np.float64]) -> dict[str, Any]:
        """Return the mean loss and each metric's figure from their sums."""
        weight, at = float(sums[3]) or 1.0, _HEAD
        results: dict[str, Any] = {"loss": float(sums[0]) / (float(sums[1]) or 1.0)}
        for metric, size in zip(self.metrics, self._metric_sizes, strict=True):
            results[metric.name] = metric.result(sums[at : at + size], weight)
            at += size
        return results

    # The graphs.

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the learning rate of one step of an epoch."""
        return float(self.optimizer.rate(epoch + step / steps))

    def shard_indices(self, indices: Indices) -> list[Indices]:
        """Return the images of each shard; the shards of a short batch may be empty."""
        return [indices[start:stop] for start, stop in even_parts(len(indices), self.shards)]

    def batches_of(self, indices: Indices) -> list[Slice]:
        """Return the batches of a step: of each shard's images an even part each, so that shards keep their own."""
        found = slices_of(edges_of(len(indices), self.shards), self.batches)
        return [batch for batch in found if batch.edges[-1]]

    def blocks_of(self, indices: Indices) -> list[Indices]:
        """Return the blocks in which one thread takes a shard, or its sub-range, through the network."""
        count = 1 if self.whole_shards else max(1, -(-len(indices) // self.block_images))
        return [indices[start:stop] for start, stop in even_parts(len(indices), count)]

    def evaluate_blocks(self, images: int) -> list[Indices]:
        """Return the blocks in which a data set is evaluated, in the order of their sums."""
        size = self.block_images * _EVALUATE_BLOCKS
        return [np.arange(start, min(start + size, images)) for start in range(0, images, size)]

    def spread_threads(self, spans: Sequence[tree.Span], indices: Indices, threads: int) -> int:
        """Return the threads that share each block's convolutions: more than one where blocks are fewer than threads.

        The bits are the same: convolutions are cut by shape.
        """
        shards = self.shard_indices(indices)
        blocks = sum(len(self.blocks_of(shards[shard])) for span in spans for shard in range(*span))
        return max(1, threads // max(blocks, 1))

    def subtree_graph(
        self, span: tree.Span, indices: Indices, epoch: int, threads: int = 1, spread: int = 1
    ) -> dict[Hashable, Task]:
        """Return the tasks that end in ``("sum", *span)``: the gradients of a subtree of shards.

        ``spread`` threads share the convolutions of a block.
        """
        key = ("sum", *span)
        if tree.is_leaf(span):
            return self._shard_graph(span[0], self.shard_indices(indices)[span[0]], epoch, threads, spread)
        left, right = tree.halves(span)
        graph = self.subtree_graph(left, indices, epoch, threads, spread)
        graph |= self.subtree_graph(right, indices, epoch, threads, spread)
        graph[key] = Task(key, add_into, TaskRef(("sum", *left)), TaskRef(("sum", *right)))
        return graph

    def _shard_graph(
        self, shard: int, indices: Indices, epoch: int, threads: int, spread: int
    ) -> dict[Hashable, Task]:
        graph: dict[Hashable, Task] = {}
        blocks = self.blocks_of(indices)
        last: tuple = ()
        for number, block in enumerate(blocks):
            ends = len(blocks) == 1
            key = ("sum", shard, shard + 1) if ends else ("block", shard, number)
            args = TaskRef(STATE), TaskRef(DATA), block, epoch, threads, spread
            graph[key] = Task(key, block_partial, self, *args)
            if last:
                ends = number == len(blocks) - 1
                chain = ("sum", shard, shard + 1) if ends else ("chain", shard, number)
                graph[chain] = Task(chain, add_into, TaskRef(last), TaskRef(key))
                key = chain
            last = key
        return graph

    def to_graph(
        self, indices: Indices | None = None, epoch: int = 0, rate: float | None = None, threads: int = 1
    ) -> dict[Hashable, Task]:
        """Return the Dask graph of one step, from the keys "state" and "data" to the key "update".

        Parameters
        ----------
        indices : array of int64, optional
            Image numbers of the batch; the first ``batch_size`` when not given.
        epoch : int
        rate : float, optional
            Learning rate; the schedule's at the start of the epoch when not given.
        threads : int
            Threads of the pipeline inside a block.

        Examples
        --------
        >>> import numpy as np, daskconv
        >>> net = daskconv.zoo.lenet()
        >>> trainer = daskconv.Trainer(net)
        >>> program = trainer.program((8, 8, 1), batch_size=8)
        >>> sorted({key[0] for key in program.to_graph() if isinstance(key, tuple)})
        ['sum']
        """
        if indices is None:
            indices = np.arange(self.batch_size)
        root = (0, self.shards)
        graph = self.subtree_graph(root, indices, epoch, threads)
        rate = self.rate(epoch, 0, 1) if rate is None else rate
        graph["update"] = Task("update", update, self, TaskRef(STATE), TaskRef(("sum", *root)), rate, True)
        return graph
