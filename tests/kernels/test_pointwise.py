"""Activations of each element against their definitions."""

import numpy as np
import pytest

from daskconv.kernels import pointwise

SHAPES = [(0, 3), (1, 1), (7, 33), (2, 3, 5, 17)]


def drawn(shape, dtype, seed=0):
    """Numbers on both sides of every bend."""
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_hard_swish_and_its_gradient(shape, dtype):
    x, dy = drawn(shape, dtype), drawn(shape, dtype, 1)
    close = {"rtol": 1e-5 if dtype == "float32" else 1e-13, "atol": 1e-6 if dtype == "float32" else 1e-14}
    y, dx = pointwise.hard_swish(x), pointwise.hard_swish_grad(dy, x)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_allclose(y, x * np.clip(x.astype(float) + 3, 0, 6) / 6, **close)
    slopes = np.select([x > 3, x < -3], [1, 0], x.astype(float) / 3 + 0.5)
    np.testing.assert_allclose(dx, dy * slopes, **close)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hard_swish_at_its_bends_and_of_what_is_not_finite(dtype):
    x = np.array([-3, 3, 0, -np.inf, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(pointwise.hard_swish(x), [0, 3, 0, 0, np.inf, np.nan])
    dx = pointwise.hard_swish_grad(np.full(4, 2, dtype), x[[2, 3, 4, 5]])
    np.testing.assert_array_equal(dx, [1, 0, 2, np.nan])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_a_learnt_slope(shape, dtype):
    x, dy, slopes = drawn(shape, dtype), drawn(shape, dtype, 1), drawn(shape[-1], dtype, 2)
    dx, of_slopes = pointwise.prelu_grad(dy, x, slopes)
    assert dx.dtype == of_slopes.dtype == dtype
    np.testing.assert_array_equal(dx, np.where(x < 0, dy * slopes, dy))
    want = (dy.astype(float) * np.minimum(x, 0)).reshape(-1, shape[-1]).sum(0)
    np.testing.assert_allclose(of_slopes, want, rtol=1e-4, atol=1e-4 if dtype == "float32" else 1e-12)


def test_strided_arrays_are_read_as_they_are():
    x, dy, slopes = drawn((6, 8), "float64"), drawn((6, 8), "float64", 1), drawn(4, "float64", 2)
    part, of_part = x[::2, ::2], dy[::2, ::2]
    for got, want in (
        (pointwise.hard_swish(part), pointwise.hard_swish(part.copy())),
        (pointwise.hard_swish_grad(of_part, part), pointwise.hard_swish_grad(of_part.copy(), part.copy())),
        (pointwise.prelu_grad(of_part, part, slopes)[1], (of_part * np.minimum(part, 0)).sum(0)),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-12)
