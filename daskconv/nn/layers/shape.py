"""Layers that move values and compute none: Flatten, Reshape, Transpose, Pad, Slice, ChannelShuffle, Parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError, are_ints, check_count
from daskconv.nn.initializers import Constant, Initializer
from daskconv.nn.layers.base import Arrays, Context, Layer, Shape
from daskconv.nn.reach import Reach


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
class Reshape(Layer):
    """An image's values in another shape, in the order in which they lie; one size may be -1.

    Examples
    --------
    >>> Reshape((-1, 8)).output_shape((4, 4, 16))
    (32, 8)
    """

    shape: tuple[int, ...]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape, with the size that was left open."""
        if not are_ints(self.shape):
            raise InputError(f"Reshape has shape {self.shape}: give a tuple of ints.")
        known, whole = prod(size for size in self.shape if size != -1), prod(shape)
        opened = self.shape.count(-1)
        fits = known == whole if not opened else known > 0 and whole % known == 0
        if opened > 1 or any(size < -1 for size in self.shape) or not fits:
            raise InputError(
                f"Reshape to {self.shape} gets an input of shape {shape}: give sizes whose product is {whole}, one of "
                "them may be -1."
            )
        return tuple(whole // known if size == -1 else size for size in self.shape)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return a view."""
        return x.reshape(len(x), *self.output_shape(x.shape[1:])), x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return a view in the input's shape."""
        return dy.reshape(saved), {}


@dataclass(frozen=True)
class Transpose(Layer):
    """An image's axes in another order: (2, 0, 1) turns (h, w, c) into (c, h, w)."""

    order: tuple[int, ...]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the sizes in that order."""
        if sorted(self.order) != list(range(len(shape))):
            raise InputError(
                f"Transpose has order {self.order} but gets an input of shape {shape}: name each of its axes once."
            )
        return tuple(shape[axis] for axis in self.order)

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the values in their new order."""
        return np.ascontiguousarray(x.transpose(0, *(axis + 1 for axis in self.order))), None

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient in the input's order."""
        return np.ascontiguousarray(dy.transpose(0, *(axis + 1 for axis in np.argsort(self.order)))), {}


@dataclass(frozen=True)
class Pad(Layer):
    """A border around an image's values.

    Parameters
    ----------
    padding : tuple of (int, int)
        Elements before and after, for each axis: ((top, bottom), (left, right), (0, 0)) for an image. Negative numbers
        take elements away.
    mode : {"constant", "reflect", "edge"}
        What the border holds: ``value``, the image mirrored at its outermost elements, or these themselves.
    value : float

    Examples
    --------
    >>> Pad(((1, 1), (2, 2), (0, 0))).output_shape((4, 4, 3))
    (6, 8, 3)
    """

    padding: tuple[tuple[int, int], ...]
    mode: str = "constant"
    value: float = 0.0

    def output_shape(self, shape: Shape) -> Shape:
        """Return the sizes with the border."""
        if self.mode not in ("constant", "reflect", "edge"):
            raise InputError(f"Pad has mode {self.mode!r}: choose constant, reflect or edge.")
        pairs = isinstance(self.padding, tuple) and all(are_ints(pair, 2) for pair in self.padding)
        if not pairs or len(self.padding) != len(shape):
            raise InputError(
                f"Pad has padding {self.padding} but gets an input of shape {shape}: give a pair of ints for each axis."
            )
        sided = list(zip(shape, self.padding, strict=True))
        if any(size + min(before, 0) + min(after, 0) < 1 for size, (before, after) in sided):
            raise InputError(
                f"Pad has padding {self.padding}, which leaves nothing of an input of shape {shape}."
            )
        return tuple(size + before + after for size, (before, after) in sided)

    def reach(self, shape: Shape) -> tuple[Reach, Reach] | None:
        """Return the shift; what is mirrored at an edge lies as far inside of it as the border's outermost pixel."""
        if len(shape) != 3:
            return None
        twice = 2 if self.mode == "reflect" else 0
        rows, columns = (
            Reach(
                first=Fraction(-before - twice * max(after, 0)),
                last=Fraction(-before - min(after, 0) + twice * max(before, 0)),
            )
            for before, after in self.padding[:2]
        )
        return rows, columns

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the padded values."""
        pads, inside = _outer(self.padding), _inner(self.padding)
        x_inside = x[inside]
        if self.mode == "constant":
            y = np.full(
                [size + sum(pair) for size, pair in zip(x_inside.shape, pads, strict=True)],
                self.value,
                x.dtype,
            )
            y[_place(pads, x_inside.shape)] = x_inside
        else:
            y = np.pad(x_inside, pads, self.mode)  # type: ignore[call-overload]
        return y, x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient, with what the border read added to where it read it."""
        pads, inside = _outer(self.padding), _inner(self.padding)
        dx = np.zeros(saved, dy.dtype)
        kept = dx[inside]
        if self.mode == "constant":
            kept[...] = dy[_place(pads, kept.shape)]
            return dx, {}
        for axis, pair in enumerate(pads):
            if pair == (0, 0):
                continue
            lines, size, (before, _) = np.moveaxis(dy, axis, 0), kept.shape[axis], pair
            sources = np.pad(np.arange(size), pair, self.mode)  # type: ignore[call-overload]
            part = lines[before : before + size].copy("K")
            for at in (*range(before), *range(before + size, len(lines))):
                part[sources[at]] += lines[at]
            dy = np.moveaxis(part, 0, axis)
        kept[...] = dy
        return dx, {}


def _outer(padding: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Return what is added on both sides of each axis, images first."""
    return [(0, 0), *((max(before, 0), max(after, 0)) for before, after in padding)]


def _inner(padding: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    """Return what negative padding leaves of each axis, images first."""
    return slice(None), *(slice(max(-before, 0), -max(-after, 0) or None) for before, after in padding)


def _place(pads: list[tuple[int, int]], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return where an array lies inside of its border."""
    return tuple(slice(before, before + size) for (before, _), size in zip(pads, shape, strict=True))


@dataclass(frozen=True)
class Slice(Layer):
    """A part of an image's values: from ``starts`` to before ``stops`` in ``steps``, for each axis as Python slices.

    Examples
    --------
    >>> Slice((0, None, None), (2, None, None), (1, 2, 1)).output_shape((4, 4, 3))
    (2, 2, 3)
    """

    starts: tuple[int | None, ...]
    stops: tuple[int | None, ...]
    steps: tuple[int | None, ...]

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(map(slice, self.starts, self.stops, self.steps))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the sizes that are left."""
        given = (self.starts, self.stops, self.steps)
        fits = all(isinstance(part, tuple) and len(part) == len(shape) for part in given)
        if (
            not fits
            or 0 in self.steps
            or not are_ints(tuple(n for part in given for n in part if n is not None))
        ):
            raise InputError(
                f"Slice has starts {self.starts}, stops {self.stops} and steps {self.steps} but gets an input of shape "
                f"{shape}: give an int or None of each for each axis, and no step of 0."
            )
        sizes = tuple(len(range(size)[part]) for size, part in zip(shape, self._slices, strict=True))
        if 0 in sizes:
            raise InputError(f"Slice leaves nothing of an input of shape {shape}: {sizes}.")
        return sizes

    def reach(self, shape: Shape) -> tuple[Reach, Reach] | None:
        """Return the step and the pixels that are cut off; all of the image where it is turned round."""
        parts = [range(size)[part] for size, part in zip(shape, self._slices, strict=True)]
        if len(shape) != 3 or any(part.step < 1 for part in parts):
            return None
        rows, columns = (
            Reach(Fraction(part.step), last=Fraction(part.start + size - part.stop))
            for part, size in zip(parts[:2], shape)
        )
        return rows, columns

    def at_size(self, shape: Shape) -> Slice:
        """Return the slice with its ends counted from those of the image."""
        if self.reach(shape) is None:
            return self
        parts = [range(size)[part] for size, part in zip(shape, self._slices, strict=True)]
        stops = tuple(part.stop - size or None for part, size in zip(parts, shape, strict=True))
        return Slice(tuple(part.start for part in parts), stops, tuple(part.step for part in parts))

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return a copy of the part."""
        return np.ascontiguousarray(x[(slice(None), *self._slices)]), x.shape

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient in its place, and 0 around it."""
        dx = np.zeros((len(dy), *saved[1:]), dy.dtype)
        dx[(slice(None), *self._slices)] = dy
        return dx, {}


@dataclass(frozen=True)
class ChannelShuffle(Layer):
    """Channels of groups dealt out in turn, so that the next grouped convolution mixes them (Zhang et al. 2018)."""

    is_pointwise: ClassVar[bool] = True

    groups: int

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape."""
        if not shape or shape[-1] % check_count(self.groups, "groups"):
            raise InputError(
                f"ChannelShuffle has {self.groups} groups for an input of shape {shape}: they have to divide its "
                "channels."
            )
        return shape

    def forward(self, params: Arrays, x: NDArray, context: Context) -> tuple[NDArray, Any]:
        """Return the channels in their new order."""
        return _dealt(x, self.groups), None

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return the gradient in the input's order."""
        return _dealt(dy, dy.shape[-1] // self.groups), {}


def _dealt(x: NDArray, groups: int) -> NDArray:
    parts = x.reshape(*x.shape[:-1], groups, -1)
    return np.ascontiguousarray(parts.swapaxes(-1, -2)).reshape(x.shape)


@dataclass(frozen=True)
class Parameter(Layer):
    """An array that is learnt, the same for all images; what it reads is not used.

    Parameters
    ----------
    shape : tuple of int
    init : Initializer
        How "value" starts.
    """

    is_constant: ClassVar[bool] = True

    shape: tuple[int, ...]
    init: Initializer = Constant(0.0)

    def output_shape(self, shape: Any) -> Shape:
        """Return the array's shape."""
        if not are_ints(self.shape) or min(self.shape, default=1) < 1:
            raise InputError(f"Parameter has shape {self.shape}: give a tuple of ints, each at least 1.")
        return self.shape

    def weights(self, shape: Any) -> Mapping[str, tuple[Shape, Initializer]]:
        """Return "value"."""
        return {"value": (self.shape, self.init)}

    def forward(self, params: Arrays, x: Any, context: Context) -> tuple[NDArray, Any]:
        """Return the array as that of one image, which is broadcast over all."""
        return params["value"][None], x

    def backward(self, params: Arrays, saved: Any, dy: NDArray, context: Context) -> tuple[Any, Arrays]:
        """Return no gradient by the input, and that of the array."""
        return np.zeros_like(saved), {"value": dy.sum(0)}
