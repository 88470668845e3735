"""Run under mpiexec -n 6: train with 4, 3, 2 and 1 workers, survive a failing layer; print a JSON line each."""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

import dask
from distributed import Client
from recipes import digest, digits, trainer, trainer_with_all

import daskconv
from daskconv import Conv2D, Dense, Flatten, Layer, Sequential
from daskconv.plan import buckets
from daskconv.run.mpi import MPITransport


@dataclass(frozen=True)
class FailsOnOneRank(Layer):
    """Raises in the second epoch, on the last worker only."""

    def forward(self, params: Any, x: Any, context: Any) -> Any:
        from mpi4py import MPI

        if context.epoch == 1 and MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
            raise RuntimeError("the layer gave up")
        return x, None

    def backward(self, params: Any, saved: Any, dy: Any, context: Any) -> Any:
        return dy, {}


def fails(data: Any) -> str:
    net = Sequential([Conv2D(4, 3), FailsOnOneRank(), Flatten(), Dense(10)])
    try:
        daskconv.Trainer(net, preprocess="unit").fit(*data[:2], epochs=3, progress=False)
    except daskconv.errors.WorkerError as error:
        return str(error)
    return "nothing was raised"


class Watched(MPITransport):
    """Keeps what its ranks have sent."""

    sent: Any = None

    def close(self) -> None:
        Watched.sent = self.traffic()
        super().close()


def counting(dask_scheduler: Any = None) -> None:
    """Count the scheduler's messages from workers from now on, by kind."""
    dask_scheduler.counted = Counter()
    for name, handle in list(dask_scheduler.stream_handlers.items()):
        if iscoroutinefunction(handle):
            continue  # clients send those

        def counted(*args: Any, name: str = name, handle: Any = handle, **kwargs: Any) -> Any:
            dask_scheduler.counted[name] += "worker" in kwargs
            return handle(*args, **kwargs)

        dask_scheduler.stream_handlers[name] = counted


def counted(dask_scheduler: Any = None) -> dict[str, int]:
    """Return the counts, and begin anew."""
    found, dask_scheduler.counted = dict(dask_scheduler.counted), Counter()
    return found


def messages(client: Client, data: Any) -> dict[str, Any]:
    """Train 18 and 180 steps; return what workers told the scheduler, and each other, beside what is predicted."""
    from daskconv.run import select

    select.MPITransport = Watched
    client.run_on_scheduler(counting)
    found = []
    for batch in (80, 8):
        trained = trainer()
        client.run_on_scheduler(counted)
        started = time.monotonic()
        trained.fit(*data[:2], batch_size=batch, progress=False)
        steps = -(-len(data[0]) // batch)
        predicted = buckets.traffic(trained.program(data[0].shape[1:], batch), [0] * 4)
        expected = {pair: (steps * count, steps * size) for pair, (count, size) in predicted.items()}
        told = client.run_on_scheduler(counted)
        seconds = time.monotonic() - started
        found.append(
            {"steps": steps, "seconds": seconds, "told": told, "as predicted": Watched.sent == expected}
        )
    select.MPITransport = MPITransport
    return {"messages": found}


def hierarchical(data: Any) -> dict[str, Any]:
    """Pretend that two ranks share each host."""
    with dask.config.set({"daskconv.mpi.ranks-per-host": 2}):
        trained = trainer()
        trained.fit(*data[:2], epochs=2, progress=False)
    try:
        with dask.config.set({"daskconv.mpi.ranks-per-host": 3}):
            trainer().fit(*data[:2], progress=False)
    except daskconv.errors.InputError as error:
        return {"hierarchical": digest(trained), "refused": str(error)}
    return {}


def resumed(data: Any, folder: str) -> str:
    """Go on from the newest checkpoint of a folder."""
    trained = trainer().resume(folder)
    assert trained.position.step > 0
    trained.fit(data[0], data[1], epochs=2, validation_data=data[2:], progress=False, checkpoint=folder)
    return digest(trained)


def main() -> None:
    with daskconv.start() as client:
        data = digits()
        print(json.dumps({"failure": fails(data)}), flush=True)
        print(json.dumps(messages(client, data)), flush=True)
        print(json.dumps(hierarchical(data)), flush=True)
        while True:
            workers = list(client.scheduler_info(n_workers=-1)["workers"])
            trained = trainer(threads=2 if len(workers) == 2 else 1)
            history = trained.fit(data[0], data[1], epochs=2, validation_data=data[2:], progress=False)
            owners = list(trained.shard_owners.values())
            row = {"workers": len(workers), "digest": digest(trained), "owners": owners}
            if len(workers) == 2:
                row["resumed"] = resumed(data, sys.argv[1])
            if len(workers) == 3:
                trained = trainer_with_all(threads=2)
                trained.fit(data[0], data[1], epochs=2, progress=False)
                row["with all"] = [digest(trained), digest(trained, averaged=True)]
            print(json.dumps(row | {"accuracy": history["val_accuracy"]}), flush=True)
            if len(workers) == 1:
                return
            client.retire_workers(workers[-1:])


if __name__ == "__main__":
    sys.path.insert(0, "")
    main()
