"""Pixels from other places: the compiled kernel and its plain twin, against the definition."""

import numpy as np
import pytest

from daskconv.kernels import plain
from daskconv.kernels.rearrange import NOWHERE, rearrange


@pytest.mark.parametrize(
    "dtype", ["uint8", "float16", "float32", ">f4", "float64", "longdouble", "complex64"]
)
@pytest.mark.parametrize(
    ("shape", "places"),
    [((3, 5, 6, 3), (4, 7)), ((2, 1, 1, 1), (3, 2)), ((1, 4, 4, 5), (4, 4)), ((0, 3, 3, 2), (3, 3))],
    ids=str,
)
def test_each_pixel_is_the_one_of_its_source(dtype, shape, places):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape).astype(dtype)
    if images.size and images.dtype.kind == "f":
        images.flat[0] = np.nan
    n, h, w, _ = shape
    rows, columns = (rng.integers(NOWHERE, size, (n, p)) for size, p in zip((h, w), places, strict=True))
    want = np.zeros((n, *places, shape[3]), dtype)
    for i, p, q in np.ndindex(want.shape[:3]):
        if rows[i, p] >= 0 and columns[i, q] >= 0:
            want[i, p, q] = images[i, rows[i, p], columns[i, q]]
    got = rearrange(images, rows, columns)
    assert got.dtype == images.dtype
    np.testing.assert_array_equal(got, want)
    twin = np.full_like(want, 7)
    plain.rearrange(images, rows, columns, twin)
    np.testing.assert_array_equal(twin, want)


def test_strided_images_and_sources():
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 4, 3), dtype=np.uint8)[::2, ::-1, :, :2]
    rows, columns = np.broadcast_to(np.arange(8)[::-1], (3, 8)), np.broadcast_to(np.arange(4), (3, 4))
    np.testing.assert_array_equal(rearrange(images, rows, columns), images[:, ::-1])
