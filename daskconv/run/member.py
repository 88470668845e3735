"""A rank's part of a split Program in the mpi transport: what the tasks of its worker do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.pieces import Pieces
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Position
from daskconv.run.exchange import Mesh, drive
from daskconv.run.local_shards import epoch_steps, evaluation
from daskconv.run.rank import Options, Rank, communicator, ranks
from daskconv.run.shards import Shards


@dataclass
class Member(Rank):
    """One rank's part of a run, with its pieces of the state."""

    shards: Shards


def open_shards(
    run: str,
    program: Program,
    pieces: Pieces,
    names: list[str],
    data: list[Data],
    mesh: Mesh,
    world: tuple[int, ...],
    options: Options,
) -> None:
    """Get ready for a run on this rank."""
    assert program.split is not None
    pieces.split = program.split
    shards = Shards(program, pieces, mesh, options.threads)
    named = dict(zip(names, data, strict=True))
    ranks[run] = Member(named, communicator(world).comm, options, shards)


def run_epoch(run: str, epoch: int) -> Position:
    """Run the steps of an epoch together with all other ranks."""
    member = ranks[run]
    member.stop.clear()
    mesh, program = member.shards.mesh, member.shards.program
    watch = member.watch(program, run, len(mesh.mine) / len(mesh.owners))

    def done(position: Position, steps: int) -> None:
        member.stepped = True
        if member.comm.rank == 0:
            watch.done(position, steps)

    steps = epoch_steps(member.shards, member.data["train"], epoch, member.stop.is_set, done, watch)
    with member.messages() as messages:
        return drive(steps, messages)


def evaluate(run: str, data: str) -> NDArray[np.float64]:
    """Return the sums over a data set, together with all other ranks."""
    member = ranks[run]
    with member.messages() as messages:
        return drive(evaluation(member.shards, member.data[data]), messages)


def pieces_of(run: str) -> Pieces:
    """Return this rank's pieces."""
    return ranks[run].shards.pieces.without_split()


def computed(run: str) -> list[int]:
    """Return the shards that this rank has computed."""
    member = ranks[run]
    return member.shards.mesh.mine if member.stepped else []
