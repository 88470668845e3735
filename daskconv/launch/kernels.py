"""Kernels: the passes of a network's layers, and what a block takes around them, of real blocks on one thread."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from statistics import median
from time import perf_counter

import numpy as np

from daskconv.cost.machine import Kernel
from daskconv.cost.work import around, works_of
from daskconv.graph.threads import one_thread_each
from daskconv.nn.blocks import images_at_once
from daskconv.nn.network import Network
from daskconv.plan.tasks import Places, TrainState, block_sums
from daskconv.timeline import own_times, record
from daskconv.train.data import ArrayData
from daskconv.train.trainer import Trainer

ROUNDS = 9
# Operations of a block, forward and backward, above which it is not timed: larger ones take as long an image.
_MOST_FLOPS = 150e9
SHARD = 64
"""Images that methods are chosen for."""

Image = tuple[int, int, int]
Times = dict[tuple[str, str], float]
"""Seconds, by layer and pass."""


def measure_kernels(network: Network, input_shape: Image, rounds: int = ROUNDS) -> list[Kernel]:
    """Return what each pass of each layer takes a block, and an image more, on one thread; and what is around layers.

    Blocks of two sizes are run forward and backward, in turns, the larger one as large as those of a step; a line
    through what each takes gives both figures.
    """
    block = block_of(network, input_shape)
    runs = {size: _block(network, input_shape, size) for size in {max(1, block // 3), block}}
    times: dict[int, list[Times]] = {size: [] for size in sorted(runs)}
    with one_thread_each():
        for number in range(rounds + 1):
            for size, rows in times.items():
                found = runs[size]()
                if number:  # the first compiles, and fills buffers
                    rows.append(found)
    typical = {size: _typical(rows) for size, rows in times.items()}
    return [_fitted(key, {size: found[key] for size, found in typical.items()}) for key in typical[block]]


def _typical(rows: Sequence[Times]) -> Times:
    """Return the median of each layer, so much longer that all of them take the median of whole blocks.

    What disturbs a block meets one layer or another, and the median of none.
    """
    middle = {key: median(row[key] for row in rows) for key in rows[0]}
    longer = median(sum(row.values()) for row in rows) / sum(middle.values())
    return {key: longer * seconds for key, seconds in middle.items()}


def with_crowding(
    kernels: Sequence[Kernel], network: Network, input_shape: Image, workers: int, rounds: int = ROUNDS
) -> list[Kernel]:
    """Return kernels with how many times as long each takes while so many processes do the same.

    Layers that are bound by memory wait for each other, where those bound by arithmetic do not.
    """
    block = block_of(network, input_shape)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(measure_kernels, [network] * workers, [input_shape] * workers, [1] * workers))
        alone = pool.submit(measure_kernels, network, input_shape, rounds).result()
        together = list(
            pool.map(measure_kernels, [network] * workers, [input_shape] * workers, [rounds] * workers)
        )
    rows = zip(kernels, alone, zip(*together, strict=True), strict=True)
    return [
        replace(kernel, crowding=max(1.0, median(each.total(block) for each in all_) / one.total(block)))
        for kernel, one, all_ in rows
    ]


def block_of(network: Network, input_shape: Image) -> int:
    """Return the images of the largest block that is timed."""
    methods = network.tuned_methods(input_shape, "auto", images=SHARD)[0]
    flops = 3 * sum(work.flops for work in works_of(network, input_shape, methods))
    return max(1, min(images_at_once(network, input_shape, methods, SHARD), int(_MOST_FLOPS / max(flops, 1))))


def _fitted(key: tuple[str, str], seconds: Mapping[int, float]) -> Kernel:
    """Return the line through the seconds of blocks of two sizes; it neither falls, nor begins below zero."""
    (small, short), (large, long) = min(seconds.items()), max(seconds.items())
    each = max(0.0, long - short) / (large - small) if large > small else long / large
    each = min(each, long / large)
    return Kernel(*key, long - each * large, each)


def _block(network: Network, input_shape: Image, images: int) -> Callable[[], Times]:
    """Return a function that takes a block of images through a network and back, and returns what took how long."""
    methods = network.tuned_methods(input_shape, "auto", images=SHARD)[0]
    works = works_of(network, input_shape, methods)
    labels = {work.node.name: work.label for work in works}
    alike = Counter(labels.values())
    table = tuple((name, tuple(row.items())) for name, row in methods.items())
    program = replace(Trainer(network).program(input_shape, images), methods_table=table)
    state = TrainState(network.init(0, input_shape), {}, statistics=network.init_statistics(input_shape))
    x = np.random.default_rng(0).random((images, *input_shape), np.float32)
    data, numbers = ArrayData(x, np.zeros(images, np.int64), batch_size=images), np.arange(images)
    places = program.unflatten(np.zeros(program.elements, program.dtype))
    rest = around(input_shape, network.output_shape(input_shape))

    def run() -> Times:
        started = perf_counter()
        with record() as spans:
            block_sums(program, state, data, numbers, 0, 1, 1, Places(places))
        times: Times = defaultdict(float)
        times[rest, "forward"] = perf_counter() - started
        for span, seconds in zip(spans, own_times(spans), strict=True):
            if span.layer in labels:
                label = labels[span.layer]
                times[label, span.pass_] += seconds / alike[label]
                times[rest, "forward"] -= seconds
        return times

    return run
