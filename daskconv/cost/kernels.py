"""Kernels: the passes of a network's layers, timed on one thread as a training step runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.cost.machine import Kernel
from daskconv.cost.work import Work, works_of
from daskconv.graph.threads import one_thread_each
from daskconv.nn import passes
from daskconv.nn.blocks import images_at_once
from daskconv.nn.fuse import Tail
from daskconv.nn.layers.base import Context, Shape
from daskconv.nn.network import INPUT, Network

ROUNDS = 9
# Operations of a block, forward and backward, above which it is not timed: larger ones take as long an image.
_MOST_FLOPS = 150e9
SHARD = 64
"""Images that methods are chosen for."""

Times = dict[tuple[str, str], float]


def measure_kernels(network: Network, input_shape: Shape, rounds: int = ROUNDS) -> list[Kernel]:
    """Return what each pass of each layer takes a block, and an image more, on one thread.

    Blocks of three sizes are run forward and backward, in turns; a line through what each takes gives both figures.
    """
    methods = network.tuned_methods(input_shape, "auto", images=SHARD)[0]
    works, block = works_of(network, input_shape, methods), block_of(network, input_shape)
    sizes = sorted({max(1, block // 8), max(1, block // 3), block})
    runner = _Runner(network, input_shape, methods, works)
    times: dict[int, list[Times]] = {size: [] for size in sizes}
    with one_thread_each():
        for number in range(rounds + 1):
            for size in sizes:
                found = runner.times(size)
                if number:  # the first compiles, and fills buffers
                    times[size].append(found)
    keys = times[sizes[0]][0]
    return [
        _fitted(key, {size: median(row[key] for row in rows) for size, rows in times.items()}) for key in keys
    ]


def block_of(network: Network, input_shape: Shape) -> int:
    """Return the images of the largest block that is timed."""
    methods = network.tuned_methods(input_shape, "auto", images=SHARD)[0]
    flops = 3 * sum(work.flops for work in works_of(network, input_shape, methods))
    return max(1, min(images_at_once(network, input_shape, methods, SHARD), int(_MOST_FLOPS / max(flops, 1))))


def _fitted(key: tuple[str, str], seconds: Mapping[int, float]) -> Kernel:
    """Return the line through the seconds of blocks of some sizes, each counted by its share of the error."""
    sizes, values = np.array(list(seconds), float), np.array(list(seconds.values()))
    if len(sizes) == 1:
        return Kernel(*key, 0.0, float(values[0] / sizes[0]))
    columns = np.stack([1 / values, sizes / values], axis=1)
    fixed, each = np.linalg.lstsq(columns, np.ones(len(values)), rcond=None)[0]
    if fixed < 0 or each < 0:
        fixed, each = (0.0, np.mean(values / sizes)) if fixed < 0 else (np.mean(values), 0.0)
    return Kernel(*key, float(fixed), float(each))


class _Runner:
    """Runs a network layer by layer, and keeps the time of each."""

    def __init__(
        self, network: Network, input_shape: Shape, methods: passes.Methods, works: Sequence[Work]
    ) -> None:
        self.network, self.shape, self.methods, self.works = network, input_shape, methods, works
        self.params = passes.by_node(network.init(0, input_shape))
        self.statistics = passes.by_node(network.init_statistics(input_shape))
        self.tails = network.tails(tuple(input_shape))
        self.names = network.trainable_names(input_shape, None)
        self.needed = passes.needs_grad(network.nodes, passes.by_node(dict.fromkeys(self.names)))

    def times(self, images: int) -> Times:
        """Return the seconds of each layer's passes over a block."""
        generator = np.random.default_rng(0)
        values: dict[str, Any] = {INPUT: generator.standard_normal((images, *self.shape), np.float32)}
        context = Context(True, images=np.arange(images))
        found, saved = Times(), []
        runs = [self._run(work) for work in self.works]
        for work, run in zip(self.works, runs, strict=True):
            started = perf_counter()
            kept = passes.forward(run, self.params, self.statistics, values, context)
            _add(found, (work.label, "forward"), perf_counter() - started)
            saved.append(kept)
        flowing = {self.works[-1].nodes[-1]: _like(values[self.works[-1].nodes[-1]])}
        learning = passes.by_node({name: name for name in self.names})
        grads: dict[str, NDArray] = {}
        for work, run, kept in reversed(list(zip(self.works, runs, saved, strict=True))):
            started = perf_counter()
            passes.backward(run, self.params, kept, flowing, context, learning, self.needed, grads)
            _add(found, (work.label, "backward"), perf_counter() - started)
        return {key: total / count for key, (total, count) in self._counted(found).items()}

    def _counted(self, found: Times) -> dict[tuple[str, str], tuple[float, int]]:
        labels = [work.label for work in self.works]
        return {key: (total, labels.count(key[0])) for key, total in found.items()}

    def _run(self, work: Work) -> passes.Run:
        """Return a run of one layer with its tail; what it reads is kept for those that read it later."""
        at = [i for i, node in enumerate(self.network.nodes) if node.name in work.nodes]
        nodes = [self.network.nodes[i] for i in at]
        tails: dict[str, Tail] = {node.name: self.tails[node.name] for node in nodes}
        later = {name for node in self.network.nodes[at[0] + 1 :] for name in node.inputs}
        return passes.Run(nodes, at, tails, self.methods, {*later, work.nodes[-1]})


def _add(times: Times, key: tuple[str, str], seconds: float) -> None:
    times[key] = times.get(key, 0.0) + seconds


def _like(value: Any) -> NDArray:
    return np.full_like(value, 1e-3)
