"""Networks, plans and batches that Hypothesis draws, and what a step under a plan has to give."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from daskconv import (
    LRN,
    SGD,
    Add,
    AvgPool2D,
    BatchNorm,
    Concat,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    MaxPool2D,
    Multiply,
    Network,
    Node,
    PReLU,
    ReLU,
    Resize,
    plans,
)
from daskconv.nn.losses import softmax_cross_entropy
from daskconv.plan.partition import partition
from daskconv.plan.tasks import TrainState, block_partial

CLASSES = 5


@dataclass
class Images:
    """Data in memory."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray

    def take(self, indices, epoch=None, box=None):
        x = self.x[indices]
        if box is not None:
            x = np.ascontiguousarray(x[(slice(None), *(slice(*side) for side in box))])
        return x, self.y[indices], self.weight[indices]

    def batches(self, epoch):
        return [np.arange(len(self.y))]

    def __len__(self):
        return len(self.y)


def images(count, shape, dtype="float64", seed=4):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *shape)).astype(dtype)
    return Images(x, rng.integers(0, CLASSES, count), rng.uniform(0.5, 2, count))


SAME = [ReLU(), PReLU(), LRN(3), Dropout(0.25), BatchNorm(), MaxPool2D(3, 1, 1), AvgPool2D(3, 1, 1)]


@st.composite
def convolutions(draw, filters):
    kernel = draw(st.sampled_from([1, 3, (3, 2), 5]))
    groups = draw(st.sampled_from([1, 1, 1, 2, 4]))
    return Conv2D(
        filters,
        kernel,
        stride=draw(st.sampled_from([1, 1, 2, (1, 2)])),
        padding=draw(st.sampled_from([1, 2, "same", ((0, 2), (1, 2))])),
        dilation=draw(st.sampled_from([1, 1, 2])) if kernel == 3 else 1,
        groups=groups,
        bias=draw(st.booleans()),
    )


@st.composite
def networks(draw, dense=True):
    """Return a network of (h, w, 4) images: convolutions with branches between them, then dense layers."""
    nodes, last, channels = [], "input", 4

    def add(layer, *inputs):
        nonlocal last
        last = f"node{len(nodes)}"
        nodes.append(Node(last, layer, inputs))
        return last

    for _ in range(draw(st.integers(1, 3))):
        channels = draw(st.sampled_from([4, 8]))
        add(draw(convolutions(channels)), last)
        for layer in draw(st.lists(st.sampled_from(SAME), max_size=2)):
            add(layer, last)
        kind = draw(st.sampled_from(["none", "residual", "concat", "product", "pool", "resize"]))
        if kind == "residual":
            before = last
            add(Add(), add(Conv2D(channels, 3, padding=1), before), before)
        elif kind == "concat":
            before = last
            add(Concat(), add(Conv2D(channels, 1), before), add(Conv2D(4, 3, padding=1), before))
            channels += 4
        elif kind == "product":
            before = last
            add(Multiply(), before, add(GlobalAvgPool2D(keepdims=True), before))
        elif kind == "pool":
            add(MaxPool2D(3, 2, ceil_mode=draw(st.booleans())), last)
        elif kind == "resize":
            add(Resize(scale=2), last)
    add(draw(st.sampled_from([Flatten(), GlobalAvgPool2D()])), last)
    for units in draw(st.lists(st.sampled_from([6, 8]), max_size=2)):
        add(ReLU(), add(Dense(units), last))
    add(Dense(CLASSES, bias=draw(st.booleans())), last)
    return Network(tuple(nodes))


def some_plans():
    """Return plans of all kinds."""
    flags = st.booleans()
    few = st.sampled_from([1, 2, 3])
    return st.one_of(
        st.builds(plans.data, few, synchronize=flags),
        st.builds(plans.model, st.sampled_from([2, 3, 4]), n=st.sampled_from([1, 2]), synchronize=flags),
        st.builds(
            plans.hybrid,
            st.sampled_from([2, 4]),
            slices=st.sampled_from([1, 2, 3, "shard"]),
            synchronize=flags,
        ),
        st.builds(
            plans.hybrid, st.sampled_from([2, 3]), split_at=st.just("node0"), synchronize=st.just(True)
        ),
        st.builds(plans.spatial, few, few, n=st.sampled_from([1, 2]), synchronize=flags),
    )


def program_of(network, plan, shape, batch, dtype="float64", **options):
    options = {
        "method": "auto",
        "precision": "exact",
        "loss": softmax_cross_entropy,
        "metrics": (),
        "optimizer": SGD(0.1, momentum=0.9),
        "trainable": None,
        "seed": 3,
    } | options
    return partition(network, plan, input_shape=shape, batch_size=batch, dtype=dtype, **options)


def state_of(network, shape, optimizer, dtype="float64"):
    """Return a state whose biases and slopes differ from 0, too."""
    rng, params = np.random.default_rng(1), network.init(0, shape, dtype)
    for array in params.values():
        array += (0.1 * rng.standard_normal(array.shape)).astype(dtype)
    return TrainState(params, optimizer.init(params), statistics=network.init_statistics(shape, dtype))


def unsplit(network, shape, data, groups):
    """Return the gradients, statistics and sums of the whole network over groups of images, added up."""
    program = program_of(network, plans.data(1), shape, 12)
    state, vector, sums = state_of(network, shape, program.optimizer), 0.0, 0.0
    for group in groups:
        part = block_partial(program, state, data, group, 0, 1)
        vector, sums = vector + part.gradient, sums + part.sums
    return program.unflatten(vector), sums
