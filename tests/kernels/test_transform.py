"""Winograd's transforms: their matrices by exact arithmetic, their code against NumPy."""

from fractions import Fraction

import numpy as np
import pytest

from daskconv.kernels.transform import (
    FILTER,
    FILTER_GRAD,
    INPUT,
    OUTPUT,
    OUTPUT_GRAD,
    matrices,
    transform,
    transforms_of,
)
from daskconv.kernels.winograd_tiles import KERNELS

SIZES = [(m, r) for r, sizes in KERNELS.items() for m in sizes]


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_the_matrices_give_a_correlation_exactly(m, r):
    outputs, filters, inputs = matrices(m, r)
    pixels = [Fraction(7 * i * i - 3 * i + 1, 5) for i in range(m + r - 1)]
    taps = [Fraction(2 * i + 1, 3) for i in range(r)]
    products = [a * b for a, b in zip(times(filters, taps), times(inputs, pixels))]
    assert times(outputs, products) == [sum(pixels[i + t] * taps[t] for t in range(r)) for i in range(m)]


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


@pytest.mark.parametrize(("m", "r"), SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 8, 21])
def test_every_transform_is_its_matrix_on_both_sides_and_writes_nothing_else(m, r, dtype, count):
    outputs, filters, inputs = (np.array(matrix, float) for matrix in matrices(m, r))
    expected = {
        INPUT: inputs,
        FILTER: filters,
        OUTPUT: outputs,
        OUTPUT_GRAD: outputs.T,
        FILTER_GRAD: filters.T,
    }
    for which, matrix in expected.items():
        rows, columns = matrix.shape
        source = np.random.default_rng(which).standard_normal((columns, columns, count + 3)).astype(dtype)
        target = np.full((rows, rows, count + 5), np.nan, dtype)
        transform(transforms_of(m, r, dtype), which, addresses(source), addresses(target), 2, 4, count)
        right = np.einsum("ai,ijc,bj->abc", matrix, source[..., 2 : count + 2].astype(float), matrix)
        error = abs(target[..., 4 : count + 4] - right).max() / abs(right).max()
        assert error < 20 * np.finfo(dtype).eps
        assert np.isnan(target[..., :4]).all() and np.isnan(target[..., count + 4 :]).all()


def addresses(array):
    return np.array([pixel.ctypes.data for row in array for pixel in row])
