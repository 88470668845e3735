"""Parts: what layers take that have a part of their channels, and what segments take, of split Programs run here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from timeit import timeit

import numpy as np

from daskconv.cost.machine import Kernel
from daskconv.cost.trace import Case, trace
from daskconv.launch.kernels import ROUNDS, SHARD, Times, block_of
from daskconv.nn.layers import Dense, Flatten
from daskconv.nn.network import Network, Sequential
from daskconv.plan import plans
from daskconv.plan.plans import Plan
from daskconv.plan.tasks import TrainState
from daskconv.run.select import open_transport
from daskconv.timeline import own_times, record
from daskconv.train.data import ArrayData
from daskconv.train.optim import SGD
from daskconv.train.trainer import Trainer

_PARTS, _DEEP = 2, 9


def with_serial(
    kernels: Sequence[Kernel], network: Network, input_shape: tuple[int, int, int], rounds: int = ROUNDS
) -> list[Kernel]:
    """Return the kernels of a network's layers with the part of each that does not shrink with its channels.

    A step of two shards that share the channels of each layer is timed beside one of whole layers, layer by layer.
    """
    split, images = plans.model(_PARTS), block_of(network, input_shape)
    whole = _runner(network, input_shape, plans.data(1), images)
    parts = _runner(network, input_shape, split, images)
    rows = [(whole(), parts()) for _ in range(rounds + 1)][1:]  # the first compiles, and fills buffers
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for step in trace(Case(network, input_shape, SHARD), split):
        if step.work is None or step.parts == 1:
            continue
        for pass_ in ("forward", "backward"):
            key = step.node.name, pass_
            times = [(one.get(key, 0.0), two.get(key, 0.0) / _PARTS) for one, two in rows]
            one, two = map(median, zip(*times, strict=True))
            if one > 0:
                serial = (two / one - 1 / step.parts) / (1 - 1 / step.parts)
                found[step.work.label, pass_].append(min(max(serial, 0.0), 1.0))
    return [replace(each, serial=median(found.get((each.layer, each.pass_), [0.0]))) for each in kernels]


def segment_seconds(rounds: int = ROUNDS) -> float:
    """Return the seconds that a shard takes for a segment, one way, besides its layers: of nets that compute little."""
    nets = [Sequential([Flatten(), *(Dense(8) for _ in range(depth))]) for depth in (1, _DEEP)]
    shape, plan = (2, 2, 2), plans.model(_PARTS)
    runs = [_runner(net, shape, plan, 4) for net in nets]
    times = [[timeit(run, number=1) for run in runs] for _ in range(rounds + 1)][1:]
    shallow, deep = map(median, zip(*times, strict=True))
    few, many = (sum(1 for step in trace(Case(net, shape, 4), plan) if step.moves) for net in nets)
    return max((deep - shallow) / (many - few) / _PARTS / 2, 1e-6)


def _runner(
    network: Network, input_shape: tuple[int, int, int], plan: Plan, images: int
) -> Callable[[], Times]:
    """Return a function that takes a step on one thread, and returns the seconds of its layers."""
    # Random images teach nothing: with a low rate no net's loss runs away meanwhile.
    trainer = Trainer(network, optimizer=SGD(1e-6), plan=plan, transport="local")
    program = trainer.program(input_shape, images)
    generator = np.random.default_rng(0)
    x = generator.random((images, *input_shape), np.float32)
    data = ArrayData(x, np.zeros(images, np.int64), batch_size=images)
    params, statistics = network.init(0, input_shape), network.init_statistics(input_shape)
    state = TrainState(params, trainer.optimizer.init(params), statistics=statistics)
    opened, epochs = open_transport("local", None, program, state, {"train": data}, 1), iter(range(1000))

    def run() -> Times:
        with record() as spans:
            opened.run_epoch(next(epochs), lambda: False)
        times: Times = defaultdict(float)
        for span, seconds in zip(spans, own_times(spans), strict=True):
            times[span.layer, span.pass_] += seconds
        return times

    return run
