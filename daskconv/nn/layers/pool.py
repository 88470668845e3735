"""Pooling over windows, over whole images, and means over any axes.

Floor mode is PyTorch's default; ``ceil_mode=True`` is Caffe's only mode. Caffe's average counts padded
pixels (``count_include_pad=True``, PyTorch's default too) but never those past the padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError, are_ints
from daskconv.geometry import Padding, Window
from daskconv.kernels import pool
from daskconv.nn.layers.activations import axis_of
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.layers.conv import images_shape
from daskconv.nn.reach import Reach


@dataclass(frozen=True)
class _Pool2D(Layer):
    kernel: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    padding: Padding = 0
    dilation: int | tuple[int, int] = 1
    ceil_mode: bool = False

    def window(self, shape: Shape) -> Window:
        """Return the window on images of this shape; the stride is the kernel's size when not given."""
        return _window(self, shape)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (p, q, c)."""
        return (*self.window(shape).output_size(shape[0], shape[1]), shape[2])

    def reach(self, shape: Shape) -> tuple[Reach, Reach]:
        """Return the window's reach."""
        return Reach.of(self.window(shape))

    def at_size(self, shape: Shape) -> _Pool2D:
        """Return the layer with its padding in pixels."""
        return replace(self, padding=self.window(shape).padding)


@lru_cache(maxsize=4096)
def _window(layer: _Pool2D, shape: Shape) -> Window:
    h, w, _ = images_shape(shape, type(layer).__name__)
    return Window.of(
        layer.kernel,
        (h, w),
        stride=layer.kernel if layer.stride is None else layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        ceil_mode=layer.ceil_mode,
    )


@dataclass(frozen=True)
class MaxPool2D(_Pool2D):
    """Maximum over a window; padding never wins.

    Parameters
    ----------
    kernel, stride, padding, dilation
        As in :func:`daskconv.conv2d`; the stride is the kernel's size when not given.
    ceil_mode : bool
        Round the output size up (Caffe) instead of down (PyTorch's default).

    Examples
    --------
    >>> MaxPool2D(3, stride=2, ceil_mode=True).output_shape((32, 32, 8))
    (16, 16, 8)
    """

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the maxima, and while training the tap that won each."""
        if not context.training:
            return pool.max_pool_alone(x, self.window(x.shape[1:])), (None, x)
        y, winner = pool.max_pool(x, self.window(x.shape[1:]))
        return y, (winner, x.shape)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, sent to the winners."""
        winner, shape = saved
        if winner is None:
            x, shape = shape, shape.shape
            winner = pool.max_pool(x, self.window(shape[1:]))[1]
        return pool.max_pool_grad(dy, winner, self.window(shape[1:]), shape), {}


@dataclass(frozen=True)
class AvgPool2D(_Pool2D):
    """Mean over a window.

    Parameters
    ----------
    kernel, stride, padding, dilation, ceil_mode
        As in :class:`MaxPool2D`.
    count_include_pad : bool
        Divide by padded pixels too (the default of Caffe and PyTorch). Pixels past the padding, which
        ``ceil_mode`` may reach, are never counted.

    Examples
    --------
    >>> AvgPool2D(3, stride=2).output_shape((32, 32, 8))
    (15, 15, 8)
    """

    count_include_pad: bool = True

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the means; backward needs the shape only."""
        return pool.avg_pool(x, self.window(x.shape[1:]), self.count_include_pad), x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, shared out evenly."""
        return pool.avg_pool_grad(dy, self.window(saved[1:]), self.count_include_pad, saved), {}


@dataclass(frozen=True)
class LpPool2D(_Pool2D):
    """The p-norm of a window: ``sum(abs(x) ** p) ** (1 / p)``.

    Parameters
    ----------
    kernel, stride, padding, dilation, ceil_mode
        As in :class:`MaxPool2D`.
    p : float
        At least 1.

    Examples
    --------
    >>> LpPool2D(2).output_shape((6, 6, 8))
    (3, 3, 8)
    """

    p: float = 2.0

    def output_shape(self, shape: Shape) -> Shape:
        """Return (p, q, c)."""
        if not isinstance(self.p, Real) or not 1 <= self.p < inf:
            raise InputError(
                f"LpPool2D has p {self.p!r}: give a number of at least 1; for its limit use MaxPool2D."
            )
        return super().output_shape(shape)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the norms; backward needs them and the input."""
        y = pool.sum_pool(np.abs(x) ** self.p, self.window(x.shape[1:])) ** (1 / self.p)
        return y, (x, y)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient; where a norm is 0, 0."""
        x, y = saved
        share = np.divide(dy, y ** (self.p - 1), out=np.zeros_like(y), where=y != 0)
        spread = pool.sum_pool_grad(share, self.window(x.shape[1:]), x.shape)
        return np.sign(x) * np.abs(x) ** (self.p - 1) * spread, {}


@dataclass(frozen=True)
class Mean(Layer):
    """The mean over some of an image's axes.

    Parameters
    ----------
    axes : tuple of int
    keepdims : bool
        Keep them, with size 1.

    Examples
    --------
    >>> Mean((0, 1)).output_shape((7, 7, 512))
    (512,)
    """

    axes: tuple[int, ...]
    keepdims: bool = False

    def _axes(self, shape: Shape) -> tuple[int, ...]:
        return tuple(axis_of(axis, shape, "Mean") for axis in self.axes)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the sizes that are left."""
        if not are_ints(self.axes) or len({axis % max(len(shape), 1) for axis in self.axes}) < len(self.axes):
            raise InputError(
                f"Mean has axes {self.axes} for an input of shape {shape}: name each of them once."
            )
        gone = {axis - 1 for axis in self._axes(shape)}
        kept = [1 if at in gone else size for at, size in enumerate(shape) if self.keepdims or at not in gone]
        return tuple(kept)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the means; backward needs the shape."""
        return x.mean(self._axes(x.shape[1:]), keepdims=self.keepdims), x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, shared out evenly."""
        axes = self._axes(saved[1:])
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(saved))
        share = dy.dtype.type(dy.size / np.prod(saved)) if dy.size else 1
        return np.broadcast_to(dy.reshape(kept) * share, saved), {}


@dataclass(frozen=True)
class GlobalAvgPool2D(Layer):
    """Each channel's mean over the image (Lin et al. 2014): (h, w, c) to (c,), or (1, 1, c) with ``keepdims``.

    Examples
    --------
    >>> GlobalAvgPool2D().output_shape((7, 7, 512))
    (512,)
    """

    keepdims: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """Return (c,) or (1, 1, c)."""
        c = images_shape(shape, type(self).__name__)[2]
        return (1, 1, c) if self.keepdims else (c,)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the means; backward needs the shape."""
        return x.mean((1, 2), keepdims=self.keepdims), x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, shared out evenly."""
        share = dy.reshape(len(dy), 1, 1, -1) * dy.dtype.type(1 / (saved[1] * saved[2]))
        return np.broadcast_to(share, saved), {}


@dataclass(frozen=True)
class GlobalMaxPool2D(GlobalAvgPool2D):
    """Each channel's maximum over the image: (h, w, c) to (c,), or (1, 1, c) with ``keepdims``."""

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the maxima, as of one window, and what that needs to go back."""
        whole = MaxPool2D(x.shape[1:3])
        y, saved = whole.forward(params, x, context)
        return (y if self.keepdims else y.reshape(len(x), x.shape[3])), (whole, saved)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, sent to the first of the largest."""
        whole, of_pool = saved
        return whole.backward(params, of_pool, dy.reshape(len(dy), 1, 1, dy.shape[-1]), context)
