"""Sums over rows."""

import numpy as np
import pytest

from daskconv.kernels.reduce import sum_rows


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (1000, 1), (300, 33), (0, 4)])
def test_rows_are_added_first_to_last(dtype, shape):
    rows = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    total = np.zeros(shape[1], dtype)
    for row in rows:
        total += row
    got = sum_rows(rows)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, total)


def test_strided_rows_are_added_too():
    rows = np.arange(48.0).reshape(6, 8)
    np.testing.assert_array_equal(sum_rows(rows[::2, 1::3]), rows[::2, 1::3].sum(0))
    np.testing.assert_array_equal(sum_rows(rows.T), rows.sum(1))
