"""A rank's part of a split Program in the mpi transport: what the tasks of its worker do."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.input import InputRead
from daskconv.plan.pieces import Pieces
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Position
from daskconv.run.exchange import Mesh, drive
from daskconv.run.forward import send_position
from daskconv.run.local_shards import epoch_steps, evaluation
from daskconv.run.messages import Messages, Traffic
from daskconv.run.replica import Options, communicator
from daskconv.run.shards import Shards


@dataclass
class _Member:
    """One rank's part of a run."""

    shards: Shards
    data: Mapping[str, Data]
    comm: Any
    options: Options
    stop: threading.Event = field(default_factory=threading.Event)
    stepped: bool = False
    traffic: Traffic = field(default_factory=Traffic)

    def messages(self) -> Messages:
        """Return what moves arrays, to be entered together with all ranks."""
        found = Messages(self.comm, self.options.deadline)
        found.traffic = self.traffic
        return found


_members: dict[str, _Member] = {}


def open_shards(
    run: str,
    program: Program,
    pieces: Pieces,
    names: list[str],
    data: list[Data],
    mesh: Mesh,
    ranks: tuple[int, ...],
    options: Options,
) -> None:
    """Get ready for a run on this rank."""
    assert program.split is not None
    pieces.split = program.split
    shards = Shards(program, pieces, mesh, options.threads)
    _members[run] = _Member(shards, dict(zip(names, data, strict=True)), communicator(ranks).comm, options)


def run_epoch(run: str, epoch: int) -> Position:
    """Run the steps of an epoch together with all other ranks."""
    member = _members[run]
    member.stop.clear()

    def done(position: Position, steps: int) -> None:
        member.stepped = True
        if member.comm.rank == 0:
            send_position(run, position, steps)

    steps = epoch_steps(member.shards, member.data["train"], epoch, member.stop.is_set, done)
    with member.messages() as messages:
        return drive(steps, messages)


def evaluate(run: str, data: str) -> NDArray[np.float64]:
    """Return the sums over a data set, together with all other ranks."""
    member = _members[run]
    with member.messages() as messages:
        return drive(evaluation(member.shards, member.data[data]), messages)


def hold(run: str, data: str, chunks: dict[int, NDArray]) -> None:
    """Take the chunks of this rank's images."""
    _members[run].data[data].hold("epoch", chunks)


def read(run: str) -> InputRead:
    """Return what this rank has read."""
    return _members[run].data["train"].count.read


def request_stop(run: str) -> None:
    """End the epoch after its current step."""
    _members[run].stop.set()


def pieces_of(run: str) -> Pieces:
    """Return this rank's pieces."""
    return _members[run].shards.pieces.without_split()


def computed(run: str) -> list[int]:
    """Return the shards that this rank has computed."""
    member = _members[run]
    return member.shards.mesh.mine if member.stepped else []


def traffic_of(run: str) -> dict[int, tuple[int, int]]:
    """Return the messages and the bytes that this rank has sent to each other rank."""
    traffic = _members[run].traffic
    return {rank: (count, traffic.nbytes[rank]) for rank, count in sorted(traffic.messages.items())}


def waited(run: str) -> float:
    """Return the seconds in which this rank waited for others."""
    return _members[run].traffic.seconds


def close_replica(run: str) -> None:
    """Drop this rank's part of a run."""
    member = _members.pop(run, None)
    if member is not None:
        # A driver that gave up may leave an epoch running: it ends after its step.
        member.stop.set()
