"""Fitting: the layout that a layer can have, and those of what it computes when it sums over a split axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from daskconv.errors import InputError
from daskconv.layout import Layout, even_parts
from daskconv.nn.layers import Conv2D
from daskconv.nn.layers.base import Layer, Shape
from daskconv.plan.boxes import whole
from daskconv.plan.parts import axes_of, part_of, summed_axes


def fitting(layer: Layer, shapes: Sequence[Shape], out: Shape, asked: Layout) -> Layout:
    """Return the layout without the axes that the layer cannot be split along."""
    axes = axes_of(layer, shapes)
    sizes = {"k": out[-1] if out else 0, "c": shapes[0][-1] if shapes[0] else 0}
    image = shapes[0] if "h" in summed_axes(layer) else out
    if len(image) == 3:
        sizes |= {"h": image[0], "w": image[1]}
    parts = {"n": asked.n}
    for axis in "hwck":
        count = getattr(asked, axis)
        parts[axis] = count if axis in axes and sizes.get(axis, 0) >= count else 1
    layout = Layout(**parts)
    if layout.k > 1 and isinstance(layer, Conv2D) and layer.groups > 1:
        try:
            for k in even_parts(out[-1], layout.k):
                part_of(layer, shapes, (*whole(out[:-1]), k), {})
        except InputError:
            return replace(layout, k=1)
    return layout


def required(layer: Layer, shapes: Sequence[Shape], out: Shape, asked: Layout) -> Layout:
    """Return the layout that was asked for; raise InputError where the layer cannot be split like that."""
    found = fitting(layer, shapes, out, asked)
    if found != asked:
        axes = [axis for axis in asked.split_axes if getattr(found, axis) != getattr(asked, axis)]
        kind = type(layer).__name__
        raise InputError(
            f"{kind} with output {out} cannot be split along {', '.join(axes)} as in Layout({asked}): "
            f"it splits along {', '.join('n' + axes_of(layer, shapes))}, into at most as many parts as there are."
        )
    return found


def summands(layer: Layer, layout: Layout) -> int:
    """Return into how many summands a layout splits a layer's output."""
    return prod(getattr(layout, axis) for axis in summed_axes(layer))


def unsummed(layer: Layer, layout: Layout) -> Layout:
    """Return the layout of a layer's output without the axes that the layer sums over."""
    return replace(layout, **dict.fromkeys(summed_axes(layer), 1))


def summed(layer: Layer, out: Shape, layout: Layout) -> Layout:
    """Return the layout of the sum: cut along k into as many parts as there are summands, where it can be."""
    k = layout.k * summands(layer, layout)
    return replace(unsummed(layer, layout), k=k if out[-1] >= k else layout.k)
