"""A batch on its way through the shards of a worker: forward, to the loss, and back, segment by segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from daskconv.nn import passes
from daskconv.nn.layers import Outputs
from daskconv.nn.layers.base import Context
from daskconv.plan.boxes import Edges, contains, shape_of, slices
from daskconv.plan.exchange import Exchange
from daskconv.plan.slices import Slice
from daskconv.plan.split import Stage
from daskconv.plan.tasks import Data, Indices
from daskconv.run.exchange import Steps, taking_turns
from daskconv.run.gradients import Gradients
from daskconv.timeline import in_layer

if TYPE_CHECKING:
    from daskconv.run.shards import Shards

Targets = tuple[NDArray, NDArray]
"""Targets and weights of some images."""


def read(
    shards: Shards,
    data: Data,
    indices: Indices,
    edges: Edges,
    epoch: int | None = None,
    grads: Gradients | None = None,
) -> Batch:
    """Return a batch as the shards here read it.

    Parameters
    ----------
    shards, data, indices
    edges : sequence of int
        Where each group of its images begins, and where the last one ends.
    epoch : int, optional
        None in an evaluation.
    grads : Gradients, optional
        Where gradients go; None in an evaluation.
    """
    mine, split, taken = shards.mesh.mine, shards.split, {}
    for groups, box in split.parts_read(mine):
        own = indices[edges[groups[0]] : edges[groups[1]]]
        taken[groups, box] = in_layer("data", "forward", "other", data.take, own, epoch, box)

    def targets(shard: int) -> Targets:
        groups, box = next(part for part in taken if part[0][0] <= shard < part[0][1])
        at = slice(edges[shard] - edges[groups[0]], edges[shard + 1] - edges[groups[0]])
        _, y, weight = taken[groups, box]
        return y[at], weight[at]

    values = {
        shard: {name: taken[boxes[shard][0], boxes[shard][1:]][0] for name, boxes in split.reads.items()}
        for shard in mine
    }
    return Batch(shards, indices, edges, epoch, grads, values, {shard: targets(shard) for shard in mine})


class Batch:
    """Some images on their way through the shards of a worker.

    Parameters
    ----------
    shards, indices, edges, epoch, grads
        As in :func:`read`.
    values : mapping of shard to mapping
        What each shard here holds of each value.
    targets : mapping of shard to (targets, weights)
        Those of its group of images.
    """

    def __init__(
        self,
        shards: Shards,
        indices: Indices,
        edges: Edges,
        epoch: int | None,
        grads: Gradients | None,
        values: dict[int, dict[str, Any]],
        targets: Mapping[int, Targets],
    ) -> None:
        self.shards, self.split, self.program = shards, shards.split, shards.program
        self.mine = shards.mesh.mine
        self.indices, self.edges, self.epoch = indices, edges, epoch
        self.grads, self.training = grads, grads is not None
        self.values, self.targets = values, targets
        self.saved: dict[int, dict[int, Any]] = {shard: {} for shard in self.mine}
        self.flowing: dict[int, dict[str, NDArray]] = {shard: {} for shard in self.mine}
        self.params = shards.run(shards.pieces.of)
        self.sums = {shard: np.zeros(self.program.sums_size) for shard in self.mine}

    def run(self) -> Steps[dict[int, NDArray]]:
        """Take the images to the scores, and in training the gradients back; return each shard's sums."""
        stages = range(len(self.split.stages))
        whole, sliced = stages[: self.split.sliced], stages[self.split.sliced :]
        yield from self._forward(whole)
        if sliced:
            parts = self.split.slices_of(self.edges)
            yield from taking_turns(self._take(part, sliced) for part in parts)
            for values in self.values.values():
                values.clear()
        else:
            self._lose_all()
        yield from self._backward(whole)
        return self.sums

    # Slices

    def _take(self, part: Slice, stages: Sequence[int]) -> Steps[None]:
        """Take a slice of the images through the last segments and back."""
        batch = self._slice(part)
        yield from batch._forward(stages)
        batch._lose_all()
        yield from batch._backward(stages)
        for shard in self.mine:
            self.sums[shard] += batch.sums[shard]
            for name, gradient in batch.flowing[shard].items():
                flowing = self.flowing[shard].setdefault(name, self._zeros(name, shard))
                flowing[self._rows(part, name, shard)] += gradient

    def _slice(self, part: Slice) -> Batch:
        """Return a slice of the images, with views of what the first segments have made of them."""
        values, targets = {}, {}
        for shard in self.mine:
            own = self.values[shard]
            values[shard] = {name: own[name][self._rows(part, name, shard)] for name in own}
            y, weight = self.targets[shard]
            targets[shard] = y[part.group(shard)], weight[part.group(shard)]
        return Batch(self.shards, part.of(self.indices), part.edges, self.epoch, self.grads, values, targets)

    def _rows(self, part: Slice, name: str, shard: int) -> Any:
        value = self.split.values[name]
        return part.rows(value.boxes[shard][0]) if value.batched else slice(None)

    # The way forward

    def _forward(self, stages: Sequence[int]) -> Steps[None]:
        """Take the images through some segments."""
        for number in stages:
            stage = self.split.stages[number]
            got = yield from self.shards.mesh.exchange(
                stage.exchanges, self.values, self.edges, self.program.dtype
            )
            for shard in self.mine:
                self.values[shard].update(got[shard])
                for exchange, (_, array) in zip(stage.exchanges, got[shard], strict=True):
                    self._share(shard, exchange, array)
            self.shards.run(partial(self._run, number, stage))
            for name in self.split.done_after[number]:
                for shard in self.mine:
                    self.values[shard].pop(name, None)

    def _share(self, shard: int, exchange: Exchange, array: NDArray) -> None:
        """Let what ReLUs keep for the way back be a view of the values with their halo, which are there once then."""
        value, halo = exchange.sources[shard], exchange.dests[shard]
        if not self.training or exchange.sums or not contains(halo, value):
            return
        kept = self.values[shard][exchange.value]
        view = array[slices(value, halo, self.edges if exchange.batched else None)]
        for saved, _ in self.saved[shard].values():
            for node, (tail, tape, y) in saved.items():
                if y is kept:
                    saved[node] = tail, tape, view

    def _run(self, number: int, stage: Stage, shard: int) -> None:
        run, values = stage.runs[shard], self.values[shard]
        if not run.nodes:
            return
        images = self._images(stage, shard)
        if not len(images):
            made = {node.name for node in run.nodes} & set(run.outputs)
            values.update({name: self._zeros(name, shard) for name in made})
            return
        params, statistics = self.params[shard]
        context = self._context(images)
        saved = passes.forward(run, params, statistics, values, context, keep=self.training)
        if self.training:
            self.saved[shard][number] = saved, context
            self._count(shard, context)

    def _images(self, stage: Stage, shard: int) -> Indices:
        first, last = stage.groups(shard)
        return self.indices[self.edges[first] : self.edges[last]]

    def _context(self, images: Indices) -> Context:
        # One shard here has all threads: they share its convolutions.
        return Context(
            self.training,
            threads=self.shards.threads,
            images=images,
            seed=self.program.seed,
            epoch=self.epoch or 0,
            frozen=self.program.frozen,
            spread=len(self.mine) == 1,
        )

    def _zeros(self, name: str, shard: int) -> NDArray:
        value = self.split.values[name]
        shape = shape_of(value.boxes[shard], self.edges if value.batched else None)
        return np.zeros(shape, value.dtype or self.program.dtype)

    def _count(self, shard: int, context: Context) -> None:
        """Note a shard's batch statistics, times the images that they stand for."""
        assert self.grads is not None
        for name, statistic in context.batch_statistics.items():
            first, last = self.split.pieces[shard][name].counts
            images = self.edges[last] - self.edges[first]
            if images:
                self.grads.places[shard][name] = statistic * images

    # The loss

    def _lose_all(self) -> None:
        """Take each shard's sums over its group of images; gradients begin to flow."""
        self.sums = self.shards.run(self._lose)

    def _lose(self, shard: int) -> NDArray:
        program, names = self.program, self.split.scores
        y, weight = self.targets[shard]
        if not len(y):
            return np.zeros(program.sums_size)
        network, loss = (program.network, program.loss) if self.training else program.measured
        several = isinstance(network.nodes[-1].layer, Outputs)
        scores = tuple(self.values[shard][name] for name in names[: len(network.nodes[-1].inputs)])
        given = scores if several else scores[0]
        total, gradient = in_layer("loss", "forward", "other", loss, given, y, weight)
        self.flowing[shard].update(zip(names, gradient if several else (gradient,), strict=False))
        return program.sums_of(given, y, weight, total)

    # The way back

    def _backward(self, stages: Sequence[int]) -> Steps[None]:
        """Take the gradients back through some segments, in training."""
        for number in reversed(stages) if self.training else ():
            stage = self.split.stages[number]
            self.shards.run(partial(self._run_back, number, stage))
            exchanges = self.split.back[number]
            got = yield from self.shards.mesh.exchange(
                exchanges, self.flowing, self.edges, self.program.dtype
            )
            for shard in self.mine:
                for exchange in exchanges:
                    self.flowing[shard].pop(exchange.value, None)
                for name, part in got[shard]:
                    before = self.flowing[shard].get(name)
                    self.flowing[shard][name] = part if before is None else before + part

    def _run_back(self, number: int, stage: Stage, shard: int) -> None:
        if number not in self.saved[shard]:
            return
        saved, context = self.saved[shard].pop(number)
        params, _ = self.params[shard]
        assert self.grads is not None
        split = self.split
        passes.backward(
            stage.runs[shard],
            params,
            saved,
            self.flowing[shard],
            context,
            split.learning,
            split.needed,
            self.grads.places[shard],
        )
