"""Links: what messages between workers cost, over MPI and over Dask, measured on workers that are really started."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import dask
import numpy as np
from distributed import Client

from daskconv.launch.start import start
from daskconv.nn.layers import Dense, Flatten
from daskconv.nn.network import Sequential
from daskconv.plan.tasks import CHAIN
from daskconv.run.dask import beside_others
from daskconv.run.patience import deadline
from daskconv.run.peers import DaskWorld, MPIWorld, World
from daskconv.run.present import scheduler_info

_SMALL, _LARGE, _MANY = 8, 16_000_000, 64
_ROUNDS, _STEPS, _TASKS = 15, 100, 400


def measure_mpi() -> dict[str, float]:
    """Return latency, seconds a message, bandwidth and seconds of an empty step; in a job of mpiexec."""
    with start("mpi", threads=1) as client:
        from daskconv.run.mpi import worker_ranks

        ranks = sorted((rank, worker) for worker, rank in worker_ranks(client).items())[:2]
        found = swapped(client, [w for _, w in ranks], MPIWorld(tuple(rank for rank, _ in ranks)))
        with dask.config.set({"daskconv.mpi.exchanges": False}):
            found["step"] = epoch_seconds("mpi", client, _STEPS) / _STEPS
    return found


def measure_dask() -> dict[str, float]:
    """Return the same of Dask's connections, the scheduler's seconds a task, and the driver's between two chains."""
    with start("dask", workers=2, threads=1) as client:
        workers = sorted(scheduler_info(client)["workers"])
        client.gather(client.map(_nothing, range(50), pure=False))
        started = perf_counter()
        client.gather(client.map(_nothing, range(_TASKS), pure=False))
        task = (perf_counter() - started) / _TASKS
        found = swapped(client, workers, DaskWorld(tuple(workers)))
        one, chain = epoch_seconds("dask", client, 1), epoch_seconds("dask", client, CHAIN)
        step = (chain - one) / (CHAIN - 1)
    return found | {"task": task, "hop": max(one - step, 1e-4)}


def swapped(client: Client, workers: Sequence[str], world: World) -> dict[str, float]:
    """Return what messages between two workers take."""
    futures = [
        client.submit(beside_others, time_swaps, world, workers=[worker], pure=False) for worker in workers
    ]
    return max(client.gather(futures), key=lambda times: times["latency"])


def time_swaps(world: World) -> dict[str, float]:
    """Return what this worker's messages to the other one take, both sending at once."""
    peers = world.enter("links")
    other = 1 - peers.rank
    with peers.carrier(deadline()) as carrier:

        def swap(nbytes: int, count: int) -> float:
            sent = [np.zeros(nbytes, np.uint8) for _ in range(count)]
            got = [np.empty(nbytes, np.uint8) for _ in range(count)]
            seconds = []
            for _ in range(_ROUNDS):
                started = perf_counter()
                carrier.swap([(other, 1, each) for each in sent], [(other, 1, each) for each in got])
                seconds.append(perf_counter() - started)
            return median(seconds)

        one, many, large = swap(_SMALL, 1), swap(_SMALL, _MANY), swap(_LARGE, 1)
    message = max((many - one) / (2 * (_MANY - 1)), 1e-7)
    return {"latency": max(one - 2 * message, 1e-6), "message": message, "bandwidth": _LARGE / (large - one)}


def epoch_seconds(transport: str, client: Client, steps: int) -> float:
    """Return the seconds of an epoch that has next to nothing to compute."""
    from daskconv.train.trainer import Trainer

    generator = np.random.default_rng(0)
    x, y = generator.random((4 * steps, 2, 2, 1), np.float32), np.zeros(4 * steps, np.int64)
    trainer = Trainer(
        Sequential([Flatten(), Dense(10)]), transport=transport, client=client, shards=2, threads=1
    )
    history = trainer.fit(x, y, epochs=6, batch_size=4, progress=False)
    return median(epoch["seconds"] for epoch in history.epochs[1:])


def _nothing(number: int) -> int:
    return number


if __name__ == "__main__":
    measure = {"mpi": measure_mpi, "dask": measure_dask}[sys.argv[1]]
    Path(sys.argv[2]).write_text(json.dumps(measure()))
