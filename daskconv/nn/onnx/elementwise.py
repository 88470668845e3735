"""ONNX operators on each element, and those that join values of one shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.nn.layers import (
    ELU,
    Add,
    Clip,
    Divide,
    Dropout,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSoftmax,
    Multiply,
    PReLU,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    Subtract,
    Tanh,
)
from daskconv.nn.layers.base import Layer
from daskconv.nn.onnx.translate import Call, Translation, operator, shown
from daskconv.nn.onnx.values import ImagesMixed, Value


def _same(made: Translation, call: Call, layer: Layer) -> Value:
    """Run a layer that keeps shape, order and flatness."""
    value = call.value()
    result = made.add(call, layer, [value], value.shape, value.order)
    return Value(result.node, result.shape, result.order, value.flat)


@operator("Relu")
def _relu(made: Translation, call: Call) -> Value:
    return _same(made, call, ReLU())


@operator("LeakyRelu")
def _leaky_relu(made: Translation, call: Call) -> Value:
    return _same(made, call, LeakyReLU(call.attribute("alpha", 0.01)))


@operator("Elu")
def _elu(made: Translation, call: Call) -> Value:
    return _same(made, call, ELU(call.attribute("alpha", 1.0)))


@operator("Sigmoid")
def _sigmoid(made: Translation, call: Call) -> Value:
    return _same(made, call, Sigmoid())


@operator("HardSigmoid")
def _hard_sigmoid(made: Translation, call: Call) -> Value:
    return _same(made, call, HardSigmoid(call.attribute("alpha", 0.2), call.attribute("beta", 0.5)))


@operator("HardSwish")
def _hard_swish(made: Translation, call: Call) -> Value:
    return _same(made, call, HardSwish())


@operator("Tanh")
def _tanh(made: Translation, call: Call) -> Value:
    return _same(made, call, Tanh())


@operator("Clip")
def _clip(made: Translation, call: Call) -> Value:
    low, high = call.setting(1, "min"), call.setting(2, "max")
    if low is not None and high is not None and low > high:
        low = high  # ONNX: the upper limit wins
    return _same(made, call, Clip(low, high))


@operator("Identity")
def _identity(made: Translation, call: Call) -> Value:
    return call.value()


@operator("Cast")
def _cast(made: Translation, call: Call) -> Value:
    from onnx import TensorProto

    call.attribute("saturate")
    if call.attribute("to") != TensorProto.FLOAT:
        raise call.refusal("it makes something else than float32 of a computed value")
    return call.value()


@operator("Dropout")
def _dropout(made: Translation, call: Call) -> Value:
    call.attribute("seed")
    training = call.constant(2)
    ratio = call.setting(1, "ratio", 0.5)
    if training is not None and bool(training):
        raise call.refusal("it drops values by numbers of its own")
    return _same(made, call, Dropout(float(ratio)))


@operator("Softmax", "LogSoftmax")
def _softmax(made: Translation, call: Call) -> Value:
    layer = Softmax if call.kind == "Softmax" else LogSoftmax
    value = call.value()
    rank = len(value.shape)
    axis = call.attribute("axis", -1 if call.opset >= 13 else 1) % rank
    if call.opset >= 13 or axis == rank - 1:
        value = made.unflattened(value)
        return made.add(call, layer(made.place(value, axis)), [value], value.shape, value.order)
    # Until opset 12, all axes from that one on are one.
    if not made.whole and axis != 1:
        raise ImagesMixed("It takes axes from 0 on, or leaves some out.")
    value = made.natural(value)
    sizes = made.per_image(value.shape, value.order)
    kept = sizes[: axis if made.whole else 0]
    joined = made.add("joined", Reshape((*kept, -1)), [value], value.shape)
    soft = made.add(call, layer(), [joined], value.shape)
    return made.add("parted", Reshape(sizes), [soft], value.shape)


@operator("PRelu")
def _prelu(made: Translation, call: Call) -> Value:
    slope, value = call.constant(1), made.unflattened(call.value())
    assert slope is not None
    rank = len(value.shape)
    aligned = slope.reshape((1,) * (rank - slope.ndim) + slope.shape)
    if rank == 4 and not made.whole and aligned.size == aligned.shape[1] == value.shape[1]:
        value = made.channels_last(value)
        return made.add(call, PReLU(), [value], value.shape, value.order, {"slope": aligned.reshape(-1)})
    up = made.add("positive", ReLU(), [value], value.shape, value.order)
    down = made.add("negative", Clip(high=0.0), [value], value.shape, value.order)
    tilted = made.add("tilted", Multiply(), [down, made.constant(slope, value)], value.shape, value.order)
    return made.add(call, Add(), [up, tilted], value.shape, value.order)


LAYERS: dict[str, Layer] = {"Add": Add(), "Sum": Add(), "Mul": Multiply(), "Sub": Subtract(), "Div": Divide()}


@operator("Add", "Sum", "Mul", "Sub", "Div")
def _join(made: Translation, call: Call) -> Value:
    """Join values by broadcasting, each in the order of the first that is not a constant."""
    values = [made.unflattened(operand) for operand in call.operands if isinstance(operand, Value)]
    if len(call.operands) == 1:
        return values[0]
    rank = max(len(operand.shape) for operand in call.operands if operand is not None)
    call.operands = [
        made.for_any_number(operand, rank) if isinstance(operand, np.ndarray) else operand
        for operand in call.operands
    ]
    shape = _broadcast(made, call)
    like = max(values, key=lambda value: len(value.shape))
    if len(like.shape) < len(shape):
        like = made.reshaped(like, (1,) * (len(shape) - len(like.shape)) + like.shape)
    operands = [
        _alike(made, made.unflattened(operand) if isinstance(operand, Value) else operand, like)
        for operand in call.operands
    ]
    return made.add(call, LAYERS[call.kind], operands, shape, like.order)


def _alike(made: Translation, operand: Any, like: Value) -> Value:
    if not isinstance(operand, Value):
        return made.constant(np.asarray(operand), like)
    if len(operand.shape) < len(like.shape):
        operand = made.reshaped(operand, (1,) * (len(like.shape) - len(operand.shape)) + operand.shape)
    return made.arranged(operand, like.order)


def _broadcast(made: Translation, call: Call) -> tuple[int, ...]:
    shapes = [operand.shape for operand in call.operands if isinstance(operand, Value | np.ndarray)]
    values = [operand.shape for operand in call.operands if isinstance(operand, Value)]
    rank = max(map(len, shapes))
    if not made.whole and any(len(shape) != rank for shape in values):
        raise ImagesMixed(f"It joins values of shapes {' and '.join(map(shown, shapes))}.")
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        if made.whole:
            raise call.refusal(f"it joins shapes that do not fit, {shapes}") from None
        raise ImagesMixed(f"It joins values of shapes {' and '.join(map(shown, shapes))}.") from None


def scaled(array: NDArray | None, factor: float) -> NDArray | None:
    """Return an array times a factor, in its dtype."""
    return None if array is None else (array * np.asarray(factor, array.dtype)).astype(array.dtype)
