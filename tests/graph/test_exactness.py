"""The promised error: against float64, relative to the largest result, on long sums and ragged sizes."""

import dask
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daskconv.kernels.jit import importable
from reference import EXACT, PASSES, Case, run_passes, small_cuts

PER_ROOT = 4e-7


@st.composite
def long_sums(draw) -> Case:
    r, s = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = draw(st.sampled_from([0, (r // 2, s // 2), "same"]))
    return Case(
        n=draw(st.integers(1, 3)),
        image=(r + draw(st.integers(0, 9)), s + draw(st.integers(0, 9))),
        channels=draw(st.sampled_from([1, 3, 7, 16, 33, 130, 257])),
        filters=draw(st.sampled_from([1, 2, 9, 24, 70])),
        kernel=(r, s),
        stride=draw(st.integers(1, 2)),
        padding=padding,
        bias=False,
        dtype="float32",
        seed=draw(st.integers(0, 99)),
    )


@pytest.mark.parametrize("method", EXACT)
@settings(deadline=None, derandomize=True, max_examples=25)
@given(case=long_sums())
@example(Case(n=1, image=(1, 1), kernel=(1, 1), channels=1, filters=1, bias=False, dtype="float32"))
@example(Case(n=3, image=(30, 30), kernel=(5, 5), channels=2, filters=2, bias=False, dtype="float32"))
def test_the_largest_error_is_that_of_a_sum(method, case):
    arrays = case.arrays()
    assert_exact(case, case.expected(*arrays), run_passes(case, method, arrays))


# Images of a multiple of 4096 bytes, and gradients of such, of more channels than a line's: three of seven at a time.
ALIKE = [
    Case(n=7, image=(8, 8), channels=16, filters=16, kernel=(5, 5), padding=2, dtype="float32"),
    Case(n=7, image=(16, 8), channels=8, filters=160, kernel=(3, 3), padding=1, stride=2, dtype="float32"),
    Case(n=7, image=(8, 8), channels=16, filters=32, kernel=(3, 3), padding=2, dilation=2, dtype="float32"),
    Case(n=7, image=(8, 8), channels=8, filters=8, groups=2, kernel=(3, 3), padding=1, dtype="float64"),
]


@pytest.mark.skipif(not importable(), reason="the micro-kernel needs Numba")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", ALIKE, ids=["5x5", "stride 2", "dilation 2", "groups"])
def test_tiles_of_some_images_each_are_exact(monkeypatch, case, threads):
    small_cuts(monkeypatch)
    arrays = case.arrays()
    with dask.config.set({"daskconv.threads": threads}):
        got = run_passes(case, "implicit", arrays)
    assert_exact(case, case.expected(*arrays), got)


def assert_exact(case, want, got):
    taps = case.kernel[0] * case.kernel[1]
    lengths = {
        "forward": taps * case.channels,
        "input_grad": taps * case.filters,
        "weight_grad": int(np.prod(case.y_shape[:3])),
    }
    for name in PASSES:
        error = abs(got[name] - want[name]).max()
        assert error <= PER_ROOT * np.sqrt(lengths[name]) * abs(want[name]).max()
