"""What every worker of a run has, whatever it computes: its data, the other workers, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from distributed import get_worker
from numpy.typing import NDArray

from daskconv.kernels import heap
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data
from daskconv.run.connections import close_mailbox
from daskconv.run.forward import sender, worker_name
from daskconv.run.losses import Lost
from daskconv.run.moves import Carrier, Traffic
from daskconv.run.peers import Peers
from daskconv.run.pulse import Pulse
from daskconv.run.watch import NOBODY, Asked, Watch


class Options(NamedTuple):
    """What the driver's configuration says; workers do not see that.

    Attributes
    ----------
    threads : int
    deadline : float
        Seconds of silence after which the job is aborted.
    ranks_per_host : int or None
        Ranks that are summed among themselves first; those that share a host when None.
    alone : bool
        Leave the exchanges out, to measure what they cost.
    asked : Asked
        What is told of the steps.
    """

    threads: int
    deadline: float
    ranks_per_host: int | None
    alone: bool
    asked: Asked = NOBODY


@dataclass
class Rank:
    """One worker's part of a run."""

    data: Mapping[str, Data]
    peers: Peers
    options: Options
    stop: threading.Event = field(default_factory=threading.Event, kw_only=True)
    stepped: bool = field(default=False, kw_only=True)
    traffic: Traffic = field(default_factory=Traffic, kw_only=True)
    beats: int = field(default=0, kw_only=True)
    tasks: int = field(default=0, kw_only=True)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Tell that a task works, while the context is open."""
        self.tasks += 1
        self.beat()
        try:
            yield
        finally:
            self.tasks -= 1
            self.beat()

    def beat(self) -> None:
        """Tell that a task got further."""
        self.beats += 1

    def watch(self, program: Program, run: str, share: float) -> Watch:
        """Return what tells of this worker's steps, its share of all images."""
        where = worker_name(), self.peers.rank, len(self.peers.hosts)
        return Watch(program, sender(run), self.options.asked, *where, share, self.options.threads)

    def messages(self) -> Carrier:
        """Return what carries exchanges, to be entered together with all workers of the run."""
        found = self.peers.carrier(self.options.deadline)
        found.traffic = self.traffic
        return found


_ranks: dict[tuple[str, str], Any] = {}
"""By run and worker, its part: workers of a LocalCluster with processes=False share a process."""


def begin_run(run: str, rank: Rank) -> None:
    """Keep this worker's part of a run."""
    _ranks[run, get_worker().address] = rank


def rank_of(run: str) -> Any:
    """Return this worker's part of a run; raise Lost where it has none."""
    rank = _ranks.get((run, get_worker().address))
    if rank is None:
        raise Lost("A worker does not hold what its task builds on.")
    return rank


def hold(run: str, data: str, chunks: dict[int, NDArray]) -> None:
    """Take the chunks of this worker's images."""
    rank_of(run).data[data].hold(get_worker().address, chunks)


def read(run: str, dask_worker: Any) -> InputRead:
    """Return what this worker has read."""
    rank = _ranks.get((run, dask_worker.address))
    return rank.data["train"].count.read if rank else InputRead()


def traffic_of(run: str) -> dict[int, tuple[int, int]]:
    """Return the messages and the bytes that this worker has sent to each other one."""
    traffic = rank_of(run).traffic
    return {to: (count, traffic.nbytes[to]) for to, count in sorted(traffic.messages.items())}


def waited(run: str) -> float:
    """Return the seconds in which this worker waited for others."""
    return rank_of(run).traffic.seconds


def pulse_of(run: str, dask_worker: Any) -> Pulse | None:
    """Return how far this worker is; None where it has no part in the run."""
    rank = _ranks.get((run, dask_worker.address))
    return Pulse(rank.beats, bool(rank.tasks) and not rank.traffic.waiting) if rank else None


def request_stop(run: str, dask_worker: Any) -> None:
    """End the epoch after its current step."""
    if (rank := _ranks.get((run, dask_worker.address))) is not None:
        rank.stop.set()


def close(run: str, dask_worker: Any) -> None:
    """Drop this worker's part of a run."""
    # A driver that gave up may leave an epoch running: it ends after its step.
    request_stop(run, dask_worker)
    close_mailbox(run, dask_worker)
    _ranks.pop((run, dask_worker.address), None)
    heap.release()
