"""ONNX operators that multiply matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.nn.layers import Add, Dense, MatMul, Multiply
from daskconv.nn.onnx.elementwise import scaled
from daskconv.nn.onnx.translate import Call, Translation, operator
from daskconv.nn.onnx.values import ImagesMixed, Value


def _dense(made: Translation, call: Call, value: Value, weight: NDArray, bias: NDArray | None) -> Value:
    """Multiply rows of features, one an image, with a matrix (features, units)."""
    if value.flat:
        # The features lie in the order h, w, c: the weights are brought into it once.
        c, h, w = value.flat
        weight = weight.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(c * h * w, -1)
    units = weight.shape[1]
    params = {"weight": weight}
    if bias is not None:
        params["bias"] = np.broadcast_to(bias.reshape(-1), (units,))
    layer = Dense(units, bias is not None)
    return made.add(call, layer, [value], (value.shape[0], units), None, params)


@operator("Gemm")
def _gemm(made: Translation, call: Call) -> Value:
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    turned = call.attribute("transA", 0), call.attribute("transB", 0)
    value, weight, bias = call.value(), call.operand(1), call.constant(2)
    simple = not made.whole and not turned[0] and isinstance(weight, np.ndarray)
    if simple and (bias is None or bias.size in (1, *bias.shape[-1:])):
        assert isinstance(weight, np.ndarray)
        matrix = scaled(weight.T if turned[1] else weight, alpha)
        assert matrix is not None
        return _dense(made, call, value, matrix, scaled(bias, beta))
    if not made.whole:
        raise ImagesMixed("It multiplies images with each other, or adds a number for each.")
    parts = [
        _matrix(made, operand, turn, value) for operand, turn in zip((value, weight), turned, strict=True)
    ]
    shape = (parts[0].shape[0], parts[1].shape[1])
    product = made.add(call, MatMul(), parts, shape)
    if alpha != 1:
        factor = made.constant(np.array(alpha, np.float32), product)
        product = made.add("scaled", Multiply(), [product, factor], shape)
    if bias is None:
        return product
    return made.add("offset", Add(), [product, made.constant(scaled(bias, beta), product)], shape)  # type: ignore[arg-type]


def _matrix(made: Translation, operand: Any, turn: int, like: Value) -> Value:
    value = (
        made.natural(operand) if isinstance(operand, Value) else made.constant(operand, made.natural(like))
    )
    if turn:
        value = Value(value.node, value.shape[::-1], tuple(1 - axis for axis in value.order))
    return made.natural(value)


@operator("MatMul")
def _matmul(made: Translation, call: Call) -> Value:
    value, other = call.operand(0), call.operand(1)
    if (
        not made.whole
        and isinstance(value, Value)
        and len(value.shape) == 2
        and isinstance(other, np.ndarray)
        and other.ndim == 2
    ):
        return _dense(made, call, value, other, None)
    if not made.whole and any(
        len(operand.shape) < 3 for operand in (value, other) if isinstance(operand, Value)
    ):
        raise ImagesMixed("It multiplies images with each other.")
    like = made.natural(next(operand for operand in (value, other) if isinstance(operand, Value)))
    parts = [_stack(made, operand, like, place) for place, operand in enumerate((value, other))]
    rank = max(len(part.shape) for part in parts)
    parts = [
        made.natural(made.reshaped(part, (1,) * (rank - len(part.shape)) + part.shape)) for part in parts
    ]
    stacks = np.broadcast_shapes(*(part.shape[:-2] for part in parts))
    shape = (*stacks, parts[0].shape[-2], parts[1].shape[-1])
    product = made.add(call, MatMul(), parts, shape)
    # A vector on one side was a matrix of one row or column.
    single = [operand is not None and len(operand.shape) == 1 for operand in (value, other)]
    final = [*stacks, *([] if single[0] else [shape[-2]]), *([] if single[1] else [shape[-1]])]
    return made.reshaped(product, final) if any(single) else product


def _stack(made: Translation, operand: Any, like: Value, place: int) -> Value:
    """Return an operand as matrices; a vector becomes one row on the left, one column on the right."""
    shape = operand.shape if len(operand.shape) > 1 else ((1, *operand.shape), (*operand.shape, 1))[place]
    if isinstance(operand, Value):
        return made.natural(made.reshaped(operand, shape))
    array = operand.reshape(shape)
    if not made.whole:
        array = array.reshape((1,) * (len(like.shape) - array.ndim) + array.shape)
    rank = max(len(like.shape), array.ndim)
    frame = Value(like.node, (1,) * rank, tuple(range(rank)))
    return made.constant(array, frame)
