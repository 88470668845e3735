"""What the tests of scenes share: mosaics of real images, networks with weights, and the measure of equality."""

from functools import cache

import numpy as np

import daskconv


@cache
def mosaic(rows=160, columns=240, channels=1):
    """A scene (rows, columns, channels) of handwritten digits side by side; each channel is in another order."""
    digits = daskconv.datasets.load("digits").x_train[..., 0]
    down, across = -(-rows // 8), -(-columns // 8)
    order = np.random.default_rng(0).integers(0, len(digits), (channels, down, across))
    bands = [digits[part].transpose(0, 2, 1, 3).reshape(8 * down, 8 * across) for part in order]
    return np.ascontiguousarray(np.stack(bands, axis=-1)[:rows, :columns])


def model_of(*layers, shape=(64, 64, 1), **options):
    """A model of new weights; batch norms have seen something."""
    return trained(daskconv.Sequential(list(layers)), shape, **options)


def trained(net, shape, **options):
    """A model of a network with new weights, and statistics and biases that are not at their start."""
    rng = np.random.default_rng(1)
    params = {
        name: a if a.ndim > 1 else (a + rng.uniform(0.1, 0.4, a.shape)).astype(a.dtype)
        for name, a in net.init(0, shape).items()
    }
    state = {
        name: (a + rng.uniform(0, 0.5, a.shape)).astype(a.dtype)
        for name, a in net.init_statistics(shape).items()
    }
    normalize = daskconv.Normalize(np.zeros(1, np.float32), np.full(1, 1 / 16, np.float32))
    return daskconv.Model(net, params, state, normalize, **options)


def difference(found, expected):
    """The largest difference, as a share of the largest output."""
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return abs(found.astype(np.float64) - expected).max() / (abs(expected).max() or 1)
