"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape


@dataclass(frozen=True)
class Dropout(Layer):
    """Zero a share ``rate`` of the elements while training and scale up the rest (Srivastava et al. 2014).

    The random numbers are counted by (seed, epoch, image, layer) in a Philox generator, so that an image
    meets the same mask on every transport and any number of workers.

    Parameters
    ----------
    rate : float
        Share of elements dropped, 0 <= rate < 1.
    """

    is_pointwise: ClassVar[bool] = True

    rate: float = 0.5

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape."""
        if not 0 <= self.rate < 1:
            raise InputError(f"Dropout has rate {self.rate}: give a share of at least 0 and below 1.")
        return shape

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the input with elements dropped, and the factors of all elements."""
        if not context.training or self.rate == 0:
            return x, None
        images = np.arange(len(x)) if context.images is None else context.images
        mask = np.empty_like(x)
        for row, image in zip(mask, images, strict=True):
            counter = np.array([0, 0, image, context.layer], np.uint64)
            key = np.array([context.seed, context.epoch], np.uint64)
            generator = np.random.Generator(np.random.Philox(counter=counter, key=key))
            row[...] = self.draws(generator, row.shape) >= self.rate
        mask *= 1 / (1 - self.rate)
        return x * mask, mask

    def draws(self, generator: np.random.Generator, shape: Shape) -> NDArray:
        """Return an image's draws between 0 and 1."""
        return generator.random(shape, np.float32)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient times the same factors."""
        return (dy if saved is None else dy * saved), {}
