"""ConvTranspose2D: a convolution run backwards, which makes images larger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from daskconv.errors import InputError, are_ints, check_count
from daskconv.geometry import Padding, Window, as_pair, resolve_padding
from daskconv.graph import conv
from daskconv.graph.arrays import check_channels
from daskconv.graph.choose import ConvShape, choose_all
from daskconv.graph.tuning import Tuned
from daskconv.kernels.reduce import sum_rows
from daskconv.nn.initializers import Constant, HeNormal, Initializer
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.layers.conv import images_shape
from daskconv.nn.reach import Reach


@dataclass(frozen=True)
class ConvTranspose2D(Layer):
    """The input gradient of a convolution as a layer (Zeiler et al. 2010): each pixel spreads over a window.

    The convolution reads images of ``filters`` channels of the output's size, and writes those that the layer gets.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel, stride, dilation, groups
        As in :class:`Conv2D`, of that convolution.
    padding : int, (int, int) or ((int, int), (int, int))
        Rows and columns that the output lacks at its sides.
    output_padding : int or (int, int)
        More rows and columns at the end, below the stride, for a size that several strides may have come from.
    bias : bool
    weight_init, bias_init : Initializer
        How the weights (r, s, filters / groups, c) and biases (filters,) start.

    Examples
    --------
    >>> ConvTranspose2D(8, 2, stride=2).output_shape((5, 5, 16))
    (10, 10, 8)
    """

    filters: int
    kernel: int | tuple[int, int]
    stride: int | tuple[int, int] = 1
    padding: Padding = 0
    output_padding: int | tuple[int, int] = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True
    weight_init: Initializer = HeNormal()
    bias_init: Initializer = Constant(0.0)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (h, w, filters)."""
        return (*adjoint(self, shape)[1], self.filters)

    def weights(self, shape: Shape) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return "weight" (r, s, filters / groups, c) and "bias" (filters,)."""
        kernel = adjoint(self, shape)[0].kernel
        weights = {"weight": ((*kernel, self.filters // self.groups, shape[2]), self.weight_init)}
        return weights | ({"bias": ((self.filters,), self.bias_init)} if self.bias else {})

    def flops(self, shape: Shape) -> int:
        """Return two operations for each product."""
        window, (h, w) = adjoint(self, shape)
        return window.flops(1, h, w, self.filters, shape[2])

    def reach(self, shape: Shape) -> tuple[Reach, Reach]:
        """Return the reach of the window that is run backwards."""
        return Reach.against(adjoint(self, shape)[0])

    def at_size(self, shape: Shape) -> ConvTranspose2D:
        """Return the layer with its padding in pixels."""
        return replace(self, padding=adjoint(self, shape)[0].padding)

    def choose_methods(
        self, shape: Shape, method: str, precision: str, tuned: Tuned | None = None
    ) -> Mapping[str, str]:
        """Return the methods of the convolution: this layer's forward pass is its input gradient, and so on."""
        window, image = adjoint(self, shape)
        return choose_all(method, ConvShape(window, image, self.filters, shape[2]), precision, tuned)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the larger images; backward needs the input."""
        window, image = adjoint(self, x.shape[1:])
        method = context.methods["input_grad"]
        shape = (len(x), *image, self.filters)
        y = conv.input_grad(x, params["weight"], shape, window, method, context.tile_threads(method))
        if self.bias:
            y += params["bias"]
        return y, x

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the input gradient and those of weight and bias."""
        window, _ = adjoint(self, saved.shape[1:])
        weight = params["weight"]
        grads: Arrays = {}
        if context.needs_weight_grad:
            method = context.methods["weight_grad"]
            threads, out = context.tile_threads(method), context.grads.get("weight")
            grads["weight"] = conv.weight_grad(dy, saved, weight.shape, window, method, threads, out)
            if self.bias:
                grads["bias"] = sum_rows(dy.reshape(-1, self.filters))
        if not context.needs_input_grad:
            return None, grads
        method = context.methods["forward"]
        return conv.forward(dy, weight, None, window, method, context.tile_threads(method)), grads


@lru_cache(maxsize=4096)
def adjoint(layer: ConvTranspose2D, shape: Shape) -> tuple[Window, tuple[int, int]]:
    """Return the window of the convolution that the layer runs backwards, and the (h, w) of what that reads."""
    h, w, c = images_shape(shape, "ConvTranspose2D")
    check_channels(check_count(layer.filters, "filters"), c, layer.groups)
    kernel, stride, dilation = (
        as_pair(value, name)
        for value, name in ((layer.kernel, "kernel"), (layer.stride, "stride"), (layer.dilation, "dilation"))
    )
    more = layer.output_padding if isinstance(layer.output_padding, tuple) else (layer.output_padding,) * 2
    if not are_ints(more, 2) or not all(0 <= extra < step for extra, step in zip(more, stride, strict=True)):
        raise InputError(
            f"ConvTranspose2D has output_padding {layer.output_padding}: give ints of at least 0 and less than the "
            f"stride {stride}."
        )
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    pads = resolve_padding(layer.padding, (h, w), (extent[0], extent[1]), stride)
    image = tuple(
        step * (size - 1) + extra + span - sum(pad)
        for size, step, extra, span, pad in zip((h, w), stride, more, extent, pads, strict=True)
    )
    if min(image) < 1:
        raise InputError(
            f"ConvTranspose2D leaves nothing of images of ({h}, {w}) pixels: use less padding than {pads}."
        )
    window = Window(kernel, stride, pads, dilation, layer.groups)
    return window, (image[0], image[1])
