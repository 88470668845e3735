"""A gang: workers of a client that run the steps of an epoch together, in one long task each.

No scheduler message is part of a step: the workers exchange arrays among themselves, and the driver starts tasks, waits
for them and stops them. How the state lies on the workers is one choice (:mod:`daskconv.run.spread`), what carries
their exchanges another one (:mod:`daskconv.run.peers`); either leaves all else as it is.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from distributed import Client, Future
from numpy.typing import NDArray

from daskconv.errors import WorkerError, sentence_of
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, TrainState
from daskconv.run import rank
from daskconv.run.forward import forwarding
from daskconv.run.losses import run_on
from daskconv.run.peers import World
from daskconv.run.rank import Options
from daskconv.run.spread import Copies, Parts

# Seconds between two looks whether the tasks are done, or have to stop.
_LOOK = 0.02


class Gang(ABC):
    """A run on workers of a client.

    Attributes
    ----------
    run : str
        Its name on the workers.
    workers : list of str
        Their addresses, in the order of their shards.
    """

    def __init__(self, program: Program, data: Mapping[str, Data], client: Client, threads: int) -> None:
        self.program, self.data, self.client, self.threads = program, data, client, threads
        self.run, self.workers = "", list[str]()
        self.spread: Copies | Parts = (Parts if program.split else Copies)(self)

    @abstractmethod
    def results(self, futures: Sequence[Future]) -> list[Any]:
        """Wait for tasks and return their results; raise WorkerError where one failed."""

    def gather_in(self, workers: Sequence[str], world: World, options: Options, state: TrainState) -> None:
        """Begin a run, on these workers, from a state."""
        self.run, self.workers = f"daskconv-{uuid4().hex[:12]}", list(workers)
        self.results(self.spread.open(state, world, options))

    def share(self, items: Sequence[Any], workers: Sequence[str] | None = None) -> list[Future]:
        """Return futures of objects that all workers hold, or some."""
        # One by one: Dask would make one message of all of them, and then copies of that.
        return [self.client.scatter([item], workers=workers, broadcast=True, hash=False)[0] for item in items]

    def submit(self, worker: str, function: Callable[..., Any], *args: Any) -> Future:
        """Submit a task of the run for one worker."""
        return self._submit(worker, function.__name__, function, self.run, *args)

    def _submit(self, worker: str, name: str, function: Callable[..., Any], *args: Any) -> Future:
        key = f"{name}-{self.run}-{uuid4().hex[:8]}"
        return self.client.submit(function, *args, key=key, pure=False, workers=[worker], priority=10)

    def call_all(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Return what a task returns on each worker."""
        return self.results([self.submit(worker, function, *args) for worker in self.workers])

    def deliver(self, data: str, images: Sequence[Sequence[Indices]]) -> None:
        """Bring each worker the chunks of its images, where the cluster's memory holds them."""
        self.results(
            [
                self.submit(worker, rank.hold, data, dict(chunks))
                for worker, mine in zip(self.workers, images, strict=True)
                if (chunks := self.data[data].chunks(mine))
            ]
        )

    def run_steps(self, epoch: int, first: int, until: int | None, stopped: Callable[[], bool]) -> Any:
        """Run an epoch's steps from ``first`` on, where the workers stand; return the first worker's result."""
        with forwarding(self.client, self.run):
            self.deliver("train", self.spread.images(self.data["train"].batches(epoch)[first:until]))
            futures = [
                self.submit(worker, self.spread.tasks.run_epoch, epoch, until) for worker in self.workers
            ]
            asked = False
            while not self.done(futures):
                if stopped() and not asked:
                    run_on(self.client, rank.request_stop, self.run)
                    asked = True
                time.sleep(_LOOK)
            return self.results(futures)[0]

    def done(self, futures: Sequence[Future]) -> bool:
        """Return whether nothing has to be waited for any more."""
        return all(future.done() for future in futures)

    def sums(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set."""
        return self.spread.evaluate(data)

    def computed(self) -> dict[str, list[int]]:
        """Return the shards that each worker computed."""
        return dict(zip(self.workers, self.call_all(self.spread.tasks.computed), strict=True))

    def read(self) -> dict[str, InputRead]:
        """Return what each worker has read since it got the data."""
        return run_on(self.client, rank.read, self.run)

    def traffic(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Return the messages and the bytes that each worker has sent to each other one, by their numbers."""
        found = enumerate(self.call_all(rank.traffic_of))
        return {(sender, to): sent for sender, row in found for to, sent in row.items()}

    def waited(self) -> list[float]:
        """Return the seconds in which each worker waited for others: for their messages, or for these to travel."""
        return self.call_all(rank.waited)

    def close(self) -> None:
        """Drop what the workers hold."""
        run_on(self.client, rank.close, self.run)


def failure_of(futures: Sequence[Future]) -> WorkerError | None:
    """Return one sentence where finished tasks failed: that of the worker that failed first, where it is known."""
    errors = [
        error for future in futures if future.status == "error" and (error := future.exception()) is not None
    ]
    if not errors:
        return None
    named = next((error for error in errors if isinstance(error, WorkerError)), None)
    if named is not None:
        return named
    failure = WorkerError(f"A task failed on a worker: {sentence_of(errors[0])}")
    failure.__cause__ = errors[0]
    return failure
