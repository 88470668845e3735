"""The micro-kernel: on this processor's vectors, and compiled for others that this one can stand in for."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from daskconv.kernels.tile import VECTORS, add_tile, most_rows, registers, tiles_of

CHECK = Path(__file__).parent / "processor_check.py"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("onto", [False, True])
@pytest.mark.parametrize("adjacent", [False, True])
def test_every_shape_of_tile_adds_its_product_and_nothing_else(dtype, onto, adjacent):
    generator = np.random.default_rng(0)
    counts, a_row = (2, 3, 5), 1 if adjacent else 7
    for vectors in range(1, VECTORS + 1):
        width = vectors * tiles_of(dtype).lanes
        for rows in range(1, most_rows(vectors) + 1):
            a = generator.standard_normal(400).astype(dtype)
            b = generator.standard_normal((30, width)).astype(dtype)
            start = generator.standard_normal(width).astype(dtype)
            c = np.full((rows + 1, width), np.nan, dtype)
            if onto:
                c[:rows] = generator.standard_normal((rows, width))
            expected = (c[:rows] if onto else start).astype(float)
            read = np.array(
                [
                    [
                        a[r * a_row + 100 * i + 30 * j + 2 * t]
                        for i in range(2)
                        for j in range(3)
                        for t in range(5)
                    ]
                    for r in range(rows)
                ]
            )
            expected = expected + read.astype(float) @ b.astype(float)
            steps = (100, 30, 2), (15 * width, 5 * width, width)
            addresses = a.ctypes.data, b.ctypes.data, c.ctypes.data, start.ctypes.data
            add_tile(
                tiles_of(dtype), (rows, vectors, 1), addresses, (a_row, width), counts, *steps, int(onto)
            )
            np.testing.assert_allclose(c[:rows], expected, rtol=0, atol=200 * np.finfo(dtype).eps)
            assert np.isnan(c[rows]).all()


def test_the_sums_of_the_largest_tile_fit_the_registers():
    for vectors in range(1, VECTORS + 1):
        assert most_rows(vectors) * vectors + vectors + 1 <= registers()[1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are names of x86 processors")
@pytest.mark.parametrize(
    ("name", "features", "vector_bytes"),
    [("generic", "", 16), ("haswell", "+avx,+avx2,+fma", 32)],
)
@pytest.mark.slow
def test_other_processors_get_kernels_that_are_right(name, features, vector_bytes):
    environ = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    said = subprocess.run([sys.executable, CHECK], env=environ, capture_output=True, text=True, timeout=280)
    assert said.returncode == 0, said.stderr
    width, implicit, winograd = said.stdout.split()
    assert int(width) == vector_bytes
    assert float(implicit) < 40
    assert float(winograd) < 400
