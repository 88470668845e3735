"""Shards: a worker's part of a split Program: its pieces of the weights, and a step from images to new weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np
from dask._task_spec import Task
from numpy.typing import NDArray

from daskconv.errors import WorkerError
from daskconv.graph.threads import execute, one_thread_each
from daskconv.nn import passes
from daskconv.nn.layers import Outputs
from daskconv.nn.layers.base import Context
from daskconv.plan import tree
from daskconv.plan.boxes import Box, contains, edges_of, shape_of, slices
from daskconv.plan.exchange import Exchange
from daskconv.plan.pieces import Key, Pieces
from daskconv.plan.program import Program
from daskconv.plan.split import Split, Stage
from daskconv.plan.tasks import Data, Indices, Places, clipped, not_finite
from daskconv.run.exchange import Holders, Mesh, Steps
from daskconv.timeline import in_layer


class Shards:
    """The shards of one worker.

    Parameters
    ----------
    program : Program
        One that is split.
    pieces : Pieces
        This worker's; steps change them in place.
    mesh : Mesh
    threads : int
    """

    def __init__(self, program: Program, pieces: Pieces, mesh: Mesh, threads: int) -> None:
        assert program.split is not None
        self.program, self.split, self.pieces = program, program.split, pieces
        self.mesh, self.threads = mesh, threads

    def step(self, data: Data, indices: Indices, epoch: int, rate: float, stop: bool = False) -> Steps[bool]:
        """Take a step with the images of a batch; return whether any worker wants to stop after it."""
        batch = Batch(self, data, indices, epoch, training=True)
        yield from batch.forward()
        sums = batch.lose()
        yield from batch.backward()
        gradients = yield from self.add_gradients(batch.grads)
        control = self._control(gradients, stop)
        added = yield from self.mesh.add_everywhere(
            {shard: np.concatenate([control[shard], sums[shard]]) for shard in sums}
        )
        (square, broken, stopping), total = added[:3], added[3:]
        step = gradients, total, rate, square, bool(broken)
        in_layer("update", "backward", "other", self._update, *step)
        return bool(stopping)

    def evaluate(self, data: Data, indices: Indices) -> Steps[NDArray[np.float64]]:
        """Return the sums of some images, on every worker."""
        batch = Batch(self, data, indices, None, training=False)
        yield from batch.forward()
        return (yield from self.mesh.add_everywhere(batch.lose()))

    def run(self, function: Callable[[int], Any]) -> dict[int, Any]:
        """Call a function for each shard here, side by side on the threads."""
        shards = self.mesh.mine
        graph = {shard: Task(shard, _quietly, function, shard) for shard in shards}
        with one_thread_each():
            return dict(zip(shards, execute(graph, shards, self.threads), strict=True))

    def blocks(self, indices: Indices) -> list[tuple[Indices, Box | None]]:
        """Return the runs of a batch's images that this worker takes, and which part of each."""
        boxes = [box for _, box in self.split.parts_read(self.mesh.mine)]
        return list(zip(images_of(self.split, self.mesh.mine, indices), boxes, strict=True))

    @cached_property
    def buckets(self) -> dict[Holders, list[Key]]:
        """By the shards that hold them, the pieces whose gradients or statistics are added up together."""
        return self.split.buckets(self.program.vector_shapes)

    def vectors(self, shard: int) -> dict[Holders, NDArray]:
        """Return where a shard's gradients go: a vector of zeros for each bucket that it has a part of."""
        return {
            holders: np.zeros(size, self.program.dtype)
            for holders, size in self.sizes.items()
            if shard in holders
        }

    @cached_property
    def sizes(self) -> dict[Holders, int]:
        """The elements of each bucket."""
        return {
            holders: sum(prod(shape_of(box, None)) for _, box in pieces)
            for holders, pieces in self.buckets.items()
        }

    def views(self, holders: Holders, vector: NDArray) -> dict[Key, NDArray]:
        """Return the place of each piece in the vector of a bucket."""
        found, at = {}, 0
        for name, box in self.buckets[holders]:
            shape = shape_of(box, None)
            found[name, box] = vector[at : at + prod(shape)].reshape(shape)
            at += prod(shape)
        return found

    def add_gradients(self, grads: Mapping[int, Mapping[Holders, NDArray]]) -> Steps[dict[Key, NDArray]]:
        """Return the summed gradient of each piece that a shard here holds."""
        own: dict[Holders, dict[int, NDArray]] = {}
        for holders in self.buckets:
            if vectors := {shard: grads[shard][holders] for shard in self.mesh.mine if shard in holders}:
                own[holders] = vectors
        sums = yield from self.mesh.add_slices(own, self.sizes, self.program.dtype)
        return {
            key: view for holders, total in sums.items() for key, view in self.views(holders, total).items()
        }

    def _control(self, gradients: Mapping[Key, NDArray], stop: bool) -> dict[int, NDArray[np.float64]]:
        """Return by shard: squares of the gradients, each piece's once; how many are not finite; whether to stop."""
        found = {shard: np.zeros(3) for shard in self.mesh.mine}
        for (name, box), gradient in gradients.items():
            first = self.split.holders[name][box][0]
            if first in found and name in self.program.trainable:
                flat = gradient.reshape(-1)
                found[first][0] += np.einsum("i,i->", flat, flat, dtype=np.float64)
            found[min(found)][1] += not np.isfinite(gradient.sum(dtype=np.float64))
        found[min(found)][2] = stop
        return found

    def _update(
        self, gradients: Mapping[Key, NDArray], sums: NDArray, rate: float, square: float, broken: bool
    ) -> None:
        """Take the optimiser's step, unless some worker has a gradient that is not finite."""
        loss, weight = sums[:2]
        if broken or not np.isfinite([loss, np.dtype(self.program.dtype).type(rate)]).all():
            raise WorkerError(not_finite(self.pieces.steps + 1, loss, weight))
        scale = clipped(self.program, float(square), 1 / weight if weight > 0 else 0.0)
        self.pieces.update(self.program, gradients, sums, rate, scale)


