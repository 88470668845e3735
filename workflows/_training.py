"""A training run through the local transport, and a stopwatch for where its time goes."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np

import daskconv
from daskconv.nn.losses import softmax_cross_entropy
from daskconv.plan.tasks import Position, TrainState
from daskconv.run import loop
from daskconv.run.select import open_transport
from daskconv.train.data import ArrayData

# Random images teach nothing: with a low rate no net's loss runs away meanwhile.
RATE, MOMENTUM, DECAY = 1e-6, 0.9, 4e-3


def random_images(count: int, shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (count, h, w, c) and their classes, as good as real ones for timing."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (count, *shape), np.uint8)
    return x, generator.integers(0, classes, count)


def local_run(
    network: daskconv.Network,
    x: np.ndarray,
    y: np.ndarray,
    batch: int,
    threads: int,
    loss: Any = "softmax_cross_entropy",
    take: Callable[[Callable], Callable] = lambda take: take,
) -> Callable[[], Position]:
    """Return a function that trains one more epoch in this process."""
    return training(network, x, y, batch, threads, "local", None, loss, take)


def training(
    network: daskconv.Network,
    x: np.ndarray,
    y: np.ndarray,
    batch: int,
    threads: int,
    transport: str,
    client: Any,
    loss: Any = "softmax_cross_entropy",
    take: Callable[[Callable], Callable] = lambda take: take,
) -> Callable[[], Position]:
    """Return a function that trains one more epoch, as Trainer.fit does but without setting up anew."""
    opened = opened_transport(network, x, y, batch, threads, transport, client, loss, take)
    epochs = count()
    return lambda: opened.run_epoch(next(epochs), lambda: False)


def opened_transport(
    network: daskconv.Network,
    x: np.ndarray,
    y: np.ndarray,
    batch: int,
    threads: int,
    transport: str,
    client: Any,
    loss: Any = "softmax_cross_entropy",
    take: Callable[[Callable], Callable] = lambda take: take,
    plan: Any = "data",
) -> Any:
    """Return a transport that holds all it needs to train."""
    optimizer = daskconv.SGD(RATE, momentum=MOMENTUM, weight_decay=DECAY)
    trainer = daskconv.Trainer(network, optimizer=optimizer, loss=loss, transport=transport, plan=plan)
    program = trainer.program(x.shape[1:], batch)
    params = network.init(0, x.shape[1:])
    data = ArrayData(x, y, normalize=daskconv.Normalize.mean_image(x), batch_size=batch)
    if transport == "local":
        data.take = take(data.take)
    statistics = network.init_statistics(x.shape[1:])
    state = TrainState(params, optimizer.init(params), statistics=statistics)
    return open_transport(transport, client, program, state, {"train": data}, threads)


class Stopwatch:
    """The seconds that watched functions spend in themselves, without the watched functions they call."""

    def __init__(self) -> None:
        self.spent: Counter[Any] = Counter()
        self._lock = threading.Lock()
        self._inner = threading.local()

    def timed(self, name: Any, function: Callable) -> Callable:
        """Return the function, watched."""

        def call(*args: Any, **options: Any) -> Any:
            before = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds = 0.0
            started = perf_counter()
            try:
                return function(*args, **options)
            finally:
                passed = perf_counter() - started
                with self._lock:
                    self.spent[name] += passed - self._inner.seconds
                self._inner.seconds = before + passed

        return call

    @contextmanager
    def watching(self, *targets: tuple[Any, str, Any]) -> Iterator[None]:
        """Watch functions (owner, attribute, name) that are looked up while the context is open."""
        with ExitStack() as stack:
            for owner, attribute, name in targets:
                watched = self.timed(name, getattr(owner, attribute))
                stack.enter_context(patch.object(owner, attribute, watched))
            yield


@dataclass(frozen=True)
class TimedLayer(daskconv.Layer):
    """A layer whose two passes are watched; in everything else, but for fusion, it is the layer."""

    layer: daskconv.Layer
    forward: Callable = field(compare=False)
    backward: Callable = field(compare=False)

    def output_shape(self, shape: Any) -> Any:
        return self.layer.output_shape(shape)

    def weights(self, shape: Any) -> Any:
        return self.layer.weights(shape)

    def statistics(self, shape: Any) -> Any:
        return self.layer.statistics(shape)

    def follow(self, running: np.ndarray, batch: np.ndarray) -> np.ndarray:
        return self.layer.follow(running, batch)

    def flops(self, shape: Any) -> int:
        return self.layer.flops(shape)

    def choose_methods(self, shape: Any, method: str, precision: str, tuned: Any = None) -> Any:
        return self.layer.choose_methods(shape, method, precision, tuned)


def watch_layers(
    network: daskconv.Network, watch: Stopwatch, name: Callable[[daskconv.Node, str], Any]
) -> daskconv.Network:
    """Return the network with watched layers; ``name(node, pass)`` is what a pass counts as."""
    nodes = tuple(
        daskconv.Node(
            node.name,
            TimedLayer(
                node.layer,
                watch.timed(name(node, "forward"), node.layer.forward),
                watch.timed(name(node, "backward"), node.layer.backward),
            ),
            node.inputs,
        )
        for node in network.nodes
    )
    return daskconv.Network(nodes, network.name)


def laps(
    network: daskconv.Network,
    x: np.ndarray,
    y: np.ndarray,
    batch: int,
    threads: int,
    rounds: int,
    name: Callable[[daskconv.Node, str], Any],
    inside: tuple[tuple[Any, str, Any], ...] = (),
) -> list[Counter[Any]]:
    """Return, for each round, the milliseconds of a step in layers, "loss", "data", "update" and the "rest".

    They add up to the threads' time: with more than one thread, the rest is mostly waiting.
    """
    watch = Stopwatch()
    run = local_run(
        watch_layers(network, watch, name),
        x,
        y,
        batch,
        threads,
        loss=watch.timed("loss", softmax_cross_entropy),
        take=lambda take: watch.timed("data", take),
    )
    run()
    found = []
    for _ in range(rounds):
        watch.spent.clear()
        started = perf_counter()
        with watch.watching((loop, "update", "update"), *inside):
            run()
        whole = (perf_counter() - started) * threads
        watch.spent["rest"] = whole - sum(watch.spent.values())
        steps = -(-len(x) // batch)
        found.append(Counter({key: 1000 * seconds / steps for key, seconds in watch.spent.items()}))
    return found
