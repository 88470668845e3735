"""Fusion: the same values and gradients as layer by layer, and batch norms that convolutions do."""

import numpy as np
import pytest

import daskconv
from daskconv import (
    Add,
    BatchNorm,
    Concat,
    Context,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    Network,
    Node,
    ReLU,
    Sequential,
)
from daskconv.nn.fuse import fold_batch_norm
from daskconv.nn.passes import input_of

SHAPE = (6, 5, 4)
RESIDUAL = Network(
    (
        Node("stem", Conv2D(4, 3, padding=1)),
        Node("conv1", Conv2D(4, 3, padding=1, bias=False), ("stem",)),
        Node("norm1", BatchNorm(), ("conv1",)),
        Node("relu1", ReLU(), ("norm1",)),
        Node("conv2", Conv2D(4, 3, padding=1), ("relu1",)),
        Node("norm2", BatchNorm(scale=False), ("conv2",)),
        Node("sum1", Add(), ("norm2", "stem")),
        Node("relu2", ReLU(), ("sum1",)),
        Node("conv3", Conv2D(6, 1), ("relu2",)),
        Node("short", Conv2D(6, 1), ("relu2",)),
        Node("sum2", Add(), ("conv3", "short")),
        Node("relu3", ReLU(), ("sum2",)),
        Node("flat", Flatten(), ("relu3",)),
        Node("dense", Dense(3), ("flat",)),
    )
)


def one_by_one(network, params, x, context, methods):
    """The values of all nodes by their layers alone."""
    values = {"input": x}
    for position, node in enumerate(network.nodes):
        own = {n.rpartition(".")[2]: a for n, a in params.items() if n.startswith(node.name + ".")}
        running = {
            n.rpartition(".")[2]: a for n, a in context.statistics.items() if n.startswith(node.name + ".")
        }
        here = context.at(position, methods.get(node.name, {}), statistics=running)
        values[node.name] = node.layer.forward(own, input_of(node, values), here)[0]
    return values


