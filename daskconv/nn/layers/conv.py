"""Conv2D and Dense: the layers with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError, check_count
from daskconv.geometry import Padding, Window
from daskconv.graph import conv
from daskconv.graph.arrays import check_channels
from daskconv.graph.choose import ConvShape, choose_all
from daskconv.graph.tuning import Tuned
from daskconv.kernels.reduce import sum_rows
from daskconv.nn.initializers import Constant, HeNormal, Initializer
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.reach import Reach


@dataclass(frozen=True)
class Conv2D(Layer):
    """Convolution of (h, w, c) images with ``filters`` kernels, plus a bias.

    Parameters
    ----------
    filters : int
        Output channels k.
    kernel, stride, padding, dilation, groups
        As in :func:`daskconv.conv2d`.
    bias : bool
        Add a value to each filter's output.
    weight_init, bias_init : Initializer
        How the weights (r, s, c / groups, k) and biases (k,) start.

    Examples
    --------
    >>> Conv2D(32, 5, padding="same").output_shape((28, 28, 1))
    (28, 28, 32)
    """

    fuses: ClassVar[bool] = True
    filters: int
    kernel: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: Padding = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True
    weight_init: Initializer = HeNormal()
    bias_init: Initializer = Constant(0.0)

    def window(self, shape: Shape) -> Window:
        """Return the window on images of this shape."""
        return _window(self, shape)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (p, q, filters)."""
        return (*self.window(shape).output_size(shape[0], shape[1]), self.filters)

    def weights(self, shape: Shape) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return "weight" (r, s, c / groups, k) and "bias" (k,)."""
        kernel = self.window(shape).kernel
        weights = {"weight": ((*kernel, shape[2] // self.groups, self.filters), self.weight_init)}
        return weights | ({"bias": ((self.filters,), self.bias_init)} if self.bias else {})

    def flops(self, shape: Shape) -> int:
        """Return two operations for each product."""
        h, w, c = shape
        return self.window(shape).flops(1, h, w, c, self.filters)

    def reach(self, shape: Shape) -> tuple[Reach, Reach]:
        """Return the window's reach."""
        return Reach.of(self.window(shape))

    def at_size(self, shape: Shape) -> Conv2D:
        """Return the layer with its padding in pixels."""
        return replace(self, padding=self.window(shape).padding)

    def conv_shape(self, shape: Shape) -> ConvShape:
        """Return what a choice of methods depends on."""
        h, w, c = shape
        return ConvShape(self.window(shape), (h, w), c, self.filters)

    def choose_methods(
        self, shape: Shape, method: str, precision: str, tuned: Tuned | None = None
    ) -> Mapping[str, str]:
        """Return the method of each pass."""
        return choose_all(method, self.conv_shape(shape), precision, tuned)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the convolution, and its input for the weight gradient."""
        method = context.methods["forward"]
        window = self.window(x.shape[1:])
        y = conv.forward(
            x,
            params["weight"],
            params.get("bias"),
            window,
            method,
            context.tile_threads(method),
            context.epilogue,
        )
        return y, x

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the input gradient and those of weight and bias."""
        x, weight = saved, params["weight"]
        window = self.window(x.shape[1:])
        grads: Arrays = {}
        if context.needs_weight_grad:
            method = context.methods["weight_grad"]
            threads = context.tile_threads(method)
            out = context.grads.get("weight")
            grads["weight"] = conv.weight_grad(x, dy, weight.shape, window, method, threads, out)
            if self.bias:
                grads["bias"] = sum_rows(dy.reshape(-1, self.filters))
        if not context.needs_input_grad:
            return None, grads
        method = context.methods["input_grad"]
        dx = conv.input_grad(dy, weight, x.shape, window, method, context.tile_threads(method))
        return dx, grads


@dataclass(frozen=True)
class Dense(Layer):
    """Fully connected: ``x @ weight + bias`` on (features,) inputs.

    Examples
    --------
    >>> Dense(10).output_shape((64,))
    (10,)
    """

    stage: ClassVar[str] = "product"
    units: int
    bias: bool = True
    weight_init: Initializer = HeNormal()
    bias_init: Initializer = Constant(0.0)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (units,)."""
        if len(shape) != 1:
            raise InputError(f"Dense gets an input of shape {shape}: put a Flatten() before it.")
        return (check_count(self.units, "units"),)

    def weights(self, shape: Shape) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return "weight" (features, units) and "bias" (units,)."""
        weights = {"weight": ((shape[0], self.units), self.weight_init)}
        return weights | ({"bias": ((self.units,), self.bias_init)} if self.bias else {})

    def flops(self, shape: Shape) -> int:
        """Return two operations for each product."""
        return 2 * prod(shape) * self.units

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the product, and its input for the weight gradient."""
        y = x @ params["weight"]
        return (y + params["bias"] if self.bias else y), x

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the input gradient and those of weight and bias."""
        grads: Arrays = {}
        if context.needs_weight_grad:
            grads["weight"] = np.matmul(saved.T, dy, out=context.grads.get("weight"))
            if self.bias:
                grads["bias"] = sum_rows(dy)
        return (np.matmul(dy, params["weight"].T) if context.needs_input_grad else None), grads


@lru_cache(maxsize=4096)
def _window(layer: Conv2D, shape: Shape) -> Window:
    h, w, c = images_shape(shape, "Conv2D")
    check_channels(c, layer.filters, layer.groups)
    return Window.of(
        layer.kernel,
        (h, w),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )


def images_shape(shape: Shape, layer: str) -> tuple[int, int, int]:
    """Return (h, w, c), or raise InputError that says what the layer got instead."""
    if len(shape) != 3:
        raise InputError(f"{layer} gets an input of shape {shape}: it needs images (h, w, c).")
    return shape
