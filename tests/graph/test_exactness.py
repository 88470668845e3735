"""The promised error: against float64, relative to the largest result, on long sums and ragged sizes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reference import EXACT, PASSES, Case, run_passes

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
