"""Layers that only shards run: what is left of a layer where a plan splits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.kernels.normalize import moments, normalize_grad, normalize_grad_sums
from daskconv.kernels.reduce import sum_rows
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.layers.batch_norm import BatchNorm
from daskconv.nn.layers.dropout import Dropout
from daskconv.nn.layers.pool import GlobalAvgPool2D


@dataclass(frozen=True)
class Bias(Layer):
    """Add "bias" (k,) to a sum over channels, which shards computed a part of each."""

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the sum with the bias."""
        return x + params["bias"], None

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient as it is, and its sum over images and pixels."""
        return dy, {"bias": sum_rows(dy.reshape(-1, dy.shape[-1]))} if context.needs_weight_grad else {}


@dataclass(frozen=True)
class DropoutPart(Dropout):
    """Dropout of a part of an image: the draws are those of the whole image.

    Parameters
    ----------
    rate : float
    shape : tuple of int
        Of the whole image.
    box : tuple of (int, int)
        The part: a range along each axis.
    """

    shape: tuple[int, ...] = ()
    box: tuple[tuple[int, int], ...] = ()

    def draws(self, generator: np.random.Generator, shape: Shape) -> NDArray:
        """Return the part of the whole image's draws."""
        return super().draws(generator, self.shape)[tuple(slice(*sides) for sides in self.box)]


@dataclass(frozen=True)
class MeanPart(GlobalAvgPool2D):
    """A part's share of each channel's mean over the image.

    Parameters
    ----------
    keepdims : bool
    pixels : int
        Of the whole image.
    """

    pixels: int = 1

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the sums over the part, divided by the image's pixels; backward needs the shape."""
        return x.sum((1, 2), keepdims=self.keepdims) * x.dtype.type(1 / self.pixels), x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, shared out evenly."""
        share = dy.reshape(len(dy), 1, 1, -1) * dy.dtype.type(1 / self.pixels)
        return np.broadcast_to(share, saved), {}


@dataclass(frozen=True)
class Moments(Layer):
    """Rows, mean and sum of squared distances of each channel (1, 3, c) of the part at hand, in float64."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return (3, c)."""
        return 3, shape[-1]

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the moments; backward needs the input and the mean."""
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        found = np.zeros((1, 3, x.shape[-1]))
        if context.training and len(rows):
            mean, variance = moments(rows)
            found[0, 0], found[0, 1], found[0, 2] = len(rows), mean, variance * len(rows)
        return found, (rows, found[0, 1], x.shape)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient by each row."""
        rows, mean, shape = saved
        if not len(rows):
            return np.zeros(shape, rows.dtype), {}
        of_mean, of_squares = dy[0, 1] / len(rows), 2 * dy[0, 2]
        factors = np.zeros_like(mean), of_squares, of_mean
        return normalize_grad(rows, rows, mean, factors).reshape(shape), {}


@dataclass(frozen=True)
class NormalizePart(BatchNorm):
    """Batch normalisation by the moments (j, 3, c) of all parts of a group, this one among them.

    Parts are joined as by Chan, Golub and LeVeque (1983).
    """

    def forward(self, params: Arrays, x: Any, context: Context) -> tuple[NDArray, Any]:
        """Return the normalised part; backward needs it, the moments and the factors."""
        x, parts = x
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        if not context.training:
            return super().forward(params, x, context)
        count = max(parts[:, 0].sum(0).max(), 1.0)
        mean = (parts[:, 0] * parts[:, 1]).sum(0) / count
        squares = parts[:, 2].sum(0) + (parts[:, 0] * (parts[:, 1] - mean) ** 2).sum(0)
        variance = squares / count
        context.batch_statistics.update(mean=mean, variance=squares / max(count - 1, 1))
        y, inverse, _ = self.normalized(params, rows, mean, variance, context)
        return y.reshape(x.shape), (rows, parts, count, mean, inverse)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradients by the part and by all moments, and those of scale and offset."""
        if not context.training:
            dx, grads = super().backward(params, saved, dy, context)
            return (dx, None), grads
        rows, parts, count, mean, inverse = saved
        dys = np.ascontiguousarray(dy).reshape(rows.shape)
        sums, products = normalize_grad_sums(dys, rows, mean, inverse)
        grads = {"scale": products, "offset": sums}
        grads = {name: grads[name].astype(rows.dtype) for name in self.weights(rows.shape)}
        scale = params["scale"].astype(np.float64) if self.scale else 1.0
        of_squares = -0.5 * scale * inverse**2 * products / count
        of_parts = np.zeros_like(parts)
        of_parts[:, 1] = parts[:, 0] * (
            -scale * inverse * sums / count + 2 * of_squares * (parts[:, 1] - mean)
        )
        of_parts[:, 2] = of_squares
        nothing = np.zeros_like(mean)
        dx = normalize_grad(dys, rows, mean, (inverse * scale, nothing, nothing))
        return (dx.reshape(dy.shape), of_parts), grads
