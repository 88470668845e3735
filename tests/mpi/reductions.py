"""Run under mpiexec -n 4, without Dask: sums over shards on 1 to 4 ranks, on pretended hosts; a line a rank."""

import json

import numpy as np
from dask._task_spec import DataNode

import daskconv
from daskconv import BatchNorm, Conv2D, Dense, Flatten, ReLU, Sequential
from daskconv.graph.threads import execute
from daskconv.plan import allreduce, buckets
from daskconv.plan.program import DATA, STATE
from daskconv.plan.tasks import TrainState
from daskconv.run.messages import Messages
from daskconv.run.reduce import Reduction
from daskconv.train.data import ArrayData

SHAPE = (6, 5, 3)
# (host of each rank, shards, batch, threads): blocks of 3 images, batches shorter than the shards.
CASES = [
    ([0], 4, 16, 1),
    ([0, 0], 4, 16, 2),
    ([0, 0, 0], 5, 33, 1),
    ([0, 0, 0, 0], 4, 16, 1),
    ([0, 0, 1, 1], 4, 16, 1),
    ([0, 0, 1, 1], 8, 50, 2),
    ([0, 1, 0, 1], 7, 30, 1),
    ([0, 0, 0, 1], 6, 31, 1),
    ([0, 0, 1, 1], 9, 20, 1),
    ([0, 0, 0], 3, 2, 1),
]


def networks():
    plain = [Conv2D(8, 3, padding="same"), ReLU(), Conv2D(6, 3), Flatten(), Dense(50), ReLU(), Dense(4)]
    return [Sequential(plain), Sequential([plain[0], BatchNorm(), *plain[1:]])]


def graph_sum(program, span, state, data, indices, epoch):
    """Return the sum of a subtree of shards that a step's graph ends in, run as it stands."""
    given = {STATE: DataNode(STATE, state), DATA: DataNode(DATA, data)}
    return execute(given | program.subtree_graph(span, indices, epoch), [("sum", *span)], 1)[0]


def check(comm, hosts, shards, batch, threads, network):
    """Take three steps' sums; return how much was sent, which is what is predicted."""
    trainer = daskconv.Trainer(network, plan=daskconv.plans.data(shards))
    program = trainer.program(SHAPE, batch)
    program.__dict__["block_images"] = 3
    draw = np.random.default_rng(3)
    data = ArrayData(draw.standard_normal((60, *SHAPE), np.float32), draw.integers(0, 4, 60))
    statistics = network.init_statistics(SHAPE)
    state = TrainState(network.init(0, SHAPE), {}, statistics=statistics)
    reduction = Reduction(program, hosts, comm.rank, threads)
    with Messages(comm, 30) as messages:
        for step, size in enumerate((batch, batch, max(1, batch - 5))):
            indices = draw.permutation(60)[:size]
            expected = graph_sum(program, (0, program.shards), state, data, indices, step)
            reduction.compute(state, data, indices, step, messages)
            total, stop = reduction.finish(step == 1 and comm.rank == 0)
            assert total.gradient.tobytes() == expected.gradient.tobytes()
            assert total.sums.tobytes() == expected.sums.tobytes()
            assert stop == (step == 1)
        traffic = messages.traffic
    predicted = buckets.traffic(program, hosts)
    sent = {
        (comm.rank, rank): (count, traffic.nbytes[rank]) for rank, count in traffic.messages.items() if count
    }
    mine = {pair: (3 * count, 3 * size) for pair, (count, size) in predicted.items() if pair[0] == comm.rank}
    assert sent == mine, (sent, mine)
    return [len(reduction.blocks.ranges), reduction.height]


def main():
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    buckets.SMALLEST, buckets.LARGEST, rows = 400, 4000, []
    for whole in (0, 1000):
        allreduce.WHOLE = whole
        for hosts, *case in CASES:
            comm = world.Split(0 if world.rank < len(hosts) else 1)
            for network in networks():
                if world.rank < len(hosts):
                    rows.append(check(comm, hosts, *case, network))
            comm.Free()
    # One rank prints: the launcher may mix what several say.
    for said in world.gather({"rank": world.rank, "rows": rows}) or ():
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
