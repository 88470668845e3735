"""ONNX operators that move values: shapes, slices, borders; and means over axes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from daskconv.nn.layers import Concat, Mean, Pad, Slice
from daskconv.nn.onnx.translate import Call, Operand, Translation, operator, sizes_of
from daskconv.nn.onnx.values import IMAGES, ImagesMixed, Value


@operator("Reshape")
def _reshape(made: Translation, call: Call) -> Value:
    value, target = call.value(), call.setting(1, "shape")
    allow_zero = bool(call.attribute("allowzero", 0))
    if not made.whole and target and 0 < made.batch == target[0]:
        target = [value.shape[0], *target[1:]]
    sizes = sizes_of(target, value, zero_copies=not allow_zero)
    if prod(sizes) != prod(value.shape):
        if not made.whole:
            raise ImagesMixed(f"It makes {tuple(target)} of {value.shape[1:]} for each image.")
        raise call.refusal(f"it makes {tuple(target)} of {value.shape}")
    return _flattened(made, value, sizes)


@operator("Flatten")
def _flatten(made: Translation, call: Call) -> Value:
    value = call.value()
    axis = call.attribute("axis", 1)
    axis += len(value.shape) if axis < 0 else 0
    return _flattened(made, value, (prod(value.shape[:axis]), prod(value.shape[axis:])))


def _flattened(made: Translation, value: Value, sizes: tuple[int, ...]) -> Value:
    """Return a value in another shape; an image in one axis may stay in its order until someone minds."""
    image = len(value.shape) == 4 and value.order == (0, 2, 3, 1) and not made.whole
    if image and sizes == (value.shape[0], prod(value.shape[1:])) and prod(value.shape[2:]) > 1:
        from daskconv.nn.layers import Flatten

        flat = made.add("flatten", Flatten(), [value], sizes)
        return Value(flat.node, flat.shape, flat.order, value.shape[1:])
    return made.reshaped(value, sizes)


@operator("Squeeze")
def _squeeze(made: Translation, call: Call) -> Value:
    value, axes = call.value(), call.setting(1, "axes")
    rank = len(value.shape)
    gone = (
        {axis for axis, size in enumerate(value.shape) if size == 1}
        if axes is None
        else {axis % rank for axis in axes}
    )
    if not made.whole and (0 in gone or (axes is None and made.batch == 1)):
        raise ImagesMixed("It takes axis 0 away, which is that of the images.")
    if any(value.shape[axis] != 1 for axis in gone):
        raise call.refusal(f"it takes the axes {sorted(gone)} from {value.shape}, and not all have size 1")
    return made.reshaped(value, [size for axis, size in enumerate(value.shape) if axis not in gone])


@operator("Unsqueeze")
def _unsqueeze(made: Translation, call: Call) -> Value:
    value, axes = call.value(), call.setting(1, "axes")
    rank = len(value.shape) + len(axes)
    new = {axis % rank for axis in axes}
    sizes = iter(value.shape)
    return made.reshaped(value, [1 if axis in new else next(sizes) for axis in range(rank)])


@operator("Transpose")
def _transpose(made: Translation, call: Call) -> Value:
    """Only the names of the axes change: nothing moves before someone minds."""
    value = made.unflattened(call.value())
    perm = call.attribute("perm") or list(reversed(range(len(value.shape))))
    if not made.whole and perm[0] != 0:
        raise ImagesMixed("It moves axis 0, which is that of the images.")
    shape = tuple(value.shape[axis] for axis in perm)
    return Value(value.node, shape, tuple(perm.index(axis) for axis in value.order))


@operator("Concat")
def _concat(made: Translation, call: Call) -> Value:
    values = [made.unflattened(operand) for operand in call.operands if isinstance(operand, Value)]
    like = values[0]
    axis = call.attribute("axis") % len(like.shape)
    place = made.place(like, axis)
    parts = [_alike(made, operand, like) for operand in call.operands]
    shape = [*like.shape]
    shape[axis] = sum(part.shape[axis] for part in parts)
    if len(parts) == 1:
        return parts[0]
    return made.add(call, Concat(place), parts, shape, like.order)


def _alike(made: Translation, operand: Operand, like: Value) -> Value:
    if isinstance(operand, Value):
        return made.arranged(operand, like.order)
    return made.constant(np.asarray(operand), like)


@operator("Slice")
def _slice(made: Translation, call: Call) -> Value:
    value = made.unflattened(call.value())
    starts, ends = call.setting(1, "starts"), call.setting(2, "ends")
    axes = call.setting(3, "axes") or list(range(len(starts)))
    steps = call.setting(4, "steps") or [1] * len(starts)
    rank = len(value.shape)
    parts = {axis % rank: part for axis, *part in zip(axes, starts, ends, steps, strict=True)}
    return _cut(made, call, value, parts)


def _cut(made: Translation, call: Call, value: Value, parts: dict[int, Any]) -> Value:
    """Return slices [start, end, step] of some axes."""
    limits: dict[int, slice] = {}
    shape = list(value.shape)
    for axis, (start, end, step) in parts.items():
        if not made.whole and any(limit and limit % IMAGES == 0 for limit in (start, end)):
            raise ImagesMixed("It cuts at the number of images.")
        whole = range(value.shape[axis])[slice(start, end, step)]
        exported = range(0 if made.whole or axis else made.batch)
        if whole == range(value.shape[axis]) or (exported and exported[slice(start, end, step)] == exported):
            continue
        limits[made.place(value, axis)] = slice(
            whole.start, whole.stop if whole.stop >= 0 else None, whole.step
        )
        shape[axis] = len(whole)
    if not limits:
        return value
    if 0 in shape:
        raise call.refusal("it leaves nothing")
    sizes = made.per_image(value.shape, value.order)
    every = [limits.get(place, slice(None, None, 1)) for place in range(len(sizes))]
    layer = Slice(*(tuple(getattr(part, name) for part in every) for name in ("start", "stop", "step")))
    return made.add(call, layer, [value], shape, value.order)


@operator("Split")
def _split(made: Translation, call: Call) -> list[Value]:
    value = made.unflattened(call.value())
    axis = call.attribute("axis", 0) % len(value.shape)
    made.place(value, axis)
    sizes = call.setting(1, "split")
    size, count = value.shape[axis], call.attribute("num_outputs", len(call.outputs))
    if sizes is None:
        part = -(-size // count)
        sizes = [min(part, size - start) for start in range(0, size, part)]
    ends = np.cumsum(sizes).tolist()
    if 0 in sizes or ends[-1] != size:
        raise call.refusal(f"it cuts {size} into {sizes}")
    return [
        _cut(made, call, value, {axis: [end - length, end, 1]})
        for end, length in zip(ends, sizes, strict=True)
    ]


@operator("Pad")
def _pad(made: Translation, call: Call) -> Value:
    value = made.unflattened(call.value())
    rank, mode = len(value.shape), call.attribute("mode", "constant")
    pads, fill = call.setting(1, "pads"), call.setting(2, "value", 0.0)
    axes = [axis % rank for axis in call.setting(3, "axes") or range(rank)]
    if mode not in ("constant", "reflect", "edge"):
        raise call.refusal(f"its mode is {mode!r}")
    fill = fill[0] if isinstance(fill, list) else fill
    sides = dict.fromkeys(range(rank), (0, 0))
    half = len(pads) // 2
    sides |= {axis: (pads[i], pads[half + i]) for i, axis in enumerate(axes)}
    if not made.whole and sides[0] != (0, 0):
        raise ImagesMixed("It pads axis 0, which is that of the images.")
    shape = [size + sum(sides[axis]) for axis, size in enumerate(value.shape)]
    padding = tuple(sides[axis] for axis in (value.order if made.whole else value.order[1:]))
    return made.add(call, Pad(padding, mode, float(fill or 0.0)), [value], shape, value.order)


@operator("ReduceMean")
def _reduce_mean(made: Translation, call: Call) -> Value:
    value = made.unflattened(call.value())
    rank, keep = len(value.shape), bool(call.attribute("keepdims", 1))
    axes, nothing = call.setting(1, "axes"), call.attribute("noop_with_empty_axes", 0)
    if not axes and nothing:
        return value
    gone = sorted({axis % rank for axis in axes or range(rank)})
    places = tuple(made.place(value, axis) for axis in gone)
    if keep:
        shape = [1 if axis in gone else size for axis, size in enumerate(value.shape)]
        return made.add(call, Mean(places, keepdims=True), [value], shape, value.order)
    left = [axis for axis in range(rank) if axis not in gone]
    order = [left.index(axis) for axis in value.order if axis in left]
    return made.add(call, Mean(places), [value], [value.shape[axis] for axis in left], order)
