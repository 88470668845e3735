"""Products of rows and packed weights against float64; nothing is written beside the results."""

import numpy as np
import pytest

from daskconv.geometry import Window, forward_correlation
from daskconv.kernels.jit import importable

if not importable():
    pytest.skip("the micro-kernel is compiled", allow_module_level=True)

from itertools import pairwise

from daskconv.graph.team import team_of
from daskconv.kernels import product
from daskconv.kernels.epilogue import Epilogue
from daskconv.kernels.packed import packed
from daskconv.kernels.turns import Turns

# Pixels of 1024 float32 or 512 float64 elements meet in one set of a cache: they are copied apart.
CASES = [
    (dtype, c, k, groups)
    for dtype in ("float32", "float64")
    for c, k, groups in (
        (1024, 40, 1),
        (512, 1024, 1),
        (1024, 1024, 2),
        (7, 5, 1),
        (96, 66, 2),
        (1, 1, 1),
        (1700, 33, 1),
        (4096, 3, 1),
    )
]


class Guarded:
    """An array between two stretches of memory that nobody may write to."""

    def __init__(self, shape, dtype):
        size, self.beside = int(np.prod(shape)), 4096
        self.memory = np.full(size + 2 * self.beside, np.nan, dtype)
        self.array = self.memory[self.beside : self.beside + size].reshape(shape)

    def check(self):
        assert np.isnan(self.memory[: self.beside]).all() and np.isnan(self.memory[-self.beside :]).all()
        assert not np.isnan(self.array).any()


def arrays(dtype, c, k, groups, shape=(3, 5, 9)):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((*shape, c), dtype), rng.standard_normal((*shape, k), dtype)
    return x, rng.standard_normal((1, 1, c // groups, k), dtype), dy


def grouped(w, groups):
    """Return the weights (groups, c / groups, k / groups) in float64."""
    _, _, c, k = w.shape
    return w.astype(float).reshape(c, groups, k // groups).transpose(1, 0, 2)


def turns(pixels):
    cuts = [0, 1, 50, 51, pixels]
    return Turns.of(list(pairwise(cuts)))


@pytest.mark.parametrize("helpers", [0, 2])
@pytest.mark.parametrize(("dtype", "c", "k", "groups"), CASES)
def test_pixels_are_multiplied(dtype, c, k, groups, helpers):
    x, w, add = arrays(dtype, c, k, groups)
    bias, out = np.linspace(-1, 1, k, dtype=dtype), Guarded(add.shape, dtype)
    correlation = forward_correlation(Window((1, 1), groups=groups), *x.shape[1:3])
    weights = packed(w, correlation, groups, transposed=False)
    with team_of(helpers) as team:
        shared = turns(x[..., 0].size)
        product.correlate_pixels(x, weights, bias, shared, out.array, Epilogue(add, True), team.rouse())
    out.check()
    sums = np.einsum(
        "nhwgc,gck->nhwgk", x.astype(float).reshape(*x.shape[:3], groups, -1), grouped(w, groups)
    )
    want = np.maximum(sums.reshape(add.shape) + bias + add, 0)
    np.testing.assert_allclose(out.array, want, atol=1e-5 * c if dtype == "float32" else 1e-12 * c)


@pytest.mark.parametrize("helpers", [0, 2])
@pytest.mark.parametrize(("dtype", "c", "k", "groups"), CASES)
def test_the_gradient_by_their_weights(dtype, c, k, groups, helpers):
    x, w, dy = arrays(dtype, c, k, groups)
    shared = turns(x[..., 0].size)
    out = Guarded((len(shared.lines), *w.shape), dtype)
    with team_of(helpers) as team:
        product.weight_grad_pixels(x, dy, groups, shared, out.array, team.rouse())
    out.check()
    read = x.astype(float).reshape(-1, groups, c // groups)
    gradients = dy.astype(float).reshape(-1, groups, k // groups)
    for part, (start, stop) in zip(out.array, shared.lines, strict=True):
        want = np.einsum("pgc,pgk->cgk", read[start:stop], gradients[start:stop]).reshape(w.shape)
        np.testing.assert_allclose(part, want, atol=1e-4 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(("dtype", "depth", "k", "groups"), [case for case in CASES if case[3] == 1])
def test_lowered_rows_are_multiplied_by_some_filters(dtype, depth, k, groups):
    x, w, _ = arrays(dtype, depth, k, groups)
    lowered, out = x.reshape(-1, depth), Guarded((x[..., 0].size, k), dtype)
    whole = packed(w, forward_correlation(Window((1, 1)), 1, len(lowered)), 1, transposed=False)
    whole.fill()
    bias = np.linspace(-1, 1, k, dtype=dtype)
    middle = min(32, k)
    for start, stop in ((0, middle), (middle, k)):
        if stop > start:
            product.multiply(lowered, whole.part(0, start, stop), bias, (start, stop), out.array)
    out.check()
    want = lowered.astype(float) @ w[0, 0].astype(float) + bias
    np.testing.assert_allclose(out.array, want, atol=1e-5 * depth if dtype == "float32" else 1e-12 * depth)
