"""The dask transport: a gang of any cluster's workers, which exchange arrays over the connections they have anyway.

The steps of an epoch are cut into chains. The driver keeps the state at the end of each: where a worker dies or joins,
all begin anew from there, on the workers that are present then, to the same bits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from time import monotonic
from typing import Any, TypeVar

import numpy as np
from distributed import CancelledError, Client, Future, KilledWorker, secede, wait
from distributed.comm import connect
from numpy.typing import NDArray

from daskconv.errors import sentence_of
from daskconv.plan import tree
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Position, TrainState
from daskconv.run import connections
from daskconv.run.alike import check_alike
from daskconv.run.gang import Gang, failure_of
from daskconv.run.losses import Losses, Lost, keeping_on, placing, run_on, spread, worker_addresses
from daskconv.run.patience import deadline
from daskconv.run.peers import DaskWorld
from daskconv.run.pulse import Pulses, wait_for_memory
from daskconv.run.rank import Options, pulse_of
from daskconv.run.transport import begin
from daskconv.run.watch import NOBODY, Asked

# Seconds between two looks whether the workers are still there.
_LOOK = 1.0

_Result = TypeVar("_Result")


class DaskTransport(Gang):
    """Run a Program on the workers of a client."""

    name = "dask"

    def __init__(
        self,
        program: Program,
        state: TrainState,
        data: Mapping[str, Data],
        client: Client,
        threads: int,
        asked: Asked = NOBODY,
    ) -> None:
        super().__init__(program, data, client, threads)
        self.asked = asked
        # The newest state that the driver holds: nothing that workers lose is older.
        self._root = state.copy()
        self._computed: dict[str, set[int]] = {}
        self._read: dict[str, InputRead] = {}
        self._present, self._next_look = list[str](), 0.0
        self._losses, self._pulses = Losses(), Pulses(client, pulse_of, deadline())
        self._keeping_on(self._place_if_changed)

    def _place(self) -> None:
        """Begin anew, from the driver's copy, on the workers that are there now."""
        self._leave()
        self._present = worker_addresses(self.client)
        wait_for_memory(self.client, self._present)
        check_alike(self.client, self._present)
        # A worker without shards would have no part in the steps.
        workers = self._present[: self.program.shards]
        options = Options(self.threads, deadline(), None, False, self.asked)
        self.gather_in(workers, DaskWorld(tuple(workers)), options, self._root)

    def _place_if_changed(self) -> None:
        if worker_addresses(self.client) != self._present:
            placing(self._place)

    def share(self, items: Sequence[Any], workers: Sequence[str] | None = None) -> list[Future]:
        """Return futures of objects for all workers, or some."""
        return spread(self.client, items, (workers or self.workers)[0])

    def submit(self, worker: str, function: Callable[..., Any], *args: Any) -> Future:
        """Submit a task of the run for one worker."""
        return self._submit(worker, function.__name__, beside_others, function, self.run, *args)

    def results(self, futures: Sequence[Future]) -> list[Any]:
        """Wait for tasks and return their results; raise Lost where a worker is gone."""
        while not self.done(futures):
            with suppress(TimeoutError):
                self._wait(futures)
        self._check_present()
        if any(isinstance(_exception(future), KilledWorker) for future in futures):
            raise Lost("A worker died again and again.")
        if (failure := failure_of(futures)) is not None:
            raise failure
        return self._fetched(futures)

    def _fetched(self, futures: Sequence[Future]) -> list[Any]:
        """Return what finished tasks returned; where its worker dies now, Dask would wait for that for ever."""
        fetching = self._begin(self.client._gather(list(futures), direct=self._reach_workers))
        try:
            while not fetching.done():
                with suppress(TimeoutError):
                    return fetching.result(timeout=_LOOK)
                self._check_present()
            return fetching.result()
        except (CancelledError, OSError, TimeoutError, KeyError) as error:
            raise Lost(f"A result was lost before it was fetched: {sentence_of(error)}") from error
        finally:
            fetching.cancel()

    def _begin(self, work: Coroutine[Any, Any, _Result]) -> concurrent.futures.Future[_Result]:
        loop: Any = self.client.loop
        return asyncio.run_coroutine_threadsafe(work, loop.asyncio_loop)

    @cached_property
    def _reach_workers(self) -> bool:
        """Whether the driver reaches workers itself: else what it fetches goes through the scheduler, twice as far."""
        args = {"timeout": _LOOK, **self.client.connection_args}
        try:
            self._begin(connect(self.workers[0], **args)).result().abort()
        except OSError:
            return False
        return True

    def _wait(self, futures: Sequence[Future]) -> None:
        try:
            wait(futures, timeout=_LOOK)
        except CancelledError as error:
            raise Lost(f"The cluster lost a task: {error}") from error

    def done(self, futures: Sequence[Future]) -> bool:
        """Return whether all tasks have ended, or one in vain; raise Lost where a worker is gone."""
        if monotonic() > self._next_look:
            self._next_look = monotonic() + _LOOK
            self._check_present()
            self._pulses.look(self.run, self.workers)
        return super().done(futures) or any(
            future.status in ("error", "cancelled", "lost") for future in futures
        )

    def _check_present(self) -> None:
        present = set(worker_addresses(self.client, none_is_fine=True))
        gone = [worker for worker in self.workers if worker not in present]
        if gone:
            sentence = f"{len(gone)} of {len(self.workers)} workers are gone ({gone[0]})."
            run_on(self.client, connections.lose, self.run, sentence)
            raise Lost(sentence)

    def _keeping_on(self, action: Callable[[], Any]) -> Any:
        """Return what the action returns; where workers were lost or have joined, begin anew from the driver's copy."""
        self._losses.reached(self._root.position)

        def act() -> Any:
            self._place_if_changed()
            return action()

        return keeping_on(act, self._place, self._lost_shards, self._losses, self.client)

    def _lost_shards(self) -> list[int]:
        """Return the shards of workers that are gone; none where no worker was given any yet."""
        if not self.workers:
            return []
        present = worker_addresses(self.client, none_is_fine=True)
        owners = tree.owners(self.program.shards, len(self.workers))
        return [shard for shard, owner in enumerate(owners) if self.workers[owner] not in present]

    def run_epoch(self, epoch: int, stopped: Callable[[], bool], until: int | None = None) -> Position:
        """Run the epoch in chains of steps; the driver keeps the state at the end of each."""
        steps = len(self.data["train"].batches(epoch))
        last = min(until or steps, steps)
        self._root = begin(self._root, epoch)
        while self._root.position.step < last and not stopped():
            self._keeping_on(lambda: self._run_chain(epoch, last, stopped))
        return self._root.position

    def _run_chain(self, epoch: int, last: int, stopped: Callable[[], bool]) -> None:
        first = self._root.position.step
        self.run_steps(epoch, first, min(first + self._losses.chain, last), stopped)
        # In one process the workers' own arrays come, which the next steps change.
        self._root = self.spread.state().copy()
        for worker, shards in self.computed().items():
            self._computed.setdefault(worker, set()).update(shards)

    def evaluate(self, data: str) -> NDArray[np.float64]:
        """Return the sums over a data set."""
        return self._keeping_on(lambda: self.sums(data))

    def state(self) -> TrainState:
        """Return a copy of the state at the end of the newest chain of steps."""
        return self._root.copy()

    def owners(self) -> dict[str, list[int]]:
        """Return the shards that each worker computed."""
        return {worker: sorted(shards) for worker, shards in sorted(self._computed.items())}

    def read(self) -> dict[str, InputRead]:
        """Return what each worker has read."""
        now = super().read()
        return {worker: self._read.get(worker, InputRead()) + read for worker, read in now.items()}

    def _leave(self) -> None:
        if self.run:
            self._read |= self.read()
            self.close()


def beside_others(function: Callable[..., Any], *args: Any) -> Any:
    """Run a task that waits for those of other workers: it leaves its place to whatever else its own has to do."""
    secede()
    return function(*args)


def _exception(future: Future) -> BaseException | None:
    return future.exception() if future.status == "error" else None
