"""Layers that work on each element, or only change the shape: ReLU, Dropout, Add, Concat, Flatten."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape


@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0)."""

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the positive part."""
        y = np.maximum(x, 0)
        return y, y

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient where the output is positive."""
        return dy * (saved > 0), {}


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
            draws = np.random.Generator(np.random.Philox(counter=counter, key=key))
            row[...] = draws.random(row.shape, np.float32) >= self.rate
        mask *= 1 / (1 - self.rate)
        return x * mask, mask

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient times the same factors."""
        return (dy if saved is None else dy * saved), {}


@dataclass(frozen=True)
class Flatten(Layer):
    """(h, w, c) to (h * w * c,), channels last."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the product of the sizes."""
        return (prod(shape),)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return a view."""
        return x.reshape(len(x), -1), x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return a view in the input's shape."""
        return dy.reshape(saved), {}


@dataclass(frozen=True)
class Add(Layer):
    """The sum of several inputs of one shape, as at the end of a residual block."""

    def output_shape(self, shape: Any) -> Shape:
        """Return the shape that all inputs share."""
        if len(set(shape)) != 1 or not isinstance(shape[0], tuple):
            raise InputError(f"Add gets inputs of shapes {shape}: it needs at least two of one shape.")
        return shape[0]

    def forward(self, params: Arrays, x: tuple[NDArray, ...], context: Context) -> tuple[NDArray, Any]:
        """Return the sum, in the order of the inputs."""
        total = x[0] + x[1]
        for other in x[2:]:
            total += other
        return total, len(x)

    def backward(self, params: Arrays, saved: int, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the output's gradient for each input."""
        return (dy,) * saved, {}


@dataclass(frozen=True)
class Concat(Layer):
    """The channels of several inputs side by side, as at the end of an inception block."""

    def output_shape(self, shape: Any) -> Shape:
        """Return the shared (h, w) and the sum of the channels."""
        if not isinstance(shape[0], tuple) or len({s[:-1] for s in shape}) != 1:
            raise InputError(
                f"Concat gets inputs of shapes {shape}: all axes but the channels have to be equal."
            )
        return (*shape[0][:-1], sum(s[-1] for s in shape))

    def forward(self, params: Arrays, x: tuple[NDArray, ...], context: Context) -> tuple[NDArray, Any]:
        """Return the inputs side by side."""
        return np.concatenate(x, axis=-1), [part.shape[-1] for part in x]

    def backward(self, params: Arrays, saved: list[int], dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return each input's channels of the gradient."""
        return tuple(np.split(dy, np.cumsum(saved)[:-1], axis=-1)), {}
