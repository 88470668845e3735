"""Every layer's values and gradients beside PyTorch's, in float64, for options that are drawn."""

import numpy as np
import pytest

import daskconv
from daskconv import Context
from reference import PASSES

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed: its layers are not compared (extra: bench)"
)
functional = torch.nn.functional

TRAINING = Context(training=True, methods=dict.fromkeys(PASSES, "lowering"))


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def tensor(array):
    """An array as a leaf with a gradient; images channels first."""
    array = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(array)).requires_grad_()


def back(array):
    array = array.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def filters(weight):
    """(r, s, c, k) as PyTorch's (k, c, r, s); what is not a kernel stays."""
    return weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight


def compare(layer, x, theirs, params=None, context=TRAINING, tolerance=1e-9):
    """The layer's output, input gradient and weight gradients are those of ``theirs(x, **params)``."""
    params = params or {}
    several = isinstance(x, tuple)
    y, saved = layer.forward(params, x, context)
    leaves = tuple(map(tensor, x if several else (x,)))
    weights = {
        name: torch.from_numpy(np.ascontiguousarray(filters(array))).requires_grad_()
        for name, array in params.items()
    }
    want = theirs(*leaves, **weights)
    np.testing.assert_allclose(y, back(want), rtol=tolerance, atol=tolerance)
    dy = images(*y.shape, seed=9)
    dx, grads = layer.backward(params, saved, dy, context)
    want.backward(tensor(dy).detach())
    for got, leaf in zip(dx if several else (dx,), leaves, strict=True):
        np.testing.assert_allclose(got, back(leaf.grad), rtol=tolerance, atol=tolerance)
    for name, leaf in weights.items():
        np.testing.assert_allclose(filters(grads[name]), leaf.grad.numpy(), rtol=tolerance, atol=tolerance)


