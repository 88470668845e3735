"""Pooling against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.geometry import Window
from daskconv.kernels import pool as kernels
from reference import cases, pool

drawn = settings(deadline=None, derandomize=True, max_examples=50)


@st.composite
def pools(draw):
    """(case, ceil_mode) where each window sees at least one pixel."""
    case = draw(cases().filter(lambda case: sees_pixels(case)))
    return case, draw(st.booleans())


def sees_pixels(case):
    """Whether the padding is smaller than the kernel, and no hole of the dilation is wider than the image."""
    kernel, stride, pads, dilation = case.window
    for size, k, step, sides, d in zip(case.image, kernel, stride, pads, dilation):
        starts = range(-sides[0], size + sides[1], step)
        if not all(any(0 <= start + t * d < size for t in range(k)) for start in starts if start < size):
            return False
        if max(sides) >= k * d:
            return False
        last = (size + sum(sides) - (k - 1) * d - 1) // step * step - sides[0]
        if not any(0 <= last + t * d < size for t in range(k)):
            return False
    return True


def options_of(case, ceil_mode):
    kernel, stride, pads, dilation = case.window
    return (case.image, kernel, stride, pads, dilation, ceil_mode), Window(
        kernel, stride, pads, dilation, 1, ceil_mode
    )


@drawn
@given(drawn_pool=pools())
def test_max_pooling_and_its_gradient_are_the_definition(drawn_pool):
    case, ceil_mode = drawn_pool
    plain, window = options_of(case, ceil_mode)
    x = case.arrays()[0]
    y, winner = kernels.max_pool(x, window)
    want = pool(x, None, "max", *plain)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, want)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    dx = kernels.max_pool_grad(dy, winner, window, x.shape)
    assert dx.dtype == dy.dtype
    np.testing.assert_allclose(dx, pool(x, dy, "max", *plain), rtol=1e-6, atol=1e-6)


@drawn
@given(drawn_pool=pools(), count_include_pad=st.booleans())
def test_average_pooling_and_its_gradient_are_the_definition(drawn_pool, count_include_pad):
    case, ceil_mode = drawn_pool
    plain, window = options_of(case, ceil_mode)
    x = case.arrays()[0]
    close = 1e-12 if x.dtype == np.float64 else 2e-6
    y = kernels.avg_pool(x, window, count_include_pad)
    want = pool(x, None, "avg", *plain, count_include_pad)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y, want, rtol=close, atol=close)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    dx = kernels.avg_pool_grad(dy, window, count_include_pad, x.shape)
    assert dx.dtype == dy.dtype
    want = pool(x, dy, "avg", *plain, count_include_pad)
    np.testing.assert_allclose(dx, want, rtol=close, atol=4 * close)


def test_the_first_of_equal_pixels_gets_the_gradient():
    x = np.zeros((1, 4, 4, 1))
    window = Window.of(2, (4, 4), stride=2)
    _, winner = kernels.max_pool(x, window)
    dx = kernels.max_pool_grad(np.ones((1, 2, 2, 1)), winner, window, x.shape)
    assert dx[0, :, :, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_padding_never_wins():
    x = np.full((1, 2, 2, 1), -5.0)
    y, winner = kernels.max_pool(x, Window.of(3, (2, 2), padding=1))
    assert (y == -5).all()
    dx = kernels.max_pool_grad(np.ones(y.shape), winner, Window.of(3, (2, 2), padding=1), x.shape)
    assert dx.sum() == y.size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("at", [(0, 0), (1, 1), (3, 2)])
def test_a_nan_reaches_every_window_that_sees_it(dtype, at):
    x = np.random.default_rng(0).standard_normal((1, 5, 5, 3)).astype(dtype)
    x[0, *at, 1] = np.nan
    window = Window.of(3, (5, 5), padding=1)
    y, winner = kernels.max_pool(x, window)
    seen = np.zeros(y.shape, bool)
    seen[0, max(at[0] - 1, 0) : at[0] + 2, max(at[1] - 1, 0) : at[1] + 2, 1] = True
    np.testing.assert_array_equal(np.isnan(y), seen)
    dx = kernels.max_pool_grad(np.ones(y.shape, dtype), winner, window, x.shape)
    assert dx[0, *at, 1] == seen.sum()
    np.testing.assert_array_equal(np.isnan(kernels.avg_pool(x, window, True)), seen)


def test_infinite_pixels_are_pixels():
    x = np.array([-np.inf, 1.0, np.inf, -2.0]).reshape(1, 2, 2, 1)
    y, _ = kernels.max_pool(x, Window.of((1, 2), (2, 2)))
    assert y.ravel().tolist() == [1, np.inf]


def test_pooling_no_images_gives_none():
    x = np.zeros((0, 4, 4, 2))
    window = Window.of(2, (4, 4), stride=2)
    y, winner = kernels.max_pool(x, window)
    assert y.shape == winner.shape == kernels.avg_pool(x, window, True).shape == (0, 2, 2, 2)
    assert kernels.max_pool_grad(y, winner, window, x.shape).shape == x.shape
    assert kernels.avg_pool_grad(y, window, True, x.shape).shape == x.shape


def test_outputs_are_written_whole(monkeypatch):
    real = np.empty

    def nan_filled(shape, dtype=float):
        array = real(shape, dtype)
        array[...] = np.nan if np.dtype(dtype).kind == "f" else 9
        return array

    x = np.random.default_rng(0).standard_normal((2, 7, 6, 3))
    window = Window.of(3, (7, 6), stride=2, ceil_mode=True)
    want = kernels.max_pool(x, window)
    monkeypatch.setattr(np, "empty", nan_filled)
    for got, expected in zip(kernels.max_pool(x, window), want):
        np.testing.assert_array_equal(got, expected)
    assert not np.isnan(kernels.avg_pool(x, window, True)).any()
