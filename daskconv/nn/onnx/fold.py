"""Fold what is known: arithmetic on shapes, and constants, by ONNX's own reference implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskconv.errors import InputError
from daskconv.nn.onnx.values import IMAGES, ImagesMixed, Value

LONG = ("ConstantOfShape", "Expand", "Range")
"""Operators that make arrays as long as their operands say."""


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
    feed = {name: operand for name, operand in zip(node.input, operands, strict=True) if name}
    try:
        return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, feed)]
    except Exception as error:
        name = node.name or node.output[0]
        raise InputError(
            f"ONNX operator {node.op_type} (node {name!r}) cannot be worked out from its constants: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}."
        ) from None


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
