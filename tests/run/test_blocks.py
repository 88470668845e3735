"""The sums of a step's blocks: those of its graph, to the bit, on any number of threads."""

from collections import Counter

import numpy as np
import pytest

import daskconv
from daskconv import Conv2D, Dense, Flatten, Network, Node, ReLU
from daskconv.plan import buckets
from daskconv.plan.tasks import TrainState
from daskconv.run.blocks import BlockSums
from daskconv.train.data import ArrayData
from mpi.reductions import graph_sum

SHAPE = (6, 5, 3)
# The loss does not depend on "unread".
NET = Network(
    (
        Node("conv", Conv2D(8, 3), ("input",)),
        Node("relu", ReLU(), ("conv",)),
        Node("flat", Flatten(), ("relu",)),
        Node("unread", Dense(5), ("flat",)),
        Node("scores", Dense(4), ("flat",)),
    ),
    "branches",
)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("shards", "images"), [(1, 9), (4, 40), (5, 33), (6, 4)])
def test_sums_are_those_of_the_graph_and_each_bucket_is_told_once(monkeypatch, threads, shards, images):
    monkeypatch.setattr(buckets, "SMALLEST", 400)
    monkeypatch.setattr(buckets, "LARGEST", 1000)  # so that a layer's weights are in several
    program = daskconv.Trainer(NET, plan=daskconv.plans.data(shards)).program(SHAPE, max(images, shards))
    program.__dict__["block_images"] = 3
    draw = np.random.default_rng()
    data = ArrayData(draw.standard_normal((50, *SHAPE), np.float32), draw.integers(0, 4, 50))
    state, indices = TrainState(NET.init(0, SHAPE), {}), draw.permutation(50)[:images]
    root, told = (0, shards), Counter()
    # A rank that does not have all shards has a sum of each of its subtrees.
    spans = [root] if shards < 5 else [(0, 3), (3, shards)]

    def whole(bucket, span):
        start, stop = ([*sums.ranges, (0, 0)])[bucket]
        assert not np.isnan(sums.totals[span].gradient[start:stop]).any()
        told[bucket, span] += 1

    sums = BlockSums(program, spans, threads, whole)
    for epoch in range(2):
        for total in sums.totals.values():
            total.gradient[...], total.sums = np.nan, np.full_like(total.sums, np.nan)
        sums.run(state, data, indices, epoch)
        for span, total in sums.totals.items():
            expected = graph_sum(program, span, state, data, indices, epoch)
            assert total.gradient.tobytes() == expected.gradient.tobytes()
            assert total.sums.tobytes() == expected.sums.tobytes()
            assert not program.unflatten(total.gradient)["unread.weight"].any()
    assert len(sums.ranges) > 2
    assert told == {(bucket, span): 2 for span in spans for bucket in range(len(sums.ranges) + 1)}
