"""The pulse of workers: one that gets no further is named, though no other one waits for what it sends.

A worker that waits for others names them itself (:mod:`daskconv.run.connections`), and one whose process does not
answer at all is given up by the scheduler. What is left is one that computes without end, and one that Dask paused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any, NamedTuple

from distributed import Client

from daskconv.errors import WorkerError
from daskconv.run.losses import run_on
from daskconv.run.patience import for_workers
from daskconv.run.present import scheduler_info

# Of the seconds that a worker has, those between two looks; at least and at most so many.
_SHARE, _SOONEST, _LATEST = 0.1, 1.0, 30.0


class Pulse(NamedTuple):
    """How far a worker is.

    Attributes
    ----------
    beats : int
        The steps, blocks of evaluations and tasks that it has begun or ended.
    computes : bool
        Whether it has a task that does not wait for others.
    """

    beats: int
    computes: bool


class Pulses:
    """The pulses of a run's workers, while the driver waits for these.

    Parameters
    ----------
    client : distributed.Client
    pulse : function of (run)
        Returns the Pulse of the worker that it runs on.
    seconds : float
        In which a worker has to get further.
    """

    def __init__(self, client: Client, pulse: Any, seconds: float) -> None:
        self.client, self.pulse, self.seconds = client, pulse, seconds
        self.interval = min(max(_SHARE * seconds, _SOONEST), _LATEST)
        self._looked = float("-inf")
        self._last: dict[str, Any] = {}
        self._since: dict[str, float] = {}

    def look(self, run: str, workers: Sequence[str]) -> None:
        """Look at the pulses, unless that was a moment ago; raise WorkerError where one stands still for too long."""
        now = monotonic()
        if now - self._looked < self.interval:
            return
        # Nobody waited meanwhile.
        if now - self._looked > 3 * self.interval:
            self._since.clear()
        self._looked = now
        pulses = run_on(self.client, self.pulse, run)
        there = scheduler_info(self.client)["workers"]
        for worker in (worker for worker in workers if worker in there):
            pulse, paused = pulses.get(worker), there[worker]["status"] == "paused"
            if pulse != self._last.get(worker) or not (paused or (pulse and pulse.computes)):
                self._since[worker] = now
            elif now - self._since.setdefault(worker, now) > self.seconds:
                why = _paused(there[worker]) if paused else "it hangs."
                raise WorkerError(
                    f"Worker {worker} has got no further in {self.seconds:g} s (daskconv.deadline): {why}"
                )
            self._last[worker] = pulse


def wait_for_memory(client: Client, workers: Sequence[str]) -> None:
    """Wait until Dask has paused none of the workers, which take no task then; raise WorkerError where one stays so."""
    end = monotonic() + for_workers()
    while True:
        there = scheduler_info(client)["workers"]
        paused = [each for each in workers if each in there and there[each]["status"] == "paused"]
        if not paused:
            return
        if monotonic() > end:
            why = _paused(there[paused[0]])
            raise WorkerError(
                f"Worker {paused[0]} has taken no task in {for_workers():g} s (daskconv.wait-workers): {why}"
            )
        sleep(_SOONEST)


def _paused(worker: Mapping[str, Any]) -> str:
    held, limit = worker["metrics"].get("memory", 0) / 2**20, (worker["memory_limit"] or 0) / 2**20
    return (
        f"Dask has paused it, since it holds {held:,.0f} of its {limit:,.0f} MiB of memory; give workers more, or "
        "take smaller batches."
    )
