"""Fold what is known: arithmetic on shapes, and constants, by ONNX's own reference implementation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.onnx.values import IMAGES, ImagesMixed, Value

LONG = ("ConstantOfShape", "Expand", "Range")
"""Operators that make arrays as long as their operands say."""

MOST_FOLDED = 2**28
"""Values of a constant that is worked out, 1 GB in float32."""

_SIZES = 64  # values of an operand that may be sizes of axes


def fold(node: Any, operands: Sequence[Any], opset: int) -> list[NDArray]:
    """Return a node's outputs where all its operands, or their shapes, are known."""
    if node.op_type == "Shape" and isinstance(operands[0], Value):
        return [_shape(node, operands[0])]
    if node.op_type in LONG and any(_counts_images(operand) for operand in operands):
        raise ImagesMixed(
            f"ONNX operator {node.op_type} (node {node.name or node.output[0]!r}) mixes images: it makes values for "
            "each image out of their number."
        )
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [name for name in node.input if name]
    graph = onnx.helper.make_graph(
        [node],
        "folded",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in dict.fromkeys(names)],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    _check_size(onnx, model, node, operands)
    feed = {name: operand for name, operand in zip(node.input, operands, strict=True) if name}
    try:
        return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, feed)]
    except Exception as error:
        name = node.name or node.output[0]
        raise InputError(
            f"ONNX operator {node.op_type} (node {name!r}) cannot be worked out from its constants: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}."
        ) from None


def _check_size(onnx: Any, model: Any, node: Any, operands: Sequence[Any]) -> None:
    """Raise InputError where a few bytes would become more values than any weights have.

    How large results are is told by ONNX's own inference of shapes, which reads integers as the sizes they are.
    """
    known = {name: operand for name, operand in zip(node.input, operands, strict=True) if name}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.input[:]
    for name, array in known.items():
        if array.size <= _SIZES:
            probe.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        else:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            probe.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    try:
        inferred = onnx.shape_inference.infer_shapes(probe, data_prop=True)
    except Exception:  # what cannot be inferred is told when it is worked out
        return
    for entry in inferred.graph.output:
        sizes = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        if prod(sizes) > MOST_FOLDED:
            raise InputError(
                f"ONNX operator {node.op_type} (node {node.name or node.output[0]!r}) makes a constant of shape "
                f"{tuple(sizes)}, which is more than any weights have: export the model without it."
            )


def _counts_images(operand: Any) -> bool:
    """Return whether integers hold a number as large as that of the images while shapes are worked out."""
    return operand is not None and operand.dtype.kind == "i" and bool((operand >= IMAGES).any())


def _shape(node: Any, value: Value) -> NDArray[np.int64]:
    limits = {attribute.name: attribute.i for attribute in node.attribute}
    rank = len(value.shape)
    start, end = (
        min(max(limit + rank * (limit < 0), 0), rank)
        for limit in (limits.get("start", 0), limits.get("end", rank))
    )
    return np.array(value.shape[start:end], np.int64)
