"""Events of a run with many workers, made up: as many and as large as real ones."""

from collections.abc import Iterator

import numpy as np

from daskconv.events import EpochDone, Event, RunBegan, StepDone, WorkerStep

LAYERS = ("conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "dense1", "dense2")
METHODS = dict.fromkeys(("forward", "input_grad", "weight_grad"), "winograd")


def began(workers: int, run: str = "simulated") -> RunBegan:
    rows = [
        {"layer": name, "layout": f"n={workers}", "exchange": "", "sent": 0, "weights": 90_000, "values": 4e6,
         "methods": METHODS if name.startswith("conv") else {}}
        for name in LAYERS
    ]  # fmt: skip
    rows.append({"layer": "gradients", "layout": "", "exchange": "all-reduce", "sent": 58_235_200, "weights": 0,
                 "values": 0})  # fmt: skip
    return RunBegan("cifar10_quick", "data", "mpi", workers, 2, workers, 100 * workers, 50_000, 500, 10, rows,
                    900_000_000, run=run, time=0.0)  # fmt: skip


def step(number: int, workers: int, draw: np.random.Generator, run: str = "simulated") -> Iterator[Event]:
    """Yield the events of half a second."""
    epoch, at = divmod(number * 5, 500)
    loss = 2.3 * np.exp(-number / 60) + 0.05 * draw.random()
    figures = {"loss": float(loss), "accuracy": float(1 - loss / 2.4)}
    now = {"run": run, "time": 0.5 * (number + 1)}
    for worker in range(workers):
        slow = 1.5 if worker == 7 else 1 + 0.1 * draw.random()
        yield _worker(worker, epoch, at, slow, now)
    yield StepDone(epoch, at + 4, 500, (at + 5) * 100 * workers, (), figures, **now)
    if at == 495:
        row = {f"val_{name}": value for name, value in figures.items()}
        yield EpochDone(epoch, row | {"images_per_second": 1000.0 * workers}, **now)


def _worker(worker: int, epoch: int, step: int, slow: float, now: dict) -> WorkerStep:
    spans, layers, at = [], [], 0
    for pass_ in ("forward", "backward"):
        for name in LAYERS if pass_ == "forward" else LAYERS[::-1]:
            took = int(2000 * slow * (3 if name.startswith("conv") else 1))
            stages = ("lower", "product") if name.startswith("conv") else ("other",)
            for thread, stage in enumerate(stages * (2 // len(stages))):
                spans += [
                    (thread, name, pass_, stage, at + i * took // 8, at + (i + 1) * took // 8)
                    for i in range(8)
                ]
                layers.append((name, pass_, stage, took / 2e6))
            at += took
    layers += [("update", "backward", "exchange", 0.004), ("", "", "idle", 0.002)]
    spans.append((0, "update", "backward", "exchange", at, at + 4000))
    spans = spans if worker % 7 == 0 else []
    return WorkerStep(
        str(worker), epoch, step, 2, 5, 500.0, 0.5, at / 1e6, 0.005, int(6e8 * slow), layers, spans, **now
    )
