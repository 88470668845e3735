"""How fast a training step is here: methods of convolution in alternating runs, so that only they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from daskconv.nn.losses import first_output
from daskconv.nn.network import Network, aligned
from daskconv.plan.tasks import TrainState
from daskconv.run.select import open_transport
from daskconv.train.data import ArrayData
from daskconv.train.normalize import Normalize
from daskconv.train.optim import SGD
from daskconv.train.trainer import Trainer

PLAIN = "lowering"
"""What the other methods are compared with: the whole block lowered, then one matrix product."""


@dataclass(frozen=True)
class Speeds:
    """The seconds of training steps, round by round; it prints as a table.

    Attributes
    ----------
    title : str
    batch : int
    seconds : mapping of (method, threads) to sequence of float
    """

    title: str
    batch: int
    seconds: Mapping[tuple[str, int], Sequence[float]]

    def ratios(self, method: str, threads: int) -> list[float]:
        """Return how many times as fast it was as plain lowering on as many threads as any, in each round."""
        plain = self.seconds[PLAIN, max(threads for _, threads in self.seconds)]
        return [a / b for a, b in zip(plain, self.seconds[method, threads], strict=True)]

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("method", "threads", "images/s", f"over {PLAIN}", "in the rounds")]
        for (method, threads), seconds in self.seconds.items():
            ratios = self.ratios(method, threads)
            rate = f"{self.batch / median(seconds):,.0f}"
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            rows.append((method, str(threads), rate, f"{median(ratios):.2f}", spread))
        return aligned(self.title, rows, right=(1, 2, 3, 4))


def compare_methods(
    network: Network,
    input_shape: tuple[int, int, int],
    *,
    batch: int,
    threads: int,
    rounds: int,
    methods: Sequence[str] = ("auto", "pipelined", PLAIN),
) -> Speeds:
    """Time a training step with each method, in turns, on random images.

    Parameters
    ----------
    network : Network
    input_shape : (h, w, c)
    batch, threads, rounds : int
        "auto" runs on one thread, too, where there are more.
    methods : sequence of str
        One of them is "lowering".

    Examples
    --------
    >>> from daskconv.nn import zoo
    >>> speeds = compare_methods(zoo.build("lenet", 10), (8, 8, 1), batch=8, threads=1, rounds=1)
    >>> sorted(speeds.seconds)
    [('auto', 1), ('lowering', 1), ('pipelined', 1)]
    """
    sides = [(method, threads) for method in methods] + ([("auto", 1)] if threads > 1 else [])
    steps = {side: _step(network, input_shape, batch, *side) for side in sides}
    for step in steps.values():
        step()  # compiles, and fills buffers
    seconds: dict[tuple[str, int], list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            started = perf_counter()
            steps[side]()
            seconds[side].append(perf_counter() - started)
    title = f"A training step of {network.name}, {batch} images of {tuple(input_shape)}, {rounds} rounds"
    return Speeds(title, batch, seconds)


def _step(
    network: Network, shape: tuple[int, int, int], batch: int, method: str, threads: int
) -> Callable[[], Any]:
    """Return a function that runs one step."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (batch, *shape), np.uint8)
    *place, classes = first_output(network.output_shape(shape))
    y = generator.integers(0, classes, (batch, *place))
    optimizer = SGD(1e-9, momentum=0.9)  # for the time of its arithmetic: random images teach nothing
    program = Trainer(network, optimizer=optimizer, method=method).program(shape, batch)
    params = network.init(0, shape)
    data = ArrayData(x, y, normalize=Normalize.mean_image(x), batch_size=batch)
    state = TrainState(params, optimizer.init(params), statistics=network.init_statistics(shape))
    transport = open_transport("local", None, program, state, {"train": data}, threads)
    epochs = count()
    return lambda: transport.run_epoch(next(epochs), lambda: False)
