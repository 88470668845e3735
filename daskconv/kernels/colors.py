"""Brightness, contrast and saturation of images, in two passes over memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daskconv.kernels import plain
from daskconv.kernels.jit import njit


def jitter(images: NDArray, factors: NDArray[np.float32], contrast: bool, saturation: bool) -> NDArray:
    """Return images (n, h, w, c) as float32 with other colours; bytes stay from 0 to 255.

    Parameters
    ----------
    images : array (n, h, w, c)
    factors : array of float32, (n, 3)
        Of brightness, of the distance to the image's mean, and of that to a pixel's own.
    contrast, saturation : bool
        Whether those factors count.
    """
    n, h, w, c = images.shape
    out = np.empty((n, h * w, c), np.float32)
    pixels = np.ascontiguousarray(images).reshape(out.shape)
    _jitter(pixels, factors, contrast, saturation, images.dtype == np.uint8, out)
    return out.reshape(images.shape)


@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz"})
def _total(image):  # type: ignore[no-untyped-def]
    total = 0.0
    for value in image.reshape(-1):
        total += value
    return total


@njit(otherwise=plain.jitter, nogil=True, cache=True)
def _jitter(images, factors, contrast, saturation, limited, out):  # type: ignore[no-untyped-def]
    f32 = np.float32
    count, pixels, channels = images.shape
    for n in range(count):
        brightness, apart, colourful = factors[n]
        mean = f32(0)
        if contrast:
            mean = f32(_total(images[n]) / (pixels * channels)) * brightness
        for p in range(pixels):
            grey = f32(0)
            for c in range(channels):
                value = f32(images[n, p, c]) * brightness
                if contrast:
                    value = mean + (value - mean) * apart
                grey += value
                out[n, p, c] = value
            grey /= f32(channels)
            for c in range(channels):
                value = out[n, p, c]
                if saturation:
                    value = grey + (value - grey) * colourful
                if limited:
                    value = min(max(value, f32(0)), f32(255))
                out[n, p, c] = value
