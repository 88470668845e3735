"""Lowering and the matrix products over lowered rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskconv.geometry import Window, forward_correlation, input_grad_correlations
from daskconv.kernels import lowering
from reference import Case, cases, patches

drawn = settings(deadline=None, derandomize=True, max_examples=40)
exact = cases(dtypes=("float64",))


def window_of(case: Case) -> Window:
    kernel, stride, pads, dilation = case.window
    return Window(kernel, stride, pads, dilation, case.groups)


@drawn
@given(case=cases(), data=st.data())
def test_lowered_rows_hold_the_patches_of_any_range_and_group(case, data):
    x = case.arrays()[0]
    correlation = forward_correlation(window_of(case), *case.image)
    total = lowering.output_rows(case.n, correlation.size)
    start = data.draw(st.integers(0, total))
    rows = (start, data.draw(st.integers(start, total)))
    group = data.draw(st.integers(0, case.groups - 1))
    channels = lowering.channel_range(group, case.groups, x.shape[3])
    width = lowering.lowered_width(correlation, case.channels)
    size = (rows[1] - rows[0]) * width
    room = np.full(size + 99, np.nan, x.dtype)
    out = room[:size].reshape(-1, width)
    lowering.lower(x, correlation, rows, channels, out)
    assert np.isnan(room[size:]).all(), "it wrote past its buffer"
    want = patches(x, *case.window)[..., slice(*channels)].reshape(total, width)
    np.testing.assert_array_equal(out, want[slice(*rows)])


@pytest.mark.parametrize("sides", [(3, 0), (0, 3), (3, 3)])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_windows_that_see_only_padding_are_zero_rows_of_their_length(sides, stride):
    case = Case(n=2, image=(2, 1), kernel=(1, 1), stride=stride, padding=(sides, sides))
    x = case.arrays()[0]
    correlation = forward_correlation(window_of(case), *case.image)
    want = patches(x, *case.window).reshape(-1, x.shape[3])
    for m, row in enumerate(want):
        room = np.full(100, np.nan)
        lowering.lower(x, correlation, (m, m + 1), (0, x.shape[3]), room[40:][: row.size].reshape(1, -1))
        np.testing.assert_array_equal(room[40:][: row.size], row)
        assert np.isnan(room[:40]).all() and np.isnan(room[40 + row.size :]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 64, 100])
def test_runs_of_any_length_are_copied_to_the_element(channels, dtype):
    for taps, groups in ((1, 1), (2, 1), (1, 2)):
        case = Case(
            n=2, image=(3, 4), channels=channels, groups=groups, kernel=(2, taps), padding=1, dtype=dtype
        )
        x = case.arrays()[0]
        correlation = forward_correlation(window_of(case), *case.image)
        total = lowering.output_rows(case.n, correlation.size)
        want = patches(x, *case.window)
        for group in range(groups):
            run = lowering.channel_range(group, groups, x.shape[3])
            rows = want[..., slice(*run)].reshape(total, -1)
            for first, stop in ((0, total), (3, 5), (total - 1, total)):
                room = np.full(rows[first:stop].size + 64, np.nan, dtype)
                out = room[:-64].reshape(stop - first, -1)
                lowering.lower(x, correlation, (first, stop), run, out)
                np.testing.assert_array_equal(out, rows[first:stop])
                assert np.isnan(room[-64:]).all(), "it wrote past its buffer"


@drawn
@given(case=exact, data=st.data())
def test_rows_of_a_correlation_are_rows_of_the_convolution(case, data):
    x, w, bias, _ = case.arrays()
    window = window_of(case)
    correlation = forward_correlation(window, *case.image)
    matrices = lowering.weight_matrices(w, correlation, case.groups, transposed=False)
    want = case.forward(x, w, bias).reshape(-1, w.shape[3])
    start = data.draw(st.integers(0, len(want) - 1))
    rows = (start, data.draw(st.integers(start + 1, len(want))))
    out = np.full((rows[1] - rows[0], w.shape[3]), np.nan)
    lowering.correlate_rows(x, matrices, bias, correlation, rows, out)
    np.testing.assert_allclose(out, want[slice(*rows)], rtol=1e-12, atol=1e-12)


@drawn
@given(case=exact, data=st.data())
def test_weight_gradients_of_row_ranges_add_up(case, data):
    x, _, _, dy = case.arrays()
    flat = dy.reshape(-1, dy.shape[3])
    cut = data.draw(st.integers(0, len(flat)))
    correlation = forward_correlation(window_of(case), *case.image)
    width = lowering.lowered_width(correlation, case.channels)
    parts = np.full((2, width, dy.shape[3]), np.nan)
    for part, rows in zip(parts, ((0, cut), (cut, len(flat)))):
        lowering.weight_grad_rows(x, flat, correlation, case.groups, rows, part)
    want = case.weight_grad(x, dy).reshape(width, -1)
    np.testing.assert_allclose(parts.sum(0), want, rtol=1e-11, atol=1e-11)


@drawn
@given(case=exact)
def test_the_matrices_of_an_input_gradient_hold_the_flipped_taps(case):
    w = case.arrays()[1]
    for correlation in input_grad_correlations(window_of(case), *case.image):
        if not correlation.rows or not correlation.cols:
            continue
        matrices = lowering.weight_matrices(w, correlation, case.groups, transposed=True)
        assert len(matrices) == case.groups
        for g, matrix in enumerate(matrices):
            filters = w[..., g * case.filters : (g + 1) * case.filters]
            taps = [filters[r, s].T for r in correlation.kernel_rows for s in correlation.kernel_cols]
            np.testing.assert_array_equal(matrix, np.concatenate(taps))
            assert matrix.flags.c_contiguous


def test_weights_of_one_group_are_not_copied():
    w = np.zeros((3, 3, 4, 5))
    correlation = forward_correlation(Window((3, 3)), 6, 6)
    (matrix,) = lowering.weight_matrices(w, correlation, 1, transposed=False)
    assert np.shares_memory(matrix, w) and matrix.shape == (36, 5)


@pytest.mark.parametrize("bias", [None, np.arange(6.0)])
def test_a_product_writes_its_columns_only(bias):
    rows, matrix = np.ones((2, 3)), np.ones((3, 2))
    out = np.full((2, 6), -1.0)
    lowering.multiply(rows, matrix, bias, (2, 4), out)
    assert (out[:, [0, 1, 4, 5]] == -1).all()
    np.testing.assert_array_equal(out[:, 2:4], 3 if bias is None else [[5, 6], [5, 6]])


@drawn
@given(case=exact)
def test_interleaved_phases_fill_an_image(case):
    out = np.full((case.n, *case.image, 2), np.nan)
    want = np.random.default_rng(0).standard_normal(out.shape)
    for correlation in input_grad_correlations(window_of(case), *case.image):
        (a, b), (dh, dw) = correlation.phase, correlation.spacing
        lowering.interleave(want[:, a::dh, b::dw].copy(), correlation, out)
    np.testing.assert_array_equal(out, want)
