"""A rank's part of a run in the mpi transport: what the tasks of its worker do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, Position, TrainState
from daskconv.run.ahead import reading_ahead
from daskconv.run.loop import evaluate_blocks, run_steps
from daskconv.run.rank import Options, Rank, communicator, ranks
from daskconv.run.reduce import Reduction


@dataclass
class Replica(Rank):
    """One rank's part of a run, with a copy of the whole state."""

    program: Program
    state: TrainState
    reduction: Reduction


def open_replica(
    run: str,
    program: Program,
    state: TrainState,
    names: list[str],
    data: list[Data],
    world: tuple[int, ...],
    options: Options,
) -> None:
    """Get ready for a run on this rank."""
    comm, hosts = communicator(world)
    if options.ranks_per_host:
        hosts = tuple(rank // options.ranks_per_host for rank in range(comm.size))
    reduction = Reduction(program, hosts, comm.rank, options.threads, options.alone)
    named = dict(zip(names, data, strict=True))
    ranks[run] = Replica(named, comm, options, program, state.copy(), reduction)


def run_epoch(run: str, epoch: int) -> Position:
    """Run the steps of an epoch together with all other ranks."""
    replica = ranks[run]
    replica.stop.clear()
    reduction = replica.reduction
    shards = sum(last - first for first, last in reduction.own)
    watch = replica.watch(replica.program, run, shards / replica.program.shards)

    def keep(state: TrainState, steps: int) -> None:
        replica.state, replica.stepped = state, True
        if replica.comm.rank == 0:
            watch.done(state.position, steps)

    with replica.messages() as messages:

        def compute(program: Program, state: TrainState, data: Data, indices: Indices, epoch: int) -> None:
            reduction.compute(state, data, indices, epoch, messages)

        def exchange(parts: None, stop: bool) -> tuple[Partial, bool]:
            return reduction.finish(stop)

        program, state, stopped = replica.program, replica.state, replica.stop.is_set
        with reading_ahead(program, replica.data["train"], epoch, list(reduction.own), state) as data:
            steps = (program, state, data, epoch, compute, exchange, stopped, keep, watch)
            return run_steps(*steps).position


def evaluate(run: str, data: str, blocks: list) -> NDArray[np.float64]:
    """Return the sums of some blocks of a data set."""
    replica = ranks[run]
    return evaluate_blocks(
        replica.program, replica.state, replica.data[data], blocks, replica.options.threads
    )


def state_of(run: str) -> TrainState:
    """Return this rank's state."""
    return ranks[run].state


def computed(run: str) -> list[int]:
    """Return the shards that this rank has computed."""
    replica = ranks[run]
    return [shard for span in replica.reduction.own for shard in range(*span)] if replica.stepped else []
