"""A worker's part of a run of a split Program, with its pieces of the state: what its tasks do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.boxes import whole
from daskconv.plan.pieces import Pieces
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Position
from daskconv.run.exchange import Mesh, drive
from daskconv.run.local_shards import epoch_steps, evaluation
from daskconv.run.peers import World
from daskconv.run.rank import Options, Rank, begin_run, rank_of
from daskconv.run.shards import Shards


@dataclass
class Member(Rank):
    """One worker's part of a run, with its pieces of the state."""

    shards: Shards

    @contextmanager
    def connected(self) -> Iterator[Shards]:
        """Yield the shards, whose exchanges are carried; to be entered together with all workers of the run."""
        with self.messages() as messages:
            self.shards.mesh = replace(self.shards.mesh, carrier=messages)
            yield self.shards


def open_shards(
    run: str,
    program: Program,
    pieces: Pieces,
    names: list[str],
    data: list[Data],
    mesh: Mesh,
    world: World,
    options: Options,
) -> None:
    """Get ready for a run on this worker."""
    assert program.split is not None
    pieces.split = program.split
    shards = Shards(program, pieces, mesh, options.threads)
    named = dict(zip(names, data, strict=True))
    begin_run(run, Member(named, world.enter(run), options, shards))


def run_epoch(run: str, epoch: int, until: int | None) -> Position:
    """Run the steps of an epoch, up to ``until``, together with all other workers."""
    member: Member = rank_of(run)
    member.stop.clear()
    mesh, program = member.shards.mesh, member.shards.program
    watch = member.watch(program, run, len(mesh.mine) / len(mesh.owners))

    def done(position: Position, steps: int) -> None:
        member.stepped = True
        member.beat()
        if member.peers.rank == 0:
            watch.done(position, steps)

    data, stopped = member.data["train"], member.stop.is_set
    with member.working(), member.connected() as shards:
        return drive(epoch_steps(shards, data, epoch, stopped, done, watch, until))


def evaluate(run: str, data: str) -> NDArray[np.float64]:
    """Return the sums over a data set, together with all other workers."""
    member: Member = rank_of(run)
    with member.working(), member.connected() as shards:
        return drive(evaluation(shards, member.data[data], member.beat))


def pieces_of(run: str) -> Pieces:
    """Return this worker's pieces."""
    return rank_of(run).shards.pieces.without_split()


def hand_over(run: str, function: Callable[..., Any], *args: Any) -> Any:
    """Give a function copies of this rank's pieces, but for those that a lower rank has, too."""
    shards = rank_of(run).shards
    pieces, mesh = shards.pieces, shards.mesh
    assert pieces.split is not None
    lower = {
        (name, piece.box)
        for shard, owner in enumerate(mesh.owners)
        if owner < mesh.rank
        for name, piece in pieces.split.pieces[shard].items()
    }
    taken = {name for name, _ in lower}
    found = [
        (f"{part}/{name}", box, array)
        for part, arrays in (("params", pieces.params), ("state", pieces.statistics))
        for (name, box), array in arrays.items()
        if (name, box) not in lower
    ]
    for (name, box), slots in pieces.slots.items():
        for slot, array in slots.items():
            if array.shape == pieces.params[name, box].shape:
                found += [(f"slots/{slot}", box, array)] if (name, box) not in lower else []
            elif name not in taken:
                found.append((f"slots/{slot}", whole(array.shape), array))
        taken.add(name)
    return function(mesh.rank, [(name, box, array.copy()) for name, box, array in found], *args)


def computed(run: str) -> list[int]:
    """Return the shards that this worker has computed."""
    member: Member = rank_of(run)
    return member.shards.mesh.mine if member.stepped else []
