"""A worker's part of a run with a copy of the whole state: what its tasks do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, Position, TrainState
from daskconv.run.ahead import reading_ahead
from daskconv.run.forward import send_position
from daskconv.run.loop import evaluate_blocks, run_steps
from daskconv.run.peers import World
from daskconv.run.rank import Options, Rank, begin_run, rank_of
from daskconv.run.reduce import Reduction


@dataclass
class Replica(Rank):
    """One worker's part of a run, with a copy of the whole state."""

    program: Program
    state: TrainState
    reduction: Reduction


def open_replica(
    run: str,
    program: Program,
    state: TrainState,
    names: list[str],
    data: list[Data],
    world: World,
    options: Options,
) -> None:
    """Get ready for a run on this worker."""
    peers = world.enter(run)
    hosts = peers.hosts
    if options.ranks_per_host:
        hosts = tuple(rank // options.ranks_per_host for rank in range(len(hosts)))
    reduction = Reduction(program, hosts, peers.rank, options.threads, options.alone)
    named = dict(zip(names, data, strict=True))
    begin_run(run, Replica(named, peers, options, program, state.copy(), reduction))


def run_epoch(run: str, epoch: int, until: int | None) -> Position:
    """Run the steps of an epoch, up to ``until``, together with all other workers."""
    replica: Replica = rank_of(run)
    replica.stop.clear()
    reduction = replica.reduction

    def keep(state: TrainState, steps: int) -> None:
        replica.state, replica.stepped = state, True
        if replica.peers.rank == 0:
            send_position(run, state.position, steps)

    with replica.messages() as messages:

        def compute(program: Program, state: TrainState, data: Data, indices: Indices, epoch: int) -> None:
            reduction.compute(state, data, indices, epoch, messages)

        def exchange(parts: None, stop: bool) -> tuple[Partial, bool]:
            return reduction.finish(stop)

        program, state, stopped = replica.program, replica.state, replica.stop.is_set
        with reading_ahead(program, replica.data["train"], epoch, list(reduction.own), state, until) as data:
            steps = (program, state, data, epoch, compute, exchange, stopped, keep, until)
            return run_steps(*steps).position


def evaluate(run: str, data: str, blocks: list) -> NDArray[np.float64]:
    """Return the sums of some blocks of a data set."""
    replica: Replica = rank_of(run)
    return evaluate_blocks(
        replica.program, replica.state, replica.data[data], blocks, replica.options.threads
    )


def state_of(run: str) -> TrainState:
    """Return this worker's state."""
    return rank_of(run).state


def computed(run: str) -> list[int]:
    """Return the shards that this worker has computed."""
    replica: Replica = rank_of(run)
    return [shard for span in replica.reduction.own for shard in range(*span)] if replica.stepped else []
