"""Layers of several inputs: sums, products, and channels side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.layers.activations import axis_of
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.reach import POINTWISE, Reach


@dataclass(frozen=True)
class _Elementwise(Layer):
    is_pointwise: ClassVar[bool] = True

    def output_shape(self, shape: Any) -> Shape:
        """Return the shape that the inputs are broadcast to, as NumPy does."""
        name = type(self).__name__
        if len(shape) < 2 or not isinstance(shape[0], tuple):
            raise InputError(f"{name} gets an input of shape {shape}: it needs at least two inputs.")
        try:
            return np.broadcast_shapes(*shape)
        except ValueError:
            raise InputError(
                f"{name} gets inputs of shapes {shape}: it needs equal ones, or sides of 1 where they differ."
            ) from None


@dataclass(frozen=True)
class _OfTwo(_Elementwise):
    def output_shape(self, shape: Any) -> Shape:
        """Return the shape that both inputs are broadcast to, as NumPy does."""
        broadcast = super().output_shape(shape)
        if len(shape) != 2:
            raise InputError(f"{type(self).__name__} gets {len(shape)} inputs: it needs two.")
        return broadcast


@dataclass(frozen=True)
class Add(_Elementwise):
    """The sum of several inputs, as at the end of a residual block; broadcast where shapes differ.

    Examples
    --------
    >>> Add().output_shape(((4, 4, 8), (8,)))
    (4, 4, 8)
    """

    def forward(self, params: Arrays, x: tuple[NDArray, ...], context: Context) -> tuple[NDArray, Any]:
        """Return the sum, in the order of the inputs."""
        shapes = [array.shape for array in x]
        arrays = aligned(x)
        total = arrays[0] + arrays[1]
        for other in arrays[2:]:
            fits = np.broadcast_shapes(total.shape, other.shape) == total.shape
            total = np.add(total, other, out=total if fits else None)
        return total, shapes

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the output's gradient for each input."""
        return tuple(reduced(dy, shape) for shape in saved), {}


@dataclass(frozen=True)
class Subtract(_OfTwo):
    """The first input less the second."""

    def forward(self, params: Arrays, x: tuple[NDArray, ...], context: Context) -> tuple[NDArray, Any]:
        """Return the difference."""
        one, other = aligned(x)
        return one - other, [array.shape for array in x]

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, and its negative."""
        return (reduced(dy, saved[0]), reduced(-dy, saved[1])), {}


@dataclass(frozen=True)
class Multiply(_OfTwo):
    """The product of two inputs."""

    def forward(self, params: Arrays, x: tuple[NDArray, ...], context: Context) -> tuple[NDArray, Any]:
        """Return the product; backward needs the inputs."""
        one, other = aligned(x)
        return one * other, x

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient times the other input."""
        one, other = aligned(saved)
        return (reduced(dy * other, saved[0].shape), reduced(dy * one, saved[1].shape)), {}


@dataclass(frozen=True)
class Divide(_OfTwo):
    """The first input over the second."""

    def forward(self, params: Arrays, x: tuple[NDArray, ...], context: Context) -> tuple[NDArray, Any]:
        """Return the quotient; backward needs the inputs."""
        one, other = aligned(x)
        return one / other, x

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return both gradients."""
        one, other = aligned(saved)
        by_one = dy / other
        return (reduced(by_one, saved[0].shape), reduced(-by_one * one / other, saved[1].shape)), {}


@dataclass(frozen=True)
class Concat(Layer):
    """Several inputs side by side along an axis; the channels, as at the end of an inception module, when not given."""

    axis: int = -1

    def output_shape(self, shape: Any) -> Shape:
        """Return the shared sizes, and the sum along the axis."""
        if not isinstance(shape[0], tuple) or len({len(s) for s in shape}) != 1:
            raise InputError(f"Concat gets inputs of shapes {shape}: they need the same number of axes.")
        axis = axis_of(self.axis, shape[0], "Concat") - 1
        if len({s[:axis] + s[axis + 1 :] for s in shape}) != 1:
            raise InputError(
                f"Concat gets inputs of shapes {shape}: all axes but number {axis} have to be equal."
            )
        return (*shape[0][:axis], sum(s[axis] for s in shape), *shape[0][axis + 1 :])

    def reach(self, shape: Any) -> tuple[Reach, Reach] | None:
        """Return that of a layer of single pixels where the axis is the channels'."""
        return POINTWISE if axis_of(self.axis, shape[0], "Concat") == len(shape[0]) else None

    def forward(self, params: Arrays, x: tuple[NDArray, ...], context: Context) -> tuple[NDArray, Any]:
        """Return the inputs side by side."""
        axis = axis_of(self.axis, x[0].shape[1:], "Concat")
        (images,) = np.broadcast_shapes(*((len(part),) for part in x))
        parts = [np.broadcast_to(part, (images, *part.shape[1:])) for part in x]
        return np.concatenate(parts, axis), [part.shape for part in x]

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return each input's part of the gradient; the sum over the images where it was one for all."""
        axis = axis_of(self.axis, dy.shape[1:], "Concat")
        parts = np.split(dy, np.cumsum([shape[axis] for shape in saved])[:-1], axis)
        return tuple(reduced(part, shape) for part, shape in zip(parts, saved, strict=True)), {}


@dataclass(frozen=True)
class Outputs(Layer):
    """Several outputs of a network, as a tuple: its last node.

    Parameters
    ----------
    auxiliary : int
        How many of the outputs, the last ones, are for training alone: a Model predicts without them.
    """

    auxiliary: int = 0

    def output_shape(self, shape: Any) -> Any:
        """Return the shapes."""
        outputs = len(shape) if shape and isinstance(shape[0], tuple) else 1
        if not (isinstance(self.auxiliary, int) and 0 <= self.auxiliary < outputs):
            raise InputError(f"Outputs has auxiliary {self.auxiliary} and {outputs} outputs: give fewer.")
        return shape

    def forward(self, params: Arrays, x: Any, context: Context) -> tuple[Any, Any]:
        """Return the inputs as they are."""
        return x, None

    def backward(self, params: Arrays, saved: Any, dy: Any, context: Context) -> tuple[Any, Arrays]:
        """Return the gradients as they are."""
        return dy, {}


def aligned(x: tuple[NDArray, ...]) -> tuple[NDArray, ...]:
    """Return the arrays with as many axes each: images first, then axes of size 1 where an image has fewer."""
    most = max(array.ndim for array in x)
    return tuple(array.reshape(len(array), *(1,) * (most - array.ndim), *array.shape[1:]) for array in x)


def reduced(dy: NDArray, shape: tuple[int, ...]) -> NDArray:
    """Return a gradient summed over the axes along which an input of this shape was broadcast."""
    if dy.shape == shape:
        return dy
    sizes = (shape[0], *(1,) * (dy.ndim - len(shape)), *shape[1:])
    axes = tuple(axis for axis, size in enumerate(sizes) if size == 1 != dy.shape[axis])
    return dy.sum(axes, keepdims=True).reshape(shape)
