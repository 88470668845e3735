"""What a convolution does to its outputs as it stores them: bias, another array, ReLU."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.geometry import Window
from daskconv.graph import conv
from daskconv.kernels import plain
from daskconv.kernels.epilogue import Epilogue, finish
from reference import METHODS, cases, small_cuts


def outputs(x, w, bias, window, method, threads=None, **epilogue):
    return conv.forward(x, w, bias, window, method, threads, Epilogue(**epilogue))


def check(x, w, bias, window, method, threads):
    """Each epilogue has the bits of the same steps taken afterwards."""
    y = outputs(x, w, bias, window, method, threads)
    other = np.random.default_rng(5).standard_normal(y.shape).astype(y.dtype)
    np.testing.assert_array_equal(outputs(x, w, bias, window, method, threads, relu=True), np.maximum(y, 0))
    np.testing.assert_array_equal(outputs(x, w, bias, window, method, threads, add=other), y + other)
    both = outputs(x, w, bias, window, method, threads, add=other, relu=True)
    np.testing.assert_array_equal(both, np.maximum(y + other, 0))


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, derandomize=True, max_examples=25)
@given(case=cases(), threads=st.sampled_from([None, 1, 2]))
def test_drawn_convolutions(method, case, threads):
    rng = np.random.default_rng(case.seed)
    x, w = rng.standard_normal(case.x_shape), rng.standard_normal(case.w_shape)
    window = Window.of(
        case.kernel,
        case.image,
        stride=case.stride,
        padding=case.padding,
        dilation=case.dilation,
        groups=case.groups,
    )
    check(x.astype(case.dtype), w.astype(case.dtype), None, window, method, threads)


SHAPES = [  # images, (h, w), c, k, kernel, padding, groups: lines of pixels, of many images, ragged filters
    (2, (9, 30), 16, 32, 3, 1, 1),
    (30, (5, 6), 8, 24, 3, 1, 1),
    (3, (7, 7), 20, 17, 1, 0, 1),
    (2, (9, 9), 6, 5, 5, 2, 1),
    (2, (9, 9), 8, 8, 3, 1, 2),
    (2, (8, 9), 12, 12, 3, 1, 12),
    (1, (3, 3), 40, 100, 3, 1, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["implicit", "winograd"])
@pytest.mark.parametrize("threads", [None, 2])
def test_fused_epilogues(shape, method, threads, monkeypatch):
    if method not in METHODS and "implicit" not in METHODS:
        pytest.skip("needs compiled kernels")
    images, image, c, k, kernel, padding, groups = shape
    if method == "winograd" and kernel == 1:
        pytest.skip("no Winograd for 1x1 kernels")
    small_cuts(monkeypatch)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, *image, c)).astype(np.float32)
    w = rng.standard_normal((kernel, kernel, c // groups, k)).astype(np.float32)
    bias = rng.standard_normal(k).astype(np.float32)
    check(x, w, bias, Window.of(kernel, image, padding=padding, groups=groups), method, threads)


def test_the_twin_agrees_and_nan_stays():
    rng = np.random.default_rng(1)
    start, other = rng.standard_normal((2, 3, 5, 7)).astype(np.float32)
    start[1, 2, 3] = np.nan
    for add in (None, other):
        for relu in (False, True):
            got, want = start.copy(), start.copy()
            finish(got, Epilogue(add, relu))
            plain.finish(want.reshape(-1), other.reshape(-1), (add is not None, relu))
            np.testing.assert_array_equal(got, want)
            assert np.isnan(got[1, 2, 3])
