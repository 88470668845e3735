"""The gradient of every layer, alone and through whole networks, against finite differences in float64."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskconv
from daskconv import (
    ELU,
    LRN,
    Add,
    AvgPool2D,
    BatchNorm,
    ChannelShuffle,
    Clip,
    Concat,
    Context,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Divide,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    LogSoftmax,
    LpPool2D,
    MaxPool2D,
    Mean,
    Multiply,
    Network,
    Node,
    Pad,
    Parameter,
    PReLU,
    ReLU,
    Reshape,
    Resize,
    Sequential,
    Sigmoid,
    Slice,
    Softmax,
    Subtract,
    Tanh,
    Transpose,
    check_gradient,
)
from reference import METHODS, PASSES, cases, refuse, slope

LAYERS = [
    (Conv2D(3, 3), (5, 5, 2)),
    (Conv2D(4, (2, 3), stride=(2, 1), padding="same", dilation=(1, 2)), (6, 7, 3)),
    (Conv2D(6, 3, padding=((1, 0), (2, 1)), groups=3), (5, 6, 3)),
    (Conv2D(5, 1, stride=3, bias=False), (5, 5, 4)),
    (Conv2D(1, 1), (1, 1, 1)),
    (Dense(4), (7,)),
    (Dense(1, bias=False), (1,)),
    (ReLU(), (4, 5, 2)),
    (ReLU(), (9,)),
    (Dropout(0.3), (4, 5, 2)),
    (Dropout(0.0), (9,)),
    (Flatten(), (3, 4, 2)),
    (LeakyReLU(0.2), (4, 5, 2)),
    (PReLU(), (4, 5, 2)),
    (ELU(1.5), (4, 5, 2)),
    (Sigmoid(), (9,)),
    (HardSigmoid(), (4, 5, 2)),
    (HardSigmoid(0.2, 0.4), (9,)),
    (HardSwish(), (4, 5, 2)),
    (Tanh(), (9,)),
    (Clip(-0.5, 1.0), (4, 5, 2)),
    (Clip(high=0.3), (9,)),
    (Softmax(), (3, 4, 5)),
    (Softmax(0), (3, 4, 5)),
    (LogSoftmax(1), (3, 4, 5)),
    (Reshape((2, -1)), (3, 4, 2)),
    (Transpose((2, 0, 1)), (3, 4, 2)),
    (Pad(((1, 2), (0, 1), (0, 0)), value=3.0), (3, 4, 2)),
    (Pad(((2, 1), (3, 0), (0, 0)), "reflect"), (3, 4, 2)),
    (Pad(((2, 1), (3, 0), (1, 0)), "edge"), (3, 4, 2)),
    (Pad(((-1, 0), (0, -2), (0, 0))), (3, 4, 2)),
    (Slice((1, None, None), (None, -1, None), (1, 2, -1)), (5, 6, 3)),
    (ChannelShuffle(3), (2, 3, 6)),
    (Add(), ((3, 4, 2), (2,))),
    (Add(), ((3, 1, 2), (1, 4, 1), (3, 4, 2))),
    (Subtract(), ((3, 4, 2), (1, 1, 2))),
    (Multiply(), ((3, 4, 2), (3, 4, 2))),
    (Multiply(), ((3, 4, 1), (4, 2))),
    (Divide(), ((3, 4, 2), (3, 4, 2))),
    (Concat(0), ((3, 4, 2), (1, 4, 2))),
    (Concat(-2), ((3, 4, 2), (3, 1, 2))),
    (LpPool2D(2), (6, 6, 2)),
    (LpPool2D(3, stride=2, padding=1, p=3.0), (5, 6, 2)),
    (GlobalAvgPool2D(), (3, 4, 5)),
    (GlobalAvgPool2D(keepdims=True), (3, 4, 5)),
    (GlobalMaxPool2D(), (3, 4, 5)),
    (GlobalMaxPool2D(keepdims=True), (3, 4, 5)),
    (Mean((0, 2)), (3, 4, 5)),
    (Mean((-1,), keepdims=True), (3, 4, 5)),
    (LRN(), (2, 3, 8)),
    (LRN(4, alpha=0.5, beta=0.6, k=2.0), (2, 3, 7)),
    (LRN(9, alpha=1.0), (5,)),
    (ConvTranspose2D(3, 3), (4, 5, 2)),
    (ConvTranspose2D(4, 2, stride=2, groups=2), (3, 4, 6)),
    (ConvTranspose2D(2, (3, 2), (2, 3), ((1, 0), (0, 1)), (1, 2), (1, 2), bias=False), (3, 4, 5)),
    (Resize(scale=2), (3, 4, 2)),
    (Resize((5, 3), mode="linear"), (3, 4, 2)),
    (Resize((2, 3), mode="linear", antialias=True), (7, 6, 2)),
    (Resize((7, 6), mode="cubic", coordinates="align_corners"), (4, 4, 2)),
    (Resize((7, 6), mode="cubic", cubic=-0.5, exclude_outside=True), (4, 4, 2)),
    (
        Resize((4, 5), mode="linear", coordinates="tf_crop_and_resize", roi=((-0.2, 1.1), (0.3, 0.8))),
        (4, 4, 2),
    ),
    (
        Resize(
            (4, 5), None, "cubic", "tf_crop_and_resize", exclude_outside=True, roi=((-3.0, 4.0), (0.0, 1.0))
        ),
        (4, 4, 2),
    ),
    (BatchNorm(), (3, 4, 2)),
    (BatchNorm(scale=False, epsilon=0.1), (5,)),
    (BatchNorm(offset=False), (1, 1, 3)),
    (Add(), ((3, 4, 2), (3, 4, 2))),
    (Add(), ((5,), (5,), (5,))),
    (Concat(), ((3, 4, 2), (3, 4, 1), (3, 4, 5))),
    (Concat(), ((3,), (4,))),
    (MaxPool2D(2), (6, 6, 2)),
    (MaxPool2D(3, stride=2, ceil_mode=True), (6, 7, 2)),
    (MaxPool2D((3, 2), stride=1, padding=((1, 1), (0, 1)), dilation=(1, 2)), (5, 6, 2)),
    (AvgPool2D(2), (6, 6, 2)),
    (AvgPool2D(3, stride=2, padding=1, ceil_mode=True), (6, 6, 2)),
    (AvgPool2D(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), (6, 6, 2)),
    (AvgPool2D((2, 3), stride=(1, 2), padding="same"), (5, 6, 2)),
    (AvgPool2D(3, stride=2, ceil_mode=True), (2, 2, 3)),
    (MaxPool2D(4, stride=3, ceil_mode=True), (2, 3, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value)[:50])
def test_backward_is_the_derivative_of_forward(layer, shape):
    assert check_gradient(layer, shape, images=3) < 1e-7


def test_a_parameter_gets_the_gradient_of_all_images():
    network = Network(
        (
            Node("grid", Parameter((3, 4, 1))),
            Node("product", Multiply(), ("input", "grid")),
            Node("flat", Flatten(), ("product",)),
        )
    )
    x, grid = np.random.default_rng(0).standard_normal((2, 5, 3, 4, 1))
    params, context = {"grid.value": grid[0]}, Context(training=True)
    y, saved = network.forward(params, x, context, {})
    np.testing.assert_array_equal(y, (x * grid[0]).reshape(5, 12))
    grads = network.backward(params, saved, np.ones_like(y), context, {}, ["grid.value"])
    np.testing.assert_allclose(grads["grid.value"], x.sum(0), rtol=1e-12)


BETWEEN = [ReLU(), LeakyReLU(), PReLU(), Sigmoid(), Clip(-0.5, 0.5), LRN(3), Conv2D(2, 3, padding=1)]
BETWEEN += [Reshape((3, 4, 2)), MaxPool2D(1), Softmax(), ChannelShuffle(2)]


@pytest.mark.parametrize("join", [Concat(), Add(), Multiply()], ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("between", BETWEEN, ids=lambda layer: type(layer).__name__)
def test_layers_that_follow_a_parameter_get_its_own_gradient(between, join):
    """The parameter and what is made of it have n = 1; the images that it is joined with are five."""
    network = Network(
        (
            Node("grid", Parameter((3, 4, 2))),
            Node("between", between, ("grid",)),
            Node("join", join, ("input", "between")),
        )
    )
    rng = np.random.default_rng(4)
    params = {name: rng.standard_normal(size) for name, size in network.weight_shapes((3, 4, 2)).items()}
    x, context = rng.standard_normal((5, 3, 4, 2)), Context(training=True)
    methods = network.choose_methods((3, 4, 2), "lowering")
    y, saved = network.forward(params, x, context, methods)
    dy = rng.standard_normal(y.shape)
    grads = network.backward(params, saved, dy, context, methods, list(params))
    for name, array in params.items():
        way = rng.standard_normal(array.shape)
        rise = slope(
            lambda moved, name=name: np.vdot(
                network.forward(params | {name: moved}, x, context, methods)[0], dy
            ),
            array,
            way,
        )
        assert np.vdot(grads[name], way) == pytest.approx(rise, rel=1e-6, abs=1e-8), name


def test_a_concat_sends_one_image_the_sum_over_all():
    x = (np.ones((5, 2, 3)), np.ones((1, 2, 4)))
    y, saved = Concat().forward({}, x, Context())
    dy = np.random.default_rng(0).standard_normal(y.shape)
    dx, _ = Concat().backward({}, saved, dy, Context())
    np.testing.assert_array_equal(dx[0], dy[..., :3])
    np.testing.assert_array_equal(dx[1], dy[..., 3:].sum(0, keepdims=True))


@pytest.mark.parametrize("join", [Concat(), Add(), Multiply()])
def test_a_block_without_images_gives_a_parameter_no_gradient(join):
    x = (np.ones((0, 2, 3)), np.ones((1, 2, 3)))
    y, saved = join.forward({}, x, Context())
    dx, _ = join.backward({}, saved, y, Context())
    assert len(y) == len(dx[0]) == 0 and dx[1].tolist() == np.zeros((1, 2, 3)).tolist()


def test_a_max_pool_is_differentiated_outside_of_training_too():
    assert check_gradient(MaxPool2D(3, stride=2), (6, 7, 2), context=Context()) < 1e-7


def test_batch_norm_outside_of_training_is_differentiated_too():
    running = {"mean": np.array([0.5, -1.0]), "variance": np.array([2.0, 0.3])}
    assert check_gradient(BatchNorm(), (3, 4, 2), context=Context(statistics=running)) < 1e-7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threads", [1, 2])
def test_convolutions_are_differentiated_by_every_method(method, threads):
    context = Context(training=True, methods=dict.fromkeys(PASSES, method), threads=threads)
    layer = Conv2D(4, (3, 2), stride=(1, 2), padding=1, dilation=(1, 2), groups=2)
    assert check_gradient(layer, (6, 7, 4), context=context) < 1e-7


@settings(deadline=None, derandomize=True, max_examples=30)
@given(case=cases(), bias=st.booleans())
def test_drawn_convolutions_are_differentiated(case, bias):
    layer = Conv2D(case.w_shape[3], case.kernel, case.stride, case.padding, case.dilation, case.groups, bias)
    assert layer.output_shape(case.x_shape[1:]) == case.y_shape[1:]
    assert check_gradient(layer, case.x_shape[1:]) < 1e-6


@dataclass(frozen=True)
class Cube(Layer):
    """Its gradient is off by the factor ``error``."""

    error: float = 1.0

    def forward(self, params, x, context):
        return x**3, x

    def backward(self, params, saved, dy, context):
        return 3 * self.error * saved**2 * dy, {}


@dataclass(frozen=True)
class BiasForgotten(Dense):
    """A Dense whose bias gets no gradient."""

    def backward(self, params, saved, dy, context):
        dx, grads = super().backward(params, saved, dy, context)
        return dx, grads | {"bias": 0 * grads["bias"]}


@dataclass(frozen=True)
class SecondInputForgotten(Add):
    """An Add that sends its second input the negative gradient."""

    def backward(self, params, saved, dy, context):
        return (dy, -dy), {}


@dataclass(frozen=True)
class NotANumber(Cube):
    """Its gradient is NaN."""

    def backward(self, params, saved, dy, context):
        return np.nan * dy, {}


def test_a_custom_layer_passes_with_the_right_gradient():
    assert check_gradient(Cube(), (3, 2)) < 1e-6


@pytest.mark.parametrize(
    ("layer", "shape", "match"),
    [
        (Cube(1.001), (3, 2), "Cube: the gradient by input 0 gives"),
        (Cube(-1.0), (3, 2), "forward and backward do not belong together"),
        (NotANumber(), (3, 2), "NotANumber: the gradient by input 0 gives nan"),
        (BiasForgotten(3), (4,), "BiasForgotten: the gradient by bias gives 0 where finite differences give"),
        (SecondInputForgotten(), ((4,), (4,)), "SecondInputForgotten: the gradient by input 1"),
    ],
)
def test_a_wrong_gradient_is_refused(layer, shape, match):
    refuse(match, check_gradient, layer, shape)


def test_the_tolerance_and_the_seed_count():
    assert 1e-6 < check_gradient(Cube(1.001), (3, 2), tolerance=1e-2) < 1e-2
    errors = {check_gradient(Cube(), (3, 2), seed=seed) for seed in range(3)}
    assert len(errors) == 3


def residual() -> Network:
    """A net with a sum, a concatenation, an output read three times and a skip from the input."""
    return Network(
        (
            Node("conv", Conv2D(4, 3, padding=1)),
            Node("relu", ReLU(), ("conv",)),
            Node("left", Conv2D(4, 3, padding="same", groups=2), ("relu",)),
            Node("right", AvgPool2D(3, stride=1, padding=1), ("relu",)),
            Node("sum", Add(), ("left", "right", "relu")),
            Node("side", Concat(), ("sum", "input", "relu")),
            Node("pool", MaxPool2D(2, ceil_mode=True), ("side",)),
            Node("drop", Dropout(0.25), ("pool",)),
            Node("flat", Flatten(), ("drop",)),
            Node("scores", Dense(5), ("flat",)),
        ),
        "residual",
    )


SHAPE = (7, 5, 2)


def weights(network):
    """Parameters in float64, none of them zero."""
    rng = np.random.default_rng(5)
    return {name: rng.standard_normal(shape) / 3 for name, shape in network.weight_shapes(SHAPE).items()}


def gradients(network, params, x, y, weight, method, trainable=None):
    methods = network.choose_methods(SHAPE, method)
    context = Context(training=True, seed=3, images=np.arange(len(x)), threads=2)
    names = network.trainable_names(SHAPE, trainable)

    def loss(params):
        scores, saved = network.forward(params, x, context, methods)
        return *daskconv.losses.softmax_cross_entropy(scores, y, weight), saved

    _, dscores, saved = loss(params)
    return lambda params: loss(params)[0], network.backward(params, saved, dscores, context, methods, names)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_gradients_through_a_whole_network_agree_with_finite_differences(method):
    network = residual()
    rng = np.random.default_rng(2)
    x, y, weight = rng.standard_normal((4, *SHAPE)), np.array([0, 4, 2, 2]), np.array([1.0, 0.5, 2.0, 0.0])
    params = weights(network)
    loss, grads = gradients(network, params, x, y, weight, method)
    assert grads.keys() == params.keys()
    for name, array in params.items():
        way = rng.standard_normal(array.shape)
        rise = slope(lambda moved, name=name: loss(params | {name: moved}), array, way)
        assert np.vdot(grads[name], way) == pytest.approx(rise, rel=1e-6, abs=1e-8), name


@pytest.mark.parametrize("trainable", [["scores.*"], ["conv.bias"], ["left.weight", "scores.bias"], []])
def test_frozen_parameters_get_no_gradient_and_change_no_other(trainable):
    network = residual()
    rng = np.random.default_rng(2)
    x, y, weight = rng.standard_normal((3, *SHAPE)), np.array([0, 4, 2]), np.ones(3)
    params = weights(network)
    _, everything = gradients(network, params, x, y, weight, "lowering")
    _, some = gradients(network, params, x, y, weight, "lowering", trainable)
    assert tuple(some) != () or trainable == []
    assert set(some) == set(network.trainable_names(SHAPE, trainable))
    for name, gradient in some.items():
        np.testing.assert_array_equal(gradient, everything[name])


@dataclass(frozen=True)
class Unwanted(Conv2D):
    """A convolution whose gradients must not be asked for."""

    def backward(self, params, saved, dy, context):
        assert not context.needs_weight_grad, "nobody reads the weight gradient"
        assert not context.needs_input_grad, "nobody reads the input gradient"
        return None, {}


def test_no_gradient_is_computed_before_the_first_trainable_layer():
    network = Sequential([("frozen", Unwanted(2, 3)), Flatten(), ("head", Dense(2))])
    params = network.init(0, (4, 4, 1), np.float64)
    methods = network.choose_methods((4, 4, 1), "auto")
    context = Context(training=True)
    scores, saved = network.forward(params, np.ones((1, 4, 4, 1)), context, methods)
    grads = network.backward(params, saved, np.ones_like(scores), context, methods, ["head.weight"])
    assert list(grads) == ["head.weight"] and grads["head.weight"].shape == (8, 2)


NOTES: list = []


@dataclass(frozen=True)
class Noting(Dense):
    """A Dense that notes what it is asked for."""

    def forward(self, params, x, context):
        NOTES.append(("forward", context.layer))
        return super().forward(params, x, context)

    def backward(self, params, saved, dy, context):
        NOTES.append(("backward", context.layer, context.needs_input_grad, context.needs_weight_grad))
        return super().backward(params, saved, dy, context)


def test_each_layer_is_asked_for_the_gradients_that_somebody_reads():
    network = Sequential([(name, Noting(3)) for name in "abcd"])
    params = network.init(0, (3,), np.float64)
    NOTES.clear()
    scores, saved = network.forward(params, np.ones((1, 3)), Context(training=True), {})
    grads = network.backward(params, saved, scores, Context(training=True), {}, ["b.bias", "d.weight"])
    assert set(grads) == {"b.bias", "d.weight"}
    assert NOTES[:4] == [("forward", layer) for layer in range(4)]
    assert NOTES[4:] == [
        ("backward", 3, True, True),
        ("backward", 2, True, False),
        ("backward", 1, False, True),
    ]


@pytest.mark.parametrize("layer", [Conv2D(2, 2), Dense(3)])
def test_gradients_that_nobody_needs_are_left_out(layer):
    shape = (3, 3, 2) if isinstance(layer, Conv2D) else (4,)
    context = Context(training=True)
    params = {name: np.ones(size) for name, (size, _) in layer.weights(shape).items()}
    y, saved = layer.forward(params, np.ones((2, *shape)), context)
    for needs_input_grad in (True, False):
        for needs_weight_grad in (True, False):
            needs = {"needs_input_grad": needs_input_grad, "needs_weight_grad": needs_weight_grad}
            dx, grads = layer.backward(params, saved, np.ones_like(y), replace(context, **needs))
            assert (dx is not None) == needs_input_grad
            assert set(grads) == ({"weight", "bias"} if needs_weight_grad else set())
