"""Parts: what one shard runs of a layer, for a box of the layer's output. One rule a family of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

from daskconv.errors import InputError
from daskconv.geometry import Window
from daskconv.nn.layers import (
    ELU,
    LRN,
    Add,
    AvgPool2D,
    BatchNorm,
    Clip,
    Concat,
    Conv2D,
    Dense,
    Divide,
    Dropout,
    GlobalAvgPool2D,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LpPool2D,
    MaxPool2D,
    Multiply,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Subtract,
    Tanh,
)
from daskconv.nn.layers.base import Layer, Shape
from daskconv.nn.layers.shards import DropoutPart, MeanPart
from daskconv.plan.boxes import Box, Range, whole

Summed = Mapping[str, Range]
"""The ranges of a part along the axes that a layer sums over, where those are split."""


@dataclass(frozen=True)
class Part:
    """A layer as one shard runs it.

    Attributes
    ----------
    layer : Layer
    inputs : tuple of Box
        What it reads of each input, without the axis of images.
    weights : mapping of str to Box
        What it holds of each weight and running statistic.
    """

    layer: Layer
    inputs: tuple[Box, ...]
    weights: Mapping[str, Box] = field(default_factory=dict)


@singledispatch
def axes_of(layer: Layer, shapes: Sequence[Shape]) -> str:
    """Return the axes besides n that a plan may split: h, w, k (output channels), c (input channels)."""
    return ""


def summed_axes(layer: Layer) -> str:
    """Return the axes that a layer sums over: a plan that splits them splits its output into summands."""
    if isinstance(layer, Conv2D | Dense):
        return "c"
    return "hw" if type(layer) is GlobalAvgPool2D else ""


@singledispatch
def part_of(layer: Layer, shapes: Sequence[Shape], box: Box, summed: Summed) -> Part:
    """Return what a shard runs to have a box of the output."""
    return Part(layer, tuple(whole(shape) for shape in shapes), _whole_weights(layer, shapes))


def _whole_weights(layer: Layer, shapes: Sequence[Shape]) -> dict[str, Box]:
    shape: Any = shapes[0] if len(shapes) == 1 else tuple(shapes)
    named = {**layer.weights(shape), **layer.statistics(shape)}
    return {name: whole(size) for name, (size, _) in named.items()}


def _windows(window: Window, size: Sequence[int], box: Box) -> tuple[Box, Any]:
    """Return the rows and columns that some outputs read, and the padding that is left of the window's."""
    ranges, pads = [], []
    for axis, name in enumerate("hw"):
        (first, last), step = box[axis], window.stride[axis]
        before, after = window.padding[axis]
        start, stop = first * step - before, (last - 1) * step + window.extent[axis] - before
        low, high = max(start, 0), min(stop, size[axis])
        if low >= high:
            raise InputError(
                f"The outputs {first} to {last - 1} along {name} see padding only: split {name} into fewer parts."
            )
        ranges.append((low, high))
        pads.append((low - start, min(stop - high, after)))
    return tuple(ranges), tuple(pads)


@axes_of.register
def _(layer: Conv2D, shapes: Sequence[Shape]) -> str:
    return "hwkc" if layer.groups == 1 else "hwk"