def images_of(split: Split, shards: Sequence[int], indices: Indices) -> list[Indices]:
    """Return the runs of a batch's images that some shards take."""
    edges = edges_of(len(indices), split.shards)
    return [indices[edges[first] : edges[last]] for (first, last), _ in split.parts_read(shards)]


def images_of_workers(
    program: Program, data: Data, batches: Sequence[Indices], workers: int
) -> list[list[Indices]]:
    """Return the images of some batches that each worker takes, where a cluster holds their chunks."""
    own = [list[Indices]() for _ in range(workers)]
    owners = tree.owners(program.shards, workers)
    for batch in batches if data.chunks(batches[:1]) else []:
        for rank in range(workers):
            assert program.split is not None
            own[rank] += images_of(program.split, Mesh(owners, rank).mine, batch)
    return own


def _quietly(function: Callable[[int], Any], shard: int) -> Any:
    with np.errstate(all="ignore"):  # the update refuses what is not finite, and says so once
        return function(shard)


class Batch:
    """One batch on its way through the shards of a worker."""

    def __init__(
        self, shards: Shards, data: Data, indices: Indices, epoch: int | None, training: bool
    ) -> None:
        self.shards, self.split, self.program = shards, shards.split, shards.program
        self.data, self.indices, self.epoch, self.training = data, indices, epoch, training
        self.mine = shards.mesh.mine
        self.edges = edges_of(len(indices), self.split.shards)
        self.taken = {
            (groups, box): self._take(groups, box) for groups, box in self.split.parts_read(self.mine)
        }
        self.values: dict[int, dict[str, Any]] = {shard: self._read(shard) for shard in self.mine}
        self.targets = {shard: self._targets(shard) for shard in self.mine}
        self.taken.clear()
        self.saved: dict[int, dict[int, Any]] = {shard: {} for shard in self.mine}
        self.flowing: dict[int, dict[str, NDArray]] = {shard: {} for shard in self.mine}
        self.grads = shards.run(shards.vectors) if training else {}
        self.places = {shard: self._places(grads) for shard, grads in self.grads.items()}
        self.params = shards.run(shards.pieces.of)

    def _places(self, grads: Mapping[Holders, NDArray]) -> Places:
        """Return the places of a shard's gradients in its vectors, by name."""
        views = (self.shards.views(holders, vector) for holders, vector in grads.items())
        return Places({name: view for found in views for (name, _), view in found.items()})

    def _take(self, groups: tuple[int, int], box: Box) -> tuple[NDArray, NDArray, NDArray]:
        """Return a part of the images, targets and weights of some groups."""
        indices = self.indices[self.edges[groups[0]] : self.edges[groups[1]]]
        return in_layer("data", "forward", "other", self.data.take, indices, self.epoch, box)

    def _read(self, shard: int) -> dict[str, Any]:
        """Return what a shard reads of the images."""
        return {
            name: self.taken[boxes[shard][0], boxes[shard][1:]][0] for name, boxes in self.split.reads.items()
        }

    def _targets(self, shard: int) -> tuple[NDArray, NDArray]:
        """Return the targets and weights of a shard's group."""
        part = next(part for part in self.taken if part[0][0] <= shard < part[0][1])
        first = self.edges[part[0][0]]
        at = slice(self.edges[shard] - first, self.edges[shard + 1] - first)
        _, y, weight = self.taken[part]
        return y[at], weight[at]

    # The way forward

    def forward(self) -> Steps[None]:
        """Take the images to the scores."""
        for number, stage in enumerate(self.split.stages):
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
        for name, statistic in context.batch_statistics.items():
            first, last = self.split.pieces[shard][name].counts
            images = self.edges[last] - self.edges[first]
            if images:
                self.places[shard][name] = statistic * images

    # The loss

    def lose(self) -> dict[int, NDArray]:
        """Return each shard's sums over its group of images; gradients begin to flow."""
        return self.shards.run(self._lose)

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

    def backward(self) -> Steps[None]:
        """Take the gradients of the scores to those of the weights."""
        for number in reversed(range(len(self.split.stages))):
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
        split, grads = self.split, self.places[shard]
        passes.backward(
            stage.runs[shard],
            params,
            saved,
            self.flowing[shard],
            context,
            split.learning,
            split.needed,
            grads,
        )
