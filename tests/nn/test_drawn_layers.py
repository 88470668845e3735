"""Layers with options that are drawn: shapes that are said and made agree, and gradients with finite differences."""

import numpy as np
import pytest

from daskconv import (
    ELU,
    LRN,
    Add,
    AvgPool2D,
    ChannelShuffle,
    Clip,
    Concat,
    Context,
    ConvTranspose2D,
    Divide,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    HardSigmoid,
    LeakyReLU,
    LogSoftmax,
    LpPool2D,
    MaxPool2D,
    Mean,
    Multiply,
    Pad,
    PReLU,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Subtract,
    Transpose,
    check_gradient,
)
from daskconv.nn.layers.resize import COORDINATES, MODES, ROUNDINGS
from daskconv.nn.specs import from_plain, to_plain
from reference import PASSES

TRAINING = Context(training=True, methods=dict.fromkeys(PASSES, "lowering"))


def whole(rng, low, high, count=None):
    """Ints of low .. high, both of which occur."""
    drawn = rng.integers(low, high + 1, count)
    return int(drawn) if count is None else tuple(map(int, drawn))


def one_of(rng, choices):
    return choices[whole(rng, 0, len(choices) - 1)]


def coin(rng):
    return bool(rng.integers(2))


def activation(rng, shape):
    ends = sorted(map(float, rng.normal(size=2)))
    return one_of(
        rng,
        [
            LeakyReLU(float(rng.normal())),
            PReLU(),
            ELU(float(rng.uniform(0.1, 2))),
            HardSigmoid(float(rng.uniform(0.1, 1)), float(rng.uniform())),
            Clip(*(end if coin(rng) else None for end in ends)),
            Softmax(whole(rng, -3, 2)),
            LogSoftmax(whole(rng, -3, 2)),
        ],
    ), shape