@part_of.register
def _(layer: Conv2D, shapes: Sequence[Shape], box: Box, summed: Summed) -> Part:
    h, w, c = shapes[0]
    window = layer.window(shapes[0])
    rows, pads = _windows(window, (h, w), box)
    k, (read, groups) = box[2], _groups(layer, c, box[2])
    channels = summed.get("c")
    of_weight = channels or (0, c // layer.groups)
    local = replace(
        layer,
        filters=k[1] - k[0],
        padding=pads,
        groups=groups,
        bias=layer.bias and channels is None,
    )
    weights: dict[str, Box] = {"weight": ((0, window.kernel[0]), (0, window.kernel[1]), of_weight, k)}
    if local.bias:
        weights["bias"] = (k,)
    return Part(local, ((*rows, channels or read),), weights)


def _groups(layer: Conv2D, c: int, k: Range) -> tuple[Range, int]:
    """Return the input channels that a range of filters reads, and in how many groups."""
    if layer.groups == 1:
        return (0, c), 1
    filters, channels = layer.filters // layer.groups, c // layer.groups
    first, last = k[0] // filters, -(-k[1] // filters)
    if last - first > 1 and (k[0] % filters or k[1] % filters):
        raise InputError(
            f"The {layer.groups} groups of {filters} filters are cut at {k}: split k into parts of whole groups."
        )
    return (first * channels, last * channels), last - first


@axes_of.register
def _(layer: Dense, shapes: Sequence[Shape]) -> str:
    return "kc"


@part_of.register
def _(layer: Dense, shapes: Sequence[Shape], box: Box, summed: Summed) -> Part:
    (k,), of_weight = box, summed.get("c", (0, shapes[0][0]))
    local = replace(layer, units=k[1] - k[0], bias=layer.bias and not summed)
    weights: dict[str, Box] = {"weight": (of_weight, k)}
    if local.bias:
        weights["bias"] = (k,)
    return Part(local, ((of_weight,),), weights)


def _any_axis(layer: Layer, shapes: Sequence[Shape]) -> str:
    return "hwk"


def _pool(layer: Any, shapes: Sequence[Shape], box: Box, summed: Summed) -> Part:
    window = layer.window(shapes[0])
    rows, pads = _windows(window, shapes[0][:2], box)
    local = replace(layer, padding=pads, stride=window.stride)
    return Part(local, ((*rows, box[2]),))


def _same(layer: Layer, shapes: Sequence[Shape], box: Box, summed: Summed) -> Part:
    """Return the layer as it is: it computes each value from those at its place, broadcast where inputs are smaller."""
    inputs = []
    for shape in shapes:
        sides = box[len(box) - len(shape) :]
        inputs.append(tuple((0, 1) if size == 1 else side for size, side in zip(shape, sides, strict=True)))
    weights = _whole_weights(layer, shapes)
    return Part(layer, tuple(inputs), dict.fromkeys(weights, (box[-1],)))


_POOLS: tuple[type[Layer], ...] = (MaxPool2D, AvgPool2D, LpPool2D)
_ELEMENTWISE: tuple[type[Layer], ...] = (
    ReLU,
    LeakyReLU,
    PReLU,
    ELU,
    Sigmoid,
    HardSigmoid,
    HardSwish,
    Tanh,
    Clip,
)
_ELEMENTWISE += (BatchNorm, Add, Subtract, Multiply, Divide)

for _kinds, _rule in (_POOLS, _pool), (_ELEMENTWISE, _same):
    for _kind in _kinds:
        axes_of.register(_kind, _any_axis)
        part_of.register(_kind, _rule)


axes_of.register(Dropout, _any_axis)


@part_of.register
def _(layer: Dropout, shapes: Sequence[Shape], box: Box, summed: Summed) -> Part:
    local = layer if box == whole(shapes[0]) else DropoutPart(layer.rate, shapes[0], box)
    return Part(local, (box,))


@axes_of.register
def _(layer: LRN, shapes: Sequence[Shape]) -> str:
    return "hw"


part_of.register(LRN, _same)


@axes_of.register(Softmax)
@axes_of.register(Concat)
def _(layer: Softmax | Concat, shapes: Sequence[Shape]) -> str:
    return "hw" if layer.axis in (-1, len(shapes[0]) - 1) else ""


part_of.register(Softmax, _same)


@part_of.register
def _(layer: Concat, shapes: Sequence[Shape], box: Box, summed: Summed) -> Part:
    if not axes_of(layer, shapes):
        return Part(layer, tuple(whole(shape) for shape in shapes))
    return Part(layer, tuple((*box[:-1], (0, shape[-1])) for shape in shapes))


@axes_of.register
def _(layer: GlobalAvgPool2D, shapes: Sequence[Shape]) -> str:
    return "k" + summed_axes(layer)


@part_of.register
def _(layer: GlobalAvgPool2D, shapes: Sequence[Shape], box: Box, summed: Summed) -> Part:
    h, w, _ = shapes[0]
    local = MeanPart(layer.keepdims, h * w) if summed else layer
    return Part(local, ((summed.get("h", (0, h)), summed.get("w", (0, w)), box[-1]),))