def drawn(network, shape=SHAPE, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    params = {name: rng.standard_normal(s).astype(dtype) for name, s in network.weight_shapes(shape).items()}
    running = {
        name: rng.uniform(0.5, 2, s).astype(dtype) for name, s in network.statistic_shapes(shape).items()
    }
    return params, running, rng.standard_normal((3, *shape)).astype(dtype)


def test_what_follows_at_once_is_done_with_the_layer():
    found = {name: tail.nodes[1:] for name, tail in RESIDUAL.tails(SHAPE).items() if len(tail.nodes) > 1}
    assert found == {
        "norm1": ("relu1",),
        "norm2": ("sum1", "relu2"),
        "short": ("sum2", "relu3"),  # the later operand: conv3 is known then
    }


def test_values_that_others_read_are_made():
    net = Network(
        (
            Node("a", Conv2D(4, 1)),
            Node("b", ReLU(), ("a",)),
            Node("c", Conv2D(4, 1), ("b",)),
            Node("sum", Add(), ("a", "c")),
            Node("double", Add(), ("sum", "sum")),
            Node("three", Add(), ("double", "b", "a")),
            Node("last", Conv2D(4, 1), ("three",)),
        )
    )
    assert {name: tail.nodes for name, tail in net.tails(SHAPE).items() if tail.nodes[1:]} == {
        "c": ("c", "sum")
    }
    check(net)


@pytest.mark.parametrize("training", [False, True])
def test_the_fused_pass_is_the_pass_layer_by_layer(training):
    check(RESIDUAL, training)


def check(network, training=False):
    params, running, x = drawn(network)
    methods = network.choose_methods(SHAPE, "auto", "exact")
    context = Context(training, statistics=running)
    y, saved = network.forward(params, x, context, methods)
    want = one_by_one(network, params, x, Context(training, statistics=running), methods)
    np.testing.assert_allclose(y, want[network.nodes[-1].name], rtol=1e-10, atol=1e-10)
    # One direction of all parameters at once, against the difference of two passes.
    dy = np.random.default_rng(1).standard_normal(y.shape)
    grads = network.backward(params, saved, dy, context, methods, tuple(params))
    assert not saved
    direction = {name: np.random.default_rng(2).standard_normal(a.shape) for name, a in params.items()}
    slope = sum(float(np.sum(grads[name] * direction[name])) for name in params)
    ends = []
    for step in (1e-6, -1e-6):
        moved = {name: array + step * direction[name] for name, array in params.items()}
        ends.append(network.forward(moved, x, Context(training, statistics=running), methods)[0])
    rise = float(np.sum((ends[0] - ends[1]) * dy)) / 2e-6
    assert abs(rise - slope) < 1e-5 * max(abs(rise), 1)


def test_frozen_parts_get_their_gradient_through_a_tail():
    params, running, x = drawn(RESIDUAL)
    methods = RESIDUAL.choose_methods(SHAPE, "auto", "exact")
    every, some = ({}, {})
    for names, grads in ((tuple(params), every), (("stem.weight", "norm1.scale"), some)):
        context = Context(True, statistics=running)
        y, saved = RESIDUAL.forward(params, x, context, methods)
        grads |= RESIDUAL.backward(params, saved, np.ones_like(y), context, methods, names)
    for name, gradient in some.items():
        np.testing.assert_array_equal(gradient, every[name])
    assert set(some) == {"stem.weight", "norm1.scale"}


def test_batch_norms_are_folded_into_convolutions():
    params, running, x = drawn(RESIDUAL)
    folded, arrays = fold_batch_norm(RESIDUAL, params, running)
    assert [node.name for node in folded.nodes if isinstance(node.layer, BatchNorm)] == []
    assert {name: array.shape for name, array in arrays.items()} == folded.weight_shapes(SHAPE)
    methods = RESIDUAL.choose_methods(SHAPE, "auto", "exact")
    got = folded.forward(arrays, x, Context(), methods)[0]
    want = RESIDUAL.forward(params, x, Context(statistics=running), methods)[0]
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
    assert {name: tail.nodes[1:] for name, tail in folded.tails(SHAPE).items() if tail.nodes[1:]} == {
        "conv1": ("relu1",),
        "conv2": ("sum1", "relu2"),
        "short": ("sum2", "relu3"),
    }


def test_batch_norms_that_cannot_be_folded_stay():
    net = Network(
        (
            Node("norm0", BatchNorm()),
            Node("conv", Conv2D(4, 1), ("norm0",)),
            Node("norm1", BatchNorm(), ("conv",)),
            Node("both", Concat(), ("conv", "norm1")),
            Node("conv2", Conv2D(2, 1), ("both",)),
            Node("norm2", BatchNorm(), ("conv2",)),
        )
    )
    params, running, x = drawn(net)
    folded, arrays = fold_batch_norm(net, params, running)
    assert folded == net and set(arrays) == set(params)
    model = daskconv.Model(net, params, running)
    methods = net.choose_methods(SHAPE, "auto")
    want = net.forward(params, x.astype(np.float32), Context(statistics=running), methods)[0]
    np.testing.assert_allclose(model.predict(x), want, rtol=1e-5, atol=1e-5)


def test_a_constant_for_all_images_is_added_as_ever():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Grid(Layer):
        is_constant = True

        def forward(self, params, x, context):
            return np.ones((1, *x.shape[1:]), x.dtype), None

    net = Network((Node("grid", Grid()), Node("conv", Conv2D(4, 1)), Node("sum", Add(), ("conv", "grid"))))
    assert not net.tails(SHAPE)["conv"].add


def test_a_predictor_stays_as_it_was_made():
    params, running, x = drawn(RESIDUAL, dtype=np.float32)
    model = daskconv.Model(RESIDUAL, params, running)
    predictor = model.predictor(SHAPE)
    before = predictor.predict(x)
    np.testing.assert_array_equal(before, model.predict(x))
    model.params = {name: 0 * array for name, array in model.params.items()}
    np.testing.assert_array_equal(before, predictor.predict(x))
    with pytest.raises(daskconv.errors.InputError, match="make one for that shape"):
        predictor.predict(np.zeros((1, 5, 5, 4), np.float32))


def test_sequential_nets_fuse_too():
    net = Sequential([Conv2D(4, 3), ReLU(), Conv2D(5, 3), BatchNorm(), ReLU(), Conv2D(3, 1)])
    check(net)
