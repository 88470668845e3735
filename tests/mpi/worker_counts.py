"""Run under mpiexec -n 6: train with 4, 3, 2 and 1 workers, survive a failing layer; print a JSON line each."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from recipes import digest, digits, trainer, trainer_with_all

import daskconv
from daskconv import Conv2D, Dense, Flatten, Layer, Sequential


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


def main() -> None:
    with daskconv.start() as client:
        data = digits()
        print(json.dumps({"failure": fails(data)}), flush=True)
        while True:
            workers = list(client.scheduler_info(n_workers=-1)["workers"])
            trained = trainer(threads=2 if len(workers) == 2 else 1)
            history = trained.fit(data[0], data[1], epochs=2, validation_data=data[2:], progress=False)
            owners = list(trained.shard_owners.values())
            row = {"workers": len(workers), "digest": digest(trained), "owners": owners}
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
