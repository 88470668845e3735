"""MaxPool2D and AvgPool2D.

Floor mode is PyTorch's default; ``ceil_mode=True`` is Caffe's only mode. Caffe's average counts padded
pixels (``count_include_pad=True``, PyTorch's default too) but never those past the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from daskconv.geometry import Padding, Window
from daskconv.kernels import pool
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.layers.conv import images_shape


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
        """Return the maxima, and the tap that won each."""
        y, winner = pool.max_pool(x, self.window(x.shape[1:]))
        return y, (winner, x.shape)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, sent to the winners."""
        winner, shape = saved
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
