"""Colours: the compiled kernel and its plain twin against the definition in float64."""

import numpy as np
import pytest

from daskconv.kernels import colors, plain


def defined(images, factors, contrast, saturation):
    out = images.astype(float) * factors[:, 0, None, None, None]
    if contrast:
        mean = out.mean((1, 2, 3), keepdims=True)
        out = mean + (out - mean) * factors[:, 1, None, None, None]
    if saturation:
        grey = out.mean(3, keepdims=True)
        out = grey + (out - grey) * factors[:, 2, None, None, None]
    return out.clip(0, 255) if images.dtype == np.uint8 else out


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 7, 6, 3), (2, 4, 4, 1), (1, 1, 1, 4), (0, 3, 3, 3)], ids=str)
@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("saturation", [False, True])
def test_colours_are_changed_as_defined(dtype, shape, contrast, saturation):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape).astype(dtype)
    factors = rng.uniform(0, 2, (shape[0], 3)).astype(np.float32)
    want = defined(images, factors, contrast, saturation)
    got = colors.jitter(images, factors, contrast, saturation)
    assert got.shape == shape and got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)
    twin = np.empty((shape[0], shape[1] * shape[2], shape[3]), np.float32)
    pixels = images.reshape(twin.shape)
    plain.jitter(pixels, factors, contrast, saturation, images.dtype == np.uint8, twin)
    np.testing.assert_allclose(twin.reshape(shape), want, rtol=1e-5, atol=1e-3)


def test_strided_images_and_factors_of_1():
    images = np.random.default_rng(1).integers(0, 256, (6, 8, 4, 3), dtype=np.uint8)[::2, ::-1]
    same = colors.jitter(images, np.ones((3, 3), np.float32), False, False)
    np.testing.assert_array_equal(same, images)