ACTIVATIONS = [
    (daskconv.ReLU(), functional.relu),
    (daskconv.LeakyReLU(0.3), lambda x: functional.leaky_relu(x, 0.3)),
    (daskconv.ELU(0.7), lambda x: functional.elu(x, 0.7)),
    (daskconv.Sigmoid(), torch.sigmoid),
    (daskconv.HardSigmoid(), functional.hardsigmoid),
    (daskconv.HardSwish(), functional.hardswish),
    (daskconv.Tanh(), torch.tanh),
    (daskconv.Clip(-1.0, 0.5), lambda x: torch.clamp(x, -1.0, 0.5)),
    (daskconv.Softmax(), lambda x: torch.softmax(x, 1)),
    (daskconv.Softmax(0), lambda x: torch.softmax(x, 2)),
    (daskconv.LogSoftmax(), lambda x: torch.log_softmax(x, 1)),
    (daskconv.ChannelShuffle(3), lambda x: functional.channel_shuffle(x, 3)),
    (daskconv.GlobalAvgPool2D(), lambda x: x.mean((2, 3))),
    (daskconv.GlobalMaxPool2D(keepdims=True), lambda x: functional.adaptive_max_pool2d(x, 1)),
    (daskconv.LRN(5, 0.1, 0.75, 1.5), lambda x: functional.local_response_norm(x, 5, 0.1, 0.75, 1.5)),
    (daskconv.Upsample(3), lambda x: functional.interpolate(x, scale_factor=3)),
    (daskconv.Upsample(2, "linear"), lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear")),
    (
        daskconv.Resize((5, 9), mode="linear", coordinates="align_corners"),
        lambda x: functional.interpolate(x, (5, 9), mode="bilinear", align_corners=True),
    ),
    (daskconv.Resize((9, 4), mode="cubic"), lambda x: functional.interpolate(x, (9, 4), mode="bicubic")),
    (
        daskconv.Resize((3, 4), mode="linear", antialias=True, exclude_outside=True),
        lambda x: functional.interpolate(x, (3, 4), mode="bilinear", antialias=True),
    ),
    (daskconv.Pad(((1, 2), (3, 1), (0, 0)), "reflect"), lambda x: functional.pad(x, (3, 1, 1, 2), "reflect")),
    (daskconv.Pad(((1, 2), (3, 1), (0, 0)), "edge"), lambda x: functional.pad(x, (3, 1, 1, 2), "replicate")),
    (daskconv.Pad(((1, 2), (3, 1), (0, 0)), value=2.0), lambda x: functional.pad(x, (3, 1, 1, 2), value=2.0)),
]


@pytest.mark.parametrize(
    ("layer", "theirs"), ACTIVATIONS, ids=lambda value: None if callable(value) else str(value)[:40]
)
def test_layers_of_one_input(layer, theirs):
    # PyTorch's 1 / 6 is a float32.
    compare(
        layer, images(2, 6, 7, 6), theirs, tolerance=1e-7 if isinstance(layer, daskconv.HardSigmoid) else 1e-9
    )


def test_a_learnt_slope():
    compare(
        daskconv.PReLU(),
        images(2, 3, 4, 5),
        lambda x, slope: functional.prelu(x, slope),
        {"slope": images(5)},
    )


@pytest.mark.parametrize(
    ("layer", "theirs"),
    [
        (daskconv.Add(), torch.add),
        (daskconv.Subtract(), torch.sub),
        (daskconv.Multiply(), torch.mul),
        (daskconv.Divide(), torch.div),
    ],
)
@pytest.mark.parametrize("other", [(2, 3, 4, 5), (2, 1, 1, 5), (1, 3, 1, 1)])
def test_layers_of_two_inputs(layer, theirs, other):
    compare(layer, (images(2, 3, 4, 5), images(*other, seed=1)), theirs, tolerance=1e-7)


@pytest.mark.parametrize("seed", range(12))
def test_drawn_pools(seed):
    rng = np.random.default_rng(seed)
    kernel = tuple(map(int, rng.integers(1, 4, 2)))
    stride = tuple(map(int, rng.integers(1, 4, 2)))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    options = {"ceil_mode": bool(rng.integers(2))}
    x = images(2, 7, 8, 3, seed=seed)
    compare(
        daskconv.MaxPool2D(kernel, stride, padding, **options),
        x,
        lambda x: functional.max_pool2d(x, kernel, stride, padding, **options),
    )
    include = bool(rng.integers(2))
    compare(
        daskconv.AvgPool2D(kernel, stride, padding, count_include_pad=include, **options),
        x,
        lambda x: functional.avg_pool2d(x, kernel, stride, padding, count_include_pad=include, **options),
    )
    compare(
        daskconv.LpPool2D(kernel, stride, p=2.0),
        x,
        lambda x: functional.lp_pool2d(x, 2.0, kernel, stride),
        tolerance=1e-7,
    )


@pytest.mark.parametrize("seed", range(12))
def test_drawn_convolutions_and_their_transposes(seed):
    rng = np.random.default_rng(seed)
    kernel, stride, dilation = (tuple(map(int, rng.integers(1, high, 2))) for high in (4, 4, 3))
    padding, groups = tuple(map(int, rng.integers(0, 3, 2))), int(rng.integers(1, 4))
    x = images(2, 9, 8, 2 * groups, seed=seed)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    layer = daskconv.Conv2D(3 * groups, kernel, **options)
    params = {name: images(*shape, seed=seed) for name, (shape, _) in layer.weights(x.shape[1:]).items()}
    compare(layer, x, lambda x, weight, bias: functional.conv2d(x, weight, bias, **options), params)
    more = tuple(map(int, rng.integers(0, stride)))
    layer = daskconv.ConvTranspose2D(3 * groups, kernel, output_padding=more, **options)
    params = {name: images(*shape, seed=seed) for name, (shape, _) in layer.weights(x.shape[1:]).items()}
    compare(
        layer,
        x,
        lambda x, weight, bias: functional.conv_transpose2d(x, weight, bias, output_padding=more, **options),
        params,
    )


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(training):
    params = {"scale": images(5), "offset": images(5, seed=1)}
    running = {"mean": images(5, seed=2), "variance": images(5, seed=3) ** 2 + 0.1}
    context = Context(training=training, statistics=running)
    mean, variance = (torch.from_numpy(array.copy()) for array in running.values())

    def theirs(x, scale, offset):
        return functional.batch_norm(x, mean, variance, scale, offset, training, 0.2)

    layer = daskconv.BatchNorm(momentum=0.2)
    compare(layer, images(3, 4, 6, 5) * 3 + 7, theirs, params, context)
    for name, want in (("mean", mean), ("variance", variance)):
        after = layer.follow(running[name], context.batch_statistics[name]) if training else running[name]
        np.testing.assert_allclose(after, want.numpy(), rtol=1e-9)


def test_dense():
    params = {"weight": images(7, 4), "bias": images(4)}
    compare(daskconv.Dense(4), images(3, 7), lambda x, weight, bias: x @ weight + bias, params)
