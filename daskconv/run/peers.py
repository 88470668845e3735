"""The workers that train together, seen from one of them: which one it is, who shares its host, and what carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

from distributed import get_worker

from daskconv.run.connections import Connections, open_mailbox
from daskconv.run.messages import Messages
from daskconv.run.moves import Carrier


class Peers(NamedTuple):
    """The workers of a run, seen from one of them.

    Attributes
    ----------
    rank : int
        That worker, from 0.
    hosts : tuple of int
        The host of each worker, as the number of the first worker there.
    carrier : function of (patience)
        What carries exchanges, to be entered together with all others.
    """

    rank: int
    hosts: tuple[int, ...]
    carrier: Callable[[float], Carrier]


class World(Protocol):
    """The workers of a run, as plain data that the driver sends to each of them."""

    def enter(self, run: str) -> Peers:
        """Return this worker among them, on that worker."""


@dataclass(frozen=True)
class MPIWorld:
    """Workers that are ranks of this MPI job."""

    ranks: tuple[int, ...]

    def enter(self, run: str) -> Peers:
        """Return this rank among them."""
        comm, hosts = communicator(self.ranks)
        return Peers(comm.rank, hosts, partial(Messages, comm))


class Ranks(NamedTuple):
    """A communicator, and the host of each of its ranks."""

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


@dataclass(frozen=True)
class DaskWorld:
    """Workers of a Dask cluster, by their addresses."""

    addresses: tuple[str, ...]

    def enter(self, run: str) -> Peers:
        """Return this worker among them, which takes from now on what comes for the run."""
        worker = get_worker()
        names = [address.rpartition(":")[0] for address in self.addresses]
        hosts = tuple(names.index(name) for name in names)
        rank = self.addresses.index(worker.address)
        return Peers(rank, hosts, partial(Connections, open_mailbox(run, worker), rank, self.addresses))
