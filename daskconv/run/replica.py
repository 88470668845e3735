"""A worker's part of a run with a copy of the whole state: what its tasks do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.plan.boxes import whole
from daskconv.plan.program import Program
from daskconv.plan.tasks import Data, Indices, Partial, Position, TrainState
from daskconv.run.ahead import reading_ahead
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
    shards = sum(last - first for first, last in reduction.own)
    watch = replica.watch(replica.program, run, shards / replica.program.shards)

    def keep(state: TrainState, steps: int) -> None:
        replica.state, replica.stepped = state, True
        replica.beat()
        if replica.peers.rank == 0:
            watch.done(state.position, steps)

    with replica.working(), replica.messages() as messages:

        def compute(program: Program, state: TrainState, data: Data, indices: Indices, epoch: int) -> None:
            reduction.compute(state, data, indices, epoch, messages)

        def exchange(parts: None, stop: bool) -> tuple[Partial, bool]:
            return reduction.finish(stop)

        program, state, stopped = replica.program, replica.state, replica.stop.is_set
        with reading_ahead(program, replica.data["train"], epoch, list(reduction.own), state, until) as data:
            steps = (program, state, data, epoch, compute, exchange, stopped, keep)
            return run_steps(*steps, watch, until).position


def evaluate(run: str, data: str, blocks: list) -> NDArray[np.float64]:
    """Return the sums of some blocks of a data set."""
    replica: Replica = rank_of(run)
    with replica.working():
        return evaluate_blocks(
            replica.program,
            replica.state,
            replica.data[data],
            blocks,
            replica.options.threads,
            replica.beat,
        )


def state_of(run: str) -> TrainState:
    """Return this worker's state."""
    return rank_of(run).state


def hand_over(run: str, function: Callable[..., Any], *args: Any) -> Any:
    """Give a function copies of this rank's share of the state, of which all ranks have the whole."""
    replica: Replica = rank_of(run)
    state, number = replica.state, replica.peers.rank
    parts = {"params": state.params, "slots": state.slots, "state": state.statistics}
    arrays = {f"{part}/{name}": array for part, named in parts.items() for name, array in named.items()}
    mine = share({name: array.nbytes for name, array in arrays.items()}, number, len(replica.peers.hosts))
    return function(number, [(name, whole(arrays[name].shape), arrays[name].copy()) for name in mine], *args)


def share(sizes: Mapping[str, int], number: int, count: int) -> list[str]:
    """Return what falls to one of ``count``: the largest go first, each to who has least.

    Examples
    --------
    >>> share({"a": 5, "b": 3, "c": 2}, 0, 2), share({"a": 5, "b": 3, "c": 2}, 1, 2)
    (['a'], ['b', 'c'])
    """
    loads, mine = [0] * count, []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        to = loads.index(min(loads))
        loads[to] += sizes[name]
        mine += [name] if to == number else []
    return mine


def computed(run: str) -> list[int]:
    """Return the shards that this worker has computed."""
    replica: Replica = rank_of(run)
    return [shard for span in replica.reduction.own for shard in range(*span)] if replica.stepped else []
