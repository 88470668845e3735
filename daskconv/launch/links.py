"""Links: what messages between workers cost, over MPI and over Dask, measured on workers that are really started."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from uuid import uuid4

import dask
import numpy as np
from distributed import Client, get_worker

from daskconv.launch.start import start
from daskconv.nn.layers import Dense, Flatten
from daskconv.nn.network import Sequential
from daskconv.plan.tasks import CHAIN
from daskconv.run.connections import close_mailbox
from daskconv.run.dask import beside_others
from daskconv.run.patience import deadline
from daskconv.run.peers import DaskWorld, MPIWorld, Peers, World
from daskconv.run.present import scheduler_info

_SMALL, _LARGE, _MANY = 8, 16_000_000, 64
_ROUNDS, _STEPS, _TASKS = 15, 100, 400


def measure_mpi() -> dict[str, float]:
    """Return what messages over MPI take, and the seconds of an empty step; in a job of mpiexec."""
    with start("mpi", threads=1) as client:
        found = messages(client, "mpi")
        with dask.config.set({"daskconv.mpi.exchanges": False}):
            found["step"] = epoch_seconds("mpi", client, _STEPS) / _STEPS
    return found


def measure_dask() -> dict[str, float]:
    """Return what messages over Dask take, the scheduler's seconds a task, and the driver's between two chains."""
    with start("dask", workers=2, threads=1) as client:
        client.gather(client.map(_nothing, range(50), pure=False))
        started = perf_counter()
        client.gather(client.map(_nothing, range(_TASKS), pure=False))
        task = (perf_counter() - started) / _TASKS
        found = messages(client, "dask")
        one, chain = epoch_seconds("dask", client, 1), epoch_seconds("dask", client, CHAIN)
        step = (chain - one) / (CHAIN - 1)
    return found | {"task": task, "hop": max(one - step, 1e-4)}


def messages(client: Client, transport: str) -> dict[str, float]:
    """Return what messages between two workers take, by the names that a machine's figures have."""
    if transport == "dask":
        workers = sorted(scheduler_info(client)["workers"])[:2]
        found = _swapped(client, workers, DaskWorld(tuple(workers)))
        return {f"comm_{name}": value for name, value in found.items()}
    from daskconv.run.mpi import worker_ranks

    ranks = sorted((rank, worker) for worker, rank in worker_ranks(client).items())[:2]
    found = _swapped(client, [worker for _, worker in ranks], MPIWorld(tuple(rank for rank, _ in ranks)))
    message = {"message": found.pop("message")}
    return message | {
        f"{where}_{name}": value for where in ("inside", "across") for name, value in found.items()
    }


def _swapped(client: Client, workers: Sequence[str], world: World) -> dict[str, float]:
    run = f"links {uuid4()}"

    def on_each(function: Callable[..., Any], *args: Any) -> list[Any]:
        futures = [
            client.submit(beside_others, function, run, *args, workers=[worker], pure=False)
            for worker in workers
        ]
        return client.gather(futures)

    on_each(_enter, world)  # nobody sends before all take what comes
    return max(on_each(_time_swaps), key=lambda times: times["latency"])


_entered: dict[str, Peers] = {}


def _enter(run: str, world: World) -> None:
    _entered[run] = world.enter(run)


def _time_swaps(run: str) -> dict[str, float]:
    """Return what this worker's messages to the other one take, both sending at once."""
    peers = _entered.pop(run)
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
    close_mailbox(run, get_worker())
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
    from daskconv.launch import links  # workers find its functions there, each the same ones

    measure = {"mpi": links.measure_mpi, "dask": links.measure_dask}[sys.argv[1]]
    Path(sys.argv[2]).write_text(json.dumps(measure()))