def window(rng):
    """Kernel, stride, padding and dilation of a pool each of whose windows sees a pixel."""
    kernel = whole(rng, 1, 3, 2)
    padding = tuple((whole(rng, 0, k // 2), whole(rng, 0, k // 2)) for k in kernel)
    dilation = tuple(1 if sum(pads) else whole(rng, 1, 2) for pads in padding)
    return kernel, whole(rng, 1, 3, 2), padding, dilation


def pool(rng, shape):
    options = (*window(rng), coin(rng))
    p = float(rng.uniform(1.2, 3.5))
    pools = [MaxPool2D(*options), AvgPool2D(*options, coin(rng)), LpPool2D(*options, p)]
    return one_of(rng, [*pools, GlobalAvgPool2D(coin(rng)), GlobalMaxPool2D(coin(rng))]), shape


def mean(rng, shape):
    axes = rng.permutation(3)[: whole(rng, 1, 3)]
    return Mean(tuple(int(axis) - 3 * whole(rng, 0, 1) for axis in axes), coin(rng)), shape


def moved(rng, shape):
    """A layer that moves values, with options for this shape."""
    pads = tuple((whole(rng, -1, 2), whole(rng, -1, 2)) for _ in shape)
    starts = tuple(None if coin(rng) else whole(rng, 0, size - 1) for size in shape)
    steps = tuple(one_of(rng, [1, 2, -1, -2]) for _ in shape)
    c = shape[-1]
    return one_of(
        rng,
        [
            Pad(pads, one_of(rng, ["constant", "reflect", "edge"]), float(rng.normal())),
            Slice(starts, (None,) * 3, steps),
            Transpose(tuple(map(int, rng.permutation(3)))),
            Reshape((-1, one_of(rng, [n for n in range(1, c + 1) if c % n == 0]))),
            ChannelShuffle(one_of(rng, [n for n in range(1, c + 1) if c % n == 0])),
        ],
    ), shape


def merged(rng, shape):
    """A sum, a product or a concatenation of inputs that are broadcast at random."""
    if coin(rng):
        axis = whole(rng, -3, 2)
        parts = [list(shape) for _ in range(whole(rng, 2, 4))]
        for part in parts:
            part[axis] = whole(rng, 1, 3)
        return Concat(axis), tuple(map(tuple, parts))
    layer = one_of(rng, [Add(), Subtract(), Multiply(), Divide()])
    count = whole(rng, 2, 4) if layer == Add() else 2
    shapes = [tuple(1 if coin(rng) else size for size in shape)[whole(rng, 0, 2) :] for _ in range(count)]
    return layer, tuple(shapes)


def norm(rng, shape):
    return LRN(whole(rng, 1, 7), *(float(rng.uniform(0.1, high)) for high in (1, 0.9, 2))), shape


def transposed(rng, shape):
    groups, stride = one_of(rng, [n for n in (1, 2, 3) if shape[-1] % n == 0]), whole(rng, 1, 3, 2)
    padding = tuple((whole(rng, 0, 1), whole(rng, 0, 1)) for _ in range(2))
    more = tuple(whole(rng, 0, step - 1) for step in stride)
    kernel, dilation = whole(rng, 1, 3, 2), whole(rng, 1, 2, 2)
    return ConvTranspose2D(2 * groups, kernel, stride, padding, more, dilation, groups, coin(rng)), shape


def resized(rng, shape):
    given = (
        {"size": whole(rng, 1, 9, 2)} if coin(rng) else {"scale": tuple(map(float, rng.uniform(0.5, 2.5, 2)))}
    )
    roi = tuple((float(rng.uniform(-0.5, 0.4)), float(rng.uniform(0.6, 1.5))) for _ in range(2))
    return Resize(
        **given,
        mode=one_of(rng, MODES),
        coordinates=one_of(rng, COORDINATES),
        nearest=one_of(rng, ROUNDINGS),
        cubic=one_of(rng, [-0.75, -0.5]),
        exclude_outside=coin(rng),
        antialias=coin(rng),
        roi=roi if coin(rng) else None,
        extrapolation=float(rng.normal()),
    ), shape


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("draw", [activation, pool, mean, moved, merged, norm, transposed, resized])
def test_shapes_and_gradients_of_drawn_layers(draw, seed):
    rng = np.random.default_rng([seed, 5])
    layer, shape = draw(rng, whole(rng, 5, 7, 3))
    assert check_gradient(layer, shape, seed=seed, context=TRAINING) < 1e-6, layer
    several = isinstance(shape[0], tuple)
    x = tuple(rng.standard_normal((3, *size)) for size in (shape if several else (shape,)))
    params = {name: rng.standard_normal(size) for name, (size, _) in layer.weights(shape).items()}
    y, saved = layer.forward(params, x if several else x[0], TRAINING)
    assert y.shape == (3, *layer.output_shape(shape)), layer
    dx, _ = layer.backward(params, saved, np.ones_like(y), TRAINING)
    assert [part.shape for part in (dx if several else (dx,))] == [array.shape for array in x], layer
    # float32 stays float32, and the numbers stay near those of float64.
    small = tuple(array.astype(np.float32) for array in x)
    narrow = {name: array.astype(np.float32) for name, array in params.items()}
    y32, saved = layer.forward(narrow, small if several else small[0], TRAINING)
    dx32, grads = layer.backward(narrow, saved, np.ones_like(y32), TRAINING)
    made = [y32, *(dx32 if several else (dx32,)), *grads.values()]
    assert {array.dtype for array in made} == {np.dtype(np.float32)}, layer
    np.testing.assert_allclose(y32, y, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(y).max())))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("draw", [activation, pool, mean, moved, merged, norm, transposed, resized])
def test_drawn_layers_are_saved_as_plain_data(draw, seed):
    from daskconv.nn.initializers import Initializer
    from daskconv.nn.layers import Layer
    from daskconv.nn.specs import kinds_of

    layer, _ = draw(np.random.default_rng([seed, 6]), (4, 5, 6))
    assert from_plain(to_plain(layer), kinds_of(Layer) | kinds_of(Initializer)) == layer
