"""What every rank of the mpi transport has, whatever it computes: its data, its messages, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

from daskconv.kernels import heap
from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data
from daskconv.run.forward import sender, worker_name
from daskconv.run.messages import Messages, Traffic
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


class Ranks(NamedTuple):
    """The ranks that train together.

    Attributes
    ----------
    comm : mpi4py.MPI.Comm
    hosts : tuple of int
        The host of each rank, as the number of the first rank there.
    """

    comm: Any
    hosts: tuple[int, ...]


@cache
def communicator(ranks: tuple[int, ...]) -> Ranks:
    """Return the communicator of these world ranks; made once, since MPI has a limited number of them."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Create_group(MPI.COMM_WORLD.group.Incl(list(ranks)))
    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    hosts = comm.allgather(here.bcast(comm.rank))
    here.Free()
    return Ranks(comm, tuple(hosts))


@dataclass
class Rank:
    """One rank's part of a run."""

    data: Mapping[str, Data]
    comm: Any
    options: Options
    stop: threading.Event = field(default_factory=threading.Event, kw_only=True)
    stepped: bool = field(default=False, kw_only=True)
    traffic: Traffic = field(default_factory=Traffic, kw_only=True)

    def watch(self, program: Program, run: str, share: float) -> Watch:
        """Return what tells of this rank's steps, its share of all images."""
        options, comm = self.options, self.comm
        where = worker_name(), comm.rank, comm.size
        return Watch(program, sender(run), options.asked, *where, share, options.threads)

    def messages(self) -> Messages:
        """Return what moves arrays, to be entered together with all ranks."""
        found = Messages(self.comm, self.options.deadline)
        found.traffic = self.traffic
        return found


ranks: dict[str, Any] = {}
"""By run, this process's part of it."""


def hold(run: str, data: str, chunks: dict[int, NDArray]) -> None:
    """Take the chunks of this rank's images."""
    ranks[run].data[data].hold("epoch", chunks)


def read(run: str) -> InputRead:
    """Return what this rank has read."""
    return ranks[run].data["train"].count.read


def request_stop(run: str) -> None:
    """End the epoch after its current step."""
    ranks[run].stop.set()


def traffic_of(run: str) -> dict[int, tuple[int, int]]:
    """Return the messages and the bytes that this rank has sent to each other rank."""
    traffic = ranks[run].traffic
    return {rank: (count, traffic.nbytes[rank]) for rank, count in sorted(traffic.messages.items())}


def waited(run: str) -> float:
    """Return the seconds in which this rank waited for others."""
    return ranks[run].traffic.seconds


def close(run: str) -> None:
    """Drop this rank's part of a run."""
    rank = ranks.pop(run, None)
    if rank is not None:
        # A driver that gave up may leave an epoch running: it ends after its step.
        rank.stop.set()
    del rank
    heap.release()
