"""Links: what messages between workers cost, over MPI and over Dask, measured on workers that are really started."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import dask
import numpy as np

from daskconv.launch.start import start
from daskconv.nn.layers import Dense, Flatten
from daskconv.nn.network import Sequential

_SMALL, _LARGE, _MANY = 8, 16_000_000, 64
_ROUNDS, _STEPS, _TASKS = 15, 100, 400


def measure_mpi() -> dict[str, float]:
    """Return latency, seconds a message, bandwidth and seconds of an empty step; in a job of mpiexec."""
    with start("mpi", threads=1) as client:
        from daskconv.run.mpi import worker_ranks

        ranks = tuple(sorted(worker_ranks(client).values()))
        workers = [worker for worker, _ in sorted(worker_ranks(client).items(), key=lambda pair: pair[1])]
        futures = [
            client.submit(time_swaps, ranks[:2], workers=[worker], pure=False) for worker in workers[:2]
        ]
        found = max(client.gather(futures), key=lambda times: times["latency"])
        with dask.config.set({"daskconv.mpi.exchanges": False}):
            found["step"] = empty_step("mpi", client)
    return found


def time_swaps(ranks: tuple[int, ...]) -> dict[str, float]:
    """Return what this rank's messages to the other one take, both sending at once."""
    from daskconv.run.messages import Messages
    from daskconv.run.peers import communicator

    comm = communicator(ranks).comm
    other = 1 - comm.rank
    with Messages(comm) as messages:

        def swap(nbytes: int, count: int) -> float:
            sent = [np.zeros(nbytes, np.uint8) for _ in range(count)]
            got = [np.empty(nbytes, np.uint8) for _ in range(count)]
            seconds = []
            for _ in range(_ROUNDS):
                started = perf_counter()
                messages.swap([(other, 1, each) for each in sent], [(other, 1, each) for each in got])
                seconds.append(perf_counter() - started)
            return median(seconds)

        one, many, large = swap(_SMALL, 1), swap(_SMALL, _MANY), swap(_LARGE, 1)
    message = max((many - one) / (2 * (_MANY - 1)), 1e-7)
    return {"latency": max(one - 2 * message, 1e-6), "message": message, "bandwidth": _LARGE / (large - one)}


def measure_dask() -> dict[str, float]:
    """Return the scheduler's seconds a task and from a step to the next, and the bandwidth between workers."""
    with start("dask", workers=2, threads=1) as client:
        first, second = sorted(client.scheduler_info(n_workers=-1)["workers"])
        client.gather(client.map(_nothing, range(50), pure=False))
        started = perf_counter()
        client.gather(client.map(_nothing, range(_TASKS), pure=False))
        task = (perf_counter() - started) / _TASKS
        seconds = []
        for _ in range(5):
            made = client.submit(np.zeros, _LARGE, np.uint8, workers=[first], pure=False)
            client.submit(len, made, workers=[first], pure=False).result()
            started = perf_counter()
            client.submit(len, made, workers=[second], pure=False).result()
            seconds.append(perf_counter() - started)
        step = empty_step("dask", client)
        started = perf_counter()
        client.submit(_nothing, 0, pure=False).result()
        hop = perf_counter() - started
    comm = _LARGE / max(median(seconds) - hop, 1e-3)
    return {"task": task, "hop": max(step - 2 * task, 1e-4), "comm": comm}


def empty_step(transport: str, client: Any) -> float:
    """Return the seconds of a step that has next to nothing to compute."""
    from daskconv.train.trainer import Trainer

    generator = np.random.default_rng(0)
    x, y = generator.random((4 * _STEPS, 2, 2, 1), np.float32), np.zeros(4 * _STEPS, np.int64)
    trainer = Trainer(
        Sequential([Flatten(), Dense(10)]), transport=transport, client=client, shards=2, threads=1
    )
    history = trainer.fit(x, y, epochs=4, batch_size=4, progress=False)
    return median(epoch["seconds"] for epoch in history.epochs[1:]) / _STEPS


def _nothing(number: int) -> int:
    return number


if __name__ == "__main__":
    measure = {"mpi": measure_mpi, "dask": measure_dask}[sys.argv[1]]
    Path(sys.argv[2]).write_text(json.dumps(measure()))
