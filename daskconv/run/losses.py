"""Workers that a dask transport loses: how it goes on, and when it gives up and says why."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from distributed import CancelledError, Client, Future, TimeoutError
from distributed.comm import CommClosedError

from daskconv.errors import WorkerError, sentence_of
from daskconv.plan.tasks import CHAIN, Position
from daskconv.run.patience import for_workers
from daskconv.run.present import scheduler_info

# Losses, without a step in between, that are made up for: of the same shards, and of any.
_SAME, _ANY = 3, 6
# Steps of a chain after so many losses: what is short gets done between two of them.
_CHAINS = (CHAIN, 7, 1)
# Seconds in which workers have to answer in the end.
_ANSWER = 10.0
# Seconds after a first loss, doubled by each: the scheduler hears of the others.
_PAUSE = 0.1


class Lost(WorkerError):
    """What the tasks build on died with the workers that held it."""


class Losses:
    """The losses since training came further."""

    def __init__(self) -> None:
        self.position: tuple[int, int] = (-1, -1)
        self.count, self._of = 0, Counter[tuple[int, ...]]()

    @property
    def chain(self) -> int:
        """Steps from one copy of the state on the driver to the next."""
        return _CHAINS[min(self.count, len(_CHAINS) - 1)]

    def reached(self, position: Position) -> None:
        """Forget the losses where training has come further."""
        if (place := (position.epoch, position.step)) != self.position:
            self.position, self.count = place, 0
            self._of.clear()

    def add(self, error: Exception, shards: Sequence[int], client: Client) -> None:
        """Count a loss; raise WorkerError where going on has no prospect."""
        self.count += 1
        self._of[tuple(shards)] += bool(shards)
        epoch, step = self.position
        where = f"step {step + 1} of epoch {epoch + 1}"
        if self._of[tuple(shards)] >= _SAME:
            raise WorkerError(
                f"The worker that computes {_named(shards)} died {_SAME} times in {where}. {last_words(client)}"
            )
        if self.count >= _ANY:
            raise WorkerError(f"Workers were lost {_ANY} times in {where}, the last time so: {error}")


def _named(shards: Sequence[int]) -> str:
    return f"shard{'s' if len(shards) > 1 else ''} {', '.join(map(str, shards))}"


def last_words(client: Client) -> str:
    """Return what is known of how the last worker ended."""
    with suppress(OSError, TimeoutError, KeyError, TypeError):
        for _, event in reversed(client.get_events("worker-restart-memory") or ()):
            used = f"{event['rss'] / 2**20:,.0f} MiB"
            return f"The last one was ended at {used} of memory: give workers more, or take smaller batches."
        for lines in client.get_worker_logs(nanny=True, n=50).values():
            for _, line in lines:
                if "Worker process" in line:
                    return f"{line.rpartition(' - ')[2]}: its log says more."
    return (
        "It left no word: it was killed from outside, had no memory left, or crashed in compiled code; "
        "the log of the worker, or of its Nanny, says more."
    )


def check_scheduler(client: Client) -> None:
    """Raise WorkerError where the scheduler is gone, which no step survives."""
    if client.status != "running":
        raise WorkerError(
            f"The connection to the scheduler is lost ({client.status}): start the cluster again, and go on from the "
            "last checkpoint."
        )


def worker_addresses(client: Client, none_is_fine: bool = False) -> list[str]:
    """Return the addresses of a client's workers, in the order of their names."""
    try:
        workers = scheduler_info(client)["workers"]
    except (OSError, TimeoutError, CancelledError, RuntimeError) as error:
        raise WorkerError(
            f"The scheduler does not answer ({sentence_of(error)}): start the cluster again, and go on from the last "
            "checkpoint."
        ) from error
    if not workers and not none_is_fine:
        raise Lost("The cluster has no workers: start some, or call client.wait_for_workers(1) first.")
    # Names are numbers in a LocalCluster and under dask-mpi: 10 comes after 9.
    return sorted(workers, key=lambda address: (str(workers[address]["name"]).zfill(20), address))


def wait_for_a_worker(client: Client) -> None:
    """Wait until the cluster has a worker; raise WorkerError where none comes in time."""
    check_scheduler(client)
    if worker_addresses(client, none_is_fine=True):
        return
    try:
        client.wait_for_workers(1, timeout=for_workers())
    except (TimeoutError, OSError, CancelledError, RuntimeError):
        check_scheduler(client)
        raise WorkerError(
            f"The cluster has no workers and none came in {for_workers():g} s (daskconv.wait-workers): start some and "
            "go on from the last checkpoint, or fit again."
        ) from None


def run_on(client: Client, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Return what a function returns on each worker that answers in time; there is nothing where none does."""
    call = functools.partial(client._run, function, *args, on_error="ignore")
    try:
        return client.sync(call, callback_timeout=_ANSWER)
    except (OSError, TimeoutError, CancelledError, RuntimeError):
        return {}


def spread(client: Client, items: Sequence[Any], worker: str) -> list[Future]:
    """Return futures of objects that a worker holds; the tasks of others fetch them from it, and from each other.

    Dask's own broadcast tries for ever where a worker dies meanwhile.
    """
    return [client.scatter([item], workers=[worker], hash=False)[0] for item in items]


def keeping_on(
    action: Callable[[], Any],
    place: Callable[[], None],
    lost_shards: Callable[[], Sequence[int]],
    losses: Losses,
    client: Client,
) -> Any:
    """Return what the action returns; where workers took with them what it needs, place that anew and repeat it."""
    anew = False
    while True:
        shards: Sequence[int] = ()
        try:
            if anew:
                placing(place)
                anew = False
            return action()
        except (Lost, CommClosedError) as error:
            # Its frames hold on to futures of what is lost.
            lost = error.with_traceback(None)
            if not anew:
                shards = lost_shards()
        check_scheduler(client)
        losses.add(lost, shards, client)
        anew = True
        wait_for_a_worker(client)
        time.sleep(_PAUSE * 2**losses.count)


def placing(place: Callable[[], None]) -> None:
    """Place what tasks need; raise Lost where a worker went meanwhile."""
    try:
        place()
    except (CancelledError, OSError, TimeoutError, KeyError) as error:
        # A KeyError is the scheduler's own, where a worker goes while it is told to do something.
        raise Lost(f"A worker went while it was given what the tasks need: {sentence_of(error)}") from None
