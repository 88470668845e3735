"""Shards: a worker's part of a split Program: its pieces of the weights, and a step from images to new weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from dask._task_spec import Task
from numpy.typing import NDArray

from daskconv.errors import WorkerError
from daskconv.graph.threads import execute, one_thread_each
from daskconv.plan import tree
from daskconv.plan.boxes import Box, edges_of
from daskconv.plan.pieces import Key, Pieces
from daskconv.plan.program import Program
from daskconv.plan.slices import Slice, count_of
from daskconv.plan.split import Bucket, Split
from daskconv.plan.tasks import Data, Indices, all_finite, clipped, not_finite
from daskconv.run.batch import read
from daskconv.run.exchange import Mesh, Steps
from daskconv.run.gradients import Gradients
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
        gradients, sums = yield from self.gradients(data, indices, epoch)
        control = self._control(gradients, stop)
        added = yield from self.mesh.add_everywhere(
            {shard: np.concatenate([control[shard], sums[shard]]) for shard in sums}
        )
        (square, broken, stopping), total = added[:3], added[3:]
        step = gradients, total, rate, square, bool(broken)
        in_layer("update", "backward", "other", self._update, *step)
        return bool(stopping)

    def gradients(
        self, data: Data, indices: Indices, epoch: int
    ) -> Steps[tuple[dict[Key, NDArray], dict[int, NDArray]]]:
        """Return the summed gradient of each piece here, and each shard's own other sums, of a step's batches."""
        grads = Gradients(self)
        sums = {shard: np.zeros(self.program.sums_size) for shard in self.mesh.mine}
        for part in self.program.batches_of(indices):
            batch = read(self, data, part.of(indices), part.edges, epoch, grads)
            for shard, row in (yield from batch.run()).items():
                sums[shard] += row
        return (yield from grads.sums()), sums

    def evaluate(self, data: Data, indices: Indices) -> Steps[NDArray[np.float64]]:
        """Return the sums of some images, on every worker."""
        batch = read(self, data, indices, edges_of(len(indices), self.split.shards))
        sums = yield from batch.run()
        return (yield from self.mesh.add_everywhere(sums))

    def run(self, function: Callable[[int], Any]) -> dict[int, Any]:
        """Call a function for each shard here, side by side on the threads."""
        shards = self.mesh.mine
        graph = {shard: Task(shard, _quietly, function, shard) for shard in shards}
        with one_thread_each():
            return dict(zip(shards, execute(graph, shards, self.threads), strict=True))

    def blocks(self, indices: Indices) -> list[tuple[Indices, Box | None]]:
        """Return the runs of a batch's images that this worker takes, and which part of each."""
        boxes = [box for _, box in self.split.parts_read(self.mesh.mine)]
        return [
            block
            for part in self.program.batches_of(indices)
            for block in zip(images_of(self.split, self.mesh.mine, part, indices), boxes, strict=True)
        ]

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The pieces whose gradients or statistics are added up together."""
        return self.split.buckets(self.program.vector_shapes)

    @cached_property
    def times(self) -> dict[str, int]:
        """In how many parts each gradient of a step comes: of each batch, and of each slice where that is sliced."""
        split, batches = self.split, self.program.batches
        slices = dict.fromkeys(split.sliced_nodes, count_of(split.slices, split.shards))
        return {name: batches * slices.get(split.owners[name], 1) for name in self.program.vector_shapes}

    def _control(self, gradients: Mapping[Key, NDArray], stop: bool) -> dict[int, NDArray[np.float64]]:
        """Return by shard: squares of gradients to clip, each piece once; how many are not finite; whether to stop."""
        found = {shard: np.zeros(3) for shard in self.mesh.mine}
        for (name, box), gradient in gradients.items():
            first = self.split.holders[name][box][0]
            if self.program.clip_norm is not None and first in found and name in self.program.trainable:
                flat = gradient.reshape(-1)
                found[first][0] += np.einsum("i,i->", flat, flat, dtype=np.float64)
            found[min(found)][1] += not all_finite(gradient)
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


def images_of(split: Split, shards: Sequence[int], batch: Slice, indices: Indices) -> list[Indices]:
    """Return the runs of a batch's images that some shards take, where ``indices`` are those of a step."""
    images, edges = batch.of(indices), batch.edges
    return [images[edges[first] : edges[last]] for (first, last), _ in split.parts_read(shards)]


def images_of_workers(
    program: Program, data: Data, batches: Sequence[Indices], workers: int
) -> list[list[Indices]]:
    """Return the images of some batches that each worker takes, where a cluster holds their chunks."""
    own = [list[Indices]() for _ in range(workers)]
    owners = tree.owners(program.shards, workers)
    assert program.split is not None
    for indices in batches if data.chunks(batches[:1]) else []:
        for rank, batch in product(range(workers), program.batches_of(indices)):
            own[rank] += images_of(program.split, Mesh(owners, rank).mine, batch, indices)
    return own


def _quietly(function: Callable[[int], Any], shard: int) -> Any:
    with np.errstate(all="ignore"):  # the update refuses what is not finite, and says so once
        return function(shard)
