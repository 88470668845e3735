"""Activations: functions of each element, and the softmax over an axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.kernels import pointwise
from daskconv.kernels.epilogue import relu_grad
from daskconv.kernels.pointwise import evaluate
from daskconv.kernels.scratch import empty_like
from daskconv.nn.initializers import Constant, Initializer
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.losses import softmax
from daskconv.nn.reach import POINTWISE, Reach


@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0)."""

    is_pointwise: ClassVar[bool] = True

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the positive part."""
        y = np.maximum(x, 0, out=empty_like(x))
        return y, y

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient where the output is positive."""
        return relu_grad(dy, saved), {}


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """x where it is positive, else ``slope * x`` (Maas et al. 2013)."""

    is_pointwise: ClassVar[bool] = True

    slope: float = 0.01

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the output; backward needs the input."""
        return pointwise.leaky_relu(x, self._slopes(x)), x

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, times the slope where the input is negative."""
        return pointwise.leaky_relu_grad(dy, saved, self._slopes(saved)), {}

    def _slopes(self, x: NDArray) -> NDArray:
        return np.full(x.shape[-1], self.slope, x.dtype)


@dataclass(frozen=True)
class PReLU(Layer):
    """x where it is positive, else x times a slope that is learnt for each channel (He et al. 2015).

    Parameters
    ----------
    slope_init : Initializer
        How "slope" (c,) starts.
    """

    is_pointwise: ClassVar[bool] = True

    slope_init: Initializer = Constant(0.25)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape."""
        if not shape:
            raise InputError("PReLU gets an input of shape (): it needs channels, its last axis.")
        return shape

    def weights(self, shape: Shape) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return "slope" (c,)."""
        return {"slope": ((shape[-1],), self.slope_init)}

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the output; backward needs the input."""
        return pointwise.leaky_relu(x, params["slope"]), x

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient by the input and by the slopes."""
        dx, of_slopes = pointwise.prelu_grad(dy, saved, params["slope"])
        return dx, {"slope": of_slopes}


@dataclass(frozen=True)
class ELU(Layer):
    """x where it is positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016)."""

    is_pointwise: ClassVar[bool] = True

    alpha: float = 1.0

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the output; backward needs input and output."""
        y = evaluate("where(x > 0, x, alpha * expm1(x))", x, alpha=self.alpha)
        return y, (x, y)

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient."""
        x, y = saved
        return evaluate("where(x > 0, dy, dy * (y + alpha))", x, y=y, dy=dy, alpha=self.alpha), {}


@dataclass(frozen=True)
class Sigmoid(Layer):
    """1 / (1 + exp(-x)), by the hyperbolic tangent, which never overflows."""

    is_pointwise: ClassVar[bool] = True

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the output, which backward needs."""
        y = evaluate("half * tanh(half * x) + half", x, half=0.5)
        return y, y

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient."""
        return evaluate("dy * x * (one - x)", saved, dy=dy, one=1), {}


@dataclass(frozen=True)
class HardSigmoid(Layer):
    """``slope * x + offset``, limited to 0 .. 1; PyTorch's numbers, ONNX's slope is 0.2."""

    is_pointwise: ClassVar[bool] = True

    slope: float = 1 / 6
    offset: float = 0.5

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the output, which backward needs."""
        y = evaluate(
            "where(x * slope + offset < one, x * slope + offset, one)",
            x,
            slope=self.slope,
            offset=self.offset,
            one=1,
        )
        np.maximum(y, 0, out=y)
        return y, y

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient where the output lies between 0 and 1."""
        return pointwise.between_grad(dy, saved, 0, 1, self.slope), {}


@dataclass(frozen=True)
class HardSwish(Layer):
    """x times its hard sigmoid (Howard et al. 2019)."""

    is_pointwise: ClassVar[bool] = True

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the output; backward needs the input."""
        return pointwise.hard_swish(x), x

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient."""
        return pointwise.hard_swish_grad(dy, saved), {}


@dataclass(frozen=True)
class Tanh(Layer):
    """The hyperbolic tangent."""

    is_pointwise: ClassVar[bool] = True

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the output, which backward needs."""
        y = evaluate("tanh(x)", x)
        return y, y

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient."""
        return evaluate("dy * (one - x * x)", saved, dy=dy, one=1), {}


@dataclass(frozen=True)
class Clip(Layer):
    """x limited to low .. high; None is no limit.

    Examples
    --------
    >>> Clip(0.0, 6.0).forward({}, np.array([-1.0, 3.0, 9.0]), Context())[0].tolist()
    [0.0, 3.0, 6.0]
    """

    is_pointwise: ClassVar[bool] = True

    low: float | None = None
    high: float | None = None

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the limited input; backward needs the input."""
        return pointwise.clip(x, *self._limits), x

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient inside of the limits."""
        return pointwise.between_grad(dy, saved, *self._limits), {}

    @property
    def _limits(self) -> tuple[float, float]:
        return -inf if self.low is None else self.low, inf if self.high is None else self.high


@dataclass(frozen=True)
class Softmax(Layer):
    """Probabilities along an axis of an image's values; the channels when not given.

    A network that is trained with softmax cross-entropy ends before it: that loss takes scores.
    """

    axis: int = -1

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape."""
        axis_of(self.axis, shape, type(self).__name__)
        return shape

    def reach(self, shape: Shape) -> tuple[Reach, Reach] | None:
        """Return that of a layer of single pixels where the axis is the channels'."""
        return POINTWISE if axis_of(self.axis, shape, type(self).__name__) == len(shape) else None

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the probabilities, which backward needs."""
        y = softmax(x, axis_of(self.axis, x.shape[1:], "Softmax"))
        return y, y

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient."""
        axis = axis_of(self.axis, saved.shape[1:], "Softmax")
        return saved * (dy - (dy * saved).sum(axis, keepdims=True)), {}


@dataclass(frozen=True)
class LogSoftmax(Softmax):
    """Logarithms of probabilities along an axis."""

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the logarithms, which backward needs."""
        axis = axis_of(self.axis, x.shape[1:], "LogSoftmax")
        centred = x - x.max(axis, keepdims=True)
        y = centred - np.log(np.exp(centred).sum(axis, keepdims=True))
        return y, y

    def backward(self, params: Arrays, saved: NDArray, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient."""
        axis = axis_of(self.axis, saved.shape[1:], "LogSoftmax")
        return dy - np.exp(saved) * dy.sum(axis, keepdims=True), {}


def axis_of(axis: int, shape: Shape, layer: str) -> int:
    """Return an axis of an image's values as one of the array's, whose first is n; refuse one that is not there."""
    if not isinstance(axis, Integral) or not -len(shape) <= axis < len(shape):
        raise InputError(
            f"{layer} has axis {axis} but gets an input of shape {shape}: count its axes from 0 or -1."
        )
    return axis % len(shape) + 1
