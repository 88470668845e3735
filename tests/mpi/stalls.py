"""Run under mpiexec: one worker stops answering in the middle of an epoch."""

import time
from dataclasses import dataclass
from typing import Any

from recipes import digits

import daskconv
from daskconv import Dense, Flatten, Layer, Sequential


@dataclass(frozen=True)
class Stalls(Layer):
    """Sleeps for a minute on the last worker."""

    def forward(self, params: Any, x: Any, context: Any) -> Any:
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1:
            time.sleep(60)
        return x, None

    def backward(self, params: Any, saved: Any, dy: Any, context: Any) -> Any:
        return dy, {}


def main() -> None:
    with daskconv.start():
        net = Sequential([Flatten(), Stalls(), Dense(10)])
        daskconv.Trainer(net, preprocess="unit").fit(*digits()[:2], progress=False)


if __name__ == "__main__":
    main()
