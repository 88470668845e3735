"""A rank's part of a run in the mpi transport: what the tasks of its worker do."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.input import InputRead
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, Position, TrainState
from daskconv.run.ahead import reading_ahead
from daskconv.run.forward import send_position
from daskconv.run.loop import evaluate_blocks, run_steps
from daskconv.run.messages import Messages, Traffic
from daskconv.run.reduce import Reduction


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
    """

    threads: int
    deadline: float
    ranks_per_host: int | None
    alone: bool


@dataclass
class Replica:
    """One rank's part of a run."""

    program: Program
    state: TrainState
    data: Mapping[str, Data]
    comm: Any
    options: Options
    reduction: Reduction
    stop: threading.Event = field(default_factory=threading.Event)
    stepped: bool = False
    traffic: Traffic = field(default_factory=Traffic)


_replicas: dict[str, Replica] = {}


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


def open_replica(
    run: str,
    program: Program,
    state: TrainState,
    names: list[str],
    data: list[Data],
    ranks: tuple[int, ...],
    options: Options,
) -> None:
    """Get ready for a run on this rank."""
    comm, hosts = communicator(ranks)
    if options.ranks_per_host:
        hosts = tuple(rank // options.ranks_per_host for rank in range(comm.size))
    reduction = Reduction(program, hosts, comm.rank, options.threads, options.alone)
    named = dict(zip(names, data, strict=True))
    _replicas[run] = Replica(program, state.copy(), named, comm, options, reduction)


def run_epoch(run: str, epoch: int) -> Position:
    """Run the steps of an epoch together with all other ranks."""
    replica = _replicas[run]
    replica.stop.clear()
    reduction = replica.reduction

    def keep(state: TrainState, steps: int) -> None:
        replica.state, replica.stepped = state, True
        if replica.comm.rank == 0:
            send_position(run, state.position, steps)

    with Messages(replica.comm, replica.options.deadline) as messages:
        messages.traffic = replica.traffic

        def compute(program: Program, state: TrainState, data: Data, indices: Indices, epoch: int) -> None:
            reduction.compute(state, data, indices, epoch, messages)

        def exchange(parts: None, stop: bool) -> tuple[Partial, bool]:
            return reduction.finish(stop)

        program, state, stopped = replica.program, replica.state, replica.stop.is_set
        with reading_ahead(program, replica.data["train"], epoch, list(reduction.own), state) as data:
            return run_steps(program, state, data, epoch, compute, exchange, stopped, keep).position


def hold(run: str, data: str, chunks: dict[int, NDArray]) -> None:
    """Take the chunks of this rank's images."""
    _replicas[run].data[data].hold("epoch", chunks)


def read(run: str) -> InputRead:
    """Return what this rank has read."""
    return _replicas[run].data["train"].count.read


def request_stop(run: str) -> None:
    """End the epoch after its current step."""
    _replicas[run].stop.set()


def evaluate(run: str, data: str, blocks: list) -> NDArray[np.float64]:
    """Return the sums of some blocks of a data set."""
    replica = _replicas[run]
    return evaluate_blocks(
        replica.program, replica.state, replica.data[data], blocks, replica.options.threads
    )


def state_of(run: str) -> TrainState:
    """Return this rank's state."""
    return _replicas[run].state


def computed(run: str) -> list[int]:
    """Return the shards that this rank has computed."""
    replica = _replicas[run]
    return [shard for span in replica.reduction.own for shard in range(*span)] if replica.stepped else []


def traffic_of(run: str) -> dict[int, tuple[int, int]]:
    """Return the messages and the bytes that this rank has sent to each other rank."""
    traffic = _replicas[run].traffic
    return {rank: (count, traffic.nbytes[rank]) for rank, count in sorted(traffic.messages.items())}


def waited(run: str) -> float:
    """Return the seconds in which this rank waited for others."""
    return _replicas[run].traffic.seconds


def close_replica(run: str) -> None:
    """Drop this rank's part of a run."""
    replica = _replicas.pop(run, None)
    if replica is not None:
        # A driver that gave up may leave an epoch running: it ends after its step.
        replica.stop.set()
